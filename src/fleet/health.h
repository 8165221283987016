// What a worker says of itself once a second, as JSON over its socket. The supervisor judges by it, the gateway's metrics repeat it.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"
#include "engine/scheduler.h"

namespace hearth::fleet {

std::string encode_health(const engine::SchedulerStats& stats);
// upstream_failed on text that is not a health report.
Result<engine::SchedulerStats> decode_health(std::string_view body);

}  // namespace hearth::fleet
