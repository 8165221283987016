// Any upstream: one `data:` field a line. Whatever comes, the events keep the order that chat/event.h promises, and documents never crash.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string_view>

#include "wire/openai.h"

using namespace hearth;

namespace {

void check(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "broken: %s\n", what);
  std::abort();
}

struct Order {
  struct Choice {
    int calls = 0;
    bool open = false;
    bool finished = false;
  };
  std::map<int, Choice> choices;
  bool over = false;

  Choice& live(int index) {
    check(!over, "nothing follows usage or a failure");
    Choice& choice = choices[index];
    check(!choice.finished, "nothing follows a choice's end");
    return choice;
  }
  void outside_call(int index) { check(!live(index).open, "a call is closed before something else begins"); }
  void operator()(const chat::TextDelta& e) { outside_call(e.choice), check(!e.text.empty(), "a delta has text"); }
  void operator()(const chat::ReasoningDelta& e) { outside_call(e.choice), check(!e.text.empty(), "a delta has text"); }
  void operator()(const chat::ToolCallBegin& e) {
    outside_call(e.choice);
    Choice& choice = live(e.choice);
    check(e.index == choice.calls++ && !e.id.empty() && !e.name.empty(), "a call has its number, id and name");
    choice.open = true;
  }
  void operator()(const chat::Started& e) { check(!over && e.prompt_tokens >= 0 && e.cached_tokens >= 0, "a start counts tokens"); }
  void operator()(const chat::ReasoningSignature& e) { outside_call(e.choice); }
  void operator()(const chat::ToolCallDelta& e) {
    check(live(e.choice).open && e.index == choices[e.choice].calls - 1, "a fragment belongs to the open call");
  }
  void operator()(const chat::ToolCallEnd& e) {
    check(live(e.choice).open && e.index == choices[e.choice].calls - 1, "an end belongs to the open call");
    choices[e.choice].open = false;
  }
  void operator()(const chat::TokenInfo& e) { live(e.choice); }
  void operator()(const chat::Finished& e) {
    outside_call(e.choice);
    choices[e.choice].finished = true;
  }
  void operator()(const chat::Usage& e) {
    check(!over && e.prompt_tokens >= 0 && e.completion_tokens >= 0 && e.cached_tokens >= 0, "usage counts");
    for (const auto& [index, choice] : choices) check(choice.finished, "usage comes after every choice has finished");
    over = true;
  }
  void operator()(const chat::Failed& e) {
    check(!e.error.message.empty(), "a failure says why");
    over = true;
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  wire::openai::StreamDecoder decoder;
  chat::Events events;
  std::string_view rest = input;
  bool failed = false;
  while (!rest.empty() && !failed) {
    const auto line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(rest.size(), line.size() + 1));
    if (const auto ok = decoder.decode(line, events); !ok) {
      check(ok.error().code == ErrorCode::upstream_failed, "nonsense is the upstream's failure");
      failed = true;
    }
  }
  if (!failed) failed = !decoder.finish(events).ok();
  Order order;
  for (const auto& event : events) std::visit(order, event);
  if (!failed && !order.over) {
    for (const auto& [index, choice] : order.choices) check(choice.finished, "a proper end finishes every choice");
  }

  wire::openai::StreamDecoder whole;
  chat::Events document;
  if (whole.decode_document(input, document).ok()) {
    Order of_document;
    for (const auto& event : document) std::visit(of_document, event);
    check(whole.done(), "a document is a whole answer");
    if (!of_document.over) {
      for (const auto& [index, choice] : of_document.choices) check(choice.finished, "a document finishes every choice");
    }
  }
  (void)wire::openai::decode_embeddings_answer(input).ok();
  (void)wire::openai::decode_rerank_answer(input).ok();
  (void)wire::openai::decode_models_answer(input).ok();
  (void)wire::openai::decode_count_answer(input).ok();
  (void)wire::openai::decode_score_answer(input).ok();
  check(!wire::openai::decode_error(500, input).message.empty(), "an error has a message");
  return 0;
}
