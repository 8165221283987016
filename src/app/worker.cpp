#include "fleet/worker.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>

#include "app/commands.h"
#include "app/machine.h"
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
};

int worker(const WorkerFlags& flags) {
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
  engine.scheduler.max_running = static_cast<int>(config->integer("scheduler.parallel"));
  engine.scheduler.queue_limit = static_cast<int>(config->integer("scheduler.queue_limit"));
  engine.scheduler.prefix_cache_bytes = prefix_cache_bytes(config->integer("scheduler.prefix_cache"));
  engine.scheduler.park_bytes = config->integer("scheduler.park");
  return fleet::run_worker(std::move(options));
}

}  // namespace

void add_worker(CLI::App& program, int& exit_code) {
  auto* command = program.add_subcommand("worker", "Host one model on a Unix socket (started by `hearth serve`)");
  auto flags = std::make_shared<WorkerFlags>();
  command->add_option("--socket", flags->socket, "Unix socket to serve on")->required()->type_name("PATH");
  add_setting_flags(*command, flags->settings, true);
  command->footer(
      "Example:\n"
      "  hearth worker --socket /run/user/1000/hearth.sock --model qwen3-8b.gguf\n\n"
      "It reads neither the configuration file nor HEARTH_… variables: `hearth serve` passes what it needs as flags.");
  command->callback([flags, &exit_code] { exit_code = worker(*flags); });
}

}  // namespace hearth::app
