#include "safety/verdict.h"

#include <algorithm>
#include <utility>

namespace hearth::safety {

std::string_view name(Decision decision) {
  switch (decision) {
    case Decision::allow: return "ALLOW";
    case Decision::audit: return "AUDIT";
    case Decision::require: return "REQUIRE";
    case Decision::deny: return "DENY";
  }
  return "";
}

std::string_view name(Layer layer) {
  switch (layer) {
    case Layer::stream: return "stream";
    case Layer::gate: return "gate";
    case Layer::guard: return "guard";
    case Layer::trajectory: return "trajectory";
    case Layer::policy: return "policy";
    case Layer::argus: return "argus";
  }
  return "";
}

void Verdict::add(Finding finding) {
  decision = std::max(decision, finding.decision);
  if (finding.decision == Decision::allow) return;
  const auto later = [](const Finding& a, const Finding& b) {
    return a.decision != b.decision ? a.decision > b.decision : a.layer < b.layer;
  };
  findings.insert(std::upper_bound(findings.begin(), findings.end(), finding, later), std::move(finding));
}

}  // namespace hearth::safety
