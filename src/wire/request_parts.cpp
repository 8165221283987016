#include "wire/request_parts.h"

namespace hearth::wire {

chat::ContentPart image_of_url(std::string url, const std::string& at, Problem& problem) {
  chat::ContentPart out;
  out.kind = chat::ContentPart::Kind::image;
  if (url.starts_with("https://") || url.starts_with("http://")) {
    out.url = std::move(url);
    return out;
  }
  constexpr std::string_view marker = ";base64,";
  const std::size_t split = url.find(marker);
  if (!url.starts_with("data:image/") || split == std::string::npos || split + marker.size() == url.size()) {
    problem.set(at, "must start with https://, http:// or data:image/<type>;base64, not " + quoted(url));
    return out;
  }
  out.media_type = url.substr(5, split - 5);
  out.data = url.substr(split + marker.size());
  return out;
}

chat::ToolSpec function_tool(const Fields& fields, const std::string& name_advice) {
  constexpr std::size_t max_name = 256;
  fields.need("name", name_advice);
  chat::ToolSpec spec{fields.text("name"), fields.text("description"), "{}"};
  if (spec.name.empty() || spec.name.size() > max_name) {
    fields.wrong("name", "must have 1 to " + std::to_string(max_name) + " characters");
  }
  if (const auto* parameters = fields.find("parameters"); fields.object("parameters") != nullptr) {
    spec.parameters.clear();
    append_json(spec.parameters, *parameters);
  }
  (void)fields.boolean("strict");
  return spec;
}

const json::object* read_tool_choice(const Fields& request, const std::string& forms, const char* no_tools,
                                     const std::vector<chat::ToolSpec>& tools, chat::ToolChoice& out) {
  using Mode = chat::ToolChoice::Mode;
  const json::value* choice = request.find("tool_choice");
  if (choice == nullptr) return nullptr;
  if (choice->is_string()) {
    const std::string mode = to_std(choice->get_string());
    if (mode == "none") out.mode = Mode::none;
    else if (mode == "required") out.mode = Mode::required;
    else if (mode != "auto") request.wrong("tool_choice", "is " + quoted(mode) + "; " + forms);
    if (out.mode == Mode::required && tools.empty()) request.wrong("tool_choice", std::string(R"(is "required", but )") + no_tools);
    return nullptr;
  }
  if (!choice->is_object()) request.wrong("tool_choice", "is " + describe(*choice) + "; " + forms);
  return choice->if_object();
}

void check_offered(const Fields& choice, std::string_view key, const std::string& name, const std::vector<chat::ToolSpec>& tools) {
  std::string known;
  for (const auto& tool : tools) {
    if (tool.name == name) return;
    known += (known.empty() ? "" : ", ") + tool.name;
  }
  choice.wrong(key, "is " + quoted(name) + ", which is not among the tools (" + (known.empty() ? "there are none" : known) + ")");
}

std::optional<std::uint32_t> read_seed(const Fields& fields) {
  const json::value* value = fields.find("seed");
  if (value == nullptr) return {};
  if (!value->is_int64() && !value->is_uint64()) {
    fields.wrong("seed", "must be an integer, not " + describe(*value));
    return {};
  }
  if (value->is_int64() && value->get_int64() == -1) return {};  // the usual "any seed" of local engines
  const auto wide = value->is_uint64() ? value->get_uint64() : static_cast<std::uint64_t>(value->get_int64());
  return static_cast<std::uint32_t>(wide ^ (wide >> 32));  // 64-bit seeds stay distinct; those below 2^32 stay themselves
}

std::vector<std::string> read_stop(const Fields& fields, Problem& problem) {
  constexpr std::size_t most = 16;
  std::vector<std::string> out;
  const json::value* stop = fields.find("stop");
  if (stop == nullptr) return out;
  const auto add = [&](const json::value& value, const std::string& at) {
    if (!value.is_string()) problem.set(at, "must be a string, not " + describe(value));
    else if (value.get_string().empty()) problem.set(at, "must not be empty");
    else out.push_back(to_std(value.get_string()));
  };
  if (stop->is_string()) {
    add(*stop, fields.path("stop"));
  } else if (!stop->is_array()) {
    fields.wrong("stop", "must be a string or a list of strings, not " + describe(*stop));
  } else if (stop->get_array().size() > most) {
    fields.wrong("stop", "has " + std::to_string(stop->get_array().size()) + " entries; at most " + std::to_string(most) + " are allowed");
  } else {
    for (std::size_t i = 0; i < stop->get_array().size() && !problem; ++i) add(stop->get_array()[i], element(fields.path("stop"), i));
  }
  return out;
}

}  // namespace hearth::wire
