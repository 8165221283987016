#include "gateway/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <array>
#include <map>

namespace hearth::gateway {
namespace {

constexpr std::array<std::string_view, 23> known_paths{"/",
                                                       "/health",
                                                       "/metrics",
                                                       "/admin/events",
                                                       "/admin/safety/reload",
                                                       "/v1/chat/completions",
                                                       "/v1/completions",
                                                       "/v1/embeddings",
                                                       "/v1/rerank",
                                                       "/v1/models",
                                                       "/v1/tokenize/count",
                                                       "/v1/score",
                                                       "/v1/prefill",
                                                       "/v1/messages",
                                                       "/v1/messages/count_tokens",
                                                       "/v1/responses",
                                                       "/api/chat",
                                                       "/api/generate",
                                                       "/api/embed",
                                                       "/api/tags",
                                                       "/api/show",
                                                       "/api/ps",
                                                       "/api/version"};

std::string_view label(std::string_view path) {
  if (path.starts_with("/v1/models/")) return "/v1/models";
  if (path.starts_with("/admin/models")) return "/admin/models";
  if (path.starts_with("/admin/approvals")) return "/admin/approvals";
  const auto* found = std::find(known_paths.begin(), known_paths.end(), path);
  return found == known_paths.end() ? "other" : *found;
}

double seconds(std::chrono::nanoseconds duration) { return std::chrono::duration<double>(duration).count(); }

const prometheus::Histogram::BucketBoundaries durations{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
                                                        1,     2.5,    5,     10,   30,    60,   120, 300};

// A counter that follows the engine's own, across restarts in which that one starts from zero again.
class Follower {
 public:
  explicit Follower(prometheus::Counter& counter, double unit = 1) : counter_(counter), unit_(unit) {}
  void follow(std::int64_t now) {
    counter_.Increment(unit_ * static_cast<double>(now >= last_ ? now - last_ : now));
    last_ = now;
  }

 private:
  prometheus::Counter& counter_;
  double unit_;
  std::int64_t last_ = 0;
};

// Why a model left memory, in one of few words.
std::string_view unload_cause(std::string_view reason) {
  if (reason.starts_with("evicted") || reason.starts_with("memory")) return "evicted";
  if (reason.starts_with("idle")) return "idle";
  if (reason.starts_with("unload")) return "asked";
  return "other";
}

const prometheus::Histogram::BucketBoundaries judge_durations{0.00001, 0.000025, 0.00005, 0.0001, 0.0002, 0.0003,
                                                              0.0005,  0.001,    0.0025,  0.01,   0.1,    1};
const prometheus::Histogram::BucketBoundaries load_durations{0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 640};

}  // namespace

class Metrics::Impl {
 public:
  using Counters = prometheus::Family<prometheus::Counter>;
  using Gauges = prometheus::Family<prometheus::Gauge>;
  using Histograms = prometheus::Family<prometheus::Histogram>;

  Counters& counters(const char* name, const char* help) { return prometheus::BuildCounter().Name(name).Help(help).Register(registry); }
  Gauges& gauges(const char* name, const char* help) { return prometheus::BuildGauge().Name(name).Help(help).Register(registry); }
  Histograms& histograms(const char* name, const char* help) {
    return prometheus::BuildHistogram().Name(name).Help(help).Register(registry);
  }

  struct PathSeries {
    prometheus::Histogram* duration = nullptr;
    std::map<int, prometheus::Counter*> by_status;
  };

  prometheus::Registry registry;
  Counters& requests = counters("hearth_requests_total", "Requests answered, by path and status (499: the client left first)");
  Counters& stream_failures = counters("hearth_stream_failures_total", "Answers that failed after they had begun, by error code");
  Histograms& request_durations = histograms("hearth_request_duration_seconds", "From a request's arrival to the end of its answer");
  prometheus::Histogram& first_token =
      histograms("hearth_time_to_first_token_seconds", "From a request's arrival to the first piece of its answer").Add({}, durations);
  Counters& tokens = counters("hearth_tokens_total", "Tokens of finished answers: prompt, prompt taken from the prefix cache, completion");
  prometheus::Counter& prompt_tokens = tokens.Add({{"kind", "prompt"}});
  prometheus::Counter& cached_tokens = tokens.Add({{"kind", "prompt_cached"}});
  prometheus::Counter& completion_tokens = tokens.Add({{"kind", "completion"}});
  prometheus::Gauge& connections = gauges("hearth_open_connections", "Client connections").Add({});
  Gauges& memory = gauges("hearth_models_memory_bytes", "Host memory of all loaded models together: used, and what they may use");
  prometheus::Gauge& memory_used = memory.Add({{"kind", "used"}});
  prometheus::Gauge& memory_budget = memory.Add({{"kind", "budget"}});

  Gauges& ready = gauges("hearth_engine_ready", "1 when the model is loaded and can answer");
  Gauges& model_requests = gauges("hearth_model_requests", "Requests of a model: being answered, waiting for it to be loaded");
  Gauges& model_memory = gauges("hearth_model_memory_bytes", "Memory a model takes while loaded, else is expected to take");
  Counters& loads = counters("hearth_model_loads_total", "Loads of a model, by outcome");
  Counters& unloads = counters("hearth_model_unloads_total", "Unloads of a model, by cause");
  Histograms& load_seconds = histograms("hearth_model_load_seconds", "From the decision to load a model until it could answer");
  Gauges& sequences = gauges("hearth_engine_requests", "Requests in the engine, by state");
  Gauges& cells = gauges("hearth_kv_cells", "KV cache cells: all, in use (cached ones included), kept for reuse");
  Gauges& prefix_parked = gauges("hearth_prefix_cache_parked_bytes", "KV of idle prefixes kept in host memory");
  Gauges& kv_bytes = gauges("hearth_kv_bytes", "Keys and values: of all cells, of requests paused in host memory, and on disk");
  Counters& kv_seconds =
      counters("hearth_kv_seconds_total", "Time spent compressing keys and values, and in attention over compressed ones");
  Counters& parked_lost =
      counters("hearth_parked_lost_total", "Parked keys and values on disk that could not be read back, so that they were computed again");
  Counters& prefix_hits =
      counters("hearth_prefix_cache_hit_tokens_total", "Prompt tokens the engine took from its prefix cache instead of computing them");
  Counters& generated = counters("hearth_engine_generated_tokens_total", "Tokens the engine sampled, unfinished answers included");
  Counters& speculation = counters("hearth_speculation_tokens_total", "Tokens guessed ahead, and those of them that were right");
  Gauges& adapters = gauges("hearth_adapters", "LoRA adapters in memory");
  Gauges& adapter_bytes = gauges("hearth_adapter_bytes", "Memory they take");
  Counters& adapter_loads = counters("hearth_adapter_loads_total", "LoRA adapters loaded");
  Counters& restarts = counters("hearth_worker_restarts_total", "Workers started after the first of each load");

  // What is told of every model, and of one in our own engine.
  struct ModelSeries {
    ModelSeries(Impl& all, const std::string& model)
        : ready(all.ready.Add({{"model", model}})),
          answering(all.model_requests.Add({{"model", model}, {"state", "running"}})),
          loading(all.model_requests.Add({{"model", model}, {"state", "waiting"}})),
          host_bytes(all.model_memory.Add({{"model", model}, {"memory", "host"}})),
          gpu_bytes(all.model_memory.Add({{"model", model}, {"memory", "gpu"}})) {}

    void set(const chat::ModelInfo& info) {
      ready.Set(info.state == chat::ModelState::ready ? 1 : 0);
      answering.Set(info.running);
      loading.Set(info.waiting);
      host_bytes.Set(static_cast<double>(info.memory_bytes));
      gpu_bytes.Set(static_cast<double>(info.gpu_bytes));
    }

    prometheus::Gauge &ready, &answering, &loading, &host_bytes, &gpu_bytes;
  };
  struct EngineSeries {
    EngineSeries(Impl& all, const std::string& model)
        : running(all.sequences.Add({{"model", model}, {"state", "running"}})),
          waiting(all.sequences.Add({{"model", model}, {"state", "waiting"}})),
          parked(all.sequences.Add({{"model", model}, {"state", "parked"}})),
          cells_total(all.cells.Add({{"model", model}, {"kind", "total"}})),
          cells_used(all.cells.Add({{"model", model}, {"kind", "used"}})),
          cells_cached(all.cells.Add({{"model", model}, {"kind", "cached"}})),
          prefix_parked(all.prefix_parked.Add({{"model", model}})),
          kv_cells(all.kv_bytes.Add({{"model", model}, {"kind", "cells"}})),
          kv_parked(all.kv_bytes.Add({{"model", model}, {"kind", "parked"}})),
          kv_disk(all.kv_bytes.Add({{"model", model}, {"kind", "disk"}})),
          adapters(all.adapters.Add({{"model", model}})),
          adapter_bytes(all.adapter_bytes.Add({{"model", model}})),
          prefix_hits(all.prefix_hits.Add({{"model", model}})),
          generated(all.generated.Add({{"model", model}})),
          drafted(all.speculation.Add({{"model", model}, {"kind", "drafted"}})),
          accepted(all.speculation.Add({{"model", model}, {"kind", "accepted"}})),
          adapter_loads(all.adapter_loads.Add({{"model", model}})),
          kv_encoding(all.kv_seconds.Add({{"model", model}, {"kind", "encode"}}), 1e-6),
          kv_attention(all.kv_seconds.Add({{"model", model}, {"kind", "attention"}}), 1e-6),
          parked_lost(all.parked_lost.Add({{"model", model}})),
          restarts(all.restarts.Add({{"model", model}})) {}

    void set(const engine::SchedulerStats& stats) {
      running.Set(stats.running);
      waiting.Set(stats.waiting);
      parked.Set(stats.parked);
      cells_total.Set(stats.cells_total);
      cells_used.Set(stats.cells_used);
      cells_cached.Set(stats.cells_cached);
      prefix_parked.Set(static_cast<double>(stats.prefix_parked_bytes));
      kv_cells.Set(static_cast<double>(stats.kv_bytes));
      kv_parked.Set(static_cast<double>(stats.parked_bytes));
      kv_disk.Set(static_cast<double>(stats.disk_bytes));
      adapters.Set(stats.adapters);
      adapter_bytes.Set(static_cast<double>(stats.adapter_bytes));
    }
    // Only of an engine that answered: one that is silent has not started to count anew.
    void follow(const fleet::Fleet::EngineReport& report) {
      prefix_hits.follow(report.stats.cached_tokens);
      generated.follow(report.stats.generated_tokens);
      drafted.follow(report.stats.drafted_tokens);
      accepted.follow(report.stats.accepted_tokens);
      adapter_loads.follow(report.stats.adapter_loads);
      kv_encoding.follow(report.stats.kv_encoding_us);
      kv_attention.follow(report.stats.kv_attention_us);
      parked_lost.follow(report.stats.disk_lost);
      restarts.follow(report.restarts);
    }

    prometheus::Gauge &running, &waiting, &parked, &cells_total, &cells_used, &cells_cached, &prefix_parked, &kv_cells, &kv_parked,
        &kv_disk, &adapters, &adapter_bytes;
    Follower prefix_hits, generated, drafted, accepted, adapter_loads, kv_encoding, kv_attention, parked_lost, restarts;
  };

  Counters& calls = counters("hearth_safety_calls_total", "Tool calls, by verdict, the layer that decided, and what became of them");
  prometheus::Histogram& judged =
      histograms("hearth_safety_judge_seconds", "From a call's last byte to its verdict, without a person's part").Add({}, judge_durations);
  prometheus::Gauge& held = gauges("hearth_safety_held_calls", "Tool calls that wait for a person").Add({});

  std::map<std::string, ModelSeries> models;
  std::map<std::string, EngineSeries> engines;
  std::map<std::string_view, PathSeries> paths;
};

Metrics::Metrics() : impl_(std::make_unique<Impl>()) {}
Metrics::~Metrics() = default;

void Metrics::count(const Record& record) {
  const auto path = label(record.path);
  auto& series = impl_->paths[path];
  if (!series.duration) series.duration = &impl_->request_durations.Add({{"path", std::string(path)}}, durations);
  auto& counter = series.by_status[record.status];
  if (!counter) counter = &impl_->requests.Add({{"path", std::string(path)}, {"status", std::to_string(record.status)}});
  counter->Increment();
  series.duration->Observe(seconds(record.duration));
  if (record.first_token) impl_->first_token.Observe(seconds(*record.first_token));
  if (record.failed) impl_->stream_failures.Add({{"code", std::string(name(*record.failed))}}).Increment();
  impl_->prompt_tokens.Increment(record.usage.prompt_tokens);
  impl_->cached_tokens.Increment(record.usage.cached_tokens);
  impl_->completion_tokens.Increment(record.usage.completion_tokens);
}

void Metrics::count(const fleet::ModelEvent& event) {
  using State = chat::ModelState;
  const double took = seconds(event.took);
  if (event.state == State::ready) {
    impl_->loads.Add({{"model", event.model}, {"outcome", "loaded"}}).Increment();
    impl_->load_seconds.Add({{"model", event.model}}, load_durations).Observe(took);
  } else if (event.state == State::failed) {
    impl_->loads.Add({{"model", event.model}, {"outcome", "failed"}}).Increment();
  } else if (event.state == State::absent) {
    impl_->unloads.Add({{"model", event.model}, {"cause", std::string(unload_cause(event.reason))}}).Increment();
  }
}

void Metrics::count(const safety::Ruled& ruled) {
  impl_->calls
      .Add({{"decision", std::string(name(ruled.decision))},
            {"layer", ruled.layer ? std::string(name(*ruled.layer)) : "none"},
            {"outcome", std::string(ruled.outcome)}})
      .Increment();
  if (ruled.judged.count() > 0 && ruled.outcome != "approved" && ruled.outcome != "timed_out") impl_->judged.Observe(seconds(ruled.judged));
}

std::string Metrics::text(const Snapshot& now) {
  impl_->held.Set(static_cast<double>(now.held_calls));
  for (const auto& model : now.models) {
    impl_->models.try_emplace(model.id, *impl_, model.id).first->second.set(model);
    if (model.upstream != "worker") continue;
    auto& series = impl_->engines.try_emplace(model.id, *impl_, model.id).first->second;
    const auto report = std::find_if(now.engines.begin(), now.engines.end(), [&](const auto& engine) { return engine.model == model.id; });
    series.set(report == now.engines.end() ? engine::SchedulerStats{} : report->stats);
    if (report != now.engines.end()) series.follow(*report);
  }
  impl_->memory_used.Set(static_cast<double>(now.memory_used));
  impl_->memory_budget.Set(static_cast<double>(now.memory_budget));
  impl_->connections.Set(static_cast<double>(now.connections));
  return prometheus::TextSerializer().Serialize(impl_->registry.Collect());
}

}  // namespace hearth::gateway
