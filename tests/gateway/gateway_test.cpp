#include "gateway/gateway.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>

#include "base/json.h"
#include "fleet/fake_engine.h"
#include "fleet/loop.h"
#include "net/client.h"

namespace hearth::gateway {
namespace {

using namespace std::chrono_literals;
using test::FakeEngine;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr const char* chat_body = R"({"messages":[{"role":"user","content":"hi"}]})";
constexpr const char* stream_body = R"({"messages":[{"role":"user","content":"hi"}],"stream":true})";

struct Answer {
  int status = 0;
  net::Headers headers;
  std::string body;
  std::string header(std::string_view name) const { return std::string(headers.find(name).value_or(std::string_view())); }
  std::string at(const char* pointer) const {
    boost::system::error_code error;
    const auto document = json::parse(body, error);
    if (error) return "not JSON: " + body;
    const auto* found = document.find_pointer(pointer, error);
    return !found ? std::string() : found->is_string() ? std::string(found->get_string()) : json::serialize(*found);
  }
};

class GatewayTest : public ::testing::Test {
 protected:
  GatewayTest() {
    engine_.frames = FakeEngine::hello();
    options_.listen.port = 0;
  }
  ~GatewayTest() override {
    client_.reset();
    if (gateway_) test::run(io_, gateway_->drain());
    gateway_.reset();
    if (server_) test::run(io_, server_->drain(0ms));
    if (!folder_.empty()) std::filesystem::remove_all(folder_);
  }

  // In front of a fake engine on TCP.
  void start() {
    if (!server_) server_ = engine_.serve();
    options_.engine = net::TcpEndpoint{"127.0.0.1", server_->port()};
    start_gateway();
  }
  // With a supervised worker process.
  void start_worker(const std::string& mode) {
    char path[] = "/tmp/hearth-test-XXXXXX";
    folder_ = mkdtemp(path);
    options_.worker.command = {HEARTH_FAKE_WORKER, mode, folder_ + "/starts"};
    options_.worker.backoff.first = 5ms;
    start_gateway();
  }
  void start_gateway() {
    options_.drain_grace = 5s;
    auto gateway = Gateway::start(io_, options_, events_);
    ASSERT_TRUE(gateway.ok()) << gateway.error().message;
    gateway_ = std::move(*gateway);
    client_ = net::Client::make(io_, net::TcpEndpoint{"127.0.0.1", gateway_->port()});
  }

  net::Task<Result<Answer>> exchange(net::HttpRequest request) {
    auto response = co_await client_->send(std::move(request), 20s);
    if (!response.ok()) co_return std::move(response).error();
    auto body = co_await (*response)->read_all(1 << 24, 20s);
    if (!body.ok()) co_return std::move(body).error();
    co_return Answer{(*response)->status, (*response)->headers, std::move(*body)};
  }
  Answer send(const std::string& method, const std::string& target, const std::string& body = {},
              std::initializer_list<std::pair<std::string, std::string>> headers = {}) {
    net::HttpRequest request{.method = method, .target = target, .body = body};
    for (const auto& [field, value] : headers) request.headers.add(field, value);
    auto answer = test::run(io_, exchange(std::move(request)));
    if (!answer.ok()) {
      ADD_FAILURE() << answer.error().message;
      return {};
    }
    return std::move(*answer);
  }
  Answer chat(const std::string& body = chat_body) { return send("POST", "/v1/chat/completions", body); }
  double metric(const std::string& sample) {
    const auto text = send("GET", "/metrics").body;
    const auto at = text.find("\n" + sample + " ");
    return at == std::string::npos ? -1 : std::stod(text.substr(at + sample.size() + 2));
  }

  net::asio::io_context io_{1};
  FakeEngine engine_{io_};
  GatewayOptions options_;
  GatewayEvents events_;
  std::unique_ptr<net::Server> server_;
  std::unique_ptr<Gateway> gateway_;
  std::unique_ptr<net::Client> client_;
  std::string folder_;
};

TEST_F(GatewayTest, AnswersAChatAndExplainsItself) {
  start();
  const auto answer = chat();
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.at("/choices/0/message/content"), "Hello");
  EXPECT_EQ(answer.at("/choices/0/finish_reason"), "stop");
  EXPECT_EQ(answer.at("/usage/prompt_tokens"), "7");
  EXPECT_EQ(answer.at("/model"), "fake");
  EXPECT_EQ(answer.header("x-hearth-model"), "fake");
  EXPECT_EQ(answer.header("x-hearth-lane"), "local");
  EXPECT_EQ(answer.header("x-hearth-upstream"), "worker");
  EXPECT_EQ(answer.header("x-hearth-queue"), "interactive");
  EXPECT_TRUE(answer.header("x-request-id").starts_with("req_"));
}

TEST_F(GatewayTest, StreamsFramesToTheEnd) {
  start();
  const auto answer = chat(stream_body);
  EXPECT_EQ(answer.status, 200);
  EXPECT_THAT(answer.header("content-type"), HasSubstr("text/event-stream"));
  EXPECT_THAT(answer.body, HasSubstr("\"content\":\"Hel\""));
  EXPECT_THAT(answer.body, HasSubstr("\"content\":\"lo\""));
  EXPECT_TRUE(answer.body.ends_with("data: [DONE]\n\n")) << answer.body;
}

TEST_F(GatewayTest, ASaneRequestIdIsKeptAndJoinsTheUpstream) {
  start();
  EXPECT_EQ(send("POST", "/v1/chat/completions", chat_body, {{"x-request-id", "job-17"}}).header("x-request-id"), "job-17");
  EXPECT_EQ(engine_.seen.back().headers.find("x-request-id"), "job-17");
  EXPECT_TRUE(send("GET", "/health", {}, {{"x-request-id", "no spaces please"}}).header("x-request-id").starts_with("req_"));
}

TEST_F(GatewayTest, AnUnknownModelIsANotFoundThatListsWhatThereIs) {
  start();
  const auto answer = chat(R"({"model":"gpt-99","messages":[{"role":"user","content":"hi"}]})");
  EXPECT_EQ(answer.status, 404);
  EXPECT_EQ(answer.at("/error/code"), "model_not_found");
  EXPECT_THAT(answer.at("/error/message"), HasSubstr("fake"));
  EXPECT_TRUE(engine_.seen.empty());
}

TEST_F(GatewayTest, AliasesAndNoNameMeanTheServedModel) {
  options_.model_aliases = {"gpt-4o"};
  start();
  EXPECT_EQ(chat(R"({"model":"gpt-4o","messages":[{"role":"user","content":"hi"}]})").at("/model"), "fake");
  EXPECT_EQ(chat(R"({"model":"","messages":[{"role":"user","content":"hi"}]})").status, 200);
  EXPECT_EQ(chat(R"({"model":"fake","messages":[{"role":"user","content":"hi"}]})").status, 200);
}

TEST_F(GatewayTest, KeysAreCheckedAndNameTheTenant) {
  options_.api_keys = {{"alice", "0123456789abcdef0123"}};
  start();
  const auto refused = chat();
  EXPECT_EQ(refused.status, 401);
  EXPECT_EQ(refused.at("/error/code"), "unauthorized");
  EXPECT_EQ(send("GET", "/metrics").status, 401);
  EXPECT_EQ(send("GET", "/v1/models").status, 401);
  EXPECT_EQ(send("GET", "/health").status, 200) << "liveness needs no key";
  EXPECT_TRUE(engine_.seen.empty());

  const auto served =
      send("POST", "/v1/chat/completions", chat_body, {{"Authorization", "Bearer 0123456789abcdef0123"}, {"x-hearth-tenant", "root"}});
  EXPECT_EQ(served.status, 200);
  EXPECT_EQ(engine_.seen.back().headers.find("x-hearth-tenant"), "alice") << "the client's own word does not count";
  EXPECT_FALSE(engine_.seen.back().headers.find("authorization").has_value()) << "the key stays here";
}

TEST_F(GatewayTest, RefusesAForeignHostOnLoopback) {
  start();
  const auto ask = [&](const std::string& host) {
    return test::run(io_,
                     test::raw_http(io_, gateway_->port(), "GET /v1/models HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\n\r\n"));
  };
  EXPECT_THAT(ask("evil.example"), HasSubstr("HTTP/1.1 403"));
  EXPECT_THAT(ask("localhost:1234"), HasSubstr("HTTP/1.1 200"));
  EXPECT_THAT(ask("[::1]"), HasSubstr("HTTP/1.1 200"));
}

TEST_F(GatewayTest, CorsIsOffUnlessConfigured) {
  options_.cors_origins = {"https://chat.example"};
  start();
  const auto preflight = send("OPTIONS", "/v1/chat/completions", {},
                              {{"Origin", "https://chat.example"}, {"Access-Control-Request-Headers", "authorization"}});
  EXPECT_EQ(preflight.status, 204);
  EXPECT_EQ(preflight.header("access-control-allow-origin"), "https://chat.example");
  EXPECT_EQ(preflight.header("access-control-allow-headers"), "authorization");
  const auto answer = send("POST", "/v1/chat/completions", chat_body, {{"Origin", "https://chat.example"}});
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.header("access-control-allow-origin"), "https://chat.example");
  EXPECT_EQ(chat().header("access-control-allow-origin"), "");
  EXPECT_EQ(send("POST", "/v1/chat/completions", chat_body, {{"Origin", "https://evil.example"}}).status, 403);
}

TEST_F(GatewayTest, UnknownPathsAreJsonNotFounds) {
  start();
  const auto answer = send("GET", "/v2/nothing");
  EXPECT_EQ(answer.status, 404);
  EXPECT_EQ(answer.at("/error/code"), "not_found");
  const auto root = send("GET", "/");
  EXPECT_EQ(root.status, 200);
  EXPECT_EQ(root.at("/name"), "hearth");
}

TEST_F(GatewayTest, UpstreamErrorsKeepTheirStatusAndWait) {
  engine_.frames.clear();
  engine_.status = 429;
  engine_.body = R"({"error":{"message":"the queue is full","type":"rate_limit_error","code":"overloaded"}})";
  engine_.retry_after = "7";
  start();
  const auto answer = chat();
  EXPECT_EQ(answer.status, 429);
  EXPECT_EQ(answer.at("/error/code"), "overloaded");
  EXPECT_EQ(answer.header("retry-after"), "7");
}

TEST_F(GatewayTest, AnEngineThatIsCutInMidStreamIsToldAsAnErrorEvent) {
  engine_.frames = {FakeEngine::chunk("{\"content\":\"Hel\"}")};
  engine_.end = FakeEngine::End::cut;
  start();
  const auto answer = chat(stream_body);
  EXPECT_EQ(answer.status, 200);
  EXPECT_THAT(answer.body, HasSubstr("\"error\""));
  EXPECT_THAT(answer.body, HasSubstr("upstream_failed"));
  EXPECT_THAT(answer.body, HasSubstr("stopped while answering"));
  EXPECT_EQ(metric("hearth_stream_failures_total{code=\"upstream_failed\"}"), 1);
  EXPECT_EQ(chat(chat_body).status, 502) << "without a stream it has its status";
}

TEST_F(GatewayTest, ASilentEngineTimesOut) {
  engine_.frames = {": waiting\n\n"};
  engine_.end = FakeEngine::End::silence;
  options_.upstream.first_event = 50ms;
  start();
  const auto answer = chat();
  EXPECT_EQ(answer.status, 504);
  EXPECT_EQ(answer.at("/error/code"), "upstream_timeout");
}

TEST_F(GatewayTest, AClientThatLeavesCancelsTheGeneration) {
  engine_.frames = {FakeEngine::chunk("{\"content\":\"Hel\"}")};
  engine_.end = FakeEngine::End::silence;
  start();
  net::HttpRequest request{.method = "POST", .target = "/v1/chat/completions", .body = stream_body};
  auto response = test::run(io_, client_->send(request, 5s));
  ASSERT_TRUE(response.ok());
  ASSERT_TRUE(test::run(io_, (*response)->read_some(5s)).ok());
  EXPECT_EQ(engine_.open, 1);
  response->reset();
  EXPECT_TRUE(test::wait_for(io_, [&] { return engine_.left == 1 && engine_.open == 0; }));
  EXPECT_TRUE(test::wait_for(io_, [&] { return server_->connections() <= 1; }));
  EXPECT_EQ(metric("hearth_requests_total{path=\"/v1/chat/completions\",status=\"499\"}"), 1);
}

TEST_F(GatewayTest, MetricsCountWhatHappened) {
  start();
  (void)chat();
  (void)chat(stream_body);
  EXPECT_EQ(metric("hearth_requests_total{path=\"/v1/chat/completions\",status=\"200\"}"), 2);
  EXPECT_EQ(metric("hearth_tokens_total{kind=\"prompt\"}"), 14);
  EXPECT_EQ(metric("hearth_tokens_total{kind=\"completion\"}"), 4);
  EXPECT_EQ(metric("hearth_time_to_first_token_seconds_count"), 2);
  EXPECT_GE(metric("hearth_open_connections"), 1);
}

TEST_F(GatewayTest, HealthFollowsTheWorker) {
  start_worker("slow");
  const auto starting = send("GET", "/health");
  EXPECT_EQ(starting.status, 503);
  EXPECT_EQ(starting.at("/status"), "starting");
  EXPECT_EQ(chat().status, 200) << "a request waits for the worker";
  const auto ready = send("GET", "/health");
  EXPECT_EQ(ready.status, 200);
  EXPECT_EQ(ready.at("/status"), "ready");
  EXPECT_EQ(ready.at("/model"), "fake");
  EXPECT_EQ(metric("hearth_engine_ready"), 1);
}

TEST_F(GatewayTest, ABadModelAnswersWithTheReason) {
  std::vector<std::string> told;
  events_.model_failed = [&](const Error& error) { told.push_back(error.message); };
  start_worker("bad_model");
  const auto answer = chat();
  EXPECT_EQ(answer.status, 500);
  EXPECT_EQ(answer.at("/error/code"), "model_invalid");
  EXPECT_EQ(answer.at("/error/message"), "not a GGUF file");
  const auto health = send("GET", "/health");
  EXPECT_EQ(health.status, 503);
  EXPECT_EQ(health.at("/status"), "failed");
  EXPECT_EQ(health.at("/reason"), "not a GGUF file");
  EXPECT_EQ(told, std::vector<std::string>{"not a GGUF file"});
  EXPECT_EQ(send("GET", "/v1/models").status, 500);
}

TEST_F(GatewayTest, ANewWorkerServesTheRequestAfterACrash) {
  int ready = 0;
  events_.model_ready = [&](const chat::ModelInfo& model) {
    EXPECT_EQ(model.id, "fake");
    ++ready;
  };
  start_worker("crash_on_first_request");
  EXPECT_EQ(chat().status, 200) << "nothing of the answer had been seen, so the next worker gives it";
  EXPECT_EQ(metric("hearth_worker_restarts_total"), 1);
  EXPECT_TRUE(test::wait_for(io_, [&] { return ready == 2; }));
}

TEST_F(GatewayTest, DrainLetsARunningAnswerFinish) {
  engine_.frames = {FakeEngine::chunk("{\"content\":\"Hel\"}")};
  engine_.end = FakeEngine::End::silence;
  start();
  net::HttpRequest request{.method = "POST", .target = "/v1/chat/completions", .body = stream_body};
  auto response = test::run(io_, client_->send(request, 5s));
  ASSERT_TRUE(response.ok());
  bool drained = false;
  boost::asio::co_spawn(io_, gateway_->drain(), [&](std::exception_ptr) { drained = true; });
  test::run(io_, test::pause(io_, 5ms));
  EXPECT_FALSE(drained);
  engine_.end = FakeEngine::End::finish;
  engine_.released.notify();
  const auto body = test::run(io_, (*response)->read_all(1 << 20, 5s));
  EXPECT_TRUE(body.ok());
  EXPECT_TRUE(test::wait_for(io_, [&] { return drained; }));
}

TEST_F(GatewayTest, APortInUseIsAnErrorThatSaysSo) {
  start();
  GatewayOptions second = options_;
  second.listen.port = gateway_->port();
  const auto refused = Gateway::start(io_, second);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::io);
  EXPECT_THAT(refused.error().message, HasSubstr(std::to_string(gateway_->port())));
}

}  // namespace
}  // namespace hearth::gateway
