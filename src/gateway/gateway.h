// The process clients talk to. It knows who asks, which model they mean and whether its worker can answer, passes requests on and events back in the
// turn they arrive, counts and explains, and stays up whatever happens to the engine.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "chat/event.h"
#include "fleet/supervisor.h"
#include "fleet/upstream.h"
#include "net/server.h"

namespace hearth::gateway {

// A key clients may present. `name` is the tenant in fair queueing, logs and metrics; the key itself is kept only as its hash.
struct ApiKey {
  std::string name;
  std::string key;  // at least 16 characters
};

struct GatewayOptions {
  net::TcpEndpoint listen{.host = "127.0.0.1", .port = 8085};
  std::vector<ApiKey> api_keys;  // none: loopback only, everybody is "local"
  std::optional<net::TlsFiles> tls;
  net::ServerLimits limits;
  std::vector<std::string> allowed_hosts;         // further Host names accepted on loopback without keys
  std::vector<std::string> cors_origins;          // web origins whose pages may call; "*" = any (needs API keys); empty = CORS off
  std::vector<std::string> model_aliases;         // further names of the served model
  std::chrono::milliseconds start_wait{60'000};   // how long a request waits for a worker that starts
  std::chrono::milliseconds drain_grace{30'000};  // running answers get this long on SIGTERM
  std::chrono::milliseconds keep_alive{10'000};   // comment frames while the engine is silent
  fleet::SupervisorOptions worker;                // `socket` may stay empty: a private folder is made for it
  fleet::UpstreamOptions upstream;
  std::optional<net::Endpoint> engine;  // serve this OpenAI-compatible endpoint instead of starting a worker
};

// Whether these options are safe and complete, before anything starts. config_invalid: listening wider than loopback without an API key, short or
// repeated keys, half of a TLS pair …; the message says what to set.
Result<void> check_options(const GatewayOptions& options);

// What run_gateway tells the command line, on the loop.
struct GatewayEvents {
  std::function<void(unsigned short port)> listening;
  std::function<void(const chat::ModelInfo& model)> model_ready;  // after every start of the worker
  std::function<void(const Error& error)> model_failed;
};

// Serves until SIGTERM or SIGINT, then drains; a second signal ends it at once. io or config_invalid when it cannot start.
Result<void> run_gateway(GatewayOptions options, GatewayEvents events = {});

// The gateway on a loop of the caller's; run_gateway adds signals and the thread.
class Gateway {
 public:
  static Result<std::unique_ptr<Gateway>> start(net::asio::io_context& io, GatewayOptions options, GatewayEvents events = {});
  ~Gateway();
  unsigned short port() const;
  const fleet::Supervisor* supervisor() const;  // nullptr with GatewayOptions::engine
  // No new connections; running answers finish within drain_grace; then the worker stops.
  net::Task<void> drain();
  // Ends the worker without waiting for anything.
  void kill();

 private:
  class Impl;
  explicit Gateway(std::shared_ptr<Impl> impl);
  std::shared_ptr<Impl> impl_;
};

}  // namespace hearth::gateway
