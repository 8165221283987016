// What an operator watches, in Prometheus' text form. Labels come from closed lists and the configured models only: a client cannot make series.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "chat/event.h"
#include "fleet/fleet.h"
#include "safety/protection.h"

namespace hearth::gateway {

// One request as it is counted and logged.
struct Record {
  std::string path;  // as the client sent it
  int status = 0;    // 499 when the client left first
  std::chrono::nanoseconds duration{0};
  std::optional<std::chrono::nanoseconds> first_token;  // from the request's arrival
  chat::Usage usage;
  std::optional<ErrorCode> failed;  // in mid-stream
};

// The gateway's state at the moment of a scrape.
struct Snapshot {
  std::size_t connections = 0;
  std::vector<chat::ModelInfo> models;
  std::vector<fleet::Fleet::EngineReport> engines;  // of the workers that answered
  std::int64_t memory_used = 0;                     // bytes of host memory: what loaded models take, and what they may take
  std::int64_t memory_budget = 0;
  std::size_t held_calls = 0;  // that wait for a person
};

class Metrics {
 public:
  Metrics();
  ~Metrics();
  void count(const Record& record);
  void count(const fleet::ModelEvent& event);
  void count(const safety::Ruled& ruled);
  std::string text(const Snapshot& now);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace hearth::gateway
