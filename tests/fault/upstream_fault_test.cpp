// Whatever happens to the bytes between hearth and an engine, an answer arrives whole or ends in exactly one failure: at every position at which it can be
// cut, for every way in which HTTP can tell where a body ends.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/json.h"
#include "fleet/fake_engine.h"
#include "fleet/gate.h"
#include "fleet/loop.h"
#include "fleet/upstream.h"
#include "wire/show.h"

namespace hearth {
namespace {

using namespace std::chrono_literals;
using test::FakeEngine;
using test::Gate;
using test::GatePlan;
namespace asio = net::asio;

std::vector<std::string> recorded() {
  const auto call = [](const std::string& fields) { return FakeEngine::chunk(R"({"tool_calls":[{"index":0,)" + fields + "}]}"); };
  return {FakeEngine::chunk(R"({"role":"assistant","reasoning_content":"Hm."})"),
          FakeEngine::chunk(R"({"content":"I look – "})"),
          ": a sign of life\n\n",
          FakeEngine::chunk(R"({"content":"wait\n\u00e9"})"),
          call(R"("id":"call_1","type":"function","function":{"name":"ls","arguments":""})"),
          call(R"("function":{"arguments":"{\"path\":"})"),
          call(R"("function":{"arguments":"\"/\"}"})"),
          FakeEngine::chunk("{}", "\"tool_calls\""),
          "data: {\"object\":\"chat.completion.chunk\",\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":9}}\n\n",
          "data: [DONE]\n\n"};
}
std::string joined() {
  std::string all;
  for (const auto& frame : recorded()) all += frame;
  return all;
}
std::string without_usage(std::string text) { return text.substr(0, text.find("usage ")); }

const std::string whole =
    "0 reasoning Hm.\n0 text I look – wait\n\u00e9\n0 call 0 begin call_1 ls\n0 call 0 delta {\"path\":\"/\"}\n0 call 0 end\n0 finished "
    "2\nusage 7 0 9\n";

// Reads a request's head, answers with the same bytes each time and closes: for endings of a body that a proper server does not use.
class CannedServer {
 public:
  CannedServer(asio::io_context& io, std::string answer) : state_(std::make_shared<State>(io, std::move(answer))) {
    asio::co_spawn(io, serve(state_), asio::detached);
  }
  ~CannedServer() {
    boost::system::error_code ignored;
    state_->acceptor.close(ignored);
  }
  net::Endpoint endpoint() const { return net::TcpEndpoint{"127.0.0.1", state_->acceptor.local_endpoint().port()}; }

 private:
  struct State {
    State(asio::io_context& loop, std::string bytes)
        : io(loop), answer(std::move(bytes)), acceptor(loop, {asio::ip::address_v4::loopback(), 0}) {}
    asio::io_context& io;
    std::string answer;
    asio::ip::tcp::acceptor acceptor;
  };
  static net::Task<void> serve(std::shared_ptr<State> state) {
    while (true) {
      asio::ip::tcp::socket socket(state->io);
      const auto [failed] = co_await state->acceptor.async_accept(socket, asio::as_tuple(asio::use_awaitable));
      if (failed) co_return;
      asio::co_spawn(state->io, answer(state, std::move(socket)), asio::detached);
    }
  }
  static net::Task<void> answer(std::shared_ptr<State> state, asio::ip::tcp::socket socket) {
    std::string request;
    std::array<char, 4096> bytes;
    while (request.find("\r\n\r\n") == std::string::npos || !request.ends_with('}')) {
      const auto [failed, count] = co_await socket.async_read_some(asio::buffer(bytes), asio::as_tuple(asio::use_awaitable));
      if (failed) co_return;
      request.append(bytes.data(), count);
    }
    co_await asio::async_write(socket, asio::buffer(state->answer), asio::as_tuple(asio::use_awaitable));
  }
  std::shared_ptr<State> state_;
};

struct Outcome {
  std::string events;  // as show() writes them, without a failure
  std::optional<Error> error;
  int failures = 0;
  bool after_failure = false;
  bool done = false;
};

class UpstreamFaultTest : public ::testing::Test {
 protected:
  UpstreamFaultTest() { engine_.frames = recorded(); }
  ~UpstreamFaultTest() override {
    if (server_) test::run(io_, server_->drain(0ms));
  }
  net::Endpoint engine() {
    if (!server_) server_ = engine_.serve();
    return net::TcpEndpoint{"127.0.0.1", server_->port()};
  }

  // Text that arrived in other pieces is the same text.
  static chat::Events merged(chat::Events events) {
    chat::Events out;
    for (auto& event : events) {
      auto* text = std::get_if<chat::TextDelta>(&event);
      auto* before = text && !out.empty() ? std::get_if<chat::TextDelta>(&out.back()) : nullptr;
      auto* call = std::get_if<chat::ToolCallDelta>(&event);
      auto* call_before = call && !out.empty() ? std::get_if<chat::ToolCallDelta>(&out.back()) : nullptr;
      if (before) {
        before->text += text->text;
      } else if (call_before) {
        call_before->arguments += call->arguments;
      } else {
        out.push_back(std::move(event));
      }
    }
    return out;
  }
  static net::Task<void> ask(fleet::HttpUpstream& upstream, Outcome& outcome) {
    chat::Request request;
    request.messages.push_back({.role = chat::Role::user, .content = {{.text = "list"}}});
    wire::Caller caller{.tenant = "t", .request_id = "r"};
    auto stream = co_await upstream.generate(std::move(request), std::move(caller));
    if (!stream.ok()) {
      outcome.error = stream.error();
      outcome.failures = 1;
      outcome.done = true;
      co_return;
    }
    chat::Events all;
    while (true) {
      auto events = co_await (*stream)->next();
      if (events.empty()) break;
      for (auto& event : events) {
        outcome.after_failure = outcome.after_failure || outcome.failures > 0;
        if (const auto* failed = std::get_if<chat::Failed>(&event)) {
          outcome.error = failed->error;
          ++outcome.failures;
        } else {
          all.push_back(std::move(event));
        }
      }
    }
    outcome.events = wire::show(merged(std::move(all)));
    outcome.done = true;
  }
  Outcome through(const net::Endpoint& to, GatePlan plan) {
    const Gate gate(io_, to, {plan});
    fleet::HttpUpstream upstream(io_, gate.endpoint(), options_);
    Outcome outcome;
    test::run(io_, ask(upstream, outcome));
    return outcome;
  }
  // The whole answer, or a beginning of it and one failure that says what happened. True when it was whole.
  bool is_proper(const Outcome& outcome, const std::string& expected, const std::string& where) {
    EXPECT_LE(outcome.failures, 1) << where;
    EXPECT_FALSE(outcome.after_failure) << where;
    if (outcome.failures == 0) {
      EXPECT_EQ(outcome.events, expected) << where << ": half an answer was presented as whole";
      return true;
    }
    EXPECT_TRUE(outcome.error->code == ErrorCode::upstream_failed || outcome.error->code == ErrorCode::upstream_timeout ||
                outcome.error->code == ErrorCode::unavailable)
        << where << ": " << name(outcome.error->code);
    EXPECT_FALSE(outcome.error->message.empty()) << where;
    EXPECT_TRUE(outcome.events.find("finished") == std::string::npos || outcome.events.starts_with(without_usage(whole))) << where;
    return false;
  }
  // At every position; returns at how many the answer was whole.
  int cut_everywhere(const net::Endpoint& to, std::size_t size, const std::string& expected, bool reset) {
    int wholes = 0;
    for (std::size_t at = 0; at < size; ++at) {
      GatePlan plan;
      (reset ? plan.reset_at : plan.truncate_at) = at;
      const auto outcome = through(to, plan);
      auto seen = outcome;
      // Without its own length a body that lacks the usage alone cannot be told from a whole one, and its answer is.
      if (expected == without_usage(whole)) seen.events = without_usage(seen.events);
      if (is_proper(seen, expected, (reset ? "reset at " : "cut at ") + std::to_string(at))) ++wholes;
      if (HasFailure()) break;
    }
    return wholes;
  }

  asio::io_context io_{1};
  FakeEngine engine_{io_};
  fleet::UpstreamOptions options_;
  std::unique_ptr<net::Server> server_;
};

TEST_F(UpstreamFaultTest, SlicesOfAnySizeGiveTheSameAnswer) {
  for (const std::size_t slice : {0, 1, 2, 3, 7, 40, 500}) {
    for (std::uint32_t seed = 1; seed <= 3; ++seed) {
      const auto outcome = through(engine(), {.slice = slice, .request_slice = slice, .seed = seed});
      EXPECT_EQ(outcome.failures, 0) << "slice " << slice << " seed " << seed;
      EXPECT_EQ(outcome.events, whole) << "slice " << slice << " seed " << seed;
    }
  }
}

TEST_F(UpstreamFaultTest, AChunkedAnswerCutAnywhereIsWholeOrOneFailure) {
  const Gate gate(io_, engine());
  {
    fleet::HttpUpstream upstream(io_, gate.endpoint(), options_);
    Outcome outcome;
    test::run(io_, ask(upstream, outcome));
    ASSERT_EQ(outcome.events, whole);
  }
  const auto& bytes = gate.answers();
  const auto done = bytes.find("[DONE]");
  ASSERT_NE(done, std::string::npos);
  for (const bool reset : {false, true}) {
    const auto wholes = cut_everywhere(engine(), bytes.size(), whole, reset);
    EXPECT_LT(wholes, static_cast<int>(bytes.size() - done)) << "everything before the end of the stream is a failure";
  }
}

TEST_F(UpstreamFaultTest, AnAnswerWithItsLengthCutAnywhereIsWholeOrOneFailure) {
  const auto body = joined();
  const auto answer =
      "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
  const CannedServer server(io_, answer);
  EXPECT_LE(cut_everywhere(server.endpoint(), answer.size(), whole, false), 1) << "the last byte is a line's end";
}

TEST_F(UpstreamFaultTest, AnAnswerThatEndsWithItsConnectionCutAnywhereIsWholeOrOneFailure) {
  const auto answer = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + joined();
  const CannedServer server(io_, answer);
  const auto finished = answer.find("\"finish_reason\":\"tool_calls\"");
  ASSERT_NE(finished, std::string::npos);
  const auto wholes = cut_everywhere(server.endpoint(), answer.size(), without_usage(whole), false);
  EXPECT_GT(wholes, 0);
  EXPECT_LT(wholes, static_cast<int>(answer.size() - finished));
}

TEST_F(UpstreamFaultTest, AWrongLengthIsWholeOrOneFailure) {
  const auto body = joined();
  const CannedServer server(
      io_, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body);
  for (const int by : {-400, -100, -20, -15, -14, -2, -1, 1, 2, 100}) {
    const auto outcome = through(server.endpoint(), {.content_length = by});
    const bool was_whole = is_proper(outcome, whole, "length " + std::to_string(by));
    // Without its last 14 bytes, [DONE] and its frame, it has said everything.
    EXPECT_EQ(was_whole, by > 0 || by == -14) << by;
  }
}

TEST_F(UpstreamFaultTest, ADocumentCutAnywhereIsWholeOrOneFailure) {
  const std::string body =
      R"({"object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"Hello"},"finish_reason":"stop"}]})";
  for (const std::string& length : {"Content-Length: " + std::to_string(body.size()) + "\r\n", std::string()}) {
    auto answer = "HTTP/1.1 200 OK\r\n" + length;
    answer.append("\r\n").append(body);
    const CannedServer server(io_, answer);
    EXPECT_EQ(through(server.endpoint(), {}).events, "0 text Hello\n0 finished 0\n");
    EXPECT_EQ(cut_everywhere(server.endpoint(), answer.size(), "", false), 0);
  }
}

TEST_F(UpstreamFaultTest, AStallAnywhereIsATimeOut) {
  options_.first_event = options_.next_event = 150ms;
  const Gate gate(io_, engine());
  fleet::HttpUpstream direct(io_, gate.endpoint(), options_);
  Outcome complete;
  test::run(io_, ask(direct, complete));
  const auto size = gate.answers().find("[DONE]");
  ASSERT_NE(size, std::string::npos);
  struct Run {
    Run(asio::io_context& io, const net::Endpoint& to, const fleet::UpstreamOptions& options, std::size_t position)
        : at(position), gate(io, to, {{.stall_at = position}}), upstream(io, gate.endpoint(), options) {}
    std::size_t at;
    Gate gate;
    fleet::HttpUpstream upstream;
    Outcome outcome;
  };
  std::vector<std::unique_ptr<Run>> runs;
  for (std::size_t at = 0; at < size; at += 29) {
    runs.push_back(std::make_unique<Run>(io_, engine(), options_, at));
    asio::co_spawn(io_, ask(runs.back()->upstream, runs.back()->outcome), asio::detached);
  }
  ASSERT_TRUE(
      test::wait_for(io_, [&] { return std::all_of(runs.begin(), runs.end(), [](const auto& run) { return run->outcome.done; }); }));
  for (const auto& run : runs) {
    EXPECT_FALSE(is_proper(run->outcome, whole, "stalled at " + std::to_string(run->at)));
    EXPECT_EQ(run->outcome.error->code, ErrorCode::upstream_timeout) << run->at << ": " << run->outcome.error->message;
  }
}

}  // namespace
}  // namespace hearth
