#include "turboquant/rotation.h"

#include <cassert>
#include <cmath>

#include "turboquant/kernels.h"

#pragma clang fp contract(off)

namespace hearth::turboquant {

Rotation::Rotation(int dim, std::uint64_t seed) : dim_(dim), block_(dim & -dim), blocks_(dim / block_) {
  assert(dim > 0);
  std::uint64_t word = 0;
  for (int i = 0; i < dim; ++i) {
    if (i % 64 == 0) word = splitmix64(seed);
    signs_.push_back((word >> (i % 64) & 1U) != 0 ? -1.0F : 1.0F);
  }
  if (blocks_ == 1) return;
  for (int i = 0; i < blocks_; ++i) {
    for (int j = 0; j < blocks_; ++j) {
      const double angle = 2 * 3.14159265358979323846 * (i * j % blocks_) / blocks_;
      hartley_.push_back(static_cast<float>(std::cos(angle) + std::sin(angle)));
    }
  }
}

void Rotation::forward(const Kernels& kernels, const float* x, float* y) const {
  for (int i = 0; i < dim_; ++i) y[i] = x[i] * signs_[static_cast<std::size_t>(i)];
  transform(kernels, y);
}

void Rotation::backward(const Kernels& kernels, float* y) const {
  transform(kernels, y);
  for (int i = 0; i < dim_; ++i) y[i] *= signs_[static_cast<std::size_t>(i)];
}

void Rotation::transform(const Kernels& kernels, float* y) const {
  for (int i = 0; i < blocks_; ++i) kernels.hadamard(y + static_cast<std::ptrdiff_t>(i) * block_, block_);
  if (blocks_ == 1) return;
  float mixed[kMaxDim];
  for (int i = 0; i < dim_; ++i) mixed[i] = 0;
  for (int i = 0; i < blocks_; ++i) {
    float* out = mixed + static_cast<std::ptrdiff_t>(i) * block_;
    for (int j = 0; j < blocks_; ++j) {
      const float factor = hartley_[static_cast<std::size_t>(i * blocks_) + static_cast<std::size_t>(j)];
      const float* in = y + static_cast<std::ptrdiff_t>(j) * block_;
      for (int k = 0; k < block_; ++k) out[k] += factor * in[k];
    }
  }
  for (int i = 0; i < dim_; ++i) y[i] = mixed[i];
}

}  // namespace hearth::turboquant
