#include "base/json.h"

#include <algorithm>
#include <boost/json/basic_parser_impl.hpp>
#include <charconv>
#include <cmath>
#include <optional>
#include <utility>
#include <vector>

#include "base/utf8.h"

namespace hearth {
namespace {

// Builds the value as Boost's own parser does, and remembers the keys of the objects still open to find duplicates.
struct Handler {
  static constexpr std::size_t max_object_size = json::object::max_size();
  static constexpr std::size_t max_array_size = json::array::max_size();
  static constexpr std::size_t max_key_size = json::string::max_size();
  static constexpr std::size_t max_string_size = json::string::max_size();

  json::value_stack stack;
  std::vector<std::string> keys;  // of all open objects, innermost last
  std::vector<std::string_view> sorted;
  std::string partial_key;
  std::optional<std::string> duplicate;

  bool on_document_begin(json::error_code&) { return true; }
  bool on_document_end(json::error_code&) { return true; }
  bool on_object_begin(json::error_code&) { return true; }
  bool on_object_end(std::size_t n, json::error_code& ec) {
    sorted.assign(keys.end() - static_cast<std::ptrdiff_t>(n), keys.end());
    std::sort(sorted.begin(), sorted.end());
    if (auto it = std::adjacent_find(sorted.begin(), sorted.end()); it != sorted.end()) {
      duplicate = std::string(*it);
      ec = json::error::syntax;
      return false;
    }
    keys.resize(keys.size() - n);
    stack.push_object(n);
    return true;
  }
  bool on_array_begin(json::error_code&) { return true; }
  bool on_array_end(std::size_t n, json::error_code&) {
    stack.push_array(n);
    return true;
  }
  bool on_key_part(json::string_view s, std::size_t, json::error_code&) {
    partial_key.append(s.data(), s.size());
    stack.push_chars(s);
    return true;
  }
  bool on_key(json::string_view s, std::size_t, json::error_code&) {
    partial_key.append(s.data(), s.size());
    keys.push_back(std::move(partial_key));
    partial_key.clear();
    stack.push_key(s);
    return true;
  }
  bool on_string_part(json::string_view s, std::size_t, json::error_code&) {
    stack.push_chars(s);
    return true;
  }
  bool on_string(json::string_view s, std::size_t, json::error_code&) {
    stack.push_string(s);
    return true;
  }
  bool on_number_part(json::string_view, json::error_code&) { return true; }
  bool on_int64(std::int64_t i, json::string_view, json::error_code&) {
    stack.push_int64(i);
    return true;
  }
  bool on_uint64(std::uint64_t u, json::string_view, json::error_code&) {
    stack.push_uint64(u);
    return true;
  }
  bool on_double(double d, json::string_view, json::error_code&) {
    stack.push_double(d);
    return true;
  }
  bool on_bool(bool b, json::error_code&) {
    stack.push_bool(b);
    return true;
  }
  bool on_null(json::error_code&) {
    stack.push_null();
    return true;
  }
  bool on_comment_part(json::string_view, json::error_code&) { return true; }
  bool on_comment(json::string_view, json::error_code&) { return true; }
};

}  // namespace

Result<json::value> parse_json(std::string_view text) {
  json::parse_options options;
  options.max_depth = json_max_depth;
  json::basic_parser<Handler> parser(options);
  json::error_code ec;
  auto& handler = parser.handler();
  handler.stack.reset();
  const std::size_t used = parser.write_some(false, text.data(), text.size(), ec);
  if (handler.duplicate) { return invalid("the JSON object has the key \"" + *handler.duplicate + "\" twice; keep one of them"); }
  if (!ec && used < text.size()) ec = json::error::extra_data;
  if (ec) {
    if (ec == json::error::too_deep) { return invalid("the JSON is nested deeper than " + std::to_string(json_max_depth) + " levels"); }
    if (!is_valid_utf8(text)) return invalid("the body is not valid UTF-8; JSON must be UTF-8");
    return invalid("the body is not valid JSON: " + ec.message() + " at byte " + std::to_string(used));
  }
  return handler.stack.release();
}

void append_json_string(std::string& out, std::string_view text) {
  static constexpr char hex[] = "0123456789abcdef";
  out.push_back('"');
  std::size_t plain = 0;  // start of the run not yet copied
  std::size_t i = 0;
  auto flush = [&](std::size_t end) { out.append(text.substr(plain, end - plain)); };
  while (i < text.size()) {
    const auto c = static_cast<unsigned char>(text[i]);
    if (c >= 0x80) {
      const std::size_t n = utf8_sequence_length(text.substr(i));
      if (n == 0) {
        flush(i);
        out.append("\xEF\xBF\xBD");
        plain = ++i;
      } else {
        i += n;
      }
      continue;
    }
    if (c >= 0x20 && c != '"' && c != '\\') {
      ++i;
      continue;
    }
    flush(i);
    plain = ++i;
    switch (c) {
      case '"': out.append("\\\""); break;
      case '\\': out.append("\\\\"); break;
      case '\n': out.append("\\n"); break;
      case '\r': out.append("\\r"); break;
      case '\t': out.append("\\t"); break;
      default:
        out.append("\\u00");
        out.push_back(hex[c >> 4]);
        out.push_back(hex[c & 15]);
    }
  }
  flush(text.size());
  out.push_back('"');
}

void append_json(std::string& out, const json::value& value) {
  char digits[32];
  switch (value.kind()) {
    case json::kind::string: append_json_string(out, {value.get_string().data(), value.get_string().size()}); break;
    case json::kind::double_: {
      if (std::isinf(value.get_double())) {
        out += value.get_double() < 0 ? "-1e9999" : "1e9999";  // how it came in: beyond a double
        break;
      }
      const std::string_view text(digits,
                                  static_cast<std::size_t>(std::to_chars(digits, digits + sizeof digits, value.get_double()).ptr - digits));
      out += text;
      if (text.find_first_of(".e") == std::string_view::npos) out += ".0";  // stays a real number
      break;
    }
    case json::kind::array: {
      out += '[';
      bool first = true;
      for (const auto& item : value.get_array()) {
        if (!std::exchange(first, false)) out += ',';
        append_json(out, item);
      }
      out += ']';
      break;
    }
    case json::kind::object: {
      out += '{';
      bool first = true;
      for (const auto& [key, item] : value.get_object()) {
        if (!std::exchange(first, false)) out += ',';
        append_json_string(out, {key.data(), key.size()});
        out += ':';
        append_json(out, item);
      }
      out += '}';
      break;
    }
    default: out += json::serialize(value);
  }
}

}  // namespace hearth
