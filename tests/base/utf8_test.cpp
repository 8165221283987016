#include "base/utf8.h"

#include <gtest/gtest.h>

#include <string>

namespace hearth {
namespace {

std::string encoded(char32_t c) {
  const auto byte = [](char32_t bits) { return static_cast<char>(bits); };
  if (c < 0x80) return {byte(c)};
  if (c < 0x800) return {byte(0xC0 | c >> 6), byte(0x80 | (c & 0x3F))};
  if (c < 0x10000) return {byte(0xE0 | c >> 12), byte(0x80 | (c >> 6 & 0x3F)), byte(0x80 | (c & 0x3F))};
  return {byte(0xF0 | c >> 18), byte(0x80 | (c >> 12 & 0x3F)), byte(0x80 | (c >> 6 & 0x3F)), byte(0x80 | (c & 0x3F))};
}

TEST(Utf8, AcceptsEveryScalarValueAndNoSurrogate) {
  for (char32_t c = 0; c <= 0x110000; ++c) {
    const bool scalar = c <= 0x10FFFF && (c < 0xD800 || c > 0xDFFF);
    const std::string text = encoded(c);
    ASSERT_EQ(utf8_sequence_length(text), scalar ? text.size() : 0U) << std::hex << static_cast<unsigned>(c);
  }
}

TEST(Utf8, RefusesOverlongCutAndStrayBytes) {
  for (const char* text : {"\xC0\x80", "\xC1\xBF", "\xE0\x80\x80", "\xE0\x9F\xBF", "\xF0\x80\x80\x80", "\xF0\x8F\xBF\xBF",
                           "\xF5\x80\x80\x80", "\x80", "\xE2\x82", "\xFF"}) {
    EXPECT_EQ(utf8_sequence_length(text), 0U);
    EXPECT_FALSE(is_valid_utf8(std::string("a") + text));
  }
  EXPECT_TRUE(is_valid_utf8(""));
  EXPECT_EQ(utf8_sequence_length(""), 0U);
}

TEST(Utf8, TheCompletePrefixEndsBeforeACharacterThatIsStillArriving) {
  const std::string text = "a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80z";
  std::size_t complete = 0;  // the end of the last whole character at or before `cut`
  for (std::size_t cut = 0; cut <= text.size(); ++cut) {
    if (is_valid_utf8(text.substr(0, cut))) complete = cut;
    EXPECT_EQ(utf8_complete_prefix(text.substr(0, cut)), complete) << cut;
  }
}

TEST(Utf8, BytesThatWillNeverBeValidDoNotHoldTextBack) {
  EXPECT_EQ(utf8_complete_prefix("a\x80"), 2U);
  EXPECT_EQ(utf8_complete_prefix("a\xFF"), 2U);
  EXPECT_EQ(utf8_complete_prefix("a\xE0\x80"), 3U);
  EXPECT_EQ(utf8_complete_prefix("\x80\x80\x80\x80"), 4U);
}

}  // namespace
}  // namespace hearth
