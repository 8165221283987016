// How the next token is chosen, fully specified: every default filled in, every text form compiled down to what the sampler chain needs.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/decoder.h"

namespace hearth::engine {

// Starts a lazy grammar: free text until the trigger, constrained from there.
struct GrammarTrigger {
  enum class Kind { token, word, pattern, pattern_full };
  Kind kind = Kind::word;
  std::string value;
  Token token = -1;
};

// What the chat format wants of an answer.
struct Constraints {
  std::string grammar;  // GBNF; empty = unconstrained
  enum class Origin { user, output_format, tool_calls };
  Origin origin = Origin::user;
  bool lazy = false;
  std::vector<GrammarTrigger> triggers;
  std::vector<Token> preserved_tokens;  // special tokens that must show in the text for the parser to see
  std::string generation_prompt;        // what the template already opened for the assistant; the grammar skips past it
  // Tags around the model's thoughts: a lazy grammar sleeps between them.
  std::string thinking_start;
  std::vector<std::string> thinking_ends;
  std::optional<int> thinking_budget;  // tokens of a thought; past it, the first end tag follows whatever the model says
};

struct SamplerSpec {
  float temperature = 0.8f;  // 0 = greedy
  int top_k = 40;            // <= 0: all
  float top_p = 0.95f;
  float min_p = 0.05f;
  float presence_penalty = 0;
  float frequency_penalty = 0;
  float repeat_penalty = 1;
  std::uint32_t seed = 0;
  std::vector<std::pair<Token, float>> logit_bias;
  bool ignore_eos = false;
  Constraints constraints;
};

}  // namespace hearth::engine
