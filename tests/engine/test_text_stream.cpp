#include <gtest/gtest.h>

#include "engine/fair_queue.h"
#include "engine/text_stream.h"

namespace hearth::engine {
namespace {

// Feeds `text` in pieces of `size` bytes.
std::string run(const std::string& text, std::size_t size, std::vector<std::string> stop, bool& stopped) {
  TextStream stream(std::move(stop));
  std::string out;
  stopped = false;
  for (std::size_t at = 0; at < text.size() && !stopped; at += size) {
    auto released = stream.push(text.substr(at, size));
    out += released.text;
    stopped = released.stopped.has_value();
  }
  if (!stopped) out += stream.finish().text;
  return out;
}

TEST(TextStream, AnySplitGivesTheSameText) {
  const std::string text = "Grüße, 世界 🌍! STOP and more";
  for (std::size_t size = 1; size <= text.size(); ++size) {
    bool stopped = false;
    EXPECT_EQ(run(text, size, {}, stopped), text);
    EXPECT_EQ(run(text, size, {"STOP", "never"}, stopped), "Grüße, 世界 🌍! ") << size;
    EXPECT_TRUE(stopped);
    EXPECT_EQ(run(text, size, {"界 🌍", "STOP"}, stopped), "Grüße, 世") << size;
  }
}

TEST(TextStream, OnlyWholeCharactersLeave) {
  TextStream stream({});
  EXPECT_EQ(stream.push("a\xF0\x9F").text, "a");
  EXPECT_EQ(stream.push("\x8C").text, "");
  EXPECT_EQ(stream.push("\x8D!").text, "🌍!");
  EXPECT_EQ(stream.push("\xE4\xB8").text, "");
  EXPECT_EQ(stream.finish().text, "\xEF\xBF\xBD\xEF\xBF\xBD") << "a cut character is shown as replaced, never as broken bytes";
}

TEST(TextStream, ABeginningThatIsNoStopStringIsReleased) {
  TextStream stream({"</end>"});
  EXPECT_EQ(stream.push("x</e").text, "x");
  EXPECT_EQ(stream.push("</en").text, "</e");
  EXPECT_EQ(stream.push("d!").text, "</end!");
}

TEST(TextStream, TokensLeaveWithTheirTextAndNotPastAStopString) {
  TextStream stream({"END"});
  chat::TokenInfo info;
  info.chosen.token = 1;
  EXPECT_EQ(stream.push("ab", &info).tokens.size(), 1u);
  info.chosen.token = 2;
  EXPECT_EQ(stream.push("E", &info).tokens.size(), 0u);
  info.chosen.token = 3;
  const auto both = stream.push("N.", &info);
  EXPECT_EQ(both.text, "EN.");
  ASSERT_EQ(both.tokens.size(), 2u);
  EXPECT_EQ(both.tokens[0].chosen.token, 2);
  info.chosen.token = 4;
  const auto end = stream.push("xEND", &info);
  EXPECT_TRUE(end.stopped);
  EXPECT_EQ(end.text, "x");
  EXPECT_EQ(end.tokens.size(), 1u);
}

TEST(FairQueue, CreditIsNotSavedUpAndTurnsRotate) {
  FairQueue<int> queue(10);
  for (int i = 0; i < 4; ++i) queue.push("big", 100 + i, 20);
  for (int i = 0; i < 4; ++i) queue.push("small", i, 5);
  std::vector<int> order;
  while (!queue.empty()) order.push_back(queue.take_front());
  // Two turns of 10 pay for one big item; each turn of the other pays for two small ones.
  EXPECT_EQ(order, (std::vector<int>{0, 1, 100, 2, 3, 101, 102, 103}));
}

TEST(FairQueue, RemovedItemsLeaveNothingBehind) {
  FairQueue<int> queue(10);
  queue.push("a", 1, 1);
  queue.push("b", 2, 1);
  queue.push("a", 3, 1);
  queue.remove_if([](int i) { return i != 2; });
  EXPECT_EQ(queue.size(), 1u);
  EXPECT_EQ(*queue.front(), 2);
  EXPECT_EQ(queue.take_front(), 2);
  EXPECT_EQ(queue.front(), nullptr);
}

}  // namespace
}  // namespace hearth::engine
