#include "safety/tools.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <array>
#include <utility>

#include "base/json.h"
#include "base/utf8.h"
#include "safety/commands.h"
#include "safety/files.h"
#include "safety/paths.h"
#include "safety/shell.h"

namespace hearth::safety {
namespace {

constexpr int deepest_call = 4;                  // calls within calls
constexpr std::size_t most_observations = 8192;  // of one call; more is a problem
constexpr std::size_t longest_excerpt = 200;

std::string_view view(const json::string& text) { return {text.data(), text.size()}; }
std::string_view view(json::string_view text) { return {text.data(), text.size()}; }

bool one_of(std::string_view text, std::initializer_list<std::string_view> words) {
  return std::find(words.begin(), words.end(), text) != words.end();
}

std::string lowered(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
  return out;
}

// "browserFileUpload", "file-upload" → words.
std::vector<std::string> words_of(std::string_view name) {
  std::vector<std::string> out;
  bool fresh = true;
  for (std::size_t i = 0; i < name.size(); ++i) {
    const char c = name[i];
    const bool upper = c >= 'A' && c <= 'Z';
    if (c == '_' || c == '-' || c == ' ' || c == '.' || c == '/' || c == ':') {
      fresh = true;
      continue;
    }
    if (fresh || (upper && i > 0 && name[i - 1] >= 'a' && name[i - 1] <= 'z')) out.emplace_back();
    fresh = false;
    out.back() += upper ? static_cast<char>(c + 32) : c;
  }
  return out;
}

std::string quoted(std::string_view word) {
  std::string out = "'";
  for (const char c : word) {
    if (c == '\'') {
      out += "'\\''";
    } else {
      out += c;
    }
  }
  return out + "'";
}
// A word of an argument list. A program started from a list gets it as it is, but some tools join the list and hand it to a shell: what that would expand stays open.
std::string list_word(std::string_view word) {
  static constexpr std::string_view plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+=:,./@%~*?$";
  return !word.empty() && word.find_first_not_of(plain) == std::string_view::npos ? std::string(word) : quoted(word);
}

std::string cut(std::string_view text) {
  if (text.size() <= longest_excerpt) return std::string(text);
  return std::string(text.substr(0, utf8_complete_prefix(text.substr(0, longest_excerpt - 3)))) + "…";
}

std::string text_of(const json::value& value) {
  if (value.is_string()) return std::string(view(value.get_string()));
  std::string out;
  append_json(out, value);
  return out;
}

void collect(const json::value& value, std::vector<std::string>& out) {
  if (value.is_array()) {
    for (const auto& item : value.get_array()) collect(item, out);
  } else if (value.is_object()) {
    for (const auto& member : value.get_object()) collect(member.value(), out);
  } else if (!value.is_null()) {
    out.push_back(text_of(value));
  }
}
std::vector<std::string> texts(const std::vector<const json::value*>& values) {
  std::vector<std::string> out;
  for (const auto* value : values) collect(*value, out);
  return out;
}

// ---- What a name says about a tool -------------------------------------------------------------------------------------------------------------------

enum class Verb { none, reads, writes, removes, sends, runs };

Verb verb_of(std::string_view tool) {
  using Words = std::initializer_list<std::string_view>;
  static constexpr Words reads{
      "get",       "list",     "search",   "read",    "lookup",    "find",    "query",   "describe",  "show",    "view",      "check",
      "count",     "weather",  "status",   "info",    "help",      "calc",    "compute", "calculate", "convert", "translate", "summarize",
      "summarise", "fetch",    "retrieve", "load",    "inspect",   "explain", "analyze", "analyse",   "compare", "detect",    "classify",
      "validate",  "verify",   "resolve",  "suggest", "recommend", "browse",  "stat",    "stats",     "history", "forecast",  "recall",
      "ask",       "estimate", "parse",    "format",  "lint",      "preview", "print",   "time",      "date",    "version",   "ping",
      "is",        "has",      "exists",   "diff",    "log",       "tree",    "select",  "generate",  "random",  "echo"};
  // Words that are verbs wherever they stand; others ("order", "message", "script") are often what a tool reads.
  static constexpr Words runs{"run", "exec", "execute", "eval", "evaluate", "spawn", "invoke", "launch", "subprocess"};
  static constexpr Words removes{"delete", "remove", "drop", "destroy", "purge", "clear",     "wipe",  "truncate",
                                 "unlink", "erase",  "rm",   "rmdir",   "kill",  "terminate", "reset", "revoke"};
  static constexpr Words sends{"send", "publish", "notify", "upload", "submit", "pay", "buy", "deploy"};
  static constexpr Words writes{"write", "create", "save", "edit", "update", "append", "insert", "modify", "upsert", "rename", "mkdir"};
  static constexpr Words other_runs{"shell", "bash", "terminal", "command", "script", "system"};
  static constexpr Words other_sends{"post",  "email", "mail",   "share", "message", "tweet", "transfer",
                                     "order", "book",  "invite", "push",  "export",  "reply", "forward"};
  static constexpr Words other_writes{"put",     "set",     "replace", "move",  "copy",    "patch",     "add",    "install",
                                      "enable",  "disable", "start",   "stop",  "restart", "grant",     "assign", "merge",
                                      "approve", "close",   "cancel",  "apply", "import",  "configure", "change", "commit"};
  const auto words = words_of(own_name(tool));
  const auto any = [&words](const Words& verbs) {
    return std::any_of(words.begin(), words.end(), [&](const auto& word) { return one_of(word, verbs); });
  };
  const bool reads_first = !words.empty() && one_of(words.front(), reads);
  if (any(runs) || (!reads_first && any(other_runs))) return Verb::runs;
  if (any(removes)) return Verb::removes;
  if (any(sends) || (!reads_first && any(other_sends))) return Verb::sends;
  if (any(writes) || (!reads_first && any(other_writes))) return Verb::writes;
  return any(reads) ? Verb::reads : Verb::none;
}

// Names of arguments that carry prose: what they say is no command.
bool is_prose(std::string_view plain) {
  return one_of(plain, {"title",    "body",     "message", "description",  "text",       "content", "contents", "comment", "summary",
                        "note",     "notes",    "prompt",  "subject",      "question",   "reason",  "query",    "q",       "pattern",
                        "keyword",  "keywords", "term",    "search",       "searchterm", "name",    "label",    "labels",  "explanation",
                        "thought",  "answer",   "caption", "instructions", "topic",      "details", "tags",     "bio",     "reply",
                        "greeting", "feedback", "review",  "sentence",     "phrase"});
}
bool is_incidental(std::string_view plain) {
  return one_of(plain, {"timeout", "timeoutms", "timeoutseconds", "description", "explanation", "id", "sessionid", "session", "limit",
                        "offset", "background", "reason", "title", "verbose", "format", "maxoutput", "maxlength"});
}
bool is_shell_name(std::string_view plain) {
  return one_of(plain, {"command", "commands", "cmd", "cmds", "commandline", "shell", "shellcommand", "bash", "sh", "script", "exec",
                        "execute", "run", "bashcommand", "terminal", "argv"});
}
bool is_code_name(std::string_view plain) {
  return one_of(plain, {"code", "python", "pythoncode", "javascript", "js", "source", "sourcecode", "program", "expression", "snippet"});
}
bool is_path_name(std::string_view plain) {
  return one_of(plain, {"path",      "paths",    "file",      "files",      "filename",    "filepath",  "filepaths",   "dir",
                        "directory", "folder",   "target",    "targetfile", "destination", "source",    "src",         "dest",
                        "dst",       "location", "inputfile", "outputfile", "outputpath",  "inputpath", "absolutepath"});
}
bool is_url_name(std::string_view plain) {
  return one_of(plain, {"url", "uri", "href", "endpoint", "webhook", "webhookurl", "link", "callback", "callbackurl"});
}
bool is_sql_name(std::string_view plain) { return one_of(plain, {"sql", "statement", "statements", "sqlquery"}); }

bool looks_like_url(std::string_view text) {
  const auto colon = text.find("://");
  return colon != std::string_view::npos && colon > 0 && colon < 16 && text.find_first_of(" \n\t") == std::string_view::npos;
}
bool looks_like_path(std::string_view text) {
  if (text.empty() || text.size() > 4096 || text.find_first_of("\n\t") != std::string_view::npos || looks_like_url(text)) return false;
  const bool rooted = text[0] == '/' || text.starts_with("~") || text.starts_with("./") || text.starts_with("../") ||
                      text.starts_with("$HOME") || text.starts_with("${HOME}");
  return rooted && text.find(' ') == std::string_view::npos;
}
bool looks_like_sql(std::string_view text) {
  const auto begin = text.find_first_not_of(" \t\r\n(;");
  if (begin == std::string_view::npos) return false;
  const std::string start = lowered(text.substr(begin, 200));
  const auto first = std::string_view(start).substr(0, start.find_first_of(" \t\r\n(/"));
  const auto has = [&start](std::string_view word) { return start.find(word) != std::string::npos; };
  if (one_of(first, {"drop", "truncate", "alter", "create", "grant", "revoke"}))
    return has("table") || has("database") || has("schema") || has("user") || has("index") || has("view") || has("role") || has(" on ") ||
           first == "truncate";
  if (first == "select" || first == "with" || first == "delete") return has("from") || first == "select";
  if (first == "insert" || first == "replace" || first == "merge") return has("into");
  if (first == "update") return has(" set ") || has("\nset ");
  return first == "--" || first == "exec" || first == "pragma" || first == "attach" || (first == "copy" && (has("from") || has(" to ")));
}

// What the client says about a tool, where its name says nothing.
struct Hints {
  bool shell = false;
  bool sql = false;
  bool code = false;
};
Hints hints_of(const Call& call) {
  constexpr std::size_t most = 8192;
  const std::string said =
      lowered(std::string_view(call.description).substr(0, most)) + "\n" + lowered(std::string_view(call.parameters).substr(0, most));
  const auto has = [&said](std::string_view word) { return said.find(word) != std::string::npos; };
  return {.shell = has("shell command") || has("bash") || has("terminal") || has("command line") || has("command-line") ||
                   has("execute a command") || has("execute command") || has("run a command") || has("run command") ||
                   has("runs a command") || has("executes a command") || has("powershell") || has("a shell") || has("/bin/sh") ||
                   has("system command"),
          .sql = has("sql"),
          .code = has("python code") || has("execute code") || has("executes code") || has("run code") || has("runs code") ||
                  has("javascript code") || has("run python") || has("execute python")};
}

// ---- The assessment of one call ----------------------------------------------------------------------------------------------------------------------

class Assessor {
 public:
  // `written` collects the files whose content becomes known; null: nobody asks.
  Assessor(const Action& action, const ToolTable& tools, Assessment& out, std::map<std::string, std::string>* written = nullptr)
      : action_(action), tools_(tools), out_(out), written_(written) {}

  // `described` says what the client told of the tool, where that is known.
  void assess(std::string_view name, const json::object& arguments, const Call* described, int depth) {
    name_ = name;
    depth_ = depth;
    const std::size_t before = out_.observations.size();
    const auto* entry = tools_.find(name);
    if (entry == nullptr || (entry->arguments.empty() && entry->effects.empty() && entry->command.empty())) {
      unknown(arguments, described);
    } else {
      known(*entry, arguments);
    }
    if (out_.problem.empty() && out_.observations.size() == before)
      observe(Effect::compute, "", std::string(name), "does nothing outside of itself");
    if (out_.observations.size() > most_observations)
      out_.problem = fmt::format("the call does more than {} things at once; split it", most_observations);
  }

 private:
  using Values = std::vector<const json::value*>;
  struct Uses {
    std::vector<std::pair<Use, Values>> values;
    std::vector<std::pair<std::string, const json::value*>> shell, words, unlisted;  // with their names
    std::vector<std::pair<std::string, const json::value*>> code;                    // with their languages
    const Values& operator[](Use use) const {
      static const Values none;
      for (const auto& [one, list] : values) {
        if (one == use) return list;
      }
      return none;
    }
    void add(Use use, const json::value& value) {
      for (auto& [one, list] : values) {
        if (one == use) {
          list.push_back(&value);
          return;
        }
      }
      values.push_back({use, {&value}});
    }
  };

  // -- Recording

  void observe(Effect effect, std::string target, std::string_view excerpt, std::string reason, bool certain = true) {
    out_.observations.push_back({.effect = effect,
                                 .certain = certain,
                                 .target = std::move(target),
                                 .program = std::string(own_name(name_)),
                                 .excerpt = cut(excerpt),
                                 .reason = std::move(reason)});
  }
  // `only_danger`: an interpretation that may be wrong counts only where it is dangerous.
  void take(Assessment assessment, bool only_danger, std::string_view reason = {}) {
    for (auto& observation : assessment.observations) {
      if (only_danger && (!is_dangerous(observation.effect) || !observation.certain)) continue;
      if (!reason.empty()) observation.reason = fmt::format("{}: {}", reason, observation.reason);
      out_.observations.push_back(std::move(observation));
    }
  }
  // The effects of the command that does the same, told as this tool's.
  void as_command(std::vector<std::string> words, std::string_view excerpt, const std::string* written = nullptr) {
    Script script;
    Command command;
    for (auto& word : words) {
      Word one;
      one.glob = word.find_first_of("*?[") != std::string::npos && !looks_like_url(word);
      one.exact = word.find("\xEF\xBF\xBD") == std::string::npos;
      one.text = std::move(word);
      one.quoted = !one.glob;
      command.words.push_back(std::move(one));
    }
    if (written != nullptr) command.redirects.push_back({.kind = Redirect::Kind::write, .target = {.text = *written, .quoted = true}});
    command.folder = action_.where.working_folder;
    command.excerpt = cut(excerpt);
    script.commands.push_back(std::move(command));
    auto assessment = assess_script(script, action_);
    if (!assessment.problem.empty() && out_.problem.empty()) out_.problem = std::move(assessment.problem);
    for (auto& observation : assessment.observations) {
      if (written != nullptr && observation.effect == Effect::compute) continue;  // of ":", the command that writes nothing
      observation.program = own_name(name_);
      observation.excerpt = cut(excerpt);
      out_.observations.push_back(std::move(observation));
    }
  }

  // -- Uses

  void shell(const std::string& text, std::string_view prefix, bool must_parse, bool only_danger) {
    if (text.find_first_not_of(" \t\r\n") == std::string::npos) return;
    const std::string whole = std::string(prefix) + text;
    if (written_ != nullptr && must_parse) {
      if (auto script = parse_shell(whole, action_); script.ok()) {
        for (auto& [file, content] : script->written) (*written_)[file] = std::move(content);
      }
    }
    auto assessment = assess_shell(whole, action_);
    if (!assessment.problem.empty()) {
      if (must_parse && out_.problem.empty()) out_.problem = std::move(assessment.problem);
      return;
    }
    out_.folded += assessment.folded;
    take(std::move(assessment), only_danger);
    if (whole.find("apply_patch") == std::string::npos && whole.find("applypatch") == std::string::npos) return;
    // The patch is an argument or a here-document.
    const auto script = parse_shell(whole, action_);
    if (!script.ok()) return;
    for (const auto& one : script->commands) {
      if (one.words.empty()) continue;
      const auto program = one.words[0].text.substr(one.words[0].text.rfind('/') + 1);
      if (program != "apply_patch" && program != "applypatch") continue;
      std::string patch;
      for (std::size_t i = 1; i < one.words.size(); ++i) patch += one.words[i].text + "\n";
      for (const auto& redirect : one.redirects) patch += redirect.body;
      patches(patch, {});
    }
  }
  void shell_list(const json::array& list, const std::string& name, std::string_view prefix) {
    std::vector<std::string> words;
    bool flat = true;
    for (const auto& item : list) flat = flat && !item.is_array() && !item.is_object();
    if (!flat) {  // a list of commands
      for (const auto& item : list) shell_value(item, name, prefix);
      return;
    }
    for (const auto& item : list) collect(item, words);
    std::string joined, lines;
    bool sentences = false;
    for (const auto& word : words) {
      joined += (joined.empty() ? "" : " ") + list_word(word);
      lines += word + "\n";
      sentences = sentences || word.find(' ') != std::string::npos;
    }
    // "commands": ["cd x", "make"] are commands; ["grep", "-r", "rm -rf /"] is one.
    const bool many = sentences && (name.ends_with("s") || words.front().find(' ') != std::string::npos);
    shell(many ? lines : joined, prefix, true, false);
  }
  void shell_value(const json::value& value, const std::string& name, std::string_view prefix) {
    if (value.is_string()) {
      shell(std::string(view(value.get_string())), prefix, true, false);
    } else if (value.is_array()) {
      shell_list(value.get_array(), name, prefix);
    } else if (value.is_object()) {
      for (const auto& member : value.get_object()) shell_value(member.value(), plain_name(view(member.key())), prefix);
    } else {
      observe(Effect::unknown, "", text_of(value), fmt::format("the argument {} is no text, so it cannot be told what it runs", name),
              false);
    }
  }
  static bool is_arguments(std::string_view name) { return one_of(name, {"args", "argv", "arguments", "commandargs", "parameters"}); }

  // A program and its arguments in separate fields belong together.
  void shells(const Uses& uses) {
    std::string prefix;
    for (const auto* value : uses[Use::environment]) {
      if (value->is_object()) {
        for (const auto& member : value->get_object())
          prefix += fmt::format("export {}={}\n", view(member.key()), quoted(text_of(member.value())));
      } else {
        for (const auto& text : texts({value})) {
          if (text.find('=') != std::string::npos)
            prefix += fmt::format("export {}={}\n", text.substr(0, text.find('=')), quoted(text.substr(text.find('=') + 1)));
        }
      }
    }
    for (const auto& folder : texts(uses[Use::folder])) {
      if (!folder.empty() && folder != "." && folder != action_.where.working_folder)
        prefix += "cd " + quoted(canonical_path(folder, action_.where)) + "\n";
    }
    if (prefix.find('\0') != std::string::npos) prefix = "\xEF\xBF\xBD\n";
    std::string program, rest;
    for (const auto& [name, value] : uses.shell) {
      if (is_arguments(name)) {
        if (value->is_string()) {
          rest += " " + std::string(view(value->get_string()));
        } else {
          for (const auto& word : texts({value})) rest += " " + list_word(word);
        }
      } else if (value->is_string() && program.empty()) {
        program = view(value->get_string());
      }
    }
    const bool joined = !rest.empty() && !program.empty();
    if (joined) shell(program + rest, prefix, true, false);
    if (!rest.empty() && program.empty()) shell(rest.substr(1), prefix, true, false);
    for (const auto& [name, value] : uses.shell) {
      if (is_arguments(name) || (joined && value->is_string() && program == view(value->get_string()))) continue;
      shell_value(*value, name, prefix);
    }
    if (uses.shell.empty() && !prefix.empty() && !uses[Use::environment].empty()) shell(prefix, "", false, true);
  }

  void path(std::string_view program, std::string_view path, std::string_view option = {}) {
    if (path.empty()) return;
    std::vector<std::string> words{std::string(program)};
    if (!option.empty()) words.emplace_back(option);
    if (program == "grep") words.insert(words.end(), {"-e", "x"});
    words.emplace_back("--");
    words.push_back(canonical_path(path, action_.where));
    as_command(std::move(words), fmt::format("{} {}", own_name(name_), path));
  }
  // `partial`: what is known of the file already stays in it.
  void writes(const std::string& to, const std::vector<std::string>& contents, bool partial) {
    if (to.empty()) return;
    const std::string canonical = canonical_path(to, action_.where);
    const std::string excerpt = fmt::format("{} {}", own_name(name_), to);
    as_command({":"}, excerpt, &canonical);
    for (const auto& content : contents) take(assess_file(canonical, content, action_), false);
    if (written_ == nullptr || contents.empty()) return;
    std::string whole;
    if (const auto known = action_.written_files.find(canonical); partial && known != action_.written_files.end()) whole = known->second;
    for (const auto& content : contents) whole += (whole.empty() || whole.ends_with('\n') ? "" : "\n") + content;
    if (whole.size() <= longest_script) (*written_)[canonical] = std::move(whole);
  }
  void patches(std::string_view text, const std::vector<std::string>& named) {
    const auto changes = read_patch(text);
    if (changes.empty() && named.empty()) {
      observe(Effect::unknown, "", text, "names no file that the patch changes", false);
      return;
    }
    for (const auto& change : changes) {
      if (change.removed) {
        path("rm", change.path);
      } else {
        writes(change.path, {change.added}, true);
      }
      if (!change.moved_to.empty()) {
        path("rm", change.path);
        writes(change.moved_to, {change.added}, true);
      }
    }
  }

  void network(const Uses& uses) {
    const auto urls = texts(uses[Use::url]);
    std::string method;
    for (const auto& text : texts(uses[Use::method])) method = lowered(text);
    const bool reads = method == "get" || method == "head" || method == "options";
    std::string body;
    for (const auto* value : uses[Use::body]) {
      if (!value->is_null()) body += text_of(*value);
    }
    for (const auto& url : urls) {
      if (url.empty() || url.starts_with("about:")) continue;
      const std::string excerpt = fmt::format("{} {}", own_name(name_), url);
      if (lowered(url).starts_with("javascript:")) {
        browser_code(url.substr(11));
        continue;
      }
      if (const auto scheme = lowered(url.substr(0, 5)); scheme == "file:") {
        path("cat", url);
        continue;
      }
      std::vector<std::string> words{"curl", "-sS"};
      if (!method.empty() && method != "get") {
        std::string upper = method;
        for (char& c : upper) c = c >= 'a' && c <= 'z' ? static_cast<char>(c - 32) : c;
        words.insert(words.end(), {"-X", upper});
      }
      if (!body.empty() && !reads) words.insert(words.end(), {"--data-raw", body});
      words.push_back(url);
      as_command(std::move(words), excerpt);
      if (!method.empty() && !reads && method != "post") observe(Effect::change, url, excerpt, fmt::format("changes what is at {}", url));
    }
    if (urls.empty() && !uses[Use::attachment].empty()) return;
  }
  void attachments(const Uses& uses) {
    for (const auto& file : texts(uses[Use::attachment])) {
      if (file.empty()) continue;
      path("cat", file);
      observe(Effect::exfiltration, canonical_path(file, action_.where), fmt::format("{} {}", own_name(name_), file),
              fmt::format("sends the file {} away", file));
    }
  }

  // JavaScript within a page: it has no files, but it sees what the user is logged in to.
  void browser_code(std::string_view text) {
    const auto has = [text](std::string_view word) { return text.find(word) != std::string_view::npos; };
    observe(Effect::execute, "", text, "runs JavaScript in a page");
    const bool secrets = has("document.cookie") || has("localStorage") || has("sessionStorage") || has("indexedDB") || has("cookieStore") ||
                         has("credentials.get");
    const bool sends = has("fetch(") || has("XMLHttpRequest") || has("sendBeacon") || has("WebSocket") || has("new Image") ||
                       has(".src=") || has(".src =") || has("location.href=") || has("location=") || has(".submit(");
    if (secrets) observe(Effect::credential_access, "", text, "reads cookies or stored secrets of a page");
    if (secrets && sends) observe(Effect::exfiltration, "", text, "sends cookies or stored secrets of a page away");
    if (has("eval(") && (has("atob(") || has("fetch("))) observe(Effect::remote_code, "", text, "runs code that was fetched or decoded");
  }
  // Notebooks hand "!ls" and cells that begin with "%%bash" to a shell.
  void notebook_commands(std::string_view text) {
    const auto begin = text.find_first_not_of(" \t\r\n");
    if (begin == std::string_view::npos) return;
    for (const std::string_view mark : {"%%bash", "%%sh", "%%script", "%%system", "%%!"}) {
      if (text.substr(begin).starts_with(mark))
        return shell(std::string(text.substr(std::min(text.find('\n', begin), text.size()))), "", true, false);
    }
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t end = std::min(text.find('\n', at), text.size());
      auto line = text.substr(at, end - at);
      line.remove_prefix(std::min(line.find_first_not_of(" \t"), line.size()));
      if (const auto call = line.find("= !"); call != std::string_view::npos) line.remove_prefix(call + 2);
      for (const std::string_view mark : {"!!", "!", "%sx ", "%system ", "%bash "}) {
        if (!line.starts_with(mark)) continue;
        shell(std::string(line.substr(mark.size())), "", false, false);
        break;
      }
      at = end + 1;
    }
  }
  void code(const std::string& text, std::string language) {
    if (text.find_first_not_of(" \t\r\n") == std::string::npos) return;
    language = lowered(language);
    if (language == "browser") return browser_code(text);
    if (one_of(language, {"bash", "sh", "shell", "zsh", "terminal", "powershell", "cmd"})) return shell(text, "", true, false);
    if (language.starts_with("python") || one_of(language, {"py", "ipython", "jupyter", "py3"})) language = "python";
    if (one_of(language, {"js", "javascript", "ts", "typescript", "nodejs", "deno", "bun"})) language = "node";
    if (one_of(language, {"rb"})) language = "ruby";
    if (one_of(language, {"pl"})) language = "perl";
    if (one_of(language, {"postgres", "postgresql", "mysql", "sqlite"})) language = "sql";
    if (one_of(language, {"python", "perl", "ruby", "node", "php", "awk", "sql"})) {
      if (language == "python") notebook_commands(text);
      auto assessment = assess_code(language, text, action_);
      if (!assessment.problem.empty() && out_.problem.empty()) out_.problem = std::move(assessment.problem);
      return take(std::move(assessment), false);
    }
    // A language nobody here reads: what the others recognise counts, and the rest cannot be told.
    for (const std::string_view other : {"python", "node"}) take(assess_code(other, text, action_), true);
    observe(Effect::unknown, "", text,
            fmt::format("runs {} code, which is not understood", language.empty() ? std::string("some") : language), false);
  }

  // Tools of a program's own words: git_push {"force": true} is `git push --force`.
  void command(const ToolEntry& entry, const Uses& uses) {
    std::vector<std::string> words;
    for (std::size_t at = 0; at < entry.command.size();) {
      const std::size_t end = std::min(entry.command.find(' ', at), entry.command.size());
      if (end > at) words.push_back(entry.command.substr(at, end - at));
      at = end + 1;
    }
    if (words.size() == 1 && (words[0] == "git" || words[0] == "kubectl" || words[0] == "docker")) {
      auto named = words_of(own_name(name_));
      if (!named.empty()) named.erase(named.begin());
      static constexpr std::array<std::pair<std::string_view, std::string_view>, 6> options{
          {{"force", "--force"}, {"hard", "--hard"}, {"staged", "--staged"}, {"unstaged", ""}, {"all", "--all"}, {"file", ""}}};
      std::vector<std::string> flags;
      bool removes = false;
      for (auto& word : named) {
        const auto found = std::find_if(options.begin(), options.end(), [&](const auto& option) { return option.first == word; });
        if (found != options.end()) {
          if (!found->second.empty()) flags.emplace_back(found->second);
        } else if ((word == "delete" || word == "remove") && named.size() > 1 && words[0] == "git") {
          removes = true;
        } else if (!one_of(word, {"create", "list", "generic", "new", "in"}) || words[0] != "git") {
          if (words[0] == "git" && word == "branches") word = "branch";
          if (words[0] == "git" && word == "tags") word = "tag";
          words.push_back(std::move(word));
        }
      }
      if (removes) flags.emplace_back(words.size() > 1 && words[1] == "tag" ? "-d" : "-D");
      words.insert(words.end(), flags.begin(), flags.end());
    }
    std::vector<std::string> places, last;  // what stands behind all options; a container's own command
    for (const auto& [key, value] : uses.words) {
      const std::string plain = plain_name(key);
      if (plain == "command" || plain == "cmd" || is_arguments(plain)) {
        std::vector<std::string> list;
        if (value->is_string()) {
          const std::string text(view(value->get_string()));
          for (std::size_t at = 0; at < text.size();) {
            const std::size_t end = std::min(text.find(' ', at), text.size());
            if (end > at) list.push_back(text.substr(at, end - at));
            at = end + 1;
          }
        } else {
          collect(*value, list);
        }
        if (!list.empty() && !words.empty() && list.front() == words.front()) list.erase(list.begin());
        auto& to = entry.command.starts_with("docker") ? last : words;
        to.insert(to.end(), list.begin(), list.end());
        continue;
      }
      std::string option = "--";
      for (const char c : key) option += c == '_' ? '-' : c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
      if (plain == "networkmode") option = "--network";
      if (plain == "pidmode") option = "--pid";
      if (value->is_bool()) {
        if (value->get_bool()) words.push_back(option);
      } else if (one_of(plain, {"volumes", "volume", "binds", "mounts", "mount"})) {
        const auto pairs = [&](const json::value& one) {
          if (!one.is_object()) return;
          for (const auto& member : one.get_object())
            words.insert(words.end(), {"-v", fmt::format("{}:{}", view(member.key()), text_of(member.value()))});
        };
        pairs(*value);
        if (!value->is_object()) {
          for (const auto& text : texts({value})) words.insert(words.end(), {"-v", text});
        }
      } else if (one_of(plain, {"network", "networkmode", "pid", "pidmode", "ipc", "capadd", "device", "devices", "securityopt", "user",
                                "namespace", "userns"})) {
        for (const auto& text : texts({value})) words.push_back(fmt::format("{}={}", option, text));
      } else if (one_of(plain, {"environment", "env", "ports", "labels", "detach", "timeout"})) {
        continue;
      } else {
        const auto list = texts({value});
        places.insert(places.end(), list.begin(), list.end());
      }
    }
    words.insert(words.end(), places.begin(), places.end());
    words.insert(words.end(), last.begin(), last.end());
    std::string excerpt;
    for (const auto& word : words) excerpt += (excerpt.empty() ? "" : " ") + word;
    std::string prefix;
    for (const auto& folder : texts(uses[Use::folder])) {
      if (!folder.empty() && folder != ".") prefix += "cd " + quoted(canonical_path(folder, action_.where)) + "\n";
    }
    std::string text;
    for (const auto& word : words) text += (text.empty() ? "" : " ") + list_word(word);
    shell(text, prefix, true, false);
    for (const auto& manifest : texts(uses[Use::content])) {
      for (const std::string_view mark : {"privileged: true", "hostPID: true", "hostNetwork: true", "hostIPC: true",
                                          "hostPath:", "\"privileged\": true", "\"hostPath\""}) {
        if (manifest.find(mark) != std::string::npos) {
          observe(Effect::container_escape, "", mark, fmt::format("the manifest asks for the host: {}", mark));
          break;
        }
      }
    }
  }

  // -- Known tools

  static const ToolEntry::Argument* match(const ToolEntry& entry, std::string_view plain) {
    for (const auto& argument : entry.arguments) {
      if (argument.name == plain || argument.name == "*" ||
          (argument.name.find_first_of("*?[") != std::string::npos && glob_match(argument.name, plain)))
        return &argument;
    }
    return nullptr;
  }
  // `within`: the use of the argument that `object` is part of.
  void gather(const ToolEntry& entry, const json::object& object, const ToolEntry::Argument* within, Uses& uses) {
    for (const auto& member : object) {
      const std::string key(view(member.key())), plain = plain_name(key);
      const auto* argument = match(entry, plain);
      if (within != nullptr && (argument == nullptr || argument->name == "*")) argument = within;
      if (argument == nullptr) {
        // A wrapper around arguments that have names of their own.
        const auto& value = member.value();
        if (value.is_object()) {
          gather(entry, value.get_object(), nullptr, uses);
        } else if (value.is_array() && !value.get_array().empty() && value.get_array()[0].is_object()) {
          for (const auto& item : value.get_array()) {
            if (item.is_object()) {
              gather(entry, item.get_object(), nullptr, uses);
            } else {
              uses.unlisted.emplace_back(key, &item);
            }
          }
        } else {
          uses.unlisted.emplace_back(key, &value);
        }
        continue;
      }
      place(entry, *argument, key, member.value(), uses);
    }
  }
  void place(const ToolEntry& entry, const ToolEntry::Argument& argument, const std::string& key, const json::value& value, Uses& uses) {
    const Use use = argument.use;
    // What is built of objects is read by its parts: {"edits": [{"path": …, "new_text": …}]}.
    const bool whole = use == Use::data || use == Use::words || use == Use::environment || use == Use::call || use == Use::body;
    if (!whole && value.is_object()) return gather(entry, value.get_object(), &argument, uses);
    if (!whole && value.is_array() &&
        std::any_of(value.get_array().begin(), value.get_array().end(), [](const auto& item) { return item.is_object(); })) {
      for (const auto& item : value.get_array()) place(entry, argument, key, item, uses);
      return;
    }
    if (use == Use::shell) {
      uses.shell.emplace_back(plain_name(key), &value);
    } else if (use == Use::words || use == Use::call) {
      uses.words.emplace_back(key, &value);
    } else if (use == Use::code) {
      uses.code.emplace_back(argument.language, &value);
    }
    uses.add(use, value);
  }

  void known(const ToolEntry& entry, const json::object& arguments) {
    Uses uses;
    gather(entry, arguments, nullptr, uses);
    const std::size_t before = out_.observations.size();
    if (!entry.command.empty() && !uses.words.empty()) {
      command(entry, uses);
    } else if (!entry.command.empty() && uses[Use::source_path].empty()) {
      command(entry, uses);
    }
    if (!uses[Use::call].empty()) nested(arguments, 0);
    shells(uses);
    std::string language;
    for (const auto& text : texts(uses[Use::language])) language = text;
    for (const auto& [own, value] : uses.code) {
      for (const auto& text : texts({value})) code(text, language.empty() ? own : language);
    }
    for (const auto& text : texts(uses[Use::sql])) take_sql(text);
    files(entry, uses);
    network(uses);
    attachments(uses);
    const bool executes = std::find(entry.effects.begin(), entry.effects.end(), Effect::execute) != entry.effects.end();
    for (const auto& [key, value] : uses.unlisted) sniff(key, *value, executes ? Verb::runs : Verb::none, {}, true);
    for (const auto effect : entry.effects) {
      // What the arguments told more exactly is not said twice.
      const bool told = std::any_of(out_.observations.begin() + static_cast<std::ptrdiff_t>(before), out_.observations.end(),
                                    [effect](const auto& o) { return o.effect == effect; });
      if (!told && !(effect == Effect::fetch && out_.observations.size() > before) && !(effect == Effect::query && !uses[Use::sql].empty()))
        observe(effect, "", summary(arguments), fmt::format("{} is known to do so", own_name(name_)));
    }
  }
  void take_sql(const std::string& text) {
    if (text.find_first_not_of(" \t\r\n;") == std::string::npos) return;
    auto assessment = assess_code("sql", text, action_);
    if (!assessment.problem.empty() && out_.problem.empty()) out_.problem = std::move(assessment.problem);
    take(std::move(assessment), false);
  }

  void files(const ToolEntry& entry, const Uses& uses) {
    const auto to = texts(uses[Use::write_path]);
    const auto from = texts(uses[Use::source_path]);
    for (const auto& one : texts(uses[Use::read_path])) path("cat", one);
    for (const auto& one : texts(uses[Use::list_path])) path("ls", one);
    for (const auto& one : texts(uses[Use::search_path])) path("grep", one, "-r");
    for (const auto& one : texts(uses[Use::remove_path])) path("rm", one, "-r");
    if (!from.empty()) {
      for (const auto& source : from) {
        for (const auto& target : to.empty() ? std::vector<std::string>{"."} : to) {
          std::vector<std::string> words;
          for (const auto& word : words_of(entry.command.empty() ? "cp" : entry.command.substr(0, 2))) words.push_back(word);
          if (words.front() == "ln") words.emplace_back("-s");
          if (words.front() == "cp") words.emplace_back("-r");
          words.insert(words.end(), {"--", canonical_path(source, action_.where), canonical_path(target, action_.where)});
          as_command(std::move(words), fmt::format("{} {} {}", own_name(name_), source, target));
        }
      }
      return;
    }
    std::string operation;
    for (const auto& text : texts(uses[Use::operation])) operation = plain_name(text);
    const auto contents = texts(uses[Use::content]);
    for (const auto& text : texts(uses[Use::patch])) patches(text, to);
    const auto in_name = [&entry](std::string_view part) { return entry.name.find(part) != std::string::npos; };
    const bool partial = (!operation.empty() && !one_of(operation, {"create", "write", "save", "overwrite"})) || in_name("edit") ||
                         in_name("replace") || in_name("insert") || in_name("append") || in_name("diff") || in_name("patch") ||
                         in_name("modify") || in_name("update") || in_name("apply");
    for (const auto& one : to) {
      if (one_of(operation, {"view", "read", "cat", "show", "list", "ls", "get", "open", "search", "find"})) {
        path("cat", one);
      } else if (one_of(operation, {"delete", "remove", "rm", "unlink"})) {
        path("rm", one, "-r");
      } else if (operation.empty() || one_of(operation, {"create", "write", "strreplace", "insert", "append", "edit", "update", "undoedit",
                                                         "replace", "save", "overwrite", "modify", "rename", "move"})) {
        writes(one, contents, partial);
      } else {
        writes(one, contents, partial);
        observe(Effect::unknown, "", operation, fmt::format("\"{}\" is no operation that is known of {}", operation, own_name(name_)),
                false);
      }
    }
  }

  // -- Calls within calls

  static const json::value* member(const json::object& object, std::initializer_list<std::string_view> names) {
    for (const auto wanted : names) {
      for (const auto& one : object) {
        if (plain_name(view(one.key())) == wanted) return &one.value();
      }
    }
    return nullptr;
  }
  // Whether a call was found in `value`; what it does is added.
  bool inner(const json::object& object) {
    const auto* called = member(object, {"toolname", "tool", "recipientname", "function", "name", "action"});
    if (called != nullptr && called->is_object()) return inner(called->get_object());
    const auto* given =
        member(object, {"arguments", "parameters", "args", "params", "input", "toolinput", "toolarguments", "toolargs", "payload"});
    if (called == nullptr || !called->is_string()) return false;
    if (depth_ + 1 > deepest_call) {
      if (out_.problem.empty()) out_.problem = fmt::format("calls are nested deeper than {}", deepest_call);
      return true;
    }
    json::object none;
    const json::object* arguments = &none;
    json::value parsed;
    if (given != nullptr && given->is_object()) {
      arguments = &given->get_object();
    } else if (given != nullptr && given->is_string()) {
      auto read = parse_json(view(given->get_string()));
      if (!read.ok() || !read->is_object()) {
        if (out_.problem.empty()) out_.problem = "the arguments of the call within the call are not one JSON object";
        return true;
      }
      parsed = std::move(*read);
      arguments = &parsed.get_object();
    } else {
      // {"tool": "bash", "command": "ls"}: the arguments stand beside the name.
      for (const auto& one : object) {
        if (&one.value() != called) none[one.key()] = one.value();
      }
    }
    Assessor(action_, tools_, out_, written_).assess(view(called->get_string()), *arguments, nullptr, depth_ + 1);
    return true;
  }
  void nested(const json::object& object, int level) {
    if (inner(object)) return;
    bool found = false;
    for (const auto& one : object) {
      if (level < 3 && one.value().is_object()) {
        nested(one.value().get_object(), level + 1);
        found = true;
      } else if (one.value().is_array()) {
        for (const auto& item : one.value().get_array()) {
          if (item.is_object()) nested(item.get_object(), level + 1);
          found = true;
        }
      }
    }
    if (!found) observe(Effect::unknown, "", summary(object), "calls another tool, and does not say which", false);
  }

  // -- Tools that nobody knows

  std::string summary(const json::object& arguments) const {
    std::string out(own_name(name_));
    for (const auto& one : arguments) {
      if (out.size() > longest_excerpt) break;
      out += " " + text_of(one.value()).substr(0, longest_excerpt);
    }
    return out;
  }

  // Judges a value as what it looks like. Returns whether that says all there is to say.
  bool sniff(const std::string& key, const json::value& value, Verb verb, const Hints& hints, bool only_danger, int level = 0) {
    const std::string plain = plain_name(key);
    if (level > 8) return false;
    if (value.is_object()) {
      bool all = true;
      for (const auto& one : value.get_object())
        all = sniff(std::string(view(one.key())), one.value(), verb, hints, only_danger, level + 1) && all;
      return all;
    }
    if (value.is_array()) {
      const auto& list = value.get_array();
      const bool strings = !list.empty() && std::all_of(list.begin(), list.end(), [](const auto& item) { return item.is_string(); });
      if (strings && !is_prose(plain)) {
        if ((is_shell_name(plain) || hints.shell || verb == Verb::runs) && !only_danger) {
          shell_list(list, plain, "");
          return true;
        }
        std::string joined;
        for (const auto& item : list) joined += (joined.empty() ? "" : " ") + list_word(view(item.get_string()));
        shell(joined, "", false, true);
      }
      bool all = true;
      for (const auto& item : list) all = sniff(key, item, verb, hints, only_danger, level + 1) && all;
      return all;
    }
    if (!value.is_string()) return true;
    const std::string text(view(value.get_string()));
    if (text.empty()) return true;
    // JSON within a string.
    if (const auto begin = text.find_first_not_of(" \t\r\n"); begin != std::string::npos && (text[begin] == '{' || text[begin] == '[')) {
      if (const auto inside = parse_json(text); inside.ok() && (inside->is_object() || inside->is_array()))
        return sniff(key, *inside, verb, hints, only_danger, level + 1);
    }
    if (is_shell_name(plain) || (hints.shell && !is_incidental(plain) && !looks_like_url(text))) {
      const bool surely = hints.shell || verb == Verb::runs;
      shell(text, "", surely && !only_danger, only_danger);
      return surely;
    }
    if (is_code_name(plain) || (hints.code && !is_incidental(plain) && !looks_like_path(text))) {
      take(assess_code(plain == "javascript" || plain == "js" ? "node" : "python", text, action_), only_danger);
      shell(text, "", false, true);
      return verb == Verb::runs && hints.code;
    }
    if (is_sql_name(plain) || looks_like_sql(text)) {
      take(assess_code("sql", text, action_), only_danger);
      return true;
    }
    if (looks_like_url(text) ||
        (is_url_name(plain) && text.find_first_of(" \n") == std::string::npos && text.find('.') != std::string::npos)) {
      danger_or_all(only_danger, [&] {
        if (lowered(text.substr(0, 5)) == "file:") {
          path("cat", text);
        } else {
          as_command(verb == Verb::sends ? std::vector<std::string>{"curl", "-sS", "--data-raw", "x", text}
                                         : std::vector<std::string>{"curl", "-sS", text},
                     fmt::format("{} {}", own_name(name_), text));
        }
      });
      return verb == Verb::reads;
    }
    if (looks_like_path(text) || (is_path_name(plain) && text.find('\n') == std::string::npos)) {
      danger_or_all(only_danger, [&] {
        if (verb == Verb::removes) {
          path("rm", text, "-r");
        } else if (verb == Verb::writes || verb == Verb::runs) {
          writes(text, {}, true);
        } else {
          path("cat", text);
        }
        if (verb == Verb::sends)
          observe(Effect::exfiltration, canonical_path(text, action_.where), summary_of(text), fmt::format("sends the file {} away", text),
                  false);
      });
      return verb != Verb::none;
    }
    if (!is_prose(plain) || verb == Verb::runs) shell(text, "", false, true);
    return true;
  }
  std::string summary_of(std::string_view text) const { return fmt::format("{} {}", own_name(name_), text); }
  template <class Step>
  void danger_or_all(bool only_danger, const Step& step) {
    const std::size_t before = out_.observations.size();
    step();
    if (!only_danger) return;
    auto& all = out_.observations;
    all.erase(
        std::remove_if(all.begin() + static_cast<std::ptrdiff_t>(before), all.end(), [](const auto& o) { return !is_dangerous(o.effect); }),
        all.end());
  }

  void unknown(const json::object& arguments, const Call* described) {
    const Verb verb = verb_of(name_);
    const Hints hints = described != nullptr ? hints_of(*described) : Hints{};
    const bool reads = verb == Verb::reads;
    const std::size_t before = out_.observations.size();
    bool understood = true;
    for (const auto& one : arguments)
      understood = sniff(std::string(view(one.key())), one.value(), verb, reads ? Hints{.shell = false, .sql = hints.sql} : hints, false) &&
                   understood;
    const bool seen = out_.observations.size() > before;
    if (reads) {
      if (!seen) observe(Effect::query, "", summary(arguments), fmt::format("{} reads, as its name says", own_name(name_)));
      return;
    }
    // A shell or a runner of code by its description, all of whose arguments were understood.
    if ((hints.shell || hints.code || verb == Verb::runs) && understood && seen) return;
    observe(Effect::unknown, "", summary(arguments), fmt::format("nobody knows what the tool {} does", own_name(name_)), false);
  }

  const Action& action_;
  const ToolTable& tools_;
  Assessment& out_;
  std::map<std::string, std::string>* written_;
  std::string_view name_;
  int depth_ = 0;
};

Result<json::value> arguments_of(const Action& action) {
  const std::string_view text = action.call.arguments;
  if (text.size() > longest_script)
    return invalid(fmt::format("the arguments are {} bytes long; at most {} are judged", text.size(), longest_script));
  if (text.find_first_not_of(" \t\r\n") == std::string_view::npos) return json::value(json::object{});
  auto parsed = parse_json(text);
  if (!parsed.ok()) return invalid("the arguments cannot be read: " + parsed.error().message);
  if (!parsed->is_object()) return invalid("the arguments are not a JSON object");
  return parsed;
}

}  // namespace

Assessment assess_call(const Action& action, const ToolTable& tools) {
  Assessment out;
  const auto arguments = arguments_of(action);
  if (!arguments.ok()) {
    out.problem = arguments.error().message;
    return out;
  }
  Assessor(action, tools, out).assess(action.call.name, arguments->get_object(), &action.call, 0);
  return out;
}

std::map<std::string, std::string> written_by(const Action& action, const ToolTable& tools) {
  std::map<std::string, std::string> out;
  const auto arguments = arguments_of(action);
  if (!arguments.ok()) return out;
  Assessment unused;
  Assessor(action, tools, unused, &out).assess(action.call.name, arguments->get_object(), &action.call, 0);
  return out;
}

}  // namespace hearth::safety
