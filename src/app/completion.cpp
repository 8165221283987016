// Completion scripts written from the program's own commands and flags: they cannot fall behind.
#include <spdlog/fmt/fmt.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "app/commands.h"

namespace hearth::app {
namespace {

struct Command {
  std::string path;  // "models list"; empty = the program itself
  std::string help;
  std::vector<std::pair<std::string, std::string>> words;  // subcommands and flags, with their help
};

void collect(const CLI::App& app, const std::string& path, std::vector<Command>& out) {
  Command command{path, app.get_description(), {}};
  for (const auto* sub : app.get_subcommands(nullptr)) command.words.emplace_back(sub->get_name(), sub->get_description());
  for (const auto* option : app.get_options()) {
    for (const auto& name : option->get_lnames()) command.words.emplace_back("--" + name, option->get_description());
  }
  out.push_back(std::move(command));
  for (const auto* sub : app.get_subcommands(nullptr)) collect(*sub, path.empty() ? sub->get_name() : path + " " + sub->get_name(), out);
}

std::string names_of(const Command& command) {
  std::string out;
  for (const auto& [word, help] : command.words) out += (out.empty() ? "" : " ") + word;
  return out;
}

// Help texts stand in single quotes; zsh also gives ':' and brackets a meaning.
std::string plain(std::string text) {
  for (char& c : text) {
    if (c == '\'' || c == ':' || c == '[' || c == ']' || c == '\n' || c == '\\') c = ' ';
  }
  return text;
}

std::string bash(const std::vector<Command>& commands) {
  std::string out =
      "# bash completion for hearth: source it, or install it as /usr/share/bash-completion/completions/hearth\n"
      "_hearth() {\n"
      "  local cur=${COMP_WORDS[COMP_CWORD]} path= words i\n"
      "  for ((i = 1; i < COMP_CWORD; i++)); do\n"
      "    [[ ${COMP_WORDS[i]} == -* ]] && break\n"
      "    path+=${path:+ }${COMP_WORDS[i]}\n"
      "  done\n"
      "  case $path in\n";
  for (const auto& command : commands) out += fmt::format("    '{}') words='{}' ;;\n", command.path, names_of(command));
  out +=
      "    *) words= ;;\n"
      "  esac\n"
      "  COMPREPLY=()\n"
      "  while IFS= read -r i; do COMPREPLY+=(\"$i\"); done < <(compgen -W \"$words\" -- \"$cur\")\n"
      "}\n"
      "complete -o default -F _hearth hearth\n";
  return out;
}

std::string zsh(const std::vector<Command>& commands) {
  std::string out =
      "#compdef hearth\n"
      "# zsh completion for hearth: put it as _hearth into a folder of $fpath\n"
      "_hearth() {\n"
      "  local path_words=() words_here=() i\n"
      "  for ((i = 2; i < CURRENT; i++)); do\n"
      "    [[ ${words[i]} == -* ]] && break\n"
      "    path_words+=${words[i]}\n"
      "  done\n"
      "  case \"${path_words[*]}\" in\n";
  for (const auto& command : commands) {
    out += fmt::format("    '{}') words_here=(", command.path);
    for (const auto& [word, help] : command.words) out += fmt::format(" '{}:{}'", word, plain(help));
    out += " ) ;;\n";
  }
  out +=
      "  esac\n"
      "  _describe 'hearth' words_here || _files\n"
      "}\n"
      "if [ \"$funcstack[1]\" = \"_hearth\" ]; then _hearth \"$@\"; else compdef _hearth hearth; fi\n";
  return out;
}

std::string fish(const std::vector<Command>& commands) {
  std::string out = "# fish completion for hearth: put it as hearth.fish into ~/.config/fish/completions\n";
  for (const auto& command : commands) {
    // Inside this command and below none of its own subcommands.
    std::string condition = "__fish_use_subcommand";
    if (!command.path.empty()) {
      condition = "__fish_seen_subcommand_from " + command.path.substr(command.path.rfind(' ') + 1);
      std::string below;
      for (const auto& [word, help] : command.words) {
        if (!word.starts_with("-")) below += " " + word;
      }
      if (!below.empty()) condition += "; and not __fish_seen_subcommand_from" + below;
    }
    for (const auto& [word, help] : command.words) {
      const std::string name = word.starts_with("--") ? "-l " + word.substr(2) : "-f -a " + word;
      out += fmt::format("complete -c hearth -n '{}' {} -d '{}'\n", condition, name, plain(help));
    }
  }
  return out;
}

}  // namespace

void add_completion(CLI::App& program, int& exit_code) {
  auto* command = program.add_subcommand("completion", "Print the completion script for a shell");
  auto shell = std::make_shared<std::string>();
  command->add_option("shell", *shell, "bash, zsh or fish")->required()->check(CLI::IsMember({"bash", "zsh", "fish"}))->type_name("SHELL");
  command->footer(
      "Examples:\n"
      "  source <(hearth completion bash)\n"
      "  hearth completion zsh > ~/.zfunc/_hearth\n"
      "  hearth completion fish > ~/.config/fish/completions/hearth.fish");
  command->callback([shell, &program, &exit_code] {
    std::vector<Command> commands;
    collect(program, "", commands);
    const std::string script = *shell == "bash" ? bash(commands) : *shell == "zsh" ? zsh(commands) : fish(commands);
    std::fputs(script.c_str(), stdout);
    exit_code = exit_ok;
  });
}

}  // namespace hearth::app
