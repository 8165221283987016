// What leaves a real model's KV memory and comes back: paused sequences and idle prefixes go on exactly where they were.
#include <gtest/gtest.h>
#include <llama.h>

#include <algorithm>
#include <array>
#include <memory>

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
  // Both say the same. TurboQuant's sums round by blocks of cells, so that a sequence which came back to other cells, with the very bytes it left with,
  // may choose otherwise where two tokens are equally likely to a thousandth; then it must at least have gone on right, `after` so many characters.
  void expect_same(const std::string& text, const std::string& expected, std::size_t after) const {
    if (!compression_) {
      EXPECT_EQ(text, expected);
      return;
    }
    const std::size_t same =
        static_cast<std::size_t>(std::mismatch(text.begin(), text.end(), expected.begin(), expected.end()).first - text.begin());
    EXPECT_GE(same, std::min(after + 10, expected.size())) << text << "\n" << expected;
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
  const std::size_t before = background->text.size();
  core_->tick();
  EXPECT_EQ(core_->stats().parked, 1);
  run();
  EXPECT_EQ(core_->stats().resumes, 1);
  EXPECT_TRUE(interactive->over && interactive->error.empty());
  expect_same(background->text, alone->text, before);
}

TEST_P(Parking, ACellCostsWhatItHolds) {
  make(512);
  const std::string type = GetParam();
  // 4 layers, 2 heads of 64. A saved cell also has its position and its sequence.
  const std::int64_t held = type == "f16" ? 2048 : type == "q8_0" ? 1088 : type == "q4_0" ? 576 : type == "k8v4" ? 800 : 352;
  EXPECT_GE(decoder_->bytes_per_cell(), held);
  EXPECT_LE(decoder_->bytes_per_cell(), held + 16);
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
  expect_same(back->text, stayed->text, 0);
}

INSTANTIATE_TEST_SUITE_P(KvTypes, Parking, ::testing::Values("f16", "q8_0", "q4_0", "k8v4", "k3v2"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace hearth::engine
