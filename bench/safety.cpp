// What judging a shell command costs: reading it into simple commands, layer 1, and all five layers as the server asks them for a call in the midst of a
// conversation; on ordinary lines, and reading on ones that grow.
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
#include "safety/judge.h"
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
  const Policy& policy = Policy::shipped();
  auto judge = Judge::make({});
  if (!judge.ok()) {
    std::fprintf(stderr, "%s\n", judge.error().message.c_str());
    return 1;
  }
  constexpr std::size_t earlier = 16;  // calls before it in the conversation
  std::vector<double> parse, assess, whole;
  for (int round = 0; round < 10; ++round) {
    for (std::size_t i = 0; i < lines.size(); ++i) {
      Action action = action_for(lines[i]);
      auto begin = Clock::now();
      bench::keep(parse_shell(lines[i], action));
      if (round > 0) parse.push_back(us(begin));
      begin = Clock::now();
      bench::keep(assess_call(action, policy.tools()));
      if (round > 0) assess.push_back(us(begin));
      for (std::size_t k = i - std::min(i, earlier); k < i; ++k) action.history.push_back(action_for(lines[k]).call);
      begin = Clock::now();
      bench::keep((*judge)->judge(std::move(action)));
      if (round > 0) whole.push_back(us(begin));
    }
  }
  std::printf("%zu lines\n", lines.size());
  show("read into commands", parse);
  show("layer 1", assess);
  show("all five layers, 16 calls before it", whole);
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
