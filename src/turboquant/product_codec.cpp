#include "turboquant/product_codec.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "turboquant/half.h"

namespace hearth::turboquant {
namespace {

constexpr double kPi = 3.14159265358979323846;

}  // namespace

Result<ProductCodec> ProductCodec::create(int dim, int bits, std::uint64_t seed) {
  auto base = Codec::create({dim, bits - 1}, seed, ScaleRule::norm);
  if (!base.ok()) return base.error();
  return ProductCodec(std::move(base).value(), seed);
}

ProductCodec::ProductCodec(Codec base, std::uint64_t seed) : base_(std::move(base)) {
  const auto dim = static_cast<std::size_t>(base_.format().dim);
  std::uint64_t state = seed ^ 0x716a6c;  // another stream than the rotation's signs
  const auto uniform = [&state] { return (static_cast<double>(splitmix64(state) >> 11) + 0.5) * 0x1p-53; };
  projection_.resize(dim * dim);
  for (std::size_t i = 0; i < projection_.size(); i += 2) {  // Box–Muller
    const double radius = std::sqrt(-2 * std::log(uniform())), angle = 2 * kPi * uniform();
    projection_[i] = static_cast<float>(radius * std::cos(angle));
    projection_[i + 1] = static_cast<float>(radius * std::sin(angle));
  }
}

std::vector<float> ProductCodec::project(const float* x) const {
  const auto dim = static_cast<std::size_t>(base_.format().dim);
  std::vector<float> y(dim);
  for (std::size_t i = 0; i < dim; ++i) {
    double sum = 0;
    for (std::size_t j = 0; j < dim; ++j) sum += static_cast<double>(projection_[i * dim + j]) * static_cast<double>(x[j]);
    y[i] = static_cast<float>(sum);
  }
  return y;
}

void ProductCodec::encode(const float* x, std::uint8_t* record) const {
  const auto dim = static_cast<std::size_t>(base_.format().dim);
  base_.encode(x, record);
  std::vector<float> rest(dim);
  base_.decode(record, rest.data());
  double squares = 0;
  for (std::size_t i = 0; i < dim; ++i) {
    rest[i] = x[i] - rest[i];
    squares += static_cast<double>(rest[i]) * static_cast<double>(rest[i]);
  }
  std::uint8_t* signs = record + base_.format().bytes();
  std::fill_n(signs, dim / 8, std::uint8_t{0});
  const std::vector<float> projected = project(rest.data());
  for (std::size_t i = 0; i < dim; ++i) signs[i / 8] |= static_cast<std::uint8_t>((projected[i] < 0 ? 1U : 0U) << (i % 8));
  const std::uint16_t size = std::isfinite(squares) ? std::min<std::uint16_t>(float_to_half(static_cast<float>(std::sqrt(squares))), 0x7bff)
                                                    : std::uint16_t{0x7e00};
  std::memcpy(signs + dim / 8, &size, 2);
}

ProductCodec::Query ProductCodec::prepare(const float* q) const {
  Query query{std::vector<float>(static_cast<std::size_t>(base_.format().dim)), project(q)};
  base_.rotate(q, query.rotated.data());
  return query;
}

float ProductCodec::dot(const Query& query, const std::uint8_t* record) const {
  const auto dim = static_cast<std::size_t>(base_.format().dim);
  const std::uint8_t* signs = record + base_.format().bytes();
  double sum = 0;
  for (std::size_t i = 0; i < dim; ++i)
    sum += static_cast<double>((signs[i / 8] >> (i % 8) & 1U) != 0 ? -query.projected[i] : query.projected[i]);
  std::uint16_t half = 0;
  std::memcpy(&half, signs + dim / 8, 2);
  const double factor = std::sqrt(kPi / 2) / static_cast<double>(dim) * static_cast<double>(half_to_float(half & 0x7fffU));
  return base_.dot(query.rotated.data(), record) + static_cast<float>(factor * sum);
}

}  // namespace hearth::turboquant
