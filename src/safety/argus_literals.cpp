#include "safety/argus_literals.h"

#include <cassert>
#include <deque>
#include <limits>

namespace hearth::safety::argus {
namespace {

constexpr unsigned char lower(unsigned char c) { return c >= 'A' && c <= 'Z' ? static_cast<unsigned char>(c + 32) : c; }

}  // namespace

void Literals::add(std::string_view literal, std::uint32_t id) {
  assert(!literal.empty());
  std::vector<std::uint8_t> word;
  for (const char c : literal) {
    auto& known = classes_[lower(static_cast<unsigned char>(c))];
    if (known == 0) known = static_cast<std::uint8_t>(width_++);
    word.push_back(known);
  }
  literals_.emplace_back(std::move(word), id);
}

void Literals::build() {
  for (unsigned char c = 'A'; c <= 'Z'; ++c) classes_[c] = classes_[lower(c)];
  constexpr std::uint32_t none = std::numeric_limits<std::uint32_t>::max();
  struct Node {
    std::vector<std::uint32_t> next;
    std::uint32_t fail = 0;
    std::vector<std::pair<std::uint32_t, std::uint32_t>> ids;
  };
  std::vector<Node> nodes(1);
  nodes[0].next.assign(width_, none);
  for (const auto& [word, id] : literals_) {
    std::uint32_t at = 0;
    for (const auto c : word) {
      if (nodes[at].next[c] == none) {
        nodes[at].next[c] = static_cast<std::uint32_t>(nodes.size());
        nodes.emplace_back().next.assign(width_, none);
      }
      at = nodes[at].next[c];
    }
    nodes[at].ids.emplace_back(id, static_cast<std::uint32_t>(word.size()));
  }
  std::deque<std::uint32_t> queue;
  for (auto& child : nodes[0].next) {
    if (child == none) {
      child = 0;
    } else {
      queue.push_back(child);
    }
  }
  while (!queue.empty()) {
    const std::uint32_t at = queue.front();
    queue.pop_front();
    const auto& inherited = nodes[nodes[at].fail].ids;
    nodes[at].ids.insert(nodes[at].ids.end(), inherited.begin(), inherited.end());
    for (std::uint32_t c = 0; c < width_; ++c) {
      const std::uint32_t child = nodes[at].next[c];
      const std::uint32_t other = nodes[nodes[at].fail].next[c];
      if (child == none) {
        nodes[at].next[c] = other;
      } else {
        nodes[child].fail = other;
        queue.push_back(child);
      }
    }
  }
  // States without output come first, so that one comparison tells.
  std::vector<std::uint32_t> number(nodes.size());
  std::uint32_t count = 0;
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    if (nodes[i].ids.empty()) number[i] = count++;
  }
  first_output_ = count;
  while ((1U << shift_) < width_) ++shift_;
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    if (!nodes[i].ids.empty()) number[i] = count++;
  }
  assert(count <= std::numeric_limits<std::uint16_t>::max());
  next_.resize(nodes.size() << shift_);
  outputs_.resize(nodes.size() - first_output_);
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    for (std::uint32_t c = 0; c < width_; ++c) next_[(number[i] << shift_) + c] = static_cast<std::uint16_t>(number[nodes[i].next[c]]);
    if (nodes[i].ids.empty()) continue;
    auto& output = outputs_[number[i] - first_output_];
    output.first = static_cast<std::uint32_t>(ids_.size());
    ids_.insert(ids_.end(), nodes[i].ids.begin(), nodes[i].ids.end());
    output.second = static_cast<std::uint32_t>(ids_.size());
  }
  literals_.clear();
}

}  // namespace hearth::safety::argus
