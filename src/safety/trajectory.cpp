#include "safety/trajectory.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <optional>

#include "base/json.h"
#include "safety/model_file.h"

// clang-format off
asm(".section .rodata.hearth_trajectory_model,\"a\",@progbits\n"
    ".global hearth_trajectory_model_begin\n"
    "hearth_trajectory_model_begin:\n"
    ".incbin \"" HEARTH_TRAJECTORY_MODEL "\"\n"
    ".global hearth_trajectory_model_end\n"
    "hearth_trajectory_model_end:\n"
    ".previous\n");
// clang-format on

extern "C" {
extern const char hearth_trajectory_model_begin[];
extern const char hearth_trajectory_model_end[];
}

namespace hearth::safety {
namespace {

// What a step does, for the chain: its most serious effect, some of them told apart by what they act on.
enum State : std::size_t { read_sensitive = effect_count, look_at_system, encode, start, state_count };
constexpr std::array<std::string_view, state_count - effect_count> further_names = {"read_sensitive", "look_at_system", "encode", "start"};

constexpr std::size_t longest_window = 8;  // transitions that are judged together
constexpr std::size_t shortest_count = 4;  // fewer share their sum among so many
constexpr std::size_t most_steps = 32;
constexpr double smoothing = 4;      // transitions' worth of the states' own frequencies
constexpr double prior = 0.5;        // of each state, in either chain
constexpr double highest_ratio = 4;  // nats one step can add: no single surprise decides
constexpr double shown_from = 0.5;
constexpr std::size_t repeats_of_a_loop = 5;

std::string_view state_name(std::size_t state) {
  return state < effect_count ? name(static_cast<Effect>(state)) : further_names[state - effect_count];
}
std::optional<std::size_t> state_from_name(std::string_view text) {
  for (std::size_t i = 0; i < state_count; ++i) {
    if (state_name(i) == text) return i;
  }
  return std::nullopt;
}

bool names_a_secret(std::string_view target) {
  std::string lower(target);
  std::transform(lower.begin(), lower.end(), lower.begin(), [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  for (const std::string_view harmless : {".example", ".sample", ".template", "secrets.md", "tokenizer", "/test", "tests/"}) {
    if (lower.find(harmless) != std::string::npos) return false;
  }
  for (const std::string_view word :
       {".env",     "secret",   "credential", "passw",        "token",    "id_rsa",     "id_ed25519",  ".pem",    ".key",
        "private",  "keystore", ".kube",      ".aws",         ".ssh",     ".netrc",     ".npmrc",      ".pgpass", "wallet",
        "customer", "payroll",  "salar",      "confidential", "dump.sql", "backup.sql", "/etc/shadow", "cookies"}) {
    if (lower.find(word) != std::string::npos) return true;
  }
  return false;
}
bool is_of_the_system(std::string_view target) {
  for (const std::string_view root : {"/etc", "/proc", "/sys", "/root", "/var", "/home", "/boot", "/"}) {
    if (target == root || (root.size() > 1 && target.starts_with(root) && target.size() > root.size() && target[root.size()] == '/')) {
      return !target.starts_with("/home/") || std::count(target.begin(), target.end(), '/') <= 2;
    }
  }
  return false;
}
bool packs(std::string_view program) {
  for (const std::string_view known : {"base64", "base32", "xxd", "od", "hexdump", "gzip", "bzip2", "xz", "zstd", "tar", "zip", "7z",
                                       "openssl", "gpg", "uuencode", "rev", "split"}) {
    if (program == known) return true;
  }
  return false;
}
bool looks_at_system(std::string_view program) {
  for (const std::string_view known :
       {"whoami", "id", "uname", "hostname", "ifconfig", "ip", "netstat", "ss",   "ps",    "env",   "printenv", "getent", "lsof",
        "mount",  "df", "sudo",  "last",     "who",      "w",  "arp",     "nmap", "lsblk", "dmesg", "crontab",  "groups"}) {
    if (program == known) return true;
  }
  return false;
}

// In rising seriousness among ordinary effects.
int seriousness(Effect effect) {
  if (is_dangerous(effect)) return 100 + static_cast<int>(dangerous_effects) - static_cast<int>(effect);
  switch (effect) {
    case Effect::unknown: return 50;
    case Effect::send: return 12;
    case Effect::fetch: return 11;
    case Effect::remove: return 10;
    case Effect::install: return 9;
    case Effect::change: return 8;
    case Effect::write: return 7;
    case Effect::execute: return 6;
    case Effect::query: return 5;
    case Effect::read: return 4;
    case Effect::list: return 3;
    default: return 1;
  }
}

std::size_t state_of(const Step& step) {
  std::size_t state = static_cast<std::size_t>(Effect::compute);
  int most = 0;
  for (const auto effect : step.effects) {
    if (seriousness(effect) > most) most = seriousness(effect), state = static_cast<std::size_t>(effect);
  }
  if (most > 10) return state;
  const bool reads = std::find(step.effects.begin(), step.effects.end(), Effect::read) != step.effects.end();
  if (reads && names_a_secret(step.target)) return read_sensitive;
  if (packs(step.program) && most <= 7) return encode;
  if (state == static_cast<std::size_t>(Effect::list) || state == static_cast<std::size_t>(Effect::read)) {
    if (is_of_the_system(step.target) || looks_at_system(step.program)) return look_at_system;
  }
  return state;
}

std::string in_words(const Step& step, std::size_t state) {
  std::string text(state_name(state));
  std::replace(text.begin(), text.end(), '_', ' ');
  if (!step.target.empty()) text += " " + step.target.substr(0, 60);
  return text;
}

struct Chain {
  std::array<std::array<double, state_count>, state_count> counts{};

  double of(std::size_t state) const {  // how often a state is entered
    double sum = prior, all = prior * static_cast<double>(state_count);
    for (std::size_t i = 0; i < state_count; ++i) {
      sum += counts[i][state];
      for (const double count : counts[i]) all += count;
    }
    return sum / all;
  }
};

}  // namespace

Step step_of(const Call& call, const Assessment& assessment) {
  Step step;
  int most = -1;
  for (const auto& observation : assessment.observations) {
    if (std::find(step.effects.begin(), step.effects.end(), observation.effect) == step.effects.end())
      step.effects.push_back(observation.effect);
    // A secret that is read tells more than what else was read.
    const bool is_secret = observation.effect == Effect::read && names_a_secret(observation.target);
    const int rank = seriousness(observation.effect) + (is_secret ? 4 : 0);
    if (rank > most) {
      most = rank;
      step.target = observation.target;
    }
    if (packs(observation.program) || step.program.empty()) step.program = observation.program;
  }
  if (!assessment.problem.empty()) step.effects.push_back(Effect::unknown);
  std::uint64_t hash = 0xCBF29CE484222325ULL;
  for (const std::string* part : {&call.name, &call.arguments}) {
    for (const char c : *part) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3ULL;
    hash = (hash ^ 0xFF) * 0x100000001B3ULL;
  }
  char digest[17];
  std::snprintf(digest, sizeof digest, "%016llx", static_cast<unsigned long long>(hash));
  step.digest = digest;
  return step;
}

class Trajectory::Impl {
 public:
  Chain ordinary, attack;
  std::string provenance;
  std::array<std::array<double, state_count>, state_count> ratios{};  // log of attack to ordinary, of a transition

  void prepare() {
    std::array<double, state_count> in_ordinary{}, in_attack{};
    for (std::size_t i = 0; i < state_count; ++i) in_ordinary[i] = ordinary.of(i), in_attack[i] = attack.of(i);
    for (std::size_t from = 0; from < state_count; ++from) {
      double all_ordinary = smoothing, all_attack = smoothing;
      for (std::size_t to = 0; to < state_count; ++to) all_ordinary += ordinary.counts[from][to], all_attack += attack.counts[from][to];
      for (std::size_t to = 0; to < state_count; ++to) {
        const double a = (attack.counts[from][to] + smoothing * in_attack[to]) / all_attack;
        const double o = (ordinary.counts[from][to] + smoothing * in_ordinary[to]) / all_ordinary;
        ratios[from][to] = std::clamp(std::log(a / o), -highest_ratio, highest_ratio);
      }
    }
  }

  // How often the last calls repeat, as a cycle of one to three calls.
  static std::size_t repeats(std::span<const Step> steps, std::size_t& period) {
    std::size_t best = 1;
    for (std::size_t p = 1; p <= 3 && p < steps.size(); ++p) {
      std::size_t equal = 0;
      while (equal + p < steps.size() && !steps[steps.size() - 1 - equal].digest.empty() &&
             steps[steps.size() - 1 - equal].digest == steps[steps.size() - 1 - equal - p].digest) {
        ++equal;
      }
      if (equal / p + 1 > best) best = equal / p + 1, period = p;
    }
    return best;
  }
};

Trajectory::Trajectory(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Trajectory::Trajectory(Trajectory&&) noexcept = default;
Trajectory& Trajectory::operator=(Trajectory&&) noexcept = default;
Trajectory::~Trajectory() = default;

Trajectory Trajectory::untrained() {
  auto impl = std::make_unique<Impl>();
  impl->prepare();
  return Trajectory(std::move(impl));
}

Result<Trajectory> Trajectory::shipped() {
  return parse({hearth_trajectory_model_begin, static_cast<std::size_t>(hearth_trajectory_model_end - hearth_trajectory_model_begin)},
               "the shipped trajectory model");
}

Result<Trajectory> Trajectory::load(const std::string& path) {
  auto text = read_model_file(path);
  if (!text) return std::move(text).error();
  return parse(*text, path);
}

Result<Trajectory> Trajectory::parse(std::string_view text, std::string_view name) {
  const auto wrong = [&](std::string why) {
    return Error{
        ErrorCode::config_invalid, std::string(name) + " is no trajectory model: " + why + "; remove it to go on with the shipped one", {}};
  };
  auto document = parse_json(text);
  if (!document) return wrong(document.error().message);
  const auto* object = document->if_object();
  const auto* version = object == nullptr ? nullptr : object->if_contains("hearth_trajectory");
  if (version == nullptr || !version->is_number() || version->to_number<double>() != 1) return wrong("\"hearth_trajectory\": 1 is missing");
  auto impl = std::make_unique<Impl>();
  if (const auto* provenance = object->if_contains("provenance"); provenance != nullptr && provenance->is_string())
    impl->provenance = provenance->as_string();
  for (const auto& [key, chain] : {std::pair<std::string_view, Chain*>{"ordinary", &impl->ordinary}, {"attack", &impl->attack}}) {
    const auto* rows = object->if_contains(key);
    if (rows == nullptr || !rows->is_object()) return wrong("\"" + std::string(key) + "\" is missing");
    for (const auto& row : rows->as_object()) {
      const auto from = state_from_name(row.key());
      if (!from || !row.value().is_object()) return wrong("\"" + std::string(row.key()) + "\" is no state with its successors");
      for (const auto& cell : row.value().as_object()) {
        const auto to = state_from_name(cell.key());
        const double count = cell.value().is_number() ? cell.value().to_number<double>() : -1;
        if (!to || !(count >= 0 && count <= 1e12))
          return wrong("\"" + std::string(cell.key()) + "\" after \"" + std::string(row.key()) + "\" is no state with its count");
        chain->counts[*from][*to] = count;
      }
    }
  }
  impl->prepare();
  return Trajectory(std::move(impl));
}

Result<void> Trajectory::save(const std::string& path) const {
  json::object document{{"hearth_trajectory", 1}, {"provenance", impl_->provenance}};
  for (const auto& [key, chain] : {std::pair<std::string_view, const Chain*>{"ordinary", &impl_->ordinary}, {"attack", &impl_->attack}}) {
    json::object rows;
    for (std::size_t from = 0; from < state_count; ++from) {
      json::object row;
      for (std::size_t to = 0; to < state_count; ++to) {
        if (chain->counts[from][to] > 0) row[state_name(to)] = chain->counts[from][to];
      }
      if (!row.empty()) rows[state_name(from)] = std::move(row);
    }
    document[key] = std::move(rows);
  }
  std::string text;
  append_json(text, document);
  return write_model_file(path, text + "\n");
}

Course Trajectory::judge(std::span<const Step> steps) const {
  Course course;
  const bool from_start = steps.size() <= most_steps;
  if (!from_start) steps = steps.last(most_steps);
  if (steps.empty()) return course;
  std::vector<std::size_t> states;
  states.push_back(from_start ? static_cast<std::size_t>(start) : state_of(steps[0]));
  for (const auto& step : steps.subspan(from_start ? 0 : 1)) states.push_back(state_of(step));
  // The worst of the windows that end with the call to judge.
  double sum = 0;
  std::size_t length = 0;
  for (std::size_t n = 1; n < states.size() && n <= longest_window; ++n) {
    sum += impl_->ratios[states[states.size() - n - 1]][states[states.size() - n]];
    const double score = sum / static_cast<double>(std::max(n, shortest_count));
    if (n == 1 || score > course.score) course.score = score, length = n;
  }
  std::size_t period = 1;
  const std::size_t repeated = Impl::repeats(steps, period);
  if (repeated >= repeats_of_a_loop) {
    // Five times are worth a look, nine a question.
    const double score = 1 + 0.25 * static_cast<double>(repeated - repeats_of_a_loop);
    if (score > course.score) {
      course.score = score;
      course.shape = "loop";
      course.reason = (period == 1 ? std::string("the same call") : "the same " + std::to_string(period) + " calls") + " " +
                      std::to_string(repeated) + " times in a row: " + in_words(steps.back(), state_of(steps.back()));
      return course;
    }
  }
  if (course.score < shown_from) return course;
  const std::size_t first = steps.size() > length ? steps.size() - 1 - length : 0;
  bool secret = false, system = false;
  std::size_t removals = 0;
  for (std::size_t i = first; i < steps.size(); ++i) {
    const std::size_t state = state_of(steps[i]);
    secret = secret || state == read_sensitive || state == static_cast<std::size_t>(Effect::credential_access);
    system = system || state == look_at_system;
    removals +=
        state == static_cast<std::size_t>(Effect::remove) || state == static_cast<std::size_t>(Effect::filesystem_destruction) ? 1 : 0;
    if (!course.reason.empty()) course.reason += ", then ";
    course.reason += in_words(steps[i], state);
  }
  const std::size_t last = states.back();
  const bool leaves = last == static_cast<std::size_t>(Effect::send) || last == static_cast<std::size_t>(Effect::fetch) ||
                      last == static_cast<std::size_t>(Effect::exfiltration);
  const bool climbs = last == static_cast<std::size_t>(Effect::privilege_escalation) || last == read_sensitive ||
                      last == static_cast<std::size_t>(Effect::credential_access) || last == static_cast<std::size_t>(Effect::persistence);
  course.shape = secret && leaves ? "exfiltration" : removals >= 4 ? "deletion" : system && climbs ? "escalation" : "drift";
  return course;
}

void Trajectory::learn(std::span<const Step> steps, bool refused) {
  Chain& chain = refused ? impl_->attack : impl_->ordinary;
  std::size_t from = start;
  for (const auto& step : steps) {
    const std::size_t to = state_of(step);
    chain.counts[from][to] += 1;
    from = to;
  }
  impl_->prepare();
}

void Trajectory::set_provenance(std::string text) { impl_->provenance = std::move(text); }

}  // namespace hearth::safety
