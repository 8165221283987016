// What networks and dying programs do to bytes, on purpose: a gate stands between a client and a server and passes everything on, but in slices, late,
// cut, stalled or with a wrong length, as its plan says. Usable inside a test's loop; fault_gate is the same as a program.
#pragma once

#include <algorithm>
#include <array>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <charconv>
#include <chrono>
#include <cstdint>
#include <list>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "net/http.h"
#include "net/task.h"

namespace hearth::test {

struct GatePlan {
  std::size_t slice = 0;               // answers leave in pieces of 1 to `slice` bytes; 0: as they come
  std::size_t request_slice = 0;       // and requests
  std::uint32_t seed = 1;              // of the pieces' sizes
  std::chrono::microseconds delay{0};  // before each piece of an answer
  // Of the bytes of all answers on one connection, so many are let through; then:
  std::optional<std::size_t> reset_at;     // the connection is reset
  std::optional<std::size_t> truncate_at;  // it ends properly
  std::optional<std::size_t> stall_at;     // nothing comes any more
  int content_length = 0;                  // added to the first Content-Length of a connection
};

class Gate {
  using Socket = net::asio::generic::stream_protocol::socket;

 public:
  // Listens on a free loopback port, or the given one. The n-th connection goes by the n-th plan, all further ones by the last.
  Gate(net::asio::io_context& io, const net::Endpoint& to, std::vector<GatePlan> plans = {{}}, unsigned short port = 0)
      : state_(std::make_shared<State>(io, to, std::move(plans), port)) {
    net::asio::co_spawn(io, accept(state_), net::asio::detached);
  }
  ~Gate() {
    boost::system::error_code ignored;
    state_->acceptor.close(ignored);
    for (const auto& link : state_->links) {
      if (const auto open = link.lock()) open->close();
    }
  }
  Gate(const Gate&) = delete;
  Gate& operator=(const Gate&) = delete;

  unsigned short port() const { return state_->acceptor.local_endpoint().port(); }
  net::Endpoint endpoint() const { return net::TcpEndpoint{"127.0.0.1", port()}; }
  int connections() const { return static_cast<int>(state_->links.size()); }
  // What has come from the server, whether it was let through or not.
  const std::string& answers() const { return state_->answers; }

 private:
  struct Link {
    Link(net::asio::io_context& io, GatePlan planned) : client(io), server(io), wait(io), plan(planned), random(planned.seed) {}
    void close() {
      boost::system::error_code ignored;
      client.close(ignored);
      server.close(ignored);
      wait.cancel();
    }
    void reset() {
      boost::system::error_code ignored;
      client.set_option(net::asio::socket_base::linger(true, 0), ignored);
      close();
    }
    Socket client, server;
    net::asio::steady_timer wait;
    GatePlan plan;
    std::mt19937 random;
    std::size_t passed = 0;
    std::string head;  // held back until it is whole, when its length is to be changed
    bool head_done = false;
  };
  struct State {
    State(net::asio::io_context& loop, const net::Endpoint& target, std::vector<GatePlan> planned, unsigned short port)
        : io(loop), to(target), plans(std::move(planned)), acceptor(loop, {net::asio::ip::address_v4::loopback(), port}) {}
    net::asio::io_context& io;
    net::Endpoint to;
    std::vector<GatePlan> plans;
    net::asio::ip::tcp::acceptor acceptor;
    std::vector<std::weak_ptr<Link>> links;
    std::string answers;
  };
  static constexpr auto quietly() { return net::asio::as_tuple(net::asio::use_awaitable); }

  static net::Task<void> accept(std::shared_ptr<State> state) {
    while (true) {
      net::asio::ip::tcp::socket incoming(state->io);
      const auto [failed] = co_await state->acceptor.async_accept(incoming, quietly());
      if (failed) co_return;
      const auto& plans = state->plans;
      const auto link = std::make_shared<Link>(state->io, plans[std::min(state->links.size(), plans.size() - 1)]);
      boost::system::error_code ignored;
      incoming.set_option(net::asio::ip::tcp::no_delay(true), ignored);
      link->client = std::move(incoming);
      state->links.push_back(link);
      net::asio::co_spawn(state->io, connect(state, link), net::asio::detached);
    }
  }
  static net::Task<void> connect(std::shared_ptr<State> state, std::shared_ptr<Link> link) {
    net::asio::generic::stream_protocol::endpoint endpoint;
    if (const auto* tcp = std::get_if<net::TcpEndpoint>(&state->to)) {
      boost::system::error_code failed;
      endpoint = net::asio::ip::tcp::endpoint(net::asio::ip::make_address(tcp->host, failed), tcp->port);
    } else {
      endpoint = net::asio::local::stream_protocol::endpoint(std::get<net::UnixEndpoint>(state->to).path);
    }
    const auto [failed] = co_await link->server.async_connect(endpoint, quietly());
    if (failed) {
      link->reset();
      co_return;
    }
    net::asio::co_spawn(state->io, pass_requests(link), net::asio::detached);
    co_await pass_answers(state, link);
  }

  static net::Task<void> pass_requests(std::shared_ptr<Link> link) {
    std::array<char, 16 * 1024> bytes;
    while (true) {
      const auto [failed, count] = co_await link->client.async_read_some(net::asio::buffer(bytes), quietly());
      if (failed) break;
      for (std::size_t at = 0; at < count;) {
        const auto size = piece(*link, link->plan.request_slice, count - at);
        const auto [lost, sent] = co_await net::asio::async_write(link->server, net::asio::buffer(bytes.data() + at, size), quietly());
        if (lost) break;
        at += sent;
      }
    }
    boost::system::error_code ignored;
    link->server.shutdown(Socket::shutdown_send, ignored);
    link->wait.cancel();  // a stalled connection ends with its client
  }

  static net::Task<void> pass_answers(std::shared_ptr<State> state, std::shared_ptr<Link> link) {
    std::array<char, 16 * 1024> bytes;
    while (true) {
      const auto [failed, count] = co_await link->server.async_read_some(net::asio::buffer(bytes), quietly());
      state->answers.append(bytes.data(), count);
      if (failed) {
        if (failed == net::asio::error::eof) {
          link->close();
        } else {
          link->reset();
        }
        co_return;
      }
      const auto out = with_length(*link, std::string(bytes.data(), count));
      const bool more = co_await deliver(link, out);
      if (!more) co_return;
    }
  }

  // False when the plan has ended the connection.
  static net::Task<bool> deliver(std::shared_ptr<Link> link, std::string_view bytes) {
    const auto& plan = link->plan;
    constexpr auto never = static_cast<std::size_t>(-1);
    const auto cut = std::min({plan.reset_at.value_or(never), plan.truncate_at.value_or(never), plan.stall_at.value_or(never)});
    while (!bytes.empty()) {
      if (link->passed == cut) {
        if (plan.stall_at == cut) {
          link->wait.expires_at(std::chrono::steady_clock::time_point::max());
          co_await link->wait.async_wait(quietly());
        }
        if (plan.reset_at == cut) {
          link->reset();
        } else {
          link->close();
        }
        co_return false;
      }
      if (plan.delay.count() > 0) {
        link->wait.expires_after(plan.delay);
        co_await link->wait.async_wait(quietly());
      }
      const auto size = std::min(piece(*link, plan.slice, bytes.size()), cut - link->passed);
      const auto [failed, sent] = co_await net::asio::async_write(link->client, net::asio::buffer(bytes.data(), size), quietly());
      if (failed) {
        link->close();
        co_return false;
      }
      link->passed += sent;
      bytes.remove_prefix(sent);
    }
    co_return true;
  }

  static std::size_t piece(Link& link, std::size_t slice, std::size_t left) {
    if (slice == 0) return left;
    return std::min(left, std::uniform_int_distribution<std::size_t>(1, slice)(link.random));
  }

  static std::string with_length(Link& link, std::string bytes) {
    if (link.plan.content_length == 0 || link.head_done) return bytes;
    link.head += bytes;
    if (link.head.find("\r\n\r\n") == std::string::npos) return {};
    link.head_done = true;
    constexpr std::string_view field = "\r\nContent-Length: ";
    const auto at = link.head.find(field);
    if (at == std::string::npos) return std::move(link.head);
    const auto begin = at + field.size();
    const auto end = link.head.find('\r', begin);
    long length = 0;
    std::from_chars(link.head.data() + begin, link.head.data() + end, length);
    link.head.replace(begin, end - begin, std::to_string(length + link.plan.content_length));
    return std::move(link.head);
  }

  std::shared_ptr<State> state_;
};

}  // namespace hearth::test
