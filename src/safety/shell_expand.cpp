// Words after expansion, in bash's order: braces, tilde, parameters, arithmetic, substitutions, splitting. Pathname expansion stays a glob.
#include <algorithm>
#include <charconv>
#include <limits>
#include <utility>

#include "safety/shell_interpreter.h"

namespace hearth::safety {
namespace {

constexpr std::size_t most_braces = 1024;  // words that one brace expansion may become
constexpr std::size_t most_fields = 65536;

bool is_name_start(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_name(char c) { return is_name_start(c) || is_digit(c); }
bool has_glob_bytes(std::string_view text) { return text.find_first_of("*?[") != std::string_view::npos; }

std::optional<std::int64_t> integer(std::string_view text) {
  std::int64_t value = 0;
  if (!text.empty() && text[0] == '+') text.remove_prefix(1);
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// One element of a word for brace expansion: an unquoted byte, or anything else as a whole.
struct Unit {
  char c = 0;  // 0: `atom`
  const Atom* atom = nullptr;
};

class Braces {
 public:
  explicit Braces(std::size_t most) : left_(most) {}
  std::vector<std::vector<Unit>> expand(const std::vector<Unit>& units);
  bool too_many() const { return too_many_; }

 private:
  static std::optional<std::vector<std::string>> sequence(const std::vector<Unit>& units, std::size_t begin, std::size_t end);
  std::size_t left_;
  bool too_many_ = false;
  int depth_ = 0;
};

std::optional<std::vector<std::string>> Braces::sequence(const std::vector<Unit>& units, std::size_t begin, std::size_t end) {
  std::string text;
  for (std::size_t i = begin; i < end; ++i) {
    if (units[i].c == 0) return std::nullopt;
    text += units[i].c;
  }
  std::vector<std::string> parts;
  std::size_t at = 0;
  while (true) {
    const std::size_t dots = text.find("..", at);
    parts.push_back(text.substr(at, dots == std::string::npos ? dots : dots - at));
    if (dots == std::string::npos) break;
    at = dots + 2;
  }
  if (parts.size() < 2 || parts.size() > 3) return std::nullopt;
  std::int64_t step = 1;
  if (parts.size() == 3) {
    const auto given = integer(parts[2]);
    if (!given) return std::nullopt;
    step = *given == 0 || *given == std::numeric_limits<std::int64_t>::min() ? 1 : std::abs(*given);
  }
  const auto first = integer(parts[0]);
  const auto last = integer(parts[1]);
  std::vector<std::string> out;
  const auto walk = [&](std::int64_t from, std::int64_t to, const auto& show) {
    for (std::int64_t i = from; from <= to ? i <= to : i >= to;) {
      out.push_back(show(i));
      if (out.size() > most_braces) return;
      if (from <= to ? i > to - step : i < to + step) break;
      i += from <= to ? step : -step;
    }
  };
  if (first && last) {
    if (*first > 1'000'000'000'000 || *first < -1'000'000'000'000 || *last > 1'000'000'000'000 || *last < -1'000'000'000'000)
      return std::nullopt;
    std::size_t width = 0;
    const auto padded = [](const std::string& part) {
      return part.size() > 1 && (part[0] == '0' || (part[0] == '-' && part.size() > 2 && part[1] == '0'));
    };
    if (padded(parts[0]) || padded(parts[1])) width = std::max(parts[0].size(), parts[1].size());
    if (width > 64) return std::nullopt;
    walk(*first, *last, [&](std::int64_t i) {
      std::string shown = std::to_string(std::abs(i));
      const std::size_t sign = i < 0 ? 1 : 0;
      if (shown.size() + sign < width) shown.insert(0, width - sign - shown.size(), '0');
      return (i < 0 ? "-" : "") + shown;
    });
    return out;
  }
  if (parts[0].size() == 1 && parts[1].size() == 1 && !is_digit(parts[0][0]) && !is_digit(parts[1][0]) &&
      static_cast<unsigned char>(parts[0][0]) < 128 && static_cast<unsigned char>(parts[1][0]) < 128 && is_name(parts[0][0]) &&
      is_name(parts[1][0])) {
    walk(parts[0][0], parts[1][0], [](std::int64_t i) { return std::string(1, static_cast<char>(i)); });
    return out;
  }
  return std::nullopt;
}

std::vector<std::vector<Unit>> Braces::expand(const std::vector<Unit>& units) {
  if (++depth_ > 64) {
    too_many_ = true;
    --depth_;
    return {units};
  }
  for (std::size_t open = 0; open < units.size(); ++open) {
    if (units[open].c != '{') continue;
    // The matching brace and the commas on its level.
    int level = 0;
    std::vector<std::size_t> commas;
    std::size_t close = 0;
    for (std::size_t i = open + 1; i < units.size(); ++i) {
      if (units[i].c == '{') ++level;
      if (units[i].c == ',' && level == 0) commas.push_back(i);
      if (units[i].c == '}') {
        if (level == 0) {
          close = i;
          break;
        }
        --level;
      }
    }
    if (close == 0) continue;
    std::vector<std::vector<Unit>> middles;
    std::vector<std::string> made;
    if (commas.empty()) {
      auto counted = sequence(units, open + 1, close);
      if (!counted) continue;
      made = std::move(*counted);
      for (const std::string& text : made) {
        std::vector<Unit> one;
        for (char c : text) one.push_back({.c = c});
        middles.push_back(std::move(one));
      }
    } else {
      std::size_t begin = open + 1;
      commas.push_back(close);
      for (std::size_t comma : commas) {
        const std::vector<Unit> part(units.begin() + static_cast<std::ptrdiff_t>(begin),
                                     units.begin() + static_cast<std::ptrdiff_t>(comma));
        for (auto& one : expand(part)) middles.push_back(std::move(one));
        begin = comma + 1;
      }
    }
    const std::vector<Unit> rest(units.begin() + static_cast<std::ptrdiff_t>(close) + 1, units.end());
    const auto tails = expand(rest);
    std::vector<std::vector<Unit>> out;
    for (const auto& middle : middles) {
      for (const auto& tail : tails) {
        if (out.size() >= left_) {
          too_many_ = true;
          --depth_;
          return out;
        }
        std::vector<Unit> one(units.begin(), units.begin() + static_cast<std::ptrdiff_t>(open));
        one.insert(one.end(), middle.begin(), middle.end());
        one.insert(one.end(), tail.begin(), tail.end());
        out.push_back(std::move(one));
      }
    }
    --depth_;
    return out;
  }
  --depth_;
  return {units};
}

// Length of `NAME=` at the start of a word; 0 when there is none.
std::size_t assignment_length(std::string_view text) {
  if (text.empty() || !is_name_start(text[0])) return 0;
  const std::size_t end = std::find_if_not(text.begin(), text.end(), is_name) - text.begin();
  return end < text.size() && text[end] == '=' ? end + 1 : 0;
}

// Escapes what a pattern would take for more than itself.
std::string as_pattern(std::string_view text) {
  std::string out;
  for (char c : text) {
    if (c == '*' || c == '?' || c == '[' || c == ']' || c == '\\') out += '\\';
    out += c;
  }
  return out;
}

// One pattern element at `at`: whether it takes `c`, and where the next element begins.
bool element_matches(std::string_view pattern, std::size_t at, char c, std::size_t& next) {
  if (pattern[at] == '\\' && at + 1 < pattern.size()) {
    next = at + 2;
    return pattern[at + 1] == c;
  }
  if (pattern[at] == '?') {
    next = at + 1;
    return true;
  }
  if (pattern[at] == '[') {
    std::size_t i = at + 1;
    const bool negated = i < pattern.size() && (pattern[i] == '!' || pattern[i] == '^');
    if (negated) ++i;
    bool found = false;
    bool first = true;
    while (i < pattern.size() && (pattern[i] != ']' || first)) {
      first = false;
      if (pattern[i] == '[' && i + 1 < pattern.size() && pattern[i + 1] == ':') {
        const std::size_t end = pattern.find(":]", i + 2);
        if (end != std::string_view::npos) {
          const std::string_view name = pattern.substr(i + 2, end - i - 2);
          const bool lower = c >= 'a' && c <= 'z';
          const bool upper = c >= 'A' && c <= 'Z';
          found = found || (name == "alpha" && (lower || upper)) || (name == "lower" && lower) || (name == "upper" && upper) ||
                  (name == "digit" && is_digit(c)) || (name == "alnum" && (lower || upper || is_digit(c))) ||
                  (name == "space" && (c == ' ' || (c >= '\t' && c <= '\r'))) || (name == "blank" && (c == ' ' || c == '\t')) ||
                  (name == "punct" && c > 32 && c < 127 && !lower && !upper && !is_digit(c));
          i = end + 2;
          continue;
        }
      }
      if (pattern[i] == '\\' && i + 1 < pattern.size()) ++i;
      const char low = pattern[i];
      char high = low;
      if (i + 2 < pattern.size() && pattern[i + 1] == '-' && pattern[i + 2] != ']') {
        high = pattern[i + 2];
        i += 2;
      }
      found = found || (static_cast<unsigned char>(c) >= static_cast<unsigned char>(low) &&
                        static_cast<unsigned char>(c) <= static_cast<unsigned char>(high));
      ++i;
    }
    if (i < pattern.size()) {
      next = i + 1;
      return found != negated;
    }
  }
  next = at + 1;
  return pattern[at] == c;
}

char upper(char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 32) : c; }
char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; }

std::size_t character_length(std::string_view text, std::size_t at) {
  const auto c = static_cast<unsigned char>(text[at]);
  std::size_t length = c >= 0xF0 ? 4 : c >= 0xE0 ? 3 : c >= 0xC0 ? 2 : 1;
  return std::min(length, text.size() - at);
}
std::size_t characters(std::string_view text) {
  std::size_t count = 0;
  for (std::size_t at = 0; at < text.size(); at += character_length(text, at)) ++count;
  return count;
}
// Substring by characters; nothing when bash would complain.
std::optional<std::string> substring(std::string_view text, std::int64_t offset, std::optional<std::int64_t> length) {
  const auto size = static_cast<std::int64_t>(characters(text));
  if (offset < 0) offset += size;
  if (offset < 0 || offset > size) return std::string();
  std::int64_t end = size;
  if (length) {
    end = *length < 0 ? size + *length : *length > size - offset ? size : offset + *length;
    if (end < offset) return std::nullopt;
  }
  std::size_t at = 0;
  std::int64_t index = 0;
  std::string out;
  while (at < text.size() && index < end) {
    const std::size_t step = character_length(text, at);
    if (index >= offset) out += text.substr(at, step);
    at += step;
    ++index;
  }
  return out;
}

constexpr std::size_t longest_pattern_subject = 8192;

std::string without_prefix(const std::string& text, std::string_view pattern, bool longest) {
  for (std::size_t i = 0; i <= text.size(); ++i) {
    const std::size_t length = longest ? text.size() - i : i;
    if (pattern_matches(pattern, std::string_view(text).substr(0, length))) return text.substr(length);
  }
  return text;
}
std::string without_suffix(const std::string& text, std::string_view pattern, bool longest) {
  for (std::size_t i = 0; i <= text.size(); ++i) {
    const std::size_t start = longest ? i : text.size() - i;
    if (pattern_matches(pattern, std::string_view(text).substr(start))) return text.substr(0, start);
  }
  return text;
}
// ${x/pattern/replacement}; `anchor` 0, '#', '%'. The longest match at the first place counts.
std::optional<std::string> replaced(const std::string& text, std::string_view pattern, std::string_view replacement, bool all,
                                    char anchor) {
  if (pattern.empty()) return text;
  const bool literal = pattern.find_first_of("*?[\\") == std::string_view::npos;
  if (!literal && text.size() > 512) return std::nullopt;
  std::string out;
  std::size_t at = 0;
  while (at <= text.size()) {
    std::optional<std::size_t> match;
    if (anchor != '%' || literal) {
      if (literal) {
        const bool fits = std::string_view(text).substr(at).starts_with(pattern) && (anchor != '%' || at + pattern.size() == text.size());
        if (fits) match = at + pattern.size();
      } else {
        for (std::size_t end = text.size() + 1; end-- > at;) {
          if (end == at) break;
          if (pattern_matches(pattern, std::string_view(text).substr(at, end - at))) {
            match = end;
            break;
          }
        }
      }
    } else if (pattern_matches(pattern, std::string_view(text).substr(at))) {
      match = text.size();
    }
    if (match) {
      out += replacement;
      at = *match;
      if (out.size() > longest_value) return std::nullopt;
      if (!all || anchor != 0) return out + text.substr(at);
    } else if (anchor == '#') {
      return text;
    } else {
      if (at < text.size()) out += text[at];
      ++at;
    }
  }
  return out;
}

}  // namespace

bool pattern_matches(std::string_view pattern, std::string_view text) {
  std::size_t p = 0;
  std::size_t t = 0;
  std::size_t star = std::string_view::npos;
  std::size_t retry = 0;
  while (t < text.size()) {
    std::size_t next = 0;
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      retry = t;
    } else if (p < pattern.size() && element_matches(pattern, p, text[t], next)) {
      p = next;
      ++t;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      t = ++retry;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

void Value::append(const Value& other) {
  if (text.size() + other.text.size() > longest_value) {
    if (text.size() > longest_value / 2) text.resize(longest_value / 2);
    text += unknown_part;
    exact = false;
  } else {
    text += other.text;
  }
  exact = exact && other.exact;
  glob = glob || other.glob;
  substitution = substitution || other.substitution;
}

const Variable* Interpreter::find(std::string_view name) const {
  const auto it = state_.variables.find(std::string(name));
  return it == state_.variables.end() ? nullptr : &it->second;
}

void Interpreter::set(const std::string& name, Value value, bool append) {
  Variable& variable = state_.variables[name];
  if (append) {
    if (!variable.is_set) variable.elements.clear();
    if (variable.elements.empty()) variable.elements.push_back(variable.is_set ? Value::unknown() : Value{});
    variable.elements.back().append(value);
  } else {
    variable.elements = {std::move(value)};
    variable.array = false;
  }
  variable.is_set = true;
}

std::string Interpreter::tilde(std::string_view prefix, bool& exact) const {
  if (prefix.empty()) {
    if (const Variable* home = find("HOME"); home != nullptr && home->is_set && !home->elements.empty()) {
      exact = exact && home->elements[0].exact;
      return home->elements[0].text;
    }
    return action_.where.home;
  }
  if (prefix == "+") {
    if (state_.folder == "/?") exact = false;
    return state_.folder.empty() ? "." : state_.folder;
  }
  if (prefix == "-") {
    if (state_.previous_folder.empty()) {
      exact = false;
      return std::string(unknown_part);
    }
    return state_.previous_folder;
  }
  if (prefix == action_.where.user) return action_.where.home;
  if (prefix == "root") return "/root";
  exact = false;  // stays as it is when there is no such user
  return "/home/" + std::string(prefix);
}

// The tilde prefix at the start and, in assignments, behind each colon. A quoted or expanded rest of the name (`ends` false) makes it none.
std::string Interpreter::tildes(std::string_view text, bool ends, bool colons, bool& exact) const {
  std::string out;
  std::size_t at = 0;
  while (at <= text.size()) {
    const std::size_t stop = colons ? std::min(text.find(':', at), text.size()) : text.size();
    const std::string_view part = text.substr(at, stop - at);
    const std::size_t name = std::min(part.find('/'), part.size());
    if (part.starts_with('~') && (name < part.size() || stop < text.size() || ends)) {
      out += tilde(part.substr(1, name - 1), exact);
      out += part.substr(name);
    } else {
      out += part;
    }
    if (stop >= text.size()) break;
    out += ':';
    at = stop + 1;
  }
  return out;
}

Value Interpreter::command_output(const Atom& atom, const Setting& setting) {
  Setting inner;
  inner.wrappers = setting.wrappers;
  inner.depth = setting.depth + 1;
  inner.input = setting.input;
  const ShellState before = state_;
  const Outcome outcome = run_syntax(atom.inside, inner);
  state_ = before;
  Value value = Value::unknown();
  if (atom.kind == Atom::Kind::process) {
    value.text = "/dev/fd/" + std::to_string(63 - static_cast<int>(streams_.size() % 32));
    value.exact = outcome.output.has_value();
    value.substitution = true;
    if (outcome.output) streams_[value.text] = *outcome.output;
    else streams_.erase(value.text);
    return value;
  }
  if (outcome.output) {
    value = Value{.text = *outcome.output};
    std::erase(value.text, '\0');
    while (!value.text.empty() && value.text.back() == '\n') value.text.pop_back();
    if (value.text.size() > longest_value) value = Value::unknown();
    if (value.text.find(unknown_part) != std::string::npos) value.exact = false;
  } else if (const auto places = Stream{.names = outcome.names}.places(); places.size() == 1) {
    value.text = places[0];
  }
  value.substitution = true;
  return value;
}

std::vector<Value> Interpreter::values_of(std::string_view name, bool& is_set) {
  is_set = true;
  if (name.size() == 1 || is_digit(name.empty() ? 'x' : name[0])) {
    const char c = name[0];
    if (is_digit(c)) {
      const auto index = integer(name).value_or(100000);
      if (index == 0) return {state_.zero};
      if (index <= static_cast<std::int64_t>(state_.positional.size())) return {state_.positional[static_cast<std::size_t>(index - 1)]};
      is_set = !state_.positional_known;
      return {state_.positional_known ? Value{} : Value::unknown()};
    }
    switch (c) {
      case '@':
      case '*':
        if (!state_.positional_known) return {Value::unknown()};
        is_set = !state_.positional.empty();
        return state_.positional;
      case '#': return {Value{.text = std::to_string(state_.positional.size()), .exact = state_.positional_known}};
      case '$': return {Value{.text = std::string(unknown_part), .exact = false}};
      case '?':
      case '!':
      case '-': return {Value::unknown()};
      default: break;
    }
  }
  if (name == "PWD") return {state_.folder.empty() ? Value{.text = "."} : Value{.text = state_.folder, .exact = state_.folder != "/?"}};
  if (name == "OLDPWD" && !state_.previous_folder.empty()) return {Value{.text = state_.previous_folder}};
  if (const Variable* variable = find(name)) {
    is_set = variable->is_set;
    return variable->elements;
  }
  return {Value::unknown()};  // of the environment
}

std::vector<Value> Interpreter::parameter(std::string_view body, bool quoted, const Setting& setting, bool& separate,
                                          std::optional<WordSyntax>* instead) {
  separate = false;
  if (body.empty()) return {Value::unknown()};
  if (body.size() > longest_value) return {Value::unknown()};
  // ${ command; } and ${| command; }, of newer shells
  if (body[0] == ' ' || body[0] == '\n' || body[0] == '\t' || body[0] == '|') {
    run_nested(std::string(body.substr(1)), setting);
    Value value = Value::unknown();
    value.substitution = true;
    return {value};
  }
  bool length = false;
  bool indirect = false;
  std::size_t at = 0;
  if (body[0] == '#' && body.size() > 1 && body[1] != '#' && body[1] != '%' && body[1] != ':' && body[1] != '/' &&
      !(body.size() == 2 && (body[1] == '-' || body[1] == '?'))) {
    length = true;
    at = 1;
  } else if (body[0] == '!' && body.size() > 1 && (is_name(body[1]) || body[1] == '#' || body[1] == '@')) {
    indirect = true;
    at = 1;
  }
  std::string name;
  if (at < body.size() && is_name_start(body[at])) {
    while (at < body.size() && is_name(body[at])) name += body[at++];
  } else if (at < body.size() && is_digit(body[at])) {
    while (at < body.size() && is_digit(body[at])) name += body[at++];
  } else if (at < body.size()) {
    name = body[at++];
  }
  std::string subscript;
  bool subscripted = false;
  if (at < body.size() && body[at] == '[') {
    int level = 0;
    const std::size_t begin = at + 1;
    for (; at < body.size(); ++at) {
      if (body[at] == '[') ++level;
      if (body[at] == ']' && --level == 0) break;
    }
    if (at >= body.size()) return {Value::unknown()};
    subscript = body.substr(begin, at - begin);
    subscripted = true;
    ++at;
  }
  std::string_view rest = body.substr(at);
  bool is_set = true;
  if (indirect) {
    if (subscripted && (subscript == "@" || subscript == "*")) {
      if (const Variable* variable = find(name)) {
        separate = true;
        std::vector<Value> keys;
        for (std::size_t i = 0; i < variable->elements.size(); ++i) keys.push_back({.text = std::to_string(i)});
        return keys;
      }
      return {Value::unknown()};
    }
    if (rest == "*" || rest == "@") {
      std::vector<Value> names;
      for (const auto& [key, variable] : state_.variables) {
        if (key.starts_with(name)) names.push_back({.text = key});
      }
      separate = true;
      return names;
    }
    const auto target = values_of(name, is_set);
    if (target.empty() || !target[0].exact || target[0].text.empty()) return {Value::unknown()};
    std::string pointed = target[0].text;
    const bool whole = pointed.ends_with("[@]") || pointed.ends_with("[*]");
    const std::size_t bracket = pointed.find('[');
    name = pointed.substr(0, bracket);
    if (name.empty() || !(is_name_start(name[0]) || is_digit(name[0]) || name == "@" || name == "*")) return {Value::unknown()};
    subscripted = bracket != std::string::npos;
    subscript = whole ? "@" : subscripted ? pointed.substr(bracket + 1, pointed.size() - bracket - 2) : "";
  }

  const bool all = subscripted ? (subscript == "@" || subscript == "*") : (name == "@" || name == "*");
  std::vector<Value> values = values_of(name, is_set);
  if (all) {
    if (length) {
      const bool known = std::all_of(values.begin(), values.end(), [](const Value& v) { return v.exact; });
      return {Value{.text = std::to_string(is_set ? values.size() : 0), .exact = known}};
    }
    if (!is_set) values.clear();
  } else if (subscripted) {
    const Variable* variable = find(name);
    if (variable == nullptr) return {Value::unknown()};
    const auto index = arithmetic(subscript, setting);
    if (!index) {
      values = {Value::unknown()};
    } else {
      const std::int64_t wanted = *index < 0 ? *index + static_cast<std::int64_t>(values.size()) : *index;
      is_set = is_set && wanted >= 0 && wanted < static_cast<std::int64_t>(values.size());
      values = {is_set ? values[static_cast<std::size_t>(wanted)] : Value{}};
    }
  } else {
    if (values.size() > 1) values.resize(1);
    if (values.empty()) {
      values = {Value{}};
      is_set = false;
    }
  }
  if (!is_set && !all) values = {Value{}};
  if (length) {
    const Value& value = values[0];
    return {Value{.text = value.exact ? std::to_string(characters(value.text)) : std::string(unknown_part), .exact = value.exact}};
  }
  separate = all && (quoted ? (subscripted ? subscript == "@" : name == "@") : true);
  if (all && quoted && !separate) {  // "$*": joined by the first byte of IFS
    Value joined;
    const Variable* ifs = find("IFS");
    std::string glue = " ";
    if (ifs != nullptr && ifs->is_set && !ifs->elements.empty()) glue = ifs->elements[0].text.substr(0, 1);
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (i > 0) joined.append({.text = glue});
      joined.append(values[i]);
    }
    values = {joined};
  }
  if (rest.empty()) return values;

  const auto each = [&](const auto& change) {
    for (Value& value : values) value = change(value);
    return values;
  };
  const bool null = values.empty() || (values.size() == 1 && values[0].text.empty() && values[0].exact);
  const bool known = std::all_of(values.begin(), values.end(), [](const Value& v) { return v.exact; });
  const bool colon = rest[0] == ':' && rest.size() > 1 && std::string_view("-=?+").find(rest[1]) != std::string_view::npos;
  const char operation = colon ? rest[1] : rest[0];
  if (colon || std::string_view("-=?+").find(rest[0]) != std::string_view::npos) {
    const std::string_view other = rest.substr(colon ? 2 : 1);
    const bool absent = !is_set || (colon && null);
    // A variable of the environment may be set or not: the word is what stands in the text, so it counts as the likelier reading, but inexact.
    // Unquoted, the word keeps its own quotes and is split where it has none.
    if (instead != nullptr && !quoted && operation != '?' && operation != '=' && known && absent == (operation != '+')) {
      if (auto word = scan_fragment(other, false, store_, counted_, setting.depth); word.ok()) {
        *instead = std::move(*word);
        return {};
      }
    }
    if (operation == '+') {
      if (absent) return {Value{}};
      Value value = expand_fragment(other, quoted, setting);
      value.exact = value.exact && known;
      return {value};
    }
    if (absent) {
      Value value = operation == '?' ? Value::unknown() : expand_fragment(other, quoted, setting);
      if (operation == '?') expand_fragment(other, quoted, setting);
      if (operation == '=' && is_name_start(name[0])) set(name, value);
      return {value};
    }
    if (!known && operation != '?') {
      Value value = expand_fragment(other, quoted, setting);
      value.exact = false;
      if (value.text.empty()) value.text = unknown_part;
      if (operation == '=' && is_name_start(name[0])) set(name, value);
      return {value};
    }
    return values;
  }
  if (operation == ':') {  // substring
    std::size_t split = std::string_view::npos;
    int level = 0;
    int question = 0;
    for (std::size_t i = 1; i < rest.size(); ++i) {
      if (rest[i] == '(' || rest[i] == '{' || rest[i] == '[') ++level;
      if (rest[i] == ')' || rest[i] == '}' || rest[i] == ']') --level;
      if (rest[i] == '?' && level == 0) ++question;
      if (rest[i] == ':' && level == 0 && question-- <= 0) {
        split = i;
        break;
      }
    }
    const auto offset = arithmetic(rest.substr(1, split == std::string_view::npos ? split : split - 1), setting);
    std::optional<std::int64_t> count;
    if (split != std::string_view::npos) {
      count = arithmetic(rest.substr(split + 1), setting);
      if (!count) return {Value::unknown()};
    }
    if (!offset) return {Value::unknown()};
    if (all) {
      std::vector<Value> list = values;
      if (name == "@" || name == "*") list.insert(list.begin(), Value{.text = "bash"});
      const auto size = static_cast<std::int64_t>(list.size());
      const std::int64_t begin = std::clamp<std::int64_t>(*offset < 0 ? *offset + size : *offset, 0, size);
      const std::int64_t end = count ? std::clamp<std::int64_t>(*count < 0      ? size + *count
                                                                : *count > size ? size
                                                                                : begin + *count,
                                                                begin, size)
                                     : size;
      return {list.begin() + begin, list.begin() + end};
    }
    return each([&](const Value& value) {
      // A likely text (PATH) has a likely part.
      auto part = substring(value.text, *offset, count);
      if (!part || value.text.find(unknown_part) != std::string::npos) return Value::unknown();
      return Value{.text = *part, .exact = value.exact, .substitution = value.substitution};
    });
  }
  if (operation == '#' || operation == '%') {
    const bool longest = rest.size() > 1 && rest[1] == operation;
    const Value pattern = expand_fragment(rest.substr(longest ? 2 : 1), quoted, setting, true);
    return each([&](const Value& value) {
      if (!pattern.exact || value.text.find(unknown_part) != std::string::npos || value.text.size() > longest_pattern_subject)
        return Value::unknown();
      return Value{
          .text = operation == '#' ? without_prefix(value.text, pattern.text, longest) : without_suffix(value.text, pattern.text, longest),
          .exact = value.exact,
          .glob = value.glob,
          .substitution = value.substitution};
    });
  }
  if (operation == '/') {
    std::size_t begin = 1;
    bool everywhere = false;
    char anchor = 0;
    if (rest.size() > 1 && rest[1] == '/') {
      everywhere = true;
      ++begin;
    } else if (rest.size() > 1 && (rest[1] == '#' || rest[1] == '%')) {
      anchor = rest[1];
      ++begin;
    }
    // The pattern ends at the first slash that is not quoted.
    std::size_t slash = begin;
    char quote = 0;
    int level = 0;
    for (; slash < rest.size(); ++slash) {
      const char c = rest[slash];
      if (c == '\\') {
        ++slash;
      } else if (quote != 0) {
        if (c == quote) quote = 0;
      } else if (c == '\'' || c == '"') {
        quote = c;
      } else if (c == '{' || c == '(') {
        ++level;
      } else if (c == '}' || c == ')') {
        --level;
      } else if (c == '/' && level <= 0) {
        break;
      }
    }
    const Value pattern = expand_fragment(rest.substr(begin, slash - begin), quoted, setting, true);
    const Value replacement =
        slash + 1 <= rest.size() && slash < rest.size() ? expand_fragment(rest.substr(slash + 1), quoted, setting) : Value{};
    return each([&](const Value& value) {
      if (!pattern.exact || value.text.find(unknown_part) != std::string::npos || value.text.size() > longest_pattern_subject)
        return Value::unknown();
      auto text = replaced(value.text, pattern.text, replacement.text, everywhere, anchor);
      if (!text) return Value::unknown();
      return Value{.text = *text,
                   .exact = value.exact && replacement.exact,
                   .glob = value.glob,
                   .substitution = value.substitution || replacement.substitution};
    });
  }
  if (operation == '^' || operation == ',' || operation == '~') {
    const bool everywhere = rest.size() > 1 && rest[1] == operation;
    const Value pattern = expand_fragment(rest.substr(everywhere ? 2 : 1), quoted, setting, true);
    return each([&](const Value& value) {
      Value out = value;
      for (std::size_t i = 0; i < out.text.size() && (everywhere || i == 0); ++i) {
        if (!pattern.text.empty() && !pattern_matches(pattern.text, std::string_view(out.text).substr(i, 1))) continue;
        char& c = out.text[i];
        c = operation == '^' ? upper(c) : operation == ',' ? lower(c) : (upper(c) == c ? lower(c) : upper(c));
      }
      return out;
    });
  }
  if (operation == '@' && rest.size() == 2) {
    return each([&](const Value& value) {
      Value out = value;
      switch (rest[1]) {
        case 'U': std::transform(out.text.begin(), out.text.end(), out.text.begin(), upper); return out;
        case 'L': std::transform(out.text.begin(), out.text.end(), out.text.begin(), lower); return out;
        case 'u':
          if (!out.text.empty()) out.text[0] = upper(out.text[0]);
          return out;
        case 'E': {
          TextStore store;
          std::size_t counted = 0;
          std::string quoted_text = "$'";
          for (char c : value.text) quoted_text += c == '\'' ? std::string("\\'") : std::string(1, c);
          const auto word = scan_fragment(quoted_text + "'", false, store, counted);
          if (word.ok() && word->atoms.size() == 1) out.text = word->atoms[0].text;
          return out;
        }
        case 'P': return value.text.find('\\') == std::string::npos && value.text.find('$') == std::string::npos ? out : Value::unknown();
        case 'Q':
        case 'K':
        case 'k':
        case 'a': return out;
        default: return Value::unknown();
      }
    });
  }
  return {Value::unknown()};
}

Value Interpreter::expand_fragment(std::string_view text, bool quoted, const Setting& setting, bool pattern) {
  if (text.find_first_of("$`\\'\"~") == std::string_view::npos) {
    Value plain{.text = std::string(text)};
    if (plain.text.find(unknown_part) != std::string::npos) plain.exact = false;
    return plain;
  }
  // Inside of ${…} a pattern keeps its quotes even between double quotes.
  const auto word = scan_fragment(text, quoted && !pattern, store_, counted_, setting.depth);
  if (!word.ok()) {
    script_.truncated = true;
    return Value::unknown();
  }
  return expand_value(*word, setting, pattern);
}

Value Interpreter::expand_value(const WordSyntax& word, const Setting& setting, bool pattern) {
  Value out;
  bool first = true;
  for (const Atom& atom : word.atoms) {
    switch (atom.kind) {
      case Atom::Kind::literal: {
        std::string text = atom.text;
        Value piece;
        if (!atom.quoted && !pattern) {
          piece.text = first ? tildes(text, word.atoms.size() == 1, true, piece.exact) : std::move(text);
        } else {
          piece.text = pattern && atom.quoted ? as_pattern(text) : std::move(text);
        }
        if (piece.text.find(unknown_part) != std::string::npos) piece.exact = false;
        out.append(piece);
        break;
      }
      case Atom::Kind::parameter: {
        bool separate = false;
        const auto values = parameter(atom.text, true, setting, separate);
        for (std::size_t i = 0; i < values.size(); ++i) {
          if (i > 0) out.append({.text = " "});
          Value value = values[i];
          if (pattern && atom.quoted) value.text = as_pattern(value.text);
          out.append(value);
        }
        break;
      }
      case Atom::Kind::arithmetic: {
        const auto number = arithmetic(atom.text, setting);
        out.append(number ? Value{.text = std::to_string(*number)} : Value::unknown());
        break;
      }
      case Atom::Kind::command:
      case Atom::Kind::process: out.append(command_output(atom, setting)); break;
    }
    first = false;
  }
  return out;
}

void Interpreter::fields_of(const std::vector<Atom>& atoms, const Setting& setting, std::vector<Word>& out) {
  Word field;
  bool present = false;  // the field exists even when it is empty
  const auto finish = [&] {
    if (present || !field.text.empty()) {
      if (field.text.find(unknown_part) != std::string::npos) field.exact = false;
      out.push_back(std::move(field));
    }
    field = Word{};
    present = false;
  };
  const auto add = [&](const Value& value, bool quoted) {
    if (field.text.size() + value.text.size() > longest_script) {
      field.exact = false;
      return;
    }
    field.text += value.text;
    field.exact = field.exact && value.exact;
    field.glob = field.glob || value.glob;
    field.substitution = field.substitution || value.substitution;
    if (quoted) field.quoted = present = true;
  };
  std::string separators = " \t\n";
  if (const Variable* ifs = find("IFS"); ifs != nullptr && ifs->is_set && !ifs->elements.empty() && ifs->elements[0].exact)
    separators = ifs->elements[0].text;
  // An unquoted expansion: split where IFS says.
  const auto split = [&](const Value& value) {
    std::size_t at = 0;
    const std::string& text = value.text;
    bool pending = false;
    while (at <= text.size()) {
      const std::size_t end = separators.empty() ? text.size() : std::min(text.find_first_of(separators, at), text.size());
      if (end > at || (end == at && end == text.size() && pending)) {
        if (end > at) {
          Value piece = value;
          piece.text = text.substr(at, end - at);
          piece.glob = piece.glob || has_glob_bytes(piece.text);
          add(piece, false);
        }
      }
      if (end >= text.size()) break;
      const bool blank = text[end] == ' ' || text[end] == '\t' || text[end] == '\n';
      if (!blank && !present && field.text.empty() && end >= at) present = true;  // an empty field between two separators
      finish();
      at = end + 1;
      pending = false;
      if (out.size() > most_fields) return;
    }
    if (text.empty() && value.substitution) field.substitution = true;
  };

  bool first = true;
  const auto process = [&](const auto& self, const std::vector<Atom>& list, bool spliced) -> void {
    for (const Atom& atom : list) {
      switch (atom.kind) {
        case Atom::Kind::literal: {
          Value piece{.text = atom.text};
          if (!atom.quoted) {
            piece.glob = has_glob_bytes(piece.text);
            if (first && !spliced) {
              const std::size_t equals = assignment_length(piece.text);
              piece.text = piece.text.substr(0, equals) +
                           tildes(std::string_view(piece.text).substr(equals), list.size() == 1, equals > 0, piece.exact);
            }
          }
          if (spliced && !atom.quoted) {
            split(piece);
          } else {
            add(piece, atom.quoted);
          }
          break;
        }
        case Atom::Kind::parameter: {
          bool separate = false;
          std::optional<WordSyntax> instead;
          const auto values = parameter(atom.text, atom.quoted, setting, separate, &instead);
          if (instead) {
            self(self, instead->atoms, true);
          } else if (atom.quoted && !separate) {
            add(values.empty() ? Value{} : values[0], true);
          } else if (atom.quoted) {
            for (std::size_t i = 0; i < values.size(); ++i) {
              if (i > 0) finish();
              add(values[i], true);
            }
            field.quoted = true;
          } else {
            for (std::size_t i = 0; i < values.size(); ++i) {
              if (i > 0) finish();
              split(values[i]);
            }
          }
          break;
        }
        case Atom::Kind::arithmetic: {
          const auto number = arithmetic(atom.text, setting);
          add(number ? Value{.text = std::to_string(*number)} : Value::unknown(), atom.quoted);
          break;
        }
        case Atom::Kind::command: {
          const Value value = command_output(atom, setting);
          if (atom.quoted) {
            add(value, true);
          } else {
            split(value);
          }
          break;
        }
        case Atom::Kind::process: add(command_output(atom, setting), true); break;
      }
      first = false;
    }
  };
  process(process, atoms, false);
  finish();
}

std::vector<Word> Interpreter::expand(const WordSyntax& word, const Setting& setting) {
  std::vector<Word> out;
  const bool braces = std::any_of(word.atoms.begin(), word.atoms.end(), [](const Atom& atom) {
    return atom.kind == Atom::Kind::literal && !atom.quoted && atom.text.find('{') != std::string::npos;
  });
  if (!braces) {
    fields_of(word.atoms, setting, out);
    return out;
  }
  std::vector<Unit> units;
  for (const Atom& atom : word.atoms) {
    if (atom.kind == Atom::Kind::literal && !atom.quoted) {
      for (char c : atom.text) units.push_back({.c = c});
    } else {
      units.push_back({.atom = &atom});
    }
  }
  if (units.size() > 16384) {
    script_.truncated = true;
    fields_of(word.atoms, setting, out);
    return out;
  }
  Braces expander(most_braces);
  for (const auto& one : expander.expand(units)) {
    std::vector<Atom> atoms;
    for (const Unit& unit : one) {
      if (unit.atom != nullptr) {
        atoms.push_back(*unit.atom);
      } else if (!atoms.empty() && atoms.back().bare && is_name(unit.c)) {
        atoms.back().text += unit.c;  // braces come first: $x{1,2} is $x1 $x2
      } else if (!atoms.empty() && atoms.back().kind == Atom::Kind::literal && !atoms.back().quoted) {
        atoms.back().text += unit.c;
      } else {
        atoms.push_back({.kind = Atom::Kind::literal, .text = std::string(1, unit.c)});
      }
    }
    fields_of(atoms, setting, out);
  }
  // Braces that do not match inside of ${…} count for bash's brace expansion too, by rules of their own.
  const bool uneven = std::any_of(word.atoms.begin(), word.atoms.end(), [](const Atom& atom) {
    return atom.kind == Atom::Kind::parameter &&
           std::count(atom.text.begin(), atom.text.end(), '{') != std::count(atom.text.begin(), atom.text.end(), '}');
  });
  for (Word& one : out) one.exact = one.exact && !uneven;
  if (expander.too_many()) script_.truncated = true;
  return out;
}

// C's expressions over 64 bits, as bash has them. Anything that is not known or not valid has no value.
class Arithmetic {
 public:
  Arithmetic(Interpreter& shell, std::string_view text, const Setting& setting, int depth)
      : shell_(shell), text_(text), setting_(setting), depth_(depth) {}
  std::optional<std::int64_t> value() {
    auto out = comma();
    blanks();
    if (at_ != text_.size()) return std::nullopt;
    return out;
  }

 private:
  using Number = std::optional<std::int64_t>;
  void blanks() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\t' || text_[at_] == '\n')) ++at_;
  }
  bool take(std::string_view token, std::string_view not_before = "") {
    blanks();
    if (!text_.substr(at_).starts_with(token)) return false;
    const std::size_t after = at_ + token.size();
    if (after < text_.size() && not_before.find(text_[after]) != std::string_view::npos) return false;
    at_ = after;
    return true;
  }
  static std::int64_t wrap(std::uint64_t value) { return static_cast<std::int64_t>(value); }

  Number comma() {
    if (++level_ > 200) return std::nullopt;
    Number out = assignment();
    while (take(",")) out = assignment();
    --level_;
    return out;
  }
  Number assignment() {
    blanks();
    const std::size_t start = at_;
    std::string name;
    if (at_ < text_.size() && is_name_start(text_[at_])) {
      while (at_ < text_.size() && is_name(text_[at_])) name += text_[at_++];
      blanks();
      static constexpr std::string_view operations[] = {"<<=", ">>=", "*=", "/=", "%=", "+=", "-=", "&=", "^=", "|="};
      for (const std::string_view operation : operations) {
        if (take(operation)) {
          const Number left = variable(name);
          const Number right = assignment();
          Number out = left && right ? binary(operation.substr(0, operation.size() - 1), *left, *right) : std::nullopt;
          store(name, out);
          return out;
        }
      }
      if (take("=", "=")) {
        Number out = assignment();
        store(name, out);
        return out;
      }
    }
    at_ = start;
    return ternary();
  }
  Number ternary() {
    const Number condition = binary_level(0);
    if (!take("?")) return condition;
    const Number yes = comma();
    if (!take(":")) return std::nullopt;
    const Number no = assignment();
    if (!condition) return std::nullopt;
    return *condition != 0 ? yes : no;
  }
  Number binary_level(int level) {
    static constexpr int levels = 10;
    if (level == levels) return power();
    if (++level_ > 400) return std::nullopt;
    Number left = binary_level(level + 1);
    while (true) {
      std::string_view found;
      switch (level) {
        case 0:
          if (take("||")) found = "||";
          break;
        case 1:
          if (take("&&")) found = "&&";
          break;
        case 2:
          if (take("|", "|=")) found = "|";
          break;
        case 3:
          if (take("^", "=")) found = "^";
          break;
        case 4:
          if (take("&", "&=")) found = "&";
          break;
        case 5:
          if (take("==")) found = "==";
          else if (take("!=")) found = "!=";
          break;
        case 6:
          if (take("<=")) found = "<=";
          else if (take(">=")) found = ">=";
          else if (take("<", "<")) found = "<";
          else if (take(">", ">")) found = ">";
          break;
        case 7:
          if (take("<<", "=")) found = "<<";
          else if (take(">>", "=")) found = ">>";
          break;
        case 8:
          if (take("+", "+=")) found = "+";
          else if (take("-", "-=")) found = "-";
          break;
        default:
          if (take("*", "*=")) found = "*";
          else if (take("/", "=")) found = "/";
          else if (take("%", "=")) found = "%";
          break;
      }
      if (found.empty()) break;
      const Number right = binary_level(level + 1);
      left = left && right ? binary(found, *left, *right) : std::nullopt;
    }
    --level_;
    return left;
  }
  Number power() {
    const Number base = unary();
    if (!take("**")) return base;
    if (++level_ > 400) return std::nullopt;
    const Number exponent = power();
    --level_;
    if (!base || !exponent || *exponent < 0) return std::nullopt;
    std::uint64_t out = 1;
    std::uint64_t factor = static_cast<std::uint64_t>(*base);
    for (std::uint64_t left = static_cast<std::uint64_t>(*exponent); left > 0; left >>= 1) {
      if ((left & 1) != 0) out *= factor;
      factor *= factor;
    }
    return wrap(out);
  }
  Number unary() {
    if (++level_ > 400) return std::nullopt;
    Number out;
    if (take("++") || take("--")) {
      const bool up = text_[at_ - 1] == '+';
      blanks();
      std::string name;
      while (at_ < text_.size() && is_name(text_[at_])) name += text_[at_++];
      if (!name.empty() && is_name_start(name[0])) {
        out = variable(name);
        if (out) out = wrap(static_cast<std::uint64_t>(*out) + (up ? 1U : ~std::uint64_t{0}));
        store(name, out);
      }
    } else if (take("!", "=")) {
      out = unary();
      if (out) out = *out == 0 ? 1 : 0;
    } else if (take("~")) {
      out = unary();
      if (out) out = ~*out;
    } else if (take("-")) {
      out = unary();
      if (out) out = wrap(0 - static_cast<std::uint64_t>(*out));
    } else if (take("+")) {
      out = unary();
    } else {
      out = primary();
    }
    --level_;
    return out;
  }
  Number primary() {
    blanks();
    if (take("(")) {
      const Number out = comma();
      return take(")") ? out : std::nullopt;
    }
    if (at_ >= text_.size()) return at_ == 0 || text_.find_first_not_of(" \t\n") == std::string_view::npos ? Number(0) : std::nullopt;
    if (is_digit(text_[at_])) return number();
    if (!is_name_start(text_[at_])) return std::nullopt;
    std::string name;
    while (at_ < text_.size() && is_name(text_[at_])) name += text_[at_++];
    Number out;
    if (at_ < text_.size() && text_[at_] == '[') {
      std::size_t close = at_;
      int open = 0;
      for (; close < text_.size(); ++close) {
        if (text_[close] == '[') ++open;
        if (text_[close] == ']' && --open == 0) break;
      }
      if (close >= text_.size()) return std::nullopt;
      bool separate = false;
      const auto values = shell_.parameter(name + std::string(text_.substr(at_, close + 1 - at_)), true, setting_, separate);
      at_ = close + 1;
      return values.size() == 1 && values[0].exact ? Arithmetic(shell_, values[0].text, setting_, depth_ + 1).value() : std::nullopt;
    }
    out = variable(name);
    if (take("++") || take("--")) {
      const bool up = text_[at_ - 1] == '+';
      store(name, out ? Number(wrap(static_cast<std::uint64_t>(*out) + (up ? 1U : ~std::uint64_t{0}))) : out);
    }
    return out;
  }
  Number number() {
    const std::size_t start = at_;
    while (at_ < text_.size() && (is_name(text_[at_]) || text_[at_] == '#' || text_[at_] == '@')) ++at_;
    std::string_view digits = text_.substr(start, at_ - start);
    std::uint64_t base = 10;
    if (const std::size_t hash = digits.find('#'); hash != std::string_view::npos) {
      base = static_cast<std::uint64_t>(integer(digits.substr(0, hash)).value_or(0));
      if (base < 2 || base > 64) return std::nullopt;
      digits.remove_prefix(hash + 1);
    } else if (digits.starts_with("0x") || digits.starts_with("0X")) {
      base = 16;
      digits.remove_prefix(2);
    } else if (digits.size() > 1 && digits[0] == '0') {
      base = 8;
      digits.remove_prefix(1);
    }
    if (digits.empty()) return std::nullopt;
    std::uint64_t out = 0;
    for (char c : digits) {
      std::uint64_t digit = 99;
      if (is_digit(c)) digit = static_cast<std::uint64_t>(c - '0');
      if (c >= 'a' && c <= 'z') digit = 10 + static_cast<std::uint64_t>(c - 'a');
      if (c >= 'A' && c <= 'Z') digit = static_cast<std::uint64_t>(c - 'A') + (base <= 36 ? 10U : 36U);
      if (c == '@') digit = 62;
      if (c == '_') digit = 63;
      if (digit >= base) return std::nullopt;
      out = out * base + digit;
    }
    return wrap(out);
  }
  Number variable(const std::string& name) {
    if (depth_ > 8) return std::nullopt;
    bool is_set = true;
    const auto values = shell_.values_of(name, is_set);
    if (!is_set || values.empty()) return 0;
    if (!values[0].exact) return std::nullopt;
    return Arithmetic(shell_, values[0].text, setting_, depth_ + 1).value();
  }
  void store(const std::string& name, Number value) { shell_.set(name, value ? Value{.text = std::to_string(*value)} : Value::unknown()); }
  static Number binary(std::string_view operation, std::int64_t left, std::int64_t right) {
    const auto l = static_cast<std::uint64_t>(left);
    const auto r = static_cast<std::uint64_t>(right);
    if (operation == "+") return wrap(l + r);
    if (operation == "-") return wrap(l - r);
    if (operation == "*") return wrap(l * r);
    if (operation == "/" || operation == "%") {
      if (right == 0) return std::nullopt;
      if (right == -1) return operation == "/" ? wrap(0 - l) : 0;
      return operation == "/" ? left / right : left % right;
    }
    if (operation == "<<") return wrap(l << (r & 63));
    if (operation == ">>") return left >> (r & 63);
    if (operation == "<") return left < right ? 1 : 0;
    if (operation == ">") return left > right ? 1 : 0;
    if (operation == "<=") return left <= right ? 1 : 0;
    if (operation == ">=") return left >= right ? 1 : 0;
    if (operation == "==") return left == right ? 1 : 0;
    if (operation == "!=") return left != right ? 1 : 0;
    if (operation == "&") return wrap(l & r);
    if (operation == "|") return wrap(l | r);
    if (operation == "^") return wrap(l ^ r);
    if (operation == "&&") return left != 0 && right != 0 ? 1 : 0;
    if (operation == "||") return left != 0 || right != 0 ? 1 : 0;
    return std::nullopt;
  }

  Interpreter& shell_;
  std::string_view text_;
  const Setting& setting_;
  int depth_;
  int level_ = 0;
  std::size_t at_ = 0;
};

std::optional<std::int64_t> Interpreter::arithmetic(std::string_view expression, const Setting& setting) {
  if (expression.size() > 65536) return std::nullopt;
  // Parameters and substitutions first, as between double quotes; then the expression.
  const Value expanded = expand_fragment(expression, true, setting);
  if (!expanded.exact) return std::nullopt;
  std::string text = expanded.text;
  std::erase(text, '"');
  std::erase(text, '\'');
  return Arithmetic(*this, text, setting, 0).value();
}

}  // namespace hearth::safety
