#include "engine/scheduler.h"

#include <deque>
#include <thread>

#include "base/mutex.h"
#include "engine/scheduler_core.h"

namespace hearth::engine {

class Scheduler::Impl {
 public:
  Impl(Decoder& decoder, SchedulerOptions options, const Clock& clock, Speculator* speculator)
      : options_(options), clock_(clock), core_(decoder, options, clock, speculator), last_tick_(clock.now()), thread_([this] { run(); }) {}

  ~Impl() {
    {
      const MutexLock lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_all();
    thread_.join();
    const Error stopping{ErrorCode::unavailable, "the engine is stopping"};
    const MutexLock lock(mutex_);
    for (auto& entry : inbox_) entry.generation.sink->on_failed(stopping);
  }

  Result<GenerationHandle> submit(Generation generation) {
    if (auto checked = core_.check(generation); !checked) return std::move(checked).error();
    auto cancelled = std::make_shared<std::atomic<bool>>(false);
    {
      const MutexLock lock(mutex_);
      if (auto admitted = may_queue(); !admitted) return std::move(admitted).error();
      inbox_.push_back({std::move(generation), cancelled});
    }
    wake_.notify_one();
    return GenerationHandle(std::move(cancelled));
  }

  Result<void> run_between_ticks(std::function<void()> job) {
    {
      const MutexLock lock(mutex_);
      if (auto admitted = may_queue(); !admitted) return admitted;
      jobs_.push_back(std::move(job));
    }
    wake_.notify_one();
    return {};
  }

  SchedulerStats stats() const {
    const MutexLock lock(mutex_);
    SchedulerStats s = stats_;
    s.waiting += static_cast<int>(inbox_.size() + jobs_.size());
    s.refused = refused_;
    s.busy = busy_ || !inbox_.empty() || !jobs_.empty();
    s.since_tick = std::chrono::duration_cast<std::chrono::milliseconds>(clock_.now() - last_tick_);
    return s;
  }

  void drain() {
    const MutexLock lock(mutex_);
    draining_ = true;
  }

  bool wait_idle(std::chrono::milliseconds up_to) {
    const auto until = std::chrono::steady_clock::now() + up_to;
    const MutexLock lock(mutex_);
    while (busy_ || !inbox_.empty() || !jobs_.empty()) {
      if (!idle_.wait_until(mutex_, until)) return !busy_ && inbox_.empty() && jobs_.empty();
    }
    return true;
  }

 private:
  struct Entry {
    Generation generation;
    std::shared_ptr<std::atomic<bool>> cancelled;
  };

  bool has_arrivals() const REQUIRES(mutex_) { return stopping_ || !inbox_.empty() || !jobs_.empty(); }

  Result<void> may_queue() REQUIRES(mutex_) {
    if (draining_ || stopping_) {
      ++refused_;
      return Error{ErrorCode::unavailable, "the engine is stopping and takes no new requests", {}, std::chrono::seconds(1)};
    }
    if (stats_.waiting + static_cast<int>(inbox_.size() + jobs_.size()) >= options_.queue_limit) {
      ++refused_;
      return Error{ErrorCode::overloaded,
                   "the queue is full (" + std::to_string(options_.queue_limit) + " requests wait); try again later",
                   {},
                   retry_after_};
    }
    return {};
  }

  void run() {
    for (;;) {
      std::deque<Entry> arrived;
      std::function<void()> job;
      {
        const MutexLock lock(mutex_);
        if (core_.idle()) {
          busy_ = false;
          stats_ = core_.stats();
          if (!has_arrivals()) idle_.notify_all();
          while (!has_arrivals()) wake_.wait(mutex_);
        } else if (stalled_ && !has_arrivals()) {
          // Every reader is behind, or what waits cannot start yet: look again shortly.
          wake_.wait_until(mutex_, std::chrono::steady_clock::now() + std::chrono::milliseconds(2));
        }
        if (stopping_) return;
        busy_ = true;
        last_tick_ = clock_.now();
        arrived.swap(inbox_);
        if (!jobs_.empty()) {
          job = std::move(jobs_.front());
          jobs_.pop_front();
        }
      }
      for (auto& entry : arrived) core_.add(std::move(entry.generation), std::move(entry.cancelled));
      if (job) job();
      stalled_ = !core_.tick();
      const MutexLock lock(mutex_);
      stats_ = core_.stats();
      retry_after_ = core_.retry_after();
    }
  }

  const SchedulerOptions options_;
  const Clock& clock_;
  SchedulerCore core_;    // the thread's own; check() alone is called from others
  bool stalled_ = false;  // the thread's own

  mutable Mutex mutex_;
  Condition wake_, idle_;
  std::deque<Entry> inbox_ GUARDED_BY(mutex_);
  std::deque<std::function<void()>> jobs_ GUARDED_BY(mutex_);
  SchedulerStats stats_ GUARDED_BY(mutex_);
  std::chrono::milliseconds retry_after_ GUARDED_BY(mutex_){1000};
  std::int64_t refused_ GUARDED_BY(mutex_) = 0;
  TimePoint last_tick_ GUARDED_BY(mutex_);
  bool busy_ GUARDED_BY(mutex_) = false;
  bool draining_ GUARDED_BY(mutex_) = false;
  bool stopping_ GUARDED_BY(mutex_) = false;

  std::thread thread_;  // last: everything it uses exists before it starts
};

Scheduler::Scheduler(Decoder& decoder, SchedulerOptions options, const Clock& clock, Speculator* speculator)
    : impl_(std::make_unique<Impl>(decoder, options, clock, speculator)) {}
Scheduler::~Scheduler() = default;
Result<GenerationHandle> Scheduler::submit(Generation generation) { return impl_->submit(std::move(generation)); }
Result<void> Scheduler::run_between_ticks(std::function<void()> job) { return impl_->run_between_ticks(std::move(job)); }
SchedulerStats Scheduler::stats() const { return impl_->stats(); }
void Scheduler::drain() { impl_->drain(); }
bool Scheduler::wait_idle(std::chrono::milliseconds up_to) { return impl_->wait_idle(up_to); }

}  // namespace hearth::engine
