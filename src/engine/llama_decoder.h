// The real Decoder: one llama_context over a loaded model, and the samplers that read its logits. Private to engine.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/backend.h"
#include "engine/decoder.h"
#include "engine/sampling.h"
#include "turboquant/backend.h"

struct llama_adapter_lora;
struct llama_batch;
struct llama_model;
struct llama_context;
struct llama_vocab;

namespace hearth::engine {

class MtpDraft;

// What LlamaDecoder::use_adapter takes. The weights live on while a context computes with them, even when nobody uses the adapter any more.
struct LlamaAdapter final : Adapter {
  LlamaAdapter(std::uint64_t number, std::shared_ptr<llama_adapter_lora> loaded, float factor)
      : Adapter(number), weights(std::move(loaded)), scale(factor) {}
  const std::shared_ptr<llama_adapter_lora> weights;
  const float scale;
};

struct LlamaDecoderOptions {
  int context = 0;     // KV cells in all; llama.cpp rounds up to a multiple of 256
  int sequences = 64;  // at most 256
  int batch = 512;     // rows of one decode()
  std::string kv_type = "f16";
  const turboquant::Backend* compression = nullptr;  // where the model's KV cache is, if it is compressed; outlives the decoder
  bool flash_attention = true;
};

class LlamaDecoder final : public Decoder {
 public:
  // `model` and `threads` outlive the decoder. Runs a few tokens through the model: that touches its weights once and measures a KV cell.
  static Result<std::unique_ptr<LlamaDecoder>> create(llama_model* model, const ThreadPool& threads, const LlamaDecoderOptions& options);
  ~LlamaDecoder() override;

  int context_cells() const override { return cells_; }
  int max_sequences() const override { return sequences_; }
  int max_batch() const override { return max_batch_; }
  int max_request_tokens() const override { return max_request_; }
  std::int64_t bytes_per_cell() const override;
  KvCost kv_cost() const override;
  bool can_share_prefix() const override { return can_share_; }
  bool saves_all_positions() const override { return saves_all_; }

  void use_adapter(const Adapter* adapter) override;
  Result<void> decode(std::span<const BatchToken> batch) override;
  void share(SeqId from, SeqId to, std::int32_t begin, std::int32_t end) override;
  void remove(SeqId seq, std::int32_t begin, std::int32_t end) override;
  Result<std::vector<std::uint8_t>> save(SeqId seq) override;
  Result<void> restore(SeqId seq, std::span<const std::uint8_t> state) override;
  Result<std::unique_ptr<Sampler>> make_sampler(const SamplerSpec& spec) override;
  std::string piece(Token token, bool special) const override;

  // Tells `reader` from here on what is computed, shared, removed, saved and restored, and lets it add to what is saved. Null: nobody. For models whose
  // positions have one dimension.
  void follow(MtpDraft* reader);
  std::size_t vocabulary() const;

  // The raw logits of a row of the last decode(); empty for a row without output.
  std::span<const float> logits(int row) const;
  // The same row's number in llama.cpp's last batch.
  int context_row(int row) const { return text_row_.empty() ? row : text_row_[static_cast<std::size_t>(row)]; }

 private:
  LlamaDecoder(llama_model* model, llama_context* context);
  using Rows = std::vector<const BatchToken*>;
  // Where an image stands in a sequence whose positions have several dimensions: it has many rows and takes few positions.
  struct Span {
    std::int32_t begin = 0, rows = 0, positions = 0;
  };
  Result<void> measure(int first);  // the first token that counts
  int compute(const llama_batch& batch);
  Result<void> run(const Rows& rows);
  void forget(const Rows& rows);
  std::int32_t position(SeqId seq, std::int32_t place) const;
  std::vector<std::uint8_t> sequence_state(SeqId seq) const;
  void note(SeqId seq, Span span);

  llama_model* model_;
  const llama_vocab* vocab_;
  llama_context* context_;
  int cells_ = 0, sequences_ = 0, max_batch_ = 0, max_request_ = 0;
  std::int64_t bytes_per_cell_ = 0;
  bool can_share_ = false;
  bool saves_all_ = false;
  std::shared_ptr<llama_adapter_lora> adapter_;  // in use
  bool adapter_changed_ = false;
  const turboquant::Backend* compression_ = nullptr;
  MtpDraft* reader_ = nullptr;
  int width_ = 0;                         // of an image's row
  int whole_rows_ = 0;                    // of an image that is computed in one pass, at most
  std::vector<std::vector<Span>> spans_;  // by sequence, in order; where positions have one dimension, none: then a place is a position
  std::vector<bool> lost_;                // by sequence: a failed pass took a part of it that cannot be computed alone
  Rows text_, images_, whole_;            // of the current batch
  std::vector<int> text_row_;             // by row of the batch: its place among text_; empty when there are no images
  // llama_batch as columns, kept between calls.
  std::vector<std::int32_t> token_, pos_, seq_, seq_count_;
  std::vector<std::int32_t*> seq_list_;
  std::vector<std::int8_t> output_;
  std::vector<float> values_;
};

// Whether a sampler can be made from them: a grammar that does not parse is found here, before the scheduler's thread sees it. Any thread.
Result<void> check_constraints(const llama_model* model, const Constraints& constraints);

// ggml's number for "f16", "q8_0" or "q4_0".
Result<int> kv_type_from_name(const std::string& name);

// Index of the largest logit (the first of equals); -1 when every one is NaN or -inf.
Token argmax(std::span<const float> logits);
// The most likely token; -1 where its probability is below `least`.
Token confident(std::span<const float> logits, float least);
// The `count` largest logits with their tokens, best first; equal ones by token. NaN is passed over.
std::vector<std::pair<float, Token>> best_logits(std::span<const float> logits, std::size_t count);
// Softmax of the raw logits: log-probability of `token`, entropy in nats, the `top` best. Leaves the tokens' bytes empty.
chat::TokenInfo describe(std::span<const float> logits, Token token, int top);

}  // namespace hearth::engine
