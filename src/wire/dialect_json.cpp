#include "wire/dialect_json.h"

#include "base/json.h"

namespace hearth::wire {
namespace {

constexpr std::size_t max_held_space = 256;  // after a comma; more and the comma goes out unmended
static_assert(json_max_depth <= 64, "JsonStream keeps a bit per level");

bool is_space(char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_hex(char c) { return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }
std::uint32_t hex_digit(char c) { return static_cast<std::uint32_t>(is_digit(c) ? c - '0' : (c | 0x20) - 'a' + 10); }
bool is_high_surrogate(std::uint32_t unit) { return unit >= 0xD800 && unit < 0xDC00; }
bool is_low_surrogate(std::uint32_t unit) { return unit >= 0xDC00 && unit < 0xE000; }
bool is_plain(char c) { return c != '"' && c != '\\' && static_cast<unsigned char>(c) >= 0x20; }

void append_utf8(std::string& out, std::uint32_t code) {
  const auto tail = [&](int shift) { out += static_cast<char>(0x80 | ((code >> shift) & 0x3F)); };
  if (code < 0x80) {
    out += static_cast<char>(code);
  } else if (code < 0x800) {
    out += static_cast<char>(0xC0 | (code >> 6));
    tail(0);
  } else if (code < 0x10000) {
    out += static_cast<char>(0xE0 | (code >> 12));
    tail(6), tail(0);
  } else {
    out += static_cast<char>(0xF0 | (code >> 18));
    tail(12), tail(6), tail(0);
  }
}

}  // namespace

void append_json_escaped(std::string& out, char c) {
  static constexpr char hex[] = "0123456789abcdef";
  switch (c) {
    case '"': out += "\\\""; break;
    case '\\': out += "\\\\"; break;
    case '\n': out += "\\n"; break;
    case '\r': out += "\\r"; break;
    case '\t': out += "\\t"; break;
    default:
      if (static_cast<unsigned char>(c) >= 0x20) {
        out += c;
      } else {
        out += "\\u00";
        out += hex[static_cast<unsigned char>(c) >> 4];
        out += hex[static_cast<unsigned char>(c) & 15];
      }
  }
}

std::size_t JsonStream::feed(std::string_view in, std::string& out) {
  std::size_t i = 0;
  while (i < in.size() && state_ == State::open) {
    const char c = in[i];
    switch (at_) {
      case At::string: {
        if (after_high_ && c != '\\') {
          state_ = State::broken;
          break;
        }
        std::size_t end = i;
        while (end < in.size() && is_plain(in[end])) ++end;
        out.append(in.substr(i, end - i));
        i = end;
        if (i == in.size()) break;
        ++i;
        if (in[end] == '"') {
          out += '"';
          if (key_string_) at_ = At::colon;
          else end_value();
        } else if (in[end] == '\\') {
          out += '\\';
          at_ = At::escape;
        } else {
          append_json_escaped(out, in[end]);
          mended_ = "a raw control character in a string";
        }
        break;
      }
      case At::escape:
        if (std::string_view("\"\\/bfnrtu").find(c) == std::string_view::npos || (after_high_ && c != 'u')) {
          state_ = State::broken;
          break;
        }
        out += c;
        ++i;
        hex_left_ = 4;
        unit_ = 0;
        at_ = c == 'u' ? At::hex : At::string;
        break;
      case At::hex:
        if (is_hex(c)) unit_ = unit_ * 16 + hex_digit(c);
        if (!is_hex(c) || (hex_left_ == 1 && is_low_surrogate(unit_) != after_high_)) {
          state_ = State::broken;
          break;
        }
        out += c;
        ++i;
        if (--hex_left_ == 0) {
          at_ = At::string;
          after_high_ = is_high_surrogate(unit_);
        }
        break;
      case At::number:
        if (number_goes_on(c)) {
          out += c;
          ++i;
        } else if (number_whole()) {
          end_value();
        } else {
          state_ = State::broken;
        }
        break;
      case At::literal:
        if (c != literal_.front()) {
          state_ = State::broken;
          break;
        }
        out += c;
        ++i;
        literal_.remove_prefix(1);
        if (literal_.empty()) end_value();
        break;
      default:
        if (is_space(c)) {
          (comma_.empty() ? out : comma_) += c;
          if (comma_.size() > max_held_space) commit_comma(out);
          ++i;
          break;
        }
        begin_value(c, out);
        if (state_ != State::broken) ++i;
    }
  }
  if (state_ == State::broken) commit_comma(out);
  return i;
}

// A byte between the scalars: brackets, commas, colons, and the first byte of anything.
void JsonStream::begin_value(char c, std::string& out) {
  const bool closes = c == (in_object() ? '}' : ']') && depth_ > 0;
  switch (at_) {
    case At::colon:
      if (c == ':') {
        out += c;
        at_ = At::value;
      } else {
        state_ = State::broken;
      }
      return;
    case At::after_value:
      if (c == ',') {
        comma_ = ",";
        at_ = in_object() ? At::key : At::value;
      } else if (closes) {
        close_bracket(out);
      } else {
        state_ = State::broken;
      }
      return;
    case At::key:
    case At::key_or_end:
      if (c == '"') {
        commit_comma(out);
        out += c;
        key_string_ = true;
        at_ = At::string;
      } else if (closes && (at_ == At::key_or_end || !comma_.empty())) {
        close_bracket(out);
      } else {
        state_ = State::broken;
      }
      return;
    default: break;
  }
  if (closes && (at_ == At::value_or_end || !comma_.empty())) return close_bracket(out);
  if (depth_ == 0 && accept_ == Accept::object && c != '{') {
    state_ = State::broken;
    return;
  }
  if ((c == '{' || c == '[') && depth_ == static_cast<int>(json_max_depth)) {
    state_ = State::broken;
    return;
  }
  commit_comma(out);
  switch (c) {
    case '{':
    case '[':
      objects_ &= ~(std::uint64_t{1} << depth_);
      objects_ |= std::uint64_t{c == '{'} << depth_;
      ++depth_;
      at_ = c == '{' ? At::key_or_end : At::value_or_end;
      break;
    case '"':
      key_string_ = false;
      at_ = At::string;
      break;
    case 't': literal_ = "rue", at_ = At::literal; break;
    case 'f': literal_ = "alse", at_ = At::literal; break;
    case 'n': literal_ = "ull", at_ = At::literal; break;
    default:
      if (c != '-' && !is_digit(c)) {
        state_ = State::broken;
        return;
      }
      number_ = c == '-' ? Number::minus : c == '0' ? Number::zero : Number::integer;
      at_ = At::number;
  }
  out += c;
}

void JsonStream::end_value() {
  at_ = At::after_value;
  if (depth_ == 0) state_ = State::done;
}

void JsonStream::close_bracket(std::string& out) {
  if (!comma_.empty()) {
    out.append(comma_, 1);  // the space after the comma that goes
    comma_.clear();
    mended_ = "a trailing comma";
  }
  out += in_object() ? '}' : ']';
  --depth_;
  end_value();
}

void JsonStream::commit_comma(std::string& out) {
  out += comma_;
  comma_.clear();
}

bool JsonStream::number_goes_on(char c) {
  const auto to = [this](Number next) {
    number_ = next;
    return true;
  };
  const bool digit = is_digit(c);
  switch (number_) {
    case Number::minus: return digit && to(c == '0' ? Number::zero : Number::integer);
    case Number::integer:
      if (digit) return true;
      [[fallthrough]];
    case Number::zero:
      if (c == '.') return to(Number::dot);
      return (c == 'e' || c == 'E') && to(Number::e);
    case Number::dot: return digit && to(Number::fraction);
    case Number::fraction: return digit || ((c == 'e' || c == 'E') && to(Number::e));
    case Number::e: return (digit && to(Number::exponent)) || ((c == '+' || c == '-') && to(Number::e_sign));
    case Number::e_sign: return digit && to(Number::exponent);
    case Number::exponent: return digit;
  }
  return false;
}

bool JsonStream::number_whole() const {
  return number_ == Number::zero || number_ == Number::integer || number_ == Number::fraction || number_ == Number::exponent;
}

bool JsonStream::close(std::string& out) {
  if (state_ != State::open) return state_ == State::done;
  const bool between = at_ == At::after_value || at_ == At::key_or_end || at_ == At::value_or_end;
  if (depth_ == 0 || !between) return false;
  while (state_ == State::open) close_bracket(out);
  mended_ = "closing brackets were missing";
  return true;
}

void JsonUnescape::append(std::uint32_t unit, std::string& out) {
  if (high_ != 0 && is_low_surrogate(unit)) {
    append_utf8(out, 0x10000 + ((high_ - 0xD800) << 10) + (unit - 0xDC00));
    high_ = 0;
    return;
  }
  settle(out);
  if (is_high_surrogate(unit)) high_ = unit;
  else append_utf8(out, is_low_surrogate(unit) ? 0xFFFD : unit);
}

void JsonUnescape::settle(std::string& out) {
  if (high_ != 0) append_utf8(out, 0xFFFD);
  high_ = 0;
}

JsonUnescape::Step JsonUnescape::push(char c, std::string& out) {
  if (at_ != At::plain) escape_ += c;
  switch (at_) {
    case At::plain:
      if (c == '\\') {
        at_ = At::escape;
        escape_ = "\\";
        return Step::more;
      }
      settle(out);
      if (c == '"') return Step::end;
      out += c;
      return Step::more;
    case At::escape: {
      at_ = At::plain;
      if (c == 'u') {
        at_ = At::hex;
        digits_ = 0;
        unit_ = 0;
        return Step::more;
      }
      static constexpr std::string_view names = "\"\\/bfnrt", bytes = "\"\\/\b\f\n\r\t";
      const std::size_t which = names.find(c);
      if (which == std::string_view::npos) return Step::broken;
      settle(out);
      out += bytes[which];
      return Step::more;
    }
    case At::hex:
      if (!is_hex(c)) return Step::broken;
      unit_ = unit_ * 16 + hex_digit(c);
      if (++digits_ == 4) {
        at_ = At::plain;
        append(unit_, out);
      }
      return Step::more;
  }
  return Step::broken;
}

}  // namespace hearth::wire
