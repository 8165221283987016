// The two variants beside the plain codec: unbiased inner products, and channels in two parts.
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "turboquant/product_codec.h"
#include "turboquant/split_codec.h"

namespace hearth::turboquant {
namespace {

std::vector<float> random_vectors(int dim, int count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> x(static_cast<std::size_t>(dim) * static_cast<std::size_t>(count));
  for (float& value : x) value = normal(random);
  return x;
}
double dot(const float* a, const float* b, int n) {
  double sum = 0;
  for (int i = 0; i < n; ++i) sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  return sum;
}

TEST(ProductCodec, InnerProductsAreUnbiased) {
  const int dim = 64, count = 200;
  for (const int bits : {2, 3, 4}) {
    // Along the vector itself, where Q_mse is short by its distortion; a mean over vectors and over projections.
    double estimate = 0, exact = 0, plain = 0, squares = 0;
    for (std::uint64_t seed = 1; seed <= 20; ++seed) {
      const ProductCodec codec = ProductCodec::create(dim, bits, seed).value();
      const Codec mse = Codec::create({dim, bits - 1}, seed, ScaleRule::norm).value();
      const std::vector<float> x = random_vectors(dim, count, static_cast<unsigned>(seed)),
                               noise = random_vectors(dim, count, static_cast<unsigned>(seed) + 100);
      std::vector<std::uint8_t> record(codec.bytes());
      std::vector<float> q(static_cast<std::size_t>(dim)), rotated(static_cast<std::size_t>(dim));
      for (int i = 0; i < count; ++i) {
        const float* at = x.data() + static_cast<std::ptrdiff_t>(i) * dim;
        for (int j = 0; j < dim; ++j) q[static_cast<std::size_t>(j)] = at[j] + noise[static_cast<std::size_t>(i * dim + j)];
        codec.encode(at, record.data());
        const double value = static_cast<double>(codec.dot(codec.prepare(q.data()), record.data())), truth = dot(at, q.data(), dim);
        estimate += value;
        exact += truth;
        squares += (value - truth) * (value - truth);
        mse.rotate(q.data(), rotated.data());
        plain += static_cast<double>(mse.dot(rotated.data(), record.data()));
      }
    }
    const double bias = estimate / exact - 1, noise = std::sqrt(squares) / exact;
    EXPECT_LT(std::abs(bias), 4 * noise) << bits;  // noise: of the sum
    EXPECT_LT(std::abs(bias), 0.01) << bits;
    EXPECT_NEAR(plain / exact, 1 - codebook(bits - 1, dim).distortion, 0.02) << bits << ": what Q_mse alone would say";
  }
}

TEST(ProductCodec, StoresWhatItSays) {
  EXPECT_EQ(ProductCodec::create(128, 3).value().bytes(), 32U + 2 + 16 + 2);
  EXPECT_FALSE(ProductCodec::create(128, 1).ok());
  EXPECT_FALSE(ProductCodec::create(100, 3).ok());
  const ProductCodec codec = ProductCodec::create(64, 4).value();
  std::vector<std::uint8_t> record(codec.bytes(), 0xff);
  const std::vector<float> zero(64), q = random_vectors(64, 1, 1);
  codec.encode(zero.data(), record.data());
  EXPECT_EQ(codec.dot(codec.prepare(q.data()), record.data()), 0);
}

TEST(SplitCodec, GivesTheBitsToTheLargeChannels) {
  const int dim = 128;
  std::vector<float> x = random_vectors(dim, 300, 1);
  for (int i = 0; i < 300; ++i) {
    for (int j = 0; j < dim; j += 4) x[static_cast<std::size_t>(i * dim + j)] *= 6;  // 32 channels
  }
  const auto error = [&](const auto& codec) {
    std::vector<std::uint8_t> record(256);
    std::vector<float> y(static_cast<std::size_t>(dim));
    double sum = 0, all = 0;
    for (int i = 0; i < 300; ++i) {
      const float* at = x.data() + static_cast<std::ptrdiff_t>(i) * dim;
      codec.encode(at, record.data());
      codec.decode(record.data(), y.data());
      all += dot(at, at, dim);
      for (int j = 0; j < dim; ++j) y[static_cast<std::size_t>(j)] -= at[j];
      sum += dot(y.data(), y.data(), dim);
    }
    return sum / all;
  };
  const std::vector<int> half = largest_channels(x.data(), 300, dim, 64), quarter = largest_channels(x.data(), 300, dim, 32);
  for (int j = 0; j < dim; j += 4) EXPECT_TRUE(std::binary_search(half.begin(), half.end(), j)) << j;
  const SplitCodec two_and_a_half = SplitCodec::create(dim, half, 3, 2).value(),
                   three_and_a_half = SplitCodec::create(dim, half, 4, 3).value();
  EXPECT_EQ(two_and_a_half.bits(), 2.5);
  EXPECT_EQ(three_and_a_half.bits(), 3.5);
  EXPECT_EQ(two_and_a_half.bytes(), 24U + 2 + 16 + 2);
  const double two = error(Codec::create({dim, 2}).value()), three = error(Codec::create({dim, 3}).value());
  EXPECT_LT(error(two_and_a_half), 0.45 * two);  // half way would be 0.65
  EXPECT_LT(error(three_and_a_half), 0.45 * three);
  EXPECT_EQ(SplitCodec::create(dim, quarter, 3, 2).value().bits(), 2.25);
}

TEST(SplitCodec, DotsAsItDecodes) {
  const std::vector<float> x = random_vectors(128, 1, 4), q = random_vectors(128, 1, 5);
  const std::vector<int> outliers = {1, 3, 5, 7, 60, 61, 62, 63};
  const SplitCodec codec = SplitCodec::create(128, outliers, 8, 3).value();
  std::vector<std::uint8_t> record(codec.bytes());
  std::vector<float> y(128), rotated(128);
  codec.encode(x.data(), record.data());
  codec.decode(record.data(), y.data());
  codec.rotate(q.data(), rotated.data());
  EXPECT_NEAR(static_cast<double>(codec.dot(rotated.data(), record.data())), dot(y.data(), q.data(), 128), 1e-3);
}

TEST(SplitCodec, RefusesChannelsThatMakeNoSense) {
  const auto create = [](std::vector<int> channels) { return SplitCodec::create(32, channels, 3, 2); };
  EXPECT_FALSE(create({}).ok());
  EXPECT_FALSE(create({0, 1, 2, 3, 4, 5, 6}).ok());
  EXPECT_FALSE(create({0, 1, 2, 3, 4, 5, 6, 32}).ok());
  EXPECT_FALSE(create({0, 1, 2, 3, 4, 5, 5, 6}).ok());
  EXPECT_FALSE(create({-1, 1, 2, 3, 4, 5, 6, 7}).ok());
  EXPECT_TRUE(create({0, 1, 2, 3, 4, 5, 6, 7}).ok());
}

}  // namespace
}  // namespace hearth::turboquant
