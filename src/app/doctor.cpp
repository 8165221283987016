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

Finding check_model(const Config& config, const Memory& memory, const std::vector<engine::Device>& devices) {
  const std::string& path = config.text("model.path");
  const auto model = path == catalog::embedded_path ? catalog::parse_model(catalog::default_model(), path) : catalog::read_model(path);
  if (!model) return {"model", State::bad, model.error().message, "set model.path (--model PATH) to a whole GGUF file"};
  const std::string& kv_type = config.text("model.kv_type");
  const std::int64_t configured = config.integer("model.context");
  const std::int64_t context = configured > 0 ? configured : catalog::default_context(*model);
  const auto need = catalog::estimate_memory(*model, context, kv_type);
  Finding out{"model",
              State::ok,
              fmt::format("{} ({}, {}): about {} with a context of {} and {} KV", path, catalog::printable(model->architecture),
                          model->quantisation, show_bytes(need.total()), context, kv_type),
              {}};
  std::uint64_t gpu_free = 0;
  for (const auto& device : devices) {
    if (device.gpu) gpu_free += static_cast<std::uint64_t>(device.memory_free);
  }
  const std::uint64_t have = std::max(memory.available, config.integer("model.gpu_layers") == 0 ? 0 : gpu_free);
  if (have == 0) return out;
  out.detail += fmt::format("; {} available", show_bytes(have));
  const bool beyond_training = model->context > 0 && context > model->context;
  if (need.total() <= have) {
    if (beyond_training) {
      out.state = State::warn;
      out.change = fmt::format("the model was trained for {} tokens, answers degrade beyond: --context {}", model->context, model->context);
    }
    return out;
  }
  out.state = State::bad;
  // The largest context that fits, in steps people use.
  for (std::int64_t smaller = beyond_training ? model->context : context / 2; smaller >= 2048; smaller /= 2) {
    for (const std::string_view type : {std::string_view(kv_type), std::string_view("q8_0")}) {
      if (catalog::estimate_memory(*model, smaller, type).total() > have) continue;
      out.change = fmt::format("does not fit: --context {}{} would", smaller, type == kv_type ? "" : " --kv-type q8_0");
      return out;
    }
  }
  out.change = "does not fit with any useful context: take a smaller model or a smaller quantisation";
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
    findings.push_back(check_model(*config, memory, devices));
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
