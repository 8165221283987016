// What other engines' streams and documents look like, and what becomes of broken ones.
#include <gtest/gtest.h>

#include <cmath>

#include "net/sse.h"
#include "wire/openai.h"
#include "wire/show.h"

namespace hearth::wire::openai {
namespace {

Result<std::string> decoded(const std::vector<std::string>& chunks) {
  StreamDecoder decoder;
  chat::Events events;
  for (const auto& chunk : chunks) {
    if (auto ok = decoder.decode(chunk, events); !ok) return ok.error();
  }
  if (auto ok = decoder.finish(events); !ok) return ok.error();
  return show(events);
}

std::string decoded_ok(const std::vector<std::string>& chunks) {
  auto result = decoded(chunks);
  return result ? *result : "error: " + result.error().message;
}

std::string delta(const std::string& fields, const std::string& finish = "null", int index = 0) {
  return R"({"choices":[{"index":)" + std::to_string(index) + R"(,"delta":)" + fields + R"(,"finish_reason":)" + finish + "}]}";
}

TEST(StreamDecoder, LlamaServersChat) {
  EXPECT_EQ(
      decoded_ok(
          {R"({"choices":[{"finish_reason":null,"index":0,"delta":{"role":"assistant","content":null}}],"created":1,"id":"x","model":"m","object":"chat.completion.chunk"})",
           delta(R"({"content":"Hel"})"), delta(R"({"content":"lo"})"), delta("{}", "\"stop\""),
           R"({"choices":[],"created":1,"usage":{"completion_tokens":2,"prompt_tokens":11,"total_tokens":13,"prompt_tokens_details":{"cached_tokens":8}},"timings":{"x":1.5}})",
           "[DONE]"}),
      "0 text Hel\n0 text lo\n0 finished 0\nusage 11 8 2\n");
}

TEST(StreamDecoder, VllmsUsageInEveryChunkStartsAndEndsTheAnswer) {
  const std::string usage = R"(,"usage":{"prompt_tokens":3,"completion_tokens":)";
  EXPECT_EQ(decoded_ok({R"({"choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}])" +
                            usage + "0}}",
                        R"({"choices":[{"index":0,"delta":{"content":"a"}}])" + usage + "1}}",
                        R"({"choices":[{"index":0,"delta":{"content":""},"finish_reason":"length","stop_reason":null}])" + usage + "1}}",
                        R"({"choices":[],"usage":null})", "[DONE]"}),
            "started 3 0\n0 text a\n0 finished 1\nusage 3 0 1\n");
}

TEST(StreamDecoder, SglangsReasoningAndNulls) {
  EXPECT_EQ(decoded_ok({delta(R"({"role":"assistant","content":null,"reasoning_content":"hm","tool_calls":null})"),
                        delta(R"({"content":"x","reasoning_content":null})"), delta(R"({"content":null})", "\"stop\""), "[DONE]"}),
            "0 reasoning hm\n0 text x\n0 finished 0\n");
  EXPECT_EQ(decoded_ok({delta(R"({"reasoning":"hm"})"), delta("{}", "\"stop\"")}), "0 reasoning hm\n0 finished 0\n");
}

TEST(StreamDecoder, ParallelToolCallsCloseOneAnother) {
  EXPECT_EQ(decoded_ok({delta(R"({"content":"I run"})"),
                        delta(R"({"tool_calls":[{"index":0,"id":"a","type":"function","function":{"name":"f","arguments":""}}]})"),
                        delta(R"({"tool_calls":[{"index":0,"function":{"arguments":"{}"}}]})"),
                        delta(R"({"tool_calls":[{"index":1,"id":"b","type":"function","function":{"name":"g","arguments":"[1"}}]})"),
                        delta(R"({"tool_calls":[{"index":1,"function":{"arguments":"]"}}]})"), delta("{}", "\"tool_calls\""), "[DONE]"}),
            "0 text I run\n0 call 0 begin a f\n0 call 0 delta {}\n0 call 0 end\n0 call 1 begin b g\n0 call 1 delta [1\n0 call 1 delta ]\n0 "
            "call 1 end\n0 finished 2\n");
}

TEST(StreamDecoder, ParallelCallsThatShareAnIndexAreToldApartById) {
  EXPECT_EQ(
      decoded_ok(
          {delta(
               R"({"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":"1"}},{"index":0,"id":"b","function":{"name":"g","arguments":"2"}}]})"),
           delta("{}", "\"stop\"")}),
      "0 call 0 begin a f\n0 call 0 delta 1\n0 call 0 end\n0 call 1 begin b g\n0 call 1 delta 2\n0 call 1 end\n0 finished 2\n");
}

TEST(StreamDecoder, AWholeCallInOneGoWithArgumentsAsAnObject) {
  EXPECT_EQ(
      decoded_ok({delta(R"({"tool_calls":[{"id":"a","function":{"name":"f","arguments":{"x":[1]}}}]})"), delta("{}", "\"tool_calls\"")}),
      "0 call 0 begin a f\n0 call 0 delta {\"x\":[1]}\n0 call 0 end\n0 finished 2\n");
}

TEST(StreamDecoder, NameAndIdRepeatedInEveryFragmentAreOneCall) {
  EXPECT_EQ(decoded_ok({delta(R"({"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":"1"}}]})"),
                        delta(R"({"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":"2"}}]})"),
                        delta("{}", "\"tool_calls\"")}),
            "0 call 0 begin a f\n0 call 0 delta 1\n0 call 0 delta 2\n0 call 0 end\n0 finished 2\n");
}

TEST(StreamDecoder, AMissingIdIsMadeUp) {
  StreamDecoder decoder;
  chat::Events events;
  ASSERT_TRUE(decoder.decode(delta(R"({"tool_calls":[{"function":{"name":"f","arguments":"1"}}]})"), events));
  ASSERT_TRUE(decoder.decode(delta(R"({"tool_calls":[{"function":{"arguments":"2"}}]})"), events));
  ASSERT_EQ(events.size(), 3U);
  EXPECT_TRUE(std::get<chat::ToolCallBegin>(events[0]).id.starts_with("call_"));
  EXPECT_EQ(std::get<chat::ToolCallDelta>(events[2]).arguments, "2");
}

TEST(StreamDecoder, RawCompletionsAndLegacyLogprobs) {
  EXPECT_EQ(
      decoded_ok(
          {R"({"object":"text_completion","choices":[{"index":0,"text":"ab","logprobs":{"tokens":["a","b"],"token_logprobs":[null,-0.5],"top_logprobs":[null,{"b":-0.5,"c":-2}],"text_offset":[0,1]},"finish_reason":null}]})",
           R"({"choices":[{"index":0,"text":"","finish_reason":"length"}]})", "[DONE]"}),
      "0 token (-1 \"a\" 61 nan) entropy 0\n0 token (-1 \"b\" 62 -0.5) entropy 0 (-1 \"b\" 62 -0.5) (-1 \"c\" 63 -2)\n0 text ab\n0 "
      "finished 1\n");
}

TEST(StreamDecoder, AnEmptyFinishReasonIsNone) {
  EXPECT_EQ(decoded_ok({delta(R"({"content":"a"})", "\"\""), delta("{}", "\"eos\"")}), "0 text a\n0 finished 0\n");
}

TEST(StreamDecoder, DoneWithoutAFinishReasonStillFinishes) {
  EXPECT_EQ(decoded_ok({delta(R"({"content":"a"})"), "[DONE]"}), "0 text a\n0 finished 0\n");
  EXPECT_EQ(decoded_ok({delta(R"({"tool_calls":[{"id":"a","function":{"name":"f"}}]})"), "[DONE]"}),
            "0 call 0 begin a f\n0 call 0 end\n0 finished 2\n");
}

TEST(StreamDecoder, AnEndInMidStreamIsAFailure) {
  for (const auto& chunks : std::vector<std::vector<std::string>>{
           {}, {delta(R"({"content":"a"})")}, {delta("{}", "\"stop\""), delta(R"({"content":"a"})", "null", 1)}}) {
    const auto result = decoded(chunks);
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().code, ErrorCode::upstream_failed);
  }
}

TEST(StreamDecoder, NonsenseIsAFailure) {
  for (const char* chunk :
       {"", "x", "[]", "{}", "5", R"({"choices":5})", R"({"choices":[5]})", R"({"choices":[{"index":-1}]})",
        R"({"choices":[{"index":99999999}]})", R"({"choices":[{"delta":{"content":{}}}]})", R"({"choices":[{"delta":{"tool_calls":[5]}}]})",
        R"({"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":"x"}}]}}]})",
        R"({"choices":[{"delta":{"tool_calls":[{"id":"a","function":{"name":"f","arguments":5}}]}}]})"}) {
    const auto result = decoded({chunk});
    ASSERT_FALSE(result) << chunk;
    EXPECT_EQ(result.error().code, ErrorCode::upstream_failed) << chunk;
  }
}

TEST(StreamDecoder, TextAfterTheFinishWouldBeLost) {
  EXPECT_FALSE(decoded({delta("{}", "\"stop\""), delta(R"({"content":"late"})")}));
  EXPECT_TRUE(decoded({delta("{}", "\"stop\""), delta(R"({"content":""})", "\"stop\"")}));
}

TEST(StreamDecoder, ErrorChunksOfHearthKeepCodeParamAndWait) {
  Error error{ErrorCode::context_length_exceeded, "5 > 4", "messages", std::chrono::milliseconds(20)};
  EXPECT_EQ(decoded_ok({delta(R"({"content":"a"})"), encode_error(error), delta(R"({"content":"b"})")}),
            "0 text a\nfailed context_length_exceeded 5 > 4 messages 20\n");
}

TEST(StreamDecoder, ErrorChunksOfOthers) {
  EXPECT_EQ(decoded_ok({R"({"error":{"code":503,"message":"Loading model","type":"unavailable_error"}})"}),
            "failed unavailable Loading model  0\n");
  EXPECT_EQ(decoded_ok({R"({"error":"out of memory"})"}), "failed upstream_failed out of memory  0\n");
  EXPECT_NE(decoded_ok({delta(R"({"content":"a"})", "\"abort\"")}).find("failed upstream_failed"), std::string::npos);
}

std::string document(const std::string& body) {
  StreamDecoder decoder;
  chat::Events events;
  if (auto ok = decoder.decode_document(body, events); !ok) return "error: " + ok.error().message;
  return show(events) + (decoder.done() ? "" : "not done");
}

TEST(StreamDecoder, AWholeDocumentIsTheEventsItWouldHaveBeen) {
  EXPECT_EQ(
      document(
          R"({"id":"x","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"Hello","reasoning_content":"hm"},"logprobs":null,"finish_reason":"length"}],"usage":{"prompt_tokens":3,"completion_tokens":2}})"),
      "0 reasoning hm\n0 text Hello\n0 finished 1\nusage 3 0 2\n");
  EXPECT_EQ(
      document(
          R"({"choices":[{"index":0,"message":{"content":null,"tool_calls":[{"id":"a","type":"function","function":{"name":"ls","arguments":"{}"}},{"id":"a","type":"function","function":{"name":"pwd","arguments":{"x":1}}}]},"finish_reason":"tool_calls"}]})"),
      "0 call 0 begin a ls\n0 call 0 delta {}\n0 call 0 end\n0 call 1 begin a pwd\n0 call 1 delta {\"x\":1}\n0 call 1 end\n0 finished 2\n");
  EXPECT_EQ(document(R"({"choices":[{"index":0,"text":"raw"},{"index":1,"text":"too","finish_reason":"stop"}]})"),
            "0 text raw\n1 text too\n1 finished 0\n0 finished 0\n");
}

TEST(StreamDecoder, ADocumentThatIsNoCompletionIsAFailure) {
  EXPECT_EQ(document(R"({"error":{"message":"out of cheese","code":"overloaded"}})"), "failed overloaded out of cheese  0\n");
  EXPECT_EQ(document("{}"), "error: the upstream's answer makes no sense: a completion has no choices");
  EXPECT_EQ(document(R"({"choices":[]})"), "error: the upstream's answer makes no sense: a completion has no choices");
  EXPECT_EQ(document(R"({"choices":[7]})"), "error: the upstream's answer makes no sense: a choice is not an object");
  EXPECT_EQ(document("[]"), "error: the upstream's answer makes no sense: it is not a JSON object");
}

TEST(StreamDecoder, AnySplitOfTheBytesGivesTheSameEvents) {
  AnswerHead head;
  head.id = "i";
  head.model = "m";
  head.include_usage = true;
  head.choices = 2;
  StreamEncoder encoder(head);
  const chat::Events events{chat::TextDelta{0, "h\xC3\xA9\r\n\xF0\x9F\x98\x80"},
                            chat::ReasoningDelta{1, "data: x\n\n"},
                            chat::ToolCallBegin{1, 0, "c", "f"},
                            chat::ToolCallDelta{1, 0, "{\"a\":\"\\n\"}"},
                            chat::ToolCallEnd{1, 0},
                            chat::Finished{1, chat::FinishReason::tool_calls},
                            chat::Finished{0, chat::FinishReason::stop},
                            chat::Usage{1, 0, 2}};
  std::string bytes;
  for (const auto& event : events) {
    encoder.encode(event, bytes);
    net::append_sse_comment(bytes);
  }
  encoder.end(bytes);
  for (std::size_t split = 0; split <= bytes.size(); ++split) {
    net::SseDecoder sse;
    StreamDecoder decoder;
    chat::Events out;
    for (const auto part : {std::string_view(bytes).substr(0, split), std::string_view(bytes).substr(split)}) {
      std::vector<net::SseEvent> fields;
      ASSERT_TRUE(sse.feed(part, fields));
      for (const auto& field : fields) ASSERT_TRUE(decoder.decode(field.data, out));
    }
    ASSERT_TRUE(decoder.done());
    ASSERT_FALSE(sse.pending());
    ASSERT_EQ(show(out), show(events)) << "split at " << split;
  }
}

TEST(DecodeError, OursByNameOthersByStatus) {
  for (int i = 0; i <= static_cast<int>(ErrorCode::io); ++i) {
    const Error ours{static_cast<ErrorCode>(i), "m", "p", std::chrono::milliseconds(i)};
    const Error back = decode_error(500, encode_error(ours));
    EXPECT_EQ(back.code, ours.code);
    EXPECT_EQ(back.message, "m");
    EXPECT_EQ(back.param, "p");
    EXPECT_EQ(back.retry_after, ours.retry_after);
  }
  EXPECT_EQ(decode_error(429, R"({"error":{"message":"slow down","type":"requests","code":"rate_limit_exceeded"}})").code,
            ErrorCode::overloaded);
  EXPECT_EQ(decode_error(400, R"({"error":{"code":400,"message":"too long","type":"exceed_context_size_error","n_ctx":5}})").code,
            ErrorCode::context_length_exceeded);
  EXPECT_EQ(decode_error(400, R"({"object":"error","message":"bad","type":"BadRequestError","code":400})").message, "bad");
  EXPECT_EQ(decode_error(422, R"({"detail":"nope"})").message, "nope");
  EXPECT_EQ(decode_error(404, R"({"error":"model \"x\" not found"})").code, ErrorCode::model_not_found);
  EXPECT_EQ(decode_error(502, "<html>Bad Gateway</html>").code, ErrorCode::upstream_failed);
  EXPECT_FALSE(decode_error(502, "").message.empty());
}

TEST(DecodeAnswers, Embeddings) {
  const chat::Embeddings result{{{1.5F, -0.1F, 3e-8F}, {0, 2, 3.4e38F}}, 9};
  for (const bool base64 : {false, true}) {
    const auto back = decode_embeddings_answer(encode_embeddings(result, "m", base64));
    ASSERT_TRUE(back) << back.error().message;
    EXPECT_EQ(back->vectors, result.vectors);
    EXPECT_EQ(back->prompt_tokens, 9);
  }
  const auto swapped = decode_embeddings_answer(R"({"data":[{"index":1,"embedding":[1]},{"index":0,"embedding":[0]}]})");
  ASSERT_TRUE(swapped);
  EXPECT_EQ(swapped->vectors[1][0], 1.0F);
  for (const char* bad : {"", "[]", "{}", R"({"data":[{}]})", R"({"data":[{"index":1,"embedding":[1]}]})",
                          R"({"data":[{"index":-1,"embedding":[1]}]})", R"({"data":[{"embedding":["x"]}]})",
                          R"({"data":[{"embedding":"AAA="}]})", R"({"data":[{"index":0,"embedding":[]},{"index":0,"embedding":[]}]})"}) {
    EXPECT_FALSE(decode_embeddings_answer(bad)) << bad;
  }
}

TEST(DecodeAnswers, Rerank) {
  chat::RerankRequest request;
  request.documents = {"a", "b"};
  const auto back = decode_rerank_answer(encode_rerank({{{1, 0.75F}, {0, -0.1F}}, 9}, request, "m"));
  ASSERT_TRUE(back);
  ASSERT_EQ(back->items.size(), 2U);
  EXPECT_EQ(back->items[0].index, 1);
  EXPECT_EQ(back->items[1].score, -0.1F);
  for (const char* bad : {"{}", R"({"results":[{"index":0}]})", R"({"results":[{"relevance_score":0}]})",
                          R"({"results":[{"index":-1,"relevance_score":0}]})"}) {
    EXPECT_FALSE(decode_rerank_answer(bad)) << bad;
  }
}

TEST(DecodeAnswers, Models) {
  chat::ModelInfo model{.id = "a/b",
                        .created = 5,
                        .architecture = "llama",
                        .parameters = 3'500'000,
                        .bytes = 7'000'000'000,
                        .context = 4096,
                        .embeddings = true,
                        .rerank = true};
  const auto back = decode_models_answer(encode_models({model}));
  ASSERT_TRUE(back);
  EXPECT_EQ(encode_models(*back), encode_models({model}));
  const auto vllm = decode_models_answer(
      R"({"object":"list","data":[{"id":"q","object":"model","created":1,"owned_by":"vllm","max_model_len":8192,"permission":[]}]})");
  ASSERT_TRUE(vllm);
  EXPECT_EQ((*vllm)[0].context, 8192);
  EXPECT_TRUE((*vllm)[0].chat);
  EXPECT_FALSE(decode_models_answer(R"({"data":[{}]})"));
}

TEST(DecodeAnswers, CountAndScore) {
  EXPECT_EQ(decode_count_answer(encode_count(12)).value(), 12);
  EXPECT_FALSE(decode_count_answer(R"({"tokens":-1})"));
  chat::TokenInfo token;
  token.chosen = {3, "\xC3", -0.1F};
  token.top = {{4, "x", -0.05F}};
  token.entropy = 1.25F;
  const auto back = decode_score_answer(encode_score({token}));
  ASSERT_TRUE(back);
  EXPECT_EQ(show(chat::Events{(*back)[0]}), show(chat::Events{token}));
  EXPECT_FALSE(decode_score_answer("{}"));
}

}  // namespace
}  // namespace hearth::wire::openai
