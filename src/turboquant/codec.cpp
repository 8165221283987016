#include "turboquant/codec.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>

#include "turboquant/half.h"

namespace hearth::turboquant {
namespace {

constexpr std::uint16_t kHalfNan = 0x7e00, kLargestHalf = 0x7bff;

std::uint16_t stored_scale(float scale) { return std::min(float_to_half(scale), kLargestHalf); }

float read_scale(const std::uint8_t* record, const VectorFormat& format) {
  std::uint16_t half = 0;
  std::memcpy(&half, record + format.code_bytes(), 2);
  return half_to_float(half & 0x7fffU);  // no writer sets the sign; what reads foreign bytes ignores it everywhere alike
}

}  // namespace

Result<Codec> Codec::create(VectorFormat format, std::uint64_t seed, ScaleRule rule) {
  if (format.dim < kMinDim || format.dim > kMaxDim || format.dim % 8 != 0) {
    return Error{ErrorCode::unsupported, "vectors of " + std::to_string(format.dim) +
                                             " numbers cannot be compressed: the size must be a multiple of 8 from " +
                                             std::to_string(kMinDim) + " to " + std::to_string(kMaxDim)};
  }
  if (format.bits < kMinBits || format.bits > kMaxBits) {
    return Error{ErrorCode::unsupported, std::to_string(format.bits) + " bits: a width from 1 to 8 is needed"};
  }
  return Codec(format, seed, rule);
}

Codec::Codec(VectorFormat format, std::uint64_t seed, ScaleRule rule)
    : format_(format), rule_(rule), book_(&codebook(format.bits, format.dim)), rotation_(format.dim, seed), tables_(format, *book_) {}

void Codec::encode(const float* x, std::uint8_t* record, const Kernels& kernels) const {
  const int dim = format_.dim;
  float shrunk[kMaxDim], y[kMaxDim];
  float squares = kernels.sum_of_squares(x, dim), unit = 1;
  if (!(squares < std::numeric_limits<float>::infinity())) {  // not finite, or too large to square
    for (int i = 0; i < dim; ++i) {
      if (!std::isfinite(x[i])) {
        std::memset(record, 0, format_.code_bytes());
        std::memcpy(record + format_.code_bytes(), &kHalfNan, 2);
        return;
      }
      shrunk[i] = x[i] * 0x1p-80F;
    }
    x = shrunk;
    squares = kernels.sum_of_squares(x, dim);
    unit = 0x1p80F;
  }
  const float norm = std::sqrt(squares);
  std::uint16_t scale = 0;
  if (norm * unit >= 0x1p-25F) {
    rotation_.forward(kernels, x, y);
    // y/‖x‖ has coordinates of variance 1: the rotation left √dim in.
    const double levels = kernels.quantise(tables_, y, 1 / norm, record);
    double size = 0;
    switch (rule_) {
      case ScaleRule::norm: size = norm / std::sqrt(static_cast<double>(dim)); break;
      case ScaleRule::corrected: size = norm / (std::sqrt(levels) * static_cast<double>(tables_.step)); break;
      case ScaleRule::unbiased: {
        float centroids[kMaxDim];
        kernels.expand(tables_, record, tables_.step, centroids);
        double along = 0;
        for (int i = 0; i < dim; ++i) along += static_cast<double>(centroids[i]) * static_cast<double>(y[i]);
        size = static_cast<double>(norm) * norm * std::sqrt(static_cast<double>(dim)) / along;
        break;
      }
    }
    scale = stored_scale(static_cast<float>(size) * unit);
  }
  if (scale == 0) std::memset(record, 0, format_.code_bytes());
  std::memcpy(record + format_.code_bytes(), &scale, 2);
}

void Codec::encode_half(const std::uint16_t* x, std::uint8_t* record, const Kernels& kernels) const {
  float wide[kMaxDim];
  kernels.from_half(x, format_.dim, wide);
  encode(wide, record, kernels);
}

void Codec::decode(const std::uint8_t* record, float* x, const Kernels& kernels) const {
  const float scale = read_scale(record, format_);
  kernels.expand(tables_, record, tables_.step * scale / std::sqrt(static_cast<float>(format_.dim)), x);
  rotation_.backward(kernels, x);
}

void Codec::decode_half(const std::uint8_t* record, std::uint16_t* x, const Kernels& kernels) const {
  float wide[kMaxDim];
  decode(record, wide, kernels);
  kernels.to_half(wide, format_.dim, x);
}

void Codec::encode_row(const float* x, int vectors, std::uint8_t* row, const Kernels& kernels) const {
  for (int i = 0; i < vectors; ++i)
    encode(x + static_cast<std::ptrdiff_t>(i) * format_.dim, row + static_cast<std::size_t>(i) * format_.bytes(), kernels);
}

void Codec::decode_row(const std::uint8_t* row, int vectors, float* x, const Kernels& kernels) const {
  for (int i = 0; i < vectors; ++i)
    decode(row + static_cast<std::size_t>(i) * format_.bytes(), x + static_cast<std::ptrdiff_t>(i) * format_.dim, kernels);
}

void Codec::rotate(const float* q, float* rotated) const {
  rotation_.forward(best_kernels(), q, rotated);
  const float factor = 1 / std::sqrt(static_cast<float>(format_.dim));
  for (int i = 0; i < format_.dim; ++i) rotated[i] *= factor;
}

void Codec::rotate_back(float* rotated) const {
  rotation_.backward(best_kernels(), rotated);
  const float factor = 1 / std::sqrt(static_cast<float>(format_.dim));
  for (int i = 0; i < format_.dim; ++i) rotated[i] *= factor;
}

float Codec::dot(const float* rotated_query, const std::uint8_t* record) const {
  float levels[kMaxDim];
  best_kernels().expand(tables_, record, 1, levels);
  double sum = 0;
  for (int i = 0; i < format_.dim; ++i) sum += static_cast<double>(levels[i]) * static_cast<double>(rotated_query[i]);
  return static_cast<float>(sum) * tables_.step * read_scale(record, format_);
}

void Codec::add_weighted(float weight, const std::uint8_t* record, float* rotated_sum) const {
  float levels[kMaxDim];
  best_kernels().expand(tables_, record, weight * tables_.step * read_scale(record, format_), levels);
  for (int i = 0; i < format_.dim; ++i) rotated_sum[i] += levels[i];
}

}  // namespace hearth::turboquant
