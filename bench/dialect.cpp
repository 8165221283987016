// What it costs to read one tool call out of a model's text, per dialect and size of the pieces it comes in; and what text without a call costs.
#include "wire/dialect.h"

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <stdexcept>

#include "process.h"
#include "report.h"

namespace {

using namespace hearth;
using bench::Measurement;

constexpr double goal_us = 20;

std::vector<chat::ToolSpec> tools() {
  return {{.name = "read_file", .description = {}, .parameters = R"({"type":"object","properties":{"path":{"type":"string"}}})"},
          {.name = "run_command",
           .description = {},
           .parameters = R"({"type":"object","properties":{"command":{"type":"string"},"timeout":{"type":"integer"},"background":)"
                         R"({"type":"boolean"}},"required":["command"]})"}};
}

struct Case {
  const char* name;
  wire::Dialect dialect;
};
constexpr Case cases[] = {{"hermes", wire::Dialect::hermes},     {"qwen_xml", wire::Dialect::qwen_xml},
                          {"llama3", wire::Dialect::llama3},     {"mistral", wire::Dialect::mistral},
                          {"deepseek", wire::Dialect::deepseek}, {"functionary", wire::Dialect::functionary},
                          {"fenced", wire::Dialect::fenced},     {"automatic", wire::Dialect::automatic}};

// An answer with one call, as the dialect writes it. Its arguments are about what an agent's shell command takes.
std::string answer_in(wire::Dialect dialect) {
  chat::Request request;
  request.messages.resize(1);
  request.messages[0].role = chat::Role::assistant;
  request.messages[0].tool_calls.push_back(
      {.id = "call_0123456789",
       .name = "run_command",
       .arguments = R"({"command": "grep -rn \"TODO\" src | head -n 20 && wc -l src/*.cpp", "timeout": 30, "background": false})"});
  write_as_text(request, dialect);
  return request.messages[0].text();
}

int translate(wire::Dialect dialect, const std::vector<chat::ToolSpec>& known, std::string_view text, std::size_t step,
              chat::Events& events) {
  wire::DialectParser parser(dialect, known, 0);
  int calls = 0;
  const auto count = [&] {  // and let go, as a stream does
    for (const auto& event : events) calls += std::holds_alternative<chat::ToolCallEnd>(event) ? 1 : 0;
    events.clear();
  };
  for (std::size_t at = 0; at < text.size(); at += step) {
    parser.feed(text.substr(at, step), events);
    count();
  }
  parser.finish(chat::FinishReason::stop, events);
  count();
  return calls;
}

// The median over single runs, in microseconds: a mean would hide what a scheduler's interruption adds.
double median_of(int runs, wire::Dialect dialect, std::string_view text, std::size_t step, int expected) {
  using Clock = std::chrono::steady_clock;
  const auto known = tools();
  chat::Events events;
  std::vector<double> times;
  times.reserve(static_cast<std::size_t>(runs));
  for (int i = 0; i < runs; ++i) {
    const auto begin = Clock::now();
    const int calls = translate(dialect, known, text, step, events);
    times.push_back(std::chrono::duration<double, std::micro>(Clock::now() - begin).count());
    if (calls != expected) throw std::runtime_error("the parser lost a call");
  }
  return bench::median(std::move(times));
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Times the translation of tool calls that models write as text."};
  int rounds = 9;
  int runs = 5000;
  bool quick = false;
  std::string json_file, document;
  app.add_option("--rounds", rounds, "Rounds of each measurement")->capture_default_str();
  app.add_option("--runs", runs, "Calls translated in a round")->capture_default_str();
  app.add_flag("--quick", quick, "Three short rounds");
  app.add_option("--json", json_file, "Write every round's values here");
  app.add_option("--write", document, "Replace the results in this document");
  CLI11_PARSE(app, argc, argv);
  if (quick) {
    rounds = 3;
    runs = 500;
  }
  try {
    bench::Report report;
    report.title = "Dialects";
    report.command = std::string("bench/run micro") + (quick ? " --quick" : "");
    report.machine = bench::machine_line();
    double slowest = 0;
    const auto measure = [&](const std::string& name, wire::Dialect dialect, const std::string& text, int calls) {
      Measurement m;
      m.name = name;
      m.unit = "µs";
      m.decimals = 2;
      const std::pair<const char*, std::size_t> steps[] = {{"by 1 byte", 1}, {"by 4 bytes", 4}, {"whole", text.size()}};
      for (int round = 0; round < rounds; ++round) {
        for (const auto& [target, step] : steps) m.add(target, median_of(runs, dialect, text, step, calls));
      }
      if (calls > 0) {
        for (const auto& [target, values] : m.rounds) slowest = std::max(slowest, bench::median(values));
      }
      report.measurements.push_back(std::move(m));
    };
    std::size_t shortest = ~std::size_t{0}, longest = 0;
    for (const auto& [name, dialect] : cases) {
      const std::string text = answer_in(dialect);
      shortest = std::min(shortest, text.size());
      longest = std::max(longest, text.size());
      measure(std::string("one call, ") + name, dialect, text, 1);
    }
    std::string prose;
    while (prose.size() < 200) prose += "Plain words of an answer that calls nothing, ";
    measure("text of " + std::to_string(prose.size()) + " bytes, automatic", wire::Dialect::automatic, prose, 0);

    char worst[64];
    std::snprintf(worst, sizeof worst, "%.2f µs, goal < %.0f µs: %s", slowest, goal_us, slowest < goal_us ? "met" : "**not met**");
    report.notes = {"One answer of one call (" + std::to_string(shortest) + " to " + std::to_string(longest) +
                        " bytes with its markers), from a new parser to Finished, events and call id included.",
                    std::to_string(rounds) + " rounds of " + std::to_string(runs) +
                        " answers each; a round's value is the median of its answers; median (min–max).",
                    std::string("Slowest cell with a call: ") + worst + "."};
    bench::publish(report, json_file, document, "dialects");
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench_dialect: %s\n", error.what());
    return 1;
  }
}
