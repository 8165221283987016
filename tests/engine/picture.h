// Pictures made in a test: a PNG of coloured noise, the same for the same seed. Not compressed.
#pragma once

#include <array>
#include <cstdint>
#include <random>
#include <string>
#include <string_view>

namespace hearth::engine::testing {

inline void append_u32(std::string& out, std::uint32_t value) {
  for (int shift = 24; shift >= 0; shift -= 8) out += static_cast<char>(value >> shift);
}

inline void append_png_chunk(std::string& out, std::string_view type, std::string_view data) {
  append_u32(out, static_cast<std::uint32_t>(data.size()));
  const std::string body = std::string(type) + std::string(data);
  std::uint32_t crc = 0xFFFFFFFFU;
  for (const char c : body) {
    crc ^= static_cast<unsigned char>(c);
    for (int bit = 0; bit < 8; ++bit) crc = (crc & 1) != 0 ? crc >> 1 ^ 0xEDB88320U : crc >> 1;
  }
  out += body;
  append_u32(out, ~crc);
}

inline std::string png(int width, int height, std::uint32_t seed) {
  // Patches of colour: neighbours that differ survive being scaled.
  std::mt19937 random(seed);
  const auto side = [](int n) { return (n + 7) / 8; };
  std::string colours(static_cast<std::size_t>(side(width) * side(height) * 3), '\0');
  for (char& c : colours) c = static_cast<char>(random());
  std::string pixels;
  for (int y = 0; y < height; ++y) {
    pixels += '\0';  // no filter
    for (int x = 0; x < width; ++x) pixels += colours.substr(static_cast<std::size_t>((y / 8 * side(width) + x / 8) * 3), 3);
  }
  std::string stream = "\x78\x01";
  for (std::size_t at = 0; at < pixels.size(); at += 65535) {
    const std::string block = pixels.substr(at, 65535);
    const auto size = static_cast<std::uint16_t>(block.size()), inverse = static_cast<std::uint16_t>(~size);
    stream += at + 65535 >= pixels.size() ? '\1' : '\0';
    stream += {static_cast<char>(size), static_cast<char>(size >> 8), static_cast<char>(inverse), static_cast<char>(inverse >> 8)};
    stream += block;
  }
  std::uint32_t a = 1, b = 0;
  for (const char c : pixels) {
    a = (a + static_cast<unsigned char>(c)) % 65521;
    b = (b + a) % 65521;
  }
  append_u32(stream, b << 16 | a);
  std::string out = "\x89PNG\r\n\x1a\n", header;
  append_u32(header, static_cast<std::uint32_t>(width));
  append_u32(header, static_cast<std::uint32_t>(height));
  header += {'\x08', '\x02', '\0', '\0', '\0'};  // eight bits of red, green and blue
  append_png_chunk(out, "IHDR", header);
  append_png_chunk(out, "IDAT", stream);
  append_png_chunk(out, "IEND", "");
  return out;
}

}  // namespace hearth::engine::testing
