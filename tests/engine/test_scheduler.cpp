// What the scheduler promises, checked tick by tick against a decoder whose tokens prove that no sequence was ever mixed up.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <mutex>
#include <random>
#include <thread>

#include "engine/fake_decoder.h"
#include "engine/parked_files.h"
#include "engine/scheduler_core.h"

namespace hearth::engine {
namespace {

using namespace std::chrono_literals;

struct Collected final : GenerationSink {
  struct Choice {
    std::string text;
    int tokens = 0;
    std::optional<chat::FinishReason> finished;
    std::string stop_sequence;
  };
  void on_started(int prompt, int cached_tokens) override {
    started = true;
    prompt_tokens = prompt;
    cached = cached_tokens;
  }
  void on_delta(SequenceDelta delta) override {
    auto& choice = choices[delta.choice];
    EXPECT_FALSE(choice.finished) << "a delta after the end";
    choice.text += delta.text;
    choice.tokens += delta.token_count;
    for (auto& t : delta.tokens) infos.push_back(t);
    if (delta.finished) choice.finished = delta.finished;
    choice.stop_sequence += delta.stop_sequence;
  }
  void on_failed(Error e) override {
    EXPECT_FALSE(error) << "failed twice";
    error = std::move(e);
  }
  std::size_t backlog() const override { return unread; }
  bool over(int n = 1) const {
    if (error) return true;
    return static_cast<int>(choices.size()) == n &&
           std::all_of(choices.begin(), choices.end(), [](const auto& c) { return c.second.finished.has_value(); });
  }

  std::map<int, Choice> choices;
  std::vector<chat::TokenInfo> infos;
  std::optional<Error> error;
  std::size_t unread = 0;
  int prompt_tokens = 0, cached = -1;
  bool started = false;
};

std::vector<Token> tokens_from(int first, int count) {
  std::vector<Token> tokens(static_cast<std::size_t>(count));
  for (int i = 0; i < count; ++i) tokens[static_cast<std::size_t>(i)] = first + i;
  return tokens;
}

// The answer the fake model gives when nothing ever goes wrong.
std::string expected_text(std::vector<Token> tokens, int count, std::uint32_t seed, std::uint64_t adapter = 0) {
  std::string text;
  for (Token& token : tokens) token = under(adapter, token);
  for (int i = 0; i < count; ++i) {
    const Token next = next_token(tokens, seed);
    text += "<" + std::to_string(next) + ">";
    tokens.push_back(under(adapter, next));
  }
  return text;
}

ImagePtr image(Token first, int count, bool whole) {
  auto rows = std::make_shared<ImageRows>();
  rows->first = first;
  rows->count = rows->positions = count;
  rows->whole = whole;
  return rows;
}

void append(std::vector<Token>& prompt, const ImageRows& image) {
  for (int i = 0; i < image.count; ++i) prompt.push_back(image.first - i);
}

class SchedulerTest : public testing::Test {
 protected:
  struct Job {
    std::shared_ptr<Collected> sink;
    std::shared_ptr<std::atomic<bool>> cancelled;
  };
  void make(int cells, SchedulerOptions options = {}, int sequences = 64, int request_limit = 0, bool shares = true,
            bool saves_all = true) {
    core.reset();
    decoder = std::make_unique<FakeDecoder>(cells, sequences);
    decoder->request_limit = request_limit;
    decoder->shares = shares;
    decoder->saves_all = saves_all;
    core = std::make_unique<SchedulerCore>(*decoder, options, clock);
  }
  Generation generation(std::vector<Token> prompt, std::optional<int> max_tokens, std::string tenant = "a",
                        chat::Priority priority = chat::Priority::interactive) {
    Generation g;
    g.prompt = std::move(prompt);
    g.max_tokens = max_tokens;
    g.samplers.resize(1);
    g.samplers[0].seed = 7;
    g.tenant = std::move(tenant);
    g.priority = priority;
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
    EXPECT_EQ(core->stats().cells_used, decoder->used()) << "the scheduler's count of cells is wrong";
  }
  int run_until_idle(int limit = 20'000) {
    int ticks = 0;
    while (!core->idle() && ticks < limit) {
      tick();
      clock.advance(1ms);
      ++ticks;
    }
    EXPECT_TRUE(core->idle()) << "work is left after " << limit << " ticks";
    return ticks;
  }
  int rows_of(Token first_token) const {
    return static_cast<int>(std::count_if(decoder->decoded_rows.begin(), decoder->decoded_rows.end(),
                                          [&](const BatchToken& r) { return r.token == first_token; }));
  }

  FakeClock clock;
  std::unique_ptr<FakeDecoder> decoder;
  std::unique_ptr<SchedulerCore> core;
};

TEST_F(SchedulerTest, AnswersWithTheModelsTokensAndEndsAtMaxTokens) {
  make(1024);
  auto job = add(generation(tokens_from(1, 10), 5));
  run_until_idle();
  EXPECT_EQ(job.sink->choices[0].text, expected_text(tokens_from(1, 10), 5, 7));
  EXPECT_EQ(job.sink->choices[0].finished, chat::FinishReason::length);
  EXPECT_EQ(job.sink->prompt_tokens, 10);
  EXPECT_EQ(job.sink->cached, 0);
}

TEST_F(SchedulerTest, EndOfGenerationTokenEndsWithStopAndIsNotText) {
  make(1024);
  decoder->end_token = next_token(tokens_from(1, 10), 7);
  auto job = add(generation(tokens_from(1, 10), 5));
  run_until_idle();
  EXPECT_EQ(job.sink->choices[0].text, "");
  EXPECT_EQ(job.sink->choices[0].finished, chat::FinishReason::stop);
  EXPECT_EQ(job.sink->choices[0].tokens, 1);
}

TEST_F(SchedulerTest, SharedPrefixIsNotComputedAgain) {
  make(4096);
  add(generation(tokens_from(1, 500), 4));
  run_until_idle();
  auto prompt = tokens_from(1, 400);
  prompt.push_back(9000);
  auto second = add(generation(prompt, 4, "another tenant"));
  run_until_idle();
  EXPECT_EQ(second.sink->cached, 400);
  EXPECT_EQ(rows_of(200), 1) << "a token of the shared prefix was decoded twice";
  EXPECT_EQ(second.sink->choices[0].text, expected_text(prompt, 4, 7));
}

TEST_F(SchedulerTest, ARunningRequestsPromptIsSharedBeforeItEnds) {
  make(4096);
  auto first = add(generation(tokens_from(1, 300), 200));
  for (int i = 0; i < 5; ++i) tick();
  ASSERT_TRUE(first.sink->started);
  auto second = add(generation(tokens_from(1, 300), 4));
  for (int i = 0; i < 6; ++i) tick();
  EXPECT_EQ(second.sink->cached, 299);
  EXPECT_FALSE(first.sink->over());
  run_until_idle();
  EXPECT_EQ(first.sink->choices[0].text, expected_text(tokens_from(1, 300), 200, 7));
}

TEST_F(SchedulerTest, ChoicesShareOnePrefillAndDifferBySeed) {
  make(4096);
  auto g = generation(tokens_from(1, 300), 6);
  g.choices = 4;
  g.samplers.clear();
  for (std::uint32_t i = 0; i < 4; ++i) {
    SamplerSpec spec;
    spec.seed = i;
    g.samplers.push_back(spec);
  }
  auto job = add(std::move(g));
  run_until_idle();
  ASSERT_TRUE(job.sink->over(4));
  for (int c = 0; c < 4; ++c) EXPECT_EQ(job.sink->choices[c].text, expected_text(tokens_from(1, 300), 6, static_cast<std::uint32_t>(c)));
  EXPECT_EQ(rows_of(150), 1);
  EXPECT_LE(rows_of(300), 4);
}

TEST_F(SchedulerTest, WithoutPrefixSharingEveryChoiceComputesItsOwn) {
  make(4096, {}, 64, 0, false);
  auto g = generation(tokens_from(1, 100), 6);
  g.choices = 2;
  auto job = add(std::move(g));
  run_until_idle();
  ASSERT_TRUE(job.sink->over(2));
  EXPECT_EQ(job.sink->choices[1].text, expected_text(tokens_from(1, 100), 6, 7));
  EXPECT_EQ(decoder->used(), 0);
}

TEST_F(SchedulerTest, LongPrefillsNeverStarveARunningStream) {
  make(20'000);
  auto stream = add(generation(tokens_from(1, 5), 1000));
  for (int i = 0; i < 3; ++i) tick();
  for (int k = 0; k < 4; ++k) add(generation(tokens_from(10'000 * (k + 1), 3000), 10));
  const int before = stream.sink->choices[0].tokens;
  for (int i = 0; i < 20; ++i) tick();
  EXPECT_EQ(stream.sink->choices[0].tokens - before, 20) << "every tick gives a running stream its token";
}

TEST_F(SchedulerTest, AShortPromptStartsAtOnceBesideLongPrefills) {
  SchedulerOptions options;
  options.batch_tokens = 128;
  make(20'000, options);
  for (int k = 0; k < 4; ++k) add(generation(tokens_from(10'000 * (k + 1), 3000), 10));
  tick();
  auto chat = add(generation(tokens_from(1, 40), 5));
  tick();
  EXPECT_TRUE(chat.sink->started) << "40 tokens fit half of one tick's budget";
  int ticks = 0;
  while (!core->idle() && ticks++ < 1000) tick();
  EXPECT_LT(ticks, 200) << "the long prompts advance in every tick as well";
}

TEST_F(SchedulerTest, TenantsTakeTurnsWhateverOneOfThemQueues) {
  SchedulerOptions options;
  options.max_running = 1;
  make(4096, options);
  std::vector<Job> flood;
  for (int i = 0; i < 50; ++i) flood.push_back(add(generation(tokens_from(100 * i + 1, 20), 20, "flood")));
  std::vector<Job> modest;
  for (int i = 0; i < 5; ++i) modest.push_back(add(generation(tokens_from(50'000 + 100 * i, 20), 20, "modest")));
  const auto finished = [](const std::vector<Job>& jobs) {
    return std::count_if(jobs.begin(), jobs.end(), [](const Job& j) { return j.sink->over(); });
  };
  while (finished(modest) < 5) tick();
  // Deficit round-robin serves both at the same rate in tokens, up to one quantum.
  EXPECT_LE(finished(flood), 5 + options.quantum / 40 + 1);
  run_until_idle();
  EXPECT_EQ(finished(flood), 50);
}

TEST_F(SchedulerTest, BackgroundWorkIsParkedForInteractiveAndResumedWithoutRecomputation) {
  make(600);
  auto background = add(generation(tokens_from(1, 300), 200, "a", chat::Priority::background));
  for (int i = 0; i < 50; ++i) tick();
  ASSERT_TRUE(background.sink->started);
  auto interactive = add(generation(tokens_from(5000, 300), 100));
  tick();
  EXPECT_EQ(core->stats().parked, 1);
  while (!interactive.sink->over()) tick();
  EXPECT_EQ(interactive.sink->choices[0].text, expected_text(tokens_from(5000, 300), 100, 7));
  run_until_idle();
  EXPECT_EQ(background.sink->choices[0].text, expected_text(tokens_from(1, 300), 200, 7));
  EXPECT_EQ(core->stats().resumes, 1);
  EXPECT_EQ(rows_of(150), 1) << "parked work was computed again";
}

TEST_F(SchedulerTest, ParkingPastTheHostLimitComputesAgainAndStillGivesTheSameTokens) {
  SchedulerOptions options;
  options.park_bytes = 0;
  make(600, options);
  auto background = add(generation(tokens_from(1, 300), 200, "a", chat::Priority::background));
  for (int i = 0; i < 50; ++i) tick();
  auto interactive = add(generation(tokens_from(5000, 300), 250));
  run_until_idle();
  EXPECT_EQ(background.sink->choices[0].text, expected_text(tokens_from(1, 300), 200, 7));
  EXPECT_EQ(interactive.sink->choices[0].text, expected_text(tokens_from(5000, 300), 250, 7));
  EXPECT_EQ(core->stats().resumes, 0);
}

TEST_F(SchedulerTest, PatientBackgroundWorkIsNotStarvedByEndlessInteractiveWork) {
  SchedulerOptions options;
  options.max_running = 2;
  options.background_patience = 500ms;
  make(1000, options);
  auto background = add(generation(tokens_from(1, 50), 50, "b", chat::Priority::background));
  std::vector<Job> interactive;
  int next = 0;
  for (int i = 0; i < 3000 && !background.sink->over(); ++i) {
    while (core->stats().waiting < 4) interactive.push_back(add(generation(tokens_from(1000 + 10 * next++, 5), 20)));
    tick();
    clock.advance(1ms);
  }
  EXPECT_TRUE(background.sink->over());
}

TEST_F(SchedulerTest, OpenEndedRequestsGrowAndGiveWayToEachOther) {
  SchedulerOptions options;
  options.open_ended_reserve = 64;
  make(500, options, 64, 400);
  std::vector<Job> jobs;
  for (int i = 0; i < 5; ++i) jobs.push_back(add(generation(tokens_from(1000 * (i + 1), 30), std::nullopt)));
  run_until_idle();
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(jobs[static_cast<std::size_t>(i)].sink->choices[0].text, expected_text(tokens_from(1000 * (i + 1), 30), 370, 7)) << i;
    EXPECT_EQ(jobs[static_cast<std::size_t>(i)].sink->choices[0].finished, chat::FinishReason::length);
  }
  EXPECT_GT(core->stats().parks, 0);
}

TEST_F(SchedulerTest, CancellationTakesEffectWithinOneTick) {
  make(1024);
  auto job = add(generation(tokens_from(1, 10), 500));
  auto other = add(generation(tokens_from(500, 10), 20));
  for (int i = 0; i < 5; ++i) tick();
  const int tokens = job.sink->choices[0].tokens;
  job.cancelled->store(true);
  tick();
  EXPECT_EQ(job.sink->choices[0].tokens, tokens);
  EXPECT_EQ(core->stats().running, 1);
  EXPECT_EQ(core->stats().cancelled, 1);
  run_until_idle();
  EXPECT_TRUE(other.sink->over());
}

TEST_F(SchedulerTest, DeadlineEndsWaitingAndRunningRequests) {
  SchedulerOptions options;
  options.max_running = 1;
  make(1024, options);
  auto g = generation(tokens_from(1, 10), 500);
  g.deadline = clock.now() + 100ms;
  auto running = add(g);
  auto waiting = add(g);
  tick();
  clock.advance(101ms);
  tick();
  ASSERT_TRUE(running.sink->error);
  EXPECT_EQ(running.sink->error->code, ErrorCode::deadline_exceeded);
  ASSERT_TRUE(waiting.sink->error);
  EXPECT_TRUE(core->idle());
}

TEST_F(SchedulerTest, ASlowReaderPausesOnlyItself) {
  make(1024);
  auto slow = add(generation(tokens_from(1, 10), 50));
  auto quick = add(generation(tokens_from(500, 10), 50));
  for (int i = 0; i < 5; ++i) tick();
  slow.sink->unread = 1000;
  const int before = slow.sink->choices[0].tokens;
  for (int i = 0; i < 10; ++i) tick();
  EXPECT_EQ(slow.sink->choices[0].tokens, before);
  EXPECT_GE(quick.sink->choices[0].tokens, 14);
  slow.sink->unread = 0;
  run_until_idle();
  EXPECT_EQ(slow.sink->choices[0].text, expected_text(tokens_from(1, 10), 50, 7));
}

TEST_F(SchedulerTest, ADecodeFailureHitsOnlyTheRequestAtFault) {
  make(1024);
  decoder->poison = 666;
  auto good = add(generation(tokens_from(1, 10), 20));
  auto prompt = tokens_from(2000, 10);
  prompt.back() = 666;
  auto bad = add(generation(prompt, 20));
  run_until_idle();
  ASSERT_TRUE(bad.sink->error);
  EXPECT_EQ(bad.sink->error->code, ErrorCode::internal);
  EXPECT_EQ(good.sink->choices[0].text, expected_text(tokens_from(1, 10), 20, 7));
}

TEST_F(SchedulerTest, ContextOverflowNamesBothNumbers) {
  make(1024);
  const auto long_prompt = core->check(generation(tokens_from(1, 2000), 5));
  ASSERT_FALSE(long_prompt.ok());
  EXPECT_EQ(long_prompt.error().code, ErrorCode::context_length_exceeded);
  EXPECT_THAT(long_prompt.error().message, testing::AllOf(testing::HasSubstr("1024"), testing::HasSubstr("2000")));
  const auto long_answer = core->check(generation(tokens_from(1, 1000), 500));
  ASSERT_FALSE(long_answer.ok());
  EXPECT_THAT(long_answer.error().message,
              testing::AllOf(testing::HasSubstr("1024"), testing::HasSubstr("1000"), testing::HasSubstr("500"), testing::HasSubstr("24")));
  EXPECT_FALSE(core->check(generation({}, 5)).ok());
}

TEST_F(SchedulerTest, PromptScoresCoverEveryTokenAfterTheFirst) {
  SchedulerOptions options;
  options.batch_tokens = 16;
  make(1024, options);
  add(generation(tokens_from(1, 50), 1));
  run_until_idle();
  auto g = generation(tokens_from(1, 50), 0);
  g.echo_logprobs = true;
  g.top_logprobs = 0;
  auto job = add(std::move(g));
  run_until_idle();
  ASSERT_EQ(job.sink->infos.size(), 49u) << "a cached prefix has no logits, so scoring does not use it";
  for (std::size_t i = 0; i < 49; ++i) {
    EXPECT_EQ(job.sink->infos[i].chosen.token, static_cast<Token>(i) + 2);
    EXPECT_FLOAT_EQ(job.sink->infos[i].chosen.logprob, -static_cast<float>(i + 1));
  }
}

TEST_F(SchedulerTest, IdlePrefixesLeaveTheCellsWhileOthersRunAndComeBackByACopy) {
  make(8192);
  add(generation(tokens_from(1, 2000), 4));
  run_until_idle();
  EXPECT_GT(core->stats().cells_cached, 1900) << "nobody runs, so nobody is slowed down";
  auto other = add(generation(tokens_from(10'000, 50), 200));
  for (int i = 0; i < 20; ++i) tick();
  EXPECT_EQ(core->stats().cells_cached, 0);
  EXPECT_GT(core->stats().prefix_parked_bytes, 1700 * 8);
  auto again = add(generation(tokens_from(1, 2000), 4));
  run_until_idle();
  EXPECT_EQ(again.sink->cached, 1999);
  EXPECT_EQ(rows_of(1000), 1) << "a parked prefix was computed again";
  EXPECT_EQ(again.sink->choices[0].text, expected_text(tokens_from(1, 2000), 4, 7));
  EXPECT_EQ(other.sink->choices[0].text, expected_text(tokens_from(10'000, 50), 200, 7));
}

// Parked KV on disk, and ways to spoil what is there.
class SchedulerDiskTest : public SchedulerTest {
 protected:
  void SetUp() override {
    std::string pattern = (std::filesystem::temp_directory_path() / "hearth-scheduler-XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    auto made = ParkedFiles::open(folder_ / "parked", 1 << 20);
    ASSERT_TRUE(made);
    files_ = std::move(*made);
  }
  void TearDown() override {
    core.reset();
    files_.reset();
    std::filesystem::remove_all(folder_);
  }
  // Background work, and the interactive work that it had to make room for.
  auto pause_background() {
    auto background = add(generation(tokens_from(1, 300), 200, "a", chat::Priority::background));
    for (int i = 0; i < 50; ++i) tick();
    auto interactive = add(generation(tokens_from(5000, 300), 250));
    tick();
    return std::pair(std::move(background), std::move(interactive));
  }
  void spoil_all() {
    files_->flush();
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
      std::error_code gone;
      const auto target = std::filesystem::read_symlink(entry.path(), gone).string();
      if (!gone && target.starts_with(folder_.string() + "/")) ASSERT_EQ(::ftruncate(std::stoi(entry.path().filename()), 10), 0);
    }
  }
  std::filesystem::path folder_;
  std::unique_ptr<ParkedFiles> files_;
};

TEST_F(SchedulerDiskTest, PausedWorkPastTheHostLimitGoesOnFromDisk) {
  for (const bool damaged : {false, true}) {
    SchedulerOptions options;
    options.park_bytes = 0;
    options.files = files_.get();
    make(600, options);
    auto [background, interactive] = pause_background();
    EXPECT_EQ(core->stats().parked, 1);
    EXPECT_GT(core->stats().disk_bytes, 300 * 8);
    EXPECT_EQ(core->stats().parked_bytes, 0);
    if (damaged) spoil_all();
    run_until_idle();
    EXPECT_EQ(background.sink->choices[0].text, expected_text(tokens_from(1, 300), 200, 7));
    EXPECT_EQ(interactive.sink->choices[0].text, expected_text(tokens_from(5000, 300), 250, 7));
    EXPECT_EQ(core->stats().resumes, damaged ? 0 : 1);
    if (!damaged) EXPECT_EQ(rows_of(150), 1) << "what was on disk was computed again";
    EXPECT_EQ(core->stats().disk_lost, damaged ? 1 : 0);
    EXPECT_EQ(core->stats().disk_bytes, 0);
  }
}

TEST_F(SchedulerDiskTest, PausedWorkThatIsCancelledLeavesTheDisk) {
  SchedulerOptions options;
  options.park_bytes = 0;
  options.files = files_.get();
  make(600, options);
  auto background = pause_background().first;
  EXPECT_GT(core->stats().disk_bytes, 0);
  background.cancelled->store(true);
  tick();
  files_->flush();
  EXPECT_EQ(core->stats().disk_bytes, 0);
  run_until_idle();
}

TEST_F(SchedulerDiskTest, PrefixesThatMemoryDoesNotHoldComeBackFromDisk) {
  for (const bool damaged : {false, true}) {
    SchedulerOptions options;
    options.prefix_cache_bytes = 450 * 8;  // one of the prompts
    options.files = files_.get();
    make(4096, options);
    for (int i = 0; i < 10; ++i) {
      add(generation(tokens_from(1000 * (i + 1), 400), 3));
      run_until_idle();
    }
    EXPECT_LE(core->stats().cells_cached * 8 + core->stats().prefix_parked_bytes, 450 * 8);
    EXPECT_GT(core->stats().disk_bytes, 8 * 400 * 8);
    if (damaged) spoil_all();
    for (int i = 0; i < 9; ++i) {
      SCOPED_TRACE(i);
      auto again = add(generation(tokens_from(1000 * (i + 1), 400), 20));
      run_until_idle();
      EXPECT_EQ(again.sink->cached, damaged && i < 8 ? 0 : 399);
      EXPECT_EQ(again.sink->choices[0].text, expected_text(tokens_from(1000 * (i + 1), 400), 20, 7));
      if (damaged && i == 7) break;  // from here on they were put after the damage
    }
    EXPECT_EQ(core->stats().disk_lost > 0, damaged);
    core.reset();
    files_->flush();
    EXPECT_EQ(files_->bytes(), 0);
  }
}

// A conversation whose turns lie on disk one behind the other; and one whose beginning is damaged, so that the turns behind it are of no use.
TEST_F(SchedulerDiskTest, APathOfPrefixesComesBackAsFarAsItIsWhole) {
  SchedulerOptions options;
  options.prefix_cache_bytes = 200 * 8;
  options.files = files_.get();
  make(4096, options);
  for (const int length : {150, 300, 450}) {
    add(generation(tokens_from(1, length), 1));
    run_until_idle();
    add(generation(tokens_from(90'000 + length * 10, 190), 1));
    run_until_idle();
  }
  auto whole = add(generation(tokens_from(1, 460), 10));
  run_until_idle();
  EXPECT_GE(whole.sink->cached, 300);
  EXPECT_EQ(whole.sink->choices[0].text, expected_text(tokens_from(1, 460), 10, 7));
  for (int i = 0; i < 5; ++i) {
    add(generation(tokens_from(50'000 + 1000 * i, 190), 1));
    run_until_idle();
  }
  spoil_all();
  auto again = add(generation(tokens_from(1, 460), 10));
  run_until_idle();
  EXPECT_EQ(again.sink->cached, 0);
  EXPECT_EQ(again.sink->choices[0].text, expected_text(tokens_from(1, 460), 10, 7));
}

// Little memory, a small disk, many prompts with common beginnings, and now and then damage: every answer is the model's.
TEST_F(SchedulerDiskTest, RandomWorkloadsWithDamage) {
  for (unsigned seed = 0; seed < 20; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    const auto below = [&](int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); };
    core.reset();
    auto made = ParkedFiles::open(folder_ / "parked", 8 * (100 + below(3000)));
    ASSERT_TRUE(made);
    files_ = std::move(*made);
    SchedulerOptions options;
    options.prefix_cache_bytes = 8 * (50 + below(600));
    options.park_bytes = below(2) * 2000;
    options.files = files_.get();
    make(700 + below(600), options);
    std::vector<std::pair<Job, std::string>> jobs;
    for (int round = 0; round < 60; ++round) {
      std::vector<Token> prompt = tokens_from(1 + 1000 * below(3), 20 + below(200));
      for (int i = below(80); i > 0; --i) prompt.push_back(10'000 + below(3));
      const int tokens = 1 + below(80);
      std::string expected = expected_text(prompt, tokens, 7);
      jobs.emplace_back(
          add(generation(std::move(prompt), tokens, "a", below(2) == 0 ? chat::Priority::background : chat::Priority::interactive)),
          std::move(expected));
      for (int i = below(30); i > 0; --i) tick();
      if (below(12) == 0) run_until_idle();
      if (below(8) == 0) spoil_all();
    }
    run_until_idle();
    for (auto& [job, expected] : jobs) EXPECT_EQ(job.sink->choices[0].text, expected);
  }
}

TEST_F(SchedulerTest, PrefixesThatCannotBeSavedWholeStayInTheirCells) {
  make(8192, {}, 64, 0, true, false);
  add(generation(tokens_from(1, 2000), 4));
  run_until_idle();
  add(generation(tokens_from(10'000, 50), 200));
  run_until_idle();
  EXPECT_EQ(decoder->saves, 0);
  auto again = add(generation(tokens_from(1, 1500), 4));
  run_until_idle();
  EXPECT_EQ(again.sink->cached, 1499);
}

TEST_F(SchedulerTest, CacheBudgetIsKept) {
  SchedulerOptions options;
  options.prefix_cache_bytes = 100 * 8;
  make(4096, options);
  for (int i = 0; i < 10; ++i) add(generation(tokens_from(1000 * (i + 1), 90), 3));
  run_until_idle();
  EXPECT_LE(core->stats().cells_cached * 8 + core->stats().prefix_parked_bytes, 100 * 8);
  EXPECT_GT(core->stats().cells_cached * 8 + core->stats().prefix_parked_bytes, 0);
}

AdapterPtr adapter(std::uint64_t id) { return std::make_shared<const Adapter>(id); }

TEST_F(SchedulerTest, SequencesOfSeveralAdaptersNeverMix) {
  make(4096);
  std::vector<Job> jobs;
  const AdapterPtr adapters[] = {nullptr, adapter(1), adapter(2)};
  for (int i = 0; i < 9; ++i) {
    auto g = generation(tokens_from(1, 40 + i), 60);
    g.adapter = adapters[i % 3];
    jobs.push_back(add(std::move(g)));
  }
  run_until_idle();
  for (int i = 0; i < 9; ++i)
    EXPECT_EQ(jobs[static_cast<std::size_t>(i)].sink->choices[0].text,
              expected_text(tokens_from(1, 40 + i), 60, 7, static_cast<std::uint64_t>(i % 3)))
        << i;
}

TEST_F(SchedulerTest, EachAdapterKeepsItsPrefixesAcrossSwitches) {
  make(8192);
  const AdapterPtr adapters[] = {nullptr, adapter(1), adapter(2)};
  for (int round = 0; round < 2; ++round) {
    for (const auto& which : adapters) {
      auto g = generation(tokens_from(1, 300), 4);
      g.adapter = which;
      auto job = add(std::move(g));
      run_until_idle();
      EXPECT_EQ(job.sink->cached, round == 0 ? 0 : 299) << "adapter " << id_of(which);
      EXPECT_EQ(job.sink->choices[0].text, expected_text(tokens_from(1, 300), 4, 7, id_of(which)));
    }
  }
}

TEST_F(SchedulerTest, AnAdapterThatIsGoneTakesItsPrefixesWithIt) {
  make(8192);
  AdapterPtr gone = adapter(1);
  auto g = generation(tokens_from(1, 1000), 4);
  g.adapter = gone;
  add(g);
  g.adapter = adapter(2);
  const AdapterPtr stays = g.adapter;
  add(g);
  run_until_idle();
  g = {};
  const auto held = [&] { return core->stats().cells_cached + static_cast<int>(core->stats().prefix_parked_bytes / 8); };
  EXPECT_GT(held(), 2000);
  EXPECT_EQ(gone.use_count(), 1) << "the scheduler holds an adapter that nobody uses";
  gone.reset();
  tick();
  EXPECT_GT(held(), 1000);
  EXPECT_LT(held(), 1010);
}

TEST_F(SchedulerTest, AdaptersTakeTurnsAndNoneWaitsLongerThanTheOthersSlices) {
  SchedulerOptions options;
  options.adapter_slice = 20ms;
  make(8192, options);
  constexpr std::size_t adapters = 4;
  std::vector<Job> jobs;
  for (std::size_t i = 0; i < adapters; ++i) {
    auto g = generation(tokens_from(1000 * (static_cast<int>(i) + 1), 30), 200);
    if (i > 0) g.adapter = adapter(i);
    jobs.push_back(add(std::move(g)));
  }
  std::vector<int> seen(adapters, 0), waited(adapters, 0), longest(adapters, 0);
  int ticks = 0;
  for (; !core->idle() && ticks < 5000; ++ticks) {
    tick();
    clock.advance(1ms);
    for (std::size_t i = 0; i < adapters; ++i) {
      if (jobs[i].sink->over()) continue;
      const int tokens = jobs[i].sink->choices[0].tokens;
      waited[i] = tokens > seen[i] ? 0 : waited[i] + 1;
      longest[i] = std::max(longest[i], waited[i]);
      seen[i] = tokens;
    }
  }
  for (std::size_t i = 0; i < adapters; ++i) {
    EXPECT_LE(longest[i], 3 * 21) << i;
    EXPECT_EQ(jobs[i].sink->choices[0].text, expected_text(tokens_from(1000 * (static_cast<int>(i) + 1), 30), 200, 7, i)) << i;
  }
  // 800 tokens in slices of 20 ticks; the first adapter's slice may be cut by the others' arrival.
  EXPECT_LE(core->stats().adapter_switches, 800 / 20 + 1);
  EXPECT_LE(ticks, 800 + 10) << "a turn was spent on nothing";
}

TEST_F(SchedulerTest, ANewAdapterIsNotStarvedByAStreamOfOthers) {
  SchedulerOptions options;
  options.adapter_slice = 10ms;
  options.max_running = 8;
  make(8192, options);
  std::vector<Job> others;
  const AdapterPtr pair[] = {nullptr, adapter(1)};
  int next = 0;
  const auto top_up = [&] {
    while (core->stats().waiting + core->stats().running < 6) {
      auto g = generation(tokens_from(1000 + 10 * next, 5), 15);
      g.adapter = pair[next++ % 2];
      others.push_back(add(std::move(g)));
    }
  };
  for (int i = 0; i < 50; ++i) {
    top_up();
    tick();
    clock.advance(1ms);
  }
  auto g = generation(tokens_from(1, 20), 40);
  g.adapter = adapter(2);
  auto job = add(std::move(g));
  int ticks = 0;
  for (; !job.sink->over() && ticks < 1000; ++ticks) {
    top_up();
    tick();
    clock.advance(1ms);
  }
  // 41 ticks of its own in slices of 10, between two others' slices each.
  EXPECT_LE(ticks, 5 * 3 * 11);
  EXPECT_EQ(job.sink->choices[0].text, expected_text(tokens_from(1, 20), 40, 7, 2));
}

TEST_F(SchedulerTest, ASlowReaderGivesItsAdaptersTurnAway) {
  make(4096);
  auto g = generation(tokens_from(1, 10), 50);
  g.adapter = adapter(1);
  auto slow = add(std::move(g));
  auto quick = add(generation(tokens_from(500, 10), 50));
  for (int i = 0; i < 3; ++i) tick();
  slow.sink->unread = 1000;
  for (int i = 0; i < 60; ++i) tick();
  EXPECT_TRUE(quick.sink->over());
  EXPECT_FALSE(slow.sink->over());
  slow.sink->unread = 0;
  run_until_idle();
  EXPECT_EQ(slow.sink->choices[0].text, expected_text(tokens_from(1, 10), 50, 7, 1));
}

TEST_F(SchedulerTest, APromptComputedAheadIsThereForWhateverContinuesIt) {
  make(4096);
  auto ahead = add(generation(tokens_from(1, 300), 0, "a", chat::Priority::background));
  run_until_idle();
  EXPECT_EQ(ahead.sink->choices[0].finished, chat::FinishReason::length);
  EXPECT_EQ(ahead.sink->choices[0].text, "");
  EXPECT_EQ(ahead.sink->choices[0].tokens, 0);
  auto next = add(generation(tokens_from(1, 320), 5));
  run_until_idle();
  EXPECT_EQ(next.sink->cached, 300);
  EXPECT_EQ(next.sink->choices[0].text, expected_text(tokens_from(1, 320), 5, 7));
}

TEST_F(SchedulerTest, TheRequestsOwnStopStringIsNamedTheTemplatesIsNot) {
  make(1024);
  const std::string third = "<" + std::to_string([] {
                              auto tokens = tokens_from(1, 10);
                              for (int i = 0; i < 2; ++i) tokens.push_back(next_token(tokens, 7));
                              return next_token(tokens, 7);
                            }()) +
                            ">";
  auto g = generation(tokens_from(1, 10), 20);
  g.stop = {"never", third};
  auto own = add(g);
  g.stop = {"never"};
  g.template_stop = {third};
  auto foreign = add(g);
  run_until_idle();
  EXPECT_EQ(own.sink->choices[0].stop_sequence, third);
  EXPECT_EQ(foreign.sink->choices[0].stop_sequence, "");
  for (const auto& job : {own, foreign}) {
    EXPECT_EQ(job.sink->choices[0].finished, chat::FinishReason::stop);
    EXPECT_EQ(job.sink->choices[0].text, expected_text(tokens_from(1, 10), 2, 7));
  }
}

class SchedulerImages : public SchedulerTest {
 protected:
  // Text, image, text.
  static Generation with(Generation g, ImagePtr seen, int after) {
    append(g.prompt, *seen);
    for (int i = 0; i < after; ++i) g.prompt.push_back(5000 + i);
    g.images.push_back(std::move(seen));
    return g;
  }
};

TEST_F(SchedulerImages, AnswersKnowTheImageAndEqualOnesAreComputedOnce) {
  make(1000);
  const auto first = image(-2, 40, false), second = image(-50, 40, false);
  auto a = with(generation(tokens_from(1, 20), 5), first, 3);
  const auto prompt_a = a.prompt;
  auto job_a = add(std::move(a));
  run_until_idle();
  EXPECT_EQ(job_a.sink->choices[0].text, expected_text(prompt_a, 5, 7));
  EXPECT_EQ(job_a.sink->prompt_tokens, 63);

  auto again = add(with(generation(tokens_from(1, 20), 5), first, 8));
  run_until_idle();
  EXPECT_EQ(again.sink->cached, 63) << "text and image";
  auto b = with(generation(tokens_from(1, 20), 5), second, 3);
  const auto prompt_b = b.prompt;
  auto job_b = add(std::move(b));
  run_until_idle();
  EXPECT_EQ(job_b.sink->cached, 20) << "the text before it alone: the other image is another one";
  EXPECT_EQ(job_b.sink->choices[0].text, expected_text(prompt_b, 5, 7));
}

TEST_F(SchedulerImages, OneThatMustBeSeenAtOnceIsComputedInOnePassBesideStreams) {
  SchedulerOptions options;
  options.batch_tokens = 64;
  options.max_running = 8;
  make(1000, options);
  std::vector<Job> streams;
  for (int i = 0; i < 4; ++i) streams.push_back(add(generation(tokens_from(100 * i, 10), 60)));
  for (int i = 0; i < 10; ++i) tick();
  decoder->on_decode = [this](int rows) {
    clock.advance(std::chrono::milliseconds(20 * rows));
  };  // so slow that prompts get few rows a tick
  for (int i = 0; i < 4; ++i) tick();
  auto job = add(with(generation(tokens_from(900, 70), 4), image(-2, 56, true), 2));  // the decoder refuses half of it
  auto later = add(generation(tokens_from(2000, 30), 4));
  run_until_idle();
  EXPECT_TRUE(job.sink->over());
  EXPECT_FALSE(job.sink->error);
  EXPECT_TRUE(later.sink->over());
  for (auto& s : streams) EXPECT_EQ(s.sink->choices[0].tokens, 60);
}

TEST_F(SchedulerImages, ARequestThatEndsInMidImageLeavesTheTextBeforeIt) {
  SchedulerOptions options;
  options.batch_tokens = 16;
  make(1000, options);
  const auto seen = image(-2, 50, false);
  auto stopped = add(with(generation(tokens_from(1, 16), 5), seen, 3));
  tick();
  tick();  // text, then some of the image
  stopped.cancelled->store(true);
  run_until_idle();
  EXPECT_EQ(core->stats().cells_used, 16);
  auto again = with(generation(tokens_from(1, 16), 5), seen, 3);
  const auto prompt = again.prompt;
  auto job = add(std::move(again));
  run_until_idle();
  EXPECT_EQ(job.sink->cached, 16);
  EXPECT_EQ(job.sink->choices[0].text, expected_text(prompt, 5, 7));
}

TEST_F(SchedulerImages, RefusesWhatCanNeverRun) {
  SchedulerOptions options;
  options.batch_tokens = 64;
  options.max_running = 8;
  make(1000, options);
  const auto too_large = core->check(with(generation(tokens_from(1, 4), 4), image(-2, 57, true), 1));
  ASSERT_FALSE(too_large.ok());
  EXPECT_EQ(too_large.error().code, ErrorCode::unsupported);
  EXPECT_THAT(too_large.error().message,
              testing::AllOf(testing::HasSubstr("room for 56"), testing::HasSubstr("has 57"), testing::HasSubstr("smaller")));
  EXPECT_TRUE(core->check(with(generation(tokens_from(1, 4), 4), image(-2, 57, false), 1)).ok());
  const auto open = core->check(with(generation(tokens_from(1, 4), 4), image(-2, 5, false), 0));
  ASSERT_FALSE(open.ok());
  EXPECT_EQ(open.error().code, ErrorCode::invalid_request);
  EXPECT_THAT(open.error().message, testing::HasSubstr("ends with an image"));
}

// The long one: everything at once, many times over, in little memory.
TEST_F(SchedulerTest, RandomWorkloadsGiveEveryRequestItsOwnTokens) {
  const char* given = std::getenv("HEARTH_TEST_SEED");
  const std::uint64_t seed = given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device{}();
  std::printf("HEARTH_TEST_SEED=%llu\n", static_cast<unsigned long long>(seed));
  std::mt19937_64 random(seed);
  const auto below = [&](int n) { return static_cast<int>(random() % static_cast<std::uint64_t>(n)); };
  const char* many = std::getenv("HEARTH_TEST_ROUNDS");
  const int rounds = many != nullptr ? std::atoi(many) : 40;
  for (int round = 0; round < rounds; ++round) {
    SchedulerOptions options;
    options.max_running = 1 + below(6);
    options.batch_tokens = 8 + below(60);
    options.open_ended_reserve = 8 + below(40);
    options.park_bytes = below(3) == 0 ? 0 : 1 << 20;
    options.prefix_cache_bytes = below(4) == 0 ? 0 : below(3) == 0 ? below(4000) : 1 << 20;
    options.background_patience = std::chrono::milliseconds(50 + below(1000));
    options.adapter_slice = std::chrono::milliseconds(below(60));
    std::vector<AdapterPtr> adapters(static_cast<std::size_t>(1 + below(4)));  // the first: none
    std::uint64_t last_id = 0;
    for (std::size_t i = 1; i < adapters.size(); ++i) adapters[i] = adapter(++last_id);
    const int cells = 150 + below(250);
    make(cells, options, options.max_running + 1 + below(12), 140, below(5) != 0, below(4) != 0);
    std::vector<ImagePtr> images;
    for (Token first = first_placeholder; images.size() < 5;) {
      images.push_back(image(first, 1 + below(30), false));
      first -= images.back()->count + 1;
      const int most = options.batch_tokens - options.max_running;
      images.push_back(image(first, 1 + below(std::min(30, most)), true));
      first -= images.back()->count + 1;
    }
    struct Expected {
      Job job;
      std::vector<Token> prompt;
      int choices, tokens;
      std::uint64_t adapter;
      bool cancelled = false;
    };
    std::vector<Expected> all;
    for (int step = 0; step < 300; ++step) {
      if (below(6) == 0) {
        auto prompt = tokens_from(1000 * below(3), 1 + below(50));
        std::vector<ImagePtr> seen;
        while (below(3) == 0 && seen.size() < 2) {
          seen.push_back(images[static_cast<std::size_t>(below(static_cast<int>(images.size())))]);
          append(prompt, *seen.back());
        }
        const auto own = tokens_from(100'000 + 100 * below(10), below(20) + (seen.empty() ? 0 : 1));
        prompt.insert(prompt.end(), own.begin(), own.end());
        const bool open = below(3) == 0;
        const int room = 140 - static_cast<int>(prompt.size());
        const int wanted = 1 + below(std::min(60, room));
        auto g = generation(prompt, open ? std::nullopt : std::optional(wanted), std::string(1, static_cast<char>('a' + below(3))),
                            below(3) == 0 ? chat::Priority::background : chat::Priority::interactive);
        g.images = std::move(seen);
        g.choices = below(4) == 0 ? 1 + below(3) : 1;
        const int choices = g.choices;
        auto& which = adapters[static_cast<std::size_t>(below(static_cast<int>(adapters.size())))];
        if (which != nullptr && below(10) == 0) which = adapter(++last_id);  // loaded anew: the old one goes with its last request
        g.adapter = which;
        all.push_back({add(std::move(g)), prompt, choices, open ? room : wanted, id_of(which)});
      }
      if (!all.empty() && below(20) == 0) {
        auto& victim = all[static_cast<std::size_t>(below(static_cast<int>(all.size())))];
        victim.cancelled = true;
        victim.job.cancelled->store(true);
      }
      if (!all.empty() && below(10) == 0)
        all[static_cast<std::size_t>(below(static_cast<int>(all.size())))].job.sink->unread = below(2) == 0 ? 1000 : 0;
      tick();
      clock.advance(std::chrono::milliseconds(below(20)));
    }
    for (auto& e : all) e.job.sink->unread = 0;
    run_until_idle(100'000);
    for (auto& e : all) {
      if (e.cancelled) continue;
      ASSERT_FALSE(e.job.sink->error);
      ASSERT_TRUE(e.job.sink->over(e.choices)) << "round " << round;
      for (auto& [index, choice] : e.job.sink->choices) {
        ASSERT_EQ(choice.text, expected_text(e.prompt, e.tokens, 7, e.adapter)) << "round " << round;
      }
    }
    EXPECT_EQ(core->stats().cells_used, core->stats().cells_cached) << "idle: only the cache holds cells";
  }
}

// The same through the thread.
struct WaitingSink final : GenerationSink {
  void on_started(int, int) override {}
  void on_delta(SequenceDelta delta) override {
    const std::lock_guard lock(mutex);
    text += delta.text;
    if (delta.finished) end();
  }
  void on_failed(Error e) override {
    const std::lock_guard lock(mutex);
    error = std::move(e);
    end();
  }
  std::size_t backlog() const override { return 0; }
  void end() {
    over = true;
    ended.notify_all();
  }
  void wait() {
    std::unique_lock lock(mutex);
    ended.wait(lock, [this] { return over; });
  }
  std::mutex mutex;
  std::condition_variable ended;
  std::string text;
  std::optional<Error> error;
  bool over = false;
};

TEST(SchedulerThread, ServesManyThreadsRefusesPastItsQueueAndDrains) {
  FakeDecoder decoder(4096, 64);
  SchedulerOptions options;
  options.queue_limit = 8;
  Scheduler scheduler(decoder, options);
  std::atomic<int> served = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 25; ++i) {
        Generation g;
        g.prompt = tokens_from(1000 * t + i, 20);
        g.max_tokens = 10;
        g.samplers.resize(1);
        auto sink = std::make_shared<WaitingSink>();
        g.sink = sink;
        auto handle = scheduler.submit(std::move(g));
        if (!handle) {
          EXPECT_EQ(handle.error().code, ErrorCode::overloaded);
          EXPECT_GE(handle.error().retry_after, 1000ms);
          continue;
        }
        sink->wait();
        EXPECT_EQ(sink->text, expected_text(tokens_from(1000 * t + i, 20), 10, 0));
        ++served;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_GT(served, 0);
  std::mutex mutex;
  std::condition_variable ran;
  bool done = false;
  ASSERT_TRUE(scheduler.run_between_ticks([&] {
    const std::lock_guard lock(mutex);
    done = true;
    ran.notify_all();
  }));
  {
    std::unique_lock lock(mutex);
    ran.wait(lock, [&] { return done; });
  }
  scheduler.drain();
  EXPECT_TRUE(scheduler.wait_idle(10s));
  Generation late;
  late.prompt = {1};
  late.samplers.resize(1);
  late.sink = std::make_shared<WaitingSink>();
  const auto refused = scheduler.submit(std::move(late));
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::unavailable);
}

TEST(SchedulerThread, TheQueueLimitIsExact) {
  FakeDecoder decoder(4096, 64);
  SchedulerOptions options;
  options.queue_limit = 3;
  Scheduler scheduler(decoder, options);
  std::mutex gate;
  std::unique_lock closed(gate);
  std::atomic<bool> inside = false;
  ASSERT_TRUE(scheduler.run_between_ticks([&] {
    inside = true;
    const std::lock_guard wait_here(gate);
  }));
  while (!inside) std::this_thread::yield();
  std::vector<GenerationHandle> handles;
  std::vector<std::shared_ptr<WaitingSink>> sinks;
  for (int i = 0; i < 4; ++i) {
    Generation g;
    g.prompt = {1, 2, 3};
    g.max_tokens = 2;
    g.samplers.resize(1);
    sinks.push_back(std::make_shared<WaitingSink>());
    g.sink = sinks.back();
    auto handle = scheduler.submit(std::move(g));
    EXPECT_EQ(handle.ok(), i < 3) << i;
    if (handle) handles.push_back(std::move(handle).value());
  }
  closed.unlock();
  for (int i = 0; i < 3; ++i) sinks[static_cast<std::size_t>(i)]->wait();
  EXPECT_EQ(scheduler.stats().refused, 1);
}

TEST(SchedulerThread, StoppingTellsWhoeverStillWaits) {
  FakeDecoder decoder(4096, 64);
  auto sink = std::make_shared<WaitingSink>();
  GenerationHandle handle;
  {
    Scheduler scheduler(decoder, {});
    Generation g;
    g.prompt = {1, 2, 3};
    g.samplers.resize(1);
    g.sink = sink;
    handle = std::move(scheduler.submit(std::move(g))).value();
  }
  sink->wait();
  EXPECT_TRUE(!sink->error || sink->error->code == ErrorCode::unavailable);
}

}  // namespace
}  // namespace hearth::engine
