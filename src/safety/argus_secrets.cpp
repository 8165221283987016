#include "safety/argus_secrets.h"

#include <re2/re2.h>

#include <array>
#include <cmath>
#include <limits>
#include <stdexcept>

namespace hearth::safety::argus {
namespace {

// Text that is given to an unanchored pattern: around its keyword.
constexpr std::size_t before_keyword = 256, after_keyword = 1024;
constexpr std::size_t longest_token = 4096;
constexpr std::size_t longest_key_block = 16384;

constexpr std::string_view key_and_separator = R"re((?:[ \t\w.-]{0,20})[\s'"]{0,3}(?:=|>|:{1,3}=|\|\||:|=>|\?=|,)[\x60'"\s=]{0,5})re";
constexpr std::string_view key_and_separator_inner =
    R"re((?:[ \t\w.-]{0,20})[\s'"]{0,3})(?:=|>|:{1,3}=|\|\||:|=>|\?=|,)[\x60'"\s=]{0,5})re";
constexpr std::string_view end_of_secret = R"re((?:[\x60'"\s;,)\]}<>&|@#?]|\\[nr]|$))re";

// Formats beyond those tables: looser shapes of well-known prefixes, for keys that changed their length.
constexpr SecretRule further_rules[] = {
    {"aws_access_key_shape", R"re(\b((?:AKIA|ASIA)[A-Z0-9]{16})\b)re", "akia asia", 2.5F, 0, true, 20, false},
    {"openai_api_key_shape", R"re(\b(sk-(?:(?:proj|svcacct|admin|or-v1)-[A-Za-z0-9_-]{20,200}|[A-Za-z0-9]{32,64})){END})re", "sk-", 3.2F, 0,
     true, 23, true},
    {"anthropic_api_key_shape", R"re(\b(sk-ant-[a-z0-9]{2,12}-[A-Za-z0-9_-]{20,200}){END})re", "sk-ant-", 3.0F, 0, true, 27, false},
    {"github_token_shape", R"re(\b(gh[pousr]_[A-Za-z0-9]{30,255}){END})re", "ghp_ gho_ ghu_ ghs_ ghr_", 3.0F, 0, true, 34, false},
    {"slack_token_shape", R"re(\b(xox[abeoprs]-[A-Za-z0-9-]{20,250}){END})re", "xoxa- xoxb- xoxe- xoxo- xoxp- xoxr- xoxs-", 2.5F, 0, true,
     25, true},
    {"stripe_webhook_secret", R"re(\b(whsec_[A-Za-z0-9+/=]{24,80}){END})re", "whsec_", 3.0F, 0, true, 30, false},
    {"google_oauth_secret", R"re(\b(GOCSPX-[A-Za-z0-9_-]{28}){END})re", "gocspx-", 3.0F, 0, true, 35, false},
    {"google_oauth_token", R"re(\b(ya29\.[A-Za-z0-9_-]{30,300}){END})re", "ya29.", 3.0F, 0, true, 35, false},
    {"google_api_key_shape", R"re(\b(AIza[\w-]{35}))re", "aiza", 3.0F, 0, true, 39, false},
    {"huggingface_token_shape", R"re(\b(hf_[A-Za-z0-9]{30,60}){END})re", "hf_", 3.0F, 0, true, 33, false},
    {"azure_storage_key", R"re((AccountKey=[A-Za-z0-9+/]{86}==))re", "accountkey=", 3.5F, 0, true, 90, false},
    {"password_hash", R"re((\$(?:[1256y]|2[abxy]|argon2id?|argon2d)\$[A-Za-z0-9./$,=+-]{20,200})[:\s'"]?)re",
     "$1$ $2a$ $2b$ $2x$ $2y$ $5$ $6$ $y$ $argon2", 3.0F, 0, true, 22, false},
};

// Kinds of places that are read by hand.
enum class Sign { key, url, authorization, private_key, user_option, login };
struct Literal {
  std::string_view text;
  Sign sign;
};
constexpr Literal signs[] = {
    {"password", Sign::key},
    {"passwd", Sign::key},
    {"passphrase", Sign::key},
    {"pwd", Sign::key},
    {"passwort", Sign::key},
    {"secret", Sign::key},
    {"token", Sign::key},
    {"api_key", Sign::key},
    {"apikey", Sign::key},
    {"api-key", Sign::key},
    {"api key", Sign::key},
    {"access_key", Sign::key},
    {"accesskey", Sign::key},
    {"access-key", Sign::key},
    {"auth_key", Sign::key},
    {"private_key", Sign::key},
    {"privatekey", Sign::key},
    {"encryption_key", Sign::key},
    {"signing_key", Sign::key},
    {"account_key", Sign::key},
    {"credential", Sign::key},
    {"sshpass", Sign::key},
    {"://", Sign::url},
    {"authorization", Sign::authorization},
    {"x-api-key", Sign::authorization},
    {"bearer ", Sign::authorization},
    {"-----begin", Sign::private_key},
    {"putty-user-key-file", Sign::private_key},
    {" -u ", Sign::user_option},
    {"--user", Sign::user_option},
    {" login ", Sign::login},
};

constexpr bool is_token(char c) {
  return is_alnum(c) || c == '_' || c == '-' || c == '.' || c == '/' || c == '+' || c == '=' || c == '~' || c == '$' || c == ',';
}

constexpr std::string_view placeholder_words[] = {
    "example", "placeholder", "changeme",   "change-me",  "change_me", "change.me", "your_",       "your-",    "yourpass",
    "yourkey", "yourtoken",   "yoursecret", "my_secret",  "dummy",     "sample",    "redacted",    "insert",   "todo",
    "replace", "fixme",       "notreal",    "not-a-real", "fake",      "masked",    "hidden",      "removed",  "undefined",
    "unset",   "default",     "required",   "optional",   "foobar",    "lorem",     "secret_here", "key_here", "token_here",
    "<your",   "...",         "***",        "•••",        "xxxx"};

bool has_placeholder_word(std::string_view value) {
  for (const auto word : placeholder_words) {
    if (contains(value, word)) return true;
  }
  return false;
}

struct Classes {
  std::size_t digits = 0, upper = 0, lower = 0, other = 0;
};
Classes classes_of(std::string_view value) {
  Classes classes;
  for (const char c : value) {
    if (is_digit(c)) {
      ++classes.digits;
    } else if (is_upper(c)) {
      ++classes.upper;
    } else if (is_lower(c)) {
      ++classes.lower;
    } else {
      ++classes.other;
    }
  }
  return classes;
}

// Something a program would evaluate: a call, a member, an index, a path, a type.
bool looks_like_code(std::string_view value) {
  if (value.find('(') != std::string_view::npos || value.find("->") != std::string_view::npos || value.find("::") != std::string_view::npos)
    return true;
  if (value.starts_with("/") || value.starts_with("./") || value.starts_with("~/") || value.starts_with("../")) return true;
  for (const std::string_view head :
       {"os.",  "process.", "env.",   "self.",   "this.",    "config.",  "settings.", "request.", "args.",  "ctx.",   "secrets.", "vars.",
        "var.", "data.",    "local.", "http://", "https://", "function", "lambda",    "new ",     "await ", "string", "str,",     "none"}) {
    if (has_at(value, 0, head)) return true;
  }
  return value.find('[') != std::string_view::npos && value.find(']') != std::string_view::npos;
}

bool is_identifier(std::string_view value) {
  return !value.empty() && !is_digit(value[0]) &&
         std::all_of(value.begin(), value.end(), [](char c) { return is_word(c) || c == '.' || c == '-'; });
}

// Whether words alone make the value: lower-case words, CamelCase, SNAKE_CASE without digits.
bool is_words(std::string_view value) {
  const Classes classes = classes_of(value);
  if (classes.digits > 0) return false;
  const std::size_t joiners = static_cast<std::size_t>(
      std::count_if(value.begin(), value.end(), [](char c) { return c == '_' || c == '-' || c == '.' || c == ' '; }));
  if (classes.other > joiners) return false;
  return entropy(value) < 4.2 || classes.upper == 0 || classes.lower == 0;
}

// Whether a field or variable of that name holds a secret, and of which kind.
enum class KeyKind { none, password, token };
KeyKind kind_of_key(std::string_view name) {
  const std::string key = lowered(name);
  // What follows says that the value is about the secret, not the secret itself.
  for (const std::string_view suffix :
       {"name",   "type",    "url",    "uri",       "file",     "path",    "field", "length", "len",      "count", "limit",   "policy",
        "expiry", "expires", "expire", "expir",     "endpoint", "hint",    "label", "prompt", "input",    "regex", "pattern", "id",
        "ttl",    "size",    "arn",    "ref",       "min",      "max",     "index", "budget", "form",     "reset", "version", "usage",
        "scopes", "scope",   "format", "algorithm", "prefix",   "manager", "store", "owner",  "template", "s"}) {
    if (key.size() > suffix.size() && key.ends_with(suffix)) {
      if (suffix == "s" &&
          !(key.ends_with("tokens") || key.ends_with("credentials") || key.ends_with("secrets") || key.ends_with("passwords")))
        continue;
      const char before = key[key.size() - suffix.size() - 1];
      const bool joined = before == '_' || before == '-' || before == '.' || is_upper(name[name.size() - suffix.size()]);
      if (joined || suffix == "s") return KeyKind::none;
    }
  }
  for (const std::string_view other :
       {"tokeniz",       "public",      "pubkey",       "csrf",         "xsrf",       "next_token", "page_token",
        "pagetoken",     "nexttoken",   "continuation", "cancellation", "max_token",  "num_token",  "eos_token",
        "bos_token",     "pad_token",   "unk_token",    "sep_token",    "mask_token", "stop_token", "special_token",
        "access_key_id", "accesskeyid", "primary",      "foreign",      "secretary"}) {
    if (key.find(other) != std::string::npos) return KeyKind::none;
  }
  for (const std::string_view word : {"password", "passwd", "passphrase", "passwort"}) {
    if (key.find(word) != std::string::npos) return KeyKind::password;
  }
  if (key == "pwd" || key.ends_with("_pwd") || key.ends_with("-pwd") || key.ends_with(".pwd"))
    return key == "pwd" ? KeyKind::none : KeyKind::password;
  for (const std::string_view word :
       {"secret", "token", "api_key", "apikey", "api-key", "api key", "access_key", "accesskey", "access-key", "auth_key", "private_key",
        "privatekey", "encryption_key", "signing_key", "account_key", "credential"}) {
    if (key.find(word) != std::string::npos) return KeyKind::token;
  }
  return KeyKind::none;
}

// Confidence that `value`, assigned to a key of `kind`, is a secret; 0: it is none. `quoted`: a literal of some language. `shell`: NAME=value as in an
// environment file or an option.
double judge_value(KeyKind kind, std::string_view value, bool quoted, bool shell) {
  if (value.size() < 6 || value.size() > 512 || is_placeholder(value) || looks_like_code(value)) return 0;
  const Classes classes = classes_of(value);
  const double bits = entropy(value);
  if (has_placeholder_word(value) && !(value.size() >= 30 && classes.digits > 0 && classes.upper > 0 && classes.lower > 0 && bits >= 4))
    return 0;
  const int kinds = (classes.digits > 0) + (classes.upper > 0) + (classes.lower > 0) + (classes.other > 0);
  if (kind == KeyKind::password) {
    if (bits < 2) return 0;
    if (quoted || shell) {
      // "hunter2", "correct horse": a literal is one unless it is a bare word that could be a name.
      if (is_words(value))
        return quoted && value.size() >= 10 && classes.upper == 0 && value.find_first_of("_.") == std::string_view::npos ? 0.5 : 0;
      return 0.85;
    }
    // Without quotes a name is likelier: digits among letters, and something a name lacks.
    if (classes.digits == 0 && classes.other == 0) return 0;
    if (is_identifier(value) && (kinds < 3 || value.size() < 8)) return 0;
    if (classes.digits == 0 && kinds < 3) return 0;
    return 0.7;
  }
  // Tokens look random.
  if (value.size() < 12 || classes.digits == 0 || bits < 3) return 0;
  if (value.find(' ') != std::string_view::npos) return 0;
  const bool hexadecimal = value.find_first_not_of("0123456789abcdefABCDEF-") == std::string_view::npos;
  if (value.size() >= 16 && bits >= (hexadecimal ? 3.0 : 3.5)) return quoted || shell ? 0.85 : 0.7;
  return quoted || shell ? (kinds >= 3 ? 0.6 : 0) : 0;
}

}  // namespace

double entropy(std::string_view text) {
  if (text.empty()) return 0;
  std::array<std::uint32_t, 256> counts{};
  for (const char c : text) ++counts[static_cast<unsigned char>(c)];
  double bits = 0;
  for (const auto count : counts) {
    if (count == 0) continue;
    const double share = static_cast<double>(count) / static_cast<double>(text.size());
    bits -= share * std::log2(share);
  }
  return bits;
}

bool is_placeholder(std::string_view value) {
  if (value.empty()) return true;
  if (std::all_of(value.begin(), value.end(), [&](char c) { return to_lower(c) == to_lower(value[0]); })) return true;
  const char first = value.front(), last = value.back();
  if (first == '$' && value.size() > 1) {
    const std::string_view rest = value.substr(1);
    if (rest[0] == '{' || rest[0] == '(') return true;
    if (std::all_of(rest.begin(), rest.end(), is_word) && !is_digit(rest[0])) return true;
  }
  if ((first == '<' && last == '>') || (first == '{' && last == '}') || (first == '[' && last == ']') || (first == '%' && last == '%') ||
      (first == '@' && last == '@') || (first == '(' && last == ')')) {
    return true;
  }
  if (value.find("${") != std::string_view::npos || value.find("{{") != std::string_view::npos ||
      value.find("$(") != std::string_view::npos || value.find("<%") != std::string_view::npos ||
      value.find("#{") != std::string_view::npos) {
    return true;
  }
  const std::string lower = lowered(value);
  for (const std::string_view word : {"true",       "false",      "null",     "none",   "nil",       "password",
                                      "passwd",     "secret",     "token",    "string", "undefined", "abcdefghijklmnopqrstuvwxyz",
                                      "0123456789", "1234567890", "12345678", "123456", "abc123",    "test",
                                      "testing",    "hidden",     "prompt",   "stdin"}) {
    if (lower == word) return true;
  }
  // "xxxxxxxx-xxxx", "********": few different characters, all of them fillers.
  return lower.find_first_not_of("x*.-_•0# ") == std::string::npos;
}

struct Secrets::Impl {
  struct Compiled {
    const SecretRule* rule;
    std::unique_ptr<re2::RE2> pattern;
    int groups;
  };
  std::vector<Compiled> rules;
  std::vector<std::pair<std::uint32_t, std::uint32_t>> keywords;  // of a literal's id: rule, length

  void compile(const SecretRule& rule) {
    std::string pattern = rule.pattern;
    const auto put = [&pattern](std::string_view name, std::string_view text) {
      for (std::size_t at; (at = pattern.find(name)) != std::string::npos;) pattern.replace(at, name.size(), text);
    };
    put("{KEYI}", key_and_separator_inner);
    put("{KEY}", key_and_separator);
    put("{END}", end_of_secret);
    re2::RE2::Options options;
    options.set_encoding(re2::RE2::Options::EncodingLatin1);
    options.set_log_errors(false);
    options.set_max_mem(16 << 20);
    auto compiled = std::make_unique<re2::RE2>(pattern, options);
    if (!compiled->ok()) throw std::logic_error(std::string("pattern of ") + rule.id + ": " + compiled->error());
    const int groups = compiled->NumberOfCapturingGroups();
    rules.push_back({&rule, std::move(compiled), groups});
  }

  void try_rule(std::string_view text, std::size_t index, std::size_t at, Progress& progress, Hits& hits) const {
    const auto& [rule, pattern, groups] = rules[index];
    if (rule->min_run > 0) {
      const auto run = static_cast<std::size_t>(rule->min_run);
      if (text.size() - at < run) return;
      for (std::size_t i = 0; i < run; ++i) {
        if (!is_token(text[at + i])) return;
      }
    }
    std::size_t begin = at, end = std::min(text.size(), at + longest_token);
    auto& tried = progress[index];
    if (!rule->anchored) {
      if (tried > at + after_keyword / 2) return;  // it was within what was looked at
      begin = std::max(tried > before_keyword ? tried - before_keyword : 0, at > before_keyword ? at - before_keyword : 0);
      end = std::min(text.size(), at + after_keyword);
      tried = end;
    } else if (at < tried) {
      return;  // inside of the last match
    }
    re2::StringPiece captures[6];
    const int wanted = std::min(groups + 1, 6);
    while (begin < end && pattern->Match(re2::StringPiece(text.data(), text.size()), begin, end,
                                         rule->anchored ? re2::RE2::ANCHOR_START : re2::RE2::UNANCHORED, captures, wanted)) {
      const re2::StringPiece* secret = &captures[0];
      if (rule->group > 0 && rule->group < wanted) {
        secret = &captures[rule->group];
      } else {
        for (int i = 1; i < wanted; ++i) {
          if (!captures[i].empty()) {
            secret = &captures[i];
            break;
          }
        }
      }
      const auto from = static_cast<std::size_t>(secret->data() - text.data());
      const auto match_begin = static_cast<std::size_t>(captures[0].data() - text.data());
      const std::size_t match_end = match_begin + captures[0].size();
      const std::string_view value(secret->data(), secret->size());
      const bool digit_missing = rule->needs_digit && std::none_of(value.begin(), value.end(), is_digit);
      if (!digit_missing && entropy(value) >= static_cast<double>(rule->entropy) && !is_placeholder(value)) {
        const bool example = has_placeholder_word(value);
        // In a key that only looks random, such a word means that it is none.
        if (!example || rule->min_run > 0 || value.size() >= 20) {
          std::string_view id = rule->id;
          if (id.ends_with("_shape")) id.remove_suffix(6);
          hits.push_back({.kind = Spill::secret,
                          .detector = std::string(id == "aws_access_token" ? "aws_access_key" : id),
                          .span = {from, from + value.size()},
                          .reach = {match_begin, match_end},
                          .level = {},
                          .confidence = example ? 0.6 : 0.95});
        }
      }
      if (rule->anchored) {
        tried = match_end;
        break;
      }
      begin = std::max(match_end, begin + 1);
    }
  }

  static void report(Hits& hits, std::string_view detector, Span span, Span reach, double confidence) {
    hits.push_back(
        {.kind = Spill::secret, .detector = std::string(detector), .span = span, .reach = reach, .level = {}, .confidence = confidence});
  }

  // `at` is in the name of a key: "DB_PASSWORD=…", "password: …", "'token' => …", "--api-key …".
  static void read_assignment(std::string_view text, std::size_t at, std::size_t keyword_end, Hits& hits) {
    std::size_t begin = at, end = keyword_end;
    while (begin > 0 && at - begin < 40 && (is_word(text[begin - 1]) || text[begin - 1] == '-' || text[begin - 1] == '.')) --begin;
    while (end < text.size() && end - keyword_end < 30 && (is_word(text[end]) || text[end] == '-')) ++end;
    const std::string_view name = text.substr(begin, end - begin);
    const bool option = name.starts_with("--");
    const KeyKind kind = kind_of_key(name);
    if (kind == KeyKind::none) return;
    std::size_t i = end;
    const auto skip = [&](std::size_t most, bool quotes) {
      for (std::size_t n = 0;
           n < most && i < text.size() &&
           (is_blank(text[i]) || text[i] == '\f' || (quotes && (text[i] == '"' || text[i] == '\'' || text[i] == '`' || text[i] == ']')));
           ++n)
        ++i;
    };
    skip(4, true);
    bool shell = false;
    const std::size_t separator = i;
    if (i < text.size() && (text[i] == '=' || text[i] == ':' || text[i] == '>')) {
      while (i < text.size() && i - separator < 3 && (text[i] == '=' || text[i] == ':' || text[i] == '>')) ++i;
      const std::string_view written = text.substr(separator, i - separator);
      if (written == "==" || written == "===" || written == "::" || written == ">") {
        if (written != "==" && written != "===") return;
        return;  // a comparison
      }
      shell = written == "=" && separator == end && (option || i == text.size() || !is_blank(text[i]));
    } else if (option && separator > end) {
      shell = true;  // "--password hunter2"
    } else {
      return;
    }
    skip(4, false);
    if (i >= text.size()) return;
    char quote = 0;
    // In a literal that ends here ("Password: "), nothing is assigned.
    if ((text[i] == '"' || text[i] == '\'' || text[i] == '`') && (end >= text.size() || text[end] != text[i])) {
      std::size_t open = 0;
      for (std::size_t k = begin; k > 0 && begin - k < 200 && !is_line_break(text[k - 1]); --k)
        open += text[k - 1] == text[i] && (k < 2 || text[k - 2] != '\\') ? 1 : 0;
      if (open % 2 == 1) return;
    }
    if (text[i] == '"' || text[i] == '\'' || text[i] == '`') quote = text[i++];
    const std::size_t value_begin = i;
    while (i < text.size() && i - value_begin <= 520) {
      const char c = text[i];
      if (is_line_break(c) ||
          (quote != 0 ? c == quote
                      : (is_space(c) || c == '"' || c == '\'' || c == '`' || c == ';' || (c == ',' && !shell) || c == '&' || c == '|' ||
                         c == '<' || c == '>' || (c == '}' && text[value_begin] != '{' && text[value_begin] != '$')))) {
        break;
      }
      if (c == '\\' && i + 1 < text.size() && (text[i + 1] == 'n' || text[i + 1] == 'r' || text[i + 1] == '"')) break;
      ++i;
    }
    std::string_view value = text.substr(value_begin, i - value_begin);
    while (!value.empty() && quote == 0 && (value.back() == ')' || value.back() == '.' || value.back() == ']') &&
           value.find(value.back() == ')' ? '(' : '[') == std::string_view::npos)
      value.remove_suffix(1);
    const double confidence = judge_value(kind, value, quote != 0, shell);
    if (confidence > 0)
      report(hits, kind == KeyKind::password ? "password" : "generic_secret", {value_begin, value_begin + value.size()}, {begin, i},
             confidence);
  }

  // scheme://user:password@host
  static void read_url(std::string_view text, std::size_t at, Hits& hits) {
    std::size_t begin = at;
    while (begin > 0 && at - begin < 24 &&
           (is_alnum(text[begin - 1]) || text[begin - 1] == '+' || text[begin - 1] == '.' || text[begin - 1] == '-'))
      --begin;
    if (begin == at) return;
    const std::size_t user = at + 3;
    std::size_t colon = 0, sign = 0;
    for (std::size_t i = user; i < text.size() && i - user < 400; ++i) {
      const char c = text[i];
      if (is_space(c) || c == '"' || c == '\'' || c == '<' || c == '>' || c == '`') break;
      if (c == '/' && colon == 0) break;
      if (c == ':' && colon == 0) colon = i;
      if (c == '@') sign = i;
      if ((c == '/' || c == '?' || c == '#') && sign != 0) break;
    }
    if (colon == 0 || sign == 0 || sign < colon + 2) return;
    const std::string_view password = text.substr(colon + 1, sign - colon - 1);
    if (password.size() < 3 || text[colon - 1] == '[' || is_placeholder(password) || has_placeholder_word(password)) return;
    if (password.find('/') != std::string_view::npos &&
        std::all_of(password.begin(), password.begin() + static_cast<std::ptrdiff_t>(password.find('/')), is_digit))
      return;  // a port
    const std::string lower = lowered(password);
    for (const std::string_view word : {"pass", "pwd", "pw", "user", "root", "admin", "postgres", "mypassword", "passw0rd"}) {
      if (lower == word) return;  // what manuals write
    }
    report(hits, "connection_string", {colon + 1, sign}, {begin, sign + 1}, 0.9);
  }

  // Authorization: Bearer …, Basic …, x-api-key: …
  static void read_header(std::string_view text, std::size_t at, std::size_t keyword_end, Hits& hits) {
    std::size_t i = keyword_end;
    const auto skip = [&] {
      for (int n = 0; n < 6 && i < text.size() &&
                      (is_blank(text[i]) || text[i] == '\f' || text[i] == '"' || text[i] == '\'' || text[i] == '`' || text[i] == ':' ||
                       text[i] == '=');
           ++n)
        ++i;
    };
    const bool bearer_word = has_at(text, at, "bearer ");
    skip();
    bool scheme = bearer_word, basic = false;
    for (const std::string_view word : {"bearer", "basic", "token", "apikey", "digest", "bot"}) {
      if (has_at(text, i, word) && i + word.size() < text.size() && is_blank(text[i + word.size()])) {
        scheme = true;
        basic = word == "basic";
        i += word.size();
        skip();
        break;
      }
    }
    if (!scheme && !has_at(text, at, "x-api-key")) return;
    const std::size_t begin = i;
    while (i < text.size() && is_token(text[i]) && text[i] != ',' && i - begin < longest_token) ++i;
    const std::string_view value = text.substr(begin, i - begin);
    if (is_placeholder(value) || has_placeholder_word(value)) return;
    if (basic) {
      const std::string pair = base64_bytes(value);
      if (value.size() < 8 || pair.find(':') == std::string::npos ||
          !std::all_of(pair.begin(), pair.end(), [](char c) { return c >= 0x20 && c < 0x7F; }))
        return;
      return report(hits, "authorization_basic", {begin, i}, {at, i}, 0.95);
    }
    const Classes classes = classes_of(value);
    if (value.size() < 16 || (classes.digits == 0 && (classes.upper == 0 || classes.lower == 0)) || entropy(value) < 3) return;
    report(hits, "authorization_header", {begin, i}, {at, i}, 0.9);
  }

  static void read_private_key(std::string_view text, std::size_t at, Hits& hits) {
    std::size_t i = at;
    if (has_at(text, at, "putty")) {
      const std::string_view rest = text.substr(at, longest_key_block);
      if (!contains(rest, "private-lines")) return;
      return report(hits, "private_key", {at, at + rest.size()}, {at, at + rest.size()}, 0.95);
    }
    // -----BEGIN … PRIVATE KEY-----
    i += 10;
    const std::size_t label = i;
    while (i < text.size() && i - label < 80 && text[i] != '-' && !is_line_break(text[i])) ++i;
    if (!contains(text.substr(label, i - label), "private key") || text.substr(i, 5) != "-----") return;
    i += 5;
    const std::size_t body = i;
    // Up to its end, or as far as lines go that can be of a key.
    const std::string_view rest = text.substr(body, longest_key_block);
    std::size_t length = 0, content = 0;
    while (length < rest.size()) {
      const char c = rest[length];
      if (rest.substr(length, 8) == "-----END") {
        std::size_t end = length + 8;
        while (end < rest.size() && end - length < 90 && rest[end] != '-') ++end;
        while (end < rest.size() && rest[end] == '-' && end - length < 96) ++end;
        length = end;
        break;
      }
      const bool fits = is_alnum(c) || c == '+' || c == '/' || c == '=' || is_space(c) || c == '\\' || c == ':' || c == ',' || c == '-' ||
                        c == '"' || c == '\'';
      if (!fits) break;
      content += is_alnum(c) ? 1 : 0;
      ++length;
    }
    if (content < 24) return;
    std::size_t end = body + length;
    while (end > body && (is_space(text[end - 1]) || text[end - 1] == '"' || text[end - 1] == '\'')) --end;
    const std::string_view inside = text.substr(body, end - body);
    report(hits, "private_key", {at, end}, {at, end},
           contains(inside, "example") || inside.find("...") != std::string_view::npos ? 0.5 : 0.98);
  }

  // curl -u user:password, --user user:password
  static void read_user_option(std::string_view text, std::size_t at, std::size_t keyword_end, Hits& hits) {
    if (!contains(around(text, at, 200, 0), "curl") && !contains(around(text, at, 200, 0), "wget")) return;
    std::size_t i = keyword_end;
    while (i < text.size() && (is_blank(text[i]) || text[i] == '=' || text[i] == '"' || text[i] == '\'') && i - keyword_end < 4) ++i;
    const std::size_t begin = i;
    std::size_t colon = 0;
    while (i < text.size() && !is_space(text[i]) && text[i] != '"' && text[i] != '\'' && i - begin < 200) {
      if (text[i] == ':' && colon == 0) colon = i;
      ++i;
    }
    if (colon == 0 || i - colon < 4) return;
    const std::string_view password = text.substr(colon + 1, i - colon - 1);
    if (is_placeholder(password) || has_placeholder_word(password) || password.starts_with("//") || lowered(password) == "pass") return;
    report(hits, "password", {colon + 1, i}, {at, i}, 0.8);
  }

  // .netrc: machine HOST login NAME password SECRET
  static void read_login(std::string_view text, std::size_t at, std::size_t keyword_end, Hits& hits) {
    std::size_t i = keyword_end;
    while (i < text.size() && !is_space(text[i]) && i - keyword_end < 80) ++i;
    while (i < text.size() && is_space(text[i])) ++i;
    if (!has_at(text, i, "password ")) return;
    i += 9;
    const std::size_t begin = i;
    while (i < text.size() && !is_space(text[i]) && i - begin < 200) ++i;
    if (i - begin < 4 || is_placeholder(text.substr(begin, i - begin)) || !contains(around(text, at, 120, 0), "machine ")) return;
    report(hits, "password", {begin, i}, {at, i}, 0.9);
  }
};

Secrets::Secrets() : impl_(std::make_unique<Impl>()) {
  for (std::size_t i = 0; i < secret_rule_count; ++i) impl_->compile(secret_rules[i]);
  for (const auto& rule : further_rules) impl_->compile(rule);
}
Secrets::~Secrets() = default;

std::uint32_t Secrets::literals(Literals& automaton, std::uint32_t first) const {
  std::uint32_t id = first;
  for (const auto& sign : signs) automaton.add(sign.text, id++);
  auto& keywords = impl_->keywords;
  keywords.clear();
  for (std::uint32_t rule = 0; rule < impl_->rules.size(); ++rule) {
    std::string_view list = impl_->rules[rule].rule->keywords;
    while (!list.empty()) {
      std::string keyword(list.substr(0, list.find(' ')));
      list.remove_prefix(std::min(list.size(), keyword.size() + 1));
      std::replace(keyword.begin(), keyword.end(), '?', ' ');
      automaton.add(keyword, id++);
      keywords.emplace_back(rule, static_cast<std::uint32_t>(keyword.size()));
    }
  }
  return id - first;
}

Secrets::Progress Secrets::start() const { return Progress(impl_->rules.size(), 0); }

void Secrets::look(std::string_view text, std::uint32_t id, std::size_t at, Progress& progress, Hits& hits) const {
  if (id >= std::size(signs)) return impl_->try_rule(text, impl_->keywords[id - std::size(signs)].first, at, progress, hits);
  const std::size_t end = at + signs[id].text.size();
  switch (signs[id].sign) {
    case Sign::key: return Impl::read_assignment(text, at, end, hits);
    case Sign::url: return Impl::read_url(text, at, hits);
    case Sign::authorization: return Impl::read_header(text, at, end, hits);
    case Sign::private_key: return Impl::read_private_key(text, at, hits);
    case Sign::user_option: return Impl::read_user_option(text, at, end, hits);
    case Sign::login: return Impl::read_login(text, at, end, hits);
  }
}

bool Secrets::is_secret_field(std::string_view field, std::string_view value) {
  const KeyKind kind = kind_of_key(field);
  return kind != KeyKind::none && judge_value(kind, value, true, false) > 0;
}

}  // namespace hearth::safety::argus
