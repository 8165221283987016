#include "fleet/supervisor.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <cstdio>
#include <deque>
#include <optional>

#include "base/json.h"
#include "base/log.h"
#include "base/utf8.h"
#include "fleet/loop_event.h"
#include "fleet/process.h"
#include "fleet/worker.h"
#include "net/client.h"

namespace hearth::fleet {
namespace {

namespace asio = net::asio;
using namespace std::chrono_literals;

constexpr auto start_poll = 200ms;  // between two looks at a foreign process that starts, at most

// Trying again cannot help unless somebody changes the file or the configuration.
bool deterministic(ErrorCode code) {
  switch (code) {
    case ErrorCode::model_invalid:
    case ErrorCode::config_invalid:
    case ErrorCode::unsupported:
    case ErrorCode::invalid_request:
    case ErrorCode::context_length_exceeded: return true;
    default: return false;
  }
}

Error error_of_line(std::string_view fields) {
  const auto document = parse_json(fields);
  const auto* object = document.ok() ? document->if_object() : nullptr;
  const auto text = [object](const char* field) -> std::string {
    const auto* found = object ? object->if_contains(field) : nullptr;
    return found && found->is_string() ? std::string(found->get_string()) : std::string();
  };
  auto message = text("message");
  if (message.empty()) message = "the worker could not load its model: " + std::string(fields);
  return Error{error_code_from_name(text("code"), ErrorCode::internal), std::move(message)};
}

// What a process printed last, for people who have to find out why it does not start.
class LastLines {
 public:
  explicit LastLines(std::size_t most) : most_(most) {}
  void add(std::string_view line) {
    lines_.emplace_back(line.substr(0, utf8_complete_prefix(line.substr(0, longest))));
    if (lines_.size() > most_) lines_.pop_front();
  }
  void clear() { lines_.clear(); }
  // "; its last words: …", or nothing.
  std::string text() const {
    if (lines_.empty()) return {};
    std::string out = "; its last words: ";
    for (const auto& line : lines_) out += (&line == &lines_.front() ? "" : "\n") + line;
    return out;
  }

 private:
  static constexpr std::size_t longest = 400;
  std::size_t most_;
  std::deque<std::string> lines_;
};

void replace_all(std::string& text, std::string_view what, std::string_view with) {
  for (auto at = text.find(what); at != std::string::npos; at = text.find(what, at + with.size())) text.replace(at, what.size(), with);
}

Result<unsigned short> free_port(asio::io_context& io) {
  boost::system::error_code failed;
  asio::ip::tcp::acceptor probe(io);
  probe.open(asio::ip::tcp::v4(), failed);
  if (!failed) probe.bind({asio::ip::address_v4::loopback(), 0}, failed);
  if (failed) return Error{ErrorCode::io, "no port of 127.0.0.1 is free: " + failed.message()};
  return probe.local_endpoint().port();
}

std::string seconds(Duration duration) { return std::to_string(std::chrono::duration_cast<std::chrono::seconds>(duration).count()) + " s"; }

}  // namespace

std::string_view name(Supervisor::State state) {
  switch (state) {
    case Supervisor::State::starting: return "starting";
    case Supervisor::State::ready: return "ready";
    case Supervisor::State::backing_off: return "backing_off";
    case Supervisor::State::failed: return "failed";
    case Supervisor::State::stopping: return "stopping";
  }
  return "unknown";
}

class Supervisor::Impl : public std::enable_shared_from_this<Impl> {
 public:
  Impl(asio::io_context& loop, SupervisorOptions given, const Clock& time)
      : io(loop),
        options(std::move(given)),
        clock(time),
        backoff(options.backoff, time),
        changed(loop),
        endpoint(net::UnixEndpoint{options.socket}),
        last_lines(options.foreign ? 10 : 1) {
    connect();
  }
  void connect() { client = net::Client::make(io, endpoint, {.connect_timeout = options.health_interval, .idle_connections = 2}); }

  // The command line of the next start; chooses its endpoint.
  Result<std::vector<std::string>> next_command() {
    auto command = options.command;
    if (!options.foreign) {
      command.insert(command.end(), {"--socket", options.socket});
      ::unlink(options.socket.c_str());
      return command;
    }
    const auto names_port = [](const std::string& argument) { return argument.find("{port}") != std::string::npos; };
    if (std::none_of(command.begin(), command.end(), names_port)) {
      return Error{ErrorCode::config_invalid, "the command line must tell the engine its port: put {port} where the port belongs"};
    }
    const auto port = free_port(io);
    if (!port.ok()) return port.error();
    for (auto& argument : command) {
      replace_all(argument, "{port}", std::to_string(*port));
      if (!options.foreign->model.empty()) replace_all(argument, "{model}", options.foreign->model);
    }
    endpoint = net::TcpEndpoint{"127.0.0.1", *port};
    connect();
    return command;
  }

  // Runs a member coroutine on its own, keeping *this alive.
  void spawn(net::Task<void> task) { asio::co_spawn(io, keep_alive(shared_from_this(), std::move(task)), asio::detached); }
  static net::Task<void> keep_alive(std::shared_ptr<Impl>, net::Task<void> task) { co_await std::move(task); }

  net::Task<void> run() {
    while (!stopping) {
      co_await live_once();
      if (stopping) break;
      const auto wait = last_start_hopeless() ? options.backoff.most : std::min(backoff.on_exit(), options.backoff.most);
      last_error.retry_after = wait;
      set_state(last_start_hopeless() ? State::failed : State::backing_off);
      spdlog::warn("{} {} ended: {}; next start in {} ms", options.name, generation, ending, wait.count());
      const auto until = TimePoint::clock::now() + wait;
      while (!stopping && TimePoint::clock::now() < until) co_await changed.wait_until(until);
    }
    ended = true;
    set_state(State::stopping);
  }

  // One process from start to end; leaves in last_error why it ended.
  net::Task<void> live_once() {
    ++generation;
    load_error.reset();
    kill_reason.clear();
    last_lines.clear();
    set_state(State::starting);
    auto command = next_command();
    // A worker that aborts shall be gone at once, its reason last: ggml would start a debugger on itself first.
    auto variables = options.environment;
    if (!options.foreign) variables.emplace_back("GGML_NO_BACKTRACE=1");
    auto spawned = command.ok() ? Process::spawn(io, *command, variables, options.foreign ? Process::Bound::group : Process::Bound::leader)
                                : std::move(command).error();
    if (!spawned.ok()) {
      last_error = load_error.emplace(std::move(spawned).error());
      ending = "it did not start";
      co_return;
    }
    process = std::move(*spawned);
    spdlog::info("{} {} starts, pid {}", options.name, generation, process->pid());
    reading = true;
    spawn(read_lines(process));
    spawn(limit_start(process));
    if (options.foreign) spawn(await_health(process));

    const int status = co_await process->wait();
    // Its last words may still be in the pipe. Somebody it started may hold the pipe open: do not wait for that.
    const auto until = TimePoint::clock::now() + 1s;
    while (reading && TimePoint::clock::now() < until) co_await changed.wait_until(until);
    process->stop_reading();
    process.reset();

    const auto& how = ending = describe_wait_status(status);
    if (load_error) {
      last_error = *load_error;
    } else if (state == State::ready) {
      last_error = Error{ErrorCode::unavailable, kill_reason.empty() ? "the engine stopped: " + how : kill_reason};
    } else {
      last_error =
          Error{ErrorCode::unavailable, "the engine could not start: " + (kill_reason.empty() ? how : kill_reason) + last_lines.text()};
    }
  }

  net::Task<void> read_lines(std::shared_ptr<Process> from) {
    while (true) {
      const auto line = co_await from->read_line();
      if (!line) break;
      if (options.foreign) {
        last_lines.add(*line);
        spdlog::debug("{}: {}", options.name, *line);
      } else if (*line == worker_ready_line) {
        become_ready(from);
      } else if (line->starts_with(worker_error_prefix)) {
        load_error = error_of_line(std::string_view(*line).substr(worker_error_prefix.size()));
      } else if (!line->empty()) {
        // Already in the form of our log, with the worker's name in it.
        last_lines.add(*line);
        std::fwrite((*line + "\n").data(), 1, line->size() + 1, stderr);
      }
    }
    reading = false;
    changed.notify();
  }

  // A foreign process says nothing when it is ready: its health check does.
  net::Task<void> await_health(std::shared_ptr<Process> started) {
    while (started == process && !stopping) {
      const auto next = TimePoint::clock::now() + std::min(options.health_interval, start_poll);
      const auto health = co_await check(options.health_interval);
      if (health.ok()) {
        become_ready(started);
        co_return;
      }
      while (started == process && !stopping && TimePoint::clock::now() < next) co_await changed.wait_until(next);
    }
  }

  net::Task<void> limit_start(std::shared_ptr<Process> started) {
    const auto deadline = TimePoint::clock::now() + options.start_limit;
    const auto starting = [&] { return started == process && state == State::starting; };
    while (starting() && TimePoint::clock::now() < deadline) co_await changed.wait_until(deadline);
    if (starting()) replace("it was not ready within " + seconds(options.start_limit));
  }

  void become_ready(const std::shared_ptr<Process>& started) {
    if (stopping || started != process || state != State::starting) return;
    backoff.on_ready();
    set_state(State::ready);
    spawn(watch(started));
  }

  net::Task<void> watch(std::shared_ptr<Process> watched) {
    auto last_answer = clock.now();
    while (watched == process && !stopping) {
      const auto next = TimePoint::clock::now() + options.health_interval;
      const auto health = co_await check(options.health_interval);
      if (watched != process || stopping) co_return;
      const auto now = clock.now();
      if (health.ok()) {
        last_answer = now;
        if (health->busy && health->since_tick > options.hang_limit) {
          replace("the engine hung in its decoder for " + seconds(health->since_tick) + " and was replaced");
          co_return;
        }
      } else if (now - last_answer >= std::min(options.unresponsive_limit, options.hang_limit)) {
        replace("the engine gave no sign of life for " + seconds(now - last_answer) + " and was replaced");
        co_return;
      }
      while (watched == process && !stopping && TimePoint::clock::now() < next) co_await changed.wait_until(next);
    }
  }

  void replace(std::string reason) {
    kill_reason = std::move(reason);
    process->signal(SIGKILL);
  }

  net::Task<Result<engine::SchedulerStats>> check(std::chrono::milliseconds up_to) {
    const auto self = shared_from_this();
    net::HttpRequest request{.method = "GET", .target = options.foreign ? options.foreign->health_path : "/health"};
    auto response = co_await client->send(std::move(request), up_to);
    if (!response.ok()) co_return std::move(response).error();
    auto body = co_await (*response)->read_all(64 * 1024, up_to);
    if (!body.ok()) co_return std::move(body).error();
    if ((*response)->status != 200) {
      co_return Error{ErrorCode::unavailable, "the engine's health check answers with status " + std::to_string((*response)->status)};
    }
    if (options.foreign) co_return engine::SchedulerStats{};
    co_return decode_health(*body);
  }

  net::Task<Result<void>> wait_ready(std::chrono::milliseconds up_to, int after) {
    const auto self = shared_from_this();
    const auto deadline = TimePoint::clock::now() + up_to;
    while (true) {
      if (state == State::ready && generation > after) co_return Result<void>();
      if (state == State::stopping) co_return Error{ErrorCode::unavailable, "hearth is stopping", {}, 1s};
      const bool no_use =
          state == State::failed || (state == State::backing_off && (load_error || backoff.failed_starts() >= hopeless_starts()));
      if (no_use) co_return last_error;
      if (TimePoint::clock::now() >= deadline) {
        co_return Error{
            ErrorCode::unavailable, "the engine is not ready yet (" + std::string(name(state)) + "); try again shortly", {}, 1s};
      }
      co_await changed.wait_until(deadline);
    }
  }

  net::Task<bool> wait_ended(int of, std::chrono::milliseconds up_to) {
    const auto self = shared_from_this();
    const auto deadline = TimePoint::clock::now() + up_to;
    const auto alive = [&] { return generation == of && state == State::ready; };
    while (alive() && TimePoint::clock::now() < deadline) co_await changed.wait_until(deadline);
    co_return !alive();
  }

  net::Task<void> stop() {
    const auto self = shared_from_this();
    stopping = true;
    set_state(State::stopping);
    if (!running) co_return;
    if (process) process->signal(SIGTERM);
    const auto until = TimePoint::clock::now() + options.stop_grace;
    while (!ended && TimePoint::clock::now() < until) co_await changed.wait_until(until);
    if (process) process->signal(SIGKILL);
    while (!ended) co_await changed.wait();
  }

  void abandon() {
    stopping = true;
    on_change = nullptr;
    if (process) process->signal(SIGKILL);
    changed.notify();
  }

  void set_state(State next) {
    if (state != next) {
      state = next;
      if (on_change) on_change();
    }
    changed.notify();
  }

  // Starts without a ready process in between after which requests stop waiting for the next one. Our worker may have been unlucky; a command line that
  // does not get as far as being ready is most likely wrong.
  int hopeless_starts() const { return options.foreign ? 1 : 3; }
  // Loading fails the same way until somebody repairs the model or the configuration.
  bool last_start_hopeless() const { return load_error && deterministic(load_error->code); }

  asio::io_context& io;
  SupervisorOptions options;
  const Clock& clock;
  Backoff backoff;
  LoopEvent changed;
  net::Endpoint endpoint;
  std::unique_ptr<net::Client> client;
  std::function<void()> on_change;
  std::shared_ptr<Process> process;
  State state = State::starting;
  int generation = 0;
  bool running = false;  // start() was called
  bool reading = false;  // what the current process prints
  bool stopping = false;
  bool ended = false;  // run() has returned
  std::optional<Error> load_error;
  std::string kill_reason;
  std::string ending;  // of the last process, for the log
  LastLines last_lines;
  Error last_error{ErrorCode::unavailable, "the engine has not been started"};
};

Supervisor::Supervisor(asio::io_context& io, SupervisorOptions options, const Clock& clock)
    : impl_(std::make_shared<Impl>(io, std::move(options), clock)) {}
Supervisor::~Supervisor() { impl_->abandon(); }

void Supervisor::start() {
  impl_->running = true;
  impl_->spawn(impl_->run());
}
net::Task<Result<void>> Supervisor::wait_ready(std::chrono::milliseconds up_to, int after) { return impl_->wait_ready(up_to, after); }
net::Task<bool> Supervisor::wait_ended(int generation, std::chrono::milliseconds up_to) { return impl_->wait_ended(generation, up_to); }
net::Task<void> Supervisor::stop() { return impl_->stop(); }
void Supervisor::kill() {
  if (impl_->process) impl_->process->signal(SIGKILL);
}
net::Task<Result<engine::SchedulerStats>> Supervisor::check(std::chrono::milliseconds up_to) { return impl_->check(up_to); }

const net::Endpoint& Supervisor::endpoint() const { return impl_->endpoint; }
Supervisor::State Supervisor::state() const { return impl_->state; }
int Supervisor::generation() const { return impl_->generation; }
int Supervisor::restarts() const { return std::max(0, impl_->generation - 1); }
pid_t Supervisor::pid() const { return impl_->process ? impl_->process->pid() : 0; }
const Error& Supervisor::last_error() const { return impl_->last_error; }
void Supervisor::on_change(std::function<void()> callback) { impl_->on_change = std::move(callback); }

}  // namespace hearth::fleet
