// An OpenAI-compatible engine that answers as a test tells it to: canned frames, errors, silence, a cut connection.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "fleet/health.h"
#include "fleet/loop_event.h"
#include "net/server.h"

namespace hearth::test {

struct FakeEngine {
  enum class End { finish, cut, silence };

  explicit FakeEngine(net::asio::io_context& loop) : io(loop), released(loop) {}

  net::asio::io_context& io;
  // The answer to POST requests.
  int status = 200;
  std::string body;                 // non-streamed answers and errors
  std::vector<std::string> frames;  // streamed when not empty
  End end = End::finish;
  std::string retry_after;
  // GET /health
  std::string health_path = "/health";
  int health_status = 200;
  engine::SchedulerStats stats;
  std::string model = "fake";
  std::chrono::milliseconds frame_delay{0};  // before each frame
  // What came.
  std::vector<net::HttpRequest> seen;
  int open = 0;  // streams not yet ended
  int left = 0;  // streams whose client went away
  fleet::LoopEvent released;
  std::function<void()> on_post;
  std::function<void()> on_begun;  // a stream's head has been sent

  static std::string chunk(const std::string& delta, const std::string& finish = "null") {
    return "data: "
           "{\"id\":\"x\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"fake\",\"choices\":[{\"index\":0,\"delta\":" +
           delta + ",\"finish_reason\":" + finish + "}]}\n\n";
  }
  static std::vector<std::string> hello() {
    return {chunk("{\"role\":\"assistant\",\"content\":\"Hel\"}"), chunk("{\"content\":\"lo\"}"), chunk("{}", "\"stop\""),
            "data: {\"id\":\"x\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"fake\",\"choices\":[],\"usage\":"
            "{\"prompt_tokens\":7,\"completion_tokens\":2,\"total_tokens\":9}}\n\n",
            "data: [DONE]\n\n"};
  }

  net::Task<void> answer(net::Exchange& exchange) {
    const auto path = exchange.request().path();
    net::Headers headers;
    headers.add("Content-Type", "application/json");
    if (path == health_path) {
      auto report = fleet::encode_health(stats);
      (void)co_await exchange.respond(health_status, std::move(headers), std::move(report));
      co_return;
    }
    if (path == "/v1/models") {
      auto list = "{\"object\":\"list\",\"data\":[{\"id\":\"" + model + "\",\"object\":\"model\",\"created\":1,\"owned_by\":\"test\"}]}";
      (void)co_await exchange.respond(200, std::move(headers), std::move(list));
      co_return;
    }
    seen.push_back(exchange.request());
    if (on_post) on_post();
    if (!retry_after.empty()) headers.add("Retry-After", retry_after);
    if (frames.empty() && end == End::finish) {
      (void)co_await exchange.respond(status, std::move(headers), body);
      co_return;
    }
    co_await stream(exchange);
  }

  net::Task<void> stream(net::Exchange& exchange) {
    ++open;
    bool gone = false;
    exchange.on_client_gone([&] {
      gone = true;
      ++left;
      released.notify();
    });
    net::Headers headers;
    headers.add("Content-Type", "text/event-stream");
    (void)co_await exchange.begin(200, std::move(headers));
    if (on_begun) on_begun();
    for (const auto& frame : frames) {
      if (frame_delay.count() > 0) co_await released.wait_until(Clock::system().now() + frame_delay);
      const auto sent = co_await exchange.write(frame);
      if (!sent.ok()) break;
    }
    while (end == End::silence && !gone) co_await released.wait();
    if (end == End::cut) exchange.abort();
    if (end == End::finish && !gone) (void)co_await exchange.finish();
    exchange.on_client_gone(nullptr);
    --open;
  }

  std::unique_ptr<net::Server> serve(const net::Endpoint& at = net::TcpEndpoint{"127.0.0.1", 0}) {
    auto server = net::Server::listen(io, at, {}, std::nullopt, [this](net::Exchange& exchange) { return answer(exchange); });
    return server.ok() ? std::move(*server) : nullptr;
  }
};

}  // namespace hearth::test
