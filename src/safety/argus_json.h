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

// Where a string stands in a view.
struct JsonPlace {
  std::uint32_t begin, end;
};
struct JsonView {
  View view;  // its text views its storage once it has found its place
  std::vector<JsonPlace> places;
};
// One line a field.
JsonView json_lines(const View& document, const std::vector<JsonString>& strings);
// All strings, or all that are not keys, put together without anything between; and again each run of `run` of them on a line of its own, so that what
// begins a string begins a word (0: not).
JsonView json_joined(const View& document, const std::vector<JsonString>& strings, bool keys, std::size_t run);

}  // namespace hearth::safety::argus
