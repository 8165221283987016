#include "fleet/anthropic_upstream.h"

#include <optional>

#include "wire/anthropic.h"

namespace hearth::fleet {
namespace {

namespace anthropic = wire::anthropic;

constexpr std::string_view version_header = "anthropic-version", beta_header = "anthropic-beta";
constexpr std::string_view usual_version = "2023-06-01";

const wire::Origin* same_protocol(const wire::Caller& caller) {
  return caller.origin && caller.origin->protocol == wire::Protocol::anthropic ? caller.origin.get() : nullptr;
}

class MessagesStream final : public ServiceStream {
 public:
  MessagesStream(std::shared_ptr<HttpService> service, HttpService::Open open, bool passes)
      : ServiceStream(std::move(service), std::move(open), wire::Protocol::anthropic, passes) {}

 private:
  Result<void> decode(const net::SseEvent& event, chat::Events& out) override { return decoder_.decode(event.event, event.data, out); }
  Result<void> decode_document(std::string_view body, chat::Events& out) override { return decoder_.decode_document(body, out); }
  bool done() const override { return decoder_.done(); }
  bool understood() const override { return decoder_.understood(); }
  Result<void> finish(chat::Events&, std::string&) override { return decoder_.finish(); }
  bool passes(const net::SseEvent&) const override { return true; }
  // Whatever a service says counts, also what only its own client understands; but not its pings.
  bool progress(const net::SseEvent& event, bool) const override { return event.event != "ping"; }

  anthropic::StreamDecoder decoder_;
};

net::HttpRequest make(const HttpService& service, std::string_view method, std::string_view path, std::string body,
                      const wire::Caller& caller) {
  auto request = service.make(method, path, std::move(body));
  const auto& options = service.options();
  if (!options.api_key.empty() && !request.headers.find("x-api-key")) request.headers.set("x-api-key", options.api_key);
  if (!request.headers.find(version_header)) request.headers.set(version_header, std::string(usual_version));
  if (const wire::Origin* origin = same_protocol(caller)) {
    for (const auto& [field, value] : origin->headers) {
      if (net::same_field_name(field, version_header) || net::same_field_name(field, beta_header)) request.headers.set(field, value);
    }
  }
  return request;
}

}  // namespace

AnthropicUpstream::AnthropicUpstream(net::asio::io_context& io, net::Endpoint endpoint, UpstreamOptions options)
    : service_(
          std::make_shared<HttpService>(io, std::move(endpoint), std::move(options), ServiceWords{"Anthropic", anthropic::decode_error})) {}
AnthropicUpstream::~AnthropicUpstream() = default;

net::Task<Result<std::unique_ptr<wire::EventStream>>> AnthropicUpstream::generate(chat::Request request, wire::Caller caller) {
  const auto service = service_;
  const UpstreamOptions& options = service->options();
  if (!options.remote_model.empty()) request.model = options.remote_model;
  const bool capped = options.max_tokens && request.max_tokens.value_or(*options.max_tokens + 1) > *options.max_tokens;
  if (capped) request.max_tokens = options.max_tokens;

  const wire::Origin* origin = same_protocol(caller);
  std::optional<std::string> body;
  if (origin != nullptr && !capped) body = anthropic::body_for(*origin, request.model, true);
  if (!body) {
    auto encoded = anthropic::encode_request(request);
    if (!encoded.ok()) co_return std::move(encoded).error();
    body = *std::move(encoded);
  }
  // The answer names the model as it is called there.
  const bool passes = origin != nullptr && anthropic::model_of(*origin) == request.model;
  auto http = make(*service, "POST", "/messages", *std::move(body), caller);
  http.headers.add("Accept", "text/event-stream");
  auto opened = co_await service->open(std::move(http), caller.cancellation);
  if (!opened.ok()) co_return std::move(opened).error();
  co_return std::make_unique<MessagesStream>(service, *std::move(opened), passes);
}

net::Task<Result<int>> AnthropicUpstream::count_tokens(chat::Request request, wire::Caller caller) {
  const auto service = service_;
  if (!service->options().remote_model.empty()) request.model = service->options().remote_model;
  const wire::Origin* origin = same_protocol(caller);
  auto body = origin != nullptr ? anthropic::body_for(*origin, request.model, false) : std::nullopt;
  if (!body) {
    auto encoded = anthropic::encode_count_request(request);
    if (!encoded.ok()) co_return std::move(encoded).error();
    body = *std::move(encoded);
  }
  auto http = make(*service, "POST", "/messages/count_tokens", *std::move(body), caller);
  co_return co_await service->call(std::move(http), caller.cancellation, anthropic::decode_count_answer);
}

net::Task<Result<std::vector<chat::ModelInfo>>> AnthropicUpstream::models() {
  auto http = make(*service_, "GET", "/models?limit=1000", {}, {});
  return service_->call(std::move(http), nullptr, anthropic::decode_models_answer);
}

net::Task<Result<chat::Embeddings>> AnthropicUpstream::embed(chat::EmbeddingRequest, wire::Caller) {
  co_return Error{ErrorCode::unsupported, "a model behind the Anthropic API gives no embeddings", "model"};
}
net::Task<Result<chat::RerankResult>> AnthropicUpstream::rerank(chat::RerankRequest, wire::Caller) {
  co_return Error{ErrorCode::unsupported, "a model behind the Anthropic API does not rerank", "model"};
}
net::Task<Result<std::vector<chat::TokenInfo>>> AnthropicUpstream::score(chat::Request, wire::Caller) {
  co_return Error{ErrorCode::unsupported, "a model behind the Anthropic API tells no log-probabilities", "model"};
}

}  // namespace hearth::fleet
