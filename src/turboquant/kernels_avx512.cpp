#include "turboquant/kernels.h"

namespace hearth::turboquant::detail {
const Kernels* avx512_kernels() { return nullptr; }
}  // namespace hearth::turboquant::detail
