#include "fleet/process_memory.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <fstream>
#include <string>

namespace hearth::fleet {
namespace {

namespace fs = std::filesystem;

TEST(ProcessMemory, AGroupsProcessesAreAddedUpWhateverTheyAreCalled) {
  char path[] = "/tmp/hearth-test-XXXXXX";
  const fs::path proc = mkdtemp(path);
  const auto add = [&](int pid, const std::string& name, int group, int kib) {
    fs::create_directories(proc / std::to_string(pid));
    std::ofstream(proc / std::to_string(pid) / "stat") << pid << " (" << name << ") S 1 " << group << " 1 0 -1 0\n";
    std::ofstream(proc / std::to_string(pid) / "smaps_rollup")
        << "00400000-7fff0000 ---p 00000000 00:00 0 [rollup]\nRss:  9999 kB\nPss:  " << kib << " kB\nPss_Dirty: 5 kB\n";
  };
  add(10, "server", 10, 100);
  add(11, "odd) S 7 7 (name", 10, 20);
  add(12, "somebody else", 12, 4000);
  fs::create_directories(proc / "13");  // has just ended
  fs::create_directories(proc / "sys");
  EXPECT_EQ(process_memory(10, proc), 120 * 1024);
  EXPECT_EQ(process_memory(99, proc), 0);
  fs::remove_all(proc);
}

TEST(ProcessMemory, TheRealOneIsThere) { EXPECT_GT(process_memory(getpgrp()), 1 << 20); }

}  // namespace
}  // namespace hearth::fleet
