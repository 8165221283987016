// Writes a small vision projector (GGUF, "mmproj") with random weights for a text model of a given width. The same file for the same options.
#include <ggml.h>
#include <gguf.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace {

struct Shape {
  std::string type = "mlp", out;
  int text_width = 64, width = 32, heads = 2, layers = 2, ffn = 48, image = 56, patch = 14, merge = 2;
  unsigned long long seed = 1;
};

// The names llama.cpp gives them.
const std::map<std::string, std::string> types{{"mlp", "mlp"}, {"gemma3", "gemma3"}, {"qwen2vl", "qwen2vl_merger"}};

[[noreturn]] void fail(const std::string& message) {
  std::fprintf(stderr, "make_projector: %s\n", message.c_str());
  std::exit(1);
}

unsigned long long mix(unsigned long long x) {  // splitmix64
  x += 0x9E3779B97F4A7C15ULL;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ULL;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBULL;
  return x ^ (x >> 31);
}

class Writer {
 public:
  explicit Writer(const Shape& shape) : shape_(shape) {
    constexpr std::size_t room = std::size_t{64} << 20;
    context_.reset(ggml_init({.mem_size = room, .mem_buffer = nullptr, .no_alloc = false}));
  }

  // Random around `centre`, scaled so that activations keep their size.
  void tensor(const std::string& name, std::vector<int64_t> ne, float centre = 0) {
    ggml_tensor* t = ggml_new_tensor(context_.get(), GGML_TYPE_F32, static_cast<int>(ne.size()), ne.data());
    ggml_set_name(t, name.c_str());
    int64_t inputs = 1;
    for (std::size_t i = 0; i + 1 < ne.size(); ++i) inputs *= ne[i];
    const float scale = ne.size() == 1 ? 0.1F : std::sqrt(3.0F / static_cast<float>(inputs));
    unsigned long long key = mix(shape_.seed);
    for (const char c : name) key = mix(key ^ static_cast<unsigned char>(c));
    auto* values = static_cast<float*>(t->data);
    for (int64_t i = 0; i < ggml_nelements(t); ++i) {
      const float uniform = static_cast<float>(mix(key + static_cast<unsigned long long>(i)) >> 40) * (2.0F / (1 << 24)) - 1.0F;
      values[i] = centre + scale * uniform;
    }
    gguf_add_tensor(meta_.get(), t);
  }
  void linear(const std::string& name, int in, int out) {
    tensor(name + ".weight", {in, out});
    tensor(name + ".bias", {out});
  }
  void norm(const std::string& name) {
    tensor(name + ".weight", {shape_.width}, 1);
    tensor(name + ".bias", {shape_.width});
  }

  void write() {
    const Shape& s = shape_;
    gguf_context* meta = meta_.get();
    gguf_set_val_str(meta, "general.architecture", "clip");
    gguf_set_val_str(meta, "general.name", ("random " + s.type).c_str());
    gguf_set_val_str(meta, "clip.projector_type", types.at(s.type).c_str());
    gguf_set_val_bool(meta, "clip.has_vision_encoder", true);
    gguf_set_val_bool(meta, "clip.use_gelu", true);
    const auto u32 = [&](const char* key, int value) { gguf_set_val_u32(meta, key, static_cast<uint32_t>(value)); };
    u32("clip.vision.image_size", s.image);
    u32("clip.vision.patch_size", s.patch);
    u32("clip.vision.embedding_length", s.width);
    u32("clip.vision.feed_forward_length", s.ffn);
    u32("clip.vision.block_count", s.layers);
    u32("clip.vision.attention.head_count", s.heads);
    u32("clip.vision.projection_dim", s.text_width);
    u32("clip.vision.projector.scale_factor", s.merge);
    gguf_set_val_f32(meta, "clip.vision.attention.layer_norm_epsilon", 1e-6F);
    const std::array<float, 3> half{0.5F, 0.5F, 0.5F};
    gguf_set_arr_data(meta, "clip.vision.image_mean", GGUF_TYPE_FLOAT32, half.data(), half.size());
    gguf_set_arr_data(meta, "clip.vision.image_std", GGUF_TYPE_FLOAT32, half.data(), half.size());

    const int side = s.image / s.patch;
    tensor("v.patch_embd.weight", {s.patch, s.patch, 3, s.width});
    if (s.type == "qwen2vl") tensor("v.patch_embd.weight.1", {s.patch, s.patch, 3, s.width});
    else tensor("v.patch_embd.bias", {s.width});
    if (s.type != "qwen2vl") tensor("v.position_embd.weight", {s.width, side * side});
    for (int i = 0; i < s.layers; ++i) {
      const std::string block = "v.blk." + std::to_string(i) + ".";
      for (const char* name : {"attn_q", "attn_k", "attn_v", "attn_out"}) linear(block + name, s.width, s.width);
      norm(block + "ln1");
      norm(block + "ln2");
      linear(block + "ffn_up", s.width, s.ffn);
      linear(block + "ffn_down", s.ffn, s.width);
    }
    norm("v.post_ln");
    if (s.type == "mlp") {
      linear("mm.0", s.width, s.text_width);
      linear("mm.2", s.text_width, s.text_width);
    } else if (s.type == "gemma3") {
      tensor("mm.input_projection.weight", {s.text_width, s.width});
      tensor("mm.soft_emb_norm.weight", {s.width}, 1);
    } else {
      linear("mm.0", 4 * s.width, 4 * s.width);
      linear("mm.2", 4 * s.width, s.text_width);
    }
    if (!gguf_write_to_file(meta, s.out.c_str(), false)) fail("cannot write " + s.out);
  }

 private:
  struct Free {
    void operator()(ggml_context* c) const { ggml_free(c); }
    void operator()(gguf_context* c) const { gguf_free(c); }
  };
  const Shape& shape_;
  std::unique_ptr<ggml_context, Free> context_;
  std::unique_ptr<gguf_context, Free> meta_{gguf_init_empty()};
};

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Writes a GGUF vision projector with random weights."};
  app.footer(
      "Examples:\n"
      "  make_projector --type mlp --text-width 64 mmproj-tiny.gguf\n"
      "  make_projector --type qwen2vl --text-width 64 mmproj-tiny-qwen2vl.gguf");
  Shape shape;
  app.add_option("--type", shape.type,
                 "How rows come about: mlp as in LLaVA, gemma3 (all rows see each other), qwen2vl (positions of two dimensions)")
      ->check(CLI::IsMember(std::vector<std::string>{"mlp", "gemma3", "qwen2vl"}))
      ->capture_default_str();
  const auto number = [&](const char* name, int& value, const char* help) {
    app.add_option(name, value, help)->check(CLI::Range(1, 1 << 14))->capture_default_str();
  };
  number("--text-width", shape.text_width, "Embedding length of the text model");
  number("--width", shape.width, "Embedding length of the encoder");
  number("--heads", shape.heads, "Heads of the encoder");
  number("--layers", shape.layers, "Blocks of the encoder");
  number("--image", shape.image, "Pixels of a side, where that is fixed");
  number("--patch", shape.patch, "Pixels of a patch's side");
  number("--merge", shape.merge, "Patches to a row, in each direction (gemma3)");
  app.add_option("--seed", shape.seed, "Same seed, same weights")->capture_default_str();
  app.add_option("out", shape.out, "File to write")->required();
  CLI11_PARSE(app, argc, argv);
  if (shape.width % shape.heads != 0 || shape.image % (shape.patch * shape.merge) != 0)
    fail("--width must be a multiple of --heads, and --image of --patch times --merge");
  Writer(shape).write();
  return 0;
}
