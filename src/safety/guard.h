// Layer 2, TS-Guard: a small learned classifier over calls. It has seen what people refused and corrected, and notices likeness where no rule was written. It can only
// tighten: what it thinks harmless stays as strict as the other layers made it.
//
// Logistic regression over hashed features: the tool, the names of its arguments, effects with their certainty and the places they act on, words, pairs of words and
// stretches of letters of the arguments, and the circumstances (a tainted conversation, a remote model). Never the tenant. Each step of learning is AdaGrad's
// (Duchi, Hazan, Singer, JMLR 2011); the probability is calibrated by Platt's method.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"
#include "safety/action.h"
#include "safety/effect.h"

namespace hearth::safety {

class Guard {
 public:
  // The shipped model: assets/guard.model, made by tests/tools/train_guard.
  static Result<Guard> shipped();
  // Knows nothing: one half for every call.
  static Guard untrained();
  // A model file as `save` writes it; config_invalid or io.
  static Result<Guard> load(const std::string& path);
  // Whole or not at all. `with_steps` keeps what later learning needs to go on as before; a model that is shipped does without.
  Result<void> save(const std::string& path, bool with_steps = true) const;

  // Calibrated probability that a person would refuse the call. Linear in the size of the call. Thread-safe.
  double probability(const Action& action, const Assessment& assessment) const;
  // One step of online learning from an operator's word. Not while another thread judges.
  void learn(const Action& action, const Assessment& assessment, bool refused);

  // probability = logistic(slope · score + offset), where 1 and 0 leave the score as it was learned.
  void calibrate(double slope, double offset);
  // Where the model comes from: data, licences, figures.
  const std::string& provenance() const;
  void set_provenance(std::string text);

  Guard(Guard&&) noexcept;
  Guard& operator=(Guard&&) noexcept;
  ~Guard();

 private:
  class Impl;
  explicit Guard(std::unique_ptr<Impl> impl);
  static Result<Guard> parse(std::string_view bytes, std::string_view name);
  std::unique_ptr<Impl> impl_;
};

}  // namespace hearth::safety
