// An engine behind the OpenAI protocol, as a Provider: our own worker's Unix socket or any endpoint that speaks it. Every way an engine can fail
// ends as one proper Error or one chat::Failed event, never as silence, and never as half an answer that looks whole.
#pragma once

#include <boost/asio/io_context.hpp>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "fleet/limiter.h"
#include "net/http.h"
#include "wire/dialect.h"
#include "wire/provider.h"

namespace hearth::fleet {

struct UpstreamOptions {
  std::string name = "worker";  // in explanations and messages
  std::string api_key;          // sent as a bearer token when not empty
  std::chrono::milliseconds connect_timeout{5'000};
  std::chrono::milliseconds first_event{600'000};  // silence before the first event, from the moment it is sent: queueing there and prefill
  std::chrono::milliseconds next_event{120'000};   // silence between two events
  std::size_t answer_bytes = std::size_t{256} << 20;  // longest non-streamed answer

  std::string api_path = "/v1";                              // the path of the API's base URL: "/api/v1" for https://host/api/v1
  std::string remote_model;                                  // what the upstream calls the model; empty: as the request names it
  std::vector<std::pair<std::string, std::string>> headers;  // sent with every request
  // Our own engines take turns between tenants. Nobody else needs to know who asks.
  bool tell_tenant = true;

  LimiterOptions concurrency;            // requests there at once; past them they wait here, in order
  std::size_t idle_connections = 64;     // kept open for the next request
  std::optional<int> max_tokens;         // the most one answer may have; also where the request names none
  std::optional<wire::Dialect> dialect;  // the engine does not parse its model's tool calls: they are read here
  // A refused connection, one that broke before the head of an answer, and 502, 503 and 504 are tried again so many times: nobody has seen anything yet.
  int retries = 0;
  std::chrono::milliseconds retry_first{200};  // before the first; twice as long before each further one, give or take a quarter
};

class HttpUpstream final : public wire::Provider {
 public:
  HttpUpstream(net::asio::io_context& io, net::Endpoint endpoint, UpstreamOptions options);
  ~HttpUpstream() override;  // its streams may go on

  // From now on requests go there; those that run stay where they are.
  void connect_to(net::Endpoint endpoint);
  int running() const;
  int waiting() const;

  net::Task<Result<std::unique_ptr<wire::EventStream>>> generate(chat::Request request, wire::Caller caller) override;
  net::Task<Result<chat::Embeddings>> embed(chat::EmbeddingRequest request, wire::Caller caller) override;
  net::Task<Result<chat::RerankResult>> rerank(chat::RerankRequest request, wire::Caller caller) override;
  net::Task<Result<int>> count_tokens(chat::Request request, wire::Caller caller) override;
  net::Task<Result<std::vector<chat::TokenInfo>>> score(chat::Request request, wire::Caller caller) override;
  net::Task<Result<std::vector<chat::ModelInfo>>> models() override;

 private:
  class Impl;
  class Stream;
  std::shared_ptr<Impl> impl_;
};

}  // namespace hearth::fleet
