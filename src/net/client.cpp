#include "net/client.h"

#include <sys/un.h>

#include <algorithm>
#include <boost/asio/connect.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/http/basic_parser.hpp>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "net/connection.h"
#include "net/framing.h"

namespace hearth::net {

namespace {

namespace http = boost::beast::http;
using boost::system::error_code;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr std::size_t body_read = 64 * 1024;

// Beast's grammar; the body is decoded in place: chunk frames are squeezed out of the connection's input buffer, so that one read from the
// socket gives one contiguous piece without a copy to elsewhere.
class ResponseParser final : public http::basic_parser<false> {
 public:
  ResponseParser(std::size_t header_bytes, bool to_head) {
    header_limit(static_cast<std::uint32_t>(header_bytes));
    body_limit(boost::none);
    skip(to_head);
  }
  int status() const { return status_; }
  Headers& headers() { return headers_; }
  // Where the next put()'s body bytes go: the start of the very buffer it is given.
  void decode_into(char* start) {
    out_ = start;
    decoded_ = 0;
  }
  std::size_t decoded() const { return decoded_; }

 private:
  using View = boost::beast::string_view;
  void on_request_impl(http::verb, View, View, int, error_code&) override {}
  void on_response_impl(int code, View, int, error_code&) override { status_ = code; }
  void on_field_impl(http::field, View name, View value, error_code&) override {
    if (!in_body_) headers_.add(std::string(name.data(), name.size()), std::string(value.data(), value.size()));
  }
  void on_header_impl(error_code&) override { in_body_ = true; }
  void on_body_init_impl(const boost::optional<std::uint64_t>&, error_code&) override {}
  std::size_t on_body_impl(View body, error_code&) override {
    // Never overtakes the parser: decoded bytes are fewer than the bytes they came in.
    if (out_ + decoded_ != body.data()) std::memmove(out_ + decoded_, body.data(), body.size());
    decoded_ += body.size();
    return body.size();
  }
  void on_chunk_header_impl(std::uint64_t, View, error_code&) override {}
  std::size_t on_chunk_body_impl(std::uint64_t, View body, error_code& ec) override { return on_body_impl(body, ec); }
  void on_finish_impl(error_code&) override {}

  int status_ = 0;
  Headers headers_;
  char* out_ = nullptr;
  std::size_t decoded_ = 0;
  bool in_body_ = false;
};

struct Core {
  Core(asio::io_context& context, Endpoint to, ClientOptions client_options)
      : io(context),
        endpoint(std::move(to)),
        options(std::move(client_options)),
        name(options.name.empty() ? to_string(endpoint) : options.name) {}

  asio::io_context& io;
  Endpoint endpoint;
  ClientOptions options;
  std::string name;
  std::unique_ptr<asio::ssl::context> tls;
  std::vector<std::shared_ptr<Connection>> idle;
  bool closed = false;

  std::shared_ptr<Connection> take() {
    while (!idle.empty()) {
      auto connection = std::move(idle.back());
      idle.pop_back();
      if (connection->open() && !connection->ended() && connection->input().empty()) return connection;
      connection->close();
    }
    return nullptr;
  }
  void keep(std::shared_ptr<Connection> connection) {
    std::erase_if(idle, [](const auto& old) { return !old->open() || old->ended(); });
    if (closed || idle.size() >= options.idle_connections) {
      connection->close();
      return;
    }
    // The pending read notices when the upstream closes.
    connection->on_ended = [weak = std::weak_ptr(connection)] {
      if (const auto ended = weak.lock()) ended->close();
    };
    connection->watch();
    idle.push_back(std::move(connection));
  }
  Error failed(const std::string& what) const { return Error{ErrorCode::upstream_failed, name + " " + what}; }
  Error cancelled() const { return Error{ErrorCode::client_gone, "the request to " + name + " was cancelled"}; }
  Error silent(milliseconds after, std::string_view what) const {
    return Error{ErrorCode::upstream_timeout, name + " " + std::string(what) + " for " + std::to_string(after.count()) + " ms"};
  }
};

// One exchange on one connection: what a ClientResponse stands on, shared with the coroutine that may be suspended in it.
struct Stream {
  Stream(std::shared_ptr<Core> owner, std::shared_ptr<Connection> to, bool is_head)
      : core(std::move(owner)), connection(std::move(to)), parser(core->options.header_bytes, is_head) {}
  ~Stream() {
    if (!released) connection->close();
  }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  std::shared_ptr<Core> core;
  std::shared_ptr<Connection> connection;
  ResponseParser parser;
  bool cancelled = false;
  bool released = false;

  bool complete() const { return parser.is_done(); }
  // Gives the connection back for the next request, or closes it: also one that is merely destroyed is closed.
  void release() {
    if (std::exchange(released, true)) return;
    const bool reusable = complete() && parser.keep_alive() && !parser.need_eof() && connection->open() && !connection->ended() &&
                          connection->input().empty();
    if (reusable) {
      core->keep(connection);
    } else {
      connection->close();
    }
  }
  void cancel() {
    cancelled = true;
    if (!released) connection->close();
    released = true;
  }
};

Task<Result<std::string_view>> read_body(std::shared_ptr<Stream> stream, milliseconds silence) {
  auto& connection = *stream->connection;
  auto& parser = stream->parser;
  while (!stream->cancelled) {
    if (parser.is_done()) {
      stream->release();
      co_return std::string_view();
    }
    if (const auto in = connection.input(); !in.empty()) {
      error_code ec;
      char* const start = connection.mutable_input();
      parser.decode_into(start);
      connection.consume(parser.put(asio::buffer(start, in.size()), ec));
      if (parser.decoded() > 0) co_return std::string_view(start, parser.decoded());
      if (ec && ec != http::error::need_more) {
        connection.close();
        co_return stream->core->failed("sent a malformed answer: " + ec.message());
      }
      if (parser.is_done()) continue;
    }
    const auto wake = co_await connection.more(steady_clock::now() + silence, body_read);
    if (stream->cancelled) break;
    switch (wake) {
      case Connection::Wake::bytes: break;
      case Connection::Wake::timeout: connection.close(); co_return stream->core->silent(silence, "sent nothing");
      case Connection::Wake::full: connection.close(); co_return stream->core->failed("sent a chunk header that is too long");
      case Connection::Wake::ended: {
        error_code ec;
        if (!connection.truncated()) parser.put_eof(ec);
        connection.close();
        if (ec || !parser.is_done()) co_return stream->core->failed("closed the connection before the end of its answer");
        break;
      }
    }
  }
  co_return stream->core->cancelled();
}

class Response final : public ClientResponse {
 public:
  explicit Response(std::shared_ptr<Stream> stream) : stream_(std::move(stream)) {
    status = stream_->parser.status();
    headers = std::move(stream_->parser.headers());
  }
  ~Response() override {
    if (stream_->complete()) {
      stream_->release();
    } else {
      stream_->cancel();
    }
  }
  Response(const Response&) = delete;
  Response& operator=(const Response&) = delete;
  Task<Result<std::string_view>> read_some(milliseconds silence) override { return read_body(stream_, silence); }
  void cancel() override { stream_->cancel(); }

 private:
  std::shared_ptr<Stream> stream_;
};

// getaddrinfo cannot be interrupted: whoever waits stops waiting at the deadline, and the look-up ends on its own.
struct Lookup {
  explicit Lookup(asio::io_context& io) : resolver(io), done(io) {}
  asio::ip::tcp::resolver resolver;
  asio::steady_timer done;
  error_code error = asio::error::timed_out;
  std::vector<asio::generic::stream_protocol::endpoint> endpoints;
};

Task<Result<std::vector<asio::generic::stream_protocol::endpoint>>> resolve(std::shared_ptr<Core> core,
                                                                            std::shared_ptr<Cancellation> cancellation) {
  using Found = std::vector<asio::generic::stream_protocol::endpoint>;
  if (const auto* local = std::get_if<UnixEndpoint>(&core->endpoint)) {
    if (local->path.empty() || local->path.size() >= sizeof(sockaddr_un::sun_path)) {
      co_return Error{ErrorCode::unavailable, "cannot connect to " + core->name + ": the path is too long for a Unix socket"};
    }
    Found found;
    found.emplace_back(asio::local::stream_protocol::endpoint(local->path));
    co_return found;
  }
  const auto& tcp = std::get<TcpEndpoint>(core->endpoint);
  error_code ec;
  const auto address = asio::ip::make_address(tcp.host, ec);
  if (!ec) {
    Found found;
    found.emplace_back(asio::ip::tcp::endpoint(address, tcp.port));
    co_return found;
  }
  const auto lookup = std::make_shared<Lookup>(core->io);
  lookup->done.expires_after(core->options.connect_timeout);
  lookup->resolver.async_resolve(tcp.host, std::to_string(tcp.port), [lookup](const error_code& error, const auto& results) {
    lookup->error = error;
    for (const auto& entry : results) lookup->endpoints.emplace_back(entry.endpoint());
    lookup->done.cancel();
  });
  const Cancellation::Registration on_cancel(cancellation, [lookup] { lookup->done.cancel(); });
  co_await lookup->done.async_wait(asio::redirect_error(asio::use_awaitable, ec));
  if (requested(cancellation)) co_return core->cancelled();
  if (lookup->error) co_return Error{ErrorCode::unavailable, "cannot find the host of " + core->name + ": " + lookup->error.message()};
  co_return lookup->endpoints;
}

Task<Result<std::shared_ptr<Connection>>> connect(std::shared_ptr<Core> core, std::shared_ptr<Cancellation> cancellation) {
  auto resolved = co_await resolve(core, cancellation);
  if (!resolved) co_return std::move(resolved).error();
  const auto timeout = core->options.connect_timeout;
  auto connection = std::make_shared<Connection>(Socket(core->io));
  auto& socket = connection->socket();
  const Cancellation::Registration on_cancel(cancellation, [connection] { connection->close(); });
  error_code ec = asio::error::host_not_found;
  for (const auto& endpoint : *resolved) {
    if (requested(cancellation)) break;
    asio::steady_timer timer(core->io, timeout);
    const auto expired = std::make_shared<bool>(false);
    timer.async_wait([expired, weak = std::weak_ptr(connection)](const error_code& error) {
      const auto waiting = weak.lock();
      if (error || !waiting) return;
      *expired = true;
      waiting->close();
    });
    co_await socket.async_connect(endpoint, asio::redirect_error(asio::use_awaitable, ec));
    if (requested(cancellation)) break;
    if (!ec && !*expired) break;
    connection->close();
    if (*expired) {
      co_return Error{ErrorCode::unavailable, "cannot connect to " + core->name + ": it did not accept the connection within " +
                                                  std::to_string(timeout.count()) + " ms"};
    }
  }
  if (requested(cancellation)) {
    connection->close();
    co_return core->cancelled();
  }
  if (ec) {
    const std::string why = ec == asio::error::connection_refused || ec.value() == ENOENT ? "nobody listens there" : ec.message();
    co_return Error{ErrorCode::unavailable, "cannot connect to " + core->name + ": " + why};
  }
  error_code ignored;
  socket.non_blocking(true, ignored);
  if (const auto* tcp = std::get_if<TcpEndpoint>(&core->endpoint)) {
    socket.set_option(asio::ip::tcp::no_delay(true), ignored);
    if (tcp->tls) {
      const auto shaken = co_await connection->handshake(*core->tls, tcp->host, timeout);
      if (!shaken) {
        connection->close();
        if (requested(cancellation)) co_return core->cancelled();
        co_return Error{shaken.error().code, "cannot connect to " + core->name + ": " + shaken.error().message};
      }
    }
  }
  co_return connection;
}

Result<std::string> build_head(const Core& core, const HttpRequest& request) {
  const auto plain = [](char c) { return static_cast<unsigned char>(c) > 0x20 && static_cast<unsigned char>(c) < 0x7f; };
  if (request.method.empty() || !std::all_of(request.method.begin(), request.method.end(), is_token_char) || request.target.empty() ||
      !std::all_of(request.target.begin(), request.target.end(), plain)) {
    return invalid("a request to " + core.name + " needs a method and a percent-encoded target");
  }
  std::string head = request.method + " " + request.target + " HTTP/1.1\r\nHost: ";
  if (const auto* tcp = std::get_if<TcpEndpoint>(&core.endpoint)) {
    const auto name = to_string(core.endpoint);
    const bool usual_port = tcp->port == (tcp->tls ? 443 : 80);
    const auto start = name.find("//") + 2;
    head += usual_port ? name.substr(start, name.rfind(':') - start) : name.substr(start);
  } else {
    head += "localhost";
  }
  head += "\r\n";
  for (const auto& [field, value] : request.headers) {
    const auto breaks = [](char c) { return c == '\r' || c == '\n' || c == '\0'; };
    if (field.empty() || !std::all_of(field.begin(), field.end(), is_token_char) || std::any_of(value.begin(), value.end(), breaks)) {
      return invalid("a header of a request to " + core.name + " holds characters that would break the message");
    }
    // Framing is decided here and nowhere else.
    constexpr std::string_view ours[] = {"Host",    "Content-Length", "Transfer-Encoding", "Connection", "Keep-Alive", "Expect", "TE",
                                         "Trailer", "Upgrade"};
    if (std::any_of(std::begin(ours), std::end(ours), [&](std::string_view own) { return same_field_name(field, own); })) continue;
    head.append(field).append(": ").append(value).append("\r\n");
  }
  if (!request.body.empty() || request.method == "POST" || request.method == "PUT" || request.method == "PATCH") {
    head += "Content-Length: " + std::to_string(request.body.size()) + "\r\n";
  }
  head += "\r\n";
  return head;
}

// Reads until the final head; interim ones (1xx) are skipped. `any_byte` tells whether the upstream has begun to answer.
Task<Result<void>> read_head(std::shared_ptr<Stream> stream, bool is_head, milliseconds timeout, bool& any_byte) {
  auto& connection = *stream->connection;
  const auto& core = *stream->core;
  const auto deadline = steady_clock::now() + timeout;
  for (;;) {
    if (const auto in = connection.input(); !in.empty()) {
      any_byte = true;
      error_code ec;
      connection.consume(stream->parser.put(asio::buffer(in), ec));
      if (!ec && stream->parser.is_header_done()) {
        if (stream->parser.status() >= 200) {
          stream->parser.eager(true);
          co_return Result<void>();
        }
        if (stream->parser.status() == 101) co_return core.failed("switched protocols without being asked");
        std::destroy_at(&stream->parser);
        std::construct_at(&stream->parser, core.options.header_bytes, is_head);
        continue;
      }
      if (ec && ec != http::error::need_more) co_return core.failed("sent a malformed answer: " + ec.message());
    }
    const auto wake = co_await connection.more(deadline, core.options.header_bytes);
    if (wake == Connection::Wake::timeout) co_return core.silent(timeout, "gave no answer");
    if (wake == Connection::Wake::full) co_return core.failed("sent an answer whose header is too large");
    if (wake == Connection::Wake::ended) co_return core.failed("closed the connection without an answer");
  }
}

Task<Result<std::unique_ptr<ClientResponse>>> exchange(std::shared_ptr<Core> core, HttpRequest request, milliseconds head_timeout,
                                                       std::shared_ptr<Cancellation> cancellation) {
  const auto head = build_head(*core, request);
  if (!head) co_return head.error();
  const bool is_head = request.method == "HEAD";
  for (bool may_retry = true;; may_retry = false) {
    if (requested(cancellation)) co_return core->cancelled();
    auto connection = may_retry ? core->take() : nullptr;
    const bool kept = connection != nullptr;
    if (!kept) {
      auto fresh = co_await connect(core, cancellation);
      if (!fresh) co_return std::move(fresh).error();
      connection = std::move(*fresh);
    }
    connection->on_ended = nullptr;
    auto stream = std::make_shared<Stream>(core, connection, is_head);
    const Cancellation::Registration on_cancel(cancellation, [stream] { stream->cancel(); });
    if (stream->cancelled) co_return core->cancelled();
    // An upstream may answer and close before it has read everything: whether the write failed shows in what can be read.
    const Parts parts{asio::buffer(*head), asio::buffer(request.body)};
    const bool written = co_await connection->write(parts, head_timeout);
    if (stream->cancelled) co_return core->cancelled();
    if (!written && !connection->open()) co_return core->silent(head_timeout, "did not take the request");
    bool any_byte = false;
    auto answered = co_await read_head(stream, is_head, head_timeout, any_byte);
    if (stream->cancelled) co_return core->cancelled();
    if (answered) co_return std::unique_ptr<ClientResponse>(std::make_unique<Response>(std::move(stream)));
    connection->close();
    const bool stale = kept && !any_byte && answered.error().code == ErrorCode::upstream_failed;
    if (!stale || !may_retry) co_return std::move(answered).error();
  }
}

class ClientImpl final : public Client {
 public:
  ClientImpl(asio::io_context& io, Endpoint endpoint, ClientOptions options)
      : core_(std::make_shared<Core>(io, std::move(endpoint), std::move(options))) {
    const auto* tcp = std::get_if<TcpEndpoint>(&core_->endpoint);
    if (tcp == nullptr || !tcp->tls) return;
    core_->tls = std::make_unique<asio::ssl::context>(asio::ssl::context::tls_client);
    SSL_CTX_set_min_proto_version(core_->tls->native_handle(), TLS1_2_VERSION);
    // Without usable roots every handshake fails its verification with a message: nothing is trusted by accident.
    error_code ec;
    if (core_->options.ca_file.empty()) {
      core_->tls->set_default_verify_paths(ec);
    } else {
      core_->tls->load_verify_file(core_->options.ca_file, ec);
    }
  }
  ~ClientImpl() override {
    core_->closed = true;
    for (const auto& connection : core_->idle) connection->close();
    core_->idle.clear();
  }
  ClientImpl(const ClientImpl&) = delete;
  ClientImpl& operator=(const ClientImpl&) = delete;
  Task<Result<std::unique_ptr<ClientResponse>>> send(HttpRequest request, milliseconds head_timeout,
                                                     std::shared_ptr<Cancellation> cancellation) override {
    return exchange(core_, std::move(request), head_timeout, std::move(cancellation));
  }

 private:
  std::shared_ptr<Core> core_;
};

Task<Result<std::string>> collect(ClientResponse& response, std::size_t limit, milliseconds silence) {
  std::string body;
  for (;;) {
    auto piece = co_await response.read_some(silence);
    if (!piece) co_return std::move(piece).error();
    if (piece->empty()) co_return body;
    if (piece->size() > limit - body.size()) {
      response.cancel();
      co_return Error{ErrorCode::payload_too_large, "the answer is larger than " + std::to_string(limit) + " bytes"};
    }
    body.append(*piece);
  }
}

}  // namespace

Task<Result<std::string>> ClientResponse::read_all(std::size_t limit, milliseconds silence) { return collect(*this, limit, silence); }

std::unique_ptr<Client> Client::make(asio::io_context& io, Endpoint endpoint, ClientOptions options) {
  return std::make_unique<ClientImpl>(io, std::move(endpoint), std::move(options));
}

}  // namespace hearth::net
