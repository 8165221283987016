// An engine that leaves its model's tool calls in the text: this reads them out of its stream, so that nobody behind it learns of the difference.
#pragma once

#include <memory>
#include <vector>

#include "wire/dialect.h"
#include "wire/provider.h"

namespace hearth::fleet {

// `tools` are those of the request before wire::write_as_text took them out. What the parser notes goes into the explanation as "dialect".
std::unique_ptr<wire::EventStream> read_dialect(std::unique_ptr<wire::EventStream> inner, wire::Dialect dialect,
                                                std::vector<chat::ToolSpec> tools);

}  // namespace hearth::fleet
