// Serves the Anthropic Messages API on an HTTP exchange from a Provider.
#pragma once

#include "wire/endpoint.h"

namespace hearth::wire::anthropic {

// Paths served: POST /v1/messages, /v1/messages/count_tokens; GET /v1/models, /v1/models/{id} when the request carries an anthropic-version header.
// As wire::serve otherwise.
net::Task<bool> serve(net::Exchange& exchange, Provider& provider, Caller caller, EndpointOptions options);

// Whether the request speaks this protocol, by its path or its anthropic-version header.
bool owns(const net::HttpRequest& request);

}  // namespace hearth::wire::anthropic
