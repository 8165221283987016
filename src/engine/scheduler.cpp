#include "engine/scheduler.h"

#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

#include "engine/scheduler_core.h"

namespace hearth::engine {

class Scheduler::Impl {
 public:
  Impl(Decoder& decoder, SchedulerOptions options, const Clock& clock)
      : options_(options), clock_(clock), core_(decoder, options, clock), last_tick_(clock.now()), thread_([this] { run(); }) {}

  ~Impl() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_all();
    thread_.join();
    const Error stopping{ErrorCode::unavailable, "the engine is stopping"};
    for (auto& entry : inbox_) entry.generation.sink->on_failed(stopping);
  }

  Result<GenerationHandle> submit(Generation generation) {
    if (auto checked = core_.check(generation); !checked) return std::move(checked).error();
    auto cancelled = std::make_shared<std::atomic<bool>>(false);
    {
      const std::lock_guard lock(mutex_);
      if (auto admitted = may_queue(); !admitted) return std::move(admitted).error();
      inbox_.push_back({std::move(generation), cancelled});
    }
    wake_.notify_one();
    return GenerationHandle(std::move(cancelled));
  }

  Result<void> run_between_ticks(std::function<void()> job) {
    {
      const std::lock_guard lock(mutex_);
      if (auto admitted = may_queue(); !admitted) return admitted;
      jobs_.push_back(std::move(job));
    }
    wake_.notify_one();
    return {};
  }

  SchedulerStats stats() const {
    const std::lock_guard lock(mutex_);
    SchedulerStats s = stats_;
    s.waiting += static_cast<int>(inbox_.size() + jobs_.size());
    s.refused = refused_;
    s.busy = busy_ || !inbox_.empty() || !jobs_.empty();
    s.since_tick = std::chrono::duration_cast<std::chrono::milliseconds>(clock_.now() - last_tick_);
    return s;
  }

  void drain() {
    const std::lock_guard lock(mutex_);
    draining_ = true;
  }

  bool wait_idle(std::chrono::milliseconds up_to) {
    std::unique_lock lock(mutex_);
    return idle_.wait_for(lock, up_to, [this] { return !busy_ && inbox_.empty() && jobs_.empty(); });
  }

 private:
  struct Entry {
    Generation generation;
    std::shared_ptr<std::atomic<bool>> cancelled;
  };

  // mutex_ is held.
  Result<void> may_queue() {
    if (draining_ || stopping_) {
      ++refused_;
      return Error{ErrorCode::unavailable, "the engine is stopping and takes no new requests", {}, std::chrono::seconds(1)};
    }
    if (stats_.waiting + static_cast<int>(inbox_.size() + jobs_.size()) >= options_.queue_limit) {
      ++refused_;
      return Error{ErrorCode::overloaded, "the queue is full (" + std::to_string(options_.queue_limit) + " requests wait); try again later", {},
                   retry_after_};
    }
    return {};
  }

  void run() {
    for (;;) {
      std::deque<Entry> arrived;
      std::function<void()> job;
      {
        std::unique_lock lock(mutex_);
        const auto has_work = [this] { return stopping_ || !inbox_.empty() || !jobs_.empty(); };
        if (core_.idle()) {
          busy_ = false;
          stats_ = core_.stats();
          if (!has_work()) idle_.notify_all();
          wake_.wait(lock, has_work);
        } else if (stalled_) {
          // Every reader is behind, or what waits cannot start yet: look again shortly.
          wake_.wait_for(lock, std::chrono::milliseconds(2), has_work);
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
      const std::lock_guard lock(mutex_);
      stats_ = core_.stats();
      retry_after_ = core_.retry_after();
    }
  }

  const SchedulerOptions options_;
  const Clock& clock_;
  SchedulerCore core_;   // the thread's own; check() alone is called from others
  bool stalled_ = false;  // the thread's own

  mutable std::mutex mutex_;
  std::condition_variable wake_, idle_;
  std::deque<Entry> inbox_;
  std::deque<std::function<void()>> jobs_;
  SchedulerStats stats_;
  std::chrono::milliseconds retry_after_{1000};
  std::int64_t refused_ = 0;
  TimePoint last_tick_;
  bool busy_ = false, draining_ = false, stopping_ = false;

  std::thread thread_;  // last: everything it uses exists before it starts
};

Scheduler::Scheduler(Decoder& decoder, SchedulerOptions options, const Clock& clock) : impl_(std::make_unique<Impl>(decoder, options, clock)) {}
Scheduler::~Scheduler() = default;
Result<GenerationHandle> Scheduler::submit(Generation generation) { return impl_->submit(std::move(generation)); }
Result<void> Scheduler::run_between_ticks(std::function<void()> job) { return impl_->run_between_ticks(std::move(job)); }
SchedulerStats Scheduler::stats() const { return impl_->stats(); }
void Scheduler::drain() { impl_->drain(); }
bool Scheduler::wait_idle(std::chrono::milliseconds up_to) { return impl_->wait_idle(up_to); }

}  // namespace hearth::engine
