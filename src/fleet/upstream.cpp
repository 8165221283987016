#include "fleet/upstream.h"

#include <algorithm>
#include <charconv>
#include <random>

#include "base/clock.h"
#include "fleet/dialect_stream.h"
#include "net/client.h"
#include "net/sse.h"
#include "wire/openai.h"

namespace hearth::fleet {
namespace {

namespace asio = net::asio;
namespace openai = wire::openai;
using namespace std::chrono_literals;

constexpr std::size_t longest_error_body = 1 << 20;
constexpr std::string_view hearth_prefix = "x-hearth-";
constexpr auto longest_pause = 5'000ms;  // before a retry; a client can wait for longer itself

std::string seconds(std::chrono::milliseconds duration) { return std::to_string(duration.count() / 1000) + " s"; }

std::chrono::milliseconds retry_after(const net::Headers& headers) {
  const auto field = headers.find("retry-after");
  int value = 0;
  if (!field || std::from_chars(field->data(), field->data() + field->size(), value).ec != std::errc()) return {};
  return std::chrono::seconds(value);
}

std::chrono::milliseconds until(TimePoint deadline) {
  return std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::system().now());
}

}  // namespace

class HttpUpstream::Impl : public std::enable_shared_from_this<Impl> {
 public:
  Impl(asio::io_context& loop, net::Endpoint endpoint, UpstreamOptions given)
      : io(loop), options(std::move(given)), limiter(loop, options.concurrency) {
    connect_to(std::move(endpoint));
  }

  void connect_to(net::Endpoint endpoint) {
    client =
        net::Client::make(io, std::move(endpoint),
                          {.connect_timeout = options.connect_timeout, .idle_connections = options.idle_connections, .name = options.name});
  }

  net::HttpRequest make(std::string_view method, std::string_view path, std::string body, const wire::Caller& caller) const {
    net::HttpRequest request{.method = std::string(method), .target = options.api_path + std::string(path), .body = std::move(body)};
    if (!request.body.empty()) request.headers.add("Content-Type", "application/json");
    if (options.tell_tenant && !caller.tenant.empty()) request.headers.add("X-Hearth-Tenant", caller.tenant);
    if (!caller.request_id.empty()) request.headers.add("X-Request-Id", caller.request_id);
    if (!options.api_key.empty()) request.headers.add("Authorization", "Bearer " + options.api_key);
    for (const auto& [field, value] : options.headers) request.headers.set(field, value);
    return request;
  }
  // The request as it is meant for this upstream.
  template <class Request>
  void adapt(Request& request) const {
    if (!options.remote_model.empty()) request.model = options.remote_model;
    if constexpr (std::is_same_v<Request, chat::Request>) {
      if (options.max_tokens) request.max_tokens = std::min(request.max_tokens.value_or(*options.max_tokens), *options.max_tokens);
    }
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
        transient = status == 502 || status == 503 || status == 504;
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
    auto error = openai::decode_error(response.status, *body);
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

// A streamed answer. What does not turn out to be a stream after all (a page, a document) becomes what it stands for.
class HttpUpstream::Stream final : public wire::EventStream {
 public:
  Stream(std::shared_ptr<Impl> upstream, Impl::Open open)
      : upstream_(std::move(upstream)),
        options_(upstream_->options),
        response_(std::move(open.response)),
        place_(std::move(open.place)),
        deadline_(open.deadline) {
    explanation_.add("upstream", options_.name);
    if (open.retries > 0) explanation_.add("retries", std::to_string(open.retries));
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
        if (!started_) fail(events, Error{ErrorCode::upstream_failed, options_.name + " ended its answer before it began"});
        co_await close();
        break;
      }
      // Comment frames keep the connection awake without being progress: the deadline is one of events, not of bytes.
      const auto left = until(deadline_);
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
        finish(events);
      } else {
        read(*bytes, events);
      }
    }
    if (!events.empty()) {
      deadline_ = Clock::system().now() + options_.next_event;
      started_ = true;
    }
    co_return events;
  }

  void cancel() override {
    end();
    response_->cancel();
  }
  const chat::Explanation& explanation() const override { return explanation_; }

 private:
  enum class Body { unknown, frames, document };

  void read(std::string_view bytes, chat::Events& events) {
    if (body_ == Body::unknown) {
      const auto first = bytes.find_first_not_of(" \t\r\n");
      if (first == std::string_view::npos) return;
      // No field of a server-sent event begins like a page or a document does, whatever the content type says.
      const char c = bytes[first];
      if (c == '<') {
        fail(events,
             Error{ErrorCode::upstream_failed, options_.name + " answered with a web page instead of an answer of the OpenAI API: is " +
                                                   "its address right, path included, and no proxy in between?"});
        return;
      }
      body_ = c == '{' || c == '[' ? Body::document : Body::frames;
    }
    if (body_ == Body::frames) {
      read_frames(bytes, events);
    } else if (document_.size() + bytes.size() > options_.answer_bytes) {
      fail(events,
           Error{ErrorCode::upstream_failed, options_.name + " sent more than " + std::to_string(options_.answer_bytes) + " bytes"});
    } else {
      document_ += bytes;
    }
  }

  void read_frames(std::string_view bytes, chat::Events& events) {
    frames_.clear();
    auto fed = sse_.feed(bytes, frames_);
    events.reserve(frames_.size() + 1);
    for (const auto& frame : frames_) {
      if (!fed.ok() || decoder_.done()) break;
      fed = read_frame(frame, events);
    }
    if (!fed.ok()) fail(events, nonsense(fed.error()));
  }

  Result<void> read_frame(const net::SseEvent& frame, chat::Events& events) { return decoder_.decode(frame.data, events); }

  // The body ended properly, but not its frames, or it was a document.
  void finish(chat::Events& events) {
    if (body_ == Body::document) {
      read_document(events);
      return;
    }
    const auto finished = decoder_.finish(events);
    if (!finished.ok() || sse_.pending()) {
      fail(events, Error{ErrorCode::upstream_failed, stopped()});
    } else {
      end();
    }
  }

  void read_document(chat::Events& events) {
    const auto decoded = decoder_.decode_document(document_, events);
    document_.clear();
    if (!decoded.ok()) {
      fail(events, nonsense(decoded.error()));
    } else {
      end();
    }
  }

  // Takes the end of the body, so that the connection can serve another request.
  net::Task<void> close() {
    end();
    auto rest = co_await response_->read_some(1'000ms);
    while (rest.ok() && !rest->empty()) rest = co_await response_->read_some(1'000ms);
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
  std::string stopped() const {
    return "the engine stopped while answering: what came so far is not the whole answer; send the request again";
  }
  std::string silence() const {
    return started_ ? "the engine went silent: no token for " + seconds(options_.next_event)
                    : "the engine gave no first token within " + seconds(options_.first_event);
  }

  const std::shared_ptr<Impl> upstream_;
  const UpstreamOptions& options_;
  std::unique_ptr<net::ClientResponse> response_;
  std::optional<Limiter::Place> place_;
  TimePoint deadline_;
  chat::Explanation explanation_;
  Body body_ = Body::unknown;
  std::string document_;
  net::SseDecoder sse_;
  openai::StreamDecoder decoder_;
  std::vector<net::SseEvent> frames_;
  bool started_ = false;
  bool ended_ = false;
};

HttpUpstream::HttpUpstream(asio::io_context& io, net::Endpoint endpoint, UpstreamOptions options)
    : impl_(std::make_shared<Impl>(io, std::move(endpoint), std::move(options))) {}
HttpUpstream::~HttpUpstream() = default;

void HttpUpstream::connect_to(net::Endpoint endpoint) { impl_->connect_to(std::move(endpoint)); }
int HttpUpstream::running() const { return impl_->limiter.running(); }
int HttpUpstream::waiting() const { return impl_->limiter.waiting(); }

net::Task<Result<std::unique_ptr<wire::EventStream>>> HttpUpstream::generate(chat::Request request, wire::Caller caller) {
  const auto impl = impl_;
  impl->adapt(request);
  const auto dialect = impl->options.dialect;
  std::vector<chat::ToolSpec> tools;
  if (dialect) {
    if (request.tool_choice.mode != chat::ToolChoice::Mode::none) tools = request.tools;
    wire::write_as_text(request, *dialect);
  }
  const auto path = request.prompts.empty() ? "/chat/completions" : "/completions";
  auto http = impl->make("POST", path, openai::encode_request(request), caller);
  http.headers.add("Accept", "text/event-stream");
  auto opened = co_await impl->open(std::move(http), caller.cancellation);
  if (!opened.ok()) co_return std::move(opened).error();
  std::unique_ptr<wire::EventStream> stream = std::make_unique<Stream>(impl, std::move(*opened));
  if (!tools.empty()) stream = read_dialect(std::move(stream), *dialect, std::move(tools));
  co_return stream;
}

net::Task<Result<chat::Embeddings>> HttpUpstream::embed(chat::EmbeddingRequest request, wire::Caller caller) {
  impl_->adapt(request);
  auto http = impl_->make("POST", "/embeddings", openai::encode_embedding_request(request), caller);
  return impl_->call(std::move(http), caller.cancellation, openai::decode_embeddings_answer);
}

net::Task<Result<chat::RerankResult>> HttpUpstream::rerank(chat::RerankRequest request, wire::Caller caller) {
  impl_->adapt(request);
  auto http = impl_->make("POST", "/rerank", openai::encode_rerank_request(request), caller);
  return impl_->call(std::move(http), caller.cancellation, openai::decode_rerank_answer);
}

net::Task<Result<int>> HttpUpstream::count_tokens(chat::Request request, wire::Caller caller) {
  impl_->adapt(request);
  auto http = impl_->make("POST", "/tokenize/count", openai::encode_request(request), caller);
  return impl_->call(std::move(http), caller.cancellation, openai::decode_count_answer);
}

net::Task<Result<std::vector<chat::TokenInfo>>> HttpUpstream::score(chat::Request request, wire::Caller caller) {
  impl_->adapt(request);
  auto http = impl_->make("POST", "/score", openai::encode_request(request), caller);
  return impl_->call(std::move(http), caller.cancellation, openai::decode_score_answer);
}

net::Task<Result<std::vector<chat::ModelInfo>>> HttpUpstream::models() {
  auto http = impl_->make("GET", "/models", {}, {});
  return impl_->call(std::move(http), nullptr, openai::decode_models_answer);
}

}  // namespace hearth::fleet
