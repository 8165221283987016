#include <spdlog/fmt/fmt.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>

#include "app/commands.h"
#include "app/machine.h"
#include "app/models_config.h"
#include "app/url.h"
#include "base/log.h"
#include "catalog/default_model.h"
#include "catalog/model.h"
#include "gateway/gateway.h"

namespace hearth::app {
namespace {

struct ServeFlags {
  std::map<std::string, std::string> settings;
  std::string config_file;
  bool print_config = false;
};

// The folder hearth may write to, made if need be.
Result<std::filesystem::path> prepare_state_folder(const std::string& configured) {
  std::filesystem::path folder = configured;
  const auto variable = [](const char* name) {
    const char* value = process_environment(name);
    return std::string(value != nullptr ? value : "");
  };
  if (folder.empty()) folder = variable("STATE_DIRECTORY");  // systemd
  if (folder.empty() && !variable("XDG_STATE_HOME").empty()) folder = variable("XDG_STATE_HOME") + "/hearth";
  if (folder.empty() && !variable("HOME").empty()) folder = variable("HOME") + "/.local/state/hearth";
  if (folder.empty()) folder = std::filesystem::temp_directory_path() / fmt::format("hearth-{}", getuid());
  const auto failed = [&](std::string_view reason) {
    return Error{
        ErrorCode::io,
        fmt::format("the state folder {} cannot be written to: {}. Give another with --state-folder PATH, or change its owner or mode",
                    folder.string(), reason),
        "state.folder"};
  };
  std::error_code ec;
  std::filesystem::create_directories(folder, ec);
  if (ec) return failed(ec.message());
  // Not access(2): that says nothing of full or read-only file systems.
  const auto probe = folder / fmt::format(".probe-{}", getpid());
  errno = 0;
  std::ofstream file(probe);
  file << "x" << std::flush;
  const int reason = errno;
  const bool written = file.good();
  file.close();
  std::filesystem::remove(probe, ec);
  if (!written) return failed(std::strerror(reason));
  return folder;
}

Result<std::vector<gateway::ApiKey>> api_keys(const Config& config) {
  std::vector<gateway::ApiKey> out;
  for (const auto& [name, key] : config.keys("auth.keys")) out.push_back({name, key});
  if (const auto& key = config.text("auth.api_key"); !key.empty()) out.push_back({"default", key});
  if (const auto& path = config.text("auth.api_key_file"); !path.empty()) {
    std::ifstream file(path);
    std::string key;
    if (!(file >> key))
      return Error{ErrorCode::config_invalid, fmt::format("auth.api_key_file: {} cannot be read or holds no key", path), {}};
    if (!config.text("auth.api_key").empty()) {
      return Error{ErrorCode::config_invalid, "auth.api_key and auth.api_key_file are both set; keep one of them", {}};
    }
    out.push_back({"default", key});
  }
  return out;
}

// The worker is configured by its flags alone.
std::vector<std::string> worker_command(const Config& config, const std::string& model_id) {
  std::error_code ec;
  std::vector<std::string> command{std::filesystem::read_symlink("/proc/self/exe", ec).string(), "worker"};
  for (const auto& setting : settings()) {
    if (!setting.worker) continue;
    const std::string value = setting.key == "model.id" ? model_id : config.as_flag(setting);
    // One argument, so that a value that begins with a dash stays a value.
    command.push_back(fmt::format("--{}={}", setting.flag, value));
  }
  return command;
}

Result<gateway::GatewayOptions> gateway_options(const Config& config, const std::string& model_id) {
  gateway::GatewayOptions out;
  out.listen.host = config.text("listen.host");
  out.listen.port = static_cast<unsigned short>(config.integer("listen.port"));
  auto keys = api_keys(config);
  if (!keys) return std::move(keys).error();
  out.api_keys = std::move(*keys);
  if (!config.text("tls.certificate").empty() || !config.text("tls.key").empty()) {
    out.tls = net::TlsFiles{config.text("tls.certificate"), config.text("tls.key")};
  }
  out.limits.header_bytes = static_cast<std::size_t>(config.integer("limits.header"));
  out.limits.body_bytes = static_cast<std::size_t>(config.integer("limits.body"));
  out.limits.connections = static_cast<std::size_t>(config.integer("limits.connections"));
  out.limits.header_timeout = config.duration("limits.header_timeout");
  out.limits.body_timeout = config.duration("limits.body_timeout");
  out.limits.idle_timeout = config.duration("limits.idle_timeout");
  out.limits.write_timeout = config.duration("limits.write_timeout");
  out.allowed_hosts = config.list("listen.allowed_hosts");
  out.cors_origins = config.list("cors.origins");
  out.model_aliases = config.list("model.aliases");
  out.start_wait = config.duration("timeouts.start");
  out.drain_grace = config.duration("timeouts.drain");
  out.keep_alive = config.duration("timeouts.keep_alive");
  out.worker.command = worker_command(config, model_id);
  out.worker.hang_limit = config.duration("timeouts.hang");
  out.worker.stop_grace = config.duration("timeouts.drain");
  if (config.integer("timeouts.first_token") > 0) out.upstream.first_event = config.duration("timeouts.first_token");
  out.upstream.next_event = config.duration("timeouts.between_tokens");
  if (const auto& address = config.text("engine.url"); !address.empty()) {
    auto url = parse_url(address);
    if (!url) return Error{ErrorCode::config_invalid, "engine.url: " + url.error().message, "engine.url"};
    out.engine = std::move(url->endpoint);
    out.upstream.name = address;
    out.upstream.api_key = config.text("engine.api_key");
  }
  return out;
}

// Refuses a broken model before anything starts; warns of one that will not fit.
Result<void> check_model(const Config& config) {
  const std::string& path = config.text("model.path");
  if (path == catalog::embedded_path) return {};
  const auto model = catalog::read_model(path);
  if (!model) return Error{model.error().code, "the model cannot be served: " + model.error().message, "model.path"};
  const std::int64_t configured = config.integer("model.context");
  const std::int64_t context = configured > 0 ? configured : catalog::default_context(*model);
  const auto need = catalog::estimate_memory(*model, context, config.text("model.kv_type")).total();
  const auto have = read_memory().available;
  if (have > 0 && need > have) {
    spdlog::warn("{} needs about {} with a context of {}, and {} are available. `hearth doctor --model {}` shows what to change.", path,
                 show_bytes(need), context, show_bytes(have), path);
  }
  return {};
}

void print_banner(const Config& config, const std::string& model_id, unsigned short port) {
  const std::string& host = config.text("listen.host");
  const bool any = host == "0.0.0.0" || host == "::";
  const std::string url =
      fmt::format("{}://{}", config.text("tls.certificate").empty() ? "http" : "https", host_and_port(any ? "127.0.0.1" : host, port));
  const bool keyed = !config.keys("auth.keys").empty() || !config.text("auth.api_key").empty() || !config.text("auth.api_key_file").empty();
  const bool foreign = !config.text("engine.url").empty();
  fmt::print("hearth {} listens on {}\n", HEARTH_VERSION, url);
  if (foreign) {
    fmt::print("  engine  {}\n", config.text("engine.url"));
  } else {
    fmt::print("  model   {}\n", model_id);
    if (config.text("model.path") == catalog::embedded_path) {
      fmt::print(
          "          This is the built-in demonstration model: it turns plain English into shell commands, plausible and often wrong.\n"
          "          Serve a real one with: hearth serve --model PATH.gguf\n");
    }
  }
  fmt::print("  try     curl -N {}/v1/chat/completions -H 'Content-Type: application/json' {}\\\n", url,
             keyed ? "-H \"Authorization: Bearer $HEARTH_API_KEY\" " : "");
  fmt::print(
      "            -d '{{\"model\": \"{}\", \"stream\": true, \"messages\": [{{\"role\": \"user\", \"content\": \"list files by "
      "size\"}}]}}'\n",
      foreign ? "default" : model_id);
  fmt::print("  or      hearth chat --url {}\n", url);
  std::fflush(stdout);
}

int serve(const ServeFlags& flags) {
  auto config = load_config({.file = flags.config_file, .environment = process_environment, .flags = flags.settings});
  if (!config) return fail(config.error());
  if (flags.print_config) {
    std::fputs(config->print().c_str(), stdout);
    return exit_ok;
  }
  if (auto done = init_logging("hearth", config->text("log.level")); !done) return fail(done.error());
  const bool own_engine = config->text("engine.url").empty();
  if (own_engine) {
    if (auto done = check_model(*config); !done) return fail(done.error());
  }
  if (auto folder = prepare_state_folder(config->text("state.folder")); !folder) return fail(folder.error());
  const std::string model_id = config->text("model.id").empty() ? default_model_name(config->text("model.path")) : config->text("model.id");
  auto options = gateway_options(*config, model_id);
  if (!options) return fail(options.error());
  if (auto done = gateway::check_options(*options); !done) {
    Error error = done.error();
    auto with_key = *options;
    with_key.api_keys.push_back({"hint", std::string(32, 'x')});
    if (options->api_keys.empty() && gateway::check_options(with_key).ok()) {
      error.message +=
          fmt::format(".\nSet one with: HEARTH_API_KEY=$(openssl rand -hex 24) hearth serve --host {}", config->text("listen.host"));
    }
    return fail(error);
  }

  gateway::GatewayEvents events;
  events.listening = [&](unsigned short port) { print_banner(*config, model_id, port); };
  events.model_ready = [](const chat::ModelInfo& model) { spdlog::info("{} is ready, {} tokens of context", model.id, model.context); };
  events.model_failed = [](const Error& error) { spdlog::error("the model cannot be served: {}", error.message); };
  if (auto done = gateway::run_gateway(std::move(*options), std::move(events)); !done) {
    Error error = done.error();
    const auto port = static_cast<std::uint16_t>(config->integer("listen.port"));
    if (listen_problem(config->text("listen.host"), port) == EADDRINUSE)
      error.message += fmt::format(".\nAnother port: hearth serve --port {}", port + 1);
    return fail(error);
  }
  return exit_ok;
}

}  // namespace

void add_serve(CLI::App& program, int& exit_code) {
  auto* command = program.add_subcommand("serve", "Serve a model over the OpenAI API until stopped");
  auto flags = std::make_shared<ServeFlags>();
  command
      ->add_option("--config", flags->config_file,
                   "Configuration file; \"none\" reads none [the first of ~/.config/hearth/hearth.toml, /etc/hearth/hearth.toml]")
      ->type_name("FILE");
  command->add_flag("--print-config", flags->print_config, "Print the effective configuration with where each value comes from, and exit");
  add_setting_flags(*command, flags->settings, false);
  command->footer(
      "Examples:\n"
      "  hearth serve\n"
      "  hearth serve --model ~/models/qwen3-8b-q4_k_m.gguf --context 16384 --port 9000\n"
      "  HEARTH_API_KEY=$(openssl rand -hex 24) hearth serve --host 0.0.0.0\n"
      "  hearth serve --print-config\n\n"
      "A flag goes before its HEARTH_… variable (--max-body: HEARTH_MAX_BODY), that before the file, that before the default.");
  command->callback([flags, &exit_code] { exit_code = serve(*flags); });
}

}  // namespace hearth::app
