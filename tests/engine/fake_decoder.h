// A decoder without a model: its KV memory is a table of cells, and the next token is a pure function of the exact tokens the memory holds for a
// sequence and of the adapter each was computed under. Whatever the scheduler mixes up – a wrong position, a shared cell of another prefix or
// adapter, a bad restore – changes the tokens.
#pragma once

#include <algorithm>
#include <bitset>
#include <cstring>
#include <functional>
#include <map>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "engine/decoder.h"
#include "engine/sampling.h"

namespace hearth::engine {

inline Token next_token(std::span<const Token> history, std::uint32_t seed) {
  std::uint64_t h = 1469598103934665603ULL ^ seed;
  for (Token t : history) h = (h ^ static_cast<std::uint64_t>(t)) * 1099511628211ULL;
  return static_cast<Token>((h >> 20) % 997);
}

// What a cell holds of `token` when it is computed under an adapter.
inline Token under(std::uint64_t adapter, Token token) { return token ^ static_cast<Token>(adapter << 20); }

class FakeDecoder final : public Decoder {
 public:
  static constexpr std::size_t most_sequences = 256;
  struct Cell {
    std::int32_t pos = 0;
    Token token = 0;
    std::bitset<most_sequences> holders;
  };

  FakeDecoder(int cell_count, int sequences, int batch = 512)
      : cells(static_cast<std::size_t>(cell_count)), sequences_(sequences), batch_(batch) {}

  int context_cells() const override { return static_cast<int>(cells.size()); }
  int max_sequences() const override { return sequences_; }
  int max_batch() const override { return batch_; }
  int max_request_tokens() const override { return request_limit > 0 ? request_limit : context_cells(); }
  std::int64_t bytes_per_cell() const override { return 8; }
  bool can_share_prefix() const override { return shares; }
  bool saves_all_positions() const override { return saves_all; }

  void use_adapter(const Adapter* adapter) override { adapter_ = adapter == nullptr ? 0 : adapter->id; }
  Result<void> decode(std::span<const BatchToken> batch) override {
    ++decodes;
    if (batch.size() > static_cast<std::size_t>(batch_)) throw std::logic_error("batch larger than max_batch");
    for (const auto& row : batch) {
      if (row.token == poison) return internal_error("poisoned token");
    }
    if (used() + static_cast<int>(batch.size()) > context_cells()) throw std::logic_error("more cells than there are");
    if (on_decode) on_decode(static_cast<int>(batch.size()));
    check_images(batch);
    outputs_.assign(batch.size(), {});
    std::size_t free = 0;
    for (std::size_t i = 0; i < batch.size(); ++i) {
      const auto& row = batch[i];
      while (cells[free].holders.any()) ++free;
      if (row.pos != length(row.seq))
        throw std::logic_error("position " + std::to_string(row.pos) + " does not continue sequence " + std::to_string(row.seq));
      cells[free] = {row.pos, under(adapter_, row.token), {}};
      cells[free].holders.set(static_cast<std::size_t>(row.seq));
      if (row.output) outputs_[i] = history(row.seq);
      decoded_rows.push_back(row);
    }
    return {};
  }
  void share(SeqId from, SeqId to, std::int32_t begin, std::int32_t end) override {
    check_cut(from, begin);
    check_cut(from, end);
    for (auto& cell : cells) {
      if (cell.holders.test(static_cast<std::size_t>(from)) && cell.pos >= begin && cell.pos < end)
        cell.holders.set(static_cast<std::size_t>(to));
    }
  }
  void remove(SeqId seq, std::int32_t begin, std::int32_t end) override {
    check_cut(seq, begin);
    check_cut(seq, end);
    for (auto& cell : cells) {
      if (cell.pos >= begin && (end < 0 || cell.pos < end)) cell.holders.reset(static_cast<std::size_t>(seq));
    }
  }
  Result<std::vector<std::uint8_t>> save(SeqId seq) override {
    ++saves;
    std::vector<std::uint8_t> state;
    for (const auto& cell : cells) {
      if (!cell.holders.test(static_cast<std::size_t>(seq))) continue;
      const std::int32_t entry[2] = {cell.pos, cell.token};
      const auto* bytes = reinterpret_cast<const std::uint8_t*>(entry);
      state.insert(state.end(), bytes, bytes + sizeof entry);
    }
    return state;
  }
  Result<void> restore(SeqId seq, std::span<const std::uint8_t> state) override {
    const std::size_t count = state.size() / (2 * sizeof(std::int32_t));
    if (used() + static_cast<int>(count) > context_cells()) throw std::logic_error("no cells to restore into");
    if (length(seq) != 0) throw std::logic_error("restore into a sequence in use");
    for (std::size_t i = 0; i < count; ++i) {
      std::int32_t entry[2];
      std::memcpy(entry, state.data() + i * sizeof entry, sizeof entry);
      auto& cell = *std::find_if(cells.begin(), cells.end(), [](const Cell& c) { return c.holders.none(); });
      cell = {entry[0], entry[1], {}};
      cell.holders.set(static_cast<std::size_t>(seq));
    }
    return {};
  }
  Result<std::unique_ptr<Sampler>> make_sampler(const SamplerSpec& spec) override {
    return std::unique_ptr<Sampler>(new FakeSampler(*this, spec.seed));
  }
  std::string piece(Token token, bool) const override { return pieces ? pieces(token) : "<" + std::to_string(token) + ">"; }

  int used() const {
    return static_cast<int>(std::count_if(cells.begin(), cells.end(), [](const Cell& c) { return c.holders.any(); }));
  }
  int length(SeqId seq) const {
    return static_cast<int>(
        std::count_if(cells.begin(), cells.end(), [&](const Cell& c) { return c.holders.test(static_cast<std::size_t>(seq)); }));
  }
  std::vector<Token> history(SeqId seq) const {
    std::vector<const Cell*> mine;
    for (const auto& cell : cells) {
      if (cell.holders.test(static_cast<std::size_t>(seq))) mine.push_back(&cell);
    }
    std::sort(mine.begin(), mine.end(), [](const Cell* a, const Cell* b) { return a->pos < b->pos; });
    std::vector<Token> tokens;
    for (std::size_t i = 0; i < mine.size(); ++i) {
      if (mine[i]->pos != static_cast<std::int32_t>(i))
        throw std::logic_error("sequence " + std::to_string(seq) + " has a hole or a double at " + std::to_string(i));
      tokens.push_back(mine[i]->token);
    }
    return tokens;
  }

  std::vector<Cell> cells;
  bool shares = true;
  bool saves_all = true;
  int request_limit = 0;
  Token poison = -1;     // a batch with this token fails
  Token end_token = -1;  // sampled: ends the sequence
  std::function<std::string(Token)> pieces;
  std::function<void(int rows)> on_decode;  // lets time pass
  int decodes = 0, saves = 0;
  std::vector<BatchToken> decoded_rows;

 private:
  // Text and images apart, no image's row without its image, and all rows at once where they must be.
  static void check_images(std::span<const BatchToken> batch) {
    std::map<SeqId, std::vector<const BatchToken*>> sequences;
    for (const auto& row : batch) {
      const ImageRows* image = row.image;
      if ((image != nullptr) != is_placeholder(row.token))
        throw std::logic_error("a placeholder without its image, or the other way round");
      if (image != nullptr && (row.token > image->first || row.token <= image->first - image->count || row.output))
        throw std::logic_error("a row of another image, or one with output");
      sequences[row.seq].push_back(&row);
    }
    for (const auto& [seq, rows] : sequences) {
      const ImageRows* image = rows.front()->image;
      for (const auto* row : rows) {
        if (row->image != image) throw std::logic_error("text and images of one sequence in one batch");
      }
      if (image != nullptr && image->whole && static_cast<int>(rows.size()) != image->count) throw std::logic_error("half an image");
    }
  }
  void check_cut(SeqId seq, std::int32_t at) const {
    Token before = 0, after = 0;
    for (const auto& cell : cells) {
      if (!cell.holders.test(static_cast<std::size_t>(seq))) continue;
      if (cell.pos == at - 1) before = cell.token;
      if (cell.pos == at) after = cell.token;
    }
    if (is_placeholder(before) && after == before - 1) throw std::logic_error("an image is cut at " + std::to_string(at));
  }
  class FakeSampler final : public Sampler {
   public:
    FakeSampler(FakeDecoder& decoder, std::uint32_t seed) : decoder_(decoder), seed_(seed) {}
    Result<SampledToken> sample(int row) override {
      const auto& history = decoder_.outputs_.at(static_cast<std::size_t>(row));
      if (history.empty()) throw std::logic_error("sampled a row without output");
      const Token token = next_token(history, seed_);
      return SampledToken{token, token == decoder_.end_token};
    }
    chat::TokenInfo info(int row, Token token, int) override {
      chat::TokenInfo info;
      info.chosen.token = token;
      info.chosen.bytes = decoder_.piece(token, false);
      info.chosen.logprob = -static_cast<float>(decoder_.outputs_.at(static_cast<std::size_t>(row)).size());
      return info;
    }

   private:
    FakeDecoder& decoder_;
    std::uint32_t seed_;
  };

  int sequences_;
  int batch_;
  std::uint64_t adapter_ = 0;
  std::vector<std::vector<Token>> outputs_;
};

}  // namespace hearth::engine
