// The link between gateway and worker: whatever one end writes, the other reads back unchanged. Random requests and answers, seed printed.
#include <gtest/gtest.h>

#include "net/sse.h"
#include "wire/openai.h"
#include "wire/random.h"
#include "wire/show.h"

namespace hearth::wire::openai {
namespace {

chat::Message random_message(Random& random) {
  chat::Message out;
  out.role = static_cast<chat::Role>(random.below(4));
  const std::size_t parts = random.below(4);
  for (std::size_t i = 0; i < parts; ++i) {
    chat::ContentPart part;
    if (random.once_in(4)) {
      part.kind = chat::ContentPart::Kind::image;
      if (random.coin()) part.url = "https://" + random.text();
      else part.media_type = "image/" + random.word(), part.data = random.word();
    } else {
      part.text = random.text();
    }
    out.content.push_back(std::move(part));
  }
  if (random.once_in(4)) out.name = random.text();
  if (out.role == chat::Role::tool) out.tool_call_id = random.text();
  if (out.role == chat::Role::assistant) {
    if (random.coin()) out.reasoning = random.text();
    for (std::size_t n = random.below(3); n > 0; --n)
      out.tool_calls.push_back({random.text(), random.text(), random.coin() ? random.text() : ""});
  }
  return out;
}

std::vector<chat::RawPrompt> random_prompts(Random& random) {
  std::vector<chat::RawPrompt> out(1 + random.below(3));
  for (auto& prompt : out) {
    if (random.coin()) prompt.text = random.text();
    else
      for (std::size_t n = 1 + random.below(4); n > 0; --n) prompt.tokens.push_back(random.integer(0, 2'147'483'647));
  }
  return out;
}

chat::Request random_request(Random& random) {
  chat::Request out;
  if (random.coin()) out.model = random.text();
  if (random.once_in(3)) {
    out.prompts = random_prompts(random);
    out.echo = random.coin();
  } else {
    std::vector<std::string> called;
    for (std::size_t n = 1 + random.below(4); n > 0; --n) {
      auto message = random_message(random);
      for (const auto& call : message.tool_calls) called.push_back(call.id);
      if (message.role == chat::Role::tool) {
        if (called.empty()) continue;
        message.tool_call_id = called[random.below(called.size())];
      }
      out.messages.push_back(std::move(message));
    }
    if (out.messages.empty()) out.messages.push_back({.role = chat::Role::user});
    for (std::size_t n = random.below(3); n > 0; --n) {
      out.tools.push_back(
          {random.text(), random.coin() ? random.text() : "", random.coin() ? "{}" : R"({"type":"object","properties":{"b":{},"a":{}}})"});
    }
    if (!out.tools.empty()) {
      out.tool_choice.mode = static_cast<chat::ToolChoice::Mode>(random.below(4));
      if (out.tool_choice.mode == chat::ToolChoice::Mode::named) out.tool_choice.name = out.tools.back().name;
    }
    out.parallel_tool_calls = random.coin();
  }
  out.format.kind = static_cast<chat::OutputFormat::Kind>(random.below(4));
  if (out.format.kind == chat::OutputFormat::Kind::json_schema) out.format.schema = R"({"type":"object","z":[1,2.5]})";
  if (out.format.kind == chat::OutputFormat::Kind::gbnf) out.format.schema = random.text();
  auto& sampling = out.sampling;
  random.maybe(sampling.temperature, random.between(0, 2));
  random.maybe(sampling.top_p, random.between(0.001F, 1));
  random.maybe(sampling.min_p, random.between(0, 1));
  random.maybe(sampling.top_k, random.integer(-1, 1000));
  random.maybe(sampling.presence_penalty, random.between(-2, 2));
  random.maybe(sampling.frequency_penalty, random.between(-2, 2));
  random.maybe(sampling.repeat_penalty, random.between(0.001F, 3));
  random.maybe(sampling.seed, static_cast<std::uint32_t>(random.below(1ULL << 32)));
  std::int32_t token = 0;
  for (std::size_t n = random.below(4); n > 0; --n)
    sampling.logit_bias.emplace_back(token += 1 + random.integer(0, 100'000), random.between(-100, 100));
  for (std::size_t n = random.below(17); n > 0; --n) sampling.stop.push_back(random.text());
  if (random.coin()) out.choices = random.integer(1, 16);
  random.maybe(out.max_tokens, random.integer(1, 2'147'483'647));
  random.maybe(out.top_logprobs, random.integer(0, 20));
  out.ignore_eos = random.coin();
  out.priority = random.coin() ? chat::Priority::background : chat::Priority::interactive;
  random.maybe(out.time_limit, std::chrono::milliseconds(random.integer(1, 100'000'000)));
  out.stream = out.include_usage = true;  // between hearth's own processes always
  return out;
}

TEST(RoundTrip, Requests) {
  Random random;
  for (int i = 0; i < 3'000; ++i) {
    const chat::Request request = random_request(random);
    const std::string body = encode_request(request);
    const auto back = request.prompts.empty() ? decode_chat(body) : decode_completion(body);
    ASSERT_TRUE(back) << back.error().message << " in " << body;
    ASSERT_EQ(json::serialize(show(*back)), json::serialize(show(request))) << body;
    const auto either = decode_chat_or_completion(body);
    ASSERT_TRUE(either);
    ASSERT_EQ(json::serialize(show(*either)), json::serialize(show(request)));
  }
}

TEST(RoundTrip, EmbeddingAndRerankRequests) {
  Random random;
  for (int i = 0; i < 500; ++i) {
    chat::EmbeddingRequest embedding;
    if (random.coin()) embedding.model = random.text();
    embedding.inputs = random_prompts(random);
    random.maybe(embedding.dimensions, random.integer(1, 4096));
    embedding.base64 = random.coin();
    const auto back = decode_embeddings(encode_embedding_request(embedding));
    ASSERT_TRUE(back) << back.error().message;
    ASSERT_EQ(show(*back), show(embedding));

    chat::RerankRequest rerank;
    if (random.coin()) rerank.model = random.text();
    rerank.query = random.text();
    for (std::size_t n = 1 + random.below(3); n > 0; --n) rerank.documents.push_back(random.text());
    random.maybe(rerank.top_n, random.integer(1, 9));
    rerank.return_documents = random.coin();
    const auto ranked = decode_rerank(encode_rerank_request(rerank));
    ASSERT_TRUE(ranked) << ranked.error().message;
    ASSERT_EQ(show(*ranked), show(rerank));
  }
}

chat::TokenInfo random_token(Random& random, int choice) {
  chat::TokenInfo out;
  out.choice = choice;
  const auto token = [&] { return chat::TokenProbability{random.integer(-1, 200'000), random.bytes(), -random.between(0, 30)}; };
  out.chosen = token();
  for (std::size_t n = random.below(4); n > 0; --n) out.top.push_back(token());
  out.entropy = random.between(0, 12);
  return out;
}

// The items of one choice, in an order that the event grammar allows.
chat::Events random_choice(Random& random, int choice, bool raw, bool logprobs) {
  chat::Events out;
  const auto tokens = [&] {
    if (!logprobs) return;
    for (std::size_t n = random.below(3); n > 0; --n) out.emplace_back(random_token(random, choice));
  };
  int calls = 0;
  for (std::size_t n = random.below(6); n > 0; --n) {
    const std::size_t kind = raw ? 0 : random.below(3);
    if (kind == 2) {
      out.emplace_back(chat::ToolCallBegin{choice, calls, random.text(), random.text()});
      for (std::size_t deltas = random.below(4); deltas > 0; --deltas) {
        tokens();
        out.emplace_back(chat::ToolCallDelta{choice, calls, random.text()});
      }
      out.emplace_back(chat::ToolCallEnd{choice, calls++});
    } else {
      tokens();
      if (kind == 1) out.emplace_back(chat::ReasoningDelta{choice, random.text()});
      else out.emplace_back(chat::TextDelta{choice, random.text()});
    }
  }
  tokens();
  const auto reason = random.once_in(3)   ? chat::FinishReason::length
                      : random.once_in(4) ? chat::FinishReason::content_filter
                      : calls > 0         ? chat::FinishReason::tool_calls
                                          : chat::FinishReason::stop;
  out.emplace_back(chat::Finished{choice, reason});
  return out;
}

TEST(RoundTrip, Answers) {
  Random random;
  for (int i = 0; i < 3'000; ++i) {
    AnswerHead head;
    head.id = random.text();
    head.model = random.text();
    head.created = random.integer(0, 2'000'000'000);
    head.raw = random.once_in(4);
    head.include_usage = true;
    head.logprobs = random.coin();
    head.choices = random.integer(1, 4);
    // Choices are shuffled together; a call's parts and the tokens before a delta stay together, as one engine tick emits them.
    std::vector<chat::Events> waiting;
    for (int c = 0; c < head.choices; ++c) waiting.push_back(random_choice(random, c, head.raw, head.logprobs));
    chat::Events events;
    const auto sticks = [](const chat::Event& event) {
      return !std::holds_alternative<chat::TextDelta>(event) && !std::holds_alternative<chat::ReasoningDelta>(event) &&
             !std::holds_alternative<chat::Finished>(event);
    };
    while (!waiting.empty()) {
      auto& from = waiting[random.below(waiting.size())];
      bool more = true;
      while (more) {
        more = sticks(from.front());
        events.push_back(std::move(from.front()));
        from.erase(from.begin());
      }
      std::erase_if(waiting, [](const chat::Events& left) { return left.empty(); });
    }
    const bool fails = random.once_in(5);
    if (fails) {
      std::size_t at = random.below(events.size());
      while (at > 0 && sticks(events[at - 1])) --at;  // an open call and tokens without their delta would not be sent
      events.resize(at);
      events.emplace_back(chat::Failed{{static_cast<ErrorCode>(random.below(static_cast<std::size_t>(ErrorCode::io) + 1)), random.text(),
                                        random.coin() ? random.text() : "", std::chrono::milliseconds(random.below(5'000))}});
    } else {
      events.emplace_back(chat::Usage{random.integer(0, 100'000), random.integer(0, 100'000), random.integer(0, 100'000)});
    }

    StreamEncoder encoder(head);
    std::string bytes;
    for (const auto& event : events) encoder.encode(event, bytes);
    encoder.end(bytes);
    net::SseDecoder sse;
    std::vector<net::SseEvent> fields;
    ASSERT_TRUE(sse.feed(bytes, fields));
    StreamDecoder decoder;
    chat::Events back;
    for (const auto& field : fields) {
      const auto ok = decoder.decode(field.data, back);
      ASSERT_TRUE(ok) << ok.error().message << " in " << field.data;
    }
    ASSERT_TRUE(decoder.done());
    ASSERT_TRUE(decoder.finish(back));
    ASSERT_EQ(show(back), show(events)) << bytes;
  }
}

// Chunks of plain text are read without the parser. A leading line break, which JSON allows, sends the same chunk to the parser.
TEST(RoundTrip, TheShortWayGivesWhatTheParserGives) {
  const std::vector<std::string> seeds{
      R"({"id":"c","object":"chat.completion.chunk","created":17,"model":"m","choices":[{"index":0,"delta":{"content":"wörds in which most of the changes fall, as they do in a stream"},"finish_reason":null}]})",
      R"({"choices": [{"index": 1, "delta": {"role": "assistant", "content": null}, "logprobs": null}], "usage": null})",
      R"({"id":"c","choices":[{"text":"a b","index":0,"logprobs":null,"finish_reason":null}],"error":null})",
      R"({"choices":[{"delta":{"content":"a\n\u00e9","reasoning_content":null},"index":0,"stop_reason":null}],"usage":{"prompt_tokens":1}})",
      R"({"choices":[{"delta":{"tool_calls":[{"function":{"name":"f","arguments":"{}"}}]}}]})",
      R"({"choices":[{"delta":{},"finish_reason":"stop"}]})"};
  const std::vector<std::string> pieces{"\"",
                                        "\\",
                                        "{",
                                        "}",
                                        "[",
                                        "]",
                                        ",",
                                        ":",
                                        " ",
                                        "null",
                                        "0",
                                        "-1",
                                        "1.5",
                                        "01",
                                        "true",
                                        "\xC3\xA9",
                                        "\xFF",
                                        "\x01",
                                        "\"index\"",
                                        "\"text\":\"x\",",
                                        "\"content\":\"y\",",
                                        "\"delta\":",
                                        "\"error\":",
                                        "99999999999",
                                        "\\n",
                                        "\\t\\r\\b\\f",
                                        "\\\"",
                                        "\\\\",
                                        "\\/",
                                        "\\u00e9",
                                        "\\x",
                                        ""};
  Random random;
  for (int round = 0; round < 20'000; ++round) {
    StreamDecoder one, other;
    std::string shown[2];
    std::size_t seed = 0;
    for (int chunk = 0; chunk < 5; ++chunk) {
      if (random.coin()) seed = random.below(seeds.size());
      std::string text = seeds[seed];
      for (auto changes = random.below(4); changes > 0; --changes) {
        text.replace(random.below(text.size()), random.below(3), pieces[random.below(pieces.size())]);
      }
      chat::Events events[2];
      const bool ok = one.decode(text, events[0]).ok();
      ASSERT_EQ(ok, other.decode("\n" + text, events[1]).ok()) << text;
      if (!ok) break;
      for (int i = 0; i < 2; ++i) shown[i] += show(events[i]) + "\n";
      // Ids that an upstream left out are made up, every time anew.
      if (shown[0].find("call_") == std::string::npos) ASSERT_EQ(shown[0], shown[1]) << text;
    }
  }
}

}  // namespace
}  // namespace hearth::wire::openai
