// SQL, as far as it matters: what drops, empties or grants, what reaches files and commands of the server. Words are read as a database reads them: without comments, whatever
// their case, literals apart.
#include <algorithm>
#include <unordered_set>
#include <utility>

#include "safety/commands_code.h"

namespace hearth::safety {
namespace {

struct Token {
  enum class Kind : std::uint8_t { word, text, number, sign };
  Kind kind = Kind::word;
  std::string text;  // words in upper case
};
constexpr std::size_t most_tokens = 100000;

bool word_char(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '$' ||
         static_cast<unsigned char>(c) >= 0x80;
}

std::vector<Token> tokens_of(std::string_view text) {
  std::vector<Token> out;
  std::size_t i = 0;
  while (i < text.size() && out.size() < most_tokens) {
    const char c = text[i];
    if (c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' || c == '\v') {
      ++i;
    } else if ((c == '-' && text.substr(i, 2) == "--") ||
               (c == '#' && (i == 0 || text[i - 1] == ' ' || text[i - 1] == '\n' || text[i - 1] == ';'))) {
      i = std::min(text.find('\n', i), text.size());
    } else if (text.substr(i, 3) == "/*!" || text.substr(i, 4) == "/*M!") {  // MySQL runs what such a comment holds
      i += text[i + 2] == '!' ? 3 : 4;
      while (i < text.size() && text[i] >= '0' && text[i] <= '9') ++i;
    } else if (text.substr(i, 2) == "/*") {
      const auto end = text.find("*/", i + 2);
      i = end == std::string_view::npos ? text.size() : end + 2;
    } else if (text.substr(i, 2) == "*/") {
      i += 2;
    } else if (c == '\'' || c == '"' || c == '`' ||
               (c == '[' && i + 1 < text.size() && word_char(text[i + 1]) && text.find(']', i) != std::string_view::npos)) {
      const char end = c == '[' ? ']' : c;
      std::string value;
      ++i;
      while (i < text.size()) {
        if (text[i] == '\\' && c == '\'' && i + 1 < text.size()) {
          value += text[i + 1];
          i += 2;
        } else if (text[i] == end) {
          if (i + 1 < text.size() && text[i + 1] == end) {
            value += end;
            i += 2;
          } else {
            break;
          }
        } else {
          value += text[i++];
        }
      }
      ++i;
      if (c == '\'') {
        out.push_back({Token::Kind::text, std::move(value)});
      } else {
        for (char& ch : value)
          if (ch >= 'a' && ch <= 'z') ch = static_cast<char>(ch - 32);
        out.push_back({c == '"' ? Token::Kind::text : Token::Kind::word, std::move(value)});
      }
    } else if (c == '$' && i + 1 < text.size() && (text[i + 1] == '$' || word_char(text[i + 1])) &&
               text.find('$', i + 1) != std::string_view::npos && !(text[i + 1] >= '0' && text[i + 1] <= '9')) {
      const auto mark_end = text.find('$', i + 1);
      const auto mark = text.substr(i, mark_end - i + 1);
      const auto end = text.find(mark, mark_end + 1);
      const auto body = text.substr(mark_end + 1, end == std::string_view::npos ? std::string_view::npos : end - mark_end - 1);
      out.push_back({Token::Kind::text, std::string(body)});
      i = end == std::string_view::npos ? text.size() : end + mark.size();
    } else if (c >= '0' && c <= '9') {
      const std::size_t begin = i;
      while (i < text.size() && (word_char(text[i]) || text[i] == '.')) ++i;
      out.push_back({Token::Kind::number, std::string(text.substr(begin, i - begin))});
    } else if (word_char(c) || c == '@') {
      const std::size_t begin = i;
      while (i < text.size() && (word_char(text[i]) || text[i] == '@')) ++i;
      std::string word(text.substr(begin, i - begin));
      for (char& ch : word)
        if (ch >= 'a' && ch <= 'z') ch = static_cast<char>(ch - 32);
      out.push_back({Token::Kind::word, std::move(word)});
    } else {
      std::string sign(1, c);
      ++i;
      if ((c == '<' || c == '>' || c == '!' || c == '|' || c == ':') && i < text.size() &&
          (text[i] == '=' || text[i] == '>' || text[i] == '|' || text[i] == ':'))
        sign += text[i++];
      out.push_back({Token::Kind::sign, std::move(sign)});
    }
  }
  return out;
}

using Tokens = std::vector<Token>;
bool is(const Tokens& t, std::size_t i, std::string_view word) {
  return i < t.size() && t[i].kind != Token::Kind::text && t[i].text == word;
}
std::size_t find_word(const Tokens& t, std::string_view word, std::size_t from = 0) {
  for (std::size_t i = from; i < t.size(); ++i)
    if (is(t, i, word)) return i;
  return t.size();
}

// A condition that is always true, in the forms people write.
bool always(const Tokens& t, std::size_t begin, std::size_t end) {
  while (begin < end && is(t, begin, "(") && is(t, end - 1, ")")) ++begin, --end;
  // Any branch of an OR is enough.
  int depth = 0;
  for (std::size_t i = begin; i < end; ++i) {
    if (is(t, i, "(")) ++depth;
    if (is(t, i, ")")) --depth;
    if (depth == 0 && (is(t, i, "OR") || is(t, i, "||"))) return always(t, begin, i) || always(t, i + 1, end);
  }
  for (std::size_t i = begin; i < end; ++i)
    if (is(t, i, "AND") || is(t, i, "&&")) return always(t, begin, i) && always(t, i + 1, end);
  const std::size_t n = end - begin;
  if (n == 1) return is(t, begin, "TRUE") || (t[begin].kind == Token::Kind::number && t[begin].text != "0");
  if (n == 2 && is(t, begin, "NOT")) return is(t, begin + 1, "FALSE") || is(t, begin + 1, "0");
  if (n == 3 && (is(t, begin + 1, "=") || is(t, begin + 1, ">=") || is(t, begin + 1, "<=") || is(t, begin + 1, "IS")))
    return t[begin].kind == t[begin + 2].kind && t[begin].text == t[begin + 2].text;
  if (n == 3 && (is(t, begin + 1, "<>") || is(t, begin + 1, "!=") || is(t, begin + 1, "<") || is(t, begin + 1, ">"))) {
    if (t[begin].kind != Token::Kind::number || t[begin + 2].kind != Token::Kind::number || t[begin].text.size() > 9 ||
        t[begin + 2].text.size() > 9)
      return false;
    const long a = std::atol(t[begin].text.c_str()), b = std::atol(t[begin + 2].text.c_str());
    return is(t, begin + 1, "<") ? a < b : is(t, begin + 1, ">") ? a > b : a != b;
  }
  if (n == 3 && is(t, begin + 1, "LIKE")) return t[begin + 2].text == "%";
  if (n == 4 && is(t, begin + 1, "IS") && is(t, begin + 2, "NOT") && is(t, begin + 3, "NULL")) return true;
  return false;
}

bool unconditional(const Tokens& t, std::size_t from) {
  const std::size_t where = find_word(t, "WHERE", from);
  if (where >= t.size()) return is(t, t.size() - 1, "LIMIT") || find_word(t, "LIMIT", from) >= t.size();
  std::size_t end = t.size();
  for (std::size_t i = where + 1; i < t.size(); ++i)
    if (is(t, i, "RETURNING") || is(t, i, "ORDER") || is(t, i, "LIMIT")) {
      end = i;
      break;
    }
  if (where + 1 >= end) return true;
  return always(t, where + 1, end);
}

const std::string* text_after(const Tokens& t, std::size_t i) {
  for (; i < t.size(); ++i)
    if (t[i].kind == Token::Kind::text) return &t[i].text;
  return nullptr;
}

void statement(Context& c, const Tokens& t, int depth) {
  std::size_t i = 0;
  while (is(t, i, "EXPLAIN") || is(t, i, "ANALYZE") || is(t, i, "VERBOSE") || is(t, i, "(")) ++i;
  if (i >= t.size()) return;
  // The body of a block.
  if ((is(t, i, "BEGIN") || is(t, i, "ATOMIC")) && i + 1 < t.size() && !is(t, i + 1, "TRANSACTION") && !is(t, i + 1, "WORK") && depth < 8)
    return statement(c, {t.begin() + static_cast<std::ptrdiff_t>(i) + 1, t.end()}, depth + 1);
  const std::string& verb = t[i].text;
  const auto name_at = [&t](std::size_t at) { return at < t.size() ? t[at].text : std::string("something"); };
  const auto lost = [&](std::string what) { c.report(Effect::database_destruction, std::move(what)); };
  // What reaches out of the database, wherever it stands.
  for (std::size_t k = 0; k < t.size(); ++k) {
    if (t[k].kind == Token::Kind::text) continue;
    const std::string& word = t[k].text;
    const auto argument = [&]() -> const std::string* { return text_after(t, k + 1); };
    if (word == "PROGRAM" && find_word(t, "COPY") < k) {
      c.report(Effect::privilege_escalation, "runs a command on the database's server");
      if (const auto* text = argument()) c.shell(plain(*text), "COPY PROGRAM");
    } else if (word == "XP_CMDSHELL" || word == "SYS_EXEC" || word == "SYS_EVAL" || word == "SP_OACREATE" || word == "SP_OAMETHOD" ||
               word == "XP_REGWRITE" || word == "DBMS_SCHEDULER" || word == "DBMS_JOB") {
      c.report(Effect::privilege_escalation, "runs a command on the database's server");
      if (const auto* text = argument(); text && word == "XP_CMDSHELL") c.shell(plain(*text), "xp_cmdshell");
    } else if ((word == "OUTFILE" || word == "DUMPFILE" || word == "WRITEFILE" || word == "LO_EXPORT") && argument()) {
      c.report(Effect::change, "writes a file of the database's server");
      c.write(plain(*argument()));
    } else if (word == "LOAD_FILE" || word == "PG_READ_FILE" || word == "PG_READ_BINARY_FILE" || word == "LO_IMPORT" ||
               word == "READFILE" || word == "PG_LS_DIR" || word == "INFILE" || word == "OPENROWSET" || word == "READ_CSV" ||
               word == "READ_TEXT" || word == "READ_BLOB") {
      if (const auto* text = argument()) c.read(plain(*text));
    } else if (word == "LOAD_EXTENSION" || word == "SONAME") {
      c.report(Effect::remote_code, "loads a library into the database");
    } else if (word == "DBLINK" || word == "DBLINK_CONNECT" || word == "UTL_HTTP" || word == "HTTPURITYPE" || word == "XP_DIRTREE" ||
               word == "UTL_INADDR" || word == "DBLINK_EXEC") {
      c.report(Effect::exfiltration, "lets the database connect to another host");
    } else if (word == "PG_SHADOW" || word == "PG_AUTHID" || word == "PG_USER_MAPPING" ||
               (word == "USER" && k >= 2 && is(t, k - 1, ".") && is(t, k - 2, "MYSQL")) || word == "SQL_LOGINS" || word == "SYSLOGINS" ||
               word == "DBA_USERS" || word == "AUTHENTICATION_STRING") {
      if (verb == "SELECT" || verb == "TABLE" || verb == "COPY" || verb == "WITH")
        c.report(Effect::credential_access, "reads the database's password hashes");
    } else if ((word == "PG_TERMINATE_BACKEND" || word == "PG_CANCEL_BACKEND" || word == "PG_RELOAD_CONF")) {
      c.report(Effect::process_control, "ends other people's sessions of the database");
    } else if (word == "GENERAL_LOG" || word == "GENERAL_LOG_FILE" || word == "SLOW_QUERY_LOG_FILE" || word == "SQL_LOG_BIN" ||
               word == "LOG_STATEMENT" || word == "LOG_BIN") {
      if (verb == "SET" || verb == "ALTER") c.report(Effect::tampering, "changes what the database logs");
    }
  }
  if (verb == "DROP") {
    std::size_t k = i + 1;
    while (is(t, k, "TEMPORARY") || is(t, k, "GLOBAL") || is(t, k, "FOREIGN") || is(t, k, "PLUGGABLE")) ++k;
    static const std::unordered_set<std::string> mild{
        "INDEX",    "VIEW", "TRIGGER", "FUNCTION",     "PROCEDURE",  "SEQUENCE", "TYPE",    "CONSTRAINT", "RULE",    "AGGREGATE",
        "OPERATOR", "CAST", "POLICY",  "MATERIALIZED", "STATISTICS", "EVENT",    "SYNONYM", "COLLATION",  "PREPARE", "ALIAS"};
    static const std::unordered_set<std::string> accounts{"USER", "ROLE", "LOGIN", "OWNED"};
    if (mild.contains(name_at(k))) return c.report(Effect::change, "drops a " + lower_case(name_at(k)));
    if (accounts.contains(name_at(k))) return c.report(Effect::privilege_escalation, "drops an account of the database");
    return lost("drops a " + lower_case(name_at(k)) + "; nobody can bring it back");
  }
  if (verb == "TRUNCATE") return lost("empties a table; add a DELETE with a WHERE for what should go");
  if (verb == "DELETE" || verb == "UPDATE" || verb == "WITH" || verb == "BEGIN" || verb == "MERGE" || verb == "REPLACE_") {
    bool some = false;
    for (std::size_t k = i; k < t.size(); ++k) {
      const bool deletes = is(t, k, "DELETE") && (k == i || is(t, k + 1, "FROM"));
      const bool updates = is(t, k, "UPDATE") && (k == i || find_word(t, "SET", k) < t.size()) &&
                           !is(t, k - 1 < t.size() ? k - 1 : 0, "FOR") && !is(t, k - 1 < t.size() ? k - 1 : 0, "DO") &&
                           !is(t, k - 1 < t.size() ? k - 1 : 0, "ON");
      if (!deletes && !updates) continue;
      some = true;
      if (unconditional(t, k))
        return lost(std::string(deletes ? "deletes" : "changes") + " every row of a table; add a WHERE that names the rows");
    }
    return c.report(some ? Effect::change : Effect::query, some ? "changes rows" : "asks a database");
  }
  if (verb == "ALTER") {
    if (is(t, i + 1, "USER") || is(t, i + 1, "ROLE") || is(t, i + 1, "LOGIN"))
      return c.report(Effect::privilege_escalation, "changes an account of the database");
    if (is(t, i + 1, "SYSTEM")) return c.report(Effect::tampering, "changes the database's settings");
    for (std::size_t k = i; k < t.size(); ++k)
      if (is(t, k, "DROP") && !is(t, k + 1, "CONSTRAINT") && !is(t, k + 1, "DEFAULT") && !is(t, k + 1, "NOT") && !is(t, k + 1, "INDEX") &&
          !is(t, k + 1, "KEY") && !is(t, k + 1, "FOREIGN") && !is(t, k + 1, "PRIMARY") && !is(t, k + 1, "CHECK"))
        return lost("drops a column or partition; nobody can bring it back");
    return c.report(Effect::change, "changes a table");
  }
  if (verb == "GRANT") return c.report(Effect::privilege_escalation, "gives rights in the database");
  if (verb == "CREATE") {
    for (std::size_t k = i + 1; k < std::min(t.size(), i + 5); ++k) {
      if (is(t, k, "USER") || is(t, k, "ROLE") || is(t, k, "LOGIN"))
        return c.report(Effect::privilege_escalation, "makes an account of the database");
      if (is(t, k, "FUNCTION") || is(t, k, "PROCEDURE") || is(t, k, "EXTENSION") || is(t, k, "LANGUAGE") || is(t, k, "AGGREGATE")) {
        for (std::size_t m = k; m < t.size(); ++m) {
          static const std::unordered_set<std::string> free{"PLPYTHONU", "PLPYTHON3U", "PLPYTHON2U", "PLPERLU", "PLSH", "PLTCLU",
                                                            "PLRUBYU",   "C",          "PLR",        "PLJAVAU", "PLV8U"};
          if (free.contains(t[m].text) && (is(t, m - 1, "LANGUAGE") || is(t, k, "EXTENSION") || is(t, k, "LANGUAGE")))
            return c.report(Effect::remote_code, "lets the database run programs of its server");
        }
      }
      if (is(t, k, "EVENT") || is(t, k, "TRIGGER")) return c.report(Effect::change, "makes something that runs by itself in the database");
    }
    return c.report(Effect::change, "makes something in the database");
  }
  if (verb == "COPY") {
    const std::size_t to = find_word(t, "TO", i), from = find_word(t, "FROM", i);
    if (to < t.size() && to + 1 < t.size() && t[to + 1].kind == Token::Kind::text) c.write(plain(t[to + 1].text));
    if (from < t.size() && from + 1 < t.size() && t[from + 1].kind == Token::Kind::text) c.read(plain(t[from + 1].text));
    return c.report(from < t.size() ? Effect::change : Effect::query, "copies rows");
  }
  if (verb == "ATTACH" || verb == "VACUUM" || verb == "BACKUP" || verb == "EXPORT") {
    if (const auto* text = text_after(t, i)) {
      if (*text != ":memory:") c.write(plain(*text));
    }
    return c.report(Effect::change, "opens or writes another database");
  }
  if (verb == "SHUTDOWN" || verb == "KILL") return c.report(Effect::process_control, "stops the database or a session");
  if (verb == "PURGE" || (verb == "RESET" && (is(t, i + 1, "MASTER") || is(t, i + 1, "BINARY"))))
    return c.report(Effect::tampering, "deletes the database's logs");
  if (verb == "SET" && (is(t, i + 1, "PASSWORD"))) return c.report(Effect::privilege_escalation, "changes a password of the database");
  if (verb == "DO" || verb == "EXEC" || verb == "EXECUTE" || verb == "PREPARE" || verb == "CALL" || verb == "DECLARE") {
    // Text within text.
    bool some = false;
    for (std::size_t k = i; k < t.size() && depth < 4; ++k)
      if (t[k].kind == Token::Kind::text && t[k].text.find(' ') != std::string::npos) {
        some = true;
        assess_sql(c, t[k].text, depth + 1);
      }
    return c.report(Effect::change, some ? "runs SQL text" : "runs a procedure of the database");
  }
  static const std::unordered_set<std::string> asks{"SELECT",  "SHOW",     "DESCRIBE", "DESC",      "TABLE",   "VALUES", "PRAGMA",
                                                    "USE",     "HELP",     "LIST",     "MATCH",     "FETCH",   "SET",    "BEGIN",
                                                    "COMMIT",  "ROLLBACK", "START",    "SAVEPOINT", "RELEASE", "END",    "RESET",
                                                    "ANALYZE", "CHECK",    "DISCARD",  "CLOSE",     "PRINT",   "GO"};
  c.report(asks.contains(verb) ? Effect::query : Effect::change,
           asks.contains(verb) ? "asks a database" : "changes a database: " + lower_case(verb));
}

}  // namespace

void assess_sql(Context& c, std::string_view text, int depth) {
  Tokens one;
  for (auto& token : tokens_of(text)) {
    if (token.kind == Token::Kind::sign && token.text == ";") {
      if (!one.empty()) statement(c, one, depth);
      one.clear();
    } else {
      one.push_back(std::move(token));
    }
  }
  if (!one.empty()) statement(c, one, depth);
}

}  // namespace hearth::safety
