#include "gateway/gateway.h"

#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cstring>

#include "base/clock.h"
#include "base/id.h"
#include "base/json.h"
#include "base/log.h"
#include "gateway/identity.h"
#include "gateway/metrics.h"
#include "wire/endpoint.h"

namespace hearth::gateway {
namespace {

namespace asio = net::asio;
using namespace std::chrono_literals;
using net::Task;

// Clients give up on GET /v1/models after 3 s.
constexpr auto models_wait = 2'000ms;
constexpr auto scrape_wait = 500ms;
constexpr auto news_wait = 500ms;  // from the end of a connection to the news that its process has ended

// A folder only we can enter, for the worker's socket.
class PrivateFolder {
 public:
  static Result<PrivateFolder> make() {
    const char* base = std::getenv("XDG_RUNTIME_DIR");
    if (!base || access(base, W_OK) != 0) base = std::getenv("TMPDIR");
    if (!base || std::strlen(base) > 60) base = "/tmp";
    auto path = std::string(base) + "/hearth-XXXXXX";
    if (!mkdtemp(path.data())) {
      return Error{ErrorCode::io, "cannot make a folder for the worker's socket in " + std::string(base) + ": " + std::strerror(errno) +
                                      "; set TMPDIR to a folder you may write to"};
    }
    return PrivateFolder(std::move(path));
  }
  PrivateFolder(PrivateFolder&& other) noexcept : path_(std::exchange(other.path_, {})) {}
  PrivateFolder& operator=(PrivateFolder&&) = delete;
  ~PrivateFolder() {
    if (path_.empty()) return;
    ::unlink(socket().c_str());
    ::rmdir(path_.c_str());
  }
  std::string socket() const { return path_ + "/worker.sock"; }

 private:
  explicit PrivateFolder(std::string path) : path_(std::move(path)) {}
  std::string path_;
};

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
  ObservedStream(std::unique_ptr<wire::EventStream> inner, Record& record, TimePoint arrived, chat::Explanation explanation)
      : inner_(std::move(inner)), record_(record), arrived_(arrived), explanation_(std::move(explanation)) {
    for (const auto& decision : inner_->explanation().decisions) explanation_.decisions.push_back(decision);
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
    co_return events;
  }
  void cancel() override { inner_->cancel(); }
  const chat::Explanation& explanation() const override { return explanation_; }

 private:
  std::unique_ptr<wire::EventStream> inner_;
  Record& record_;
  const TimePoint arrived_;
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

  // Returns once the engine is ready and its models are known.
  Task<Result<void>> ready(std::chrono::milliseconds up_to, int after = 0) {
    if (supervisor) {
      const auto up = co_await supervisor->wait_ready(up_to, after);
      if (!up.ok()) co_return up.error();
    }
    if (!models_known()) co_return co_await load_models();
    co_return Result<void>();
  }

  int generation() const { return supervisor ? supervisor->generation() : 1; }
  bool models_known() const { return models_generation == generation(); }

  Task<Result<void>> load_models() {
    const int asked = generation();
    auto found = co_await upstream->models();
    if (!found.ok()) co_return std::move(found).error();
    if (found->empty()) co_return Error{ErrorCode::unavailable, "the engine serves no model"};
    models = std::move(*found);
    models_generation = asked;
    co_return Result<void>();
  }

  // The served model a request means.
  Result<std::string> served(const std::string& wanted) const {
    const auto& aliases = options.model_aliases;
    if (wanted.empty() || std::find(aliases.begin(), aliases.end(), wanted) != aliases.end()) return models.front().id;
    std::string all;
    for (const auto& model : models) {
      if (model.id == wanted) return model.id;
      all += (all.empty() ? "" : ", ") + model.id;
    }
    return Error{ErrorCode::model_not_found, "there is no model \"" + wanted.substr(0, 200) + "\" here; there is: " + all, "model"};
  }

  void watch_engine() {
    supervisor->on_change([this] {
      const auto state = supervisor->state();
      if (state == fleet::Supervisor::State::ready) {
        asio::co_spawn(io, announce(shared_from_this()), asio::detached);
      } else if (state == fleet::Supervisor::State::failed || state == fleet::Supervisor::State::backing_off) {
        if (events.model_failed) events.model_failed(supervisor->last_error());
      }
    });
  }
  static Task<void> announce(std::shared_ptr<Impl> self) {
    const auto loaded = co_await self->load_models();
    if (loaded.ok() && self->events.model_ready) self->events.model_ready(self->models.front());
  }

  asio::io_context& io;
  const GatewayOptions options;
  GatewayEvents events;
  Identity identity;
  Metrics metrics;
  std::optional<PrivateFolder> folder;
  std::unique_ptr<fleet::Supervisor> supervisor;
  std::unique_ptr<fleet::HttpUpstream> upstream;
  std::unique_ptr<net::Server> server;
  std::vector<chat::ModelInfo> models;
  int models_generation = 0;
  bool draining = false;
};

// The gateway as one request's Provider: finds the model, waits for its worker, explains, and keeps the record.
class Gateway::Impl::Service final : public wire::Provider {
 public:
  Service(Impl& gate, Record& record, TimePoint arrived) : gate_(gate), record_(record), arrived_(arrived) {}

  Task<Result<std::unique_ptr<wire::EventStream>>> generate(chat::Request request, wire::Caller caller) override {
    const auto prepared = co_await prepare(request.model);
    if (!prepared.ok()) co_return prepared.error();
    request.tenant = caller.tenant;
    chat::Explanation explanation;
    explanation.add("model", request.model);
    explanation.add("lane", "local");
    explanation.add("queue", request.priority == chat::Priority::interactive ? "interactive" : "background");

    const int tried = gate_.generation();
    auto first_request = gate_.supervisor ? request : std::move(request);
    auto stream = co_await gate_.upstream->generate(std::move(first_request), caller);
    // The worker has just ended, and nothing of an answer has been seen: its successor may serve the request, once. A process that is going down
    // may still accept a connection and drop it, so a lost connection counts like a refused one, if the worker did end.
    if (!stream.ok() && gate_.supervisor && co_await worker_ended(stream.error(), tried)) {
      const auto again = co_await gate_.ready(gate_.options.start_wait, tried);
      if (!again.ok()) co_return again.error();
      stream =
          co_await gate_.upstream->generate(std::move(request), caller);  // NOLINT(bugprone-use-after-move): a supervised one was copied
    }
    if (!stream.ok()) co_return std::move(stream).error();
    co_return std::make_unique<ObservedStream>(std::move(*stream), record_, arrived_, std::move(explanation));
  }
  Task<Result<chat::Embeddings>> embed(chat::EmbeddingRequest request, wire::Caller caller) override {
    const auto prepared = co_await prepare(request.model);
    if (!prepared.ok()) co_return prepared.error();
    auto result = co_await gate_.upstream->embed(std::move(request), std::move(caller));
    if (result.ok()) record_.usage.prompt_tokens = result->prompt_tokens;
    co_return result;
  }
  Task<Result<chat::RerankResult>> rerank(chat::RerankRequest request, wire::Caller caller) override {
    const auto prepared = co_await prepare(request.model);
    if (!prepared.ok()) co_return prepared.error();
    auto result = co_await gate_.upstream->rerank(std::move(request), std::move(caller));
    if (result.ok()) record_.usage.prompt_tokens = result->prompt_tokens;
    co_return result;
  }
  Task<Result<int>> count_tokens(chat::Request request, wire::Caller caller) override {
    const auto prepared = co_await prepare(request.model);
    if (!prepared.ok()) co_return prepared.error();
    co_return co_await gate_.upstream->count_tokens(std::move(request), std::move(caller));
  }
  Task<Result<std::vector<chat::TokenInfo>>> score(chat::Request request, wire::Caller caller) override {
    const auto prepared = co_await prepare(request.model);
    if (!prepared.ok()) co_return prepared.error();
    co_return co_await gate_.upstream->score(std::move(request), std::move(caller));
  }
  Task<Result<std::vector<chat::ModelInfo>>> models() override {
    // What was served before a restart is served after it: no reason to wait.
    if (gate_.models.empty()) {
      const auto ready = co_await gate_.ready(models_wait);
      if (!ready.ok()) co_return ready.error();
    }
    co_return gate_.models;
  }

 private:
  Task<bool> worker_ended(const Error& error, int generation) {
    if (error.code == ErrorCode::unavailable) co_return true;
    if (error.code != ErrorCode::upstream_failed) co_return false;
    co_return co_await gate_.supervisor->wait_ended(generation, news_wait);
  }

  // Waits for the engine and replaces `model` by the served model it means.
  Task<Result<void>> prepare(std::string& model) {
    const auto ready = co_await gate_.ready(gate_.options.start_wait);
    if (!ready.ok()) co_return ready.error();
    auto served = gate_.served(model);
    if (!served.ok()) co_return std::move(served).error();
    model = std::move(*served);
    co_return Result<void>();
  }

  Impl& gate_;
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
        {"about", "A private AI server. It speaks the OpenAI API: point a client's base URL at /v1."},
        {"endpoints", {"/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/models", "/health", "/metrics"}},
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
  Service service(*this, record, arrived);
  const wire::EndpointOptions endpoint{.keep_alive = options.keep_alive};
  const bool known = co_await wire::serve(exchange, service, caller, endpoint);
  if (known) co_return;
  const Error error{ErrorCode::not_found,
                    "there is no " + std::string(path.substr(0, 200)) + " here; the API is under /v1, e.g. POST /v1/chat/completions"};
  co_await wire::respond_error(exchange, error, caller);
}

Task<void> Gateway::Impl::health(net::Exchange& exchange, const wire::Caller& caller) {
  const bool up = !supervisor || supervisor->state() == fleet::Supervisor::State::ready;
  const auto state = draining ? std::string_view("draining") : supervisor ? name(supervisor->state()) : std::string_view("ready");
  json::object report{{"status", state}};
  if (!models.empty()) report["model"] = models.front().id;
  if (supervisor) report["worker_restarts"] = supervisor->restarts();
  if (supervisor && !up && !draining && supervisor->state() != fleet::Supervisor::State::starting)
    report["reason"] = supervisor->last_error().message;
  auto body = json::serialize(report);
  co_await respond_text(exchange, up && !draining ? 200 : 503, "application/json", std::move(body), caller);
}

Task<void> Gateway::Impl::scrape(net::Exchange& exchange, const wire::Caller& caller) {
  Snapshot now{.connections = server->connections(), .engine_ready = !supervisor || supervisor->state() == fleet::Supervisor::State::ready};
  if (supervisor) {
    now.restarts = supervisor->restarts();
    if (now.engine_ready) {
      const auto stats = co_await supervisor->check(scrape_wait);
      if (stats.ok()) now.engine = *stats;
    }
  }
  auto body = metrics.text(now);
  co_await respond_text(exchange, 200, "text/plain; version=0.0.4; charset=utf-8", std::move(body), caller);
}

Gateway::Gateway(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}

Gateway::~Gateway() {
  // Handlers still suspended keep the rest alive until the loop drops them; the server and its handler hold the gateway, so they go first.
  if (impl_->supervisor) impl_->supervisor->on_change(nullptr);
  impl_->server.reset();
}

Result<std::unique_ptr<Gateway>> Gateway::start(asio::io_context& io, GatewayOptions options, GatewayEvents events) {
  const auto checked = check_options(options);
  if (!checked.ok()) return checked.error();
  std::optional<PrivateFolder> folder;
  if (!options.engine && options.worker.socket.empty()) {
    auto made = PrivateFolder::make();
    if (!made.ok()) return std::move(made).error();
    options.worker.socket = made->socket();
    folder.emplace(std::move(*made));
  }
  auto impl = std::make_shared<Impl>(io, std::move(options), std::move(events));
  if (folder) impl->folder.emplace(std::move(*folder));
  const auto& settled = impl->options;
  const net::Endpoint engine = settled.engine ? *settled.engine : net::Endpoint(net::UnixEndpoint{settled.worker.socket});
  impl->upstream = std::make_unique<fleet::HttpUpstream>(io, engine, settled.upstream);
  const auto handler = [impl](net::Exchange& exchange) { return Impl::handle(impl, exchange); };
  auto server = net::Server::listen(io, settled.listen, settled.limits, settled.tls, handler);
  if (!server.ok()) return std::move(server).error();
  impl->server = std::move(*server);
  if (!settled.engine) {
    impl->supervisor = std::make_unique<fleet::Supervisor>(io, settled.worker);
    impl->watch_engine();
    impl->supervisor->start();
  }
  if (impl->events.listening) impl->events.listening(impl->server->port());
  return std::unique_ptr<Gateway>(new Gateway(std::move(impl)));
}

unsigned short Gateway::port() const { return impl_->server->port(); }
const fleet::Supervisor* Gateway::supervisor() const { return impl_->supervisor.get(); }

Task<void> Gateway::drain() {
  const auto impl = impl_;
  impl->draining = true;
  co_await impl->server->drain(impl->options.drain_grace);
  if (impl->supervisor) co_await impl->supervisor->stop();
}

void Gateway::kill() {
  if (impl_->supervisor) impl_->supervisor->kill();
}

namespace {

Task<void> drain_and_stop(asio::io_context& io, Gateway& gateway) {
  co_await gateway.drain();
  io.stop();
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
  io.run();
  return {};
}

}  // namespace hearth::gateway
