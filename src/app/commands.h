// The command line: one file per command. Each add_… hangs its command below the program, with flags, help and examples; when it is chosen, its
// callback stores the process's exit code: 0 done, 1 failed or something is wrong, 2 wrong usage.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <string_view>

#include "app/config.h"

namespace CLI {
class App;
}

namespace hearth::app {

inline constexpr int exit_ok = 0;
inline constexpr int exit_failed = 1;
inline constexpr int exit_usage = 2;

void add_serve(CLI::App& program, int& exit_code);
void add_worker(CLI::App& program, int& exit_code);
void add_chat(CLI::App& program, int& exit_code);
void add_ps(CLI::App& program, int& exit_code);
void add_load(CLI::App& program, int& exit_code);
void add_unload(CLI::App& program, int& exit_code);
void add_models(CLI::App& program, int& exit_code);
void add_approvals(CLI::App& program, int& exit_code);
void add_audit(CLI::App& program, int& exit_code);
void add_policy(CLI::App& program, int& exit_code);
void add_doctor(CLI::App& program, int& exit_code);
void add_version(CLI::App& program, int& exit_code);
void add_completion(CLI::App& program, int& exit_code);

// The settings as flags of `command`: all, or those a worker takes. Those given end in `flags`.
void add_setting_flags(CLI::App& command, std::map<std::string, std::string>& flags, bool worker_only);

// The whole program with all commands; `exit_code` outlives it.
void build_program(CLI::App& program, int& exit_code);

// The folder hearth may write to, as configured or where this system keeps such things. It need not exist.
std::filesystem::path find_state_folder(const std::string& configured);

// Prints "hearth: MESSAGE" on standard error; returns exit_failed.
int fail(const Error& error);

// The process's environment as an Environment.
const char* process_environment(const char* name);

}  // namespace hearth::app
