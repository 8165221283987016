// Tier 3: passages of documents that an operator registered. Text is reduced to its letters and digits, in lower case; of the hashes of all stretches of
// `shingle` characters, the least of each window is kept (winnowing: Schleimer, Wilkerson, Aiken, SIGMOD 2003). Any `shingle + window - 1` characters in common
// are sure to share a fingerprint, whatever stands around them; nothing of the document itself is kept.
#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "safety/argus_detect.h"

namespace hearth::safety::argus {

class Documents {
 public:
  static constexpr std::size_t shingle = 20;
  static constexpr std::size_t window = 12;

  // invalid_request when there is too little to be told apart.
  Result<void> protect(std::string name, std::string_view text);
  bool empty() const { return names_.empty(); }
  // Passages of which at least `similarity` is a registered document's.
  void find(std::string_view text, double similarity, Hits& hits) const;

 private:
  std::vector<std::string> names_;
  std::unordered_map<std::uint64_t, std::uint32_t> fingerprints_;  // → document; the first that has it
};

}  // namespace hearth::safety::argus
