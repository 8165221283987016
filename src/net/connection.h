// One byte stream to a peer (TCP, TLS or a Unix socket), as server and client both need it: a bounded input buffer that keeps filling while
// nobody waits, so that a peer's leaving is noticed at once; reads with a deadline; writes that cost one system call unless the peer is slow.
#pragma once

#include <array>
#include <boost/asio/buffer.hpp>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "net/task.h"

namespace boost::asio::ssl {
class context;
}

namespace hearth::net {

using Socket = asio::generic::stream_protocol::socket;
using Parts = std::array<asio::const_buffer, 4>;  // one write; unused ones stay empty
using SteadyTime = std::chrono::steady_clock::time_point;

// Owned through shared_ptr: pending operations keep it alive. Every open one must be close()d by its owner in the end.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  explicit Connection(Socket socket);
  ~Connection();

  Socket& socket() { return socket_; }
  bool open() const { return socket_.is_open(); }
  bool ended() const { return ended_; }          // the peer closed its side, or the stream broke
  bool truncated() const { return truncated_; }  // it broke: reset, or TLS without a proper end

  // Speaks TLS from here on. `host` non-empty: as a client, with SNI and verification against that name.
  Task<Result<void>> handshake(asio::ssl::context& context, std::string host, std::chrono::milliseconds timeout);

  // Bytes received and not yet consumed. The view stays valid until the next call of more() or watch().
  std::string_view input() const { return {buffer_.data() + begin_, end_ - begin_}; }
  char* mutable_input() { return buffer_.data() + begin_; }
  void consume(std::size_t bytes) { begin_ += bytes; }

  enum class Wake { bytes, ended, timeout, full };
  // Suspends until input() has grown, the peer has ended the stream or the deadline passes; `full` when input() already holds `capacity`.
  Task<Wake> more(SteadyTime deadline, std::size_t capacity);
  // Keeps one read pending while nobody waits. When it finds that the peer has left, on_ended is called; bytes just wait in input().
  void watch();
  std::function<void()> on_ended;

  // Sends everything. False when the peer is gone, or when it took no byte for `timeout` (the connection is closed then).
  Task<bool> write(Parts parts, std::chrono::milliseconds timeout);

  // Ends the stream properly and closes.
  Task<void> finish();
  // Tells the peer that nothing more comes, and discards what it still sends for a moment: closing with unread input would reset the
  // connection and destroy the answer in flight.
  Task<void> linger();
  void close();
  // Closes with a reset, so that the peer cannot take what it has for the whole.
  void reset();

 private:
  struct Tls;
  bool start_read(std::size_t capacity);
  void on_read(const boost::system::error_code& error, std::size_t bytes);
  void guard(std::chrono::milliseconds timeout);  // closes the connection unless guard_timer_ is cancelled in time
  Task<bool> write_tls(Parts parts, std::chrono::milliseconds timeout);

  Socket socket_;
  std::unique_ptr<Tls> tls_;
  asio::steady_timer read_timer_;
  asio::steady_timer guard_timer_;
  std::vector<char> buffer_;
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
  bool reading_ = false;
  bool waiting_ = false;
  bool ended_ = false;
  bool truncated_ = false;
  std::string tls_out_;  // one record's worth: head, chunk frame and data leave together
};

}  // namespace hearth::net
