#include "fleet/health.h"

#include "base/json.h"

namespace hearth::fleet {
namespace {

// One list for both directions: name and field of every number in a report.
template <class Stats, class Visit>
void each_field(Stats& stats, Visit visit) {
  visit("ticks", stats.ticks);
  visit("waiting", stats.waiting);
  visit("running", stats.running);
  visit("parked", stats.parked);
  visit("cells_total", stats.cells_total);
  visit("cells_used", stats.cells_used);
  visit("cells_cached", stats.cells_cached);
  visit("prefix_parked_bytes", stats.prefix_parked_bytes);
  visit("kv_bytes", stats.kv_bytes);
  visit("kv_encoding_us", stats.kv_encoding_us);
  visit("kv_attention_us", stats.kv_attention_us);
  visit("parked_bytes", stats.parked_bytes);
  visit("disk_bytes", stats.disk_bytes);
  visit("disk_lost", stats.disk_lost);
  visit("prompt_tokens", stats.prompt_tokens);
  visit("cached_tokens", stats.cached_tokens);
  visit("generated_tokens", stats.generated_tokens);
  visit("drafted_tokens", stats.drafted_tokens);
  visit("accepted_tokens", stats.accepted_tokens);
  visit("parks", stats.parks);
  visit("resumes", stats.resumes);
  visit("preempted_bytes", stats.preempted_bytes);
  visit("adapters", stats.adapters);
  visit("adapter_bytes", stats.adapter_bytes);
  visit("adapter_loads", stats.adapter_loads);
  visit("adapter_switches", stats.adapter_switches);
  visit("projector_bytes", stats.projector_bytes);
  visit("projector_loads", stats.projector_loads);
  visit("images_encoded", stats.images_encoded);
  visit("image_bytes", stats.image_bytes);
  visit("cancelled", stats.cancelled);
  visit("failed", stats.failed);
  visit("finished", stats.finished);
  visit("refused", stats.refused);
}

}  // namespace

std::string encode_health(const engine::SchedulerStats& stats) {
  json::object report{{"status", "ok"}, {"busy", stats.busy}, {"since_tick_ms", stats.since_tick.count()}};
  each_field(stats, [&](const char* field, const auto& number) { report[field] = number; });
  return json::serialize(report);
}

Result<engine::SchedulerStats> decode_health(std::string_view body) {
  auto document = parse_json(body);
  const auto bad = [](const std::string& what) { return Error{ErrorCode::upstream_failed, "the worker's health report " + what}; };
  if (!document.ok()) return bad("is not JSON: " + document.error().message);
  const auto* report = document->if_object();
  if (!report) return bad("is not an object");

  engine::SchedulerStats stats;
  const char* missing = nullptr;
  const auto number = [&](const char* field) -> std::int64_t {
    const auto* found = report->if_contains(field);
    if (found && found->is_int64()) return found->get_int64();
    missing = field;
    return 0;
  };
  each_field(stats, [&](const char* field, auto& into) { into = static_cast<std::remove_reference_t<decltype(into)>>(number(field)); });
  stats.since_tick = std::chrono::milliseconds(number("since_tick_ms"));
  const auto* busy = report->if_contains("busy");
  if (!busy || !busy->is_bool()) missing = "busy";
  if (missing) return bad("lacks \"" + std::string(missing) + "\"");
  stats.busy = busy->get_bool();
  return stats;
}

}  // namespace hearth::fleet
