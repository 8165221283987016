// What is decided about a tool call, and why. Layers add findings; the strictest decides, so that no layer can loosen what another tightened.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace hearth::safety {

// In rising strictness.
enum class Decision : std::uint8_t {
  allow,    // released as it came
  audit,    // released, and recorded for somebody to look at
  require,  // held until a person approves; refused when nobody does in time
  deny,     // never released
};
// "ALLOW", "AUDIT", "REQUIRE", "DENY".
std::string_view name(Decision decision);

enum class Layer : std::uint8_t {
  stream,      // the selective buffer itself: over-long, cut, malformed, evaluator failed or too slow
  gate,        // 1: parsed effects
  guard,       // 2: TS-Guard, the learned classifier
  trajectory,  // 3: TrajAD, the session's course
  policy,      // 4: the operator's rules
  argus,       // 5: spillage
};
// "stream", "gate", "guard", "trajectory", "policy", "argus".
std::string_view name(Layer layer);

// One layer's opinion.
struct Finding {
  Decision decision = Decision::deny;
  Layer layer = Layer::stream;
  std::string rule;     // stable name: the effect, the policy rule, the detector, e.g. "filesystem_destruction"
  std::string reason;   // for people and agents: what is wrong
  std::string excerpt;  // the sub-command or span that decided, at most 200 bytes; never a secret in clear: argus masks what it found
  std::string remedy;   // what would be accepted instead; may be empty
};

struct Verdict {
  Decision decision = Decision::allow;
  std::vector<Finding> findings;  // those above allow, strictest first, layers in order among equals
  bool redact = false;            // a rule wants what argus found replaced by stand-ins; means nothing with require or deny
  // Set when argus redacts: what is released instead of the call's own arguments (only with allow or audit).
  std::string replaced_arguments;

  void add(Finding finding);
  // The finding that decided; null for a plain allow.
  const Finding* decisive() const { return findings.empty() ? nullptr : &findings.front(); }
};

}  // namespace hearth::safety
