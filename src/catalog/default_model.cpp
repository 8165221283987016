#include "catalog/default_model.h"

#include <cstddef>

// The assembler copies the file into the read-only data: no generated source, no link step that depends on the object format of another tool.
asm(".section .rodata.hearth_default_model,\"a\",@progbits\n"
    ".balign 4096\n"
    ".global hearth_default_model_begin\n"
    "hearth_default_model_begin:\n"
    ".incbin \"" HEARTH_DEFAULT_MODEL
    "\"\n"
    ".global hearth_default_model_end\n"
    "hearth_default_model_end:\n"
    ".byte 0\n"
    ".previous\n");

extern "C" {
extern const char hearth_default_model_begin[];
extern const char hearth_default_model_end[];
}

namespace hearth::catalog {

std::string_view default_model() {
  return {hearth_default_model_begin, static_cast<std::size_t>(hearth_default_model_end - hearth_default_model_begin)};
}
std::string_view default_model_sha256() { return HEARTH_DEFAULT_MODEL_SHA256; }

}  // namespace hearth::catalog
