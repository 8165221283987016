// The scalar quantiser that is optimal for one coordinate of a random direction. A unit vector of `dim` dimensions in random orientation has
// coordinates with density f(x) ∝ (1−x²)^((dim−3)/2), close to N(0, 1/dim); TurboQuant (arXiv 2504.19874) quantises each with the Lloyd–Max codebook
// of that density. Values here are in units of the standard deviation: x·√dim.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace hearth::turboquant {

struct Codebook {
  int dim = 0;
  int bits = 0;
  std::vector<double> centroids;   // 2^bits, ascending, symmetric
  std::vector<double> thresholds;  // 2^bits − 1, halfway between neighbours
  double distortion = 0;           // E[(x−c(x))²] of one coordinate = ‖x−x̂‖²/‖x‖² where the norm is kept exactly

  // The centroids as the kernels and the stored format know them: level·step. For up to 4 bits levels are whole numbers within ±127 that one signed
  // byte holds; above, within ±16256 = ±127·128, held as 128·high + low with high in ±127 and low in 0…127.
  std::array<std::int16_t, 256> levels{};
  float step = 0;
};

// The Lloyd–Max codebook for `bits` 1–8 and `dim` ≥ 8, solved by Newton's method on the two optimality conditions; under 1 ms. Deterministic.
Codebook lloyd_max(int bits, int dim);

// The same, remembered for the life of the process. Thread-safe.
const Codebook& codebook(int bits, int dim);

}  // namespace hearth::turboquant
