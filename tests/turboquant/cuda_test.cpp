// The CUDA kernels, run by threads (cuda_emulator.h): records are those that the CPU writes, attention is that over the decoded records.
#include "turboquant/cuda.cu"

#include <gtest/gtest.h>

#include <random>

namespace hearth::turboquant::cuda {
namespace {

std::vector<float> normal(std::size_t count, unsigned seed, float sigma = 1) {
  std::mt19937 random(seed);
  std::normal_distribution<float> draw(0, sigma);
  std::vector<float> out(count);
  for (auto& x : out) x = draw(random);
  return out;
}
std::vector<std::uint16_t> halves(const std::vector<float>& from) {
  std::vector<std::uint16_t> out;
  for (const float x : from) out.push_back(float_to_half(x));
  return out;
}

struct Case {
  int keys = 4, values = 4, group = 8, queries = 1, tokens = 96;
  bool masked = false, sinks = false;
  float softcap = 0;
};
void PrintTo(const Case& c, std::ostream* out) {
  *out << "k" << c.keys << "v" << c.values << " group " << c.group << " tokens " << c.tokens;
}

class Cuda : public ::testing::TestWithParam<Case> {};

TEST_P(Cuda, IsWhatTheRecordsSay) {
  const Case c = GetParam();
  constexpr int kv_heads = 2;
  constexpr float scale = 0.3F;
  const int heads = kv_heads * c.group;
  const auto key_codec = *Codec::create({dim, c.keys}), value_codec = *Codec::create({dim, c.values});
  auto made = KvCache::create(key_codec.format(), value_codec.format(), kv_heads, c.tokens + 3);
  ASSERT_TRUE(made.ok());
  auto& cache = **made;
  const auto count = static_cast<std::size_t>(c.tokens) * kv_heads * dim;
  auto k = halves(normal(count, 1)), v = halves(normal(count, 2, 0.02F));
  std::fill_n(v.begin(), dim, std::uint16_t{0});
  ASSERT_TRUE(cache.write(k.data(), v.data(), 0, c.tokens, nullptr).ok());

  std::vector<float> decoded_k(count), decoded_v(count);
  for (int token = 0; token < c.tokens; ++token) {
    for (int head = 0; head < kv_heads; ++head) {
      for (const bool key : {true, false}) {
        const Codec& codec = key ? key_codec : value_codec;
        const auto at = static_cast<std::size_t>(token * kv_heads + head) * dim;
        std::vector<std::uint8_t> record(codec.format().bytes()), expected(codec.format().bytes());
        ASSERT_TRUE(cache.read(key, head, token, record.data()).ok());
        codec.encode_half((key ? k : v).data() + at, expected.data());
        // The norm is added up in another order: the scale may round the other way.
        const auto scale_of = [&codec](const std::vector<std::uint8_t>& r) {
          std::uint16_t half = 0;
          std::memcpy(&half, r.data() + codec.format().code_bytes(), 2);
          return static_cast<int>(half);
        };
        EXPECT_LE(std::abs(scale_of(record) - scale_of(expected)), 1);
        expected.resize(codec.format().code_bytes());
        EXPECT_TRUE(std::equal(expected.begin(), expected.end(), record.begin())) << "token " << token << " head " << head;
        codec.decode(record.data(), (key ? decoded_k : decoded_v).data() + at);
      }
    }
  }

  const auto q = normal(static_cast<std::size_t>(c.queries * heads) * dim, 3), sink = normal(static_cast<std::size_t>(heads), 5);
  std::vector<std::uint16_t> mask(static_cast<std::size_t>(c.queries * c.tokens));
  std::mt19937 random(4);
  for (auto& m : mask) m = random() % 4 == 0 ? std::uint16_t{0xfc00} : float_to_half(static_cast<float>(random() % 100) / -50.F);
  std::vector<float> out(q.size(), std::nanf(""));
  const auto done = cache.attend({.q = q.data(),
                                  .heads = heads,
                                  .queries = c.queries,
                                  .tokens = c.tokens,
                                  .mask = c.masked ? mask.data() : nullptr,
                                  .mask_stride = c.tokens,
                                  .sinks = c.sinks ? sink.data() : nullptr,
                                  .scale = scale,
                                  .softcap = c.softcap,
                                  .out = out.data()},
                                 nullptr);
  ASSERT_TRUE(done.ok());

  double error = 0, size = 0;
  for (int row = 0; row < c.queries; ++row) {
    for (int head = 0; head < heads; ++head) {
      const auto first = static_cast<std::size_t>(row * heads + head) * dim;
      std::vector<double> logit(static_cast<std::size_t>(c.tokens)), sum(dim);
      double top = c.sinks ? sink[static_cast<std::size_t>(head)] : -INFINITY;
      const auto of = [&](int token) { return static_cast<std::size_t>(token * kv_heads + head / c.group) * dim; };
      for (int token = 0; token < c.tokens; ++token) {
        double x = 0;
        for (std::size_t i = 0; i < dim; ++i) x += static_cast<double>(q[first + i]) * decoded_k[of(token) + i];
        x *= scale;
        if (c.softcap != 0) x = c.softcap * std::tanh(x / c.softcap);
        if (c.masked) x += half_to_float(mask[static_cast<std::size_t>(row * c.tokens + token)]);
        logit[static_cast<std::size_t>(token)] = x;
        top = std::max(top, x);
      }
      double total = c.sinks ? std::exp(sink[static_cast<std::size_t>(head)] - top) : 0;
      for (int token = 0; token < c.tokens; ++token) {
        const double p = std::exp(logit[static_cast<std::size_t>(token)] - top);
        total += p;
        for (std::size_t i = 0; i < dim; ++i) sum[i] += p * decoded_v[of(token) + i];
      }
      for (std::size_t i = 0; i < dim; ++i) {
        const double wanted = sum[i] / total, difference = out[first + i] - wanted;
        error += difference * difference;
        size += wanted * wanted;
      }
    }
  }
  // Weights are rounded to half precision.
  EXPECT_LE(std::sqrt(error), 1e-3 * std::sqrt(size) + (size == 0 ? 1e-6 : 0));
}

INSTANTIATE_TEST_SUITE_P(Widths, Cuda,
                         ::testing::Values(Case{.keys = 4, .values = 4, .tokens = 300}, Case{.keys = 3, .values = 2, .tokens = 37},
                                           Case{.keys = 2, .values = 3, .group = 4}, Case{.keys = 8, .values = 4, .group = 1, .tokens = 65},
                                           Case{.keys = 3, .values = 3, .group = 16, .sinks = true},
                                           Case{.keys = 4, .values = 2, .group = 4, .queries = 3, .masked = true, .softcap = 5},
                                           Case{.tokens = 1}));

TEST(Cuda, RefusesWhatItHasNoKernelsFor) {
  EXPECT_FALSE(KvCache::create({64, 4}, {64, 4}, 1, 16).ok());
  EXPECT_FALSE(KvCache::create({128, 5}, {128, 4}, 1, 16).ok());
  const auto refused = KvCache::create({128, 4}, {128, 8}, 1, 16);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::unsupported);
}

TEST(Cuda, ANumberThatIsNoneSpoilsItsHeadAlone) {
  auto cache = *KvCache::create({dim, 4}, {dim, 4}, 2, 8);
  auto k = halves(normal(2 * dim, 1));
  const auto v = halves(normal(2 * dim, 2));
  k[3] = 0x7e00;
  ASSERT_TRUE(cache->write(k.data(), v.data(), 0, 1, nullptr).ok());
  const auto q = normal(2 * dim, 3);
  std::vector<float> out(2 * dim);
  ASSERT_TRUE(cache->attend({.q = q.data(), .heads = 2, .tokens = 1, .out = out.data()}, nullptr).ok());
  EXPECT_TRUE(std::isnan(out[0]));
  EXPECT_FALSE(std::isnan(out[dim]));
}

}  // namespace
}  // namespace hearth::turboquant::cuda
