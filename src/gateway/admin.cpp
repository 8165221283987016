#include "gateway/admin.h"

#include <algorithm>
#include <charconv>
#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/json.h"
#include "fleet/loop_event.h"
#include "net/sse.h"
#include "wire/answer.h"
#include "wire/openai.h"

namespace hearth::gateway {
namespace {

using net::Task;

constexpr std::string_view prefix = "/admin/";
constexpr std::string_view models_prefix = "/admin/models/";
// A reader that lets so many events lie comes back with Last-Event-ID, as after any broken connection.
constexpr std::size_t longest_backlog = 256;

std::string_view role_name(chat::ModelRole role) {
  switch (role) {
    case chat::ModelRole::chat: return "chat";
    case chat::ModelRole::embedding: return "embedding";
    case chat::ModelRole::reranker: return "reranker";
    case chat::ModelRole::classifier: return "classifier";
    case chat::ModelRole::vision: return "vision";
    case chat::ModelRole::reward: return "reward";
  }
  return "";
}

json::object to_json(const chat::ModelInfo& model) {
  json::array roles;
  for (const auto role : model.roles) roles.push_back(json::string(role_name(role)));
  return {{"id", model.id},
          {"state", state_name(model.state)},
          {"problem", model.problem},
          {"upstream", model.upstream},
          {"device", model.device},
          {"memory_bytes", model.memory_bytes},
          {"gpu_bytes", model.gpu_bytes},
          {"running", model.running},
          {"waiting", model.waiting},
          {"last_used", model.last_used},
          {"unloads_at", model.unloads_at},
          {"pinned", model.pinned},
          {"aliases", json::value_from(model.aliases)},
          {"roles", std::move(roles)},
          {"default_for_role", model.default_for_role},
          {"adapters", json::value_from(model.adapters)},
          {"context", model.context},
          {"chat", model.chat},
          {"embeddings", model.embeddings},
          {"rerank", model.rerank},
          {"vision", model.vision},
          {"tools", model.tools},
          {"architecture", model.architecture},
          {"quantisation", model.quantisation},
          {"parameters", model.parameters},
          {"bytes", model.bytes},
          {"created", model.created}};
}

void append_event(std::string& out, const fleet::ModelEvent& event) {
  const json::object data{{"time", event.time},
                          {"model", event.model},
                          {"state", state_name(event.state)},
                          {"reason", event.reason},
                          {"took_ms", event.took.count()}};
  out += "id: " + std::to_string(event.number) + "\n";
  net::append_sse(out, json::serialize(data), "model");
}

// How long a model stays after its last request, from the body of a load.
Result<std::optional<std::chrono::milliseconds>> keep_loaded(const std::string& body) {
  using Out = std::optional<std::chrono::milliseconds>;
  if (body.empty()) return Out{};
  const auto document = parse_json(body);
  if (!document.ok()) return document.error();
  if (!document->is_object()) return invalid("the body must be a JSON object, e.g. {\"keep_loaded\": 600}");
  for (const auto& field : document->get_object()) {
    if (field.key() != "keep_loaded")
      return invalid("\"" + std::string(field.key()) + "\" is not known here; there is keep_loaded", field.key());
  }
  const auto* value = document->get_object().if_contains("keep_loaded");
  if (value == nullptr || value->is_null()) return Out{};
  constexpr double most = 365.0 * 24 * 3600;
  const double seconds = value->is_number() ? value->to_number<double>() : most * 2;
  if (seconds > most) return invalid("keep_loaded must be a number of seconds, at most a year; negative = for ever", "keep_loaded");
  if (seconds < 0) return Out{std::chrono::milliseconds(-1)};
  return Out{std::chrono::milliseconds(static_cast<std::int64_t>(seconds * 1000))};
}

// The number a feed continues after: nothing for one that begins now.
Result<std::optional<std::uint64_t>> last_event(const net::HttpRequest& request) {
  using Out = std::optional<std::uint64_t>;
  const auto given = request.headers.find("last-event-id");
  if (!given || given->empty()) return Out{};
  std::uint64_t number = 0;
  const auto [end, ec] = std::from_chars(given->data(), given->data() + given->size(), number);
  if (ec != std::errc() || end != given->data() + given->size())
    return invalid("Last-Event-ID must be the id of an event of this feed, a whole number", "Last-Event-ID");
  return Out{number};
}

}  // namespace

std::string_view state_name(chat::ModelState state) {
  switch (state) {
    case chat::ModelState::absent: return "absent";
    case chat::ModelState::loading: return "loading";
    case chat::ModelState::ready: return "ready";
    case chat::ModelState::draining: return "draining";
    case chat::ModelState::failed: return "failed";
  }
  return "";
}

class Admin::Impl : public std::enable_shared_from_this<Impl> {
 public:
  Impl(net::asio::io_context& loop, fleet::Fleet& models, std::chrono::milliseconds silence)
      : io(loop), fleet(models), keep_alive(silence) {}

  Task<void> list(net::Exchange& exchange, const wire::Caller& caller) {
    json::array models;
    for (const auto& model : fleet.snapshot()) models.push_back(to_json(model));
    const json::object out{{"models", std::move(models)}, {"memory", {{"used", fleet.memory_used()}, {"budget", fleet.memory_budget()}}}};
    auto body = json::serialize(out);
    co_await wire::respond_json(exchange, caller, std::move(body));
  }

  // The model as it is after a load or unload.
  Task<void> respond_model(net::Exchange& exchange, const wire::Caller& caller, const std::string& name) {
    json::object out;
    for (const auto& model : fleet.snapshot()) {
      const bool meant = model.id == name || std::find(model.aliases.begin(), model.aliases.end(), name) != model.aliases.end();
      if (meant) out = to_json(model);
    }
    auto body = json::serialize(out);
    co_await wire::respond_json(exchange, caller, std::move(body));
  }

  Task<void> change(net::Exchange& exchange, const wire::Caller& caller, std::string name, bool loading) {
    const auto keep = keep_loaded(loading ? exchange.request().body : std::string());
    if (!keep.ok()) {
      co_await wire::respond_error(exchange, keep.error(), caller, wire::openai::encode_error);
      co_return;
    }
    auto watched = caller;
    watched.cancellation = std::make_shared<net::Cancellation>();
    exchange.on_client_gone([cancellation = watched.cancellation] { cancellation->request(); });
    Result<void> done;
    if (loading) {
      done = co_await fleet.load(name, *keep, std::move(watched));
    } else {
      done = co_await fleet.unload(name, std::move(watched));
    }
    exchange.on_client_gone(nullptr);
    if (!done.ok()) {
      co_await wire::respond_error(exchange, done.error(), caller, wire::openai::encode_error);
      co_return;
    }
    co_await respond_model(exchange, caller, name);
  }

  Task<void> feed(net::Exchange& exchange, const wire::Caller& caller) {
    const auto after = last_event(exchange.request());
    if (!after.ok()) {
      co_await wire::respond_error(exchange, after.error(), caller, wire::openai::encode_error);
      co_return;
    }
    std::deque<fleet::ModelEvent> backlog;
    bool gone = false, behind = false;
    fleet::LoopEvent news(io);
    const auto watching = fleet.watch([&](const fleet::ModelEvent& event) {
      behind = behind || backlog.size() >= longest_backlog;
      if (!behind) backlog.push_back(event);
      news.notify();
    });
    exchange.on_client_gone([&] {
      gone = true;
      news.notify();
    });
    feeds.push_back(&news);

    net::Headers headers;
    headers.add("Content-Type", "text/event-stream");
    headers.add("Cache-Control", "no-store");
    headers.add("x-request-id", caller.request_id);
    auto sent = co_await exchange.begin(200, std::move(headers));
    std::string frames;
    if (after->has_value()) {
      // A greater number is from before a restart, when counting began anew.
      auto missed = fleet.history(**after);
      const auto all = fleet.history(0);
      if (missed.empty() && !all.empty() && all.back().number < **after) missed = all;
      for (const auto& event : missed) append_event(frames, event);
    }
    net::append_sse_comment(frames, "model events");
    while (sent.ok() && !frames.empty()) {
      sent = co_await exchange.write(frames);
      frames.clear();
      if (!sent.ok() || gone || ending || behind) break;
      if (backlog.empty()) co_await news.wait_until(Clock::system().now() + keep_alive);
      if (gone || ending) break;
      for (const auto& event : backlog) append_event(frames, event);
      backlog.clear();
      if (frames.empty()) net::append_sse_comment(frames);
    }
    std::erase(feeds, &news);
    exchange.on_client_gone(nullptr);
    if (sent.ok() && !gone) { [[maybe_unused]] const auto finished = co_await exchange.finish(frames); }
  }

  net::asio::io_context& io;
  fleet::Fleet& fleet;
  const std::chrono::milliseconds keep_alive;
  std::vector<fleet::LoopEvent*> feeds;
  bool ending = false;
};

Admin::Admin(net::asio::io_context& io, fleet::Fleet& fleet, std::chrono::milliseconds keep_alive)
    : impl_(std::make_shared<Impl>(io, fleet, keep_alive)) {}
Admin::~Admin() = default;

void Admin::stop() {
  impl_->ending = true;
  for (auto* feed : impl_->feeds) feed->notify();
}

Task<bool> Admin::serve(net::Exchange& exchange, const wire::Caller& caller) {
  const auto impl = impl_;
  const auto path = exchange.request().path();
  if (!path.starts_with(prefix)) co_return false;
  const bool list = path == "/admin/models", events = path == "/admin/events";
  if (list || events) {
    const bool accepted = co_await wire::accepts(exchange, caller, "GET", wire::openai::encode_error);
    if (!accepted) co_return true;
    if (list) {
      co_await impl->list(exchange, caller);
    } else {
      co_await impl->feed(exchange, caller);
    }
    co_return true;
  }
  // Ids may hold slashes: what counts is the end.
  const auto last = path.rfind('/');
  const auto verb = path.substr(last + 1);
  if (!path.starts_with(models_prefix) || last <= models_prefix.size() || (verb != "load" && verb != "unload")) {
    const Error error{ErrorCode::not_found,
                      "there is no " + std::string(path.substr(0, 200)) +
                          " here; there are GET /admin/models, POST /admin/models/{id}/load and /unload, GET /admin/events"};
    co_await wire::respond_error(exchange, error, caller, wire::openai::encode_error);
    co_return true;
  }
  const bool accepted = co_await wire::accepts(exchange, caller, "POST", wire::openai::encode_error);
  if (!accepted) co_return true;
  auto name = wire::percent_decoded(path.substr(models_prefix.size(), last - models_prefix.size()));
  co_await impl->change(exchange, caller, std::move(name), verb == "load");
  co_return true;
}

}  // namespace hearth::gateway
