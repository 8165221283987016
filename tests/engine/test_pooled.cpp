// Embeddings, reranking and scores, held against llama.cpp's own.
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <thread>

#include "engine/engine_fixture.h"
#include "engine/llama_decoder.h"
#include "engine/reference.h"

namespace hearth::engine::testing {
namespace {

std::string bert(const std::string& pooling) {
  return random_model("bert-" + pooling, "--arch bert --seed 21 --pooling " + pooling + " --vocab '" + vocabulary("bert-bge") + "'");
}

std::vector<float> normalised(std::vector<float> v) {
  double sum = 0;
  for (float x : v) sum += static_cast<double>(x) * static_cast<double>(x);
  for (float& x : v) x = static_cast<float>(x / std::sqrt(sum));
  return v;
}

chat::EmbeddingRequest inputs(const std::vector<std::string>& texts) {
  chat::EmbeddingRequest request;
  for (const auto& text : texts) request.inputs.push_back({.text = text, .tokens = {}});
  return request;
}

void expect_near(const std::vector<float>& a, const std::vector<float>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], 2e-4) << i;
}

class Embeddings : public ::testing::TestWithParam<std::pair<const char*, int>> {};

TEST_P(Embeddings, EqualLlamaCppsOwnEachInABatchOfSeveral) {
  std::string path = bert(GetParam().first);
  auto engine = load(path);
  EXPECT_FALSE(engine->info().chat);
  EXPECT_TRUE(engine->info().embeddings);
  std::vector<std::string> texts{"a cat sat on the mat", "quarterly results", "the quick brown fox jumps over the lazy dog"};
  auto result = engine->embed(inputs(texts));
  ASSERT_TRUE(result) << result.error().message;
  ASSERT_EQ(result->vectors.size(), texts.size());
  int tokens = 0;
  for (std::size_t i = 0; i < texts.size(); ++i) {
    auto expected = reference_tokens(path, texts[i], true);
    tokens += static_cast<int>(expected.size());
    expect_near(result->vectors[i], normalised(reference_pooled(path, expected, GetParam().second)));
  }
  EXPECT_EQ(result->prompt_tokens, tokens);
}

INSTANTIATE_TEST_SUITE_P(Pooling, Embeddings, ::testing::Values(std::pair{"mean", 1}, std::pair{"cls", 2}),
                         [](const auto& info) { return std::string(info.param.first); });

TEST(Embeddings, AModelWithoutASchedulerTellsThatItWorksAndHowFarBackItLastMoved) {
  auto engine = load(bert("mean"));
  EXPECT_FALSE(engine->stats().busy);
  std::atomic<bool> done{false};
  std::thread worker([&] {
    const auto request = inputs({std::string(400, 'a')});
    while (!done) {
      if (!engine->embed(request)) done = true;
    }
  });
  auto stats = engine->stats();
  while (!stats.busy && !done) stats = engine->stats();
  done = true;
  worker.join();
  EXPECT_EQ(stats.running, 1);
  EXPECT_LT(stats.since_tick, std::chrono::minutes(1)) << "not since the machine was started";
  EXPECT_FALSE(engine->stats().busy);
}

TEST(Embeddings, AGenerativeModelGivesItsMean) {
  std::vector<std::string> texts;
  for (int i = 0; i < 150; ++i) texts.push_back("text number " + std::to_string(i));  // several passes
  auto result = nano().embed(inputs(texts));
  ASSERT_TRUE(result) << result.error().message;
  ASSERT_EQ(result->vectors.size(), texts.size());
  for (std::size_t i : {0U, 77U, 149U}) {
    expect_near(result->vectors[i], normalised(reference_pooled(nano_path(), reference_tokens(nano_path(), texts[i], true), 1)));
  }
}

TEST(Embeddings, WhileTextIsGenerated) {
  auto sink = std::make_shared<Collector>();
  auto handle = nano().generate(chat_request("show the disk usage of every folder", 40), sink);
  ASSERT_TRUE(handle);
  auto alone = nano().embed(inputs({"a cat"}));
  sink->wait();
  auto after = nano().embed(inputs({"a cat"}));
  ASSERT_TRUE(alone && after);
  EXPECT_EQ(alone->vectors, after->vectors);
  EXPECT_EQ(sink->text(), run(nano(), chat_request("show the disk usage of every folder", 40))->text());
}

TEST(Embeddings, DimensionsCutAndNormaliseAgain) {
  auto engine = load(bert("cls"));
  auto request = inputs({"a cat"});
  auto whole = engine->embed(request);
  request.dimensions = 16;
  auto cut = engine->embed(request);
  ASSERT_TRUE(whole && cut);
  ASSERT_EQ(cut->vectors[0].size(), 16U);
  whole->vectors[0].resize(16);
  expect_near(cut->vectors[0], normalised(whole->vectors[0]));
  request.dimensions = 65;
  auto refused = engine->embed(request);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().param, "dimensions");
  EXPECT_NE(refused.error().message.find("64"), std::string::npos);
}

TEST(Embeddings, TooLongInputIsRefusedWithBothNumbers) {
  auto engine = load(bert("mean"));
  std::string text;
  for (int i = 0; i < 600; ++i) text += "cat ";
  auto result = engine->embed(inputs({"fine", text}));
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::context_length_exceeded);
  EXPECT_EQ(result.error().param, "input[1]");
  EXPECT_NE(result.error().message.find("602"), std::string::npos) << result.error().message;
  EXPECT_NE(result.error().message.find("512"), std::string::npos) << result.error().message;
}

TEST(Embeddings, BadInputs) {
  EXPECT_EQ(nano().embed({}).error().param, "input");
  chat::EmbeddingRequest request;
  request.inputs.push_back({.text = {}, .tokens = {1, 2, 999999}});
  EXPECT_EQ(nano().embed(request).error().code, ErrorCode::invalid_request);
  EXPECT_EQ(nano().embed(inputs({"\xff\xfe"})).error().code, ErrorCode::invalid_request);
  EXPECT_TRUE(nano().embed(inputs({""}))) << "the tokenizer's own first token is input enough";
}

TEST(Embeddings, AnEmbeddingModelDoesNotGenerate) {
  auto engine = load(bert("cls"));
  auto answer = run(*engine, raw_request("hello"));
  ASSERT_TRUE(answer->error());
  EXPECT_EQ(answer->error()->code, ErrorCode::unsupported);
  EXPECT_EQ(engine->rerank({.query = "a", .documents = {"b"}}).error().code, ErrorCode::unsupported);
  EXPECT_EQ(engine->score(raw_request("a b")).error().code, ErrorCode::unsupported);
  EXPECT_GT(*engine->count_tokens(raw_request("a b")), 2);
  engine->drain();
  EXPECT_TRUE(engine->wait_idle(std::chrono::seconds(1)));
  EXPECT_EQ(engine->embed(inputs({"a"})).error().code, ErrorCode::unavailable);
}

TEST(Rerank, ScoresEqualLlamaCppsAndComeBestFirst) {
  std::string path = bert("rank");
  auto engine = load(path);
  EXPECT_TRUE(engine->info().rerank);
  EXPECT_FALSE(engine->info().embeddings);
  chat::RerankRequest request{.query = "what is a panda",
                              .documents = {"hi there", "the giant panda is a bear", "it is a bird", "hi there"}};
  auto result = engine->rerank(request);
  ASSERT_TRUE(result) << result.error().message;
  ASSERT_EQ(result->items.size(), 4U);
  for (std::size_t i = 0; i < 4; ++i) {
    const auto& item = result->items[i];
    if (i > 0) EXPECT_LE(item.score, result->items[i - 1].score);
    // As llama-server puts them: [CLS] query [SEP] document, and an end only where the tokenizer has one to add.
    auto tokens = reference_tokens(path, request.query, true);
    auto document = reference_tokens(path, request.documents[static_cast<std::size_t>(item.index)], true);
    tokens.insert(tokens.end(), document.begin() + 1, document.end() - 1);
    float expected = reference_pooled(path, tokens, 4)[0];
    EXPECT_NEAR(item.score, expected, 2e-4 * (1 + std::abs(expected)));
  }
  request.top_n = 2;
  EXPECT_EQ(engine->rerank(request)->items.size(), 2U);
  request.documents.clear();
  EXPECT_EQ(engine->rerank(request).error().param, "documents");
}

TEST(Rerank, AModelWithoutARankingHeadSaysSo) {
  auto result = nano().rerank({.query = "a", .documents = {"b"}});
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::unsupported);
}

TEST(Score, EqualsLogSoftmaxOfLlamaCppsLogits) {
  std::string text = "find . -name '*.txt' -print";
  Reference expected = reference(nano_path(), text, 0, true);
  auto request = raw_request(text);
  request.top_logprobs = 3;
  auto result = nano().score(request);
  ASSERT_TRUE(result) << result.error().message;
  ASSERT_EQ(result->size(), expected.prompt.size() - 1);
  for (std::size_t i = 0; i < result->size(); ++i) {
    auto same = describe(expected.prompt_logits[i], expected.prompt[i + 1], 3);
    EXPECT_EQ((*result)[i].chosen.token, expected.prompt[i + 1]);
    EXPECT_NEAR((*result)[i].chosen.logprob, same.chosen.logprob, 1e-3);
    EXPECT_NEAR((*result)[i].entropy, same.entropy, 1e-3);
    EXPECT_EQ((*result)[i].top.size(), 3U);
  }
}

TEST(Score, AConversationIsScoredAsItIsRendered) {
  auto request = chat_request("list files");
  chat::Message answer;
  answer.role = chat::Role::assistant;
  answer.content.push_back({.kind = chat::ContentPart::Kind::text, .text = "ls"});
  request.messages.push_back(answer);
  auto result = nano().score(request);
  ASSERT_TRUE(result) << result.error().message;
  std::string text;
  for (const auto& info : *result) text += info.chosen.bytes;
  EXPECT_NE(text.find("list files"), std::string::npos);
  EXPECT_NE(text.find("ls<|im_end|>"), std::string::npos) << text;
}

}  // namespace
}  // namespace hearth::engine::testing
