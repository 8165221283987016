// What clients of the Messages API get to read.
#include <gtest/gtest.h>

#include "base/json.h"
#include "net/sse.h"
#include "wire/anthropic.h"

namespace hearth::wire::anthropic {
namespace {

using chat::FinishReason;

AnswerHead head() { return {.id = "msg_1", .model = "m", .request_id = "req_1", .estimated_prompt = 7, .explanation = {}}; }

std::string frames(const chat::Events& events) {
  MessageCodec codec(head());
  std::string out;
  for (const auto& event : events) codec.encode(event, out);
  codec.end(out);
  return out;
}

std::string event(std::string_view name, const std::string& data) {
  std::string out;
  net::append_sse(out, data, name);
  return out;
}
std::string started(const std::string& usage) {
  return event(
      "message_start",
      R"({"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[],"stop_reason":null,)"
      R"("stop_sequence":null,"usage":)" +
          usage + "}}");
}
std::string usage(int input, int cached, int output) {
  return R"({"input_tokens":)" + std::to_string(input) + R"(,"cache_creation_input_tokens":0,"cache_read_input_tokens":)" +
         std::to_string(cached) + R"(,"output_tokens":)" + std::to_string(output) + "}";
}
std::string block(int index, const std::string& content) {
  return event("content_block_start",
               R"({"type":"content_block_start","index":)" + std::to_string(index) + R"(,"content_block":)" + content + "}");
}
std::string delta(int index, const std::string& fields) {
  return event("content_block_delta", R"({"type":"content_block_delta","index":)" + std::to_string(index) + R"(,"delta":)" + fields + "}");
}
std::string stop(int index) {
  return event("content_block_stop", R"({"type":"content_block_stop","index":)" + std::to_string(index) + "}");
}
std::string ended(const std::string& reason, const std::string& sequence, const std::string& counts) {
  return event("message_delta", R"({"type":"message_delta","delta":{"stop_reason":")" + reason + R"(","stop_sequence":)" + sequence +
                                    R"(},"usage":)" + counts + "}") +
         event("message_stop", R"({"type":"message_stop"})");
}
std::string call(int index, const std::string& id, const std::string& name) {
  return block(index, R"({"type":"tool_use","id":")" + id + R"(","name":")" + name + R"(","input":{}})");
}
std::string input(int index, const std::string& fragment) {
  std::string text;
  append_json_string(text, fragment);
  return delta(index, R"({"type":"input_json_delta","partial_json":)" + text + "}");
}
const std::string text_block = R"({"type":"text","text":""})";
const std::string thinking_block = R"({"type":"thinking","thinking":"","signature":""})";
const std::string our_signature = R"({"type":"signature_delta","signature":"hearth-unsigned-reasoning"})";

TEST(AnthropicStream, TextHasItsOrderAndRealCounts) {
  EXPECT_EQ(frames({chat::Started{10, 4}, chat::TextDelta{0, "a\n"}, chat::TextDelta{0, "b"}, chat::Finished{}, chat::Usage{10, 4, 2}}),
            started(usage(6, 4, 0)) + block(0, text_block) + delta(0, R"({"type":"text_delta","text":"a\n"})") +
                delta(0, R"({"type":"text_delta","text":"b"})") + stop(0) + ended("end_turn", "null", usage(6, 4, 2)));
}

TEST(AnthropicStream, AnEngineThatDoesNotCountAtTheStartIsEstimatedAndCorrectedAtTheEnd) {
  EXPECT_EQ(frames({chat::TextDelta{0, "a"}, chat::Finished{}, chat::Usage{10, 4, 2}}),
            started(usage(7, 0, 0)) + block(0, text_block) + delta(0, R"({"type":"text_delta","text":"a"})") + stop(0) +
                ended("end_turn", "null", usage(6, 4, 2)));
}

TEST(AnthropicStream, AnEngineThatNeverCountsIsEstimatedThroughout) {
  EXPECT_TRUE(frames({chat::TextDelta{0, "eight ch"}, chat::Finished{}}).ends_with(ended("end_turn", "null", usage(7, 0, 2))));
  EXPECT_TRUE(frames({chat::TextDelta{0, "a"}, chat::Finished{}, chat::Usage{}}).ends_with(ended("end_turn", "null", usage(7, 0, 1))));
}

TEST(AnthropicStream, ThoughtsEndWithOneSignature) {
  const std::string thought = R"({"type":"thinking_delta","thinking":"hm"})", said = R"({"type":"text_delta","text":"a"})";
  const auto rest = [&](const std::string& signature) {
    return started(usage(1, 0, 0)) + block(0, thinking_block) + delta(0, thought) + delta(0, thought) + delta(0, signature) + stop(0) +
           block(1, text_block) + delta(1, said) + stop(1) + ended("end_turn", "null", usage(1, 0, 3));
  };
  const chat::Events before{chat::Started{1, 0}, chat::ReasoningDelta{0, "hm"}, chat::ReasoningDelta{0, "hm"}};
  const chat::Events after{chat::TextDelta{0, "a"}, chat::Finished{}, chat::Usage{1, 0, 3}};
  chat::Events plain = before, proven = before;
  plain.insert(plain.end(), after.begin(), after.end());
  EXPECT_EQ(frames(plain), rest(our_signature));
  proven.emplace_back(chat::ReasoningSignature{0, "EqQB"});
  proven.insert(proven.end(), after.begin(), after.end());
  EXPECT_EQ(frames(proven), rest(R"({"type":"signature_delta","signature":"EqQB"})"));
}

TEST(AnthropicStream, AProofWithoutShownThoughtsIsABlockToo) {
  EXPECT_EQ(frames({chat::Started{1, 0}, chat::ReasoningSignature{0, "EqQB"}, chat::Finished{}, chat::Usage{1, 0, 3}}),
            started(usage(1, 0, 0)) + block(0, thinking_block) + delta(0, R"({"type":"signature_delta","signature":"EqQB"})") + stop(0) +
                ended("end_turn", "null", usage(1, 0, 3)));
}

TEST(AnthropicStream, CallsAreBlocksOfTheirOwn) {
  EXPECT_EQ(frames({chat::Started{1, 0}, chat::TextDelta{0, "I look."}, chat::ToolCallBegin{0, 0, "t1", "bash"},
                    chat::ToolCallDelta{0, 0, "{\"a\""}, chat::ToolCallDelta{0, 0, ":1}"}, chat::ToolCallEnd{0, 0},
                    chat::ToolCallBegin{0, 1, "t2", "now"}, chat::ToolCallEnd{0, 1}, chat::Finished{0, FinishReason::tool_calls},
                    chat::Usage{1, 0, 3}}),
            started(usage(1, 0, 0)) + block(0, text_block) + delta(0, R"({"type":"text_delta","text":"I look."})") + stop(0) +
                call(1, "t1", "bash") + input(1, "{\"a\"") + input(1, ":1}") + stop(1) + call(2, "t2", "now") + stop(2) +
                ended("tool_use", "null", usage(1, 0, 3)));
}

TEST(AnthropicStream, InterleavedCallsComeOneAfterTheOther) {
  const std::string expected = started(usage(1, 0, 0)) + call(0, "t1", "f") + input(0, "{\"a\":") + input(0, "1}") + stop(0) +
                               call(1, "t2", "g") + input(1, "{\"b\":2") + input(1, "}") + stop(1) + block(2, text_block) +
                               delta(2, R"({"type":"text_delta","text":"done"})") + stop(2) + call(3, "t3", "h") + stop(3) +
                               ended("tool_use", "null", usage(1, 0, 3));
  EXPECT_EQ(frames({chat::Started{1, 0}, chat::ToolCallBegin{0, 0, "t1", "f"}, chat::ToolCallDelta{0, 0, "{\"a\":"},
                    chat::ToolCallBegin{0, 1, "t2", "g"}, chat::ToolCallDelta{0, 1, "{\"b\":"}, chat::ToolCallDelta{0, 0, "1}"},
                    chat::ToolCallDelta{0, 1, "2"}, chat::ToolCallEnd{0, 0}, chat::ToolCallDelta{0, 1, "}"}, chat::TextDelta{0, "do"},
                    chat::TextDelta{0, "ne"}, chat::ToolCallBegin{0, 2, "t3", "h"}, chat::ToolCallEnd{0, 2}, chat::ToolCallEnd{0, 1},
                    chat::Finished{0, FinishReason::tool_calls}, chat::Usage{1, 0, 3}}),
            expected);
}

TEST(AnthropicStream, ThoughtsBehindAnOpenCallKeepTheirProof) {
  EXPECT_EQ(
      frames({chat::Started{1, 0}, chat::ToolCallBegin{0, 0, "t1", "f"}, chat::ReasoningDelta{0, "hm"}, chat::ReasoningSignature{0, "x"},
              chat::ReasoningDelta{0, "so"}, chat::Finished{0, FinishReason::tool_calls}, chat::Usage{1, 0, 3}}),
      started(usage(1, 0, 0)) + call(0, "t1", "f") + stop(0) + block(1, thinking_block) +
          delta(1, R"({"type":"thinking_delta","thinking":"hm"})") + delta(1, R"({"type":"signature_delta","signature":"x"})") + stop(1) +
          block(2, thinking_block) + delta(2, R"({"type":"thinking_delta","thinking":"so"})") + delta(2, our_signature) + stop(2) +
          ended("tool_use", "null", usage(1, 0, 3)));
}

TEST(AnthropicStream, CallsThatNeverEndAreClosedWithTheAnswer) {
  const std::string out = frames({chat::ToolCallBegin{0, 0, "t1", "f"}, chat::ToolCallBegin{0, 1, "t2", "g"},
                                  chat::ToolCallBegin{0, 2, "t3", "h"}, chat::Finished{0, FinishReason::length}, chat::Usage{1, 0, 3}});
  EXPECT_NE(out.find(call(0, "t1", "f") + stop(0) + call(1, "t2", "g") + stop(1) + call(2, "t3", "h") + stop(2) +
                     ended("max_tokens", "null", usage(1, 0, 3))),
            std::string::npos)
      << out;
}

TEST(AnthropicStream, StopReasons) {
  const auto reason = [](chat::Finished finished, bool called) {
    chat::Events events;
    if (called) events = {chat::ToolCallBegin{0, 0, "t", "f"}, chat::ToolCallEnd{0, 0}};
    events.emplace_back(std::move(finished));
    const std::string out = frames(events);
    const auto at = out.find("\"delta\":{\"stop_reason\"");
    return out.substr(at + 8, out.find('}', at) - at - 7);
  };
  EXPECT_EQ(reason({0, FinishReason::stop, ""}, false), R"({"stop_reason":"end_turn","stop_sequence":null})");
  EXPECT_EQ(reason({0, FinishReason::stop, "\nX"}, false), R"({"stop_reason":"stop_sequence","stop_sequence":"\nX"})");
  EXPECT_EQ(reason({0, FinishReason::length, ""}, false), R"({"stop_reason":"max_tokens","stop_sequence":null})");
  EXPECT_EQ(reason({0, FinishReason::content_filter, ""}, false), R"({"stop_reason":"refusal","stop_sequence":null})");
  EXPECT_EQ(reason({0, FinishReason::stop, ""}, true), R"({"stop_reason":"tool_use","stop_sequence":null})");
  EXPECT_EQ(reason({0, FinishReason::tool_calls, ""}, false), R"({"stop_reason":"end_turn","stop_sequence":null})");
}

TEST(AnthropicStream, AnEmptyAnswerIsWhole) {
  EXPECT_EQ(frames({chat::Started{3, 0}, chat::Finished{}, chat::Usage{3, 0, 0}}),
            started(usage(3, 0, 0)) + ended("end_turn", "null", usage(3, 0, 0)));
}

TEST(AnthropicStream, AFailureIsTheLastThingSaid) {
  const std::string out = frames({chat::Started{1, 0}, chat::TextDelta{0, "a"},
                                  chat::Failed{{ErrorCode::upstream_failed, "it died", "", {}}}, chat::TextDelta{0, "b"}});
  EXPECT_TRUE(out.ends_with(event("error", R"({"type":"error","error":{"type":"api_error","message":"it died"},"request_id":"req_1"})")))
      << out;
}

TEST(AnthropicStream, AnAnswerThatNeverFinishesFails) {
  const std::string out = frames({chat::TextDelta{0, "a"}});
  EXPECT_NE(out.find("event: error\n"), std::string::npos);
  EXPECT_EQ(out.find("message_stop"), std::string::npos);
}

TEST(AnthropicStream, PingsAreEventsOfTheirOwn) {
  MessageCodec codec(head());
  std::string out;
  codec.keep_alive(out);
  EXPECT_EQ(out, "event: ping\ndata: {\"type\":\"ping\"}\n\n");
}

TEST(AnthropicAnswer, IsOneMessage) {
  Answer answer;
  answer.usage = {10, 4, 5};
  answer.choices.resize(1);
  auto& choice = answer.choices[0];
  choice.reason = FinishReason::tool_calls;
  using Kind = Answer::Block::Kind;
  choice.blocks.push_back({.kind = Kind::reasoning, .text = "hm"});
  choice.blocks.push_back({.kind = Kind::reasoning, .text = "so", .signature = "EqQB"});
  choice.blocks.push_back({.kind = Kind::text, .text = "I look."});
  choice.blocks.push_back({.kind = Kind::call, .call = {"t1", "bash", "{\"z\": 1, \"a\":2}"}});
  choice.blocks.push_back({.kind = Kind::call, .call = {"t2", "now", ""}});
  choice.blocks.push_back({.kind = Kind::call, .call = {"t3", "cut", "{\"a"}});
  EXPECT_EQ(MessageCodec(head()).whole(answer),
            R"({"id":"msg_1","type":"message","role":"assistant","model":"m","content":[)"
            R"({"type":"thinking","thinking":"hm","signature":"hearth-unsigned-reasoning"},)"
            R"({"type":"thinking","thinking":"so","signature":"EqQB"},{"type":"text","text":"I look."},)"
            R"({"type":"tool_use","id":"t1","name":"bash","input":{"z": 1, "a":2}},)"
            R"({"type":"tool_use","id":"t2","name":"now","input":{}},)"
            R"({"type":"tool_use","id":"t3","name":"cut","input":{"INVALID_JSON":"{\"a"}}],)"
            R"("stop_reason":"tool_use","stop_sequence":null,)"
            R"("usage":{"input_tokens":6,"cache_creation_input_tokens":0,"cache_read_input_tokens":4,"output_tokens":5}})");
}

TEST(AnthropicAnswer, WithoutCountsIsEstimated) {
  Answer answer;
  answer.choices.resize(1);
  answer.choices[0].reason = FinishReason::stop;
  answer.choices[0].stop_sequence = "X";
  answer.choices[0].blocks.push_back({.text = "eight ch"});
  const auto document = parse_json(MessageCodec(head()).whole(answer));
  ASSERT_TRUE(document);
  EXPECT_EQ(document->at("usage").at("input_tokens"), 7);
  EXPECT_EQ(document->at("usage").at("output_tokens"), 2);
  EXPECT_EQ(document->at("stop_reason"), "stop_sequence");
  EXPECT_EQ(document->at("stop_sequence"), "X");
}

TEST(AnthropicErrors, EveryCodeHasItsType) {
  const auto type = [](ErrorCode code) {
    const auto document = parse_json(encode_error({code, "why", "", {}}, ""));
    EXPECT_EQ(document->at("type"), "error");
    EXPECT_TRUE(document->at("request_id").is_null());
    return std::string(document->at("error").at("type").as_string());
  };
  EXPECT_EQ(type(ErrorCode::invalid_request), "invalid_request_error");
  EXPECT_EQ(type(ErrorCode::unsupported), "invalid_request_error");
  EXPECT_EQ(type(ErrorCode::context_length_exceeded), "invalid_request_error");
  EXPECT_EQ(type(ErrorCode::method_not_allowed), "invalid_request_error");
  EXPECT_EQ(type(ErrorCode::unauthorized), "authentication_error");
  EXPECT_EQ(type(ErrorCode::forbidden), "permission_error");
  EXPECT_EQ(type(ErrorCode::not_found), "not_found_error");
  EXPECT_EQ(type(ErrorCode::model_not_found), "not_found_error");
  EXPECT_EQ(type(ErrorCode::payload_too_large), "request_too_large");
  EXPECT_EQ(type(ErrorCode::overloaded), "rate_limit_error");
  EXPECT_EQ(type(ErrorCode::unavailable), "overloaded_error");
  EXPECT_EQ(type(ErrorCode::upstream_timeout), "timeout_error");
  EXPECT_EQ(type(ErrorCode::deadline_exceeded), "timeout_error");
  EXPECT_EQ(type(ErrorCode::upstream_failed), "api_error");
  EXPECT_EQ(type(ErrorCode::internal), "api_error");
}

TEST(AnthropicErrors, AThreadIsRefusedSoThatTheSdkGoesOnWithoutIt) {
  const auto refused = parse_json(encode_error({ErrorCode::unsupported, "why", "thread", {}}, ""));
  EXPECT_EQ(refused->at("error").at("details").at("error_code"), "thread_unsupported_request");
  const auto other = parse_json(encode_error({ErrorCode::unsupported, "why", "output_config", {}}, ""));
  EXPECT_FALSE(other->at("error").get_object().contains("details"));
}

TEST(AnthropicErrors, ASmallContextIsToldInTheWordsAgentsKnow) {
  const auto message = [](std::string said, std::string param = "") {
    const auto document = parse_json(encode_error({ErrorCode::context_length_exceeded, std::move(said), std::move(param), {}}, "r"));
    return std::string(document->at("error").at("message").as_string());
  };
  const std::string ours = "this model's context holds 4096 tokens, but the prompt alone has 16400; shorten it";
  EXPECT_EQ(message(ours), "prompt is too long: 16400 tokens > 4096 maximum (" + ours + ")");
  const std::string theirs = "the request exceeds the available context size: request (16400 tokens), context (4096 tokens)";
  EXPECT_EQ(message(theirs), "prompt is too long: 16400 tokens > 4096 maximum (" + theirs + ")");
  const std::string asked =
      "this model's context holds 4096 tokens, but the prompt has 9 and max_tokens asks for 32000 more; lower max_tokens to 4087";
  EXPECT_EQ(message(asked, "max_tokens"),
            "input length and `max_tokens` exceed context limit: 9 + 32000 > 4096, decrease input length or `max_tokens` and try again (" +
                asked + ")");
  EXPECT_EQ(message("qwen2.5-7b has no room"), "prompt is too long: qwen2.5-7b has no room");
  EXPECT_EQ(message("prompt is too long: 9 tokens > 8 maximum"), "prompt is too long: 9 tokens > 8 maximum");
}

TEST(AnthropicModels, ComeInPages) {
  std::vector<chat::ModelInfo> models(3);
  for (int i = 0; i < 3; ++i) models[static_cast<std::size_t>(i)].id = std::string(1, static_cast<char>('a' + i));
  models[0].created = 1'767'225'600;
  models[0].context = 4096;
  EXPECT_EQ(*encode_models({models[0]}, ""),
            R"({"data":[{"type":"model","id":"a","display_name":"a","created_at":"2026-01-01T00:00:00Z","max_input_tokens":4096}],)"
            R"("has_more":false,"first_id":"a","last_id":"a"})");
  EXPECT_EQ(*encode_models({}, "limit=1000"), R"({"data":[],"has_more":false,"first_id":null,"last_id":null})");
  const auto page = [&](std::string_view query) {
    const auto body = encode_models(models, query);
    if (!body) return "error: " + body.error().param;
    const auto document = parse_json(*body);
    std::string ids = document->at("has_more").as_bool() ? "more " : "";
    for (const auto& model : document->at("data").as_array()) ids += model.at("id").as_string();
    if (!document->at("data").as_array().empty()) {
      EXPECT_EQ(document->at("first_id"), document->at("data").as_array().front().at("id"));
      EXPECT_EQ(document->at("last_id"), document->at("data").as_array().back().at("id"));
    }
    return ids;
  };
  EXPECT_EQ(page("limit=1000"), "abc");
  EXPECT_EQ(page("limit=2"), "more ab");
  EXPECT_EQ(page("limit=2&after_id=b"), "c");
  EXPECT_EQ(page("after_id=c"), "");
  EXPECT_EQ(page("before_id=c&limit=1"), "more b");
  EXPECT_EQ(page("before_id=%61"), "");
  EXPECT_EQ(page("limit=0"), "error: limit");
  EXPECT_EQ(page("limit=x"), "error: limit");
  EXPECT_EQ(page("after_id=z"), "error: after_id");
}

}  // namespace
}  // namespace hearth::wire::anthropic
