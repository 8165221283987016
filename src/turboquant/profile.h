// Named widths for keys and values. Keys are the sensitive side; the first and last layers are more sensitive than the middle.
//
//   PROFILE[,guard=LAYERS][,sinks=TOKENS]     e.g. "k3v2", "k4v3,guard=0", "k3v2,guard=4,sinks=4"
//
// `guard`: so many layers at each end keep 8-bit keys and 4-bit values. Not given: two, none in models of less than 8 layers, one below 16.
// `sinks`: the first so many cells of the cache keep 8 bits in every layer, in a buffer of their own. Cells, not positions, because a cache row does not know its
// position: right for a cache that one sequence fills from the start, without effect where sequences share cells, as in
// hearth's pool: the ggml device refuses it. Not given: none.
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
  int sinks = 0;   // cells

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
// In all layers of a model whose heads are all of one size. What `sinks` adds is not in it: it does not grow with tokens.
std::uint64_t bytes_per_token(const Profile& profile, std::int64_t head_size, std::int64_t heads, int layers);

}  // namespace hearth::turboquant
