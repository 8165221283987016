// What every API of models over HTTP has in common, whatever its words: a bounded number of requests at a time, retries while nobody has seen anything,
// time-outs, errors that say whose fault it was, and streams that end in a whole answer or in one failure, never in between.
#pragma once

#include <boost/asio/io_context.hpp>
#include <chrono>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "fleet/limiter.h"
#include "net/client.h"
#include "net/http.h"
#include "net/sse.h"
#include "wire/dialect.h"
#include "wire/provider.h"

namespace hearth::fleet {

struct UpstreamOptions {
  std::string name = "worker";  // in explanations and messages
  std::string api_key;          // sent as a bearer token when not empty
  std::chrono::milliseconds connect_timeout{5'000};
  std::chrono::milliseconds first_event{600'000};  // silence before the first event, from the moment it is sent: queueing there and prefill
  std::chrono::milliseconds next_event{120'000};   // silence between two events
  std::size_t answer_bytes = std::size_t{256} << 20;  // longest non-streamed answer

  std::string api_path = "/v1";                              // the path of the API's base URL: "/api/v1" for https://host/api/v1
  std::string remote_model;                                  // what the upstream calls the model; empty: as the request names it
  std::vector<std::pair<std::string, std::string>> headers;  // sent with every request
  // Our own engines take turns between tenants and tell early what a prompt came to. Nobody else needs to know who asks, or would understand.
  bool own_engine = true;

  LimiterOptions concurrency;            // requests there at once; past them they wait here, in order
  std::size_t idle_connections = 64;     // kept open for the next request
  std::optional<int> max_tokens;         // the most one answer may have; also where the request names none
  std::optional<wire::Dialect> dialect;  // the engine does not parse its model's tool calls: they are read here
  // A refused connection, one that broke before the head of an answer, and 502, 503 and 504 are tried again so many times: nobody has seen anything yet.
  int retries = 0;
  std::chrono::milliseconds retry_first{200};  // before the first; twice as long before each further one, give or take a quarter
};

// What differs between APIs.
struct ServiceWords {
  std::string_view api;  // "OpenAI": in messages
  Error (*decode_error)(int status, std::string_view body);
};

class HttpService : public std::enable_shared_from_this<HttpService> {
 public:
  HttpService(net::asio::io_context& io, net::Endpoint endpoint, UpstreamOptions options, ServiceWords words);

  // From now on requests go there; those that run stay where they are.
  void connect_to(net::Endpoint endpoint);
  const UpstreamOptions& options() const { return options_; }
  const ServiceWords& words() const { return words_; }
  const Limiter& limiter() const { return limiter_; }

  // A request to `path` below the API's base, with the headers of the options.
  net::HttpRequest make(std::string_view method, std::string_view path, std::string body) const;

  // An answer with status 200 that has begun, and the place it takes until it ends.
  struct Open {
    Limiter::Place place;
    std::unique_ptr<net::ClientResponse> response;
    TimePoint deadline;  // of the first event
    int retries = 0;
  };
  // Waits for a place and sends, as often as it may help. Another status than 200 becomes the Error it stands for.
  net::Task<Result<Open>> open(net::HttpRequest request, std::shared_ptr<net::Cancellation> cancellation);

  // Sends, reads the whole answer and decodes it.
  template <class T>
  net::Task<Result<T>> call(net::HttpRequest request, std::shared_ptr<net::Cancellation> cancellation,
                            Result<T> (*decode)(std::string_view)) {
    const auto body = co_await read(std::move(request), std::move(cancellation));
    if (!body.ok()) co_return body.error();
    co_return decode(*body);
  }

 private:
  net::Task<Result<std::string>> read(net::HttpRequest request, std::shared_ptr<net::Cancellation> cancellation);
  net::Task<Error> read_error(net::ClientResponse& response) const;
  std::chrono::milliseconds back_off(int retries);

  net::asio::io_context& io_;
  const UpstreamOptions options_;
  const ServiceWords words_;
  Limiter limiter_;
  std::unique_ptr<net::Client> client_;
  std::minstd_rand random_{std::random_device{}()};
};

// A streamed answer of a service: server-sent events, or the document that some services send instead. An API adds how its events are read.
class ServiceStream : public wire::EventStream {
 public:
  // `passes`: the bytes may go on to the client as they are, as `protocol`.
  ServiceStream(std::shared_ptr<HttpService> service, HttpService::Open open, wire::Protocol protocol, bool passes);

  net::Task<chat::Events> next() final;
  void cancel() final;
  const chat::Explanation& explanation() const final { return explanation_; }
  wire::Protocol raw_protocol() const final { return passes_ && body_ != Body::document ? protocol_ : wire::Protocol::other; }
  std::span<const wire::RawFrame> raw() const final { return raw_; }

 protected:
  // Appends the chat events of one server-sent event.
  virtual Result<void> decode(const net::SseEvent& event, chat::Events& out) = 0;
  // A whole answer in one document: the events it would have been.
  virtual Result<void> decode_document(std::string_view body, chat::Events& out) = 0;
  // The last event has been read.
  virtual bool done() const = 0;
  // The stream ended before that: its last events, or what is missing. `closing` gets the frames that the service left out.
  virtual Result<void> finish(chat::Events& out, std::string& closing) = 0;
  // Whether the events of the last decode() say all that a client could act on in its frame.
  virtual bool understood() const = 0;
  // Whether the client is to see the frame, when frames pass.
  virtual bool passes(const net::SseEvent& event) const = 0;
  // Whether the event shows that the model is getting on, rather than that the connection is open.
  virtual bool progress(const net::SseEvent& event, bool said_something) const = 0;

  const UpstreamOptions& options() const { return service_->options(); }
  chat::Explanation explanation_;

 private:
  enum class Body { unknown, frames, document };
  void read(std::string_view bytes, chat::Events& events);
  void read_frames(std::string_view bytes, chat::Events& events);
  void read_end(chat::Events& events);
  net::Task<void> close();
  void fail(chat::Events& events, Error error);
  void end();
  Error nonsense(const Error& why) const;
  Error stopped() const;
  Error silent() const;

  const std::shared_ptr<HttpService> service_;
  std::unique_ptr<net::ClientResponse> response_;
  std::optional<Limiter::Place> place_;
  TimePoint deadline_;
  const wire::Protocol protocol_;
  const bool passes_;
  Body body_ = Body::unknown;
  std::string document_;
  net::SseDecoder sse_;
  std::vector<net::SseEvent> frames_;
  std::vector<wire::RawFrame> raw_;
  bool started_ = false;
  bool ended_ = false;
};

}  // namespace hearth::fleet
