// The Anthropic Messages API, both sides: requests and answers as JSON and SSE events ↔ the chat vocabulary. Pure functions over text; no I/O.
// Messages here are lists of typed blocks, tool results travel inside user messages, and an answer is a sequence of blocks that open and close one
// after the other. What agents and the official SDK depend on decides every detail.
#pragma once

#include <boost/json/fwd.hpp>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "chat/event.h"
#include "chat/request.h"
#include "wire/codec.h"
#include "wire/provider.h"

namespace hearth::wire::anthropic {

// What stands as the signature of reasoning that no remote model signed: clients expect one and send it back with the history.
inline constexpr std::string_view unsigned_marker = "hearth-unsigned-reasoning";

// ---- as a server -------------------------------------------------------------------------------------------------------------------

struct MessagesRequest {
  chat::Request request;
  // Tools that only Anthropic's own servers run (web_search and the like) are left out of `request`, because agents that offer them do well without;
  // "server-tools" names them.
  chat::Explanation explanation;
};

// POST /v1/messages. Every field is checked; an Error names it (param) and what would be right. Unknown fields are ignored. Neighbours of one role
// become one message, results of tools come before what else a message says, empty texts and messages vanish, and the system block in which
// agents count their requests (x-anthropic-billing-header) is left out, since it would make every prompt a new one.
Result<MessagesRequest> decode_messages(std::string_view body);
// POST /v1/messages/count_tokens: the same without max_tokens.
Result<MessagesRequest> decode_count(std::string_view body);

// What the prompt may come to, for when nobody has counted it yet: a quarter of its characters, at least 1.
int estimate_tokens(const chat::Request& request);

// Facts about one answer.
struct AnswerHead {
  std::string id;                 // "msg_…"
  std::string model;              // as served
  std::string request_id;         // repeated in errors
  int estimated_prompt = 1;       // tokens, said when the answer begins before the engine told its own count
  chat::Explanation explanation;  // MessagesRequest::explanation
};

// Events → the protocol's SSE events. message_start, then blocks with indices from 0, then message_delta with the usage, message_stop. What an engine
// says while an earlier tool call is still open waits until that call is closed.
class MessageCodec final : public AnswerCodec {
 public:
  explicit MessageCodec(AnswerHead head) : head_(std::move(head)) {}
  void served_by(const std::string& model) override { head_.model = model; }
  void encode(const chat::Event& event, std::string& out) override;
  void passed(std::string_view frame, std::span<const chat::Event> events) override;
  void end(std::string& out) override;
  void keep_alive(std::string& out) override;
  std::string whole(const Answer& answer) override;
  chat::Explanation explanation() const override { return head_.explanation; }

 private:
  // Said while a call was open: a block in the making.
  struct Waiting {
    Answer::Block block;
    int call = 0;
    bool complete = false;
  };
  enum class Open { none, text, thinking, call, other };  // other: of an upstream, passed through

  void begin(std::string& out);
  void delta(std::string_view type, std::string_view key, std::string_view text, std::string& out);
  void open(Open kind, std::string& out);
  void open_call(int call, std::string_view id, std::string_view name, std::string& out);
  // A thinking block says its signature last.
  void close(std::string& out, std::string_view signature = unsigned_marker);
  void close_call(std::string& out);
  void say(Answer::Block::Kind kind, std::string_view text, std::string& out);
  Waiting& waiting(Answer::Block::Kind kind);
  Waiting* waiting_call(int call);

  AnswerHead head_;
  chat::Usage usage_;
  bool counted_ = false;  // usage_ has the prompt
  bool begun_ = false, called_ = false, failed_ = false;
  std::optional<chat::Finished> finished_;
  Open open_ = Open::none;
  int call_ = 0;          // the open call's number
  int index_ = -1;        // of the open or last block
  std::size_t said_ = 0;  // bytes of text, thoughts and arguments
  std::vector<Waiting> waiting_;
};

std::string encode_count(int tokens);
// A page of the list, as `query` asks for it: limit (1 to 1000; all that fit by default), after_id, before_id.
Result<std::string> encode_models(const std::vector<chat::ModelInfo>& models, std::string_view query);
std::string encode_model(const chat::ModelInfo& model);
// {"type":"error","error":{"type","message"},"request_id"}. Agents act on the wording of a context that is too small: the message begins as Anthropic's
// does, with the engine's numbers.
std::string encode_error(const Error& error, std::string_view request_id);

// ---- as a client -------------------------------------------------------------------------------------------------------------------

// The body for POST /v1/messages, always streamed. System messages are lifted out, neighbours of one role become one message, reasoning goes back only
// with the signature that proves it. `unsupported` for what the API cannot do and an answer would lack (several choices, log-probabilities,
// grammars, raw prompts …); samplers it does not know are left out.
Result<std::string> encode_request(const chat::Request& request);
// The body for POST /v1/messages/count_tokens.
Result<std::string> encode_count_request(const chat::Request& request);
// The client's own body with every byte kept, but for the model's name and, if `streamed`, "stream": true. Empty when it cannot go to an Anthropic
// endpoint as it is, because it holds reasoning signed with our marker: encode the request instead.
std::optional<std::string> body_for(const Origin& origin, std::string_view model, bool streamed);
// The model that the client's own body names; empty when none.
std::string model_of(const Origin& origin);

// SSE events of an upstream → Events. Tolerant of what is new or left out, strict on what would lose data.
class StreamDecoder {
 public:
  // Appends the events of one SSE event; `type` is its event: field. message_stop closes what is open and sets done(); so does an error, which becomes a
  // Failed event. upstream_failed on what is no event of this API.
  Result<void> decode(std::string_view type, std::string_view data, chat::Events& out);
  // A whole message in one document, from services that do not stream: the events it would have been. Sets done().
  Result<void> decode_document(std::string_view body, chat::Events& out);
  bool done() const { return done_; }
  // Whether the events of the last decode() say all of it that a client could act on; false for what another reader could take for a call, or otherwise than we do.
  bool understood() const { return understood_; }
  // The stream ended. Without message_stop that is a failure in mid-stream.
  Result<void> finish();

 private:
  enum class Open { none, text, thinking, call, other };
  void read_usage(const boost::json::object& usage);
  Result<void> start(const boost::json::object* message, chat::Events& out);
  Result<void> start_block(const boost::json::object* block, chat::Events& out);
  bool understands(std::string_view named, std::string_view type, const boost::json::object& event) const;
  Result<void> read_delta(const boost::json::object& event, chat::Events& out);
  void close_block(chat::Events& out);
  void finish_answer(std::string_view reason, std::string_view stop_sequence, chat::Events& out);
  void end(chat::Events& out);

  Open open_ = Open::none;
  std::int64_t index_ = -1;  // of the open block, as the upstream numbers it
  std::string signature_;    // of the open block
  std::string input_;        // of the open call, as its start gave it
  int calls_ = 0;
  std::int64_t input_tokens_ = 0, cache_read_ = 0, cache_created_ = 0, output_tokens_ = 0;
  bool started_ = false, finished_ = false, done_ = false, understood_ = true;
};

Result<std::vector<chat::ModelInfo>> decode_models_answer(std::string_view body);
Result<int> decode_count_answer(std::string_view body);
// An upstream's error body → Error: its own message, the code by its type, else by status.
Error decode_error(int status, std::string_view body);

}  // namespace hearth::wire::anthropic
