// IEEE half precision without hardware help: what is stored must be the same on every machine.
#pragma once

#include <bit>
#include <cstdint>

namespace hearth::turboquant {

inline float half_to_float(std::uint16_t half) {
  const std::uint32_t sign = (half & 0x8000U) << 16;
  const std::uint32_t rest = half & 0x7fffU;
  if (rest >= 0x7c00U) return std::bit_cast<float>(sign | 0x7f800000U | (rest & 0x3ffU) << 13);
  if (rest >= 0x0400U) return std::bit_cast<float>(sign | (rest << 13) + 0x38000000U);
  const float value = static_cast<float>(rest) * 0x1p-24F;  // subnormal: exact
  return sign != 0 ? -value : value;
}

// To nearest, ties to even. What is too large becomes infinite.
inline std::uint16_t float_to_half(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const auto sign = static_cast<std::uint16_t>(bits >> 16 & 0x8000U);
  const std::uint32_t rest = bits & 0x7fffffffU;
  if (rest > 0x7f800000U) return sign | 0x7e00U;
  if (rest >= 0x477ff000U) return sign | 0x7c00U;
  if (rest < 0x38800000U) {  // subnormal: adding 0.5 leaves the rounded multiple of 2^-24 in the low bits
    const float shifted = std::bit_cast<float>(rest) + 0.5F;
    return static_cast<std::uint16_t>(sign | (std::bit_cast<std::uint32_t>(shifted) - 0x3f000000U));
  }
  const std::uint32_t rounded = rest + 0xfffU + (rest >> 13 & 1U);
  return static_cast<std::uint16_t>(sign | (rounded - 0x38000000U) >> 13);
}

}  // namespace hearth::turboquant
