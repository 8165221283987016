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

constexpr std::array<std::string_view, 12> known_paths{"/",
                                                       "/health",
                                                       "/metrics",
                                                       "/v1/chat/completions",
                                                       "/v1/completions",
                                                       "/v1/embeddings",
                                                       "/v1/rerank",
                                                       "/v1/models",
                                                       "/v1/tokenize/count",
                                                       "/v1/score",
                                                       "/v1/messages",
                                                       "/v1/responses"};

std::string_view label(std::string_view path) {
  if (path.starts_with("/v1/models/")) return "/v1/models";
  const auto* found = std::find(known_paths.begin(), known_paths.end(), path);
  return found == known_paths.end() ? "other" : *found;
}

double seconds(std::chrono::nanoseconds duration) { return std::chrono::duration<double>(duration).count(); }

const prometheus::Histogram::BucketBoundaries durations{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
                                                        1,     2.5,    5,     10,   30,    60,   120, 300};

// A counter that follows the engine's own, across restarts in which that one starts from zero again.
class Follower {
 public:
  explicit Follower(prometheus::Counter& counter) : counter_(counter) {}
  void follow(std::int64_t now) {
    counter_.Increment(static_cast<double>(now >= last_ ? now - last_ : now));
    last_ = now;
  }

 private:
  prometheus::Counter& counter_;
  std::int64_t last_ = 0;
};

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
  Gauges& sequences = gauges("hearth_engine_requests", "Requests in the engine, by state");
  prometheus::Gauge& running = sequences.Add({{"state", "running"}});
  prometheus::Gauge& waiting = sequences.Add({{"state", "waiting"}});
  prometheus::Gauge& parked = sequences.Add({{"state", "parked"}});
  Gauges& cells = gauges("hearth_kv_cells", "KV cache cells: all, in use (cached ones included), kept for reuse");
  prometheus::Gauge& cells_total = cells.Add({{"kind", "total"}});
  prometheus::Gauge& cells_used = cells.Add({{"kind", "used"}});
  prometheus::Gauge& cells_cached = cells.Add({{"kind", "cached"}});
  prometheus::Gauge& prefix_parked = gauges("hearth_prefix_cache_parked_bytes", "KV of idle prefixes kept in host memory").Add({});
  Follower prefix_hits{
      counters("hearth_prefix_cache_hit_tokens_total", "Prompt tokens the engine took from its prefix cache instead of computing them")
          .Add({})};
  Follower generated{counters("hearth_engine_generated_tokens_total", "Tokens the engine sampled, unfinished answers included").Add({})};
  prometheus::Gauge& up = gauges("hearth_engine_ready", "1 when the engine can answer").Add({});
  Follower restarts{counters("hearth_worker_restarts_total", "Workers started after the first").Add({})};
  prometheus::Gauge& connections = gauges("hearth_open_connections", "Client connections").Add({});
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

std::string Metrics::text(const Snapshot& now) {
  const auto engine = now.engine.value_or(engine::SchedulerStats{});
  impl_->running.Set(engine.running);
  impl_->waiting.Set(engine.waiting);
  impl_->parked.Set(engine.parked);
  impl_->cells_total.Set(engine.cells_total);
  impl_->cells_used.Set(engine.cells_used);
  impl_->cells_cached.Set(engine.cells_cached);
  impl_->prefix_parked.Set(static_cast<double>(engine.prefix_parked_bytes));
  if (now.engine) {
    impl_->prefix_hits.follow(engine.cached_tokens);
    impl_->generated.follow(engine.generated_tokens);
  }
  impl_->up.Set(now.engine_ready ? 1 : 0);
  impl_->restarts.follow(now.restarts);
  impl_->connections.Set(static_cast<double>(now.connections));
  return prometheus::TextSerializer().Serialize(impl_->registry.Collect());
}

}  // namespace hearth::gateway
