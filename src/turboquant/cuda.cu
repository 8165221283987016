#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <string>
#include <utility>

#include "turboquant/cuda.h"
#include "turboquant/cuda_device.h"

namespace hearth::turboquant::cuda {
namespace {

constexpr int dim = 128, columns = dim / 8;
constexpr int warps = 4;          // of a block
constexpr int chunk = 32;         // tokens that a warp takes at a time
constexpr int most_columns = 16;  // query rows that share a KV head
constexpr float log2e = 1.4426950408889634f;

// What kernels need to know of a codec, in constant memory of a launch.
struct Book {
  std::uint32_t table[4] = {};  // levels of codes 0-15, a byte each; values biased by 128
  float step = 0;
  float threshold[256] = {};
  std::int16_t level[256] = {};
};
struct Signs {
  std::uint32_t negative[dim / 32] = {};  // bit i: coordinate i changes its sign
};

// Bytes for the eight codes in the nibbles of `codes`, lowest first. The bits above a code's width are 0.
template <int bits>
__device__ __forceinline__ uint2 lookup(std::uint32_t codes, const std::uint32_t (&table)[4]) {
  if constexpr (bits == 4) {
    const std::uint32_t low = codes & 0x77777777u;                          // within a half of the table
    const std::uint32_t half = ((codes >> 1) & 0x44444444u) | 0x32103210u;  // byte i of the lower or the upper half
    return {permute(permute(table[0], table[1], low), permute(table[2], table[3], low), half),
            permute(permute(table[0], table[1], low >> 16), permute(table[2], table[3], low >> 16), half >> 16)};
  } else {
    return {permute(table[0], table[1], codes), permute(table[0], table[1], codes >> 16)};
  }
}

// The mma fragments of keys. Lane (g, t) of a warp holds, of token g of a group of 8, a quarter of the record: 32 codes, as 8 registers of four. Which coordinates
// they are is of no account to a sum over all of them, so the query is laid out alike: register r, byte p is coordinate key_coordinate<bits>(t, r, p).
template <int bits>
__host__ __device__ constexpr int key_coordinate(int t, int r, int p) {
  const int s = r / 2, h = r % 2;
  switch (bits) {
    case 2: return (4 * (t / 2) + s % 2 + 2 * (p % 2)) * columns + 4 * (2 * (t % 2) + s / 2) + 2 * h + p / 2;
    case 3: return (2 * s + p % 2) * columns + 4 * t + 2 * h + p / 2;
    case 4: return (2 * t + p % 2) * columns + 4 * s + 2 * h + p / 2;
    default: return (2 * t + r / 4) * columns + 4 * (r % 4) + p;
  }
}

// A quarter of a key as it lies in memory.
template <int bits>
struct PackedKey {
  std::uint32_t word[bits];

  __device__ __forceinline__ void load(const std::uint8_t* record, int t) {
    if constexpr (bits == 2) {
      const uint2 two = *reinterpret_cast<const uint2*>(record + 8 * t);
      word[0] = two.x, word[1] = two.y;
    } else if constexpr (bits == 3) {
#pragma unroll
      for (int w = 0; w < 3; ++w) word[w] = *reinterpret_cast<const std::uint32_t*>(record + w * columns + 4 * t);
    } else {
#pragma unroll
      for (int i = 0; i < bits / 4; ++i) {
        const uint4 four = *reinterpret_cast<const uint4*>(record + 4 * bits * t + 16 * i);
        word[4 * i] = four.x, word[4 * i + 1] = four.y, word[4 * i + 2] = four.z, word[4 * i + 3] = four.w;
      }
    }
  }
  // Levels in signed bytes; bits ≤ 4.
  __device__ __forceinline__ void unpack(const std::uint32_t (&table)[4], std::uint32_t (&out)[8]) const {
    if constexpr (bits == 2) {
#pragma unroll
      for (int s = 0; s < 4; ++s) {
        const uint2 two = lookup<2>((word[s / 2] >> (2 * (s % 2))) & 0x33333333u, table);
        out[2 * s] = two.x, out[2 * s + 1] = two.y;
      }
    } else if constexpr (bits == 3) {
#pragma unroll
      for (int s = 0; s < 4; ++s) {
        const uint2 two = lookup<3>(triples(word[0], word[1], word[2], s), table);
        out[2 * s] = two.x, out[2 * s + 1] = two.y;
      }
    } else {
#pragma unroll
      for (int s = 0; s < 4; ++s) {
        const uint2 two = lookup<4>(word[s], table);
        out[2 * s] = two.x, out[2 * s + 1] = two.y;
      }
    }
  }
  // The two codes of each column, k_2s and k_2s+1, as nibbles (format.h, 3 bits).
  static __device__ __forceinline__ std::uint32_t triples(std::uint32_t p0, std::uint32_t p1, std::uint32_t p2, int s) {
    if (s < 3) {
      const std::uint32_t p = s == 0 ? p0 : s == 1 ? p1 : p2;
      return (p & 0x07070707u) | ((p << 1) & 0x70707070u);
    }
    return ((p0 >> 6) & 0x03030303u) | ((p1 >> 4) & 0x04040404u) | ((p2 >> 2) & 0x30303030u) | ((p1 >> 1) & 0x40404040u);
  }
};

// The mma fragments of values. Lane (g, t) holds 16 codes of each of its four tokens; code i is coordinate value_coordinate<bits>(g, i), and row g (i even) or g + 8
// (i odd) of the output's tile i / 2.
template <int bits>
__host__ __device__ constexpr int value_coordinate(int g, int i) {
  switch (bits) {
    case 2: return (4 * (g / 4) + i / 2 % 2 + 2 * (i % 2)) * columns + 4 * (g % 4) + i / 4;
    case 3: return (2 * (i / 4) + i % 2) * columns + 2 * g + i / 2 % 2;
    default: return (2 * ((2 * g + i / 8) / 4) + i % 2) * columns + 4 * ((2 * g + i / 8) % 4) + i / 2 % 4;
  }
}

template <int bits>
struct PackedValue {
  std::uint32_t word[bits == 3 ? 3 : bits / 2];  // 3 bits: two columns of each plane

  __device__ __forceinline__ void load(const std::uint8_t* record, int g) {
    if constexpr (bits == 2) {
      word[0] = *reinterpret_cast<const std::uint32_t*>(record + 4 * g);
    } else if constexpr (bits == 3) {
#pragma unroll
      for (int w = 0; w < 3; ++w) word[w] = *reinterpret_cast<const std::uint16_t*>(record + w * columns + 2 * g);
    } else {
      const uint2 two = *reinterpret_cast<const uint2*>(record + 8 * g);
      word[0] = two.x, word[1] = two.y;
    }
  }
};

// A byte u = level + 128 as the half 1024 + u has only the mantissa's low byte to fill in; less 1152 it is the level, exactly.
__device__ __forceinline__ std::uint32_t to_halves(std::uint32_t bytes, std::uint32_t selector) {
  const std::uint32_t raised = permute(bytes, 0x64646464u, selector);
  const __half2 level = __hsub2(*reinterpret_cast<const __half2*>(&raised), __half2half2(__ushort_as_half(0x6480)));
  return *reinterpret_cast<const std::uint32_t*>(&level);
}

// Levels of two tokens: out[i] holds (a's code i, b's code i) as halves.
template <int bits>
__device__ __forceinline__ void unpack_values(const PackedValue<bits>& a, const PackedValue<bits>& b, const std::uint32_t (&table)[4],
                                              std::uint32_t (&out)[16]) {
  // After a lookup the four bytes of a register are (a's first code, a's second, b's first, b's second).
  const auto put = [&out](int i, std::uint32_t bytes, int apart) {
    out[i] = to_halves(bytes, 0x4240u);
    out[i + apart] = to_halves(bytes, 0x4341u);
  };
  if constexpr (bits == 3) {
    std::uint32_t plane[3];
#pragma unroll
    for (int w = 0; w < 3; ++w) plane[w] = permute(a.word[w], b.word[w], 0x5140u);
#pragma unroll
    for (int s = 0; s < 4; ++s) {
      const uint2 two = lookup<3>(PackedKey<3>::triples(plane[0], plane[1], plane[2], s), table);
      put(4 * s, two.x, 1);
      put(4 * s + 2, two.y, 1);
    }
  } else {
#pragma unroll
    for (int s = 0; s < bits / 2; ++s) {
#pragma unroll
      for (int c = 0; c < 4; c += 2) {  // two columns of a word
        const std::uint32_t both = permute(a.word[s], b.word[s], c == 0 ? 0x5140u : 0x7362u);
        if constexpr (bits == 4) {
          const uint2 two = lookup<4>(both, table);
          put(8 * s + 2 * c, two.x, 1);
          put(8 * s + 2 * c + 2, two.y, 1);
        } else {
#pragma unroll
          for (int e = 0; e < 2; ++e) {
            const uint2 two = lookup<2>((both >> (2 * e)) & 0x33333333u, table);
            put(4 * c + 2 * e, two.x, 1);
            put(4 * c + 4 + 2 * e, two.y, 1);
          }
        }
      }
    }
  }
}

// The Walsh–Hadamard transform of 128 numbers, four neighbours a lane, in the order of rotation.h: results are equal to the CPU's.
__device__ __forceinline__ void hadamard(float (&x)[4], int lane) {
  const float a = x[0] + x[1], b = x[0] - x[1], c = x[2] + x[3], d = x[2] - x[3];
  x[0] = a + c, x[1] = b + d, x[2] = a - c, x[3] = b - d;
#pragma unroll
  for (int half = 1; half < 32; half *= 2) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float other = __shfl_xor_sync(0xffffffffu, x[i], half);
      x[i] = (lane & half) == 0 ? x[i] + other : other - x[i];
    }
  }
}
__device__ __forceinline__ void flip(float (&x)[4], int lane, const Signs& signs) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int at = 4 * lane + i;
    if ((signs.negative[at / 32] >> (at % 32) & 1u) != 0) x[i] = -x[i];
  }
}

// One warp a vector: [row][head] halves into the record's codes and scale (codec.cpp, scale rule `corrected`).
__global__ void encode_kernel(const __half* rows, int heads, std::int64_t first, int count, std::int64_t tokens, const Book* book,
                              Signs signs, int bits, std::uint8_t* codes, __half* scales) {
  __shared__ std::uint8_t found[warps][dim];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const std::int64_t vector = static_cast<std::int64_t>(blockIdx.x) * warps + warp;
  if (vector >= static_cast<std::int64_t>(count) * heads) return;
  const int head = static_cast<int>(vector % heads);
  const std::int64_t token = first + vector / heads;
  const __half2* from = reinterpret_cast<const __half2*>(rows + vector * dim + 4 * lane);
  const float2 low = __half22float2(from[0]), high = __half22float2(from[1]);
  float x[4] = {low.x, low.y, high.x, high.y};
  float squares = 0;
#pragma unroll
  for (int i = 0; i < 4; ++i) squares = __fmaf_rn(x[i], x[i], squares);
#pragma unroll
  for (int half = 16; half > 0; half /= 2) squares += __shfl_xor_sync(0xffffffffu, squares, half);
  const float norm = sqrtf(squares);
  flip(x, lane, signs);
  hadamard(x, lane);
  const float factor = norm > 0 ? 1 / norm : 0;
  float levels = 0;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float z = x[i] * factor;
    unsigned code = 0;
    for (unsigned bit = 1u << (bits - 1); bit != 0; bit >>= 1) {
      if (z > book->threshold[code + bit - 1]) code += bit;
    }
    found[warp][4 * lane + i] = static_cast<std::uint8_t>(code);
    const float level = book->level[code];
    levels += level * level;
  }
#pragma unroll
  for (int half = 16; half > 0; half /= 2) levels += __shfl_xor_sync(0xffffffffu, levels, half);
  __syncwarp();
  const bool finite = squares < INFINITY;  // a sum of squares of halves does not overflow by itself
  __half scale = __float2half_rn(finite && norm >= 0x1p-25f ? fminf(norm / (sqrtf(levels) * book->step), 65504.f) : 0.f);
  const bool empty = !finite || __half_as_ushort(scale) == 0;
  if (!finite) scale = __ushort_as_half(0x7e00);
  const int bytes = bits * columns;
  std::uint8_t* record = codes + (head * tokens + token) * bytes;
  for (int at = lane; at < bytes; at += 32) {
    const int w = at / columns, j = at % columns;
    const auto k = [&](int o) -> unsigned { return found[warp][o * columns + j]; };
    unsigned byte = 0;
    switch (bits) {
      case 2: byte = k(4 * w) | k(4 * w + 1) << 2 | k(4 * w + 2) << 4 | k(4 * w + 3) << 6; break;
      case 3: byte = k(2 * w) | k(2 * w + 1) << 3 | (w == 0 ? k(6) & 3u : w == 2 ? k(7) & 3u : k(6) >> 2 | k(7) >> 2 << 1) << 6; break;
      case 4: byte = k(2 * w) | k(2 * w + 1) << 4; break;
      default: byte = k(w); break;
    }
    record[at] = empty ? 0 : static_cast<std::uint8_t>(byte);
  }
  if (lane == 0) scales[head * tokens + token] = scale;
}

// Rotates queries and cuts them into two planes of signed bytes, in the order of the keys' fragments: [kv head][tile of 8 columns][plane][column][t][register].
// Column = query · group + head within its group. A number is step·(128·high + low), low in −64…63.
template <int bits>
__global__ void query_kernel(const float* q, int heads, int kv_heads, int queries, int tiles, Signs signs, std::uint32_t* fragments,
                             float* steps) {
  __shared__ std::int16_t whole[warps][dim];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int row = blockIdx.x * warps + warp;
  if (row >= queries * heads) return;
  const int head = row % heads, group = heads / kv_heads, kv_head = head / group;
  const int column = row / heads * group + head % group;
  const float4 from = *reinterpret_cast<const float4*>(q + static_cast<std::int64_t>(row) * dim + 4 * lane);
  float x[4] = {from.x, from.y, from.z, from.w};
  flip(x, lane, signs);
  hadamard(x, lane);
  float largest = 0;
#pragma unroll
  for (int i = 0; i < 4; ++i) largest = fmaxf(largest, fabsf(x[i]));
#pragma unroll
  for (int half = 16; half > 0; half /= 2) largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, half));
  const float scale = largest > 0 ? 16256 / largest : 0;
#pragma unroll
  for (int i = 0; i < 4; ++i) whole[warp][4 * lane + i] = static_cast<std::int16_t>(__float2int_rn(x[i] * scale));
  __syncwarp();
  const int t = lane / 8, r = lane % 8;
  std::uint32_t planes[2] = {0, 0};
#pragma unroll
  for (int p = 0; p < 4; ++p) {
    const int value = whole[warp][key_coordinate<bits>(t, r, p)];
    const int high = (value + 64) >> 7, low = value - 128 * high;
    planes[0] |= static_cast<std::uint32_t>(high & 255) << (8 * p);
    planes[1] |= static_cast<std::uint32_t>(low & 255) << (8 * p);
  }
  std::uint32_t* tile = fragments + (static_cast<std::int64_t>(kv_head) * tiles + column / 8) * 512 + column % 8 * 32 + lane;
  tile[0] = planes[0];
  tile[256] = planes[1];
  // √128 of the transform is taken out here.
  if (lane == 0) steps[kv_head * tiles * 8 + column] = largest / 16256 * 0.08838834764831845f;
}

struct Scan {
  const std::uint8_t* key_codes;
  const __half* key_scales;
  const std::uint8_t* value_codes;
  const __half* value_scales;
  const Book* key_book;  // of 8 bits alone
  std::uint32_t key_table[4], value_table[4];
  const std::uint32_t* query;  // of query_kernel
  const float* query_step;
  const __half* mask;
  std::int64_t mask_stride;
  std::int64_t capacity;  // tokens of the cache
  std::int64_t tokens, tokens_per_split;
  int group;       // query heads of a KV head
  int used;        // columns that mean something
  float factor;    // of product · key scale · query step: log2(e)·scale·key step, or with a soft cap scale·key step / cap
  float softcap;   // log2(e)·cap; 0: none
  float* sums;     // [kv head][split][column][128], weights in units of 2^max
  float2* maxima;  // [kv head][split][column]: (max of log2 of the weights, sum of them without the values' scales)
};

template <int key_bits, int value_bits, int tiles>
__global__ __launch_bounds__(warps * 32, tiles == 1 ? 3 : 2) void scan_kernel(const Scan scan) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
  const int kv_head = blockIdx.y;
  const std::int64_t from = blockIdx.x * scan.tokens_per_split;
  const std::int64_t until = min(from + scan.tokens_per_split, scan.tokens);
  constexpr int key_bytes = key_bits * columns, value_bytes = value_bits * columns;
  const std::uint8_t* keys = scan.key_codes + kv_head * scan.capacity * key_bytes;
  const std::uint8_t* values = scan.value_codes + kv_head * scan.capacity * value_bytes;
  const __half* key_scales = scan.key_scales + kv_head * scan.capacity;
  const __half* value_scales = scan.value_scales + kv_head * scan.capacity;

  __shared__ std::int16_t wide[key_bits == 8 ? 256 : 1];
  if constexpr (key_bits == 8) {
    for (int i = threadIdx.x; i < 256; i += warps * 32) {
      const int level = scan.key_book->level[i], high = (level + 64) >> 7;
      wide[i] = static_cast<std::int16_t>((high & 255) | (level - 128 * high) << 8);
    }
    __syncthreads();
  }

  std::uint32_t query[tiles][2][8];
  float step[tiles][2];
#pragma unroll
  for (int n = 0; n < tiles; ++n) {
#pragma unroll
    for (int p = 0; p < 2; ++p) {
      const uint4* in = reinterpret_cast<const uint4*>(scan.query + ((kv_head * tiles + n) * 2 + p) * 256 + g * 32 + t * 8);
      const uint4 a = in[0], b = in[1];
      query[n][p][0] = a.x, query[n][p][1] = a.y, query[n][p][2] = a.z, query[n][p][3] = a.w;
      query[n][p][4] = b.x, query[n][p][5] = b.y, query[n][p][6] = b.z, query[n][p][7] = b.w;
    }
    step[n][0] = scan.query_step[(kv_head * tiles + n) * 8 + 2 * t] * scan.factor;
    step[n][1] = scan.query_step[(kv_head * tiles + n) * 8 + 2 * t + 1] * scan.factor;
  }

  float sum[tiles][8][4];
  float max[tiles][2], total[tiles][2];
#pragma unroll
  for (int n = 0; n < tiles; ++n) {
    max[n][0] = max[n][1] = -INFINITY;
    total[n][0] = total[n][1] = 0;
#pragma unroll
    for (int m = 0; m < 8; ++m) sum[n][m][0] = sum[n][m][1] = sum[n][m][2] = sum[n][m][3] = 0;
  }

  struct Packed {
    PackedKey<key_bits> key[2][2];
    PackedValue<value_bits> value[2][4];
    __half key_scale[2][2], value_scale[2][2];
  };
  const auto load = [&](Packed& packed, std::int64_t base) {
#pragma unroll
    for (int s = 0; s < 2; ++s) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const std::int64_t token = min(base + 16 * s + 8 * i + g, until - 1);
        packed.key[s][i].load(keys + token * key_bytes, t);
        packed.key_scale[s][i] = key_scales[token];
        packed.value_scale[s][i] = value_scales[token];
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const std::int64_t token = min(base + 16 * s + 8 * (i / 2) + 2 * t + i % 2, until - 1);
        packed.value[s][i].load(values + token * value_bytes, g);
      }
    }
  };

  std::int64_t base = from + warp * chunk;
  Packed next;
  if (base < until) load(next, base);
  for (; base < until; base += warps * chunk) {
    const Packed packed = next;
    if (base + warps * chunk < until) load(next, base + warps * chunk);

    // Logits, in units of log 2: [tile][token s, i][column].
    float logit[tiles][2][4];
#pragma unroll
    for (int s = 0; s < 2; ++s) {
      std::uint32_t a[2][8];
      [[maybe_unused]] std::uint32_t low[2][8];
      if constexpr (key_bits == 8) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
#pragma unroll
          for (int r = 0; r < 8; ++r) {
            const std::uint32_t word = packed.key[s][i].word[r];
            const std::uint32_t first = static_cast<std::uint16_t>(wide[word & 255u]) | static_cast<std::uint32_t>(wide[word >> 8 & 255u])
                                                                                            << 16;
            const std::uint32_t second = static_cast<std::uint16_t>(wide[word >> 16 & 255u]) | static_cast<std::uint32_t>(wide[word >> 24])
                                                                                                   << 16;
            a[i][r] = permute(first, second, 0x6420u);
            low[i][r] = permute(first, second, 0x7531u);
          }
        }
      } else {
        packed.key[s][0].unpack(scan.key_table, a[0]);
        packed.key[s][1].unpack(scan.key_table, a[1]);
      }
      const float scale[2] = {__half2float(packed.key_scale[s][0]), __half2float(packed.key_scale[s][1])};
#pragma unroll
      for (int n = 0; n < tiles; ++n) {
        int high_sum[4] = {}, low_sum[4] = {};
        [[maybe_unused]] int lowest_sum[4] = {};
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          multiply(high_sum, a[0][2 * k], a[1][2 * k], a[0][2 * k + 1], a[1][2 * k + 1], query[n][0][2 * k], query[n][0][2 * k + 1]);
          multiply(low_sum, a[0][2 * k], a[1][2 * k], a[0][2 * k + 1], a[1][2 * k + 1], query[n][1][2 * k], query[n][1][2 * k + 1]);
          if constexpr (key_bits == 8) {
            multiply(low_sum, low[0][2 * k], low[1][2 * k], low[0][2 * k + 1], low[1][2 * k + 1], query[n][0][2 * k],
                     query[n][0][2 * k + 1]);
            multiply(lowest_sum, low[0][2 * k], low[1][2 * k], low[0][2 * k + 1], low[1][2 * k + 1], query[n][1][2 * k],
                     query[n][1][2 * k + 1]);
          }
        }
#pragma unroll
        for (int c = 0; c < 4; ++c) {
          float product = static_cast<float>(high_sum[c] * 128 + low_sum[c]);
          if constexpr (key_bits == 8) product = product * 128 + static_cast<float>(lowest_sum[c]);
          float x = product * scale[c / 2] * step[n][c % 2];
          if (scan.softcap != 0) x = scan.softcap * tanhf(x);
          const std::int64_t token = base + 16 * s + 8 * (c / 2) + g;
          if (scan.mask != nullptr) {
            const int column = 8 * n + 2 * t + c % 2;
            if (token < until && column < scan.used) x += log2e * __half2float(scan.mask[column / scan.group * scan.mask_stride + token]);
          }
          logit[n][s][c] = token < until ? x : -INFINITY;
        }
      }
    }

    // Weights exp2(logit)·value scale, relative to the largest of them so far: they stay within half precision whatever the scales are.
    float value_scale[2][2];
#pragma unroll
    for (int s = 0; s < 2; ++s) {
#pragma unroll
      for (int i = 0; i < 2; ++i) value_scale[s][i] = __half2float(packed.value_scale[s][i]);
    }
    std::uint32_t weight[tiles][2][2];
#pragma unroll
    for (int n = 0; n < tiles; ++n) {
      float now[2] = {max[n][0], max[n][1]};
#pragma unroll
      for (int s = 0; s < 2; ++s) {
#pragma unroll
        for (int c = 0; c < 4; ++c) {
          const float x = logit[n][s][c] + __log2f(fmaxf(value_scale[s][c / 2], 0x1p-24f));
          now[c % 2] = fmaxf(now[c % 2], x == x ? x : 0.f);  // what is not a number is not lost on the way
        }
      }
#pragma unroll
      for (int half = 4; half < 32; half *= 2) {
        now[0] = fmaxf(now[0], __shfl_xor_sync(0xffffffffu, now[0], half));
        now[1] = fmaxf(now[1], __shfl_xor_sync(0xffffffffu, now[1], half));
      }
      const bool grown = now[0] > max[n][0] || now[1] > max[n][1];
      if (__any_sync(0xffffffffu, grown)) {
#pragma unroll
        for (int c = 0; c < 2; ++c) {
          const float shrink = now[c] == -INFINITY ? 1.f : exp2f(max[n][c] - now[c]);
          max[n][c] = now[c];
          total[n][c] *= shrink;
#pragma unroll
          for (int m = 0; m < 8; ++m) {
            sum[n][m][c] *= shrink;
            sum[n][m][c + 2] *= shrink;
          }
        }
      }
#pragma unroll
      for (int s = 0; s < 2; ++s) {
        float e[4];
#pragma unroll
        for (int c = 0; c < 4; ++c) {
          e[c] = logit[n][s][c] == -INFINITY ? 0.f : exp2f(logit[n][s][c] - max[n][c % 2]);
          total[n][c % 2] += e[c];
          e[c] *= value_scale[s][c / 2];
        }
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const __half2 pair = __floats2half2_rn(e[2 * i], e[2 * i + 1]);
          weight[n][s][i] = transpose(*reinterpret_cast<const std::uint32_t*>(&pair));
        }
      }
    }

#pragma unroll
    for (int s = 0; s < 2; ++s) {
      std::uint32_t first[16], second[16];
      unpack_values(packed.value[s][0], packed.value[s][1], scan.value_table, first);
      unpack_values(packed.value[s][2], packed.value[s][3], scan.value_table, second);
#pragma unroll
      for (int m = 0; m < 8; ++m) {
#pragma unroll
        for (int n = 0; n < tiles; ++n)
          multiply(sum[n][m], first[2 * m], first[2 * m + 1], second[2 * m], second[2 * m + 1], weight[n][s][0], weight[n][s][1]);
      }
    }
  }

  // The four warps' results become the block's.
  __shared__ float shared_sum[warps][8][dim];
  __shared__ float2 shared_max[warps][8];
#pragma unroll
  for (int n = 0; n < tiles; ++n) {
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      float whole = total[n][c];
#pragma unroll
      for (int half = 4; half < 32; half *= 2) whole += __shfl_xor_sync(0xffffffffu, whole, half);
      if (g == 0) shared_max[warp][2 * t + c] = {max[n][c], whole};
#pragma unroll
      for (int m = 0; m < 8; ++m) {
        shared_sum[warp][2 * t + c][value_coordinate<value_bits>(g, 2 * m)] = sum[n][m][c];
        shared_sum[warp][2 * t + c][value_coordinate<value_bits>(g, 2 * m + 1)] = sum[n][m][c + 2];
      }
    }
    __syncthreads();
    for (int column = 0; column < 8; ++column) {
      float top = -INFINITY;
#pragma unroll
      for (int w = 0; w < warps; ++w) top = fmaxf(top, shared_max[w][column].x);
      float x = 0, whole = 0;
#pragma unroll
      for (int w = 0; w < warps; ++w) {
        const float2 part = shared_max[w][column];
        const float share = part.x == -INFINITY ? 0.f : exp2f(part.x - top);
        x += share * shared_sum[w][column][threadIdx.x];
        whole += share * part.y;
      }
      const std::int64_t at = (static_cast<std::int64_t>(kv_head) * gridDim.x + blockIdx.x) * (8 * tiles) + 8 * n + column;
      scan.sums[at * dim + threadIdx.x] = x;
      if (threadIdx.x == 0) scan.maxima[at] = {top, whole};
    }
    __syncthreads();
  }
}

// Adds up the splits, takes the sinks in, and rotates back. One block of 128 threads a query row.
__global__ void merge_kernel(const float* sums, const float2* maxima, int splits, int tile_columns, int heads, int group, float value_step,
                             Signs signs, const float* sinks, float* out) {
  __shared__ float x[dim];
  const int row = blockIdx.x, head = row % heads, kv_head = head / group;
  const int column = row / heads * group + head % group, i = threadIdx.x;
  const std::int64_t first = static_cast<std::int64_t>(kv_head) * splits * tile_columns + column;
  float top = sinks != nullptr ? sinks[head] * log2e : -INFINITY;
  for (int s = 0; s < splits; ++s) top = fmaxf(top, maxima[first + static_cast<std::int64_t>(s) * tile_columns].x);
  float value = 0, whole = sinks != nullptr ? exp2f(sinks[head] * log2e - top) : 0.f;
  if (top > -INFINITY) {
    for (int s = 0; s < splits; ++s) {
      const std::int64_t at = first + static_cast<std::int64_t>(s) * tile_columns;
      const float2 part = maxima[at];
      if (part.x == -INFINITY) continue;
      const float share = exp2f(part.x - top);
      value += share * sums[at * dim + i];
      whole += share * part.y;
    }
  }
  x[i] = whole == 0 ? 0.f : value / whole * value_step * 0.08838834764831845f;
  __syncthreads();
  if (threadIdx.x < 32) {
    float y[4];
#pragma unroll
    for (int k = 0; k < 4; ++k) y[k] = x[4 * i + k];
    hadamard(y, i);
    flip(y, i, signs);
    *reinterpret_cast<float4*>(out + static_cast<std::int64_t>(row) * dim + 4 * i) = make_float4(y[0], y[1], y[2], y[3]);
  }
}

Error cuda_error(const char* what, cudaError_t error) {
  return Error{ErrorCode::io, std::string("the GPU refused ") + what + ": " + cudaGetErrorString(error)};
}

template <class T>
class DeviceArray {
 public:
  DeviceArray() = default;
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;
  ~DeviceArray() { cudaFree(data_); }
  cudaError_t resize(std::size_t count) {
    if (count <= count_) return cudaSuccess;
    cudaFree(data_);
    data_ = nullptr;
    count_ = 0;
    const auto error = cudaMalloc(&data_, count * sizeof(T));
    if (error == cudaSuccess) count_ = count;
    return error;
  }
  T* get() const { return static_cast<T*>(data_); }

 private:
  void* data_ = nullptr;
  std::size_t count_ = 0;
};

Book make_book(const Codec& codec, bool biased) {
  Book book;
  const Codebook& from = codec.book();
  book.step = from.step;
  const int codes = 1 << codec.format().bits;
  for (int i = 0; i + 1 < codes; ++i) book.threshold[i] = static_cast<float>(from.thresholds[static_cast<std::size_t>(i)]);
  for (int i = 0; i < codes; ++i) book.level[i] = from.levels[static_cast<std::size_t>(i)];
  for (int i = 0; i < std::min(codes, 16); ++i)
    book.table[i / 4] |= static_cast<std::uint32_t>((book.level[i] + (biased ? 128 : 0)) & 255) << (8 * (i % 4));
  return book;
}

}  // namespace

class KvCache::Impl {
 public:
  Impl(Codec key_codec, Codec value_codec, int heads, std::int64_t cells)
      : keys(std::move(key_codec)), values(std::move(value_codec)), kv_heads(heads), tokens(cells) {
    const auto& negative = keys.rotation().signs();
    for (int i = 0; i < dim; ++i) {
      if (negative[static_cast<std::size_t>(i)] < 0) signs.negative[i / 32] |= 1u << (i % 32);
    }
    key_book = make_book(keys, false);
    value_book = make_book(values, true);
  }

  Codec keys, values;
  int kv_heads;
  std::int64_t tokens;
  Signs signs;
  Book key_book, value_book;
  int processors = 1;
  DeviceArray<Book> books;  // keys', values'
  DeviceArray<std::uint8_t> key_codes, value_codes;
  DeviceArray<__half> key_scales, value_scales;
  DeviceArray<std::uint32_t> query;
  DeviceArray<float> steps, sums;
  DeviceArray<float2> maxima;

  std::size_t cells() const { return static_cast<std::size_t>(kv_heads) * static_cast<std::size_t>(tokens); }

  template <int key_bits, int value_bits>
  void scan(const Scan& arguments, int tiles, int splits, cudaStream_t stream) const {
    const dim3 grid(static_cast<unsigned>(splits), static_cast<unsigned>(kv_heads));
    if (tiles == 1) {
      launch(scan_kernel<key_bits, value_bits, 1>, grid, warps * 32, stream, arguments);
    } else {
      launch(scan_kernel<key_bits, value_bits, 2>, grid, warps * 32, stream, arguments);
    }
  }
  template <int key_bits>
  void scan_values(const Scan& arguments, int tiles, int splits, cudaStream_t stream) const {
    switch (values.format().bits) {
      case 2: return scan<key_bits, 2>(arguments, tiles, splits, stream);
      case 3: return scan<key_bits, 3>(arguments, tiles, splits, stream);
      default: return scan<key_bits, 4>(arguments, tiles, splits, stream);
    }
  }
};

KvCache::KvCache(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
KvCache::~KvCache() = default;

Result<std::unique_ptr<KvCache>> KvCache::create(VectorFormat keys, VectorFormat values, int kv_heads, std::int64_t tokens) {
  const bool fits = keys.dim == dim && values.dim == dim && (keys.bits == 2 || keys.bits == 3 || keys.bits == 4 || keys.bits == 8) &&
                    values.bits >= 2 && values.bits <= 4 && kv_heads > 0 && tokens > 0;
  if (!fits)
    return Error{ErrorCode::unsupported,
                 "on the GPU, heads of 128 numbers with keys of 2, 3, 4 or 8 bits and values of 2, 3 or 4 can be compressed"};
  auto key_codec = Codec::create(keys), value_codec = Codec::create(values);
  if (!key_codec.ok()) return key_codec.error();
  if (!value_codec.ok()) return value_codec.error();
  auto impl = std::make_unique<Impl>(std::move(*key_codec), std::move(*value_codec), kv_heads, tokens);
  int device = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&impl->processors, cudaDevAttrMultiProcessorCount, device);
  if (error == cudaSuccess) error = impl->key_codes.resize(impl->cells() * keys.code_bytes());
  if (error == cudaSuccess) error = impl->value_codes.resize(impl->cells() * values.code_bytes());
  if (error == cudaSuccess) error = impl->key_scales.resize(impl->cells());
  if (error == cudaSuccess) error = impl->value_scales.resize(impl->cells());
  if (error == cudaSuccess) error = impl->books.resize(2);
  const std::array<Book, 2> books{impl->key_book, impl->value_book};
  if (error == cudaSuccess) error = cudaMemcpy(impl->books.get(), books.data(), sizeof books, cudaMemcpyHostToDevice);
  // A cell that was never written is a zero vector.
  if (error == cudaSuccess) error = cudaMemset(impl->key_codes.get(), 0, impl->cells() * keys.code_bytes());
  if (error == cudaSuccess) error = cudaMemset(impl->value_codes.get(), 0, impl->cells() * values.code_bytes());
  if (error == cudaSuccess) error = cudaMemset(impl->key_scales.get(), 0, impl->cells() * sizeof(__half));
  if (error == cudaSuccess) error = cudaMemset(impl->value_scales.get(), 0, impl->cells() * sizeof(__half));
  if (error != cudaSuccess) return cuda_error("memory for a KV cache", error);
  return std::unique_ptr<KvCache>(new KvCache(std::move(impl)));
}

Result<void> KvCache::write(const void* keys, const void* values, std::int64_t first, int rows, Stream stream) {
  auto& it = *impl_;
  if (first < 0 || rows < 0 || first + rows > it.tokens) return internal_error("rows outside of the KV cache");
  if (rows == 0) return {};
  const auto blocks = static_cast<unsigned>((static_cast<std::int64_t>(rows) * it.kv_heads + warps - 1) / warps);
  const auto on = static_cast<cudaStream_t>(stream);
  launch(encode_kernel, blocks, warps * 32, on, static_cast<const __half*>(keys), it.kv_heads, first, rows, it.tokens,
         static_cast<const Book*>(it.books.get()), it.signs, it.keys.format().bits, it.key_codes.get(), it.key_scales.get());
  launch(encode_kernel, blocks, warps * 32, on, static_cast<const __half*>(values), it.kv_heads, first, rows, it.tokens, it.books.get() + 1,
         it.signs, it.values.format().bits, it.value_codes.get(), it.value_scales.get());
  if (const auto error = cudaGetLastError(); error != cudaSuccess) return cuda_error("to encode", error);
  return {};
}

Result<void> KvCache::attend(const Attention& attention, Stream stream) {
  auto& it = *impl_;
  if (attention.heads <= 0 || attention.heads % it.kv_heads != 0 || attention.queries <= 0 || attention.tokens <= 0 ||
      attention.tokens > it.tokens)
    return internal_error("attention that does not fit the KV cache");
  const int group = attention.heads / it.kv_heads, used = group * attention.queries;
  if (used > most_columns) return Error{ErrorCode::unsupported, "at most 16 query rows can share a KV head"};
  const int tiles = (used + 7) / 8;
  // Three blocks fit a multiprocessor (two with 16 columns); a split is worth its merging from 256 tokens on.
  const std::int64_t wanted = std::max<std::int64_t>(1, 3 * it.processors / it.kv_heads);
  const std::int64_t unit = warps * chunk;
  std::int64_t per_split = std::max<std::int64_t>(2 * unit, (attention.tokens + wanted - 1) / wanted);
  per_split = (per_split + unit - 1) / unit * unit;
  const int splits = static_cast<int>((attention.tokens + per_split - 1) / per_split);

  const auto rows = static_cast<std::size_t>(it.kv_heads) * static_cast<std::size_t>(tiles) * 8;
  cudaError_t error = it.query.resize(rows * 64);
  if (error == cudaSuccess) error = it.steps.resize(rows);
  if (error == cudaSuccess) error = it.sums.resize(rows * static_cast<std::size_t>(splits) * dim);
  if (error == cudaSuccess) error = it.maxima.resize(rows * static_cast<std::size_t>(splits));
  const auto on = static_cast<cudaStream_t>(stream);
  if (error == cudaSuccess && used % 8 != 0) {  // columns beyond the last row: zero queries
    error = cudaMemsetAsync(it.query.get(), 0, rows * 64 * sizeof(std::uint32_t), on);
    if (error == cudaSuccess) error = cudaMemsetAsync(it.steps.get(), 0, rows * sizeof(float), on);
  }
  if (error != cudaSuccess) return cuda_error("memory for attention", error);

  const int count = attention.queries * attention.heads;
  const auto blocks = static_cast<unsigned>((count + warps - 1) / warps);
  const auto prepare = [&](auto kernel) {
    launch(kernel, blocks, warps * 32, on, attention.q, attention.heads, it.kv_heads, attention.queries, tiles, it.signs, it.query.get(),
           it.steps.get());
  };
  Scan scan{};
  scan.key_codes = it.key_codes.get();
  scan.key_scales = it.key_scales.get();
  scan.value_codes = it.value_codes.get();
  scan.value_scales = it.value_scales.get();
  scan.key_book = it.books.get();
  std::copy(std::begin(it.key_book.table), std::end(it.key_book.table), std::begin(scan.key_table));
  std::copy(std::begin(it.value_book.table), std::end(it.value_book.table), std::begin(scan.value_table));
  scan.query = it.query.get();
  scan.query_step = it.steps.get();
  scan.mask = static_cast<const __half*>(attention.mask);
  scan.mask_stride = attention.mask_stride;
  scan.capacity = it.tokens;
  scan.tokens = attention.tokens;
  scan.tokens_per_split = per_split;
  scan.group = group;
  scan.used = used;
  const float logit = attention.scale * it.key_book.step;
  scan.factor = attention.softcap != 0 ? logit / attention.softcap : logit * log2e;
  scan.softcap = attention.softcap * log2e;
  scan.sums = it.sums.get();
  scan.maxima = it.maxima.get();
  switch (it.keys.format().bits) {
    case 2:
      prepare(query_kernel<2>);
      it.scan_values<2>(scan, tiles, splits, on);
      break;
    case 3:
      prepare(query_kernel<3>);
      it.scan_values<3>(scan, tiles, splits, on);
      break;
    case 4:
      prepare(query_kernel<4>);
      it.scan_values<4>(scan, tiles, splits, on);
      break;
    default:
      prepare(query_kernel<8>);
      it.scan_values<8>(scan, tiles, splits, on);
      break;
  }
  launch(merge_kernel, static_cast<unsigned>(count), dim, on, it.sums.get(), it.maxima.get(), splits, 8 * tiles, attention.heads, group,
         it.value_book.step, it.signs, attention.sinks, attention.out);
  if (error = cudaGetLastError(); error != cudaSuccess) return cuda_error("attention", error);
  return {};
}

std::size_t KvCache::bytes() const { return impl_->cells() * (impl_->keys.format().bytes() + impl_->values.format().bytes()); }

Result<void> KvCache::read(bool key, int head, std::int64_t token, std::uint8_t* record) const {
  const auto& it = *impl_;
  const auto bytes = (key ? it.keys : it.values).format().code_bytes();
  const auto cell = static_cast<std::size_t>(head) * static_cast<std::size_t>(it.tokens) + static_cast<std::size_t>(token);
  const std::uint8_t* codes = key ? it.key_codes.get() : it.value_codes.get();
  const __half* scales = key ? it.key_scales.get() : it.value_scales.get();
  cudaError_t error = cudaMemcpy(record, codes + cell * bytes, bytes, cudaMemcpyDeviceToHost);
  if (error == cudaSuccess) error = cudaMemcpy(record + bytes, scales + cell, 2, cudaMemcpyDeviceToHost);
  if (error != cudaSuccess) return cuda_error("to read a record", error);
  return {};
}

}  // namespace hearth::turboquant::cuda
