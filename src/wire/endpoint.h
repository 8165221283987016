// Serves every protocol on an HTTP exchange from one Provider: decode, ask, stream back. The gateway and the worker both mount it.
#pragma once

#include <chrono>

#include "net/server.h"
#include "wire/provider.h"

namespace hearth::wire {

struct EndpointOptions {
  // Something harmless goes out when the upstream was silent this long, so that clients and proxies keep the connection.
  std::chrono::milliseconds keep_alive{10'000};
  // A request without an answer's first event fails after this; 0 = never (the upstream decides).
  std::chrono::milliseconds silence{0};
};

// The paths of openai_endpoint.h, responses_endpoint.h, anthropic_endpoint.h and ollama_endpoint.h. Returns false without answering when the path is none
// of them. A known path with the wrong method gets 405 with Allow. Answers carry x-request-id and the explanation as x-hearth-* headers. A client
// that leaves cancels the generation.
net::Task<bool> serve(net::Exchange& exchange, Provider& provider, Caller caller, EndpointOptions options);

// Answers with an error in the shape of the protocol that the request's path and headers belong to (OpenAI's for a path of none), with
// Retry-After where the error has one.
net::Task<void> respond_error(net::Exchange& exchange, const Error& error, const Caller& caller);

}  // namespace hearth::wire
