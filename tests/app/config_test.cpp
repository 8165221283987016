#include "app/config.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <regex>

#include "base/nearest.h"
#include "catalog/model.h"

namespace hearth::app {
namespace {

namespace fs = std::filesystem;
const fs::path cases = HEARTH_SOURCE_DIR "/tests/cases/config";

std::string read(const fs::path& path) {
  std::ifstream file(path);
  EXPECT_TRUE(file) << path;
  return {std::istreambuf_iterator<char>(file), {}};
}

Environment environment_of(std::map<std::string, std::string> variables) {
  return [variables = std::move(variables)](const char* name) {
    const auto it = variables.find(name);
    return it == variables.end() ? nullptr : it->second.c_str();
  };
}

std::string fault(const ConfigSources& sources) {
  const auto config = load_config(sources);
  return config.ok() ? std::string("(accepted)") : config.error().message;
}

// Every tests/cases/config/NAME.toml: loads, or fails with the text in NAME.error.
TEST(ConfigFile, Cases) {
  int with_error = 0;
  for (const auto& entry : fs::directory_iterator(cases)) {
    if (entry.path().extension() != ".toml") continue;
    const auto config = load_config({.file = entry.path().string(), .environment = {}, .flags = {}});
    auto expected = entry.path();
    expected.replace_extension(".error");
    if (!fs::exists(expected)) {
      EXPECT_TRUE(config.ok()) << entry.path() << ": " << config.error().message;
      continue;
    }
    ++with_error;
    ASSERT_FALSE(config.ok()) << entry.path() << " was accepted";
    EXPECT_EQ(config.error().code, ErrorCode::config_invalid);
    std::string text = read(expected);
    text.erase(text.find_last_not_of('\n') + 1);
    EXPECT_NE(config.error().message.find(text), std::string::npos) << "expected: " << text << "\n     got: " << config.error().message;
  }
  EXPECT_GE(with_error, 20);
}

TEST(ConfigFile, ValuesArrive) {
  const auto config = load_config({.file = (cases / "good.toml").string(), .environment = {}, .flags = {}});
  ASSERT_TRUE(config.ok()) << config.error().message;
  EXPECT_EQ(config->text("listen.host"), "::1");
  EXPECT_EQ(config->integer("listen.port"), 9000);
  EXPECT_EQ(config->keys("auth.keys").at("alice"), "alice-secret-0123456789");
  EXPECT_EQ(config->keys("auth.keys").at("bob"), "bob-secret-9876543210");
  EXPECT_EQ(config->integer("limits.body"), 1 << 20);
  EXPECT_EQ(config->integer("limits.header"), 16 * 1024);
  EXPECT_EQ(config->list("model.aliases"), (std::vector<std::string>{"gpt-4o", "default"}));
  EXPECT_EQ(config->integer("scheduler.prefix_cache"), std::int64_t{3} << 29);
  EXPECT_EQ(config->duration("timeouts.drain"), std::chrono::milliseconds(2500));
  EXPECT_EQ(config->duration("timeouts.first_token"), std::chrono::seconds(90));
  EXPECT_EQ(config->duration("timeouts.hang"), std::chrono::minutes(3));
  EXPECT_EQ(config->origin("listen.port"), (cases / "good.toml").string() + ":3");
  EXPECT_EQ(config->integer("scheduler.parallel"), 16);
  EXPECT_EQ(config->origin("scheduler.parallel"), "default");
}

TEST(ConfigFile, AMissingOneIsNamed) {
  EXPECT_NE(fault({.file = "/nonexistent.toml", .environment = {}, .flags = {}}).find("/nonexistent.toml cannot be read"),
            std::string::npos);
}

TEST(Config, FlagBeatsVariableBeatsFileBeatsDefault) {
  ConfigSources sources{.file = (cases / "good.toml").string(), .environment = {}, .flags = {}};
  EXPECT_EQ(load_config(sources)->integer("listen.port"), 9000);
  sources.environment = environment_of({{"HEARTH_PORT", "9001"}});
  EXPECT_EQ(load_config(sources)->integer("listen.port"), 9001);
  EXPECT_EQ(load_config(sources)->origin("listen.port"), "HEARTH_PORT");
  sources.flags["port"] = "9002";
  EXPECT_EQ(load_config(sources)->integer("listen.port"), 9002);
  EXPECT_EQ(load_config(sources)->origin("listen.port"), "--port");
  sources.file = "none";
  sources.environment = {};
  sources.flags.clear();
  EXPECT_EQ(load_config(sources)->integer("listen.port"), 8085);
}

TEST(Config, FaultsNameTheFlagOrVariable) {
  EXPECT_EQ(fault({.file = "none", .environment = environment_of({{"HEARTH_PORT", "abc"}}), .flags = {}}),
            "HEARTH_PORT must be a whole number from 0 to 65535, not \"abc\"");
  EXPECT_EQ(fault({.file = "none", .environment = {}, .flags = {{"max-body", "-1"}}}),
            "--max-body must be a size such as \"64MiB\" or a number of bytes, not \"-1\"");
  EXPECT_EQ(fault({.file = "none", .environment = {}, .flags = {{"kv-type", "f61"}}}),
            "--kv-type must be one of f16, q8_0, q4_0, k8v8, k8v4, k4v4, k4v3, k3v2, not \"f61\"; did you mean \"f16\"?");
}

TEST(Config, FindsTheFile) {
  std::string pattern = (fs::temp_directory_path() / "hearth-config-XXXXXX").string();
  const fs::path home = mkdtemp(pattern.data());
  const auto environment = environment_of({{"HOME", home.string()}});
  const std::string system = fs::exists("/etc/hearth/hearth.toml") ? "/etc/hearth/hearth.toml" : "";
  EXPECT_EQ(find_config_file(environment), system);
  fs::create_directories(home / ".config/hearth");
  std::ofstream(home / ".config/hearth/hearth.toml") << "[listen]\n";
  EXPECT_EQ(find_config_file(environment), (home / ".config/hearth/hearth.toml").string());
  fs::create_directories(home / "xdg/hearth");
  std::ofstream(home / "xdg/hearth/hearth.toml") << "[listen]\n";
  EXPECT_EQ(find_config_file(environment_of({{"HOME", home.string()}, {"XDG_CONFIG_HOME", (home / "xdg").string()}})),
            (home / "xdg/hearth/hearth.toml").string());
  EXPECT_EQ(find_config_file(environment_of({{"HEARTH_CONFIG", "/a/b.toml"}})), "/a/b.toml");
  fs::remove_all(home);
}

TEST(Config, PrintedConfigurationIsAConfigurationAndHidesSecrets) {
  ConfigSources sources{.file = (cases / "good.toml").string(),
                        .environment = environment_of({{"HEARTH_API_KEY", "top-secret-key-0123"}}),
                        .flags = {{"port", "1234"}}};
  const auto config = load_config(sources);
  ASSERT_TRUE(config.ok()) << config.error().message;
  const std::string text = config->print();
  EXPECT_EQ(text.find("top-secret"), std::string::npos) << text;
  EXPECT_NE(text.find("\"********\""), std::string::npos);
  EXPECT_TRUE(std::regex_search(text, std::regex("port = 1234 +# --port\n"))) << text;
  EXPECT_TRUE(std::regex_search(text, std::regex("drain = \"2500ms\" +# .*good.toml:\\d+\n"))) << text;
  EXPECT_TRUE(std::regex_search(text, std::regex("api_key = \"\\*+\" +# HEARTH_API_KEY\n"))) << text;

  std::string pattern = (fs::temp_directory_path() / "hearth-config-XXXXXX").string();
  const fs::path folder = mkdtemp(pattern.data());
  std::ofstream(folder / "printed.toml") << text;
  const auto again = load_config({.file = (folder / "printed.toml").string(), .environment = {}, .flags = {}});
  ASSERT_TRUE(again.ok()) << again.error().message;
  for (const auto& setting : settings()) {
    if (setting.secret) continue;
    switch (setting.kind) {
      case SettingKind::text:
      case SettingKind::choice: EXPECT_EQ(again->text(setting.key), config->text(setting.key)) << setting.key; break;
      case SettingKind::list: EXPECT_EQ(again->list(setting.key), config->list(setting.key)) << setting.key; break;
      case SettingKind::key:
      case SettingKind::keys:
      case SettingKind::paths: break;
      default: EXPECT_EQ(again->integer(setting.key), config->integer(setting.key)) << setting.key;
    }
  }
  fs::remove_all(folder);
}

TEST(Config, OffersEveryKvTypeThereIs) {
  std::string types;
  for (const auto type : catalog::kv_types()) types += (types.empty() ? "" : " ") + std::string(type);
  const auto all = settings();
  const auto setting = std::find_if(all.begin(), all.end(), [](const Setting& s) { return s.key == "model.kv_type"; });
  ASSERT_NE(setting, all.end());
  EXPECT_EQ(setting->choices, types);
}

TEST(Models, TablesArriveInTheOrderOfTheFileAndFallBackToWhatHoldsForAll) {
  const auto config = load_config({.file = (cases / "models_good.toml").string(), .environment = {}, .flags = {{"threads", "3"}}});
  ASSERT_TRUE(config.ok()) << config.error().message;
  std::vector<std::string> names;
  for (const auto& model : config->models) names.push_back(model.name);
  EXPECT_EQ(names, (std::vector<std::string>{"zebra", "qwen2.5:7b", "served", "cloud", "many"}));
  EXPECT_EQ(config->text("fleet.folder"), (cases / "models").string());
  const auto& zebra = config->models[0];
  EXPECT_EQ(zebra.place, (cases / "models_good.toml").string() + ":7");
  EXPECT_EQ(zebra.text("kind"), "worker");
  EXPECT_EQ(zebra.text("path"), (cases / "z.gguf").string());
  EXPECT_TRUE(zebra.is("pinned"));
  EXPECT_FALSE(zebra.is("preload"));
  EXPECT_EQ(zebra.list("roles"), (std::vector<std::string>{"chat", "vision"}));
  EXPECT_EQ(zebra.keys("adapters"), (std::map<std::string, std::string>{{"sql", (cases / "sql.gguf").string()}, {"law", "/srv/law.gguf"}}));
  EXPECT_EQ(zebra.text("kv_type"), "q8_0");
  EXPECT_EQ(zebra.integer("threads"), 3);
  EXPECT_EQ(zebra.origin("threads"), "--threads");
  EXPECT_EQ(zebra.duration("idle_unload"), std::chrono::minutes(15));
  EXPECT_EQ(zebra.integer("memory"), -1);
  const auto& qwen = config->models[1];
  EXPECT_EQ(qwen.integer("context"), 65536);
  EXPECT_EQ(qwen.text("kv_type"), "k3v2");
  EXPECT_EQ(qwen.integer("idle_unload"), -1);
  EXPECT_EQ(config->models[2].integer("memory"), std::int64_t{2} << 30);
  const auto& cloud = config->models[3];
  EXPECT_EQ(cloud.list("url"), std::vector<std::string>{"https://api.example.com/api/v1"});
  EXPECT_EQ(cloud.text("api_key"), "bob-secret-9876543210");
  EXPECT_EQ(cloud.duration("first_token"), std::chrono::seconds(20));
  EXPECT_EQ(config->models[4].list("url").size(), 2u);
}

TEST(Models, WhatIsParticularToOneModelDoesNotFallBack) {
  const auto config = load_config({.file = (cases / "models_good.toml").string(),
                                   .environment = {},
                                   .flags = {{"draft-model", "d.gguf"}, {"adapters", "x=/x.gguf"}, {"mmproj", "m.gguf"}}});
  ASSERT_TRUE(config.ok()) << config.error().message;
  EXPECT_EQ(config->keys("model.adapters").at("x"), "/x.gguf");
  const auto& qwen = config->models[1];
  EXPECT_EQ(qwen.text("draft_model"), "");
  EXPECT_EQ(qwen.text("mmproj"), "");
  EXPECT_TRUE(qwen.keys("adapters").empty());
}

TEST(Models, KeysComeFromTheEnvironmentAndHomeStandsForTilde) {
  std::string pattern = (fs::temp_directory_path() / "hearth-config-XXXXXX").string();
  const fs::path folder = mkdtemp(pattern.data());
  std::ofstream(folder / "a.toml") << "[fleet]\nfolder = \"~/models\"\n[models.a]\nkind = \"openai\"\nurl = \"https://a.example\"\n"
                                      "api_key = { env = \"SOME_KEY\" }\n";
  const auto config = load_config({.file = (folder / "a.toml").string(),
                                   .environment = environment_of({{"SOME_KEY", "from-the-environment"}, {"HOME", "/home/ada"}}),
                                   .flags = {}});
  fs::remove_all(folder);
  ASSERT_TRUE(config.ok()) << config.error().message;
  EXPECT_EQ(config->models[0].text("api_key"), "from-the-environment");
  EXPECT_EQ(config->text("fleet.folder"), "/home/ada/models");
  EXPECT_EQ(config->print().find("from-the-environment"), std::string::npos);
}

TEST(Models, PrintedTablesAreTablesAgain) {
  const auto config = load_config({.file = (cases / "models_good.toml").string(), .environment = {}, .flags = {}});
  ASSERT_TRUE(config.ok()) << config.error().message;
  std::string pattern = (fs::temp_directory_path() / "hearth-config-XXXXXX").string();
  const fs::path folder = mkdtemp(pattern.data());
  std::ofstream(folder / "printed.toml") << config->print();
  const auto again = load_config({.file = (folder / "printed.toml").string(), .environment = {}, .flags = {}});
  fs::remove_all(folder);
  ASSERT_TRUE(again.ok()) << again.error().message << config->print();
  ASSERT_EQ(again->models.size(), config->models.size());
  for (std::size_t i = 0; i < again->models.size(); ++i) {
    EXPECT_EQ(again->models[i].name, config->models[i].name);
    for (const auto& setting : model_settings()) {
      if (!setting.secret) EXPECT_EQ(again->models[i].entry(setting.key).value, config->models[i].entry(setting.key).value) << setting.key;
    }
  }
}

TEST(Settings, HaveUniqueKeysAndFlags) {
  std::map<std::string_view, int> keys, flags;
  for (const auto& setting : settings()) {
    EXPECT_EQ(keys[setting.key]++, 0) << setting.key;
    if (!setting.flag.empty()) EXPECT_EQ(flags[setting.flag]++, 0) << setting.flag;
    EXPECT_FALSE(setting.help.empty()) << setting.key;
  }
  EXPECT_EQ(variable_name(settings()[1]), "HEARTH_PORT");
  for (const auto& setting : model_settings()) {
    EXPECT_EQ(keys[setting.key]++, 0) << setting.key;
    EXPECT_TRUE(setting.flag.empty()) << setting.key;
    EXPECT_FALSE(setting.help.empty()) << setting.key;
  }
}

TEST(Settings, AreAllDocumented) {
  const std::string documentation = read(HEARTH_SOURCE_DIR "/docs/configuration.md");
  for (const auto& setting : settings()) {
    EXPECT_NE(documentation.find("`" + std::string(setting.key) + "`"), std::string::npos)
        << setting.key << " is missing in docs/configuration.md";
    if (setting.flag.empty()) continue;
    EXPECT_NE(documentation.find("`" + variable_name(setting) + "`"), std::string::npos)
        << variable_name(setting) << " is missing in docs/configuration.md";
    const bool has_flag = documentation.find("`--" + std::string(setting.flag) + "`") != std::string::npos;
    EXPECT_EQ(has_flag, !setting.secret) << "--" << setting.flag << " in docs/configuration.md";
  }
  const std::string models = documentation.substr(std::min(documentation.size(), documentation.find("## [models.NAME]")));
  for (const auto& setting : model_settings()) {
    EXPECT_NE(models.find("| `" + std::string(setting.key) + "` | " + (setting.kinds.empty() ? "all" : "")), std::string::npos)
        << "models.NAME." << setting.key << " is missing in docs/configuration.md";
  }
}

// The shipped file says nothing but defaults: uncommented, it changes nothing.
TEST(Settings, TheDefaultFileShowsEveryKeyWithItsDefault) {
  std::string text = read(HEARTH_SOURCE_DIR "/packaging/hearth.toml");
  std::string uncommented;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("#") && !line.starts_with("# ")) line.erase(0, 1);
    uncommented += line + "\n";
  }
  std::string pattern = (fs::temp_directory_path() / "hearth-config-XXXXXX").string();
  const fs::path folder = mkdtemp(pattern.data());
  for (const auto& [name, source] : {std::pair<std::string, std::string>("as_shipped.toml", text), {"uncommented.toml", uncommented}}) {
    std::ofstream(folder / name) << source;
    const auto config = load_config({.file = (folder / name).string(), .environment = {}, .flags = {}});
    ASSERT_TRUE(config.ok()) << config.error().message;
    const auto defaults = load_config({.file = "none", .environment = {}, .flags = {}});
    for (const auto& setting : settings()) {
      const bool shown = config->origin(setting.key) != "default";
      EXPECT_EQ(shown, name == "uncommented.toml") << setting.key << " in " << name;
      if (setting.kind == SettingKind::list) {
        EXPECT_EQ(config->list(setting.key), defaults->list(setting.key)) << setting.key;
      } else if (setting.kind == SettingKind::text || setting.kind == SettingKind::choice) {
        EXPECT_EQ(config->text(setting.key), defaults->text(setting.key)) << setting.key;
      } else if (setting.kind != SettingKind::keys && setting.kind != SettingKind::paths) {
        EXPECT_EQ(config->integer(setting.key), defaults->integer(setting.key)) << setting.key;
      }
    }
  }
  fs::remove_all(folder);
}

TEST(Nearest, CountsEditsAndTransposition) {
  const std::vector<std::string_view> words{"port", "host", "allowed_hosts"};
  EXPECT_EQ(nearest("prot", words), "port");
  EXPECT_EQ(nearest("hosts", words), "host");
  EXPECT_EQ(nearest("alowed_host", words), "allowed_hosts");
  EXPECT_EQ(nearest("frobnicate", words), "");
  EXPECT_EQ(nearest("", words), "");
}

TEST(ShowBytes, RoundsForPeople) {
  EXPECT_EQ(show_bytes(0), "0 B");
  EXPECT_EQ(show_bytes(1023), "1023 B");
  EXPECT_EQ(show_bytes(7'017'536), "6.69 MiB");
  EXPECT_EQ(show_bytes(std::uint64_t{64} << 30), "64.0 GiB");
}

}  // namespace
}  // namespace hearth::app
