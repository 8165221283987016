// What stands behind a protocol: something that answers chat::Requests. The gateway's service is one, an upstream is one, the worker's engine is
// one; so the same endpoint code serves clients and the internal socket, and "an upstream is an OpenAI-compatible endpoint" stays true.
#pragma once

#include <memory>
#include <vector>

#include "base/result.h"
#include "chat/event.h"
#include "chat/request.h"
#include "net/task.h"

namespace hearth::wire {

// A running answer. Destroying it cancels the generation within one scheduler tick.
class EventStream {
 public:
  virtual ~EventStream() = default;
  // The events that have arrived, at least one, as soon as there are any; empty after the last. A failure in mid-stream comes as a chat::Failed
  // event, then the end. Suspends without end when the upstream is silent: the caller adds keep-alives.
  virtual net::Task<chat::Events> next() = 0;
  // Wakes a suspended next() and ends the stream; nothing comes after. Safe at any time on the loop.
  virtual void cancel() = 0;
  // Known when the stream opens.
  virtual const chat::Explanation& explanation() const = 0;
};

// Who asks, as identity established it.
struct Caller {
  std::string tenant;      // fair-queueing key, e.g. the API key's name; "local" without authentication
  std::string request_id;  // joins client, log and upstream
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
};

}  // namespace hearth::wire
