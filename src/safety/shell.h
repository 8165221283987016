// A shell command as what it would run. Text is parsed with a grammar, not matched: words are unquoted, constants and simple expansions folded, wrappers
// peeled, and every simple command in every branch comes out, whatever the text around it looks like. What cannot be resolved before it runs is marked so.
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "safety/action.h"

namespace hearth::safety {

// A word after quoting and expansion, as far as that can be known. `exact` false: parts depend on run time; `text` then holds what is known, with each unknown
// part as one U+FFFD.
struct Word {
  std::string text;
  bool exact = true;
  bool glob = false;          // holds an unquoted pattern: `text` is a glob
  bool substitution = false;  // part of it is the output of a command (which is among the commands)
  bool quoted = false;        // some of it was quoted: not an assignment, alias or keyword
};

struct Redirect {
  enum class Kind { read, write, append, here };  // here: here-document or here-string; `body` holds it
  Kind kind = Kind::read;
  int descriptor = -1;  // -1: the usual one
  Word target;
  std::string body;
  bool body_exact = true;
};

struct Assignment {
  std::string name;
  Word value;
  bool exported = false;
};

// One simple command, wrappers peeled.
struct Command {
  std::vector<Word> words;  // words[0] is the program; empty for assignments or redirections alone
  std::vector<Assignment> assignments;
  std::vector<Redirect> redirects;
  std::vector<std::string> wrappers;  // what was peeled, outermost first: "sudo", "timeout", "xargs", "find -exec", "bash -c", "eval" …
  int depth = 0;                      // how deep inside substitutions, strings given to shells and the like
  int pipe_from = -1;                 // index of the command whose output it reads through a pipe; -1: none
  bool background = false;
  bool appends_arguments = false;  // xargs, parallel, find -exec: more arguments come at run time
  std::string folder;              // working folder it runs in, canonical, after the `cd`s before it; "/?" when not known
  std::string excerpt;             // its source text, at most 200 bytes
};

struct Script {
  std::vector<Command>
      commands;  // every simple command of every branch, in source order; the inside of substitutions before the command that uses it
  bool truncated = false;                      // more than the bound below: judged as unresolvable
  std::map<std::string, std::string> written;  // files whose whole content this text makes known: canonical path → content
};

inline constexpr std::size_t longest_script = std::size_t{1} << 20;  // bytes
inline constexpr std::size_t most_commands = 4096;
inline constexpr int deepest_nesting = 24;  // of shells within shells

// invalid_request when no shell would parse the text, or it is over a bound; the message says where. Interpreters' one-liners (python -c, perl -e, awk …) stay
// commands with their program text as an argument. `written_files` of the action let a script that was written earlier be read when it is run.
// Thread-safe; linear in the size of the text.
Result<Script> parse_shell(std::string_view text, const Action& action);

}  // namespace hearth::safety
