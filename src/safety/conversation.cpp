#include "safety/conversation.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

namespace hearth::safety {
namespace {

constexpr std::size_t most_history = 64;
constexpr std::size_t longest_search = std::size_t{256} << 10;  // bytes of one message that are looked through
constexpr std::size_t longest_folder = 512;

constexpr std::array<std::string_view, 8> openings{"<cwd>",
                                                   "Working directory:",
                                                   "working directory:",
                                                   "Working Directory:",
                                                   "working directory is",
                                                   "Workspace root folder:",
                                                   "workspace folder:",
                                                   "cwd:"};

// System folders, and those that hold everybody's files.
constexpr std::array<std::string_view, 20> never{"/bin",     "/boot",      "/dev",  "/etc",       "/lib",     "/lib32",   "/lib64",
                                                 "/proc",    "/run",       "/sbin", "/sys",       "/usr",     "/var/lib", "/var/log",
                                                 "/var/run", "/var/spool", "/snap", "/root/.ssh", "/Library", "/System"};

bool ordinary(std::string_view folder) {
  if (folder.size() < 2 || folder.size() > longest_folder || folder.front() != '/') return false;
  if (folder == "/home" || folder == "/root" || folder == "/tmp" || folder == "/var" || folder == "/opt" || folder == "/mnt" ||
      folder == "/media" || folder == "/Users")
    return false;
  // A home as a whole is no workspace either: its start-up files and keys lie there.
  if ((folder.starts_with("/home/") || folder.starts_with("/Users/")) && std::count(folder.begin(), folder.end(), '/') == 2) return false;
  if (folder.find("//") != std::string_view::npos || folder.find("/../") != std::string_view::npos || folder.ends_with("/..") ||
      folder.find("/.") != std::string_view::npos)
    return false;
  const bool plain = std::all_of(folder.begin(), folder.end(), [](unsigned char c) {
    return c >= 0x80 || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '/' || c == '.' || c == '_' ||
           c == '-' || c == '+' || c == '@' || c == ' ';
  });
  return plain && std::none_of(never.begin(), never.end(), [&](std::string_view system) {
           return folder.starts_with(system) && (folder.size() == system.size() || folder[system.size()] == '/');
         });
}

std::string folder_in(std::string_view text) {
  text = text.substr(0, longest_search);
  for (const auto opening : openings) {
    for (auto at = text.find(opening); at != std::string_view::npos; at = text.find(opening, at + 1)) {
      auto folder = text.substr(at + opening.size());
      folder = folder.substr(0, folder.find_first_of("\r\n<"));
      const auto begin = folder.find_first_not_of(" \t`'\"*");
      if (begin == std::string_view::npos) continue;
      folder.remove_prefix(begin);
      const auto end = folder.find_last_not_of(" \t`'\"*/,.;)");
      folder = end == std::string_view::npos ? std::string_view() : folder.substr(0, end + 1);
      if (ordinary(folder)) return std::string(folder);
    }
  }
  return {};
}

}  // namespace

std::string stated_folder(const chat::Request& request) {
  bool first_of_user = true;
  for (const auto& message : request.messages) {
    if (message.role == chat::Role::system) {
      if (auto folder = folder_in(message.text()); !folder.empty()) return folder;
    } else if (message.role == chat::Role::user && std::exchange(first_of_user, false)) {
      // Codex tells the place in a message of its own. What else a user says is no statement of the agent.
      const auto text = message.text();
      const auto begin = text.find_first_not_of(" \t\r\n");
      if (begin == std::string::npos || text.compare(begin, 21, "<environment_context>") != 0) continue;
      if (auto folder = folder_in(text); !folder.empty()) return folder;
    }
  }
  return {};
}

Call call_of(const chat::ToolCall& call, const std::vector<chat::ToolSpec>& tools) {
  Call out{.name = call.name, .arguments = call.arguments.empty() ? "{}" : call.arguments};
  const auto tool = std::find_if(tools.begin(), tools.end(), [&](const chat::ToolSpec& spec) { return spec.name == call.name; });
  if (tool != tools.end()) {
    out.parameters = tool->parameters;
    out.description = tool->description;
  }
  return out;
}

Action action_of(const chat::Request& request, Surroundings where) {
  Action out;
  out.where = std::move(where);
  if (out.where.working_folder.empty()) out.where.working_folder = stated_folder(request);
  std::vector<const chat::ToolCall*> calls;
  for (const auto& message : request.messages) {
    for (const auto& call : message.tool_calls) calls.push_back(&call);
  }
  for (std::size_t i = calls.size() - std::min(calls.size(), most_history); i < calls.size(); ++i)
    out.history.push_back(call_of(*calls[i], request.tools));
  return out;
}

}  // namespace hearth::safety
