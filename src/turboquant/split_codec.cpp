#include "turboquant/split_codec.h"

#include <algorithm>
#include <numeric>
#include <string>
#include <utility>

namespace hearth::turboquant {

std::vector<int> largest_channels(const float* samples, int vectors, int dim, int count) {
  std::vector<double> energy(static_cast<std::size_t>(dim));
  for (int i = 0; i < vectors; ++i) {
    for (int j = 0; j < dim; ++j) {
      const double x = static_cast<double>(samples[static_cast<std::ptrdiff_t>(i) * dim + j]);
      energy[static_cast<std::size_t>(j)] += x * x;
    }
  }
  std::vector<int> channels(static_cast<std::size_t>(dim));
  std::iota(channels.begin(), channels.end(), 0);
  std::sort(channels.begin(), channels.end(), [&](int a, int b) {
    const double of_a = energy[static_cast<std::size_t>(a)], of_b = energy[static_cast<std::size_t>(b)];
    return of_a != of_b ? of_a > of_b : a < b;
  });
  channels.resize(static_cast<std::size_t>(std::clamp(count, 0, dim)));
  std::sort(channels.begin(), channels.end());
  return channels;
}

Result<SplitCodec> SplitCodec::create(int dim, std::span<const int> outliers, int outlier_bits, int other_bits, std::uint64_t seed) {
  std::vector<int> order(outliers.begin(), outliers.end());
  for (std::size_t i = 0; i < order.size(); ++i) {
    if (order[i] < 0 || order[i] >= dim || (i > 0 && order[i] <= order[i - 1])) {
      return invalid("outlier channel " + std::to_string(order[i]) + ": channels must be ascending, different and from 0 to " +
                     std::to_string(dim - 1));
    }
  }
  for (int channel = 0; channel < dim; ++channel) {
    if (!std::binary_search(outliers.begin(), outliers.end(), channel)) order.push_back(channel);
  }
  const int count = static_cast<int>(outliers.size());
  auto high = Codec::create({count, outlier_bits}, seed);
  if (!high.ok()) return high.error();
  auto low = Codec::create({dim - count, other_bits}, seed);
  if (!low.ok()) return low.error();
  return SplitCodec(std::move(order), std::move(high).value(), std::move(low).value());
}

SplitCodec::SplitCodec(std::vector<int> order, Codec high, Codec low)
    : order_(std::move(order)), high_(std::move(high)), low_(std::move(low)) {}

double SplitCodec::bits() const {
  const VectorFormat &a = high_.format(), &b = low_.format();
  return static_cast<double>(a.dim * a.bits + b.dim * b.bits) / (a.dim + b.dim);
}

void SplitCodec::gather(const float* x, float* parts) const {
  for (std::size_t i = 0; i < order_.size(); ++i) parts[i] = x[order_[i]];
}

void SplitCodec::encode(const float* x, std::uint8_t* record) const {
  float parts[2 * kMaxDim];
  gather(x, parts);
  high_.encode(parts, record);
  low_.encode(parts + high_.format().dim, record + high_.format().bytes());
}

void SplitCodec::decode(const std::uint8_t* record, float* x) const {
  float parts[2 * kMaxDim];
  high_.decode(record, parts);
  low_.decode(record + high_.format().bytes(), parts + high_.format().dim);
  for (std::size_t i = 0; i < order_.size(); ++i) x[order_[i]] = parts[i];
}

void SplitCodec::rotate(const float* q, float* rotated) const {
  gather(q, rotated);
  high_.rotate(rotated, rotated);
  low_.rotate(rotated + high_.format().dim, rotated + high_.format().dim);
}

float SplitCodec::dot(const float* rotated_query, const std::uint8_t* record) const {
  return high_.dot(rotated_query, record) + low_.dot(rotated_query + high_.format().dim, record + high_.format().bytes());
}

}  // namespace hearth::turboquant
