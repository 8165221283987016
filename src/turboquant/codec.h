// TurboQuant's Q_mse (arXiv 2504.19874) for vectors of one size: rotate, divide by the norm, replace each coordinate by the nearest centroid. No
// calibration, no state: a vector is compressed when it arrives and never touched again.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/result.h"
#include "turboquant/codebook.h"
#include "turboquant/format.h"
#include "turboquant/kernels.h"
#include "turboquant/rotation.h"

namespace hearth::turboquant {

// What the stored scale makes true. All three read alike.
enum class ScaleRule {
  norm,       // ‖x‖: the least error for a random vector, but x̂ is short by a factor √(1−distortion)
  corrected,  // ‖x̂‖ = ‖x‖, the default: logits and weighted sums keep their size
  unbiased,   // ⟨x, x̂⟩ = ‖x‖²: inner products right on average over rotations, x̂ long by 1/√(1−distortion)
};

class Codec {
 public:
  // unsupported, naming what is possible, for a size or width outside format.h.
  static Result<Codec> create(VectorFormat format, std::uint64_t seed = kDefaultSeed, ScaleRule rule = ScaleRule::corrected);

  const VectorFormat& format() const { return format_; }
  const Codebook& book() const { return *book_; }
  const Rotation& rotation() const { return rotation_; }
  const Tables& tables() const { return tables_; }  // the codebook as kernels read it

  // dim floats → format().bytes() bytes. A scale beyond half precision saturates at 65504, as numbers of an f16 cache would; below 2^-25 it is 0.
  // `kernels` computes; every level gives the same bytes.
  void encode(const float* x, std::uint8_t* record, const Kernels& kernels = best_kernels()) const;
  void encode_half(const std::uint16_t* x, std::uint8_t* record, const Kernels& kernels = best_kernels()) const;
  // Reads format().bytes() bytes, whatever they are; dim floats come out.
  void decode(const std::uint8_t* record, float* x, const Kernels& kernels = best_kernels()) const;
  void decode_half(const std::uint8_t* record, std::uint16_t* x, const Kernels& kernels = best_kernels()) const;

  // The rows of a cache: `vectors` heads one after the other, on both sides.
  void encode_row(const float* x, int vectors, std::uint8_t* row, const Kernels& kernels = best_kernels()) const;
  void decode_row(const std::uint8_t* row, int vectors, float* x, const Kernels& kernels = best_kernels()) const;

  // R·q, scaled like q: what dot() wants, computed once for many records. dim floats each; `rotated` may be `q`.
  void rotate(const float* q, float* rotated) const;
  // The inverse, in place: what add_weighted() added up, back in the coordinates of x.
  void rotate_back(float* rotated) const;
  // ⟨q, x̂⟩.
  float dot(const float* rotated_query, const std::uint8_t* record) const;
  // sum += weight·R·x̂. dim floats.
  void add_weighted(float weight, const std::uint8_t* record, float* rotated_sum) const;

 private:
  Codec(VectorFormat format, std::uint64_t seed, ScaleRule rule);

  VectorFormat format_;
  ScaleRule rule_;
  const Codebook* book_;  // remembered by codebook()
  Rotation rotation_;
  Tables tables_;
};

}  // namespace hearth::turboquant
