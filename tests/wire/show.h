// The chat vocabulary as JSON, complete: what tests compare and print.
#pragma once

#include <string>

#include "base/json.h"
#include "chat/event.h"
#include "chat/request.h"

namespace hearth::wire {

// Fields at their defaults are left out.
json::object show(const chat::Request& request);
json::object show(const chat::EmbeddingRequest& request);
json::object show(const chat::RerankRequest& request);
// One event a line.
std::string show(const chat::Events& events);

}  // namespace hearth::wire
