#include "fleet/model_names.h"

#include <algorithm>
#include <map>

namespace hearth::fleet {
namespace {

Error bad_spec(const ModelSpec& spec, const std::string& what) {
  return Error{ErrorCode::config_invalid, "model \"" + spec.id + "\" " + what, "models"};
}

const ModelSpec* by_name(std::span<const ModelSpec> specs, std::string_view name) {
  for (const auto& spec : specs) {
    if (spec.id == name || std::find(spec.aliases.begin(), spec.aliases.end(), name) != spec.aliases.end()) return &spec;
  }
  return nullptr;
}

}  // namespace

bool has_role(const ModelSpec& spec, chat::ModelRole role) {
  return std::find(spec.roles.begin(), spec.roles.end(), role) != spec.roles.end();
}

Result<void> check_specs(std::span<const ModelSpec> specs) {
  if (specs.empty()) return Error{ErrorCode::config_invalid, "there is no model to serve", "models"};
  std::map<std::string, std::string> names;  // name → whose
  for (const auto& spec : specs) {
    if (spec.id.empty()) return Error{ErrorCode::config_invalid, "a model has no name", "models"};
    auto all = spec.aliases;
    all.push_back(spec.id);
    for (const auto& name : all) {
      const auto [other, added] = names.emplace(name, spec.id);
      if (added) continue;
      if (other->second == spec.id) return bad_spec(spec, "is named \"" + name + "\" twice, or is given twice");
      return bad_spec(spec, "has a name, \"" + name + "\", that model \"" + other->second + "\" has too: every name stands for one model");
    }
    const bool local = spec.kind == ModelKind::worker || spec.kind == ModelKind::command;
    if (local && spec.command.empty()) return bad_spec(spec, "has no command line");
    if (!local && spec.remotes.empty()) return bad_spec(spec, "names no endpoint that serves it");
  }
  return {};
}

Result<Named> find_model(std::span<const ModelSpec> specs, const std::string& name, chat::ModelRole role) {
  const auto index = [&](const ModelSpec* spec) { return static_cast<std::size_t>(spec - specs.data()); };
  if (name.empty()) {
    for (const auto& spec : specs) {
      if (has_role(spec, role)) return Named{index(&spec), {}};
    }
    return Named{};
  }
  if (const auto* spec = by_name(specs, name)) return Named{index(spec), {}};
  // Names may hold colons themselves: the longest one wins.
  for (auto colon = name.rfind(':'); colon != std::string::npos && colon > 0; colon = name.rfind(':', colon - 1)) {
    const auto* spec = by_name(specs, std::string_view(name).substr(0, colon));
    if (!spec) continue;
    const auto adapter = name.substr(colon + 1);
    // What Ollama's clients write for "no tag".
    if (adapter.empty() || adapter == "latest") return Named{index(spec), {}};
    if (spec->kind == ModelKind::worker) return Named{index(spec), adapter};
  }
  std::string all;
  for (const auto& spec : specs) all += (all.empty() ? "" : ", ") + spec.id;
  return Error{ErrorCode::model_not_found, "there is no model \"" + name.substr(0, 200) + "\" here; there is: " + all, "model"};
}

}  // namespace hearth::fleet
