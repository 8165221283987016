// Files of the learned layers: read whole, written whole or not at all.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace hearth::safety {

// io: cannot be read, or is larger than 64 MiB.
Result<std::string> read_model_file(const std::string& path);
// Beside the file first, then renamed over it.
Result<void> write_model_file(const std::string& path, std::string_view bytes);

}  // namespace hearth::safety
