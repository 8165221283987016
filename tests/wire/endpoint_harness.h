// The endpoints between a fake connection and a fake provider, on one loop. For every protocol's tests.
#pragma once

#include <gtest/gtest.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <deque>

#include "base/json.h"
#include "wire/endpoint.h"

namespace hearth::wire {

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
      if (!raws.empty()) {
        raw_.assign(1, RawFrame{std::move(raws.front()), batch.size()});
        raws.pop_front();
      }
      if (!batch.empty()) co_return batch;
      // An empty batch is a pause that outlasts the keep-alive.
      wake_.expires_after(std::chrono::milliseconds(30));
      boost::system::error_code ignored;
      co_await wake_.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
      chat::Events after = co_await next();
      co_return after;
    }
    raw_.clear();
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
  Protocol raw_protocol() const override { return raw_as; }
  std::span<const RawFrame> raw() const override { return raw_; }

  Protocol raw_as = Protocol::other;
  std::deque<std::string> raws;

 private:
  std::vector<RawFrame> raw_;
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
  explicit FakeProvider(asio::io_context& io) : io_(io) {
    infos.resize(2);
    infos[0].id = "nano";
    infos[1].id = "org/big model";
  }
  Task<Result<std::unique_ptr<EventStream>>> generate(chat::Request request, Caller caller) override {
    seen = std::move(request);
    origin = caller.origin;
    if (before_open) before_open();
    if (refusal) co_return *refusal;
    auto stream = std::make_unique<FakeStream>(io_, std::move(batches), silent_end, &cancelled, &destroyed);
    stream->raw_as = raw_as;
    stream->raws = std::move(raws);
    co_return std::unique_ptr<EventStream>(std::move(stream));
  }
  Task<Result<chat::Embeddings>> embed(chat::EmbeddingRequest request, Caller) override {
    seen_inputs = request;
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
    if (no_models) co_return *no_models;
    co_return infos;
  }
  Task<Result<void>> load(std::string model, std::optional<std::chrono::milliseconds> keep_loaded, Caller) override {
    loads.push_back("load " + model + (keep_loaded ? " " + std::to_string(keep_loaded->count()) : ""));
    if (no_loading) co_return *no_loading;
    co_return Result<void>();
  }
  Task<Result<void>> unload(std::string model, Caller) override {
    loads.push_back("unload " + model);
    if (no_loading) co_return *no_loading;
    co_return Result<void>();
  }

  std::vector<chat::ModelInfo> infos;
  std::vector<std::string> loads;
  std::optional<Error> no_models, no_loading;
  chat::EmbeddingRequest seen_inputs;
  chat::Request seen;
  std::shared_ptr<const Origin> origin;
  std::optional<Error> refusal;
  Protocol raw_as = Protocol::other;
  std::deque<std::string> raws;  // one per batch
  std::deque<chat::Events> batches;
  std::function<void()> before_open;
  bool silent_end = false;
  int cancelled = 0, destroyed = 0;

 private:
  asio::io_context& io_;
};

class EndpointTest : public ::testing::Test {
 protected:
  bool run() {
    bool served = false;
    std::exception_ptr thrown;
    asio::co_spawn(io, wire::serve(exchange, provider, {"ann", "req-1", nullptr}, options), [&](std::exception_ptr e, bool result) {
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

}  // namespace hearth::wire
