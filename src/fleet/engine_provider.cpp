#include "fleet/engine_provider.h"

#include <atomic>
#include <boost/asio/async_result.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <exception>
#include <new>

#include "base/mutex.h"
#include "fleet/loop_event.h"

namespace hearth::fleet {
namespace {

namespace asio = net::asio;

class Sink;

// Sinks with unread events. Whichever comes first posts the one wake-up of the loop; the others of the same tick join the list.
class WakeHub : public std::enable_shared_from_this<WakeHub> {
 public:
  explicit WakeHub(asio::io_context& io) : io_(io) {}
  void add(std::shared_ptr<Sink> sink);
  // Nobody will be woken any more: the loop is going. Sinks and hub hold each other until then.
  void close();

 private:
  void wake_all();
  asio::io_context& io_;
  Mutex mutex_;
  std::vector<std::shared_ptr<Sink>> woken_ GUARDED_BY(mutex_);
  bool closed_ GUARDED_BY(mutex_) = false;
};

class Sink final : public engine::EventSink, public std::enable_shared_from_this<Sink> {
 public:
  explicit Sink(std::shared_ptr<WakeHub> hub) : hub_(std::move(hub)) {}

  // The scheduler's thread.
  void on_events(chat::Events events) override {
    if (events.empty()) return;
    bool first = false;
    {
      const MutexLock lock(mutex_);
      first = pending_.empty();
      if (first) {
        pending_ = std::move(events);
      } else {
        pending_.insert(pending_.end(), std::make_move_iterator(events.begin()), std::make_move_iterator(events.end()));
      }
      backlog_.store(pending_.size(), std::memory_order_relaxed);
    }
    if (first) hub_->add(shared_from_this());
  }
  std::size_t backlog() const override { return backlog_.load(std::memory_order_relaxed); }

  // The loop.
  chat::Events take() {
    const MutexLock lock(mutex_);
    backlog_.store(0, std::memory_order_relaxed);
    return std::exchange(pending_, {});
  }
  LoopEvent* reader = nullptr;  // touched on the loop only

 private:
  const std::shared_ptr<WakeHub> hub_;
  Mutex mutex_;
  chat::Events pending_ GUARDED_BY(mutex_);
  std::atomic<std::size_t> backlog_{0};
};

void WakeHub::add(std::shared_ptr<Sink> sink) {
  bool first = false;
  {
    const MutexLock lock(mutex_);
    if (closed_) return;
    first = woken_.empty();
    woken_.push_back(std::move(sink));
  }
  if (first) asio::post(io_, [self = shared_from_this()] { self->wake_all(); });
}

void WakeHub::close() {
  std::vector<std::shared_ptr<Sink>> left;
  const MutexLock lock(mutex_);
  closed_ = true;
  left.swap(woken_);
}

void WakeHub::wake_all() {
  std::vector<std::shared_ptr<Sink>> woken;
  {
    const MutexLock lock(mutex_);
    woken.swap(woken_);
  }
  for (const auto& sink : woken) {
    if (sink->reader) sink->reader->notify();
  }
}

class EngineStream final : public wire::EventStream {
 public:
  EngineStream(asio::io_context& io, std::shared_ptr<Sink> sink, engine::GenerationHandle handle)
      : sink_(std::move(sink)), arrived_(io), handle_(std::move(handle)) {
    sink_->reader = &arrived_;
  }
  ~EngineStream() override { sink_->reader = nullptr; }

  net::Task<chat::Events> next() override {
    while (!ended_) {
      auto events = sink_->take();
      if (!events.empty()) {
        const auto& last = events.back();
        ended_ = std::holds_alternative<chat::Usage>(last) || std::holds_alternative<chat::Failed>(last);
        co_return events;
      }
      co_await arrived_.wait();
    }
    co_return chat::Events{};
  }
  void cancel() override {
    ended_ = true;
    handle_.cancel();
    arrived_.notify();
  }
  const chat::Explanation& explanation() const override { return explanation_; }

 private:
  std::shared_ptr<Sink> sink_;
  LoopEvent arrived_;
  engine::GenerationHandle handle_;
  chat::Explanation explanation_;
  bool ended_ = false;
};

// Runs `f` on the pool and resumes the caller on its own loop with the result.
template <class F, class R = std::invoke_result_t<F>>
net::Task<R> off_loop(asio::thread_pool& pool, F f) {
  return asio::async_initiate<const asio::use_awaitable_t<>, void(R)>(
      [&pool](auto handler, F work) {
        asio::post(pool, [handler = std::move(handler), work = std::move(work)]() mutable {
          R result = [&]() -> R {
            try {
              return work();
            } catch (const std::bad_alloc&) {
              return internal_error("the worker is out of memory for this request");
            } catch (const std::exception& e) { return internal_error(std::string("unexpected: ") + e.what()); }
          }();
          const auto executor = asio::get_associated_executor(handler);
          asio::post(executor,
                     [handler = std::move(handler), result = std::move(result)]() mutable { std::move(handler)(std::move(result)); });
        });
      },
      asio::use_awaitable, std::move(f));
}

}  // namespace

class EngineProvider::Impl {
 public:
  Impl(asio::io_context& loop, engine::Engine& served, int helper_threads)
      : io(loop),
        engine(served),
        hub(std::make_shared<WakeHub>(loop)),
        helpers(static_cast<std::size_t>(helper_threads > 0 ? helper_threads : 2)) {}
  ~Impl() {
    helpers.join();
    waiters.join();
    hub->close();
  }

  asio::io_context& io;
  engine::Engine& engine;
  std::shared_ptr<WakeHub> hub;
  asio::thread_pool helpers;  // templates and tokenizing: short, and in front of every chat
  asio::thread_pool waiters{
      4};  // calls that block until the scheduler has done them, or encode images; apart, so that they never hold up a chat
};

EngineProvider::EngineProvider(asio::io_context& io, engine::Engine& engine, int helpers)
    : impl_(std::make_unique<Impl>(io, engine, helpers)) {}
EngineProvider::~EngineProvider() = default;

net::Task<Result<std::unique_ptr<wire::EventStream>>> EngineProvider::generate(chat::Request request, wire::Caller caller) {
  request.tenant = std::move(caller.tenant);
  auto sink = std::make_shared<Sink>(impl_->hub);
  const bool pictured = request.has_images();
  auto submit = [&engine = impl_->engine, sink, request = std::move(request)] { return engine.generate(request, sink); };
  auto handle = co_await off_loop(pictured ? impl_->waiters : impl_->helpers, std::move(submit));
  if (!handle.ok()) co_return std::move(handle).error();
  co_return std::make_unique<EngineStream>(impl_->io, std::move(sink), std::move(*handle));
}

net::Task<Result<chat::Embeddings>> EngineProvider::embed(chat::EmbeddingRequest request, wire::Caller caller) {
  request.tenant = std::move(caller.tenant);
  auto work = [&engine = impl_->engine, request = std::move(request)] { return engine.embed(request); };
  return off_loop(impl_->waiters, std::move(work));
}

net::Task<Result<chat::RerankResult>> EngineProvider::rerank(chat::RerankRequest request, wire::Caller caller) {
  request.tenant = std::move(caller.tenant);
  auto work = [&engine = impl_->engine, request = std::move(request)] { return engine.rerank(request); };
  return off_loop(impl_->waiters, std::move(work));
}

net::Task<Result<int>> EngineProvider::count_tokens(chat::Request request, wire::Caller) {
  const bool pictured = request.has_images();
  auto work = [&engine = impl_->engine, request = std::move(request)] { return engine.count_tokens(request); };
  return off_loop(pictured ? impl_->waiters : impl_->helpers, std::move(work));
}

net::Task<Result<std::vector<chat::TokenInfo>>> EngineProvider::score(chat::Request request, wire::Caller caller) {
  request.tenant = std::move(caller.tenant);
  auto work = [&engine = impl_->engine, request = std::move(request)] { return engine.score(request); };
  return off_loop(impl_->waiters, std::move(work));
}

net::Task<Result<std::vector<chat::ModelInfo>>> EngineProvider::models() {
  std::vector<chat::ModelInfo> all{impl_->engine.info()};
  co_return all;
}

}  // namespace hearth::fleet
