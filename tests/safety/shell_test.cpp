// Runs tests/cases/safety/shell_*.json. A case: name, text, and `commands`, each as shell_show.h shows it; or `error`, part of the message; or `truncated`. Optional
// `folders`, of the same commands; `written`, path → content; `files`, what earlier calls wrote. Beside them: the same words as bash makes, and no command that bash runs
// goes unseen, over generated texts.
#include "safety/shell.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <set>

#include "base/json.h"
#include "safety/shell_show.h"

namespace hearth::safety {
namespace {

Action action_in(std::string folder = "/work/project") {
  Action action;
  action.where.working_folder = std::move(folder);
  action.where.writable_roots = {"/tmp"};
  return action;
}

std::string read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

std::vector<std::filesystem::path> case_files(std::string_view prefix) {
  std::vector<std::filesystem::path> out;
  for (const auto& entry : std::filesystem::directory_iterator(HEARTH_SOURCE_DIR "/tests/cases/safety")) {
    if (entry.path().filename().string().starts_with(prefix) && entry.path().extension() == ".json") out.push_back(entry.path());
  }
  std::sort(out.begin(), out.end());
  return out;
}

TEST(Shell, Cases) {
  std::size_t count = 0;
  for (const auto& path : case_files("shell_")) {
    if (path.filename() == "shell_words.json") continue;
    auto parsed = parse_json(read_file(path));
    ASSERT_TRUE(parsed.ok()) << path << ": " << parsed.error().message;
    for (const auto& one : parsed->as_array()) {
      const auto& object = one.as_object();
      const std::string name(object.at("name").as_string());
      const std::string text(object.at("text").as_string());
      SCOPED_TRACE(path.filename().string() + ": " + name + "\n" + text);
      ++count;
      Action action = action_in();
      if (const auto* files = object.if_contains("files")) {
        for (const auto& [key, value] : files->as_object()) action.written_files[key] = value.as_string();
      }
      const auto script = parse_shell(text, action);
      if (const auto* error = object.if_contains("error")) {
        ASSERT_FALSE(script.ok()) << show(script->commands.empty() ? Command{} : script->commands[0]);
        EXPECT_NE(script.error().message.find(std::string(error->as_string())), std::string::npos) << script.error().message;
        continue;
      }
      ASSERT_TRUE(script.ok()) << script.error().message;
      EXPECT_EQ(script->truncated, object.contains("truncated"));
      std::vector<std::string> shown;
      std::vector<std::string> folders;
      for (const Command& command : script->commands) {
        shown.push_back(show(command));
        folders.push_back(command.folder);
      }
      std::vector<std::string> expected;
      for (const auto& command : object.at("commands").as_array()) expected.emplace_back(command.as_string());
      EXPECT_EQ(shown, expected);
      if (const auto* wanted = object.if_contains("folders")) {
        std::vector<std::string> list;
        for (const auto& folder : wanted->as_array()) list.emplace_back(folder.as_string());
        EXPECT_EQ(folders, list);
      }
      if (const auto* written = object.if_contains("written")) {
        std::map<std::string, std::string> wanted;
        for (const auto& [key, value] : written->as_object()) wanted[key] = value.as_string();
        EXPECT_EQ(script->written, wanted);
      }
    }
  }
  EXPECT_GT(count, 50u);
}

// A folder of its own, and what bash does in it: no program is on its PATH, so nothing but builtins runs.
class Bash {
 public:
  Bash() {
    std::string pattern = (std::filesystem::temp_directory_path() / "hearth-shell-XXXXXX").string();
    folder_ = ::mkdtemp(pattern.data());
  }
  ~Bash() { std::filesystem::remove_all(folder_); }
  Bash(const Bash&) = delete;
  Bash& operator=(const Bash&) = delete;
  const std::string& folder() const { return folder_; }

  // What arrives at descriptor 9; nothing when bash is not here.
  std::optional<std::string> run(const std::string& text, unsigned seconds) const {
    // A pipe, so that what runs in the background has ended, or been ended, before the next text.
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) return std::nullopt;
    const pid_t child = ::fork();
    if (child == 0) {
      if (::chdir(folder_.c_str()) != 0 || ::setpgid(0, 0) != 0 || ::dup2(ends[1], 9) < 0) ::_exit(127);
      std::freopen("/dev/null", "r", stdin);
      std::freopen("/dev/null", "w", stdout);
      std::freopen("/dev/null", "w", stderr);
      ::alarm(seconds);
      const char* arguments[] = {"bash", "--norc", "--noprofile", "-c", text.c_str(), nullptr};
      const char* environment[] = {"PATH=/nonexistent", "HOME=/home/user", "USER=user", "LC_ALL=C.UTF-8", nullptr};
      ::execve("/bin/bash", const_cast<char* const*>(arguments), const_cast<char* const*>(environment));
      ::_exit(127);
    }
    ::close(ends[1]);
    std::string out;
    std::array<char, 4096> some;
    pollfd readable{.fd = ends[0], .events = POLLIN};
    int status = 0;
    bool ended = child < 0;
    for (int idle = 0; child > 0 && idle < 2;) {
      if (::poll(&readable, 1, 100) > 0) {
        const ssize_t got = ::read(ends[0], some.data(), some.size());
        if (got <= 0 || out.size() > (1U << 20)) break;
        out.append(some.data(), static_cast<std::size_t>(got));
        continue;
      }
      ended = ended || ::waitpid(child, &status, WNOHANG) == child;
      if (ended) ++idle;  // something in the background keeps the pipe
    }
    ::close(ends[0]);
    if (child > 0) ::kill(-child, SIGKILL);
    if (child < 0 || (!ended && ::waitpid(child, &status, 0) != child) ||
        (WIFEXITED(status) && WEXITSTATUS(status) == 127 && !std::filesystem::exists("/bin/bash")))
      return std::nullopt;
    return out;
  }

 private:
  std::string folder_;
};

// How many generated texts a test tries; HEARTH_SHELL_ROUNDS for more.
int rounds_or(int usual) {
  const char* given = std::getenv("HEARTH_SHELL_ROUNDS");
  return given != nullptr ? std::atoi(given) : usual;
}

std::vector<std::string> split_nul(const std::string& text) {
  std::vector<std::string> out;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\0', at), text.size());
    out.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return out;
}

std::string single_quoted(const std::string& text) {
  std::string out = "'";
  for (char c : text) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

// What bash makes of each of `lists` of words, from one process. An empty list where it refuses the words.
std::optional<std::vector<std::vector<std::string>>> words_of_bash(const Bash& bash, std::string_view prelude,
                                                                   const std::vector<std::string>& lists) {
  std::string text;
  for (const std::string& words : lists) {
    text += "( eval " + single_quoted(std::string(prelude) + "printf '%s\\0' w " + words + " >&9") + " ); printf 'end-of-list\\0' >&9\n";
  }
  const auto output = bash.run(text, 60);
  if (!output) return std::nullopt;
  std::vector<std::vector<std::string>> out(1);
  for (std::string& word : split_nul(*output)) {
    if (word == "end-of-list") out.emplace_back();
    else out.back().push_back(std::move(word));
  }
  out.pop_back();
  return out;
}

// The words of `p WORDS`, as we read them; nothing where we say that we do not know.
std::optional<std::vector<std::string>> our_words(const std::string& text, const std::string& folder) {
  const auto script = parse_shell(text, action_in(folder));
  if (!script.ok() || script->truncated) return std::nullopt;
  for (const Command& command : script->commands) {
    if (command.words.empty() || command.words[0].text != "printf") continue;
    std::vector<std::string> out;
    for (std::size_t i = 2; i < command.words.size(); ++i) {  // w and what follows
      if (!command.words[i].exact) return std::nullopt;
      out.push_back(command.words[i].text);
    }
    return out;
  }
  return std::nullopt;
}

constexpr std::string_view words_prelude =
    "set -f; x=rXm; y='a b'; e=; n=5; long=/usr/local/bin/tool.tar.gz; arr=(one 'two three' four); w='  lead  trail '; p=n; star='*'; set "
    "-- first 'second arg'\n";

TEST(Shell, DeclaredWordsAreThoseOfBash) {
  const Bash bash;
  auto parsed = parse_json(read_file(HEARTH_SOURCE_DIR "/tests/cases/safety/shell_words.json"));
  ASSERT_TRUE(parsed.ok()) << parsed.error().message;
  std::vector<std::string> lists;
  for (const auto& one : parsed->as_array()) lists.emplace_back(one.as_string());
  const auto theirs = words_of_bash(bash, words_prelude, lists);
  if (!theirs) GTEST_SKIP() << "no /bin/bash here: words are not compared";
  ASSERT_EQ(theirs->size(), lists.size());
  for (std::size_t i = 0; i < lists.size(); ++i) {
    const auto known = our_words(std::string(words_prelude) + "printf '%s\\0' w " + lists[i], bash.folder());
    ASSERT_TRUE(known) << "not resolved: " << lists[i];
    EXPECT_EQ(*known, (*theirs)[i]) << lists[i];
  }
}

TEST(Shell, GeneratedWordsAreThoseOfBashOrUnknown) {
  const Bash bash;
  const char* given = std::getenv("HEARTH_TEST_SEED");
  const std::uint64_t seed = given != nullptr ? std::strtoull(given, nullptr, 10) : 7;
  std::mt19937_64 random(seed);
  SCOPED_TRACE("seed " + std::to_string(seed));
  const std::vector<std::string> pieces{"a",
                                        "B",
                                        "/",
                                        "-",
                                        "=",
                                        ",",
                                        "{",
                                        "}",
                                        "{a,b}",
                                        "{1..3}",
                                        "{c..a}",
                                        "'s q'",
                                        "''",
                                        "\"d q\"",
                                        "\"\"",
                                        "\\ ",
                                        "\\\\",
                                        "\\n",
                                        "$x",
                                        "${x}",
                                        "\"$y\"",
                                        "$y",
                                        "${y}",
                                        "$e",
                                        "\"$e\"",
                                        "$'\\x41\\102\\u0043'",
                                        "$'a\\tb'",
                                        "$\"loc\"",
                                        "${x/X/}",
                                        "${long##*/}",
                                        "${long%.*}",
                                        "${long%%.*}",
                                        "${long#*/}",
                                        "${x^^}",
                                        "${x,,}",
                                        "${x:1}",
                                        "${x:0:1}",
                                        "${#long}",
                                        "${e:-def}",
                                        "${e-def}",
                                        "${u:-$x}",
                                        "${x:+alt}",
                                        "\"${y// /_}\"",
                                        "${arr[1]}",
                                        "\"${arr[@]}\"",
                                        "${arr[*]}",
                                        "${#arr[@]}",
                                        "$((n+1))",
                                        "$((n*(2+3)))",
                                        "$1",
                                        "\"$2\"",
                                        "$2",
                                        "\"$@\"",
                                        "$@",
                                        "$#",
                                        "~",
                                        "#",
                                        "%",
                                        "+",
                                        ":",
                                        "@",
                                        "!",
                                        "^",
                                        "é",
                                        "\\\n",
                                        "$w",
                                        "\"$w\"",
                                        "${!p}",
                                        "~/",
                                        "${n:+{}",
                                        "'{'",
                                        "$star",
                                        "[a-z]",
                                        "?",
                                        "\"\\$x\"",
                                        "\"a\\nb\"",
                                        "\"`:`\"",
                                        "$(:)",
                                        "${y%% *}",
                                        "\xC2\xA0",
                                        "\r",
                                        "\v"};
  const int rounds = rounds_or(600);
  std::vector<std::string> lists;
  for (int round = 0; round < rounds; ++round) {
    std::string words;
    const std::size_t count = 1 + random() % 3;
    for (std::size_t w = 0; w < count; ++w) {
      if (w > 0) words += ' ';
      for (std::size_t n = 1 + random() % 4; n > 0; --n) words += pieces[random() % pieces.size()];
    }
    lists.push_back(std::move(words));
  }
  std::size_t known_count = 0;
  for (std::size_t begin = 0; begin < lists.size(); begin += 200) {  // as many as one bash does before its alarm
    const std::vector<std::string> part(lists.begin() + static_cast<std::ptrdiff_t>(begin),
                                        lists.begin() + static_cast<std::ptrdiff_t>(std::min(begin + 200, lists.size())));
    const auto theirs = words_of_bash(bash, words_prelude, part);
    if (!theirs) GTEST_SKIP() << "no /bin/bash here: words are not compared";
    ASSERT_EQ(theirs->size(), part.size());
    for (std::size_t i = 0; i < part.size(); ++i) {
      const auto known = our_words(std::string(words_prelude) + "printf '%s\\0' w " + part[i], bash.folder());
      if (!known || (*theirs)[i].empty()) continue;  // not known to us, or refused by bash
      ++known_count;
      EXPECT_EQ(*known, (*theirs)[i]) << part[i];
    }
  }
  EXPECT_GT(known_count, lists.size() / 2);
}

// A random course of commands that print their number; most are valid, since their parts are.
class Courses {
 public:
  explicit Courses(std::uint64_t seed) : random_(seed) {}
  int numbers() const { return number_; }
  std::string next() {
    number_ = 0;
    std::string text = list(3);
    // Sometimes something is put where it does not belong.
    if (random_() % 2 == 0) {
      static const std::vector<std::string> noise{"(",     ")",  "'",  "\"", "`",   "\\",  "#",        " #",   "\\\n",     "$(",
                                                  "${",    "}",  "{",  ";;", "&",   "|",   "\n",       "\r",   "\xC2\xA0", "<<E\n",
                                                  "\nE\n", "$'", "((", "))", "[[ ", " ]]", "esac ",    "fi ",  "done ",    " in ",
                                                  "!",     "<(", ">(", "=(", "$",   "\t",  "<<-'E'\n", "&>a ", "|&"};
      text.insert(random_() % (text.size() + 1), pick(noise));
    }
    return text;
  }

 private:
  const std::string& pick(const std::vector<std::string>& from) { return from[random_() % from.size()]; }
  std::string echo() {
    static const std::vector<std::string> forms{"echo N >&9",
                                                "e\\cho N >&9",
                                                "'echo' N 1>&9",
                                                "$E N >&9",
                                                "{echo,N} >&9",
                                                "\"echo\" N>&9",
                                                ">&9 echo N",
                                                "X=1 echo N >&9",
                                                "ec\\\nho N >&9",
                                                "command echo N >&9",
                                                "builtin echo N >&9",
                                                "eval 'echo N >&9'",
                                                "eval echo N '>&9'",
                                                "$'\\x65cho' N >&9",
                                                "e${x}cho N >&9",
                                                "e$@cho N >&9",
                                                "e''cho N >&9 # '",
                                                "echo \"N\"#\" >&9",
                                                "[[ a == a ]] && echo N >&9",
                                                "if true; then echo N >&9; fi"};
    std::string form = pick(forms);
    const std::string mark = "n" + std::to_string(++number_) + "n";
    form.replace(form.find('N'), 1, mark);
    return form;
  }
  std::string statement(int depth) {
    if (depth <= 0 || random_() % 3 == 0) return echo();
    switch (random_() % 16) {
      case 0: return "(" + list(depth - 1) + ")";
      case 1: return "{ " + list(depth - 1) + "; }";
      case 2: return "if " + list(depth - 1) + "; then " + list(depth - 1) + "; else " + list(depth - 1) + "; fi";
      case 3: return "for i in 1 'a b' {2..3}; do " + list(depth - 1) + "; done";
      case 4: return "while " + list(depth - 1) + "; do " + list(depth - 1) + "; break; done";
      case 5: return "case x in y) " + list(depth - 1) + ";; (x|z) " + list(depth - 1) + ";& *) " + list(depth - 1) + "\nesac";
      case 6: return "f() { " + list(depth - 1) + "; }; f";
      case 7: return "true $(" + list(depth - 1) + ") a";
      case 8: return "true \"a $(" + list(depth - 1) + ") `" + "true" + "` b\"";
      case 9: return "cat() { :; }; cat <<E\ntext $(" + list(0) + ") \"'\nE\n" + statement(depth - 1);
      case 10: return "true <<'E'\ntext $(x \"'\nE\n" + statement(depth - 1);
      case 11: return "! " + statement(depth - 1);
      case 12: return "time " + statement(depth - 1);
      case 13: return "true ${u:-$(" + list(depth - 1) + ")} $((1 + 2)) # it's (\n" + statement(depth - 1);
      case 14: return "A=(1 $(" + list(depth - 1) + ") # x\n 2); " + statement(depth - 1);
      default: return "trap '" + std::string("echo n") + std::to_string(++number_) + "n >&9' EXIT; " + statement(depth - 1);
    }
  }
  std::string list(int depth) {
    static const std::vector<std::string> joints{"; ", " && ", " || ", " | ", "\n", " & ", " |& ", " &&\n", "; # c\n", ";\\\n"};
    std::string out = statement(depth);
    for (std::size_t n = random_() % 3; n > 0; --n) out += pick(joints) + statement(depth - 1);
    return out;
  }
  std::mt19937_64 random_;
  int number_ = 0;
};

// Each number that bash prints must be in a command that we saw, unless the text is refused or unresolvable.
TEST(Shell, NothingThatBashRunsGoesUnseen) {
  const Bash bash;
  const char* given = std::getenv("HEARTH_TEST_SEED");
  const std::uint64_t seed = given != nullptr ? std::strtoull(given, nullptr, 10) : 7;
  Courses courses(seed);
  SCOPED_TRACE("seed " + std::to_string(seed));
  int ran = 0;
  int read = 0;
  const int rounds = rounds_or(250);
  for (int round = 0; round < rounds; ++round) {
    const std::string text = "E=echo\n" + courses.next();
    const auto output = bash.run(text, 2);
    if (!output) GTEST_SKIP() << "no /bin/bash here: courses are not compared";
    if (output->empty()) continue;
    ++ran;
    const auto script = parse_shell(text, action_in(bash.folder()));
    if (!script.ok() || script->truncated) continue;
    ++read;
    std::string seen;
    for (const Command& command : script->commands) seen += show(command) + "\n";
    for (int i = 1; i <= courses.numbers(); ++i) {
      const std::string mark = "n" + std::to_string(i) + "n";
      if (output->find(mark) == std::string::npos) continue;
      EXPECT_NE(seen.find(mark), std::string::npos) << mark << " runs unseen in:\n" << text << "\nseen:\n" << seen;
    }
  }
  std::printf("%d of %d texts ran something, %d of them were read\n", ran, rounds, read);
  EXPECT_GT(ran, rounds / 3);
  EXPECT_GT(read, ran / 3);
}

TEST(Shell, WhatIsTooMuchIsRefusedOrUnresolvable) {
  const Action action = action_in();
  const auto unresolvable = [&](const std::string& text) {
    const auto script = parse_shell(text, action);
    return !script.ok() || script->truncated;
  };
  EXPECT_TRUE(unresolvable(std::string(longest_script + 1, 'a')));
  std::string deep;
  while (deep.size() < 1000000) deep += "$(";
  EXPECT_TRUE(unresolvable(deep));
  std::string open;
  while (open.size() < 1000000) open += "((";
  EXPECT_TRUE(unresolvable(open));
  std::string braces;
  while (braces.size() < 1000000) braces += "{ ";
  EXPECT_TRUE(unresolvable(braces));
  std::string segments;
  for (int i = 0; i < 100000; ++i) segments += "ls; ";
  EXPECT_TRUE(unresolvable(segments));
  std::string chain = "ls";
  for (int i = 0; i < 100000; ++i) chain += " && ls";
  EXPECT_TRUE(unresolvable(chain));
  EXPECT_TRUE(unresolvable("echo {a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}"));
  EXPECT_TRUE(
      unresolvable("a=aaaaaaaaaaaaaaaa; for i in {1..150}; do a=$a$a; done; for i in {1..150}; do for j in {1..150}; do $a; done; done"));
  std::string nested = "rm x";
  for (int i = 0; i < 30; ++i) {
    std::string quoted = "sh -c '";
    for (char c : nested) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
    nested = quoted + "'";
    if (nested.size() > longest_script) break;
  }
  EXPECT_TRUE(unresolvable(nested));
}

TEST(Shell, FiftyAndMoreSegmentsAreAllSeen) {
  std::string text;
  for (int i = 0; i < 2000; ++i) text += "true; ";
  const auto script = parse_shell(text + "rm -rf /", action_in());
  ASSERT_TRUE(script.ok()) << script.error().message;
  EXPECT_FALSE(script->truncated);
  ASSERT_EQ(script->commands.size(), 2001u);
  EXPECT_EQ(show(script->commands.back()), "rm -rf /");
}

}  // namespace
}  // namespace hearth::safety
