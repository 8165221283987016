// Named widths for keys and values. Keys are the sensitive side; the first and last layers are more sensitive than the middle.
//
//   PROFILE[,guard=LAYERS][,sinks=TOKENS]     e.g. "k3v2", "k4v3,guard=0", "k3v2,guard=4,sinks=4"
//
// `guard`: so many layers at each end keep 8-bit keys and 4-bit values. Not given: two, none in models of less than 8 layers, one below 16.
// `sinks`: the first so many tokens of each sequence have a second record of 8 bits in every layer, which is read instead of the narrow one (attention sinks).
// These take room beside the cells (protected_slots). Not given: none.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "base/result.h"

namespace hearth::turboquant {

struct Widths {
  int keys = 0, values = 0;  // bits of one coordinate
};

struct Profile {
  std::string_view name;  // "k8v4"
  std::string_view use;   // one line for people
  Widths widths;
  Widths guarded;  // of the first and last layers
  int guard = -1;  // layers at each end; −1: see above
  int sinks = 0;   // tokens of a sequence

  // Of layer 0 … layers − 1.
  Widths of_layer(int layer, int layers) const;
};

inline constexpr int kMaxSinks = 256;
inline constexpr Widths kSinkWidths{8, 8};

// Best quality first.
std::span<const Profile> profiles();
// A profile with its options. config_invalid, naming all profiles or options there are.
Result<Profile> find_profile(std::string_view text);

// Bytes that one token takes in one layer: `heads` keys and values of these sizes.
std::uint64_t bytes_per_token(Widths widths, std::int64_t heads, std::int64_t key_size, std::int64_t value_size);
// How many tokens of a cache can have such a second record: enough for all sequences whose length is at least 64 times `sinks`, or for two in each of the
// cache's streams if that is more; never for more than 64 sequences.
std::int64_t protected_slots(const Profile& profile, std::int64_t cells, std::int64_t streams);
// In all layers of a model whose heads are all of one size. What `sinks` adds is not in it.
std::uint64_t bytes_per_token(const Profile& profile, std::int64_t head_size, std::int64_t heads, int layers);

}  // namespace hearth::turboquant
