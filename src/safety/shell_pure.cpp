// Programs that only compute, evaluated: what `echo … | base64 -d | rev` prints is known before it runs.
#include <zlib.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <functional>
#include <utility>

#include "base/base64.h"
#include "safety/shell_interpreter.h"

namespace hearth::safety {
namespace {

using Text = std::optional<std::string>;
constexpr std::size_t longest_output = std::size_t{1} << 20;

struct Invocation {
  std::vector<std::string> arguments;  // without the program
  const Text& input;
  const std::map<std::string, std::string>& files;
};

bool is_octal(char c) { return c >= '0' && c <= '7'; }
int hex(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}
std::optional<std::int64_t> integer(std::string_view text) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

void put_code_point(std::string& out, std::uint32_t point) {
  if (point < 0x80) {
    out += static_cast<char>(point);
  } else if (point < 0x800) {
    out += {static_cast<char>(0xC0 | (point >> 6)), static_cast<char>(0x80 | (point & 0x3F))};
  } else if (point < 0x10000) {
    out += {static_cast<char>(0xE0 | (point >> 12)), static_cast<char>(0x80 | ((point >> 6) & 0x3F)),
            static_cast<char>(0x80 | (point & 0x3F))};
  } else {
    out += {static_cast<char>(0xF0 | ((point >> 18) & 7)), static_cast<char>(0x80 | ((point >> 12) & 0x3F)),
            static_cast<char>(0x80 | ((point >> 6) & 0x3F)), static_cast<char>(0x80 | (point & 0x3F))};
  }
}

// Backslash escapes of `echo -e` (octal wants a leading 0) and of printf. `stop` tells that \c ended all output.
std::string escapes(std::string_view text, bool leading_zero, bool& stop) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\\' || i + 1 >= text.size()) {
      out += text[i];
      continue;
    }
    const char c = text[++i];
    switch (c) {
      case 'a': out += '\a'; break;
      case 'b': out += '\b'; break;
      case 'e':
      case 'E': out += '\033'; break;
      case 'f': out += '\f'; break;
      case 'n': out += '\n'; break;
      case 'r': out += '\r'; break;
      case 't': out += '\t'; break;
      case 'v': out += '\v'; break;
      case '\\': out += '\\'; break;
      case '"': out += leading_zero ? "\\\"" : "\""; break;
      case 'c': stop = true; return out;
      case 'x': {
        int value = 0;
        std::size_t digits = 0;
        while (digits < 2 && i + 1 < text.size() && hex(text[i + 1]) >= 0) {
          value = value * 16 + hex(text[++i]);
          ++digits;
        }
        if (digits == 0) out += "\\x";
        else out += static_cast<char>(value);
        break;
      }
      case 'u':
      case 'U': {
        std::uint32_t value = 0;
        std::size_t digits = 0;
        while (digits < (c == 'u' ? 4U : 8U) && i + 1 < text.size() && hex(text[i + 1]) >= 0) {
          value = value * 16 + static_cast<std::uint32_t>(hex(text[++i]));
          ++digits;
        }
        if (digits == 0) out += {'\\', c};
        else put_code_point(out, value & 0x1FFFFF);
        break;
      }
      default:
        if (is_octal(c) && (!leading_zero || c == '0')) {
          int value = c - '0';
          std::size_t digits = 1;
          const std::size_t most = leading_zero ? 4 : (c == '0' ? 4 : 3);
          while (digits < most && i + 1 < text.size() && is_octal(text[i + 1])) {
            value = value * 8 + (text[++i] - '0');
            ++digits;
          }
          out += static_cast<char>(value);
        } else {
          out += {'\\', c};
        }
    }
  }
  return out;
}

Text echo(const Invocation& call) {
  bool newline = true;
  bool interpret = false;
  std::size_t at = 0;
  for (; at < call.arguments.size(); ++at) {
    const std::string& option = call.arguments[at];
    if (option.size() < 2 || option[0] != '-' || option.find_first_not_of("neE", 1) != std::string::npos) break;
    for (char c : option.substr(1)) {
      if (c == 'n') newline = false;
      if (c == 'e') interpret = true;
      if (c == 'E') interpret = false;
    }
  }
  std::string out;
  bool stop = false;
  for (std::size_t i = at; i < call.arguments.size() && !stop; ++i) {
    if (i > at) out += ' ';
    out += interpret ? escapes(call.arguments[i], true, stop) : call.arguments[i];
  }
  if (newline && !stop) out += '\n';
  return out;
}

Text format(const Invocation& call) {
  std::size_t first = 0;
  if (!call.arguments.empty() && call.arguments[0] == "--") first = 1;
  if (first >= call.arguments.size() || call.arguments[first] == "-v") return std::nullopt;
  const std::string& pattern = call.arguments[first];
  std::vector<std::string> rest(call.arguments.begin() + static_cast<std::ptrdiff_t>(first) + 1, call.arguments.end());
  std::size_t used = 0;
  std::string out;
  bool stop = false;
  do {
    const std::size_t before = used;
    for (std::size_t i = 0; i < pattern.size() && !stop; ++i) {
      if (pattern[i] == '\\') {
        // One escape at a time, so that what it makes is not read again.
        std::size_t end = i + 1;
        if (end < pattern.size()) {
          const char c = pattern[end++];
          const std::size_t most = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : is_octal(c) ? 2 : 0;
          for (std::size_t n = 0; n < most && end < pattern.size() && (is_octal(c) ? is_octal(pattern[end]) : hex(pattern[end]) >= 0); ++n)
            ++end;
        }
        out += escapes(std::string_view(pattern).substr(i, end - i), false, stop);
        i = end - 1;
        continue;
      }
      if (pattern[i] != '%') {
        out += pattern[i];
        continue;
      }
      if (i + 1 < pattern.size() && pattern[i + 1] == '%') {
        out += '%';
        ++i;
        continue;
      }
      std::size_t at = i + 1;
      bool left = false;
      bool zero = false;
      while (at < pattern.size() && std::string_view("-0+ #").find(pattern[at]) != std::string_view::npos) {
        left = left || pattern[at] == '-';
        zero = zero || pattern[at] == '0';
        ++at;
      }
      const auto number = [&]() -> std::optional<std::size_t> {
        if (at < pattern.size() && pattern[at] == '*') {
          ++at;
          const auto given = used < rest.size() ? integer(rest[used++]) : 0;
          return given && *given >= 0 && *given < 65536 ? std::optional(static_cast<std::size_t>(*given)) : std::nullopt;
        }
        std::size_t value = 0;
        while (at < pattern.size() && pattern[at] >= '0' && pattern[at] <= '9' && value < 65536)
          value = value * 10 + static_cast<std::size_t>(pattern[at++] - '0');
        return value;
      };
      const auto width = number();
      std::optional<std::size_t> precision;
      bool has_precision = false;
      if (at < pattern.size() && pattern[at] == '.') {
        ++at;
        has_precision = true;
        precision = number();
        if (!precision) return std::nullopt;
      }
      if (!width || *width > 65536 || at >= pattern.size()) return std::nullopt;
      const std::string argument = used < rest.size() ? rest[used] : "";
      std::string shown;
      switch (pattern[at]) {
        case 's':
        case 'b':
          shown = pattern[at] == 'b' ? escapes(argument, false, stop) : argument;
          if (has_precision) shown = shown.substr(0, *precision);
          break;
        case 'c': shown = argument.substr(0, 1); break;
        case 'q': shown = argument; break;
        case 'd':
        case 'i':
        case 'u':
        case 'x':
        case 'X':
        case 'o': {
          std::int64_t value = 0;
          if (argument.size() > 1 && (argument[0] == '\'' || argument[0] == '"')) {
            value = static_cast<unsigned char>(argument[1]);
          } else if (!argument.empty()) {
            std::string_view digits = argument;
            int base = 10;
            if (digits.starts_with("0x") || digits.starts_with("0X")) {
              base = 16;
              digits.remove_prefix(2);
            } else if (digits.size() > 1 && digits[0] == '0') {
              base = 8;
            }
            const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value, base);
            if (error != std::errc() || end != digits.data() + digits.size()) return std::nullopt;
          }
          std::array<char, 32> buffer{};
          const int base = pattern[at] == 'x' || pattern[at] == 'X' ? 16 : pattern[at] == 'o' ? 8 : 10;
          const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value, base).ptr;
          shown.assign(buffer.data(), end);
          if (pattern[at] == 'X')
            std::transform(shown.begin(), shown.end(), shown.begin(),
                           [](char c) { return c >= 'a' && c <= 'f' ? static_cast<char>(c - 32) : c; });
          if (has_precision && shown.size() < *precision) shown.insert(0, *precision - shown.size(), '0');
          if (zero && !left && shown.size() < *width) shown.insert(0, *width - shown.size(), '0');
          break;
        }
        default: return std::nullopt;
      }
      if (used < rest.size()) ++used;
      if (shown.size() < *width) left ? shown.append(*width - shown.size(), ' ') : shown.insert(0, *width - shown.size(), ' ');
      out += shown;
      i = at;
      if (out.size() > longest_output) return std::nullopt;
    }
    if (used == before) break;
  } while (used < rest.size() && !stop);
  return out;
}

// Options of these programs: a map from letter to value ("" where given without), and operands. Nothing when an option is not known.
struct Options {
  std::map<std::string, std::string> given;
  std::vector<std::string> operands;
  bool has(std::string_view name) const { return given.contains(std::string(name)); }
};
// `with_value` and `without`: letters; `long_names`: pairs of a long name and the letter it means.
std::optional<Options> options_of(const Invocation& call, std::string_view without, std::string_view with_value,
                                  std::initializer_list<std::pair<std::string_view, char>> long_names = {}) {
  Options out;
  bool only_operands = false;
  for (std::size_t i = 0; i < call.arguments.size(); ++i) {
    const std::string& argument = call.arguments[i];
    if (only_operands || argument.size() < 2 || argument[0] != '-') {
      out.operands.push_back(argument);
    } else if (argument == "--") {
      only_operands = true;
    } else if (argument[1] == '-') {
      const std::size_t equals = argument.find('=');
      const std::string_view name = std::string_view(argument).substr(2, equals == std::string::npos ? equals : equals - 2);
      char letter = 0;
      for (const auto& [spelled, meant] : long_names) {
        if (spelled.starts_with(name) && !name.empty()) letter = meant;
      }
      if (letter == 0) return std::nullopt;
      std::string value = equals == std::string::npos ? "" : argument.substr(equals + 1);
      if (with_value.find(letter) != std::string_view::npos && equals == std::string::npos) {
        if (++i >= call.arguments.size()) return std::nullopt;
        value = call.arguments[i];
      }
      out.given[std::string(1, letter)] = value;
    } else {
      for (std::size_t at = 1; at < argument.size(); ++at) {
        const std::string letter(1, argument[at]);
        if (with_value.find(argument[at]) != std::string_view::npos) {
          std::string value = argument.substr(at + 1);
          if (value.empty()) {
            if (++i >= call.arguments.size()) return std::nullopt;
            value = call.arguments[i];
          }
          out.given[letter] = value;
          break;
        }
        if (without.find(argument[at]) == std::string_view::npos) return std::nullopt;
        out.given[letter] = "";
      }
    }
  }
  return out;
}

// Text of the operand files, or standard input.
Text source(const std::vector<std::string>& operands, const Invocation& call) {
  if (operands.empty()) return call.input;
  std::string out;
  for (const std::string& operand : operands) {
    if (operand == "-" || operand == "/dev/stdin") {
      if (!call.input) return std::nullopt;
      out += *call.input;
      continue;
    }
    const auto it = call.files.find(operand);
    if (it == call.files.end()) return std::nullopt;
    out += it->second;
    if (out.size() > longest_output) return std::nullopt;
  }
  return out;
}

std::vector<std::string> lines_of(std::string_view text) {
  std::vector<std::string> out;
  std::size_t at = 0;
  while (at < text.size()) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    out.emplace_back(text.substr(at, end - at));
    at = end + 1;
  }
  return out;
}
std::string joined(const std::vector<std::string>& lines) {
  std::string out;
  for (const std::string& line : lines) out += line + "\n";
  return out;
}

Text decode_base32(std::string_view text) {
  std::string out;
  std::uint32_t bits = 0;
  int count = 0;
  for (char c : text) {
    if (c == '\n' || c == ' ' || c == '=') continue;
    int value = -1;
    if (c >= 'A' && c <= 'Z') value = c - 'A';
    if (c >= '2' && c <= '7') value = c - '2' + 26;
    if (value < 0) return std::nullopt;
    bits = (bits << 5) | static_cast<std::uint32_t>(value);
    count += 5;
    if (count >= 8) {
      count -= 8;
      out += static_cast<char>((bits >> count) & 0xFF);
    }
  }
  return out;
}

Text base64(const Invocation& call) {
  const auto options = options_of(call, "di", "w", {{"decode", 'd'}, {"ignore-garbage", 'i'}, {"wrap", 'w'}});
  if (!options) return std::nullopt;
  const Text text = source(options->operands, call);
  if (!text) return std::nullopt;
  if (options->has("d")) {
    std::string clean;
    for (char c : *text) {
      if (c == '\n' ||
          (options->has("i") && !(hex(c) >= 0 || (c >= 'g' && c <= 'z') || (c >= 'G' && c <= 'Z') || c == '+' || c == '/' || c == '=')))
        continue;
      clean += c;
    }
    // base64 prints what it could decode before it complains.
    while (clean.size() % 4 != 0 && !clean.ends_with("==")) clean += '=';
    return base64_decode(clean);
  }
  std::string out = base64_encode(*text);
  const std::size_t width =
      options->has("w") ? static_cast<std::size_t>(std::max<std::int64_t>(0, integer(options->given.at("w")).value_or(0))) : 76;
  if (width == 0) return out;
  std::string wrapped;
  for (std::size_t at = 0; at < out.size(); at += width) wrapped += out.substr(at, width) + "\n";
  return wrapped;
}

Text xxd(const Invocation& call) {
  Options given;
  for (const std::string& argument : call.arguments) {
    if (argument == "-r" || argument == "-p" || argument == "-ps" || argument == "-plain" || argument == "-revert") {
      given.given[argument.substr(0, 2)] = "";
    } else if (argument == "-rp" || argument == "-pr") {
      given.given["-r"] = given.given["-p"] = "";
    } else if (!argument.empty() && argument[0] == '-' && argument != "-") {
      return std::nullopt;
    } else {
      given.operands.push_back(argument);
    }
  }
  const Text text = source(given.operands, call);
  if (!text || !given.has("-p")) return std::nullopt;
  std::string out;
  if (given.has("-r")) { return hex_decode_loosely(*text, " \n\t"); }
  std::size_t column = 0;
  for (char c : *text) {
    constexpr std::string_view digits = "0123456789abcdef";
    out += {digits[static_cast<unsigned char>(c) >> 4], digits[static_cast<unsigned char>(c) & 15]};
    if (++column == 30) {
      out += '\n';
      column = 0;
    }
  }
  if (column != 0) out += '\n';
  return out;
}

// The bytes that a set of tr means, in order.
std::optional<std::string> tr_set(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size();) {
    const auto one = [&]() {
      if (text[i] == '\\' && i + 1 < text.size()) {
        bool stop = false;
        std::size_t end = i + 2;
        while (is_octal(text[i + 1]) && end < text.size() && end < i + 4 && is_octal(text[end])) ++end;
        const std::string made = escapes(text.substr(i, end - i), false, stop);
        i = end;
        return made.size() == 1 ? made[0] : made.empty() ? '\0' : made[1];
      }
      return text[i++];
    };
    if (text[i] == '[' && i + 1 < text.size() && (text[i + 1] == ':' || text[i + 1] == '=')) {
      const std::size_t end = text.find(text.substr(i + 1, 1) == ":" ? ":]" : "=]", i + 2);
      if (end == std::string_view::npos) return std::nullopt;
      const std::string_view name = text.substr(i + 2, end - i - 2);
      const auto range = [&](int from, int to) {
        for (int c = from; c <= to; ++c) out += static_cast<char>(c);
      };
      if (name == "upper") range('A', 'Z');
      else if (name == "lower") range('a', 'z');
      else if (name == "digit") range('0', '9');
      else if (name == "alpha") {
        range('A', 'Z');
        range('a', 'z');
      } else if (name == "alnum") {
        range('0', '9');
        range('A', 'Z');
        range('a', 'z');
      } else if (name == "space") {
        range('\t', '\r');
        out += ' ';
      } else if (name == "blank") {
        out += '\t';
        out += ' ';
      } else return std::nullopt;
      i = end + 2;
      continue;
    }
    const char low = one();
    if (i + 1 < text.size() && text[i] == '-') {
      ++i;
      const char high = one();
      for (int c = static_cast<unsigned char>(low); c <= static_cast<unsigned char>(high); ++c) out += static_cast<char>(c);
    } else {
      out += low;
    }
  }
  return out;
}

Text tr(const Invocation& call) {
  const auto options =
      options_of(call, "cCdst", "", {{"delete", 'd'}, {"squeeze-repeats", 's'}, {"complement", 'c'}, {"truncate-set1", 't'}});
  if (!options || !call.input || options->operands.empty()) return std::nullopt;
  auto from = tr_set(options->operands[0]);
  if (!from) return std::nullopt;
  if (options->has("c") || options->has("C")) {
    std::string others;
    for (int c = 0; c < 256; ++c) {
      if (from->find(static_cast<char>(c)) == std::string::npos) others += static_cast<char>(c);
    }
    *from = others;
  }
  std::string to;
  if (options->operands.size() > 1) {
    const auto set = tr_set(options->operands[1]);
    if (!set || set->empty()) return std::nullopt;
    to = *set;
  }
  const bool translate = !to.empty() && !options->has("d");
  if (!translate && !options->has("d") && !options->has("s")) return std::nullopt;
  std::array<int, 256> map{};
  for (int c = 0; c < 256; ++c) map[static_cast<std::size_t>(c)] = c;
  for (std::size_t i = 0; i < from->size(); ++i) {
    const auto c = static_cast<unsigned char>((*from)[i]);
    if (options->has("d")) map[c] = -1;
    else if (translate) map[c] = static_cast<unsigned char>(to[std::min(i, to.size() - 1)]);
  }
  const std::string& squeezed = !to.empty() ? to : *from;
  std::string out;
  for (char c : *call.input) {
    const int mapped = map[static_cast<unsigned char>(c)];
    if (mapped < 0) continue;
    if (options->has("s") && !out.empty() && out.back() == static_cast<char>(mapped) &&
        squeezed.find(static_cast<char>(mapped)) != std::string::npos)
      continue;
    out += static_cast<char>(mapped);
  }
  return out;
}

Text by_lines(const Invocation& call, const std::function<void(std::string&)>& change) {
  const auto options = options_of(call, "", "");
  if (!options) return std::nullopt;
  const Text text = source(options->operands, call);
  if (!text) return std::nullopt;
  std::string out;
  for (std::size_t at = 0; at < text->size();) {
    const std::size_t end = std::min(text->find('\n', at), text->size());
    std::string line = text->substr(at, end - at);
    change(line);
    out += line;
    if (end < text->size()) out += '\n';
    at = end + 1;
  }
  return out;
}

Text rev(const Invocation& call) {
  return by_lines(call, [](std::string& line) {
    std::string out;
    std::size_t end = line.size();
    while (end > 0) {  // by characters
      std::size_t begin = end - 1;
      while (begin > 0 && (static_cast<unsigned char>(line[begin]) & 0xC0) == 0x80) --begin;
      out += line.substr(begin, end - begin);
      end = begin;
    }
    line = out;
  });
}

Text head_or_tail(const Invocation& call, bool head) {
  Invocation normal{call.arguments, call.input, call.files};
  for (std::string& argument : normal.arguments) {
    if (argument.size() > 1 && argument[0] == '-' && argument.find_first_not_of("0123456789", 1) == std::string::npos)
      argument.insert(1, "n");
  }
  const auto options = options_of(normal, "qz", "nc", {{"lines", 'n'}, {"bytes", 'c'}});
  if (!options || options->operands.size() > 1) return std::nullopt;
  const Text text = source(options->operands, call);
  if (!text) return std::nullopt;
  const bool bytes = options->has("c");
  std::string count = bytes ? options->given.at("c") : options->has("n") ? options->given.at("n") : "10";
  bool from_start = false;
  if (!count.empty() && count[0] == '+') {
    from_start = true;
    count.erase(0, 1);
  }
  const auto number = integer(count);
  if (!number) return std::nullopt;
  if (bytes) {
    const auto size = static_cast<std::int64_t>(text->size());
    if (head) return text->substr(0, static_cast<std::size_t>(std::clamp<std::int64_t>(*number < 0 ? size + *number : *number, 0, size)));
    const std::int64_t begin = from_start ? *number - 1 : size - std::abs(*number);
    return text->substr(static_cast<std::size_t>(std::clamp<std::int64_t>(begin, 0, size)));
  }
  std::vector<std::string> lines = lines_of(*text);
  const auto size = static_cast<std::int64_t>(lines.size());
  if (head) {
    lines.resize(static_cast<std::size_t>(std::clamp<std::int64_t>(*number < 0 ? size + *number : *number, 0, size)));
    return joined(lines);
  }
  const std::int64_t begin = std::clamp<std::int64_t>(from_start ? *number - 1 : size - std::abs(*number), 0, size);
  return joined({lines.begin() + begin, lines.end()});
}

Text cut(const Invocation& call) {
  const auto options = options_of(call, "sn", "cbfd", {{"characters", 'c'}, {"bytes", 'b'}, {"fields", 'f'}, {"delimiter", 'd'}});
  if (!options) return std::nullopt;
  const Text text = source(options->operands, call);
  if (!text) return std::nullopt;
  const std::string list = options->has("f")   ? options->given.at("f")
                           : options->has("c") ? options->given.at("c")
                           : options->has("b") ? options->given.at("b")
                                               : "";
  std::vector<std::pair<std::int64_t, std::int64_t>> ranges;
  for (std::size_t at = 0; at <= list.size();) {
    const std::size_t end = std::min(list.find(',', at), list.size());
    const std::string part = list.substr(at, end - at);
    const std::size_t dash = part.find('-');
    const auto low = dash == 0 ? std::optional<std::int64_t>(1) : integer(part.substr(0, dash));
    const auto high = dash == std::string::npos ? low
                      : dash + 1 == part.size() ? std::optional<std::int64_t>(1 << 30)
                                                : integer(part.substr(dash + 1));
    if (!low || !high) return std::nullopt;
    ranges.emplace_back(*low, *high);
    at = end + 1;
  }
  const auto wanted = [&](std::size_t index) {
    return std::any_of(ranges.begin(), ranges.end(), [&](const auto& range) {
      return static_cast<std::int64_t>(index) >= range.first && static_cast<std::int64_t>(index) <= range.second;
    });
  };
  std::vector<std::string> lines = lines_of(*text);
  for (std::string& line : lines) {
    std::string out;
    if (!options->has("f")) {
      for (std::size_t i = 0; i < line.size(); ++i) {
        if (wanted(i + 1)) out += line[i];
      }
    } else {
      const std::string delimiter = options->has("d") ? options->given.at("d") : "\t";
      if (delimiter.size() != 1) return std::nullopt;
      if (line.find(delimiter) == std::string::npos) {
        if (options->has("s")) line.clear();
        continue;
      }
      std::size_t index = 1;
      bool first = true;
      for (std::size_t at = 0; at <= line.size(); ++index) {
        const std::size_t end = std::min(line.find(delimiter, at), line.size());
        if (wanted(index)) {
          if (!first) out += delimiter;
          out += line.substr(at, end - at);
          first = false;
        }
        at = end + 1;
      }
    }
    line = out;
  }
  return joined(lines);
}

// Literal `s/…/…/` and `y/…/…/` commands; anything with a pattern is not evaluated.
Text sed(const Invocation& call) {
  const auto options = options_of(call, "rEu", "e", {{"expression", 'e'}, {"regexp-extended", 'E'}});
  if (!options) return std::nullopt;
  std::vector<std::string> operands = options->operands;
  std::string script;
  if (options->has("e")) {
    script = options->given.at("e");
  } else if (!operands.empty()) {
    script = operands[0];
    operands.erase(operands.begin());
  }
  const Text text = source(operands, call);
  if (!text || script.size() < 4) return std::nullopt;
  struct Change {
    std::string from, to;
    bool all, letters;
  };
  std::vector<Change> changes;
  for (std::size_t at = 0; at < script.size();) {
    if (script[at] == ';' || script[at] == ' ' || script[at] == '\n') {
      ++at;
      continue;
    }
    const char kind = script[at];
    if ((kind != 's' && kind != 'y') || at + 1 >= script.size()) return std::nullopt;
    const char slash = script[at + 1];
    const std::size_t middle = script.find(slash, at + 2);
    if (middle == std::string::npos) return std::nullopt;
    const std::size_t end = script.find(slash, middle + 1);
    if (end == std::string::npos) return std::nullopt;
    Change change{script.substr(at + 2, middle - at - 2), script.substr(middle + 1, end - middle - 1), false, kind == 'y'};
    if (change.from.empty() || change.from.find_first_of("\\.*[]^$+?(){}|") != std::string::npos ||
        change.to.find_first_of("\\&") != std::string::npos)
      return std::nullopt;
    if (change.letters && change.from.size() != change.to.size()) return std::nullopt;
    at = end + 1;
    if (at < script.size() && script[at] == 'g') {
      change.all = true;
      ++at;
    }
    if (at < script.size() && script[at] != ';' && script[at] != '\n' && script[at] != ' ') return std::nullopt;
    changes.push_back(std::move(change));
  }
  std::vector<std::string> lines = lines_of(*text);
  for (std::string& line : lines) {
    for (const Change& change : changes) {
      if (change.letters) {
        for (char& c : line) {
          if (const std::size_t index = change.from.find(c); index != std::string::npos) c = change.to[index];
        }
        continue;
      }
      std::size_t at = 0;
      while ((at = line.find(change.from, at)) != std::string::npos) {
        line.replace(at, change.from.size(), change.to);
        at += change.to.size();
        if (!change.all || line.size() > longest_output) break;
      }
    }
  }
  std::string out = joined(lines);
  if (!text->ends_with('\n') && !out.empty()) out.pop_back();
  return out;
}

Text seq(const Invocation& call) {
  const auto options = options_of(call, "w", "s", {{"separator", 's'}});
  if (!options || options->operands.empty() || options->operands.size() > 3) return std::nullopt;
  std::vector<std::int64_t> numbers;
  for (const std::string& operand : options->operands) {
    const auto number = integer(operand);
    if (!number) return std::nullopt;
    numbers.push_back(*number);
  }
  const std::int64_t first = numbers.size() > 1 ? numbers[0] : 1;
  const std::int64_t step = numbers.size() > 2 ? numbers[1] : 1;
  const std::int64_t last = numbers.back();
  if (step == 0 || options->has("w")) return std::nullopt;
  const std::string separator = options->has("s") ? options->given.at("s") : "\n";
  std::string out;
  int count = 0;
  for (std::int64_t i = first; step > 0 ? i <= last : i >= last; i += step) {
    if (++count > 10000) return std::nullopt;
    if (!out.empty()) out += separator;
    out += std::to_string(i);
  }
  return out.empty() ? out : out + "\n";
}

Text decompress(const Invocation& call) {
  const auto options = options_of(call, "dckfq", "", {{"decompress", 'd'}, {"stdout", 'c'}, {"to-stdout", 'c'}});
  if (!options) return std::nullopt;
  const Text text = source(options->operands, call);
  if (!text) return std::nullopt;
  z_stream stream{};
  if (inflateInit2(&stream, 15 + 32) != Z_OK) return std::nullopt;
  const std::unique_ptr<z_stream, int (*)(z_stream*)> owner(&stream, inflateEnd);
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text->data()));
  stream.avail_in = static_cast<uInt>(text->size());
  std::string out;
  std::array<char, 16384> buffer{};
  int status = Z_OK;
  while (status == Z_OK) {
    stream.next_out = reinterpret_cast<Bytef*>(buffer.data());
    stream.avail_out = static_cast<uInt>(buffer.size());
    status = inflate(&stream, Z_NO_FLUSH);
    if (status != Z_OK && status != Z_STREAM_END) return std::nullopt;
    out.append(buffer.data(), buffer.size() - stream.avail_out);
    if (out.size() > longest_output) return std::nullopt;
    if (status == Z_OK && stream.avail_in == 0 && stream.avail_out > 0) return std::nullopt;
  }
  return out;
}

Text openssl(const Invocation& call) {
  const auto& a = call.arguments;
  const bool encoding = !a.empty() && (a[0] == "base64" || a[0] == "enc");
  if (!encoding) return std::nullopt;
  bool decode = false;
  bool base = a[0] == "base64";
  std::vector<std::string> operands;
  for (std::size_t i = 1; i < a.size(); ++i) {
    if (a[i] == "-d") decode = true;
    else if (a[i] == "-base64" || a[i] == "-a") base = true;
    else if (a[i] == "-in" && i + 1 < a.size()) operands.push_back(a[++i]);
    else if (a[i] != "-A" && a[i] != "-e") return std::nullopt;
  }
  if (!base) return std::nullopt;
  const Text text = source(operands, call);
  if (!text) return std::nullopt;
  const std::vector<std::string> mode = decode ? std::vector<std::string>{"-d"} : std::vector<std::string>{};
  return base64(Invocation{mode, text, call.files});
}

Text sorted(const Invocation& call) {
  const auto options = options_of(call, "run", "");
  if (!options || options->has("n")) return std::nullopt;
  const Text text = source(options->operands, call);
  if (!text) return std::nullopt;
  std::vector<std::string> lines = lines_of(*text);
  std::sort(lines.begin(), lines.end());
  if (options->has("u")) lines.erase(std::unique(lines.begin(), lines.end()), lines.end());
  if (options->has("r")) std::reverse(lines.begin(), lines.end());
  return joined(lines);
}

Text whole(const Invocation& call) {
  const auto options = options_of(call, "u", "");
  return options ? source(options->operands, call) : std::nullopt;
}
Text tac(const Invocation& call) {
  const Text text = whole(call);
  if (!text) return std::nullopt;
  std::vector<std::string> lines = lines_of(*text);
  std::reverse(lines.begin(), lines.end());
  return joined(lines);
}
Text name_part(const Invocation& call, bool folder) {
  if (call.arguments.empty() || call.arguments.size() > 2 || call.arguments[0].starts_with('-')) return std::nullopt;
  std::string path = call.arguments[0];
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  const std::size_t slash = path.rfind('/');
  if (folder) return (slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash)) + "\n";
  std::string base = slash == std::string::npos || path == "/" ? path : path.substr(slash + 1);
  if (call.arguments.size() == 2 && base != call.arguments[1] && base.ends_with(call.arguments[1]))
    base.resize(base.size() - call.arguments[1].size());
  return base + "\n";
}

using Evaluate = Text (*)(const Invocation&);
const std::map<std::string_view, Evaluate>& programs() {
  static const std::map<std::string_view, Evaluate> table{
      {"echo", echo},
      {"printf", format},
      {"cat", whole},
      {"base64", base64},
      {"base32",
       [](const Invocation& call) -> Text {
         const auto options = options_of(call, "di", "", {{"decode", 'd'}});
         if (!options || !options->has("d")) return std::nullopt;
         const Text text = source(options->operands, call);
         return text ? decode_base32(*text) : std::nullopt;
       }},
      {"xxd", xxd},
      {"rev", rev},
      {"tr", tr},
      {"tac", tac},
      {"head", [](const Invocation& call) { return head_or_tail(call, true); }},
      {"tail", [](const Invocation& call) { return head_or_tail(call, false); }},
      {"cut", cut},
      {"sed", sed},
      {"seq", seq},
      {"sort", sorted},
      {"gunzip", decompress},
      {"zcat", decompress},
      {"gzip",
       [](const Invocation& call) -> Text {
         const auto options = options_of(call, "dckfq", "", {{"decompress", 'd'}, {"stdout", 'c'}});
         return options && options->has("d") ? decompress(call) : std::nullopt;
       }},
      {"openssl", openssl},
      {"basename", [](const Invocation& call) { return name_part(call, false); }},
      {"dirname", [](const Invocation& call) { return name_part(call, true); }},
      {"true", [](const Invocation&) -> Text { return ""; }},
      {":", [](const Invocation&) -> Text { return ""; }},
  };
  return table;
}

}  // namespace

std::optional<std::string> pure_output(const std::vector<Word>& words, const std::optional<std::string>& input,
                                       const std::map<std::string, std::string>& files) {
  if (words.empty()) return std::nullopt;
  std::string_view program = words[0].text;
  if (const std::size_t slash = program.rfind('/'); slash != std::string_view::npos) program.remove_prefix(slash + 1);
  const auto it = programs().find(program);
  if (it == programs().end()) return std::nullopt;
  std::vector<std::string> arguments;
  for (std::size_t i = 1; i < words.size(); ++i) {
    if (!words[i].exact) return std::nullopt;
    arguments.push_back(words[i].text);
  }
  return it->second(Invocation{std::move(arguments), input, files});
}

}  // namespace hearth::safety
