#include "fleet/fleet.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>

#include <boost/asio/detached.hpp>
#include <filesystem>
#include <fstream>

#include "fleet/fake_engine.h"
#include "fleet/loop.h"

namespace hearth::fleet {
namespace {

using namespace std::chrono_literals;
using chat::ModelState;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr std::int64_t mib = 1 << 20;

chat::Request ask(const std::string& model) {
  chat::Request request;
  request.model = model;
  request.messages.push_back({.role = chat::Role::user, .content = {{.text = "hi"}}});
  return request;
}

std::string explained(const wire::EventStream& stream, const std::string& what) {
  for (const auto& [name, value] : stream.explanation().decisions) {
    if (name == what) return value;
  }
  return "";
}

class FleetTest : public ::testing::Test {
 protected:
  FleetTest() {
    char path[] = "/tmp/hearth-test-XXXXXX";
    folder_ = mkdtemp(path);
    options_.socket_folder = folder_;
    options_.memory = 100 * mib;
    options_.turn = 300ms;
    options_.start_wait = 20s;
    options_.supervisor = {.health_interval = 20ms,
                           .unresponsive_limit = 2s,
                           .stop_grace = 5s,
                           .backoff = {.first = 5ms, .most = 200ms, .healthy_after = 60s}};
  }
  ~FleetTest() override {
    if (fleet_) test::run(io_, fleet_->stop());
    fleet_.reset();
    std::filesystem::remove_all(folder_);
  }

  // A worker that is expected to take `need` MiB.
  ModelSpec& add(const std::string& id, std::int64_t need, std::vector<std::string> flags = {}, const std::string& mode = "ok") {
    ModelSpec spec;
    spec.id = id;
    spec.command = {HEARTH_FAKE_WORKER, mode, state_file(id), "--model-id=" + id};
    spec.command.insert(spec.command.end(), flags.begin(), flags.end());
    spec.need.weights = static_cast<std::uint64_t>(need * mib);
    options_.models.push_back(std::move(spec));
    return options_.models.back();
  }
  void start() {
    auto made = Fleet::make(io_, options_);
    ASSERT_TRUE(made.ok()) << made.error().message;
    fleet_ = std::move(*made);
    watching_ = fleet_->watch([this](const ModelEvent& event) { events_.push_back(event); });
    fleet_->start();
  }

  struct Running {
    std::optional<Result<std::unique_ptr<wire::EventStream>>> opened;
    chat::Events events;
    bool done = false;
    std::string text() const {
      std::string out;
      for (const auto& event : events) {
        if (const auto* delta = std::get_if<chat::TextDelta>(&event)) out += delta->text;
      }
      return out;
    }
    std::string failure() const {
      if (opened && !opened->ok()) return opened->error().message;
      for (const auto& event : events) {
        if (const auto* failed = std::get_if<chat::Failed>(&event)) return failed->error.message;
      }
      return "";
    }
  };
  net::Task<void> run_request(chat::Request request, wire::Caller caller, std::shared_ptr<Running> running) {
    running->opened = co_await fleet_->generate(std::move(request), std::move(caller));
    while (running->opened->ok()) {
      auto events = co_await (**running->opened)->next();
      if (events.empty()) break;
      running->events.insert(running->events.end(), events.begin(), events.end());
    }
    if (running->opened->ok()) (*running->opened)->reset();
    running->done = true;
  }
  // Runs beside the test.
  std::shared_ptr<Running> begin(chat::Request request, wire::Caller caller = {"t", "r"}) {
    auto running = std::make_shared<Running>();
    net::asio::co_spawn(io_, run_request(std::move(request), std::move(caller), running), net::asio::detached);
    return running;
  }
  std::shared_ptr<Running> chat(const std::string& model) { return begin(ask(model)); }
  bool ends(const std::shared_ptr<Running>& running) {
    return test::wait_for(io_, [&] { return running->done; });
  }
  ModelState state(const std::string& model) const {
    for (const auto& info : fleet_->snapshot()) {
      if (info.id == model) return info.state;
    }
    ADD_FAILURE() << "no model " << model;
    return {};
  }
  bool reaches(const std::string& model, ModelState wanted) {
    return test::wait_for(io_, [&] { return state(model) == wanted; });
  }
  std::string state_file(const std::string& id) const { return folder_ + "/" + id; }
  int starts(const std::string& id) const {
    int number = 0;
    std::ifstream(state_file(id)) >> number;
    return number;
  }
  std::vector<std::string> told(const std::string& model) const {
    std::vector<std::string> out;
    for (const auto& event : events_) {
      if (event.model == model) out.push_back(event.reason);
    }
    return out;
  }

  net::asio::io_context io_{1};
  std::string folder_;
  FleetOptions options_;
  std::unique_ptr<Fleet> fleet_;
  std::shared_ptr<void> watching_;
  std::vector<ModelEvent> events_;
};

TEST_F(FleetTest, AModelIsLoadedWhenItIsNeededAndAnswers) {
  add("a", 10);
  start();
  EXPECT_EQ(state("a"), ModelState::absent);
  const auto answer = chat("a");
  ASSERT_TRUE(ends(answer));
  EXPECT_EQ(answer->failure(), "");
  EXPECT_EQ(answer->text(), "Hello");
  EXPECT_EQ(state("a"), ModelState::ready);
  EXPECT_EQ(starts("a"), 1);
  EXPECT_THAT(told("a"), ElementsAre("requested", "loaded"));
}

TEST_F(FleetTest, AnExplanationTellsModelUpstreamLaneAndLoad) {
  add("a", 10).aliases = {"other-name"};
  start();
  auto stream = test::run(io_, fleet_->generate(ask("other-name"), {"t", "r"}));
  ASSERT_TRUE(stream.ok()) << stream.error().message;
  EXPECT_EQ(explained(**stream, "model"), "a");
  EXPECT_EQ(explained(**stream, "upstream"), "worker");
  EXPECT_EQ(explained(**stream, "lane"), "local");
  EXPECT_THAT(explained(**stream, "load"), HasSubstr("waited "));
  EXPECT_EQ(explained(**stream, "retries"), "");
}

// ---- loading -------------------------------------------------------------------------------------------------------------------------

TEST_F(FleetTest, RequestsForAnAbsentModelShareOneLoad) {
  add("a", 10, {"--load-delay=100"});
  start();
  std::vector<std::shared_ptr<Running>> all;
  for (int i = 0; i < 10; ++i) all.push_back(chat("a"));
  ASSERT_TRUE(reaches("a", ModelState::loading));
  EXPECT_EQ(fleet_->snapshot().front().waiting, 10);
  for (const auto& one : all) {
    ASSERT_TRUE(ends(one));
    EXPECT_EQ(one->text(), "Hello");
  }
  EXPECT_EQ(starts("a"), 1);
  EXPECT_EQ(fleet_->snapshot().front().running, 0);
}

TEST_F(FleetTest, ModelsThatDoNotFitSideBySideTakeTurns) {
  add("a", 60);
  add("b", 60);
  start();
  for (const std::string model : {"a", "b", "a"}) {
    const auto answer = chat(model);
    ASSERT_TRUE(ends(answer));
    EXPECT_EQ(answer->text(), "Hello");
  }
  EXPECT_EQ(starts("a"), 2);
  EXPECT_EQ(starts("b"), 1);
  EXPECT_THAT(told("a"), ElementsAre("requested", "loaded", "evicted for b", "evicted for b", "requested", "loaded"));
  EXPECT_EQ(state("b"), ModelState::absent);
}

TEST_F(FleetTest, ModelsThatFitStay) {
  add("a", 40);
  add("b", 40);
  start();
  for (const std::string model : {"a", "b", "a", "b"}) ASSERT_TRUE(ends(chat(model)));
  EXPECT_EQ(starts("a"), 1);
  EXPECT_EQ(starts("b"), 1);
}

TEST_F(FleetTest, ARunningAnswerIsNeverEndedByASwap) {
  options_.turn = 0ms;
  add("a", 60, {"--frame-delay=100"});
  add("b", 60);
  start();
  const auto running = chat("a");
  ASSERT_TRUE(test::wait_for(io_, [&] { return !running->events.empty(); }));
  const auto other = chat("b");
  ASSERT_TRUE(reaches("a", ModelState::draining));
  EXPECT_FALSE(running->done);
  ASSERT_TRUE(ends(running));
  EXPECT_FALSE(other->done) << "it had to wait";
  EXPECT_EQ(running->failure(), "");
  EXPECT_EQ(running->text(), "Hello");
  ASSERT_TRUE(ends(other));
  EXPECT_EQ(other->text(), "Hello");
}

TEST_F(FleetTest, ARequestForADrainingModelWaitsForItsReturn) {
  options_.turn = 0ms;
  add("a", 60, {"--frame-delay=50"});
  add("b", 60);
  start();
  const auto running = chat("a");
  ASSERT_TRUE(test::wait_for(io_, [&] { return !running->events.empty(); }));
  const auto other = chat("b");
  ASSERT_TRUE(reaches("a", ModelState::draining));
  const auto late = chat("a");
  for (const auto& one : {running, other, late}) {
    ASSERT_TRUE(ends(one));
    EXPECT_EQ(one->text(), "Hello") << one->failure();
  }
  EXPECT_EQ(starts("a"), 2);
}

TEST_F(FleetTest, AFailedLoadIsAnErrorToExactlyThoseWhoWaited) {
  add("good", 10);
  add("bad", 10, {"--load-delay=50"}, "bad_model");
  start();
  const auto first = chat("bad"), second = chat("bad"), other = chat("good");
  for (const auto& one : {first, second, other}) ASSERT_TRUE(ends(one));
  EXPECT_EQ(first->opened->error().code, ErrorCode::model_invalid);
  EXPECT_EQ(first->failure(), "not a GGUF file");
  EXPECT_EQ(second->failure(), "not a GGUF file");
  EXPECT_EQ(other->text(), "Hello");
  EXPECT_EQ(starts("bad"), 1);
  EXPECT_EQ(state("bad"), ModelState::failed);
  EXPECT_EQ(fleet_->snapshot().back().problem, "not a GGUF file");
  EXPECT_EQ(fleet_->memory_used(), fleet_->snapshot().front().memory_bytes) << "what failed takes nothing";
}

TEST_F(FleetTest, AProgramThatEndsAtOnceGivesItsLastWords) {
  add("a", 10, {}, "crash_at_start");
  start();
  const auto answer = chat("a");
  ASSERT_TRUE(ends(answer));
  EXPECT_THAT(answer->failure(), HasSubstr("exit code 9"));
  EXPECT_THAT(answer->failure(), HasSubstr("the library is missing"));
}

TEST_F(FleetTest, AModelThatWasRepairedLoadsWhenItIsAskedFor) {
  add("a", 10, {}, "bad_until_repaired");
  start();
  ASSERT_TRUE(ends(chat("a")));
  EXPECT_EQ(state("a"), ModelState::failed);
  const auto soon = chat("a");
  ASSERT_TRUE(ends(soon));
  EXPECT_EQ(soon->failure(), "damaged");
  EXPECT_EQ(starts("a"), 1) << "what has just failed is not read again for every request";
  std::ofstream(state_file("a") + ".repaired") << "yes";
  const auto loaded = test::run(io_, fleet_->load("a", {}, {"t", "r"}));
  EXPECT_TRUE(loaded.ok()) << loaded.error().message;
  EXPECT_EQ(state("a"), ModelState::ready);
}

TEST_F(FleetTest, AModelLargerThanMemoryIsRefusedAtOnce) {
  add("large", 500);
  start();
  const auto answer = chat("large");
  ASSERT_TRUE(ends(answer));
  EXPECT_EQ(answer->opened->error().code, ErrorCode::unsupported);
  EXPECT_THAT(answer->failure(), HasSubstr("500 MiB"));
  EXPECT_THAT(answer->failure(), HasSubstr("100 MiB"));
  EXPECT_EQ(starts("large"), 0);
}

TEST_F(FleetTest, TheLineOfThoseWhoWaitHasAnEnd) {
  options_.queue_limit = 2;
  add("a", 10, {"--load-delay=200"});
  start();
  const auto first = chat("a"), second = chat("a"), third = chat("a");
  ASSERT_TRUE(ends(third));
  EXPECT_EQ(third->opened->error().code, ErrorCode::overloaded);
  EXPECT_GT(third->opened->error().retry_after, 0ms);
  ASSERT_TRUE(ends(first));
  ASSERT_TRUE(ends(second));
  EXPECT_EQ(second->text(), "Hello");
}

TEST_F(FleetTest, AClientThatLeavesNoLongerWaits) {
  add("a", 10, {"--load-delay=300"});
  start();
  const wire::Caller caller{"t", "r", {}, std::make_shared<net::Cancellation>()};
  const auto answer = begin(ask("a"), caller);
  ASSERT_TRUE(reaches("a", ModelState::loading));
  caller.cancellation->request();
  ASSERT_TRUE(ends(answer));
  EXPECT_EQ(answer->opened->error().code, ErrorCode::client_gone);
  EXPECT_EQ(fleet_->snapshot().front().waiting, 0);
  EXPECT_EQ(state("a"), ModelState::loading);
}

TEST_F(FleetTest, ARequestDoesNotWaitForRoomForEver) {
  options_.turn = 0ms;
  options_.start_wait = 100ms;
  add("a", 60, {"--frame-delay=200"});
  add("b", 60);
  start();
  const auto running = chat("a");
  ASSERT_TRUE(test::wait_for(io_, [&] { return !running->events.empty(); }));
  const auto other = chat("b");
  ASSERT_TRUE(ends(other));
  EXPECT_EQ(other->opened->error().code, ErrorCode::unavailable);
  EXPECT_THAT(other->failure(), HasSubstr("other models are busy"));
  ASSERT_TRUE(ends(running));
  EXPECT_EQ(running->text(), "Hello");
}

TEST_F(FleetTest, ASlowLoadIsNotAWaitForRoom) {
  options_.start_wait = 50ms;
  add("a", 10, {"--load-delay=300"});
  start();
  const auto answer = chat("a");
  ASSERT_TRUE(ends(answer));
  EXPECT_EQ(answer->text(), "Hello") << answer->failure();
}

// ---- staying and going -----------------------------------------------------------------------------------------------------------------

TEST_F(FleetTest, PinnedAndPreloadedModelsAreLoadedAtStartAsFarAsThereIsRoom) {
  add("on-demand", 10);
  add("pinned", 60).pinned = true;
  add("fits", 30).preload = true;
  add("does-not", 30).preload = true;
  start();
  ASSERT_TRUE(reaches("pinned", ModelState::ready));
  ASSERT_TRUE(reaches("fits", ModelState::ready));
  EXPECT_EQ(state("does-not"), ModelState::absent);
  EXPECT_EQ(state("on-demand"), ModelState::absent);
  EXPECT_THAT(told("fits"), ElementsAre("preloaded", "loaded"));
}

TEST_F(FleetTest, APinnedModelThatCannotBeLoadedComesUpOnceItIsRepaired) {
  add("a", 10, {}, "bad_until_repaired").pinned = true;
  start();
  ASSERT_TRUE(reaches("a", ModelState::failed));
  const auto refused = chat("a");
  ASSERT_TRUE(ends(refused));
  EXPECT_EQ(refused->failure(), "damaged");
  std::ofstream(state_file("a") + ".repaired") << "yes";
  ASSERT_TRUE(reaches("a", ModelState::ready));
  const auto answer = chat("a");
  ASSERT_TRUE(ends(answer));
  EXPECT_EQ(answer->text(), "Hello");
}

TEST_F(FleetTest, AnIdleModelIsUnloaded) {
  add("a", 10).idle_unload = 50ms;
  start();
  ASSERT_TRUE(ends(chat("a")));
  ASSERT_TRUE(reaches("a", ModelState::absent));
  EXPECT_THAT(told("a"), ElementsAre("requested", "loaded", "idle", "idle"));
  EXPECT_EQ(fleet_->memory_used(), 0);
}

TEST_F(FleetTest, ARequestMaySendItsModelAwayOrKeepIt) {
  add("a", 10).idle_unload = 30min;
  start();
  auto last = ask("a");
  last.keep_loaded = 0ms;
  ASSERT_TRUE(ends(begin(last)));
  ASSERT_TRUE(reaches("a", ModelState::absent));
  auto keep = ask("a");
  keep.keep_loaded = -1ms;
  ASSERT_TRUE(ends(begin(keep)));
  EXPECT_EQ(state("a"), ModelState::ready);
  EXPECT_EQ(fleet_->snapshot().front().unloads_at, 0);
  keep.keep_loaded = 1h;
  ASSERT_TRUE(ends(begin(keep)));
  EXPECT_GT(fleet_->snapshot().front().unloads_at, 0);
}

TEST_F(FleetTest, UnloadingLetsAnswersFinishAndReturnsWhenTheMemoryIsFree) {
  add("a", 10, {"--frame-delay=50"});
  start();
  const auto running = chat("a");
  ASSERT_TRUE(test::wait_for(io_, [&] { return !running->events.empty(); }));
  const auto unloaded = test::run(io_, fleet_->unload("a", {"t", "r"}));
  EXPECT_TRUE(unloaded.ok());
  EXPECT_TRUE(running->done);
  EXPECT_EQ(running->text(), "Hello");
  EXPECT_EQ(fleet_->memory_used(), 0);
  EXPECT_EQ(state("a"), ModelState::absent);
  EXPECT_TRUE(test::run(io_, fleet_->unload("a", {"t", "r"})).ok()) << "nothing to do";
  ASSERT_TRUE(ends(chat("a")));
  EXPECT_EQ(starts("a"), 2);
}

TEST_F(FleetTest, WhatAModelTakesIsMeasured) {
  add("a", 10, {"--hold=" + std::to_string(60 * mib)});
  add("b", 50);
  start();
  ASSERT_TRUE(ends(chat("a")));
  EXPECT_TRUE(test::wait_for(io_, [&] { return fleet_->memory_used() > 60 * mib; }));
  ASSERT_TRUE(ends(chat("b")));
  EXPECT_EQ(state("a"), ModelState::absent) << "both would have fitted as expected, but not as measured";
}

TEST_F(FleetTest, StoppingEndsEveryProcessAndSendsEverybodyHome) {
  add("a", 10);
  add("b", 10, {"--load-delay=5000"});
  start();
  ASSERT_TRUE(ends(chat("a")));
  const auto waits = chat("b");
  ASSERT_TRUE(reaches("b", ModelState::loading));
  test::run(io_, fleet_->stop());
  ASSERT_TRUE(ends(waits));
  EXPECT_EQ(waits->opened->error().code, ErrorCode::unavailable);
  const auto late = chat("a");
  ASSERT_TRUE(ends(late));
  EXPECT_EQ(late->opened->error().code, ErrorCode::unavailable);
}

TEST_F(FleetTest, AModelRunsOnOneGpuOrOnNone) {
  unsetenv("CUDA_VISIBLE_DEVICES");
  std::vector<MemoryState::Gpu> gpus(2, {.name = "gpu", .total = 1'000 * mib, .free = 320 * mib});  // 64 beside the reserve
  options_.memory_state = [gpus] { return MemoryState{.total = 1'000 * mib, .available = 500 * mib, .gpus = gpus}; };
  options_.memory = 500 * mib;
  add("a", 60);
  add("b", 60);
  add("large", 200);
  add("insisted", 10).gpu_layers = 0;
  start();
  const auto gpu_of = [&](const std::string& id) {
    std::string text;
    EXPECT_TRUE(ends(chat(id)));
    std::ifstream file(state_file(id) + ".gpu");
    std::getline(file, text);
    return text;
  };
  const auto device = [&](std::size_t index) { return fleet_->snapshot()[index].device; };
  EXPECT_EQ(gpu_of("a"), "-1 layers, devices: 0");
  EXPECT_EQ(gpu_of("b"), "-1 layers, devices: 1");
  EXPECT_EQ(gpu_of("large"), "0 layers, devices: ");
  EXPECT_EQ(gpu_of("insisted"), "0 layers, devices: ");
  EXPECT_EQ(device(0), "gpu0");
  EXPECT_EQ(device(1), "gpu1");
  EXPECT_EQ(device(2), "cpu");
  EXPECT_EQ(fleet_->snapshot()[0].gpu_bytes, 60 * mib);

  // Where we are shown some of them only, theirs are among those.
  setenv("CUDA_VISIBLE_DEVICES", "3,GPU-5e", 1);
  ASSERT_TRUE(test::run(io_, fleet_->unload("b", {"t", "r"})).ok());
  EXPECT_EQ(gpu_of("b"), "-1 layers, devices: GPU-5e");
  unsetenv("CUDA_VISIBLE_DEVICES");
}

// ---- crashes ---------------------------------------------------------------------------------------------------------------------------

TEST_F(FleetTest, ARequestThatADyingProcessDroppedGoesToItsSuccessor) {
  add("a", 10, {}, "crash_on_first_request");
  start();
  auto stream = test::run(io_, fleet_->generate(ask("a"), {"t", "r"}));
  ASSERT_TRUE(stream.ok()) << stream.error().message;
  EXPECT_EQ(explained(**stream, "retries"), "1");
  EXPECT_FALSE(test::run(io_, (*stream)->next()).empty());
  EXPECT_EQ(starts("a"), 2);
}

TEST_F(FleetTest, AnAnswerThatHadBegunIsNotBegunAgain) {
  add("a", 10, {"--frame-delay=100"});
  start();
  const auto running = chat("a");
  ASSERT_TRUE(test::wait_for(io_, [&] { return !running->events.empty(); }));
  int pid = 0;
  std::ifstream(state_file("a") + ".pid") >> pid;
  ASSERT_GT(pid, 0);
  ::kill(pid, SIGKILL);
  ASSERT_TRUE(ends(running));
  EXPECT_THAT(running->failure(), HasSubstr("stopped while answering"));
  const auto next = chat("a");
  ASSERT_TRUE(ends(next));
  EXPECT_EQ(next->text(), "Hello");
  EXPECT_EQ(starts("a"), 2);
}

TEST_F(FleetTest, AnAnswerThatHadNotBegunIsBegunAgainEvenThoughItsHeadHadCome) {
  add("a", 10, {}, "crash_before_first_frame");
  start();
  const auto answer = chat("a");
  ASSERT_TRUE(ends(answer));
  EXPECT_EQ(answer->text(), "Hello") << answer->failure();
  EXPECT_EQ(starts("a"), 2);
}

// ---- which model -----------------------------------------------------------------------------------------------------------------------

TEST_F(FleetTest, ImagesGoToAModelThatSeesOrAreRefusedWithTheNamesOfThoseThatDo) {
  add("blind", 10);
  add("eyes", 10).roles = {chat::ModelRole::vision};
  start();
  auto request = ask("blind");
  request.messages[0].content.push_back({.kind = chat::ContentPart::Kind::image, .media_type = "image/png", .data = "AA=="});
  const auto refused = begin(request);
  ASSERT_TRUE(ends(refused));
  EXPECT_EQ(refused->opened->error().code, ErrorCode::unsupported);
  EXPECT_THAT(refused->failure(), HasSubstr("eyes"));
  EXPECT_EQ(starts("blind"), 0);
  request.model.clear();
  auto stream = test::run(io_, fleet_->generate(request, {"t", "r"}));
  ASSERT_TRUE(stream.ok()) << stream.error().message;
  EXPECT_EQ(explained(**stream, "model"), "eyes");
}

TEST_F(FleetTest, TheListIsThereBeforeAnythingIsLoaded) {
  add("a", 10).aliases = {"x"};
  add("b", 20).roles = {chat::ModelRole::embedding};
  start();
  const auto all = test::run(io_, fleet_->models());
  ASSERT_TRUE(all.ok());
  ASSERT_EQ(all->size(), 2U);
  EXPECT_THAT((*all)[0].aliases, ElementsAre("x"));
  EXPECT_EQ((*all)[0].memory_bytes, 10 * mib);
  EXPECT_TRUE((*all)[0].default_for_role);
  EXPECT_TRUE((*all)[1].default_for_role);
  EXPECT_EQ((*all)[1].upstream, "worker");
  EXPECT_EQ((*all)[1].state, ModelState::absent);
}

TEST_F(FleetTest, WhatHappenedCanBeReadAfterwardsAndNobodyIsToldAfterLeaving) {
  add("a", 10);
  start();
  ASSERT_TRUE(ends(chat("a")));
  watching_.reset();
  const auto seen = events_.size();
  ASSERT_TRUE(test::run(io_, fleet_->unload("a", {"t", "r"})).ok());
  EXPECT_EQ(events_.size(), seen);
  const auto all = fleet_->history(0);
  ASSERT_EQ(all.size(), 4U);
  EXPECT_EQ(all[0].number, 1U);
  EXPECT_EQ(all[3].state, ModelState::absent);
  EXPECT_EQ(fleet_->history(3).size(), 1U);
}

TEST_F(FleetTest, EveryLoadedWorkerReports) {
  add("a", 10);
  add("b", 10);
  add("c", 10);
  start();
  ASSERT_TRUE(ends(chat("a")));
  ASSERT_TRUE(ends(chat("b")));
  const auto reports = test::run(io_, fleet_->reports(1s));
  ASSERT_EQ(reports.size(), 2U);
  EXPECT_EQ(reports[0].model, "a");
  EXPECT_EQ(reports[1].model, "b");
}

TEST_F(FleetTest, ACommandLineServesAModelToo) {
  ModelSpec spec;
  spec.id = "foreign";
  spec.kind = ModelKind::command;
  spec.command = {HEARTH_FAKE_SERVER, "ok", "{port}", "{model}", folder_};
  spec.health_path = "/ok";
  options_.models.push_back(spec);
  start();
  const auto answer = chat("foreign");
  ASSERT_TRUE(ends(answer));
  EXPECT_EQ(answer->text(), "Hello") << answer->failure();
  EXPECT_EQ(fleet_->snapshot().front().upstream, "command");
}

// ---- elsewhere -------------------------------------------------------------------------------------------------------------------------

class RemoteFleetTest : public FleetTest {
 protected:
  ModelSpec& add_remote(const std::string& id, std::initializer_list<unsigned short> ports) {
    ModelSpec spec;
    spec.id = id;
    spec.kind = ModelKind::openai;
    for (const auto port : ports) spec.remotes.push_back({net::TcpEndpoint{"127.0.0.1", port}, ""});
    options_.models.push_back(std::move(spec));
    return options_.models.back();
  }
  test::FakeEngine one_{io_}, two_{io_};
};

TEST_F(RemoteFleetTest, ARemoteModelIsThereWithoutALoad) {
  one_.frames = test::FakeEngine::hello();
  const auto server = one_.serve();
  add_remote("far", {server->port()});
  start();
  EXPECT_EQ(state("far"), ModelState::ready);
  auto stream = test::run(io_, fleet_->generate(ask("far"), {"t", "r"}));
  ASSERT_TRUE(stream.ok()) << stream.error().message;
  EXPECT_EQ(explained(**stream, "lane"), "remote");
  EXPECT_EQ(explained(**stream, "model"), "far");
  EXPECT_EQ(fleet_->snapshot().front().running, 1);
  stream->reset();
  EXPECT_EQ(fleet_->snapshot().front().running, 0);
  EXPECT_TRUE(test::run(io_, fleet_->load("far", {}, {"t", "r"})).ok());
  EXPECT_EQ(test::run(io_, fleet_->unload("far", {"t", "r"})).error().code, ErrorCode::unsupported);
}

TEST_F(RemoteFleetTest, ARequestWhoseEndpointFailsBeforeAnythingWasSeenGoesToTheNext) {
  one_.frames = two_.frames = test::FakeEngine::hello();
  one_.end = test::FakeEngine::End::cut;
  one_.frames.clear();
  const auto first = one_.serve(), second = two_.serve();
  add_remote("far", {first->port(), second->port()});
  start();
  for (int i = 0; i < 20; ++i) {
    auto request = ask("far");
    request.messages[0].content[0].text = "question " + std::to_string(i);
    const auto answer = begin(request);
    ASSERT_TRUE(ends(answer));
    EXPECT_EQ(answer->text(), "Hello") << answer->failure();
  }
  EXPECT_EQ(two_.seen.size(), 20U);
  EXPECT_GE(one_.seen.size(), 5U) << "it was tried";
  EXPECT_LT(one_.seen.size(), 12U) << "and then left alone";
}

TEST_F(RemoteFleetTest, AConversationStaysAtOneEndpoint) {
  one_.frames = two_.frames = test::FakeEngine::hello();
  const auto first = one_.serve(), second = two_.serve();
  add_remote("far", {first->port(), second->port()});
  start();
  auto request = ask("far");
  for (int turn = 0; turn < 6; ++turn) {
    ASSERT_TRUE(ends(begin(request)));
    request.messages.push_back({.role = chat::Role::assistant, .content = {{.text = "Hello"}}});
    request.messages.push_back({.role = chat::Role::user, .content = {{.text = "and?"}}});
  }
  EXPECT_EQ(one_.seen.size() + two_.seen.size(), 6U);
  EXPECT_TRUE(one_.seen.empty() || two_.seen.empty());
}

TEST_F(RemoteFleetTest, ARequestThatIsRefusedWithGoodReasonIsNotSentElsewhere) {
  one_.status = two_.status = 400;
  one_.body = two_.body = R"({"error":{"message":"no such thing","type":"invalid_request_error"}})";
  const auto first = one_.serve(), second = two_.serve();
  add_remote("far", {first->port(), second->port()});
  start();
  const auto answer = chat("far");
  ASSERT_TRUE(ends(answer));
  EXPECT_EQ(answer->failure(), "no such thing");
  EXPECT_EQ(one_.seen.size() + two_.seen.size(), 1U);
}

TEST_F(RemoteFleetTest, AnAnswerThatHadBegunIsNotSentAgain) {
  one_.frames = {test::FakeEngine::chunk(R"({"role":"assistant","content":"Hel"})")};
  two_.frames = one_.frames;
  one_.end = two_.end = test::FakeEngine::End::cut;
  const auto first = one_.serve(), second = two_.serve();
  add_remote("far", {first->port(), second->port()});
  start();
  const auto answer = chat("far");
  ASSERT_TRUE(ends(answer));
  EXPECT_EQ(answer->text(), "Hel");
  EXPECT_NE(answer->failure(), "");
  EXPECT_EQ(one_.seen.size() + two_.seen.size(), 1U);
}

TEST_F(RemoteFleetTest, EmbeddingsAndRankingGoToTheModelOfTheirRole) {
  one_.body =
      R"({"object":"list","data":[{"object":"embedding","index":0,"embedding":[1,0]}],"usage":{"prompt_tokens":3,"total_tokens":3}})";
  two_.body = R"({"results":[{"index":1,"relevance_score":0.9},{"index":0,"relevance_score":0.1}],"usage":{"prompt_tokens":5}})";
  const auto first = one_.serve(), second = two_.serve();
  add("talker", 10);
  add_remote("vectors", {first->port()}).roles = {chat::ModelRole::embedding};
  add_remote("ranker", {second->port()}).roles = {chat::ModelRole::reranker};
  start();
  chat::EmbeddingRequest embed;
  embed.inputs.push_back({.text = "x"});
  const auto vectors = test::run(io_, fleet_->embed(embed, {"t", "r"}));
  ASSERT_TRUE(vectors.ok()) << vectors.error().message;
  EXPECT_EQ(vectors->vectors.size(), 1U);
  chat::RerankRequest rank;
  rank.query = "q";
  rank.documents = {"a", "b"};
  const auto ranked = test::run(io_, fleet_->rerank(rank, {"t", "r"}));
  ASSERT_TRUE(ranked.ok()) << ranked.error().message;
  EXPECT_EQ(ranked->items.front().index, 1);
  EXPECT_EQ(starts("talker"), 0);
}

}  // namespace
}  // namespace hearth::fleet
