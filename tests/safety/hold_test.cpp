// The selective buffer between real upstream decoders and real client codecs: whatever the bytes' borders, the same calls come out, and none before its ruling.
#include "safety/hold.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <boost/asio/detached.hpp>
#include <boost/asio/steady_timer.hpp>
#include <regex>

#include "net/sse.h"
#include "safety/approvals.h"
#include "wire/anthropic.h"
#include "wire/endpoint_harness.h"
#include "wire/openai.h"
#include "wire/random.h"

namespace hearth::safety {
namespace {

using namespace std::chrono_literals;
using net::Task;
using testing::HasSubstr;
using testing::Not;
namespace asio = net::asio;

// ---- an upstream whose bytes come in given pieces

class Decoder {
 public:
  virtual ~Decoder() = default;
  virtual Result<void> decode(const net::SseEvent& frame, chat::Events& out) = 0;
  virtual Result<void> finish(chat::Events& out) = 0;
  virtual bool done() const = 0;
  virtual bool understood() const = 0;
};
class OpenAi final : public Decoder {
 public:
  Result<void> decode(const net::SseEvent& frame, chat::Events& out) override { return decoder_.decode(frame.data, out); }
  Result<void> finish(chat::Events& out) override { return decoder_.finish(out); }
  bool done() const override { return decoder_.done(); }
  bool understood() const override { return decoder_.understood(); }

 private:
  wire::openai::StreamDecoder decoder_;
};
class Anthropic final : public Decoder {
 public:
  Result<void> decode(const net::SseEvent& frame, chat::Events& out) override { return decoder_.decode(frame.event, frame.data, out); }
  Result<void> finish(chat::Events&) override { return decoder_.finish(); }
  bool done() const override { return decoder_.done(); }
  bool understood() const override { return decoder_.understood(); }

 private:
  wire::anthropic::StreamDecoder decoder_;
};

// One piece a turn of the loop; `silent`: after the last one nothing more comes.
class Upstream final : public wire::EventStream {
 public:
  Upstream(asio::io_context& io, wire::Protocol protocol, std::vector<std::string> pieces, bool silent)
      : protocol_(protocol), pieces_(std::move(pieces)), silent_(silent), wake_(io) {
    if (protocol == wire::Protocol::anthropic) decoder_ = std::make_unique<Anthropic>();
    else decoder_ = std::make_unique<OpenAi>();
    explanation_.add("model", "m");
  }
  Task<chat::Events> next() override {
    chat::Events events;
    raw_.clear();
    while (events.empty() && !ended_ && !decoder_->done()) {
      co_await asio::post(co_await asio::this_coro::executor, asio::use_awaitable);
      if (ended_) co_return chat::Events{};
      if (at_ == pieces_.size()) {
        if (silent_) {
          boost::system::error_code ignored;
          wake_.expires_at(std::chrono::steady_clock::time_point::max());
          co_await wake_.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
          co_return chat::Events{};
        }
        ended_ = true;
        auto finished = decoder_->finish(events);
        if (finished.ok() && sse_.pending()) finished = Error{ErrorCode::upstream_failed, "cut"};
        if (!finished.ok()) events.emplace_back(chat::Failed{finished.error()});
        break;
      }
      std::vector<net::SseEvent> frames;
      auto fed = sse_.feed(pieces_[at_++], frames);
      for (auto& frame : frames) {
        if (!fed.ok() || decoder_->done()) break;
        const std::size_t before = events.size();
        fed = decoder_->decode(frame, events);
        if (fed.ok()) raw_.push_back({std::move(frame.raw), events.size() - before, decoder_->understood()});
      }
      if (!fed.ok()) {
        ended_ = true;
        events.emplace_back(chat::Failed{fed.error()});
      }
    }
    co_return events;
  }
  void cancel() override {
    ended_ = true;
    wake_.cancel();
  }
  const chat::Explanation& explanation() const override { return explanation_; }
  wire::Protocol raw_protocol() const override { return protocol_; }
  std::span<const wire::RawFrame> raw() const override { return raw_; }

 private:
  const wire::Protocol protocol_;
  std::unique_ptr<Decoder> decoder_;
  net::SseDecoder sse_{net::SseDecoder::usual_limit, true};
  std::vector<std::string> pieces_;
  std::size_t at_ = 0;
  const bool silent_;
  bool ended_ = false;
  std::vector<wire::RawFrame> raw_;
  asio::steady_timer wake_;
  chat::Explanation explanation_;
};

// ---- a judge that knows one word

struct Log {
  std::vector<std::string> asked, refused, withdrawn;
  std::function<void(const chat::ToolCall& call)> on_ask;
  std::vector<std::function<void(bool release)>> waiting;  // of calls that say "later"
};

class WordArbiter final : public Arbiter {
 public:
  WordArbiter(asio::io_context& io, Log& log) : io_(io), log_(log) {}

  struct Asked final : Question {
    Asked(Log& to, std::string what) : log(to), call(std::move(what)) {}
    ~Asked() override {
      if (!*told) log.withdrawn.push_back(call);
      *gone = true;
    }
    Log& log;
    const std::string call;
    std::shared_ptr<bool> told = std::make_shared<bool>(false), gone = std::make_shared<bool>(false);
  };
  std::unique_ptr<Question> ask(const chat::ToolCall& call, std::function<void(Ruling)> ruled) override {
    log_.asked.push_back(call.name + call.arguments);
    if (log_.on_ask) log_.on_ask(call);
    auto question = std::make_unique<Asked>(log_, call.name + call.arguments);
    const auto tell = [gone = question->gone, told = question->told, ruled, arguments = call.arguments](bool release) {
      if (*gone) return;
      *told = true;
      Ruling ruling{.release = release};
      if (release && arguments.find("mask") != std::string::npos) ruling.arguments = R"({"command":"masked"})";
      if (!release) ruling.text = "refused: too dangerous";
      ruled(std::move(ruling));
    };
    if (call.arguments.find("later") != std::string::npos) log_.waiting.emplace_back(tell);
    else
      asio::post(io_, [tell, good = call.arguments.find("evil") == std::string::npos && parse_json(call.arguments).ok()] { tell(good); });
    return question;
  }
  std::string refuse(const chat::ToolCall& call, std::string_view rule, std::string_view, bool) override {
    log_.refused.push_back(std::string(rule) + " " + call.name);
    return "refused: " + std::string(rule);
  }

 private:
  asio::io_context& io_;
  Log& log_;
};

// ---- answers of an upstream

std::string openai(const std::string& delta, const std::string& finish = "null", int choice = 0) {
  return R"(data: {"id":"chatcmpl-up","object":"chat.completion.chunk","created":7,"model":"m","choices":[{"index":)" +
         std::to_string(choice) + ",\"delta\":" + delta + ",\"finish_reason\":" + finish + "}]}\n\n";
}
std::string quoted(const std::string& text) {
  std::string out;
  append_json_string(out, text);
  return out;
}
std::string openai_begin(int index, const std::string& mark, const std::string& name = "bash") {
  return openai(R"({"tool_calls":[{"index":)" + std::to_string(index) + R"(,"id":"call_)" + mark +
                R"(","type":"function","function":{"name":)" + quoted(name + mark) + R"(,"arguments":""}}]})");
}
std::string openai_more(int index, const std::string& piece) {
  return openai(R"({"tool_calls":[{"index":)" + std::to_string(index) + R"(,"function":{"arguments":)" + quoted(piece) + "}}]}");
}
const std::string openai_usage =
    R"(data: {"id":"chatcmpl-up","object":"chat.completion.chunk","created":7,"model":"m","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}})"
    "\n\n";
const std::string openai_done = "data: [DONE]\n\n";

std::string event(const std::string& type, const std::string& fields) {
  return "event: " + type + "\ndata: {\"type\":\"" + type + "\"" + (fields.empty() ? "" : "," + fields) + "}\n\n";
}
std::string block_start(int index, const std::string& block) {
  return event("content_block_start", "\"index\":" + std::to_string(index) + ",\"content_block\":" + block);
}
std::string block_delta(int index, const std::string& delta) {
  return event("content_block_delta", "\"index\":" + std::to_string(index) + ",\"delta\":" + delta);
}
std::string block_stop(int index) { return event("content_block_stop", "\"index\":" + std::to_string(index)); }
std::string text_block(int index, const std::string& text) {
  return block_start(index, R"({"type":"text","text":""})") + block_delta(index, R"({"type":"text_delta","text":)" + quoted(text) + "}") +
         block_stop(index);
}
std::string call_block(int index, const std::string& mark, const std::vector<std::string>& pieces) {
  std::string out = block_start(index, R"({"type":"tool_use","id":"toolu_)" + mark + R"(","name":"bash)" + mark + R"(","input":{}})");
  for (const auto& piece : pieces) out += block_delta(index, R"({"type":"input_json_delta","partial_json":)" + quoted(piece) + "}");
  return out + block_stop(index);
}
const std::string message_start = event(
    "message_start",
    R"("message":{"id":"msg_up","type":"message","role":"assistant","model":"m","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":3,"output_tokens":1}})");
const std::string message_end =
    event("message_delta", R"("delta":{"stop_reason":"tool_use","stop_sequence":null},"usage":{"output_tokens":4})") +
    event("message_stop", "");

// A transcript: text says no capital letter but those of the end markers; the call with mark Y is harmless, the one with mark Z is not.
struct Transcript {
  std::string name;
  wire::Protocol protocol;
  std::string bytes;
  std::vector<std::string> calls;  // marks of the calls that are released
  std::vector<std::string> never;  // and of those that are not
};
std::vector<Transcript> transcripts() {
  const auto role = openai(R"({"role":"assistant","content":""})");
  const auto text = openai(R"({"content":"let me see message_stop "})") + openai(R"({"content":"[done]"})");
  const auto call_y = openai_begin(0, "Y") + openai_more(0, R"({"comm)") + openai_more(0, R"(and":"ls Y"})");
  const auto end = openai("{}", R"("tool_calls")") + openai_usage + openai_done;
  std::vector<Transcript> out;
  const auto add = [&](std::string name, wire::Protocol protocol, std::string bytes, std::vector<std::string> calls,
                       std::vector<std::string> never) {
    out.push_back({std::move(name), protocol, std::move(bytes), std::move(calls), std::move(never)});
  };
  using enum wire::Protocol;
  add("text", openai_chat, role + text + openai("{}", "\"stop\"") + openai_usage + openai_done, {}, {});
  add("call", openai_chat, role + text + call_y + end, {"Y"}, {});
  add("evil call", openai_chat, role + text + openai_begin(0, "Z") + openai_more(0, R"({"command":"evil Z"})") + end, {}, {"Z"});
  add("call, then an evil one", openai_chat,
      role + text + call_y + openai_begin(1, "Z") + openai_more(1, R"({"command":"evil)") + openai_more(1, R"( Z"})") + end, {"Y"}, {"Z"});
  add("evil call, then a good one", openai_chat,
      role + openai_begin(0, "Z") + openai_more(0, R"({"command":"evil Z"})") + openai_begin(1, "Y") +
          openai_more(1, R"({"command":"ls Y"})") + end,
      {"Y"}, {"Z"});
  add("text between", openai_chat,
      role + call_y + openai(R"({"content":"and more"})") + openai_begin(1, "Z") + openai_more(1, R"({"command":"evil Z"})") +
          openai(R"({"content":"and the end"})") + end,
      {"Y"}, {"Z"});
  add("unparsable", openai_chat, role + openai_begin(0, "Z") + openai_more(0, R"({"command":"ls Z")") + end, {}, {"Z"});
  add("duplicate key", openai_chat, role + openai_begin(0, "Z") + openai_more(0, R"({"command":"ls","command":"Z"})") + end, {}, {"Z"});
  add("escaped name", openai_chat,
      role +
          R"(data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"Z","\u0066unction":{"n\u0061me":"b\u0061shZ","arguments":"{\"command\":\"ev\u0069l Z\"}"}}]}}]})"
          "\n\n" +
          end,
      {}, {"Z"});
  add("old form of calls", openai_chat, role + text + openai(R"({"function_call":{"name":"bashZ","arguments":"{}"}})") + end, {}, {"Z"});
  add("a key twice in a frame", openai_chat,
      role + text +
          R"(data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"Z","type":"function","function":{"name":"bashZ","arguments":"{}"}}]},"delta":{"content":"hm"}}]})"
          "\n\n" +
          end,
      {}, {"Z"});
  add("calls under one number", openai_chat,
      role +
          openai(
              R"({"tool_calls":[{"index":0,"id":"a","type":"function","function":{"name":"bashY","arguments":"{\"command\":\"ls Y\"}"}}]})") +
          openai(
              R"({"tool_calls":[{"index":0,"id":"b","type":"function","function":{"name":"bashZ","arguments":"{\"command\":\"evil Z\"}"}}]})") +
          end,
      {"Y"}, {"Z"});
  const auto say = text_block(0, "let me see message_stop [done]");
  add("text", anthropic, message_start + say + message_end, {}, {});
  add("call", anthropic, message_start + say + call_block(1, "Y", {"", R"({"comm)", R"(and":"ls Y"})"}) + message_end, {"Y"}, {});
  add("evil call", anthropic, message_start + say + call_block(1, "Z", {R"({"command":"evil)", R"( Z"})"}) + message_end, {}, {"Z"});
  add("call, evil call, text, call", anthropic,
      message_start + event("ping", "") + say + call_block(1, "Y", {R"({"command":"ls Y"})"}) +
          call_block(2, "Z", {R"({"command":"evil Z"})"}) + text_block(3, "now this") + call_block(4, "X", {R"({"command":"ls X"})"}) +
          message_end,
      {"Y", "X"}, {"Z"});
  add("evil start of a block", anthropic,
      message_start + say + block_start(1, R"({"type":"tool_use","id":"Z","name":"bashZ","input":{"command":"evil Z"}})") + block_stop(1) +
          message_end,
      {}, {"Z"});
  add("a block of an unknown kind", anthropic,
      message_start + say + block_start(1, R"({"type":"tool_use_2","id":"Z","name":"bashZ","input":{}})") + block_stop(1) + message_end, {},
      {"Z"});
  add("content in the message's start", anthropic,
      event(
          "message_start",
          R"("message":{"id":"msg_up","model":"m","content":[{"type":"tool_use","id":"Z","name":"Z","input":{}}],"usage":{"input_tokens":3}})") +
          say + message_end,
      {}, {"Z"});
  add("more of a call under another block's number", anthropic,
      message_start + say + call_block(1, "Y", {R"({"command":"ls Y"})"}) +
          block_start(2, R"({"type":"server_tool_use","id":"s","name":"web","input":{}})") +
          block_delta(1, R"({"type":"input_json_delta","partial_json":"Z"})") + block_stop(2) + message_end,
      {"Y"}, {"Z"});
  return out;
}

struct Client {
  std::string name;
  wire::Protocol protocol;
  std::string path, body;
};
std::vector<Client> clients() {
  using enum wire::Protocol;
  const std::string messages = R"("model":"m","messages":[{"role":"user","content":"hi"}],"max_tokens":9)";
  std::vector<Client> out;
  for (const std::string stream : {"true", "false"}) {
    const std::string form = stream == "true" ? " stream" : " whole";
    out.push_back(
        {"openai" + form, stream == "true" ? openai_chat : other, "/v1/chat/completions",
         "{" + messages + (stream == "true" ? R"(,"stream_options":{"include_usage":true})" : "") + ",\"stream\":" + stream + "}"});
    out.push_back({"anthropic" + form, stream == "true" ? wire::Protocol::anthropic : other, "/v1/messages",
                   "{" + messages + ",\"stream\":" + stream + "}"});
    out.push_back({"responses" + form, other, "/v1/responses", R"({"model":"m","input":"hi","stream":)" + stream + "}"});
    out.push_back({"ollama" + form, other, "/api/chat", "{" + messages + ",\"stream\":" + stream + "}"});
  }
  return out;
}

// What is new in every answer: ids, times.
std::string plain(const std::string& body) {
  static const std::regex ids(R"((chatcmpl-|msg_|resp_|rs_|fc_|item_|toolu_|call_)[0-9a-z]{20,})"),
      times(R"xx("(created|created_at|completed_at)":("[^"]*"|[0-9]+))xx"), durations(R"xx("([a-z_]*duration)":[0-9]+)xx");
  return std::regex_replace(std::regex_replace(std::regex_replace(body, ids, "$1*"), times, "\"$1\":0"), durations, "\"$1\":0");
}

json::array frames_of(const std::string& body) {
  net::SseDecoder sse;
  std::vector<net::SseEvent> events;
  EXPECT_TRUE(sse.feed(body, events).ok());
  json::array out;
  for (const auto& event : events) {
    if (event.data != "[DONE]") out.push_back(json::parse(event.data));
  }
  return out;
}

// What an Anthropic client makes of a stream: where a block of text ends is no difference.
std::string meaning(const std::string& body) {
  std::string out;
  for (const auto& frame : frames_of(body)) {
    const auto type = frame.at("type").as_string();
    if (type == "content_block_start" && frame.at("content_block").at("type").as_string() == "tool_use")
      out += json::serialize(frame.at("content_block"));
    if (type == "content_block_delta") {
      const auto& delta = frame.at("delta").as_object();
      for (const char* key : {"text", "partial_json"}) out += delta.contains(key) ? std::string(delta.at(key).as_string()) : "";
    }
    if (type == "message_start" || type == "message_delta" || type == "message_stop" || type == "error") out += json::serialize(frame);
  }
  return plain(out);
}

// One answer, from the upstream's pieces to the client's bytes.
struct Course {
  asio::io_context io{1};
  Log log;
  wire::FakeExchange exchange;
  HoldLimits limits;
  bool silent = false, closed = false;
  std::chrono::milliseconds keep_alive{0};

  struct OneStream final : wire::Provider {
    explicit OneStream(std::unique_ptr<wire::EventStream> with) : stream(std::move(with)) {}
    Task<Result<std::unique_ptr<wire::EventStream>>> generate(chat::Request, wire::Caller) override { co_return std::move(stream); }
    Task<Result<chat::Embeddings>> embed(chat::EmbeddingRequest, wire::Caller) override { co_return internal_error(""); }
    Task<Result<chat::RerankResult>> rerank(chat::RerankRequest, wire::Caller) override { co_return internal_error(""); }
    Task<Result<int>> count_tokens(chat::Request, wire::Caller) override { co_return internal_error(""); }
    Task<Result<std::vector<chat::TokenInfo>>> score(chat::Request, wire::Caller) override { co_return internal_error(""); }
    Task<Result<std::vector<chat::ModelInfo>>> models() override { co_return internal_error(""); }
    std::unique_ptr<wire::EventStream> stream;
  };

  void begin(const Client& client, wire::Protocol protocol, std::vector<std::string> pieces) {
    exchange.request_ = {"POST", client.path, {}, client.body, "test"};
    auto upstream = std::make_unique<Upstream>(io, protocol, std::move(pieces), silent);
    provider.stream =
        hold_calls(io, std::move(upstream), std::make_unique<WordArbiter>(io, log), limits, client.protocol == protocol, "enforce");
    asio::co_spawn(io, wire::serve(exchange, provider, {"ann", "req-1", nullptr}, {.keep_alive = keep_alive}),
                   [this](std::exception_ptr thrown, bool) {
                     EXPECT_FALSE(thrown);
                     closed = true;
                   });
  }
  std::string run(const Client& client, wire::Protocol protocol, std::vector<std::string> pieces) {
    begin(client, protocol, std::move(pieces));
    io.run();
    EXPECT_TRUE(closed);
    return exchange.body;
  }
  void turn() {
    io.restart();
    for (int i = 0; i < 200; ++i) io.poll_one();
  }
  OneStream provider{nullptr};
};

std::vector<std::string> cut(const std::string& bytes, std::vector<std::size_t> at) {
  std::vector<std::string> out;
  std::size_t from = 0;
  at.push_back(bytes.size());
  for (const std::size_t to : at) {
    if (to > from) out.push_back(bytes.substr(from, to - from));
    from = std::max(from, to);
  }
  return out;
}

void expect_rulings(const Transcript& transcript, const Course& course, const std::string& where) {
  const std::string body = plain(course.exchange.body);
  for (const auto& mark : transcript.calls) EXPECT_THAT(body, HasSubstr("bash" + mark)) << where;
  for (const auto& mark : transcript.never) EXPECT_THAT(body, Not(HasSubstr(mark))) << where;
}

// No byte of a call before its ruling.
void watch(const Transcript& transcript, Course& course, const std::string& where) {
  course.log.on_ask = [&, where](const chat::ToolCall& call) {
    for (const auto& mark : transcript.calls) {
      if (call.name == "bash" + mark)
        EXPECT_THAT(plain(course.exchange.body), Not(HasSubstr(mark))) << where << ": left before it was asked about";
    }
  };
}

TEST(Hold, EverySplitGivesTheSameAnswerAndNothingEarly) {
  for (const auto& transcript : transcripts()) {
    for (const auto& client : clients()) {
      const std::string what =
          transcript.name + (transcript.protocol == wire::Protocol::anthropic ? " (Anthropic) to " : " (OpenAI) to ") + client.name;
      Course unsplit;
      watch(transcript, unsplit, what);
      const auto read = client.name == "anthropic stream" ? meaning : plain;
      const std::string expected = read(unsplit.run(client, transcript.protocol, {transcript.bytes}));
      expect_rulings(transcript, unsplit, what);
      // Every byte where frames pass through; for the rest the decoders see to it, so some.
      const std::size_t step = client.protocol == transcript.protocol ? 1 : 31;
      for (std::size_t at = 1; at < transcript.bytes.size(); at += step) {
        Course course;
        const std::string where = what + ", cut at " + std::to_string(at);
        watch(transcript, course, where);
        ASSERT_EQ(read(course.run(client, transcript.protocol, cut(transcript.bytes, {at}))), expected) << where;
        ASSERT_EQ(course.log.asked, unsplit.log.asked) << where;
      }
    }
  }
}

TEST(Hold, ManyRandomPiecesGiveTheSameAnswer) {
  wire::Random random;
  for (const auto& transcript : transcripts()) {
    for (const auto& client : clients()) {
      Course unsplit;
      const auto read = client.name == "anthropic stream" ? meaning : plain;
      const std::string expected = read(unsplit.run(client, transcript.protocol, {transcript.bytes}));
      for (int round = 0; round < 5; ++round) {
        std::vector<std::size_t> at;
        for (std::size_t n = 1 + random.below(40); n > 0; --n) at.push_back(random.below(transcript.bytes.size()));
        std::sort(at.begin(), at.end());
        Course course;
        watch(transcript, course, transcript.name);
        ASSERT_EQ(read(course.run(client, transcript.protocol, cut(transcript.bytes, at))), expected)
            << transcript.name << " to " << client.name;
      }
    }
  }
}

TEST(Hold, ABrokenUpstreamReleasesNothingWhereverItBreaks) {
  for (const auto& transcript : transcripts()) {
    for (const auto& client : clients()) {
      for (std::size_t size = 0; size < transcript.bytes.size(); size += client.protocol == transcript.protocol ? 3 : 41) {
        Course course;
        course.run(client, transcript.protocol, {transcript.bytes.substr(0, size)});
        for (const auto& mark : transcript.never)
          ASSERT_THAT(plain(course.exchange.body), Not(HasSubstr(mark))) << transcript.name << " to " << client.name << " at " << size;
        // A call that is there was asked about, and whole.
        for (const auto& mark : transcript.calls) {
          const bool asked = std::any_of(course.log.asked.begin(), course.log.asked.end(),
                                         [&](const auto& call) { return call.starts_with("bash" + mark); });
          if (!asked)
            ASSERT_THAT(plain(course.exchange.body), Not(HasSubstr(mark))) << transcript.name << " to " << client.name << " at " << size;
        }
      }
    }
  }
}

const Client& client_of(const std::string& name) {
  static const auto all = clients();
  return *std::find_if(all.begin(), all.end(), [&](const Client& one) { return one.name == name; });
}

TEST(Hold, WhatNobodyRefusesPassesByteForByte) {
  for (const auto& transcript : transcripts()) {
    if (!transcript.never.empty() || transcript.name.find("unparsable") == 0) continue;
    Course course;
    const auto& client = client_of(transcript.protocol == wire::Protocol::anthropic ? "anthropic stream" : "openai stream");
    EXPECT_EQ(course.run(client, transcript.protocol, {transcript.bytes}), transcript.bytes);
  }
}

TEST(Hold, TheCodecGoesOnWhereAnthropicsFramesEnded) {
  for (const auto& transcript : transcripts()) {
    if (transcript.protocol != wire::Protocol::anthropic) continue;
    Course course;
    int next = 0, open = -1, starts = 0, stops = 0;
    bool called = false;
    for (const auto& frame : frames_of(course.run(client_of("anthropic stream"), transcript.protocol, cut(transcript.bytes, {300, 600})))) {
      const auto type = frame.at("type").as_string();
      if (type == "message_start") ++starts;
      if (type == "content_block_start") {
        EXPECT_EQ(open, -1) << transcript.name;
        EXPECT_EQ(frame.at("index").as_int64(), next) << transcript.name << ": numbers without gaps";
        called = called || frame.at("content_block").at("type").as_string() == "tool_use";
        open = next++;
      }
      if (type == "content_block_delta") EXPECT_EQ(frame.at("index").as_int64(), open) << transcript.name;
      if (type == "content_block_stop") {
        EXPECT_EQ(frame.at("index").as_int64(), open) << transcript.name;
        open = -1;
      }
      if (type == "message_delta" && !transcript.never.empty())
        EXPECT_EQ(frame.at("delta").at("stop_reason").as_string(), called ? "tool_use" : "end_turn") << transcript.name;
      if (type == "message_stop") ++stops;
    }
    EXPECT_EQ(starts, 1) << transcript.name;
    EXPECT_EQ(stops, 1) << transcript.name;
    EXPECT_EQ(open, -1) << transcript.name;
  }
}

TEST(Hold, TheCodecGoesOnWhereOpenAisFramesEnded) {
  for (const auto& transcript : transcripts()) {
    if (transcript.protocol != wire::Protocol::openai_chat) continue;
    Course course;
    std::string finish, first_id;
    std::int64_t calls = 0;
    for (const auto& frame : frames_of(course.run(client_of("openai stream"), transcript.protocol, cut(transcript.bytes, {400})))) {
      const auto* id = frame.as_object().if_contains("id");
      if (id != nullptr && first_id.empty()) first_id = id->as_string().c_str();
      if (id != nullptr) EXPECT_EQ(id->as_string(), first_id) << "frames of one answer have one id";
      for (const auto& choice : frame.at("choices").as_array()) {
        EXPECT_EQ(finish, "") << transcript.name;
        if (const auto* reason = choice.as_object().if_contains("finish_reason"); reason != nullptr && reason->is_string())
          finish = reason->as_string().c_str();
        const auto* list = choice.at("delta").as_object().if_contains("tool_calls");
        for (const auto& call : list != nullptr && list->is_array() ? list->get_array() : json::array()) {
          if (call.as_object().contains("id"))
            EXPECT_EQ(call.at("index").as_int64(), calls++) << transcript.name << ": numbers without gaps";
        }
      }
    }
    EXPECT_TRUE(course.exchange.body.ends_with("data: [DONE]\n\n"));
    if (!transcript.never.empty()) EXPECT_EQ(finish, transcript.calls.empty() ? "stop" : "tool_calls") << transcript.name;
  }
}

// No upstream decoder of ours interleaves calls; an engine might.
class Canned final : public wire::EventStream {
 public:
  explicit Canned(std::vector<chat::Events> batches) : batches_(std::move(batches)) {}
  Task<chat::Events> next() override {
    co_await asio::post(co_await asio::this_coro::executor, asio::use_awaitable);
    co_return at_ < batches_.size() ? batches_[at_++] : chat::Events{};
  }
  void cancel() override { at_ = batches_.size(); }
  const chat::Explanation& explanation() const override { return explanation_; }

 private:
  std::vector<chat::Events> batches_;
  std::size_t at_ = 0;
  chat::Explanation explanation_;
};

Task<void> collect(wire::EventStream& from, std::string& out, int& begun) {
  for (;;) {
    const auto events = co_await from.next();
    if (events.empty()) co_return;
    for (const auto& event : events) {
      if (const auto* begin = std::get_if<chat::ToolCallBegin>(&event)) out += begin->name, begun = begin->index;
      if (const auto* delta = std::get_if<chat::ToolCallDelta>(&event)) out += delta->arguments;
    }
  }
}

TEST(Hold, TwoCallsInterleavedAreHeldApart) {
  for (const bool first_good : {true, false}) {
    Course course;
    const std::string evil = R"({"command":"evil"})", good = R"({"command":"good"})";
    std::vector<chat::Events> batches{{chat::ToolCallBegin{0, 0, "a", "one"}, chat::ToolCallBegin{0, 1, "b", "two"}}};
    const std::string& a = first_good ? good : evil;
    const std::string& b = first_good ? evil : good;
    for (std::size_t i = 0; i < good.size(); ++i)
      batches.push_back({chat::ToolCallDelta{0, 0, a.substr(i, 1)}, chat::ToolCallDelta{0, 1, b.substr(i, 1)}});
    batches.push_back({chat::ToolCallEnd{0, 1}});
    batches.push_back({chat::ToolCallEnd{0, 0}, chat::Finished{0, chat::FinishReason::tool_calls}, chat::Usage{}});
    auto stream = hold_calls(course.io, std::make_unique<Canned>(batches), std::make_unique<WordArbiter>(course.io, course.log), {}, false,
                             "enforce");
    std::string released;
    int number = -1;
    asio::co_spawn(course.io, collect(*stream, released, number), asio::detached);
    course.io.run();
    EXPECT_EQ(released, (first_good ? "one" : "two") + good);
    EXPECT_EQ(number, 0);
  }
}

TEST(Hold, TextLeavesInItsTurnWhileACallWaits) {
  Course course;
  course.silent = true;
  const auto& client = client_of("openai stream");
  course.begin(client, wire::Protocol::openai_chat,
               {openai(R"({"role":"assistant","content":"first"})"),
                openai_begin(0, "Y") + openai_more(0, R"({"command":"later Y"})") + openai(R"({"content":"second"})")});
  course.turn();
  EXPECT_THAT(course.exchange.body, HasSubstr("first"));
  EXPECT_THAT(course.exchange.body, Not(HasSubstr("Y")));
  EXPECT_THAT(course.exchange.body, Not(HasSubstr("second"))) << "what comes behind a held call keeps its place";
  ASSERT_EQ(course.log.waiting.size(), 1U);
  course.log.waiting[0](true);
  course.turn();
  EXPECT_THAT(course.exchange.body, HasSubstr("later Y"));
  EXPECT_LT(course.exchange.body.find("later Y"), course.exchange.body.find("second"));
  course.exchange.leave();
  course.turn();
  EXPECT_TRUE(course.closed);
}

TEST(Hold, KeepAlivesGoOnWhileACallWaits) {
  Course course;
  course.keep_alive = 5ms;
  course.begin(client_of("anthropic stream"), wire::Protocol::anthropic,
               {message_start + call_block(0, "Y", {R"({"command":"later Y"})"}) + message_end});
  const auto end = std::chrono::steady_clock::now() + 5s;
  while (course.exchange.body.find("event: ping") == std::string::npos && std::chrono::steady_clock::now() < end)
    course.io.run_one_for(50ms);
  EXPECT_THAT(course.exchange.body, HasSubstr("event: ping"));
  EXPECT_THAT(course.exchange.body, Not(HasSubstr("Y")));
  course.log.waiting.at(0)(false);
  course.io.restart();
  course.io.run();
  EXPECT_TRUE(course.closed);
  EXPECT_THAT(course.exchange.body, HasSubstr("too dangerous"));
  EXPECT_THAT(course.exchange.body, HasSubstr(R"("stop_reason":"end_turn")"));
}

TEST(Hold, AClientThatLeavesWithdrawsItsQuestion) {
  Course course;
  course.begin(client_of("openai stream"), wire::Protocol::openai_chat,
               {openai_begin(0, "Y") + openai_more(0, R"({"command":"later Y"})") + openai("{}", "\"tool_calls\"")});
  course.turn();
  ASSERT_EQ(course.log.waiting.size(), 1U);
  course.exchange.leave();
  course.io.restart();
  course.io.run();
  EXPECT_TRUE(course.closed);
  EXPECT_EQ(course.log.withdrawn.size(), 1U);
  course.log.waiting[0](true);  // too late, and nobody is hurt
  EXPECT_THAT(course.exchange.body, Not(HasSubstr("Y")));
}

TEST(Hold, OverLongCallsAreRefusedAndTheRestOfThemSwallowed) {
  for (const char* name : {"openai stream", "anthropic stream", "responses stream", "ollama whole"}) {
    Course course;
    course.limits.call_bytes = 1000;
    std::string bytes = openai_begin(0, "Z") + openai_more(0, R"({"command":")");
    for (int i = 0; i < 100; ++i) bytes += openai_more(0, "ZZZZZZZZZZZZZZZZZZZZ");
    bytes += openai_more(0, "\"}") + openai(R"({"content":"still here"})") + openai("{}", "\"tool_calls\"") + openai_usage + openai_done;
    course.run(client_of(name), wire::Protocol::openai_chat, {bytes});
    EXPECT_THAT(course.exchange.body, Not(HasSubstr("ZZ"))) << name;
    EXPECT_THAT(course.exchange.body, HasSubstr("still here")) << name;
    EXPECT_EQ(course.log.refused, std::vector<std::string>{"over_long bashZ"}) << name;
    EXPECT_TRUE(course.log.asked.empty()) << name;
  }
}

TEST(Hold, TooManyCallsAreRefused) {
  Course course;
  course.limits.calls = 2;
  std::string bytes;
  for (int i = 0; i < 4; ++i) bytes += openai_begin(i, i < 2 ? "Y" : "Z") + openai_more(i, R"({"command":"ls"})");
  course.run(client_of("openai stream"), wire::Protocol::openai_chat,
             {bytes + openai("{}", "\"tool_calls\"") + openai_usage + openai_done});
  EXPECT_EQ(course.log.asked.size(), 2U);
  EXPECT_EQ(course.log.refused, (std::vector<std::string>{"too_many_calls bashZ", "too_many_calls bashZ"}));
  EXPECT_THAT(course.exchange.body, Not(HasSubstr("bashZ")));
}

TEST(Hold, MemoryIsBoundedWhileACallWaits) {
  for (const char* name : {"openai stream", "ollama stream"}) {
    Course course;
    course.limits.choice_bytes = 20'000;
    std::string bytes = openai_begin(0, "Z") + openai_more(0, R"({"command":"later Z"})");
    for (int i = 0; i < 400; ++i) bytes += openai(R"({"content":"on and on and on and on and on"})");
    course.run(client_of(name), wire::Protocol::openai_chat, {bytes + openai("{}", "\"stop\"") + openai_usage + openai_done});
    EXPECT_EQ(course.log.refused, std::vector<std::string>{"over_long bashZ"}) << name;
    EXPECT_EQ(course.log.withdrawn.size(), 1U) << name;
    EXPECT_THAT(course.exchange.body, Not(HasSubstr("later Z"))) << name;
    EXPECT_THAT(course.exchange.body, HasSubstr("on and on")) << name;
  }
}

TEST(Hold, OtherArgumentsStandInForTheCallsOwn) {
  for (const char* name : {"openai stream", "openai whole", "anthropic stream", "responses whole"}) {
    Course course;
    course.run(
        client_of(name), wire::Protocol::openai_chat,
        {openai_begin(0, "Y") + openai_more(0, R"({"command":"mask Z"})") + openai("{}", "\"tool_calls\"") + openai_usage + openai_done});
    EXPECT_THAT(course.exchange.body, HasSubstr("masked")) << name;
    EXPECT_THAT(course.exchange.body, HasSubstr("bashY")) << name;
    EXPECT_THAT(course.exchange.body, Not(HasSubstr("mask Z"))) << name;
  }
}

TEST(Hold, TheExplanationCounts) {
  Course course;
  const auto all = transcripts();
  const auto found = std::find_if(all.begin(), all.end(), [](const auto& one) { return one.name == "call, then an evil one"; });
  course.run(client_of("openai whole"), found->protocol, {found->bytes});
  EXPECT_EQ(course.exchange.header("x-hearth-safety"), "enforce released=1 refused=1");
}

// ---- approvals

class ApprovalsTest : public testing::Test {
 protected:
  HeldCall call(std::string tool) {
    HeldCall out;
    out.tool = std::move(tool);
    return out;
  }
  auto note() {
    return [this](const HeldCall& held, Approvals::Word word) {
      told_.push_back(held.tool + " " + std::string(name(word.outcome)) + " " + word.by + word.note);
    };
  }
  asio::io_context io_{1};
  FakeClock clock_;
  Approvals approvals_{io_, clock_, 60s, 2};
  std::vector<std::string> told_;
};

TEST_F(ApprovalsTest, AWordEndsTheWaitOnce) {
  const auto first = approvals_.add(call("one"), note()), second = approvals_.add(call("two"), note());
  ASSERT_TRUE(first.ok() && second.ok());
  const auto list = approvals_.list();
  ASSERT_EQ(list.size(), 2U);
  EXPECT_NE(list[0].id, list[1].id);
  EXPECT_TRUE(approvals_.decide(list[1].id, true, "ann", " fine").ok());
  EXPECT_FALSE(approvals_.decide(list[1].id, false, "ann", "").ok()) << "decided already";
  EXPECT_TRUE(approvals_.decide(list[0].id, false, "bob", "").ok());
  EXPECT_EQ(told_, (std::vector<std::string>{"two approved ann fine", "one refused bob"}));
  EXPECT_FALSE(approvals_.decide("hold_nothing", true, "", "").ok());
}

TEST_F(ApprovalsTest, TimeIsANo) {
  const auto first = approvals_.add(call("one"), note());
  clock_.advance(59s);
  approvals_.expire();
  EXPECT_TRUE(told_.empty());
  const auto second = approvals_.add(call("two"), note());
  clock_.advance(1s);
  approvals_.expire();
  EXPECT_EQ(told_, std::vector<std::string>{"one timed_out "});
  EXPECT_EQ(approvals_.list().size(), 1U);
}

TEST_F(ApprovalsTest, WhoLeavesIsOffTheListAndHearsNothing) {
  std::vector<std::string> changes;
  approvals_.on_change = [&](const HeldCall& held, std::string_view what, std::string_view) {
    changes.push_back(held.tool + " " + std::string(what));
  };
  auto ticket = approvals_.add(call("one"), note());
  ticket->reset();
  EXPECT_TRUE(approvals_.list().empty());
  EXPECT_TRUE(told_.empty());
  EXPECT_EQ(changes, (std::vector<std::string>{"one held", "one withdrawn"}));
}

TEST_F(ApprovalsTest, TheListHasABound) {
  const auto first = approvals_.add(call("one"), note()), second = approvals_.add(call("two"), note());
  const auto third = approvals_.add(call("three"), note());
  ASSERT_FALSE(third.ok());
  EXPECT_EQ(third.error().code, ErrorCode::overloaded);
}

}  // namespace
}  // namespace hearth::safety
