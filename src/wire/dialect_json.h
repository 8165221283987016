// JSON as models write it, read while it streams: every byte that can be passed on is passed on at once, and the slips that have one reading (a trailing
// comma, a raw line break inside a string) are mended on the way. Private to the dialects.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace hearth::wire {

// Appends a byte as it stands inside a JSON string.
void append_json_escaped(std::string& out, char c);

// One JSON value, byte by byte, to valid JSON text. A fixed amount of memory, whatever the value.
class JsonStream {
 public:
  enum class State { open, done, broken };
  enum class Accept { object, any };

  explicit JsonStream(Accept accept = Accept::object) : accept_(accept) {}

  // Appends what `in` makes to `out` and returns how many bytes were used: all of them, or those up to the value's end (done), or those before the
  // first byte that no reading allows (broken).
  std::size_t feed(std::string_view in, std::string& out);
  State state() const { return state_; }
  // The input is over: closes the arrays and objects still open. False, and nothing is appended, where that would have to invent or cut a value.
  bool close(std::string& out);
  // What was mended; empty when nothing was.
  std::string_view mended() const { return mended_; }

 private:
  enum class At { value, value_or_end, key, key_or_end, colon, after_value, string, escape, hex, number, literal };
  enum class Number { minus, zero, integer, dot, fraction, e, e_sign, exponent };

  void begin_value(char c, std::string& out);
  void end_value();
  void close_bracket(std::string& out);
  void commit_comma(std::string& out);
  bool number_goes_on(char c);
  bool number_whole() const;
  bool in_object() const { return depth_ > 0 && ((objects_ >> (depth_ - 1)) & 1U) != 0; }

  Accept accept_;
  State state_ = State::open;
  At at_ = At::value;
  Number number_ = Number::minus;
  bool key_string_ = false;    // the open string is a key
  std::uint32_t unit_ = 0;     // of \uXXXX, as far as it is read
  bool after_high_ = false;    // a high surrogate stands before; no JSON reader takes it alone
  int hex_left_ = 0;           // of \uXXXX
  std::string_view literal_;   // what is left of true, false or null
  std::uint64_t objects_ = 0;  // bit i: the bracket at depth i+1 is an object's
  int depth_ = 0;              //
  std::string comma_;          // a comma and the space after it, until it is known not to trail
  std::string_view mended_;
};

// The text inside a JSON string, byte by byte. Lone surrogates become U+FFFD.
class JsonUnescape {
 public:
  enum class Step { more, end, broken };
  // `c` follows the opening quote; at the closing one the answer is `end`.
  Step push(char c, std::string& out);
  // The escape being read, or the one that broke, as written.
  const std::string& escape() const { return escape_; }

 private:
  void append(std::uint32_t unit, std::string& out);
  void settle(std::string& out);

  enum class At { plain, escape, hex };
  At at_ = At::plain;
  int digits_ = 0;
  std::uint32_t unit_ = 0;
  std::string escape_;
  std::uint32_t high_ = 0;  // a high surrogate that waits for its low one
};

}  // namespace hearth::wire
