// The Ollama API as a server: requests and answers (one JSON document a line) ↔ the chat vocabulary. Pure functions over text; no I/O but the clock.
//
// Where hearth differs on purpose: a prompt is never truncated, it fits or is refused with both numbers; `options.num_ctx` cannot enlarge the context a
// model was loaded with; a call whose arguments are not a JSON object goes out as text, because clients would run it with arguments nobody wrote.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "chat/event.h"
#include "chat/request.h"
#include "wire/codec.h"

namespace hearth::wire::ollama {

// What requests of this API can ask besides what chat::Request says.
struct GenerateRequest {
  chat::Request request;
  bool load = false;           // there is nothing to answer: load the model, or unload it when keep_loaded is 0
  std::optional<int> context;  // options.num_ctx
};

struct EmbedRequest {
  chat::EmbeddingRequest request;
  bool load = false;
  std::optional<int> context;
  std::optional<std::chrono::milliseconds> keep_loaded;
};

// Every field is checked; an Error names the field (param) and what would be right. `stream` defaults to true. Results that carry no id answer
// the open calls by their tool's name, else in order. Calls without an id get one that depends on their place alone: a conversation reads the same each
// time it comes, and its prefix stays cached.
Result<GenerateRequest> decode_chat(std::string_view body);
Result<GenerateRequest> decode_generate(std::string_view body);
Result<EmbedRequest> decode_embed(std::string_view body);
Result<EmbedRequest> decode_embeddings(std::string_view body);  // the old form: one prompt
Result<std::string> decode_show(std::string_view body);         // the model's name

// /api/chat nests what was said in a message, /api/generate does not.
enum class Form { chat, generate };

// One answer. Durations are measured here: the codec is made when the request arrives.
class Codec final : public AnswerCodec {
 public:
  explicit Codec(Form form, const Clock& clock = Clock::system()) : form_(form), clock_(clock), asked_(clock.now()), opened_(asked_) {}
  // The model was loaded when the request came: what passes until the first event is spent on its prompt, none of it on loading. Otherwise all until the
  // answer opens counts as loading: an upstream opens it when the prompt is computed, so the two cannot be told apart.
  void was_ready() { ready_ = true; }
  void served_by(const std::string& model) override;
  std::string_view stream_content_type() const override { return "application/x-ndjson"; }
  void encode(const chat::Event& event, std::string& out) override;
  void end(std::string& out) override;
  // A space: JSON may begin with one, while an empty line breaks clients.
  void keep_alive(std::string& out) override { out += ' '; }
  std::string whole(const Answer& answer) override;

 private:
  struct Call {
    int index = 0;
    chat::ToolCall call;
  };
  void begin(std::string& out) const;
  void append_said(std::string& out, std::string_view text, std::string_view thinking, const std::vector<chat::ToolCall>& calls) const;
  void append_end(std::string& out, chat::FinishReason reason, const chat::Usage& usage, TimePoint first) const;
  void line(std::string& out, std::string_view text, std::string_view thinking, const std::vector<chat::ToolCall>& calls) const;
  void finish_call(std::size_t position, std::string& out);

  Form form_;
  const Clock& clock_;
  TimePoint asked_, opened_;
  std::optional<TimePoint> first_;  // the prompt is computed
  std::string model_;
  std::vector<Call> calls_;  // still open: this API sends them whole
  chat::Usage usage_;
  std::optional<chat::FinishReason> reason_;
  bool ready_ = false;
  bool failed_ = false;
};

// For a request that only loaded or unloaded its model.
std::string encode_loaded(Form form, const std::string& model, bool unloaded);
std::string encode_embed(const chat::Embeddings& result, const std::string& model, Duration total);
std::string encode_embeddings(const chat::Embeddings& result);
std::string encode_tags(const std::vector<chat::ModelInfo>& models);
// Those that are loaded on this machine.
std::string encode_ps(const std::vector<chat::ModelInfo>& models);
std::string encode_show(const chat::ModelInfo& model);
std::string encode_version();
std::string encode_error(const Error& error);

}  // namespace hearth::wire::ollama
