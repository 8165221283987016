// Whether a condition holds for one thing that a call does. What cannot be known before the call runs answers "maybe": rules that tighten take that for
// a yes, rules that loosen for a no.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "safety/policy.h"
#include "safety/policy_syntax.h"

namespace hearth::safety {

enum class Truth : std::uint8_t { no, maybe, yes };

// * any text, ? one character; without regard to case. Linear in practice, at worst the product of both lengths.
bool wildcard(std::string_view pattern, std::string_view text);
// Whether `host` is matched by one pattern of a `host` test: a glob, a network, or one of ":private", ":public", ":loopback", ":metadata", ":trusted".
bool host_matches(std::string_view pattern, std::string_view host, const Surroundings& where);
// The host that an observation's target names; empty when it names none.
std::string host_of(const Observation& observation);

// One call, seen by many conditions: what they need is worked out once.
class Evaluation {
 public:
  Evaluation(const Document& document, const PolicyInput& input) : doc_(document), in_(input) {}
  // Of the observation that conditions are asked about; null for none.
  void look_at(const Observation* observation);
  Truth holds(const Condition& condition);

 private:
  Truth path(const Condition& condition);
  Truth spill(const Condition& condition) const;
  Truth argument(const Condition& condition);
  Truth text(const std::vector<std::string>& patterns, std::string_view subject) const;

  const Document& doc_;
  const PolicyInput& in_;
  const Observation* observation_ = nullptr;
  std::optional<std::string> host_;
  std::optional<Place> place_;
  std::optional<std::string> command_;
  std::optional<std::vector<std::pair<std::string, std::string>>> arguments_;  // of the call: plain dotted name, text
};

// What can be said of a condition without a call.
struct Reach {
  std::uint32_t effects = 0;  // bit of an effect: it may hold for an observation of it; bit effect_count: it may hold without any
  bool observes = false;      // asks about a single observation
  bool needs_spill = false;   // cannot hold without a spill
  bool asks_uncertain = false;
  bool flows = false;  // speaks of spills or directions; else it is about calls only
};
Reach reach_of(const Condition& condition, const Document& document);
inline constexpr std::uint32_t without_observation = 1U << effect_count;
inline constexpr std::uint32_t all_effects = without_observation - 1;

}  // namespace hearth::safety
