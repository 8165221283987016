#include "turboquant/kernels.h"

#include <vector>

#include "turboquant/codebook.h"

namespace hearth::turboquant {

Tables::Tables(VectorFormat shape, const Codebook& book)
    : format(shape), columns(shape.columns()), planes(shape.bits <= 4 ? 1 : 2), padded_dim(8 * shape.columns()), step(book.step) {
  const std::size_t codes = std::size_t{1} << shape.bits;
  for (std::size_t i = 0; i < 256; ++i) {
    const int value = book.levels[i % codes];
    level[i] = static_cast<float>(value);
    high[i] = static_cast<std::int8_t>(planes == 1 ? value : value >> 7);
    low[i] = static_cast<std::int8_t>(planes == 1 ? 0 : value & 127);
  }
  for (std::size_t first = 1; first < codes; first *= 2) {
    const std::size_t span = codes / first;  // codes below a node of this depth
    for (std::size_t i = 0; i < first; ++i) search[first + i] = static_cast<float>(book.thresholds[i * span + span / 2 - 1]);
  }
  for (std::size_t first = 1; 2 * first < codes; first *= 2) {
    for (std::size_t i = 0; i < first; ++i) upper_search[first + i] = search[3 * first + i];
  }
}

std::span<const Kernels* const> available_kernels() {
  static const std::vector<const Kernels*> sets = [] {
    std::vector<const Kernels*> all = {&detail::portable_kernels};
    for (const Kernels* set : {detail::avx2_kernels(), detail::avx512_kernels()}) {
      if (set != nullptr) all.push_back(set);
    }
    return all;
  }();
  return sets;
}

const Kernels& best_kernels() { return *available_kernels().back(); }

}  // namespace hearth::turboquant
