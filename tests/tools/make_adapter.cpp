// Writes a LoRA adapter with random matrices for any model: the same file for the same options, everywhere.
#include <ggml.h>
#include <gguf.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

namespace {

struct GgufDeleter {
  void operator()(gguf_context* c) const { gguf_free(c); }
};
using Gguf = std::unique_ptr<gguf_context, GgufDeleter>;
struct ContextDeleter {
  void operator()(ggml_context* c) const { ggml_free(c); }
};
using Context = std::unique_ptr<ggml_context, ContextDeleter>;

[[noreturn]] void fail(const std::string& message) {
  std::fprintf(stderr, "make_adapter: %s\n", message.c_str());
  std::exit(1);
}

unsigned long long mix(unsigned long long x) {  // splitmix64
  x += 0x9E3779B97F4A7C15ULL;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ULL;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBULL;
  return x ^ (x >> 31);
}

float uniform(unsigned long long key) { return static_cast<float>(mix(key) >> 40) * (2.0F / (1 << 24)) - 1.0F; }

struct Options {
  std::string base, out, type = "f32";
  std::vector<std::string> targets{"attn_q", "attn_v", "ffn_down"};
  int rank = 4;
  float alpha = 8, strength = 1;
  unsigned long long seed = 1;
};

ggml_tensor* add(ggml_context* to, const Options& o, const std::string& name, std::vector<int64_t> ne, float amplitude) {
  ggml_tensor* t = ggml_new_tensor(to, o.type == "f16" ? GGML_TYPE_F16 : GGML_TYPE_F32, static_cast<int>(ne.size()), ne.data());
  ggml_set_name(t, name.c_str());
  unsigned long long key = mix(o.seed);
  for (unsigned char c : name) key = mix(key ^ c);
  for (int64_t i = 0; i < ggml_nelements(t); ++i) {
    const float value = amplitude * uniform(key + static_cast<unsigned long long>(i));
    if (t->type == GGML_TYPE_F16) static_cast<ggml_fp16_t*>(t->data)[i] = ggml_fp32_to_fp16(value);
    else static_cast<float*>(t->data)[i] = value;
  }
  return t;
}

void write(const Options& o) {
  ggml_context* header = nullptr;
  const Gguf base(gguf_init_from_file(o.base.c_str(), {.no_alloc = true, .ctx = &header}));
  const Context base_tensors(header);
  if (!base) fail("cannot read " + o.base);
  const std::int64_t key = gguf_find_key(base.get(), "general.architecture");
  if (key < 0) fail(o.base + " names no architecture");

  const Gguf out(gguf_init_empty());
  gguf_set_val_str(out.get(), "general.type", "adapter");
  gguf_set_val_str(out.get(), "general.architecture", gguf_get_val_str(base.get(), key));
  gguf_set_val_str(out.get(), "adapter.type", "lora");
  gguf_set_val_f32(out.get(), "adapter.lora.alpha", o.alpha);

  std::vector<ggml_tensor*> chosen;
  std::size_t memory = 0;
  for (ggml_tensor* t = ggml_get_first_tensor(header); t != nullptr; t = ggml_get_next_tensor(header, t)) {
    const std::string name = t->name;
    const bool wanted = std::any_of(o.targets.begin(), o.targets.end(), [&](const std::string& target) {
      return name.ends_with("." + target + ".weight") || name == target + ".weight";
    });
    if (!wanted || ggml_n_dims(t) < 2) continue;
    chosen.push_back(t);
    memory += 2 * ggml_tensor_overhead() + 256 + sizeof(float) * static_cast<std::size_t>(o.rank * (t->ne[0] + t->ne[1]) * t->ne[2]);
  }
  if (chosen.empty()) fail("no tensor of " + o.base + " is among the targets");
  const Context tensors(ggml_init({.mem_size = memory, .mem_buffer = nullptr, .no_alloc = false}));
  for (const ggml_tensor* t : chosen) {
    // Rows of A·x keep the size of x; B and the scale make the change `strength` times as large as what a random matrix of this shape does.
    std::vector<int64_t> a{t->ne[0], o.rank}, b{o.rank, t->ne[1]};
    if (ggml_n_dims(t) > 2) a.push_back(t->ne[2]), b.push_back(t->ne[2]);
    const float scale = o.alpha / static_cast<float>(o.rank);
    gguf_add_tensor(out.get(), add(tensors.get(), o, std::string(t->name) + ".lora_a", a, std::sqrt(3.0F / static_cast<float>(t->ne[0]))));
    gguf_add_tensor(out.get(), add(tensors.get(), o, std::string(t->name) + ".lora_b", b,
                                   o.strength / scale * std::sqrt(3.0F / static_cast<float>(o.rank))));
  }
  if (!gguf_write_to_file(out.get(), o.out.c_str(), false)) fail("cannot write " + o.out);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Writes a GGUF LoRA adapter with random matrices for a model: the same file for the same options, everywhere."};
  app.footer("Example: make_adapter --base assets/hearth-nano-0-f16.gguf --rank 4 --seed 2 adapter.gguf");
  Options options;
  app.add_option("--base", options.base, "GGUF model the adapter is for")->required()->check(CLI::ExistingFile);
  app.add_option("--targets", options.targets, "Matrices to change, e.g. attn_q ffn_down")->delimiter(',')->capture_default_str();
  app.add_option("--rank", options.rank, "Rank")->check(CLI::Range(1, 1024))->capture_default_str();
  app.add_option("--alpha", options.alpha, "The adapter's own scale is alpha / rank")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--strength", options.strength, "Size of the change against a random matrix's")->capture_default_str();
  app.add_option("--type", options.type, "Type of the matrices")
      ->check(CLI::IsMember(std::vector<std::string>{"f32", "f16"}))
      ->capture_default_str();
  app.add_option("--seed", options.seed, "Same seed, same matrices")->capture_default_str();
  app.add_option("out", options.out, "File to write")->required();
  CLI11_PARSE(app, argc, argv);
  write(options);
  return 0;
}
