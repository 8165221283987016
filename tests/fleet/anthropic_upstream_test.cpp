#include "fleet/anthropic_upstream.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>

#include "base/json.h"
#include "fleet/fake_engine.h"
#include "fleet/loop.h"
#include "fleet/remote_model.h"
#include "wire/anthropic.h"
#include "wire/endpoint.h"

namespace hearth::fleet {
namespace {

using namespace std::chrono_literals;
using test::FakeEngine;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

std::string frame(const std::string& type, const std::string& fields) {
  return "event: " + type + "\ndata: {\"type\":\"" + type + "\"" + (fields.empty() ? "" : "," + fields) + "}\n\n";
}
std::string start(const std::string& model = "claude-x") {
  return frame("message_start",
               R"("message":{"id":"msg_1","model":")" + model + R"(","usage":{"input_tokens":7,"output_tokens":1,"odd": 1.50}})");
}
std::string text(const std::string& words) {
  return frame("content_block_delta", R"("index":0,"delta":{"type":"text_delta","text":")" + words + "\"}");
}
std::vector<std::string> hello() {
  return {start(),
          frame("content_block_start", R"("index":0,"content_block":{"type":"text","text":""})"),
          frame("ping", ""),
          text("Hel"),
          text("lo"),
          frame("content_block_stop", R"("index":0)"),
          frame("message_delta", R"("delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":2})"),
          frame("message_stop", "")};
}
std::string joined(const std::vector<std::string>& parts) {
  std::string out;
  for (const auto& part : parts) out += part;
  return out;
}

struct Drained {
  chat::Events events;
  std::string raw;
  wire::Protocol protocol = wire::Protocol::other;

  std::string text() const {
    std::string out;
    for (const auto& event : events) {
      if (const auto* delta = std::get_if<chat::TextDelta>(&event)) out += delta->text;
    }
    return out;
  }
  const Error* failure() const {
    const auto* failed = events.empty() ? nullptr : std::get_if<chat::Failed>(&events.back());
    return failed != nullptr ? &failed->error : nullptr;
  }
};

net::Task<Drained> drain(wire::EventStream& stream) {
  Drained out;
  while (true) {
    auto events = co_await stream.next();
    if (events.empty()) break;
    out.protocol = stream.raw_protocol();
    for (const auto& frame : stream.raw()) out.raw += frame.bytes;
    out.events.insert(out.events.end(), events.begin(), events.end());
  }
  co_return out;
}

const std::string clients_body =
    R"({ "model" : "claude-x", "stream":true, "max_tokens": 9, "new_field" : 1.50, "messages":[{"role":"user","content":"hi"}] })";

class AnthropicUpstreamTest : public ::testing::Test {
 protected:
  AnthropicUpstreamTest() {
    engine_.frames = hello();
    options_.name = "cloud";
    options_.api_key = "secret";
    request_.model = "claude-x";
    request_.max_tokens = 9;
    request_.messages.push_back({.role = chat::Role::user, .content = {{.text = "hi"}}});
  }
  ~AnthropicUpstreamTest() override {
    upstream_.reset();
    if (server_) test::run(io_, server_->drain(0ms));
  }
  AnthropicUpstream& upstream() {
    if (!upstream_) {
      server_ = engine_.serve();
      upstream_ = std::make_unique<AnthropicUpstream>(io_, net::TcpEndpoint{"127.0.0.1", server_->port()}, options_);
    }
    return *upstream_;
  }
  void comes_from_a_client(std::string body = clients_body) {
    auto origin = std::make_shared<wire::Origin>();
    origin->protocol = wire::Protocol::anthropic;
    origin->body = std::move(body);
    origin->headers = {{"anthropic-beta", "a-2025,b-2025"}, {"anthropic-version", "2024-10-22"}, {"x-other", "x"}};
    caller_.origin = std::move(origin);
  }
  Result<std::unique_ptr<wire::EventStream>> generate() { return test::run(io_, upstream().generate(request_, caller_)); }
  Drained answer() {
    auto stream = generate();
    if (!stream.ok()) {
      ADD_FAILURE() << stream.error().message;
      return {};
    }
    return test::run(io_, drain(**stream));
  }
  std::string header(std::string_view name) const { return std::string(engine_.seen.at(0).headers.find(name).value_or("(none)")); }
  Error failure() {
    const auto out = answer();
    if (out.failure() == nullptr) {
      ADD_FAILURE() << "it did not fail";
      return {};
    }
    return *out.failure();
  }

  net::asio::io_context io_{1};
  FakeEngine engine_{io_};
  UpstreamOptions options_;
  chat::Request request_;
  wire::Caller caller_{"alice", "req_1", nullptr, nullptr};
  std::unique_ptr<net::Server> server_;
  std::unique_ptr<AnthropicUpstream> upstream_;
};

TEST_F(AnthropicUpstreamTest, AnotherProtocolsRequestIsSaidAnew) {
  options_.headers = {{"x-extra", "1"}};
  const auto out = answer();
  EXPECT_EQ(out.text(), "Hello");
  EXPECT_EQ(out.failure(), nullptr);
  EXPECT_EQ(out.protocol, wire::Protocol::other);
  ASSERT_FALSE(out.events.empty());
  const auto* started = std::get_if<chat::Started>(&out.events.front());
  ASSERT_NE(started, nullptr);
  EXPECT_EQ(started->prompt_tokens, 7);
  const auto* usage = std::get_if<chat::Usage>(&out.events.back());
  ASSERT_NE(usage, nullptr);
  EXPECT_EQ(usage->completion_tokens, 2);

  EXPECT_EQ(engine_.seen.at(0).target, "/v1/messages");
  EXPECT_EQ(header("x-api-key"), "secret");
  EXPECT_EQ(header("authorization"), "(none)");
  EXPECT_EQ(header("anthropic-version"), "2023-06-01");
  EXPECT_EQ(header("anthropic-beta"), "(none)");
  EXPECT_EQ(header("x-extra"), "1");
  EXPECT_EQ(header("x-hearth-tenant"), "(none)") << "who asks is nobody's business there";
  EXPECT_EQ(engine_.seen[0].body, *wire::anthropic::encode_request(request_));
}

TEST_F(AnthropicUpstreamTest, ItsOwnClientsBytesPassBothWays) {
  comes_from_a_client();
  const auto out = answer();
  EXPECT_EQ(engine_.seen.at(0).body, clients_body);
  EXPECT_EQ(header("anthropic-version"), "2024-10-22");
  EXPECT_EQ(header("anthropic-beta"), "a-2025,b-2025");
  EXPECT_EQ(header("x-other"), "(none)");
  EXPECT_EQ(out.protocol, wire::Protocol::anthropic);
  EXPECT_EQ(out.raw, joined(hello()));
  EXPECT_EQ(out.text(), "Hello");
}

TEST_F(AnthropicUpstreamTest, BytesPassWhateverTheirLineEndsAndPieces) {
  comes_from_a_client();
  std::string all;
  for (const char c : joined(hello())) all += c == '\n' ? std::string("\r\n") : std::string(1, c);
  for (const std::size_t piece : {std::size_t{1}, std::size_t{7}, all.size()}) {
    engine_.frames.clear();
    for (std::size_t at = 0; at < all.size(); at += piece) engine_.frames.push_back(all.substr(at, piece));
    const auto out = answer();
    EXPECT_EQ(out.text(), "Hello");
    // Of the last line's end the second half may still have been on its way.
    EXPECT_THAT(all, StartsWith(out.raw));
    EXPECT_GE(out.raw.size() + 1, all.size());
  }
}

TEST_F(AnthropicUpstreamTest, AModelOfAnotherNameIsAskedForByItsOwnAndAnswersUnderOurs) {
  comes_from_a_client();
  options_.remote_model = "claude-y";
  engine_.frames[0] = start("claude-y");
  const auto out = answer();
  EXPECT_EQ(engine_.seen.at(0).body,
            R"({ "model" : "claude-y", "stream":true, "max_tokens": 9, "new_field" : 1.50, "messages":[{"role":"user","content":"hi"}] })");
  EXPECT_EQ(out.protocol, wire::Protocol::other) << "the frames would show the other name";
  EXPECT_EQ(out.text(), "Hello");
}

TEST_F(AnthropicUpstreamTest, AClientThatDoesNotStreamIsStreamedTo) {
  comes_from_a_client(R"({"model":"claude-x","max_tokens":9,"messages":[]})");
  EXPECT_EQ(answer().text(), "Hello");
  EXPECT_EQ(engine_.seen.at(0).body, R"({"stream":true,"model":"claude-x","max_tokens":9,"messages":[]})");
}

TEST_F(AnthropicUpstreamTest, ReasoningOfOurOwnIsNotSentAsTheirs) {
  comes_from_a_client(
      R"({"model":"claude-x","messages":[{"role":"assistant","content":[{"type":"thinking","thinking":"x","signature":"hearth-unsigned-reasoning"}]}]})");
  const auto out = answer();
  EXPECT_EQ(engine_.seen.at(0).body, *wire::anthropic::encode_request(request_));
  EXPECT_EQ(out.raw, joined(hello())) << "the answer passes all the same";
}

TEST_F(AnthropicUpstreamTest, ACapOnTheAnswerHoldsForEveryClient) {
  comes_from_a_client();
  options_.max_tokens = 5;
  (void)answer();
  const auto body = parse_json(engine_.seen.at(0).body);
  ASSERT_TRUE(body.ok());
  EXPECT_EQ(body->at("max_tokens"), 5);
}

TEST_F(AnthropicUpstreamTest, WhatTheApiCannotDoIsRefusedBeforeAnythingIsSent) {
  request_.choices = 2;
  const auto stream = generate();
  ASSERT_FALSE(stream.ok());
  EXPECT_EQ(stream.error().code, ErrorCode::unsupported);
  EXPECT_TRUE(engine_.seen.empty());
  EXPECT_EQ(test::run(io_, upstream().embed({}, {})).error().code, ErrorCode::unsupported);
  EXPECT_EQ(test::run(io_, upstream().rerank({}, {})).error().code, ErrorCode::unsupported);
  EXPECT_EQ(test::run(io_, upstream().score({}, {})).error().code, ErrorCode::unsupported);
}

TEST_F(AnthropicUpstreamTest, KeepsTheConnectionForTheNextRequest) {
  (void)answer();
  (void)answer();
  EXPECT_EQ(engine_.seen.size(), 2U);
  EXPECT_EQ(server_->connections(), 1U);
}

TEST_F(AnthropicUpstreamTest, AnErrorInTheStreamIsSaidOnce) {
  comes_from_a_client();
  engine_.frames = {start(), text("Hel"), frame("error", R"("error":{"type":"overloaded_error","message":"Overloaded"})")};
  const auto out = answer();
  ASSERT_NE(out.failure(), nullptr);
  EXPECT_EQ(out.failure()->code, ErrorCode::unavailable);
  EXPECT_EQ(out.failure()->message, "Overloaded");
  EXPECT_EQ(out.raw, start() + text("Hel")) << "the failure's own frame is the endpoint's to say";
}

TEST_F(AnthropicUpstreamTest, ACutStreamIsAFailureAndHalfAFrameDoesNotPass) {
  comes_from_a_client();
  engine_.frames = {start(), text("Hel"), "event: content_block_delta\ndata: {\"type\":\"cont"};
  for (const auto end : {FakeEngine::End::cut, FakeEngine::End::finish}) {
    engine_.end = end;
    const auto out = answer();
    EXPECT_EQ(out.text(), "Hel");
    ASSERT_NE(out.failure(), nullptr);
    EXPECT_EQ(out.failure()->code, ErrorCode::upstream_failed);
    EXPECT_THAT(out.failure()->message, HasSubstr("stopped while answering"));
    EXPECT_EQ(out.raw, start() + text("Hel"));
  }
}

TEST_F(AnthropicUpstreamTest, NonsenseIsAFailure) {
  engine_.frames = {start(), "data: {\"type\": 7\n\n"};
  EXPECT_THAT(failure().message, HasSubstr("nonsense"));
  engine_.frames = {"<html>Welcome</html>"};
  EXPECT_THAT(failure().message, HasSubstr("web page"));
  engine_.frames = {start(), start()};
  EXPECT_EQ(failure().code, ErrorCode::upstream_failed);
  engine_.frames = {"\n"};
  EXPECT_THAT(failure().message, HasSubstr("before it began"));
}

TEST_F(AnthropicUpstreamTest, AnErrorUnderAGoodStatusIsAnError) {
  comes_from_a_client();
  engine_.frames = {R"({"type":"error","error":{"type":"rate_limit_error","message":"slow down"}})"};
  const auto out = answer();
  ASSERT_NE(out.failure(), nullptr);
  EXPECT_EQ(out.failure()->code, ErrorCode::overloaded);
  EXPECT_EQ(out.raw, "");
}

TEST_F(AnthropicUpstreamTest, AServiceThatDoesNotStreamIsUnderstood) {
  comes_from_a_client();
  engine_.frames = {
      R"({"id":"msg_1","type":"message","role":"assistant","model":"claude-x","content":[{"type":"thinking","thinking":"hm","signature":"Eq"},)",
      R"({"type":"text","text":"Hello"},{"type":"tool_use","id":"t1","name":"f","input":{"a":1}}],"stop_reason":"tool_use","stop_sequence":null,)",
      R"("usage":{"input_tokens":7,"output_tokens":2}})"};
  const auto out = answer();
  EXPECT_EQ(out.protocol, wire::Protocol::other);
  EXPECT_EQ(out.text(), "Hello");
  ASSERT_EQ(out.failure(), nullptr);
  const auto* usage = std::get_if<chat::Usage>(&out.events.back());
  ASSERT_NE(usage, nullptr);
  EXPECT_EQ(usage->completion_tokens, 2);
  EXPECT_EQ(std::get<chat::Finished>(out.events[out.events.size() - 2]).reason, chat::FinishReason::tool_calls);
}

TEST_F(AnthropicUpstreamTest, SilenceTimesOutDespitePings) {
  options_.first_event = 100ms;
  engine_.frames = {frame("ping", ""), frame("ping", "")};
  engine_.end = FakeEngine::End::silence;
  const Error error = failure();
  EXPECT_EQ(error.code, ErrorCode::upstream_timeout);
  EXPECT_THAT(error.message, HasSubstr("first token"));
  EXPECT_TRUE(test::wait_for(io_, [&] { return engine_.left == 1 && engine_.open == 0; })) << "the endpoint is told to stop";
}

TEST_F(AnthropicUpstreamTest, SilenceBetweenTwoEventsTimesOut) {
  options_.next_event = 50ms;
  engine_.frames = {start(), text("Hel")};
  engine_.end = FakeEngine::End::silence;
  const Error error = failure();
  EXPECT_EQ(error.code, ErrorCode::upstream_timeout);
  EXPECT_THAT(error.message, HasSubstr("went silent"));
}

TEST_F(AnthropicUpstreamTest, WorkThatOnlyTheClientUnderstandsIsNoSilence) {
  options_.next_event = 600ms;
  engine_.frame_delay = 60ms;
  auto frames = hello();
  frames.insert(frames.begin() + 1, 12, frame("brand_new", ""));
  engine_.frames = frames;
  comes_from_a_client();
  const auto out = answer();
  EXPECT_EQ(out.failure(), nullptr);
  EXPECT_EQ(out.raw, joined(frames));
}

TEST_F(AnthropicUpstreamTest, RefusalsKeepTheirMeaning) {
  engine_.frames.clear();
  engine_.status = 429;
  engine_.body = R"({"type":"error","error":{"type":"rate_limit_error","message":"slow down"}})";
  engine_.retry_after = "7";
  auto stream = generate();
  ASSERT_FALSE(stream.ok());
  EXPECT_EQ(stream.error().code, ErrorCode::overloaded);
  EXPECT_EQ(stream.error().message, "slow down");
  EXPECT_EQ(stream.error().retry_after, 7s);
  engine_.retry_after.clear();
  engine_.status = 400;
  engine_.body = R"({"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 9 tokens > 8 maximum"}})";
  stream = generate();
  ASSERT_FALSE(stream.ok());
  EXPECT_EQ(stream.error().code, ErrorCode::context_length_exceeded);
  engine_.status = 401;
  engine_.body = R"({"type":"error","error":{"type":"authentication_error","message":"invalid x-api-key"}})";
  stream = generate();
  ASSERT_FALSE(stream.ok());
  EXPECT_EQ(stream.error().code, ErrorCode::upstream_failed) << "it is not the client's key that was refused";
  EXPECT_THAT(stream.error().message, HasSubstr("refuses hearth's access (status 401): invalid x-api-key"));
  engine_.status = 502;
  engine_.body = "<html>";
  stream = generate();
  ASSERT_FALSE(stream.ok());
  EXPECT_EQ(stream.error().code, ErrorCode::upstream_failed);
}

TEST_F(AnthropicUpstreamTest, AnOverloadedServiceIsAskedAgainAsOftenAsAllowed) {
  options_.retries = 2;
  options_.retry_first = 1ms;
  engine_.frames.clear();
  engine_.status = 529;
  engine_.body = R"({"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}})";
  const auto stream = generate();
  ASSERT_FALSE(stream.ok());
  EXPECT_EQ(stream.error().code, ErrorCode::unavailable);
  EXPECT_EQ(engine_.seen.size(), 3U);
}

TEST_F(AnthropicUpstreamTest, NobodyThereIsUnavailable) {
  AnthropicUpstream nobody(io_, net::UnixEndpoint{"/nonexistent/hearth-test-socket"}, {});
  const auto stream = test::run(io_, nobody.generate(request_, {}));
  ASSERT_FALSE(stream.ok());
  EXPECT_EQ(stream.error().code, ErrorCode::unavailable);
}

TEST_F(AnthropicUpstreamTest, CancelWakesAWaitingReaderAndTellsTheService) {
  engine_.frames = {start()};
  engine_.end = FakeEngine::End::silence;
  auto stream = generate();
  ASSERT_TRUE(stream.ok());
  (void)test::run(io_, (*stream)->next());
  net::asio::steady_timer soon(io_, 1ms);
  soon.async_wait([&](const boost::system::error_code&) { (*stream)->cancel(); });
  EXPECT_TRUE(test::run(io_, (*stream)->next()).empty());
  EXPECT_TRUE(test::wait_for(io_, [&] { return engine_.left == 1; }));
}

TEST_F(AnthropicUpstreamTest, AModelOfThisKindIsReachedThisWay) {
  server_ = engine_.serve();
  ModelSpec spec;
  spec.id = "claude-x";
  spec.kind = ModelKind::anthropic;
  spec.remotes.push_back({net::TcpEndpoint{"127.0.0.1", server_->port()}, "/api"});
  spec.upstream = options_;
  RemoteModel model(io_, spec, Clock::system());
  comes_from_a_client();
  const auto attempts = model.generate(request_, caller_);
  auto stream = test::run(io_, attempts->open());
  ASSERT_TRUE(stream.ok()) << stream.error().message;
  const auto out = test::run(io_, drain(**stream));
  EXPECT_EQ(engine_.seen.at(0).target, "/api/v1/messages");
  EXPECT_EQ(out.protocol, wire::Protocol::anthropic);
  EXPECT_EQ(out.raw, joined(hello()));
}

// ---- against the server side of the same protocol -----------------------------------------------------------------------------------

class CannedStream final : public wire::EventStream {
 public:
  explicit CannedStream(std::deque<chat::Events> batches) : batches_(std::move(batches)) {}
  net::Task<chat::Events> next() override {
    if (batches_.empty()) co_return chat::Events{};
    auto batch = std::move(batches_.front());
    batches_.pop_front();
    co_return batch;
  }
  void cancel() override { batches_.clear(); }
  const chat::Explanation& explanation() const override { return explanation_; }

 private:
  std::deque<chat::Events> batches_;
  chat::Explanation explanation_;
};

class CannedProvider final : public wire::Provider {
 public:
  net::Task<Result<std::unique_ptr<wire::EventStream>>> generate(chat::Request request, wire::Caller) override {
    seen = std::move(request);
    co_return std::make_unique<CannedStream>(
        std::deque<chat::Events>{{chat::Started{11, 4}},
                                 {chat::ReasoningDelta{0, "hm"}, chat::TextDelta{0, "I look."}},
                                 {chat::ToolCallBegin{0, 0, "t1", "bash"}, chat::ToolCallDelta{0, 0, "{\"a\":"},
                                  chat::ToolCallDelta{0, 0, "1}"}, chat::ToolCallEnd{0, 0}},
                                 {chat::Finished{0, chat::FinishReason::tool_calls, {}}, chat::Usage{11, 4, 5}}});
  }
  net::Task<Result<int>> count_tokens(chat::Request request, wire::Caller) override {
    seen = std::move(request);
    co_return 17;
  }
  net::Task<Result<std::vector<chat::ModelInfo>>> models() override {
    std::vector<chat::ModelInfo> out(2);
    out[0].id = "a";
    out[0].context = 4096;
    out[1].id = "b";
    co_return out;
  }
  net::Task<Result<chat::Embeddings>> embed(chat::EmbeddingRequest, wire::Caller) override { co_return internal_error("not asked for"); }
  net::Task<Result<chat::RerankResult>> rerank(chat::RerankRequest, wire::Caller) override { co_return internal_error("not asked for"); }
  net::Task<Result<std::vector<chat::TokenInfo>>> score(chat::Request, wire::Caller) override { co_return internal_error("not asked for"); }

  chat::Request seen;
};

class AnthropicLinkTest : public ::testing::Test {
 protected:
  AnthropicLinkTest() {
    auto server = net::Server::listen(io_, net::TcpEndpoint{"127.0.0.1", 0}, {}, std::nullopt,
                                      [this](net::Exchange& exchange) { return answer(exchange); });
    server_ = *std::move(server);
    upstream_ = std::make_unique<AnthropicUpstream>(io_, net::TcpEndpoint{"127.0.0.1", server_->port()}, UpstreamOptions{});
    request_.model = "a";
    request_.messages.push_back({.role = chat::Role::user, .content = {{.text = "hi"}}});
  }
  ~AnthropicLinkTest() override {
    upstream_.reset();
    test::run(io_, server_->drain(0ms));
  }
  net::Task<void> answer(net::Exchange& exchange) {
    (void)co_await wire::serve(exchange, provider_, {"ann", "req-1", nullptr, nullptr}, {});
  }

  net::asio::io_context io_{1};
  CannedProvider provider_;
  std::unique_ptr<net::Server> server_;
  std::unique_ptr<AnthropicUpstream> upstream_;
  chat::Request request_;
};

TEST_F(AnthropicLinkTest, AnAnswerArrivesAsItWasGiven) {
  auto stream = test::run(io_, upstream_->generate(request_, {}));
  ASSERT_TRUE(stream.ok()) << stream.error().message;
  const auto out = test::run(io_, drain(**stream));
  EXPECT_EQ(provider_.seen.messages.at(0).text(), "hi");
  EXPECT_TRUE(provider_.seen.stream);
  ASSERT_EQ(out.events.size(), 9U);
  EXPECT_EQ(std::get<chat::Started>(out.events[0]).prompt_tokens, 11);
  EXPECT_EQ(std::get<chat::Started>(out.events[0]).cached_tokens, 4);
  EXPECT_EQ(std::get<chat::ReasoningDelta>(out.events[1]).text, "hm");
  EXPECT_EQ(std::get<chat::TextDelta>(out.events[2]).text, "I look.");
  EXPECT_EQ(std::get<chat::ToolCallBegin>(out.events[3]).name, "bash");
  EXPECT_EQ(std::get<chat::Usage>(out.events[8]).completion_tokens, 5);
}

TEST_F(AnthropicLinkTest, CountsAndModels) {
  const auto tokens = test::run(io_, upstream_->count_tokens(request_, {}));
  ASSERT_TRUE(tokens.ok()) << tokens.error().message;
  EXPECT_EQ(*tokens, 17);
  EXPECT_EQ(provider_.seen.messages.at(0).text(), "hi");
  auto origin = std::make_shared<wire::Origin>();
  origin->protocol = wire::Protocol::anthropic;
  origin->body = R"({"model":"other","messages":[{"role":"user","content":"ho"}]})";
  const auto again = test::run(io_, upstream_->count_tokens(request_, {"ann", "r", origin, nullptr}));
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(provider_.seen.messages.at(0).text(), "ho");
  EXPECT_EQ(provider_.seen.model, "a");

  const auto models = test::run(io_, upstream_->models());
  ASSERT_TRUE(models.ok()) << models.error().message;
  ASSERT_EQ(models->size(), 2U);
  EXPECT_EQ(models->at(0).id, "a");
  EXPECT_EQ(models->at(0).context, 4096);
}

}  // namespace
}  // namespace hearth::fleet
