// Requests begin alike: the same system prompt, the same tools, the conversation so far. The prefix cache keeps the KV cells of what was already
// computed and hands them to the next request that starts with the same tokens, whoever sent it. It is a radix tree over tokens; every node owns
// the KV cells of its edge. A leaf holds a decoder sequence that covers the whole path from the root; inner nodes are covered by any leaf
// below them. Paths in use by running sequences are pinned; of the rest the least recently used is cut from its end, only as far as needed.
// Not thread-safe: belongs to the scheduler's thread.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "engine/decoder.h"

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
  PrefixCache(Decoder& decoder, SequencePool& pool);
  ~PrefixCache();
  PrefixCache(const PrefixCache&) = delete;
  PrefixCache& operator=(const PrefixCache&) = delete;

  struct Node;
  // A pinned path: while it lives, the cells of its tokens are not evicted. Default: the empty prefix.
  struct Pin {
    Node* node = nullptr;
    int tokens = 0;
  };
  struct Match {
    int tokens = 0;    // length of the longest cached prefix of the given tokens
    int unpinned = 0;  // of those, cells that nobody pins yet: pinning takes them from what could be evicted
  };

  // What acquire() would find, without changing anything.
  Match peek(std::span<const Token> tokens) const;
  // Pins the longest cached prefix and lends its cells to `seq`, which must be empty.
  Pin acquire(std::span<const Token> tokens, SeqId seq);
  // `seq` holds the KV of all `tokens`, of which the first pin.tokens came from `pin`. Moves the rest into the tree (cells that the tree has
  // already are folded into its own) and pins the whole path instead. `seq` goes on owning nothing but its view. When no sequence id is left for
  // a new leaf even after eviction, the tree stays as it is and `pin` is returned unchanged.
  Pin insert(std::span<const Token> tokens, SeqId seq, Pin pin);
  // Like insert for a sequence that is done: `seq` itself becomes the leaf or is given back to the pool, and nothing stays pinned.
  void insert_and_release(std::span<const Token> tokens, SeqId seq, Pin pin);
  void release(Pin pin);

  // Frees at least `cells` unpinned cells, or all there are. Returns how many.
  int evict(int cells);
  // Frees a sequence id by dropping least recently used leaves. False when every leaf is pinned.
  bool evict_sequence();

  int cells() const { return cells_; }
  int pinned_cells() const { return pinned_; }
  int unpinned_cells() const { return cells_ - pinned_; }

 private:
  Node* split(Node* node, int at);
  Node* add_leaf(Node* node, std::span<const Token> edge, SeqId seq);
  Node* extend(std::span<const Token> tokens, SeqId seq, Node* from, int depth, int& covered);
  Node* least_recent_leaf() const;
  void cut(Node* leaf, int cells);
  void pin_path(Node* node);
  void unpin_path(Node* node);
  void touch(Node* node);
  SeqId any_sequence(const Node* node) const;
  static int depth(const Node* node);

  Decoder& decoder_;
  SequencePool& pool_;
  std::unique_ptr<Node> root_;
  std::vector<Node*> leaves_;
  int cells_ = 0;
  int pinned_ = 0;
  std::uint64_t clock_ = 0;  // counts uses; orders them
};

}  // namespace hearth::engine
