// Serves the Ollama API (newline-delimited JSON) on an HTTP exchange from a Provider.
#pragma once

#include "wire/endpoint.h"

namespace hearth::wire::ollama {

// Paths served: POST /api/chat, /api/generate, /api/embed, /api/embeddings, /api/show; GET /api/tags, /api/ps, /api/version. What needs a registry or writes models
// (/api/pull, /api/create …) is refused with what to do instead.
// As wire::serve otherwise.
net::Task<bool> serve(net::Exchange& exchange, Provider& provider, Caller caller, EndpointOptions options);

// Whether the path is under /api/.
bool owns(const net::HttpRequest& request);

}  // namespace hearth::wire::ollama
