// Serves the OpenAI Responses API, without stored state on an HTTP exchange from a Provider.
#pragma once

#include "wire/endpoint.h"

namespace hearth::wire::responses {

// Paths served: POST /v1/responses.
// As wire::serve otherwise.
net::Task<bool> serve(net::Exchange& exchange, Provider& provider, Caller caller, EndpointOptions options);

}  // namespace hearth::wire::responses
