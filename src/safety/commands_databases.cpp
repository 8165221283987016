// Clients of databases: what they run and where they write.
#include <algorithm>
#include <array>
#include <unordered_set>
#include <utility>

#include "safety/commands_model.h"

namespace hearth::safety {
namespace {

// Program text on standard input, or a file of it.
void sql_from_input(Context& c) {
  if (c.input.network || c.input.decoded) return c.report(Effect::remote_code, "runs SQL that was fetched or decoded");
  if (c.input.text) return c.sql(plain(*c.input.text));
  for (const auto& redirect : c.command.redirects)
    if (redirect.kind == Redirect::Kind::read) c.run_file(redirect.target, "sql");
  if (c.command.pipe_from >= 0 && !c.input.text) c.report(Effect::change, "loads what another program prints into a database", {}, false);
}

void to_host(Context& c, const Word* host) {
  if (host && !host->text.empty()) c.report(Effect::query, "asks the database at " + host_of(host->text), host_of(host->text), host->exact);
  else c.report(Effect::query, "asks a database");
}

// Lines of psql and mysql that are no SQL: \! command, \o file, \copy …
void meta_commands(Context& c, const Word& word) {
  std::string_view text = word.text;
  for (std::size_t at = text.find('\\'); at != std::string_view::npos; at = text.find('\\', at + 1)) {
    const auto rest = text.substr(at + 1);
    const auto end = std::min(rest.find('\n'), rest.size());
    const auto line = rest.substr(0, end);
    const auto argument = [&](std::size_t from) {
      return part_of(
          word,
          at + 1 +
              std::min(line.find_first_not_of(" \t", from) == std::string_view::npos ? line.size() : line.find_first_not_of(" \t", from),
                       line.size()),
          end - std::min(line.find_first_not_of(" \t", from) == std::string_view::npos ? line.size() : line.find_first_not_of(" \t", from),
                         line.size()));
    };
    if (starts_with(line, "!")) {
      c.report(Effect::execute, "runs a command out of a database client");
      c.shell(argument(1), c.program);
    } else if (starts_with(line, "o ") || starts_with(line, "g ") || starts_with(line, "w ") || starts_with(line, "s ") ||
               starts_with(line, "out ") || starts_with(line, "T ")) {
      const Word target = argument(1);
      if (starts_with(target.text, "|")) c.shell(part_of(target, 1), c.program);
      else if (starts_with(target.text, "/") || starts_with(target.text, "~") || starts_with(target.text, ".")) c.write(target);
    } else if (starts_with(line, "i ") || starts_with(line, "ir ") || starts_with(line, ". ")) {
      c.run_file(argument(1), "sql");
    } else if (starts_with(line, "copy")) {
      const std::string low = lower_case(line);
      if (const auto program = low.find(" program "); program != std::string::npos) {
        const auto quote = line.find('\'', program);
        if (quote != std::string_view::npos) c.shell(plain(line.substr(quote + 1, line.find('\'', quote + 1) - quote - 1)), c.program);
      } else if (const auto to = low.find(" to "); to != std::string::npos) {
        const auto quote = line.find('\'', to);
        if (quote != std::string_view::npos) c.write(plain(line.substr(quote + 1, line.find('\'', quote + 1) - quote - 1)));
      }
    }
  }
}

void statement(Context& c, const Word& word) {
  meta_commands(c, word);
  if (starts_with(word.text, "\\")) return;
  c.sql(word);
}

void psql(Context& c) {
  static const Grammar grammar(
      "-c,--command=q -f,--file=f -d,--dbname=_ -h,--host=_ -p,--port=_ -U,--username=_ -o,--output=W -L,--log-file=W -l,--list "
      "-v,--set,--variable=_ -F=_ -R=_ -P=_ -T=_ -w -W -X -q -t -A -a -b -e -E -n -s -S -x -z -0 -1");
  const auto args = parse_arguments(c.words, 1, grammar);
  bool text = false;
  for (const auto& option : args.options) {
    if (!option.has_value || !option.spec) continue;
    const char role = static_cast<char>(option.spec->role);
    if (role == 'q') {
      text = true;
      statement(c, option.value);
    } else if (role == 'f') {
      text = true;
      c.run_file(option.value, "sql");
    } else if (option.name == "o" && starts_with(option.value.text, "|")) {
      c.shell(part_of(option.value, 1), "psql");
    } else {
      c.apply(option.spec->role, option.value);
    }
  }
  to_host(c, args.value("h"));
  c.output.local = true;
  if (!text || c.input.text) sql_from_input(c);
}

// The client's own commands stand among the statements: system, \!, source.
void mysql_text(Context& c, const Word& word) {
  std::size_t at = 0;
  while (at < word.text.size()) {
    const auto end = std::min(word.text.find_first_of(";\n", at), word.text.size());
    const auto begin = std::min(word.text.find_first_not_of(" \t", at), end);
    const std::string_view piece = std::string_view(word.text).substr(begin, end - begin);
    for (const std::string_view verb : {"system ", "\\! ", "\\!"})
      if (starts_with(lower_case(piece), verb)) {
        c.shell(part_of(word, begin + verb.size(), piece.size() - verb.size()), "mysql");
        break;
      }
    for (const std::string_view verb : {"source ", "\\. "})
      if (starts_with(lower_case(piece), verb)) c.run_file(part_of(word, begin + verb.size(), piece.size() - verb.size()), "sql");
    at = end + 1;
  }
  statement(c, word);
}

void mysql(Context& c) {
  static const Grammar grammar(
      "-e,--execute=q -h,--host=_ -P,--port=_ -u,--user=_ -p,--password?=_ -D,--database=_ -S,--socket=_ --defaults-file=R "
      "--defaults-extra-file=R --tee=W --pager?=X --init-command=q --plugin-dir=L -B -N -s -r -t -v -A -f -n -q -w -H -X --ssl-ca=_ "
      "--protocol=_ --default-auth=_");
  const auto args = parse_arguments(c.words, 1, grammar);
  bool text = false;
  for (const auto& option : args.options) {
    if (!option.has_value || !option.spec) continue;
    if (static_cast<char>(option.spec->role) == 'q') {
      text = true;
      mysql_text(c, option.value);
    } else {
      c.apply(option.spec->role, option.value);
    }
  }
  to_host(c, args.value("h"));
  c.output.local = true;
  if (!text && c.input.text) mysql_text(c, plain(*c.input.text));
  if (!text) sql_from_input(c);
}

void sqlite(Context& c) {
  static const Grammar grammar(
      "-cmd,--cmd=q -init,--init=f -batch,--batch -header -column -csv -json -line -list -html -separator=_ -nullvalue=_ -readonly -bail "
      "-echo -version -interactive -append -newline=_ -mmap=_ -safe -A -markdown -table -box -vfs=_ -quote -tabs");
  const auto args = parse_arguments(c.words, 1, grammar);
  if (!args.operands.empty()) {
    const std::string path = c.path_of(args.operands.front());
    if (path != "/:memory:" && args.operands.front().text != ":memory:" && !args.operands.front().text.empty()) {
      const Site site = site_of(path, c.where());
      if (is_dangerous(site.on_read)) c.read(args.operands.front());
      else if (is_dangerous(site.on_write) && site.place != Place::home && site.place != Place::elsewhere) c.write(args.operands.front());
    }
  }
  const auto one = [&c](const Word& word) {
    std::string_view text = word.text;
    const auto start = text.find_first_not_of(" \t\n");
    if (start == std::string_view::npos || text[start] != '.') return c.sql(word);
    const auto end = std::min(text.find_first_of(" \t\n", start), text.size());
    const std::string name(text.substr(start, end - start));
    Word rest = part_of(word, std::min(text.find_first_not_of(" \t\n", end), text.size()));
    if (rest.text.size() > 1 && (rest.text[0] == '\'' || rest.text[0] == '"') && rest.text.back() == rest.text[0])
      rest.text = rest.text.substr(1, rest.text.size() - 2);
    if (name == ".shell" || name == ".system") return c.shell(rest, "sqlite3");
    if (name == ".output" || name == ".once" || name == ".backup" || name == ".save" || name == ".log" || name == ".excel" ||
        name == ".clone") {
      if (starts_with(rest.text, "|")) return c.shell(part_of(rest, 1), "sqlite3");
      return c.write(rest);
    }
    if (name == ".read" || name == ".import" || name == ".restore") {
      if (starts_with(rest.text, "|")) return c.shell(part_of(rest, 1), "sqlite3");
      Word file = rest;
      file.text = file.text.substr(0, file.text.find_first_of(" \t"));
      return name == ".read" ? c.run_file(file, "sql") : c.read(file);
    }
    if (name == ".load") return c.load_library(rest);
    c.report(Effect::query, "asks a database");
  };
  bool text = false;
  for (const auto& option : args.options) {
    if (!option.has_value || !option.spec) continue;
    const char role = static_cast<char>(option.spec->role);
    if (role == 'q') one(option.value);
    else if (role == 'f') c.run_file(option.value, "sql");
  }
  for (std::size_t i = 1; i < args.operands.size(); ++i) {
    text = true;
    one(args.operands[i]);
  }
  c.report(Effect::query, "asks a database", args.operands.empty() ? std::string{} : args.operands.front().text);
  c.output.local = true;
  if (text) return;
  if (c.input.text) {
    std::string_view rest = *c.input.text;
    while (!rest.empty()) {
      const auto end = std::min(rest.find('\n'), rest.size());
      const auto line = rest.substr(0, end);
      if (line.find_first_not_of(" \t") != std::string_view::npos && line[line.find_first_not_of(" \t")] == '.') one(plain(line));
      rest.remove_prefix(std::min(end + 1, rest.size()));
    }
  }
  sql_from_input(c);
}

// JavaScript for MongoDB.
void mongo_text(Context& c, const Word& word) {
  const std::string low = lower_case(word.text);
  for (const std::string_view call : {"dropdatabase(", ".drop(", "deletemany({})", "remove({})", "dropcollection(", "deletemany( {} )",
                                      "dropindexes(", "dropalluser", "dropuser(", "shutdownserver("})
    if (low.find(call) != std::string::npos)
      return c.report(call.find("shutdown") != std::string_view::npos ? Effect::process_control : Effect::database_destruction,
                      "drops or empties collections", {}, true);
  std::string flat;
  for (const char ch : low)
    if (ch != ' ' && ch != '\n' && ch != '\t') flat += ch;
  for (const std::string_view call : {"deletemany({})", "remove({})", "deletemany()", "updatemany({}"})
    if (flat.find(call) != std::string::npos)
      return c.report(Effect::database_destruction, "changes or deletes every document of a collection");
  c.code("node", word, "mongosh");
}

void mongo(Context& c) {
  static const Grammar grammar(
      "--eval=q -f,--file=f --host=_ --port=_ -u,--username=_ -p,--password=_ --authenticationDatabase=_ --quiet --norc --tls --ssl");
  const auto args = parse_arguments(c.words, 1, grammar);
  for (const auto& option : args.options) {
    if (!option.has_value || !option.spec) continue;
    if (static_cast<char>(option.spec->role) == 'q') mongo_text(c, option.value);
    else if (static_cast<char>(option.spec->role) == 'f') c.run_file(option.value, "node");
  }
  for (const auto& operand : args.operands)
    if (operand.text.ends_with(".js")) c.run_file(operand, "node");
  to_host(c, args.value("host"));
  if (c.input.text) mongo_text(c, plain(*c.input.text));
  c.output.local = true;
}

void redis_words(Context& c, const std::vector<Word>& words) {
  if (words.empty()) return;
  const std::string verb = lower_case(words.front().text), second = words.size() > 1 ? lower_case(words[1].text) : "";
  static const std::unordered_set<std::string> looks{"get",    "keys",    "scan",     "info",   "ping",     "ttl",    "exists",  "type",
                                                     "llen",   "lrange",  "hgetall",  "hget",   "smembers", "zrange", "dbsize",  "monitor",
                                                     "memory", "slowlog", "client",   "strlen", "mget",     "hkeys",  "command", "time",
                                                     "echo",   "latency", "lastsave", "role",   "select",   "auth",   "hello"};
  if (verb == "flushall" || verb == "flushdb" || verb == "swapdb") return c.report(Effect::database_destruction, "empties the database");
  if (verb == "shutdown" || (verb == "debug" && (second == "segfault" || second == "sleep")) || verb == "failover")
    return c.report(Effect::process_control, "stops the database");
  if (verb == "config" && second == "set") {
    const std::string key = words.size() > 2 ? lower_case(words[2].text) : "";
    if (key == "dir" || key == "dbfilename" || key == "logfile" || key == "rename-command" || key == "requirepass" ||
        key == "protected-mode" || key == "bind")
      return c.report(Effect::persistence, "changes where the database writes or who may use it", key);
    return c.report(Effect::change, "changes the database's settings");
  }
  if (verb == "slaveof" || verb == "replicaof" || verb == "migrate")
    return c.report(second == "no" ? Effect::change : Effect::exfiltration, "copies the database to or from another machine", second);
  if (verb == "module" && second == "load") return c.report(Effect::remote_code, "loads a library into the database");
  if (verb == "eval" || verb == "evalsha" || verb == "fcall") {
    if (words.size() > 1) {
      const std::string low = lower_case(words[1].text);
      if (low.find("flush") != std::string::npos) return c.report(Effect::database_destruction, "empties the database");
      c.code("lua", words[1], "redis");
    }
    return c.report(Effect::change, "runs a script in the database");
  }
  if (verb == "acl")
    return c.report(second == "setuser" || second == "deluser" ? Effect::privilege_escalation : Effect::list,
                    "changes who may use the database");
  if (verb == "del" || verb == "unlink") {
    if (c.command.appends_arguments || std::any_of(words.begin(), words.end(), [](const Word& w) { return !w.exact && w.substitution; }))
      return c.report(Effect::database_destruction, "deletes keys that are found at run time", {}, false);
    return c.report(Effect::change, "deletes a key");
  }
  if (verb == "save" || verb == "bgsave") return c.report(Effect::change, "saves the database");
  c.report(looks.contains(verb) ? Effect::query : Effect::change, "redis " + verb);
}

void redis(Context& c) {
  static const Grammar grammar(
      "-h=_ -p=_ -s=_ -a,--pass=_ -u=_ -n=_ -r=_ -i=_ -d=_ -D=_ -x -X=_ --user=_ --askpass --raw --no-raw --csv --json --pipe --scan "
      "--pattern=_ --bigkeys --eval=f --rdb=W --cluster=_ --stat --latency --tls --cacert=_ --cert=_ --key=_ --no-auth-warning -c -2 -3");
  const auto args = parse_arguments(c.words, 1, grammar, Order::posix);
  for (const auto& option : args.options)
    if (option.has_value && option.spec) {
      if (static_cast<char>(option.spec->role) == 'f') c.run_file(option.value, "lua");
      else c.apply(option.spec->role, option.value);
    }
  if (!args.operands.empty()) return redis_words(c, args.operands);
  if (c.input.text) {
    std::string_view rest = *c.input.text;
    while (!rest.empty()) {
      auto line = rest.substr(0, rest.find('\n'));
      rest.remove_prefix(std::min(line.size() + 1, rest.size()));
      std::vector<Word> words;
      while (!line.empty()) {
        const auto begin = line.find_first_not_of(" \t\r");
        if (begin == std::string_view::npos) break;
        line.remove_prefix(begin);
        const auto end = std::min(line.find_first_of(" \t\r"), line.size());
        words.push_back(plain(line.substr(0, end)));
        line.remove_prefix(end);
      }
      redis_words(c, words);
    }
    return;
  }
  c.report(Effect::query, "asks a database");
}

void drop(Context& c) {
  static const Grammar grammar(
      "-i,--interactive -h,--host=_ -p,--port=_ -U,--username=_ -w -W -e,--echo -f,--force --if-exists --maintenance-db=_");
  const auto args = parse_arguments(c.words, 1, grammar);
  c.report(Effect::database_destruction,
           c.program + " drops " + (args.operands.empty() ? std::string("a database") : args.operands.front().text),
           args.operands.empty() ? std::string{} : args.operands.front().text);
}

void admin(Context& c) {  // mysqladmin
  static const Grammar grammar("-h,--host=_ -P=_ -u,--user=_ -p?=_ -f,--force");
  const auto args = parse_arguments(c.words, 1, grammar);
  for (const auto& operand : args.operands) {
    if (operand.text == "drop") return c.report(Effect::database_destruction, "drops a database");
    if (operand.text == "shutdown" || operand.text == "kill") return c.report(Effect::process_control, "stops the database");
    if (operand.text == "password") return c.report(Effect::privilege_escalation, "changes the database's password");
    if (starts_with(operand.text, "flush")) return c.report(Effect::tampering, "empties the database's logs or tables in memory");
  }
  c.report(Effect::query, "asks a database server");
}

void dump(Context& c) {
  static const Grammar grammar(
      "-f,--file=W -r,--result-file=W -o,--out=W --archive?=W -h,--host=_ -p?=_ -P,--port=_ -U,-u,--username,--user=_ -d,--dbname,--db=_ "
      "-F,--format=_ -t,--table=_ -n=_ -j=_ -Z=_ -T,--tab=F --defaults-extra-file=R -c,--collection=_ --uri=_");
  const auto args = parse_arguments(c.words, 1, grammar);
  c.apply_options(args);
  c.output.local = true;
  c.report(Effect::query, "copies a database out");
}

void restore(Context& c) {
  static const Grammar grammar(
      "-c,--clean --drop -C,--create -d,--dbname,--db=_ -h,--host=_ -U,-u=_ -p?=_ -j=_ --if-exists --archive?=R --uri=_ -f=W -F=_ -t=_ "
      "-n=_");
  const auto args = parse_arguments(c.words, 1, grammar);
  c.apply_options(args);
  for (const auto& operand : args.operands) c.read(operand);
  if (args.any({"c", "drop"})) return c.report(Effect::database_destruction, "drops what it replaces");
  c.report(Effect::change, "loads a database");
}

void generic_verbs(Context& c) {
  for (std::size_t i = 1; i < c.words.size() && i < 4; ++i)
    if (c.words[i].text == "delete" || c.words[i].text == "drop")
      return c.report(Effect::database_destruction, c.program + " " + c.words[i].text);
}

void generic(Context& c) {  // sqlcmd, clickhouse-client, duckdb, cqlsh, …
  static const Grammar grammar(
      "-q,-Q,-e,--query,--execute,--command=q -c=q -f,--file,--queries-file,-i,--init=f -S,--host,-h=_ -U,-u,--user=_ -P,-p?=_ -d=_ -o=W "
      "--port=_ --password=_");
  const auto args = parse_arguments(c.words, 1, grammar);
  for (const auto& option : args.options) {
    if (!option.has_value || !option.spec) continue;
    const char role = static_cast<char>(option.spec->role);
    if (role == 'q') c.sql(option.value);
    else if (role == 'f') c.run_file(option.value, "sql");
    else c.apply(option.spec->role, option.value);
  }
  for (const auto& operand : args.operands)
    if (operand.text.find(' ') != std::string::npos) c.sql(operand);
  generic_verbs(c);
  sql_from_input(c);
  c.output.local = true;
  c.report(Effect::query, "asks a database");
}

constexpr auto programs = std::to_array<Named>({
    {"psql", psql},          {"pgcli", psql},           {"cockroach", psql},      {"mysql", mysql},
    {"mariadb", mysql},      {"mycli", mysql},          {"sqlite3", sqlite},      {"sqlite", sqlite},
    {"litecli", sqlite},     {"mongo", mongo},          {"mongosh", mongo},       {"redis-cli", redis},
    {"valkey-cli", redis},   {"keydb-cli", redis},      {"dropdb", drop},         {"dropuser", drop},
    {"mysqladmin", admin},   {"mariadb-admin", admin},  {"pg_dump", dump},        {"pg_dumpall", dump},
    {"mysqldump", dump},     {"mariadb-dump", dump},    {"mongodump", dump},      {"mongoexport", dump},
    {"pg_restore", restore}, {"mongorestore", restore}, {"mongoimport", restore}, {"sqlcmd", generic},
    {"osql", generic},       {"isql", generic},         {"sqlplus", generic},     {"clickhouse-client", generic},
    {"clickhouse", generic}, {"duckdb", generic},       {"cqlsh", generic},       {"snowsql", generic},
    {"trino", generic},      {"presto", generic},       {"influx", generic},      {"hive", generic},
    {"beeline", generic},    {"spark-sql", generic},    {"usql", generic},        {"cypher-shell", generic},
});

}  // namespace

std::span<const Named> database_programs() { return programs; }

}  // namespace hearth::safety
