// A random orthogonal map that makes every direction look like every other: after it, the coordinates of any vector are spread like those of a random
// unit vector, so one codebook serves all (TurboQuant, arXiv 2504.19874). In place of a dense random matrix, random signs and a fast transform:
// R = F·D/√dim. D flips signs by a seeded generator. For dim = m·2^k with m odd, F = C_m ⊗ H: the Walsh–Hadamard transform H of each of the m blocks of
// 2^k neighbours, then across the blocks the discrete Hartley transform C_m, (cos + sin)(2πij/m), which is the 1×1 identity where dim is a power of two.
// Both are symmetric, and their own inverses up to the factor dim. All additions happen in one order on every machine, so results are equal bit by bit.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace hearth::turboquant {

struct Kernels;

// Steele, Lea and Flood's generator: the next 64 bits, advancing `state`.
inline std::uint64_t splitmix64(std::uint64_t& state) {
  std::uint64_t z = state += 0x9e3779b97f4a7c15U;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9U;
  z = (z ^ z >> 27) * 0x94d049bb133111ebU;
  return z ^ z >> 31;
}

class Rotation {
 public:
  Rotation(int dim, std::uint64_t seed);

  int dim() const { return dim_; }
  // +1 or −1 for each coordinate: bit i of the stream splitmix64(seed), 64 bits a word, set means −1.
  const std::vector<float>& signs() const { return signs_; }

  // y = √dim·R·x: without the factor, whose place is in a scale. `y` may be `x`. dim floats.
  void forward(const Kernels& kernels, const float* x, float* y) const;
  // x = √dim·Rᵀ·y, in place.
  void backward(const Kernels& kernels, float* y) const;

 private:
  void transform(const Kernels& kernels, float* y) const;

  int dim_, block_, blocks_;
  std::vector<float> signs_;
  std::vector<float> hartley_;  // blocks × blocks
};

}  // namespace hearth::turboquant
