#include "safety/policy_syntax.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <utility>

#include "base/json.h"
#include "base/nearest.h"
#include "base/utf8.h"

namespace hearth::safety {
namespace {

constexpr std::size_t longest_policy = std::size_t{4} << 20;
constexpr int deepest_condition = 64;
constexpr std::array<std::string_view, 7> days{"mon", "tue", "wed", "thu", "fri", "sat", "sun"};
constexpr std::array<std::string_view, 5> spills{"marking", "secret", "personal", "document", "injection"};
constexpr std::array<std::string_view, 3> directions{"argument", "result", "text"};
constexpr std::array<std::string_view, 4> decisions{"ALLOW", "AUDIT", "REQUIRE", "DENY"};

struct Token {
  enum class Kind { end, word, text, number, symbol };
  Kind kind = Kind::end;
  std::string text;  // a text's value; else as written
  Position at;
  std::size_t begin = 0, end = 0;  // bytes
};

bool letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool digit(char c) { return c >= '0' && c <= '9'; }

class Lexer {
 public:
  explicit Lexer(std::string_view text) : text_(text) { advance(); }

  const Token& peek() const { return next_; }
  Token take() {
    Token token = std::move(next_);
    last_end_ = token.end;
    advance();
    return token;
  }
  // Where the last token taken ended.
  std::size_t last_end() const { return last_end_; }
  std::string_view source(std::size_t begin, std::size_t end) const { return text_.substr(begin, end - begin); }

  // A JSON object that begins at the next token, a "{"; the lexer goes on behind it.
  Token json_object() {
    Token token = next_;
    std::size_t i = token.begin;
    int depth = 0;
    bool quoted = false;
    for (; i < text_.size(); ++i) {
      const char c = text_[i];
      if (quoted) {
        if (c == '\\') ++i;
        if (c == '"') quoted = false;
      } else if (c == '"') {
        quoted = true;
      } else if (c == '{') {
        ++depth;
      } else if (c == '}' && --depth == 0) {
        break;
      }
    }
    if (i >= text_.size()) throw PolicyMistake{token.at, "this JSON object has no end"};
    token.text = text_.substr(token.begin, i + 1 - token.begin);
    token.end = i + 1;
    last_end_ = token.end;
    move_to(i + 1);
    advance();
    return token;
  }

 private:
  void move_to(std::size_t to) {
    for (; offset_ < to; ++offset_) {
      if (text_[offset_] == '\n') {
        ++at_.line;
        at_.column = 1;
      } else if ((static_cast<unsigned char>(text_[offset_]) & 0xC0) != 0x80) {
        ++at_.column;
      }
    }
  }
  void advance() {
    while (offset_ < text_.size()) {
      const char c = text_[offset_];
      if (c == '#') {
        move_to(std::min(text_.find('\n', offset_), text_.size()));
      } else if (c == ' ' || c == '\t' || c == '\n' || c == '\r') {
        move_to(offset_ + 1);
      } else {
        break;
      }
    }
    next_ = {.at = at_, .begin = offset_, .end = offset_};
    if (offset_ >= text_.size()) return;
    const char c = text_[offset_];
    std::size_t end = offset_ + 1;
    if (c == '"' || c == '\'') return quoted(c);
    if (letter(c)) {
      while (end < text_.size() && (letter(text_[end]) || digit(text_[end]) || text_[end] == '-')) ++end;
      next_.kind = Token::Kind::word;
    } else if (digit(c)) {
      while (end < text_.size() && (digit(text_[end]) || text_[end] == '.' || text_[end] == ':' || text_[end] == '-')) ++end;
      next_.kind = Token::Kind::number;
    } else if (std::string_view("(){},=<>!").find(c) != std::string_view::npos) {
      if ((c == '<' || c == '>') && end < text_.size() && text_[end] == '=') ++end;
      next_.kind = Token::Kind::symbol;
    } else {
      const std::size_t length = std::max<std::size_t>(1, utf8_sequence_length(text_.substr(offset_)));
      throw PolicyMistake{
          at_, fmt::format("\"{}\" means nothing here; texts stand in quotes, comments begin with #", text_.substr(offset_, length))};
    }
    next_.text = text_.substr(offset_, end - offset_);
    next_.end = end;
    move_to(end);
  }
  // '…' holds its text as it is, over several lines if need be; "…" knows \" \\ \n \r \t \u{…}.
  void quoted(char mark) {
    const Position start = at_;
    const std::size_t begin = offset_;
    std::string out;
    std::size_t i = offset_ + 1;
    for (;; ++i) {
      if (i >= text_.size() || (text_[i] == '\n' && mark == '"'))
        throw PolicyMistake{start,
                            fmt::format("this text has no closing {}{}", mark, mark == '"' ? " in its line; \\n is a line break" : "")};
      const char c = text_[i];
      if (c == mark) break;
      if (c != '\\' || mark == '\'') {
        out += c;
        continue;
      }
      const char next = i + 1 < text_.size() ? text_[i + 1] : '\0';
      ++i;
      switch (next) {
        case '"': out += '"'; break;
        case '\\': out += '\\'; break;
        case 'n': out += '\n'; break;
        case 'r': out += '\r'; break;
        case 't': out += '\t'; break;
        case 'u': {
          const auto close = text_.find('}', i);
          std::uint32_t code = 0;
          const bool well = i + 1 < text_.size() && text_[i + 1] == '{' && close != std::string_view::npos &&
                            std::from_chars(text_.data() + i + 2, text_.data() + close, code, 16).ptr == text_.data() + close &&
                            close > i + 2;
          if (!well || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) {
            move_to(i - 1);
            throw PolicyMistake{at_, "\\u is followed by a character's number in braces: \\u{200B}"};
          }
          append_character(out, code);
          i = close;
          break;
        }
        default:
          move_to(i - 1);
          throw PolicyMistake{
              at_, fmt::format("\"\\{}\" is no escape; there are \\\" \\\\ \\n \\r \\t and \\u{{…}}. In '…' a backslash stands for itself",
                               next)};
      }
    }
    next_ = {.kind = Token::Kind::text, .text = std::move(out), .at = start, .begin = begin, .end = i + 1};
    move_to(i + 1);
  }
  static void append_character(std::string& out, std::uint32_t code) {
    if (code < 0x80) {
      out += static_cast<char>(code);
    } else if (code < 0x800) {
      out += static_cast<char>(0xC0 | (code >> 6));
      out += static_cast<char>(0x80 | (code & 0x3F));
    } else if (code < 0x10000) {
      out += static_cast<char>(0xE0 | (code >> 12));
      out += static_cast<char>(0x80 | ((code >> 6) & 0x3F));
      out += static_cast<char>(0x80 | (code & 0x3F));
    } else {
      out += static_cast<char>(0xF0 | (code >> 18));
      out += static_cast<char>(0x80 | ((code >> 12) & 0x3F));
      out += static_cast<char>(0x80 | ((code >> 6) & 0x3F));
      out += static_cast<char>(0x80 | (code & 0x3F));
    }
  }

  std::string_view text_;
  std::size_t offset_ = 0, last_end_ = 0;
  Position at_;
  Token next_;
};

using Words = std::vector<std::string_view>;

class Reader {
 public:
  Reader(std::string_view text, Document& document, bool shipped) : lexer_(text), doc_(document), shipped_(shipped) {}

  void document() {
    while (!at_end()) statement();
  }
  std::vector<Expectation> cases() {
    std::vector<Expectation> out;
    while (!at_end()) {
      const Token first = lexer_.take();
      if (first.text != "expect") fail(first, fmt::format("a case begins with expect, not with {}", shown(first)));
      Expectation one;
      const Token what = lexer_.take();
      if (what.text == "blocked") {
        one.kind = Expectation::Kind::blocked;
      } else if (what.text == "released") {
        one.kind = Expectation::Kind::released;
      } else {
        one.decision = decision_of(what, {"ALLOW", "AUDIT", "REQUIRE", "DENY", "blocked", "released"});
      }
      one.example = example(true, first);
      out.push_back(std::move(one));
    }
    return out;
  }

 private:
  // -- Tokens

  bool at_end() const { return lexer_.peek().kind == Token::Kind::end; }
  bool next_is(std::string_view word) const { return lexer_.peek().kind != Token::Kind::text && lexer_.peek().text == word; }
  bool take_if(std::string_view word) {
    if (!next_is(word)) return false;
    lexer_.take();
    return true;
  }
  static std::string shown(const Token& token) {
    if (token.kind == Token::Kind::end) return "the end of the file";
    if (token.kind == Token::Kind::text) return "a text";
    return "\"" + token.text + "\"";
  }
  [[noreturn]] static void fail(const Token& token, std::string message) { throw PolicyMistake{token.at, std::move(message)}; }
  // "x" is no KIND; did you mean "y"?
  [[noreturn]] static void unknown(const Token& token, std::string_view kind, const Words& words) {
    const std::string near = token.kind == Token::Kind::word ? nearest(token.text, words) : std::string();
    std::string message = fmt::format("{} is no {}", shown(token), kind);
    message += near.empty() ? fmt::format("; there are {}", fmt::join(words, ", ")) : fmt::format("; did you mean \"{}\"?", near);
    throw PolicyMistake{token.at, std::move(message)};
  }
  void expect(std::string_view symbol, std::string_view why) {
    if (!take_if(symbol)) fail(lexer_.peek(), fmt::format("\"{}\" is missing {}; here is {}", symbol, why, shown(lexer_.peek())));
  }
  std::string text(std::string_view what) {
    if (lexer_.peek().kind != Token::Kind::text)
      fail(lexer_.peek(), fmt::format("{} is a text in quotes; here is {}", what, shown(lexer_.peek())));
    Token token = lexer_.take();
    if (token.text.empty()) fail(token, fmt::format("{} is empty", what));
    return std::move(token.text);
  }
  std::vector<std::string> texts(std::string_view what) {
    std::vector<std::string> out;
    do out.push_back(text(what));
    while (take_if(","));
    return out;
  }
  double number(std::string_view what) {
    const Token token = lexer_.take();
    double value = 0;
    const auto end = token.text.data() + token.text.size();
    if (token.kind != Token::Kind::number || std::from_chars(token.text.data(), end, value).ptr != end)
      fail(token, fmt::format("{} is a number, like 0.9; here is {}", what, shown(token)));
    return value;
  }
  template <std::size_t n>
  std::uint32_t bits(const std::array<std::string_view, n>& names, std::string_view kind) {
    std::uint32_t out = 0;
    do {
      const Token token = lexer_.take();
      const auto found = std::find(names.begin(), names.end(), token.text);
      if (token.kind != Token::Kind::word || found == names.end()) unknown(token, kind, Words(names.begin(), names.end()));
      const std::uint32_t bit = 1U << (found - names.begin());
      if ((out & bit) != 0) fail(token, fmt::format("\"{}\" stands here twice", token.text));
      out |= bit;
    } while (take_if(","));
    return out;
  }
  static Words effect_names() {
    Words out;
    for (std::size_t i = 0; i < effect_count; ++i) out.push_back(name(static_cast<Effect>(i)));
    return out;
  }
  std::uint32_t effect_bits() {
    std::uint32_t out = 0;
    do {
      const Token token = lexer_.take();
      std::uint32_t bit = 0;
      if (token.text == "dangerous") {
        bit = (1U << dangerous_effects) - 1;
      } else if (const auto effect = effect_from_name(token.text); effect && token.kind == Token::Kind::word) {
        bit = 1U << static_cast<unsigned>(*effect);
      } else {
        auto words = effect_names();
        words.emplace_back("dangerous");
        unknown(token, "effect", words);
      }
      if ((out & bit) != 0) fail(token, fmt::format("\"{}\" stands here twice", token.text));
      out |= bit;
    } while (take_if(","));
    return out;
  }
  static Decision decision_of(const Token& token, const Words& words = {decisions.begin(), decisions.end()}) {
    const auto found = std::find(decisions.begin(), decisions.end(), token.text);
    if (token.kind != Token::Kind::word || found == decisions.end()) unknown(token, "decision", words);
    return static_cast<Decision>(found - decisions.begin());
  }
  Compare comparison() {
    const Token token = lexer_.take();
    if (token.text == "<") return Compare::less;
    if (token.text == "<=") return Compare::at_most;
    if (token.text == "=") return Compare::equal;
    if (token.text == ">=") return Compare::at_least;
    if (token.text == ">") return Compare::more;
    fail(token, fmt::format("a comparison is missing (< <= = >= >); here is {}", shown(token)));
  }
  int minutes(std::string_view clock, const Token& token) {
    int hour = -1, minute = -1;
    const auto colon = clock.find(':');
    if (colon != std::string_view::npos) {
      std::from_chars(clock.data(), clock.data() + colon, hour);
      std::from_chars(clock.data() + colon + 1, clock.data() + clock.size(), minute);
    }
    if (colon == std::string_view::npos || clock.size() != colon + 3 || hour < 0 || hour > 24 || minute < 0 || minute > 59 ||
        hour * 60 + minute > 1440)
      fail(token, fmt::format("\"{}\" is no time of day, like 08:30", clock));
    return hour * 60 + minute;
  }
  std::string level() {
    Token token = lexer_.take();
    if (token.kind != Token::Kind::word && token.kind != Token::Kind::text)
      fail(token, fmt::format("a level is missing, like SECRET; here is {}", shown(token)));
    const auto rank = rank_of(token.text, doc_.levels);
    if (rank == 0 || rank > doc_.levels.size())
      unknown({.kind = Token::Kind::word, .text = token.text, .at = token.at}, "level", Words(doc_.levels.begin(), doc_.levels.end()));
    return std::move(token.text);
  }

  // -- Statements

  void statement() {
    static const Words words{"ALLOW",   "AUDIT", "REQUIRE", "DENY",  "include",    "drop",   "gate",  "writable",
                             "protect", "trust", "tool",    "guard", "trajectory", "levels", "define"};
    const Token first = lexer_.take();
    if (first.kind != Token::Kind::word) fail(first, fmt::format("a rule or a directive begins with a word, not with {}", shown(first)));
    if (std::find(decisions.begin(), decisions.end(), first.text) != decisions.end()) return rule(first);
    if (first.text == "include") return include(first);
    if (first.text == "drop") return drop();
    if (first.text == "gate") return gate(first);
    if (first.text == "writable") return append(doc_.writable, "a writable folder");
    if (first.text == "protect") return append(doc_.protect, "a protected path");
    if (first.text == "trust") {
      expect("host", "after trust");
      return append(doc_.trusted, "a trusted host");
    }
    if (first.text == "tool") return tool();
    if (first.text == "guard") return threshold(doc_.guard, 1, first);
    if (first.text == "trajectory") return threshold(doc_.trajectory, 1000, first);
    if (first.text == "levels") return levels(first);
    if (first.text == "define") return define();
    if (first.text == "when" || first.text == "reason" || first.text == "remedy" || first.text == "match" || first.text == "not_match" ||
        first.text == "redact")
      fail(first, fmt::format("\"{}\" belongs to a rule, and no rule stands before it", first.text));
    unknown(first, "rule or directive", words);
  }
  void append(std::vector<std::string>& list, std::string_view what) {
    do {
      const Token at = lexer_.peek();
      auto one = text(what);
      if (std::find(list.begin(), list.end(), one) != list.end()) fail(at, fmt::format("\"{}\" was named before", one));
      list.push_back(std::move(one));
    } while (take_if(","));
  }
  void include(const Token& first) {
    expect("shipped", "after include: the one policy that can be included");
    if (shipped_) fail(first, "the shipped policy cannot include itself");
    if (included_) fail(first, "the shipped policy is included already");
    if (begun_) fail(first, "include stands before everything else, so that what follows can change it");
    included_ = true;
    Reader(Policy::shipped_text(), doc_, true).document();
  }
  void drop() {
    begun_ = true;
    do {
      const Token token = lexer_.take();
      const auto found = std::find_if(doc_.rules.begin(), doc_.rules.end(), [&](const Rule& r) { return r.name == token.text; });
      if (found == doc_.rules.end()) {
        Words names;
        for (const auto& one : doc_.rules) names.push_back(one.name);
        if (names.empty()) fail(token, "there is no rule to drop; rules of the shipped policy stand here after `include shipped`");
        const auto near = nearest(token.text, names);
        fail(token,
             fmt::format("there is no rule {} above{}", shown(token), near.empty() ? "" : fmt::format("; did you mean \"{}\"?", near)));
      }
      if (!found->shipped) fail(token, fmt::format("\"{}\" is a rule of this file; remove it instead of dropping it", token.text));
      doc_.rules.erase(found);
    } while (take_if(","));
  }
  void gate(const Token& first) {
    begun_ = true;
    const auto effects = effect_bits();
    Gate given{.given = true, .shipped = shipped_, .at = first.at};
    given.certain = given.uncertain = decision_of(lexer_.take());
    if (take_if("uncertain")) given.uncertain = decision_of(lexer_.take());
    for (std::size_t i = 0; i < effect_count; ++i) {
      if ((effects >> i & 1) == 0) continue;
      auto& one = doc_.gates[i];
      if (one.given && one.shipped == shipped_)
        fail(first, fmt::format("the gate of {} was set in line {} already", name(static_cast<Effect>(i)), one.at.line));
      one = given;
    }
  }
  void threshold(std::vector<Threshold>& list, double most, const Token& first) {
    begun_ = true;
    if (!shipped_ && !list.empty() && !own_thresholds_[first.text == "guard"]) list.clear();
    own_thresholds_[first.text == "guard"] = true;
    const Token at = lexer_.peek();
    Threshold one{.from = number("the threshold")};
    if (one.from <= 0 || one.from > most) fail(at, fmt::format("the threshold {} is not above 0 and at most {}", at.text, most));
    const Token what = lexer_.peek();
    one.decision = decision_of(lexer_.take());
    if (one.decision == Decision::allow) fail(what, "layers 2 and 3 only tighten: a threshold leads to AUDIT, REQUIRE or DENY");
    if (!list.empty() && (one.from <= list.back().from || one.decision <= list.back().decision))
      fail(at, fmt::format("thresholds of {} rise, with the decision: this one follows {} {}", first.text, list.back().from,
                           name(list.back().decision)));
    list.push_back(one);
  }
  void levels(const Token& first) {
    if (!doc_.rules.empty() && !included_) fail(first, "levels stand before the rules that use them");
    if (begun_levels_) fail(first, "the levels were named already");
    begun_levels_ = true;
    std::vector<std::string> list;
    do {
      const Token token = lexer_.take();
      if (token.kind != Token::Kind::word && token.kind != Token::Kind::text)
        fail(token, fmt::format("a level is missing, like SECRET; here is {}", shown(token)));
      if (std::find(list.begin(), list.end(), token.text) != list.end()) fail(token, fmt::format("\"{}\" stands here twice", token.text));
      list.push_back(token.text);
    } while (take_if("<"));
    for (const auto& known : doc_.levels) {
      if (included_ && std::find(list.begin(), list.end(), known) == list.end())
        fail(first, fmt::format("the included policy speaks of the level \"{}\", so it needs its place among these", known));
    }
    doc_.levels = std::move(list);
  }
  void tool() {
    begun_ = true;
    ToolEntry entry;
    const Token at = lexer_.peek();
    entry.name = text("the name of a tool");
    for (const auto& other : doc_.tools) {
      if (plain_name(other.name) == plain_name(entry.name)) fail(at, fmt::format("the tool \"{}\" is described twice", entry.name));
    }
    expect("{", "after the tool's name");
    while (!take_if("}")) {
      const Token word = lexer_.take();
      if (word.text == "argument" && word.kind == Token::Kind::word) {
        std::vector<std::string> names = texts("the name of an argument");
        expect("is", "before what the argument is");
        const Token use = lexer_.take();
        const auto known = use.kind == Token::Kind::word ? use_from_name(use.text) : std::nullopt;
        if (!known) unknown(use, "use of an argument", use_names());
        std::string language;
        if (*known == Use::code && lexer_.peek().kind == Token::Kind::text) language = text("a language");
        for (auto& one : names) entry.arguments.push_back({std::move(one), *known, language});
      } else if (word.text == "effects" && word.kind == Token::Kind::word) {
        const auto set = effect_bits();
        for (std::size_t i = 0; i < effect_count; ++i) {
          if ((set >> i & 1) != 0) entry.effects.push_back(static_cast<Effect>(i));
        }
      } else if (word.text == "command" && word.kind == Token::Kind::word) {
        entry.command = text("the command of a tool");
      } else {
        unknown(word, "part of a tool", {"argument", "effects", "command", "}"});
      }
    }
    if (entry.arguments.empty() && entry.effects.empty())
      fail(at, fmt::format("nothing is said about the tool \"{}\": name its arguments or effects", entry.name));
    doc_.tools.push_back(std::move(entry));
  }
  std::string new_name(const Token& token, std::string_view what) {
    const bool well =
        token.kind == Token::Kind::word && std::none_of(token.text.begin(), token.text.end(), [](char c) { return c >= 'A' && c <= 'Z'; });
    static const Words taken = test_words();
    if (well && std::find(taken.begin(), taken.end(), token.text) != taken.end())
      fail(token, fmt::format("\"{}\" is a word of the language, and a {} needs a name of its own", token.text, what));
    if (!well) fail(token, fmt::format("the name of a {} is a word in lower case, like no-force-push; here is {}", what, shown(token)));
    return token.text;
  }
  void define() {
    begun_ = true;
    const Token token = lexer_.take();
    Definition one{.name = new_name(token, "definition"), .shipped = shipped_, .at = token.at};
    static const Words taken = test_words();
    if (std::find(taken.begin(), taken.end(), one.name) != taken.end())
      fail(token, fmt::format("\"{}\" is a word of the language; take another name", one.name));
    for (const auto& other : doc_.definitions) {
      if (other.name == one.name) fail(token, fmt::format("\"{}\" was defined in line {} already", one.name, other.at.line));
    }
    expect("=", "after the name of a definition");
    one.condition = condition(0);
    doc_.definitions.push_back(std::move(one));
  }

  void rule(const Token& first) {
    begun_ = true;
    Rule rule{.decision = decision_of(first), .shipped = shipped_, .at = first.at};
    const Token named = lexer_.take();
    rule.name = new_name(named, "rule");
    for (const auto& other : doc_.rules) {
      if (other.name == rule.name)
        fail(named, fmt::format("there is a rule \"{}\" already, in {}line {}", rule.name,
                                other.shipped != shipped_ ? "the shipped policy's " : "", other.at.line));
    }
    bool has_when = false;
    for (;;) {
      const Token& next = lexer_.peek();
      if (next.kind != Token::Kind::word) {
        if (next.kind == Token::Kind::end) break;
        fail(next,
             fmt::format("the rule \"{}\" goes on with when, reason, remedy, match or not_match; here is {}", rule.name, shown(next)));
      }
      if (next.text == "instead") {
        const Token at = lexer_.take();
        expect("of", "after instead");
        expect("gate", "after instead of");
        if (rule.decision != Decision::allow) fail(at, "only an ALLOW rule can stand instead of a gate; the others tighten anyway");
        if (rule.lifts != 0) fail(at, "\"instead of gate\" stands here twice; name several effects with commas");
        rule.lifts = effect_bits();
      } else if (next.text == "when") {
        const Token at = lexer_.take();
        if (has_when) fail(at, "\"when\" stands here twice; join conditions with and, or");
        has_when = true;
        rule.when_at = lexer_.peek().at;
        const std::size_t begin = lexer_.peek().begin;
        rule.when = condition(0);
        rule.condition_text = one_line(lexer_.source(begin, lexer_.last_end()));
      } else if (next.text == "reason") {
        const Token at = lexer_.take();
        if (!rule.reason.empty()) fail(at, "\"reason\" stands here twice");
        rule.reason = text("a reason");
      } else if (next.text == "remedy") {
        const Token at = lexer_.take();
        if (!rule.remedy.empty()) fail(at, "\"remedy\" stands here twice");
        rule.remedy = text("a remedy");
      } else if (next.text == "redact") {
        const Token at = lexer_.take();
        if (rule.decision > Decision::audit) fail(at, "redact releases with stand-ins, so it belongs to an AUDIT or ALLOW rule");
        rule.redact = true;
      } else if (next.text == "match" || next.text == "not_match") {
        const Token at = lexer_.take();
        auto one = example(at.text == "match", at);
        for (const auto& other : rule.examples) {
          if (other.shown == one.shown && other.context == one.context)
            fail(at, other.matches == one.matches
                         ? fmt::format("this example stands in line {} already", other.at.line)
                         : fmt::format("the example contradicts line {}: it cannot both match and not match", other.at.line));
        }
        rule.examples.push_back(std::move(one));
      } else {
        static const Words clauses{"when", "reason", "remedy", "match", "not_match", "redact", "instead"};
        static const Words starts{"ALLOW",   "AUDIT", "REQUIRE", "DENY",  "include",    "drop",   "gate",  "writable",
                                  "protect", "trust", "tool",    "guard", "trajectory", "levels", "define"};
        if (std::find(starts.begin(), starts.end(), next.text) != starts.end()) break;
        Words all = clauses;
        all.insert(all.end(), starts.begin(), starts.end());
        if (next.text == "and" || next.text == "or")
          fail(next, fmt::format("\"{}\" has no condition before it; conditions stand after when", next.text));
        unknown(next, "part of a rule", nearest(next.text, all).empty() ? clauses : all);
      }
    }
    if (!has_when)
      throw PolicyMistake{rule.at, fmt::format("the rule \"{}\" has no condition: add when …, or `when always` for every call", rule.name)};
    if (rule.reason.empty())
      throw PolicyMistake{
          rule.at,
          fmt::format("the rule \"{}\" has no reason: people and agents read it when the rule decides; add reason \"…\"", rule.name)};
    if (rule.redact && spill_free(rule.when))
      throw PolicyMistake{rule.at, fmt::format("the rule \"{}\" redacts, but does not ask for a spill", rule.name)};
    doc_.rules.push_back(std::move(rule));
  }
  bool spill_free(const Condition& condition) const {
    if (condition.kind == Condition::Kind::spill) return false;
    if (condition.kind == Condition::Kind::named) return spill_free(doc_.definitions[condition.index].condition);
    return std::all_of(condition.parts.begin(), condition.parts.end(), [this](const auto& part) { return spill_free(part); });
  }
  static std::string one_line(std::string_view text) {
    std::string out;
    bool space = false, comment = false;
    for (const char c : text) {
      if (c == '\n') comment = false;
      if (c == '#') comment = true;
      if (comment) continue;
      if (c == ' ' || c == '\n' || c == '\t' || c == '\r') {
        space = !out.empty();
        continue;
      }
      if (space) out += ' ';
      space = false;
      out += c;
    }
    return out;
  }

  // -- Conditions

  static Words test_words() {
    return {"always", "tool",  "effect",         "certain", "uncertain", "path", "place", "program",    "command", "argument", "host",
            "tenant", "model", "classification", "spill",   "direction", "time", "day",   "trajectory", "guard",   "tainted",  "not",
            "and",    "or",    "when",           "instead"};
  }
  Condition condition(int depth) {
    if (depth > deepest_condition) fail(lexer_.peek(), fmt::format("the condition is nested deeper than {} levels", deepest_condition));
    return joined(Condition::Kind::any, "or", [&] { return joined(Condition::Kind::all, "and", [&] { return single(depth); }); });
  }
  template <class Part>
  Condition joined(Condition::Kind kind, std::string_view word, const Part& part) {
    const Position at = lexer_.peek().at;
    Condition first = part();
    if (!next_is(word)) return first;
    Condition out{.kind = kind, .at = at};
    out.parts.push_back(std::move(first));
    while (take_if(word)) out.parts.push_back(part());
    return out;
  }
  Condition single(int depth) {
    const Token token = lexer_.take();
    Condition out{.at = token.at};
    using Kind = Condition::Kind;
    if (token.text == "(" && token.kind == Token::Kind::symbol) {
      out = condition(depth + 1);
      expect(")", "at the end of the parenthesis");
      return out;
    }
    if (token.kind != Token::Kind::word) fail(token, fmt::format("a condition is missing; here is {}", shown(token)));
    const std::string& word = token.text;
    if (word == "not") {
      if (depth > deepest_condition) fail(token, fmt::format("the condition is nested deeper than {} levels", deepest_condition));
      out.kind = Kind::negation;
      out.parts.push_back(single(depth + 1));
    } else if (word == "always") {
      out.kind = Kind::always;
    } else if (word == "tool") {
      out.kind = Kind::tool;
      for (auto& one : texts("the name of a tool")) out.texts.push_back(plain_name(one));
    } else if (word == "effect") {
      out.kind = Kind::effect;
      out.bits = effect_bits();
    } else if (word == "certain") {
      out.kind = Kind::certain;
    } else if (word == "uncertain") {
      out.kind = Kind::negation;
      out.parts.push_back({.kind = Kind::certain, .at = token.at});
    } else if (word == "path") {
      out.kind = Kind::path;
      out.texts = texts("a path");
    } else if (word == "place") {
      out.kind = Kind::place;
      out.bits = bits(place_names, "place");
    } else if (word == "program") {
      out.kind = Kind::program;
      out.texts = texts("a program");
    } else if (word == "command") {
      out.kind = Kind::command;
      out.texts = texts("a command");
    } else if (word == "argument") {
      out.kind = Kind::argument;
      for (auto& one : texts("the name of an argument")) out.texts2.push_back(plain_name(one));
      const Token how = lexer_.take();
      if (how.text == "is") {
        out.texts = texts("what the argument is");
      } else if (how.text == "contains") {
        out.match = Condition::Text::contains;
        out.texts = texts("what the argument contains");
      } else if (how.text == "matches") {
        out.match = Condition::Text::pattern;
        do {
          const Token at = lexer_.peek();
          out.patterns.push_back(pattern(text("a regular expression"), at));
        } while (take_if(","));
      } else {
        unknown(how, "way to compare an argument", {"is", "contains", "matches"});
      }
    } else if (word == "host") {
      out.kind = Kind::host;
      do {
        const Token& next = lexer_.peek();
        if (next.kind == Token::Kind::word) {
          static const Words words{"private", "public", "loopback", "metadata", "trusted"};
          if (std::find(words.begin(), words.end(), next.text) == words.end()) unknown(next, "kind of host", words);
          out.texts.push_back(":" + lexer_.take().text);
        } else {
          const Token at = next;
          out.texts.push_back(text("a host"));
          check_host(out.texts.back(), at);
        }
      } while (take_if(","));
    } else if (word == "tenant") {
      out.kind = Kind::tenant;
      out.texts = texts("a tenant");
    } else if (word == "model") {
      if (next_is("remote") || next_is("local")) {
        const bool local = lexer_.take().text == "local";
        out.kind = Kind::remote;
        if (local) {
          Condition inner = std::move(out);
          out = {.kind = Kind::negation, .at = token.at};
          out.parts.push_back(std::move(inner));
        }
      } else {
        out.kind = Kind::model;
        out.texts = texts("a model (or the word remote or local)");
      }
    } else if (word == "classification") {
      out.kind = Kind::classification;
      out.compare = comparison();
      out.texts.push_back(level());
    } else if (word == "spill") {
      out.kind = Kind::spill;
      if (take_if("any")) {
        out.bits = 31;
      } else {
        out.bits = bits(spills, "kind of spill");
      }
      for (;;) {
        if (take_if("detector")) {
          out.texts = texts("a detector");
        } else if (take_if("level")) {
          out.compare = comparison();
          out.texts2.push_back(level());
        } else if (take_if("confidence")) {
          expect(">=", "after confidence");
          const Token at = lexer_.peek();
          out.number = number("a confidence");
          if (out.number <= 0 || out.number > 1) fail(at, "a confidence is above 0 and at most 1");
        } else {
          break;
        }
      }
    } else if (word == "direction") {
      out.kind = Kind::direction;
      out.bits = bits(directions, "direction");
    } else if (word == "time") {
      out.kind = Kind::time;
      const Token range = lexer_.take();
      const auto dash = range.text.find('-');
      if (range.kind != Token::Kind::number || dash == std::string::npos)
        fail(range, fmt::format("a time is a range, like 22:00-06:00; here is {}", shown(range)));
      out.from = minutes(std::string_view(range.text).substr(0, dash), range);
      out.to = minutes(std::string_view(range.text).substr(dash + 1), range);
      if (out.from == out.to) fail(range, "this range of time is empty");
    } else if (word == "day") {
      out.kind = Kind::day;
      do out.bits |= day_range(lexer_.take());
      while (take_if(","));
    } else if (word == "trajectory" || word == "guard") {
      out.kind = word == "guard" ? Kind::guard : Kind::trajectory;
      out.compare = comparison();
      out.number = number(word == "guard" ? "a probability" : "a score");
      if (word == "guard" && out.number > 1) fail(token, "a probability is at most 1");
    } else if (word == "tainted") {
      out.kind = Kind::tainted;
    } else {
      const auto found = std::find_if(doc_.definitions.begin(), doc_.definitions.end(), [&](const auto& d) { return d.name == word; });
      if (found == doc_.definitions.end()) {
        Words words = test_words();
        for (const auto& one : doc_.definitions) words.push_back(one.name);
        const auto near = nearest(word, words);
        fail(token, fmt::format("\"{}\" is no condition and was not defined above{}", word,
                                near.empty() ? "" : fmt::format("; did you mean \"{}\"?", near)));
      }
      found->used = true;
      out.kind = Kind::named;
      out.index = static_cast<std::size_t>(found - doc_.definitions.begin());
    }
    return out;
  }
  static std::uint32_t day_range(const Token& token) {
    const auto day = [&](std::string_view text) {
      const auto found = std::find(days.begin(), days.end(), text);
      if (token.kind != Token::Kind::word || found == days.end()) unknown(token, "day", Words(days.begin(), days.end()));
      return static_cast<int>(found - days.begin()) + 1;
    };
    const auto dash = token.text.find('-');
    const int from = day(std::string_view(token.text).substr(0, dash));
    const int to = dash == std::string::npos ? from : day(std::string_view(token.text).substr(dash + 1));
    std::uint32_t out = 0;
    for (int at = from;; at = at % 7 + 1) {
      out |= 1U << at;
      if (at == to) return out;
    }
  }
  static void check_host(const std::string& host, const Token& at) {
    if (host.find("://") != std::string::npos)
      fail(at, fmt::format("\"{}\" is a URL; a host is a name, like *.example.org, or a network, like 10.0.0.0/8", host));
    const auto slash = host.find('/');
    if (slash == std::string::npos) return;
    int width = -1;
    const bool six = host.find(':') != std::string::npos;
    std::from_chars(host.data() + slash + 1, host.data() + host.size(), width);
    if (width < 0 || width > (six ? 128 : 32)) fail(at, fmt::format("\"{}\" is no network, like 10.0.0.0/8 or fd00::/8", host));
  }
  std::size_t pattern(const std::string& source, const Token& at) {
    RE2::Options options;
    options.set_log_errors(false);
    options.set_max_mem(1 << 20);
    auto made = std::make_unique<RE2>(source, options);
    if (!made->ok()) fail(at, fmt::format("the regular expression is wrong: {}", made->error()));
    doc_.patterns.push_back(std::move(made));
    return doc_.patterns.size() - 1;
  }

  // -- Examples

  Example example(bool matches, const Token& first) {
    Example out{.matches = matches, .at = first.at};
    const std::size_t begin = lexer_.peek().begin;
    if (take_if("tool")) {
      out.kind = Example::Kind::call;
      out.tool = text("the name of a tool");
      if (!next_is("{")) fail(lexer_.peek(), fmt::format("the arguments of the tool are a JSON object; here is {}", shown(lexer_.peek())));
      const Token object = lexer_.json_object();
      if (const auto parsed = parse_json(object.text); !parsed.ok())
        fail(object, "the arguments are no JSON object: " + parsed.error().message);
      out.content = object.text;
    } else if (take_if("text")) {
      out.kind = Example::Kind::text;
      out.content = text("the text of an example");
    } else if (take_if("result")) {
      out.kind = Example::Kind::result;
      out.content = text("the result of an example");
    } else {
      out.content = text("a command (or tool NAME {…}, text or result)");
      if (!is_valid_utf8(out.content)) fail(first, "the example is not valid UTF-8");
    }
    out.shown = lexer_.source(begin, lexer_.last_end());
    if (!take_if("with")) return out;
    const std::size_t context = lexer_.peek().begin;
    do context_item(out);
    while (take_if(","));
    out.context = lexer_.source(context, lexer_.last_end());
    return out;
  }
  void context_item(Example& out) {
    const Token word = lexer_.take();
    if (word.text == "tenant") {
      out.tenant = text("a tenant");
    } else if (word.text == "model") {
      if (take_if("remote")) {
        out.remote = true;
      } else if (!take_if("local")) {
        out.model = text("a model (or the word remote or local)");
      }
    } else if (word.text == "classification") {
      out.classification = level();
    } else if (word.text == "tainted") {
      out.tainted = true;
    } else if (word.text == "folder") {
      out.folder = text("a folder");
    } else if (word.text == "description") {
      out.description = text("a description");
    } else if (word.text == "time") {
      const Token clock = lexer_.take();
      out.minute = minutes(clock.text, clock);
    } else if (word.text == "day") {
      const auto set = day_range(lexer_.take());
      for (int i = 1; i <= 7; ++i) {
        if ((set >> i & 1) != 0) out.day = i;
      }
    } else if (word.text == "trajectory") {
      out.trajectory = number("a score");
    } else if (word.text == "guard") {
      out.guard = number("a probability");
    } else {
      unknown(word, "circumstance of an example",
              {"tenant", "model", "classification", "tainted", "folder", "description", "time", "day", "trajectory", "guard"});
    }
  }

  Lexer lexer_;
  Document& doc_;
  bool shipped_;
  bool included_ = false, begun_ = false, begun_levels_ = false;
  bool own_thresholds_[2] = {false, false};
};

}  // namespace

Error mistake(std::string_view name, Position at, const std::string& message) {
  return {ErrorCode::config_invalid, fmt::format("{}:{}:{}: {}", name, at.line, at.column, message), {}};
}

Result<Document> read_policy(std::string_view text, std::string_view name) {
  Document out;
  for (std::size_t i = 0; i < effect_count; ++i) {
    const auto effect = static_cast<Effect>(i);
    const auto usual = is_dangerous(effect) ? Decision::deny : effect == Effect::unknown ? Decision::require : Decision::allow;
    out.gates[i] = {.certain = usual, .uncertain = usual};
  }
  if (text.size() > longest_policy)
    return mistake(name, {}, fmt::format("the file is {} bytes long; at most {} are read", text.size(), longest_policy));
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
  if (!is_valid_utf8(text)) return mistake(name, {}, "the file is not valid UTF-8");
  try {
    Reader(text, out, text.data() == Policy::shipped_text().data()).document();
  } catch (const PolicyMistake& wrong) { return mistake(name, wrong.at, wrong.message); }
  return out;
}

Result<std::vector<Expectation>> read_cases(std::string_view text, std::string_view name, const Document& policy) {
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
  if (!is_valid_utf8(text)) return mistake(name, {}, "the file is not valid UTF-8");
  Document levels_only;
  levels_only.levels = policy.levels;
  try {
    return Reader(text, levels_only, false).cases();
  } catch (const PolicyMistake& wrong) { return mistake(name, wrong.at, wrong.message); }
}

std::size_t rank_of(std::string_view level, const std::vector<std::string>& levels) {
  const auto begin = level.find_first_not_of(" (");
  if (begin == std::string_view::npos) return 0;
  auto first = level.substr(begin);
  first = first.substr(0, first.find("//"));
  std::string upper;
  for (const char c : first) upper += c == '_' ? ' ' : c >= 'a' && c <= 'z' ? static_cast<char>(c - 32) : c;
  while (!upper.empty() && (upper.back() == ' ' || upper.back() == ')')) upper.pop_back();
  static constexpr std::array<std::pair<std::string_view, std::string_view>, 5> short_names{
      {{"TS", "TOP SECRET"}, {"S", "SECRET"}, {"C", "CONFIDENTIAL"}, {"U", "UNCLASSIFIED"}, {"CONTROLLED", "CUI"}}};
  for (const auto& [brief, whole] : short_names) {
    if (upper == brief) upper = whole;
  }
  const auto same = [&upper](const std::string& known) {
    return known.size() == upper.size() && std::equal(known.begin(), known.end(), upper.begin(), [](char a, char b) {
             return (a >= 'a' && a <= 'z' ? static_cast<char>(a - 32) : a) == b;
           });
  };
  const auto found = std::find_if(levels.begin(), levels.end(), same);
  return static_cast<std::size_t>(found - levels.begin()) + 1;
}

}  // namespace hearth::safety
