// Speculation on real models: the same answers with and without, whoever guesses, and a draft model that does not fit is refused with the reason.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <llama.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>

#include "engine/draft_model.h"
#include "engine/engine_fixture.h"
#include "engine/ngram_draft.h"
#include "engine/scheduler_core.h"

namespace hearth::engine::testing {
namespace {

using Mode = Speculation::Mode;

// The demonstration model, changed by trim_model.
std::string nano_with(const std::string& name, const std::string& arguments) {
  const std::filesystem::path folder = HEARTH_BUILD_DIR "/test-models";
  std::filesystem::create_directories(folder);
  const std::string path = folder / (name + ".gguf"), fresh = path + "." + std::to_string(getpid());
  const std::string command = std::string("'") + HEARTH_TRIM_MODEL + "' " + arguments + " '" + nano_path() + "' '" + fresh + "'";
  EXPECT_EQ(std::system(command.c_str()), 0) << command;
  std::filesystem::rename(fresh, path);
  return path;
}

// In f32 what is computed hardly depends on how many rows are computed together. In f16 it does, and two tokens nearly as likely may change places.
std::string exact_path() {
  static const std::string made = nano_with("nano-f32", "--f32");
  return made;
}

// Without its last layer it is a draft model for itself.
std::string draft_path() {
  static const std::string made = nano_with("nano-trimmed", "--layers 0,1,2");
  return made;
}

std::unique_ptr<Engine> load_with(const std::string& path, Mode mode, int context = 2048) {
  EngineOptions options = options_for(path);
  options.context = context;
  options.speculation.mode = mode;
  options.speculation.adaptive = false;  // or the test would depend on the machine's speed
  options.speculation.max_draft = 8;
  if (mode == Mode::draft) options.speculation.draft_model = draft_path();
  options.speculation.least_confidence = 0.3F;
  auto engine = Engine::load(options);
  if (!engine) {
    ADD_FAILURE() << engine.error().message;
    std::abort();
  }
  return std::move(*engine);
}

std::vector<Token> chosen(const Collector& answer, int choice = 0) {
  std::vector<Token> out;
  for (const auto& info : answer.tokens(choice)) out.push_back(info.chosen.token);
  return out;
}

const char* const prompts[] = {"list all files in the current folder, newest first", "show disk usage of every folder under /var",
                               "count the lines of all python files", "copy the folder to the remote host over ssh",
                               "find large images and remove old backups after seven days"};

struct Case {
  const char* name;
  const char* arguments;
};
class EveryArchitecture : public ::testing::TestWithParam<Case> {};

TEST_P(EveryArchitecture, GreedyAnswersAreTheSameWithLookup) {
  const std::string path = random_model(GetParam().name, std::string(GetParam().arguments) + " --type f32 --vocab '" + nano_path() + "'");
  auto plain = load_with(path, Mode::off), guessing = load_with(path, Mode::lookup);
  int accepted = 0;
  for (const char* prompt : prompts) {
    chat::Request request = raw_request(prompt, 160);
    request.top_logprobs = 0;
    request.ignore_eos = true;
    auto expected = run(*plain, request), answer = run(*guessing, request);
    EXPECT_EQ(chosen(*answer), chosen(*expected)) << prompt;
    EXPECT_EQ(answer->usage()->completion_tokens, 160);
    EXPECT_EQ(expected->usage()->drafted_tokens, 0);
    accepted += answer->usage()->accepted_tokens;
  }
  EXPECT_GT(accepted, 0) << "random models repeat themselves, and that is guessed";
}

INSTANTIATE_TEST_SUITE_P(All, EveryArchitecture,
                         ::testing::Values(Case{"spec-llama", "--arch llama --seed 11"}, Case{"spec-qwen2", "--arch qwen2 --seed 12"},
                                           Case{"spec-qwen3", "--arch qwen3 --head-size 32 --seed 13"},
                                           Case{"spec-qwen3moe", "--arch qwen3moe --head-size 32 --seed 14"},
                                           Case{"spec-gemma2", "--arch gemma2 --head-size 32 --layers 4 --window 16 --seed 15"},
                                           Case{"spec-gemma3", "--arch gemma3 --head-size 32 --layers 7 --window 16 --tied --seed 16"}),
                         [](const auto& info) { return std::string(info.param.name + 5); });

class EveryMode : public ::testing::TestWithParam<Mode> {
 protected:
  static void SetUpTestSuite() { plain_ = load_with(exact_path(), Mode::off); }
  static void TearDownTestSuite() { plain_.reset(); }
  void SetUp() override { guessing_ = load_with(exact_path(), GetParam()); }
  // Both engines answer alike; returns the guessed one's usage.
  chat::Usage same(const chat::Request& request) {
    auto expected = run(*plain_, request), answer = run(*guessing_, request);
    EXPECT_FALSE(expected->error() || answer->error());
    for (int c = 0; c < request.choices; ++c) {
      EXPECT_EQ(answer->text(c), expected->text(c));
      EXPECT_EQ(answer->finish(c), expected->finish(c));
      EXPECT_EQ(chosen(*answer, c), chosen(*expected, c));
      const auto calls = answer->calls(c), expected_calls = expected->calls(c);
      EXPECT_EQ(calls.size(), expected_calls.size());
      for (std::size_t i = 0; i < std::min(calls.size(), expected_calls.size()); ++i)
        EXPECT_EQ(calls[i].arguments, expected_calls[i].arguments);
    }
    if (!answer->usage() || !expected->usage()) return {};
    EXPECT_EQ(answer->usage()->completion_tokens, expected->usage()->completion_tokens);
    return *answer->usage();
  }
  static std::unique_ptr<Engine> plain_;
  std::unique_ptr<Engine> guessing_;
};
std::unique_ptr<Engine> EveryMode::plain_;

TEST_P(EveryMode, GreedyChatIsTheSame) {
  int drafted = 0, accepted = 0;
  for (const char* prompt : prompts) {
    chat::Request request = chat_request(prompt, 100);
    request.top_logprobs = 3;
    const chat::Usage usage = same(request);
    drafted += usage.drafted_tokens;
    accepted += usage.accepted_tokens;
    request = raw_request(std::string(prompt) + "\n" + prompt + "\n", 100);
    request.ignore_eos = true;
    const chat::Usage repeated = same(request);
    drafted += repeated.drafted_tokens;
    accepted += repeated.accepted_tokens;
  }
  EXPECT_GT(drafted, 0);
  EXPECT_GT(accepted, 0);
  EXPECT_LE(accepted, drafted);
  EXPECT_TRUE(guessing_->wait_idle(std::chrono::seconds(10)));  // counters are published after the tick
  const SchedulerStats stats = guessing_->stats();
  EXPECT_EQ(stats.drafted_tokens, drafted);
  EXPECT_EQ(stats.accepted_tokens, accepted);
}

TEST_P(EveryMode, ASeedGivesTheSameAnswerTwice) {
  chat::Request request = raw_request(prompts[2], 120);
  request.ignore_eos = true;
  request.sampling.temperature = 0.7F;
  request.sampling.seed = 5;
  EXPECT_EQ(same(request).drafted_tokens, 0);
  request.sampling.seed.reset();
  request.top_logprobs = 0;
  auto free = run(*guessing_, request);
  EXPECT_EQ(free->tokens().size(), 120U);
}

TEST_P(EveryMode, StopStringsAndLimitsCutInTheSamePlace) {
  for (const char* prompt : prompts) {
    chat::Request request = raw_request(prompt, 100);
    request.ignore_eos = true;
    for (const char* stop : {" -", "e", "\n", "in"}) {
      request.sampling.stop = {stop};
      same(request);
    }
    request.sampling.stop.clear();
    for (int limit : {1, 2, 7, 33}) {
      request.max_tokens = limit;
      same(request);
    }
  }
}

TEST_P(EveryMode, GrammarsAndToolCallsAreTheSame) {
  chat::Request request = chat_request("list files as JSON", 120);
  request.format = {.kind = chat::OutputFormat::Kind::json_schema,
                    .schema = R"({"type":"object","properties":{"files":{"type":"array","items":{"type":"string"},"maxItems":6},
                                 "count":{"type":"integer"}},"required":["files","count"]})"};
  same(request);
  for (auto mode : {chat::ToolChoice::Mode::automatic, chat::ToolChoice::Mode::required}) {
    request = chat_request(prompts[1], 120);
    request.tools = {bash_tool()};
    request.tool_choice.mode = mode;
    same(request);
  }
}

TEST_P(EveryMode, ManyAtOnceWithPausesAndSharedPrefixesAreEachTheSame) {
  // Cells for a few of them only: background work is paused in favour of the others.
  guessing_ = load_with(exact_path(), GetParam(), 1024);
  struct Ask {
    chat::Request request;
    std::shared_ptr<Collector> answer;
    GenerationHandle handle;
  };
  std::vector<Ask> asks;
  for (int i = 0; i < 12; ++i) {
    Ask ask;
    std::string text;
    for (int k = 0; k < 3 + i % 3; ++k) text += std::string(prompts[(i + k) % 5]) + "\n";
    ask.request = raw_request(text, 120);
    ask.request.ignore_eos = true;
    ask.request.top_logprobs = 0;
    ask.request.priority = i % 3 == 0 ? chat::Priority::background : chat::Priority::interactive;
    asks.push_back(std::move(ask));
  }
  for (auto& ask : asks) {
    ask.answer = std::make_shared<Collector>();
    auto handle = guessing_->generate(ask.request, ask.answer);
    ASSERT_TRUE(handle) << handle.error().message;
    ask.handle = std::move(*handle);
  }
  for (auto& ask : asks) {
    ask.answer->wait();
    ASSERT_FALSE(ask.answer->error());
    EXPECT_EQ(chosen(*ask.answer), chosen(*run(*plain_, ask.request)));
  }
  EXPECT_TRUE(guessing_->wait_idle(std::chrono::seconds(10)));
  EXPECT_GT(guessing_->stats().accepted_tokens, 0);
}

INSTANTIATE_TEST_SUITE_P(All, EveryMode, ::testing::Values(Mode::lookup, Mode::draft),
                         [](const auto& info) { return std::string(info.param == Mode::lookup ? "lookup" : "draft"); });

// Below the engine, where a seed does not switch it off: the tokens drawn are those drawn without speculation.
TEST(Speculation, SampledTokensWithPenaltiesAreThoseDrawnWithout) {
  start_backend();
  auto threads = ThreadPool::create(1);
  ASSERT_TRUE(threads);
  const std::string path = exact_path();
  const std::unique_ptr<llama_model, decltype(&llama_model_free)> model(
      llama_model_load_from_file(path.c_str(), llama_model_default_params()), llama_model_free);
  ASSERT_TRUE(model);
  struct Sink final : GenerationSink {
    void on_started(int, int) override {}
    void on_delta(SequenceDelta delta) override {
      text += delta.text;
      accepted += delta.accepted;
    }
    void on_failed(Error error) override { ADD_FAILURE() << error.message; }
    std::size_t backlog() const override { return 0; }
    std::string text;
    int accepted = 0;
  };
  const FakeClock clock;
  int accepted = 0;
  const auto answers = [&](DraftSource* source) {
    std::vector<std::string> texts;
    auto decoder = LlamaDecoder::create(model.get(), **threads, {.context = 2048, .sequences = 32});
    if (!decoder) return texts;
    std::unique_ptr<Speculator> speculator;
    if (source) speculator = std::make_unique<Speculator>(*source, Speculation{.max_draft = 8, .adaptive = false}, 32);
    SchedulerCore core(**decoder, {}, clock, speculator.get());
    for (std::uint32_t seed = 1; seed <= 8; ++seed) {
      auto sink = std::make_shared<Sink>();
      Generation g;
      for (int i = 0; i < 40; ++i) g.prompt.push_back(300 + static_cast<Token>(seed) + 7 * (i % 20));
      g.max_tokens = 120;
      g.samplers.resize(1);
      g.samplers[0].temperature = 0.7F;
      g.samplers[0].seed = seed;
      g.samplers[0].ignore_eos = true;
      if (seed % 2 == 0) g.samplers[0].repeat_penalty = 1.1F, g.samplers[0].frequency_penalty = 0.3F;
      g.sink = sink;
      core.add(std::move(g), std::make_shared<std::atomic<bool>>(false));
      for (int i = 0; i < 500 && !core.idle(); ++i) core.tick();
      texts.push_back(sink->text);
      accepted += sink->accepted;
    }
    return texts;
  };
  const std::vector<std::string> plain = answers(nullptr);
  ASSERT_EQ(plain.size(), 8U);
  NgramDraft lookup(32, 1);
  EXPECT_EQ(answers(&lookup), plain);
  EXPECT_GT(std::exchange(accepted, 0), 0);
  auto draft = DraftModel::load(model.get(), **threads,
                                {.path = draft_path(), .least_confidence = 0.1F, .decoder = {.context = 2048, .sequences = 32}});
  ASSERT_TRUE(draft) << draft.error().message;
  EXPECT_EQ(answers(draft->get()), plain);
  EXPECT_GT(accepted, 0);
}

TEST(Speculation, TheDefaultGuessesAndIsTheSame) {
  auto plain = load_with(exact_path(), Mode::off), usual = load(exact_path());
  for (const char* prompt : prompts) {
    EXPECT_EQ(run(*usual, chat_request(prompt, 60))->text(), run(*plain, chat_request(prompt, 60))->text());
  }
}

Error refusal(const std::function<void(Speculation&)>& change) {
  EngineOptions options = options_for(nano_path());
  change(options.speculation);
  auto engine = Engine::load(options);
  EXPECT_FALSE(engine.ok());
  return engine ? Error{} : engine.error();
}

TEST(Speculation, ADraftModelThatDoesNotFitIsRefusedWithTheReason) {
  const Error none = refusal([](Speculation& s) { s.mode = Mode::draft; });
  EXPECT_EQ(none.code, ErrorCode::config_invalid);
  EXPECT_THAT(none.message, ::testing::HasSubstr("none is named"));

  const Error missing = refusal([](Speculation& s) { s.draft_model = "/nowhere/draft.gguf"; });
  EXPECT_EQ(missing.code, ErrorCode::io);
  EXPECT_THAT(missing.message, ::testing::HasSubstr("/nowhere/draft.gguf"));

  const std::string other = random_model("draft-other", "--arch qwen2 --vocab '" + vocabulary("qwen2") + "'");
  const Error vocabulary_size = refusal([&](Speculation& s) { s.draft_model = other; });
  EXPECT_EQ(vocabulary_size.code, ErrorCode::config_invalid);
  EXPECT_THAT(vocabulary_size.message, ::testing::AllOf(::testing::HasSubstr("2048"), ::testing::HasSubstr("tokenizer")));

  const std::string kind = random_model("draft-kind", "--arch llama --vocab '" + vocabulary("llama-spm") + "'");
  EXPECT_THAT(refusal([&](Speculation& s) { s.draft_model = kind; }).message, ::testing::HasSubstr("different kinds"));

  const std::string broken = other + ".broken";
  std::ofstream(broken) << "GGUF and then nothing of use";
  const Error damaged = refusal([&](Speculation& s) { s.draft_model = broken; });
  EXPECT_EQ(damaged.code, ErrorCode::model_invalid);
  EXPECT_THAT(damaged.message, ::testing::HasSubstr(broken));
}

TEST(Speculation, NumbersOutOfRangeAreRefused) {
  EXPECT_THAT(refusal([](Speculation& s) { s.max_draft = 0; }).message, ::testing::HasSubstr("between 1 and 256"));
  EXPECT_THAT(refusal([](Speculation& s) { s.lookup_tokens = 0; }).message, ::testing::HasSubstr("between 1 and 64"));
}

}  // namespace
}  // namespace hearth::engine::testing
