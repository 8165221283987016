// Whatever the bytes, the GGUF reader answers with a model or an Error, and the summary's sums do not overflow.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "catalog/model.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto model = hearth::catalog::parse_model({reinterpret_cast<const char*>(data), size}, "fuzz");
  if (model.ok()) {
    for (const char* type : {"f16", "q8_0", "q4_0"}) (void)hearth::catalog::estimate_memory(*model, model->context, type).total();
  } else if (model.error().message.empty()) {
    __builtin_trap();
  }
  return 0;
}
