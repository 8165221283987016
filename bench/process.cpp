#include "process.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <thread>

namespace hearth::bench {

namespace {

using namespace std::chrono_literals;

sockaddr_in loopback(unsigned short port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(port);
  return address;
}

bool healthy(unsigned short port, std::string_view path) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const timeval limit{2, 0};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  const sockaddr_in address = loopback(port);
  bool ok = false;
  if (connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) {
    const std::string request =
        "GET " + std::string(path) + " HTTP/1.1\r\nHost: 127.0.0.1:" + std::to_string(port) + "\r\nConnection: close\r\n\r\n";
    char head[13] = {};
    ok = send(fd, request.data(), request.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(request.size()) &&
         recv(fd, head, 12, MSG_WAITALL) == 12 && std::string_view(head + 8, 4) == " 200";
  }
  close(fd);
  return ok;
}

void pin_thread(pid_t thread, int core) {
  if (core_count() < 2) return;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<std::size_t>(core), &set);
  sched_setaffinity(thread, sizeof set, &set);
}

std::string tail(const std::filesystem::path& file) {
  std::ifstream in(file);
  std::stringstream text;
  text << in.rdbuf();
  std::string all = text.str();
  return all.size() > 2000 ? all.substr(all.size() - 2000) : all;
}

}  // namespace

unsigned short free_port() {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = loopback(0);
  socklen_t size = sizeof address;
  if (bind(fd, reinterpret_cast<sockaddr*>(&address), size) != 0 || getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    throw std::runtime_error("no free loopback port");
  }
  close(fd);
  return ntohs(address.sin_port);
}

int core_count() { return static_cast<int>(std::thread::hardware_concurrency()); }

void pin_to(int core) { pin_thread(0, core); }

Process::Process(std::vector<std::string> command, const std::filesystem::path& log) : log_(log) {
  std::vector<char*> arguments;
  for (std::string& word : command) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  const int out = open(log.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (out < 0) throw std::runtime_error("cannot write " + log.string());
  const pid_t parent = getpid();
  pid_ = fork();
  if (pid_ == 0) {
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent) _exit(127);
    // A pinned parent must not hand its one core down.
    cpu_set_t all;
    std::memset(&all, 0xff, sizeof all);
    sched_setaffinity(0, sizeof all, &all);
    dup2(out, STDOUT_FILENO);
    dup2(out, STDERR_FILENO);
    execvp(arguments[0], arguments.data());
    dprintf(STDERR_FILENO, "cannot run %s: %s\n", arguments[0], strerror(errno));
    _exit(127);
  }
  close(out);
  if (pid_ < 0) throw std::runtime_error("fork failed");
}

Process::~Process() {
  if (pid_ <= 0) return;
  kill(pid_, SIGTERM);
  for (int i = 0; i < 500; ++i) {
    if (waitpid(pid_, nullptr, WNOHANG) != 0) return;
    std::this_thread::sleep_for(10ms);
  }
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
}

bool Process::running() {
  if (pid_ > 0 && waitpid(pid_, nullptr, WNOHANG) == pid_) pid_ = -1;
  return pid_ > 0;
}

void Process::pin(int core) {
  std::error_code error;
  for (const auto& thread : std::filesystem::directory_iterator("/proc/" + std::to_string(pid_) + "/task", error)) {
    pin_thread(static_cast<pid_t>(std::stoi(thread.path().filename())), core);
  }
}

std::vector<pid_t> Process::tree() const {
  std::vector<pid_t> pids{pid_};
  const std::string root = "/proc/" + std::to_string(pid_) + "/task";
  std::error_code error;
  for (const auto& task : std::filesystem::directory_iterator(root, error)) {
    std::ifstream children(task.path() / "children");
    for (pid_t child; children >> child;) pids.push_back(child);
  }
  return pids;
}

double Process::cpu_seconds() const {
  double ticks = 0;
  for (const pid_t pid : tree()) {
    std::ifstream in("/proc/" + std::to_string(pid) + "/stat");
    std::string text((std::istreambuf_iterator<char>(in)), {});
    const std::size_t end = text.rfind(')');
    if (end == std::string::npos) continue;
    std::istringstream fields(text.substr(end + 2));
    std::string skipped;
    for (int i = 0; i < 11; ++i) fields >> skipped;
    double user = 0, system = 0;
    fields >> user >> system;
    ticks += user + system;
  }
  return ticks / static_cast<double>(sysconf(_SC_CLK_TCK));
}

long Process::resident_bytes() const {
  long pages = 0;
  for (const pid_t pid : tree()) {
    std::ifstream in("/proc/" + std::to_string(pid) + "/statm");
    long size = 0, resident = 0;
    in >> size >> resident;
    pages += resident;
  }
  return pages * sysconf(_SC_PAGESIZE);
}

void Process::wait_healthy(unsigned short port, std::chrono::seconds up_to, std::string_view path) {
  const auto end = std::chrono::steady_clock::now() + up_to;
  while (std::chrono::steady_clock::now() < end) {
    if (!running()) throw std::runtime_error("the server ended before it was ready; its last words:\n" + tail(log_));
    if (healthy(port, path)) return;
    std::this_thread::sleep_for(20ms);
  }
  throw std::runtime_error("the server was not ready in time; its last words:\n" + tail(log_));
}

std::vector<std::string> fill(std::string_view command_template, const std::vector<std::pair<std::string, std::string>>& values) {
  std::vector<std::string> words;
  std::istringstream in{std::string(command_template)};
  for (std::string word; in >> word;) {
    for (const auto& [name, value] : values) {
      const std::string mark = "{" + name + "}";
      for (std::size_t at = word.find(mark); at != std::string::npos; at = word.find(mark, at + value.size())) {
        word.replace(at, mark.size(), value);
      }
    }
    words.push_back(word);
  }
  return words;
}

TempFolder::TempFolder() {
  std::string pattern = (std::filesystem::temp_directory_path() / "hearth-bench-XXXXXX").string();
  if (mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("cannot make a temporary folder " + pattern);
  path_ = pattern;
}

TempFolder::~TempFolder() {
  std::error_code error;
  std::filesystem::remove_all(path_, error);
}

std::string machine_line() {
  std::string model = "unknown CPU";
  std::ifstream cpuinfo("/proc/cpuinfo");
  for (std::string line; std::getline(cpuinfo, line);) {
    if (line.starts_with("model name")) {
      model = line.substr(line.find(':') + 2);
      break;
    }
  }
  struct sysinfo info{};
  sysinfo(&info);
  utsname kernel{};
  uname(&kernel);
  double load[3] = {};
  getloadavg(load, 3);
  const std::string_view release(kernel.release);  // its version alone, without what the distributor appends
  const std::string version(release.substr(0, release.find('-')));
  char text[512];
  std::snprintf(text, sizeof text, "%s, %d cores, %.0f GiB memory, Linux %s, load average %.2f before the run", model.c_str(), core_count(),
                static_cast<double>(info.totalram) * info.mem_unit / (1 << 30), version.c_str(), load[0]);
  return text;
}

}  // namespace hearth::bench
