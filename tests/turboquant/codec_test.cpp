#include "turboquant/codec.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <set>
#include <vector>

#include "turboquant/half.h"

namespace hearth::turboquant {
namespace {

std::vector<float> random_vectors(int dim, int count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> x(static_cast<std::size_t>(dim) * static_cast<std::size_t>(count));
  for (float& value : x) value = normal(random);
  return x;
}

Codec codec(int dim, int bits, ScaleRule rule = ScaleRule::corrected, std::uint64_t seed = kDefaultSeed) {
  return Codec::create({dim, bits}, seed, rule).value();
}

double dot(const float* a, const float* b, int n) {
  double sum = 0;
  for (int i = 0; i < n; ++i) sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  return sum;
}

// Mean of ‖x − x̂‖²/‖x‖².
double distortion(const Codec& c, const std::vector<float>& x, const Kernels& kernels = best_kernels()) {
  const int dim = c.format().dim;
  const int count = static_cast<int>(x.size()) / dim;
  std::vector<std::uint8_t> record(c.format().bytes());
  std::vector<float> y(static_cast<std::size_t>(dim));
  double sum = 0;
  for (int i = 0; i < count; ++i) {
    const float* at = x.data() + static_cast<std::ptrdiff_t>(i) * dim;
    c.encode(at, record.data(), kernels);
    c.decode(record.data(), y.data(), kernels);
    for (int j = 0; j < dim; ++j) y[static_cast<std::size_t>(j)] -= at[j];
    sum += dot(y.data(), y.data(), dim) / dot(at, at, dim);
  }
  return sum / count;
}

TEST(Half, ConvertsEveryValueBackAndRoundsToEven) {
  for (std::uint32_t half = 0; half < 0x10000; ++half) {
    const float value = half_to_float(static_cast<std::uint16_t>(half));
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(half_to_float(float_to_half(value))));
    } else {
      ASSERT_EQ(float_to_half(value), half);
    }
  }
  EXPECT_EQ(float_to_half(1 + 0x1p-11F), 0x3c00);      // half way: to even
  EXPECT_EQ(float_to_half(1 + 3 * 0x1p-11F), 0x3c02);  // likewise
  EXPECT_EQ(float_to_half(65519.0F), 0x7bff);
  EXPECT_EQ(float_to_half(65520.0F), 0x7c00);
  EXPECT_EQ(float_to_half(0x1p-25F), 0);
  EXPECT_EQ(float_to_half(std::nextafter(0x1p-25F, 1.0F)), 1);
  EXPECT_EQ(float_to_half(-2.0F), 0xc000);
}

TEST(Codebook, IsTheKnownOneForLargeDimensions) {
  // Max 1960, for a normal density; at 1024 dimensions the difference is in the third digit.
  const std::vector<std::vector<double>> known = {
      {.7979}, {.4528, 1.5104}, {.2451, .7560, 1.3439, 2.1519}, {.1284, .3880, .6568, .9423, 1.2562, 1.6180, 2.0690, 2.7326}};
  const std::vector<double> error = {.3634, .1175, .03454, .009497};
  for (std::size_t bits = 1; bits <= 4; ++bits) {
    const Codebook book = lloyd_max(static_cast<int>(bits), 1024);
    const std::size_t half = std::size_t{1} << (bits - 1);
    ASSERT_EQ(book.centroids.size(), 2 * half);
    for (std::size_t i = 0; i < half; ++i) {
      EXPECT_NEAR(book.centroids[half + i], known[bits - 1][i], 0.003 * known[bits - 1][i]);
      EXPECT_EQ(book.centroids[half - 1 - i], -book.centroids[half + i]);
    }
    EXPECT_NEAR(book.distortion, error[bits - 1], 0.005 * error[bits - 1]);
  }
}

// Written another way than the solver: trapezoids over a fine grid.
TEST(Codebook, MeetsBothConditionsOfAnOptimum) {
  for (const int dim : {8, 64, 80, 128, 576}) {
    for (int bits = 1; bits <= 8; ++bits) {
      const Codebook book = lloyd_max(bits, dim);
      const double end = std::sqrt(static_cast<double>(dim));
      constexpr int points = 400'000;
      std::vector<double> mass(book.centroids.size()), moment(book.centroids.size());
      double error = 0, total = 0;
      std::size_t cell = 0;
      for (int i = 0; i < points; ++i) {
        const double x = -end + 2 * end * (i + 0.5) / points, f = std::pow(1 - x * x / dim, (dim - 3) / 2.0);
        while (cell < book.thresholds.size() && x > book.thresholds[cell]) ++cell;
        mass[cell] += f;
        moment[cell] += f * x;
        error += f * (x - book.centroids[cell]) * (x - book.centroids[cell]);
        total += f;
      }
      for (std::size_t i = 0; i < mass.size(); ++i) {
        if (mass[i] / total > 1e-6) EXPECT_NEAR(book.centroids[i], moment[i] / mass[i], 2e-3) << dim << " " << bits << " " << i;
      }
      EXPECT_NEAR(book.distortion / (error / total), 1, 2e-3) << dim << " " << bits;
    }
  }
}

TEST(Codebook, LevelsAreTheCentroidsInWholeNumbers) {
  for (int bits = 1; bits <= 8; ++bits) {
    const Codebook& book = codebook(bits, 128);
    EXPECT_EQ(&book, &codebook(bits, 128)) << "remembered";
    for (std::size_t i = 0; i < book.centroids.size(); ++i) {
      EXPECT_LE(std::abs(book.levels[i]), bits <= 4 ? 127 : 16256);
      EXPECT_NEAR(book.levels[i] * static_cast<double>(book.step), book.centroids[i], 0.51 * static_cast<double>(book.step));
    }
  }
}

TEST(Codec, DistortionIsThatOfTheTable) {
  for (const int dim : {64, 128, 256}) {
    const std::vector<float> x = random_vectors(dim, 4000, static_cast<unsigned>(dim));
    for (int bits = 1; bits <= 4; ++bits) {
      const double table = codebook(bits, dim).distortion;
      EXPECT_NEAR(distortion(codec(dim, bits, ScaleRule::norm), x) / table, 1, 0.02) << dim << " " << bits;
      // A vector of the right norm whose cosine to x is √(1 − D); a little better, because each vector gets its own correction.
      EXPECT_NEAR(distortion(codec(dim, bits), x) / (2 - 2 * std::sqrt(1 - table)), 0.98, 0.03) << dim << " " << bits;
      EXPECT_NEAR(distortion(codec(dim, bits, ScaleRule::unbiased), x) / (table / (1 - table)), 0.98, 0.03) << dim << " " << bits;
    }
    for (int bits = 5; bits <= 8; ++bits) {
      EXPECT_NEAR(distortion(codec(dim, bits, ScaleRule::norm), x) / codebook(bits, dim).distortion, 1, 0.05) << dim << " " << bits;
    }
  }
}

TEST(Codec, EverySizeKeepsItsDistortion) {
  for (const int dim : {8, 16, 24, 32, 40, 72, 80, 96, 112, 120, 160, 192, 288, 320, 512, 576, 1000, 1024}) {
    const std::vector<float> x = random_vectors(dim, 400, static_cast<unsigned>(dim));
    for (const int bits : {2, 3, 4, 8}) {
      const double table = codebook(bits, dim).distortion;
      for (const Kernels* kernels : available_kernels()) {
        EXPECT_NEAR(distortion(codec(dim, bits, ScaleRule::norm), x, *kernels) / table, 1, dim < 64 || bits == 8 ? 0.15 : 0.06)
            << dim << " " << bits << " " << kernels->name;
      }
    }
  }
}

TEST(Codec, OneLargeChannelDoesNotHurt) {
  // What rotations are for. Keys have channels a hundred times as large as the others. One number that is all of a vector is the worst case: then
  // every coordinate has the same size (or, where dim is no power of two, one of a few sizes), which is not what the codebook is made for.
  for (const int dim : {128, 96, 80}) {
    std::vector<float> x = random_vectors(dim, 500, 3);
    for (int i = 0; i < 500; ++i) x[static_cast<std::size_t>(i * dim + 7)] *= 20;
    for (int bits = 2; bits <= 4; ++bits)
      EXPECT_LT(distortion(codec(dim, bits), x), 1.5 * codebook(bits, dim).distortion) << dim << " " << bits;
    for (int i = 0; i < dim; ++i) {
      std::vector<float> one(static_cast<std::size_t>(dim));
      one[static_cast<std::size_t>(i)] = 5;
      EXPECT_LT(distortion(codec(dim, 4), one), 0.03) << dim << " " << i;
    }
  }
}

TEST(Codec, EveryInstructionSetWritesTheSameBytes) {
  for (const int dim : {8, 16, 32, 64, 72, 80, 96, 128, 192, 256, 576, 1024}) {
    std::vector<float> x = random_vectors(dim, 40, static_cast<unsigned>(dim) + 1);
    for (std::size_t i = 0; i < x.size(); ++i) x[i] *= std::pow(10.0F, static_cast<float>(i / static_cast<std::size_t>(dim) % 9) - 4);
    for (int bits = 1; bits <= 8; ++bits) {
      const Codec c = codec(dim, bits);
      const std::size_t bytes = 40 * c.format().bytes();
      std::vector<std::uint8_t> portable(bytes), other(bytes);
      std::vector<float> decoded(x.size()), other_decoded(x.size());
      c.encode_row(x.data(), 40, portable.data(), *available_kernels()[0]);
      c.decode_row(portable.data(), 40, decoded.data(), *available_kernels()[0]);
      for (const Kernels* kernels : available_kernels().subspan(1)) {
        std::fill(other.begin(), other.end(), 0xaa);
        c.encode_row(x.data(), 40, other.data(), *kernels);
        EXPECT_EQ(other, portable) << dim << " " << bits << " " << kernels->name;
        c.decode_row(portable.data(), 40, other_decoded.data(), *kernels);
        EXPECT_EQ(other_decoded, decoded) << dim << " " << bits << " " << kernels->name;
      }
    }
  }
}

// On a threshold, beside it, at both zeros and far outside: where a search by halves and signs could differ.
TEST(Codec, EveryInstructionSetCutsAtTheSameNumbers) {
  constexpr int dim = 128;
  for (int bits = kMinBits; bits <= kMaxBits; ++bits) {
    const Codec codec = Codec::create({dim, bits}).value();
    const Tables& tables = codec.tables();
    const int codes = 1 << bits;
    std::vector<float> edges = {0.0F, -0.0F, 1e30F, -1e30F, 1e-40F, -1e-40F};
    for (int n = 1; n < codes; ++n) {
      const float edge = tables.search[static_cast<std::size_t>(n)];
      EXPECT_TRUE(std::count(tables.search.begin() + 1, tables.search.begin() + codes, -edge) == 1) << bits << " bits, " << edge;
      for (const float x : {edge, std::nextafter(edge, 1e9F), std::nextafter(edge, -1e9F)}) edges.push_back(x);
    }
    while (edges.size() % dim != 0) edges.push_back(edges[edges.size() % 7]);
    for (std::size_t at = 0; at < edges.size(); at += dim) {
      std::vector<std::uint8_t> expected(codec.format().code_bytes()), got(expected.size());
      const double squares = available_kernels()[0]->quantise(tables, edges.data() + at, 1, expected.data());
      for (const Kernels* kernels : available_kernels()) {
        EXPECT_EQ(kernels->quantise(tables, edges.data() + at, 1, got.data()), squares) << kernels->name << ", " << bits << " bits";
        EXPECT_EQ(got, expected) << kernels->name << ", " << bits << " bits";
      }
    }
  }
}

TEST(Codec, WhatWasDecodedEncodesToTheSameBytes) {
  for (const int dim : {64, 96, 128, 256}) {
    const std::vector<float> x = random_vectors(dim, 300, 17);
    for (int bits = 1; bits <= 8; ++bits) {
      const Codec c = codec(dim, bits);
      std::vector<std::uint8_t> once(300 * c.format().bytes()), twice(once.size());
      std::vector<float> y(x.size());
      c.encode_row(x.data(), 300, once.data());
      c.decode_row(once.data(), 300, y.data());
      c.encode_row(y.data(), 300, twice.data());
      EXPECT_EQ(once, twice) << dim << " " << bits;
    }
  }
}

TEST(Codec, KeepsTheNormAndDotsAsDecoded) {
  for (const int dim : {64, 80, 128}) {
    const std::vector<float> x = random_vectors(dim, 50, 4), q = random_vectors(dim, 1, 5);
    for (const int bits : {1, 3, 4, 8}) {
      const Codec c = codec(dim, bits);
      std::vector<std::uint8_t> record(c.format().bytes());
      std::vector<float> y(static_cast<std::size_t>(dim)), rotated(static_cast<std::size_t>(dim)), sum(static_cast<std::size_t>(dim));
      std::vector<double> expected(static_cast<std::size_t>(dim));
      c.rotate(q.data(), rotated.data());
      for (int i = 0; i < 50; ++i) {
        const float* at = x.data() + static_cast<std::ptrdiff_t>(i) * dim;
        c.encode(at, record.data());
        c.decode(record.data(), y.data());
        EXPECT_NEAR(dot(y.data(), y.data(), dim) / dot(at, at, dim), 1, 2e-3);
        EXPECT_NEAR(static_cast<double>(c.dot(rotated.data(), record.data())), dot(y.data(), q.data(), dim), 1e-4 * dim);
        c.add_weighted(0.1F * static_cast<float>(i), record.data(), sum.data());
        for (int j = 0; j < dim; ++j)
          expected[static_cast<std::size_t>(j)] += 0.1 * i * static_cast<double>(y[static_cast<std::size_t>(j)]);
      }
      c.rotate_back(sum.data());
      for (int j = 0; j < dim; ++j)
        EXPECT_NEAR(static_cast<double>(sum[static_cast<std::size_t>(j)]), expected[static_cast<std::size_t>(j)], 2e-3);
    }
  }
}

TEST(Codec, TheUnbiasedScaleGivesInnerProductsThatAreRightOnAverageOverRotations) {
  const int dim = 64;
  const std::vector<float> x = random_vectors(dim, 1, 8), noise = random_vectors(dim, 1, 9);
  std::vector<float> q(x);
  for (std::size_t i = 0; i < q.size(); ++i) q[i] += noise[i];
  const double exact = dot(x.data(), q.data(), dim);
  std::vector<float> y(static_cast<std::size_t>(dim));
  const auto mean = [&](ScaleRule rule) {
    double sum = 0;
    for (std::uint64_t seed = 0; seed < 4000; ++seed) {
      const Codec c = codec(dim, 2, rule, seed);
      std::vector<std::uint8_t> record(c.format().bytes());
      c.encode(x.data(), record.data());
      c.decode(record.data(), y.data());
      sum += dot(y.data(), q.data(), dim);
    }
    return sum / 4000;
  };
  EXPECT_NEAR(mean(ScaleRule::unbiased) / exact, 1, 0.01);
  EXPECT_NEAR(mean(ScaleRule::norm) / exact, 1 - codebook(2, dim).distortion, 0.02);
}

TEST(Codec, ZeroTinyHugeAndNotANumber) {
  for (const Kernels* kernels : available_kernels()) {
    for (const int bits : {1, 3, 4, 6, 8}) {
      const Codec c = codec(128, bits);
      std::vector<std::uint8_t> record(c.format().bytes(), 0xee);
      std::vector<float> x(128), y(128);
      c.encode(x.data(), record.data(), *kernels);
      EXPECT_EQ(record, std::vector<std::uint8_t>(record.size())) << "zero is zero bytes, so a cleared buffer holds zeros";
      c.decode(record.data(), y.data(), *kernels);
      EXPECT_EQ(y, x);

      const std::vector<float> normal = random_vectors(128, 1, 1);
      for (const float size : {1e-30F, 1e-9F}) {
        for (std::size_t i = 0; i < 128; ++i) x[i] = size * normal[i];
        c.encode(x.data(), record.data(), *kernels);
        EXPECT_EQ(record, std::vector<std::uint8_t>(record.size())) << size;
      }
      for (const float size : {1e-5F, 1.0F, 1e4F}) {
        for (std::size_t i = 0; i < 128; ++i) x[i] = size * normal[i];
        EXPECT_LT(distortion(c, x, *kernels), 0.45) << size;
      }
      for (const float size : {1e6F, 1e25F, 1e37F}) {  // saturates, in the right direction
        for (std::size_t i = 0; i < 128; ++i) x[i] = size * normal[i];
        c.encode(x.data(), record.data(), *kernels);
        c.decode(record.data(), y.data(), *kernels);
        EXPECT_NEAR(std::sqrt(dot(y.data(), y.data(), 128)), 65504 * std::sqrt(128.0), 0.5 * 65504 * std::sqrt(128.0)) << size;
        double cosine = 0, norm = 0;
        for (std::size_t i = 0; i < 128; ++i) {
          cosine += static_cast<double>(y[i]) * static_cast<double>(normal[i]);
          norm += static_cast<double>(normal[i]) * static_cast<double>(normal[i]);
        }
        EXPECT_GT(cosine / std::sqrt(norm * dot(y.data(), y.data(), 128)), 0.7) << size;
      }
      for (const float bad :
           {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity()}) {
        for (std::size_t i = 0; i < 128; ++i) x[i] = normal[i];
        x[77] = bad;
        c.encode(x.data(), record.data(), *kernels);
        c.decode(record.data(), y.data(), *kernels);
        for (const float value : y) EXPECT_TRUE(std::isnan(value)) << bad;
      }
    }
  }
}

TEST(Codec, HalfPrecisionInAndOut) {
  const std::vector<float> x = random_vectors(128, 1, 2);
  const Codec c = codec(128, 4);
  for (const Kernels* kernels : available_kernels()) {
    std::vector<std::uint16_t> half(128), back(128);
    std::vector<float> exact(128), decoded(128);
    for (std::size_t i = 0; i < 128; ++i) {
      half[i] = float_to_half(x[i]);
      exact[i] = half_to_float(half[i]);
    }
    std::vector<std::uint8_t> a(c.format().bytes()), b(a.size());
    c.encode(exact.data(), a.data(), *kernels);
    c.encode_half(half.data(), b.data(), *kernels);
    EXPECT_EQ(a, b);
    c.decode(a.data(), decoded.data(), *kernels);
    c.decode_half(a.data(), back.data(), *kernels);
    for (std::size_t i = 0; i < 128; ++i) EXPECT_EQ(back[i], float_to_half(decoded[i]));
  }
}

TEST(Codec, FollowsTheSeed) {
  const std::vector<float> x = random_vectors(128, 1, 2);
  std::set<std::vector<std::uint8_t>> records;
  for (const std::uint64_t seed : {1, 2, 3, 1}) {
    std::vector<std::uint8_t> record(codec(128, 4).format().bytes());
    codec(128, 4, ScaleRule::corrected, seed).encode(x.data(), record.data());
    records.insert(record);
  }
  EXPECT_EQ(records.size(), 3U);
}

// The stored bytes are a format: data saved today is read tomorrow, and by other kernels.
TEST(Format, IsWhatItSaysByteForByte) {
  EXPECT_EQ((VectorFormat{128, 4}.bytes()), 66U);
  EXPECT_EQ((VectorFormat{128, 3}.bytes()), 50U);
  EXPECT_EQ((VectorFormat{128, 2}.bytes()), 34U);
  EXPECT_EQ((VectorFormat{80, 3}.bytes()), 38U);
  for (const int dim : {32, 80, 128}) {
    for (int bits = 1; bits <= 8; ++bits) {
      const VectorFormat f{dim, bits};
      const int columns = f.columns();
      std::mt19937 random(9);
      std::vector<unsigned> codes(static_cast<std::size_t>(8 * columns));
      for (unsigned& code : codes) code = static_cast<unsigned>(random()) % (1U << bits);
      std::vector<std::uint8_t> bytes(f.code_bytes());
      for (int i = 0; i < 8 * columns; ++i)
        write_code(bytes.data(), columns, bits, i / columns, i % columns, codes[static_cast<std::size_t>(i)]);
      for (int i = 0; i < 8 * columns; ++i)
        ASSERT_EQ(read_code(bytes.data(), columns, bits, i / columns, i % columns), codes[static_cast<std::size_t>(i)]) << bits << " " << i;
    }
  }
  // Three bits, written out: column 1 of 4.
  std::vector<std::uint8_t> bytes(12);
  const unsigned codes[8] = {1, 2, 3, 4, 5, 6, 7, 3};
  for (int o = 0; o < 8; ++o) write_code(bytes.data(), 4, 3, o, 1, codes[o]);
  EXPECT_EQ(bytes, (std::vector<std::uint8_t>{0, 1 | 2 << 3 | 3 << 6, 0, 0, 0, 3 | 4 << 3 | 1 << 6, 0, 0, 0, 5 | 6 << 3 | 3 << 6, 0, 0}));
}

TEST(Codec, RefusesWhatItCannotStoreAndSaysWhatItCan) {
  for (const VectorFormat f : {VectorFormat{0, 4}, VectorFormat{-8, 4}, VectorFormat{100, 4}, VectorFormat{1032, 4}}) {
    const auto made = Codec::create(f);
    ASSERT_FALSE(made.ok());
    EXPECT_EQ(made.error().code, ErrorCode::unsupported);
    EXPECT_NE(made.error().message.find("multiple of 8 from 8 to 1024"), std::string::npos) << made.error().message;
  }
  for (const int bits : {0, 9}) {
    const auto made = Codec::create({128, bits});
    ASSERT_FALSE(made.ok());
    EXPECT_NE(made.error().message.find("1 to 8"), std::string::npos);
  }
}

}  // namespace
}  // namespace hearth::turboquant
