// Every architecture: what our decoder and engine compute is what llama.cpp computes at the same pin.
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>

#include "engine/engine_fixture.h"
#include "engine/llama_decoder.h"
#include "engine/reference.h"

namespace hearth::engine::testing {
namespace {

struct Case {
  const char* name;
  const char* arguments;
};

std::string path_of(const Case& c) { return random_model(c.name, std::string(c.arguments) + " --vocab '" + nano_path() + "'"); }

class Architecture : public ::testing::TestWithParam<Case> {};

TEST_P(Architecture, GreedyTextAndLogitsEqualPlainLlamaCpp) {
  std::string path = path_of(GetParam());
  auto engine = load(path);
  EXPECT_TRUE(engine->info().chat);
  // Longer than gemma's window, so that sliding layers have something to forget.
  std::string prompt =
      "list all files in the current folder, newest first, and count the lines of each of them before you print their names";
  Reference expected = reference(path, prompt, 40);
  ASSERT_GT(expected.prompt.size(), 16U);

  // Tokens, because a random model's text need not be UTF-8.
  chat::Request request = raw_request(prompt, 40);
  request.top_logprobs = 20;
  auto answer = run(*engine, request);
  ASSERT_FALSE(answer->error()) << answer->error()->message;
  EXPECT_EQ(answer->usage()->prompt_tokens, static_cast<int>(expected.prompt.size()));
  std::vector<chat::TokenInfo> infos = answer->tokens();
  ASSERT_FALSE(infos.empty());
  auto same = describe(expected.first_logits, infos[0].chosen.token, 20);
  EXPECT_NEAR(infos[0].entropy, same.entropy, 1e-5);
  for (std::size_t i = 0; i < same.top.size(); ++i) {
    EXPECT_EQ(infos[0].top.at(i).token, same.top[i].token) << i;
    EXPECT_NEAR(infos[0].top.at(i).logprob, same.top[i].logprob, 1e-5) << i;
  }
  std::vector<int> tokens;
  for (const auto& info : infos) tokens.push_back(info.chosen.token);
  if (tokens.size() > expected.tokens.size()) tokens.resize(expected.tokens.size());  // the end-of-generation token
  EXPECT_EQ(tokens, expected.tokens);
}

INSTANTIATE_TEST_SUITE_P(All, Architecture,
                         ::testing::Values(Case{"llama", "--arch llama --seed 11"}, Case{"qwen2", "--arch qwen2 --seed 12"},
                                           Case{"qwen3", "--arch qwen3 --head-size 32 --seed 13"},
                                           Case{"qwen3moe", "--arch qwen3moe --head-size 32 --seed 14"},
                                           Case{"gemma2", "--arch gemma2 --head-size 32 --layers 4 --window 16 --seed 15"},
                                           Case{"gemma3", "--arch gemma3 --head-size 32 --layers 7 --window 16 --tied --seed 16"}),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(MakeModel, IsAPureFunctionOfItsOptions) {
  auto bytes = [](const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(in), {});
  };
  std::string vocab = " --vocab '" + nano_path() + "'";
  std::string a = bytes(random_model("pure-a", "--arch llama --type q4_0 --seed 5" + vocab));
  std::string b = bytes(random_model("pure-b", "--arch llama --type q4_0 --seed 5" + vocab));
  std::string c = bytes(random_model("pure-c", "--arch llama --type q4_0 --seed 6" + vocab));
  EXPECT_EQ(a, b);
  EXPECT_EQ(a.size(), c.size());
  EXPECT_NE(a, c);
}

TEST(MakeModel, QuantisedModelsRun) {
  for (std::string type : {"f32", "q8_0", "q4_0"}) {
    auto engine = load(random_model("llama-" + type, "--arch llama --seed 9 --type " + type + " --vocab '" + nano_path() + "'"));
    auto request = raw_request("show disk usage", 8);
    request.ignore_eos = true;
    auto answer = run(*engine, request);
    ASSERT_FALSE(answer->error()) << type << answer->error()->message;
    EXPECT_EQ(answer->usage()->completion_tokens, 8) << type;
  }
}

}  // namespace
}  // namespace hearth::engine::testing
