#include "safety/files.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <array>

#include "base/json.h"
#include "safety/commands.h"
#include "safety/paths.h"

namespace hearth::safety {
namespace {

constexpr std::size_t most_lines = 4096;  // judged one by one where a piece of a script does not parse as a whole

std::string lowered(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
  return out;
}
std::string_view trimmed(std::string_view text) {
  const auto begin = text.find_first_not_of(" \t\r");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t\r") - begin + 1);
}
std::vector<std::string_view> lines_of(std::string_view text) {
  std::vector<std::string_view> out;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    auto line = text.substr(at, end - at);
    if (line.ends_with('\r')) line.remove_suffix(1);
    out.push_back(line);
    at = end + 1;
  }
  return out;
}
template <std::size_t n>
bool one_of(std::string_view text, const std::array<std::string_view, n>& words) {
  return std::find(words.begin(), words.end(), text) != words.end();
}

// What harms whoever runs the file. The other dangerous effects (installing, becoming root, stopping services) are what scripts are written for.
bool counts_when_written(const Observation& observation) {
  switch (observation.effect) {
    case Effect::filesystem_destruction:
    case Effect::disk_destruction:
    case Effect::credential_access:
    case Effect::exfiltration:
    case Effect::remote_code:
    case Effect::container_escape:
    case Effect::tampering: return observation.certain;
    default: return false;
  }
}

class File {
 public:
  File(std::string_view path, const Action& action, Assessment& out) : path_(path), action_(action), out_(out) {}

  void shell(std::string_view text) {
    auto assessment = assess_shell(text, action_);
    if (assessment.problem.empty()) return take(std::move(assessment));
    const auto lines = lines_of(text);
    for (std::size_t i = 0; i < std::min(lines.size(), most_lines); ++i) {
      if (!trimmed(lines[i]).empty() && lines.size() > 1) take(assess_shell(lines[i], action_));
    }
  }
  void make(std::string_view text) {
    for (const auto line : lines_of(text)) {
      auto recipe = trimmed(line);
      // A rule may have its recipe on its own line: "all: ; rm -rf /".
      if (!line.starts_with('\t') && !line.starts_with("  ")) {
        const auto semicolon = recipe.find(';');
        if (recipe.find(':') == std::string_view::npos || semicolon == std::string_view::npos) continue;
        recipe = trimmed(recipe.substr(semicolon + 1));
      }
      while (!recipe.empty() && (recipe[0] == '@' || recipe[0] == '-' || recipe[0] == '+')) recipe.remove_prefix(1);
      std::string command;
      for (std::size_t i = 0; i < recipe.size(); ++i) {
        command += recipe[i];
        if (recipe[i] == '$' && i + 1 < recipe.size() && recipe[i + 1] == '$') ++i;
      }
      if (!command.empty()) take(assess_shell(command, action_));
    }
  }
  void package_json(std::string_view text) {
    const auto parsed = parse_json(text);
    if (parsed.ok() && parsed->is_object()) {
      if (const auto* scripts = parsed->get_object().if_contains("scripts"); scripts != nullptr && scripts->is_object()) {
        for (const auto& script : scripts->get_object()) {
          if (script.value().is_string()) shell({script.value().get_string().data(), script.value().get_string().size()});
        }
      }
      return;
    }
    // A piece of it: every value that stands beside a key.
    for (const auto line : lines_of(text)) {
      auto pair = trimmed(line);
      while (pair.ends_with(',')) pair = trimmed(pair.substr(0, pair.size() - 1));
      const auto object = parse_json("{" + std::string(pair) + "}");
      if (!object.ok() || !object->is_object()) continue;
      for (const auto& one : object->get_object()) {
        if (one.value().is_string()) take(assess_shell({one.value().get_string().data(), one.value().get_string().size()}, action_));
      }
    }
  }
  void git_settings(std::string_view text) {
    static constexpr std::array<std::string_view, 12> keys{"hookspath", "sshcommand", "fsmonitor", "pager",   "editor", "textconv",
                                                           "clean",     "smudge",     "process",   "askpass", "helper", "command"};
    for (const auto line : lines_of(text)) {
      const auto equals = line.find('=');
      if (equals == std::string_view::npos) continue;
      const auto key = lowered(trimmed(line.substr(0, equals)));
      const auto value = trimmed(line.substr(equals + 1));
      const bool runs = one_of(key, keys) || value.starts_with('!') || value.starts_with("\"!");
      if (runs && !value.empty() && value != "less" && value != "vim" && value != "nano")
        add(Effect::persistence, line, "makes git run " + std::string(value));
    }
  }
  void package_sources(std::string_view text) {
    static constexpr std::array<std::string_view, 9> usual{
        "registry.npmjs.org", "registry.yarnpkg.com", "pypi.org",         "files.pythonhosted.org", "crates.io",
        "index.crates.io",    "rubygems.org",         "proxy.golang.org", "static.crates.io"};
    for (const auto line : lines_of(text)) {
      const auto low = lowered(trimmed(line));
      const bool source = low.find("registry") != std::string::npos || low.find("index-url") != std::string::npos ||
                          low.find("index_url") != std::string::npos || low.find("find-links") != std::string::npos;
      const auto at = low.find("://");
      if (!source || low.starts_with('#') || low.starts_with(';') || at == std::string::npos) continue;
      auto host = low.substr(at + 3);
      host = host.substr(0, host.find_first_of("/\"' \t:"));
      const bool trusted = std::any_of(
          action_.where.trusted_hosts.begin(), action_.where.trusted_hosts.end(),
          [&](const std::string& pattern) { return pattern == host || (pattern.starts_with("*.") && host.ends_with(pattern.substr(1))); });
      if (!trusted && !one_of(host, usual)) add(Effect::supply_chain, line, fmt::format("takes packages from {}", host));
    }
  }
  void compose(std::string_view text) {
    for (const auto line : lines_of(text)) {
      const auto part = trimmed(line);
      if (part.starts_with("privileged: true") || part.starts_with("pid: host") || part.starts_with("pid: \"host\"") ||
          part.find("/var/run/docker.sock:") != std::string_view::npos || part.starts_with("- /:/") || part.starts_with("- \"/:/") ||
          part.starts_with("- '/:/"))
        add(Effect::container_escape, part, "gives a container the host");
    }
  }
  void tasks(std::string_view text) {
    if (text.find("folderOpen") != std::string_view::npos)
      add(Effect::persistence, "folderOpen", "runs a task whenever the folder is opened");
  }
  void code(std::string_view language, std::string_view text) { take(assess_code(language, text, action_)); }

 private:
  void add(Effect effect, std::string_view excerpt, std::string reason) {
    out_.observations.push_back({.effect = effect,
                                 .certain = true,
                                 .target = path_,
                                 .program = {},
                                 .excerpt = std::string(excerpt.substr(0, 200)),
                                 .reason = std::move(reason)});
  }
  void take(Assessment assessment) {
    for (auto& observation : assessment.observations) {
      if (!counts_when_written(observation)) continue;
      observation.reason = fmt::format("writes into {} what, once it is run, {}", path_, observation.reason);
      out_.observations.push_back(std::move(observation));
    }
  }
  std::string path_;
  const Action& action_;
  Assessment& out_;
};

}  // namespace

Assessment assess_file(std::string_view canonical, std::string_view content, const Action& action) {
  Assessment out;
  if (content.find_first_not_of(" \t\r\n") == std::string_view::npos) return out;
  const auto name = lowered(canonical.substr(canonical.rfind('/') + 1));
  const auto dot = name.rfind('.');
  const std::string extension = dot == std::string::npos || dot == 0 ? std::string() : name.substr(dot + 1);
  const auto first = content.starts_with("#!") ? content.substr(0, content.find('\n')) : std::string_view{};
  const auto interpreter = [first](std::string_view word) { return first.find(word) != std::string_view::npos; };
  File file(canonical, action, out);
  static constexpr std::array<std::string_view, 7> shells{"sh", "bash", "zsh", "ksh", "dash", "envrc", "command"};
  static constexpr std::array<std::string_view, 6> node{"js", "mjs", "cjs", "ts", "mts", "jsx"};
  static constexpr std::array<std::string_view, 6> sources{".npmrc", ".yarnrc", ".yarnrc.yml", "pip.conf", ".pypirc", "bunfig.toml"};
  if (name == "makefile" || name == "gnumakefile" || name == "justfile" || extension == "mk") {
    file.make(content);
  } else if (name == "package.json") {
    file.package_json(content);
  } else if (name == ".gitconfig" || name == ".gitmodules" || canonical.ends_with("/.git/config") || canonical.ends_with("/git/config")) {
    file.git_settings(content);
  } else if (one_of(name, sources)) {
    file.package_sources(content);
  } else if (name.find("compose") != std::string::npos && (extension == "yml" || extension == "yaml")) {
    file.compose(content);
  } else if (name == "tasks.json") {
    file.tasks(content);
  } else if (extension == "py" || interpreter("python")) {
    file.code("python", content);
  } else if (one_of(extension, node) || interpreter("node")) {
    file.code("node", content);
  } else if (extension == "rb" || interpreter("ruby")) {
    file.code("ruby", content);
  } else if (extension == "pl" || interpreter("perl")) {
    file.code("perl", content);
  } else if (extension == "php" || interpreter("php")) {
    file.code("php", content);
  } else if (one_of(extension, shells) || one_of(name, shells) || interpreter("sh") ||
             canonical.find("/.git/hooks/") != std::string_view::npos || canonical.find("/.husky/") != std::string_view::npos ||
             name == ".envrc" || place_of(canonical, action.where) == Place::startup) {
    file.shell(content);
  }
  return out;
}

std::vector<PatchedFile> read_patch(std::string_view text) {
  std::vector<PatchedFile> out;
  // The path of "--- a/x\t2026-…" or "+++ b/x".
  const auto side = [](std::string_view line) {
    auto path = line.substr(4);
    path = trimmed(path.substr(0, path.find('\t')));
    if (path.size() >= 2 && path.front() == '"' && path.back() == '"') path = path.substr(1, path.size() - 2);
    if (path.starts_with("a/") || path.starts_with("b/")) path.remove_prefix(2);
    return std::string(path);
  };
  std::string before;  // of a unified diff
  const auto lines = lines_of(text);
  for (std::size_t i = 0; i < lines.size(); ++i) {
    const auto line = lines[i];
    const auto start = trimmed(line);
    const auto rest = [&](std::string_view mark) { return std::string(trimmed(start.substr(mark.size()))); };
    if (start.starts_with("*** Add File:")) {
      out.push_back({.path = rest("*** Add File:")});
    } else if (start.starts_with("*** Update File:")) {
      out.push_back({.path = rest("*** Update File:")});
    } else if (start.starts_with("*** Delete File:")) {
      out.push_back({.path = rest("*** Delete File:"), .removed = true});
    } else if (start.starts_with("*** Move to:") && !out.empty()) {
      out.back().moved_to = rest("*** Move to:");
    } else if (line.starts_with("--- ") && i + 1 < lines.size() && lines[i + 1].starts_with("+++ ")) {
      before = side(line);
      const std::string after = side(lines[++i]);
      const bool gone = after == "/dev/null";
      out.push_back({.path = gone ? before : after, .removed = gone});
      if (!gone && before != "/dev/null" && before != after) out.push_back({.path = before, .removed = true});
      if (!gone && out.back().removed) std::swap(out[out.size() - 1], out[out.size() - 2]);  // lines that follow belong to the new one
    } else if (line.starts_with("rename to ") || line.starts_with("copy to ")) {
      out.push_back({.path = std::string(trimmed(line.substr(line.find(" to ") + 4)))});
    } else if (line.starts_with("rename from ")) {
      out.push_back({.path = std::string(trimmed(line.substr(12))), .removed = true});
    } else if (line.starts_with('+') && !out.empty()) {
      out.back().added += std::string(line.substr(1)) + "\n";
    }
  }
  return out;
}

}  // namespace hearth::safety
