#include "engine/engine_fixture.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <map>

// Templates ask for the time of day. The C library guards what that reads with a lock that ThreadSanitizer does not see.
extern "C" const char* __tsan_default_suppressions() { return "race:tzset_internal\n"; }
// The image library never frees a projector that it refuses for its width; a worker asks it once.
extern "C" const char* __lsan_default_suppressions() { return "leak:clip_init\n"; }

namespace hearth::engine::testing {

std::string nano_path() { return HEARTH_SOURCE_DIR "/assets/hearth-nano-0-f16.gguf"; }
std::string vocabulary(const std::string& name) { return HEARTH_LLAMA_DIR "/models/ggml-vocab-" + name + ".gguf"; }

namespace {
std::string made_by(const char* tool, const std::string& name, const std::string& arguments) {
  static std::map<std::string, std::string> made;
  auto it = made.find(name);
  if (it != made.end()) return it->second;
  std::filesystem::path folder = HEARTH_BUILD_DIR "/test-models";
  std::filesystem::create_directories(folder);
  std::string path = folder / (name + ".gguf"), fresh = path + "." + std::to_string(getpid());
  std::string command = std::string("'") + tool + "' " + arguments + " '" + fresh + "'";
  if (std::system(command.c_str()) != 0) {
    ADD_FAILURE() << "could not make a model: " << command;
    return {};
  }
  std::filesystem::rename(fresh, path);  // other test programs may be reading the old one
  return made[name] = path;
}
}  // namespace

std::string random_model(const std::string& name, const std::string& arguments) { return made_by(HEARTH_MAKE_MODEL, name, arguments); }
std::string random_projector(const std::string& name, const std::string& arguments) {
  return made_by(HEARTH_MAKE_PROJECTOR, name, arguments);
}

void make_adapter(const std::string& path, const std::string& arguments, const std::string& base) {
  const std::string command = std::string("'") + HEARTH_MAKE_ADAPTER + "' --base '" + base + "' " + arguments + " '" + path + "'";
  if (std::system(command.c_str()) != 0) ADD_FAILURE() << "could not make an adapter: " << command;
}

EngineOptions options_for(const std::string& path) {
  EngineOptions options;
  options.model_path = path;
  options.model_id = "test";
  options.context = 2048;
  options.threads = 1;  // the suite shares the machine with others: threads that wait for each other would be slow
  return options;
}

std::unique_ptr<Engine> load(const std::string& path) {
  auto engine = Engine::load(options_for(path));
  if (!engine) {
    ADD_FAILURE() << engine.error().message;
    std::abort();
  }
  return std::move(*engine);
}

Engine& nano() {
  static std::unique_ptr<Engine> engine = load(nano_path());
  return *engine;
}

void Collector::on_events(chat::Events events) {
  std::lock_guard lock(mutex_);
  for (auto& event : events) {
    done_ = done_ || std::holds_alternative<chat::Usage>(event) || std::holds_alternative<chat::Failed>(event);
    events_.push_back(std::move(event));
  }
  changed_.notify_all();
}

void Collector::wait() {
  std::unique_lock lock(mutex_);
  if (!changed_.wait_for(lock, std::chrono::seconds(60), [this] { return done_; })) ADD_FAILURE() << "the answer did not end";
}

namespace {
template <class T, class F>
void each(const chat::Events& events, int choice, F f) {
  for (const auto& event : events) {
    if (const T* e = std::get_if<T>(&event); e && e->choice == choice) f(*e);
  }
}
}  // namespace

std::string Collector::text(int choice) const {
  std::string out;
  each<chat::TextDelta>(events_, choice, [&](const auto& e) { out += e.text; });
  return out;
}
std::string Collector::reasoning(int choice) const {
  std::string out;
  each<chat::ReasoningDelta>(events_, choice, [&](const auto& e) { out += e.text; });
  return out;
}
std::vector<chat::TokenInfo> Collector::tokens(int choice) const {
  std::vector<chat::TokenInfo> out;
  each<chat::TokenInfo>(events_, choice, [&](const auto& e) { out.push_back(e); });
  return out;
}
std::vector<chat::ToolCall> Collector::calls(int choice) const {
  std::vector<chat::ToolCall> out;
  std::vector<bool> ended;
  each<chat::ToolCallBegin>(events_, choice, [&](const auto& e) {
    EXPECT_EQ(e.index, static_cast<int>(out.size()));
    out.push_back({.id = e.id, .name = e.name, .arguments = {}});
  });
  each<chat::ToolCallDelta>(events_, choice, [&](const auto& e) { out.at(static_cast<std::size_t>(e.index)).arguments += e.arguments; });
  int ends = 0;
  each<chat::ToolCallEnd>(events_, choice, [&](const auto&) { ++ends; });
  EXPECT_EQ(ends, static_cast<int>(out.size())) << "every call that begins must end";
  return out;
}
std::optional<chat::FinishReason> Collector::finish(int choice) const {
  std::optional<chat::FinishReason> out;
  each<chat::Finished>(events_, choice, [&](const auto& e) {
    EXPECT_FALSE(out) << "a choice finished twice";
    out = e.reason;
  });
  return out;
}
std::optional<chat::Usage> Collector::usage() const {
  if (events_.empty()) return {};
  const auto* usage = std::get_if<chat::Usage>(&events_.back());
  return usage ? std::optional(*usage) : std::nullopt;
}
std::optional<Error> Collector::error() const {
  if (events_.empty()) return {};
  const auto* failed = std::get_if<chat::Failed>(&events_.back());
  return failed ? std::optional(failed->error) : std::nullopt;
}

std::shared_ptr<Collector> run(Engine& engine, const chat::Request& request) {
  auto sink = std::make_shared<Collector>();
  auto handle = engine.generate(request, sink);
  if (!handle) {
    sink->on_events({chat::Failed{handle.error()}});
    return sink;
  }
  sink->wait();
  return sink;
}

chat::Request chat_request(const std::string& user, int max_tokens) {
  chat::Request request;
  chat::Message message;
  message.content.push_back({.kind = chat::ContentPart::Kind::text, .text = user});
  request.messages.push_back(std::move(message));
  request.sampling.temperature = 0.0F;
  request.max_tokens = max_tokens;
  return request;
}

chat::Request raw_request(const std::string& prompt, int max_tokens) {
  chat::Request request;
  request.prompts.push_back({.text = prompt, .tokens = {}});
  request.sampling.temperature = 0.0F;
  request.max_tokens = max_tokens;
  return request;
}

chat::ToolSpec bash_tool() {
  return {.name = "bash",
          .description = "Runs a shell command",
          .parameters = R"({"type":"object","properties":{"command":{"type":"string"}},"required":["command"]})"};
}

}  // namespace hearth::engine::testing
