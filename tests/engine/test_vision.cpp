// Images through a projector: what the engine computes is what llama.cpp's image library computes, whatever it is shared with, cut by or parked for.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "base/base64.h"
#include "engine/engine_fixture.h"
#include "engine/llama_decoder.h"
#include "engine/picture.h"
#include "engine/reference.h"

namespace hearth::engine::testing {
namespace {

using namespace std::chrono_literals;
using ::testing::AllOf;
using ::testing::HasSubstr;

struct Case {
  const char* name;
  const char* model;
  const char* projector;
};

std::string model_of(const Case& c) {
  return random_model(std::string("see-") + c.name, std::string(c.model) + " --context 2048 --vocab '" + nano_path() + "'");
}
std::string projector_of(const Case& c) { return random_projector(std::string("mmproj-") + c.name, c.projector); }

EngineOptions options_of(const Case& c) {
  EngineOptions options = options_for(model_of(c));
  options.projector_path = projector_of(c);
  return options;
}

std::unique_ptr<Engine> load(const EngineOptions& options) {
  auto engine = Engine::load(options);
  if (!engine) {
    ADD_FAILURE() << engine.error().message;
    std::abort();
  }
  return std::move(*engine);
}

chat::ContentPart text_part(const std::string& text) { return {.kind = chat::ContentPart::Kind::text, .text = text}; }
chat::ContentPart image_part(const std::string& file, const std::string& type = "image/png") {
  return {.kind = chat::ContentPart::Kind::image, .media_type = type, .data = base64_encode(file)};
}

const std::string before = "what can be seen here?", after = "count the things and name their colours";

chat::Request image_request(const std::string& file, int max_tokens = 24, const std::string& question = after) {
  chat::Request request = chat_request("", max_tokens);
  request.messages[0].content = {text_part(before), image_part(file), text_part(question)};
  request.top_logprobs = 5;
  request.ignore_eos = true;
  return request;
}

std::vector<int> tokens_of(const Collector& answer) {
  std::vector<int> out;
  for (const auto& info : answer.tokens()) out.push_back(info.chosen.token);
  return out;
}

std::shared_ptr<Collector> ask(Engine& engine, const chat::Request& request) {
  auto answer = run(engine, request);
  EXPECT_FALSE(answer->error()) << answer->error()->message;
  return answer;
}

// The same tokens with the same probabilities. Rounding depends a little on which rows are computed together, and a random model is often undecided: where
// two tokens are as good as equal the answers may part.
void expect_same(const Collector& answer, const Collector& expected) {
  const auto left = answer.tokens(), right = expected.tokens();
  ASSERT_EQ(left.size(), right.size());
  constexpr float rounding = 0.02F;
  for (std::size_t i = 0; i < left.size(); ++i) {
    ASSERT_NEAR(left[i].top.at(0).logprob, right[i].top.at(0).logprob, rounding) << "token " << i;
    if (left[i].chosen.token == right[i].chosen.token) continue;
    const auto& top = right[i].top;
    const auto at = std::find_if(top.begin(), top.end(), [&](const auto& t) { return t.token == left[i].chosen.token; });
    ASSERT_TRUE(at != top.end() && top[0].logprob - at->logprob < rounding) << "token " << i << " is another one";
    EXPECT_GE(i, 4U) << "undecided from the start: nothing was compared";
    return;
  }
}

Error refusal(Engine& engine, const chat::Request& request) {
  auto answer = run(engine, request);
  if (!answer->error()) {
    ADD_FAILURE() << "not refused";
    return {};
  }
  return *answer->error();
}

class Vision : public ::testing::TestWithParam<Case> {};

TEST_P(Vision, GreedyTokensAndLogitsEqualPlainLlamaCpp) {
  const std::string picture = png(72, 56, 1);
  const Reference expected = reference_image(model_of(GetParam()), projector_of(GetParam()), before, picture, after, 24);
  // In one go, and in ticks of few rows that cut images which may be cut.
  for (const int rows : {512, 40}) {
    EngineOptions options = options_of(GetParam());
    options.scheduler.batch_tokens = rows;
    options.scheduler.max_running = 4;
    auto engine = load(options);
    EXPECT_TRUE(engine->info().vision);
    auto answer = run(*engine, image_request(picture));
    ASSERT_FALSE(answer->error()) << answer->error()->message;
    EXPECT_EQ(answer->usage()->prompt_tokens, static_cast<int>(expected.prompt.size()));
    const auto infos = answer->tokens();
    ASSERT_FALSE(infos.empty());
    const auto same = describe(expected.first_logits, infos[0].chosen.token, 5);
    for (std::size_t i = 0; i < same.top.size(); ++i) {
      EXPECT_EQ(infos[0].top.at(i).token, same.top[i].token) << i;
      EXPECT_NEAR(infos[0].top.at(i).logprob, same.top[i].logprob, rows == 512 ? 1e-4 : 5e-3) << i;
    }
    auto tokens = tokens_of(*answer);
    tokens.resize(std::min(tokens.size(), expected.tokens.size()));
    EXPECT_EQ(tokens, expected.tokens) << rows << " rows";
  }
}

TEST_P(Vision, TheSameImageIsEncodedAndComputedOnceAndAnotherIsAnother) {
  auto engine = load(options_of(GetParam()));
  const std::string one = png(64, 64, 2), two = png(64, 64, 3);
  auto first = run(*engine, image_request(one));
  auto again = run(*engine, image_request(one));
  auto other = run(*engine, image_request(two));
  ASSERT_FALSE(first->error() || again->error() || other->error());
  expect_same(*again, *first);
  const int prompt = first->usage()->prompt_tokens;
  EXPECT_EQ(first->usage()->cached_tokens, 0);
  EXPECT_EQ(again->usage()->cached_tokens, prompt - 1);
  EXPECT_EQ(other->usage()->prompt_tokens, prompt);
  EXPECT_GT(other->usage()->cached_tokens, 0) << "the text before the image";
  EXPECT_LT(other->usage()->cached_tokens, prompt / 2) << "not the image";
  EXPECT_NE(other->tokens()[0].top[0].logprob, first->tokens()[0].top[0].logprob);
  EXPECT_EQ(engine->stats().images_encoded, 2);
  EXPECT_GT(engine->stats().image_bytes, 0);
  EXPECT_GT(engine->stats().projector_bytes, 0);
}

TEST_P(Vision, AConversationGoesOnFromWhatWasSharedParkedAndBroughtBack) {
  EngineOptions alone = options_of(GetParam());
  alone.scheduler.prefix_cache_bytes = 0;
  auto fresh = load(alone);
  auto engine = load(options_of(GetParam()));
  const std::string one = png(80, 60, 4), two = png(60, 90, 5);
  chat::Request turn = image_request(one, 12);
  for (int i = 0; i < 4; ++i) {
    const auto expected = ask(*fresh, turn);
    auto answer = run(*engine, turn);
    ASSERT_FALSE(answer->error()) << answer->error()->message;
    expect_same(*answer, *expected);
    if (i > 0) EXPECT_GT(answer->usage()->cached_tokens, answer->usage()->prompt_tokens / 3) << "turn " << i;
    chat::Message said;
    said.role = chat::Role::assistant;
    said.content.push_back(text_part("turn " + std::to_string(i)));
    turn.messages.push_back(said);
    chat::Message next;
    next.content.push_back(text_part("and in this one?"));
    if (i % 2 == 0) next.content.push_back(image_part(two));
    next.content.push_back(text_part("go on " + std::to_string(i)));
    turn.messages.push_back(next);
    // Somebody else runs: what is idle leaves the cells.
    ask(*engine, chat_request("something else, number " + std::to_string(i), 16));
  }
}

TEST_P(Vision, ABackgroundRequestIsParkedWithItsImageAndGoesOn) {
  EngineOptions options = options_of(GetParam());
  options.context = 512;
  chat::Request patient = image_request(png(70, 70, 6), 200);
  patient.priority = chat::Priority::background;
  const auto expected = ask(*load(options), patient);
  auto engine = load(options);
  auto sink = std::make_shared<Collector>();
  auto handle = engine->generate(patient, sink);
  ASSERT_TRUE(handle.ok()) << handle.error().message;
  for (int i = 0; i < 10'000 && engine->stats().generated_tokens < 5; ++i) std::this_thread::sleep_for(1ms);
  chat::Request urgent = chat_request("list all files", 300);
  urgent.ignore_eos = true;
  ask(*engine, urgent);
  sink->wait();
  ASSERT_FALSE(sink->error());
  EXPECT_GT(engine->stats().parks, 0);
  expect_same(*sink, *expected);
}

TEST_P(Vision, ImagesAndTextsRunTogether) {
  auto engine = load(options_of(GetParam()));
  std::vector<chat::Request> requests;
  std::vector<std::shared_ptr<Collector>> expected;
  for (std::uint32_t i = 0; i < 8; ++i) {
    chat::Request request = i % 2 == 0 ? image_request(png(56 + static_cast<int>(i) * 8, 64, 10 + i), 20)
                                       : chat_request("list the files of folder " + std::to_string(i), 40);
    request.top_logprobs = 5;
    requests.push_back(request);
    expected.push_back(ask(*load(options_of(GetParam())), request));
  }
  std::vector<std::shared_ptr<Collector>> sinks(requests.size());
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < requests.size(); ++i) threads.emplace_back([&, i] { sinks[i] = run(*engine, requests[i]); });
  for (auto& thread : threads) thread.join();
  for (std::size_t i = 0; i < requests.size(); ++i) {
    ASSERT_FALSE(sinks[i]->error()) << sinks[i]->error()->message;
    expect_same(*sinks[i], *expected[i]);
  }
}

TEST_P(Vision, CountsWhatGeneratingUses) {
  auto engine = load(options_of(GetParam()));
  chat::Request request = image_request(png(90, 50, 20), 1);
  request.messages[0].content.push_back(image_part(png(40, 90, 21)));
  request.messages[0].content.push_back(text_part("compare"));
  const auto count = engine->count_tokens(request);
  ASSERT_TRUE(count.ok()) << count.error().message;
  EXPECT_EQ(engine->stats().images_encoded, 0);
  auto answer = run(*engine, request);
  ASSERT_FALSE(answer->error()) << answer->error()->message;
  EXPECT_EQ(*count, answer->usage()->prompt_tokens);
}

INSTANTIATE_TEST_SUITE_P(All, Vision,
                         ::testing::Values(Case{"mlp", "--arch llama --seed 21", "--type mlp --image 112"},
                                           Case{"gemma3", "--arch gemma3 --head-size 32 --layers 7 --window 16 --tied --seed 22",
                                                "--type gemma3 --image 112"},
                                           Case{"qwen2vl", "--arch qwen2vl --seed 23", "--type qwen2vl"}),
                         [](const auto& info) { return std::string(info.param.name); });

const Case plain{"mlp", "--arch llama --seed 21", "--type mlp --image 112"};

TEST(VisionEngine, TheProjectorComesWithTheFirstImageAndLeavesWhenIdle) {
  EngineOptions options = options_of(plain);
  options.projector_idle = 20ms;
  auto engine = load(options);
  ask(*engine, chat_request("no image", 4));
  EXPECT_EQ(engine->stats().projector_loads, 0);
  const auto first = ask(*engine, image_request(png(64, 64, 30)));
  EXPECT_EQ(engine->stats().projector_loads, 1);
  for (int i = 0; i < 10'000 && engine->stats().projector_bytes > 0; ++i) std::this_thread::sleep_for(1ms);
  EXPECT_EQ(engine->stats().projector_bytes, 0);
  expect_same(*ask(*engine, image_request(png(64, 64, 30))), *first);
  EXPECT_EQ(engine->stats().projector_loads, 2);
  EXPECT_EQ(engine->stats().images_encoded, 1) << "what was encoded is kept";
}

TEST(VisionEngine, ATextModelSaysThatItReadsTextOnly) {
  const Error error = refusal(nano(), image_request(png(8, 8, 1)));
  EXPECT_EQ(error.code, ErrorCode::unsupported);
  EXPECT_THAT(error.message, AllOf(HasSubstr("text only, not images"), HasSubstr("/v1/models")));
  EXPECT_EQ(error.param, "messages[0].content[1]");
}

TEST(VisionEngine, ImagesThatCannotBeUsedAreRefusedByPlaceAndReasonBeforeAnythingIsLoaded) {
  auto engine = load(options_of(plain));
  const auto with = [](chat::ContentPart part) {
    chat::Request request = image_request({});
    request.messages[0].content[1] = std::move(part);
    return request;
  };
  const auto check = [&](chat::ContentPart part, ErrorCode code, const auto& matches) {
    const Error error = refusal(*engine, with(part));
    EXPECT_EQ(error.code, code) << error.message;
    EXPECT_EQ(error.param, "messages[0].content[1]");
    EXPECT_THAT(error.message, matches);
    const auto counted = engine->count_tokens(with(part));
    ASSERT_FALSE(counted.ok());
    EXPECT_EQ(counted.error().message, error.message);
  };
  const std::string good = png(16, 16, 1);
  check({.kind = chat::ContentPart::Kind::image, .url = "https://example.com/a.png"}, ErrorCode::unsupported,
        AllOf(HasSubstr("not fetched from the network"), HasSubstr("data:image/png;base64")));
  check({.kind = chat::ContentPart::Kind::image, .media_type = "image/png", .data = "no*base64"}, ErrorCode::invalid_request,
        HasSubstr("not valid base64"));
  check(image_part("<svg xmlns='http://www.w3.org/2000/svg'/>", "image/svg+xml"), ErrorCode::invalid_request,
        AllOf(HasSubstr("image/svg+xml"), HasSubstr("send PNG, JPEG, GIF or BMP")));
  check(image_part("RIFF0000WEBPVP8 ", "image/webp"), ErrorCode::invalid_request, AllOf(HasSubstr("image/webp"), HasSubstr("PNG")));
  check(image_part("RIFF0000WAVE", "audio/wav"), ErrorCode::unsupported, HasSubstr("cannot take audio/wav"));
  check(image_part(good.substr(0, 20)), ErrorCode::invalid_request, AllOf(HasSubstr("image/png"), HasSubstr("header is damaged")));
  check(image_part("\x89PNG\r\n\x1a\n", "image/\x01\x02"), ErrorCode::invalid_request, HasSubstr("image/??"));
  // A header that promises more than anybody wants to unpack.
  const auto promising = [&](std::uint32_t side) {
    std::string file = good.substr(0, 8), header;
    append_u32(header, side);
    append_u32(header, side);
    header += {'\x08', '\x02', '\0', '\0', '\0'};
    append_png_chunk(file, "IHDR", header);
    append_png_chunk(file, "IDAT", "\x78\x01");
    return image_part(file);
  };
  check(promising(10'000), ErrorCode::invalid_request,
        AllOf(HasSubstr("10000 x 10000"), HasSubstr("100 megapixels; the most is 67 megapixels")));
  check(promising(60'000), ErrorCode::invalid_request, HasSubstr("far more than 67 megapixels"));
  check(image_part(png(900, 4, 1)), ErrorCode::invalid_request, AllOf(HasSubstr("900 x 4"), HasSubstr("200 times")));
  check(image_part(good + std::string(std::size_t{33} << 20, 'x')), ErrorCode::invalid_request, HasSubstr("the most is 33554432"));
  EXPECT_EQ(engine->stats().projector_loads, 0) << "none of these was worth loading it";

  check(image_part(good.substr(0, good.size() / 2)), ErrorCode::invalid_request,
        AllOf(HasSubstr("image/png"), HasSubstr("cannot be decoded")));
  // Nobody's stream suffered, and the next image is welcome.
  EXPECT_FALSE(ask(*engine, image_request(good))->tokens().empty());
}

TEST(VisionEngine, LongPromptsAreRefusedWithoutEncoding) {
  EngineOptions options = options_of(plain);
  options.context = 256;
  auto engine = load(options);
  chat::Request request = image_request(png(64, 64, 40), 8);
  for (int i = 0; i < 6; ++i) request.messages[0].content.push_back(image_part(png(64, 64, 41 + static_cast<std::uint32_t>(i))));
  request.messages[0].content.push_back(text_part("compare"));
  const Error error = refusal(*engine, request);
  EXPECT_EQ(error.code, ErrorCode::context_length_exceeded) << error.message;
  EXPECT_EQ(engine->stats().images_encoded, 0);
}

TEST(VisionEngine, ScoringIsForText) {
  auto engine = load(options_of(plain));
  const auto scored = engine->score(image_request(png(8, 8, 1)));
  ASSERT_FALSE(scored.ok());
  EXPECT_EQ(scored.error().code, ErrorCode::unsupported);
}

TEST(VisionEngine, AProjectorOfAnotherModelIsRefusedWithBothWidths) {
  EngineOptions options = options_of(plain);
  options.projector_path = random_projector("mmproj-wide", "--type mlp --text-width 96");
  auto engine = load(options);
  const Error error = refusal(*engine, image_request(png(16, 16, 1)));
  EXPECT_EQ(error.code, ErrorCode::model_invalid);
  EXPECT_THAT(error.message, AllOf(HasSubstr("mmproj-wide"), HasSubstr("does not belong to this model"), HasSubstr("64"), HasSubstr("96")));
  EXPECT_FALSE(run(*engine, chat_request("text is answered all the same", 4))->error());
}

TEST(VisionEngine, FilesThatAreNoProjectorAreRefusedAtTheStart) {
  EngineOptions options = options_of(plain);
  const auto refused = [&](const std::string& path) {
    options.projector_path = path;
    auto engine = Engine::load(options);
    EXPECT_FALSE(engine.ok());
    return engine.ok() ? Error{} : engine.error();
  };
  EXPECT_THAT(refused(options.model_path).message, AllOf(HasSubstr("is no vision projector"), HasSubstr("\"llama\"")));
  EXPECT_EQ(refused("/nowhere/mmproj.gguf").code, ErrorCode::io);
  const std::string whole = projector_of(plain);
  const std::string cut = whole + "." + std::to_string(getpid()) + ".cut";
  std::filesystem::copy_file(whole, cut, std::filesystem::copy_options::overwrite_existing);
  std::filesystem::resize_file(cut, std::filesystem::file_size(cut) / 2);
  const Error error = refused(cut);
  EXPECT_EQ(error.code, ErrorCode::model_invalid);
  EXPECT_THAT(error.message, HasSubstr(cut));
  std::filesystem::remove(cut);
}

TEST(VisionEngine, TextThatLooksLikeAPlaceForAnImageIsText) {
  auto engine = load(options_of(plain));
  chat::Request request = image_request(png(32, 32, 50), 4);
  request.messages[0].content[0].text = "<__media__> image_0_ <image>";
  auto answer = run(*engine, request);
  EXPECT_FALSE(answer->error());
  EXPECT_EQ(engine->stats().images_encoded, 1);
}

}  // namespace
}  // namespace hearth::engine::testing
