#include "fleet/engine_provider.h"

#include <gtest/gtest.h>

#include <atomic>
#include <boost/asio/detached.hpp>
#include <thread>

#include "fleet/loop.h"

namespace hearth::fleet {
namespace {

using namespace std::chrono_literals;

// An engine whose "scheduler" is a thread of the test's.
class ThreadEngine final : public engine::Engine {
 public:
  ~ThreadEngine() override {
    for (auto& thread : threads_) thread.join();
  }
  chat::ModelInfo info() const override { return info_; }
  Result<engine::GenerationHandle> generate(const chat::Request& request, std::shared_ptr<engine::EventSink> sink) override {
    caller_thread = std::this_thread::get_id();
    tenant = request.tenant;
    if (refuse) return Error{ErrorCode::overloaded, "full", {}, 3s};
    if (explode) throw std::runtime_error("boom");
    cancelled = std::make_shared<std::atomic<bool>>(false);
    last_sink = sink;
    if (script) threads_.emplace_back([sink, run = script] { run(*sink); });
    return engine::GenerationHandle(cancelled);
  }
  Result<int> count_tokens(const chat::Request&) override { return 42; }
  Result<chat::Embeddings> embed(const chat::EmbeddingRequest&) override {
    while (hold_embed) std::this_thread::sleep_for(1ms);
    return chat::Embeddings{{{1.f}}, 1};
  }
  Result<chat::RerankResult> rerank(const chat::RerankRequest&) override { return Error{ErrorCode::unsupported, "no"}; }
  Result<std::vector<chat::TokenInfo>> score(const chat::Request&) override { return std::vector<chat::TokenInfo>(2); }
  engine::SchedulerStats stats() const override { return {}; }
  void drain() override {}
  bool wait_idle(std::chrono::milliseconds) override { return true; }

  bool refuse = false, explode = false;
  std::atomic<bool> hold_embed{false};
  std::function<void(engine::EventSink&)> script;
  std::shared_ptr<std::atomic<bool>> cancelled;
  std::weak_ptr<engine::EventSink> last_sink;
  std::thread::id caller_thread;
  std::string tenant;

 private:
  chat::ModelInfo info_{.id = "m"};
  std::vector<std::thread> threads_;
};

net::Task<chat::Events> drain(wire::EventStream& stream) {
  chat::Events all;
  while (true) {
    auto events = co_await stream.next();
    if (events.empty()) break;
    all.insert(all.end(), events.begin(), events.end());
  }
  co_return all;
}

TEST(EngineProvider, EveryEventCrossesInOrder) {
  constexpr int count = 20'000;
  ThreadEngine engine;
  engine.script = [](engine::EventSink& sink) {
    for (int i = 0; i < count; ++i) sink.on_events({chat::TextDelta{0, std::to_string(i)}});
    sink.on_events({chat::Finished{}, chat::Usage{1, 0, count}});
  };
  net::asio::io_context io(1);
  EngineProvider provider(io, engine, 1);
  auto stream = test::run(io, provider.generate({}, {"alice", "r"}));
  ASSERT_TRUE(stream.ok());
  EXPECT_EQ(engine.tenant, "alice");
  EXPECT_NE(engine.caller_thread, std::this_thread::get_id()) << "the loop must not tokenize";
  const auto events = test::run(io, drain(**stream));
  ASSERT_EQ(events.size(), count + 2u);
  for (int i = 0; i < count; ++i) ASSERT_EQ(std::get<chat::TextDelta>(events[static_cast<std::size_t>(i)]).text, std::to_string(i));
}

TEST(EngineProvider, BacklogCountsUnreadEvents) {
  ThreadEngine engine;
  net::asio::io_context io(1);
  EngineProvider provider(io, engine, 1);
  auto stream = test::run(io, provider.generate({}, {}));
  ASSERT_TRUE(stream.ok());
  const auto sink = engine.last_sink.lock();
  ASSERT_NE(sink, nullptr);
  sink->on_events({chat::TextDelta{0, "a"}, chat::TextDelta{0, "b"}});
  sink->on_events({chat::TextDelta{0, "c"}});
  EXPECT_EQ(sink->backlog(), 3u);
  const auto events = test::run(io, (*stream)->next());
  EXPECT_EQ(events.size(), 3u);
  EXPECT_EQ(sink->backlog(), 0u);
}

TEST(EngineProvider, AFailureIsTheLastEvent) {
  ThreadEngine engine;
  engine.script = [](engine::EventSink& sink) { sink.on_events({chat::Failed{{ErrorCode::deadline_exceeded, "late"}}}); };
  net::asio::io_context io(1);
  EngineProvider provider(io, engine, 1);
  auto stream = test::run(io, provider.generate({}, {}));
  ASSERT_TRUE(stream.ok());
  const auto events = test::run(io, drain(**stream));
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(std::get<chat::Failed>(events[0]).error.code, ErrorCode::deadline_exceeded);
}

TEST(EngineProvider, DroppingOrCancellingAStreamCancelsTheGeneration) {
  ThreadEngine engine;
  net::asio::io_context io(1);
  EngineProvider provider(io, engine, 1);
  auto dropped = test::run(io, provider.generate({}, {}));
  ASSERT_TRUE(dropped.ok());
  EXPECT_FALSE(engine.cancelled->load());
  dropped->reset();
  EXPECT_TRUE(engine.cancelled->load());

  auto stream = test::run(io, provider.generate({}, {}));
  ASSERT_TRUE(stream.ok());
  net::asio::steady_timer soon(io, 1ms);
  soon.async_wait([&](const boost::system::error_code&) { (*stream)->cancel(); });
  const auto events = test::run(io, (*stream)->next());
  EXPECT_TRUE(events.empty());
  EXPECT_TRUE(engine.cancelled->load());
}

TEST(EngineProvider, LateEventsOfADroppedStreamAreHarmless) {
  ThreadEngine engine;
  net::asio::io_context io(1);
  EngineProvider provider(io, engine, 1);
  auto stream = test::run(io, provider.generate({}, {}));
  ASSERT_TRUE(stream.ok());
  const auto sink = engine.last_sink.lock();
  stream->reset();
  sink->on_events({chat::TextDelta{0, "late"}});
  test::run(io, test::pause(io, 1ms));
  EXPECT_EQ(sink->backlog(), 1u);
}

TEST(EngineProvider, ErrorsAndExceptionsBecomeErrors) {
  ThreadEngine engine;
  engine.refuse = true;
  net::asio::io_context io(1);
  EngineProvider provider(io, engine, 1);
  const auto refused = test::run(io, provider.generate({}, {}));
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::overloaded);
  EXPECT_EQ(refused.error().retry_after, 3s);
  engine.refuse = false;
  engine.explode = true;
  const auto exploded = test::run(io, provider.generate({}, {}));
  ASSERT_FALSE(exploded.ok());
  EXPECT_EQ(exploded.error().code, ErrorCode::internal);
}

net::Task<void> embed_one(EngineProvider& provider, int& done) {
  const auto result = co_await provider.embed({}, {});
  if (result.ok()) ++done;
}

TEST(EngineProvider, ChatsDoNotWaitBehindEmbeddings) {
  ThreadEngine engine;
  engine.hold_embed = true;
  net::asio::io_context io(1);
  EngineProvider provider(io, engine, 1);
  int done = 0;
  for (int i = 0; i < 4; ++i) boost::asio::co_spawn(io, embed_one(provider, done), boost::asio::detached);
  const auto count = test::run(io, provider.count_tokens({}, {}));
  ASSERT_TRUE(count.ok());
  EXPECT_EQ(*count, 42);
  EXPECT_EQ(done, 0);
  engine.hold_embed = false;
  EXPECT_TRUE(test::wait_for(io, [&] { return done == 4; }));
}

}  // namespace
}  // namespace hearth::fleet
