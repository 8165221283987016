#include "fleet/process_memory.h"

#include <fstream>
#include <sstream>
#include <string>
#include <system_error>

namespace hearth::fleet {
namespace {

namespace fs = std::filesystem;

// The fifth field of /proc/PID/stat; the second is the name, which may itself hold spaces and brackets. See proc(5).
pid_t group_of(const fs::path& process) {
  std::ifstream file(process / "stat");
  std::string line, state;
  if (!std::getline(file, line)) return 0;
  const auto name_end = line.rfind(')');
  if (name_end == std::string::npos) return 0;
  pid_t parent = 0, group = 0;
  std::istringstream(line.substr(name_end + 1)) >> state >> parent >> group;
  return group;
}

std::int64_t share_of(const fs::path& process) {
  std::ifstream file(process / "smaps_rollup");
  for (std::string line; std::getline(file, line);) {
    std::istringstream fields(line);
    std::string label;
    std::int64_t kib = 0;
    if (fields >> label >> kib && label == "Pss:") return kib * 1024;
  }
  return 0;
}

}  // namespace

std::int64_t process_memory(pid_t group, const fs::path& proc) {
  std::int64_t all = 0;
  std::error_code error;
  for (fs::directory_iterator entry(proc, error), end; !error && entry != end; entry.increment(error)) {
    const auto name = entry->path().filename().string();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    if (group_of(entry->path()) == group) all += share_of(entry->path());
  }
  return all;
}

}  // namespace hearth::fleet
