// Addresses as people type them.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"
#include "net/http.h"

namespace hearth::app {

struct Url {
  net::Endpoint endpoint;
  std::string host;       // for the Host header
  std::string base_path;  // "" or "/api": what stands before /v1
};

// "http://127.0.0.1:8085", "https://host", "http://[::1]:80" or "unix:/run/x.sock"; a trailing "/" or "/v1" is dropped. invalid_request with what
// would be right.
Result<Url> parse_url(std::string_view text);
// The same where a path may stand before /v1: "https://api.example.com/api/v1".
Result<Url> parse_base_url(std::string_view text);

// "127.0.0.1:80", with brackets around an IPv6 address.
std::string host_and_port(std::string_view host, unsigned port);

}  // namespace hearth::app
