// "Did you mean …?": what people probably meant when a word is none of those there are.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace hearth {

// The member of `words` nearest to `word` by edits, or "" when none is near.
std::string nearest(std::string_view word, const std::vector<std::string_view>& words);

}  // namespace hearth
