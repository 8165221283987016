// Whatever a model writes as arguments, of whatever tool: an assessment that says something, and within bounds.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "safety/policy.h"
#include "safety/tools.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace hearth::safety;
  static const ToolTable tools;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto split = text.find('\n');
  Action action;
  action.where = example_surroundings();
  action.call.name = text.substr(0, split);
  if (split != std::string_view::npos) action.call.arguments = text.substr(split + 1);
  const auto assessment = assess_call(action, tools);
  if (assessment.problem.empty() && assessment.observations.empty()) __builtin_trap();
  (void)written_by(action, tools);
  return 0;
}
