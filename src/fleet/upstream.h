// An engine behind the OpenAI protocol, as a Provider: our own worker's Unix socket or any endpoint that speaks it. Every way an engine can fail
// ends as one proper Error or one chat::Failed event, never as silence.
#pragma once

#include <boost/asio/io_context.hpp>
#include <chrono>
#include <memory>
#include <string>

#include "net/http.h"
#include "wire/provider.h"

namespace hearth::fleet {

struct UpstreamOptions {
  std::string name = "worker";  // in explanations and messages
  std::string api_key;          // sent as a bearer token when not empty
  std::chrono::milliseconds connect_timeout{5'000};
  std::chrono::milliseconds first_event{600'000};     // silence before the first event: queueing and prefill
  std::chrono::milliseconds next_event{120'000};      // silence between two events
  std::size_t answer_bytes = std::size_t{256} << 20;  // longest non-streamed answer
};

class HttpUpstream final : public wire::Provider {
 public:
  HttpUpstream(net::asio::io_context& io, net::Endpoint endpoint, UpstreamOptions options);
  ~HttpUpstream() override;

  net::Task<Result<std::unique_ptr<wire::EventStream>>> generate(chat::Request request, wire::Caller caller) override;
  net::Task<Result<chat::Embeddings>> embed(chat::EmbeddingRequest request, wire::Caller caller) override;
  net::Task<Result<chat::RerankResult>> rerank(chat::RerankRequest request, wire::Caller caller) override;
  net::Task<Result<int>> count_tokens(chat::Request request, wire::Caller caller) override;
  net::Task<Result<std::vector<chat::TokenInfo>>> score(chat::Request request, wire::Caller caller) override;
  net::Task<Result<std::vector<chat::ModelInfo>>> models() override;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace hearth::fleet
