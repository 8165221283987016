#include "fleet/private_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <filesystem>
#include <fstream>
#include <optional>

namespace hearth::fleet {
namespace {

namespace asio = boost::asio;
using ::testing::HasSubstr;

class PrivateFolderTest : public ::testing::Test {
 protected:
  PrivateFolderTest() {
    char path[] = "/tmp/hearth-test-XXXXXX";
    base_ = mkdtemp(path);
  }
  ~PrivateFolderTest() override { std::filesystem::remove_all(base_); }
  void listen(const std::string& path) {
    asio::io_context io;
    const asio::local::stream_protocol::acceptor acceptor(io, asio::local::stream_protocol::endpoint(path));
  }
  // A gateway that was killed: its folder and a socket are left behind.
  std::string abandoned() {
    int pipe_ends[2];
    EXPECT_EQ(pipe(pipe_ends), 0);
    const pid_t child = fork();
    if (child == 0) {
      const auto folder = PrivateFolder::make_in(base_);
      if (!folder.ok()) _exit(1);
      listen(folder->socket("worker"));
      const auto& path = folder->path();
      const auto written = write(pipe_ends[1], path.data(), path.size());
      _exit(written > 0 ? 0 : 1);  // without any destructor
    }
    close(pipe_ends[1]);
    char path[200];
    const auto length = read(pipe_ends[0], path, sizeof path);
    close(pipe_ends[0]);
    EXPECT_EQ(waitpid(child, nullptr, 0), child);
    return {path, static_cast<std::size_t>(std::max<ssize_t>(length, 0))};
  }
  std::string base_;
};

TEST_F(PrivateFolderTest, OnlyItsOwnerMayEnterAndNothingStays) {
  std::string path;
  {
    auto folder = PrivateFolder::make_in(base_);
    ASSERT_TRUE(folder.ok()) << folder.error().message;
    path = folder->path();
    struct stat status{};
    ASSERT_EQ(stat(path.c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 0777, 0700u);
    listen(folder->socket("worker"));
    listen(folder->socket("worker-2"));
    EXPECT_TRUE(std::filesystem::exists(path + "/worker-2.sock"));
    const PrivateFolder moved(std::move(*folder));
    EXPECT_EQ(moved.path(), path);
  }
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST_F(PrivateFolderTest, FoldersOfDeadGatewaysAreRemovedAndThoseOfLivingOnesStay) {
  const auto living = PrivateFolder::make_in(base_);
  ASSERT_TRUE(living.ok());
  listen(living->socket("worker"));
  const auto dead = abandoned();
  ASSERT_TRUE(std::filesystem::exists(dead + "/worker.sock"));
  const auto next = PrivateFolder::make_in(base_);
  ASSERT_TRUE(next.ok());
  EXPECT_FALSE(std::filesystem::exists(dead));
  EXPECT_TRUE(std::filesystem::exists(living->socket("worker")));
}

TEST_F(PrivateFolderTest, WhatIsNotOursIsNeverTouched) {
  const auto dead = abandoned();
  std::ofstream(dead + "/notes.txt") << "precious";
  std::filesystem::create_directory(base_ + "/hearth-other");
  std::filesystem::create_directory_symlink(base_ + "/hearth-other", base_ + "/hearth-run-link");
  const auto next = PrivateFolder::make_in(base_);
  ASSERT_TRUE(next.ok());
  EXPECT_TRUE(std::filesystem::exists(dead + "/notes.txt"));
  EXPECT_TRUE(std::filesystem::exists(base_ + "/hearth-other"));
  EXPECT_TRUE(std::filesystem::is_symlink(base_ + "/hearth-run-link"));
}

TEST_F(PrivateFolderTest, AFolderThatCannotBeMadeIsAClearError) {
  const auto folder = PrivateFolder::make_in(base_ + "/missing");
  ASSERT_FALSE(folder.ok());
  EXPECT_EQ(folder.error().code, ErrorCode::io);
  EXPECT_THAT(folder.error().message, HasSubstr(base_ + "/missing: No such file"));
}

}  // namespace
}  // namespace hearth::fleet
