// The course every answer takes, whatever the protocol: ask the provider, stream or collect, keep a silent connection alive, give a failure its proper
// status as long as nothing was sent, notice that the client left. A protocol adds an AnswerCodec, which says the same things in its own words.
#pragma once

#include <functional>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>

#include "net/server.h"
#include "wire/codec.h"
#include "wire/endpoint.h"
#include "wire/provider.h"

namespace hearth::wire {

// An error's document in one protocol's shape.
using EncodeError = std::function<std::string(const Error& error)>;

// Asks and answers. `request.stream` decides the form.
net::Task<void> answer(net::Exchange& exchange, Provider& provider, Caller caller, EndpointOptions options, chat::Request request,
                       AnswerCodec& codec, EncodeError encode_error);

net::Task<void> respond_json(net::Exchange& exchange, const Caller& caller, std::string body);
net::Task<void> respond_error(net::Exchange& exchange, const Error& error, const Caller& caller, EncodeError encode_error);

// Whether the request may be served on this path: `method` fits (else 405 with Allow was sent) and a POST's body is not a form (else 400).
net::Task<bool> accepts(net::Exchange& exchange, const Caller& caller, std::string_view method, EncodeError encode_error);

// Protocol-specific headers and the body, kept for an upstream that speaks the same.
std::shared_ptr<const Origin> origin_of(const net::HttpRequest& request, Protocol protocol,
                                        std::initializer_list<std::string_view> headers);

// %XX in a path segment; ids may hold slashes and spaces.
std::string percent_decoded(std::string_view text);

// Runs a provider call that answers with one document: `encode` turns the result into it.
template <class T, class Encode>
net::Task<void> respond_with(net::Exchange& exchange, const Caller& caller, EncodeError encode_error, net::Task<Result<T>> call,
                             Encode encode) {
  const Result<T> result = co_await std::move(call);
  if (result.ok()) {
    std::string body = encode(*result);
    co_await respond_json(exchange, caller, std::move(body));
  } else {
    co_await respond_error(exchange, result.error(), caller, encode_error);
  }
}

}  // namespace hearth::wire
