#include "net/server.h"

#include <spdlog/fmt/fmt.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/http/basic_parser.hpp>
#include <boost/beast/http/status.hpp>
#include <cstring>
#include <ctime>
#include <iterator>
#include <unordered_set>

#include "base/json.h"
#include "base/log.h"
#include "net/connection.h"
#include "net/framing.h"

namespace hearth::net {

namespace {

namespace http = boost::beast::http;
using boost::system::error_code;
using std::chrono::milliseconds;
using std::chrono::steady_clock;
using Acceptor = asio::basic_socket_acceptor<asio::generic::stream_protocol>;

constexpr std::size_t body_read = 64 * 1024;
// Connections past the cap that are told so; beyond these they are closed without a word.
constexpr std::size_t refused_at_once = 64;
constexpr milliseconds accept_backoff{50};

// Beast's grammar, our message: it fills an HttpRequest directly. The header block has passed the framing guard before.
class RequestParser final : public http::basic_parser<true> {
 public:
  RequestParser(HttpRequest& request, const ServerLimits& limits) : request_(request) {
    header_limit(static_cast<std::uint32_t>(limits.header_bytes));
    body_limit(limits.body_bytes);
  }
  bool version_1_0() const { return version_ == 10; }

 private:
  using View = boost::beast::string_view;
  void on_request_impl(http::verb, View method, View target, int version, error_code&) override {
    version_ = version;
    request_.method.assign(method.data(), method.size());
    request_.target.assign(target.data(), target.size());
  }
  void on_response_impl(int, View, int, error_code&) override {}
  void on_field_impl(http::field, View name, View value, error_code&) override {
    if (in_body_) return;  // trailers: nothing in hearth reads them, and they must not pass for headers
    request_.headers.add(std::string(name.data(), name.size()), std::string(value.data(), value.size()));
  }
  void on_header_impl(error_code&) override { in_body_ = true; }
  void on_body_init_impl(const boost::optional<std::uint64_t>& length, error_code&) override {
    constexpr std::uint64_t at_once = 1024 * 1024;  // more is reserved only as it really arrives
    if (length) request_.body.reserve(static_cast<std::size_t>(std::min(*length, at_once)));
  }
  std::size_t on_body_impl(View body, error_code&) override {
    request_.body.append(body.data(), body.size());
    return body.size();
  }
  void on_chunk_header_impl(std::uint64_t, View, error_code&) override {}
  std::size_t on_chunk_body_impl(std::uint64_t, View body, error_code& ec) override { return on_body_impl(body, ec); }
  void on_finish_impl(error_code&) override {}

  HttpRequest& request_;
  int version_ = 11;
  bool in_body_ = false;
};

class Session;

// What the sessions share. Outlives the Server while sessions still run.
struct Core {
  Core(asio::io_context& context, ServerLimits server_limits, Handler server_handler)
      : io(context), limits(server_limits), handler(std::move(server_handler)), acceptor(context), backoff(context), empty(context) {}

  asio::io_context& io;
  ServerLimits limits;
  Handler handler;
  std::unique_ptr<asio::ssl::context> tls;
  Acceptor acceptor;
  asio::steady_timer backoff;
  asio::steady_timer empty;  // cancelled when the last session ends
  std::unordered_set<Session*> sessions;
  bool draining = false;
  std::string socket_path;
  struct stat socket_file{};

  std::string_view date();
  void stop_accepting();

 private:
  std::time_t date_at_ = 0;
  std::string date_;
};

std::string_view Core::date() {
  const auto now = std::time(nullptr);
  if (now != date_at_) {
    date_at_ = now;
    std::tm utc{};
    gmtime_r(&now, &utc);
    char text[64];
    date_.assign(text, std::strftime(text, sizeof text, "%a, %d %b %Y %H:%M:%S GMT", &utc));
  }
  return date_;
}

void Core::stop_accepting() {
  error_code ignored;
  acceptor.close(ignored);
  backoff.cancel();
  if (socket_path.empty()) return;
  // Another server may have put its own socket in our place.
  struct stat now{};
  if (::stat(socket_path.c_str(), &now) == 0 && now.st_dev == socket_file.st_dev && now.st_ino == socket_file.st_ino) {
    ::unlink(socket_path.c_str());
  }
  socket_path.clear();
}

std::string error_body(const Error& error) {
  std::string out = "{\"error\":{\"message\":";
  append_json_string(out, error.message);
  out += http_status(error.code) >= 500 ? ",\"type\":\"server_error\"" : ",\"type\":\"invalid_request_error\"";
  out += ",\"param\":null,\"code\":\"";
  out += name(error.code);
  out += "\"}}";
  return out;
}

Error gone() { return Error{ErrorCode::client_gone, "the client closed the connection"}; }

class Session final : public Exchange {
 public:
  Session(std::shared_ptr<Core> core, Socket socket, std::string peer, bool refused)
      : core_(std::move(core)), connection_(std::make_shared<Connection>(std::move(socket))), refused_(refused) {
    request_.peer = std::move(peer);
    core_->sessions.insert(this);
  }
  ~Session() override {
    connection_->on_ended = nullptr;
    connection_->close();
    core_->sessions.erase(this);
    if (core_->sessions.empty()) core_->empty.cancel();
  }
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  Task<void> run();
  bool idle() const { return idle_; }
  void close() { connection_->close(); }
  // Breaks off: a running handler is told as if its client had left.
  void cut() {
    if (handling_) client_left();
    connection_->close();
  }

  const HttpRequest& request() const override { return request_; }
  Task<Result<void>> respond(int status, Headers headers, std::string body) override;
  Task<Result<void>> begin(int status, Headers headers) override;
  Task<Result<void>> write(std::string_view data) override;
  Task<Result<void>> finish(std::string_view last) override;
  void abort() override;
  bool begun() const override { return state_ != State::waiting; }
  void on_client_gone(std::function<void()> callback) override;

 private:
  enum class State { waiting, streaming, done };
  enum class Next { handle, close, linger };

  Task<Next> read_request();
  Task<Next> read_body(RequestParser& parser);
  Task<Next> refuse(Error error);
  Task<void> handle();
  Result<void> build_head(int status, const Headers& headers, const std::size_t* length);
  Task<Result<void>> send(Parts parts);
  Task<Result<void>> send_piece(std::string_view data, bool last);
  void client_left();
  // Bytes of input() up to and including the empty line, or up to the first bare LF for the guard to refuse; 0 when neither has come yet.
  std::size_t header_end();

  std::shared_ptr<Core> core_;
  std::shared_ptr<Connection> connection_;
  const bool refused_;
  HttpRequest request_;
  std::size_t scanned_ = 0;
  std::string head_;
  std::function<void()> gone_callback_;
  std::shared_ptr<std::function<void()>> late_callback_;
  State state_ = State::waiting;
  bool idle_ = false;
  bool handling_ = false;
  bool gone_ = false;
  bool keep_alive_ = true;
  bool version_1_0_ = false;
  bool is_head_ = false;
};

Task<void> Session::run() {
  if (core_->tls) {
    const auto shaken = co_await connection_->handshake(*core_->tls, {}, core_->limits.header_timeout);
    if (!shaken) co_return;
  }
  auto next = Next::handle;
  while (next == Next::handle) {
    next = co_await read_request();
    if (next != Next::handle) break;
    co_await handle();
    if (!keep_alive_ || core_->draining || !connection_->open()) next = connection_->input().empty() ? Next::close : Next::linger;
  }
  if (next == Next::linger) {
    co_await connection_->linger();
  } else {
    co_await connection_->finish();
  }
}

std::size_t Session::header_end() {
  const auto in = connection_->input();
  for (;;) {
    const auto lf = in.find('\n', scanned_);
    if (lf == std::string_view::npos) {
      scanned_ = in.size();
      return 0;
    }
    scanned_ = lf + 1;
    if (lf == 0 || in[lf - 1] != '\r') return lf + 1;
    if (lf >= 3 && in[lf - 3] == '\r' && in[lf - 2] == '\n') return lf + 1;
  }
}

Task<Session::Next> Session::read_request() {
  const auto& limits = core_->limits;
  request_.method.clear();
  request_.target.clear();
  request_.headers = {};
  request_.body.clear();
  state_ = State::waiting;
  scanned_ = 0;

  std::size_t size = 0;
  bool started = !connection_->input().empty();
  auto deadline = steady_clock::now() + (started ? limits.header_timeout : limits.idle_timeout);
  for (;;) {
    // Empty lines before a request are noise of old clients (RFC 9112, 2.2).
    while (scanned_ == 0 && connection_->input().starts_with("\r\n")) connection_->consume(2);
    const auto in = connection_->input();
    if (!in.empty()) {
      if (!started) {
        started = true;
        deadline = steady_clock::now() + limits.header_timeout;
      }
      if (!is_token_char(in.front()) && in != "\r") co_return co_await refuse(invalid("this is not an HTTP request"));
      size = header_end();
      if (size > limits.header_bytes || (size == 0 && in.size() >= limits.header_bytes)) {
        Error error{ErrorCode::headers_too_large, fmt::format("the request header is larger than {} bytes", limits.header_bytes)};
        co_return co_await refuse(std::move(error));
      }
      if (size > 0) break;
    }
    if (in.empty() && core_->draining) co_return Next::close;
    idle_ = in.empty();
    const auto wake = co_await connection_->more(deadline, limits.header_bytes);
    idle_ = false;
    if (wake == Connection::Wake::ended) co_return Next::close;
    if (wake == Connection::Wake::timeout) {
      if (!started) co_return Next::close;
      Error error{ErrorCode::request_timeout, "the request header did not arrive in time"};
      co_return co_await refuse(std::move(error));
    }
  }
  if (refused_) {
    Error error{ErrorCode::unavailable, fmt::format("too many connections: the limit is {}", limits.connections)};
    co_return co_await refuse(std::move(error));
  }

  const auto framing = check_request_framing(connection_->input().substr(0, size));
  if (!framing) {
    Error error = framing.error();
    co_return co_await refuse(std::move(error));
  }
  RequestParser parser(request_, limits);
  error_code ec;
  connection_->consume(parser.put(asio::buffer(connection_->input().data(), size), ec));
  if (ec == http::error::body_limit) {
    Error error{ErrorCode::payload_too_large, fmt::format("the request body is larger than {} bytes", limits.body_bytes)};
    co_return co_await refuse(std::move(error));
  }
  if (ec || !parser.is_header_done()) co_return co_await refuse(invalid("malformed request header: " + ec.message()));
  version_1_0_ = parser.version_1_0();
  is_head_ = request_.method == "HEAD";
  keep_alive_ = !version_1_0_ && parser.keep_alive();
  if (parser.is_done()) co_return Next::handle;
  co_return co_await read_body(parser);
}

Task<Session::Next> Session::read_body(RequestParser& parser) {
  const auto& limits = core_->limits;
  if (const auto expect = request_.headers.find("Expect"); expect && !version_1_0_) {
    if (!same_field_name(*expect, "100-continue")) co_return co_await refuse(invalid("unknown Expect header: only 100-continue is known"));
    if (connection_->input().empty()) {
      constexpr std::string_view go = "HTTP/1.1 100 Continue\r\n\r\n";
      const Parts parts{asio::buffer(go)};
      if (!co_await connection_->write(parts, limits.write_timeout)) co_return Next::close;
    }
  }
  const auto last = steady_clock::now() + 10 * limits.body_timeout;
  for (;;) {
    if (const auto in = connection_->input(); !in.empty()) {
      error_code ec;
      parser.eager(true);
      connection_->consume(parser.put(asio::buffer(in), ec));
      if (parser.is_done()) co_return Next::handle;
      if (ec == http::error::body_limit) {
        Error error{ErrorCode::payload_too_large, fmt::format("the request body is larger than {} bytes", limits.body_bytes)};
        co_return co_await refuse(std::move(error));
      }
      if (ec && ec != http::error::need_more) co_return co_await refuse(invalid("malformed request body: " + ec.message()));
    }
    const auto deadline = std::min(last, steady_clock::now() + limits.body_timeout);
    const auto wake = co_await connection_->more(deadline, body_read);
    if (wake == Connection::Wake::ended) co_return Next::close;
    if (wake == Connection::Wake::full) co_return co_await refuse(invalid("malformed request body: a chunk header or trailer is too long"));
    if (wake == Connection::Wake::timeout) {
      Error error{ErrorCode::request_timeout, "the request body did not arrive in time"};
      co_return co_await refuse(std::move(error));
    }
  }
}

Task<Session::Next> Session::refuse(Error error) {
  keep_alive_ = false;
  is_head_ = false;
  auto body = error_body(error);
  Headers headers;
  headers.add("Content-Type", "application/json");
  if (error.code == ErrorCode::unavailable) headers.add("Retry-After", "1");
  const auto sent = co_await respond(http_status(error.code), std::move(headers), std::move(body));
  co_return sent ? Next::linger : Next::close;
}

Task<void> Session::handle() {
  handling_ = true;
  connection_->on_ended = [this] { client_left(); };
  if (connection_->ended()) client_left();
  connection_->watch();
  std::string failure;
  try {
    auto work = core_->handler(*this);
    co_await std::move(work);
  } catch (const std::exception& e) { failure = e.what(); } catch (...) {
    failure = "an exception of unknown type";
  }
  handling_ = false;
  connection_->on_ended = nullptr;
  on_client_gone(nullptr);
  if (!failure.empty()) spdlog::error("{} {}: the handler failed: {}", request_.method, request_.path(), failure);
  if (state_ == State::done || gone_) co_return;
  if (state_ == State::streaming || !connection_->open()) {
    abort();
    co_return;
  }
  if (failure.empty()) spdlog::error("{} {}: the handler gave no answer", request_.method, request_.path());
  keep_alive_ = false;
  Headers headers;
  headers.add("Content-Type", "application/json");
  auto body = error_body(internal_error("an internal error; the server's log has more"));
  const auto sent = co_await respond(500, std::move(headers), std::move(body));
  if (!sent) connection_->close();
}

void Session::client_left() {
  gone_ = true;
  connection_->close();
  if (gone_callback_) std::exchange(gone_callback_, nullptr)();
}

void Session::on_client_gone(std::function<void()> callback) {
  late_callback_ = nullptr;
  if (!gone_ || !callback) {
    gone_callback_ = std::move(callback);
    return;
  }
  // Left already: still called from the loop, never from inside this call, and not at all once it is taken back.
  late_callback_ = std::make_shared<std::function<void()>>(std::move(callback));
  asio::post(core_->io, [weak = std::weak_ptr(late_callback_)] {
    if (const auto late = weak.lock()) (*late)();
  });
}

Result<void> Session::build_head(int status, const Headers& headers, const std::size_t* length) {
  if (core_->draining || version_1_0_) keep_alive_ = false;
  const auto reason = http::obsolete_reason(http::int_to_status(static_cast<unsigned>(status)));
  head_.clear();
  fmt::format_to(std::back_inserter(head_), "HTTP/1.1 {} {}\r\nDate: {}\r\n", status, std::string_view(reason.data(), reason.size()),
                 core_->date());
  for (const auto& [field, value] : headers) {
    const auto breaks = [](char c) { return c == '\r' || c == '\n' || c == '\0'; };
    if (field.empty() || !std::all_of(field.begin(), field.end(), is_token_char) || std::any_of(value.begin(), value.end(), breaks)) {
      head_.clear();
      return internal_error("a response header holds characters that would break the message");
    }
    if (same_field_name(field, "Content-Length") || same_field_name(field, "Transfer-Encoding")) continue;
    if (same_field_name(field, "Connection")) {
      if (same_field_name(value, "close")) keep_alive_ = false;
      continue;
    }
    head_.append(field).append(": ").append(value).append("\r\n");
  }
  const bool bodiless = status == 204 || status == 304;
  if (length != nullptr) {
    if (!bodiless) fmt::format_to(std::back_inserter(head_), "Content-Length: {}\r\n", *length);
  } else if (!version_1_0_) {
    head_ += "Transfer-Encoding: chunked\r\n";
  }
  if (!keep_alive_) head_ += "Connection: close\r\n";
  head_ += "\r\n";
  return {};
}

Task<Result<void>> Session::send(Parts parts) {
  if (gone_) co_return gone();
  const bool sent = co_await connection_->write(parts, core_->limits.write_timeout);
  if (sent && !gone_) co_return Result<void>();
  if (!gone_ && handling_) client_left();
  co_return gone();
}

Task<Result<void>> Session::respond(int status, Headers headers, std::string body) {
  if (gone_) co_return gone();
  if (state_ != State::waiting) co_return internal_error("respond() after the answer has begun");
  const auto length = body.size();
  if (auto built = build_head(status, headers, &length); !built) co_return built;
  state_ = State::done;
  const bool bodiless = is_head_ || status == 204 || status == 304;
  const Parts parts{asio::buffer(head_), bodiless ? asio::const_buffer() : asio::buffer(body)};
  co_return co_await send(parts);
}

Task<Result<void>> Session::begin(int status, Headers headers) {
  if (gone_) co_return gone();
  if (state_ != State::waiting) co_return internal_error("begin() after the answer has begun");
  if (auto built = build_head(status, headers, nullptr); !built) co_return built;
  state_ = State::streaming;
  co_return Result<void>();
}

Task<Result<void>> Session::send_piece(std::string_view data, bool last) {
  if (is_head_) data = {};
  const bool chunked = !version_1_0_ && !is_head_;
  char size[24];
  Parts parts{asio::buffer(head_), asio::const_buffer(), asio::buffer(data)};
  std::string_view end = last ? "0\r\n\r\n" : "";
  if (!data.empty()) {
    parts[1] = asio::buffer(size, chunked ? fmt::format_to_n(size, sizeof size, "{:x}\r\n", data.size()).size : 0);
    end = last ? "\r\n0\r\n\r\n" : "\r\n";
  }
  if (chunked) parts[3] = asio::buffer(end);
  auto sent = co_await send(parts);
  head_.clear();
  co_return sent;
}

Task<Result<void>> Session::write(std::string_view data) {
  if (gone_) co_return gone();
  if (state_ != State::streaming) co_return internal_error("write() without begin()");
  if (data.empty() && head_.empty()) co_return Result<void>();
  co_return co_await send_piece(data, false);
}

Task<Result<void>> Session::finish(std::string_view last) {
  if (gone_) co_return gone();
  if (state_ != State::streaming) co_return internal_error("finish() without begin()");
  state_ = State::done;
  co_return co_await send_piece(last, true);
}

void Session::abort() {
  state_ = State::done;
  gone_ = true;
  keep_alive_ = false;
  connection_->on_ended = nullptr;
  connection_->reset();
}

Task<void> run_session(std::shared_ptr<Core> core, Socket socket, std::string peer, bool refused) {
  Session session(std::move(core), std::move(socket), std::move(peer), refused);
  co_await session.run();
}

std::string peer_name(const Socket& socket) {
  error_code ec;
  const auto remote = socket.remote_endpoint(ec);
  if (ec || remote.data()->sa_family == AF_UNIX) return "unix";
  asio::ip::tcp::endpoint tcp;
  if (remote.size() > tcp.capacity()) return "unknown";
  std::memcpy(tcp.data(), remote.data(), remote.size());
  tcp.resize(remote.size());
  return tcp.address().to_string();
}

Task<void> accept_loop(std::shared_ptr<Core> core) {
  while (core->acceptor.is_open()) {
    Socket socket(core->io);
    error_code ec;
    co_await core->acceptor.async_accept(socket, asio::redirect_error(asio::use_awaitable, ec));
    if (!core->acceptor.is_open()) co_return;
    if (ec) {
      // Most often the file descriptors ran out: connections that end will free some.
      if (ec != asio::error::connection_aborted) {
        spdlog::warn("cannot accept a connection: {}; trying again in {} ms", ec.message(), accept_backoff.count());
        core->backoff.expires_after(accept_backoff);
        co_await core->backoff.async_wait(asio::redirect_error(asio::use_awaitable, ec));
      }
      continue;
    }
    const auto open = core->sessions.size();
    const bool refused = open >= core->limits.connections;
    if (open >= core->limits.connections + refused_at_once) continue;
    auto peer = peer_name(socket);
    socket.non_blocking(true, ec);
    if (peer != "unix") socket.set_option(asio::ip::tcp::no_delay(true), ec);
    asio::co_spawn(core->io, run_session(core, std::move(socket), std::move(peer), refused), asio::detached);
  }
}

Error cannot_listen(const Endpoint& endpoint, const std::string& why) {
  return Error{ErrorCode::io, "cannot listen on " + to_string(endpoint) + ": " + why};
}

Result<std::unique_ptr<asio::ssl::context>> load_tls(const TlsFiles& files) {
  auto context = std::make_unique<asio::ssl::context>(asio::ssl::context::tls_server);
  SSL_CTX_set_min_proto_version(context->native_handle(), TLS1_2_VERSION);
  SSL_CTX_set_options(context->native_handle(), SSL_OP_NO_RENEGOTIATION);
  error_code ec;
  context->use_certificate_chain_file(files.certificate, ec);
  if (ec) {
    return Error{ErrorCode::io, "cannot use the TLS certificate " + files.certificate + ": " + ec.message() + "; it must be a PEM file"};
  }
  context->use_private_key_file(files.key, asio::ssl::context::pem, ec);
  if (ec) {
    return Error{ErrorCode::io, "cannot use the TLS key " + files.key + ": " + ec.message() +
                                    "; it must be an unencrypted PEM file that belongs to the certificate " + files.certificate};
  }
  return context;
}

Result<void> bind_tcp(Core& core, const Endpoint& endpoint, const TcpEndpoint& tcp) {
  error_code ec;
  asio::ip::tcp::resolver resolver(core.io);
  const auto found = resolver.resolve(tcp.host, std::to_string(tcp.port), asio::ip::tcp::resolver::passive, ec);
  if (ec || found.empty()) return cannot_listen(endpoint, "the host name is unknown (" + ec.message() + ")");
  const asio::generic::stream_protocol::endpoint address(found.begin()->endpoint());
  core.acceptor.open(address.protocol(), ec);
  if (ec) return cannot_listen(endpoint, ec.message());
  core.acceptor.set_option(asio::socket_base::reuse_address(true), ec);
  core.acceptor.bind(address, ec);
  if (!ec) core.acceptor.listen(asio::socket_base::max_listen_connections, ec);
  if (!ec) return {};
  if (ec == asio::error::address_in_use) {
    return cannot_listen(endpoint,
                         fmt::format("port {0} is already in use; stop the program that holds it (find it with: ss -ltnp 'sport = :{0}') "
                                     "or choose another port",
                                     tcp.port));
  }
  if (ec == asio::error::access_denied)
    return cannot_listen(endpoint, "ports below 1024 need root or CAP_NET_BIND_SERVICE; choose a higher port");
  return cannot_listen(endpoint, ec.message());
}

Result<void> bind_unix(Core& core, const Endpoint& endpoint, const std::string& path) {
  if (path.empty() || path.size() >= sizeof(sockaddr_un::sun_path)) {
    return cannot_listen(endpoint, fmt::format("the path of a Unix socket must have 1 to {} bytes", sizeof(sockaddr_un::sun_path) - 1));
  }
  const asio::local::stream_protocol::endpoint local(path);
  struct stat file{};
  error_code ec;
  if (::lstat(path.c_str(), &file) == 0) {
    if (!S_ISSOCK(file.st_mode)) return cannot_listen(endpoint, "the file exists and is not a socket");
    asio::local::stream_protocol::socket probe(core.io);
    probe.open(local.protocol(), ec);
    probe.non_blocking(true, ec);
    // A full backlog (would_block) is somebody listening, too.
    probe.connect(local, ec);
    if (ec != asio::error::connection_refused) {
      return cannot_listen(endpoint, ec && ec != asio::error::would_block && ec != asio::error::try_again
                                         ? ec.message()
                                         : "another program already listens there; stop it or choose another path");
    }
    if (::unlink(path.c_str()) != 0 && errno != ENOENT) return cannot_listen(endpoint, "the stale socket file cannot be removed");
  }
  const asio::generic::stream_protocol::endpoint address(local);
  core.acceptor.open(address.protocol(), ec);
  if (ec) return cannot_listen(endpoint, ec.message());
  const auto mask = ::umask(0177);  // the file must never be open to others, not even between bind and chmod
  core.acceptor.bind(address, ec);
  ::umask(mask);
  if (!ec) core.acceptor.listen(asio::socket_base::max_listen_connections, ec);
  if (ec) return cannot_listen(endpoint, ec.message());
  if (::stat(path.c_str(), &core.socket_file) == 0) core.socket_path = path;
  return {};
}

class ServerImpl final : public Server {
 public:
  ServerImpl(std::shared_ptr<Core> core, unsigned short port) : core_(std::move(core)), port_(port) {}
  ~ServerImpl() override {
    core_->draining = true;
    core_->stop_accepting();
    for (auto* session : core_->sessions) session->close();
  }
  ServerImpl(const ServerImpl&) = delete;
  ServerImpl& operator=(const ServerImpl&) = delete;

  unsigned short port() const override { return port_; }
  std::size_t connections() const override { return core_->sessions.size(); }
  Task<void> drain(milliseconds grace) override;

 private:
  std::shared_ptr<Core> core_;
  unsigned short port_;
};

Task<void> ServerImpl::drain(milliseconds grace) {
  const auto core = core_;
  core->draining = true;
  core->stop_accepting();
  for (auto* session : core->sessions) {
    if (session->idle()) session->close();
  }
  core->empty.expires_after(grace);
  while (!core->sessions.empty()) {
    error_code ec;
    co_await core->empty.async_wait(asio::redirect_error(asio::use_awaitable, ec));
    if (!ec) break;
  }
  // Whatever the callbacks do, sessions end on a later turn of the loop: the set does not change under this loop.
  for (auto* session : core->sessions) session->cut();
}

}  // namespace

Result<std::unique_ptr<Server>> Server::listen(asio::io_context& io, const Endpoint& endpoint, ServerLimits limits,
                                               std::optional<TlsFiles> tls, Handler handler) {
  auto core = std::make_shared<Core>(io, limits, std::move(handler));
  if (tls) {
    auto context = load_tls(*tls);
    if (!context) return std::move(context).error();
    core->tls = std::move(*context);
  }
  const auto* tcp = std::get_if<TcpEndpoint>(&endpoint);
  auto bound = tcp != nullptr ? bind_tcp(*core, endpoint, *tcp) : bind_unix(*core, endpoint, std::get<UnixEndpoint>(endpoint).path);
  if (!bound) return std::move(bound).error();
  unsigned short port = 0;
  if (tcp != nullptr) {
    const auto local = core->acceptor.local_endpoint();
    asio::ip::tcp::endpoint address;
    std::memcpy(address.data(), local.data(), local.size());
    port = address.port();
  }
  asio::co_spawn(io, accept_loop(core), asio::detached);
  return std::unique_ptr<Server>(std::make_unique<ServerImpl>(std::move(core), port));
}

}  // namespace hearth::net
