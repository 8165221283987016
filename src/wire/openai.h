// The OpenAI API, both sides: requests and answers as JSON and SSE frames ↔ the chat vocabulary. Pure functions over text; no I/O.
// What official SDKs and agents depend on decides every detail here.
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

namespace hearth::wire::openai {

// ---- as a server -------------------------------------------------------------------------------------------------------------------

// Every field is checked for type and range; an Error names the field (param) and what would be right. Unknown fields are ignored, as the
// real API's clients expect. `developer` means system; `max_completion_tokens` wins over `max_tokens`.
Result<chat::Request> decode_chat(std::string_view body);
Result<chat::Request> decode_completion(std::string_view body);
Result<chat::EmbeddingRequest> decode_embeddings(std::string_view body);
Result<chat::RerankRequest> decode_rerank(std::string_view body);
// Either of the first two, told apart by `messages` and `prompt`: for counting and scoring.
Result<chat::Request> decode_chat_or_completion(std::string_view body);

// Facts an answer repeats in every frame.
struct AnswerHead {
  std::string id;            // "chatcmpl-…", "cmpl-…"
  std::int64_t created = 0;  // Unix seconds
  std::string model;         // as served
  bool raw = false;          // /v1/completions shapes instead of chat
  bool include_usage = false;
  bool start_usage = false;  // the first frame tells the prompt's tokens
  bool logprobs = false;
  int choices = 1;
};

// Events → SSE frames. After Finished for every choice (and Usage), call end() for the last chunk and [DONE].
class StreamEncoder {
 public:
  explicit StreamEncoder(AnswerHead head);
  void encode(const chat::Event& event, std::string& out);
  // A frame of an upstream went out in place of what these events would have been. The first one gives all later frames their id.
  void passed(std::string_view frame, std::span<const chat::Event> events);
  // Usage chunk if asked for, then "data: [DONE]". Nothing after a Failed event, which has already closed the stream its own way: SDKs throw on
  // an error chunk and read no further. A choice that never finished becomes such an error.
  void end(std::string& out);

 private:
  struct Choice {
    bool role_sent = false;
    bool called = false;
    bool finished = false;
    std::size_t text_offset = 0;          // raw: characters so far
    std::vector<chat::TokenInfo> tokens;  // waiting for the delta they belong to
  };
  Choice* open_choice(int index);
  void set_prefix();
  void begin_frame(std::string& out, int index, Choice& choice, std::string_view first_role_fields);
  void end_frame(std::string& out, Choice& choice, std::string_view finish_reason, std::string_view stop_sequence);
  void text_frame(std::string& out, int index, std::string_view field, std::string_view text);
  void finish_frame(std::string& out, const chat::Finished& finished);

  std::string prefix_;  // the part of every frame up to its choices
  std::string suffix_;  // the part after them
  AnswerHead head_;
  std::vector<Choice> choices_;
  chat::Usage usage_;
  bool failed_ = false;
  bool adopted_ = false;  // the id of an upstream's frames
};

// The one document of an answer that is not streamed.
std::string encode_answer(const AnswerHead& head, const Answer& answer);

std::string encode_embeddings(const chat::Embeddings& result, const std::string& model, bool base64);
std::string encode_rerank(const chat::RerankResult& result, const chat::RerankRequest& request, const std::string& model);
std::string encode_models(const std::vector<chat::ModelInfo>& models);
std::string encode_model(const chat::ModelInfo& model);
std::string encode_count(int tokens);
std::string encode_prefill(const chat::Usage& usage, const std::string& model);
std::string encode_score(const std::vector<chat::TokenInfo>& tokens);
// {"error": {"message", "type", "param", "code"}}: `type` as OpenAI names it (invalid_request_error, rate_limit_error, server_error …),
// `code` the ErrorCode's name. A wait is added as retry_after_ms.
std::string encode_error(const Error& error);

// ---- as a client -------------------------------------------------------------------------------------------------------------------

// The body for POST /v1/chat/completions or, when `prompts` is set, /v1/completions; always streamed, with usage. Fields OpenAI has no name
// for (top_k, min_p, grammar, priority, time limit …) go under the names llama.cpp's server and hearth's own decoder share, and only when
// they are set: foreign engines refuse what they do not know. The tenant travels as a header instead.
std::string encode_request(const chat::Request& request);
std::string encode_embedding_request(const chat::EmbeddingRequest& request);
std::string encode_rerank_request(const chat::RerankRequest& request);

// SSE data fields of an upstream → Events. Tolerant of what other engines leave out (roles, ids, usage), strict on what would lose data.
class StreamDecoder {
 public:
  // Appends the events of one `data:` field. "[DONE]" closes what is open and sets done(). An error chunk becomes a Failed event and also sets
  // it: read no further. upstream_failed on text that is not a chunk.
  Result<void> decode(std::string_view data, chat::Events& out);
  // A whole completion in one document, from engines that do not stream: the events it would have been. Sets done().
  Result<void> decode_document(std::string_view body, chat::Events& out);
  bool done() const { return done_; }
  // Whether the events of the last decode() say all of it that a client could act on; false for what another reader could take for a call, or otherwise than we do.
  bool understood() const { return understood_; }
  // The stream ended: closes open calls and choices. Without [DONE] and without every choice finished, that is a failure in mid-stream.
  Result<void> finish(chat::Events& out);

 private:
  struct Choice {
    bool seen = false;
    bool finished = false;
    int calls = 0;                // begun so far; ours are numbered without gaps
    bool call_open = false;       // the last one
    std::int64_t call_index = 0;  // as the upstream numbers it
    std::string call_id;
  };
  bool decode_text(std::string_view data, chat::Events& out);
  Result<void> decode_choice(const boost::json::object& chunk, chat::Events& out);
  Result<void> decode_call(const boost::json::object& call, int index, chat::Events& out);
  void close_call(int index, chat::Events& out);
  void finish_choice(int index, chat::FinishReason reason, chat::Events& out, std::string_view stop_sequence = {});
  void close(chat::Events& out);
  std::vector<Choice> choices_;
  std::string form_;  // the last chunk of plain text, without the text
  std::size_t form_gap_ = 0;
  int form_index_ = 0;
  std::optional<chat::Usage> usage_;  // held back: some engines repeat it in every chunk, and it comes last
  bool done_ = false;
  bool understood_ = true;
};

Result<chat::Embeddings> decode_embeddings_answer(std::string_view body);
Result<chat::RerankResult> decode_rerank_answer(std::string_view body);
Result<std::vector<chat::ModelInfo>> decode_models_answer(std::string_view body);
Result<int> decode_count_answer(std::string_view body);
Result<std::vector<chat::TokenInfo>> decode_score_answer(std::string_view body);
// An upstream's error body → Error: its own message, the code by name if it is one of ours, else by status.
Error decode_error(int status, std::string_view body);

}  // namespace hearth::wire::openai
