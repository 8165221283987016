// Judges command lines, one a line of standard input (U+23CE stands for a line break, # begins a comment), and prints for each: how it would be released, its most serious effect, whether that is certain, the program, the reason, and
// the line; tab-separated. With --summary: how many lines have each effect. For looking at large sets by hand.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <iostream>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "safety/commands.h"

using namespace hearth::safety;

using Clock = std::chrono::steady_clock;

static double quantile(std::vector<double>& values, double share) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[static_cast<std::size_t>(share * static_cast<double>(values.size() - 1))];
}

int main(int argc, char** argv) {
  const bool summary = argc > 1 && std::string_view(argv[1]) == "--summary";
  const bool all = argc > 1 && std::string_view(argv[1]) == "--all";
  Action action;
  action.where.working_folder = "/home/user/project";
  action.where.writable_roots = {"/tmp"};
  std::map<std::string, int> counts;
  std::string line;
  int lines = 0;
  std::vector<double> parsing, assessing;
  while (std::getline(std::cin, line)) {
    for (auto at = line.find("\xE2\x8F\x8E"); at != std::string::npos; at = line.find("\xE2\x8F\x8E")) line.replace(at, 3, "\n");
    if (line.empty() || line[0] == '#') continue;
    ++lines;
    const auto start = Clock::now();
    auto script = parse_shell(line, action);
    const auto parsed = Clock::now();
    Assessment assessment;
    if (script) assessment = assess_script(*script, action);
    else assessment.problem = script.error().message;
    parsing.push_back(std::chrono::duration<double, std::micro>(parsed - start).count());
    assessing.push_back(std::chrono::duration<double, std::micro>(Clock::now() - parsed).count());
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
  if (summary) {
    for (const auto& [key, count] : counts) std::printf("%6d\t%s\n", count, key.c_str());
    std::printf("%6d\tlines; microseconds a line, median and 99th percentile: parsing %.1f %.1f, assessing %.1f %.1f\n", lines,
                quantile(parsing, 0.5), quantile(parsing, 0.99), quantile(assessing, 0.5), quantile(assessing, 0.99));
  }
}
