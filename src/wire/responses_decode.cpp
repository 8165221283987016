// Requests of the Responses API → chat vocabulary.
#include <algorithm>
#include <array>
#include <utility>

#include "base/json.h"
#include "wire/json_writer.h"
#include "wire/request_parts.h"
#include "wire/responses.h"

namespace hearth::wire::responses {
namespace {

// ---- input ------------------------------------------------------------------------------------------------------------------------

// Records of calls that a host ran by itself: nothing in them speaks to a model.
constexpr std::array<std::string_view, 9> hosted_calls{"web_search_call",       "file_search_call",     "code_interpreter_call",
                                                       "image_generation_call", "computer_call",        "computer_call_output",
                                                       "mcp_list_tools",        "mcp_approval_request", "mcp_approval_response"};

// The items of `input`, one after another, into messages.
class InputReader {
 public:
  explicit InputReader(Problem& problem) : problem_(problem) {}

  void add_system(std::string_view text) {
    if (text.empty()) return;
    if (!system_.empty()) system_ += "\n\n";
    system_ += text;
  }

  void add_user(std::string text) {
    chat::Message& message = messages_.emplace_back();
    message.content.push_back({.text = std::move(text)});
  }

  void read(const json::value& value, const std::string& at) {
    if (!value.is_object()) {
      problem_.set(at, "must be an object with a type, not " + describe(value));
      return;
    }
    const Fields item(value.get_object(), at, problem_);
    std::string type = item.text("type");
    if (type.empty() && item.find("role") != nullptr) type = "message";
    if (problem_) return;
    if (type == "message") read_message(item);
    else if (type == "reasoning") read_reasoning(item);
    else if (type == "function_call") read_call(item, "arguments");
    else if (type == "custom_tool_call") read_call(item, "input");
    else if (type == "function_call_output" || type == "custom_tool_call_output") read_output(item);
    else if (type == "item_reference") {
      problem_.set(at, "refers to an item of an earlier response, and none is stored here; send the item itself", ErrorCode::unsupported);
    } else if (std::find(hosted_calls.begin(), hosted_calls.end(), type) == hosted_calls.end()) {
      constexpr const char* types = R"(it must be "message", "reasoning", "function_call" or "function_call_output")";
      if (type.empty()) item.wrong("type", std::string("is missing; ") + types);
      else item.wrong("type", "is " + quoted(type) + "; " + types, ErrorCode::unsupported);
    }
  }

  std::vector<chat::Message> finish() {
    if (!system_.empty()) {
      chat::Message system{.role = chat::Role::system};
      system.content.push_back({.text = std::move(system_)});
      messages_.insert(messages_.begin(), std::move(system));
    }
    return std::move(messages_);
  }

 private:
  chat::Message& assistant() {
    if (messages_.empty() || messages_.back().role != chat::Role::assistant) { messages_.push_back({.role = chat::Role::assistant}); }
    return messages_.back();
  }

  void read_part(const Fields& part, std::vector<chat::ContentPart>& out) {
    const std::string type = part.text("type");
    if (problem_) return;
    if (type == "input_text" || type == "output_text" || type == "text" || type == "refusal") {
      const char* key = type == "refusal" ? "refusal" : "text";
      part.need(key, "give the text as a string");
      out.push_back({.text = part.text(key)});
    } else if (type == "input_image") {
      if (part.find("file_id") != nullptr) {
        part.wrong("file_id", "names a stored file, and none is stored here; give image_url", ErrorCode::unsupported);
      }
      part.need("image_url", "give a data: or http(s) URL");
      out.push_back(image_of_url(part.text("image_url"), part.path("image_url"), problem_));
    } else if (type == "input_file" || type == "input_audio") {
      part.wrong("type", "is " + quoted(type) + "; only text and images can be read here", ErrorCode::unsupported);
    } else {
      constexpr const char* types = R"(it must be "input_text", "output_text" or "input_image")";
      part.wrong("type", type.empty() ? std::string("is missing; ") + types : "is " + quoted(type) + "; " + types);
    }
  }

  // A text or a list of parts.
  std::vector<chat::ContentPart> content(const Fields& item, std::string_view key) {
    std::vector<chat::ContentPart> out;
    const json::value* value = item.need(key, "give a string or a list of parts");
    if (value == nullptr) return out;
    if (value->is_string()) {
      if (!value->get_string().empty()) out.push_back({.text = to_std(value->get_string())});
    } else if (const json::array* parts = value->if_array()) {
      for (std::size_t i = 0; i < parts->size() && !problem_; ++i) {
        const std::string at = element(item.path(key), i);
        if ((*parts)[i].is_object()) read_part(Fields((*parts)[i].get_object(), at, problem_), out);
        else problem_.set(at, "must be an object with a type, not " + describe((*parts)[i]));
      }
    } else {
      item.wrong(key, "must be a string or a list of parts, not " + describe(*value));
    }
    return out;
  }

  void read_message(const Fields& item) {
    item.need("role", "it must be user, assistant, system or developer");
    const std::string role = item.text("role");
    if (problem_) return;
    auto parts = content(item, "content");
    if (role == "user") {
      messages_.emplace_back().content = std::move(parts);
    } else if (role == "assistant") {
      auto& said = assistant().content;
      said.insert(said.end(), std::make_move_iterator(parts.begin()), std::make_move_iterator(parts.end()));
    } else if (role == "system" || role == "developer") {
      const bool plain =
          std::all_of(parts.begin(), parts.end(), [](const auto& part) { return part.kind == chat::ContentPart::Kind::text; });
      if (!plain) item.wrong("content", "of a " + role + " message must be text; images belong to user messages");
      add_system(chat::Message{.content = std::move(parts)}.text());
    } else {
      item.wrong("role", "is " + quoted(role) + "; it must be user, assistant, system or developer");
    }
  }

  std::string texts(const Fields& item, std::string_view key) {
    std::string out;
    const json::array* parts = item.array(key);
    for (std::size_t i = 0; parts != nullptr && i < parts->size() && !problem_; ++i) {
      const std::string at = element(item.path(key), i);
      if (!(*parts)[i].is_object()) {
        problem_.set(at, "must be an object with a text, not " + describe((*parts)[i]));
        break;
      }
      if (!out.empty()) out += "\n\n";
      out += Fields((*parts)[i].get_object(), at, problem_).text("text");
    }
    return out;
  }

  void read_reasoning(const Fields& item) {
    std::string text = texts(item, "content");
    const std::string summary = texts(item, "summary");
    if (text.empty()) text = summary;
    std::string signature = item.text("encrypted_content");
    chat::Message& message = assistant();
    // A signature covers one block: none fits two that became one.
    const bool first = message.reasoning.empty() && message.reasoning_signature.empty();
    message.reasoning_signature = first ? std::move(signature) : std::string();
    if (!message.reasoning.empty() && !text.empty()) message.reasoning += "\n\n";
    message.reasoning += text;
  }

  // `key` holds what the call was given: JSON text, or for a custom tool any text.
  void read_call(const Fields& item, std::string_view key) {
    item.need("call_id", "give the call_id that the response had");
    item.need("name", "give the tool's name");
    item.need(key,
              key == "input" ? "give the text that the tool was called with" : "give the arguments as JSON text, as the response had them");
    chat::ToolCall call{item.text("call_id"), item.text("name"), item.text(key)};
    if (call.id.empty()) item.wrong("call_id", "must not be empty");
    if (call.name.empty()) item.wrong("name", "must not be empty");
    if (key == "input") {
      std::string arguments = "{";
      append_field(arguments, "input", call.arguments);
      call.arguments = arguments + "}";
    }
    names_.emplace_back(call.id, call.name);
    assistant().tool_calls.push_back(std::move(call));
  }

  void read_output(const Fields& item) {
    item.need("call_id", "an output names the call that it answers");
    const std::string id = item.text("call_id");
    chat::Message message{.role = chat::Role::tool, .content = content(item, "output"), .tool_call_id = id};
    const auto call = std::find_if(names_.rbegin(), names_.rend(), [&](const auto& known) { return known.first == id; });
    if (call == names_.rend()) {
      item.wrong("call_id", "is " + quoted(id) + ", but no call before it has this id; nothing is stored here, so send the call too");
      return;
    }
    message.name = call->second;
    messages_.push_back(std::move(message));
  }

  Problem& problem_;
  std::string system_;
  std::vector<chat::Message> messages_;
  std::vector<std::pair<std::string, std::string>> names_;  // of calls, by id
};

std::vector<chat::Message> messages_of(const Fields& request, Problem& problem) {
  InputReader reader(problem);
  reader.add_system(request.text("instructions"));
  constexpr const char* advice = "give a string or a list of items";
  if (const json::value* input = request.need("input", advice)) {
    if (input->is_string()) {
      reader.add_user(to_std(input->get_string()));
    } else if (const json::array* items = input->if_array()) {
      if (items->empty()) request.wrong("input", "is an empty list; give at least one item");
      for (std::size_t i = 0; i < items->size() && !problem; ++i) reader.read((*items)[i], element("input", i));
    } else {
      request.wrong("input", "must be a string or a list of items, not " + describe(*input));
    }
  }
  std::vector<chat::Message> messages = reader.finish();
  if (messages.empty() && !problem) {
    request.wrong("input", "has only records of calls that another host ran; give at least one item that a model can read");
  }
  return messages;
}

// ---- the rest ---------------------------------------------------------------------------------------------------------------------

void refuse_state(const Fields& request) {
  constexpr const char* stateless = "cannot be used: no response is stored here; send the whole conversation in input";
  for (const char* key : {"previous_response_id", "conversation", "prompt"}) {
    if (request.find(key) != nullptr) request.wrong(key, stateless, ErrorCode::unsupported);
  }
  if (request.boolean("background").value_or(false)) {
    request.wrong("background", "cannot be true: no response is stored here to be fetched later; use stream", ErrorCode::unsupported);
  }
  (void)request.boolean("store");
  if (const auto* truncation = request.string("truncation"); truncation != nullptr && *truncation != "auto" && *truncation != "disabled") {
    request.wrong("truncation", "is " + quoted(*truncation) + R"(; it must be "auto" or "disabled")");
  }
}

void refuse_logprobs(const Fields& request) {
  constexpr const char* elsewhere = "asks for log-probabilities; /v1/chat/completions has them";
  if (request.integer("top_logprobs", 0, 20).value_or(0) > 0) request.wrong("top_logprobs", elsewhere, ErrorCode::unsupported);
  if (const json::array* include = request.array("include")) {
    for (const auto& what : *include) {
      if (what.is_string() && what.get_string() == "message.output_text.logprobs") {
        request.wrong("include", elsewhere, ErrorCode::unsupported);
      }
    }
  }
}

// Only functions can be called here; the rest are tools of a host (web search …) or of a kind that this host does not run.
std::vector<chat::ToolSpec> tools_of(const Fields& request, Problem& problem, std::string& echo, chat::Explanation& explanation) {
  constexpr std::size_t longest_list = 200;
  std::string left_out;
  std::vector<chat::ToolSpec> out;
  const json::array* tools = request.array("tools");
  for (std::size_t i = 0; tools != nullptr && i < tools->size() && !problem; ++i) {
    const std::string at = element("tools", i);
    if (!(*tools)[i].is_object()) {
      problem.set(at, "must be an object, not " + describe((*tools)[i]));
      break;
    }
    const Fields tool((*tools)[i].get_object(), at, problem);
    tool.need("type", R"(it must be "function")");
    if (const auto* type = tool.string("type"); type != nullptr && *type != "function") {
      if (left_out.size() < longest_list) left_out += (left_out.empty() ? "" : ", ") + to_std(*type).substr(0, 40);
      continue;
    }
    out.push_back(function_tool(tool, "give the tool's name; name, description and parameters stand beside type in this API"));
    if (out.size() > 1) echo += ',';
    append_json(echo, (*tools)[i]);
  }
  if (!left_out.empty()) explanation.add("tools_left_out", std::move(left_out));
  return out;
}

chat::ToolChoice tool_choice_of(const Fields& request, const std::vector<chat::ToolSpec>& tools, Problem& problem) {
  constexpr const char* forms = R"(it must be "auto", "none", "required" or {"type": "function", "name": ...})";
  chat::ToolChoice out;
  const json::object* choice = read_tool_choice(request, forms, "tools has no function", tools, out);
  if (choice == nullptr) return out;
  const Fields fields(*choice, "tool_choice", problem);
  fields.need("type", R"(it must be "function")");
  if (const auto* type = fields.string("type"); type != nullptr && *type != "function") {
    fields.wrong("type", "is " + quoted(*type) + "; " + forms, ErrorCode::unsupported);
  }
  fields.need("name", "give the tool's name");
  out.mode = chat::ToolChoice::Mode::named;
  out.name = fields.text("name");
  check_offered(fields, "name", out.name, tools);
  return out;
}

chat::OutputFormat format_of(const Fields& request, Problem& problem) {
  using Kind = chat::OutputFormat::Kind;
  chat::OutputFormat out;
  const json::object* text = request.object("text");
  if (text == nullptr) return out;
  const Fields fields(*text, "text", problem);
  (void)fields.string("verbosity");
  const json::object* format = fields.object("format");
  if (format == nullptr) return out;
  const Fields inner(*format, "text.format", problem);
  constexpr const char* types = R"(it must be "text", "json_object" or "json_schema")";
  inner.need("type", types);
  const std::string type = inner.text("type");
  if (problem) return out;
  if (type == "json_object") {
    out.kind = Kind::json_object;
  } else if (type == "json_schema") {
    out.kind = Kind::json_schema;
    (void)inner.string("name");
    (void)inner.boolean("strict");
    inner.need("schema", "give a JSON Schema object; in this API it stands beside type");
    if (const auto* schema = inner.find("schema"); inner.object("schema") != nullptr) append_json(out.schema, *schema);
  } else if (type != "text") {
    inner.wrong("type", "is " + quoted(type) + "; " + types);
  }
  return out;
}

// Returns whether summaries were asked for.
bool read_reasoning(const Fields& request, chat::Reasoning& out, Problem& problem) {
  const json::object* reasoning = request.object("reasoning");
  if (reasoning == nullptr) return false;
  const Fields fields(*reasoning, "reasoning", problem);
  if (const auto* effort = fields.string("effort")) {
    if (*effort == "none") out.enabled = false;
    else if (*effort == "xhigh") out.effort = "high";  // the most that models elsewhere know
    else if (*effort == "minimal" || *effort == "low" || *effort == "medium" || *effort == "high") out.effort = to_std(*effort);
    else fields.wrong("effort", "is " + quoted(*effort) + R"(; it must be "none", "minimal", "low", "medium", "high" or "xhigh")");
  }
  const std::string summary = fields.text(fields.find("summary") != nullptr ? "summary" : "generate_summary");
  return !summary.empty() && summary != "none";
}

void check_metadata(const Fields& request, Problem& problem) {
  const json::object* metadata = request.object("metadata");
  if (metadata == nullptr) return;
  const Fields fields(*metadata, "metadata", problem);
  for (const auto& [key, value] : *metadata) {
    if (!value.is_string()) fields.wrong(key, "must be a string, not " + describe(value));
  }
}

// What a response repeats of its request, so that clients find every field they know.
std::string echo_of(const Fields& request, const std::string& tools) {
  std::string out;
  const auto put = [&](std::string_view key, std::string_view otherwise) {
    out += ",\"";
    out += key;
    out += "\":";
    if (const json::value* value = request.find(key)) append_json(out, *value);
    else out += otherwise;
  };
  put("instructions", "null");
  put("max_output_tokens", "null");
  put("max_tool_calls", "null");
  put("metadata", "{}");
  put("parallel_tool_calls", "true");
  put("prompt_cache_key", "null");
  put("reasoning", R"({"effort":null,"summary":null})");
  put("safety_identifier", "null");
  put("temperature", "null");
  put("text", R"({"format":{"type":"text"}})");
  put("tool_choice", R"("auto")");
  out += ",\"tools\":[" + tools + "]";
  put("top_p", "null");
  put("user", "null");
  out +=
      R"(,"background":false,"previous_response_id":null,"service_tier":"default","store":false,"top_logprobs":0,"truncation":"disabled")";
  return out;
}

CreateRequest create_request(const Fields& fields, Problem& problem) {
  CreateRequest out;
  chat::Request& request = out.request;
  refuse_state(fields);
  refuse_logprobs(fields);
  request.model = fields.text("model");
  request.messages = messages_of(fields, problem);
  std::string tools;
  request.tools = tools_of(fields, problem, tools, out.explanation);
  request.tool_choice = tool_choice_of(fields, request.tools, problem);
  request.parallel_tool_calls = fields.boolean("parallel_tool_calls").value_or(true);
  request.format = format_of(fields, problem);
  out.summary = read_reasoning(fields, request.reasoning, problem);
  request.sampling.temperature = fields.real("temperature", 0, 2);
  request.sampling.top_p = fields.real("top_p", 0, 1, true);
  request.max_tokens = fields.integer("max_output_tokens", 1, max_int);
  request.stream = fields.boolean("stream").value_or(false);
  check_metadata(fields, problem);
  if (!problem) out.echo = echo_of(fields, tools);
  return out;
}

}  // namespace

Result<CreateRequest> decode_create(std::string_view body) { return decode_document(body, create_request); }

}  // namespace hearth::wire::responses
