#include "fleet/residency.h"

#include <algorithm>
#include <cstdio>
#include <tuple>
#include <utility>

namespace hearth::fleet {
namespace {

using namespace std::chrono_literals;

// After a failed load its error answers for so long, twice as long after each further one.
constexpr auto first_retry = 1'000ms;
constexpr auto last_retry = 30'000ms;
// A model is not kept from leaving for longer than this by requests that may follow.
constexpr Duration longest_grace = 500ms;

}  // namespace

std::string bytes_text(std::int64_t bytes) {
  constexpr double mib = 1 << 20;
  char text[32];
  const auto value = static_cast<double>(bytes);
  if (value >= 1024 * mib) std::snprintf(text, sizeof text, "%.1f GiB", value / (1024 * mib));
  else std::snprintf(text, sizeof text, "%.0f MiB", value / mib);
  return text;
}

bool Residency::Room::fits(const Footprint& need, int device) const {
  return need.host <= host && (device == cpu || need.gpu <= gpus[static_cast<std::size_t>(device)]);
}

void Residency::Room::take(const Footprint& need, int device, int sign) {
  host -= sign * need.host;
  if (device != cpu) gpus[static_cast<std::size_t>(device)] -= sign * need.gpu;
}

Residency::Residency(std::int64_t host, std::vector<std::int64_t> gpus, std::chrono::milliseconds turn, const Clock& clock)
    : host_(host), gpus_(std::move(gpus)), turn_(turn), clock_(clock) {}

int Residency::add(Model model) {
  models_.emplace_back().model = std::move(model);
  return count() - 1;
}

void Residency::set_gpu_budget(int gpu, std::int64_t bytes) { gpus_.at(static_cast<std::size_t>(gpu)) = bytes; }

// ---- what happens ------------------------------------------------------------------------------------------------------------------

Residency::Ticket Residency::arrive(int model, bool insist) {
  auto& entry = at(model);
  const auto now = clock_.now();
  if (entry.ended) {
    // Only what came before anybody else's model was loaded can have been on its way anyhow: a client that uses two models in turns is not helped by waiting.
    const Duration gap = now - *entry.ended;
    if (entry.loads_before_end != loads_) entry.gap.reset();
    else entry.gap = entry.gap ? (*entry.gap + gap) / 2 : gap;
    entry.ended.reset();
  }
  if (insist) entry.retry_at = now;
  entry.waiting.push_back({++last_ticket_, now});
  return last_ticket_;
}

void Residency::give_up(Ticket ticket) {
  for (auto& entry : models_) std::erase_if(entry.waiting, [ticket](const Waiting& waiting) { return waiting.ticket == ticket; });
}

void Residency::finish(int model, std::optional<std::chrono::milliseconds> keep) {
  auto& entry = at(model);
  --entry.running;
  entry.used = clock_.now();
  if (entry.running == 0) {
    entry.ended = entry.used;
    entry.loads_before_end = loads_;
  }
  if (keep) entry.keep = keep;
}

void Residency::hint(int model) { at(model).hinted = true; }

void Residency::unload(int model) {
  if (at(model).has_memory()) at(model).unload_asked = true;
}

void Residency::loaded(int model) {
  auto& entry = at(model);
  ++loads_;
  entry.used = clock_.now();
  entry.failures = 0;
  entry.problem.reset();
  entry.held = false;
  if (!entry.leaving()) entry.state = State::ready;
}

void Residency::measured(int model, Footprint taken, bool first) {
  auto& entry = at(model);
  if (!entry.has_memory()) return;
  auto& expected = entry.device == cpu ? entry.model.on_cpu : entry.model.on_gpu;
  // Nothing measured on a GPU means that it cannot be measured.
  const auto correct = [&](std::int64_t& peak, std::int64_t& reckoned, std::int64_t& prediction, std::int64_t value, bool main) {
    if (value <= 0) return;
    peak = std::max(peak, value);
    if (first) {
      // What is still to come adds up to no more than was predicted, unless that is disproved already.
      const auto most = std::min(prediction, peak + (main ? entry.model.scratch : 0));
      reckoned = std::max({peak, most, main ? entry.model.certain : 0});
    } else {
      reckoned = std::max(reckoned, peak);
    }
    prediction = reckoned;
  };
  const bool on_gpu = entry.device != cpu;
  correct(entry.peak.host, entry.taken.host, expected->host, taken.host, !on_gpu);
  correct(entry.peak.gpu, entry.taken.gpu, expected->gpu, taken.gpu, on_gpu);
}

void Residency::failed(int model, Error error, bool held) {
  auto& entry = at(model);
  ++entry.failures;
  const auto wait = std::min(first_retry * (1 << std::min(entry.failures - 1, 10)), last_retry);
  if (error.retry_after == 0ms) error.retry_after = wait;
  entry.retry_at = clock_.now() + wait;
  refuse_all(model, error, refusals_);
  entry.problem = std::move(error);
  entry.state = State::failed;
  entry.held = held;
  if (!held) entry.unload_asked = false;
}

void Residency::gone(int model) {
  auto& entry = at(model);
  entry.held = false;
  entry.keep.reset();
  entry.unload_asked = false;
  entry.peak = entry.taken = {};
  if (entry.state != State::failed) entry.state = State::absent;
}

// ---- what to do --------------------------------------------------------------------------------------------------------------------

std::vector<Residency::Action> Residency::step() {
  auto actions = std::exchange(refusals_, {});
  next_.reset();
  admit(actions);
  refuse_hopeless(actions);
  let_idle_go(actions);
  make_room(actions);
  stop_drained(actions);
  return actions;
}

void Residency::admit(std::vector<Action>& actions) {
  for (int i = 0; i < count(); ++i) {
    auto& entry = at(i);
    if (entry.state != State::ready) continue;
    for (const auto& waiting : entry.waiting) actions.emplace_back(Admit{waiting.ticket, i});
    entry.running += static_cast<int>(entry.waiting.size());
    entry.waiting.clear();
  }
}

void Residency::refuse_all(int model, const Error& error, std::vector<Action>& actions) {
  for (const auto& waiting : at(model).waiting) actions.emplace_back(Refuse{waiting.ticket, model, error});
  at(model).waiting.clear();
}

void Residency::refuse_hopeless(std::vector<Action>& actions) {
  const auto now = clock_.now();
  for (int i = 0; i < count(); ++i) {
    auto& entry = at(i);
    if (entry.waiting.empty()) continue;
    if (entry.state == State::failed && (entry.held || now < entry.retry_at)) {
      refuse_all(i, *entry.problem, actions);
    } else if (!entry.has_memory() && devices_for(i).empty()) {
      refuse_all(i, too_large(entry), actions);
    }
  }
}

void Residency::drain(int model, std::string reason, std::vector<Action>& actions) {
  at(model).state = State::draining;
  actions.emplace_back(Drain{model, std::move(reason)});
}

std::optional<TimePoint> Residency::idle_deadline(const Entry& entry) const {
  const auto keep = entry.keep ? entry.keep : entry.model.idle_unload;
  if (entry.model.pinned || !keep || *keep < 0ms) return std::nullopt;
  return entry.used + *keep;
}

void Residency::let_idle_go(std::vector<Action>& actions) {
  const auto now = clock_.now();
  for (int i = 0; i < count(); ++i) {
    auto& entry = at(i);
    if (entry.unload_asked && (entry.state == State::ready || entry.held)) {
      entry.held = false;
      drain(i, "unload asked for", actions);
    }
    if (entry.state != State::ready || entry.running > 0) continue;
    const auto deadline = idle_deadline(entry);
    if (!deadline) continue;
    if (now >= *deadline) drain(i, "idle", actions);
    else wake_at(*deadline);
  }
}

Residency::Room Residency::room(bool after_leaving) const {
  Room free{host_, gpus_};
  for (const auto& entry : models_) {
    if (entry.has_memory() && !(after_leaving && entry.leaving())) free.take(entry.taken, entry.device);
  }
  return free;
}

// Where it may run at all: everything else there but what is pinned could go.
std::vector<int> Residency::devices_for(int model) const {
  const auto& entry = at(model);
  Room most{host_, gpus_};
  for (const auto& other : models_) {
    if (&other != &entry && other.model.pinned && other.has_memory() && !other.leaving()) most.take(other.taken, other.device);
  }
  std::vector<int> found;
  for (int gpu = 0; entry.model.on_gpu && gpu < static_cast<int>(gpus_.size()); ++gpu) {
    if (most.fits(*entry.model.on_gpu, gpu)) found.push_back(gpu);
  }
  if (found.empty() && entry.model.on_cpu && most.fits(*entry.model.on_cpu, cpu)) found.push_back(cpu);
  return found;
}

Error Residency::too_large(const Entry& entry) const {
  std::int64_t pinned_host = 0;
  std::string pinned;
  for (const auto& other : models_) {
    if (&other == &entry || !other.model.pinned || !other.has_memory()) continue;
    pinned_host += other.taken.host;
    pinned += (pinned.empty() ? "" : ", ") + other.model.id;
  }
  std::string text = "model \"" + entry.model.id + "\" does not fit into memory: it needs ";
  const bool split = !entry.model.on_cpu;
  if (split) {
    std::int64_t largest = 0;
    for (const auto gpu : gpus_) largest = std::max(largest, gpu);
    text += bytes_text(entry.model.on_gpu->gpu) + " of a GPU and " + bytes_text(entry.model.on_gpu->host) + " of the host, and there are " +
            bytes_text(largest) + " and " + bytes_text(host_);
  } else {
    text += bytes_text(entry.model.on_cpu->host) + ", and all models together may take " + bytes_text(host_);
  }
  if (!pinned.empty()) text += ", of which pinned models (" + pinned + ") have " + bytes_text(pinned_host);
  text += ". Give it a smaller context or a smaller KV type, take a smaller model or quantisation, ";
  text += split ? "put fewer layers on the GPU, or raise the memory budget" : "or raise the memory budget";
  return Error{ErrorCode::unsupported, std::move(text), "model"};
}

TimePoint Residency::grace_end(const Entry& entry) const {
  if (!entry.ended || !entry.gap || *entry.gap > longest_grace / 2) return TimePoint::min();
  return *entry.ended + 2 * *entry.gap;
}

// How `model` could get its memory. `taken`: victims of those before it.
std::optional<Residency::Plan> Residency::plan(int model, const Room& now, const Room& later, const std::vector<bool>& taken) const {
  const auto time = clock_.now();
  std::optional<Plan> best;
  const auto consider = [&](Plan found) {
    if (!best || found.rank < best->rank || (found.rank == best->rank && found.newest < best->newest)) best = std::move(found);
  };
  for (const int device : devices_for(model)) {
    const auto wanted = need(at(model), device);
    if (now.fits(wanted, device) && later.fits(wanted, device)) {
      consider({device, 0, {}, {}});
      continue;
    }
    if (later.fits(wanted, device)) {
      consider({device, 1, {}, {}});
      continue;
    }
    std::vector<int> candidates;
    for (int i = 0; i < count(); ++i) {
      const auto& entry = at(i);
      if (entry.state == State::ready && !entry.model.pinned && !taken[static_cast<std::size_t>(i)]) candidates.push_back(i);
    }
    const auto busy = [&](int i) { return at(i).running > 0 || time < grace_end(at(i)); };
    std::sort(candidates.begin(), candidates.end(),
              [&](int a, int b) { return std::tuple(busy(a), at(a).used, a) < std::tuple(busy(b), at(b).used, b); });
    Room room = later;
    std::vector<int> victims;
    for (const int i : candidates) {
      if (room.fits(wanted, device)) break;
      const bool helps = (wanted.host > room.host && at(i).taken.host > 0) ||
                         (device != cpu && at(i).device == device && wanted.gpu > room.gpus[static_cast<std::size_t>(device)]);
      if (!helps) continue;
      room.take(at(i).taken, at(i).device, -1);
      victims.push_back(i);
    }
    if (!room.fits(wanted, device)) continue;
    // A large one that came last may have made earlier ones unnecessary.
    for (auto victim = victims.rbegin(); victim != victims.rend();) {
      room.take(at(*victim).taken, at(*victim).device);
      if (room.fits(wanted, device)) {
        victim = std::make_reverse_iterator(victims.erase(std::next(victim).base()));
      } else {
        room.take(at(*victim).taken, at(*victim).device, -1);
        ++victim;
      }
    }
    Plan found{device, 2, victims, TimePoint::min()};
    for (const int i : victims) {
      if (busy(i)) found.rank = 3;
      found.newest = std::max(found.newest, at(i).used);
    }
    consider(std::move(found));
  }
  return best;
}

void Residency::make_room(std::vector<Action>& actions) {
  const auto time = clock_.now();
  std::vector<int> order;
  for (int i = 0; i < count(); ++i) {
    const auto& entry = at(i);
    if (!entry.has_memory() && !entry.waiting.empty()) order.push_back(i);
  }
  std::sort(order.begin(), order.end(), [&](int a, int b) {
    if (at(a).model.pinned != at(b).model.pinned) return at(a).model.pinned;
    return at(a).waiting.front().ticket < at(b).waiting.front().ticket;
  });
  bool loading = std::any_of(models_.begin(), models_.end(), [](const Entry& entry) { return entry.state == State::loading; });

  const auto load = [&](int model, int device) {
    auto& entry = at(model);
    entry.state = State::loading;
    entry.hinted = false;
    entry.device = device;
    entry.taken = need(entry, device);
    entry.peak = {};
    actions.emplace_back(Load{model, device});
    loading = true;
  };

  Room now = room(false);
  Room later = room(true);
  std::vector<bool> taken(models_.size());
  bool first = true;
  bool blocked = false;
  for (const int model : order) {
    const auto found = plan(model, now, later, taken);
    if (!found) {
      // Everything that could go is needed by those before it. If nobody is before it, it must not be passed for ever.
      blocked = first;
      if (blocked) break;
      continue;
    }
    first = false;
    const auto wanted = need(at(model), found->device);
    if (found->rank == 0 && !loading) {
      load(model, found->device);
    } else if (found->rank >= 2) {
      TimePoint go = TimePoint::min();
      if (found->rank == 3) {
        go = at(model).waiting.front().since + turn_;
        // Those that are only expected to be used again are waited for no longer than that.
        TimePoint graces = TimePoint::min();
        bool runs = false;
        for (const int victim : found->victims) {
          runs = runs || at(victim).running > 0;
          graces = std::max(graces, grace_end(at(victim)));
        }
        if (!runs) go = std::min(go, graces);
      }
      for (const int victim : found->victims) {
        taken[static_cast<std::size_t>(victim)] = true;
        later.take(at(victim).taken, at(victim).device, -1);
        if (time >= go) drain(victim, "evicted for " + at(model).model.id, actions);
      }
      if (time < go) wake_at(go);
    }
    // Whether it loads now or waits: this room is spoken for.
    later.take(wanted, found->device);
    if (found->rank == 0) now.take(wanted, found->device);
  }

  for (int i = 0; i < count() && !blocked; ++i) {
    auto& entry = at(i);
    if (!entry.hinted || loading) continue;
    const auto found = entry.has_memory() ? std::nullopt : plan(i, now, later, taken);
    entry.hinted = false;
    if (found && found->rank == 0) {
      load(i, found->device);
      now.take(entry.taken, found->device);
      later.take(entry.taken, found->device);
    }
  }

  // Some grew beyond what was expected of them.
  for (int i = 0; i < count(); ++i) {
    const auto full = [&](const Entry& entry) {
      const Room free = room(true);
      return (free.host < 0 && entry.taken.host > 0) || (entry.device != cpu && free.gpus[static_cast<std::size_t>(entry.device)] < 0);
    };
    int oldest = -1;
    for (int j = 0; j < count(); ++j) {
      const auto& entry = at(j);
      if (entry.state != State::ready || entry.model.pinned || entry.running > 0 || !full(entry)) continue;
      if (oldest < 0 || entry.used < at(oldest).used) oldest = j;
    }
    if (oldest < 0) break;
    drain(oldest, "memory is short", actions);
  }
}

void Residency::stop_drained(std::vector<Action>& actions) {
  for (int i = 0; i < count(); ++i) {
    auto& entry = at(i);
    if (entry.state != State::draining || entry.running > 0) continue;
    entry.state = State::stopping;
    actions.emplace_back(Stop{i});
  }
}

// ---- how things stand --------------------------------------------------------------------------------------------------------------

chat::ModelState Residency::state(int model) const {
  switch (at(model).state) {
    case State::absent: return chat::ModelState::absent;
    case State::loading: return chat::ModelState::loading;
    case State::ready: return chat::ModelState::ready;
    case State::draining:
    case State::stopping: return chat::ModelState::draining;
    case State::failed: return chat::ModelState::failed;
  }
  return chat::ModelState::absent;
}

int Residency::device(int model) const { return at(model).device; }
bool Residency::resident(int model) const { return at(model).has_memory(); }
int Residency::running(int model) const { return at(model).running; }
int Residency::waiting(int model) const { return static_cast<int>(at(model).waiting.size()); }
int Residency::waiting() const {
  std::size_t all = 0;
  for (const auto& entry : models_) all += entry.waiting.size();
  return static_cast<int>(all);
}

Footprint Residency::footprint(int model) const {
  const auto& entry = at(model);
  if (entry.has_memory()) return entry.taken;
  const auto devices = devices_for(model);
  if (!devices.empty()) return need(entry, devices.front());
  return entry.model.on_cpu ? *entry.model.on_cpu : *entry.model.on_gpu;
}

const std::optional<Error>& Residency::problem(int model) const { return at(model).problem; }

std::optional<TimePoint> Residency::unloads_at(int model) const {
  const auto& entry = at(model);
  if (entry.state != State::ready) return std::nullopt;
  const auto deadline = idle_deadline(entry);
  if (!deadline || entry.running == 0) return deadline;
  return *deadline + (clock_.now() - entry.used);
}

std::int64_t Residency::host_used() const { return host_ - room(false).host; }
std::int64_t Residency::gpu_used(int gpu) const {
  const auto index = static_cast<std::size_t>(gpu);
  return gpus_.at(index) - room(false).gpus.at(index);
}

}  // namespace hearth::fleet
