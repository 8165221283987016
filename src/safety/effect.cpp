#include "safety/effect.h"

#include <algorithm>
#include <array>

namespace hearth::safety {
namespace {

constexpr std::array<std::string_view, effect_count> names{"filesystem_destruction",
                                                           "disk_destruction",
                                                           "privilege_escalation",
                                                           "credential_access",
                                                           "persistence",
                                                           "exfiltration",
                                                           "remote_code",
                                                           "process_control",
                                                           "supply_chain",
                                                           "history_destruction",
                                                           "database_destruction",
                                                           "container_escape",
                                                           "tampering",
                                                           "read",
                                                           "list",
                                                           "write",
                                                           "remove",
                                                           "execute",
                                                           "fetch",
                                                           "send",
                                                           "install",
                                                           "query",
                                                           "change",
                                                           "compute",
                                                           "unknown"};

}  // namespace

std::string_view name(Effect effect) { return names[static_cast<std::size_t>(effect)]; }

std::optional<Effect> effect_from_name(std::string_view text) {
  const auto found = std::find(names.begin(), names.end(), text);
  if (found == names.end()) return {};
  return static_cast<Effect>(found - names.begin());
}

bool Assessment::has(Effect effect) const {
  return std::any_of(observations.begin(), observations.end(), [effect](const auto& o) { return o.effect == effect; });
}

}  // namespace hearth::safety
