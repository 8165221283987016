// Two models that do not fit side by side, as real workers, while things break: what a swap may cost, and what it may never cost.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>

#include <boost/asio/detached.hpp>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "fleet/fleet.h"
#include "fleet/loop.h"

namespace hearth::fleet {
namespace {

using namespace std::chrono_literals;
using chat::ModelState;
using ::testing::HasSubstr;
namespace fs = std::filesystem;

class SwapTest : public ::testing::Test {
 protected:
  SwapTest() {
    char path[] = "/tmp/hearth-test-XXXXXX";
    folder_ = mkdtemp(path);
    FleetOptions options;
    options.socket_folder = folder_;
    options.memory = std::int64_t{100} << 20;
    options.turn = 50ms;
    options.supervisor.health_interval = 50ms;
    options.supervisor.unresponsive_limit = 1s;
    options.supervisor.backoff.first = 10ms;
    for (const std::string id : {"a", "b"}) {
      ModelSpec spec;
      spec.id = id;
      spec.need.weights = std::size_t{70} << 20;  // one of them fits
      spec.command = {HEARTH_PROGRAM, "worker",           "--model-id=" + id, "--context=2048",
                      "--threads=1",  "--prefix-cache=0", "--log-level=warn"};
      options.models.push_back(std::move(spec));
    }
    auto made = Fleet::make(io_, std::move(options));
    EXPECT_TRUE(made.ok());
    fleet_ = std::move(*made);
    fleet_->start();
  }
  ~SwapTest() override {
    test::run(io_, fleet_->stop());
    fleet_.reset();
    fs::remove_all(folder_);
  }

  struct Running {
    std::string failure;
    int tokens = -1;
    bool begun = false, done = false;
  };
  net::Task<void> run_request(chat::Request request, std::shared_ptr<Running> running) {
    auto stream = co_await fleet_->generate(std::move(request), {"t", "r"});
    if (!stream.ok()) running->failure = stream.error().message;
    while (stream.ok()) {
      const auto events = co_await (*stream)->next();
      if (events.empty()) break;
      running->begun = true;
      for (const auto& event : events) {
        if (const auto* usage = std::get_if<chat::Usage>(&event)) running->tokens = usage->completion_tokens;
        if (const auto* failed = std::get_if<chat::Failed>(&event)) running->failure = failed->error.message;
      }
    }
    running->done = true;
  }
  std::shared_ptr<Running> begin(const std::string& model, int tokens) {
    chat::Request request;
    request.model = model;
    request.messages.push_back({.role = chat::Role::user, .content = {{.text = "list files by size"}}});
    request.max_tokens = tokens;
    request.ignore_eos = true;
    request.sampling.temperature = 0;
    auto running = std::make_shared<Running>();
    net::asio::co_spawn(io_, run_request(std::move(request), running), net::asio::detached);
    return running;
  }
  bool ends(const std::shared_ptr<Running>& running) {
    return test::wait_for(io_, [&] { return running->done; }, 30s);
  }
  bool begins(const std::shared_ptr<Running>& running) {
    return test::wait_for(io_, [&] { return running->begun; }, 30s);
  }
  ModelState state(const std::string& model) const {
    for (const auto& info : fleet_->snapshot()) {
      if (info.id == model) return info.state;
    }
    return {};
  }
  bool reaches(const std::string& model, ModelState wanted) {
    return test::wait_for(io_, [&] { return state(model) == wanted; }, 30s);
  }
  // Among our children; 0 while there is none.
  static pid_t worker_of(const std::string& model) {
    for (const auto& entry : fs::directory_iterator("/proc")) {
      std::ifstream stat(entry.path() / "stat"), command(entry.path() / "cmdline");
      std::string line, all;
      if (!std::getline(stat, line)) continue;
      std::getline(command, all);
      pid_t parent = 0;
      std::string status;
      const auto name_end = line.rfind(')');
      if (name_end == std::string::npos) continue;
      std::istringstream(line.substr(name_end + 1)) >> status >> parent;
      if (parent == getpid() && status != "Z" && all.find("--model-id=" + model) != std::string::npos)
        return std::stoi(entry.path().filename());
    }
    return 0;
  }

  net::asio::io_context io_{1};
  std::string folder_;
  std::unique_ptr<Fleet> fleet_;
};

TEST_F(SwapTest, TwoModelsTakeTurnsAndOnlyOneIsThere) {
  for (const std::string model : {"a", "b", "a"}) {
    const auto answer = begin(model, 3);
    ASSERT_TRUE(ends(answer));
    EXPECT_EQ(answer->failure, "");
    EXPECT_EQ(answer->tokens, 3);
    EXPECT_EQ((worker_of("a") > 0) + (worker_of("b") > 0), 1);
  }
  EXPECT_LE(fleet_->memory_used(), fleet_->memory_budget());
}

TEST_F(SwapTest, ALongAnswerIsWholeThoughAnotherModelIsWanted) {
  const auto running = begin("a", 1'800);
  ASSERT_TRUE(begins(running));
  const auto other = begin("b", 3);
  ASSERT_TRUE(reaches("a", ModelState::draining));
  EXPECT_FALSE(running->done);
  ASSERT_TRUE(ends(running));
  EXPECT_EQ(running->failure, "");
  EXPECT_EQ(running->tokens, 1'800);
  ASSERT_TRUE(ends(other));
  EXPECT_EQ(other->failure, "");
  EXPECT_EQ(other->tokens, 3);
  EXPECT_EQ(worker_of("a"), 0);
}

TEST_F(SwapTest, AWorkerKilledWhileItIsSwappedInIsStartedAgain) {
  ASSERT_TRUE(ends(begin("a", 3)));
  const auto answer = begin("b", 3);
  ASSERT_TRUE(test::wait_for(io_, [&] {
    const auto pid = worker_of("b");
    return pid > 0 && ::kill(pid, SIGKILL) == 0;
  }));
  ASSERT_TRUE(ends(answer));
  EXPECT_EQ(answer->failure, "");
  EXPECT_EQ(answer->tokens, 3);
  EXPECT_EQ(state("a"), ModelState::absent);
}

TEST_F(SwapTest, AWorkerKilledWhileItIsDrainedTellsItsClientAndMakesRoom) {
  const auto running = begin("a", 1'800);
  ASSERT_TRUE(begins(running));
  const auto other = begin("b", 3);
  ASSERT_TRUE(reaches("a", ModelState::draining));
  ASSERT_EQ(::kill(worker_of("a"), SIGKILL), 0);
  ASSERT_TRUE(ends(running));
  EXPECT_THAT(running->failure, HasSubstr("stopped while answering"));
  ASSERT_TRUE(ends(other));
  EXPECT_EQ(other->failure, "");
  EXPECT_EQ(state("a"), ModelState::absent);
  EXPECT_EQ(worker_of("a"), 0);
}

TEST_F(SwapTest, AWorkerThatHangsWhileItIsDrainedDoesNotHoldItsRoomForEver) {
  const auto running = begin("a", 1'800);
  ASSERT_TRUE(begins(running));
  const auto other = begin("b", 3);
  ASSERT_TRUE(reaches("a", ModelState::draining));
  ASSERT_EQ(::kill(worker_of("a"), SIGSTOP), 0);
  ASSERT_TRUE(ends(running));
  EXPECT_NE(running->failure, "");
  ASSERT_TRUE(ends(other));
  EXPECT_EQ(other->failure, "");
}

TEST_F(SwapTest, ManyMixedRequestsAreAllAnsweredWithFewSwaps) {
  std::vector<std::shared_ptr<Running>> all;
  for (int i = 0; i < 24; ++i) all.push_back(begin(i % 2 == 0 ? "a" : "b", 10));
  for (const auto& one : all) {
    ASSERT_TRUE(ends(one));
    EXPECT_EQ(one->failure, "");
    EXPECT_EQ(one->tokens, 10);
  }
  const auto events = fleet_->history(0);
  const auto loads =
      std::count_if(events.begin(), events.end(), [](const ModelEvent& event) { return event.state == ModelState::loading; });
  EXPECT_EQ(loads, 2) << "all of one model's, then all of the other's";
}

}  // namespace
}  // namespace hearth::fleet
