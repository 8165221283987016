// Writes small GGUF files byte by byte, right or deliberately wrong.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace hearth::test {

class GgufWriter {
 public:
  std::uint32_t version = 3;
  std::string magic = "GGUF";
  std::uint64_t alignment = 32;
  std::uint64_t missing_data = 0;  // bytes left off the end

  struct Tensor {
    std::string name;
    std::vector<std::uint64_t> shape;
    std::uint32_t type = 0;
    std::uint64_t offset = 0;
    std::uint64_t bytes = 0;
  };
  std::vector<Tensor> tensors;

  template <class T>
  static void put(std::string& out, T value) {
    out.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  static void put_text(std::string& out, std::string_view text) {
    put<std::uint64_t>(out, text.size());
    out += text;
  }
  void raw(std::string_view key, std::uint32_t type, std::string_view value) {
    put_text(metadata_, key);
    put(metadata_, type);
    metadata_ += value;
    ++entries_;
  }
  void text(std::string_view key, std::string_view value) {
    std::string bytes;
    put_text(bytes, value);
    raw(key, 8, bytes);
  }
  void number(std::string_view key, std::uint32_t value) {
    std::string bytes;
    put(bytes, value);
    raw(key, 4, bytes);
  }
  void numbers(std::string_view key, const std::vector<std::int32_t>& values) {
    std::string bytes;
    put<std::uint32_t>(bytes, 5);
    put<std::uint64_t>(bytes, values.size());
    for (const auto value : values) put(bytes, value);
    raw(key, 9, bytes);
  }
  // Places the tensor right after the one before it.
  void tensor(std::string name, std::vector<std::uint64_t> shape, std::uint32_t type, std::uint64_t bytes) {
    const std::uint64_t end = tensors.empty() ? 0 : tensors.back().offset + tensors.back().bytes;
    tensors.push_back({std::move(name), std::move(shape), type, (end + alignment - 1) / alignment * alignment, bytes});
  }
  std::string write() const {
    std::string out = magic;
    put(out, version);
    put<std::uint64_t>(out, tensors.size());
    put<std::uint64_t>(out, entries_);
    out += metadata_;
    std::uint64_t end = 0;
    for (const auto& t : tensors) {
      put_text(out, t.name);
      put<std::uint32_t>(out, static_cast<std::uint32_t>(t.shape.size()));
      for (const auto size : t.shape) put(out, size);
      put(out, t.type);
      put(out, t.offset);
      end = t.offset + t.bytes;
    }
    out.resize((out.size() + alignment - 1) / alignment * alignment);
    out.resize(out.size() + end - missing_data);
    return out;
  }

 private:
  std::string metadata_;
  std::uint64_t entries_ = 0;
};

// A whole llama-like model with 2 layers.
inline GgufWriter small_model() {
  GgufWriter w;
  w.text("general.architecture", "llama");
  w.text("general.name", "small");
  w.text("general.license", "MIT");
  w.number("general.file_type", 15);
  w.number("llama.context_length", 4096);
  w.number("llama.block_count", 2);
  w.number("llama.embedding_length", 256);
  w.number("llama.feed_forward_length", 512);
  w.number("llama.attention.head_count", 4);
  w.number("llama.attention.head_count_kv", 2);
  w.number("llama.vocab_size", 1000);
  w.tensor("token_embd.weight", {256, 1000}, 12, 1000 * 144);
  w.tensor("output_norm.weight", {256}, 0, 1024);
  return w;
}

}  // namespace hearth::test
