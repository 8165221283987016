// What layer 5 costs: an ordinary call, a stream of text, and how both compare with RE2 alone trying the same patterns of secrets one after another.
#include "safety/argus.h"

#include <re2/re2.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "process.h"
#include "report.h"
#include "safety/argus_secrets.h"
#include "timing.h"

namespace {

using namespace hearth;
using namespace hearth::safety;

constexpr double goal_call_us = 10;
constexpr double goal_mb_s = 100;

// 200 bytes, as agents write them.
constexpr std::string_view call =
    R"({"command": "cd /home/anna/work/shop && git checkout -b fix/totals && npm test -- --runInBand src/cart && git commit -am \"Totals are rounded once\" && git push -u origin fix/totals", "timeout": 120000})";

std::string prose(std::size_t size) {
  static constexpr std::string_view sentences[] = {"The function reads the file line by line and keeps the longest one. ",
                                                   "If the list is empty, return early; otherwise sort it by date. ",
                                                   "You can run the tests with make check, which takes about 40 seconds. ",
                                                   "A token bucket limits how many requests a client may send. ",
                                                   "In 2023 the team moved 12 services to the new cluster without an outage. ",
                                                   "Keep secrets out of the repository and passwords out of logs. "};
  std::string text;
  for (std::size_t i = 0; text.size() < size; ++i) text += sentences[(i * 7 + i / 5) % std::size(sentences)];
  return text;
}

// The same patterns, whole, with nothing in front of them.
class PlainRe2 {
 public:
  PlainRe2() {
    for (std::size_t i = 0; i < argus::secret_rule_count; ++i) {
      std::string pattern = argus::secret_rules[i].pattern;
      const auto put = [&pattern](std::string_view name, std::string_view text) {
        for (std::size_t at; (at = pattern.find(name)) != std::string::npos;) pattern.replace(at, name.size(), text);
      };
      put("{KEYI}", R"re((?:[ \t\w.-]{0,20})[\s'"]{0,3})(?:=|>|:{1,3}=|\|\||:|=>|\?=|,)[\x60'"\s=]{0,5})re");
      put("{KEY}", R"re((?:[ \t\w.-]{0,20})[\s'"]{0,3}(?:=|>|:{1,3}=|\|\||:|=>|\?=|,)[\x60'"\s=]{0,5})re");
      put("{END}", R"re((?:[\x60'"\s;]|\\[nr]|$))re");
      re2::RE2::Options options;
      options.set_encoding(re2::RE2::Options::EncodingLatin1);
      options.set_max_mem(64 << 20);
      patterns_.push_back(std::make_unique<re2::RE2>(pattern, options));
    }
  }
  std::size_t scan(std::string_view text) const {
    std::size_t matches = 0;
    for (const auto& pattern : patterns_) matches += re2::RE2::PartialMatch(re2::StringPiece(text.data(), text.size()), *pattern) ? 1 : 0;
    return matches;
  }

 private:
  std::vector<std::unique_ptr<re2::RE2>> patterns_;
};

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Times what scanning for spillage costs."};
  int rounds = 9;
  bool quick = false;
  std::string json_file, document;
  app.add_option("--rounds", rounds, "Rounds of each measurement")->capture_default_str();
  app.add_flag("--quick", quick, "Three short rounds");
  app.add_option("--json", json_file, "Write every round's values here");
  app.add_option("--write", document, "Replace the results in this document");
  CLI11_PARSE(app, argc, argv);
  if (quick) rounds = 3;

  const Argus scanner;
  const PlainRe2 plain;
  const std::string text = prose(1 << 20);
  using bench::Measurement;
  Measurement one_call{.name = "one call of 200 bytes, as JSON",
                       .unit = "µs",
                       .compare = Measurement::Compare::none,
                       .subject = "argus",
                       .goal = goal_call_us,
                       .at_least = false,
                       .decimals = 2};
  Measurement same_call{.name = "the same bytes as text, against RE2",
                        .unit = "µs",
                        .compare = Measurement::Compare::ratio,
                        .subject = "argus",
                        .base = "RE2 one by one",
                        .goal = 1,
                        .at_least = false,
                        .decimals = 2};
  Measurement stream{.name = "prose, 1 MiB, whole",
                     .unit = "MB/s",
                     .compare = Measurement::Compare::ratio,
                     .subject = "argus",
                     .base = "RE2 one by one",
                     .goal = 1,
                     .at_least = true,
                     .decimals = 1};
  Measurement pieces{.name = "prose in a stream, pieces of 4 KiB, 1 KiB held back",
                     .unit = "MB/s",
                     .compare = Measurement::Compare::none,
                     .subject = "argus",
                     .goal = goal_mb_s,
                     .at_least = true,
                     .decimals = 1};
  for (int round = 0; round < rounds; ++round) {
    one_call.add("argus", bench::timed(1, 0.1, [&] { bench::keep(scanner.scan_json(call)); })[0] * 1e6);
    same_call.add("argus", bench::timed(1, 0.1, [&] { bench::keep(scanner.scan(call)); })[0] * 1e6);
    same_call.add("RE2 one by one", bench::timed(1, 0.1, [&] { bench::keep(plain.scan(call)); })[0] * 1e6);
    const double megabytes = static_cast<double>(text.size()) / 1e6;
    stream.add("argus", megabytes / bench::timed(1, 0.2, [&] { bench::keep(scanner.scan(text)); })[0]);
    stream.add("RE2 one by one", megabytes / bench::timed(1, 0.2, [&] { bench::keep(plain.scan(text)); })[0]);
    pieces.add("argus", megabytes / bench::timed(1, 0.2, [&] {
                          Argus::Stream passing(scanner, 1024);
                          std::vector<Match> found;
                          for (std::size_t at = 0; at < text.size(); at += 4096)
                            bench::keep(passing.push(std::string_view(text).substr(at, 4096), true, found));
                          bench::keep(passing.finish(true, found));
                        })[0]);
  }
  bench::Report report;
  report.title = "Spillage (layer 5)";
  report.command = std::string("bench/run micro") + (quick ? " --quick" : "");
  report.machine = bench::machine_line();
  report.notes = {std::to_string(argus::secret_rule_count) +
                  " patterns of secrets on both sides; Argus looks for markings, personal data and what is wrapped as well"};
  report.measurements = {one_call, same_call, stream, pieces};
  bench::publish(report, json_file, document, "argus");
  return 0;
}
