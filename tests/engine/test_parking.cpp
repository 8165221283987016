// What leaves a real model's KV memory and comes back: paused sequences and idle prefixes go on exactly where they were.
#include <gtest/gtest.h>
#include <llama.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <memory>
#include <random>

#include "engine/backend.h"
#include "engine/engine_fixture.h"
#include "engine/llama_decoder.h"
#include "engine/scheduler_core.h"
#include "turboquant/backend.h"
#include "turboquant/profile.h"

namespace hearth::engine {
namespace {

struct TextSink final : GenerationSink {
  void on_started(int, int cached_tokens) override { cached = cached_tokens; }
  void on_delta(SequenceDelta delta) override {
    text += delta.text;
    over = over || delta.finished.has_value();
  }
  void on_failed(Error failure) override {
    error = failure.message;
    over = true;
  }
  std::size_t backlog() const override { return 0; }
  std::string text, error;
  int cached = 0;
  bool over = false;
};

// By the type of the KV cells.
class Parking : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    start_backend();
    auto made = ThreadPool::create(1);
    ASSERT_TRUE(made);
    threads_ = std::move(*made);
    llama_model_params params = llama_model_default_params();
    std::array<ggml_backend_dev_t, 2> devices{};
    if (turboquant::find_profile(GetParam())) {
      auto compression = turboquant::Backend::create({.profile = GetParam(), .layers = 4, .head_size = 64, .pool = threads_->pool()});
      ASSERT_TRUE(compression);
      compression_ = std::move(*compression);
      devices[0] = compression_->device();
      params.devices = devices.data();
    }
    model_.reset(llama_model_load_from_file(testing::nano_path().c_str(), params));
    ASSERT_TRUE(model_);
  }
  void make(int cells) {
    LlamaDecoderOptions options;
    options.context = cells;
    options.sequences = 32;
    options.kv_type = GetParam();
    options.compression = compression_.get();
    auto decoder = LlamaDecoder::create(model_.get(), *threads_, options);
    ASSERT_TRUE(decoder);
    core_.reset();
    decoder_ = std::move(*decoder);
    core_ = std::make_unique<SchedulerCore>(*decoder_, SchedulerOptions{}, clock_);
  }
  std::shared_ptr<TextSink> add(int first, int prompt, int tokens, chat::Priority priority = chat::Priority::interactive) {
    Generation g;
    for (int i = 0; i < prompt; ++i) g.prompt.push_back(300 + (first + i * 7) % 1500);
    g.max_tokens = tokens;
    g.samplers.resize(1);
    g.samplers[0].temperature = 0;
    g.samplers[0].ignore_eos = true;
    g.priority = priority;
    auto sink = std::make_shared<TextSink>();
    g.sink = sink;
    EXPECT_TRUE(core_->check(g));
    core_->add(std::move(g), std::make_shared<std::atomic<bool>>(false));
    return sink;
  }
  void run() {
    for (int i = 0; i < 5000 && !core_->idle(); ++i) core_->tick();
    EXPECT_TRUE(core_->idle());
  }

  FakeClock clock_;
  std::unique_ptr<ThreadPool> threads_;
  std::unique_ptr<turboquant::Backend> compression_;
  struct Free {
    void operator()(llama_model* model) const { llama_model_free(model); }
  };
  std::unique_ptr<llama_model, Free> model_;
  std::unique_ptr<LlamaDecoder> decoder_;
  std::unique_ptr<SchedulerCore> core_;
};

TEST_P(Parking, APausedSequenceGivesTheTokensOfOneThatNeverPaused) {
  make(512);
  const auto alone = add(11, 200, 120);
  run();
  make(512);
  const auto background = add(11, 200, 120, chat::Priority::background);
  for (int i = 0; i < 40; ++i) core_->tick();
  const auto interactive = add(900, 220, 60);
  core_->tick();
  EXPECT_EQ(core_->stats().parked, 1);
  run();
  EXPECT_EQ(core_->stats().resumes, 1);
  EXPECT_TRUE(interactive->over && interactive->error.empty());
  EXPECT_EQ(background->text, alone->text);
}

TEST_P(Parking, ACellCostsWhatItHolds) {
  make(512);
  const std::string type = GetParam();
  // 4 layers, 2 heads of 64. A saved cell also has its position, its sequence and its place in the order.
  const std::int64_t held = type == "f16" ? 2048 : type == "q8_0" ? 1088 : type == "q4_0" ? 576 : type == "k8v4" ? 800 : 352;
  EXPECT_GE(decoder_->bytes_per_cell(), held);
  EXPECT_LE(decoder_->bytes_per_cell(), held + 24);
  const auto cost = decoder_->kv_cost();
  EXPECT_GE(cost.bytes, 512 * held);
  EXPECT_LE(cost.bytes, 512 * (held + 24) + (type == "k3v2,sinks=4" ? 8 * 4 * 2 * (66 + 66) : 0));
  EXPECT_EQ(cost.attention.count() > 0, type.starts_with('k'));
  EXPECT_EQ(cost.encoding.count() > 0, type.starts_with('k'));
}

TEST_P(Parking, AParkedPrefixGivesTheTokensOfOneThatStayed) {
  make(2048);
  add(11, 700, 1);
  run();
  const auto stayed = add(11, 700, 80);
  run();
  EXPECT_EQ(stayed->cached, 699);

  make(2048);
  add(11, 700, 1);
  run();
  add(900, 50, 100);
  run();
  EXPECT_GT(core_->stats().prefix_parked_bytes, 0);
  const auto back = add(11, 700, 80);
  run();
  EXPECT_EQ(back->cached, 699);
  EXPECT_EQ(back->text, stayed->text);
}

// Not for llama.cpp's own caches, whose sums follow the cells.
class CompressedParking : public Parking {};

// One sequence computed alone in a fresh cache, and the same in a pool where others come, go, share its beginning and lie between its cells while it is
// saved, removed and restored to wherever there is room: every logit of every step is the same.
TEST_P(CompressedParking, EveryLogitIsThatOfASequenceThatNeverPaused) {
  const int rounds = std::getenv("HEARTH_TEST_ROUNDS") ? std::atoi(std::getenv("HEARTH_TEST_ROUNDS")) : 12;
  int restored = 0;
  for (int seed = 0; seed < rounds; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937 random(static_cast<unsigned>(seed));
    const auto below = [&](int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); };
    std::vector<std::vector<Token>> steps(1);
    for (int i = 1 + below(400); i > 0; --i) steps[0].push_back(300 + below(1500));
    for (int i = 0; i < 40; ++i) steps.push_back({300 + below(1500)});

    // Of `seq`, after its first `begin` tokens.
    const auto compute = [&](SeqId seq, const std::vector<Token>& tokens, int begin) {
      std::vector<BatchToken> batch;
      for (const Token token : tokens) batch.push_back({.token = token, .pos = begin + static_cast<int>(batch.size()), .seq = seq});
      batch.back().output = true;
      EXPECT_TRUE(decoder_->decode(batch));
      const auto row = decoder_->logits(static_cast<int>(batch.size()) - 1);
      return std::vector<float>(row.begin(), row.end());
    };
    make(1536);
    std::vector<std::vector<float>> expected;
    int length = 0;
    for (const auto& step : steps) {
      expected.push_back(compute(0, step, length));
      length += static_cast<int>(step.size());
    }

    make(1536);
    SeqId seq = 0;
    std::array<int, 6> others{};  // lengths of sequences 10 to 15
    const auto disturb = [&](int own) {
      for (int n = below(4); n > 0; --n) {
        const int which = below(6);
        int& other = others[static_cast<std::size_t>(which)];
        const SeqId id = 10 + which;
        if (other > 0 && below(3) == 0) {
          decoder_->remove(id, 0, -1);
          other = 0;
        } else if (other == 0 && own > 1 && below(3) == 0) {
          other = 1 + below(own - 1);
          decoder_->share(seq, id, 0, other);
        } else if (other < 150) {
          std::vector<Token> more;
          for (int i = 1 + below(60); i > 0; --i) more.push_back(300 + below(1500));
          compute(id, more, other);
          other += static_cast<int>(more.size());
        }
      }
    };
    length = 0;
    for (std::size_t i = 0; i < steps.size(); ++i) {
      disturb(length);
      if (length > 0 && below(4) == 0) {
        auto state = decoder_->save(seq);
        ASSERT_TRUE(state);
        decoder_->remove(seq, 0, -1);
        disturb(0);
        seq = 1 - seq;
        ASSERT_TRUE(decoder_->restore(seq, *state));
        ++restored;
      }
      ASSERT_EQ(compute(seq, steps[i], length), expected[i]) << "step " << i;
      length += static_cast<int>(steps[i].size());
    }
  }
  EXPECT_GT(restored, 5 * rounds);
}

const auto name = [](const ::testing::TestParamInfo<const char*>& info) {
  std::string out = info.param;
  std::erase_if(out, [](char c) { return c == ',' || c == '='; });
  return out;
};
INSTANTIATE_TEST_SUITE_P(Profiles, CompressedParking, ::testing::Values("k8v4", "k4v4", "k3v2", "k3v2,sinks=4"), name);
INSTANTIATE_TEST_SUITE_P(KvTypes, Parking, ::testing::Values("f16", "q8_0", "q4_0", "k8v4", "k3v2", "k3v2,sinks=4"), name);

}  // namespace
}  // namespace hearth::engine
