// One loaded model: its process, and the way to it. Lives from the load to the unload; crashes in between are the supervisor's business.
#pragma once

#include <memory>
#include <string>

#include "fleet/attempts.h"
#include "fleet/fleet.h"
#include "fleet/residency.h"

namespace hearth::fleet {

struct HostOptions {
  SupervisorOptions supervisor;  // limits; the rest is filled in
  std::string socket;
  int device = Residency::cpu;
  int gpus = 0;  // that the machine has
  std::chrono::milliseconds first_token{0};
  std::chrono::milliseconds start_wait{60'000};
};

class ModelHost {
 public:
  ModelHost(net::asio::io_context& io, const ModelSpec& spec, HostOptions options, const Clock& clock);

  Supervisor& supervisor() { return supervisor_; }
  const Supervisor& supervisor() const { return supervisor_; }
  // The way to the process that runs now. A foreign one listens elsewhere after each start, so this is asked for each request.
  wire::Provider& upstream();
  // Waits for a process that is being started again.
  net::Task<Result<void>> ready();
  // Ends the process of a model that nobody uses.
  net::Task<void> stop();
  // Whether a request that was sent to `generation` and failed like this may be sent again: the process ended, and another one is up.
  net::Task<bool> recovered(Error failure, int generation);

 private:
  const std::chrono::milliseconds start_wait_;
  const bool ours_;
  Supervisor supervisor_;
  HttpUpstream upstream_;
  int connected_to_ = 0;  // generation
};

}  // namespace hearth::fleet
