// TurboQuant's Q_prod: inner products that are unbiased. A vector is stored with one bit less by Q_mse (codec.h), and of what that left over, r, its
// length and the signs of a random projection S·r, S Gaussian (QJL, arXiv 2406.03482): E[sign⟨s,r⟩·⟨s,q⟩] = √(2/π)·⟨r,q⟩/‖r‖. For search and statistics.
// Attention does not use it: the added variance costs more there than the bias does (docs/turboquant.md).
//
// A record is that of VectorFormat{dim, bits − 1}, then dim/8 bytes of signs (bit i%8 of byte i/8 is set where (S·r)_i < 0), then ‖r‖, IEEE half.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/result.h"
#include "turboquant/codec.h"

namespace hearth::turboquant {

class ProductCodec {
 public:
  // `bits` 2–9 in all. unsupported like Codec::create. Holds dim² floats.
  static Result<ProductCodec> create(int dim, int bits, std::uint64_t seed = kDefaultSeed);

  std::size_t bytes() const { return base_.format().bytes() + static_cast<std::size_t>(base_.format().dim) / 8 + 2; }
  void encode(const float* x, std::uint8_t* record) const;

  struct Query {
    std::vector<float> rotated, projected;  // R·q, S·q
  };
  Query prepare(const float* q) const;
  // An estimate of ⟨q, x⟩, unbiased over S.
  float dot(const Query& query, const std::uint8_t* record) const;

 private:
  ProductCodec(Codec base, std::uint64_t seed);
  std::vector<float> project(const float* x) const;

  Codec base_;
  std::vector<float> projection_;  // S, by rows
};

}  // namespace hearth::turboquant
