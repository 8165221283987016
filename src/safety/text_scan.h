// The model's own text, looked through for what must not leave. Text cannot wait as calls do: a reader watches it come. So only its last bytes are held back, just enough that
// what is split over pieces is seen before its first byte has left.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "safety/argus.h"
#include "wire/provider.h"

namespace hearth::safety {

enum class TextCheck {
  off,     // nobody looks
  audit,   // text passes in the turn it arrives; what is found is recorded
  redact,  // what is found is replaced by stand-ins
  deny,    // the choice ends where the policy refuses what is found
};
std::string_view name(TextCheck check);

// Rules on what was found. On the loop, like the stream.
class TextArbiter {
 public:
  virtual ~TextArbiter() = default;
  struct Stop {
    std::size_t match = 0;  // from which on nothing more of the choice is said
    std::string text;       // what stands there instead
  };
  // Some matches, at least one, in order; each is told once. Nothing given: go on. In audit the answer counts for nothing.
  virtual std::optional<Stop> found(std::span<const Match> matches, int choice, bool reasoning) = 0;
  // The text could not be looked through. Gives what stands in place of the rest of the choice.
  virtual std::string failed(int choice, bool reasoning) = 0;
};

// Each choice's text and reasoning, looked through apart. `hold_back`: bytes, as Argus::Stream's; what is held back is said before anything else of the choice, so that order
// stays. A choice that was stopped says no more text and begins no call; it finishes with content_filter. In redact and deny the upstream's own frames do not pass, nor
// TokenInfos, which would spell what the text may not say; a signature of reasoning that was changed is dropped. In off the stream is given back as it is.
// Argus outlives the stream, or the arbiter keeps it.
std::unique_ptr<wire::EventStream> scan_text(std::unique_ptr<wire::EventStream> inner, const Argus& argus, TextCheck check,
                                             std::size_t hold_back, std::unique_ptr<TextArbiter> arbiter);

}  // namespace hearth::safety
