// How long to wait before a worker that ended is started again: twice as long after every failure, so that a broken model does not burn the
// machine, and short again once a worker stayed up.
#pragma once

#include <chrono>
#include <optional>

#include "base/clock.h"

namespace hearth::fleet {

struct BackoffOptions {
  std::chrono::milliseconds first{100};
  std::chrono::milliseconds most{30'000};
  std::chrono::milliseconds healthy_after{60'000};  // up for this long: the next failure counts as the first
};

class Backoff {
 public:
  Backoff(BackoffOptions options, const Clock& clock) : options_(options), clock_(clock), next_(options.first) {}
  void on_ready() { ready_since_ = clock_.now(); }
  // The wait before the next start.
  std::chrono::milliseconds on_exit();
  // Starts that failed in a row, without a worker that became ready.
  int failed_starts() const { return failed_starts_; }

 private:
  BackoffOptions options_;
  const Clock& clock_;
  std::chrono::milliseconds next_;
  std::optional<TimePoint> ready_since_;
  int failed_starts_ = 0;
};

}  // namespace hearth::fleet
