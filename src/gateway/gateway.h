// The process clients talk to. It knows who asks, passes their requests to the fleet of models and events back in the turn they arrive, counts and
// explains, and stays up whatever happens to an engine.
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
#include "fleet/fleet.h"
#include "net/server.h"
#include "safety/protection.h"

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
  std::chrono::milliseconds drain_grace{30'000};  // running answers get this long on SIGTERM
  std::chrono::milliseconds keep_alive{10'000};   // comment frames while the engine is silent
  fleet::FleetOptions fleet;                      // what is served
  // How tool calls are judged. Off until somebody fills it in: the command line does.
  safety::ProtectionOptions safety{.mode = safety::Mode::off};
};

// Whether these options are safe and complete, before anything starts. config_invalid: listening wider than loopback without an API key, short or
// repeated keys, half of a TLS pair …; the message says what to set.
Result<void> check_options(const GatewayOptions& options);

// What run_gateway tells the command line, on the loop.
struct GatewayEvents {
  std::function<void(unsigned short port)> listening;
  std::function<void(const fleet::ModelEvent& event)> model;  // each change of a model's state
};

// Serves until SIGTERM or SIGINT, then drains; a second signal ends it at once. io or config_invalid when it cannot start.
Result<void> run_gateway(GatewayOptions options, GatewayEvents events = {});

// The gateway on a loop of the caller's; run_gateway adds signals and the thread.
class Gateway {
 public:
  static Result<std::unique_ptr<Gateway>> start(net::asio::io_context& io, GatewayOptions options, GatewayEvents events = {});
  ~Gateway();
  unsigned short port() const;
  const fleet::Fleet& fleet() const;
  // No new connections; running answers finish within drain_grace; then the models stop.
  net::Task<void> drain();
  // Reads the safety policy again, by whom; the old one stays on a mistake.
  Result<void> reload_policy(std::string_view by);
  // Ends every model's process without waiting for anything.
  void kill();

 private:
  class Impl;
  explicit Gateway(std::shared_ptr<Impl> impl);
  std::shared_ptr<Impl> impl_;
};

}  // namespace hearth::gateway
