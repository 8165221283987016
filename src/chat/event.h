// What an answer is made of, as it happens. An upstream yields Events; the gateway passes them on in the turn they arrive; wire codecs
// turn them into frames. Started comes first, from engines that know the prompt's length by then. Order per choice: (TextDelta | ReasoningDelta |
// ReasoningSignature | ToolCallBegin ToolCallDelta* ToolCallEnd)* Finished. Failed ends the whole stream at once. Usage comes once, last, after
// every choice has finished.
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

// The prompt is computed, the first token about to come.
struct Started {
  int prompt_tokens = 0;
  int cached_tokens = 0;  // of the prompt: taken from the prefix cache
};
struct TextDelta {
  int choice = 0;
  std::string text;  // whole UTF-8 characters only
};
struct ReasoningDelta {
  int choice = 0;
  std::string text;
};
// Closes the reasoning so far: a remote model's proof that it is its own. Once per block of reasoning.
struct ReasoningSignature {
  int choice = 0;
  std::string signature;
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
  std::string stop_sequence;  // the request's own stop string that ended it; empty when none did
};
struct Usage {
  int prompt_tokens = 0;
  int cached_tokens = 0;      // of the prompt: taken from the prefix cache, not computed
  int completion_tokens = 0;  // all choices together
  int drafted_tokens = 0;     // proposed by speculation
  int accepted_tokens = 0;    // of those: kept
  int reasoning_tokens = 0;   // of the completion: spent on thinking, from engines that count them
};
struct Failed {
  Error error;
};

using Event = std::variant<Started, TextDelta, ReasoningDelta, ReasoningSignature, ToolCallBegin, ToolCallDelta, ToolCallEnd, TokenInfo,
                           Finished, Usage, Failed>;
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

// What a model is for. One model may have several roles; a request without a model name goes to the first model of its role.
enum class ModelRole { chat, embedding, reranker, classifier, vision, reward };

enum class ModelState {
  absent,    // known, not loaded
  loading,   //
  ready,     // serves
  draining,  // finishes what it has begun, then goes
  failed,    // could not be loaded; ModelInfo::problem says why
};

// A model as `/v1/models`, `/admin/models` and routing know it.
struct ModelInfo {
  std::string id;
  std::int64_t created = 0;  // Unix seconds: when the file was last changed
  std::string architecture;
  std::string quantisation;  // "Q4_K_M"; empty when unknown
  std::int64_t parameters = 0;
  std::int64_t bytes = 0;  // of its files
  int context = 0;         // tokens one request may use
  bool chat = false;       // generates text
  bool embeddings = false;
  bool rerank = false;
  bool vision = false;  // takes images
  bool tools = false;   // its template, or a dialect, speaks tool calls
  bool default_for_role = false;
  std::vector<std::string> aliases;
  std::vector<std::string> adapters;  // that can be chosen as "id:adapter"
  std::vector<ModelRole> roles;
  std::string upstream;  // "worker", "command", "openai", "anthropic"
  ModelState state = ModelState::ready;
  std::string problem;            // failed: why
  bool pinned = false;            // never evicted
  std::int64_t memory_bytes = 0;  // host memory: measured while loaded, else predicted
  std::int64_t gpu_bytes = 0;     // likewise
  std::string device;             // "cpu", "gpu0"; empty while absent or remote
  int running = 0;                // requests
  int waiting = 0;                // requests that wait for it to be loaded
  std::int64_t last_used = 0;     // Unix seconds; 0 = never
  std::int64_t unloads_at = 0;    // Unix seconds; 0 = stays
};

// Why the answer is what it is: each step that decided something adds a pair, in order. Becomes `x-hearth-*` headers and audit rows.
struct Explanation {
  std::vector<std::pair<std::string, std::string>> decisions;  // e.g. {"model", "hearth-nano-0"}, {"lane", "local"}
  void add(std::string what, std::string value) { decisions.emplace_back(std::move(what), std::move(value)); }
};

}  // namespace hearth::chat
