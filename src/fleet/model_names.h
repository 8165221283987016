// Which model a request means. Clients name models in many ways: by the configured name, by an alias, with an adapter behind a colon, or not at all.
#pragma once

#include <span>
#include <string>

#include "base/result.h"
#include "fleet/fleet.h"

namespace hearth::fleet {

// config_invalid: no model, a name given twice, a spec that lacks what its kind needs.
Result<void> check_specs(std::span<const ModelSpec> specs);

struct Named {
  std::size_t model = 0;  // index
  std::string adapter;    // behind the colon; empty = none
};

// `name` as above; "" is the first model of `role`, or the first of all when no model has that role. model_not_found lists what there is.
Result<Named> find_model(std::span<const ModelSpec> specs, const std::string& name, chat::ModelRole role);

bool has_role(const ModelSpec& spec, chat::ModelRole role);

}  // namespace hearth::fleet
