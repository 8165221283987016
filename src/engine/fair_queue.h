// Deficit round-robin (Shreedhar and Varghese, 1995): tenants take turns, each turn earns `quantum` tokens of credit, and a tenant's next item is
// served when its credit covers the item's cost. A tenant that sends many or long requests waits for itself, not others.
#pragma once

#include <deque>
#include <iterator>
#include <list>
#include <string>
#include <unordered_map>
#include <utility>

namespace hearth::engine {

template <class T>
class FairQueue {
 public:
  explicit FairQueue(int quantum) : quantum_(quantum) {}

  void push(const std::string& tenant, T item, int cost) {
    auto [it, fresh] = lines_.try_emplace(tenant);
    if (fresh) turns_.push_back(tenant);
    it->second.items.push_back({std::move(item), cost});
    ++size_;
  }
  // Puts back an item taken before, in front of its tenant's line.
  void push_front(const std::string& tenant, T item, int cost) {
    auto [it, fresh] = lines_.try_emplace(tenant);
    if (fresh) turns_.push_front(tenant);
    it->second.items.push_front({std::move(item), cost});
    ++size_;
  }
  bool empty() const { return size_ == 0; }
  std::size_t size() const { return size_; }

  // The item whose turn it is; nullptr when empty. Stays the same until taken, removed, or something is pushed in front.
  T* front() {
    if (size_ == 0) return nullptr;
    for (;;) {
      Line& line = lines_.at(turns_.front());
      if (line.credit >= line.items.front().cost) return &line.items.front().item;
      line.credit += quantum_;
      if (line.credit >= line.items.front().cost) return &line.items.front().item;
      turns_.splice(turns_.end(), turns_, turns_.begin());
    }
  }
  T take_front() {
    T* const item = front();
    T taken = std::move(*item);
    Line& line = lines_.at(turns_.front());
    line.credit -= line.items.front().cost;
    line.items.pop_front();
    --size_;
    if (line.items.empty()) {
      drop_if_empty(turns_.begin());
    } else if (line.credit < line.items.front().cost) {  // its turn is over
      turns_.splice(turns_.end(), turns_, turns_.begin());
    }
    return taken;
  }
  // Removes every item for which `gone` holds.
  template <class Predicate>
  void remove_if(Predicate gone) {
    for (auto turn = turns_.begin(); turn != turns_.end();) {
      auto& items = lines_.at(*turn).items;
      for (auto it = items.begin(); it != items.end();) {
        if (gone(it->item)) {
          it = items.erase(it);
          --size_;
        } else {
          ++it;
        }
      }
      const auto next = std::next(turn);
      drop_if_empty(turn);
      turn = next;
    }
  }

 private:
  struct Entry {
    T item;
    int cost;
  };
  struct Line {
    std::deque<Entry> items;
    long credit = 0;
  };
  // An idle tenant keeps no credit: it cannot save up while it asks for nothing.
  void drop_if_empty(std::list<std::string>::iterator turn) {
    if (!lines_.at(*turn).items.empty()) return;
    lines_.erase(*turn);
    turns_.erase(turn);
  }

  int quantum_;
  std::size_t size_ = 0;
  std::unordered_map<std::string, Line> lines_;
  std::list<std::string> turns_;
};

}  // namespace hearth::engine
