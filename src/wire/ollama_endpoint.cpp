#include "wire/ollama_endpoint.h"

#include <algorithm>

#include "wire/answer.h"
#include "wire/fields.h"
#include "wire/ollama.h"

namespace hearth::wire::ollama {
namespace {

using net::Task;

constexpr std::string_view default_tag = ":latest";

bool goes_by(const chat::ModelInfo& model, std::string_view name) {
  return model.id == name || std::find(model.aliases.begin(), model.aliases.end(), name) != model.aliases.end();
}

const chat::ModelInfo* find(const std::vector<chat::ModelInfo>& models, std::string_view name) {
  const auto known = std::find_if(models.begin(), models.end(), [&](const auto& model) {
    return name.empty() ? model.default_for_role && model.chat : goes_by(model, name);
  });
  if (known != models.end()) return &*known;
  return name.empty() && !models.empty() ? &models.front() : nullptr;
}

// Ollama's clients add ":latest" to a name without a tag: it goes where no model has it in its name.
const chat::ModelInfo* settle_name(const std::vector<chat::ModelInfo>& models, std::string& name) {
  const chat::ModelInfo* model = find(models, name);
  if (model == nullptr && name.size() > default_tag.size() && name.ends_with(default_tag)) {
    name.resize(name.size() - default_tag.size());
    model = find(models, name);
  }
  return model;
}

Error unknown_model(const std::vector<chat::ModelInfo>& models, const std::string& name) {
  std::string known;
  for (const auto& model : models) known += (known.empty() ? "" : ", ") + model.id;
  return {ErrorCode::model_not_found, "model " + quoted(name) + " not found; there are: " + (known.empty() ? "none" : known), "model", {}};
}

// Makes `name` the one that is served, refuses a context that cannot be had, and tells whether the model is loaded. When the models are not known
// the request goes on, and whoever serves it decides.
Task<Result<bool>> settle(Provider& provider, std::string& name, std::optional<int> context) {
  const auto models = co_await provider.models();
  if (!models) co_return false;
  const chat::ModelInfo* model = settle_name(*models, name);
  if (model == nullptr) co_return false;
  if (context && model->context > 0 && *context > model->context) {
    co_return Error{ErrorCode::context_length_exceeded,
                    "options.num_ctx asks for a context of " + std::to_string(*context) + " tokens, but " + model->id + " has " +
                        std::to_string(model->context) + "; ask for at most that, or serve the model with a larger one",
                    "options.num_ctx",
                    {}};
  }
  co_return model->state == chat::ModelState::ready;
}

// Loads, or with 0 unloads. Where models do not come and go, one that is there counts as loaded.
Task<Result<void>> load(Provider& provider, std::string model, std::optional<std::chrono::milliseconds> keep, const Caller& caller) {
  if (keep && keep->count() == 0) {
    auto unloaded = co_await provider.unload(std::move(model), caller);
    co_return unloaded;
  }
  auto loaded = co_await provider.load(model, keep, caller);
  if (loaded || loaded.error().code != ErrorCode::unsupported) co_return loaded;
  const auto models = co_await provider.models();
  if (!models) co_return models.error();
  if (find(*models, model) == nullptr) co_return unknown_model(*models, model);
  co_return Result<void>();
}

Task<void> generate(net::Exchange& exchange, Provider& provider, Caller caller, EndpointOptions options, Form form,
                    Result<GenerateRequest> decoded) {
  if (!decoded) {
    co_await respond_error(exchange, decoded.error(), caller, encode_error);
    co_return;
  }
  Codec codec(form);
  chat::Request& request = decoded->request;
  const auto settled = co_await settle(provider, request.model, decoded->context);
  if (!settled) {
    co_await respond_error(exchange, settled.error(), caller, encode_error);
    co_return;
  }
  if (*settled) codec.was_ready();
  if (!decoded->load) {
    co_await answer(exchange, provider, std::move(caller), options, std::move(request), codec, encode_error);
    co_return;
  }
  const auto loaded = co_await load(provider, request.model, request.keep_loaded, caller);
  if (!loaded) co_await respond_error(exchange, loaded.error(), caller, encode_error);
  else co_await respond_json(exchange, caller, encode_loaded(form, request.model, request.keep_loaded == std::chrono::milliseconds(0)));
}

Task<void> embed(net::Exchange& exchange, Provider& provider, const Caller& caller, bool old_form, Result<EmbedRequest> decoded) {
  if (!decoded) {
    co_await respond_error(exchange, decoded.error(), caller, encode_error);
    co_return;
  }
  const TimePoint asked = Clock::system().now();
  chat::EmbeddingRequest& request = decoded->request;
  const auto settled = co_await settle(provider, request.model, decoded->context);
  if (!settled) {
    co_await respond_error(exchange, settled.error(), caller, encode_error);
    co_return;
  }
  request.tenant = caller.tenant;
  const std::string model = request.model;
  chat::Embeddings result;
  if (decoded->load) {
    const auto loaded = co_await load(provider, model, decoded->keep_loaded, caller);
    if (!loaded) {
      co_await respond_error(exchange, loaded.error(), caller, encode_error);
      co_return;
    }
  } else {
    auto embedded = co_await provider.embed(std::move(request), caller);
    if (!embedded) {
      co_await respond_error(exchange, embedded.error(), caller, encode_error);
      co_return;
    }
    result = std::move(*embedded);
    // How long the model stays is a wish beside the answer, which is there.
    if (decoded->keep_loaded) (void)co_await load(provider, model, decoded->keep_loaded, caller);
  }
  co_await respond_json(exchange, caller,
                        old_form ? encode_embeddings(result) : encode_embed(result, model, Clock::system().now() - asked));
}

Task<void> show(net::Exchange& exchange, Provider& provider, const Caller& caller) {
  auto name = decode_show(exchange.request().body);
  if (!name) {
    co_await respond_error(exchange, name.error(), caller, encode_error);
    co_return;
  }
  const auto models = co_await provider.models();
  if (!models) {
    co_await respond_error(exchange, models.error(), caller, encode_error);
    co_return;
  }
  const chat::ModelInfo* model = settle_name(*models, *name);
  if (model != nullptr) co_await respond_json(exchange, caller, encode_show(*model));
  else co_await respond_error(exchange, unknown_model(*models, *name), caller, encode_error);
}

enum class Route { none, chat, generate, embed, embeddings, show, tags, ps, version, refused };

constexpr std::string_view prefix = "/api/";

// What needs a registry, or writes models.
constexpr std::string_view no_pull =
    "nothing is pulled from a registry here: put the GGUF file into the models folder (fleet.folder) or name it in the "
    "configuration ([models.NAME] path)";
constexpr std::string_view no_push = "nothing is pushed to a registry here: copy the model's GGUF file";
constexpr std::string_view no_write =
    "models are files and configuration here, not made over the API: put the GGUF file into the models folder "
    "(fleet.folder), or set its name, context and adapters in the configuration ([models.NAME])";
constexpr std::string_view no_delete =
    "models are not deleted over the API: remove the GGUF file, or its table in the configuration; to free its memory "
    "only, send an empty prompt with keep_alive 0";

Route route_of(std::string_view path) {
  if (!path.starts_with(prefix)) return Route::none;
  path.remove_prefix(prefix.size());
  if (path == "chat") return Route::chat;
  if (path == "generate") return Route::generate;
  if (path == "embed") return Route::embed;
  if (path == "embeddings") return Route::embeddings;
  if (path == "show") return Route::show;
  if (path == "tags") return Route::tags;
  if (path == "ps") return Route::ps;
  if (path == "version") return Route::version;
  if (path == "pull" || path == "push" || path == "create" || path == "copy" || path == "delete" || path.starts_with("blobs/")) {
    return Route::refused;
  }
  return Route::none;
}

std::string_view advice(std::string_view path) {
  path.remove_prefix(prefix.size());
  if (path == "pull") return no_pull;
  if (path == "push") return no_push;
  if (path == "delete") return no_delete;
  return no_write;
}

}  // namespace

bool owns(const net::HttpRequest& request) { return request.path().starts_with(prefix); }

Task<bool> serve(net::Exchange& exchange, Provider& provider, Caller caller, EndpointOptions options) {
  const net::HttpRequest& request = exchange.request();
  const std::string_view path = request.path();
  const Route route = route_of(path);
  if (route == Route::none) co_return false;
  if (route == Route::refused) {
    const Error error{ErrorCode::unsupported, std::string(advice(path)), "", {}};
    co_await respond_error(exchange, error, caller, encode_error);
    co_return true;
  }
  const bool reads = route == Route::tags || route == Route::ps || route == Route::version;
  const std::string_view method = !reads ? "POST" : request.method == "HEAD" ? "HEAD" : "GET";
  if (!co_await accepts(exchange, caller, method, encode_error)) co_return true;
  switch (route) {
    case Route::none:
    case Route::refused: break;
    case Route::chat: {
      auto decoded = decode_chat(request.body);
      co_await generate(exchange, provider, std::move(caller), options, Form::chat, std::move(decoded));
      break;
    }
    case Route::generate: {
      auto decoded = decode_generate(request.body);
      co_await generate(exchange, provider, std::move(caller), options, Form::generate, std::move(decoded));
      break;
    }
    case Route::embed: {
      auto decoded = decode_embed(request.body);
      co_await embed(exchange, provider, caller, false, std::move(decoded));
      break;
    }
    case Route::embeddings: {
      auto decoded = decode_embeddings(request.body);
      co_await embed(exchange, provider, caller, true, std::move(decoded));
      break;
    }
    case Route::show: co_await show(exchange, provider, caller); break;
    case Route::tags:
    case Route::ps: {
      auto models = provider.models();
      co_await respond_with(exchange, caller, encode_error, std::move(models), [route](const std::vector<chat::ModelInfo>& found) {
        return route == Route::ps ? encode_ps(found) : encode_tags(found);
      });
      break;
    }
    case Route::version: co_await respond_json(exchange, caller, encode_version()); break;
  }
  co_return true;
}

}  // namespace hearth::wire::ollama
