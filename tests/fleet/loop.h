// Runs coroutines of the I/O loop from a test, and speaks raw HTTP.
#pragma once

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <exception>
#include <functional>
#include <optional>
#include <string>

#include "net/task.h"

namespace hearth::test {

namespace asio = net::asio;

inline net::Task<void> pause(asio::io_context& io, std::chrono::milliseconds time) {
  asio::steady_timer timer(io, time);
  co_await timer.async_wait(asio::as_tuple(asio::use_awaitable));
}

template <class T>
net::Task<void> store(net::Task<T> task, std::optional<T>& into) {
  into.emplace(co_await std::move(task));
}

inline void run(asio::io_context& io, net::Task<void> task) {
  std::exception_ptr failure;
  asio::co_spawn(io, std::move(task), [&](std::exception_ptr thrown) {
    failure = thrown;
    io.stop();
  });
  io.restart();
  io.run();
  if (failure) std::rethrow_exception(failure);
}

// Runs the loop until the task is done.
template <class T>
T run(asio::io_context& io, net::Task<T> task) {
  std::optional<T> result;
  run(io, store(std::move(task), result));
  return std::move(*result);
}

// Runs the loop until the condition holds; false when it does not within `up_to`.
inline net::Task<bool> until(asio::io_context& io, std::function<bool()> condition, std::chrono::milliseconds up_to) {
  const auto deadline = std::chrono::steady_clock::now() + up_to;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) co_return false;
    co_await pause(io, std::chrono::milliseconds(2));
  }
  co_return true;
}
inline bool wait_for(asio::io_context& io, std::function<bool()> condition, std::chrono::milliseconds up_to = std::chrono::seconds(10)) {
  return run(io, until(io, std::move(condition), up_to));
}

// Sends `text` as it is and reads until the server closes.
inline net::Task<std::string> raw_http(asio::io_context& io, unsigned short port, std::string text) {
  asio::ip::tcp::socket socket(io);
  const asio::ip::tcp::endpoint to(asio::ip::address_v4::loopback(), port);
  co_await socket.async_connect(to, asio::use_awaitable);
  co_await asio::async_write(socket, asio::buffer(text), asio::use_awaitable);
  std::string answer;
  co_await asio::async_read(socket, asio::dynamic_buffer(answer), asio::as_tuple(asio::use_awaitable));
  co_return answer;
}

}  // namespace hearth::test
