// The client side of the Messages API: chat requests → bodies, an upstream's stream and documents → chat vocabulary. Many services speak this API: what
// they leave out is filled in, what makes no sense is upstream_failed and never a crash.
#include <algorithm>
#include <boost/json.hpp>
#include <ctime>
#include <limits>
#include <utility>

#include "base/id.h"
#include "base/json.h"
#include "wire/anthropic.h"
#include "wire/json_find.h"
#include "wire/json_writer.h"

namespace hearth::wire::anthropic {
namespace {

constexpr int usual_max_tokens = 8192;    // what every model since 3.5 can say
constexpr int least_thinking = 1024;      // budgets below are refused
constexpr std::string_view filler = ".";  // where the API wants a user's word and there is none
constexpr std::string_view spaces = " \t\r\n";

Error cannot(std::string what, std::string param) {
  return {ErrorCode::unsupported, "a model behind the Anthropic API " + std::move(what), std::move(param), {}};
}

// ---- bodies -----------------------------------------------------------------------------------------------------------------------

std::string_view without_trailing_space(std::string_view text) {
  const std::size_t last = text.find_last_not_of(spaces);
  return last == std::string_view::npos ? std::string_view() : text.substr(0, last + 1);
}

// Ids of other engines may hold what this API refuses.
std::string plain_id(std::string_view id) {
  std::string out(id);
  for (char& c : out) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
    if (!plain) c = '_';
  }
  return out;
}

// Texts of nothing but spaces are refused.
bool says_something(const chat::ContentPart& part) {
  return part.kind != chat::ContentPart::Kind::text || part.text.find_first_not_of(spaces) != std::string::npos;
}

void append_text_block(std::string& out, std::string_view text) {
  ObjectWriter block(out);
  block.text("type", "text");
  block.text("text", text);
  block.close();
}

void append_part(std::string& out, const chat::ContentPart& part) {
  if (part.kind == chat::ContentPart::Kind::text) {
    append_text_block(out, part.text);
    return;
  }
  ObjectWriter block(out);
  block.text("type", "image");
  ObjectWriter source(block.key("source"));
  if (part.url.empty()) {
    source.text("type", "base64");
    source.text("media_type", part.media_type);
    source.text("data", part.data);
  } else {
    source.text("type", "url");
    source.text("url", part.url);
  }
  source.close();
  block.close();
}

std::vector<chat::ContentPart> parts_of(const chat::Message& message) {
  std::vector<chat::ContentPart> out;
  std::copy_if(message.content.begin(), message.content.end(), std::back_inserter(out), says_something);
  return out;
}

void append_parts(std::string& out, const std::vector<chat::ContentPart>& parts) {
  append_list(out, parts, [&](const chat::ContentPart& part) { append_part(out, part); });
}

void append_tool_result(std::string& out, const chat::Message& message) {
  ObjectWriter block(out);
  block.text("type", "tool_result");
  block.text("tool_use_id", plain_id(message.tool_call_id));
  const auto parts = parts_of(message);
  if (parts.size() == 1 && parts[0].kind == chat::ContentPart::Kind::text) block.text("content", parts[0].text);
  else if (!parts.empty()) append_parts(block.key("content"), parts);
  block.yes("is_error", message.tool_failed);
  block.close();
}

void append_call(std::string& out, const chat::ToolCall& call) {
  ObjectWriter block(out);
  block.text("type", "tool_use");
  block.text("id", plain_id(call.id));
  block.text("name", call.name);
  const auto input = parse_json(call.arguments);
  if (input && input->is_object()) {
    block.json("input", call.arguments);
  } else {
    ObjectWriter object(block.key("input"));
    if (!call.arguments.empty()) object.text("INVALID_JSON", call.arguments);
    object.close();
  }
  block.close();
}

bool proven(const chat::Message& message) { return !message.reasoning_signature.empty() && message.reasoning_signature != unsigned_marker; }

// The conversation as alternating messages of users and assistants, each a list of blocks.
class Turns {
 public:
  void add(const chat::Message& message) {
    switch (message.role) {
      case chat::Role::system: return;
      case chat::Role::tool: append_tool_result(block(false), message); return;
      case chat::Role::user: break;
      case chat::Role::assistant: {
        if (!proven(message)) break;
        ObjectWriter thought(block(true));
        thought.text("type", "thinking");
        thought.text("thinking", message.reasoning);
        thought.text("signature", message.reasoning_signature);
        thought.close();
      }
    }
    const bool assistant = message.role == chat::Role::assistant;
    for (const auto& part : parts_of(message)) append_part(block(assistant), part);
    for (const auto& call : message.tool_calls) append_call(block(true), call);
  }
  // The API wants the first word to be the user's.
  void write(std::string& out) const {
    out += '[';
    if (turns_.empty() || turns_.front().assistant) {
      out += R"({"role":"user","content":)";
      append_json_string(out, filler);
      out += turns_.empty() ? "}" : "},";
    }
    bool first = true;
    for (const auto& turn : turns_) {
      if (!std::exchange(first, false)) out += ',';
      out += turn.assistant ? R"({"role":"assistant","content":[)" : R"({"role":"user","content":[)";
      out += turn.blocks;
      out += "]}";
    }
    out += ']';
  }

 private:
  struct Turn {
    bool assistant;
    std::string blocks;
  };
  // Where the next block is to be written.
  std::string& block(bool assistant) {
    if (turns_.empty() || turns_.back().assistant != assistant) turns_.push_back({assistant, {}});
    std::string& blocks = turns_.back().blocks;
    if (!blocks.empty()) blocks += ',';
    return blocks;
  }
  std::vector<Turn> turns_;
};

// A schema must say that it describes an object.
std::string object_schema(const std::string& schema) {
  auto parsed = parse_json(schema.empty() ? "{}" : schema);
  if (!parsed || !parsed->is_object() || parsed->get_object().contains("type")) return schema;
  const bool empty = parsed->get_object().empty();
  return R"({"type":"object")" + std::string(empty ? "" : ",") + schema.substr(schema.find('{') + 1);
}

void append_tools(ObjectWriter& body, std::string& out, const chat::Request& request) {
  using Mode = chat::ToolChoice::Mode;
  if (request.tools.empty()) return;
  append_list(body.key("tools"), request.tools, [&](const chat::ToolSpec& tool) {
    ObjectWriter entry(out);
    entry.text("name", tool.name);
    if (!tool.description.empty()) entry.text("description", tool.description);
    entry.json("input_schema", tool.parameters.empty() ? R"({"type":"object"})" : object_schema(tool.parameters));
    entry.close();
  });
  const auto mode = request.tool_choice.mode;
  if (mode == Mode::automatic && request.parallel_tool_calls) return;
  static constexpr std::string_view types[] = {"auto", "none", "any", "tool"};
  ObjectWriter choice(body.key("tool_choice"));
  choice.text("type", types[static_cast<std::size_t>(mode)]);
  if (mode == Mode::named) choice.text("name", request.tool_choice.name);
  if (mode != Mode::none) choice.yes("disable_parallel_tool_use", !request.parallel_tool_calls);
  choice.close();
}

// Forced calls go without thinking; so does a turn that goes on after calls whose own thoughts are not at hand.
bool may_think(const chat::Request& request) {
  using Mode = chat::ToolChoice::Mode;
  const Mode mode = request.tool_choice.mode;
  if (!request.tools.empty() && (mode == Mode::required || mode == Mode::named)) return false;
  for (auto message = request.messages.rbegin(); message != request.messages.rend(); ++message) {
    if (message->role == chat::Role::user) return true;
    if (message->role == chat::Role::assistant) return message->tool_calls.empty() || proven(*message);
  }
  return true;
}

void append_system(ObjectWriter& body, std::string& out, const chat::Request& request) {
  std::vector<chat::ContentPart> system;
  for (const auto& message : request.messages) {
    if (message.role != chat::Role::system) continue;
    for (auto& part : parts_of(message)) system.push_back(std::move(part));
  }
  std::erase_if(system, [](const auto& part) { return part.kind != chat::ContentPart::Kind::text; });
  if (request.format.kind == chat::OutputFormat::Kind::json_object)
    system.push_back({.text = "Answer with one JSON object and nothing else: no words around it, no code fence."});
  if (!system.empty()) append_list(body.key("system"), system, [&](const auto& part) { append_text_block(out, part.text); });
}

void append_messages(ObjectWriter& body, const chat::Request& request) {
  Turns turns;
  for (std::size_t i = 0; i < request.messages.size(); ++i) {
    const chat::Message& message = request.messages[i];
    if (i + 1 < request.messages.size() || message.role != chat::Role::assistant || message.content.empty()) {
      turns.add(message);
      continue;
    }
    // An answer that is to be gone on with must not end in spaces.
    chat::Message last = message;
    last.content.back().text = without_trailing_space(last.content.back().text);
    turns.add(last);
  }
  turns.write(body.key("messages"));
}

void append_thinking(ObjectWriter& body, const chat::Request& request, int max_tokens, bool& thinks) {
  const chat::Reasoning& reasoning = request.reasoning;
  thinks = reasoning.enabled.value_or(reasoning.budget.has_value() || !reasoning.effort.empty()) && may_think(request);
  if (reasoning.enabled == false) {
    body.json("thinking", R"({"type":"disabled"})");
  } else if (thinks && reasoning.budget) {
    // The budget is part of max_tokens and must leave room for an answer.
    const int budget = std::min(std::max(*reasoning.budget, least_thinking), max_tokens - 1);
    thinks = budget >= least_thinking;
    if (thinks) body.json("thinking", R"({"type":"enabled","budget_tokens":)" + std::to_string(budget) + "}");
  } else if (thinks) {
    body.json("thinking", R"({"type":"adaptive"})");
  }
}

void append_output(ObjectWriter& body, const chat::Request& request, bool thinks) {
  const bool schema = request.format.kind == chat::OutputFormat::Kind::json_schema;
  const bool effort = thinks && !request.reasoning.budget && !request.reasoning.effort.empty();
  if (!schema && !effort) return;
  ObjectWriter config(body.key("output_config"));
  if (schema) config.json("format", R"({"type":"json_schema","schema":)" + request.format.schema + "}");
  if (effort) config.text("effort", request.reasoning.effort == "minimal" ? "low" : request.reasoning.effort);
  config.close();
}

// What the answer would silently lack.
std::optional<Error> check(const chat::Request& request) {
  if (!request.prompts.empty()) return cannot("takes messages, not a raw prompt", "prompt");
  if (request.choices != 1) return cannot("gives one answer at a time; leave n out", "n");
  if (request.top_logprobs) return cannot("tells no log-probabilities; leave logprobs out", "logprobs");
  if (request.format.kind == chat::OutputFormat::Kind::gbnf) return cannot("takes no grammar", "grammar");
  if (!request.sampling.logit_bias.empty()) return cannot("takes no logit_bias", "logit_bias");
  if (!request.adapter.empty()) return cannot("has no adapters", "adapter");
  if (request.ignore_eos) return cannot("cannot ignore the end of its answer", "ignore_eos");
  if (request.prefill_only) return cannot("cannot compute a prompt ahead", "");
  return {};
}

Result<std::string> encode(const chat::Request& request, bool answer) {
  if (auto problem = check(request)) return std::move(*problem);
  std::string out;
  ObjectWriter body(out);
  body.text("model", request.model);
  int max_tokens = request.max_tokens.value_or(usual_max_tokens);
  if (!request.max_tokens && request.reasoning.budget)
    max_tokens =
        static_cast<int>(std::min<std::int64_t>(std::int64_t{max_tokens} + *request.reasoning.budget, std::numeric_limits<int>::max()));
  if (answer) body.number("max_tokens", max_tokens);
  append_system(body, out, request);
  append_messages(body, request);
  append_tools(body, out, request);
  bool thinks = false;
  append_thinking(body, request, max_tokens, thinks);
  append_output(body, request, thinks);
  if (answer) {
    const chat::Sampling& sampling = request.sampling;
    if (!thinks) {
      // Thinking wants the samplers as they are; a top_p of 1 is none, and newer models refuse two samplers at once.
      if (sampling.temperature) body.number("temperature", std::min(*sampling.temperature, 1.0F));
      if (sampling.top_p.value_or(1) < 1) body.number("top_p", *sampling.top_p);
      if (sampling.top_k.value_or(0) > 0) body.number("top_k", *sampling.top_k);
    }
    if (!sampling.stop.empty())
      append_list(body.key("stop_sequences"), sampling.stop, [&](const std::string& stop) { append_json_string(out, stop); });
    body.json("stream", "true");
  }
  body.close();
  return out;
}

// ---- the client's own body --------------------------------------------------------------------------------------------------------

// A member of a JSON object, and where its value stands.
struct Member {
  std::string_view key;
  std::size_t at = 0, size = 0;
};

std::size_t end_of_string(std::string_view text, std::size_t at) {
  for (++at; at < text.size() && text[at] != '"'; ++at) {
    if (text[at] == '\\') ++at;
  }
  return std::min(at + 1, text.size());
}

std::size_t end_of_value(std::string_view text, std::size_t at) {
  int depth = 0;
  while (at < text.size()) {
    const char c = text[at];
    if (c == '"') {
      at = end_of_string(text, at);
      if (depth == 0) return at;
      continue;
    }
    if (depth == 0 && (c == ',' || c == '}' || spaces.find(c) != std::string_view::npos)) return at;
    if (c == '{' || c == '[') ++depth;
    ++at;
    if ((c == '}' || c == ']') && --depth == 0) return at;
  }
  return at;
}

// The members of a valid JSON object. Empty when a key is written with escapes: nobody does, and reading on could mistake it.
std::vector<Member> members_of(std::string_view object) {
  std::vector<Member> out;
  const auto skip = [&](std::size_t at) { return std::min(object.find_first_not_of(spaces, at), object.size()); };
  std::size_t at = skip(0);
  if (at == object.size() || object[at] != '{') return {};
  at = skip(at + 1);
  while (at < object.size() && object[at] == '"') {
    const std::size_t key_end = end_of_string(object, at);
    const auto key = object.substr(at + 1, key_end - at - 2);
    const std::size_t colon = skip(key_end), value = skip(colon + 1), end = end_of_value(object, value);
    if (colon >= object.size() || object[colon] != ':' || key.find('\\') != std::string_view::npos) return {};
    out.push_back({key, value, end - value});
    at = skip(end);
    if (at < object.size() && object[at] == ',') at = skip(at + 1);
  }
  return out;
}

const Member* find_member(const std::vector<Member>& members, std::string_view key) {
  const auto found = std::find_if(members.begin(), members.end(), [&](const Member& member) { return member.key == key; });
  return found == members.end() ? nullptr : &*found;
}

// ---- errors -----------------------------------------------------------------------------------------------------------------------

ErrorCode code_for_status(int status) {
  switch (status) {
    case 401: return ErrorCode::unauthorized;
    case 402:
    case 403: return ErrorCode::forbidden;
    case 404: return ErrorCode::model_not_found;
    case 408: return ErrorCode::request_timeout;
    case 413: return ErrorCode::payload_too_large;
    case 429: return ErrorCode::overloaded;
    case 503:
    case 529: return ErrorCode::unavailable;
    case 504: return ErrorCode::upstream_timeout;
    default: return status >= 400 && status < 500 ? ErrorCode::invalid_request : ErrorCode::upstream_failed;
  }
}

ErrorCode code_for_type(std::string_view type, int status) {
  if (type == "invalid_request_error") return ErrorCode::invalid_request;
  if (type == "authentication_error") return ErrorCode::unauthorized;
  if (type == "permission_error" || type == "billing_error") return ErrorCode::forbidden;
  if (type == "not_found_error") return ErrorCode::model_not_found;
  if (type == "request_too_large") return ErrorCode::payload_too_large;
  if (type == "rate_limit_error") return ErrorCode::overloaded;
  if (type == "overloaded_error") return ErrorCode::unavailable;
  if (type == "timeout_error") return ErrorCode::upstream_timeout;
  if (type == "api_error") return ErrorCode::upstream_failed;
  return code_for_status(status);
}

Error error_of(const json::value* error, int status) {
  Error out;
  out.code = code_for_status(status);
  if (const auto* text = error == nullptr ? nullptr : error->if_string()) {
    out.message.assign(text->data(), text->size());
  } else if (const auto* object = error == nullptr ? nullptr : error->if_object()) {
    out.message = find_text(*object, "message");
    out.code = code_for_type(find_text(*object, "type"), status);
  }
  if (out.message.starts_with("prompt is too long") || out.message.find("exceed context limit") != std::string::npos)
    out.code = ErrorCode::context_length_exceeded;
  if (out.message.empty()) out.message = "the upstream failed without saying why (status " + std::to_string(status) + ")";
  return out;
}

int to_count(std::int64_t tokens) { return static_cast<int>(std::min<std::int64_t>(tokens, std::numeric_limits<int>::max())); }

std::int64_t unix_seconds(std::string_view rfc3339) {
  std::tm parts{};
  const std::string text(rfc3339);
  return ::strptime(text.c_str(), "%Y-%m-%dT%H:%M:%S", &parts) == nullptr ? 0 : static_cast<std::int64_t>(::timegm(&parts));
}

}  // namespace

Result<std::string> encode_request(const chat::Request& request) { return encode(request, true); }
Result<std::string> encode_count_request(const chat::Request& request) { return encode(request, false); }

std::optional<std::string> body_for(const Origin& origin, std::string_view model, bool streamed) {
  const std::string& body = origin.body;
  if (origin.protocol != Protocol::anthropic || body.find(unsigned_marker) != std::string::npos) return {};
  const auto members = members_of(body);
  if (members.empty()) return {};
  std::string name;
  append_json_string(name, model);
  std::string out, added;
  std::size_t copied = 0;
  // What is there is replaced where it stands, the rest goes in front.
  for (const auto& member : members) {
    std::string_view value = std::string_view(body).substr(member.at, member.size);
    if (member.key == "model" && model_of(origin) != model) value = name;
    if (member.key == "stream" && streamed) value = "true";
    out.append(body, copied, member.at - copied).append(value);
    copied = member.at + member.size;
  }
  out.append(body, copied);
  if (find_member(members, "model") == nullptr) added += "\"model\":" + name + ",";
  if (streamed && find_member(members, "stream") == nullptr) added += "\"stream\":true,";
  return out.insert(out.find('{') + 1, added);
}

std::string model_of(const Origin& origin) {
  const auto members = members_of(origin.body);
  const Member* model = find_member(members, "model");
  if (model == nullptr) return {};
  const auto value = parse_json(std::string_view(origin.body).substr(model->at, model->size));
  const json::string* name = value ? value->if_string() : nullptr;
  return name == nullptr ? std::string() : std::string(name->data(), name->size());
}

// ---- StreamDecoder ----------------------------------------------------------------------------------------------------------------

void StreamDecoder::read_usage(const json::object& usage) {
  // Counts are cumulative; services that do not repeat one leave it out or say 0.
  const auto read = [&](std::string_view key, std::int64_t& into) {
    if (const int count = find_count(usage, key); count > 0) into = count;
  };
  read("input_tokens", input_tokens_);
  read("cache_read_input_tokens", cache_read_);
  read("cache_creation_input_tokens", cache_created_);
  read("output_tokens", output_tokens_);
}

void StreamDecoder::close_block(chat::Events& out) {
  if (open_ == Open::call) {
    if (!input_.empty()) out.emplace_back(chat::ToolCallDelta{0, calls_ - 1, std::move(input_)});
    out.emplace_back(chat::ToolCallEnd{0, calls_ - 1});
  } else if (open_ == Open::thinking && !signature_.empty() && signature_ != unsigned_marker) {
    out.emplace_back(chat::ReasoningSignature{0, std::move(signature_)});
  }
  open_ = Open::none;
  signature_.clear();
  input_.clear();
}

Result<void> StreamDecoder::start(const json::object* message, chat::Events& out) {
  if (std::exchange(started_, true)) return nonsense("a second answer starts within the first");
  const json::object* usage = message == nullptr ? nullptr : find_object(*message, "usage");
  if (usage == nullptr) return {};
  read_usage(*usage);
  const std::int64_t prompt = input_tokens_ + cache_read_ + cache_created_;
  if (prompt > 0) out.emplace_back(chat::Started{to_count(prompt), to_count(cache_read_)});
  return {};
}

Result<void> StreamDecoder::start_block(const json::object* block, chat::Events& out) {
  close_block(out);
  if (block == nullptr) return nonsense("a block starts without saying what it is");
  if (finished_) return nonsense("a block starts after the answer's end");
  const std::string_view type = find_text(*block, "type");
  if (type == "text") {
    open_ = Open::text;
    if (const auto text = find_text(*block, "text"); !text.empty()) out.emplace_back(chat::TextDelta{0, std::string(text)});
  } else if (type == "thinking") {
    open_ = Open::thinking;
    signature_ = find_text(*block, "signature");
    if (const auto text = find_text(*block, "thinking"); !text.empty()) out.emplace_back(chat::ReasoningDelta{0, std::string(text)});
  } else if (type == "tool_use") {
    const auto name = find_text(*block, "name"), id = find_text(*block, "id");
    if (name.empty()) return nonsense("a tool call has no name");
    open_ = Open::call;
    out.emplace_back(chat::ToolCallBegin{0, calls_++, id.empty() ? random_id("toolu_") : std::string(id), std::string(name)});
    // Held back: the fragments that follow, if any, say it again.
    if (const auto* input = find(*block, "input"); input != nullptr && input->is_object() && !input->get_object().empty())
      append_json(input_, *input);
  } else {
    open_ = Open::other;  // redacted thoughts, the service's own tools, and what is yet to come
  }
  return {};
}

Result<void> StreamDecoder::read_delta(const json::object& event, chat::Events& out) {
  const json::object* delta = find_object(event, "delta");
  if (delta == nullptr) return nonsense("a delta is empty");
  if (finished_) return nonsense("a block goes on after the answer's end");
  const std::string_view type = find_text(*delta, "type");
  if (open_ == Open::other) return {};
  if (type == "text_delta" || type == "thinking_delta") {
    const bool text = type == "text_delta";
    // Some services never start a block of text.
    const Open kind = text ? Open::text : Open::thinking;
    if (open_ != kind) close_block(out);
    open_ = kind;
    const std::string_view said = find_text(*delta, text ? "text" : "thinking");
    if (said.empty()) return {};
    if (text) out.emplace_back(chat::TextDelta{0, std::string(said)});
    else out.emplace_back(chat::ReasoningDelta{0, std::string(said)});
  } else if (type == "input_json_delta") {
    if (open_ != Open::call || find_integer(event, "index").value_or(index_) != index_)
      return nonsense("a tool call goes on that is not open");
    const std::string_view fragment = find_text(*delta, "partial_json");
    if (fragment.empty()) return {};
    input_.clear();
    out.emplace_back(chat::ToolCallDelta{0, calls_ - 1, std::string(fragment)});
  } else if (type == "signature_delta" && open_ == Open::thinking) {
    signature_ = find_text(*delta, "signature");
  }
  return {};
}

void StreamDecoder::finish_answer(std::string_view reason, std::string_view stop_sequence, chat::Events& out) {
  using chat::FinishReason;
  if (std::exchange(finished_, true)) return;
  close_block(out);
  chat::Finished finished;
  if (reason == "max_tokens" || reason == "model_context_window_exceeded") finished.reason = FinishReason::length;
  else if (reason == "refusal") finished.reason = FinishReason::content_filter;
  else if (calls_ > 0) finished.reason = FinishReason::tool_calls;
  if (reason == "stop_sequence") finished.stop_sequence = stop_sequence;
  out.emplace_back(std::move(finished));
}

// Before the event is read: whether it is one that reads the same to every client, in the place where it comes. `named`: its event: field.
bool StreamDecoder::understands(std::string_view named, std::string_view type, const json::object& event) const {
  if (!named.empty() && named != type) return false;
  if (type == "ping" || type == "message_delta" || type == "message_stop" || type == "error") return true;
  if (type == "message_start") {
    const auto* message = find_object(event, "message");
    const auto* content = message == nullptr ? nullptr : find_array(*message, "content");
    return content == nullptr || content->empty();
  }
  const auto index = find_integer(event, "index");
  if (type == "content_block_start") {
    const auto* block = find_object(event, "content_block");
    if (block == nullptr || index != index_ + 1 || open_ != Open::none) return false;
    const auto kind = find_text(*block, "type");
    if (kind == "tool_use") {
      const auto* input = find_object(*block, "input");
      return has_only(*block, {"type", "id", "name", "input", "caller"}) && (input == nullptr || input->empty());
    }
    // What the service's own tools did has been done.
    return kind == "text" || kind == "thinking" || kind == "redacted_thinking" || kind == "server_tool_use" ||
           kind.ends_with("_tool_result");
  }
  if (index != index_ || open_ == Open::none) return false;
  if (type == "content_block_stop") return true;
  const auto* delta = find_object(event, "delta");
  if (type != "content_block_delta" || delta == nullptr) return false;
  const auto kind = find_text(*delta, "type");
  switch (open_) {
    case Open::text: return kind == "text_delta" || kind == "citations_delta";
    case Open::thinking: return kind == "thinking_delta" || kind == "signature_delta";
    case Open::call: return kind == "input_json_delta" && has_only(*delta, {"type", "partial_json"});
    case Open::other: return true;
    case Open::none: break;
  }
  return false;
}

Result<void> StreamDecoder::decode(std::string_view type, std::string_view data, chat::Events& out) {
  understood_ = true;
  if (done_) return {};
  // Not parse_json: an event comes for every token, and a foreign service's duplicate key hurts nobody here.
  unsigned char buffer[4096];
  json::monotonic_resource memory(buffer);
  json::error_code ec;
  json::parse_options options;
  options.max_depth = json_max_depth;
  const json::value document = json::parse({data.data(), data.size()}, ec, &memory, options);
  if (ec) return nonsense("an event is not JSON: " + ec.message());
  const json::object* event = document.if_object();
  if (event == nullptr) return nonsense("an event is not an object");
  const std::string_view named = type;
  if (const auto said = find_text(*event, "type"); !said.empty()) type = said;
  understood_ = !names_twice(data, document) && understands(named, type, *event);

  if (const auto* error = find(*event, "error"); error != nullptr || type == "error") {
    done_ = true;
    out.emplace_back(chat::Failed{error_of(error, 502)});
  } else if (type == "message_start") {
    return start(find_object(*event, "message"), out);
  } else if (type == "content_block_start") {
    index_ = find_integer(*event, "index").value_or(index_ + 1);
    return start_block(find_object(*event, "content_block"), out);
  } else if (type == "content_block_delta") {
    return read_delta(*event, out);
  } else if (type == "content_block_stop") {
    close_block(out);
  } else if (type == "message_delta") {
    if (const auto* usage = find_object(*event, "usage")) read_usage(*usage);
    const json::object* delta = find_object(*event, "delta");
    const auto reason = delta == nullptr ? std::string_view() : find_text(*delta, "stop_reason");
    if (!reason.empty()) finish_answer(reason, find_text(*delta, "stop_sequence"), out);
  } else if (type == "message_stop") {
    end(out);
  }
  return {};
}

void StreamDecoder::end(chat::Events& out) {
  finish_answer({}, {}, out);
  done_ = true;
  out.emplace_back(chat::Usage{.prompt_tokens = to_count(input_tokens_ + cache_read_ + cache_created_),
                               .cached_tokens = to_count(cache_read_),
                               .completion_tokens = to_count(output_tokens_)});
}

Result<void> StreamDecoder::decode_document(std::string_view body, chat::Events& out) {
  auto document = parse_answer(body);
  if (!document) return std::move(document).error();
  const json::object& message = document->get_object();
  if (find(message, "error") != nullptr) return decode("error", body, out);
  const json::array* content = find_array(message, "content");
  if (content == nullptr) return nonsense("a message has no content");
  if (auto ok = start(&message, out); !ok) return ok;
  for (const auto& block : *content) {
    if (auto ok = start_block(block.if_object(), out); !ok) return ok;
  }
  finish_answer(find_text(message, "stop_reason"), find_text(message, "stop_sequence"), out);
  end(out);
  return {};
}

Result<void> StreamDecoder::finish() {
  if (done_) return {};
  return Error{ErrorCode::upstream_failed,
               started_ ? "the upstream broke off in the middle of its answer" : "the upstream closed the stream without an answer",
               "",
               {}};
}

// ---- documents --------------------------------------------------------------------------------------------------------------------

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
    model.created = unix_seconds(find_text(*entry, "created_at"));
    model.context = find_count(*entry, "max_input_tokens");
    model.chat = model.vision = model.tools = true;
    out.push_back(std::move(model));
  }
  return out;
}

Result<int> decode_count_answer(std::string_view body) {
  auto document = parse_answer(body);
  if (!document) return std::move(document).error();
  const auto tokens = find_integer(document->get_object(), "input_tokens");
  if (!tokens || *tokens < 0 || *tokens > std::numeric_limits<int>::max()) return nonsense("a count without input_tokens");
  return static_cast<int>(*tokens);
}

Error decode_error(int status, std::string_view body) {
  const auto document = parse_json(body);
  const json::object* object = document ? document->if_object() : nullptr;
  return error_of(object == nullptr ? nullptr : find(*object, "error"), status);
}

}  // namespace hearth::wire::anthropic
