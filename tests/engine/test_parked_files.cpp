// KV on disk: what comes back is what was put, or an error; what is there is nobody else's to read or to find.
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "engine/parked_files.h"

namespace hearth::engine {
namespace {

using Bytes = std::vector<std::uint8_t>;

Bytes noise(std::size_t size, unsigned seed) {
  std::mt19937 random(seed);
  Bytes out(size);
  for (auto& byte : out) byte = static_cast<std::uint8_t>(random());
  return out;
}

class ParkedFilesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (std::filesystem::temp_directory_path() / "hearth-parked-XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    base_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(base_); }
  std::filesystem::path folder() const { return base_ / "state" / "parked"; }
  std::unique_ptr<ParkedFiles> open(std::int64_t bytes = 1 << 30) {
    auto made = ParkedFiles::open(folder(), bytes);
    EXPECT_TRUE(made) << made.error().message;
    return made ? std::move(*made) : nullptr;
  }
  // The open files of this process in the folder, none of which has a name.
  std::vector<int> files() const {
    std::vector<int> out;
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
      std::error_code gone;
      const auto target = std::filesystem::read_symlink(entry.path(), gone).string();
      if (!gone && target.starts_with(folder().string() + "/")) out.push_back(std::stoi(entry.path().filename()));
    }
    std::sort(out.begin(), out.end());
    return out;
  }
  std::filesystem::path base_;
};

TEST_F(ParkedFilesTest, WhatComesBackIsWhatWasPut) {
  auto store = open();
  std::vector<ParkedFiles::Entry> entries;
  std::int64_t total = 0;
  const std::vector<std::size_t> sizes{1, 15, 16, 17, 4096, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 5 << 20};
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    Bytes bytes = noise(sizes[i], static_cast<unsigned>(i));
    auto entry = store->put(bytes);
    ASSERT_TRUE(entry);
    EXPECT_TRUE(bytes.empty());
    entries.push_back(std::move(*entry));
    total += static_cast<std::int64_t>(sizes[i]);
    if (i % 2 == 0) store->flush();  // some are taken from memory, some from files, some while they are written
  }
  EXPECT_EQ(store->bytes(), total);
  for (std::size_t i = sizes.size(); i-- > 0;) {
    const auto back = store->take(std::move(entries[i]));
    ASSERT_TRUE(back) << back.error().message;
    EXPECT_EQ(*back, noise(sizes[i], static_cast<unsigned>(i))) << i;
  }
  EXPECT_EQ(store->bytes(), 0);
  EXPECT_EQ(store->lost(), 0);
  EXPECT_TRUE(files().empty());
}

TEST_F(ParkedFilesTest, DamageIsSeenWhereverItIs) {
  struct Damage {
    const char* what;
    std::function<void(int, std::size_t)> make;
  };
  const auto flip = [](std::size_t (*where)(std::size_t)) {
    return [where](int file, std::size_t size) {
      std::uint8_t byte = 0;
      const auto at = static_cast<off_t>(where(size));
      ASSERT_EQ(::pread(file, &byte, 1, at), 1);
      byte ^= 1;
      ASSERT_EQ(::pwrite(file, &byte, 1, at), 1);
    };
  };
  const Damage damages[] = {
      {"the first bit", flip([](std::size_t) { return std::size_t{0}; })},
      {"the middle", flip([](std::size_t size) { return size / 2; })},
      {"the last byte", flip([](std::size_t size) { return size - 1; })},
      {"one byte less", [](int file, std::size_t size) { ASSERT_EQ(::ftruncate(file, static_cast<off_t>(size) - 1), 0); }},
      {"half", [](int file, std::size_t size) { ASSERT_EQ(::ftruncate(file, static_cast<off_t>(size) / 2), 0); }},
      {"empty", [](int file, std::size_t) { ASSERT_EQ(::ftruncate(file, 0), 0); }},
      {"zeros", [](int file, std::size_t size) {
         ASSERT_EQ(::ftruncate(file, 0), 0);
         ASSERT_EQ(::ftruncate(file, static_cast<off_t>(size)), 0);
       }}};
  auto store = open();
  std::int64_t lost = 0;
  for (const Damage& damage : damages) {
    for (const std::size_t size : {std::size_t{40}, std::size_t{3} << 20}) {
      Bytes bytes = noise(size, 1);
      auto entry = store->put(bytes);
      ASSERT_TRUE(entry);
      store->flush();
      ASSERT_EQ(files().size(), 1U);
      damage.make(files()[0], size);
      EXPECT_FALSE(store->take(std::move(*entry))) << damage.what;
      EXPECT_EQ(store->lost(), ++lost);
      EXPECT_EQ(store->bytes(), 0);
    }
  }
}

TEST_F(ParkedFilesTest, FilesThatWereExchangedAreSeen) {
  auto store = open();
  Bytes a = noise(5000, 1), b = noise(5000, 2);
  auto first = store->put(a), second = store->put(b);
  ASSERT_TRUE(first && second);
  store->flush();
  const auto both = files();
  ASSERT_EQ(both.size(), 2U);
  Bytes x(5000), y(5000);
  ASSERT_EQ(::pread(both[0], x.data(), 5000, 0), 5000);
  ASSERT_EQ(::pread(both[1], y.data(), 5000, 0), 5000);
  ASSERT_EQ(::pwrite(both[0], y.data(), 5000, 0), 5000);
  ASSERT_EQ(::pwrite(both[1], x.data(), 5000, 0), 5000);
  EXPECT_FALSE(store->take(std::move(*first)));
  EXPECT_FALSE(store->take(std::move(*second)));
}

TEST_F(ParkedFilesTest, NobodyElseCanReadOrFindWhatIsThere) {
  auto store = open();
  struct stat found{};
  ASSERT_EQ(::stat(folder().c_str(), &found), 0);
  EXPECT_EQ(found.st_mode & 07777U, 0700U);
  Bytes bytes(100'000, 'p');
  auto entry = store->put(bytes);
  ASSERT_TRUE(entry);
  store->flush();
  ASSERT_EQ(files().size(), 1U);
  ASSERT_EQ(::fstat(files()[0], &found), 0);
  EXPECT_EQ(found.st_mode & 07777U, 0600U);
  EXPECT_EQ(found.st_nlink, 0U);
  EXPECT_TRUE(std::filesystem::is_empty(folder()));
  Bytes stored(100'000);
  ASSERT_EQ(::pread(files()[0], stored.data(), stored.size(), 0), 100'000);
  EXPECT_LT(std::count(stored.begin(), stored.end(), 'p'), 1000) << "what was put can be read";
}

TEST_F(ParkedFilesTest, NothingStaysOfAProcessThatWasKilled) {
  std::array<int, 2> ready{};
  ASSERT_EQ(::pipe(ready.data()), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    auto store = open();
    Bytes bytes = noise(2 << 20, 3);
    auto entry = store->put(bytes);
    store->flush();
    [[maybe_unused]] const auto written = ::write(ready[1], "x", 1);
    ::pause();
    ::_exit(0);
  }
  char byte = 0;
  ASSERT_EQ(::read(ready[0], &byte, 1), 1);
  ::kill(child, SIGKILL);
  int status = 0;
  ::waitpid(child, &status, 0);
  ::close(ready[0]);
  ::close(ready[1]);
  EXPECT_TRUE(std::filesystem::is_empty(folder()));
  EXPECT_TRUE(open());
}

TEST_F(ParkedFilesTest, WhatIsReadAheadIsThereWithoutItsFile) {
  auto store = open();
  Bytes a = noise(3 << 20, 1), b = noise(5000, 2), c = noise(5000, 3);
  auto first = store->put(a), second = store->put(b), third = store->put(c);
  ASSERT_TRUE(first && second && third);
  const std::array both{&std::as_const(*first), &std::as_const(*second)};
  store->flush();
  while (!store->read_ahead(both)) std::this_thread::yield();
  const std::array one{&std::as_const(*first)};
  EXPECT_TRUE(store->read_ahead(one));  // the second goes back to the disk
  for (const int file : files()) ASSERT_EQ(::ftruncate(file, 0), 0);
  const auto back = store->take(std::move(*first));
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ(*back, noise(3 << 20, 1));
  EXPECT_FALSE(store->take(std::move(*second)));
  EXPECT_FALSE(store->take(std::move(*third)));
  EXPECT_EQ(store->lost(), 2);
}

TEST_F(ParkedFilesTest, WhatCannotBeReadAheadIsLostOnce) {
  auto store = open();
  Bytes bytes = noise(5000, 1);
  auto entry = store->put(bytes);
  ASSERT_TRUE(entry);
  store->flush();
  ASSERT_EQ(::ftruncate(files()[0], 100), 0);
  const std::array wanted{&std::as_const(*entry)};
  while (!store->read_ahead(wanted)) std::this_thread::yield();
  EXPECT_EQ(store->lost(), 0);
  EXPECT_FALSE(store->take(std::move(*entry)));
  EXPECT_EQ(store->lost(), 1);
}

TEST_F(ParkedFilesTest, AnEntryCanGoAtAnyMoment) {
  auto store = open();
  for (unsigned i = 0; i < 200; ++i) {
    Bytes bytes = noise(300'000, i);
    auto entry = store->put(bytes);
    ASSERT_TRUE(entry);
    const std::array wanted{&std::as_const(*entry)};
    if (i % 2 == 0) store->flush();
    store->read_ahead(wanted);
    for (unsigned turns = i % 7; turns > 0; --turns) std::this_thread::yield();
    if (i % 3 == 0) {
      const auto back = store->take(std::move(*entry));
      ASSERT_TRUE(back);
      ASSERT_EQ(*back, noise(300'000, i));
    }
  }
  store->flush();
  EXPECT_EQ(store->bytes(), 0);
  EXPECT_TRUE(files().empty());
  EXPECT_EQ(store->lost(), 0);
}

TEST_F(ParkedFilesTest, KeepsToItsBudget) {
  auto store = open(10'000);
  EXPECT_FALSE(store->could_hold(10'001));
  Bytes large = noise(10'001, 1), fits = noise(6000, 2), second = noise(6000, 3);
  EXPECT_FALSE(store->put(large));
  EXPECT_EQ(large.size(), 10'001U);
  auto entry = store->put(fits);
  ASSERT_TRUE(entry);
  EXPECT_FALSE(store->put(second));
  EXPECT_EQ(second, noise(6000, 3));
  *entry = {};  // given up
  store->flush();
  EXPECT_TRUE(store->put(second));
}

TEST_F(ParkedFilesTest, AFullDiskIsALossAndNoError) {
  auto store = open();
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  rlimit small = before;
  small.rlim_cur = 1000;
  std::signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  Bytes bytes = noise(5000, 1);
  auto entry = store->put(bytes);
  ASSERT_TRUE(entry);
  store->flush();
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  std::signal(SIGXFSZ, SIG_DFL);
  EXPECT_FALSE(store->take(std::move(*entry)));
  EXPECT_EQ(store->lost(), 1);
}

TEST_F(ParkedFilesTest, RefusesAFolderThatIsNone) {
  std::filesystem::create_directories(folder().parent_path());
  std::filesystem::create_directory_symlink("/tmp", folder());
  const auto link = ParkedFiles::open(folder(), 1000);
  ASSERT_FALSE(link);
  EXPECT_NE(link.error().message.find(folder().string()), std::string::npos);
}

}  // namespace
}  // namespace hearth::engine
