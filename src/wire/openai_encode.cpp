// Answers of the OpenAI API: chat events → SSE frames or one document. Frames are built by appending text: this is the path of every token.
#include <algorithm>
#include <bit>
#include <charconv>
#include <cmath>

#include "base/base64.h"
#include "base/json.h"
#include "net/sse.h"
#include "wire/json_find.h"
#include "wire/json_writer.h"
#include "wire/openai.h"

namespace hearth::wire::openai {
namespace {

// The finish reason clients act on: agents stop on "stop" although there are calls, and hang on "tool_calls" without any.
std::string_view reason_text(chat::FinishReason reason, bool called) {
  switch (reason) {
    case chat::FinishReason::length: return "length";
    case chat::FinishReason::content_filter: return "content_filter";
    case chat::FinishReason::stop:
    case chat::FinishReason::tool_calls: break;
  }
  return called ? "tool_calls" : "stop";
}

// Which of the request's stop strings ended it: no field of the public API, but one that vLLM has too.
void append_stop(std::string& out, std::string_view stop_sequence) {
  if (stop_sequence.empty()) return;
  out += ',';
  append_field(out, "stop_reason", stop_sequence);
}

void append_usage(std::string& out, const chat::Usage& usage) {
  out += "\"usage\":{\"prompt_tokens\":";
  append_int(out, usage.prompt_tokens);
  out += ",\"completion_tokens\":";
  append_int(out, usage.completion_tokens);
  out += ",\"total_tokens\":";
  append_int(out, static_cast<std::int64_t>(usage.prompt_tokens) + usage.completion_tokens);
  out += ",\"prompt_tokens_details\":{\"cached_tokens\":";
  append_int(out, usage.cached_tokens);
  out += '}';
  if (usage.drafted_tokens > 0 || usage.reasoning_tokens > 0) {
    out += ",\"completion_tokens_details\":{\"accepted_prediction_tokens\":";
    append_int(out, usage.accepted_tokens);
    out += ",\"rejected_prediction_tokens\":";
    append_int(out, usage.drafted_tokens - usage.accepted_tokens);
    out += ",\"reasoning_tokens\":";
    append_int(out, usage.reasoning_tokens);
    out += '}';
  }
  out += '}';
}

// {"prompt_tokens", "total_tokens"} of answers without generated tokens.
void append_prompt_usage(std::string& out, int tokens) {
  out += "\"usage\":{\"prompt_tokens\":";
  append_int(out, tokens);
  out += ",\"total_tokens\":";
  append_int(out, tokens);
  out += '}';
}

// ---- log-probabilities ------------------------------------------------------------------------------------------------------------

void append_probability(std::string& out, const chat::TokenProbability& token) {
  out += "{";
  append_field(out, "token", token.bytes);
  if (token.token >= 0) {
    out += ",\"id\":";
    append_int(out, token.token);
  }
  out += ",\"logprob\":";
  append_float(out, token.logprob);
  out += ",\"bytes\":[";
  for (std::size_t i = 0; i < token.bytes.size(); ++i) {
    if (i > 0) out += ',';
    append_int(out, static_cast<int>(static_cast<unsigned char>(token.bytes[i])));
  }
  out += ']';
}

// The chat form, a list. `id` and `entropy` are ours.
void append_tokens(std::string& out, const std::vector<chat::TokenInfo>& tokens) {
  out += '[';
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    if (i > 0) out += ',';
    append_probability(out, tokens[i].chosen);
    out += ",\"top_logprobs\":[";
    for (std::size_t j = 0; j < tokens[i].top.size(); ++j) {
      if (j > 0) out += ',';
      append_probability(out, tokens[i].top[j]);
      out += '}';
    }
    out += "],\"entropy\":";
    append_float(out, tokens[i].entropy);
    out += '}';
  }
  out += ']';
}

std::size_t characters(std::string_view text) {
  std::size_t n = 0;
  for (const char c : text) n += (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  return n;
}

// The legacy form of /v1/completions: parallel lists. Its top_logprobs cannot hold two tokens of the same text, nor parts of characters, so the
// chat form comes along under `content`, as llama.cpp's server has it.
void append_legacy_tokens(std::string& out, const std::vector<chat::TokenInfo>& tokens, std::size_t& text_offset) {
  const auto list = [&](std::string_view key, auto&& item) {
    out += '"';
    out += key;
    out += "\":[";
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      if (i > 0) out += ',';
      item(tokens[i]);
    }
    out += "],";
  };
  out += '{';
  list("tokens", [&](const chat::TokenInfo& token) { append_json_string(out, token.chosen.bytes); });
  list("token_logprobs", [&](const chat::TokenInfo& token) { append_float(out, token.chosen.logprob); });
  list("top_logprobs", [&](const chat::TokenInfo& token) {
    out += '{';
    std::vector<std::string> keys;
    for (const auto& alternative : token.top) {
      std::string key;
      append_json_string(key, alternative.bytes);
      if (std::find(keys.begin(), keys.end(), key) != keys.end()) continue;  // the likeliest of one text stays
      if (!keys.empty()) out += ',';
      out += key;
      out += ':';
      append_float(out, alternative.logprob);
      keys.push_back(std::move(key));
    }
    out += '}';
  });
  list("text_offset", [&](const chat::TokenInfo& token) {
    append_int(out, text_offset);
    text_offset += characters(token.chosen.bytes);
  });
  out += "\"content\":";
  append_tokens(out, tokens);
  out += '}';
}

void append_logprobs(std::string& out, const std::vector<chat::TokenInfo>& tokens, bool raw, std::size_t& text_offset) {
  out += "\"logprobs\":";
  if (tokens.empty()) {
    out += "null";
  } else if (raw) {
    append_legacy_tokens(out, tokens, text_offset);
  } else {
    out += "{\"content\":";
    append_tokens(out, tokens);
    out += ",\"refusal\":null}";
  }
}

void append_head(std::string& out, const AnswerHead& head, std::string_view object) {
  out += '{';
  append_field(out, "id", head.id);
  out += ',';
  append_field(out, "object", object);
  out += ",\"created\":";
  append_int(out, head.created);
  out += ',';
  append_field(out, "model", head.model);
  out += ",\"choices\":[";
}

std::string_view error_type(ErrorCode code) {
  switch (code) {
    case ErrorCode::unauthorized: return "authentication_error";
    case ErrorCode::forbidden: return "permission_error";
    case ErrorCode::overloaded: return "rate_limit_error";
    default: return http_status(code) < 500 ? "invalid_request_error" : "server_error";
  }
}

}  // namespace

// ---- StreamEncoder ----------------------------------------------------------------------------------------------------------------

StreamEncoder::StreamEncoder(AnswerHead head) : head_(std::move(head)), choices_(static_cast<std::size_t>(std::max(head_.choices, 1))) {
  set_prefix();
  suffix_ = head_.include_usage ? "],\"usage\":null}\n\n" : "]}\n\n";
}

void StreamEncoder::set_prefix() {
  prefix_ = "data: ";
  append_head(prefix_, head_, head_.raw ? "text_completion" : "chat.completion.chunk");
}

void StreamEncoder::passed(std::string_view frame, std::span<const chat::Event> events) {
  if (!adopted_ && !frame.empty()) {
    adopted_ = true;
    net::SseDecoder decoder;
    std::vector<net::SseEvent> read;
    (void)decoder.feed(frame, read);
    const auto chunk = read.empty() ? Result<json::value>(json::value()) : parse_json(read.front().data);
    if (chunk.ok() && chunk->is_object()) {
      if (const auto id = find_text(chunk->get_object(), "id"); !id.empty()) head_.id = id;
      head_.created = find_integer(chunk->get_object(), "created").value_or(head_.created);
      set_prefix();
    }
  }
  for (const auto& event : events) {
    if (const auto* usage = std::get_if<chat::Usage>(&event)) usage_ = *usage;
    const auto* text = std::get_if<chat::TextDelta>(&event);
    const auto* thought = std::get_if<chat::ReasoningDelta>(&event);
    const auto* call = std::get_if<chat::ToolCallBegin>(&event);
    const auto* finished = std::get_if<chat::Finished>(&event);
    const int index = text != nullptr       ? text->choice
                      : thought != nullptr  ? thought->choice
                      : call != nullptr     ? call->choice
                      : finished != nullptr ? finished->choice
                                            : -1;
    Choice* choice = open_choice(index);
    if (choice == nullptr) continue;
    choice->role_sent = true;
    choice->called = choice->called || call != nullptr;
    choice->finished = finished != nullptr;
  }
}

// Nothing may follow a choice's finish_reason.
StreamEncoder::Choice* StreamEncoder::open_choice(int index) {
  if (failed_ || index < 0 || static_cast<std::size_t>(index) >= choices_.size()) return nullptr;
  Choice& choice = choices_[static_cast<std::size_t>(index)];
  return choice.finished ? nullptr : &choice;
}

// Up to where the delta's own fields start. SDKs want the role in each choice's first delta.
void StreamEncoder::begin_frame(std::string& out, int index, Choice& choice, std::string_view first_role_fields) {
  out += prefix_;
  out += "{\"index\":";
  append_int(out, index);
  if (head_.raw) {
    out += ',';
    return;
  }
  out += ",\"delta\":{";
  if (!choice.role_sent) {
    out += "\"role\":\"assistant\"";
    out += first_role_fields;
    choice.role_sent = true;
  }
}

void StreamEncoder::end_frame(std::string& out, Choice& choice, std::string_view finish_reason, std::string_view stop_sequence) {
  out += head_.raw ? "," : "},";
  append_logprobs(out, choice.tokens, head_.raw, choice.text_offset);
  choice.tokens.clear();
  out += ",\"finish_reason\":";
  if (finish_reason.empty()) {
    out += "null}";
  } else {
    out += '"';
    out += finish_reason;
    out += '"';
    append_stop(out, stop_sequence);
    out += '}';
  }
  out += suffix_;
}

void StreamEncoder::text_frame(std::string& out, int index, std::string_view field, std::string_view text) {
  Choice* choice = open_choice(index);
  if (choice == nullptr || text.empty()) return;
  begin_frame(out, index, *choice, ",");
  append_field(out, head_.raw ? "text" : field, text);
  end_frame(out, *choice, {}, {});
}

void StreamEncoder::finish_frame(std::string& out, const chat::Finished& finished) {
  Choice* choice = open_choice(finished.choice);
  if (choice == nullptr) return;
  begin_frame(out, finished.choice, *choice, ",\"content\":\"\"");
  if (head_.raw) out += "\"text\":\"\"";
  end_frame(out, *choice, reason_text(finished.reason, choice->called), finished.stop_sequence);
  choice->finished = true;
}

void StreamEncoder::encode(const chat::Event& event, std::string& out) {
  struct Visitor {
    StreamEncoder& self;
    std::string& out;
    void operator()(const chat::Started& started) {
      if (self.failed_ || !self.head_.start_usage) return;
      out += self.prefix_;
      out += "],";
      append_usage(out, {.prompt_tokens = started.prompt_tokens, .cached_tokens = started.cached_tokens});
      out += "}\n\n";
    }
    void operator()(const chat::ReasoningSignature&) {}  // the format has no place for it
    void operator()(const chat::TextDelta& delta) { self.text_frame(out, delta.choice, "content", delta.text); }
    void operator()(const chat::ReasoningDelta& delta) { self.text_frame(out, delta.choice, "reasoning_content", delta.text); }
    void operator()(const chat::ToolCallBegin& call) {
      Choice* choice = self.open_choice(call.choice);
      if (choice == nullptr || self.head_.raw) return;
      self.begin_frame(out, call.choice, *choice, ",\"content\":null,");
      out += "\"tool_calls\":[{\"index\":";
      append_int(out, call.index);
      out += ',';
      append_field(out, "id", call.id);
      out += ",\"type\":\"function\",\"function\":{";
      append_field(out, "name", call.name);
      out += ",\"arguments\":\"\"}}]";
      choice->called = true;
      self.end_frame(out, *choice, {}, {});
    }
    void operator()(const chat::ToolCallDelta& call) {
      Choice* choice = self.open_choice(call.choice);
      if (choice == nullptr || self.head_.raw || call.arguments.empty()) return;
      self.begin_frame(out, call.choice, *choice, ",");
      out += "\"tool_calls\":[{\"index\":";
      append_int(out, call.index);
      out += ",\"function\":{";
      append_field(out, "arguments", call.arguments);
      out += "}}]";
      self.end_frame(out, *choice, {}, {});
    }
    void operator()(const chat::ToolCallEnd&) {}  // the format has no frame for it: the next thing in the choice says it
    void operator()(const chat::TokenInfo& token) {
      Choice* choice = self.open_choice(token.choice);
      if (choice != nullptr && self.head_.logprobs) choice->tokens.push_back(token);
    }
    void operator()(const chat::Finished& finished) { self.finish_frame(out, finished); }
    void operator()(const chat::Usage& usage) { self.usage_ = usage; }
    void operator()(const chat::Failed& failed) {
      if (self.failed_) return;
      self.failed_ = true;
      out += "data: ";
      out += encode_error(failed.error);
      out += "\n\n";
    }
  };
  std::visit(Visitor{*this, out}, event);
}

void StreamEncoder::end(std::string& out) {
  for (const auto& choice : choices_) {
    if (!choice.finished) encode(chat::Failed{unfinished_answer()}, out);
  }
  if (failed_) return;
  if (head_.include_usage) {
    out += prefix_;
    out += "],";
    append_usage(out, usage_);
    out += "}\n\n";
  }
  out += "data: [DONE]\n\n";
}

// ---- whole documents --------------------------------------------------------------------------------------------------------------

std::string encode_answer(const AnswerHead& head, const Answer& answer) {
  std::string out;
  append_head(out, head, head.raw ? "text_completion" : "chat.completion");
  for (std::size_t i = 0; i < answer.choices.size(); ++i) {
    const Answer::Choice& choice = answer.choices[i];
    const std::string text = choice.text(), reasoning = choice.reasoning();
    const auto calls = head.raw ? std::vector<chat::ToolCall>() : choice.calls();
    out += i > 0 ? ",{\"index\":" : "{\"index\":";
    append_int(out, i);
    if (head.raw) {
      out += ',';
      append_field(out, "text", reasoning + text);
    } else {
      out += ",\"message\":{\"role\":\"assistant\",\"content\":";
      if (text.empty() && !calls.empty()) out += "null";
      else append_json_string(out, text);
      out += ",\"refusal\":null";
      if (!reasoning.empty()) {
        out += ',';
        append_field(out, "reasoning_content", reasoning);
      }
      for (std::size_t j = 0; j < calls.size(); ++j) {
        const chat::ToolCall& call = calls[j];
        out += j == 0 ? ",\"tool_calls\":[{" : ",{";
        append_field(out, "id", call.id);
        out += ",\"type\":\"function\",\"function\":{";
        append_field(out, "name", call.name);
        out += ',';
        append_field(out, "arguments", call.arguments);
        out += j + 1 == calls.size() ? "}}]" : "}}";
      }
      out += '}';
    }
    out += ',';
    std::size_t text_offset = 0;
    append_logprobs(out, head.logprobs ? choice.tokens : std::vector<chat::TokenInfo>(), head.raw, text_offset);
    out += ",\"finish_reason\":\"";
    out += reason_text(choice.reason.value_or(chat::FinishReason::stop), !head.raw && !calls.empty());
    out += '"';
    append_stop(out, choice.stop_sequence);
    out += '}';
  }
  out += "],";
  append_usage(out, answer.usage);
  out += '}';
  return out;
}

std::string encode_embeddings(const chat::Embeddings& result, const std::string& model, bool base64) {
  static_assert(std::endian::native == std::endian::little, "base64 embeddings are little-endian");
  std::string out = "{\"object\":\"list\",\"data\":[";
  for (std::size_t i = 0; i < result.vectors.size(); ++i) {
    const auto& vector = result.vectors[i];
    out += i > 0 ? "," : "";
    out += "{\"object\":\"embedding\",\"index\":";
    append_int(out, i);
    out += ",\"embedding\":";
    if (base64) {
      out += '"';
      out += base64_encode({reinterpret_cast<const char*>(vector.data()), vector.size() * sizeof(float)});
      out += '"';
    } else {
      out += '[';
      for (std::size_t j = 0; j < vector.size(); ++j) {
        if (j > 0) out += ',';
        append_float(out, vector[j]);
      }
      out += ']';
    }
    out += '}';
  }
  out += "],";
  append_field(out, "model", model);
  out += ',';
  append_prompt_usage(out, result.prompt_tokens);
  out += '}';
  return out;
}

std::string encode_rerank(const chat::RerankResult& result, const chat::RerankRequest& request, const std::string& model) {
  std::string out = "{\"object\":\"list\",";
  append_field(out, "model", model);
  out += ',';
  append_prompt_usage(out, result.prompt_tokens);
  out += ",\"results\":[";
  bool first = true;
  int left = request.top_n.value_or(static_cast<int>(result.items.size()));
  for (const auto& item : result.items) {
    if (item.index < 0 || static_cast<std::size_t>(item.index) >= request.documents.size()) continue;
    if (left-- <= 0) break;
    out += first ? "{\"index\":" : ",{\"index\":";
    first = false;
    append_int(out, item.index);
    out += ",\"relevance_score\":";
    append_float(out, item.score);
    if (request.return_documents) {
      out += ",\"document\":{";
      append_field(out, "text", request.documents[static_cast<std::size_t>(item.index)]);
      out += '}';
    }
    out += '}';
  }
  out += "]}";
  return out;
}

// What the public API has no field for goes under `meta`, where llama.cpp's server puts it too.
std::string encode_model(const chat::ModelInfo& model) {
  std::string out = "{";
  append_field(out, "id", model.id);
  out += ",\"object\":\"model\",\"created\":";
  append_int(out, model.created);
  out += ",\"owned_by\":\"hearth\",\"meta\":{";
  append_field(out, "architecture", model.architecture);
  out += ",\"n_params\":";
  append_int(out, model.parameters);
  out += ",\"size\":";
  append_int(out, model.bytes);
  out += ",\"n_ctx\":";
  append_int(out, model.context);
  const auto flag = [&](const char* key, bool on) {
    out += key;
    out += on ? "true" : "false";
  };
  flag(",\"chat\":", model.chat);
  flag(",\"embeddings\":", model.embeddings);
  flag(",\"rerank\":", model.rerank);
  flag(",\"vision\":", model.vision);
  flag(",\"tools\":", model.tools);
  if (!model.quantisation.empty()) {
    out += ',';
    append_field(out, "quantisation", model.quantisation);
  }
  const auto list = [&](std::string_view key, const std::vector<std::string>& texts) {
    if (texts.empty()) return;
    out += ",\"";
    out += key;
    out += "\":";
    append_list(out, texts, [&](const std::string& text) { append_json_string(out, text); });
  };
  list("aliases", model.aliases);
  list("adapters", model.adapters);
  out += "}}";
  return out;
}

std::string encode_models(const std::vector<chat::ModelInfo>& models) {
  std::string out = "{\"object\":\"list\",\"data\":[";
  for (std::size_t i = 0; i < models.size(); ++i) {
    if (i > 0) out += ',';
    out += encode_model(models[i]);
  }
  out += "]}";
  return out;
}

std::string encode_count(int tokens) {
  std::string out = "{\"object\":\"token_count\",\"tokens\":";
  append_int(out, tokens);
  out += '}';
  return out;
}

std::string encode_prefill(const chat::Usage& usage, const std::string& model) {
  std::string out = "{\"object\":\"prefill\",";
  append_field(out, "model", model);
  out += ",\"prompt_tokens\":";
  append_int(out, usage.prompt_tokens);
  out += ",\"cached_tokens\":";
  append_int(out, usage.cached_tokens);
  out += '}';
  return out;
}

std::string encode_score(const std::vector<chat::TokenInfo>& tokens) {
  std::string out = "{\"object\":\"score\",\"content\":";
  append_tokens(out, tokens);
  out += '}';
  return out;
}

std::string encode_error(const Error& error) {
  std::string out = "{\"error\":{";
  append_field(out, "message", error.message);
  out += ',';
  append_field(out, "type", error_type(error.code));
  out += ",\"param\":";
  if (error.param.empty()) out += "null";
  else append_json_string(out, error.param);
  out += ',';
  append_field(out, "code", name(error.code));
  if (error.retry_after.count() > 0) {
    out += ",\"retry_after_ms\":";
    append_int(out, error.retry_after.count());
  }
  out += "}}";
  return out;
}

}  // namespace hearth::wire::openai
