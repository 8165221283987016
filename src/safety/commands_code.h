// Program text: read by one small evaluator for every language, which folds constants and knows the functions that reach out of a program.
#pragma once

#include <string_view>

#include "safety/commands_model.h"

namespace hearth::safety {

void assess_sql(Context& context, std::string_view text, int depth = 0);
void assess_powershell(Context& context, std::string_view text);

}  // namespace hearth::safety
