// The five layers together. One call in, one verdict out; the strictest layer decides, and whatever goes wrong inside is a denial.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "safety/action.h"
#include "safety/argus.h"
#include "safety/effect.h"
#include "safety/verdict.h"

namespace hearth::safety {

struct JudgeOptions {
  std::string policy_file;                       // empty: the shipped policy
  std::string state_folder;                      // where learned models live; empty: learned models are not kept
  bool guard = true;                             // layer 2
  bool trajectory = true;                        // layer 3
  ArgusOptions argus;                            // layer 5
  std::vector<std::string> protected_documents;  // files whose text layer 5 looks for
  Surroundings where;                            // what the operator says of the place; the policy file adds to it
};

// What the layers saw, for explanations and for learning.
struct Judgement {
  Verdict verdict;
  Assessment assessment;
  double guard_probability = 0;
  double trajectory_score = 0;
};

class Judge {
 public:
  // config_invalid or io: a policy, a document or a learned model that cannot be read.
  static Result<std::unique_ptr<Judge>> make(JudgeOptions options);
  ~Judge();

  // Thread-safe. Never throws: an exception inside becomes a denial of layer stream.
  Judgement judge(Action action) const;

  // What a tool returned, on its way to the model. `tainted` tells whether it carried instructions.
  struct ResultJudgement {
    Verdict verdict;
    std::vector<Match> matches;
    bool tainted = false;
    std::string classification;  // the highest marking in it; empty: none
  };
  // Thread-safe; never throws.
  ResultJudgement judge_result(std::string_view text, const Action& context) const;
  // Text of the model that matched.
  Verdict judge_text(const std::vector<Match>& matches, const Action& context) const;

  // An operator approved or refused a held call: a training row for layers 2 and 3. Thread-safe.
  void learn(const Action& action, bool refused);

  // Reads the policy file again; on a mistake the old policy stays and the error says what is wrong.
  Result<void> reload();
  // Of options and policy together.
  Surroundings where() const;
  const Argus& argus() const;

 private:
  class Impl;
  explicit Judge(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace hearth::safety
