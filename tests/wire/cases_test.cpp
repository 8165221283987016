// Runs tests/cases/PROTOCOL/*.json. Each file is a list of cases: name; kind (which decoder, see decode_as); the request as `body`
// (JSON) or `text` (verbatim); and either `expect`, fields that the decoded request must have (null: must not have), or `error`: code (default
// invalid_request), param, and a part of the message.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>

#include "base/json.h"
#include "wire/anthropic.h"
#include "wire/ollama.h"
#include "wire/openai.h"
#include "wire/responses.h"
#include "wire/show.h"

namespace hearth::wire {
namespace {

Result<json::object> decode_as(std::string_view kind, std::string_view body) {
  const auto shown = [](auto decoded) -> Result<json::object> {
    if (!decoded) return std::move(decoded).error();
    return show(*decoded);
  };
  if (kind == "chat") return shown(openai::decode_chat(body));
  if (kind == "completion") return shown(openai::decode_completion(body));
  if (kind == "embeddings") return shown(openai::decode_embeddings(body));
  if (kind == "rerank") return shown(openai::decode_rerank(body));
  if (kind == "messages" || kind == "count") {
    const auto decoded = kind == "count" ? anthropic::decode_count(body) : anthropic::decode_messages(body);
    if (!decoded) return decoded.error();
    json::object out = show(decoded->request);
    for (const auto& [what, why] : decoded->explanation.decisions) out[what] = why;
    return out;
  }
  const auto loading = [](const auto& decoded) -> Result<json::object> {
    if (!decoded) return decoded.error();
    json::object out = show(decoded->request);
    if (decoded->load) out["load"] = true;
    if (decoded->context) out["context"] = *decoded->context;
    return out;
  };
  if (kind == "ollama chat") return loading(ollama::decode_chat(body));
  if (kind == "ollama generate") return loading(ollama::decode_generate(body));
  if (kind == "ollama embed") return loading(ollama::decode_embed(body));
  if (kind == "ollama embeddings") return loading(ollama::decode_embeddings(body));
  if (kind == "responses") {
    const auto decoded = responses::decode_create(body);
    if (!decoded) return decoded.error();
    json::object out = show(decoded->request);
    if (decoded->summary) out["summary"] = true;
    for (const auto& [what, why] : decoded->explanation.decisions) out[what] = why;
    return out;
  }
  return internal_error("the case has an unknown kind");
}

void run_case(const json::object& test) {
  const std::string body = test.contains("text") ? std::string(test.at("text").as_string()) : json::serialize(test.at("body"));
  const auto decoded = decode_as(test.at("kind").as_string(), body);
  if (const auto* error = test.if_contains("error")) {
    ASSERT_FALSE(decoded) << "was accepted as " << json::serialize(*decoded);
    const auto& expected = error->as_object();
    const auto* code = expected.if_contains("code");
    EXPECT_EQ(name(decoded.error().code), code != nullptr ? std::string_view(code->as_string()) : "invalid_request");
    EXPECT_EQ(decoded.error().param, std::string_view(expected.at("param").as_string()));
    EXPECT_NE(decoded.error().message.find(std::string_view(expected.at("message").as_string())), std::string::npos)
        << decoded.error().message;
    return;
  }
  ASSERT_TRUE(decoded) << decoded.error().message;
  for (const auto& [key, value] : test.at("expect").as_object()) {
    const auto* got = decoded->if_contains(key);
    if (value.is_null()) EXPECT_EQ(got, nullptr) << key << " is " << json::serialize(*got);
    else if (got == nullptr) ADD_FAILURE() << key << " is missing in " << json::serialize(*decoded);
    else EXPECT_EQ(*got, value) << key << " is " << json::serialize(*got) << ", not " << json::serialize(value);
  }
}

class Cases : public ::testing::TestWithParam<const char*> {};

TEST_P(Cases, All) {
  std::size_t ran = 0;
  for (const auto& entry : std::filesystem::directory_iterator(std::string(HEARTH_SOURCE_DIR "/tests/cases/") + GetParam())) {
    std::ifstream file(entry.path());
    const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
    const auto cases = parse_json(text);
    ASSERT_TRUE(cases) << entry.path() << ": " << cases.error().message;
    for (const auto& test : cases->as_array()) {
      SCOPED_TRACE(entry.path().filename().string() + ": " + std::string(test.at("name").as_string()));
      run_case(test.as_object());
      ++ran;
    }
  }
  EXPECT_GT(ran, 40U) << "the cases were not found";
}
INSTANTIATE_TEST_SUITE_P(Wire, Cases, ::testing::Values("anthropic", "openai", "responses", "ollama"));

// What a JSON file cannot hold.

TEST(OpenAiRequests, BrokenUtf8IsNamed) {
  const auto decoded = openai::decode_chat("{\"messages\":[{\"role\":\"user\",\"content\":\"caf\xE9\"}]}");
  ASSERT_FALSE(decoded);
  EXPECT_EQ(decoded.error().code, ErrorCode::invalid_request);
  EXPECT_NE(decoded.error().message.find("UTF-8"), std::string::npos);
}

TEST(OpenAiRequests, ATenMegabytePromptArrivesWhole) {
  const std::string text(10'000'000, 'p');
  const auto chat = openai::decode_chat("{\"messages\":[{\"role\":\"user\",\"content\":\"" + text + "\"}]}");
  ASSERT_TRUE(chat);
  EXPECT_TRUE(chat->messages[0].text() == text);
  const auto completion = openai::decode_completion("{\"prompt\":\"" + text + "\"}");
  ASSERT_TRUE(completion);
  EXPECT_TRUE(completion->prompts[0].text == text);
}

TEST(OpenAiRequests, AMessageOfAHundredThousandPartsIsReadInOneGo) {
  std::string body = R"({"messages":[{"role":"user","content":[)";
  for (int i = 0; i < 100'000; ++i) body += std::string(i > 0 ? "," : "") + R"({"type":"text","text":"x"})";
  const auto decoded = openai::decode_chat(body + "]}]}");
  ASSERT_TRUE(decoded);
  EXPECT_EQ(decoded->messages[0].content.size(), 100'000U);
}

TEST(OpenAiRequests, AnErrorMessageStaysShortWhateverTheValue) {
  const auto decoded = openai::decode_chat(R"({"messages":[{"role":")" + std::string(1'000'000, 'x') + R"(","content":""}]})");
  ASSERT_FALSE(decoded);
  EXPECT_LT(decoded.error().message.size(), 300U);
}

}  // namespace
}  // namespace hearth::wire
