#include "fleet/http_service.h"

#include <algorithm>
#include <charconv>

#include "fleet/loop_event.h"

namespace hearth::fleet {
namespace {

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

bool is_transient(int status) { return status == 502 || status == 503 || status == 504 || status == 529; }

}  // namespace

HttpService::HttpService(net::asio::io_context& io, net::Endpoint endpoint, UpstreamOptions options, ServiceWords words)
    : io_(io), options_(std::move(options)), words_(words), limiter_(io, options_.concurrency) {
  connect_to(std::move(endpoint));
}

void HttpService::connect_to(net::Endpoint endpoint) {
  client_ = net::Client::make(
      io_, std::move(endpoint),
      {.connect_timeout = options_.connect_timeout, .idle_connections = options_.idle_connections, .name = options_.name});
}

net::HttpRequest HttpService::make(std::string_view method, std::string_view path, std::string body) const {
  net::HttpRequest request{.method = std::string(method), .target = options_.api_path + std::string(path), .body = std::move(body)};
  if (!request.body.empty()) request.headers.add("Content-Type", "application/json");
  for (const auto& [field, value] : options_.headers) request.headers.set(field, value);
  return request;
}

net::Task<Result<HttpService::Open>> HttpService::open(net::HttpRequest request, std::shared_ptr<net::Cancellation> cancellation) {
  const auto self = shared_from_this();
  auto place = co_await limiter_.enter(cancellation);
  if (!place.ok()) co_return std::move(place).error();
  const auto deadline = Clock::system().now() + options_.first_event;
  for (int retries = 0;; ++retries) {
    const bool last = retries >= options_.retries;
    auto attempt = last ? std::move(request) : request;  // NOLINT(bugprone-use-after-move): the last one ends the loop
    auto response = co_await client_->send(std::move(attempt), std::max(until(deadline), 1ms), cancellation);
    if (response.ok() && (*response)->status == 200) { co_return Open{std::move(*place), std::move(*response), deadline, retries}; }
    Error error;
    bool transient = false;
    if (response.ok()) {
      transient = is_transient((*response)->status);
      error = co_await read_error(**response);
    } else {
      error = std::move(response).error();
      transient = error.code == ErrorCode::unavailable || error.code == ErrorCode::upstream_failed;
    }
    const auto pause = std::max(error.retry_after, back_off(retries));
    if (last || !transient || pause > longest_pause || pause >= until(deadline)) co_return error;
    LoopEvent cancelled(io_);
    const net::Cancellation::Registration registration(cancellation, [&cancelled] { cancelled.notify(); });
    if (!net::requested(cancellation)) co_await cancelled.wait_until(Clock::system().now() + pause);
  }
}

net::Task<Error> HttpService::read_error(net::ClientResponse& response) const {
  const auto body = co_await response.read_all(longest_error_body, options_.next_event);
  if (!body.ok()) co_return body.error();
  auto error = words_.decode_error(response.status, *body);
  if (error.retry_after.count() == 0) error.retry_after = retry_after(response.headers);
  // It is hearth's key that was refused, not the client's.
  if (response.status == 401 || response.status == 403) {
    error.code = ErrorCode::upstream_failed;
    error.message = options_.name + " refuses hearth's access (status " + std::to_string(response.status) + "): " + error.message;
  }
  co_return error;
}

std::chrono::milliseconds HttpService::back_off(int retries) {
  const auto pause = options_.retry_first * (1 << std::min(retries, 10));
  return std::chrono::milliseconds(std::uniform_int_distribution<std::int64_t>(pause.count() * 3 / 4, pause.count() * 5 / 4)(random_));
}

net::Task<Result<std::string>> HttpService::read(net::HttpRequest request, std::shared_ptr<net::Cancellation> cancellation) {
  const auto self = shared_from_this();
  auto opened = co_await open(std::move(request), cancellation);
  if (!opened.ok()) co_return std::move(opened).error();
  auto& response = *opened->response;
  const net::Cancellation::Registration registration(cancellation, [&response] { response.cancel(); });
  co_return co_await response.read_all(options_.answer_bytes, options_.first_event);
}

ServiceStream::ServiceStream(std::shared_ptr<HttpService> service, HttpService::Open open, wire::Protocol protocol, bool passes)
    : service_(std::move(service)),
      response_(std::move(open.response)),
      place_(std::move(open.place)),
      deadline_(open.deadline),
      protocol_(protocol),
      passes_(passes),
      sse_(net::SseDecoder::usual_limit, passes) {
  explanation_.add("upstream", options().name);
  if (open.retries > 0) explanation_.add("retries", std::to_string(open.retries));
  for (const auto& [field, value] : response_->headers) {
    if (field.size() > hearth_prefix.size() && net::same_field_name(field.substr(0, hearth_prefix.size()), hearth_prefix)) {
      explanation_.add(field.substr(hearth_prefix.size()), value);
    }
  }
}

net::Task<chat::Events> ServiceStream::next() {
  chat::Events events;
  raw_.clear();
  while (!ended_ && events.empty()) {
    if (done()) {
      if (!started_) fail(events, Error{ErrorCode::upstream_failed, options().name + " ended its answer before it began"});
      co_await close();
      break;
    }
    // What keeps the connection awake is no progress: the deadline is one of events, not of bytes.
    const auto left = until(deadline_);
    if (left.count() <= 0) {
      fail(events, silent());
      break;
    }
    const auto bytes = co_await response_->read_some(left);
    if (ended_) co_return chat::Events{};  // cancelled meanwhile
    if (!bytes.ok()) {
      fail(events, bytes.error().code == ErrorCode::upstream_timeout ? silent() : stopped());
    } else if (bytes->empty()) {
      read_end(events);
    } else {
      read(*bytes, events);
    }
  }
  co_return events;
}

void ServiceStream::cancel() {
  end();
  response_->cancel();
}

void ServiceStream::read(std::string_view bytes, chat::Events& events) {
  if (body_ == Body::unknown) {
    const auto first = bytes.find_first_not_of(" \t\r\n");
    if (first == std::string_view::npos) return;
    // No field of a server-sent event begins like a page or a document does, whatever the content type says.
    const char c = bytes[first];
    if (c == '<') {
      fail(events, Error{ErrorCode::upstream_failed, options().name + " answered with a web page instead of an answer of the " +
                                                         std::string(service_->words().api) +
                                                         " API: is its address right, path included, and no proxy in between?"});
      return;
    }
    body_ = c == '{' || c == '[' ? Body::document : Body::frames;
  }
  if (body_ == Body::frames) {
    read_frames(bytes, events);
  } else if (document_.size() + bytes.size() > options().answer_bytes) {
    fail(events,
         Error{ErrorCode::upstream_failed, options().name + " sent more than " + std::to_string(options().answer_bytes) + " bytes"});
  } else {
    document_ += bytes;
  }
}

void ServiceStream::read_frames(std::string_view bytes, chat::Events& events) {
  frames_.clear();
  auto fed = sse_.feed(bytes, frames_);
  events.reserve(frames_.size() + 1);
  bool moved = false;
  for (auto& frame : frames_) {
    if (!fed.ok() || done()) break;
    const std::size_t before = events.size();
    fed = decode(frame, events);
    if (!fed.ok()) break;
    moved = moved || progress(frame, events.size() > before);
    const bool failed = events.size() > before && std::holds_alternative<chat::Failed>(events.back());
    if (passes_ && !failed) {
      const bool shown = passes(frame);
      raw_.push_back({shown ? std::move(frame.raw) : std::string(), events.size() - before, understood()});
    }
  }
  if (moved) {
    deadline_ = Clock::system().now() + options().next_event;
    started_ = true;
  }
  if (!fed.ok()) fail(events, nonsense(fed.error()));
}

void ServiceStream::read_end(chat::Events& events) {
  if (body_ == Body::document) {
    const auto decoded = decode_document(document_, events);
    document_.clear();
    if (!decoded.ok()) {
      fail(events, nonsense(decoded.error()));
      return;
    }
  } else {
    std::string closing;
    const std::size_t before = events.size();
    const auto finished = finish(events, closing);
    if (!finished.ok() || sse_.pending()) {
      fail(events, stopped());
      return;
    }
    if (passes_ && !closing.empty()) raw_.push_back({std::move(closing), events.size() - before});
  }
  end();
}

// Takes the end of the body, so that the connection can serve another request.
net::Task<void> ServiceStream::close() {
  end();
  auto rest = co_await response_->read_some(1'000ms);
  while (rest.ok() && !rest->empty()) rest = co_await response_->read_some(1'000ms);
}

void ServiceStream::fail(chat::Events& events, Error error) {
  end();
  events.emplace_back(chat::Failed{std::move(error)});
  response_->cancel();
}

void ServiceStream::end() {
  ended_ = true;
  place_.reset();
}

Error ServiceStream::nonsense(const Error& why) const {
  return {ErrorCode::upstream_failed, options().name + " answered nonsense: " + why.message};
}

Error ServiceStream::stopped() const {
  return {ErrorCode::upstream_failed,
          started_ ? options().name + " stopped while answering: what came so far is not the whole answer; send the request again"
                   : options().name + " ended its answer before it began; send the request again"};
}

Error ServiceStream::silent() const {
  return {ErrorCode::upstream_timeout, started_ ? "the engine went silent: no token for " + seconds(options().next_event)
                                                : "the engine gave no first token within " + seconds(options().first_event)};
}

}  // namespace hearth::fleet
