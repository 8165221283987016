#include "fleet/residency.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>

namespace hearth::fleet {
namespace {

using namespace std::chrono_literals;
using chat::ModelState;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr std::int64_t gib = std::int64_t{1} << 30;

// A machine that does at once what it is told, except that loads and answers take as long as a test says.
class Machine {
 public:
  Machine(std::int64_t host, std::vector<std::int64_t> gpus = {}, std::chrono::milliseconds turn = 5s)
      : host_(host), gpus_(gpus), residency(host, std::move(gpus), turn, clock) {}

  int add(const std::string& id, std::int64_t need, bool pinned = false, std::optional<std::chrono::milliseconds> idle = {}) {
    need_.push_back(need);
    ids_.push_back(id);
    return residency.add({.id = id, .on_gpu = Footprint{0, need}, .on_cpu = Footprint{need, 0}, .pinned = pinned, .idle_unload = idle});
  }
  Residency::Ticket arrive(int model) {
    const auto ticket = residency.arrive(model);
    step();
    return ticket;
  }
  void finish(int model, std::optional<std::chrono::milliseconds> keep = {}) {
    residency.finish(model, keep);
    step();
  }
  void loaded(int model) {
    residency.loaded(model);
    step();
  }
  void advance(Duration by) {
    clock.advance(by);
    step();
  }

  void step() {
    while (true) {
      const auto actions = residency.step();
      check();
      if (actions.empty()) return;
      for (const auto& action : actions) {
        if (const auto* load = std::get_if<Residency::Load>(&action)) {
          log.push_back("load " + ids_[index(load->model)] + (load->device == Residency::cpu ? "" : " gpu" + std::to_string(load->device)));
          EXPECT_TRUE(loading.insert(load->model).second) << "loaded twice";
          EXPECT_EQ(loading.size(), 1U) << "one load at a time";
          ++loads;
        } else if (const auto* drain = std::get_if<Residency::Drain>(&action)) {
          log.push_back("drain " + ids_[index(drain->model)] + ": " + drain->reason);
        } else if (const auto* stop = std::get_if<Residency::Stop>(&action)) {
          EXPECT_EQ(residency.running(stop->model), 0) << "nobody may be using it";
          log.push_back("stop " + ids_[index(stop->model)]);
          if (stops_at_once) residency.gone(stop->model);
          else stopping.insert(stop->model);
        } else if (const auto* admit = std::get_if<Residency::Admit>(&action)) {
          admitted[admit->ticket] = clock.now();
          EXPECT_EQ(refused.count(admit->ticket), 0U);
        } else if (const auto* refuse = std::get_if<Residency::Refuse>(&action)) {
          EXPECT_EQ(admitted.count(refuse->ticket), 0U);
          refused.emplace(refuse->ticket, refuse->error);
        }
        const auto* load = std::get_if<Residency::Load>(&action);
        if (load && loads_at_once) {
          loading.erase(load->model);
          residency.loaded(load->model);
        }
      }
    }
  }
  void end_load(int model) {
    EXPECT_EQ(loading.erase(model), 1U);
    loaded(model);
  }
  void end_stop(int model) {
    EXPECT_EQ(stopping.erase(model), 1U);
    residency.gone(model);
    step();
  }
  void check() const {
    EXPECT_LE(residency.host_used(), host_);
    for (int gpu = 0; gpu < static_cast<int>(gpus_.size()); ++gpu) EXPECT_LE(residency.gpu_used(gpu), gpus_[index(gpu)]);
  }
  std::vector<std::string> take_log() { return std::exchange(log, {}); }
  static std::size_t index(int i) { return static_cast<std::size_t>(i); }

 private:
  std::int64_t host_;
  std::vector<std::int64_t> gpus_;
  std::vector<std::int64_t> need_;
  std::vector<std::string> ids_;

 public:
  FakeClock clock;
  Residency residency;
  bool loads_at_once = true;
  bool stops_at_once = true;
  std::set<int> loading, stopping;
  std::map<Residency::Ticket, TimePoint> admitted;
  std::map<Residency::Ticket, Error> refused;
  std::vector<std::string> log;
  int loads = 0;
};

TEST(Residency, RequestsForAnAbsentModelWaitTogetherForOneLoad) {
  Machine m(10);
  m.loads_at_once = false;
  const int a = m.add("a", 6);
  const auto first = m.arrive(a);
  const auto second = m.arrive(a);
  EXPECT_THAT(m.take_log(), ElementsAre("load a"));
  EXPECT_THAT(m.admitted, IsEmpty());
  EXPECT_EQ(m.residency.state(a), ModelState::loading);
  EXPECT_EQ(m.residency.waiting(a), 2);
  m.end_load(a);
  EXPECT_EQ(m.admitted.size(), 2U);
  EXPECT_TRUE(m.admitted.count(first) && m.admitted.count(second));
  EXPECT_EQ(m.residency.running(a), 2);
}

TEST(Residency, ModelsStayAsLongAsThereIsRoom) {
  Machine m(10);
  const int a = m.add("a", 4), b = m.add("b", 6);
  for (const int model : {a, b, a, b}) {
    m.arrive(model);
    m.finish(model);
    m.advance(1h);
  }
  EXPECT_THAT(m.take_log(), ElementsAre("load a", "load b"));
}

TEST(Residency, TheLeastRecentlyUsedGoesFirst) {
  Machine m(10);
  const int a = m.add("a", 4), b = m.add("b", 4), c = m.add("c", 4);
  for (const int model : {a, b, a, c}) {
    m.arrive(model);
    m.advance(1s);
    m.finish(model);
    m.advance(10s);
  }
  EXPECT_THAT(m.take_log(), ElementsAre("load a", "load b", "drain b: evicted for c", "stop b", "load c"));
}

TEST(Residency, NoMoreGoThanMust) {
  Machine m(12);
  const int a = m.add("a", 2), b = m.add("b", 8), c = m.add("c", 7);
  for (const int model : {a, b}) {
    m.arrive(model);
    m.finish(model);
    m.advance(10s);
  }
  m.take_log();
  m.arrive(c);
  EXPECT_THAT(m.take_log(), ElementsAre("drain b: evicted for c", "stop b", "load c")) << "a is older, but b alone is enough and needed";
}

TEST(Residency, APinnedModelIsNeverEvicted) {
  Machine m(10);
  const int a = m.add("a", 4, true), b = m.add("b", 5), c = m.add("c", 6);
  for (const int model : {a, b, c}) {
    m.arrive(model);
    m.finish(model);
    m.advance(10s);
  }
  EXPECT_THAT(m.take_log(), ElementsAre("load a", "load b", "drain b: evicted for c", "stop b", "load c"));
  EXPECT_EQ(m.residency.state(a), ModelState::ready);
}

TEST(Residency, AModelLargerThanTheBudgetIsRefusedAtOnceWithBothNumbers) {
  Machine m(8 * gib);
  const int a = m.add("a", 2 * gib), large = m.add("large", 12 * gib);
  m.arrive(a);
  const auto ticket = m.arrive(large);
  ASSERT_EQ(m.refused.count(ticket), 1U);
  const auto& error = m.refused.at(ticket);
  EXPECT_EQ(error.code, ErrorCode::unsupported);
  EXPECT_THAT(error.message, AllOf(HasSubstr("\"large\""), HasSubstr("12.0 GiB"), HasSubstr("8.0 GiB"), HasSubstr("smaller")));
  EXPECT_EQ(m.residency.running(a), 1) << "nobody else is concerned";
  EXPECT_EQ(m.residency.state(a), ModelState::ready);
}

TEST(Residency, WhatPinnedModelsLeaveIsTheLimit) {
  Machine m(8 * gib);
  const int a = m.add("keeper", 4 * gib, true), b = m.add("b", 6 * gib);
  m.arrive(a);
  const auto ticket = m.arrive(b);
  ASSERT_EQ(m.refused.count(ticket), 1U);
  EXPECT_THAT(m.refused.at(ticket).message,
              AllOf(HasSubstr("6.0 GiB"), HasSubstr("8.0 GiB"), HasSubstr("pinned models (keeper) have 4.0 GiB")));
}

TEST(Residency, ABusyModelIsDrainedNotKilled) {
  Machine m(10);
  const int a = m.add("a", 6), b = m.add("b", 6);
  m.arrive(a);
  const auto waits = m.arrive(b);
  m.take_log();
  m.advance(4'999ms);
  EXPECT_THAT(m.take_log(), IsEmpty()) << "it is its turn";
  const auto another = m.arrive(a);
  EXPECT_TRUE(m.admitted.count(another));
  m.advance(1ms);
  EXPECT_THAT(m.take_log(), ElementsAre("drain a: evicted for b"));
  const auto late = m.arrive(a);
  EXPECT_FALSE(m.admitted.count(late)) << "what drains takes no more";
  m.finish(a);
  EXPECT_THAT(m.take_log(), IsEmpty()) << "one is still running";
  m.advance(1h);
  EXPECT_THAT(m.take_log(), IsEmpty()) << "for as long as it takes";
  m.finish(a);
  EXPECT_THAT(m.take_log(), ElementsAre("stop a", "load b", "drain b: evicted for a"))
      << "b serves who waited for it, then it has to go: somebody has waited for a for an hour";
  EXPECT_TRUE(m.admitted.count(waits));
  m.finish(b);
  EXPECT_TRUE(m.admitted.count(late));
}

TEST(Residency, AnIdleModelGoesAtOnce) {
  Machine m(10);
  const int a = m.add("a", 6), b = m.add("b", 6);
  m.arrive(a);
  m.finish(a);
  const auto ticket = m.arrive(b);
  EXPECT_TRUE(m.admitted.count(ticket));
}

TEST(Residency, IdleOnesGoBeforeBusyOnes) {
  Machine m(10);
  const int a = m.add("a", 5), b = m.add("b", 5), c = m.add("c", 5);
  m.arrive(a);  // runs on, and is the least recently used
  m.advance(1s);
  m.arrive(b);
  m.finish(b);
  m.take_log();
  m.arrive(c);
  EXPECT_THAT(m.take_log(), ElementsAre("drain b: evicted for c", "stop b", "load c"));
}

TEST(Residency, ItRunsWhollyOnAGpuWhereItFits) {
  Machine m(100, {10, 10});
  const int a = m.add("a", 8), b = m.add("b", 8), c = m.add("c", 20), d = m.add("d", 8);
  m.arrive(a);
  m.arrive(b);
  m.arrive(c);
  EXPECT_THAT(m.take_log(), ElementsAre("load a gpu0", "load b gpu1", "load c"));
  m.finish(b);
  m.arrive(d);
  EXPECT_THAT(m.take_log(), ElementsAre("drain b: evicted for d", "stop b", "load d gpu1"));
  EXPECT_EQ(m.residency.device(c), Residency::cpu);
}

TEST(Residency, AModelDoesNotChangeSidesBecauseTheGpuIsBusy) {
  Machine m(100, {10});
  const int a = m.add("a", 8), b = m.add("b", 8);
  m.arrive(a);
  m.arrive(b);
  EXPECT_THAT(m.take_log(), ElementsAre("load a gpu0"));
  m.finish(a);
  EXPECT_THAT(m.take_log(), ElementsAre("drain a: evicted for b", "stop a", "load b gpu0"));
}

TEST(Residency, ASplitModelTakesBothMemories) {
  Machine m(10, {10});
  const int split = m.residency.add({.id = "split", .on_gpu = Footprint{6, 7}, .on_cpu = {}});
  const int b = m.add("b", 12);
  (void)b;
  // Machine keeps names by number.
  const auto step = [&] { return m.residency.step(); };
  m.residency.arrive(split);
  auto actions = step();
  ASSERT_EQ(actions.size(), 1U);
  EXPECT_EQ(std::get<Residency::Load>(actions[0]).device, 0);
  EXPECT_EQ(m.residency.host_used(), 6);
  EXPECT_EQ(m.residency.gpu_used(0), 7);
}

TEST(Residency, AFailedLoadIsAnErrorToWhoWaitedAndToNobodyElse) {
  Machine m(10);
  m.loads_at_once = false;
  const int a = m.add("a", 6), b = m.add("b", 6);
  const auto first = m.arrive(a);
  const auto second = m.arrive(a);
  const auto other = m.arrive(b);
  m.loading.erase(a);
  m.residency.failed(a, Error{ErrorCode::model_invalid, "damaged"}, false);
  m.step();
  EXPECT_EQ(m.refused.size(), 2U);
  EXPECT_EQ(m.refused.at(first).message, "damaged");
  EXPECT_EQ(m.refused.at(second).code, ErrorCode::model_invalid);
  EXPECT_EQ(m.residency.state(a), ModelState::failed);
  m.end_load(b);
  EXPECT_TRUE(m.admitted.count(other));
  const auto early = m.arrive(a);
  EXPECT_EQ(m.refused.count(early), 1U) << "it has only just failed";
  EXPECT_GT(m.refused.at(early).retry_after, 0ms);
  m.finish(b);
  m.advance(2s);
  m.take_log();
  m.arrive(a);
  EXPECT_THAT(m.take_log(), ElementsAre("drain b: evicted for a", "stop b", "load a")) << "later it is tried again";
}

TEST(Residency, AHeldFailureKeepsItsMemoryAndRefusesUntilItComesUp) {
  Machine m(10);
  m.loads_at_once = false;
  const int a = m.add("a", 6, true);
  m.arrive(a);
  m.loading.erase(a);
  m.residency.failed(a, Error{ErrorCode::unavailable, "no memory"}, true);
  m.step();
  EXPECT_EQ(m.refused.size(), 1U);
  EXPECT_EQ(m.residency.host_used(), 6);
  m.advance(1h);
  m.arrive(a);
  EXPECT_EQ(m.refused.size(), 2U);
  m.loaded(a);
  const auto ticket = m.arrive(a);
  EXPECT_TRUE(m.admitted.count(ticket));
}

TEST(Residency, AnIdleModelIsUnloadedAfterItsTime) {
  Machine m(10);
  const int a = m.add("a", 6, false, 5min);
  m.arrive(a);
  m.advance(1h);
  EXPECT_EQ(m.residency.state(a), ModelState::ready) << "busy is not idle";
  m.finish(a);
  ASSERT_TRUE(m.residency.next());
  EXPECT_EQ(*m.residency.next(), m.clock.now() + 5min);
  m.advance(5min - 1ms);
  EXPECT_EQ(m.residency.state(a), ModelState::ready);
  m.advance(1ms);
  EXPECT_EQ(m.residency.state(a), ModelState::absent);
  EXPECT_THAT(m.take_log(), ElementsAre("load a", "drain a: idle", "stop a"));
}

TEST(Residency, ARequestSaysHowLongItsModelStays) {
  Machine m(10);
  const int a = m.add("a", 6, false, 5min);
  m.arrive(a);
  m.arrive(a);
  m.finish(a, 0ms);
  EXPECT_EQ(m.residency.state(a), ModelState::ready) << "another one runs";
  m.finish(a);
  EXPECT_EQ(m.residency.state(a), ModelState::absent) << "0: right after";
  m.arrive(a);
  m.finish(a, -1ms);
  m.advance(24h);
  EXPECT_EQ(m.residency.state(a), ModelState::ready) << "negative: for ever";
  m.residency.unload(a);
  m.step();
  m.arrive(a);
  m.finish(a);
  m.advance(5min);
  EXPECT_EQ(m.residency.state(a), ModelState::absent) << "as configured again";
}

TEST(Residency, UnloadingWaitsForWhoIsRunningAndLaterRequestsLoadItAgain) {
  Machine m(10);
  const int a = m.add("a", 6);
  m.arrive(a);
  m.residency.unload(a);
  m.step();
  const auto late = m.arrive(a);
  EXPECT_FALSE(m.admitted.count(late));
  m.finish(a);
  EXPECT_TRUE(m.admitted.count(late));
  EXPECT_THAT(m.take_log(), ElementsAre("load a", "drain a: unload asked for", "stop a", "load a"));
}

TEST(Residency, AHintLoadsIntoFreeRoomOnly) {
  Machine m(10);
  const int a = m.add("a", 6), b = m.add("b", 6), c = m.add("c", 3);
  for (const int model : {a, b, c}) m.residency.hint(model);
  m.step();
  EXPECT_THAT(m.take_log(), ElementsAre("load a", "load c"));
  m.arrive(b);
  m.finish(b);
  m.arrive(a);
  EXPECT_EQ(m.residency.state(b), ModelState::absent);
}

TEST(Residency, WhatWasMeasuredCorrectsWhatWasExpected) {
  Machine m(10);
  m.loads_at_once = false;
  const int a = m.add("a", 8), b = m.add("b", 4);
  m.arrive(a);
  m.residency.measured(a, {5, 0}, true);
  m.end_load(a);
  EXPECT_EQ(m.residency.host_used(), 5);
  m.arrive(b);
  EXPECT_THAT(m.take_log(), ElementsAre("load a", "load b")) << "both fit after all";
  m.end_load(b);
  m.residency.measured(a, {6, 0}, false);
  m.residency.measured(a, {4, 0}, false);
  EXPECT_EQ(m.residency.footprint(a).host, 6) << "the most it ever had";
}

TEST(Residency, WhatIsStillToComeIsReckonedWith) {
  Machine m(100);
  const auto taken = [&](std::int64_t measured) {
    const int model = m.residency.add({.id = "x", .on_gpu = {}, .on_cpu = Footprint{20, 0}, .certain = 10, .scratch = 3});
    m.residency.arrive(model);
    EXPECT_EQ(m.residency.step().size(), 1U);
    m.residency.measured(model, {measured, 0}, true);
    m.residency.loaded(model);
    const auto reckoned = m.residency.footprint(model).host;
    m.residency.step();
    m.residency.finish(model);
    m.residency.unload(model);
    m.residency.step();
    m.residency.gone(model);
    return reckoned;
  };
  EXPECT_EQ(taken(5), 10) << "weights that were not read yet will be";
  EXPECT_EQ(taken(12), 15) << "scratch buffers are touched by the first large prompt";
  EXPECT_EQ(taken(19), 20) << "but not beyond what was expected of it";
  EXPECT_EQ(taken(30), 30) << "unless it is more already";
}

TEST(Residency, GrowthBeyondTheBudgetMakesAnIdleModelGo) {
  Machine m(10);
  const int a = m.add("a", 5), b = m.add("b", 5);
  m.arrive(a);
  m.finish(a);
  m.arrive(b);
  m.take_log();
  m.residency.measured(b, {7, 0}, false);
  const auto actions = m.residency.step();
  ASSERT_EQ(actions.size(), 2U);
  EXPECT_EQ(std::get<Residency::Drain>(actions[0]).model, a);
  EXPECT_EQ(std::get<Residency::Stop>(actions[1]).model, a);
}

TEST(Residency, ASmallModelMayPassOnlyWhereItIsInNobodysWay) {
  Machine m(10);
  const int a = m.add("a", 6), large = m.add("large", 9), small = m.add("small", 1), middle = m.add("middle", 3);
  m.arrive(a);
  m.arrive(large);
  m.take_log();
  m.arrive(middle);
  EXPECT_THAT(m.take_log(), IsEmpty()) << "it fits now, but large would have to wait for it";
  m.arrive(small);
  EXPECT_THAT(m.take_log(), ElementsAre("load small"));
}

TEST(Residency, WhoGivesUpIsForgotten) {
  Machine m(10);
  const int a = m.add("a", 6), b = m.add("b", 6);
  m.arrive(a);
  const auto gone = m.arrive(b);
  m.residency.give_up(gone);
  m.advance(1h);
  EXPECT_EQ(m.residency.state(a), ModelState::ready) << "nobody wants b any more";
  EXPECT_EQ(m.residency.waiting(), 0);
}

// ---- interleaved requests ------------------------------------------------------------------------------------------------------------

// Clients that each use one model, one request after the other, with a pause in between. Time passes by the millisecond.
struct Client {
  int model;
  std::chrono::milliseconds answer, pause;
  int left;
  Residency::Ticket ticket = 0;
  std::optional<TimePoint> until;  // of the answer or the pause
  bool running = false;
  TimePoint arrived{};
  Duration longest{0};
};

struct Outcome {
  int loads;
  Duration took;
};

Outcome simulate(Machine& m, std::vector<Client>& clients, std::chrono::milliseconds load_time) {
  m.loads_at_once = false;
  const auto began = m.clock.now();
  std::map<int, TimePoint> ready_at;
  const auto busy = [&] { return std::any_of(clients.begin(), clients.end(), [](const Client& c) { return c.left > 0 || c.running; }); };
  for (int guard = 0; busy() && guard < 2'000'000; ++guard) {
    const auto now = m.clock.now();
    for (const int model : m.loading) ready_at.emplace(model, now + load_time);
    for (auto it = ready_at.begin(); it != ready_at.end();) {
      if (now < it->second) {
        ++it;
        continue;
      }
      const int model = it->first;
      it = ready_at.erase(it);
      m.end_load(model);
    }
    for (auto& client : clients) {
      if (client.running && now >= *client.until) {
        client.running = false;
        client.until = now + client.pause;
        client.ticket = 0;
        m.finish(client.model);
      }
      if (!client.running && client.ticket == 0 && client.left > 0 && (!client.until || now >= *client.until)) {
        --client.left;
        client.arrived = now;
        client.ticket = m.arrive(client.model);
      }
      if (!client.running && client.ticket != 0 && m.admitted.count(client.ticket)) {
        client.running = true;
        client.until = now + client.answer;
        client.longest = std::max(client.longest, now - client.arrived);
      }
    }
    m.step();
    if (!m.residency.next() || *m.residency.next() > m.clock.now()) m.clock.advance(1ms);
  }
  EXPECT_FALSE(busy()) << "everybody is served in the end";
  return {m.loads, m.clock.now() - began};
}

TEST(Residency, ManyInterleavedRequestsNeedFewSwaps) {
  Machine m(10, {}, 2s);
  const int a = m.add("a", 6), b = m.add("b", 6);
  std::vector<Client> clients;
  for (int i = 0; i < 4; ++i) {
    clients.push_back({a, 200ms, 0ms, 25});
    clients.push_back({b, 200ms, 0ms, 25});
  }
  const auto outcome = simulate(m, clients, 500ms);
  // 25 rounds of 200 ms for each model; a turn serves about ten of them.
  EXPECT_LE(outcome.loads, 8) << "200 requests in turns, not a swap for each";
  EXPECT_GE(outcome.loads, 2);
  for (const auto& client : clients) EXPECT_LE(client.longest, 2s + 200ms + 500ms + 5ms) << "turn, the last answers, the load";
}

TEST(Residency, TwoBusyClientsWithShortPausesDoNotSwapForEachRequest) {
  Machine m(10, {}, 2s);
  const int a = m.add("a", 6), b = m.add("b", 6);
  std::vector<Client> clients{{a, 100ms, 20ms, 100}, {b, 100ms, 20ms, 100}};
  const auto outcome = simulate(m, clients, 300ms);
  EXPECT_LE(outcome.loads, 20) << "200 requests; without waiting for the pauses there would be about 200 loads";
  for (const auto& client : clients) EXPECT_LE(client.longest, 2s + 100ms + 300ms + 5ms);
}

TEST(Residency, OneClientThatUsesTwoModelsInTurnsIsNotHeldUp) {
  Machine m(10, {}, 2s);
  m.loads_at_once = false;
  const int a = m.add("a", 6), b = m.add("b", 6);
  Duration waited{0};
  for (int i = 0; i < 40; ++i) {
    const int model = i % 2 == 0 ? a : b;
    const auto ticket = m.arrive(model);
    while (m.loading.empty()) {
      m.advance(1ms);
      waited += 1ms;
    }
    m.advance(50ms);
    m.end_load(model);
    ASSERT_TRUE(m.admitted.count(ticket));
    m.advance(10ms);
    m.finish(model);
  }
  EXPECT_EQ(m.loads, 40) << "each request needs the other model: there is no way around it";
  EXPECT_EQ(waited, 0ms);
}

// ---- random workloads ----------------------------------------------------------------------------------------------------------------

class RandomResidency : public ::testing::TestWithParam<unsigned> {};

TEST_P(RandomResidency, NeverOverBudgetNobodyStarvesNothingRunningIsStopped) {
  std::mt19937 random(GetParam());
  SCOPED_TRACE("seed " + std::to_string(GetParam()));
  const auto below = [&](int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); };
  std::vector<std::int64_t> gpus;
  for (int i = below(3); i > 0; --i) gpus.push_back(10 + below(20));
  constexpr auto turn = 500ms;
  constexpr auto longest_load = 300ms, longest_answer = 400ms;
  const std::int64_t host = 30 + below(30);
  Machine m(host, gpus, turn);
  m.loads_at_once = m.stops_at_once = false;
  const int models = 2 + below(6);
  for (int i = 0; i < models; ++i) {
    std::optional<std::chrono::milliseconds> idle;
    if (below(3) == 0) idle = std::chrono::milliseconds(below(400));
    m.add("m" + std::to_string(i), 1 + below(40), below(8) == 0, idle);
  }

  struct Pending {
    int model;
    TimePoint arrived;
  };
  struct Job {
    int model;
    TimePoint until;
  };
  std::map<Residency::Ticket, Pending> pending;
  std::vector<Job> jobs;
  std::map<int, TimePoint> loads, stops;
  Duration longest{0};
  const auto settle = [&] {
    const auto now = m.clock.now();
    for (const int model : m.loading)
      loads.emplace(model, now + std::chrono::milliseconds(1 + below(static_cast<int>(longest_load.count()))));
    for (const int model : m.stopping) stops.emplace(model, now + std::chrono::milliseconds(below(20)));
    for (auto it = pending.begin(); it != pending.end();) {
      if (m.admitted.count(it->first)) {
        EXPECT_EQ(m.residency.resident(it->second.model), true);
        longest = std::max(longest, now - it->second.arrived);
        jobs.push_back({it->second.model, now + std::chrono::milliseconds(1 + below(static_cast<int>(longest_answer.count())))});
        it = pending.erase(it);
      } else if (m.refused.count(it->first)) {
        it = pending.erase(it);
      } else {
        ++it;
      }
    }
  };
  for (int tick = 0; tick < 20'000; ++tick) {
    const bool arriving = tick < 12'000;
    if (!arriving && pending.empty() && jobs.empty() && m.loading.empty()) break;
    const auto now = m.clock.now();
    for (std::size_t i = 0; i < jobs.size();) {
      if (now < jobs[i].until) {
        ++i;
        continue;
      }
      const int model = jobs[i].model;
      jobs.erase(jobs.begin() + static_cast<std::ptrdiff_t>(i));
      std::optional<std::chrono::milliseconds> keep;
      if (below(50) == 0) keep = std::chrono::milliseconds(below(300) - 1);
      m.finish(model, keep);
    }
    while (!loads.empty() && std::any_of(loads.begin(), loads.end(), [&](const auto& l) { return now >= l.second; })) {
      const auto due = std::find_if(loads.begin(), loads.end(), [&](const auto& l) { return now >= l.second; });
      const int model = due->first;
      loads.erase(due);
      if (below(30) == 0) {
        m.loading.erase(model);
        m.residency.failed(model, Error{ErrorCode::unavailable, "bad luck"}, false);
        m.residency.gone(model);
        m.step();
      } else {
        m.end_load(model);
      }
    }
    for (auto it = stops.begin(); it != stops.end();) {
      if (now < it->second) {
        ++it;
        continue;
      }
      const int model = it->first;
      it = stops.erase(it);
      m.end_stop(model);
    }
    if (arriving && below(4) == 0) {
      const int model = below(models);
      pending.emplace(m.arrive(model), Pending{model, m.clock.now()});
      const bool waits = !m.admitted.count(pending.begin()->first) && !m.refused.count(pending.begin()->first);
      if (below(60) == 0 && waits) {
        m.residency.give_up(pending.begin()->first);
        pending.erase(pending.begin());
      }
    }
    if (arriving && below(500) == 0) m.residency.unload(below(models));
    if (arriving && below(300) == 0) m.residency.hint(below(models));
    m.step();
    settle();
    m.advance(1ms);
    settle();
    if (::testing::Test::HasFailure()) return;
  }
  std::string left;
  for (int i = 0; !pending.empty() && i < models; ++i) {
    left += "\n" + std::to_string(i) + ": state " + std::to_string(static_cast<int>(m.residency.state(i))) + ", running " +
            std::to_string(m.residency.running(i)) + ", waiting " + std::to_string(m.residency.waiting(i)) + ", takes " +
            std::to_string(m.residency.footprint(i).host) + "+" + std::to_string(m.residency.footprint(i).gpu) + " on " +
            std::to_string(m.residency.device(i)) + (m.loading.count(i) ? " loading" : "") + (m.stopping.count(i) ? " stopping" : "");
  }
  EXPECT_TRUE(pending.empty()) << "everybody was admitted or refused; host " << host << left;
  EXPECT_EQ(m.residency.waiting(), 0);
  // Every model that is before this one in the line costs a turn, the end of what runs, a stop and a load; and one load may be under way.
  const auto bound = (models + 1) * (turn + longest_answer + 20ms + 2 * longest_load);
  EXPECT_LE(longest, bound);
}

INSTANTIATE_TEST_SUITE_P(Seeds, RandomResidency, ::testing::Range(1U, 41U));

}  // namespace
}  // namespace hearth::fleet
