// The reference: plain loops that say what the other sets compute faster.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "turboquant/half.h"
#include "turboquant/kernels.h"

#pragma clang fp contract(off)

namespace hearth::turboquant {
namespace {

void hadamard(float* x, int n) {
  for (int half = 1; half < n; half *= 2) {
    for (int i = 0; i < n; i += 2 * half) {
      for (int j = i; j < i + half; ++j) {
        const float a = x[j], b = x[j + half];
        x[j] = a + b;
        x[j + half] = a - b;
      }
    }
  }
}

float sum_of_squares(const float* x, int n) {
  float sums[16] = {};
  for (int i = 0; i < n; ++i) sums[i % 16] += x[i] * x[i];
  for (int width = 8; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) sums[i] += sums[i + width];
  }
  return sums[0];
}

double quantise(const Tables& tables, const float* y, float factor, std::uint8_t* codes) {
  std::memset(codes, 0, tables.format.code_bytes());
  double squares = 0;
  for (int i = 0; i < tables.format.dim; ++i) {
    const float z = y[i] * factor;
    unsigned node = 1;
    for (int bit = 0; bit < tables.format.bits; ++bit) node = 2 * node + (z > tables.search[node] ? 1 : 0);
    const unsigned code = node - (1U << tables.format.bits);
    write_code(codes, tables.columns, tables.format.bits, i / tables.columns, i % tables.columns, code);
    squares += static_cast<double>(tables.level[code]) * static_cast<double>(tables.level[code]);
  }
  return squares;
}

void expand(const Tables& tables, const std::uint8_t* codes, float factor, float* y) {
  for (int i = 0; i < tables.format.dim; ++i) {
    y[i] = tables.level[read_code(codes, tables.columns, tables.format.bits, i / tables.columns, i % tables.columns)] * factor;
  }
}

void to_half(const float* x, int n, std::uint16_t* half) {
  for (int i = 0; i < n; ++i) half[i] = float_to_half(x[i]);
}
void from_half(const std::uint16_t* half, int n, float* x) {
  for (int i = 0; i < n; ++i) x[i] = half_to_float(half[i]);
}

// A tile is [plane][token][padded_dim] here.
void unpack(const Tables& tables, const std::uint8_t* records, std::size_t stride, const std::int32_t* index, int count, std::uint8_t* tile,
            float* scale) {
  const int bits = tables.format.bits, columns = tables.columns, dim = tables.padded_dim;
  for (int t = 0; t < kTile; ++t) {
    const std::uint8_t* codes = records + static_cast<std::size_t>(index[t < count ? t : 0]) * stride;
    std::uint16_t half = 0;
    std::memcpy(&half, codes + tables.format.code_bytes(), 2);
    scale[t] = t < count ? half_to_float(half & 0x7fffU) : 0;
    std::uint8_t* high = tile + static_cast<std::ptrdiff_t>(t) * dim;
    std::uint8_t* low = high + static_cast<std::ptrdiff_t>(kTile) * dim;
    for (int i = 0; i < dim; ++i) {
      const unsigned code = read_code(codes, columns, bits, i / columns, i % columns);
      high[i] = static_cast<std::uint8_t>(tables.high[code]);
      if (tables.planes == 2) low[i] = static_cast<std::uint8_t>(tables.low[code]);
    }
  }
}

void dot(const Tables& tables, const std::int8_t* query, const std::int32_t* /*query_sums*/, int query_planes, int rows,
         const std::uint8_t* tile, float* out) {
  const int dim = tables.padded_dim;
  for (int r = 0; r < rows; ++r) {
    for (int t = 0; t < kTile; ++t) {
      float total = 0;
      for (int p = 0; p < query_planes; ++p) {
        for (int k = 0; k < tables.planes; ++k) {
          const std::int8_t* q = query + (static_cast<std::ptrdiff_t>(r) * query_planes + p) * dim;
          const auto* key = reinterpret_cast<const std::int8_t*>(tile) + (static_cast<std::ptrdiff_t>(k) * kTile + t) * dim;
          std::int32_t sum = 0;
          for (int i = 0; i < dim; ++i) sum += q[i] * key[i];
          const int low_planes = (query_planes - 1 - p) + (tables.planes - 1 - k);
          total += static_cast<float>(sum) * static_cast<float>(1 << (7 * low_planes));
        }
      }
      out[r * kTile + t] = total;
    }
  }
}

bool softmax(SoftmaxRow& row) {
  float logits[kTile];
  float max = row.max;
  bool any = false;
  for (int t = 0; t < row.count; ++t) {
    float logit = row.products[t] * row.key_scale[t] * row.factor;
    if (row.softcap != 0) logit = row.softcap * std::tanh(logit);
    const float mask = row.mask != nullptr ? row.slope * half_to_float(row.mask[t]) : 0;
    logits[t] = mask == -std::numeric_limits<float>::infinity() ? mask : logit + mask;
    any = any || logits[t] != -std::numeric_limits<float>::infinity();
    max = std::max(max, logits[t]);
  }
  std::memset(row.high, 0, kTile);
  std::memset(row.low, 0, kTile);
  row.weight_step = 0;
  row.rescale = 1;
  if (!any) return false;

  float weights[kTile] = {}, sum = 0, largest = 0;
  for (int t = 0; t < row.count; ++t) {
    if (logits[t] == -std::numeric_limits<float>::infinity()) continue;
    const float p = std::exp(logits[t] - max);
    sum += p;
    weights[t] = p * row.value_scale[t];
    if (!(weights[t] < std::numeric_limits<float>::infinity())) sum = std::numeric_limits<float>::quiet_NaN();
    largest = std::max(largest, weights[t]);
  }
  row.rescale = std::exp(row.max - max);
  row.sum = row.sum * row.rescale + sum;
  row.max = max;
  if (sum != sum || largest < std::numeric_limits<float>::min()) return true;
  row.weight_step = largest / 16383;
  for (int t = 0; t < row.count; ++t) {
    const auto weight = static_cast<unsigned>(std::lrint(weights[t] * (16383 / largest)));
    row.high[t] = static_cast<std::uint8_t>(weight >> 7);
    row.low[t] = static_cast<std::uint8_t>(weight & 127U);
  }
  return true;
}

void accumulate(const Tables& tables, const std::uint8_t* high, const std::uint8_t* low, int rows, const std::uint8_t* tile,
                const float* rescale, const float* weight_step, float* sum) {
  const int dim = tables.padded_dim;
  for (int r = 0; r < rows; ++r) {
    float* out = sum + static_cast<std::ptrdiff_t>(r) * dim;
    for (int i = 0; i < dim; ++i) out[i] *= rescale[r];
    for (int k = 0; k < tables.planes; ++k) {
      const auto* levels = reinterpret_cast<const std::int8_t*>(tile) + static_cast<std::ptrdiff_t>(k) * kTile * dim;
      const float unit = weight_step[r] * (tables.planes == 2 && k == 0 ? 128.0F : 1.0F);
      std::int32_t totals[kMaxDim] = {};
      for (int t = 0; t < kTile; ++t) {
        const std::int32_t weight = high[r * kTile + t] * 128 + low[r * kTile + t];
        if (weight == 0) continue;
        for (int i = 0; i < dim; ++i) totals[i] += weight * levels[static_cast<std::ptrdiff_t>(t) * dim + i];
      }
      for (int i = 0; i < dim; ++i) out[i] += unit * static_cast<float>(totals[i]);
    }
  }
}

}  // namespace

namespace detail {
constexpr Kernels portable_kernels = {
    .name = "portable",
    .hadamard = hadamard,
    .sum_of_squares = sum_of_squares,
    .quantise = quantise,
    .expand = expand,
    .to_half = to_half,
    .from_half = from_half,
    .unpack_keys = unpack,
    .unpack_values = unpack,
    .dot = dot,
    .softmax = softmax,
    .accumulate = accumulate,
};
}  // namespace detail

}  // namespace hearth::turboquant
