#include "fleet/supervisor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>

#include "fleet/loop.h"
#include "fleet/upstream.h"

namespace hearth::fleet {
namespace {

using namespace std::chrono_literals;
using State = Supervisor::State;
using ::testing::HasSubstr;

class SupervisorTest : public ::testing::Test {
 protected:
  SupervisorTest() {
    char path[] = "/tmp/hearth-test-XXXXXX";
    folder_ = mkdtemp(path);
  }
  ~SupervisorTest() override {
    if (supervisor_) test::run(io_, supervisor_->stop());
    supervisor_.reset();
    std::filesystem::remove_all(folder_);
  }

  Supervisor& start(const std::string& mode) {
    options_.command = {HEARTH_FAKE_WORKER, mode, state_file()};
    options_.socket = folder_ + "/w.sock";
    supervisor_ = std::make_unique<Supervisor>(io_, options_);
    supervisor_->on_change([this] { states_.push_back(supervisor_->state()); });
    supervisor_->start();
    return *supervisor_;
  }
  Result<void> ready(std::chrono::milliseconds up_to = 10s, int after = 0) { return test::run(io_, supervisor_->wait_ready(up_to, after)); }
  bool reaches(State state) {
    return test::wait_for(io_, [&] { return supervisor_->state() == state; });
  }
  std::string state_file() const { return folder_ + "/starts"; }
  int starts() const {
    int number = 0;
    std::ifstream(state_file()) >> number;
    return number;
  }

  net::asio::io_context io_{1};
  std::string folder_;
  SupervisorOptions options_{.health_interval = 20ms,
                             .unresponsive_limit = 150ms,
                             .hang_limit = 1s,
                             .stop_grace = 5s,
                             .backoff = {.first = 5ms, .most = 200ms, .healthy_after = 60s}};
  std::unique_ptr<Supervisor> supervisor_;
  std::vector<State> states_;
};

TEST_F(SupervisorTest, RequestsWaitForAWorkerThatStarts) {
  start("slow");
  EXPECT_EQ(supervisor_->state(), State::starting);
  EXPECT_TRUE(ready().ok());
  EXPECT_EQ(supervisor_->state(), State::ready);
  EXPECT_GT(supervisor_->pid(), 0);
  const auto health = test::run(io_, supervisor_->check(1s));
  EXPECT_TRUE(health.ok());
}

TEST_F(SupervisorTest, AWaitHasItsLimit) {
  start("slow");
  const auto waited = ready(1ms);
  ASSERT_FALSE(waited.ok());
  EXPECT_EQ(waited.error().code, ErrorCode::unavailable);
  EXPECT_THAT(waited.error().message, HasSubstr("starting"));
  EXPECT_GT(waited.error().retry_after.count(), 0);
}

TEST_F(SupervisorTest, AKilledWorkerIsReplaced) {
  start("ok");
  ASSERT_TRUE(ready().ok());
  const auto first = supervisor_->pid();
  ::kill(first, SIGKILL);
  ASSERT_TRUE(ready(10s, supervisor_->generation()).ok());
  EXPECT_NE(supervisor_->pid(), first);
  EXPECT_EQ(supervisor_->restarts(), 1);
  EXPECT_THAT(supervisor_->last_error().message, HasSubstr("signal 9"));
}

TEST_F(SupervisorTest, ABadModelIsReportedAtOnceAndTriedRarely) {
  start("bad_model");
  ASSERT_TRUE(reaches(State::failed));
  EXPECT_EQ(starts(), 1);
  const auto waited = ready(10s);
  ASSERT_FALSE(waited.ok());
  EXPECT_EQ(waited.error().code, ErrorCode::model_invalid);
  EXPECT_EQ(waited.error().message, "not a GGUF file");
  EXPECT_EQ(waited.error().retry_after, options_.backoff.most) << "the next try comes after the longest back-off, not the shortest";
  EXPECT_EQ(starts(), 1) << "waiting did not start another worker";
}

TEST_F(SupervisorTest, ACrashAtStartBacksOffAndGivesItsLastWords) {
  options_.backoff.most = 20ms;
  start("crash_at_start");
  ASSERT_TRUE(test::wait_for(io_, [&] { return starts() >= 4 && supervisor_->state() == State::backing_off; }));
  const auto waited = ready(10s);
  ASSERT_FALSE(waited.ok());
  EXPECT_EQ(waited.error().code, ErrorCode::unavailable);
  EXPECT_THAT(waited.error().message, HasSubstr("exit code 9"));
  EXPECT_THAT(waited.error().message, HasSubstr("the library is missing"));
}

TEST_F(SupervisorTest, RequestsOutwaitASingleCrash) {
  start("crash_twice");
  EXPECT_TRUE(ready().ok());
  EXPECT_EQ(starts(), 3);
}

TEST_F(SupervisorTest, AMemoryShortageIsTriedAgainSoon) {
  start("no_memory_once");
  ASSERT_TRUE(reaches(State::backing_off));
  const auto waited = ready();
  ASSERT_FALSE(waited.ok());
  EXPECT_EQ(waited.error().message, "not enough memory");
  EXPECT_TRUE(reaches(State::ready));
}

TEST_F(SupervisorTest, AProgramThatIsNotThereIsAnError) {
  options_.command = {folder_ + "/none"};
  options_.socket = folder_ + "/w.sock";
  supervisor_ = std::make_unique<Supervisor>(io_, options_);
  supervisor_->start();
  ASSERT_TRUE(reaches(State::backing_off));
  const auto waited = ready();
  ASSERT_FALSE(waited.ok());
  EXPECT_THAT(waited.error().message, HasSubstr("No such file"));
}

TEST_F(SupervisorTest, AHungDecoderIsReplaced) {
  start("hang");
  ASSERT_TRUE(ready().ok());
  ASSERT_TRUE(ready(10s, 1).ok());
  EXPECT_THAT(supervisor_->last_error().message, HasSubstr("hung in its decoder"));
  EXPECT_EQ(starts(), 2);
}

TEST_F(SupervisorTest, AStoppedProcessIsReplaced) {
  start("freeze");
  ASSERT_TRUE(ready().ok());
  ASSERT_TRUE(ready(10s, 1).ok());
  EXPECT_THAT(supervisor_->last_error().message, HasSubstr("no sign of life"));
  EXPECT_EQ(starts(), 2);
}

TEST_F(SupervisorTest, StopsAWorkerThatIgnoresSigterm) {
  options_.stop_grace = 50ms;
  start("stubborn");
  ASSERT_TRUE(ready().ok());
  const auto pid = supervisor_->pid();
  test::run(io_, supervisor_->stop());
  EXPECT_EQ(supervisor_->pid(), 0);
  EXPECT_EQ(::kill(pid, 0), -1) << "the process is gone and reaped";
  const auto waited = ready();
  ASSERT_FALSE(waited.ok());
  EXPECT_EQ(waited.error().code, ErrorCode::unavailable);
}

TEST_F(SupervisorTest, StopsWhileAWorkerStillLoads) {
  start("slow");
  ASSERT_TRUE(test::wait_for(io_, [&] { return supervisor_->pid() != 0; }));
  test::run(io_, supervisor_->stop());
  EXPECT_EQ(supervisor_->pid(), 0);
  EXPECT_EQ(supervisor_->restarts(), 0);
}

TEST_F(SupervisorTest, NothingOfOursLeaksIntoTheWorker) {
  setenv("HEARTH_API_KEY", "secret", 1);
  const net::asio::ip::tcp::acceptor listener(io_, {net::asio::ip::address_v4::loopback(), 0});
  start("leaks");
  ASSERT_TRUE(reaches(State::failed));
  unsetenv("HEARTH_API_KEY");
  EXPECT_EQ(supervisor_->last_error().message, "none");
}

TEST_F(SupervisorTest, DestroyingItEndsTheWorker) {
  start("ok");
  ASSERT_TRUE(ready().ok());
  const auto pid = supervisor_->pid();
  supervisor_.reset();
  EXPECT_TRUE(test::wait_for(io_, [&] { return ::kill(pid, 0) == -1; }));
}

TEST_F(SupervisorTest, AnUpstreamReachesEachNewWorkerOnTheSameSocket) {
  start("crash_on_first_request");
  ASSERT_TRUE(ready().ok());
  HttpUpstream upstream(io_, net::UnixEndpoint{options_.socket}, {});
  chat::Request request;
  request.messages.push_back({.role = chat::Role::user, .content = {{.text = "hi"}}});
  const auto lost = test::run(io_, upstream.generate(request, {"t", "r"}));
  ASSERT_FALSE(lost.ok());
  EXPECT_EQ(lost.error().code, ErrorCode::upstream_failed);
  ASSERT_TRUE(ready(10s, 1).ok());
  const auto served = test::run(io_, upstream.generate(request, {"t", "r"}));
  EXPECT_TRUE(served.ok());
}

// A server given by a command line.
class ForeignTest : public SupervisorTest {
 protected:
  Supervisor& start_server(const std::string& mode) {
    options_.name = "server";
    options_.foreign = ForeignProcess{.model = "some model", .health_path = "/ok"};
    options_.command = {HEARTH_FAKE_SERVER, mode, "{port}", "{model}", folder_};
    supervisor_ = std::make_unique<Supervisor>(io_, options_);
    supervisor_->start();
    return *supervisor_;
  }
  unsigned short port() const { return std::get<net::TcpEndpoint>(supervisor_->endpoint()).port; }
  std::string read(const std::string& name) const {
    std::ifstream file(folder_ + "/" + name);
    return {std::istreambuf_iterator<char>(file), {}};
  }
};

TEST_F(ForeignTest, IsReadyOnceItsHealthCheckSaysSoAndServesWhereItWasTold) {
  start_server("ok");
  ASSERT_TRUE(ready().ok()) << supervisor_->last_error().message;
  EXPECT_EQ(read("ports"), std::to_string(port()) + "\n");
  EXPECT_EQ(read("model"), "some model");
  EXPECT_TRUE(test::run(io_, supervisor_->check(1s)).ok());
  HttpUpstream upstream(io_, supervisor_->endpoint(), {});
  const auto models = test::run(io_, upstream.models());
  ASSERT_TRUE(models.ok()) << models.error().message;
  EXPECT_EQ(models->front().id, "some model");
}

TEST_F(ForeignTest, EachStartHasAPortOfItsOwn) {
  start_server("ok");
  ASSERT_TRUE(ready().ok());
  const auto first = port();
  ::kill(supervisor_->pid(), SIGKILL);
  ASSERT_TRUE(ready(10s, 1).ok());
  EXPECT_EQ(read("ports"), std::to_string(first) + "\n" + std::to_string(port()) + "\n");
}

TEST_F(ForeignTest, ACommandLineThatExitsAtOnceSaysWhyInItsLastLines) {
  start_server("wrong_flag");
  const auto waited = ready();
  ASSERT_FALSE(waited.ok());
  EXPECT_EQ(waited.error().code, ErrorCode::unavailable);
  EXPECT_THAT(waited.error().message, HasSubstr("could not start: exit code 1; its last words: line 22\n"));
  EXPECT_THAT(waited.error().message, HasSubstr("line 30\nerror: unknown argument: --frobnicate"));
  EXPECT_EQ(waited.error().message.find("line 21\n"), std::string::npos) << "no more than ten lines";
}

TEST_F(ForeignTest, AServerThatIsNeverReadyIsEndedAtTheLimit) {
  options_.start_limit = 1s;  // time enough to say something
  start_server("never");
  const auto waited = ready();
  ASSERT_FALSE(waited.ok());
  EXPECT_THAT(waited.error().message, HasSubstr("could not start: it was not ready within 1 s; its last words: a server that talks a lot"));
}

TEST_F(ForeignTest, AServerWhoseHealthFailsIsReplaced) {
  start_server("sick");
  ASSERT_TRUE(ready().ok());
  std::ofstream(folder_ + "/fall_ill") << "now";
  ASSERT_TRUE(ready(10s, 1).ok());
  EXPECT_THAT(supervisor_->last_error().message, HasSubstr("no sign of life"));
  EXPECT_EQ(starts(), 2);
}

TEST_F(ForeignTest, ACommandLineWithoutAPortIsRefused) {
  options_.foreign.emplace();
  options_.command = {HEARTH_FAKE_SERVER, "ok", "8080", "m", folder_};
  supervisor_ = std::make_unique<Supervisor>(io_, options_);
  supervisor_->start();
  ASSERT_TRUE(reaches(State::failed));
  const auto waited = ready();
  ASSERT_FALSE(waited.ok());
  EXPECT_EQ(waited.error().code, ErrorCode::config_invalid);
  EXPECT_THAT(waited.error().message, HasSubstr("{port}"));
  EXPECT_EQ(starts(), 0);
}

TEST_F(ForeignTest, StoppingItEndsWhatItStartedToo) {
  start_server("family");
  ASSERT_TRUE(ready().ok());
  const auto child = std::stoi(read("child"));
  test::run(io_, supervisor_->stop());
  const auto ended = [&] {
    std::ifstream file("/proc/" + std::to_string(child) + "/stat");
    std::string stat;
    return !std::getline(file, stat) || stat.find(") Z ") != std::string::npos;
  };
  EXPECT_TRUE(test::wait_for(io_, ended));
}

}  // namespace
}  // namespace hearth::fleet
