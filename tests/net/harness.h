// What the network tests share: an io_context on its own thread, and a raw blocking peer that says exactly the bytes a test wants.
#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_future.hpp>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <future>
#include <string>
#include <thread>
#include <utility>

#include "net/task.h"

namespace hearth::net {

class Loop {
 public:
  Loop() : thread_([this] { io.run(); }) {}
  ~Loop() { stop(); }
  void stop() {
    io.stop();
    if (thread_.joinable()) thread_.join();
  }
  template <class T>
  std::future<T> start(Task<T> task) {
    return asio::co_spawn(io, std::move(task), asio::use_future);
  }
  template <class T>
  T run(Task<T> task) {
    return start(std::move(task)).get();
  }
  // Calls on the loop's thread and waits.
  template <class F>
  auto call(F function) {
    std::packaged_task<decltype(function())()> task(std::move(function));
    auto result = task.get_future();
    asio::post(io, [&task] { task(); });
    return result.get();
  }

  asio::io_context io{1};

 private:
  asio::executor_work_guard<asio::io_context::executor_type> work_ = asio::make_work_guard(io);
  std::thread thread_;
};

// One end of a connection. A read that gets nothing for 10 s fails the test instead of hanging it.
class Raw {
 public:
  explicit Raw(int fd) : fd_(fd) {
    const timeval patience{10, 0};
    ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    ::setsockopt(fd_, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    const int at_once = 1;  // a no-op on Unix sockets
    ::setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &at_once, sizeof at_once);
  }
  Raw(Raw&& other) noexcept : fd_(std::exchange(other.fd_, -1)), pending_(std::move(other.pending_)) {}
  Raw& operator=(Raw&& other) noexcept {
    std::swap(fd_, other.fd_);
    pending_ = std::move(other.pending_);
    return *this;
  }
  ~Raw() { close(); }

  static Raw tcp(unsigned short port, int receive_buffer = 0) {
    const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
    if (receive_buffer > 0) ::setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0) << std::strerror(errno);
    return Raw(fd);
  }
  static Raw local(const std::string& path) {
    const int fd = ::socket(AF_UNIX, SOCK_STREAM, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    EXPECT_EQ(::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0) << std::strerror(errno);
    return Raw(fd);
  }

  void send(std::string_view text) {
    while (!text.empty()) {
      const auto sent = ::send(fd_, text.data(), text.size(), MSG_NOSIGNAL);
      if (sent <= 0) return;  // a test that cares sees it in what it reads
      text.remove_prefix(static_cast<std::size_t>(sent));
    }
  }
  // Everything up to and including `end`; shorter when the peer closed first.
  std::string until(std::string_view end) {
    while (pending_.find(end) == std::string::npos) {
      if (!fill()) return std::exchange(pending_, {});
    }
    const auto size = pending_.find(end) + end.size();
    auto out = pending_.substr(0, size);
    pending_.erase(0, size);
    return out;
  }
  // Everything until the peer closes.
  std::string rest() {
    while (fill()) {}
    return std::exchange(pending_, {});
  }
  // The head and a body of Content-Length.
  std::string answer() {
    auto head = until("\r\n\r\n");
    const auto at = head.find("Content-Length: ");
    if (at == std::string::npos) return head;
    const auto length = std::strtoul(head.c_str() + at + 16, nullptr, 10);
    while (pending_.size() < length && fill()) {}
    head += pending_.substr(0, length);
    pending_.erase(0, length);
    return head;
  }
  // Counts bytes until the stream ends with `end`, keeping only the tail.
  std::size_t count_until(std::string_view end) {
    std::size_t count = 0;
    while (!pending_.ends_with(end)) {
      if (pending_.size() > end.size()) {
        count += pending_.size() - end.size();
        pending_.erase(0, pending_.size() - end.size());
      }
      if (!fill()) break;
    }
    return count + std::exchange(pending_, {}).size();
  }
  bool was_reset() const { return reset_; }
  void half_close() { ::shutdown(fd_, SHUT_WR); }
  void close() {
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  }

 private:
  bool fill() {
    char buffer[65536];
    const auto got = ::recv(fd_, buffer, sizeof buffer, 0);
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) ADD_FAILURE() << "the peer stayed silent for 10 s";
    reset_ = reset_ || (got < 0 && errno == ECONNRESET);
    if (got <= 0) return false;
    pending_.append(buffer, static_cast<std::size_t>(got));
    return true;
  }
  int fd_;
  std::string pending_;
  bool reset_ = false;
};

// A listener on a free loopback port whose connections the test plays by hand.
class RawListener {
 public:
  RawListener() : fd_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::bind(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    EXPECT_EQ(::listen(fd_, 16), 0);
    socklen_t size = sizeof address;
    ::getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
  }
  RawListener(const RawListener&) = delete;
  RawListener& operator=(const RawListener&) = delete;
  ~RawListener() { ::close(fd_); }
  unsigned short port() const { return port_; }
  Raw accept() {
    pollfd ready{fd_, POLLIN, 0};
    EXPECT_EQ(::poll(&ready, 1, 10'000), 1) << "nobody connected";
    return Raw(::accept(fd_, nullptr, nullptr));
  }
  bool nobody_waits() {
    pollfd ready{fd_, POLLIN, 0};
    return ::poll(&ready, 1, 0) == 0;
  }

 private:
  int fd_;
  unsigned short port_ = 0;
};

class TempDir {
 public:
  TempDir() {
    std::string pattern = (std::filesystem::temp_directory_path() / "hearth-net-XXXXXX").string();
    if (::mkdtemp(pattern.data()) == nullptr) ADD_FAILURE() << "no temporary folder";
    path_ = pattern;
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  std::string file(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

struct Certificate {
  std::string certificate_file;
  std::string key_file;
};
// A fresh self-signed certificate for localhost and 127.0.0.1.
Certificate make_certificate(const TempDir& folder);

}  // namespace hearth::net
