#include "net/framing.h"

#include <algorithm>
#include <array>
#include <string>

#include "net/http.h"

namespace hearth::net {

namespace {

// RFC 9110 5.6.2.
constexpr std::array<bool, 256> make_token_table() {
  std::array<bool, 256> table{};
  for (int c = '0'; c <= '9'; ++c) table[static_cast<std::size_t>(c)] = true;
  for (int c = 'a'; c <= 'z'; ++c) table[static_cast<std::size_t>(c)] = true;
  for (int c = 'A'; c <= 'Z'; ++c) table[static_cast<std::size_t>(c)] = true;
  for (const char c : std::string_view("!#$%&'*+-.^_`|~")) table[static_cast<unsigned char>(c)] = true;
  return table;
}
constexpr auto token_table = make_token_table();

bool is_token(std::string_view text) { return !text.empty() && std::all_of(text.begin(), text.end(), is_token_char); }

bool is_control(char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }

std::string_view trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

// What has been seen of the fields that decide where the message ends and whom it is for.
struct Seen {
  bool version_1_0 = false;
  int hosts = 0;
  int lengths = 0;
  int encodings = 0;
};

Result<void> check_request_line(std::string_view line, Seen& seen) {
  const auto first = line.find(' ');
  const auto last = line.rfind(' ');
  if (first == std::string_view::npos || first == last) {
    return invalid("malformed request line: it must be METHOD, one space, target, one space, HTTP/1.1");
  }
  if (!is_token(line.substr(0, first))) return invalid("malformed request line: the method is not a token");
  const auto target = line.substr(first + 1, last - first - 1);
  const auto plain = [](char c) { return static_cast<unsigned char>(c) > 0x20 && static_cast<unsigned char>(c) < 0x7f; };
  if (target.empty() || !std::all_of(target.begin(), target.end(), plain)) {
    return invalid("malformed request target: spaces, control characters and non-ASCII bytes must be percent-encoded");
  }
  const auto version = line.substr(last + 1);
  if (version != "HTTP/1.1" && version != "HTTP/1.0") return invalid("unsupported HTTP version: use HTTP/1.1 or HTTP/1.0");
  seen.version_1_0 = version == "HTTP/1.0";
  return {};
}

Result<void> check_field(std::string_view line, Seen& seen) {
  if (line.front() == ' ' || line.front() == '\t') return invalid("folded header line: a field must stand on one line");
  const auto colon = line.find(':');
  if (colon == std::string_view::npos) return invalid("header line without a colon");
  const auto name = line.substr(0, colon);
  if (name.empty()) return invalid("empty header field name");
  if (name.back() == ' ' || name.back() == '\t') return invalid("space before the colon of a header field");
  if (!is_token(name)) return invalid("header field name is not a token");
  const auto value = trim(line.substr(colon + 1));
  if (std::any_of(value.begin(), value.end(), [](char c) { return is_control(c) && c != '\t'; })) {
    return invalid("control character in a header field value");
  }
  if (same_field_name(name, "host")) {
    if (++seen.hosts > 1) return invalid("repeated Host header: exactly one is allowed");
    if (value.find_first_of(" \t,/\\?#@") != std::string_view::npos) return invalid("malformed Host header: it must be host or host:port");
  } else if (same_field_name(name, "content-length")) {
    if (++seen.lengths > 1) return invalid("repeated Content-Length header");
    if (value.empty() || !std::all_of(value.begin(), value.end(), [](char c) { return c >= '0' && c <= '9'; })) {
      return invalid("Content-Length must be one decimal number");
    }
    constexpr std::string_view largest = "9223372036854775807";  // 2^63 - 1
    const auto digits = value.substr(std::min(value.find_first_not_of('0'), value.size()));
    if (digits.size() > largest.size() || (digits.size() == largest.size() && digits > largest)) {
      return invalid("Content-Length is too large: it must be below 2^63");
    }
  } else if (same_field_name(name, "transfer-encoding")) {
    if (++seen.encodings > 1) return invalid("repeated Transfer-Encoding header");
    if (!same_field_name(value, "chunked")) return invalid("Transfer-Encoding must be exactly \"chunked\"");
  }
  return {};
}

}  // namespace

bool is_token_char(char c) { return token_table[static_cast<unsigned char>(c)]; }

Result<void> check_request_framing(std::string_view block) {
  Seen seen;
  bool first = true;
  for (;;) {
    const auto end = block.find('\n');
    const auto line_with_cr = block.substr(0, end);
    if (end == std::string_view::npos) return invalid("the header block does not end with an empty line");
    if (line_with_cr.empty() || line_with_cr.back() != '\r') return invalid("bare LF in the header: lines end with CRLF");
    const auto line = line_with_cr.substr(0, line_with_cr.size() - 1);
    if (line.find('\r') != std::string_view::npos) return invalid("bare CR in the header: lines end with CRLF");
    block.remove_prefix(end + 1);
    if (line.empty() && !first) break;
    const auto checked = first ? check_request_line(line, seen) : check_field(line, seen);
    if (!checked) return checked;
    first = false;
  }
  if (!block.empty()) return invalid("bytes after the empty line that ends the header block");
  if (!seen.version_1_0 && seen.hosts == 0) return invalid("missing Host header: HTTP/1.1 requires one");
  if (seen.encodings > 0 && seen.version_1_0) return invalid("Transfer-Encoding is not allowed on HTTP/1.0");
  if (seen.encodings > 0 && seen.lengths > 0) return invalid("Transfer-Encoding beside Content-Length: send one of them");
  return {};
}

}  // namespace hearth::net
