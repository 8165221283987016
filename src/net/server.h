// The HTTP/1.1 server: accepts connections on TCP (optionally TLS) or a Unix socket, reads each request within limits, refuses what a strict
// reader would not accept (see framing.h), hands it to one handler coroutine, and streams the answer with back-pressure. All on one io_context.
#pragma once

#include <boost/asio/io_context.hpp>
#include <chrono>
#include <functional>
#include <memory>

#include "base/result.h"
#include "net/http.h"
#include "net/task.h"

namespace hearth::net {

struct ServerLimits {
  std::size_t header_bytes = 32 * 1024;
  std::size_t body_bytes = 64 * 1024 * 1024;
  std::size_t connections = 4096;                    // past it a new connection is answered 503 and closed
  std::chrono::milliseconds header_timeout{10'000};  // from the first byte of a request to the end of its header
  std::chrono::milliseconds body_timeout{60'000};    // longest pause between two reads of a body; the whole body gets 10 times that
  std::chrono::milliseconds idle_timeout{75'000};    // a kept-alive connection without a request
  std::chrono::milliseconds write_timeout{60'000};   // a client that takes no byte for this long is gone
};

struct TlsFiles {
  std::string certificate;  // PEM chain
  std::string key;          // PEM
};

// One request and its answer. Exactly one of respond() or begin()…finish() is used. Every call fails with client_gone once the client left;
// the handler then stops and returns.
class Exchange {
 public:
  virtual ~Exchange() = default;
  virtual const HttpRequest& request() const = 0;
  // A whole answer; Content-Length is added.
  virtual Task<Result<void>> respond(int status, Headers headers, std::string body) = 0;
  // A streamed answer, chunked. The head leaves with the first write or at finish(). Content-Length,
  // Transfer-Encoding and Connection are the server's own, except that `Connection: close` is honoured. internal when a field would break the head.
  virtual Task<Result<void>> begin(int status, Headers headers) = 0;
  // Leaves at once, as one chunk. Suspends while the client is slow: this is the back-pressure. `data` must live until it resumes; empty data
  // sends just the head.
  virtual Task<Result<void>> write(std::string_view data) = 0;
  // Ends the answer; `last` is a final write() that leaves together with the end.
  virtual Task<Result<void>> finish(std::string_view last = {}) = 0;
  // Breaks the connection off without a proper end: the client must not take what it has for the whole.
  virtual void abort() = 0;
  virtual bool begun() const = 0;
  // Called at most once, on the loop, as soon as the client closes while the handler still works (half-closing counts). Set nullptr to take it back.
  virtual void on_client_gone(std::function<void()> callback) = 0;
};

// Returning without an answer, or throwing, gives the client a 500, or cuts an answer that has begun.
using Handler = std::function<Task<void>(Exchange&)>;

class Server {
 public:
  // Binds and starts to accept. io when the address cannot be used: the message says whether the port is taken and what to type.
  // A stale Unix socket file (nobody listens) is replaced; the new one has mode 0600. Port 0 picks a free one.
  static Result<std::unique_ptr<Server>> listen(asio::io_context& io, const Endpoint& endpoint, ServerLimits limits,
                                                std::optional<TlsFiles> tls, Handler handler);
  virtual ~Server() = default;
  virtual unsigned short port() const = 0;  // 0 for a Unix socket
  virtual std::size_t connections() const = 0;
  // Stops accepting, closes idle connections, lets running exchanges finish for up to `grace`, then cuts them. Answers sent meanwhile carry
  // `Connection: close`. A cut exchange is told like one whose client left; what its handler uses must live until connections() is 0.
  virtual Task<void> drain(std::chrono::milliseconds grace) = 0;
};

}  // namespace hearth::net
