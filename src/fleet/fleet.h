// Many models, one machine. The fleet knows every configured model, finds the one a request means, loads it when it is needed, and sees that what is
// loaded fits into memory: a budget of bytes, not a count of models. To its callers it is one Provider.
//
// What it promises. No request is ever ended by a swap: a model that has to go takes no more requests, finishes what it has begun, and only then
// gives its memory back. Requests for a model that is absent wait together for one load. Two models that do not fit side by side take turns:
// whoever is loaded serves all of its waiting requests before the other one is loaded, but nobody waits longer than `turn` for a model to begin to
// drain. A load that fails is an error to exactly the requests that waited for it.
#pragma once

#include <boost/asio/io_context.hpp>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "catalog/model.h"
#include "chat/event.h"
#include "fleet/supervisor.h"
#include "fleet/upstream.h"
#include "wire/provider.h"

namespace hearth::fleet {

enum class ModelKind {
  worker,     // our own engine in a process of its own
  command,    // a supervised process given by a command line, OpenAI-compatible (llama-server, SGLang, vLLM …)
  openai,     // a remote OpenAI-compatible endpoint, or several that serve the same model
  anthropic,  // a remote Anthropic endpoint
};

// Host or GPU memory of the machine.
struct MemoryState {
  struct Gpu {
    std::string name;
    std::int64_t total = 0;
    std::int64_t free = 0;
  };
  std::int64_t total = 0;      // of the host, or of the control group if that is less
  std::int64_t available = 0;  // what a process could still take without swapping
  std::vector<Gpu> gpus;       // in the engine's order
};

struct ModelSpec {
  std::string id;  // as clients name it; unique, also among aliases
  std::vector<std::string> aliases;
  std::vector<chat::ModelRole> roles{chat::ModelRole::chat};
  ModelKind kind = ModelKind::worker;
  chat::ModelInfo info;  // as far as it is known without loading: size, context, abilities

  bool pinned = false;   // loaded at start and never evicted
  bool preload = false;  // loaded at start as far as memory allows
  std::optional<std::chrono::milliseconds>
      idle_unload;  // unloaded after this long without a request; empty: only when others need the room

  // worker and command
  std::vector<std::string> command;  // worker: the fleet adds the socket and "--gpu-layers=N"; command: may hold {port}
  std::string health_path = "/health";
  catalog::MemoryEstimate need;    // expected while loaded, corrected by what each load measures. All zero: unknown, counts as nothing
  std::optional<int> gpu_layers;   // the user insists; empty: wholly on one GPU where it fits, else wholly on the CPU
  int layers = 0;                  // it has, with its output; to reckon with gpu_layers. 0: unknown
  std::vector<std::string> files;  // what a load reads: read ahead while the process starts

  // openai and anthropic: one or more endpoints of the same model
  struct Remote {
    net::Endpoint endpoint;
    std::string base_path;  // "" or "/api", before /v1
  };
  std::vector<Remote> remotes;

  // `name`, key, remote model name, time-outs, concurrency, token cap, dialect. Zero time-outs take the defaults below.
  UpstreamOptions upstream;
};

struct FleetOptions {
  std::vector<ModelSpec> models;                 // the first of a role is that role's default
  std::int64_t memory = -1;                      // host bytes all models together may take; -1: what is available at start, less a reserve
  std::chrono::milliseconds turn{5'000};         // see above
  std::chrono::milliseconds start_wait{60'000};  // how long a request waits for its model beyond the load's own progress; then unavailable
  int queue_limit = 256;                         // requests that may wait for models to be loaded, all together; past it: overloaded
  std::chrono::milliseconds first_token_cpu{300'000};
  std::chrono::milliseconds first_token_gpu{90'000};
  SupervisorOptions supervisor;               // health, hang and stop limits of every process; its command and socket stay empty
  std::function<MemoryState()> memory_state;  // asked before each load
  std::string socket_folder;                  // private to this user; empty: one is made
};

// What happened to a model, in order: for the log, /admin/events and whoever watches.
struct ModelEvent {
  std::uint64_t number = 0;  // counts up from 1
  std::int64_t time = 0;     // Unix milliseconds
  std::string model;
  chat::ModelState state = chat::ModelState::absent;
  std::string reason;                 // "requested", "evicted for X", "idle", "unload asked for", "the engine stopped: …"
  std::chrono::milliseconds took{0};  // loading and draining
};

class Fleet final : public wire::Provider {
 public:
  // config_invalid: no model, two with one name, a spec that lacks what its kind needs.
  static Result<std::unique_ptr<Fleet>> make(net::asio::io_context& io, FleetOptions options, const Clock& clock = Clock::system());
  ~Fleet() override;  // kills what still runs

  // Loads what is pinned and preloaded.
  void start();
  // No new loads; every process ends properly. Callers have finished by then.
  net::Task<void> stop();
  // Ends every process at once.
  void kill();

  // "id", an alias, "id:adapter", or "" for the default of the request's role; model_not_found lists what there is. Explanations tell model, upstream,
  // lane ("local" or "remote"), load ("waited 812 ms") and retries.
  net::Task<Result<std::unique_ptr<wire::EventStream>>> generate(chat::Request request, wire::Caller caller) override;
  net::Task<Result<chat::Embeddings>> embed(chat::EmbeddingRequest request, wire::Caller caller) override;
  net::Task<Result<chat::RerankResult>> rerank(chat::RerankRequest request, wire::Caller caller) override;
  net::Task<Result<int>> count_tokens(chat::Request request, wire::Caller caller) override;
  net::Task<Result<std::vector<chat::TokenInfo>>> score(chat::Request request, wire::Caller caller) override;
  // Every configured model with its state, at once.
  net::Task<Result<std::vector<chat::ModelInfo>>> models() override;
  // Returns when it is loaded, or with the reason why not.
  net::Task<Result<void>> load(std::string model, std::optional<std::chrono::milliseconds> keep_loaded, wire::Caller caller) override;
  // Returns when its memory is free. Requests that come meanwhile load it again.
  net::Task<Result<void>> unload(std::string model, wire::Caller caller) override;

  const std::vector<chat::ModelInfo>& snapshot() const;
  // Called on the loop for every event from now on; the returned token ends it when it is dropped.
  std::shared_ptr<void> watch(std::function<void(const ModelEvent&)> watcher);
  // The last events, at most 256, those after `number`.
  std::vector<ModelEvent> history(std::uint64_t after) const;

  struct EngineReport {
    std::string model;
    int restarts = 0;
    engine::SchedulerStats stats;
  };
  // Every loaded worker's own figures, asked now.
  net::Task<std::vector<EngineReport>> reports(std::chrono::milliseconds up_to);
  // Bytes all loaded models are reckoned to take, and the budget.
  std::int64_t memory_used() const;
  std::int64_t memory_budget() const;

 private:
  class Impl;
  explicit Fleet(std::shared_ptr<Impl> impl);
  std::shared_ptr<Impl> impl_;
};

}  // namespace hearth::fleet
