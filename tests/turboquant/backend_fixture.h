// llama.cpp's own loop around models whose KV cache is compressed, and around the same models with llama.cpp's f16 cache.
#pragma once

#include <llama.h>

#include <memory>
#include <string>
#include <vector>

#include "turboquant/backend.h"

namespace hearth::turboquant::testing {

std::string nano_path();
// Runs make_model with `arguments` and gives the file's path; once per name and process.
std::string random_model(const std::string& name, const std::string& arguments);
// What llama.cpp and ggml logged as errors since the last call.
std::string logged_errors();

struct Settings {
  std::string model;
  std::string profile;  // empty: llama.cpp's own f16 cache
  int context = 512, sequences = 1, threads = 1, batch = 256;
  bool unified = true;
  llama_flash_attn_type flash = LLAMA_FLASH_ATTN_TYPE_ENABLED;
  ggml_type type_k = GGML_TYPE_F16, type_v = GGML_TYPE_F16;
  bool swa_full = true;
  BackendOptions options{};
};

using Logits = std::vector<float>;

// One model and one context.
class Session {
 public:
  // Null where llama.cpp refuses; logged_errors() says why.
  static std::unique_ptr<Session> open(const Settings& settings);
  // Fails the test instead.
  static std::unique_ptr<Session> must(const Settings& settings);
  ~Session();

  std::vector<llama_token> tokens(const std::string& text) const;
  // Appends to a sequence; the logits after each token. Empty where llama.cpp fails.
  std::vector<Logits> feed(const std::vector<llama_token>& tokens, llama_seq_id seq = 0);
  // `count` further tokens after `logits`, each the most likely one.
  std::vector<llama_token> greedy(const Logits& logits, int count, llama_seq_id seq = 0);
  // The logits of several sequences, each given one token in one batch.
  std::vector<Logits> step(const std::vector<llama_token>& tokens, const std::vector<llama_seq_id>& seqs);

  std::vector<std::uint8_t> save(llama_seq_id seq);
  std::size_t load(const std::vector<std::uint8_t>& state, llama_seq_id seq);
  llama_memory_t memory() { return llama_get_memory(context_); }
  llama_context* context() { return context_; }
  const llama_model* model() const { return model_; }
  KvUsage usage() const { return backend_->usage(); }

 private:
  Session() = default;
  std::unique_ptr<Backend> backend_;
  llama_model* model_ = nullptr;
  llama_context* context_ = nullptr;
};

llama_token best(const Logits& logits);
// Σ p·log(p/q) of the softmaxes of two rows of logits, in nats.
double divergence(const Logits& p, const Logits& q);
// Text of about this many tokens, always the same.
std::vector<llama_token> prompt(const Session& session, int count);

}  // namespace hearth::turboquant::testing
