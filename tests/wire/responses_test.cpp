// What an answer of the Responses API looks like, event by event, and how the endpoint serves it. Requests are in tests/cases/responses.
#include "wire/responses.h"

#include <gtest/gtest.h>

#include "net/sse.h"
#include "wire/endpoint_harness.h"

namespace hearth::wire::responses {
namespace {

using chat::FinishReason;

std::vector<json::object> read_events(const std::string& frames) {
  net::SseDecoder sse;
  std::vector<net::SseEvent> fields;
  EXPECT_TRUE(sse.feed(frames, fields));
  EXPECT_FALSE(sse.pending());
  std::vector<json::object> out;
  for (const auto& field : fields) {
    const auto parsed = parse_json(field.data);
    EXPECT_TRUE(parsed) << field.data;
    if (!parsed) continue;
    out.push_back(parsed->as_object());
    EXPECT_EQ(out.back().at("type").as_string(), field.event);
    EXPECT_EQ(out.back().at("sequence_number").as_int64(), static_cast<std::int64_t>(out.size()) - 1);
  }
  return out;
}

std::vector<json::object> streamed(const chat::Events& events, bool summary = false) {
  StreamEncoder encoder({.id = "resp_1", .created = 7, .model = "m", .echo = R"(,"tools":[])", .summary = summary});
  std::string out;
  for (const auto& event : events) encoder.encode(event, out);
  encoder.end(out);
  return read_events(out);
}

std::vector<std::string> types(const std::vector<json::object>& events) {
  std::vector<std::string> out;
  for (const auto& event : events) out.emplace_back(event.at("type").as_string());
  return out;
}

// Builds the response from its events as SDKs do, and fails where they would: an index that does not exist yet, a delta without its part.
json::array accumulate(const std::vector<json::object>& events) {
  json::array output;
  const auto parts = [&](const json::object& event, const char* list, const char* index) -> json::value& {
    auto& item = output.at(static_cast<std::size_t>(event.at("output_index").as_int64())).as_object();
    EXPECT_EQ(item.at("id"), event.at("item_id"));
    return item[list].as_array().at(static_cast<std::size_t>(event.at(index).as_int64()));
  };
  for (const auto& event : events) {
    const std::string type(event.at("type").as_string());
    const auto item = [&]() -> json::object& {
      return output.at(static_cast<std::size_t>(event.at("output_index").as_int64())).as_object();
    };
    if (type == "response.output_item.added") {
      EXPECT_EQ(event.at("output_index").as_int64(), static_cast<std::int64_t>(output.size()));
      output.push_back(event.at("item"));
    } else if (type == "response.content_part.added") {
      item()["content"].as_array().push_back(event.at("part"));
    } else if (type == "response.reasoning_summary_part.added") {
      item()["summary"].as_array().push_back(event.at("part"));
    } else if (type == "response.output_text.delta" || type == "response.reasoning_text.delta") {
      auto& text = parts(event, "content", "content_index").as_object()["text"].as_string();
      text += event.at("delta").as_string();
    } else if (type == "response.reasoning_summary_text.delta") {
      auto& text = parts(event, "summary", "summary_index").as_object()["text"].as_string();
      text += event.at("delta").as_string();
    } else if (type == "response.function_call_arguments.delta") {
      item()["arguments"].as_string() += event.at("delta").as_string();
    } else if (type == "response.function_call_arguments.done") {
      EXPECT_EQ(item()["arguments"], event.at("arguments"));
    } else if (type == "response.output_item.done") {
      auto done = event.at("item").as_object();
      auto built = item();
      built["status"] = done.at("status");
      if (done.contains("encrypted_content")) built["encrypted_content"] = done.at("encrypted_content");
      EXPECT_EQ(built, done) << "the item is what its events added up to";
      item() = done;
    }
  }
  return output;
}

TEST(ResponsesStream, TextComesInTheOrderClientsKnow) {
  const auto events =
      streamed({chat::Started{5, 2}, chat::TextDelta{0, "a\n"}, chat::TextDelta{0, "b"}, chat::Finished{0, FinishReason::stop},
                chat::Usage{.prompt_tokens = 5, .cached_tokens = 2, .completion_tokens = 3, .reasoning_tokens = 1}});
  EXPECT_EQ(types(events), (std::vector<std::string>{"response.created", "response.in_progress", "response.output_item.added",
                                                     "response.content_part.added", "response.output_text.delta",
                                                     "response.output_text.delta", "response.output_text.done",
                                                     "response.content_part.done", "response.output_item.done", "response.completed"}));
  const auto& created = events[0].at("response").as_object();
  EXPECT_EQ(created.at("status").as_string(), "in_progress");
  EXPECT_TRUE(created.at("output").as_array().empty());
  EXPECT_TRUE(created.at("usage").is_null());
  EXPECT_EQ(events[6].at("text").as_string(), "a\nb");
  const auto& last = events.back().at("response").as_object();
  EXPECT_EQ(last.at("id").as_string(), "resp_1");
  EXPECT_EQ(last.at("object").as_string(), "response");
  EXPECT_EQ(last.at("created_at").as_int64(), 7);
  EXPECT_EQ(last.at("status").as_string(), "completed");
  EXPECT_TRUE(last.at("error").is_null());
  EXPECT_TRUE(last.at("incomplete_details").is_null());
  EXPECT_TRUE(last.at("tools").as_array().empty()) << "the request's fields are repeated";
  EXPECT_EQ(
      json::serialize(last.at("usage")),
      R"({"input_tokens":5,"input_tokens_details":{"cached_tokens":2},"output_tokens":3,"output_tokens_details":{"reasoning_tokens":1},"total_tokens":8})");
  EXPECT_EQ(last.at("output").as_array(), accumulate(events));
  EXPECT_EQ(last.at("output").at(0).at("content").at(0).at("text").as_string(), "a\nb");
}

TEST(ResponsesStream, ReasoningTextAndCallsAreItemsOfTheirOwn) {
  const auto events =
      streamed({chat::ReasoningDelta{0, "hm"}, chat::ReasoningSignature{0, "sig"}, chat::TextDelta{0, "look"},
                chat::ToolCallBegin{0, 0, "call_1", "bash"}, chat::ToolCallDelta{0, 0, "{\"a\""}, chat::ToolCallDelta{0, 0, ":1}"},
                chat::ToolCallEnd{0, 0}, chat::TextDelta{0, "done"}, chat::Finished{0, FinishReason::tool_calls}, chat::Usage{}});
  const auto output = accumulate(events);
  ASSERT_EQ(output.size(), 4U);
  EXPECT_EQ(output.at(0).at("type").as_string(), "reasoning");
  EXPECT_EQ(output.at(0).at("content").at(0).at("text").as_string(), "hm");
  EXPECT_EQ(output.at(0).at("encrypted_content").as_string(), "sig");
  EXPECT_EQ(output.at(1).at("content").at(0).at("text").as_string(), "look");
  EXPECT_EQ(output.at(2).at("call_id").as_string(), "call_1");
  EXPECT_EQ(output.at(2).at("name").as_string(), "bash");
  EXPECT_EQ(output.at(2).at("arguments").as_string(), R"({"a":1})");
  EXPECT_EQ(output.at(2).at("status").as_string(), "completed");
  EXPECT_EQ(output.at(3).at("content").at(0).at("text").as_string(), "done");
  EXPECT_EQ(events.back().at("response").at("output").as_array(), output);
  EXPECT_EQ(events.back().at("type").as_string(), "response.completed");
}

TEST(ResponsesStream, ReasoningGoesOutAsASummaryWhereOneWasAskedFor) {
  const auto events = streamed({chat::ReasoningDelta{0, "h"}, chat::ReasoningDelta{0, "m"}, chat::Finished{0, FinishReason::stop}}, true);
  EXPECT_EQ(types(events),
            (std::vector<std::string>{"response.created", "response.in_progress", "response.output_item.added",
                                      "response.reasoning_summary_part.added", "response.reasoning_summary_text.delta",
                                      "response.reasoning_summary_text.delta", "response.reasoning_summary_text.done",
                                      "response.reasoning_summary_part.done", "response.output_item.done", "response.completed"}));
  EXPECT_EQ(accumulate(events).at(0).at("summary").at(0).at("text").as_string(), "hm");
}

TEST(ResponsesStream, MixedFragmentsOfCallsKeepTheirPlaces) {
  const auto events =
      streamed({chat::ToolCallBegin{0, 0, "c0", "f"}, chat::ToolCallBegin{0, 1, "c1", "g"}, chat::ToolCallDelta{0, 1, "{\"b\""},
                chat::ToolCallDelta{0, 0, "{}"}, chat::TextDelta{0, "between"}, chat::ToolCallDelta{0, 1, ":2}"}, chat::ToolCallEnd{0, 0},
                chat::ToolCallEnd{0, 1}, chat::Finished{0, FinishReason::tool_calls}, chat::Usage{}});
  const auto output = accumulate(events);
  ASSERT_EQ(output.size(), 3U);
  EXPECT_EQ(output.at(0).at("arguments").as_string(), "{}");
  EXPECT_EQ(output.at(1).at("arguments").as_string(), R"({"b":2})");
  EXPECT_EQ(output.at(2).at("content").at(0).at("text").as_string(), "between");
}

TEST(ResponsesStream, TwoSignedBlocksAreTwoItems) {
  const auto output =
      accumulate(streamed({chat::ReasoningDelta{0, "a"}, chat::ReasoningSignature{0, "1"}, chat::ReasoningDelta{0, "b"},
                           chat::ReasoningSignature{0, "2"}, chat::ReasoningSignature{0, "3"}, chat::Finished{0, FinishReason::stop}}));
  ASSERT_EQ(output.size(), 3U);
  EXPECT_EQ(output.at(0).at("encrypted_content").as_string(), "1");
  EXPECT_EQ(output.at(1).at("content").at(0).at("text").as_string(), "b");
  EXPECT_EQ(output.at(2).at("encrypted_content").as_string(), "3");
  EXPECT_TRUE(output.at(2).at("content").as_array().empty()) << "a signature alone";
}

TEST(ResponsesStream, AnAnswerThatWasCutOffSaysWhy) {
  const auto cut = streamed({chat::TextDelta{0, "a"}, chat::Finished{0, FinishReason::length}, chat::Usage{1, 0, 1}});
  EXPECT_EQ(cut.back().at("type").as_string(), "response.incomplete");
  const auto& response = cut.back().at("response").as_object();
  EXPECT_EQ(response.at("status").as_string(), "incomplete");
  EXPECT_EQ(response.at("incomplete_details").at("reason").as_string(), "max_output_tokens");
  EXPECT_EQ(response.at("output").at(0).at("status").as_string(), "incomplete");
  const auto filtered = streamed({chat::Finished{0, FinishReason::content_filter}, chat::Usage{}});
  EXPECT_EQ(filtered.back().at("response").at("incomplete_details").at("reason").as_string(), "content_filter");
}

TEST(ResponsesStream, AFailureEndsWithBothEventsThatClientsWaitFor) {
  const Error error{ErrorCode::overloaded, "full \"up\"", "model", {}};
  const auto events = streamed({chat::TextDelta{0, "a"}, chat::Failed{error}, chat::TextDelta{0, "b"}});
  ASSERT_GE(events.size(), 2U);
  const auto& failed = events[events.size() - 2];
  EXPECT_EQ(failed.at("type").as_string(), "response.failed");
  EXPECT_EQ(failed.at("response").at("status").as_string(), "failed");
  EXPECT_EQ(failed.at("response").at("error").at("code").as_string(), "rate_limit_exceeded");
  EXPECT_EQ(failed.at("response").at("error").at("message").as_string(), "full \"up\"");
  EXPECT_EQ(failed.at("response").at("output").at(0).at("status").as_string(), "incomplete");
  const auto& last = events.back();
  EXPECT_EQ(last.at("type").as_string(), "error");
  EXPECT_EQ(last.at("message").as_string(), "full \"up\"");
  EXPECT_EQ(last.at("code").as_string(), "overloaded");
  EXPECT_EQ(last.at("param").as_string(), "model");
  EXPECT_EQ(last.at("error").at("type").as_string(), "rate_limit_error") << "where SDKs look";
}

TEST(ResponsesStream, AnAnswerThatBreaksOffOrFailsAtTheEndIsNotComplete) {
  for (const auto& events : {streamed({chat::TextDelta{0, "a"}}), streamed({}),
                             streamed({chat::TextDelta{0, "a"}, chat::Finished{0, FinishReason::stop},
                                       chat::Failed{{ErrorCode::upstream_failed, "gone", "", {}}}})}) {
    const auto names = types(events);
    EXPECT_EQ(names.front(), "response.created");
    EXPECT_EQ(names.back(), "error");
    EXPECT_EQ(std::count(names.begin(), names.end(), "response.completed"), 0);
  }
}

TEST(ResponsesStream, OtherChoicesAndStragglersAreIgnored) {
  const auto events = streamed({chat::TextDelta{1, "x"}, chat::ToolCallDelta{0, 3, "x"}, chat::ToolCallEnd{0, 3}, chat::TextDelta{0, ""},
                                chat::Finished{0, FinishReason::stop}, chat::TextDelta{0, "late"}, chat::Usage{}});
  EXPECT_EQ(types(events), (std::vector<std::string>{"response.created", "response.in_progress", "response.completed"}));
}

TEST(ResponsesStream, ASilentStartIsOpenedBeforeTheFirstComment) {
  StreamEncoder encoder({.id = "resp_1", .model = "m"});
  std::string out;
  encoder.keep_alive(out);
  EXPECT_TRUE(out.ends_with("\n\n:\n\n"));
  const std::size_t opened = out.size();
  encoder.keep_alive(out);
  EXPECT_EQ(out.substr(opened), ":\n\n");
  encoder.encode(chat::Finished{0, FinishReason::stop}, out);
  encoder.end(out);
  EXPECT_EQ(types(read_events(out)), (std::vector<std::string>{"response.created", "response.in_progress", "response.completed"}));
}

TEST(ResponsesWhole, TheDocumentIsWhatTheStreamEndsWith) {
  const chat::Events events{chat::ReasoningDelta{0, "hm"},
                            chat::TextDelta{0, "a"},
                            chat::ToolCallBegin{0, 0, "c0", "f"},
                            chat::ToolCallDelta{0, 0, "{}"},
                            chat::ToolCallEnd{0, 0},
                            chat::Finished{0, FinishReason::tool_calls},
                            chat::Usage{4, 1, 2}};
  AnswerCollector collector(1);
  for (const auto& event : events) collector.add(event);
  const auto parsed = parse_json(encode_answer({.id = "resp_1", .created = 7, .model = "m", .echo = R"(,"tools":[])"}, collector.answer()));
  ASSERT_TRUE(parsed);
  auto whole = parsed->as_object();
  auto last = streamed(events).back().at("response").as_object();
  for (auto* response : {&whole, &last}) {
    for (auto& item : response->at("output").as_array()) item.as_object().erase("id");
  }
  EXPECT_EQ(whole, last);
}

TEST(ResponsesEcho, AResponseRepeatsWhatWasAsked) {
  const auto decoded = decode_create(
      R"({"input":"hi","instructions":"be brief","metadata":{"k":"v"},"temperature":0.5,"store":true,"truncation":"auto",
          "tools":[{"type":"web_search"},{"type":"function","name":"f","parameters":{"b":1,"a":2}}],"reasoning":{"effort":"high","summary":"auto"}})");
  ASSERT_TRUE(decoded);
  const auto parsed = parse_json(encode_answer({.id = "r", .model = "m", .echo = decoded->echo}, Answer{.choices = {{}}, .usage = {}}));
  ASSERT_TRUE(parsed) << decoded->echo;
  const auto& response = parsed->as_object();
  EXPECT_EQ(response.at("instructions").as_string(), "be brief");
  EXPECT_EQ(response.at("metadata").at("k").as_string(), "v");
  EXPECT_EQ(json::serialize(response.at("tools")), R"([{"type":"function","name":"f","parameters":{"b":1,"a":2}}])");
  EXPECT_EQ(response.at("reasoning").at("effort").as_string(), "high");
  EXPECT_EQ(response.at("temperature").as_double(), 0.5);
  EXPECT_TRUE(response.at("top_p").is_null());
  EXPECT_EQ(response.at("tool_choice").as_string(), "auto");
  EXPECT_TRUE(response.at("parallel_tool_calls").as_bool());
  EXPECT_FALSE(response.at("store").as_bool()) << "nothing is stored";
  EXPECT_EQ(response.at("truncation").as_string(), "disabled") << "nothing is cut";
  EXPECT_EQ(response.at("text").at("format").at("type").as_string(), "text");
}

using ResponsesEndpoint = EndpointTest;

TEST_F(ResponsesEndpoint, AnswersWhole) {
  ask("POST", "/v1/responses", R"({"input":"hi","tools":[{"type":"web_search"}]})");
  provider.batches = {text("a"), text("b"), end()};
  EXPECT_TRUE(run());
  EXPECT_EQ(exchange.status, 200);
  EXPECT_EQ(exchange.header("content-type"), "application/json");
  EXPECT_EQ(exchange.header("x-hearth-tools-left-out"), "web_search");
  const auto answer = exchange.document();
  EXPECT_TRUE(answer.at("id").as_string().starts_with("resp_"));
  EXPECT_GT(answer.at("created_at").as_int64(), 1'700'000'000);
  EXPECT_EQ(answer.at("model").as_string(), "nano");
  EXPECT_EQ(answer.at("output").at(0).at("content").at(0).at("text").as_string(), "ab");
  EXPECT_EQ(answer.at("usage").at("total_tokens").as_int64(), 5);
  EXPECT_EQ(provider.seen.tenant, "ann");
}

TEST_F(ResponsesEndpoint, StreamsEachBatchInOneWrite) {
  ask("POST", "/v1/responses", R"({"input":"hi","stream":true})");
  provider.batches = {{chat::TextDelta{0, "a"}, chat::TextDelta{0, "b"}}, end()};
  EXPECT_TRUE(run());
  EXPECT_EQ(exchange.header("content-type"), "text/event-stream");
  ASSERT_EQ(exchange.writes.size(), 2U);
  const auto events = read_events(exchange.body);
  EXPECT_EQ(events.front().at("response").at("model").as_string(), "nano");
  EXPECT_EQ(events.back().at("type").as_string(), "response.completed");
  EXPECT_TRUE(exchange.finished);
}

TEST_F(ResponsesEndpoint, RefusalsHaveOpenAisShape) {
  ask("POST", "/v1/responses", R"({"input":"hi","previous_response_id":"resp_1"})");
  EXPECT_TRUE(run());
  EXPECT_EQ(exchange.status, 400);
  EXPECT_EQ(exchange.error("param"), "previous_response_id");
  EXPECT_EQ(exchange.error("type"), "invalid_request_error");
  EXPECT_EQ(exchange.error("code"), "unsupported");
  io.restart();
  ask("GET", "/v1/responses");
  EXPECT_TRUE(run());
  EXPECT_EQ(exchange.status, 405);
  EXPECT_EQ(exchange.header("allow"), "POST");
}

TEST_F(ResponsesEndpoint, AFailureBeforeTheFirstEventHasItsProperStatus) {
  ask("POST", "/v1/responses", R"({"input":"hi","stream":true})");
  provider.batches = {failed(ErrorCode::context_length_exceeded)};
  EXPECT_TRUE(run());
  EXPECT_FALSE(exchange.begun());
  EXPECT_EQ(exchange.status, 400);
  EXPECT_EQ(exchange.error("code"), "context_length_exceeded");
}

TEST_F(ResponsesEndpoint, AFailureInMidStreamIsSaid) {
  ask("POST", "/v1/responses", R"({"input":"hi","stream":true})");
  provider.batches = {text("a"), failed(ErrorCode::upstream_failed)};
  EXPECT_TRUE(run());
  EXPECT_EQ(exchange.status, 200);
  const auto names = types(read_events(exchange.body));
  EXPECT_EQ(names.back(), "error");
  EXPECT_TRUE(exchange.finished);
}

TEST_F(ResponsesEndpoint, StoredResponsesAreNotFoundHere) {
  ask("GET", "/v1/responses/resp_1");
  EXPECT_FALSE(run());
}

}  // namespace
}  // namespace hearth::wire::responses
