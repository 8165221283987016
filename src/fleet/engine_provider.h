// The bridge between two worlds in a worker: the engine hands over events on its scheduler's thread and blocks while it tokenizes; the protocol's
// coroutines live on the I/O loop. Events cross in batches, with one wake-up of the loop for all streams that a tick touched; blocking calls run on a
// few helper threads.
#pragma once

#include <boost/asio/io_context.hpp>
#include <memory>

#include "engine/engine.h"
#include "wire/provider.h"

namespace hearth::fleet {

class EngineProvider final : public wire::Provider {
 public:
  // `engine` and `io` outlive the provider.
  EngineProvider(net::asio::io_context& io, engine::Engine& engine, int helpers);
  ~EngineProvider() override;  // waits for the helpers

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
