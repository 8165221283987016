#include "base/base64.h"

#include <gtest/gtest.h>

namespace hearth {
namespace {

TEST(Base64, MatchesTheVectorsOfRfc4648) {
  const std::pair<const char*, const char*> vectors[] = {
      {"", ""}, {"f", "Zg=="}, {"fo", "Zm8="}, {"foo", "Zm9v"}, {"foob", "Zm9vYg=="}, {"fooba", "Zm9vYmE="}, {"foobar", "Zm9vYmFy"}};
  for (const auto& [plain, text] : vectors) {
    EXPECT_EQ(base64_encode(plain), text);
    EXPECT_EQ(base64_decode(text), plain);
  }
}

TEST(Base64, EveryByteSurvives) {
  std::string bytes;
  for (int i = 0; i < 256; ++i) bytes.push_back(static_cast<char>(i));
  EXPECT_EQ(base64_decode(base64_encode(bytes)), bytes);
}

TEST(Base64, RefusesWhatIsNotBase64) {
  for (const char* text : {"Zg", "Zg=", "Z===", "====", "Zg==Zg==", "Z g=", "Zm9\xC3", "-_-_"}) EXPECT_FALSE(base64_decode(text)) << text;
}

TEST(Base64, LooseReadingTakesBothAlphabetsAndSkipsWhatItIsTold) {
  EXPECT_EQ(base64_decode_loosely("Zm 9v\nYg=="), "foob");
  EXPECT_EQ(base64_decode_loosely("Zm9vYg"), "foob");
  EXPECT_EQ(base64_decode_loosely("-_-_"), base64_decode("+/+/"));
  EXPECT_FALSE(base64_decode_loosely("Zm9v!"));
  EXPECT_FALSE(base64_decode_loosely("Zm 9v", ""));
  EXPECT_EQ(hex_decode_loosely("666F 6f"), "foo");
  EXPECT_EQ(hex_decode_loosely("\\x66\\x6f", "\\x"), "fo");
  EXPECT_EQ(hex_decode_loosely("66f"), "f");
  EXPECT_FALSE(hex_decode_loosely("6g"));
  EXPECT_FALSE(hex_decode_loosely("6 6", ""));
}

}  // namespace
}  // namespace hearth
