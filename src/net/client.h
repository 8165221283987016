// The HTTP/1.1 client for upstreams: keeps idle connections, streams answers as they arrive, and lets a caller break off at any time.
// Requests are always built fresh from their parts: a client's own headers never pass through raw.
#pragma once

#include <boost/asio/io_context.hpp>
#include <chrono>
#include <memory>
#include <string>

#include "base/result.h"
#include "net/cancellation.h"
#include "net/http.h"
#include "net/task.h"

namespace hearth::net {

struct ClientOptions {
  std::chrono::milliseconds connect_timeout{5'000};
  std::size_t idle_connections = 64;
  std::size_t header_bytes = 64 * 1024;  // of an answer
  std::string ca_file;                   // TLS: trust the certificates of this PEM file instead of the system's roots
  std::string name;                      // what messages call the peer; empty: its address
};

// An answer whose body is still arriving. Destroying it before the end closes its connection: that is how a generation is cancelled.
class ClientResponse {
 public:
  virtual ~ClientResponse() = default;
  int status = 0;
  Headers headers;
  // The next bytes, as soon as there are any; an empty view at the proper end. The view lives until the next call. upstream_failed when the
  // connection ends before the body does, upstream_timeout after `silence` without a byte.
  virtual Task<Result<std::string_view>> read_some(std::chrono::milliseconds silence) = 0;
  // Wakes a suspended read_some with client_gone and closes the connection. Safe at any time on the loop.
  virtual void cancel() = 0;
  // The rest of the body; payload_too_large past `limit` bytes.
  Task<Result<std::string>> read_all(std::size_t limit, std::chrono::milliseconds silence);
};

class Client {
 public:
  static std::unique_ptr<Client> make(asio::io_context& io, Endpoint endpoint, ClientOptions options = {});
  virtual ~Client() = default;
  // Sends and waits for the head. `head_timeout` counts from the last byte sent. A kept connection that turns out closed before any byte of
  // an answer is replaced by a fresh one once. unavailable when nobody listens or accepts, upstream_timeout, upstream_failed; client_gone when `cancellation` was
  // requested meanwhile: the connection is closed then, which tells the upstream. After the head ClientResponse::cancel() takes its place.
  virtual Task<Result<std::unique_ptr<ClientResponse>>> send(HttpRequest request, std::chrono::milliseconds head_timeout,
                                                             std::shared_ptr<Cancellation> cancellation = nullptr) = 0;
};

}  // namespace hearth::net
