// Writing JSON by appending text: answers are built for every token, requests for every hop. Private to wire.
#pragma once

#include <charconv>
#include <cmath>
#include <optional>
#include <string>
#include <string_view>

#include "base/json.h"

namespace hearth::wire {

template <class Int>
void append_int(std::string& out, Int number) {
  char digits[24];
  const auto end = std::to_chars(digits, digits + sizeof digits, number).ptr;
  out.append(digits, end);
}

// JSON has no infinities: the public API writes -9999 for a probability of 0.
inline void append_float(std::string& out, float number) {
  if (std::isnan(number)) {
    out += "null";
    return;
  }
  if (std::isinf(number)) number = number < 0 ? -9999.0F : 9999.0F;
  char digits[32];
  const auto end = std::to_chars(digits, digits + sizeof digits, number).ptr;
  out.append(digits, end);
}

// "key":"text"
inline void append_field(std::string& out, std::string_view key, std::string_view text) {
  out += '"';
  out += key;
  out += "\":";
  append_json_string(out, text);
}

// A JSON object written field by field.
class ObjectWriter {
 public:
  explicit ObjectWriter(std::string& out) : out_(out) { out_ += '{'; }
  void close() { out_ += '}'; }
  std::string& key(std::string_view key) {
    if (!first_) out_ += ',';
    first_ = false;
    out_ += '"';
    out_ += key;
    out_ += "\":";
    return out_;
  }
  void text(std::string_view name, std::string_view value) { append_json_string(key(name), value); }
  void json(std::string_view name, std::string_view value) { key(name) += value; }
  template <class Number>
  void number(std::string_view name, Number value) {
    char digits[32];
    const auto end = std::to_chars(digits, digits + sizeof digits, value).ptr;
    key(name).append(digits, end);
  }
  template <class Number>
  void number(std::string_view name, const std::optional<Number>& value) {
    if (value) number(name, *value);
  }
  void yes(std::string_view name, bool value) {
    if (value) json(name, "true");
  }

 private:
  std::string& out_;
  bool first_ = true;
};

template <class List, class Item>
void append_list(std::string& out, const List& list, Item item) {
  out += '[';
  bool first = true;
  for (const auto& entry : list) {
    if (!first) out += ',';
    first = false;
    item(entry);
  }
  out += ']';
}

}  // namespace hearth::wire
