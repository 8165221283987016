#include "turboquant/profile.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <string>

#include "turboquant/format.h"

namespace hearth::turboquant {
namespace {

constexpr std::array<Profile, 5> all{{
    {"k8v8", "both at 8 bits: the reference for the others", {8, 8}, {8, 8}},
    {"k8v4", "near lossless", {8, 4}, {8, 4}},
    {"k4v4", "balanced", {4, 4}, {8, 4}},
    {"k4v3", "smaller values", {4, 3}, {8, 4}},
    {"k3v2", "the smallest; costs quality, most of all in small models", {3, 2}, {8, 4}},
}};

Error wrong(std::string message) { return {ErrorCode::config_invalid, std::move(message)}; }

Result<int> whole_number(std::string_view option, std::string_view text, int most) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < 0 || value > most) {
    return wrong("TurboQuant option " + std::string(option) + "=" + std::string(text) + ": a whole number from 0 to " +
                 std::to_string(most) + " is needed");
  }
  return value;
}

}  // namespace

Widths Profile::of_layer(int layer, int layers) const {
  const int ends = guard >= 0 ? guard : std::min(2, layers / 8);
  return layer < ends || layer >= layers - ends ? guarded : widths;
}

std::span<const Profile> profiles() { return all; }

Result<Profile> find_profile(std::string_view text) {
  const auto next = [&text] {
    const std::string_view word = text.substr(0, text.find(','));
    text.remove_prefix(std::min(text.size(), word.size() + 1));
    return word;
  };
  const std::string_view name = next();
  const auto it = std::find_if(all.begin(), all.end(), [&](const Profile& p) { return p.name == name; });
  if (it == all.end()) {
    std::string names;
    for (const Profile& p : all) names += (names.empty() ? "" : &p == &all.back() ? " or " : ", ") + std::string(p.name);
    return wrong("there is no TurboQuant profile \"" + std::string(name) + "\": use " + names);
  }
  Profile profile = *it;
  while (!text.empty()) {
    const std::string_view word = next(), option = word.substr(0, word.find('='));
    const std::string_view value = word.substr(std::min(word.size(), option.size() + 1));
    if (option != "guard" && option != "sinks") {
      return wrong("TurboQuant profile " + std::string(name) + " has no option \"" + std::string(option) +
                   "\": use guard=LAYERS or sinks=TOKENS");
    }
    const auto number = whole_number(option, value, option == "guard" ? 1024 : kMaxSinks);
    if (!number.ok()) return number.error();
    (option == "guard" ? profile.guard : profile.sinks) = *number;
  }
  return profile;
}

std::uint64_t bytes_per_token(Widths widths, std::int64_t heads, std::int64_t key_size, std::int64_t value_size) {
  const auto record = [](std::int64_t size, int bits) { return VectorFormat{.dim = static_cast<int>(size), .bits = bits}.bytes(); };
  return static_cast<std::uint64_t>(heads) * (record(key_size, widths.keys) + record(value_size, widths.values));
}

std::int64_t protected_slots(const Profile& profile, std::int64_t cells, std::int64_t streams) {
  if (profile.sinks == 0) return 0;
  constexpr std::int64_t sequences = 64;
  const std::int64_t wanted = std::min<std::int64_t>(cells / sequences, sequences * profile.sinks);
  return std::min(cells, std::max<std::int64_t>(wanted, 2 * streams * profile.sinks));
}

std::uint64_t bytes_per_token(const Profile& profile, std::int64_t head_size, std::int64_t heads, int layers) {
  std::uint64_t bytes = 0;
  for (int layer = 0; layer < layers; ++layer) bytes += bytes_per_token(profile.of_layer(layer, layers), heads, head_size, head_size);
  return bytes;
}

}  // namespace hearth::turboquant
