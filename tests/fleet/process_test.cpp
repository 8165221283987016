#include "fleet/process.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "fleet/loop.h"

namespace hearth::fleet {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Ended; whoever inherited it may not have reaped it yet.
bool gone(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string stat;
  if (!std::getline(file, stat)) return true;
  const auto state = stat.rfind(')');
  return state == std::string::npos || stat.substr(state, 3) == ") Z";
}

class ProcessTest : public ::testing::Test {
 protected:
  ProcessTest() {
    char path[] = "/tmp/hearth-test-XXXXXX";
    folder_ = mkdtemp(path);
  }
  ~ProcessTest() override { std::filesystem::remove_all(folder_); }

  net::Task<std::vector<std::string>> lines(Process& process) {
    std::vector<std::string> all;
    while (true) {
      const auto line = co_await process.read_line();
      if (!line) break;
      all.push_back(*line);
    }
    co_return all;
  }
  pid_t pid_in(const std::string& name) {
    pid_t pid = 0;
    EXPECT_TRUE(test::wait_for(io_, [&] {
      std::ifstream(folder_ + "/" + name) >> pid;
      return pid > 0;
    })) << name;
    return pid;
  }
  // Leaves the process ids of the shell and of what it started, which ignores SIGTERM, and goes on.
  std::vector<std::string> family() {
    return {"/bin/sh", "-c",
            "cd " + folder_ + "; sh -c \"trap '' TERM; echo \\$\\$ > child.tmp; mv child.tmp child; while :; do sleep 100; done\" & " +
                "echo $$ > parent.tmp; mv parent.tmp parent; wait"};
  }
  // The family's parent is a process of ours that is killed.
  void orphan(Process::Bound bound) {
    const pid_t keeper = fork();
    if (keeper == 0) {
      net::asio::io_context io(1);
      const auto process = Process::spawn(io, family(), {}, bound);
      if (!process.ok()) _exit(1);
      while (true) pause();
    }
    parent_ = pid_in("parent");
    child_ = pid_in("child");
    ::kill(keeper, SIGKILL);
    EXPECT_EQ(waitpid(keeper, nullptr, 0), keeper);
  }

  net::asio::io_context io_{1};
  std::string folder_;
  pid_t parent_ = 0, child_ = 0;
};

TEST_F(ProcessTest, BothStreamsComeBackLineByLineAndThenTheStatus) {
  const auto process = Process::spawn(io_, {"/bin/sh", "-c", "echo out; echo err >&2; printf rest; exit 3"}, {});
  ASSERT_TRUE(process.ok()) << process.error().message;
  EXPECT_THAT(test::run(io_, lines(**process)), ElementsAre("out", "err", "rest"));
  EXPECT_EQ(describe_wait_status(test::run(io_, (*process)->wait())), "exit code 3");
}

TEST_F(ProcessTest, WhatCannotStartIsAnErrorThatSaysWhy) {
  const auto missing = Process::spawn(io_, {folder_ + "/none"}, {});
  ASSERT_FALSE(missing.ok());
  EXPECT_THAT(missing.error().message, HasSubstr("/none: No such file"));
  std::ofstream(folder_ + "/text") << "no program";
  const auto text = Process::spawn(io_, {folder_ + "/text"}, {});
  ASSERT_FALSE(text.ok());
  EXPECT_THAT(text.error().message, HasSubstr("Permission denied"));
  EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1) << "nothing is left to reap";
}

TEST_F(ProcessTest, ItsSignalsAreUnblockedAndAtTheirDefaults) {
  signal(SIGUSR1, SIG_IGN);
  const auto process = Process::spawn(io_, {"/bin/sh", "-c", "kill -USR1 $$; echo survived"}, {});
  signal(SIGUSR1, SIG_DFL);
  ASSERT_TRUE(process.ok());
  EXPECT_THAT(test::run(io_, lines(**process)), ElementsAre());
  EXPECT_THAT(describe_wait_status(test::run(io_, (*process)->wait())), HasSubstr("signal 10"));
}

TEST_F(ProcessTest, WhatTheLeaderLeavesRunningIsEnded) {
  const auto process = Process::spawn(io_, family(), {}, Process::Bound::group);
  ASSERT_TRUE(process.ok());
  child_ = pid_in("child");
  (*process)->signal(SIGTERM);
  EXPECT_THAT(describe_wait_status(test::run(io_, (*process)->wait())), HasSubstr("signal 15"));
  EXPECT_TRUE(test::wait_for(io_, [&] { return gone(child_); }));
  EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1) << "the watcher is gone and reaped too";
}

TEST_F(ProcessTest, DestroyingItEndsAllOfTheGroup) {
  auto process = Process::spawn(io_, family(), {}, Process::Bound::group);
  ASSERT_TRUE(process.ok());
  parent_ = pid_in("parent");
  child_ = pid_in("child");
  process->reset();
  EXPECT_TRUE(test::wait_for(io_, [&] { return gone(parent_) && gone(child_); }));
}

TEST_F(ProcessTest, AGroupDiesWithAKilledOwner) {
  orphan(Process::Bound::group);
  EXPECT_TRUE(test::wait_for(io_, [&] { return gone(parent_) && gone(child_); }));
}

TEST_F(ProcessTest, ALeaderDiesWithAKilledOwner) {
  orphan(Process::Bound::leader);
  EXPECT_TRUE(test::wait_for(io_, [&] { return gone(parent_); }));
  ::kill(child_, SIGKILL);
}

}  // namespace
}  // namespace hearth::fleet
