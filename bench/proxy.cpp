// What a gateway costs: the same canned upstream asked directly, through nginx, through another gateway and through hearth, in interleaved rounds.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <limits>
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
  Process* process = nullptr;  // null for the upstream itself
  std::string headers;
  bool anthropic = false;  // asked over the Messages API
  bool safety = true;      // false: hearth without it, only for what text pays for it
};

// `gap_us` is read by the canned upstream; a prompt is what every protocol has.
std::string request(const Target& target, bool streamed, int frames, int gap_us) {
  std::string prompt = "list the files here";
  if (gap_us > 0) prompt += ", gap=" + std::to_string(gap_us);
  std::string body =
      R"({"model":"canned","messages":[{"role":"user","content":")" + prompt + R"("}],"max_tokens":)" + std::to_string(frames);
  if (streamed) body += R"(,"stream":true)";
  if (streamed && !target.anthropic) body += R"(,"stream_options":{"include_usage":true})";
  return body + "}";
}

struct Load {
  int connections = 1;
  double seconds = 1;
  int frames = 16;
  int gap_us = 0;
  std::size_t requests = SIZE_MAX;
  bool streamed = true;
};

LoadReport measure(const Target& target, const Load& load) {
  LoadPlan plan;
  plan.port = target.port;
  plan.path = target.anthropic ? "/v1/messages" : "/v1/chat/completions";
  plan.headers = target.headers;
  plan.connections = load.connections;
  plan.seconds = load.seconds;
  plan.requests = load.requests;
  plan.give_up = 20;
  const std::string body = request(target, load.streamed, load.frames, load.gap_us);
  plan.body = [&body](std::size_t) { return body; };
  LoadReport report = run_load(plan);
  if (report.errors > 0)
    throw std::runtime_error(target.name + " failed " + std::to_string(report.errors) + " requests: " + report.first_error);
  const auto expected = static_cast<std::int64_t>(report.requests) * load.frames;
  // A proxy may join neighbouring frames when they arrive together, but every token must be accounted for.
  if (report.completion_tokens != expected) {
    throw std::runtime_error(target.name + " reported " + std::to_string(report.completion_tokens) + " tokens where " +
                             std::to_string(expected) + " were sent");
  }
  return report;
}

constexpr double no_goal = std::numeric_limits<double>::quiet_NaN();

Measurement plain(std::string name, std::string unit, int decimals) {
  Measurement m;
  m.name = std::move(name);
  m.unit = std::move(unit);
  m.decimals = decimals;
  return m;
}

Measurement compared(std::string name, std::string unit, Measurement::Compare compare, std::vector<std::string> bases, double goal,
                     bool at_least, int decimals) {
  Measurement m = plain(std::move(name), std::move(unit), decimals);
  m.compare = compare;
  m.subject = "hearth";
  m.base = bases.front();
  m.further_bases.assign(bases.begin() + 1, bases.end());
  m.goal = goal;
  m.at_least = at_least;
  return m;
}

// p50 and p99 of one kind of request, as what a proxy adds to the direct way in the same round.
struct Added {
  explicit Added(const std::string& what) {
    for (std::size_t i = 0; i < 2; ++i) {
      rows[i] = compared("added to " + what + (i == 0 ? ", p50" : ", p99"), "µs", Measurement::Compare::ratio, {"nginx", "Portkey"},
                         no_goal, false, 1);
    }
  }
  void add(const std::string& target, const std::vector<float>& samples) {
    for (std::size_t i = 0; i < 2; ++i) absolute[i].add(target, quantile(samples, i == 0 ? 0.5 : 0.99));
  }
  // After the last round.
  void append_to(std::vector<Measurement>& out) {
    for (std::size_t i = 0; i < 2; ++i) {
      const auto direct =
          std::find_if(absolute[i].rounds.begin(), absolute[i].rounds.end(), [](const auto& entry) { return entry.first == "direct"; });
      for (const auto& [target, values] : absolute[i].rounds) {
        if (target == direct->first) continue;
        for (std::size_t round = 0; round < values.size(); ++round) rows[i].add(target, values[round] - direct->second[round]);
      }
      out.push_back(rows[i]);
    }
  }

  std::array<Measurement, 2> rows, absolute;
};

double rate(const LoadReport& report) { return static_cast<double>(report.requests) / report.seconds; }

// The most requests a second of any number of connections tried, as long as p99 stays within a bound; 0 when it never does.
struct Bounded {
  explicit Bounded(double ms) : bound_us(ms * 1000) {
    row = compared("answers not streamed, p99 within " + std::to_string(static_cast<int>(ms)) + " ms", "requests/s",
                   Measurement::Compare::ratio, {"nginx", "Portkey"}, no_goal, true, 0);
  }
  void add(const std::string& target, const std::vector<LoadReport>& tried) {
    double best = 0;
    for (const LoadReport& report : tried) {
      if (quantile(report.latency, 0.99) <= bound_us) best = std::max(best, rate(report));
    }
    row.add(target, best);
  }

  double bound_us;
  Measurement row;
};

double mebibytes(const Process& process) { return static_cast<double>(process.resident_bytes()) / (1 << 20); }

// "1.15.2" from a package.json.
std::string version_in(const fs::path& file) {
  std::ifstream in(file);
  const std::string text((std::istreambuf_iterator<char>(in)), {});
  constexpr std::string_view key = "\"version\": \"";
  const std::size_t at = text.find(key);
  if (at == std::string::npos) throw std::runtime_error("no version in " + file.string());
  return text.substr(at + key.size(), text.find('"', at + key.size()) - at - key.size());
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{
      "Compares hearth's gateway with nginx, with the gateway Portkey and with no proxy at all, in front of the same canned upstream."};
  int rounds = 5;
  double seconds = 0.7;
  bool quick = false;
  const fs::path here = fs::read_symlink("/proc/self/exe").parent_path();
  std::string hearth_command = std::string(HEARTH_PROGRAM) +
                               " serve --port {port} --engine-url http://127.0.0.1:{upstream} --state-folder {folder} --log-level warn";
  std::string nginx = "nginx", peers, json_file, document;
  app.add_option("--rounds", rounds, "Interleaved rounds")->capture_default_str();
  app.add_option("--seconds", seconds, "Length of one measurement")->capture_default_str();
  app.add_flag("--quick", quick, "Two short rounds");
  app.add_option("--hearth", hearth_command, "Command of hearth's gateway; {port} and {upstream} are filled in")->capture_default_str();
  app.add_option("--nginx", nginx, "nginx program")->capture_default_str();
  app.add_option("--peers", peers, "Folder where bench/peers is installed; without it Portkey is left out");
  app.add_option("--json", json_file, "Write every round's values here");
  app.add_option("--write", document, "Replace the results in this document");
  CLI11_PARSE(app, argc, argv);
  if (quick) {
    rounds = 2;
    seconds = 0.25;
  }
  try {
    Report report;
    report.title = "Proxy path";
    report.command = std::string("bench/run proxy") + (quick ? " --quick" : "");
    report.machine = machine_line();
    const TempFolder folder;
    const auto log = [&folder](const char* name) { return folder.path() / (std::string(name) + ".log"); };

    const unsigned short upstream_port = free_port();
    Process upstream({(here / "bench_canned_upstream").string(), "--port", std::to_string(upstream_port)}, log("upstream"));
    upstream.wait_healthy(upstream_port);

    const unsigned short nginx_port = free_port();
    write_nginx_configuration(folder.path(), nginx_port, upstream_port);
    Process nginx_process({nginx, "-c", (folder.path() / "nginx.conf").string(), "-p", folder.path().string(), "-e",
                           (folder.path() / "nginx-error.log").string()},
                          log("nginx"));
    nginx_process.wait_healthy(nginx_port);

    const unsigned short portkey_port = free_port();
    std::unique_ptr<Process> portkey;
    if (!peers.empty()) {
      const fs::path package = fs::path(peers) / "node_modules/@portkey-ai/gateway";
      portkey = std::make_unique<Process>(
          std::vector<std::string>{"env", "NODE_ENV=production", "node", "--import",
                                   fs::absolute(fs::path(peers) / "loopback.mjs").string(), (package / "build/start-server.js").string(),
                                   "--port=" + std::to_string(portkey_port), "--headless"},
          log("portkey"));
      portkey->wait_healthy(portkey_port, std::chrono::seconds{30}, "/");
      report.notes.push_back("Portkey: `@portkey-ai/gateway` " + version_in(package / "package.json") +
                             ", `node build/start-server.js --headless`, NODE_ENV=production; upstream by `x-portkey-custom-host`.");
    } else {
      report.notes.emplace_back("Portkey: not installed, not measured.");
    }

    const unsigned short hearth_port = free_port();
    Process hearth(
        fill(hearth_command,
             {{"port", std::to_string(hearth_port)}, {"upstream", std::to_string(upstream_port)}, {"folder", folder.path().string()}}),
        log("hearth"));
    hearth.wait_healthy(hearth_port);

    const unsigned short unsafe_port = free_port();
    Process unsafe(fill("env HEARTH_SAFETY=off " + hearth_command, {{"port", std::to_string(unsafe_port)},
                                                                    {"upstream", std::to_string(upstream_port)},
                                                                    {"folder", (folder.path() / "unsafe").string()}}),
                   log("unsafe"));
    unsafe.wait_healthy(unsafe_port);

    std::vector<Target> targets{{"direct", upstream_port, nullptr, {}, false}, {"nginx", nginx_port, &nginx_process, {}, false}};
    if (portkey) {
      targets.push_back(
          {"Portkey", portkey_port, portkey.get(),
           "x-portkey-provider: openai\r\nx-portkey-custom-host: http://127.0.0.1:" + std::to_string(upstream_port) + "/v1\r\n", false});
    }
    targets.push_back({"hearth", hearth_port, &hearth, {}, false});
    targets.push_back({"hearth, Anthropic client", hearth_port, &hearth, "anthropic-version: 2023-06-01\r\n", true});
    targets.push_back({"hearth, safety off", unsafe_port, &unsafe, {}, false, false});

    using Compare = Measurement::Compare;
    const std::vector<std::string> proxies{"nginx", "Portkey"};
    Measurement one_core =
        compared("p50 of a 16-frame answer, 1 connection, all on one core", "µs", Compare::difference, {"direct", "nginx"}, 150, false, 1);
    Measurement own_core = compared("p50 of a 16-frame answer, 1 connection, proxy on its own core", "µs", Compare::difference,
                                    {"direct", "nginx"}, 150, false, 1);
    Added first_1("the first token, 1 connection"), whole_1("a whole streamed answer, 1 connection"),
        first_16("the first token, 16 connections"), whole_16("a whole streamed answer, 16 connections"),
        json_1("an answer that is not streamed, 1 connection"), json_16("an answer that is not streamed, 16 connections");
    Measurement json_rate_16 = compared("answers not streamed, 16 connections", "requests/s", Compare::ratio, proxies, no_goal, true, 0);
    Measurement json_rate_64 = compared("answers not streamed, 64 connections", "requests/s", Compare::ratio, proxies, no_goal, true, 0);
    std::array<Bounded, 3> bounded{Bounded{1}, Bounded{10}, Bounded{100}};
    Measurement rate_16 = compared("16-frame answers, 16 connections", "requests/s", Compare::ratio, proxies, no_goal, true, 0);
    Measurement rate_64 = compared("16-frame answers, 64 connections", "requests/s", Compare::ratio, proxies, 0.5, true, 0);
    Measurement small_64 = compared("1-frame answers, 64 connections", "requests/s", Compare::ratio, proxies, 0.5, true, 0);
    Measurement tail = plain("p99 latency of 16-frame answers, 64 connections", "µs", 0);
    Measurement cpu = compared("proxy CPU per 16-frame answer, 64 connections", "µs", Compare::ratio, proxies, no_goal, false, 1);
    Measurement gap = compared("p99 gap of frames 1 ms apart, 1 stream", "µs", Compare::difference, {"direct"}, 50, false, 1);
    Measurement way = plain("p99 way of a frame, same run", "µs", 1);
    // What text pays for the judging of calls.
    const std::vector<std::string> unjudged{"hearth, safety off"};
    std::array<Measurement, 2> gaps, ways;
    for (std::size_t i = 0; i < 2; ++i) {
      const std::string quantiles = i == 0 ? "p50" : "p99";
      gaps[i] =
          compared("safety on and off: " + quantiles + " gap of frames 1 ms apart", "µs", Compare::difference, unjudged, no_goal, false, 1);
      ways[i] = compared("safety on and off: " + quantiles + " way of a frame", "µs", Compare::difference, unjudged, no_goal, false, 1);
    }
    Measurement safety_cpu =
        compared("safety on and off: CPU per 16-frame answer, 64 connections", "µs", Compare::difference, unjudged, no_goal, false, 1);
    Measurement many = compared("p99 gap of frames 20 ms apart, 16 streams", "µs", Compare::difference, {"direct"}, 50, false, 1);
    Measurement idle = compared("resident memory before the first request", "MiB", Compare::ratio, proxies, no_goal, false, 1);
    Measurement after = compared("resident memory after the round", "MiB", Compare::ratio, proxies, no_goal, false, 1);

    for (const Target& target : targets) {
      if (target.process && !target.anthropic && target.safety) idle.add(target.name, mebibytes(*target.process));
    }
    pin_to(1);
    upstream.pin(1);
    for (const Target& target : targets) measure(target, {.connections = 64, .seconds = 0.3});  // connections opened, caches warm
    for (int round = 0; round < rounds; ++round) {
      for (std::size_t i = 0; i < targets.size(); ++i) {
        // Each round starts with another target, so that none always follows the same neighbour.
        const Target& target = targets[(i + static_cast<std::size_t>(round)) % targets.size()];
        const std::string& name = target.name;
        const auto place_proxy = [&target](int core) {
          if (target.process) target.process->pin(core);
        };
        const auto paced = [&] {
          return measure(target, {.seconds = seconds, .frames = static_cast<int>(seconds * 1000), .gap_us = 1000, .requests = 1});
        };
        const auto add_text_path = [&](const LoadReport& streamed, double cpu_us) {
          for (std::size_t i = 0; i < 2; ++i) {
            gaps[i].add(name, quantile(streamed.gap, i == 0 ? 0.5 : 0.99));
            ways[i].add(name, quantile(streamed.transit, i == 0 ? 0.5 : 0.99));
          }
          safety_cpu.add(name, cpu_us);
        };
        const auto cpu_of_answers = [&](LoadReport& full) {
          const double before = target.process->cpu_seconds();
          full = measure(target, {.connections = 64, .seconds = seconds});
          return (target.process->cpu_seconds() - before) / static_cast<double>(full.requests) * 1e6;
        };
        if (!target.safety) {
          place_proxy(0);
          LoadReport full;
          const double cpu_us = cpu_of_answers(full);
          add_text_path(paced(), cpu_us);
          continue;
        }
        place_proxy(1);
        one_core.add(name, quantile(measure(target, {.seconds = seconds / 2}).latency, 0.5));

        place_proxy(0);
        own_core.add(name, quantile(measure(target, {.seconds = seconds / 2}).latency, 0.5));
        const LoadReport paced_1 = measure(target, {.seconds = seconds, .frames = 4, .gap_us = 1000});
        first_1.add(name, paced_1.first_text);
        whole_1.add(name, paced_1.latency);
        const LoadReport paced_16 = measure(target, {.connections = 16, .seconds = seconds, .frames = 4, .gap_us = 1000});
        first_16.add(name, paced_16.first_text);
        whole_16.add(name, paced_16.latency);
        std::vector<LoadReport> documents;
        for (const int connections : {1, 4, 16, 64})
          documents.push_back(measure(target, {.connections = connections, .seconds = seconds / 2, .streamed = false}));
        json_1.add(name, documents[0].latency);
        json_16.add(name, documents[2].latency);
        json_rate_16.add(name, rate(documents[2]));
        json_rate_64.add(name, rate(documents[3]));
        for (Bounded& row : bounded) row.add(name, documents);
        rate_16.add(name, rate(measure(target, {.connections = 16, .seconds = seconds / 2})));

        LoadReport full;
        double cpu_us = 0;
        if (target.process) cpu.add(name, cpu_us = cpu_of_answers(full));
        else full = measure(target, {.connections = 64, .seconds = seconds});
        rate_64.add(name, rate(full));
        tail.add(name, quantile(full.latency, 0.99));
        if (target.anthropic) continue;  // what follows shows the proxy, not the protocol
        small_64.add(name, rate(measure(target, {.connections = 64, .seconds = seconds / 2, .frames = 1})));
        const LoadReport one_stream = paced();
        gap.add(name, quantile(one_stream.gap, 0.99));
        way.add(name, quantile(one_stream.transit, 0.99));
        if (target.process == &hearth) add_text_path(one_stream, cpu_us);
        const int slow_frames = static_cast<int>(seconds * 50);
        many.add(
            name,
            quantile(measure(target, {.connections = 16, .seconds = seconds, .frames = slow_frames, .gap_us = 20'000, .requests = 16}).gap,
                     0.99));
        if (target.process) after.add(name, mebibytes(*target.process));
      }
    }
    report.notes.insert(report.notes.begin(),
                        {"Upstream: `bench_canned_upstream`, one thread, kept connections, chat chunks of about 190 bytes; a 16-frame "
                         "answer leaves in one write.",
                         "hearth: `hearth serve --engine-url …`, every setting at its default but the log (warnings only, as the others "
                         "log no requests). Its "
                         "last column is asked over Anthropic's Messages API and translates.",
                         "nginx: `proxy_pass`, one worker, `proxy_buffering off`, kept connections to the upstream, no access log."});
    report.notes.insert(
        report.notes.end(),
        {"Client and upstream always share one core. With the proxy on the same core a difference is its own work; on a core of its own, "
         "as in "
         "every row that says nothing else, that and waking a core up, twice.",
         "Added: to the direct way, in the same round; a round in which noise swallowed that has no ratio. First token and whole answer: 4 "
         "frames, 1 ms apart. Connections ask again as soon "
         "as they "
         "are answered.",
         "p99 within a bound: the best of 1, 4, 16 and 64 connections; 0 when none keeps to it.",
         "A frame's way: from the upstream's `send` to the client's `recv`.",
         std::to_string(rounds) + " interleaved rounds; median (min–max); differences and ratios are taken inside a round."});
    report.measurements = {one_core, own_core};
    for (Added* pair : {&first_1, &whole_1, &first_16, &whole_16, &json_1, &json_16}) pair->append_to(report.measurements);
    for (const Measurement* row : {&json_rate_16, &json_rate_64, &bounded[0].row, &bounded[1].row, &bounded[2].row, &rate_16, &rate_64,
                                   &small_64, &tail, &cpu, &gap, &way, &many, &idle, &after})
      report.measurements.push_back(*row);
    for (const Measurement& row : {gaps[0], gaps[1], ways[0], ways[1], safety_cpu}) report.measurements.push_back(row);
    publish(report, json_file, document, "proxy");
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench_proxy: %s\n", error.what());
    return 1;
  }
}
