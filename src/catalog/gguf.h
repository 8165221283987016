// What is in a model file, and whether it is whole, before an engine spends minutes on it or dies of it. A GGUF comes from strangers: no length,
// count or offset in it is believed until it has been held against the size of the file. Reads versions 2 and 3, the header only: memory use
// does not grow with the weights.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/result.h"

namespace hearth::catalog {

// A block of a tensor type: `elements` values stored in `bytes` bytes. From ggml's type table.
struct TensorType {
  std::uint32_t id = 0;
  std::string_view name;  // as ggml prints it, upper case: "Q4_K"
  std::uint32_t elements = 0;
  std::uint32_t bytes = 0;
};
// nullptr when no such type exists (any more).
const TensorType* find_tensor_type(std::uint32_t id);

// An array. Short arrays of integers, such as head counts by layer, are kept; of others only the count.
struct GgufArray {
  std::uint32_t element_type = 0;
  std::uint64_t count = 0;
  std::vector<std::int64_t> integers;
};
using GgufValue = std::variant<std::uint64_t, std::int64_t, double, bool, std::string, GgufArray>;

struct GgufTensor {
  std::string name;
  std::vector<std::uint64_t> shape;  // fastest dimension first
  const TensorType* type = nullptr;
  std::uint64_t offset = 0;  // from `Gguf::data_offset`
  std::uint64_t elements = 0;
  std::uint64_t bytes = 0;
};

struct Gguf {
  std::uint32_t version = 0;
  std::uint64_t alignment = 32;
  std::uint64_t data_offset = 0;
  std::uint64_t file_bytes = 0;
  std::vector<std::pair<std::string, GgufValue>> metadata;
  std::vector<GgufTensor> tensors;

  const GgufValue* find(std::string_view key) const;
  std::string text(std::string_view key) const;                              // empty when absent or of another type
  std::int64_t integer(std::string_view key, std::int64_t otherwise) const;  // likewise `otherwise`
};

// Reads and checks the header of the file at `path`: magic, version, every type and length, unique names, and that the tensors lie in the file
// one after another without overlap, as llama.cpp demands. io when it cannot be read; model_invalid otherwise: truncated (with the bytes
// expected and there), an unsupported version, or another format, which is named together with what to do.
Result<Gguf> read_gguf(const std::string& path);
// The same on bytes in memory; `name` stands for the file in messages.
Result<Gguf> parse_gguf(std::string_view bytes, std::string_view name);

// `text` fit for a terminal and a message: control characters and broken UTF-8 become '?', the rest is cut to `limit` bytes.
std::string printable(std::string_view text, std::size_t limit = 80);

}  // namespace hearth::catalog
