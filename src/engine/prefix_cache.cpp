#include "engine/prefix_cache.h"

#include <algorithm>
#include <cassert>

namespace hearth::engine {

struct PrefixCache::Node {
  std::vector<Token> edge;  // tokens from the parent to here; empty only for the root
  Node* parent = nullptr;
  std::map<Token, std::unique_ptr<Node>> children;
  SeqId seq = -1;  // leaves only: a sequence that covers the path from the root to here
  int pins = 0;    // running sequences whose prefix passes through or ends here
  std::uint64_t used = 0;

  int length() const { return static_cast<int>(edge.size()); }
  bool leaf() const { return children.empty() && parent != nullptr; }
};

namespace {
int common_length(std::span<const Token> a, std::span<const Token> b) {
  const std::size_t n = std::min(a.size(), b.size());
  return static_cast<int>(std::mismatch(a.begin(), a.begin() + static_cast<std::ptrdiff_t>(n), b.begin()).first - a.begin());
}
}  // namespace

SequencePool::SequencePool(int count) {
  for (SeqId id = count - 1; id >= 0; --id) free_.push_back(id);
}

SeqId SequencePool::take() {
  if (free_.empty()) return -1;
  const SeqId id = free_.back();
  free_.pop_back();
  return id;
}

PrefixCache::PrefixCache(Decoder& decoder, SequencePool& pool) : decoder_(decoder), pool_(pool), root_(std::make_unique<Node>()) {}
PrefixCache::~PrefixCache() = default;

PrefixCache::Match PrefixCache::peek(std::span<const Token> tokens) const {
  Match match;
  const Node* node = root_.get();
  for (;;) {
    const auto rest = tokens.subspan(static_cast<std::size_t>(match.tokens));
    if (rest.empty()) return match;
    const auto child = node->children.find(rest.front());
    if (child == node->children.end()) return match;
    node = child->second.get();
    const int common = common_length(node->edge, rest);
    match.tokens += common;
    if (node->pins == 0) match.unpinned += common;
    if (common < node->length()) return match;
  }
}

PrefixCache::Pin PrefixCache::acquire(std::span<const Token> tokens, SeqId seq) {
  Node* node = root_.get();
  int matched = 0;
  for (;;) {
    const auto rest = tokens.subspan(static_cast<std::size_t>(matched));
    if (rest.empty()) break;
    const auto child = node->children.find(rest.front());
    if (child == node->children.end()) break;
    Node* next = child->second.get();
    const int common = common_length(next->edge, rest);
    node = common < next->length() ? split(next, common) : next;
    matched += common;
  }
  if (matched == 0) return {};
  decoder_.share(any_sequence(node), seq, 0, matched);
  pin_path(node);
  touch(node);
  return {node, matched};
}

PrefixCache::Pin PrefixCache::insert(std::span<const Token> tokens, SeqId seq, Pin pin) {
  if (static_cast<int>(tokens.size()) == pin.tokens) return pin;
  SeqId own = pool_.take();
  while (own < 0) {
    if (!evict_sequence()) return pin;
    own = pool_.take();
  }
  int covered = pin.tokens;
  Node* node = extend(tokens, seq, pin.node != nullptr ? pin.node : root_.get(), pin.tokens, covered);
  const int total = static_cast<int>(tokens.size());
  if (covered < total) {
    decoder_.share(seq, own, 0, total);
    node = add_leaf(node, tokens.subspan(static_cast<std::size_t>(covered)), own);
  } else {
    pool_.give_back(own);
  }
  pin_path(node);
  if (pin.node != nullptr) unpin_path(pin.node);
  touch(node);
  return {node, total};
}

void PrefixCache::insert_and_release(std::span<const Token> tokens, SeqId seq, Pin pin) {
  int covered = pin.tokens;
  Node* node = extend(tokens, seq, pin.node != nullptr ? pin.node : root_.get(), pin.tokens, covered);
  if (covered < static_cast<int>(tokens.size())) {
    node = add_leaf(node, tokens.subspan(static_cast<std::size_t>(covered)), seq);
  } else {
    decoder_.remove(seq, 0, -1);
    pool_.give_back(seq);
  }
  touch(node);
  if (pin.node != nullptr) unpin_path(pin.node);
}

void PrefixCache::release(Pin pin) {
  if (pin.node != nullptr) unpin_path(pin.node);
}

// Hangs a leaf with `edge`, covered by `seq`, under `node`; a node that was a leaf itself is covered by the new one and gives its sequence back.
PrefixCache::Node* PrefixCache::add_leaf(Node* node, std::span<const Token> edge, SeqId seq) {
  if (node->leaf()) {
    decoder_.remove(node->seq, 0, -1);
    pool_.give_back(node->seq);
    node->seq = -1;
    std::erase(leaves_, node);
  }
  auto leaf = std::make_unique<Node>();
  leaf->edge.assign(edge.begin(), edge.end());
  leaf->parent = node;
  leaf->seq = seq;
  Node* const added = leaf.get();
  node->children.emplace(edge.front(), std::move(leaf));
  leaves_.push_back(added);
  cells_ += added->length();
  return added;
}

// Follows `tokens` from `from` (at `depth`) as far as the tree goes; where `seq` holds cells of its own for tokens the tree has, replaces them by
// the tree's. Returns the node reached; `covered` is its depth.
PrefixCache::Node* PrefixCache::extend(std::span<const Token> tokens, SeqId seq, Node* from, int depth, int& covered) {
  Node* node = from;
  covered = depth;
  while (covered < static_cast<int>(tokens.size())) {
    const auto rest = tokens.subspan(static_cast<std::size_t>(covered));
    const auto child = node->children.find(rest.front());
    if (child == node->children.end()) break;
    Node* next = child->second.get();
    const int common = common_length(next->edge, rest);
    node = common < next->length() ? split(next, common) : next;
    covered += common;
  }
  if (covered > depth) {
    decoder_.remove(seq, depth, covered);
    decoder_.share(any_sequence(node), seq, depth, covered);
  }
  return node;
}

// Cuts `node`'s edge after `at` tokens and returns the new upper half; pointers to `node` keep meaning the whole path.
PrefixCache::Node* PrefixCache::split(Node* node, int at) {
  assert(at > 0 && at < node->length());
  auto upper = std::make_unique<Node>();
  Node* const up = upper.get();
  up->parent = node->parent;
  up->edge.assign(node->edge.begin(), node->edge.begin() + at);
  up->pins = node->pins;
  up->used = node->used;
  auto& slot = node->parent->children.at(node->edge.front());
  std::unique_ptr<Node> lower = std::move(slot);
  lower->edge.erase(lower->edge.begin(), lower->edge.begin() + at);
  lower->parent = up;
  up->children.emplace(lower->edge.front(), std::move(lower));
  slot = std::move(upper);
  return up;
}

int PrefixCache::evict(int cells) {
  int freed = 0;
  while (freed < cells) {
    Node* leaf = least_recent_leaf();
    if (leaf == nullptr) break;
    const int n = std::min(cells - freed, leaf->length());
    cut(leaf, n);
    freed += n;
  }
  return freed;
}

bool PrefixCache::evict_sequence() {
  const std::size_t before = pool_.available();
  while (pool_.available() == before) {
    Node* leaf = least_recent_leaf();
    if (leaf == nullptr) return false;
    cut(leaf, leaf->length());
  }
  return true;
}

PrefixCache::Node* PrefixCache::least_recent_leaf() const {
  Node* oldest = nullptr;
  for (Node* leaf : leaves_) {
    if (leaf->pins == 0 && (oldest == nullptr || leaf->used < oldest->used)) oldest = leaf;
  }
  return oldest;
}

// Drops the last `n` tokens of a leaf's edge. An empty edge removes the leaf; its parent becomes a leaf if that was its only child.
void PrefixCache::cut(Node* leaf, int n) {
  const int end = depth(leaf);
  cells_ -= n;
  if (n < leaf->length()) {
    decoder_.remove(leaf->seq, end - n, -1);
    leaf->edge.resize(leaf->edge.size() - static_cast<std::size_t>(n));
    return;
  }
  Node* parent = leaf->parent;
  const SeqId seq = leaf->seq;
  std::erase(leaves_, leaf);
  parent->children.erase(leaf->edge.front());
  if (parent != root_.get() && parent->children.empty()) {
    decoder_.remove(seq, end - n, -1);
    parent->seq = seq;
    leaves_.push_back(parent);
  } else {
    decoder_.remove(seq, 0, -1);
    pool_.give_back(seq);
  }
}

void PrefixCache::pin_path(Node* node) {
  for (; node != root_.get(); node = node->parent) {
    if (node->pins++ == 0) pinned_ += node->length();
  }
}

void PrefixCache::unpin_path(Node* node) {
  for (; node != root_.get(); node = node->parent) {
    if (--node->pins == 0) pinned_ -= node->length();
  }
}

void PrefixCache::touch(Node* node) {
  ++clock_;
  for (; node != nullptr; node = node->parent) node->used = clock_;
}

SeqId PrefixCache::any_sequence(const Node* node) const {
  while (!node->children.empty()) node = node->children.begin()->second.get();
  return node->seq;
}

int PrefixCache::depth(const Node* node) {
  int total = 0;
  for (; node != nullptr; node = node->parent) total += node->length();
  return total;
}

}  // namespace hearth::engine
