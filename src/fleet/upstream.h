// An engine behind the OpenAI protocol, as a Provider: our own worker's Unix socket or any endpoint that speaks it. Every way an engine can fail
// ends as one proper Error or one chat::Failed event, never as silence, and never as half an answer that looks whole.
#pragma once

#include <boost/asio/io_context.hpp>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "fleet/http_service.h"

namespace hearth::fleet {

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
  std::shared_ptr<HttpService> service_;
};

}  // namespace hearth::fleet
