#include "safety/guard.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <vector>

#include "base/json.h"
#include "safety/model_file.h"
#include "safety/tools.h"

// clang-format off
asm(".section .rodata.hearth_guard_model,\"a\",@progbits\n"
    ".balign 16\n"
    ".global hearth_guard_model_begin\n"
    "hearth_guard_model_begin:\n"
    ".incbin \"" HEARTH_GUARD_MODEL "\"\n"
    ".global hearth_guard_model_end\n"
    "hearth_guard_model_end:\n"
    ".previous\n");
// clang-format on

extern "C" {
extern const char hearth_guard_model_begin[];
extern const char hearth_guard_model_end[];
}

namespace hearth::safety {
namespace {

static_assert(std::endian::native == std::endian::little, "model files hold little-endian numbers");

constexpr int bits = 15;
constexpr std::size_t table_size = std::size_t{1} << bits;
constexpr std::string_view magic = "hearth guard 1\n";
constexpr std::size_t longest_text = 2048;  // of a call's arguments that is looked at
constexpr std::size_t most_words = 160;
constexpr float learning_rate = 0.3F;
constexpr float first_accumulator = 0.1F;  // of a model that is trained from nothing
constexpr float kept_accumulator = 1;      // of one that comes without its steps: a word of an operator moves it gently

constexpr std::uint64_t fnv(std::string_view text, std::uint64_t seed) {
  std::uint64_t hash = seed ^ 0xCBF29CE484222325ULL;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3ULL;
  hash ^= hash >> 29;
  return hash * 0xBF58476D1CE4E5B9ULL;
}

class Features {
 public:
  void add(std::string_view kind, std::string_view value) {
    indices_.push_back(static_cast<std::uint32_t>(fnv(value, fnv(kind, 0)) >> (64 - bits)));
  }
  void add(std::string_view kind, std::string_view a, std::string_view b) {
    indices_.push_back(static_cast<std::uint32_t>(fnv(b, fnv(a, fnv(kind, 1))) >> (64 - bits)));
  }
  // Each once.
  std::vector<std::uint32_t> finish() {
    std::sort(indices_.begin(), indices_.end());
    indices_.erase(std::unique(indices_.begin(), indices_.end()), indices_.end());
    return std::move(indices_);
  }

 private:
  std::vector<std::uint32_t> indices_;
};

constexpr bool is_word_character(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '.' || c == '/' || c == '~' ||
         c == '-' || c == '$';
}

// Lower case, digits as one: "v12" and "v7" are the same word.
std::string plain_word(std::string_view word) {
  std::string plain;
  for (const char c : word) {
    if (c >= '0' && c <= '9') {
      if (plain.empty() || plain.back() != '0') plain += '0';
    } else {
      plain += c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
    }
  }
  return plain;
}

// What kind of place a target is; names within the workspace say nothing.
void add_place(Features& features, std::string_view effect, std::string_view target, const Surroundings& where) {
  if (target.empty()) return features.add("place", effect, "none");
  if (target.front() != '/') return features.add("place", effect, target.find('.') != std::string_view::npos ? "host" : "name");
  std::string_view area = "system";
  if (!where.working_folder.empty() && target.starts_with(where.working_folder)) {
    area = "workspace";
  } else if (target.starts_with(where.home)) {
    area = "home";
  } else if (target.starts_with("/tmp")) {
    area = "temporary";
  } else if (target.starts_with("/dev")) {
    area = "device";
  }
  features.add("place", effect, area);
  const std::string_view file = target.substr(target.rfind('/') + 1);
  if (file.starts_with(".")) features.add("place", effect, "hidden");
  if (const auto dot = file.rfind('.'); dot != std::string_view::npos && dot > 0) features.add("ending", effect, file.substr(dot));
  if (area != "workspace")
    features.add("folder", effect, target.substr(0, std::min(target.find('/', target.find('/', 1) + 1), target.size())));
}

std::vector<std::uint32_t> features_of(const Action& action, const Assessment& assessment) {
  Features features;
  features.add("bias", "");
  features.add("tool", plain_name(own_name(action.call.name)));
  if (action.tainted) features.add("tainted", "");
  if (action.remote_model) features.add("remote", "");
  if (!action.classification.empty()) features.add("classified", "");
  for (const auto& observation : assessment.observations) {
    const std::string effect = std::string(name(observation.effect)) + (observation.certain ? "" : "?");
    features.add("effect", effect);
    features.add("program", observation.program);
    features.add("program and effect", observation.program, effect);
    add_place(features, effect, observation.target, action.where);
    if (action.tainted) features.add("tainted effect", effect);
  }
  for (std::size_t i = 1; i < assessment.observations.size() && i < 16; ++i) {
    features.add("effects", name(assessment.observations[i - 1].effect), name(assessment.observations[i].effect));
  }
  // The arguments as text. JSON's escapes are common and mean what they stand for.
  std::string text;
  const std::string_view arguments = std::string_view(action.call.arguments).substr(0, longest_text);
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    if (arguments[i] == '\\' && i + 1 < arguments.size()) {
      const char next = arguments[++i];
      text += next == 'n' || next == 't' || next == 'r' ? ' ' : next;
    } else {
      text += arguments[i];
    }
  }
  std::string before;
  std::size_t words = 0;
  for (std::size_t i = 0; i < text.size() && words < most_words;) {
    if (!is_word_character(text[i])) {
      const std::string_view sign = std::string_view(text).substr(i, 1);
      if (std::string_view("|;&><*`(").find(sign[0]) != std::string_view::npos) {
        features.add("sign", before, sign);
        before = sign;
      }
      ++i;
      continue;
    }
    std::size_t end = i;
    while (end < text.size() && is_word_character(text[end])) ++end;
    const std::string_view raw = std::string_view(text).substr(i, end - i);
    const std::string word = plain_word(raw.substr(0, 64));
    ++words;
    features.add("word", word);
    features.add("pair", before, word);
    // Parts of a path, and stretches of a word.
    if (const auto slash = word.rfind('/'); slash != std::string::npos) {
      features.add("word", std::string_view(word).substr(slash + 1));
      features.add("root", word.substr(0, word.find('/', 1)));
    }
    for (std::size_t k = 0; word.size() >= 4 && k + 4 <= word.size() && k < 24; ++k)
      features.add("stretch", std::string_view(word).substr(k, 4));
    before = word;
    i = end;
  }
  return features.finish();
}

double logistic(double x) { return 1 / (1 + std::exp(-std::clamp(x, -40.0, 40.0))); }

}  // namespace

class Guard::Impl {
 public:
  std::vector<float> weights = std::vector<float>(table_size);
  std::vector<float> accumulators = std::vector<float>(table_size, first_accumulator);
  double slope = 1, offset = 0;
  std::string provenance;

  // Features share one unit of length, so that long calls are not judged by their length.
  static float value(std::size_t features) { return 1 / std::sqrt(static_cast<float>(features)); }
  double score(const std::vector<std::uint32_t>& features) const {
    double sum = 0;
    for (const auto index : features) sum += static_cast<double>(weights[index]);
    return sum * static_cast<double>(value(features.size()));
  }
};

Guard::Guard(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Guard::Guard(Guard&&) noexcept = default;
Guard& Guard::operator=(Guard&&) noexcept = default;
Guard::~Guard() = default;

Guard Guard::untrained() { return Guard(std::make_unique<Impl>()); }

Result<Guard> Guard::shipped() {
  return parse({hearth_guard_model_begin, static_cast<std::size_t>(hearth_guard_model_end - hearth_guard_model_begin)},
               "the shipped guard model");
}

Result<Guard> Guard::load(const std::string& path) {
  auto bytes = read_model_file(path);
  if (!bytes) return std::move(bytes).error();
  return parse(*bytes, path);
}

Result<Guard> Guard::parse(std::string_view bytes, std::string_view name) {
  const auto wrong = [&](std::string why) {
    return Error{
        ErrorCode::config_invalid, std::string(name) + " is no guard model: " + why + "; remove it to go on with the shipped one", {}};
  };
  if (!bytes.starts_with(magic)) return wrong("it does not begin with \"hearth guard 1\"");
  bytes.remove_prefix(magic.size());
  const std::size_t line = bytes.find('\n');
  if (line == std::string_view::npos) return wrong("its header is cut off");
  auto header = parse_json(bytes.substr(0, line));
  if (!header || !header->is_object()) return wrong("its header is not a JSON object");
  bytes.remove_prefix(line + 1);
  const auto number = [&](std::string_view key) {
    const auto* value = header->as_object().if_contains(key);
    return value != nullptr && value->is_number() ? value->to_number<double>() : std::nan("");
  };
  auto impl = std::make_unique<Impl>();
  impl->slope = number("slope");
  impl->offset = number("offset");
  if (number("bits") != bits || !std::isfinite(impl->slope) || !std::isfinite(impl->offset) || impl->slope < 0)
    return wrong("its header lacks bits, slope or offset");
  const auto* steps = header->as_object().if_contains("steps");
  const bool with_steps = steps != nullptr && steps->is_bool() && steps->as_bool();
  if (const auto* text = header->as_object().if_contains("provenance"); text != nullptr && text->is_string())
    impl->provenance = text->as_string();
  if (bytes.size() != table_size * sizeof(float) * (with_steps ? 2 : 1))
    return wrong("its table has not the length that the header states");
  std::memcpy(impl->weights.data(), bytes.data(), table_size * sizeof(float));
  if (with_steps) {
    std::memcpy(impl->accumulators.data(), bytes.data() + table_size * sizeof(float), table_size * sizeof(float));
  } else {
    std::fill(impl->accumulators.begin(), impl->accumulators.end(), kept_accumulator);
  }
  for (std::size_t i = 0; i < table_size; ++i) {
    if (!std::isfinite(impl->weights[i]) || !(impl->accumulators[i] > 0) || !std::isfinite(impl->accumulators[i]))
      return wrong("its table holds what is no number");
  }
  return Guard(std::move(impl));
}

Result<void> Guard::save(const std::string& path, bool with_steps) const {
  const json::object header{
      {"bits", bits}, {"slope", impl_->slope}, {"offset", impl_->offset}, {"steps", with_steps}, {"provenance", impl_->provenance}};
  std::string bytes(magic);
  append_json(bytes, header);
  bytes += '\n';
  bytes.append(reinterpret_cast<const char*>(impl_->weights.data()), table_size * sizeof(float));
  if (with_steps) bytes.append(reinterpret_cast<const char*>(impl_->accumulators.data()), table_size * sizeof(float));
  return write_model_file(path, bytes);
}

double Guard::probability(const Action& action, const Assessment& assessment) const {
  return logistic(impl_->slope * impl_->score(features_of(action, assessment)) + impl_->offset);
}

void Guard::learn(const Action& action, const Assessment& assessment, bool refused) {
  const auto features = features_of(action, assessment);
  const float value = Impl::value(features.size());
  const auto error = static_cast<float>(logistic(impl_->score(features)) - (refused ? 1 : 0));
  const float gradient = error * value;
  for (const auto index : features) {
    impl_->accumulators[index] += gradient * gradient;
    impl_->weights[index] -= learning_rate * gradient / std::sqrt(impl_->accumulators[index]);
  }
}

void Guard::calibrate(double slope, double offset) {
  impl_->slope = slope;
  impl_->offset = offset;
}
const std::string& Guard::provenance() const { return impl_->provenance; }
void Guard::set_provenance(std::string text) { impl_->provenance = std::move(text); }

}  // namespace hearth::safety
