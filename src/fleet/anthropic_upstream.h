// A remote Anthropic endpoint as a Provider: Anthropic itself or one of the many services that speak its Messages API. A client that speaks the same
// protocol gets what it would get there: its own body goes on, with nothing but the model's name replaced, and the answer's bytes come back untouched
// unless that name shows in them. Every way the endpoint can fail ends as one proper Error or one chat::Failed event.
#pragma once

#include <boost/asio/io_context.hpp>
#include <memory>
#include <vector>

#include "fleet/http_service.h"

namespace hearth::fleet {

class AnthropicUpstream final : public wire::Provider {
 public:
  // `options.api_key` goes out as x-api-key; a service that wants it otherwise gets it through `options.headers`. Who asks is never told, and tool calls
  // need no dialect.
  AnthropicUpstream(net::asio::io_context& io, net::Endpoint endpoint, UpstreamOptions options);
  ~AnthropicUpstream() override;  // its streams may go on

  net::Task<Result<std::unique_ptr<wire::EventStream>>> generate(chat::Request request, wire::Caller caller) override;
  net::Task<Result<int>> count_tokens(chat::Request request, wire::Caller caller) override;
  net::Task<Result<std::vector<chat::ModelInfo>>> models() override;
  // unsupported: the API has nothing of the kind.
  net::Task<Result<chat::Embeddings>> embed(chat::EmbeddingRequest request, wire::Caller caller) override;
  net::Task<Result<chat::RerankResult>> rerank(chat::RerankRequest request, wire::Caller caller) override;
  net::Task<Result<std::vector<chat::TokenInfo>>> score(chat::Request request, wire::Caller caller) override;

 private:
  std::shared_ptr<HttpService> service_;
};

}  // namespace hearth::fleet
