// Fractional widths, and more bits where the energy is: the channels of a vector in two parts, each compressed for itself (codec.h), the outlier channels
// with more bits than the rest. Half of them at 3 bits and half at 2 make 2.5 bits. Which channels are large is a property of a model's layer and does
// not change from token to token, so they are chosen once, from sample vectors.
//
// A record is that of the outliers, in ascending order of channels, then that of the others.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"
#include "turboquant/codec.h"

namespace hearth::turboquant {

// The `count` channels with the largest mean square over `vectors` samples of `dim` numbers, ascending.
std::vector<int> largest_channels(const float* samples, int vectors, int dim, int count);

class SplitCodec {
 public:
  // `outliers`: ascending, different, below dim; as many as Codec can take, and so the others. invalid_request or unsupported otherwise.
  static Result<SplitCodec> create(int dim, std::span<const int> outliers, int outlier_bits, int other_bits,
                                   std::uint64_t seed = kDefaultSeed);

  std::size_t bytes() const { return high_.format().bytes() + low_.format().bytes(); }
  // Of a coordinate, without scales: 2.5.
  double bits() const;
  void encode(const float* x, std::uint8_t* record) const;
  void decode(const std::uint8_t* record, float* x) const;
  // R·q of both parts, one after the other: what dot() takes. dim floats.
  void rotate(const float* q, float* rotated) const;
  float dot(const float* rotated_query, const std::uint8_t* record) const;

 private:
  SplitCodec(std::vector<int> order, Codec high, Codec low);
  void gather(const float* x, float* parts) const;

  std::vector<int> order_;  // of channels in a record
  Codec high_, low_;
};

}  // namespace hearth::turboquant
