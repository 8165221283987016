#include "fleet/upstream.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/json.h"
#include "fleet/fake_engine.h"
#include "fleet/gate.h"
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

// What a client of the same protocol would get: the frames, without what it did not ask for.
std::string passed(HttpUpstream& upstream, net::asio::io_context& io, chat::Request request, wire::Protocol protocol) {
  auto origin = std::make_shared<wire::Origin>();
  origin->protocol = protocol;
  auto stream = test::run(io, upstream.generate(std::move(request), {"alice", "req_1", origin}));
  if (!stream.ok()) return stream.error().message;
  std::string out;
  while (!test::run(io, (*stream)->next()).empty()) {
    if ((*stream)->raw_protocol() != wire::Protocol::openai_chat) continue;
    for (const auto& frame : (*stream)->raw()) out += frame.bytes;
  }
  return out;
}

TEST_F(UpstreamTest, PassesTheFramesOfItsOwnProtocolByteForByte) {
  engine_.frames[1] = "data:   {\"choices\" : [ {\"index\":0,\"delta\":{\"content\":\"l\\u006f\"}} ], \"odd\": [1e3]}\r\n\r\n";
  engine_.frames.insert(engine_.frames.begin() + 1, ": waiting\n\n");
  const auto& frames = engine_.frames;
  chat::Request asking = question();
  asking.include_usage = true;
  EXPECT_EQ(passed(upstream(), io_, asking, wire::Protocol::openai_chat), frames[0] + frames[2] + frames[3] + frames[4] + frames[5]);
  EXPECT_EQ(passed(upstream(), io_, question(), wire::Protocol::openai_chat), frames[0] + frames[2] + frames[3] + frames[5]);
  EXPECT_EQ(passed(upstream(), io_, question(), wire::Protocol::anthropic), "");
}

TEST_F(UpstreamTest, ClosesPassedFramesWhereTheEngineForgets) {
  engine_.frames.pop_back();
  const auto out = passed(upstream(), io_, question(), wire::Protocol::openai_chat);
  EXPECT_TRUE(out.ends_with("data: [DONE]\n\n")) << out;
}

TEST_F(UpstreamTest, FramesThatNameTheModelOtherwiseDoNotPass) {
  options_.remote_model = "its/own-name";
  EXPECT_EQ(passed(upstream(), io_, question(), wire::Protocol::openai_chat), "");
}

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

// What came is what the engine was asked, by field.
std::string asked(const FakeEngine& engine, const char* field) {
  const auto body = parse_json(engine.seen.back().body);
  if (!body.ok()) return body.error().message;
  const auto* found = body->as_object().if_contains(field);
  return found ? json::serialize(*found) : "";
}

TEST_F(UpstreamTest, ARemoteEndpointHasAPathAModelAndHeadersOfItsOwnAndLearnsNoTenant) {
  options_.api_path = "/api/v1";
  options_.remote_model = "vendor/model";
  options_.api_key = "secret";
  options_.headers = {{"X-Title", "hearth"}, {"authorization", "Token other"}};
  options_.own_engine = false;
  EXPECT_EQ(text_of(events()), "Hello");
  const auto& seen = engine_.seen.at(0);
  EXPECT_EQ(seen.target, "/api/v1/chat/completions");
  EXPECT_EQ(seen.headers.find("x-title"), "hearth");
  EXPECT_EQ(seen.headers.find("authorization"), "Token other") << "a configured header wins";
  EXPECT_EQ(seen.headers.count("authorization"), 1u);
  EXPECT_FALSE(seen.headers.find("x-hearth-tenant"));
  EXPECT_EQ(asked(engine_, "model"), "\"vendor/model\"");
}

TEST_F(UpstreamTest, CapsTokens) {
  options_.max_tokens = 100;
  (void)events();
  EXPECT_EQ(asked(engine_, "max_tokens"), "100") << "also where the request names no limit";
  auto request = question();
  for (const auto& [wanted, sent] : {std::pair{50, "50"}, std::pair{500, "100"}}) {
    request.max_tokens = wanted;
    auto stream = test::run(io_, upstream().generate(request, {}));
    ASSERT_TRUE(stream.ok());
    (void)test::run(io_, drain(**stream));
    EXPECT_EQ(asked(engine_, "max_tokens"), sent);
  }
}

TEST_F(UpstreamTest, TriesAgainWhereNothingHasBeenSeen) {
  options_.retries = 2;
  options_.retry_first = 1ms;
  for (const int status : {502, 503, 504}) {
    engine_.seen.clear();
    engine_.status = status;
    engine_.body = "<html>try again</html>";
    engine_.on_post = [this] { engine_.frames = engine_.seen.size() < 3 ? std::vector<std::string>{} : FakeEngine::hello(); };
    auto stream = generate();
    ASSERT_TRUE(stream.ok()) << status << ": " << stream.error().message;
    EXPECT_EQ(text_of(test::run(io_, drain(**stream))), "Hello");
    const auto& decisions = (*stream)->explanation().decisions;
    EXPECT_THAT(decisions, ::testing::Contains(::testing::Pair("retries", "2")));
  }
}

TEST_F(UpstreamTest, GivesUpAfterSoManyRetries) {
  options_.retries = 2;
  options_.retry_first = 1ms;
  engine_.frames.clear();
  engine_.status = 503;
  const auto stream = generate();
  ASSERT_FALSE(stream.ok());
  EXPECT_EQ(stream.error().code, ErrorCode::unavailable);
  EXPECT_EQ(engine_.seen.size(), 3u);
}

TEST_F(UpstreamTest, NeverTriesAgainWhatWouldFailAgainOrWasSeen) {
  options_.retries = 2;
  options_.retry_first = 1ms;
  engine_.frames.clear();
  for (const int status : {400, 401, 404, 429, 500}) {
    engine_.seen.clear();
    engine_.status = status;
    EXPECT_FALSE(generate().ok());
    EXPECT_EQ(engine_.seen.size(), 1u) << status;
  }
  engine_.seen.clear();
  engine_.status = 503;
  engine_.retry_after = "60";
  const auto later = generate();
  ASSERT_FALSE(later.ok());
  EXPECT_EQ(later.error().retry_after, 60s) << "longer than a request should hang: the client decides";
  EXPECT_EQ(engine_.seen.size(), 1u);

  engine_.seen.clear();
  engine_.frames = {FakeEngine::chunk("{\"content\":\"Hel\"}")};
  engine_.end = FakeEngine::End::cut;
  ASSERT_NE(failure_of(events()), nullptr);
  EXPECT_EQ(engine_.seen.size(), 1u);
}

TEST_F(UpstreamTest, TriesAgainAfterAConnectionThatBrokeBeforeTheHeadOrWasRefused) {
  options_.retries = 2;
  options_.retry_first = 1ms;
  server_ = engine_.serve();
  const test::Gate gate(io_, net::TcpEndpoint{"127.0.0.1", server_->port()}, {{.reset_at = 0}, {.truncate_at = 20}, {}});
  upstream_ = std::make_unique<HttpUpstream>(io_, gate.endpoint(), options_);
  EXPECT_EQ(text_of(events()), "Hello");
  EXPECT_EQ(gate.connections(), 3);

  unsigned short nobody = 0;
  {
    const net::asio::ip::tcp::acceptor closed(io_, {net::asio::ip::address_v4::loopback(), 0});
    nobody = closed.local_endpoint().port();
  }
  HttpUpstream refused(io_, net::TcpEndpoint{"127.0.0.1", nobody}, options_);
  const auto stream = test::run(io_, refused.generate(question(), {}));
  ASSERT_FALSE(stream.ok());
  EXPECT_EQ(stream.error().code, ErrorCode::unavailable);
  EXPECT_THAT(stream.error().message, HasSubstr("cannot connect to worker: nobody listens there"));
}

TEST_F(UpstreamTest, RequestsBeyondItsConcurrencyWaitAndThoseBeyondTheQueueAreRefused) {
  options_.concurrency = {.running = 1, .waiting = 1};
  auto first = generate();
  ASSERT_TRUE(first.ok());
  std::optional<Result<std::unique_ptr<wire::EventStream>>> second;
  net::asio::co_spawn(io_, test::store(upstream().generate(question(), {}), second), net::asio::detached);
  ASSERT_TRUE(test::wait_for(io_, [&] { return upstream().waiting() == 1; }));
  const auto third = generate();
  ASSERT_FALSE(third.ok());
  EXPECT_EQ(third.error().code, ErrorCode::overloaded);
  EXPECT_GT(third.error().retry_after.count(), 0);
  EXPECT_EQ(engine_.seen.size(), 1u) << "it waits here, not there";
  (void)test::run(io_, drain(**first));
  ASSERT_TRUE(test::wait_for(io_, [&] { return second.has_value(); })) << "the end of a stream makes room, not its destruction";
  ASSERT_TRUE(second->ok());
  EXPECT_EQ(text_of(test::run(io_, drain(***second))), "Hello");
  EXPECT_EQ(upstream().running(), 0);
}

// A server that takes requests and says nothing, not even a head.
class MuteServer {
 public:
  explicit MuteServer(net::asio::io_context& io) : gone_(io) {
    const auto handler = [this](net::Exchange& exchange) { return hold(exchange); };
    server_ = std::move(*net::Server::listen(io, net::TcpEndpoint{"127.0.0.1", 0}, {}, std::nullopt, handler));
  }
  net::Endpoint endpoint() const { return net::TcpEndpoint{"127.0.0.1", server_->port()}; }
  net::Server& server() { return *server_; }
  int held = 0, left = 0;

 private:
  net::Task<void> hold(net::Exchange& exchange) {
    ++held;
    bool gone = false;
    exchange.on_client_gone([&] {
      gone = true;
      gone_.notify();
    });
    while (!gone) co_await gone_.wait();
    ++left;
  }
  LoopEvent gone_;
  std::unique_ptr<net::Server> server_;
};

TEST_F(UpstreamTest, AClientThatLeavesEndsTheWaitForAHeadAndForAPlace) {
  MuteServer mute(io_);
  options_.concurrency = {.running = 1, .waiting = 8};
  HttpUpstream silent(io_, mute.endpoint(), options_);
  struct Run {
    std::shared_ptr<net::Cancellation> cancellation = std::make_shared<net::Cancellation>();
    std::optional<Result<std::unique_ptr<wire::EventStream>>> result;
  };
  Run sent, waits;
  for (auto* one : {&sent, &waits}) {
    wire::Caller caller;
    caller.cancellation = one->cancellation;
    net::asio::co_spawn(io_, test::store(silent.generate(question(), caller), one->result), net::asio::detached);
  }
  ASSERT_TRUE(test::wait_for(io_, [&] { return mute.held == 1 && silent.waiting() == 1; }));
  waits.cancellation->request();
  ASSERT_TRUE(test::wait_for(io_, [&] { return waits.result.has_value(); }));
  EXPECT_EQ(waits.result->error().code, ErrorCode::client_gone);
  sent.cancellation->request();
  ASSERT_TRUE(test::wait_for(io_, [&] { return sent.result.has_value() && mute.left == 1; })) << "the engine is told at once";
  EXPECT_EQ(sent.result->error().code, ErrorCode::client_gone);
  EXPECT_EQ(silent.running(), 0);
  test::run(io_, mute.server().drain(0ms));
}

TEST_F(UpstreamTest, NoHeadInTimeIsATimeOut) {
  MuteServer mute(io_);
  options_.first_event = 20ms;
  HttpUpstream silent(io_, mute.endpoint(), options_);
  const auto stream = test::run(io_, silent.generate(question(), {}));
  ASSERT_FALSE(stream.ok());
  EXPECT_EQ(stream.error().code, ErrorCode::upstream_timeout);
  EXPECT_THAT(stream.error().message, HasSubstr("worker gave no answer"));
  ASSERT_TRUE(test::wait_for(io_, [&] { return mute.left == 1; }));
  test::run(io_, mute.server().drain(0ms));
}

TEST_F(UpstreamTest, AnotherEndpointTakesFurtherRequests) {
  auto running = generate();
  ASSERT_TRUE(running.ok());
  FakeEngine other(io_);
  other.frames = FakeEngine::hello();
  const auto successor = other.serve();
  upstream().connect_to(net::TcpEndpoint{"127.0.0.1", successor->port()});
  EXPECT_EQ(text_of(events()), "Hello");
  EXPECT_EQ(other.seen.size(), 1u);
  EXPECT_EQ(text_of(test::run(io_, drain(**running))), "Hello") << "what ran goes on";
  upstream_.reset();
  test::run(io_, successor->drain(0ms));
}

TEST_F(UpstreamTest, AStreamOutlivesItsUpstream) {
  auto stream = generate();
  ASSERT_TRUE(stream.ok());
  upstream_.reset();
  EXPECT_EQ(text_of(test::run(io_, drain(**stream))), "Hello");
}

TEST_F(UpstreamTest, ARefusedKeyIsNotTheClients) {
  engine_.frames.clear();
  engine_.status = 401;
  engine_.body = R"({"error":{"message":"invalid key"}})";
  const auto stream = generate();
  ASSERT_FALSE(stream.ok());
  EXPECT_EQ(stream.error().code, ErrorCode::upstream_failed);
  EXPECT_EQ(stream.error().message, "worker refuses hearth's access (status 401): invalid key");
}

// 200 with something else than a stream.
struct Instead {
  const char* what;
  std::string body;
  ErrorCode code;
  const char* message;
};
class UpstreamInstead : public UpstreamTest, public ::testing::WithParamInterface<Instead> {};

TEST_P(UpstreamInstead, IsOneClearFailure) {
  engine_.frames.clear();
  engine_.body = GetParam().body;
  const auto all = events();
  ASSERT_NE(failure_of(all), nullptr);
  EXPECT_EQ(failure_of(all)->code, GetParam().code);
  EXPECT_THAT(failure_of(all)->message, HasSubstr(GetParam().message));
  EXPECT_EQ(std::count_if(all.begin(), all.end(), [](const auto& event) { return std::holds_alternative<chat::Failed>(event); }), 1);
}

INSTANTIATE_TEST_SUITE_P(
    , UpstreamInstead,
    ::testing::Values(
        Instead{"page", "\n<!DOCTYPE html><html>Welcome to nginx!</html>", ErrorCode::upstream_failed, "worker answered with a web page"},
        Instead{"error", R"({"error":{"message":"CUDA out of memory","type":"server_error"}})", ErrorCode::upstream_failed,
                "CUDA out of memory"},
        Instead{"our_error", R"({"error":{"message":"full","code":"overloaded"}})", ErrorCode::overloaded, "full"},
        Instead{"other_document", R"({"hello":"world"})", ErrorCode::upstream_failed,
                "worker answered nonsense: the upstream's answer makes no sense"},
        Instead{"list", "[1,2]", ErrorCode::upstream_failed, "worker answered nonsense"},
        Instead{"half_a_document", R"({"choices":[{"index":0,"mess)", ErrorCode::upstream_failed, "worker answered nonsense"},
        Instead{"nothing", "", ErrorCode::upstream_failed, "before it began"},
        Instead{"spaces", "  \n\n ", ErrorCode::upstream_failed, "before it began"},
        Instead{"words", "upstream connect error", ErrorCode::upstream_failed, "before it began"},
        Instead{"only_the_end", "data: [DONE]\n\n", ErrorCode::upstream_failed, "worker ended its answer before it began"},
        Instead{"half_a_frame", "data: {\"choices\":[{\"index\":0,\"delta\":{\"con", ErrorCode::upstream_failed, "before it began"},
        Instead{"half_a_call", FakeEngine::chunk(R"({"tool_calls":[{"index":0,"id":"c","function":{"name":"ls","arguments":"{\"p"}}]})"),
                ErrorCode::upstream_failed, "stopped while answering"}),
    [](const auto& info) { return info.param.what; });

TEST_F(UpstreamTest, ACompletionInOneDocumentIsAnAnswer) {
  engine_.frames.clear();
  engine_.body =
      R"({"choices":[{"index":0,"message":{"role":"assistant","content":"Hello"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":1}})";
  const auto all = events();
  EXPECT_EQ(text_of(all), "Hello");
  EXPECT_EQ(failure_of(all), nullptr);
  ASSERT_TRUE(std::holds_alternative<chat::Usage>(all.back()));
  EXPECT_EQ(std::get<chat::Usage>(all.back()).prompt_tokens, 3);
}

TEST_F(UpstreamTest, ADocumentHasItsLimit) {
  options_.answer_bytes = 100;
  engine_.frames.clear();
  engine_.body = "{\"choices\":\"" + std::string(200, 'x') + "\"}";
  ASSERT_NE(failure_of(events()), nullptr);
  EXPECT_THAT(failure_of(events())->message, HasSubstr("more than 100 bytes"));
}

TEST_F(UpstreamTest, ADialectIsReadOutOfTheTextAndWrittenIntoTheRequest) {
  options_.dialect = wire::Dialect::hermes;
  engine_.frames = {FakeEngine::chunk(R"({"content":"I look. <tool_"})"),
                    FakeEngine::chunk(R"({"content":"call>{\"name\": \"ls\", \"argu"})"),
                    FakeEngine::chunk(R"({"content":"ments\": {\"path\": \"/\"}}</tool_call>"})"), FakeEngine::chunk("{}", "\"stop\""),
                    "data: [DONE]\n\n"};
  auto request = question();
  request.tools.push_back({.name = "ls", .description = "List files", .parameters = R"({"type":"object"})"});
  auto stream = test::run(io_, upstream().generate(request, {}));
  ASSERT_TRUE(stream.ok()) << stream.error().message;
  const auto all = test::run(io_, drain(**stream));
  EXPECT_THAT(text_of(all), HasSubstr("I look."));
  EXPECT_THAT(text_of(all), ::testing::Not(HasSubstr("tool_call")));
  std::string name, arguments;
  for (const auto& event : all) {
    if (const auto* begin = std::get_if<chat::ToolCallBegin>(&event)) name = begin->name;
    if (const auto* delta = std::get_if<chat::ToolCallDelta>(&event)) arguments += delta->arguments;
  }
  EXPECT_EQ(name, "ls");
  EXPECT_EQ(arguments, R"({"path": "/"})");
  const auto* finished = std::get_if<chat::Finished>(&all.back());
  ASSERT_NE(finished, nullptr);
  EXPECT_EQ(finished->reason, chat::FinishReason::tool_calls);
  EXPECT_EQ(asked(engine_, "tools"), "") << "the engine would not know what to do with them";
  EXPECT_THAT(asked(engine_, "messages"), HasSubstr("List files"));
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
