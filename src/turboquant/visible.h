// Which tokens each query row of an attention operation sees, as lists. Sums are rounded tile by tile, so what a tile holds decides the last bits of a result.
// Were tiles made of neighbouring cells of a cache, a sequence that comes back to other cells, or gets other neighbours, would give other bits and now and
// then another token. A list has the tokens a row sees and no others, in the order in which they were written: tiles made of it depend on the row's own
// sequence alone. What is not seen costs nothing either, such as the other sequences of a batch.
//
// Rows that see the same, or each what the row before sees and then some, share a list; a mask tells them apart. So do rows of a window that slides over a
// sequence: their lists begin at different tokens, and the first row of the group decides where tiles begin.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace hearth::turboquant {

struct Attention;

inline constexpr std::uint16_t kHidden = 0xfc00;  // −∞ in a mask: not seen
inline constexpr int kRows = 64;                  // query rows (query, head of a KV head's group) that are worked on together: a block

class VisibleTokens {
 public:
  // `count` tokens next to each other in memory and in the list, where the first is number `rank`.
  struct Run {
    std::int32_t first, count, rank;
  };
  // Neighbouring rows of a block, and their list.
  struct Group {
    std::int32_t first_row = 0, rows = 0;
    std::int32_t count = 0;                       // tokens in the list
    std::int32_t plain_begin = 0, plain_end = 0;  // of the list: every row sees them, and the mask adds nothing
    std::size_t first_run = 0, runs = 0;
  };

  // From the operation's mask and order. Everything, where it has no mask.
  void build(const Attention& attention);

  std::span<const Group> groups(int stream, int kv_head, int block) const;
  std::span<const Run> runs(const Group& group) const { return std::span(runs_).subspan(group.first_run, group.runs); }
  int longest() const { return longest_; }  // tokens of a list

 private:
  struct Row {
    std::vector<std::uint64_t> bits;  // by token: seen
    bool plain = true;                // the mask adds nothing to what is seen
  };
  void start(const Row& row, int stream);
  bool extend(const Row& before, const Row& row, int stream);
  void append(std::int32_t token);
  bool earlier(std::int32_t a, std::int32_t b, int stream) const;
  std::uint64_t order(std::int32_t token, int stream) const;

  const std::uint64_t* order_ = nullptr;
  std::size_t order_stride_ = 0;
  int mask_streams_ = 1, kv_heads_ = 1, blocks_ = 1, longest_ = 0;
  std::vector<std::size_t> begin_;  // by (mask stream, KV head where heads differ, block): its first group; then the end of all
  std::vector<Group> groups_;
  std::vector<Run> runs_;
  // Of the list that is being made: its last token, and the run and token where the latest row's list begins.
  std::int32_t last_ = 0;
  std::size_t front_run_ = 0;
  std::int32_t front_skip_ = 0;
  Row row_, before_;
  std::vector<std::int32_t> added_, removed_;
};

}  // namespace hearth::turboquant
