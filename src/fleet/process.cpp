#include "fleet/process.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cstring>
#include <string_view>

namespace hearth::fleet {
namespace {

namespace asio = net::asio;

constexpr std::size_t longest_line = 16 * 1024;

struct FileActions {
  posix_spawn_file_actions_t value;
  FileActions() { posix_spawn_file_actions_init(&value); }
  ~FileActions() { posix_spawn_file_actions_destroy(&value); }
};
struct SpawnAttributes {
  posix_spawnattr_t value;
  SpawnAttributes() { posix_spawnattr_init(&value); }
  ~SpawnAttributes() { posix_spawnattr_destroy(&value); }
};

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> all;
  for (auto& text : texts) all.push_back(text.data());
  all.push_back(nullptr);
  return all;
}

std::vector<std::string> environment(const std::vector<std::string>& extra) {
  std::vector<std::string> all;
  for (char** entry = environ; *entry; ++entry) {
    if (!std::string_view(*entry).starts_with("HEARTH_")) all.emplace_back(*entry);
  }
  all.insert(all.end(), extra.begin(), extra.end());
  return all;
}

Error cannot_start(const std::string& program, int reason) {
  return Error{ErrorCode::io, "cannot start " + program + ": " + std::strerror(reason)};
}

}  // namespace

class Process::Impl {
 public:
  Impl(asio::io_context& io, pid_t child, int pidfd, int error_pipe) : pid(child), ended(io, pidfd), errors(io, error_pipe) {}

  const pid_t pid;
  asio::posix::stream_descriptor ended;
  asio::posix::stream_descriptor errors;
  std::string pending;  // of standard error, not yet a line
  bool reaped = false;
};

Process::Process(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Process::~Process() {
  if (impl_->reaped) return;
  ::kill(impl_->pid, SIGKILL);
  int status = 0;
  while (waitpid(impl_->pid, &status, 0) < 0 && errno == EINTR) {}
}

Result<std::unique_ptr<Process>> Process::spawn(asio::io_context& io, const std::vector<std::string>& command,
                                                const std::vector<std::string>& extra_environment) {
  if (command.empty()) return Error{ErrorCode::config_invalid, "the worker's command is empty"};
  int pipe_ends[2];
  if (pipe2(pipe_ends, O_CLOEXEC) != 0) return cannot_start(command.front(), errno);
  asio::posix::stream_descriptor read_end(io, pipe_ends[0]);
  asio::posix::stream_descriptor write_end(io, pipe_ends[1]);

  FileActions files;
  posix_spawn_file_actions_addopen(&files.value, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&files.value, pipe_ends[1], STDERR_FILENO);
  posix_spawn_file_actions_adddup2(&files.value, STDERR_FILENO, STDOUT_FILENO);
  // Asio's sockets are not close-on-exec: a worker that inherited them would keep clients' connections and our port open.
  posix_spawn_file_actions_addclosefrom_np(&files.value, 3);

  SpawnAttributes attributes;
  sigset_t none, all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawnattr_setsigmask(&attributes.value, &none);
  posix_spawnattr_setsigdefault(&attributes.value, &all);
  // A group of its own: Ctrl-C in the terminal reaches the gateway alone, which drains the worker in its time.
  posix_spawnattr_setpgroup(&attributes.value, 0);
  posix_spawnattr_setflags(&attributes.value, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);

  auto arguments = command;
  auto variables = environment(extra_environment);
  pid_t pid = 0;
  const int failed =
      posix_spawnp(&pid, command.front().c_str(), &files.value, &attributes.value, pointers(arguments).data(), pointers(variables).data());
  if (failed) return cannot_start(command.front(), failed);

  const int pidfd = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
  if (pidfd < 0) {
    const int reason = errno;
    ::kill(pid, SIGKILL);
    waitpid(pid, nullptr, 0);
    return cannot_start(command.front() + " (pidfd_open)", reason);
  }
  return std::unique_ptr<Process>(new Process(std::make_unique<Impl>(io, pid, pidfd, read_end.release())));
}

pid_t Process::pid() const { return impl_->pid; }

void Process::signal(int number) {
  if (!impl_->reaped) ::kill(impl_->pid, number);
}

net::Task<std::optional<std::string>> Process::read_line() {
  auto& pending = impl_->pending;
  while (true) {
    const auto end = pending.find('\n');
    if (end != std::string::npos || pending.size() >= longest_line) {
      const auto length = std::min(end, pending.size());
      auto line = pending.substr(0, length);
      pending.erase(0, end == std::string::npos ? length : length + 1);
      co_return line;
    }
    std::array<char, 4096> bytes;
    const auto [error, count] = co_await impl_->errors.async_read_some(asio::buffer(bytes), asio::as_tuple(asio::use_awaitable));
    if (error) {
      if (pending.empty()) co_return std::nullopt;
      co_return std::exchange(pending, {});
    }
    pending.append(bytes.data(), count);
  }
}

void Process::stop_reading() {
  boost::system::error_code ignored;
  impl_->errors.cancel(ignored);
}

net::Task<int> Process::wait() {
  co_await impl_->ended.async_wait(asio::posix::stream_descriptor::wait_read, asio::as_tuple(asio::use_awaitable));
  int status = 0;
  while (waitpid(impl_->pid, &status, 0) < 0 && errno == EINTR) {}
  impl_->reaped = true;
  co_return status;
}

std::string describe_wait_status(int status) {
  if (WIFSIGNALED(status)) return "signal " + std::to_string(WTERMSIG(status)) + " (" + strsignal(WTERMSIG(status)) + ")";
  return "exit code " + std::to_string(WEXITSTATUS(status));
}

}  // namespace hearth::fleet
