// The whole engine on the demonstration model: text, limits, sampling, constraints, tools.
#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "base/json.h"
#include "base/utf8.h"
#include "engine/engine_fixture.h"
#include "engine/reference.h"

namespace hearth::engine::testing {
namespace {

using chat::FinishReason;

constexpr const char* kListFiles = "<|im_start|>user\nlist all files<|im_end|>\n<|im_start|>assistant\n";

TEST(Generate, ChatEqualsPlainLlamaCppOnTheRenderedPrompt) {
  Reference expected = reference(nano_path(), kListFiles, 48);
  auto answer = run(nano(), chat_request("list all files"));
  ASSERT_FALSE(answer->error()) << answer->error()->message;
  EXPECT_EQ(answer->text(), expected.text);
  EXPECT_FALSE(expected.text.empty());
  EXPECT_EQ(answer->finish(), FinishReason::stop);
  ASSERT_TRUE(answer->usage());
  EXPECT_EQ(answer->usage()->prompt_tokens, static_cast<int>(expected.prompt.size()));
  EXPECT_EQ(answer->usage()->completion_tokens, static_cast<int>(expected.tokens.size()) + 1);
  EXPECT_EQ(*nano().count_tokens(chat_request("list all files")), static_cast<int>(expected.prompt.size()));
}

TEST(Generate, RawPromptsAsTextAndAsTokensAreTheSame) {
  chat::Request text = raw_request(kListFiles);
  chat::Request tokens = text;
  tokens.prompts = {{.text = {}, .tokens = reference_tokens(nano_path(), kListFiles, true)}};
  auto a = run(nano(), text), b = run(nano(), tokens);
  EXPECT_EQ(a->text(), b->text());
  EXPECT_EQ(a->text(), run(nano(), chat_request("list all files"))->text());
}

TEST(Generate, ARepeatedPromptComesFromThePrefixCache) {
  auto request = chat_request("explain how to count the words of every file in a folder and sort the counts");
  auto first = run(nano(), request), second = run(nano(), request);
  EXPECT_EQ(first->text(), second->text());
  EXPECT_GE(second->usage()->cached_tokens, second->usage()->prompt_tokens - 1);
}

TEST(Generate, EveryAnswerBeginsWithWhatItsPromptCosts) {
  auto request = chat_request("name three ways to find a large file");
  const auto starts = [](const Collector& answer) {
    return std::count_if(answer.events().begin(), answer.events().end(),
                         [](const auto& e) { return std::holds_alternative<chat::Started>(e); });
  };
  for (bool again : {false, true}) {
    auto answer = run(nano(), request);
    ASSERT_FALSE(answer->error());
    const auto* started = std::get_if<chat::Started>(&answer->events().front());
    ASSERT_NE(started, nullptr);
    EXPECT_EQ(started->prompt_tokens, answer->usage()->prompt_tokens);
    EXPECT_EQ(started->cached_tokens, answer->usage()->cached_tokens);
    if (again) EXPECT_EQ(started->cached_tokens, started->prompt_tokens - 1);
    EXPECT_EQ(starts(*answer), 1);
  }
  // Several prompts: one start, with the tokens of all of them.
  auto many = raw_request(kListFiles, 3);
  many.prompts.push_back({.text = "another one", .tokens = {}});
  many.choices = 2;
  auto answer = run(nano(), many);
  const auto* started = std::get_if<chat::Started>(&answer->events().front());
  ASSERT_NE(started, nullptr);
  EXPECT_EQ(started->prompt_tokens, answer->usage()->prompt_tokens);
  EXPECT_EQ(starts(*answer), 1);
}

TEST(Generate, TheStopStringThatEndedAnAnswerIsNamed) {
  const auto ended_by = [](const chat::Request& request) {
    auto answer = run(nano(), request);
    EXPECT_FALSE(answer->error());
    for (const auto& event : answer->events()) {
      if (const auto* finished = std::get_if<chat::Finished>(&event)) return finished->stop_sequence;
    }
    return std::string("did not end");
  };
  auto chat = chat_request("list all files");
  const std::string text = run(nano(), chat)->text();
  ASSERT_GT(text.size(), 4U);
  EXPECT_EQ(ended_by(chat), "");
  chat.sampling.stop = {"no such text", text.substr(2, 2)};
  EXPECT_EQ(ended_by(chat), text.substr(2, 2));
  chat.tools = {bash_tool()};  // through the parser of tool calls
  const std::string with_tools = [&] {
    auto plain = chat;
    plain.sampling.stop.clear();
    plain.tool_choice.mode = chat::ToolChoice::Mode::none;
    return run(nano(), plain)->text();
  }();
  chat.tool_choice.mode = chat::ToolChoice::Mode::none;
  ASSERT_GT(with_tools.size(), 4U);
  chat.sampling.stop = {with_tools.substr(1, 3)};
  EXPECT_EQ(ended_by(chat), with_tools.substr(1, 3));
}

TEST(Generate, APromptComputedAheadAnswersNothingAndSpeedsUpWhatFollows) {
  auto request = chat_request("while I am typing this sentence the engine could already");
  request.prefill_only = true;
  request.priority = chat::Priority::background;
  request.choices = 2;
  request.top_logprobs = 2;
  auto ahead = run(nano(), request);
  ASSERT_FALSE(ahead->error()) << ahead->error()->message;
  EXPECT_TRUE(std::holds_alternative<chat::Started>(ahead->events().front()));
  ASSERT_EQ(ahead->events().size(), 4U) << "Started, Finished twice, Usage";
  for (int c = 0; c < 2; ++c) EXPECT_EQ(ahead->finish(c), FinishReason::length);
  EXPECT_EQ(ahead->usage()->completion_tokens, 0);
  EXPECT_GT(ahead->usage()->prompt_tokens, 10);
  const int shared = ahead->usage()->prompt_tokens;

  auto finished = chat_request("while I am typing this sentence the engine could already read what is there");
  auto answer = run(nano(), finished);
  EXPECT_GT(answer->usage()->cached_tokens, shared / 2);
  EXPECT_FALSE(answer->text().empty());

  auto raw = raw_request("raw text is computed ahead as well, and never repeated", 5);
  raw.prefill_only = raw.echo = true;
  EXPECT_EQ(run(nano(), raw)->text(), "");
  raw.prefill_only = raw.echo = false;
  auto continued = run(nano(), raw);
  EXPECT_EQ(continued->usage()->cached_tokens, continued->usage()->prompt_tokens - 1);
}

TEST(Generate, SeveralPromptsAndChoicesNumberTheirAnswers) {
  chat::Request request = raw_request(kListFiles, 12);
  request.prompts.push_back({.text = "<|im_start|>user\nshow disk usage<|im_end|>\n<|im_start|>assistant\n", .tokens = {}});
  request.choices = 2;
  auto answer = run(nano(), request);
  ASSERT_FALSE(answer->error());
  EXPECT_EQ(answer->text(0), answer->text(1));  // greedy
  EXPECT_EQ(answer->text(2), answer->text(3));
  EXPECT_NE(answer->text(0), answer->text(2));
  for (int c = 0; c < 4; ++c) EXPECT_TRUE(answer->finish(c)) << c;
  EXPECT_FALSE(answer->finish(4));
}

TEST(Generate, EchoRepeatsThePromptAndScoresIt) {
  chat::Request request = raw_request("find . -name", 4);
  request.echo = true;
  auto plain = run(nano(), request);
  EXPECT_EQ(plain->text().substr(0, 12), "find . -name");
  request.top_logprobs = 1;
  auto scored = run(nano(), request);
  EXPECT_EQ(scored->text(), plain->text());
  int prompt = scored->usage()->prompt_tokens;
  EXPECT_EQ(static_cast<int>(scored->tokens().size()), prompt - 1 + scored->usage()->completion_tokens);
}

TEST(Generate, MaxTokensCutsWithLength) {
  chat::Request request = chat_request("list all files", 3);
  request.ignore_eos = true;
  auto answer = run(nano(), request);
  EXPECT_EQ(answer->finish(), FinishReason::length);
  EXPECT_EQ(answer->usage()->completion_tokens, 3);
}

TEST(Generate, StopStringsAreNotPartOfTheAnswer) {
  std::string whole = run(nano(), chat_request("list all files"))->text();
  ASSERT_GE(whole.size(), 3U);
  chat::Request request = chat_request("list all files");
  request.sampling.stop = {whole.substr(1, 2)};  // most likely across a token border
  auto answer = run(nano(), request);
  EXPECT_EQ(answer->text(), whole.substr(0, 1));
  EXPECT_EQ(answer->finish(), FinishReason::stop);
}

TEST(Generate, TheSameSeedGivesTheSameTextAndOthersDiffer) {
  chat::Request request = chat_request("how do I compress a folder");
  request.sampling.temperature = 1.5F;
  request.sampling.top_k = 0;
  request.sampling.seed = 42;
  std::string first = run(nano(), request)->text();
  EXPECT_EQ(run(nano(), request)->text(), first);
  std::set<std::string> others;
  for (std::uint32_t seed = 0; seed < 5; ++seed) {
    request.sampling.seed = seed;
    others.insert(run(nano(), request)->text());
  }
  EXPECT_GT(others.size(), 1U);
  request.choices = 4;
  auto several = run(nano(), request);
  std::set<std::string> texts;
  for (int c = 0; c < 4; ++c) texts.insert(several->text(c));
  EXPECT_GT(texts.size(), 1U) << "choices must not share their random numbers";
}

TEST(Generate, LogitBiasForbidsAndForces) {
  std::string whole = run(nano(), chat_request("list all files"))->text();
  Reference expected = reference(nano_path(), kListFiles, 4);
  chat::Request request = chat_request("list all files", 4);
  request.top_logprobs = 0;
  request.sampling.logit_bias = {{expected.tokens[0], -100.0F}};
  EXPECT_NE(run(nano(), request)->tokens().at(0).chosen.token, expected.tokens[0]);
  request.sampling.logit_bias = {{300, 100.0F}};
  for (const auto& info : run(nano(), request)->tokens()) EXPECT_EQ(info.chosen.token, 300);
}

TEST(Generate, LogprobsDescribeTheModelsOwnDistribution) {
  chat::Request request = chat_request("list all files", 6);
  request.top_logprobs = 5;
  auto answer = run(nano(), request);
  ASSERT_FALSE(answer->tokens().empty());
  std::string bytes;
  for (const auto& info : answer->tokens()) {
    ASSERT_EQ(info.top.size(), 5U);
    EXPECT_EQ(info.chosen.token, info.top[0].token);  // greedy
    EXPECT_EQ(info.chosen.logprob, info.top[0].logprob);
    double sum = 0;
    for (const auto& p : info.top) sum += std::exp(static_cast<double>(p.logprob));
    EXPECT_LE(sum, 1.0 + 1e-5);
    EXPECT_GE(info.entropy, 0);
    EXPECT_LE(info.entropy, std::log(2048.0) + 1e-4);
    bytes += info.chosen.bytes;
  }
  EXPECT_EQ(bytes.substr(0, answer->text().size()), answer->text());
}

TEST(Generate, EveryDeltaIsWholeUtf8) {
  // A grammar that admits only characters of three and four bytes; the model's tokens are single bytes of them.
  chat::Request request = chat_request("say something", 60);
  request.format = {chat::OutputFormat::Kind::gbnf, "root ::= [\\u4e00-\\u4e20\\U0001F600-\\U0001F610]{6}"};
  auto answer = run(nano(), request);
  ASSERT_FALSE(answer->error()) << answer->error()->message;
  for (const auto& event : answer->events()) {
    if (const auto* delta = std::get_if<chat::TextDelta>(&event)) EXPECT_TRUE(is_valid_utf8(delta->text));
  }
  EXPECT_GE(answer->text().size(), 18U);
}

TEST(Generate, JsonSchemaOutputParsesAndFits) {
  chat::Request request = chat_request("list all files", 200);
  request.format = {chat::OutputFormat::Kind::json_schema,
                    R"({"type":"object","properties":{"command":{"type":"string","maxLength":20},"safe":{"type":"boolean"},
                        "level":{"enum":["low","high"]}},"required":["command","safe","level"],"additionalProperties":false})"};
  for (float temperature : {0.0F, 1.0F}) {
    request.sampling.temperature = temperature;
    request.sampling.seed = 3;
    auto answer = run(nano(), request);
    ASSERT_FALSE(answer->error()) << answer->error()->message;
    EXPECT_EQ(answer->finish(), FinishReason::stop);
    auto value = parse_json(answer->text());
    ASSERT_TRUE(value) << answer->text();
    EXPECT_EQ(value->as_object().size(), 3U);
    EXPECT_TRUE(value->at("command").is_string());
    EXPECT_LE(value->at("command").as_string().size(), 80U);
    EXPECT_TRUE(value->at("safe").is_bool());
    EXPECT_TRUE(value->at("level") == "low" || value->at("level") == "high");
  }
}

TEST(Generate, JsonObjectIsAnObject) {
  chat::Request request = raw_request("{", 300);
  request.prompts[0].text = "a short json object: ";
  request.format.kind = chat::OutputFormat::Kind::json_object;
  request.sampling.logit_bias = {};
  auto answer = run(nano(), request);
  ASSERT_FALSE(answer->error()) << answer->error()->message;
  ASSERT_FALSE(answer->text().empty());
  EXPECT_EQ(answer->text()[0], '{');
  if (answer->finish() == FinishReason::stop) {
    auto value = parse_json(answer->text());
    ASSERT_TRUE(value) << answer->text();
    EXPECT_TRUE(value->is_object());
  }
}

TEST(Generate, GbnfConstrainsChatAndRaw) {
  for (auto request : {chat_request("yes or no?"), raw_request("yes or no?")}) {
    request.format = {chat::OutputFormat::Kind::gbnf, R"(root ::= "maybe" [0-9] [0-9])"};
    auto answer = run(nano(), request);
    ASSERT_FALSE(answer->error()) << answer->error()->message;
    EXPECT_EQ(answer->text().substr(0, 5), "maybe");
    EXPECT_EQ(answer->text().size(), 7U);
    EXPECT_EQ(answer->finish(), FinishReason::stop);
  }
}

TEST(Generate, AGrammarWithNoWayOutEndsTheAnswerNotTheProcess) {
  chat::Request request = raw_request("x");
  // The end-of-generation token may never come in the middle, and nothing else may follow the "a".
  request.format = {chat::OutputFormat::Kind::gbnf, "root ::= \"a\" <[2045]> \"b\""};
  auto answer = run(nano(), request);
  ASSERT_TRUE(answer->error()) << answer->text();
  EXPECT_EQ(answer->error()->param, "grammar");
  EXPECT_FALSE(run(nano(), chat_request("list all files"))->text().empty()) << "the engine goes on";
}

TEST(Generate, BadConstraintsAreRefusedBeforeTheyRun) {
  using Kind = chat::OutputFormat::Kind;
  struct Bad {
    Kind kind;
    std::string schema, param;
  };
  std::string deep(5000, '(');
  for (const Bad& bad :
       {Bad{Kind::gbnf, "root ::= missing", "grammar"}, Bad{Kind::gbnf, "other ::= \"a\"", "grammar"},
        Bad{Kind::gbnf, "root ::= root \"a\"", "grammar"}, Bad{Kind::gbnf, "root ::= \"unclosed", "grammar"},
        Bad{Kind::gbnf, "", "grammar"}, Bad{Kind::gbnf, "%llguidance {}", "grammar"}, Bad{Kind::gbnf, "root ::= " + deep, "grammar"},
        Bad{Kind::gbnf, std::string(70000, 'a'), "grammar"}, Bad{Kind::json_schema, "{", "response_format"},
        Bad{Kind::json_schema, "[]", "response_format"}, Bad{Kind::json_schema, R"({"type":"nonsense"})", "response_format"},
        Bad{Kind::json_schema, R"({"$ref":"#/missing"})", "response_format"},
        Bad{Kind::json_schema, R"({"type":"string","pattern":")" + std::string(2000, '(') + R"("})", "response_format"},
        Bad{Kind::json_schema, R"({"type":"string","pattern":"^(a$"})", "response_format"}}) {
    for (auto request : {chat_request("hi"), raw_request("hi")}) {
      request.format = {bad.kind, bad.schema};
      auto answer = run(nano(), request);
      ASSERT_TRUE(answer->error()) << bad.schema.substr(0, 60);
      EXPECT_EQ(answer->error()->code, ErrorCode::invalid_request) << bad.schema.substr(0, 60) << ": " << answer->error()->message;
      EXPECT_EQ(answer->error()->param, bad.param) << bad.schema.substr(0, 60) << ": " << answer->error()->message;
    }
  }
}

TEST(Generate, ContextOverflowNamesBothNumbers) {
  std::string words;
  for (int i = 0; i < 3000; ++i) words += "file ";
  auto request = raw_request(words, 10);
  int tokens = *nano().count_tokens(request);
  ASSERT_GT(tokens, 2048);
  auto answer = run(nano(), request);
  ASSERT_TRUE(answer->error());
  EXPECT_EQ(answer->error()->code, ErrorCode::context_length_exceeded);
  EXPECT_NE(answer->error()->message.find("2048"), std::string::npos) << answer->error()->message;
  EXPECT_NE(answer->error()->message.find(std::to_string(tokens)), std::string::npos) << answer->error()->message;

  answer = run(nano(), chat_request("hi", 5000));
  ASSERT_TRUE(answer->error());
  EXPECT_EQ(answer->error()->code, ErrorCode::context_length_exceeded);
  EXPECT_EQ(answer->error()->param, "max_tokens");
  EXPECT_NE(answer->error()->message.find("5000"), std::string::npos);
}

TEST(Generate, BadParametersNameTheField) {
  auto refused = [](auto change) {
    chat::Request request = chat_request("hi");
    change(request);
    auto answer = run(nano(), request);
    EXPECT_TRUE(answer->error());
    return answer->error().value_or(Error{});
  };
  EXPECT_EQ(refused([](auto& r) { r.sampling.temperature = -1.0F; }).param, "temperature");
  EXPECT_EQ(refused([](auto& r) { r.sampling.temperature = NAN; }).param, "temperature");
  EXPECT_EQ(refused([](auto& r) { r.sampling.top_p = 1.5F; }).param, "top_p");
  EXPECT_EQ(refused([](auto& r) { r.sampling.repeat_penalty = 0.0F; }).param, "repeat_penalty");
  EXPECT_EQ(refused([](auto& r) { r.sampling.logit_bias = {{2048, 1.0F}}; }).param, "logit_bias");
  EXPECT_EQ(refused([](auto& r) { r.sampling.logit_bias = {{-1, 1.0F}}; }).param, "logit_bias");
  EXPECT_EQ(refused([](auto& r) { r.sampling.logit_bias = {{1, 101.0F}}; }).param, "logit_bias");
  EXPECT_EQ(refused([](auto& r) { r.choices = 0; }).param, "n");
  EXPECT_EQ(refused([](auto& r) { r.max_tokens = -1; }).param, "max_tokens");
  EXPECT_EQ(refused([](auto& r) { r.top_logprobs = 21; }).param, "top_logprobs");
  EXPECT_EQ(refused([](auto& r) { r.messages.clear(); }).param, "messages");
  EXPECT_EQ(refused([](auto& r) { r.messages.clear(), r.prompts = {{.text = "\xff", .tokens = {}}}; }).param, "prompt");
  EXPECT_EQ(refused([](auto& r) { r.messages.clear(), r.prompts = {{.text = "", .tokens = {1, 99999}}}; }).param, "prompt");
  Error image =
      refused([](auto& r) { r.messages[0].content.push_back({.kind = chat::ContentPart::Kind::image, .url = "http://x/y.png"}); });
  EXPECT_EQ(image.code, ErrorCode::unsupported);
  EXPECT_EQ(image.param, "messages[0].content[1]");
}

TEST(Generate, ADeadlineEndsTheAnswer) {
  chat::Request request = chat_request("list all files", 1900);
  request.ignore_eos = true;
  request.time_limit = std::chrono::milliseconds(1);
  auto answer = run(nano(), request);
  ASSERT_TRUE(answer->error());
  EXPECT_EQ(answer->error()->code, ErrorCode::deadline_exceeded);
}

TEST(Generate, DroppingTheHandleEndsTheWork) {
  chat::Request request = chat_request("list all files", 1900);
  request.ignore_eos = true;
  auto before = nano().stats().cancelled;
  {
    auto handle = nano().generate(request, std::make_shared<Collector>());
    ASSERT_TRUE(handle);
  }
  EXPECT_TRUE(nano().wait_idle(std::chrono::seconds(30)));
  EXPECT_GT(nano().stats().cancelled, before);
}

TEST(Tools, RequiredAndNamedCall) {
  for (auto mode : {chat::ToolChoice::Mode::required, chat::ToolChoice::Mode::named}) {
    chat::Request request = chat_request("list all files", 120);
    request.tools = {bash_tool()};
    request.tool_choice.mode = mode;
    if (mode == chat::ToolChoice::Mode::named) {
      request.tools.push_back({.name = "other", .description = {}, .parameters = "{}"});
      request.tool_choice.name = "bash";
    }
    auto answer = run(nano(), request);
    ASSERT_FALSE(answer->error()) << answer->error()->message;
    auto calls = answer->calls();
    ASSERT_GE(calls.size(), 1U);
    EXPECT_EQ(calls[0].name, "bash");
    EXPECT_FALSE(calls[0].id.empty());
    auto arguments = parse_json(calls[0].arguments);
    ASSERT_TRUE(arguments) << calls[0].arguments;
    EXPECT_TRUE(arguments->at("command").is_string());
    EXPECT_EQ(answer->finish(), FinishReason::tool_calls);
    EXPECT_EQ(answer->text().find("<tool_call>"), std::string::npos);
  }
}

TEST(Tools, ARequiredCallComesFirstAlsoFromAModelThatDoesNotKnowTheTool) {
  for (auto mode : {chat::ToolChoice::Mode::required, chat::ToolChoice::Mode::named}) {
    chat::Request request = chat_request("list all files", 60);
    request.tools = {{.name = "json",
                      .description = "Respond with a JSON object.",
                      .parameters = R"({"type":"object","properties":{"kind":{"enum":["file","folder"]}},"required":["kind"]})"}};
    request.tool_choice = {mode, mode == chat::ToolChoice::Mode::named ? "json" : ""};
    auto answer = run(nano(), request);
    ASSERT_FALSE(answer->error()) << answer->error()->message;
    EXPECT_EQ(answer->text(), "");
    auto calls = answer->calls();
    ASSERT_GE(calls.size(), 1U);
    EXPECT_EQ(calls[0].name, "json");
    EXPECT_TRUE(parse_json(calls[0].arguments)) << calls[0].arguments;
    EXPECT_EQ(answer->finish(), FinishReason::tool_calls);
  }
}

TEST(Tools, AutoCallsWhenTheModelDoes) {
  chat::Request request = chat_request("list all files", 120);
  request.tools = {bash_tool()};
  auto answer = run(nano(), request);
  ASSERT_FALSE(answer->error()) << answer->error()->message;
  auto calls = answer->calls();
  ASSERT_EQ(calls.size(), 1U) << answer->text();
  EXPECT_EQ(calls[0].name, "bash");
  EXPECT_TRUE(parse_json(calls[0].arguments)) << calls[0].arguments;
  EXPECT_EQ(answer->finish(), FinishReason::tool_calls);
  EXPECT_EQ(answer->text(), "");
}

TEST(Tools, NoneNeverCalls) {
  chat::Request request = chat_request("list all files", 120);
  request.tools = {bash_tool()};
  request.tool_choice.mode = chat::ToolChoice::Mode::none;
  auto answer = run(nano(), request);
  EXPECT_TRUE(answer->calls().empty());
  EXPECT_EQ(answer->finish(), FinishReason::stop);
  EXPECT_EQ(answer->text(), run(nano(), chat_request("list all files", 120))->text());
}

TEST(Tools, ACutOffCallEndsWithLength) {
  chat::Request request = chat_request("list all files", 14);
  request.tools = {bash_tool()};
  request.tool_choice.mode = chat::ToolChoice::Mode::required;
  auto answer = run(nano(), request);
  EXPECT_EQ(answer->finish(), FinishReason::length);
  EXPECT_EQ(answer->text().find("<tool_call>"), std::string::npos);
  answer->calls();  // begun calls end
}

TEST(Tools, AConversationWithAToolResultRenders) {
  chat::Request request = chat_request("list all files", 20);
  request.tools = {bash_tool()};
  chat::Message call;
  call.role = chat::Role::assistant;
  call.tool_calls.push_back({.id = "c1", .name = "bash", .arguments = R"({"command":"ls"})"});
  chat::Message result;
  result.role = chat::Role::tool;
  result.tool_call_id = "c1";
  result.content.push_back({.kind = chat::ContentPart::Kind::text, .text = "a.txt"});
  request.messages.push_back(call);
  request.messages.push_back(result);
  auto answer = run(nano(), request);
  ASSERT_FALSE(answer->error()) << answer->error()->message;
  EXPECT_GT(*nano().count_tokens(request), *nano().count_tokens(chat_request("list all files")));
}

TEST(Tools, BadToolsAreRefused) {
  auto refused = [](auto change) {
    chat::Request request = chat_request("hi");
    request.tools = {bash_tool()};
    change(request);
    auto answer = run(nano(), request);
    EXPECT_TRUE(answer->error());
    return answer->error().value_or(Error{}).param;
  };
  using Mode = chat::ToolChoice::Mode;
  EXPECT_EQ(refused([](auto& r) { r.tools[0].parameters = "{"; }), "tools[0].function.parameters");
  EXPECT_EQ(refused([](auto& r) { r.tools[0].parameters = "7"; }), "tools[0].function.parameters");
  EXPECT_EQ(refused([](auto& r) { r.tools.push_back({.name = "x", .description = {}, .parameters = R"({"type":"nonsense"})"}); }),
            "tools[1].function.parameters");
  EXPECT_EQ(refused([](auto& r) { r.tool_choice = {Mode::named, "missing"}; }), "tool_choice");
  EXPECT_EQ(refused([](auto& r) { r.tools.clear(), r.tool_choice.mode = Mode::required; }), "tool_choice");
  EXPECT_EQ(refused([](auto& r) { r.format = {chat::OutputFormat::Kind::gbnf, "root ::= \"a\""}; }), "grammar");
}

}  // namespace
}  // namespace hearth::engine::testing
