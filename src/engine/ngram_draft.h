// Prompt lookup: an edited file, a quoted passage, a repeated name – answers often repeat what the sequence holds already. The draft is what followed the
// longest earlier occurrence of the last tokens. No model, no memory worth naming: 12 bytes a token.
#pragma once

#include "engine/speculator.h"

namespace hearth::engine {

// All n-grams of one growing token sequence by what ends them. Adding a token takes constant time.
class NgramIndex {
 public:
  explicit NgramIndex(int shortest) : n_(shortest) {}
  struct Found {
    std::vector<Token> tokens;
    int match = 0;  // how many tokens at the end had occurred before
  };
  // What followed the longest earlier occurrence of the end of `tokens`, at most `limit` tokens; of equally long ones the latest. `tokens` begins with what
  // the last call was given. A repetition that reaches into its own continuation goes on round and round.
  Found continuation(std::span<const Token> tokens, int limit);

 private:
  void add(std::span<const Token> tokens, std::size_t end);
  std::size_t slot(std::span<const Token> tokens, std::size_t end) const;

  int n_;
  std::size_t indexed_ = 0;             // n-grams that end at or before here are in the index
  std::vector<std::int32_t> latest_;    // by hash: the last end of an n-gram with that hash; 0 = none
  std::vector<std::int32_t> previous_;  // by end: the end before with the same hash; 0 = none
};

class NgramDraft final : public DraftSource {
 public:
  NgramDraft(int sequences, int shortest) : shortest_(shortest), indices_(static_cast<std::size_t>(sequences), NgramIndex(shortest)) {}
  void draft(std::span<Want> wants) override;
  void drop(SeqId seq) override { indices_[static_cast<std::size_t>(seq)] = NgramIndex(shortest_); }
  std::optional<double> milliseconds_per_token() const override { return std::nullopt; }

 private:
  int shortest_;
  std::vector<NgramIndex> indices_;
};

}  // namespace hearth::engine
