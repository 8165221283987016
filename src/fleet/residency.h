// Which models are in memory. Memory holds only so many of them, loading one takes seconds, and requests for different models come mixed: somebody has to
// say what is loaded where, what has to go for it, and who waits. This is that decision alone, without processes, sockets or timers: it is told what
// happens, and step() says what to do about it.
//
// The rules.
// - The budget is memory: bytes of the host and of each GPU. What is loaded, being loaded or on its way out counts.
// - A model whose need fits a GPU (apart from what is pinned there) runs wholly on one, evicting others if it must; any other runs wholly on the CPU. It
//   never changes sides because of who happens to be loaded. One that fits nowhere is refused at once.
// - One load per model, for all who wait; one load at a time, since they would share one disk. The longest waiter's model comes first; another may pass
//   only into room that nobody before it needs.
// - The least recently used go first, idle ones before busy ones, pinned ones never. What goes is drained first: it takes no more requests, and its process
//   ends after the last one it has.
// - A busy model goes on taking requests until somebody else has waited for `turn`. An idle one goes at once; but if its requests used to follow one
//   another within a moment, that moment is waited for, within the same `turn`, so that two busy clients do not swap models with each single request.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "chat/event.h"

namespace hearth::fleet {

// Bytes of host memory, and of the GPU it runs on.
struct Footprint {
  std::int64_t host = 0;
  std::int64_t gpu = 0;
};

class Residency {
 public:
  using Ticket = std::uint64_t;
  static constexpr int cpu = -1;  // any other device is the index of a GPU

  struct Model {
    std::string id;
    std::optional<Footprint> on_gpu;  // expected there; empty: never runs there
    std::optional<Footprint> on_cpu;
    // Of what is expected: known for certain, though parts of it may not have been paged in when the load is done (weights); and scratch buffers, which
    // may be untouched then.
    std::int64_t certain = 0, scratch = 0;
    bool pinned = false;
    std::optional<std::chrono::milliseconds> idle_unload;
  };

  Residency(std::int64_t host, std::vector<std::int64_t> gpus, std::chrono::milliseconds turn, const Clock& clock);

  // Models are numbered from 0 in the order they are added.
  int add(Model model);
  void set_gpu_budget(int gpu, std::int64_t bytes);

  // ---- what happens ----
  // A request needs the model. `insist`: even though its last load has only just failed.
  Ticket arrive(int model, bool insist = false);
  // It no longer waits. Nothing happens if it was admitted or refused already.
  void give_up(Ticket ticket);
  // A request that was admitted has ended. `keep`: how long the model stays from now on after its last request (0: unload it now, negative: for ever);
  // holds until the model is unloaded.
  void finish(int model, std::optional<std::chrono::milliseconds> keep = {});
  // Would be good to have, if there is room now.
  void hint(int model);
  void unload(int model);
  void loaded(int model);
  // What it takes: once with `first`, when it has been loaded, and whenever it may have grown.
  void measured(int model, Footprint taken, bool first);
  // The load failed: an error to all who wait. `held`: its process is tried again and may come up any time, so its memory stays reserved.
  void failed(int model, Error error, bool held);
  // Its process has ended and its memory is free.
  void gone(int model);

  // ---- what to do ----
  struct Load {
    int model;
    int device;
  };
  struct Drain {  // takes no more requests; nothing to do but to tell
    int model;
    std::string reason;
  };
  struct Stop {  // end the process, then say gone(). Nobody uses it
    int model;
  };
  struct Admit {
    Ticket ticket;
    int model;
  };
  struct Refuse {
    Ticket ticket;
    int model;
    Error error;
  };
  using Action = std::variant<Load, Drain, Stop, Admit, Refuse>;
  // To be called after every change, and at next().
  std::vector<Action> step();
  // When time alone changes something; empty: never.
  std::optional<TimePoint> next() const { return next_; }

  // ---- how things stand ----
  chat::ModelState state(int model) const;  // a process on its way out counts as draining
  int device(int model) const;              // meaningful while it has memory
  bool resident(int model) const;           // has memory
  int running(int model) const;
  int waiting(int model) const;
  int waiting() const;
  Footprint footprint(int model) const;  // reckoned while resident, else expected
  const std::optional<Error>& problem(int model) const;
  std::optional<TimePoint> unloads_at(int model) const;
  std::int64_t host_used() const;
  std::int64_t gpu_used(int gpu) const;
  std::int64_t host_budget() const { return host_; }

 private:
  enum class State { absent, loading, ready, draining, stopping, failed };
  struct Waiting {
    Ticket ticket;
    TimePoint since;
  };
  struct Entry {
    Model model;
    State state = State::absent;
    bool held = false;  // failed, with its memory reserved
    int device = cpu;
    Footprint taken;  // reckoned, while resident
    Footprint peak;
    int running = 0;
    std::deque<Waiting> waiting;
    TimePoint used;  // last request's end, or the load's
    std::optional<TimePoint> ended;
    int loads_before_end = 0;
    std::optional<Duration> gap;  // usually from the last request's end to the next one's arrival
    std::optional<std::chrono::milliseconds> keep;
    bool unload_asked = false;
    bool hinted = false;
    int failures = 0;
    TimePoint retry_at;
    std::optional<Error> problem;

    bool has_memory() const { return (state != State::absent && state != State::failed) || held; }
    bool leaving() const { return state == State::draining || state == State::stopping; }
  };
  // Free bytes.
  struct Room {
    std::int64_t host;
    std::vector<std::int64_t> gpus;
    bool fits(const Footprint& need, int device) const;
    void take(const Footprint& need, int device, int sign = 1);
  };
  struct Plan {
    int device = cpu;
    int rank = 0;  // fits now; will fit; idle ones have to go; busy ones have to go
    std::vector<int> victims;
    TimePoint newest{};  // use among the victims
  };

  Entry& at(int model) { return models_.at(static_cast<std::size_t>(model)); }
  const Entry& at(int model) const { return models_.at(static_cast<std::size_t>(model)); }
  int count() const { return static_cast<int>(models_.size()); }
  Footprint need(const Entry& entry, int device) const { return device == cpu ? *entry.model.on_cpu : *entry.model.on_gpu; }
  Room room(bool after_leaving) const;
  std::vector<int> devices_for(int model) const;
  Error too_large(const Entry& entry) const;
  std::optional<Plan> plan(int model, const Room& now, const Room& later, const std::vector<bool>& taken) const;
  std::optional<TimePoint> idle_deadline(const Entry& entry) const;
  TimePoint grace_end(const Entry& entry) const;
  void drain(int model, std::string reason, std::vector<Action>& actions);
  void refuse_all(int model, const Error& error, std::vector<Action>& actions);
  void wake_at(TimePoint at) { next_ = next_ ? std::min(*next_, at) : at; }

  void admit(std::vector<Action>& actions);
  void refuse_hopeless(std::vector<Action>& actions);
  void let_idle_go(std::vector<Action>& actions);
  void make_room(std::vector<Action>& actions);
  void stop_drained(std::vector<Action>& actions);

  std::int64_t host_;
  std::vector<std::int64_t> gpus_;
  const std::chrono::milliseconds turn_;
  const Clock& clock_;
  std::vector<Entry> models_;
  Ticket last_ticket_ = 0;
  int loads_ = 0;
  std::vector<Action> refusals_;  // for the next step
  std::optional<TimePoint> next_;
};

// "3.4 GiB"
std::string bytes_text(std::int64_t bytes);

}  // namespace hearth::fleet
