// Models of several architectures with compressed keys and values, against llama.cpp's own f16 cache.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>
#include <random>

#include "turboquant/backend_fixture.h"

namespace hearth::turboquant::testing {
namespace {

struct Case {
  std::string name, arguments;  // of make_model; none: the demonstration model
  bool swa_full = true;
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

std::string model_of(const Case& c) { return c.arguments.empty() ? nano_path() : random_model(c.name, c.arguments); }

double mean_divergence(const std::vector<Logits>& p, const std::vector<Logits>& q) {
  double sum = 0;
  for (std::size_t i = 0; i < p.size(); ++i) sum += divergence(p[i], q[i]);
  return sum / static_cast<double>(p.size());
}

class BackendModels : public ::testing::TestWithParam<Case> {};

// Random weights attend to everything alike, which is the hardest for a quantised cache; the bounds hold with room to spare and fail for a cache that
// reads the wrong rows, heads or masks, whose divergence is a hundred times that.
TEST_P(BackendModels, PredictWhatTheyPredictWithF16) {
  const auto& c = GetParam();
  const std::string model = model_of(c);
  constexpr int tokens = 200;
  auto plain = Session::must({.model = model, .swa_full = c.swa_full});
  const auto text = prompt(*plain, tokens);
  const auto expected = plain->feed(text);
  struct Bound {
    const char* profile;
    double divergence;
    double same;
  };
  for (const Bound& bound : {Bound{"k8v8", 0.005, 0.95}, Bound{"k8v4", 0.05, 0.7}, Bound{"k4v4", 0.1, 0.6}, Bound{"k3v2", 0.6, 0.3}}) {
    auto session = Session::must({.model = model, .profile = bound.profile, .swa_full = c.swa_full, .options = {.head_size = 32}});
    const auto got = session->feed(text);
    ASSERT_EQ(got.size(), expected.size());
    int same = 0;
    for (std::size_t i = 0; i < got.size(); ++i) same += best(got[i]) == best(expected[i]) ? 1 : 0;
    EXPECT_LT(mean_divergence(expected, got), bound.divergence) << bound.profile;
    EXPECT_GT(same, bound.same * tokens) << bound.profile;
  }
}

// Prefill takes other paths than tokens one at a time: both write the same cache and read it alike.
TEST_P(BackendModels, ComputeTheSameAtOnceAndTokenByToken) {
  const auto& c = GetParam();
  const std::string model = model_of(c);
  auto whole = Session::must({.model = model, .profile = "k4v4", .swa_full = c.swa_full, .options = {.head_size = 32}});
  auto single = Session::must({.model = model, .profile = "k4v4", .swa_full = c.swa_full, .options = {.head_size = 32}});
  const auto text = prompt(*whole, 40);
  const auto at_once = whole->feed(text);
  std::vector<Logits> one_by_one;
  for (const llama_token token : text) one_by_one.push_back(single->feed({token}).at(0));
  EXPECT_LT(mean_divergence(at_once, one_by_one), 0.01);
}

INSTANTIATE_TEST_SUITE_P(
    Architectures, BackendModels,
    ::testing::Values(Case{"nano", ""}, Case{"llama", "--arch llama --width 256 --heads 4 --kv-heads 2"},
                      Case{"llama_mqa_head32", "--arch llama --width 128 --heads 4 --kv-heads 1"},
                      Case{"llama_head96", "--arch llama --width 384 --heads 4 --kv-heads 4 --head-size 96"},
                      Case{"qwen3", "--arch qwen3 --width 128 --heads 4 --kv-heads 2 --head-size 128"},
                      Case{"qwen3moe", "--arch qwen3moe --width 128 --heads 4 --kv-heads 2 --head-size 64"},
                      Case{"lfm2_hybrid", "--arch lfm2 --layers 6 --width 256 --heads 4 --kv-heads 2"},
                      Case{"gpt_oss", "--arch gpt-oss --width 256 --heads 4 --kv-heads 2 --head-size 64 --window 64"},
                      Case{"gemma2", "--arch gemma2 --width 128 --heads 4 --kv-heads 2 --head-size 64 --window 64"},
                      Case{"gemma2_window", "--arch gemma2 --width 128 --heads 4 --kv-heads 2 --head-size 64 --window 64", false},
                      Case{"gemma3", "--arch gemma3 --layers 6 --width 128 --heads 4 --kv-heads 1 --head-size 256 --window 64"}),
    [](const auto& p) { return p.param.name; });

// Two heads set by hand say what followed the last time: one wrong row among thousands, and they say something else. (The first token has none before it.)
TEST(Backend, WhatWasSeenOnceIsFoundAmongThousands) {
  const auto model = random_model("copies", "--copies --context 4096");
  std::vector<llama_token> text(2000);
  std::iota(text.begin(), text.end(), 20);
  std::mt19937 random(3);
  std::shuffle(text.begin(), text.end(), random);
  for (const char* profile : {"", "k8v4", "k4v4", "k4v3", "k3v2", "k3v2,sinks=4"}) {
    auto session = Session::must({.model = model, .profile = profile, .context = 4096});
    session->feed(text);
    for (const std::size_t at : {std::size_t{1}, std::size_t{64}, std::size_t{900}, std::size_t{1980}}) {
      const auto said = session->greedy(session->feed({text[at]}).back(), 6);
      EXPECT_EQ(said, std::vector<llama_token>(text.begin() + static_cast<std::ptrdiff_t>(at) + 1,
                                               text.begin() + static_cast<std::ptrdiff_t>(at) + 7))
          << profile << ", " << at;
    }
  }
}

TEST(Backend, SaysWhatTheCacheTakes) {
  auto session = Session::must({.model = nano_path(), .profile = "k3v2", .context = 1024});
  // 4 layers, 2 heads of 64: 26 bytes a key and 18 a value; 8 for the place in the order.
  EXPECT_EQ(session->usage().bytes, 1024U * (8 + 4 * 2 * (26 + 18)));
  EXPECT_EQ(session->usage().f16_bytes, 4U * 1024 * 2 * (128 + 128));
}

TEST(Backend, SaysHowLongItEncodedAndAttended) {
  auto session = Session::must({.model = nano_path(), .profile = "k4v4"});
  const auto begin = std::chrono::steady_clock::now();
  const auto before = session->usage();
  session->feed(prompt(*session, 200));
  const auto after = session->usage();
  EXPECT_GT(after.encoding, before.encoding);
  EXPECT_GT(after.attention, before.attention);
  EXPECT_LT(after.encoding + after.attention - before.encoding - before.attention, std::chrono::steady_clock::now() - begin);
}

TEST(Backend, GivesItsMemoryBack) {
  auto backend = Backend::create({.profile = "k8v4"});
  ASSERT_TRUE(backend);
  EXPECT_EQ((*backend)->usage().bytes, 0U);
}

TEST(Backend, TwoThreadsComputeWhatOneComputes) {
#if __has_feature(thread_sanitizer)
  GTEST_SKIP() << "ggml is not instrumented: what its barriers order looks like a race";
#endif
  auto one = Session::must({.model = nano_path(), .profile = "k8v4", .threads = 1});
  auto two = Session::must({.model = nano_path(), .profile = "k8v4", .threads = 2});
  const auto text = prompt(*one, 200);
  const auto a = one->feed(text), b = two->feed(text);
  EXPECT_EQ(a, b);
  EXPECT_EQ(one->greedy(a.back(), 8), two->greedy(b.back(), 8));
}

// ---- What cannot be kept compressed is refused by name.

void expect_refusal(const Settings& settings, const std::string& reason) {
  logged_errors();
  EXPECT_EQ(Session::open(settings), nullptr);
  const std::string errors = logged_errors();
  EXPECT_NE(errors.find(reason), std::string::npos) << errors;
}

TEST(BackendRefuses, UnknownProfiles) {
  const auto backend = Backend::create({.profile = "k9v9"});
  ASSERT_FALSE(backend);
  EXPECT_EQ(backend.error().code, ErrorCode::config_invalid);
  for (const char* name : {"k9v9", "k8v4", "k3v2"}) EXPECT_NE(backend.error().message.find(name), std::string::npos);
}

TEST(BackendRefuses, LatentAttention) {
  expect_refusal({.model = random_model("deepseek2", "--arch deepseek2 --width 128 --heads 4 --kv-heads 1"), .profile = "k8v4"},
                 "latent attention");
}

// Only what attends is compressed; what the convolutions carry from token to token stays as it is, and is saved with the rest.
TEST(Backend, AHybridModelCompressesItsAttentionLayers) {
  const std::string model = random_model("lfm2_hybrid", "--arch lfm2 --layers 6 --width 256 --heads 4 --kv-heads 2");
  auto session = Session::must({.model = model, .profile = "k8v4", .sequences = 2});
  // 3 layers of 2 heads of 64: 66 bytes a key and 34 a value, but for the guarded ones, which have the same.
  EXPECT_EQ(session->usage().bytes, 512U * (8 + 3 * 2 * (66 + 34)));
  EXPECT_EQ(session->usage().f16_bytes, 3U * 512 * 2 * (128 + 128));
  const auto logits = session->feed(prompt(*session, 100)).back();
  const auto state = session->save(0);
  const auto expected = session->greedy(logits, 24);
  llama_memory_seq_rm(session->memory(), 0, -1, -1);
  session->feed(prompt(*session, 37), 1);
  ASSERT_EQ(session->load(state, 0), state.size());
  EXPECT_EQ(session->greedy(logits, 24), expected);
}

TEST(BackendRefuses, CachesWithoutFlashAttention) {
  expect_refusal({.model = nano_path(), .profile = "k8v4", .flash = LLAMA_FLASH_ATTN_TYPE_DISABLED}, "flash attention is off");
}

TEST(BackendRefuses, QuantisedCacheTypes) {
  expect_refusal({.model = nano_path(), .profile = "k8v4", .type_k = GGML_TYPE_Q8_0, .type_v = GGML_TYPE_Q8_0},
                 "cache_k_l0 has the type q8_0");
}

TEST(BackendRefuses, HeadsThatAreNoMultipleOf32) {
  expect_refusal(
      {.model = random_model("llama_head80", "--arch llama --width 320 --heads 4 --kv-heads 4 --head-size 80"), .profile = "k8v4"},
      "heads of 80 numbers");
}

TEST(BackendRefuses, HeadsSmallerThanTheRoomTaken) {
  expect_refusal({.model = random_model("two_heads_of_32", "--arch llama --width 128 --heads 4 --kv-heads 2"), .profile = "k8v4"},
                 "GGML_TURBOQUANT_HEAD_SIZE=32");
}

}  // namespace
}  // namespace hearth::turboquant::testing
