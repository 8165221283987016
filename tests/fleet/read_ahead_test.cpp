#include "fleet/read_ahead.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <thread>

namespace hearth::fleet {
namespace {

using namespace std::chrono_literals;

class ReadAheadTest : public ::testing::Test {
 protected:
  ReadAheadTest() {
    char path[] = "/var/tmp/hearth-test-XXXXXX";  // on a disk: what lies in memory is always there
    folder_ = mkdtemp(path);
    file_ = folder_ + "/model.gguf";
    std::ofstream(file_, std::ios::binary) << std::string(bytes, 'x');
  }
  ~ReadAheadTest() override { std::filesystem::remove_all(folder_); }

  // Share of the file that is in the page cache.
  double cached() const {
    const int fd = open(file_.c_str(), O_RDONLY);
    void* map = mmap(nullptr, bytes, PROT_READ, MAP_SHARED, fd, 0);
    std::vector<unsigned char> pages(bytes / page);
    EXPECT_EQ(mincore(map, bytes, pages.data()), 0);
    munmap(map, bytes);
    close(fd);
    std::size_t there = 0;
    for (const auto one : pages) there += one & 1U;
    return static_cast<double>(there) / static_cast<double>(pages.size());
  }
  // False where the file system keeps its files in memory.
  bool forget() const {
    const int fd = open(file_.c_str(), O_RDONLY);
    fsync(fd);
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    close(fd);
    return cached() < 0.1;
  }
  bool comes() const {
    for (int i = 0; i < 1'000; ++i) {
      if (cached() > 0.99) return true;
      std::this_thread::sleep_for(10ms);
    }
    return false;
  }

  static constexpr std::size_t page = 4096, bytes = std::size_t{20} << 20;
  std::string folder_, file_;
};

TEST_F(ReadAheadTest, AFileIsInTheCacheSoon) {
  if (!forget()) GTEST_SKIP() << "this file system does not forget";
  ReadAhead ahead;
  ahead.start({folder_ + "/not-there", file_}, std::int64_t{1} << 30);
  EXPECT_TRUE(comes());
}

TEST_F(ReadAheadTest, WhatDoesNotFitIsLeftAlone) {
  if (!forget()) GTEST_SKIP() << "this file system does not forget";
  {
    ReadAhead ahead;
    ahead.start({file_}, 1 << 20);
  }
  EXPECT_LT(cached(), 0.1);
}

}  // namespace
}  // namespace hearth::fleet
