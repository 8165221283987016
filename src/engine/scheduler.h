// Continuous batching on one thread that owns the decoder. Each tick: one token for every running sequence, then prefill chunks of those that
// are starting, within a token budget that keeps ticks short while anybody is streaming. Two queue classes (interactive before background),
// deficit round-robin between tenants inside each; admission by KV cells (prompt + wanted tokens); a bounded queue; background sequences are
// parked in host memory when interactive work needs their cells, and resumed without recomputation. A prefix cache shares KV cells between
// requests that begin alike. Sequences with the same adapter run together; where there are several adapters, they take turns.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "chat/event.h"
#include "chat/request.h"
#include "engine/decoder.h"
#include "engine/sampling.h"

namespace hearth::engine {

class ParkedFiles;  // engine/parked_files.h

struct SchedulerOptions {
  int max_running = 16;       // sequences decoding at once
  int cached_sequences = 48;  // prefixes kept in the cache at once; the decoder needs max_running + cached_sequences sequence ids
  int queue_limit = 256;      // requests waiting, both classes together; past it: overloaded
  int batch_tokens = 512;     // rows per tick at most (further bounded by Decoder::max_batch)
  std::chrono::milliseconds tick_target{150};               // prefill per tick is cut so that a tick stays near this while others stream
  std::chrono::milliseconds tick_target_alone{500};         // the same while nobody streams: how long a newcomer may have to wait
  std::int64_t prefix_cache_bytes = std::int64_t{1} << 30;  // idle KV kept for reuse, in cells and in host memory together; 0 = off
  std::int64_t park_bytes = std::int64_t{4} << 30;          // host memory for parked sequences
  ParkedFiles* files = nullptr;    // where KV goes that these two do not hold; outlives the scheduler; null: nowhere
  int open_ended_reserve = 512;    // cells reserved at first for a request without max_tokens; grows as it goes
  int quantum = 512;               // deficit round-robin: tokens a tenant earns per turn
  std::size_t sink_backlog = 256;  // tokens a slow reader may leave unread before its sequence pauses
  // How long one adapter's sequences run before those of the next get their turn, when both have work. A switch costs several milliseconds.
  std::chrono::milliseconds adapter_slice{100};
  std::chrono::milliseconds background_patience{
      30'000};  // a background request that waited this long counts as interactive: nothing starves
};

// What one tick produced for one choice. Text is whole UTF-8 and already free of stop strings.
struct SequenceDelta {
  int choice = 0;
  std::string text;
  std::vector<chat::TokenInfo> tokens;  // when asked for
  int token_count = 0;                  // tokens sampled, end-of-generation included
  int drafted = 0, accepted = 0;        // guessed by speculation; of these, right
  std::optional<chat::FinishReason> finished;
  std::string stop_sequence;  // finished: the one of Generation::stop that ended it
};

// Receives a request's progress, on the scheduler's thread: implementations hand over to their own loop and return at once.
class GenerationSink {
 public:
  virtual ~GenerationSink() = default;
  // Prefill is done (or, where the prompt is scored, has begun); `cached` prompt tokens came from the prefix cache. Once, before any delta.
  virtual void on_started(int prompt_tokens, int cached) = 0;
  virtual void on_delta(SequenceDelta delta) = 0;
  // The request ended without all choices finished. Nothing follows.
  virtual void on_failed(Error error) = 0;
  // Tokens handed over and not yet read. Past SchedulerOptions::sink_backlog the request pauses.
  virtual std::size_t backlog() const = 0;
};

struct Generation {
  std::vector<Token> prompt;     // not empty; ends with text
  std::vector<ImagePtr> images;  // every piece that the prompt has placeholders of
  int choices = 1;
  std::optional<int> max_tokens;      // per choice; empty = until the model ends or the context is full
  std::vector<SamplerSpec> samplers;  // one per choice
  AdapterPtr adapter;                 // null = the model alone
  std::vector<std::string> stop;      // the request's own
  std::vector<std::string> template_stop;
  int top_logprobs = -1;       // -1 = no TokenInfo
  bool echo_logprobs = false;  // score the prompt: TokenInfo for each prompt token after the first, as choice 0's first delta
  bool speculate = true;       // false: rows are computed one at a time, so that rounding is the same every time
  chat::Priority priority = chat::Priority::interactive;
  std::string tenant;
  std::optional<TimePoint> deadline;
  std::shared_ptr<GenerationSink> sink;
};

// Cancels on destruction.
class GenerationHandle {
 public:
  GenerationHandle() = default;
  explicit GenerationHandle(std::shared_ptr<std::atomic<bool>> cancelled) { cancelled_.push_back(std::move(cancelled)); }
  GenerationHandle(GenerationHandle&&) = default;
  GenerationHandle& operator=(GenerationHandle&& other) noexcept {
    cancel();
    cancelled_ = std::move(other.cancelled_);
    return *this;
  }
  ~GenerationHandle() { cancel(); }
  void cancel() {
    for (auto& flag : cancelled_) flag->store(true);
  }
  // One handle for several generations: the prompts of one request.
  void merge(GenerationHandle&& other) {
    cancelled_.insert(cancelled_.end(), other.cancelled_.begin(), other.cancelled_.end());
    other.cancelled_.clear();
  }

 private:
  std::vector<std::shared_ptr<std::atomic<bool>>> cancelled_;
};

// Counters and gauges, readable from any thread.
struct SchedulerStats {
  std::int64_t ticks = 0;
  int waiting = 0, running = 0, parked = 0;
  int cells_total = 0, cells_used = 0, cells_cached = 0;  // used includes cached
  std::int64_t prefix_parked_bytes = 0;                   // idle prefixes in host memory
  std::int64_t kv_bytes = 0, parked_bytes = 0;            // all cells, used or not; parked sequences in host memory
  std::int64_t kv_encoding_us = 0, kv_attention_us = 0;   // microseconds spent on compressed keys and values
  std::int64_t disk_bytes = 0, disk_lost = 0;             // parked KV on disk; what was there and could not be given back
  std::int64_t prompt_tokens = 0, cached_tokens = 0, generated_tokens = 0;
  std::int64_t drafted_tokens = 0, accepted_tokens = 0;  // speculation: guessed; of these, right
  std::int64_t parks = 0, resumes = 0, preempted_bytes = 0;
  int adapters = 0;  // loaded
  std::int64_t adapter_bytes = 0, adapter_loads = 0, adapter_switches = 0;
  std::int64_t projector_bytes = 0;  // weights of the vision projector while it is loaded
  std::int64_t projector_loads = 0, images_encoded = 0;
  std::int64_t image_bytes = 0;  // encoded images kept
  std::int64_t cancelled = 0, failed = 0, finished = 0, refused = 0;
  bool busy = false;                        // has work
  std::chrono::milliseconds since_tick{0};  // age of the heartbeat; with busy, a large one means the decoder hangs
};

class Speculator;  // engine/speculator.h

class Scheduler {
 public:
  // Starts the thread. `decoder`, `clock` and `speculator`, if any, outlive it; the decoder must be able to share prefixes for a speculator to be used.
  Scheduler(Decoder& decoder, SchedulerOptions options, const Clock& clock = Clock::system(), Speculator* speculator = nullptr);
  ~Scheduler();  // fails what is left with unavailable

  // Any thread. overloaded (with retry_after) when the queue is full, context_length_exceeded when prompt plus max_tokens can never fit.
  Result<GenerationHandle> submit(Generation generation);
  // Runs `job` between ticks on the scheduler's thread: embeddings and other uses of the context. Counts against the queue limit.
  Result<void> run_between_ticks(std::function<void()> job);
  SchedulerStats stats() const;
  // Stops taking new work; what runs goes on. wait_idle returns when nothing is left or at the deadline.
  void drain();
  bool wait_idle(std::chrono::milliseconds up_to);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace hearth::engine
