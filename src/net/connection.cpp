#include "net/connection.h"

#include <algorithm>
#include <boost/asio/ip/address.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/error.hpp>
#include <boost/asio/ssl/host_name_verification.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cstring>
#include <utility>

namespace hearth::net {

namespace {

using boost::system::error_code;
constexpr std::size_t first_buffer = 8 * 1024;
constexpr std::chrono::milliseconds closing_time{1'000};

auto into(error_code& ec) { return asio::redirect_error(asio::use_awaitable, ec); }

void advance(Parts& parts, std::size_t bytes) {
  for (auto& part : parts) {
    const auto step = std::min(bytes, part.size());
    part += step;
    bytes -= step;
  }
}

}  // namespace

struct Connection::Tls {
  asio::ssl::stream<Socket&> stream;
};

Connection::Connection(Socket socket)
    : socket_(std::move(socket)), read_timer_(socket_.get_executor()), guard_timer_(socket_.get_executor()) {}

Connection::~Connection() = default;

Task<Result<void>> Connection::handshake(asio::ssl::context& context, std::string host, std::chrono::milliseconds timeout) {
  const auto self = shared_from_this();
  tls_ = std::make_unique<Tls>(Tls{asio::ssl::stream<Socket&>(socket_, context)});
  auto role = asio::ssl::stream_base::server;
  if (!host.empty()) {
    role = asio::ssl::stream_base::client;
    error_code address;
    asio::ip::make_address(host, address);
    // SNI names hosts, never addresses (RFC 6066, 3).
    if (address) SSL_set_tlsext_host_name(tls_->stream.native_handle(), host.c_str());
    tls_->stream.set_verify_mode(asio::ssl::verify_peer);
    tls_->stream.set_verify_callback(asio::ssl::host_name_verification(host));
  }
  error_code ec;
  guard(timeout);
  co_await tls_->stream.async_handshake(role, into(ec));
  guard_timer_.cancel();
  if (!ec) co_return Result<void>();
  if (!open()) co_return Error{ErrorCode::upstream_timeout, "the TLS handshake took too long"};
  const long verdict = SSL_get_verify_result(tls_->stream.native_handle());
  std::string why = ec.message();
  if (verdict != X509_V_OK) why += std::string(" (") + X509_verify_cert_error_string(verdict) + ")";
  close();
  co_return Error{ErrorCode::upstream_failed, "the TLS handshake failed: " + why};
}

bool Connection::start_read(std::size_t capacity) {
  if (begin_ == end_) begin_ = end_ = 0;
  if (end_ == buffer_.size()) {
    if (begin_ > 0) {
      std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
      end_ -= begin_;
      begin_ = 0;
    } else {
      if (buffer_.size() >= capacity) return false;
      buffer_.resize(std::min(capacity, std::max(first_buffer, buffer_.size() * 2)));
    }
  }
  reading_ = true;
  const auto space = asio::buffer(buffer_.data() + end_, buffer_.size() - end_);
  auto done = [self = shared_from_this()](const error_code& ec, std::size_t bytes) { self->on_read(ec, bytes); };
  if (tls_) {
    tls_->stream.async_read_some(space, std::move(done));
  } else {
    socket_.async_read_some(space, std::move(done));
  }
  return true;
}

void Connection::on_read(const error_code& error, std::size_t bytes) {
  reading_ = false;
  end_ += bytes;
  if (error) {
    ended_ = true;
    truncated_ = error != asio::error::eof;
  }
  if (waiting_) {
    read_timer_.cancel();
  } else if (error && on_ended) {
    std::exchange(on_ended, nullptr)();
  }
}

Task<Connection::Wake> Connection::more(SteadyTime deadline, std::size_t capacity) {
  const auto self = shared_from_this();
  const auto before = end_ - begin_;
  if (!reading_) {
    if (ended_ || !open()) co_return Wake::ended;
    if (!start_read(capacity)) co_return Wake::full;
  }
  waiting_ = true;
  while (reading_) {
    error_code ec;
    read_timer_.expires_at(deadline);
    co_await read_timer_.async_wait(into(ec));
    if (!ec && reading_) break;
  }
  waiting_ = false;
  if (end_ - begin_ > before) co_return Wake::bytes;
  co_return reading_ ? Wake::timeout : Wake::ended;
}

void Connection::watch() {
  if (!reading_ && !ended_ && open()) start_read(first_buffer);
}

void Connection::guard(std::chrono::milliseconds timeout) {
  guard_timer_.expires_after(timeout);
  guard_timer_.async_wait([weak = weak_from_this()](const error_code& ec) {
    if (ec) return;
    if (const auto self = weak.lock()) self->close();
  });
}

Task<bool> Connection::write(Parts parts, std::chrono::milliseconds timeout) {
  const auto self = shared_from_this();
  if (!open()) co_return false;
  if (tls_) co_return co_await write_tls(parts, timeout);
  auto left = asio::buffer_size(parts);
  while (left > 0) {
    error_code ec;
    const auto sent = socket_.write_some(parts, ec);
    left -= sent;
    if (left == 0) break;
    advance(parts, sent);
    if (ec == asio::error::would_block || ec == asio::error::try_again) {
      guard(timeout);
      co_await socket_.async_wait(Socket::wait_write, into(ec));
      guard_timer_.cancel();
    }
    if (ec || !open()) co_return false;
  }
  co_return true;
}

Task<bool> Connection::write_tls(Parts parts, std::chrono::milliseconds timeout) {
  constexpr std::size_t record = 16 * 1024;  // the most one TLS record carries
  auto left = asio::buffer_size(parts);
  while (left > 0) {
    tls_out_.clear();
    for (const auto& part : parts) {
      tls_out_.append(static_cast<const char*>(part.data()), std::min(part.size(), record - tls_out_.size()));
    }
    std::size_t taken = 0;
    while (taken < tls_out_.size()) {
      error_code ec;
      guard(timeout);
      taken += co_await tls_->stream.async_write_some(asio::buffer(tls_out_.data() + taken, tls_out_.size() - taken), into(ec));
      guard_timer_.cancel();
      if (ec || !open()) co_return false;
    }
    left -= taken;
    advance(parts, taken);
  }
  co_return true;
}

Task<void> Connection::finish() {
  const auto self = shared_from_this();
  if (tls_ && open() && !ended_) {
    error_code ignored;
    guard(closing_time);
    co_await tls_->stream.async_shutdown(into(ignored));
    guard_timer_.cancel();
  }
  close();
}

Task<void> Connection::linger() {
  const auto self = shared_from_this();
  error_code ignored;
  if (!tls_ && open()) socket_.shutdown(Socket::shutdown_send, ignored);
  const auto deadline = std::chrono::steady_clock::now() + closing_time;
  for (;;) {
    consume(input().size());
    const auto wake = co_await more(deadline, 64 * 1024);
    if (wake == Wake::ended || wake == Wake::timeout) break;
  }
  co_await finish();
}

void Connection::close() {
  error_code ignored;
  socket_.close(ignored);
}

void Connection::reset() {
  error_code ignored;
  socket_.set_option(asio::socket_base::linger(true, 0), ignored);
  close();
}

}  // namespace hearth::net
