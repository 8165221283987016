// Results as people and programs read them: a Markdown table, the same as JSON, and the place in docs/benchmarks.md that a run replaces.
// A figure is the median over rounds with its minimum and maximum; a comparison is made inside each round, between neighbours in time, so that a
// machine that drifts between rounds does not decide it.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace hearth::bench {

double median(std::vector<double> values);

struct Measurement {
  enum class Compare { none, ratio, difference };
  std::string name;
  std::string unit;
  std::vector<std::pair<std::string, std::vector<double>>> rounds;  // target → one value per round
  Compare compare = Compare::none;
  std::string subject, base;               // targets: subject ÷ base, or subject − base
  std::vector<std::string> further_bases;  // compared with likewise, without a goal; those that were not measured are left out
  double goal = 0;                         // NaN: none
  bool at_least = true;                    // else at most
  int decimals = 1;

  void add(const std::string& target, double value);
  // One value per round that has both targets, for a ratio both above 0: noise can swallow what is itself a difference.
  std::vector<double> comparison() const { return comparison_with(base); }
  std::vector<double> comparison_with(const std::string& other) const;
};

struct Report {
  std::string title;
  std::string command;
  std::string machine;
  std::vector<std::string> notes;  // versions, flags, checks: what a reader needs to repeat it
  std::vector<Measurement> measurements;

  std::string markdown() const;
  std::string json() const;
};

// Prints the report, writes the JSON to `json_file` unless empty, and replaces what stands between "<!-- results: NAME -->" and "<!-- end -->" in
// `document` unless empty. Throws when the marks are missing.
void publish(const Report& report, const std::filesystem::path& json_file, const std::filesystem::path& document, std::string_view name);

}  // namespace hearth::bench
