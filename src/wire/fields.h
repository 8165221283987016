// Reading requests: each protocol's decoder takes its fields through here, so that every wrong one gets a message that names it (param) and says what
// would be right, and reading stops at the first. Private to wire.
#pragma once

#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "base/json.h"
#include "base/result.h"

namespace hearth::wire {

// As it stands in a message: in quotes, cut when long.
inline std::string quoted(std::string_view text) {
  // Long values are cut: the message is for people, and travels in logs.
  constexpr std::size_t longest = 64;
  std::string out;
  append_json_string(out, text.substr(0, longest));
  if (text.size() > longest) out.insert(out.size() - 1, "...");
  return out;
}

inline std::string describe(const json::value& value) {
  switch (value.kind()) {
    case json::kind::null: return "null";
    case json::kind::bool_: return value.get_bool() ? "true" : "false";
    case json::kind::string: return quoted(value.get_string());
    case json::kind::array: return "a list";
    case json::kind::object: return "an object";
    default: return json::serialize(value);
  }
}

inline std::string element(const std::string& path, std::size_t index) { return path + "[" + std::to_string(index) + "]"; }

// The first thing that was wrong. Readers stop reading once it is set, so it is checked once, at the end.
struct Problem {
  std::optional<Error> error;
  explicit operator bool() const { return error.has_value(); }
  void set(std::string param, const std::string& what, ErrorCode code = ErrorCode::invalid_request) {
    if (error) return;
    std::string message = param.empty() ? "the request " + what : param + " " + what;
    error = Error{code, std::move(message), std::move(param)};
  }
};

// An object's fields. Absent and null are the same: SDKs send null for what the user left out.
class Fields {
 public:
  Fields(const json::object& object, std::string path, Problem& problem) : object_(object), path_(std::move(path)), problem_(problem) {}

  std::string path(std::string_view key) const { return path_.empty() ? std::string(key) : path_ + "." + std::string(key); }

  const json::value* find(std::string_view key) const {
    if (problem_) return nullptr;
    const json::value* value = object_.if_contains(key);
    return value == nullptr || value->is_null() ? nullptr : value;
  }
  const json::value* need(std::string_view key, const std::string& advice) const {
    const json::value* value = find(key);
    if (value == nullptr) problem_.set(path(key), "is missing; " + advice);
    return value;
  }
  void wrong(std::string_view key, const std::string& what, ErrorCode code = ErrorCode::invalid_request) const {
    problem_.set(path(key), what, code);
  }

  const json::string* string(std::string_view key) const {
    const json::value* value = find(key);
    if (value == nullptr) return nullptr;
    if (!value->is_string()) wrong(key, "must be a string, not " + describe(*value));
    return value->if_string();
  }
  std::string text(std::string_view key) const {
    const json::string* value = string(key);
    return value == nullptr ? std::string() : std::string(value->data(), value->size());
  }
  std::optional<bool> boolean(std::string_view key) const {
    const json::value* value = find(key);
    if (value == nullptr) return {};
    if (!value->is_bool()) {
      wrong(key, "must be true or false, not " + describe(*value));
      return {};
    }
    return value->get_bool();
  }
  std::optional<int> integer(std::string_view key, std::int64_t least, std::int64_t most) const {
    const json::value* value = find(key);
    if (value == nullptr) return {};
    if (!value->is_int64() || value->get_int64() < least || value->get_int64() > most) {
      wrong(key, "must be an integer from " + std::to_string(least) + " to " + std::to_string(most) + ", not " + describe(*value));
      return {};
    }
    return static_cast<int>(value->get_int64());
  }
  // `above`: the lower end itself is not allowed.
  std::optional<float> real(std::string_view key, int least, int most, bool above = false) const {
    const json::value* value = find(key);
    if (value == nullptr) return {};
    // Compared as the float it becomes: 1e-60 is 0 there.
    const float number = value->is_number() ? static_cast<float>(value->to_number<double>()) : std::nanf("");
    if (!(number >= static_cast<float>(least) && number <= static_cast<float>(most)) || (above && number == static_cast<float>(least))) {
      wrong(key, "must be a number " + std::string(above ? "above " : "from ") + std::to_string(least) + (above ? ", at most " : " to ") +
                     std::to_string(most) + ", not " + describe(*value));
      return {};
    }
    return number;
  }
  const json::array* array(std::string_view key) const {
    const json::value* value = find(key);
    if (value == nullptr) return nullptr;
    if (!value->is_array()) wrong(key, "must be a list, not " + describe(*value));
    return value->if_array();
  }
  const json::object* object(std::string_view key) const {
    const json::value* value = find(key);
    if (value == nullptr) return nullptr;
    if (!value->is_object()) wrong(key, "must be an object, not " + describe(*value));
    return value->if_object();
  }

 private:
  const json::object& object_;
  std::string path_;
  Problem& problem_;
};

inline std::string to_std(const json::string& text) { return std::string(text.data(), text.size()); }

// Parses, hands the fields to `read`, and answers with what it read or with the first problem.
template <class Read>
auto decode_document(std::string_view body, Read read) -> Result<decltype(read(std::declval<const Fields&>(), std::declval<Problem&>()))> {
  auto document = parse_json(body);
  if (!document) return std::move(document).error();
  if (!document->is_object()) return invalid("the body must be a JSON object, not " + describe(*document));
  Problem problem;
  auto out = read(Fields(document->get_object(), "", problem), problem);
  if (problem) return std::move(*problem.error);
  return out;
}

}  // namespace hearth::wire
