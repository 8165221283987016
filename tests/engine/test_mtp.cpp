// The model's own blocks for multi-token prediction: they read along with whatever the decoder does, guess what a plain loop around llama.cpp would guess,
// and change no answer.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <llama-ext.h>
#include <llama.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <set>

#include "catalog/gguf.h"
#include "engine/engine_fixture.h"
#include "engine/llama_decoder.h"
#include "engine/mtp_draft.h"
#include "engine/scheduler_core.h"

namespace hearth::engine::testing {
namespace {

using Mode = Speculation::Mode;
using ModelPtr = std::unique_ptr<llama_model, decltype(&llama_model_free)>;
using ContextPtr = std::unique_ptr<llama_context, decltype(&llama_free)>;

struct Case {
  const char* name;
  const char* arguments;
};

// `mixing`: how much a token depends on others than the one before it. Little, and the blocks guess well; much, and what they read matters.
std::string model_of(const Case& c, const std::string& mixing) {
  return random_model("mtp-" + std::string(c.name) + "-" + mixing,
                      std::string(c.arguments) + " --type f32 --context 2048 --mixing " + mixing + " --vocab '" + nano_path() + "'");
}

ModelPtr load_model(const std::string& path) {
  start_backend();
  llama_model_params params = llama_model_default_params();
  params.load_mtp = true;
  return {llama_model_load_from_file(path.c_str(), params), llama_model_free};
}

const char* const prompts[] = {"list all files in the current folder, newest first", "show disk usage of every folder under /var",
                               "count the lines of all python files"};

std::vector<Token> chosen(const Collector& answer, int choice = 0) {
  std::vector<Token> out;
  for (const auto& info : answer.tokens(choice)) out.push_back(info.chosen.token);
  return out;
}

std::unique_ptr<Engine> load_with(const std::string& path, Mode mode, int context = 2048, std::vector<AdapterSpec> adapters = {}) {
  EngineOptions options = options_for(path);
  options.context = context;
  options.adapters = std::move(adapters);
  options.speculation.mode = mode;
  options.speculation.adaptive = false;  // or the test would depend on the machine's speed
  options.speculation.max_draft = 5;
  options.speculation.least_confidence = 0;
  auto engine = Engine::load(options);
  if (!engine) {
    ADD_FAILURE() << engine.error().message;
    std::abort();
  }
  return std::move(*engine);
}

class Mtp : public ::testing::TestWithParam<Case> {};
INSTANTIATE_TEST_SUITE_P(All, Mtp,
                         ::testing::Values(Case{"glm4moe", "--arch glm4moe --head-size 16 --mtp 1 --seed 21"},
                                           Case{"hy_v3", "--arch hy_v3 --head-size 16 --mtp 1 --seed 22"},
                                           Case{"hy_v3_several", "--arch hy_v3 --head-size 16 --mtp 3 --seed 23"}),
                         [](const auto& info) { return std::string(info.param.name); });

TEST_P(Mtp, GreedyAnswersAreTheSameAndGuessesComeTrue) {
  for (const char* mixing : {"0.1", "1"}) {
    const std::string path = model_of(GetParam(), mixing);
    auto plain = load_with(path, Mode::off), guessing = load_with(path, Mode::mtp);
    int drafted = 0, accepted = 0;
    for (const char* prompt : prompts) {
      chat::Request request = raw_request(prompt, 120);
      request.top_logprobs = 0;
      request.ignore_eos = true;
      auto expected = run(*plain, request), answer = run(*guessing, request);
      EXPECT_EQ(chosen(*answer), chosen(*expected)) << prompt;
      EXPECT_EQ(answer->usage()->completion_tokens, 120);
      drafted += answer->usage()->drafted_tokens;
      accepted += answer->usage()->accepted_tokens;
    }
    std::printf("mixing %s: %d guesses, %d right\n", mixing, drafted, accepted);
    EXPECT_GT(drafted, 0);
    if (std::string(mixing) == "0.1") {
      EXPECT_GT(accepted, drafted / 4) << "the next token follows from the last alone, and the block sees that";
    }
  }
}

TEST_P(Mtp, AnAdapterChangesTheAnswerAndNotWhetherItIsRight) {
  const std::string path = model_of(GetParam(), "1");
  std::vector<AdapterSpec> adapters;
  for (const std::string name : {"one", "two"}) {
    const std::string file = std::filesystem::temp_directory_path() / ("hearth-mtp-" + std::to_string(getpid()) + "-" + name + ".gguf");
    make_adapter(file,
                 "--rank 8 --targets blk.0.attn_v,blk.1.attn_v,blk.1.attn_output --seed " + std::to_string(name.size() + adapters.size()),
                 path);
    adapters.push_back({name, file, 1});
  }
  auto plain = load_with(path, Mode::off, 2048, adapters), guessing = load_with(path, Mode::mtp, 2048, adapters);
  std::set<std::vector<Token>> answers;
  int drafted = 0;
  // By turns, so that what the block has read with one adapter lies beside what it reads with another.
  for (int turn = 0; turn < 2; ++turn) {
    for (const std::string adapter : {"", "one", "two"}) {
      chat::Request request = raw_request(prompts[turn], 60);
      request.adapter = adapter;
      request.top_logprobs = 0;
      request.ignore_eos = true;
      auto expected = run(*plain, request), answer = run(*guessing, request);
      ASSERT_FALSE(expected->error()) << expected->error()->message;
      ASSERT_FALSE(answer->error()) << answer->error()->message;
      EXPECT_EQ(chosen(*answer), chosen(*expected)) << adapter;
      EXPECT_EQ(answer->usage()->completion_tokens, 60);
      drafted += answer->usage()->drafted_tokens;
      answers.insert(chosen(*expected));
    }
  }
  EXPECT_EQ(answers.size(), 6) << "an adapter that changes nothing proves nothing";
  EXPECT_GT(drafted, 0);
  for (const AdapterSpec& adapter : adapters) std::filesystem::remove(adapter.path);
}

// ---- what is guessed ----

// One sequence, read in one go, guessed from once: llama.cpp's functions and nothing else. `unknown`: places whose hidden state counts as zeros. The guesses
// end where two tokens are so nearly as likely that rounding, which follows from what is computed together, decides.
std::vector<Token> plain_guesses(llama_model* model, const std::vector<Token>& tokens, int count, const std::set<int>& unknown = {}) {
  const auto width = static_cast<std::size_t>(llama_model_n_embd_out(model));
  llama_context_params params = llama_context_default_params();
  params.n_ctx = 512;
  params.n_batch = params.n_ubatch = 512;
  params.n_threads = params.n_threads_batch = 1;
  params.no_perf = true;
  const ContextPtr large(llama_init_from_model(model, params), llama_free);
  params.ctx_type = LLAMA_CONTEXT_TYPE_MTP;
  const ContextPtr block(llama_init_from_model(model, params), llama_free);
  llama_set_embeddings_nextn(large.get(), true, false);
  llama_set_embeddings_nextn(block.get(), true, true);
  const auto decode = [](llama_context* context, std::vector<Token> row, int first, std::vector<float>* hidden) {
    std::vector<llama_pos> pos(row.size());
    std::vector<std::int32_t> one(row.size(), 1);
    std::vector<llama_seq_id> zero(row.size(), 0);
    std::vector<llama_seq_id*> seq(row.size());
    std::vector<std::int8_t> output(row.size(), 1);
    for (std::size_t i = 0; i < row.size(); ++i) pos[i] = first + static_cast<int>(i), seq[i] = &zero[i];
    EXPECT_EQ(llama_decode(context, {.n_tokens = static_cast<std::int32_t>(row.size()),
                                     .token = row.data(),
                                     .embd = hidden ? hidden->data() : nullptr,
                                     .pos = pos.data(),
                                     .n_seq_id = one.data(),
                                     .seq_id = seq.data(),
                                     .logits = output.data()}),
              0);
  };
  // All but the last token have been computed by the model; its hidden states, each paired with the token after it.
  decode(large.get(), {tokens.begin(), tokens.end() - 1}, 0, nullptr);
  const float* rows = llama_get_embeddings_nextn(large.get());
  std::vector<float> hidden(width);
  for (std::size_t place = 0; place + 1 < tokens.size(); ++place) {
    if (unknown.contains(static_cast<int>(place))) hidden.resize(hidden.size() + width);
    else hidden.insert(hidden.end(), rows + place * width, rows + (place + 1) * width);
  }
  decode(block.get(), tokens, 0, &hidden);
  std::vector<Token> out;
  const auto vocabulary = static_cast<std::size_t>(llama_vocab_n_tokens(llama_model_get_vocab(model)));
  for (int row = static_cast<int>(tokens.size()) - 1; static_cast<int>(out.size()) < count; row = 0) {
    const auto best = best_logits({llama_get_logits_ith(block.get(), row), vocabulary}, 2);
    if (best[0].first - best[1].first < 0.05F) break;
    out.push_back(best[0].second);
    const float* state = llama_get_embeddings_nextn_ith(block.get(), row);
    std::vector<float> next(state, state + width);
    decode(block.get(), {out.back()}, static_cast<int>(tokens.size()) + static_cast<int>(out.size()) - 1, &next);
  }
  return out;
}

// A decoder, the blocks that read along with it, and sequences of random tokens in it.
class Reading {
 public:
  explicit Reading(const std::string& path, int cells = 1024) : model_(load_model(path)) {
    auto threads = ThreadPool::create(1);
    threads_ = std::move(*threads);
    auto decoder = LlamaDecoder::create(model_.get(), *threads_, {.context = cells, .sequences = 16, .batch = 64});
    decoder_ = std::move(*decoder);
    auto blocks = MtpDraft::create(model_.get(), *threads_, *decoder_, {.least_confidence = 0});
    EXPECT_TRUE(blocks) << blocks.error().message;
    blocks_ = std::move(*blocks);
  }
  LlamaDecoder& decoder() { return *decoder_; }
  MtpDraft& blocks() { return *blocks_; }

  struct Part {
    SeqId seq = 0;
    const std::vector<Token>* tokens = nullptr;
    int begin = 0, end = 0;
  };
  // Parts of several sequences in one pass.
  void compute(const std::vector<Part>& parts) {
    std::vector<BatchToken> batch;
    for (const Part& part : parts) {
      for (int pos = part.begin; pos < part.end; ++pos)
        batch.push_back({(*part.tokens)[static_cast<std::size_t>(pos)], pos, part.seq, pos + 1 == part.end});
    }
    EXPECT_TRUE(decoder_->decode(batch));
  }
  std::vector<Token> guess(SeqId seq, const std::vector<Token>& tokens, int count) {
    DraftSource::Want want{.seq = seq, .tokens = tokens, .limit = count};
    blocks_->draft(std::span(&want, 1));
    ready = want.ready;
    return want.draft;
  }
  // What is guessed is what the plain loop guesses.
  void same_guesses(SeqId seq, const std::vector<Token>& tokens, int count, const std::set<int>& unknown = {}) {
    const auto expected = plain_guesses(model_.get(), tokens, count, unknown);
    auto guessed = guess(seq, tokens, count);
    EXPECT_EQ(static_cast<int>(guessed.size()), count);
    guessed.resize(std::min(guessed.size(), expected.size()));
    EXPECT_EQ(guessed, expected);
    compared += expected.size();
  }
  bool ready = true;
  std::size_t compared = 0;

 private:
  ModelPtr model_;
  std::unique_ptr<ThreadPool> threads_;
  std::unique_ptr<LlamaDecoder> decoder_;
  std::unique_ptr<MtpDraft> blocks_;
};

std::vector<Token> random_tokens(std::uint32_t seed, int count) {
  std::mt19937 random(seed);
  std::vector<Token> out;
  for (int i = 0; i < count; ++i) out.push_back(static_cast<Token>(300 + random() % 1500));
  return out;
}

TEST_P(Mtp, GuessesAreThoseOfAPlainLoop) {
  Reading r(model_of(GetParam(), "1"));
  const auto a = random_tokens(1, 101), b = random_tokens(2, 38);
  // Pieces of two sequences mixed in each pass, long ones and single tokens.
  r.compute({{1, &a, 0, 40}, {2, &b, 0, 5}});
  r.compute({{2, &b, 5, 6}, {1, &a, 40, 90}});
  for (int i = 0; i < 10; ++i) r.compute({{1, &a, 90 + i, 91 + i}, {2, &b, 6 + i, 7 + i}});
  r.same_guesses(1, a, 4);
  r.same_guesses(1, a, 4);  // asking changes nothing
  r.compute({{2, &b, 16, 37}});
  r.same_guesses(2, b, 3);
  // Two at once.
  DraftSource::Want wants[2] = {{.seq = 2, .tokens = b, .limit = 2}, {.seq = 1, .tokens = a, .limit = 4}};
  r.blocks().draft(wants);
  EXPECT_EQ(wants[0].draft, r.guess(2, b, 2));
  EXPECT_EQ(wants[1].draft, r.guess(1, a, 4));
  EXPECT_GT(r.compared, 6U);
  EXPECT_GT(r.blocks().milliseconds(), 0);
  EXPECT_GT(r.blocks().bytes_per_cell(), 0);
}

TEST_P(Mtp, WhatWasGuessedWrongLeavesNoTrace) {
  Reading r(model_of(GetParam(), "1"));
  auto a = random_tokens(3, 31);
  r.compute({{1, &a, 0, 30}});
  for (int round = 0; round < 20; ++round) {
    r.same_guesses(1, a, 4);
    // The last token and four guesses are computed; `right` of these turn out to be so.
    auto with = a;
    for (const Token token : random_tokens(static_cast<std::uint32_t>(100 + round), 4)) with.push_back(token);
    const int begin = static_cast<int>(a.size()) - 1, right = round % 5;
    r.compute({{1, &with, begin, begin + 5}});
    r.decoder().remove(1, begin + 1 + right, -1);
    a.assign(with.begin(), with.begin() + begin + 1 + right);
    a.push_back(static_cast<Token>(400 + round));
  }
  EXPECT_GT(r.compared, 40U);
}

TEST_P(Mtp, SharedPrefixesAreReadOnce) {
  Reading r(model_of(GetParam(), "1"));
  const auto a = random_tokens(4, 60);
  auto b = a;
  b.resize(40);
  for (const Token token : random_tokens(5, 21)) b.push_back(token);
  r.compute({{1, &a, 0, 59}});
  r.decoder().share(1, 2, 0, 40);
  r.compute({{2, &b, 40, 60}});
  r.same_guesses(2, b, 4, {39});  // the state behind the shared part is the only one not known
  r.same_guesses(1, a, 4);
  r.decoder().remove(1, 0, -1);
  r.same_guesses(2, b, 4, {39});  // what is shared stays for the other
  // The same id for another sequence.
  const auto c = random_tokens(6, 20);
  r.compute({{1, &c, 0, 19}});
  r.same_guesses(1, c, 4);
}

TEST_P(Mtp, SavedSequencesComeBackWithWhatWasRead) {
  Reading r(model_of(GetParam(), "1"));
  auto a = random_tokens(7, 50);
  r.compute({{1, &a, 0, 49}});
  auto state = r.decoder().save(1);
  ASSERT_TRUE(state);
  r.decoder().remove(1, 0, -1);
  ASSERT_TRUE(r.decoder().restore(3, *state));
  EXPECT_TRUE(r.guess(3, a, 4).empty());
  EXPECT_FALSE(r.ready) << "only the next pass tells the state at the end";
  r.compute({{3, &a, 49, 50}});
  a.push_back(777);
  r.same_guesses(3, a, 4, {48});
  EXPECT_TRUE(r.ready);
}

TEST_P(Mtp, AFullMemoryOnlyCostsTheGuess) {
  Reading r(model_of(GetParam(), "1"), 256);
  const int cells = r.decoder().context_cells();
  const auto a = random_tokens(8, cells + 1);
  for (int begin = 0; begin < cells; begin += 64) r.compute({{1, &a, begin, std::min(begin + 64, cells)}});
  EXPECT_TRUE(r.guess(1, a, 4).empty()) << "no cell is left for the row that asks";
  r.decoder().remove(1, 0, -1);
  const auto b = random_tokens(9, 30);
  r.compute({{1, &b, 0, 29}});
  r.same_guesses(1, b, 4);
}

// ---- many requests ----

struct Sink final : GenerationSink {
  void on_started(int, int) override {}
  void on_delta(SequenceDelta delta) override {
    for (auto& info : delta.tokens) tokens.push_back(std::move(info));
    finished = finished || delta.finished;
  }
  void on_failed(Error error) override { ADD_FAILURE() << error.message; }
  std::size_t backlog() const override { return unread; }
  std::vector<chat::TokenInfo> tokens;
  bool finished = false;
  std::size_t unread = 0;
};

// Whether both answers are the same up to where the likelihoods of two tokens are so near that rounding decides: computed alone or with others, in one pass
// or two, the last digits differ.
bool same_answer(const Sink& answer, const Sink& alone, int& ties) {
  EXPECT_EQ(answer.tokens.size(), alone.tokens.size());
  for (std::size_t i = 0; i < std::min(answer.tokens.size(), alone.tokens.size()); ++i) {
    const auto& expected = alone.tokens[i];
    if (answer.tokens[i].chosen.token == expected.chosen.token) continue;
    ++ties;
    return answer.tokens[i].chosen.token == expected.top.at(1).token && expected.top[0].logprob - expected.top[1].logprob < 0.05F;
  }
  return true;
}

// Requests that come, share beginnings, are paused, cancelled and slow to read, in little memory: each gets what it would get alone.
TEST_P(Mtp, RandomWorkloadsGiveEveryRequestItsOwnTokens) {
  const char* many = std::getenv("HEARTH_TEST_ROUNDS");
  const int rounds = many != nullptr ? std::max(std::atoi(many) / 100, 1) : 3;
  const char* fixed = std::getenv("HEARTH_TEST_SEED");
  const auto seed = fixed != nullptr ? static_cast<std::uint64_t>(std::atoll(fixed)) : std::random_device{}();
  std::printf("HEARTH_TEST_SEED=%llu\n", static_cast<unsigned long long>(seed));
  std::mt19937_64 random(seed);
  const auto below = [&](int n) { return static_cast<int>(random() % static_cast<std::uint64_t>(n)); };
  const std::string path = model_of(GetParam(), "0.1");
  const ModelPtr model = load_model(path);
  auto threads = ThreadPool::create(1);
  ASSERT_TRUE(threads);
  FakeClock clock;
  const auto generation = [](const std::vector<Token>& prompt, int tokens, const std::shared_ptr<Sink>& sink) {
    Generation g;
    g.prompt = prompt;
    g.max_tokens = tokens;
    g.top_logprobs = 2;
    g.samplers.resize(1);
    g.samplers[0].temperature = 0;
    g.samplers[0].ignore_eos = true;
    g.sink = sink;
    return g;
  };
  auto alone = LlamaDecoder::create(model.get(), **threads, {.context = 512, .sequences = 4, .batch = 64});
  ASSERT_TRUE(alone);
  const auto expected = [&](const std::vector<Token>& prompt, int tokens) {
    auto sink = std::make_shared<Sink>();
    SchedulerCore core(**alone, {.prefix_cache_bytes = 0}, clock);
    core.add(generation(prompt, tokens, sink), std::make_shared<std::atomic<bool>>(false));
    while (!core.idle()) core.tick();
    return sink;
  };
  std::int64_t drafted = 0, accepted = 0, parks = 0, cached = 0;
  int ties = 0, compared = 0;
  for (int round = 0; round < rounds; ++round) {
    SchedulerOptions options;
    options.max_running = 1 + below(5);
    options.batch_tokens = 32 + below(32);
    options.open_ended_reserve = 8 + below(40);
    options.park_bytes = below(3) == 0 ? 0 : 1 << 24;
    options.prefix_cache_bytes = below(4) == 0 ? 0 : below(2) == 0 ? 100'000 : 1 << 24;
    options.background_patience = std::chrono::milliseconds(50 + below(1000));
    auto decoder = LlamaDecoder::create(model.get(), **threads,
                                        {.context = 256, .sequences = options.max_running + 2 + below(12), .batch = options.batch_tokens});
    ASSERT_TRUE(decoder);
    auto blocks = MtpDraft::create(model.get(), **threads, **decoder, {.least_confidence = below(2) == 0 ? 0.0F : 0.01F});
    ASSERT_TRUE(blocks);
    Speculator speculator(**blocks, {.max_draft = 1 + below(6), .adaptive = round % 3 == 2}, (*decoder)->max_sequences());
    SchedulerCore core(**decoder, options, clock, &speculator);
    struct Asked {
      std::shared_ptr<Sink> sink;
      std::shared_ptr<std::atomic<bool>> cancelled;
      std::vector<Token> prompt;
      int tokens = 0;
    };
    std::vector<Asked> all;
    for (int step = 0; step < 200; ++step) {
      if (below(7) == 0) {
        auto prompt = random_tokens(static_cast<std::uint32_t>(below(3)), 1 + below(60));
        const auto own = random_tokens(static_cast<std::uint32_t>(100 + below(10)), below(40));
        prompt.insert(prompt.end(), own.begin(), own.end());
        Asked asked{std::make_shared<Sink>(), std::make_shared<std::atomic<bool>>(false), prompt, 1 + below(60)};
        Generation g = generation(prompt, asked.tokens, asked.sink);
        g.tenant = std::string(1, static_cast<char>('a' + below(3)));
        g.priority = below(3) == 0 ? chat::Priority::background : chat::Priority::interactive;
        g.speculate = below(5) != 0;
        core.add(std::move(g), asked.cancelled);
        all.push_back(std::move(asked));
      }
      if (!all.empty() && below(20) == 0) all[static_cast<std::size_t>(below(static_cast<int>(all.size())))].cancelled->store(true);
      if (!all.empty() && below(10) == 0)
        all[static_cast<std::size_t>(below(static_cast<int>(all.size())))].sink->unread = below(2) == 0 ? 1000 : 0;
      core.tick();
      clock.advance(std::chrono::milliseconds(below(20)));
    }
    for (auto& asked : all) asked.sink->unread = 0;
    for (int i = 0; i < 20'000 && !core.idle(); ++i) {
      core.tick();
      clock.advance(std::chrono::milliseconds(1));
    }
    ASSERT_TRUE(core.idle());
    for (auto& asked : all) {
      if (*asked.cancelled) continue;
      ASSERT_TRUE(asked.sink->finished);
      ASSERT_TRUE(same_answer(*asked.sink, *expected(asked.prompt, asked.tokens), ties)) << "round " << round;
      ++compared;
    }
    const SchedulerStats stats = core.stats();
    drafted += stats.drafted_tokens, accepted += stats.accepted_tokens, parks += stats.parks, cached += stats.cached_tokens;
  }
  std::printf("%lld guesses, %lld right, %lld parks, %lld tokens from the cache; %d answers, %d ties\n", static_cast<long long>(drafted),
              static_cast<long long>(accepted), static_cast<long long>(parks), static_cast<long long>(cached), compared, ties);
  EXPECT_LT(ties, compared / 4);
  EXPECT_GT(accepted, 0);
  EXPECT_GT(drafted, accepted);
}

// ---- who may ----

Result<std::unique_ptr<Engine>> try_load(const std::string& path, Mode mode) {
  EngineOptions options = options_for(path);
  options.speculation.mode = mode;
  options.speculation.adaptive = false;
  options.speculation.least_confidence = 0;
  return Engine::load(options);
}

TEST(MtpRefusals, AModelWithoutBlocksSaysSo) {
  const auto engine = try_load(nano_path(), Mode::mtp);
  ASSERT_FALSE(engine);
  EXPECT_EQ(engine.error().code, ErrorCode::config_invalid);
  EXPECT_THAT(engine.error().message, ::testing::AllOf(::testing::HasSubstr("has none"), ::testing::HasSubstr("lookup")));
}

TEST(MtpRefusals, AutomaticTakesThemWhereTheyAre) {
  const Case c{"glm4moe", "--arch glm4moe --head-size 16 --mtp 1 --seed 21"};
  const std::string path = model_of(c, "0.1");
  auto engine = try_load(path, Mode::automatic);
  ASSERT_TRUE(engine) << engine.error().message;
  chat::Request request = raw_request("no word stands here twice", 40);
  request.ignore_eos = true;
  EXPECT_GT(run(**engine, request)->usage()->accepted_tokens, 0);
}

}  // namespace
}  // namespace hearth::engine::testing
