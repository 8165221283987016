// Servers under test are child processes: started on free loopback ports, pinned where the measurement says so, stopped by pid, and never left
// behind (the kernel ends them when the benchmark dies).
#pragma once

#include <sys/types.h>

#include <chrono>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace hearth::bench {

// A port nobody listens on now. Another program could take it before the child does; then the child fails to start and says so.
unsigned short free_port();

// Keeps the calling thread on one core. Does nothing on a machine with a single core.
void pin_to(int core);
int core_count();

class Process {
 public:
  // Output goes to `log`. Throws std::runtime_error when the program cannot be started.
  Process(std::vector<std::string> command, const std::filesystem::path& log);
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;
  ~Process();  // SIGTERM, then SIGKILL after five seconds
  bool running();
  void pin(int core);  // every thread it has now
  // CPU time used so far by the process and its children that it still has, in seconds.
  double cpu_seconds() const;
  // Resident memory of the process and its direct children, in bytes.
  long resident_bytes() const;
  // Waits until a GET of `path` answers 200; throws with the end of the log when the process dies or `up_to` passes.
  void wait_healthy(unsigned short port, std::chrono::seconds up_to = std::chrono::seconds{120}, std::string_view path = "/health");

 private:
  std::vector<pid_t> tree() const;
  pid_t pid_ = -1;
  std::filesystem::path log_;
};

// "llama-server -m {model} --port {port}" → words with the placeholders filled in. Words are split at spaces; quoting is not supported.
std::vector<std::string> fill(std::string_view command_template, const std::vector<std::pair<std::string, std::string>>& values);

// A fresh folder under the system's temporary folder, removed with everything in it.
class TempFolder {
 public:
  TempFolder();
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;
  ~TempFolder();
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

// CPU model, cores, memory, kernel and load average: without them a figure means nothing.
std::string machine_line();

}  // namespace hearth::bench
