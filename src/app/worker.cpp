#include "fleet/worker.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>

#include "app/commands.h"
#include "app/machine.h"
#include "app/models_config.h"
#include "base/json.h"
#include "base/log.h"
#include "catalog/default_model.h"

namespace hearth::app {
namespace {

// -1 stands for auto.
std::int64_t prefix_cache_bytes(std::int64_t set) {
  constexpr std::int64_t most = std::int64_t{4} << 30;
  return set >= 0 ? set : std::min(most, static_cast<std::int64_t>(read_memory().available / 8));
}

struct WorkerFlags {
  std::map<std::string, std::string> settings;
  std::string socket;
  bool list_devices = false;
};

engine::Speculation speculation(const Config& config) {
  using Mode = engine::Speculation::Mode;
  static const std::map<std::string_view, Mode> modes{
      {"off", Mode::off}, {"auto", Mode::automatic}, {"lookup", Mode::lookup}, {"draft", Mode::draft}, {"mtp", Mode::mtp}};
  engine::Speculation out;
  out.mode = modes.at(config.text("model.speculation"));
  out.draft_model = config.text("model.draft_model");
  out.max_draft = static_cast<int>(config.integer("model.draft_max"));
  return out;
}

// For the gateway, which has no llama.cpp: what models could be placed on, and how much of it is free.
int list_devices() {
  json::array out;
  for (const auto& device : engine::devices()) {
    out.push_back({{"name", device.name},
                   {"description", device.description},
                   {"gpu", device.gpu},
                   {"memory_total", device.memory_total},
                   {"memory_free", device.memory_free}});
  }
  std::puts(json::serialize(out).c_str());
  return exit_ok;
}

int worker(const WorkerFlags& flags) {
  if (flags.list_devices) return list_devices();
  const auto config = load_config({.file = "none", .environment = {}, .flags = flags.settings});
  if (!config) return fail(config.error());
  if (auto done = init_logging("worker", config->text("log.level")); !done) return fail(done.error());
  fleet::WorkerOptions options;
  options.socket = flags.socket;
  options.drain_grace = config->duration("timeouts.drain");
  auto& engine = options.engine;
  engine.model_path = config->text("model.path");
  engine.embedded_model = catalog::default_model();
  engine.model_id = config->text("model.id").empty() ? default_model_name(engine.model_path) : config->text("model.id");
  engine.context = static_cast<int>(config->integer("model.context"));
  engine.threads = static_cast<int>(config->integer("model.threads"));
  engine.gpu_layers = static_cast<int>(config->integer("model.gpu_layers"));
  engine.kv_type = config->text("model.kv_type");
  for (const auto& [name, path] : config->keys("model.adapters")) engine.adapters.push_back({.name = name, .path = path});
  engine.adapter_folder = config->text("model.adapter_folder");
  engine.adapter_bytes = config->integer("model.adapter_bytes");
  engine.projector_path = config->text("model.mmproj");
  engine.projector_idle = std::chrono::milliseconds(std::max<std::int64_t>(config->integer("model.mmproj_idle"), 0));
  engine.speculation = speculation(*config);
  engine.scheduler.max_running = static_cast<int>(config->integer("scheduler.parallel"));
  engine.scheduler.queue_limit = static_cast<int>(config->integer("scheduler.queue_limit"));
  engine.scheduler.prefix_cache_bytes = prefix_cache_bytes(config->integer("scheduler.prefix_cache"));
  engine.scheduler.park_bytes = config->integer("scheduler.park");
  engine.park_disk_bytes = config->integer("scheduler.park_disk");
  engine.park_folder = find_state_folder(config->text("state.folder")) / "parked";
  return fleet::run_worker(std::move(options));
}

}  // namespace

void add_worker(CLI::App& program, int& exit_code) {
  auto* command = program.add_subcommand("worker", "Host one model on a Unix socket (started by `hearth serve`)");
  auto flags = std::make_shared<WorkerFlags>();
  auto* devices = command->add_flag("--list-devices", flags->list_devices, "Print as JSON what this build can compute on, and exit");
  auto* socket = command->add_option("--socket", flags->socket, "Unix socket to serve on")->type_name("PATH");
  add_setting_flags(*command, flags->settings, true);
  command->footer(
      "Example:\n"
      "  hearth worker --socket /run/user/1000/hearth.sock --model qwen3-8b.gguf\n\n"
      "It reads neither the configuration file nor HEARTH_… variables: `hearth serve` passes what it needs as flags.");
  command->callback([flags, socket, devices, &exit_code] {
    if (socket->empty() && devices->empty()) throw CLI::RequiredError("--socket");
    exit_code = worker(*flags);
  });
}

}  // namespace hearth::app
