// Log-probabilities, entropy and arg-max of logits whose answers are known on paper.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>
#include <random>

#include "engine/llama_decoder.h"

namespace hearth::engine {
namespace {

constexpr float inf = std::numeric_limits<float>::infinity();

TEST(Describe, UniformLogitsHaveTheEntropyOfTheirCount) {
  std::vector<float> logits(1000, 3.5F);
  auto info = describe(logits, 17, 3);
  EXPECT_NEAR(info.entropy, std::log(1000.0), 1e-5);
  EXPECT_NEAR(info.chosen.logprob, -std::log(1000.0), 1e-5);
  ASSERT_EQ(info.top.size(), 3U);
  EXPECT_EQ(info.top[0].token, 0);  // the lowest of equals first
  EXPECT_EQ(info.top[2].token, 2);
}

TEST(Describe, KnownDistribution) {
  // p = 1/2, 1/4, 1/8, 1/8: entropy 1.75 bits.
  std::vector<float> logits{std::log(0.125F), std::log(0.5F), std::log(0.125F), std::log(0.25F)};
  auto info = describe(logits, 3, 2);
  EXPECT_NEAR(info.entropy, 1.75 * std::log(2.0), 1e-6);
  EXPECT_NEAR(info.chosen.logprob, std::log(0.25), 1e-6);
  ASSERT_EQ(info.top.size(), 2U);
  EXPECT_EQ(info.top[0].token, 1);
  EXPECT_EQ(info.top[1].token, 3);
}

TEST(Describe, ForbiddenTokensAndCertaintyAreNumbers) {
  std::vector<float> logits{-inf, 1000, -inf, -1000};
  auto info = describe(logits, 1, 4);
  EXPECT_EQ(info.entropy, 0);
  EXPECT_EQ(info.chosen.logprob, 0);
  EXPECT_EQ(info.top[0].token, 1);
  EXPECT_TRUE(std::isinf(describe(logits, 0, 0).chosen.logprob));
}

TEST(Describe, ProbabilitiesSumToOneAndTopIsSorted) {
  std::mt19937 random(7);
  std::normal_distribution<float> normal(0, 4);
  std::vector<float> logits(500);
  for (float& x : logits) x = normal(random);
  auto info = describe(logits, 0, 500);
  double sum = 0, entropy = 0;
  for (std::size_t i = 0; i < info.top.size(); ++i) {
    double p = std::exp(static_cast<double>(info.top[i].logprob));
    sum += p;
    entropy -= p * static_cast<double>(info.top[i].logprob);
    if (i > 0) EXPECT_LE(info.top[i].logprob, info.top[i - 1].logprob);
  }
  EXPECT_NEAR(sum, 1, 1e-5);
  EXPECT_NEAR(info.entropy, entropy, 1e-4);
}

TEST(Describe, MoreAlternativesThanTokensAreAllOfThem) {
  std::vector<float> logits{1, 2};
  EXPECT_EQ(describe(logits, 0, 20).top.size(), 2U);
  EXPECT_TRUE(describe(logits, 0, 0).top.empty());
}

TEST(Argmax, FindsTheFirstLargestWhereverItIs) {
  for (std::size_t size : {1U, 15U, 16U, 17U, 100U, 1001U}) {
    for (std::size_t at = 0; at < size; at += 1 + size / 20) {
      std::vector<float> logits(size, -5);
      logits[at] = 2;
      if (at + 1 < size) logits[size - 1] = 2;
      EXPECT_EQ(argmax(logits), static_cast<Token>(at)) << size;
    }
  }
}

TEST(Argmax, BrokenLogitsGiveNoToken) {
  float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(argmax(std::vector<float>(40, nan)), -1);
  EXPECT_EQ(argmax(std::vector<float>(40, -inf)), -1);
  EXPECT_EQ(argmax({}), -1);
  std::vector<float> mixed(40, nan);
  mixed[33] = -7;
  EXPECT_EQ(argmax(mixed), 33);
}

}  // namespace
}  // namespace hearth::engine
