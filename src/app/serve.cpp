#include <spdlog/fmt/fmt.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
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
#include "fleet/upstream.h"
#include "gateway/gateway.h"

namespace hearth::app {
namespace {

std::string own_program() {
  std::error_code ec;
  return std::filesystem::read_symlink("/proc/self/exe", ec).string();
}

struct ServeFlags {
  std::map<std::string, std::string> settings;
  std::string config_file;
  bool print_config = false;
};

std::string variable(const char* name) {
  const char* value = process_environment(name);
  return std::string(value != nullptr ? value : "");
}

// The folder hearth may write to, made if need be.
Result<std::filesystem::path> prepare_state_folder(const std::string& configured) {
  const std::filesystem::path folder = find_state_folder(configured);
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

Result<gateway::GatewayOptions> gateway_options(const Config& config, fleet::FleetOptions fleet) {
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
  out.drain_grace = config.duration("timeouts.drain");
  out.keep_alive = config.duration("timeouts.keep_alive");
  out.fleet = std::move(fleet);
  return out;
}

safety::ProtectionOptions safety_options(const Config& config, const std::string& folder) {
  const auto has = [&](std::string_view key, std::string_view word) {
    const auto& list = config.list(key);
    return std::find(list.begin(), list.end(), word) != list.end();
  };
  safety::ProtectionOptions out;
  const auto& mode = config.text("safety.mode");
  out.mode = mode == "off" ? safety::Mode::off : mode == "observe" ? safety::Mode::observe : safety::Mode::enforce;
  out.folder = out.judge.state_folder = folder;
  out.judge.policy_file = config.text("safety.policy");
  out.judge.guard = has("safety.learned", "guard");
  out.judge.trajectory = has("safety.learned", "trajectory");
  out.judge.argus.markings = has("safety.detect", "markings");
  out.judge.argus.secrets = has("safety.detect", "secrets");
  out.judge.argus.personal = has("safety.detect", "personal");
  out.judge.argus.documents = has("safety.detect", "documents");
  out.judge.protected_documents = config.list("safety.protected_documents");
  auto& where = out.judge.where;
  where.working_folder = config.text("safety.working_folder");
  while (where.working_folder.size() > 1 && where.working_folder.ends_with('/')) where.working_folder.pop_back();
  if (const auto home = variable("HOME"); home.starts_with('/') && home.size() > 1) where.home = home;
  if (const auto user = variable("USER"); !user.empty()) where.user = user;
  where.writable_roots = config.list("safety.writable");
  where.protected_paths = config.list("safety.protected");
  where.trusted_hosts = config.list("safety.trusted_hosts");
  out.ask = config.text("safety.approval") == "hold";
  out.patience = config.duration("safety.approval_timeout");
  out.approvers = config.list("safety.approvers");
  out.judge_limit = config.duration("safety.judge_timeout");
  out.limits.call_bytes = static_cast<std::size_t>(config.integer("safety.call_bytes"));
  out.limits.choice_bytes = std::max(out.limits.choice_bytes, 2 * out.limits.call_bytes);
  const auto& text = config.text("safety.text");
  for (const auto check : {safety::TextCheck::audit, safety::TextCheck::redact, safety::TextCheck::deny}) {
    if (text == safety::name(check)) out.text = check;
  }
  const auto& kept = config.text("safety.audit_arguments");
  out.arguments = kept == "none"   ? safety::KeptArguments::none
                  : kept == "full" ? safety::KeptArguments::full
                                   : safety::KeptArguments::masked;
  return out;
}

// Asked before each load, on a thread that may wait.
fleet::MemoryState memory_state() {
  const Memory memory = read_memory();
  fleet::MemoryState out;
  out.total = static_cast<std::int64_t>(memory.limit > 0 ? std::min(memory.limit, memory.total) : memory.total);
  out.available = static_cast<std::int64_t>(memory.available);
#ifdef HEARTH_GPU
  const auto gpus = read_gpus(own_program());
  if (!gpus) spdlog::warn("GPUs are not used: {}", gpus.error().message);
  for (const auto& gpu : gpus.ok() ? *gpus : std::vector<Gpu>())
    out.gpus.push_back({gpu.name, static_cast<std::int64_t>(gpu.total), static_cast<std::int64_t>(gpu.free)});
#endif
  return out;
}

net::Task<void> ask_models(std::shared_ptr<fleet::HttpUpstream> engine, std::vector<chat::ModelInfo>& out) {
  auto found = co_await engine->models();
  if (found.ok()) out = std::move(*found);
}

// What an engine that is there already serves. Empty when it does not answer: it may come later.
std::vector<chat::ModelInfo> ask_engine(const Config& config) {
  const auto url = parse_base_url(config.text("engine.url"));
  if (!url) return {};
  constexpr auto patience = std::chrono::seconds(3);
  std::vector<chat::ModelInfo> out;
  net::asio::io_context io(1);
  fleet::UpstreamOptions options;
  options.api_path = url->base_path + "/v1";
  options.api_key = config.text("engine.api_key");
  options.connect_timeout = options.first_event = patience;
  auto engine = std::make_shared<fleet::HttpUpstream>(io, url->endpoint, options);
  net::asio::co_spawn(io, ask_models(std::move(engine), out), net::asio::detached);
  io.run_for(patience);
  return out;
}

void print_banner(const Config& config, const std::vector<fleet::ModelSpec>& models, unsigned short port) {
  const std::string& host = config.text("listen.host");
  const bool any = host == "0.0.0.0" || host == "::";
  const std::string url =
      fmt::format("{}://{}", config.text("tls.certificate").empty() ? "http" : "https", host_and_port(any ? "127.0.0.1" : host, port));
  const bool keyed = !config.keys("auth.keys").empty() || !config.text("auth.api_key").empty() || !config.text("auth.api_key_file").empty();
  fmt::print("hearth {} listens on {}\n", HEARTH_VERSION, url);
  if (!config.text("engine.url").empty()) fmt::print("  engine  {}\n", config.text("engine.url"));
  constexpr std::size_t shown = 8;
  for (std::size_t i = 0; i < std::min(models.size(), shown); ++i) fmt::print("  {:<7} {}\n", i == 0 ? "model" : "", models[i].id);
  if (models.size() > shown) fmt::print("  {:<7} and {} more: hearth ps --url {}\n", "", models.size() - shown, url);
  if (models.front().id == catalog::default_model_id && models.front().files.empty()) {
    fmt::print(
        "          This is the built-in demonstration model: it turns plain English into shell commands, plausible and often wrong.\n"
        "          Serve a real one with: hearth serve --model PATH.gguf\n");
  }
  const std::string key = keyed ? "-H \"Authorization: Bearer $HEARTH_API_KEY\" " : "";
  fmt::print("  try     curl -N {}/v1/chat/completions -H 'Content-Type: application/json' {}\\\n", url, key);
  fmt::print(
      "            -d '{{\"model\": \"{}\", \"stream\": true, \"messages\": [{{\"role\": \"user\", \"content\": \"list files by "
      "size\"}}]}}'\n",
      models.front().id);
  fmt::print("  or      hearth chat --url {}\n", url);
  std::fflush(stdout);
}

// The fleet itself logs what was loaded and what could not be.
void log_event(const fleet::ModelEvent& event) {
  using State = chat::ModelState;
  if (event.state == State::loading) spdlog::info("{} is being loaded: {}", event.model, event.reason);
  if (event.state == State::draining) spdlog::info("{} finishes what it has begun and leaves: {}", event.model, event.reason);
  if (event.state == State::absent) spdlog::info("{} is unloaded: {}", event.model, event.reason);
}

int serve(const ServeFlags& flags) {
  auto config = load_config({.file = flags.config_file, .environment = process_environment, .flags = flags.settings});
  if (!config) return fail(config.error());
  if (flags.print_config) {
    std::fputs(config->print().c_str(), stdout);
    return exit_ok;
  }
  if (auto done = init_logging("hearth", config->text("log.level")); !done) return fail(done.error());
  Surroundings surroundings{.program = own_program(), .available = read_memory().available, .engine_models = {}};
  if (!config->text("engine.url").empty()) surroundings.engine_models = ask_engine(*config);
  auto plan = plan_fleet(*config, surroundings);
  if (!plan) return fail(plan.error());
  for (const auto& warning : plan->warnings) spdlog::warn("{}", warning);
  const auto folder = prepare_state_folder(config->text("state.folder"));
  if (!folder) return fail(folder.error());
  plan->options.memory_state = memory_state;
  const auto models = plan->options.models;
  auto options = gateway_options(*config, std::move(plan->options));
  if (!options) return fail(options.error());
  options->safety = safety_options(*config, folder->string());
  if (options->safety.mode == safety::Mode::off)
    spdlog::warn("SAFETY IS OFF: tool calls leave unjudged and unrecorded. safety.mode = \"enforce\" switches it on");
  if (options->safety.mode == safety::Mode::observe)
    spdlog::warn("safety only observes: verdicts are recorded, and every tool call is released");
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
  events.listening = [&](unsigned short port) { print_banner(*config, models, port); };
  events.model = log_event;
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

std::filesystem::path find_state_folder(const std::string& configured) {
  if (!configured.empty()) return configured;
  if (const auto folder = variable("STATE_DIRECTORY"); !folder.empty()) return folder;  // systemd
  if (const auto folder = variable("XDG_STATE_HOME"); !folder.empty()) return folder + "/hearth";
  if (const auto folder = variable("HOME"); !folder.empty()) return folder + "/.local/state/hearth";
  return std::filesystem::temp_directory_path() / fmt::format("hearth-{}", getuid());
}

void add_serve(CLI::App& program, int& exit_code) {
  auto* command = program.add_subcommand("serve", "Serve models over the OpenAI, Anthropic and Ollama APIs until stopped");
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
      "  hearth serve --models-folder ~/models --idle-unload 15m\n"
      "  HEARTH_API_KEY=$(openssl rand -hex 24) hearth serve --host 0.0.0.0\n"
      "  hearth serve --print-config\n\n"
      "A flag goes before its HEARTH_… variable (--max-body: HEARTH_MAX_BODY), that before the file, that before the default.");
  command->callback([flags, &exit_code] { exit_code = serve(*flags); });
}

}  // namespace hearth::app
