// AVX-512 with byte permutes (VBMI) and dot products of bytes (VNNI): Ice Lake, Zen 4 and later.
//
// Tiles: keys [plane][quad of coordinates][64 tokens][4 coordinates], values [plane][quad of tokens][padded_dim][4 tokens]: four neighbours in a lane are
// what one VNNI step multiplies and adds, and sums never cross lanes. The high plane of keys is stored as level + 128, because VNNI wants one side
// unsigned; `dot` takes 128·Σq off again.
#include "turboquant/kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include <cstring>
#include <limits>
#include <type_traits>

#pragma clang fp contract(off)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni"))), apply_to = function)

namespace hearth::turboquant {
namespace {

#define INLINE inline __attribute__((always_inline))

// Planes of packed codes → the codes of coordinates o = 0…7 of each byte column, in the low `bits` bits of each byte, with junk above.
template <int bits>
INLINE void extract(const __m512i* p, __m512i* code) {
  if constexpr (bits == 1) {
    for (int o = 0; o < 8; ++o) code[o] = _mm512_srli_epi16(p[0], static_cast<unsigned>(o));
  } else if constexpr (bits == 2) {
    for (int o = 0; o < 8; ++o) code[o] = _mm512_srli_epi16(p[o / 4], static_cast<unsigned>(o % 4 * 2));
  } else if constexpr (bits == 3) {
    for (int o = 0; o < 6; ++o) code[o] = _mm512_srli_epi16(p[o / 2], static_cast<unsigned>(o % 2 * 3));
    const __m512i two = _mm512_set1_epi8(3);  // the ternary function takes these bits from the second operand, the others from the third
    code[6] = _mm512_ternarylogic_epi64(two, _mm512_srli_epi16(p[0], 6), _mm512_srli_epi16(p[1], 4), 0xca);
    code[7] = _mm512_ternarylogic_epi64(two, _mm512_srli_epi16(p[2], 6), _mm512_srli_epi16(p[1], 5), 0xca);
  } else if constexpr (bits == 4) {
    for (int o = 0; o < 8; ++o) code[o] = _mm512_srli_epi16(p[o / 2], static_cast<unsigned>(o % 2 * 4));
  } else if constexpr (bits == 8) {
    for (int o = 0; o < 8; ++o) code[o] = p[o];
  } else {
    __m512i low[8], high[8];
    extract<4>(p, low);
    extract<bits - 4>(p + 4, high);
    for (int o = 0; o < 8; ++o) code[o] = _mm512_ternarylogic_epi64(_mm512_set1_epi8(15), low[o], _mm512_slli_epi16(high[o], 4), 0xca);
  }
}

// A table of bytes by code.
template <int bits>
struct ByteTable {
  __m512i part[bits <= 6 ? 1 : bits == 7 ? 2 : 4];

  INLINE explicit ByteTable(const std::int8_t* table, char flip = 0) {
    int i = 0;
    for (__m512i& p : part) p = _mm512_xor_si512(_mm512_load_si512(table + 64 * i++), _mm512_set1_epi8(flip));
  }
  INLINE __m512i operator()(__m512i code) const {
    if constexpr (bits <= 6) {
      return _mm512_permutexvar_epi8(code, part[0]);
    } else if constexpr (bits == 7) {
      return _mm512_permutex2var_epi8(part[0], code, part[1]);
    } else {
      return _mm512_mask_blend_epi8(_mm512_movepi8_mask(code), _mm512_permutex2var_epi8(part[0], code, part[1]),
                                    _mm512_permutex2var_epi8(part[2], code, part[3]));
    }
  }
};

// Row r, lane c → row c, lane r.
INLINE void transpose(__m512i* x) {
  __m512i a[16], b[16];
  for (int i = 0; i < 8; ++i) {
    a[2 * i] = _mm512_unpacklo_epi32(x[2 * i], x[2 * i + 1]);
    a[2 * i + 1] = _mm512_unpackhi_epi32(x[2 * i], x[2 * i + 1]);
  }
  for (int i = 0; i < 4; ++i) {  // b[4i + j]: lanes of column j (+4 each 128 bits) of rows 4i…4i+3
    b[4 * i] = _mm512_unpacklo_epi64(a[4 * i], a[4 * i + 2]);
    b[4 * i + 1] = _mm512_unpackhi_epi64(a[4 * i], a[4 * i + 2]);
    b[4 * i + 2] = _mm512_unpacklo_epi64(a[4 * i + 1], a[4 * i + 3]);
    b[4 * i + 3] = _mm512_unpackhi_epi64(a[4 * i + 1], a[4 * i + 3]);
  }
  for (int j = 0; j < 4; ++j) {
    const __m512i low = _mm512_shuffle_i32x4(b[j], b[4 + j], 0x88), high = _mm512_shuffle_i32x4(b[8 + j], b[12 + j], 0x88);
    const __m512i low_odd = _mm512_shuffle_i32x4(b[j], b[4 + j], 0xdd), high_odd = _mm512_shuffle_i32x4(b[8 + j], b[12 + j], 0xdd);
    x[j] = _mm512_shuffle_i32x4(low, high, 0x88);
    x[8 + j] = _mm512_shuffle_i32x4(low, high, 0xdd);
    x[4 + j] = _mm512_shuffle_i32x4(low_odd, high_odd, 0x88);
    x[12 + j] = _mm512_shuffle_i32x4(low_odd, high_odd, 0xdd);
  }
}

INLINE void read_scales(const Tables& tables, const std::uint8_t* records, std::size_t stride, const std::int32_t* index, int count,
                        float* scale) {
  alignas(64) std::uint16_t half[kTile] = {};
  const std::uint8_t* at = records + tables.format.code_bytes();
  for (int t = 0; t < count; ++t) std::memcpy(&half[t], at + static_cast<std::size_t>(index[t]) * stride, 2);
  for (int t = 0; t < kTile; t += 16) {
    const __m256i bits = _mm256_and_si256(_mm256_load_si256(reinterpret_cast<const __m256i*>(half + t)), _mm256_set1_epi16(0x7fff));
    _mm512_storeu_ps(scale + t, _mm512_cvtph_ps(bits));
  }
}

// `fixed_columns`: known to the compiler where it is the usual 16 (128 coordinates), 0 elsewhere.
template <int bits, int fixed_columns>
void unpack_keys_of(const Tables& tables, const std::uint8_t* records, std::size_t stride, const std::int32_t* index, int count,
                    std::uint8_t* tile, float* scale) {
  read_scales(tables, records, stride, index, count, scale);
  const ByteTable<bits> high(tables.high.data(), static_cast<char>(0x80)), low(tables.low.data());
  const int columns = fixed_columns != 0 ? fixed_columns : tables.columns;
  const int words = columns / 4, all_words = bits * words;  // of 4 bytes, in a plane and in a record
  std::uint8_t* const low_tile = tile + static_cast<std::ptrdiff_t>(8) * columns * kTile;
  __m512i turned[(fixed_columns != 0 ? bits * fixed_columns / 4 : kMaxBits * kMaxDim / 32) + 16];
  for (int group = 0; group < kTile; group += 16) {
    for (int word = 0; word < all_words; word += 16) {
      const auto mask = static_cast<__mmask16>(all_words - word >= 16 ? 0xffff : (1 << (all_words - word)) - 1);
      __m512i* rows = turned + word;
      for (int t = 0; t < 16; ++t) {
        const auto token = static_cast<std::size_t>(index[group + t < count ? group + t : 0]);
        rows[t] = _mm512_maskz_loadu_epi32(mask, records + token * stride + 4 * word);
      }
      transpose(rows);
    }
    for (int m = 0; m < words; ++m) {
      __m512i planes[bits], code[8];
      for (int w = 0; w < bits; ++w) planes[w] = turned[w * words + m];
      extract<bits>(planes, code);
      for (int o = 0; o < 8; ++o) {
        const std::ptrdiff_t at = (static_cast<std::ptrdiff_t>(o) * words + m) * 4 * kTile + 4 * group;
        _mm512_store_si512(tile + at, high(code[o]));
        if constexpr (bits > 4) _mm512_store_si512(low_tile + at, low(code[o]));
      }
    }
  }
}

template <int bits, int fixed_columns>
void unpack_values_of(const Tables& tables, const std::uint8_t* records, std::size_t stride, const std::int32_t* index, int count,
                      std::uint8_t* tile, float* scale) {
  read_scales(tables, records, stride, index, count, scale);
  const ByteTable<bits> high(tables.high.data()), low(tables.low.data());
  const int columns = fixed_columns != 0 ? fixed_columns : tables.columns, padded_dim = 8 * columns;
  std::uint8_t* const low_tile = tile + static_cast<std::ptrdiff_t>(padded_dim) * kTile;
  alignas(64) std::uint8_t order[64];  // byte 4j + t ← byte 16t + j
  for (int i = 0; i < 64; ++i) order[i] = static_cast<std::uint8_t>(i % 4 * 16 + i / 4);
  const __m512i interleave = _mm512_load_si512(order);
  for (int quad = 0; quad < kTile / 4; ++quad) {
    const std::uint8_t* record[4];
    for (int t = 0; t < 4; ++t) record[t] = records + static_cast<std::size_t>(index[4 * quad + t < count ? 4 * quad + t : 0]) * stride;
    for (int column = 0; column < columns; column += 16) {
      const auto mask = static_cast<__mmask16>(columns - column >= 16 ? 0xffff : (1 << (columns - column)) - 1);
      __m512i planes[bits], code[8];
      for (int w = 0; w < bits; ++w) {
        const int at = w * columns + column;
        __m512i four = _mm512_castsi128_si512(_mm_maskz_loadu_epi8(mask, record[0] + at));
        four = _mm512_inserti32x4(four, _mm_maskz_loadu_epi8(mask, record[1] + at), 1);
        four = _mm512_inserti32x4(four, _mm_maskz_loadu_epi8(mask, record[2] + at), 2);
        four = _mm512_inserti32x4(four, _mm_maskz_loadu_epi8(mask, record[3] + at), 3);
        planes[w] = _mm512_permutexvar_epi8(interleave, four);
      }
      extract<bits>(planes, code);
      for (int o = 0; o < 8; ++o) {
        const std::ptrdiff_t at = (static_cast<std::ptrdiff_t>(quad) * padded_dim + o * columns + column) * 4;
        _mm512_mask_storeu_epi32(tile + at, mask, high(code[o]));
        if constexpr (bits > 4) _mm512_mask_storeu_epi32(low_tile + at, mask, low(code[o]));
      }
    }
  }
}

using Unpack = void (*)(const Tables&, const std::uint8_t*, std::size_t, const std::int32_t*, int, std::uint8_t*, float*);
template <int columns>
constexpr Unpack key_unpackers[] = {unpack_keys_of<1, columns>, unpack_keys_of<2, columns>, unpack_keys_of<3, columns>,
                                    unpack_keys_of<4, columns>, unpack_keys_of<5, columns>, unpack_keys_of<6, columns>,
                                    unpack_keys_of<7, columns>, unpack_keys_of<8, columns>};
template <int columns>
constexpr Unpack value_unpackers[] = {unpack_values_of<1, columns>, unpack_values_of<2, columns>, unpack_values_of<3, columns>,
                                      unpack_values_of<4, columns>, unpack_values_of<5, columns>, unpack_values_of<6, columns>,
                                      unpack_values_of<7, columns>, unpack_values_of<8, columns>};
void unpack_keys(const Tables& tables, const std::uint8_t* records, std::size_t stride, const std::int32_t* index, int count,
                 std::uint8_t* tile, float* scale) {
  (tables.columns == 16 ? key_unpackers<16> : key_unpackers<0>)[tables.format.bits - 1](tables, records, stride, index, count, tile, scale);
}
void unpack_values(const Tables& tables, const std::uint8_t* records, std::size_t stride, const std::int32_t* index, int count,
                   std::uint8_t* tile, float* scale) {
  (tables.columns == 16 ? value_unpackers<16> : value_unpackers<0>)[tables.format.bits - 1](tables, records, stride, index, count, tile,
                                                                                            scale);
}

INLINE __m512i four_bytes(const void* at) {
  std::int32_t word = 0;
  std::memcpy(&word, at, 4);
  return _mm512_set1_epi32(word);
}

// One plane of `rows` queries on one plane of keys; out += or = 2^shift·products.
template <int rows>
INLINE void dot_rows(const std::int8_t* query, const std::int32_t* query_sums, int query_planes, int dim, const std::uint8_t* tile,
                     int bias, float unit, bool add, float* out) {
  __m512i sum[rows][4];
  for (int r = 0; r < rows; ++r) {
    for (__m512i& s : sum[r]) s = _mm512_set1_epi32(-bias * query_sums[r * query_planes]);
  }
  for (int quad = 0; quad < dim / 4; ++quad) {
    __m512i key[4];
    for (int g = 0; g < 4; ++g) key[g] = _mm512_load_si512(tile + static_cast<std::ptrdiff_t>(quad) * 4 * kTile + 64 * g);
    for (int r = 0; r < rows; ++r) {
      const __m512i q = four_bytes(query + static_cast<std::ptrdiff_t>(r) * query_planes * dim + 4 * quad);
      for (int g = 0; g < 4; ++g) sum[r][g] = _mm512_dpbusd_epi32(sum[r][g], key[g], q);
    }
  }
  for (int r = 0; r < rows; ++r) {
    for (int g = 0; g < 4; ++g) {
      float* at = out + r * kTile + 16 * g;
      const __m512 product = _mm512_mul_ps(_mm512_cvtepi32_ps(sum[r][g]), _mm512_set1_ps(unit));
      _mm512_storeu_ps(at, add ? _mm512_add_ps(_mm512_loadu_ps(at), product) : product);
    }
  }
}

void dot(const Tables& tables, const std::int8_t* query, const std::int32_t* query_sums, int query_planes, int rows,
         const std::uint8_t* tile, float* out) {
  const int dim = tables.padded_dim;
  bool add = false;
  for (int p = 0; p < query_planes; ++p) {
    for (int k = 0; k < tables.planes; ++k) {
      const std::uint8_t* keys = tile + static_cast<std::ptrdiff_t>(k) * dim * kTile;
      const float unit = static_cast<float>(1 << (7 * (query_planes - 1 - p + tables.planes - 1 - k)));
      const int bias = k == 0 ? 128 : 0;
      for (int r = 0; r < rows; r += 4) {
        const std::int8_t* q = query + (static_cast<std::ptrdiff_t>(r) * query_planes + p) * dim;
        const std::int32_t* sums = query_sums + r * query_planes + p;
        float* to = out + r * kTile;
        switch (rows - r) {
          case 1: dot_rows<1>(q, sums, query_planes, dim, keys, bias, unit, add, to); break;
          case 2: dot_rows<2>(q, sums, query_planes, dim, keys, bias, unit, add, to); break;
          case 3: dot_rows<3>(q, sums, query_planes, dim, keys, bias, unit, add, to); break;
          default: dot_rows<4>(q, sums, query_planes, dim, keys, bias, unit, add, to);
        }
      }
      add = true;
    }
  }
}

// e^x for x ≤ 0 or not much above, to 2 ulp; 0 below −104.
INLINE __m512 exponential(__m512 x) {
  x = _mm512_max_ps(x, _mm512_set1_ps(-104));
  const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504F)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375F), x);
  r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4F), r);
  // Taylor's series to the sixth power: |r| ≤ ln 2 / 2, so the rest is below 2^-25.
  __m512 p = _mm512_set1_ps(1.0F / 720);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0F / 120));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0F / 24));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0F / 6));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.5F));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1));
  return _mm512_scalef_ps(p, n);
}

INLINE __m512 tanh_of(__m512 x) {
  const __m512 two = _mm512_set1_ps(2), one = _mm512_set1_ps(1);
  const __m512 size = _mm512_min_ps(_mm512_abs_ps(x), _mm512_set1_ps(20));
  const __m512 value = _mm512_sub_ps(one, _mm512_div_ps(two, _mm512_add_ps(exponential(_mm512_mul_ps(two, size)), one)));
  // What is not a number stays so: min() lost it.
  const __m512 odd = _mm512_or_ps(value, _mm512_and_ps(x, _mm512_set1_ps(-0.0F)));
  return _mm512_mask_mov_ps(odd, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), x);
}

bool softmax(SoftmaxRow& row) {
  const __m512 never = _mm512_set1_ps(-std::numeric_limits<float>::infinity());
  __m512 logit[4], top = _mm512_set1_ps(row.max);
  __mmask16 seen[4];
  unsigned any = 0;
  for (int g = 0; g < 4; ++g) {
    const int left = row.count - 16 * g;
    const auto here = static_cast<__mmask16>(left >= 16 ? 0xffff : left <= 0 ? 0 : (1 << left) - 1);
    __m512 x = _mm512_mul_ps(_mm512_mul_ps(_mm512_loadu_ps(row.products + 16 * g), _mm512_loadu_ps(row.key_scale + 16 * g)),
                             _mm512_set1_ps(row.factor));
    if (row.softcap != 0) x = _mm512_mul_ps(_mm512_set1_ps(row.softcap), tanh_of(x));
    seen[g] = here;
    if (row.mask != nullptr) {
      const __m512 mask = _mm512_mul_ps(_mm512_set1_ps(row.slope), _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(here, row.mask + 16 * g)));
      seen[g] = _mm512_mask_cmp_ps_mask(here, mask, never, _CMP_NEQ_UQ);
      x = _mm512_add_ps(x, mask);
    }
    seen[g] = _mm512_mask_cmp_ps_mask(seen[g], x, never, _CMP_NEQ_UQ);
    logit[g] = _mm512_mask_mov_ps(never, seen[g], x);
    any |= seen[g];
    top = _mm512_max_ps(logit[g], top);  // of a NaN and a number: the second
  }
  row.weight_step = 0;
  row.rescale = 1;
  if (any == 0) {
    _mm512_storeu_si512(row.high, _mm512_setzero_si512());
    _mm512_storeu_si512(row.low, _mm512_setzero_si512());
    return false;
  }
  const float max = _mm512_reduce_max_ps(top);
  __m512 weight[4], sums = _mm512_setzero_ps(), largest = _mm512_setzero_ps();
  unsigned poisoned = 0;
  for (int g = 0; g < 4; ++g) {
    const __m512 below = _mm512_sub_ps(logit[g], _mm512_set1_ps(max));
    const __m512 p = _mm512_maskz_mov_ps(seen[g], exponential(below));
    sums = _mm512_add_ps(sums, p);
    weight[g] = _mm512_maskz_mul_ps(seen[g], p, _mm512_loadu_ps(row.value_scale + 16 * g));
    poisoned |= _mm512_mask_cmp_ps_mask(seen[g], below, below, _CMP_UNORD_Q);
    poisoned |= _mm512_cmp_ps_mask(weight[g], _mm512_set1_ps(std::numeric_limits<float>::infinity()), _CMP_NLT_UQ);
    largest = _mm512_max_ps(largest, weight[g]);
  }
  const float sum = poisoned != 0 ? std::numeric_limits<float>::quiet_NaN() : _mm512_reduce_add_ps(sums);
  row.rescale = _mm512_cvtss_f32(exponential(_mm512_set1_ps(row.max - max)));
  row.sum = row.sum * row.rescale + sum;
  row.max = max;
  const float peak = _mm512_reduce_max_ps(largest);
  const bool none = poisoned != 0 || peak < std::numeric_limits<float>::min();
  const __m512 to_whole = _mm512_set1_ps(none ? 0 : 16383 / peak);
  row.weight_step = none ? 0 : peak / 16383;
  for (int g = 0; g < 4; ++g) {
    const __m512i whole = _mm512_cvtps_epi32(_mm512_mul_ps(weight[g], to_whole));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(row.high + 16 * g), _mm512_cvtepi32_epi8(_mm512_srli_epi32(whole, 7)));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(row.low + 16 * g), _mm512_cvtepi32_epi8(_mm512_and_si512(whole, _mm512_set1_epi32(127))));
  }
  return true;
}

template <int rows, int vectors>
INLINE void accumulate_block(const std::uint8_t* high, const std::uint8_t* low, const std::uint8_t* tile, int dim, const float* rescale,
                             const float* weight_step, float unit, bool first, float* sum) {
  __m512i total[rows][vectors];
  for (auto& row : total) {
    for (__m512i& t : row) t = _mm512_setzero_si512();
  }
  for (const std::uint8_t* weights : {high, low}) {
    for (int quad = 0; quad < kTile / 4; ++quad) {
      __m512i value[vectors];
      for (int i = 0; i < vectors; ++i) value[i] = _mm512_loadu_si512(tile + static_cast<std::ptrdiff_t>(quad) * 4 * dim + 64 * i);
      for (int r = 0; r < rows; ++r) {
        const __m512i w = four_bytes(weights + r * kTile + 4 * quad);
        for (int i = 0; i < vectors; ++i) total[r][i] = _mm512_dpbusd_epi32(total[r][i], w, value[i]);
      }
    }
    if (weights == low) break;
    for (auto& row : total) {
      for (__m512i& t : row) t = _mm512_slli_epi32(t, 7);
    }
  }
  for (int r = 0; r < rows; ++r) {
    const __m512 old = _mm512_set1_ps(first ? rescale[r] : 1), scale = _mm512_set1_ps(weight_step[r] * unit);
    for (int i = 0; i < vectors; ++i) {
      float* at = sum + static_cast<std::ptrdiff_t>(r) * dim + 16 * i;
      _mm512_storeu_ps(at, _mm512_fmadd_ps(_mm512_loadu_ps(at), old, _mm512_mul_ps(_mm512_cvtepi32_ps(total[r][i]), scale)));
    }
  }
}

template <int rows>
INLINE void accumulate_rows(const std::uint8_t* high, const std::uint8_t* low, const std::uint8_t* tile, int dim, const float* rescale,
                            const float* weight_step, float unit, bool first, float* sum) {
  int i = 0;
  for (; i + 64 <= dim; i += 64) accumulate_block<rows, 4>(high, low, tile + 4 * i, dim, rescale, weight_step, unit, first, sum + i);
  if (i < dim) accumulate_block<rows, 2>(high, low, tile + 4 * i, dim, rescale, weight_step, unit, first, sum + i);
}

void accumulate(const Tables& tables, const std::uint8_t* high, const std::uint8_t* low, int rows, const std::uint8_t* tile,
                const float* rescale, const float* weight_step, float* sum) {
  const int dim = tables.padded_dim;
  for (int k = 0; k < tables.planes; ++k) {
    const std::uint8_t* values = tile + static_cast<std::ptrdiff_t>(k) * dim * kTile;
    const float unit = tables.planes == 2 && k == 0 ? 128 : 1;
    for (int r = 0; r < rows; r += 4) {
      const std::uint8_t *h = high + r * kTile, *l = low + r * kTile;
      float* to = sum + static_cast<std::ptrdiff_t>(r) * dim;
      switch (rows - r) {
        case 1: accumulate_rows<1>(h, l, values, dim, rescale + r, weight_step + r, unit, k == 0, to); break;
        case 2: accumulate_rows<2>(h, l, values, dim, rescale + r, weight_step + r, unit, k == 0, to); break;
        case 3: accumulate_rows<3>(h, l, values, dim, rescale + r, weight_step + r, unit, k == 0, to); break;
        default: accumulate_rows<4>(h, l, values, dim, rescale + r, weight_step + r, unit, k == 0, to);
      }
    }
  }
}

// a ± its partner, where the partner is what `swapped` holds and the lanes of `upper` are the second of their pair.
INLINE __m512 butterfly(__m512 x, __m512 swapped, __mmask16 upper) {
  return _mm512_mask_sub_ps(_mm512_add_ps(x, swapped), upper, swapped, x);
}

template <int vectors>
void hadamard_of(float* x) {
  __m512 v[vectors];
  for (int i = 0; i < vectors; ++i) {
    v[i] = _mm512_loadu_ps(x + 16 * i);
    v[i] = butterfly(v[i], _mm512_permute_ps(v[i], 0xb1), 0xaaaa);
    v[i] = butterfly(v[i], _mm512_permute_ps(v[i], 0x4e), 0xcccc);
    v[i] = butterfly(v[i], _mm512_shuffle_f32x4(v[i], v[i], 0xb1), 0xf0f0);
    v[i] = butterfly(v[i], _mm512_shuffle_f32x4(v[i], v[i], 0x4e), 0xff00);
  }
  for (int half = 1; half < vectors; half *= 2) {
    for (int i = 0; i < vectors; ++i) {
      if ((i & half) != 0) continue;
      const __m512 a = v[i], b = v[i + half];
      v[i] = _mm512_add_ps(a, b);
      v[i + half] = _mm512_sub_ps(a, b);
    }
  }
  for (int i = 0; i < vectors; ++i) _mm512_storeu_ps(x + 16 * i, v[i]);
}

void hadamard(float* x, int n) {
  switch (n) {
    case 16: return hadamard_of<1>(x);
    case 32: return hadamard_of<2>(x);
    case 64: return hadamard_of<4>(x);
    case 128: return hadamard_of<8>(x);
    case 256: return hadamard_of<16>(x);
    case 512: return hadamard_of<32>(x);
    case 1024: return hadamard_of<64>(x);
    default: return detail::portable_kernels.hadamard(x, n);
  }
}

float sum_of_squares(const float* x, int n) {
  __m512 sums = _mm512_setzero_ps();
  for (int i = 0; i < n; i += 16) {
    const __m512 v = _mm512_maskz_loadu_ps(static_cast<__mmask16>(n - i >= 16 ? 0xffff : (1 << (n - i)) - 1), x + i);
    sums = _mm512_add_ps(sums, _mm512_mul_ps(v, v));
  }
  const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(sums), _mm512_extractf32x8_ps(sums, 1));
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

// table[i], i < 16·parts (a power of two); junk above is ignored.
template <int parts>
INLINE __m512 look_up(const __m512* table, __m512i i) {
  if constexpr (parts == 1) {
    return _mm512_permutexvar_ps(i, table[0]);
  } else if constexpr (parts == 2) {
    return _mm512_permutex2var_ps(table[0], i, table[1]);
  } else {
    const __mmask16 upper = _mm512_test_epi32_mask(i, _mm512_set1_epi32(8 * parts));
    return _mm512_mask_blend_ps(upper, look_up<parts / 2>(table, i), look_up<parts / 2>(table + parts / 2, i));
  }
}

template <int parts>
INLINE __m512i look_up_words(const __m512i* table, __m512i i) {
  if constexpr (parts == 1) {
    return _mm512_permutexvar_epi32(i, table[0]);
  } else if constexpr (parts == 2) {
    return _mm512_permutex2var_epi32(table[0], i, table[1]);
  } else {
    const __mmask16 upper = _mm512_test_epi32_mask(i, _mm512_set1_epi32(8 * parts));
    return _mm512_mask_blend_epi32(upper, look_up_words<parts / 2>(table, i), look_up_words<parts / 2>(table + parts / 2, i));
  }
}

// The search tree in registers: a level of it is a table that the low bits of the node index.
template <int bits>
struct Search {
  __m512 table[bits <= 4 ? 1 : 1 << (bits - 4)];

  INLINE explicit Search(const Tables& tables) {
    int i = 0;
    for (__m512& t : table) t = _mm512_load_ps(tables.search.data() + 16 * i++);
  }
  template <int depth>
  INLINE __m512i step(__m512i node, __m512 z) const {
    if constexpr (depth == bits) {
      return _mm512_sub_epi32(node, _mm512_set1_epi32(1 << bits));
    } else {
      constexpr int first = depth <= 3 ? 0 : 1 << (depth - 4), parts = depth <= 4 ? 1 : 1 << (depth - 4);
      const __mmask16 above = _mm512_cmp_ps_mask(z, look_up<parts>(table + first, node), _CMP_GT_OQ);
      const __m512i twice = _mm512_add_epi32(node, node);
      return step<depth + 1>(_mm512_mask_add_epi32(twice, above, twice, _mm512_set1_epi32(1)), z);
    }
  }
  INLINE __m512i operator()(__m512 z) const { return step<0>(_mm512_set1_epi32(1), z); }
};

// The same by size and sign, for wide codes: half the tree, which fits the registers. Gives the number of the level among those of its sign.
template <int bits>
struct SizeSearch {
  __m512i table[1 << (bits - 5)];

  INLINE explicit SizeSearch(const Tables& tables) {
    int i = 0;
    for (__m512i& t : table) t = _mm512_load_si512(tables.upper_search.data() + 16 * i++);
  }
  template <int depth>
  INLINE __m512i step(__m512i node, __m512i size) const {
    if constexpr (depth == bits - 1) {
      return _mm512_sub_epi32(node, _mm512_set1_epi32(1 << (bits - 1)));
    } else {
      constexpr int first = depth <= 3 ? 0 : 1 << (depth - 4), parts = depth <= 4 ? 1 : 1 << (depth - 4);
      const __m512i threshold = look_up_words<parts>(table + first, node), twice = _mm512_add_epi32(node, node);
      return step<depth + 1>(_mm512_mask_add_epi32(twice, _mm512_cmpgt_epi32_mask(size, threshold), twice, _mm512_set1_epi32(1)), size);
    }
  }
  // Sizes are compared as whole numbers, in which order they are. −|z| > −t is |z| < t: a size below 0 counts as the next larger, so that "greater" says
  // "not less".
  INLINE __m512i operator()(__m512 z, __mmask16& below) const {
    below = _mm512_cmp_ps_mask(z, _mm512_setzero_ps(), _CMP_NGT_UQ);
    const __m512i size = _mm512_and_si512(_mm512_castps_si512(z), _mm512_set1_epi32(0x7fffffff));
    return step<0>(_mm512_set1_epi32(1), _mm512_mask_add_epi32(size, below, size, _mm512_set1_epi32(1)));
  }
};

// The inverse of extract(), on codes in lanes of 32 bits without junk.
INLINE void pack(int bits, const __m512i* k, __m512i* p) {
  const auto at = [](__m512i value, unsigned shift) __attribute__((always_inline)) { return _mm512_slli_epi32(value, shift); };
  switch (bits) {
    case 1:
      p[0] = k[0];
      for (unsigned o = 1; o < 8; ++o) p[0] = _mm512_or_si512(p[0], at(k[o], o));
      return;
    case 2:
      for (int w = 0; w < 2; ++w) {
        p[w] = _mm512_or_si512(_mm512_or_si512(k[4 * w], at(k[4 * w + 1], 2)), _mm512_or_si512(at(k[4 * w + 2], 4), at(k[4 * w + 3], 6)));
      }
      return;
    case 3:
      for (int w = 0; w < 3; ++w) p[w] = _mm512_or_si512(k[2 * w], at(k[2 * w + 1], 3));
      p[0] = _mm512_or_si512(p[0], at(k[6], 6));  // bits above the byte are dropped when it is stored
      p[2] = _mm512_or_si512(p[2], at(k[7], 6));
      p[1] = _mm512_or_si512(p[1], _mm512_or_si512(at(_mm512_srli_epi32(k[6], 2), 6), at(_mm512_srli_epi32(k[7], 2), 7)));
      return;
    case 4:
      for (int w = 0; w < 4; ++w) p[w] = _mm512_or_si512(k[2 * w], at(k[2 * w + 1], 4));
      return;
    case 8:
      for (int w = 0; w < 8; ++w) p[w] = k[w];
      return;
    default: {
      __m512i low[8], high[8];
      for (int o = 0; o < 8; ++o) {
        low[o] = _mm512_and_si512(k[o], _mm512_set1_epi32(15));
        high[o] = _mm512_srli_epi32(k[o], 4);
      }
      pack(4, low, p);
      switch (bits - 4) {
        case 1: return pack(1, high, p + 4);
        case 2: return pack(2, high, p + 4);
        default: return pack(3, high, p + 4);
      }
    }
  }
}

template <int bits>
double quantise_of(const Tables& tables, const float* y, float factor, std::uint8_t* codes) {
  const int dim = tables.format.dim, columns = tables.columns;
  const std::conditional_t<(bits > 4), SizeSearch<(bits > 4 ? bits : 5)>, Search<bits>> search(tables);
  // The codebook is symmetric: of its upper half, the sizes of all levels.
  constexpr int half = 1 << (bits - 1), parts = half <= 16 ? 1 : half / 16;
  __m512 level[parts];
  for (int i = 0; i < parts; ++i) level[i] = _mm512_loadu_ps(tables.level.data() + half + 16 * i);
  __m512d squares = _mm512_setzero_pd();
  for (int column = 0; column < columns; column += 16) {
    const int width = columns - column < 16 ? columns - column : 16;
    __m512i code[8], size[8], planes[8];
    __mmask16 mask[8];
    for (int o = 0; o < 8; ++o) {
      const int at = o * columns + column, left = dim - at < width ? dim - at : width;
      mask[o] = static_cast<__mmask16>(left >= 16 ? 0xffff : left <= 0 ? 0 : (1 << left) - 1);
      const __m512 z = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask[o], y + at), _mm512_set1_ps(factor));
      if constexpr (bits > 4) {
        __mmask16 below = 0;
        size[o] = search(z, below);
        const __m512i found = _mm512_add_epi32(_mm512_set1_epi32(half), size[o]);
        code[o] = _mm512_maskz_mov_epi32(mask[o], _mm512_mask_sub_epi32(found, below, _mm512_set1_epi32(half - 1), size[o]));
      } else {
        code[o] = _mm512_maskz_mov_epi32(mask[o], search(z));
      }
    }
    for (int o = 0; o < 8; ++o) {  // apart, because both tables at once do not fit the registers
      if constexpr (bits <= 4) {
        const __m512i above = _mm512_sub_epi32(code[o], _mm512_set1_epi32(half));  // −1 − i for the lower half
        size[o] = _mm512_xor_si512(above, _mm512_srai_epi32(above, 31));
      }
      const __m512 value = _mm512_maskz_mov_ps(mask[o], look_up<parts>(level, size[o]));
      const __m512d a = _mm512_cvtps_pd(_mm512_castps512_ps256(value)), b = _mm512_cvtps_pd(_mm512_extractf32x8_ps(value, 1));
      squares = _mm512_add_pd(squares, _mm512_add_pd(_mm512_mul_pd(a, a), _mm512_mul_pd(b, b)));  // whole numbers: exact
    }
    pack(bits, code, planes);
    const auto stored = static_cast<__mmask16>(width == 16 ? 0xffff : (1 << width) - 1);
    for (int w = 0; w < bits; ++w) _mm512_mask_cvtepi32_storeu_epi8(codes + w * columns + column, stored, planes[w]);
  }
  return _mm512_reduce_add_pd(squares);
}

double quantise(const Tables& tables, const float* y, float factor, std::uint8_t* codes) {
  using Quantise = double (*)(const Tables&, const float*, float, std::uint8_t*);
  static constexpr Quantise of[] = {quantise_of<1>, quantise_of<2>, quantise_of<3>, quantise_of<4>,
                                    quantise_of<5>, quantise_of<6>, quantise_of<7>, quantise_of<8>};
  return of[tables.format.bits - 1](tables, y, factor, codes);
}

template <int bits>
void expand_of(const Tables& tables, const std::uint8_t* codes, float factor, float* y) {
  const int dim = tables.format.dim, columns = tables.columns;
  const __m512 level = _mm512_load_ps(tables.level.data()), scale = _mm512_set1_ps(factor);
  for (int column = 0; column < columns; column += 16) {
    const int width = columns - column < 16 ? columns - column : 16;
    const auto loaded = static_cast<__mmask16>(width == 16 ? 0xffff : (1 << width) - 1);
    __m512i planes[bits], code[8];
    for (int w = 0; w < bits; ++w) planes[w] = _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(loaded, codes + w * columns + column));
    extract<bits>(planes, code);
    for (int o = 0; o < 8; ++o) {
      const int at = o * columns + column, left = dim - at < width ? dim - at : width;
      if (left <= 0) continue;
      const auto mask = static_cast<__mmask16>(left >= 16 ? 0xffff : (1 << left) - 1);
      const __m512 value = bits <= 4
                               ? _mm512_permutexvar_ps(code[o], level)
                               : _mm512_i32gather_ps(_mm512_and_si512(code[o], _mm512_set1_epi32((1 << bits) - 1)), tables.level.data(), 4);
      _mm512_mask_storeu_ps(y + at, mask, _mm512_mul_ps(value, scale));
    }
  }
}

void expand(const Tables& tables, const std::uint8_t* codes, float factor, float* y) {
  using Expand = void (*)(const Tables&, const std::uint8_t*, float, float*);
  static constexpr Expand of[] = {expand_of<1>, expand_of<2>, expand_of<3>, expand_of<4>,
                                  expand_of<5>, expand_of<6>, expand_of<7>, expand_of<8>};
  of[tables.format.bits - 1](tables, codes, factor, y);
}

void to_half(const float* x, int n, std::uint16_t* half) {
  for (int i = 0; i < n; i += 16) {
    const auto mask = static_cast<__mmask16>(n - i >= 16 ? 0xffff : (1 << (n - i)) - 1);
    _mm256_mask_storeu_epi16(half + i, mask,
                             _mm512_cvtps_ph(_mm512_maskz_loadu_ps(mask, x + i), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }
}

void from_half(const std::uint16_t* half, int n, float* x) {
  for (int i = 0; i < n; i += 16) {
    const auto mask = static_cast<__mmask16>(n - i >= 16 ? 0xffff : (1 << (n - i)) - 1);
    _mm512_mask_storeu_ps(x + i, mask, _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, half + i)));
  }
}

#undef INLINE

constexpr Kernels kernels = {
    .name = "avx512",
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
const Kernels* avx512_kernels() {
  const bool runs = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                    __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vnni");
  return runs ? &kernels : nullptr;
}
}  // namespace hearth::turboquant::detail

#else

namespace hearth::turboquant::detail {
const Kernels* avx512_kernels() { return nullptr; }
}  // namespace hearth::turboquant::detail

#endif
