#include "base/id.h"

#include <gtest/gtest.h>

#include <set>

namespace hearth {
namespace {

TEST(RandomId, HasThePrefixAnd24PlainCharacters) {
  const std::string id = random_id("chatcmpl-");
  ASSERT_EQ(id.size(), 9U + 24U);
  EXPECT_EQ(id.substr(0, 9), "chatcmpl-");
  EXPECT_EQ(id.find_first_not_of("0123456789abcdefghijklmnopqrstuvwxyz", 9), std::string::npos);
}

TEST(RandomId, DoesNotRepeat) {
  std::set<std::string> seen;
  for (int i = 0; i < 10'000; ++i) EXPECT_TRUE(seen.insert(random_id("")).second);
}

}  // namespace
}  // namespace hearth
