// Serves the OpenAI API on an HTTP exchange from a Provider: decode, ask, stream back. The gateway and the worker both mount it.
#pragma once

#include <chrono>

#include "net/server.h"
#include "wire/provider.h"

namespace hearth::wire::openai {

struct EndpointOptions {
  // A comment frame goes out when the upstream was silent this long, so that clients and proxies keep the connection.
  std::chrono::milliseconds keep_alive{10'000};
  // A request without an answer's first event fails after this; 0 = never (the upstream decides).
  std::chrono::milliseconds silence{0};
};

// Paths served: POST /v1/chat/completions, /v1/completions, /v1/embeddings, /v1/rerank, /v1/tokenize/count, /v1/score; GET /v1/models, /v1/models/{id}.
// Returns false without answering when `path` is none of them. A known path with the wrong method gets 405 with Allow.
// Answers carry x-request-id and the explanation as x-hearth-* headers. A client that leaves cancels the generation.
net::Task<bool> serve(net::Exchange& exchange, Provider& provider, Caller caller, EndpointOptions options);

// Answers with an error in this protocol's shape, with Retry-After where the error has one.
net::Task<void> respond_error(net::Exchange& exchange, const Error& error, const Caller& caller);

}  // namespace hearth::wire::openai
