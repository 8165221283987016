#include <spdlog/fmt/fmt.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <sstream>
#include <vector>

#include "app/commands.h"
#include "app/machine.h"
#include "app/models_config.h"
#include "base/json.h"
#include "base/log.h"
#include "catalog/default_model.h"
#include "catalog/model.h"
#include "engine/engine.h"

namespace hearth::app {
namespace {

struct DoctorFlags {
  std::map<std::string, std::string> settings;
  std::string config_file;
  bool json = false;
};

struct Finding {
  enum class State { ok, warn, bad };
  std::string name;
  State state = State::ok;
  std::string detail;
  std::string change;  // what to do about it
};
using State = Finding::State;

std::string_view name_of(State state) { return state == State::ok ? "ok" : state == State::warn ? "warn" : "bad"; }

Finding check_cpu() {
  const Processors cpu = read_processors();
  // "CPU : SSE3 = 1 | AVX2 = 1 | …": what is there, by name.
  std::string features;
  for (std::istringstream words(engine::cpu_features()); words;) {
    if (std::string word; words >> word && word != "CPU" && word != ":" && word != "=" && word != "1" && word != "|")
      features += (features.empty() ? "" : " ") + word;
  }
  Finding out{.name = "cpu",
              .state = State::ok,
              .detail = fmt::format("{}; {} threads on {} cores; {}", cpu.model.empty() ? "unknown" : cpu.model, cpu.online,
                                    cpu.physical > 0 ? std::to_string(cpu.physical) : "?", features),
              .change = {}};
  if (cpu.quota > 0) out.detail += fmt::format("; control group grants {:.1f} CPUs", cpu.quota);
  if (cpu.quota > 0 && cpu.physical > 0 && cpu.quota < cpu.physical) {
    out.state = State::warn;
    out.change = fmt::format("more threads than granted CPUs stall each other: use --threads {}", std::max(1, static_cast<int>(cpu.quota)));
  } else if (features.find("AVX2") == std::string::npos && features.find("NEON") == std::string::npos) {
    out.state = State::warn;
    out.change = "without AVX2 prefill is slow: prefer small models";
  }
  return out;
}

std::vector<Finding> check_gpus(const std::vector<engine::Device>& devices) {
  std::vector<Finding> out;
  for (const auto& device : devices) {
    if (!device.gpu) continue;
    out.push_back(
        {"gpu",
         State::ok,
         fmt::format("{}: {}, {} of {} free", device.name, device.description, show_bytes(static_cast<std::uint64_t>(device.memory_free)),
                     show_bytes(static_cast<std::uint64_t>(device.memory_total))),
         {}});
  }
  if (!out.empty()) return out;
  std::error_code ec;
  if (std::filesystem::exists("/proc/driver/nvidia/version", ec)) {
    return {{"gpu", State::warn, "an NVIDIA driver is loaded, but this build does not use GPUs",
             "build with: cmake --preset release -DHEARTH_CUDA=ON"}};
  }
  return {{"gpu", State::ok, "none; models run on the CPU", {}}};
}

Finding check_memory(const Memory& memory) {
  Finding out{"memory", State::ok, fmt::format("{} available of {}", show_bytes(memory.available), show_bytes(memory.total)), {}};
  if (memory.limit > 0) out.detail += fmt::format("; the control group allows {}", show_bytes(memory.limit));
  if (memory.total == 0) return {"memory", State::warn, "unknown: /proc/meminfo cannot be read", {}};
  if (memory.available < (std::uint64_t{512} << 20)) {
    out.state = State::warn;
    out.change = "less than 512 MiB: close other programs or raise the container's memory limit";
  }
  return out;
}

// Bytes a model may take: on one GPU, where it may go there, or in host memory.
std::uint64_t room_for(const fleet::ModelSpec& spec, const Memory& memory, const std::vector<engine::Device>& devices) {
  std::uint64_t out = memory.available;
  for (const auto& device : devices) {
    if (device.gpu && spec.gpu_layers != 0) out = std::max(out, static_cast<std::uint64_t>(device.memory_free));
  }
  return out;
}

// The largest context that fits, in steps people use.
std::string smaller_context(const fleet::ModelSpec& spec, std::uint64_t have) {
  const auto model =
      spec.files.empty() ? catalog::parse_model(catalog::default_model(), catalog::embedded_path) : catalog::read_model(spec.files.front());
  if (!model) return model.error().message;
  const auto of_one = catalog::kv_bytes_per_token(*model, "f16");
  const std::int64_t context = of_one == 0 ? 0 : static_cast<std::int64_t>(spec.need.kv / of_one);
  const bool beyond_training = model->context > 0 && context > model->context;
  for (std::int64_t smaller = beyond_training ? model->context : context / 2; smaller >= 2048; smaller /= 2) {
    for (const std::string_view type : {"f16", "q8_0"}) {
      if (catalog::estimate_memory(*model, smaller, type).total() > have) continue;
      return fmt::format("does not fit: --context {}{} would", smaller, type == "f16" ? "" : " --kv-type q8_0");
    }
  }
  return "does not fit with any useful context: take a smaller model or a smaller quantisation";
}

Finding check_model(const fleet::ModelSpec& spec, const Memory& memory, const std::vector<engine::Device>& devices) {
  if (spec.kind == fleet::ModelKind::openai || spec.kind == fleet::ModelKind::anthropic) {
    std::string where;
    for (const auto& remote : spec.remotes) where += (where.empty() ? "" : ", ") + net::to_string(remote.endpoint) + remote.base_path;
    return {"model", State::ok, fmt::format("{}: served by {} (not asked)", spec.id, where), {}};
  }
  if (spec.need.total() == 0)
    return {"model", State::warn, fmt::format("{}: its memory is not known, so it counts as none", spec.id),
            "set memory or path in its table"};
  std::string what =
      spec.info.architecture.empty() ? "" : fmt::format(" ({}, {})", catalog::printable(spec.info.architecture), spec.info.quantisation);
  Finding out{"model",
              State::ok,
              fmt::format("{}{}: about {} with a context of {}", spec.id, what, show_bytes(spec.need.total()), spec.info.context),
              {}};
  const std::uint64_t have = room_for(spec, memory, devices);
  if (have == 0) return out;
  out.detail += fmt::format("; {} available", show_bytes(have));
  if (spec.need.total() <= have) return out;
  out.state = State::bad;
  out.change = spec.kind == fleet::ModelKind::command ? "does not fit: take a smaller model, or less context in its command"
                                                      : smaller_context(spec, have);
  return out;
}

// Which models fit side by side in host memory, and which would take turns.
std::vector<Finding> check_together(const FleetPlan& plan, const Memory& memory) {
  const auto budget = plan.options.memory >= 0 ? static_cast<std::uint64_t>(plan.options.memory) : memory.available;
  std::vector<const fleet::ModelSpec*> local;
  for (const auto& spec : plan.options.models) {
    if (spec.kind == fleet::ModelKind::worker || spec.kind == fleet::ModelKind::command) local.push_back(&spec);
  }
  if (local.size() < 2 || budget == 0) return {};
  std::uint64_t pinned = 0, used = 0;
  std::string together, turns;
  for (const bool first : {true, false}) {  // the pinned ones, then the others
    for (const auto* spec : local) {
      if (spec->pinned != first) continue;
      if (first) pinned += spec->need.total();
      auto& list = used + spec->need.total() <= budget ? together : turns;
      if (&list == &together) used += spec->need.total();
      list += (list.empty() ? "" : ", ") + spec->id;
    }
  }
  if (pinned > budget) {
    return {{"fleet", State::bad,
             fmt::format("the pinned models take about {}, and {} are available", show_bytes(pinned), show_bytes(budget)),
             "pin fewer models, or smaller ones"}};
  }
  if (turns.empty())
    return {{"fleet", State::ok, fmt::format("all models fit side by side: about {} of {}", show_bytes(used), show_bytes(budget)), {}}};
  return {{"fleet",
           State::ok,
           fmt::format("on the CPU {} fit side by side in {}; {} would take turns with them", together.empty() ? "none" : together,
                       show_bytes(budget), turns),
           {}}};
}

std::vector<Finding> check_models(const Config& config, const Memory& memory, const std::vector<engine::Device>& devices) {
  const auto plan = plan_fleet(config, {.program = "hearth", .available = memory.available, .engine_models = {}});
  if (!plan) return {{"model", State::bad, plan.error().message, "correct the path, or the table it stands in"}};
  std::vector<Finding> out;
  for (const auto& spec : plan->options.models) out.push_back(check_model(spec, memory, devices));
  for (auto& finding : check_together(*plan, memory)) out.push_back(std::move(finding));
  for (const auto& warning : plan->warnings) {
    // What does not fit was said above.
    if (warning.find("needs about") == std::string::npos) out.push_back({"models", State::warn, warning, {}});
  }
  return out;
}

Finding check_port(const Config& config) {
  const auto port = static_cast<std::uint16_t>(config.integer("listen.port"));
  const std::string& host = config.text("listen.host");
  const int reason = listen_problem(host, port);
  if (reason == 0) return {"port", State::ok, fmt::format("{}:{} is free", host, port), {}};
  if (reason == EADDRINUSE) {
    return {"port", State::bad, fmt::format("{}:{} is in use", host, port),
            fmt::format("if that is hearth itself, all is well; else use another (--port {}) or see who has it: ss -ltnp 'sport = :{}'",
                        port + 1, port)};
  }
  return {"port", State::bad, fmt::format("{}:{} cannot be used: {}", host, port, std::strerror(reason)),
          "set listen.host and listen.port (--host, --port)"};
}

int doctor(const DoctorFlags& flags) {
  if (auto done = init_logging("hearth", "error"); !done) return fail(done.error());
  engine::route_engine_logs();
  std::vector<Finding> findings;
  const std::string file = flags.config_file.empty() ? find_config_file(process_environment) : flags.config_file;
  const auto config = load_config({.file = flags.config_file, .environment = process_environment, .flags = flags.settings});
  if (config.ok()) {
    findings.push_back(
        {"config", State::ok, file.empty() || file == "none" ? "no file: defaults, HEARTH_… variables and flags" : file, {}});
  } else {
    findings.push_back({"config", State::bad, config.error().message, "correct it; docs/configuration.md lists every setting"});
  }
  const auto devices = engine::devices();
  const Memory memory = read_memory();
  findings.push_back(check_cpu());
  for (auto& finding : check_gpus(devices)) findings.push_back(std::move(finding));
  findings.push_back(check_memory(memory));
  if (config.ok()) {
    for (auto& finding : check_models(*config, memory, devices)) findings.push_back(std::move(finding));
    findings.push_back(check_port(*config));
  }
  const bool broken = std::any_of(findings.begin(), findings.end(), [](const Finding& f) { return f.state == State::bad; });
  if (flags.json) {
    json::array out;
    for (const auto& f : findings)
      out.push_back({{"name", f.name}, {"state", name_of(f.state)}, {"detail", f.detail}, {"change", f.change}});
    std::puts(json::serialize(json::object{{"ok", !broken}, {"findings", out}}).c_str());
  } else {
    for (const auto& f : findings) {
      fmt::print("{:<5} {:<7} {}\n", name_of(f.state), f.name, f.detail);
      if (!f.change.empty()) fmt::print("{:<13} → {}\n", "", f.change);
    }
    fmt::print("\n{}\n", broken ? "Something is broken: see the lines marked bad." : "This machine is ready for `hearth serve`.");
  }
  return broken ? exit_failed : exit_ok;
}

}  // namespace

void add_doctor(CLI::App& program, int& exit_code) {
  auto* command = program.add_subcommand("doctor", "Check this machine: CPU, GPUs, memory, model fit, port, configuration");
  auto flags = std::make_shared<DoctorFlags>();
  command->add_option("--config", flags->config_file, "Configuration file; \"none\" reads none")->type_name("FILE");
  command->add_flag("--json", flags->json, "Print JSON");
  add_setting_flags(*command, flags->settings, false);
  command->footer(
      "Examples:\n"
      "  hearth doctor\n"
      "  hearth doctor --model qwen3-8b.gguf --context 32768\n\n"
      "Takes the settings of `hearth serve`, and says what to change. Exit code 1 when something is broken.");
  command->callback([flags, &exit_code] { exit_code = doctor(*flags); });
}

}  // namespace hearth::app
