// An engine takes only so many requests at once; more of them would slow each other down or be refused. A limiter lets that many through, keeps a bounded
// number waiting in the order they came, and refuses the rest with the time after which a place is likely.
#pragma once

#include <boost/asio/io_context.hpp>
#include <chrono>
#include <list>
#include <memory>
#include <utility>

#include "base/clock.h"
#include "base/result.h"
#include "fleet/loop_event.h"
#include "net/cancellation.h"
#include "net/task.h"

namespace hearth::fleet {

struct LimiterOptions {
  int running = 0;  // at once; 0 = no limit, and nobody ever waits
  int waiting = 256;
  std::chrono::milliseconds longest_wait{300'000};  // clients give up after that
};

// Lives on the loop. Outlives its places and its waiters.
class Limiter {
 public:
  // A request that runs; its place is free again when this is destroyed.
  class [[nodiscard]] Place {
   public:
    Place(Place&& other) noexcept : limiter_(std::exchange(other.limiter_, nullptr)), since_(other.since_) {}
    Place& operator=(Place&&) = delete;
    ~Place() {
      if (limiter_) limiter_->leave(since_);
    }

   private:
    friend class Limiter;
    explicit Place(Limiter& limiter) : limiter_(&limiter), since_(limiter.clock_.now()) {}
    Limiter* limiter_;
    TimePoint since_;
  };

  Limiter(net::asio::io_context& io, LimiterOptions options, const Clock& clock = Clock::system());
  Limiter(const Limiter&) = delete;
  Limiter& operator=(const Limiter&) = delete;

  // overloaded with retry_after when the queue is full or the wait was too long; client_gone when cancelled.
  net::Task<Result<Place>> enter(std::shared_ptr<net::Cancellation> cancellation = nullptr);
  int running() const { return running_; }
  int waiting() const { return static_cast<int>(waiters_.size()); }

 private:
  struct Waiter {
    explicit Waiter(net::asio::io_context& io) : changed(io) {}
    LoopEvent changed;
    bool admitted = false;  // counted as running on its behalf
  };
  void leave(TimePoint since);
  void admit();
  Error full() const;

  net::asio::io_context& io_;
  const LimiterOptions options_;
  const Clock& clock_;
  std::list<Waiter*> waiters_;  // first come, first served
  int running_ = 0;
  double seconds_held_ = 1;  // running mean
};

}  // namespace hearth::fleet
