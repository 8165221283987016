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

}  // namespace
}  // namespace hearth::fleet
