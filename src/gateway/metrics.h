// What an operator watches, in Prometheus' text form. Labels come from closed lists only: a client cannot make series.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "chat/event.h"
#include "engine/scheduler.h"

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
  int restarts = 0;
  bool engine_ready = false;
  std::optional<engine::SchedulerStats> engine;  // empty when it does not answer
};

class Metrics {
 public:
  Metrics();
  ~Metrics();
  void count(const Record& record);
  std::string text(const Snapshot& now);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace hearth::gateway
