// What the scheduler drives: a model's forward pass over a batch, its KV memory, and samplers. LlamaDecoder (llama.cpp) is the real one; tests
// use a fake whose next token is a pure function of the exact token history in its KV, so that any mix-up of sequences shows at once.
// All calls come from the scheduler's one thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "chat/event.h"

namespace hearth::engine {

using Token = std::int32_t;
using SeqId = std::int32_t;

// A piece of an image as the model reads it: rows of numbers where text has tokens. In a sequence every row has a placeholder, a negative number: `first`
// for row 0, one less for each further one. They stand for the content: where two sequences have the same placeholder, they have the same row. Numbers
// of two pieces never touch, so that the tokens alone tell where one ends.
struct ImageRows {
  struct Place {
    std::int32_t t = 0, y = 0, x = 0;  // from where the piece begins
  };
  Token first = 0;
  int count = 0;
  int positions = 0;          // taken by the whole piece: `count`, unless positions have several dimensions
  bool whole = false;         // each row looks at all others: they are computed in one pass
  std::vector<float> values;  // count x the model's input width
  std::vector<Place> places;  // of each row, where positions have several dimensions; else empty
};
using ImagePtr = std::shared_ptr<const ImageRows>;

constexpr Token first_placeholder = -2;  // -1 says "none" in many places
inline bool is_placeholder(Token token) { return token <= first_placeholder; }
// Whether a cut before tokens[at] would divide a piece of an image.
inline bool inside_image(std::span<const Token> tokens, std::size_t at) {
  return at > 0 && at < tokens.size() && is_placeholder(tokens[at - 1]) && tokens[at] == tokens[at - 1] - 1;
}

// One row of a batch: `token` at place `pos` of sequence `seq`, counted in tokens and placeholders.
struct BatchToken {
  Token token = 0;
  std::int32_t pos = 0;
  SeqId seq = 0;
  bool output = false;               // compute logits for this row; never for an image's
  const ImageRows* image = nullptr;  // the row is this image's, and `token` its placeholder
};

// A LoRA adapter, loaded for one decoder's model. Whoever uses it holds it.
struct Adapter {
  explicit Adapter(std::uint64_t number) : id(number) {}
  virtual ~Adapter() = default;
  Adapter(const Adapter&) = delete;
  Adapter& operator=(const Adapter&) = delete;
  const std::uint64_t id;  // from 1, never given to another
};
using AdapterPtr = std::shared_ptr<const Adapter>;  // null: the model alone
inline std::uint64_t id_of(const AdapterPtr& adapter) { return adapter ? adapter->id : 0; }

struct SampledToken {
  Token token = 0;
  bool end = false;  // an end-of-generation token: its text is not part of the answer
};

// The chain of samplers of one sequence, with its random state, penalties history and grammar. Made by the decoder, used on its thread.
class Sampler {
 public:
  virtual ~Sampler() = default;
  // Chooses from the logits of batch row `row` of the last decode() and records the choice.
  virtual Result<SampledToken> sample(int row) = 0;
  // Log-probability and entropy of `token` at `row`, with the `top` best alternatives, of the model's raw distribution.
  virtual chat::TokenInfo info(int row, Token token, int top) = 0;
};

struct SamplerSpec;  // engine/sampling.h

class Decoder {
 public:
  virtual ~Decoder() = default;
  virtual int context_cells() const = 0;       // KV cells in all, shared by every sequence
  virtual int max_sequences() const = 0;       // valid SeqIds are 0 … max_sequences()-1
  virtual int max_batch() const = 0;           // rows one decode() accepts
  virtual int max_request_tokens() const = 0;  // longest sequence the model supports, ≤ context_cells()
  virtual std::int64_t bytes_per_cell() const = 0;
  // What all cells take, used or not, and how long keys and values have been compressed and attended to since the decoder was made, where it does that itself.
  struct KvCost {
    std::int64_t bytes = 0;
    std::chrono::microseconds encoding{0}, attention{0};
  };
  virtual KvCost kv_cost() const { return {.bytes = context_cells() * bytes_per_cell()}; }
  // Whether part of a sequence can be removed and copied (not so for recurrent models): without it, no prefix is ever shared.
  virtual bool can_share_prefix() const = 0;
  // Whether save() keeps every position of a sequence; not so with sliding-window attention, where only what the end can still see is kept.
  virtual bool saves_all_positions() const = 0;

  // What every decode() from here on computes with: the model and `adapter`, or the model alone. Costs some milliseconds where it changes.
  virtual void use_adapter(const Adapter* adapter) = 0;
  // Runs the batch. The rows of one sequence are all text or all of one piece of an image. On failure nothing of the batch stays in the KV memory.
  virtual Result<void> decode(std::span<const BatchToken> batch) = 0;
  // Makes positions [begin, end) of `from` also belong to `to`, without copying cells. No cut, here and below, divides an image.
  virtual void share(SeqId from, SeqId to, std::int32_t begin, std::int32_t end) = 0;
  // Drops positions [begin, end) of `seq`, end = -1 for all from `begin`; cells that no sequence holds any more become free.
  virtual void remove(SeqId seq, std::int32_t begin, std::int32_t end) = 0;
  // The KV state of the positions that `seq` holds as bytes, and back into an empty sequence: decoding goes on exactly as if they had never left.
  virtual Result<std::vector<std::uint8_t>> save(SeqId seq) = 0;
  virtual Result<void> restore(SeqId seq, std::span<const std::uint8_t> state) = 0;

  virtual Result<std::unique_ptr<Sampler>> make_sampler(const SamplerSpec& spec) = 0;
  // The text of one token; may be part of a character. Special tokens give nothing unless `special`.
  virtual std::string piece(Token token, bool special) const = 0;
};

}  // namespace hearth::engine
