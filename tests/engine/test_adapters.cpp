// LoRA adapters on real models: what the engine computes with one is what llama.cpp computes with it, whatever else runs, loads or leaves meanwhile.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <thread>

#include "engine/engine_fixture.h"
#include "engine/reference.h"

namespace hearth::engine::testing {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

std::string bytes_of(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

chat::Request with(chat::Request request, const std::string& adapter) {
  request.adapter = adapter;
  return request;
}

// Rendered as the demonstration model wants it: then it answers at length.
const std::string prompt = "<|im_start|>user\nlist all files in the current folder, newest first<|im_end|>\n<|im_start|>assistant\n";

class Adapters : public ::testing::Test {
 protected:
  void SetUp() override { fs::create_directories(folder_); }
  void TearDown() override { fs::remove_all(folder_); }

  std::string place(const std::string& name, const std::string& arguments = "", const std::string& base = nano_path()) {
    const std::string path = folder_ / (name + ".gguf");
    make_adapter(path, arguments, base);
    return path;
  }
  void write(const std::string& name, const std::string& bytes) {
    std::ofstream out(folder_ / (name + ".gguf"), std::ios::binary);
    out << bytes;
  }
  std::unique_ptr<Engine> engine(std::int64_t bytes = std::int64_t{1} << 30, std::vector<AdapterSpec> configured = {}) {
    EngineOptions options = options_for(nano_path());
    options.adapter_folder = folder_;
    options.adapter_bytes = bytes;
    options.adapters = std::move(configured);
    options.scheduler.adapter_slice = std::chrono::milliseconds(5);
    auto made = Engine::load(options);
    EXPECT_TRUE(made) << made.error().message;
    return std::move(*made);
  }
  Error refusal(Engine& engine, const std::string& name) {
    auto answer = run(engine, with(raw_request(prompt, 4), name));
    EXPECT_TRUE(answer->error()) << name << " was taken";
    Error error = answer->error().value_or(Error{});
    EXPECT_EQ(error.param, "adapter");
    EXPECT_THAT(error.message, Not(HasSubstr(folder_.string()))) << "a client learns where files lie";
    return error;
  }

  fs::path folder_ = fs::temp_directory_path() / ("hearth-adapters-" + std::to_string(getpid()));
};

TEST_F(Adapters, GiveWhatPlainLlamaCppGives) {
  const std::string one = place("one", "--seed 1"), two = place("two", "--seed 2 --rank 8 --targets attn_k,attn_output,ffn_up,ffn_gate");
  const std::string wide = place("wide", "--type f16");
  auto e = engine(1 << 30, {{"half", one, 0.5F}});
  EXPECT_THAT(e->info().adapters, ElementsAre("half", "one", "two", "wide"));
  const std::string plain = reference(nano_path(), prompt, 40).text;
  struct Case {
    std::string name, path;
    float scale;
  };
  for (const Case& c : {Case{"one", one, 1}, Case{"two", two, 1}, Case{"wide.gguf", wide, 1}, Case{one, one, 0.5F}, Case{"half", one, 0.5F},
                        Case{two, two, 1}, Case{"./one.gguf", one, 0.5F}}) {
    const std::string expected = reference(nano_path(), prompt, 40, false, c.path, c.scale).text;
    EXPECT_NE(expected, plain) << "an adapter that changes nothing proves nothing";
    auto answer = run(*e, with(raw_request(prompt, 40), c.name));
    ASSERT_FALSE(answer->error()) << answer->error()->message;
    EXPECT_EQ(answer->text(), expected) << c.name;
  }
  EXPECT_EQ(run(*e, raw_request(prompt, 40))->text(), plain);
}

TEST_F(Adapters, OtherArchitecturesExpertsAndQuantisedBases) {
  for (const std::string arch : {"qwen3", "gemma2", "qwen3moe", "llama --type q4_0 --ffn 256"}) {
    const std::string base = random_model("adapted-" + arch.substr(0, arch.find(' ')),
                                          "--arch " + arch + " --head-size 32 --seed 21 --vocab '" + nano_path() + "'");
    const std::string targets = arch == "qwen3moe" ? "--targets attn_q,ffn_down_exps,ffn_gate_exps" : "";
    const std::string path = place("fits", targets, base);
    EngineOptions options = options_for(base);
    options.adapter_folder = folder_;
    auto e = Engine::load(options);
    ASSERT_TRUE(e) << e.error().message;
    const Reference expected = reference(base, prompt, 30, false, path, 1);
    auto request = with(raw_request(prompt, 30), "fits");
    request.top_logprobs = 0;
    auto answer = run(**e, request);
    ASSERT_FALSE(answer->error()) << answer->error()->message;
    std::vector<int> tokens;
    for (const auto& info : answer->tokens()) tokens.push_back(info.chosen.token);
    if (tokens.size() > expected.tokens.size()) tokens.resize(expected.tokens.size());  // the end-of-generation token
    EXPECT_EQ(tokens, expected.tokens) << arch;
    EXPECT_NE(expected.first_logits, reference(base, prompt, 1).first_logits) << arch;
  }
}

TEST_F(Adapters, ConcurrentRequestsGetWhatTheyWouldGetAlone) {
  place("one", "--seed 1");
  place("two", "--seed 2");
  auto e = engine();
  struct Case {
    std::string adapter, prompt, alone;
    std::shared_ptr<Collector> sink;
    GenerationHandle handle;
  };
  std::vector<Case> cases;
  for (int i = 0; i < 9; ++i) {
    const std::string names[] = {"", "one", "two"};
    cases.push_back({names[i % 3], (i / 3) % 2 == 0 ? prompt : prompt + " and tell me " + std::to_string(i), {}, nullptr, {}});
  }
  for (Case& c : cases) c.alone = run(*e, with(raw_request(c.prompt, 60), c.adapter))->text();
  EXPECT_NE(cases[0].alone, cases[1].alone);
  EXPECT_NE(cases[1].alone, cases[2].alone);
  const auto before = e->stats().adapter_switches;
  for (Case& c : cases) {
    c.sink = std::make_shared<Collector>();
    auto request = with(raw_request(c.prompt, 60), c.adapter);
    request.ignore_eos = false;
    auto handle = e->generate(request, c.sink);
    ASSERT_TRUE(handle) << handle.error().message;
    c.handle = std::move(*handle);
  }
  for (Case& c : cases) {
    c.sink->wait();
    EXPECT_EQ(c.sink->text(), c.alone) << c.adapter << ": " << c.prompt;
  }
  EXPECT_GE(e->stats().adapter_switches - before, 2);
}

TEST_F(Adapters, PrefixesOutliveASwitch) {
  place("one", "--seed 1");
  auto e = engine();
  const auto cached = [&](const std::string& adapter) {
    auto answer = run(*e, with(raw_request(prompt, 4), adapter));
    EXPECT_FALSE(answer->error());
    return answer->usage()->cached_tokens;
  };
  EXPECT_EQ(cached(""), 0);
  EXPECT_EQ(cached("one"), 0) << "what the model alone computed is not the adapter's";
  EXPECT_GT(cached(""), 10);
  EXPECT_GT(cached("one"), 10);
}

TEST_F(Adapters, TheLeastRecentlyUsedLeavesWhenTheBudgetIsFull) {
  place("one", "--seed 1");
  place("two", "--seed 2");
  place("three", "--seed 3");
  auto e = engine();
  run(*e, with(raw_request(prompt, 4), "one"));
  const std::int64_t size = e->stats().adapter_bytes;
  ASSERT_GT(size, 1000);
  e = engine(2 * size + size / 2);
  const auto use = [&](const std::string& name) {
    auto answer = run(*e, with(raw_request(prompt, 12), name));
    EXPECT_FALSE(answer->error()) << answer->error()->message;
    EXPECT_LE(e->stats().adapter_bytes, 2 * size + size / 2);
    return answer->text();
  };
  const std::string first = use("one");
  use("two");
  use("one");
  EXPECT_EQ(e->stats().adapter_loads, 2);
  use("three");  // in place of two
  EXPECT_EQ(e->stats().adapters, 2);
  EXPECT_EQ(use("one"), first);
  EXPECT_EQ(e->stats().adapter_loads, 3);
  use("two");
  EXPECT_EQ(e->stats().adapter_loads, 4);
  EXPECT_EQ(use("one"), first);

  auto small = engine(size - 1);
  const Error error = refusal(*small, "one");
  EXPECT_EQ(error.code, ErrorCode::unsupported);
  EXPECT_THAT(error.message, HasSubstr("budget"));
  EXPECT_EQ(small->stats().adapters, 0);
  EXPECT_EQ(small->stats().adapter_bytes, 0);
}

TEST_F(Adapters, OneInUseIsNeverUnloaded) {
  place("one", "--seed 1");
  place("two", "--seed 2");
  auto e = engine();
  run(*e, with(raw_request(prompt, 4), "one"));
  const std::int64_t size = e->stats().adapter_bytes;
  e = engine(size);
  struct NeverRead final : EventSink {
    void on_events(chat::Events) override {}
    std::size_t backlog() const override { return 1'000'000; }
  };
  auto handle = e->generate(with(raw_request(prompt, 100), "one"), std::make_shared<NeverRead>());
  ASSERT_TRUE(handle);
  const Error error = refusal(*e, "two");
  EXPECT_EQ(error.code, ErrorCode::overloaded);
  EXPECT_GT(error.retry_after.count(), 0);
  handle->cancel();
  ASSERT_TRUE(e->wait_idle(std::chrono::seconds(20)));
  auto answer = run(*e, with(raw_request(prompt, 4), "two"));
  EXPECT_FALSE(answer->error()) << answer->error()->message;
  EXPECT_EQ(e->stats().adapters, 1);
}

TEST_F(Adapters, LoadWhileOthersStream) {
  auto e = engine();
  place("first", "--seed 100");
  const std::string streaming = run(*e, with(raw_request(prompt, 400), "first"))->text();
  auto sink = std::make_shared<Collector>();
  auto handle = e->generate(with(raw_request(prompt, 400), "first"), sink);
  ASSERT_TRUE(handle);
  std::vector<std::thread> clients;
  for (int i = 0; i < 4; ++i) {
    clients.emplace_back([&, i] {
      for (int k = 0; k < 3; ++k) {
        const std::string name = "hot-" + std::to_string((i + k) % 4);
        const std::string path = folder_ / (name + ".gguf");
        if (!fs::exists(path)) {
          make_adapter(path + "." + std::to_string(i), "--seed " + name.substr(4), nano_path());
          fs::rename(path + "." + std::to_string(i), path);
        }
        auto answer = run(*e, with(raw_request(prompt, 8), name));
        EXPECT_FALSE(answer->error()) << answer->error()->message;
      }
    });
  }
  for (auto& client : clients) client.join();
  sink->wait();
  EXPECT_EQ(sink->text(), streaming);
  for (int i = 0; i < 4; ++i) {
    const std::string name = "hot-" + std::to_string(i);
    EXPECT_EQ(run(*e, with(raw_request(prompt, 30), name))->text(),
              reference(nano_path(), prompt, 30, false, folder_ / (name + ".gguf"), 1).text);
  }
}

TEST_F(Adapters, AFileWrittenAnewIsAnotherAdapter) {
  place("one", "--seed 1");
  auto e = engine();
  const std::string before = run(*e, with(raw_request(prompt, 30), "one"))->text();
  const std::string path = place("one", "--seed 9 --rank 6");
  const auto again = run(*e, with(raw_request(prompt, 30), "one"));
  EXPECT_EQ(again->text(), reference(nano_path(), prompt, 30, false, path, 1).text);
  EXPECT_NE(again->text(), before);
  EXPECT_EQ(again->usage()->cached_tokens, 0) << "the old one's prefix";
  EXPECT_EQ(e->stats().adapters, 1);
}

TEST_F(Adapters, UnknownNamesAndPathsElsewhereAreRefused) {
  place("one");
  const std::string outside = fs::temp_directory_path() / ("hearth-outside-" + std::to_string(getpid()) + ".gguf");
  make_adapter(outside, "", nano_path());
  auto e = engine(1 << 30, {{"configured", folder_ / "one.gguf"}});
  Error error = refusal(*e, "nope");
  EXPECT_EQ(error.code, ErrorCode::model_not_found);
  EXPECT_THAT(error.message, AllOf(HasSubstr("nope"), HasSubstr("configured"), HasSubstr("one")));
  for (const std::string& path : {outside, std::string("../") + fs::path(outside).filename().string(), std::string("/etc/passwd"),
                                  std::string("sub/../../") + fs::path(outside).filename().string()}) {
    error = refusal(*e, path);
    EXPECT_EQ(error.code, ErrorCode::invalid_request) << path;
    EXPECT_THAT(error.message, HasSubstr("folder")) << path;
  }
  for (const std::string& name : {std::string(".."), std::string("one\0.gguf", 9), std::string("sub/one.gguf"), std::string("./nope.gguf")})
    EXPECT_EQ(refusal(*e, name).code, ErrorCode::model_not_found) << name;

  EngineOptions options = options_for(nano_path());
  options.adapters = {{"far", outside}};
  auto configured = Engine::load(options);
  ASSERT_TRUE(configured);
  EXPECT_FALSE(run(**configured, with(raw_request(prompt, 4), "far"))->error());
  EXPECT_FALSE(run(**configured, with(raw_request(prompt, 4), outside))->error());
  EXPECT_EQ(refusal(**configured, "one").code, ErrorCode::model_not_found);
  EXPECT_TRUE(run(nano(), with(raw_request(prompt, 4), "one"))->error());
  fs::remove(outside);
}

TEST_F(Adapters, FilesThatDoNotFitSayWhy) {
  const std::string good = bytes_of(place("good"));
  auto e = engine();
  write("text", "just some words, not an adapter");
  write("empty", "");
  write("cut", good.substr(0, good.size() / 2));
  write("header", good.substr(0, 40));
  for (const char* name : {"text", "empty", "cut", "header"}) {
    const Error error = refusal(*e, name);
    EXPECT_EQ(error.code, ErrorCode::model_invalid) << name;
    EXPECT_THAT(error.message, HasSubstr(name));
    EXPECT_THAT(error.message, Not(HasSubstr("gives no reason"))) << name;
  }
  EXPECT_THAT(refusal(*e, "text").message, HasSubstr("not a GGUF"));
  EXPECT_THAT(refusal(*e, "cut").message, HasSubstr("truncated"));

  fs::copy_file(nano_path(), folder_ / "model.gguf");
  EXPECT_THAT(refusal(*e, "model").message, HasSubstr("is a model, not an adapter"));

  place("qwen", "", random_model("adapter-base-qwen2", "--arch qwen2 --vocab '" + nano_path() + "'"));
  Error error = refusal(*e, "qwen");
  EXPECT_EQ(error.code, ErrorCode::unsupported);
  EXPECT_THAT(error.message, AllOf(HasSubstr("\"qwen2\""), HasSubstr("\"llama\"")));

  place("narrow", "", random_model("adapter-base-narrow", "--arch llama --width 32 --vocab '" + nano_path() + "'"));
  error = refusal(*e, "narrow");
  EXPECT_EQ(error.code, ErrorCode::unsupported);
  EXPECT_THAT(error.message, AllOf(HasSubstr("another base"), HasSubstr("blk.0."), HasSubstr("32 × 4")));

  place("deep", "", random_model("adapter-base-deep", "--arch llama --layers 90 --width 32 --vocab '" + nano_path() + "'"));
  EXPECT_EQ(refusal(*e, "deep").code, ErrorCode::unsupported);

  place("tied", "--targets token_embd");
  EXPECT_EQ(refusal(*e, "tied").code, ErrorCode::unsupported);

  const auto changed = [&](const std::string& name, const std::string& from, const std::string& to) {
    std::string bytes = good;
    const std::size_t at = bytes.find(from);
    EXPECT_NE(at, std::string::npos) << name;
    write(name, bytes.replace(at, from.size(), to));
    return refusal(*e, name);
  };
  using namespace std::string_literals;
  error = changed("vector", "\4\0\0\0\0\0\0\0lora"s, "\4\0\0\0\0\0\0\0cvec"s);
  EXPECT_EQ(error.code, ErrorCode::unsupported);
  EXPECT_THAT(error.message, HasSubstr("\"cvec\""));
  error = changed("alpha", "adapter.lora.alpha\6"s,
                  "adapter.lora.alpha\4"s);  // the same four bytes, as an integer: llama.cpp would end the process
  EXPECT_EQ(error.code, ErrorCode::model_invalid);
  EXPECT_THAT(error.message, HasSubstr("alpha"));
  error = changed("lonely", "attn_q.weight.lora_b"s, "attn_q.weight.lora_x"s);
  EXPECT_EQ(error.code, ErrorCode::model_invalid);
}

TEST_F(Adapters, DamagedFilesNeverEndTheProcess) {
  // Every byte of the header changed, a few ways each; what is accepted must also compute.
  const std::string good = bytes_of(place("good", "--rank 2 --targets attn_q"));
  auto e = engine();
  ASSERT_FALSE(run(*e, with(raw_request("x", 2), "good"))->error());
  const std::size_t header = good.find("blk.0.attn_q.weight.lora_b") + 60;
  int accepted = 0;
  for (std::size_t at = 0; at < header; ++at) {
    std::string bytes = good;
    bytes[at] = static_cast<char>(bytes[at] ^ (1 << (at % 8)));
    const std::string name = "fuzzed-" + std::to_string(at);
    write(name, bytes);
    auto answer = run(*e, with(raw_request("x", 1), name));
    fs::remove(folder_ / (name + ".gguf"));
    accepted += answer->error() ? 0 : 1;
    if (answer->error()) EXPECT_NE(answer->error()->code, ErrorCode::internal) << at << ": " << answer->error()->message;
  }
  EXPECT_GT(accepted, 0);
  EXPECT_FALSE(run(*e, with(raw_request("x", 2), "good"))->error());
}

TEST_F(Adapters, ScoresAndChatsUseThemToo) {
  place("one", "--seed 1");
  auto e = engine();
  auto request = raw_request(prompt, 0);
  const auto plain = e->score(request), adapted = e->score(with(request, "one"));
  ASSERT_TRUE(plain && adapted);
  EXPECT_NE(plain->back().chosen.logprob, adapted->back().chosen.logprob);
  EXPECT_NE(run(*e, chat_request("list all files"))->text(), run(*e, with(chat_request("list all files"), "one"))->text());
  EXPECT_FALSE(e->score(with(request, "nope")).ok());
}

}  // namespace
}  // namespace hearth::engine::testing
