// Layer 3, TrajAD: the course of a session. Steps that are harmless one by one can be an attack together: read a secret, encode it, send it. A Markov chain over effects
// says how unlike the usual a course is.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "safety/action.h"
#include "safety/effect.h"

namespace hearth::safety {

// One call of a session as the chain sees it.
struct Step {
  std::vector<Effect> effects;
  std::string target;  // of the most serious effect
  std::string digest;  // equal calls have equal digests: loops
};
Step step_of(const Call& call, const Assessment& assessment);

struct Course {
  double score = 0;     // windowed log-likelihood ratio per step, attack against ordinary, in nats; above 0 = more like an attack
  std::string shape;    // what it looks like: "exfiltration", "loop", "drift"; empty below the threshold
  std::string reason;   // for people: the steps that made it so
};

class Trajectory {
 public:
  static Result<Trajectory> shipped();
  static Result<Trajectory> load(const std::string& path);
  Result<void> save(const std::string& path) const;
  // The last step is the call to judge.
  Course judge(std::span<const Step> steps) const;
  // Learns from a session that a person let pass (ordinary) or stopped. Not while another thread judges.
  void learn(std::span<const Step> steps, bool refused);

  Trajectory(Trajectory&&) noexcept;
  Trajectory& operator=(Trajectory&&) noexcept;
  ~Trajectory();

 private:
  class Impl;
  explicit Trajectory(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace hearth::safety
