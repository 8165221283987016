// Layer 2, TS-Guard: a small learned classifier over calls. It has seen what people refused and corrected, and notices likeness where no rule was written. It can only
// tighten: what it thinks harmless stays as strict as the other layers made it.
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
  // The shipped model.
  static Result<Guard> shipped();
  // A model file as `save` writes it; config_invalid or io.
  static Result<Guard> load(const std::string& path);
  Result<void> save(const std::string& path) const;

  // Calibrated probability that a person would refuse the call. Linear in the size of the call. Thread-safe.
  double probability(const Action& action, const Assessment& assessment) const;
  // One step of online learning from an operator's word. Not while another thread judges.
  void learn(const Action& action, const Assessment& assessment, bool refused);

  Guard(Guard&&) noexcept;
  Guard& operator=(Guard&&) noexcept;
  ~Guard();

 private:
  class Impl;
  explicit Guard(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace hearth::safety
