// `hearth ps`, `hearth load` and `hearth unload`: the models of a running server.
#include <spdlog/fmt/fmt.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <future>
#include <memory>
#include <thread>

#include "app/commands.h"
#include "app/remote.h"
#include "catalog/gguf.h"

namespace hearth::app {
namespace {

using catalog::printable;
using std::chrono::milliseconds;

constexpr milliseconds short_patience{10'000};
constexpr milliseconds load_patience{std::chrono::hours(2)};  // a large model from a slow disk, behind others

struct PsFlags {
  std::string url;
  std::string api_key_file;
  std::string model;
  std::string keep;
  bool json = false;
};

std::string text_at(const json::value& model, std::string_view key) {
  const auto* value = model.is_object() ? model.get_object().if_contains(key) : nullptr;
  return value != nullptr && value->is_string() ? std::string(value->get_string()) : std::string();
}
std::int64_t number_at(const json::value& model, std::string_view key) {
  const auto* value = model.is_object() ? model.get_object().if_contains(key) : nullptr;
  return value != nullptr && value->is_int64() ? value->get_int64() : 0;
}
bool true_at(const json::value& model, std::string_view key) {
  const auto* value = model.is_object() ? model.get_object().if_contains(key) : nullptr;
  return value != nullptr && value->is_bool() && value->get_bool();
}

std::string show_time(std::int64_t seconds) {
  if (seconds < 120) return fmt::format("{} s", std::max<std::int64_t>(seconds, 0));
  if (seconds < 2 * 3600) return fmt::format("{} min", seconds / 60);
  return seconds < 2 * 86'400 ? fmt::format("{} h", seconds / 3600) : fmt::format("{} days", seconds / 86'400);
}

// Predicted figures of models that are not loaded stand in brackets.
std::string show_memory(const json::value& model) {
  const std::int64_t host = number_at(model, "memory_bytes"), gpu = number_at(model, "gpu_bytes");
  if (host + gpu == 0) return "-";
  const auto bytes = [](std::int64_t n) { return show_bytes(static_cast<std::uint64_t>(n)); };
  std::string out = gpu == 0 ? bytes(host) : host == 0 ? bytes(gpu) : fmt::format("{} + {}", bytes(gpu), bytes(host));
  return text_at(model, "device").empty() ? "(" + out + ")" : out;
}

std::string show_idle(const json::value& model, std::int64_t now) {
  if (number_at(model, "running") > 0) return "busy";
  const std::int64_t used = number_at(model, "last_used"), unloads = number_at(model, "unloads_at");
  std::string out = used > 0 ? "idle " + show_time(now - used) : "";
  if (text_at(model, "state") == "ready" && unloads > 0)
    out += fmt::format("{}unloads in {}", out.empty() ? "" : ", ", show_time(unloads - now));
  if (true_at(model, "pinned")) out += out.empty() ? "pinned" : ", pinned";
  return out;
}

int ps(const PsFlags& flags) {
  const auto remote = find_remote(flags.url, flags.api_key_file);
  if (!remote) return fail(remote.error());
  const auto answer = remote->ask(remote->request("GET", "/admin/models"), short_patience);
  if (!answer) return fail(answer.error());
  const auto* models = answer->is_object() ? answer->get_object().if_contains("models") : nullptr;
  if (models == nullptr || !models->is_array())
    return fail({ErrorCode::upstream_failed, fmt::format("{} does not answer like hearth", remote->shown), {}});
  if (flags.json) {
    std::puts(json::serialize(*answer).c_str());
    return exit_ok;
  }
  const std::int64_t now = std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
  std::vector<std::array<std::string, 6>> rows{{"MODEL", "STATE", "DEVICE", "MEMORY", "RUNNING/WAITING", "IDLE"}};
  std::vector<std::string> problems;
  for (const auto& model : models->get_array()) {
    const std::string upstream = text_at(model, "upstream"), device = text_at(model, "device");
    const bool remote_model = upstream == "openai" || upstream == "anthropic";
    rows.push_back({printable(text_at(model, "id")), text_at(model, "state"),
                    remote_model     ? upstream
                    : device.empty() ? "-"
                                     : device,
                    show_memory(model), fmt::format("{}/{}", number_at(model, "running"), number_at(model, "waiting")),
                    show_idle(model, now)});
    if (const auto problem = text_at(model, "problem"); !problem.empty())
      problems.push_back(fmt::format("{}: {}", rows.back()[0], printable(problem, 500)));
  }
  std::array<std::size_t, 6> widths{};
  for (const auto& row : rows) {
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  for (const auto& row : rows) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) line += fmt::format("{:<{}}  ", row[i], widths[i]);
    line.erase(line.find_last_not_of(' ') + 1);
    std::puts(line.c_str());
  }
  for (const auto& problem : problems) fmt::print("\n{}\n", problem);
  if (const auto* memory = answer->get_object().if_contains("memory"); memory != nullptr) {
    // Without knowledge of the machine's memory there is no budget worth showing.
    const std::int64_t used = number_at(*memory, "used"), budget = number_at(*memory, "budget");
    if (budget > 0 && budget < (std::int64_t{1} << 50)) {
      fmt::print("\nmemory  {} of {}\n", show_bytes(static_cast<std::uint64_t>(used)), show_bytes(static_cast<std::uint64_t>(budget)));
    }
  }
  return exit_ok;
}

// What a load waits for at this moment, in a few words.
std::string progress_of(const Remote& remote, const std::string& name) {
  const auto answer = remote.ask(remote.request("GET", "/admin/models"), short_patience);
  const auto* models = answer.ok() && answer->is_object() ? answer->get_object().if_contains("models") : nullptr;
  if (models == nullptr || !models->is_array()) return "loading";
  std::string leaving;
  for (const auto& model : models->get_array()) {
    const std::string id = text_at(model, "id"), state = text_at(model, "state");
    const auto* aliases = model.get_object().if_contains("aliases");
    const bool meant = id == name || (aliases != nullptr && aliases->is_array() &&
                                      std::find(aliases->get_array().begin(), aliases->get_array().end(), json::value(name)) !=
                                          aliases->get_array().end());
    if (meant && (state == "loading" || state == "ready")) return "loading";
    if (state == "draining") leaving = fmt::format("waits for {} to finish {} running", printable(id), number_at(model, "running"));
  }
  return leaving.empty() ? "waits for room" : leaving;
}

// Asks, with a line on the terminal that shows that something is going on.
Result<json::value> ask_with_spinner(const Remote& remote, net::HttpRequest request, const std::string& name, bool loading) {
  if (isatty(STDERR_FILENO) == 0) return remote.ask(std::move(request), load_patience);
  auto answer = std::async(std::launch::async, [&] { return remote.ask(std::move(request), load_patience); });
  const auto began = std::chrono::steady_clock::now();
  constexpr std::array<const char*, 4> wheel{"|", "/", "-", "\\"};
  std::string what = loading ? "loading" : "unloading";
  for (std::size_t turn = 0; answer.wait_for(milliseconds(100)) != std::future_status::ready; ++turn) {
    if (loading && turn % 10 == 5) what = progress_of(remote, name);
    const auto seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
    fmt::print(stderr, "\r\x1b[K{} {}: {} {:.1f} s", wheel[turn % wheel.size()], printable(name), what, seconds);
    std::fflush(stderr);
  }
  fmt::print(stderr, "\r\x1b[K");
  return answer.get();
}

// "10m" → seconds; "forever" → negative. The worker's table of units is the configuration's.
Result<std::int64_t> keep_seconds(const std::string& text) {
  if (text == "forever" || text == "always") return std::int64_t{-1};
  auto parsed = parse_duration(text);
  if (!parsed.ok()) return Error{ErrorCode::invalid_request, "--keep " + parsed.error().message + ", or \"forever\"", {}};
  return parsed->count() / 1000;
}

int change(const PsFlags& flags, bool loading) {
  const auto remote = find_remote(flags.url, flags.api_key_file);
  if (!remote) return fail(remote.error());
  auto request = remote->request("POST", fmt::format("/admin/models/{}/{}", path_segment(flags.model), loading ? "load" : "unload"));
  if (!flags.keep.empty()) {
    const auto keep = keep_seconds(flags.keep);
    if (!keep) return fail(keep.error());
    request.headers.add("Content-Type", "application/json");
    request.body = fmt::format("{{\"keep_loaded\": {}}}", *keep);
  }
  const auto began = std::chrono::steady_clock::now();
  const auto answer = ask_with_spinner(*remote, std::move(request), flags.model, loading);
  if (!answer) {
    Error error = answer.error();
    if (error.code == ErrorCode::model_not_found) error.message += ".\nSee them with: hearth ps";
    return fail(error);
  }
  if (flags.json) {
    std::puts(json::serialize(*answer).c_str());
    return exit_ok;
  }
  const auto seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  if (loading) {
    const std::string device = text_at(*answer, "device");
    fmt::print("{} is loaded{}, after {:.1f} s\n", printable(flags.model),
               device.empty() ? std::string() : fmt::format(" on {}: {}", device, show_memory(*answer)), seconds);
  } else {
    fmt::print("{} is unloaded\n", printable(flags.model));
  }
  return exit_ok;
}

void add_remote_flags(CLI::App& command, PsFlags& flags) {
  command.add_option("--url", flags.url, "Server to ask [HEARTH_URL, else http://127.0.0.1:8085]")->type_name("URL");
  command.add_option("--api-key-file", flags.api_key_file, "File that holds the API key [the variable HEARTH_API_KEY]")->type_name("FILE");
  command.add_flag("--json", flags.json, "Print JSON");
}

}  // namespace

void add_ps(CLI::App& program, int& exit_code) {
  auto* command = program.add_subcommand("ps", "Show the models of a running server: state, device, memory, requests");
  auto flags = std::make_shared<PsFlags>();
  add_remote_flags(*command, *flags);
  command->footer(
      "Examples:\n"
      "  hearth ps\n"
      "  hearth ps --url http://server:8085 --json\n\n"
      "Memory in brackets is what a model is expected to take. Follow changes with: curl -N http://127.0.0.1:8085/admin/events");
  command->callback([flags, &exit_code] { exit_code = ps(*flags); });
}

void add_load(CLI::App& program, int& exit_code) {
  auto* command = program.add_subcommand("load", "Load a model on a running server, before anybody asks for it");
  auto flags = std::make_shared<PsFlags>();
  command->add_option("model", flags->model, "Model, by name")->required()->type_name("NAME");
  command->add_option("--keep", flags->keep, "Keep it so long after its last request, e.g. 10m; \"forever\" until it is unloaded")
      ->type_name("TIME");
  add_remote_flags(*command, *flags);
  command->footer("Examples:\n  hearth load qwen3-8b\n  hearth load qwen3-8b --keep 30m");
  command->callback([flags, &exit_code] { exit_code = change(*flags, true); });
}

void add_unload(CLI::App& program, int& exit_code) {
  auto* command = program.add_subcommand("unload", "Unload a model from a running server, once its running requests have finished");
  auto flags = std::make_shared<PsFlags>();
  command->add_option("model", flags->model, "Model, by name")->required()->type_name("NAME");
  add_remote_flags(*command, *flags);
  command->footer("Example:\n  hearth unload qwen3-8b");
  command->callback([flags, &exit_code] { exit_code = change(*flags, false); });
}

}  // namespace hearth::app
