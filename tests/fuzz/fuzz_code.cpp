// Program text of any language, and SQL: reading it never fails, ends, and always comes to something; the same text comes to the same. The first byte picks the language.
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "safety/commands.h"

using namespace hearth::safety;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 1) return 0;
  static constexpr std::array<std::string_view, 16> languages{"python", "perl",        "ruby",       "node",  "php", "lua",
                                                              "awk",    "sql",         "powershell", "lisp",  "tcl", "r",
                                                              "julia",  "applescript", "groovy",     "elixir"};
  const std::string_view language = languages[data[0] % languages.size()];
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  Action action;
  action.where.working_folder = "/home/user/project";
  const Assessment first = assess_code(language, text, action);
  if (first.observations.empty() && first.problem.empty()) std::abort();
  for (const auto& observation : first.observations)
    if (observation.excerpt.size() > 200 || observation.reason.empty()) std::abort();
  const Assessment second = assess_code(language, text, action);
  const bool same = std::equal(first.observations.begin(), first.observations.end(), second.observations.begin(), second.observations.end(),
                               [](const Observation& a, const Observation& b) {
                                 return a.effect == b.effect && a.certain == b.certain && a.target == b.target && a.reason == b.reason;
                               });
  if (!same || first.problem != second.problem) std::abort();
  return 0;
}
