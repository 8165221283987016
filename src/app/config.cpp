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
#include <numeric>
#include <optional>

namespace hearth::app {
namespace {

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
    Setting{.key = "model.path",
            .flag = "model",
            .kind = text,
            .fallback = "embedded:",
            .help = "GGUF file to serve (first part of a split one); embedded: is the demonstration model",
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
    Setting{.key = "model.kv_type",
            .flag = "kv-type",
            .kind = choice,
            .fallback = "f16",
            .help = "number format of the KV cache",
            .choices = "f16 q8_0 q4_0",
            .worker = true},
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
    Setting{.key = "timeouts.first_token",
            .flag = "first-token-timeout",
            .kind = duration,
            .fallback = "10m",
            .help = "longest silence of the engine before an answer's first token",
            .least = 100,
            .most = day_ms},
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
            .help = "folder hearth may write to; empty = $STATE_DIRECTORY, $XDG_STATE_HOME/hearth or ~/.local/state/hearth"},
};

const Setting* find_setting(std::string_view key) {
  const auto it = std::find_if(table.begin(), table.end(), [&](const Setting& s) { return s.key == key; });
  return it == table.end() ? nullptr : &*it;
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
                                     : "a size such as \"64MiB\", a number of bytes, or \"auto\"";
    case duration: return "a duration such as \"90s\", \"500ms\", \"2m\" or a number of seconds";
    case choice: return fmt::format("one of {}", fmt::join(words_of(setting.choices), ", "));
    case list: return "a list of texts";
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
      const auto words = words_of(setting.choices);
      if (std::find(words.begin(), words.end(), given) != words.end()) return ConfigValue(std::string(given));
      const std::string near = nearest(given, words);
      if (near.empty()) return wrong();
      return config_error(fmt::format("must be {}, not \"{}\"; did you mean \"{}\"?", expected(setting), given, near));
    }
    case list: {
      std::vector<std::string> out;
      while (!given.empty()) {
        const auto end = std::min(given.find(','), given.size());
        if (auto item = trimmed(given.substr(0, end)); !item.empty()) out.push_back(std::move(item));
        given.remove_prefix(std::min(end + 1, given.size()));
      }
      return ConfigValue(std::move(out));
    }
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

class FileReader {
 public:
  FileReader(Config& config, std::string path) : config_(config), path_(std::move(path)) {}

  Result<void> read() {
    std::ifstream file(path_);
    if (!file) return config_error(fmt::format("the configuration file {} cannot be read", path_));
    const std::string source{std::istreambuf_iterator<char>(file), {}};
    try {
      const toml::table root = toml::parse(source, path_);
      for (const auto& [name, node] : root) {
        if (auto done = section(std::string(name.str()), node, name.source()); !done) return done;
      }
    } catch (const toml::parse_error& fault) { return at(fault.source(), std::string(fault.description())); }
    return {};
  }

 private:
  Error at(const toml::source_region& where, const std::string& message) const {
    return config_error(fmt::format("{}:{}:{}: {}", path_, where.begin.line, where.begin.column, message));
  }

  Result<void> section(const std::string& name, const toml::node& node, const toml::source_region& where) {
    std::vector<std::string_view> sections, leaves, all;
    for (const auto& setting : table) {
      const auto dot = setting.key.find('.');
      if (const auto part = setting.key.substr(0, dot); sections.empty() || sections.back() != part) sections.push_back(part);
      leaves.push_back(setting.key.substr(dot + 1));
      all.push_back(setting.key);
    }
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
      const std::string key = name + "." + std::string(leaf.str());
      const Setting* setting = find_setting(key);
      if (setting == nullptr) {
        std::vector<std::string_view> here;
        for (const auto& s : table) {
          if (s.key.starts_with(name + ".")) here.push_back(s.key.substr(name.size() + 1));
        }
        const std::string near = nearest(leaf.str(), here);
        const std::string elsewhere = near.empty() ? nearest(key, all) : std::string();
        return at(leaf.source(), fmt::format("\"{}\" is not a setting{}", key,
                                             !near.empty()        ? fmt::format("; did you mean \"{}.{}\"?", name, near)
                                             : !elsewhere.empty() ? fmt::format("; did you mean \"{}\"?", elsewhere)
                                                                  : fmt::format("; [{}] has {}", name, fmt::join(here, ", "))));
      }
      auto parsed = read_value(*setting, value);
      if (!parsed) return at(value.source(), key + " " + parsed.error().message);
      config_.set(key, std::move(*parsed), fmt::format("{}:{}", path_, leaf.source().begin.line));
    }
    return {};
  }

  Result<ConfigValue> read_value(const Setting& setting, const toml::node& node) {
    const auto wrong = [&](const toml::node& found) {
      return config_error(fmt::format("must be {}, not {}", expected(setting), toml_type_name(found)));
    };
    if (setting.kind == keys) {
      const auto* entries = node.as_table();
      if (entries == nullptr) return wrong(node);
      std::map<std::string, std::string> out;
      for (const auto& [name, value] : *entries) {
        auto key = read_key(std::string(name.str()), value);
        if (!key) return std::move(key).error();
        out[std::string(name.str())] = std::move(*key);
      }
      return ConfigValue(std::move(out));
    }
    if (setting.kind == list) {
      const auto* items = node.as_array();
      if (items == nullptr) return wrong(node);
      std::vector<std::string> out;
      for (const auto& item : *items) {
        const auto* value = item.as_string();
        if (value == nullptr) return config_error(fmt::format("must be a list of texts, but one is {}", toml_type_name(item)));
        out.push_back(value->get());
      }
      return ConfigValue(std::move(out));
    }
    if (const auto* value = node.as_integer(); value != nullptr) {
      switch (setting.kind) {
        case integer:
        case bytes: return in_range(setting, value->get());
        case duration:
          return value->get() > day_ms ? Result<ConfigValue>(config_error(out_of_range(setting))) : in_range(setting, value->get() * 1000);
        default: return wrong(node);
      }
    }
    if (const auto* value = node.as_floating_point(); value != nullptr && setting.kind == duration && std::abs(value->get()) < 1e9) {
      return in_range(setting, static_cast<std::int64_t>(std::llround(value->get() * 1000)));
    }
    if (const auto* value = node.as_string(); value != nullptr && setting.kind != integer) return parse_text(setting, value->get());
    return wrong(node);
  }

  Result<std::string> read_key(const std::string& name, const toml::node& node) {
    if (const auto* key = node.as_string(); key != nullptr) return key->get();
    if (const auto* entry = node.as_table(); entry != nullptr && entry->size() == 1) {
      if (const auto* file = entry->get_as<std::string>("file"); file != nullptr)
        return read_key_file(std::filesystem::path(path_).parent_path() / file->get());
    }
    return config_error(fmt::format(": the key of \"{}\" must be a text or {{ file = \"path\" }}", name));
  }

  Config& config_;
  std::string path_;
};

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

// As it would stand in the file.
std::string show(const Setting& setting, const ConfigValue& value) {
  constexpr std::string_view masked = "\"********\"";
  switch (setting.kind) {
    case text:
    case choice: {
      const auto& given = std::get<std::string>(value);
      return setting.secret && !given.empty() ? std::string(masked) : toml_text(given);
    }
    case integer: return std::to_string(std::get<std::int64_t>(value));
    case bytes:
      return std::get<std::int64_t>(value) < 0 ? toml_text(setting.choices)
                                               : toml_text(show_quantity(std::get<std::int64_t>(value), byte_units));
    case duration: return toml_text(show_quantity(std::get<std::int64_t>(value), duration_units));
    case list: {
      std::vector<std::string> items;
      for (const auto& item : std::get<std::vector<std::string>>(value)) items.push_back(toml_text(item));
      return fmt::format("[{}]", fmt::join(items, ", "));
    }
    case keys: {
      std::vector<std::string> items;
      for (const auto& [name, key] : std::get<std::map<std::string, std::string>>(value))
        items.push_back(toml_text(name) + " = " + std::string(masked));
      return items.empty() ? "{}" : fmt::format("{{ {} }}", fmt::join(items, ", "));
    }
  }
  return {};
}

}  // namespace

std::span<const Setting> settings() { return table; }

std::string variable_name(const Setting& setting) {
  std::string out = "HEARTH_";
  for (const char c : setting.flag) out += c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return out;
}

const Config::Entry& Config::entry(std::string_view key) const {
  const auto it = entries_.find(key);
  assert(it != entries_.end());
  return it->second;
}
std::int64_t Config::integer(std::string_view key) const { return std::get<std::int64_t>(entry(key).value); }
const std::string& Config::text(std::string_view key) const { return std::get<std::string>(entry(key).value); }
const std::vector<std::string>& Config::list(std::string_view key) const { return std::get<std::vector<std::string>>(entry(key).value); }
const std::map<std::string, std::string>& Config::keys(std::string_view key) const {
  return std::get<std::map<std::string, std::string>>(entry(key).value);
}
const std::string& Config::origin(std::string_view key) const { return entry(key).origin; }

void Config::set(std::string_view key, ConfigValue value, std::string origin) {
  entries_.insert_or_assign(std::string(key), Entry{std::move(value), std::move(origin)});
}

std::string Config::print() const {
  std::string out;
  std::string_view section;
  for (const auto& setting : table) {
    const auto dot = setting.key.find('.');
    if (setting.key.substr(0, dot) != section) {
      section = setting.key.substr(0, dot);
      out += fmt::format("{}[{}]\n", out.empty() ? "" : "\n", section);
    }
    const auto& value = entry(setting.key);
    out += fmt::format("{:<48}  # {}\n", fmt::format("{} = {}", setting.key.substr(dot + 1), show(setting, value.value)), value.origin);
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
    if (auto done = FileReader(config, file).read(); !done) return std::move(done).error();
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
  return config;
}

std::string nearest(std::string_view word, const std::vector<std::string_view>& words) {
  std::string_view best;
  std::size_t best_distance = std::max<std::size_t>(1, std::max<std::size_t>(word.size(), 3) / 3) + 1;
  for (const auto candidate : words) {
    // Edits with transposition ("prot" for "port") as one.
    std::vector<std::vector<std::size_t>> d(word.size() + 1, std::vector<std::size_t>(candidate.size() + 1));
    std::iota(d[0].begin(), d[0].end(), 0);
    for (std::size_t i = 1; i <= word.size(); ++i) {
      d[i][0] = i;
      for (std::size_t j = 1; j <= candidate.size(); ++j) {
        const bool same = word[i - 1] == candidate[j - 1];
        d[i][j] = std::min({d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + (same ? 0 : 1)});
        if (i > 1 && j > 1 && word[i - 1] == candidate[j - 2] && word[i - 2] == candidate[j - 1])
          d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
      }
    }
    if (d[word.size()][candidate.size()] < best_distance) {
      best_distance = d[word.size()][candidate.size()];
      best = candidate;
    }
  }
  return std::string(best);
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
