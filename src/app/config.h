// Every setting of hearth, once. The tables in config.cpp are the single source of flags, HEARTH_* variables, keys of the TOML file, their checks,
// `hearth serve --print-config` and the test that the documentation is complete. A value comes from, in this order: flag, environment, file, default.
// A model has a table of its own, [models.NAME], in the file only; what it leaves out, the settings for all models say.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/result.h"

namespace hearth::app {

enum class SettingKind {
  text,
  integer,
  bytes,     // "64MiB", or a number of bytes
  duration,  // "90s", "500ms", "2m", or a number of seconds
  choice,    // one of Setting::choices
  boolean,   // kept as 0 or 1
  list,      // texts; comma-separated in flags and variables
  paths,     // a table: name = "path"; NAME=PATH,NAME=PATH in flags and variables
  key,       // "key", { file = "path" } or { env = "NAME" }; in the file only
  keys,      // a table of such keys
};

struct Setting {
  std::string_view key;   // "listen.port": table and name in the file
  std::string_view flag;  // "port": the flag is --port, the variable HEARTH_PORT; empty = the file only
  SettingKind kind = SettingKind::text;
  std::string_view fallback;  // the default, as a flag would give it
  std::string_view help;      // one line, for --help and the documentation
  std::int64_t least = 0;     // integer, bytes, duration in ms
  std::int64_t most = INT64_MAX;
  // choice: "f16 q8_0 q4_0"; list: the same, for each text; bytes and duration: a word that is a value too, kept as -1
  std::string_view choices;
  // choice: whether a word may be followed by these options, as in "k3v2,sinks=4"; null: by none. Given the whole.
  Result<void> (*options)(std::string_view given) = nullptr;
  bool secret = false;      // masked when shown, and never a flag: process lists show those
  bool worker = false;      // also a flag of `hearth worker`
  bool path = false;        // names files: in the configuration file relative to its folder, and "~/" is the home folder
  bool lone = false;        // list: a single text will do
  std::string_view kinds;   // of a model: the kinds of model that have it; empty = all
  std::string_view global;  // of a model: the setting that holds for models without it
};

std::span<const Setting> settings();
// Those of a [models.NAME] table; their keys are bare ("path").
std::span<const Setting> model_settings();
std::string variable_name(const Setting& setting);  // "HEARTH_PORT"

using ConfigValue = std::variant<std::int64_t, std::string, std::vector<std::string>, std::map<std::string, std::string>>;

class ConfigValues {
 public:
  struct Entry {
    ConfigValue value;
    std::string origin;  // "default", "--port", "HEARTH_PORT", "/etc/hearth/hearth.toml:3"
  };

  // These assert that the setting exists and has that kind.
  std::int64_t integer(std::string_view key) const;
  bool is(std::string_view key) const { return integer(key) != 0; }
  const std::string& text(std::string_view key) const;
  const std::vector<std::string>& list(std::string_view key) const;
  const std::map<std::string, std::string>& keys(std::string_view key) const;
  std::chrono::milliseconds duration(std::string_view key) const { return std::chrono::milliseconds(integer(key)); }
  const std::string& origin(std::string_view key) const;
  const Entry& entry(std::string_view key) const;
  // A setting's value as `hearth worker` takes it.
  std::string as_flag(const Setting& setting) const;

  void set(std::string_view key, ConfigValue value, std::string origin);

 private:
  std::map<std::string, Entry, std::less<>> entries_;
};

// One [models.NAME] table, with what it leaves out filled in.
struct ModelConfig : ConfigValues {
  std::string name;
  std::string place;                         // "/etc/hearth/hearth.toml:12"
  std::set<std::string, std::less<>> given;  // the keys that stand in the table itself
};

class Config : public ConfigValues {
 public:
  std::vector<ModelConfig> models;  // in the order of the file

  // A model without a table of its own: the settings for all models, else the defaults. `alone`: also what [model] says of its one model.
  ModelConfig model(std::string name, std::string place, bool alone) const;

  // The configuration as TOML, every line with where its value comes from; secrets masked.
  std::string print() const;
};

// Looks up one environment variable; nullptr when it is not set.
using Environment = std::function<const char*(const char*)>;

struct ConfigSources {
  std::string file;                          // "" = find one; "none" = no file
  Environment environment;                   // nothing is read from it when empty
  std::map<std::string, std::string> flags;  // by Setting::flag, those that were given
};

// The file that would be read: HEARTH_CONFIG, $XDG_CONFIG_HOME/hearth/hearth.toml (or ~/.config/…), /etc/hearth/hearth.toml; "" when none exists.
std::string find_config_file(const Environment& environment);

// config_invalid; for the file with "path:line:column:", and for a misspelt key with the nearest right one.
Result<Config> load_config(const ConfigSources& sources);

// "90s", "500ms", "2m", or a number of seconds; invalid_request with what would be right.
Result<std::chrono::milliseconds> parse_duration(std::string_view text);

// "64MiB", "500 B": for people.
std::string show_bytes(std::uint64_t bytes);

}  // namespace hearth::app
