// What an answer is made of, as it happens. An upstream yields Events; the gateway passes them on in the turn they arrive; wire codecs
// turn them into frames. Order per choice: (TextDelta | ReasoningDelta | ToolCallBegin ToolCallDelta* ToolCallEnd)* Finished. Failed ends
// the whole stream at once. Usage comes once, last, after every choice has finished.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "base/error.h"

namespace hearth::chat {

enum class FinishReason { stop, length, tool_calls, content_filter };

// One alternative at a position.
struct TokenProbability {
  std::int32_t token = -1;
  std::string bytes;  // the token's text; may be part of a character
  float logprob = 0;  // natural log
};

// A generated token: its own log-probability, the best alternatives, and the entropy of the whole distribution. Log-probabilities and
// entropy are those of the model's own distribution (softmax of the raw logits), before temperature and truncation.
struct TokenInfo {
  int choice = 0;
  TokenProbability chosen;
  std::vector<TokenProbability> top;  // best first
  float entropy = 0;                  // nats
};

struct TextDelta {
  int choice = 0;
  std::string text;  // whole UTF-8 characters only
};
struct ReasoningDelta {
  int choice = 0;
  std::string text;
};
struct ToolCallBegin {
  int choice = 0;
  int index = 0;  // of the call within its choice, from 0
  std::string id;
  std::string name;
};
struct ToolCallDelta {
  int choice = 0;
  int index = 0;
  std::string arguments;  // a fragment of the JSON text
};
struct ToolCallEnd {
  int choice = 0;
  int index = 0;
};
struct Finished {
  int choice = 0;
  FinishReason reason = FinishReason::stop;
};
struct Usage {
  int prompt_tokens = 0;
  int cached_tokens = 0;      // of the prompt: taken from the prefix cache, not computed
  int completion_tokens = 0;  // all choices together
};
struct Failed {
  Error error;
};

using Event = std::variant<TextDelta, ReasoningDelta, ToolCallBegin, ToolCallDelta, ToolCallEnd, TokenInfo, Finished, Usage, Failed>;
using Events = std::vector<Event>;

struct Embeddings {
  std::vector<std::vector<float>> vectors;  // one per input, same order
  int prompt_tokens = 0;
};

struct RerankResult {
  struct Item {
    int index = 0;  // of the document in the request
    float score = 0;
  };
  std::vector<Item> items;  // best first
  int prompt_tokens = 0;
};

// A model as `/v1/models` and routing know it.
struct ModelInfo {
  std::string id;
  std::int64_t created = 0;  // Unix seconds: when the file was last changed
  std::string architecture;
  std::int64_t parameters = 0;
  std::int64_t bytes = 0;
  int context = 0;    // tokens one request may use
  bool chat = false;  // generates text
  bool embeddings = false;
  bool rerank = false;
};

// Why the answer is what it is: each step that decided something adds a pair, in order. Becomes `x-hearth-*` headers and audit rows.
struct Explanation {
  std::vector<std::pair<std::string, std::string>> decisions;  // e.g. {"model", "hearth-nano-0"}, {"lane", "local"}
  void add(std::string what, std::string value) { decisions.emplace_back(std::move(what), std::move(value)); }
};

}  // namespace hearth::chat
