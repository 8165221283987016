#include "fleet/placement.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>
#include <string>

#include "fleet/session.h"

namespace hearth::fleet {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

constexpr int keys = 2'000;

std::vector<Candidate> four() { return {{"a"}, {"b"}, {"c"}, {"d"}}; }

std::map<std::uint64_t, std::string> homes(const std::vector<Candidate>& candidates) {
  std::map<std::uint64_t, std::string> out;
  std::mt19937_64 random(7);
  for (int i = 0; i < keys; ++i) {
    const auto key = random();
    out[key] = candidates[place(key, candidates).front()].name;
  }
  return out;
}

TEST(Placement, AKeyAlwaysHasTheSameHomeWhateverTheOrder) {
  auto candidates = four();
  const auto before = homes(candidates);
  std::swap(candidates[0], candidates[3]);
  EXPECT_EQ(homes(candidates), before);
}

TEST(Placement, KeysSpreadEvenly) {
  std::map<std::string, int> count;
  for (const auto& [key, home] : homes(four())) ++count[home];
  ASSERT_EQ(count.size(), 4u);
  for (const auto& [name, number] : count) {
    EXPECT_GT(number, keys / 4 * 8 / 10) << name;
    EXPECT_LT(number, keys / 4 * 12 / 10) << name;
  }
}

TEST(Placement, WhenOneLeavesOnlyItsOwnKeysMove) {
  auto candidates = four();
  const auto before = homes(candidates);
  candidates[1].available = false;
  const auto after = homes(candidates);
  std::set<std::string> heirs;
  for (const auto& [key, home] : before) {
    if (home == "b") {
      heirs.insert(after.at(key));
    } else {
      EXPECT_EQ(after.at(key), home);
    }
  }
  EXPECT_THAT(heirs, UnorderedElementsAre("a", "c", "d")) << "its keys spread over all the others";
}

TEST(Placement, AnOverloadedEndpointIsPassedOver) {
  auto candidates = four();
  const auto home = place(42, candidates);
  candidates[home[0]].in_flight = 3;
  auto spilled = place(42, candidates);
  EXPECT_THAT(spilled, ElementsAre(home[1], home[2], home[3], home[0])) << "the next of its own ranking; the full one last";
  for (auto& candidate : candidates) candidate.in_flight = 3;
  EXPECT_EQ(place(42, candidates), home) << "everybody has as much: nobody is overloaded";
}

TEST(Placement, NobodyGetsMuchMoreThanTheFairShareEvenOfOneKey) {
  auto candidates = four();
  for (int i = 0; i < 100; ++i) ++candidates[place(42, candidates).front()].in_flight;
  for (const auto& candidate : candidates) EXPECT_LE(candidate.in_flight, 32) << "1.25 times 25, rounded up";
}

TEST(Placement, UnavailableEndpointsAreLeftOut) {
  auto candidates = four();
  candidates[0].available = candidates[2].available = false;
  EXPECT_THAT(place(1, candidates), UnorderedElementsAre(1, 3));
  for (auto& candidate : candidates) candidate.available = false;
  EXPECT_THAT(place(1, candidates), IsEmpty());
  EXPECT_THAT(place(1, {}), IsEmpty());
}

chat::Message said(chat::Role role, const std::string& text) { return {.role = role, .content = {{.text = text}}}; }

chat::Request conversation() {
  chat::Request request;
  request.model = "m";
  request.messages = {said(chat::Role::system, "be brief"), said(chat::Role::user, "hello")};
  return request;
}

TEST(Session, EveryPartOfEveryMessageCounts) {
  auto full = conversation();
  full.messages[1].content.push_back({.kind = chat::ContentPart::Kind::image, .media_type = "image/png", .data = "QUJD"});
  full.messages.push_back({.role = chat::Role::assistant, .reasoning = "hm", .tool_calls = {{"id", "ls", "{}"}}});
  full.messages.push_back({.role = chat::Role::tool, .content = {{.text = "files"}}, .tool_call_id = "id"});
  const std::vector<std::function<void(chat::Request&)>> changes = {
      [](auto& r) { r.messages[0].role = chat::Role::user; },
      [](auto& r) { r.messages[0].content[0].text += " "; },
      [](auto& r) { r.messages[1].content[1].data = "QUJE"; },
      [](auto& r) { r.messages[1].content[1].media_type = "image/gif"; },
      [](auto& r) { r.messages[1].content[1].url = "http://x"; },
      [](auto& r) { std::swap(r.messages[1].content[0], r.messages[1].content[1]); },
      [](auto& r) { r.messages[2].reasoning = "hmm"; },
      [](auto& r) { r.messages[2].tool_calls[0].name = "cd"; },
      [](auto& r) { r.messages[2].tool_calls[0].arguments = "{ }"; },
      [](auto& r) { r.messages[3].tool_call_id = "other"; },
      [](auto& r) { r.messages[3].tool_failed = true; },
      [](auto& r) { r.messages[3].content[0].text = "filet"; },
      [](auto& r) { r.messages.pop_back(); },
      [](auto& r) { r.messages.push_back(said(chat::Role::user, "")); },
      [](auto& r) { r.prompts.push_back({.text = "raw"}); },
  };
  std::set<std::string> ids{session_id(full)};
  for (const auto& change : changes) {
    auto changed = full;
    change(changed);
    ids.insert(session_id(changed));
  }
  EXPECT_EQ(ids.size(), changes.size() + 1);
  EXPECT_EQ(session_id(full), session_id(full));
  EXPECT_EQ(session_id(full).size(), 64u);
}

TEST(Session, LongConversationsThatDifferAtTheEndDiffer) {
  auto one = conversation();
  one.messages[0].content[0].text = std::string(1 << 20, 'a');
  auto other = one;
  other.messages[0].content[0].text.back() = 'b';
  EXPECT_NE(session_id(one), session_id(other));
}

TEST(Session, MovingABorderMakesAnotherConversation) {
  auto one = conversation(), other = conversation();
  one.messages = {said(chat::Role::user, "ab"), said(chat::Role::user, "c")};
  other.messages = {said(chat::Role::user, "a"), said(chat::Role::user, "bc")};
  EXPECT_NE(session_id(one), session_id(other));
  one.messages = {said(chat::Role::user, "abc")};
  other.messages = {{.role = chat::Role::user, .content = {{.text = "ab"}, {.text = "c"}}}};
  EXPECT_NE(session_id(one), session_id(other));
}

TEST(Session, LaterTurnsKeepThePrefixKey) {
  auto first = conversation();
  auto later = conversation();
  later.messages.push_back(said(chat::Role::assistant, "hi"));
  later.messages.push_back(said(chat::Role::user, "list the files"));
  EXPECT_EQ(prefix_key(first), prefix_key(later));
  EXPECT_NE(session_id(first), session_id(later));
}

TEST(Session, OtherBeginningsHaveOtherPrefixKeys) {
  const auto plain = conversation();
  auto other_user = plain, other_system = plain, other_tools = plain, other_model = plain, other_adapter = plain;
  other_user.messages[1].content[0].text = "goodbye";
  other_system.messages[0].content[0].text = "be long";
  other_tools.tools.push_back({.name = "ls"});
  other_model.model = "n";
  other_adapter.adapter = "pirate";
  const std::set<std::uint64_t> all{prefix_key(plain),       prefix_key(other_user),  prefix_key(other_system),
                                    prefix_key(other_tools), prefix_key(other_model), prefix_key(other_adapter)};
  EXPECT_EQ(all.size(), 6u);
}

TEST(Session, ARawPromptThatGrowsKeepsItsPrefixKey) {
  chat::Request first, later, other;
  first.prompts.push_back({.text = std::string(1500, 'a')});
  later.prompts.push_back({.text = std::string(1500, 'a') + "and so on"});
  other.prompts.push_back({.text = "b" + std::string(1500, 'a')});
  EXPECT_EQ(prefix_key(first), prefix_key(later));
  EXPECT_NE(prefix_key(first), prefix_key(other));
}

}  // namespace
}  // namespace hearth::fleet
