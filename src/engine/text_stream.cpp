#include "engine/text_stream.h"

#include <algorithm>

#include "base/utf8.h"

namespace hearth::engine {
namespace {

// Length of the longest suffix of `text` that is a proper prefix of `stop`.
std::size_t partial_match(std::string_view text, std::string_view stop) {
  for (std::size_t n = std::min(text.size(), stop.size() - 1); n > 0; --n) {
    if (text.substr(text.size() - n) == stop.substr(0, n)) return n;
  }
  return 0;
}

// `text` with every byte that is not part of a well-formed character replaced by U+FFFD.
std::string to_valid_utf8(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const std::size_t n = utf8_sequence_length(text);
    if (n == 0) {
      out += "\xEF\xBF\xBD";
      text.remove_prefix(1);
    } else {
      out += text.substr(0, n);
      text.remove_prefix(n);
    }
  }
  return out;
}

}  // namespace

TextStream::Released TextStream::push(std::string_view piece, const chat::TokenInfo* info) {
  if (info != nullptr) pending_.push_back({produced_, *info});
  const std::size_t old = held_.size();
  held_ += piece;
  produced_ += piece.size();

  Released out;
  std::size_t found = std::string::npos;
  for (std::size_t i = 0; i < stop_.size(); ++i) {
    const std::size_t from = old >= stop_[i].size() ? old - stop_[i].size() + 1 : 0;
    const std::size_t at = held_.find(stop_[i], from);
    if (at >= found) continue;
    found = at;
    out.stopped = i;
  }
  if (found != std::string::npos) {
    std::erase_if(pending_, [&](const Pending& p) { return p.start >= released_ + found; });
    release(found, out);
    held_.clear();
    return out;
  }
  std::size_t hold = 0;
  for (const auto& stop : stop_) hold = std::max(hold, partial_match(held_, stop));
  release(utf8_complete_prefix(std::string_view(held_).substr(0, held_.size() - hold)), out);
  return out;
}

TextStream::Released TextStream::finish() {
  Released out;
  release(held_.size(), out);
  return out;
}

void TextStream::release(std::size_t bytes, Released& out) {
  if (bytes > 0) {
    const std::string_view text = std::string_view(held_).substr(0, bytes);
    out.text = is_valid_utf8(text) ? std::string(text) : to_valid_utf8(text);
    held_.erase(0, bytes);
    released_ += bytes;
  }
  // A token without text of its own is due as soon as everything before it is out.
  while (!pending_.empty() && (pending_.front().start < released_ || (held_.empty() && pending_.front().start == released_))) {
    out.tokens.push_back(std::move(pending_.front().info));
    pending_.pop_front();
  }
}

}  // namespace hearth::engine
