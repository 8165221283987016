#include "fleet/health.h"

#include <gtest/gtest.h>

namespace hearth::fleet {
namespace {

TEST(Health, SurvivesTheWayThroughJson) {
  engine::SchedulerStats stats;
  stats.ticks = 1'234'567'890'123;
  stats.running = 3;
  stats.waiting = 5;
  stats.cells_used = 77;
  stats.cached_tokens = 9;
  stats.busy = true;
  stats.since_tick = std::chrono::milliseconds(4'321);
  const auto back = decode_health(encode_health(stats));
  ASSERT_TRUE(back.ok());
  EXPECT_EQ(back->ticks, stats.ticks);
  EXPECT_EQ(back->running, 3);
  EXPECT_EQ(back->waiting, 5);
  EXPECT_EQ(back->cells_used, 77);
  EXPECT_EQ(back->cached_tokens, 9);
  EXPECT_TRUE(back->busy);
  EXPECT_EQ(back->since_tick, stats.since_tick);
}

TEST(Health, RefusesWhatIsNoReport) {
  for (const char* text : {"", "[]", "null", "{}", "{\"busy\":true}", "<html>"}) {
    const auto report = decode_health(text);
    ASSERT_FALSE(report.ok()) << text;
    EXPECT_EQ(report.error().code, ErrorCode::upstream_failed);
  }
}

}  // namespace
}  // namespace hearth::fleet
