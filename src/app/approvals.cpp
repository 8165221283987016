// `hearth approvals`: tool calls of a running server that wait for a person's word, and saying it.
#include <spdlog/fmt/fmt.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <memory>

#include "app/commands.h"
#include "app/remote.h"
#include "catalog/gguf.h"

namespace hearth::app {
namespace {

using catalog::printable;

constexpr std::chrono::milliseconds patience{10'000};

struct Flags {
  std::string url, api_key_file;
  std::string id, reason;
  bool json = false;
};

std::string text_at(const json::value& value, std::string_view key) {
  const auto* found = value.is_object() ? value.get_object().if_contains(key) : nullptr;
  return found != nullptr && found->is_string() ? std::string(found->get_string()) : std::string();
}

int list(const Flags& flags) {
  const auto remote = find_remote(flags.url, flags.api_key_file);
  if (!remote) return fail(remote.error());
  const auto answer = remote->ask(remote->request("GET", "/admin/approvals"), patience);
  if (!answer) return fail(answer.error());
  const auto* waiting = answer->is_object() ? answer->get_object().if_contains("waiting") : nullptr;
  if (waiting == nullptr || !waiting->is_array())
    return fail({ErrorCode::upstream_failed, fmt::format("{} does not answer like hearth", remote->shown), {}});
  if (flags.json) {
    std::puts(json::serialize(*answer).c_str());
    return exit_ok;
  }
  if (waiting->get_array().empty()) {
    std::puts("No call waits for approval.");
    return exit_ok;
  }
  const auto now = std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
  for (const auto& call : waiting->get_array()) {
    const auto* until = call.is_object() ? call.get_object().if_contains("until") : nullptr;
    const auto left = until != nullptr && until->is_int64() ? until->get_int64() - now : 0;
    fmt::print("{}  {} s left\n", printable(text_at(call, "id")), std::max<std::int64_t>(left, 0));
    fmt::print("  tool       {}  (of {}, by {})\n", printable(text_at(call, "tool")), printable(text_at(call, "tenant")),
               printable(text_at(call, "model")));
    fmt::print("  arguments  {}\n", printable(text_at(call, "arguments"), 20'000));
    fmt::print("  held by    {} ({}): {}\n", printable(text_at(call, "rule")), printable(text_at(call, "layer")),
               printable(text_at(call, "reason"), 400));
    if (const auto excerpt = text_at(call, "excerpt"); !excerpt.empty()) fmt::print("  because of {}\n", printable(excerpt, 400));
  }
  fmt::print("\nhearth approvals approve ID, or deny ID\n");
  return exit_ok;
}

int decide(const Flags& flags, bool approved) {
  const auto remote = find_remote(flags.url, flags.api_key_file);
  if (!remote) return fail(remote.error());
  auto request = remote->request("POST", fmt::format("/admin/approvals/{}/{}", path_segment(flags.id), approved ? "approve" : "deny"));
  if (!flags.reason.empty()) {
    request.headers.add("Content-Type", "application/json");
    request.body = json::serialize(json::object{{"reason", flags.reason}});
  }
  const auto answer = remote->ask(std::move(request), patience);
  if (!answer) return fail(answer.error());
  fmt::print("{} {}\n", flags.id, approved ? "approved: the call was released" : "refused: the agent was told so");
  return exit_ok;
}

void add_remote_flags(CLI::App& command, Flags& flags) {
  command.add_option("--url", flags.url, "Server to talk to [HEARTH_URL, else http://127.0.0.1:8085]");
  command.add_option("--api-key-file", flags.api_key_file, "File that holds the API key [HEARTH_API_KEY]")->type_name("FILE");
}

}  // namespace

void add_approvals(CLI::App& program, int& exit_code) {
  auto* command = program.add_subcommand("approvals", "Tool calls that wait for a person: list, approve, deny");
  auto flags = std::make_shared<Flags>();
  add_remote_flags(*command, *flags);
  command->add_flag("--json", flags->json, "The server's own answer");
  command->require_subcommand(0, 1);
  auto* listing = command->add_subcommand("list", "The calls that wait (the default)");
  add_remote_flags(*listing, *flags);
  listing->add_flag("--json", flags->json, "The server's own answer");
  auto* approving = command->add_subcommand("approve", "Release a call");
  auto* denying = command->add_subcommand("deny", "Refuse a call");
  for (auto* deciding : {approving, denying}) {
    deciding->add_option("id", flags->id, "The call, as the list names it")->required();
    deciding->add_option("--reason", flags->reason, "Why: written down, and told the agent of a refusal");
    add_remote_flags(*deciding, *flags);
  }
  command->footer(
      "Examples:\n"
      "  hearth approvals\n"
      "  hearth approvals approve hold_3f9… --reason \"my own machine\"\n"
      "  hearth approvals deny hold_3f9… --reason \"use the staging database\"");
  command->callback([flags, approving, denying, &exit_code] {
    exit_code = approving->parsed() ? decide(*flags, true) : denying->parsed() ? decide(*flags, false) : list(*flags);
  });
}

}  // namespace hearth::app
