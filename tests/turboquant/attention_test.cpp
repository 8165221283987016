// Attention over compressed rows against double precision over the decoded rows, with every instruction set this machine has.
#include <gtest/gtest.h>

#include <cstring>
#include <numeric>

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
    {"protected first tokens", {.bits_k = 2, .bits_v = 2, .heads = 4, .kv_heads = 2, .queries = 2, .tokens = 200, .protected_tokens = 4}},
    {"protected, what a row sees",
     {.bits_k = 3, .bits_v = 2, .heads = 4, .kv_heads = 2, .queries = 9, .tokens = 300, .masked = true, .protected_tokens = 6}},
    {"protected, streams and tiles",
     {.bits_k = 3, .bits_v = 2, .heads = 4, .kv_heads = 2, .tokens = 700, .streams = 2, .protected_tokens = 150}},
    {"protected, a prompt",
     {.bits_k = 4, .bits_v = 3, .heads = 4, .kv_heads = 2, .queries = 90, .tokens = 100, .causal = true, .protected_tokens = 16}},
    {"protected keys alone", {.bits_k = 4, .bits_v = 4, .heads = 4, .tokens = 90, .protected_tokens = 5, .protect_values = false}},
    {"protected values alone", {.bits_k = 8, .bits_v = 4, .heads = 4, .tokens = 90, .protected_tokens = 5, .protect_keys = false}},
    {"all protected", {.bits_k = 3, .bits_v = 2, .tokens = 10, .protected_tokens = 12}},
    {"protected, many threads", {.bits_k = 3, .bits_v = 2, .heads = 2, .kv_heads = 1, .tokens = 5000, .protected_tokens = 40}},
    {"long enough to be split", {.heads = 4, .kv_heads = 1, .queries = 1, .tokens = 5000, .masked = true}},
};

// The query is rounded to 8 bits where the keys have at most 4, else to 14; weights to 14 bits of the largest in their tile.
double allowed(const Shape& s) { return (s.bits_k <= 4 ? 4e-3 : 2e-4) * std::max(1.0F, s.sharpness / 2); }

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

// A cache of many cells, some of which hold the rows of sequences, in any place and order; the others hold noise.
struct Pool {
  const Problem& from;
  int cells;
  std::vector<std::uint8_t> k, v;
  std::vector<std::uint64_t> order;
  std::mt19937 random;

  Pool(const Problem& problem, int size, unsigned seed) : from(problem), cells(size), random(seed) {
    for (auto [rows, codec] : {std::pair(&k, &problem.k_codec), std::pair(&v, &problem.v_codec)}) {
      rows->resize(static_cast<std::size_t>(cells * problem.s.kv_heads) * codec->format().bytes());
      for (std::uint8_t& byte : *rows) byte = static_cast<std::uint8_t>(random());
    }
    order.resize(static_cast<std::size_t>(cells));
    for (std::uint64_t& number : order) number = random() % 100000;
  }
  // Row `token` of the problem, written as number `number`.
  void put(int token, int cell, std::uint64_t number) {
    const auto copy = [&](std::vector<std::uint8_t>& to, const std::vector<std::uint8_t>& rows, const Codec& codec) {
      const std::size_t row = static_cast<std::size_t>(from.s.kv_heads) * codec.format().bytes();
      std::copy_n(rows.begin() + static_cast<std::ptrdiff_t>(static_cast<std::size_t>(token) * row), row,
                  to.begin() + static_cast<std::ptrdiff_t>(static_cast<std::size_t>(cell) * row));
    };
    copy(k, from.k_rows, from.k_codec);
    copy(v, from.v_rows, from.v_codec);
    order[static_cast<std::size_t>(cell)] = number;
  }
  std::vector<int> free_cells() {
    std::vector<int> all(static_cast<std::size_t>(cells));
    std::iota(all.begin(), all.end(), 0);
    return all;
  }
};

// The rows of several sequences with a common beginning, one query each, alone in a cache of their own or together in a pool, anywhere, in any order,
// with any number of threads: the same bits. What a cache holds besides, and who else is in the batch, does not show.
TEST(Attention, DependsOnWhatARowSeesAloneToTheLastBit) {
  const float hidden = -std::numeric_limits<float>::infinity();
  unsigned seed = 40;
  for (const Shape& shape : {Shape{.bits_k = 3, .bits_v = 2, .heads = 8, .kv_heads = 2, .tokens = 2700},
                             Shape{.bits_k = 8, .bits_v = 4, .heads = 4, .kv_heads = 1, .tokens = 700, .sinks = true, .softcap = 20},
                             Shape{.dim_k = 96, .dim_v = 64, .bits_k = 4, .bits_v = 4, .heads = 14, .kv_heads = 2, .tokens = 1300},
                             Shape{.bits_k = 4, .bits_v = 3, .heads = 2, .kv_heads = 2, .tokens = 150}}) {
    Problem problem(shape, ++seed);
    std::mt19937 random(seed);
    const int sequences = 5, common = shape.tokens / 3;
    // Who has which token: the first third belongs to all.
    std::vector<std::vector<int>> tokens(sequences);
    for (int t = 0; t < shape.tokens; ++t) {
      const auto owner = static_cast<int>(random() % sequences);
      for (int q = 0; q < sequences; ++q) {
        if (t < common || q == owner) tokens[static_cast<std::size_t>(q)].push_back(t);
      }
    }
    std::vector<float> queries(static_cast<std::size_t>(sequences * shape.heads * shape.dim_k));
    std::normal_distribution<float> normal;
    for (float& x : queries) x = normal(random);
    const std::size_t out_row = static_cast<std::size_t>(shape.heads * shape.dim_v);

    for (const Kernels* kernels : available_kernels()) {
      if (kernels == available_kernels()[0] && shape.tokens > 1000) continue;  // slow
      std::vector<std::vector<float>> alone;
      for (int q = 0; q < sequences; ++q) {
        const auto& own = tokens[static_cast<std::size_t>(q)];
        Pool pool(problem, static_cast<int>(own.size()), seed);
        for (std::size_t i = 0; i < own.size(); ++i) pool.put(own[i], static_cast<int>(i), i);
        Attention a = problem.attention();
        a.tokens = pool.cells;
        a.q = queries.data() + static_cast<std::ptrdiff_t>(q) * shape.heads * shape.dim_k;
        a.k.data = pool.k.data();
        a.v.data = pool.v.data();
        a.out = alone.emplace_back(out_row, 777.0F).data();
        Problem::compute(a, *kernels, 1);
      }
      for (const int threads : {1, 2, 3, 16}) {
        for (const int spread : {0, 1, 2}) {  // in order; in order with holes; anywhere
          Pool pool(problem, shape.tokens + (spread == 0 ? 0 : 500), seed + static_cast<unsigned>(threads));
          std::vector<int> cells = pool.free_cells();
          if (spread != 0) std::shuffle(cells.begin(), cells.end(), pool.random);
          cells.resize(static_cast<std::size_t>(shape.tokens));
          if (spread == 1) std::sort(cells.begin(), cells.end());
          std::vector<std::uint16_t> mask(static_cast<std::size_t>(sequences * pool.cells), float_to_half(hidden));
          for (int t = 0; t < shape.tokens; ++t) pool.put(t, cells[static_cast<std::size_t>(t)], 1000 + static_cast<std::uint64_t>(t));
          for (int q = 0; q < sequences; ++q) {
            for (const int t : tokens[static_cast<std::size_t>(q)])
              mask[static_cast<std::size_t>(q * pool.cells + cells[static_cast<std::size_t>(t)])] = 0;
          }
          Attention a = problem.attention();
          a.tokens = pool.cells;
          a.queries = sequences;
          a.q = queries.data();
          a.k.data = pool.k.data();
          a.v.data = pool.v.data();
          a.mask = mask.data();
          a.mask_query_stride = static_cast<std::size_t>(pool.cells) * 2;
          a.order = pool.order.data();
          std::vector<float> out(out_row * sequences, 777.0F);
          a.out = out.data();
          Problem::compute(a, *kernels, threads);
          for (int q = 0; q < sequences; ++q) {
            const std::vector<float> row(out.begin() + static_cast<std::ptrdiff_t>(out_row) * q,
                                         out.begin() + static_cast<std::ptrdiff_t>(out_row) * (q + 1));
            ASSERT_EQ(row, alone[static_cast<std::size_t>(q)])
                << kernels->name << ", threads " << threads << ", spread " << spread << ", sequence " << q;
          }
        }
      }
    }
  }
}

// A prompt computed at once, in pieces or token by token: the same bits, unless a window slides over it.
TEST(Attention, APromptAtOnceIsAPromptTokenByToken) {
  Problem problem({.bits_k = 4, .bits_v = 3, .heads = 8, .kv_heads = 2, .queries = 40, .tokens = 1100, .causal = true}, 77);
  for (const Kernels* kernels : available_kernels()) {
    const std::vector<float> at_once = problem.run(*kernels, 1);
    for (int q = 0; q < 40; ++q) {
      Attention a = problem.attention();
      std::vector<float> out(8 * 128);
      a.queries = 1;
      a.q = problem.q.data() + static_cast<std::ptrdiff_t>(q) * 8 * 128;
      a.mask = problem.mask.data() + static_cast<std::ptrdiff_t>(q) * 1100;
      a.out = out.data();
      Problem::compute(a, *kernels, 2);
      ASSERT_EQ(out, std::vector<float>(at_once.begin() + q * 8 * 128, at_once.begin() + (q + 1) * 8 * 128))
          << kernels->name << ", query " << q;
    }
  }
}

// Rows of a window that slides share tiles: right for each of them, wherever the cells are.
TEST(Attention, AWindowSlidesOverScatteredCells) {
  const Shape shape{.bits_k = 8, .bits_v = 8, .heads = 4, .kv_heads = 2, .queries = 70, .tokens = 400, .masked = true};
  Problem problem(shape, 78);
  for (int q = 0; q < shape.queries; ++q) {
    for (int t = 0; t < shape.tokens; ++t) {
      const bool seen = t <= 330 + q && t > 330 + q - 100;
      problem.mask[static_cast<std::size_t>(q * shape.tokens + t)] = float_to_half(seen ? 0 : -std::numeric_limits<float>::infinity());
    }
  }
  const std::vector<double> expected = problem.reference();
  std::vector<std::vector<float>> results;
  for (const bool scattered : {false, true}) {
    Pool pool(problem, 900, 5);
    std::vector<int> cells = pool.free_cells();
    if (scattered) std::shuffle(cells.begin(), cells.end(), pool.random);
    std::vector<std::uint16_t> mask(static_cast<std::size_t>(shape.queries * 900), float_to_half(-std::numeric_limits<float>::infinity()));
    for (int t = 0; t < shape.tokens; ++t) {
      const int cell = cells[static_cast<std::size_t>(t)];
      pool.put(t, cell, 1000 + static_cast<std::uint64_t>(t));
      for (int q = 0; q < shape.queries; ++q) {
        mask[static_cast<std::size_t>(q * 900 + cell)] = problem.mask[static_cast<std::size_t>(q * shape.tokens + t)];
      }
    }
    for (const Kernels* kernels : available_kernels()) {
      Attention a = problem.attention();
      a.tokens = 900;
      a.k.data = pool.k.data();
      a.v.data = pool.v.data();
      a.mask = mask.data();
      a.mask_query_stride = 1800;
      a.order = pool.order.data();
      results.emplace_back(expected.size());
      a.out = results.back().data();
      Problem::compute(a, *kernels, 2);
      EXPECT_LT(relative_error(results.back(), expected), 2e-4) << kernels->name;
    }
  }
  const std::size_t sets = available_kernels().size();
  for (std::size_t i = 0; i < sets; ++i) EXPECT_EQ(results[i], results[sets + i]) << available_kernels()[i]->name;
}

TEST(Attention, RowsOfAWindowShareOneList) {
  Problem problem({.heads = 4, .kv_heads = 1, .queries = 16, .tokens = 300, .masked = true}, 79);
  for (int q = 0; q < 16; ++q) {
    for (int t = 0; t < 300; ++t) {
      problem.mask[static_cast<std::size_t>(q * 300 + t)] =
          float_to_half(t <= 280 + q && t > 200 + q ? 0 : -std::numeric_limits<float>::infinity());
    }
  }
  VisibleTokens visible;
  visible.build(problem.attention());
  const auto groups = visible.groups(0, 0, 0);
  ASSERT_EQ(groups.size(), 1U);
  EXPECT_EQ(groups[0].count, 95);
  EXPECT_EQ(groups[0].plain_begin, 15);
  EXPECT_EQ(groups[0].plain_end, 80);
  EXPECT_EQ(visible.runs(groups[0]).size(), 1U);
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
