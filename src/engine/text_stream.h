// Tokens are not text: a piece may end inside a character, and a stop string may start in one token and end three later. TextStream turns pieces
// into text that is safe to send: whole characters only, nothing that might still become part of a stop string, nothing from a stop string on.
#pragma once

#include <cstddef>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "chat/event.h"

namespace hearth::engine {

class TextStream {
 public:
  explicit TextStream(std::vector<std::string> stop) : stop_(std::move(stop)) {}

  struct Released {
    std::string text;
    std::vector<chat::TokenInfo> tokens;  // those whose text starts within what has been released
    // The stop string that was found, by its place in the list: the answer is complete.
    std::optional<std::size_t> stopped;
  };
  // One token's piece, with its info if wanted.
  Released push(std::string_view piece, const chat::TokenInfo* info = nullptr);
  // The answer ends: whatever is held back. A cut character becomes U+FFFD.
  Released finish();

 private:
  struct Pending {
    std::size_t start;  // offset of the token's text in the whole answer
    chat::TokenInfo info;
  };
  void release(std::size_t bytes, Released& out);

  std::vector<std::string> stop_;
  std::string held_;
  std::size_t released_ = 0;  // bytes of the whole answer already given out
  std::size_t produced_ = 0;  // bytes of the whole answer so far
  std::deque<Pending> pending_;
};

}  // namespace hearth::engine
