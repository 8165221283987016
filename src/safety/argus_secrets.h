// Tier 1: keys, tokens and passwords. Formats of known issuers by patterns (argus_secret_rules.cpp), everything else by what stands before it: the name of a
// variable or field, a header, the user of a URL.
//
// Placeholders are not secrets: ${VARIABLE}, <your-key>, {{template}}, xxxx, changeme. Published examples of an issuer's own format (AKIAIOSFODNN7EXAMPLE) are
// reported with confidence 0.6: their form is that of a live key, and whoever reads documentation can ask for more than that.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "safety/argus_detect.h"
#include "safety/argus_literals.h"

namespace hearth::safety::argus {

struct SecretRule {
  const char* id;
  const char* pattern;   // RE2; {KEY}, {KEYI} and {END} stand for what many share
  const char* keywords;  // lower case, separated by blanks, '?' for a blank: one of them is in every match
  float entropy;         // Shannon, bits a character; least
  int group;             // capture that is the secret; 0: the first that is not empty
  bool anchored;         // the pattern begins with the keyword
  int min_run;           // characters of a token that follow a keyword's begin at least
  bool needs_digit;
};
extern const SecretRule secret_rules[];
extern const std::size_t secret_rule_count;

// Shannon entropy in bits a character.
double entropy(std::string_view text);
// Whether a value stands for a secret that is not there: a variable, a template, a word that says so, one character over and over.
bool is_placeholder(std::string_view value);

class Secrets {
 public:
  Secrets();
  ~Secrets();
  std::uint32_t literals(Literals& automaton, std::uint32_t first) const;

  // Where a rule was tried last, so that common keywords cost no more than once a place. One for each scan.
  using Progress = std::vector<std::size_t>;
  Progress start() const;
  void look(std::string_view text, std::uint32_t id, std::size_t at, Progress& progress, Hits& hits) const;

  // A value whose name is known apart from it: a field of a JSON object.
  static bool is_secret_field(std::string_view field, std::string_view value);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace hearth::safety::argus
