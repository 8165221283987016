#include <gtest/gtest.h>

#include "base/json.h"
#include "wire/openai.h"

namespace hearth::wire::openai {
namespace {

AnswerHead chat_head(int choices = 1) {
  AnswerHead head;
  head.id = "chatcmpl-1";
  head.created = 7;
  head.model = "m";
  head.choices = choices;
  return head;
}

AnswerHead raw_head() {
  AnswerHead head = chat_head();
  head.id = "cmpl-1";
  head.raw = true;
  return head;
}

std::string frames(AnswerHead head, const chat::Events& events) {
  StreamEncoder encoder(std::move(head));
  std::string out;
  for (const auto& event : events) encoder.encode(event, out);
  encoder.end(out);
  return out;
}

const std::string chunk = R"(data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":7,"model":"m","choices":[)";
const std::string done = "data: [DONE]\n\n";

chat::TokenInfo token(std::string bytes, float logprob) {
  chat::TokenInfo out;
  out.chosen = {5, bytes, logprob};
  out.top = {{5, bytes, logprob}, {6, "\xC3", -2.5F}};
  out.entropy = 0.5F;
  return out;
}

TEST(StreamEncoder, TextComesWithTheRoleOnceAndOneFinishReason) {
  EXPECT_EQ(frames(chat_head(),
                   {chat::TextDelta{0, "a\n"}, chat::TextDelta{0, "b"}, chat::Finished{0, chat::FinishReason::stop}, chat::Usage{1, 0, 2}}),
            chunk + R"({"index":0,"delta":{"role":"assistant","content":"a\n"},"logprobs":null,"finish_reason":null}]})" + "\n\n" + chunk +
                R"({"index":0,"delta":{"content":"b"},"logprobs":null,"finish_reason":null}]})" + "\n\n" + chunk +
                R"({"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]})" + "\n\n" + done);
}

TEST(StreamEncoder, UsageIsNullUntilItsOwnLastChunk) {
  AnswerHead head = chat_head();
  head.include_usage = true;
  EXPECT_EQ(frames(head, {chat::TextDelta{0, "a"}, chat::Finished{0, chat::FinishReason::length}, chat::Usage{10, 4, 2}}),
            chunk + R"({"index":0,"delta":{"role":"assistant","content":"a"},"logprobs":null,"finish_reason":null}],"usage":null})" +
                "\n\n" + chunk + R"({"index":0,"delta":{},"logprobs":null,"finish_reason":"length"}],"usage":null})" + "\n\n" + chunk +
                R"(],"usage":{"prompt_tokens":10,"completion_tokens":2,"total_tokens":12,"prompt_tokens_details":{"cached_tokens":4}}})" +
                "\n\n" + done);
}

TEST(StreamEncoder, AToolCallBeginsWithEverythingSdksReadUnguarded) {
  EXPECT_EQ(
      frames(chat_head(), {chat::ToolCallBegin{0, 0, "call_1", "bash"}, chat::ToolCallDelta{0, 0, "{\"a\""},
                           chat::ToolCallDelta{0, 0, ":1}"}, chat::ToolCallEnd{0, 0}, chat::Finished{0, chat::FinishReason::tool_calls}}),
      chunk +
          R"({"index":0,"delta":{"role":"assistant","content":null,"tool_calls":[{"index":0,"id":"call_1","type":"function","function":{"name":"bash","arguments":""}}]},"logprobs":null,"finish_reason":null}]})" +
          "\n\n" + chunk +
          R"({"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\"a\""}}]},"logprobs":null,"finish_reason":null}]})" +
          "\n\n" + chunk +
          R"({"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":":1}"}}]},"logprobs":null,"finish_reason":null}]})" +
          "\n\n" + chunk + R"({"index":0,"delta":{},"logprobs":null,"finish_reason":"tool_calls"}]})" + "\n\n" + done);
}

TEST(StreamEncoder, TheFinishReasonAgreesWithTheCalls) {
  EXPECT_NE(frames(chat_head(), {chat::ToolCallBegin{0, 0, "c", "f"}, chat::Finished{0, chat::FinishReason::stop}})
                .find(R"("finish_reason":"tool_calls")"),
            std::string::npos);
  EXPECT_NE(
      frames(chat_head(), {chat::TextDelta{0, "x"}, chat::Finished{0, chat::FinishReason::tool_calls}}).find(R"("finish_reason":"stop")"),
      std::string::npos);
}

TEST(StreamEncoder, AnEmptyAnswerStillHasRoleAndFinishReason) {
  EXPECT_EQ(frames(chat_head(), {chat::Finished{0, chat::FinishReason::stop}}),
            chunk + R"({"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":"stop"}]})" + "\n\n" + done);
}

TEST(StreamEncoder, EveryChoiceHasItsOwnRole) {
  const std::string out = frames(chat_head(2), {chat::TextDelta{1, "b"}, chat::ReasoningDelta{0, "a"}, chat::TextDelta{1, "c"},
                                                chat::Finished{1, {}}, chat::Finished{0, {}}});
  EXPECT_NE(out.find(R"({"index":1,"delta":{"role":"assistant","content":"b"})"), std::string::npos);
  EXPECT_NE(out.find(R"({"index":0,"delta":{"role":"assistant","reasoning_content":"a"})"), std::string::npos);
  EXPECT_NE(out.find(R"({"index":1,"delta":{"content":"c"})"), std::string::npos);
}

TEST(StreamEncoder, LogprobsGoWithTheirDelta) {
  AnswerHead head = chat_head();
  head.logprobs = true;
  EXPECT_EQ(
      frames(head, {token("h", -0.25F), chat::TextDelta{0, "h"}, chat::Finished{0, {}}}),
      chunk +
          R"({"index":0,"delta":{"role":"assistant","content":"h"},"logprobs":{"content":[{"token":"h","id":5,"logprob":-0.25,"bytes":[104],)"
          R"("top_logprobs":[{"token":"h","id":5,"logprob":-0.25,"bytes":[104]},{"token":")"
          "\xEF\xBF\xBD"
          R"(","id":6,"logprob":-2.5,"bytes":[195]}],"entropy":0.5}],)"
          R"("refusal":null},"finish_reason":null}]})" +
          "\n\n" + chunk + R"({"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]})" + "\n\n" + done);
}

TEST(StreamEncoder, LogprobsNobodyAskedForStayHome) {
  EXPECT_EQ(frames(chat_head(), {token("h", -1), chat::TextDelta{0, "h"}, chat::Finished{0, {}}}).find("entropy"), std::string::npos);
}

TEST(StreamEncoder, ImpossibleTokensHaveALogprobThatJsonCanHold) {
  AnswerHead head = chat_head();
  head.logprobs = true;
  chat::TokenInfo info;
  info.chosen.logprob = -std::numeric_limits<float>::infinity();
  EXPECT_NE(frames(head, {info, chat::Finished{0, {}}}).find(R"("logprob":-9999,)"), std::string::npos);
}

TEST(StreamEncoder, AFailureIsAChunkWithATopLevelErrorAndTheLast) {
  EXPECT_EQ(frames(chat_head(), {chat::TextDelta{0, "a"}, chat::Failed{{ErrorCode::upstream_failed, "the engine died", "", {}}},
                                 chat::TextDelta{0, "b"}}),
            chunk + R"({"index":0,"delta":{"role":"assistant","content":"a"},"logprobs":null,"finish_reason":null}]})" + "\n\n" +
                R"(data: {"error":{"message":"the engine died","type":"server_error","param":null,"code":"upstream_failed"}})" + "\n\n");
}

TEST(StreamEncoder, NothingFollowsAFinishedChoice) {
  const chat::Events events{chat::TextDelta{0, "a"}, chat::Finished{0, {}}};
  chat::Events more = events;
  more.insert(more.end(), {chat::TextDelta{0, "late"}, chat::Finished{0, chat::FinishReason::length}, chat::TextDelta{7, "nowhere"},
                           chat::TextDelta{-1, "nowhere"}});
  EXPECT_EQ(frames(chat_head(), events), frames(chat_head(), more));
}

TEST(StreamEncoder, AnAnswerThatBreaksOffEndsInAnError) {
  const std::string out = frames(chat_head(2), {chat::TextDelta{0, "a"}, chat::Finished{0, {}}});
  EXPECT_NE(out.find(R"("code":"upstream_failed")"), std::string::npos);
  EXPECT_EQ(out.find("[DONE]"), std::string::npos);
}

TEST(StreamEncoder, RawCompletionsHaveTheirOwnShape) {
  AnswerHead head = raw_head();
  head.logprobs = true;
  const std::string raw = R"(data: {"id":"cmpl-1","object":"text_completion","created":7,"model":"m","choices":[)";
  const std::string out = frames(
      head, {token("h\xC3\xA9", -0.25F), token("y", -1), chat::TextDelta{0, "h\xC3\xA9y"}, chat::Finished{0, chat::FinishReason::length}});
  EXPECT_TRUE(out.starts_with(
      raw +
      "{\"index\":0,\"text\":\"h\xC3\xA9y\",\"logprobs\":{\"tokens\":[\"h\xC3\xA9\",\"y\"],\"token_logprobs\":[-0.25,-1],\"top_logprobs\":["
      "{\"h\xC3\xA9\":-0.25,\"\xEF\xBF\xBD\":-2.5},{\"y\":-1,\"\xEF\xBF\xBD\":-2.5}],\"text_offset\":[0,2],\"content\":["))
      << out;
  EXPECT_TRUE(out.ends_with(raw + R"({"index":0,"text":"","logprobs":null,"finish_reason":"length"}]})" + "\n\n" + done)) << out;
}

std::string collected(const AnswerHead& head, chat::Events events) {
  AnswerCollector collector(head.choices);
  for (auto& event : events) collector.add(std::move(event));
  collector.end();
  EXPECT_EQ(collector.failure(), nullptr);
  return encode_answer(head, collector.answer());
}

TEST(AnswerCollector, TextReasoningAndUsage) {
  EXPECT_EQ(
      collected(chat_head(), {chat::ReasoningDelta{0, "h"}, chat::ReasoningDelta{0, "m"}, chat::TextDelta{0, "a"}, chat::TextDelta{0, "b"},
                              chat::Finished{0, chat::FinishReason::length}, chat::Usage{10, 4, 2}}),
      R"({"id":"chatcmpl-1","object":"chat.completion","created":7,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"ab",)"
      R"("refusal":null,"reasoning_content":"hm"},"logprobs":null,"finish_reason":"length"}],"usage":{"prompt_tokens":10,"completion_tokens":2,)"
      R"("total_tokens":12,"prompt_tokens_details":{"cached_tokens":4}}})");
}

TEST(AnswerCollector, ToolCallsHaveNullContent) {
  const std::string out =
      collected(chat_head(2),
                {chat::ToolCallBegin{1, 0, "c0", "f"}, chat::ToolCallDelta{1, 0, "{"}, chat::ToolCallDelta{1, 0, "}"},
                 chat::ToolCallEnd{1, 0}, chat::ToolCallBegin{1, 1, "c1", "g"}, chat::ToolCallEnd{1, 1},
                 chat::Finished{1, chat::FinishReason::tool_calls}, chat::TextDelta{0, "x"}, chat::Finished{0, chat::FinishReason::stop}});
  EXPECT_NE(
      out.find(
          R"({"index":0,"message":{"role":"assistant","content":"x","refusal":null},"logprobs":null,"finish_reason":"stop"},{"index":1,"message":)"
          R"({"role":"assistant","content":null,"refusal":null,"tool_calls":[{"id":"c0","type":"function","function":{"name":"f","arguments":"{}"}},)"
          R"({"id":"c1","type":"function","function":{"name":"g","arguments":""}}]},"logprobs":null,"finish_reason":"tool_calls"}])"),
      std::string::npos)
      << out;
  EXPECT_TRUE(parse_json(out));
}

TEST(AnswerCollector, RawCompletion) {
  AnswerHead head = raw_head();
  head.logprobs = true;
  const std::string out = collected(head, {token("a", -1), chat::TextDelta{0, "a"}, token("b", -2), chat::TextDelta{0, "b"},
                                           chat::Finished{0, {}}, chat::Usage{1, 0, 2}});
  EXPECT_NE(out.find(R"("choices":[{"index":0,"text":"ab","logprobs":{"tokens":["a","b"],"token_logprobs":[-1,-2],)"), std::string::npos)
      << out;
  EXPECT_NE(out.find(R"("text_offset":[0,1])"), std::string::npos);
  EXPECT_TRUE(parse_json(out));
}

TEST(AnswerCollector, FailsWhenAFailedEventCameOrAChoiceNeverFinished) {
  AnswerCollector failed(1);
  failed.add(chat::TextDelta{0, "a"});
  EXPECT_EQ(failed.failure(), nullptr);
  failed.add(chat::Failed{{ErrorCode::deadline_exceeded, "late", "", {}}});
  ASSERT_NE(failed.failure(), nullptr);
  EXPECT_EQ(failed.failure()->code, ErrorCode::deadline_exceeded);
  AnswerCollector cut(1);
  cut.add(chat::TextDelta{0, "a"});
  cut.end();
  ASSERT_NE(cut.failure(), nullptr);
  EXPECT_EQ(cut.failure()->code, ErrorCode::upstream_failed);
}

TEST(Encode, Embeddings) {
  const chat::Embeddings result{{{1.0F, -0.5F}, {0, 2}}, 9};
  EXPECT_EQ(
      encode_embeddings(result, "m", false),
      R"({"object":"list","data":[{"object":"embedding","index":0,"embedding":[1,-0.5]},{"object":"embedding","index":1,"embedding":[0,2]}],)"
      R"("model":"m","usage":{"prompt_tokens":9,"total_tokens":9}})");
  EXPECT_NE(encode_embeddings(result, "m", true).find(R"("embedding":"AACAPwAAAL8=")"), std::string::npos);
}

TEST(Encode, Rerank) {
  chat::RerankRequest request;
  request.documents = {"a", "b", "c"};
  request.top_n = 2;
  request.return_documents = true;
  EXPECT_EQ(encode_rerank({{{2, 0.5F}, {0, 0.25F}, {1, 0}}, 9}, request, "m"),
            R"({"object":"list","model":"m","usage":{"prompt_tokens":9,"total_tokens":9},"results":[)"
            R"({"index":2,"relevance_score":0.5,"document":{"text":"c"}},{"index":0,"relevance_score":0.25,"document":{"text":"a"}}]})");
}

TEST(Encode, Models) {
  chat::ModelInfo model;
  model.id = "nano";
  model.created = 5;
  model.chat = true;
  EXPECT_TRUE(
      encode_models({model}).starts_with(R"({"object":"list","data":[{"id":"nano","object":"model","created":5,"owned_by":"hearth",)"));
  EXPECT_EQ(encode_models({}), R"({"object":"list","data":[]})");
}

TEST(Encode, Errors) {
  EXPECT_EQ(encode_error({ErrorCode::invalid_request, "say \"x\"", "messages[0].role", {}}),
            R"({"error":{"message":"say \"x\"","type":"invalid_request_error","param":"messages[0].role","code":"invalid_request"}})");
  EXPECT_EQ(encode_error({ErrorCode::overloaded, "full", "", std::chrono::milliseconds(1500)}),
            R"({"error":{"message":"full","type":"rate_limit_error","param":null,"code":"overloaded","retry_after_ms":1500}})");
}

}  // namespace
}  // namespace hearth::wire::openai
