#include "turboquant/visible.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "turboquant/attention.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace hearth::turboquant {
namespace {

constexpr std::size_t kMostDifferences = 64;  // between neighbouring rows that may share a list: more is another sequence

// 64 entries of a mask as bits: what is seen. False where the mask adds something to one of them.
bool scan(const std::uint16_t* mask, int count, std::uint64_t& bits) {
  bits = 0;
  bool plain = true;
  int t = 0;
#if defined(__x86_64__)
  __m128i added = _mm_setzero_si128();
  for (; t + 16 <= count; t += 16) {
    const __m128i a = _mm_loadu_si128(reinterpret_cast<const __m128i*>(mask + t)),
                  b = _mm_loadu_si128(reinterpret_cast<const __m128i*>(mask + t + 8)), hidden = _mm_set1_epi16(static_cast<short>(kHidden));
    const __m128i no_a = _mm_cmpeq_epi16(a, hidden), no_b = _mm_cmpeq_epi16(b, hidden);
    const auto no = static_cast<std::uint64_t>(static_cast<unsigned>(_mm_movemask_epi8(_mm_packs_epi16(no_a, no_b))));
    bits |= (no ^ 0xffffU) << t;
    added = _mm_or_si128(added, _mm_or_si128(_mm_andnot_si128(no_a, a), _mm_andnot_si128(no_b, b)));
  }
  added = _mm_slli_epi16(added, 1);  // −0 adds nothing
  plain = _mm_movemask_epi8(_mm_cmpeq_epi8(added, _mm_setzero_si128())) == 0xffff;
#endif
  for (; t < count; ++t) {
    if (mask[t] == kHidden) continue;
    bits |= std::uint64_t{1} << t;
    plain = plain && (mask[t] & 0x7fffU) == 0;
  }
  return plain;
}

}  // namespace

std::uint64_t VisibleTokens::order(std::int32_t token, int stream) const {
  return order_ == nullptr ? 0 : order_[static_cast<std::size_t>(stream) * order_stride_ + static_cast<std::size_t>(token)];
}
bool VisibleTokens::earlier(std::int32_t a, std::int32_t b, int stream) const {
  return std::pair(order(a, stream), a) < std::pair(order(b, stream), b);
}

// At the end of the list.
void VisibleTokens::append(std::int32_t token) {
  Group& group = groups_.back();
  if (group.runs > 0 && runs_.back().first + runs_.back().count == token) {
    ++runs_.back().count;
  } else {
    runs_.push_back({token, 1, group.count});
    ++group.runs;
  }
  ++group.count;
  last_ = token;
}

// The whole list of a row, for a new group.
void VisibleTokens::start(const Row& row, int stream) {
  Group& group = groups_.back();
  group.first_run = runs_.size();
  // Stretches of neighbours, in memory and in time.
  for (std::size_t word = 0; word < row.bits.size(); ++word) {
    for (std::uint64_t bits = row.bits[word]; bits != 0;) {
      const int from = std::countr_zero(bits), length = std::countr_one(bits >> from);
      const auto first = static_cast<std::int32_t>(64 * word) + from;
      std::int32_t begin = first;
      if (runs_.size() > group.first_run && runs_.back().first + runs_.back().count == first && !earlier(first, first - 1, stream)) {
        begin = runs_.back().first;
        runs_.pop_back();
      }
      for (std::int32_t t = first + 1; order_ != nullptr && t < first + length; ++t) {
        if (!earlier(t, t - 1, stream)) continue;
        runs_.push_back({begin, t - begin, 0});
        begin = t;
      }
      runs_.push_back({begin, first + length - begin, 0});
      bits = from + length == 64 ? 0 : bits & (~std::uint64_t{0} << (from + length));
    }
  }
  const auto own = runs_.begin() + static_cast<std::ptrdiff_t>(group.first_run);
  const auto follows = [&](const Run& a, const Run& b) { return earlier(a.first + a.count - 1, b.first, stream); };
  const auto sorted = [&] {
    return std::adjacent_find(own, runs_.end(), [&](const Run& a, const Run& b) { return !follows(a, b); }) == runs_.end();
  };
  if (!sorted()) std::sort(own, runs_.end(), [&](const Run& a, const Run& b) { return earlier(a.first, b.first, stream); });
  if (sorted()) {
    group.runs = runs_.size() - group.first_run;
    for (auto run = own; run != runs_.end(); ++run) {
      run->rank = group.count;
      group.count += run->count;
      last_ = run->first + run->count - 1;
    }
  } else {  // stretches that were written at the same time
    std::vector<std::int32_t> all;
    for (auto run = own; run != runs_.end(); ++run) {
      for (std::int32_t i = 0; i < run->count; ++i) all.push_back(run->first + i);
    }
    std::sort(all.begin(), all.end(), [&](std::int32_t a, std::int32_t b) { return earlier(a, b, stream); });
    runs_.resize(group.first_run);
    for (const std::int32_t token : all) append(token);
  }
  group.plain_end = row.plain ? group.count : 0;
  front_run_ = group.first_run;
  front_skip_ = 0;
}

// Whether the list also serves a row that sees all the row before did, less some of its first tokens, and then later ones; it then has these too.
bool VisibleTokens::extend(const Row& before, const Row& row, int stream) {
  Group& group = groups_.back();
  added_.clear();
  removed_.clear();
  for (std::size_t word = 0; word < row.bits.size(); ++word) {
    for (std::uint64_t differ = row.bits[word] ^ before.bits[word]; differ != 0; differ &= differ - 1) {
      const int bit = std::countr_zero(differ);
      const bool seen = (row.bits[word] >> bit & 1U) != 0;
      (seen ? added_ : removed_).push_back(static_cast<std::int32_t>(64 * word) + bit);
    }
    if (added_.size() + removed_.size() > kMostDifferences) return false;
  }
  const auto in_time = [&](std::int32_t a, std::int32_t b) { return earlier(a, b, stream); };
  std::sort(added_.begin(), added_.end(), in_time);
  std::sort(removed_.begin(), removed_.end(), in_time);
  if (group.count == 0 ? !added_.empty() : !added_.empty() && !earlier(last_, added_.front(), stream)) return false;
  std::size_t run = front_run_;
  std::int32_t skip = front_skip_;
  for (const std::int32_t token : removed_) {
    if (run == runs_.size() || runs_[run].first + skip != token) return false;
    if (++skip == runs_[run].count) ++run, skip = 0;
  }
  if (!removed_.empty() && run == runs_.size()) return false;  // nothing in common
  front_run_ = run;
  front_skip_ = skip;
  if (!removed_.empty()) group.plain_begin = std::max(group.plain_begin, runs_[run].rank + skip);
  if (!row.plain) group.plain_end = 0;
  for (const std::int32_t token : added_) append(token);
  return true;
}

void VisibleTokens::build(const Attention& a) {
  const int group = a.heads / a.kv_heads;
  order_ = a.order;
  order_stride_ = a.order_stream_stride;
  // A mask that serves several streams serves them in one order only.
  mask_streams_ = a.order == nullptr || a.streams == 1 ? (a.mask == nullptr ? 1 : a.mask_streams) : a.streams;
  kv_heads_ = a.mask == nullptr || a.mask_heads == 1 ? 1 : a.kv_heads;
  blocks_ = (group * a.queries + kRows - 1) / kRows;
  longest_ = 0;
  begin_.clear();
  groups_.clear();
  runs_.clear();
  for (Row* row : {&row_, &before_}) row->bits.assign(static_cast<std::size_t>(a.tokens + 63) / 64, 0);
  for (int stream = 0; stream < mask_streams_; ++stream) {
    for (int kv_head = 0; kv_head < kv_heads_; ++kv_head) {
      for (int block = 0; block < blocks_; ++block) {
        begin_.push_back(groups_.size());
        const std::uint16_t* latest = nullptr;
        bool first = true;
        for (int r = 0; r < std::min(kRows, group * a.queries - block * kRows); ++r) {
          const int index = block * kRows + r;
          const std::uint16_t* mask = mask_row(a, stream, kv_head * group + index % group, index / group);
          if (first || mask != latest) {
            std::swap(row_, before_);
            row_.plain = true;
            for (int t = 0; t < a.tokens; t += 64) {
              const int count = std::min(64, a.tokens - t);
              std::uint64_t& bits = row_.bits[static_cast<std::size_t>(t) / 64];
              if (mask == nullptr) {
                bits = ~std::uint64_t{0} >> (64 - count);
              } else if (!scan(mask + t, count, bits)) {
                row_.plain = false;
              }
            }
            if (first || !extend(before_, row_, stream)) {
              groups_.push_back({.first_row = r});
              start(row_, stream);
            }
            latest = mask;
            first = false;
          }
          ++groups_.back().rows;
        }
        for (std::size_t g = begin_.back(); g < groups_.size(); ++g) longest_ = std::max(longest_, groups_[g].count);
      }
    }
  }
  begin_.push_back(groups_.size());
}

std::span<const VisibleTokens::Group> VisibleTokens::groups(int stream, int kv_head, int block) const {
  const int at = ((stream % mask_streams_) * kv_heads_ + (kv_heads_ == 1 ? 0 : kv_head)) * blocks_ + block;
  const auto index = static_cast<std::size_t>(at);
  return std::span(groups_).subspan(begin_[index], begin_[index + 1] - begin_[index]);
}

}  // namespace hearth::turboquant
