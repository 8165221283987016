// From settings to a fleet: every configured model, those a folder holds, and the one that flags alone describe, checked against their files and against
// each other, with what each will take and the command line of each worker. Nothing is started and nothing is loaded here.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "app/config.h"
#include "base/result.h"
#include "chat/event.h"
#include "fleet/fleet.h"

namespace hearth::app {

struct FleetPlan {
  fleet::FleetOptions options;
  std::vector<std::string> places;    // where each of options.models comes from, for messages
  std::vector<std::string> warnings;  // what was passed over, what will not fit
};

struct Surroundings {
  std::string program;          // of ours; workers are started as `program worker …`
  std::uint64_t available = 0;  // host memory; 0 = unknown
  // What engine.url said it serves; empty: it does not answer yet.
  std::vector<chat::ModelInfo> engine_models;
};

// config_invalid or model_invalid with the place: two models of one name, what a kind needs and lacks, a configured file that is broken. Broken files of
// the folder are only warned of.
Result<FleetPlan> plan_fleet(const Config& config, const Surroundings& surroundings);

// The name clients know a model by when none is configured: the file's name, without ".gguf" and the number of a split part.
std::string default_model_name(std::string_view path);

}  // namespace hearth::app
