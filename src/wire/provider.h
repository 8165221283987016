// What stands behind a protocol: something that answers chat::Requests. The gateway's service is one, an upstream is one, the worker's engine is
// one; so the same endpoint code serves clients and the internal socket, and "an upstream is an OpenAI-compatible endpoint" stays true.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "chat/event.h"
#include "chat/request.h"
#include "net/cancellation.h"
#include "net/task.h"

namespace hearth::wire {

// The API of a client or an upstream, as far as its bytes can be passed through.
enum class Protocol { other, openai_chat, openai_completion, anthropic };

// One frame of an upstream, as it came.
struct RawFrame {
  std::string bytes;       // its empty line included; empty: the client did not ask for it
  std::size_t events = 0;  // so many events, in order, were read from it
  bool understood = true;  // these events say all of it that a client could act on
};

// A running answer. Destroying it cancels the generation within one scheduler tick.
class EventStream {
 public:
  virtual ~EventStream() = default;
  // The events that have arrived, at least one, as soon as there are any; empty after the last. A failure in mid-stream comes as a chat::Failed
  // event, then the end. Suspends without end when the upstream is silent: the caller adds keep-alives.
  virtual net::Task<chat::Events> next() = 0;
  // Wakes a suspended next() and ends the stream; nothing comes after. Safe at any time on the loop.
  virtual void cancel() = 0;
  // Known when the stream opens; what is learnt on the way is added until the end.
  virtual const chat::Explanation& explanation() const = 0;

  // Pass-through. A stream whose upstream speaks the protocol of Caller::origin, and whose answer nobody changes, offers the upstream's own bytes:
  // raw() is exactly the frames that the events of the last next() were read from, [DONE] and the like included. A Failed event has none. Whoever
  // changes events, or does not know this pair, leaves it as it is here: nothing passes unseen. A stream may offer frames at first and none later: from
  // then on the client's codec speaks, and goes on where the frames ended.
  virtual Protocol raw_protocol() const { return Protocol::other; }
  virtual std::span<const RawFrame> raw() const { return {}; }
};

// A request as the client sent it, for an upstream that speaks the same protocol. Whoever changes the chat::Request drops it from the Caller.
struct Origin {
  Protocol protocol = Protocol::other;
  std::string body;
  std::vector<std::pair<std::string, std::string>> headers;  // those that belong to the protocol, e.g. anthropic-beta
};

// Who asks, as identity established it, and how.
struct Caller {
  std::string tenant;      // fair-queueing key, e.g. the API key's name; "local" without authentication
  std::string request_id;  // joins client, log and upstream
  std::shared_ptr<const Origin> origin;
  // Requested when the client leaves: ends what waits before there is a stream to cancel. Null: never.
  std::shared_ptr<net::Cancellation> cancellation;
};

class Provider {
 public:
  virtual ~Provider() = default;
  // Succeeds once the request is valid and admitted to a queue: until then every failure is an Error with its proper status, after it a
  // chat::Failed event.
  virtual net::Task<Result<std::unique_ptr<EventStream>>> generate(chat::Request request, Caller caller) = 0;
  virtual net::Task<Result<chat::Embeddings>> embed(chat::EmbeddingRequest request, Caller caller) = 0;
  virtual net::Task<Result<chat::RerankResult>> rerank(chat::RerankRequest request, Caller caller) = 0;
  // Prompt tokens the request would take.
  virtual net::Task<Result<int>> count_tokens(chat::Request request, Caller caller) = 0;
  // Log-probabilities of a given text's tokens: `prompts[0]`, one TokenInfo per token after the first.
  virtual net::Task<Result<std::vector<chat::TokenInfo>>> score(chat::Request request, Caller caller) = 0;
  virtual net::Task<Result<std::vector<chat::ModelInfo>>> models() = 0;
  // Loads a model and keeps it for `keep_loaded` after its last use (empty: as configured; negative: for ever), or unloads it once its running
  // requests have finished. unsupported where models do not come and go.
  virtual net::Task<Result<void>> load(std::string model, std::optional<std::chrono::milliseconds> keep_loaded, Caller caller);
  virtual net::Task<Result<void>> unload(std::string model, Caller caller);
};

}  // namespace hearth::wire
