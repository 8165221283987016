// A condition variable for coroutines of one loop: check the condition, wait, check again. Nothing can be missed in between, because nothing else
// runs between the check and the suspension.
#pragma once

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <list>

#include "base/clock.h"
#include "net/task.h"

namespace hearth::fleet {

class LoopEvent {
 public:
  explicit LoopEvent(net::asio::io_context& io) : io_(io) {}
  LoopEvent(const LoopEvent&) = delete;
  LoopEvent& operator=(const LoopEvent&) = delete;

  // Wakes everybody who waits now.
  void notify() {
    for (auto* waiter : waiters_) waiter->cancel();
  }
  // Returns after a notify(), at `deadline`, or when the coroutine is cancelled. The event outlives its waiters.
  net::Task<void> wait_until(TimePoint deadline) {
    net::asio::steady_timer timer(io_, deadline);
    const auto place = waiters_.insert(waiters_.end(), &timer);
    const Leave leave{waiters_, place};
    co_await timer.async_wait(net::asio::as_tuple(net::asio::use_awaitable));
  }
  net::Task<void> wait() { return wait_until(TimePoint::max()); }

 private:
  using Waiters = std::list<net::asio::steady_timer*>;
  struct Leave {
    Waiters& waiters;
    Waiters::iterator place;
    ~Leave() { waiters.erase(place); }
  };
  net::asio::io_context& io_;
  Waiters waiters_;
};

}  // namespace hearth::fleet
