#include "app/config.h"

#include <spdlog/fmt/fmt.h>
#include <toml++/toml.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>

#include "base/nearest.h"
#include "turboquant/profile.h"

namespace hearth::app {
namespace {

Result<void> kv_options(std::string_view given) {
  if (auto profile = turboquant::find_profile(given); !profile) {
    return Error{ErrorCode::config_invalid, "must be a profile with options that it has: " + profile.error().message};
  }
  return {};
}

constexpr std::int64_t kib = 1024, mib = 1024 * kib, gib = 1024 * mib;
constexpr std::int64_t day_ms = 24LL * 3600 * 1000;
using enum SettingKind;

constexpr std::array table{
    Setting{.key = "listen.host",
            .flag = "host",
            .kind = text,
            .fallback = "127.0.0.1",
            .help = "address to listen on; wider than loopback needs an API key"},
    Setting{.key = "listen.port",
            .flag = "port",
            .kind = integer,
            .fallback = "8085",
            .help = "TCP port; 0 takes a free one",
            .least = 0,
            .most = 65535},
    Setting{.key = "listen.allowed_hosts",
            .flag = "allowed-hosts",
            .kind = list,
            .fallback = "",
            .help = "further Host names accepted on loopback without API keys"},
    Setting{.key = "tls.certificate",
            .flag = "tls-certificate",
            .kind = text,
            .fallback = "",
            .help = "PEM file with the certificate chain; with tls.key, serves HTTPS"},
    Setting{.key = "tls.key", .flag = "tls-key", .kind = text, .fallback = "", .help = "PEM file with the certificate's private key"},
    Setting{.key = "auth.keys",
            .flag = "",
            .kind = keys,
            .fallback = "",
            .help = "API keys by client name: name = \"key\" or name = { file = \"path\" }",
            .secret = true},
    Setting{.key = "auth.api_key",
            .flag = "api-key",
            .kind = text,
            .fallback = "",
            .help = "one API key, for the client name \"default\"; best given as HEARTH_API_KEY",
            .secret = true},
    Setting{.key = "auth.api_key_file",
            .flag = "api-key-file",
            .kind = text,
            .fallback = "",
            .help = "file that holds the API key of the client name \"default\""},
    Setting{.key = "cors.origins",
            .flag = "cors-origins",
            .kind = list,
            .fallback = "",
            .help = "web origins whose pages may call, e.g. https://chat.example; * for any (needs API keys)"},
    Setting{.key = "limits.body",
            .flag = "max-body",
            .kind = bytes,
            .fallback = "64MiB",
            .help = "largest request body",
            .least = kib,
            .most = 4 * gib},
    Setting{.key = "limits.header",
            .flag = "max-header",
            .kind = bytes,
            .fallback = "32KiB",
            .help = "largest request header block",
            .least = kib,
            .most = mib},
    Setting{.key = "limits.connections",
            .flag = "max-connections",
            .kind = integer,
            .fallback = "4096",
            .help = "connections at a time; past it: 503",
            .least = 1,
            .most = 1'000'000},
    Setting{.key = "limits.header_timeout",
            .flag = "header-timeout",
            .kind = duration,
            .fallback = "10s",
            .help = "longest time a request's header may take",
            .least = 100,
            .most = day_ms},
    Setting{.key = "limits.body_timeout",
            .flag = "body-timeout",
            .kind = duration,
            .fallback = "60s",
            .help = "longest pause inside a request body",
            .least = 100,
            .most = day_ms},
    Setting{.key = "limits.idle_timeout",
            .flag = "idle-timeout",
            .kind = duration,
            .fallback = "75s",
            .help = "a kept connection without a request is closed after this",
            .least = 100,
            .most = day_ms},
    Setting{.key = "limits.write_timeout",
            .flag = "write-timeout",
            .kind = duration,
            .fallback = "60s",
            .help = "a client that takes no byte for this long is gone",
            .least = 100,
            .most = day_ms},
    Setting{
        .key = "model.path",
        .flag = "model",
        .kind = text,
        .fallback = "embedded:",
        .help = "GGUF file to serve (first part of a split one); embedded: is the demonstration model, served when no other is configured",
        .worker = true},
    Setting{.key = "model.id",
            .flag = "model-id",
            .kind = text,
            .fallback = "",
            .help = "name clients use; empty = the file's name without .gguf",
            .worker = true},
    Setting{.key = "model.aliases",
            .flag = "model-aliases",
            .kind = list,
            .fallback = "",
            .help = "further names clients may use, e.g. gpt-4o"},
    Setting{.key = "model.context",
            .flag = "context",
            .kind = integer,
            .fallback = "0",
            .help = "KV cache size in tokens, shared by all running requests; 0 = the model's own, at most 32768",
            .least = 0,
            .most = 1 << 28,
            .worker = true},
    Setting{.key = "model.threads",
            .flag = "threads",
            .kind = integer,
            .fallback = "0",
            .help = "CPU threads that compute; 0 = physical cores",
            .least = 0,
            .most = 1024,
            .worker = true},
    Setting{.key = "model.gpu_layers",
            .flag = "gpu-layers",
            .kind = integer,
            .fallback = "-1",
            .help = "layers on the GPU; -1 = all when there is one",
            .least = -1,
            .most = 4096,
            .worker = true},
    Setting{
        .key = "model.kv_type",
        .flag = "kv-type",
        .kind = choice,
        .fallback = "f16",
        .help =
            "number format of the KV cache; k8v4 and the like are TurboQuant profiles, with options as in \"k3v2,sinks=4\"; `kv` for short",
        .choices = "f16 q8_0 q4_0 k8v8 k8v4 k4v4 k4v3 k3v2",
        .options = kv_options,
        .worker = true},
    Setting{.key = "model.adapters",
            .flag = "adapters",
            .kind = paths,
            .fallback = "",
            .help = "LoRA adapters by name: NAME = \"PATH.gguf\"; chosen per request as \"model:NAME\"",
            .worker = true,
            .path = true},
    Setting{.key = "model.adapter_folder",
            .flag = "adapter-folder",
            .kind = text,
            .fallback = "",
            .help = "folder whose adapters may be chosen by file name",
            .worker = true,
            .path = true},
    Setting{.key = "model.adapter_bytes",
            .flag = "adapter-bytes",
            .kind = bytes,
            .fallback = "1GiB",
            .help = "memory for loaded adapters; past it the least recently used goes",
            .worker = true},
    Setting{
        .key = "model.speculation",
        .flag = "speculation",
        .kind = choice,
        .fallback = "auto",
        .help = "how tokens are guessed ahead: from repetition, by a draft model or by the model's own MTP blocks; answers stay the same",
        .choices = "off auto lookup draft mtp",
        .worker = true},
    Setting{.key = "model.draft_model",
            .flag = "draft-model",
            .kind = text,
            .fallback = "",
            .help = "small GGUF of the same vocabulary that guesses ahead",
            .worker = true,
            .path = true},
    Setting{.key = "model.draft_max",
            .flag = "draft-max",
            .kind = integer,
            .fallback = "32",
            .help = "tokens guessed at once, at most",
            .least = 1,
            .most = 63,
            .worker = true},
    Setting{.key = "model.mmproj",
            .flag = "mmproj",
            .kind = text,
            .fallback = "",
            .help = "GGUF of the vision projector, for models that take images",
            .worker = true,
            .path = true},
    Setting{.key = "model.mmproj_idle",
            .flag = "mmproj-idle",
            .kind = duration,
            .fallback = "5m",
            .help = "the projector is loaded with the first image and unloaded this long after the last one",
            .least = 1000,
            .most = 365 * day_ms,
            .choices = "never",
            .worker = true},
    Setting{.key = "fleet.folder",
            .flag = "models-folder",
            .kind = text,
            .fallback = "",
            .help = "every GGUF file in this folder is a model, loaded when it is asked for",
            .path = true},
    Setting{.key = "fleet.memory",
            .flag = "memory",
            .kind = bytes,
            .fallback = "auto",
            .help = "host memory all loaded models together may take; auto = what is free at the start, less a reserve",
            .least = mib,
            .choices = "auto"},
    Setting{.key = "fleet.turn",
            .flag = "turn",
            .kind = duration,
            .fallback = "5s",
            .help = "two models that do not fit side by side take turns: nobody waits longer than this for the other one to begin to leave",
            .least = 0,
            .most = day_ms},
    Setting{.key = "fleet.idle_unload",
            .flag = "idle-unload",
            .kind = duration,
            .fallback = "never",
            .help = "a model nobody asked for this long is unloaded; never = only when others need the room",
            .least = 1000,
            .most = 365 * day_ms,
            .choices = "never"},
    Setting{.key = "fleet.queue_limit",
            .flag = "load-queue-limit",
            .kind = integer,
            .fallback = "256",
            .help = "requests that may wait for models to be loaded; past it: 429",
            .least = 0,
            .most = 1'000'000},
    Setting{.key = "scheduler.parallel",
            .flag = "parallel",
            .kind = integer,
            .fallback = "16",
            .help = "requests that generate at the same time",
            .least = 1,
            .most = 256,
            .worker = true},
    Setting{.key = "scheduler.queue_limit",
            .flag = "queue-limit",
            .kind = integer,
            .fallback = "256",
            .help = "requests that may wait; past it: 429",
            .least = 0,
            .most = 1'000'000,
            .worker = true},
    Setting{
        .key = "scheduler.prefix_cache",
        .flag = "prefix-cache",
        .kind = bytes,
        .fallback = "auto",
        .help =
            "KV kept for requests that begin alike, in cells and host memory; auto = an eighth of the free memory, at most 4GiB; 0 = off",
        .choices = "auto",
        .worker = true},
    Setting{.key = "scheduler.park",
            .flag = "park",
            .kind = bytes,
            .fallback = "4GiB",
            .help = "host memory for paused background requests",
            .worker = true},
    Setting{.key = "scheduler.park_disk",
            .flag = "park-disk",
            .kind = bytes,
            .fallback = "0",
            .help = "disk, of each model, for KV that scheduler.park and scheduler.prefix_cache do not hold; encrypted, gone when the "
                    "model leaves; 0 = off",
            .worker = true},
    Setting{.key = "timeouts.first_token",
            .flag = "first-token-timeout",
            .kind = duration,
            .fallback = "auto",
            .help = "longest silence of the engine before an answer's first token; auto = 90s on a GPU, 5m elsewhere",
            .least = 100,
            .most = day_ms,
            .choices = "auto"},
    Setting{.key = "timeouts.between_tokens",
            .flag = "between-tokens-timeout",
            .kind = duration,
            .fallback = "2m",
            .help = "longest silence of the engine inside an answer",
            .least = 100,
            .most = day_ms},
    Setting{.key = "timeouts.hang",
            .flag = "hang-timeout",
            .kind = duration,
            .fallback = "2m",
            .help = "an engine with work that makes no step for this long is replaced",
            .least = 1000,
            .most = day_ms},
    Setting{.key = "timeouts.start",
            .flag = "start-timeout",
            .kind = duration,
            .fallback = "60s",
            .help = "how long a request waits for an engine that is starting",
            .least = 0,
            .most = day_ms},
    Setting{.key = "timeouts.drain",
            .flag = "drain-timeout",
            .kind = duration,
            .fallback = "30s",
            .help = "running answers get this long when hearth stops",
            .least = 0,
            .most = day_ms,
            .worker = true},
    Setting{.key = "timeouts.keep_alive",
            .flag = "keep-alive",
            .kind = duration,
            .fallback = "10s",
            .help = "a silent stream gets a comment frame this often",
            .least = 100,
            .most = day_ms},
    Setting{.key = "engine.url",
            .flag = "engine-url",
            .kind = text,
            .fallback = "",
            .help = "serve this OpenAI-compatible endpoint instead of a model file, e.g. http://127.0.0.1:8080"},
    Setting{.key = "engine.api_key",
            .flag = "engine-api-key",
            .kind = text,
            .fallback = "",
            .help = "key sent to engine.url; best given as HEARTH_ENGINE_API_KEY",
            .secret = true},
    Setting{.key = "safety.mode",
            .flag = "safety",
            .kind = choice,
            .fallback = "enforce",
            .help = "tool calls are judged before they leave: enforce; observe records verdicts and releases everything; off",
            .choices = "enforce observe off"},
    Setting{.key = "safety.policy",
            .flag = "safety-policy",
            .kind = text,
            .fallback = "",
            .help = "policy file; empty = the shipped one. Read again when it changes, on SIGHUP and by the admin API",
            .path = true},
    Setting{.key = "safety.working_folder",
            .flag = "safety-working-folder",
            .kind = text,
            .fallback = "",
            .help = "where the clients' tools work; empty = as the agent's own prompt states it"},
    Setting{.key = "safety.writable",
            .flag = "safety-writable",
            .kind = list,
            .fallback = "/tmp",
            .help = "folders that tools may write to beside the working folder"},
    Setting{.key = "safety.protected",
            .flag = "safety-protected",
            .kind = list,
            .fallback = "",
            .help = "globs of paths that no tool may change, beyond system folders, keys and start-up files"},
    Setting{.key = "safety.trusted_hosts",
            .flag = "safety-trusted-hosts",
            .kind = list,
            .fallback = "",
            .help = "hosts that code may come from and data may go to, e.g. git.example.org or *.example.org"},
    Setting{
        .key = "safety.approval",
        .flag = "safety-approval",
        .kind = choice,
        .fallback = "hold",
        .help = "a call that needs a person: hold waits for `hearth approvals`; deny refuses it and tells the agent what would be accepted",
        .choices = "hold deny"},
    Setting{.key = "safety.approval_timeout",
            .flag = "safety-approval-timeout",
            .kind = duration,
            .fallback = "2m",
            .help = "nobody's word within this is a no",
            .least = 1000,
            .most = day_ms},
    Setting{.key = "safety.approvers",
            .flag = "safety-approvers",
            .kind = list,
            .fallback = "",
            .help = "names of API keys that may approve held calls; empty = every key"},
    Setting{.key = "safety.judge_timeout",
            .flag = "safety-judge-timeout",
            .kind = duration,
            .fallback = "2s",
            .help = "a call that is not judged within this is refused",
            .least = 10,
            .most = 60'000},
    Setting{.key = "safety.call_bytes",
            .flag = "safety-call-bytes",
            .kind = bytes,
            .fallback = "1MiB",
            .help = "longest call that is judged; a longer one is refused",
            .least = kib,
            .most = 16 * mib},
    Setting{.key = "safety.audit_arguments",
            .flag = "safety-audit-arguments",
            .kind = choice,
            .fallback = "masked",
            .help = "what the audit log keeps of a call's arguments beside their hash: a masked excerpt, nothing, or all of them",
            .choices = "masked none full"},
    Setting{.key = "safety.detect",
            .flag = "safety-detect",
            .kind = list,
            .fallback = "markings,secrets,personal,documents",
            .help = "what is looked for in arguments, results and text",
            .choices = "markings secrets personal documents"},
    Setting{
        .key = "safety.text",
        .flag = "safety-text",
        .kind = choice,
        .fallback = "off",
        .help =
            "the model's own text: off; audit records what is found; redact puts stand-ins; deny ends the answer where the policy refuses",
        .choices = "off audit redact deny"},
    Setting{.key = "safety.protected_documents",
            .flag = "safety-protected-documents",
            .kind = list,
            .fallback = "",
            .help = "files whose passages must not leave; only fingerprints are kept"},
    Setting{.key = "safety.learned",
            .flag = "safety-learned",
            .kind = list,
            .fallback = "guard,trajectory",
            .help = "the learned layers that are asked; they only tighten",
            .choices = "guard trajectory"},
    Setting{.key = "log.level",
            .flag = "log-level",
            .kind = choice,
            .fallback = "info",
            .help = "how much is logged on standard error",
            .choices = "trace debug info warn error off",
            .worker = true},
    Setting{.key = "state.folder",
            .flag = "state-folder",
            .kind = text,
            .fallback = "",
            .help = "folder hearth may write to; empty = $STATE_DIRECTORY, $XDG_STATE_HOME/hearth or ~/.local/state/hearth",
            .worker = true},
};

// The same setting as `like` in a model's own table. What is particular to one model does not fall back to it.
consteval Setting own(std::string_view key, std::string_view like, std::string_view kinds, bool particular = false) {
  for (Setting setting : table) {
    if (setting.key != like) continue;
    setting.key = key;
    setting.flag = {};
    setting.kinds = kinds;
    if (!particular) setting.global = like;
    return setting;
  }
  throw "no such setting";  // does not compile
}

constexpr std::array model_table{
    Setting{.key = "kind",
            .kind = choice,
            .fallback = "worker",
            .help = "worker: a GGUF file in hearth's own engine; command: a server hearth starts; openai, anthropic: a remote endpoint",
            .choices = "worker command openai anthropic"},
    Setting{.key = "path",
            .kind = text,
            .help = "GGUF file (first part of a split one), or embedded:; for a command only to know its size",
            .path = true,
            .kinds = "worker command"},
    Setting{.key = "aliases", .kind = list, .help = "further names clients may use"},
    Setting{.key = "roles",
            .kind = list,
            .help = "what it is for; empty = as its file says, else chat. The first model of a role answers requests that name none",
            .choices = "chat embedding reranker classifier vision reward"},
    own("context", "model.context", ""),
    own("threads", "model.threads", "worker"),
    own("gpu_layers", "model.gpu_layers", "worker command"),
    own("kv_type", "model.kv_type", "worker command"),
    own("parallel", "scheduler.parallel", "worker"),
    own("prefix_cache", "scheduler.prefix_cache", "worker"),
    Setting{.key = "pinned",
            .kind = boolean,
            .fallback = "false",
            .help = "loaded at the start and never unloaded for another",
            .kinds = "worker command"},
    Setting{.key = "preload",
            .kind = boolean,
            .fallback = "false",
            .help = "loaded at the start, as far as memory allows",
            .kinds = "worker command"},
    own("idle_unload", "fleet.idle_unload", "worker command"),
    Setting{.key = "memory",
            .kind = bytes,
            .fallback = "auto",
            .help = "memory it takes while loaded; auto = predicted from its file",
            .choices = "auto",
            .kinds = "worker command"},
    own("adapters", "model.adapters", "worker", true),
    own("adapter_folder", "model.adapter_folder", "worker", true),
    own("adapter_bytes", "model.adapter_bytes", "worker"),
    own("speculation", "model.speculation", "worker"),
    own("draft_model", "model.draft_model", "worker", true),
    own("draft_max", "model.draft_max", "worker"),
    own("mmproj", "model.mmproj", "worker", true),
    own("mmproj_idle", "model.mmproj_idle", "worker"),
    Setting{.key = "command",
            .kind = list,
            .help = "program and arguments of an OpenAI-compatible server; {port} becomes the port it is to listen on",
            .kinds = "command"},
    Setting{.key = "health_path", .kind = text, .fallback = "/health", .help = "answers 200 once the server can serve", .kinds = "command"},
    Setting{.key = "url",
            .kind = list,
            .help = "base address, e.g. https://api.example.com/v1; a list of them serves the same model",
            .lone = true,
            .kinds = "openai anthropic"},
    Setting{.key = "api_key",
            .kind = key,
            .help = "sent to it: \"key\", { file = \"path\" } or { env = \"NAME\" }",
            .secret = true,
            .kinds = "command openai anthropic"},
    Setting{.key = "remote_model", .kind = text, .help = "its name there; empty = the same", .kinds = "command openai anthropic"},
    Setting{.key = "tool_dialect",
            .kind = choice,
            .fallback = "none",
            .help = "for engines that do not parse tool calls: how the model writes them as text",
            .choices = "none automatic hermes qwen_xml llama3 mistral deepseek functionary fenced",
            .kinds = "command openai"},
    Setting{.key = "concurrency",
            .kind = integer,
            .fallback = "0",
            .help = "requests it gets at a time, the others wait; 0 = no limit",
            .least = 0,
            .most = 1'000'000},
    Setting{.key = "max_tokens",
            .kind = integer,
            .fallback = "0",
            .help = "longest answer a request may ask for; 0 = no limit",
            .least = 0,
            .most = 1 << 28},
    own("first_token", "timeouts.first_token", ""),
    own("between_tokens", "timeouts.between_tokens", ""),
};

// The one setting with a short name.
std::string full_name(std::string_view leaf) { return std::string(leaf == "kv" ? "kv_type" : leaf); }
Result<void> given_twice(const toml::table& entries, std::string_view leaf) {
  if (leaf != "kv" || !entries.contains("kv_type")) return {};
  return Error{ErrorCode::config_invalid, "\"kv\" is short for \"kv_type\": give one of them"};
}

const Setting* find_setting(std::span<const Setting> among, std::string_view key) {
  const auto it = std::find_if(among.begin(), among.end(), [&](const Setting& s) { return s.key == key; });
  return it == among.end() ? nullptr : &*it;
}

Error config_error(std::string message) { return Error{ErrorCode::config_invalid, std::move(message), {}}; }

std::string trimmed(std::string_view text) {
  const auto from = text.find_first_not_of(" \t\r\n");
  if (from == std::string_view::npos) return {};
  return std::string(text.substr(from, text.find_last_not_of(" \t\r\n") - from + 1));
}

std::optional<std::int64_t> parse_integer(std::string_view text) {
  std::int64_t value = 0;
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (ec != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

struct Unit {
  std::string_view name;
  std::int64_t factor;
};
constexpr Unit byte_units[] = {{"", 1},    {"B", 1},   {"KiB", kib}, {"MiB", mib},     {"GiB", gib}, {"TiB", 1024 * gib},
                               {"K", kib}, {"M", mib}, {"G", gib},   {"T", 1024 * gib}};
constexpr Unit duration_units[] = {{"", 1000}, {"ms", 1}, {"s", 1000}, {"m", 60'000}, {"min", 60'000}, {"h", 3'600'000}};

// "1.5GiB" with the units above.
std::optional<std::int64_t> parse_quantity(std::string_view text, std::span<const Unit> units) {
  const std::string clean = trimmed(text);
  double number = 0;
  const auto [end, ec] = std::from_chars(clean.data(), clean.data() + clean.size(), number);
  if (ec != std::errc() || !std::isfinite(number) || number < 0) return std::nullopt;
  const std::string unit = trimmed(std::string_view(end, static_cast<std::size_t>(clean.data() + clean.size() - end)));
  for (const auto& u : units) {
    if (u.name != unit) continue;
    const double value = number * static_cast<double>(u.factor);
    if (value > 9e18) return std::nullopt;
    return static_cast<std::int64_t>(std::llround(value));
  }
  return std::nullopt;
}

std::vector<std::string_view> words_of(std::string_view text) {
  std::vector<std::string_view> out;
  while (!text.empty()) {
    const auto end = std::min(text.find(' '), text.size());
    out.push_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return out;
}

std::string show_quantity(std::int64_t value, std::span<const Unit> units) {
  const Unit* best = nullptr;
  for (const auto& unit : units) {
    if (!unit.name.empty() && value % unit.factor == 0 && (best == nullptr || unit.factor > best->factor)) best = &unit;
  }
  if (value == 0 || best == nullptr) return "0" + std::string(units[1].name);
  return std::to_string(value / best->factor) + std::string(best->name);
}

// What a right value looks like, for messages.
std::string expected(const Setting& setting) {
  switch (setting.kind) {
    case text: return "a text in quotes";
    case integer:
      return setting.most == INT64_MAX ? fmt::format("a whole number from {}", setting.least)
                                       : fmt::format("a whole number from {} to {}", setting.least, setting.most);
    case bytes:
      return setting.choices.empty() ? "a size such as \"64MiB\" or a number of bytes"
                                     : fmt::format("a size such as \"64MiB\", a number of bytes, or \"{}\"", setting.choices);
    case duration:
      return setting.choices.empty()
                 ? "a duration such as \"90s\", \"500ms\", \"2m\" or a number of seconds"
                 : fmt::format("a duration such as \"90s\", \"500ms\", \"2m\", a number of seconds, or \"{}\"", setting.choices);
    case choice: return fmt::format("one of {}", fmt::join(words_of(setting.choices), ", "));
    case boolean: return "true or false";
    case list: return setting.lone ? "a text or a list of texts" : "a list of texts";
    case paths: return "a table of files: { NAME = \"PATH\" }";
    case key: return "\"KEY\", { file = \"PATH\" } or { env = \"NAME\" }";
    case keys: return "a table of keys: name = \"key\" or name = { file = \"path\" }";
  }
  return {};
}

std::string out_of_range(const Setting& setting) {
  const auto show = [&](std::int64_t value) {
    return setting.kind == bytes      ? show_quantity(value, byte_units)
           : setting.kind == duration ? show_quantity(value, duration_units)
                                      : std::to_string(value);
  };
  if (setting.most == INT64_MAX) return fmt::format("must be at least {}", show(setting.least));
  return fmt::format("must be between {} and {}", show(setting.least), show(setting.most));
}

Result<ConfigValue> in_range(const Setting& setting, std::int64_t value) {
  if (value < setting.least || value > setting.most) return config_error(out_of_range(setting));
  return ConfigValue(value);
}

// "a, b" → a and b.
std::vector<std::string> items_of(std::string_view given) {
  std::vector<std::string> out;
  while (!given.empty()) {
    const auto end = std::min(given.find(','), given.size());
    if (auto item = trimmed(given.substr(0, end)); !item.empty()) out.push_back(std::move(item));
    given.remove_prefix(std::min(end + 1, given.size()));
  }
  return out;
}

// A word as it is, where the setting takes any or this one.
Result<std::string> known_word(const Setting& setting, std::string_view given) {
  const auto words = words_of(setting.choices);
  if (words.empty() || std::find(words.begin(), words.end(), given) != words.end()) return std::string(given);
  const std::string near = nearest(given, words);
  return config_error(fmt::format("must be {}{}, not \"{}\"{}", setting.kind == list ? "a list of texts, each " : "",
                                  setting.kind == list ? fmt::format("one of {}", fmt::join(words, ", ")) : expected(setting), given,
                                  near.empty() ? "" : fmt::format("; did you mean \"{}\"?", near)));
}

// From a flag, a variable, or a text in the file.
Result<ConfigValue> parse_text(const Setting& setting, std::string_view given) {
  const auto wrong = [&] { return config_error(fmt::format("must be {}, not \"{}\"", expected(setting), given)); };
  switch (setting.kind) {
    case text: return ConfigValue(std::string(given));
    case integer: {
      const auto number = parse_integer(given);
      if (!number) return wrong();
      return in_range(setting, *number);
    }
    case bytes:
    case duration: {
      if (!setting.choices.empty() && given == setting.choices) return ConfigValue(std::int64_t{-1});
      const auto number = setting.kind == bytes ? parse_quantity(given, byte_units) : parse_quantity(given, duration_units);
      if (!number) return wrong();
      return in_range(setting, *number);
    }
    case choice: {
      const auto comma = setting.options != nullptr ? given.find(',') : std::string_view::npos;
      if (auto word = known_word(setting, given.substr(0, comma)); !word) return std::move(word).error();
      if (comma != std::string_view::npos) {
        if (auto fit = setting.options(given); !fit) return std::move(fit).error();
      }
      return ConfigValue(std::string(given));
    }
    case boolean:
      if (given == "true" || given == "1") return ConfigValue(std::int64_t{1});
      if (given == "false" || given == "0" || given.empty()) return ConfigValue(std::int64_t{0});
      return wrong();
    case list: {
      std::vector<std::string> out;
      for (auto& item : items_of(given)) {
        auto word = known_word(setting, item);
        if (!word) return std::move(word).error();
        out.push_back(std::move(*word));
      }
      return ConfigValue(std::move(out));
    }
    case paths: {
      std::map<std::string, std::string> out;
      for (const auto& item : items_of(given)) {
        const auto equals = item.find('=');
        if (equals == std::string::npos || equals == 0 || equals + 1 == item.size())
          return config_error(fmt::format("must be NAME=PATH, or several with commas between, not \"{}\"", item));
        out[trimmed(item.substr(0, equals))] = trimmed(item.substr(equals + 1));
      }
      return ConfigValue(std::move(out));
    }
    case key: return ConfigValue(std::string(given));
    case keys: break;
  }
  return ConfigValue(std::map<std::string, std::string>());
}

std::string_view toml_type_name(const toml::node& node) {
  switch (node.type()) {
    case toml::node_type::table: return "a table";
    case toml::node_type::array: return "an array";
    case toml::node_type::string: return "a text";
    case toml::node_type::integer: return "a whole number";
    case toml::node_type::floating_point: return "a number with a fraction";
    case toml::node_type::boolean: return "true or false";
    default: return "a date or time";
  }
}

// The first line of a key file. The path is relative to the folder of the configuration file.
Result<std::string> read_key_file(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::string line;
  if (!file || !std::getline(file, line)) return config_error(fmt::format("the key file {} cannot be read or is empty", path.string()));
  line = trimmed(line);
  if (line.empty()) return config_error(fmt::format("the key file {} begins with an empty line; put the key there", path.string()));
  return line;
}

std::string toml_text(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    if (static_cast<unsigned char>(c) < 0x20) {
      out += fmt::format("\\u{:04x}", static_cast<unsigned char>(c));
    } else {
      out += c;
    }
  }
  return out + "\"";
}

// A table's name as the file would write it.
std::string toml_key(std::string_view name) {
  const bool bare =
      !name.empty() && std::all_of(name.begin(), name.end(), [](unsigned char c) { return std::isalnum(c) != 0 || c == '_' || c == '-'; });
  return bare ? std::string(name) : toml_text(name);
}

std::string_view leaf_of(const Setting& setting) { return setting.key.substr(setting.key.find('.') + 1); }

class FileReader {
 public:
  FileReader(Config& config, std::string path, const Environment& environment)
      : config_(config), path_(std::move(path)), environment_(environment) {}

  Result<void> read() {
    std::ifstream file(path_);
    if (!file) return config_error(fmt::format("the configuration file {} cannot be read", path_));
    const std::string source{std::istreambuf_iterator<char>(file), {}};
    try {
      const toml::table root = toml::parse(source, path_);
      for (const auto& [name, node] : root) {
        auto done = name.str() == "models" ? models(node, name.source()) : section(std::string(name.str()), node, name.source());
        if (!done) return done;
      }
    } catch (const toml::parse_error& fault) { return at(fault.source(), std::string(fault.description())); }
    return {};
  }

 private:
  Error at(const toml::source_region& where, const std::string& message) const {
    return config_error(fmt::format("{}:{}:{}: {}", path_, where.begin.line, where.begin.column, message));
  }
  // "listen.port must be …", "auth.keys: the key …".
  static std::string about(const std::string& key, const Error& fault) {
    return key + (fault.message.starts_with(':') ? "" : " ") + fault.message;
  }
  std::string line_of(const toml::source_region& where) const { return fmt::format("{}:{}", path_, where.begin.line); }

  Result<void> section(const std::string& name, const toml::node& node, const toml::source_region& where) {
    std::vector<std::string_view> sections, leaves, all;
    for (const auto& setting : table) {
      const auto dot = setting.key.find('.');
      if (const auto part = setting.key.substr(0, dot); sections.empty() || sections.back() != part) sections.push_back(part);
      leaves.push_back(setting.key.substr(dot + 1));
      all.push_back(setting.key);
    }
    sections.push_back("models");
    const bool known = std::find(sections.begin(), sections.end(), name) != sections.end();
    if (!known) {
      std::string message = fmt::format("\"{}\" is not a {}", name, node.is_table() ? "section" : "setting");
      // A right key outside its section is as common as a misspelt one.
      if (const auto leaf = std::find(leaves.begin(), leaves.end(), name); leaf != leaves.end() && !node.is_table()) {
        const auto& setting = table[static_cast<std::size_t>(leaf - leaves.begin())];
        message += fmt::format("; did you mean {} in section [{}]?", name, setting.key.substr(0, setting.key.find('.')));
      } else if (const std::string near = nearest(name, node.is_table() ? sections : leaves); !near.empty()) {
        message += fmt::format("; did you mean \"{}\"?", near);
      } else {
        message += fmt::format("; sections are {}", fmt::join(sections, ", "));
      }
      return at(where, message);
    }
    const auto* entries = node.as_table();
    if (entries == nullptr)
      return at(where, fmt::format("\"{}\" is a section: write [{}] on a line of its own, and its settings below", name, name));
    for (const auto& [leaf, value] : *entries) {
      const std::string key = name + "." + full_name(leaf.str());
      if (auto twice = given_twice(*entries, leaf.str()); !twice) return at(leaf.source(), twice.error().message);
      const Setting* setting = find_setting(table, key);
      if (setting == nullptr) {
        std::vector<std::string_view> here;
        for (const auto& s : table) {
          if (s.key.starts_with(name + ".")) here.push_back(leaf_of(s));
        }
        const std::string near = nearest(leaf.str(), here);
        const std::string elsewhere = near.empty() ? nearest(key, all) : std::string();
        return at(leaf.source(), fmt::format("\"{}\" is not a setting{}", key,
                                             !near.empty()        ? fmt::format("; did you mean \"{}.{}\"?", name, near)
                                             : !elsewhere.empty() ? fmt::format("; did you mean \"{}\"?", elsewhere)
                                                                  : fmt::format("; [{}] has {}", name, fmt::join(here, ", "))));
      }
      auto parsed = read_value(*setting, value);
      if (!parsed) return at(value.source(), about(key, parsed.error()));
      config_.set(key, std::move(*parsed), line_of(leaf.source()));
    }
    return {};
  }

  Result<void> models(const toml::node& node, const toml::source_region& where) {
    const auto* tables = node.as_table();
    if (tables == nullptr)
      return at(where, "\"models\" is a section: write [models.NAME] on a line of its own, and the model's settings below");
    struct Found {
      std::string name;
      const toml::node* node;
      toml::source_region where;
    };
    std::vector<Found> found;
    for (const auto& [name, entry] : *tables) found.push_back({std::string(name.str()), &entry, name.source()});
    // The order of the file counts: the first model of a role is its default.
    std::sort(found.begin(), found.end(), [](const Found& a, const Found& b) {
      return std::pair(a.where.begin.line, a.where.begin.column) < std::pair(b.where.begin.line, b.where.begin.column);
    });
    for (const auto& one : found) {
      if (!one.node->is_table()) {
        const bool fleet = find_setting(table, "fleet." + one.name) != nullptr;
        return at(one.where, fmt::format("\"models.{}\" must be a table, one for each model: [models.NAME]{}", one.name,
                                         fleet ? fmt::format("; did you mean {} in section [fleet]?", one.name) : ""));
      }
      auto done = model(one.name, *one.node->as_table(), one.where);
      if (!done) return done;
    }
    return {};
  }

  Result<void> model(const std::string& name, const toml::table& entries, const toml::source_region& where) {
    const std::string shown = "models." + toml_key(name);
    const bool plain = std::all_of(name.begin(), name.end(), [](unsigned char c) { return c > ' ' && c != 0x7f; });
    if (name.empty() || name.size() > 200 || !plain)
      return at(where, fmt::format("\"{}\" cannot name a model: 1 to 200 characters, without spaces", shown));
    ModelConfig model;
    model.name = name;
    model.place = line_of(where);
    std::vector<std::string_view> leaves;
    for (const auto& setting : model_table) leaves.push_back(setting.key);
    for (const auto& [leaf, value] : entries) {
      const std::string key = full_name(leaf.str());
      if (auto twice = given_twice(entries, leaf.str()); !twice) return at(leaf.source(), twice.error().message);
      const Setting* setting = find_setting(model_table, key);
      if (setting == nullptr) {
        const std::string near = nearest(key, leaves);
        // [models.qwen2.5-7b] is a table "5-7b" in a table "qwen2".
        if (value.is_table() && near.empty())
          return at(leaf.source(), fmt::format("\"{}\" is not a setting of a model; a name with a dot stands in quotes: [models.\"{}.{}\"]",
                                               key, name, key));
        return at(leaf.source(), fmt::format("\"{}.{}\" is not a setting of a model{}", shown, key,
                                             near.empty() ? fmt::format("; there are {}", fmt::join(leaves, ", "))
                                                          : fmt::format("; did you mean \"{}\"?", near)));
      }
      auto parsed = read_value(*setting, value);
      if (!parsed) return at(value.source(), about(fmt::format("{}.{}", shown, key), parsed.error()));
      model.set(key, std::move(*parsed), line_of(leaf.source()));
      model.given.insert(key);
    }
    const std::string kind = model.given.contains("kind") ? model.text("kind") : "worker";
    for (const auto& key : model.given) {
      const Setting& setting = *find_setting(model_table, key);
      const auto kinds = words_of(setting.kinds);
      if (kinds.empty() || std::find(kinds.begin(), kinds.end(), kind) != kinds.end()) continue;
      return config_error(fmt::format("{}: {}.{} is for models of kind {}, and this one is of kind {}{}", model.origin(key), shown, key,
                                      fmt::join(kinds, " or "), kind, model.given.contains("kind") ? "" : " (the default)"));
    }
    config_.models.push_back(std::move(model));
    return {};
  }

  // Where a file name in the configuration file leads.
  std::string resolved(const std::string& given) const {
    if (given.empty() || given == "embedded:") return given;
    if (given.starts_with("~/")) {
      const char* home = environment_ ? environment_("HOME") : nullptr;
      if (home != nullptr) return home + given.substr(1);
    }
    return (std::filesystem::path(path_).parent_path() / given).lexically_normal().string();
  }

  Result<ConfigValue> read_value(const Setting& setting, const toml::node& node) {
    const auto wrong = [&](const toml::node& found) {
      return config_error(fmt::format("must be {}, not {}", expected(setting), toml_type_name(found)));
    };
    const auto* as_text = node.as_string();
    switch (setting.kind) {
      case keys:
      case paths: {
        const auto* entries = node.as_table();
        if (entries == nullptr) return wrong(node);
        std::map<std::string, std::string> out;
        for (const auto& [name, value] : *entries) {
          auto read = setting.kind == keys ? read_named_key(std::string(name.str()), value) : read_path(std::string(name.str()), value);
          if (!read) return std::move(read).error();
          out[std::string(name.str())] = std::move(*read);
        }
        return ConfigValue(std::move(out));
      }
      case key: {
        auto read = read_key(node);
        if (!read) return std::move(read).error();
        return ConfigValue(std::move(*read));
      }
      case list: {
        if (setting.lone && as_text != nullptr) return ConfigValue(std::vector<std::string>{as_text->get()});
        const auto* items = node.as_array();
        if (items == nullptr) return wrong(node);
        std::vector<std::string> out;
        for (const auto& item : *items) {
          const auto* value = item.as_string();
          if (value == nullptr) return config_error(fmt::format("must be a list of texts, but one is {}", toml_type_name(item)));
          auto word = known_word(setting, value->get());
          if (!word) return std::move(word).error();
          out.push_back(std::move(*word));
        }
        return ConfigValue(std::move(out));
      }
      case boolean: {
        const auto* value = node.as_boolean();
        if (value == nullptr) return wrong(node);
        return ConfigValue(std::int64_t{value->get()});
      }
      case integer:
      case bytes:
      case duration:
        if (const auto* value = node.as_integer(); value != nullptr) {
          if (setting.kind != duration) return in_range(setting, value->get());
          return value->get() > setting.most / 1000 ? Result<ConfigValue>(config_error(out_of_range(setting)))
                                                    : in_range(setting, value->get() * 1000);
        }
        if (const auto* value = node.as_floating_point(); value != nullptr && setting.kind == duration && std::abs(value->get()) < 1e9)
          return in_range(setting, static_cast<std::int64_t>(std::llround(value->get() * 1000)));
        if (as_text != nullptr && setting.kind != integer) return parse_text(setting, as_text->get());
        return wrong(node);
      case text:
      case choice:
        if (as_text == nullptr) return wrong(node);
        return parse_text(setting, setting.path ? resolved(as_text->get()) : as_text->get());
    }
    return wrong(node);
  }

  Result<std::string> read_path(const std::string& name, const toml::node& node) {
    const auto* path = node.as_string();
    if (path == nullptr || path->get().empty())
      return config_error(fmt::format(": the file of \"{}\" must be a text in quotes, not {}", name, toml_type_name(node)));
    // They travel to the worker as NAME=PATH,NAME=PATH.
    if ((name + path->get()).find(',') != std::string::npos || name.find('=') != std::string::npos)
      return config_error(fmt::format(": the name and the file of \"{}\" may hold no comma, and the name no \"=\"", name));
    return resolved(path->get());
  }

  Result<std::string> read_named_key(const std::string& name, const toml::node& node) {
    auto read = read_key(node);
    if (!read && (node.is_string() || node.is_table())) return read;
    if (!read) return config_error(fmt::format(": the key of \"{}\" must be a text, {{ file = \"path\" }} or {{ env = \"NAME\" }}", name));
    return read;
  }

  Result<std::string> read_key(const toml::node& node) {
    if (const auto* given = node.as_string(); given != nullptr) return given->get();
    if (const auto* entry = node.as_table(); entry != nullptr && entry->size() == 1) {
      if (const auto* file = entry->get_as<std::string>("file"); file != nullptr) return read_key_file(resolved(file->get()));
      if (const auto* variable = entry->get_as<std::string>("env"); variable != nullptr) {
        const char* value = environment_ ? environment_(variable->get().c_str()) : nullptr;
        if (value == nullptr || *value == '\0')
          return config_error(fmt::format("cannot be read: the variable {} is not set", variable->get()));
        return std::string(value);
      }
    }
    return config_error("must be \"KEY\", { file = \"PATH\" } or { env = \"NAME\" }");
  }

  Config& config_;
  const std::string path_;
  const Environment& environment_;
};

// As it would stand in the file.
std::string show(const Setting& setting, const ConfigValue& value) {
  constexpr std::string_view masked = "\"********\"";
  const auto word_or = [&](std::span<const Unit> units) {
    const auto number = std::get<std::int64_t>(value);
    return toml_text(number < 0 ? std::string(setting.choices) : show_quantity(number, units));
  };
  switch (setting.kind) {
    case key:
    case text:
    case choice: {
      const auto& given = std::get<std::string>(value);
      return setting.secret && !given.empty() ? std::string(masked) : toml_text(given);
    }
    case integer: return std::to_string(std::get<std::int64_t>(value));
    case bytes: return word_or(byte_units);
    case duration: return word_or(duration_units);
    case boolean: return std::get<std::int64_t>(value) != 0 ? "true" : "false";
    case list: {
      std::vector<std::string> items;
      for (const auto& item : std::get<std::vector<std::string>>(value)) items.push_back(toml_text(item));
      return fmt::format("[{}]", fmt::join(items, ", "));
    }
    case paths:
    case keys: {
      std::vector<std::string> items;
      for (const auto& [name, entry] : std::get<std::map<std::string, std::string>>(value))
        items.push_back(toml_key(name) + " = " + (setting.secret ? std::string(masked) : toml_text(entry)));
      return items.empty() ? "{}" : fmt::format("{{ {} }}", fmt::join(items, ", "));
    }
  }
  return {};
}

}  // namespace

std::span<const Setting> settings() { return table; }
std::span<const Setting> model_settings() { return model_table; }

std::string variable_name(const Setting& setting) {
  std::string out = "HEARTH_";
  for (const char c : setting.flag) out += c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return out;
}

const ConfigValues::Entry& ConfigValues::entry(std::string_view key) const {
  const auto it = entries_.find(key);
  assert(it != entries_.end());
  return it->second;
}
std::int64_t ConfigValues::integer(std::string_view key) const { return std::get<std::int64_t>(entry(key).value); }
const std::string& ConfigValues::text(std::string_view key) const { return std::get<std::string>(entry(key).value); }
const std::vector<std::string>& ConfigValues::list(std::string_view key) const {
  return std::get<std::vector<std::string>>(entry(key).value);
}
const std::map<std::string, std::string>& ConfigValues::keys(std::string_view key) const {
  return std::get<std::map<std::string, std::string>>(entry(key).value);
}
const std::string& ConfigValues::origin(std::string_view key) const { return entry(key).origin; }

void ConfigValues::set(std::string_view key, ConfigValue value, std::string origin) {
  entries_.insert_or_assign(std::string(key), Entry{std::move(value), std::move(origin)});
}

std::string ConfigValues::as_flag(const Setting& setting) const {
  const auto number_or_word = [&](std::string_view unit) {
    return integer(setting.key) < 0 ? std::string(setting.choices) : fmt::format("{}{}", integer(setting.key), unit);
  };
  switch (setting.kind) {
    case SettingKind::integer: return std::to_string(integer(setting.key));
    case boolean: return is(setting.key) ? "true" : "false";
    case bytes: return number_or_word("");
    case SettingKind::duration: return number_or_word("ms");
    case SettingKind::list: return fmt::format("{}", fmt::join(list(setting.key), ","));
    case paths: {
      std::string out;
      for (const auto& [name, path] : keys(setting.key)) out += fmt::format("{}{}={}", out.empty() ? "" : ",", name, path);
      return out;
    }
    default: return text(setting.key);
  }
}

ModelConfig Config::model(std::string name, std::string place, bool alone) const {
  ModelConfig out;
  out.name = std::move(name);
  out.place = std::move(place);
  for (const auto& setting : model_table) {
    std::string global(setting.global);
    if (global.empty() && alone) global = "model." + std::string(setting.key);
    if (find_setting(table, global) != nullptr) {
      const auto& general = entry(global);
      out.set(setting.key, general.value, general.origin);
    } else {
      auto value = parse_text(setting, setting.fallback);
      assert(value.ok());
      out.set(setting.key, std::move(*value), "default");
    }
  }
  return out;
}

std::string Config::print() const {
  std::string out;
  const auto add = [&](std::string_view name, const Setting& setting, const Entry& value) {
    out += fmt::format("{:<48}  # {}\n", fmt::format("{} = {}", name, show(setting, value.value)), value.origin);
  };
  std::string_view section;
  for (const auto& setting : table) {
    const auto dot = setting.key.find('.');
    if (setting.key.substr(0, dot) != section) {
      section = setting.key.substr(0, dot);
      out += fmt::format("{}[{}]\n", out.empty() ? "" : "\n", section);
    }
    add(leaf_of(setting), setting, entry(setting.key));
  }
  for (const auto& model : models) {
    out += fmt::format("\n{:<48}  # {}\n", fmt::format("[models.{}]", toml_key(model.name)), model.place);
    for (const auto& setting : model_table) {
      if (model.given.contains(setting.key)) add(setting.key, setting, model.entry(setting.key));
    }
  }
  return out;
}

std::string find_config_file(const Environment& environment) {
  const auto variable = [&](const char* name) {
    const char* value = environment ? environment(name) : nullptr;
    return std::string(value != nullptr ? value : "");
  };
  if (const std::string named = variable("HEARTH_CONFIG"); !named.empty()) return named;
  std::string home = variable("XDG_CONFIG_HOME");
  if (home.empty() && !variable("HOME").empty()) home = variable("HOME") + "/.config";
  std::vector<std::string> candidates;
  if (!home.empty()) candidates.push_back(home + "/hearth/hearth.toml");
  candidates.emplace_back("/etc/hearth/hearth.toml");
  for (const auto& candidate : candidates) {
    std::error_code ec;
    if (std::filesystem::exists(candidate, ec)) return candidate;
  }
  return {};
}

Result<Config> load_config(const ConfigSources& sources) {
  Config config;
  for (const auto& setting : table) {
    auto value = parse_text(setting, setting.fallback);
    assert(value.ok());
    config.set(setting.key, std::move(*value), "default");
  }
  const std::string file = sources.file.empty() ? find_config_file(sources.environment) : sources.file;
  if (!file.empty() && file != "none") {
    if (auto done = FileReader(config, file, sources.environment).read(); !done) return std::move(done).error();
  }
  for (const auto& setting : table) {
    if (setting.flag.empty()) continue;
    const std::string variable = variable_name(setting);
    if (const char* given = sources.environment ? sources.environment(variable.c_str()) : nullptr; given != nullptr) {
      auto value = parse_text(setting, given);
      if (!value) return config_error(variable + " " + value.error().message);
      config.set(setting.key, std::move(*value), variable);
    }
    if (const auto given = sources.flags.find(std::string(setting.flag)); given != sources.flags.end()) {
      auto value = parse_text(setting, given->second);
      if (!value) return config_error("--" + given->first + " " + value.error().message);
      config.set(setting.key, std::move(*value), "--" + given->first);
    }
  }
  for (auto& model : config.models) {
    ModelConfig whole = config.model(model.name, model.place, false);
    for (const auto& key : model.given) whole.set(key, model.entry(key).value, model.entry(key).origin);
    whole.given = model.given;
    model = std::move(whole);
  }
  return config;
}

Result<std::chrono::milliseconds> parse_duration(std::string_view text) {
  constexpr Setting any{.kind = duration, .most = 365 * day_ms};
  const auto value = parse_text(any, text);
  if (!value) return Error{ErrorCode::invalid_request, value.error().message, {}};
  return std::chrono::milliseconds(std::get<std::int64_t>(*value));
}

std::string show_bytes(std::uint64_t bytes) {
  constexpr std::array<std::string_view, 5> units{"B", "KiB", "MiB", "GiB", "TiB"};
  auto value = static_cast<double>(bytes);
  std::size_t unit = 0;
  while (value >= 1024 && unit + 1 < units.size()) {
    value /= 1024;
    ++unit;
  }
  return unit == 0 ? fmt::format("{} B", bytes) : fmt::format("{:.{}f} {}", value, value < 10 ? 2 : value < 100 ? 1 : 0, units[unit]);
}

}  // namespace hearth::app
