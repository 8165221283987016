#include "fleet/upstream.h"

#include <algorithm>

#include "fleet/dialect_stream.h"
#include "wire/openai.h"

namespace hearth::fleet {
namespace {

namespace openai = wire::openai;

class OpenAiStream final : public ServiceStream {
 public:
  OpenAiStream(std::shared_ptr<HttpService> service, HttpService::Open open, wire::Protocol protocol, bool passes, bool usage_wanted)
      : ServiceStream(std::move(service), std::move(open), protocol, passes), usage_wanted_(usage_wanted) {}

 private:
  Result<void> decode(const net::SseEvent& event, chat::Events& out) override { return decoder_.decode(event.data, out); }
  Result<void> decode_document(std::string_view body, chat::Events& out) override { return decoder_.decode_document(body, out); }
  bool done() const override { return decoder_.done(); }
  bool understood() const override { return decoder_.understood(); }
  Result<void> finish(chat::Events& out, std::string& closing) override {
    auto finished = decoder_.finish(out);
    if (finished.ok()) closing = "data: [DONE]\n\n";
    return finished;
  }
  // Usage is always asked for here; not every client did.
  bool passes(const net::SseEvent& event) const override {
    return usage_wanted_ || event.data.find(R"("choices":[])") == std::string::npos;
  }
  // Some engines open the assistant's turn before they read the prompt.
  bool progress(const net::SseEvent&, bool said_something) const override { return said_something; }

  openai::StreamDecoder decoder_;
  const bool usage_wanted_;
};

net::HttpRequest make(const HttpService& service, std::string_view method, std::string_view path, std::string body,
                      const wire::Caller& caller) {
  auto request = service.make(method, path, std::move(body));
  const auto& options = service.options();
  if (options.own_engine && !caller.tenant.empty()) request.headers.set("X-Hearth-Tenant", caller.tenant);
  if (!caller.request_id.empty()) request.headers.set("X-Request-Id", caller.request_id);
  if (!options.api_key.empty() && !request.headers.find("Authorization")) {
    request.headers.set("Authorization", "Bearer " + options.api_key);
  }
  return request;
}

// The request as it is meant for this upstream.
template <class Request>
void adapt(Request& request, const UpstreamOptions& options) {
  if (!options.remote_model.empty()) request.model = options.remote_model;
  if constexpr (std::is_same_v<Request, chat::Request>) {
    if (options.max_tokens) request.max_tokens = std::min(request.max_tokens.value_or(*options.max_tokens), *options.max_tokens);
    if (!options.own_engine) request.start_usage = false;
  }
}

}  // namespace

HttpUpstream::HttpUpstream(net::asio::io_context& io, net::Endpoint endpoint, UpstreamOptions options)
    : service_(std::make_shared<HttpService>(io, std::move(endpoint), std::move(options), ServiceWords{"OpenAI", openai::decode_error})) {}
HttpUpstream::~HttpUpstream() = default;

void HttpUpstream::connect_to(net::Endpoint endpoint) { service_->connect_to(std::move(endpoint)); }
int HttpUpstream::running() const { return service_->limiter().running(); }
int HttpUpstream::waiting() const { return service_->limiter().waiting(); }

net::Task<Result<std::unique_ptr<wire::EventStream>>> HttpUpstream::generate(chat::Request request, wire::Caller caller) {
  const auto service = service_;
  const auto& options = service->options();
  adapt(request, options);
  const auto dialect = options.dialect;
  std::vector<chat::ToolSpec> tools;
  if (dialect) {
    if (request.tool_choice.mode != chat::ToolChoice::Mode::none) tools = request.tools;
    wire::write_as_text(request, *dialect);
  }
  const auto protocol = request.prompts.empty() ? wire::Protocol::openai_chat : wire::Protocol::openai_completion;
  // Frames name the model as the upstream calls it.
  const bool passes = caller.origin && caller.origin->protocol == protocol && options.remote_model.empty();
  const bool usage_wanted = request.include_usage;
  const auto path = request.prompts.empty() ? "/chat/completions" : "/completions";
  auto http = make(*service, "POST", path, openai::encode_request(request), caller);
  http.headers.add("Accept", "text/event-stream");
  auto opened = co_await service->open(std::move(http), caller.cancellation);
  if (!opened.ok()) co_return std::move(opened).error();
  std::unique_ptr<wire::EventStream> stream = std::make_unique<OpenAiStream>(service, *std::move(opened), protocol, passes, usage_wanted);
  if (!tools.empty()) stream = read_dialect(std::move(stream), *dialect, std::move(tools));
  co_return stream;
}

net::Task<Result<chat::Embeddings>> HttpUpstream::embed(chat::EmbeddingRequest request, wire::Caller caller) {
  adapt(request, service_->options());
  auto http = make(*service_, "POST", "/embeddings", openai::encode_embedding_request(request), caller);
  return service_->call(std::move(http), caller.cancellation, openai::decode_embeddings_answer);
}

net::Task<Result<chat::RerankResult>> HttpUpstream::rerank(chat::RerankRequest request, wire::Caller caller) {
  adapt(request, service_->options());
  auto http = make(*service_, "POST", "/rerank", openai::encode_rerank_request(request), caller);
  return service_->call(std::move(http), caller.cancellation, openai::decode_rerank_answer);
}

net::Task<Result<int>> HttpUpstream::count_tokens(chat::Request request, wire::Caller caller) {
  adapt(request, service_->options());
  auto http = make(*service_, "POST", "/tokenize/count", openai::encode_request(request), caller);
  return service_->call(std::move(http), caller.cancellation, openai::decode_count_answer);
}

net::Task<Result<std::vector<chat::TokenInfo>>> HttpUpstream::score(chat::Request request, wire::Caller caller) {
  adapt(request, service_->options());
  auto http = make(*service_, "POST", "/score", openai::encode_request(request), caller);
  return service_->call(std::move(http), caller.cancellation, openai::decode_score_answer);
}

net::Task<Result<std::vector<chat::ModelInfo>>> HttpUpstream::models() {
  auto http = make(*service_, "GET", "/models", {}, {});
  return service_->call(std::move(http), nullptr, openai::decode_models_answer);
}

}  // namespace hearth::fleet
