// The way back: a conversation with tools as text, each family's calls and results in the form it was trained on.
#include <algorithm>
#include <iterator>
#include <map>
#include <utility>

#include "base/json.h"
#include "wire/dialect.h"

namespace hearth::wire {
namespace {

using chat::ContentPart;
using chat::Message;
using chat::Role;
using chat::ToolChoice;

std::string quoted(std::string_view text) {
  std::string out;
  append_json_string(out, text);
  return out;
}

std::string schema_of(const chat::ToolSpec& tool) { return tool.parameters.empty() ? "{}" : tool.parameters; }

std::string signature(const chat::ToolSpec& tool) {
  std::string out = "{\"name\": " + quoted(tool.name);
  if (!tool.description.empty()) out += ", \"description\": " + quoted(tool.description);
  return out + ", \"parameters\": " + schema_of(tool) + "}";
}
std::string typed_signature(const chat::ToolSpec& tool) { return "{\"type\": \"function\", \"function\": " + signature(tool) + "}"; }

template <class Write>
std::string listed(const std::vector<chat::ToolSpec>& tools, std::string_view between, Write write) {
  std::string out;
  for (const auto& tool : tools) {
    if (!out.empty()) out += between;
    out += write(tool);
  }
  return out;
}

std::string plain_value(const json::value& value) {
  if (value.is_string()) return {value.get_string().data(), value.get_string().size()};
  std::string out;
  append_json(out, value);
  return out;
}

// Qwen-coder's way to show a tool: what JSON Schema says of each parameter as tags.
std::string tagged_signature(const chat::ToolSpec& tool) {
  const auto tag = [](std::string_view name, std::string_view text) {
    return "\n<" + std::string(name) + ">" + std::string(text) + "</" + std::string(name) + ">";
  };
  std::string out = "<function>" + tag("name", tool.name);
  if (!tool.description.empty()) out += tag("description", tool.description);
  out += "\n<parameters>";
  const auto schema = parse_json(schema_of(tool));
  if (schema && schema->is_object()) {
    const auto& object = schema->get_object();
    const auto* properties = object.if_contains("properties");
    if (properties != nullptr && properties->is_object()) {
      for (const auto& [key, about] : properties->get_object()) {
        out += "\n<parameter>" + tag("name", {key.data(), key.size()});
        if (about.is_object()) {
          for (const auto& [fact, value] : about.get_object()) out += tag({fact.data(), fact.size()}, plain_value(value));
        }
        out += "\n</parameter>";
      }
    }
    for (const auto& [key, value] : object) {
      if (key != "type" && key != "properties") out += tag({key.data(), key.size()}, plain_value(value));
    }
  }
  return out + "\n</parameters>\n</function>";
}

// What the system message says: the tools, and how to call one.
std::string manual(const std::vector<chat::ToolSpec>& tools, Dialect dialect) {
  switch (dialect) {
    case Dialect::qwen_xml:
      return "# Tools\n\nYou can call these tools:\n\n<tools>\n" + listed(tools, "\n", tagged_signature) +
             "\n</tools>\n\nTo call a tool, end your answer with exactly this form, one <tool_call> for each call, and write nothing after "
             "it:\n\n"
             "<tool_call>\n<function=TOOL_NAME>\n<parameter=PARAMETER_NAME>\nvalue\n</parameter>\n</function>\n</tool_call>\n\n"
             "Give every required parameter. Say why before the call, never after it.";
    case Dialect::llama3:
      return "Environment: ipython\n\nYou can call these functions:\n\n" + listed(tools, "\n\n", typed_signature) +
             "\n\nTo call a function, answer with its JSON alone, in the form {\"name\": function name, \"parameters\": object of argument "
             "names and "
             "values}. Do not use variables. Separate several calls by semicolons.";
    case Dialect::mistral:
      return "[AVAILABLE_TOOLS][" + listed(tools, ", ", typed_signature) +
             "][/AVAILABLE_TOOLS]\n\nTo call tools, answer with [TOOL_CALLS] and a JSON list of the calls: [TOOL_CALLS][{\"name\": tool "
             "name, "
             "\"arguments\": {…}}]";
    case Dialect::deepseek:
      return "## Tools\n\nYou have these tools:\n\n" +
             listed(tools, "\n\n",
                    [](const chat::ToolSpec& tool) {
                      return "### " + tool.name + "\nDescription: " + tool.description + "\n\nParameters: " + schema_of(tool);
                    }) +
             "\n\nTo call tools, use exactly this format:\n<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>tool_name<｜tool▁sep｜>{JSON "
             "arguments}"
             "<｜tool▁call▁end｜><｜tool▁calls▁end｜>\nFurther calls follow the first, each from <｜tool▁call▁begin｜> to "
             "<｜tool▁call▁end｜>.";
    case Dialect::functionary:
      return "You can call these functions, and should only where one is needed:\n\n" + listed(tools, "\n\n", signature) +
             "\n\nAnswer in this form, as often as needed:\n>>>${recipient}\n${content}\nThe recipient is a function's name, its content "
             "the "
             "arguments as a JSON object; or \"all\" for text to the user.";
    case Dialect::fenced:
      return "# Tools\n\nYou can call these tools:\n\n" + listed(tools, "\n", signature) +
             "\n\nTo call a tool, write a block like this, one for each call, with nothing else in it:\n```tool_call\n{\"name\": "
             "\"TOOL_NAME\", "
             "\"arguments\": {…}}\n```";
    case Dialect::hermes:
    case Dialect::automatic: break;
  }
  return "# Tools\n\nYou can call these tools. Their signatures, one a line, stand between <tools></tools> tags:\n<tools>\n" +
         listed(tools, "\n", typed_signature) +
         "\n</tools>\n\nTo call a tool, write a JSON object with its name and arguments between <tool_call></tool_call> tags, one pair of "
         "tags for each "
         "call:\n<tool_call>\n{\"name\": \"TOOL_NAME\", \"arguments\": {…}}\n</tool_call>";
}

std::string demand(const chat::Request& request) {
  std::string out;
  if (request.tool_choice.mode == ToolChoice::Mode::required) out = "\n\nYour next answer must call a tool.";
  if (request.tool_choice.mode == ToolChoice::Mode::named) out = "\n\nYour next answer must call " + request.tool_choice.name + ".";
  if (!request.parallel_tool_calls) out += "\n\nMake at most one call in an answer.";
  return out;
}

// The arguments as JSON to stand inside JSON: as they came, or, where a client sent something else, as a string.
std::string arguments_of(const chat::ToolCall& call) {
  if (call.arguments.find_first_not_of(" \n\r\t") == std::string::npos) return "{}";
  const auto parsed = parse_json(call.arguments);
  return parsed && parsed->is_object() ? call.arguments : quoted(call.arguments);
}

std::string json_call(const chat::ToolCall& call, std::string_view arguments_key) {
  return "{\"name\": " + quoted(call.name) + ", \"" + std::string(arguments_key) + "\": " + arguments_of(call) + "}";
}

std::string tagged_call(const chat::ToolCall& call) {
  std::string out = "<tool_call>\n<function=" + call.name + ">\n";
  if (const auto arguments = parse_json(call.arguments); arguments && arguments->is_object()) {
    for (const auto& [key, value] : arguments->get_object()) {
      out += "<parameter=" + std::string(key.data(), key.size()) + ">\n" + plain_value(value) + "\n</parameter>\n";
    }
  }
  return out + "</function>\n</tool_call>";
}

// An assistant's calls after its text.
std::string written(const std::vector<chat::ToolCall>& calls, std::string_view text, Dialect dialect) {
  std::string out;
  const auto joined = [&](std::string_view between, auto write) {
    for (const auto& call : calls) {
      if (&call != &calls.front()) out += between;
      out += write(call);
    }
  };
  const std::string margin = text.empty() || text.ends_with('\n') ? "" : "\n";
  switch (dialect) {
    case Dialect::qwen_xml:
      out = margin;
      joined("\n", tagged_call);
      break;
    case Dialect::llama3:
      out = text.empty() ? "" : margin + "<|python_tag|>";
      joined("; ", [](const auto& call) { return json_call(call, "parameters"); });
      break;
    case Dialect::mistral:
      out = "[TOOL_CALLS][";
      joined(", ", [](const auto& call) {
        std::string one = json_call(call, "arguments");
        one.pop_back();
        return one + ", \"id\": " + quoted(call.id) + "}";
      });
      out += "]";
      break;
    case Dialect::deepseek:
      out = "<｜tool▁calls▁begin｜>";
      joined("", [](const auto& call) {
        return "<｜tool▁call▁begin｜>" + call.name + "<｜tool▁sep｜>" + arguments_of(call) + "<｜tool▁call▁end｜>";
      });
      out += "<｜tool▁calls▁end｜>";
      break;
    case Dialect::functionary:
      out = margin;
      joined("\n", [](const auto& call) { return ">>>" + call.name + "\n" + arguments_of(call); });
      break;
    case Dialect::fenced:
      out = margin;
      joined("\n", [](const auto& call) { return "```tool_call\n" + json_call(call, "arguments") + "\n```"; });
      break;
    case Dialect::hermes:
    case Dialect::automatic:
      out = margin;
      joined("\n", [](const auto& call) { return "<tool_call>\n" + json_call(call, "arguments") + "\n</tool_call>"; });
  }
  return out;
}

// What stands before and after a result. Where the form wants JSON, the text parts become part of `before` and are gone from the message.
std::pair<std::string, std::string> frame(Message& result, const std::string& tool, Dialect dialect) {
  const std::string failed = result.tool_failed ? "The call failed: " : "";
  const auto take_text = [&] {
    const std::string text = failed + result.text();
    std::erase_if(result.content, [](const ContentPart& part) { return part.kind == ContentPart::Kind::text; });
    return quoted(text);
  };
  switch (dialect) {
    case Dialect::llama3: return {"{\"name\": " + quoted(tool) + ", \"output\": " + take_text() + "}", ""};
    case Dialect::mistral:
      return {"[TOOL_RESULTS]{\"content\": " + take_text() + ", \"call_id\": " + quoted(result.tool_call_id) + "}[/TOOL_RESULTS]", ""};
    case Dialect::deepseek: return {"<｜tool▁output▁begin｜>" + failed, "<｜tool▁output▁end｜>"};
    case Dialect::functionary:
    case Dialect::fenced: return {"Result of " + tool + ":\n" + failed, ""};
    default: return {"<tool_response>\n" + failed, "\n</tool_response>"};
  }
}

// Appends text to the last text part, or as a new one.
void append_text(std::vector<ContentPart>& content, std::string_view text) {
  if (text.empty()) return;
  if (content.empty() || content.back().kind != ContentPart::Kind::text) content.emplace_back();
  content.back().text += text;
}
void append_content(std::vector<ContentPart>& content, std::vector<ContentPart> more) {
  for (auto& part : more) {
    if (part.kind == ContentPart::Kind::text) append_text(content, part.text);
    else content.push_back(std::move(part));
  }
}

}  // namespace

void write_as_text(chat::Request& request, Dialect dialect) {
  const bool history = std::any_of(request.messages.begin(), request.messages.end(),
                                   [](const Message& message) { return message.role == Role::tool || !message.tool_calls.empty(); });
  if (request.tools.empty() && !history) return;

  std::vector<Message> messages;
  std::map<std::string, std::string> tool_of;  // call id → tool
  bool after_results = false;                  // the last message holds results: what the user says next joins it
  for (auto& message : request.messages) {
    if (message.role == Role::tool) {
      const auto called = tool_of.find(message.tool_call_id);
      const std::string tool = called != tool_of.end() ? called->second : message.name.empty() ? "the tool" : message.name;
      if (!after_results) messages.emplace_back().role = Role::user;
      auto& content = messages.back().content;
      auto [before, after] = frame(message, tool, dialect);
      append_text(content, content.empty() ? before : "\n" + before);
      append_content(content, std::move(message.content));
      append_text(content, after);
      after_results = true;
      continue;
    }
    if (message.role == Role::user && after_results) {
      append_text(messages.back().content, "\n\n");
      append_content(messages.back().content, std::move(message.content));
      continue;
    }
    after_results = false;
    if (!message.tool_calls.empty()) {
      for (const auto& call : message.tool_calls) tool_of[call.id] = call.name;
      const std::string text = message.text();
      const std::string calls = written(message.tool_calls, text, dialect);
      if (dialect == Dialect::functionary && !text.empty()) {
        std::find_if(message.content.begin(), message.content.end(), [](const auto& part) {
          return part.kind == ContentPart::Kind::text;
        })->text.insert(0, ">>>all\n");
      }
      append_text(message.content, calls);
      message.tool_calls.clear();
    }
    messages.push_back(std::move(message));
  }
  request.messages = std::move(messages);

  if (!request.tools.empty() && request.tool_choice.mode != ToolChoice::Mode::none) {
    if (request.messages.empty() || request.messages.front().role != Role::system) {
      request.messages.insert(request.messages.begin(), Message{})->role = Role::system;
    }
    auto& content = request.messages.front().content;
    append_text(content, (content.empty() ? "" : "\n\n") + manual(request.tools, dialect) + demand(request));
  }
  request.tools.clear();
  request.tool_choice = {};
  request.parallel_tool_calls = true;  // engines without tools refuse the field
}

}  // namespace hearth::wire
