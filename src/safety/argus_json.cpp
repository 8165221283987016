#include "safety/argus_json.h"

namespace hearth::safety::argus {
namespace {

constexpr std::size_t deepest = 512;

bool is_json_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }
int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

class Reader {
 public:
  Reader(std::string_view json, std::vector<JsonString>& strings) : json_(json), strings_(strings) {}

  bool document() {
    // What is open: '{' or '['. A value, a key or the end is expected next.
    std::string open;
    enum class Next { value, key_or_end, key, value_or_end, separator } next = Next::value;
    for (;;) {
      skip();
      if (next == Next::separator) {
        if (open.empty()) return at_ == json_.size();
        if (at_ >= json_.size()) return false;
        const char c = json_[at_++];
        if (c == ',') {
          next = open.back() == '{' ? Next::key : Next::value;
        } else if (c == (open.back() == '{' ? '}' : ']')) {
          open.pop_back();
        } else {
          return false;
        }
        continue;
      }
      if (at_ >= json_.size()) return false;
      const char c = json_[at_];
      if (next == Next::key || next == Next::key_or_end) {
        if (c == '}' && next == Next::key_or_end) {
          ++at_;
          open.pop_back();
          next = Next::separator;
          continue;
        }
        if (c != '"' || !string(true)) return false;
        skip();
        if (at_ >= json_.size() || json_[at_++] != ':') return false;
        next = Next::value;
        continue;
      }
      if (c == ']' && next == Next::value_or_end) {
        ++at_;
        open.pop_back();
        next = Next::separator;
        continue;
      }
      if (c == '{' || c == '[') {
        if (open.size() >= deepest) return false;
        open += c;
        ++at_;
        next = c == '{' ? Next::key_or_end : Next::value_or_end;
        continue;
      }
      if (!(c == '"' ? string(false) : c == '-' || (c >= '0' && c <= '9') ? number() : word())) return false;
      next = Next::separator;
    }
  }

 private:
  void skip() {
    while (at_ < json_.size() && is_json_space(json_[at_])) ++at_;
  }
  bool string(bool key) {
    const std::size_t begin = ++at_;
    for (; at_ < json_.size(); ++at_) {
      const char c = json_[at_];
      if (static_cast<unsigned char>(c) < 0x20) return false;
      if (c == '"') {
        strings_.push_back({.begin = begin, .end = at_, .key = key});
        ++at_;
        return true;
      }
      if (c != '\\') continue;
      if (++at_ >= json_.size()) return false;
      const char kind = json_[at_];
      if (kind == 'u') {
        for (int i = 0; i < 4; ++i) {
          if (++at_ >= json_.size() || hex_value(json_[at_]) < 0) return false;
        }
      } else if (std::string_view("\"\\/bfnrt").find(kind) == std::string_view::npos) {
        return false;
      }
    }
    return false;
  }
  bool number() {
    const std::size_t begin = at_;
    const auto digits = [this] {
      const std::size_t from = at_;
      while (at_ < json_.size() && json_[at_] >= '0' && json_[at_] <= '9') ++at_;
      return at_ > from;
    };
    if (json_[at_] == '-') ++at_;
    if (!digits()) return false;
    if (at_ < json_.size() && json_[at_] == '.' && (++at_, !digits())) return false;
    if (at_ < json_.size() && (json_[at_] == 'e' || json_[at_] == 'E')) {
      ++at_;
      if (at_ < json_.size() && (json_[at_] == '+' || json_[at_] == '-')) ++at_;
      if (!digits()) return false;
    }
    strings_.push_back({.begin = begin, .end = at_, .number = true});
    return true;
  }
  bool word() {
    for (const std::string_view known : {"true", "false", "null"}) {
      if (json_.substr(at_, known.size()) == known) {
        at_ += known.size();
        return true;
      }
    }
    return false;
  }

  std::string_view json_;
  std::vector<JsonString>& strings_;
  std::size_t at_ = 0;
};

class Builder {
 public:
  explicit Builder(const View& document) : json_(document.text) {
    result_.view.parent = &document;
    result_.view.depth = document.depth + 1;
  }
  void add(const JsonString& string, std::string_view before) {
    put(string.begin, string.begin, before, Wrapping::structure);
    const auto begin = static_cast<std::uint32_t>(text().size());
    std::size_t copied = string.begin;
    std::string meaning;
    for (std::size_t at = string.begin; at < string.end;) {
      if (json_[at] != '\\') {
        ++at;
        continue;
      }
      text().append(json_.substr(copied, at - copied));
      meaning.clear();
      const std::size_t length = escape(at, string.end, meaning);
      put(at, at + length, meaning, length > 2 ? Wrapping::escape : Wrapping::structure);
      copied = at += length;
    }
    text().append(json_.substr(copied, string.end - copied));
    result_.places.push_back({begin, static_cast<std::uint32_t>(text().size())});
  }
  JsonView finish() { return std::move(result_); }

 private:
  std::string& text() { return result_.view.storage; }
  void put(std::size_t begin, std::size_t end, std::string_view with, Wrapping wrapping) {
    const auto out = static_cast<std::uint32_t>(text().size());
    text().append(with);
    result_.view.pieces.push_back(
        {out, static_cast<std::uint32_t>(text().size()), static_cast<std::uint32_t>(begin), static_cast<std::uint32_t>(end), wrapping});
  }
  // Length of the escape at `at`, which is well-formed, and what it means.
  std::size_t escape(std::size_t at, std::size_t end, std::string& meaning) const {
    switch (json_[at + 1]) {
      case 'n': meaning = "\n"; return 2;
      case 'r': meaning = "\r"; return 2;
      case 't': meaning = "\t"; return 2;
      case 'b': meaning = "\b"; return 2;
      case 'f': meaning = "\f"; return 2;
      case 'u': break;
      default: meaning.assign(1, json_[at + 1]); return 2;
    }
    const auto unit = [this](std::size_t from) {
      char32_t value = 0;
      for (std::size_t i = 0; i < 4; ++i) value = value * 16 + static_cast<char32_t>(hex_value(json_[from + i]));
      return value;
    };
    char32_t character = unit(at + 2);
    std::size_t length = 6;
    if (character >= 0xD800 && character < 0xDC00 && at + 12 <= end && json_[at + 6] == '\\' && json_[at + 7] == 'u') {
      const char32_t low = unit(at + 8);
      if (low >= 0xDC00 && low < 0xE000) character = 0x10000 + ((character - 0xD800) << 10) + (low - 0xDC00), length = 12;
    }
    append_utf8(meaning, character);
    return length;
  }

  std::string_view json_;
  JsonView result_;
};

}  // namespace

bool read_json_strings(std::string_view json, std::vector<JsonString>& strings) {
  strings.clear();
  return Reader(json, strings).document();
}

JsonView json_lines(const View& document, const std::vector<JsonString>& strings) {
  Builder builder(document);
  const char* before = "";
  for (const auto& string : strings) {
    builder.add(string, before);
    before = string.key ? ":\f" : "\n";
  }
  return builder.finish();
}

JsonView json_joined(const View& document, const std::vector<JsonString>& strings, bool keys, std::size_t run) {
  std::vector<const JsonString*> chosen;
  for (const auto& string : strings) {
    if (!string.number && (keys || !string.key) && string.end > string.begin) chosen.push_back(&string);
  }
  Builder builder(document);
  if (run > 0 && chosen.size() <= run) return builder.finish();  // all of them: they are one
  if (run == 0) run = chosen.size();
  for (std::size_t first = 0; first + run <= chosen.size() && run > 1; ++first) {
    for (std::size_t i = 0; i < run; ++i) builder.add(*chosen[first + i], i == 0 && first > 0 ? "\n" : "");
  }
  return builder.finish();
}

}  // namespace hearth::safety::argus
