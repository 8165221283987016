// A small model of the same vocabulary guesses what the large one will say. It keeps a KV memory of its own, which follows each sequence by comparing
// tokens: what was guessed wrong differs, and is dropped when the sequence is next asked for.
#pragma once

#include <memory>

#include "engine/backend.h"
#include "engine/llama_decoder.h"
#include "engine/speculator.h"

namespace hearth::engine {

struct DraftModelOptions {
  std::string path;
  int gpu_layers = -1;
  float least_confidence = 0.5;
  LlamaDecoderOptions decoder;  // cells and sequences as the large model has
};

// Whether tokens mean the same in both: same kind of tokenizer, same text for every token. Sizes may differ by padding at the end.
Result<void> check_same_vocabulary(const llama_model* target, const llama_model* draft, const std::string& draft_name);

class DraftModel final : public DraftSource {
 public:
  // config_invalid when the vocabularies differ, model_invalid or io when the file is at fault.
  static Result<std::unique_ptr<DraftModel>> load(const llama_model* target, const ThreadPool& threads, const DraftModelOptions& options);
  ~DraftModel() override;

  void draft(std::span<Want> wants) override;
  void drop(SeqId seq) override;
  std::optional<double> milliseconds_per_token() const override { return milliseconds_per_token_; }
  double milliseconds() const override { return milliseconds_; }

 private:
  struct Model;
  // What the KV memory holds of a sequence.
  struct Held {
    std::vector<Token> tokens;
    std::size_t same = 0;  // this many are known to be the sequence's
  };
  DraftModel(std::unique_ptr<Model> model, std::unique_ptr<LlamaDecoder> decoder, float least_confidence, int vocabulary);
  bool catch_up(std::span<Want*> wants);
  bool decode();
  // The most likely token at `row`, or -1 where the model is not sure enough.
  Token guess(int row) const;

  std::unique_ptr<Model> model_;
  std::unique_ptr<LlamaDecoder> decoder_;
  float least_confidence_;
  int vocabulary_;  // tokens that both models have
  std::vector<Held> held_;
  std::vector<BatchToken> batch_;
  double milliseconds_per_token_ = 0, milliseconds_ = 0;
};

}  // namespace hearth::engine
