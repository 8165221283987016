#include "base/json.h"

#include <gtest/gtest.h>

namespace hearth {
namespace {

std::string problem(std::string_view text) {
  const auto parsed = parse_json(text);
  if (parsed) return "";
  EXPECT_EQ(parsed.error().code, ErrorCode::invalid_request);
  return parsed.error().message;
}

bool mentions(const std::string& message, std::string_view what) { return message.find(what) != std::string::npos; }

TEST(ParseJson, ReadsEveryKindOfValue) {
  const auto parsed = parse_json(R"( {"a": [1, -2, 2.5, 18446744073709551615, true, false, null], "b": {"c": "x\u00e9\ud83d\ude00"}} )");
  ASSERT_TRUE(parsed) << parsed.error().message;
  const auto& object = parsed->as_object();
  EXPECT_EQ(object.at("a").as_array().size(), 7U);
  EXPECT_EQ(object.at("a").as_array()[3].as_uint64(), 18446744073709551615ULL);
  EXPECT_EQ(object.at("b").at("c").as_string(), "x\xC3\xA9\xF0\x9F\x98\x80");
}

TEST(ParseJson, KeepsTheOrderOfKeys) {
  const auto parsed = parse_json(R"({"z":1,"a":2,"m":3})");
  ASSERT_TRUE(parsed);
  EXPECT_EQ(json::serialize(*parsed), R"({"z":1,"a":2,"m":3})");
}

TEST(ParseJson, NamesADuplicateKey) {
  EXPECT_TRUE(mentions(problem(R"({"model":"a","n":1,"model":"b"})"), "\"model\" twice"));
  EXPECT_TRUE(mentions(problem(R"({"x":[{"in\u006eer":1,"inner":2}]})"), "\"inner\" twice"));
  EXPECT_TRUE(mentions(problem(R"({"":1,"":2})"), "\"\" twice"));
}

TEST(ParseJson, TheSameKeyInDifferentObjectsIsFine) { EXPECT_EQ(problem(R"({"a":{"a":{"a":1}},"b":[{"a":1},{"a":2}]})"), ""); }

TEST(ParseJson, SaysWhereTheSyntaxBreaks) {
  EXPECT_TRUE(mentions(problem(R"({"a":1,})"), "at byte 7"));
  EXPECT_TRUE(mentions(problem(""), "not valid JSON"));
  EXPECT_TRUE(mentions(problem(R"({"a":)"), "not valid JSON"));
  EXPECT_TRUE(mentions(problem("{} x"), "not valid JSON"));
  EXPECT_TRUE(mentions(problem("{'a':1}"), "not valid JSON"));
  EXPECT_TRUE(mentions(problem("[NaN]"), "not valid JSON"));
  EXPECT_TRUE(mentions(problem("[\"a\nb\"]"), "not valid JSON"));
  EXPECT_TRUE(mentions(problem(R"(["\ud800"])"), "not valid JSON"));
}

TEST(ParseJson, SaysThatTheTextIsNotUtf8) {
  EXPECT_TRUE(mentions(problem("[\"\xC3(\"]"), "UTF-8"));
  EXPECT_TRUE(mentions(problem("[\"\xED\xA0\x80\"]"), "UTF-8"));
  EXPECT_TRUE(mentions(problem("[\"\xFF\"]"), "UTF-8"));
}

TEST(ParseJson, NestingHasALimit) {
  const auto nested = [](std::size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  EXPECT_EQ(problem(nested(json_max_depth)), "");
  EXPECT_TRUE(mentions(problem(nested(json_max_depth + 1)), "64 levels"));
  EXPECT_TRUE(mentions(problem(std::string(1'000'000, '[')), "64 levels"));
}

TEST(ParseJson, LongStringsAndKeysArriveWhole) {
  const std::string text(3'000'000, 'x');
  const auto parsed = parse_json("{\"" + text + "\":\"" + text + "\"}");
  ASSERT_TRUE(parsed);
  EXPECT_EQ(parsed->as_object().at(text).as_string().size(), text.size());
}

std::string written(std::string_view text) {
  std::string out;
  append_json_string(out, text);
  return out;
}

TEST(AppendJson, WritesWhatTheParserRead) {
  for (const char* text :
       {R"({"z":1,"a":[2.5,-0.0,2.0,1e-09,true,null,"x\"y"],"m":{}})", "[]", "18446744073709551615", "-3", "1e9999", "\"\\u0001\""}) {
    const auto parsed = parse_json(text);
    ASSERT_TRUE(parsed) << text;
    std::string out;
    append_json(out, *parsed);
    EXPECT_EQ(out, text);
  }
}

TEST(AppendJsonString, EscapesWhatJsonMustEscape) {
  EXPECT_EQ(written(""), "\"\"");
  EXPECT_EQ(written("a\"b\\c\n\r\t"), R"("a\"b\\c\n\r\t")");
  EXPECT_EQ(written(std::string_view("\0\x1f", 2)), R"("\u0000\u001f")");
  EXPECT_EQ(written("\xC3\xA9\xF0\x9F\x98\x80"), "\"\xC3\xA9\xF0\x9F\x98\x80\"");
}

TEST(AppendJsonString, ReplacesBytesThatAreNotUtf8) {
  EXPECT_EQ(written("a\xFF"
                    "b"),
            "\"a\xEF\xBF\xBD"
            "b\"");
  EXPECT_EQ(written("\xE2\x82"), "\"\xEF\xBF\xBD\xEF\xBF\xBD\"");
}

TEST(AppendJsonString, EveryCharacterComesBackThroughTheParser) {
  for (int c = 0; c < 0x80; ++c) {
    const std::string text = {'x', static_cast<char>(c), 'y'};
    const auto parsed = parse_json(written(text));
    ASSERT_TRUE(parsed) << c;
    EXPECT_EQ(std::string_view(parsed->as_string()), text);
  }
}

}  // namespace
}  // namespace hearth
