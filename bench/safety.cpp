// What judging a shell command costs: reading it into simple commands, and layer 1 with policy and Argus on top, on ordinary lines and on ones that grow.
//
//   bench_safety [--lines FILE]
//
// Without a file: tests/cases/safety/wide_ordinary.txt of the source tree.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

#include "base/json.h"
#include "safety/argus.h"
#include "safety/policy.h"
#include "safety/shell.h"
#include "safety/tools.h"
#include "timing.h"

using namespace hearth;
using namespace hearth::safety;

namespace {

Action action_for(const std::string& line) {
  Action action;
  action.where.working_folder = "/home/user/project";
  action.where.writable_roots = {"/tmp"};
  action.call.name = "bash";
  action.call.arguments = json::serialize(json::object{{"command", line}});
  return action;
}

void show(const char* what, std::vector<double> us) {
  std::sort(us.begin(), us.end());
  std::printf("%-34s p50 %8.1f us   p99 %8.1f us   max %8.1f us\n", what, us[us.size() / 2], us[us.size() * 99 / 100], us.back());
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("cost of judging shell commands");
  std::string file = HEARTH_SOURCE_DIR "/tests/cases/safety/wide_ordinary.txt";
  app.add_option("--lines", file, "command lines, one a line");
  CLI11_PARSE(app, argc, argv);
  std::vector<std::string> lines;
  std::ifstream stream(file);
  for (std::string line; std::getline(stream, line);) {
    if (!line.empty() && !line.starts_with("# ")) lines.push_back(line);
  }
  if (lines.empty()) {
    std::fprintf(stderr, "no lines in %s\n", file.c_str());
    return 1;
  }
  using Clock = std::chrono::steady_clock;
  const auto us = [](Clock::time_point begin) { return std::chrono::duration<double, std::micro>(Clock::now() - begin).count(); };
  const Argus argus;
  const Policy& policy = Policy::shipped();
  std::vector<double> parse, assess, whole;
  for (int round = 0; round < 10; ++round) {
    for (const std::string& line : lines) {
      const Action action = action_for(line);
      auto begin = Clock::now();
      bench::keep(parse_shell(line, action));
      if (round > 0) parse.push_back(us(begin));
      begin = Clock::now();
      const Assessment assessment = assess_call(action, policy.tools());
      if (round > 0) assess.push_back(us(begin));
      begin = Clock::now();
      const Assessment again = assess_call(action, policy.tools());
      const auto spills = argus.scan_json(action.call.arguments);
      Verdict verdict;
      PolicyInput input;
      input.action = &action;
      input.assessment = &again;
      input.spills = &spills;
      policy.judge(input, verdict);
      if (round > 0) whole.push_back(us(begin));
    }
  }
  std::printf("%zu lines\n", lines.size());
  show("read into commands", parse);
  show("layer 1", assess);
  show("layers 1, 4 and 5", whole);
  for (const char* unit : {"ls -la src; ", "echo \"a $(date) b\" | sort && ", "# a comment\n"}) {
    for (const std::size_t size : {std::size_t{1} << 10, std::size_t{1} << 12, std::size_t{1} << 14}) {
      std::string text;
      while (text.size() < size) text += unit;
      text += "true";
      const Action action = action_for(text);
      const auto seconds = bench::timed(3, 0.05, [&] { bench::keep(parse_shell(text, action)); });
      std::printf("%6zu bytes of %-32.28s %8.1f ns a byte\n", text.size(), json::serialize(json::value(unit)).c_str(),
                  *std::min_element(seconds.begin(), seconds.end()) * 1e9 / static_cast<double>(text.size()));
    }
  }
}
