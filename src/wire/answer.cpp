#include "wire/answer.h"

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "net/http.h"

namespace hearth::wire {
namespace {

namespace asio = net::asio;
using net::Task;

std::string header_value(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (c < 0x20 || c > 0x7e) c = '?';
  }
  return out;
}

net::Headers common_headers(const Caller& caller, std::string_view content_type) {
  net::Headers headers;
  headers.add("Content-Type", std::string(content_type));
  if (!caller.request_id.empty()) {
    headers.add("x-request-id", header_value(caller.request_id));
    headers.add("request-id", header_value(caller.request_id));  // where Anthropic's SDKs look
  }
  return headers;
}

void add_explanation(net::Headers& headers, const chat::Explanation& explanation) {
  for (const auto& [what, value] : explanation.decisions) {
    std::string field = "x-hearth-" + what;
    for (char& c : field) {
      if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + ('a' - 'A'));
      else if ((c < 'a' || c > 'z') && (c < '0' || c > '9')) c = '-';
    }
    headers.add(std::move(field), header_value(value));
  }
}

net::Headers error_headers(const Error& error, const Caller& caller) {
  constexpr std::chrono::milliseconds usual_wait{1'000};
  net::Headers headers = common_headers(caller, "application/json");
  switch (error.code) {
    case ErrorCode::overloaded:
    case ErrorCode::unavailable: {
      const auto wait = error.retry_after.count() > 0 ? error.retry_after : usual_wait;
      headers.add("Retry-After", std::to_string((wait.count() + 999) / 1000));
      headers.add("retry-after-ms", std::to_string(wait.count()));
      break;
    }
    case ErrorCode::request_timeout:
    case ErrorCode::upstream_failed:
    case ErrorCode::upstream_timeout: break;
    // SDKs try every 408, 409, 429 and 5xx again; the same request would fail the same way.
    default: headers.add("x-should-retry", "false");
  }
  if (error.code == ErrorCode::unauthorized) headers.add("WWW-Authenticate", "Bearer");
  return headers;
}

// The client is told as far as it is still there; a client that left needs no answer.
Task<void> send(net::Exchange& exchange, int status, net::Headers headers, std::string body) {
  (void)co_await exchange.respond(status, std::move(headers), std::move(body));
}

// Tells when the client left, before there is a stream to cancel and while there is one.
class Departure {
 public:
  explicit Departure(net::Exchange& exchange) : exchange_(exchange) {
    exchange_.on_client_gone([this] {
      cancellation_->request();
      if (stream_ != nullptr) stream_->cancel();
    });
  }
  ~Departure() { forget(); }
  Departure(const Departure&) = delete;
  Departure& operator=(const Departure&) = delete;
  void watch(EventStream* stream) { stream_ = stream; }
  // From here on it does not matter any more.
  void forget() { exchange_.on_client_gone(nullptr); }
  bool gone() const { return cancellation_->requested(); }
  const std::shared_ptr<net::Cancellation>& cancellation() const { return cancellation_; }

 private:
  net::Exchange& exchange_;
  EventStream* stream_ = nullptr;
  std::shared_ptr<net::Cancellation> cancellation_ = std::make_shared<net::Cancellation>();
};

// Looks after an answer whose upstream is silent, beside the coroutine that waits for events: so that no event can be lost to a race between
// the two. It writes a sign of life after each `keep_alive` of silence (streams only), and cancels the stream when no first event came within `silence`.
// While it writes, pause() holds the other coroutine back.
class Watch : public std::enable_shared_from_this<Watch> {
 public:
  Watch(asio::any_io_executor executor, net::Exchange& exchange, EventStream& stream, AnswerCodec& codec, net::Headers* head,
        EndpointOptions options)
      : exchange_(exchange), stream_(stream), codec_(codec), head_(head), options_(options), timer_(executor), written_(executor) {}

  void start() {
    started_ = last_ = std::chrono::steady_clock::now();
    sleep();
  }
  void wait() {
    waiting_ = true;
    last_ = std::chrono::steady_clock::now();
  }
  // To be called when events arrived: afterwards nobody else writes until the next wait().
  Task<void> pause(bool events) {
    waiting_ = false;
    first_seen_ = first_seen_ || events;
    boost::system::error_code ignored;
    while (writing_) {
      written_.expires_at(std::chrono::steady_clock::time_point::max());
      co_await written_.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
    }
  }
  void stop() {
    stopped_ = true;
    timer_.cancel();
  }
  bool timed_out() const { return timed_out_; }

 private:
  using TimePoint = std::chrono::steady_clock::time_point;

  TimePoint next_look() const {
    TimePoint at = TimePoint::max();
    if (head_ != nullptr && options_.keep_alive.count() > 0) at = std::min(at, last_ + options_.keep_alive);
    if (!first_seen_ && options_.silence.count() > 0) at = std::min(at, started_ + options_.silence);
    return at;
  }

  void sleep() {
    const TimePoint at = next_look();
    if (at == TimePoint::max()) return;
    timer_.expires_at(at);
    timer_.async_wait([self = shared_from_this()](const boost::system::error_code&) {
      if (!self->stopped_) self->look();
    });
  }

  void look() {
    const TimePoint now = std::chrono::steady_clock::now();
    if (!first_seen_ && options_.silence.count() > 0 && now >= started_ + options_.silence) {
      timed_out_ = true;
      stream_.cancel();
      return;
    }
    if (now >= next_look()) {
      last_ = now;
      if (waiting_) {
        asio::co_spawn(timer_.get_executor(), write_sign(shared_from_this()), asio::detached);
        return;
      }
    }
    sleep();
  }

  static Task<void> write_sign(std::shared_ptr<Watch> self) {
    self->writing_ = true;
    bool ok = true;
    if (!self->exchange_.begun()) {
      const auto begun = co_await self->exchange_.begin(200, std::move(*self->head_));
      ok = begun.ok();
    }
    if (ok) {
      std::string sign;
      self->codec_.keep_alive(sign);
      const auto written = co_await self->exchange_.write(sign);
      ok = written.ok();
    }
    self->writing_ = false;
    self->written_.cancel();
    if (self->stopped_) co_return;
    if (ok) self->sleep();
    else self->stream_.cancel();
  }

  net::Exchange& exchange_;
  EventStream& stream_;
  AnswerCodec& codec_;
  net::Headers* head_;  // of the streamed answer, for when a sign of life is its first byte; null for one that is not streamed
  EndpointOptions options_;
  asio::steady_timer timer_;
  asio::steady_timer written_;
  TimePoint started_, last_;
  bool waiting_ = false, writing_ = false, first_seen_ = false, stopped_ = false, timed_out_ = false;
};

// Stops the watch however the answer ends; it lives on until its timer has seen that, and touches nothing but itself.
struct WatchGuard {
  std::shared_ptr<Watch> watch;
  ~WatchGuard() { watch->stop(); }
};

Error silent(std::chrono::milliseconds silence) {
  return {ErrorCode::upstream_timeout, "the model gave no sign for " + std::to_string(silence.count()) + " ms", "", {}};
}

const Error* failure_in(const chat::Events& events) {
  for (const auto& event : events) {
    if (const auto* failed = std::get_if<chat::Failed>(&event)) return &failed->error;
  }
  return nullptr;
}

// True when the whole answer went out.
Task<bool> stream_answer(net::Exchange& exchange, EventStream& stream, AnswerCodec& codec, const Caller& caller, EndpointOptions options,
                         EncodeError encode_error) {
  net::Headers head = common_headers(caller, codec.stream_content_type());
  head.add("Cache-Control", "no-cache");
  head.add("X-Accel-Buffering", "no");
  add_explanation(head, stream.explanation());
  add_explanation(head, codec.explanation());
  const Protocol passed = caller.origin ? caller.origin->protocol : Protocol::other;
  const auto executor = co_await asio::this_coro::executor;
  const WatchGuard guard{std::make_shared<Watch>(executor, exchange, stream, codec, &head, options)};
  guard.watch->start();

  std::string frames;
  for (;;) {
    guard.watch->wait();
    const chat::Events events = co_await stream.next();
    co_await guard.watch->pause(!events.empty());
    const Error* failure = failure_in(events);
    if (!exchange.begun()) {
      // Until the first byte a failure still gets its proper status.
      const Error nothing = guard.watch->timed_out() ? silent(options.silence)
                                                     : Error{ErrorCode::upstream_failed, "the answer ended before it began", "", {}};
      if (events.empty()) failure = &nothing;
      if (failure != nullptr) {
        net::Headers headers = error_headers(*failure, caller);
        add_explanation(headers, stream.explanation());
        co_await send(exchange, http_status(failure->code), std::move(headers), encode_error(*failure));
        co_return false;
      }
      const auto begun = co_await exchange.begin(200, std::move(head));  // NOLINT(bugprone-use-after-move): begun() is true ever after
      if (!begun) co_return false;
    }
    // What passes through is not said again; a failure of our own is, in either case.
    const bool raw = passed != Protocol::other && stream.raw_protocol() == passed;
    frames.clear();
    if (raw) {
      std::span<const chat::Event> rest(events);
      for (const RawFrame& frame : stream.raw()) {
        frames += frame.bytes;
        const std::size_t read = std::min(frame.events, rest.size());
        codec.passed(frame.bytes, rest.first(read));
        rest = rest.subspan(read);
      }
      if (failure != nullptr) codec.encode(chat::Failed{*failure}, frames);
    } else {
      for (const auto& event : events) codec.encode(event, frames);
    }
    if (events.empty() && guard.watch->timed_out()) codec.encode(chat::Failed{silent(options.silence)}, frames);
    // Usage is the last event: the end of the answer leaves together with it.
    if (events.empty() || std::holds_alternative<chat::Usage>(events.back())) {
      if (!raw) codec.end(frames);
      const auto finished = co_await exchange.finish(frames);
      co_return finished.ok();
    }
    if (frames.empty()) continue;
    const auto written = co_await exchange.write(frames);
    if (!written) co_return false;
  }
}

Task<void> whole_answer(net::Exchange& exchange, EventStream& stream, AnswerCodec& codec, int choices, const Caller& caller,
                        EndpointOptions options, EncodeError encode_error) {
  AnswerCollector collector(choices);
  const auto executor = co_await asio::this_coro::executor;
  const WatchGuard guard{std::make_shared<Watch>(executor, exchange, stream, codec, nullptr, options)};
  guard.watch->start();
  while (collector.failure() == nullptr) {
    chat::Events events = co_await stream.next();
    co_await guard.watch->pause(!events.empty());
    if (events.empty()) {
      if (guard.watch->timed_out()) collector.add(chat::Failed{silent(options.silence)});
      collector.end();
      break;
    }
    for (auto& event : events) collector.add(std::move(event));
  }
  const Error* failure = collector.failure();
  net::Headers headers = failure != nullptr ? error_headers(*failure, caller) : common_headers(caller, "application/json");
  add_explanation(headers, stream.explanation());
  add_explanation(headers, codec.explanation());
  co_await send(exchange, failure != nullptr ? http_status(failure->code) : 200, std::move(headers),
                failure != nullptr ? encode_error(*failure) : codec.whole(collector.answer()));
}

// Plain `curl -d` labels its JSON as a form, so the label alone does not decide.
bool is_form(const net::HttpRequest& request) {
  std::string type(request.headers.find("Content-Type").value_or(""));
  for (char& c : type) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c;
  if (type.starts_with("multipart/")) return true;
  const std::size_t first = request.body.find_first_not_of(" \t\r\n");
  return type.starts_with("application/x-www-form-urlencoded") && (first == std::string::npos || request.body[first] != '{');
}

}  // namespace

Task<void> answer(net::Exchange& exchange, Provider& provider, Caller caller, EndpointOptions options, chat::Request request,
                  AnswerCodec& codec, EncodeError encode_error) {
  request.tenant = caller.tenant;
  const bool streamed = request.stream;
  const int choices = request.choices * static_cast<int>(request.prompts.empty() ? 1 : request.prompts.size());
  std::string model = request.model;

  Departure departure(exchange);
  caller.cancellation = departure.cancellation();
  auto opened = co_await provider.generate(std::move(request), caller);
  if (departure.gone()) co_return;
  if (!opened) {
    co_await respond_error(exchange, opened.error(), caller, encode_error);
    co_return;
  }
  const std::unique_ptr<EventStream> stream = std::move(*opened);
  departure.watch(stream.get());
  for (const auto& [what, value] : stream->explanation().decisions) {
    if (what == "model") model = value;  // as served
  }
  codec.served_by(model);
  if (!streamed) {
    co_await whole_answer(exchange, *stream, codec, choices, caller, options, encode_error);
  } else if (co_await stream_answer(exchange, *stream, codec, caller, options, encode_error)) {
    departure.forget();
    (void)co_await stream->next();  // the end behind the last event: after it an upstream's connection can serve again
  }
}

Task<void> respond_json(net::Exchange& exchange, const Caller& caller, std::string body) {
  co_await send(exchange, 200, common_headers(caller, "application/json"), std::move(body));
}

Task<void> respond_error(net::Exchange& exchange, const Error& error, const Caller& caller, EncodeError encode_error) {
  co_await send(exchange, http_status(error.code), error_headers(error, caller), encode_error(error));
}

Task<bool> accepts(net::Exchange& exchange, const Caller& caller, std::string_view method, EncodeError encode_error) {
  const net::HttpRequest& request = exchange.request();
  if (request.method != method) {
    const Error error{
        ErrorCode::method_not_allowed, std::string(request.path()) + " takes " + std::string(method) + ", not " + request.method, "", {}};
    net::Headers headers = error_headers(error, caller);
    headers.add("Allow", std::string(method));
    co_await send(exchange, http_status(error.code), std::move(headers), encode_error(error));
    co_return false;
  }
  if (method == "POST" && is_form(request)) {
    const Error error = invalid("the body must be JSON (Content-Type: application/json), not a form");
    co_await respond_error(exchange, error, caller, encode_error);
    co_return false;
  }
  co_return true;
}

std::shared_ptr<const Origin> origin_of(const net::HttpRequest& request, Protocol protocol,
                                        std::initializer_list<std::string_view> headers) {
  auto origin = std::make_shared<Origin>();
  origin->protocol = protocol;
  origin->body = request.body;
  for (const auto name : headers) {
    if (const auto value = request.headers.find(name)) origin->headers.emplace_back(name, *value);
  }
  return origin;
}

std::string percent_decoded(std::string_view text) {
  const auto digit = [](char c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
  };
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size() && digit(text[i + 1]) >= 0 && digit(text[i + 2]) >= 0) {
      out.push_back(static_cast<char>(digit(text[i + 1]) * 16 + digit(text[i + 2])));
      i += 2;
    } else {
      out.push_back(text[i]);
    }
  }
  return out;
}

Task<Result<void>> Provider::load(std::string, std::optional<std::chrono::milliseconds>, Caller) {
  co_return Error{ErrorCode::unsupported, "models are not loaded and unloaded here"};
}
Task<Result<void>> Provider::unload(std::string, Caller) {
  co_return Error{ErrorCode::unsupported, "models are not loaded and unloaded here"};
}

}  // namespace hearth::wire
