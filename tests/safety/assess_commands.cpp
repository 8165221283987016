// Judges command lines, one a line of standard input, and prints for each: how it would be released, its most serious effect, whether that is certain, the program, the reason, and
// the line; tab-separated. With --summary: how many lines have each effect. For looking at large sets by hand.
#include <chrono>
#include <cstdio>
#include <iostream>
#include <map>
#include <string>

#include "safety/commands.h"

using namespace hearth::safety;

int main(int argc, char** argv) {
  const bool summary = argc > 1 && std::string_view(argv[1]) == "--summary";
  const bool all = argc > 1 && std::string_view(argv[1]) == "--all";
  Action action;
  action.where.working_folder = "/home/user/project";
  action.where.writable_roots = {"/tmp"};
  std::map<std::string, int> counts;
  std::string line;
  int lines = 0;
  const auto begin = std::chrono::steady_clock::now();
  while (std::getline(std::cin, line)) {
    ++lines;
    const Assessment assessment = assess_shell(line, action);
    const Observation* worst = nullptr;
    for (const auto& o : assessment.observations) {
      const auto rank = [](const Observation& x) {
        return is_dangerous(x.effect) ? (x.certain ? 3 : 2) : x.effect == Effect::unknown ? 1 : 0;
      };
      if (!worst || rank(o) > rank(*worst)) worst = &o;
    }
    const std::string effect = !assessment.problem.empty() ? "problem" : worst ? std::string(name(worst->effect)) : "nothing";
    const bool flagged = !assessment.problem.empty() || !worst || is_dangerous(worst->effect) || worst->effect == Effect::unknown;
    ++counts[(flagged ? "flagged\t" : "ordinary\t") + effect + (worst && !worst->certain ? "?" : "")];
    if (summary) continue;
    std::printf("%s\t%s\t%s\t%s\t%s\t%s\n", flagged ? "flagged" : "ordinary", effect.c_str(),
                worst && worst->certain ? "certain" : "perhaps", worst ? worst->program.c_str() : "",
                assessment.problem.empty() && worst ? worst->reason.c_str() : assessment.problem.c_str(), line.c_str());
    if (all)
      for (const auto& o : assessment.observations)
        std::printf("    %s%s\t%s\t%s\n", std::string(name(o.effect)).c_str(), o.certain ? "" : "?", o.target.c_str(), o.reason.c_str());
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  if (summary) {
    for (const auto& [key, count] : counts) std::printf("%6d\t%s\n", count, key.c_str());
    std::printf("%6d\tlines, %.1f us each\n", lines, seconds * 1e6 / std::max(lines, 1));
  }
}
