// Any answer in any dialect. The first byte picks the dialect and how the answer ended, the second seeds a way to cut it. However it is cut, the events come to
// the same and keep the order that chat/event.h promises; text is never lost; a call about which the note says nothing has a JSON object as arguments.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/utf8.h"
#include "wire/dialect.h"

using namespace hearth;

namespace {

void check(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "broken: %s\n", what);
  std::abort();
}

struct Piece {
  bool call = false;
  std::string text;  // or the arguments
  std::string name;
  friend bool operator==(const Piece&, const Piece&) = default;
};
struct Answer {
  std::vector<Piece> pieces;
  chat::FinishReason reason = chat::FinishReason::stop;
  std::string note;
  friend bool operator==(const Answer&, const Answer&) = default;
};

// Joins events, and checks their order on the way.
struct Join {
  Answer answer;
  int calls = 0;
  bool open = false;
  bool finished = false;

  void operator()(const chat::TextDelta& e) {
    check(!open && !finished && !e.text.empty(), "text stands between calls and says something");
    if (answer.pieces.empty() || answer.pieces.back().call) answer.pieces.emplace_back();
    answer.pieces.back().text += e.text;
  }
  void operator()(const chat::ToolCallBegin& e) {
    check(!open && !finished && e.index == calls && !e.id.empty() && !e.name.empty(), "a call has its number, id and name");
    open = true;
    answer.pieces.push_back({.call = true, .text = {}, .name = e.name});
  }
  void operator()(const chat::ToolCallDelta& e) {
    check(open && e.index == calls && !e.arguments.empty(), "a fragment belongs to the open call");
    answer.pieces.back().text += e.arguments;
  }
  void operator()(const chat::ToolCallEnd& e) {
    check(open && e.index == calls++, "an end belongs to the open call");
    open = false;
  }
  void operator()(const chat::Finished& e) {
    check(!open && !finished, "the end comes once, after every call's");
    finished = true;
    answer.reason = e.reason;
  }
  template <class Other>
  void operator()(const Other&) {
    check(false, "a dialect makes text, calls and the end");
  }
};

std::vector<chat::ToolSpec> tools() {
  return {
      {.name = "now", .description = {}, .parameters = "{}"},
      {.name = "bash", .description = {}, .parameters = R"({"properties":{"command":{"type":"string"},"n":{"type":"integer"},"o":{}}})"}};
}

template <class Next>
Answer parse(wire::Dialect dialect, std::string_view text, chat::FinishReason reason, Next next) {
  wire::DialectParser parser(dialect, tools(), 0);
  chat::Events events;
  while (!text.empty()) {
    const std::size_t size = std::min<std::size_t>(next(), text.size());
    parser.feed(text.substr(0, size), events);
    text.remove_prefix(size);
  }
  parser.finish(reason, events);
  Join join;
  for (const auto& event : events) std::visit(join, event);
  check(join.finished, "an answer ends");
  join.answer.note = parser.note();
  return join.answer;
}

bool is_object(std::string_view text) {
  json::parse_options options;
  options.max_depth = json_max_depth + 1;
  json::error_code ec;
  const auto value = json::parse({text.data(), text.size()}, ec, {}, options);
  return !ec && value.is_object();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 2) return 0;
  const auto dialect = static_cast<wire::Dialect>(data[0] & 7);
  const auto reason = (data[0] & 8) != 0 ? chat::FinishReason::length : chat::FinishReason::stop;
  std::uint32_t seed = data[1];
  const std::string_view input(reinterpret_cast<const char*>(data) + 2, size - 2);

  const Answer whole = parse(dialect, input, reason, [&] { return input.size(); });
  check(parse(dialect, input, reason, [] { return 1; }) == whole, "byte by byte it is the same");
  const Answer cut = parse(dialect, input, reason, [&] {
    seed = seed * 1664525 + 1013904223;
    return 1 + (seed >> 24) % 16;
  });
  check(cut == whole, "in pieces it is the same");

  bool calls = false;
  std::size_t at = 0;
  const bool header = input.find("all\n") != std::string_view::npos;  // the only thing but a call that is syntax
  for (const auto& piece : whole.pieces) {
    if (piece.call) {
      calls = true;
      check(piece.name == "now" || piece.name == "bash", "a call names a tool of the request");
      if (whole.note.empty() && is_valid_utf8(input)) check(is_object(piece.text), "arguments are a JSON object, or the note says why not");
    } else if (!header) {
      const std::size_t found = input.find(piece.text, at);
      check(found != std::string_view::npos, "text comes as it was, in its order");
      at = found + piece.text.size();
    }
  }
  if (!calls && !header)
    check(input.empty() ? whole.pieces.empty() : whole.pieces.size() == 1 && whole.pieces[0].text == input, "no text is lost");
  check((whole.reason == chat::FinishReason::tool_calls) == (calls && reason == chat::FinishReason::stop), "the reason fits the calls");
  check(whole.note.size() <= 310 && whole.note.find('\n') == std::string::npos, "a note is one short line");
  return 0;
}
