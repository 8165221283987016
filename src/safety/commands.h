// What simple commands do: the knowledge about programs and their options, kept as tables. A program nobody knows counts as its worst reading only where its
// arguments give reason to.
#pragma once

#include <string_view>

#include "safety/action.h"
#include "safety/effect.h"
#include "safety/shell.h"

namespace hearth::safety {

// The effects of all commands of a script together, data flow through pipes included (`curl … | sh`, `tar c ~/.ssh | nc host 1`).
Assessment assess_script(const Script& script, const Action& action);

// parse_shell and assess_script: a text that cannot be parsed becomes a problem.
Assessment assess_shell(std::string_view text, const Action& action);

// Program text of an interpreter: "python", "perl", "ruby", "node", "php", "awk", "sql".
Assessment assess_code(std::string_view language, std::string_view text, const Action& action);

}  // namespace hearth::safety
