// What a request tells of the place where its calls will run: the calls before, the tools on offer, the working folder that agents state in their prompts.
#pragma once

#include <string>
#include <vector>

#include "chat/request.h"
#include "safety/action.h"

namespace hearth::safety {

// The context of every call of the answer; `call` is empty. `where` is what the operator says; a working folder that it leaves open is taken from the conversation.
Action action_of(const chat::Request& request, Surroundings where);

// The call as the client's own tool of this name would be given it.
Call call_of(const chat::ToolCall& call, const std::vector<chat::ToolSpec>& tools);

// The folder that an agent's own words name ("Working directory: /x", "<cwd>/x</cwd>"), in a system message or an environment_context. Empty when none, or none that is an
// ordinary folder to work in: "/" or a system folder would make everything writable.
std::string stated_folder(const chat::Request& request);

}  // namespace hearth::safety
