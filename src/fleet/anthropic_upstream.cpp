#include "fleet/anthropic_upstream.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <random>

#include "base/clock.h"
#include "fleet/limiter.h"
#include "fleet/loop_event.h"
#include "net/client.h"
#include "net/sse.h"
#include "wire/anthropic.h"

namespace hearth::fleet {
namespace {

namespace asio = net::asio;
namespace anthropic = wire::anthropic;
using namespace std::chrono_literals;

constexpr std::size_t longest_error_body = 1 << 20;
constexpr std::size_t longest_frame = std::size_t{64} << 20;
constexpr auto longest_pause = 5'000ms;  // before a retry; a client can wait for longer itself
constexpr std::string_view version_header = "anthropic-version", beta_header = "anthropic-beta";
constexpr std::string_view usual_version = "2023-06-01";

std::string seconds(std::chrono::milliseconds duration) { return std::to_string(duration.count() / 1000) + " s"; }

std::chrono::milliseconds until(TimePoint deadline) {
  return std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::system().now());
}

std::chrono::milliseconds retry_after(const net::Headers& headers) {
  const auto field = headers.find("retry-after");
  int value = 0;
  if (!field || std::from_chars(field->data(), field->data() + field->size(), value).ec != std::errc()) return {};
  return std::chrono::seconds(value);
}

const wire::Origin* same_protocol(const wire::Caller& caller) {
  return caller.origin && caller.origin->protocol == wire::Protocol::anthropic ? caller.origin.get() : nullptr;
}

// Cuts a stream of server-sent events into its frames, byte for byte, whatever ends its lines.
class FrameCutter {
 public:
  // The frames that `bytes` complete; they live until the next call.
  std::vector<std::string_view> feed(std::string_view bytes) {
    kept_.erase(0, used_);
    std::size_t at = kept_.size(), begin = 0;
    kept_ += bytes;
    std::vector<std::string_view> out;
    for (; at < kept_.size(); ++at) {
      const char c = kept_[at];
      const bool second_half = c == '\n' && after_cr_;
      after_cr_ = c == '\r';
      if (c != '\n' && c != '\r') {
        line_empty_ = false;
      } else if (!second_half && !std::exchange(line_empty_, true)) {
        continue;
      } else if (!second_half) {
        if (after_cr_ && at + 1 < kept_.size() && kept_[at + 1] == '\n') after_cr_ = false, ++at;
        out.push_back(std::string_view(kept_).substr(begin, at + 1 - begin));
        begin = at + 1;
      }
    }
    used_ = begin;
    return out;
  }
  std::size_t pending() const { return kept_.size() - used_; }

 private:
  std::string kept_;      // the last call's bytes and what was left before them
  std::size_t used_ = 0;  // of kept_: given out as frames
  bool line_empty_ = true, after_cr_ = false;
};

}  // namespace

class AnthropicUpstream::Impl : public std::enable_shared_from_this<Impl> {
 public:
  Impl(asio::io_context& loop, net::Endpoint endpoint, UpstreamOptions given)
      : io(loop),
        options(std::move(given)),
        limiter(loop, options.concurrency),
        client(net::Client::make(
            loop, std::move(endpoint),
            {.connect_timeout = options.connect_timeout, .idle_connections = options.idle_connections, .name = options.name})) {}

  net::HttpRequest make(std::string_view method, std::string_view path, std::string body, const wire::Caller& caller) const {
    net::HttpRequest request{.method = std::string(method), .target = options.api_path + std::string(path), .body = std::move(body)};
    if (!request.body.empty()) request.headers.add("Content-Type", "application/json");
    if (!options.api_key.empty()) request.headers.add("x-api-key", options.api_key);
    request.headers.add(std::string(version_header), std::string(usual_version));
    if (const wire::Origin* origin = same_protocol(caller)) {
      for (const auto& [field, value] : origin->headers) {
        if (net::same_field_name(field, version_header) || net::same_field_name(field, beta_header)) request.headers.set(field, value);
      }
    }
    for (const auto& [field, value] : options.headers) request.headers.set(field, value);
    return request;
  }

  // An answer with status 200 that has begun, and the place it takes until it ends.
  struct Open {
    Limiter::Place place;
    std::unique_ptr<net::ClientResponse> response;
    TimePoint deadline;  // of the first event
    int retries = 0;
  };

  // Waits for a place and sends, as often as it may help. Another answer than 200 becomes the Error it stands for.
  net::Task<Result<Open>> open(net::HttpRequest request, std::shared_ptr<net::Cancellation> cancellation) {
    const auto self = shared_from_this();
    auto place = co_await limiter.enter(cancellation);
    if (!place.ok()) co_return std::move(place).error();
    const auto deadline = Clock::system().now() + options.first_event;
    for (int retries = 0;; ++retries) {
      const bool last = retries >= options.retries;
      auto attempt = last ? std::move(request) : request;
      auto response = co_await client->send(std::move(attempt), std::max(until(deadline), 1ms), cancellation);
      if (response.ok() && (*response)->status == 200) { co_return Open{std::move(*place), std::move(*response), deadline, retries}; }
      Error error;
      bool transient = false;
      if (response.ok()) {
        const int status = (*response)->status;
        transient = status == 502 || status == 503 || status == 504 || status == 529;
        error = co_await read_error(**response);
      } else {
        error = std::move(response).error();
        transient = error.code == ErrorCode::unavailable || error.code == ErrorCode::upstream_failed;
      }
      const auto pause = std::max(error.retry_after, back_off(retries));
      if (last || !transient || pause > longest_pause || pause >= until(deadline)) co_return error;
      LoopEvent cancelled(io);
      const net::Cancellation::Registration registration(cancellation, [&cancelled] { cancelled.notify(); });
      if (!net::requested(cancellation)) co_await cancelled.wait_until(Clock::system().now() + pause);
    }
  }

  net::Task<Error> read_error(net::ClientResponse& response) {
    const auto body = co_await response.read_all(longest_error_body, options.next_event);
    if (!body.ok()) co_return body.error();
    auto error = anthropic::decode_error(response.status, *body);
    if (error.retry_after.count() == 0) error.retry_after = retry_after(response.headers);
    // It is hearth's key that was refused, not the client's.
    if (response.status == 401 || response.status == 403) {
      error.code = ErrorCode::upstream_failed;
      error.message = options.name + " refuses hearth's access (status " + std::to_string(response.status) + "): " + error.message;
    }
    co_return error;
  }

  std::chrono::milliseconds back_off(int retries) {
    const auto pause = options.retry_first * (1 << std::min(retries, 10));
    return std::chrono::milliseconds(std::uniform_int_distribution<std::int64_t>(pause.count() * 3 / 4, pause.count() * 5 / 4)(random));
  }

  // Sends and reads the whole answer.
  template <class T>
  net::Task<Result<T>> call(net::HttpRequest request, std::shared_ptr<net::Cancellation> cancellation,
                            Result<T> (*decode)(std::string_view)) {
    const auto self = shared_from_this();
    auto opened = co_await open(std::move(request), cancellation);
    if (!opened.ok()) co_return std::move(opened).error();
    auto& response = *opened->response;
    const net::Cancellation::Registration registration(cancellation, [&response] { response.cancel(); });
    const auto body = co_await response.read_all(options.answer_bytes, options.first_event);
    if (!body.ok()) co_return body.error();
    co_return decode(*body);
  }

  asio::io_context& io;
  const UpstreamOptions options;
  Limiter limiter;
  std::unique_ptr<net::Client> client;
  std::minstd_rand random{std::random_device{}()};
};

// A streamed answer, and the bytes it is made of.
class AnthropicUpstream::Stream final : public wire::EventStream {
 public:
  Stream(std::shared_ptr<Impl> upstream, Impl::Open open, bool passes)
      : upstream_(std::move(upstream)),
        options_(upstream_->options),
        response_(std::move(open.response)),
        place_(std::move(open.place)),
        deadline_(open.deadline),
        passes_(passes) {
    explanation_.add("upstream", options_.name);
    if (open.retries > 0) explanation_.add("retries", std::to_string(open.retries));
  }

  net::Task<chat::Events> next() override {
    chat::Events events;
    raw_.clear();
    while (!ended_ && events.empty()) {
      if (decoder_.done()) {
        co_await close();
        break;
      }
      // Pings keep the connection awake without being progress; whatever else a service says is, also what only its own client understands.
      const auto left = until(deadline_);
      if (left.count() <= 0) {
        fail(events, {ErrorCode::upstream_timeout, silence()});
        break;
      }
      const auto bytes = co_await response_->read_some(left);
      if (ended_) co_return chat::Events{};  // cancelled meanwhile
      if (!bytes.ok()) {
        const bool timed_out = bytes.error().code == ErrorCode::upstream_timeout;
        fail(events, timed_out ? Error{ErrorCode::upstream_timeout, silence()} : stopped());
      } else if (bytes->empty()) {
        finish(events);
      } else {
        read(*bytes, events);
      }
    }
    co_return events;
  }

  void cancel() override {
    end();
    response_->cancel();
  }
  const chat::Explanation& explanation() const override { return explanation_; }
  wire::Protocol raw_protocol() const override {
    return passes_ && body_ != Body::document ? wire::Protocol::anthropic : wire::Protocol::other;
  }
  std::string_view raw() const override { return raw_; }

 private:
  enum class Body { unknown, frames, document };

  void read(std::string_view bytes, chat::Events& events) {
    if (body_ == Body::unknown) {
      const auto first = bytes.find_first_not_of(" \t\r\n");
      if (first == std::string_view::npos) return;
      // No server-sent event begins like a page or a document does, whatever the content type says.
      if (bytes[first] == '<') {
        fail(events,
             {ErrorCode::upstream_failed, options_.name + " answered with a web page instead of an answer of the Anthropic API: is " +
                                              "its address right, path included, and no proxy in between?"});
        return;
      }
      body_ = bytes[first] == '{' || bytes[first] == '[' ? Body::document : Body::frames;
    }
    if (body_ == Body::frames) {
      read_frames(bytes, events);
    } else if (document_.size() + bytes.size() > options_.answer_bytes) {
      fail(events, {ErrorCode::upstream_failed, options_.name + " sent more than " + std::to_string(options_.answer_bytes) + " bytes"});
    } else {
      document_ += bytes;
    }
  }

  void read_frames(std::string_view bytes, chat::Events& events) {
    for (const auto frame : cutter_.feed(bytes)) {
      if (decoder_.done()) break;
      said_.clear();
      auto read = sse_.feed(frame, said_);
      for (const auto& event : said_) {
        if (read.ok()) read = decoder_.decode(event.event, event.data, events);
        if (event.event != "ping") progress();
      }
      if (!read.ok()) {
        fail(events, nonsense(read.error()));
        return;
      }
      const bool failed = !events.empty() && std::holds_alternative<chat::Failed>(events.back());
      if (passes_ && !failed) raw_ += frame;
    }
    if (cutter_.pending() > longest_frame) fail(events, {ErrorCode::upstream_failed, options_.name + " sent an event without an end"});
  }

  // The body ended before its last event, or it was a document.
  void finish(chat::Events& events) {
    if (body_ == Body::document) {
      const auto decoded = decoder_.decode_document(document_, events);
      document_.clear();
      if (!decoded.ok()) fail(events, nonsense(decoded.error()));
      else end();
    } else {
      fail(events, stopped());
    }
  }

  // Takes the end of the body, so that the connection can serve another request.
  net::Task<void> close() {
    end();
    auto rest = co_await response_->read_some(1'000ms);
    while (rest.ok() && !rest->empty()) rest = co_await response_->read_some(1'000ms);
  }

  void progress() {
    deadline_ = Clock::system().now() + options_.next_event;
    started_ = true;
  }
  void fail(chat::Events& events, Error error) {
    end();
    events.emplace_back(chat::Failed{std::move(error)});
    response_->cancel();
  }
  void end() {
    ended_ = true;
    place_.reset();
  }
  Error nonsense(const Error& why) const { return {ErrorCode::upstream_failed, options_.name + " answered nonsense: " + why.message}; }
  Error stopped() const {
    return {ErrorCode::upstream_failed,
            started_ ? options_.name + " broke off while answering: what came so far is not the whole answer; " + "send the request again"
                     : options_.name + " ended its answer before it began; send the request again"};
  }
  std::string silence() const {
    return options_.name + (started_ ? " went silent: nothing for " + seconds(options_.next_event)
                                     : " gave no first token within " + seconds(options_.first_event));
  }

  const std::shared_ptr<Impl> upstream_;
  const UpstreamOptions& options_;
  std::unique_ptr<net::ClientResponse> response_;
  std::optional<Limiter::Place> place_;
  TimePoint deadline_;
  const bool passes_;  // the bytes may go on to the client as they are
  chat::Explanation explanation_;
  Body body_ = Body::unknown;
  std::string document_;
  FrameCutter cutter_;
  net::SseDecoder sse_;
  std::vector<net::SseEvent> said_;
  anthropic::StreamDecoder decoder_;
  std::string raw_;
  bool started_ = false, ended_ = false;
};

AnthropicUpstream::AnthropicUpstream(asio::io_context& io, net::Endpoint endpoint, UpstreamOptions options)
    : impl_(std::make_shared<Impl>(io, std::move(endpoint), std::move(options))) {}
AnthropicUpstream::~AnthropicUpstream() = default;

net::Task<Result<std::unique_ptr<wire::EventStream>>> AnthropicUpstream::generate(chat::Request request, wire::Caller caller) {
  const auto impl = impl_;
  const UpstreamOptions& options = impl->options;
  if (!options.remote_model.empty()) request.model = options.remote_model;
  const bool capped = options.max_tokens && request.max_tokens.value_or(*options.max_tokens + 1) > *options.max_tokens;
  if (capped) request.max_tokens = options.max_tokens;

  const wire::Origin* origin = same_protocol(caller);
  std::optional<std::string> body;
  if (origin != nullptr && !capped) body = anthropic::body_for(*origin, request.model, true);
  if (!body) {
    auto encoded = anthropic::encode_request(request);
    if (!encoded.ok()) co_return std::move(encoded).error();
    body = *std::move(encoded);
  }
  // The answer names the model as it is called there.
  const bool passes = origin != nullptr && anthropic::model_of(*origin) == request.model;
  auto http = impl->make("POST", "/messages", *std::move(body), caller);
  http.headers.add("Accept", "text/event-stream");
  auto opened = co_await impl->open(std::move(http), caller.cancellation);
  if (!opened.ok()) co_return std::move(opened).error();
  co_return std::make_unique<Stream>(impl, *std::move(opened), passes);
}

net::Task<Result<int>> AnthropicUpstream::count_tokens(chat::Request request, wire::Caller caller) {
  const auto impl = impl_;
  if (!impl->options.remote_model.empty()) request.model = impl->options.remote_model;
  const wire::Origin* origin = same_protocol(caller);
  auto body = origin != nullptr ? anthropic::body_for(*origin, request.model, false) : std::nullopt;
  if (!body) {
    auto encoded = anthropic::encode_count_request(request);
    if (!encoded.ok()) co_return std::move(encoded).error();
    body = *std::move(encoded);
  }
  auto http = impl->make("POST", "/messages/count_tokens", *std::move(body), caller);
  co_return co_await impl->call(std::move(http), caller.cancellation, anthropic::decode_count_answer);
}

net::Task<Result<std::vector<chat::ModelInfo>>> AnthropicUpstream::models() {
  auto http = impl_->make("GET", "/models?limit=1000", {}, {});
  return impl_->call(std::move(http), nullptr, anthropic::decode_models_answer);
}

net::Task<Result<chat::Embeddings>> AnthropicUpstream::embed(chat::EmbeddingRequest, wire::Caller) {
  co_return Error{ErrorCode::unsupported, "a model behind the Anthropic API gives no embeddings", "model"};
}
net::Task<Result<chat::RerankResult>> AnthropicUpstream::rerank(chat::RerankRequest, wire::Caller) {
  co_return Error{ErrorCode::unsupported, "a model behind the Anthropic API does not rerank", "model"};
}
net::Task<Result<std::vector<chat::TokenInfo>>> AnthropicUpstream::score(chat::Request, wire::Caller) {
  co_return Error{ErrorCode::unsupported, "a model behind the Anthropic API tells no log-probabilities", "model"};
}

}  // namespace hearth::fleet
