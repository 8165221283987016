// The strings of a JSON document as text: one line a field, "key:" before its value, escapes undone, with a way back to the document's bytes. Duplicate keys are
// read like any others: what a lenient reader would see must be seen here.
#pragma once

#include <deque>
#include <vector>

#include "safety/argus_text.h"

namespace hearth::safety::argus {

struct JsonString {
  std::size_t begin = 0, end = 0;  // in the document, without the quotes
  bool key = false;
  bool number = false;  // a number, which has none
};

// All strings and numbers in order. False: not one JSON document, or nested deeper than 512 levels.
bool read_json_strings(std::string_view json, std::vector<JsonString>& strings);

enum class Joining { lines, values, strings };
// A view of `document` with its strings as `lines`, or joined without anything between: `values` alone or all `strings`.
View json_view(const View& document, const std::vector<JsonString>& strings, Joining joining);

}  // namespace hearth::safety::argus
