#include "fleet/worker.h"

#include <signal.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <cstdio>
#include <cstdlib>
#include <new>

#include "base/id.h"
#include "base/json.h"
#include "base/log.h"
#include "fleet/engine_provider.h"
#include "fleet/health.h"
#include "net/server.h"
#include "wire/openai_endpoint.h"

namespace hearth::fleet {
namespace {

namespace asio = net::asio;

// One write, so that no other thread's line can land inside it.
void print_line(std::string line) {
  line += '\n';
  std::fwrite(line.data(), 1, line.size(), stderr);
  std::fflush(stderr);
}

void print_error(const Error& error) {
  const json::object fields{{"code", name(error.code)}, {"message", error.message}};
  print_line(std::string(worker_error_prefix) + json::serialize(fields));
}

bool tells_of_memory(std::string_view message) {
  for (const std::string_view words : {"Cannot allocate memory", "out of memory", "failed to allocate", "mem_buffer != NULL"}) {
    if (message.find(words) != std::string_view::npos) return true;
  }
  return false;
}

// The last thing this process says.
void explain_abort(std::string_view reason) {
  print_error({ErrorCode::unavailable,
               (tells_of_memory(reason) ? "not enough memory for the model: " : "the engine gave up: ") + std::string(reason),
               "",
               {}});
}

Result<std::unique_ptr<engine::Engine>> load(const engine::EngineOptions& options) {
  int shown = -1;
  const auto progress = [&shown](float fraction) {
    const int tenth = static_cast<int>(fraction * 10);
    if (tenth > shown) {
      shown = tenth;
      spdlog::debug("loading: {} %", tenth * 10);
    }
    return true;
  };
  try {
    auto loaded = engine::Engine::load(options, progress);
    // llama.cpp says so only in words. A shortage may pass, unlike a damaged file: it has its own code, and is tried again sooner.
    if (!loaded.ok() && tells_of_memory(loaded.error().message)) {
      return Error{ErrorCode::unavailable, "not enough memory to load model \"" + options.model_id + "\": " + loaded.error().message};
    }
    return loaded;
  } catch (const std::bad_alloc&) {
    return Error{ErrorCode::unavailable,
                 "not enough memory to load model \"" + options.model_id + "\": free some, use a smaller context or a smaller model"};
  } catch (const std::exception& e) { return internal_error("loading model \"" + options.model_id + "\" failed: " + e.what()); }
}

wire::Caller caller_of(const net::HttpRequest& request) {
  wire::Caller caller{.tenant = "local", .request_id = {}};
  if (const auto tenant = request.headers.find("x-hearth-tenant")) caller.tenant = *tenant;
  const auto id = request.headers.find("x-request-id");
  caller.request_id = id ? std::string(*id) : random_id("req_");
  return caller;
}

net::Task<void> answer(net::Exchange& exchange, EngineProvider& provider, engine::Engine& engine) {
  const auto& request = exchange.request();
  if (request.path() == "/health") {
    net::Headers headers;
    headers.add("Content-Type", "application/json");
    auto body = encode_health(engine.stats());
    [[maybe_unused]] const auto sent = co_await exchange.respond(200, std::move(headers), std::move(body));
    co_return;
  }
  const auto caller = caller_of(request);
  // Frequent comments in silence: the gateway learns early that the request was admitted, and can cancel from then on, long before a first token.
  const wire::EndpointOptions options{.keep_alive = std::chrono::milliseconds(100)};
  const bool served = co_await wire::openai::serve(exchange, provider, caller, options);
  if (served) co_return;
  const Error error{ErrorCode::not_found, "the worker has no path " + std::string(request.path())};
  co_await wire::respond_error(exchange, error, caller);
}

net::Task<void> drain(asio::io_context& io, engine::Engine& engine, net::Server& server, std::chrono::milliseconds grace) {
  engine.drain();
  co_await server.drain(grace);
  io.stop();
}

int serve(engine::Engine& engine, const WorkerOptions& options) {
  asio::io_context io(1);
  EngineProvider provider(io, engine, options.helpers);
  const auto handler = [&provider, &engine](net::Exchange& exchange) { return answer(exchange, provider, engine); };
  net::ServerLimits limits;
  limits.idle_timeout = std::chrono::hours(24);  // the gateway keeps its connections; it alone connects here
  auto server = net::Server::listen(io, net::UnixEndpoint{options.socket}, limits, std::nullopt, handler);
  if (!server.ok()) {
    print_error(server.error());
    return worker_exit_load_failed;
  }
  asio::signal_set signals(io, SIGTERM, SIGINT);
  signals.async_wait([&](const boost::system::error_code& failed, int) {
    if (failed) return;
    spdlog::info("draining");
    asio::co_spawn(io, drain(io, engine, **server, options.drain_grace), asio::detached);
  });
  print_line(std::string(worker_ready_line));
  io.run();
  return worker_exit_ok;
}

}  // namespace

int run_worker(WorkerOptions options) {
  signal(SIGPIPE, SIG_IGN);
  engine::on_abort(explain_abort);
  try {
    auto engine = load(options.engine);
    if (!engine.ok()) {
      print_error(engine.error());
      return worker_exit_load_failed;
    }
    return serve(**engine, options);
  } catch (const std::exception& e) {
    print_error(internal_error(std::string("the worker ended: ") + e.what()));
    return worker_exit_failed;
  }
}

}  // namespace hearth::fleet
