// What it costs to stand between a client and an upstream, for each pair of protocols: reading the client's request and writing the upstream's, reading
// the upstream's frames and writing the client's. No sockets.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "net/sse.h"
#include "process.h"
#include "report.h"
#include "timing.h"
#include "wire/anthropic.h"
#include "wire/ollama.h"
#include "wire/openai.h"
#include "wire/responses.h"

namespace {

using namespace hearth;
using bench::keep;
using bench::Measurement;
using bench::must;

// ---- what an agent sends ---------------------------------------------------------------------------------------------------------------

struct Turn {
  std::string id, name, arguments, result;
};
struct Conversation {
  std::string system, task;
  std::vector<Turn> turns;
  std::vector<chat::ToolSpec> tools;
};

// Words with the line breaks and quotes that make text cost something to read and write, up to `size` bytes.
std::string prose(std::size_t size) {
  std::string text;
  while (text.size() < size)
    text += "Read the file \"src/main.cpp\" before you change it.\nNever guess what a function returns: look it up.\n\n";
  text.resize(size);
  return text;
}

// About 16k tokens at four characters each, as a coding agent's request in the middle of its work.
Conversation agent_conversation() {
  Conversation c;
  c.system = prose(48 * 1024);
  c.task = prose(1024);
  for (int i = 0; i < 6; ++i) {
    c.turns.push_back(
        {.id = "call_0123456789abcdef0123456" + std::to_string(i),
         .name = "tool_" + std::to_string(i),
         .arguments = R"({"path":"src/net/server.cpp","offset":)" + std::to_string(i) + R"(,"limit":200,"pattern":"\\bTask<"})",
         .result = prose(2560)});
  }
  for (int i = 0; i < 20; ++i) {
    c.tools.push_back(
        {.name = "tool_" + std::to_string(i),
         .description = prose(400),
         .parameters =
             R"({"type":"object","properties":{"path":{"type":"string","description":"Absolute path of the file"},)"
             R"("offset":{"type":"integer","minimum":0,"description":"First line"},"limit":{"type":"integer","minimum":1},)"
             R"("pattern":{"type":"string","description":"A regular expression"},"mode":{"type":"string","enum":["text","binary"]}},)"
             R"("required":["path"],"additionalProperties":false})"});
  }
  return c;
}

std::string json_text(std::string_view text) {
  std::string out;
  append_json_string(out, text);
  return out;
}

template <class List, class Item>
std::string joined(const List& list, Item item) {
  std::string out;
  for (const auto& entry : list) out += (out.empty() ? "" : ",") + item(entry);
  return out;
}

// As OpenAI and Ollama have them.
std::string nested_tools(const Conversation& c) {
  return joined(c.tools, [](const chat::ToolSpec& tool) {
    return R"({"type":"function","function":{"name":)" + json_text(tool.name) + R"(,"description":)" + json_text(tool.description) +
           R"(,"parameters":)" + tool.parameters + "}}";
  });
}

std::string openai_body(const Conversation& c) {
  return R"({"model":"m","stream":true,"max_tokens":1024,"messages":[{"role":"system","content":)" + json_text(c.system) +
         R"(},{"role":"user","content":)" + json_text(c.task) + "}," +
         joined(c.turns,
                [](const Turn& turn) {
                  return R"({"role":"assistant","content":null,"tool_calls":[{"id":)" + json_text(turn.id) +
                         R"(,"type":"function","function":{"name":)" + json_text(turn.name) + R"(,"arguments":)" +
                         json_text(turn.arguments) + R"(}}]},{"role":"tool","tool_call_id":)" + json_text(turn.id) + R"(,"content":)" +
                         json_text(turn.result) + "}";
                }) +
         R"(],"tools":[)" + nested_tools(c) + "]}";
}

std::string anthropic_body(const Conversation& c) {
  return R"({"model":"m","stream":true,"max_tokens":1024,"system":[{"type":"text","text":)" + json_text(c.system) +
         R"(}],"messages":[{"role":"user","content":)" + json_text(c.task) + "}," +
         joined(c.turns,
                [](const Turn& turn) {
                  return R"({"role":"assistant","content":[{"type":"tool_use","id":)" + json_text(turn.id) + R"(,"name":)" +
                         json_text(turn.name) + R"(,"input":)" + turn.arguments +
                         R"(}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":)" + json_text(turn.id) + R"(,"content":)" +
                         json_text(turn.result) + "}]}";
                }) +
         R"(],"tools":[)" +
         joined(c.tools,
                [](const chat::ToolSpec& tool) {
                  return R"({"name":)" + json_text(tool.name) + R"(,"description":)" + json_text(tool.description) + R"(,"input_schema":)" +
                         tool.parameters + "}";
                }) +
         "]}";
}

std::string responses_body(const Conversation& c) {
  return R"({"model":"m","stream":true,"max_output_tokens":1024,"instructions":)" + json_text(c.system) +
         R"(,"input":[{"role":"user","content":)" + json_text(c.task) + "}," +
         joined(c.turns,
                [](const Turn& turn) {
                  return R"({"type":"function_call","call_id":)" + json_text(turn.id) + R"(,"name":)" + json_text(turn.name) +
                         R"(,"arguments":)" + json_text(turn.arguments) + R"(},{"type":"function_call_output","call_id":)" +
                         json_text(turn.id) + R"(,"output":)" + json_text(turn.result) + "}";
                }) +
         R"(],"tools":[)" +
         joined(c.tools,
                [](const chat::ToolSpec& tool) {
                  return R"({"type":"function","name":)" + json_text(tool.name) + R"(,"description":)" + json_text(tool.description) +
                         R"(,"parameters":)" + tool.parameters + "}";
                }) +
         "]}";
}

std::string ollama_body(const Conversation& c) {
  return R"({"model":"m","stream":true,"options":{"num_predict":1024},"messages":[{"role":"system","content":)" + json_text(c.system) +
         R"(},{"role":"user","content":)" + json_text(c.task) + "}," +
         joined(c.turns,
                [](const Turn& turn) {
                  return R"({"role":"assistant","content":"","tool_calls":[{"id":)" + json_text(turn.id) + R"(,"function":{"name":)" +
                         json_text(turn.name) + R"(,"arguments":)" + turn.arguments + R"(}}]},{"role":"tool","tool_name":)" +
                         json_text(turn.name) + R"(,"tool_call_id":)" + json_text(turn.id) + R"(,"content":)" + json_text(turn.result) +
                         "}";
                }) +
         R"(],"tools":[)" + nested_tools(c) + "]}";
}

// ---- what an upstream answers ----------------------------------------------------------------------------------------------------------

chat::Events text_answer(int frames) {
  chat::Events events;
  events.emplace_back(chat::Started{.prompt_tokens = 16'000});
  for (int i = 0; i < frames; ++i) events.emplace_back(chat::TextDelta{.text = i % 8 == 7 ? ".\n\"quoted\"" : " word"});
  events.emplace_back(chat::Finished{});
  events.emplace_back(chat::Usage{.prompt_tokens = 16'000, .completion_tokens = frames});
  return events;
}

// A sentence, then a call whose arguments come in `fragments` pieces.
chat::Events call_answer(int fragments) {
  chat::Events events = text_answer(16);
  events.resize(events.size() - 2);
  events.emplace_back(chat::ToolCallBegin{.id = "call_0123456789abcdef01234567", .name = "run_command"});
  for (int i = 0; i < fragments; ++i) {
    events.emplace_back(chat::ToolCallDelta{.arguments = i == 0 ? "{\"command\":\"" : i == fragments - 1 ? "\"}" : " src/a\\n"});
  }
  events.emplace_back(chat::ToolCallEnd{});
  events.emplace_back(chat::Finished{.reason = chat::FinishReason::tool_calls});
  events.emplace_back(chat::Usage{.prompt_tokens = 16'000, .completion_tokens = fragments + 16});
  return events;
}

// The two upstream protocols: an answer's frames, and the decoder that reads one.
struct OpenAiUpstream {
  wire::openai::StreamDecoder decoder;
  void decode(const net::SseEvent& frame, chat::Events& out) { must(decoder.decode(frame.data, out)); }
  static wire::openai::StreamEncoder encoder() {
    return wire::openai::StreamEncoder(
        {.id = "chatcmpl-0123456789abcdef01234567", .created = 1'700'000'000, .model = "m", .include_usage = true});
  }
};
struct AnthropicUpstream {
  wire::anthropic::StreamDecoder decoder;
  void decode(const net::SseEvent& frame, chat::Events& out) { must(decoder.decode(frame.event, frame.data, out)); }
  static wire::anthropic::MessageCodec encoder() {
    return wire::anthropic::MessageCodec({.id = "msg_0123456789abcdef01234567", .model = "m", .request_id = {}, .explanation = {}});
  }
};

template <class Upstream>
std::vector<std::string> frames_of(const chat::Events& events) {
  std::string bytes;
  auto encoder = Upstream::encoder();
  for (const auto& event : events) encoder.encode(event, bytes);
  encoder.end(bytes);
  std::vector<std::string> frames;
  for (std::size_t at = 0, end = 0; (end = bytes.find("\n\n", at)) != std::string::npos; at = end + 2)
    frames.push_back(bytes.substr(at, end + 2 - at));
  return frames;
}

// ---- the client's side -----------------------------------------------------------------------------------------------------------------

struct ToOpenAi {
  wire::openai::AnswerHead head{.id = "chatcmpl-0123456789abcdef01234567", .created = 1'700'000'000, .model = "m", .include_usage = true};
  wire::openai::StreamEncoder encoder{head};
  void encode(const chat::Event& event, std::string& out) { encoder.encode(event, out); }
  void end(std::string& out) { encoder.end(out); }
  std::string whole(const wire::Answer& answer) { return wire::openai::encode_answer(head, answer); }
};
struct ToAnthropic {
  wire::anthropic::MessageCodec codec = AnthropicUpstream::encoder();
  void encode(const chat::Event& event, std::string& out) { codec.encode(event, out); }
  void end(std::string& out) { codec.end(out); }
  std::string whole(const wire::Answer& answer) { return codec.whole(answer); }
};
struct ToResponses {
  wire::responses::AnswerHead head{
      .id = "resp_0123456789abcdef01234567", .created = 1'700'000'000, .model = "m", .echo = R"("tools":[],"tool_choice":"auto")"};
  wire::responses::StreamEncoder encoder{head};
  void encode(const chat::Event& event, std::string& out) { encoder.encode(event, out); }
  void end(std::string& out) { encoder.end(out); }
  std::string whole(const wire::Answer& answer) { return wire::responses::encode_answer(head, answer); }
};
struct ToOllama {
  wire::ollama::Codec codec{wire::ollama::Form::chat};
  ToOllama() {
    codec.was_ready();
    codec.served_by("m");
  }
  void encode(const chat::Event& event, std::string& out) { codec.encode(event, out); }
  void end(std::string& out) { codec.end(out); }
  std::string whole(const wire::Answer& answer) { return codec.whole(answer); }
};
// Same protocol on both sides and nothing changed: events are read, because decisions and figures need them, and the bytes go on as they came.
struct PassThrough {};

// Reads frame after frame as the gateway does when they arrive one by one; bytes written in all.
template <class Upstream, class Client>
std::size_t stream(const std::vector<std::string>& frames) {
  net::SseDecoder sse;
  Upstream upstream;
  Client client;
  std::vector<net::SseEvent> read;
  std::string out;
  std::size_t bytes = 0;
  const auto write = [&] {
    bytes += out.size();
    keep(out);
    out.clear();
  };
  for (const std::string& frame : frames) {
    read.clear();
    must(sse.feed(frame, read));
    chat::Events events;
    for (const net::SseEvent& event : read) upstream.decode(event, events);
    if constexpr (std::is_same_v<Client, PassThrough>) {
      out = frame;
      keep(events);
    } else {
      for (const chat::Event& event : events) client.encode(event, out);
    }
    write();
  }
  if constexpr (!std::is_same_v<Client, PassThrough>) client.end(out);
  write();
  return bytes;
}

// The upstream always streams; a client that asked for one document gets it from the sum of the events.
template <class Upstream, class Client>
std::size_t document(const std::vector<std::string>& frames) {
  net::SseDecoder sse;
  Upstream upstream;
  Client client;
  wire::AnswerCollector collector(1);
  std::vector<net::SseEvent> read;
  for (const std::string& frame : frames) {
    read.clear();
    must(sse.feed(frame, read));
    chat::Events events;
    for (const net::SseEvent& event : read) upstream.decode(event, events);
    for (chat::Event& event : events) collector.add(std::move(event));
  }
  collector.end();
  if (collector.failure() != nullptr) throw std::runtime_error(collector.failure()->message);
  return client.whole(collector.answer()).size();
}

class Table {
 public:
  Table(int rounds, double seconds) : rounds_(rounds), seconds_(seconds) {}

  template <class Work>
  void cell(Measurement& row, const std::string& column, double scale, const Work& work) {
    for (const double value : bench::timed(rounds_, seconds_, work)) row.add(column, value * scale);
  }

  template <class Upstream, class Client>
  void answers(const std::string& column) {
    constexpr bool passed = std::is_same_v<Client, PassThrough>;
    constexpr int long_answer = 1024;
    const auto many = frames_of<Upstream>(text_answer(long_answer)), few = frames_of<Upstream>(text_answer(16)),
               call = frames_of<Upstream>(call_answer(40));
    if (stream<Upstream, Client>(few) < 16 * 8 || stream<Upstream, Client>(call) < 400) throw std::runtime_error(column + " loses frames");
    cell(frame, column, 1e9 / long_answer, [&] { keep(stream<Upstream, Client>(many)); });
    cell(answer, column, 1e6, [&] { keep(stream<Upstream, Client>(few)); });
    cell(called, column, 1e6, [&] { keep(stream<Upstream, Client>(call)); });
    if constexpr (!passed) cell(whole, column, 1e6, [&] { keep(document<Upstream, Client>(few)); });
  }

  // `decode` → chat::Request, `encode` from one.
  template <class Decode, class Encode>
  void request(const std::string& column, const std::string& body, const Decode& decode, const Encode& encode) {
    const chat::Request read = decode(body);
    const std::size_t expected = agent_conversation().tools.size();
    if (read.tools.size() != expected || read.messages.size() < 13) throw std::runtime_error(column + " loses parts of the request");
    cell(decoded, column, 1e6, [&] { keep(decode(body)); });
    cell(encoded, column, 1e6, [&] { keep(encode(read)); });
  }

  static Measurement row(const char* name, const char* unit, int decimals) {
    Measurement m;
    m.name = name;
    m.unit = unit;
    m.decimals = decimals;
    return m;
  }

  Measurement frame = row("text frame of a stream", "ns/frame", 0);
  Measurement answer = row("streamed answer, 16 text frames, opening and end included", "µs", 1);
  Measurement called = row("streamed answer, 16 text frames and a tool call in 40 fragments", "µs", 1);
  Measurement whole = row("answer of 16 text frames, sent to the client as one document", "µs", 1);
  Measurement decoded = row("an agent's request (16k tokens, 20 tools), read", "µs", 0);
  Measurement encoded = row("the same request, written for the upstream", "µs", 0);

 private:
  int rounds_;
  double seconds_;
};

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Times the translation between the protocols of clients and upstreams."};
  int rounds = 7;
  double seconds = 0.05;
  bool quick = false;
  std::string json_file, document;
  app.add_option("--rounds", rounds, "Rounds of each measurement")->capture_default_str();
  app.add_option("--seconds", seconds, "Length of a round")->capture_default_str();
  app.add_flag("--quick", quick, "Three short rounds");
  app.add_option("--json", json_file, "Write every round's values here");
  app.add_option("--write", document, "Replace the results in this document");
  CLI11_PARSE(app, argc, argv);
  if (quick) {
    rounds = 3;
    seconds = 0.02;
  }
  try {
    namespace wire = hearth::wire;
    bench::Report report;
    report.title = "Protocols";
    report.command = std::string("bench/run micro") + (quick ? " --quick" : "");
    report.machine = bench::machine_line();

    Table table(rounds, seconds);
    table.answers<OpenAiUpstream, PassThrough>("OpenAI ← OpenAI, bytes passed");
    table.answers<OpenAiUpstream, ToOpenAi>("OpenAI ← OpenAI");
    table.answers<OpenAiUpstream, ToAnthropic>("Anthropic ← OpenAI");
    table.answers<OpenAiUpstream, ToResponses>("Responses ← OpenAI");
    table.answers<OpenAiUpstream, ToOllama>("Ollama ← OpenAI");
    table.answers<AnthropicUpstream, ToOpenAi>("OpenAI ← Anthropic");
    table.answers<AnthropicUpstream, PassThrough>("Anthropic ← Anthropic, bytes passed");

    const Conversation agent = agent_conversation();
    const auto from_openai = [](const std::string& body) { return must(wire::openai::decode_chat(body)); };
    const auto from_anthropic = [](const std::string& body) { return must(wire::anthropic::decode_messages(body)).request; };
    const auto to_openai = [](const chat::Request& request) { return wire::openai::encode_request(request); };
    const auto to_anthropic = [](const chat::Request& request) { return must(wire::anthropic::encode_request(request)); };
    table.request("OpenAI ← OpenAI", openai_body(agent), from_openai, to_openai);
    table.request("Anthropic ← OpenAI", anthropic_body(agent), from_anthropic, to_openai);
    table.request(
        "Responses ← OpenAI", responses_body(agent),
        [](const std::string& body) { return must(wire::responses::decode_create(body)).request; }, to_openai);
    table.request(
        "Ollama ← OpenAI", ollama_body(agent), [](const std::string& body) { return must(wire::ollama::decode_chat(body)).request; },
        to_openai);
    table.request("OpenAI ← Anthropic", openai_body(agent), from_openai, to_anthropic);
    const wire::Origin origin{.protocol = wire::Protocol::anthropic, .body = anthropic_body(agent), .headers = {}};
    table.request("Anthropic ← Anthropic, bytes passed", origin.body, from_anthropic,
                  [&origin](const chat::Request&) { return wire::anthropic::body_for(origin, "another", true).value(); });

    report.notes = {
        "Columns: the client's protocol ← the upstream's. One thread, no network; frames are read one at a time, as they arrive.",
        "Bytes passed: the upstream's frames are decoded and go on as they came; likewise the request, but for the model's name.",
        std::to_string(rounds) + " rounds; median (min–max)."};
    report.measurements = {table.frame, table.answer, table.called, table.whole, table.decoded, table.encoded};
    bench::publish(report, json_file, document, "protocols");
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench_protocols: %s\n", error.what());
    return 1;
  }
}
