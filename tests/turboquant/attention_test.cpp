// Attention over compressed rows against double precision over the decoded rows, with every instruction set this machine has.
#include <gtest/gtest.h>

#include <cstring>

#include "turboquant/attention_problem.h"

namespace hearth::turboquant::test {
namespace {

struct Case {
  const char* name;
  Shape shape;
};
const Case cases[] = {
    {"one token", {.tokens = 1}},
    {"one query", {.tokens = 100}},
    {"a tile", {.tokens = 64}},
    {"a tile and one", {.tokens = 65}},
    {"groups of 4", {.heads = 8, .kv_heads = 2, .queries = 3, .tokens = 777}},
    {"groups of 7", {.heads = 14, .kv_heads = 2, .queries = 1, .tokens = 333}},
    {"groups of 8", {.heads = 16, .kv_heads = 2, .queries = 2, .tokens = 130}},
    {"one KV head for 80", {.heads = 80, .kv_heads = 1, .queries = 2, .tokens = 200}},
    {"no groups", {.heads = 3, .kv_heads = 3, .queries = 5, .tokens = 70}},
    {"1 bit", {.bits_k = 1, .bits_v = 1, .tokens = 200}},
    {"2 bits", {.bits_k = 2, .bits_v = 2, .tokens = 200}},
    {"3 and 2 bits", {.bits_k = 3, .bits_v = 2, .heads = 6, .kv_heads = 2, .queries = 2, .tokens = 300}},
    {"5 bits", {.bits_k = 5, .bits_v = 5, .heads = 5, .tokens = 200}},
    {"6 and 7 bits", {.bits_k = 6, .bits_v = 7, .heads = 3, .tokens = 200}},
    {"8 and 4 bits", {.bits_k = 8, .bits_v = 4, .heads = 4, .queries = 2, .tokens = 300}},
    {"8 bits", {.bits_k = 8, .bits_v = 8, .heads = 3, .queries = 2, .tokens = 300}},
    {"size 32", {.dim_k = 32, .dim_v = 32, .bits_k = 3, .tokens = 100}},
    {"size 40", {.dim_k = 40, .dim_v = 40, .bits_v = 3, .tokens = 100}},
    {"size 64", {.dim_k = 64, .dim_v = 64, .bits_v = 3, .heads = 4, .queries = 3, .tokens = 150}},
    {"size 80", {.dim_k = 80, .dim_v = 80, .bits_k = 8, .bits_v = 3, .heads = 4, .tokens = 150}},
    {"size 96", {.dim_k = 96, .dim_v = 96, .bits_k = 3, .bits_v = 2, .heads = 4, .tokens = 150}},
    {"size 112", {.dim_k = 112, .dim_v = 112, .bits_k = 2, .tokens = 150}},
    {"keys of 192, values of 128", {.dim_k = 192, .dim_v = 128, .heads = 4, .kv_heads = 2, .queries = 2, .tokens = 150}},
    {"size 256", {.dim_k = 256, .dim_v = 256, .bits_k = 3, .bits_v = 3, .heads = 2, .tokens = 150}},
    {"latent: 576, of which 512", {.dim_k = 576, .dim_v = 576, .heads = 16, .queries = 1, .tokens = 150, .out_dim = 512}},
    {"size 1024", {.dim_k = 1024, .dim_v = 1024, .bits_k = 8, .bits_v = 1, .heads = 2, .tokens = 70}},
    {"holes in the mask", {.heads = 4, .kv_heads = 2, .queries = 3, .tokens = 300, .masked = true}},
    {"a mask for each head and stream",
     {.heads = 4, .kv_heads = 2, .queries = 3, .tokens = 90, .streams = 2, .masked = true, .mask_heads = 4, .mask_streams = 2}},
    {"one mask for all streams", {.heads = 2, .queries = 2, .tokens = 90, .streams = 3, .masked = true}},
    {"causal, many queries", {.heads = 4, .kv_heads = 2, .queries = 150, .tokens = 400, .causal = true}},
    {"ALiBi", {.heads = 8, .kv_heads = 2, .queries = 2, .tokens = 200, .max_bias = 8}},
    {"ALiBi, heads no power of two", {.heads = 6, .kv_heads = 2, .queries = 2, .tokens = 200, .max_bias = 8}},
    {"soft cap", {.heads = 4, .kv_heads = 2, .queries = 2, .tokens = 200, .softcap = 5, .sharpness = 8}},
    {"sinks", {.heads = 4, .kv_heads = 2, .queries = 2, .tokens = 40, .sinks = true}},
    {"sinks, soft cap and mask", {.heads = 4, .kv_heads = 2, .queries = 2, .tokens = 1200, .masked = true, .sinks = true, .softcap = 20}},
    {"sharp logits", {.bits_k = 8, .bits_v = 8, .heads = 4, .tokens = 1000, .sharpness = 30}},
    {"protected first tokens",
     {.bits_k = 2, .bits_v = 2, .heads = 4, .kv_heads = 2, .queries = 2, .tokens = 200, .protected_keys = 4, .protected_values = 4}},
    {"protected, not alike",
     {.bits_k = 3, .bits_v = 2, .heads = 4, .kv_heads = 2, .tokens = 700, .streams = 2, .protected_keys = 5, .protected_values = 70}},
    {"all protected", {.bits_k = 3, .bits_v = 2, .tokens = 10, .protected_keys = 12, .protected_values = 10}},
    {"long enough to be split", {.heads = 4, .kv_heads = 1, .queries = 1, .tokens = 5000, .masked = true}},
};

// The query is rounded to 8 bits where the keys have at most 4, else to 14; weights to 14 bits of the largest in their tile.
double allowed(const Shape& s) { return (s.bits_k <= 4 && s.protected_keys == 0 ? 4e-3 : 2e-4) * std::max(1.0F, s.sharpness / 2); }

TEST(Attention, AgreesWithDoublePrecisionOverTheDecodedRows) {
  unsigned seed = 1;
  for (const Case& c : cases) {
    Problem problem(c.shape, seed++);
    const std::vector<double> expected = problem.reference();
    for (const Kernels* kernels : available_kernels()) {
      for (const int threads : {1, 3}) {
        EXPECT_LT(relative_error(problem.run(*kernels, threads), expected), allowed(c.shape))
            << c.name << ", " << kernels->name << ", threads " << threads;
      }
    }
  }
}

TEST(Attention, EveryInstructionSetAgreesWithPortableCodeToRounding) {
  unsigned seed = 100;
  for (const Case& c : cases) {
    Problem problem(c.shape, seed++);
    const std::vector<float> portable = problem.run(*available_kernels()[0], 1);
    const std::vector<double> expected(portable.begin(), portable.end());
    for (const Kernels* kernels : available_kernels().subspan(1)) {
      EXPECT_LT(relative_error(problem.run(*kernels, 1), expected), 2e-5 * std::max(1.0F, c.shape.sharpness))
          << c.name << ", " << kernels->name;
    }
  }
}

TEST(Attention, ALateOrMissingThreadChangesNothing) {
  Problem problem({.heads = 8, .kv_heads = 2, .tokens = 3000}, 3);
  for (const Kernels* kernels : available_kernels()) {
    const std::vector<float> all = problem.run(*kernels, 4);
    std::vector<float> out(all.size());
    Attention a = problem.attention();
    VisibleTokens visible;
    visible.build(a);
    a.visible = &visible;
    a.kernels = kernels;
    a.out = out.data();
    const std::unique_ptr<void, void (*)(void*)> scratch(std::aligned_alloc(64, (attention_scratch(a, 4) + 63) / 64 * 64), std::free);
    attention_begin(a, 4, scratch.get());
    attention_compute(a, 2, 4, scratch.get());  // alone
    for (int thread = 0; thread < 4; ++thread) attention_merge(a, thread, 4, scratch.get());
    EXPECT_EQ(out, all) << kernels->name;
  }
}

TEST(Attention, AQueryThatSeesNothingGetsZeros) {
  for (const bool sinks : {false, true}) {
    Problem problem({.heads = 4, .kv_heads = 2, .queries = 2, .tokens = 1500, .masked = true, .sinks = sinks}, 5);
    std::fill_n(problem.mask.begin(), 1500, float_to_half(-std::numeric_limits<float>::infinity()));  // of the first query
    for (const Kernels* kernels : available_kernels()) {
      for (const int threads : {1, 2}) {
        const std::vector<float> out = problem.run(*kernels, threads);
        for (std::size_t i = 0; i < 4 * 128; ++i) ASSERT_EQ(out[i], 0) << kernels->name;
        ASSERT_NE(out[4 * 128], 0) << kernels->name;
      }
    }
  }
}

TEST(Attention, WhatIsMaskedMayHoldAnything) {
  Problem problem({.bits_k = 3, .bits_v = 2, .heads = 4, .kv_heads = 2, .tokens = 300, .masked = true}, 6);
  for (std::uint16_t& m : problem.mask) m = 0;
  for (int t = 250; t < 300; ++t) problem.mask[static_cast<std::size_t>(t)] = float_to_half(-std::numeric_limits<float>::infinity());
  const std::vector<double> expected = problem.reference();
  const auto ruin = [](std::vector<std::uint8_t>& rows) {
    std::fill(rows.begin() + static_cast<std::ptrdiff_t>(rows.size() / 300 * 250), rows.end(), 0xff);
  };
  ruin(problem.k_rows);  // 0xffff as a scale is not a number
  ruin(problem.v_rows);
  for (const Kernels* kernels : available_kernels()) EXPECT_LT(relative_error(problem.run(*kernels, 2), expected), 4e-3) << kernels->name;
}

TEST(Attention, WhatIsNotANumberIsNotHidden) {
  for (const char* where : {"key", "value", "query"}) {
    Problem problem({.heads = 2, .kv_heads = 2, .tokens = 1100}, 7);
    const float nan = std::numeric_limits<float>::quiet_NaN();
    const std::size_t record = problem.k_codec.format().bytes();
    const std::vector<float> bad(128, nan);
    const std::size_t at = (900 * 2 + 1) * record;  // token 900 of KV head 1
    if (where == std::string_view("key")) problem.k_codec.encode(bad.data(), problem.k_rows.data() + at);
    if (where == std::string_view("value")) problem.v_codec.encode(bad.data(), problem.v_rows.data() + at);
    if (where == std::string_view("query")) problem.q[128 + 5] = nan;
    for (const Kernels* kernels : available_kernels()) {
      for (const int threads : {1, 2}) {
        const std::vector<float> out = problem.run(*kernels, threads);
        EXPECT_TRUE(std::isfinite(out[0])) << where << ", " << kernels->name;
        EXPECT_TRUE(std::isnan(out[128])) << where << ", " << kernels->name << ", threads " << threads;
      }
    }
  }
}

TEST(Attention, ARareHeavyTokenDoesNotDrownTheOthers) {
  // Weights are whole numbers in units of the largest in their tile: the light ones must not all become zero.
  Shape shape{.bits_k = 8, .bits_v = 8, .tokens = 64};
  Problem problem(shape, 8);
  for (int i = 0; i < 128; ++i)
    problem.k[static_cast<std::size_t>(i)] = problem.q[static_cast<std::size_t>(i)] * 0.53F;  // e^6 times the weight of others
  problem.k_codec.encode_row(problem.k.data(), 64, problem.k_rows.data());
  for (const Kernels* kernels : available_kernels())
    EXPECT_LT(relative_error(problem.run(*kernels, 1), problem.reference()), 2e-3) << kernels->name;
}

}  // namespace
}  // namespace hearth::turboquant::test
