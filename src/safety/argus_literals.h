// Finds many literals in one pass, whatever their case: Aho and Corasick's automaton over classes of bytes. It is the filter before everything that costs more.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

namespace hearth::safety::argus {

class Literals {
 public:
  // `id` is reported for each occurrence of `literal`; one literal may have several ids. Before `build`.
  void add(std::string_view literal, std::uint32_t id);
  void build();

  // Calls found(id, begin) for each occurrence, in the order of their ends.
  template <class Found>
  void scan(std::string_view text, const Found& found) const {
    const std::uint16_t* const next = next_.data();
    std::uint32_t state = 0;
    for (std::size_t i = 0; i < text.size(); ++i) {
      state = next[(state << shift_) + classes_[static_cast<unsigned char>(text[i])]];
      if (state < first_output_) continue;
      const auto& output = outputs_[state - first_output_];
      for (std::size_t k = output.first; k < output.second; ++k) found(ids_[k].first, i + 1 - ids_[k].second);
    }
  }

 private:
  std::vector<std::pair<std::vector<std::uint8_t>, std::uint32_t>> literals_;  // as classes
  std::array<std::uint8_t, 256> classes_{};                                    // 0: a byte of no literal
  std::uint32_t width_ = 1;                                                    // classes
  std::uint32_t shift_ = 0;                                                    // a state's row is 1 << shift_ long
  std::uint32_t first_output_ = 0;                                             // states from here on end a literal
  std::vector<std::uint16_t> next_;
  std::vector<std::pair<std::uint32_t, std::uint32_t>> outputs_;  // ranges of ids_
  std::vector<std::pair<std::uint32_t, std::uint32_t>> ids_;      // id, length
};

}  // namespace hearth::safety::argus
