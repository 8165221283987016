// Base64 (RFC 4648, with padding): embeddings and images travel as text. And the reading of what others encoded, base64 or hexadecimal, as loosely as programs read it.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace hearth {

std::string base64_encode(std::string_view bytes);
// Empty optional for anything but whole, padded groups of the standard alphabet.
std::optional<std::string> base64_decode(std::string_view text);

// Both alphabets, with or without padding; bytes of `skipped` are passed over, any other is an empty optional. An unfinished group gives the bytes it holds.
std::optional<std::string> base64_decode_loosely(std::string_view text, std::string_view skipped = " \t\r\n");
// Hexadecimal digits of either case; as above.
std::optional<std::string> hex_decode_loosely(std::string_view text, std::string_view skipped = " \t\r\n");

}  // namespace hearth
