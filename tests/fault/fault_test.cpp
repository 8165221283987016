// What users see when things break: the real program and the built-in model, with faults from outside (signals, resource limits, sockets).
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <boost/asio/detached.hpp>
#include <charconv>
#include <filesystem>
#include <fstream>

#include "base/base64.h"
#include "base/json.h"
#include "engine/picture.h"
#include "fleet/fake_engine.h"
#include "fleet/loop.h"
#include "fleet/process.h"
#include "net/client.h"

namespace hearth {
namespace {

using namespace std::chrono_literals;
using fleet::Process;
using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::HasSubstr;
using ::testing::Not;
namespace asio = net::asio;

// Runs until somebody stops it or its tokens are used up: the model's own end is ignored.
std::string long_answer(bool stream, int tokens) {
  return R"({"messages":[{"role":"user","content":"list files by size"}],"ignore_eos":true,"temperature":0,"max_tokens":)" +
         std::to_string(tokens) + (stream ? R"(,"stream":true})" : "}");
}

struct Answer {
  int status = 0;
  std::string body;
  std::string failed;  // the connection ended before the answer did
};

class FaultTest : public ::testing::Test {
 protected:
  FaultTest() {
    char path[] = "/tmp/hearth-test-XXXXXX";
    folder_ = mkdtemp(path);
    setenv("XDG_RUNTIME_DIR", path, 1);  // a killed gateway leaves its socket's folder behind
  }
  ~FaultTest() override {
    client_.reset();
    if (gateway_) {
      gateway_->signal(SIGKILL);
      gateway_->stop_reading();
    }
    (void)test::wait_for(io_, [&] { return !reading_; });
    gateway_.reset();
    if (worker_pid_ > 0) (void)test::wait_for(io_, [&] { return gone(worker_pid_); });
    std::filesystem::remove_all(folder_);
    if (HasFailure()) std::fputs(log_.c_str(), stderr);
  }

  void start(std::vector<std::string> flags = {}) {
    std::vector<std::string> command{HEARTH_PROGRAM, "serve", "--config",  "none", "--port",         "0",
                                     "--context",    "32768", "--threads", "1",    "--state-folder", folder_};
    command.insert(command.end(), flags.begin(), flags.end());
    auto spawned = Process::spawn(io_, command, {});
    ASSERT_TRUE(spawned.ok()) << spawned.error().message;
    gateway_ = std::move(*spawned);
    reading_ = true;
    asio::co_spawn(io_, read_log(gateway_), asio::detached);
    ASSERT_TRUE(test::wait_for(io_, [&] { return port_ != 0 || !reading_; }));
    ASSERT_NE(port_, 0);
    client_ = net::Client::make(io_, net::TcpEndpoint{"127.0.0.1", port_});
  }
  void start_ready(std::vector<std::string> flags = {}) {
    start(std::move(flags));
    ASSERT_TRUE(becomes_ready());
  }

  net::Task<void> read_log(std::shared_ptr<Process> from) {
    while (true) {
      const auto line = co_await from->read_line();
      if (!line) break;
      log_ += *line + "\n";
      if (const auto number = number_after(*line, "listens on http://127.0.0.1:")) port_ = static_cast<unsigned short>(*number);
      if (const auto number = number_after(*line, " starts, pid ")) {
        worker_pid_ = static_cast<pid_t>(*number);
        if (on_worker_start_) on_worker_start_();
      }
    }
    reading_ = false;
  }
  static std::optional<long> number_after(const std::string& line, const std::string& mark) {
    const auto at = line.find(mark);
    long number = 0;
    if (at == std::string::npos) return std::nullopt;
    const char* begin = line.data() + at + mark.size();
    if (std::from_chars(begin, line.data() + line.size(), number).ec != std::errc()) return std::nullopt;
    return number;
  }

  net::Task<void> exchange(std::string method, std::string target, std::string body, Answer& into) {
    net::HttpRequest request{.method = std::move(method), .target = std::move(target), .body = std::move(body)};
    auto response = co_await client_->send(std::move(request), 30s);
    if (!response.ok()) {
      into.failed = response.error().message;
      co_return;
    }
    into.status = (*response)->status;
    while (true) {
      const auto bytes = co_await (*response)->read_some(30s);
      if (!bytes.ok()) into.failed = bytes.error().message;
      if (!bytes.ok() || bytes->empty()) break;
      into.body += *bytes;
    }
  }
  // Runs beside the test until its end.
  struct Running {
    Answer answer;
    bool done = false;
  };
  net::Task<void> in_background(std::string body, Running& running) {
    co_await exchange("POST", "/v1/chat/completions", std::move(body), running.answer);
    running.done = true;
  }
  std::vector<std::unique_ptr<Running>> streams(int count, int tokens) {
    std::vector<std::unique_ptr<Running>> all;
    for (int i = 0; i < count; ++i) {
      all.push_back(std::make_unique<Running>());
      asio::co_spawn(io_, in_background(long_answer(true, tokens), *all.back()), asio::detached);
    }
    EXPECT_TRUE(test::wait_for(io_, [&] {
      return std::all_of(all.begin(), all.end(),
                         [](const auto& running) { return running->answer.body.find("content") != std::string::npos; });
    })) << "every stream has begun";
    return all;
  }
  bool all_done(const std::vector<std::unique_ptr<Running>>& all) {
    return test::wait_for(io_, [&] { return std::all_of(all.begin(), all.end(), [](const auto& running) { return running->done; }); }, 20s);
  }

  Answer ask(const std::string& method, const std::string& target, const std::string& body = {}) {
    Answer answer;
    test::run(io_, exchange(method, target, body, answer));
    return answer;
  }
  Answer chat() { return ask("POST", "/v1/chat/completions", long_answer(false, 5)); }
  bool becomes_ready(std::chrono::milliseconds up_to = 20s) { return becomes("GET", "/health", 200, up_to); }
  bool becomes(const std::string& method, const std::string& target, int status, std::chrono::milliseconds up_to) {
    const auto deadline = std::chrono::steady_clock::now() + up_to;
    while (std::chrono::steady_clock::now() < deadline) {
      if (ask(method, target).status == status) return true;
      test::run(io_, test::pause(io_, 10ms));
    }
    return false;
  }
  double metric(const std::string& sample) {
    const auto text = ask("GET", "/metrics").body;
    const auto at = text.find("\n" + sample + " ");
    return at == std::string::npos ? -1 : std::stod(text.substr(at + sample.size() + 2));
  }
  // Ended; whoever inherited it may not have reaped it yet.
  static bool gone(pid_t pid) {
    std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
    std::string stat;
    if (!std::getline(file, stat)) return true;
    const auto state = stat.rfind(')');
    return state == std::string::npos || stat.substr(state, 3) == ") Z";
  }
  bool gateway_alive() const { return ::kill(gateway_->pid(), 0) == 0; }

  static void expect_told(const Answer& answer) {
    EXPECT_EQ(answer.status, 200);
    EXPECT_EQ(answer.failed, "") << "the answer itself ends properly";
    EXPECT_THAT(answer.body, HasSubstr("\"error\""));
    EXPECT_THAT(answer.body, HasSubstr("upstream_failed"));
    EXPECT_THAT(answer.body, HasSubstr("stopped while answering"));
  }

  asio::io_context io_{1};
  std::string folder_;
  std::shared_ptr<Process> gateway_;
  std::unique_ptr<net::Client> client_;
  std::function<void()> on_worker_start_;
  std::string log_;
  unsigned short port_ = 0;
  pid_t worker_pid_ = 0;
  bool reading_ = false;
};

TEST_F(FaultTest, KillingTheWorkerUnderSixteenStreamsTellsEveryClientAndTheNextIsServed) {
  start_ready();
  const auto running = streams(16, 1'900);
  const auto first_worker = worker_pid_;
  ::kill(first_worker, SIGKILL);
  ASSERT_TRUE(all_done(running));
  for (const auto& stream : running) expect_told(stream->answer);

  const auto next = chat();
  EXPECT_EQ(next.status, 200) << next.body << next.failed;
  EXPECT_NE(worker_pid_, first_worker);
  EXPECT_TRUE(gateway_alive());
  EXPECT_EQ(ask("GET", "/health").status, 200);
  EXPECT_EQ(metric("hearth_worker_restarts_total{model=\"hearth-nano-0\"}"), 1);
}

TEST_F(FaultTest, AHungWorkerIsReplaced) {
  start_ready({"--hang-timeout", "2s"});
  const auto running = streams(2, 1'900);
  const auto first_worker = worker_pid_;
  ::kill(first_worker, SIGSTOP);
  ASSERT_TRUE(all_done(running));
  for (const auto& stream : running) expect_told(stream->answer);
  EXPECT_EQ(chat().status, 200);
  EXPECT_NE(worker_pid_, first_worker);
  EXPECT_THAT(log_, HasSubstr("no sign of life"));
}

TEST_F(FaultTest, AWorkerKilledWhileLoadingIsStartedAgainAndTheRequestWaits) {
  int starts = 0;
  on_worker_start_ = [&] {
    if (++starts == 1) ::kill(worker_pid_, SIGKILL);
  };
  start();
  EXPECT_EQ(chat().status, 200);
  EXPECT_EQ(starts, 2);
}

TEST_F(FaultTest, AClientThatLeavesStopsItsGeneration) {
  start_ready();
  net::HttpRequest request{.method = "POST", .target = "/v1/chat/completions", .body = long_answer(true, 1'900)};
  auto response = test::run(io_, client_->send(request, 10s));
  ASSERT_TRUE(response.ok());
  ASSERT_TRUE(test::run(io_, (*response)->read_some(10s)).ok());
  const auto runs = [&](int count) {
    for (int i = 0; i < 1'000; ++i) {
      if (metric("hearth_engine_requests{model=\"hearth-nano-0\",state=\"running\"}") == count) return true;
    }
    return false;
  };
  EXPECT_TRUE(runs(1));
  response->reset();
  EXPECT_TRUE(runs(0));
  EXPECT_LT(metric("hearth_engine_generated_tokens_total{model=\"hearth-nano-0\"}"), 1'900) << "the rest was never computed";
}

TEST_F(FaultTest, AWorkerWithoutMemoryToLoadIsAClearErrorAndTheGatewayStaysUp) {
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
  GTEST_SKIP() << "a sanitizer's shadow of the memory takes more addresses than the bound of this test leaves";
#endif
  start_ready({"--safety", "off", "--context", "65536"});
  long pages = 0;
  std::ifstream("/proc/" + std::to_string(gateway_->pid()) + "/statm") >> pages;
  // The next worker inherits the gateway's limit: enough for the gateway to go on, and less than half of what so large a context takes.
  rlimit before{};
  ASSERT_EQ(prlimit(gateway_->pid(), RLIMIT_AS, nullptr, &before), 0);
  const rlimit tight{static_cast<rlim_t>(pages * sysconf(_SC_PAGESIZE)) + (24 << 20), before.rlim_max};
  ASSERT_EQ(prlimit(gateway_->pid(), RLIMIT_AS, &tight, nullptr), 0);
  ::kill(worker_pid_, SIGKILL);
  ASSERT_TRUE(
      test::wait_for(io_, [&] { return log_.find("could not start") != std::string::npos || log_.find("memory") != std::string::npos; }));
  const auto refused = chat();
  EXPECT_THAT(refused.status, AnyOf(500, 503)) << refused.body;
  EXPECT_THAT(refused.body, HasSubstr("memory"));
  EXPECT_TRUE(gateway_alive());
  ASSERT_EQ(prlimit(gateway_->pid(), RLIMIT_AS, &before, nullptr), 0);
  EXPECT_TRUE(becomes_ready()) << "once there is memory it recovers by itself";
  EXPECT_EQ(chat().status, 200);
}

TEST_F(FaultTest, AWorkerThatRunsOutOfMemoryNeverTakesTheGatewayDown) {
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
  GTEST_SKIP() << "a sanitizer's shadow of the memory takes more addresses than the bound of this test leaves";
#endif
  start_ready();
  long pages = 0;
  std::ifstream("/proc/" + std::to_string(worker_pid_) + "/statm") >> pages;
  const rlimit tight{static_cast<rlim_t>(pages * sysconf(_SC_PAGESIZE)), RLIM_INFINITY};
  ASSERT_EQ(prlimit(worker_pid_, RLIMIT_AS, &tight, nullptr), 0);
  // A prompt too large for the model, and too large for what memory is left.
  const std::string prompt(8 << 20, 'a');
  const auto large = ask("POST", "/v1/chat/completions", R"({"messages":[{"role":"user","content":")" + prompt + "\"}]}");
  EXPECT_EQ(large.failed, "");
  EXPECT_GE(large.status, 400) << large.body;
  EXPECT_THAT(large.body, HasSubstr("\"error\""));
  EXPECT_TRUE(gateway_alive());
  rlimit wide = tight;
  wide.rlim_cur = RLIM_INFINITY;
  (void)prlimit(worker_pid_, RLIMIT_AS, &wide, nullptr);  // fails when it has been replaced, which is as good
  EXPECT_TRUE(becomes_ready());
  EXPECT_EQ(chat().status, 200);
}

TEST_F(FaultTest, SigtermLetsRunningAnswersFinish) {
  start_ready();
  const auto running = streams(4, 300);
  gateway_->signal(SIGTERM);
  ASSERT_TRUE(all_done(running));
  for (const auto& stream : running) {
    EXPECT_EQ(stream->answer.failed, "");
    EXPECT_TRUE(stream->answer.body.ends_with("data: [DONE]\n\n"));
    EXPECT_THAT(stream->answer.body, ::testing::Not(HasSubstr("\"error\"")));
  }
  const int status = test::run(io_, gateway_->wait());
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << fleet::describe_wait_status(status);
  EXPECT_TRUE(gone(worker_pid_)) << "the worker is gone too";
}

TEST_F(FaultTest, ASecondSignalEndsAtOnce) {
  start_ready();
  const auto running = streams(1, 1'900);
  gateway_->signal(SIGTERM);
  ASSERT_TRUE(test::wait_for(io_, [&] { return log_.find("draining") != std::string::npos; }));
  gateway_->signal(SIGINT);
  const int status = test::run(io_, gateway_->wait());
  EXPECT_TRUE(WIFEXITED(status)) << fleet::describe_wait_status(status);
  ASSERT_TRUE(all_done(running));
}

TEST_F(FaultTest, TheWorkerDiesWithAKilledGateway) {
  start_ready();
  gateway_->signal(SIGKILL);
  (void)test::run(io_, gateway_->wait());
  EXPECT_TRUE(test::wait_for(io_, [&] { return gone(worker_pid_); }));
}

TEST_F(FaultTest, ASilentEngineIsATimeoutNotAWait) {
  test::FakeEngine engine(io_);
  engine.frames = {": still here\n\n"};
  engine.end = test::FakeEngine::End::silence;
  const auto server = engine.serve();
  start({"--engine-url", "http://127.0.0.1:" + std::to_string(server->port()), "--first-token-timeout", "200ms", "--between-tokens-timeout",
         "200ms"});
  const auto silent = chat();
  EXPECT_EQ(silent.status, 504) << silent.body;
  EXPECT_THAT(silent.body, HasSubstr("upstream_timeout"));

  engine.frames = {test::FakeEngine::chunk("{\"content\":\"Hel\"}")};
  const auto stuck = ask("POST", "/v1/chat/completions", long_answer(true, 5));
  EXPECT_EQ(stuck.status, 200);
  EXPECT_THAT(stuck.body, HasSubstr("Hel"));
  EXPECT_THAT(stuck.body, HasSubstr("upstream_timeout"));
  EXPECT_TRUE(test::wait_for(io_, [&] { return engine.open == 0; })) << "the engine is told to stop";
}

// A question about a picture, to /v1/chat/completions.
std::string about(const std::string& url) {
  return R"({"messages":[{"role":"user","content":[{"type":"text","text":"what is this?"},{"type":"image_url","image_url":{"url":")" + url +
         R"("}},{"type":"text","text":"say it"}]}],"temperature":0,"max_tokens":8,"ignore_eos":true})";
}

TEST_F(FaultTest, APictureIsAnsweredAboutAndABrokenOneIsRefusedWithoutHarm) {
  const std::string projector = folder_ + "/mmproj.gguf";
  ASSERT_EQ(std::system((std::string(HEARTH_MAKE_PROJECTOR) + " --type mlp --text-width 256 '" + projector + "'").c_str()), 0);
  start_ready({"--mmproj", projector});
  EXPECT_THAT(ask("GET", "/v1/models").body, HasSubstr(R"("vision":true)"));
  const std::string picture = engine::testing::png(48, 40, 1), inlined = "data:image/png;base64," + base64_encode(picture);
  const auto first = ask("POST", "/v1/chat/completions", about(inlined));
  ASSERT_EQ(first.status, 200) << first.body;
  EXPECT_THAT(first.body, HasSubstr(R"("completion_tokens":8)"));
  const auto again = ask("POST", "/v1/chat/completions", about(inlined));
  EXPECT_EQ(again.status, 200) << again.body;
  EXPECT_THAT(again.body, Not(HasSubstr(R"("cached_tokens":0)"))) << "the same picture is computed once";

  const std::string block =
      R"({"type":"image","source":{"type":"base64","media_type":"image/png","data":")" + base64_encode(picture) + R"("}})";
  const auto messages = ask("POST", "/v1/messages",
                            R"({"model":"hearth-nano-0","max_tokens":4,"messages":[{"role":"user","content":[)" + block +
                                R"(,{"type":"text","text":"what is this?"}]}]})");
  EXPECT_EQ(messages.status, 200) << messages.body;

  const auto cut =
      ask("POST", "/v1/chat/completions", about("data:image/png;base64," + base64_encode(picture.substr(0, picture.size() / 2))));
  EXPECT_EQ(cut.status, 400) << cut.body;
  EXPECT_THAT(cut.body, AllOf(HasSubstr("image/png"), HasSubstr("cannot be decoded"), HasSubstr("messages[0].content[1]")));
  const auto elsewhere = ask("POST", "/v1/chat/completions", about("https://example.com/a.png"));
  EXPECT_EQ(elsewhere.status, 400) << elsewhere.body;
  EXPECT_THAT(elsewhere.body, HasSubstr("not fetched from the network"));
  EXPECT_EQ(ask("POST", "/v1/chat/completions", about(inlined)).status, 200);
}

TEST_F(FaultTest, APictureForATextModelIsRefused) {
  start_ready();
  const auto refused = ask("POST", "/v1/chat/completions", about("data:image/png;base64," + base64_encode(engine::testing::png(8, 8, 1))));
  EXPECT_EQ(refused.status, 400) << refused.body;
  EXPECT_THAT(refused.body, AllOf(HasSubstr("unsupported"), HasSubstr("images")));
}

}  // namespace
}  // namespace hearth
