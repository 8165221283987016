// Timing a piece of our own code in a loop.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <stdexcept>
#include <utility>
#include <vector>

#include "base/result.h"

namespace hearth::bench {

// Keeps the compiler from dropping work whose result nobody reads.
template <class T>
void keep(const T& value) {
  asm volatile("" : : "r"(&value) : "memory");
}

// Seconds that one call of `work` takes, averaged over about `seconds`; one value per round.
template <class Work>
std::vector<double> timed(int rounds, double seconds, const Work& work) {
  using Clock = std::chrono::steady_clock;
  const auto run = [&work](std::size_t times) {
    const auto begin = Clock::now();
    for (std::size_t i = 0; i < times; ++i) work();
    return std::chrono::duration<double>(Clock::now() - begin).count();
  };
  run(1);
  const double once = std::max(run(1), 1e-9);
  const auto times = static_cast<std::size_t>(std::max(1.0, seconds / once));
  std::vector<double> values;
  for (int round = 0; round < rounds; ++round) values.push_back(run(times) / static_cast<double>(times));
  return values;
}

template <class T>
T must(Result<T> result) {
  if (!result.ok()) throw std::runtime_error(result.error().message);
  return std::move(result).value();
}
inline void must(Result<void> result) {
  if (!result.ok()) throw std::runtime_error(result.error().message);
}

}  // namespace hearth::bench
