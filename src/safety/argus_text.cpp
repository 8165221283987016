#include "safety/argus_text.h"

#include <algorithm>
#include <array>

#include "base/utf8.h"

namespace hearth::safety::argus {
namespace {

constexpr std::array<std::string_view, 10> wrapping_names = {"percent", "escape", "html", "homoglyph", "invisible",
                                                             "utf16",   "base64", "hex",  "invisible", ""};
constexpr std::size_t shortest_base64 = 16;
constexpr std::size_t shortest_hex = 32;

constexpr int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

constexpr std::array<std::int8_t, 256> base64_values = [] {
  std::array<std::int8_t, 256> values{};
  for (auto& value : values) value = -1;
  constexpr std::string_view alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  for (std::size_t i = 0; i < alphabet.size(); ++i) values[static_cast<unsigned char>(alphabet[i])] = static_cast<std::int8_t>(i);
  values['-'] = 62;
  values['_'] = 63;
  return values;
}();
constexpr int base64_value(char c) { return base64_values[static_cast<unsigned char>(c)]; }

// Look-alikes that no decomposition knows: letters of other scripts and punctuation.
struct LookAlike {
  char32_t character;
  char plain;
};
constexpr LookAlike look_alikes[] = {
    // Cyrillic
    {U'А', 'A'},
    {U'В', 'B'},
    {U'Е', 'E'},
    {U'К', 'K'},
    {U'М', 'M'},
    {U'Н', 'H'},
    {U'О', 'O'},
    {U'Р', 'P'},
    {U'С', 'C'},
    {U'Т', 'T'},
    {U'У', 'Y'},
    {U'Х', 'X'},
    {U'Ѕ', 'S'},
    {U'І', 'I'},
    {U'Ј', 'J'},
    {U'Ԛ', 'Q'},
    {U'Ԝ', 'W'},
    {U'Ԍ', 'G'},
    {U'а', 'a'},
    {U'в', 'b'},
    {U'е', 'e'},
    {U'к', 'k'},
    {U'м', 'm'},
    {U'н', 'h'},
    {U'о', 'o'},
    {U'р', 'p'},
    {U'с', 'c'},
    {U'т', 't'},
    {U'у', 'y'},
    {U'х', 'x'},
    {U'ѕ', 's'},
    {U'і', 'i'},
    {U'ј', 'j'},
    {U'ԁ', 'd'},
    {U'ԛ', 'q'},
    {U'ԝ', 'w'},
    {U'һ', 'h'},
    {U'ӏ', 'l'},
    {U'Ӏ', 'I'},
    {U'ѵ', 'v'},
    {U'Ѵ', 'V'},
    {U'Ү', 'Y'},
    {U'ү', 'y'},
    {U'Ь', 'b'},
    {U'ь', 'b'},
    {U'З', '3'},
    {U'з', '3'},
    // Greek
    {U'Α', 'A'},
    {U'Β', 'B'},
    {U'Ε', 'E'},
    {U'Ζ', 'Z'},
    {U'Η', 'H'},
    {U'Ι', 'I'},
    {U'Κ', 'K'},
    {U'Μ', 'M'},
    {U'Ν', 'N'},
    {U'Ο', 'O'},
    {U'Ρ', 'P'},
    {U'Τ', 'T'},
    {U'Υ', 'Y'},
    {U'Χ', 'X'},
    {U'α', 'a'},
    {U'ε', 'e'},
    {U'η', 'n'},
    {U'ι', 'i'},
    {U'κ', 'k'},
    {U'ν', 'v'},
    {U'ο', 'o'},
    {U'ρ', 'p'},
    {U'τ', 't'},
    {U'υ', 'u'},
    {U'χ', 'x'},
    {U'ϲ', 'c'},
    {U'Ϲ', 'C'},
    {U'ϳ', 'j'},
    {U'ω', 'w'},
    // Armenian, Cherokee, Latin beyond the alphabet
    {U'օ', 'o'},
    {U'ս', 'u'},
    {U'հ', 'h'},
    {U'ց', 'g'},
    {U'զ', 'q'},
    {U'ո', 'n'},
    {U'Տ', 'S'},
    {U'Օ', 'O'},
    {U'Ꭺ', 'A'},
    {U'Ᏼ', 'B'},
    {U'Ꮯ', 'C'},
    {U'Ꭰ', 'D'},
    {U'Ꭼ', 'E'},
    {U'Ꮐ', 'G'},
    {U'Ꮋ', 'H'},
    {U'Ꭵ', 'i'},
    {U'Ꭻ', 'J'},
    {U'Ꮶ', 'K'},
    {U'Ꮮ', 'L'},
    {U'Ꮇ', 'M'},
    {U'Ꮲ', 'P'},
    {U'Ꭱ', 'R'},
    {U'Ꮪ', 'S'},
    {U'Ꭲ', 'T'},
    {U'Ꮩ', 'V'},
    {U'Ꮃ', 'W'},
    {U'Ꮓ', 'Z'},
    {U'ɑ', 'a'},
    {U'ɡ', 'g'},
    {U'ı', 'i'},
    {U'ɩ', 'i'},
    {U'ƽ', 's'},
    {U'ʀ', 'R'},
    {U'ᴀ', 'A'},
    {U'ʙ', 'B'},
    {U'ᴄ', 'C'},
    {U'ᴅ', 'D'},
    {U'ᴇ', 'E'},
    {U'ɢ', 'G'},
    {U'ʜ', 'H'},
    {U'ɪ', 'I'},
    {U'ᴊ', 'J'},
    {U'ᴋ', 'K'},
    {U'ʟ', 'L'},
    {U'ᴍ', 'M'},
    {U'ɴ', 'N'},
    {U'ᴏ', 'O'},
    {U'ᴘ', 'P'},
    {U'ꜱ', 'S'},
    {U'ᴛ', 'T'},
    {U'ᴜ', 'U'},
    {U'ᴠ', 'V'},
    {U'ᴡ', 'W'},
    {U'ʏ', 'Y'},
    {U'ᴢ', 'Z'},
    {U'ø', 'o'},
    {U'Ø', 'O'},
    {U'đ', 'd'},
    {U'Đ', 'D'},
    {U'ł', 'l'},
    {U'Ł', 'L'},
    {U'ħ', 'h'},
    {U'Ħ', 'H'},
    {U'ŧ', 't'},
    {U'Ŧ', 'T'},
    {U'Ɩ', 'I'},
    {U'ƙ', 'k'},
    {U'ǀ', 'l'},
    {U'Ⲟ', 'O'},
    {U'ⲟ', 'o'},
    // Punctuation
    {U'‐', '-'},
    {U'‒', '-'},
    {U'–', '-'},
    {U'—', '-'},
    {U'―', '-'},
    {U'−', '-'},
    {U'⁃', '-'},
    {U'∕', '/'},
    {U'⁄', '/'},
    {U'╱', '/'},
    {U'⧸', '/'},
    {U'⟋', '/'},
    {U'〳', '/'},
    {U'‘', '\''},
    {U'’', '\''},
    {U'‛', '\''},
    {U'′', '\''},
    {U'“', '"'},
    {U'”', '"'},
    {U'‟', '"'},
    {U'∶', ':'},
    {U'꞉', ':'},
    {U'։', ':'},
    {U'٫', ','},
    {U'‚', ','},
    {U'⸺', '-'},
    {U'∗', '*'},
    {U'⁎', '*'},
    {U'❨', '('},
    {U'❩', ')'},
    {U'⟮', '('},
    {U'⟯', ')'},
    {U'꓿', '='},
    {U'᠎', removed},
    {U'\u2028', '\n'},
    {U'\u2029', '\n'},
    {U'\u0085', '\n'},
};

// fold() as a table of pages of 256 characters.
class FoldTable {
 public:
  FoldTable() : pages_(1) {
    const auto set_all = [this](char32_t first, char32_t last, char value) {
      for (char32_t c = first; c <= last; ++c) set(c, value);
    };
    for (std::size_t i = 0; i < fold_run_count; ++i) {
      const auto& run = fold_runs[i];
      for (std::uint32_t k = 0; k < run.count; ++k) set(run.first + k, static_cast<char>(run.plain + k * run.step));
    }
    for (const auto& [character, plain] : look_alikes) set(character, plain);
    set_all(0x1F130, 0x1F149, 0);  // squared letters: below
    for (char32_t k = 0; k < 26; ++k) {
      set(0x1F130 + k, static_cast<char>('A' + k));
      set(0x1F150 + k, static_cast<char>('A' + k));
      set(0x1F170 + k, static_cast<char>('A' + k));
      set(0x1F1E6 + k, static_cast<char>('A' + k));
    }
    // Combining marks.
    set_all(0x0300, 0x036F, removed);
    set_all(0x0483, 0x0489, removed);
    set_all(0x1AB0, 0x1AFF, removed);
    set_all(0x1DC0, 0x1DFF, removed);
    set_all(0x20D0, 0x20FF, removed);
    set_all(0xFE20, 0xFE2F, removed);
    // Invisible: fillers, joiners, direction, variation selectors, tags.
    for (const char32_t c : {0x00AD, 0x034F, 0x061C, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x3164, 0xFEFF, 0xFFA0, 0x2800}) set(c, removed);
    set_all(0x180B, 0x180F, removed);
    set_all(0x200B, 0x200F, removed);
    set_all(0x202A, 0x202E, removed);
    set_all(0x2060, 0x206F, removed);
    set_all(0xFE00, 0xFE0F, removed);
    set_all(0xFFF9, 0xFFFB, removed);
  }
  char look_up(char32_t c) const {
    if (c >= 0xE0000 && c <= 0xE0FFF) return removed;
    return c < 0x20000 ? pages_[index_[c >> 8]][c & 0xFF] : '\0';
  }

 private:
  void set(char32_t c, char value) {
    auto& index = index_[c >> 8];
    if (index == 0) {
      index = static_cast<std::uint16_t>(pages_.size());
      pages_.emplace_back();
    }
    pages_[index][c & 0xFF] = value;
  }
  std::array<std::uint16_t, 0x200> index_{};
  std::vector<std::array<char, 256>> pages_;
};
const FoldTable& fold_table() {
  static const FoldTable table;
  return table;
}

bool is_combining(char32_t c) {
  return (c >= 0x0300 && c <= 0x036F && c != 0x034F) || (c >= 0x0483 && c <= 0x0489) || (c >= 0x1AB0 && c <= 0x1AFF) ||
         (c >= 0x1DC0 && c <= 0x1DFF) || (c >= 0x20D0 && c <= 0x20FF) || (c >= 0xFE20 && c <= 0xFE2F);
}

// Builds a view: undoes places, and copies what stands within `context` of them. The rest has been looked at already.
class Rewriter {
 public:
  explicit Rewriter(const View& parent) : in_(parent.text) {}
  // [begin, end) of the parent becomes `with`.
  void replace(std::size_t begin, std::size_t end, std::string_view with, Wrapping wrapping) {
    if (pieces_.empty()) out_.reserve(std::min<std::size_t>(in_.size(), 4096));
    if (begin - copied_ > (pieces_.empty() ? context : 2 * context)) {
      if (!pieces_.empty()) copy_to(copied_ + context);
      put(copied_, begin - context, gap, Wrapping::structure);
    }
    copy_to(begin);
    put(begin, end, with, wrapping);
  }
  bool changed() const { return !pieces_.empty(); }
  std::size_t settled() const { return copied_; }  // before it everything is copied or replaced
  void finish(const View& parent, std::deque<View>& views) {
    if (in_.size() - copied_ > context) {
      copy_to(copied_ + context);
      put(copied_, in_.size(), gap, Wrapping::structure);
    }
    copy_to(in_.size());
    View view;
    view.parent = &parent;
    view.depth = parent.depth + 1;
    view.pieces = std::move(pieces_);
    view.storage = std::move(out_);
    views.push_back(std::move(view));
    views.back().text = views.back().storage;
  }

 private:
  // Longer than what a detector looks at around a place; no detector takes what stands on both sides for one.
  static constexpr std::size_t context = 512;
  static constexpr std::string_view gap = "\x01\n\x01";

  void copy_to(std::size_t end) {
    out_.append(in_.substr(copied_, end - copied_));
    copied_ = end;
  }
  void put(std::size_t begin, std::size_t end, std::string_view with, Wrapping wrapping) {
    const auto at = static_cast<std::uint32_t>(out_.size());
    out_.append(with);
    pieces_.push_back(
        {at, static_cast<std::uint32_t>(out_.size()), static_cast<std::uint32_t>(begin), static_cast<std::uint32_t>(end), wrapping});
    copied_ = end;
  }

  std::string_view in_;
  std::string out_;
  std::vector<View::Piece> pieces_;
  std::size_t copied_ = 0;
};

// Asks in rising order whether places of a view are new in it: they touch something that was undone. In the root all are.
class NewPlaces {
 public:
  explicit NewPlaces(const View& view) : pieces_(view.pieces), all_(std::all_of(view.pieces.begin(), view.pieces.end(), is_structure)) {}
  bool has(std::size_t begin, std::size_t end) {
    if (all_) return true;
    while (next_ < pieces_.size() && (pieces_[next_].out_end <= begin || is_structure(pieces_[next_]))) ++next_;
    return next_ < pieces_.size() && pieces_[next_].out_begin < end;
  }

 private:
  static bool is_structure(const View::Piece& piece) { return piece.wrapping == Wrapping::structure; }
  const std::vector<View::Piece>& pieces_;
  std::size_t next_ = 0;
  bool all_;
};

struct Entity {
  std::string_view name;
  std::string_view text;
};
constexpr Entity entities[] = {{"amp", "&"},    {"lt", "<"},     {"gt", ">"},       {"quot", "\""}, {"apos", "'"},   {"nbsp", " "},
                               {"sol", "/"},    {"colon", ":"},  {"period", "."},   {"comma", ","}, {"equals", "="}, {"dash", "-"},
                               {"hyphen", "-"}, {"lowbar", "_"}, {"num", "#"},      {"lpar", "("},  {"rpar", ")"},   {"commat", "@"},
                               {"plus", "+"},   {"Tab", "\t"},   {"NewLine", "\n"}, {"shy", ""},    {"zwj", ""},     {"zwnj", ""},
                               {"bsol", "\\"},  {"percnt", "%"}, {"dollar", "$"}};

// Reads up to `most` hexadecimal digits at `at`; how many there were is the result.
std::size_t hex_number(std::string_view text, std::size_t at, std::size_t most, char32_t& value) {
  std::size_t n = 0;
  value = 0;
  while (n < most && at + n < text.size() && hex_digit(text[at + n]) >= 0)
    value = value * 16 + static_cast<char32_t>(hex_digit(text[at + n++]));
  return n;
}

// Length of the backslash escape at `at` and what it means; 0 for none.
std::size_t read_escape(std::string_view text, std::size_t at, std::string& meaning) {
  if (at + 1 >= text.size()) return 0;
  const char kind = text[at + 1];
  char32_t value = 0;
  switch (kind) {
    case 'n': meaning = "\n"; return 2;
    case 'r': meaning = "\r"; return 2;
    case 't': meaning = "\t"; return 2;
    case '/':
    case '"':
    case '\'':
    case '\\': meaning.assign(1, kind); return 2;
    case 'x':
      if (hex_number(text, at + 2, 2, value) != 2) return 0;
      meaning.assign(1, static_cast<char>(value));
      return 4;
    case 'U':
      if (hex_number(text, at + 2, 8, value) != 8 || value > 0x10FFFF) return 0;
      append_utf8(meaning, value);
      return 10;
    case 'u': {
      if (at + 2 < text.size() && text[at + 2] == '{') {
        const std::size_t digits = hex_number(text, at + 3, 6, value);
        if (digits == 0 || at + 3 + digits >= text.size() || text[at + 3 + digits] != '}' || value > 0x10FFFF) return 0;
        append_utf8(meaning, value);
        return digits + 4;
      }
      if (hex_number(text, at + 2, 4, value) != 4) return 0;
      std::size_t length = 6;
      char32_t low = 0;
      if (value >= 0xD800 && value < 0xDC00 && text.substr(at + 6, 2) == "\\u" && hex_number(text, at + 8, 4, low) == 4 && low >= 0xDC00 &&
          low < 0xE000) {
        value = 0x10000 + ((value - 0xD800) << 10) + (low - 0xDC00);
        length = 12;
      }
      append_utf8(meaning, value);
      return length;
    }
    default: break;
  }
  if (kind >= '0' && kind <= '3' && at + 3 < text.size()) {  // three octal digits
    const char b = text[at + 2], c = text[at + 3];
    if (b < '0' || b > '7' || c < '0' || c > '7') return 0;
    meaning.assign(1, static_cast<char>(((kind - '0') << 6) | ((b - '0') << 3) | (c - '0')));
    return 4;
  }
  return 0;
}

std::size_t read_percent(std::string_view text, std::size_t at, std::string& meaning) {
  char32_t value = 0;
  if (at + 1 < text.size() && (text[at + 1] == 'u' || text[at + 1] == 'U')) {
    if (hex_number(text, at + 2, 4, value) != 4) return 0;
    append_utf8(meaning, value);
    return 6;
  }
  if (hex_number(text, at + 1, 2, value) != 2) return 0;
  meaning.assign(1, static_cast<char>(value));
  return 3;
}

std::size_t read_entity(std::string_view text, std::size_t at, std::string& meaning) {
  if (at + 2 >= text.size()) return 0;
  if (text[at + 1] == '#') {
    char32_t value = 0;
    std::size_t next = at + 2;
    if (text[next] == 'x' || text[next] == 'X') {
      const std::size_t digits = hex_number(text, next + 1, 7, value);
      if (digits == 0) return 0;
      next += 1 + digits;
    } else {
      const std::size_t begin = next;
      while (next < text.size() && next - begin < 8 && text[next] >= '0' && text[next] <= '9')
        value = value * 10 + static_cast<char32_t>(text[next++] - '0');
      if (next == begin) return 0;
    }
    if (value > 0x10FFFF) return 0;
    if (next < text.size() && text[next] == ';') ++next;  // browsers do without
    append_utf8(meaning, value);
    return next - at;
  }
  for (const auto& [entity, plain] : entities) {
    if (text.substr(at + 1, entity.size()) == entity && at + 1 + entity.size() < text.size() && text[at + 1 + entity.size()] == ';') {
      meaning = plain;
      return entity.size() + 2;
    }
  }
  return 0;
}

bool is_ascii_text(char c) { return (c >= 0x20 && c < 0x7F) || c == '\n' || c == '\r' || c == '\t'; }

// Length of a stretch of UTF-16 at `at` whose characters are all ASCII, at least four of them; 0 for none.
std::size_t utf16_stretch(std::string_view text, std::size_t at, bool little) {
  std::size_t length = 0;
  while (at + length + 1 < text.size()) {
    const char letter = text[at + length + (little ? 0 : 1)], zero = text[at + length + (little ? 1 : 0)];
    if (zero != '\0' || !is_ascii_text(letter)) break;
    length += 2;
  }
  return length >= 8 ? length : 0;
}

constexpr std::array<bool, 256> special = [] {
  std::array<bool, 256> table{};
  table['%'] = table['\\'] = table['&'] = table[0] = true;
  for (std::size_t i = 0x80; i < 256; ++i) table[i] = true;
  return table;
}();

// Whether one of `block` bytes is special; a loop that compilers turn into a few vector instructions.
constexpr std::size_t block = 32;
bool any_special(const char* bytes) {
  unsigned found = 0;
  for (std::size_t i = 0; i < block; ++i) {
    const auto c = static_cast<unsigned char>(bytes[i]);
    found |= static_cast<unsigned>(c == '%') | static_cast<unsigned>(c == '\\') | static_cast<unsigned>(c == '&') |
             static_cast<unsigned>(c == 0) | static_cast<unsigned>(c >= 0x80);
  }
  return found != 0;
}

// Undoes what stands for single characters.
void undo_characters(const View& parent, std::deque<View>& views, std::size_t& tags) {
  const std::string_view in = parent.text;
  Rewriter rewriter(parent);
  NewPlaces places(parent);
  std::string meaning;
  const char* const data = in.data();
  for (std::size_t at = 0; at < in.size();) {
    if (!special[static_cast<unsigned char>(data[at])]) {
      ++at;
      while (at + block <= in.size() && !any_special(data + at)) at += block;
      continue;
    }
    meaning.clear();
    std::size_t length = 0;
    Wrapping wrapping = Wrapping::escape;
    switch (in[at]) {
      case '%':
        length = read_percent(in, at, meaning);
        wrapping = Wrapping::percent;
        break;
      case '\\': length = read_escape(in, at, meaning); break;
      case '&':
        length = read_entity(in, at, meaning);
        wrapping = Wrapping::html;
        break;
      case '\0': {
        wrapping = Wrapping::utf16;
        // The zero is the second byte of a character (little-endian), or the first (big-endian).
        const bool little = at > rewriter.settled() && is_ascii_text(in[at - 1]) && (length = utf16_stretch(in, at - 1, true)) > 0;
        if (!little) length = utf16_stretch(in, at, false);
        const std::size_t begin = little ? at - 1 : at;
        for (std::size_t i = 0; i < length && places.has(begin, begin + length); i += 2) {
          const char letter[] = {in[begin + i + (little ? 0 : 1)]};
          rewriter.replace(begin + i, begin + i + 2, std::string_view(letter, 1), wrapping);
        }
        at = length > 0 ? begin + length : at + 1;
        continue;
      }
      default: {
        std::size_t n = 0;
        const char32_t character = decode_utf8(in, at, n);
        if (n == 0) {
          ++at;
          continue;
        }
        if (character >= 0xE0000 && character <= 0xE0FFF && places.has(at, at + n)) ++tags;
        const char plain = fold_table().look_up(character);
        if (plain == 0) {
          at += n;
          continue;
        }
        length = n;
        if (plain != removed) meaning.assign(1, plain);
        wrapping = plain == removed && !is_combining(character) ? Wrapping::invisible : Wrapping::homoglyph;
      }
    }
    if (length == 0) {
      ++at;
      continue;
    }
    if (!places.has(at, at + length)) {
      at += length;
      continue;
    }
    rewriter.replace(at, at + length, meaning, wrapping);
    at += length;
  }
  if (rewriter.changed()) rewriter.finish(parent, views);
}

// Text written in tag characters and variation selectors, which no screen shows.
void read_tags(const View& parent, std::deque<View>& views) {
  View view;
  view.parent = &parent;
  view.depth = parent.depth + 1;
  for (std::size_t at = 0; at < parent.text.size();) {
    std::size_t n = 0;
    const char32_t c = decode_utf8(parent.text, at, n);
    if (n == 0) {
      ++at;
      continue;
    }
    char plain = 0;
    if (c >= 0xE0020 && c <= 0xE007E) plain = static_cast<char>(c - 0xE0000);
    if (c >= 0xE0100 && c <= 0xE01EF && c - 0xE0100 + 16 < 0x7F) plain = static_cast<char>(c - 0xE0100 + 16);
    if (plain >= 0x20) {
      const auto out = static_cast<std::uint32_t>(view.storage.size());
      view.storage += plain;
      view.pieces.push_back({out, out + 1, static_cast<std::uint32_t>(at), static_cast<std::uint32_t>(at + n), Wrapping::tags});
    }
    at += n;
  }
  if (view.storage.size() < 4) return;
  views.push_back(std::move(view));
  views.back().text = views.back().storage;
}

// Whether decoded bytes are text, or hold some.
bool holds_text(std::string_view bytes) {
  std::size_t good = 0, stretch = 0, longest = 0;
  for (std::size_t i = 0; i < bytes.size();) {
    if (is_ascii_text(bytes[i])) {
      ++good, ++i;
      longest = std::max(longest, ++stretch);
      continue;
    }
    const bool zero_between =
        bytes[i] == '\0' && ((i > 0 && is_ascii_text(bytes[i - 1])) || (i + 1 < bytes.size() && is_ascii_text(bytes[i + 1])));
    const std::size_t n = zero_between ? 1 : utf8_sequence_length(bytes.substr(i, 4));
    if (!zero_between) stretch = 0;
    if (n > 1 || zero_between) good += n;
    i += std::max<std::size_t>(n, 1);
  }
  return bytes.size() >= 4 && (longest >= 16 || good * 100 >= bytes.size() * 85);
}

std::string hex_bytes(std::string_view digits) {
  std::string bytes;
  bytes.reserve(digits.size() / 2);
  for (std::size_t i = 0; i + 1 < digits.size(); i += 2) bytes += static_cast<char>(hex_digit(digits[i]) * 16 + hex_digit(digits[i + 1]));
  return bytes;
}

// Base64 that begins at a wrong place gives noise; that of ASCII text, or of characters that take three bytes in UTF-8, keeps the first character of each group
// of four within these.
bool may_begin_group(char c) {
  return (c >= 'H' && c <= 'Z') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'D') || (c >= '4' && c <= '7');
}

// Tries a run of base64 characters at every alignment and takes the one that gives the most text; true when it was replaced.
bool try_base64(std::string_view in, std::size_t begin, std::size_t end, Rewriter& rewriter) {
  const std::string_view run = in.substr(begin, end - begin);
  std::string best;
  std::size_t most = 0;
  std::size_t upper = 0, lower = 0, digits = 0;
  for (const char c : run) {
    upper += c >= 'A' && c <= 'Z' ? 1 : 0;
    lower += c >= 'a' && c <= 'z' ? 1 : 0;
    digits += c >= '0' && c <= '9' ? 1 : 0;
  }
  // Letters of both cases and digits, as names of programs hardly have them: worth trying in any case.
  const bool random = (upper * 6 >= run.size() || digits * 4 >= run.size()) && lower * 10 >= run.size() && digits * 20 >= run.size();
  for (std::size_t skip = 0; skip < 4 && run.size() >= shortest_base64 + skip; ++skip) {
    if (skip > 0) {
      std::size_t likely = 0, groups = 0, position = 0;
      for (std::size_t i = skip; i < run.size(); ++i) {
        if (base64_value(run[i]) < 0) continue;
        if (position++ % 4 == 0) ++groups, likely += may_begin_group(run[i]) ? 1 : 0;
      }
      if (likely * 100 < groups * 80 && !random) continue;
    }
    std::string bytes = base64_bytes(run.substr(skip));
    if (!holds_text(bytes)) continue;
    const auto text = static_cast<std::size_t>(std::count_if(bytes.begin(), bytes.end(), is_ascii_text));
    if (!best.empty() && text <= most) continue;
    most = text;
    best = std::move(bytes);
    if (most == best.size()) break;
  }
  if (best.empty()) return false;
  rewriter.replace(begin, end, best, Wrapping::base64);  // what stands before the right alignment goes, so that words begin where they do
  return true;
}

bool try_hex(std::string_view in, std::size_t begin, std::size_t end, Rewriter& rewriter) {
  for (std::size_t skip = 0; skip < 2; ++skip) {
    const std::string bytes = hex_bytes(in.substr(begin + skip, end - begin - skip));
    if (!holds_text(bytes)) continue;
    rewriter.replace(begin + skip, begin + skip + bytes.size() * 2, bytes, Wrapping::hex);
    return true;
  }
  return false;
}

bool is_hex(char c) { return hex_digit(c) >= 0; }

// Pairs of hexadecimal digits with one character between them: "41 4b 49", "41:4b:49", "0x41, 0x4b". The end of the list that begins at `at`, and its
// bytes; 0 when it has fewer than 12.
std::size_t hex_list(std::string_view in, std::size_t at, std::string& bytes) {
  std::size_t end = 0;
  bytes.clear();
  while (at < in.size()) {
    if (at + 1 < in.size() && in[at] == '0' && (in[at + 1] == 'x' || in[at + 1] == 'X')) at += 2;
    if (at + 1 >= in.size() || !is_hex(in[at]) || !is_hex(in[at + 1]) || (at + 2 < in.size() && is_hex(in[at + 2]))) break;
    bytes += static_cast<char>(hex_digit(in[at]) * 16 + hex_digit(in[at + 1]));
    end = at += 2;
    std::size_t separators = 0;
    while (at < in.size() && separators < 3 && (in[at] == ' ' || in[at] == ':' || in[at] == ',' || in[at] == '-' || in[at] == '\n'))
      ++at, ++separators;
    if (separators == 0) break;
  }
  return bytes.size() >= 12 ? end : 0;
}

// Around a place in such a list stand pairs and separators only; where the list begins.
bool is_list_separator(char c) { return c == ' ' || c == ':' || c == ',' || c == '-' || c == '\n'; }
bool in_hex_list(char c) { return is_hex(c) || is_list_separator(c) || c == 'x' || c == 'X'; }
bool may_be_hex_list(std::string_view in, std::size_t at) {
  for (std::size_t i = at > 6 ? at - 6 : 0; i < at + 7; ++i) {
    if (i >= in.size() || !in_hex_list(in[i])) return false;
  }
  return true;
}
std::size_t hex_list_begin(std::string_view in, std::size_t at, std::size_t from) {
  while (at > from && in_hex_list(in[at - 1])) --at;
  // Not with what only looks like part of it: up to the first pair.
  for (std::size_t i = at; i + 2 < in.size() && i < at + 8; ++i) {
    const bool hex_prefix = in[i] == '0' && (in[i + 1] == 'x' || in[i + 1] == 'X');
    if ((i == 0 || base64_value(in[i - 1]) < 0) && (hex_prefix || (is_hex(in[i]) && is_hex(in[i + 1]) && is_list_separator(in[i + 2]))))
      return i;
  }
  return at;
}

// Undoes runs of base64 and hexadecimal digits.
void undo_runs(const View& parent, std::deque<View>& views) {
  const std::string_view in = parent.text;
  Rewriter rewriter(parent);
  NewPlaces places(parent);
  std::string bytes;
  std::size_t not_joined = 0;  // lines up to here were tried together in vain
  const auto run_end = [&in](std::size_t at) {
    while (at < in.size() && base64_value(in[at]) >= 0) ++at;
    return at;
  };
  std::size_t done = 0;  // before it everything is settled
  // A run of 16 covers one of every 16 places.
  for (std::size_t probe = shortest_base64 - 1; probe < in.size(); probe += shortest_base64) {
    if (probe < done) continue;
    if (base64_value(in[probe]) < 0) {
      // Between two pairs of a list, perhaps.
      if (probe + 2 >= in.size() || !is_hex(in[probe + 1]) || probe == 0 || !is_hex(in[probe - 1])) continue;
    }
    std::size_t begin = probe;
    while (begin > done && base64_value(in[begin - 1]) >= 0) --begin;
    std::size_t end = run_end(probe);
    if (end - begin < shortest_base64) {
      if (end - begin > 4 || !may_be_hex_list(in, probe)) continue;
      begin = hex_list_begin(in, probe, done);
      if (const std::size_t list = hex_list(in, begin, bytes); list > 0) {
        if (places.has(begin, list) && holds_text(bytes)) rewriter.replace(begin, list, bytes, Wrapping::hex);
        done = list;
      }
      continue;
    }
    done = end;
    const bool is_new = places.has(begin, end);
    if (is_new && end - begin >= shortest_hex) {
      // The longest stretch of hexadecimal digits in the run.
      std::size_t hex_begin = begin, hex_end = begin;
      for (std::size_t i = begin; i < end;) {
        std::size_t j = i;
        while (j < end && is_hex(in[j])) ++j;
        if (j - i > hex_end - hex_begin) hex_begin = i, hex_end = j;
        i = std::max(j, i + 1);
      }
      if (hex_end - hex_begin >= shortest_hex && try_hex(in, hex_begin, hex_end, rewriter)) continue;
    }
    // Lines of one wrapped run belong together; a line shorter than the one before is the last.
    std::size_t joined = end, before_last = end, width = end - begin;
    while (begin >= not_joined && joined < in.size() && (in[joined] == '\n' || in[joined] == '\r')) {
      std::size_t next = joined;
      while (next < in.size() && (in[next] == '\n' || in[next] == '\r' || in[next] == ' ' || in[next] == '\t') && next - joined < 16)
        ++next;
      const std::size_t line_end = run_end(next);
      const bool whole_line =
          line_end > next && (line_end == in.size() || in[line_end] == '\n' || in[line_end] == '\r' || in[line_end] == '=' ||
                              in[line_end] == '"' || in[line_end] == '\'' || in[line_end] == '<' || in[line_end] == ' ');
      if (!whole_line) break;
      before_last = joined;
      joined = line_end;
      const bool last = line_end - next < width;
      width = line_end - next;
      if (last) break;
    }
    // The last line may be a word of the text that follows.
    if (joined > end && width < shortest_base64) {
      const std::string whole = base64_bytes(in.substr(begin, joined - begin));
      const auto tail = whole.end() - static_cast<std::ptrdiff_t>(std::min<std::size_t>(whole.size(), width * 3 / 4));
      if (std::all_of(whole.begin(), tail, is_ascii_text) && !std::all_of(tail, whole.end(), is_ascii_text)) joined = before_last;
    }
    const auto with_padding = [&in](std::size_t to) {
      for (int i = 0; i < 2 && to < in.size() && in[to] == '='; ++i) ++to;
      return to;
    };
    if (joined > end && places.has(begin, joined) && try_base64(in, begin, with_padding(joined), rewriter)) {
      done = with_padding(joined);
      continue;
    }
    not_joined = std::max(not_joined, joined);
    if (is_new && try_base64(in, begin, with_padding(end), rewriter)) done = with_padding(end);
  }
  if (rewriter.changed()) rewriter.finish(parent, views);
}

}  // namespace

std::string_view name(Wrapping wrapping) { return wrapping_names[static_cast<std::size_t>(wrapping)]; }

char fold(char32_t character) { return fold_table().look_up(character); }

char32_t decode_utf8(std::string_view text, std::size_t at, std::size_t& length) {
  length = utf8_sequence_length(text.substr(at, 4));
  const auto byte = [&](std::size_t i) { return static_cast<char32_t>(static_cast<unsigned char>(text[at + i])); };
  switch (length) {
    case 1: return byte(0);
    case 2: return ((byte(0) & 0x1F) << 6) | (byte(1) & 0x3F);
    case 3: return ((byte(0) & 0x0F) << 12) | ((byte(1) & 0x3F) << 6) | (byte(2) & 0x3F);
    case 4: return ((byte(0) & 0x07) << 18) | ((byte(1) & 0x3F) << 12) | ((byte(2) & 0x3F) << 6) | (byte(3) & 0x3F);
    default: return 0;
  }
}

void append_utf8(std::string& out, char32_t c) {
  if (c < 0x80) {
    out += static_cast<char>(c);
  } else if (c < 0x800) {
    out += static_cast<char>(0xC0 | (c >> 6));
    out += static_cast<char>(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    out += static_cast<char>(0xE0 | (c >> 12));
    out += static_cast<char>(0x80 | ((c >> 6) & 0x3F));
    out += static_cast<char>(0x80 | (c & 0x3F));
  } else {
    out += static_cast<char>(0xF0 | (c >> 18));
    out += static_cast<char>(0x80 | ((c >> 12) & 0x3F));
    out += static_cast<char>(0x80 | ((c >> 6) & 0x3F));
    out += static_cast<char>(0x80 | (c & 0x3F));
  }
}

std::string base64_bytes(std::string_view run) {
  std::string bytes;
  bytes.reserve(run.size() * 3 / 4);
  std::uint32_t group = 0;
  int bits = 0;
  for (const char c : run) {
    const int value = base64_value(c);
    if (value < 0) continue;
    group = (group << 6) | static_cast<std::uint32_t>(value);
    bits += 6;
    if (bits >= 8) {
      bits -= 8;
      bytes += static_cast<char>((group >> bits) & 0xFF);
    }
  }
  return bytes;
}

bool View::touches(std::size_t begin, std::size_t end) const {
  auto piece = std::partition_point(pieces.begin(), pieces.end(), [begin](const Piece& p) { return p.out_end <= begin; });
  while (piece != pieces.end() && piece->out_begin < end && piece->wrapping == Wrapping::structure) ++piece;
  return piece != pieces.end() && piece->out_begin < end;
}

Span View::in_parent(Span span) const {
  Span result;
  // The last piece that ends at or before the span's begin tells how far the texts have drifted apart.
  const auto first = std::partition_point(pieces.begin(), pieces.end(), [&](const Piece& p) { return p.out_end <= span.begin; });
  if (first != pieces.end() && first->out_begin <= span.begin && first->out_end > span.begin) {
    result.begin = first->in_begin;
  } else {
    const bool none = first == pieces.begin();
    result.begin = none ? span.begin : (first - 1)->in_end + (span.begin - (first - 1)->out_end);
  }
  const auto last = std::partition_point(pieces.begin(), pieces.end(), [&](const Piece& p) { return p.out_begin < span.end; });
  if (last == pieces.begin()) {
    result.end = span.end;
  } else {
    const Piece& piece = *(last - 1);
    result.end = span.end <= piece.out_end ? piece.in_end : piece.in_end + (span.end - piece.out_end);
  }
  result.end = std::max(result.end, result.begin);
  return result;
}

Span View::in_ancestor(Span span, const View& ancestor, std::vector<Wrapping>& wrappings) const {
  std::vector<Wrapping> inner_first;
  for (const View* view = this; view != &ancestor; view = view->parent) {
    auto piece = std::partition_point(view->pieces.begin(), view->pieces.end(), [&](const Piece& p) { return p.out_end <= span.begin; });
    std::array<bool, wrapping_names.size()> seen{};
    for (; piece != view->pieces.end() && piece->out_begin < span.end; ++piece) seen[static_cast<std::size_t>(piece->wrapping)] = true;
    for (std::size_t i = 0; i < seen.size(); ++i) {
      if (seen[i]) inner_first.push_back(static_cast<Wrapping>(i));
    }
    span = view->in_parent(span);
  }
  wrappings.insert(wrappings.begin(), inner_first.rbegin(), inner_first.rend());
  return span;
}

void unwrap(std::deque<View>& views) {
  const std::size_t first = views.size() - 1;
  for (std::size_t i = first; i < views.size() && views.size() - first < static_cast<std::size_t>(max_views); ++i) {
    const View& view = views[i];
    std::size_t tags = 0;
    if (view.depth - views[first].depth >= max_depth) continue;
    undo_characters(view, views, tags);
    undo_runs(view, views);
    if (tags >= 4) read_tags(view, views);
  }
}

}  // namespace hearth::safety::argus
