// Base64 (RFC 4648, with padding): embeddings and images travel as text.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace hearth {

std::string base64_encode(std::string_view bytes);
// Empty optional for anything but whole, padded groups of the standard alphabet.
std::optional<std::string> base64_decode(std::string_view text);

}  // namespace hearth
