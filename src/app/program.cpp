#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "app/commands.h"
#include "catalog/default_model.h"

namespace hearth::app {

void build_program(CLI::App& program, int& exit_code) {
  program.name("hearth");
  program.description("hearth turns this machine into a private AI server: local models behind the OpenAI, Anthropic and Ollama APIs.");
  program.footer(
      "Examples:\n"
      "  hearth serve                         serve the demonstration model on http://127.0.0.1:8085\n"
      "  hearth serve --model qwen3-8b.gguf   serve a model of your own\n"
      "  hearth chat                          talk to it in the terminal\n"
      "  hearth ps                            show its models: state, memory, requests\n"
      "  hearth doctor --model qwen3-8b.gguf  check whether this machine can run it\n\n"
      "`hearth COMMAND --help` tells more about each command. Settings: docs/configuration.md.");
  program.require_subcommand(1);
  program.set_help_flag("-h,--help", "Show this help");
  program.add_flag_callback(
      "-V,--version",
      [] {
        std::puts("hearth " HEARTH_VERSION);
        throw CLI::Success();
      },
      "Show the version (more: hearth version)");
  program.get_formatter()->column_width(34);
  add_serve(program, exit_code);
  add_chat(program, exit_code);
  add_ps(program, exit_code);
  add_approvals(program, exit_code);
  add_audit(program, exit_code);
  add_load(program, exit_code);
  add_unload(program, exit_code);
  add_models(program, exit_code);
  add_policy(program, exit_code);
  add_doctor(program, exit_code);
  add_version(program, exit_code);
  add_completion(program, exit_code);
  add_worker(program, exit_code);
}

void add_setting_flags(CLI::App& command, std::map<std::string, std::string>& flags, bool worker_only) {
  for (const auto& setting : settings()) {
    if (setting.flag.empty() || setting.secret || (worker_only && !setting.worker)) continue;
    std::string help(setting.help);
    if (setting.kind == SettingKind::choice) help += "; one of: " + std::string(setting.choices);
    if (!setting.fallback.empty()) help += " [" + std::string(setting.fallback) + "]";
    const std::string flag(setting.flag);
    auto* option =
        command.add_option_function<std::string>("--" + flag, [&flags, flag](const std::string& value) { flags[flag] = value; }, help);
    option->type_name(setting.kind == SettingKind::integer    ? "N"
                      : setting.kind == SettingKind::bytes    ? "SIZE"
                      : setting.kind == SettingKind::duration ? "TIME"
                      : setting.kind == SettingKind::list     ? "A,B"
                                                              : "TEXT");
    option->take_last();
    option->group("Settings (also in the configuration file and as HEARTH_… variables)");
  }
}

int fail(const Error& error) {
  std::fprintf(stderr, "hearth: %s\n", error.message.c_str());
  return exit_failed;
}

const char* process_environment(const char* name) { return std::getenv(name); }

}  // namespace hearth::app
