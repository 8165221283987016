// Answers as models write them, cut at every place a token may end: the events are the same, and no tool call is ever shown as text.
#include <gtest/gtest.h>
#include <llama.h>

#include <chrono>

#include "engine/backend.h"
#include "engine/chat_format.h"
#include "engine/engine_fixture.h"

namespace hearth::engine::testing {
namespace {

using Model = std::unique_ptr<llama_model, void (*)(llama_model*)>;

struct Dialect {
  Model model{nullptr, llama_model_free};
  std::unique_ptr<ChatFormat> format;
};

// A model whose chat template is one of llama.cpp's collection; empty = the demonstration model's own.
Dialect& dialect(const std::string& chat_template) {
  static std::map<std::string, Dialect> loaded;
  Dialect& d = loaded[chat_template];
  if (!d.model) {
    start_backend();
    std::string path = nano_path();
    if (!chat_template.empty()) {
      path = random_model(
          "template-" + chat_template,
          "--layers 1 --vocab '" + nano_path() + "' --chat-template '" HEARTH_LLAMA_DIR "/models/templates/" + chat_template + ".jinja'");
    }
    llama_model_params params = llama_model_default_params();
    params.vocab_only = true;
    d.model.reset(llama_model_load_from_file(path.c_str(), params));
    auto format = ChatFormat::create(d.model.get());
    if (!format) ADD_FAILURE() << format.error().message;
    else d.format = std::move(*format);
  }
  return d;
}

RenderedChat rendered(const std::string& chat_template, bool tools) {
  chat::Request request = chat_request("hi");
  if (tools) request.tools = {bash_tool()};
  auto out = dialect(chat_template).format->render(request);
  if (!out) {
    ADD_FAILURE() << out.error().message;
    return {};
  }
  return std::move(*out);
}

struct Said {
  std::string text, reasoning;
  std::vector<chat::ToolCall> calls;
  std::optional<chat::FinishReason> finish;
};

Said collect(const chat::Events& events) {
  Collector c;
  c.on_events(events);
  return {c.text(), c.reasoning(), c.calls(), c.finish()};
}

// Feeds `output` in pieces of `size` bytes; 0 = all at once.
Said feed(const RenderedChat& chat, const std::string& output, std::size_t size, chat::FinishReason reason = chat::FinishReason::stop) {
  OutputParser parser(chat.syntax, 0);
  chat::Events events;
  if (size == 0) size = output.size() + 1;
  for (std::size_t i = 0; i < output.size(); i += size) {
    for (auto& e : parser.feed(std::string_view(output).substr(i, size))) events.push_back(std::move(e));
  }
  for (auto& e : parser.finish(reason)) events.push_back(std::move(e));
  return collect(events);
}

const std::string kCall = "<tool_call>\n{\"name\": \"bash\", \"arguments\": {\"command\": \"ls -la\"}}\n</tool_call>";

TEST(OutputParser, PlainTextNeedsNoParser) { EXPECT_EQ(rendered("", false).syntax, nullptr); }

TEST(OutputParser, ACallIsACallHoweverItIsCut) {
  RenderedChat chat = rendered("", true);
  ASSERT_TRUE(chat.syntax);
  for (std::size_t size = 0; size <= kCall.size(); ++size) {
    Said said = feed(chat, kCall, size);
    EXPECT_EQ(said.text, "") << size;
    ASSERT_EQ(said.calls.size(), 1U) << size;
    EXPECT_EQ(said.calls[0].name, "bash");
    EXPECT_EQ(said.calls[0].arguments, "{\"command\": \"ls -la\"}") << size;
    EXPECT_EQ(said.finish, chat::FinishReason::tool_calls);
  }
}

TEST(OutputParser, TextBeforeACallIsText) {
  RenderedChat chat = rendered("", true);
  for (std::size_t size : {0U, 1U, 2U, 3U, 5U, 7U, 11U, 40U}) {
    Said said = feed(chat, "Let me look at <that> & a < b.\n" + kCall, size);
    EXPECT_EQ(said.text, "Let me look at <that> & a < b.") << size;
    EXPECT_EQ(said.calls.size(), 1U) << size;
  }
}

TEST(OutputParser, TextWithoutACallIsWhole) {
  RenderedChat chat = rendered("", true);
  for (std::string text : {"Just text.", "Half a marker: <tool_", "Ends in space.\n\n", "a <b> c <tool> d", "ünïcödé → ✓"}) {
    for (std::size_t size : {0U, 1U, 4U}) {
      Said said = feed(chat, text, size);
      EXPECT_EQ(said.text, text) << size;
      EXPECT_TRUE(said.calls.empty());
      EXPECT_EQ(said.finish, chat::FinishReason::stop);
      EXPECT_EQ(feed(chat, text, size, chat::FinishReason::length).text, text) << size;
    }
  }
}

TEST(OutputParser, BrokenCallsLoseNothing) {
  RenderedChat chat = rendered("", true);
  for (std::string text : {"<tool_call>\nthis is not JSON\n</tool_call>", "<tool_call>", "<tool_call>\n{\"nam"}) {
    for (std::size_t size : {0U, 1U, 3U}) {
      Said said = feed(chat, text, size);
      EXPECT_TRUE(said.calls.empty()) << text;
      EXPECT_EQ(said.text, text) << size;
    }
  }
}

TEST(OutputParser, ACutOffCallKeepsWhatThereIs) {
  RenderedChat chat = rendered("", true);
  Said said = feed(chat, kCall.substr(0, kCall.find("-la")), 1, chat::FinishReason::length);
  ASSERT_EQ(said.calls.size(), 1U);
  EXPECT_EQ(said.calls[0].arguments.find("{\"command\": \"ls"), 0U) << said.calls[0].arguments;
  EXPECT_EQ(said.finish, chat::FinishReason::length);
  EXPECT_EQ(said.text, "");
}

TEST(OutputParser, ThoughtsAreReasoning) {
  for (bool tools : {false, true}) {
    RenderedChat chat = rendered("Qwen-Qwen3-0.6B", tools);
    ASSERT_TRUE(chat.syntax);
    std::string output = "<think>\nThe user says hi. Is a < b?\n</think>\n\nHello there.";
    for (std::size_t size = 0; size <= 20; ++size) {
      Said said = feed(chat, output, size);
      EXPECT_EQ(said.text, "Hello there.") << size << tools;
      EXPECT_NE(said.reasoning.find("The user says hi. Is a < b?"), std::string::npos) << said.reasoning;
      EXPECT_EQ(said.reasoning.find("think>"), std::string::npos) << said.reasoning;
    }
  }
}

TEST(OutputParser, AThoughtCanBeSwitchedOffAndBounded) {
  const auto prompt = [](const std::string& chat_template, chat::Reasoning reasoning) {
    chat::Request request = chat_request("hi");
    request.reasoning = std::move(reasoning);
    auto out = dialect(chat_template).format->render(request);
    EXPECT_TRUE(out) << out.error().message;
    return std::move(*out);
  };
  const std::string closed = "<think>\n\n</think>\n\n";
  const std::string qwen = "Qwen-Qwen3-0.6B";
  EXPECT_FALSE(prompt(qwen, {}).prompt.ends_with(closed));
  EXPECT_FALSE(prompt(qwen, {.enabled = true}).prompt.ends_with(closed));
  EXPECT_TRUE(prompt(qwen, {.enabled = false}).prompt.ends_with(closed));
  EXPECT_TRUE(prompt(qwen, {.enabled = true, .budget = 0}).prompt.ends_with(closed));
  const std::string always = "llama-cpp-deepseek-r1";
  EXPECT_TRUE(prompt(always, {}).prompt.ends_with("<think>\n"));
  EXPECT_TRUE(prompt(always, {.enabled = false}).prompt.ends_with("<think>\n</think>\n\n"));
  EXPECT_EQ(prompt(qwen, {.budget = 20}).constraints.thinking_budget, 20);
  EXPECT_NE(prompt("openai-gpt-oss-120b", {.effort = "high"}).prompt.find("Reasoning: high"), std::string::npos);
  EXPECT_NE(prompt("openai-gpt-oss-120b", {.effort = "minimal"}).prompt.find("Reasoning: low"), std::string::npos);
  EXPECT_NE(prompt("openai-gpt-oss-120b", {}).prompt.find("Reasoning: medium"), std::string::npos);
  EXPECT_NE(prompt("ByteDance-Seed-OSS", {.budget = 512}).prompt.find("within 512 tokens"), std::string::npos);
  chat::Request negative = chat_request("hi");
  negative.reasoning.budget = -1;
  const auto refused = dialect(qwen).format->render(negative);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().param, "reasoning");
}

// This template opens a thought in every prompt, and a random model never closes one.
TEST(OutputParser, AThoughtPastItsBudgetEnds) {
  const std::string name = "llama-cpp-deepseek-r1";
  EngineOptions options = options_for(random_model(
      "thinker", "--seed 31 --vocab '" + nano_path() + "' --chat-template '" HEARTH_LLAMA_DIR "/models/templates/" + name + ".jinja'"));
  auto engine = Engine::load(options);
  ASSERT_TRUE(engine) << engine.error().message;
  const auto answer = [&](chat::Reasoning reasoning) {
    chat::Request request = chat_request("hi", 40);
    request.reasoning = std::move(reasoning);
    request.ignore_eos = true;
    auto out = run(**engine, request);
    EXPECT_FALSE(out->error()) << out->error()->message;
    return out;
  };
  const auto free = answer({});
  EXPECT_EQ(free->text(), "");
  ASSERT_FALSE(free->reasoning().empty());
  const auto bounded = answer({.budget = 8});
  EXPECT_FALSE(bounded->reasoning().empty());
  EXPECT_TRUE(free->reasoning().starts_with(bounded->reasoning())) << "until then it thinks as it would have";
  EXPECT_LT(bounded->reasoning().size(), free->reasoning().size());
  EXPECT_FALSE(bounded->text().empty());
  for (const auto& off : {chat::Reasoning{.enabled = false}, chat::Reasoning{.budget = 0}}) {
    const auto without = answer(off);
    EXPECT_EQ(without->reasoning(), "");
    EXPECT_FALSE(without->text().empty());
  }
}

TEST(OutputParser, ThoughtsThenACall) {
  RenderedChat chat = rendered("Qwen-Qwen3-0.6B", true);
  std::string output = "<think>\nI should list.\n</think>\n\n" + kCall;
  for (std::size_t size = 0; size <= 20; ++size) {
    Said said = feed(chat, output, size);
    EXPECT_EQ(said.text, "") << size;
    EXPECT_NE(said.reasoning.find("I should list."), std::string::npos);
    ASSERT_EQ(said.calls.size(), 1U) << size;
    EXPECT_EQ(said.calls[0].arguments, "{\"command\": \"ls -la\"}");
  }
}

TEST(OutputParser, ARequiredCallIsBegunUnlessTheModelIsToThinkFirst) {
  const auto required = [](const std::string& chat_template, bool think) {
    chat::Request request = chat_request("hi");
    request.tools = {bash_tool()};
    request.tool_choice.mode = chat::ToolChoice::Mode::required;
    request.reasoning.enabled = think;
    auto out = dialect(chat_template).format->render(request);
    EXPECT_TRUE(out) << chat_template << ": " << out.error().message;
    return out ? std::move(*out) : RenderedChat{};
  };
  const std::string mark = "<tool_call>\n";
  for (std::string chat_template : {"", "Qwen-Qwen3-0.6B", "NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use"}) {
    const RenderedChat chat = required(chat_template, false);
    ASSERT_TRUE(chat.prompt.ends_with(mark)) << chat_template << ": " << chat.prompt;
    for (std::size_t size : {0U, 1U, 7U}) {
      const Said said = feed(chat, kCall.substr(mark.size()), size);
      EXPECT_EQ(said.text, "") << chat_template;
      ASSERT_EQ(said.calls.size(), 1U) << chat_template;
      EXPECT_EQ(said.calls[0].arguments, "{\"command\": \"ls -la\"}") << chat_template;
    }
  }
  EXPECT_FALSE(required("Qwen-Qwen3-0.6B", true).prompt.ends_with(mark));
  // Families with forms of their own: whatever is begun for them, their grammar goes on from there.
  for (std::string chat_template :
       {"meta-llama-Llama-3.1-8B-Instruct", "mistralai-Mistral-Nemo-Instruct-2407", "deepseek-ai-DeepSeek-V3.1", "openai-gpt-oss-120b",
        "meetkai-functionary-medium-v3.2", "CohereForAI-c4ai-command-r7b-12-2024-tool_use"}) {
    required(chat_template, false);
  }
}

TEST(OutputParser, LongArgumentsAreReadWhole) {
  RenderedChat chat = rendered("", true);
  auto seconds = [&](std::size_t bytes) {
    std::string output =
        "<tool_call>\n{\"name\": \"bash\", \"arguments\": {\"command\": \"" + std::string(bytes, 'x') + "\"}}\n</tool_call>";
    auto start = std::chrono::steady_clock::now();
    Said said = feed(chat, output, 4);
    EXPECT_EQ(said.calls.at(0).arguments.size(), bytes + std::string("{\"command\": \"\"}").size());
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  RecordProperty("seconds_for_16k", std::to_string(seconds(16 * 1024)));
}

TEST(OutputParser, LongTextPassesWithoutReparsing) {
  RenderedChat chat = rendered("", true);
  OutputParser parser(chat.syntax, 0);
  parser.feed("Hello");
  std::string sent;
  for (int i = 0; i < 20000; ++i) {
    chat::Events events = parser.feed(" word");
    ASSERT_EQ(events.size(), 1U) << "text must pass in the turn it arrives";
    sent += std::get<chat::TextDelta>(events[0]).text;
  }
  EXPECT_EQ(sent.size(), 100000U);
}

}  // namespace
}  // namespace hearth::engine::testing
