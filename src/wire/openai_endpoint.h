// Serves the OpenAI API on an HTTP exchange from a Provider. The internal protocol between gateway and worker is this one too.
#pragma once

#include "wire/endpoint.h"

namespace hearth::wire::openai {

// Paths served: POST /v1/chat/completions, /v1/completions, /v1/embeddings, /v1/rerank, /v1/tokenize/count, /v1/score, /v1/prefill; GET /v1/models,
// /v1/models/{id}. As wire::serve otherwise.
net::Task<bool> serve(net::Exchange& exchange, Provider& provider, Caller caller, EndpointOptions options);

}  // namespace hearth::wire::openai
