#include <boost/asio/detached.hpp>

#include "wire/endpoint_harness.h"

namespace hearth::wire::anthropic {
namespace {

class AnthropicEndpoint : public EndpointTest {
 protected:
  AnthropicEndpoint() { ask("POST", "/v1/messages?beta=true", R"({"max_tokens":9,"messages":[{"role":"user","content":"hi"}]})"); }
  void stream() { exchange.request_.body = R"({"model":"m", "max_tokens":9,"stream":true,"messages":[{"role":"user","content":"hi"}]})"; }
};

TEST_F(AnthropicEndpoint, AnswersWhole) {
  provider.batches = {{chat::Started{3, 1}}, text("a"), text("b"), end()};
  EXPECT_TRUE(run());
  EXPECT_EQ(exchange.status, 200);
  EXPECT_EQ(exchange.header("content-type"), "application/json");
  EXPECT_EQ(exchange.header("request-id"), "req-1");
  EXPECT_EQ(exchange.header("x-hearth-model"), "nano");
  const auto answer = exchange.document();
  EXPECT_TRUE(answer.at("id").as_string().starts_with("msg_"));
  EXPECT_EQ(answer.at("model"), "nano");
  EXPECT_EQ(answer.at("content").at(0).at("text"), "ab");
  EXPECT_EQ(answer.at("usage").at("output_tokens"), 2);
  EXPECT_EQ(provider.seen.tenant, "ann");
  EXPECT_TRUE(provider.seen.start_usage);
}

TEST_F(AnthropicEndpoint, Streams) {
  stream();
  provider.batches = {{chat::Started{3, 1}}, text("a"), end()};
  EXPECT_TRUE(run());
  EXPECT_EQ(exchange.status, 200);
  EXPECT_EQ(exchange.header("content-type"), "text/event-stream");
  ASSERT_EQ(exchange.writes.size(), 3U);
  EXPECT_TRUE(exchange.writes[0].starts_with("event: message_start\n"));
  EXPECT_NE(exchange.writes[0].find(R"("input_tokens":2,"cache_creation_input_tokens":0,"cache_read_input_tokens":1)"), std::string::npos);
  EXPECT_TRUE(exchange.body.ends_with("event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"));
}

TEST_F(AnthropicEndpoint, PingsWhileThePromptIsComputed) {
  stream();
  options.keep_alive = std::chrono::milliseconds(5);
  provider.batches = {{}, text("a"), end()};
  EXPECT_TRUE(run());
  EXPECT_TRUE(exchange.body.starts_with("event: ping\ndata: {\"type\":\"ping\"}\n\n")) << exchange.body;
  EXPECT_EQ(exchange.body.find("message_start\n"), exchange.body.rfind("message_start\n")) << "a second one throws";
}

TEST_F(AnthropicEndpoint, SaysWhatItLeftOut) {
  exchange.request_.body =
      R"({"max_tokens":9,"messages":[{"role":"user","content":"hi"}],"tools":[{"type":"web_search_20250305","name":"web_search"}]})";
  provider.batches = {text("a"), end()};
  EXPECT_TRUE(run());
  EXPECT_EQ(exchange.status, 200);
  EXPECT_EQ(exchange.header("x-hearth-server-tools"), "web_search: only Anthropic's own servers run them");
}

TEST_F(AnthropicEndpoint, TheRequestAsItCameGoesAlong) {
  for (const bool streamed : {true, false}) {
    io.restart();
    exchange.request_.headers = {};
    exchange.request_.headers.add("Anthropic-Beta", "a,b");
    exchange.request_.headers.add("anthropic-version", "2023-06-01");
    exchange.request_.headers.add("x-api-key", "secret");
    if (streamed) stream();
    provider.refusal = Error{ErrorCode::overloaded, "full", "", std::chrono::milliseconds(1500)};
    EXPECT_TRUE(run());
    ASSERT_NE(provider.origin, nullptr);
    EXPECT_EQ(provider.origin->protocol, Protocol::anthropic);
    EXPECT_EQ(provider.origin->body, exchange.request_.body);
    const std::vector<std::pair<std::string, std::string>> expected{{"anthropic-beta", "a,b"}, {"anthropic-version", "2023-06-01"}};
    EXPECT_EQ(provider.origin->headers, expected);
    EXPECT_EQ(exchange.status, 429);
    EXPECT_EQ(exchange.header("retry-after"), "2");
    EXPECT_EQ(exchange.error("type"), "rate_limit_error");
    EXPECT_EQ(exchange.document().at("request_id"), "req-1");
  }
}

TEST_F(AnthropicEndpoint, BytesOfTheSameProtocolPass) {
  stream();
  provider.raw_as = Protocol::anthropic;
  provider.batches = {text("a"), end()};
  provider.raws = {"event: x\ndata: {\"odd\" : 1}\n\n", "event: y\ndata: {}\n\n"};
  EXPECT_TRUE(run());
  EXPECT_EQ(exchange.body, "event: x\ndata: {\"odd\" : 1}\n\nevent: y\ndata: {}\n\n");
}

TEST_F(AnthropicEndpoint, BadRequestsNeverReachTheProvider) {
  exchange.request_.body = R"({"messages":[{"role":"user","content":"hi"}]})";
  provider.before_open = [] { FAIL(); };
  EXPECT_TRUE(run());
  EXPECT_EQ(exchange.status, 400);
  EXPECT_EQ(exchange.error("type"), "invalid_request_error");
  EXPECT_TRUE(exchange.error("message").starts_with("max_tokens is missing"));
}

TEST_F(AnthropicEndpoint, AFailureInMidStreamIsAnErrorEvent) {
  stream();
  provider.batches = {text("a"), failed(ErrorCode::unavailable)};
  EXPECT_TRUE(run());
  EXPECT_TRUE(
      exchange.body.ends_with("event: error\ndata: "
                              R"({"type":"error","error":{"type":"overloaded_error","message":"broken"},"request_id":"req-1"})"
                              "\n\n"))
      << exchange.body;
}

TEST_F(AnthropicEndpoint, CountsTokens) {
  ask("POST", "/v1/messages/count_tokens", R"({"messages":[{"role":"user","content":"hi"}]})");
  EXPECT_TRUE(run());
  EXPECT_EQ(exchange.body, R"({"input_tokens":12})");
  EXPECT_EQ(provider.seen.tenant, "ann");
}

TEST_F(AnthropicEndpoint, ModelsHaveTheShapeThatTheHeaderAsksFor) {
  ask("GET", "/v1/models?limit=1");
  exchange.request_.headers.add("anthropic-version", "2023-06-01");
  EXPECT_TRUE(run());
  EXPECT_EQ(exchange.document().at("first_id"), "nano");
  EXPECT_EQ(exchange.document().at("has_more"), true);
  io.restart();
  ask("GET", "/v1/models/org%2Fbig%20model");
  EXPECT_TRUE(run());
  EXPECT_EQ(exchange.document().at("type"), "model");
  EXPECT_EQ(exchange.document().at("id"), "org/big model");
  io.restart();
  ask("GET", "/v1/models/other");
  EXPECT_TRUE(run());
  EXPECT_EQ(exchange.status, 404);
  EXPECT_EQ(exchange.error("type"), "not_found_error");
  EXPECT_NE(exchange.error("message").find("nano, org/big model"), std::string::npos);
  io.restart();
  ask("GET", "/v1/models?limit=x");
  EXPECT_TRUE(run());
  EXPECT_EQ(exchange.status, 400);
  io.restart();
  ask("GET", "/v1/models");
  exchange.request_.headers = {};
  EXPECT_TRUE(run());
  EXPECT_EQ(exchange.document().at("object"), "list") << "without the header the other shape";
}

TEST_F(AnthropicEndpoint, TheWrongMethodIsToldTheRightOne) {
  ask("GET", "/v1/messages");
  EXPECT_TRUE(run());
  EXPECT_EQ(exchange.status, 405);
  EXPECT_EQ(exchange.header("allow"), "POST");
  EXPECT_EQ(exchange.error("type"), "invalid_request_error");
}

TEST_F(AnthropicEndpoint, OtherPathsAreLeftAloneButTheirErrorsHaveItsShape) {
  for (const char* path : {"/v1/messages/batches", "/v1/messagesx", "/v1/message"}) {
    io.restart();
    ask("POST", path, "{}");
    EXPECT_FALSE(run()) << path;
  }
  const auto shape = [&](const char* path) {
    io.restart();
    ask("POST", path, "{}");
    const Error error{ErrorCode::not_found, "no such path", "", {}};
    const Caller caller{"ann", "req-1", nullptr, nullptr};
    asio::co_spawn(io, respond_error(exchange, error, caller), asio::detached);
    io.run();
    return exchange.document().contains("request_id");
  };
  EXPECT_TRUE(shape("/v1/messages/batches"));
  EXPECT_FALSE(shape("/v1/other"));
  exchange.request_.headers.add("anthropic-version", "2023-06-01");
  EXPECT_TRUE(shape("/v1/other"));
}

}  // namespace
}  // namespace hearth::wire::anthropic
