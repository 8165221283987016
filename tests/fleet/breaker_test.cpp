#include "fleet/breaker.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace hearth::fleet {
namespace {

using namespace std::chrono_literals;
using State = CircuitBreaker::State;
using ::testing::HasSubstr;

class BreakerTest : public ::testing::Test {
 protected:
  void fail(int times = 1) {
    for (int i = 0; i < times; ++i) {
      auto pass = breaker_.enter();
      ASSERT_TRUE(pass.ok()) << i;
      pass->failed("it fell over");
    }
  }
  void succeed() {
    auto pass = breaker_.enter();
    ASSERT_TRUE(pass.ok());
    pass->succeeded();
  }

  FakeClock clock_;
  CircuitBreaker breaker_{
      "the farm",
      {.failures_in_a_row = 3, .failure_share = 0.5, .window_outcomes = 10, .window = 60s, .open_first = 5s, .open_most = 15s},
      clock_};
};

TEST_F(BreakerTest, OpensAfterFailuresInARowAndSaysWhenToComeAgain) {
  fail(2);
  succeed();
  fail(2);
  EXPECT_EQ(breaker_.state(), State::closed) << "a success in between starts the count again";
  fail(1);
  EXPECT_EQ(breaker_.state(), State::open);
  EXPECT_FALSE(breaker_.lets_through());
  clock_.advance(1s);
  const auto refused = breaker_.enter();
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::unavailable);
  EXPECT_EQ(refused.error().retry_after, 4s);
  EXPECT_THAT(refused.error().message, HasSubstr("the farm keeps failing (last: it fell over)"));
}

TEST_F(BreakerTest, OpensWhenHalfOfManyFail) {
  for (int i = 0; i < 4; ++i) {
    fail(1);
    succeed();
  }
  EXPECT_EQ(breaker_.state(), State::closed) << "too few to tell";
  succeed();
  fail(1);
  EXPECT_EQ(breaker_.state(), State::open) << "5 of 10";
}

TEST_F(BreakerTest, OldOutcomesAreForgotten) {
  for (int i = 0; i < 4; ++i) {
    fail(1);
    succeed();
  }
  clock_.advance(61s);
  succeed();
  fail(1);
  EXPECT_EQ(breaker_.state(), State::closed);
}

TEST_F(BreakerTest, LetsOneProbeThroughAndClosesWhenItSucceeds) {
  fail(3);
  clock_.advance(5s);
  EXPECT_EQ(breaker_.state(), State::half_open);
  auto probe = breaker_.enter();
  ASSERT_TRUE(probe.ok());
  EXPECT_FALSE(breaker_.lets_through()) << "one at a time";
  const auto second = breaker_.enter();
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.error().retry_after, 1s);
  probe->succeeded();
  EXPECT_EQ(breaker_.state(), State::closed);
  fail(2);
  EXPECT_EQ(breaker_.state(), State::closed) << "earlier failures are forgotten";
}

TEST_F(BreakerTest, AFailedProbeKeepsItOpenForLonger) {
  fail(3);
  clock_.advance(5s);
  fail(1);
  EXPECT_EQ(breaker_.state(), State::open);
  clock_.advance(9s);
  EXPECT_EQ(breaker_.state(), State::open) << "twice as long as at first";
  clock_.advance(1s);
  fail(1);
  clock_.advance(14s);
  EXPECT_EQ(breaker_.state(), State::open);
  clock_.advance(1s);
  EXPECT_EQ(breaker_.state(), State::half_open) << "never longer than the most";
  succeed();
  fail(3);
  clock_.advance(5s);
  EXPECT_EQ(breaker_.state(), State::half_open) << "short again after it was closed";
}

TEST_F(BreakerTest, AProbeWithoutAnOutcomeMakesRoomForTheNext) {
  fail(3);
  clock_.advance(5s);
  { const auto left = breaker_.enter(); }
  EXPECT_EQ(breaker_.state(), State::half_open);
  EXPECT_TRUE(breaker_.lets_through());
}

TEST_F(BreakerTest, WhatWasUnderWayWhenItOpenedChangesNothing) {
  auto slow = breaker_.enter();
  auto slower = breaker_.enter();
  ASSERT_TRUE(slow.ok() && slower.ok());
  fail(3);
  slow->succeeded();
  EXPECT_EQ(breaker_.state(), State::open);
  clock_.advance(5s);
  slower->failed("late");
  EXPECT_EQ(breaker_.state(), State::half_open);
}

TEST_F(BreakerTest, AResetMakesItNew) {
  fail(3);
  breaker_.reset();
  EXPECT_EQ(breaker_.state(), State::closed);
  fail(2);
  EXPECT_EQ(breaker_.state(), State::closed);
}

TEST(Breaker, OnlyFaultsOfTheUpstreamCount) {
  for (const auto code : {ErrorCode::upstream_failed, ErrorCode::upstream_timeout, ErrorCode::unavailable, ErrorCode::internal}) {
    EXPECT_TRUE(is_upstream_fault(code)) << name(code);
  }
  for (const auto code : {ErrorCode::invalid_request, ErrorCode::context_length_exceeded, ErrorCode::unauthorized,
                          ErrorCode::model_not_found, ErrorCode::overloaded, ErrorCode::client_gone, ErrorCode::deadline_exceeded}) {
    EXPECT_FALSE(is_upstream_fault(code)) << name(code);
  }
}

}  // namespace
}  // namespace hearth::fleet
