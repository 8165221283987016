// Keeps some layers of a GGUF model and drops the others: a draft model with the vocabulary, embeddings and first thoughts of the model it drafts for.
#include <ggml.h>
#include <gguf.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

namespace {

[[noreturn]] void fail(const std::string& message) {
  std::fprintf(stderr, "trim_model: %s\n", message.c_str());
  std::exit(1);
}

struct GgufDeleter {
  void operator()(gguf_context* c) const { gguf_free(c); }
};
struct ContextDeleter {
  void operator()(ggml_context* c) const { ggml_free(c); }
};

// "blk.7.attn_q.weight" is of layer 7; -1 for what is of none.
int layer_of(const std::string& name) { return name.starts_with("blk.") ? std::atoi(name.c_str() + 4) : -1; }

void trim(const std::string& in, const std::string& out, std::vector<int> keep, bool exact) {
  ggml_context* data = nullptr;
  const std::unique_ptr<gguf_context, GgufDeleter> source(gguf_init_from_file(in.c_str(), {.no_alloc = false, .ctx = &data}));
  if (!source) fail("cannot read " + in);
  const std::unique_ptr<ggml_context, ContextDeleter> tensors(data);
  const int64_t arch = gguf_find_key(source.get(), "general.architecture");
  if (arch < 0) fail(in + " names no architecture");
  const std::string prefix = std::string(gguf_get_val_str(source.get(), arch)) + ".", count_key = prefix + "block_count";
  const int64_t count = gguf_find_key(source.get(), count_key.c_str());
  if (count < 0) fail(in + " has no " + count_key);
  const int layers = static_cast<int>(gguf_get_val_u32(source.get(), count));
  for (int i = 0; keep.empty() && i < layers; ++i) keep.push_back(i);
  std::sort(keep.begin(), keep.end());
  keep.erase(std::unique(keep.begin(), keep.end()), keep.end());
  if (keep.front() < 0 || keep.back() >= layers) fail(in + " has layers 0 to " + std::to_string(layers - 1));

  const std::unique_ptr<gguf_context, GgufDeleter> target(gguf_init_empty());
  gguf_set_kv(target.get(), source.get());
  for (int64_t i = 0; i < gguf_get_n_kv(source.get()); ++i) {
    const std::string key = gguf_get_key(source.get(), i);
    if (key.starts_with(prefix) && gguf_get_kv_type(source.get(), i) == GGUF_TYPE_ARRAY &&
        static_cast<int>(gguf_get_arr_n(source.get(), i)) == layers) {
      fail(key + " differs from layer to layer, which this tool does not handle");
    }
  }
  gguf_set_val_u32(target.get(), count_key.c_str(), static_cast<uint32_t>(keep.size()));
  std::size_t bytes = 1024;
  for (int64_t i = 0; exact && i < gguf_get_n_tensors(source.get()); ++i) {
    const ggml_tensor* t = ggml_get_tensor(data, gguf_get_tensor_name(source.get(), i));
    bytes += static_cast<std::size_t>(ggml_nelements(t)) * sizeof(float) + ggml_tensor_overhead() + 64;
  }
  const std::unique_ptr<ggml_context, ContextDeleter> room(ggml_init({.mem_size = bytes, .mem_buffer = nullptr, .no_alloc = false}));
  for (int64_t i = 0; i < gguf_get_n_tensors(source.get()); ++i) {
    const std::string name = gguf_get_tensor_name(source.get(), i);
    ggml_tensor* t = ggml_get_tensor(data, name.c_str());
    if (const int layer = layer_of(name); layer >= 0) {
      const auto at = std::find(keep.begin(), keep.end(), layer);
      if (at == keep.end()) continue;
      ggml_set_name(t, ("blk." + std::to_string(at - keep.begin()) + name.substr(name.find('.', 4))).c_str());
    }
    if (exact && t->type != GGML_TYPE_F32) {
      ggml_tensor* wide = ggml_new_tensor(room.get(), GGML_TYPE_F32, ggml_n_dims(t), t->ne);
      ggml_get_type_traits(t->type)->to_float(t->data, static_cast<float*>(wide->data), ggml_nelements(t));
      ggml_set_name(wide, t->name);
      t = wide;
    }
    gguf_add_tensor(target.get(), t);
  }
  if (!gguf_write_to_file(target.get(), out.c_str(), false)) fail("cannot write " + out);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Writes a GGUF model with only some layers of another."};
  app.footer("Example: trim_model --layers 0,1 assets/hearth-nano-0-f16.gguf draft.gguf");
  std::string in, out;
  std::vector<int> layers;
  bool exact = false;
  app.add_option("--layers", layers, "Layers to keep, from 0; without it all")->delimiter(',');
  app.add_flag("--f32", exact, "Widen every tensor to f32: rounding then hardly depends on the batch");
  app.add_option("in", in, "GGUF file")->required()->check(CLI::ExistingFile);
  app.add_option("out", out, "File to write")->required();
  CLI11_PARSE(app, argc, argv);
  trim(in, out, layers, exact);
  return 0;
}
