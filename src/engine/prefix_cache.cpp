#include "engine/prefix_cache.h"

#include <algorithm>
#include <cassert>
#include <utility>

namespace hearth::engine {

struct PrefixCache::Node {
  std::vector<Token> edge;  // tokens from the parent to here; empty only for a root
  Node* parent = nullptr;   // null only for a root
  std::map<Token, std::unique_ptr<Node>> children;
  bool resident = true;
  std::vector<std::uint8_t> saved;  // parked: the KV of the edge, unless it is on disk
  ParkedFiles::Entry file;
  bool lost = false;       // its file is damaged
  SeqId seq = -1;          // resident leaves only: a sequence that covers the path from the root to here
  int pins = 0;            // running sequences whose prefix passes through or ends here
  std::uint64_t used = 0;  // never older than a child's

  int length() const { return static_cast<int>(edge.size()); }
  bool has_resident_child() const {
    return std::any_of(children.begin(), children.end(), [](const auto& child) { return child.second->resident; });
  }
};

struct PrefixCache::Tree {
  std::unique_ptr<Node> root = std::make_unique<Node>();
  std::weak_ptr<const Adapter> adapter;  // empty for the model alone
};

namespace {

int common_length(std::span<const Token> a, std::span<const Token> b) {
  const std::size_t n = std::min(a.size(), b.size());
  return static_cast<int>(std::mismatch(a.begin(), a.begin() + static_cast<std::ptrdiff_t>(n), b.begin()).first - a.begin());
}

template <class NodePtr>
NodePtr oldest(const std::vector<NodePtr>& nodes, bool (*eligible)(const NodePtr&)) {
  NodePtr found = nullptr;
  for (NodePtr node : nodes) {
    if (eligible(node) && (found == nullptr || node->used < found->used)) found = node;
  }
  return found;
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

PrefixCache::PrefixCache(Decoder& decoder, SequencePool& pool, std::int64_t idle_bytes, ParkedFiles* files)
    : decoder_(decoder),
      pool_(pool),
      limit_(idle_bytes),
      cell_bytes_(std::max<std::int64_t>(1, decoder.bytes_per_cell())),
      parks_(idle_bytes > 0 && decoder.can_share_prefix() && decoder.saves_all_positions()),
      files_(parks_ ? files : nullptr),
      scratch_(parks_ ? pool.take() : -1) {}
PrefixCache::~PrefixCache() = default;

// Null where nothing was computed under this adapter yet.
const PrefixCache::Node* PrefixCache::root(const AdapterPtr& adapter) const {
  const auto tree = trees_.find(id_of(adapter));
  return tree == trees_.end() ? nullptr : tree->second.root.get();
}

PrefixCache::Node* PrefixCache::make_root(const AdapterPtr& adapter) {
  const auto [tree, fresh] = trees_.try_emplace(id_of(adapter));
  if (fresh) tree->second.adapter = adapter;
  return tree->second.root.get();
}

int PrefixCache::pinned_match(const AdapterPtr& adapter, std::span<const Token> tokens) const {
  const Node* node = root(adapter);
  int matched = 0;
  while (node != nullptr && matched < static_cast<int>(tokens.size())) {
    const auto rest = tokens.subspan(static_cast<std::size_t>(matched));
    const auto child = node->children.find(rest.front());
    if (child == node->children.end() || child->second->pins == 0) break;
    node = child->second.get();
    const int common = common_length(node->edge, rest);
    matched += common;
    if (common < node->length()) break;
  }
  return matched;
}

bool PrefixCache::read_ahead(const AdapterPtr& adapter, std::span<const Token> tokens) const {
  if (files_ == nullptr) return true;
  std::vector<const ParkedFiles::Entry*> on_disk;
  const Node* node = root(adapter);
  for (std::size_t matched = 0; node != nullptr && matched < tokens.size();) {
    const auto rest = tokens.subspan(matched);
    const auto child = node->children.find(rest.front());
    if (child == node->children.end()) break;
    node = child->second.get();
    if (node->file) on_disk.push_back(&node->file);
    const int common = common_length(node->edge, rest);
    matched += static_cast<std::size_t>(common);
    if (common < node->length()) break;
  }
  return files_->read_ahead(on_disk);
}

PrefixCache::Pin PrefixCache::acquire(const AdapterPtr& adapter, std::span<const Token> tokens, SeqId seq, int unused) {
  Node* node = make_root(adapter);
  int matched = 0;
  while (matched < static_cast<int>(tokens.size())) {
    const auto rest = tokens.subspan(static_cast<std::size_t>(matched));
    const auto child = node->children.find(rest.front());
    if (child == node->children.end()) break;
    Node* next = child->second.get();
    // Pinned while we look further, so that making room never takes the path itself.
    pin_path(next);
    const bool there = next->resident || make_resident(next, unused);
    unpin_path(next);
    if (next->lost) drop(next);
    if (!there) break;
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

PrefixCache::Pin PrefixCache::insert(const AdapterPtr& adapter, std::span<const Token> tokens, SeqId seq, Pin pin) {
  if (static_cast<int>(tokens.size()) == pin.tokens) return pin;
  SeqId own = pool_.take();
  while (own < 0) {
    if (!evict_sequence()) return pin;
    own = pool_.take();
  }
  int covered = pin.tokens;
  Node* node = follow(pin.node != nullptr ? pin.node : make_root(adapter), tokens, seq, covered);
  const int total = static_cast<int>(tokens.size());
  if (covered < total) node = add_leaf(node, tokens.subspan(static_cast<std::size_t>(covered)));
  if (any_sequence(node) < 0) {
    decoder_.share(seq, own, 0, total);
    settle(node, own);
  } else {
    pool_.give_back(own);
  }
  pin_path(node);
  release(pin);
  touch(node);
  return {node, total};
}

void PrefixCache::insert_and_release(const AdapterPtr& adapter, std::span<const Token> tokens, SeqId seq, Pin pin) {
  int covered = pin.tokens;
  Node* node = follow(pin.node != nullptr ? pin.node : make_root(adapter), tokens, seq, covered);
  if (covered < static_cast<int>(tokens.size())) node = add_leaf(node, tokens.subspan(static_cast<std::size_t>(covered)));
  if (node->parent != nullptr && any_sequence(node) < 0) {
    settle(node, seq);
  } else {
    decoder_.remove(seq, 0, -1);
    pool_.give_back(seq);
  }
  touch(node);
  release(pin);
}

void PrefixCache::release(Pin pin) {
  if (pin.node != nullptr) unpin_path(pin.node);
}

// Follows `tokens` from `node`, whose depth is `covered`, as far as the tree goes, for a sequence that holds the KV of them all. Where a resident
// node has cells for tokens that `seq` holds cells of its own for, the node's replace them; a parked node takes over the sequence's cells.
// Returns the node reached; `covered` becomes its depth. A node that took over cells has no covering sequence yet.
PrefixCache::Node* PrefixCache::follow(Node* node, std::span<const Token> tokens, SeqId seq, int& covered) {
  const int start = covered;
  Node* shared = node;  // the last node whose cells were there before
  int shared_end = covered;
  while (covered < static_cast<int>(tokens.size())) {
    const auto rest = tokens.subspan(static_cast<std::size_t>(covered));
    const auto child = node->children.find(rest.front());
    if (child == node->children.end()) break;
    Node* next = child->second.get();
    const int common = common_length(next->edge, rest);
    if (!next->resident) {
      if (common < next->length()) {  // saved bytes cannot be divided
        drop(next);
        break;
      }
      forget_saved(next);
      next->resident = true;
      std::erase(parked_, next);
      cells_ += next->length();
      node = next;
      covered += common;
      continue;
    }
    node = common < next->length() ? split(next, common) : next;
    covered += common;
    shared = node;
    shared_end = covered;
  }
  if (shared_end > start) {
    decoder_.remove(seq, start, shared_end);
    decoder_.share(any_sequence(shared), seq, start, shared_end);
  }
  return node;
}

// Hangs a leaf with `edge` under `node`. It has no covering sequence yet.
PrefixCache::Node* PrefixCache::add_leaf(Node* node, std::span<const Token> edge) {
  auto leaf = std::make_unique<Node>();
  leaf->edge.assign(edge.begin(), edge.end());
  leaf->parent = node;
  Node* const added = leaf.get();
  node->children.emplace(edge.front(), std::move(leaf));
  cells_ += added->length();
  return added;
}

// Makes `own`, which covers the whole path to `end`, its sequence. The ancestor that was a leaf until now gives its own back.
void PrefixCache::settle(Node* end, SeqId own) {
  for (Node* node = end->parent; node != nullptr; node = node->parent) {
    if (node->seq < 0) continue;
    decoder_.remove(node->seq, 0, -1);
    pool_.give_back(node->seq);
    node->seq = -1;
    std::erase(leaves_, node);
  }
  end->seq = own;
  leaves_.push_back(end);
}

// Copies a parked node, whose parent is resident, back into cells. False when there is no room.
bool PrefixCache::make_resident(Node* node, int& unused) {
  const int need = node->length();
  if (unused < need) unused += evict(need - unused);
  if (unused < need || (pool_.available() == 0 && !evict_sequence())) return false;
  if (node->file && !take_from_disk(node)) return false;
  const SeqId own = pool_.take();
  if (!decoder_.restore(own, node->saved)) {
    decoder_.remove(own, 0, -1);
    pool_.give_back(own);
    return false;
  }
  unused -= need;
  forget_saved(node);
  node->resident = true;
  std::erase(parked_, node);
  cells_ += need;
  const int start = depth(node->parent);
  if (start > 0) decoder_.share(any_sequence(node->parent), own, 0, start);
  settle(node, own);
  return true;
}

// Cuts a resident `node`'s edge after `at` tokens and returns the new upper half; pointers to `node` keep meaning the whole path.
PrefixCache::Node* PrefixCache::split(Node* node, int at) {
  assert(node->resident && at > 0 && at < node->length());
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
  const Token first = lower->edge.front();
  up->children.emplace(first, std::move(lower));
  slot = std::move(upper);
  return up;
}

// The last place up to `at` where the node's edge can be cut; 0 when there is none.
int PrefixCache::cut(const Node* node, int at) {
  while (at > 0 && inside_image(node->edge, static_cast<std::size_t>(at))) --at;
  return std::max(at, 0);
}

int PrefixCache::evict(int cells) {
  int freed = 0;
  while (freed < cells) {
    Node* leaf = oldest_leaf();
    if (leaf == nullptr) break;
    // The end of an edge goes before its beginning: shorter prefixes serve more requests.
    if (const int at = cut(leaf, leaf->length() - (cells - freed)); at > 0) split(leaf, at);
    freed += leaf->length();
    if (!park(leaf)) drop(leaf);
  }
  trim();
  return freed;
}

bool PrefixCache::evict_sequence() {
  const std::size_t before = pool_.available();
  while (pool_.available() == before) {
    Node* leaf = oldest_leaf();
    if (leaf == nullptr) return false;
    if (!park(leaf)) drop(leaf);
  }
  trim();
  return true;
}

// Moves a resident leaf's KV to host memory. False when that is not possible; then nothing has changed.
bool PrefixCache::park(Node* leaf) {
  if (!parks_ || leaf->length() * cell_bytes_ > limit_) return false;
  const int end = depth(leaf);
  decoder_.share(leaf->seq, scratch_, end - leaf->length(), end);
  auto state = decoder_.save(scratch_);
  decoder_.remove(scratch_, 0, -1);
  if (!state) return false;
  leave_cells(leaf);
  leaf->resident = false;
  leaf->saved = std::move(state).value();
  parked_bytes_ += static_cast<std::int64_t>(leaf->saved.size());
  parked_.push_back(leaf);
  return true;
}

void PrefixCache::forget_saved(Node* node) {
  parked_bytes_ -= static_cast<std::int64_t>(node->saved.size());
  node->saved = {};
  node->file = {};
}

// Makes room there by dropping what nobody has wanted for longer. False when there is none to make; then the node is as it was.
bool PrefixCache::move_to_disk(Node* node) {
  const auto size = static_cast<std::int64_t>(node->saved.size());
  if (files_ == nullptr || !files_->could_hold(size)) return false;
  auto entry = files_->put(node->saved);
  while (!entry) {
    Node* const oldest = oldest_on_disk();
    if (oldest == nullptr || oldest->used > node->used) return false;
    drop(oldest);
    entry = files_->put(node->saved);
  }
  node->file = std::move(*entry);
  parked_bytes_ -= size;
  return true;
}

// False where its file is damaged: then it is lost.
bool PrefixCache::take_from_disk(Node* node) {
  auto bytes = files_->take(std::exchange(node->file, {}));
  node->lost = !bytes.ok();
  if (node->lost) return false;
  node->saved = std::move(bytes).value();
  parked_bytes_ += static_cast<std::int64_t>(node->saved.size());
  return true;
}

// Gives up a resident leaf's cells. Its parent becomes a leaf if nothing else covers it.
void PrefixCache::leave_cells(Node* leaf) {
  const int start = depth(leaf->parent);
  const SeqId seq = leaf->seq;
  leaf->seq = -1;
  leaf->resident = false;
  std::erase(leaves_, leaf);
  cells_ -= leaf->length();
  Node* const parent = leaf->parent;
  if (parent->parent != nullptr && !parent->has_resident_child()) {
    decoder_.remove(seq, start, -1);
    parent->seq = seq;
    leaves_.push_back(parent);
  } else {
    decoder_.remove(seq, 0, -1);
    pool_.give_back(seq);
  }
}

// Removes an unpinned node with everything below it.
void PrefixCache::drop(Node* node) {
  while (!node->children.empty()) drop(node->children.begin()->second.get());
  if (node->resident) {
    leave_cells(node);
  } else {
    forget_saved(node);
    std::erase(parked_, node);
  }
  node->parent->children.erase(node->edge.front());
}

void PrefixCache::trim() {
  while (idle_bytes() > limit_) {
    Node* parked = oldest_parked();
    Node* leaf = oldest_leaf();
    if (parked != nullptr && (leaf == nullptr || parked->used <= leaf->used)) {
      if (!move_to_disk(parked)) drop(parked);
    } else if (leaf != nullptr && files_ != nullptr && park(leaf)) {
      continue;  // on its way to disk
    } else if (leaf != nullptr) {
      const auto excess = static_cast<int>((idle_bytes() - limit_ + cell_bytes_ - 1) / cell_bytes_);
      if (const int at = cut(leaf, leaf->length() - excess); at > 0 && leaf->children.empty()) split(leaf, at);
      drop(leaf);
    } else {
      return;
    }
  }
}

void PrefixCache::drop_unloaded() {
  for (auto tree = trees_.begin(); tree != trees_.end();) {
    auto& children = tree->second.root->children;
    if (tree->first == 0 || !tree->second.adapter.expired()) {
      ++tree;
      continue;
    }
    while (!children.empty()) drop(children.begin()->second.get());
    tree = trees_.erase(tree);
  }
}

std::int64_t PrefixCache::idle_bytes() const { return unpinned_cells() * cell_bytes_ + parked_bytes_; }

PrefixCache::Node* PrefixCache::oldest_leaf() const {
  return oldest<Node*>(leaves_, [](Node* const& node) { return node->pins == 0; });
}

PrefixCache::Node* PrefixCache::oldest_parked() const {
  // What lies on disk does not need its parent in memory; what is dropped takes along what is below.
  const auto nodes = files_ != nullptr ? [](Node* const& node) { return node->pins == 0 && !node->file; }
                                       : [](Node* const& node) { return node->pins == 0 && node->children.empty(); };
  return oldest<Node*>(parked_, nodes);
}

PrefixCache::Node* PrefixCache::oldest_on_disk() const {
  return oldest<Node*>(parked_, [](Node* const& node) { return node->pins == 0 && node->file && node->children.empty(); });
}

void PrefixCache::pin_path(Node* node) {
  for (; node->parent != nullptr; node = node->parent) {
    if (node->pins++ == 0) pinned_ += node->length();
  }
}

void PrefixCache::unpin_path(Node* node) {
  for (; node->parent != nullptr; node = node->parent) {
    if (--node->pins == 0) pinned_ -= node->length();
  }
}

void PrefixCache::touch(Node* node) {
  ++clock_;
  for (; node != nullptr; node = node->parent) node->used = clock_;
}

// A sequence that covers the path to a resident node; -1 where nothing below has been settled yet.
SeqId PrefixCache::any_sequence(const Node* node) {
  SeqId seq = node->seq;
  for (auto child = node->children.begin(); seq < 0 && child != node->children.end(); ++child) {
    if (child->second->resident) seq = any_sequence(child->second.get());
  }
  return seq;
}

int PrefixCache::depth(const Node* node) {
  int total = 0;
  for (; node != nullptr; node = node->parent) total += node->length();
  return total;
}

}  // namespace hearth::engine
