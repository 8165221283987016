#include "catalog/model.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <span>

#include "turboquant/format.h"
#include "turboquant/profile.h"

namespace hearth::catalog {
namespace {

// llama_ftype, by number; empty where support was removed.
constexpr std::array<std::string_view, 42> file_types{
    "F32",    "F16",     "Q4_0",   "Q4_1",   "",       "",       "",       "Q8_0",  "Q5_0",    "Q5_1",   "Q2_K",
    "Q3_K_S", "Q3_K_M",  "Q3_K_L", "Q4_K_S", "Q4_K_M", "Q5_K_S", "Q5_K_M", "Q6_K",  "IQ2_XXS", "IQ2_XS", "Q2_K_S",
    "IQ3_XS", "IQ3_XXS", "IQ1_S",  "IQ4_NL", "IQ3_S",  "IQ3_M",  "IQ2_S",  "IQ2_M", "IQ4_XS",  "IQ1_M",  "BF16",
    "",       "",        "",       "TQ1_0",  "TQ2_0",  "MXFP4",  "NVFP4",  "Q1_0",  "Q2_0"};

// A head count or length may stand once or by layer; out of range values would overflow the estimates.
constexpr std::int64_t sane_limit = std::int64_t{1} << 31;

std::int64_t sane(std::int64_t value) { return std::clamp<std::int64_t>(value, 0, sane_limit); }

std::vector<std::int64_t> by_layer(const Gguf& gguf, const std::string& key, std::int64_t layers, std::int64_t otherwise) {
  const auto* value = gguf.find(key);
  const auto* list = value != nullptr ? std::get_if<GgufArray>(value) : nullptr;
  std::vector<std::int64_t> out(static_cast<std::size_t>(layers), sane(gguf.integer(key, otherwise)));
  if (list != nullptr && !list->integers.empty()) {
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = sane(list->integers[std::min(i, list->integers.size() - 1)]);
  }
  return out;
}

std::string tool_format_of(std::string_view text) {
  const auto has = [&](std::string_view part) { return text.find(part) != std::string_view::npos; };
  if (has("<tool_call>")) return "hermes";
  if (has("[TOOL_CALLS]")) return "mistral";
  if (has("<|python_tag|>") || has("ipython")) return "llama3";
  if (has("tool▁calls▁begin")) return "deepseek";
  return has("tools") ? "other" : "";
}

// Whose blocks for multi-token prediction the pinned llama.cpp runs beside attention alone, and what it then takes for granted: where it does not find it,
// it ends the process.
struct MtpArchitecture {
  std::string_view name;
  bool several;  // or one block, no more
};
constexpr std::array mtp_architectures{MtpArchitecture{"glm4moe", false}, MtpArchitecture{"hy_v3", true}};

void add_mtp(ModelSummary& model, const std::vector<Gguf>& parts) {
  const std::string& arch = model.architecture;
  const Gguf& head = parts.front();
  const auto known =
      std::find_if(mtp_architectures.begin(), mtp_architectures.end(), [&](const MtpArchitecture& a) { return a.name == arch; });
  if (known == mtp_architectures.end()) {
    model.mtp_obstacle = fmt::format("the engine does not run those of the architecture {}", printable(arch));
    return;
  }
  std::set<std::string_view> names;
  for (const auto& part : parts) {
    for (const auto& tensor : part.tensors) names.insert(tensor.name);
  }
  const std::int64_t first = model.layers - model.mtp_layers;
  if (!names.contains(fmt::format("blk.{}.nextn.eh_proj.weight", first))) {
    model.mtp_obstacle = "the file declares them and does not hold them";
    return;
  }
  if (model.mtp_layers > 1 && !known->several) {
    model.mtp_obstacle = fmt::format("the engine runs one of the architecture {}, and the file has {}", arch, model.mtp_layers);
    return;
  }
  if (const auto* sections = std::get_if<GgufArray>(head.find(arch + ".rope.dimension_sections"));
      sections != nullptr && !sections->integers.empty() && sections->integers.front() > 0) {
    model.mtp_obstacle = "the engine runs none where positions have several dimensions";
    return;
  }
  for (std::int64_t i = first; i < model.layers && model.mtp_obstacle.empty(); ++i) {
    const auto has = [&](std::string_view name) { return names.contains(fmt::format("blk.{}.{}.weight", i, name)); };
    const auto need = [&](std::initializer_list<std::string_view> list) {
      for (const auto name : list) {
        if (!has(name) && model.mtp_obstacle.empty()) model.mtp_obstacle = fmt::format("the file lacks blk.{}.{}.weight", i, name);
      }
    };
    need({"nextn.eh_proj", "nextn.enorm", "nextn.hnorm"});
    if (!has("ffn_gate_inp")) {
      need({"ffn_gate", "ffn_up", "ffn_down"});
    } else {
      need({"ffn_down_exps"});
      if (!has("ffn_gate_up_exps")) need({"ffn_gate_exps", "ffn_up_exps"});
    }
  }
}

Result<ModelSummary> summarise(const std::vector<Gguf>& parts, std::vector<std::string> files) {
  const Gguf& head = parts.front();
  ModelSummary model;
  model.files = std::move(files);
  model.gguf_version = head.version;
  model.architecture = head.text("general.architecture");
  const std::string& file = model.files.front();
  if (model.architecture.empty()) {
    return Error{ErrorCode::model_invalid, file + " holds no model: it lacks \"general.architecture\".", {}};
  }
  if (const std::string type = head.text("general.type"); !type.empty() && type != "model") {
    return Error{ErrorCode::model_invalid,
                 fmt::format("{} is of type \"{}\", not a model. Give the model it belongs to.", file, printable(type)),
                 {}};
  }
  std::map<std::string_view, std::uint64_t> bytes_by_type;
  for (const auto& part : parts) {
    model.file_bytes += part.file_bytes;
    for (const auto& tensor : part.tensors) {
      model.parameters += tensor.elements;
      model.weight_bytes += tensor.bytes;
      bytes_by_type[tensor.type->name] += tensor.bytes;
    }
  }
  if (model.parameters == 0) {
    return Error{ErrorCode::model_invalid, file + " holds no tensors: it is a vocabulary or a bare header, not a model.", {}};
  }
  model.dominant_type =
      std::max_element(bytes_by_type.begin(), bytes_by_type.end(), [](const auto& a, const auto& b) { return a.second < b.second; })->first;
  // Bit 10 marks a guessed type.
  const std::int64_t file_type = head.integer("general.file_type", -1);
  if (const auto index = static_cast<std::uint64_t>(file_type) & ~std::uint64_t{1024}; file_type >= 0 && index < file_types.size()) {
    model.quantisation = file_types[index];
  }
  if (model.quantisation.empty()) model.quantisation = model.dominant_type;

  const auto number = [&](std::string_view key, std::int64_t otherwise = 0) {
    return sane(head.integer(model.architecture + "." + std::string(key), otherwise));
  };
  model.name = head.text("general.name");
  model.licence = head.text("general.license");
  model.description = head.text("general.description");
  model.context = number("context_length");
  model.layers = std::min<std::int64_t>(number("block_count"), 4096);
  model.embedding_length = number("embedding_length");
  model.feed_forward_length = number("feed_forward_length");
  const auto heads = by_layer(head, model.architecture + ".attention.head_count", std::max<std::int64_t>(model.layers, 1), 0);
  model.heads = *std::max_element(heads.begin(), heads.end());
  model.kv_heads = by_layer(head, model.architecture + ".attention.head_count_kv", model.layers, model.heads);
  const std::int64_t per_head = model.heads > 0 ? model.embedding_length / model.heads : 0;
  model.key_length = number("attention.key_length", per_head);
  model.value_length = number("attention.value_length", per_head);
  model.sliding_window = number("attention.sliding_window");
  model.recurrent =
      head.find(model.architecture + ".ssm.state_size") != nullptr || head.find(model.architecture + ".wkv.head_size") != nullptr;
  const auto* tokens = head.find("tokenizer.ggml.tokens");
  const auto* token_list = tokens != nullptr ? std::get_if<GgufArray>(tokens) : nullptr;
  model.vocabulary = token_list != nullptr ? static_cast<std::int64_t>(token_list->count) : number("vocab_size");
  model.mtp_layers = number("nextn_predict_layers");
  if (model.mtp_layers > model.layers) {
    return Error{ErrorCode::model_invalid,
                 fmt::format("{} is damaged: it declares {} blocks for multi-token prediction among {} layers.", file, model.mtp_layers,
                             model.layers),
                 {}};
  }
  const auto has_first_block = [](const Gguf& part) {
    return std::any_of(part.tensors.begin(), part.tensors.end(), [](const GgufTensor& t) { return t.name.starts_with("blk.0."); });
  };
  if (model.mtp_layers > 0 && model.mtp_layers < model.layers && std::none_of(parts.begin(), parts.end(), has_first_block)) {
    return Error{
        ErrorCode::model_invalid, file + " holds only a model's blocks for multi-token prediction. Give the model they belong to.", {}};
  }
  if (model.mtp_layers > 0) add_mtp(model, parts);
  const std::string chat = head.text("tokenizer.chat_template");
  model.chat_template = !chat.empty();
  model.tool_format = tool_format_of(chat);
  constexpr std::array<std::string_view, 5> poolings{"", "mean", "cls", "last", "rank"};
  const std::int64_t pooling = number("pooling_type");
  if (pooling < static_cast<std::int64_t>(poolings.size())) model.pooling = poolings[static_cast<std::size_t>(pooling)];
  return model;
}

struct SplitName {
  std::string stem;  // up to and including the last '-' before the number
  int index = 0, count = 0;
};
// "model-00002-of-00003.gguf"
std::optional<SplitName> split_name(std::string_view name) {
  constexpr std::string_view shape = "-00000-of-00000.gguf";
  if (name.size() <= shape.size()) return std::nullopt;
  const std::string_view tail = name.substr(name.size() - shape.size());
  for (std::size_t i = 0; i < shape.size(); ++i) {
    if (shape[i] == '0' ? std::isdigit(static_cast<unsigned char>(tail[i])) == 0 : tail[i] != shape[i]) return std::nullopt;
  }
  return SplitName{std::string(name.substr(0, name.size() - shape.size())), std::stoi(std::string(tail.substr(1, 5))),
                   std::stoi(std::string(tail.substr(10, 5)))};
}

}  // namespace

std::span<const std::string_view> kv_types() {
  static const std::vector<std::string_view> types = [] {
    std::vector<std::string_view> out{"f16", "q8_0", "q4_0"};
    for (const auto& profile : turboquant::profiles()) out.push_back(profile.name);
    return out;
  }();
  return types;
}

namespace {

bool can_be_compressed(const ModelSummary& model) {
  const auto fits = [](std::int64_t size) { return size > 0 && size <= turboquant::kMaxDim; };
  return fits(model.key_length) && fits(model.value_length);
}

// The heads of each layer that has a cache.
std::span<const std::int64_t> kv_layers(const ModelSummary& model, bool mtp) {
  const std::size_t without = model.can_guess() && !mtp ? static_cast<std::size_t>(model.mtp_layers) : 0;
  return std::span(model.kv_heads).first(model.kv_heads.size() - without);
}

// What a profile's protected tokens take beside the others.
std::uint64_t sink_bytes(const ModelSummary& model, std::int64_t context, std::string_view kv_type, bool mtp) {
  const auto profile = turboquant::find_profile(kv_type);
  if (!profile || profile->sinks == 0 || !can_be_compressed(model)) return 0;
  constexpr turboquant::Widths sinks = turboquant::kSinkWidths;
  const auto records = [](std::int64_t heads, std::int64_t size, int bits) {
    return static_cast<std::uint64_t>(heads) * turboquant::VectorFormat{.dim = static_cast<int>(size), .bits = bits}.bytes();
  };
  std::uint64_t each = 0;
  int layer = 0;
  for (const std::int64_t heads : kv_layers(model, mtp)) {
    const turboquant::Widths widths = profile->of_layer(layer++, static_cast<int>(model.layers));
    if (widths.keys < sinks.keys) each += records(heads, model.key_length, sinks.keys);
    if (widths.values < sinks.values) each += records(heads, model.value_length, sinks.values);
  }
  return each * static_cast<std::uint64_t>(turboquant::protected_slots(*profile, context, 1));
}

}  // namespace

std::uint64_t kv_bytes_per_token(const ModelSummary& model, std::string_view kv_type, bool mtp) {
  const auto layers = kv_layers(model, mtp);
  std::uint64_t bytes = 0;
  const auto profile = turboquant::find_profile(kv_type);
  if (profile && can_be_compressed(model)) {
    int layer = 0;
    for (const std::int64_t heads : layers) {
      bytes += turboquant::bytes_per_token(profile->of_layer(layer++, static_cast<int>(model.layers)), heads, model.key_length,
                                           model.value_length);
    }
    return bytes;
  }
  const std::uint32_t id = kv_type == "f16" || profile ? 1 : kv_type == "q8_0" ? 8 : kv_type == "q4_0" ? 2 : 0;
  if (id == 0) return 0;
  const TensorType& type = *find_tensor_type(id);
  const auto row = [&](std::int64_t values) {
    return (static_cast<std::uint64_t>(values) + type.elements - 1) / type.elements * type.bytes;
  };
  for (const std::int64_t heads : layers) bytes += row(heads * model.key_length) + row(heads * model.value_length);
  return bytes;
}

MemoryEstimate estimate_memory(const ModelSummary& model, std::int64_t context, std::string_view kv_type, bool mtp) {
  constexpr std::uint64_t batch = 512;
  constexpr std::uint64_t f32 = 4;
  const auto tokens = static_cast<std::uint64_t>(sane(context));
  MemoryEstimate out;
  out.weights = model.weight_bytes;
  out.kv = kv_bytes_per_token(model, kv_type, mtp) * tokens + sink_bytes(model, static_cast<std::int64_t>(tokens), kv_type, mtp);
  const auto width = static_cast<std::uint64_t>(4 * model.embedding_length + 2 * model.feed_forward_length + model.vocabulary);
  // The mask is kept as f32 and as f16 for flash attention.
  out.compute = batch * width * f32 + batch * tokens * (f32 + 2);
  if (mtp) {  // logits for a row of each sequence only
    constexpr std::uint64_t outputs = 64;
    const auto vocabulary = static_cast<std::uint64_t>(model.vocabulary);
    out.compute += (batch * (width - vocabulary) + 2 * outputs * vocabulary) * f32 + batch * tokens * (f32 + 2);
  }
  return out;
}

std::int64_t context_that_fits(const ModelSummary& model, std::uint64_t bytes, std::string_view kv_type, bool mtp) {
  // All that grows, grows with each token alike.
  const std::uint64_t none = estimate_memory(model, 0, kv_type, mtp).total(),
                      token = estimate_memory(model, 1, kv_type, mtp).total() - none;
  if (bytes <= none || token == 0) return 0;
  const std::int64_t most = model.context > 0 ? model.context : std::numeric_limits<std::int64_t>::max();
  return static_cast<std::int64_t>(std::min<std::uint64_t>((bytes - none) / token, static_cast<std::uint64_t>(most)));
}

std::int64_t default_context(const ModelSummary& model) { return model.context > 0 ? std::min<std::int64_t>(model.context, 32'768) : 4096; }

Result<ModelSummary> read_model(const std::string& path) {
  const std::filesystem::path given(path);
  std::vector<std::string> files{path};
  if (const auto split = split_name(given.filename().string())) {
    if (split->index != 1) {
      const std::string first = (given.parent_path() / fmt::format("{}-00001-of-{:05}.gguf", split->stem, split->count)).string();
      return Error{ErrorCode::model_invalid,
                   fmt::format("{} is part {} of a model split into {}. Give the first part: {}", path, split->index, split->count, first),
                   {}};
    }
    for (int i = 2; i <= split->count; ++i)
      files.push_back((given.parent_path() / fmt::format("{}-{:05}-of-{:05}.gguf", split->stem, i, split->count)).string());
  }
  std::vector<Gguf> parts;
  for (const auto& file : files) {
    std::error_code ec;
    if (!parts.empty() && !std::filesystem::exists(file, ec)) {
      return Error{
          ErrorCode::model_invalid,
          fmt::format("{} is split into {} files, and {} is missing. Download or copy it beside the others.", path, files.size(), file),
          {}};
    }
    auto gguf = read_gguf(file);
    if (!gguf) return std::move(gguf).error();
    parts.push_back(std::move(*gguf));
  }
  const std::int64_t count = parts.front().integer("split.count", 0);
  if (count > 1 && count != static_cast<std::int64_t>(parts.size())) {
    return Error{ErrorCode::model_invalid,
                 fmt::format("{} is one of {} parts of a split model, but its name does not end in -00001-of-{:05}.gguf. Give the parts "
                             "their original names.",
                             path, count, count),
                 {}};
  }
  return summarise(parts, std::move(files));
}

Result<ModelSummary> parse_model(std::string_view bytes, std::string_view name) {
  auto gguf = parse_gguf(bytes, name);
  if (!gguf) return std::move(gguf).error();
  std::vector<Gguf> parts;
  parts.push_back(std::move(*gguf));
  return summarise(parts, {std::string(name)});
}

std::vector<std::filesystem::path> list_models(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> out;
  std::error_code ec;
  for (std::filesystem::recursive_directory_iterator it(folder, std::filesystem::directory_options::skip_permission_denied, ec), end;
       !ec && it != end; it.increment(ec)) {
    std::error_code type_error;
    if (!it->is_regular_file(type_error) || it->path().extension() != ".gguf") continue;
    const auto split = split_name(it->path().filename().string());
    if (!split || split->index == 1) out.push_back(it->path());
  }
  std::sort(out.begin(), out.end());
  return out;
}

}  // namespace hearth::catalog
