// Layer 4: the operator's rules. One readable file says what is allowed, recorded, asked about and refused; it is checked as a whole before any of it counts, its
// own examples included. The language is described in docs/policy.md.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "safety/action.h"
#include "safety/argus.h"
#include "safety/effect.h"
#include "safety/tools.h"
#include "safety/verdict.h"

namespace hearth::safety {

// What is judged: a call on its way to the client, what a tool returned, or text of the model.
enum class Direction { argument, result, text };

// What the rules of one call may look at.
struct PolicyInput {
  const Action* action = nullptr;
  const Assessment* assessment = nullptr;      // null for results and text
  const std::vector<Match>* spills = nullptr;  // null: nobody looked
  double trajectory_score = 0;                 // of layer 3; above 0 = unlike ordinary sessions
  double guard_probability = 0;                // of layer 2
  int minute_of_day = 720;                     // local time
  int day_of_week = 1;                         // 1 = Monday
  Direction direction = Direction::argument;
};

class Policy {
 public:
  // The policy that hearth ships.
  static const Policy& shipped();
  static std::string_view shipped_text();
  // config_invalid with "NAME:LINE:COLUMN: …" of the first mistake, and what would be right. A rule whose examples do not behave as they say is a mistake.
  // `check_examples` false leaves them to run_examples.
  static Result<Policy> parse(std::string_view text, std::string_view name, bool check_examples = true);

  // Adds a finding for each rule that holds, and the gate's own for each dangerous or unknown effect. The strictest wins, whatever the order of the rules.
  // A call that could not be read is denied. Thread-safe; linear in the number of effects.
  void judge(const PolicyInput& input, Verdict& verdict) const;

  // What layers 2 and 3 come to by the file's thresholds.
  Decision guard_decision(double probability) const;
  Decision trajectory_decision(double score) const;

  // What the file says beside rules.
  const ToolTable& tools() const;
  // Adds writable roots, protected paths and trusted hosts of the file.
  void complete(Surroundings& where) const;

  struct RuleInfo {
    std::string name;
    Decision decision = Decision::deny;
    std::string reason;
    int line = 0;
    bool shipped = false;  // came in by `include shipped`
  };
  const std::vector<RuleInfo>& rules() const;
  Decision gate(Effect effect, bool certain) const;

  // Every rule that holds, ALLOW included, in the order of the file.
  struct Holding {
    const RuleInfo* rule = nullptr;
    const Observation* observation = nullptr;  // that it holds for; null where it is about the call as a whole
    bool surely = true;                        // false: it may hold, and that suffices for a rule that tightens
  };
  std::vector<Holding> holding(const PolicyInput& input) const;

  // The examples of the file, which `parse` has checked, and those of a file of cases: lines of `expect DENY "rm -rf /"`.
  struct CaseResult {
    int line = 0;
    bool passed = false;
    std::string text;     // as it stands in the file
    std::string problem;  // what happened instead
  };
  std::vector<CaseResult> run_examples() const;
  // config_invalid when the file of cases itself is wrong.
  Result<std::vector<CaseResult>> run_cases(std::string_view text, std::string_view name) const;

  Policy(Policy&&) noexcept;
  Policy& operator=(Policy&&) noexcept;
  ~Policy();

 private:
  class Impl;
  explicit Policy(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// The place where examples act, and where `hearth policy explain` supposes the tools to run: a project in a user's home.
Surroundings example_surroundings();

}  // namespace hearth::safety
