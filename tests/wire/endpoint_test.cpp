// The endpoint between a fake connection and a fake provider, on one loop.
#include <gtest/gtest.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <deque>

#include "base/json.h"
#include "wire/openai_endpoint.h"

namespace hearth::wire::openai {
namespace {

namespace asio = net::asio;
using net::Task;

class FakeExchange final : public net::Exchange {
 public:
  const net::HttpRequest& request() const override { return request_; }
  Task<Result<void>> respond(int status_code, net::Headers head, std::string text) override {
    if (gone) co_return Error{ErrorCode::client_gone, "gone", "", {}};
    status = status_code;
    headers = std::move(head);
    body = std::move(text);
    finished = true;
    co_return Result<void>();
  }
  Task<Result<void>> begin(int status_code, net::Headers head) override {
    EXPECT_FALSE(begun_);
    if (gone) co_return Error{ErrorCode::client_gone, "gone", "", {}};
    begun_ = true;
    status = status_code;
    headers = std::move(head);
    co_return Result<void>();
  }
  Task<Result<void>> write(std::string_view data) override {
    EXPECT_TRUE(begun_);
    EXPECT_FALSE(writing_) << "two writes at once";
    writing_ = true;
    co_await asio::post(co_await asio::this_coro::executor, asio::use_awaitable);
    writing_ = false;
    if (gone) co_return Error{ErrorCode::client_gone, "gone", "", {}};
    writes.emplace_back(data);
    body += data;
    if (after_write) after_write();
    co_return Result<void>();
  }
  Task<Result<void>> finish(std::string_view last) override {
    auto written = Result<void>();
    if (!last.empty()) written = co_await write(last);
    finished = written.ok();
    co_return written;
  }
  void abort() override { aborted = true; }
  bool begun() const override { return begun_; }
  void on_client_gone(std::function<void()> callback) override { callback_ = std::move(callback); }

  void leave() {
    gone = true;
    if (const auto callback = std::exchange(callback_, nullptr)) callback();
  }
  bool watched() const { return callback_ != nullptr; }
  std::string header(std::string_view name) const { return std::string(headers.find(name).value_or("(none)")); }
  json::object document() const {
    const auto parsed = parse_json(body);
    return parsed ? parsed->as_object() : json::object{};
  }
  std::string error(std::string_view field) const {
    const auto answer = document();
    const auto* value = answer.contains("error") ? answer.at("error").as_object().if_contains(field) : nullptr;
    return value != nullptr && value->is_string() ? std::string(value->get_string()) : "(none)";
  }

  net::HttpRequest request_{"POST", "/v1/chat/completions", {}, R"({"messages":[{"role":"user","content":"hi"}]})", "test"};
  int status = 0;
  net::Headers headers;
  std::string body;
  std::vector<std::string> writes;
  std::function<void()> after_write;
  bool finished = false, aborted = false, gone = false;

 private:
  std::function<void()> callback_;
  bool begun_ = false, writing_ = false;
};

// Yields prepared batches; then ends, or stays silent until cancelled.
class FakeStream final : public EventStream {
 public:
  FakeStream(asio::io_context& io, std::deque<chat::Events> batches, bool silent_end, int* cancelled, int* destroyed)
      : wake_(io), batches_(std::move(batches)), silent_end_(silent_end), cancelled_(cancelled), destroyed_(destroyed) {
    explanation_.add("model", "nano");
    explanation_.add("Cache_Hit", "n\xC3\xB6\r\n");
  }
  ~FakeStream() override { ++*destroyed_; }
  Task<chat::Events> next() override {
    if (stopped_) co_return chat::Events{};
    if (!batches_.empty()) {
      chat::Events batch = std::move(batches_.front());
      batches_.pop_front();
      if (!batch.empty()) co_return batch;
      // An empty batch is a pause that outlasts the keep-alive.
      wake_.expires_after(std::chrono::milliseconds(30));
      boost::system::error_code ignored;
      co_await wake_.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
      chat::Events after = co_await next();
      co_return after;
    }
    if (!silent_end_) co_return chat::Events{};
    wake_.expires_at(std::chrono::steady_clock::time_point::max());
    boost::system::error_code ignored;
    co_await wake_.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
    co_return chat::Events{};
  }
  void cancel() override {
    stopped_ = true;
    ++*cancelled_;
    wake_.cancel();
  }
  const chat::Explanation& explanation() const override { return explanation_; }

 private:
  asio::steady_timer wake_;
  std::deque<chat::Events> batches_;
  bool silent_end_;
  int* cancelled_;
  int* destroyed_;
  bool stopped_ = false;
  chat::Explanation explanation_;
};

class FakeProvider final : public Provider {
 public:
  explicit FakeProvider(asio::io_context& io) : io_(io) {}
  Task<Result<std::unique_ptr<EventStream>>> generate(chat::Request request, Caller) override {
    seen = std::move(request);
    if (before_open) before_open();
    if (refusal) co_return *refusal;
    co_return std::unique_ptr<EventStream>(std::make_unique<FakeStream>(io_, std::move(batches), silent_end, &cancelled, &destroyed));
  }
  Task<Result<chat::Embeddings>> embed(chat::EmbeddingRequest request, Caller) override {
    if (refusal) co_return *refusal;
    EXPECT_EQ(request.tenant, "ann");
    co_return chat::Embeddings{{{1, 2}}, 3};
  }
  Task<Result<chat::RerankResult>> rerank(chat::RerankRequest request, Caller) override {
    EXPECT_EQ(request.tenant, "ann");
    co_return chat::RerankResult{{{1, 0.5F}, {0, 0.25F}}, 3};
  }
  Task<Result<int>> count_tokens(chat::Request request, Caller) override {
    seen = std::move(request);
    co_return 12;
  }
  Task<Result<std::vector<chat::TokenInfo>>> score(chat::Request request, Caller) override {
    seen = std::move(request);
    co_return std::vector<chat::TokenInfo>(1);
  }
  Task<Result<std::vector<chat::ModelInfo>>> models() override {
    std::vector<chat::ModelInfo> out(2);
    out[0].id = "nano";
    out[1].id = "org/big model";
    co_return out;
  }

  chat::Request seen;
  std::optional<Error> refusal;
  std::deque<chat::Events> batches;
  std::function<void()> before_open;
  bool silent_end = false;
  int cancelled = 0, destroyed = 0;

 private:
  asio::io_context& io_;
};

class Endpoint : public ::testing::Test {
 protected:
  bool run() {
    bool served = false;
    std::exception_ptr thrown;
    asio::co_spawn(io, serve(exchange, provider, {"ann", "req-1"}, options), [&](std::exception_ptr e, bool result) {
      thrown = e;
      served = result;
    });
    io.run();
    if (thrown) std::rethrow_exception(thrown);
    EXPECT_FALSE(exchange.watched()) << "the exchange still holds a callback into a finished handler";
    return served;
  }
  void ask(std::string method, std::string target, std::string body = "") {
    exchange.request_.method = std::move(method);
    exchange.request_.target = std::move(target);
    exchange.request_.body = std::move(body);
  }
  void streamed() {
    exchange.request_.body = R"({"stream":true,"stream_options":{"include_usage":true},"messages":[{"role":"user","content":"hi"}]})";
  }
  static chat::Events text(std::string words) { return {chat::TextDelta{0, std::move(words)}}; }
  static chat::Events end() { return {chat::Finished{0, chat::FinishReason::stop}, chat::Usage{3, 1, 2}}; }
  static chat::Events failed(ErrorCode code) { return {chat::Failed{{code, "broken", "", {}}}}; }

  asio::io_context io;
  FakeExchange exchange;
  FakeProvider provider{io};
  EndpointOptions options;
};

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

}  // namespace
}  // namespace hearth::wire::openai
