// Every setting of hearth, once. The table in config.cpp is the single source of flags, HEARTH_* variables, keys of the TOML file, their checks,
// `hearth serve --print-config` and the test that the documentation is complete. A value comes from, in this order: flag, environment, file, default.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
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
  list,      // texts; comma-separated in flags and variables
  keys,      // a table: name = "key", or name = { file = "path" }; in the file only
};

struct Setting {
  std::string_view key;   // "listen.port": table and name in the file
  std::string_view flag;  // "port": the flag is --port, the variable HEARTH_PORT; empty = the file only
  SettingKind kind = SettingKind::text;
  std::string_view fallback;  // the default, as a flag would give it
  std::string_view help;      // one line, for --help and the documentation
  std::int64_t least = 0;     // integer, bytes, duration in ms
  std::int64_t most = INT64_MAX;
  std::string_view choices;  // choice: "f16 q8_0 q4_0"; bytes: "auto" when that is a value too, kept as -1
  bool secret = false;       // masked when shown, and never a flag: process lists show those
  bool worker = false;       // also a flag of `hearth worker`
};

std::span<const Setting> settings();
std::string variable_name(const Setting& setting);  // "HEARTH_PORT"

using ConfigValue = std::variant<std::int64_t, std::string, std::vector<std::string>, std::map<std::string, std::string>>;

class Config {
 public:
  struct Entry {
    ConfigValue value;
    std::string origin;  // "default", "--port", "HEARTH_PORT", "/etc/hearth/hearth.toml:3"
  };

  // These assert that the setting exists and has that kind.
  std::int64_t integer(std::string_view key) const;
  const std::string& text(std::string_view key) const;
  const std::vector<std::string>& list(std::string_view key) const;
  const std::map<std::string, std::string>& keys(std::string_view key) const;
  std::chrono::milliseconds duration(std::string_view key) const { return std::chrono::milliseconds(integer(key)); }
  const std::string& origin(std::string_view key) const;

  // The configuration as TOML, every line with where its value comes from; secrets masked.
  std::string print() const;

  void set(std::string_view key, ConfigValue value, std::string origin);

 private:
  const Entry& entry(std::string_view key) const;
  std::map<std::string, Entry, std::less<>> entries_;
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

// The member of `words` nearest to `word` by edits, or "" when none is near.
std::string nearest(std::string_view word, const std::vector<std::string_view>& words);

// "64MiB", "500 B": for people.
std::string show_bytes(std::uint64_t bytes);

}  // namespace hearth::app
