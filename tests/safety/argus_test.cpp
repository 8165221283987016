// Layer 5: what is found, what is not, in which wrappings, and that neither splitting nor fields change it.
#include "safety/argus.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>

#include "base/base64.h"
#include "base/json.h"
#include "safety/argus_personal.h"
#include "safety/argus_secrets.h"
#include "safety/argus_text.h"

namespace hearth::safety {

// What a failing test prints.
void PrintTo(const Match& match, std::ostream* out) {
  *out << name(match.kind) << ':' << match.detector << " [" << match.begin << ", " << match.end << ") " << match.level << " "
       << match.confidence;
}

namespace {

constexpr std::string_view key = "AKIAZ7QH4TDX2WMN5RBC";  // of AWS's form; nobody's

std::string text_of(const json::value& value) {
  if (value.is_string()) return std::string(value.as_string());
  std::string text;
  for (const auto& piece : value.as_array()) text += piece.as_string();
  return text;
}

json::array cases(const std::string& file) {
  std::ifstream in(std::string(HEARTH_SOURCE_DIR) + "/tests/cases/safety/argus_" + file + ".json");
  const std::string text((std::istreambuf_iterator<char>(in)), {});
  return json::parse(text).as_array();
}

const Argus& argus() {
  static const Argus shared;
  return shared;
}

class ArgusCases : public testing::TestWithParam<const char*> {};

TEST_P(ArgusCases, AreFoundAsStated) {
  for (const auto& entry : cases(GetParam())) {
    const auto& object = entry.as_object();
    SCOPED_TRACE(std::string(object.at("name").as_string()));
    std::string text;
    std::vector<Match> matches;
    if (const auto* result = object.if_contains("result")) {
      text = text_of(*result);
      matches = argus().scan_result(text);
    } else if (const auto* document = object.if_contains("json")) {
      text = text_of(*document);
      matches = argus().scan_json(text);
    } else {
      text = text_of(object.at("text"));
      matches = argus().scan(text);
    }
    const auto& expected = object.at("expect").as_array();
    EXPECT_EQ(matches.size(), expected.size()) << testing::PrintToString(matches);
    if (matches.size() != expected.size()) continue;
    for (std::size_t i = 0; i < expected.size(); ++i) {
      const auto& want = expected[i].as_object();
      const auto& match = matches[i];
      EXPECT_EQ(name(match.kind), std::string_view(want.at("kind").as_string()));
      if (const auto* detector = want.if_contains("detector")) EXPECT_EQ(match.detector, detector->as_string());
      if (const auto* level = want.if_contains("level")) EXPECT_EQ(match.level, level->as_string());
      if (const auto* span = want.if_contains("span"); span != nullptr && span->is_string()) {
        EXPECT_EQ(text.substr(match.begin, match.end - match.begin), span->as_string());
      }
      if (const auto* below = want.if_contains("below")) EXPECT_LT(match.confidence, below->to_number<double>());
      if (const auto* decoded = want.if_contains("decoded")) {
        ASSERT_EQ(match.decoded.size(), decoded->as_array().size());
        for (std::size_t k = 0; k < match.decoded.size(); ++k)
          EXPECT_EQ(match.decoded[k], std::string_view(decoded->as_array()[k].as_string()));
      }
      if (const auto* parts = want.if_contains("parts")) {
        ASSERT_EQ(match.parts.size(), parts->as_array().size()) << testing::PrintToString(match);
        for (std::size_t k = 0; k < match.parts.size(); ++k) {
          EXPECT_EQ(text.substr(match.parts[k].begin, match.parts[k].end - match.parts[k].begin), parts->as_array()[k].as_string());
        }
      }
    }
  }
}
INSTANTIATE_TEST_SUITE_P(Argus, ArgusCases, testing::Values("markings", "secrets", "personal", "json", "results"));

// One way to hide a text.
struct Wrap {
  std::string_view name;
  std::string (*wrap)(std::string_view);
  bool characters = false;  // of ASCII characters, not of bytes
};

std::string hex(std::string_view text) {
  static constexpr char digits[] = "0123456789abcdef";
  std::string out;
  for (const char c : text) {
    out += digits[static_cast<unsigned char>(c) >> 4];
    out += digits[static_cast<unsigned char>(c) & 15];
  }
  return out;
}
std::string each(std::string_view text, const char* before, const char* after, int width = 2) {
  const std::string digits = hex(text);
  std::string out;
  for (std::size_t i = 0; i < digits.size(); i += 2)
    out += before + std::string(static_cast<std::size_t>(width - 2), '0') + digits.substr(i, 2) + after;
  return out;
}
std::string inserted(std::string_view text, std::string_view what) {
  std::string out;
  for (const char c : text) (out += c) += what;
  return out;
}
std::string shifted(std::string_view text, char32_t by) {
  std::string out;
  for (const char c : text) argus::append_utf8(out, c > 0x20 && c < 0x7F ? static_cast<char32_t>(c) + by : static_cast<char32_t>(c));
  return out;
}
std::string url_safe(std::string text) {
  for (char& c : text) c = c == '+' ? '-' : c == '/' ? '_' : c;
  while (!text.empty() && text.back() == '=') text.pop_back();
  return text;
}
std::string in_lines(const std::string& text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); i += 20) out += text.substr(i, 20) + "\n";
  return out;
}

const Wrap wraps[] = {
    {"percent", [](std::string_view t) { return each(t, "%", ""); }},
    {"percent twice", [](std::string_view t) { return each(t, "%25", ""); }},
    {"percent u", [](std::string_view t) { return each(t, "%u", "", 4); }, true},
    {"backslash u", [](std::string_view t) { return each(t, "\\u", "", 4); }, true},
    {"backslash u in braces", [](std::string_view t) { return each(t, "\\u{", "}"); }, true},
    {"backslash x", [](std::string_view t) { return each(t, "\\x", ""); }},
    {"entities", [](std::string_view t) { return each(t, "&#x", ";"); }, true},
    {"entities without semicolon, long", [](std::string_view t) { return each(t, "&#x", ";", 6); }, true},
    {"hex", [](std::string_view t) { return hex(std::string(t) + " padding"); }},
    {"hex list", [](std::string_view t) { return each(t, "", " "); }},
    {"hex with colons", [](std::string_view t) { return each(t, "", ":"); }},
    {"hex of C", [](std::string_view t) { return each(t, "0x", ", "); }},
    {"base64", [](std::string_view t) { return base64_encode(t); }},
    {"base64, other alignment", [](std::string_view t) { return base64_encode("x: " + std::string(t)).substr(2); }},
    {"base64, URL-safe", [](std::string_view t) { return url_safe(base64_encode("~?> " + std::string(t) + " ?>~")); }},
    {"base64 in lines", [](std::string_view t) { return in_lines(base64_encode("some more text, then " + std::string(t))); }},
    {"UTF-16 as bytes", [](std::string_view t) { return inserted(t, std::string_view("\0", 1)); }, true},
    {"UTF-16 in base64", [](std::string_view t) { return base64_encode(inserted(t, std::string_view("\0", 1))); }, true},
    {"full width", [](std::string_view t) { return shifted(t, 0xFF01 - 0x21); }, true},
    {"combining", [](std::string_view t) { return inserted(t, "\xCC\xB6"); }, true},
    {"zero width", [](std::string_view t) { return inserted(t, "\xE2\x80\x8B"); }, true},
    {"bidi", [](std::string_view t) { return inserted(t, "\xE2\x80\xAE"); }, true},
    {"tags between", [](std::string_view t) { return inserted(t, "\xF3\xA0\x81\xA1"); }, true},
    {"tags alone", [](std::string_view t) { return shifted(t, 0xE0000); }, true},
};

std::size_t found(std::string_view text, Spill kind) {
  const auto matches = argus().scan(text);
  return static_cast<std::size_t>(std::count_if(matches.begin(), matches.end(), [kind](const Match& m) { return m.kind == kind; }));
}

TEST(ArgusWrapping, EveryWrappingAndEveryPairOfThemIsUndone) {
  const struct {
    Spill kind;
    std::string_view text;
  } needles[] = {{Spill::secret, key}, {Spill::marking, "TOP SECRET//SI//NOFORN"}};
  for (const auto& needle : needles) {
    for (const auto& inner : wraps) {
      const std::string once = inner.wrap(needle.text);
      const std::string text = "before " + once + " after";
      const auto matches = argus().scan(text);
      const auto match = std::find_if(matches.begin(), matches.end(), [&](const Match& m) { return m.kind == needle.kind; });
      ASSERT_NE(match, matches.end()) << inner.name << ": " << text;
      EXPECT_FALSE(match->decoded.empty()) << inner.name;
      // The span covers what hides it, and redaction takes it out.
      EXPECT_EQ(found(Argus::redact(text, matches), needle.kind), 0u) << inner.name << ": " << Argus::redact(text, matches);
      for (const auto& outer : wraps) {
        if (outer.characters && !std::all_of(once.begin(), once.end(), [](char c) { return c > 0; })) continue;
        const std::string twice = outer.wrap(once);
        EXPECT_GE(found("before " + twice + " after", needle.kind), 1u) << outer.name << " of " << inner.name;
      }
    }
  }
}

TEST(ArgusWrapping, FiveLayersOfBase64AreUndone) {
  std::string text(key);
  for (int i = 0; i < 5; ++i) text = base64_encode("x " + text + " y");
  EXPECT_EQ(found(text, Spill::secret), 1u);
}

TEST(ArgusWrapping, SpansAreThoseOfTheTextAsItCame) {
  const std::string text = "a \xE2\x80\x9Cquoted\xE2\x80\x9D word, then " + each(key, "%", "") + " and more";
  const auto matches = argus().scan(text);
  ASSERT_EQ(matches.size(), 1u);
  EXPECT_EQ(text.substr(matches[0].begin, matches[0].end - matches[0].begin), each(key, "%", ""));
}

TEST(ArgusWrapping, HomoglyphsAreRead) {
  EXPECT_EQ(found("ТОР ЅЕСRЕТ//ЅІ", Spill::marking), 1u);  // Cyrillic
  EXPECT_EQ(found("𝐓𝐎𝐏 𝐒𝐄𝐂𝐑𝐄𝐓//𝐒𝐈", Spill::marking), 1u);  // mathematical
  EXPECT_EQ(found("TOP SECRET∕∕SI", Spill::marking), 1u);  // division slashes
}

TEST(ArgusWrapping, WorkIsBoundedForHostileText) {
  // Each of these would be quadratic for a careless reader.
  for (const std::string& unit :
       {std::string("QUJD\n"), std::string("AAAAAAAAAAAAAAAAAAAAAAAA\n"), std::string("%25"), std::string("&#x41;"), std::string("\\u0041"),
        std::string("41 "), std::string("password="), std::string("-----BEGIN PRIVATE KEY-----"), std::string("SECRET//"),
        std::string("(U) "), std::string("1234 "), std::string("a@"), std::string("://a:b@"), std::string("\xF3\xA0\x81\xA1"),
        std::string("ghp_")}) {
    std::string text;
    while (text.size() < 300'000) text += unit;
    argus().scan_result(text);  // the test's own time limit is the check
  }
}

// Every split in two, and random splits, with and without redaction.
std::vector<Match> streamed(const Argus& scanner, std::string_view text, const std::vector<std::size_t>& cuts, std::size_t hold_back,
                            bool redact, std::string& out) {
  Argus::Stream stream(scanner, hold_back);
  std::vector<Match> matches;
  out.clear();
  std::size_t at = 0;
  for (const std::size_t cut : cuts) {
    out += stream.push(text.substr(at, cut - at), redact, matches);
    at = cut;
  }
  out += stream.push(text.substr(at), redact, matches);
  out += stream.finish(redact, matches);
  return matches;
}
void expect_same(const std::vector<Match>& whole, const std::vector<Match>& pieces) {
  ASSERT_EQ(whole.size(), pieces.size()) << testing::PrintToString(whole) << "\n" << testing::PrintToString(pieces);
  for (std::size_t i = 0; i < whole.size(); ++i) {
    EXPECT_EQ(whole[i].begin, pieces[i].begin);
    EXPECT_EQ(whole[i].end, pieces[i].end);
    EXPECT_EQ(whole[i].detector, pieces[i].detector);
    EXPECT_EQ(whole[i].level, pieces[i].level);
    EXPECT_EQ(whole[i].decoded, pieces[i].decoded);
  }
}

std::string long_text() {
  std::string text = "Notes of a long day, with nothing to hide at first. ";
  const auto filler = [&text](int n) {
    for (int i = 0; i < n; ++i) text += "The committee met at noon and agreed on the colour of the shed, item " + std::to_string(i) + ". ";
  };
  filler(6);
  text += std::string(key) + " ";
  filler(6);
  text += "\nTOP SECRET / / SI // NOFORN\n";
  filler(6);
  text += base64_encode("hidden in here: " + std::string(key)) + " ";
  filler(6);
  text += " pay with 4111 1111 1111 1111, then " + each(key, "\\u", "", 4) + " ";
  filler(6);
  text += "postgres://app:Zx9!kLm2@db.internal:5432/prod ";
  filler(6);
  return text;
}

TEST(ArgusStream, EverySplitGivesTheMatchesOfTheWhole) {
  const std::string text = long_text();
  const auto whole = argus().scan(text);
  ASSERT_EQ(whole.size(), 6u) << testing::PrintToString(whole);
  const std::string redacted = Argus::redact(text, whole);
  std::string out;
  for (std::size_t cut = 0; cut <= text.size(); ++cut) {
    SCOPED_TRACE(cut);
    const bool redact = cut % 2 == 0;
    expect_same(whole, streamed(argus(), text, {cut}, 512, redact, out));
    ASSERT_EQ(out, redact ? redacted : text);
    if (HasFailure()) return;
  }
}

TEST(ArgusStream, RandomPiecesGiveTheMatchesOfTheWhole) {
  const std::string text = long_text();
  const auto whole = argus().scan(text);
  const std::string redacted = Argus::redact(text, whole);
  const unsigned seed = std::random_device{}();
  std::mt19937 random(seed);
  RecordProperty("seed", static_cast<int>(seed));
  std::string out;
  for (int round = 0; round < 60; ++round) {
    SCOPED_TRACE(testing::Message() << "seed " << seed << " round " << round);
    std::vector<std::size_t> cuts;
    for (std::size_t at = 0; at < text.size(); at += 1 + random() % (round % 3 == 0 ? 5 : 200)) cuts.push_back(at);
    expect_same(whole, streamed(argus(), text, cuts, 256 + random() % 1024, true, out));
    ASSERT_EQ(out, redacted);
    if (HasFailure()) return;
  }
}

TEST(ArgusStream, NothingOfASecretLeavesBeforeItIsSeenAndTheHoldBackIsBounded) {
  Argus::Stream stream(argus(), 256);
  std::vector<Match> matches;
  std::string out;
  const std::string text = long_text();
  for (std::size_t i = 0; i < text.size(); ++i) {
    out += stream.push(std::string_view(text).substr(i, 1), true, matches);
    ASSERT_EQ(out.find(key.substr(0, 8)), std::string::npos);
    if (matches.empty()) ASSERT_LE(i + 1 - out.size(), 256u + 64u + key.size());
  }
}

TEST(ArgusStream, ALongKeyIsHeldUntilItEnds) {
  std::string body;
  std::mt19937 random(7);
  for (int line = 0; line < 40; ++line) {
    for (int i = 0; i < 64; ++i) body += "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"[random() % 62];
    body += '\n';
  }
  const std::string text =
      "see\n-----BEGIN RSA PRIVATE "
      "KEY-----\n" +
      body +
      "-----END RSA PRIVATE "
      "KEY-----\nafter it";
  Argus::Stream stream(argus(), 128);
  std::vector<Match> matches;
  std::string out;
  for (std::size_t i = 0; i < text.size(); i += 16) out += stream.push(std::string_view(text).substr(i, 16), true, matches);
  out += stream.finish(true, matches);
  EXPECT_EQ(out, "see\n[SECRET:private_key]\nafter it");
  EXPECT_EQ(matches.size(), 1u);
}

TEST(ArgusJson, RedactionKeepsADocument) {
  const std::string text =
      R"({"a": "x AKIAZ7QH4TDX2WMN5RBC y", "TOP SECRET//SI": ["AKIAZ7QH4T", "DX2WMN5RBC"], "card": 4111111111111111, "e": "\u0041KIAZ7QH4TDX2WMN5RBC", "n": -1.5e3})";
  const auto matches = argus().scan_json(text);
  const std::string redacted = Argus::redact_json(text, matches);
  ASSERT_TRUE(parse_json(redacted).ok()) << redacted;
  EXPECT_EQ(
      redacted,
      R"({"a": "x [SECRET:aws_access_key] y", "[MARKING:classification_banner]": ["[SECRET:aws_access_key]", "[SECRET:aws_access_key]"], )"
      R"("card": "[PERSONAL:card_number]", "e": "[SECRET:aws_access_key]", "n": -1.5e3})");
  EXPECT_TRUE(argus().scan_json(redacted).empty()) << redacted;
}

TEST(ArgusJson, AnySplitOfASecretOverTwoFieldsIsSeen) {
  for (std::size_t cut = 1; cut < key.size(); ++cut) {
    const std::string text =
        "{\"first\": \"" + std::string(key.substr(0, cut)) + "\", \"n\": 1, \"second\": \"" + std::string(key.substr(cut)) + "\"}";
    const auto matches = argus().scan_json(text);
    ASSERT_EQ(matches.size(), 1u) << text;
    const std::string redacted = Argus::redact_json(text, matches);
    EXPECT_TRUE(parse_json(redacted).ok());
    EXPECT_EQ(redacted.find(key.substr(0, cut)) != std::string::npos && cut > 5, false) << redacted;
  }
}

TEST(ArgusDocuments, PassagesAreSeenWhateverTheirPunctuationAndCase) {
  Argus scanner;
  const std::string document =
      "The northern valve must be closed before the pumps are started. Operators record the pressure every ten minutes and report a rise "
      "of more than "
      "three percent to the shift leader, who decides whether the second line is opened. Spare seals are kept in cabinet nine beside the "
      "boiler room.";
  ASSERT_TRUE(scanner.protect("valve manual", document).ok());
  EXPECT_FALSE(scanner.protect("too short", "Hello there").ok());
  const std::string passage =
      "OPERATORS RECORD -- the pressure, every ten minutes!\n and report a rise of more than\tthree percent to the shift leader";
  const std::string text = "My summary of the trip to the lake with friends and family last weekend: " + passage +
                           ". We had a nice day with sun and ice cream afterwards.";
  const auto matches = scanner.scan(text);
  ASSERT_EQ(matches.size(), 1u);
  EXPECT_EQ(matches[0].kind, Spill::document);
  EXPECT_EQ(matches[0].level, "valve manual");
  EXPECT_GT(matches[0].begin, 60u);
  EXPECT_LT(matches[0].end, 60 + passage.size() + 30);
  EXPECT_EQ(scanner.scan(base64_encode(text)).size(), 1u);
  EXPECT_TRUE(
      scanner.scan("The northern lights must be seen before winter ends. Operators of pumps are paid every ten days and a rise is due.")
          .empty());
  EXPECT_TRUE(argus().scan(text).empty());
}

TEST(ArgusOptionsTest, TiersCanBeSwitchedOff) {
  const std::string text = std::string(key) + " TOP SECRET//SI anna.schmidt@posteo.de";
  EXPECT_EQ(Argus({.markings = false}).scan(text).size(), 2u);
  EXPECT_EQ(Argus({.secrets = false}).scan(text).size(), 2u);
  EXPECT_EQ(Argus({.personal = false}).scan(text).size(), 2u);
}

TEST(ArgusMatch, ShownIsMasked) {
  const auto matches = argus().scan("x " + std::string(key) + " anna.schmidt@posteo.de password = \"hunter2x\"");
  ASSERT_EQ(matches.size(), 3u);
  EXPECT_EQ(matches[0].shown, "AKIA…BC");
  EXPECT_EQ(matches[1].shown, "a…de");
  EXPECT_EQ(matches[2].shown, "…");
}

TEST(ArgusPersonal, Checksums) {
  EXPECT_TRUE(argus::luhn("79927398713"));
  EXPECT_FALSE(argus::luhn("79927398710"));
  EXPECT_TRUE(argus::is_iban("FR1420041010050500013M02606"));
  EXPECT_FALSE(argus::is_iban("FR1420041010050500013M02607"));
  EXPECT_FALSE(argus::is_iban("XX00"));
}

TEST(ArgusSecrets, EveryPatternOfTheTableCompilesAndTheirKeywordsAreLowerCase) {
  EXPECT_GT(argus::secret_rule_count, 200u);
  argus::Secrets secrets;  // throws when one does not
  for (std::size_t i = 0; i < argus::secret_rule_count; ++i) {
    for (const char c : std::string_view(argus::secret_rules[i].keywords)) EXPECT_FALSE(c >= 'A' && c <= 'Z') << argus::secret_rules[i].id;
  }
}

}  // namespace
}  // namespace hearth::safety
