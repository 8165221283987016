#include "fleet/placement.h"

#include <algorithm>
#include <cmath>

namespace hearth::fleet {
namespace {

// splitmix64's finaliser: every input bit reaches every output bit.
std::uint64_t mix(std::uint64_t x) {
  x ^= x >> 30;
  x *= 0xbf58476d1ce4e5b9U;
  x ^= x >> 27;
  x *= 0x94d049bb133111ebU;
  return x ^ (x >> 31);
}

std::uint64_t rank(std::uint64_t key, std::string_view name) {
  std::uint64_t hash = 0xcbf29ce484222325U;  // FNV-1a
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3U;
  return mix(mix(key) ^ hash);
}

}  // namespace

std::vector<std::size_t> place(std::uint64_t key, std::span<const Candidate> candidates, double load_factor) {
  struct Ranked {
    std::size_t index;
    std::uint64_t rank;
    bool full;
  };
  int total = 1;  // with the request that is being placed
  int available = 0;
  for (const auto& candidate : candidates) {
    if (!candidate.available) continue;
    ++available;
    total += candidate.in_flight;
  }
  if (available == 0) return {};
  const int most = static_cast<int>(std::ceil(load_factor * total / available));
  std::vector<Ranked> ranked;
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    if (candidates[i].available) ranked.push_back({i, rank(key, candidates[i].name), candidates[i].in_flight >= most});
  }
  std::sort(ranked.begin(), ranked.end(), [&](const Ranked& a, const Ranked& b) {
    if (a.full != b.full) return b.full;
    if (a.rank != b.rank) return a.rank > b.rank;
    return candidates[a.index].name < candidates[b.index].name;
  });
  std::vector<std::size_t> order;
  for (const auto& one : ranked) order.push_back(one.index);
  return order;
}

}  // namespace hearth::fleet
