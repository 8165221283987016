// Several endpoints serve one model, and each keeps the prefixes it has computed. A conversation should return to the endpoint that has its beginning, without
// one of them drowning in work while others idle, and without a table of who went where.
//
// Rendezvous hashing with bounded loads: the hash of (key, endpoint) ranks the endpoints for each conversation; when one joins or leaves, only the
// conversations that ranked it first move. An endpoint that already has more than `load_factor` times its fair share of the running requests goes
// behind the others for this request; one that is not available is left out.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace hearth::fleet {

struct Candidate {
  std::string_view name;  // its identity in the ranking: must not change with its position
  int in_flight = 0;      // requests running and waiting there
  bool available = true;  // e.g. its circuit breaker lets requests through
};

// The order in which to try the candidates, as indices; empty when none is available. `key` as of prefix_key().
std::vector<std::size_t> place(std::uint64_t key, std::span<const Candidate> candidates, double load_factor = 1.25);

}  // namespace hearth::fleet
