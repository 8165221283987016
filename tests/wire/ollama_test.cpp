// What an answer of the Ollama API looks like, line by line, and how the endpoint serves it. Requests are in tests/cases/ollama.
#include "wire/ollama.h"

#include <gtest/gtest.h>

#include "wire/endpoint_harness.h"
#include "wire/ollama_endpoint.h"

namespace hearth::wire::ollama {
namespace {

using namespace std::chrono_literals;
using chat::FinishReason;

std::vector<json::object> read_lines(std::string_view text) {
  std::vector<json::object> out;
  while (!text.empty()) {
    const std::size_t end = text.find('\n');
    EXPECT_NE(end, std::string_view::npos) << "every line ends: " << text;
    const auto parsed = parse_json(text.substr(0, end));
    EXPECT_TRUE(parsed) << text.substr(0, end);
    if (parsed) out.push_back(parsed->as_object());
    text.remove_prefix(std::min(end, text.size() - 1) + 1);
  }
  return out;
}

std::vector<json::object> streamed(const chat::Events& events, Form form = Form::chat) {
  FakeClock clock;
  Codec codec(form, clock);
  codec.served_by("m");
  std::string out;
  for (const auto& event : events) codec.encode(event, out);
  codec.end(out);
  return read_lines(out);
}

std::string content(const json::object& line) { return std::string(line.at("message").at("content").as_string()); }

TEST(OllamaStream, LinesAndALastOneThatIsDone) {
  const auto lines = streamed({chat::Started{5, 2}, chat::TextDelta{0, "a\nb"}, chat::TextDelta{0, ""}, chat::TextDelta{0, "c"},
                               chat::Finished{0, FinishReason::stop}, chat::Usage{5, 2, 3}});
  ASSERT_EQ(lines.size(), 3U);
  EXPECT_EQ(content(lines[0]), "a\nb");
  EXPECT_EQ(content(lines[1]), "c");
  EXPECT_EQ(content(lines[2]), "");
  for (const auto& line : lines) {
    EXPECT_EQ(line.at("model").as_string(), "m");
    EXPECT_EQ(line.at("message").at("role").as_string(), "assistant");
    EXPECT_TRUE(line.at("created_at").as_string().starts_with("20"));
    EXPECT_TRUE(line.at("created_at").as_string().ends_with("Z"));
    EXPECT_EQ(line.at("done").as_bool(), &line == &lines.back());
  }
  EXPECT_EQ(lines[2].at("done_reason").as_string(), "stop");
  EXPECT_EQ(lines[2].at("prompt_eval_count").as_int64(), 5);
  EXPECT_EQ(lines[2].at("eval_count").as_int64(), 3);
}

TEST(OllamaStream, DurationsAreThoseThatPassed) {
  FakeClock clock;
  Codec codec(Form::generate, clock);
  clock.advance(2s);  // the model is loaded
  codec.served_by("m");
  std::string out;
  clock.advance(300ms);
  codec.encode(chat::Started{5, 0}, out);
  clock.advance(40ms);
  codec.encode(chat::TextDelta{0, "a"}, out);
  codec.encode(chat::Finished{0, FinishReason::length}, out);
  codec.encode(chat::Usage{5, 0, 1}, out);
  codec.end(out);
  const auto last = read_lines(out).back();
  EXPECT_EQ(last.at("done_reason").as_string(), "length");
  EXPECT_EQ(last.at("total_duration").as_int64(), 2'340'000'000);
  EXPECT_EQ(last.at("load_duration").as_int64(), 2'000'000'000);
  EXPECT_EQ(last.at("prompt_eval_duration").as_int64(), 300'000'000);
  EXPECT_EQ(last.at("eval_duration").as_int64(), 40'000'000);
}

TEST(OllamaStream, AModelThatWasReadySpentNoTimeOnLoading) {
  FakeClock clock;
  Codec codec(Form::chat, clock);
  codec.was_ready();
  clock.advance(300ms);  // an upstream opens its answer when the prompt is computed
  codec.served_by("m");
  std::string out;
  codec.encode(chat::Started{5, 0}, out);
  clock.advance(40ms);
  codec.encode(chat::Finished{0, FinishReason::stop}, out);
  codec.end(out);
  const auto last = read_lines(out).back();
  EXPECT_EQ(last.at("load_duration").as_int64(), 0);
  EXPECT_EQ(last.at("prompt_eval_duration").as_int64(), 300'000'000);
  EXPECT_EQ(last.at("eval_duration").as_int64(), 40'000'000);
}

TEST(OllamaStream, GenerateHasNoMessage) {
  const auto lines = streamed({chat::ReasoningDelta{0, "hm"}, chat::TextDelta{0, "a"}, chat::Finished{0, {}}}, Form::generate);
  ASSERT_EQ(lines.size(), 3U);
  EXPECT_EQ(lines[0].at("thinking").as_string(), "hm");
  EXPECT_EQ(lines[0].at("response").as_string(), "");
  EXPECT_EQ(lines[1].at("response").as_string(), "a");
  EXPECT_EQ(lines[2].at("response").as_string(), "");
  EXPECT_FALSE(lines[2].contains("message"));
  EXPECT_FALSE(lines[2].contains("context")) << "none is kept, so none is given";
}

TEST(OllamaStream, ACallIsHeldUntilItIsWhole) {
  const auto lines = streamed({chat::ReasoningDelta{0, "hm"}, chat::ToolCallBegin{0, 0, "c0", "f"}, chat::ToolCallBegin{0, 1, "c1", "g"},
                               chat::ToolCallDelta{0, 1, "{\"b\": [1,\n"}, chat::TextDelta{0, "between"}, chat::ToolCallDelta{0, 0, ""},
                               chat::ToolCallDelta{0, 1, "2.50]}"}, chat::ToolCallEnd{0, 1}, chat::ToolCallEnd{0, 0},
                               chat::Finished{0, FinishReason::tool_calls}, chat::Usage{}});
  ASSERT_EQ(lines.size(), 5U);
  EXPECT_EQ(lines[0].at("message").at("thinking").as_string(), "hm");
  EXPECT_EQ(content(lines[1]), "between");
  EXPECT_EQ(json::serialize(lines[2].at("message").at("tool_calls").at(0).at("function").at("name")), "\"g\"");
  EXPECT_EQ(lines[2].at("message").at("tool_calls").at(0).at("id").as_string(), "c1");
  EXPECT_EQ(lines[2].at("message").at("tool_calls").at(0).at("function").at("arguments").at("b").at(1).to_number<double>(), 2.5);
  EXPECT_TRUE(lines[3].at("message").at("tool_calls").at(0).at("function").at("arguments").as_object().empty())
      << "no arguments are an empty object";
  EXPECT_EQ(lines[4].at("done_reason").as_string(), "stop");
}

TEST(OllamaStream, ACallThatCannotBeMadeIsText) {
  for (const char* broken : {R"({"a": 1)", R"([1])", R"({"a":1,"a":2})", "run it"}) {
    const auto lines =
        streamed({chat::ToolCallBegin{0, 0, "c0", "f"}, chat::ToolCallDelta{0, 0, broken}, chat::Finished{0, FinishReason::length}});
    ASSERT_EQ(lines.size(), 2U);
    EXPECT_EQ(content(lines[0]), std::string(R"({"name": "f", "arguments": )") + broken + "}");
    EXPECT_FALSE(lines[0].at("message").as_object().contains("tool_calls"));
    EXPECT_EQ(lines[1].at("done_reason").as_string(), "length");
  }
}

TEST(OllamaStream, NothingComesAfterAnError) {
  const auto lines = streamed({chat::TextDelta{0, "a"}, chat::Failed{{ErrorCode::upstream_failed, "the \"engine\" died", "", {}}},
                               chat::TextDelta{0, "b"}, chat::Usage{}});
  ASSERT_EQ(lines.size(), 2U);
  EXPECT_EQ(lines[1].at("error").as_string(), "the \"engine\" died");
  EXPECT_EQ(lines[1].size(), 1U);
  const auto broken_off = streamed({chat::TextDelta{0, "a"}});
  ASSERT_EQ(broken_off.size(), 2U);
  EXPECT_TRUE(broken_off[1].contains("error")) << "clients take a last line without done for a mistake of theirs";
}

TEST(OllamaStream, StragglersAndOtherChoicesAreIgnored) {
  const auto lines = streamed({chat::TextDelta{1, "x"}, chat::ToolCallDelta{0, 3, "x"}, chat::ToolCallEnd{0, 3}, chat::Finished{0, {}},
                               chat::TextDelta{0, "late"}, chat::Usage{}});
  ASSERT_EQ(lines.size(), 1U);
  EXPECT_TRUE(lines[0].at("done").as_bool());
}

TEST(OllamaStream, ASignOfLifeIsPartOfTheNextLine) {
  Codec codec(Form::chat);
  codec.served_by("m");
  std::string out;
  codec.keep_alive(out);
  codec.keep_alive(out);
  codec.encode(chat::TextDelta{0, "a"}, out);
  EXPECT_EQ(std::count(out.begin(), out.end(), '\n'), 1);
  EXPECT_EQ(content(read_lines(out).at(0)), "a");
}

TEST(OllamaWhole, OneDocument) {
  FakeClock clock;
  clock.advance(10s);
  Codec codec(Form::chat, clock);
  clock.advance(1s);
  codec.served_by("m");
  Answer answer;
  answer.usage = {5, 0, 3};
  auto& choice = answer.choices.emplace_back();
  using Kind = Answer::Block::Kind;
  choice.blocks = {{.kind = Kind::reasoning, .text = "hm"},
                   {.kind = Kind::text, .text = "a"},
                   {.kind = Kind::call, .call = {"c0", "f", "{\"x\": 1}"}},
                   {.kind = Kind::call, .call = {"c1", "g", "{broken"}}};
  choice.reason = FinishReason::tool_calls;
  clock.advance(2s);
  answer.first_event = clock.now();
  clock.advance(3s);
  const auto parsed = parse_json(codec.whole(answer));
  ASSERT_TRUE(parsed);
  const auto& document = parsed->as_object();
  EXPECT_EQ(content(document), R"(a{"name": "g", "arguments": {broken})");
  EXPECT_EQ(document.at("message").at("thinking").as_string(), "hm");
  ASSERT_EQ(document.at("message").at("tool_calls").as_array().size(), 1U);
  EXPECT_EQ(json::serialize(document.at("message").at("tool_calls").at(0)), R"({"id":"c0","function":{"name":"f","arguments":{"x":1}}})");
  EXPECT_TRUE(document.at("done").as_bool());
  EXPECT_EQ(document.at("total_duration").as_int64(), 6'000'000'000);
  EXPECT_EQ(document.at("load_duration").as_int64(), 1'000'000'000);
  EXPECT_EQ(document.at("prompt_eval_duration").as_int64(), 2'000'000'000);
  EXPECT_EQ(document.at("eval_duration").as_int64(), 3'000'000'000);
  EXPECT_EQ(document.at("eval_count").as_int64(), 3);
}

chat::ModelInfo big_model() {
  chat::ModelInfo model;
  model.id = "org/big";
  model.created = 1'700'000'000;
  model.architecture = "qwen3";
  model.quantisation = "Q4_K_M";
  model.parameters = 8'190'000'000;
  model.bytes = 5'000;
  model.context = 4096;
  model.chat = model.tools = model.vision = true;
  model.aliases = {"gpt-4o"};
  model.memory_bytes = 100;
  model.gpu_bytes = 900;
  model.unloads_at = 1'700'000'300;
  return model;
}

TEST(OllamaModels, TagsPsAndShow) {
  const auto model = big_model();
  const auto tags = parse_json(encode_tags({model}));
  ASSERT_TRUE(tags);
  const auto& tag = tags->at("models").at(0).as_object();
  EXPECT_EQ(tag.at("name").as_string(), "org/big");
  EXPECT_EQ(tag.at("model").as_string(), "org/big");
  EXPECT_EQ(tag.at("modified_at").as_string(), "2023-11-14T22:13:20Z");
  EXPECT_EQ(tag.at("size").as_int64(), 5'000);
  EXPECT_EQ(
      json::serialize(tag.at("details")),
      R"({"parent_model":"","format":"gguf","family":"qwen3","families":["qwen3"],"parameter_size":"8.2B","quantization_level":"Q4_K_M"})");
  const auto ps = parse_json(encode_ps({model}));
  ASSERT_TRUE(ps);
  const auto& running = ps->at("models").at(0).as_object();
  EXPECT_EQ(running.at("size").as_int64(), 1'000);
  EXPECT_EQ(running.at("size_vram").as_int64(), 900);
  EXPECT_EQ(running.at("context_length").as_int64(), 4096);
  EXPECT_EQ(running.at("expires_at").as_string(), "2023-11-14T22:18:20Z");
  EXPECT_EQ(running.at("digest"), tag.at("digest"));
  const auto show = parse_json(encode_show(model));
  ASSERT_TRUE(show);
  EXPECT_EQ(json::serialize(show->at("capabilities")), R"(["completion","tools","vision"])");
  EXPECT_EQ(show->at("model_info").at("general.architecture").as_string(), "qwen3");
  EXPECT_EQ(show->at("model_info").at("qwen3.context_length").as_int64(), 4096);
  EXPECT_EQ(show->at("model_info").at("general.parameter_count").as_int64(), 8'190'000'000);
  EXPECT_EQ(show->at("parameters").as_string(), "num_ctx 4096");
}

TEST(OllamaModels, ADigestFollowsTheFileAndSaysWhatItIs) {
  auto model = big_model();
  const auto digest = [](const chat::ModelInfo& of) {
    return std::string(parse_json(encode_tags({of}))->at("models").at(0).at("digest").as_string());
  };
  const std::string first = digest(model);
  EXPECT_TRUE(first.starts_with("info:"));
  EXPECT_GE(first.size(), 12U) << "clients show the first 12 characters";
  EXPECT_EQ(digest(model), first);
  model.created += 1;
  EXPECT_NE(digest(model), first);
}

TEST(OllamaModels, OnlyWhatIsLoadedHereRuns) {
  std::vector<chat::ModelInfo> models(5, big_model());
  models[0].state = chat::ModelState::absent;
  models[1].state = chat::ModelState::failed;
  models[2].upstream = "anthropic";
  models[3].state = chat::ModelState::draining;
  models[4].unloads_at = 0;
  models[4].memory_bytes = models[4].gpu_bytes = 0;
  const auto ps = parse_json(encode_ps(models));
  ASSERT_TRUE(ps);
  ASSERT_EQ(ps->at("models").as_array().size(), 2U);
  EXPECT_EQ(ps->at("models").at(1).at("expires_at").as_string(), "9999-01-01T00:00:00Z") << "it stays";
  EXPECT_EQ(ps->at("models").at(1).at("size").as_int64(), 5'000) << "the file's size where the memory is not known";
}

class OllamaEndpoint : public EndpointTest {
 protected:
  static constexpr const char* hello = R"({"model":"nano","messages":[{"role":"user","content":"hi"}]})";
  std::string error() const {
    const auto document = exchange.document();
    const auto* text = document.if_contains("error");
    EXPECT_EQ(document.size(), 1U) << "the document is the error alone";
    return text != nullptr && text->is_string() ? std::string(text->get_string()) : "(none)";
  }
};

TEST_F(OllamaEndpoint, StreamsUnlessToldOtherwise) {
  ask("POST", "/api/chat", hello);
  provider.batches = {{chat::TextDelta{0, "a"}, chat::TextDelta{0, "b"}}, end()};
  EXPECT_TRUE(run());
  EXPECT_EQ(exchange.status, 200);
  EXPECT_EQ(exchange.header("content-type"), "application/x-ndjson");
  ASSERT_EQ(exchange.writes.size(), 2U);
  const auto lines = read_lines(exchange.body);
  ASSERT_EQ(lines.size(), 3U);
  EXPECT_EQ(lines[0].at("model").as_string(), "nano");
  EXPECT_TRUE(lines[2].at("done").as_bool());
  EXPECT_EQ(provider.seen.tenant, "ann");
}

TEST_F(OllamaEndpoint, AnswersWhole) {
  ask("POST", "/api/generate", R"({"model":"nano","prompt":"hi","stream":false})");
  provider.batches = {text("a"), text("b"), end()};
  EXPECT_TRUE(run());
  EXPECT_EQ(exchange.header("content-type"), "application/json");
  EXPECT_EQ(exchange.document().at("response").as_string(), "ab");
  EXPECT_TRUE(exchange.document().at("done").as_bool());
  EXPECT_GT(exchange.document().at("total_duration").as_int64(), 0);
}

TEST_F(OllamaEndpoint, LoadingTakesTimeOnlyWhereTheModelWasNotThere) {
  for (const auto state : {chat::ModelState::ready, chat::ModelState::absent}) {
    io.restart();
    provider.infos[0].state = state;
    provider.batches = {end()};
    ask("POST", "/api/generate", R"({"model":"nano","prompt":"hi","stream":false})");
    EXPECT_TRUE(run());
    EXPECT_EQ(exchange.document().at("load_duration").as_int64() == 0, state == chat::ModelState::ready);
  }
}

TEST_F(OllamaEndpoint, ASilentStreamStaysOneLineAMessage) {
  ask("POST", "/api/chat", hello);
  options.keep_alive = std::chrono::milliseconds(5);
  provider.batches = {{}, text("a"), {}, end()};
  EXPECT_TRUE(run());
  EXPECT_EQ(exchange.writes[0], " ");
  EXPECT_EQ(read_lines(exchange.body).size(), 2U);
}

TEST_F(OllamaEndpoint, ErrorsAreOneText) {
  ask("POST", "/api/chat", hello);
  provider.refusal = Error{ErrorCode::model_not_found, "there is no model \"nano\"", "model", {}};
  EXPECT_TRUE(run());
  EXPECT_EQ(exchange.status, 404);
  EXPECT_EQ(error(), "there is no model \"nano\"");
  io.restart();
  ask("POST", "/api/chat", "{");
  EXPECT_TRUE(run());
  EXPECT_EQ(exchange.status, 400);
  EXPECT_NE(error().find("JSON"), std::string::npos);
  io.restart();
  ask("GET", "/api/chat");
  EXPECT_TRUE(run());
  EXPECT_EQ(exchange.status, 405);
  EXPECT_EQ(exchange.header("allow"), "POST");
  EXPECT_NE(error(), "(none)");
}

TEST_F(OllamaEndpoint, AFailureBeforeTheFirstLineHasItsProperStatus) {
  ask("POST", "/api/chat", hello);
  provider.batches = {failed(ErrorCode::context_length_exceeded)};
  EXPECT_TRUE(run());
  EXPECT_EQ(exchange.status, 400);
  EXPECT_EQ(error(), "broken");
}

TEST_F(OllamaEndpoint, AFailureInMidStreamIsTheLastLine) {
  ask("POST", "/api/chat", hello);
  provider.batches = {text("a"), failed(ErrorCode::upstream_failed)};
  EXPECT_TRUE(run());
  EXPECT_EQ(exchange.status, 200);
  const auto lines = read_lines(exchange.body);
  ASSERT_EQ(lines.size(), 2U);
  EXPECT_EQ(lines[1].at("error").as_string(), "broken");
}

TEST_F(OllamaEndpoint, AContextLargerThanTheModelsIsRefusedWithBothNumbers) {
  provider.infos[0].context = 4096;
  ask("POST", "/api/chat", R"({"model":"nano","messages":[{"role":"user","content":"hi"}],"options":{"num_ctx":32768}})");
  EXPECT_TRUE(run());
  EXPECT_EQ(exchange.status, 400);
  EXPECT_NE(error().find("32768"), std::string::npos) << error();
  EXPECT_NE(error().find("4096"), std::string::npos) << error();
  for (const char* fits : {R"("nano")", R"("nano:latest")", R"("unknown")", "null"}) {
    io.restart();
    provider.batches = {end()};
    ask("POST", "/api/chat",
        R"({"messages":[{"role":"user","content":"hi"}],"options":{"num_ctx":4096},"stream":false,"model":)" + std::string(fits) + "}");
    EXPECT_TRUE(run());
    EXPECT_EQ(exchange.status, 200) << exchange.body;
  }
}

TEST_F(OllamaEndpoint, TheDefaultTagGoesUnlessItBelongsToTheName) {
  const auto served = [&](const std::string& name) {
    io.restart();
    provider.batches = {end()};
    ask("POST", "/api/generate", R"({"prompt":"hi","stream":false,"model":")" + name + "\"}");
    EXPECT_TRUE(run());
    return provider.seen.model;
  };
  EXPECT_EQ(served("nano:latest"), "nano");
  EXPECT_EQ(served("unknown:latest"), "unknown");
  EXPECT_EQ(served("nano:7b"), "nano:7b");
  provider.infos[1].aliases = {"nano:latest"};
  EXPECT_EQ(served("nano:latest"), "nano:latest");
  provider.no_models = Error{ErrorCode::unavailable, "starting", "", {}};
  EXPECT_EQ(served("nano:latest"), "nano:latest") << "whoever serves it decides";
}

TEST_F(OllamaEndpoint, NothingToAnswerLoadsAndUnloads) {
  ask("POST", "/api/generate", R"({"model":"nano:latest","keep_alive":"5m"})");
  EXPECT_TRUE(run());
  EXPECT_EQ(exchange.status, 200);
  EXPECT_EQ(exchange.document().at("done_reason").as_string(), "load");
  EXPECT_EQ(exchange.document().at("response").as_string(), "");
  EXPECT_TRUE(exchange.document().at("done").as_bool());
  io.restart();
  ask("POST", "/api/chat", R"({"model":"nano","messages":[],"keep_alive":0})");
  EXPECT_TRUE(run());
  EXPECT_EQ(exchange.document().at("done_reason").as_string(), "unload");
  EXPECT_EQ(exchange.document().at("message").at("content").as_string(), "");
  EXPECT_EQ(provider.loads, (std::vector<std::string>{"load nano 300000", "unload nano"}));
}

TEST_F(OllamaEndpoint, WhereModelsDoNotComeAndGoTheOneThatIsThereIsLoaded) {
  provider.no_loading = Error{ErrorCode::unsupported, "models are not loaded here", "", {}};
  ask("POST", "/api/generate", R"({"model":"nano"})");
  EXPECT_TRUE(run());
  EXPECT_EQ(exchange.status, 200);
  io.restart();
  ask("POST", "/api/generate", R"({"model":"other"})");
  EXPECT_TRUE(run());
  EXPECT_EQ(exchange.status, 404);
  EXPECT_NE(error().find("nano, org/big model"), std::string::npos);
  io.restart();
  ask("POST", "/api/generate", R"({"model":"nano","keep_alive":0})");
  EXPECT_TRUE(run());
  EXPECT_EQ(exchange.status, 400);
  EXPECT_EQ(error(), "models are not loaded here");
  provider.no_loading = Error{ErrorCode::model_invalid, "damaged", "", {}};
  io.restart();
  ask("POST", "/api/generate", R"({"model":"nano"})");
  EXPECT_TRUE(run());
  EXPECT_EQ(exchange.status, 500) << "a load that fails is no success";
}

TEST_F(OllamaEndpoint, Embeddings) {
  ask("POST", "/api/embed", R"({"model":"nano:latest","input":["a","b"],"keep_alive":"1m"})");
  EXPECT_TRUE(run());
  EXPECT_EQ(exchange.status, 200);
  EXPECT_EQ(exchange.document().at("model").as_string(), "nano");
  EXPECT_EQ(json::serialize(exchange.document().at("embeddings")), "[[1,2]]");
  EXPECT_EQ(exchange.document().at("prompt_eval_count").as_int64(), 3);
  EXPECT_GE(exchange.document().at("total_duration").as_int64(), 0);
  EXPECT_EQ(provider.seen_inputs.inputs.size(), 2U);
  EXPECT_EQ(provider.loads, std::vector<std::string>{"load nano 60000"});
  io.restart();
  ask("POST", "/api/embeddings", R"({"model":"nano","prompt":"a"})");
  EXPECT_TRUE(run());
  EXPECT_EQ(exchange.body, R"({"embedding":[1,2]})");
  io.restart();
  provider.loads.clear();
  ask("POST", "/api/embed", R"({"model":"nano","input":""})");
  EXPECT_TRUE(run());
  EXPECT_TRUE(exchange.document().at("embeddings").as_array().empty());
  EXPECT_EQ(provider.loads, std::vector<std::string>{"load nano"});
  io.restart();
  provider.refusal = Error{ErrorCode::unsupported, "this model has no embeddings", "model", {}};
  ask("POST", "/api/embed", R"({"model":"nano","input":"a"})");
  EXPECT_TRUE(run());
  EXPECT_EQ(exchange.status, 400);
  EXPECT_EQ(error(), "this model has no embeddings");
}

TEST_F(OllamaEndpoint, ModelsAreListedAndShown) {
  for (const char* method : {"GET", "HEAD"}) {
    io.restart();
    ask(method, "/api/tags");
    EXPECT_TRUE(run());
    EXPECT_EQ(exchange.status, 200);
    EXPECT_EQ(exchange.document().at("models").as_array().size(), 2U);
  }
  io.restart();
  ask("GET", "/api/ps");
  EXPECT_TRUE(run());
  EXPECT_EQ(exchange.document().at("models").as_array().size(), 2U);
  io.restart();
  ask("GET", "/api/version");
  EXPECT_TRUE(run());
  EXPECT_FALSE(exchange.document().at("version").as_string().empty());
  for (const char* body : {R"({"model":"nano"})", R"({"name":"nano:latest","verbose":true})"}) {
    io.restart();
    ask("POST", "/api/show", body);
    EXPECT_TRUE(run());
    EXPECT_EQ(exchange.status, 200);
    EXPECT_TRUE(exchange.document().contains("model_info"));
  }
  io.restart();
  ask("POST", "/api/show", R"({"model":"none"})");
  EXPECT_TRUE(run());
  EXPECT_EQ(exchange.status, 404);
  EXPECT_NE(error().find("nano"), std::string::npos);
  io.restart();
  ask("POST", "/api/show", "{}");
  EXPECT_TRUE(run());
  EXPECT_EQ(exchange.status, 400);
  io.restart();
  ask("POST", "/api/tags", "{}");
  EXPECT_TRUE(run());
  EXPECT_EQ(exchange.status, 405);
  EXPECT_EQ(exchange.header("allow"), "GET");
}

TEST_F(OllamaEndpoint, WhatNeedsARegistryIsRefusedWithWhatToDoInstead) {
  for (const auto& [method, path, word] :
       {std::tuple{"POST", "/api/pull", "GGUF"}, std::tuple{"POST", "/api/push", "copy"},
        std::tuple{"POST", "/api/create", "configuration"}, std::tuple{"POST", "/api/copy", "configuration"},
        std::tuple{"DELETE", "/api/delete", "keep_alive 0"}, std::tuple{"HEAD", "/api/blobs/sha256:00", "GGUF"}}) {
    io.restart();
    ask(method, path, R"({"model":"x"})");
    EXPECT_TRUE(run());
    EXPECT_EQ(exchange.status, 400);
    EXPECT_NE(error().find(word), std::string::npos) << error();
  }
}

TEST_F(OllamaEndpoint, OtherPathsAreLeftAloneButKeepTheirShape) {
  for (const char* path : {"/api", "/api/", "/api/chats", "/apis/chat"}) {
    io.restart();
    ask("POST", path, "{}");
    EXPECT_FALSE(run()) << path;
  }
  net::HttpRequest request;
  request.target = "/api/unknown?x=1";
  EXPECT_TRUE(owns(request));
  request.target = "/v1/chat/completions";
  EXPECT_FALSE(owns(request));
}

}  // namespace
}  // namespace hearth::wire::ollama
