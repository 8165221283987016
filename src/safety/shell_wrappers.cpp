// Programs that run what stands behind them, and how to find it: which of their options take a value, how many operands come first, and whether the rest is words or
// text for a shell. The command inside is noted in their place, with their name among its wrappers.
#include <algorithm>
#include <array>
#include <map>
#include <utility>

#include "safety/shell_interpreter.h"

namespace hearth::safety {
namespace {

struct WrapperSpec {
  std::string_view values;       // short options that take a value
  std::string_view long_values;  // long options that take a value, between blanks
  int operands = 0;              // words before the command
  bool assignments = false;      // NAME=value before the command
  bool noted = false;            // the wrapper does something of its own: it is noted too
  bool joins = false;            // the words are joined and given to a shell
  bool options = true;           // has options at all
};

const std::map<std::string_view, WrapperSpec>& wrappers() {
  static const std::map<std::string_view, WrapperSpec> table{
      {"sudo",
       {.values = "CcDghpRrTtUu",
        .long_values = " user group host prompt chdir chroot role type other-user close-from command-timeout login-class ",
        .assignments = true}},
      {"doas", {.values = "aCu"}},
      {"pkexec", {.long_values = " user "}},
      {"gosu", {.operands = 1}},
      {"su-exec", {.operands = 1}},
      {"setuidgid", {.operands = 1}},
      {"chpst", {.values = "uUbe/nmodfcrtlL"}},
      {"softlimit", {.values = "mdslaocfprt"}},
      {"nice", {.values = "n", .long_values = " adjustment "}},
      {"ionice", {.values = "cnpPu", .long_values = " class classdata pid pgid uid "}},
      {"timeout", {.values = "ks", .long_values = " kill-after signal ", .operands = 1}},
      {"gtimeout", {.values = "ks", .long_values = " kill-after signal ", .operands = 1}},
      {"nohup", {}},
      {"setsid", {}},
      {"stdbuf", {.values = "ioe", .long_values = " input output error "}},
      {"time", {.values = "of", .long_values = " output format ", .noted = false}},
      {"strace", {.values = "abeEIoOpPsSuUX", .long_values = " output expr env trace attach ", .noted = true}},
      {"ltrace", {.values = "aAeDFlnopsuxX", .long_values = " output library ", .noted = true}},
      {"valgrind", {.noted = true}},
      {"chroot", {.long_values = " userspec groups ", .operands = 1, .noted = true}},
      {"unshare",
       {.values = "GRSwl",
        .long_values = " root wd setuid setgid map-user map-group map-users map-groups propagation setgroups boottime monotonic ",
        .noted = true}},
      {"nsenter", {.values = "tSG", .long_values = " target setuid setgid ", .noted = true}},
      {"setpriv",
       {.long_values = " reuid regid ruid rgid euid egid groups inh-caps ambient-caps bounding-set securebits pdeathsig selinux-label "
                       "apparmor-profile ",
        .noted = true}},
      {"capsh", {.noted = true}},
      {"systemd-run",
       {.values = "pEHMu",
        .long_values = " unit property description slice uid gid nice working-directory setenv on-active on-boot on-startup on-unit-active "
                       "on-unit-inactive "
                       "on-calendar timer-property path-property socket-property service-type host machine ",
        .noted = true}},
      {"systemd-inhibit", {.long_values = " what who why mode "}},
      {"taskset", {.operands = 1}},
      {"chrt", {.values = "TPD", .operands = 1}},
      {"numactl", {.values = "ipmNCPl", .long_values = " interleave membind cpunodebind physcpubind preferred "}},
      {"prlimit", {.noted = true}},
      {"cpulimit", {.values = "lpPe", .long_values = " limit pid exe path "}},
      {"setarch", {.operands = 1}},
      {"linux32", {}},
      {"linux64", {}},
      {"i386", {}},
      {"x86_64", {}},
      {"fakeroot", {.values = "lsibf", .long_values = " lib faked save load "}},
      {"fakechroot", {.values = "declb"}},
      {"proot", {.values = "rbwqkmM0S", .noted = true}},
      {"firejail", {}},
      {"bwrap", {.noted = true}},
      {"dbus-run-session", {.long_values = " config-file dbus-daemon "}},
      {"dbus-launch", {}},
      {"xvfb-run", {.values = "efnpsw", .long_values = " error-file auth-file server-num server-args xauth-protocol wait "}},
      {"unbuffer", {}},
      {"rlwrap", {.values = "abCDfgHlPqsSZz"}},
      {"torify", {}},
      {"torsocks", {.values = "aPu"}},
      {"proxychains", {.values = "f"}},
      {"proxychains4", {.values = "f"}},
      {"tsocks", {}},
      {"caffeinate", {.values = "tw"}},
      {"nocache", {.values = "n"}},
      {"eatmydata", {}},
      {"ccache", {.options = false}},
      {"distcc", {.options = false}},
      {"sem", {.values = "jP", .long_values = " jobs id "}},
      {"chronic", {}},
      {"daemonize", {.values = "acepLolEu"}},
      {"watch", {.values = "nqs", .long_values = " interval equexit shotsdir ", .joins = true}},
      {"entr", {}},
      {"hyperfine",
       {.values = "wmMrsPDLSun",
        .long_values =
            " warmup min-runs max-runs runs setup prepare conclude cleanup parameter-scan parameter-step-size parameter-list shell "
            "export-json export-csv export-markdown style time-unit input output command-name ",
        .joins = true}},
      {"dotenv", {.values = "fecv"}},
      {"direnv", {.operands = 2, .noted = true}},
      {"poetry", {.operands = 1, .noted = true}},
      {"pipenv", {.operands = 1, .noted = true}},
      {"bundle", {.operands = 1, .noted = true}},
  };
  return table;
}

constexpr std::array<std::string_view, 14> shells{"sh",  "bash", "dash",  "zsh",  "ksh",  "ksh93", "mksh",
                                                  "ash", "fish", "rbash", "yash", "posh", "csh",   "tcsh"};

bool contains(std::string_view list, std::string_view word) {
  return !word.empty() && list.find(" " + std::string(word) + " ") != std::string_view::npos;
}

bool is_option(const Word& word) { return word.text.size() > 1 && word.text[0] == '-'; }

// Behind the options that begin at `i`. `until_operand` false would take options among operands too; none of ours do.
std::size_t skip_options(const std::vector<Word>& words, std::size_t i, std::string_view values, std::string_view long_values) {
  while (i < words.size()) {
    const std::string& text = words[i].text;
    if (text == "--") return i + 1;
    if (!is_option(words[i])) return i;
    if (text[1] == '-') {
      const bool apart = text.find('=') == std::string::npos && contains(long_values, std::string_view(text).substr(2));
      i += apart ? 2 : 1;
      continue;
    }
    bool takes_next = false;
    for (std::size_t at = 1; at < text.size(); ++at) {
      if (values.find(text[at]) == std::string_view::npos) continue;
      takes_next = at + 1 == text.size();
      break;
    }
    i += takes_next ? 2 : 1;
  }
  return i;
}

bool is_assignment_text(std::string_view text) {
  const std::size_t equals = text.find('=');
  if (equals == std::string_view::npos || equals == 0) return false;
  const std::string_view name = text.substr(0, equals);
  return !(name[0] >= '0' && name[0] <= '9') && std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
  });
}

Word joined(const std::vector<Word>& words, std::size_t first) {
  Word out;
  for (std::size_t i = first; i < words.size(); ++i) {
    if (i > first) out.text += ' ';
    out.text += words[i].text;
    out.exact = out.exact && words[i].exact;
    out.substitution = out.substitution || words[i].substitution;
  }
  return out;
}

Value value_of(const Word& word) {
  return {.text = word.text, .exact = word.exact && !word.glob, .glob = word.glob, .substitution = word.substitution};
}

std::vector<Value> values_from(const std::vector<Word>& words, std::size_t first) {
  std::vector<Value> out;
  for (std::size_t i = first; i < words.size(); ++i) out.push_back(value_of(words[i]));
  return out;
}

}  // namespace

Outcome Interpreter::run_inner_words(const Command& outer, std::vector<Word> words, const Setting& setting, std::string wrapper) {
  Setting inner = setting;
  inner.wrappers.push_back(std::move(wrapper));
  if (inner.wrappers.size() > 64 || words.empty()) {
    script_.truncated = script_.truncated || !words.empty();
    return note(outer, setting);
  }
  Command command = outer;
  command.words = std::move(words);
  return run_command(std::move(command), std::move(inner));
}

Outcome Interpreter::run_inner(const Command& outer, std::size_t first, const Setting& setting, std::string wrapper) {
  if (first >= outer.words.size()) return note(outer, setting);
  return run_inner_words(outer, {outer.words.begin() + static_cast<std::ptrdiff_t>(first), outer.words.end()}, setting, std::move(wrapper));
}

Outcome Interpreter::run_inner_text(const Command& outer, const Word& text, std::vector<Value> positional, const Setting& setting,
                                    std::string wrapper) {
  if (!text.exact) {
    // What it will be is not known: the shell itself stays for judging, and what can be read is read.
    Outcome outcome = note(outer, setting);
    std::string rest = text.text;
    for (std::size_t at = 0; (at = rest.find(unknown_part, at)) != std::string::npos;) rest.erase(at, unknown_part.size());
    if (rest.find_first_not_of(" \t\n") == std::string::npos) {
      outcome.output.reset();
      return outcome;
    }
  }
  if (!outer.redirects.empty() || !outer.assignments.empty()) {
    Command around;
    around.redirects = outer.redirects;
    around.assignments = outer.assignments;
    note(std::move(around), setting);
  }
  Setting inner = setting;
  inner.wrappers.push_back(std::move(wrapper));
  if (inner.wrappers.size() > 64) {
    script_.truncated = true;
    return {.output = std::nullopt};
  }
  std::swap(state_.positional, positional);
  const bool known = std::exchange(state_.positional_known, true);
  Outcome outcome = run_nested(text.text, inner);
  std::swap(state_.positional, positional);
  state_.positional_known = known;
  if (!text.exact) outcome.output.reset();
  keep_output(outer, outcome);
  return outcome;
}

Outcome Interpreter::run_shell(const std::string& name, const Command& command, const Setting& setting) {
  const std::vector<Word>& words = command.words;
  bool text = false;
  bool stdin_script = false;
  std::size_t i = 1;
  for (; i < words.size(); ++i) {
    const std::string& word = words[i].text;
    if (word == "--" || word == "-") {
      ++i;
      break;
    }
    if (word.size() < 2 || (word[0] != '-' && word[0] != '+')) break;
    if (word[1] == '-') {
      if (word == "--rcfile" || word == "--init-file" || word == "--init-command") ++i;
      if (word == "--command" || word.starts_with("--command=")) text = true;
      continue;
    }
    if (word.find('c') != std::string::npos && word[0] == '-') text = true;
    if (word.find('s') != std::string::npos) stdin_script = true;
    if (word.back() == 'o' || word.back() == 'O' || (name == "fish" && word.back() == 'C')) ++i;
  }
  const ShellState before = state_;
  const auto restore = [&](Outcome outcome) {
    state_ = before;
    return outcome;
  };
  if (text) {
    if (i >= words.size()) return note(command, setting);
    if (i + 1 < words.size()) state_.zero = value_of(words[i + 1]);
    return restore(run_inner_text(command, words[i], values_from(words, std::min(i + 2, words.size())), setting, name + " -c"));
  }
  if (i >= words.size() || stdin_script || words[i].text == "/dev/stdin" || words[i].text == "/dev/fd/0" ||
      words[i].text == "/proc/self/fd/0") {
    if (setting.input == nullptr || !setting.input->text) return note(command, setting);
    Word script{.text = *setting.input->text};
    setting.input->text->clear();
    const std::size_t first = stdin_script ? i : std::min(i + 1, words.size());
    Command around = command;
    std::erase_if(around.redirects, [](const Redirect& redirect) { return redirect.kind == Redirect::Kind::here; });
    return restore(run_inner_text(around, script, values_from(words, first), setting, name));
  }
  if (const auto file = content(words[i])) {
    return restore(run_inner_text(command, Word{.text = *file}, values_from(words, i + 1), setting, name + " file"));
  }
  return note(command, setting);
}

Outcome Interpreter::run_find(const Command& command, const Setting& setting) {
  const std::vector<Word>& words = command.words;
  Outcome outcome = note(command, setting);
  std::vector<std::string> roots;
  std::size_t i = 1;
  while (i < words.size() && (words[i].text == "-L" || words[i].text == "-P" || words[i].text == "-H")) ++i;
  for (; i < words.size() && !words[i].text.starts_with('-') && words[i].text != "!" && words[i].text != "("; ++i)
    roots.push_back(words[i].text);
  if (roots.empty()) roots.emplace_back(".");
  for (; i < words.size(); ++i) {
    const std::string& action = words[i].text;
    if (action != "-exec" && action != "-execdir" && action != "-ok" && action != "-okdir") continue;
    std::vector<Word> inner;
    std::size_t end = i + 1;
    for (; end < words.size() && words[end].text != ";"; ++end) {
      if (words[end].text == "+" && end > i + 1 && words[end - 1].text == "{}") break;
      inner.push_back(words[end]);
    }
    i = end;
    if (inner.empty()) continue;
    for (const std::string& root : roots) {
      std::vector<Word> placed = inner;
      for (Word& word : placed) {
        for (std::size_t at = 0; (at = word.text.find("{}", at)) != std::string::npos;) {
          const std::string found = root + (root.ends_with('/') ? "" : "/") + std::string(unknown_part);
          word.text.replace(at, 2, found);
          word.exact = false;
          at += found.size();
        }
      }
      Setting within = setting;
      within.input.reset();
      within.appends_arguments = true;
      Command around;
      around.redirects = command.redirects;
      around.assignments = command.assignments;
      run_inner_words(around, std::move(placed), within, "find " + action);
    }
  }
  return outcome;
}

Outcome Interpreter::run_xargs(const Command& command, const Setting& setting) {
  const std::vector<Word>& words = command.words;
  const std::size_t first =
      skip_options(words, 1, "aEdIJLnPRSs", " arg-file delimiter max-lines max-args max-procs max-chars process-slot-var ");
  std::string replaced;
  bool whole_lines = false;
  std::string delimiter;
  for (std::size_t i = 1; i < first && i < words.size(); ++i) {
    const std::string& word = words[i].text;
    if (word.starts_with("-I") || word.starts_with("-J"))
      replaced = word.size() > 2 ? word.substr(2) : i + 1 < words.size() ? words[i + 1].text : "{}";
    if (word.starts_with("-i")) replaced = word.size() > 2 ? word.substr(2) : "{}";
    if (word.starts_with("--replace")) replaced = word.find('=') == std::string::npos ? "{}" : word.substr(word.find('=') + 1);
    if (word == "-0" || word == "--null") delimiter = std::string(1, '\0');
    if (word.starts_with("-d")) delimiter = word.size() > 2 ? word.substr(2) : i + 1 < words.size() ? words[i + 1].text : "";
    if (word.starts_with("--delimiter=")) delimiter = word.substr(12);
    if (word.size() > 1 && word[0] == '-' && word[1] != '-' && word.find('0') != std::string::npos &&
        word.find_first_of("nPLs") == std::string::npos)
      delimiter = std::string(1, '\0');
  }
  if (delimiter == "\\n") delimiter = "\n";
  if (delimiter == "\\0") delimiter = std::string(1, '\0');
  whole_lines = !replaced.empty();
  std::vector<Word> inner(words.begin() + static_cast<std::ptrdiff_t>(std::min(first, words.size())), words.end());
  if (inner.empty()) inner.push_back({.text = "echo"});
  Setting within = setting;
  const auto input = setting.input;
  within.input.reset();
  // The arguments, when they are known.
  std::vector<Word> arguments;
  bool known = false;
  if (input != nullptr && input->text && input->text->size() < 65536) {
    known = true;
    const std::string separators = !delimiter.empty() ? delimiter : whole_lines ? "\n" : " \t\n";
    const std::string& text = *input->text;
    if (delimiter.empty() && text.find_first_of("'\"\\") != std::string::npos) known = false;
    for (std::size_t at = 0; known && at <= text.size();) {
      const std::size_t end = std::min(text.find_first_of(separators, at), text.size());
      if (end > at) arguments.push_back({.text = text.substr(at, end - at)});
      at = end + 1;
    }
    if (arguments.size() > 200) known = false;
  }
  if (known) {
    if (replaced.empty()) {
      inner.insert(inner.end(), arguments.begin(), arguments.end());
      return run_inner_words(command, std::move(inner), within, "xargs");
    }
    Outcome all;
    for (const Word& argument : arguments) {
      std::vector<Word> placed = inner;
      for (Word& word : placed) {
        for (std::size_t at = 0; (at = word.text.find(replaced, at)) != std::string::npos; at += argument.text.size())
          word.text.replace(at, replaced.size(), argument.text);
      }
      all.then(run_inner_words(command, std::move(placed), within, "xargs"));
    }
    return all;
  }
  within.appends_arguments = true;
  std::vector<std::string> places;
  if (input != nullptr) places = input->places();
  if (!replaced.empty()) {
    if (places.empty()) places.emplace_back(unknown_part);
    Outcome last;
    for (const std::string& place : places) {
      std::vector<Word> placed = inner;
      for (Word& word : placed) {
        for (std::size_t at = 0; (at = word.text.find(replaced, at)) != std::string::npos; at += place.size()) {
          word.text.replace(at, replaced.size(), place);
          word.exact = false;
        }
      }
      last = run_inner_words(command, std::move(placed), within, "xargs");
    }
    last.output.reset();
    return last;
  }
  for (const std::string& place : places) inner.push_back({.text = place, .exact = false});
  Outcome outcome = run_inner_words(command, std::move(inner), within, "xargs");
  outcome.output.reset();
  return outcome;
}

Outcome Interpreter::run_parallel(const Command& command, const Setting& setting) {
  const std::vector<Word>& words = command.words;
  const std::size_t first =
      skip_options(words, 1, "aCdEjLnNPsSI",
                   " jobs arg-file colsep delay joblog load max-args max-procs retries results sshlogin tagstring timeout workdir ");
  std::size_t end = first;
  while (end < words.size() && !words[end].text.starts_with(":::")) ++end;
  Word text =
      joined({words.begin(), words.begin() + static_cast<std::ptrdiff_t>(std::min(end, words.size()))}, std::min(first, words.size()));
  std::vector<Word> arguments;
  for (std::size_t i = end + 1; i < words.size(); ++i) {
    if (!words[i].text.starts_with(":::")) arguments.push_back(words[i]);
  }
  Setting within = setting;
  const auto input = within.input;
  within.input.reset();
  const bool from_files = end < words.size() && words[end].text.starts_with("::::");
  if (end >= words.size() || from_files) {
    arguments.clear();
    if (!from_files && input != nullptr && input->text && input->text->size() < 16384) {
      std::size_t at = 0;
      while (at < input->text->size() && arguments.size() < 100) {
        const std::size_t stop = std::min(input->text->find('\n', at), input->text->size());
        arguments.push_back({.text = input->text->substr(at, stop - at)});
        at = stop + 1;
      }
    } else {
      within.appends_arguments = true;
      std::string place(unknown_part);
      if (input != nullptr)
        if (const auto places = input->places(); places.size() == 1) place = places[0];
      arguments.push_back({.text = place, .exact = false});
    }
  }
  Outcome all;
  for (std::size_t i = 0; i < arguments.size() && i < 100; ++i) {
    const Word& argument = arguments[i];
    Word one = text;
    bool placed = false;
    for (const std::string_view mark : {"{}", "{.}", "{/}", "{//}", "{/.}", "{1}"}) {
      for (std::size_t at = 0; (at = one.text.find(mark, at)) != std::string::npos; at += argument.text.size()) {
        one.text.replace(at, mark.size(), argument.text);
        placed = true;
      }
    }
    if (!placed) one.text += (one.text.empty() ? "" : " ") + argument.text;
    one.exact = one.exact && argument.exact;
    all.then(run_inner_text(command, one, {}, within, "parallel"));
  }
  all.output.reset();
  return all;
}

std::optional<Outcome> Interpreter::run_wrapper(const std::string& program, Command& command, const Setting& setting) {
  const std::vector<Word>& words = command.words;
  if (words.size() == 1 && std::find(shells.begin(), shells.end(), program) == shells.end() && program != "xargs" && program != "at" &&
      program != "batch" && program != "parallel") {
    return std::nullopt;
  }
  if (std::find(shells.begin(), shells.end(), program) != shells.end()) return run_shell(program, command, setting);
  if (program == "find" || program == "gfind") return run_find(command, setting);
  if (program == "xargs" || program == "gxargs") return run_xargs(command, setting);
  if (program == "parallel") return run_parallel(command, setting);
  const auto text_of = [&](std::size_t i, std::string wrapper, bool noted = false) {
    if (noted) note(command, setting);
    return run_inner_text(command, words[i], {}, setting, std::move(wrapper));
  };

  if (program == "env" || program == "genv") {
    std::size_t i = 1;
    while (i < words.size()) {
      const std::string& text = words[i].text;
      if (text == "-S" || text == "--split-string" || text.starts_with("-S") || text.starts_with("--split-string=") ||
          (text.size() > 2 && text[0] == '-' && text[1] != '-' && text.find('S') != std::string::npos &&
           text.find_first_of("uC") == std::string::npos)) {
        const std::size_t s = text.starts_with("--") ? text.find('=') : text.find('S');
        Word line = words[i];
        line.text = s == std::string::npos || s + 1 >= text.size() ? "" : text.substr(s + 1);
        std::size_t rest = i + 1;
        if (line.text.empty() && rest < words.size()) line = words[rest++];
        for (; rest < words.size(); ++rest) {
          line.text += " " + words[rest].text;
          line.exact = line.exact && words[rest].exact;
        }
        // -S splits like a shell, near enough: what it would not expand is rare and counts for more here.
        return run_inner_text(command, Word{.text = "env " + line.text, .exact = line.exact}, {}, setting, "env");
      }
      if (text == "--") {
        ++i;
        break;
      }
      if (text == "-" || is_option(words[i])) {
        const bool apart = text == "-u" || text == "-C" || text == "--unset" || text == "--chdir";
        i += apart ? 2 : 1;
      } else if (is_assignment_text(text)) {
        const std::size_t equals = text.find('=');
        command.assignments.push_back(
            {.name = text.substr(0, equals), .value = {.text = text.substr(equals + 1), .exact = words[i].exact}, .exported = true});
        ++i;
      } else {
        break;
      }
    }
    while (i < words.size() && is_assignment_text(words[i].text)) {
      const std::size_t equals = words[i].text.find('=');
      command.assignments.push_back({.name = words[i].text.substr(0, equals),
                                     .value = {.text = words[i].text.substr(equals + 1), .exact = words[i].exact},
                                     .exported = true});
      ++i;
    }
    if (i >= words.size()) return note(command, setting);
    const auto saved = state_.variables;
    for (const Assignment& assigned : command.assignments) set(assigned.name, {.text = assigned.value.text, .exact = assigned.value.exact});
    Outcome outcome = run_inner(command, i, setting, program);
    state_.variables = saved;
    return outcome;
  }
  if (program == "su" || program == "runuser") {
    std::size_t i = 1;
    std::optional<std::size_t> given;
    bool user = false;
    for (; i < words.size(); ++i) {
      const std::string& text = words[i].text;
      if (text == "-c" || text == "--command" || text == "--session-command") {
        given = i + 1;
        ++i;
      } else if (text.starts_with("--command=")) {
        return run_inner_text(command, Word{.text = text.substr(10), .exact = words[i].exact}, {}, setting, program);
      } else if (text == "-s" || text == "-g" || text == "-G" || text == "-w" || text == "--shell" || text == "--group") {
        ++i;
      } else if (program == "runuser" && (text == "-u" || text == "--user")) {
        ++i;
        user = true;
      } else if (text == "--") {
        if (program == "runuser" && user) return run_inner(command, i + 1, setting, program);
      } else if (text.size() > 2 && text[0] == '-' && text[1] != '-' && text.back() == 'c') {
        given = i + 1;
        ++i;
      } else if (!is_option(words[i]) && text != "-" && program == "runuser" && user) {
        return run_inner(command, i, setting, program);
      }
    }
    if (!given || *given >= words.size()) return note(command, setting);
    return text_of(*given, program);
  }
  if (program == "script") {
    for (std::size_t i = 1; i < words.size(); ++i) {
      const std::string& text = words[i].text;
      if (text.starts_with("--command=")) {
        note(command, setting);
        return run_inner_text(command, Word{.text = text.substr(10), .exact = words[i].exact}, {}, setting, program);
      }
      if ((text == "--command" || (text.size() > 1 && text[0] == '-' && text[1] != '-' && text.back() == 'c')) && i + 1 < words.size())
        return text_of(i + 1, program, true);
    }
    return note(command, setting);
  }
  if (program == "flock") {
    const std::size_t i = skip_options(words, 1, "wE", " timeout wait conflict-exit-code ");
    if (i + 2 < words.size() && (words[i + 1].text == "-c" || words[i + 1].text == "--command")) return text_of(i + 2, program);
    return i + 1 < words.size() ? run_inner(command, i + 1, setting, program) : note(command, setting);
  }
  if (program == "ssh" || program == "mosh" || program == "autossh" || program == "sshpass") {
    if (program == "sshpass") {
      const std::size_t i = skip_options(words, 1, "fdpP", "");
      return run_inner(command, i, setting, program);
    }
    const std::size_t i = skip_options(words, 1, "BbcDEeFIiJLlmMOopQRSWw", "");
    Outcome outcome = note(command, setting);
    if (i + 1 < words.size()) {
      std::size_t first = i + 1;
      // Options may stand behind the host too.
      first = skip_options(words, first, "BbcDEeFIiJLlmOopQRSWw", "");
      if (first < words.size()) {
        const ShellState before = state_;
        state_.folder = "/?";
        Setting within = setting;
        Command around;
        within.pipe_from = -1;
        outcome = run_inner_text(around, joined(words, first), {}, within, program);
        state_ = before;
      }
    }
    outcome.output.reset();
    return outcome;
  }
  if (program == "docker" || program == "podman" || program == "nerdctl" || program == "kubectl" || program == "oc" ||
      program == "docker-compose" || program == "lxc") {
    static constexpr std::string_view flags =
        " rm detach interactive tty privileged init read-only no-healthcheck oom-kill-disable publish-all quiet sig-proxy stdin all no-TTY "
        "no-deps build service-ports T ";
    std::size_t i =
        skip_options(words, 1, "HlnfpsD", " host context config log-level namespace kubeconfig cluster user file project-name ");
    if (i < words.size() && (words[i].text == "compose" || words[i].text == "container"))
      i = skip_options(words, i + 1, "fp", " file project-name ");
    Outcome outcome = note(command, setting);
    if (i >= words.size() || (words[i].text != "exec" && words[i].text != "run")) return outcome;
    const bool runs = words[i].text == "run";
    const std::string wrapper = program + " " + words[i].text;
    for (++i; i < words.size(); ++i) {
      const std::string& text = words[i].text;
      if (text == "--") {
        ++i;
        break;
      }
      if (!is_option(words[i])) break;
      if (text[1] == '-') {
        if (text.find('=') == std::string::npos && !contains(flags, std::string_view(text).substr(2))) ++i;
      } else if (std::string_view(runs ? "acehlmpuvwn" : "euwcnl").find(text.back()) != std::string_view::npos && text.size() <= 4) {
        ++i;
      }
    }
    ++i;  // the container or image
    // kubectl exec POD -c NAME -- …
    while (i < words.size() && (program == "kubectl" || program == "oc") && is_option(words[i])) {
      const bool ends = words[i].text == "--";
      i += ends || words[i].text.find('=') != std::string::npos || words[i].text == "-it" || words[i].text == "-i" || words[i].text == "-t"
               ? 1
               : 2;
      if (ends) break;
    }
    if (i < words.size() && words[i].text == "--") ++i;
    if (i < words.size() && !is_option(words[i])) {
      const ShellState before = state_;
      state_.folder = "/?";
      Command around;
      std::vector<Word> inner(words.begin() + static_cast<std::ptrdiff_t>(i), words.end());
      run_inner_words(around, std::move(inner), setting, wrapper);
      state_ = before;
    }
    outcome.output.reset();
    return outcome;
  }
  if (program == "busybox" || program == "toybox") return run_inner(command, 1, setting, program);
  if (program == "gdb") {
    Outcome outcome = note(command, setting);
    for (std::size_t i = 1; i + 1 < words.size(); ++i) {
      const std::string& text = words[i].text;
      if (text == "--args" || text == "-args") {
        run_inner(command, i + 1, setting, program);
        break;
      }
      if (text == "-ex" || text == "--ex" || text == "-iex" || text == "--eval-command") {
        std::string line = words[i + 1].text;
        std::size_t shell = line.starts_with("shell ") ? 6 : line.starts_with("!") ? 1 : 0;
        if (shell > 0) run_inner_text(command, Word{.text = line.substr(shell), .exact = words[i + 1].exact}, {}, setting, program);
      }
    }
    return outcome;
  }
  if (program == "at" || program == "batch") {
    Outcome outcome = note(command, setting);
    if (setting.input != nullptr && setting.input->text) {
      Command around;
      run_inner_text(around, Word{.text = *setting.input->text}, {}, setting, program);
    }
    return outcome;
  }
  if (program == "start-stop-daemon") {
    Outcome outcome = note(command, setting);
    for (std::size_t i = 1; i + 1 < words.size(); ++i) {
      if (words[i].text != "--exec" && words[i].text != "-x" && words[i].text != "--startas" && words[i].text != "-a") continue;
      std::vector<Word> inner{words[i + 1]};
      for (std::size_t rest = i + 2; rest < words.size(); ++rest) {
        if (words[rest].text == "--") inner.insert(inner.end(), words.begin() + static_cast<std::ptrdiff_t>(rest) + 1, words.end());
      }
      run_inner_words(Command{}, std::move(inner), setting, program);
    }
    return outcome;
  }
  if (program == "nix-shell" || program == "nix") {
    Outcome outcome = note(command, setting);
    for (std::size_t i = 1; i + 1 < words.size(); ++i) {
      if (words[i].text == "--run" || words[i].text == "--command")
        return program == "nix" ? run_inner(command, i + 1, setting, program) : text_of(i + 1, program);
      if (words[i].text == "-c" && program == "nix") return run_inner(command, i + 1, setting, program);
    }
    return outcome;
  }
  if (program == "tmux" || program == "screen" || program == "xterm" || program == "gnome-terminal" || program == "konsole" ||
      program == "xfce4-terminal") {
    Outcome outcome = note(command, setting);
    std::size_t i = 1;
    if (program == "tmux") {
      if (i < words.size() &&
          (words[i].text == "new-session" || words[i].text == "new" || words[i].text == "new-window" || words[i].text == "neww" ||
           words[i].text == "split-window" || words[i].text == "splitw" || words[i].text == "run-shell" || words[i].text == "run" ||
           words[i].text == "send-keys" || words[i].text == "send" || words[i].text == "respawn-pane")) {
        const bool keys = words[i].text.starts_with("send");
        i = skip_options(words, i + 1, "censtxyFl", "");
        std::vector<Word> rest(words.begin() + static_cast<std::ptrdiff_t>(std::min(i, words.size())), words.end());
        if (keys) std::erase_if(rest, [](const Word& word) { return word.text == "Enter" || word.text == "C-m" || word.text == "ENTER"; });
        if (!rest.empty()) run_inner_text(Command{}, joined(rest, 0), {}, setting, program);
      }
      return outcome;
    }
    if (program == "screen") {
      i = skip_options(words, 1, "cehpSsTtX", "");
      if (i < words.size()) run_inner_words(Command{}, {words.begin() + static_cast<std::ptrdiff_t>(i), words.end()}, setting, program);
      return outcome;
    }
    for (; i + 1 < words.size(); ++i) {
      if (words[i].text == "-e" || words[i].text == "-x" || words[i].text == "--" || words[i].text == "--command") {
        run_inner_text(Command{}, joined(words, i + 1), {}, setting, program);
        break;
      }
    }
    return outcome;
  }
  if (program.starts_with("ld-linux") || program.starts_with("ld-musl") || program == "ld.so") {
    const std::size_t i = skip_options(words, 1, "", " library-path inhibit-rpath audit preload argv0 ");
    return run_inner(command, i, setting, "ld.so");
  }

  const auto it = wrappers().find(program);
  if (it == wrappers().end()) return std::nullopt;
  const WrapperSpec& spec = it->second;
  std::size_t i = spec.options ? skip_options(words, 1, spec.values, spec.long_values) : 1;
  if (program == "ionice" && std::any_of(words.begin(), words.end(), [](const Word& word) { return word.text.starts_with("-p"); }))
    return note(command, setting);
  if (program == "taskset" && i < words.size() && words[i - 1].text.find('p') != std::string::npos && is_option(words[i - 1]))
    return note(command, setting);
  if (program == "poetry" || program == "pipenv") {
    if (i >= words.size() || words[i].text != "run") return note(command, setting);
  }
  if (program == "bundle" && (i >= words.size() || words[i].text != "exec")) return note(command, setting);
  if (program == "direnv" && (i >= words.size() || words[i].text != "exec")) return note(command, setting);
  if (spec.noted) note(command, setting);
  i += static_cast<std::size_t>(spec.operands);
  if (spec.assignments) {
    while (i < words.size() && is_assignment_text(words[i].text)) {
      const std::size_t equals = words[i].text.find('=');
      command.assignments.push_back({.name = words[i].text.substr(0, equals),
                                     .value = {.text = words[i].text.substr(equals + 1), .exact = words[i].exact},
                                     .exported = true});
      ++i;
    }
  }
  if (i >= words.size()) return spec.noted ? Outcome{.output = std::nullopt} : note(command, setting);
  if (spec.joins) {
    if (program == "watch" && std::any_of(words.begin(), words.begin() + static_cast<std::ptrdiff_t>(i),
                                          [](const Word& word) { return word.text == "-x" || word.text == "--exec"; })) {
      return run_inner(command, i, setting, program);
    }
    if (program == "hyperfine") {
      Outcome all;
      for (; i < words.size(); ++i) {
        if (!is_option(words[i])) all.then(text_of(i, program));
      }
      return all;
    }
    return run_inner_text(command, joined(words, i), {}, setting, program);
  }
  return run_inner(command, i, setting, program);
}

}  // namespace hearth::safety
