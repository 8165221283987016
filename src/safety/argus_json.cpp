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

}  // namespace

bool read_json_strings(std::string_view json, std::vector<JsonString>& strings) {
  strings.clear();
  return Reader(json, strings).document();
}

View json_view(const View& document, const std::vector<JsonString>& strings, Joining joining) {
  View view;
  view.parent = &document;
  view.depth = document.depth + 1;
  const std::string_view json = document.text;
  std::size_t copied = 0;
  const auto replace = [&](std::size_t begin, std::size_t end, std::string_view with, Wrapping wrapping) {
    view.storage.append(json.substr(copied, begin - copied));
    const auto out = static_cast<std::uint32_t>(view.storage.size());
    view.storage.append(with);
    view.pieces.push_back({out, static_cast<std::uint32_t>(view.storage.size()), static_cast<std::uint32_t>(begin),
                           static_cast<std::uint32_t>(end), wrapping});
    copied = end;
  };
  std::string meaning;
  const char* before = "";
  for (const auto& string : strings) {
    if (joining != Joining::lines && (string.number || (string.key && joining == Joining::values))) continue;
    replace(copied, string.begin, before, Wrapping::structure);
    for (std::size_t at = string.begin; at < string.end;) {
      if (json[at] != '\\') {
        ++at;
        continue;
      }
      meaning.clear();
      std::size_t length = 2;
      switch (json[at + 1]) {
        case 'n': meaning = "\n"; break;
        case 'r': meaning = "\r"; break;
        case 't': meaning = "\t"; break;
        case 'b': meaning = "\b"; break;
        case 'f': meaning = "\f"; break;
        case 'u': {
          const auto unit = [&](std::size_t from) {
            char32_t value = 0;
            for (std::size_t i = 0; i < 4; ++i) value = value * 16 + static_cast<char32_t>(hex_value(json[from + i]));
            return value;
          };
          char32_t character = unit(at + 2);
          length = 6;
          if (character >= 0xD800 && character < 0xDC00 && at + 12 <= string.end && json[at + 6] == '\\' && json[at + 7] == 'u') {
            const char32_t low = unit(at + 8);
            if (low >= 0xDC00 && low < 0xE000) character = 0x10000 + ((character - 0xD800) << 10) + (low - 0xDC00), length = 12;
          }
          append_utf8(meaning, character);
          break;
        }
        default: meaning.assign(1, json[at + 1]);
      }
      replace(at, at + length, meaning, length > 2 ? Wrapping::escape : Wrapping::structure);
      at += length;
    }
    // Up to the closing quote, which belongs to what comes between.
    view.storage.append(json.substr(copied, string.end - copied));
    copied = string.end;
    before = joining != Joining::lines ? "" : string.key ? ":\f" : "\n";
  }
  replace(copied, json.size(), "", Wrapping::structure);
  view.text = {};
  return view;
}

}  // namespace hearth::safety::argus
