#include "fleet/upstream.h"

#include <charconv>
#include <optional>

#include "base/clock.h"
#include "net/client.h"
#include "net/sse.h"
#include "wire/openai.h"

namespace hearth::fleet {
namespace {

namespace asio = net::asio;
namespace openai = wire::openai;

constexpr std::size_t longest_error_body = 1 << 20;
constexpr std::string_view hearth_prefix = "x-hearth-";

std::string seconds(std::chrono::milliseconds duration) { return std::to_string(duration.count() / 1000) + " s"; }

std::chrono::milliseconds retry_after(const net::Headers& headers) {
  const auto field = headers.find("retry-after");
  int value = 0;
  if (!field || std::from_chars(field->data(), field->data() + field->size(), value).ec != std::errc()) return {};
  return std::chrono::seconds(value);
}

class UpstreamStream final : public wire::EventStream {
 public:
  UpstreamStream(const UpstreamOptions& options, std::unique_ptr<net::ClientResponse> response, TimePoint deadline)
      : options_(options), response_(std::move(response)), deadline_(deadline) {
    explanation_.add("upstream", options.name);
    for (const auto& [field, value] : response_->headers) {
      if (field.size() > hearth_prefix.size() && net::same_field_name(field.substr(0, hearth_prefix.size()), hearth_prefix)) {
        explanation_.add(field.substr(hearth_prefix.size()), value);
      }
    }
  }

  net::Task<chat::Events> next() override {
    chat::Events events;
    while (!ended_ && events.empty()) {
      if (decoder_.done()) {
        co_await close();
        break;
      }
      // Comment frames keep the connection awake without being progress: the deadline is one of events, not of bytes.
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline_ - Clock::system().now());
      if (left.count() <= 0) {
        fail(events, Error{ErrorCode::upstream_timeout, silence()});
        break;
      }
      const auto bytes = co_await response_->read_some(left);
      if (ended_) co_return chat::Events{};  // cancelled meanwhile
      if (!bytes.ok()) {
        const bool timed_out = bytes.error().code == ErrorCode::upstream_timeout;
        fail(events, timed_out ? Error{ErrorCode::upstream_timeout, silence()} : Error{ErrorCode::upstream_failed, stopped()});
      } else if (bytes->empty()) {
        finish_early(events);
      } else {
        decode(*bytes, events);
      }
    }
    if (!events.empty()) {
      deadline_ = Clock::system().now() + options_.next_event;
      started_ = true;
    }
    co_return events;
  }

  void cancel() override {
    ended_ = true;
    response_->cancel();
  }
  const chat::Explanation& explanation() const override { return explanation_; }

 private:
  void decode(std::string_view bytes, chat::Events& events) {
    frames_.clear();
    auto fed = sse_.feed(bytes, frames_);
    events.reserve(frames_.size() + 1);
    for (const auto& frame : frames_) {
      if (!fed.ok() || decoder_.done()) break;
      fed = decoder_.decode(frame.data, events);
    }
    if (!fed.ok()) fail(events, Error{ErrorCode::upstream_failed, options_.name + " answered nonsense: " + fed.error().message});
  }

  // The body ended properly but before [DONE].
  void finish_early(chat::Events& events) {
    ended_ = true;
    const auto finished = decoder_.finish(events);
    if (!finished.ok() || sse_.pending()) fail(events, Error{ErrorCode::upstream_failed, stopped()});
  }

  // Takes the end of the body, so that the connection can serve another request.
  net::Task<void> close() {
    ended_ = true;
    auto rest = co_await response_->read_some(std::chrono::milliseconds(1'000));
    while (rest.ok() && !rest->empty()) rest = co_await response_->read_some(std::chrono::milliseconds(1'000));
  }

  void fail(chat::Events& events, Error error) {
    ended_ = true;
    events.emplace_back(chat::Failed{std::move(error)});
    response_->cancel();
  }
  std::string stopped() const {
    return "the engine stopped while answering: what came so far is not the whole answer; send the request again";
  }
  std::string silence() const {
    return started_ ? "the engine went silent: no token for " + seconds(options_.next_event)
                    : "the engine gave no first token within " + seconds(options_.first_event);
  }

  const UpstreamOptions& options_;
  std::unique_ptr<net::ClientResponse> response_;
  TimePoint deadline_;
  chat::Explanation explanation_;
  net::SseDecoder sse_;
  openai::StreamDecoder decoder_;
  std::vector<net::SseEvent> frames_;
  bool started_ = false;
  bool ended_ = false;
};

}  // namespace

class HttpUpstream::Impl {
 public:
  Impl(asio::io_context& io, net::Endpoint endpoint, UpstreamOptions given)
      : options(std::move(given)), client(net::Client::make(io, std::move(endpoint), {.connect_timeout = options.connect_timeout})) {}

  net::HttpRequest make(std::string_view method, std::string_view target, std::string body, const wire::Caller& caller) const {
    net::HttpRequest request{.method = std::string(method), .target = std::string(target), .body = std::move(body)};
    if (!request.body.empty()) request.headers.add("Content-Type", "application/json");
    if (!caller.tenant.empty()) request.headers.add("X-Hearth-Tenant", caller.tenant);
    if (!caller.request_id.empty()) request.headers.add("X-Request-Id", caller.request_id);
    if (!options.api_key.empty()) request.headers.add("Authorization", "Bearer " + options.api_key);
    return request;
  }

  // Sends; an answer other than 200 becomes the Error it stands for.
  net::Task<Result<std::unique_ptr<net::ClientResponse>>> send(net::HttpRequest request) {
    auto response = co_await client->send(std::move(request), options.first_event);
    if (!response.ok()) co_return explain(std::move(response).error());
    if ((*response)->status == 200) co_return std::move(*response);
    const auto body = co_await (*response)->read_all(longest_error_body, options.next_event);
    if (!body.ok()) co_return explain(body.error());
    auto error = openai::decode_error((*response)->status, *body);
    if (error.retry_after.count() == 0) error.retry_after = retry_after((*response)->headers);
    co_return error;
  }

  // Sends and reads the whole answer.
  net::Task<Result<std::string>> call(net::HttpRequest request) {
    auto response = co_await send(std::move(request));
    if (!response.ok()) co_return std::move(response).error();
    auto body = co_await (*response)->read_all(options.answer_bytes, options.first_event);
    if (!body.ok()) co_return explain(std::move(body).error());
    co_return body;
  }

  Error explain(Error error) const {
    if (error.code == ErrorCode::upstream_failed) error.message = "the engine stopped before it answered; send the request again";
    if (error.code == ErrorCode::upstream_timeout) error.message = "the engine gave no answer within " + seconds(options.first_event);
    return error;
  }

  const UpstreamOptions options;
  std::unique_ptr<net::Client> client;
};

HttpUpstream::HttpUpstream(asio::io_context& io, net::Endpoint endpoint, UpstreamOptions options)
    : impl_(std::make_unique<Impl>(io, std::move(endpoint), std::move(options))) {}
HttpUpstream::~HttpUpstream() = default;

net::Task<Result<std::unique_ptr<wire::EventStream>>> HttpUpstream::generate(chat::Request request, wire::Caller caller) {
  const auto deadline = Clock::system().now() + impl_->options.first_event;
  const auto target = request.prompts.empty() ? "/v1/chat/completions" : "/v1/completions";
  auto http = impl_->make("POST", target, openai::encode_request(request), caller);
  http.headers.add("Accept", "text/event-stream");
  auto response = co_await impl_->send(std::move(http));
  if (!response.ok()) co_return std::move(response).error();
  co_return std::make_unique<UpstreamStream>(impl_->options, std::move(*response), deadline);
}

net::Task<Result<chat::Embeddings>> HttpUpstream::embed(chat::EmbeddingRequest request, wire::Caller caller) {
  auto http = impl_->make("POST", "/v1/embeddings", openai::encode_embedding_request(request), caller);
  auto body = co_await impl_->call(std::move(http));
  if (!body.ok()) co_return std::move(body).error();
  co_return openai::decode_embeddings_answer(*body);
}

net::Task<Result<chat::RerankResult>> HttpUpstream::rerank(chat::RerankRequest request, wire::Caller caller) {
  auto http = impl_->make("POST", "/v1/rerank", openai::encode_rerank_request(request), caller);
  auto body = co_await impl_->call(std::move(http));
  if (!body.ok()) co_return std::move(body).error();
  co_return openai::decode_rerank_answer(*body);
}

net::Task<Result<int>> HttpUpstream::count_tokens(chat::Request request, wire::Caller caller) {
  auto http = impl_->make("POST", "/v1/tokenize/count", openai::encode_request(request), caller);
  auto body = co_await impl_->call(std::move(http));
  if (!body.ok()) co_return std::move(body).error();
  co_return openai::decode_count_answer(*body);
}

net::Task<Result<std::vector<chat::TokenInfo>>> HttpUpstream::score(chat::Request request, wire::Caller caller) {
  auto http = impl_->make("POST", "/v1/score", openai::encode_request(request), caller);
  auto body = co_await impl_->call(std::move(http));
  if (!body.ok()) co_return std::move(body).error();
  co_return openai::decode_score_answer(*body);
}

net::Task<Result<std::vector<chat::ModelInfo>>> HttpUpstream::models() {
  auto http = impl_->make("GET", "/v1/models", {}, {});
  auto body = co_await impl_->call(std::move(http));
  if (!body.ok()) co_return std::move(body).error();
  co_return openai::decode_models_answer(*body);
}

}  // namespace hearth::fleet
