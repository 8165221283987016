// Any upstream: one event's data a line. Whatever comes, the events keep the order that chat/event.h promises, what a client gets of them is a proper stream
// again, and documents never crash.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "net/sse.h"
#include "wire/anthropic.h"

using namespace hearth;

namespace {

void check(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "broken: %s\n", what);
  std::abort();
}

struct Order {
  int calls = 0;
  bool open = false, finished = false, over = false;

  void live() { check(!over && !finished, "nothing follows the end"); }
  void outside_call() {
    live();
    check(!open, "a call is closed before something else begins");
  }
  void operator()(const chat::Started& e) {
    live();
    check(e.prompt_tokens > 0 && e.cached_tokens >= 0 && e.cached_tokens <= e.prompt_tokens, "a start counts tokens");
  }
  void operator()(const chat::TextDelta& e) { outside_call(), check(!e.text.empty(), "a delta has text"); }
  void operator()(const chat::ReasoningDelta& e) { outside_call(), check(!e.text.empty(), "a delta has text"); }
  void operator()(const chat::ReasoningSignature& e) { outside_call(), check(!e.signature.empty(), "a signature says something"); }
  void operator()(const chat::ToolCallBegin& e) {
    outside_call();
    check(e.index == calls++ && !e.id.empty() && !e.name.empty(), "a call has its number, id and name");
    open = true;
  }
  void operator()(const chat::ToolCallDelta& e) { live(), check(open && e.index == calls - 1, "a fragment belongs to the open call"); }
  void operator()(const chat::ToolCallEnd& e) {
    live(), check(open && e.index == calls - 1, "an end belongs to the open call");
    open = false;
  }
  void operator()(const chat::TokenInfo&) { check(false, "this protocol tells no probabilities"); }
  void operator()(const chat::Finished&) {
    outside_call();
    finished = true;
  }
  void operator()(const chat::Usage& e) {
    check(!over && finished && e.prompt_tokens >= 0 && e.completion_tokens >= 0 && e.cached_tokens >= 0, "usage counts, last");
    over = true;
  }
  void operator()(const chat::Failed& e) {
    check(!e.error.message.empty(), "a failure says why");
    over = true;
  }
};

// A proper stream: read back without a complaint, to the same answer.
void check_stream(const chat::Events& events) {
  wire::anthropic::MessageCodec codec({.id = "msg", .model = "m", .request_id = "r", .explanation = {}});
  std::string bytes;
  for (const auto& event : events) codec.encode(event, bytes);
  codec.end(bytes);
  net::SseDecoder sse;
  std::vector<net::SseEvent> frames;
  check(sse.feed(bytes, frames).ok() && !sse.pending(), "what goes out are whole events");
  wire::anthropic::StreamDecoder decoder;
  chat::Events back;
  for (const auto& frame : frames) {
    check(!frame.event.empty(), "every event has a name");
    check(decoder.decode(frame.event, frame.data, back).ok(), "what goes out can be read");
  }
  check(decoder.done(), "what goes out has an end");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  wire::anthropic::StreamDecoder decoder;
  chat::Events events;
  bool failed = false;
  for (std::string_view rest = input; !rest.empty() && !failed;) {
    const auto line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(rest.size(), line.size() + 1));
    if (const auto ok = decoder.decode("", line, events); !ok) {
      check(ok.error().code == ErrorCode::upstream_failed, "nonsense is the upstream's failure");
      failed = true;
    }
  }
  failed = failed || !decoder.finish().ok();
  Order order;
  for (const auto& event : events) std::visit(order, event);
  check(failed || order.over, "a proper end is told");
  check_stream(events);

  wire::anthropic::StreamDecoder whole;
  chat::Events document;
  if (whole.decode_document(input, document).ok()) {
    Order of_document;
    for (const auto& event : document) std::visit(of_document, event);
    check(of_document.over && whole.done(), "a document is a whole answer");
  }
  (void)wire::anthropic::decode_models_answer(input).ok();
  (void)wire::anthropic::decode_count_answer(input).ok();
  check(!wire::anthropic::decode_error(500, input).message.empty(), "an error has a message");
  return 0;
}
