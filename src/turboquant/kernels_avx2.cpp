// AVX2: nearly every x86-64 since 2013. Products are of 16-bit numbers, summed in pairs.
//
// Tiles are of 16-bit levels: keys [plane][token][padded_dim], values [plane][pair of tokens][padded_dim][2 tokens].
#include "turboquant/kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include <cstring>
#include <limits>

#pragma clang fp contract(off)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)

namespace hearth::turboquant {
namespace {

#define INLINE inline __attribute__((always_inline))

// Planes of packed codes → the codes of coordinates o = 0…7 of each byte column.
template <int bits>
INLINE void extract(const __m256i* p, __m256i* code) {
  if constexpr (bits == 1) {
    for (int o = 0; o < 8; ++o) code[o] = _mm256_srli_epi16(p[0], o);
  } else if constexpr (bits == 2) {
    for (int o = 0; o < 8; ++o) code[o] = _mm256_srli_epi16(p[o / 4], o % 4 * 2);
  } else if constexpr (bits == 3) {
    for (int o = 0; o < 6; ++o) code[o] = _mm256_srli_epi16(p[o / 2], o % 2 * 3);
    const __m256i two = _mm256_set1_epi8(3), four = _mm256_set1_epi8(4);
    code[6] = _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(p[0], 6), two), _mm256_and_si256(_mm256_srli_epi16(p[1], 4), four));
    code[7] = _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(p[2], 6), two), _mm256_and_si256(_mm256_srli_epi16(p[1], 5), four));
  } else if constexpr (bits == 4) {
    for (int o = 0; o < 8; ++o) code[o] = _mm256_srli_epi16(p[o / 2], o % 2 * 4);
  } else if constexpr (bits == 8) {
    for (int o = 0; o < 8; ++o) code[o] = p[o];
  } else {
    __m256i low[8], high[8];
    extract<4>(p, low);
    extract<bits - 4>(p + 4, high);
    for (int o = 0; o < 8; ++o) code[o] = _mm256_or_si256(low[o], _mm256_slli_epi16(high[o], 4));
  }
  if constexpr (bits < 8) {
    for (int o = 0; o < 8; ++o) code[o] = _mm256_and_si256(code[o], _mm256_set1_epi8((1 << bits) - 1));
  }
}

// 16 bytes at `offset` of a record, fewer at its end.
INLINE __m128i load(const std::uint8_t* record, std::size_t offset, std::size_t record_bytes) {
  if (offset + 16 <= record_bytes) return _mm_loadu_si128(reinterpret_cast<const __m128i*>(record + offset));
  alignas(16) std::uint8_t rest[16] = {};
  std::memcpy(rest, record + offset, record_bytes - offset);
  return _mm_load_si128(reinterpret_cast<const __m128i*>(rest));
}

INLINE void read_scales(const Tables& tables, const std::uint8_t* records, std::size_t stride, const std::int32_t* index, int count,
                        float* scale) {
  alignas(32) std::uint16_t half[kTile] = {};
  const std::uint8_t* at = records + tables.format.code_bytes();
  for (int t = 0; t < count; ++t) std::memcpy(&half[t], at + static_cast<std::size_t>(index[t]) * stride, 2);
  for (int t = 0; t < kTile; t += 8) {
    const __m128i bits = _mm_and_si128(_mm_load_si128(reinterpret_cast<const __m128i*>(half + t)), _mm_set1_epi16(0x7fff));
    _mm256_storeu_ps(scale + t, _mm256_cvtph_ps(bits));
  }
}

// Two tokens at a time, one in each half of a register. Of columns that do not fill a register the surplus is stored too, over what is stored later:
// last columns first, coordinates and tokens in ascending order, and past the end of the tile, which has room for it.
template <int bits, bool values>
void unpack_of(const Tables& tables, const std::uint8_t* records, std::size_t stride, const std::int32_t* index, int count,
               std::uint8_t* tile, float* scale) {
  read_scales(tables, records, stride, index, count, scale);
  const int columns = tables.columns, dim = tables.padded_dim;
  const std::size_t record_bytes = tables.format.bytes();
  const __m256i table = _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(tables.high.data())));
  auto* const out = reinterpret_cast<std::int16_t*>(tile);
  for (int plane = 0; plane < (bits > 4 ? 2 : 1); ++plane) {
    const std::int8_t* const slow_table = plane == 0 ? tables.high.data() : tables.low.data();
    for (int token = 0; token < kTile; token += 2) {
      const std::uint8_t* a = records + static_cast<std::size_t>(index[token < count ? token : 0]) * stride;
      const std::uint8_t* b = records + static_cast<std::size_t>(index[token + 1 < count ? token + 1 : 0]) * stride;
      std::int16_t* const to = out + (static_cast<std::ptrdiff_t>(plane) * kTile + token) * dim;
      for (int column = (columns - 1) / 16 * 16; column >= 0; column -= 16) {
        __m256i planes[bits], code[8];
        for (int w = 0; w < bits; ++w) {
          const auto at = static_cast<std::size_t>(w * columns) + static_cast<std::size_t>(column);
          planes[w] = _mm256_inserti128_si256(_mm256_castsi128_si256(load(a, at, record_bytes)), load(b, at, record_bytes), 1);
        }
        extract<bits>(planes, code);
        for (int o = 0; o < 8; ++o) {  // codes become levels
          if constexpr (bits <= 4) {
            code[o] = _mm256_shuffle_epi8(table, code[o]);
          } else {
            alignas(32) std::uint8_t lanes[32];
            _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), code[o]);
            for (std::uint8_t& lane : lanes) lane = static_cast<std::uint8_t>(slow_table[lane]);
            code[o] = _mm256_load_si256(reinterpret_cast<const __m256i*>(lanes));
          }
        }
        const auto store = [](std::int16_t* at, __m128i levels) __attribute__((always_inline)) {
          _mm256_storeu_si256(reinterpret_cast<__m256i*>(at), _mm256_cvtepi8_epi16(levels));
        };
        if constexpr (values) {
          for (int o = 0; o < 8; ++o) {
            const __m128i first = _mm256_castsi256_si128(code[o]), second = _mm256_extracti128_si256(code[o], 1);
            std::int16_t* const at = to + static_cast<std::ptrdiff_t>(2) * (o * columns + column);
            store(at, _mm_unpacklo_epi8(first, second));
            store(at + 16, _mm_unpackhi_epi8(first, second));
          }
        } else {
          for (int o = 0; o < 8; ++o) store(to + o * columns + column, _mm256_castsi256_si128(code[o]));
          for (int o = 0; o < 8; ++o) store(to + dim + o * columns + column, _mm256_extracti128_si256(code[o], 1));
        }
      }
    }
  }
}

using Unpack = void (*)(const Tables&, const std::uint8_t*, std::size_t, const std::int32_t*, int, std::uint8_t*, float*);
template <bool values>
constexpr Unpack unpackers[] = {unpack_of<1, values>, unpack_of<2, values>, unpack_of<3, values>, unpack_of<4, values>,
                                unpack_of<5, values>, unpack_of<6, values>, unpack_of<7, values>, unpack_of<8, values>};
void unpack_keys(const Tables& tables, const std::uint8_t* records, std::size_t stride, const std::int32_t* index, int count,
                 std::uint8_t* tile, float* scale) {
  unpackers<false>[tables.format.bits - 1](tables, records, stride, index, count, tile, scale);
}
void unpack_values(const Tables& tables, const std::uint8_t* records, std::size_t stride, const std::int32_t* index, int count,
                   std::uint8_t* tile, float* scale) {
  unpackers<true>[tables.format.bits - 1](tables, records, stride, index, count, tile, scale);
}

// Sums of four registers.
INLINE __m128i sums_of(__m256i a, __m256i b, __m256i c, __m256i d) {
  const __m256i all = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
  return _mm_add_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
}

template <int rows>
INLINE void dot_rows(const std::int16_t* query, int dim, const std::int16_t* keys, float unit, bool add, float* out) {
  for (int token = 0; token < kTile; token += 4) {
    __m256i sum[rows][4];
    for (auto& row : sum) {
      for (__m256i& s : row) s = _mm256_setzero_si256();
    }
    for (int i = 0; i < dim; i += 16) {
      __m256i key[4];
      for (int t = 0; t < 4; ++t)
        key[t] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(keys + static_cast<std::ptrdiff_t>(token + t) * dim + i));
      for (int r = 0; r < rows; ++r) {
        const __m256i q = _mm256_load_si256(reinterpret_cast<const __m256i*>(query + static_cast<std::ptrdiff_t>(r) * dim + i));
        for (int t = 0; t < 4; ++t) sum[r][t] = _mm256_add_epi32(sum[r][t], _mm256_madd_epi16(key[t], q));
      }
    }
    for (int r = 0; r < rows; ++r) {
      float* at = out + r * kTile + token;
      const __m128 product = _mm_mul_ps(_mm_cvtepi32_ps(sums_of(sum[r][0], sum[r][1], sum[r][2], sum[r][3])), _mm_set1_ps(unit));
      _mm_storeu_ps(at, add ? _mm_add_ps(_mm_loadu_ps(at), product) : product);
    }
  }
}

void dot(const Tables& tables, const std::int8_t* query, const std::int32_t* /*query_sums*/, int query_planes, int rows,
         const std::uint8_t* tile, float* out) {
  const int dim = tables.padded_dim;
  alignas(32) std::int16_t wide[2 * kMaxDim];
  for (int r = 0; r < rows; r += 2) {
    const int here = rows - r >= 2 ? 2 : 1;
    for (int h = 0; h < here; ++h) {
      const std::int8_t* high = query + static_cast<std::ptrdiff_t>(r + h) * query_planes * dim;
      for (int i = 0; i < dim; ++i)
        wide[h * dim + i] = static_cast<std::int16_t>(query_planes == 2 ? high[i] * 128 + high[dim + i] : high[i]);
    }
    for (int k = 0; k < tables.planes; ++k) {
      const auto* keys = reinterpret_cast<const std::int16_t*>(tile) + static_cast<std::ptrdiff_t>(k) * kTile * dim;
      const float unit = tables.planes == 2 && k == 0 ? 128 : 1;
      if (here == 2) {
        dot_rows<2>(wide, dim, keys, unit, k > 0, out + r * kTile);
      } else {
        dot_rows<1>(wide, dim, keys, unit, k > 0, out + r * kTile);
      }
    }
  }
}

// e^x for x ≤ 0 or not much above, to 2 ulp; 0 below −87.
INLINE __m256 exponential(__m256 x) {
  const __m256 small = _mm256_cmp_ps(x, _mm256_set1_ps(-87), _CMP_LT_OQ);
  x = _mm256_max_ps(x, _mm256_set1_ps(-87));
  const __m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504F)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693359375F), x);
  r = _mm256_fnmadd_ps(n, _mm256_set1_ps(-2.12194440e-4F), r);
  __m256 p = _mm256_set1_ps(1.0F / 720);
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0F / 120));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0F / 24));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0F / 6));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.5F));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1));
  const __m256i power = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
  return _mm256_andnot_ps(small, _mm256_mul_ps(p, _mm256_castsi256_ps(power)));
}

INLINE __m256 tanh_of(__m256 x) {
  const __m256 two = _mm256_set1_ps(2), one = _mm256_set1_ps(1), sign = _mm256_set1_ps(-0.0F);
  const __m256 size = _mm256_min_ps(_mm256_andnot_ps(sign, x), _mm256_set1_ps(20));
  const __m256 value = _mm256_sub_ps(one, _mm256_div_ps(two, _mm256_add_ps(exponential(_mm256_mul_ps(two, size)), one)));
  return _mm256_blendv_ps(_mm256_or_ps(value, _mm256_and_ps(x, sign)), x,
                          _mm256_cmp_ps(x, x, _CMP_UNORD_Q));  // min() lost what is not a number
}

INLINE float largest_of(__m256 x) {
  __m128 m = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  m = _mm_max_ps(m, _mm_movehl_ps(m, m));
  return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}
INLINE float sum_of(__m256 x) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

bool softmax(SoftmaxRow& row) {
  constexpr int groups = kTile / 8;
  const __m256 never = _mm256_set1_ps(-std::numeric_limits<float>::infinity());
  alignas(32) std::uint16_t mask[kTile];
  if (row.mask != nullptr && row.count < kTile) std::memcpy(mask, row.mask, static_cast<std::size_t>(row.count) * 2);
  const std::uint16_t* masks = row.count < kTile ? mask : row.mask;
  __m256 logit[groups], seen[groups], top = _mm256_set1_ps(row.max);
  int any = 0;
  for (int g = 0; g < groups; ++g) {
    __m256 x = _mm256_mul_ps(_mm256_mul_ps(_mm256_loadu_ps(row.products + 8 * g), _mm256_loadu_ps(row.key_scale + 8 * g)),
                             _mm256_set1_ps(row.factor));
    if (row.softcap != 0) x = _mm256_mul_ps(_mm256_set1_ps(row.softcap), tanh_of(x));
    const __m256i lane = _mm256_add_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_set1_epi32(8 * g));
    seen[g] = _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(row.count), lane));
    if (row.mask != nullptr && 8 * g < row.count) {
      const __m256 bias =
          _mm256_mul_ps(_mm256_set1_ps(row.slope), _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(masks + 8 * g))));
      seen[g] = _mm256_and_ps(seen[g], _mm256_cmp_ps(bias, never, _CMP_NEQ_UQ));
      x = _mm256_add_ps(x, bias);
    }
    seen[g] = _mm256_and_ps(seen[g], _mm256_cmp_ps(x, never, _CMP_NEQ_UQ));
    logit[g] = _mm256_blendv_ps(never, x, seen[g]);
    any |= _mm256_movemask_ps(seen[g]);
    top = _mm256_max_ps(logit[g], top);  // of a NaN and a number: the second
  }
  row.weight_step = 0;
  row.rescale = 1;
  if (any == 0) {
    std::memset(row.high, 0, kTile);
    std::memset(row.low, 0, kTile);
    return false;
  }
  const float max = largest_of(top);
  __m256 weight[groups], sums = _mm256_setzero_ps(), largest = _mm256_setzero_ps();
  int poisoned = 0;
  for (int g = 0; g < groups; ++g) {
    const __m256 below = _mm256_sub_ps(logit[g], _mm256_set1_ps(max));
    const __m256 p = _mm256_and_ps(seen[g], exponential(below));
    sums = _mm256_add_ps(sums, p);
    weight[g] = _mm256_and_ps(seen[g], _mm256_mul_ps(p, _mm256_loadu_ps(row.value_scale + 8 * g)));
    poisoned |= _mm256_movemask_ps(_mm256_and_ps(seen[g], _mm256_cmp_ps(below, below, _CMP_UNORD_Q)));
    poisoned |= _mm256_movemask_ps(_mm256_cmp_ps(weight[g], _mm256_set1_ps(std::numeric_limits<float>::infinity()), _CMP_NLT_UQ));
    largest = _mm256_max_ps(largest, weight[g]);
  }
  const float sum = poisoned != 0 ? std::numeric_limits<float>::quiet_NaN() : sum_of(sums);
  row.rescale = _mm256_cvtss_f32(exponential(_mm256_set1_ps(row.max - max)));
  row.sum = row.sum * row.rescale + sum;
  row.max = max;
  const float peak = largest_of(largest);
  const bool none = poisoned != 0 || peak < std::numeric_limits<float>::min();
  const __m256 to_whole = _mm256_set1_ps(none ? 0 : 16383 / peak);
  row.weight_step = none ? 0 : peak / 16383;
  alignas(32) std::int32_t whole[kTile];
  for (int g = 0; g < groups; ++g)
    _mm256_store_si256(reinterpret_cast<__m256i*>(whole + 8 * g), _mm256_cvtps_epi32(_mm256_mul_ps(weight[g], to_whole)));
  for (int t = 0; t < kTile; ++t) {
    row.high[t] = static_cast<std::uint8_t>(whole[t] >> 7);
    row.low[t] = static_cast<std::uint8_t>(whole[t] & 127);
  }
  return true;
}

template <int rows>
INLINE void accumulate_rows(const std::int16_t* weights, const std::int16_t* values, int dim, const float* rescale,
                            const float* weight_step, float unit, bool first, float* sum) {
  for (int i = 0; i < dim; i += 32) {
    __m256i total[rows][4];
    for (auto& row : total) {
      for (__m256i& t : row) t = _mm256_setzero_si256();
    }
    for (int pair = 0; pair < kTile / 2; ++pair) {
      __m256i value[4];
      for (int v = 0; v < 4; ++v) {
        value[v] =
            _mm256_loadu_si256(reinterpret_cast<const __m256i*>(values + static_cast<std::ptrdiff_t>(pair) * 2 * dim + 2 * i + 16 * v));
      }
      for (int r = 0; r < rows; ++r) {
        std::int32_t two = 0;
        std::memcpy(&two, weights + r * kTile + 2 * pair, 4);
        const __m256i w = _mm256_set1_epi32(two);
        for (int v = 0; v < 4; ++v) total[r][v] = _mm256_add_epi32(total[r][v], _mm256_madd_epi16(value[v], w));
      }
    }
    for (int r = 0; r < rows; ++r) {
      const __m256 old = _mm256_set1_ps(first ? rescale[r] : 1), scale = _mm256_set1_ps(weight_step[r] * unit);
      for (int v = 0; v < 4; ++v) {
        float* at = sum + static_cast<std::ptrdiff_t>(r) * dim + i + 8 * v;
        _mm256_storeu_ps(at, _mm256_fmadd_ps(_mm256_loadu_ps(at), old, _mm256_mul_ps(_mm256_cvtepi32_ps(total[r][v]), scale)));
      }
    }
  }
}

void accumulate(const Tables& tables, const std::uint8_t* high, const std::uint8_t* low, int rows, const std::uint8_t* tile,
                const float* rescale, const float* weight_step, float* sum) {
  const int dim = tables.padded_dim;
  alignas(32) std::int16_t wide[2 * kTile];
  for (int r = 0; r < rows; r += 2) {
    const int here = rows - r >= 2 ? 2 : 1;
    for (int i = 0; i < here * kTile; ++i) wide[i] = static_cast<std::int16_t>(high[r * kTile + i] * 128 + low[r * kTile + i]);
    for (int k = 0; k < tables.planes; ++k) {
      const auto* values = reinterpret_cast<const std::int16_t*>(tile) + static_cast<std::ptrdiff_t>(k) * kTile * dim;
      const float unit = tables.planes == 2 && k == 0 ? 128 : 1;
      float* to = sum + static_cast<std::ptrdiff_t>(r) * dim;
      if (here == 2) {
        accumulate_rows<2>(wide, values, dim, rescale + r, weight_step + r, unit, k == 0, to);
      } else {
        accumulate_rows<1>(wide, values, dim, rescale + r, weight_step + r, unit, k == 0, to);
      }
    }
  }
}

void hadamard(float* x, int n) {
  if (n < 8) return detail::portable_kernels.hadamard(x, n);
  const __m256 odd = _mm256_setr_ps(0.0F, -0.0F, 0.0F, -0.0F, 0.0F, -0.0F, 0.0F, -0.0F);
  const __m256 odd_pair = _mm256_setr_ps(0.0F, 0.0F, -0.0F, -0.0F, 0.0F, 0.0F, -0.0F, -0.0F);
  const __m256 upper = _mm256_setr_ps(0.0F, 0.0F, 0.0F, 0.0F, -0.0F, -0.0F, -0.0F, -0.0F);
  for (int i = 0; i < n; i += 8) {  // partner ± own
    __m256 v = _mm256_loadu_ps(x + i);
    v = _mm256_add_ps(_mm256_permute_ps(v, 0xb1), _mm256_xor_ps(v, odd));
    v = _mm256_add_ps(_mm256_permute_ps(v, 0x4e), _mm256_xor_ps(v, odd_pair));
    v = _mm256_add_ps(_mm256_permute2f128_ps(v, v, 1), _mm256_xor_ps(v, upper));
    _mm256_storeu_ps(x + i, v);
  }
  for (int half = 8; half < n; half *= 2) {
    for (int i = 0; i < n; i += 2 * half) {
      for (int j = i; j < i + half; j += 8) {
        const __m256 a = _mm256_loadu_ps(x + j), b = _mm256_loadu_ps(x + j + half);
        _mm256_storeu_ps(x + j, _mm256_add_ps(a, b));
        _mm256_storeu_ps(x + j + half, _mm256_sub_ps(a, b));
      }
    }
  }
}

float sum_of_squares(const float* x, int n) {
  __m256 low = _mm256_setzero_ps(), high = _mm256_setzero_ps();
  int i = 0;
  for (; i + 16 <= n; i += 16) {
    const __m256 a = _mm256_loadu_ps(x + i), b = _mm256_loadu_ps(x + i + 8);
    low = _mm256_add_ps(low, _mm256_mul_ps(a, a));
    high = _mm256_add_ps(high, _mm256_mul_ps(b, b));
  }
  if (i < n) {  // sizes are multiples of 8
    const __m256 a = _mm256_loadu_ps(x + i);
    low = _mm256_add_ps(low, _mm256_mul_ps(a, a));
  }
  return sum_of(_mm256_add_ps(low, high));
}

// Codes as bytes, in the order of coordinates, → planes. Plain loops that the compiler turns into vector code.
INLINE void pack(int bits, const std::uint8_t* __restrict k, int columns, std::uint8_t* __restrict p) {
  const auto at = [&](int o, int j) __attribute__((always_inline)) { return static_cast<unsigned>(k[o * columns + j]); };
  for (int j = 0; j < columns; ++j) {
    unsigned planes[3] = {};
    switch (bits) {
      case 1:
        for (int o = 0; o < 8; ++o) planes[0] |= at(o, j) << o;
        p[j] = static_cast<std::uint8_t>(planes[0]);
        break;
      case 2:
        for (int w = 0; w < 2; ++w) {
          p[w * columns + j] =
              static_cast<std::uint8_t>(at(4 * w, j) | at(4 * w + 1, j) << 2 | at(4 * w + 2, j) << 4 | at(4 * w + 3, j) << 6);
        }
        break;
      case 3:
        p[j] = static_cast<std::uint8_t>(at(0, j) | at(1, j) << 3 | at(6, j) << 6);
        p[columns + j] = static_cast<std::uint8_t>(at(2, j) | at(3, j) << 3 | at(6, j) >> 2 << 6 | at(7, j) >> 2 << 7);
        p[2 * columns + j] = static_cast<std::uint8_t>(at(4, j) | at(5, j) << 3 | at(7, j) << 6);
        break;
      default:
        for (int w = 0; w < 4; ++w) p[w * columns + j] = static_cast<std::uint8_t>(at(2 * w, j) | at(2 * w + 1, j) << 4);
    }
  }
}

double quantise(const Tables& tables, const float* y, float factor, std::uint8_t* codes) {
  const int dim = tables.format.dim, bits = tables.format.bits, columns = tables.columns;
  const __m256 top = _mm256_load_ps(tables.search.data()), fourth = _mm256_load_ps(tables.search.data() + 8);
  alignas(32) std::uint8_t code[kMaxDim + 32] = {};
  double squares = 0;
  for (int i = 0; i < dim; i += 8) {
    const __m256 z = _mm256_mul_ps(_mm256_loadu_ps(y + i), _mm256_set1_ps(factor));
    __m256i node = _mm256_set1_epi32(1);
    for (int depth = 0; depth < bits; ++depth) {  // the first four steps find their thresholds in registers
      const __m256 threshold = depth < 3    ? _mm256_permutevar8x32_ps(top, node)
                               : depth == 3 ? _mm256_permutevar8x32_ps(fourth, node)
                                            : _mm256_i32gather_ps(tables.search.data(), node, 4);
      node = _mm256_sub_epi32(_mm256_add_epi32(node, node), _mm256_castps_si256(_mm256_cmp_ps(z, threshold, _CMP_GT_OQ)));
    }
    node = _mm256_sub_epi32(node, _mm256_set1_epi32(1 << bits));
    alignas(32) std::int32_t lanes[8];
    _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), node);
    for (int j = 0; j < 8; ++j) {
      code[i + j] = static_cast<std::uint8_t>(lanes[j]);
      const double level = static_cast<double>(tables.level[static_cast<std::size_t>(lanes[j])]);
      squares += level * level;
    }
  }
  if (bits == 8) {
    std::memcpy(codes, code, 8 * static_cast<std::size_t>(columns));
  } else if (bits <= 4) {
    pack(bits, code, columns, codes);
  } else {
    alignas(32) std::uint8_t low[kMaxDim], high[kMaxDim];
    for (int i = 0; i < 8 * columns; ++i) {
      low[i] = code[i] & 15U;
      high[i] = code[i] >> 4;
    }
    pack(4, low, columns, codes);
    pack(bits - 4, high, columns, codes + 4 * columns);
  }
  return squares;
}

template <int bits>
void expand_of(const Tables& tables, const std::uint8_t* codes, float factor, float* y) {
  const int dim = tables.format.dim, columns = tables.columns;
  const std::size_t bytes = tables.format.code_bytes();
  for (int column = 0; column < columns; column += 16) {
    __m256i planes[bits], code[8];
    for (int w = 0; w < bits; ++w)
      planes[w] = _mm256_castsi128_si256(load(codes, static_cast<std::size_t>(w * columns) + static_cast<std::size_t>(column), bytes));
    extract<bits>(planes, code);
    for (int o = 0; o < 8; ++o) {
      alignas(32) std::uint8_t lanes[32];
      _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), code[o]);
      for (int j = 0; j < 16 && column + j < columns && o * columns + column + j < dim; ++j)
        y[o * columns + column + j] = tables.level[lanes[j]] * factor;
    }
  }
}

void expand(const Tables& tables, const std::uint8_t* codes, float factor, float* y) {
  using Expand = void (*)(const Tables&, const std::uint8_t*, float, float*);
  static constexpr Expand of[] = {expand_of<1>, expand_of<2>, expand_of<3>, expand_of<4>,
                                  expand_of<5>, expand_of<6>, expand_of<7>, expand_of<8>};
  of[tables.format.bits - 1](tables, codes, factor, y);
}

// Sizes are multiples of 8.
void to_half(const float* x, int n, std::uint16_t* half) {
  for (int i = 0; i < n; i += 8) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(half + i),
                     _mm256_cvtps_ph(_mm256_loadu_ps(x + i), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }
}
void from_half(const std::uint16_t* half, int n, float* x) {
  for (int i = 0; i < n; i += 8) _mm256_storeu_ps(x + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(half + i))));
}

#undef INLINE

constexpr Kernels kernels = {
    .name = "avx2",
    .hadamard = hadamard,
    .sum_of_squares = sum_of_squares,
    .quantise = quantise,
    .expand = expand,
    .to_half = to_half,
    .from_half = from_half,
    .unpack_keys = unpack_keys,
    .unpack_values = unpack_values,
    .dot = dot,
    .softmax = softmax,
    .accumulate = accumulate,
};

}  // namespace
}  // namespace hearth::turboquant

#pragma clang attribute pop

namespace hearth::turboquant::detail {
const Kernels* avx2_kernels() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c") ? &kernels : nullptr;
}
}  // namespace hearth::turboquant::detail

#else

namespace hearth::turboquant::detail {
const Kernels* avx2_kernels() { return nullptr; }
}  // namespace hearth::turboquant::detail

#endif
