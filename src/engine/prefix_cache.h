// Requests begin alike: the same system prompt, the same tools, the conversation so far. The prefix cache keeps the KV of what was already computed
// and hands it to the next request that starts with the same tokens, whoever sent it. It is a radix tree over tokens for each adapter, because keys
// and values computed under one are wrong under any other; every node owns the KV of its edge, either resident in the decoder's cells or parked as bytes in host memory. Idle resident cells cost every running sequence time,
// because attention passes over all cells in use; so idle prefixes are parked while others run, and come back by a copy instead of a computation. What exceeds
// the limit for host memory goes to disk, where there is a place for it (parked_files.h).
//
// Resident nodes form a tree of their own at each root. Its leaves hold a decoder sequence that covers the whole path from the root; inner nodes are
// covered by any leaf below them. Paths in use by running sequences are pinned and stay resident. Of the rest the least recently used goes first.
// Not thread-safe: belongs to the scheduler's thread.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "engine/decoder.h"
#include "engine/parked_files.h"

namespace hearth::engine {

// The decoder's sequence ids, handed out and taken back.
class SequencePool {
 public:
  explicit SequencePool(int count);
  SeqId take();  // -1 when none is left
  void give_back(SeqId id) { free_.push_back(id); }
  std::size_t available() const { return free_.size(); }

 private:
  std::vector<SeqId> free_;
};

class PrefixCache {
 public:
  // `idle_bytes`: how much KV that nobody uses may be kept, resident and parked together; 0 keeps none. `files`: where the rest goes; null: nowhere.
  PrefixCache(Decoder& decoder, SequencePool& pool, std::int64_t idle_bytes, ParkedFiles* files = nullptr);
  ~PrefixCache();
  PrefixCache(const PrefixCache&) = delete;
  PrefixCache& operator=(const PrefixCache&) = delete;

  struct Node;
  // A pinned path: while it lives, the cells of its tokens stay. Default: the empty prefix.
  struct Pin {
    Node* node = nullptr;
    int tokens = 0;
  };

  // Of the longest cached prefix of `tokens`, the cells that running sequences have pinned: using them costs no cell.
  int pinned_match(const AdapterPtr& adapter, std::span<const Token> tokens) const;
  // Has what lies on disk of the longest cached prefix read; true once acquire() need not wait for the disk.
  bool read_ahead(const AdapterPtr& adapter, std::span<const Token> tokens) const;
  // Pins the longest cached prefix and lends its cells to `seq`, which must be empty. Parked parts are made resident first, as far as `unused`
  // empty cells and what can be evicted suffice.
  Pin acquire(const AdapterPtr& adapter, std::span<const Token> tokens, SeqId seq, int unused);
  // `seq` holds the KV of all `tokens`, of which the first pin.tokens came from `pin`. Moves the rest into the tree (cells that the tree has
  // already are folded into its own) and pins the whole path instead. `seq` goes on owning nothing but its view. When no sequence id is left for
  // a new leaf even after eviction, the tree stays as it is and `pin` is returned unchanged.
  Pin insert(const AdapterPtr& adapter, std::span<const Token> tokens, SeqId seq, Pin pin);
  // Like insert for a sequence that is done: `seq` itself becomes the leaf or is given back to the pool, and nothing stays pinned.
  void insert_and_release(const AdapterPtr& adapter, std::span<const Token> tokens, SeqId seq, Pin pin);
  void release(Pin pin);

  // Frees at least `cells` unpinned cells, or all there are, parking their KV where that is possible. Returns how many.
  int evict(int cells);
  // Frees a sequence id by evicting least recently used leaves. False when every leaf is pinned.
  bool evict_sequence();
  // Whether evicted prefixes are parked rather than lost.
  bool parks() const { return parks_; }
  // Drops what exceeds the limit for idle KV.
  void trim();
  // Drops the prefixes of adapters that nobody holds any more: they can never be asked for again.
  void drop_unloaded();

  int cells() const { return cells_; }  // resident
  int pinned_cells() const { return pinned_; }
  int unpinned_cells() const { return cells_ - pinned_; }
  std::int64_t parked_bytes() const { return parked_bytes_; }

 private:
  struct Tree;

  const Node* root(const AdapterPtr& adapter) const;
  Node* make_root(const AdapterPtr& adapter);
  Node* split(Node* node, int at);
  static int cut(const Node* node, int at);
  Node* add_leaf(Node* node, std::span<const Token> edge);
  void settle(Node* end, SeqId own);
  Node* follow(Node* from, std::span<const Token> tokens, SeqId seq, int& covered);
  bool make_resident(Node* node, int& unused);
  bool park(Node* leaf);
  bool move_to_disk(Node* parked);
  bool take_from_disk(Node* node);
  void forget_saved(Node* node);
  void leave_cells(Node* leaf);
  void drop(Node* node);
  Node* oldest_leaf() const;
  Node* oldest_parked() const;
  Node* oldest_on_disk() const;
  void pin_path(Node* node);
  void unpin_path(Node* node);
  void touch(Node* node);
  std::int64_t idle_bytes() const;
  static SeqId any_sequence(const Node* node);
  static int depth(const Node* node);

  Decoder& decoder_;
  SequencePool& pool_;
  const std::int64_t limit_;
  const std::int64_t cell_bytes_;
  const bool parks_;
  ParkedFiles* const files_;
  SeqId scratch_;                        // holds one edge alone while it is saved
  std::map<std::uint64_t, Tree> trees_;  // by adapter id
  std::vector<Node*> leaves_;            // resident, without resident children
  std::vector<Node*> parked_;            // in host memory or on disk
  int cells_ = 0;
  int pinned_ = 0;
  std::int64_t parked_bytes_ = 0;
  std::uint64_t clock_ = 0;  // counts uses; orders them
};

}  // namespace hearth::engine
