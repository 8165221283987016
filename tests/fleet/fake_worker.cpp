// A worker that misbehaves as its first argument says. Started by a Supervisor in the tests.
#include <dirent.h>
#include <signal.h>
#include <unistd.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

#include "fleet/fake_engine.h"
#include "fleet/worker.h"

using namespace hearth;

namespace {

void say(const std::string& line) { std::fputs((line + "\n").c_str(), stderr); }

[[noreturn]] void fail_to_load(const std::string& code, const std::string& message) {
  say(std::string(fleet::worker_error_prefix) + R"({"code":")" + code + R"(","message":")" + message + "\"}");
  std::exit(fleet::worker_exit_load_failed);
}

// What leaked in from the parent: descriptors beside the three standard ones, HEARTH_* variables.
std::string leaks() {
  std::string found;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    std::error_code error;
    const auto target = std::filesystem::read_symlink(entry.path(), error);
    const bool own = error || target.string().starts_with("/proc/");  // the directory being listed
    if (std::stoi(entry.path().filename()) > 2 && !own) found += " fd:" + target.string();
  }
  for (char** variable = environ; *variable; ++variable) {
    const std::string text(*variable);
    if (text.starts_with("HEARTH_")) found += " env:" + text;
  }
  return found.empty() ? "none" : found;
}

// The value of "--name=value" among the arguments.
std::string option(const std::vector<std::string>& all, const std::string& name, const std::string& otherwise) {
  for (const auto& argument : all) {
    if (argument.starts_with("--" + name + "=")) return argument.substr(name.size() + 3);
  }
  return otherwise;
}

// Counts the starts of one test in a file; the first is 1.
int start_number(const std::string& file) {
  int number = 0;
  std::ifstream(file) >> number;
  std::ofstream(file) << number + 1;
  return number + 1;
}

}  // namespace

int main(int count, char** arguments) {
  const std::vector<std::string> all(arguments + 1, arguments + count);
  const std::string mode = all.at(0);
  const std::string state = all.at(1);
  const std::string socket = all.back();
  if (all.size() < 4 || all[all.size() - 2] != "--socket") return 2;

  const int start = start_number(state);
  std::ofstream(state + ".pid") << getpid();
  const char* gpu = std::getenv("CUDA_VISIBLE_DEVICES");
  std::ofstream(state + ".gpu") << option(all, "gpu-layers", "?") << " layers, devices: " << (gpu ? gpu : "all");
  if (mode == "crash_at_start") {
    say("the library is missing");
    return 9;
  }
  if (mode == "crash_twice" && start <= 2) abort();
  if (mode == "bad_model") fail_to_load("model_invalid", "not a GGUF file");
  if (mode == "no_memory_once" && start == 1) fail_to_load("unavailable", "not enough memory");
  if (mode == "leaks") fail_to_load("model_invalid", leaks());
  if (mode == "slow") std::this_thread::sleep_for(std::chrono::milliseconds(300));
  if (mode == "stubborn") signal(SIGTERM, SIG_IGN);
  if (mode == "bad_until_repaired" && !std::ifstream(state + ".repaired")) fail_to_load("model_invalid", "damaged");
  // Loading takes a while, and then memory.
  std::this_thread::sleep_for(std::chrono::milliseconds(std::stoi(option(all, "load-delay", "0"))));
  const std::vector<char> held(std::stoul(option(all, "hold", "0")), 1);

  net::asio::io_context io(1);
  test::FakeEngine engine(io);
  engine.frames = test::FakeEngine::hello();
  engine.model = option(all, "model-id", "fake");
  engine.frame_delay = std::chrono::milliseconds(std::stoi(option(all, "frame-delay", "0")));
  if (mode == "hang" && start == 1) {
    engine.stats.busy = true;
    engine.stats.since_tick = std::chrono::hours(1);
  }
  if (mode == "crash_before_first_frame" && start == 1) engine.on_begun = [] { raise(SIGKILL); };
  if (mode == "crash_on_first_request" && start == 1) engine.on_post = [] { raise(SIGKILL); };
  const auto server = engine.serve(net::UnixEndpoint{socket});
  if (!server) return 5;
  net::asio::signal_set signals(io);
  if (mode != "stubborn") {
    signals.add(SIGTERM);
    signals.async_wait([&io](const boost::system::error_code&, int) { io.stop(); });
  }
  say(std::string(fleet::worker_ready_line));
  if (mode == "freeze" && start == 1) raise(SIGSTOP);
  io.run();
  return 0;
}
