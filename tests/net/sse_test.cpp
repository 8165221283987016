#include "net/sse.h"

#include <gtest/gtest.h>

namespace hearth::net {
namespace {

std::string flat(const std::vector<SseEvent>& events) {
  std::string out;
  for (const auto& event : events) out += "[" + event.event + "|" + event.data + "]";
  return out;
}

std::string decode(std::string_view text) {
  SseDecoder decoder;
  std::vector<SseEvent> events;
  EXPECT_TRUE(decoder.feed(text, events).ok());
  return flat(events);
}

TEST(Sse, DecodesEventsAsTheStandardSays) {
  EXPECT_EQ(decode("data: a\n\n"), "[|a]");
  EXPECT_EQ(decode("data:a\r\n\r\ndata:  b\r\r"), "[|a][| b]");
  EXPECT_EQ(decode("event: ping\ndata: {}\n\n"), "[ping|{}]");
  EXPECT_EQ(decode("data: a\ndata: b\ndata\n\n"), "[|a\nb\n]");
  EXPECT_EQ(decode(": keep-alive\n\n:\n\ndata: x\n\n"), "[|x]");
  EXPECT_EQ(decode("id: 7\nretry: 10\nunknown: y\ndata: x\n\n"), "[|x]");
  EXPECT_EQ(decode("event: lost\n\ndata: x\n\n"), "[|x]") << "an event without data is dropped, with its name";
  EXPECT_EQ(decode("\xEF\xBB\xBF"
                   "data: x\n\ndata: \xEF\xBB\xBFy\n\n"),
            "[|x][|\xEF\xBB\xBFy]");
  EXPECT_EQ(decode("data: never ended\n"), "");
}

TEST(Sse, AnySplitGivesTheSameEvents) {
  const std::string text =
      "\xEF\xBB\xBF: hello\r\n\r\nevent: message_start\r\ndata: {\"a\":1}\r\n\r\ndata: one\rdata: two\r\r"
      "data: caf\xC3\xA9\n\n:\n\nevent: x\ndata\n\ndata: [DONE]\n\n";
  const auto whole = decode(text);
  ASSERT_EQ(whole, "[message_start|{\"a\":1}][|one\ntwo][|caf\xC3\xA9][x|][|[DONE]]");
  for (std::size_t first = 0; first <= text.size(); ++first) {
    for (std::size_t second = first; second <= text.size(); ++second) {
      SseDecoder decoder;
      std::vector<SseEvent> events;
      const std::string_view view = text;
      for (const auto part : {view.substr(0, first), view.substr(first, second - first), view.substr(second)}) {
        ASSERT_TRUE(decoder.feed(part, events).ok());
      }
      ASSERT_EQ(flat(events), whole) << "split at " << first << " and " << second;
      ASSERT_FALSE(decoder.pending());
    }
  }
}

TEST(Sse, KnowsThatAStreamWasCut) {
  for (const std::string_view text : {"d", "data: x", "data: x\n", "event: x\n"}) {
    SseDecoder decoder;
    std::vector<SseEvent> events;
    ASSERT_TRUE(decoder.feed(text, events).ok());
    EXPECT_TRUE(decoder.pending()) << text;
  }
}

TEST(Sse, RefusesAnEventPastTheLimitWhereverItIsSplit) {
  const std::string text = "data: " + std::string(60, 'x') + "\ndata: " + std::string(60, 'y') + "\n\n";
  for (std::size_t step = 1; step <= text.size(); ++step) {
    SseDecoder decoder(100);
    std::vector<SseEvent> events;
    bool refused = false;
    for (std::size_t at = 0; at < text.size() && !refused; at += step) {
      const auto fed = decoder.feed(std::string_view(text).substr(at, step), events);
      refused = !fed.ok();
      if (refused) EXPECT_EQ(fed.error().code, ErrorCode::upstream_failed);
    }
    EXPECT_TRUE(refused) << "step " << step;
    EXPECT_TRUE(events.empty());
  }
}

TEST(Sse, EncodesWhatItDecodes) {
  std::string out;
  append_sse(out, "{\"x\":1}");
  append_sse_comment(out);
  append_sse(out, "{}", "ping");
  append_sse_comment(out, " still here");
  EXPECT_EQ(out, "data: {\"x\":1}\n\n:\n\nevent: ping\ndata: {}\n\n: still here\n\n");
  EXPECT_EQ(decode(out), "[|{\"x\":1}][ping|{}]");
}

TEST(Sse, KeepsTheBytesOfEveryEventWhereverTheyAreSplit) {
  const std::string first = "event: a\r\ndata: 1\r\n\r\n", second = ": inside\ndata:2\ndata: 3\n\n", third = "data:  4\r\r";
  const std::string text = first + ": a comment alone\n\n" + second + third;
  for (std::size_t step = 1; step <= text.size(); ++step) {
    SseDecoder decoder(SseDecoder::usual_limit, true);
    std::vector<SseEvent> events;
    for (std::size_t at = 0; at < text.size(); at += step) ASSERT_TRUE(decoder.feed(std::string_view(text).substr(at, step), events).ok());
    ASSERT_EQ(events.size(), 3U) << "step " << step;
    // Split inside its last CRLF, an event ends with the CR; the LF goes with what follows, where it ends the same line.
    const bool split = events[0].raw.ends_with('\r');
    EXPECT_EQ(events[0].raw + (split ? "\n" : ""), first) << "step " << step;
    EXPECT_EQ(events[1].raw, second) << "step " << step;
    EXPECT_EQ(events[2].raw, third) << "step " << step;
  }
}

TEST(Sse, CommentsWithoutEndAreBoundedToo) {
  SseDecoder decoder(100, true);
  std::vector<SseEvent> events;
  bool refused = false;
  for (int i = 0; i < 100 && !refused; ++i) refused = !decoder.feed(": x\n", events).ok();
  EXPECT_TRUE(refused);
}

}  // namespace
}  // namespace hearth::net
