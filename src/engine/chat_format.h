// Between chat::Request and the model's own way of speaking. ChatFormat renders messages and tools with the model's template and says how the
// answer is constrained; OutputParser reads the answer back as it is written: text, thoughts, tool calls. Private to engine.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "chat/event.h"
#include "chat/request.h"
#include "engine/sampling.h"

struct llama_model;

namespace hearth::engine {

// How to read an answer in one template's dialect, for one request.
struct OutputSyntax;

// Where the prompt has an image: `marker` stands there, which nothing a client writes can contain.
struct PlacedImage {
  std::string marker;
  const chat::ContentPart* image = nullptr;  // of the request
  std::string param;                         // its place there
};

struct RenderedChat {
  std::string prompt;
  std::vector<PlacedImage> images;  // in the order of the prompt
  Constraints constraints;
  std::vector<std::string> stop;               // the template's own, besides the request's
  std::shared_ptr<const OutputSyntax> syntax;  // null: the answer is plain text
};

class ChatFormat {
 public:
  // model_invalid when the model's template does not parse. `model` outlives this. `images`: whether messages may have any.
  static Result<std::unique_ptr<ChatFormat>> create(const llama_model* model, bool images = false);
  ~ChatFormat();

  // Any thread. `answer` = false renders the messages alone, without opening the assistant's turn.
  Result<RenderedChat> render(const chat::Request& request, bool answer = true) const;

  // The template has a form for tools and their calls.
  bool tools() const;

 private:
  struct Impl;
  explicit ChatFormat(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// Turns `format` into a grammar, for raw completions. A chat's grammar also covers what the template opened: see render().
Result<Constraints> format_constraints(const llama_model* model, const chat::OutputFormat& format);

// One choice's answer. Text that may yet turn out to belong to a tool call is held back until it is clear.
class OutputParser {
 public:
  OutputParser(std::shared_ptr<const OutputSyntax> syntax, int choice);
  ~OutputParser();

  chat::Events feed(std::string_view text);
  // Everything still held back, then Finished: with tool_calls when the model stopped after calling.
  chat::Events finish(chat::FinishReason reason, std::string stop_sequence = {});

 private:
  enum class Inside { unknown, text, reasoning };
  struct Call {
    std::string id, name, arguments;  // as far as they have been parsed
    std::size_t sent = 0;             // bytes of the arguments already emitted
    bool begun = false, ended = false;
  };

  bool pass_through(chat::Events& out);
  void parse(bool partial, chat::Events& out);
  void emit_text(std::string_view text, chat::Events& out);
  void emit_reasoning(std::string_view text, chat::Events& out);
  void emit_calls(bool complete, chat::Events& out);
  std::string_view unsaid() const;

  std::shared_ptr<const OutputSyntax> syntax_;
  int choice_;
  std::string raw_;
  std::size_t parsed_ = 0;  // bytes of raw_ accounted for: parsed, or passed through as part of a text or thought
  Inside inside_ = Inside::unknown;
  std::string text_, reasoning_;  // emitted
  std::string space_;             // white space after text_, dropped when a tool call follows
  std::vector<Call> calls_;
};

}  // namespace hearth::engine
