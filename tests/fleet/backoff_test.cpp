#include "fleet/backoff.h"

#include <gtest/gtest.h>

namespace hearth::fleet {
namespace {

using namespace std::chrono_literals;

TEST(Backoff, DoublesUpToItsLimitWhileStartsFail) {
  FakeClock clock;
  Backoff backoff({.first = 100ms, .most = 1'000ms, .healthy_after = 60s}, clock);
  EXPECT_EQ(backoff.on_exit(), 100ms);
  EXPECT_EQ(backoff.on_exit(), 200ms);
  EXPECT_EQ(backoff.on_exit(), 400ms);
  EXPECT_EQ(backoff.on_exit(), 800ms);
  EXPECT_EQ(backoff.on_exit(), 1'000ms);
  EXPECT_EQ(backoff.on_exit(), 1'000ms);
  EXPECT_EQ(backoff.failed_starts(), 6);
}

TEST(Backoff, StartsOverAfterAWorkerStayedUp) {
  FakeClock clock;
  Backoff backoff({.first = 100ms, .most = 30s, .healthy_after = 60s}, clock);
  (void)backoff.on_exit();
  (void)backoff.on_exit();
  backoff.on_ready();
  clock.advance(60s);
  EXPECT_EQ(backoff.on_exit(), 100ms);
  EXPECT_EQ(backoff.failed_starts(), 0);
}

TEST(Backoff, KeepsGrowingWhileWorkersBecomeReadyAndDieSoon) {
  FakeClock clock;
  Backoff backoff({.first = 100ms, .most = 30s, .healthy_after = 60s}, clock);
  backoff.on_ready();
  clock.advance(59'999ms);
  EXPECT_EQ(backoff.on_exit(), 100ms);
  backoff.on_ready();
  clock.advance(1s);
  EXPECT_EQ(backoff.on_exit(), 200ms);
  EXPECT_EQ(backoff.failed_starts(), 0) << "a start that became ready did not fail";
}

}  // namespace
}  // namespace hearth::fleet
