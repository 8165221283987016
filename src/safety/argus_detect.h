// What the detectors of layer 5 share: what they report, and small readers of text around a place.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "safety/argus.h"
#include "safety/argus_text.h"

namespace hearth::safety::argus {

// A match in one view.
struct Hit {
  Spill kind = Spill::secret;
  std::string detector;
  Span span;
  Span reach;  // what the decision looked at: the name of the key too. A hit whose reach was not undone is one of the parent's
  std::string level;
  double confidence = 1;
};
using Hits = std::vector<Hit>;

constexpr bool is_digit(char c) { return c >= '0' && c <= '9'; }
constexpr bool is_upper(char c) { return c >= 'A' && c <= 'Z'; }
constexpr bool is_lower(char c) { return c >= 'a' && c <= 'z'; }
constexpr bool is_letter(char c) { return is_upper(c) || is_lower(c); }
constexpr bool is_alnum(char c) { return is_letter(c) || is_digit(c); }
constexpr bool is_word(char c) { return is_alnum(c) || c == '_'; }
constexpr bool is_blank(char c) { return c == ' ' || c == '\t'; }
// '\f' stands between a key and its value where a JSON document is read as text.
constexpr bool is_space(char c) { return is_blank(c) || c == '\n' || c == '\r' || c == '\f' || c == '\v'; }
constexpr bool is_line_break(char c) { return c == '\n' || c == '\r' || c == '\f'; }
constexpr char to_lower(char c) { return is_upper(c) ? static_cast<char>(c + 32) : c; }
constexpr char to_upper(char c) { return is_lower(c) ? static_cast<char>(c - 32) : c; }

inline std::string lowered(std::string_view text) {
  std::string result(text);
  std::transform(result.begin(), result.end(), result.begin(), to_lower);
  return result;
}
// Whether `text` has `lower`, a literal in lower case, at `at`, in any case.
inline bool has_at(std::string_view text, std::size_t at, std::string_view lower) {
  if (at > text.size() || text.size() - at < lower.size()) return false;
  for (std::size_t i = 0; i < lower.size(); ++i) {
    if (to_lower(text[at + i]) != lower[i]) return false;
  }
  return true;
}
inline bool contains(std::string_view text, std::string_view lower) {
  for (std::size_t i = 0; i + lower.size() <= text.size(); ++i) {
    if (has_at(text, i, lower)) return true;
  }
  return false;
}
// Up to `before` bytes in front of `at`, and up to `after` behind it.
inline std::string_view around(std::string_view text, std::size_t at, std::size_t before, std::size_t after) {
  const std::size_t begin = at > before ? at - before : 0;
  return text.substr(begin, at - begin + after);
}

}  // namespace hearth::safety::argus
