// What a gateway costs: the same canned upstream asked directly, through nginx and through hearth, in interleaved rounds.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <fstream>
#include <memory>

#include "load_client.h"
#include "process.h"
#include "report.h"

namespace {

using namespace hearth::bench;
namespace fs = std::filesystem;

// One worker, answers passed on unbuffered, connections to the upstream kept: what a careful administrator would write for streams.
void write_nginx_configuration(const fs::path& folder, unsigned short port, unsigned short upstream) {
  std::ofstream out(folder / "nginx.conf");
  const std::string path = folder.string();
  out << "daemon off;\nmaster_process off;\nworker_processes 1;\npid " << path << "/nginx.pid;\nerror_log " << path
      << "/nginx-error.log warn;\n"
      << "events { worker_connections 1024; }\n"
      << "http {\n  access_log off;\n  tcp_nodelay on;\n  keepalive_requests 100000000;\n  client_body_buffer_size 1m;\n";
  for (const char* kind : {"client_body", "proxy", "fastcgi", "uwsgi", "scgi"})
    out << "  " << kind << "_temp_path " << path << "/" << kind << ";\n";
  out << "  upstream canned {\n    server 127.0.0.1:" << upstream << ";\n    keepalive 256;\n    keepalive_requests 100000000;\n  }\n"
      << "  server {\n    listen 127.0.0.1:" << port << " backlog=1024;\n    location / {\n      proxy_pass http://canned;\n"
      << "      proxy_http_version 1.1;\n      proxy_set_header Connection \"\";\n      proxy_buffering off;\n    }\n  }\n}\n";
}

struct Target {
  std::string name;
  unsigned short port = 0;
  std::unique_ptr<Process> process;  // null for the upstream itself
};

std::string request(int frames, int gap_us) {
  return R"({"model":"canned","messages":[{"role":"user","content":"list the files here"}],"stream":true,)"
         R"("stream_options":{"include_usage":true},"max_tokens":)" +
         std::to_string(frames) + (gap_us > 0 ? R"(,"seed":)" + std::to_string(gap_us) : std::string{}) + "}";
}

LoadReport measure(const Target& target, int connections, double seconds, int frames, int gap_us, std::size_t requests = SIZE_MAX) {
  LoadPlan plan;
  plan.port = target.port;
  plan.connections = connections;
  plan.seconds = seconds;
  plan.requests = requests;
  const std::string body = request(frames, gap_us);
  plan.body = [&body](std::size_t) { return body; };
  LoadReport report = run_load(plan);
  if (report.errors > 0)
    throw std::runtime_error(target.name + " failed " + std::to_string(report.errors) + " requests: " + report.first_error);
  const auto expected = static_cast<std::int64_t>(report.requests) * frames;
  // A proxy may join neighbouring frames when they arrive together, but every token must be accounted for.
  if (report.completion_tokens != expected) {
    throw std::runtime_error(target.name + " reported " + std::to_string(report.completion_tokens) + " tokens where " +
                             std::to_string(expected) + " were sent");
  }
  return report;
}

Measurement measurement(std::string name, std::string unit, Measurement::Compare compare, std::string base, double goal, bool at_least,
                        int decimals) {
  Measurement m;
  m.name = std::move(name);
  m.unit = std::move(unit);
  m.compare = compare;
  m.subject = "hearth";
  m.base = std::move(base);
  m.goal = goal;
  m.at_least = at_least;
  m.decimals = decimals;
  return m;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Compares hearth's gateway with nginx and with no proxy at all, in front of the same canned upstream."};
  int rounds = 7;
  double seconds = 1.5;
  bool quick = false;
  const fs::path here = fs::read_symlink("/proc/self/exe").parent_path();
  std::string hearth_command = std::string(HEARTH_PROGRAM) +
                               " serve --port {port} --engine-url http://127.0.0.1:{upstream} --state-folder {folder} --log-level warn";
  std::string nginx = "nginx", json_file, document;
  app.add_option("--rounds", rounds, "Interleaved rounds")->capture_default_str();
  app.add_option("--seconds", seconds, "Length of one measurement")->capture_default_str();
  app.add_flag("--quick", quick, "Three short rounds");
  app.add_option("--hearth", hearth_command, "Command of hearth's gateway; {port} and {upstream} are filled in; empty leaves it out")
      ->capture_default_str();
  app.add_option("--nginx", nginx, "nginx program")->capture_default_str();
  app.add_option("--json", json_file, "Write every round's values here");
  app.add_option("--write", document, "Replace the results in this document");
  CLI11_PARSE(app, argc, argv);
  if (quick) {
    rounds = 3;
    seconds = 0.5;
  }
  try {
    Report report;
    report.title = "Proxy path";
    report.command = std::string("bench/run proxy") + (quick ? " --quick" : "");
    report.machine = machine_line();
    const TempFolder folder;
    Target direct{"direct", free_port(), nullptr};
    Process upstream({(here / "bench_canned_upstream").string(), "--port", std::to_string(direct.port)}, folder.path() / "upstream.log");
    upstream.wait_healthy(direct.port);
    std::vector<Target> targets;
    const unsigned short upstream_port = direct.port;
    targets.push_back(std::move(direct));
    {
      Target target{"nginx", free_port(), nullptr};
      write_nginx_configuration(folder.path(), target.port, upstream_port);
      target.process =
          std::make_unique<Process>(std::vector<std::string>{nginx, "-c", (folder.path() / "nginx.conf").string(), "-p",
                                                             folder.path().string(), "-e", (folder.path() / "nginx-error.log").string()},
                                    folder.path() / "nginx.log");
      target.process->wait_healthy(target.port);
      targets.push_back(std::move(target));
    }
    if (!hearth_command.empty()) {
      Target target{"hearth", free_port(), nullptr};
      target.process = std::make_unique<Process>(
          fill(hearth_command,
               {{"port", std::to_string(target.port)}, {"upstream", std::to_string(upstream_port)}, {"folder", folder.path().string()}}),
          folder.path() / "hearth.log");
      target.process->wait_healthy(target.port);
      targets.push_back(std::move(target));
    }

    using Compare = Measurement::Compare;
    Measurement p50 =
        measurement("p50 of a 16-frame answer, 1 connection, all on one core", "µs", Compare::difference, "direct", 150, false, 1);
    Measurement p50_apart =
        measurement("p50 of a 16-frame answer, 1 connection, proxy on its own core", "µs", Compare::difference, "direct", 150, false, 1);
    Measurement p99 = measurement("p99 of the same", "µs", Compare::none, "", 0, false, 1);
    Measurement rate = measurement("16-frame answers, 64 connections", "requests/s", Compare::ratio, "nginx", 0.5, true, 0);
    Measurement rate1 = measurement("1-frame answers, 64 connections", "requests/s", Compare::ratio, "nginx", 0.5, true, 0);
    Measurement tail = measurement("p99 latency of 16-frame answers, 64 connections", "µs", Compare::none, "", 0, false, 0);
    Measurement cpu = measurement("proxy CPU per 16-frame answer, 64 connections", "µs", Compare::none, "", 0, false, 1);
    Measurement gap =
        measurement("p99 gap of frames 1 ms apart, 1 stream, all on one core", "µs", Compare::difference, "direct", 50, false, 1);
    Measurement gap_apart =
        measurement("p99 gap of frames 1 ms apart, 1 stream, proxy on its own core", "µs", Compare::difference, "direct", 50, false, 1);
    Measurement way = measurement("p99 way of a frame, same run", "µs", Compare::none, "", 0, false, 1);
    Measurement many =
        measurement("p99 gap of frames 20 ms apart, 16 streams, proxy on its own core", "µs", Compare::difference, "direct", 50, false, 1);
    Measurement memory = measurement("resident memory after the round", "MiB", Compare::none, "", 0, false, 1);

    pin_to(1);
    upstream.pin(1);
    for (const Target& target : targets) measure(target, 64, 0.3, 16, 0);  // connections opened, caches warm
    for (int round = 0; round < rounds; ++round) {
      for (std::size_t i = 0; i < targets.size(); ++i) {
        // Each round starts with another target, so that none always follows the same neighbour.
        const Target& target = targets[(i + static_cast<std::size_t>(round)) % targets.size()];
        const auto place_proxy = [&target](int core) {
          if (target.process) target.process->pin(core);
        };
        const int paced_frames = static_cast<int>(seconds * 1000);
        place_proxy(1);
        p50.add(target.name, quantile(measure(target, 1, seconds / 2, 16, 0).latency, 0.5));
        gap.add(target.name, quantile(measure(target, 1, seconds, paced_frames, 1000, 1).gap, 0.99));

        place_proxy(0);
        const LoadReport one = measure(target, 1, seconds / 2, 16, 0);
        p50_apart.add(target.name, quantile(one.latency, 0.5));
        p99.add(target.name, quantile(one.latency, 0.99));
        const LoadReport paced = measure(target, 1, seconds, paced_frames, 1000, 1);
        gap_apart.add(target.name, quantile(paced.gap, 0.99));
        way.add(target.name, quantile(paced.transit, 0.99));
        many.add(target.name, quantile(measure(target, 16, seconds, static_cast<int>(seconds * 50), 20'000, 16).gap, 0.99));

        const double cpu_before = target.process ? target.process->cpu_seconds() : 0;
        const LoadReport full = measure(target, 64, seconds, 16, 0);
        if (target.process) {
          cpu.add(target.name, (target.process->cpu_seconds() - cpu_before) / static_cast<double>(full.requests) * 1e6);
        }
        rate.add(target.name, static_cast<double>(full.requests) / full.seconds);
        tail.add(target.name, quantile(full.latency, 0.99));
        const LoadReport small = measure(target, 64, seconds / 2, 1, 0);
        rate1.add(target.name, static_cast<double>(small.requests) / small.seconds);
        if (target.process) memory.add(target.name, static_cast<double>(target.process->resident_bytes()) / (1 << 20));
      }
    }
    report.notes = {
        "Upstream: `bench_canned_upstream`, one thread, kept connections; every answer is a stream of chat chunks of about 190 bytes.",
        "hearth: `hearth serve --engine-url …`, every setting at its default but the log (warnings only, as nginx logs no requests).",
        "nginx: `proxy_pass`, one worker, `proxy_buffering off`, kept connections to the upstream, no access log.",
        "Client and upstream always share one core. With the proxy on the same core a difference is its own work; on a core of its own, "
        "that and "
        "waking a core up, twice. The 64-connection rows give the proxy its own core.",
        "A frame's way: from the upstream's `send` to the client's `recv`.",
        std::to_string(rounds) + " interleaved rounds; median (min–max); differences and ratios are taken inside a round."};
    report.measurements = {p50, p50_apart, p99, rate, rate1, tail, cpu, gap, gap_apart, way, many, memory};
    publish(report, json_file, document, "proxy");
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench_proxy: %s\n", error.what());
    return 1;
  }
}
