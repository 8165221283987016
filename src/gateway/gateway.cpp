#include "gateway/gateway.h"

#include <signal.h>

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "base/clock.h"
#include "base/id.h"
#include "base/json.h"
#include "base/log.h"
#include "gateway/admin.h"
#include "gateway/identity.h"
#include "gateway/metrics.h"
#include "wire/endpoint.h"

namespace hearth::gateway {
namespace {

namespace asio = net::asio;
using namespace std::chrono_literals;
using net::Task;

constexpr auto scrape_wait = 500ms;
constexpr auto policy_look = 1s;

// An exchange that notes how it went and adds what every answer of the gateway carries.
class Observed final : public net::Exchange {
 public:
  Observed(net::Exchange& inner, std::string cors_origin) : inner_(inner), cors_origin_(std::move(cors_origin)) {}

  const net::HttpRequest& request() const override { return inner_.request(); }
  Task<Result<void>> respond(int status, net::Headers headers, std::string body) override {
    note(status, headers);
    return inner_.respond(status, std::move(headers), std::move(body));
  }
  Task<Result<void>> begin(int status, net::Headers headers) override {
    note(status, headers);
    return inner_.begin(status, std::move(headers));
  }
  Task<Result<void>> write(std::string_view data) override { return inner_.write(data); }
  Task<Result<void>> finish(std::string_view last) override { return inner_.finish(last); }
  void abort() override { inner_.abort(); }
  bool begun() const override { return inner_.begun(); }
  void on_client_gone(std::function<void()> callback) override {
    if (!callback) {
      inner_.on_client_gone(nullptr);
      return;
    }
    inner_.on_client_gone([this, callback = std::move(callback)] {
      gone_ = true;
      callback();
    });
  }

  // 499 when the client left before the end.
  int status() const { return gone_ || status_ == 0 ? http_status(ErrorCode::client_gone) : status_; }

 private:
  void note(int status, net::Headers& headers) {
    status_ = status;
    if (cors_origin_.empty()) return;
    headers.add("Access-Control-Allow-Origin", cors_origin_);
    headers.add("Access-Control-Expose-Headers", "x-request-id, retry-after");
    headers.add("Vary", "Origin");
  }

  net::Exchange& inner_;
  std::string cors_origin_;
  int status_ = 0;
  bool gone_ = false;
};

// Passes events on untouched and notes what the record wants to know.
class ObservedStream final : public wire::EventStream {
 public:
  ObservedStream(std::unique_ptr<wire::EventStream> inner, Record& record, TimePoint arrived, chat::Priority priority)
      : inner_(std::move(inner)), record_(record), arrived_(arrived), priority_(priority) {
    explain();
  }
  Task<chat::Events> next() override {
    auto events = co_await inner_->next();
    for (const auto& event : events) {
      if (const auto* usage = std::get_if<chat::Usage>(&event)) {
        record_.usage = *usage;
      } else if (const auto* failed = std::get_if<chat::Failed>(&event)) {
        record_.failed = failed->error.code;
      } else if (!record_.first_token) {
        record_.first_token = Clock::system().now() - arrived_;
      }
    }
    const bool ending =
        !events.empty() && (std::holds_alternative<chat::Usage>(events.back()) || std::holds_alternative<chat::Finished>(events.back()));
    if (ending || inner_->explanation().decisions.size() + 1 != explanation_.decisions.size()) explain();
    co_return events;
  }
  void cancel() override { inner_->cancel(); }
  const chat::Explanation& explanation() const override { return explanation_; }
  wire::Protocol raw_protocol() const override { return inner_->raw_protocol(); }
  std::span<const wire::RawFrame> raw() const override { return inner_->raw(); }

 private:
  void explain() {
    explanation_ = inner_->explanation();
    explanation_.add("queue", priority_ == chat::Priority::interactive ? "interactive" : "background");
  }

  std::unique_ptr<wire::EventStream> inner_;
  Record& record_;
  const TimePoint arrived_;
  const chat::Priority priority_;
  chat::Explanation explanation_;
};

std::string request_id(const net::HttpRequest& request) {
  const auto given = request.headers.find("x-request-id");
  const auto plain = [](unsigned char c) { return std::isalnum(c) || c == '-' || c == '_' || c == '.'; };
  if (given && !given->empty() && given->size() <= 128 && std::all_of(given->begin(), given->end(), plain)) return std::string(*given);
  return random_id("req_");
}

Task<void> respond_text(net::Exchange& exchange, int status, std::string_view type, std::string body, const wire::Caller& caller) {
  net::Headers headers;
  headers.add("Content-Type", std::string(type));
  headers.add("Cache-Control", "no-store");
  headers.add("x-request-id", caller.request_id);
  [[maybe_unused]] const auto sent = co_await exchange.respond(status, std::move(headers), std::move(body));
}

}  // namespace

class Gateway::Impl : public std::enable_shared_from_this<Impl> {
 public:
  Impl(asio::io_context& loop, GatewayOptions given, GatewayEvents told)
      : io(loop), options(std::move(given)), events(std::move(told)), identity(options) {}

  static Task<void> handle(std::shared_ptr<Impl> self, net::Exchange& raw) {
    const auto arrived = Clock::system().now();
    const auto& request = raw.request();
    Observed exchange(raw, self->identity.cors_origin(request));
    wire::Caller caller{.tenant = "-", .request_id = request_id(request)};
    Record record{.path = std::string(request.path())};
    co_await self->route(exchange, caller, record, arrived);

    record.status = exchange.status();
    record.duration = Clock::system().now() - arrived;
    self->metrics.count(record);
    spdlog::info("{} tenant={} {} {} {}{}{} prompt={} completion={} {:.1f} ms", caller.request_id, caller.tenant, request.method,
                 std::string_view(record.path).substr(0, 100), record.status, record.failed ? " " : "",
                 record.failed ? name(*record.failed) : std::string_view(), record.usage.prompt_tokens, record.usage.completion_tokens,
                 std::chrono::duration<double, std::milli>(record.duration).count());
  }

  class Service;
  Task<void> route(Observed& exchange, wire::Caller& caller, Record& record, TimePoint arrived);
  Task<void> health(net::Exchange& exchange, const wire::Caller& caller);
  Task<void> scrape(net::Exchange& exchange, const wire::Caller& caller);
  // A policy file that changes is read again.
  void watch_policy() {
    if (options.safety.mode == safety::Mode::off || options.safety.judge.policy_file.empty()) return;
    policy_watch.emplace(io, policy_look);
    policy_watch->async_wait([this](const boost::system::error_code& stopped) {
      if (stopped) return;
      if (protection->policy_changed()) (void)protection->reload("file");
      watch_policy();
    });
  }

  asio::io_context& io;
  const GatewayOptions options;
  GatewayEvents events;
  Identity identity;
  Metrics metrics;
  std::unique_ptr<fleet::Fleet> fleet;
  std::unique_ptr<safety::Protection> protection;
  std::unique_ptr<Admin> admin;
  std::shared_ptr<void> watching;
  std::unique_ptr<net::Server> server;
  std::optional<asio::steady_timer> policy_watch;
  bool draining = false;
};

// The fleet as one request's Provider: keeps the record.
class Gateway::Impl::Service final : public wire::Provider {
 public:
  Service(fleet::Fleet& fleet, safety::Protection& protection, Record& record, TimePoint arrived)
      : fleet_(fleet), protection_(protection), record_(record), arrived_(arrived) {}

  Task<Result<std::unique_ptr<wire::EventStream>>> generate(chat::Request request, wire::Caller caller) override {
    const auto priority = request.priority;
    const auto* model = find(request.model);
    auto named = model == nullptr ? request.model : model->id;
    const bool remote = model == nullptr || model->upstream == "openai" || model->upstream == "anthropic";
    auto session = co_await protection_.look(request, caller, std::move(named), remote);
    if (!session.ok()) co_return std::move(session).error();
    auto stream = co_await fleet_.generate(std::move(request), std::move(caller));
    if (!stream.ok()) co_return std::move(stream).error();
    auto guarded = protection_.guard(std::move(*stream), *std::move(session));
    co_return std::make_unique<ObservedStream>(std::move(guarded), record_, arrived_, priority);
  }
  Task<Result<chat::Embeddings>> embed(chat::EmbeddingRequest request, wire::Caller caller) override {
    auto result = co_await fleet_.embed(std::move(request), std::move(caller));
    if (result.ok()) record_.usage.prompt_tokens = result->prompt_tokens;
    co_return result;
  }
  Task<Result<chat::RerankResult>> rerank(chat::RerankRequest request, wire::Caller caller) override {
    auto result = co_await fleet_.rerank(std::move(request), std::move(caller));
    if (result.ok()) record_.usage.prompt_tokens = result->prompt_tokens;
    co_return result;
  }
  Task<Result<int>> count_tokens(chat::Request request, wire::Caller caller) override {
    return fleet_.count_tokens(std::move(request), std::move(caller));
  }
  Task<Result<std::vector<chat::TokenInfo>>> score(chat::Request request, wire::Caller caller) override {
    return fleet_.score(std::move(request), std::move(caller));
  }
  Task<Result<std::vector<chat::ModelInfo>>> models() override { return fleet_.models(); }
  Task<Result<void>> load(std::string model, std::optional<std::chrono::milliseconds> keep_loaded, wire::Caller caller) override {
    return fleet_.load(std::move(model), keep_loaded, std::move(caller));
  }
  Task<Result<void>> unload(std::string model, wire::Caller caller) override { return fleet_.unload(std::move(model), std::move(caller)); }

 private:
  // The model that a name means; null: none, and the fleet says so.
  const chat::ModelInfo* find(std::string_view asked) const {
    const auto& models = fleet_.snapshot();
    const auto means = [&](std::string_view name) {
      return std::find_if(models.begin(), models.end(), [&](const chat::ModelInfo& model) {
        return name.empty() ? model.chat && model.default_for_role
                            : model.id == name || std::find(model.aliases.begin(), model.aliases.end(), name) != model.aliases.end();
      });
    };
    auto found = means(asked);
    if (found == models.end()) found = means(asked.substr(0, asked.rfind(':')));
    if (found == models.end() && models.size() == 1) found = models.begin();
    return found == models.end() ? nullptr : &*found;
  }

  fleet::Fleet& fleet_;
  safety::Protection& protection_;
  Record& record_;
  const TimePoint arrived_;
};

Task<void> Gateway::Impl::route(Observed& exchange, wire::Caller& caller, Record& record, TimePoint arrived) {
  const auto& request = exchange.request();
  const auto path = request.path();
  const auto allowed = identity.check_origin(request);
  if (!allowed.ok()) {
    co_await wire::respond_error(exchange, allowed.error(), caller);
    co_return;
  }
  if (request.method == "OPTIONS" && !identity.cors_origin(request).empty()) {
    net::Headers headers;
    headers.add("Access-Control-Allow-Methods", "GET, POST, OPTIONS");
    headers.add("Access-Control-Allow-Headers", std::string(request.headers.find("access-control-request-headers").value_or("*")));
    headers.add("Access-Control-Max-Age", "600");
    [[maybe_unused]] const auto sent = co_await exchange.respond(204, std::move(headers), {});
    co_return;
  }
  const bool reading = request.method == "GET" || request.method == "HEAD";
  if (path == "/health" && reading) {
    co_await health(exchange, caller);
    co_return;
  }
  if (path == "/" && reading) {
    const json::object about{
        {"name", "hearth"},
        {"version", HEARTH_VERSION},
        {"about",
         "A private AI server. Point an OpenAI client's base URL at /v1, an Anthropic client's at /, an Ollama client's host at /."},
        {"openai", {"/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings", "/v1/rerank", "/v1/models"}},
        {"anthropic", {"/v1/messages", "/v1/messages/count_tokens", "/v1/models"}},
        {"ollama", {"/api/chat", "/api/generate", "/api/embed", "/api/tags", "/api/show", "/api/ps", "/api/version"}},
        {"operation", {"/health", "/metrics", "/admin/models", "/admin/approvals", "/admin/events"}},
        {"docs", "hearth --help; README.md and docs/ of the distribution"}};
    auto body = json::serialize(about);
    co_await respond_text(exchange, 200, "application/json", std::move(body), caller);
    co_return;
  }
  const auto tenant = identity.tenant(request);
  if (!tenant.ok()) {
    co_await wire::respond_error(exchange, tenant.error(), caller);
    co_return;
  }
  caller.tenant = *tenant;
  if (path == "/metrics" && reading) {
    co_await scrape(exchange, caller);
    co_return;
  }
  const bool administered = co_await admin->serve(exchange, caller);
  if (administered) co_return;
  Service service(*fleet, *protection, record, arrived);
  const wire::EndpointOptions endpoint{.keep_alive = options.keep_alive};
  const bool known = co_await wire::serve(exchange, service, caller, endpoint);
  if (known) co_return;
  const Error error{ErrorCode::not_found,
                    "there is no " + std::string(path.substr(0, 200)) + " here; the API is under /v1, e.g. POST /v1/chat/completions"};
  co_await wire::respond_error(exchange, error, caller);
}

// Whether a client may come. A single model is expected to be there: until it is loaded, and while it cannot be, no client should. Of several, each is
// loaded when it is asked for, so that only all of them failing is a reason to stay away.
Task<void> Gateway::Impl::health(net::Exchange& exchange, const wire::Caller& caller) {
  const auto& models = fleet->snapshot();
  using State = chat::ModelState;
  const auto failed = std::count_if(models.begin(), models.end(), [](const auto& model) { return model.state == State::failed; });
  const bool broken = static_cast<std::size_t>(failed) == models.size();
  const bool starting = models.size() == 1 && models.front().state == State::loading;
  json::object report{{"status", draining ? "draining" : broken ? "failed" : starting ? "starting" : "ready"}};
  if (models.size() == 1) {
    report["model"] = models.front().id;
    if (broken) report["reason"] = models.front().problem;
  }
  json::object states;
  for (const auto& model : models) states[model.id] = state_name(model.state);
  report["models"] = std::move(states);
  auto body = json::serialize(report);
  const int status = draining || broken || starting ? 503 : 200;
  co_await respond_text(exchange, status, "application/json", std::move(body), caller);
}

Task<void> Gateway::Impl::scrape(net::Exchange& exchange, const wire::Caller& caller) {
  Snapshot now{.connections = server->connections(), .memory_used = fleet->memory_used(), .memory_budget = fleet->memory_budget()};
  now.engines = co_await fleet->reports(scrape_wait);
  now.models = fleet->snapshot();
  now.held_calls = protection->waiting().size();
  auto body = metrics.text(now);
  co_await respond_text(exchange, 200, "text/plain; version=0.0.4; charset=utf-8", std::move(body), caller);
}

Gateway::Gateway(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}

Gateway::~Gateway() {
  // Handlers still suspended keep the rest alive until the loop drops them; the server and its handler hold the gateway, so they go first.
  impl_->watching.reset();
  impl_->server.reset();
  impl_->policy_watch.reset();
  impl_->protection->stop();
}

Result<std::unique_ptr<Gateway>> Gateway::start(asio::io_context& io, GatewayOptions options, GatewayEvents events) {
  const auto checked = check_options(options);
  if (!checked.ok()) return checked.error();
  auto fleet = fleet::Fleet::make(io, options.fleet);
  if (!fleet.ok()) return std::move(fleet).error();
  auto impl = std::make_shared<Impl>(io, std::move(options), std::move(events));
  impl->fleet = std::move(*fleet);
  safety::ProtectionEvents told;
  told.ruled = [gate = impl.get()](const safety::Ruled& ruled) { gate->metrics.count(ruled); };
  told.held = [gate = impl.get()](const safety::HeldCall& call, std::string_view what, std::string_view by) {
    if (gate->admin) gate->admin->tell(call, what, by);
  };
  auto protection = safety::Protection::make(io, impl->options.safety, std::move(told));
  if (!protection.ok()) return std::move(protection).error();
  impl->protection = std::move(*protection);
  impl->admin = std::make_unique<Admin>(io, *impl->fleet, *impl->protection, impl->options.keep_alive);
  const auto handler = [impl](net::Exchange& exchange) { return Impl::handle(impl, exchange); };
  auto server = net::Server::listen(io, impl->options.listen, impl->options.limits, impl->options.tls, handler);
  if (!server.ok()) return std::move(server).error();
  impl->server = std::move(*server);
  impl->watching = impl->fleet->watch([gate = impl.get()](const fleet::ModelEvent& event) {
    gate->metrics.count(event);
    if (gate->events.model) gate->events.model(event);
  });
  impl->fleet->start();
  impl->watch_policy();
  if (impl->events.listening) impl->events.listening(impl->server->port());
  return std::unique_ptr<Gateway>(new Gateway(std::move(impl)));
}

unsigned short Gateway::port() const { return impl_->server->port(); }
const fleet::Fleet& Gateway::fleet() const { return *impl_->fleet; }

Task<void> Gateway::drain() {
  const auto impl = impl_;
  impl->draining = true;
  impl->admin->stop();
  co_await impl->server->drain(impl->options.drain_grace);
  co_await impl->fleet->stop();
}

Result<void> Gateway::reload_policy(std::string_view by) { return impl_->protection->reload(by); }

void Gateway::kill() { impl_->fleet->kill(); }

namespace {

Task<void> drain_and_stop(asio::io_context& io, Gateway& gateway) {
  co_await gateway.drain();
  io.stop();
}

Task<void> obey_hangups(asio::io_context& io, Gateway& gateway) {
  asio::signal_set signals(io, SIGHUP);
  for (;;) {
    co_await signals.async_wait(asio::as_tuple(asio::use_awaitable));
    (void)gateway.reload_policy("SIGHUP");
  }
}

Task<void> obey_signals(asio::io_context& io, Gateway& gateway) {
  asio::signal_set signals(io, SIGTERM, SIGINT);
  co_await signals.async_wait(asio::as_tuple(asio::use_awaitable));
  spdlog::info("draining: running answers may finish; a second signal ends them");
  asio::co_spawn(io, drain_and_stop(io, gateway), asio::detached);
  co_await signals.async_wait(asio::as_tuple(asio::use_awaitable));
  spdlog::warn("second signal: ending at once");
  gateway.kill();
  io.stop();
}

}  // namespace

Result<void> run_gateway(GatewayOptions options, GatewayEvents events) {
  signal(SIGPIPE, SIG_IGN);
  asio::io_context io(1);
  auto gateway = Gateway::start(io, std::move(options), std::move(events));
  if (!gateway.ok()) return std::move(gateway).error();
  asio::co_spawn(io, obey_signals(io, **gateway), asio::detached);
  asio::co_spawn(io, obey_hangups(io, **gateway), asio::detached);
  io.run();
  return {};
}

}  // namespace hearth::gateway
