#include <gmock/gmock.h>

#include "gateway/gateway_fixture.h"

namespace hearth::gateway {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST_F(GatewayTest, AnswersAChatAndExplainsItself) {
  start();
  const auto answer = chat();
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.at("/choices/0/message/content"), "Hello");
  EXPECT_EQ(answer.at("/choices/0/finish_reason"), "stop");
  EXPECT_EQ(answer.at("/usage/prompt_tokens"), "7");
  EXPECT_EQ(answer.at("/model"), "fake");
  EXPECT_EQ(answer.header("x-hearth-model"), "fake");
  EXPECT_EQ(answer.header("x-hearth-lane"), "remote");
  EXPECT_EQ(answer.header("x-hearth-upstream"), "engine");
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
  spec_.aliases = {"gpt-4o"};
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
  spec_.upstream.first_event = 50ms;
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
  EXPECT_EQ(ready.at("/models/fake"), "ready");
  EXPECT_EQ(metric("hearth_engine_ready{model=\"fake\"}"), 1);
}

TEST_F(GatewayTest, ABadModelAnswersWithTheReason) {
  std::vector<std::string> told;
  events_.model = [&](const fleet::ModelEvent& event) {
    if (event.state == chat::ModelState::failed) told.push_back(event.reason);
  };
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
  EXPECT_EQ(send("GET", "/v1/models").status, 200) << "it is configured, and may be repaired";
}

TEST_F(GatewayTest, ANewWorkerServesTheRequestAfterACrash) {
  int ready = 0;
  events_.model = [&](const fleet::ModelEvent& event) {
    EXPECT_EQ(event.model, "fake");
    if (event.state == chat::ModelState::ready) ++ready;
  };
  start_worker("crash_on_first_request");
  EXPECT_EQ(chat().status, 200) << "nothing of the answer had been seen, so the next worker gives it";
  EXPECT_EQ(metric("hearth_worker_restarts_total{model=\"fake\"}"), 1);
  EXPECT_TRUE(test::wait_for(io_, [&] { return ready == 2; }));
}

TEST_F(GatewayTest, SeveralModelsAreReadyBeforeTheyAreLoaded) {
  add_worker("one", "normal");
  add_worker("two", "bad_model");
  start_gateway();
  auto health = send("GET", "/health");
  EXPECT_EQ(health.status, 200);
  EXPECT_EQ(health.at("/status"), "ready");
  EXPECT_EQ(health.at("/models/one"), "absent");
  EXPECT_EQ(chat(R"({"model":"two","messages":[{"role":"user","content":"hi"}]})").status, 500);
  health = send("GET", "/health");
  EXPECT_EQ(health.status, 200) << "the other one serves";
  EXPECT_EQ(health.at("/models/two"), "failed");
  const auto answer = chat(R"({"model":"one","messages":[{"role":"user","content":"hi"}]})");
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.header("x-hearth-lane"), "local");
  EXPECT_THAT(answer.header("x-hearth-load"), HasSubstr("waited"));
  EXPECT_EQ(metric("hearth_model_loads_total{model=\"one\",outcome=\"loaded\"}"), 1);
  EXPECT_EQ(metric("hearth_model_loads_total{model=\"two\",outcome=\"failed\"}"), 1);
}

TEST_F(GatewayTest, NoModelThatCanBeLoadedIsNoHealth) {
  add_worker("one", "bad_model");
  add_worker("two", "bad_model");
  start_gateway();
  for (const char* body : {R"({"model":"one","messages":[{"role":"user","content":"hi"}]})",
                           R"({"model":"two","messages":[{"role":"user","content":"hi"}]})"}) {
    EXPECT_EQ(chat(body).status, 500);
  }
  const auto health = send("GET", "/health");
  EXPECT_EQ(health.status, 503);
  EXPECT_EQ(health.at("/status"), "failed");
}

// What the upstream writes reaches the client of the same protocol as it was.
TEST_F(GatewayTest, FramesOfTheSameProtocolPassUntouched) {
  const auto frame = [](const std::string& event, const std::string& rest) {
    return "event: " + event + "\ndata: {\"type\":\"" + event + "\"" + rest + "}\n\n";
  };
  engine_.frames = {
      frame(
          "message_start",
          R"(,"vendor":{"kept": 1.50},"message":{"id":"m","type":"message","role":"assistant","model":"fake","content":[],"stop_reason":null,)"
          R"("stop_sequence":null,"usage":{"input_tokens":7,"output_tokens":1}})"),
      frame("content_block_start", R"(,"index":0,"content_block":{"type":"text","text":""})"),
      frame("content_block_delta", R"(,"index":0,"delta":{"type":"text_delta","text":"Hi"})"),
      frame("content_block_stop", R"(,"index":0)"),
      frame("message_delta", R"(,"delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":2})"),
      frame("message_stop", "")};
  spec_.kind = fleet::ModelKind::anthropic;
  spec_.upstream.api_key = "k";
  start();
  const auto answer =
      send("POST", "/v1/messages", R"({"model":"fake","max_tokens":9,"stream":true,"messages":[{"role":"user","content":"hi"}]})",
           {{"anthropic-version", "2023-06-01"}});
  std::string sent;
  for (const auto& one : engine_.frames) sent += one;
  EXPECT_EQ(answer.body, sent);
  EXPECT_EQ(metric("hearth_tokens_total{kind=\"prompt\"}"), 7) << "what passes is still counted";
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
