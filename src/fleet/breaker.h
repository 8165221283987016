// An upstream that keeps failing makes every request wait for its own time-out, and gets no rest in which to recover. A circuit breaker stands in front of
// it: after enough failures it refuses at once for a while (open), then lets single requests through to see (half open), and closes when one succeeds.
#pragma once

#include <chrono>
#include <deque>
#include <string>
#include <utility>

#include "base/clock.h"
#include "base/result.h"

namespace hearth::fleet {

struct BreakerOptions {
  int failures_in_a_row = 5;  // open it
  // So does this share of the outcomes within `window`, once there are enough of them to tell: what fails every second time is broken too.
  double failure_share = 0.5;
  int window_outcomes = 20;  // at least so many, and the latest four times as many at most
  std::chrono::milliseconds window{60'000};
  std::chrono::milliseconds open_first{5'000};  // how long it stays open; twice as long after each failed probe
  std::chrono::milliseconds open_most{120'000};
};

// Lives on the loop. Outlives its passes.
class CircuitBreaker {
 public:
  enum class State { closed, open, half_open };

  // One request on its way. Destroyed without an outcome (the client left, the upstream refused the request with good reason) it says nothing.
  class [[nodiscard]] Pass {
   public:
    Pass(Pass&& other) noexcept : breaker_(std::exchange(other.breaker_, nullptr)), probe_(other.probe_) {}
    Pass& operator=(Pass&&) = delete;
    ~Pass() {
      if (breaker_) breaker_->leave(*this);
    }
    void succeeded();
    void failed(const std::string& why);

   private:
    friend class CircuitBreaker;
    Pass(CircuitBreaker& breaker, int probe) : breaker_(&breaker), probe_(probe) {}
    CircuitBreaker* breaker_;
    int probe_;  // the opening it probes; 0 = none
  };

  // `name` is the upstream's, for messages.
  CircuitBreaker(std::string name, BreakerOptions options, const Clock& clock = Clock::system());
  CircuitBreaker(const CircuitBreaker&) = delete;
  CircuitBreaker& operator=(const CircuitBreaker&) = delete;

  // unavailable with retry_after while it is open, or while the one probe is under way.
  Result<Pass> enter();
  // Whether enter() would succeed now.
  bool lets_through() const;
  State state() const;
  // The upstream is known to be new: closed, and all that was is forgotten.
  void reset();

 private:
  void leave(const Pass& pass);
  void record(const Pass& pass, bool failed);
  bool too_many_failures() const;
  void open();

  const std::string name_;
  const BreakerOptions options_;
  const Clock& clock_;
  std::deque<std::pair<TimePoint, bool>> outcomes_;  // true = failed
  int in_a_row_ = 0;
  bool open_ = false;
  int openings_ = 0;  // since it was last closed for good; passes of an earlier opening no longer count
  int opening_ = 0;   // counts all
  TimePoint until_;
  bool probing_ = false;
  std::string reason_;
};

// Whether an upstream's error is the upstream's fault: connections, time-outs, 5xx, nonsense. Never what the request itself brought about (4xx), a full
// queue, or a deadline the client set.
bool is_upstream_fault(ErrorCode code);

}  // namespace hearth::fleet
