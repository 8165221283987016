// Tier 1: classification and CUI banners, portion marks and legacy markings, told from prose by their separators, capitals and place in the line.
#pragma once

#include <cstdint>
#include <memory>

#include "safety/argus_detect.h"
#include "safety/argus_literals.h"

namespace hearth::safety::argus {

extern const char* const marking_controls[];
extern const std::size_t marking_controls_count;
extern const char* const cui_categories[];
extern const std::size_t cui_categories_count;

class Markings {
 public:
  Markings();
  ~Markings();
  // Literals that call for a look, each with an id from `first` on; the number of ids.
  std::uint32_t literals(Literals& automaton, std::uint32_t first) const;
  // Looks at the place of literal `id` (counted from 0).
  void look(std::string_view text, std::uint32_t id, std::size_t at, Hits& hits) const;

 private:
  struct Vocabulary;
  std::unique_ptr<Vocabulary> vocabulary_;
};

}  // namespace hearth::safety::argus
