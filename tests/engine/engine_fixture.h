// Loads real models for the engine's tests and collects answers.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "engine/engine.h"

namespace hearth::engine::testing {

// Path of the demonstration model.
std::string nano_path();
// Runs make_model with `arguments` and gives the file's path; once per name and process.
std::string random_model(const std::string& name, const std::string& arguments);
// Runs make_projector likewise.
std::string random_projector(const std::string& name, const std::string& arguments);
// Runs make_adapter: a LoRA adapter for the model `base`, written to `path`.
void make_adapter(const std::string& path, const std::string& arguments, const std::string& base);
std::string vocabulary(const std::string& name);  // of llama.cpp's ggml-vocab-*.gguf files

EngineOptions options_for(const std::string& path);
std::unique_ptr<Engine> load(const std::string& path);
Engine& nano();  // one for all tests of the process

class Collector final : public EventSink {
 public:
  void on_events(chat::Events events) override;
  std::size_t backlog() const override { return 0; }
  // Waits for Usage or Failed.
  void wait();

  std::string text(int choice = 0) const;
  std::string reasoning(int choice = 0) const;
  std::vector<chat::TokenInfo> tokens(int choice = 0) const;
  std::vector<chat::ToolCall> calls(int choice = 0) const;
  std::optional<chat::FinishReason> finish(int choice = 0) const;
  std::optional<chat::Usage> usage() const;
  std::optional<Error> error() const;
  const chat::Events& events() const { return events_; }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool done_ = false;
  chat::Events events_;
};

// Generates and waits. A refusal comes back as the collector's error.
std::shared_ptr<Collector> run(Engine& engine, const chat::Request& request);

chat::Request chat_request(const std::string& user, int max_tokens = 48);   // greedy
chat::Request raw_request(const std::string& prompt, int max_tokens = 32);  // greedy
chat::ToolSpec bash_tool();

}  // namespace hearth::engine::testing
