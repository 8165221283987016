// Parts of a request that several protocols write alike. Private to wire.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "chat/request.h"
#include "wire/fields.h"

namespace hearth::wire {

inline constexpr std::int64_t max_int = std::numeric_limits<std::int32_t>::max();

// The image behind a data: or http(s) URL. `at` names the field it stands in.
chat::ContentPart image_of_url(std::string url, const std::string& at, Problem& problem);

// {"name", "description", "parameters", "strict"}. `name_advice` is for whoever left the name out.
chat::ToolSpec function_tool(const Fields& fields, const std::string& name_advice = "give the tool's name");

// tool_choice as OpenAI's APIs write it: "auto", "none", "required" or an object that names a tool, whose own form differs and is what `forms` ends with.
// Reads the first three into `out`; returns the object, if it is one. `no_tools` completes 'is "required", but …'.
const json::object* read_tool_choice(const Fields& request, const std::string& forms, const char* no_tools,
                                     const std::vector<chat::ToolSpec>& tools, chat::ToolChoice& out);

// A choice of one tool must name one that is offered: `key` holds the name.
void check_offered(const Fields& choice, std::string_view key, const std::string& name, const std::vector<chat::ToolSpec>& tools);

std::optional<std::uint32_t> read_seed(const Fields& fields);
// `stop`: a string or a list of strings.
std::vector<std::string> read_stop(const Fields& fields, Problem& problem);

}  // namespace hearth::wire
