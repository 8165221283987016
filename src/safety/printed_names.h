// What xargs, loops and substitutions act on is often known before it runs: `find src -name '*.o'` prints names below src, `git ls-files` names below the
// working folder, `mktemp` a new one below /tmp. What a command prints counts as such names only where its words leave no other way: text that it was told to
// print, the content of files and lines that were rewritten may be anything.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "safety/shell.h"

namespace hearth::safety {

struct NamesBelow {
  Word root;
  std::string below;  // a glob; empty: the root itself. U+FFFD: some name
};

struct PrintedNames {
  // What a line is: a name; a name, a colon and more (grep -n); fields of which the second is a name (git status); or the ninth (ls -l).
  enum class Lines { names, tagged, second_field, ninth_field };
  Lines lines = Lines::names;
  std::vector<NamesBelow> places;

  // The names as words, one for each place; nothing unless lines are names.
  std::vector<Word> words() const;
};

// By itself, whatever it reads. Nothing: its lines may be anything.
std::optional<PrintedNames> names_printed(std::span<const Word> words);
// As a filter of such lines: grep, sort, head, cut …
std::optional<PrintedNames> names_passed(std::span<const Word> words, const PrintedNames& input);

}  // namespace hearth::safety
