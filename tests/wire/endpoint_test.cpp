#include "wire/endpoint_harness.h"

namespace hearth::wire::openai {
namespace {

using Endpoint = EndpointTest;

TEST_F(Endpoint, AnswersWhole) {
  provider.batches = {text("a"), text("b"), end()};
  EXPECT_TRUE(run());
  EXPECT_EQ(exchange.status, 200);
  EXPECT_EQ(exchange.header("content-type"), "application/json");
  EXPECT_EQ(exchange.header("x-request-id"), "req-1");
  EXPECT_EQ(exchange.header("x-hearth-model"), "nano");
  EXPECT_EQ(exchange.header("x-hearth-cache-hit"), "n????") << "header values must be plain";
  const auto answer = exchange.document();
  EXPECT_EQ(answer.at("model").as_string(), "nano");
  EXPECT_TRUE(answer.at("id").as_string().starts_with("chatcmpl-"));
  EXPECT_GT(answer.at("created").as_int64(), 1'700'000'000);
  EXPECT_EQ(answer.at("choices").at(0).at("message").at("content").as_string(), "ab");
  EXPECT_EQ(answer.at("usage").at("total_tokens").as_int64(), 5);
  EXPECT_EQ(provider.seen.tenant, "ann");
  EXPECT_EQ(provider.destroyed, 1);
}

TEST_F(Endpoint, StreamsEachBatchInOneWrite) {
  streamed();
  provider.batches = {{chat::TextDelta{0, "a"}, chat::TextDelta{0, "b"}}, text("c"), end()};
  EXPECT_TRUE(run());
  EXPECT_EQ(exchange.status, 200);
  EXPECT_EQ(exchange.header("content-type"), "text/event-stream");
  EXPECT_EQ(exchange.header("cache-control"), "no-cache");
  EXPECT_EQ(exchange.header("x-accel-buffering"), "no");
  EXPECT_EQ(exchange.header("x-hearth-model"), "nano");
  ASSERT_EQ(exchange.writes.size(), 3U);
  EXPECT_NE(exchange.writes[0].find(R"("content":"a")"), std::string::npos);
  EXPECT_NE(exchange.writes[0].find(R"("content":"b")"), std::string::npos);
  EXPECT_NE(exchange.writes[2].find(R"("finish_reason":"stop")"), std::string::npos);
  EXPECT_NE(exchange.writes[2].find(R"("cached_tokens":1)"), std::string::npos);
  EXPECT_TRUE(exchange.writes[2].ends_with("data: [DONE]\n\n"));
  EXPECT_TRUE(exchange.finished);
}

TEST_F(Endpoint, RawCompletionsCountAChoicePerPromptAndN) {
  ask("POST", "/v1/completions", R"({"prompt":["x","y"],"n":2})");
  provider.batches = {{}};
  for (int i = 0; i < 4; ++i) provider.batches.push_back({chat::TextDelta{i, "t"}, chat::Finished{i, {}}});
  EXPECT_TRUE(run());
  EXPECT_EQ(exchange.document().at("choices").as_array().size(), 4U);
  EXPECT_TRUE(exchange.document().at("id").as_string().starts_with("cmpl-"));
}

TEST_F(Endpoint, CommentsKeepASilentStreamAwakeAndLoseNothing) {
  streamed();
  options.keep_alive = std::chrono::milliseconds(5);
  provider.batches = {{}, text("a"), {}, text("b"), {}, end()};
  EXPECT_TRUE(run());
  EXPECT_EQ(exchange.status, 200);
  EXPECT_EQ(exchange.writes[0], ":\n\n") << "the first silence comes before the first event";
  const auto a = exchange.body.find(R"("content":"a")"), b = exchange.body.find(R"("content":"b")");
  ASSERT_NE(a, std::string::npos);
  ASSERT_NE(b, std::string::npos);
  const auto comment = exchange.body.find("\n\n:\n\n", a);
  EXPECT_LT(comment, b);
  EXPECT_TRUE(exchange.body.ends_with("data: [DONE]\n\n"));
}

TEST_F(Endpoint, NoCommentInAWholeAnswer) {
  options.keep_alive = std::chrono::milliseconds(5);
  provider.batches = {{}, text("a"), end()};
  EXPECT_TRUE(run());
  EXPECT_EQ(exchange.status, 200);
  EXPECT_TRUE(exchange.writes.empty());
  EXPECT_FALSE(exchange.document().empty());
}

TEST_F(Endpoint, AClientThatLeavesCancelsTheGeneration) {
  for (const bool stream : {true, false}) {
    exchange = {};
    if (stream) streamed();
    io.restart();
    provider.cancelled = provider.destroyed = 0;
    provider.silent_end = true;
    provider.batches = {text("a")};
    asio::steady_timer later(io, std::chrono::milliseconds(10));
    later.async_wait([&](boost::system::error_code) { exchange.leave(); });
    EXPECT_TRUE(run());
    EXPECT_EQ(provider.cancelled, 1);
    EXPECT_EQ(provider.destroyed, 1);
  }
}

TEST_F(Endpoint, AClientThatLeavesBeforeTheStreamOpensIsNotServed) {
  streamed();
  provider.silent_end = true;
  provider.before_open = [&] { exchange.leave(); };
  EXPECT_TRUE(run());
  EXPECT_EQ(provider.destroyed, 1);
  EXPECT_FALSE(exchange.begun());
}

TEST_F(Endpoint, AWriteThatFailsEndsTheGeneration) {
  streamed();
  provider.batches = {text("a"), text("b"), end()};
  exchange.after_write = [&] { exchange.gone = true; };
  EXPECT_TRUE(run());
  EXPECT_EQ(exchange.writes.size(), 1U);
  EXPECT_EQ(provider.destroyed, 1);
  EXPECT_FALSE(exchange.finished);
}

TEST_F(Endpoint, ARefusalHasItsProperStatus) {
  streamed();
  provider.refusal = Error{ErrorCode::model_not_found, "there is no model \"x\"; there are: nano", "model", {}};
  EXPECT_TRUE(run());
  EXPECT_EQ(exchange.status, 404);
  EXPECT_EQ(exchange.error("code"), "model_not_found");
  EXPECT_EQ(exchange.error("param"), "model");
  EXPECT_EQ(exchange.header("x-should-retry"), "false");
  EXPECT_EQ(exchange.header("x-request-id"), "req-1");
}

TEST_F(Endpoint, AnOverloadSaysWhenToComeBack) {
  provider.refusal = Error{ErrorCode::overloaded, "full", "", std::chrono::milliseconds(1500)};
  EXPECT_TRUE(run());
  EXPECT_EQ(exchange.status, 429);
  EXPECT_EQ(exchange.header("retry-after"), "2");
  EXPECT_EQ(exchange.header("retry-after-ms"), "1500");
  EXPECT_EQ(exchange.header("x-should-retry"), "(none)");
}

TEST_F(Endpoint, AFailureBeforeTheFirstEventHasItsProperStatusEvenWhenStreamed) {
  streamed();
  provider.batches = {failed(ErrorCode::context_length_exceeded)};
  EXPECT_TRUE(run());
  EXPECT_FALSE(exchange.begun());
  EXPECT_EQ(exchange.status, 400);
  EXPECT_EQ(exchange.error("code"), "context_length_exceeded");
  EXPECT_EQ(exchange.header("x-hearth-model"), "nano");
}

TEST_F(Endpoint, AFailureInMidStreamIsAnErrorChunkAndAProperEnd) {
  streamed();
  provider.batches = {text("a"), failed(ErrorCode::upstream_failed)};
  EXPECT_TRUE(run());
  EXPECT_EQ(exchange.status, 200);
  EXPECT_NE(exchange.body.find("data: {\"error\":{\"message\":\"broken\""), std::string::npos);
  EXPECT_EQ(exchange.body.find("[DONE]"), std::string::npos);
  EXPECT_TRUE(exchange.finished);
}

TEST_F(Endpoint, AFailureInAWholeAnswerHasItsProperStatus) {
  provider.batches = {text("a"), failed(ErrorCode::upstream_failed)};
  provider.silent_end = true;  // it must not be waited for
  EXPECT_TRUE(run());
  EXPECT_EQ(exchange.status, 502);
  EXPECT_EQ(exchange.header("x-should-retry"), "(none)") << "a fresh worker may do better";
}

TEST_F(Endpoint, AnUpstreamThatEndsWithoutFinishingFails) {
  provider.batches = {text("a")};
  EXPECT_TRUE(run());
  EXPECT_EQ(exchange.status, 502);
}

TEST_F(Endpoint, AStreamThatEndsBeforeItBeganFails) {
  streamed();
  EXPECT_TRUE(run());
  EXPECT_EQ(exchange.status, 502);
  EXPECT_FALSE(exchange.begun());
}

TEST_F(Endpoint, SilenceBeforeTheFirstEventHasALimit) {
  for (const bool stream : {true, false}) {
    exchange = {};
    if (stream) streamed();
    io.restart();
    options.silence = std::chrono::milliseconds(10);
    provider.silent_end = true;
    EXPECT_TRUE(run());
    EXPECT_EQ(exchange.status, 504);
    EXPECT_EQ(exchange.error("code"), "upstream_timeout");
  }
}

TEST_F(Endpoint, SilenceAfterACommentEndsInAnErrorChunk) {
  streamed();
  options.keep_alive = std::chrono::milliseconds(5);
  options.silence = std::chrono::milliseconds(30);
  provider.silent_end = true;
  EXPECT_TRUE(run());
  EXPECT_EQ(exchange.status, 200);
  EXPECT_TRUE(exchange.body.starts_with(":\n\n"));
  EXPECT_NE(exchange.body.find(R"("code":"upstream_timeout")"), std::string::npos);
}

TEST_F(Endpoint, BadRequestsNeverReachTheProvider) {
  exchange.request_.body = R"({"messages":[]})";
  provider.before_open = [] { FAIL(); };
  EXPECT_TRUE(run());
  EXPECT_EQ(exchange.status, 400);
  EXPECT_EQ(exchange.error("param"), "messages");
  EXPECT_EQ(exchange.error("type"), "invalid_request_error");
}

TEST_F(Endpoint, TheWrongMethodIsToldTheRightOne) {
  ask("GET", "/v1/chat/completions?x=1");
  EXPECT_TRUE(run());
  EXPECT_EQ(exchange.status, 405);
  EXPECT_EQ(exchange.header("allow"), "POST");
  EXPECT_EQ(exchange.header("x-should-retry"), "false");
  io.restart();
  ask("POST", "/v1/models", "{}");
  EXPECT_TRUE(run());
  EXPECT_EQ(exchange.status, 405);
  EXPECT_EQ(exchange.header("allow"), "GET");
}

TEST_F(Endpoint, OtherPathsAreLeftAlone) {
  for (const char* path : {"/", "/v1", "/v1/chat", "/v1/models/", "/v1/chat/completions/", "/health"}) {
    io.restart();
    ask("GET", path);
    EXPECT_FALSE(run()) << path;
    EXPECT_EQ(exchange.status, 0);
  }
}

TEST_F(Endpoint, FormsAreRefusedButAMislabelledJsonIsNot) {
  exchange.request_.headers.set("Content-Type", "application/x-www-form-urlencoded");  // what curl -d says
  provider.batches = {text("a"), end()};
  EXPECT_TRUE(run());
  EXPECT_EQ(exchange.status, 200);
  for (const char* type : {"application/x-www-form-urlencoded", "Multipart/Form-Data; boundary=x"}) {
    io.restart();
    exchange.request_.headers.set("Content-Type", type);
    exchange.request_.body = "prompt=x";
    EXPECT_TRUE(run());
    EXPECT_EQ(exchange.status, 400);
    EXPECT_NE(exchange.error("message").find("application/json"), std::string::npos);
  }
}

TEST_F(Endpoint, Models) {
  ask("GET", "/v1/models");
  EXPECT_TRUE(run());
  EXPECT_EQ(exchange.document().at("data").as_array().size(), 2U);
  io.restart();
  ask("GET", "/v1/models/org%2Fbig%20model");
  EXPECT_TRUE(run());
  EXPECT_EQ(exchange.document().at("id").as_string(), "org/big model");
  io.restart();
  ask("GET", "/v1/models/none%zz");
  EXPECT_TRUE(run());
  EXPECT_EQ(exchange.status, 404);
  EXPECT_NE(exchange.error("message").find("nano, org/big model"), std::string::npos);
}

TEST_F(Endpoint, EmbeddingsRerankCountAndScore) {
  ask("POST", "/v1/embeddings", R"({"model":"m","input":"x"})");
  EXPECT_TRUE(run());
  EXPECT_EQ(exchange.document().at("data").at(0).at("embedding").as_array().size(), 2U);
  io.restart();
  ask("POST", "/v1/rerank", R"({"query":"q","documents":["a","b"],"top_n":1})");
  EXPECT_TRUE(run());
  ASSERT_EQ(exchange.document().at("results").as_array().size(), 1U);
  EXPECT_EQ(exchange.document().at("results").at(0).at("index").as_int64(), 1);
  io.restart();
  ask("POST", "/v1/tokenize/count", R"({"prompt":"x"})");
  EXPECT_TRUE(run());
  EXPECT_EQ(exchange.document().at("tokens").as_int64(), 12);
  EXPECT_EQ(provider.seen.prompts.size(), 1U);
  io.restart();
  ask("POST", "/v1/tokenize/count", R"({"messages":[{"role":"user","content":"x"}]})");
  EXPECT_TRUE(run());
  EXPECT_EQ(provider.seen.messages.size(), 1U);
  io.restart();
  ask("POST", "/v1/score", R"({"prompt":"x"})");
  EXPECT_TRUE(run());
  EXPECT_EQ(exchange.document().at("content").as_array().size(), 1U);
  io.restart();
  ask("POST", "/v1/score", R"({"prompt":["x","y"]})");
  EXPECT_TRUE(run());
  EXPECT_EQ(exchange.error("param"), "prompt");
}

TEST_F(Endpoint, AnEmbeddingRefusalHasItsStatus) {
  ask("POST", "/v1/embeddings", R"({"input":"x"})");
  provider.refusal = Error{ErrorCode::unsupported, "this model has no embeddings", "model", {}};
  EXPECT_TRUE(run());
  EXPECT_EQ(exchange.status, 400);
  EXPECT_EQ(exchange.error("code"), "unsupported");
}

TEST_F(Endpoint, FramesOfTheSameProtocolPassByteForByte) {
  streamed();
  provider.raw_as = Protocol::openai_chat;
  provider.batches = {text("a"), {chat::TextDelta{0, "b"}, chat::Finished{0, {}}, chat::Usage{3, 1, 2}}};
  provider.raws = {"data: {\"odd\" :  1}\n\n", "data: {2}\n\ndata: [DONE]\n\n"};
  EXPECT_TRUE(run());
  EXPECT_EQ(exchange.body, "data: {\"odd\" :  1}\n\ndata: {2}\n\ndata: [DONE]\n\n");
  EXPECT_TRUE(exchange.finished);
}

TEST_F(Endpoint, FramesOfAnotherProtocolAreSaidAnew) {
  streamed();
  provider.raw_as = Protocol::anthropic;
  provider.batches = {text("a"), end()};
  provider.raws = {"event: x\n\n", "event: y\n\n"};
  EXPECT_TRUE(run());
  EXPECT_EQ(exchange.body.find("event:"), std::string::npos);
  EXPECT_TRUE(exchange.body.ends_with("data: [DONE]\n\n"));
}

TEST_F(Endpoint, AFailureBehindPassedFramesIsSaid) {
  streamed();
  provider.raw_as = Protocol::openai_chat;
  provider.batches = {text("a"), failed(ErrorCode::upstream_failed)};
  provider.raws = {"data: {1}\n\n", ""};
  EXPECT_TRUE(run());
  EXPECT_TRUE(exchange.body.starts_with("data: {1}\n\ndata: {\"error\":")) << exchange.body;
}

TEST_F(Endpoint, APrefillAnswersWithItsCounts) {
  ask("POST", "/v1/prefill", R"({"messages":[{"role":"user","content":"hi"}]})");
  provider.batches = {{chat::Started{9, 4}, chat::Finished{0, chat::FinishReason::length}, chat::Usage{9, 4, 0}}};
  EXPECT_TRUE(run());
  EXPECT_EQ(exchange.body, R"({"object":"prefill","model":"nano","prompt_tokens":9,"cached_tokens":4})");
  EXPECT_TRUE(provider.seen.prefill_only);
}

}  // namespace
}  // namespace hearth::wire::openai
