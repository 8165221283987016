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

chat::ModelInfo worker(const std::string& id, chat::ModelState state) {
  chat::ModelInfo info;
  info.id = id;
  info.upstream = "worker";
  info.state = state;
  return info;
}

TEST(Metrics, EngineCountersGoOnAcrossRestartsAndLoads) {
  Metrics metrics;
  engine::SchedulerStats stats;
  stats.cached_tokens = 100;
  stats.drafted_tokens = 8;
  stats.accepted_tokens = 6;
  stats.running = 3;
  stats.parked = 2;
  stats.kv_bytes = 4096;
  stats.kv_encoding_us = 1'500'000;
  stats.kv_attention_us = 2'000'000;
  const std::vector<chat::ModelInfo> ready{worker("m", chat::ModelState::ready)};
  (void)metrics.text({.models = ready, .engines = {{"m", 0, stats}}});
  (void)metrics.text({.models = {worker("m", chat::ModelState::absent)}});  // unloaded meanwhile
  stats.cached_tokens = 20;                                                 // a fresh worker counts from zero
  stats.kv_attention_us = 250'000;
  const auto text = metrics.text({.connections = 2, .models = ready, .engines = {{"m", 1, stats}}});
  EXPECT_THAT(text, HasSubstr("hearth_prefix_cache_hit_tokens_total{model=\"m\"} 120"));
  EXPECT_THAT(text, HasSubstr("hearth_speculation_tokens_total{kind=\"drafted\",model=\"m\"} 8"));
  EXPECT_THAT(text, HasSubstr("hearth_speculation_tokens_total{kind=\"accepted\",model=\"m\"} 6"));
  EXPECT_THAT(text, HasSubstr("hearth_engine_requests{model=\"m\",state=\"running\"} 3"));
  EXPECT_THAT(text, HasSubstr("hearth_engine_requests{model=\"m\",state=\"parked\"} 2"));
  EXPECT_THAT(text, HasSubstr("hearth_kv_bytes{kind=\"cells\",model=\"m\"} 4096"));
  EXPECT_THAT(text, HasSubstr("hearth_kv_seconds_total{kind=\"encode\",model=\"m\"} 1.5"));
  EXPECT_THAT(text, HasSubstr("hearth_kv_seconds_total{kind=\"attention\",model=\"m\"} 2.25"));
  EXPECT_THAT(text, HasSubstr("hearth_worker_restarts_total{model=\"m\"} 1"));
  EXPECT_THAT(text, HasSubstr("hearth_engine_ready{model=\"m\"} 1"));
  EXPECT_THAT(text, HasSubstr("hearth_open_connections 2"));
}

TEST(Metrics, LoadsUnloadsAndMemoryAreToldByModel) {
  Metrics metrics;
  const auto happened = [&](const std::string& model, chat::ModelState state, const std::string& reason, std::chrono::milliseconds took) {
    metrics.count(fleet::ModelEvent{.model = model, .state = state, .reason = reason, .took = took});
  };
  happened("a", chat::ModelState::loading, "requested", 0ms);
  happened("a", chat::ModelState::ready, "loaded", 1'500ms);
  happened("a", chat::ModelState::draining, "evicted for b", 0ms);
  happened("a", chat::ModelState::absent, "evicted for b", 20ms);
  happened("b", chat::ModelState::failed, "no such file", 5ms);
  happened("b", chat::ModelState::absent, "idle", 5ms);
  auto big = worker("a", chat::ModelState::ready);
  big.memory_bytes = 1000;
  big.gpu_bytes = 2000;
  big.running = 2;
  big.waiting = 5;
  auto remote = worker("far", chat::ModelState::ready);
  remote.upstream = "openai";
  const auto text = metrics.text({.models = {big, remote}, .memory_used = 1000, .memory_budget = 9000});
  EXPECT_THAT(text, HasSubstr("hearth_model_loads_total{model=\"a\",outcome=\"loaded\"} 1"));
  EXPECT_THAT(text, HasSubstr("hearth_model_loads_total{model=\"b\",outcome=\"failed\"} 1"));
  EXPECT_THAT(text, HasSubstr("hearth_model_unloads_total{cause=\"evicted\",model=\"a\"} 1"));
  EXPECT_THAT(text, HasSubstr("hearth_model_unloads_total{cause=\"idle\",model=\"b\"} 1"));
  EXPECT_THAT(text, HasSubstr("hearth_model_load_seconds_sum{model=\"a\"} 1.5"));
  EXPECT_THAT(text, HasSubstr("hearth_model_memory_bytes{memory=\"host\",model=\"a\"} 1000"));
  EXPECT_THAT(text, HasSubstr("hearth_model_memory_bytes{memory=\"gpu\",model=\"a\"} 2000"));
  EXPECT_THAT(text, HasSubstr("hearth_model_requests{model=\"a\",state=\"waiting\"} 5"));
  EXPECT_THAT(text, HasSubstr("hearth_model_requests{model=\"a\",state=\"running\"} 2"));
  EXPECT_THAT(text, HasSubstr("hearth_models_memory_bytes{kind=\"budget\"} 9000"));
  EXPECT_THAT(text, HasSubstr("hearth_engine_ready{model=\"far\"} 1"));
  EXPECT_THAT(text, Not(HasSubstr("hearth_kv_cells{kind=\"total\",model=\"far\"}"))) << "nobody knows its engine";
}

TEST(Metrics, EveryLineIsPrometheusText) {
  Metrics metrics;
  metrics.count(chat_record(200));
  metrics.count(fleet::ModelEvent{.model = "quote\" and \\ back", .state = chat::ModelState::ready});
  std::istringstream lines(metrics.text({.models = {worker("quote\" and \\ back", chat::ModelState::ready)}}));
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
