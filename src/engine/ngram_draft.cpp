#include "engine/ngram_draft.h"

#include <algorithm>
#include <bit>

namespace hearth::engine {
namespace {

constexpr int most_candidates = 32;        // earlier occurrences looked at
constexpr std::size_t longest_match = 64;  // a longer one is no better

}  // namespace

std::size_t NgramIndex::slot(std::span<const Token> tokens, std::size_t end) const {
  std::uint64_t hash = 0x9E3779B97F4A7C15ULL;
  for (std::size_t i = end - static_cast<std::size_t>(n_); i < end; ++i)
    hash = (hash ^ static_cast<std::uint32_t>(tokens[i])) * 0xFF51AFD7ED558CCDULL;
  return static_cast<std::size_t>(hash >> 32) & (latest_.size() - 1);
}

void NgramIndex::add(std::span<const Token> tokens, std::size_t end) {
  std::int32_t& latest = latest_[slot(tokens, end)];
  previous_[end] = latest;
  latest = static_cast<std::int32_t>(end);
}

NgramIndex::Found NgramIndex::continuation(std::span<const Token> tokens, int limit) {
  const std::size_t size = tokens.size(), n = static_cast<std::size_t>(n_);
  if (size <= n || limit <= 0) return {};
  if (previous_.size() <= size) {
    // Twice as large each time, so that building anew stays cheap per token.
    latest_.assign(std::bit_ceil(2 * size + 64), 0);
    previous_.assign(latest_.size() / 2 + 1, 0);
    indexed_ = 0;
  }
  // All but the last: it is what is looked for.
  for (std::size_t end = std::max(n, indexed_ + 1); end < size; ++end) add(tokens, end);
  indexed_ = size - 1;
  std::size_t best = 0, best_length = n - 1;
  std::int32_t end = latest_[slot(tokens, size)];
  for (int i = 0; i < most_candidates && end != 0; ++i, end = previous_[static_cast<std::size_t>(end)]) {
    const auto at = static_cast<std::size_t>(end);
    std::size_t length = 0;
    while (length < at && length < longest_match && tokens[at - 1 - length] == tokens[size - 1 - length]) ++length;
    if (length <= best_length) continue;
    best = at;
    best_length = length;
  }
  Found out;
  if (best == 0) return out;
  out.match = static_cast<int>(best_length);
  out.tokens.reserve(static_cast<std::size_t>(limit));
  for (std::size_t at = best; out.tokens.size() < static_cast<std::size_t>(limit); ++at)
    out.tokens.push_back(at < size ? tokens[at] : out.tokens[at - size]);
  return out;
}

void NgramDraft::draft(std::span<Want> wants) {
  for (Want& want : wants) {
    NgramIndex::Found found = indices_[static_cast<std::size_t>(want.seq)].continuation(want.tokens, want.limit);
    want.draft = std::move(found.tokens);
    want.draft.erase(std::find_if(want.draft.begin(), want.draft.end(), is_placeholder), want.draft.end());  // nobody answers with an image
    // The longer the repetition, the likelier it goes on.
    want.evidence = found.match < 4 ? 0 : found.match < 6 ? 1 : found.match < 10 ? 2 : found.match < 20 ? 3 : 4;
  }
}

}  // namespace hearth::engine
