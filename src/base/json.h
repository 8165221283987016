// JSON as every protocol needs it: strict where a lenient parser lets two readers see two different documents (duplicate keys, broken
// UTF-8, trailing text), and with errors that say where.
#pragma once

#include <boost/json.hpp>
#include <string>
#include <string_view>

#include "base/result.h"

namespace hearth {

namespace json = boost::json;

// Deepest nesting accepted, in levels. Tool schemas of real clients stay below 20.
inline constexpr std::size_t json_max_depth = 64;

// Parses one whole document. invalid_request with the byte offset on bad syntax, broken UTF-8, trailing text, too deep nesting; and on a
// duplicate key, which is named.
Result<json::value> parse_json(std::string_view text);

// Appends `text` to `out` as a JSON string with its quotes. Bytes that are not UTF-8 become U+FFFD.
void append_json_string(std::string& out, std::string_view text);
// Appends `value` as compact JSON, keys in their order and numbers as people write them (2.5, where Boost writes 2.5E0): models read such text.
void append_json(std::string& out, const json::value& value);

}  // namespace hearth
