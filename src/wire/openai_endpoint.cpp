#include "wire/openai_endpoint.h"

#include <ctime>
#include <optional>

#include "base/id.h"
#include "net/sse.h"
#include "wire/answer.h"
#include "wire/openai.h"

namespace hearth::wire::openai {
namespace {

using net::Task;

class Codec final : public AnswerCodec {
 public:
  explicit Codec(AnswerHead head) : head_(std::move(head)) {}
  void served_by(const std::string& model) override {
    head_.model = model;
    encoder_.emplace(head_);
  }
  void encode(const chat::Event& event, std::string& out) override { encoder_->encode(event, out); }
  void passed(std::string_view frame, std::span<const chat::Event> events) override { encoder_->passed(frame, events); }
  void end(std::string& out) override { encoder_->end(out); }
  void keep_alive(std::string& out) override { net::append_sse_comment(out); }
  std::string whole(const Answer& answer) override { return encode_answer(head_, answer); }

 private:
  AnswerHead head_;
  std::optional<StreamEncoder> encoder_;
};

Task<void> generate(net::Exchange& exchange, Provider& provider, Caller caller, EndpointOptions options, Result<chat::Request> decoded) {
  if (!decoded) {
    co_await respond_error(exchange, decoded.error(), caller, encode_error);
    co_return;
  }
  const chat::Request& request = *decoded;
  AnswerHead head;
  head.raw = !request.prompts.empty();
  head.id = random_id(head.raw ? "cmpl-" : "chatcmpl-");
  head.created = std::time(nullptr);
  head.include_usage = request.include_usage;
  head.start_usage = request.start_usage;
  head.logprobs = request.top_logprobs.has_value();
  head.choices = request.choices * static_cast<int>(head.raw ? request.prompts.size() : 1);
  if (request.stream) {
    auto origin = std::make_shared<Origin>();
    origin->protocol = head.raw ? Protocol::openai_completion : Protocol::openai_chat;
    caller.origin = std::move(origin);
  }
  Codec codec(std::move(head));
  co_await answer(exchange, provider, std::move(caller), options, std::move(*decoded), codec, encode_error);
}

// What a prefill answers: how much was computed.
class PrefillCodec final : public AnswerCodec {
 public:
  void served_by(const std::string& model) override { model_ = model; }
  void encode(const chat::Event&, std::string&) override {}
  void end(std::string&) override {}
  void keep_alive(std::string&) override {}
  std::string whole(const Answer& answer) override { return encode_prefill(answer.usage, model_); }

 private:
  std::string model_;
};

Task<void> prefill(net::Exchange& exchange, Provider& provider, Caller caller, EndpointOptions options) {
  auto request = decode_chat_or_completion(exchange.request().body);
  if (!request) {
    co_await respond_error(exchange, request.error(), caller, encode_error);
    co_return;
  }
  request->prefill_only = true;
  request->stream = false;
  PrefillCodec codec;
  co_await answer(exchange, provider, std::move(caller), options, std::move(*request), codec, encode_error);
}

Task<void> embeddings(net::Exchange& exchange, Provider& provider, const Caller& caller) {
  auto request = decode_embeddings(exchange.request().body);
  if (!request) {
    co_await respond_error(exchange, request.error(), caller, encode_error);
    co_return;
  }
  request->tenant = caller.tenant;
  const std::string model = request->model;
  const bool base64 = request->base64;
  const auto result = co_await provider.embed(std::move(*request), caller);
  if (!result) co_await respond_error(exchange, result.error(), caller, encode_error);
  else co_await respond_json(exchange, caller, encode_embeddings(*result, model, base64));
}

Task<void> rerank(net::Exchange& exchange, Provider& provider, const Caller& caller) {
  auto request = decode_rerank(exchange.request().body);
  if (!request) {
    co_await respond_error(exchange, request.error(), caller, encode_error);
    co_return;
  }
  request->tenant = caller.tenant;
  const auto result = co_await provider.rerank(*request, caller);
  if (!result) co_await respond_error(exchange, result.error(), caller, encode_error);
  else co_await respond_json(exchange, caller, encode_rerank(*result, *request, request->model));
}

Task<void> count(net::Exchange& exchange, Provider& provider, const Caller& caller) {
  auto request = decode_chat_or_completion(exchange.request().body);
  if (!request) {
    co_await respond_error(exchange, request.error(), caller, encode_error);
    co_return;
  }
  request->tenant = caller.tenant;
  const auto result = co_await provider.count_tokens(std::move(*request), caller);
  if (!result) co_await respond_error(exchange, result.error(), caller, encode_error);
  else co_await respond_json(exchange, caller, encode_count(*result));
}

Task<void> score(net::Exchange& exchange, Provider& provider, const Caller& caller) {
  auto request = decode_completion(exchange.request().body);
  if (request && request->prompts.size() != 1) request = invalid("prompt must be one text; several cannot be scored at once", "prompt");
  if (!request) {
    co_await respond_error(exchange, request.error(), caller, encode_error);
    co_return;
  }
  request->tenant = caller.tenant;
  const auto result = co_await provider.score(std::move(*request), caller);
  if (!result) co_await respond_error(exchange, result.error(), caller, encode_error);
  else co_await respond_json(exchange, caller, encode_score(*result));
}

// `id` empty: all of them.
Task<void> models(net::Exchange& exchange, Provider& provider, const Caller& caller, std::string id) {
  const auto result = co_await provider.models();
  if (!result) {
    co_await respond_error(exchange, result.error(), caller, encode_error);
    co_return;
  }
  if (id.empty()) {
    co_await respond_json(exchange, caller, encode_models(*result));
    co_return;
  }
  std::string known;
  for (const auto& model : *result) {
    if (model.id == id) {
      co_await respond_json(exchange, caller, encode_model(model));
      co_return;
    }
    known += (known.empty() ? "" : ", ") + model.id;
  }
  const Error error{
      ErrorCode::model_not_found, "there is no model \"" + id + "\"; there are: " + (known.empty() ? "none" : known), "model", {}};
  co_await respond_error(exchange, error, caller, encode_error);
}

enum class Route { none, chat, completion, prefill, embeddings, rerank, count, score, models, model };

constexpr std::string_view model_prefix = "/v1/models/";

Route route_of(std::string_view path) {
  if (path == "/v1/chat/completions") return Route::chat;
  if (path == "/v1/completions") return Route::completion;
  if (path == "/v1/embeddings") return Route::embeddings;
  if (path == "/v1/prefill") return Route::prefill;
  if (path == "/v1/rerank" || path == "/v2/rerank" || path == "/rerank") return Route::rerank;  // Jina and Cohere, old and new
  if (path == "/v1/tokenize/count") return Route::count;
  if (path == "/v1/score") return Route::score;
  if (path == "/v1/models") return Route::models;
  if (path.starts_with(model_prefix) && path.size() > model_prefix.size()) return Route::model;
  return Route::none;
}

}  // namespace

Task<bool> serve(net::Exchange& exchange, Provider& provider, Caller caller, EndpointOptions options) {
  const net::HttpRequest& request = exchange.request();
  const std::string_view path = request.path();
  const Route route = route_of(path);
  if (route == Route::none) co_return false;
  const std::string_view method = route == Route::models || route == Route::model ? "GET" : "POST";
  if (!co_await accepts(exchange, caller, method, encode_error)) co_return true;
  switch (route) {
    case Route::none: break;
    case Route::chat: {
      auto decoded = decode_chat(request.body);
      co_await generate(exchange, provider, std::move(caller), options, std::move(decoded));
      break;
    }
    case Route::completion: {
      auto decoded = decode_completion(request.body);
      co_await generate(exchange, provider, std::move(caller), options, std::move(decoded));
      break;
    }
    case Route::prefill: co_await prefill(exchange, provider, std::move(caller), options); break;
    case Route::embeddings: co_await embeddings(exchange, provider, caller); break;
    case Route::rerank: co_await rerank(exchange, provider, caller); break;
    case Route::count: co_await count(exchange, provider, caller); break;
    case Route::score: co_await score(exchange, provider, caller); break;
    case Route::models: co_await models(exchange, provider, caller, {}); break;
    case Route::model: {
      std::string id = percent_decoded(path.substr(model_prefix.size()));
      co_await models(exchange, provider, caller, std::move(id));
      break;
    }
  }
  co_return true;
}

}  // namespace hearth::wire::openai
