// The OpenAI Responses API as a server: what Codex-style agents speak. Requests and answers as JSON and SSE events ↔ the chat vocabulary. Pure functions
// over text; no I/O.
//
// Nothing is stored, whatever `store` says: every request brings its whole conversation, and what names an earlier response (previous_response_id,
// conversation, item_reference, prompt) or asks for work behind the client's back (background) is refused. Nothing is truncated either: a prompt that
// does not fit is an error with both numbers, also under truncation "auto".
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "chat/event.h"
#include "chat/request.h"
#include "wire/codec.h"

namespace hearth::wire::responses {

struct CreateRequest {
  chat::Request request;
  std::string echo;               // the fields of the request that a response object repeats, as members of a JSON object
  bool summary = false;           // the client asked for summaries of reasoning, and shows no other: the reasoning goes out as one
  chat::Explanation explanation;  // tools that were left out
};

// Every field is checked; an Error names the field (param) and what would be right. System and developer messages become one system message after
// `instructions`, because most templates take one, at the start. The items of one turn of the assistant (reasoning, message, function_call) become one
// message. Tools that are no functions are left out, as are the records of calls that a host ran (web_search_call …).
Result<CreateRequest> decode_create(std::string_view body);

// Facts that every response object holds.
struct AnswerHead {
  std::string id;            // "resp_…"
  std::int64_t created = 0;  // Unix seconds
  std::string model;         // as served
  std::string echo;
  bool summary = false;
};

// One thing the model said.
struct Item {
  enum class Kind { message, reasoning, call };
  enum class Status { in_progress, completed, incomplete };
  Kind kind = Kind::message;
  Status status = Status::in_progress;
  std::string id;         // "msg_…", "rs_…", "fc_…"
  std::string text;       // of a call: its arguments
  std::string signature;  // reasoning
  std::string call_id, name;
  int call_index = 0;
};

// Events → SSE events, numbered from 0. response.created and response.in_progress come first, one of response.completed, .incomplete or .failed ends
// the stream; after .failed an `error` event makes SDKs throw.
class StreamEncoder {
 public:
  explicit StreamEncoder(AnswerHead head) : head_(std::move(head)) {}
  void encode(const chat::Event& event, std::string& out);
  // A comment; before the first event the opening ones, which clients with a timer of their own wait for.
  void keep_alive(std::string& out);
  void end(std::string& out);

 private:
  void open(std::string& out);
  void begin(std::string& out, std::string_view type);
  void begin_in(std::string& out, std::string_view type, std::size_t index);
  void lifecycle(std::string& out, std::string_view type, std::string_view status, const Error* error = nullptr);
  std::size_t add(Item item, std::string& out);
  void say(Item::Kind kind, std::string_view text, std::string& out);
  void close(std::size_t index, Item::Status status, std::string& out);
  void close_speech(std::string& out);
  std::optional<std::size_t> open_call(int index) const;
  void fail(const Error& error, std::string& out);

  AnswerHead head_;
  std::vector<Item> items_;            // their place is their output_index
  std::optional<std::size_t> speech_;  // the open message or reasoning
  chat::Usage usage_;
  std::optional<chat::FinishReason> reason_;
  int sequence_ = 0;
  bool failed_ = false;
};

// The one document of an answer that is not streamed.
std::string encode_answer(const AnswerHead& head, const Answer& answer);

}  // namespace hearth::wire::responses
