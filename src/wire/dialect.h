// Many models speak their tool calls as text, each family in its own way, and many engines pass that text on unparsed. A Dialect reads such calls out
// of the stream of text and writes a conversation's calls and results back in the form the model was trained on, so that clients see proper tool
// calls whatever serves the model. Pure functions over text and events; no I/O.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "chat/event.h"
#include "chat/request.h"

namespace hearth::wire {

enum class Dialect {
  hermes,       // <tool_call>{"name": …, "arguments": {…}}</tool_call>: Hermes, Qwen
  qwen_xml,     // <tool_call><function=NAME><parameter=KEY>value</parameter></function></tool_call>: Qwen-coder
  llama3,       // <|python_tag|>…, or an answer that is one bare JSON object {"name": …, "parameters": {…}}
  mistral,      // [TOOL_CALLS][{"name": …, "arguments": {…}}], and [TOOL_CALLS]NAME[ARGS]{…}
  deepseek,     // <｜tool▁calls▁begin｜><｜tool▁call▁begin｜>…, V3 and V3.1 forms
  functionary,  // >>>NAME\n{…}, and <function=NAME>{…}</function>
  fenced,       // ```json / ```tool_call blocks that hold a call of a known tool
  automatic,    // whichever of these the answer turns out to use
};

std::string_view name(Dialect dialect);
std::optional<Dialect> dialect_from_name(std::string_view text);
// The dialect a model most likely speaks, from its name (e.g. "Qwen3-Coder-30B", "mistral-small"); automatic when nothing is known.
Dialect dialect_of_model(std::string_view model);

// One choice's text → text and tool-call events, the same whatever the chunking of the input. Text that may yet become a call is held back only as long as
// that is undecided, and never past 1 MiB. A call is announced as soon as its name is whole and its arguments begin; these stream on as fragments of one
// JSON object. Only calls of tools that `tools` names count; anything else stays text. A malformed call is repaired only where there is one reading (a
// missing end marker at the end of the answer, a trailing comma, arguments given as a JSON text); otherwise it goes out as the text it was, and note()
// says so. What breaks after the announcement cannot be taken back: those arguments go out as written, which no JSON reader accepts, and so nobody
// acts on half a call. White space beside a call is its margin and goes with it; without calls the text is what came, byte for byte. (Functionary's
// ">>>all" line alone is neither: it goes.) <think>…</think>, where the tag begins a line, is text, and so is a call inside it.
class DialectParser {
 public:
  DialectParser(Dialect dialect, std::vector<chat::ToolSpec> tools, int choice);
  ~DialectParser();
  DialectParser(DialectParser&&) noexcept;
  DialectParser& operator=(DialectParser&&) noexcept;

  void feed(std::string_view text, chat::Events& out);
  // What is still held back, then Finished: with tool_calls when calls were made and `reason` is stop.
  void finish(chat::FinishReason reason, chat::Events& out);
  // Empty while all is well, else why a seeming call went out as text or was repaired; one line for the explanation.
  const std::string& note() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

// Rewrites a request for an engine that knows no tools: the tools and how to call them go into the system message, earlier calls and results become text in
// the dialect's form, `tools` and `tool_choice` are emptied. required and named choices become instructions. Nothing changes without tools or calls.
void write_as_text(chat::Request& request, Dialect dialect);

}  // namespace hearth::wire
