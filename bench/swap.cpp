// What it costs to have more models than memory: the time from a request for the model that is not loaded to its first token, against llama-server's
// router mode and against plainly reading the file; and requests for two models mixed, when only one of them fits.
#include <fcntl.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <memory>
#include <stdexcept>

#include "load_client.h"
#include "process.h"
#include "report.h"

namespace {

using namespace hearth::bench;
namespace fs = std::filesystem;
using Compare = Measurement::Compare;
using Time = std::chrono::steady_clock;

double seconds_since(Time::time_point begun) { return std::chrono::duration<double>(Time::now() - begun).count(); }

// What the kernel has of the file goes. Nobody may have it mapped.
void forget(const fs::path& file) {
  const int fd = open(file.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) throw std::runtime_error("cannot open " + file.string());
  fdatasync(fd);
  posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
  close(fd);
}

double read_whole(const fs::path& file) {
  const auto begun = Time::now();
  const int fd = open(file.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) throw std::runtime_error("cannot open " + file.string());
  posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
  std::vector<char> buffer(std::size_t{1} << 20);
  while (read(fd, buffer.data(), buffer.size()) > 0) {}
  close(fd);
  return seconds_since(begun);
}

struct Server {
  std::string name;
  unsigned short port = 0;
  fs::path folder, log;      // of its own copies of the model: a.gguf and b.gguf
  std::string loaded_words;  // in a line of its log, once for each load
  std::unique_ptr<Process> process;

  int loads() const {
    std::ifstream file(log);
    int count = 0;
    for (std::string line; std::getline(file, line);) count += line.find(loaded_words) != std::string::npos ? 1 : 0;
    return count;
  }
};

LoadReport ask(const Server& server, int connections, std::size_t requests, int max_tokens,
               const std::function<std::string(std::size_t)>& model) {
  LoadPlan plan;
  plan.port = server.port;
  plan.path = "/v1/completions";
  plan.connections = connections;
  plan.requests = requests;
  plan.seconds = 600;
  plan.give_up = 300;
  plan.body = [&](std::size_t n) {
    return R"({"model":")" + model(n) + R"(","prompt":"file )" + std::to_string(n) +
           R"( list","stream":true,"stream_options":{"include_usage":true},"ignore_eos":true,"temperature":0,"max_tokens":)" +
           std::to_string(max_tokens) + "}";
  };
  auto report = run_load(plan);
  if (report.errors > 0) throw std::runtime_error(server.name + ": " + report.first_error);
  return report;
}

// Seconds to the first token.
double first_token(const Server& server, const std::string& model) {
  const auto report = ask(server, 1, 1, 1, [&](std::size_t) { return model; });
  return (report.first_text.empty() ? report.latency.front() : report.first_text.front()) / 1e6;
}

Measurement compared(std::string name, std::string base, double goal) {
  Measurement m;
  m.name = std::move(name);
  m.unit = "s";
  m.compare = Compare::ratio;
  m.subject = "hearth";
  m.base = std::move(base);
  m.goal = goal;
  m.at_least = false;
  m.decimals = 2;
  return m;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Measures how fast models are swapped."};
  const fs::path here = fs::read_symlink("/proc/self/exe").parent_path();
  std::string model, name, json_file, document;
  std::string hearth_command =
      std::string(HEARTH_PROGRAM) +
      " serve --config none --models-folder {folder} --memory {memory} --port {port} --context {context} --threads {threads}"
      " --state-folder {state}";
  std::string peer_command =
      (here / "llama-server").string() +
      " --models-dir {folder} --models-max 1 --host 127.0.0.1 --port {port} -c {context} -t {threads} -tb {threads} -np 4"
      " -fa on --no-ui";
  int rounds = 3, threads = core_count(), context = 8192;
  bool quick = false;
  app.add_option("--model", model, "GGUF file; four copies of it are made")->required()->check(CLI::ExistingFile);
  app.add_option("--name", name, "For the report; the file's name if not given");
  app.add_option("--hearth", hearth_command, "hearth's command; {folder} {memory} {port} {context} {threads} {state} are filled in")
      ->capture_default_str();
  app.add_option("--peer", peer_command, "llama-server's command")->capture_default_str();
  app.add_option("--rounds", rounds, "Interleaved rounds")->capture_default_str();
  app.add_option("--threads", threads, "Compute threads of each server")->capture_default_str();
  app.add_option("--context", context, "KV cells of each model")->capture_default_str();
  app.add_flag("--quick", quick, "Two rounds");
  app.add_option("--json", json_file, "Write every round's values here");
  app.add_option("--write", document, "Replace the results in this document");
  CLI11_PARSE(app, argc, argv);
  if (quick) rounds = 2;
  if (name.empty()) name = fs::path(model).stem();
  try {
    Report report;
    report.title = "Swap, " + name;
    report.command = std::string("bench/run swap") + (quick ? " --quick" : "");
    report.machine = machine_line();
    const TempFolder folder;
    // Room for one of them and half of another.
    const auto bytes = fs::file_size(model);
    const auto memory = bytes * 3 / 2 + (std::uintmax_t{1} << 29);
    std::vector<Server> servers;
    for (const auto& [server_name, command, words] :
         {std::tuple{std::string("llama-server"), peer_command, std::string("spawning server instance")},
          std::tuple{std::string("hearth"), hearth_command, std::string(" is loaded on ")}}) {
      Server server{.name = server_name,
                    .port = free_port(),
                    .folder = folder.path() / server_name,
                    .log = folder.path() / (server_name + ".log"),
                    .loaded_words = words};
      fs::create_directories(server.folder);
      for (const char* copy : {"a.gguf", "b.gguf"}) fs::copy_file(model, server.folder / copy);
      server.process = std::make_unique<Process>(fill(command, {{"folder", server.folder.string()},
                                                                {"memory", std::to_string(memory)},
                                                                {"port", std::to_string(server.port)},
                                                                {"context", std::to_string(context)},
                                                                {"threads", std::to_string(threads)},
                                                                {"state", folder.path().string()}}),
                                                 server.log);
      servers.push_back(std::move(server));
    }
    for (auto& server : servers) {
      server.process->wait_healthy(server.port);
      first_token(server, "a");
      first_token(server, "b");
    }
    const fs::path file = servers[1].folder / "a.gguf";

    Measurement warm = compared("swap, the file in the page cache", "llama-server", 0.5);
    Measurement warm_read = compared("the same, against reading the file", "read", 1.3);
    Measurement cold = compared("swap, the file on the disk", "llama-server", 0.5);
    Measurement cold_read = compared("the same, against reading the file", "read", 1.3);
    Measurement mixed = compared("24 answers of 16 tokens, two models mixed, 4 clients", "llama-server", 1.0);
    Measurement swaps = compared("loads for them", "llama-server", 1.0);
    swaps.unit = "";
    swaps.decimals = 0;
    for (int round = 0; round < rounds; ++round) {
      for (auto* m : {&warm_read}) m->add("read", read_whole(file));
      for (std::size_t i = 0; i < servers.size(); ++i) {
        Server& server = servers[(i + static_cast<std::size_t>(round)) % servers.size()];
        first_token(server, "b");
        const double to_a = first_token(server, "a");
        const double to_b = first_token(server, "b");
        warm.add(server.name, (to_a + to_b) / 2);
        if (server.name == "hearth") warm_read.add(server.name, (to_a + to_b) / 2);
      }
      // b is loaded everywhere.
      forget(file);
      cold_read.add("read", read_whole(file));
      for (std::size_t i = 0; i < servers.size(); ++i) {
        Server& server = servers[(i + static_cast<std::size_t>(round)) % servers.size()];
        forget(server.folder / "a.gguf");
        const double to_a = first_token(server, "a");
        cold.add(server.name, to_a);
        if (server.name == "hearth") cold_read.add(server.name, to_a);
      }
      for (std::size_t i = 0; i < servers.size(); ++i) {
        Server& server = servers[(i + static_cast<std::size_t>(round)) % servers.size()];
        const int before = server.loads();
        const auto answered = ask(server, 4, 24, 16, [](std::size_t n) { return n % 2 == 0 ? "a" : "b"; });
        mixed.add(server.name, answered.seconds);
        swaps.add(server.name, server.loads() - before);
      }
    }
    const auto without_folder = [](const std::string& command) {
      const std::size_t end = command.find(' ');
      return fs::path(command.substr(0, end)).filename().string() + (end == std::string::npos ? "" : command.substr(end));
    };
    report.notes = {
        "Model: " + fs::path(model).filename().string() + ", " + std::to_string(bytes >> 20) +
            " MiB, as two models a and b of which one fits; each server has copies of its own.",
        "Peer: `" + without_folder(peer_command) + "`",
        "hearth: `" + without_folder(hearth_command) + "`",
        "Swap: from the request to its first token, one client, the other model loaded and idle. Read: read(2) in pieces of 1 MiB.",
        "Mixed: requests alternate between a and b, 4 at a time.",
        std::to_string(rounds) + " interleaved rounds; median (min–max); ratios are taken inside a round."};
    for (auto* m : {&warm, &warm_read, &cold, &cold_read, &mixed, &swaps}) report.measurements.push_back(*m);
    publish(report, json_file, document, "swap");
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench_swap: %s\n", error.what());
    return 1;
  }
}
