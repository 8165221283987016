#include "safety/shell_scan.h"

#include <algorithm>
#include <array>
#include <utility>

#include "base/utf8.h"

namespace hearth::safety {
namespace {

constexpr int deepest_syntax = 60;
constexpr std::size_t longest_arithmetic = 16384;  // what is looked at to tell `((` from two subshells

bool is_name_start(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_name(char c) { return is_name_start(c) || is_digit(c); }
bool ends_word(char c) {
  switch (c) {
    case ' ':
    case '\t':
    case '\n':
    case ';':
    case '&':
    case '|':
    case '(':
    case ')':
    case '<':
    case '>': return true;
    default: return false;
  }
}

void append_utf8(std::string& out, std::uint32_t point) {
  if (point < 0x80) {
    out += static_cast<char>(point);
  } else if (point < 0x800) {
    out += static_cast<char>(0xC0 | (point >> 6));
    out += static_cast<char>(0x80 | (point & 0x3F));
  } else if (point < 0x10000) {
    out += static_cast<char>(0xE0 | (point >> 12));
    out += static_cast<char>(0x80 | ((point >> 6) & 0x3F));
    out += static_cast<char>(0x80 | (point & 0x3F));
  } else {
    out += static_cast<char>(0xF0 | ((point >> 18) & 0x07));
    out += static_cast<char>(0x80 | ((point >> 12) & 0x3F));
    out += static_cast<char>(0x80 | ((point >> 6) & 0x3F));
    out += static_cast<char>(0x80 | (point & 0x3F));
  }
}

int digit_value(char c) {
  if (is_digit(c)) return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return 99;
}

// `NAME=` or `NAME+=` at the end of what was read so far.
bool is_assignment_start(std::string_view text) {
  if (text.empty() || text.back() != '=') return false;
  text.remove_suffix(1);
  if (!text.empty() && text.back() == '+') text.remove_suffix(1);
  return !text.empty() && is_name_start(text[0]) && std::all_of(text.begin(), text.end(), is_name);
}

// What a scan cannot go on after. It stays inside of this file.
struct Failure {
  std::size_t at;
  std::string what;
  ErrorCode code = ErrorCode::invalid_request;
};

class Scanner {
 public:
  Scanner(std::string_view source, TextStore& store, std::size_t& commands, int depth)
      : source_(source), store_(store), commands_(commands), depth_(depth) {}

  // Commands up to the end of the text, or up to the `)` of a substitution, which is taken.
  std::shared_ptr<const Syntax> commands(bool substitution);

  WordSyntax fragment(bool double_quoted) {
    WordSyntax word;
    if (double_quoted) {
      double_quoted_text(word.atoms, '\0');
    } else {
      while (pos_ < source_.size()) {
        const std::size_t before = pos_;
        word_atoms(word, false, true);
        if (pos_ == before) literal(word.atoms, source_[pos_++], false);
      }
    }
    word.end = static_cast<std::uint32_t>(pos_);
    return word;
  }

 private:
  enum class Frame { parenthesis, case_pattern, case_body };

  [[noreturn]] void fail(std::size_t at, std::string what) const { throw Failure{at, std::move(what)}; }

  // The next byte with line continuations removed, '\0' at the end (the source holds none).
  char peek() {
    while (pos_ + 1 < source_.size() && source_[pos_] == '\\' && source_[pos_ + 1] == '\n') pos_ += 2;
    return pos_ < source_.size() ? source_[pos_] : '\0';
  }
  char peek_after() {  // the byte after the next one
    const std::size_t here = pos_;
    peek();
    if (pos_ < source_.size()) ++pos_;
    const char c = peek();
    pos_ = here;
    return c;
  }
  void take() {
    peek();
    ++pos_;
  }
  bool take_if(char c) {
    if (peek() != c) return false;
    ++pos_;
    return true;
  }
  void blanks() {
    while (peek() == ' ' || peek() == '\t') ++pos_;
  }

  static void literal(std::vector<Atom>& atoms, std::string_view text, bool quoted) {
    if (!atoms.empty() && atoms.back().kind == Atom::Kind::literal && atoms.back().quoted == quoted) {
      atoms.back().text += text;
    } else {
      atoms.push_back({.kind = Atom::Kind::literal, .quoted = quoted, .text = std::string(text)});
    }
  }
  static void literal(std::vector<Atom>& atoms, char c, bool quoted) { literal(atoms, std::string_view(&c, 1), quoted); }

  std::shared_ptr<const Syntax> nested_commands() {  // after the opening parenthesis
    if (++depth_ > deepest_syntax) fail(pos_, "nested too deeply");
    Scanner inner(source_, store_, commands_, depth_);
    inner.pos_ = pos_;
    auto syntax = inner.commands(true);
    pos_ = inner.pos_;
    --depth_;
    return syntax;
  }

  void skip_single(std::size_t opened) {
    const std::size_t end = source_.find('\'', pos_);
    if (end == std::string_view::npos) fail(opened, "the quote opened here is never closed");
    pos_ = end + 1;
  }
  void skip_ansi(std::size_t opened) {
    while (true) {
      if (pos_ >= source_.size()) fail(opened, "the quote opened here is never closed");
      if (source_[pos_] == '\\') {
        pos_ += 2;
      } else if (source_[pos_++] == '\'') {
        return;
      }
    }
  }
  std::string ansi_text(std::size_t opened);
  void backtick(std::vector<Atom>& atoms, bool quoted);
  void dollar(std::vector<Atom>& atoms, bool quoted);
  std::string braced_parameter(bool quoted);
  // Length of the expression when `))` closes it, both parentheses taken; nothing when this is no arithmetic.
  std::optional<std::string> arithmetic();
  void double_quoted_text(std::vector<Atom>& atoms, char closer);
  void word_atoms(WordSyntax& word, bool may_hold_array, bool fragment);
  WordSyntax read_word(bool may_hold_array = false) {
    WordSyntax word;
    peek();
    word.begin = static_cast<std::uint32_t>(pos_);
    word_atoms(word, may_hold_array, false);
    word.end = static_cast<std::uint32_t>(pos_);
    return word;
  }
  bool redirect(std::vector<RedirectSyntax>& into);
  void newline();
  void read_here_documents();
  void skip_comment() {
    while (pos_ < source_.size() && source_[pos_] != '\n') ++pos_;
  }
  void skip_blank_lines() {
    while (true) {
      blanks();
      if (peek() == '#') skip_comment();
      if (peek() != '\n') return;
      newline();
    }
  }
  SimpleSyntax condition();
  void count_command(std::size_t at) {
    if (++commands_ > most_commands) throw Failure{at, "more commands than are read", ErrorCode::payload_too_large};
  }

  struct Pending {
    std::vector<Atom>* body;  // owned by `bodies_`, moved to its redirect at the end
    std::string delimiter;
    bool strip_tabs;
    bool quoted;
    std::size_t at;
  };

  std::string_view source_;
  TextStore& store_;
  std::size_t& commands_;
  int depth_;
  std::size_t pos_ = 0;
  std::vector<Pending> pending_;
  std::vector<std::unique_ptr<std::vector<Atom>>> bodies_;
};

std::string Scanner::ansi_text(std::size_t opened) {
  std::string out;
  bool ended = false;  // \0 ends the string, as in C
  const auto put = [&](std::uint32_t byte) {
    if (byte == 0) ended = true;
    if (!ended) out += static_cast<char>(byte);
  };
  const auto digits = [&](std::uint32_t base, int most) {
    std::uint32_t value = 0;
    int count = 0;
    while (count < most && pos_ < source_.size() && digit_value(source_[pos_]) < static_cast<int>(base)) {
      value = value * base + static_cast<std::uint32_t>(digit_value(source_[pos_++]));
      ++count;
    }
    return std::pair(value, count);
  };
  while (true) {
    if (pos_ >= source_.size()) fail(opened, "the quote opened here is never closed");
    const char c = source_[pos_++];
    if (c == '\'') return out;
    if (c != '\\' || pos_ >= source_.size()) {
      if (!ended) out += c;
      continue;
    }
    const char e = source_[pos_++];
    switch (e) {
      case 'a': put('\a'); break;
      case 'b': put('\b'); break;
      case 'e':
      case 'E': put(27); break;
      case 'f': put('\f'); break;
      case 'n': put('\n'); break;
      case 'r': put('\r'); break;
      case 't': put('\t'); break;
      case 'v': put('\v'); break;
      case '\\':
      case '\'':
      case '"':
      case '?': put(static_cast<unsigned char>(e)); break;
      case 'x': {
        const bool braced = pos_ < source_.size() && source_[pos_] == '{';
        if (braced) ++pos_;
        const auto [value, count] = digits(16, braced ? 8 : 2);
        if (braced && pos_ < source_.size() && source_[pos_] == '}') ++pos_;
        if (count == 0) {
          if (!ended) out += braced ? "\\x{" : "\\x";
        } else {
          put(value & 0xFF);
        }
        break;
      }
      case 'u':
      case 'U': {
        const auto [value, count] = digits(16, e == 'u' ? 4 : 8);
        if (count == 0) {
          if (!ended) out += std::string("\\") + e;
        } else if (value == 0) {
          ended = true;
        } else if (!ended) {
          append_utf8(out, value & 0x1FFFFF);
        }
        break;
      }
      case 'c': {
        if (pos_ >= source_.size()) break;
        char control = source_[pos_++];
        if (control == '\\' && pos_ < source_.size() && source_[pos_] == '\\') ++pos_;
        put(static_cast<std::uint32_t>(control) & 0x1F);
        break;
      }
      default:
        if (e >= '0' && e <= '7') {
          --pos_;
          put(digits(8, 3).first & 0xFF);
        } else if (!ended) {
          out += '\\';
          out += e;
        }
    }
  }
}

void Scanner::backtick(std::vector<Atom>& atoms, bool quoted) {
  const std::size_t opened = pos_ - 1;
  std::string body;
  while (true) {
    if (pos_ >= source_.size()) fail(opened, "the backtick opened here is never closed");
    const char c = source_[pos_++];
    if (c == '`') break;
    if (c == '\\' && pos_ < source_.size()) {
      const char e = source_[pos_];
      if (e == '`' || e == '\\' || e == '$' || (quoted && e == '"')) {
        body += e;
        ++pos_;
        continue;
      }
    }
    body += c;
  }
  if (++depth_ > deepest_syntax) fail(opened, "nested too deeply");
  Scanner inner(store_.keep(std::move(body)), store_, commands_, depth_);
  atoms.push_back({.kind = Atom::Kind::command, .quoted = quoted, .inside = inner.commands(false)});
  --depth_;
}

std::string Scanner::braced_parameter(bool quoted) {
  const std::size_t opened = pos_ - 2;
  if (++depth_ > deepest_syntax) fail(opened, "nested too deeply");
  const std::size_t begin = pos_;
  // Between double quotes a single quote quotes only in patterns.
  std::size_t at = pos_;
  while (at < source_.size() && (is_name(source_[at]) || source_[at] == '!' || source_[at] == '@' || source_[at] == '*')) ++at;
  const bool pattern = at > pos_ && at < source_.size() &&
                       (source_[at] == '#' || source_[at] == '%' || source_[at] == '/' || source_[at] == '^' || source_[at] == ',');
  const bool single_quotes = !quoted || pattern;
  while (true) {
    if (pos_ >= source_.size()) fail(opened, "the ${ opened here is never closed");
    const char c = source_[pos_++];
    if (c == '}') break;
    if (c == '\\') {
      if (pos_ < source_.size()) ++pos_;
    } else if (c == '\'' && single_quotes) {
      skip_single(pos_ - 1);
    } else if (c == '"') {
      std::vector<Atom> ignored;
      double_quoted_text(ignored, '"');
    } else if (c == '`') {
      std::vector<Atom> ignored;
      backtick(ignored, false);
    } else if (c == '$') {
      if (peek() == '\'' && single_quotes) {
        ++pos_;
        skip_ansi(pos_ - 1);
      } else if (peek() == '(' || peek() == '{' || peek() == '[') {
        std::vector<Atom> ignored;
        dollar(ignored, quoted);
      }
    }
  }
  --depth_;
  return std::string(source_.substr(begin, pos_ - 1 - begin));
}

std::optional<std::string> Scanner::arithmetic() {
  const std::size_t begin = pos_;
  const std::size_t limit = std::min(source_.size(), begin + longest_arithmetic);
  int open = 0;
  for (std::size_t at = begin; at < limit; ++at) {
    switch (source_[at]) {
      case '(': ++open; break;
      case ')':
        if (open > 0) {
          --open;
          break;
        }
        if (at + 1 < limit && source_[at + 1] == ')') {
          pos_ = at + 2;
          return std::string(source_.substr(begin, at - begin));
        }
        return std::nullopt;
      case '\'': {
        const std::size_t close = source_.find('\'', at + 1);
        if (close == std::string_view::npos || close >= limit) return std::nullopt;
        at = close;
        break;
      }
      case '"': {
        std::size_t close = at + 1;
        while (close < limit && source_[close] != '"') close += source_[close] == '\\' ? 2 : 1;
        if (close >= limit) return std::nullopt;
        at = close;
        break;
      }
      case '\\': ++at; break;
      default: break;
    }
  }
  return std::nullopt;
}

void Scanner::dollar(std::vector<Atom>& atoms, bool quoted) {  // after the dollar
  const std::size_t opened = pos_ - 1;
  const char c = peek();
  if (c == '(') {
    ++pos_;
    if (peek() == '(') {
      const std::size_t here = pos_;
      ++pos_;
      if (auto expression = arithmetic()) {
        atoms.push_back({.kind = Atom::Kind::arithmetic, .quoted = quoted, .text = std::move(*expression)});
        return;
      }
      pos_ = here;
    }
    atoms.push_back({.kind = Atom::Kind::command, .quoted = quoted, .inside = nested_commands()});
  } else if (c == '[') {
    const std::size_t begin = ++pos_;
    int open = 0;
    while (pos_ < source_.size() && (source_[pos_] != ']' || open > 0)) {
      if (source_[pos_] == '[') ++open;
      if (source_[pos_] == ']') --open;
      ++pos_;
    }
    if (pos_ >= source_.size()) fail(opened, "the $[ opened here is never closed");
    atoms.push_back({.kind = Atom::Kind::arithmetic, .quoted = quoted, .text = std::string(source_.substr(begin, pos_ - begin))});
    ++pos_;
  } else if (c == '{') {
    ++pos_;
    atoms.push_back({.kind = Atom::Kind::parameter, .quoted = quoted, .text = braced_parameter(quoted)});
  } else if (is_name_start(c)) {
    std::string name;
    while (is_name(peek())) name += source_[pos_++];
    atoms.push_back({.kind = Atom::Kind::parameter, .quoted = quoted, .bare = true, .text = std::move(name)});
  } else if (is_digit(c) || (c != '\0' && std::string_view("@*#?-$!").find(c) != std::string_view::npos)) {
    ++pos_;
    atoms.push_back({.kind = Atom::Kind::parameter, .quoted = quoted, .text = std::string(1, c)});
  } else if (!quoted && c == '\'') {
    ++pos_;
    literal(atoms, ansi_text(opened), true);
  } else if (!quoted && c == '"') {
    ++pos_;
    literal(atoms, "", true);
    double_quoted_text(atoms, '"');
  } else {
    literal(atoms, '$', quoted);
  }
}

void Scanner::double_quoted_text(std::vector<Atom>& atoms, char closer) {
  const std::size_t opened = pos_ == 0 ? 0 : pos_ - 1;
  while (true) {
    const char c = peek();
    if (pos_ >= source_.size()) {
      if (closer == '\0') return;
      fail(opened, "the quote opened here is never closed");
    }
    ++pos_;
    if (closer != '\0' && c == closer) return;
    if (c == '$') {
      dollar(atoms, true);
    } else if (c == '`') {
      backtick(atoms, true);
    } else if (c == '\\' && pos_ < source_.size()) {
      const char e = source_[pos_];
      if (e == '$' || e == '`' || e == '\\' || (e == '"' && closer == '"')) {
        literal(atoms, e, true);
        ++pos_;
      } else {
        literal(atoms, '\\', true);
      }
    } else {
      literal(atoms, c, true);
    }
  }
}

void Scanner::word_atoms(WordSyntax& word, bool may_hold_array, bool fragment) {
  while (true) {
    const char c = peek();
    if (pos_ >= source_.size()) return;
    if ((c == '<' || c == '>') && !fragment && peek_after() == '(') {
      take();
      take();
      word.atoms.push_back({.kind = Atom::Kind::process, .inside = nested_commands()});
      continue;
    }
    if (c == '(' && !fragment && !word.atoms.empty() && word.atoms.back().kind == Atom::Kind::literal && !word.atoms.back().quoted) {
      const std::string& so_far = word.atoms.back().text;
      if (may_hold_array && word.atoms.size() == 1 && is_assignment_start(so_far)) {
        const std::size_t opened = pos_++;
        word.compound = true;
        while (true) {
          skip_blank_lines();
          if (pos_ >= source_.size()) fail(opened, "the array opened here is never closed");
          if (take_if(')')) break;
          const std::size_t before = pos_;
          word.elements.push_back(read_word());
          if (pos_ == before) fail(pos_, "an operator inside of an array");
        }
        return;
      }
      if (!so_far.empty() && std::string_view("?*+@!").find(so_far.back()) != std::string_view::npos) {  // extended glob
        const std::size_t opened = pos_;
        int open = 0;
        do {
          if (pos_ >= source_.size()) fail(opened, "the pattern opened here is never closed");
          const char p = source_[pos_];
          if (p == '(') ++open;
          if (p == ')') --open;
          if (p == '$' || p == '`' || p == '\'' || p == '"' || p == '\\' || p == '\n')
            fail(pos_, "quotes and expansions inside of an extended pattern are not read");
          literal(word.atoms, p, false);
          ++pos_;
        } while (open > 0);
        continue;
      }
    }
    if (!fragment && ends_word(c)) return;
    ++pos_;
    switch (c) {
      case '\'': {
        const std::size_t begin = pos_;
        skip_single(pos_ - 1);
        literal(word.atoms, source_.substr(begin, pos_ - 1 - begin), true);
        break;
      }
      case '"':
        literal(word.atoms, "", true);
        double_quoted_text(word.atoms, '"');
        break;
      case '\\':
        if (pos_ < source_.size()) {
          literal(word.atoms, source_[pos_++], true);
        } else {
          literal(word.atoms, '\\', true);
        }
        break;
      case '$': dollar(word.atoms, false); break;
      case '`': backtick(word.atoms, false); break;
      default: literal(word.atoms, c, false);
    }
  }
}

bool Scanner::redirect(std::vector<RedirectSyntax>& into) {
  const std::size_t start = pos_;
  int descriptor = -1;
  std::size_t digits = 0;
  while (is_digit(peek()) && digits < 9) {
    descriptor = std::max(descriptor, 0) * 10 + (source_[pos_] - '0');
    ++pos_;
    ++digits;
  }
  const char c = peek();
  std::string_view operation;
  const auto after = peek_after();
  if (c == '&' && digits == 0 && after == '>') {
    take();
    take();
    operation = take_if('>') ? "&>>" : "&>";
  } else if (c == '<' && !(after == '(' && digits == 0)) {
    take();
    if (take_if('<')) {
      if (take_if('<')) {
        operation = "<<<";
      } else {
        operation = take_if('-') ? "<<-" : "<<";
      }
    } else if (take_if('>')) {
      operation = "<>";
    } else {
      operation = take_if('&') ? "<&" : "<";
    }
  } else if (c == '>' && !(after == '(' && digits == 0)) {
    take();
    if (take_if('>')) {
      operation = ">>";
    } else if (take_if('&')) {
      operation = ">&";
    } else {
      operation = take_if('|') ? ">|" : ">";
    }
  } else {
    pos_ = start;
    return false;
  }
  blanks();
  RedirectSyntax redirect{.operation = operation, .descriptor = descriptor, .target = read_word()};
  if (redirect.target.begin == redirect.target.end) fail(pos_, "a redirection without a target");
  if (operation.starts_with("<<") && operation != "<<<") {
    std::string delimiter;
    bool quoted = false;
    for (const Atom& atom : redirect.target.atoms) {
      if (atom.kind != Atom::Kind::literal) fail(redirect.target.begin, "a here-document whose end is not a plain word");
      delimiter += atom.text;
      quoted = quoted || atom.quoted;
    }
    bodies_.push_back(std::make_unique<std::vector<Atom>>());
    pending_.push_back({bodies_.back().get(), std::move(delimiter), operation == "<<-", quoted, redirect.target.begin});
    redirect.operation = "<<";
    redirect.target.atoms.clear();
    redirect.target.elements.clear();
    // The body arrives with the next line: the redirect remembers which it is until the scan ends.
    redirect.target.begin = static_cast<std::uint32_t>(bodies_.size() - 1);
  }
  into.push_back(std::move(redirect));
  return true;
}

void Scanner::read_here_documents() {
  auto pending = std::exchange(pending_, {});
  for (const Pending& here : pending) {
    std::string body;
    bool ended = false;
    while (!ended && pos_ < source_.size()) {
      std::string line;
      while (true) {  // one line, joined with the next after a backslash unless the delimiter was quoted
        const std::size_t end = std::min(source_.find('\n', pos_), source_.size());
        const std::string_view part = source_.substr(pos_, end - pos_);
        pos_ = std::min(end + 1, source_.size());
        line += part;
        const std::size_t slashes = part.size() - std::min(part.size(), part.find_last_not_of('\\') + 1);
        if (here.quoted || slashes % 2 == 0 || end >= source_.size()) break;
        line.pop_back();
      }
      std::string_view text = line;
      if (here.strip_tabs) text.remove_prefix(std::min(text.size(), text.find_first_not_of('\t')));
      if (text == here.delimiter) {
        ended = true;
      } else {
        body += text;
        body += '\n';
      }
    }
    // At the end of the text bash takes what there is, with a warning.
    if (here.quoted) {
      literal(*here.body, body, true);
    } else {
      if (++depth_ > deepest_syntax) fail(here.at, "nested too deeply");
      Scanner inner(store_.keep(std::move(body)), store_, commands_, depth_);
      literal(*here.body, "", true);
      inner.double_quoted_text(*here.body, '\0');
      --depth_;
    }
  }
}

void Scanner::newline() {
  ++pos_;
  if (!pending_.empty()) read_here_documents();
}

SimpleSyntax Scanner::condition() {
  SimpleSyntax simple{.kind = SimpleSyntax::Kind::condition, .begin = static_cast<std::uint32_t>(pos_)};
  const std::size_t opened = pos_;
  while (true) {
    skip_blank_lines();
    if (pos_ >= source_.size()) fail(opened, "the [[ opened here is never closed");
    WordSyntax word = read_word();
    if (word.begin == word.end) {  // an operator, or part of a regular expression
      const char c = source_[pos_++];
      literal(word.atoms, c, false);
      if ((c == '&' || c == '|') && take_if(c)) literal(word.atoms, c, false);
      word.end = static_cast<std::uint32_t>(pos_);
    }
    const bool closing = word.plain() == "]]";
    simple.words.push_back(std::move(word));
    if (closing) break;
  }
  simple.end = static_cast<std::uint32_t>(pos_);
  return simple;
}

constexpr std::array<std::string_view, 6> openers{"if", "while", "until", "elif", "then", "else"};
constexpr std::array<std::string_view, 6> declarations{"declare", "typeset", "export", "local", "readonly", "eval"};
template <class List>
bool contains(const List& list, std::string_view word) {
  return std::find(list.begin(), list.end(), word) != list.end();
}

std::shared_ptr<const Syntax> Scanner::commands(bool substitution) {
  auto syntax = std::make_shared<Syntax>();
  syntax->source = source_;
  std::string& out = syntax->skeleton;
  std::vector<Frame> frames;
  bool at_command = true;       // the next word is a program or a reserved word
  bool after_compound = false;  // behind `}`, `fi`, `)` …: only redirects, operators and reserved words
  std::optional<SimpleSyntax> current;
  CaseSyntax* open_case = nullptr;
  std::vector<CaseSyntax*> open_cases;
  const std::size_t opened = pos_ == 0 ? 0 : pos_ - 1;
  int compounds = 0;

  const auto here = [&] { return static_cast<std::uint32_t>(out.size()); };
  const auto emit_simple = [&](SimpleSyntax simple) {
    count_command(simple.begin);
    syntax->simples.emplace(here(), std::move(simple));
    out += 'x';
  };
  const auto end_simple = [&] {
    if (!current) return;
    emit_simple(std::move(*current));
    current.reset();
    out += ' ';
  };
  const auto begin_command = [&] {
    end_simple();
    at_command = true;
    after_compound = false;
  };
  const auto in_pattern = [&] { return !frames.empty() && frames.back() == Frame::case_pattern; };

  while (true) {
    blanks();
    const char c = peek();
    if (pos_ >= source_.size()) {
      if (substitution) fail(opened, "the parenthesis opened here is never closed");
      break;
    }
    if (c == '#') {  // only reached where a word would start
      skip_comment();
      continue;
    }
    if (in_pattern()) {
      if (c == '\n') {
        newline();
      } else if (c == '(' || c == '|') {
        ++pos_;
      } else if (c == ')') {
        ++pos_;
        frames.back() = Frame::case_body;
        out += "x) ";
        begin_command();
      } else if (ends_word(c) && !((c == '<' || c == '>') && peek_after() == '(')) {
        fail(pos_, "an operator where a pattern belongs");
      } else {
        WordSyntax word = read_word();
        if (word.plain() == "esac") {
          frames.pop_back();
          open_cases.pop_back();
          open_case = open_cases.empty() ? nullptr : open_cases.back();
          out += "esac";
          after_compound = true;
          at_command = false;
        } else if (open_case != nullptr) {
          open_case->patterns.push_back(std::move(word));
        }
      }
      continue;
    }
    if (c == '\n') {
      begin_command();
      newline();
      if (!out.empty() && out.back() != '\n') out += '\n';
      continue;
    }
    if (c == ';') {
      take();
      if (peek() == ';' || peek() == '&') {
        if (frames.empty() || frames.back() != Frame::case_body) fail(pos_, "\";;\" outside of a case");
        if (take_if(';')) take_if('&');
        else take();
        begin_command();
        frames.back() = Frame::case_pattern;
        out += ";;\n";
      } else {
        begin_command();
        out += "; ";
      }
      continue;
    }
    if (c == '&' && peek_after() != '>') {
      take();
      const bool both = take_if('&');
      begin_command();
      out += both ? "&& " : "& ";
      continue;
    }
    if (c == '|') {
      take();
      const char next = peek();
      if (next == '|' || next == '&') take();
      begin_command();
      out += next == '|' ? "|| " : "| ";
      continue;
    }
    if (c == ')') {
      if (frames.empty()) {
        if (!substitution) fail(pos_, "a \")\" that closes nothing");
        end_simple();
        ++pos_;
        break;
      }
      if (frames.back() != Frame::parenthesis) fail(pos_, "a \")\" inside of a case");
      frames.pop_back();
      end_simple();
      ++pos_;
      out += ')';
      after_compound = true;
      at_command = false;
      continue;
    }
    if (c == '(') {
      if (current && current->words.size() == 1 && current->redirects.empty() && current->kind == SimpleSyntax::Kind::command) {
        take();
        blanks();
        if (!take_if(')')) fail(pos_, "a \"(\" behind a word");
        std::string name;
        for (const Atom& atom : current->words[0].atoms) name += atom.text;
        current.reset();
        syntax->functions.emplace(here(), std::move(name));
        out += "x() ";
        skip_blank_lines();
        at_command = true;
        continue;
      }
      if (!at_command || current) fail(pos_, "a \"(\" where none belongs");
      const std::size_t start = pos_++;
      if (peek() == '(') {
        const std::size_t second = pos_++;
        if (auto expression = arithmetic()) {
          SimpleSyntax simple{
              .kind = SimpleSyntax::Kind::arithmetic, .begin = static_cast<std::uint32_t>(start), .end = static_cast<std::uint32_t>(pos_)};
          WordSyntax word;
          word.atoms.push_back({.kind = Atom::Kind::literal, .quoted = true, .text = std::move(*expression)});
          simple.words.push_back(std::move(word));
          emit_simple(std::move(simple));
          after_compound = true;
          at_command = false;
          continue;
        }
        pos_ = second;
      }
      if (frames.size() > 200) fail(start, "nested too deeply");
      frames.push_back(Frame::parenthesis);
      out += "( ";
      continue;
    }
    // A redirect, or a word.
    if (after_compound) {
      std::vector<RedirectSyntax>& tail = syntax->tails[here()];
      if (redirect(tail)) continue;
      if (tail.empty()) syntax->tails.erase(here());
    } else {
      std::vector<RedirectSyntax> redirects;
      const std::size_t start = pos_;
      if (redirect(redirects)) {
        if (!current) current = SimpleSyntax{.begin = static_cast<std::uint32_t>(start)};
        current->redirects.push_back(std::move(redirects[0]));
        current->end = static_cast<std::uint32_t>(pos_);
        continue;
      }
    }
    const bool first = at_command && !current;
    const bool prefix = current && current->kind == SimpleSyntax::Kind::command &&
                        (current->words.empty() || current->words.back().compound ||
                         (!current->words[0].atoms.empty() && current->words[0].atoms[0].text.find('=') != std::string::npos) ||
                         (current->words[0].plain() && contains(declarations, *current->words[0].plain())));
    WordSyntax word = read_word(first || prefix);
    if (word.begin == word.end) fail(pos_, "an operator where a word belongs");
    const auto plain = word.plain();
    if ((first || after_compound) && plain) {
      const std::string_view text = *plain;
      const auto reserved = [&](std::string_view spelled) {
        if (after_compound && out.back() != '\n') out += "; ";
        after_compound = false;
        out += spelled;
      };
      if (text == "{") {
        if (++compounds > 200) fail(word.begin, "nested too deeply");
        reserved("{ ");
        continue;
      }
      if (text == "}" || text == "fi" || text == "done") {
        if (text == "}") --compounds;
        reserved(text);
        after_compound = true;
        at_command = false;
        continue;
      }
      if (text == "do" || contains(openers, text)) {
        reserved(text);
        out += ' ';
        at_command = true;
        continue;
      }
      if (text == "esac") {
        if (frames.empty() || frames.back() != Frame::case_body) fail(word.begin, "\"esac\" without a case");
        reserved("\n;;\nesac");
        frames.pop_back();
        open_cases.pop_back();
        open_case = open_cases.empty() ? nullptr : open_cases.back();
        after_compound = true;
        at_command = false;
        continue;
      }
      if (!after_compound) {
        if (text == "!") {
          syntax->negates = true;
          continue;
        }
        if (text == "time") {
          blanks();
          const std::size_t option = pos_;
          if (peek() == '-' && read_word().plain() != "-p") pos_ = option;
          continue;
        }
        if (text == "coproc") {
          blanks();
          const std::size_t behind = pos_;
          const WordSyntax name = read_word();
          blanks();
          const bool named = name.plain() && !name.plain()->empty() && is_name_start((*name.plain())[0]) &&
                             (peek() == '{' || peek() == '(') && !contains(openers, *name.plain());
          if (!named) pos_ = behind;
          continue;
        }
        if (text == "for" || text == "select") {
          blanks();
          if (peek() == '(' && peek_after() == '(') {
            const std::size_t start = pos_;
            take();
            take();
            auto expression = arithmetic();
            if (!expression) fail(start, "a for loop whose header is never closed");
            out += "while ";
            SimpleSyntax simple{.kind = SimpleSyntax::Kind::arithmetic,
                                .begin = static_cast<std::uint32_t>(start),
                                .end = static_cast<std::uint32_t>(pos_)};
            WordSyntax header;
            header.atoms.push_back({.kind = Atom::Kind::literal, .quoted = true, .text = std::move(*expression)});
            simple.words.push_back(std::move(header));
            emit_simple(std::move(simple));
            blanks();
            if (peek() == ';') ++pos_;
            skip_blank_lines();
            out += "; ";
            at_command = true;
            continue;
          }
          const WordSyntax name = read_word();
          if (!name.plain() || name.plain()->empty()) fail(word.begin, "a for loop without a variable");
          LoopSyntax loop{.variable = std::string(*name.plain())};
          skip_blank_lines();
          const std::size_t behind = pos_;
          if (read_word().plain() == "in") {
            while (true) {
              blanks();
              const char next = peek();
              if (pos_ >= source_.size() || next == ';' || next == '\n') break;
              const std::size_t before = pos_;
              loop.words.push_back(read_word());
              if (pos_ == before) fail(pos_, "an operator in the words of a for loop");
            }
          } else {
            pos_ = behind;
          }
          if (peek() == ';') ++pos_;
          skip_blank_lines();
          syntax->loops.emplace(here(), std::move(loop));
          out += "for x in x; ";
          at_command = true;
          continue;
        }
        if (text == "case") {
          blanks();
          CaseSyntax choice{.subject = read_word()};
          skip_blank_lines();
          if (read_word().plain() != "in") fail(pos_, "a case without \"in\"");
          if (open_cases.size() > 200) fail(word.begin, "nested too deeply");
          open_case = &syntax->cases.emplace(here(), std::move(choice)).first->second;
          open_cases.push_back(open_case);
          out += "case x in\n";
          frames.push_back(Frame::case_pattern);
          continue;
        }
        if (text == "function") {
          blanks();
          const WordSyntax name = read_word();
          if (name.begin == name.end) fail(pos_, "a function without a name");
          std::string spelled;
          for (const Atom& atom : name.atoms) spelled += atom.text;
          blanks();
          if (peek() == '(' && peek_after() == ')') {
            take();
            take();
          }
          skip_blank_lines();
          syntax->functions.emplace(here(), std::move(spelled));
          out += "x() ";
          at_command = true;
          continue;
        }
        if (text == "[[") {
          SimpleSyntax simple = condition();
          simple.begin = word.begin;
          emit_simple(std::move(simple));
          at_command = false;
          after_compound = true;
          continue;
        }
      }
    }
    if (after_compound) fail(word.begin, "a word behind a compound command");
    if (!current) current = SimpleSyntax{.begin = word.begin};
    current->end = word.end;
    current->words.push_back(std::move(word));
    at_command = false;
  }
  end_simple();
  if (!pending_.empty()) read_here_documents();
  if (!frames.empty()) fail(opened, "a parenthesis or case is never closed");
  // Bodies of here-documents go to their redirects.
  const auto settle = [&](std::vector<RedirectSyntax>& redirects) {
    for (RedirectSyntax& redirect : redirects) {
      if (redirect.operation == "<<") redirect.target.atoms = std::move(*bodies_[redirect.target.begin]);
    }
  };
  if (!bodies_.empty()) {
    for (auto& [at, simple] : syntax->simples) settle(simple.redirects);
    for (auto& [at, tail] : syntax->tails) settle(tail);
  }
  syntax->one_command = syntax->simples.size() == 1 && syntax->tails.empty() && out.find_first_not_of("x \n") == std::string::npos;
  return syntax;
}

Error error_at(std::string_view text, const Failure& failure) {
  const std::size_t at = std::min(failure.at, text.size());
  const std::size_t line = static_cast<std::size_t>(std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(at), '\n')) + 1;
  const std::size_t line_start = text.substr(0, at).rfind('\n') + 1;  // npos + 1 = 0
  return Error{.code = failure.code,
               .message = "line " + std::to_string(line) + ", column " + std::to_string(at - line_start + 1) + ": " + failure.what};
}

}  // namespace

std::optional<std::string_view> WordSyntax::plain() const {
  if (atoms.empty() || compound) return std::nullopt;
  if (atoms.size() != 1 || atoms[0].kind != Atom::Kind::literal || atoms[0].quoted) return std::nullopt;
  return atoms[0].text;
}

std::string_view TextStore::keep(std::string text) {
  texts_.push_back(std::make_unique<const std::string>(std::move(text)));
  return *texts_.back();
}

Result<std::shared_ptr<const Syntax>> scan_shell(std::string_view text, TextStore& store, std::size_t& commands, int depth) {
  try {
    if (const std::size_t nul = text.find('\0'); nul != std::string_view::npos)
      throw Failure{nul, "a NUL byte, which no shell command holds"};
    return Scanner(text, store, commands, depth).commands(false);
  } catch (const Failure& failure) { return error_at(text, failure); }
}

Result<WordSyntax> scan_fragment(std::string_view text, bool double_quoted, TextStore& store, std::size_t& commands, int depth) {
  try {
    if (depth > deepest_syntax) throw Failure{0, "nested too deeply"};
    return Scanner(text, store, commands, depth).fragment(double_quoted);
  } catch (const Failure& failure) { return error_at(text, failure); }
}

}  // namespace hearth::safety
