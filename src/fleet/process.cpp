#include "fleet/process.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cstring>
#include <optional>
#include <string_view>
#include <utility>

namespace hearth::fleet {
namespace {

namespace asio = net::asio;

constexpr std::size_t longest_line = 16 * 1024;

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> all;
  for (auto& text : texts) all.push_back(text.data());
  all.push_back(nullptr);
  return all;
}

std::vector<std::string> environment(const std::vector<std::string>& extra) {
  std::vector<std::string> all;
  const auto replaced = [&extra](std::string_view entry) {
    const auto name = entry.substr(0, entry.find('=') + 1);
    return std::any_of(extra.begin(), extra.end(), [name](const std::string& ours) { return ours.starts_with(name); });
  };
  for (char** entry = environ; *entry; ++entry) {
    if (!std::string_view(*entry).starts_with("HEARTH_") && !replaced(*entry)) all.emplace_back(*entry);
  }
  all.insert(all.end(), extra.begin(), extra.end());
  return all;
}

Error cannot_start(const std::string& program, int reason) {
  return Error{ErrorCode::io, "cannot start " + program + ": " + std::strerror(reason)};
}

struct Pipe {
  // -1 where it could not be made; errno says why.
  Pipe() {
    if (pipe2(ends, O_CLOEXEC) != 0) ends[0] = ends[1] = -1;
  }
  ~Pipe() {
    close(0);
    close(1);
  }
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;
  void close(int end) {
    if (ends[end] >= 0) ::close(std::exchange(ends[end], -1));
  }
  int release(int end) { return std::exchange(ends[end], -1); }
  int ends[2];
};

// Between fork and exec: nothing but system calls. Never returns; why the program could not be started goes into `report`.
[[noreturn]] void become(const char* program, char* const* arguments, char* const* variables, int output, int report, pid_t parent) {
  setpgid(0, 0);
  // The parent may have died before the call took effect.
  const bool orphaned = prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent;
  struct sigaction standard{};
  standard.sa_handler = SIG_DFL;
  for (int number = 1; number < NSIG; ++number) sigaction(number, &standard, nullptr);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  const int input = open("/dev/null", O_RDONLY);
  // Asio's sockets are not close-on-exec: a worker that inherited them would keep clients' connections and our port open.
  const bool ready = !orphaned && dup2(input, STDIN_FILENO) >= 0 && dup2(output, STDERR_FILENO) >= 0 && dup2(output, STDOUT_FILENO) >= 0 &&
                     close_range(3, ~0U, CLOSE_RANGE_CLOEXEC) == 0;
  if (ready) execvpe(program, arguments, variables);
  const int reason = errno;
  [[maybe_unused]] const auto written = write(report, &reason, sizeof reason);
  _exit(127);
}

// Kills its whole process group, itself included, once nobody holds the other end of its standard input any more: we do, as long as we live.
// Signals that ask the group to end are not for it.
constexpr const char* watcher_script = "trap '' HUP INT TERM; read -r _; kill -KILL 0";

Result<pid_t> start_watcher(pid_t group, int input) {
  posix_spawn_file_actions_t files;
  posix_spawnattr_t attributes;
  posix_spawn_file_actions_init(&files);
  posix_spawnattr_init(&attributes);
  posix_spawn_file_actions_adddup2(&files, input, STDIN_FILENO);
  posix_spawn_file_actions_addopen(&files, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
  posix_spawn_file_actions_addopen(&files, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
  posix_spawn_file_actions_addclosefrom_np(&files, 3);
  sigset_t none, all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &all);
  posix_spawnattr_setpgroup(&attributes, group);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
  std::vector<std::string> command{"sh", "-c", watcher_script, "hearth-watcher"};
  char* no_variables[] = {nullptr};
  pid_t pid = 0;
  const int failed = posix_spawn(&pid, "/bin/sh", &files, &attributes, pointers(command).data(), no_variables);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&files);
  if (failed) return cannot_start("/bin/sh", failed);
  return pid;
}

int reap(pid_t pid) {
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {}
  return status;
}

}  // namespace

class Process::Impl {
 public:
  Impl(asio::io_context& io, pid_t child, int pidfd, int output_pipe) : pid(child), ended(io, pidfd), output(io, output_pipe) {}

  // The leader is not reaped yet, so its id still names the group, and nobody else's.
  int end_group() {
    ::kill(-pid, SIGKILL);
    if (watcher > 0) reap(watcher);
    reaped = true;
    return reap(pid);
  }

  const pid_t pid;
  pid_t watcher = 0;
  std::optional<Pipe> life;  // the watcher sees it close
  asio::posix::stream_descriptor ended;
  asio::posix::stream_descriptor output;
  std::string pending;  // of the output, not yet a line
  bool reaped = false;
};

Process::Process(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Process::~Process() {
  if (!impl_->reaped) impl_->end_group();
}

Result<std::unique_ptr<Process>> Process::spawn(asio::io_context& io, const std::vector<std::string>& command,
                                                const std::vector<std::string>& extra_environment, Bound bound) {
  if (command.empty()) return Error{ErrorCode::config_invalid, "the command line is empty"};
  const auto& program = command.front();
  Pipe output, report;
  if (output.ends[0] < 0 || report.ends[0] < 0) return cannot_start(program, errno);

  auto arguments = command;
  auto variables = environment(extra_environment);
  const auto argument_pointers = pointers(arguments);
  const auto variable_pointers = pointers(variables);
  const pid_t parent = getpid();
  // Our signal handlers must not run in the child: they would speak for us.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  const pid_t pid = fork();
  const int not_forked = errno;
  if (pid != 0) pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (pid < 0) return cannot_start(program, not_forked);
  if (pid == 0) become(program.c_str(), argument_pointers.data(), variable_pointers.data(), output.ends[1], report.ends[1], parent);

  // Closes without a word when the program runs.
  report.close(1);
  int reason = 0;
  ssize_t told = 0;
  while ((told = read(report.ends[0], &reason, sizeof reason)) < 0 && errno == EINTR) {}
  if (told != 0) {
    reap(pid);
    return cannot_start(program, told == sizeof reason ? reason : errno);
  }
  const int pidfd = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
  if (pidfd < 0) {
    reason = errno;
    ::kill(-pid, SIGKILL);
    reap(pid);
    return cannot_start(program + " (pidfd_open)", reason);
  }
  std::unique_ptr<Process> process(new Process(std::make_unique<Impl>(io, pid, pidfd, output.release(0))));
  if (bound == Bound::group) {
    auto& life = process->impl_->life.emplace();
    if (life.ends[0] < 0) return cannot_start("/bin/sh", errno);
    auto watcher = start_watcher(pid, life.ends[0]);
    if (!watcher.ok()) return std::move(watcher).error();
    process->impl_->watcher = *watcher;
    life.close(0);
  }
  return process;
}

pid_t Process::pid() const { return impl_->pid; }

void Process::signal(int number) {
  if (!impl_->reaped) ::kill(-impl_->pid, number);
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
    const auto [error, count] = co_await impl_->output.async_read_some(asio::buffer(bytes), asio::as_tuple(asio::use_awaitable));
    if (error) {
      if (pending.empty()) co_return std::nullopt;
      co_return std::exchange(pending, {});
    }
    pending.append(bytes.data(), count);
  }
}

void Process::stop_reading() {
  boost::system::error_code ignored;
  impl_->output.cancel(ignored);
}

net::Task<int> Process::wait() {
  co_await impl_->ended.async_wait(asio::posix::stream_descriptor::wait_read, asio::as_tuple(asio::use_awaitable));
  co_return impl_->end_group();
}

std::string describe_wait_status(int status) {
  if (WIFSIGNALED(status)) return "signal " + std::to_string(WTERMSIG(status)) + " (" + strsignal(WTERMSIG(status)) + ")";
  return "exit code " + std::to_string(WEXITSTATUS(status));
}

}  // namespace hearth::fleet
