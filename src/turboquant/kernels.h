// The inner loops of codec and attention, one set per instruction set, chosen at run time: the program runs on any x86-64 (and, with the portable set,
// anywhere). Integer results and encoded bytes are the same in every set; floating-point results of `softmax` and `accumulate` differ by rounding.
//
// Attention works on tiles of 64 tokens. A tile is unpacked once and used by every query row that shares the KV head. Products are done on whole
// numbers: levels (codebook.h) against a query of 8 or 14 bits, and 14-bit weights against levels. A number of 14 bits is two planes, high and low:
// value = 128·high + low, low in 0…127, high within ±127, so that pairs of products fit the 16-bit sums of machines without VNNI.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "turboquant/format.h"

namespace hearth::turboquant {

inline constexpr int kTile = 64;  // tokens

struct Codebook;

// What the kernels need to know of a codec.
struct Tables {
  Tables(VectorFormat format, const Codebook& book);

  VectorFormat format;
  int columns = 0;
  int planes = 1;      // 2 where levels have 14 bits
  int padded_dim = 0;  // 8·columns: rows of tiles, queries and sums are this long
  float step = 0;
  // By code; repeated to the end of the table, so that an index with junk above its `bits` bits may be used as it is.
  alignas(64) std::array<std::int8_t, 256> high{};  // the level, or its high part
  alignas(64) std::array<std::int8_t, 256> low{};
  alignas(64) std::array<float, 256> level{};
  // The thresholds as a binary search tree: from n = 1, `bits` times n = 2n + (z > search[n]); then n − 2^bits is the code.
  alignas(64) std::array<float, 256> search{};
  // Thresholds are symmetric: the part of the tree above 0, numbered like a tree of its own, for the search of |z|.
  alignas(64) std::array<float, 128> upper_search{};
};

// One query row on one tile.
struct SoftmaxRow {
  // in
  const float* products;      // [64] q·level of each token
  const float* key_scale;     // [64]
  const float* value_scale;   // [64]
  float factor;               // product·key_scale·factor = logit, before the cap
  float softcap;              // 0: none; else logit = softcap·tanh(logit), `factor` divided by it
  const std::uint16_t* mask;  // [count] IEEE half, added to the logit times `slope`; −∞ leaves the token out; nullptr: none
  float slope;
  int count;  // tokens in the tile
  // in and out
  float max, sum;  // of the row so far. A logit that is not a number makes `sum` so.
  // out
  std::uint8_t* high;  // [64] planes of the weights exp(logit − max)·value_scale in units of `weight_step`
  std::uint8_t* low;
  float weight_step;
  float rescale;  // exp(old max − new max)
};

struct Kernels {
  const char* name;

  // In-place Walsh–Hadamard transform, not scaled; n a power of two.
  void (*hadamard)(float* x, int n);
  // Σ x², in 16 interleaved sums that are then added pairwise.
  float (*sum_of_squares)(const float* x, int n);
  // Nearest codes of y·factor into a record's planes (all bytes written); returns Σ level².
  double (*quantise)(const Tables& tables, const float* y, float factor, std::uint8_t* codes);
  // y = level·factor, dim floats.
  void (*expand)(const Tables& tables, const std::uint8_t* codes, float factor, float* y);
  void (*to_half)(const float* x, int n, std::uint16_t* half);
  void (*from_half)(const std::uint16_t* half, int n, float* x);

  // `count` records, 1–64, as a tile of levels, in an order of the set's own; and their scales. Record t is at records + index[t]·stride. The tile has
  // tile_bytes() bytes, at a multiple of 64. Nothing outside the records is read. Tokens from `count` on get valid but meaningless levels and scale 0.
  void (*unpack_keys)(const Tables& tables, const std::uint8_t* records, std::size_t stride, const std::int32_t* index, int count,
                      std::uint8_t* tile, float* scale);
  void (*unpack_values)(const Tables& tables, const std::uint8_t* records, std::size_t stride, const std::int32_t* index, int count,
                        std::uint8_t* tile, float* scale);
  // out[r][t] = Σ_i q[r][i]·level[t][i] for a tile of keys, r < rows. rows × `query_planes` × padded_dim bytes, of a row the high plane first;
  // `query_sums` alike: Σ_i of each plane of each row. out: rows × 64.
  void (*dot)(const Tables& tables, const std::int8_t* query, const std::int32_t* query_sums, int query_planes, int rows,
              const std::uint8_t* tile, float* out);
  // False where nothing of the row is left in this tile: the row is as before and its weights are 0.
  bool (*softmax)(SoftmaxRow& row);
  // sum[r] = sum[r]·rescale[r] + weight_step[r]·Σ_t weight[r][t]·level[t] for a tile of values. Weights: two planes of rows × 64 bytes. sum: rows × padded_dim.
  void (*accumulate)(const Tables& tables, const std::uint8_t* high, const std::uint8_t* low, int rows, const std::uint8_t* tile,
                     const float* rescale, const float* weight_step, float* sum);
};

inline constexpr std::size_t tile_bytes(int padded_dim) { return std::size_t{4} * kTile * static_cast<std::size_t>(padded_dim) + 64; }

// The sets this machine can run, slowest first; the first is "portable".
std::span<const Kernels* const> available_kernels();
const Kernels& best_kernels();

namespace detail {  // one per source file; null where the build has none for this machine
extern const Kernels portable_kernels;
const Kernels* avx2_kernels();
const Kernels* avx512_kernels();
}  // namespace detail

}  // namespace hearth::turboquant
