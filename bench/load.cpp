// bench_load: the load client on its own, against any OpenAI-compatible server on this machine.
#include <CLI/CLI.hpp>
#include <cstdio>

#include "load_client.h"

int main(int argc, char** argv) {
  CLI::App app{"Loads an OpenAI-compatible server on 127.0.0.1 and reports throughput and latencies."};
  hearth::bench::LoadPlan plan;
  std::string body =
      R"({"model":"","messages":[{"role":"user","content":"list files"}],"stream":true,"stream_options":{"include_usage":true},)"
      R"("max_tokens":16})";
  app.add_option("--port", plan.port, "Port on 127.0.0.1")->required();
  app.add_option("--path", plan.path, "Path to POST to")->capture_default_str();
  app.add_option("--body", body, "JSON body of every request")->capture_default_str();
  app.add_option("-c,--connections", plan.connections, "Connections")->capture_default_str();
  app.add_option("-n,--requests", plan.requests, "Stop after this many requests");
  app.add_option("-s,--seconds", plan.seconds, "Stop after this many seconds")->capture_default_str();
  app.add_option("--interval", plan.interval, "Open loop: one request every so many seconds");
  CLI11_PARSE(app, argc, argv);
  plan.body = [&body](std::size_t) { return body; };
  try {
    const hearth::bench::LoadReport r = hearth::bench::run_load(plan);
    const auto line = [](const char* name, const std::vector<float>& us) {
      using hearth::bench::quantile;
      std::printf("| %s, µs | %.1f | %.1f | %.1f | %.1f |\n", name, quantile(us, 0.5), quantile(us, 0.9), quantile(us, 0.99),
                  quantile(us, 1));
    };
    std::printf("%zu requests in %.2f s: %.0f/s; %lld prompt and %lld generated tokens: %.0f/s; %lld text frames; %zu errors %s\n\n",
                r.requests, r.seconds, static_cast<double>(r.requests) / r.seconds, static_cast<long long>(r.prompt_tokens),
                static_cast<long long>(r.completion_tokens), static_cast<double>(r.completion_tokens) / r.seconds,
                static_cast<long long>(r.text_frames), r.errors, r.first_error.c_str());
    std::puts("| | p50 | p90 | p99 | max |\n| --- | ---: | ---: | ---: | ---: |");
    line("latency", r.latency);
    line("first text", r.first_text);
    line("gap", r.gap);
    line("transit", r.transit);
    return r.errors == 0 ? 0 : 1;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 2;
  }
}
