// libggml-turboquant.so: what stock llama.cpp tools load through GGML_BACKEND_PATH. Settings come from the environment:
//
//   GGML_TURBOQUANT_PROFILE     profile.h; default k8v4
//   GGML_TURBOQUANT_HEAD_SIZE   smallest head of the model, where it is under 64
#include <ggml-backend-impl.h>
#include <ggml-backend.h>

#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "turboquant/backend.h"

namespace {

std::string_view setting(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

ggml_backend_reg_t make() {
  hearth::turboquant::BackendOptions options;
  if (const auto profile = setting("GGML_TURBOQUANT_PROFILE"); !profile.empty()) options.profile = profile;
  if (const auto size = setting("GGML_TURBOQUANT_HEAD_SIZE"); !size.empty()) {
    const auto [end, failed] = std::from_chars(size.data(), size.data() + size.size(), options.head_size);
    if (failed != std::errc() || end != size.data() + size.size() || options.head_size < 32 || options.head_size % 32 != 0) {
      std::fprintf(stderr, "TurboQuant: GGML_TURBOQUANT_HEAD_SIZE is \"%.*s\": it must be a multiple of 32\n",
                   static_cast<int>(size.size()), size.data());
      return nullptr;
    }
  }
  static auto backend = hearth::turboquant::Backend::create(options);  // ggml never lets go of it
  if (backend) return (*backend)->registry();
  // Before any log is set up, and a tool that goes on without us would use twice the memory somebody counted on.
  std::fprintf(stderr, "TurboQuant: %s (GGML_TURBOQUANT_PROFILE)\n", backend.error().message.c_str());
  return nullptr;
}

}  // namespace

extern "C" __attribute__((visibility("default"))) ggml_backend_reg_t ggml_backend_init() { return make(); }
