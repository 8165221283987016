// Some models bring further blocks, trained to guess the token after the next (multi-token prediction): from the hidden state that the model left at one
// place and the token at the next, such a block says what follows. No second model, no second reading of the prompt, and better guesses than either.
//
// The block attends to keys and values of its own, so it has to read along. What the decoder computes goes through it too; what the decoder shares, removes,
// saves and restores is shared, removed, saved and restored here. Long parts are read at once, single tokens when a guess is asked for or some have
// gathered. Where a hidden state is not known – behind a prefix that another sequence computed, behind an image – zeros stand for it, as at the very
// beginning of a text, or the block begins to read there. Guesses are then a little worse. They are verified like any others, so no answer changes.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/backend.h"
#include "engine/decoder.h"
#include "engine/speculator.h"

struct llama_adapter_lora;
struct llama_context;
struct llama_model;

namespace hearth::engine {

class LlamaDecoder;

struct MtpOptions {
  std::string kv_type = "f16";
  bool flash_attention = true;
  float least_confidence = 0.5;  // a guess ends where the block's own probability falls below
};

class MtpDraft final : public DraftSource {
 public:
  // For a model of which catalog::ModelSummary says that the engine can run its blocks, loaded with them. It reads along with `decoder`, which outlives it and
  // has computed nothing yet. Errors: io when there is no memory.
  static Result<std::unique_ptr<MtpDraft>> create(llama_model* model, const ThreadPool& threads, LlamaDecoder& decoder,
                                                  const MtpOptions& options);
  ~MtpDraft() override;

  void draft(std::span<Want> wants) override;
  void drop(SeqId) override {}  // its cells leave it when they leave the decoder
  std::optional<double> milliseconds_per_token() const override { return milliseconds_per_token_; }
  double milliseconds() const override { return milliseconds_; }
  std::int64_t bytes_per_cell() const { return bytes_per_cell_; }

  // What the decoder tells, after it has done the same. `hidden`: a row of the model's width for each of `rows`, which are text.
  void computed(std::span<const BatchToken* const> rows, const float* hidden);
  void shared(SeqId from, SeqId to, std::int32_t begin, std::int32_t end);
  void removed(SeqId seq, std::int32_t begin, std::int32_t end);
  std::vector<std::uint8_t> saved(SeqId seq);
  void restored(SeqId seq, std::span<const std::uint8_t> state);
  void use_adapter(llama_adapter_lora* weights, float scale);

 private:
  // What the decoder holds of a sequence and the block has not read yet.
  struct Unread {
    std::int32_t begin = 0;
    std::vector<Token> tokens;  // from place `begin` on
    std::vector<float> hidden;  // the model's, after each of them
    std::vector<float> before;  // the model's, at place begin - 1; empty: not known
    std::int32_t end() const { return begin + static_cast<std::int32_t>(tokens.size()); }
  };
  // A llama_batch as columns.
  struct Rows {
    std::vector<Token> token;
    std::vector<std::int32_t> pos;
    std::vector<SeqId> seq;
    std::vector<float> hidden;
    void clear();
  };
  struct Free {
    void operator()(llama_context* context) const;
  };
  MtpDraft(LlamaDecoder& decoder, std::unique_ptr<llama_context, Free> context, int width, float least_confidence);
  Result<void> measure();
  // The hidden state at the last place the decoder has computed; empty when it is not known.
  std::span<const float> last(const Unread& unread) const;
  void add(SeqId seq, std::int32_t pos, Token token, std::span<const float> before);
  void add_unread(SeqId seq);
  void set_read(SeqId seq);
  bool run(bool outputs);
  // Reads what is unread of every sequence that has at least `rows` of it, or of one.
  void read(std::size_t rows);
  void read_one(SeqId seq);
  void read(std::span<const SeqId> sequences);
  void forget(SeqId seq);
  Unread& unread(SeqId seq) { return unread_[static_cast<std::size_t>(seq)]; }

  LlamaDecoder& decoder_;
  std::unique_ptr<llama_context, Free> context_;
  const std::size_t width_;
  const float least_confidence_;
  std::size_t most_rows_ = 0, most_outputs_ = 0;  // of one pass
  std::int64_t bytes_per_cell_ = 0;
  bool adapter_changed_ = false;
  std::vector<Unread> unread_;
  Rows rows_;
  double milliseconds_per_token_ = 0, milliseconds_ = 0;
};

}  // namespace hearth::engine
