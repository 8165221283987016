#include "app/machine.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <optional>
#include <set>
#include <sstream>
#include <string_view>
#include <utility>
#include <vector>

#include "base/json.h"

namespace hearth::app {
namespace {

namespace fs = std::filesystem;

std::optional<std::uint64_t> read_number(const fs::path& path) {
  std::ifstream file(path);
  std::uint64_t value = 0;
  if (!(file >> value)) return std::nullopt;
  return value;
}

// Folders of this process's control group and its parents, for the given v1 controller or for v2 when it is empty: every one of them may limit.
std::vector<fs::path> group_folders(const fs::path& root, std::string_view controller) {
  std::ifstream file(root / "proc/self/cgroup");
  std::vector<fs::path> out;
  for (std::string line; std::getline(file, line);) {
    const auto first = line.find(':');
    const auto second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    if (controller.empty() ? controllers != ",," : controllers.find("," + std::string(controller) + ",") == std::string::npos) continue;
    const fs::path mount = root / "sys/fs/cgroup" / controller;
    for (fs::path group = fs::path(line.substr(second + 1)).relative_path();; group = group.parent_path()) {
      out.push_back(mount / group);
      if (group.empty()) return out;
    }
  }
  return out;
}

struct GroupMemory {
  std::uint64_t limit;
  std::uint64_t used;
};

}  // namespace

Memory read_memory(const fs::path& root) {
  Memory out;
  std::ifstream file(root / "proc/meminfo");
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string name;
    std::uint64_t kib = 0;
    if (!(words >> name >> kib)) continue;
    if (name == "MemTotal:") out.total = kib * 1024;
    if (name == "MemAvailable:") out.available = kib * 1024;
  }
  std::vector<GroupMemory> groups;
  for (const auto& folder : group_folders(root, "")) {
    // "max" is no number and means no limit.
    if (const auto limit = read_number(folder / "memory.max"))
      groups.push_back({*limit, read_number(folder / "memory.current").value_or(0)});
  }
  for (const auto& folder : group_folders(root, "memory")) {
    if (const auto limit = read_number(folder / "memory.limit_in_bytes")) {
      groups.push_back({*limit, read_number(folder / "memory.usage_in_bytes").value_or(0)});
    }
  }
  for (const auto& group : groups) {
    // v1 writes a huge number for "no limit".
    if (out.total > 0 && group.limit >= out.total) continue;
    out.limit = out.limit == 0 ? group.limit : std::min(out.limit, group.limit);
    out.available = std::min(out.available, group.limit > group.used ? group.limit - group.used : 0);
  }
  return out;
}

Processors read_processors(const fs::path& root) {
  Processors out;
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) == 0) out.online = CPU_COUNT(&set);
  std::ifstream file(root / "proc/cpuinfo");
  std::set<std::pair<std::string, std::string>> cores;  // socket and core
  std::string socket;
  for (std::string line; std::getline(file, line);) {
    const auto colon = line.find(": ");
    if (colon == std::string::npos) continue;
    const std::string value = line.substr(colon + 2);
    if (line.starts_with("model name") && out.model.empty()) out.model = value;
    if (line.starts_with("physical id")) socket = value;
    if (line.starts_with("core id")) cores.emplace(socket, value);
  }
  out.physical = static_cast<int>(cores.size());
  for (const auto& folder : group_folders(root, "")) {
    std::ifstream limit(folder / "cpu.max");
    double quota = 0, period = 0;
    if (limit >> quota >> period && period > 0) out.quota = out.quota == 0 ? quota / period : std::min(out.quota, quota / period);
  }
  for (const auto& folder : group_folders(root, "cpu")) {
    std::ifstream quota_file(folder / "cpu.cfs_quota_us"), period_file(folder / "cpu.cfs_period_us");
    double quota = 0, period = 0;
    if (quota_file >> quota && period_file >> period && quota > 0 && period > 0) {
      out.quota = out.quota == 0 ? quota / period : std::min(out.quota, quota / period);
    }
  }
  return out;
}

Result<std::vector<Gpu>> read_gpus(const std::string& program) {
  const auto failed = [&](const std::string& why) { return Error{ErrorCode::io, program + " worker --list-devices: " + why, {}}; };
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return failed(std::strerror(errno));
  std::string words[] = {program, "worker", "--list-devices"};
  char* arguments[] = {words[0].data(), words[1].data(), words[2].data(), nullptr};
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
  pid_t pid = 0;
  const int refused = posix_spawn(&pid, program.c_str(), &actions, nullptr, arguments, environ);
  posix_spawn_file_actions_destroy(&actions);
  close(ends[1]);
  std::string said;
  constexpr int patience_ms = 30'000;  // a driver that hangs must not hang us
  bool whole = false;
  for (char part[4096]; refused == 0;) {
    pollfd waiting{ends[0], POLLIN, 0};
    const int ready = poll(&waiting, 1, patience_ms);
    if (ready < 0 && errno == EINTR) continue;
    const ssize_t got = ready == 1 ? read(ends[0], part, sizeof part) : -1;
    whole = got == 0;
    if (got <= 0) break;
    said.append(part, static_cast<std::size_t>(got));
  }
  close(ends[0]);
  if (refused != 0) return failed(std::strerror(refused));
  if (!whole) kill(pid, SIGKILL);
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {}
  if (!whole) return failed("no answer within 30 s");
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) return failed("it failed");
  const auto document = parse_json(said);
  if (!document.ok() || !document->is_array()) return failed("it did not answer with a list");
  std::vector<Gpu> out;
  for (const auto& item : document->get_array()) {
    try {
      if (!item.at("gpu").as_bool()) continue;
      out.push_back({std::string(item.at("name").as_string()), item.at("memory_total").to_number<std::uint64_t>(),
                     item.at("memory_free").to_number<std::uint64_t>()});
    } catch (const std::exception&) { return failed("it answered with a device that lacks a field"); }
  }
  return out;
}

int listen_problem(const std::string& host, std::uint16_t port) {
  sockaddr_in four{};
  four.sin_family = AF_INET;
  four.sin_port = htons(port);
  sockaddr_in6 six{};
  six.sin6_family = AF_INET6;
  six.sin6_port = htons(port);
  const bool v4 = inet_pton(AF_INET, host == "localhost" ? "127.0.0.1" : host.c_str(), &four.sin_addr) == 1;
  if (!v4 && inet_pton(AF_INET6, host.c_str(), &six.sin6_addr) != 1) return 0;
  const int fd = socket(v4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return errno;
  // As the server does: connections that still close are no obstacle.
  const int yes = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  const auto* address = v4 ? reinterpret_cast<const sockaddr*>(&four) : reinterpret_cast<const sockaddr*>(&six);
  const socklen_t size = v4 ? sizeof four : sizeof six;
  const int reason = bind(fd, address, size) != 0 || listen(fd, 1) != 0 ? errno : 0;
  close(fd);
  return reason;
}

}  // namespace hearth::app
