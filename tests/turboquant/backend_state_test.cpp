// What moves cells: saved states, copies, removal, shifts, streams. The stored bytes travel as they are, so nothing is lost on the way.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>

#include "turboquant/backend_fixture.h"

namespace hearth::turboquant::testing {
namespace {

// By profile; "": llama.cpp's own cache, for which the same must hold.
class BackendState : public ::testing::TestWithParam<const char*> {
 protected:
  Settings settings() const { return {.model = nano_path(), .profile = GetParam(), .sequences = 4}; }
  static void expect_close(const Logits& a, const Logits& b, double within = 1e-3) { EXPECT_LT(std::abs(divergence(a, b)), within); }
};

TEST_P(BackendState, ASequenceGoesOnInAnotherContextAsIfItHadNeverPaused) {
  auto first = Session::must(settings()), second = Session::must(settings());
  const auto text = prompt(*first, 120);
  const auto logits = first->feed(text).back();
  const auto state = first->save(0);
  EXPECT_EQ(second->load(state, 0), state.size());
  const llama_token next = best(logits);
  const auto a = first->feed({next}).back(), b = second->feed({next}).back();
  EXPECT_EQ(a, b);  // to the last bit: the same cells hold the same bytes
  EXPECT_EQ(first->greedy(a, 32), second->greedy(b, 32));
  EXPECT_EQ(second->save(0), first->save(0));
}

TEST_P(BackendState, ASequenceComesBackToOtherCells) {
  auto session = Session::must(settings());
  const auto text = prompt(*session, 100);
  const auto logits = session->feed(text).back();
  const auto state = session->save(0);
  const auto expected = session->greedy(logits, 24);
  llama_memory_seq_rm(session->memory(), 0, -1, -1);
  session->feed(prompt(*session, 37), 1);  // stands where the sequence was
  ASSERT_EQ(session->load(state, 2), state.size());
  EXPECT_EQ(session->greedy(logits, 24, 2), expected);
}

TEST_P(BackendState, AWholeContextIsSavedAndLoaded) {
  auto first = Session::must(settings()), second = Session::must(settings());
  const auto logits = first->feed(prompt(*first, 90)).back();
  first->feed(prompt(*first, 40), 1);
  std::vector<std::uint8_t> state(llama_state_get_size(first->context()));
  ASSERT_EQ(llama_state_get_data(first->context(), state.data(), state.size()), state.size());
  ASSERT_EQ(llama_state_set_data(second->context(), state.data(), state.size()), state.size());
  EXPECT_EQ(first->greedy(logits, 24), second->greedy(logits, 24));
}

TEST_P(BackendState, CopiesShareAndSeparate) {
  for (const bool unified : {true, false}) {
    Settings s = settings();
    s.unified = unified;
    auto session = Session::must(s);
    const auto logits = session->feed(prompt(*session, 60)).back();
    llama_memory_seq_cp(session->memory(), 0, 1, -1, -1);
    const auto a = session->greedy(logits, 16, 0), b = session->greedy(logits, 16, 1);
    EXPECT_EQ(a, b) << unified;
    llama_memory_seq_rm(session->memory(), 0, -1, -1);
    const auto again = session->feed({a.back()}, 1);
    EXPECT_EQ(again.size(), 1U);
  }
}

TEST_P(BackendState, WhatIsRemovedIsForgotten) {
  auto session = Session::must(settings()), fresh = Session::must(settings());
  const auto text = prompt(*session, 60);
  session->feed(text);
  session->feed(session->tokens("Something else entirely."));
  llama_memory_seq_rm(session->memory(), 0, 60, -1);
  const auto expected = fresh->feed(text).back();
  const llama_token next = best(expected);
  expect_close(session->feed({next}).back(), fresh->feed({next}).back());
}

TEST_P(BackendState, SequencesInOneBatchDoNotSeeEachOther) {
  for (const bool unified : {true, false}) {
    Settings s = settings();
    s.unified = unified;
    auto both = Session::must(s), first = Session::must(s), second = Session::must(s);
    const auto a = prompt(*both, 70);
    const auto b = both->tokens("The gateway writes an answer and waits for the next request of this client.");
    both->feed(a, 0);
    both->feed(b, 1);
    const llama_token next_a = best(first->feed(a).back()), next_b = best(second->feed(b).back());
    const auto together = both->step({next_a, next_b}, {0, 1});
    ASSERT_EQ(together.size(), 2U);
    expect_close(together[0], first->feed({next_a}).back());
    expect_close(together[1], second->feed({next_b}).back());
  }
}

// Context shift: the oldest half goes, the rest moves to the front, and its keys are turned to their new positions.
TEST_P(BackendState, KeysAreTurnedWhenTheContextShifts) {
  auto session = Session::must(settings()), plain = Session::must({.model = nano_path(), .sequences = 4});
  const auto text = prompt(*session, 200);
  for (Session* s : {session.get(), plain.get()}) {
    s->feed(text);
    llama_memory_seq_rm(s->memory(), 0, 4, 100);
    llama_memory_seq_add(s->memory(), 0, 100, -1, -96);
  }
  const auto next = prompt(*session, 20);
  const auto a = session->feed(next), b = plain->feed(next);
  ASSERT_EQ(a.size(), b.size());
  // A cache whose keys were left as they are, or were turned twice, is off by more than 1.
  const std::string profile = GetParam();
  const double bound = profile.empty() ? 1e-9 : profile == "k8v4" ? 0.05 : 0.3;
  for (std::size_t i = 0; i < a.size(); ++i) EXPECT_LT(divergence(b[i], a[i]), bound) << i;
}

TEST_P(BackendState, AClearedCacheHoldsNothing) {
  auto session = Session::must(settings()), fresh = Session::must(settings());
  session->feed(prompt(*session, 50));
  llama_memory_clear(session->memory(), true);
  const auto text = session->tokens("One more time.");
  EXPECT_EQ(session->feed(text), fresh->feed(text));
}

INSTANTIATE_TEST_SUITE_P(Profiles, BackendState, ::testing::Values("", "k8v4", "k3v2", "k3v2,sinks=4"), [](const auto& p) {
  std::string name = *p.param ? p.param : "f16";
  std::erase_if(name, [](char c) { return c == ',' || c == '='; });
  return name;
});

// With more sinks than tokens every token has its wider record: the same bits as a cache that is 8 bits wide, after all that moves cells too. So a record
// that was not written, not saved, not copied, not turned or not read shows.
TEST(BackendSinks, AreReadInsteadOfTheNarrowRecordWhereverTheyGo) {
  for (const bool unified : {true, false}) {
    Settings narrow{.model = nano_path(), .profile = "k3v2,sinks=256", .sequences = 4, .unified = unified}, wide = narrow;
    wide.profile = "k8v8";
    auto a = Session::must(narrow), b = Session::must(wide);
    const auto text = prompt(*a, 60);
    EXPECT_EQ(a->feed(text, 0), b->feed(text, 0)) << unified;
    const auto logits = a->feed(a->tokens("Another one."), 1).back();
    EXPECT_EQ(logits, b->feed(b->tokens("Another one."), 1).back());
    for (Session* s : {a.get(), b.get()}) llama_memory_seq_cp(s->memory(), 0, 2, -1, -1);
    EXPECT_EQ(a->greedy(logits, 8, 2), b->greedy(logits, 8, 2));
    const auto state = a->save(1), other = b->save(1);
    for (Session* s : {a.get(), b.get()}) llama_memory_seq_rm(s->memory(), 1, -1, -1);
    a->feed(prompt(*a, 9), 3), b->feed(prompt(*b, 9), 3);  // where the sequence was
    ASSERT_EQ(a->load(state, 1), state.size());
    ASSERT_EQ(b->load(other, 1), other.size());
    EXPECT_EQ(a->feed(text, 1), b->feed(text, 1)) << unified;
    for (Session* s : {a.get(), b.get()}) {
      llama_memory_seq_rm(s->memory(), 0, 4, 30);
      llama_memory_seq_add(s->memory(), 0, 30, -1, -26);
    }
    if (unified) {  // two sequences share these cells, and llama.cpp does not shift those
      EXPECT_EQ(a->feed(text, 0).size(), b->feed(text, 0).size());
    } else {
      EXPECT_EQ(a->feed(text, 0), b->feed(text, 0));
    }
  }
}

TEST(BackendSinks, AreTheFirstTokensOfEachSequence) {
  // Two tokens of two sequences are sinks; the third is not. Logits of a token see those before it, and itself.
  auto sinks = Session::must({.model = nano_path(), .profile = "k3v2,sinks=2", .sequences = 2});
  auto wide = Session::must({.model = nano_path(), .profile = "k8v8", .sequences = 2});
  const auto text = prompt(*sinks, 6);
  for (const llama_seq_id seq : {0, 1}) {
    const auto a = sinks->feed(text, seq), b = wide->feed(text, seq);
    EXPECT_EQ(a[0], b[0]) << seq;
    EXPECT_EQ(a[1], b[1]) << seq;
    EXPECT_NE(a[2], b[2]) << seq;
  }
}

// Many short sequences: more first tokens than slots. Whoever lost its slot goes on with the narrow record; who is being read keeps it.
TEST(BackendSinks, ThatWereNotSeenForLongestGiveWay) {
  Settings settings{.model = nano_path(), .profile = "k3v2,sinks=8", .sequences = 8};  // 16 slots
  auto session = Session::must(settings), alone = Session::must(settings), narrow = Session::must(settings);
  const auto text = prompt(*session, 12);
  const auto expected = alone->feed(text).back();
  const auto logits = session->feed(text).back();
  EXPECT_EQ(logits, expected);
  llama_token next = best(logits);
  for (llama_seq_id seq = 1; seq < 8; ++seq) {
    session->feed(prompt(*session, 11), seq);
    const auto a = session->feed({next}, 0).back(), b = alone->feed({next}, 0).back();
    EXPECT_EQ(a, b) << seq;
    next = best(a);
  }
  for (llama_seq_id seq = 1; seq < 8; ++seq) narrow->feed(text, seq - 1);
  EXPECT_NE(narrow->feed({next}, 0).back(), alone->feed({next}, 0).back());
  EXPECT_LT(divergence(alone->feed({next}, 0).back(), narrow->feed({next}, 0).back()), 1);
}

TEST(BackendSinks, TakeTheMemoryThatIsSaid) {
  auto session = Session::must({.model = nano_path(), .profile = "k3v2,sinks=4", .context = 1024});
  // 4 layers, 2 heads of 64: 26 bytes a key, 18 a value, 66 in a slot; 8 bytes for the place in the order.
  EXPECT_EQ(session->usage().bytes, 1024U * 8 + 4U * 2 * (1024 * (26 + 18) + 16 * (66 + 66)));
}

TEST(BackendSinks, AreRefusedWhereASavedRowHasNoRoom) {
  const auto model = random_model("one_head_of_32", "--arch llama --width 128 --heads 4 --kv-heads 1");
  logged_errors();
  EXPECT_EQ(Session::open({.model = model, .profile = "k4v4,sinks=4", .options = {.head_size = 32}}), nullptr);
  const std::string errors = logged_errors();
  EXPECT_NE(errors.find("leave out \"sinks\""), std::string::npos) << errors;
}

TEST(BackendSaves, WithoutThePaddingOfLlamaCpp) {
  for (const char* profile : {"k3v2", "k3v2,sinks=5"}) {
    auto backend = Backend::create({.profile = profile});
    ASSERT_TRUE(backend);
    auto first = Session::must({.model = nano_path(), .profile = profile, .sequences = 4});
    auto second = Session::must({.model = nano_path(), .profile = profile, .sequences = 4});
    const auto logits = first->feed(prompt(*first, 200)).back();
    const auto padded = first->save(0);
    auto lean = (*backend)->save(
        padded.size(), [&](std::uint8_t* data, std::size_t size) { return llama_state_seq_get_data(first->context(), data, size, 0); });
    ASSERT_TRUE(lean);
    EXPECT_LT(lean->size() * 5, padded.size());
    second->feed(prompt(*second, 30), 1);  // so that cells differ
    const auto read = [&](const std::uint8_t* data, std::size_t size) {
      return llama_state_seq_set_data(second->context(), data, size, 2);
    };
    const auto done = (*backend)->restore(*lean, read);
    ASSERT_TRUE(done) << done.error().message;
    EXPECT_EQ(*done, padded.size());
    const auto back = second->save(2);
    int differing = 0;  // the number of the sequence, at the head and with every cell
    for (std::size_t i = 0; i < padded.size(); ++i) differing += back[i] != padded[i] ? 1 : 0;
    EXPECT_LE(differing, 201);
    EXPECT_EQ(second->greedy(logits, 24, 2), first->greedy(logits, 24, 0));
  }
}

TEST(BackendSaves, RefusesDamagedStatesAndThoseOfOtherProfiles) {
  auto k3 = Backend::create({.profile = "k3v2"}), k8 = Backend::create({.profile = "k8v4"});
  ASSERT_TRUE(k3 && k8);
  auto session = Session::must({.model = nano_path(), .profile = "k3v2", .sequences = 4});
  session->feed(prompt(*session, 40));
  const auto write = [&](std::uint8_t* data, std::size_t size) { return llama_state_seq_get_data(session->context(), data, size, 0); };
  auto saved = (*k3)->save(llama_state_seq_get_size(session->context(), 0), write);
  ASSERT_TRUE(saved);
  int calls = 0;
  const auto read = [&](const std::uint8_t*, std::size_t) -> std::size_t { return ++calls; };
  EXPECT_FALSE((*k8)->restore(*saved, read));
  for (const std::size_t size : {std::size_t{0}, std::size_t{7}, std::size_t{40}, saved->size() / 2, saved->size() - 1}) {
    EXPECT_FALSE((*k3)->restore(std::span(*saved).first(size), read)) << size;
  }
  auto longer = *saved;
  longer.push_back(0);
  EXPECT_FALSE((*k3)->restore(longer, read));
  auto wrong = *saved;
  wrong[16] ^= 0x80;  // the number of holes
  EXPECT_FALSE((*k3)->restore(wrong, read));
  EXPECT_EQ(calls, 0);
}

TEST(BackendSaves, RefusesFilesOfAnotherProfileAndOfAPlainCache) {
  const std::string path = std::filesystem::temp_directory_path() / ("hearth-tq-" + std::to_string(getpid()) + ".state");
  for (const char* from : {"", "k8v4"}) {
    auto writer = Session::must({.model = nano_path(), .profile = from, .sequences = 2});
    const auto text = prompt(*writer, 30);
    writer->feed(text);
    ASSERT_GT(llama_state_seq_save_file(writer->context(), path.c_str(), 0, text.data(), text.size()), 0U);
    auto reader = Session::must({.model = nano_path(), .profile = "k3v2", .sequences = 2});
    std::vector<llama_token> tokens(64);
    std::size_t count = 0;
    logged_errors();
    EXPECT_EQ(llama_state_seq_load_file(reader->context(), path.c_str(), 0, tokens.data(), tokens.size(), &count), 0U);
    const std::string errors = logged_errors();
    EXPECT_NE(errors.find("the saved state does not fit"), std::string::npos) << errors;
  }
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace hearth::turboquant::testing
