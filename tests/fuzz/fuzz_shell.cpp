// Whatever the text, reading it ends, within its bounds; twice the same text gives the same; and a plain command before it on a line of its own is always among what is seen, unless
// the text is refused or unresolvable.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "safety/shell.h"

using namespace hearth::safety;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size > 16384) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  Action action;
  action.where.working_folder = "/home/user/project";
  const auto script = parse_shell(text, action);
  if (!script.ok()) {
    if (script.error().message.empty()) std::abort();
    return 0;
  }
  if (script->commands.size() > most_commands) std::abort();
  for (std::size_t i = 0; i < script->commands.size(); ++i) {
    const Command& command = script->commands[i];
    if (command.pipe_from >= static_cast<int>(i) || command.excerpt.size() > 200 || command.depth > deepest_nesting) std::abort();
  }
  const auto again = parse_shell(text, action);
  if (!again.ok() || again->commands.size() != script->commands.size() || again->truncated != script->truncated) std::abort();
  const auto longer = parse_shell("/seen/first\n" + std::string(text), action);
  if (!longer.ok() || longer->truncated) return 0;
  if (longer->commands.empty() || longer->commands[0].words.empty() || longer->commands[0].words[0].text != "/seen/first") std::abort();
  return 0;
}
