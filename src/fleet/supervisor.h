// Keeps one worker process alive: starts it, watches its health over its socket, kills and replaces it when it hangs, restarts it with back-off
// when it ends, and drains it on stop. Requests that arrive meanwhile wait in wait_ready(), or learn at once why there is nothing to wait for.
#pragma once

#include <sys/types.h>

#include <boost/asio/io_context.hpp>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "fleet/backoff.h"
#include "fleet/health.h"
#include "net/task.h"

namespace hearth::fleet {

struct SupervisorOptions {
  // The worker's program and arguments; "--socket <socket>" is added. The worker is configured by these alone: HEARTH_* variables, which may hold
  // keys, are not passed on.
  std::vector<std::string> command;
  std::string socket;  // at most 107 bytes
  std::chrono::milliseconds health_interval{1'000};
  std::chrono::milliseconds unresponsive_limit{
      5'000};  // no answer to health checks for this long (hang_limit if that is shorter): the process hangs
  std::chrono::milliseconds hang_limit{120'000};  // has work but no scheduler tick for this long: the decoder hangs
  std::chrono::milliseconds stop_grace{30'000};   // between SIGTERM and SIGKILL
  BackoffOptions backoff;
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
  ~Supervisor();  // kills a worker that still runs

  // Starts the first worker and keeps one running from now on.
  void start();
  // Returns once a worker is ready. At once with the reason when it cannot load its model or is stopping; unavailable with the state after
  // `up_to`. `after` names a generation known to be dead: only a later one counts.
  net::Task<Result<void>> wait_ready(std::chrono::milliseconds up_to, int after = 0);
  // Whether the worker of that generation is known to have ended, waiting up to `up_to` for the news.
  net::Task<bool> wait_ended(int generation, std::chrono::milliseconds up_to);
  // SIGTERM, grace, SIGKILL; returns when the process is gone.
  net::Task<void> stop();
  // SIGKILL, at once and without waiting.
  void kill();
  // Asks the worker now. Failures as those of net::Client.
  net::Task<Result<engine::SchedulerStats>> check(std::chrono::milliseconds up_to);

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
