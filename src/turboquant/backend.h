// Compressed keys and values for an unmodified llama.cpp. llama.cpp asks the device of a layer for the memory of that layer's KV cache and for the
// two operations that touch it: SET_ROWS writes rows, FLASH_ATTN_EXT reads them. So a ggml device that stands before a real one, keeps those tensors
// compressed in buffers of its own, runs these two itself and hands everything else to the real device, compresses the cache of every model
// without a new tensor type and without a patch. Weights stay where the real device wants them.
//
// Two ways in: linked, as here, and as a plug-in that stock tools load (backend_plugin.cpp, docs/turboquant.md).
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

struct ggml_backend_device;
struct ggml_backend_reg;
struct ggml_threadpool;

namespace hearth::turboquant {

struct BackendOptions {
  std::string profile = "k8v4";     // profile.h
  int layers = 0;                   // of the model; 0 = found out from the names of the weights offered to the device while a model loads
  int head_size = 0;                // smallest of the model; 0 = at least 64. Room for scales follows from it: one for each head
  ggml_threadpool* pool = nullptr;  // computes instead of threads started anew for every graph; outlives the backend
  // Receives what a user should read, one line a call: what is refused and why, what the cache takes. Null: ggml's own log.
  std::function<void(bool error, std::string_view line)> log;
};

// What the caches in a device's buffers take, and what has been done with them.
struct KvUsage {
  std::uint64_t bytes = 0;                             // held
  std::uint64_t f16_bytes = 0;                         // what llama.cpp's default type would take
  std::chrono::nanoseconds encoding{0}, attention{0};  // spent by graphs, as a clock on the wall shows it
};

// Outlives every model and context that uses its device. Thread-safe like any ggml device.
class Backend {
 public:
  // `inner` is the device to stand before; null: the CPU. config_invalid for an unknown profile, unsupported for a device without our kernels.
  static Result<std::unique_ptr<Backend>> create(const BackendOptions& options, ggml_backend_device* inner = nullptr);
  ~Backend();
  Backend(const Backend&) = delete;
  Backend& operator=(const Backend&) = delete;

  // For llama_model_params::devices: only models loaded onto it are affected.
  ggml_backend_device* device() const;
  // For ggml_backend_register: offered to every model of the process. ggml never lets go of what is registered.
  ggml_backend_reg* registry() const;
  KvUsage usage() const;

  // llama.cpp lays out a saved state as if the cache were f16, with our rows in front of zeros. These two leave the zeros out, and never need memory for
  // them: `write` and `read` are llama_state_seq_get_data and llama_state_seq_set_data on a place of `size` bytes. Exact. restore() gives what `read`
  // gives; config_invalid for a state of another profile, which nothing is read of.
  Result<std::vector<std::uint8_t>> save(std::size_t size, const std::function<std::size_t(std::uint8_t*, std::size_t)>& write) const;
  Result<std::size_t> restore(std::span<const std::uint8_t> state,
                              const std::function<std::size_t(const std::uint8_t*, std::size_t)>& read) const;

 private:
  struct State;
  explicit Backend(std::unique_ptr<State> state);
  std::uint64_t format() const;  // of saved states
  std::unique_ptr<State> state_;
};

}  // namespace hearth::turboquant
