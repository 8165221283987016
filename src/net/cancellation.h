// A request can end from outside at any moment: its client leaves, or somebody stops it. Whoever learns of it requests its Cancellation, which is handed
// down with the request, so that whatever waits on the way (a queue, a connection, the head of an answer) stops waiting. On one loop, without locks.
#pragma once

#include <functional>
#include <list>
#include <memory>
#include <utility>

namespace hearth::net {

class Cancellation {
 public:
  Cancellation() = default;
  Cancellation(const Cancellation&) = delete;
  Cancellation& operator=(const Cancellation&) = delete;

  bool requested() const { return requested_; }
  // Once and for all; runs what is registered.
  void request() {
    requested_ = true;
    while (!registered_.empty()) {
      const auto callback = registered_.front()->callback_;
      registered_.front()->leave();
      callback();
    }
  }

  // Runs `callback` when the cancellation is requested, at once if it was already. A null cancellation never is.
  class [[nodiscard]] Registration {
   public:
    Registration(std::shared_ptr<Cancellation> with, std::function<void()> callback)
        : with_(std::move(with)), callback_(std::move(callback)) {
      if (!with_) return;
      if (with_->requested_) {
        callback_();
        with_.reset();
      } else {
        place_ = with_->registered_.insert(with_->registered_.end(), this);
      }
    }
    ~Registration() {
      if (with_) leave();
    }
    Registration(const Registration&) = delete;
    Registration& operator=(const Registration&) = delete;

   private:
    friend class Cancellation;
    void leave() {
      with_->registered_.erase(place_);
      with_.reset();
    }
    std::shared_ptr<Cancellation> with_;
    std::function<void()> callback_;
    std::list<Registration*>::iterator place_;
  };

 private:
  std::list<Registration*> registered_;
  bool requested_ = false;
};

inline bool requested(const std::shared_ptr<Cancellation>& cancellation) { return cancellation && cancellation->requested(); }

}  // namespace hearth::net
