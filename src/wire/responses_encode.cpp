// Answers of the Responses API: chat events → SSE events or one document.
#include "base/id.h"
#include "base/json.h"
#include "net/sse.h"
#include "wire/json_writer.h"
#include "wire/openai.h"
#include "wire/responses.h"

namespace hearth::wire::responses {
namespace {

using Kind = Item::Kind;
using Status = Item::Status;

std::string_view text_of(Status status) {
  switch (status) {
    case Status::in_progress: return "in_progress";
    case Status::completed: return "completed";
    case Status::incomplete: break;
  }
  return "incomplete";
}

Item new_item(Kind kind) {
  static constexpr const char* prefixes[] = {"msg_", "rs_", "fc_"};
  return {.kind = kind, .id = random_id(prefixes[static_cast<std::size_t>(kind)])};
}

Status status_at_end(chat::FinishReason reason) {
  return reason == chat::FinishReason::length || reason == chat::FinishReason::content_filter ? Status::incomplete : Status::completed;
}

// A part of a message or of reasoning.
void append_part(std::string& out, const Item& item, bool summary, std::string_view text) {
  out += item.kind == Kind::message ? R"({"type":"output_text","annotations":[],"logprobs":[],)"
         : summary                  ? R"({"type":"summary_text",)"
                                    : R"({"type":"reasoning_text",)";
  append_field(out, "text", text);
  out += '}';
}

void append_item(std::string& out, const Item& item, bool summary) {
  out += '{';
  append_field(out, "id", item.id);
  const auto parts = [&](std::string_view key, bool some) {
    out += ",\"";
    out += key;
    out += "\":[";
    if (some && !item.text.empty()) append_part(out, item, summary, item.text);
    out += ']';
  };
  switch (item.kind) {
    case Kind::message:
      out += R"(,"type":"message","role":"assistant")";
      parts("content", true);
      break;
    case Kind::reasoning:
      out += R"(,"type":"reasoning")";
      parts("summary", summary);
      if (!summary) parts("content", true);
      if (!item.signature.empty()) {
        out += ',';
        append_field(out, "encrypted_content", item.signature);
      }
      break;
    case Kind::call:
      out += R"(,"type":"function_call",)";
      append_field(out, "call_id", item.call_id);
      out += ',';
      append_field(out, "name", item.name);
      out += ',';
      append_field(out, "arguments", item.text);
      break;
  }
  out += ",\"status\":\"";
  out += text_of(item.status);
  out += "\"}";
}

void append_usage(std::string& out, const chat::Usage& usage) {
  ObjectWriter object(out);
  object.number("input_tokens", usage.prompt_tokens);
  ObjectWriter input(object.key("input_tokens_details"));
  input.number("cached_tokens", usage.cached_tokens);
  input.close();
  object.number("output_tokens", usage.completion_tokens);
  ObjectWriter output(object.key("output_tokens_details"));
  output.number("reasoning_tokens", usage.reasoning_tokens);
  output.close();
  object.number("total_tokens", static_cast<std::int64_t>(usage.prompt_tokens) + usage.completion_tokens);
  object.close();
}

// The codes that clients of this API act on.
std::string_view failure_code(ErrorCode code) {
  if (code == ErrorCode::overloaded) return "rate_limit_exceeded";
  if (code == ErrorCode::context_length_exceeded) return "context_length_exceeded";
  return http_status(code) < 500 ? "invalid_prompt" : "server_error";
}

struct Ending {
  std::string_view status;
  std::optional<chat::FinishReason> reason;
  const chat::Usage* usage = nullptr;
  const Error* error = nullptr;
};

void append_response(std::string& out, const AnswerHead& head, const std::vector<Item>& items, const Ending& ending) {
  out += '{';
  append_field(out, "id", head.id);
  out += R"(,"object":"response","created_at":)";
  append_int(out, head.created);
  out += ',';
  append_field(out, "status", ending.status);
  out += ",\"error\":";
  if (ending.error == nullptr) {
    out += "null";
  } else {
    out += '{';
    append_field(out, "code", failure_code(ending.error->code));
    out += ',';
    append_field(out, "message", ending.error->message);
    out += '}';
  }
  out += ",\"incomplete_details\":";
  if (ending.reason == chat::FinishReason::length) out += R"({"reason":"max_output_tokens"})";
  else if (ending.reason == chat::FinishReason::content_filter) out += R"({"reason":"content_filter"})";
  else out += "null";
  out += ',';
  append_field(out, "model", head.model);
  out += ",\"output\":";
  append_list(out, items, [&](const Item& item) { append_item(out, item, head.summary); });
  out += ",\"usage\":";
  if (ending.usage == nullptr) out += "null";
  else append_usage(out, *ending.usage);
  out += head.echo;
  out += '}';
}

}  // namespace

// ---- StreamEncoder ----------------------------------------------------------------------------------------------------------------

void StreamEncoder::begin(std::string& out, std::string_view type) {
  out += "event: ";
  out += type;
  out += "\ndata: {";
  append_field(out, "type", type);
  out += ",\"sequence_number\":";
  append_int(out, sequence_++);
}

// An event about a part of an item.
void StreamEncoder::begin_in(std::string& out, std::string_view type, std::size_t index) {
  const Item& item = items_[index];
  begin(out, type);
  out += ',';
  append_field(out, "item_id", item.id);
  out += ",\"output_index\":";
  append_int(out, index);
  if (item.kind == Kind::call) return;
  out += item.kind == Kind::reasoning && head_.summary ? ",\"summary_index\":0" : ",\"content_index\":0";
}

void StreamEncoder::lifecycle(std::string& out, std::string_view type, std::string_view status, const Error* error) {
  begin(out, type);
  out += ",\"response\":";
  append_response(out, head_, items_, {status, reason_, reason_ ? &usage_ : nullptr, error});
  out += "}\n\n";
}

void StreamEncoder::open(std::string& out) {
  if (sequence_ > 0) return;
  lifecycle(out, "response.created", "in_progress");
  lifecycle(out, "response.in_progress", "in_progress");
}

std::size_t StreamEncoder::add(Item item, std::string& out) {
  const std::size_t index = items_.size();
  begin(out, "response.output_item.added");
  out += ",\"output_index\":";
  append_int(out, index);
  out += ",\"item\":";
  append_item(out, item, head_.summary);
  out += "}\n\n";
  items_.push_back(std::move(item));
  return index;
}

namespace {

// The names of a part's events: what it is called in a message, in reasoning, and in reasoning that goes out as a summary.
struct PartEvents {
  std::string_view added, delta, text_done, done;
};

const PartEvents& part_events(Kind kind, bool summary) {
  static constexpr PartEvents message{"response.content_part.added", "response.output_text.delta", "response.output_text.done",
                                      "response.content_part.done"};
  static constexpr PartEvents reasoning{"response.content_part.added", "response.reasoning_text.delta", "response.reasoning_text.done",
                                        "response.content_part.done"};
  static constexpr PartEvents summarised{"response.reasoning_summary_part.added", "response.reasoning_summary_text.delta",
                                         "response.reasoning_summary_text.done", "response.reasoning_summary_part.done"};
  if (kind == Kind::message) return message;
  return summary ? summarised : reasoning;
}

}  // namespace

void StreamEncoder::say(Kind kind, std::string_view text, std::string& out) {
  if (text.empty()) return;
  // A signature closes its reasoning: what comes after belongs to another item.
  if (speech_ && (items_[*speech_].kind != kind || !items_[*speech_].signature.empty())) close_speech(out);
  if (!speech_) speech_ = add(new_item(kind), out);
  Item& item = items_[*speech_];
  const PartEvents& names = part_events(kind, head_.summary);
  if (item.text.empty()) {
    begin_in(out, names.added, *speech_);
    out += ",\"part\":";
    append_part(out, item, head_.summary, {});
    out += "}\n\n";
  }
  item.text += text;
  begin_in(out, names.delta, *speech_);
  out += ',';
  append_field(out, "delta", text);
  out += kind == Kind::message ? ",\"logprobs\":[]}\n\n" : "}\n\n";
}

void StreamEncoder::close(std::size_t index, Status status, std::string& out) {
  Item& item = items_[index];
  item.status = status;
  if (item.kind == Kind::call) {
    begin_in(out, "response.function_call_arguments.done", index);
    out += ',';
    append_field(out, "name", item.name);
    out += ',';
    append_field(out, "arguments", item.text);
    out += "}\n\n";
  } else if (!item.text.empty()) {
    const PartEvents& names = part_events(item.kind, head_.summary);
    begin_in(out, names.text_done, index);
    out += ',';
    append_field(out, "text", item.text);
    out += item.kind == Kind::message ? ",\"logprobs\":[]}\n\n" : "}\n\n";
    begin_in(out, names.done, index);
    out += ",\"part\":";
    append_part(out, item, head_.summary, item.text);
    out += "}\n\n";
  }
  begin(out, "response.output_item.done");
  out += ",\"output_index\":";
  append_int(out, index);
  out += ",\"item\":";
  append_item(out, item, head_.summary);
  out += "}\n\n";
}

void StreamEncoder::close_speech(std::string& out) {
  if (speech_) close(*speech_, Status::completed, out);
  speech_.reset();
}

// Fragments of several calls may come mixed.
std::optional<std::size_t> StreamEncoder::open_call(int index) const {
  for (std::size_t i = items_.size(); i-- > 0;) {
    const Item& item = items_[i];
    if (item.kind == Kind::call && item.call_index == index && item.status == Status::in_progress) return i;
  }
  return {};
}

void StreamEncoder::fail(const Error& error, std::string& out) {
  failed_ = true;
  for (auto& item : items_) {
    if (item.status == Status::in_progress) item.status = Status::incomplete;
  }
  reason_.reset();  // whatever was finished, the answer as a whole was not
  lifecycle(out, "response.failed", "failed", &error);
  begin(out, "error");
  out += ',';
  append_field(out, "code", name(error.code));
  out += ',';
  append_field(out, "message", error.message);
  out += ",\"param\":";
  if (error.param.empty()) out += "null";
  else append_json_string(out, error.param);
  // SDKs look for the error under its own name, as in a document.
  out += ',';
  out += std::string_view(openai::encode_error(error)).substr(1);
  out += "\n\n";
}

void StreamEncoder::encode(const chat::Event& event, std::string& out) {
  struct Visitor {
    StreamEncoder& self;
    std::string& out;
    void operator()(const chat::Started&) {}
    void operator()(const chat::TextDelta& delta) {
      if (delta.choice == 0) self.say(Kind::message, delta.text, out);
    }
    void operator()(const chat::ReasoningDelta& delta) {
      if (delta.choice == 0) self.say(Kind::reasoning, delta.text, out);
    }
    void operator()(const chat::ReasoningSignature& signature) {
      if (signature.choice != 0 || signature.signature.empty()) return;
      if (self.speech_ && (self.items_[*self.speech_].kind != Kind::reasoning || !self.items_[*self.speech_].signature.empty())) {
        self.close_speech(out);
      }
      if (!self.speech_) self.speech_ = self.add(new_item(Kind::reasoning), out);
      self.items_[*self.speech_].signature = signature.signature;
    }
    void operator()(const chat::ToolCallBegin& call) {
      if (call.choice != 0) return;
      self.close_speech(out);
      Item item = new_item(Kind::call);
      item.call_id = call.id;
      item.name = call.name;
      item.call_index = call.index;
      self.add(std::move(item), out);
    }
    void operator()(const chat::ToolCallDelta& call) {
      const auto index = self.open_call(call.index);
      if (call.choice != 0 || !index || call.arguments.empty()) return;
      self.items_[*index].text += call.arguments;
      self.begin_in(out, "response.function_call_arguments.delta", *index);
      out += ',';
      append_field(out, "delta", call.arguments);
      out += "}\n\n";
    }
    void operator()(const chat::ToolCallEnd& call) {
      const auto index = self.open_call(call.index);
      if (call.choice == 0 && index) self.close(*index, Status::completed, out);
    }
    void operator()(const chat::TokenInfo&) {}
    void operator()(const chat::Finished& finished) {
      if (finished.choice != 0) return;
      const Status status = status_at_end(finished.reason);
      for (std::size_t i = 0; i < self.items_.size(); ++i) {
        if (self.items_[i].status == Status::in_progress) self.close(i, status, out);
      }
      self.speech_.reset();
      self.reason_ = finished.reason;
    }
    void operator()(const chat::Usage& usage) { self.usage_ = usage; }
    void operator()(const chat::Failed& failed) { self.fail(failed.error, out); }
  };
  if (failed_) return;
  open(out);
  // Nothing may follow the end of the answer but what it cost, or why it failed after all.
  if (reason_ && !std::holds_alternative<chat::Usage>(event) && !std::holds_alternative<chat::Failed>(event)) return;
  std::visit(Visitor{*this, out}, event);
}

void StreamEncoder::keep_alive(std::string& out) {
  open(out);
  net::append_sse_comment(out);
}

void StreamEncoder::end(std::string& out) {
  if (!failed_ && !reason_) encode(chat::Failed{unfinished_answer()}, out);
  if (failed_) return;
  const bool whole = status_at_end(*reason_) == Status::completed;
  lifecycle(out, whole ? "response.completed" : "response.incomplete", whole ? "completed" : "incomplete");
}

// ---- the whole document -----------------------------------------------------------------------------------------------------------

std::string encode_answer(const AnswerHead& head, const Answer& answer) {
  std::vector<Item> items;
  const auto& choice = answer.choices.at(0);
  const auto reason = choice.reason.value_or(chat::FinishReason::stop);
  for (const auto& block : choice.blocks) {
    using Block = Answer::Block::Kind;
    Item item = new_item(block.kind == Block::text ? Kind::message : block.kind == Block::reasoning ? Kind::reasoning : Kind::call);
    item.status = Status::completed;
    item.text = block.kind == Block::call ? block.call.arguments : block.text;
    item.signature = block.signature;
    item.call_id = block.call.id;
    item.name = block.call.name;
    items.push_back(std::move(item));
  }
  // What was cut off is the last thing said.
  if (!items.empty()) items.back().status = status_at_end(reason);
  std::string out;
  append_response(out, head, items, {text_of(status_at_end(reason)), reason, &answer.usage});
  return out;
}

}  // namespace hearth::wire::responses
