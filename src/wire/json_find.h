// Reading other programs' JSON, where what is missing or of another type is simply not there. Private to wire.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "base/json.h"
#include "base/result.h"

namespace hearth::wire {

// A field of any type that is not null.
inline const json::value* find(const json::object& object, std::string_view key) {
  const json::value* value = object.if_contains(key);
  return value == nullptr || value->is_null() ? nullptr : value;
}

inline const json::object* find_object(const json::object& object, std::string_view key) {
  const json::value* value = find(object, key);
  return value == nullptr ? nullptr : value->if_object();
}

inline const json::array* find_array(const json::object& object, std::string_view key) {
  const json::value* value = find(object, key);
  return value == nullptr ? nullptr : value->if_array();
}

inline std::string_view find_text(const json::object& object, std::string_view key) {
  const json::value* value = find(object, key);
  const json::string* text = value == nullptr ? nullptr : value->if_string();
  return text == nullptr ? std::string_view() : std::string_view(text->data(), text->size());
}

inline std::optional<std::int64_t> find_integer(const json::object& object, std::string_view key) {
  const json::value* value = find(object, key);
  if (value == nullptr || !value->is_int64()) return {};
  return value->get_int64();
}

inline int find_count(const json::object& object, std::string_view key) {
  const std::int64_t count = find_integer(object, key).value_or(0);
  return static_cast<int>(std::clamp<std::int64_t>(count, 0, std::numeric_limits<int>::max()));
}

inline float to_float(const json::value* value) {
  if (value == nullptr || !value->is_number()) return std::nanf("");
  return static_cast<float>(value->to_number<double>());
}

inline std::size_t count_members(const json::value& value) {
  std::size_t out = 0;
  if (const auto* object = value.if_object()) {
    out = object->size();
    for (const auto& [key, item] : *object) out += count_members(item);
  } else if (const auto* array = value.if_array()) {
    for (const auto& item : *array) out += count_members(item);
  }
  return out;
}

// Whether an object in `text`, valid JSON that was read as `document`, names a member twice: another reader could take the other one.
inline bool names_twice(std::string_view text, const json::value& document) {
  std::size_t named = 0;
  bool quoted = false;
  for (std::size_t at = 0; at < text.size(); ++at) {
    const char c = text[at];
    if (c == '"') quoted = !quoted;
    else if (quoted && c == '\\') ++at;
    else if (!quoted && c == ':') ++named;
  }
  return named != count_members(document);
}

// Whether `object` has nothing under other names than these, apart from nulls.
inline bool has_only(const json::object& object, std::initializer_list<std::string_view> names) {
  return std::all_of(object.begin(), object.end(), [&](const auto& member) {
    return member.value().is_null() || std::find(names.begin(), names.end(), std::string_view(member.key())) != names.end();
  });
}
// The same, but plain values may have any name.
inline bool has_only_structures(const json::object& object, std::initializer_list<std::string_view> names) {
  return std::all_of(object.begin(), object.end(), [&](const auto& member) {
    return !member.value().is_structured() || std::find(names.begin(), names.end(), std::string_view(member.key())) != names.end();
  });
}

// What an upstream said that cannot be its answer.
inline Error nonsense(std::string what) {
  return {ErrorCode::upstream_failed, "the upstream's answer makes no sense: " + std::move(what), "", {}};
}

// An upstream's whole document: an object.
inline Result<json::value> parse_answer(std::string_view body) {
  auto document = parse_json(body);
  if (!document) return nonsense(document.error().message);
  if (!document->is_object()) return nonsense("it is not a JSON object");
  return document;
}

}  // namespace hearth::wire
