#include "app/machine.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <fstream>

#include "app/url.h"

namespace hearth::app {
namespace {

namespace fs = std::filesystem;

class MachineTest : public testing::Test {
 protected:
  MachineTest() {
    std::string pattern = (fs::temp_directory_path() / "hearth-machine-XXXXXX").string();
    root_ = mkdtemp(pattern.data());
    write("proc/meminfo", "MemTotal:       16777216 kB\nMemFree: 1 kB\nMemAvailable:    8388608 kB\n");
  }
  ~MachineTest() override { fs::remove_all(root_); }
  void write(const fs::path& path, const std::string& text) const {
    fs::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << text;
  }
  fs::path root_;
};

constexpr std::uint64_t gib = std::uint64_t{1} << 30;

TEST_F(MachineTest, MemoryWithoutALimit) {
  const auto memory = read_memory(root_);
  EXPECT_EQ(memory.total, 16 * gib);
  EXPECT_EQ(memory.available, 8 * gib);
  EXPECT_EQ(memory.limit, 0u);
}

TEST_F(MachineTest, TheTightestGroupAboveCounts) {
  write("proc/self/cgroup", "0::/a/b\n");
  write("sys/fs/cgroup/a/b/memory.max", "max\n");
  write("sys/fs/cgroup/a/memory.max", std::to_string(4 * gib) + "\n");
  write("sys/fs/cgroup/a/memory.current", std::to_string(1 * gib) + "\n");
  const auto memory = read_memory(root_);
  EXPECT_EQ(memory.limit, 4 * gib);
  EXPECT_EQ(memory.available, 3 * gib);
}

TEST_F(MachineTest, OldControlGroups) {
  write("proc/self/cgroup", "5:cpu,cpuacct:/x\n4:memory:/x\n");
  write("sys/fs/cgroup/memory/x/memory.limit_in_bytes", std::to_string(2 * gib));
  write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712");
  write("sys/fs/cgroup/cpu/x/cpu.cfs_quota_us", "150000");
  write("sys/fs/cgroup/cpu/x/cpu.cfs_period_us", "100000");
  EXPECT_EQ(read_memory(root_).limit, 2 * gib);
  EXPECT_DOUBLE_EQ(read_processors(root_).quota, 1.5);
}

TEST_F(MachineTest, Processors) {
  write("proc/self/cgroup", "0::/\n");
  write("sys/fs/cgroup/cpu.max", "200000 100000\n");
  write("proc/cpuinfo",
        "model name\t: Test CPU\nphysical id\t: 0\ncore id\t\t: 0\n\nmodel name\t: Test CPU\nphysical id\t: 0\ncore id\t\t: 0\n\n"
        "model name\t: Test CPU\nphysical id\t: 1\ncore id\t\t: 0\n");
  const auto cpu = read_processors(root_);
  EXPECT_EQ(cpu.model, "Test CPU");
  EXPECT_EQ(cpu.physical, 2);
  EXPECT_DOUBLE_EQ(cpu.quota, 2);
  EXPECT_GT(cpu.online, 0);
}

TEST_F(MachineTest, GpusAreWhatTheWorkerListsOfThem) {
  const auto program = [&](const std::string& body) {
    write("worker.sh", "#!/bin/sh\n" + body + "\n");
    fs::permissions(root_ / "worker.sh", fs::perms::owner_all);
    return read_gpus((root_ / "worker.sh").string());
  };
  const auto gpus = program(
      "[ \"$1 $2\" = 'worker --list-devices' ] && echo '[{\"name\":\"CPU\",\"gpu\":false,\"memory_total\":1,\"memory_free\":1},"
      "{\"name\":\"CUDA0\",\"gpu\":true,\"memory_total\":80000000000,\"memory_free\":79000000000}]'");
  ASSERT_TRUE(gpus.ok()) << gpus.error().message;
  ASSERT_EQ(gpus->size(), 1u);
  EXPECT_EQ(gpus->front().name, "CUDA0");
  EXPECT_EQ(gpus->front().free, 79'000'000'000u);
  for (const char* broken : {"exit 1", "echo nonsense", "echo '{}'", "echo '[{\"gpu\":true}]'", "kill -9 $$"}) {
    const auto failed = program(broken);
    ASSERT_FALSE(failed.ok()) << broken;
    EXPECT_NE(failed.error().message.find("--list-devices"), std::string::npos);
  }
  EXPECT_FALSE(read_gpus("/nonexistent/hearth").ok());
}

TEST(ParseUrl, TakesWhatPeopleType) {
  const auto tcp = [](std::string_view text) { return std::get<net::TcpEndpoint>(parse_url(text)->endpoint); };
  EXPECT_EQ(tcp("http://127.0.0.1:8085").port, 8085);
  EXPECT_EQ(tcp("http://127.0.0.1:8085/v1").host, "127.0.0.1");
  EXPECT_EQ(tcp("http://host/").port, 80);
  EXPECT_TRUE(tcp("https://host").tls);
  EXPECT_EQ(tcp("https://host").port, 443);
  EXPECT_EQ(tcp("http://[::1]:80").host, "::1");
  EXPECT_EQ(parse_url("http://[::1]:81")->host, "[::1]:81");
  EXPECT_EQ(std::get<net::UnixEndpoint>(parse_url("unix:/run/x.sock")->endpoint).path, "/run/x.sock");
}

TEST(ParseUrl, ABasePathMayStandBeforeV1) {
  EXPECT_EQ(parse_base_url("https://api.example.com/api/v1")->base_path, "/api");
  EXPECT_EQ(parse_base_url("https://api.example.com/api/v1/")->base_path, "/api");
  EXPECT_EQ(parse_base_url("https://api.example.com/api/")->base_path, "/api");
  EXPECT_EQ(parse_base_url("https://api.example.com/v1")->base_path, "");
  EXPECT_EQ(parse_base_url("https://[::1]:80/a/b")->host, "[::1]:80");
  EXPECT_FALSE(parse_base_url("https://api.example.com/api?key=1").ok());
}

TEST(ParseUrl, SaysWhatIsWrong) {
  for (const char* text :
       {"127.0.0.1:8085", "ftp://x", "http://", "http://x:0", "http://x:99999", "http://x:80a", "http://x/path", "http://[::1", "unix:"}) {
    const auto url = parse_url(text);
    ASSERT_FALSE(url.ok()) << text;
    EXPECT_NE(url.error().message.find("is not an address"), std::string::npos);
  }
}

}  // namespace
}  // namespace hearth::app
