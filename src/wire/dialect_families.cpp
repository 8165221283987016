// The frame each model family puts around its calls. Each coroutine starts after its marker, and tells whether what followed was a call (or was dealt with
// as the text it is); what it took and did not use stays held.
#include <algorithm>

#include "wire/dialect_parser.h"

namespace hearth::wire {
namespace {

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view spaces = " \n\r\t";
  const std::size_t begin = std::min(text.find_first_not_of(spaces), text.size());
  return text.substr(begin, text.find_last_not_of(spaces) + 1 - begin);
}

}  // namespace

// Hermes, Qwen: <tool_call>{…}</tool_call>; Qwen-coder: <tool_call><function=…>…</function></tool_call>.
Parse DialectParser::Impl::tool_call() {
  family_ = Dialect::hermes;
  int c = co_await skip_space();
  if (c == '<') co_return co_await literal("<function=") != 0 && co_await function_tag(true) != 0;
  close_ = "</tool_call>";
  if (co_await objects(false) == 0) co_return 0;
  while (owed_ && co_await skip_space() == '}') {
    add_note("one bracket too many after a call was dropped");
    take();
  }
  co_return 1;
}

// <function=NAME>{…}</function>: Functionary 3.1, Llama 3.1. <function=NAME><parameter=KEY>…: Qwen-coder, which may forget its <tool_call>.
Parse DialectParser::Impl::function_tag(bool wrapped) {
  if (co_await word(">", name_) == 0) co_return 0;
  take();
  if (!known(name_)) {
    unknown_tool();
    co_await text_until("</function>");
    co_return 1;
  }
  named_ = true;
  if (co_await skip_space() == '<') {
    family_ = Dialect::qwen_xml;
    co_return co_await parameters(wrapped);
  }
  family_ = Dialect::functionary;
  close_ = "</function>";
  co_return co_await arguments();
}

// Llama 3: <|python_tag|>{…}, several of them with semicolons between, or NAME.call(…) as the built-in tools are called.
Parse DialectParser::Impl::python_tag() {
  family_ = Dialect::llama3;
  const int c = co_await skip_space();
  if (c == '{' || c == '[') co_return co_await objects(false);
  co_return co_await python_call();
}

// NAME.call(key="text", other=5, …). Values are JSON, or Python's way to write the same.
Parse DialectParser::Impl::python_call() {
  if (co_await word(".({[ ", name_) == 0) co_return 0;
  if (co_await literal(".call(") == 0 || !known(name_)) co_return 0;
  early_ = "{";
  for (int c = co_await skip_space(); c != ')';) {
    if (co_await word("= (),\"'", key_) == 0 || key_.empty()) co_return 0;
    if (co_await skip_space() != '=') co_return 0;
    take();
    c = co_await skip_space();
    if (early_.size() > 1) early_ += ", ";
    append_json_string(early_, key_);
    early_ += ": ";
    if (c == '\'') {
      take();
      early_ += '"';
      while ((c = co_await peek()) != '\'') {
        if (c < 0 || held_.size() > max_undecided) co_return 0;
        take();
        if (c == '\\') {
          c = co_await peek();
          if (c < 0) co_return 0;
          take();
          c = c == 'n' ? '\n' : c == 't' ? '\t' : c;
        }
        append_json_escaped(early_, static_cast<char>(c));
      }
      take();
      early_ += '"';
    } else if (c == 'T' || c == 'F' || c == 'N') {
      if (co_await literal(c == 'T' ? "True" : c == 'F' ? "False" : "None") == 0) co_return 0;
      early_ += c == 'T' ? "true" : c == 'F' ? "false" : "null";
    } else {
      json_ = JsonStream(JsonStream::Accept::any);
      while (json_.state() == JsonStream::State::open) {
        if (co_await peek() < 0 || held_.size() > max_undecided) co_return 0;
        take(json_.feed(ahead(), early_));
      }
      if (json_.state() == JsonStream::State::broken) co_return 0;
    }
    c = co_await skip_space();
    if (c == ',') {
      take();
      c = co_await skip_space();
    } else if (c != ')') {
      co_return 0;
    }
  }
  early_ += '}';
  take();
  begin_call();
  end_call();
  co_return 1;
}

// Mistral: [TOOL_CALLS][{…}, …], and since 2025 [TOOL_CALLS]NAME[ARGS]{…}, with [CALL_ID]… between in some; engines drop [ARGS] when they drop special
// tokens.
Parse DialectParser::Impl::mistral() {
  family_ = Dialect::mistral;
  int c = co_await skip_space();
  if (c == '{' || c == '[') co_return co_await objects(false);
  if (co_await word("[{ ", name_) == 0) co_return 0;
  c = co_await skip_space();
  if (c == '[') {
    take();
    c = co_await peek();
    if (c == 'C') {
      if (co_await literal("CALL_ID]") == 0 || co_await word("[", scratch_) == 0) co_return 0;
      take();
    }
    if (co_await literal("ARGS]") == 0) co_return 0;
    c = co_await skip_space();
  }
  if (known(name_)) {
    named_ = true;
    co_return co_await arguments();
  }
  if (c != '{') co_return 0;
  unknown_tool();
  co_await skip_value();
  co_return 1;
}

// DeepSeek V3 and R1: <｜tool▁call▁begin｜>function<｜tool▁sep｜>NAME, a line break and the arguments as a fenced block; V3.1: NAME<｜tool▁sep｜>{…}.
// The first call has <｜tool▁calls▁begin｜> before it.
Parse DialectParser::Impl::deepseek(bool wrapped) {
  family_ = Dialect::deepseek;
  close_ = "<｜tool▁call▁end｜>";
  if (wrapped) {
    co_await skip_space();
    if (co_await literal("<｜tool▁call▁begin｜>") == 0) co_return 0;
  }
  if (co_await word("<", key_) == 0 || co_await literal("<｜tool▁sep｜>") == 0) co_return 0;
  const int c = co_await peek();
  if (c == '{' || c == '"') {
    name_ = trimmed(key_);
  } else {
    if (co_await word("\n{", scratch_) == 0) co_return 0;
    name_ = trimmed(trimmed(scratch_).empty() ? key_ : scratch_);
    if (co_await skip_space() == '`') {
      if (co_await literal("```") == 0 || co_await word("\n{", scratch_) == 0) co_return 0;
      co_await skip_space();
    }
  }
  if (!known(name_)) {
    unknown_tool();
    co_await skip_value();
    co_return 1;
  }
  named_ = true;
  if (co_await arguments() == 0) co_return 0;
  for (int i = 0; i < 3 && co_await skip_space() == '`'; ++i) take();
  co_return 1;
}

// Functionary 3.2: >>>NAME, a line break and the arguments; >>>all before text for the user.
Parse DialectParser::Impl::recipient() {
  const bool first = dialect_ == Dialect::functionary || at_opening_;
  if (co_await word("\n> {", name_) == 0 || co_await peek() != '\n') co_return 0;
  take();
  if (name_ == "all" && first) {
    held_.clear();
    last_ = '\n';
    co_return 1;
  }
  if (!known(name_)) co_return 0;
  family_ = Dialect::functionary;
  named_ = true;
  co_return co_await arguments();
}

// A fenced block that is a call and nothing else.
Parse DialectParser::Impl::fence() {
  if (co_await word("\n`", key_) == 0 || co_await peek() != '\n') co_return 0;
  const auto info = trimmed(key_);
  if (!info.empty() && info != "json" && info != "tool_call" && info != "tool_calls") co_return 0;
  family_ = Dialect::fenced;
  close_ = "```";
  const int before = calls_;
  const int ok = co_await objects(true);
  if (calls_ == before || !owed_) co_return ok;
  if (ok == 0) co_return 0;
  for (int ticks = 0; co_await skip_space() == '`';) {
    if (keep_ == Keep::nothing) keep_ = Keep::held;
    take();
    if (++ticks < 3) continue;
    held_.clear();
    owed_ = false;
    break;
  }
  co_return 1;
}

}  // namespace hearth::wire
