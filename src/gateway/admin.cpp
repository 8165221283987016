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
constexpr std::string_view approvals_path = "/admin/approvals";
constexpr std::string_view reload_path = "/admin/safety/reload";
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

json::object to_json(const safety::HeldCall& call) {
  return {{"id", call.id},         {"tenant", call.tenant},       {"model", call.model}, {"request", call.request_id},
          {"tool", call.tool},     {"arguments", call.arguments}, {"layer", call.layer}, {"rule", call.rule},
          {"reason", call.reason}, {"excerpt", call.excerpt},     {"since", call.since}, {"until", call.until}};
}

// Why an operator decided so, from the body; may be left out.
Result<std::string> reason_of(const std::string& body) {
  if (body.empty()) return std::string();
  const auto document = parse_json(body);
  if (!document.ok()) return document.error();
  if (!document->is_object()) return invalid("the body must be a JSON object, e.g. {\"reason\": \"it is my own machine\"}");
  for (const auto& field : document->get_object()) {
    if (field.key() != "reason") return invalid("\"" + std::string(field.key()) + "\" is not known here; there is reason", field.key());
  }
  const auto* value = document->get_object().if_contains("reason");
  if (value == nullptr || value->is_null()) return std::string();
  if (!value->is_string() || value->get_string().size() > 2000) return invalid("reason must be a text of at most 2000 bytes", "reason");
  return std::string(value->get_string());
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
  Impl(net::asio::io_context& loop, fleet::Fleet& models, safety::Protection& judging, std::chrono::milliseconds silence)
      : io(loop), fleet(models), protection(judging), keep_alive(silence) {}

  Task<void> list_approvals(net::Exchange& exchange, const wire::Caller& caller) {
    json::array waiting;
    for (const auto& call : protection.waiting()) waiting.push_back(to_json(call));
    const json::object out{{"mode", name(protection.mode())}, {"waiting", std::move(waiting)}};
    auto body = json::serialize(out);
    co_await wire::respond_json(exchange, caller, std::move(body));
  }

  Task<void> decide(net::Exchange& exchange, const wire::Caller& caller, std::string id, bool approved) {
    auto reason = reason_of(exchange.request().body);
    auto done = reason.ok() ? protection.decide(id, approved, caller.tenant, std::move(*reason)) : Result<void>(std::move(reason).error());
    if (!done.ok()) {
      co_await wire::respond_error(exchange, done.error(), caller, wire::openai::encode_error);
      co_return;
    }
    const json::object out{{"id", id}, {"outcome", approved ? "approved" : "refused"}};
    auto body = json::serialize(out);
    co_await wire::respond_json(exchange, caller, std::move(body));
  }

  Task<void> reload(net::Exchange& exchange, const wire::Caller& caller) {
    auto done = protection.reload(caller.tenant);
    if (!done.ok()) {
      Error error = std::move(done).error();
      error.code = ErrorCode::invalid_request;  // the file is the operator's, who asks
      co_await wire::respond_error(exchange, error, caller, wire::openai::encode_error);
      co_return;
    }
    std::string body = R"({"policy":"loaded"})";
    co_await wire::respond_json(exchange, caller, std::move(body));
  }

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
    Feed own(io);
    auto& [news, backlog, behind] = own;
    bool gone = false;
    const auto watching = fleet.watch([&own](const fleet::ModelEvent& event) {
      std::string frame;
      append_event(frame, event);
      own.add(std::move(frame));
    });
    exchange.on_client_gone([&] {
      gone = true;
      own.news.notify();
    });
    feeds.push_back(&own);

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
      for (const auto& frame : backlog) frames += frame;
      backlog.clear();
      if (frames.empty()) net::append_sse_comment(frames);
    }
    std::erase(feeds, &own);
    exchange.on_client_gone(nullptr);
    if (sent.ok() && !gone) { [[maybe_unused]] const auto finished = co_await exchange.finish(frames); }
  }

  // One reader of the events.
  struct Feed {
    explicit Feed(net::asio::io_context& loop) : news(loop) {}
    void add(std::string frame) {
      behind = behind || backlog.size() >= longest_backlog;
      if (!behind) backlog.push_back(std::move(frame));
      news.notify();
    }
    fleet::LoopEvent news;
    std::deque<std::string> backlog;
    bool behind = false;
  };

  net::asio::io_context& io;
  fleet::Fleet& fleet;
  safety::Protection& protection;
  const std::chrono::milliseconds keep_alive;
  std::vector<Feed*> feeds;
  bool ending = false;
};

Admin::Admin(net::asio::io_context& io, fleet::Fleet& fleet, safety::Protection& protection, std::chrono::milliseconds keep_alive)
    : impl_(std::make_shared<Impl>(io, fleet, protection, keep_alive)) {}
Admin::~Admin() = default;

void Admin::stop() {
  impl_->ending = true;
  for (auto* feed : impl_->feeds) feed->news.notify();
}

void Admin::tell(const safety::HeldCall& call, std::string_view what, std::string_view by) {
  json::object data = to_json(call);
  data["what"] = what;
  if (!by.empty()) data["by"] = by;
  std::string frame;
  net::append_sse(frame, json::serialize(data), "approval");
  for (auto* feed : impl_->feeds) feed->add(frame);
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
  if (path == approvals_path || path == reload_path) {
    const bool accepted = co_await wire::accepts(exchange, caller, path == approvals_path ? "GET" : "POST", wire::openai::encode_error);
    if (!accepted) co_return true;
    if (path == approvals_path) {
      co_await impl->list_approvals(exchange, caller);
    } else {
      co_await impl->reload(exchange, caller);
    }
    co_return true;
  }
  if (path.starts_with(approvals_path) && (path.ends_with("/approve") || path.ends_with("/deny"))) {
    const bool accepted = co_await wire::accepts(exchange, caller, "POST", wire::openai::encode_error);
    if (!accepted) co_return true;
    const auto end = path.rfind('/');
    const auto begin = std::min(end, approvals_path.size() + 1);
    auto id = wire::percent_decoded(path.substr(begin, end - begin));
    co_await impl->decide(exchange, caller, std::move(id), path.ends_with("/approve"));
    co_return true;
  }
  // Ids may hold slashes: what counts is the end.
  const auto last = path.rfind('/');
  const auto verb = path.substr(last + 1);
  if (!path.starts_with(models_prefix) || last <= models_prefix.size() || (verb != "load" && verb != "unload")) {
    const Error error{ErrorCode::not_found,
                      "there is no " + std::string(path.substr(0, 200)) +
                          " here; there are GET /admin/models, POST /admin/models/{id}/load and /unload, GET /admin/approvals, POST "
                          "/admin/approvals/{id}/approve and /deny, POST /admin/safety/reload, GET /admin/events"};
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
