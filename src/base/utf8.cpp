#include "base/utf8.h"

#include <algorithm>

namespace hearth {
namespace {

// Length a lead byte announces; 0 for bytes that cannot lead.
std::size_t announced(unsigned char lead) {
  if (lead < 0x80) return 1;
  if (lead >= 0xC2 && lead <= 0xDF) return 2;
  if (lead >= 0xE0 && lead <= 0xEF) return 3;
  if (lead >= 0xF0 && lead <= 0xF4) return 4;
  return 0;
}

// Whether byte `i` (1..3) may follow `lead` (Unicode 15, table 3-7).
bool may_follow(unsigned char lead, std::size_t i, unsigned char byte) {
  if (i == 1) {
    if (lead == 0xE0) return byte >= 0xA0 && byte <= 0xBF;
    if (lead == 0xED) return byte >= 0x80 && byte <= 0x9F;
    if (lead == 0xF0) return byte >= 0x90 && byte <= 0xBF;
    if (lead == 0xF4) return byte >= 0x80 && byte <= 0x8F;
  }
  return (byte & 0xC0) == 0x80;
}

}  // namespace

std::size_t utf8_sequence_length(std::string_view text) {
  if (text.empty()) return 0;
  const auto lead = static_cast<unsigned char>(text[0]);
  const std::size_t n = announced(lead);
  if (n == 0 || text.size() < n) return 0;
  for (std::size_t i = 1; i < n; ++i) {
    if (!may_follow(lead, i, static_cast<unsigned char>(text[i]))) return 0;
  }
  return n;
}

bool is_valid_utf8(std::string_view text) {
  std::size_t i = 0;
  while (i < text.size()) {
    if (static_cast<unsigned char>(text[i]) < 0x80) {
      ++i;
      continue;
    }
    const std::size_t n = utf8_sequence_length(text.substr(i));
    if (n == 0) return false;
    i += n;
  }
  return true;
}

std::size_t utf8_complete_prefix(std::string_view text) {
  const std::size_t look_back = std::min<std::size_t>(3, text.size());
  for (std::size_t back = 1; back <= look_back; ++back) {
    const std::size_t at = text.size() - back;
    const auto lead = static_cast<unsigned char>(text[at]);
    if ((lead & 0xC0) == 0x80) continue;
    if (announced(lead) <= back) return text.size();
    for (std::size_t i = 1; i < back; ++i) {
      if (!may_follow(lead, i, static_cast<unsigned char>(text[at + i]))) return text.size();
    }
    return at;
  }
  return text.size();
}

}  // namespace hearth
