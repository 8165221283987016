#include "wire/anthropic_endpoint.h"

#include "base/id.h"
#include "wire/answer.h"
#include "wire/anthropic.h"

namespace hearth::wire::anthropic {
namespace {

using net::Task;

constexpr std::string_view version_header = "anthropic-version";
constexpr std::string_view messages_path = "/v1/messages";
constexpr std::string_view count_path = "/v1/messages/count_tokens";
constexpr std::string_view models_path = "/v1/models";
constexpr std::string_view model_prefix = "/v1/models/";

EncodeError error_encoder(const Caller& caller) {
  return [id = caller.request_id](const Error& error) { return encode_error(error, id); };
}

Task<void> generate(net::Exchange& exchange, Provider& provider, Caller caller, EndpointOptions options) {
  auto decoded = decode_messages(exchange.request().body);
  if (!decoded) {
    co_await respond_error(exchange, decoded.error(), caller, error_encoder(caller));
    co_return;
  }
  chat::Request& request = decoded->request;
  request.include_usage = request.start_usage = true;
  MessageCodec codec({.id = random_id("msg_"),
                      .model = {},
                      .request_id = caller.request_id,
                      .estimated_prompt = estimate_tokens(request),
                      .explanation = std::move(decoded->explanation)});
  const EncodeError encode = error_encoder(caller);
  co_await answer(exchange, provider, std::move(caller), options, std::move(request), codec, encode);
}

Task<void> count(net::Exchange& exchange, Provider& provider, Caller caller) {
  auto decoded = decode_count(exchange.request().body);
  if (!decoded) {
    co_await respond_error(exchange, decoded.error(), caller, error_encoder(caller));
    co_return;
  }
  decoded->request.tenant = caller.tenant;
  co_await respond_with(exchange, caller, error_encoder(caller), provider.count_tokens(std::move(decoded->request), caller), encode_count);
}

// `id` empty: a page of the list.
Task<void> models(net::Exchange& exchange, Provider& provider, const Caller& caller, std::string id) {
  const auto all = co_await provider.models();
  Result<std::string> body = internal_error("");
  if (!all) {
    body = all.error();
  } else if (id.empty()) {
    body = encode_models(*all, exchange.request().query());
  } else {
    std::string known;
    body = Error{ErrorCode::model_not_found, "", "model"};
    for (const auto& model : *all) {
      if (model.id == id) body = encode_model(model);
      known += (known.empty() ? "" : ", ") + model.id;
    }
    if (!body) body.error().message = "there is no model \"" + id + "\"; there are: " + (known.empty() ? "none" : known);
  }
  if (body) co_await respond_json(exchange, caller, std::move(*body));
  else co_await respond_error(exchange, body.error(), caller, error_encoder(caller));
}

}  // namespace

bool owns(const net::HttpRequest& request) {
  const std::string_view path = request.path();
  return path == messages_path || (path.starts_with(messages_path) && path[messages_path.size()] == '/') ||
         request.headers.find(version_header).has_value();
}

Task<bool> serve(net::Exchange& exchange, Provider& provider, Caller caller, EndpointOptions options) {
  const net::HttpRequest& request = exchange.request();
  const std::string_view path = request.path();
  const bool listing = path == models_path, single = path.starts_with(model_prefix) && path.size() > model_prefix.size();
  const bool asked = path == messages_path || path == count_path;
  if (!asked && !((listing || single) && owns(request))) co_return false;

  const bool accepted = co_await accepts(exchange, caller, asked ? "POST" : "GET", error_encoder(caller));
  if (!accepted) co_return true;
  if (asked) caller.origin = origin_of(request, Protocol::anthropic, {"anthropic-beta", version_header});
  if (path == messages_path) {
    co_await generate(exchange, provider, std::move(caller), options);
  } else if (path == count_path) {
    co_await count(exchange, provider, std::move(caller));
  } else {
    std::string id = single ? percent_decoded(path.substr(model_prefix.size())) : std::string();
    co_await models(exchange, provider, caller, std::move(id));
  }
  co_return true;
}

}  // namespace hearth::wire::anthropic
