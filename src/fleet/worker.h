// An engine can crash, hang or run out of memory; none of that may take the gateway down. So each loaded model lives in a process of its own:
// `hearth worker` loads it, then speaks the OpenAI API over a Unix socket to the gateway that started it.
//
// What a supervisor relies on: the socket appears only once the model is loaded, and the line "hearth-worker-ready" on standard error says so; a
// failed load prints one line "hearth-worker-error: {"code","message"}" and exits with worker_exit_load_failed; SIGTERM drains.
#pragma once

#include <chrono>
#include <string>
#include <string_view>

#include "engine/engine.h"

namespace hearth::fleet {

inline constexpr int worker_exit_ok = 0;
inline constexpr int worker_exit_load_failed = 3;  // the error line says why
inline constexpr int worker_exit_failed = 4;       // anything else that ended it from within

inline constexpr std::string_view worker_ready_line = "hearth-worker-ready";
inline constexpr std::string_view worker_error_prefix = "hearth-worker-error: ";

struct WorkerOptions {
  engine::EngineOptions engine;
  std::string socket;                             // Unix socket to serve on
  std::chrono::milliseconds drain_grace{30'000};  // after SIGTERM: running answers get this long
  int helpers = 0;                                // threads for templates and tokenizing; 0 = 2
};

// Hosts the model until SIGTERM or SIGINT; returns the process's exit code. Paths besides the OpenAI API: GET /health, the scheduler's heartbeat
// and SchedulerStats as JSON (see health.h).
int run_worker(WorkerOptions options);

}  // namespace hearth::fleet
