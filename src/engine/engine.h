// One loaded model, ready to answer chat::Requests: template and tokenizer in front, the scheduler in the middle, the output parser behind.
// The only public face of llama.cpp in hearth. Thread-safe except where noted.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "chat/event.h"
#include "chat/request.h"
#include "engine/scheduler.h"
#include "engine/speculator.h"

namespace hearth::engine {

// A LoRA adapter (GGUF) that clients may name.
struct AdapterSpec {
  std::string name;
  std::string path;
  float scale = 1;  // times the adapter's own; 0 = as if it were not there
};

struct EngineOptions {
  std::string model_path;           // GGUF; "embedded:" loads `embedded_model`
  std::string_view embedded_model;  // bytes that outlive the engine
  std::string model_id;             // name clients use
  int context = 0;                  // KV cells in all, shared by every request; 0 = the model's training context, 8,192 to 32,768
  int threads = 0;                  // 0 = physical cores
  int gpu_layers = -1;              // -1 = all when a GPU is there
  std::string kv_type = "f16";      // f16, q8_0, q4_0, or a profile of turboquant/profile.h
  bool flash_attention = true;      // used where the model supports it
  std::vector<AdapterSpec> adapters;
  // Adapters in this folder can be named without being configured: "x" is its file x.gguf, found when it is asked for. A client's path counts only
  // inside this folder. Empty: none.
  std::string adapter_folder;
  std::int64_t adapter_bytes = std::int64_t{1} << 30;  // adapters kept loaded at once
  // Vision projector (GGUF), for models that take images. Loaded when the first image comes, unloaded after so long without one; 0 = never. Empty: none.
  std::string projector_path;
  std::chrono::milliseconds projector_idle{std::chrono::minutes(5)};
  SchedulerOptions scheduler;
  std::string park_folder;           // for what of parked KV goes to disk
  std::int64_t park_disk_bytes = 0;  // there, at most; 0: nothing
  Speculation speculation;
};

// Receives an answer's events on the scheduler's thread: hand over and return.
class EventSink {
 public:
  virtual ~EventSink() = default;
  virtual void on_events(chat::Events events) = 0;  // a Failed event, or Finished for every choice then Usage, ends the answer
  virtual std::size_t backlog() const = 0;          // events handed over and not yet read
};

class Engine {
 public:
  // Loads; minutes for large models. `progress` (0..1) may return false to stop. model_invalid or io with what is wrong and what to do.
  static Result<std::unique_ptr<Engine>> load(const EngineOptions& options, std::function<bool(float)> progress = {});
  virtual ~Engine() = default;

  virtual chat::ModelInfo info() const = 0;
  // Renders, tokenizes, checks and submits. May take milliseconds per thousand tokens: call off the I/O loop. Validation errors come as the
  // Result, with the field in `param`; the answer's events go to `sink`.
  virtual Result<GenerationHandle> generate(const chat::Request& request, std::shared_ptr<EventSink> sink) = 0;
  virtual Result<int> count_tokens(const chat::Request& request) = 0;
  // These block until done; call off the I/O loop.
  virtual Result<chat::Embeddings> embed(const chat::EmbeddingRequest& request) = 0;
  virtual Result<chat::RerankResult> rerank(const chat::RerankRequest& request) = 0;
  virtual Result<std::vector<chat::TokenInfo>> score(const chat::Request& request) = 0;

  virtual SchedulerStats stats() const = 0;
  virtual void drain() = 0;
  virtual bool wait_idle(std::chrono::milliseconds up_to) = 0;
};

// What this build and machine can compute on, for `doctor`.
struct Device {
  std::string name;         // "CUDA0"
  std::string description;  // "NVIDIA H100"
  bool gpu = false;
  std::int64_t memory_total = 0, memory_free = 0;  // bytes
};
std::vector<Device> devices();
std::string cpu_features();       // as ggml reports them
std::string llama_cpp_version();  // e.g. "0.5.0"
// Sends llama.cpp's and ggml's own messages to our logger (warnings and errors; the rest at debug level). Call once per process.
void route_engine_logs();

// ggml ends the process where it cannot go on. `handler` is told why first: it may write, nothing else. Set before the first load.
void on_abort(void (*handler)(std::string_view reason));

}  // namespace hearth::engine
