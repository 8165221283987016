// Files that are no models, or not whole: each is refused with a message that says what is wrong.
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "engine/engine_fixture.h"

namespace hearth::engine::testing {
namespace {

std::string nano_bytes() {
  std::ifstream in(nano_path(), std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

class Load : public ::testing::Test {
 protected:
  std::string write(const std::string& name, const std::string& bytes) {
    std::filesystem::create_directories(folder_);
    std::ofstream(folder_ / name, std::ios::binary) << bytes;
    return folder_ / name;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  Error refusal(const std::string& path) {
    auto engine = Engine::load(options_for(path));
    EXPECT_FALSE(engine) << path << " was loaded";
    return engine ? Error{} : engine.error();
  }
  std::filesystem::path folder_ = std::filesystem::temp_directory_path() / ("hearth-load-" + std::to_string(getpid()));
};

TEST_F(Load, MissingFileIsNamedWithTheReason) {
  Error error = refusal("/no/such/model.gguf");
  EXPECT_EQ(error.code, ErrorCode::io);
  EXPECT_NE(error.message.find("/no/such/model.gguf"), std::string::npos);
  EXPECT_NE(error.message.find("no such file"), std::string::npos);
}

TEST_F(Load, FolderIsNotAModel) {
  std::filesystem::create_directories(folder_);
  EXPECT_EQ(refusal(folder_).code, ErrorCode::io);
}

TEST_F(Load, UnreadableFile) {
  if (geteuid() == 0) GTEST_SKIP() << "root reads every file";
  std::string path = write("secret.gguf", nano_bytes());
  chmod(path.c_str(), 0);
  Error error = refusal(path);
  EXPECT_EQ(error.code, ErrorCode::io);
  EXPECT_NE(error.message.find("Permission denied"), std::string::npos);
}

TEST_F(Load, EmptyAndTruncatedFiles) {
  EXPECT_NE(refusal(write("empty.gguf", "")).message.find("is empty"), std::string::npos);
  std::string whole = nano_bytes();
  EXPECT_NE(refusal(write("four.gguf", whole.substr(0, 6))).message.find("truncated"), std::string::npos);
  // In the header, in the metadata, in the tensors.
  for (std::size_t size : {std::size_t{20}, std::size_t{5000}, whole.size() / 2, whole.size() - 1}) {
    Error error = refusal(write("cut.gguf", whole.substr(0, size)));
    EXPECT_EQ(error.code, ErrorCode::model_invalid) << size;
    EXPECT_NE(error.message.find("cut.gguf"), std::string::npos) << error.message;
    EXPECT_EQ(error.message.find("gives no reason"), std::string::npos) << error.message;
  }
}

TEST_F(Load, OtherFormatsAreRecognised) {
  EXPECT_NE(refusal(write("a.bin", std::string("PK\3\4") + std::string(100, 'x'))).message.find("zip archive"), std::string::npos);
  EXPECT_NE(refusal(write("b.bin", "version https://git-lfs.github.com/spec/v1\n")).message.find("Git LFS"), std::string::npos);
  EXPECT_NE(refusal(write("c.bin", "<!DOCTYPE html><html></html>")).message.find("HTML page"), std::string::npos);
  Error error = refusal(write("d.bin", "plain text, not a model"));
  EXPECT_EQ(error.code, ErrorCode::model_invalid);
  EXPECT_NE(error.message.find("not a GGUF"), std::string::npos);
}

TEST_F(Load, WrongVersionsAreNamed) {
  std::string bytes = nano_bytes();
  bytes[4] = 1;
  EXPECT_NE(refusal(write("v1.gguf", bytes)).message.find("version 1"), std::string::npos);
  bytes[4] = 99;
  EXPECT_NE(refusal(write("v99.gguf", bytes)).message.find("version 99"), std::string::npos);
  bytes[4] = 0;
  bytes[7] = 3;
  EXPECT_NE(refusal(write("big.gguf", bytes)).message.find("big-endian"), std::string::npos);
}

TEST_F(Load, UnknownArchitectureIsAnErrorNotACrash) {
  std::string bytes = nano_bytes();
  std::size_t at = bytes.find("llama", bytes.find("general.architecture"));
  ASSERT_NE(at, std::string::npos);
  bytes.replace(at, 5, "zzzzz");
  Error error = refusal(write("arch.gguf", bytes));
  EXPECT_EQ(error.code, ErrorCode::model_invalid);
  EXPECT_NE(error.message.find("zzzzz"), std::string::npos) << error.message;
}

TEST_F(Load, BadOptionsAreRefused) {
  EngineOptions options = options_for(nano_path());
  options.kv_type = "f17";
  auto engine = Engine::load(options);
  ASSERT_FALSE(engine);
  EXPECT_EQ(engine.error().code, ErrorCode::config_invalid);
  options.kv_type = "k8v4";
  options.flash_attention = false;
  engine = Engine::load(options);
  ASSERT_FALSE(engine);
  EXPECT_EQ(engine.error().code, ErrorCode::config_invalid);
  EXPECT_NE(engine.error().message.find("flash attention"), std::string::npos);
  options.flash_attention = true;
  options.kv_type = "f16";
  options.model_path = "embedded:";
  engine = Engine::load(options);
  ASSERT_FALSE(engine);
  EXPECT_EQ(engine.error().code, ErrorCode::config_invalid);
}

TEST_F(Load, ProgressCanStopIt) {
  auto engine = Engine::load(options_for(nano_path()), [](float) { return false; });
  ASSERT_FALSE(engine);
  EXPECT_EQ(engine.error().code, ErrorCode::unavailable);
}

TEST_F(Load, EmbeddedBytesMakeTheSameModelAsTheFile) {
  std::string bytes = nano_bytes();
  EngineOptions options = options_for("embedded:");
  options.embedded_model = bytes;
  auto engine = Engine::load(options);
  ASSERT_TRUE(engine) << engine.error().message;
  auto request = chat_request("list all files");
  EXPECT_EQ(run(**engine, request)->text(), run(nano(), request)->text());
  EXPECT_EQ((*engine)->info().bytes, static_cast<std::int64_t>(bytes.size()));
}

TEST_F(Load, QuantisedKvCacheWorks) {
  for (std::string type : {"q8_0", "q4_0", "k8v4", "k3v2"}) {
    EngineOptions options = options_for(nano_path());
    options.kv_type = type;
    auto engine = Engine::load(options);
    ASSERT_TRUE(engine) << engine.error().message;
    EXPECT_FALSE(run(**engine, chat_request("list all files"))->text().empty()) << type;
  }
}

TEST(Info, SaysWhatTheModelIs) {
  const chat::ModelInfo info = nano().info();
  EXPECT_EQ(info.architecture, "llama");
  EXPECT_EQ(info.parameters, 3475712);
  EXPECT_EQ(info.bytes, 7017536);
  EXPECT_EQ(info.context, 2048);
  EXPECT_TRUE(info.chat);
  EXPECT_TRUE(info.embeddings);
  EXPECT_FALSE(info.rerank);
  EXPECT_TRUE(info.tools);
  EXPECT_GT(info.created, 0);
}

TEST(Info, BuildAndMachine) {
  EXPECT_EQ(llama_cpp_version(), "0.5.0");
  EXPECT_NE(cpu_features().find("CPU"), std::string::npos) << cpu_features();
  auto all = devices();
  EXPECT_TRUE(std::any_of(all.begin(), all.end(), [](const Device& d) { return !d.gpu && d.memory_total > 0; }));
}

}  // namespace
}  // namespace hearth::engine::testing
