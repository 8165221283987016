// UTF-8 at the borders where text is cut: tokens, stream deltas and stop strings may end inside a character.
#pragma once

#include <cstddef>
#include <string_view>

namespace hearth {

// Bytes of the well-formed sequence at the start of `text` (1-4), or 0 when there is none (ill-formed, overlong, surrogate or cut off).
std::size_t utf8_sequence_length(std::string_view text);

bool is_valid_utf8(std::string_view text);

// Length of the longest prefix that does not end inside a character that more bytes could still complete. Ill-formed bytes in the middle count
// as complete: they will never become valid.
std::size_t utf8_complete_prefix(std::string_view text);

}  // namespace hearth
