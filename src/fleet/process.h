// A child process as the supervisor needs it: nothing of ours leaks into it (files, signal masks, HEARTH_* variables), its standard error comes back
// through a pipe, and its end is one event on the loop.
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
  // io when the program cannot be started. `extra_environment` holds "NAME=value".
  static Result<std::unique_ptr<Process>> spawn(net::asio::io_context& io, const std::vector<std::string>& command,
                                                const std::vector<std::string>& extra_environment);
  // Kills and reaps a process that still runs.
  ~Process();
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  pid_t pid() const;
  // Nothing once it was reaped.
  void signal(int number);
  // The next line of standard error, without its end; empty optional once it is closed.
  net::Task<std::optional<std::string>> read_line();
  // Ends a read_line() that waits, as if standard error were closed.
  void stop_reading();
  // Waits for the end and reaps; the wait status as of waitpid.
  net::Task<int> wait();

 private:
  class Impl;
  explicit Process(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// "exit code 3", "signal 9 (Killed)".
std::string describe_wait_status(int status);

}  // namespace hearth::fleet
