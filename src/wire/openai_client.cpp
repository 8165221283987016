// The client side of the OpenAI API: chat requests → bodies, an upstream's stream and documents → chat vocabulary. Upstreams are foreign
// programs: what they leave out is filled in, what makes no sense is upstream_failed and never a crash.
#include <boost/json.hpp>
#include <charconv>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "base/base64.h"
#include "base/id.h"
#include "base/json.h"
#include "base/utf8.h"
#include "wire/json_find.h"
#include "wire/json_writer.h"
#include "wire/openai.h"

namespace hearth::wire::openai {
namespace {

constexpr int max_choices = 4096;

// ---- bodies -----------------------------------------------------------------------------------------------------------------------

void append_part(std::string& out, const chat::ContentPart& part) {
  ObjectWriter object(out);
  if (part.kind == chat::ContentPart::Kind::text) {
    object.text("type", "text");
    object.text("text", part.text);
  } else {
    object.text("type", "image_url");
    ObjectWriter image(object.key("image_url"));
    image.text("url", part.url.empty() ? "data:" + part.media_type + ";base64," + part.data : part.url);
    image.close();
  }
  object.close();
}

// The format has no field for a call that failed: unless the text says so by itself, a word does.
bool tells_of_failure(const chat::Message& message) {
  const std::string text = message.text().substr(0, 64);
  return text.find("rror") != std::string::npos || text.find("ailed") != std::string::npos;
}

void append_content(std::string& out, const chat::Message& message) {
  if (message.tool_failed && !tells_of_failure(message)) {
    chat::Message said = message;
    said.tool_failed = false;
    said.content.insert(said.content.begin(), chat::ContentPart{.text = said.content.empty() ? "Error" : "Error: "});
    append_content(out, said);
    return;
  }
  if (message.content.empty()) {
    const bool speaks_otherwise = !message.tool_calls.empty() || !message.reasoning.empty();
    out += message.role == chat::Role::assistant && speaks_otherwise ? "null" : "\"\"";
  } else if (message.content.size() == 1 && message.content[0].kind == chat::ContentPart::Kind::text) {
    append_json_string(out, message.content[0].text);
  } else {
    append_list(out, message.content, [&](const auto& part) { append_part(out, part); });
  }
}

void append_message(std::string& out, const chat::Message& message) {
  static constexpr std::string_view roles[] = {"system", "user", "assistant", "tool"};
  ObjectWriter object(out);
  object.text("role", roles[static_cast<std::size_t>(message.role)]);
  append_content(object.key("content"), message);
  if (!message.reasoning.empty()) object.text("reasoning_content", message.reasoning);
  if (!message.tool_calls.empty()) {
    append_list(object.key("tool_calls"), message.tool_calls, [&](const chat::ToolCall& call) {
      ObjectWriter entry(out);
      entry.text("id", call.id);
      entry.text("type", "function");
      ObjectWriter function(entry.key("function"));
      function.text("name", call.name);
      function.text("arguments", call.arguments);
      function.close();
      entry.close();
    });
  }
  if (message.role == chat::Role::tool) object.text("tool_call_id", message.tool_call_id);
  if (!message.name.empty()) object.text("name", message.name);
  object.close();
}

// One entry stands for itself, several make a list.
void append_inputs(std::string& out, const std::vector<chat::RawPrompt>& inputs) {
  const auto one = [&](const chat::RawPrompt& input) {
    if (input.tokens.empty()) append_json_string(out, input.text);
    else append_list(out, input.tokens, [&](std::int32_t token) { out += std::to_string(token); });
  };
  if (inputs.size() == 1) one(inputs[0]);
  else append_list(out, inputs, one);
}

void append_tools(ObjectWriter& body, std::string& out, const chat::Request& request) {
  using Mode = chat::ToolChoice::Mode;
  if (!request.tools.empty()) {
    append_list(body.key("tools"), request.tools, [&](const chat::ToolSpec& tool) {
      ObjectWriter entry(out);
      entry.text("type", "function");
      ObjectWriter function(entry.key("function"));
      function.text("name", tool.name);
      if (!tool.description.empty()) function.text("description", tool.description);
      function.json("parameters", tool.parameters.empty() ? "{}" : tool.parameters);
      function.close();
      entry.close();
    });
  }
  switch (request.tool_choice.mode) {
    case Mode::automatic: break;
    case Mode::none: body.text("tool_choice", "none"); break;
    case Mode::required: body.text("tool_choice", "required"); break;
    case Mode::named: {
      ObjectWriter choice(body.key("tool_choice"));
      choice.text("type", "function");
      ObjectWriter function(choice.key("function"));
      function.text("name", request.tool_choice.name);
      function.close();
      choice.close();
    }
  }
  if (!request.parallel_tool_calls) body.json("parallel_tool_calls", "false");
}

void append_reasoning(ObjectWriter& body, const chat::Reasoning& reasoning) {
  if (!reasoning.effort.empty()) body.text("reasoning_effort", reasoning.effort);
  if (reasoning.enabled)
    body.json("chat_template_kwargs", *reasoning.enabled ? R"({"enable_thinking":true})" : R"({"enable_thinking":false})");
  body.number("thinking_budget_tokens", reasoning.budget);
}

void append_format(ObjectWriter& body, const chat::OutputFormat& format) {
  using Kind = chat::OutputFormat::Kind;
  switch (format.kind) {
    case Kind::text: break;
    case Kind::json_object: body.json("response_format", R"({"type":"json_object"})"); break;
    case Kind::json_schema:
      body.json("response_format",
                R"({"type":"json_schema","json_schema":{"name":"answer","strict":true,"schema":)" + format.schema + "}}");
      break;
    case Kind::gbnf: body.text("grammar", format.schema); break;
  }
}

void append_sampling(ObjectWriter& body, std::string& out, const chat::Sampling& sampling) {
  body.number("temperature", sampling.temperature);
  body.number("top_p", sampling.top_p);
  body.number("min_p", sampling.min_p);
  body.number("top_k", sampling.top_k);
  body.number("presence_penalty", sampling.presence_penalty);
  body.number("frequency_penalty", sampling.frequency_penalty);
  body.number("repeat_penalty", sampling.repeat_penalty);
  body.number("seed", sampling.seed);
  if (!sampling.logit_bias.empty()) {
    ObjectWriter biases(body.key("logit_bias"));
    for (const auto& [token, bias] : sampling.logit_bias) biases.number(std::to_string(token), bias);
    biases.close();
  }
  if (!sampling.stop.empty()) append_list(body.key("stop"), sampling.stop, [&](const std::string& stop) { append_json_string(out, stop); });
}

// ---- an upstream's documents ------------------------------------------------------------------------------------------------------

chat::TokenProbability probability_of(const json::object& item) {
  chat::TokenProbability out;
  if (const auto id = find_integer(item, "id"); id && *id >= 0 && *id <= std::numeric_limits<std::int32_t>::max()) {
    out.token = static_cast<std::int32_t>(*id);
  }
  out.logprob = to_float(find(item, "logprob"));
  if (const auto* bytes = find_array(item, "bytes")) {
    for (const auto& byte : *bytes) {
      if (const auto* number = byte.if_int64()) out.bytes.push_back(static_cast<char>(*number));
    }
  } else {
    out.bytes = find_text(item, "token");
  }
  return out;
}

chat::TokenInfo token_of(const json::object& item, int choice) {
  chat::TokenInfo out;
  out.choice = choice;
  out.chosen = probability_of(item);
  if (const auto* top = find_array(item, "top_logprobs")) {
    for (const auto& alternative : *top) {
      if (const auto* object = alternative.if_object()) out.top.push_back(probability_of(*object));
    }
  }
  if (const auto* entropy = find(item, "entropy")) out.entropy = to_float(entropy);
  return out;
}

// Both forms; the chat form says more, so it wins.
void read_logprobs(const json::object& logprobs, int choice, chat::Events& out) {
  if (const auto* content = find_array(logprobs, "content")) {
    for (const auto& item : *content) {
      if (const auto* object = item.if_object()) out.emplace_back(token_of(*object, choice));
    }
    return;
  }
  const auto* tokens = find_array(logprobs, "tokens");
  if (tokens == nullptr) return;
  const auto* values = find_array(logprobs, "token_logprobs");
  const auto* tops = find_array(logprobs, "top_logprobs");
  for (std::size_t i = 0; i < tokens->size(); ++i) {
    chat::TokenInfo token;
    token.choice = choice;
    if (const auto* text = (*tokens)[i].if_string()) token.chosen.bytes.assign(text->data(), text->size());
    token.chosen.logprob = to_float(values != nullptr && i < values->size() ? &(*values)[i] : nullptr);
    if (const auto* top = tops != nullptr && i < tops->size() ? (*tops)[i].if_object() : nullptr) {
      for (const auto& [text, logprob] : *top) token.top.push_back({-1, std::string(text.data(), text.size()), to_float(&logprob)});
    }
    out.emplace_back(std::move(token));
  }
}

// Reads the one shape of chunk that comes for every token, without building a document: one choice with plain text and nothing else that says
// anything. Whatever is out of the ordinary (an escape, a second choice, a field that is not null) makes read() false: the parser's turn then.
class TextChunk {
 public:
  explicit TextChunk(std::string_view data) : at_(data.data()), end_(at_ + data.size()) {}
  // Stands between quotes for itself.
  static bool plain(std::string_view text) {
    bool ascii = true;
    for (const char c : text) {
      if (c == '"' || c == '\\' || static_cast<unsigned char>(c) < 0x20) return false;
      ascii = ascii && static_cast<unsigned char>(c) < 0x80;
    }
    return ascii || is_valid_utf8(text);
  }
  // What `quoted`, found between quotes, says; code is full of line breaks and quotes, so the one-letter escapes are read here.
  static bool unquote(std::string_view quoted, std::string& out) {
    if (plain(quoted)) {
      out = quoted;
      return true;
    }
    constexpr std::string_view letters = "nt\"\\r/bf", meanings = "\n\t\"\\\r/\b\f";
    for (std::size_t at = 0; at < quoted.size();) {
      const auto run = quoted.substr(at, quoted.substr(at).find('\\'));
      if (!plain(run)) return false;
      out += run;
      at += run.size();
      if (at == quoted.size()) break;
      const auto letter = at + 1 < quoted.size() ? letters.find(quoted[at + 1]) : std::string_view::npos;
      if (letter == std::string_view::npos) return false;
      out += meanings[letter];
      at += 2;
    }
    return true;
  }
  int index = 0;
  std::string_view text;

  bool read() {
    const bool ok = object([this](std::string_view key) {
      if (key == "choices") return once(choices_) && take('[') && choice() && take(']');
      return key == "error" || key == "usage" ? null() : scalar();
    });
    next();
    return ok && choices_ && at_ == end_;
  }

 private:
  bool choice() {
    return object([this](std::string_view key) {
      if (key == "index") return once(index_) && integer(index);
      if (key == "text") return once(text_) && string(text);
      if (key == "delta") return once(text_) && delta();
      return null();
    });
  }
  bool delta() {
    return object([this](std::string_view key) {
      if (key == "content") return once(content_) && (next() == '"' ? string(text) : null());
      return key == "role" ? scalar() : null();
    });
  }

  // A key that counts must not come twice.
  static bool once(bool& seen) { return !std::exchange(seen, true); }
  // The next character that is not a space; 0 at the end.
  char next() {
    while (at_ != end_ && *at_ == ' ') ++at_;
    return at_ == end_ ? '\0' : *at_;
  }
  bool take(char c) {
    if (next() != c || at_ == end_) return false;
    ++at_;
    return true;
  }
  bool null() {
    if (next() != 'n' || !std::string_view(at_, static_cast<std::size_t>(end_ - at_)).starts_with("null")) return false;
    at_ += 4;
    return true;
  }
  template <class Number>
  bool integer(Number& out) {
    if (next() < '0' || next() > '9') return false;
    const char* start = at_;
    const auto [last, error] = std::from_chars(at_, end_, out);
    at_ = last;
    return error == std::errc() && (*start != '0' || last == start + 1);
  }
  bool string(std::string_view& out) {
    if (!take('"')) return false;
    const auto left = std::string_view(at_, static_cast<std::size_t>(end_ - at_));
    out = left.substr(0, left.find('"'));
    at_ += out.size();
    return take('"') && plain(out);
  }
  bool scalar() {
    std::string_view ignored;
    std::int64_t number = 0;
    return next() == '"' ? string(ignored) : next() == 'n' ? null() : integer(number);
  }
  template <class Field>
  bool object(Field field) {
    if (!take('{')) return false;
    if (take('}')) return true;
    do {
      std::string_view key;
      if (!string(key) || !take(':') || !field(key)) return false;
    } while (take(','));
    return take('}');
  }

  const char* at_;
  const char* end_;
  bool choices_ = false, index_ = false, text_ = false, content_ = false;
};

ErrorCode code_for_status(std::int64_t status) {
  switch (status) {
    case 401: return ErrorCode::unauthorized;
    case 403: return ErrorCode::forbidden;
    case 404: return ErrorCode::model_not_found;
    case 405: return ErrorCode::method_not_allowed;
    case 408: return ErrorCode::request_timeout;
    case 413: return ErrorCode::payload_too_large;
    case 429: return ErrorCode::overloaded;
    case 431: return ErrorCode::headers_too_large;
    case 503: return ErrorCode::unavailable;
    case 504: return ErrorCode::upstream_timeout;
    default: return status >= 400 && status < 500 ? ErrorCode::invalid_request : ErrorCode::upstream_failed;
  }
}

// `error` as engines write it: an object (OpenAI and most), or a bare text (Ollama, TGI).
Error error_of(const json::value& error, std::int64_t status) {
  Error out;
  if (const auto* text = error.if_string()) {
    out.message.assign(text->data(), text->size());
    out.code = code_for_status(status);
  } else if (const auto* object = error.if_object()) {
    out.message = find_text(*object, "message");
    out.param = find_text(*object, "param");
    out.retry_after = std::chrono::milliseconds(find_count(*object, "retry_after_ms"));
    // llama.cpp's server and vLLM put the status into `code`.
    const ErrorCode fallback = find_text(*object, "type") == "exceed_context_size_error"
                                   ? ErrorCode::context_length_exceeded
                                   : code_for_status(find_integer(*object, "code").value_or(status));
    out.code = error_code_from_name(find_text(*object, "code"), fallback);
  } else {
    out.code = code_for_status(status);
  }
  if (out.message.empty()) out.message = "the upstream failed without saying why (status " + std::to_string(status) + ")";
  return out;
}

}  // namespace

std::string encode_request(const chat::Request& request) {
  std::string out;
  std::size_t size = 512;
  for (const auto& message : request.messages) {
    for (const auto& part : message.content) size += part.text.size() + part.data.size() + 64;
  }
  for (const auto& prompt : request.prompts) size += prompt.text.size() + prompt.tokens.size() * 8;
  out.reserve(size + size / 16);

  ObjectWriter body(out);
  body.text("model", request.model);
  if (request.prompts.empty()) {
    append_list(body.key("messages"), request.messages, [&](const chat::Message& message) { append_message(out, message); });
    append_tools(body, out, request);
    body.yes("logprobs", request.top_logprobs.has_value());
    body.number("top_logprobs", request.top_logprobs);
    append_reasoning(body, request.reasoning);
  } else {
    append_inputs(body.key("prompt"), request.prompts);
    body.yes("echo", request.echo);
    body.number("logprobs", request.top_logprobs);
  }
  append_format(body, request.format);
  append_sampling(body, out, request.sampling);
  if (request.choices != 1) body.number("n", request.choices);
  body.number("max_tokens", request.max_tokens);
  body.yes("ignore_eos", request.ignore_eos);
  if (!request.adapter.empty()) body.text("adapter", request.adapter);
  body.yes("prefill", request.prefill_only);
  if (request.priority == chat::Priority::background) body.text("priority", "background");
  if (request.time_limit) body.number("time_limit_ms", request.time_limit->count());
  body.json("stream", "true");
  body.json("stream_options", request.start_usage ? R"({"include_usage":true,"start_usage":true})" : R"({"include_usage":true})");
  body.close();
  return out;
}

std::string encode_embedding_request(const chat::EmbeddingRequest& request) {
  std::string out;
  ObjectWriter body(out);
  body.text("model", request.model);
  append_inputs(body.key("input"), request.inputs);
  body.number("dimensions", request.dimensions);
  if (request.base64) body.text("encoding_format", "base64");
  body.close();
  return out;
}

std::string encode_rerank_request(const chat::RerankRequest& request) {
  std::string out;
  ObjectWriter body(out);
  body.text("model", request.model);
  body.text("query", request.query);
  append_list(body.key("documents"), request.documents, [&](const std::string& document) { append_json_string(out, document); });
  body.number("top_n", request.top_n);
  body.yes("return_documents", request.return_documents);
  body.close();
  return out;
}

// ---- StreamDecoder ----------------------------------------------------------------------------------------------------------------

void StreamDecoder::close_call(int index, chat::Events& out) {
  Choice& choice = choices_[static_cast<std::size_t>(index)];
  if (!choice.call_open) return;
  choice.call_open = false;
  out.emplace_back(chat::ToolCallEnd{index, choice.calls - 1});
}

void StreamDecoder::finish_choice(int index, chat::FinishReason reason, chat::Events& out, std::string_view stop_sequence) {
  Choice& choice = choices_[static_cast<std::size_t>(index)];
  choice.finished = true;
  if (reason == chat::FinishReason::stop && choice.calls > 0) reason = chat::FinishReason::tool_calls;
  if (reason == chat::FinishReason::tool_calls && choice.calls == 0) reason = chat::FinishReason::stop;
  out.emplace_back(chat::Finished{index, reason, std::string(stop_sequence)});
}

void StreamDecoder::close(chat::Events& out) {
  done_ = true;
  for (std::size_t i = 0; i < choices_.size(); ++i) {
    if (!choices_[i].seen || choices_[i].finished) continue;
    close_call(static_cast<int>(i), out);
    finish_choice(static_cast<int>(i), chat::FinishReason::stop, out);
  }
  if (usage_) out.emplace_back(*usage_);
}

Result<void> StreamDecoder::decode_call(const json::object& call, int index, chat::Events& out) {
  Choice& choice = choices_[static_cast<std::size_t>(index)];
  const json::object* function = find_object(call, "function");
  understood_ = understood_ && has_only(call, {"index", "id", "type", "function"}) &&
                (function == nullptr || has_only(*function, {"name", "arguments"}));
  const std::string_view id = find_text(call, "id");
  const std::string_view called = function == nullptr ? std::string_view() : find_text(*function, "name");
  const bool other_id = !id.empty() && id != choice.call_id;
  // Without an index, a name begins a new call and anything else goes on with the last one.
  const std::int64_t at =
      find_integer(call, "index").value_or(called.empty() || (choice.call_open && !other_id) ? choice.call_index : choice.calls);
  // Some engines give every parallel call the index 0 and tell them apart by id.
  if (!choice.call_open || at != choice.call_index || (other_id && !called.empty())) {
    if (called.empty()) return nonsense("a tool call has no name, or goes on after another one began");
    close_call(index, out);
    choice.call_open = true;
    choice.call_index = at;
    choice.call_id = id.empty() ? random_id("call_") : std::string(id);
    out.emplace_back(chat::ToolCallBegin{index, choice.calls++, choice.call_id, std::string(called)});
  }
  // Clients put calls together by the number that the upstream gives them.
  understood_ = understood_ && find_integer(call, "index") == choice.calls - 1;
  const json::value* arguments = function == nullptr ? nullptr : find(*function, "arguments");
  if (arguments == nullptr) return {};
  std::string text;
  if (const auto* fragment = arguments->if_string()) text.assign(fragment->data(), fragment->size());
  else if (arguments->is_object()) append_json(text, *arguments), understood_ = false;
  else return nonsense("a tool call's arguments are neither text nor an object");
  if (!text.empty()) out.emplace_back(chat::ToolCallDelta{index, choice.calls - 1, std::move(text)});
  return {};
}

Result<void> StreamDecoder::decode_choice(const json::object& chunk, chat::Events& out) {
  const std::int64_t given = find_integer(chunk, "index").value_or(0);
  if (given < 0 || given >= max_choices) return nonsense("a choice has the index " + std::to_string(given));
  const int index = static_cast<int>(given);
  if (choices_.size() <= static_cast<std::size_t>(index)) choices_.resize(static_cast<std::size_t>(index) + 1);
  Choice& choice = choices_[static_cast<std::size_t>(index)];
  choice.seen = true;

  const json::object* delta = find_object(chunk, "delta");
  understood_ = understood_ && has_only_structures(chunk, {"delta", "logprobs", "content_filter_results", "token_ids"}) &&
                (delta == nullptr || has_only_structures(*delta, {"tool_calls", "reasoning_details", "annotations", "audio"}));
  const std::string_view text = delta != nullptr ? find_text(*delta, "content") : find_text(chunk, "text");
  std::string_view reasoning;
  const json::array* calls = nullptr;
  if (delta != nullptr) {
    if (const auto* content = find(*delta, "content"); content != nullptr && !content->is_string())
      return nonsense("a delta's content is not text");
    reasoning = find_text(*delta, "reasoning_content");
    if (reasoning.empty()) reasoning = find_text(*delta, "reasoning");
    calls = find_array(*delta, "tool_calls");
  }
  const bool has_calls = calls != nullptr && !calls->empty();
  const std::string_view reason = find_text(chunk, "finish_reason");
  if (choice.finished) {
    if (text.empty() && reasoning.empty() && !has_calls) return {};
    return nonsense("a choice goes on after it finished");
  }

  if (!text.empty() || !reasoning.empty() || !reason.empty()) {
    if (!has_calls) close_call(index, out);
  }
  if (const auto* logprobs = find_object(chunk, "logprobs")) read_logprobs(*logprobs, index, out);
  if (!reasoning.empty()) {
    close_call(index, out);
    out.emplace_back(chat::ReasoningDelta{index, std::string(reasoning)});
  }
  if (!text.empty()) {
    close_call(index, out);
    out.emplace_back(chat::TextDelta{index, std::string(text)});
  }
  if (has_calls) {
    for (const auto& call : *calls) {
      if (!call.is_object()) return nonsense("a tool call is not an object");
      if (auto ok = decode_call(call.get_object(), index, out); !ok) return ok;
    }
  }
  if (reason.empty()) return {};
  close_call(index, out);
  using chat::FinishReason;
  if (reason == "abort" || reason == "error") {
    done_ = true;
    out.emplace_back(
        chat::Failed{{ErrorCode::upstream_failed, "the upstream gave up this answer (finish_reason " + std::string(reason) + ")", "", {}}});
  } else if (reason == "length" || reason == "max_tokens") {
    finish_choice(index, FinishReason::length, out);
  } else if (reason == "content_filter") {
    finish_choice(index, FinishReason::content_filter, out);
  } else {
    finish_choice(index, reason == "tool_calls" || reason == "function_call" ? FinishReason::tool_calls : FinishReason::stop, out,
                  find_text(chunk, "stop_reason"));
  }
  return {};
}

// A chunk of plain text, which nearly every one is; false, and nothing done, for all others. Most differ from the one before in their text alone:
// then no more of them needs to be read than that.
bool StreamDecoder::decode_text(std::string_view data, chat::Events& out) {
  const auto before = std::string_view(form_).substr(0, form_gap_);
  const auto after = std::string_view(form_).substr(form_gap_);
  std::string text;
  if (!form_.empty() && data.size() >= form_.size() && data.starts_with(before) && data.ends_with(after)) {
    if (!TextChunk::unquote(data.substr(form_gap_, data.size() - form_.size()), text)) return false;
  } else {
    TextChunk chunk(data);
    if (!chunk.read() || chunk.index >= max_choices) return false;
    text = chunk.text;
    form_index_ = chunk.index;
    form_gap_ = chunk.text.data() == nullptr ? 0 : static_cast<std::size_t>(chunk.text.data() - data.data());
    form_.clear();
    if (form_gap_ > 0) form_.append(data.substr(0, form_gap_)).append(data.substr(form_gap_ + chunk.text.size()));
  }
  const auto index = static_cast<std::size_t>(form_index_);
  if (choices_.size() <= index) choices_.resize(index + 1);
  if (choices_[index].finished) return false;
  choices_[index].seen = true;
  if (text.empty()) return true;
  close_call(form_index_, out);
  out.emplace_back(chat::TextDelta{form_index_, std::move(text)});
  return true;
}

Result<void> StreamDecoder::decode(std::string_view data, chat::Events& out) {
  understood_ = true;
  if (done_) return {};
  if (decode_text(data, out)) return {};
  if (data == "[DONE]") {
    close(out);
    return {};
  }
  // Not parse_json: a chunk is parsed for every token, and a foreign engine's duplicate key hurts nobody here.
  unsigned char buffer[4096];
  json::monotonic_resource memory(buffer);
  json::error_code ec;
  json::parse_options options;
  options.max_depth = json_max_depth;
  const json::value document = json::parse({data.data(), data.size()}, ec, &memory, options);
  if (ec) return nonsense("a chunk is not JSON: " + ec.message());
  const json::object* chunk = document.if_object();
  if (chunk == nullptr) return nonsense("a chunk is not an object");
  understood_ = !names_twice(data, document);

  if (const auto* error = find(*chunk, "error")) {
    done_ = true;
    out.emplace_back(chat::Failed{error_of(*error, 502)});
    return {};
  }
  const json::object* usage = find_object(*chunk, "usage");
  if (usage != nullptr) {
    const json::object* details = find_object(*usage, "prompt_tokens_details");
    usage_ = chat::Usage{find_count(*usage, "prompt_tokens"), details == nullptr ? 0 : find_count(*details, "cached_tokens"),
                         find_count(*usage, "completion_tokens")};
    if (const auto* spent = find_object(*usage, "completion_tokens_details")) {
      usage_->accepted_tokens = find_count(*spent, "accepted_prediction_tokens");
      usage_->drafted_tokens = usage_->accepted_tokens + find_count(*spent, "rejected_prediction_tokens");
      usage_->reasoning_tokens = find_count(*spent, "reasoning_tokens");
    }
    if (choices_.empty() && usage_->prompt_tokens > 0 && usage_->completion_tokens == 0) {
      out.emplace_back(chat::Started{usage_->prompt_tokens, usage_->cached_tokens});
    }
  }
  const json::array* choices = find_array(*chunk, "choices");
  if (choices == nullptr) return usage != nullptr ? Result<void>() : nonsense("a chunk has no choices");
  for (const auto& choice : *choices) {
    if (!choice.is_object()) return nonsense("a choice is not an object");
    if (auto ok = decode_choice(choice.get_object(), out); !ok) return ok;
    if (done_) break;
  }
  return {};
}

Result<void> StreamDecoder::decode_document(std::string_view body, chat::Events& out) {
  auto document = parse_answer(body);
  if (!document) return std::move(document).error();
  json::object& answer = document->get_object();
  json::value* choices = answer.if_contains("choices");
  if (find(answer, "error") == nullptr) {
    if (choices == nullptr || !choices->is_array() || choices->get_array().empty()) return nonsense("a completion has no choices");
    // A message says in one piece what deltas say in many; only its calls lack the numbers by which deltas tell them apart.
    for (auto& choice : choices->get_array()) {
      json::object* object = choice.if_object();
      json::value* message = object == nullptr ? nullptr : object->if_contains("message");
      if (message == nullptr || !message->is_object()) continue;
      json::value* calls = message->get_object().if_contains("tool_calls");
      for (std::size_t i = 0; calls != nullptr && calls->is_array() && i < calls->get_array().size(); ++i) {
        if (auto* call = calls->get_array()[i].if_object()) (*call)["index"] = i;
      }
      json::value delta = std::move(*message);
      (*object)["delta"] = std::move(delta);
    }
  }
  std::string chunk;
  append_json(chunk, *document);
  if (auto ok = decode(chunk, out); !ok) return ok;
  return decode("[DONE]", out);
}

Result<void> StreamDecoder::finish(chat::Events& out) {
  if (done_) return {};
  bool complete = false;
  for (const auto& choice : choices_) {
    if (choice.seen && !choice.finished)
      return Error{ErrorCode::upstream_failed, "the upstream broke off in the middle of its answer", "", {}};
    complete = complete || choice.finished;
  }
  if (!complete) return Error{ErrorCode::upstream_failed, "the upstream closed the stream without an answer", "", {}};
  close(out);
  return {};
}

// ---- documents --------------------------------------------------------------------------------------------------------------------

Result<chat::Embeddings> decode_embeddings_answer(std::string_view body) {
  auto document = parse_answer(body);
  if (!document) return std::move(document).error();
  const json::object& answer = document->get_object();
  const json::array* data = find_array(answer, "data");
  if (data == nullptr) return nonsense("embeddings without data");
  chat::Embeddings out;
  out.vectors.resize(data->size());
  std::vector<bool> filled(data->size());
  for (std::size_t i = 0; i < data->size(); ++i) {
    const json::object* entry = (*data)[i].if_object();
    const json::value* embedding = entry == nullptr ? nullptr : find(*entry, "embedding");
    if (embedding == nullptr) return nonsense("an embedding is missing");
    const auto index = static_cast<std::uint64_t>(find_integer(*entry, "index").value_or(static_cast<std::int64_t>(i)));
    if (index >= data->size() || filled[index]) return nonsense("the embeddings' indices are not 0 to " + std::to_string(data->size() - 1));
    filled[index] = true;
    std::vector<float>& vector = out.vectors[index];
    if (const auto* numbers = embedding->if_array()) {
      vector.reserve(numbers->size());
      for (const auto& number : *numbers) {
        if (!number.is_number()) return nonsense("an embedding holds something that is not a number");
        vector.push_back(to_float(&number));
      }
    } else if (const auto* text = embedding->if_string()) {
      const auto bytes = base64_decode({text->data(), text->size()});
      if (!bytes || bytes->size() % sizeof(float) != 0) return nonsense("an embedding is not base64 of 32-bit floats");
      vector.resize(bytes->size() / sizeof(float));
      if (!bytes->empty()) std::memcpy(vector.data(), bytes->data(), bytes->size());
    } else {
      return nonsense("an embedding is neither a list nor base64");
    }
  }
  if (const auto* usage = find_object(answer, "usage")) out.prompt_tokens = find_count(*usage, "prompt_tokens");
  return out;
}

Result<chat::RerankResult> decode_rerank_answer(std::string_view body) {
  auto document = parse_answer(body);
  if (!document) return std::move(document).error();
  const json::object& answer = document->get_object();
  const json::array* results = find_array(answer, "results");
  if (results == nullptr) return nonsense("a ranking without results");
  chat::RerankResult out;
  for (const auto& value : *results) {
    const json::object* entry = value.if_object();
    const auto index = entry == nullptr ? std::nullopt : find_integer(*entry, "index");
    const float score = entry == nullptr ? std::nanf("") : to_float(find(*entry, "relevance_score"));
    if (!index || *index < 0 || *index > std::numeric_limits<int>::max() || std::isnan(score))
      return nonsense("a result lacks index or relevance_score");
    out.items.push_back({static_cast<int>(*index), score});
  }
  if (const auto* usage = find_object(answer, "usage")) out.prompt_tokens = find_count(*usage, "prompt_tokens");
  return out;
}

Result<std::vector<chat::ModelInfo>> decode_models_answer(std::string_view body) {
  auto document = parse_answer(body);
  if (!document) return std::move(document).error();
  const json::array* data = find_array(document->get_object(), "data");
  if (data == nullptr) return nonsense("a model list without data");
  std::vector<chat::ModelInfo> out;
  for (const auto& value : *data) {
    const json::object* entry = value.if_object();
    if (entry == nullptr || find_text(*entry, "id").empty()) return nonsense("a model without id");
    chat::ModelInfo model;
    model.id = find_text(*entry, "id");
    model.created = find_integer(*entry, "created").value_or(0);
    model.context = find_count(*entry, "max_model_len");  // vLLM, SGLang
    model.chat = true;                                    // what an engine is for when it does not say
    if (const auto* meta = find_object(*entry, "meta")) {
      const auto flag = [&](std::string_view key, bool otherwise) {
        const json::value* on = find(*meta, key);
        return on != nullptr && on->is_bool() ? on->get_bool() : otherwise;
      };
      model.architecture = find_text(*meta, "architecture");
      model.parameters = find_integer(*meta, "n_params").value_or(0);
      model.bytes = find_integer(*meta, "size").value_or(0);
      if (model.context == 0) model.context = find_count(*meta, find(*meta, "n_ctx") != nullptr ? "n_ctx" : "n_ctx_train");
      model.chat = flag("chat", true);
      model.embeddings = flag("embeddings", false);
      model.rerank = flag("rerank", false);
      model.vision = flag("vision", false);
      model.tools = flag("tools", false);
      model.quantisation = find_text(*meta, "quantisation");
      const auto list = [&](std::string_view key, std::vector<std::string>& texts) {
        const auto* found = find_array(*meta, key);
        if (found == nullptr) return;
        for (const auto& item : *found) {
          if (const auto* text = item.if_string()) texts.emplace_back(text->data(), text->size());
        }
      };
      list("aliases", model.aliases);
      list("adapters", model.adapters);
    }
    out.push_back(std::move(model));
  }
  return out;
}

Result<int> decode_count_answer(std::string_view body) {
  auto document = parse_answer(body);
  if (!document) return std::move(document).error();
  const auto tokens = find_integer(document->get_object(), "tokens");
  if (!tokens || *tokens < 0 || *tokens > std::numeric_limits<int>::max()) return nonsense("a count without tokens");
  return static_cast<int>(*tokens);
}

Result<std::vector<chat::TokenInfo>> decode_score_answer(std::string_view body) {
  auto document = parse_answer(body);
  if (!document) return std::move(document).error();
  const json::array* content = find_array(document->get_object(), "content");
  if (content == nullptr) return nonsense("a score without content");
  std::vector<chat::TokenInfo> out;
  for (const auto& item : *content) {
    if (!item.is_object()) return nonsense("a scored token is not an object");
    out.push_back(token_of(item.get_object(), 0));
  }
  return out;
}

Error decode_error(int status, std::string_view body) {
  const auto document = parse_json(body);
  const json::object* object = document ? document->if_object() : nullptr;
  if (object == nullptr) return error_of({}, status);
  if (const auto* error = find(*object, "error")) return error_of(*error, status);
  if (const auto* detail = find(*object, "detail"); detail != nullptr && detail->is_string()) return error_of(*detail, status);  // FastAPI
  return error_of(*document, status);  // older vLLM: the fields at the top
}

}  // namespace hearth::wire::openai
