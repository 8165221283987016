// What this machine offers a model, inside whatever container it runs in.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "base/result.h"

namespace hearth::app {

struct Memory {
  std::uint64_t total = 0;      // bytes of the machine; 0 = unknown
  std::uint64_t available = 0;  // what a new process may take: the machine's, or what its control group leaves if that is less
  std::uint64_t limit = 0;      // of the control group; 0 = none
};

// `root` stands before /proc and /sys: tests put their own tree there.
Memory read_memory(const std::filesystem::path& root = "/");

struct Processors {
  int online = 0;    // this process may run on
  int physical = 0;  // cores among those; 0 = unknown
  double quota = 0;  // CPUs' worth of time the control group grants; 0 = no limit
  std::string model;
};
Processors read_processors(const std::filesystem::path& root = "/");

struct Gpu {
  std::string name;
  std::uint64_t total = 0;  // bytes
  std::uint64_t free = 0;
};
// The GPUs that models could run on, as `program worker --list-devices` tells: a process of its own, so that a driver's faults and memory stay there.
// Takes a moment. io when it fails, with what it said.
Result<std::vector<Gpu>> read_gpus(const std::string& program);

// Why nobody could listen on this address now: an errno, 0 when it is free or `host` is a name that would have to be looked up.
int listen_problem(const std::string& host, std::uint16_t port);

}  // namespace hearth::app
