// Answers of the Ollama API: chat events → lines of JSON, or one document.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <ctime>

#include "base/json.h"
#include "wire/json_writer.h"
#include "wire/ollama.h"

namespace hearth::wire::ollama {
namespace {

// The version of Ollama whose API this is: clients refuse servers that are too old for them.
constexpr std::string_view api_version = "0.12.11";

// Ollama's own word for "stays": clients read a date, and this one is in every calendar.
constexpr std::string_view never = "9999-01-01T00:00:00Z";

std::string utc(std::int64_t seconds, int microseconds = -1) {
  const auto time = static_cast<std::time_t>(seconds);
  std::tm parts{};
  gmtime_r(&time, &parts);
  char text[48];
  std::size_t length = std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &parts);
  if (microseconds >= 0) length += static_cast<std::size_t>(std::snprintf(text + length, sizeof text - length, ".%06d", microseconds));
  return std::string(text, length) + "Z";
}

std::string now_utc() {
  const auto now = std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::system_clock::now().time_since_epoch()).count();
  return utc(now / 1'000'000, static_cast<int>(now % 1'000'000));
}

std::int64_t nanoseconds(Duration duration) {
  return std::max<std::int64_t>(0, std::chrono::duration_cast<std::chrono::nanoseconds>(duration).count());
}

// The arguments as an object in one line; empty when they are none.
std::string arguments_object(std::string_view arguments) {
  if (arguments.find_first_not_of(" \t\r\n") == std::string_view::npos) return "{}";
  const auto parsed = parse_json(arguments);
  if (!parsed) return {};
  if (parsed->is_null()) return "{}";
  if (!parsed->is_object()) return {};
  std::string out;
  append_json(out, *parsed);
  return out;
}

// A call that cannot be made, as the model might have written it.
std::string as_text(const chat::ToolCall& call) {
  std::string out = "{\"name\": ";
  append_json_string(out, call.name);
  return out + ", \"arguments\": " + call.arguments + "}";
}

std::string_view text_of(chat::FinishReason reason) {
  switch (reason) {
    case chat::FinishReason::length: return "length";
    case chat::FinishReason::content_filter: return "content_filter";
    case chat::FinishReason::stop:
    case chat::FinishReason::tool_calls: break;
  }
  return "stop";
}

}  // namespace

// ---- Codec ------------------------------------------------------------------------------------------------------------------------

void Codec::served_by(const std::string& model) {
  model_ = model;
  opened_ = clock_.now();
}

void Codec::begin(std::string& out) const {
  out += '{';
  append_field(out, "model", model_);
  out += ',';
  append_field(out, "created_at", now_utc());
}

void Codec::append_said(std::string& out, std::string_view text, std::string_view thinking,
                        const std::vector<chat::ToolCall>& calls) const {
  out += form_ == Form::chat ? R"(,"message":{"role":"assistant",)" : ",";
  append_field(out, form_ == Form::chat ? "content" : "response", text);
  if (!thinking.empty()) {
    out += ',';
    append_field(out, "thinking", thinking);
  }
  if (!calls.empty()) {
    out += ",\"tool_calls\":";
    append_list(out, calls, [&](const chat::ToolCall& call) {
      out += '{';
      append_field(out, "id", call.id);
      out += ",\"function\":{";
      append_field(out, "name", call.name);
      out += ",\"arguments\":" + call.arguments + "}}";
    });
  }
  if (form_ == Form::chat) out += '}';
}

void Codec::append_end(std::string& out, chat::FinishReason reason, const chat::Usage& usage, TimePoint first) const {
  const TimePoint now = clock_.now();
  out += ",\"done\":true,";
  append_field(out, "done_reason", text_of(reason));
  const auto number = [&](std::string_view key, std::int64_t value) {
    out += ",\"";
    out += key;
    out += "\":";
    append_int(out, value);
  };
  number("total_duration", nanoseconds(now - asked_));
  const TimePoint loaded = ready_ ? asked_ : opened_;
  number("load_duration", nanoseconds(loaded - asked_));
  number("prompt_eval_count", usage.prompt_tokens);
  number("prompt_eval_duration", nanoseconds(first - loaded));
  number("eval_count", usage.completion_tokens);
  number("eval_duration", nanoseconds(now - first));
  out += '}';
}

void Codec::line(std::string& out, std::string_view text, std::string_view thinking, const std::vector<chat::ToolCall>& calls) const {
  begin(out);
  append_said(out, text, thinking, calls);
  out += ",\"done\":false}\n";
}

void Codec::finish_call(std::size_t position, std::string& out) {
  chat::ToolCall call = std::move(calls_[position].call);
  calls_.erase(calls_.begin() + static_cast<std::ptrdiff_t>(position));
  if (std::string arguments = arguments_object(call.arguments); !arguments.empty()) {
    call.arguments = std::move(arguments);
    line(out, {}, {}, {call});
  } else {
    line(out, as_text(call), {}, {});
  }
}

void Codec::encode(const chat::Event& event, std::string& out) {
  struct Visitor {
    Codec& self;
    std::string& out;
    std::size_t find(int index) const {
      return static_cast<std::size_t>(
          std::find_if(self.calls_.begin(), self.calls_.end(), [&](const Call& call) { return call.index == index; }) -
          self.calls_.begin());
    }
    void operator()(const chat::Started&) {}
    void operator()(const chat::TextDelta& delta) {
      if (delta.choice == 0 && !delta.text.empty()) self.line(out, delta.text, {}, {});
    }
    void operator()(const chat::ReasoningDelta& delta) {
      if (delta.choice == 0 && !delta.text.empty()) self.line(out, {}, delta.text, {});
    }
    void operator()(const chat::ReasoningSignature&) {}  // the format has no place for it
    void operator()(const chat::ToolCallBegin& call) {
      if (call.choice == 0) self.calls_.push_back({call.index, {call.id, call.name, {}}});
    }
    void operator()(const chat::ToolCallDelta& call) {
      const std::size_t position = find(call.index);
      if (call.choice == 0 && position < self.calls_.size()) self.calls_[position].call.arguments += call.arguments;
    }
    void operator()(const chat::ToolCallEnd& call) {
      const std::size_t position = find(call.index);
      if (call.choice == 0 && position < self.calls_.size()) self.finish_call(position, out);
    }
    void operator()(const chat::TokenInfo&) {}
    void operator()(const chat::Finished& finished) {
      if (finished.choice != 0) return;
      while (!self.calls_.empty()) self.finish_call(0, out);
      self.reason_ = finished.reason;
    }
    void operator()(const chat::Usage& usage) { self.usage_ = usage; }
    void operator()(const chat::Failed& failed) {
      self.failed_ = true;
      out += encode_error(failed.error) + "\n";
    }
  };
  if (failed_) return;
  if (!first_) first_ = clock_.now();
  // Nothing may follow the end of the answer but what it cost, or why it failed after all.
  if (reason_ && !std::holds_alternative<chat::Usage>(event) && !std::holds_alternative<chat::Failed>(event)) return;
  std::visit(Visitor{*this, out}, event);
}

void Codec::end(std::string& out) {
  if (!failed_ && !reason_) encode(chat::Failed{unfinished_answer()}, out);
  if (failed_) return;
  begin(out);
  append_said(out, {}, {}, {});
  append_end(out, *reason_, usage_, first_.value_or(opened_));
  out += '\n';
}

std::string Codec::whole(const Answer& answer) {
  const auto& choice = answer.choices.at(0);
  std::string text = choice.text();
  std::vector<chat::ToolCall> calls;
  for (auto& call : choice.calls()) {
    if (std::string arguments = arguments_object(call.arguments); !arguments.empty()) {
      calls.push_back({call.id, call.name, std::move(arguments)});
    } else {
      text += as_text(call);
    }
  }
  std::string out;
  begin(out);
  append_said(out, text, choice.reasoning(), calls);
  append_end(out, choice.reason.value_or(chat::FinishReason::stop), answer.usage, answer.first_event.value_or(opened_));
  return out;
}

// ---- whole documents --------------------------------------------------------------------------------------------------------------

std::string encode_loaded(Form form, const std::string& model, bool unloaded) {
  std::string out;
  ObjectWriter object(out);
  object.text("model", model);
  object.text("created_at", now_utc());
  if (form == Form::chat) object.json("message", R"({"role":"assistant","content":""})");
  else object.text("response", "");
  object.json("done", "true");
  object.text("done_reason", unloaded ? "unload" : "load");
  object.close();
  return out;
}

namespace {

void append_vector(std::string& out, const std::vector<float>& vector) {
  append_list(out, vector, [&](float number) { append_float(out, number); });
}

}  // namespace

std::string encode_embed(const chat::Embeddings& result, const std::string& model, Duration total) {
  std::string out;
  ObjectWriter object(out);
  object.text("model", model);
  append_list(object.key("embeddings"), result.vectors, [&](const auto& vector) { append_vector(out, vector); });
  object.number("total_duration", nanoseconds(total));
  object.number("load_duration", 0);  // not told apart
  object.number("prompt_eval_count", result.prompt_tokens);
  object.close();
  return out;
}

std::string encode_embeddings(const chat::Embeddings& result) {
  std::string out = "{\"embedding\":";
  append_vector(out, result.vectors.empty() ? std::vector<float>() : result.vectors.front());
  return out + "}";
}

namespace {

// A file's hash is what Ollama has here, and it is not known for files that nobody read as a whole. What a client may do with a digest – see whether two are
// the same model, and whether one has changed – works with a hash of what is known; its prefix says that it is no hash of content.
std::string digest(const chat::ModelInfo& model) {
  std::uint64_t hash = 0xcbf29ce484222325;  // FNV-1a
  const auto mix = [&](std::string_view bytes) {
    for (const char c : bytes) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  };
  mix(model.id);
  mix(" " + std::to_string(model.bytes) + " " + std::to_string(model.created));
  char text[32];
  std::snprintf(text, sizeof text, "info:%016llx", static_cast<unsigned long long>(hash));
  return text;
}

std::string parameter_size(std::int64_t parameters) {
  if (parameters <= 0) return {};
  char text[32];
  if (parameters >= 1'000'000'000) std::snprintf(text, sizeof text, "%.1fB", static_cast<double>(parameters) / 1e9);
  else std::snprintf(text, sizeof text, "%.1fM", static_cast<double>(parameters) / 1e6);
  return text;
}

void append_details(std::string& out, const chat::ModelInfo& model) {
  ObjectWriter object(out);
  object.text("parent_model", "");
  object.text("format", "gguf");
  object.text("family", model.architecture);
  std::vector<std::string> families;
  if (!model.architecture.empty()) families.push_back(model.architecture);
  append_list(object.key("families"), families, [&](const std::string& family) { append_json_string(out, family); });
  object.text("parameter_size", parameter_size(model.parameters));
  object.text("quantization_level", model.quantisation);
  object.close();
}

}  // namespace

std::string encode_tags(const std::vector<chat::ModelInfo>& models) {
  std::string out = "{\"models\":";
  append_list(out, models, [&](const chat::ModelInfo& model) {
    ObjectWriter object(out);
    object.text("name", model.id);
    object.text("model", model.id);
    object.text("modified_at", utc(model.created));
    object.number("size", model.bytes);
    object.text("digest", digest(model));
    append_details(object.key("details"), model);
    object.close();
  });
  return out + "}";
}

std::string encode_ps(const std::vector<chat::ModelInfo>& models) {
  std::vector<chat::ModelInfo> loaded;
  for (const auto& model : models) {
    const bool here = model.upstream != "openai" && model.upstream != "anthropic";
    if (here && (model.state == chat::ModelState::ready || model.state == chat::ModelState::draining)) loaded.push_back(model);
  }
  std::string out = "{\"models\":";
  append_list(out, loaded, [&](const chat::ModelInfo& model) {
    const std::int64_t memory = model.memory_bytes + model.gpu_bytes;
    ObjectWriter object(out);
    object.text("name", model.id);
    object.text("model", model.id);
    object.number("size", memory > 0 ? memory : model.bytes);
    object.text("digest", digest(model));
    append_details(object.key("details"), model);
    object.text("expires_at", model.unloads_at > 0 ? utc(model.unloads_at) : std::string(never));
    object.number("size_vram", model.gpu_bytes);
    object.number("context_length", model.context);
    object.close();
  });
  return out + "}";
}

std::string encode_show(const chat::ModelInfo& model) {
  std::string out;
  ObjectWriter object(out);
  object.text("license", "");
  object.text("modelfile", "");
  object.text("parameters", model.context > 0 ? "num_ctx " + std::to_string(model.context) : std::string());
  object.text("template", "");
  append_details(object.key("details"), model);
  ObjectWriter info(object.key("model_info"));
  info.text("general.architecture", model.architecture);
  info.text("general.basename", model.id);
  info.number("general.parameter_count", model.parameters);
  if (!model.architecture.empty() && model.context > 0) {
    append_json_string(out += ',', model.architecture + ".context_length");
    out += ':';
    append_int(out, model.context);
  }
  info.close();
  std::vector<std::string_view> capabilities;
  if (model.chat) capabilities.emplace_back("completion");
  if (model.tools) capabilities.emplace_back("tools");
  if (model.vision) capabilities.emplace_back("vision");
  if (model.embeddings) capabilities.emplace_back("embedding");
  append_list(object.key("capabilities"), capabilities, [&](std::string_view what) { append_json_string(out, what); });
  object.text("modified_at", utc(model.created));
  object.close();
  return out;
}

std::string encode_version() { return "{\"version\":\"" + std::string(api_version) + "\"}"; }

std::string encode_error(const Error& error) {
  std::string out = "{";
  append_field(out, "error", error.message);
  return out + "}";
}

}  // namespace hearth::wire::ollama
