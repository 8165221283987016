#include "safety/argus_documents.h"

#include <deque>

namespace hearth::safety::argus {
namespace {

constexpr std::uint64_t base = 0x9E3779B97F4A7C15ULL | 1;
constexpr std::size_t fewest = 6;       // fingerprints of a document
constexpr std::size_t passage = 12;     // fingerprints that are judged together: about 80 characters
constexpr std::size_t fewest_hits = 3;  // of them, at least

constexpr std::uint64_t mix(std::uint64_t x) {  // splitmix64's finalizer
  x ^= x >> 30;
  x *= 0xBF58476D1CE4E5B9ULL;
  x ^= x >> 27;
  x *= 0x94D049BB133111EBULL;
  return x ^ (x >> 31);
}

struct Fingerprint {
  std::uint64_t hash;
  std::size_t begin, end;  // of its shingle, in the text
};

std::vector<Fingerprint> winnow(std::string_view text) {
  constexpr std::size_t k = Documents::shingle, w = Documents::window;
  std::uint64_t highest = 1;
  for (std::size_t i = 1; i < k; ++i) highest *= base;
  struct Letter {
    std::uint64_t value;
    std::size_t begin, end;
  };
  std::deque<Letter> letters;      // of the current shingle
  std::deque<Fingerprint> minima;  // of the current window, hashes rising
  std::vector<Fingerprint> kept;
  std::uint64_t rolling = 0;
  std::size_t shingles = 0;
  std::size_t last_kept = static_cast<std::size_t>(-1);
  std::deque<std::size_t> numbers;  // of the minima
  for (std::size_t i = 0; i < text.size();) {
    const std::size_t begin = i;
    std::uint64_t value = 0;
    const auto c = static_cast<unsigned char>(text[i]);
    if (c < 0x80) {
      ++i;
      if (!is_alnum(static_cast<char>(c))) continue;
      value = static_cast<unsigned char>(to_lower(static_cast<char>(c)));
    } else {
      std::size_t n = 0;
      const char32_t character = decode_utf8(text, i, n);
      i += std::max<std::size_t>(n, 1);
      const char plain = n == 0 ? removed : fold(character);
      if (plain == removed || (plain != 0 && !is_alnum(plain))) continue;
      value = plain != 0 ? static_cast<std::uint64_t>(to_lower(plain)) : static_cast<std::uint64_t>(character);
    }
    if (letters.size() == k) {
      rolling -= letters.front().value * highest;
      letters.pop_front();
    }
    letters.push_back({mix(value), begin, i});
    rolling = rolling * base + letters.back().value;
    if (letters.size() < k) continue;
    const Fingerprint candidate{mix(rolling), letters.front().begin, i};
    while (!minima.empty() && minima.back().hash >= candidate.hash) minima.pop_back(), numbers.pop_back();
    minima.push_back(candidate);
    numbers.push_back(shingles++);
    if (numbers.front() + w < shingles) minima.pop_front(), numbers.pop_front();
    if (shingles >= w && numbers.front() != last_kept) {
      last_kept = numbers.front();
      kept.push_back(minima.front());
    }
  }
  // Shorter than a window: its least shingle stands for it.
  if (kept.empty() && !minima.empty()) kept.push_back(minima.front());
  return kept;
}

}  // namespace

Result<void> Documents::protect(std::string name, std::string_view text) {
  const auto fingerprints = winnow(text);
  if (fingerprints.size() < fewest) {
    return invalid("document \"" + name + "\" is too short to be told apart: it needs about " +
                   std::to_string(fewest * window / 2 + shingle) + " letters and digits at least");
  }
  const auto index = static_cast<std::uint32_t>(names_.size());
  names_.push_back(std::move(name));
  for (const auto& fingerprint : fingerprints) fingerprints_.emplace(fingerprint.hash, index);
  return {};
}

void Documents::find(std::string_view text, double similarity, Hits& hits) const {
  const auto all = winnow(text);
  if (all.empty()) return;
  std::vector<std::uint32_t> documents(all.size());  // index + 1; 0: of none
  std::size_t known = 0;
  for (std::size_t i = 0; i < all.size(); ++i) {
    const auto found = fingerprints_.find(all[i].hash);
    documents[i] = found == fingerprints_.end() ? 0 : found->second + 1;
    known += documents[i] != 0 ? 1 : 0;
  }
  if (known == 0) return;
  const std::size_t span = std::min(passage, all.size());
  const std::size_t needed = std::min(fewest_hits, span);
  std::size_t inside = 0;
  for (std::size_t i = 0; i < all.size(); ++i) {
    inside += documents[i] != 0 ? 1 : 0;
    if (i >= span) inside -= documents[i - span] != 0 ? 1 : 0;
    if (i + 1 < span || inside < needed || static_cast<double>(inside) < similarity * static_cast<double>(span)) continue;
    // From the first to the last shingle of the passage that is a document's.
    std::size_t first = i + 1 - span, last = i;
    while (documents[first] == 0) ++first;
    while (documents[last] == 0) --last;
    const Span place{all[first].begin, all[last].end};
    const double share = static_cast<double>(inside) / static_cast<double>(span);
    if (!hits.empty() && hits.back().kind == Spill::document && hits.back().span.end >= place.begin) {
      hits.back().span.end = hits.back().reach.end = std::max(hits.back().span.end, place.end);
      hits.back().confidence = std::max(hits.back().confidence, share);
      continue;
    }
    hits.push_back({.kind = Spill::document,
                    .detector = "protected_document",
                    .span = place,
                    .reach = place,
                    .level = names_[documents[first] - 1],
                    .confidence = share});
  }
}

}  // namespace hearth::safety::argus
