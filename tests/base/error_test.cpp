#include "base/error.h"

#include <gtest/gtest.h>

#include <set>

namespace hearth {
namespace {

constexpr int last = static_cast<int>(ErrorCode::io);

TEST(Error, NamesAreUniqueAndLeadBackToTheirCode) {
  std::set<std::string_view> names;
  for (int i = 0; i <= last; ++i) {
    const auto code = static_cast<ErrorCode>(i);
    EXPECT_TRUE(names.insert(name(code)).second) << name(code);
    const auto other = code == ErrorCode::internal ? ErrorCode::io : ErrorCode::internal;
    EXPECT_EQ(error_code_from_name(name(code), other), code);
  }
}

TEST(Error, EveryStatusIsAnErrorStatus) {
  for (int i = 0; i <= last; ++i) {
    const int status = http_status(static_cast<ErrorCode>(i));
    EXPECT_GE(status, 400);
    EXPECT_LT(status, 600);
  }
}

TEST(Error, StatusesThatSdksActOn) {
  EXPECT_EQ(http_status(ErrorCode::invalid_request), 400);
  EXPECT_EQ(http_status(ErrorCode::model_not_found), 404);
  EXPECT_EQ(http_status(ErrorCode::overloaded), 429);
  EXPECT_EQ(http_status(ErrorCode::upstream_failed), 502);
  EXPECT_EQ(http_status(ErrorCode::unavailable), 503);
}

TEST(Error, AnUnknownNameGivesTheFallback) {
  EXPECT_EQ(error_code_from_name("no_such_code", ErrorCode::upstream_failed), ErrorCode::upstream_failed);
  EXPECT_EQ(error_code_from_name("", ErrorCode::io), ErrorCode::io);
}

}  // namespace
}  // namespace hearth
