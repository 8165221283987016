// Layer 3, TrajAD: the course of a session. Steps that are harmless one by one can be an attack together: read a secret, encode it, send it. Two Markov chains over
// what steps do, one of ordinary sessions and one of attacks, say which of the two a course resembles; equal calls over and over are seen by their digests.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "safety/action.h"
#include "safety/effect.h"

namespace hearth::safety {

// One call of a session as the chain sees it.
struct Step {
  std::vector<Effect> effects;
  std::string target;   // of the most serious effect
  std::string digest;   // equal calls have equal digests: loops
  std::string program;  // of that effect, or one that encodes or packs what it is given
};
Step step_of(const Call& call, const Assessment& assessment);

struct Course {
  double score = 0;    // windowed log-likelihood ratio per step, attack against ordinary, in nats; above 0 = more like an attack
  std::string shape;   // what it looks like: "exfiltration", "deletion", "escalation", "loop", "drift"; empty below 0.5
  std::string reason;  // for people: the steps that made it so
};

class Trajectory {
 public:
  // The shipped chains: assets/trajectory.json, made by tests/tools/train_trajectory.
  static Result<Trajectory> shipped();
  // Has seen nothing: 0 for every course but loops.
  static Trajectory untrained();
  // A file as `save` writes it; config_invalid or io.
  static Result<Trajectory> load(const std::string& path);
  Result<void> save(const std::string& path) const;

  // The last step is the call to judge. Linear in the steps looked at, which are the last 32.
  Course judge(std::span<const Step> steps) const;
  // Learns from a session that a person let pass (ordinary) or stopped. Not while another thread judges.
  void learn(std::span<const Step> steps, bool refused);

  void set_provenance(std::string text);

  Trajectory(Trajectory&&) noexcept;
  Trajectory& operator=(Trajectory&&) noexcept;
  ~Trajectory();

 private:
  class Impl;
  explicit Trajectory(std::unique_ptr<Impl> impl);
  static Result<Trajectory> parse(std::string_view text, std::string_view name);
  std::unique_ptr<Impl> impl_;
};

}  // namespace hearth::safety
