#include "app/models_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>

#include "catalog/gguf_writer.h"

namespace hearth::app {
namespace {

namespace fs = std::filesystem;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

class PlanFleet : public ::testing::Test {
 protected:
  PlanFleet() {
    std::string pattern = (fs::temp_directory_path() / "hearth-plan-XXXXXX").string();
    folder_ = mkdtemp(pattern.data());
    around_.program = "/usr/bin/hearth";
    around_.available = std::uint64_t{8} << 30;
  }
  ~PlanFleet() override { fs::remove_all(folder_); }

  std::string write(const std::string& name, std::string_view bytes) const {
    fs::create_directories((folder_ / name).parent_path());
    std::ofstream(folder_ / name, std::ios::binary) << bytes;
    return (folder_ / name).string();
  }
  std::string model(const std::string& name) const {
    fs::create_directories((folder_ / name).parent_path());
    fs::copy(HEARTH_SOURCE_DIR "/assets/hearth-nano-0-f16.gguf", folder_ / name);
    return (folder_ / name).string();
  }
  // A file with nothing but a header and one tensor.
  std::string gguf(const std::string& name, std::string_view architecture, std::string_view type) const {
    test::GgufWriter writer;
    writer.text("general.architecture", architecture);
    writer.text("general.type", type);
    writer.tensor("t", {32}, 0, 128);
    return write(name, writer.write());
  }
  std::string reranker(const std::string& name) const {
    test::GgufWriter writer;
    writer.text("general.architecture", "bert");
    writer.number("bert.context_length", 512);
    writer.number("bert.block_count", 1);
    writer.number("bert.embedding_length", 32);
    writer.number("bert.attention.head_count", 2);
    writer.number("bert.pooling_type", 4);
    writer.tensor("t", {32}, 0, 128);
    return write(name, writer.write());
  }

  Result<FleetPlan> plan(const std::string& toml, std::map<std::string, std::string> flags = {}) {
    const auto config = load_config({.file = write("hearth.toml", toml), .environment = {}, .flags = std::move(flags)});
    if (!config.ok()) return config.error();
    return plan_fleet(*config, around_);
  }
  FleetPlan planned(const std::string& toml, std::map<std::string, std::string> flags = {}) {
    auto out = plan(toml, std::move(flags));
    EXPECT_TRUE(out.ok()) << out.error().message;
    return out.ok() ? std::move(*out) : FleetPlan();
  }
  std::string fault(const std::string& toml, std::map<std::string, std::string> flags = {}) {
    const auto out = plan(toml, std::move(flags));
    return out.ok() ? "(accepted)" : out.error().message;
  }
  static std::vector<std::string> ids(const FleetPlan& plan) {
    std::vector<std::string> out;
    for (const auto& spec : plan.options.models) out.push_back(spec.id);
    return out;
  }

  fs::path folder_;
  Surroundings around_;
};

TEST_F(PlanFleet, WithoutAnythingTheDemonstrationModelIsServed) {
  const auto plan = planned("");
  ASSERT_THAT(ids(plan), ElementsAre("hearth-nano-0"));
  const auto& spec = plan.options.models[0];
  EXPECT_EQ(spec.kind, fleet::ModelKind::worker);
  EXPECT_TRUE(spec.preload);
  EXPECT_TRUE(spec.pinned) << "nobody else needs the room";
  EXPECT_FALSE(spec.gpu_layers.has_value());
  EXPECT_FALSE(spec.idle_unload.has_value());
  EXPECT_EQ(spec.info.context, 2048);
  EXPECT_TRUE(spec.info.chat);
  EXPECT_TRUE(spec.info.tools);
  EXPECT_EQ(spec.info.quantisation, "F16");
  EXPECT_GT(spec.need.weights, 6'000'000u);
  EXPECT_EQ(spec.need.kv, 2048u * 8192) << "the engine makes more cells than one request can use";
  ASSERT_GT(spec.command.size(), 2u);
  EXPECT_EQ(spec.command[0], "/usr/bin/hearth");
  EXPECT_EQ(spec.command[1], "worker");
  EXPECT_THAT(spec.command, Contains("--model=embedded:"));
  EXPECT_THAT(spec.command, Contains("--model-id=hearth-nano-0"));
  EXPECT_THAT(spec.command, Contains("--prefix-cache=auto"));
  EXPECT_THAT(spec.command, Not(Contains(HasSubstr("gpu-layers")))) << "the fleet decides that";
  EXPECT_THAT(plan.warnings, IsEmpty());
  EXPECT_EQ(plan.options.memory, -1);
}

TEST_F(PlanFleet, OneModelByFlagIsAsBefore) {
  const std::string path = model("some.gguf");
  const auto plan =
      planned("", {{"model", path}, {"model-aliases", "gpt-4o"}, {"context", "4096"}, {"gpu-layers", "7"}, {"idle-unload", "10m"}});
  ASSERT_THAT(ids(plan), ElementsAre("some"));
  const auto& spec = plan.options.models[0];
  EXPECT_THAT(spec.aliases, ElementsAre("gpt-4o"));
  EXPECT_EQ(spec.gpu_layers, 7);
  EXPECT_TRUE(spec.preload);
  EXPECT_FALSE(spec.pinned) << "it goes when it is idle";
  EXPECT_EQ(spec.idle_unload, std::chrono::minutes(10));
  EXPECT_EQ(spec.need.kv, 2048u * 4096);
  EXPECT_THAT(spec.command, Contains("--model=" + path));
  EXPECT_THAT(spec.command, Contains("--context=4096"));
  EXPECT_EQ(ids(planned("", {{"model", path}, {"model-id", "mine"}})), std::vector<std::string>{"mine"});
}

TEST_F(PlanFleet, TablesComeInOrderAndTheDemonstrationModelStaysAway) {
  model("a.gguf");
  model("b.gguf");
  const auto plan = planned(
      "[fleet]\nmemory = \"2GiB\"\nturn = 1\nqueue_limit = 9\nidle_unload = \"5m\"\n[scheduler]\nparallel = 3\n"
      "[models.zed]\npath = \"a.gguf\"\naliases = [\"z\"]\nparallel = 5\n"
      "[models.abe]\npath = \"b.gguf\"\npinned = true\nidle_unload = \"never\"\nmemory = \"1GiB\"\ngpu_layers = 0\n"
      "[models.nano]\npath = \"embedded:\"\nfirst_token = 7\n");
  ASSERT_THAT(ids(plan), ElementsAre("zed", "abe", "nano"));
  const auto& models = plan.options.models;
  EXPECT_FALSE(models[0].preload);
  EXPECT_EQ(models[0].idle_unload, std::chrono::minutes(5));
  EXPECT_THAT(models[0].command, Contains("--parallel=5"));
  EXPECT_THAT(models[0].command, Contains("--model=" + (folder_ / "a.gguf").string()));
  EXPECT_THAT(models[0].command, Contains("--model-id=zed"));
  EXPECT_THAT(models[1].command, Contains("--parallel=3"));
  EXPECT_TRUE(models[1].pinned);
  EXPECT_TRUE(models[1].preload);
  EXPECT_FALSE(models[1].idle_unload.has_value());
  EXPECT_EQ(models[1].need.total(), std::uint64_t{1} << 30);
  EXPECT_EQ(models[1].gpu_layers, 0);
  EXPECT_EQ(models[0].upstream.first_event.count(), 0) << "the device decides";
  EXPECT_EQ(models[2].upstream.first_event, std::chrono::seconds(7));
  EXPECT_EQ(plan.options.memory, std::int64_t{2} << 30);
  EXPECT_EQ(plan.options.turn, std::chrono::seconds(1));
  EXPECT_EQ(plan.options.queue_limit, 9);
  // Three workers share an eighth of 8 GiB.
  EXPECT_THAT(models[0].command, Contains("--prefix-cache=" + std::to_string((std::uint64_t{1} << 30) / 3)));
}

TEST_F(PlanFleet, AModelPathAndTablesAreServedTogether) {
  model("a.gguf");
  const auto plan = planned("[models.a]\npath = \"a.gguf\"\n", {{"model", "embedded:"}});
  EXPECT_THAT(ids(plan), ElementsAre("hearth-nano-0", "a"));
}

TEST_F(PlanFleet, AFolderOfFilesIsAFolderOfModels) {
  model("m/alpha.gguf");
  model("m/deep/beta.gguf");
  const std::string adapter = gguf("m/alpha-sql.gguf", "llama", "adapter");
  const std::string projector = gguf("m/mmproj-beta-f16.gguf", "clip", "mmproj");
  gguf("m/stray.gguf", "llama", "adapter");
  gguf("m/mmproj-other.gguf", "clip", "mmproj");
  write("m/page.gguf", "<html>");
  reranker("m/judge.gguf");
  const auto plan = planned("[fleet]\nfolder = \"m\"\n[models.first]\npath = \"m/alpha.gguf\"\n");
  ASSERT_THAT(ids(plan), ElementsAre("first", "beta", "judge")) << "a configured file is not served twice";
  const auto& models = plan.options.models;
  EXPECT_THAT(models[1].command, Contains("--mmproj=" + projector));
  EXPECT_TRUE(models[1].info.vision);
  EXPECT_THAT(models[1].roles, ElementsAre(chat::ModelRole::chat, chat::ModelRole::vision));
  EXPECT_THAT(models[2].roles, ElementsAre(chat::ModelRole::reranker));
  EXPECT_FALSE(models[2].info.chat);
  const auto warned = [&](const std::string& text) { EXPECT_THAT(plan.warnings, Contains(HasSubstr(text))); };
  warned("page.gguf");
  warned("stray.gguf is an adapter");
  warned("mmproj-other.gguf is a vision projector");

  const auto alone = planned("", {{"models-folder", (folder_ / "m").string()}});
  ASSERT_THAT(ids(alone), ElementsAre("alpha", "beta", "judge"));
  EXPECT_THAT(alone.options.models[0].command, Contains("--adapters=sql=" + adapter));
  EXPECT_THAT(alone.options.models[0].info.adapters, ElementsAre("sql"));
}

TEST_F(PlanFleet, TwoModelsOfOneNameAreRefusedWithBothPlaces) {
  model("m/a.gguf");
  model("b.gguf");
  const std::string toml = (folder_ / "hearth.toml").string();
  EXPECT_EQ(fault("[fleet]\nfolder = \"m\"\n[models.a]\npath = \"b.gguf\"\n"),
            "two models are called \"a\": " + toml + ":3 and " + (folder_ / "m/a.gguf").string() + ". Give one of them another name");
  EXPECT_EQ(fault("[models.x]\npath = \"b.gguf\"\n[models.y]\npath = \"b.gguf\"\naliases = [\"x\"]\n"),
            "two models are called \"x\": " + toml + ":1 and " + toml + ":3 (an alias of \"y\"). Give one of them another name");
  model("m/deep/a.gguf");
  EXPECT_THAT(fault("[fleet]\nfolder = \"m\"\n"), HasSubstr("two models are called \"a\""));
}

TEST_F(PlanFleet, WhatIsConfiguredByNameMustBeWhole) {
  write("cut.gguf", "GGUF");
  const std::string toml = (folder_ / "hearth.toml").string();
  EXPECT_THAT(fault("[models.x]\npath = \"cut.gguf\"\n"), HasSubstr(toml + ":1: "));
  EXPECT_THAT(fault("[models.x]\npath = \"none.gguf\"\n"), HasSubstr("there is no such file"));
  EXPECT_EQ(fault("[models.x]\ncontext = 5\n"), toml + ":1: the model \"x\" lacks its path: path = \"FILE.gguf\"");
  EXPECT_THAT(fault("[fleet]\nfolder = \"none\"\n"), HasSubstr("is not a folder"));
  fs::create_directories(folder_ / "empty");
  EXPECT_THAT(fault("[fleet]\nfolder = \"empty\"\n"), HasSubstr("there is no model to serve"));
  model("a.gguf");
  EXPECT_THAT(fault("[models.x]\npath = \"a.gguf\"\nadapters = { s = \"a.gguf\" }\n"), HasSubstr("a.gguf is not a LoRA adapter"));
  EXPECT_THAT(fault("[models.x]\npath = \"a.gguf\"\nmmproj = \"a.gguf\"\n"), HasSubstr("a.gguf is not a vision projector"));
  EXPECT_THAT(fault("[models.x]\npath = \"a.gguf\"\ndraft_model = \"b.gguf\"\n"), HasSubstr("b.gguf"));
  EXPECT_THAT(fault("[models.x]\npath = \"a.gguf\"\nspeculation = \"draft\"\n"), HasSubstr("needs a draft_model"));
  EXPECT_THAT(fault("[models.x]\npath = \"a.gguf\"\nadapter_folder = \"a.gguf\"\n"), HasSubstr("is not a folder"));
}

TEST_F(PlanFleet, CommandsAreCheckedAndTheirMemoryAskedFor) {
  const auto plan = planned("[models.x]\nkind = \"command\"\ncommand = [\"server\", \"--port={port}\"]\nhealth_path = \"/ok\"\n");
  const auto& spec = plan.options.models[0];
  EXPECT_EQ(spec.kind, fleet::ModelKind::command);
  EXPECT_THAT(spec.command, ElementsAre("server", "--port={port}"));
  EXPECT_EQ(spec.health_path, "/ok");
  EXPECT_TRUE(spec.info.chat);
  EXPECT_THAT(plan.warnings, Contains(HasSubstr("set memory or path")));
  EXPECT_EQ(planned("[models.x]\nkind = \"command\"\ncommand = [\"s\", \"{port}\"]\nmemory = \"3GiB\"\n").options.models[0].need.total(),
            std::uint64_t{3} << 30);
  EXPECT_THAT(fault("[models.x]\nkind = \"command\"\n"), HasSubstr("models.x.command is missing"));
  EXPECT_THAT(fault("[models.x]\nkind = \"command\"\ncommand = [\"s\"]\n"), HasSubstr("must say {port}"));
  EXPECT_THAT(fault("[models.x]\nkind = \"command\"\ncommand = [\"s\", \"{port}\"]\nhealth_path = \"ok\"\n"),
              HasSubstr("must begin with \"/\""));
}

TEST_F(PlanFleet, RemotesHaveEndpointsAndBasePaths) {
  const auto plan = planned(
      "[models.cloud]\nkind = \"openai\"\nurl = \"https://api.example.com/api/v1\"\napi_key = \"k\"\nremote_model = \"big\"\n"
      "concurrency = 4\nmax_tokens = 100\ntool_dialect = \"hermes\"\n"
      "[models.many]\nkind = \"openai\"\nurl = [\"http://10.0.0.1:8000\", \"http://10.0.0.2:8000/v1/\"]\nroles = [\"embedding\"]\n"
      "[models.claude]\nkind = \"anthropic\"\nurl = \"https://api.anthropic.com\"\napi_key = \"k\"\n");
  const auto& models = plan.options.models;
  ASSERT_EQ(models.size(), 3u);
  ASSERT_EQ(models[0].remotes.size(), 1u);
  EXPECT_EQ(models[0].remotes[0].base_path, "/api");
  const auto& endpoint = std::get<net::TcpEndpoint>(models[0].remotes[0].endpoint);
  EXPECT_EQ(endpoint.host, "api.example.com");
  EXPECT_TRUE(endpoint.tls);
  EXPECT_EQ(models[0].upstream.api_key, "k");
  EXPECT_EQ(models[0].upstream.remote_model, "big");
  EXPECT_EQ(models[0].upstream.concurrency.running, 4);
  EXPECT_EQ(models[0].upstream.max_tokens, 100);
  EXPECT_EQ(models[0].upstream.dialect, wire::Dialect::hermes);
  EXPECT_FALSE(models[0].upstream.own_engine) << "who asks stays here";
  EXPECT_FALSE(models[1].upstream.dialect.has_value());
  ASSERT_EQ(models[1].remotes.size(), 2u);
  EXPECT_EQ(models[1].remotes[1].base_path, "");
  EXPECT_TRUE(models[1].info.embeddings);
  EXPECT_FALSE(models[1].info.chat);
  EXPECT_EQ(models[2].kind, fleet::ModelKind::anthropic);
  EXPECT_THAT(plan.warnings, IsEmpty());
  EXPECT_THAT(fault("[models.x]\nkind = \"openai\"\n"), HasSubstr("models.x.url is missing"));
  EXPECT_THAT(fault("[models.x]\nkind = \"openai\"\nurl = \"api.example.com\"\n"), HasSubstr("is not an address"));
  EXPECT_THAT(fault("[models.x]\nkind = \"anthropic\"\nurl = \"https://a.example\"\n"), HasSubstr("models.x.api_key is missing"));
  EXPECT_THAT(planned("[models.x]\nkind = \"openai\"\nurl = \"http://a.example\"\napi_key = \"k\"\n").warnings,
              Contains(HasSubstr("unencrypted")));
}

TEST_F(PlanFleet, AnEngineByUrlServesWhatItSays) {
  const std::map<std::string, std::string> flags{{"engine-url", "http://127.0.0.1:8080/v1"}, {"model-aliases", "gpt-4o"}};
  auto plan = planned("", flags);
  ASSERT_THAT(ids(plan), ElementsAre("default")) << "it does not answer yet";
  EXPECT_THAT(plan.warnings, Contains(HasSubstr("model.id")));
  around_.engine_models = {{.id = "one", .chat = true}, {.id = "two", .embeddings = true}};
  plan = planned("", flags);
  ASSERT_THAT(ids(plan), ElementsAre("one", "two"));
  EXPECT_THAT(plan.options.models[0].aliases, ElementsAre("gpt-4o"));
  EXPECT_THAT(plan.options.models[1].aliases, IsEmpty());
  EXPECT_EQ(plan.options.models[0].remotes.size(), 1u);
}

TEST_F(PlanFleet, WhatCannotFitIsWarnedOf) {
  model("a.gguf");
  around_.available = 1 << 20;
  EXPECT_THAT(planned("[models.a]\npath = \"a.gguf\"\n").warnings, Contains(HasSubstr("a needs about")));
}

TEST(DefaultModelName, IsTheFileWithoutItsEnding) {
  EXPECT_EQ(default_model_name("/m/qwen3-8b.gguf"), "qwen3-8b");
  EXPECT_EQ(default_model_name("/m/big-00001-of-00003.gguf"), "big");
  EXPECT_EQ(default_model_name("embedded:"), "hearth-nano-0");
}

}  // namespace
}  // namespace hearth::app
