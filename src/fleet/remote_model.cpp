#include "fleet/remote_model.h"

#include <functional>
#include <optional>

#include "fleet/anthropic_upstream.h"
#include "fleet/placement.h"
#include "fleet/session.h"

namespace hearth::fleet {
namespace {

std::string text(const net::Endpoint& endpoint) {
  if (const auto* local = std::get_if<net::UnixEndpoint>(&endpoint)) return local->path;
  const auto& remote = std::get<net::TcpEndpoint>(endpoint);
  return remote.host + ":" + std::to_string(remote.port);
}

}  // namespace

struct RemoteModel::Endpoint {
  Endpoint(std::string called, std::unique_ptr<wire::Provider> way, const Clock& clock)
      : name(std::move(called)), provider(std::move(way)), breaker(name, {}, clock) {}
  const std::string name;
  const std::unique_ptr<wire::Provider> provider;
  CircuitBreaker breaker;
  int in_flight = 0;
};

// The endpoints still to be tried for one request, best first.
class RemoteModel::Tries {
 public:
  struct Try {
    std::shared_ptr<Endpoint> endpoint;
    CircuitBreaker::Pass pass;
  };

  Tries(std::shared_ptr<const Endpoints> endpoints, std::uint64_t key) : endpoints_(std::move(endpoints)) {
    std::vector<Candidate> candidates;
    for (const auto& endpoint : *endpoints_) candidates.push_back({endpoint->name, endpoint->in_flight, endpoint->breaker.lets_through()});
    order_ = place(key, candidates);
  }

  bool left() const { return next_ < order_.size(); }
  // unavailable with the reason when every endpoint is left alone.
  Result<Try> next() {
    while (left()) {
      const auto& endpoint = (*endpoints_)[order_[next_++]];
      auto pass = endpoint->breaker.enter();
      if (pass.ok()) return Try{endpoint, *std::move(pass)};
    }
    // Nobody is available: the one that will be soonest tells.
    std::optional<Error> soonest;
    for (const auto& endpoint : *endpoints_) {
      auto pass = endpoint->breaker.enter();
      if (pass.ok()) return Try{endpoint, *std::move(pass)};
      if (!soonest || pass.error().retry_after < soonest->retry_after) soonest = std::move(pass).error();
    }
    return *soonest;
  }

 private:
  std::shared_ptr<const Endpoints> endpoints_;
  std::vector<std::size_t> order_;
  std::size_t next_ = 0;
};

namespace {

struct InFlight {
  explicit InFlight(int& count) : count_(&count) { ++*count_; }
  InFlight(InFlight&& other) noexcept : count_(std::exchange(other.count_, nullptr)) {}
  InFlight& operator=(InFlight&&) = delete;
  ~InFlight() {
    if (count_) --*count_;
  }
  int* count_;
};

}  // namespace

class RemoteModel::Stream final : public wire::EventStream {
 public:
  Stream(Tries::Try with, std::unique_ptr<wire::EventStream> inner)
      : endpoint_(std::move(with.endpoint)), pass_(std::move(with.pass)), in_flight_(endpoint_->in_flight), inner_(std::move(inner)) {}

  net::Task<chat::Events> next() override {
    auto events = co_await inner_->next();
    if (const auto* failed = events.empty() ? nullptr : std::get_if<chat::Failed>(&events.back())) {
      if (is_upstream_fault(failed->error.code)) pass_.failed(failed->error.message);
    } else if (!events.empty() && std::holds_alternative<chat::Usage>(events.back())) {
      pass_.succeeded();
    }
    co_return events;
  }
  void cancel() override { inner_->cancel(); }
  const chat::Explanation& explanation() const override { return inner_->explanation(); }
  wire::Protocol raw_protocol() const override { return inner_->raw_protocol(); }
  std::span<const wire::RawFrame> raw() const override { return inner_->raw(); }

 private:
  std::shared_ptr<Endpoint> endpoint_;
  CircuitBreaker::Pass pass_;
  InFlight in_flight_;
  std::unique_ptr<wire::EventStream> inner_;
};

RemoteModel::RemoteModel(net::asio::io_context& io, const ModelSpec& spec, const Clock& clock) {
  auto endpoints = std::make_shared<Endpoints>();
  for (const auto& remote : spec.remotes) {
    auto name = text(remote.endpoint) + remote.base_path;
    auto options = spec.upstream;
    options.api_path = remote.base_path + options.api_path;
    std::unique_ptr<wire::Provider> provider;
    if (spec.kind == ModelKind::anthropic) provider = std::make_unique<AnthropicUpstream>(io, remote.endpoint, std::move(options));
    else provider = std::make_unique<HttpUpstream>(io, remote.endpoint, std::move(options));
    endpoints->push_back(std::make_shared<Endpoint>(std::move(name), std::move(provider), clock));
  }
  endpoints_ = std::move(endpoints);
}

std::unique_ptr<Attempts> RemoteModel::generate(chat::Request request, wire::Caller caller) {
  class Generation final : public Attempts {
   public:
    Generation(const std::shared_ptr<const Endpoints>& endpoints, chat::Request wanted, wire::Caller who)
        : tries_(endpoints, endpoints->size() > 1 ? prefix_key(wanted) : 0), request_(std::move(wanted)), caller_(std::move(who)) {}

    net::Task<Result<std::unique_ptr<wire::EventStream>>> open() override {
      auto next = tries_.next();
      if (!next.ok()) co_return std::move(next).error();
      auto with = *std::move(next);
      const InFlight counted(with.endpoint->in_flight);
      // Only the last one may have it: the others' would be needed again.
      auto request = tries_.left() ? request_ : std::move(request_);
      auto stream = co_await with.endpoint->provider->generate(std::move(request), caller_);
      if (!stream.ok()) {
        if (is_upstream_fault(stream.error().code)) with.pass.failed(stream.error().message);
        co_return std::move(stream).error();
      }
      co_return std::make_unique<Stream>(std::move(with), *std::move(stream));
    }
    net::Task<bool> again(Error failure) override { co_return is_upstream_fault(failure.code) && tries_.left(); }
    void settle() override { request_ = {}; }

   private:
    Tries tries_;
    chat::Request request_;
    wire::Caller caller_;
  };
  return std::make_unique<Generation>(endpoints_, std::move(request), std::move(caller));
}

template <class T, class Call>
net::Task<Result<T>> RemoteModel::ask(std::uint64_t key, Call call) {
  Tries tries(endpoints_, key);
  while (true) {
    auto next = tries.next();
    if (!next.ok()) co_return std::move(next).error();
    auto with = *std::move(next);
    const InFlight counted(with.endpoint->in_flight);
    auto result = co_await call(*with.endpoint->provider);
    if (result.ok()) with.pass.succeeded();
    else if (is_upstream_fault(result.error().code)) with.pass.failed(result.error().message);
    if (result.ok() || !is_upstream_fault(result.error().code) || !tries.left()) co_return result;
  }
}

// The callables are plain functions that start a call: they live in the frame of ask(), and copy what they send.

net::Task<Result<chat::Embeddings>> RemoteModel::embed(chat::EmbeddingRequest request, wire::Caller caller) {
  const auto key = std::hash<std::string>()(request.inputs.empty() ? std::string() : request.inputs.front().text);
  return ask<chat::Embeddings>(key, [request = std::move(request), caller = std::move(caller)](wire::Provider& provider) {
    return provider.embed(request, caller);
  });
}

net::Task<Result<chat::RerankResult>> RemoteModel::rerank(chat::RerankRequest request, wire::Caller caller) {
  const auto key = std::hash<std::string>()(request.query);
  return ask<chat::RerankResult>(key, [request = std::move(request), caller = std::move(caller)](wire::Provider& provider) {
    return provider.rerank(request, caller);
  });
}

net::Task<Result<int>> RemoteModel::count_tokens(chat::Request request, wire::Caller caller) {
  const auto key = prefix_key(request);
  return ask<int>(key, [request = std::move(request), caller = std::move(caller)](wire::Provider& provider) {
    return provider.count_tokens(request, caller);
  });
}

net::Task<Result<std::vector<chat::TokenInfo>>> RemoteModel::score(chat::Request request, wire::Caller caller) {
  const auto key = prefix_key(request);
  return ask<std::vector<chat::TokenInfo>>(key, [request = std::move(request), caller = std::move(caller)](wire::Provider& provider) {
    return provider.score(request, caller);
  });
}

}  // namespace hearth::fleet
