// `hearth audit`: what was decided about tool calls, and whether the record of it is whole.
#include <spdlog/fmt/fmt.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <deque>
#include <memory>

#include "app/commands.h"
#include "catalog/gguf.h"
#include "store/audit_log.h"

namespace hearth::app {
namespace {

using catalog::printable;
using store::AuditLog;

struct Flags {
  std::string file, config_file, state_folder;
  std::string since, until, decision, outcome, tenant, tool;
  std::int64_t number = 0;
  std::size_t most = 50;
  bool json = false;
};

std::string text_at(const json::object& row, std::string_view key) {
  const auto* found = row.if_contains(key);
  return found != nullptr && found->is_string() ? std::string(found->get_string()) : std::string();
}

Result<std::string> log_path(const Flags& flags) {
  if (!flags.file.empty()) return flags.file;
  if (!flags.state_folder.empty()) return AuditLog::path_in(flags.state_folder);
  auto config = load_config({.file = flags.config_file, .environment = process_environment, .flags = {}});
  if (!config) return std::move(config).error();
  return AuditLog::path_in(find_state_folder(config->text("state.folder")).string());
}

int verify(const Flags& flags) {
  const auto path = log_path(flags);
  if (!path) return fail(path.error());
  const auto report = AuditLog::verify(*path);
  if (!report) return fail(report.error());
  if (report->bad != 0) {
    fmt::print("{}: row {} does not fit: {}. The {} rows before it are whole.\n", *path, report->bad, report->problem, report->rows);
    return exit_failed;
  }
  fmt::print("{}: {} rows, whole.\nhead {}\nKept elsewhere, the head proves later that nothing was cut off the end.\n", *path, report->rows,
             report->head);
  return exit_ok;
}

std::string upper(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(c >= 'a' && c <= 'z' ? c - 32 : c); });
  return text;
}

bool wanted(const json::object& row, const Flags& flags) {
  const auto time = text_at(row, "time");
  return (flags.since.empty() || time >= flags.since) && (flags.until.empty() || time.substr(0, flags.until.size()) <= flags.until) &&
         (flags.decision.empty() || text_at(row, "decision") == upper(flags.decision)) &&
         (flags.outcome.empty() || text_at(row, "outcome") == flags.outcome) &&
         (flags.tenant.empty() || text_at(row, "tenant") == flags.tenant) && (flags.tool.empty() || text_at(row, "tool") == flags.tool);
}

std::string cell(const std::string& text, std::size_t width) {
  const auto shown = printable(text);
  return shown.size() <= width ? shown + std::string(width - shown.size(), ' ') : shown.substr(0, width - 1) + "~";
}

int list(const Flags& flags) {
  const auto path = log_path(flags);
  if (!path) return fail(path.error());
  std::deque<json::object> rows;
  const auto read = AuditLog::read(*path, 1, [&](const json::object& row) {
    if (!wanted(row, flags)) return true;
    rows.push_back(row);
    if (rows.size() > flags.most) rows.pop_front();
    return true;
  });
  if (!read) return fail(read.error());
  if (flags.json) {
    for (const auto& row : rows) std::puts(json::serialize(row).c_str());
    return exit_ok;
  }
  if (rows.empty()) {
    std::puts("No row fits.");
    return exit_ok;
  }
  fmt::print("{:>6}  {:<19}  {:<8}  {:<9}  {:<12}  {:<16}  {:<28}  {}\n", "ROW", "TIME (UTC)", "DECISION", "OUTCOME", "TENANT", "TOOL",
             "RULE", "WHY");
  for (const auto& row : rows) {
    const auto* number = row.if_contains("n");
    const auto event = text_at(row, "event");
    const auto tool = text_at(row, "tool");
    fmt::print("{:>6}  {}  {}  {}  {}  {}  {}  {}\n", number != nullptr && number->is_int64() ? number->get_int64() : 0,
               cell(text_at(row, "time").substr(0, 19), 19), cell(text_at(row, "decision"), 8), cell(text_at(row, "outcome"), 9),
               cell(text_at(row, "tenant"), 12), cell(tool.empty() ? "(" + event + ")" : tool, 16), cell(text_at(row, "rule"), 28),
               printable(text_at(row, "reason").substr(0, 80)));
  }
  return exit_ok;
}

int show(const Flags& flags) {
  const auto path = log_path(flags);
  if (!path) return fail(path.error());
  json::object found;
  const auto read =
      AuditLog::read(*path, static_cast<std::uint64_t>(std::max<std::int64_t>(flags.number, 1)), [&](const json::object& row) {
        found = row;
        return false;
      });
  if (!read) return fail(read.error());
  if (found.empty()) return fail({ErrorCode::invalid_request, fmt::format("{} has no row {}", *path, flags.number), {}});
  if (flags.json) {
    std::puts(json::serialize(found).c_str());
    return exit_ok;
  }
  for (const auto& field : found) {
    const auto value = field.value().is_string() ? std::string(field.value().get_string()) : json::serialize(field.value());
    fmt::print("{:<18} {}\n", std::string(field.key()), printable(value, 20'000));
  }
  return exit_ok;
}

// 2026, 2026-01, 2026-01-31, 2026-01-31T08, …08:00, …08:00:00, with or without a Z: what rows' times can begin with.
std::string check_time(std::string& time) {
  static constexpr std::string_view shape = "0000-00-00T00:00:00";
  if (time.ends_with('Z')) time.pop_back();
  const bool whole =
      time.size() == 4 || time.size() == 7 || time.size() == 10 || time.size() == 13 || time.size() == 16 || time.size() == 19;
  bool fits = whole;
  for (std::size_t i = 0; fits && i < time.size(); ++i) fits = shape[i] == '0' ? time[i] >= '0' && time[i] <= '9' : time[i] == shape[i];
  return fits ? std::string() : fmt::format("\"{}\" is no time; write it in UTC, like 2026-01-31 or 2026-01-31T08:00", time);
}

void add_place(CLI::App& command, Flags& flags) {
  command.add_option("--file", flags.file, "The log itself, audit.jsonl")->type_name("FILE");
  command.add_option("--state-folder", flags.state_folder, "The state folder of the server [as `hearth serve` finds it]")
      ->type_name("FOLDER");
  command.add_option("--config", flags.config_file, "Configuration file of the server; \"none\" reads none")->type_name("FILE");
}

}  // namespace

void add_audit(CLI::App& program, int& exit_code) {
  auto* command = program.add_subcommand("audit", "What was decided about tool calls: list, show, verify");
  auto flags = std::make_shared<Flags>();
  command->require_subcommand(1);
  auto* verifying = command->add_subcommand("verify", "Check that no row was changed, removed or put in between");
  add_place(*verifying, *flags);
  auto* listing = command->add_subcommand("list", "Verdicts, the latest last");
  add_place(*listing, *flags);
  const CLI::Validator time(check_time, "TIME");
  listing->add_option("--since", flags->since, "From this time on, UTC: 2026-01-31 or 2026-01-31T08:00")->check(time);
  listing->add_option("--until", flags->until, "Up to this time")->check(time);
  listing->add_option("--decision", flags->decision, "What was decided")
      ->check(CLI::IsMember({"ALLOW", "AUDIT", "REQUIRE", "DENY"}, CLI::ignore_case));
  listing->add_option("--outcome", flags->outcome, "What became of the call")
      ->check(CLI::IsMember({"released", "refused", "held", "approved", "timed_out", "withdrawn"}));
  listing->add_option("--tenant", flags->tenant, "Of one API key");
  listing->add_option("--tool", flags->tool, "Of one tool");
  listing->add_option("--last", flags->most, "So many rows, at most [50]")->check(CLI::Range(1, 1'000'000));
  listing->add_flag("--json", flags->json, "Rows as they are, one a line");
  auto* showing = command->add_subcommand("show", "One row with everything in it");
  add_place(*showing, *flags);
  showing->add_option("row", flags->number, "Its number")->required()->check(CLI::PositiveNumber);
  showing->add_flag("--json", flags->json, "As it is");
  command->footer(
      "Examples:\n"
      "  hearth audit list --decision DENY --since 2026-01-31\n"
      "  hearth audit show 17\n"
      "  hearth audit verify");
  command->callback([flags, verifying, listing, &exit_code] {
    exit_code = verifying->parsed() ? verify(*flags) : listing->parsed() ? list(*flags) : show(*flags);
  });
}

}  // namespace hearth::app
