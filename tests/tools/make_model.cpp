// Writes GGUF models of real architectures with random weights: small ones for tests, real shapes for benchmarks. llama.cpp itself says which
// tensors an architecture has; the weights are a pure function of the seed and each tensor's name, whatever the order or the thread count.
#include <ggml.h>
#include <gguf.h>
#include <llama.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace {

struct Shape {
  std::string arch = "llama", vocab, out, type = "f16", pooling, chat_template;
  int layers = 2, width = 64, heads = 4, kv_heads = 2, head_size = 0, ffn = 128, context = 512, experts = 4, window = 32, mtp = 0;
  float mixing = 1, key_outliers = 0;
  bool tied = false, copies = false;
  unsigned long long seed = 1;
};

// Shapes of published models: SmolLM2-135M, Qwen2.5-0.5B, Llama-3.2-1B. The vocabulary comes from --vocab.
const std::map<std::string, std::function<void(Shape&)>> presets{
    {"100m",
     [](Shape& s) {
       s.arch = "llama", s.layers = 30, s.width = 576, s.heads = 9, s.kv_heads = 3, s.ffn = 1536, s.context = 8192, s.tied = true;
     }},
    {"500m",
     [](Shape& s) {
       s.arch = "qwen2", s.layers = 24, s.width = 896, s.heads = 14, s.kv_heads = 2, s.ffn = 4864, s.context = 32768, s.tied = true;
     }},
    {"1b",
     [](Shape& s) {
       s.arch = "llama", s.layers = 16, s.width = 2048, s.heads = 32, s.kv_heads = 8, s.ffn = 8192, s.context = 32768, s.tied = true;
     }},
};

const std::map<std::string, ggml_type> types{
    {"f32", GGML_TYPE_F32}, {"f16", GGML_TYPE_F16}, {"q8_0", GGML_TYPE_Q8_0}, {"q4_0", GGML_TYPE_Q4_0}};
const std::map<std::string, llama_ftype> ftypes{
    {"f32", LLAMA_FTYPE_ALL_F32}, {"f16", LLAMA_FTYPE_MOSTLY_F16}, {"q8_0", LLAMA_FTYPE_MOSTLY_Q8_0}, {"q4_0", LLAMA_FTYPE_MOSTLY_Q4_0}};

struct GgufDeleter {
  void operator()(gguf_context* c) const { gguf_free(c); }
};
using Gguf = std::unique_ptr<gguf_context, GgufDeleter>;
struct ContextDeleter {
  void operator()(ggml_context* c) const { ggml_free(c); }
};

[[noreturn]] void fail(const std::string& message) {
  std::fprintf(stderr, "make_model: %s\n", message.c_str());
  std::exit(1);
}

unsigned long long mix(unsigned long long x) {  // splitmix64
  x += 0x9E3779B97F4A7C15ULL;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ULL;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBULL;
  return x ^ (x >> 31);
}

float uniform(unsigned long long key) { return static_cast<float>(mix(key) >> 40) * (2.0F / (1 << 24)) - 1.0F; }

bool is_bert(const Shape& s) { return s.arch == "bert"; }
// Architectures whose blocks for the tokens after the next llama.cpp runs.
bool has_mtp(const Shape& s) { return s.arch == "glm4moe" || s.arch == "hy_v3"; }

// Latent attention: keys and values are a vector of this many numbers, from which heads are made.
bool is_latent(const Shape& s) { return s.arch == "deepseek2"; }
constexpr int latent_size = 64, latent_turned = 32;  // numbers; of a head, those that positions turn

// Tokenizer from the vocabulary file, everything else from the shape.
Gguf metadata(const Shape& s) {
  gguf_init_params params{.no_alloc = true, .ctx = nullptr};
  Gguf vocab(gguf_init_from_file(s.vocab.c_str(), params));
  if (!vocab) fail("cannot read the vocabulary from " + s.vocab);
  Gguf meta(gguf_init_empty());
  gguf_set_kv(meta.get(), vocab.get());
  for (int64_t i = gguf_get_n_kv(meta.get()) - 1; i >= 0; --i) {
    std::string key = gguf_get_key(meta.get(), i);
    if (!key.starts_with("tokenizer.")) gguf_remove_key(meta.get(), key.c_str());
  }
  if (!s.chat_template.empty()) {
    std::ifstream in(s.chat_template, std::ios::binary);
    std::string text(std::istreambuf_iterator<char>(in), {});
    gguf_set_val_str(meta.get(), "tokenizer.chat_template", text.c_str());
  }
  auto key = [&](const char* name) { return s.arch + "." + name; };
  auto u32 = [&](const char* name, int value) { gguf_set_val_u32(meta.get(), key(name).c_str(), static_cast<uint32_t>(value)); };
  auto f32 = [&](const char* name, float value) { gguf_set_val_f32(meta.get(), key(name).c_str(), value); };
  gguf_set_val_str(meta.get(), "general.architecture", s.arch.c_str());
  gguf_set_val_str(meta.get(), "general.name", ("random " + s.arch).c_str());
  gguf_set_val_u32(meta.get(), "general.file_type", static_cast<uint32_t>(ftypes.at(s.type)));
  u32("block_count", s.layers + s.mtp);
  if (s.mtp > 0) u32("nextn_predict_layers", s.mtp);
  u32("context_length", s.context);
  u32("embedding_length", s.width);
  u32("feed_forward_length", s.ffn);
  u32("attention.head_count", s.heads);
  if (s.arch == "lfm2") {  // every second block attends, the others have a short convolution
    std::vector<int32_t> kv_heads;
    for (int i = 0; i < s.layers; ++i) kv_heads.push_back(i % 2 == 1 ? s.kv_heads : 0);
    gguf_set_arr_data(meta.get(), key("attention.head_count_kv").c_str(), GGUF_TYPE_INT32, kv_heads.data(), kv_heads.size());
    u32("shortconv.l_cache", 3);
  } else {
    u32("attention.head_count_kv", is_latent(s) ? 1 : s.kv_heads);
  }
  if (s.head_size > 0) {
    u32("attention.key_length", s.head_size);
    u32("attention.value_length", s.head_size);
  }
  if (is_bert(s)) {
    f32("attention.layer_norm_epsilon", 1e-12F);
    gguf_set_val_bool(meta.get(), key("attention.causal").c_str(), false);
    gguf_set_val_u32(meta.get(), "tokenizer.ggml.token_type_count", 2);
  } else {
    f32("attention.layer_norm_rms_epsilon", 1e-6F);
    f32("rope.freq_base", 10000.0F);
  }
  if (s.arch == "gemma2" || s.arch == "gemma3" || s.arch == "gpt-oss") u32("attention.sliding_window", s.window);
  if (s.arch == "gemma2") {
    f32("attn_logit_softcapping", 50.0F);
    f32("final_logit_softcapping", 30.0F);
  }
  if (is_latent(s)) {
    u32("attention.q_lora_rank", s.width / 2);
    u32("attention.kv_lora_rank", latent_size);
    u32("attention.key_length", latent_size + latent_turned);
    u32("attention.value_length", latent_size);
    u32("attention.key_length_mla", 2 * latent_turned);
    u32("attention.value_length_mla", latent_turned);
    u32("rope.dimension_count", latent_turned);
    u32("leading_dense_block_count", s.layers);
    u32("expert_count", s.experts);
    u32("expert_used_count", 2);
    u32("expert_shared_count", 1);
    u32("expert_feed_forward_length", s.ffn);
  }
  if (s.arch == "qwen2vl") {  // a quarter of the rotated pairs for time, three eighths each for height and width
    const int pairs = (s.head_size > 0 ? s.head_size : s.width / s.heads) / 2;
    const std::array<int32_t, 4> sections{pairs - 2 * (3 * pairs / 8), 3 * pairs / 8, 3 * pairs / 8, 0};
    gguf_set_arr_data(meta.get(), key("rope.dimension_sections").c_str(), GGUF_TYPE_INT32, sections.data(), sections.size());
  }
  if (s.arch == "qwen3moe" || s.arch == "gpt-oss" || has_mtp(s)) {
    u32("expert_count", s.experts);
    u32("expert_used_count", std::min(2, s.experts));
    u32("expert_feed_forward_length", s.ffn);
  }
  if (has_mtp(s)) {  // one dense block, then experts and one that everybody shares
    u32("leading_dense_block_count", 1);
    u32("expert_shared_count", 1);
    u32("expert_shared_feed_forward_length", s.ffn);
    gguf_set_val_bool(meta.get(), key("expert_weights_norm").c_str(), true);
  }
  if (!s.pooling.empty()) {
    const std::map<std::string, int> poolings{{"mean", 1}, {"cls", 2}, {"last", 3}, {"rank", 4}};
    u32("pooling_type", poolings.at(s.pooling));
  }
  if (s.pooling == "rank") {
    const char* label = "relevance";
    gguf_set_arr_str(meta.get(), key("classifier.output_labels").c_str(), &label, 1);
  }
  return meta;
}

// llama.cpp offers every tensor the architecture may have; real files of it have these.
bool wanted(const Shape& s, const std::string& name) {
  auto has = [&](const char* part) { return name.find(part) != std::string::npos; };
  auto ends = [&](const char* part) { return name.ends_with(part); };
  if (!ends(".weight") && !ends(".bias")) return false;
  if (has("rope_")) return false;
  if (name == "output.weight") return !s.tied;
  if (has("dense_")) return false;
  if (name.starts_with("cls")) return s.pooling == "rank";
  if (has("nextn.embed_tokens") || has("nextn.shared_head_head")) return false;
  if (has_mtp(s)) {
    const bool dense = name.starts_with("blk.0."), experts = has("_exps") || has("_shexp") || has("ffn_gate_inp") || has("exp_probs");
    if (experts) return !dense;
    if (has("ffn_gate.") || has("ffn_up.") || has("ffn_down.")) return dense;
  }
  if (name.ends_with("exp_probs_b.bias")) return !name.starts_with("blk.0.");
  if (s.arch == "gpt-oss") return true;
  if (ends(".bias") && !is_bert(s)) return s.arch.starts_with("qwen2") && (has("attn_q.") || has("attn_k.") || has("attn_v."));
  if (is_bert(s)) return !has("attn_q_norm") && !has("attn_k_norm") && !has("attn_norm_2") && !has("ffn_gate");
  return true;
}

struct Tensor {
  std::string name;
  std::vector<int64_t> ne;
};

// A model that says what followed the last time: an induction head (Olsson et al. 2022, arXiv 2209.11895), set by hand. A token's code is `part` signs. The
// first layer's head looks one position back and notes that token's code; the last layer's, which no position turns, looks for the token that noted the code
// of the one at hand and writes down its code. Keys of the latter have one channel in sixteen with a large mean, as real ones do. The state of a position has
// four parts: code, ones, code of the token before, code to say.
constexpr int part = 128;
struct Parts {
  static constexpr int code = 0, ones = part, before = 2 * part, said = 3 * part, all = 4 * part;
};

std::vector<float> copying(const Shape& s, const Tensor& tensor, std::size_t count) {
  std::vector<float> values(count);
  const auto sign = [&](int64_t token, int i) {
    return (mix(mix(s.seed) ^ static_cast<unsigned long long>(token * part + i)) >> 63) == 0 ? 1.0F : -1.0F;
  };
  const auto at = [&](int out, int in) -> float& { return values[static_cast<std::size_t>(out * tensor.ne[0] + in)]; };
  const auto layer = [&](int index, const char* name) { return tensor.name == "blk." + std::to_string(index) + "." + name + ".weight"; };
  const auto copy = [&](int from, int to, float factor) {
    for (int i = 0; i < part; ++i) at(to + i, from + i) = factor;
  };
  constexpr float first_norm = 1.4142135F,
                  last_norm = 1.1547005F;  // what the root mean square of two and three parts of size 1 makes of them
  if (tensor.name.ends_with("norm.weight")) {
    std::fill(values.begin(), values.end(), 1.0F);
  } else if (tensor.name == "token_embd.weight" || tensor.name == "output.weight") {
    const bool in = tensor.name == "token_embd.weight";
    constexpr float certainty = 9.0F / 2 / part;  // the state that is said has length √(4·part) and one part of four of it is the code
    for (int64_t token = 0; token < tensor.ne[1]; ++token) {
      float* row = values.data() + token * tensor.ne[0];
      for (int i = 0; i < part; ++i) row[(in ? Parts::code : Parts::said) + i] = (in ? 1 : certainty) * sign(token, i);
      for (int i = 0; in && i < part; ++i) row[Parts::ones + i] = 1;
    }
  } else if (layer(0, "attn_q") || layer(0, "attn_k")) {
    // Pairs that turn fast: together they point at one distance alone. The query is turned back by one position.
    for (int pair = 0; pair < 16; ++pair) {
      const double angle = layer(0, "attn_q") ? std::pow(10000.0, -2.0 * pair / part) : 0;
      at(2 * pair, Parts::ones) = 6 * static_cast<float>(std::cos(angle));
      at(2 * pair + 1, Parts::ones) = -6 * static_cast<float>(std::sin(angle));
    }
  } else if (layer(0, "attn_v")) {
    copy(Parts::code, 0, 1);
  } else if (layer(0, "attn_output")) {
    copy(0, Parts::before, 1 / first_norm);
  } else if (layer(s.layers - 1, "attn_q")) {
    copy(Parts::code, 0, 40 / std::sqrt(static_cast<float>(part)) / (last_norm * last_norm));  // the right token's logit is 40
  } else if (layer(s.layers - 1, "attn_k")) {
    copy(Parts::before, 0, 1);
    for (int i = 0; i < part; ++i) {
      if (i % 16 == 5) at(i, Parts::ones) = sign(0, i) * 8;
    }
  } else if (layer(s.layers - 1, "attn_v")) {
    copy(Parts::code, 0, 1);
  } else if (layer(s.layers - 1, "attn_output")) {
    copy(0, Parts::said, 100);  // so that nothing else is left of the state that is said
  }
  return values;
}

// Norms near one, matrices scaled so that activations keep their size through the layers, and logits that prefer few tokens.
std::vector<float> weights(const Shape& s, const Tensor& tensor) {
  size_t n = 1;
  for (int64_t d : tensor.ne) n *= static_cast<size_t>(d);
  if (s.copies) return copying(s, tensor, n);
  std::vector<float> values(n);
  unsigned long long key = mix(s.seed);
  for (unsigned char c : tensor.name) key = mix(key ^ c);
  bool norm = tensor.name.find("norm") != std::string::npos && tensor.name.ends_with(".weight");
  bool vector = tensor.ne.size() == 1;
  float scale = vector ? 0.1F : std::sqrt(3.0F / static_cast<float>(tensor.ne[0]));
  if (tensor.name == "token_embd.weight") scale = s.tied ? 2.0F * scale : 1.0F;
  if (tensor.name == "output.weight") scale *= 2.0F;
  if (tensor.name.find("attn_output") != std::string::npos || tensor.name.find("ffn_down") != std::string::npos) scale *= s.mixing;
  for (size_t i = 0; i < n; ++i) values[i] = (norm ? 1.0F : 0.0F) + scale * uniform(key + i);
  // Real keys have a few channels far larger than the rest, from their bias or their norm; one in sixteen here.
  if (s.key_outliers > 0 &&
      (tensor.name.find("attn_k.bias") != std::string::npos || tensor.name.find("attn_k_norm.weight") != std::string::npos)) {
    for (size_t i = 0; i < n; ++i) {
      if (mix(key ^ (i + 1)) % 16 == 0) values[i] = uniform(key + n + i) < 0 && vector && !norm ? -s.key_outliers : s.key_outliers;
    }
  }
  // Mostly the token's own embedding, which comes before the hidden state: then the head sees what the first block sees.
  if (tensor.name.find("eh_proj") != std::string::npos) {
    const auto inputs = static_cast<size_t>(tensor.ne[0]);
    for (size_t i = 0; i < n; ++i) values[i] = s.mixing * values[i] + (i % inputs == i / inputs ? 1.0F : 0.0F);
  }
  return values;
}

void write(const Shape& s) {
  Gguf meta = metadata(s);
  std::vector<Tensor> tensors;
  llama_model_params params = llama_model_default_params();
  params.n_gpu_layers = 0;
  params.use_extra_bufts = false;
  params.load_mtp = true;
  llama_model* model = llama_model_init_from_user(
      meta.get(),
      [](ggml_tensor* t, void* out) {
        auto* list = static_cast<std::vector<Tensor>*>(out);
        Tensor tensor{t->name, std::vector<int64_t>(t->ne, t->ne + ggml_n_dims(t))};
        if (std::none_of(list->begin(), list->end(), [&](const Tensor& other) { return other.name == tensor.name; })) {
          list->push_back(std::move(tensor));
        }
      },
      &tensors, params);
  if (!model) fail("llama.cpp refuses this shape (see above)");
  llama_model_free(model);
  std::erase_if(tensors, [&](const Tensor& t) { return !wanted(s, t.name); });

  ggml_init_params init{.mem_size = ggml_tensor_overhead() * (tensors.size() + 1), .mem_buffer = nullptr, .no_alloc = true};
  std::unique_ptr<ggml_context, ContextDeleter> context(ggml_init(init));
  for (const Tensor& tensor : tensors) {
    ggml_type type = types.at(s.type);
    // As quantisation tools do: vectors and routers stay exact, rows that do not fill a block too.
    bool exact = tensor.ne.size() == 1 || tensor.name.find("ffn_gate_inp") != std::string::npos ||
                 tensor.name.find("position_embd") != std::string::npos || tensor.name.find("token_types") != std::string::npos;
    if (exact || tensor.ne[0] % ggml_blck_size(type) != 0) type = GGML_TYPE_F32;
    ggml_tensor* t = ggml_new_tensor(context.get(), type, static_cast<int>(tensor.ne.size()), tensor.ne.data());
    ggml_set_name(t, tensor.name.c_str());
    gguf_add_tensor(meta.get(), t);
  }

  // Header first, then one tensor after the other: a model larger than memory can be written.
  std::FILE* file = std::fopen(s.out.c_str(), "wb");
  if (!file || !gguf_write_to_file_ptr(meta.get(), file, true)) fail("cannot write " + s.out);
  size_t alignment = gguf_get_alignment(meta.get());
  for (const Tensor& tensor : tensors) {
    ggml_tensor* t = ggml_get_tensor(context.get(), tensor.name.c_str());
    std::vector<float> values = weights(s, tensor);
    size_t size = ggml_nbytes(t);
    std::vector<unsigned char> data((size + alignment - 1) / alignment * alignment);
    if (t->type == GGML_TYPE_F32) std::copy_n(reinterpret_cast<const unsigned char*>(values.data()), size, data.begin());
    else ggml_quantize_chunk(t->type, values.data(), data.data(), 0, ggml_nrows(t), t->ne[0], nullptr);
    if (std::fwrite(data.data(), 1, data.size(), file) != data.size()) fail("cannot write " + s.out + ": is the disk full?");
  }
  if (std::fclose(file) != 0) fail("cannot write " + s.out);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Writes a GGUF model with random weights: the same file for the same options, everywhere."};
  app.footer(
      "Examples:\n"
      "  make_model --arch qwen3 --vocab assets/hearth-nano-0-f16.gguf tiny-qwen3.gguf\n"
      "  make_model --arch gemma2 --window 16 --head-size 16 --vocab V.gguf tiny-gemma.gguf\n"
      "  make_model --arch bert --pooling cls --vocab ggml-vocab-bert-bge.gguf embed.gguf\n"
      "  make_model --arch bert --pooling rank --vocab ggml-vocab-bert-bge.gguf rerank.gguf\n"
      "  make_model --preset 500m --type q8_0 --vocab ggml-vocab-qwen2.gguf bench-500m.gguf\n"
      "  make_model --copies --context 32768 --vocab assets/hearth-nano-0-f16.gguf copies.gguf\n"
      "Presets have the layers, widths and heads of SmolLM2-135M (100m), Qwen2.5-0.5B (500m) and Llama-3.2-1B (1b).");
  Shape shape;
  std::string preset;
  app.add_option("--preset", preset, "A real shape; flags after it change parts")
      ->check(CLI::IsMember(std::vector<std::string>{"100m", "500m", "1b"}))
      ->each([&shape](const std::string& name) { presets.at(name)(shape); })
      ->trigger_on_parse();
  app.add_option("--arch", shape.arch, "Architecture")
      ->check(CLI::IsMember(std::vector<std::string>{"llama", "qwen2", "qwen2vl", "qwen3", "qwen3moe", "gemma2", "gemma3", "gpt-oss",
                                                     "glm4moe", "hy_v3", "lfm2", "deepseek2", "bert"}))
      ->capture_default_str();
  app.add_option("--vocab", shape.vocab, "GGUF file to copy the tokenizer and chat template from")->required()->check(CLI::ExistingFile);
  app.add_option("--type", shape.type, "Type of the matrices")
      ->check(CLI::IsMember(std::vector<std::string>{"f32", "f16", "q8_0", "q4_0"}))
      ->capture_default_str();
  app.add_option("--pooling", shape.pooling, "Makes an embedding or reranking model")
      ->check(CLI::IsMember(std::vector<std::string>{"mean", "cls", "last", "rank"}));
  app.add_option("--chat-template", shape.chat_template, "Jinja file to use as the chat template")->check(CLI::ExistingFile);
  auto number = [&](const char* name, int& value, const char* help) {
    app.add_option(name, value, help)->check(CLI::Range(1, 1 << 20))->capture_default_str();
  };
  number("--layers", shape.layers, "Blocks");
  number("--width", shape.width, "Embedding length");
  number("--heads", shape.heads, "Query heads");
  number("--kv-heads", shape.kv_heads, "Key-value heads");
  app.add_option("--head-size", shape.head_size, "Length of a head; 0 = width / heads")->capture_default_str();
  number("--ffn", shape.ffn, "Feed-forward length");
  number("--context", shape.context, "Training context");
  number("--experts", shape.experts, "Experts of a MoE; two are used per token");
  number("--window", shape.window, "Sliding window (gemma)");
  app.add_option("--mtp", shape.mtp, "Further blocks that guess the tokens after the next (glm4moe, hy_v3)")
      ->check(CLI::Range(0, 8))
      ->capture_default_str();
  app.add_option("--mixing", shape.mixing, "Scale of what each block adds: near 0 a token follows from the one before it alone")
      ->check(CLI::Range(0.0, 10.0))
      ->capture_default_str();
  app.add_option("--key-outliers", shape.key_outliers,
                 "Size of one key channel in sixteen, by bias (qwen2) or norm (qwen3); 0 = like the others")
      ->check(CLI::Range(0.0, 1000.0))
      ->capture_default_str();
  app.add_flag("--copies", shape.copies, "No random weights, but two heads that say what followed the last time; sets the shape");
  app.add_flag("--tied", shape.tied, "The output matrix is the embedding matrix");
  app.add_option("--seed", shape.seed, "Same seed, same weights")->capture_default_str();
  app.add_option("out", shape.out, "File to write")->required();
  CLI11_PARSE(app, argc, argv);
  if (shape.copies) {  // no position turns the keys of this architecture's fourth layer
    shape.arch = "smollm3", shape.layers = 4, shape.width = Parts::all, shape.heads = shape.kv_heads = 1, shape.head_size = part,
    shape.ffn = 32;
  }
  if (shape.width % shape.heads != 0 || shape.heads % shape.kv_heads != 0)
    fail("--width must be a multiple of --heads, and --heads of --kv-heads");
  if (shape.arch == "gemma2") shape.tied = true;
  if (is_bert(shape)) {
    shape.kv_heads = shape.heads;
    if (shape.pooling.empty()) shape.pooling = "mean";
  }
  llama_log_set(
      [](ggml_log_level level, const char* text, void*) {
        if (level >= GGML_LOG_LEVEL_ERROR && level != GGML_LOG_LEVEL_CONT) std::fputs(text, stderr);
      },
      nullptr);
  llama_backend_init();
  write(shape);
  return 0;
}
