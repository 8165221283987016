// The client side of the Messages API: what goes to an upstream, what its streams and documents become, and that both sides agree.
#include <gtest/gtest.h>

#include "base/json.h"
#include "net/sse.h"
#include "wire/anthropic.h"
#include "wire/random.h"
#include "wire/show.h"

namespace hearth::wire::anthropic {
namespace {

using chat::Role;

// ---- bodies -----------------------------------------------------------------------------------------------------------------------

chat::Message said(Role role, std::string text) { return {.role = role, .content = {{.text = std::move(text)}}}; }

chat::Request request(std::vector<chat::Message> messages) {
  chat::Request out;
  out.model = "claude-x";
  out.messages = std::move(messages);
  return out;
}

std::string body(const chat::Request& request) {
  const auto out = encode_request(request);
  return out ? *out : "error: " + std::string(name(out.error().code)) + " " + out.error().param;
}

json::value field(const chat::Request& request, std::string_view key) {
  const auto document = parse_json(body(request));
  if (!document) return body(request).c_str();
  const auto* found = document->as_object().if_contains(key);
  return found != nullptr ? *found : json::value("(absent)");
}
std::string text(const json::value& value) { return json::serialize(value); }

TEST(AnthropicBody, IsTheWholeRequest) {
  chat::Request all = request({said(Role::system, "be brief"), said(Role::user, "hi")});
  all.max_tokens = 100;
  all.sampling.temperature = 0.5F;
  all.sampling.top_k = 40;
  all.sampling.stop = {"X"};
  all.tools = {{"bash", "run", R"({"type":"object","z":1})"}};
  all.tool_choice.mode = chat::ToolChoice::Mode::required;
  all.parallel_tool_calls = false;
  EXPECT_EQ(body(all), R"({"model":"claude-x","max_tokens":100,"system":[{"type":"text","text":"be brief"}],)"
                       R"("messages":[{"role":"user","content":[{"type":"text","text":"hi"}]}],)"
                       R"("tools":[{"name":"bash","description":"run","input_schema":{"type":"object","z":1}}],)"
                       R"("tool_choice":{"type":"any","disable_parallel_tool_use":true},)"
                       R"("temperature":0.5,"top_k":40,"stop_sequences":["X"],"stream":true})");
}

TEST(AnthropicBody, MaxTokensIsNeverMissing) {
  EXPECT_EQ(field(request({said(Role::user, "hi")}), "max_tokens"), 8192);
  EXPECT_EQ(text(field(request({}), "messages")), R"([{"role":"user","content":"."}])");
}

TEST(AnthropicBody, ACountAsksForNoAnswer) {
  const auto out = encode_count_request(request({said(Role::user, "hi")}));
  ASSERT_TRUE(out);
  EXPECT_EQ(*out, R"({"model":"claude-x","messages":[{"role":"user","content":[{"type":"text","text":"hi"}]}]})");
}

TEST(AnthropicBody, RolesAlternateAndResultsAreTheUsers) {
  chat::Message calls = said(Role::assistant, "I look.");
  calls.tool_calls = {{"call:1", "bash", R"({"a": 1})"}, {"t2", "now", ""}, {"t3", "cut", "{\"a"}};
  chat::Message one = said(Role::tool, "no such file"), two{.role = Role::tool};
  one.tool_call_id = "call:1";
  one.tool_failed = true;
  two.tool_call_id = "t2";
  two.content = {{.text = "see"}, {.kind = chat::ContentPart::Kind::image, .media_type = "image/png", .data = "aGk="}};
  EXPECT_EQ(text(field(request({said(Role::user, "a"), said(Role::system, "s"), said(Role::user, "b"), calls, one, two,
                                said(Role::user, "go on")}),
                       "messages")),
            R"([{"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]},)"
            R"({"role":"assistant","content":[{"type":"text","text":"I look."},)"
            R"({"type":"tool_use","id":"call_1","name":"bash","input":{"a":1}},)"
            R"({"type":"tool_use","id":"t2","name":"now","input":{}},)"
            R"({"type":"tool_use","id":"t3","name":"cut","input":{"INVALID_JSON":"{\"a"}}]},)"
            R"({"role":"user","content":[{"type":"tool_result","tool_use_id":"call_1","content":"no such file","is_error":true},)"
            R"({"type":"tool_result","tool_use_id":"t2","content":[{"type":"text","text":"see"},)"
            R"({"type":"image","source":{"type":"base64","media_type":"image/png","data":"aGk="}}]},)"
            R"({"type":"text","text":"go on"}]}])");
}

TEST(AnthropicBody, WhatTheApiRefusesIsAvoided) {
  EXPECT_EQ(
      text(field(request({said(Role::assistant, "Hello "), said(Role::user, " \n"), said(Role::user, "x"), said(Role::assistant, "so  ")}),
                 "messages")),
      R"([{"role":"user","content":"."},{"role":"assistant","content":[{"type":"text","text":"Hello "}]},)"
      R"({"role":"user","content":[{"type":"text","text":"x"}]},{"role":"assistant","content":[{"type":"text","text":"so"}]}])");
  chat::Request warm = request({said(Role::user, "hi")});
  warm.sampling.temperature = 1.5F;
  warm.sampling.top_p = 1.0F;
  warm.sampling.top_k = 0;
  EXPECT_EQ(field(warm, "temperature"), 1);
  EXPECT_EQ(field(warm, "top_p"), "(absent)");
  EXPECT_EQ(field(warm, "top_k"), "(absent)");
  warm.tools = {{"a", "", "{}"}, {"b", "", R"({"properties":{}})"}, {"c", "", ""}};
  EXPECT_EQ(text(field(warm, "tools")),
            R"([{"name":"a","input_schema":{"type":"object"}},{"name":"b","input_schema":{"type":"object","properties":{}}},)"
            R"({"name":"c","input_schema":{"type":"object"}}])");
}

TEST(AnthropicBody, ReasoningGoesBackOnlyWithItsProof) {
  chat::Message thought = said(Role::assistant, "b");
  thought.reasoning = "hm";
  const auto history = [&] { return text(field(request({said(Role::user, "a"), thought, said(Role::user, "c")}), "messages").at(1)); };
  EXPECT_EQ(history(), R"({"role":"assistant","content":[{"type":"text","text":"b"}]})");
  thought.reasoning_signature = unsigned_marker;
  EXPECT_EQ(history(), R"({"role":"assistant","content":[{"type":"text","text":"b"}]})");
  thought.reasoning_signature = "EqQB";
  EXPECT_EQ(history(),
            R"({"role":"assistant","content":[{"type":"thinking","thinking":"hm","signature":"EqQB"},{"type":"text","text":"b"}]})");
}

TEST(AnthropicBody, ThinkingFitsItsRules) {
  chat::Request thinks = request({said(Role::user, "hi")});
  thinks.sampling.temperature = 0.5F;
  EXPECT_EQ(field(thinks, "thinking"), "(absent)");
  EXPECT_EQ(field(thinks, "temperature"), 0.5);
  thinks.reasoning.enabled = true;
  EXPECT_EQ(text(field(thinks, "thinking")), R"({"type":"adaptive"})");
  EXPECT_EQ(field(thinks, "temperature"), "(absent)");
  thinks.reasoning.effort = "minimal";
  EXPECT_EQ(text(field(thinks, "output_config")), R"({"effort":"low"})");
  thinks.reasoning.budget = 100;
  EXPECT_EQ(text(field(thinks, "thinking")), R"({"type":"enabled","budget_tokens":1024})");
  EXPECT_EQ(field(thinks, "max_tokens"), 8292);
  thinks.max_tokens = 500;
  EXPECT_EQ(field(thinks, "thinking"), "(absent)") << "there is no room";
  thinks.max_tokens = 2000;
  thinks.reasoning.budget = 9000;
  EXPECT_EQ(text(field(thinks, "thinking")), R"({"type":"enabled","budget_tokens":1999})");
  thinks.tools = {{"a", "", "{}"}};
  thinks.tool_choice.mode = chat::ToolChoice::Mode::required;
  EXPECT_EQ(field(thinks, "thinking"), "(absent)") << "forced calls go without";
  thinks.tool_choice.mode = chat::ToolChoice::Mode::automatic;
  chat::Message call{.role = Role::assistant}, result = said(Role::tool, "x");
  call.tool_calls = {{"t1", "a", "{}"}};
  result.tool_call_id = "t1";
  thinks.messages.push_back(call);
  thinks.messages.push_back(result);
  EXPECT_EQ(field(thinks, "thinking"), "(absent)") << "the thoughts before the call are not at hand";
  thinks.messages[1].reasoning_signature = "EqQB";
  EXPECT_NE(field(thinks, "thinking"), "(absent)");
  thinks.reasoning.enabled = false;
  EXPECT_EQ(text(field(thinks, "thinking")), R"({"type":"disabled"})");
}

TEST(AnthropicBody, Formats) {
  chat::Request formed = request({said(Role::user, "hi")});
  formed.format = {chat::OutputFormat::Kind::json_schema, R"({"type":"object"})"};
  EXPECT_EQ(text(field(formed, "output_config")), R"({"format":{"type":"json_schema","schema":{"type":"object"}}})");
  formed.format = {chat::OutputFormat::Kind::json_object, ""};
  EXPECT_NE(text(field(formed, "system")).find("one JSON object"), std::string::npos);
}

TEST(AnthropicBody, WhatTheApiCannotDoIsRefused) {
  const auto refused = [](auto change) {
    chat::Request wish = request({said(Role::user, "hi")});
    change(wish);
    return body(wish);
  };
  EXPECT_EQ(refused([](auto& r) { r.choices = 2; }), "error: unsupported n");
  EXPECT_EQ(refused([](auto& r) { r.top_logprobs = 0; }), "error: unsupported logprobs");
  EXPECT_EQ(refused([](auto& r) { r.format.kind = chat::OutputFormat::Kind::gbnf; }), "error: unsupported grammar");
  EXPECT_EQ(refused([](auto& r) { r.prompts.resize(1); }), "error: unsupported prompt");
  EXPECT_EQ(refused([](auto& r) { r.sampling.logit_bias.emplace_back(1, 1.0F); }), "error: unsupported logit_bias");
  EXPECT_EQ(refused([](auto& r) { r.adapter = "a"; }), "error: unsupported adapter");
  EXPECT_EQ(refused([](auto& r) { r.ignore_eos = true; }), "error: unsupported ignore_eos");
  EXPECT_EQ(refused([](auto& r) { r.prefill_only = true; }), "error: unsupported ");
}

// ---- the client's own body --------------------------------------------------------------------------------------------------------

std::string passed(std::string body, std::string_view model, bool streamed) {
  return body_for({Protocol::anthropic, std::move(body), {}}, model, streamed).value_or("(none)");
}

TEST(AnthropicPassThrough, EveryByteIsKept) {
  const std::string body = "{ \"stream\" : true,\n \"model\":\"m\", \"n\": 1.50e1, \"a\\u00e9\" : [\"}\\\"\", {\"model\": \"inner\"}] }";
  EXPECT_EQ(passed(body, "m", true), "(none)") << "a key with an escape is not read";
  const std::string plain = "{ \"stream\" : true,\n \"model\":\"m\", \"n\": 1.50e1, \"a\" : [\"}\\\"\", {\"model\": \"inner\"}] }";
  EXPECT_EQ(passed(plain, "m", true), plain);
  EXPECT_EQ(passed(plain, "m", false), plain);
  EXPECT_EQ(passed(plain, "claude \"x\"", true),
            "{ \"stream\" : true,\n \"model\":\"claude \\\"x\\\"\", \"n\": 1.50e1, \"a\" : [\"}\\\"\", {\"model\": \"inner\"}] }");
}

TEST(AnthropicPassThrough, TheModelAndTheStreamAreSaidOnce) {
  EXPECT_EQ(passed(R"({"model":"m","stream":false,"x":1})", "m", true), R"({"model":"m","stream":true,"x":1})");
  EXPECT_EQ(passed(R"({"model":"m","stream":null})", "n", true), R"({"model":"n","stream":true})");
  EXPECT_EQ(passed(R"({"x":1})", "n", true), R"({"model":"n","stream":true,"x":1})");
  EXPECT_EQ(passed(R"({"x":1})", "n", false), R"({"model":"n","x":1})");
  EXPECT_EQ(model_of({Protocol::anthropic, R"({"x":{"model":"inner"},"model": "a\u0062c"})", {}}), "abc");
  EXPECT_EQ(passed(R"({"model":"a\u0062c"})", "abc", false), R"({"model":"a\u0062c"})");
  EXPECT_EQ(model_of({Protocol::anthropic, R"({"x":1})", {}}), "");
}

TEST(AnthropicPassThrough, OurOwnMarkerGoesNowhere) {
  EXPECT_EQ(passed(R"({"model":"m","messages":[{"signature":"hearth-unsigned-reasoning"}]})", "m", true), "(none)");
  EXPECT_FALSE(body_for({Protocol::openai_chat, R"({"model":"m"})", {}}, "m", true));
}

// ---- streams ----------------------------------------------------------------------------------------------------------------------

std::string decoded(const std::vector<std::string>& events) {
  StreamDecoder decoder;
  chat::Events out;
  for (const auto& data : events) {
    if (auto ok = decoder.decode("", data, out); !ok) return show(out) + "error: " + ok.error().message;
  }
  if (auto ok = decoder.finish(); !ok) return show(out) + "error: " + ok.error().message;
  return show(out);
}

const std::string start =
    R"({"type":"message_start","message":{"id":"msg_x","usage":{"input_tokens":5,"cache_creation_input_tokens":2,"cache_read_input_tokens":4,"output_tokens":1}}})";
const std::string end = R"({"type":"message_stop"})";
std::string opens(const std::string& block, int index = 0) {
  return R"({"type":"content_block_start","index":)" + std::to_string(index) + R"(,"content_block":)" + block + "}";
}
std::string goes_on(const std::string& delta, int index = 0) {
  return R"({"type":"content_block_delta","index":)" + std::to_string(index) + R"(,"delta":)" + delta + "}";
}
const std::string closes = R"({"type":"content_block_stop","index":0})";
std::string stops(const std::string& reason, const std::string& sequence = "null") {
  return R"({"type":"message_delta","delta":{"stop_reason":")" + reason + R"(","stop_sequence":)" + sequence +
         R"(},"usage":{"output_tokens":7}})";
}

TEST(AnthropicDecoder, AnAnswerOfEveryKindOfBlock) {
  EXPECT_EQ(decoded({start,
                     R"({"type":"ping"})",
                     opens(R"({"type":"thinking","thinking":"","signature":""})"),
                     goes_on(R"({"type":"thinking_delta","thinking":"hm"})"),
                     goes_on(R"({"type":"signature_delta","signature":"Eq"})"),
                     goes_on(R"({"type":"signature_delta","signature":"EqQB"})"),
                     closes,
                     opens(R"({"type":"redacted_thinking","data":"x"})", 1),
                     closes,
                     opens(R"({"type":"text","text":""})", 2),
                     goes_on(R"({"type":"text_delta","text":"a"})", 2),
                     goes_on(R"({"type":"citations_delta","citation":{}})", 2),
                     closes,
                     opens(R"({"type":"tool_use","id":"t1","name":"bash","input":{}})", 3),
                     goes_on(R"({"type":"input_json_delta","partial_json":""})", 3),
                     goes_on(R"({"type":"input_json_delta","partial_json":"{\"a\":1}"})", 3),
                     closes,
                     opens(R"({"type":"tool_use","id":"t2","name":"now","input":{"b":2}})", 4),
                     closes,
                     stops("tool_use"),
                     end}),
            "started 11 4\n0 reasoning hm\n0 signature EqQB\n0 text a\n0 call 0 begin t1 bash\n0 call 0 delta {\"a\":1}\n0 call 0 end\n"
            "0 call 1 begin t2 now\n0 call 1 delta {\"b\":2}\n0 call 1 end\n0 finished 2\nusage 11 4 7\n");
}

TEST(AnthropicDecoder, StopReasons) {
  const auto reason = [](const std::string& delta) {
    const std::string out = decoded({start, delta, end});
    return out.substr(out.find("finished"), out.find("\nusage") - out.find("finished"));
  };
  EXPECT_EQ(reason(stops("end_turn")), "finished 0");
  EXPECT_EQ(reason(stops("stop_sequence", "\"X\"")), "finished 0 X");
  EXPECT_EQ(reason(stops("max_tokens")), "finished 1");
  EXPECT_EQ(reason(stops("model_context_window_exceeded")), "finished 1");
  EXPECT_EQ(reason(stops("refusal")), "finished 3");
  EXPECT_EQ(reason(stops("pause_turn")), "finished 0");
  EXPECT_EQ(reason(stops("tool_use")), "finished 0") << "without a call";
}

TEST(AnthropicDecoder, CountsAreCumulative) {
  EXPECT_EQ(
      decoded(
          {R"({"type":"message_start","message":{}})",
           R"({"type":"message_delta","delta":{"stop_reason":null},"usage":{"input_tokens":0,"output_tokens":3}})",
           R"({"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"input_tokens":9,"cache_read_input_tokens":1,"output_tokens":4}})",
           end}),
      "0 finished 0\nusage 10 1 4\n");
}

TEST(AnthropicDecoder, WhatServicesLeaveOutIsFilledIn) {
  EXPECT_EQ(decoded({goes_on(R"({"type":"text_delta","text":"a"})"), goes_on(R"({"type":"thinking_delta","thinking":"b"})"), end}),
            "0 text a\n0 reasoning b\n0 finished 0\nusage 0 0 0\n");
  StreamDecoder decoder;
  chat::Events out;
  ASSERT_TRUE(decoder.decode("message_stop", "{}", out)) << "the type may stand in the event's name alone";
  EXPECT_TRUE(decoder.done());
  EXPECT_EQ(
      decoded({start, R"({"type":"brand_new","x":1})", opens(R"({"type":"brand_new"})"), goes_on(R"({"type":"x","y":1})"), closes, end}),
      "started 11 4\n0 finished 0\nusage 11 4 1\n");
}

TEST(AnthropicDecoder, ErrorsEndTheStream) {
  EXPECT_EQ(decoded({start, R"({"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}})", "nonsense"}),
            "started 11 4\nfailed unavailable Overloaded  0\n");
  EXPECT_EQ(decoded({R"({"error":"no"})"}), "failed upstream_failed no  0\n");
  EXPECT_EQ(decoded({R"({"type":"error"})"}), "failed upstream_failed the upstream failed without saying why (status 502)  0\n");
}

TEST(AnthropicDecoder, WhatIsNoAnswerIsTheUpstreamsFailure) {
  const auto fails = [](const std::vector<std::string>& events) { return decoded(events).find("error: ") != std::string::npos; };
  EXPECT_TRUE(fails({}));
  EXPECT_TRUE(fails({start, opens(R"({"type":"text","text":""})"), goes_on(R"({"type":"text_delta","text":"a"})")})) << "cut off";
  EXPECT_TRUE(fails({start, closes, stops("end_turn")})) << "message_stop is missing";
  EXPECT_TRUE(fails({"<html>"}));
  EXPECT_TRUE(fails({"[]"}));
  EXPECT_TRUE(fails({start, start, end}));
  EXPECT_TRUE(fails({start, goes_on(R"({"type":"input_json_delta","partial_json":"{"})"), end}));
  EXPECT_TRUE(fails({start, opens(R"({"type":"tool_use","id":"t1","name":"f","input":{}})"),
                     goes_on(R"({"type":"input_json_delta","partial_json":"{"})", 1), end}));
  EXPECT_TRUE(fails({start, opens(R"({"type":"tool_use","id":"t1"})"), end}));
  EXPECT_TRUE(fails({start, R"({"type":"content_block_start","index":0})", end}));
  EXPECT_TRUE(fails({start, stops("end_turn"), goes_on(R"({"type":"text_delta","text":"a"})"), end}));
}

TEST(AnthropicErrors, OfAnUpstreamKeepTheirMeaning) {
  const auto code = [](int status, const std::string& type, const std::string& message = "why") {
    const Error error = decode_error(status, R"({"type":"error","error":{"type":")" + type + R"(","message":")" + message + R"("}})");
    EXPECT_EQ(error.message, message);
    return error.code;
  };
  EXPECT_EQ(code(400, "invalid_request_error"), ErrorCode::invalid_request);
  EXPECT_EQ(code(400, "invalid_request_error", "prompt is too long: 9 tokens > 8 maximum"), ErrorCode::context_length_exceeded);
  EXPECT_EQ(code(400, "invalid_request_error", "input length and `max_tokens` exceed context limit: 1 + 2 > 2"),
            ErrorCode::context_length_exceeded);
  EXPECT_EQ(code(401, "authentication_error"), ErrorCode::unauthorized);
  EXPECT_EQ(code(402, "billing_error"), ErrorCode::forbidden);
  EXPECT_EQ(code(403, "permission_error"), ErrorCode::forbidden);
  EXPECT_EQ(code(404, "not_found_error"), ErrorCode::model_not_found);
  EXPECT_EQ(code(413, "request_too_large"), ErrorCode::payload_too_large);
  EXPECT_EQ(code(429, "rate_limit_error"), ErrorCode::overloaded);
  EXPECT_EQ(code(500, "api_error"), ErrorCode::upstream_failed);
  EXPECT_EQ(code(504, "timeout_error"), ErrorCode::upstream_timeout);
  EXPECT_EQ(code(529, "overloaded_error"), ErrorCode::unavailable);
  EXPECT_EQ(code(529, "brand_new_error"), ErrorCode::unavailable);
  EXPECT_EQ(decode_error(502, "<html>").code, ErrorCode::upstream_failed);
  EXPECT_EQ(decode_error(418, "").code, ErrorCode::invalid_request);
}

TEST(AnthropicDocuments, ModelsAndCounts) {
  const auto models = decode_models_answer(
      R"({"data":[{"type":"model","id":"a","display_name":"A","created_at":"2026-01-01T00:00:00Z","max_input_tokens":200000},{"id":"b"}],"has_more":false})");
  ASSERT_TRUE(models);
  ASSERT_EQ(models->size(), 2U);
  EXPECT_EQ(models->at(0).id, "a");
  EXPECT_EQ(models->at(0).created, 1'767'225'600);
  EXPECT_EQ(models->at(0).context, 200'000);
  EXPECT_EQ(models->at(1).created, 0);
  EXPECT_FALSE(decode_models_answer(R"({"data":[{}]})"));
  EXPECT_FALSE(decode_models_answer("<html>"));
  const auto again = decode_models_answer(*encode_models(*models, ""));
  ASSERT_TRUE(again);
  EXPECT_EQ(again->at(0).created, 1'767'225'600);
  EXPECT_EQ(*decode_count_answer(encode_count(17)), 17);
  EXPECT_FALSE(decode_count_answer(R"({"input_tokens":-1})"));
  EXPECT_FALSE(decode_count_answer("{}"));
}

// ---- both sides agree -------------------------------------------------------------------------------------------------------------

std::vector<chat::ContentPart> random_parts(Random& random, std::size_t least) {
  std::vector<chat::ContentPart> out;
  for (std::size_t n = least + random.below(3); n > 0; --n) {
    chat::ContentPart part;
    if (random.once_in(4)) {
      part.kind = chat::ContentPart::Kind::image;
      if (random.coin()) part.url = "https://" + random.text();
      else part.media_type = "image/" + random.word(), part.data = random.word();
    } else {
      part.text = random.text() + random.word();  // never blank
    }
    out.push_back(std::move(part));
  }
  return out;
}

// A conversation as the decoder gives it: one system message, then turns that alternate, results right after their calls.
std::vector<chat::Message> random_conversation(Random& random) {
  std::vector<chat::Message> out;
  if (random.coin()) out.push_back({.role = Role::system, .content = {{.text = random.text() + "x"}, {.text = random.word()}}});
  out.push_back({.role = Role::user, .content = random_parts(random, 1)});
  int calls = 0;
  for (std::size_t turns = random.below(4); turns > 0; --turns) {
    chat::Message answer{.role = Role::assistant};
    for (std::size_t n = 1 + random.below(2); n > 0; --n) answer.content.push_back({.text = random.text() + "x"});
    if (random.coin()) {
      answer.reasoning = random.text();
      answer.reasoning_signature = random.word();
    }
    std::vector<chat::Message> results;
    for (std::size_t n = random.below(3); n > 0; --n) {
      const std::string id = random.word() + "_" + std::to_string(calls++);
      answer.tool_calls.push_back({id, random.text(), random.coin() ? "{}" : R"({"z":[1,2.5,null],"a":{"b":"\n"}})"});
      results.push_back({.role = Role::tool,
                         .content = random.coin() ? random_parts(random, 0) : std::vector<chat::ContentPart>(),
                         .tool_call_id = id,
                         .tool_failed = random.coin(),
                         .name = answer.tool_calls.back().name});
    }
    out.push_back(std::move(answer));
    const bool answered = !results.empty();
    for (auto& result : results) out.push_back(std::move(result));
    if (!answered || random.coin()) out.push_back({.role = Role::user, .content = random_parts(random, 1)});
  }
  return out;
}

chat::Request random_request(Random& random) {
  chat::Request out;
  out.model = random.text();
  out.messages = random_conversation(random);
  for (std::size_t n = random.below(3); n > 0; --n) {
    out.tools.push_back({random.word() + std::to_string(n), random.coin() ? random.text() : "",
                         random.coin() ? R"({"type":"object"})" : R"({"type":"object","properties":{"b":{},"a":{}}})"});
  }
  if (!out.tools.empty()) {
    out.tool_choice.mode = static_cast<chat::ToolChoice::Mode>(random.below(4));
    if (out.tool_choice.mode == chat::ToolChoice::Mode::named) out.tool_choice.name = out.tools.back().name;
    if (out.tool_choice.mode != chat::ToolChoice::Mode::none) out.parallel_tool_calls = random.coin();
  }
  if (random.coin()) out.format = {chat::OutputFormat::Kind::json_schema, R"({"type":"object","z":[1,2.5]})"};
  out.max_tokens = random.integer(10'000, 1'000'000);
  if (random.once_in(3)) {
    out.reasoning.enabled = false;
  } else {
    random.maybe(out.sampling.temperature, random.between(0, 1));
    random.maybe(out.sampling.top_p, random.between(0.001F, 0.999F));
    random.maybe(out.sampling.top_k, random.integer(1, 1000));
  }
  for (std::size_t n = random.below(5); n > 0; --n) out.sampling.stop.push_back(random.text());
  out.stream = true;
  return out;
}

TEST(AnthropicRoundTrip, Requests) {
  Random random;
  for (int i = 0; i < 3'000; ++i) {
    const chat::Request request = random_request(random);
    const std::string text = body(request);
    const auto back = decode_messages(text);
    ASSERT_TRUE(back) << back.error().message << " in " << text;
    ASSERT_EQ(json::serialize(show(back->request)), json::serialize(show(request))) << text;
    // And as an upstream that is asked for the same.
    const Origin origin{Protocol::anthropic, text, {}};
    ASSERT_EQ(model_of(origin), request.model);
    ASSERT_EQ(body_for(origin, request.model, true), text);
    const auto renamed = body_for(origin, "other", true);
    ASSERT_TRUE(renamed);
    const auto again = decode_messages(*renamed);
    ASSERT_TRUE(again) << again.error().message << " in " << *renamed;
    chat::Request other = request;
    other.model = "other";
    ASSERT_EQ(json::serialize(show(again->request)), json::serialize(show(other)));
  }
}

TEST(AnthropicRoundTrip, Answers) {
  Random random;
  for (int i = 0; i < 3'000; ++i) {
    chat::Events events;
    const int prompt = random.integer(1, 100'000), cached = random.integer(0, prompt);
    events.emplace_back(chat::Started{prompt, cached});
    int calls = 0;
    for (std::size_t n = random.below(7); n > 0; --n) {
      switch (random.below(3)) {
        case 0: events.emplace_back(chat::TextDelta{0, random.text()}); break;
        case 1:
          for (std::size_t deltas = 1 + random.below(3); deltas > 0; --deltas) events.emplace_back(chat::ReasoningDelta{0, random.text()});
          if (random.coin()) events.emplace_back(chat::ReasoningSignature{0, random.word()});
          break;
        default:
          events.emplace_back(chat::ToolCallBegin{0, calls, random.text(), random.text()});
          for (std::size_t deltas = random.below(4); deltas > 0; --deltas)
            events.emplace_back(chat::ToolCallDelta{0, calls, random.text()});
          events.emplace_back(chat::ToolCallEnd{0, calls++});
      }
    }
    const bool fails = random.once_in(5);
    if (fails) {
      events.emplace_back(chat::Failed{{ErrorCode::overloaded, random.text(), "", {}}});
    } else {
      chat::Finished finished{0, random.once_in(3)   ? chat::FinishReason::length
                                 : random.once_in(4) ? chat::FinishReason::content_filter
                                 : calls > 0         ? chat::FinishReason::tool_calls
                                                     : chat::FinishReason::stop};
      if (finished.reason == chat::FinishReason::stop && random.coin()) finished.stop_sequence = random.text();
      events.emplace_back(std::move(finished));
      events.emplace_back(chat::Usage{prompt, cached, random.integer(1, 100'000)});
    }

    MessageCodec codec({.id = random.text(), .model = random.text(), .request_id = random.text(), .explanation = {}});
    std::string bytes;
    for (const auto& event : events) {
      codec.encode(event, bytes);
      if (random.once_in(5) && !fails) codec.keep_alive(bytes);
    }
    codec.end(bytes);
    net::SseDecoder sse;
    std::vector<net::SseEvent> frames;
    ASSERT_TRUE(sse.feed(bytes, frames));
    StreamDecoder decoder;
    chat::Events back;
    for (const auto& frame : frames) {
      ASSERT_FALSE(frame.event.empty()) << "the SDK drops events without a name";
      const auto ok = decoder.decode(frame.event, frame.data, back);
      ASSERT_TRUE(ok) << ok.error().message << " in " << frame.data;
    }
    ASSERT_TRUE(decoder.finish());
    ASSERT_EQ(show(back), show(events)) << bytes;
  }
}

}  // namespace
}  // namespace hearth::wire::anthropic
