// The selective buffer. A tool call must be judged as a whole before any of it leaves, while text must not wait for anything. So this stands around an answer's events:
// what is no call passes in the turn it arrives; of a call nothing passes, from its first byte, until somebody has ruled on it. What is not understood, not complete or
// over a bound is never released, whatever fails.
#pragma once

#include <boost/asio/io_context.hpp>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>

#include "chat/request.h"
#include "wire/provider.h"

namespace hearth::safety {

struct HoldLimits {
  std::size_t call_bytes = std::size_t{1} << 20;    // of one call: id, name and arguments
  std::size_t choice_bytes = std::size_t{4} << 20;  // everything of one choice that waits
  int calls = 64;                                   // of one choice, in one answer
};

// What becomes of a held call.
struct Ruling {
  bool release = false;
  std::string arguments;  // released: with these arguments instead of its own; empty: byte for byte
  std::string text;       // refused: what stands in its place
};

// Rules on calls. On the loop, like the stream.
class Arbiter {
 public:
  virtual ~Arbiter() = default;
  // A call that waits for its ruling. Destroying it withdraws the question: no ruling comes any more.
  class Question {
   public:
    virtual ~Question() = default;
  };
  // Begins to rule on a complete call. `ruled` is called once, and not before this has returned.
  virtual std::unique_ptr<Question> ask(const chat::ToolCall& call, std::function<void(Ruling)> ruled) = 0;
  // The buffer refuses a call itself; `call` is as far as it is known. Gives the text that stands in its place. `broken`: it came to nothing because the answer broke off.
  virtual std::string refuse(const chat::ToolCall& call, std::string_view rule, std::string_view why, bool broken) = 0;
};

// Events and, where `raw`, the upstream's own frames pass, calls are held. Calls that are refused become text; those behind them are numbered without gaps; a choice whose
// calls were all refused finishes with `stop`. The explanation's "safety" says `word`, and how many calls were released and refused.
std::unique_ptr<wire::EventStream> hold_calls(net::asio::io_context& io, std::unique_ptr<wire::EventStream> inner,
                                              std::unique_ptr<Arbiter> arbiter, HoldLimits limits, bool raw, std::string word);

}  // namespace hearth::safety
