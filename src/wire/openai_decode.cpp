// Requests of the OpenAI API → chat vocabulary. Every field is read through Fields, which checks it and keeps the first error.
#include <boost/json.hpp>
#include <charconv>
#include <set>
#include <string>

#include "base/json.h"
#include "wire/openai.h"
#include "wire/request_parts.h"

namespace hearth::wire::openai {
namespace {

constexpr std::size_t max_inputs = 2048;  // of an embedding or rerank request, as the public API allows
constexpr std::size_t max_prompts = 256;  // of one raw completion

// ---- messages ---------------------------------------------------------------------------------------------------------------------

chat::ContentPart image(const Fields& part, Problem& problem) {
  const json::value* source = part.need("image_url", R"(give {"url": "data:image/png;base64,..."})");
  if (source == nullptr) return {};
  const std::string at = part.path("image_url");
  if (source->is_string()) return image_of_url(to_std(source->get_string()), at, problem);
  if (!source->is_object()) {
    problem.set(at, "must be an object with a url, not " + describe(*source));
    return {};
  }
  const Fields fields(source->get_object(), at, problem);
  fields.need("url", "give a data: or http(s) URL");
  return image_of_url(fields.text("url"), fields.path("url"), problem);
}

std::vector<chat::ContentPart> content_parts(const json::array& parts, const std::string& path, Problem& problem) {
  std::vector<chat::ContentPart> out;
  for (std::size_t i = 0; i < parts.size() && !problem; ++i) {
    const std::string at = element(path, i);
    if (!parts[i].is_object()) {
      problem.set(at, "must be an object with a type, not " + describe(parts[i]));
      break;
    }
    const Fields part(parts[i].get_object(), at, problem);
    part.need("type", R"(it must be "text" or "image_url")");
    const std::string type = part.text("type");
    if (problem) break;
    if (type == "text" || type == "refusal") {
      part.need(type, "give the text as a string");
      chat::ContentPart piece;
      piece.text = part.text(type);
      out.push_back(std::move(piece));
    } else if (type == "image_url") {
      out.push_back(image(part, problem));
    } else {
      part.wrong("type", "is " + quoted(type) + R"(; it must be "text" or "image_url")");
    }
  }
  return out;
}

std::vector<chat::ToolCall> tool_calls(const Fields& message, Problem& problem) {
  std::vector<chat::ToolCall> out;
  const json::array* calls = message.array("tool_calls");
  if (calls == nullptr) return out;
  for (std::size_t i = 0; i < calls->size() && !problem; ++i) {
    const std::string at = element(message.path("tool_calls"), i);
    const json::value& value = (*calls)[i];
    if (!value.is_object()) {
      problem.set(at, "must be an object, not " + describe(value));
      break;
    }
    const Fields call(value.get_object(), at, problem);
    if (const auto* type = call.string("type"); type != nullptr && *type != "function") {
      call.wrong("type", "is " + quoted(*type) + R"(; it must be "function")");
    }
    call.need("id", "give the id that the assistant's answer had");
    call.need("function", "give an object with name and arguments");
    const json::object* function = call.object("function");
    if (function == nullptr) break;
    const Fields fields(*function, call.path("function"), problem);
    fields.need("name", "give the tool's name");
    fields.need("arguments", "give the arguments as JSON text, as the assistant's answer had them");
    out.push_back({call.text("id"), fields.text("name"), fields.text("arguments")});
    if (out.back().id.empty()) call.wrong("id", "must not be empty");
    if (out.back().name.empty()) fields.wrong("name", "must not be empty");
  }
  return out;
}

std::optional<chat::Role> role_of(std::string_view name) {
  if (name == "system" || name == "developer") return chat::Role::system;
  if (name == "user") return chat::Role::user;
  if (name == "assistant") return chat::Role::assistant;
  if (name == "tool") return chat::Role::tool;
  return {};
}

chat::Message message_of(const json::value& value, const std::string& at, Problem& problem) {
  chat::Message out;
  if (!value.is_object()) {
    problem.set(at, "must be an object with role and content, not " + describe(value));
    return out;
  }
  const Fields message(value.get_object(), at, problem);
  constexpr const char* roles = "it must be one of system, developer, user, assistant, tool";
  message.need("role", roles);
  const std::string role = message.text("role");
  if (problem) return out;
  const auto known = role_of(role);
  if (!known) {
    message.wrong("role", "is " + quoted(role) + "; " + roles + (role == "function" ? " (tool took the place of function)" : ""));
    return out;
  }
  out.role = *known;
  out.name = message.text("name");
  const bool assistant = out.role == chat::Role::assistant;
  if (assistant) {
    out.reasoning = message.text(message.find("reasoning_content") != nullptr ? "reasoning_content" : "reasoning");
    out.tool_calls = tool_calls(message, problem);
    if (message.find("function_call") != nullptr) {
      message.wrong("function_call", "is the old form; use tool_calls", ErrorCode::unsupported);
    }
  } else if (const auto* calls = message.find("tool_calls"); calls != nullptr && !(calls->is_array() && calls->get_array().empty())) {
    message.wrong("tool_calls", "belongs to messages with the role assistant only");
  }
  if (out.role == chat::Role::tool) {
    message.need("tool_call_id", "a tool message names the call that it answers");
    out.tool_call_id = message.text("tool_call_id");
  }
  const json::value* content = message.find("content");
  if (content == nullptr) {
    const bool speaks_otherwise = assistant && (!out.tool_calls.empty() || !out.reasoning.empty() || message.find("refusal") != nullptr);
    if (!speaks_otherwise) message.need("content", "give a string or a list of parts");
  } else if (content->is_string()) {
    if (!content->get_string().empty()) {
      out.content.emplace_back();
      out.content.back().text = to_std(content->get_string());
    }
  } else if (content->is_array()) {
    out.content = content_parts(content->get_array(), message.path("content"), problem);
  } else {
    message.wrong("content", "must be a string or a list of parts, not " + describe(*content));
  }
  return out;
}

std::vector<chat::Message> messages_of(const Fields& request, Problem& problem) {
  std::vector<chat::Message> out;
  request.need("messages",
               request.find("prompt") != nullptr ? "for a prompt use /v1/completions" : "give a list with at least one message");
  const json::array* messages = request.array("messages");
  if (messages == nullptr) return out;
  if (messages->empty()) request.wrong("messages", "is empty; give at least one message");
  out.reserve(messages->size());
  std::set<std::string> called;
  for (std::size_t i = 0; i < messages->size() && !problem; ++i) {
    const std::string at = element("messages", i);
    const auto& message = out.emplace_back(message_of((*messages)[i], at, problem));
    for (const auto& call : message.tool_calls) called.insert(call.id);
    if (message.role == chat::Role::tool && !called.contains(message.tool_call_id)) {
      problem.set(at + ".tool_call_id",
                  "is " + quoted(message.tool_call_id) + ", but no call of an assistant's message before it has this id");
    }
  }
  return out;
}

// ---- tools ------------------------------------------------------------------------------------------------------------------------

std::vector<chat::ToolSpec> tools_of(const Fields& request, Problem& problem) {
  std::vector<chat::ToolSpec> out;
  for (const char* old : {"functions", "function_call"}) {
    if (request.find(old) != nullptr) {
      request.wrong(old, "is no longer part of the API; use tools and tool_choice", ErrorCode::unsupported);
    }
  }
  const json::array* tools = request.array("tools");
  if (tools == nullptr) return out;
  for (std::size_t i = 0; i < tools->size() && !problem; ++i) {
    const std::string at = element("tools", i);
    if (!(*tools)[i].is_object()) {
      problem.set(at, "must be an object, not " + describe((*tools)[i]));
      break;
    }
    const Fields tool((*tools)[i].get_object(), at, problem);
    tool.need("type", R"(it must be "function")");
    if (const auto* type = tool.string("type"); type != nullptr && *type != "function") {
      tool.wrong("type", "is " + quoted(*type) + R"(; only "function" tools can be used here)", ErrorCode::unsupported);
    }
    tool.need("function", "give an object with name, description and parameters");
    const json::object* function = tool.object("function");
    if (function == nullptr) break;
    const Fields fields(*function, tool.path("function"), problem);
    out.push_back(function_tool(fields));
  }
  return out;
}

chat::ToolChoice tool_choice_of(const Fields& request, const std::vector<chat::ToolSpec>& tools, Problem& problem) {
  constexpr const char* forms = R"(it must be "auto", "none", "required" or {"type": "function", "function": {"name": ...}})";
  chat::ToolChoice out;
  const json::object* choice = read_tool_choice(request, forms, "tools is empty", tools, out);
  if (choice == nullptr) return out;
  const Fields fields(*choice, "tool_choice", problem);
  fields.need("type", R"(it must be "function")");
  if (const auto* type = fields.string("type"); type != nullptr && *type != "function") {
    fields.wrong("type", "is " + quoted(*type) + R"(; it must be "function")");
  }
  fields.need("function", "give an object with the tool's name");
  const json::object* function = fields.object("function");
  if (function == nullptr) return out;
  const Fields named(*function, "tool_choice.function", problem);
  named.need("name", "give the tool's name");
  out.mode = chat::ToolChoice::Mode::named;
  out.name = named.text("name");
  check_offered(named, "name", out.name, tools);
  return out;
}

// ---- what chat and raw completion share -----------------------------------------------------------------------------------------------

chat::OutputFormat format_of(const Fields& request, Problem& problem) {
  using Kind = chat::OutputFormat::Kind;
  chat::OutputFormat out;
  if (const auto* format = request.object("response_format")) {
    const Fields fields(*format, "response_format", problem);
    constexpr const char* types = R"(it must be "text", "json_object" or "json_schema")";
    fields.need("type", types);
    const std::string type = fields.text("type");
    if (problem) return out;
    if (type == "json_object") {
      out.kind = Kind::json_object;
    } else if (type == "json_schema") {
      out.kind = Kind::json_schema;
      fields.need("json_schema", "give an object with name and schema");
      if (const auto* named = fields.object("json_schema")) {
        const Fields inner(*named, "response_format.json_schema", problem);
        (void)inner.string("name");
        (void)inner.boolean("strict");
        inner.need("schema", "give a JSON Schema object");
        if (const auto* schema = inner.find("schema"); inner.object("schema") != nullptr) append_json(out.schema, *schema);
      }
    } else if (type != "text") {
      fields.wrong("type", "is " + quoted(type) + "; " + types);
    }
  }
  if (const auto* grammar = request.string("grammar"); grammar != nullptr && !grammar->empty()) {
    if (out.kind != Kind::text) request.wrong("grammar", "cannot be combined with response_format; keep one of them");
    out.kind = Kind::gbnf;
    out.schema = to_std(*grammar);
  }
  return out;
}

void read_logit_bias(const Fields& request, chat::Sampling& out, Problem& problem) {
  const json::object* biases = request.object("logit_bias");
  if (biases == nullptr) return;
  const Fields fields(*biases, "logit_bias", problem);
  for (const auto& [key, value] : *biases) {
    std::int32_t token = -1;
    const auto [end, ec] = std::from_chars(key.data(), key.data() + key.size(), token);
    if (ec != std::errc() || end != key.data() + key.size() || token < 0) {
      request.wrong("logit_bias", "has the key " + quoted(key) + "; keys are token ids, e.g. \"1234\"");
      return;
    }
    if (value.is_null()) {
      fields.wrong(key, "must be a number from -100 to 100, not null");
      return;
    }
    const auto bias = fields.real(key, -100, 100);
    if (!bias) return;
    out.logit_bias.emplace_back(token, *bias);
  }
}

void read_common(const Fields& request, chat::Request& out, Problem& problem) {
  out.model = request.text("model");
  out.format = format_of(request, problem);
  auto& sampling = out.sampling;
  sampling.temperature = request.real("temperature", 0, 2);
  sampling.top_p = request.real("top_p", 0, 1, true);
  sampling.min_p = request.real("min_p", 0, 1);
  sampling.top_k = request.integer("top_k", -1, max_int);
  sampling.presence_penalty = request.real("presence_penalty", -2, 2);
  sampling.frequency_penalty = request.real("frequency_penalty", -2, 2);
  sampling.repeat_penalty = request.real(request.find("repeat_penalty") != nullptr ? "repeat_penalty" : "repetition_penalty", 0, 100, true);
  sampling.seed = read_seed(request);
  read_logit_bias(request, sampling, problem);
  sampling.stop = read_stop(request, problem);
  out.choices = request.integer("n", 1, 16).value_or(1);
  out.max_tokens = request.integer("max_tokens", 1, max_int);
  if (const auto newer = request.integer("max_completion_tokens", 1, max_int)) out.max_tokens = newer;
  out.stream = request.boolean("stream").value_or(false);
  if (const auto* options = request.object("stream_options")) {
    if (!out.stream) request.wrong("stream_options", "is only allowed with stream: true");
    const Fields fields(*options, "stream_options", problem);
    out.include_usage = fields.boolean("include_usage").value_or(false);
    out.start_usage = fields.boolean("start_usage").value_or(false);
  }
  out.adapter = request.text("adapter");
  out.ignore_eos = request.boolean("ignore_eos").value_or(false);
  out.prefill_only = request.boolean("prefill").value_or(false);
  if (const auto* priority = request.string("priority")) {
    if (*priority == "background") out.priority = chat::Priority::background;
    else if (*priority != "interactive")
      request.wrong("priority", "is " + quoted(*priority) + R"(; it must be "interactive" or "background")");
  }
  if (const auto limit = request.integer("time_limit_ms", 1, max_int)) out.time_limit = std::chrono::milliseconds(*limit);
}

// ---- prompts and inputs -----------------------------------------------------------------------------------------------------------

bool read_tokens(const json::array& tokens, const std::string& path, chat::RawPrompt& out, Problem& problem) {
  if (tokens.empty()) problem.set(path, "is empty; give at least one token id");
  out.tokens.reserve(tokens.size());
  for (std::size_t i = 0; i < tokens.size() && !problem; ++i) {
    const std::int64_t* token = tokens[i].if_int64();
    if (token == nullptr || *token < 0 || *token > max_int) problem.set(element(path, i), "must be a token id, not " + describe(tokens[i]));
    else out.tokens.push_back(static_cast<std::int32_t>(*token));
  }
  return !problem;
}

// A text, token ids, or a list of either.
std::vector<chat::RawPrompt> raw_prompts(const Fields& request, const char* key, const std::string& advice, std::size_t most,
                                         Problem& problem) {
  std::vector<chat::RawPrompt> out;
  const json::value* value = request.need(key, advice);
  if (value == nullptr) return out;
  if (value->is_string()) {
    out.push_back({to_std(value->get_string()), {}});
    return out;
  }
  if (!value->is_array()) {
    request.wrong(key, "must be a string, a list of strings, a list of token ids or a list of those, not " + describe(*value));
    return out;
  }
  const json::array& list = value->get_array();
  if (list.empty()) {
    request.wrong(key, "is an empty list; give at least one entry");
    return out;
  }
  if (list[0].is_number()) {
    out.emplace_back();
    read_tokens(list, key, out.back(), problem);
    return out;
  }
  if (list.size() > most) {
    request.wrong(key, "has " + std::to_string(list.size()) + " entries; at most " + std::to_string(most) + " are allowed");
    return out;
  }
  out.reserve(list.size());
  for (std::size_t i = 0; i < list.size() && !problem; ++i) {
    out.emplace_back();
    if (list[i].is_string()) out.back().text = to_std(list[i].get_string());
    else if (list[i].is_array()) read_tokens(list[i].get_array(), element(key, i), out.back(), problem);
    else problem.set(element(key, i), "must be a string or a list of token ids, not " + describe(list[i]));
  }
  return out;
}

void read_reasoning(const Fields& request, chat::Reasoning& out, Problem& problem) {
  if (const auto* effort = request.string("reasoning_effort")) {
    if (*effort == "none") out.enabled = false;
    else if (*effort == "minimal" || *effort == "low" || *effort == "medium" || *effort == "high") out.effort = to_std(*effort);
    else request.wrong("reasoning_effort", "is " + quoted(*effort) + R"(; it must be "none", "minimal", "low", "medium" or "high")");
  }
  // As vLLM, SGLang and llama.cpp's server take it.
  if (const auto* arguments = request.object("chat_template_kwargs")) {
    if (const auto on = Fields(*arguments, "chat_template_kwargs", problem).boolean("enable_thinking")) out.enabled = on;
  }
  out.budget = request.integer("thinking_budget_tokens", 0, max_int);
}

chat::Request chat_request(const Fields& request, Problem& problem) {
  chat::Request out;
  read_common(request, out, problem);
  out.messages = messages_of(request, problem);
  out.tools = tools_of(request, problem);
  out.tool_choice = tool_choice_of(request, out.tools, problem);
  out.parallel_tool_calls = request.boolean("parallel_tool_calls").value_or(true);
  read_reasoning(request, out.reasoning, problem);
  const bool logprobs = request.boolean("logprobs").value_or(false);
  const auto top = request.integer("top_logprobs", 0, 20);
  if (top && !logprobs) request.wrong("top_logprobs", "is only allowed with logprobs: true");
  if (logprobs) out.top_logprobs = top.value_or(0);
  if (const auto* modalities = request.array("modalities")) {
    for (std::size_t i = 0; i < modalities->size(); ++i) {
      const json::string* name = (*modalities)[i].if_string();
      if (name == nullptr || *name != "text")
        problem.set(element("modalities", i), R"(must be "text"; answers are text only)", ErrorCode::unsupported);
    }
  }
  return out;
}

chat::Request completion_request(const Fields& request, Problem& problem) {
  chat::Request out;
  read_common(request, out, problem);
  out.prompts =
      raw_prompts(request, "prompt", request.find("messages") != nullptr ? "for messages use /v1/chat/completions" : "give a string",
                  max_prompts, problem);
  out.echo = request.boolean("echo").value_or(false);
  out.top_logprobs = request.integer("logprobs", 0, 20);
  if (const auto* suffix = request.string("suffix"); suffix != nullptr && !suffix->empty()) {
    request.wrong("suffix", "is not supported: this API inserts nothing between two texts; leave it out", ErrorCode::unsupported);
  }
  if (const auto best_of = request.integer("best_of", 1, max_int); best_of && *best_of != out.choices) {
    request.wrong("best_of", "must equal n (" + std::to_string(out.choices) + "): all answers are returned, none is picked",
                  ErrorCode::unsupported);
  }
  return out;
}

}  // namespace

Result<chat::Request> decode_chat(std::string_view body) { return decode_document(body, chat_request); }

Result<chat::Request> decode_completion(std::string_view body) { return decode_document(body, completion_request); }

Result<chat::Request> decode_chat_or_completion(std::string_view body) {
  return decode_document(body, [](const Fields& request, Problem& problem) {
    return request.find("prompt") != nullptr && request.find("messages") == nullptr ? completion_request(request, problem)
                                                                                    : chat_request(request, problem);
  });
}

Result<chat::EmbeddingRequest> decode_embeddings(std::string_view body) {
  return decode_document(body, [](const Fields& request, Problem& problem) {
    chat::EmbeddingRequest out;
    out.model = request.text("model");
    out.inputs = raw_prompts(request, "input", "give a string or a list of strings", max_inputs, problem);
    for (std::size_t i = 0; i < out.inputs.size(); ++i) {
      if (out.inputs[i].text.empty() && out.inputs[i].tokens.empty()) {
        problem.set(out.inputs.size() == 1 ? "input" : element("input", i), "must not be empty");
      }
    }
    out.dimensions = request.integer("dimensions", 1, max_int);
    if (const auto* format = request.string("encoding_format")) {
      if (*format == "base64") out.base64 = true;
      else if (*format != "float") request.wrong("encoding_format", "is " + quoted(*format) + R"(; it must be "float" or "base64")");
    }
    return out;
  });
}

Result<chat::RerankRequest> decode_rerank(std::string_view body) {
  return decode_document(body, [](const Fields& request, Problem& problem) {
    chat::RerankRequest out;
    out.model = request.text("model");
    request.need("query", "give a string");
    out.query = request.text("query");
    if (out.query.empty()) request.wrong("query", "must not be empty");
    request.need("documents", R"(give a list of strings or of {"text": ...})");
    if (const auto* documents = request.array("documents")) {
      if (documents->empty()) request.wrong("documents", "is an empty list; give at least one document");
      if (documents->size() > max_inputs) {
        request.wrong("documents",
                      "has " + std::to_string(documents->size()) + " entries; at most " + std::to_string(max_inputs) + " are allowed");
      }
      for (std::size_t i = 0; i < documents->size() && !problem; ++i) {
        const json::value& value = (*documents)[i];
        if (value.is_string()) {
          out.documents.push_back(to_std(value.get_string()));
        } else if (value.is_object()) {
          const Fields document(value.get_object(), element("documents", i), problem);
          document.need("text", "give the document's text");
          out.documents.push_back(document.text("text"));
        } else {
          problem.set(element("documents", i), R"(must be a string or {"text": ...}, not )" + describe(value));
        }
      }
    }
    out.top_n = request.integer("top_n", 1, max_int);
    out.return_documents = request.boolean("return_documents").value_or(false);
    return out;
  });
}

}  // namespace hearth::wire::openai
