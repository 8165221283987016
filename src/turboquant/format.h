// How a compressed vector lies in memory. Everything that reads or writes one (CPU kernels, CUDA kernels, the back end's state) goes by this page.
//
// A *vector* is the key or value of one head and one token: `dim` numbers. Its record is
//
//   bits × columns bytes   codes, in `bits` planes of `columns` bytes, columns = 4·⌈dim/32⌉
//   2 bytes                scale, IEEE half, little endian; 0 for the zero vector (all codes 0 too), NaN for a vector with a number that is not finite
//
// and stands for x̂ = scale·Rᵀ·c, c_i = level[code_i]·step, with R of rotation.h and levels and step of codebook.h for these dim and bits. Records need no
// alignment. A *row*, the unit of a KV cache, is the records of all heads of a token, one after the other.
//
// Coordinate i = o·columns + j, o = 0…7, is in byte j of the planes: one byte column holds the codes of 8 coordinates, `columns` apart. Written P_w for
// plane w and k_o for the code of coordinate o·columns + j, byte j is (bit 0 is the lowest):
//
//   1 bit    P_0 = k_0 | k_1<<1 | … | k_7<<7
//   2 bits   P_w = k_4w | k_4w+1<<2 | k_4w+2<<4 | k_4w+3<<6                      w = 0, 1
//   3 bits   P_w = k_2w | k_2w+1<<3 | x_w<<6                                     w = 0, 1, 2
//            x_0 = k_6 & 3    x_2 = k_7 & 3    x_1 = k_6>>2 | k_7>>2<<1
//   4 bits   P_w = k_2w | k_2w+1<<4                                              w = 0…3
//   5–7      planes 0–3: the low 4 bits of the codes, as for 4 bits; the other planes: their high bits, as for bits − 4
//   8 bits   P_w = k_w                                                           w = 0…7
//
// Coordinates from dim on (where dim is no multiple of 32) have code 0 and mean nothing.
//
// Why this shape: with one instruction a register of packed bytes gives the same field of 64 columns, whether its lanes are tokens (four neighbouring
// columns of 16 tokens, for q·k) or coordinates (one column of 4 tokens each, for Σ p·v), in natural order, without a shift across bytes. Measured
// against the usual little-endian bit stream in docs/turboquant.md.
#pragma once

#include <cstddef>
#include <cstdint>

namespace hearth::turboquant {

inline constexpr int kMinDim = 8, kMaxDim = 1024;  // multiples of 8
inline constexpr int kMinBits = 1, kMaxBits = 8;
inline constexpr std::uint64_t kDefaultSeed = 0x68656172746874;  // part of the format: data written under another seed reads as noise

struct VectorFormat {
  int dim = 0;
  int bits = 0;

  int columns() const { return (dim + 31) / 32 * 4; }
  std::size_t code_bytes() const { return static_cast<std::size_t>(bits) * static_cast<std::size_t>(columns()); }
  std::size_t bytes() const { return code_bytes() + 2; }
  bool operator==(const VectorFormat&) const = default;
};

// Code of coordinate o·columns + j; `codes` is the start of a record. The definition above as code: slow, for reference.
inline unsigned read_code(const std::uint8_t* codes, int columns, int bits, int o, int j) {
  const auto plane = [&](int w) -> unsigned { return codes[w * columns + j]; };
  switch (bits) {
    case 1: return plane(0) >> o & 1U;
    case 2: return plane(o / 4) >> (o % 4 * 2) & 3U;
    case 3:
      if (o < 6) return plane(o / 2) >> (o % 2 * 3) & 7U;
      return o == 6 ? plane(0) >> 6 | (plane(1) >> 6 & 1U) << 2 : plane(2) >> 6 | plane(1) >> 7 << 2;
    case 4: return plane(o / 2) >> (o % 2 * 4) & 15U;
    case 8: return plane(o);
    default: return read_code(codes, columns, 4, o, j) | read_code(codes + 4 * columns, columns, bits - 4, o, j) << 4;
  }
}
// The inverse, into zeroed bytes.
inline void write_code(std::uint8_t* codes, int columns, int bits, int o, int j, unsigned code) {
  const auto put = [&](int w, unsigned value, int shift) { codes[w * columns + j] |= static_cast<std::uint8_t>(value << shift); };
  switch (bits) {
    case 1: return put(0, code, o);
    case 2: return put(o / 4, code, o % 4 * 2);
    case 3:
      if (o < 6) return put(o / 2, code, o % 2 * 3);
      put(o == 6 ? 0 : 2, code & 3U, 6);
      return put(1, code >> 2, o == 6 ? 6 : 7);
    case 4: return put(o / 2, code, o % 2 * 4);
    case 8: return put(o, code, 0);
    default: write_code(codes, columns, 4, o, j, code & 15U); return write_code(codes + 4 * columns, columns, bits - 4, o, j, code >> 4);
  }
}

}  // namespace hearth::turboquant
