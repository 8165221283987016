#include <CLI/CLI.hpp>
#include <algorithm>
#include <csignal>
#include <cstdio>
#include <vector>

#include "app/commands.h"
#include "base/nearest.h"

int main(int argc, char** argv) {
  using namespace hearth::app;
  // A reader that goes away (hearth models list | head) or a client that leaves shows as a failed write, not as a signal.
  std::signal(SIGPIPE, SIG_IGN);
  CLI::App program;
  int exit_code = exit_ok;
  build_program(program, exit_code);

  if (argc > 1 && argv[1][0] != '-') {
    std::vector<std::string> names;
    for (const auto* command : program.get_subcommands(nullptr)) names.push_back(command->get_name());
    if (std::find(names.begin(), names.end(), argv[1]) == names.end()) {
      const std::string near = hearth::nearest(argv[1], std::vector<std::string_view>(names.begin(), names.end()));
      std::fprintf(stderr, "hearth: \"%s\" is not a command%s\nRun `hearth --help` for the list.\n", argv[1],
                   near.empty() ? "." : (". Did you mean `hearth " + near + "`?").c_str());
      return exit_usage;
    }
  }
  try {
    program.parse(argc, argv);
  } catch (const CLI::ParseError& stop) {
    if (stop.get_exit_code() == 0) return program.exit(stop);  // --help
    const auto* command = program.get_subcommands().empty() ? &program : program.get_subcommands().front();
    std::string message = stop.what();
    // CLI11 lists what it did not understand as "…: --prot 80"; name the flag that was meant.
    if (const auto dashes = message.find("--"); dashes != std::string::npos && dynamic_cast<const CLI::ExtrasError*>(&stop) != nullptr) {
      const std::string flag = message.substr(dashes, message.find_first_of(" =", dashes) - dashes);
      std::vector<std::string> flags;
      for (const auto* option : command->get_options()) {
        for (const auto& name : option->get_lnames()) flags.push_back("--" + name);
      }
      message = "\"" + flag + "\" is not a flag of this command";
      if (const auto near = hearth::nearest(flag, std::vector<std::string_view>(flags.begin(), flags.end())); !near.empty())
        message += "; did you mean " + near + "?";
    }
    const std::string help = command == &program ? "hearth --help" : "hearth " + command->get_name() + " --help";
    std::fprintf(stderr, "hearth: %s\nRun `%s` for the flags and examples.\n", message.c_str(), help.c_str());
    return exit_usage;
  }
  return exit_code;
}
