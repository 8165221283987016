// The demonstration model that travels inside the binary, so that a fresh machine with no other model does its main job. assets/README.md tells
// where it comes from and what not to expect of it.
#pragma once

#include <string_view>

namespace hearth::catalog {

inline constexpr std::string_view default_model_id = "hearth-nano-0";
// As a model path, this means the embedded model.
inline constexpr std::string_view embedded_path = "embedded:";

// The GGUF's bytes; they live as long as the program and are aligned for mapping tensors in place.
std::string_view default_model();
// Lower-case hex, checked when the build was configured.
std::string_view default_model_sha256();

}  // namespace hearth::catalog
