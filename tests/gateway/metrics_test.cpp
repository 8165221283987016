#include "gateway/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

namespace hearth::gateway {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;
using ::testing::Not;

Record chat_record(int status) {
  return {.path = "/v1/chat/completions", .status = status, .duration = 30ms, .first_token = 7ms, .usage = {10, 4, 5}};
}

TEST(Metrics, CountsRequestsTokensAndLatencies) {
  Metrics metrics;
  metrics.count(chat_record(200));
  metrics.count(chat_record(200));
  metrics.count(chat_record(429));
  const auto text = metrics.text({});
  EXPECT_THAT(text, HasSubstr("hearth_requests_total{path=\"/v1/chat/completions\",status=\"200\"} 2"));
  EXPECT_THAT(text, HasSubstr("hearth_requests_total{path=\"/v1/chat/completions\",status=\"429\"} 1"));
  EXPECT_THAT(text, HasSubstr("hearth_tokens_total{kind=\"prompt\"} 30"));
  EXPECT_THAT(text, HasSubstr("hearth_tokens_total{kind=\"prompt_cached\"} 12"));
  EXPECT_THAT(text, HasSubstr("hearth_tokens_total{kind=\"completion\"} 15"));
  EXPECT_THAT(text, HasSubstr("hearth_time_to_first_token_seconds_count 3"));
  EXPECT_THAT(text, HasSubstr("hearth_time_to_first_token_seconds_bucket{le=\"0.005\"} 0"));
  EXPECT_THAT(text, HasSubstr("hearth_time_to_first_token_seconds_bucket{le=\"0.01\"} 3"));
}

TEST(Metrics, ClientsCannotMakeSeries) {
  Metrics metrics;
  for (int i = 0; i < 100; ++i) metrics.count({.path = "/attack/" + std::to_string(i), .status = 404});
  metrics.count({.path = "/v1/models/some-model", .status = 200});
  const auto text = metrics.text({});
  EXPECT_THAT(text, HasSubstr("hearth_requests_total{path=\"other\",status=\"404\"} 100"));
  EXPECT_THAT(text, HasSubstr("path=\"/v1/models\""));
  EXPECT_THAT(text, Not(HasSubstr("attack")));
}

TEST(Metrics, EngineCountersGoOnAcrossRestarts) {
  Metrics metrics;
  engine::SchedulerStats stats;
  stats.cached_tokens = 100;
  stats.running = 3;
  (void)metrics.text({.engine_ready = true, .engine = stats});
  stats.cached_tokens = 20;  // a fresh worker counts from zero
  const auto text = metrics.text({.connections = 2, .restarts = 1, .engine_ready = true, .engine = stats});
  EXPECT_THAT(text, HasSubstr("hearth_prefix_cache_hit_tokens_total 120"));
  EXPECT_THAT(text, HasSubstr("hearth_engine_requests{state=\"running\"} 3"));
  EXPECT_THAT(text, HasSubstr("hearth_worker_restarts_total 1"));
  EXPECT_THAT(text, HasSubstr("hearth_engine_ready 1"));
  EXPECT_THAT(text, HasSubstr("hearth_open_connections 2"));
}

TEST(Metrics, EveryLineIsPrometheusText) {
  Metrics metrics;
  metrics.count(chat_record(200));
  std::istringstream lines(metrics.text({}));
  std::string line;
  int samples = 0;
  while (std::getline(lines, line)) {
    ASSERT_FALSE(line.empty());
    if (line[0] == '#') {
      EXPECT_TRUE(line.starts_with("# HELP hearth_") || line.starts_with("# TYPE hearth_")) << line;
      continue;
    }
    const auto space = line.rfind(' ');
    ASSERT_NE(space, std::string::npos) << line;
    std::size_t used = 0;
    EXPECT_NO_THROW((void)std::stod(line.substr(space + 1), &used)) << line;
    EXPECT_EQ(used, line.size() - space - 1) << line;
    ++samples;
  }
  EXPECT_GT(samples, 20);
}

}  // namespace
}  // namespace hearth::gateway
