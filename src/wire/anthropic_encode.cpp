// Answers of the Messages API: chat events → SSE events or one document. Events are built by appending text: this is the path of every token.
#include <algorithm>
#include <cctype>
#include <charconv>
#include <ctime>
#include <limits>

#include "base/id.h"
#include "base/json.h"
#include "net/sse.h"
#include "wire/answer.h"
#include "wire/anthropic.h"
#include "wire/fields.h"
#include "wire/json_find.h"
#include "wire/json_writer.h"

namespace hearth::wire::anthropic {
namespace {

using Kind = Answer::Block::Kind;

constexpr std::size_t bytes_per_token = 4;  // roughly, in most languages and models

int tokens_of(std::size_t bytes) {
  return static_cast<int>(std::clamp<std::size_t>(bytes / bytes_per_token, 1, std::numeric_limits<int>::max()));
}

std::string_view stop_reason(const chat::Finished& finished, bool called) {
  if (finished.reason == chat::FinishReason::length) return "max_tokens";
  if (finished.reason == chat::FinishReason::content_filter) return "refusal";
  if (!finished.stop_sequence.empty()) return "stop_sequence";
  return called ? "tool_use" : "end_turn";
}

// Cached tokens are counted apart: the prompt is the sum.
void append_usage(std::string& out, const chat::Usage& usage) {
  ObjectWriter object(out);
  object.number("input_tokens", std::max(usage.prompt_tokens - usage.cached_tokens, 0));
  object.number("cache_creation_input_tokens", 0);
  object.number("cache_read_input_tokens", usage.cached_tokens);
  object.number("output_tokens", usage.completion_tokens);
  object.close();
}

void append_stop(std::string& out, const chat::Finished& finished, bool called) {
  out += "\"stop_reason\":\"";
  out += stop_reason(finished, called);
  out += "\",\"stop_sequence\":";
  if (finished.reason == chat::FinishReason::stop && !finished.stop_sequence.empty()) append_json_string(out, finished.stop_sequence);
  else out += "null";
}

// The input of a call must be an object. What is none (an answer cut off in mid-call) goes under the name that the API's documentation gives it.
void append_input(std::string& out, const std::string& arguments) {
  if (arguments.empty()) {
    out += "{}";
  } else if (const auto parsed = parse_json(arguments); parsed && parsed->is_object()) {
    out += arguments;
  } else {
    out += '{';
    append_field(out, "INVALID_JSON", arguments);
    out += '}';
  }
}

std::string_view error_type(ErrorCode code) {
  switch (code) {
    case ErrorCode::unauthorized: return "authentication_error";
    case ErrorCode::forbidden: return "permission_error";
    case ErrorCode::not_found:
    case ErrorCode::model_not_found: return "not_found_error";
    case ErrorCode::payload_too_large: return "request_too_large";
    case ErrorCode::overloaded: return "rate_limit_error";
    case ErrorCode::unavailable: return "overloaded_error";
    case ErrorCode::request_timeout:
    case ErrorCode::upstream_timeout:
    case ErrorCode::deadline_exceeded: return "timeout_error";
    default: return http_status(code) < 500 ? "invalid_request_error" : "api_error";
  }
}

// The numbers that stand for themselves in a message, in order.
std::vector<std::int64_t> numbers_in(std::string_view text) {
  const auto joins = [](char c) { return c == '.' || c == '-' || c == '_' || std::isalnum(static_cast<unsigned char>(c)) != 0; };
  std::vector<std::int64_t> out;
  for (std::size_t at = 0, end = 0; at < text.size(); at = std::max(end, at + 1)) {
    std::int64_t number = 0;
    end = static_cast<std::size_t>(std::from_chars(text.data() + at, text.data() + text.size(), number).ptr - text.data());
    const bool alone = (at == 0 || !joins(text[at - 1])) && (end + 1 >= text.size() || !joins(text[end]) || !joins(text[end + 1]));
    if (end > at && alone && number > 0) out.push_back(number);
  }
  return out;
}

// Agents make room, or ask for less, when they read these words with both numbers; the engine's own message follows. Engines differ in the order of
// their numbers: what does not fit is always the larger one.
std::string context_message(const Error& error) {
  constexpr std::string_view too_long = "prompt is too long", too_much = "input length and `max_tokens` exceed context limit";
  if (error.message.starts_with(too_long) || error.message.starts_with(too_much)) return error.message;
  const auto numbers = numbers_in(error.message);
  if (error.param == "max_tokens" && numbers.size() >= 3) {
    // "context holds C, prompt has P, max_tokens asks for M"
    return std::string(too_much) + ": " + std::to_string(numbers[1]) + " + " + std::to_string(numbers[2]) + " > " +
           std::to_string(numbers[0]) + ", decrease input length or `max_tokens` and try again (" + error.message + ")";
  }
  if (numbers.size() < 2) return std::string(too_long) + ": " + error.message;
  const auto [least, most] = std::minmax(numbers[0], numbers[1]);
  return std::string(too_long) + ": " + std::to_string(most) + " tokens > " + std::to_string(least) + " maximum (" + error.message + ")";
}

std::string rfc3339(std::int64_t seconds) {
  const std::time_t time = seconds;
  std::tm parts{};
  char text[32];
  if (gmtime_r(&time, &parts) == nullptr) return "1970-01-01T00:00:00Z";
  return {text, std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts)};
}

}  // namespace

int estimate_tokens(const chat::Request& request) {
  std::size_t bytes = 0;
  for (const auto& message : request.messages) {
    for (const auto& part : message.content) bytes += part.text.size();
    for (const auto& call : message.tool_calls) bytes += call.name.size() + call.arguments.size();
    bytes += message.reasoning.size();
  }
  for (const auto& tool : request.tools) bytes += tool.name.size() + tool.description.size() + tool.parameters.size();
  return tokens_of(bytes);
}

// ---- MessageCodec -----------------------------------------------------------------------------------------------------------------

void MessageCodec::begin(std::string& out) {
  if (std::exchange(begun_, true)) return;
  if (!counted_) usage_.prompt_tokens = head_.estimated_prompt;
  std::string data = R"({"type":"message_start","message":{)";
  append_field(data, "id", head_.id);
  data += R"(,"type":"message","role":"assistant",)";
  append_field(data, "model", head_.model);
  data += R"(,"content":[],"stop_reason":null,"stop_sequence":null,"usage":)";
  append_usage(data, usage_);
  data += "}}";
  net::append_sse(out, data, "message_start");
}

void MessageCodec::open(Open kind, std::string& out) {
  if (open_ == kind) return;
  close(out);
  begin(out);
  open_ = kind;
  out += "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":";
  append_int(out, ++index_);
  out += kind == Open::text ? R"(,"content_block":{"type":"text","text":""}})"
                            : R"(,"content_block":{"type":"thinking","thinking":"","signature":""}})";
  out += "\n\n";
}

void MessageCodec::open_call(int call, std::string_view id, std::string_view name, std::string& out) {
  close(out);
  begin(out);
  open_ = Open::call;
  call_ = call;
  called_ = true;
  out += "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":";
  append_int(out, ++index_);
  out += R"(,"content_block":{"type":"tool_use",)";
  append_field(out, "id", id.empty() ? random_id("toolu_") : id);
  out += ',';
  append_field(out, "name", name);
  out += ",\"input\":{}}}\n\n";
}

void MessageCodec::delta(std::string_view type, std::string_view key, std::string_view text, std::string& out) {
  out += "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":";
  append_int(out, index_);
  out += ",\"delta\":{\"type\":\"";
  out += type;
  out += "\",";
  append_field(out, key, text);
  out += "}}\n\n";
  if (key != "signature") said_ += text.size();
}

void MessageCodec::close(std::string& out, std::string_view signature) {
  if (open_ == Open::none) return;
  if (open_ == Open::thinking) delta("signature_delta", "signature", signature, out);
  open_ = Open::none;
  out += "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":";
  append_int(out, index_);
  out += "}\n\n";
}

void MessageCodec::say(Kind kind, std::string_view text, std::string& out) {
  if (text.empty()) return;
  open(kind == Kind::text ? Open::text : Open::thinking, out);
  if (kind == Kind::text) delta("text_delta", "text", text, out);
  else delta("thinking_delta", "thinking", text, out);
}

// The block that text of this kind goes on with, behind the open call.
MessageCodec::Waiting& MessageCodec::waiting(Kind kind) {
  if (waiting_.empty() || waiting_.back().block.kind != kind || waiting_.back().complete) waiting_.push_back({.block = {.kind = kind}});
  return waiting_.back();
}

MessageCodec::Waiting* MessageCodec::waiting_call(int call) {
  const auto found = std::find_if(waiting_.begin(), waiting_.end(),
                                  [&](const Waiting& one) { return one.block.kind == Kind::call && one.call == call && !one.complete; });
  return found == waiting_.end() ? nullptr : &*found;
}

// The open call is over: what waited behind it is said, up to the next call that goes on.
void MessageCodec::close_call(std::string& out) {
  close(out);
  std::size_t said = 0;
  while (said < waiting_.size() && open_ != Open::call) {
    const Waiting& next = waiting_[said++];
    if (next.block.kind != Kind::call) {
      say(next.block.kind, next.block.text, out);
      if (!next.block.signature.empty()) {
        open(Open::thinking, out);
        close(out, next.block.signature);
      }
      continue;
    }
    open_call(next.call, next.block.call.id, next.block.call.name, out);
    if (!next.block.call.arguments.empty()) delta("input_json_delta", "partial_json", next.block.call.arguments, out);
    if (next.complete) close(out);
  }
  waiting_.erase(waiting_.begin(), waiting_.begin() + static_cast<std::ptrdiff_t>(said));
}

void MessageCodec::encode(const chat::Event& event, std::string& out) {
  struct Visitor {
    MessageCodec& self;
    std::string& out;
    // One answer is all this protocol knows.
    bool live(int choice) const { return choice == 0 && !self.failed_ && !self.finished_; }
    bool calling() const { return self.open_ == Open::call; }

    void operator()(const chat::Started& started) {
      self.counted_ = true;
      self.usage_.prompt_tokens = started.prompt_tokens;
      self.usage_.cached_tokens = started.cached_tokens;
      if (live(0)) self.begin(out);
    }
    void operator()(const chat::TextDelta& text) {
      if (!live(text.choice) || text.text.empty()) return;
      if (calling()) self.waiting(Kind::text).block.text += text.text;
      else self.say(Kind::text, text.text, out);
    }
    void operator()(const chat::ReasoningDelta& thought) {
      if (!live(thought.choice) || thought.text.empty()) return;
      if (calling()) self.waiting(Kind::reasoning).block.text += thought.text;
      else self.say(Kind::reasoning, thought.text, out);
    }
    void operator()(const chat::ReasoningSignature& signature) {
      if (!live(signature.choice) || signature.signature.empty()) return;
      if (calling()) {
        Waiting& thought = self.waiting(Kind::reasoning);
        thought.block.signature = signature.signature;
        thought.complete = true;
      } else {
        self.open(Open::thinking, out);  // reasoning that is not shown has a signature all the same
        self.close(out, signature.signature);
      }
    }
    void operator()(const chat::ToolCallBegin& call) {
      if (!live(call.choice)) return;
      if (calling()) {
        self.waiting_.push_back({.block = {.kind = Kind::call, .call = {call.id, call.name, {}}}, .call = call.index});
      } else {
        self.open_call(call.index, call.id, call.name, out);
      }
    }
    void operator()(const chat::ToolCallDelta& call) {
      if (!live(call.choice) || call.arguments.empty() || !calling()) return;
      if (call.index == self.call_) self.delta("input_json_delta", "partial_json", call.arguments, out);
      else if (auto* later = self.waiting_call(call.index)) later->block.call.arguments += call.arguments;
    }
    void operator()(const chat::ToolCallEnd& call) {
      if (!live(call.choice) || !calling()) return;
      if (call.index == self.call_) self.close_call(out);
      else if (auto* later = self.waiting_call(call.index)) later->complete = true;
    }
    void operator()(const chat::TokenInfo&) {}
    void operator()(const chat::Finished& finished) {
      if (!live(finished.choice)) return;
      while (calling()) self.close_call(out);
      self.close(out);
      self.begin(out);
      self.finished_ = finished;
    }
    void operator()(const chat::Usage& usage) {
      const chat::Usage before = std::exchange(self.usage_, usage);
      if (usage.prompt_tokens > 0) return;
      self.usage_.prompt_tokens = before.prompt_tokens;  // an engine that does not count
      self.usage_.cached_tokens = before.cached_tokens;
    }
    void operator()(const chat::Failed& failed) {
      if (self.failed_) return;
      self.failed_ = true;
      net::append_sse(out, encode_error(failed.error, self.head_.request_id), "error");
    }
  };
  std::visit(Visitor{*this, out}, event);
}

void MessageCodec::passed(std::string_view frame, std::span<const chat::Event> events) {
  begun_ = begun_ || !frame.empty();
  bool words = !events.empty();
  for (const auto& event : events) {
    if (const auto* text = std::get_if<chat::TextDelta>(&event)) {
      said_ += text->text.size();
      continue;
    }
    if (const auto* thought = std::get_if<chat::ReasoningDelta>(&event)) {
      said_ += thought->text.size();
      continue;
    }
    words = false;
    if (const auto* started = std::get_if<chat::Started>(&event)) {
      counted_ = true;
      usage_.prompt_tokens = started->prompt_tokens;
      usage_.cached_tokens = started->cached_tokens;
    } else if (const auto* call = std::get_if<chat::ToolCallBegin>(&event)) {
      call_ = call->index;
      called_ = true;
    } else if (const auto* finished = std::get_if<chat::Finished>(&event)) {
      finished_ = *finished;
    } else if (const auto* usage = std::get_if<chat::Usage>(&event)) {
      usage_ = *usage;
    }
  }
  if (words && (open_ == Open::text || open_ == Open::thinking)) return;
  // Which block is open, and its number, only the frames tell.
  net::SseDecoder decoder;
  std::vector<net::SseEvent> read;
  (void)decoder.feed(frame, read);
  for (const auto& one : read) {
    const auto parsed = parse_json(one.data);
    const auto* event = parsed.ok() ? parsed->if_object() : nullptr;
    if (event == nullptr) continue;
    const auto type = find_text(*event, "type");
    if (type == "content_block_stop") {
      open_ = Open::none;
    } else if (type == "content_block_start") {
      index_ = static_cast<int>(find_integer(*event, "index").value_or(index_ + 1));
      const auto* block = find_object(*event, "content_block");
      const auto kind = block == nullptr ? std::string_view() : find_text(*block, "type");
      open_ = kind == "text" ? Open::text : kind == "thinking" ? Open::thinking : kind == "tool_use" ? Open::call : Open::other;
    }
  }
}

void MessageCodec::end(std::string& out) {
  if (!finished_) encode(chat::Failed{unfinished_answer()}, out);
  if (failed_) return;
  if (usage_.completion_tokens == 0 && said_ > 0) usage_.completion_tokens = tokens_of(said_);
  std::string data = R"({"type":"message_delta","delta":{)";
  append_stop(data, *finished_, called_);
  data += "},\"usage\":";
  append_usage(data, usage_);
  data += '}';
  net::append_sse(out, data, "message_delta");
  net::append_sse(out, R"({"type":"message_stop"})", "message_stop");
}

void MessageCodec::keep_alive(std::string& out) { net::append_sse(out, R"({"type":"ping"})", "ping"); }

std::string MessageCodec::whole(const Answer& answer) {
  static const Answer::Choice nothing;
  const Answer::Choice& choice = answer.choices.empty() ? nothing : answer.choices.front();
  std::string out;
  ObjectWriter message(out);
  message.text("id", head_.id);
  message.text("type", "message");
  message.text("role", "assistant");
  message.text("model", head_.model);
  message.key("content") += '[';
  bool first = true, called = false;
  std::size_t said = 0;
  for (const auto& block : choice.blocks) {
    if (block.kind != Kind::call && block.text.empty() && block.signature.empty()) continue;
    if (!std::exchange(first, false)) out += ',';
    said += block.text.size() + block.call.arguments.size();
    ObjectWriter content(out);
    switch (block.kind) {
      case Kind::text:
        content.text("type", "text");
        content.text("text", block.text);
        break;
      case Kind::reasoning:
        content.text("type", "thinking");
        content.text("thinking", block.text);
        content.text("signature", block.signature.empty() ? unsigned_marker : block.signature);
        break;
      case Kind::call:
        called = true;
        content.text("type", "tool_use");
        content.text("id", block.call.id.empty() ? random_id("toolu_") : block.call.id);
        content.text("name", block.call.name);
        append_input(content.key("input"), block.call.arguments);
        break;
    }
    content.close();
  }
  out += "],";
  append_stop(out, {.reason = choice.reason.value_or(chat::FinishReason::stop), .stop_sequence = choice.stop_sequence}, called);
  chat::Usage usage = answer.usage;
  if (usage.prompt_tokens == 0) usage.prompt_tokens = head_.estimated_prompt;
  if (usage.completion_tokens == 0 && said > 0) usage.completion_tokens = tokens_of(said);
  append_usage(message.key("usage"), usage);
  message.close();
  return out;
}

// ---- documents --------------------------------------------------------------------------------------------------------------------

std::string encode_count(int tokens) {
  std::string out = "{\"input_tokens\":";
  append_int(out, tokens);
  out += '}';
  return out;
}

std::string encode_model(const chat::ModelInfo& model) {
  std::string out;
  ObjectWriter object(out);
  object.text("type", "model");
  object.text("id", model.id);
  object.text("display_name", model.id);
  object.text("created_at", rfc3339(model.created));
  if (model.context > 0) object.number("max_input_tokens", model.context);
  object.close();
  return out;
}

Result<std::string> encode_models(const std::vector<chat::ModelInfo>& models, std::string_view query) {
  constexpr std::size_t most = 1000;
  std::size_t limit = most, from = 0, to = models.size();
  bool backwards = false;
  while (!query.empty()) {
    const auto pair = query.substr(0, query.find('&'));
    query.remove_prefix(std::min(query.size(), pair.size() + 1));
    const auto key = pair.substr(0, pair.find('='));
    const std::string value = percent_decoded(pair.substr(std::min(pair.size(), key.size() + 1)));
    if (key == "limit") {
      const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), limit);
      if (error != std::errc() || end != value.data() + value.size() || limit < 1 || limit > most)
        return invalid("limit must be an integer from 1 to 1000, not " + quoted(value), "limit");
    } else if ((key == "after_id" || key == "before_id") && !value.empty()) {
      const auto found = std::find_if(models.begin(), models.end(), [&](const auto& model) { return model.id == value; });
      if (found == models.end())
        return invalid(std::string(key) + " is " + quoted(value) + ", but there is no such model", std::string(key));
      const auto place = static_cast<std::size_t>(found - models.begin());
      backwards = key == "before_id";
      if (backwards) to = place;
      else from = place + 1;
    }
  }
  from = std::min(from, to);
  const bool more = to - from > limit;
  if (more && backwards) from = to - limit;
  else if (more) to = from + limit;
  std::string out = "{\"data\":[";
  for (std::size_t i = from; i < to; ++i) {
    if (i > from) out += ',';
    out += encode_model(models[i]);
  }
  out += more ? "],\"has_more\":true" : "],\"has_more\":false";
  const auto id = [&](const char* key, std::size_t at) {
    out += key;
    if (from == to) out += "null";
    else append_json_string(out, models[at].id);
  };
  id(",\"first_id\":", from);
  id(",\"last_id\":", to - 1);
  out += '}';
  return out;
}

std::string encode_error(const Error& error, std::string_view request_id) {
  std::string out = R"({"type":"error","error":{)";
  append_field(out, "type", error_type(error.code));
  out += ',';
  append_field(out, "message", error.code == ErrorCode::context_length_exceeded ? context_message(error) : error.message);
  // The SDK's tool runner sends only what is new, under a thread, and sends everything from then on when it is told so.
  if (error.code == ErrorCode::unsupported && error.param == "thread") out += R"(,"details":{"error_code":"thread_unsupported_request"})";
  out += "},\"request_id\":";
  if (request_id.empty()) out += "null";
  else append_json_string(out, request_id);
  out += '}';
  return out;
}

}  // namespace hearth::wire::anthropic
