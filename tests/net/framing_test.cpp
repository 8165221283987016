#include "net/framing.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <string>
#include <vector>

namespace hearth::net {
namespace {

struct Case {
  std::string name;
  std::string expect;
  std::string block;
};

// Escapes \r \n \t \xNN; the real line breaks of the file mean nothing.
std::string unescape(const std::string& text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\\') {
      out += text[i];
      continue;
    }
    switch (text.at(++i)) {
      case 'r': out += '\r'; break;
      case 'n': out += '\n'; break;
      case 't': out += '\t'; break;
      case 'x':
        out += static_cast<char>(std::stoi(text.substr(i + 1, 2), nullptr, 16));
        i += 2;
        break;
      default: ADD_FAILURE() << "unknown escape in " << text;
    }
  }
  return out;
}

std::vector<Case> load(const std::string& file) {
  std::ifstream in(std::string(HEARTH_SOURCE_DIR) + "/tests/cases/framing/" + file);
  std::vector<Case> cases;
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with("== ")) {
      cases.push_back({line.substr(3), {}, {}});
    } else if (!cases.empty() && line.starts_with("expect: ")) {
      cases.back().expect = line.substr(8);
    } else if (!cases.empty()) {
      cases.back().block += unescape(line);
    }
  }
  return cases;
}

TEST(Framing, PassesPlainMessages) {
  const auto cases = load("good.txt");
  ASSERT_GE(cases.size(), 10u);
  for (const auto& test : cases) {
    const auto checked = check_request_framing(test.block);
    EXPECT_TRUE(checked.ok()) << test.name << ": " << (checked.ok() ? "" : checked.error().message);
  }
}

TEST(Framing, RefusesEveryAmbiguousFormWithItsReason) {
  const auto cases = load("bad.txt");
  ASSERT_GE(cases.size(), 40u);
  for (const auto& test : cases) {
    ASSERT_FALSE(test.expect.empty()) << test.name;
    const auto checked = check_request_framing(test.block);
    ASSERT_FALSE(checked.ok()) << test.name;
    EXPECT_EQ(checked.error().code, ErrorCode::invalid_request) << test.name;
    EXPECT_THAT(checked.error().message, testing::HasSubstr(test.expect)) << test.name;
  }
}

TEST(Framing, NoProperPrefixOfAGoodBlockPasses) {
  for (const auto& test : load("good.txt")) {
    for (std::size_t cut = 0; cut < test.block.size(); ++cut) {
      EXPECT_FALSE(check_request_framing(std::string_view(test.block).substr(0, cut)).ok()) << test.name << " cut at " << cut;
    }
  }
}

}  // namespace
}  // namespace hearth::net
