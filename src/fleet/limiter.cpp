#include "fleet/limiter.h"

#include <algorithm>
#include <cmath>
#include <string>

namespace hearth::fleet {

Limiter::Limiter(net::asio::io_context& io, LimiterOptions options, const Clock& clock) : io_(io), options_(options), clock_(clock) {}

net::Task<Result<Limiter::Place>> Limiter::enter(std::shared_ptr<net::Cancellation> cancellation) {
  const Error gone{ErrorCode::client_gone, "the request was cancelled while it waited"};
  if (net::requested(cancellation)) co_return gone;
  if (options_.running <= 0 || running_ < options_.running) {
    ++running_;
    co_return Place(*this);
  }
  if (waiting() >= options_.waiting) co_return full();

  Waiter self(io_);
  const auto place = waiters_.insert(waiters_.end(), &self);
  // Whatever ends this coroutine, also the destruction of its frame, leaves no trace of it.
  struct Leave {
    Limiter& limiter;
    Waiter& self;
    std::list<Waiter*>::iterator place;
    ~Leave() {
      if (self.admitted) {
        --limiter.running_;
        limiter.admit();
      } else {
        limiter.waiters_.erase(place);
      }
    }
  } leave{*this, self, place};
  const auto deadline = TimePoint::clock::now() + options_.longest_wait;
  {
    const net::Cancellation::Registration registration(cancellation, [&self] { self.changed.notify(); });
    while (!self.admitted && !net::requested(cancellation) && TimePoint::clock::now() < deadline)
      co_await self.changed.wait_until(deadline);
  }
  if (net::requested(cancellation)) co_return gone;
  if (!self.admitted) co_return full();
  ++running_;  // the place of its own; `leave` gives back the one held for it
  co_return Place(*this);
}

void Limiter::leave(TimePoint since) {
  --running_;
  const double held = std::chrono::duration<double>(clock_.now() - since).count();
  seconds_held_ += 0.2 * (held - seconds_held_);
  admit();
}

void Limiter::admit() {
  while (!waiters_.empty() && running_ < options_.running) {
    auto* next = waiters_.front();
    waiters_.pop_front();
    ++running_;
    next->admitted = true;
    next->changed.notify();
  }
}

Error Limiter::full() const {
  const double seconds = seconds_held_ * (waiting() + 1) / options_.running;
  return Error{ErrorCode::overloaded,
               "the engine is busy with " + std::to_string(running_) + " requests, and " + std::to_string(waiting()) +
                   " more wait for it; try again later",
               {},
               std::chrono::seconds(static_cast<int>(std::clamp(std::ceil(seconds), 1.0, 60.0)))};
}

}  // namespace hearth::fleet
