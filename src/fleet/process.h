// A child process as the supervisor needs it: nothing of ours leaks into it (files, signal masks, HEARTH_* variables), what it prints comes back through
// a pipe, its end is one event on the loop, and neither it nor what it started outlives us, however we end.
//
// It leads a process group of its own: Ctrl-C in the terminal reaches us alone, signals go to all of the group, and what is left of the group when its
// leader ends is killed.
#pragma once

#include <sys/types.h>

#include <boost/asio/io_context.hpp>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "net/task.h"

namespace hearth::fleet {

class Process {
 public:
  // leader: the kernel kills the process when the thread that spawned it ends. group: so are processes that it started, by a watcher in its group.
  enum class Bound { leader, group };
  // io when the program cannot be started. `extra_environment` holds "NAME=value". To be called on a thread that lives as long as the process shall.
  static Result<std::unique_ptr<Process>> spawn(net::asio::io_context& io, const std::vector<std::string>& command,
                                                const std::vector<std::string>& extra_environment, Bound bound = Bound::leader);
  // Kills and reaps a process that still runs.
  ~Process();
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  pid_t pid() const;
  // To all of its group. Nothing once it was reaped.
  void signal(int number);
  // The next line of standard error or output, without its end; empty optional once they are closed.
  net::Task<std::optional<std::string>> read_line();
  // Ends a read_line() that waits, as if standard error were closed.
  void stop_reading();
  // Waits for its end, ends what it left running, and reaps; the wait status as of waitpid.
  net::Task<int> wait();

 private:
  class Impl;
  explicit Process(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// "exit code 3", "signal 9 (Killed)".
std::string describe_wait_status(int status);

}  // namespace hearth::fleet
