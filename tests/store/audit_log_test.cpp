#include "store/audit_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

namespace hearth::store {
namespace {

using ::testing::HasSubstr;

class AuditLogTest : public ::testing::Test {
 protected:
  AuditLogTest() {
    char path[] = "/tmp/hearth-audit-XXXXXX";
    folder_ = mkdtemp(path);
    path_ = AuditLog::path_in(folder_);
  }
  ~AuditLogTest() override { std::filesystem::remove_all(folder_); }

  std::unique_ptr<AuditLog> open() {
    auto log = AuditLog::open(folder_);
    EXPECT_TRUE(log.ok()) << log.error().message;
    return log.ok() ? std::move(*log) : nullptr;
  }
  void write(int rows) {
    const auto log = open();
    for (int i = 0; i < rows; ++i) ASSERT_TRUE(log->append({{"tool", "bash"}, {"i", i}}).ok());
  }
  std::string text() const {
    std::ifstream file(path_);
    std::stringstream out;
    out << file.rdbuf();
    return out.str();
  }
  void replace(const std::string& content) const { std::ofstream(path_, std::ios::trunc) << content; }
  AuditLog::Report verify() const {
    auto report = AuditLog::verify(path_);
    EXPECT_TRUE(report.ok());
    return report.ok() ? *report : AuditLog::Report{};
  }

  std::string folder_, path_;
};

TEST_F(AuditLogTest, AChainGoesOnAcrossRestarts) {
  write(3);
  write(2);
  const auto report = verify();
  EXPECT_EQ(report.rows, 5U);
  EXPECT_EQ(report.bad, 0U) << report.problem;
  EXPECT_EQ(report.head.size(), 64U);
  std::vector<std::int64_t> numbers;
  ASSERT_TRUE(AuditLog::read(path_, 4, [&](const json::object& row) {
                numbers.push_back(row.at("n").as_int64());
                EXPECT_EQ(row.at("tool").as_string(), "bash");
                return true;
              }).ok());
  EXPECT_EQ(numbers, (std::vector<std::int64_t>{4, 5}));
}

TEST_F(AuditLogTest, OnlyItsOwnerMayReadIt) {
  write(1);
  struct stat about{};
  ASSERT_EQ(stat(path_.c_str(), &about), 0);
  EXPECT_EQ(about.st_mode & 0777, 0600U);
}

TEST_F(AuditLogTest, EveryChangedByteIsNoticed) {
  write(3);
  const std::string whole = text();
  for (std::size_t at = 0; at < whole.size(); ++at) {
    std::string changed = whole;
    changed[at] = static_cast<char>(changed[at] ^ 1);
    replace(changed);
    const auto report = verify();
    EXPECT_NE(report.bad, 0U) << "byte " << at << " of\n" << changed;
  }
}

TEST_F(AuditLogTest, RemovedAndMovedRowsAreNoticed) {
  write(3);
  std::vector<std::string> lines;
  std::istringstream in(text());
  for (std::string line; std::getline(in, line);) lines.push_back(line + "\n");
  ASSERT_EQ(lines.size(), 3U);
  replace(lines[0] + lines[2]);
  EXPECT_EQ(verify().bad, 2U);
  replace(lines[1] + lines[2]);
  EXPECT_EQ(verify().bad, 1U);
  replace(lines[0] + lines[2] + lines[1]);
  EXPECT_EQ(verify().bad, 2U);
  // What is cut off at the end shows only against a head that was kept elsewhere.
  replace(lines[0] + lines[1] + lines[2]);
  const auto head = verify().head;
  replace(lines[0] + lines[1]);
  EXPECT_EQ(verify().bad, 0U);
  EXPECT_NE(verify().head, head);
}

TEST_F(AuditLogTest, ALineThatACrashCutShortIsSetAside) {
  write(2);
  const std::string whole = text();
  const std::size_t first = whole.find('\n') + 1;
  for (std::size_t size = first + 1; size < whole.size(); size += 7) {
    replace(whole.substr(0, size));
    EXPECT_EQ(verify().bad, 2U);
    write(1);
    const auto report = verify();
    EXPECT_EQ(report.bad, 0U) << report.problem;
    ASSERT_EQ(report.rows, 3U);
    EXPECT_THAT(text(), HasSubstr("\"event\":\"recovered\",\"cut_bytes\":" + std::to_string(size - first)));
  }
  EXPECT_TRUE(std::filesystem::exists(folder_ + "/audit.cut"));
}

TEST_F(AuditLogTest, AChangedEndIsRefusedAtTheStart) {
  write(2);
  std::string changed = text();
  changed[changed.rfind("bash")] = 'd';
  replace(changed);
  const auto log = AuditLog::open(folder_);
  ASSERT_FALSE(log.ok());
  EXPECT_EQ(log.error().code, ErrorCode::config_invalid);
  EXPECT_THAT(log.error().message, HasSubstr("audit verify"));
  replace("no log at all");
  EXPECT_TRUE(AuditLog::open(folder_).ok()) << "one unfinished line is a crash at the first row";
}

TEST_F(AuditLogTest, OneWriterAtATime) {
  const auto log = open();
  const auto second = AuditLog::open(folder_);
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.error().code, ErrorCode::io);
  EXPECT_THAT(second.error().message, HasSubstr("--state-folder"));
}

TEST_F(AuditLogTest, ALogThatIsALinkIsRefused) {
  std::filesystem::create_symlink("/dev/null", path_);
  const auto log = AuditLog::open(folder_);
  ASSERT_FALSE(log.ok());
  EXPECT_EQ(log.error().code, ErrorCode::io);
}

TEST_F(AuditLogTest, AFullDiskIsAnErrorOfEveryLaterAppend) {
  const auto log = open();
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  rlimit small = before;
  small.rlim_cur = 200;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  EXPECT_TRUE(log->append({{"text", std::string(500, 'x')}}).ok()) << "it is on its way";
  const auto flushed = log->flush();
  EXPECT_FALSE(flushed.ok());
  const auto next = log->append({{"a", 1}});
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  ASSERT_FALSE(next.ok());
  EXPECT_EQ(next.error().code, ErrorCode::io);
  EXPECT_THAT(next.error().message, HasSubstr(path_));
}

TEST_F(AuditLogTest, ARowHasABound) {
  const auto log = open();
  EXPECT_FALSE(log->append({{"text", std::string(AuditLog::longest_row, 'x')}}).ok());
  EXPECT_EQ(log->append({{"text", "fits"}}).ok(), true) << "the chain is as it was";
  ASSERT_TRUE(log->flush().ok());
  EXPECT_EQ(verify().bad, 0U);
}

TEST_F(AuditLogTest, ManyThreadsMakeOneChain) {
  {
    const auto log = open();
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&log, t] {
        for (int i = 0; i < 100; ++i) EXPECT_TRUE(log->append({{"thread", t}, {"i", i}}).ok());
      });
    }
    for (auto& thread : threads) thread.join();
  }
  const auto report = verify();
  EXPECT_EQ(report.rows, 400U);
  EXPECT_EQ(report.bad, 0U) << report.problem;
}

}  // namespace
}  // namespace hearth::store
