// Who asks, and whether they may. With API keys, a key names the tenant. Without, only this machine's own programs are served: the gateway listens on
// loopback, and a web page that a browser opened must not reach it under a false name (DNS rebinding) or from another site (cross-site requests).
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "gateway/gateway.h"
#include "net/http.h"

namespace hearth::gateway {

// Whether `host` can only be reached from this machine: 127.0.0.0/8, ::1, localhost.
bool is_loopback(std::string_view host);

class Identity {
 public:
  explicit Identity(const GatewayOptions& options);

  // Refuses foreign Host and Origin headers where no key protects; forbidden with what to set.
  Result<void> check_origin(const net::HttpRequest& request) const;
  // The tenant's name; unauthorized without a known key in Authorization: Bearer or x-api-key.
  Result<std::string> tenant(const net::HttpRequest& request) const;
  // The Access-Control-Allow-Origin of an answer to this request; empty when its origin is not allowed or CORS is off.
  std::string cors_origin(const net::HttpRequest& request) const;

 private:
  using Hash = std::array<unsigned char, 32>;
  struct Key {
    std::string name;
    Hash hash;
  };
  std::vector<Key> keys_;
  std::vector<std::string> hosts_;
  std::vector<std::string> origins_;
};

}  // namespace hearth::gateway
