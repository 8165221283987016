#include "wire/endpoint.h"

#include "wire/answer.h"
#include "wire/anthropic.h"
#include "wire/anthropic_endpoint.h"
#include "wire/ollama.h"
#include "wire/ollama_endpoint.h"
#include "wire/openai.h"
#include "wire/openai_endpoint.h"
#include "wire/responses_endpoint.h"

namespace hearth::wire {

net::Task<bool> serve(net::Exchange& exchange, Provider& provider, Caller caller, EndpointOptions options) {
  // Anthropic's goes before OpenAI's: both have /v1/models, and a header says whose shape the client wants.
  for (const auto protocol : {anthropic::serve, openai::serve, responses::serve, ollama::serve}) {
    const bool served = co_await protocol(exchange, provider, caller, options);
    if (served) co_return true;
  }
  co_return false;
}

net::Task<void> respond_error(net::Exchange& exchange, const Error& error, const Caller& caller) {
  if (ollama::owns(exchange.request())) return respond_error(exchange, error, caller, ollama::encode_error);
  if (!anthropic::owns(exchange.request())) return respond_error(exchange, error, caller, openai::encode_error);
  return respond_error(exchange, error, caller, [id = caller.request_id](const Error& said) { return anthropic::encode_error(said, id); });
}

}  // namespace hearth::wire
