// What a model is and what it will cost, from its file alone: for `hearth models`, for `hearth doctor`, and for a clear refusal before an engine
// is started on it. Split models (name-00001-of-00003.gguf) count as one.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "catalog/gguf.h"

namespace hearth::catalog {

struct ModelSummary {
  std::vector<std::string> files;  // one, or every part of a split model in order
  std::uint64_t file_bytes = 0;    // all parts
  std::uint32_t gguf_version = 0;
  std::string architecture;  // "llama"
  std::string name;
  std::string licence;
  std::string description;
  std::uint64_t parameters = 0;
  std::uint64_t weight_bytes = 0;  // the tensors alone
  std::string quantisation;        // "Q4_K_M", from general.file_type; the dominant type when the file does not say
  std::string dominant_type;       // tensor type that holds the most bytes
  std::int64_t context = 0;        // tokens it was trained for; 0 = the file does not say
  std::int64_t layers = 0;
  std::int64_t embedding_length = 0;
  std::int64_t feed_forward_length = 0;
  std::int64_t heads = 0;
  std::vector<std::int64_t> kv_heads;  // by layer; 0 = a layer without attention
  std::int64_t key_length = 0;         // values of a key head
  std::int64_t value_length = 0;
  std::int64_t vocabulary = 0;
  std::int64_t sliding_window = 0;  // 0 = none. Layers that use it keep fewer cells; the estimates below ignore that and are upper bounds
  bool recurrent = false;           // has layers that keep a fixed state instead of KV cells
  std::int64_t mtp_layers = 0;      // of `layers`, the last ones: blocks for multi-token prediction, which guess the token after the next
  std::string mtp_obstacle;         // why the engine cannot guess with them; empty = it can, or there are none
  bool can_guess() const { return mtp_layers > 0 && mtp_obstacle.empty(); }
  bool chat_template = false;
  std::string
      tool_format;      // dialect of tool calls in the chat template: "hermes", "llama3", "mistral", "deepseek", "other"; empty = none seen
  std::string pooling;  // "mean", "cls", "last", "rank"; empty = generates text
};

// What a KV cache can be stored as: llama.cpp's own types, and TurboQuant's profiles (turboquant/profile.h).
std::span<const std::string_view> kv_types();
// Bytes of all layers' keys and values for one token; `kv_type` is one of kv_types() (0 for any other). `mtp`: and those of the blocks that guess.
std::uint64_t kv_bytes_per_token(const ModelSummary& model, std::string_view kv_type, bool mtp = false);

// Expected memory while serving. `compute` is an estimate of llama.cpp's scratch buffers for batches of 512: logits, activations, attention mask.
struct MemoryEstimate {
  std::uint64_t weights = 0;
  std::uint64_t kv = 0;
  std::uint64_t compute = 0;
  std::uint64_t total() const { return weights + kv + compute; }
};
// `mtp`: with the blocks that guess, which have a memory and scratch buffers of their own.
MemoryEstimate estimate_memory(const ModelSummary& model, std::int64_t context, std::string_view kv_type, bool mtp = false);

// The largest context, at most what the model was trained for, whose estimate is within `bytes`; 0 when not even the weights are.
std::int64_t context_that_fits(const ModelSummary& model, std::uint64_t bytes, std::string_view kv_type, bool mtp = false);

// Context the engine takes when none is configured.
std::int64_t default_context(const ModelSummary& model);

// Reads and verifies the model at `path` with all its parts. Errors as read_gguf, and model_invalid for a missing part, a part that is not the
// first, or a file that holds no model (a vocabulary, an adapter).
Result<ModelSummary> read_model(const std::string& path);
// The same for one whole file in memory.
Result<ModelSummary> parse_model(std::string_view bytes, std::string_view name);

// The .gguf files in `folder` and its subfolders, sorted; of split models only the first part. Empty when the folder does not exist.
std::vector<std::filesystem::path> list_models(const std::filesystem::path& folder);

}  // namespace hearth::catalog
