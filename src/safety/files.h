// What lies in a file that a call writes: a script written now does its harm when somebody runs it, so an edit must not do a shell's work. And the paths that
// stand inside of patches.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "safety/action.h"
#include "safety/effect.h"

namespace hearth::safety {

// What `content`, whole or a piece of an edit, would do when the file at `canonical` is run, built or read by its program: shell scripts, make rules, package.json
// scripts, git's and package managers' settings, programs of interpreters. Only what is surely dangerous: a script may delete "$BUILD" without
// anybody knowing what that is, and whoever runs it is judged again.
Assessment assess_file(std::string_view canonical, std::string_view content, const Action& action);

struct PatchedFile {
  std::string path;      // as written
  std::string moved_to;  // empty: stays
  bool removed = false;
  std::string added;  // the lines it brings in
};
// Of unified diffs, git's diffs, and the format of apply_patch ("*** Update File: …").
std::vector<PatchedFile> read_patch(std::string_view text);

}  // namespace hearth::safety
