// Layer 4: the operator's rules. One readable file says what is allowed, recorded, asked about and refused; it is checked as a whole before any of it counts, its
// own examples included.
#pragma once

#include <memory>
#include <optional>
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

// What the rules of one call may look at.
struct PolicyInput {
  const Action* action = nullptr;
  const Assessment* assessment = nullptr;
  const std::vector<Match>* spills = nullptr;
  double trajectory_score = 0;  // of layer 3; above 0 = unlike ordinary sessions
  double guard_probability = 0; // of layer 2
  int minute_of_day = 0;        // local time
  int day_of_week = 1;          // 1 = Monday
};

class Policy {
 public:
  // The policy that hearth ships.
  static const Policy& shipped();
  static std::string_view shipped_text();
  // config_invalid with "NAME:LINE:COLUMN: …" of the first mistake, and what would be right. A rule whose examples do not behave as they say is a mistake.
  static Result<Policy> parse(std::string_view text, std::string_view name);

  // Adds a finding for each rule that holds, and the gate's own for each dangerous or unknown effect. The strictest wins, whatever the order of the rules.
  void judge(const PolicyInput& input, Verdict& verdict) const;

  // What the file says beside rules.
  const ToolTable& tools() const;
  // Adds writable roots, protected paths and trusted hosts of the file.
  void complete(Surroundings& where) const;

  struct RuleInfo {
    std::string name;
    Decision decision = Decision::deny;
    std::string reason;
    int line = 0;
  };
  const std::vector<RuleInfo>& rules() const;

  Policy(Policy&&) noexcept;
  Policy& operator=(Policy&&) noexcept;
  ~Policy();

 private:
  class Impl;
  explicit Policy(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace hearth::safety
