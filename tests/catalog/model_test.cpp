#include "catalog/model.h"

#include <gtest/gtest.h>
#include <openssl/evp.h>

#include <array>
#include <filesystem>
#include <fstream>

#include "catalog/default_model.h"
#include "catalog/gguf_writer.h"

namespace hearth::catalog {
namespace {

using test::GgufWriter;
using test::small_model;

ModelSummary summary_of(const GgufWriter& w) {
  auto model = parse_model(w.write(), "m.gguf");
  EXPECT_TRUE(model.ok()) << model.error().message;
  return model.ok() ? std::move(*model) : ModelSummary{};
}

TEST(Model, TheDefaultModelIsWhatItsProvenanceSays) {
  const auto model = parse_model(default_model(), "nano");
  ASSERT_TRUE(model.ok()) << model.error().message;
  EXPECT_EQ(model->architecture, "llama");
  EXPECT_EQ(model->name, default_model_id);
  EXPECT_EQ(model->parameters, 3'475'712u);
  EXPECT_EQ(model->quantisation, "F16");
  EXPECT_EQ(model->context, 2048);
  EXPECT_EQ(model->layers, 4);
  EXPECT_EQ(model->heads, 4);
  EXPECT_EQ(model->kv_heads, (std::vector<std::int64_t>{2, 2, 2, 2}));
  EXPECT_EQ(model->key_length, 64);
  EXPECT_EQ(model->vocabulary, 2048);
  EXPECT_TRUE(model->chat_template);
  EXPECT_EQ(model->tool_format, "hermes");
  EXPECT_EQ(model->pooling, "");
  EXPECT_EQ(model->licence, "CC-BY-4.0");
  // 4 layers x (keys + values) x 2 heads x 64 values.
  EXPECT_EQ(kv_bytes_per_token(*model, "f16"), 4u * 2 * 128 * 2);
  EXPECT_EQ(kv_bytes_per_token(*model, "q8_0"), 4u * 2 * 128 / 32 * 34);
  EXPECT_EQ(kv_bytes_per_token(*model, "q4_0"), 4u * 2 * 128 / 32 * 18);
  // Heads of 64: so many bits for each number and two bytes for each vector.
  EXPECT_EQ(kv_bytes_per_token(*model, "k8v4"), 4u * 2 * (64 + 2 + 32 + 2));
  EXPECT_EQ(kv_bytes_per_token(*model, "k3v2"), 4u * 2 * (24 + 2 + 16 + 2));
  // Four sinks: room for the beginnings of 16 tokens in 1,024, 8 bits wide.
  EXPECT_EQ(kv_bytes_per_token(*model, "k3v2,sinks=4"), kv_bytes_per_token(*model, "k3v2"));
  EXPECT_EQ(estimate_memory(*model, 1024, "k3v2,sinks=4").kv, estimate_memory(*model, 1024, "k3v2").kv + 16u * 4 * 2 * (64 + 2) * 2);
  EXPECT_EQ(default_context(*model), 2048);
}

TEST(Model, TheEmbeddedBytesHaveTheDocumentedChecksum) {
  std::array<unsigned char, 32> digest{};
  unsigned int size = 0;
  ASSERT_EQ(EVP_Digest(default_model().data(), default_model().size(), digest.data(), &size, EVP_sha256(), nullptr), 1);
  std::string hex;
  for (const unsigned char byte : digest) {
    constexpr std::string_view digits = "0123456789abcdef";
    hex += digits[byte >> 4];
    hex += digits[byte & 15];
  }
  EXPECT_EQ(hex, default_model_sha256());
  std::ifstream readme(HEARTH_SOURCE_DIR "/assets/README.md");
  const std::string text{std::istreambuf_iterator<char>(readme), {}};
  EXPECT_NE(text.find(hex), std::string::npos) << "assets/README.md does not name the checksum";
}

TEST(Model, QuantisationComesFromTheFileTypeElseFromTheTensors) {
  EXPECT_EQ(summary_of(small_model()).quantisation, "Q4_K_M");
  EXPECT_EQ(summary_of(small_model()).dominant_type, "Q4_K");
  GgufWriter w;
  w.text("general.architecture", "llama");
  w.tensor("a", {32}, 8, 34);
  w.tensor("b", {2}, 0, 8);
  EXPECT_EQ(summary_of(w).quantisation, "Q8_0");
}

TEST(Model, KvFollowsHeadCountsByLayer) {
  GgufWriter w;
  w.text("general.architecture", "jamba");
  w.number("jamba.block_count", 4);
  w.number("jamba.embedding_length", 256);
  w.number("jamba.attention.head_count", 4);
  w.numbers("jamba.attention.head_count_kv", {0, 2, 0, 1});
  w.number("jamba.ssm.state_size", 16);
  w.number("jamba.attention.sliding_window", 512);
  w.tensor("a", {32}, 0, 128);
  const auto model = summary_of(w);
  EXPECT_TRUE(model.recurrent);
  EXPECT_EQ(model.sliding_window, 512);
  EXPECT_EQ(kv_bytes_per_token(model, "f16"), (2u + 1) * 64 * 2 * 2);
}

TEST(Model, KeyAndValueLengthsMayDiffer) {
  auto w = small_model();
  w.number("llama.attention.key_length", 96);
  w.number("llama.attention.value_length", 64);
  EXPECT_EQ(kv_bytes_per_token(summary_of(w), "f16"), 2u * 2 * (96 + 64) * 2);
}

// Two layers and a block that guesses, as the architecture has them.
GgufWriter guessing_model(const std::string& without = {}, int declared = 1, const std::string& arch = "hy_v3") {
  GgufWriter w;
  w.text("general.architecture", arch);
  w.number(arch + ".block_count", 3);
  w.number(arch + ".nextn_predict_layers", static_cast<std::uint32_t>(declared));
  w.number(arch + ".embedding_length", 64);
  w.number(arch + ".attention.head_count", 2);
  w.number(arch + ".attention.head_count_kv", 1);
  for (const std::string name : {"blk.0.attn_norm", "blk.2.nextn.eh_proj", "blk.2.nextn.enorm", "blk.2.nextn.hnorm", "blk.2.ffn_gate",
                                 "blk.2.ffn_up", "blk.2.ffn_down"}) {
    if (name != without) w.tensor(name + ".weight", {32}, 0, 128);
  }
  return w;
}

TEST(Model, BlocksThatGuessAreFoundAndCostOnlyWhereTheyAreUsed) {
  const auto model = summary_of(guessing_model());
  EXPECT_EQ(model.mtp_layers, 1);
  EXPECT_TRUE(model.can_guess()) << model.mtp_obstacle;
  EXPECT_EQ(kv_bytes_per_token(model, "f16"), 2u * 2 * 32 * 2);
  EXPECT_EQ(kv_bytes_per_token(model, "f16", true), 3u * 2 * 32 * 2);
  EXPECT_GT(estimate_memory(model, 4096, "f16", true).compute, estimate_memory(model, 4096, "f16").compute);
  EXPECT_EQ(summary_of(small_model()).mtp_layers, 0);
  EXPECT_FALSE(summary_of(small_model()).can_guess());
}

TEST(Model, BlocksThatCannotGuessSayWhy) {
  for (const char* name : {"blk.2.nextn.enorm", "blk.2.nextn.hnorm", "blk.2.ffn_gate", "blk.2.ffn_up", "blk.2.ffn_down"}) {
    const auto model = summary_of(guessing_model(name));
    EXPECT_FALSE(model.can_guess());
    EXPECT_NE(model.mtp_obstacle.find(name), std::string::npos) << model.mtp_obstacle;
  }
  EXPECT_NE(summary_of(guessing_model("blk.2.nextn.eh_proj")).mtp_obstacle.find("does not hold them"), std::string::npos);
  EXPECT_TRUE(summary_of(guessing_model({}, 1, "glm4moe")).can_guess());
  auto turned = guessing_model({}, 1, "glm4moe");
  turned.numbers("glm4moe.rope.dimension_sections", {8, 12, 12, 0});
  EXPECT_NE(summary_of(turned).mtp_obstacle.find("dimensions"), std::string::npos);
  EXPECT_NE(summary_of(guessing_model({}, 1, "llama")).mtp_obstacle.find("architecture llama"), std::string::npos);
}

TEST(Model, ImpossibleBlocksAreRefused) {
  const auto too_many = parse_model(guessing_model({}, 4).write(), "m.gguf");
  ASSERT_FALSE(too_many.ok());
  EXPECT_EQ(too_many.error().code, ErrorCode::model_invalid);
  EXPECT_NE(too_many.error().message.find("4 blocks"), std::string::npos) << too_many.error().message;
  const auto alone = parse_model(guessing_model("blk.0.attn_norm").write(), "m.gguf");
  ASSERT_FALSE(alone.ok());
  EXPECT_NE(alone.error().message.find("the model they belong to"), std::string::npos) << alone.error().message;
}

TEST(Model, MemoryGrowsWithTheContext) {
  const auto model = summary_of(small_model());
  const auto small = estimate_memory(model, 1024, "f16");
  const auto large = estimate_memory(model, 4096, "f16");
  EXPECT_EQ(small.weights, 1000u * 144 + 1024);
  EXPECT_EQ(large.kv, small.kv * 4);
  EXPECT_GT(large.compute, small.compute);
  EXPECT_EQ(small.total(), small.weights + small.kv + small.compute);
}

TEST(Model, KnowsTheLargestContextThatFits) {
  const auto model = summary_of(small_model());
  for (const char* type : {"f16", "k3v2"}) {
    const auto bytes = estimate_memory(model, 100, type).total();
    EXPECT_EQ(context_that_fits(model, bytes, type), 100) << type;
    EXPECT_EQ(context_that_fits(model, bytes - 1, type), 99) << type;
    EXPECT_EQ(context_that_fits(model, model.weight_bytes, type), 0) << type;
    EXPECT_EQ(context_that_fits(model, std::uint64_t{1} << 50, type), model.context) << type;
  }
}

TEST(Model, AbsurdMetadataDoesNotOverflow) {
  GgufWriter w;
  w.text("general.architecture", "llama");
  for (const char* key :
       {"context_length", "block_count", "embedding_length", "attention.head_count", "attention.key_length", "feed_forward_length"}) {
    w.number(std::string("llama.") + key, 0xffffffff);
  }
  w.tensor("a", {32}, 0, 128);
  const auto model = summary_of(w);
  EXPECT_LE(model.layers, 4096);
  for (const auto type : kv_types()) {
    (void)estimate_memory(model, 0x7fffffffffffffff, type);
    (void)context_that_fits(model, 0x7fffffffffffffff, type);
  }
}

TEST(Model, SaysWhenAFileHoldsNoModel) {
  const auto fault = [](const GgufWriter& w) {
    const auto model = parse_model(w.write(), "m.gguf");
    return model.ok() ? std::string("(accepted)") : model.error().message;
  };
  GgufWriter no_architecture;
  no_architecture.tensor("a", {1}, 0, 4);
  EXPECT_NE(fault(no_architecture).find("lacks \"general.architecture\""), std::string::npos);
  GgufWriter vocabulary;
  vocabulary.text("general.architecture", "llama");
  EXPECT_NE(fault(vocabulary).find("holds no tensors"), std::string::npos);
  auto adapter = small_model();
  adapter.text("general.type", "adapter");
  EXPECT_NE(fault(adapter).find("of type \"adapter\""), std::string::npos);
}

TEST(Model, EmbeddingModelsNameTheirPooling) {
  auto w = small_model();
  w.number("llama.pooling_type", 1);
  EXPECT_EQ(summary_of(w).pooling, "mean");
}

class SplitModel : public testing::Test {
 protected:
  SplitModel() {
    std::string pattern = (std::filesystem::temp_directory_path() / "hearth-split-XXXXXX").string();
    folder_ = mkdtemp(pattern.data());
    for (int i = 1; i <= 2; ++i) {
      auto w = i == 1 ? small_model() : GgufWriter();
      if (i == 2) w.tensor("blk.0.attn_q.weight", {32}, 0, 128);
      w.number("split.count", 2);
      std::ofstream(part(i), std::ios::binary) << w.write();
    }
  }
  ~SplitModel() override { std::filesystem::remove_all(folder_); }
  std::filesystem::path part(int i) const { return folder_ / ("m-0000" + std::to_string(i) + "-of-00002.gguf"); }
  std::filesystem::path folder_;
};

TEST_F(SplitModel, CountsAsOne) {
  const auto model = read_model(part(1).string());
  ASSERT_TRUE(model.ok()) << model.error().message;
  EXPECT_EQ(model->files.size(), 2u);
  EXPECT_EQ(model->parameters, 256'000u + 256 + 32);
  EXPECT_EQ(list_models(folder_), std::vector<std::filesystem::path>{part(1)});
}

TEST_F(SplitModel, WantsTheFirstPart) {
  const auto model = read_model(part(2).string());
  ASSERT_FALSE(model.ok());
  EXPECT_NE(model.error().message.find("is part 2 of a model split into 2. Give the first part: " + part(1).string()), std::string::npos);
}

TEST_F(SplitModel, NamesTheMissingPart) {
  std::filesystem::remove(part(2));
  const auto model = read_model(part(1).string());
  ASSERT_FALSE(model.ok());
  EXPECT_NE(model.error().message.find(part(2).string() + " is missing"), std::string::npos);
}

TEST_F(SplitModel, KeepsItsNames) {
  std::filesystem::rename(part(1), folder_ / "renamed.gguf");
  const auto model = read_model((folder_ / "renamed.gguf").string());
  ASSERT_FALSE(model.ok());
  EXPECT_NE(model.error().message.find("original names"), std::string::npos);
}

TEST(Model, ListingAMissingFolderIsEmpty) { EXPECT_TRUE(list_models("/nonexistent-folder").empty()); }

}  // namespace
}  // namespace hearth::catalog
