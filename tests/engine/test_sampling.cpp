// A small top_k takes a shorter way to the next token than llama.cpp's own chain; a bias of nothing makes the same request take the long one.
#include <gtest/gtest.h>
#include <llama.h>

#include <array>
#include <memory>

#include "engine/backend.h"
#include "engine/engine_fixture.h"
#include "engine/llama_decoder.h"

namespace hearth::engine {
namespace {

TEST(Sampling, TheShortWayThroughTopKDrawsTheSameTokens) {
  start_backend();
  const auto threads = ThreadPool::create(1);
  ASSERT_TRUE(threads);
  const std::unique_ptr<llama_model, decltype(&llama_model_free)> model(
      llama_model_load_from_file(testing::nano_path().c_str(), llama_model_default_params()), llama_model_free);
  ASSERT_TRUE(model);
  LlamaDecoderOptions options;
  options.context = 256;
  options.sequences = 1;
  const auto decoder = LlamaDecoder::create(model.get(), **threads, options);
  ASSERT_TRUE(decoder);
  std::array<BatchToken, 8> prompt;
  for (int i = 0; i < 8; ++i) prompt[static_cast<std::size_t>(i)] = {.token = 100 + i, .pos = i, .seq = 0, .output = i == 7};
  ASSERT_TRUE((*decoder)->decode(prompt));

  for (std::uint32_t seed = 0; seed < 24; ++seed) {
    SamplerSpec spec;
    spec.seed = seed;
    spec.temperature = 0.4F + 0.2F * static_cast<float>(seed % 8);
    spec.top_k = 1 + static_cast<int>(seed) * 11;
    spec.min_p = seed % 3 == 0 ? 0 : 0.05F;
    spec.top_p = seed % 4 == 0 ? 1 : 0.9F;
    spec.ignore_eos = seed % 2 == 1;
    auto quick = (*decoder)->make_sampler(spec);
    spec.logit_bias = {{5, 0.0F}};
    auto plain = (*decoder)->make_sampler(spec);
    ASSERT_TRUE(quick && plain);
    for (int draw = 0; draw < 50; ++draw) {
      const auto a = (*quick)->sample(7);
      const auto b = (*plain)->sample(7);
      ASSERT_TRUE(a && b);
      ASSERT_EQ(a->token, b->token) << "seed " << seed << ", draw " << draw;
    }
  }
}

}  // namespace
}  // namespace hearth::engine
