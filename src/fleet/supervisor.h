// Keeps one engine's process alive, our worker or any server given by a command line: starts it, watches its health, kills and replaces it when it hangs,
// restarts it with back-off when it ends, and drains it on stop. Requests that arrive meanwhile wait in wait_ready(), or learn at once why there is
// nothing to wait for. The process, and what it starts, dies with us.
#pragma once

#include <sys/types.h>

#include <boost/asio/io_context.hpp>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "fleet/backoff.h"
#include "fleet/health.h"
#include "net/http.h"
#include "net/task.h"

namespace hearth::fleet {

// A process that is not ours: llama-server, SGLang, vLLM, anything that listens on a port it is told and has a health check. What it prints goes into the
// log at debug level.
struct ForeignProcess {
  std::string model;                    // replaces {model} in the command, when not empty
  std::string health_path = "/health";  // GET answers 200 once it is ready, and as long as it is well
};

struct SupervisorOptions {
  // The program and its arguments: it is configured by these alone. HEARTH_* variables, which may hold keys, are not passed on. For our worker,
  // "--socket <socket>" is added. For a foreign process {port} stands for a port of 127.0.0.1 that was free just before the start; each start gets
  // another.
  std::vector<std::string> command;
  std::vector<std::string> environment;  // "NAME=value", beside what it inherits
  std::string socket;                    // our worker's; at most 107 bytes
  std::chrono::milliseconds health_interval{1'000};
  std::chrono::milliseconds unresponsive_limit{
      5'000};  // no answer to health checks for this long (hang_limit if that is shorter): the process hangs
  std::chrono::milliseconds hang_limit{120'000};  // has work but no scheduler tick for this long: the decoder hangs
  std::chrono::milliseconds stop_grace{30'000};   // between SIGTERM and SIGKILL
  BackoffOptions backoff;
  std::chrono::milliseconds start_limit{1'800'000};  // not ready within this: killed, and tried again
  std::optional<ForeignProcess> foreign;             // empty: our worker
  std::string name = "worker";                       // in the log
};

class Supervisor {
 public:
  enum class State {
    starting,     // the process loads the model
    ready,        // it serves
    backing_off,  // it ended; the next start waits
    failed,       // it cannot load its model; tried again rarely, in case somebody repairs it
    stopping,     // stop() was called
  };

  Supervisor(net::asio::io_context& io, SupervisorOptions options, const Clock& clock = Clock::system());
  ~Supervisor();  // kills a process that still runs

  // Starts the first process and keeps one running from now on.
  void start();
  // Returns once it is ready. At once with the reason when it cannot load its model or is stopping; unavailable with the state after
  // `up_to`. `after` names a generation known to be dead: only a later one counts.
  net::Task<Result<void>> wait_ready(std::chrono::milliseconds up_to, int after = 0);
  // Whether the worker of that generation is known to have ended, waiting up to `up_to` for the news.
  net::Task<bool> wait_ended(int generation, std::chrono::milliseconds up_to);
  // SIGTERM, grace, SIGKILL; returns when the process is gone.
  net::Task<void> stop();
  // SIGKILL, at once and without waiting.
  void kill();
  // Asks for its health now; a foreign process tells no figures. Failures as those of net::Client; unavailable with another status than 200.
  net::Task<Result<engine::SchedulerStats>> check(std::chrono::milliseconds up_to);

  // Where the process of the current generation listens. A foreign one's changes with each start.
  const net::Endpoint& endpoint() const;
  State state() const;
  int generation() const;  // of the worker last started, from 1
  int restarts() const;    // workers that were started after the first
  pid_t pid() const;       // 0 when none runs
  // Why the last worker ended or could not start; meaningful outside `ready`.
  const Error& last_error() const;
  // Called on the loop after every change of state().
  void on_change(std::function<void()> callback);

 private:
  class Impl;
  std::shared_ptr<Impl> impl_;
};

std::string_view name(Supervisor::State state);

}  // namespace hearth::fleet
