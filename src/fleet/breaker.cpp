#include "fleet/breaker.h"

#include <algorithm>

namespace hearth::fleet {

CircuitBreaker::CircuitBreaker(std::string name, BreakerOptions options, const Clock& clock)
    : name_(std::move(name)), options_(options), clock_(clock) {}

CircuitBreaker::State CircuitBreaker::state() const {
  if (!open_) return State::closed;
  return clock_.now() < until_ ? State::open : State::half_open;
}

bool CircuitBreaker::lets_through() const { return !open_ || (state() == State::half_open && !probing_); }

Result<CircuitBreaker::Pass> CircuitBreaker::enter() {
  if (!open_) return Pass(*this, 0);
  if (lets_through()) {
    probing_ = true;
    return Pass(*this, opening_);
  }
  const auto left = std::chrono::ceil<std::chrono::seconds>(std::max(until_ - clock_.now(), Duration(std::chrono::seconds(1))));
  return Error{ErrorCode::unavailable,
               name_ + " keeps failing (last: " + reason_ + "); it is tried again in " + std::to_string(left.count()) + " s",
               {},
               left};
}

void CircuitBreaker::reset() {
  outcomes_.clear();
  in_a_row_ = 0;
  open_ = probing_ = false;
  openings_ = 0;
  ++opening_;
}

void CircuitBreaker::Pass::succeeded() {
  if (auto* breaker = std::exchange(breaker_, nullptr)) breaker->record(*this, false);
}

void CircuitBreaker::Pass::failed(const std::string& why) {
  if (auto* breaker = std::exchange(breaker_, nullptr)) {
    breaker->reason_ = why;
    breaker->record(*this, true);
  }
}

void CircuitBreaker::leave(const Pass& pass) {
  if (pass.probe_ != 0 && pass.probe_ == opening_) probing_ = false;
}

void CircuitBreaker::record(const Pass& pass, bool failed) {
  if (open_) {
    // What was under way when it opened, or probed an earlier opening, is old news.
    if (pass.probe_ != opening_) return;
    probing_ = false;
    if (failed) {
      open();
    } else {
      reset();
    }
    return;
  }
  if (pass.probe_ != 0) return;
  const auto now = clock_.now();
  outcomes_.emplace_back(now, failed);
  const auto most = static_cast<std::size_t>(options_.window_outcomes) * 4;
  while (outcomes_.size() > most || now - outcomes_.front().first > options_.window) outcomes_.pop_front();
  in_a_row_ = failed ? in_a_row_ + 1 : 0;
  if (failed && too_many_failures()) open();
}

bool CircuitBreaker::too_many_failures() const {
  if (in_a_row_ >= options_.failures_in_a_row) return true;
  if (outcomes_.size() < static_cast<std::size_t>(options_.window_outcomes)) return false;
  const auto failures = std::count_if(outcomes_.begin(), outcomes_.end(), [](const auto& outcome) { return outcome.second; });
  return static_cast<double>(failures) >= options_.failure_share * static_cast<double>(outcomes_.size());
}

void CircuitBreaker::open() {
  auto wait = options_.open_first;
  for (int i = 0; i < openings_ && wait < options_.open_most; ++i) wait *= 2;
  open_ = true;
  ++openings_;
  ++opening_;
  until_ = clock_.now() + std::min(wait, options_.open_most);
}

bool is_upstream_fault(ErrorCode code) { return http_status(code) >= 500 && code != ErrorCode::deadline_exceeded; }

}  // namespace hearth::fleet
