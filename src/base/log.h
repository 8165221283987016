// The one logger (the only singleton): one line an event on standard error. Prompts, completions and keys are never logged; callers log ids,
// counts and names.
#pragma once

#include <spdlog/spdlog.h>

#include <string_view>

#include "base/result.h"

namespace hearth {

// Sets level (trace, debug, info, warn, error, off) and the process name shown in each line. Call once, early.
Result<void> init_logging(std::string_view process, std::string_view level);

}  // namespace hearth
