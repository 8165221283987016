// Requests of the Messages API → chat vocabulary. Every field is read through Fields, which checks it and keeps the first error.
#include <algorithm>
#include <boost/json.hpp>
#include <string>
#include <unordered_map>

#include "base/json.h"
#include "wire/anthropic.h"
#include "wire/fields.h"
#include "wire/request_parts.h"

namespace hearth::wire::anthropic {
namespace {

constexpr std::size_t max_stops = 16;
constexpr std::size_t max_tool_name = 256;

// Agents write a system block whose text changes with every request, for their provider's accounting.
constexpr std::string_view billing_prefix = "x-anthropic-billing-header";

std::string_view without_billing(std::string_view text) {
  if (!text.starts_with(billing_prefix)) return text;
  const std::size_t line_end = text.find('\n');
  return line_end == std::string_view::npos ? std::string_view() : text.substr(line_end + 1);
}

void add_text(std::vector<chat::ContentPart>& parts, std::string_view text) {
  if (!text.empty()) parts.push_back({.text = std::string(text)});
}

// Reads a list of objects.
template <class Read>
void each_object(const json::array& list, const std::string& path, Problem& problem, Read read) {
  for (std::size_t i = 0; i < list.size() && !problem; ++i) {
    const std::string at = element(path, i);
    if (const auto* object = list[i].if_object()) read(Fields(*object, at, problem));
    else problem.set(at, "must be an object, not " + describe(list[i]));
  }
}

std::string type_of(const Fields& block) {
  block.need("type", R"(e.g. "text")");
  return block.text("type");
}

std::string text_of(const Fields& block) {
  block.need("text", "give the text as a string");
  return block.text("text");
}

// ---- content ----------------------------------------------------------------------------------------------------------------------

chat::ContentPart image(const Fields& block, Problem& problem) {
  chat::ContentPart out;
  out.kind = chat::ContentPart::Kind::image;
  block.need("source", R"(give {"type": "base64", "media_type": "image/png", "data": ...} or {"type": "url", "url": ...})");
  const json::object* object = block.object("source");
  if (object == nullptr) return out;
  const Fields source(*object, block.path("source"), problem);
  const std::string type = type_of(source);
  if (problem) return out;
  if (type == "base64") {
    source.need("media_type", R"(e.g. "image/png")");
    source.need("data", "give the image in base64");
    out.media_type = source.text("media_type");
    out.data = source.text("data");
    if (!out.media_type.starts_with("image/") || out.media_type.find_first_of(";,\" ") != std::string::npos)
      source.wrong("media_type", "is " + quoted(out.media_type) + R"(; it must be a type of image, e.g. "image/png")");
    if (out.data.empty()) source.wrong("data", "must not be empty");
  } else if (type == "url") {
    source.need("url", "give an http(s) URL");
    out.url = source.text("url");
    if (!out.url.starts_with("https://") && !out.url.starts_with("http://"))
      source.wrong("url", "must start with https:// or http://, not " + quoted(out.url));
  } else {
    source.wrong("type", "is " + quoted(type) + R"(; images are taken as "base64" or "url")", ErrorCode::unsupported);
  }
  return out;
}

std::vector<chat::ContentPart> result_content(const Fields& block, std::string_view key, Problem& problem);

// A document's words, under its title. What is no text cannot be read here.
void document(const Fields& block, std::vector<chat::ContentPart>& out, Problem& problem) {
  block.need("source", R"(give {"type": "text", "media_type": "text/plain", "data": ...})");
  const json::object* object = block.object("source");
  if (object == nullptr) return;
  const Fields source(*object, block.path("source"), problem);
  const std::string type = type_of(source);
  const auto heading = [&] {
    for (const char* key : {"title", "context"}) {
      if (const std::string words = block.text(key); !words.empty()) add_text(out, words + "\n");
    }
  };
  if (type == "text") {
    source.need("data", "give the document's text");
    heading();
    add_text(out, source.text("data"));
  } else if (type == "content") {
    source.need("content", "give a string or a list of blocks");
    heading();
    for (auto& part : result_content(source, "content", problem)) out.push_back(std::move(part));
  } else if (!problem) {
    const std::string media = source.text("media_type");
    source.wrong("type",
                 "is " + quoted(type) + (media.empty() ? "" : " (" + media.substr(0, 64) + ")") +
                     "; documents are taken as text only: send a PDF's text, or its pages as images",
                 ErrorCode::unsupported);
  }
}

// Text, images and documents: what users and tools may say. False for a type it does not know.
bool plain_block(const std::string& type, const Fields& block, std::vector<chat::ContentPart>& out, Problem& problem) {
  if (type == "text") {
    add_text(out, text_of(block));
  } else if (type == "image") {
    out.push_back(image(block, problem));
  } else if (type == "document") {
    document(block, out, problem);
  } else if (type == "search_result") {
    for (const char* key : {"title", "source"}) {
      if (const std::string words = block.text(key); !words.empty()) add_text(out, words + "\n");
    }
    for (auto& part : result_content(block, "content", problem)) out.push_back(std::move(part));
  } else if (type == "tool_reference") {
    add_text(out, block.text("tool_name"));
  } else {
    return false;
  }
  return true;
}

// A string or a list of blocks; absent is empty.
std::vector<chat::ContentPart> result_content(const Fields& block, std::string_view key, Problem& problem) {
  std::vector<chat::ContentPart> out;
  const json::value* content = block.find(key);
  if (content == nullptr) return out;
  if (const auto* text = content->if_string()) {
    add_text(out, {text->data(), text->size()});
  } else if (const auto* list = content->if_array()) {
    each_object(*list, block.path(key), problem, [&](const Fields& inner) {
      const std::string type = type_of(inner);
      if (!problem && !plain_block(type, inner, out, problem))
        inner.wrong("type", "is " + quoted(type) + R"(; here it must be "text", "image" or "document")");
    });
  } else {
    block.wrong(key, "must be a string or a list of blocks, not " + describe(*content));
  }
  return out;
}

// ---- messages ---------------------------------------------------------------------------------------------------------------------

class Conversation {
 public:
  explicit Conversation(Problem& problem) : problem_(problem) {}

  // All of it becomes one message at the start, where templates want it.
  void system(const Fields& holder, std::string_view key) {
    const json::value* content = holder.find(key);
    if (content == nullptr) return;
    if (const auto* text = content->if_string()) {
      add_text(system_.content, without_billing({text->data(), text->size()}));
    } else if (const auto* list = content->if_array()) {
      each_object(*list, holder.path(key), problem_, [&](const Fields& block) {
        const std::string type = type_of(block);
        if (problem_) return;
        if (type == "text") add_text(system_.content, without_billing(text_of(block)));
        else block.wrong("type", "is " + quoted(type) + R"(; a system prompt consists of "text" blocks)");
      });
    } else {
      holder.wrong(key, "must be a string or a list of text blocks, not " + describe(*content));
    }
  }

  void message(const Fields& message) {
    message.need("role", roles);
    const std::string role = message.text("role");
    const json::value* content = message.need("content", "give a string or a list of blocks");
    if (problem_) return;
    if (role == "system") {
      system(message, "content");
      return;
    }
    if (role != "user" && role != "assistant") {
      message.wrong("role", "is " + quoted(role) + "; " + roles);
      return;
    }
    chat::Message said{.role = role == "user" ? chat::Role::user : chat::Role::assistant};
    thoughts_ = 0;
    if (const auto* text = content->if_string()) {
      add_text(said.content, {text->data(), text->size()});
    } else if (const auto* list = content->if_array()) {
      each_object(*list, message.path("content"), problem_, [&](const Fields& block) {
        const std::string type = type_of(block);
        if (problem_) return;
        if (said.role == chat::Role::user) user_block(type, block, said);
        else assistant_block(type, block, said);
      });
    } else {
      message.wrong("content", "must be a string or a list of blocks, not " + describe(*content));
    }
    const bool empty = said.content.empty() && said.tool_calls.empty() && said.reasoning.empty();
    if (!empty) add(std::move(said));
  }

  bool empty() const { return messages_.empty(); }
  std::vector<chat::Message> take() {
    if (!system_.content.empty()) messages_.insert(messages_.begin(), std::move(system_));
    return std::move(messages_);
  }

 private:
  static constexpr const char* roles = R"(it must be "user" or "assistant"; the system prompt goes into "system")";

  void user_block(const std::string& type, const Fields& block, chat::Message& said) {
    if (type == "tool_result") tool_result(block);
    else if (!plain_block(type, block, said.content, problem_))
      block.wrong("type",
                  "is " + quoted(type) + R"(; a user's block must be "text", "image", "document", "search_result" or "tool_result")");
  }

  // Goes ahead of what else its message says: a call is answered before anything new is said.
  void tool_result(const Fields& block) {
    block.need("tool_use_id", "a tool_result names the tool_use that it answers");
    chat::Message result{.role = chat::Role::tool, .tool_call_id = block.text("tool_use_id")};
    result.tool_failed = block.boolean("is_error").value_or(false);
    result.content = result_content(block, "content", problem_);
    if (problem_) return;
    const auto called = called_.find(result.tool_call_id);
    if (called == called_.end()) {
      block.wrong("tool_use_id", "is " + quoted(result.tool_call_id) + ", but no tool_use before it has this id");
      return;
    }
    result.name = called->second;
    const bool behind_words = messages_.back().role == chat::Role::user;
    messages_.insert(messages_.end() - (behind_words ? 1 : 0), std::move(result));
  }

  void assistant_block(const std::string& type, const Fields& block, chat::Message& said) {
    if (type == "text") {
      add_text(said.content, text_of(block));
    } else if (type == "tool_use") {
      block.need("id", "give the id that the answer had");
      block.need("name", "give the tool's name");
      block.need("input", "give the input as an object");
      chat::ToolCall call{block.text("id"), block.text("name"), {}};
      if (block.object("input") != nullptr) append_json(call.arguments, *block.find("input"));
      if (call.id.empty()) block.wrong("id", "must not be empty");
      if (call.name.empty()) block.wrong("name", "must not be empty");
      called_[call.id] = call.name;
      said.tool_calls.push_back(std::move(call));
    } else if (type == "thinking") {
      block.need("thinking", "give the text as a string");
      said.reasoning += block.text("thinking");
      const std::string signature = block.text("signature");
      // One signature proves one block; of several joined ones it would prove nothing.
      said.reasoning_signature = ++thoughts_ == 1 && signature != unsigned_marker ? signature : std::string();
    } else if (type == "compaction") {
      add_text(said.content, block.text("content"));
    } else if (type != "redacted_thinking" && type != "server_tool_use" && type != "mcp_tool_use" && !type.ends_with("_tool_result")) {
      // Those are notes a provider wrote for itself.
      block.wrong("type", "is " + quoted(type) + R"(; an assistant's block must be "text", "thinking", "redacted_thinking" or "tool_use")");
    }
  }

  void add(chat::Message said) {
    if (!messages_.empty() && messages_.back().role == said.role) {
      chat::Message& last = messages_.back();
      std::move(said.content.begin(), said.content.end(), std::back_inserter(last.content));
      std::move(said.tool_calls.begin(), said.tool_calls.end(), std::back_inserter(last.tool_calls));
      if (!said.reasoning.empty()) {
        last.reasoning_signature = last.reasoning.empty() ? said.reasoning_signature : std::string();
        last.reasoning += said.reasoning;
      }
    } else {
      messages_.push_back(std::move(said));
    }
  }

  Problem& problem_;
  chat::Message system_{.role = chat::Role::system};
  std::vector<chat::Message> messages_;
  std::unordered_map<std::string, std::string> called_;  // tool_use id → the tool's name
  int thoughts_ = 0;                                     // thinking blocks of the message being read
};

// ---- the rest ---------------------------------------------------------------------------------------------------------------------

// Gives the names of the tools that only Anthropic's own servers run.
std::vector<std::string> read_tools(const Fields& request, chat::Request& out, Problem& problem) {
  std::vector<std::string> left_out;
  const json::array* tools = request.array("tools");
  if (tools == nullptr) return left_out;
  each_object(*tools, "tools", problem, [&](const Fields& tool) {
    const std::string type = tool.text("type");
    chat::ToolSpec spec{tool.text("name"), {}, "{}"};
    if (!type.empty() && type != "custom") {
      left_out.push_back(spec.name.empty() ? type : spec.name);
      return;
    }
    tool.need("name", "give the tool's name");
    if (spec.name.empty() || spec.name.size() > max_tool_name)
      tool.wrong("name", "must have 1 to " + std::to_string(max_tool_name) + " characters");
    spec.description = tool.text("description");
    tool.need("input_schema", R"(give a JSON Schema object, e.g. {"type": "object"})");
    if (tool.object("input_schema") != nullptr) {
      spec.parameters.clear();
      append_json(spec.parameters, *tool.find("input_schema"));
    }
    const auto same = [&](const chat::ToolSpec& other) { return other.name == spec.name; };
    if (std::any_of(out.tools.begin(), out.tools.end(), same))
      tool.wrong("name", "is " + quoted(spec.name) + ", as another tool's is; names must be unique");
    out.tools.push_back(std::move(spec));
  });
  return left_out;
}

void read_tool_choice(const Fields& request, const std::vector<std::string>& left_out, chat::Request& out, Problem& problem) {
  using Mode = chat::ToolChoice::Mode;
  constexpr const char* types = R"(it must be "auto", "any", "tool" or "none")";
  const json::object* object = request.object("tool_choice");
  if (object == nullptr) return;
  const Fields choice(*object, "tool_choice", problem);
  choice.need("type", types);
  const std::string type = choice.text("type");
  out.parallel_tool_calls = !choice.boolean("disable_parallel_tool_use").value_or(false);
  if (problem) return;
  if (type == "any") {
    // Nobody can be made to call what was left out.
    if (!out.tools.empty()) out.tool_choice.mode = Mode::required;
    else if (left_out.empty()) choice.wrong("type", R"(is "any", but there are no tools)");
  } else if (type == "tool") {
    choice.need("name", "give the tool's name");
    const std::string name = choice.text("name");
    if (std::find(left_out.begin(), left_out.end(), name) != left_out.end()) return;
    check_offered(choice, "name", name, out.tools);
    out.tool_choice = {Mode::named, name};
  } else if (type == "none") {
    out.tool_choice.mode = Mode::none;
  } else if (type != "auto") {
    choice.wrong("type", "is " + quoted(type) + "; " + types);
  }
}

void read_format(const json::object& object, const std::string& path, chat::OutputFormat& out, Problem& problem) {
  const Fields format(object, path, problem);
  format.need("type", R"(it must be "json_schema")");
  const std::string type = format.text("type");
  if (problem) return;
  if (type != "json_schema") {
    format.wrong("type", "is " + quoted(type) + R"(; it must be "json_schema")");
    return;
  }
  out.kind = chat::OutputFormat::Kind::json_schema;
  format.need("schema", "give a JSON Schema object");
  if (format.object("schema") != nullptr) append_json(out.schema, *format.find("schema"));
}

void read_output(const Fields& request, chat::Request& out, Problem& problem) {
  if (const auto* format = request.object("output_format")) read_format(*format, "output_format", out.format, problem);
  const json::object* object = request.object("output_config");
  if (object == nullptr) return;
  const Fields config(*object, "output_config", problem);
  if (const auto* format = config.object("format")) {
    out.format = {};
    read_format(*format, "output_config.format", out.format, problem);
  }
  const std::string effort = config.text("effort");
  if (effort == "minimal" || effort == "low" || effort == "medium" || effort == "high") out.reasoning.effort = effort;
  else if (!effort.empty()) out.reasoning.effort = "high";  // what is above has many names
}

void read_thinking(const Fields& request, chat::Reasoning& out, Problem& problem) {
  constexpr const char* types = R"(it must be "enabled", "disabled" or "adaptive")";
  const json::object* object = request.object("thinking");
  if (object == nullptr) return;
  const Fields thinking(*object, "thinking", problem);
  thinking.need("type", types);
  const std::string type = thinking.text("type");
  if (problem) return;
  // Agents ask for less than the 1024 tokens that Anthropic's own models take at least.
  out.budget = thinking.integer("budget_tokens", 0, max_int);
  if (type == "enabled") out.enabled = true;
  else if (type == "disabled") out.enabled = false;
  else if (type != "adaptive") thinking.wrong("type", "is " + quoted(type) + "; " + types);  // adaptive: as the model is used to
}

void read_sampling(const Fields& request, chat::Sampling& out, Problem& problem) {
  out.temperature = request.real("temperature", 0, 2);
  out.top_p = request.real("top_p", 0, 1, true);
  out.top_k = request.integer("top_k", -1, max_int);
  const json::array* stops = request.array("stop_sequences");
  if (stops == nullptr) return;
  if (stops->size() > max_stops) {
    request.wrong("stop_sequences",
                  "has " + std::to_string(stops->size()) + " entries; at most " + std::to_string(max_stops) + " are allowed");
  }
  for (std::size_t i = 0; i < stops->size() && !problem; ++i) {
    const json::string* stop = (*stops)[i].if_string();
    if (stop == nullptr) problem.set(element("stop_sequences", i), "must be a string, not " + describe((*stops)[i]));
    else if (stop->empty()) problem.set(element("stop_sequences", i), "must not be empty");
    else out.stop.push_back(to_std(*stop));
  }
}

MessagesRequest messages_request(const Fields& request, Problem& problem, bool counted) {
  MessagesRequest out;
  out.request.model = request.text("model");
  if (!counted) request.need("max_tokens", "give the most tokens the answer may have, e.g. 1024");
  out.request.max_tokens = request.integer("max_tokens", 1, max_int);
  out.request.stream = request.boolean("stream").value_or(false);

  if (request.find("thread") != nullptr) {
    request.wrong("thread", "cannot be used: no conversation is stored here; send all of its messages, without thread",
                  ErrorCode::unsupported);
  }
  Conversation conversation(problem);
  conversation.system(request, "system");
  request.need("messages", "give a list with at least one message");
  if (const auto* messages = request.array("messages")) {
    if (messages->empty()) request.wrong("messages", "is empty; give at least one message");
    each_object(*messages, "messages", problem, [&](const Fields& message) { conversation.message(message); });
    if (conversation.empty()) request.wrong("messages", "says nothing: every message is empty");
  }
  out.request.messages = conversation.take();
  const auto left_out = read_tools(request, out.request, problem);
  if (!left_out.empty()) {
    std::string names;
    for (const auto& name : left_out) names += (names.empty() ? "" : ", ") + name;
    out.explanation.add("server-tools", names + ": only Anthropic's own servers run them");
  }
  read_tool_choice(request, left_out, out.request, problem);
  read_thinking(request, out.request.reasoning, problem);
  read_output(request, out.request, problem);
  read_sampling(request, out.request.sampling, problem);
  return out;
}

}  // namespace

Result<MessagesRequest> decode_messages(std::string_view body) {
  return decode_document(body, [](const Fields& request, Problem& problem) { return messages_request(request, problem, false); });
}

Result<MessagesRequest> decode_count(std::string_view body) {
  return decode_document(body, [](const Fields& request, Problem& problem) { return messages_request(request, problem, true); });
}

}  // namespace hearth::wire::anthropic
