#include "fleet/upstream.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/json.h"
#include "fleet/fake_engine.h"
#include "fleet/loop.h"

namespace hearth::fleet {
namespace {

using namespace std::chrono_literals;
using test::FakeEngine;
using ::testing::HasSubstr;

chat::Request question() {
  chat::Request request;
  request.messages.push_back({.role = chat::Role::user, .content = {{.text = "hi"}}});
  return request;
}

net::Task<chat::Events> drain(wire::EventStream& stream) {
  chat::Events all;
  while (true) {
    auto events = co_await stream.next();
    if (events.empty()) break;
    all.insert(all.end(), events.begin(), events.end());
  }
  co_return all;
}

std::string text_of(const chat::Events& events) {
  std::string text;
  for (const auto& event : events) {
    if (const auto* delta = std::get_if<chat::TextDelta>(&event)) text += delta->text;
  }
  return text;
}
const Error* failure_of(const chat::Events& events) {
  const auto* failed = events.empty() ? nullptr : std::get_if<chat::Failed>(&events.back());
  return failed ? &failed->error : nullptr;
}

class UpstreamTest : public ::testing::Test {
 protected:
  UpstreamTest() { engine_.frames = FakeEngine::hello(); }
  ~UpstreamTest() override {
    upstream_.reset();
    if (server_) test::run(io_, server_->drain(0ms));
  }
  HttpUpstream& upstream() {
    if (!upstream_) {
      server_ = engine_.serve();
      upstream_ = std::make_unique<HttpUpstream>(io_, net::TcpEndpoint{"127.0.0.1", server_->port()}, options_);
    }
    return *upstream_;
  }
  Result<std::unique_ptr<wire::EventStream>> generate() { return test::run(io_, upstream().generate(question(), {"alice", "req_1"})); }
  chat::Events events() {
    auto stream = generate();
    if (!stream.ok()) {
      ADD_FAILURE() << stream.error().message;
      return {};
    }
    return test::run(io_, drain(**stream));
  }

  net::asio::io_context io_{1};
  FakeEngine engine_{io_};
  UpstreamOptions options_;
  std::unique_ptr<net::Server> server_;
  std::unique_ptr<HttpUpstream> upstream_;
};

TEST_F(UpstreamTest, StreamsEventsAndTellsWhoAsks) {
  const auto all = events();
  EXPECT_EQ(text_of(all), "Hello");
  ASSERT_FALSE(all.empty());
  const auto* usage = std::get_if<chat::Usage>(&all.back());
  ASSERT_NE(usage, nullptr);
  EXPECT_EQ(usage->prompt_tokens, 7);
  ASSERT_EQ(engine_.seen.size(), 1u);
  EXPECT_EQ(engine_.seen[0].headers.find("x-hearth-tenant"), "alice");
  EXPECT_EQ(engine_.seen[0].headers.find("x-request-id"), "req_1");
  const auto body = parse_json(engine_.seen[0].body);
  ASSERT_TRUE(body.ok());
  EXPECT_EQ(body->at("stream"), true);
}

TEST_F(UpstreamTest, KeepsTheConnectionForTheNextRequest) {
  (void)events();
  (void)events();
  EXPECT_EQ(engine_.seen.size(), 2u);
  EXPECT_EQ(server_->connections(), 1u);
}

TEST_F(UpstreamTest, ACutStreamEndsAsAFailureThatSaysSo) {
  engine_.frames = {FakeEngine::chunk("{\"content\":\"Hel\"}")};
  engine_.end = FakeEngine::End::cut;
  const auto all = events();
  EXPECT_EQ(text_of(all), "Hel");
  ASSERT_NE(failure_of(all), nullptr);
  EXPECT_EQ(failure_of(all)->code, ErrorCode::upstream_failed);
  EXPECT_THAT(failure_of(all)->message, HasSubstr("stopped while answering"));
}

TEST_F(UpstreamTest, AStreamThatEndsBeforeItsEndIsAFailureToo) {
  engine_.frames = {FakeEngine::chunk("{\"content\":\"Hel\"}")};
  const auto all = events();
  ASSERT_NE(failure_of(all), nullptr);
  EXPECT_EQ(failure_of(all)->code, ErrorCode::upstream_failed);
}

TEST_F(UpstreamTest, NonsenseIsAFailure) {
  engine_.frames = {"data: {\"choices\": 7\n\n"};
  const auto all = events();
  ASSERT_NE(failure_of(all), nullptr);
  EXPECT_EQ(failure_of(all)->code, ErrorCode::upstream_failed);
}

TEST_F(UpstreamTest, AnErrorFrameKeepsItsCode) {
  engine_.frames = {FakeEngine::chunk("{\"content\":\"Hel\"}"),
                    "data: {\"error\":{\"message\":\"too late\",\"type\":\"server_error\",\"code\":\"deadline_exceeded\"}}\n\n"};
  const auto all = events();
  ASSERT_NE(failure_of(all), nullptr);
  EXPECT_EQ(failure_of(all)->code, ErrorCode::deadline_exceeded);
  EXPECT_EQ(failure_of(all)->message, "too late");
}

TEST_F(UpstreamTest, SilenceBeforeTheFirstTokenTimesOutDespiteComments) {
  options_.first_event = 100ms;
  engine_.frames = {": still here\n\n", ":\n\n"};
  engine_.end = FakeEngine::End::silence;
  const auto all = events();
  ASSERT_NE(failure_of(all), nullptr);
  EXPECT_EQ(failure_of(all)->code, ErrorCode::upstream_timeout);
  EXPECT_THAT(failure_of(all)->message, HasSubstr("first token"));
}

TEST_F(UpstreamTest, SilenceBetweenTokensTimesOutAndCancels) {
  options_.next_event = 50ms;
  engine_.frames = {FakeEngine::chunk("{\"content\":\"Hel\"}")};
  engine_.end = FakeEngine::End::silence;
  const auto all = events();
  ASSERT_NE(failure_of(all), nullptr);
  EXPECT_EQ(failure_of(all)->code, ErrorCode::upstream_timeout);
  EXPECT_TRUE(test::wait_for(io_, [&] { return engine_.left == 1 && engine_.open == 0; })) << "the engine is told to stop";
}

TEST_F(UpstreamTest, ErrorsKeepCodeStatusAndWait) {
  engine_.frames.clear();
  engine_.status = 429;
  engine_.body = R"({"error":{"message":"the queue is full","type":"rate_limit_error","code":"overloaded"}})";
  engine_.retry_after = "7";
  const auto stream = generate();
  ASSERT_FALSE(stream.ok());
  EXPECT_EQ(stream.error().code, ErrorCode::overloaded);
  EXPECT_EQ(stream.error().message, "the queue is full");
  EXPECT_EQ(stream.error().retry_after, 7s);
}

TEST_F(UpstreamTest, NobodyThereIsUnavailable) {
  HttpUpstream nobody(io_, net::UnixEndpoint{"/tmp/hearth-test-no-such-socket"}, {});
  const auto stream = test::run(io_, nobody.generate(question(), {}));
  ASSERT_FALSE(stream.ok());
  EXPECT_EQ(stream.error().code, ErrorCode::unavailable);
}

TEST_F(UpstreamTest, DroppingAStreamTellsTheEngine) {
  engine_.frames = {FakeEngine::chunk("{\"content\":\"Hel\"}")};
  engine_.end = FakeEngine::End::silence;
  auto stream = generate();
  ASSERT_TRUE(stream.ok());
  (void)test::run(io_, (*stream)->next());
  stream->reset();
  EXPECT_TRUE(test::wait_for(io_, [&] { return engine_.left == 1; }));
}

TEST_F(UpstreamTest, CancelWakesAWaitingReader) {
  engine_.frames = {FakeEngine::chunk("{\"content\":\"Hel\"}")};
  engine_.end = FakeEngine::End::silence;
  auto stream = generate();
  ASSERT_TRUE(stream.ok());
  (void)test::run(io_, (*stream)->next());
  net::asio::steady_timer soon(io_, 1ms);
  soon.async_wait([&](const boost::system::error_code&) { (*stream)->cancel(); });
  const auto after = test::run(io_, (*stream)->next());
  EXPECT_TRUE(after.empty());
}

TEST_F(UpstreamTest, ReadsEmbeddings) {
  engine_.frames.clear();
  engine_.body =
      R"({"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.5,-0.25]}],"model":"m","usage":{"prompt_tokens":3,"total_tokens":3}})";
  chat::EmbeddingRequest request;
  request.inputs.push_back({.text = "hi"});
  const auto result = test::run(io_, upstream().embed(request, {}));
  ASSERT_TRUE(result.ok()) << result.error().message;
  ASSERT_EQ(result->vectors.size(), 1u);
  EXPECT_EQ(result->vectors[0], (std::vector<float>{0.5f, -0.25f}));
  EXPECT_EQ(result->prompt_tokens, 3);
}

TEST_F(UpstreamTest, ReadsModels) {
  const auto models = test::run(io_, upstream().models());
  ASSERT_TRUE(models.ok());
  ASSERT_EQ(models->size(), 1u);
  EXPECT_EQ(models->front().id, "fake");
}

}  // namespace
}  // namespace hearth::fleet
