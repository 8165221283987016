// Speculation changes how fast an answer comes, never what it says. Checked tick by tick against the decoder whose tokens prove that no sequence was
// mixed up, with guesses right and wrong at random; and the bookkeeping that decides how much to guess.
#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <map>
#include <random>

#include "engine/fake_decoder.h"
#include "engine/ngram_draft.h"
#include "engine/scheduler_core.h"
#include "engine/speculator.h"

namespace hearth::engine {
namespace {

using namespace std::chrono_literals;

std::uint64_t seed_of_run() {
  const char* given = std::getenv("HEARTH_TEST_SEED");
  const std::uint64_t seed = given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device{}();
  std::printf("HEARTH_TEST_SEED=%llu\n", static_cast<unsigned long long>(seed));
  return seed;
}

// ---- the index ----

// What NgramIndex promises, by trying everything.
NgramIndex::Found slow_continuation(std::span<const Token> tokens, std::size_t shortest, std::size_t limit) {
  std::size_t best = 0, best_length = shortest - 1;
  for (std::size_t end = tokens.size() - 1; end >= shortest; --end) {
    std::size_t length = 0;
    while (length < end && tokens[end - 1 - length] == tokens[tokens.size() - 1 - length]) ++length;
    if (length > best_length) best = end, best_length = length;
  }
  NgramIndex::Found out;
  if (best == 0) return out;
  out.match = static_cast<int>(best_length);
  for (std::size_t at = best; out.tokens.size() < limit; ++at)
    out.tokens.push_back(at < tokens.size() ? tokens[at] : out.tokens[at - tokens.size()]);
  return out;
}

TEST(NgramIndex, FindsWhatFollowedTheLongestRepetition) {
  NgramIndex index(3);
  const std::vector<Token> tokens{9, 1, 2, 3, 50, 51, 52, 8, 1, 2, 3, 60, 61, 62, 9, 1, 2, 3};
  const auto found = index.continuation(tokens, 4);
  EXPECT_EQ(found.tokens, (std::vector<Token>{50, 51, 52, 8})) << "9 1 2 3 is longer than the later 1 2 3";
  EXPECT_EQ(found.match, 4);
}

TEST(NgramIndex, OfEquallyLongOnesTheLatestCounts) {
  NgramIndex index(3);
  EXPECT_EQ(index.continuation(std::vector<Token>{4, 1, 2, 3, 50, 5, 1, 2, 3, 60, 6, 1, 2, 3}, 1).tokens, std::vector<Token>{60});
}

TEST(NgramIndex, ARepetitionGoesOnRoundAndRound) {
  NgramIndex index(3);
  EXPECT_EQ(index.continuation(std::vector<Token>{1, 2, 1, 2, 1, 2}, 5).tokens, (std::vector<Token>{1, 2, 1, 2, 1}));
}

TEST(NgramIndex, NothingRepeatedNothingGuessed) {
  NgramIndex index(3);
  EXPECT_TRUE(index.continuation(std::vector<Token>{1, 2, 3, 4, 1, 2}, 5).tokens.empty());
  EXPECT_TRUE(index.continuation(std::vector<Token>{1}, 5).tokens.empty());
}

TEST(NgramDraft, NobodyAnswersWithAnImage) {
  NgramDraft source(1, 3);
  const std::vector<Token> tokens{1, 2, 3, 4, first_placeholder, first_placeholder - 1, 5, 1, 2, 3};
  std::vector<DraftSource::Want> wants{{.seq = 0, .tokens = tokens, .limit = 8}};
  source.draft(wants);
  EXPECT_EQ(wants[0].draft, std::vector<Token>{4});
}

TEST(NgramIndex, GrowingStepByStepFindsWhatASearchFinds) {
  std::mt19937_64 random(seed_of_run());
  for (int round = 0; round < 20; ++round) {
    const std::uint64_t alphabet = 2 + random() % 12;
    NgramIndex index(3);
    std::vector<Token> tokens;
    // Few enough occurrences of any three tokens that none is passed over unseen.
    while (tokens.size() < (alphabet < 6 ? 30U : 300U)) {
      for (std::uint64_t i = 0; i <= random() % 4; ++i) tokens.push_back(static_cast<Token>(random() % alphabet));
      if (tokens.size() < 2) continue;
      const auto found = index.continuation(tokens, 8), expected = slow_continuation(tokens, 3, 8);
      ASSERT_EQ(found.tokens, expected.tokens) << "round " << round << " at " << tokens.size();
      ASSERT_EQ(found.match, expected.match);
    }
  }
}

// ---- how much to guess ----

TEST(PassCost, BetweenAndBeyondWhatWasMeasured) {
  PassCost cost;
  EXPECT_EQ(cost.of(3), 0);
  cost.measured(1, 100);
  EXPECT_GT(cost.of(2), 100) << "a row not yet seen is not taken to be free";
  EXPECT_LT(cost.of(2), 110);
  cost.measured(5, 180);
  EXPECT_DOUBLE_EQ(cost.of(3), 140);
  EXPECT_DOUBLE_EQ(cost.of(9), 260);
}

// A source that always has something to say.
struct Talker final : DraftSource {
  void draft(std::span<Want> wants) override {
    ++asked;
    if (asked <= reading) {
      for (auto& want : wants) want.ready = false;
      return;
    }
    for (auto& want : wants) {
      want.draft.assign(static_cast<std::size_t>(mute ? 0 : want.limit), 1);
      want.evidence = evidence;
    }
  }
  void drop(SeqId) override {}
  std::optional<double> milliseconds_per_token() const override { return cost; }
  std::optional<double> cost;
  bool mute = false;
  int asked = 0, reading = 0, evidence = 2;
};

class SpeculatorTest : public testing::Test {
 protected:
  // One pass over sequences 0…streams-1, of which the first `guessing` may guess; `right` of each draft turn out right. Returns the drafts' lengths.
  std::vector<int> pass(int streams, int guessing, int right, double ms_first_row, double ms_per_row) {
    std::vector<DraftSource::Want> wants;
    for (int i = 0; i < guessing; ++i) wants.push_back({.seq = i, .tokens = tokens, .limit = 32});
    speculator.draft(wants, streams, streams, 100);
    std::vector<int> lengths;
    int rows = streams;
    for (const auto& want : wants) {
      lengths.push_back(static_cast<int>(want.draft.size()));
      rows += lengths.back();
    }
    speculator.measured(rows, ms_first_row + ms_per_row * (rows - 1));
    for (const auto& want : wants) {
      const int drafted = static_cast<int>(want.draft.size());
      speculator.verified(want.seq, drafted, std::min(right, drafted), false);
    }
    return lengths;
  }
  std::vector<Token> tokens{1, 2, 3};
  Talker talker;
  Speculator speculator{talker, {}, 8};
};

TEST_F(SpeculatorTest, CheapRowsAndRightGuessesMakeDraftsLong) {
  for (int i = 0; i < 30; ++i) pass(1, 1, 32, 100, 1);
  EXPECT_EQ(pass(1, 1, 32, 100, 1)[0], 32);
}

TEST_F(SpeculatorTest, WhereEveryRowCostsAsMuchAsThePassNothingIsGuessed) {
  int drafted = 0;
  for (int i = 0; i < 1000; ++i) drafted += pass(1, 1, 32, 100, 100)[0];
  EXPECT_LE(drafted, 10) << "even perfect guesses gain nothing";
}

TEST_F(SpeculatorTest, WrongGuessesSwitchItOffAndProbesBecomeRare) {
  int early = 0, late = 0;
  for (int i = 0; i < 4000; ++i) (i < 2000 ? early : late) += pass(1, 1, 0, 100, 20)[0];
  EXPECT_LE(early, 60);
  EXPECT_LE(late, 8);
  EXPECT_GT(late, 0) << "it is tried again, if rarely";
}

TEST_F(SpeculatorTest, WhenGuessesTurnGoodItComesBack) {
  for (int i = 0; i < 200; ++i) pass(1, 1, 0, 100, 5);
  int drafted = 0;
  for (int i = 0; i < 600; ++i) drafted += pass(1, 1, 32, 100, 5)[0];
  EXPECT_GT(drafted, 600);
}

TEST_F(SpeculatorTest, NobodyWaitsForSomebodyElsesGuesses) {
  // Two streams, one guesses well; each further row makes the pass 8 % longer.
  for (int i = 0; i < 200; ++i) pass(2, 1, 32, 100, 8);
  for (int i = 0; i < 50; ++i) EXPECT_LE(pass(2, 1, 32, 100, 8)[0], 2);
  // Alone the same stream guesses far ahead.
  for (int i = 0; i < 50; ++i) pass(1, 1, 32, 100, 8);
  EXPECT_GT(pass(1, 1, 32, 100, 8)[0], 8);
}

TEST_F(SpeculatorTest, RowsGoToWhoeverIsMoreOftenRight) {
  for (int i = 0; i < 300; ++i) {
    std::vector<DraftSource::Want> wants{{.seq = 0, .tokens = tokens, .limit = 32}, {.seq = 1, .tokens = tokens, .limit = 32}};
    speculator.draft(wants, 2, 2, 8);
    const int a = static_cast<int>(wants[0].draft.size()), b = static_cast<int>(wants[1].draft.size());
    EXPECT_LE(a + b, 8) << "no more than is free";
    speculator.measured(2 + a + b, 100 + a + b);
    speculator.verified(0, a, a, false);
    speculator.verified(1, b, 0, false);
    if (i > 100 && a + b > 0) EXPECT_GT(a, b);
  }
}

TEST_F(SpeculatorTest, ADearDraftModelIsNotAsked) {
  talker.cost = 60;
  int drafted = 0;
  for (int i = 0; i < 500; ++i) drafted += pass(1, 1, 1, 100, 10)[0];
  EXPECT_LE(drafted, 40) << "one right guess for 70 ms where a pass of 100 ms gives one as well";
}

TEST_F(SpeculatorTest, ManyRowsAreTriedWhereFewDoNotPay) {
  talker.evidence = 4;
  // One row 20 ms, two 80, each further one 12: five rows lose, thirty win.
  int drafted = 0;
  for (int i = 0; i < 100; ++i) {
    std::vector<DraftSource::Want> wants{{.seq = 0, .tokens = tokens, .limit = 32}};
    speculator.draft(wants, 1, 1, 100);
    const int n = static_cast<int>(wants[0].draft.size());
    drafted += n;
    speculator.measured(1 + n, n == 0 ? 20 : 68 + 12 * n);
    speculator.verified(0, n, n, false);
  }
  EXPECT_GT(drafted, 2000);
}

TEST_F(SpeculatorTest, ADraftModelThatIsNeverSureIsSeldomAsked) {
  talker.cost = 20;
  talker.mute = true;
  for (int i = 0; i < 1000; ++i) pass(1, 1, 1, 100, 1);
  EXPECT_LE(talker.asked, 60);
  EXPECT_GT(talker.asked, 1);
}

TEST_F(SpeculatorTest, ADraftModelThatStillReadsThePromptIsNotTakenToBeWrong) {
  talker.cost = 2;
  talker.reading = 60;
  int drafted = 0;
  for (int i = 0; i < 200; ++i) drafted += pass(1, 1, 32, 100, 1)[0];
  EXPECT_GT(drafted, 1000);
}

// ---- in the scheduler ----

// Knows what the fake model will say and tells it, except now and then.
struct Oracle final : DraftSource {
  void draft(std::span<Want> wants) override {
    for (auto& want : wants) {
      std::vector<Token> history(want.tokens.begin(), want.tokens.end());
      while (static_cast<int>(want.draft.size()) < want.limit) {
        Token next = next_token(history, 7);
        if (static_cast<int>(random() % 100) >= percent_right) next = wrong >= 0 ? wrong : static_cast<Token>(random() % 997);
        want.draft.push_back(next);
        history.push_back(next);
      }
    }
  }
  void drop(SeqId) override { ++drops; }
  std::optional<double> milliseconds_per_token() const override { return std::nullopt; }
  int percent_right = 100;
  Token wrong = -1;  // what a wrong guess says; -1 = anything
  int drops = 0;
  std::mt19937_64 random{1};
};

struct Collected final : GenerationSink {
  struct Choice {
    std::string text;
    int tokens = 0;
    std::optional<chat::FinishReason> finished;
    std::string stop_sequence;
  };
  void on_started(int, int cached_tokens) override { cached = cached_tokens; }
  void on_delta(SequenceDelta delta) override {
    auto& choice = choices[delta.choice];
    EXPECT_FALSE(choice.finished) << "a delta after the end";
    choice.text += delta.text;
    choice.tokens += delta.token_count;
    drafted += delta.drafted;
    accepted += delta.accepted;
    EXPECT_LE(delta.accepted, delta.drafted);
    EXPECT_LE(delta.token_count, delta.accepted + 1);
    for (auto& t : delta.tokens) infos.push_back(t);
    if (delta.finished) choice.finished = delta.finished, choice.stop_sequence = delta.stop_sequence;
  }
  void on_failed(Error e) override { error = std::move(e); }
  std::size_t backlog() const override { return unread; }

  std::map<int, Choice> choices;
  std::vector<chat::TokenInfo> infos;
  std::optional<Error> error;
  std::size_t unread = 0;
  int cached = -1, drafted = 0, accepted = 0;
};

std::vector<Token> tokens_from(int first, int count) {
  std::vector<Token> tokens(static_cast<std::size_t>(count));
  for (int i = 0; i < count; ++i) tokens[static_cast<std::size_t>(i)] = first + i;
  return tokens;
}

std::string expected_text(std::vector<Token> tokens, int count) {
  std::string text;
  for (int i = 0; i < count; ++i) {
    tokens.push_back(next_token(tokens, 7));
    text += "<" + std::to_string(tokens.back()) + ">";
  }
  return text;
}

class SpeculationTest : public testing::Test {
 protected:
  struct Job {
    std::shared_ptr<Collected> sink;
    std::shared_ptr<std::atomic<bool>> cancelled;
  };
  void make(int cells, SchedulerOptions options = {}, Speculation speculation = {.adaptive = false}, int sequences = 64,
            int request_limit = 0, bool saves_all = true) {
    core.reset();
    decoder = std::make_unique<FakeDecoder>(cells, sequences);
    decoder->request_limit = request_limit;
    decoder->saves_all = saves_all;
    speculator = std::make_unique<Speculator>(oracle, speculation, sequences);
    core = std::make_unique<SchedulerCore>(*decoder, options, clock, speculator.get());
  }
  Generation generation(std::vector<Token> prompt, std::optional<int> max_tokens) {
    Generation g;
    g.prompt = std::move(prompt);
    g.max_tokens = max_tokens;
    g.samplers.resize(1);
    g.samplers[0].seed = 7;
    g.tenant = "a";
    return g;
  }
  Job add(Generation g) {
    Job job{std::make_shared<Collected>(), std::make_shared<std::atomic<bool>>(false)};
    g.sink = job.sink;
    EXPECT_TRUE(core->check(g).ok());
    core->add(std::move(g), job.cancelled);
    return job;
  }
  void tick() {
    core->tick();
    ASSERT_EQ(core->stats().cells_used, decoder->used()) << "the scheduler's count of cells is wrong";
  }
  int run_until_idle(int limit = 20'000) {
    int ticks = 0;
    while (!core->idle() && ticks < limit && !HasFatalFailure()) {
      tick();
      clock.advance(1ms);
      ++ticks;
    }
    EXPECT_TRUE(core->idle()) << "work is left after " << limit << " ticks";
    return ticks;
  }

  FakeClock clock;
  Oracle oracle;
  std::unique_ptr<FakeDecoder> decoder;
  std::unique_ptr<Speculator> speculator;
  std::unique_ptr<SchedulerCore> core;
};

TEST_F(SpeculationTest, RightGuessesSaveTicksAndAreCounted) {
  make(1024, {}, {.max_draft = 9, .adaptive = false});
  auto job = add(generation(tokens_from(1, 10), 101));
  const int ticks = run_until_idle();
  EXPECT_EQ(ticks, 11) << "one token with the prompt, ten with each tick after it";
  EXPECT_EQ(job.sink->choices[0].text, expected_text(tokens_from(1, 10), 101));
  EXPECT_EQ(job.sink->choices[0].tokens, 101);
  EXPECT_EQ(job.sink->drafted, 90);
  EXPECT_EQ(job.sink->accepted, 90);
  EXPECT_EQ(core->stats().drafted_tokens, 90);
  EXPECT_EQ(core->stats().accepted_tokens, 90);
  EXPECT_EQ(core->stats().generated_tokens, 101);
}

TEST_F(SpeculationTest, WrongGuessesChangeNothing) {
  make(1024);
  oracle.percent_right = 0;
  auto job = add(generation(tokens_from(1, 10), 60));
  run_until_idle();
  EXPECT_EQ(job.sink->choices[0].text, expected_text(tokens_from(1, 10), 60));
  EXPECT_GT(job.sink->drafted, 500);
  EXPECT_LT(job.sink->accepted, 20);
  EXPECT_EQ(decoder->used(), core->stats().cells_cached);
}

TEST_F(SpeculationTest, MaxTokensAndTheContextAreNeverPassed) {
  make(200, {}, {.adaptive = false}, 8, 64);
  auto exact = add(generation(tokens_from(1, 10), 17));
  run_until_idle();
  EXPECT_EQ(exact.sink->choices[0].tokens, 17);
  auto open = add(generation(tokens_from(500, 20), std::nullopt));
  run_until_idle();
  EXPECT_EQ(open.sink->choices[0].text, expected_text(tokens_from(500, 20), 44));
  EXPECT_EQ(open.sink->choices[0].finished, chat::FinishReason::length);
  auto one = add(generation(tokens_from(900, 20), 1));
  run_until_idle();
  EXPECT_EQ(one.sink->drafted, 0) << "nothing follows the only token";
}

TEST_F(SpeculationTest, AStopStringInsideADraftEndsTheAnswerThere) {
  make(1024);
  auto tokens = tokens_from(1, 10);
  for (int i = 0; i < 21; ++i) tokens.push_back(next_token(tokens, 7));
  const std::string stop = "<" + std::to_string(tokens.back()) + ">";
  auto g = generation(tokens_from(1, 10), 60);
  g.stop = {stop};
  auto job = add(std::move(g));
  run_until_idle();
  const std::string whole = expected_text(tokens_from(1, 10), 60);
  EXPECT_EQ(job.sink->choices[0].text, whole.substr(0, whole.find(stop)));
  EXPECT_EQ(job.sink->choices[0].finished, chat::FinishReason::stop);
  EXPECT_EQ(job.sink->choices[0].stop_sequence, stop);
  // What the cache keeps of it is exact.
  auto more = tokens_from(1, 10);
  for (int i = 0; i < 15; ++i) more.push_back(next_token(more, 7));
  auto next = add(generation(more, 20));
  run_until_idle();
  EXPECT_EQ(next.sink->cached, 24);
  EXPECT_EQ(next.sink->choices[0].text, expected_text(more, 20));
}

TEST_F(SpeculationTest, TheEndTokenInsideADraftEndsTheAnswerThere) {
  make(1024);
  auto tokens = tokens_from(1, 10);
  for (int i = 0; i < 13; ++i) tokens.push_back(next_token(tokens, 7));
  decoder->end_token = tokens.back();
  auto job = add(generation(tokens_from(1, 10), 60));
  run_until_idle();
  EXPECT_EQ(job.sink->choices[0].text, expected_text(tokens_from(1, 10), 12));
  EXPECT_EQ(job.sink->choices[0].tokens, 13);
  EXPECT_EQ(job.sink->choices[0].finished, chat::FinishReason::stop);
}

TEST_F(SpeculationTest, LogProbabilitiesComeFromEachTokensOwnRow) {
  make(1024);
  oracle.percent_right = 80;
  auto g = generation(tokens_from(1, 10), 40);
  g.top_logprobs = 0;
  auto job = add(std::move(g));
  run_until_idle();
  ASSERT_EQ(job.sink->infos.size(), 40U);
  for (std::size_t i = 0; i < 40; ++i) EXPECT_FLOAT_EQ(job.sink->infos[i].chosen.logprob, -static_cast<float>(10 + i));
}

TEST_F(SpeculationTest, AGuessTheDecoderRefusesFailsNobody) {
  make(1024);
  decoder->poison = 5000;
  oracle.wrong = 5000;
  oracle.percent_right = 50;
  auto one = add(generation(tokens_from(1, 10), 40));
  auto other = add(generation(tokens_from(200, 10), 40));
  run_until_idle();
  EXPECT_FALSE(one.sink->error || other.sink->error);
  EXPECT_EQ(one.sink->choices[0].text, expected_text(tokens_from(1, 10), 40));
  EXPECT_EQ(other.sink->choices[0].text, expected_text(tokens_from(200, 10), 40));
}

TEST_F(SpeculationTest, GuessesTakeOnlyTheRowsPromptsLeave) {
  SchedulerOptions options;
  options.batch_tokens = 64;
  make(20'000, options);
  auto stream = add(generation(tokens_from(1, 5), 2000));
  for (int i = 0; i < 3; ++i) tick();
  auto prompt = add(generation(tokens_from(10'000, 630), 1));
  const int before = stream.sink->choices[0].tokens;
  for (int i = 0; i < 10; ++i) tick();
  EXPECT_EQ(stream.sink->choices[0].tokens - before, 10) << "while prompts fill the batch a stream gets its one token";
  EXPECT_TRUE(prompt.sink->choices[0].finished) << "630 tokens in ten ticks beside one stream";
  run_until_idle();
  EXPECT_EQ(stream.sink->choices[0].text, expected_text(tokens_from(1, 5), 2000));
}

TEST_F(SpeculationTest, WhoAsksForItIsNotGuessedFor) {
  make(1024);
  auto g = generation(tokens_from(1, 10), 40);
  g.speculate = false;
  auto exact = add(std::move(g)), other = add(generation(tokens_from(200, 10), 40));
  run_until_idle();
  EXPECT_EQ(exact.sink->drafted, 0);
  EXPECT_GT(other.sink->drafted, 0);
}

TEST_F(SpeculationTest, ModelsThatCannotTakeBackAreNotGuessedFor) {
  decoder = std::make_unique<FakeDecoder>(1024, 8);
  decoder->shares = false;
  speculator = std::make_unique<Speculator>(oracle, Speculation{.adaptive = false}, 8);
  core = std::make_unique<SchedulerCore>(*decoder, SchedulerOptions{}, clock, speculator.get());
  auto job = add(generation(tokens_from(1, 10), 40));
  run_until_idle();
  EXPECT_EQ(job.sink->choices[0].text, expected_text(tokens_from(1, 10), 40));
  EXPECT_EQ(job.sink->drafted, 0);
}

// Sixty seconds of a model whose pass costs `first` ms and `each` more per further row: tokens with and without speculation.
TEST_F(SpeculationTest, ItSpeedsUpWhereRowsAreCheapAndHardlyCostsWhereTheyAreNot) {
  const auto tokens_in = [&](bool speculate, double first, double each, int percent) {
    oracle.percent_right = percent;
    make(8192, {}, {});
    core = std::make_unique<SchedulerCore>(*decoder, SchedulerOptions{}, clock, speculate ? speculator.get() : nullptr);
    decoder->on_decode = [&](int rows) { clock.advance(std::chrono::microseconds(static_cast<int>(1000 * (first + each * (rows - 1))))); };
    auto job = add(generation(tokens_from(1, 10), 8000));
    const TimePoint end = clock.now() + 60s;
    while (clock.now() < end && !core->idle()) tick();
    return job.sink->choices[0].tokens;
  };
  const double cheap = static_cast<double>(tokens_in(true, 100, 2, 95)) / tokens_in(false, 100, 2, 95);
  EXPECT_GE(cheap, 4);
  const double dear = static_cast<double>(tokens_in(true, 100, 90, 95)) / tokens_in(false, 100, 90, 95);
  EXPECT_GE(dear, 0.97);
  const double hopeless = static_cast<double>(tokens_in(true, 100, 10, 2)) / tokens_in(false, 100, 10, 2);
  EXPECT_GE(hopeless, 0.97);
  std::printf("cheap rows %.2f×, dear rows %.2f×, wrong guesses %.2f×\n", cheap, dear, hopeless);
}

// The long one: everything at once, many times over, in little memory.
TEST_F(SpeculationTest, RandomWorkloadsGiveEveryRequestItsOwnTokens) {
  std::mt19937_64 random(seed_of_run());
  const auto below = [&](int n) { return static_cast<int>(random() % static_cast<std::uint64_t>(n)); };
  const char* many = std::getenv("HEARTH_TEST_ROUNDS");
  const int rounds = many != nullptr ? std::atoi(many) : 40;
  std::int64_t drafted = 0, accepted = 0, parks = 0, resumes = 0;
  for (int round = 0; round < rounds; ++round) {
    SchedulerOptions options;
    options.max_running = 1 + below(6);
    options.batch_tokens = 8 + below(60);
    options.open_ended_reserve = 8 + below(40);
    options.park_bytes = below(3) == 0 ? 0 : 1 << 20;
    options.prefix_cache_bytes = below(4) == 0 ? 0 : below(3) == 0 ? below(4000) : 1 << 20;
    options.background_patience = std::chrono::milliseconds(50 + below(1000));
    Speculation speculation;
    speculation.max_draft = 1 + below(20);
    speculation.adaptive = below(2) == 0;
    oracle.percent_right = below(101);
    make(150 + below(250), options, speculation, options.max_running + 1 + below(12), 140, below(4) != 0);
    if (below(4) == 0) oracle.wrong = decoder->poison = 5000;
    else oracle.wrong = -1;
    struct Expected {
      Job job;
      std::vector<Token> prompt;
      int choices, tokens;
      bool cancelled = false;
    };
    std::vector<Expected> all;
    for (int step = 0; step < 300; ++step) {
      if (below(6) == 0) {
        auto prompt = tokens_from(1000 * below(3), 1 + below(50));
        const auto own = tokens_from(100'000 + 100 * below(10), below(30));
        prompt.insert(prompt.end(), own.begin(), own.end());
        const bool open = below(3) == 0;
        const int room = 140 - static_cast<int>(prompt.size());
        const int wanted = 1 + below(std::min(60, room));
        auto g = generation(prompt, open ? std::nullopt : std::optional(wanted));
        g.tenant = std::string(1, static_cast<char>('a' + below(3)));
        g.priority = below(3) == 0 ? chat::Priority::background : chat::Priority::interactive;
        g.choices = below(4) == 0 ? 1 + below(3) : 1;
        const int choices = g.choices;
        all.push_back({add(std::move(g)), prompt, choices, open ? room : wanted});
      }
      if (!all.empty() && below(20) == 0) {
        auto& victim = all[static_cast<std::size_t>(below(static_cast<int>(all.size())))];
        victim.cancelled = true;
        victim.job.cancelled->store(true);
      }
      if (!all.empty() && below(10) == 0)
        all[static_cast<std::size_t>(below(static_cast<int>(all.size())))].job.sink->unread = below(2) == 0 ? 1000 : 0;
      tick();
      if (HasFatalFailure()) return;
      clock.advance(std::chrono::milliseconds(below(20)));
    }
    for (auto& e : all) e.job.sink->unread = 0;
    run_until_idle(100'000);
    for (auto& e : all) {
      if (e.cancelled) continue;
      ASSERT_FALSE(e.job.sink->error) << "round " << round << ": " << e.job.sink->error->message;
      ASSERT_EQ(static_cast<int>(e.job.sink->choices.size()), e.choices) << "round " << round;
      for (auto& [index, choice] : e.job.sink->choices) {
        ASSERT_TRUE(choice.finished) << "round " << round;
        ASSERT_EQ(choice.text, expected_text(e.prompt, e.tokens)) << "round " << round;
      }
    }
    EXPECT_EQ(core->stats().cells_used, core->stats().cells_cached) << "idle: only the cache holds cells";
    drafted += core->stats().drafted_tokens;
    accepted += core->stats().accepted_tokens;
    parks += core->stats().parks;
    resumes += core->stats().resumes;
  }
  std::printf("%lld guesses, %lld right, %lld parks, %lld resumes\n", static_cast<long long>(drafted), static_cast<long long>(accepted),
              static_cast<long long>(parks), static_cast<long long>(resumes));
  EXPECT_GT(accepted, rounds);
  EXPECT_GT(drafted - accepted, rounds);
  EXPECT_GT(parks, 0);
}

}  // namespace
}  // namespace hearth::engine
