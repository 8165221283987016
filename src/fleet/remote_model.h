// A model that somebody else serves, at one endpoint or at several alike. A conversation goes back to the endpoint that has its beginning; an endpoint that
// keeps failing is left alone for a while; and a request whose endpoint failed before anything was seen goes to the next one.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "fleet/attempts.h"
#include "fleet/breaker.h"
#include "fleet/fleet.h"

namespace hearth::fleet {

// Lives on the loop. Its streams and attempts keep what they need of it.
class RemoteModel {
 public:
  // `spec.upstream` has its time-outs.
  RemoteModel(net::asio::io_context& io, const ModelSpec& spec, const Clock& clock);

  std::unique_ptr<Attempts> generate(chat::Request request, wire::Caller caller);
  net::Task<Result<chat::Embeddings>> embed(chat::EmbeddingRequest request, wire::Caller caller);
  net::Task<Result<chat::RerankResult>> rerank(chat::RerankRequest request, wire::Caller caller);
  net::Task<Result<int>> count_tokens(chat::Request request, wire::Caller caller);
  net::Task<Result<std::vector<chat::TokenInfo>>> score(chat::Request request, wire::Caller caller);

 private:
  struct Endpoint;
  class Tries;
  class Stream;
  using Endpoints = std::vector<std::shared_ptr<Endpoint>>;
  // Asks one endpoint after the other until one answers, or refuses with good reason.
  template <class T, class Call>
  net::Task<Result<T>> ask(std::uint64_t key, Call call);

  std::shared_ptr<const Endpoints> endpoints_;
};

}  // namespace hearth::fleet
