// What a protocol has to say of an answer, apart from any I/O: the answer as a whole, and the codec that puts events and wholes into the protocol's words.
#pragma once

#include <chrono>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "chat/event.h"
#include "chat/request.h"

namespace hearth::wire {

// An answer as a whole: what its events add up to.
struct Answer {
  struct Block {
    enum class Kind { text, reasoning, call };
    Kind kind = Kind::text;
    std::string text;       // text and reasoning
    std::string signature;  // reasoning
    chat::ToolCall call;    // call
  };
  struct Choice {
    std::vector<Block> blocks;  // in the order they were said; neighbours of one kind are one
    std::vector<chat::TokenInfo> tokens;
    std::optional<chat::FinishReason> reason;
    std::string stop_sequence;

    std::string text() const;
    std::string reasoning() const;
    std::vector<chat::ToolCall> calls() const;
  };
  std::vector<Choice> choices;
  chat::Usage usage;
  std::optional<std::chrono::steady_clock::time_point> first_event;  // when it came; protocols that report durations need it
};

// Events → Answer. failure() is set when a Failed event came, or when the end came too early.
class AnswerCollector {
 public:
  explicit AnswerCollector(int choices);
  void add(chat::Event event);
  // No more events come.
  void end();
  const Error* failure() const { return failed_ ? &error_ : nullptr; }
  const Answer& answer() const { return answer_; }

 private:
  Answer::Choice* find(int index);
  Answer::Block& block(Answer::Choice& choice, Answer::Block::Kind kind);
  Answer::Block* call(int choice, int index);
  Answer answer_;
  Error error_;
  bool failed_ = false;
};

// For a stream that ends without every choice's Finished.
Error unfinished_answer();

// One answer in one protocol's words.
class AnswerCodec {
 public:
  virtual ~AnswerCodec() = default;
  // Once, before anything else: the model that answers, under the name it is served by.
  virtual void served_by(const std::string& model) = 0;

  virtual std::string_view stream_content_type() const { return "text/event-stream"; }
  // Appends the frames of one event. A Failed event is said the protocol's way and closes the stream.
  virtual void encode(const chat::Event& event, std::string& out) = 0;
  // After the last event: the closing frames. Nothing after a Failed event. A choice that never finished becomes an error.
  virtual void end(std::string& out) = 0;
  // A frame of an upstream that speaks the same protocol went out in place of what encode() would have said of these events: what is encoded from here on
  // continues it. Only of protocols that are passed through.
  virtual void passed(std::string_view /*frame*/, std::span<const chat::Event> /*events*/) {}
  // What keeps a silent stream open, at any time before end().
  virtual void keep_alive(std::string& out) = 0;

  // The document of an answer that is not streamed.
  virtual std::string whole(const Answer& answer) = 0;

  // What the protocol's side has to explain: what of the request was left out, and why.
  virtual chat::Explanation explanation() const { return {}; }
};

}  // namespace hearth::wire
