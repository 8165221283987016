#include "safety/commands_code.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <set>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "base/base64.h"

namespace hearth::safety {
namespace {

// ---- Tokens ----------------------------------------------------------------------------------------------------------------------------------------------

enum class Kind : std::uint8_t { name, text, command, number, sign, line };
struct Token {
  Kind kind = Kind::sign;
  std::string text;
  bool inserts = false;  // a text with variables in it: "$x", "#{x}", "${x}", f"{x}"
  bool spaced = false;   // whitespace before it
};
constexpr std::size_t most_tokens = 60000;
constexpr std::size_t longest_value = 1 << 16;
constexpr std::size_t most_items = 4096;  // of a list that grows
constexpr int deepest_expression = 48;

enum class Family : std::uint8_t { python, c_like, perl, ruby, php, lua, awk, lisp, shell_like, other };
Family family_of(std::string_view language) {
  if (language == "python") return Family::python;
  if (language == "perl") return Family::perl;
  if (language == "ruby" || language == "elixir" || language == "julia") return Family::ruby;
  if (language == "php") return Family::php;
  if (language == "lua" || language == "haskell") return Family::lua;
  if (language == "awk") return Family::awk;
  if (language == "lisp") return Family::lisp;
  if (language == "node" || language == "groovy" || language == "go" || language == "swift") return Family::c_like;
  return Family::other;
}

bool name_start(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || static_cast<unsigned char>(c) >= 0x80; }
bool digit(char c) { return c >= '0' && c <= '9'; }
bool name_char(char c) { return name_start(c) || digit(c); }
int hex_digit(char c) { return digit(c) ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1; }

void append_utf8(std::string& out, std::uint32_t code) {
  if (code < 0x80) {
    out += static_cast<char>(code);
  } else if (code < 0x800) {
    out += static_cast<char>(0xC0 | code >> 6);
    out += static_cast<char>(0x80 | (code & 63));
  } else if (code < 0x10000) {
    out += static_cast<char>(0xE0 | code >> 12);
    out += static_cast<char>(0x80 | (code >> 6 & 63));
    out += static_cast<char>(0x80 | (code & 63));
  } else if (code < 0x110000) {
    out += static_cast<char>(0xF0 | code >> 18);
    out += static_cast<char>(0x80 | (code >> 12 & 63));
    out += static_cast<char>(0x80 | (code >> 6 & 63));
    out += static_cast<char>(0x80 | (code & 63));
  }
}

std::string unescaped(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\\' || i + 1 >= text.size()) {
      out += text[i];
      continue;
    }
    const char next = text[++i];
    const auto number = [&](int base, std::size_t most) {
      std::uint32_t value = 0;
      for (std::size_t n = 0; n < most && i + 1 < text.size() && hex_digit(text[i + 1]) >= 0 && hex_digit(text[i + 1]) < base; ++n)
        value = value * static_cast<std::uint32_t>(base) + static_cast<std::uint32_t>(hex_digit(text[++i]));
      return value;
    };
    switch (next) {
      case 'n': out += '\n'; break;
      case 't': out += '\t'; break;
      case 'r': out += '\r'; break;
      case 'a':
      case 'b':
      case 'f':
      case 'v': out += ' '; break;
      case 'e': out += '\x1b'; break;
      case '\n': break;
      case 'x':
        if (i + 1 < text.size() && text[i + 1] == '{') {
          ++i;
          append_utf8(out, number(16, 6));
          if (i + 1 < text.size() && text[i + 1] == '}') ++i;
        } else {
          out += static_cast<char>(number(16, 2));
        }
        break;
      case 'u':
      case 'U':
        if (i + 1 < text.size() && text[i + 1] == '{') {
          ++i;
          append_utf8(out, number(16, 6));
          if (i + 1 < text.size() && text[i + 1] == '}') ++i;
        } else {
          append_utf8(out, number(16, next == 'u' ? 4 : 8));
        }
        break;
      case '0':
      case '1':
      case '2':
      case '3':
      case '4':
      case '5':
      case '6':
      case '7':
        --i;
        out += static_cast<char>(number(8, 3));
        break;
      default: out += next;
    }
  }
  return out;
}

char closing(char open) {
  switch (open) {
    case '(': return ')';
    case '[': return ']';
    case '{': return '}';
    case '<': return '>';
    default: return open;
  }
}

class Lexer {
 public:
  Lexer(Family family, std::string_view text) : family_(family), text_(text) {}
  std::vector<Token> run() {
    while (at_ < text_.size() && out_.size() < most_tokens) step();
    return std::move(out_);
  }

 private:
  void push(Kind kind, std::string text, bool inserts = false) {
    out_.push_back({kind, std::move(text), inserts, spaced_});
    spaced_ = false;
  }
  bool value_before() const {
    if (out_.empty()) return false;
    const Token& last = out_.back();
    if (last.kind == Kind::text || last.kind == Kind::number || last.kind == Kind::command) return true;
    if (last.kind == Kind::name)
      return last.text != "return" && last.text != "if" && last.text != "and" && last.text != "or" && last.text != "not" &&
             last.text != "unless" && last.text != "split" && last.text != "grep" && last.text != "in" && last.text != "typeof" &&
             last.text != "print";
    return last.kind == Kind::sign && (last.text == ")" || last.text == "]" || last.text == "}");
  }
  // From after the opening mark to the closing one, which is taken; nested where open and close differ.
  std::string_view delimited(char open) {
    const char close = closing(open);
    const std::size_t begin = std::min(at_, text_.size());  // an escape at the end leads past it
    int depth = 1;
    while (at_ < text_.size()) {
      if (text_[at_] == '\\') {
        at_ += 2;
        continue;
      }
      if (open != close && text_[at_] == open) ++depth;
      if (text_[at_] == close && --depth == 0) break;
      ++at_;
    }
    at_ = std::min(at_, text_.size());
    const auto inside = text_.substr(begin, at_ - begin);
    if (at_ < text_.size()) ++at_;
    return inside;
  }
  void line_comment() { at_ = std::min(text_.find('\n', at_), text_.size()); }

  void step() {
    const char c = text_[at_];
    if (c == '\n') {
      if (!out_.empty() && out_.back().kind != Kind::line) push(Kind::line, "\n");
      ++at_;
      spaced_ = true;
      return;
    }
    if (c == ' ' || c == '\t' || c == '\r' || c == '\f' || c == '\v') {
      ++at_;
      spaced_ = true;
      return;
    }
    const std::string_view rest = text_.substr(at_);
    if (c == '\\' && rest.size() > 1 && rest[1] == '\n') {
      at_ += 2;
      return;
    }
    const bool hash = family_ == Family::python || family_ == Family::perl || family_ == Family::ruby || family_ == Family::awk ||
                      family_ == Family::php || family_ == Family::other;
    if (c == '#' && hash && !(family_ == Family::perl && !out_.empty() && out_.back().text == "$")) return line_comment();
    if ((family_ == Family::c_like || family_ == Family::php) && (starts_with(rest, "//"))) return line_comment();
    if ((family_ == Family::c_like || family_ == Family::php) && starts_with(rest, "/*")) {
      const auto end = text_.find("*/", at_ + 2);
      at_ = end == std::string_view::npos ? text_.size() : end + 2;
      return;
    }
    if (family_ == Family::lua && starts_with(rest, "--")) {
      if (starts_with(rest, "--[[")) {
        const auto end = text_.find("]]", at_);
        at_ = end == std::string_view::npos ? text_.size() : end + 2;
        return;
      }
      return line_comment();
    }
    if (family_ == Family::lua && (starts_with(rest, "[[") || starts_with(rest, "[="))) {
      std::size_t level = 0;
      while (1 + level < rest.size() && rest[1 + level] == '=') ++level;
      if (1 + level < rest.size() && rest[1 + level] == '[') {
        const std::string close = "]" + std::string(level, '=') + "]";
        const auto end = text_.find(close, at_);
        push(Kind::text,
             std::string(text_.substr(at_ + 2 + level, end == std::string_view::npos ? std::string_view::npos : end - at_ - 2 - level)));
        at_ = end == std::string_view::npos ? text_.size() : end + close.size();
        return;
      }
    }
    if (family_ == Family::lisp && c == ';') return line_comment();
    if (family_ == Family::lisp && c == '\'') {
      ++at_;
      return;
    }
    if (name_start(c) || (c == '@' && family_ == Family::ruby)) return name();
    if (digit(c)) {
      const std::size_t begin = at_;
      while (at_ < text_.size() && (name_char(text_[at_]) || (text_[at_] == '.' && at_ + 1 < text_.size() && digit(text_[at_ + 1])))) ++at_;
      return push(Kind::number, std::string(text_.substr(begin, at_ - begin)));
    }
    if ((family_ == Family::perl || family_ == Family::php || family_ == Family::awk || family_ == Family::other ||
         family_ == Family::ruby) &&
        (c == '$' || ((c == '@' || c == '%') && family_ == Family::perl)) && rest.size() > 1 && (name_start(rest[1]) || digit(rest[1]))) {
      ++at_;
      const std::size_t begin = at_;
      while (at_ < text_.size() && (name_char(text_[at_]) || starts_with(text_.substr(at_), "::"))) at_ += text_[at_] == ':' ? 2 : 1;
      return push(Kind::name, "$" + std::string(text_.substr(begin, at_ - begin)));
    }
    if (c == '"' || c == '\'' || c == '`') return quoted(c, false);
    if (c == '/' && !value_before() &&
        (family_ == Family::c_like || family_ == Family::perl || family_ == Family::ruby || family_ == Family::awk)) {
      // A regular expression.
      ++at_;
      bool in_set = false;
      while (at_ < text_.size() && text_[at_] != '\n' && (text_[at_] != '/' || in_set)) {
        if (text_[at_] == '[') in_set = true;
        if (text_[at_] == ']') in_set = false;
        at_ += text_[at_] == '\\' ? 2 : 1;
      }
      at_ = std::min(at_ + 1, text_.size());
      while (at_ < text_.size() && name_char(text_[at_])) ++at_;
      return push(Kind::number, "regex");
    }
    if (c == '%' && family_ == Family::ruby && !value_before() && rest.size() > 2) {
      std::size_t skip = 1;
      char kind = 'Q';
      if (name_char(rest[1])) {
        kind = rest[1];
        skip = 2;
      }
      if (rest.size() > skip && std::string_view("([{<|!/").find(rest[skip]) != std::string_view::npos) {
        at_ += skip + 1;
        const auto inside = delimited(rest[skip]);
        if (kind == 'x') return push(Kind::command, unescaped(inside), inside.find("#{") != std::string_view::npos);
        if (kind == 'w' || kind == 'W' || kind == 'i') return words(inside);
        return push(Kind::text, kind == 'q' ? std::string(inside) : unescaped(inside),
                    kind != 'q' && inside.find("#{") != std::string_view::npos);
      }
    }
    if (c == '<' && (family_ == Family::perl || family_ == Family::ruby || family_ == Family::php) && heredoc()) return;
    if (c == '<' && family_ == Family::perl && rest.size() > 2 &&
        (rest[1] == '/' || rest[1] == '~' || rest[1] == '*' || rest[1] == '.')) {  // <*.c> is a glob
      const auto end = rest.find('>');
      if (end != std::string_view::npos && rest.substr(0, end).find('\n') == std::string_view::npos) {
        push(Kind::text, std::string(rest.substr(1, end - 1)));
        at_ += end + 1;
        return;
      }
    }
    static constexpr std::array<std::string_view, 19> signs{
        "===", "!==", "...", "<<=", "=>", "->", "::", "==", "!=", "<=", ">=", "&&", "||", "..", "|&", ">>", "+=", ".=", "?."};
    for (const auto sign : signs)
      if (starts_with(rest, sign)) {
        at_ += sign.size();
        return push(Kind::sign, std::string(sign));
      }
    ++at_;
    push(Kind::sign, std::string(1, c));
  }

  void words(std::string_view inside) {
    push(Kind::sign, "[");
    while (!inside.empty()) {
      const auto begin = inside.find_first_not_of(" \t\n");
      if (begin == std::string_view::npos) break;
      inside.remove_prefix(begin);
      const auto end = std::min(inside.find_first_of(" \t\n"), inside.size());
      push(Kind::text, std::string(inside.substr(0, end)));
      push(Kind::sign, ",");
      inside.remove_prefix(end);
    }
    push(Kind::sign, "]");
  }

  bool heredoc() {
    const auto rest = text_.substr(at_);
    std::size_t skip = starts_with(rest, "<<<") ? 3 : starts_with(rest, "<<") ? 2 : 0;
    if (skip == 0) return false;
    if (skip < rest.size() && (rest[skip] == '~' || rest[skip] == '-')) ++skip;
    char quote = 0;
    if (skip < rest.size() && (rest[skip] == '\'' || rest[skip] == '"')) quote = rest[skip++];
    const std::size_t begin = skip;
    while (skip < rest.size() && name_char(rest[skip])) ++skip;
    const auto mark = rest.substr(begin, skip - begin);
    if (mark.size() < 2 || !(mark[0] >= 'A' && mark[0] <= 'Z')) return false;
    if (quote && skip < rest.size() && rest[skip] == quote) ++skip;
    const auto line_end = text_.find('\n', at_ + skip);
    if (line_end == std::string_view::npos) return false;
    std::size_t end = line_end;
    while (end != std::string_view::npos) {
      auto line = text_.substr(end + 1, text_.find('\n', end + 1) - end - 1);
      const auto first = line.find_first_not_of(" \t");
      if (first != std::string_view::npos && starts_with(line.substr(first), mark)) break;
      end = text_.find('\n', end + 1);
    }
    if (end == std::string_view::npos) return false;
    push(Kind::text, std::string(text_.substr(line_end + 1, end - line_end)), quote != '\'');
    // What stands behind the mark on its line is read first; the body is left out of the text.
    const std::string tail(text_.substr(at_ + skip, line_end - at_ - skip));
    const auto after = text_.find('\n', end + 1);
    held_ = tail + std::string(text_.substr(after == std::string_view::npos ? text_.size() : after));
    text_ = held_;
    at_ = 0;
    return true;
  }

  void quoted(char quote, bool raw, bool formats = false) {
    if (family_ == Family::python && text_.substr(at_).size() >= 3 && text_[at_ + 1] == quote && text_[at_ + 2] == quote) {
      const std::string three(3, quote);
      const auto end = text_.find(three, at_ + 3);
      const auto inside = text_.substr(at_ + 3, end == std::string_view::npos ? std::string_view::npos : end - at_ - 3);
      at_ = end == std::string_view::npos ? text_.size() : end + 3;
      return push(Kind::text, raw ? std::string(inside) : unescaped(inside), formats);
    }
    ++at_;
    const auto inside = delimited(quote);
    if (quote == '`') {
      if (family_ == Family::c_like) return push(Kind::text, unescaped(inside), inside.find("${") != std::string_view::npos);
      if (family_ == Family::perl || family_ == Family::ruby || family_ == Family::php)
        return push(Kind::command, unescaped(inside),
                    inside.find('$') != std::string_view::npos || inside.find("#{") != std::string_view::npos);
      return push(Kind::text, std::string(inside));
    }
    const bool simple = quote == '\'' && (family_ == Family::perl || family_ == Family::ruby || family_ == Family::php);
    bool inserts = formats;
    if (!simple && (family_ == Family::perl || family_ == Family::php) &&
        (inside.find('$') != std::string_view::npos || inside.find('@') != std::string_view::npos))
      inserts = true;
    if (!simple && family_ == Family::ruby && (inside.find("#{") != std::string_view::npos || inside.find("$(") != std::string_view::npos))
      inserts = true;
    if (simple) {
      std::string value;
      for (std::size_t i = 0; i < inside.size(); ++i) {
        if (inside[i] == '\\' && i + 1 < inside.size() && (inside[i + 1] == '\'' || inside[i + 1] == '\\')) ++i;
        value += inside[i];
      }
      return push(Kind::text, std::move(value));
    }
    push(Kind::text, raw ? std::string(inside) : unescaped(inside), inserts);
  }

  void name() {
    const std::size_t begin = at_;
    ++at_;
    while (at_ < text_.size() &&
           (name_char(text_[at_]) || (family_ == Family::lisp && (text_[at_] == '-' || text_[at_] == '?' || text_[at_] == '!'))))
      ++at_;
    if (at_ < text_.size() && (text_[at_] == '?' || text_[at_] == '!') && family_ == Family::ruby && at_ + 1 < text_.size() &&
        text_[at_ + 1] != '=')
      ++at_;
    std::string word(text_.substr(begin, at_ - begin));
    const char next = at_ < text_.size() ? text_[at_] : ' ';
    if (family_ == Family::python && word.size() <= 3 && (next == '"' || next == '\'')) {
      const std::string low = lower_case(word);
      if (low.find_first_not_of("rbuf") == std::string::npos)
        return quoted(next, low.find('r') != std::string::npos, low.find('f') != std::string::npos);
    }
    if (family_ == Family::perl && !out_.empty() && out_.back().text == "->") return push(Kind::name, std::move(word));
    if (family_ == Family::perl && (word == "q" || word == "qq" || word == "qw" || word == "qx" || word == "m" || word == "qr" ||
                                    word == "s" || word == "tr" || word == "y")) {
      std::size_t mark = at_;
      while (mark < text_.size() && text_[mark] == ' ') ++mark;
      if (mark < text_.size() && !name_char(text_[mark]) && text_[mark] != ',' && text_[mark] != ';' && text_[mark] != ')' &&
          text_[mark] != ' ' && text_[mark] != '\n' &&
          !(text_[mark] == '=' && mark + 1 < text_.size() && (text_[mark + 1] == '>' || mark > at_))) {
        const char open = text_[mark];
        at_ = mark + 1;
        const auto inside = delimited(open);
        if (word == "q") return push(Kind::text, std::string(inside));
        if (word == "qq") return push(Kind::text, unescaped(inside), inside.find('$') != std::string_view::npos);
        if (word == "qw") return words(inside);
        if (word == "qx") return push(Kind::command, unescaped(inside), inside.find('$') != std::string_view::npos);
        std::string_view second;
        if (word == "s" || word == "tr" || word == "y") {
          if (open != closing(open)) {
            while (at_ < text_.size() && text_[at_] != open && text_[at_] <= ' ') ++at_;
            ++at_;
          }
          second = delimited(open);
        }
        const std::size_t flags = at_;
        while (at_ < text_.size() && name_char(text_[at_])) ++at_;
        if (word == "s" && text_.substr(flags, at_ - flags).find('e') != std::string_view::npos) {
          // The replacement is code.
          push(Kind::name, "eval");
          push(Kind::sign, "(");
          push(Kind::text, std::string(second));
          return push(Kind::sign, ")");
        }
        return push(Kind::number, "regex");
      }
      at_ = begin + word.size();
    }
    push(Kind::name, std::move(word));
  }

  Family family_;
  std::string_view text_;
  std::string held_;
  std::size_t at_ = 0;
  bool spaced_ = false;
  std::vector<Token> out_;
};

// ---- Values ------------------------------------------------------------------------------------------------------------------------------------------------

struct Value {
  std::string text;    // a string; for functions and modules their path
  bool exact = false;  // text is what it will be
  bool known = false;  // a string at all: text holds what is known, unknown parts as U+FFFD
  bool path = false;   // text names a module or function
  bool list = false;
  bool file = false;  // an open file or path object of text
  std::vector<Value> items;
  std::vector<std::string> others;  // what text may be as well: a loop's name stands for each of what it runs over
  Flow flow;
};
constexpr std::size_t most_others = 64;     // of one value
constexpr std::size_t most_repeated = 512;  // calls made again for them, of one program

Value string_value(std::string text) {
  Value value;
  value.exact = value.known = true;
  value.text = std::move(text);
  return value;
}
Value unknown_value() {
  Value value;
  value.text = std::string(unknown_part);
  return value;
}
Word word_of(const Value& value) {
  Word word;
  word.text = value.known || value.path ? value.text : std::string(unknown_part);
  word.exact = value.exact;
  return word;
}

std::string rot13(std::string text) {
  for (char& c : text) {
    if (c >= 'a' && c <= 'z') c = static_cast<char>('a' + (c - 'a' + 13) % 26);
    else if (c >= 'A' && c <= 'Z') c = static_cast<char>('A' + (c - 'A' + 13) % 26);
  }
  return text;
}

// ---- What functions do --------------------------------------------------------------------------------------------------------------------------------------

enum class Does : std::uint8_t {
  shell,
  argv,
  code,
  code_file,
  remove,
  remove_tree,
  write_first,
  write_second,
  move,
  read,
  read_text,
  open,
  mkdir,
  mode,
  fetch,
  fetch_to,
  send,
  socket,
  kill,
  fork,
  set_user,
  load,
  environment,
  server,
  mail,
  list,
  print,
  link,
  pickle,
  credential,
  schedule
};
struct Function {
  std::string_view name;       // the last part
  std::string_view qualifier;  // must be part of what comes before; empty: any. "^": nothing may come before
  Does does;
};
constexpr Function functions[] = {
    // commands
    {"system", "", Does::shell},
    {"popen", "", Does::shell},
    {"popen2", "", Does::shell},
    {"popen3", "", Does::shell},
    {"popen4", "", Does::shell},
    {"getoutput", "", Does::shell},
    {"getstatusoutput", "", Does::shell},
    {"shell_exec", "", Does::shell},
    {"passthru", "", Does::shell},
    {"proc_open", "", Does::shell},
    {"execSync", "", Does::shell},
    {"execaCommand", "", Does::shell},
    {"create_subprocess_shell", "", Does::shell},
    {"do_shell_script", "", Does::shell},
    {"system2", "", Does::shell},
    {"shell", "System", Does::shell},
    {"cmd", "os", Does::shell},
    {"cmd", "System", Does::argv},
    {"shell_command", "", Does::shell},
    {"shell-command", "", Does::shell},
    {"call-process", "", Does::argv},
    {"start-process", "", Does::argv},
    {"async-shell-command", "", Does::shell},
    {"shell-command-to-string", "", Does::shell},
    {"call-process-shell-command", "", Does::shell},
    {"run-program", "", Does::argv},
    {"callCommand", "", Does::shell},
    {"readProcess", "", Does::argv},
    {"rawSystem", "", Does::argv},
    {"unix", "", Does::shell},
    {"execute", "os", Does::shell},
    {"run", "subprocess", Does::argv},
    {"call", "subprocess", Does::argv},
    {"check_call", "", Does::argv},
    {"check_output", "", Does::argv},
    {"Popen", "", Does::argv},
    {"create_subprocess_exec", "", Does::argv},
    {"spawn", "pty", Does::argv},
    {"spawn", "PTY", Does::argv},
    {"spawn", "child_process", Does::argv},
    {"spawnSync", "", Does::argv},
    {"execFile", "", Does::argv},
    {"execFileSync", "", Does::argv},
    {"spawn", "^", Does::argv},
    {"spawn", "Bun", Does::argv},
    {"spawn", "Process", Does::argv},
    {"spawn", "Kernel", Does::argv},
    {"fork", "child_process", Does::code_file},
    {"exec", "child_process", Does::shell},
    {"exec", "Kernel", Does::shell},
    {"exec", "shelljs", Does::shell},
    {"exec", "Runtime", Does::shell},
    {"exec", "getRuntime", Does::shell},
    {"execl", "", Does::argv},
    {"execle", "", Does::argv},
    {"execlp", "", Does::argv},
    {"execlpe", "", Does::argv},
    {"execv", "", Does::argv},
    {"execve", "", Does::argv},
    {"execvp", "", Does::argv},
    {"execvpe", "", Does::argv},
    {"spawnl", "", Does::argv},
    {"spawnlp", "", Does::argv},
    {"spawnv", "", Does::argv},
    {"spawnvp", "", Does::argv},
    {"posix_spawn", "", Does::argv},
    {"posix_spawnp", "", Does::argv},
    {"pcntl_exec", "", Does::argv},
    {"capture2", "Open3", Does::argv},
    {"capture3", "Open3", Does::argv},
    {"popen3", "Open3", Does::argv},
    {"capture2e", "Open3", Does::argv},
    {"pipeline", "Open3", Does::argv},
    {"Command", "Deno", Does::argv},
    {"Command", "exec", Does::argv},
    {"open2", "", Does::argv},
    {"open3", "", Does::argv},
    {"execa", "", Does::argv},
    {"ProcessBuilder", "", Does::argv},
    {"run", "sh", Does::shell},
    {"startfile", "", Does::shell},
    {"run_command", "", Does::shell},
    {"invoke", "ctx", Does::shell},
    // code
    {"eval", "", Does::code},
    {"exec", "^", Does::code},
    {"exec", "builtins", Does::code},
    {"compile", "^", Does::code},
    {"execfile", "", Does::code_file},
    {"Function", "^", Does::code},
    {"runInNewContext", "", Does::code},
    {"runInThisContext", "", Does::code},
    {"runInContext", "", Does::code},
    {"instance_eval", "", Does::code},
    {"class_eval", "", Does::code},
    {"module_eval", "", Does::code},
    {"loadstring", "", Does::code},
    {"load", "^", Does::code},
    {"dofile", "", Does::code_file},
    {"loadfile", "", Does::code_file},
    {"assert", "^", Does::code},
    {"create_function", "", Does::code},
    {"run_path", "", Does::code_file},
    {"eval_file", "", Does::code_file},
    {"literal_eval_", "", Does::code},
    {"parse", "eval", Does::code},
    {"execScript", "", Does::code},
    {"setTimeout_", "", Does::code},
    {"source", "^", Does::code_file},
    {"include", "^", Does::code_file},
    {"include_once", "^", Does::code_file},
    {"require_once", "^", Does::code_file},
    {"do", "^", Does::code_file},
    {"load-file", "", Does::code_file},
    {"eval-region", "", Does::code},
    {"loads", "pickle", Does::pickle},
    {"load", "pickle", Does::pickle},
    {"loads", "marshal", Does::pickle},
    {"loads", "dill", Does::pickle},
    {"unserialize", "", Does::pickle},
    // files
    {"unlink", "", Does::remove},
    {"unlinkSync", "", Does::remove},
    {"remove", "os", Does::remove},
    {"rmdir", "", Does::remove},
    {"rmdirSync", "", Does::remove_tree},
    {"removedirs", "", Does::remove},
    {"rmtree", "", Does::remove_tree},
    {"remove_tree", "", Does::remove_tree},
    {"rm", "fs", Does::remove_tree},
    {"rmSync", "", Does::remove_tree},
    {"rimraf", "", Does::remove_tree},
    {"rimrafSync", "", Does::remove_tree},
    {"removeSync", "", Does::remove_tree},
    {"remove", "fs", Does::remove_tree},
    {"emptyDir", "", Does::remove_tree},
    {"emptyDirSync", "", Does::remove_tree},
    {"remove", "Deno", Does::remove_tree},
    {"removeSync", "Deno", Does::remove_tree},
    {"delete", "File", Does::remove},
    {"rm", "FileUtils", Does::remove},
    {"rm_f", "", Does::remove},
    {"rm_r", "", Does::remove_tree},
    {"rm_rf", "", Does::remove_tree},
    {"remove_dir", "", Does::remove_tree},
    {"remove_entry", "", Does::remove_tree},
    {"remove_entry_secure", "", Does::remove_tree},
    {"rmtree", "FileUtils", Does::remove_tree},
    {"rm", "^", Does::remove_tree},
    {"rm!", "File", Does::remove},
    {"rm_rf!", "File", Does::remove_tree},
    {"delete-file", "", Does::remove},
    {"delete-directory", "", Does::remove_tree},
    {"RemoveAll", "os", Does::remove_tree},
    {"Remove", "os", Does::remove},
    {"send2trash", "", Does::remove},
    {"file.remove", "", Does::remove},
    {"rm", "shelljs", Does::remove_tree},
    {"unlink_all", "", Does::remove},
    {"write_text", "", Does::write_first},
    {"write_bytes", "", Does::write_first},
    {"writeFile", "", Does::write_first},
    {"writeFileSync", "", Does::write_first},
    {"appendFile", "", Does::write_first},
    {"appendFileSync", "", Does::write_first},
    {"createWriteStream", "", Does::write_first},
    {"outputFile", "", Does::write_first},
    {"outputFileSync", "", Does::write_first},
    {"file_put_contents", "", Does::write_first},
    {"writeTextFile", "", Does::write_first},
    {"truncate", "os", Does::write_first},
    {"truncate", "fs", Does::write_first},
    {"truncateSync", "", Does::write_first},
    {"write", "File", Does::write_first},
    {"binwrite", "", Does::write_first},
    {"write", "IO", Does::write_first},
    {"writeLines_", "", Does::write_second},
    {"write-region", "", Does::write_second},
    {"touch", "", Does::mkdir},
    {"WriteFile", "os", Does::write_first},
    {"write!", "File", Does::write_first},
    {"mkfifo", "", Does::mkdir},
    {"mkdir", "", Does::mkdir},
    {"mkdirSync", "", Does::mkdir},
    {"makedirs", "", Does::mkdir},
    {"mkdir_p", "", Does::mkdir},
    {"mkpath", "", Does::mkdir},
    {"make_path", "", Does::mkdir},
    {"MkdirAll", "", Does::mkdir},
    {"rename", "", Does::move},
    {"renameSync", "", Does::move},
    {"renames", "", Does::move},
    {"replace", "os", Does::move},
    {"move", "shutil", Does::move},
    {"mv", "FileUtils", Does::move},
    {"move", "fs", Does::move},
    {"moveSync", "", Does::move},
    {"mv", "shelljs", Does::move},
    {"copy", "shutil", Does::write_second},
    {"copy2", "", Does::write_second},
    {"copyfile", "", Does::write_second},
    {"copytree", "", Does::write_second},
    {"copyFile", "", Does::write_second},
    {"copyFileSync", "", Does::write_second},
    {"cpSync", "", Does::write_second},
    {"copySync", "", Does::write_second},
    {"cp", "", Does::write_second},
    {"cp_r", "", Does::write_second},
    {"copy", "^", Does::write_second},
    {"copy_file", "", Does::write_second},
    {"copy_stream", "", Does::write_second},
    {"copy", "fs", Does::write_second},
    {"symlink", "", Does::link},
    {"symlinkSync", "", Does::link},
    {"link", "os", Does::link},
    {"link", "^", Does::link},
    {"linkSync", "", Does::link},
    {"ln_s", "", Does::link},
    {"ln_sf", "", Does::link},
    {"link", "fs", Does::link},
    {"chmod", "", Does::mode},
    {"chmodSync", "", Does::mode},
    {"chown", "", Does::mode},
    {"chownSync", "", Does::mode},
    {"chmod_R", "", Does::mode},
    {"lchown", "", Does::mode},
    {"chown_R", "", Does::mode},
    {"read_text", "", Does::read},
    {"read_bytes", "", Does::read},
    {"readFile", "", Does::read},
    {"readFileSync", "", Does::read},
    {"createReadStream", "", Does::read},
    {"readTextFile", "", Does::read},
    {"readTextFileSync", "", Does::read},
    {"file_get_contents", "", Does::read},
    {"readfile", "", Does::read},
    {"file", "^", Does::read},
    {"read", "File", Does::read},
    {"readlines", "File", Does::read},
    {"readlines", "IO", Does::read},
    {"foreach", "File", Does::read},
    {"binread", "", Does::read},
    {"read", "IO", Does::read},
    {"lines", "io", Does::read},
    {"readLines", "", Does::read},
    {"read_file", "", Does::read},
    {"slurp", "", Does::read},
    {"insert-file-contents", "", Does::read},
    {"find-file", "", Does::read},
    {"ReadFile", "", Does::read},
    {"show_source", "", Does::read},
    {"highlight_file", "", Does::read},
    {"read!", "File", Does::read},
    {"fromfile", "", Does::read},
    {"loadtxt", "", Does::read},
    {"read_csv", "", Does::read},
    {"readRDS", "", Does::read},
    {"getline", "linecache", Does::read},
    {"getlines", "linecache", Does::read},
    {"input", "fileinput", Does::read},
    {"listdir", "", Does::list},
    {"readdir", "", Does::list},
    {"readdirSync", "", Does::list},
    {"scandir", "", Does::list},
    {"glob", "", Does::list},
    {"walk", "os", Does::list},
    {"entries", "Dir", Does::list},
    {"open", "", Does::open},
    {"fopen", "", Does::open},
    {"openSync", "", Does::open},
    {"new", "File", Does::open},
    {"sysopen", "", Does::open},
    {"openFile", "", Does::open},
    {"OpenFile", "", Does::open},
    {"FileIO", "", Does::open},
    {"Create", "os", Does::write_first},
    {"Path", "", Does::open},
    {"PosixPath", "", Does::open},
    {"PurePath", "", Does::open},
    {"Pathname", "", Does::open},
    // the network
    {"urlopen", "", Does::fetch},
    {"urlretrieve", "", Does::fetch_to},
    {"get", "requests", Does::fetch},
    {"get", "httpx", Does::fetch},
    {"get", "urllib3", Does::fetch},
    {"request", "requests", Does::send},
    {"post", "requests", Does::send},
    {"put", "requests", Does::send},
    {"patch", "requests", Does::send},
    {"delete", "requests", Does::fetch},
    {"post", "httpx", Does::send},
    {"put", "httpx", Does::send},
    {"post", "session", Does::send},
    {"post", "Session", Does::send},
    {"get", "Session", Does::fetch},
    {"post", "aiohttp", Does::send},
    {"request", "urllib3", Does::send},
    {"request", "http", Does::send},
    {"request", "https", Does::send},
    {"request", "conn", Does::send},
    {"Request", "urllib", Does::send},
    {"get", "http", Does::fetch},
    {"get", "https", Does::fetch},
    {"fetch", "", Does::send},
    {"get", "axios", Does::fetch},
    {"post", "axios", Does::send},
    {"put", "axios", Does::send},
    {"axios", "^", Does::send},
    {"got", "^", Does::send},
    {"post", "got", Does::send},
    {"sendBeacon", "", Does::send},
    {"open", "URI", Does::fetch},
    {"get", "HTTP", Does::fetch},
    {"get_response", "HTTP", Does::fetch},
    {"post", "HTTP", Does::send},
    {"post_form", "HTTP", Does::send},
    {"get", "HTTParty", Does::fetch},
    {"post", "HTTParty", Does::send},
    {"get", "RestClient", Does::fetch},
    {"post", "RestClient", Does::send},
    {"getstore", "", Does::fetch_to},
    {"getprint", "", Does::fetch},
    {"mirror", "", Does::fetch_to},
    {"get", "LWP", Does::fetch},
    {"post", "UserAgent", Does::send},
    {"get", "UserAgent", Does::fetch},
    {"curl_init", "", Does::fetch},
    {"curl_setopt", "", Does::send},
    {"curl_exec", "", Does::fetch},
    {"download.file", "", Does::fetch_to},
    {"download", "Downloads", Does::fetch_to},
    {"Get", "http", Does::fetch},
    {"Post", "http", Does::send},
    {"url-retrieve-synchronously", "", Does::fetch},
    {"url-retrieve", "", Does::fetch},
    {"download", "wget", Does::fetch_to},
    {"DownloadString", "", Does::fetch},
    {"DownloadFile", "", Does::fetch_to},
    {"connect", "", Does::socket},
    {"create_connection", "", Does::socket},
    {"createConnection", "", Does::socket},
    {"new", "TCPSocket", Does::socket},
    {"open", "TCPSocket", Does::socket},
    {"fsockopen", "", Does::socket},
    {"pfsockopen", "", Does::socket},
    {"stream_socket_client", "", Does::socket},
    {"new", "INET", Does::socket},
    {"socket_connect", "", Does::socket},
    {"open_connection", "", Does::socket},
    {"tcp", "socket", Does::socket},
    {"Dial", "net", Does::socket},
    {"TCPSocket", "", Does::socket},
    {"new", "UDPSocket", Does::socket},
    {"connect", "Socket", Does::socket},
    {"sendall", "", Does::send},
    {"sendto", "", Does::send},
    {"send", "sock", Does::send},
    {"send", "s", Does::send},
    {"storbinary", "", Does::send},
    {"storlines", "", Does::send},
    {"sendmail", "", Does::mail},
    {"send_message", "", Does::mail},
    {"mail", "^", Does::mail},
    {"gethostbyname", "", Does::fetch},
    {"getaddrinfo", "", Does::fetch},
    {"resolve", "dns", Does::fetch},
    {"lookup", "dns", Does::fetch},
    {"dns_get_record", "", Does::fetch},
    {"checkdnsrr", "", Does::fetch},
    {"upload_file", "", Does::send},
    {"put_object", "", Does::send},
    {"bind", "socket", Does::server},
    {"bind", "s", Does::server},
    {"createServer", "", Does::server},
    {"serve_forever", "", Does::server},
    {"new", "TCPServer", Does::server},
    {"listen_", "", Does::server},
    // the rest
    {"kill", "", Does::kill},
    {"killpg", "", Does::kill},
    {"posix_kill", "", Does::kill},
    {"fork", "", Does::fork},
    {"forkpty", "", Does::fork},
    {"pcntl_fork", "", Does::fork},
    {"setuid", "", Does::set_user},
    {"setgid", "", Does::set_user},
    {"setreuid", "", Does::set_user},
    {"setresuid", "", Does::set_user},
    {"seteuid", "", Does::set_user},
    {"posix_setuid", "", Does::set_user},
    {"initgroups", "", Does::set_user},
    {"setgroups", "", Does::set_user},
    {"CDLL", "", Does::load},
    {"LoadLibrary", "", Does::load},
    {"PyDLL", "", Does::load},
    {"dlopen", "", Does::load},
    {"dl", "^", Does::load},
    {"FFI", "", Does::load},
    {"loadlib", "", Does::load},
    {"dyn.load", "", Does::load},
    {"get_password", "", Does::credential},
    {"get_secret_value", "", Does::credential},
    {"access_secret_version", "", Does::credential},
    {"get_secret", "", Does::credential},
    {"read_secret_version", "", Does::credential},
    {"CronTab", "", Does::schedule},
    {"set_crontab", "", Does::schedule},
    {"cdef", "FFI", Does::load},
    {"getenv", "", Does::environment},
    {"fetch_env", "", Does::environment},
};
const std::unordered_map<std::string_view, std::vector<const Function*>>& function_table() {
  static const auto table = [] {
    std::unordered_map<std::string_view, std::vector<const Function*>> out;
    for (const Function& function : functions) out[function.name].push_back(&function);
    return out;
  }();
  return table;
}

// ---- The evaluator ----------------------------------------------------------------------------------------------------------------------------------------------

class Evaluator {
 public:
  Evaluator(Context& context, std::string_view language, std::vector<Token> tokens)
      : c_(context), language_(language), family_(family_of(language)), t_(std::move(tokens)) {}

  void run() {
    // Names of loops and comprehensions stand for one of what they run over; comprehensions use them before they say so.
    for (std::size_t i = 0; i + 3 < t_.size(); ++i)
      if (t_[i].kind == Kind::name && t_[i].text == "for" && t_[i + 1].kind == Kind::name && t_[i + 2].text == "in" &&
          ++loops_seen_ <= 64) {
        at_ = i + 3;
        bind_loop(t_[i + 1].text);
      }
    for (const Token& token : t_)
      if (token.kind == Kind::text) note_place(token.text);
    at_ = 0;
    while (at_ < t_.size()) {
      const std::size_t before = at_;
      statement();
      if (at_ == before) ++at_;
    }
    // A connection and a program that talks over it.
    if (!remote_.empty() && spawns_shell_) c_.report(Effect::remote_code, "connects a shell to " + remote_ + " (a reverse shell)", remote_);
    if (!remote_.empty() && reads_files_ && !is_loopback(remote_))
      c_.report(Effect::exfiltration, "reads files and has a connection to " + remote_, remote_, false);
    if (forks_ > 0 && loops_) c_.report(Effect::tampering, "starts itself without end (a fork bomb)");
    // Something is deleted or read of which only the program knows the name: any of the places that its text names.
    if (removes_unnamed_ || reads_unnamed_) {
      for (const auto& place : places_) {
        if (removes_unnamed_) c_.remove({.text = place + "/" + std::string(unknown_part), .exact = false}, true);
        if (reads_unnamed_) c_.read({.text = place, .exact = place.find_first_of("*?[") == std::string::npos});
      }
      for (const Word& word : c_.run.given) {
        if (removes_unnamed_) c_.remove(word, true);
        if (reads_unnamed_) c_.read(word);
      }
    }
  }

 private:
  bool is(std::string_view sign, std::size_t ahead = 0) const {
    return at_ + ahead < t_.size() && t_[at_ + ahead].kind == Kind::sign && t_[at_ + ahead].text == sign;
  }
  bool is_name(std::string_view name, std::size_t ahead = 0) const {
    return at_ + ahead < t_.size() && t_[at_ + ahead].kind == Kind::name && t_[at_ + ahead].text == name;
  }
  // A text that names a place of its own: "/var", "~", "/home/*/.ssh/*". "/" alone is a separator more often than not.
  void note_place(std::string_view text) {
    if (text.size() > 256 || places_.size() >= 32 || text.empty()) return;
    const bool absolute = text.size() > 1 && text[0] == '/' && (name_char(text[1]) || text[1] == '.' || text[1] == '*') &&
                          text.find_first_of(" \n;|<>&") == std::string_view::npos;
    if (absolute || text == "~" || starts_with(text, "~/")) places_.emplace(text);
  }
  bool ended() const { return at_ >= t_.size() || t_[at_].kind == Kind::line || is(";"); }
  void skip_lines() {
    while (at_ < t_.size() && t_[at_].kind == Kind::line) ++at_;
  }

  void statement() {
    if (t_[at_].kind == Kind::line || is(";") || is("{") || is("}") || is(",") || is(")") || is("]") || is(":")) {
      ++at_;
      return;
    }
    if (t_[at_].kind == Kind::name) {
      const std::string& word = t_[at_].text;
      if (word == "import" && (family_ == Family::python || family_ == Family::c_like)) return import();
      if (word == "from" && family_ == Family::python) return from_import();
      if (word == "while" || word == "for" || word == "loop" || word == "until" || word == "repeat" || word == "forever" ||
          word == "foreach") {
        loops_ = true;
        ++at_;
        return;
      }
      if ((word == "const" || word == "let" || word == "var" || word == "my" || word == "local" || word == "our" || word == "def" ||
           word == "set") &&
          at_ + 1 < t_.size()) {
        if (word == "def" || (word == "set" && language_ != "tcl")) {
          ++at_;
          return;
        }
        ++at_;
        if (is("{")) return destructure();
        return;
      }
      if (word == "return" || word == "if" || word == "elif" || word == "else" || word == "unless" || word == "try" || word == "then" ||
          word == "do" || word == "end" || word == "and" || word == "or" || word == "not" || word == "print_" || word == "await" ||
          word == "yield" || word == "new" || word == "async" || word == "export" || word == "echo" || word == "with" || word == "as" ||
          word == "in" || word == "BEGIN" || word == "END" || word == "lambda" || word == "use" || word == "function" || word == "sub") {
        if (word == "sub" || word == "function") {
          ++at_;
          if (at_ < t_.size() && t_[at_].kind == Kind::name) ++at_;
          return;
        }
        if (word == "do" && family_ == Family::perl && at_ + 1 < t_.size() && t_[at_ + 1].kind == Kind::text) {
          // do FILE
        } else {
          ++at_;
          return;
        }
      }
      // name = expression, name: type = expression, $name = expression
      std::size_t ahead = 1;
      std::string name = word;
      while (at_ + ahead + 1 < t_.size() && is(".", ahead) && t_[at_ + ahead + 1].kind == Kind::name && family_ == Family::python) {
        name += "." + t_[at_ + ahead + 1].text;
        ahead += 2;
      }
      if (is("=", ahead) || is("+=", ahead) || is(".=", ahead) || (is(":", ahead) && is("=", ahead + 1))) {
        const bool appends = is("+=", ahead) || is(".=", ahead);
        at_ += ahead + (is(":", ahead) ? 2 : 1);
        skip_lines();
        Value value = expression(0);
        assign(name, std::move(value), appends);
        return;
      }
    }
    Value value = expression(0);
    trailing(value);
  }

  // What follows an expression in some languages: with open(…) as f; "cmd" | getline; print … > "file".
  void bind_loop(const std::string& name) { bind_each(name, expression(deepest_expression / 2)); }
  void bind_each(const std::string& name, Value over) {
    if (over.list) {
      Value one = over.items.size() == 1 ? over.items.front() : unknown_like(over);
      if (over.items.size() > 1) {
        // Any of them: one known text stands for all, the others go with it.
        std::vector<std::string> others;
        for (const auto& item : over.items) {
          if (!item.known) continue;
          if (one.known && others.size() < most_others) others.push_back(one.text);
          one = item;
        }
        one.exact = false;
        one.others = std::move(others);
      }
      variables_[name] = std::move(one);
    } else if (over.file || over.known) {
      over.exact = false;
      variables_[name] = std::move(over);
    }
  }

  void trailing(const Value& value) {
    if (family_ == Family::python && is_name("as") && at_ + 1 < t_.size() && t_[at_ + 1].kind == Kind::name) {
      variables_[t_[at_ + 1].text] = value;
      at_ += 2;
    }
  }

  void assign(const std::string& name, Value value, bool appends) {
    if (appends) {
      const auto known = variables_.find(name);
      if (known != variables_.end()) value = join(known->second, value);
      else value.exact = false;
    }
    const std::string bare = !name.empty() && name[0] == '$' ? name.substr(1) : name;
    if (starts_with(name, "os.environ") || starts_with(name, "process.env")) return;
    // Assigned twice in different branches: either may hold.
    if (!variables_.contains(name) && variables_.size() > 4096) return;
    variables_[name] = std::move(value);
    (void)bare;
  }

  void import() {
    ++at_;
    if (family_ == Family::c_like) {  // import x from 'm'; import {a as b} from 'm'; import * as x from 'm'
      std::vector<std::pair<std::string, std::string>> names;
      std::string whole;
      bool braces = false;
      while (!ended()) {
        if (is("{")) braces = true;
        if (is("}")) braces = false;
        if (t_[at_].kind == Kind::text) {
          const std::string module = t_[at_].text;
          if (!whole.empty()) variables_[whole] = path_value(bare_module(module));
          for (const auto& [name, alias] : names) variables_[alias] = path_value(bare_module(module) + "." + name);
          ++at_;
          return;
        }
        if (is("(")) {  // import('m')
          --at_;
          t_[at_].text = "require";
          return;
        }
        if (t_[at_].kind == Kind::name && t_[at_].text != "from" && t_[at_].text != "as" && t_[at_].text != "type") {
          if (braces) {
            std::string alias = t_[at_].text;
            if (is_name("as", 1) && at_ + 2 < t_.size()) {
              names.emplace_back(alias, t_[at_ + 2].text);
              at_ += 2;
            } else {
              names.emplace_back(alias, alias);
            }
          } else {
            whole = t_[at_].text;
          }
        }
        ++at_;
      }
      return;
    }
    while (!ended()) {
      std::string path;
      while (at_ < t_.size() && (t_[at_].kind == Kind::name || is("."))) {
        if (t_[at_].kind == Kind::name && t_[at_].text == "as") break;
        path += t_[at_].text;
        ++at_;
      }
      modules_.insert(path.substr(0, path.find('.')));
      if (is_name("as") && at_ + 1 < t_.size()) {
        variables_[t_[at_ + 1].text] = path_value(path);
        at_ += 2;
      }
      if (!is(",")) break;
      ++at_;
    }
  }

  void from_import() {
    ++at_;
    std::string path;
    while (at_ < t_.size() && !ended() && !is_name("import")) path += t_[at_++].text;
    if (!is_name("import")) return;
    ++at_;
    modules_.insert(path.substr(0, path.find('.')));
    if (is("*")) {
      stars_.push_back(path);
      ++at_;
      return;
    }
    while (at_ < t_.size() && !is(";")) {
      if (is("(") || is(")") || is(",") || (t_[at_].kind == Kind::line && !is_close())) {
        if (t_[at_].kind == Kind::line) break;
        ++at_;
        continue;
      }
      if (t_[at_].kind != Kind::name) break;
      const std::string name = t_[at_].text;
      ++at_;
      std::string alias = name;
      if (is_name("as") && at_ + 1 < t_.size()) {
        alias = t_[at_ + 1].text;
        at_ += 2;
      }
      variables_[alias] = path_value(fmt::format("{}.{}", path, name));
    }
  }
  bool is_close() const { return false; }

  void destructure() {  // const {a, b: c} = require('m')
    std::vector<std::pair<std::string, std::string>> names;
    ++at_;
    while (at_ < t_.size() && !is("}")) {
      if (t_[at_].kind == Kind::name) {
        std::string name = t_[at_].text, alias = name;
        if (is(":", 1) && at_ + 2 < t_.size() && t_[at_ + 2].kind == Kind::name) {
          alias = t_[at_ + 2].text;
          at_ += 2;
        }
        names.emplace_back(name, alias);
      }
      ++at_;
    }
    ++at_;
    if (!is("=")) return;
    ++at_;
    const Value value = expression(0);
    if (value.path)
      for (const auto& [name, alias] : names) variables_[alias] = path_value(value.text + "." + name);
  }

  static bool is_module(std::string_view name) {
    if (starts_with(name, "node:")) name.remove_prefix(5);
    return name == "child_process" || name == "fs" || name == "fs/promises" || name == "net" || name == "http" || name == "https" ||
           name == "dns" || name == "vm" || name == "os";
  }
  static std::string bare_module(std::string_view module) {
    if (starts_with(module, "node:")) module.remove_prefix(5);
    std::string out(module);
    std::replace(out.begin(), out.end(), '/', '.');
    return out;
  }
  static Value path_value(std::string path) {
    Value value;
    value.path = true;
    value.text = std::move(path);
    return value;
  }

  Value join(const Value& a, const Value& b) const {
    Value out;
    if (a.list && b.list) {
      out = a;
      out.exact = a.exact && b.exact;
      if (a.items.size() + b.items.size() > most_items) out.exact = false;
      else out.items.insert(out.items.end(), b.items.begin(), b.items.end());
      return out;
    }
    out.known = a.known || b.known;
    out.exact = a.exact && b.exact;
    out.text = (a.known ? a.text : std::string(unknown_part)) + (b.known ? b.text : std::string(unknown_part));
    out.flow = a.flow;
    out.flow.join(b.flow);
    for (const auto& other : a.others)
      if (out.others.size() < most_others && other.size() < 1024)
        out.others.push_back(other + (b.known ? b.text : std::string(unknown_part)));
    for (const auto& other : b.others)
      if (out.others.size() < most_others && other.size() < 1024)
        out.others.push_back((a.known ? a.text : std::string(unknown_part)) + other);
    if (out.text.size() > longest_value) {
      out.text.resize(longest_value);
      out.exact = false;
    }
    return out;
  }

  // Operators of all languages alike: what matters is whether texts are joined.
  Value expression(int depth) {
    Value left = primary(depth);
    int round = 0;
    while (at_ < t_.size() && ++round < 4096) {
      if (t_[at_].kind == Kind::line) break;
      const bool adjoins =
          (family_ == Family::awk || family_ == Family::python) &&
          (t_[at_].kind == Kind::text || (family_ == Family::awk && left.known &&
                                          (t_[at_].kind == Kind::name || t_[at_].kind == Kind::number || is("$")) && !is_name("getline")));
      if (adjoins && (family_ == Family::awk || left.known)) {
        left = join(left, primary(depth + 1));
        continue;
      }
      if (t_[at_].kind == Kind::name &&
          (t_[at_].text == "and" || t_[at_].text == "or" || t_[at_].text == "if" || t_[at_].text == "unless" || t_[at_].text == "x" ||
           t_[at_].text == "in" || t_[at_].text == "is" || t_[at_].text == "not" || t_[at_].text == "eq" || t_[at_].text == "ne")) {
        if (t_[at_].text == "x" && family_ != Family::perl) break;
        const bool conditional = t_[at_].text == "or" || t_[at_].text == "and";
        ++at_;
        if (at_ >= t_.size()) break;
        Value right = primary(depth + 1);
        if (!conditional) continue;
        left.exact = false;
        (void)right;
        continue;
      }
      if (family_ == Family::awk && is_name("getline")) {
        ++at_;
        left = unknown_value();
        continue;
      }
      if (t_[at_].kind != Kind::sign) break;
      const std::string sign = t_[at_].text;
      if (sign == "," || sign == ")" || sign == "]" || sign == "}" || sign == ";" || sign == "{" || sign == "=>" || sign == ":") break;
      if (sign == "?" && family_ != Family::c_like && family_ != Family::php && family_ != Family::perl && family_ != Family::ruby &&
          family_ != Family::awk)
        break;
      // awk: commands as files.
      if (family_ == Family::awk && (sign == "|" || sign == "|&")) {
        ++at_;
        if (is_name("getline")) {
          ++at_;
          if (at_ < t_.size() && t_[at_].kind == Kind::name) ++at_;
          if (sign == "|&" && starts_with(left.text, "/inet")) socket_path(left);
          else run_shell(left);
          left = unknown_value();
          left.flow.any = true;
          continue;
        }
        Value target = primary(depth + 1);
        if (sign == "|&" && starts_with(target.text, "/inet")) socket_path(target);
        else run_shell(target);
        continue;
      }
      if (family_ == Family::awk && (sign == ">" || sign == ">>") && printing_) {
        ++at_;
        Value target = expression(depth + 1);
        if (starts_with(target.text, "/inet")) socket_path(target);
        else c_.write(word_of(target));
        continue;
      }
      if (family_ == Family::awk && sign == "<" && getline_) {
        ++at_;
        getline_ = false;
        Value source = expression(depth + 1);
        if (starts_with(source.text, "/inet")) socket_path(source);
        else c_.read(word_of(source));
        continue;
      }
      ++at_;
      skip_lines();
      if (at_ >= t_.size()) break;
      if (sign == "+" || (sign == "." && (family_ == Family::perl || family_ == Family::php)) || (sign == ".." && family_ == Family::lua) ||
          (sign == "<>" && language_ == "elixir") || (sign == "&" && language_ == "applescript")) {
        left = join(left, primary(depth + 1));
        continue;
      }
      if (sign == "/" && left.file) {  // pathlib
        Value right = primary(depth + 1);
        left.text += "/" + right.text;
        left.exact = left.exact && right.exact;
        continue;
      }
      if (sign == "%" && left.known && family_ == Family::python) {
        Value right = primary(depth + 1);
        left = formatted(left, right.list ? right.items : std::vector<Value>{right});
        continue;
      }
      if (sign == "*" && left.known) {
        Value right = primary(depth + 1);
        const long times = right.text.size() < 6 ? std::atol(right.text.c_str()) : 0;
        std::string out;
        if (left.exact && times > 0 && static_cast<std::size_t>(times) * left.text.size() < longest_value) {
          for (long i = 0; i < times; ++i) out += left.text;
          left.text = out;
        } else {
          left.exact = false;
        }
        continue;
      }
      if (sign == "=" || sign == "+=" || sign == ".=") {
        Value right = expression(depth + 1);
        if (!target_.empty()) assign(target_, right, sign != "=");
        left = right;
        continue;
      }
      if (sign == "!" || sign == "~") continue;
      Value right = primary(depth + 1);
      if (sign == "||" || sign == "&&" || sign == "?" || sign == "??") {
        left.exact = false;
        continue;
      }
      Flow both = left.flow;
      both.join(right.flow);
      const bool number = !left.known;
      left = unknown_value();
      left.flow = both;
      left.flow.text.reset();
      (void)number;
    }
    return left;
  }

  Value formatted(const Value& format, const std::vector<Value>& values) const {
    Value out = format;
    out.text.clear();
    std::size_t next = 0;
    for (std::size_t i = 0; i < format.text.size(); ++i) {
      if (format.text[i] != '%' || i + 1 >= format.text.size()) {
        out.text += format.text[i];
        continue;
      }
      std::size_t end = i + 1;
      if (format.text[end] == '%') {
        out.text += '%';
        i = end;
        continue;
      }
      while (end < format.text.size() && std::string_view("0123456789.-+# ").find(format.text[end]) != std::string_view::npos) ++end;
      if (next < values.size() && values[next].known) {
        if (format.text[end < format.text.size() ? end : end - 1] == 'c' &&
            values[next].text.find_first_not_of("0123456789") == std::string::npos && values[next].text.size() < 7)
          append_utf8(out.text, static_cast<std::uint32_t>(std::atol(values[next].text.c_str())));
        else out.text += values[next].text;
        out.exact = out.exact && values[next].exact;
        out.flow.join(values[next].flow);
      } else {
        out.text += unknown_part;
        out.exact = false;
        if (next < values.size()) out.flow.join(values[next].flow);
      }
      ++next;
      i = end;
    }
    return out;
  }

  // "…#{x}…", f"…{x}…", "$x"
  Value interpolated(const std::string& text) {
    Value out = string_value({});
    std::size_t i = 0;
    while (i < text.size()) {
      std::string name;
      std::size_t end = i;
      if ((family_ == Family::ruby && text.substr(i, 2) == "#{") || (family_ == Family::c_like && text.substr(i, 2) == "${") ||
          (family_ == Family::ruby && language_ == "julia" && text.substr(i, 2) == "$(")) {
        int depth = 0;
        end = i + 1;
        do {
          if (text[end] == '{' || text[end] == '(') ++depth;
          if (text[end] == '}' || text[end] == ')') --depth;
          ++end;
        } while (end < text.size() && depth > 0);
        name = text.substr(i + 2, end - i - 3);
      } else if (family_ == Family::python && text[i] == '{') {
        if (i + 1 < text.size() && text[i + 1] == '{') {
          out.text += '{';
          i += 2;
          continue;
        }
        end = std::min(text.find('}', i), text.size() - 1) + 1;
        name = text.substr(i + 1, end - i - 2);
        if (const auto colon = name.find_first_of(":!"); colon != std::string::npos && name.find('(') == std::string::npos)
          name = name.substr(0, colon);
      } else if ((family_ == Family::perl || family_ == Family::php) && (text[i] == '$' || (text[i] == '@' && family_ == Family::perl)) &&
                 i + 1 < text.size() && (name_start(text[i + 1]) || digit(text[i + 1]) || text[i + 1] == '{' || text[i + 1] == '_')) {
        end = i + 1;
        const bool brace = text[end] == '{';
        if (brace) ++end;
        const std::size_t begin = end;
        while (end < text.size() && name_char(text[end])) ++end;
        name = "$" + text.substr(begin, end - begin);
        if (brace && end < text.size()) ++end;
      }
      if (end == i) {
        out.text += text[i++];
        continue;
      }
      i = end;
      Value part = unknown_value();
      if (const auto known = variables_.find(name); known != variables_.end()) {
        part = known->second;
      } else if (!name.empty() && depth_ < 6 &&
                 name.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_$") != std::string::npos) {
        // An expression of its own.
        auto tokens = Lexer(family_, name).run();
        std::swap(tokens, t_);
        const std::size_t at = std::exchange(at_, 0);
        ++depth_;
        if (!t_.empty()) part = expression(deepest_expression / 2);
        --depth_;
        std::swap(tokens, t_);
        at_ = at;
      } else if (names_secret(name)) {
        part.flow.any = true;
      }
      out.text += part.known ? part.text : std::string(unknown_part);
      out.exact = out.exact && part.exact;
      out.flow.join(part.flow);
      if (out.text.size() > longest_value) {
        out.text.resize(longest_value);
        out.exact = false;
        break;
      }
    }
    return out;
  }

  Value primary(int depth) {
    if (at_ >= t_.size()) return unknown_value();
    if (depth > deepest_expression) {
      ++at_;
      return unknown_value();
    }
    const Token token = t_[at_];
    Value value;
    target_.clear();
    switch (token.kind) {
      case Kind::line: ++at_; return unknown_value();
      case Kind::text:
        ++at_;
        value = token.inserts ? interpolated(token.text) : string_value(token.text);
        break;
      case Kind::command: {
        ++at_;
        value = token.inserts ? interpolated(token.text) : string_value(token.text);
        run_shell(value);
        value = unknown_value();
        value.flow.any = true;
        value.flow.local = true;
        break;
      }
      case Kind::number:
        ++at_;
        value = string_value(token.text);
        break;
      case Kind::sign:
        if (token.text == "(" || token.text == "[") {
          ++at_;
          std::vector<Value> items = arguments(token.text == "(" ? ")" : "]", depth);
          if (token.text == "(" && items.size() == 1) {
            value = std::move(items.front());
          } else {
            value.list = true;
            value.exact = std::all_of(items.begin(), items.end(), [](const Value& item) { return item.exact; });
            for (const auto& item : items) value.flow.join(item.flow);
            value.items = std::move(items);
          }
          break;
        }
        if (token.text == "{") {
          ++at_;
          std::vector<Value> items = arguments("}", depth);
          value = unknown_value();
          for (const auto& item : items) value.flow.join(item.flow);
          value.items = std::move(items);
          value.list = false;
          break;
        }
        if (token.text == ")" || token.text == "]" || token.text == "}" || token.text == "," || token.text == ";") return unknown_value();
        ++at_;  // a sign before a value: -, !, \, *, &, <
        if (token.text == "$" && family_ == Family::c_like && at_ < t_.size() && t_[at_].kind == Kind::text) {  // $`command`
          Value line = t_[at_].inserts ? interpolated(t_[at_].text) : string_value(t_[at_].text);
          ++at_;
          run_shell(line);
          return unknown_value();
        }
        if (token.text == "<" && family_ == Family::perl) {
          value = unknown_value();
          break;
        }
        return primary(depth + 1);
      case Kind::name: value = name(depth); break;
    }
    return postfix(std::move(value), depth);
  }

  // Separated by commas, up to `close`.
  std::vector<Value> arguments(std::string_view close, int depth) {
    std::vector<Value> out;
    keywords_.clear();
    std::map<std::string, Value> keywords;
    while (at_ < t_.size()) {
      skip_lines();
      if (at_ >= t_.size()) break;
      if (is(close)) {
        ++at_;
        break;
      }
      if (is(",") || is(";") || is("=>") || is(":")) {
        ++at_;
        continue;
      }
      // A closing mark of another kind: the text is not what it seems.
      if (is(")") || is("]") || is("}")) {
        if (close != "}") break;
        ++at_;
        continue;
      }
      const std::size_t before = at_;
      if (t_[at_].kind == Kind::name && (is("=", 1) || (is(":", 1) && !is("=", 2) && family_ != Family::perl) || is("=>", 1)) &&
          close != "]") {
        const std::string key = t_[at_].text;
        at_ += 2;
        Value value = expression(depth + 1);
        keywords[key] = value;
        if (close == "}") out.push_back(std::move(value));
      } else {
        Value value = expression(depth + 1);
        if (!value.items.empty() && !value.list) {
          // An object: its keys came through keywords_ of its own call.
          for (auto& [key, inner] : keywords_) keywords.emplace(key, inner);
        }
        out.push_back(std::move(value));
        // A comprehension: for … in …
        if (is_name("for") || is_name("if")) {
          while (at_ < t_.size() && !is(close) && !is(",")) {
            const std::size_t start = at_;
            expression(depth + 1);
            if (at_ == start) ++at_;
          }
          out.back().exact = false;
          if (out.back().known) out.back().text = std::string(unknown_part);
        }
      }
      if (at_ == before) ++at_;
    }
    keywords_ = std::move(keywords);
    return out;
  }

  Value name(int depth) {
    const std::string word = t_[at_].text;
    ++at_;
    if (family_ == Family::awk) {
      printing_ = printing_ || word == "print" || word == "printf";
      if (word == "getline") {
        getline_ = true;
        return unknown_value();
      }
      if (word == "print" || word == "printf") {
        Value value;
        if (!ended() && !is("}") && !is(">") && !is(">>") && !is("|")) value = expression(depth + 1);
        while (is(",")) {
          ++at_;
          expression(depth + 1);
        }
        printing_ = false;
        return unknown_value();
      }
    }
    if (word == "new" || word == "await" || word == "return" || word == "not" || word == "typeof" || word == "delete" || word == "void" ||
        word == "throw" || word == "yield" || word == "lambda" || word == "async" || word == "in" || word == "my" || word == "our" ||
        word == "local" || word == "const" || word == "let" || word == "var") {
      if (at_ < t_.size() && !ended()) {
        const bool made = word == "new";
        Value value = primary(depth + 1);
        if (made && value.path) value.text += "";
        return value;
      }
      return unknown_value();
    }
    target_ = word;
    if (family_ == Family::perl && (word == "unlink" || word == "rmdir") &&
        (ended() || is("}") || is(")") || is_name("or") || is_name("if") || is("$")))
      removes_unnamed_ = true;  // of $_
    if (word == "fork" && (family_ == Family::perl || family_ == Family::ruby) && !is("(")) ++forks_;
    if (const auto known = variables_.find(word); known != variables_.end()) return known->second;
    if (word == "ENV" || word == "environ" || word == "$ENV" || word == "$_ENV" || word == "$_SERVER" || word == "ENVIRON") {
      Value value = path_value("environment");
      return value;
    }
    return path_value(word);
  }

  Value postfix(Value value, int depth) {
    for (int round = 0; round < 512 && at_ < t_.size(); ++round) {
      const bool dotted = (is(".") && family_ != Family::perl && !(family_ == Family::php)) || is("->") || is("::") || is("?.") ||
                          (is(":") && family_ == Family::lua && at_ + 2 < t_.size() && t_[at_ + 1].kind == Kind::name &&
                           t_[at_ + 2].kind == Kind::sign && t_[at_ + 2].text == "(") ||
                          (is(":") && language_ == "erlang");
      if (is(".") && is("$", 1) && family_ == Family::c_like) {  // Bun.$`command`
        ++at_;
        return primary(depth + 1);
      }
      if (dotted && at_ + 1 < t_.size() && t_[at_ + 1].kind == Kind::name) {
        const std::string member = t_[at_ + 1].text;
        at_ += 2;
        target_.clear();
        if (value.path) {
          value.text += "." + member;
          if (const auto known = variables_.find(value.text); known != variables_.end()) value = known->second;
          else if (value.text == "os.environ" || value.text == "process.env" || value.text == "System.getenv" || value.text == "Deno.env")
            value = path_value("environment");
          else if (starts_with(value.text, "environment.")) value = environment(value.text.substr(12));
          else if (family_ == Family::ruby && !is("(") &&
                   (value.text == "Dir.home" || value.text == "Dir.pwd" || value.text == "Dir.tmpdir")) {
            std::vector<Value> none;
            if (auto made = pure(value.text, member, none)) value = std::move(*made);
          }
          continue;
        }
        // A method of a value.
        std::vector<Value> args;
        if (is("(")) {
          ++at_;
          args = arguments(")", depth);
        }
        if (family_ == Family::ruby && (is("{") || is_name("do")) && is("|", 1) && at_ + 2 < t_.size() && t_[at_ + 2].kind == Kind::name)
          bind_each(t_[at_ + 2].text, value);
        value = method(std::move(value), member, std::move(args));
        continue;
      }
      if (is("(") && (value.path || value.file)) {
        if (family_ == Family::awk && value.path && t_[at_].spaced) break;
        ++at_;
        std::vector<Value> args = arguments(")", depth);
        value = call(value, std::move(args), depth);
        continue;
      }
      if (is("(") && family_ != Family::lisp) {  // the value of an expression is called
        ++at_;
        std::vector<Value> args = arguments(")", depth);
        if (family_ == Family::php && value.exact && value.known) {  // a text that names a function
          value = call(path_value(value.text), std::move(args), depth);
          continue;
        }
        // createRequire(…)("child_process")
        if (family_ == Family::c_like && args.size() == 1 && args[0].exact && args[0].known && is_module(args[0].text)) {
          value = path_value(bare_module(args[0].text));
          continue;
        }
        Value out = unknown_value();
        for (const auto& arg : args) out.flow.join(arg.flow);
        out.flow.text.reset();
        value = std::move(out);
        continue;
      }
      if (is("[") && !t_[at_].spaced) {
        ++at_;
        // A slice by -1 turns the text round.
        if (is("::") && is("-", 1) && at_ + 2 < t_.size() && t_[at_ + 2].text == "1" && is("]", 3)) {
          at_ += 4;
          std::reverse(value.text.begin(), value.text.end());
          continue;
        }
        std::vector<Value> index = arguments("]", depth);
        value = indexed(std::move(value), index);
        continue;
      }
      if (is("{") && !t_[at_].spaced && value.path && (family_ == Family::perl) &&
          (value.text == "environment" || starts_with(value.text, "$"))) {
        ++at_;
        std::vector<Value> index = arguments("}", depth);
        if (index.size() == 1 && index[0].path) index[0] = string_value(index[0].text);
        value = indexed(std::move(value), index);
        continue;
      }
      // Arguments without parentheses.
      if (value.path && at_ < t_.size() && t_[at_].spaced && !ended() && takes_bare_arguments(value.text) &&
          (t_[at_].kind == Kind::text || t_[at_].kind == Kind::command || t_[at_].kind == Kind::name || t_[at_].kind == Kind::number ||
           is("[") || is("\\") || is("%"))) {
        if (t_[at_].kind == Kind::name &&
            (t_[at_].text == "if" || t_[at_].text == "unless" || t_[at_].text == "and" || t_[at_].text == "or" || t_[at_].text == "for" ||
             t_[at_].text == "while" || t_[at_].text == "do" || t_[at_].text == "in" || t_[at_].text == "as" || t_[at_].text == "is" ||
             t_[at_].text == "not"))
          break;
        std::vector<Value> args;
        keywords_.clear();
        do {
          if (is(",")) ++at_;
          skip_lines();
          const std::size_t before = at_;
          args.push_back(expression(depth + 1));
          if (at_ == before) break;
        } while (is(","));
        value = call(value, std::move(args), depth);
        continue;
      }
      if (family_ == Family::lua && value.path && at_ < t_.size() && t_[at_].kind == Kind::text) {
        std::vector<Value> args{primary(depth + 1)};
        value = call(value, std::move(args), depth);
        continue;
      }
      break;
    }
    return value;
  }

  bool takes_bare_arguments(std::string_view path) const {
    if (family_ == Family::perl || family_ == Family::ruby || family_ == Family::lisp || family_ == Family::other ||
        family_ == Family::php) {
      const auto dot = path.rfind('.');
      const auto last = dot == std::string_view::npos ? path : path.substr(dot + 1);
      if (function_table().contains(last)) return true;
      return last == "require" || last == "load" || last == "puts" || last == "print" || last == "p" || last == "do" || last == "script" ||
             last == "exec" || last == "die" || last == "decode_base64" || last == "pack" || last == "reverse" || last == "join" ||
             last == "shell" || last == "chr" || last == "printf" || last == "say" || last == "send";
    }
    return false;
  }

  Value indexed(Value value, const std::vector<Value>& index) {
    target_.clear();
    if (value.list && index.size() == 1 && index[0].exact && !index[0].text.empty() &&
        index[0].text.find_first_not_of("0123456789") == std::string::npos && index[0].text.size() < 6) {
      const auto at = static_cast<std::size_t>(std::atol(index[0].text.c_str()));
      if (at < value.items.size()) {
        Value item = value.items[at];
        return item;
      }
    }
    if (value.path && index.size() == 1 && index[0].known) {
      if (value.text == "environment") return environment(index[0].text);
      if (value.text == "globals" || value.text == "locals" || value.text == "vars" || value.text == "window" ||
          value.text == "globalThis" || value.text == "global")
        return path_value(index[0].text);
      // obj['name']
      value.text += "." + (index[0].exact ? index[0].text : std::string(unknown_part));
      if (value.text == "process.env") return path_value("environment");
      return value;
    }
    Flow flow = value.flow;
    Value out = unknown_value();
    out.flow = flow;
    out.flow.text.reset();
    return out;
  }

  Value environment(const std::string& name) {
    Value value = unknown_value();
    if (names_secret(name)) value.flow.secret = true;
    if (name == "HOME") {
      note_place(c_.where().home);
      return string_value(c_.where().home);
    }
    if (name == "get" || name == "copy" || name == "items" || name == "to_h") return path_value("environment." + name);
    return value;
  }

  // Methods of texts, lists and files.
  Value method(Value value, const std::string& name, std::vector<Value> args) {
    if (value.file) {
      const Word word{.text = value.text, .exact = value.exact};
      if (name == "unlink" || name == "rmdir" || name == "delete") c_.remove(word, false);
      else if (name == "rmtree") c_.remove(word, true);
      else if (name == "write_text" || name == "write_bytes" || name == "touch" || name == "write") {
        if (name == "touch") c_.create(word);
        else c_.write(word);
        return unknown_value();
      } else if (name == "read_text" || name == "read_bytes" || name == "read" || name == "readlines" || name == "readline") {
        return read_file(word);
      } else if (name == "mkdir") c_.create(word);
      else if (name == "open") {
        std::vector<Value> all{value};
        all.insert(all.end(), args.begin(), args.end());
        return open(all);
      } else if (name == "rename" || name == "replace") {
        c_.remove(word, false);
        if (!args.empty()) c_.write(word_of(args[0]));
      } else if (name == "chmod") c_.change_mode(word, false, "changes the mode");
      else if (name == "symlink_to" || name == "hardlink_to") {
        if (!args.empty()) c_.read(word_of(args[0]));
        c_.write(word);
      } else if (name == "joinpath" && !args.empty()) {
        value.text += "/" + args[0].text;
        value.exact = value.exact && args[0].exact;
        return value;
      } else if (name == "expanduser" || name == "resolve" || name == "absolute" || name == "parent") {
        if (name == "parent")
          value.text = value.text.substr(0, value.text.find_last_of('/') == std::string::npos ? 0 : value.text.find_last_of('/'));
        return value;
      } else if (name == "glob" || name == "rglob" || name == "iterdir") {
        const bool pattern = name != "iterdir" && !args.empty() && args[0].exact && args[0].known;
        value.text += (name == "rglob" ? "/**/" : "/") + (pattern             ? args[0].text
                                                          : name == "iterdir" ? std::string("*")
                                                                              : std::string("**"));
        value.exact = false;
        return value;
      }
      return value;
    }
    if (name == "read" || name == "readlines" || name == "text" || name == "json" || name == "content" || name == "body" ||
        name == "getvalue" || name == "communicate" || name == "stdout" || name == "readline" || name == "then" || name == "recv") {
      value.known = value.known && !value.flow.network;
      for (const auto& arg : args)
        if (arg.path && value.flow.network &&
            (arg.text == "eval" || arg.text == "Function" || arg.text.ends_with(".eval") || arg.text.ends_with("exec") ||
             arg.text.ends_with("execSync")))
          c_.report(Effect::remote_code, "runs what it fetches");
      if (name == "then") return value;
      return value;
    }
    if (value.list) {
      if (name == "join" && family_ != Family::python) {
        Value out = string_value({});
        for (std::size_t i = 0; i < value.items.size(); ++i) {
          if (i > 0 && !args.empty()) out.text += args[0].text;
          out = join(out, value.items[i]);
        }
        return out;
      }
      if (name == "reverse" || name == "reversed") {
        std::reverse(value.items.begin(), value.items.end());
        return value;
      }
      if (name == "pack" && !args.empty()) return pack(args[0].text, value.items);
      if (name == "map" || name == "each" || name == "forEach") {
        if (!args.empty() && args[0].path) call(args[0], {value}, 0);
        return unknown_like(value);
      }
      return value;
    }
    if (!value.known) {
      if (name == "execute" && language_ == "groovy") run_shell(value);
      for (const auto& arg : args) value.flow.join(arg.flow);
      // An unknown object's method: by its own name alone.
      Value callee = path_value("object." + name);
      return call(callee, std::move(args), 0, &value.flow);
    }
    if (name == "execute" && (language_ == "groovy")) {
      run_shell(value);
      return unknown_value();
    }
    if (name == "join" && !args.empty() && args[0].list) {
      Value out = string_value({});
      for (std::size_t i = 0; i < args[0].items.size(); ++i) {
        if (i > 0) out.text += value.text;
        out = join(out, args[0].items[i]);
      }
      return out;
    }
    if (name == "format") {
      Value out = value;
      out.text.clear();
      std::size_t next = 0;
      for (std::size_t i = 0; i < value.text.size(); ++i) {
        if (value.text[i] == '{') {
          const auto end = value.text.find('}', i);
          if (end == std::string::npos) break;
          const std::string key = value.text.substr(i + 1, end - i - 1);
          const std::size_t at = !key.empty() && key.find_first_not_of("0123456789") == std::string::npos && key.size() < 5
                                     ? static_cast<std::size_t>(std::atol(key.c_str()))
                                     : next++;
          const Value* part = keywords_.contains(key) ? &keywords_[key] : at < args.size() ? &args[at] : nullptr;
          out.text += part && part->known ? part->text : std::string(unknown_part);
          out.exact = out.exact && part && part->exact;
          if (part) out.flow.join(part->flow);
          i = end;
        } else {
          out.text += value.text[i];
        }
      }
      return out;
    }
    if (name == "decode" || name == "encode" || name == "strip" || name == "toString" || name == "trim" || name == "to_s" ||
        name == "to_str" || name == "rstrip" || name == "lstrip" || name == "chomp" || name == "toLowerCase" || name == "lower" ||
        name == "downcase" || name == "freeze" || name == "chop_") {
      if (!args.empty() && args[0].known) {
        const std::string how = lower_case(args[0].text);
        if (how == "rot13" || how == "rot_13") value.text = rot13(value.text);
        else if (how == "hex") {
          if (const auto out = hex_decode_loosely(value.text)) value.text = *out;
        } else if (how == "base64") {
          if (const auto out = base64_decode_loosely(value.text)) value.text = *out;
        }
      }
      if (name == "toLowerCase" || name == "lower" || name == "downcase") value.text = lower_case(value.text);
      return value;
    }
    if (name == "reverse" || name == "reversed") {
      std::reverse(value.text.begin(), value.text.end());
      return value;
    }
    if (name == "replace" || name == "gsub" || name == "sub" || name == "replaceAll") {
      if (args.size() > 1 && args[0].exact && args[1].known && !args[0].text.empty() && args[0].text != "regex") {
        std::size_t at = 0;
        int times = 0;
        while ((at = value.text.find(args[0].text, at)) != std::string::npos && ++times < 2000 && value.text.size() < longest_value) {
          value.text.replace(at, args[0].text.size(), args[1].text);
          at += args[1].text.size();
        }
        return value;
      }
      value.exact = false;
      value.text = std::string(unknown_part);
      return value;
    }
    if (name == "split") {
      Value out;
      out.list = true;
      out.exact = value.exact;
      const std::string mark = !args.empty() && args[0].exact ? args[0].text : " ";
      std::size_t at = 0;
      if (mark.empty()) {
        for (const char ch : value.text) out.items.push_back(string_value(std::string(1, ch)));
        return out;
      }
      while (at <= value.text.size() && out.items.size() < 4096) {
        const auto end = std::min(value.text.find(mark, at), value.text.size());
        if (end > at || mark != " ") out.items.push_back(string_value(value.text.substr(at, end - at)));
        at = end + mark.size();
      }
      return out;
    }
    if (name == "concat" && !args.empty()) {
      for (const auto& arg : args) value = join(value, arg);
      return value;
    }
    if (name == "unpack" || name == "unpack1") {
      if (!args.empty() && starts_with(args[0].text, "m"))
        if (const auto out = base64_decode_loosely(value.text)) return string_value(*out);
    }
    return unknown_like(value);
  }

  static Value unknown_like(const Value& value) {
    Value out = unknown_value();
    out.flow = value.flow;
    out.flow.text.reset();
    return out;
  }

  Value pack(const std::string& format, const std::vector<Value>& items) {
    if (!items.empty() && starts_with(format, "H") && items[0].exact) {
      if (const auto out = hex_decode_loosely(items[0].text)) return string_value(*out);
    }
    if (starts_with(format, "C") || starts_with(format, "c") || starts_with(format, "U") || starts_with(format, "W")) {
      std::string out;
      for (const auto& item : items) {
        if (!item.exact || item.text.size() > 7) return unknown_value();
        append_utf8(out, static_cast<std::uint32_t>(std::atol(item.text.c_str())));
      }
      return string_value(out);
    }
    return unknown_value();
  }

  // Functions that only make values of values; nothing when it is none of these.
  std::optional<Value> pure(std::string_view path, std::string_view last, std::vector<Value>& args) {
    const auto exact = [&args](std::size_t i) { return i < args.size() && args[i].exact && args[i].known; };
    const auto code_point = [](const Value& value) {
      if (starts_with(value.text, "0x")) return static_cast<std::uint32_t>(std::strtoul(value.text.c_str(), nullptr, 16));
      return static_cast<std::uint32_t>(value.text.size() < 8 ? std::atol(value.text.c_str()) : 0);
    };
    if (last == "chr" || last == "unichr" || last == "fromCharCode" || last == "fromCodePoint" ||
        (last == "char" && path.find("string") != std::string_view::npos) || last == "intToUtf8") {
      std::string out;
      const std::vector<Value>* from = &args;
      if (args.size() == 1 && args[0].list) from = &args[0].items;
      for (const auto& arg : *from) {
        if (!arg.exact) return unknown_value();
        append_utf8(out, code_point(arg));
      }
      return string_value(out);
    }
    if (last == "b64decode" || last == "atob" || last == "base64_decode" || last == "decode_base64" || last == "decode64" ||
        last == "urlsafe_b64decode" || last == "strict_decode64" || last == "urlsafe_decode64" || last == "b64decode!" ||
        last == "standard_b64decode" || last == "a2b_base64" || last == "base64decode") {
      if (exact(0))
        if (auto out = base64_decode_loosely(args[0].text)) return string_value(*out);
      Value value = unknown_value();
      if (!args.empty()) value.flow = args[0].flow;
      value.flow.text.reset();
      value.flow.decoded = true;
      return value;
    }
    if (last == "fromhex" || last == "unhexlify" || last == "hex2bin" || last == "a2b_hex") {
      if (exact(0))
        if (auto out = hex_decode_loosely(args[0].text)) return string_value(*out);
      Value value = unknown_value();
      value.flow.decoded = true;
      return value;
    }
    if (last == "decompress" || last == "gzinflate" || last == "gzuncompress" || last == "gzdecode" || last == "inflate" ||
        last == "inflateSync" || last == "gunzipSync" || last == "decrypt" || last == "uncompress" || last == "inflateRawSync" ||
        last == "unzipSync" || last == "brotliDecompressSync") {
      Value value = unknown_value();
      for (const auto& arg : args) value.flow.join(arg.flow);
      value.flow.text.reset();
      value.flow.decoded = true;
      return value;
    }
    if (last == "str_rot13") return exact(0) ? string_value(rot13(args[0].text)) : unknown_value();
    if (last == "strrev" || last == "reversed" || (last == "reverse" && family_ != Family::c_like)) {
      if (!args.empty() && args[0].list) {
        std::reverse(args[0].items.begin(), args[0].items.end());
        return args[0];
      }
      if (!exact(0)) return unknown_value();
      Value value = args[0];
      std::reverse(value.text.begin(), value.text.end());
      return value;
    }
    if ((last == "from" && path.find("Buffer") != std::string_view::npos) || (path == "codecs.decode" || path == "codecs.encode") ||
        path == "bytes" || path == "str" || path == "bytearray" || path == "String" || path == "tostring" || path == "Buffer" ||
        last == "bytes_to_str" || path == "repr") {
      if (args.empty()) return string_value({});
      if (args[0].list) {
        std::string out;
        for (const auto& item : args[0].items) {
          if (!item.exact) return unknown_like(args[0]);
          append_utf8(out, code_point(item));
        }
        return string_value(out);
      }
      Value value = args[0];
      if (args.size() > 1 && args[1].exact) {
        const std::string how = lower_case(args[1].text);
        if (how == "base64" && value.exact) {
          if (auto out = base64_decode_loosely(value.text)) value.text = *out;
        } else if (how == "hex" && value.exact) {
          if (auto out = hex_decode_loosely(value.text)) value.text = *out;
        } else if (how == "rot13" || how == "rot_13") {
          value.text = rot13(value.text);
        }
        if (!value.exact && (how == "base64" || how == "hex" || how == "rot13")) value.flow.decoded = true;
      }
      return value;
    }
    if (last == "unescape" || last == "decodeURIComponent" || last == "decodeURI" || last == "unquote" || last == "urldecode" ||
        last == "rawurldecode" || last == "URLdecode") {
      if (!exact(0)) return args.empty() ? unknown_value() : unknown_like(args[0]);
      std::string out;
      const std::string& text = args[0].text;
      for (std::size_t i = 0; i < text.size(); ++i) {
        if (text[i] == '%' && i + 2 < text.size() && hex_digit(text[i + 1]) >= 0 && hex_digit(text[i + 2]) >= 0) {
          out += static_cast<char>(hex_digit(text[i + 1]) * 16 + hex_digit(text[i + 2]));
          i += 2;
        } else {
          out += text[i];
        }
      }
      return string_value(out);
    }
    if (last == "join" || last == "implode" || last == "concat" || last == "paste0" || last == "paste" || last == "file.path") {
      // os.path.join, path.join, implode('', […]), join('', …), table.concat
      Value out = string_value({});
      const bool is_path = path.find("path") != std::string_view::npos || path == "File.join" || last == "file.path";
      // Names that stand for something, joined: still such a name.
      if (is_path && !args.empty() && args[0].path) return path_value("object.joined");
      if (is_path) {
        for (std::size_t i = 0; i < args.size(); ++i) {
          if (starts_with(args[i].text, "/") && args[i].known && family_ == Family::python) {
            out = args[i];
            continue;
          }
          if (i > 0 && !out.text.ends_with('/') && !starts_with(args[i].text, "/")) out.text += "/";
          out = join(out, args[i]);
        }
        return out;
      }
      std::string separator = last == "paste" ? " " : "";
      std::vector<Value> items;
      for (std::size_t i = 0; i < args.size(); ++i) {
        if (args[i].list) items.insert(items.end(), args[i].items.begin(), args[i].items.end());
        else if (i == 0 && (last == "join" || last == "implode")) separator = args[i].text;
        else if (last == "concat" && i > 0 && args[0].list) separator = args[i].text;
        else items.push_back(args[i]);
      }
      for (std::size_t i = 0; i < items.size(); ++i) {
        if (i > 0) out.text += separator;
        out = join(out, items[i]);
      }
      return out;
    }
    if (last == "sprintf" || (last == "format" && (path == "format" || path == "string.format" || path == "Kernel.format" ||
                                                   path == "util.format" || path == "String.format"))) {
      if (args.empty() || !args[0].known) return unknown_value();
      return formatted(args[0], {args.begin() + 1, args.end()});
    }
    if (last == "pack" && !args.empty()) return pack(args[0].text, {args.begin() + 1, args.end()});
    if (path == "getattr" || path == "Reflect.get" || path == "Object.const_get" || path == "Kernel.const_get") {
      if (args.size() > 1) {
        if (exact(1)) return path_value((args[0].path ? args[0].text : std::string("object")) + "." + args[1].text);
        if (args[0].path && (args[0].text == "os" || args[0].text == "subprocess" || args[0].text == "builtins" || args[0].text == "pty")) {
          c_.report(Effect::unknown, "calls a function of " + args[0].text + " whose name cannot be told", args[0].text, false);
        }
      }
      return unknown_value();
    }
    if (path == "__import__" || path == "importlib.import_module" || path == "require" || path == "import_module" ||
        path == "importlib.__import__") {
      if (exact(0)) {
        if (starts_with(args[0].text, "./") || starts_with(args[0].text, "../") || starts_with(args[0].text, "/")) {
          if (family_ == Family::c_like || family_ == Family::ruby || family_ == Family::lua)
            c_.report(Effect::execute, "loads " + args[0].text, args[0].text);
          return unknown_value();
        }
        return path_value(bare_module(args[0].text));
      }
      if (!args.empty()) c_.report(Effect::unknown, "loads a module whose name cannot be told", {}, false);
      return unknown_value();
    }
    if (path == "globals" || path == "locals" || path == "vars" || path == "dir") return path_value("globals");
    if (last == "expanduser" || last == "expand_path" || last == "abspath" || last == "realpath" || last == "normpath" ||
        last == "path.expand" || last == "normalize" || last == "resolve") {
      if (last == "resolve" && path.find("path") == std::string_view::npos) return {};
      if (args.empty()) return unknown_value();
      if (last == "resolve" && args.size() > 1) {
        Value out = args[0];
        for (std::size_t i = 1; i < args.size(); ++i) {
          out.text += "/";
          out = join(out, args[i]);
        }
        return out;
      }
      return args[0];
    }
    if (last == "homedir" || path == "Path.home" || path == "Dir.home" || path == "pathlib.Path.home") {
      Value home = string_value(c_.where().home);
      home.file = last == "home" && path != "Dir.home";
      note_place(home.text);
      return home;
    }
    if (last == "gettempdir" || last == "tmpdir" || last == "mkdtemp" || last == "mktemp" || last == "mkstemp" ||
        last == "sys_get_temp_dir" || last == "TemporaryDirectory" || last == "NamedTemporaryFile" || last == "tempnam")
      return string_value("/tmp/x");
    if (last == "getcwd" || last == "cwd" || last == "pwd")
      return string_value(c_.where().working_folder.empty() ? "." : c_.where().working_folder);
    if (last == "Array" || path == "list" || path == "tuple" || path == "Array.from" || path == "c" || last == "array") {
      if (args.size() == 1 && args[0].list) return args[0];
      Value out;
      out.list = true;
      out.items = args;
      out.exact = std::all_of(args.begin(), args.end(), [](const Value& v) { return v.exact; });
      return out;
    }
    if (path == "shlex.split" && !args.empty()) return method(args[0], "split", {});
    if (last == "quote" || last == "escapeshellarg" || last == "escapeshellcmd") return args.empty() ? unknown_value() : args[0];
    return {};
  }

  Value read_file(const Word& word) {
    reads_files_ = true;
    Flow before = std::exchange(c_.output, Flow{});
    c_.read(word);
    Value value = unknown_value();
    value.flow = std::exchange(c_.output, before);
    value.flow.text.reset();
    if (looks_like_url(word.text) && !starts_with(lower_case(word.text), "file:")) value.flow.network = true;
    if (value.flow.network) c_.output.network = true;
    return value;
  }

  Value open(const std::vector<Value>& args) {
    if (args.empty()) return unknown_value();
    std::string mode = args.size() > 1 && args[1].exact ? args[1].text : keywords_.contains("mode") ? keywords_["mode"].text : "r";
    Value target = args[0];
    // Perl: open(F, ">file"), open(F, ">", "file"), open(F, "|cmd"), open(F, "-|", "cmd")
    if (family_ == Family::perl && args.size() > 1) {
      target = args[1];
      if (args.size() > 2) {
        mode = args[1].text;
        target = args[2];
        if (mode.find('|') != std::string::npos) {
          if (args.size() > 3) run_argv({args.begin() + 2, args.end()});
          else run_shell(target);
          return unknown_value();
        }
      } else {
        mode = "<";
        const auto first = target.text.find_first_not_of(' ');
        if (first != std::string::npos) {
          if (target.text[first] == '|') {
            target.text = target.text.substr(first + 1);
            run_shell(target);
            return unknown_value();
          }
          if (target.text.back() == '|') {
            target.text.pop_back();
            run_shell(target);
            return unknown_value();
          }
          if (target.text[first] == '>' || target.text.substr(first, 2) == "+<") {
            mode = ">";
            target.text = target.text.substr(target.text.find_first_not_of("+<> ", first) == std::string::npos
                                                 ? target.text.size()
                                                 : target.text.find_first_not_of("+<> ", first));
          } else if (target.text[first] == '<') {
            target.text = target.text.substr(target.text.find_first_not_of("< ", first));
          }
        }
      }
      mode = mode.find('>') != std::string::npos || mode.find('+') != std::string::npos ? "w" : "r";
    }
    if (family_ == Family::ruby && starts_with(target.text, "|")) {
      target.text.erase(0, 1);
      run_shell(target);
      return unknown_value();
    }
    const Word word = word_of(target);
    if (target.path || !target.known) reads_unnamed_ = true;
    if (looks_like_url(word.text) && !starts_with(lower_case(word.text), "file:")) {
      c_.fetch(word);
      Value value = unknown_value();
      value.flow.network = true;
      return value;
    }
    const bool writes = mode.find_first_of("wax+") != std::string::npos || mode.find("O_WRONLY") != std::string::npos ||
                        mode.find("O_RDWR") != std::string::npos;
    if (writes) {
      c_.write(word);
      Value value = target;
      value.file = value.known;
      return unknown_value();
    }
    return read_file(word);
  }

  void socket_path(const Value& value) {
    // /inet/tcp/0/host/port
    std::string_view text = value.text;
    std::size_t at = 0;
    for (int i = 0; i < 4 && at != std::string_view::npos; ++i) at = text.find('/', at + 1);
    const std::string host = at == std::string_view::npos ? std::string{} : host_of(text.substr(at + 1, text.find('/', at + 1) - at - 1));
    remote_ = host.empty() ? "a host" : host;
    if (!is_loopback(host)) c_.report(Effect::fetch, "connects to " + remote_, host);
  }

  void run_shell(const Value& value) {
    c_.report(Effect::execute, "starts a program");
    if (value.list) return run_argv(value.items);
    if (value.flow.network || value.flow.decoded) {
      if (!value.exact) return c_.report(Effect::remote_code, "runs what was fetched or decoded");
    }
    if (!value.known) return c_.report(Effect::unknown, "runs a command that cannot be told before it runs", {}, false);
    const std::string first = program_name(value.text.substr(0, value.text.find(' ')));
    if (is_shell(first)) spawns_shell_ = true;
    Word word = word_of(value);
    c_.shell(word, std::string(language_));
  }

  void run_argv(const std::vector<Value>& values) {
    std::vector<Word> words;
    for (const auto& value : values) {
      if (value.list) {
        for (const auto& item : value.items) words.push_back(word_of(item));
      } else if (value.known) {
        words.push_back(word_of(value));
      } else if (value.items.empty()) {
        if (value.flow.network || value.flow.decoded) return c_.report(Effect::remote_code, "runs what was fetched or decoded");
        words.push_back({.text = std::string(unknown_part), .exact = false});
      }
    }
    c_.report(Effect::execute, "starts a program");
    if (words.empty()) return c_.report(Effect::unknown, "runs a command that cannot be told before it runs", {}, false);
    if (words.front().text == unknown_part)
      return c_.report(Effect::unknown, "runs a command that cannot be told before it runs", {}, false);
    if (is_shell(program_name(words.front().text))) spawns_shell_ = true;
    c_.command_words(std::move(words), std::string(language_));
  }

  // Once for each that the arguments may be.
  Value call(const Value& callee, std::vector<Value> args, int depth, const Flow* receiver = nullptr) {
    for (std::size_t i = 0; i < args.size(); ++i) {
      const auto others = std::exchange(args[i].others, {});
      for (const auto& other : others) {
        if (++repeated_ > most_repeated) break;
        auto again = args;
        again[i].text = other;
        const auto keywords = keywords_;
        call_once(callee, std::move(again), depth, receiver);
        keywords_ = keywords;
      }
    }
    return call_once(callee, std::move(args), depth, receiver);
  }

  // The function of the table that a path names; null when none.
  const Function* function_of(std::string_view last, std::string_view before) const {
    const auto found = function_table().find(last);
    if (found == function_table().end()) return nullptr;
    // The most specific entry that fits.
    const Function* chosen = nullptr;
    for (const Function* function : found->second) {
      const bool bare = function->qualifier == "^";
      if (bare && !(before.empty() || before == "builtins" || before == "__builtins__" || before == "Kernel" || before == "globals" ||
                    before == "window" || before == "globalThis" || before == "global" || before == "object_"))
        continue;
      if (!bare && !function->qualifier.empty()) {
        // A qualifier of one letter is a whole name.
        const bool whole = function->qualifier.size() <= 2;
        if (whole ? !(before == function->qualifier || before.ends_with("." + std::string(function->qualifier)) || before == "object")
                  : before.find(function->qualifier) == std::string_view::npos)
          continue;
      }
      if (!chosen || (chosen->qualifier.empty() && !function->qualifier.empty())) chosen = function;
    }
    return chosen;
  }

  // Functions that are given a function: map(os.remove, names), array_map("unlink", …), names.forEach(fs.unlinkSync).
  void pass_on(std::vector<Value> args) {
    for (const auto& [key, value] : keywords_)
      if (key == "target" || key == "func" || key == "fn" || key == "function" || key == "key") args.push_back(value);
    for (std::size_t i = 0; i < args.size() && i < 4; ++i) {
      std::string path = args[i].text;
      if (!args[i].path) {
        if (family_ != Family::php || !args[i].exact || !args[i].known || path.size() > 40) continue;
      }
      const auto dot = path.find_last_of('.');
      const auto last = dot == std::string::npos ? path : path.substr(dot + 1);
      const auto before = dot == std::string::npos ? std::string() : path.substr(0, dot);
      if (function_of(last, before) == nullptr) continue;
      std::vector<Value> rest;
      for (std::size_t k = 0; k < args.size(); ++k)
        if (k != i && !args[k].path) rest.push_back(args[k]);
      if (keywords_.contains("args")) rest.push_back(keywords_["args"]);
      if (rest.empty()) rest.push_back(unknown_value());
      call_once(path_value(path), std::move(rest), 0);
      return;
    }
  }

  static bool says_sql(std::string_view text) {
    const auto begin = text.find_first_not_of(" \t\r\n(");
    if (begin == std::string_view::npos) return false;
    const auto word = lower_case(text.substr(begin, std::min<std::size_t>(text.find_first_of(" \t\r\n;(", begin), text.size()) - begin));
    static constexpr std::array<std::string_view, 22> verbs{
        "select", "insert", "update", "delete", "drop",    "truncate", "alter",  "create", "grant", "revoke", "copy",
        "with",   "pragma", "attach", "begin",  "replace", "merge",    "vacuum", "set",    "show",  "use",    "explain"};
    return begin + word.size() < text.size() && std::find(verbs.begin(), verbs.end(), word) != verbs.end();
  }

  Value call_once(const Value& callee, std::vector<Value> args, int depth, const Flow* receiver = nullptr) {
    (void)depth;
    std::string path = callee.text;
    for (auto at = path.find("::"); at != std::string::npos; at = path.find("::")) path.replace(at, 2, ".");
    const auto dot = path.find_last_of('.');
    std::string last = dot == std::string::npos ? path : path.substr(dot + 1);
    std::string_view before = dot == std::string::npos ? std::string_view{} : std::string_view(path).substr(0, dot);
    if (last == "apply" || (last == "call" && before != "subprocess") || last == "bind") {  // f.call(null, x)
      const auto outer = before.find_last_of('.');
      if (outer != std::string_view::npos && !args.empty() && function_table().contains(before.substr(outer + 1))) {
        last = std::string(before.substr(outer + 1));
        before = before.substr(0, outer);
        args.erase(args.begin());
      }
    }
    if (family_ == Family::c_like && (last == "require" || path == "import") && args.size() == 1 && args[0].exact)
      return *pure("require", "require", args);
    if (path == "environment.get" || path == "environment.fetch" || path == "environment") {
      if (!args.empty() && args[0].exact) return environment(args[0].text);
      Value value = unknown_value();
      value.flow.secret = true;
      return value;
    }
    if (path == "list.files" || path == "file.remove" || path == "dyn.load" || path == "download.file") {
      last = path;
      before = {};
    }
    if (path == "do.shell.script") last = "do_shell_script";
    if (auto value = pure(path, last, args)) return *value;

    Value result = unknown_value();
    for (const auto& arg : args) {
      Flow flow = arg.flow;
      flow.text.reset();
      result.flow.join(flow);
    }
    if (receiver) result.flow.join(*receiver);
    result.flow.text.reset();
    if (last == "print" || last == "println" || last == "puts" || last == "log" || last == "echo" || last == "say" || last == "printf" ||
        last == "write" || last == "p" || last == "dump" || last == "info") {
      for (const auto& arg : args)
        if (arg.flow.secret && !arg.flow.network) c_.report(Effect::credential_access, "prints a secret", {}, false);
    }
    if (before != "os" && !args.empty() && args[0].known && says_sql(args[0].text) &&
        (last == "execute" || last == "executemany" || last == "executescript" || last == "query" || last == "exec" || last == "run" ||
         last == "raw" || last == "do" || last == "prepare" || last == "executeUpdate" || last == "exec_query" || last == "text" ||
         last.find("query") != std::string::npos || last.find("Query") != std::string::npos || last.find("Raw") != std::string::npos)) {
      c_.sql(word_of(args[0]));
      return result;
    }
    if (cloud_call(last, args)) return result;
    const Function* chosen = function_of(last, before);
    if (!chosen && before.empty())
      for (const auto& module : stars_)
        if (const Function* known = function_of(last, module); known != nullptr && !chosen) {
          chosen = known;
          before = module;
        }
    if (!function_table().contains(last)) {
      pass_on(std::move(args));
      return result;
    }
    if (!chosen && family_ == Family::c_like && last == "exec" && before.empty()) {
      // A bare exec of Node comes from child_process.
      if (!args.empty()) run_shell(args[0]);
      return result;
    }
    if (!chosen) return result;
    if (chosen->does == Does::code &&
        (family_ == Family::perl || family_ == Family::ruby || family_ == Family::php || family_ == Family::other) && last == "exec") {
      if (args.size() > 1) run_argv(args);
      else if (!args.empty()) run_shell(args[0]);
      return result;
    }
    return act(*chosen, before, args, std::move(result));
  }

  // Libraries that speak to clouds and containers; true when it is such a call.
  bool cloud_call(std::string_view last, const std::vector<Value>& args) {
    const auto has = [this](std::string_view module) { return modules_.contains(std::string(module)); };
    if (has("docker") && (last == "run" || last == "create" || last == "exec_run")) {
      const auto names_host = [](const Value& value) {
        return value.known && (value.text == "/" || starts_with(value.text, "/etc") || value.text == "/var/run/docker.sock" ||
                               value.text == "host" || starts_with(value.text, "/:") || starts_with(value.text, "/var/run/docker.sock:"));
      };
      for (const auto& [key, value] : keywords_) {
        const bool host = names_host(value) || std::any_of(value.items.begin(), value.items.end(), names_host);
        if ((key == "privileged" && value.text != "False") || ((key == "volumes" || key == "pid_mode" || key == "network_mode") && host) ||
            key == "cap_add" || key == "devices")
          c_.report(Effect::container_escape, "starts a container with rights on the host", key);
      }
      return false;
    }
    if (!has("boto3") && !has("google") && !has("azure") && !has("kubernetes") && !has("docker") && !has("pymongo") && !has("redis") &&
        !has("elasticsearch"))
      return false;
    for (const std::string_view verb : {"delete", "terminate", "destroy", "drop", "purge", "remove", "prune", "flushall", "flushdb"}) {
      if (!starts_with(lower_case(last), verb) || (last == "remove" && !args.empty() && args[0].list)) continue;
      c_.report(Effect::database_destruction, "deletes what a service keeps: " + std::string(last), std::string(last));
      return true;
    }
    return false;
  }

  void send(const std::vector<Value>& args, std::size_t from, const std::string& host, std::string_view how) {
    Flow flow;
    bool some = false;
    const auto add = [&](const Value& value) {
      some = true;
      Flow part = value.flow;
      part.text.reset();
      flow.join(part);
      for (const auto& item : value.items) {
        Flow inner = item.flow;
        inner.text.reset();
        flow.join(inner);
      }
    };
    for (std::size_t i = from; i < args.size(); ++i) add(args[i]);
    for (const auto& [key, value] : keywords_)
      if (key == "data" || key == "json" || key == "files" || key == "body" || key == "params" || key == "headers" || key == "content" ||
          key == "form" || key == "payload" || key == "message")
        add(value);
    if (flow.secret || flow.local) c_.send_flow(flow, host, how);
    else if (some) c_.report(Effect::send, "sends to " + (host.empty() ? std::string("a host") : host), host);
  }

  Value act(const Function& function, std::string_view before, std::vector<Value>& args, Value result) {
    const auto word = [&args](std::size_t i) {
      return i < args.size() ? word_of(args[i]) : Word{.text = std::string(unknown_part), .exact = false};
    };
    const std::string host = args.empty() ? std::string{} : host_of(args[0].known ? args[0].text : std::string{});
    switch (function.does) {
      case Does::shell:
        if (!args.empty()) {
          if (args.size() > 1 && (family_ == Family::perl || family_ == Family::ruby) && args[0].known && args[1].known) run_argv(args);
          else if (language_ == "r" && function.name == "system2") run_argv(args);
          else if (args[0].file || args[0].known || args[0].list || !args[0].path) run_shell(args[0]);
          else if (args[0].path) run_shell(unknown_like(args[0]));
        }
        result.flow.local = true;
        result.flow.any = true;
        return result;
      case Does::argv: {
        if (args.empty()) {
          if (keywords_.contains("args")) args.push_back(keywords_["args"]);
          else return result;
        }
        std::string_view name = function.name;
        // execl("/bin/sh", "sh", "-c", …): the second argument is only a name.
        if (starts_with(name, "execl") || starts_with(name, "spawnl")) {
          if (starts_with(name, "spawn") && args.size() > 1) args.erase(args.begin());
          if (args.size() > 1) args.erase(args.begin() + 1);
        } else if ((starts_with(name, "execv") || starts_with(name, "posix_spawn") || starts_with(name, "spawnv")) && args.size() > 1) {
          if (starts_with(name, "spawnv")) args.erase(args.begin());
          if (args.size() > 1 && args[1].list && !args[1].items.empty()) args[1].items.erase(args[1].items.begin());
          if (args.size() > 2) args.resize(2);
        }
        if (args.size() == 1 && args[0].known && args[0].text.find_first_of(" ;|&$`<>") != std::string::npos) run_shell(args[0]);
        else run_argv(args);
        result.flow.local = true;
        result.flow.any = true;
        return result;
      }
      case Does::code:
        if (args.empty()) return result;
        if (args[0].path && (family_ == Family::python || family_ == Family::c_like) && function.name == "compile") return result;
        if (args[0].exact && args[0].known) {
          if (function.name == "assert" && family_ != Family::php) return result;
          if (depth_ < 8 && c_.run.depth < deepest_assessment) {
            // The text of the last argument is the body of Function('a', 'body').
            const Value& body = function.name == "Function" ? args.back() : args[0];
            auto tokens = Lexer(family_, body.text).run();
            std::swap(tokens, t_);
            const std::size_t at = std::exchange(at_, 0);
            ++depth_;
            while (at_ < t_.size()) {
              const std::size_t start = at_;
              statement();
              if (at_ == start) ++at_;
            }
            --depth_;
            std::swap(tokens, t_);
            at_ = at;
          }
          return function.name == "compile" ? args[0] : result;
        }
        if (function.name == "assert" || function.name == "compile") return result;
        if (args[0].flow.network || args[0].flow.decoded) c_.report(Effect::remote_code, "runs program text that was fetched or decoded");
        else if (args[0].list) return result;
        else if (function.name == "load" && family_ != Family::lua) return result;
        else c_.report(Effect::unknown, "runs program text that cannot be told before it runs", {}, false);
        return result;
      case Does::code_file:
        if (args.empty() || (!args[0].known && !args[0].flow.network)) return result;
        if (args[0].flow.network && !args[0].known) c_.report(Effect::remote_code, "runs what was fetched");
        else c_.run_file(word(0), language_);
        return result;
      case Does::pickle:
        if (!args.empty() && (args[0].flow.network || args[0].flow.decoded))
          c_.report(Effect::remote_code, "turns what was fetched or decoded into live objects");
        return result;
      case Does::remove:
      case Does::remove_tree: {
        const bool tree = function.does == Does::remove_tree;
        for (std::size_t i = 0; i < args.size(); ++i) {
          if (i > 0 && !(family_ == Family::perl || family_ == Family::ruby)) break;
          if (args[i].list) {
            for (const auto& item : args[i].items) c_.remove(word_of(item), tree);
          } else if (args[i].known || args[i].file) {
            if (args[i].text == "regex") continue;
            c_.remove(word(i), tree || (language_ == "r" && keywords_.contains("recursive")));
          } else if (args[i].path) {  // a name that stands for something
            removes_unnamed_ = true;
            if (i == 0) c_.report(Effect::remove, "deletes a file that cannot be told", {}, false);
          } else if (i == 0) {
            removes_unnamed_ = true;
            c_.remove(word(i), tree);
          }
        }
        return result;
      }
      case Does::write_first:
        if (!args.empty() && !args[0].list) {
          c_.write(word(0));
          if (args.size() > 1 && args[1].flow.network) c_.run.files[c_.path_of(word(0))].network = true;
        }
        return result;
      case Does::write_second:
        if (args.size() > 1) {
          if (args[0].list) {
            for (const auto& item : args[0].items) c_.read(word_of(item));
          } else {
            function.name == "copytree" || function.name == "cp_r" || function.name == "cpSync" ? c_.read_tree(word(0)) : c_.read(word(0));
          }
          c_.write(word(1));
        }
        return result;
      case Does::move:
        if (args.size() > 1) {
          if (args[0].known) c_.remove(word(0), false);
          c_.write(word(1));
        }
        return result;
      case Does::link:
        if (args.size() > 1) {
          c_.read(word(0));
          c_.write(word(1));
        }
        return result;
      case Does::mkdir:
        if (!args.empty() && args[0].known) c_.create(word(0));
        return result;
      case Does::mode: {
        std::size_t path = 0;
        // Ruby and Perl name the mode first.
        if ((family_ == Family::ruby || family_ == Family::perl) && args.size() > 1) path = args.size() - 1;
        if (path >= args.size()) return result;
        for (const auto& arg : args) {
          std::string mode = arg.text;
          if (starts_with(mode, "0o")) mode = mode.substr(2);
          if (arg.exact && mode.find_first_not_of("01234567") == std::string::npos && mode.size() >= 4 && mode.size() <= 6) {
            const std::string three = mode.substr(mode.size() - 4);
            if (((three[0] - '0') & 6) != 0) c_.report(Effect::privilege_escalation, "sets the set-id bit");
          }
          if (arg.text.find("S_ISUID") != std::string::npos) c_.report(Effect::privilege_escalation, "sets the set-id bit");
        }
        c_.change_mode(word(path), false, "changes the mode or owner");
        return result;
      }
      case Does::list:
        if (!args.empty() && args[0].known) {
          Value items = args[0];
          items.exact = false;
          items.text += "/\xEF\xBF\xBD";
          c_.report(Effect::list, "lists " + args[0].text, c_.path_of(word(0)));
          return items;
        }
        return result;
      case Does::read:
        if (args.empty()) return result;
        if (args[0].list || (args[0].path && !args[0].known)) return result;
        if (args[0].known && looks_like_url(args[0].text) && (args[0].flow.secret || args[0].flow.local))
          c_.send_flow(args[0].flow, host, "in the address");
        return read_file(word(0));
      case Does::read_text: return result;
      case Does::open: {
        if (function.name == "Path" || function.name == "PosixPath" || function.name == "PurePath" || function.name == "Pathname") {
          Value value = args.empty() ? string_value(".") : args[0];
          for (std::size_t i = 1; i < args.size(); ++i) {
            value.text += "/" + args[i].text;
            value.exact = value.exact && args[i].exact;
          }
          value.file = true;
          return value;
        }
        if (before.find("webbrowser") != std::string_view::npos || before.find("Image") != std::string_view::npos || before == "window")
          return result;
        if (args.empty() || (!args[0].known && args.size() < 2 && args[0].path)) return result;
        if (!args[0].known && !args[0].file && !args[0].path && family_ != Family::perl) {
          // A name made at run time: an ordinary file, as far as can be told.
          std::string mode = args.size() > 1 ? args[1].text : "r";
          c_.report(mode.find_first_of("wax+") != std::string::npos ? Effect::write : Effect::read, "opens a file that cannot be told", {},
                    false);
          result.flow.local = true;
          return result;
        }
        return open(args);
      }
      case Does::fetch:
      case Does::fetch_to: {
        if (args.empty()) return result;
        Value url = args[0];
        if (before.find("HTTP") != std::string_view::npos && args.size() > 1 && !looks_like_url(url.text)) url.text = "http://" + url.text;
        if (!url.known && url.path) {
          result.flow.network = true;
          return result;
        }
        if (!url.exact && (url.flow.secret || url.flow.local)) c_.send_flow(url.flow, host_of(url.text), "in the address");
        Word address = word_of(url);
        address.exact = true;
        if (!url.known) {
          c_.report(Effect::fetch, "fetches from a host that cannot be told", {}, false);
          c_.output.network = true;
        } else {
          c_.fetch(address);
        }
        std::vector<Value> rest(args.begin() + 1, args.end());
        if (function.does == Does::fetch_to && args.size() > 1) {
          c_.fetched_into(word(1));
          rest.clear();
        }
        send(rest, 0, host_of(url.text), "with a request");
        result.flow = Flow{.network = true};
        return result;
      }
      case Does::send: {
        if (args.empty() && keywords_.empty()) return result;
        std::string to = host;
        std::size_t from = 1;
        if (function.name == "request" || function.name == "Request") {
          if (args.size() > 1 && args[0].exact && args[0].text.find("://") == std::string::npos) {
            to = host_of(args[1].text);
            from = 2;
          }
        } else if (function.name == "sendall" || function.name == "send" || function.name == "sendto" ||
                   starts_with(function.name, "stor") || function.name == "upload_file" || function.name == "put_object") {
          to = remote_;
          from = 0;
          if (function.name == "upload_file" && !args.empty()) c_.send_file(word(0), "a store");
          if (before == "object" && remote_.empty() && function.name == "send") return result;
        } else if (function.name == "curl_setopt") {
          from = 2;
          if (args.size() > 2 && args[1].text.find("URL") != std::string::npos) {
            remote_ = host_of(args[2].text);
            return result;
          }
          to = remote_;
        }
        if (!args.empty() && args[0].known && looks_like_url(args[0].text)) {
          Word address = word(0);
          if (!args[0].exact && (args[0].flow.secret || args[0].flow.local)) c_.send_flow(args[0].flow, to, "in the address");
          address.exact = true;
          c_.fetch(address);
        }
        send(args, from, to, "with a request");
        result.flow = Flow{.network = true};
        return result;
      }
      case Does::socket: {
        if (before.find("sqlite") != std::string_view::npos || before.find("sql") != std::string_view::npos ||
            before.find("db") != std::string_view::npos || before.find("signal") != std::string_view::npos) {
          if (before.find("sqlite") != std::string_view::npos && !args.empty() && args[0].known && args[0].text != ":memory:")
            c_.read(word(0));
          return result;
        }
        if (args.empty()) return result;
        std::string to;
        const Value* first = &args[0];
        if (first->list && !first->items.empty()) first = &first->items[0];
        if (first->known && first->exact && first->text.find_first_not_of("0123456789") == std::string::npos && args.size() > 1)
          first = &args[1];  // connect(port, host)
        if (first->known) to = host_of(first->text);
        for (const std::string_view key : {"host", "PeerAddr", "PeerHost"})
          if (keywords_.contains(std::string(key))) to = host_of(keywords_[std::string(key)].text);
        for (const auto& arg : args)
          if (arg.known && arg.text.find(':') != std::string::npos && to.empty()) to = host_of(arg.text);
        if (to.empty()) to = "a host";
        result.flow = Flow{.network = true};
        if (is_loopback(to)) {
          c_.report(Effect::fetch, "connects to " + to, to);
          return result;
        }
        remote_ = to;
        c_.report(Effect::fetch, "connects to " + to, to);
        return result;
      }
      case Does::server:
        if (!args.empty()) {
          const Value* first = args[0].list && !args[0].items.empty() ? &args[0].items[0] : &args[0];
          if (first->known && (first->text == "0.0.0.0" || first->text.empty())) remote_ = "the network";
        }
        c_.report(Effect::execute, "waits for connections");
        return result;
      case Does::mail: {
        send(args, 0, "by mail", "by mail");
        return result;
      }
      case Does::kill: {
        if (args.empty()) return result;
        const std::size_t at = family_ == Family::perl || family_ == Family::ruby ? args.size() - 1 : 0;
        const std::string pid = args[at].text;
        if (args[at].exact && (pid == "1" || pid == "-1")) c_.report(Effect::process_control, "ends processes that are not its own", pid);
        else c_.report(Effect::change, "ends a process", args[at].exact ? pid : std::string{}, args[at].exact);
        return result;
      }
      case Does::fork:
        ++forks_;
        c_.report(Effect::execute, "starts a process");
        return result;
      case Does::set_user:
        if (!args.empty() && args[0].exact && args[0].text == "0") c_.report(Effect::privilege_escalation, "becomes root");
        else c_.report(Effect::privilege_escalation, "becomes another user");
        return result;
      case Does::load:
        if (args.empty() || !args[0].known || args[0].text == "None") return path_value("libc");
        c_.load_library(word(0));
        return path_value("libc");
      case Does::environment: {
        if (args.empty()) {
          result.flow.secret = true;
          return result;
        }
        return environment(args[0].text);
      }
      case Does::print: return result;
      case Does::credential:
        c_.report(Effect::credential_access, "reads a password or key from a store of secrets");
        result.flow.secret = true;
        return result;
      case Does::schedule: c_.report(Effect::persistence, "changes what runs at certain times"); return result;
    }
    return result;
  }

  Context& c_;
  std::string_view language_;
  Family family_;
  std::vector<Token> t_;
  std::size_t at_ = 0;
  int depth_ = 0;
  std::map<std::string, Value> variables_;
  std::map<std::string, Value> keywords_;
  std::string target_;  // the name just read, for assignments within expressions
  std::string remote_;
  bool spawns_shell_ = false;
  bool loops_ = false;
  int forks_ = 0;
  int loops_seen_ = 0;
  std::size_t repeated_ = 0;
  std::set<std::string> places_;    // that its texts name
  std::set<std::string> modules_;   // that it imports, by their first name
  std::vector<std::string> stars_;  // of which it imports everything
  bool removes_unnamed_ = false;
  bool reads_unnamed_ = false;
  bool reads_files_ = false;
  bool printing_ = false;
  bool getline_ = false;
};

// (function "text" …): each list is a call of its first word.
void assess_lisp(Context& c, const std::vector<Token>& tokens) {
  for (std::size_t i = 0; i + 2 < tokens.size(); ++i) {
    if (tokens[i].text != "(" || tokens[i + 1].kind != Kind::name) continue;
    const std::string name = tokens[i + 1].text;
    std::vector<Word> words;
    for (std::size_t k = i + 2; k < tokens.size() && tokens[k].text != ")"; ++k)
      if (tokens[k].kind == Kind::text) words.push_back(plain(tokens[k].text));
    if (name == "shell-command" || name == "async-shell-command" || name == "shell-command-to-string" || name == "system" ||
        name == "call-process-shell-command" || name == "compile") {
      if (words.empty()) c.report(Effect::unknown, "runs a command that cannot be told", {}, false);
      else c.shell(words.front(), name);
    } else if (name == "call-process" || name == "start-process" || name == "run-program" || name == "make-process" || name == "system*" ||
               name == "term" || name == "ansi-term" || name == "execl" || name == "execlp" || name == "execle") {
      if (name == "start-process" && words.size() > 2) words.erase(words.begin(), words.begin() + 2);
      c.command_words(words, name);
    } else if (name == "delete-file" || name == "delete-directory") {
      for (const auto& word : words) c.remove(word, name == "delete-directory");
    } else if (name == "write-region" || name == "write-file" || name == "with-temp-file") {
      if (!words.empty()) c.write(words.back());
    } else if (name == "insert-file-contents" || name == "find-file" || name == "find-file-noselect") {
      if (!words.empty()) c.read(words.front());
    } else if (name == "load" || name == "load-file") {
      if (!words.empty()) c.run_file(words.front(), "lisp");
    } else if (name == "url-retrieve-synchronously" || name == "url-retrieve" || name == "url-copy-file") {
      if (!words.empty()) c.fetch(words.front());
    }
  }
}

}  // namespace

void assess_powershell(Context& c, std::string_view text) {
  const std::string low = lower_case(text);
  const auto has = [&low](std::string_view word) { return low.find(word) != std::string::npos; };
  const bool fetches = has("downloadstring") || has("invoke-webrequest") || has("iwr ") || has("invoke-restmethod") || has("irm ") ||
                       has("downloadfile") || has("net.webclient") || has("start-bitstransfer");
  const bool evaluates = has("iex") || has("invoke-expression") || has("[scriptblock]::create") || has("&(") || has("frombase64string");
  if (fetches && evaluates) c.report(Effect::remote_code, "runs what it fetches");
  else if (has("frombase64string") && evaluates && has("iex")) c.report(Effect::remote_code, "runs what was decoded");
  if (has("net.sockets.tcpclient") && (has("iex") || has("invoke-expression") || has("start-process") || has("cmd")))
    c.report(Effect::remote_code, "connects a shell to the network (a reverse shell)");
  if (fetches) c.report(Effect::fetch, "fetches from the network");
  if ((has("-method post") || has("-infile") || has("uploadfile") || has("uploadstring")) &&
      (has("get-content") || has("-infile") || has("uploadfile")))
    c.report(Effect::exfiltration, "sends files to another host");
  for (const std::string_view verb : {"remove-item", "ri ", "rmdir ", "del ", "erase ", "rm "}) {
    for (auto at = low.find(verb); at != std::string::npos; at = low.find(verb, at + 1)) {
      if (at > 0 && ((low[at - 1] >= 'a' && low[at - 1] <= 'z') || low[at - 1] == '-')) continue;
      const auto end = std::min(low.find_first_of(";|\n", at), low.size());
      const std::string_view clause = std::string_view(low).substr(at + verb.size(), end - at - verb.size());
      const bool recursive = clause.find("-r") != std::string_view::npos;
      std::size_t from = 0;
      while (from < clause.size()) {
        const auto begin = clause.find_first_not_of(" '\"", from);
        if (begin == std::string_view::npos) break;
        const auto stop = std::min(clause.find_first_of(" '\"", begin), clause.size());
        if (clause[begin] != '-') c.remove(plain(clause.substr(begin, stop - begin)), recursive);
        from = stop + 1;
      }
    }
  }
  for (const auto& [word, effect] : {std::pair<std::string_view, Effect>{"format-volume", Effect::disk_destruction},
                                     {"clear-disk", Effect::disk_destruction},
                                     {"initialize-disk", Effect::disk_destruction},
                                     {"stop-process", Effect::process_control},
                                     {"stop-service", Effect::process_control},
                                     {"stop-computer", Effect::process_control},
                                     {"restart-computer", Effect::process_control},
                                     {"new-service", Effect::persistence},
                                     {"register-scheduledtask", Effect::persistence},
                                     {"schtasks", Effect::persistence},
                                     {"currentversion\\run", Effect::persistence},
                                     {"new-localuser", Effect::privilege_escalation},
                                     {"add-localgroupmember", Effect::privilege_escalation},
                                     {"-verb runas", Effect::privilege_escalation},
                                     {"set-mppreference", Effect::tampering},
                                     {"clear-eventlog", Effect::tampering},
                                     {"wevtutil cl", Effect::tampering},
                                     {"netsh advfirewall", Effect::tampering},
                                     {"get-credential", Effect::credential_access},
                                     {"mimikatz", Effect::credential_access},
                                     {"vssadmin", Effect::filesystem_destruction}})
    if (has(word)) c.report(effect, "runs " + std::string(word));
  if (!fetches && evaluates && has("$")) c.report(Effect::unknown, "runs text that cannot be told before it runs", {}, false);
  c.report(Effect::execute, "runs PowerShell");
}

void assess_code_into(Run& outer, std::string_view language, std::string_view text, std::string_view folder, std::string_view program) {
  if (outer.depth >= deepest_assessment) {
    outer.out.observations.push_back({.effect = Effect::unknown,
                                      .certain = false,
                                      .program = std::string(program),
                                      .reason = "programs nested too deeply to be judged"});
    return;
  }
  if (text.size() > longest_script) {
    outer.out.problem = "program text over " + std::to_string(longest_script) + " bytes";
    return;
  }
  Command command;
  command.folder = std::string(folder);
  std::size_t end = std::min<std::size_t>(text.size(), 180);
  while (end > 0 && end < text.size() && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  command.excerpt = std::string(text.substr(0, end));
  const std::vector<Word> words;
  ++outer.depth;
  Context c(outer, 0, command, std::string(program), words);
  if (language == "sql") {
    assess_sql(c, text);
  } else if (language == "powershell") {
    assess_powershell(c, text);
  } else {
    auto tokens = Lexer(family_of(language), text).run();
    if (tokens.size() >= most_tokens) outer.out.problem = "program text with more than " + std::to_string(most_tokens) + " words";
    if (family_of(language) == Family::lisp) assess_lisp(c, tokens);
    else {
      if (language == "applescript")
        for (std::size_t i = 0; i + 2 < tokens.size(); ++i)
          if (tokens[i].text == "do" && tokens[i + 1].text == "shell" && tokens[i + 2].text == "script") {
            tokens[i] = {Kind::name, "do_shell_script", false, true};
            tokens.erase(tokens.begin() + static_cast<std::ptrdiff_t>(i) + 1, tokens.begin() + static_cast<std::ptrdiff_t>(i) + 3);
          }
      if (language == "tcl")
        for (std::size_t i = 0; i + 1 < tokens.size(); ++i)
          if (tokens[i].kind == Kind::name && (tokens[i].text == "exec" || tokens[i].text == "spawn" || tokens[i].text == "system")) {
            // The rest of the line is the command.
            std::string line;
            for (std::size_t k = i + 1; k < tokens.size() && tokens[k].kind != Kind::line && tokens[k].text != ";" &&
                                        tokens[k].text != "]" && tokens[k].text != "<" && tokens[k].text != ">";
                 ++k)
              line += (tokens[k].spaced || k == i + 1 ? " " : "") + tokens[k].text;
            c.shell(plain(line), "tcl");
          }
      if (language != "tcl") Evaluator(c, language, std::move(tokens)).run();
    }
  }
  --outer.depth;
}

}  // namespace hearth::safety
