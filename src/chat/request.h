// What a client asks, in one vocabulary for every protocol. Wire codecs translate to and from it; nobody else knows which API a client speaks.
// Plain data, no I/O. Fields a client left out stay empty: the engine fills in defaults, so that "absent" and "zero" never blur.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace hearth::chat {

enum class Role { system, user, assistant, tool };

// A piece of a message: text, or an image given inline (base64) or by URL.
struct ContentPart {
  enum class Kind { text, image };
  Kind kind = Kind::text;
  std::string text;        // text
  std::string media_type;  // image, inline: e.g. "image/png"
  std::string data;        // image, inline: base64 as it came
  std::string url;         // image, by reference
};

struct ToolCall {
  std::string id;
  std::string name;
  std::string arguments;  // JSON text, exactly as the model or client wrote it
};

struct Message {
  Role role = Role::user;
  std::vector<ContentPart> content;
  std::string reasoning;             // assistant only
  std::string reasoning_signature;   // assistant only: a remote model's proof that `reasoning` is its own; sent back as it came
  std::vector<ToolCall> tool_calls;  // assistant only
  std::string tool_call_id;          // tool only: the call this answers
  bool tool_failed = false;          // tool only: the content tells why the call failed
  std::string name;                  // optional speaker or tool name

  // The text parts, joined.
  std::string text() const;
};

struct ToolSpec {
  std::string name;
  std::string description;
  std::string parameters;  // JSON Schema text of an object; "{}" when the client gave none
};

struct ToolChoice {
  enum class Mode { automatic, none, required, named };
  Mode mode = Mode::automatic;
  std::string name;  // named only
};

// How the answer's text is constrained.
struct OutputFormat {
  enum class Kind { text, json_object, json_schema, gbnf };
  Kind kind = Kind::text;
  std::string schema;  // json_schema: schema text; gbnf: grammar text
};

struct Sampling {
  std::optional<float> temperature;        // 0 = greedy
  std::optional<float> top_p;              // (0, 1]
  std::optional<float> min_p;              // [0, 1]
  std::optional<int> top_k;                // <= 0 = all
  std::optional<float> presence_penalty;   // [-2, 2]
  std::optional<float> frequency_penalty;  // [-2, 2]
  std::optional<float> repeat_penalty;     // > 0, 1 = off
  std::optional<std::uint32_t> seed;
  std::vector<std::pair<std::int32_t, float>> logit_bias;  // token id, bias in [-100, 100]
  std::vector<std::string> stop;                           // never empty strings
};

// Whether a reasoning model thinks before it answers. `effort` and `budget` bound how much, where the model knows such a thing.
struct Reasoning {
  std::optional<bool> enabled;  // empty: as the model is used to
  std::string effort;           // "minimal", "low", "medium", "high"; empty = not said
  std::optional<int> budget;    // tokens
};

// interactive: a person or agent waits. background: may be paused and resumed when interactive work needs the room.
enum class Priority { interactive, background };

// Raw text completion (no chat template): a text, or token ids when `tokens` is not empty.
struct RawPrompt {
  std::string text;
  std::vector<std::int32_t> tokens;
};

struct Request {
  std::string model;    // as the client named it; empty = the default model
  std::string adapter;  // LoRA adapter by name or path, applied to this request alone; empty = none
  std::vector<Message> messages;
  std::vector<RawPrompt> prompts;  // raw completion when not empty; then `messages` is empty
  std::vector<ToolSpec> tools;
  ToolChoice tool_choice;
  bool parallel_tool_calls = true;
  OutputFormat format;
  Sampling sampling;
  Reasoning reasoning;
  int choices = 1;                  // n: answers per prompt
  std::optional<int> max_tokens;    // per choice
  std::optional<int> top_logprobs;  // report log-probabilities of each token and of this many alternatives (0-20); empty = none
  bool echo = false;                // raw completion: repeat the prompt in the answer
  bool stream = false;
  bool include_usage = false;  // streamed: end with the usage
  bool start_usage = false;    // streamed: begin with the prompt's token count too
  bool ignore_eos = false;     // benchmarks: generate max_tokens whatever the model says
  bool prefill_only = false;   // compute the prompt into the prefix cache and answer with its usage alone
  Priority priority = Priority::interactive;
  std::string tenant;                                    // fair-queueing key; set by identity, never by the client's own word alone
  std::optional<std::chrono::milliseconds> time_limit;   // whole request; the answer ends with deadline_exceeded past it
  std::optional<std::chrono::milliseconds> keep_loaded;  // how long the model stays loaded after this answer; negative = for ever

  bool has_images() const;
};

struct EmbeddingRequest {
  std::string model;
  std::vector<RawPrompt> inputs;
  std::optional<int> dimensions;  // cut to the first n and normalised again
  bool base64 = false;            // answer little-endian f32 in base64 instead of numbers
  std::string tenant;
};

struct RerankRequest {
  std::string model;
  std::string query;
  std::vector<std::string> documents;
  std::optional<int> top_n;
  bool return_documents = false;
  std::string tenant;
};

}  // namespace hearth::chat
