#include "gateway/identity.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>

#include <algorithm>
#include <cctype>
#include <set>

namespace hearth::gateway {
namespace {

constexpr std::size_t shortest_key = 16;

std::string lower(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return out;
}

// "localhost:8085" → "localhost", "[::1]:8085" → "[::1]".
std::string_view without_port(std::string_view host) {
  const auto colon = host.rfind(':');
  const auto bracket = host.rfind(']');
  if (colon == std::string_view::npos || (bracket != std::string_view::npos && colon < bracket)) return host;
  return host.substr(0, colon);
}

std::string_view presented_key(const net::HttpRequest& request) {
  if (const auto field = request.headers.find("authorization")) {
    constexpr std::string_view scheme = "bearer ";
    if (field->size() > scheme.size() && lower(field->substr(0, scheme.size())) == scheme) {
      auto key = field->substr(scheme.size());
      key.remove_prefix(std::min(key.find_first_not_of(' '), key.size()));
      return key;
    }
  }
  return request.headers.find("x-api-key").value_or(std::string_view());
}

std::array<unsigned char, 32> hash_of(std::string_view key) {
  std::array<unsigned char, 32> hash{};
  SHA256(reinterpret_cast<const unsigned char*>(key.data()), key.size(), hash.data());
  return hash;
}

Error config(std::string message, std::string param) { return Error{ErrorCode::config_invalid, std::move(message), std::move(param)}; }

}  // namespace

bool is_loopback(std::string_view host) {
  if (host == "localhost" || host == "::1" || host == "[::1]") return true;
  if (!host.starts_with("127.")) return false;
  return std::all_of(host.begin(), host.end(), [](char c) { return c == '.' || (c >= '0' && c <= '9'); });
}

Result<void> check_options(const GatewayOptions& options) {
  if (options.listen.host.empty()) return config("the address to listen on is empty; for this machine alone use 127.0.0.1", "listen");
  if (options.api_keys.empty() && !is_loopback(options.listen.host)) {
    return config(
        "refusing to listen on " + options.listen.host +
            " without an API key: anybody who can reach this machine could use it. Configure at least one API key, or listen on 127.0.0.1",
        "api_keys");
  }
  std::set<std::string_view> names, keys;
  for (const auto& key : options.api_keys) {
    if (key.name.empty()) return config("an API key has no name; the name is the tenant shown in logs and metrics", "api_keys");
    if (!std::all_of(key.name.begin(), key.name.end(),
                     [](unsigned char c) { return std::isalnum(c) || c == '-' || c == '_' || c == '.'; })) {
      return config("the API key name \"" + key.name + "\" may only hold letters, digits, '-', '_' and '.'", "api_keys");
    }
    if (key.key.size() < shortest_key) {
      return config("the API key \"" + key.name + "\" is too short: use at least " + std::to_string(shortest_key) +
                        " random characters, e.g. from: openssl rand -hex 24",
                    "api_keys");
    }
    if (!std::all_of(key.key.begin(), key.key.end(), [](unsigned char c) { return c > ' ' && c < 0x7f; })) {
      return config("the API key \"" + key.name + "\" holds characters that cannot travel in a header: use visible ASCII without spaces",
                    "api_keys");
    }
    if (!names.insert(key.name).second) return config("two API keys have the name \"" + key.name + "\"", "api_keys");
    if (!keys.insert(key.key).second) return config("the API key \"" + key.name + "\" is the same as another one", "api_keys");
  }
  if (options.tls && (options.tls->certificate.empty() || options.tls->key.empty())) {
    return config("TLS needs both a certificate file and a key file", options.tls->key.empty() ? "tls.key" : "tls.certificate");
  }
  if (std::find(options.cors_origins.begin(), options.cors_origins.end(), "*") != options.cors_origins.end() && options.api_keys.empty()) {
    return config(
        "cors_origins \"*\" without an API key would let every web page use this server: name the origins, or configure an API key",
        "cors_origins");
  }
  if (options.fleet.models.empty()) return config("there is no model to serve", "models");
  return {};
}

Identity::Identity(const GatewayOptions& options) : origins_(options.cors_origins) {
  for (const auto& key : options.api_keys) keys_.push_back({key.name, hash_of(key.key)});
  hosts_ = {"localhost", "127.0.0.1", "[::1]", lower(options.listen.host), "[" + lower(options.listen.host) + "]"};
  for (const auto& host : options.allowed_hosts) hosts_.push_back(lower(host));
}

Result<void> Identity::check_origin(const net::HttpRequest& request) const {
  if (!keys_.empty()) return {};
  const auto host = request.headers.find("host");
  if (host && std::find(hosts_.begin(), hosts_.end(), lower(without_port(*host))) == hosts_.end()) {
    return Error{ErrorCode::forbidden,
                 "the Host header names neither localhost nor a configured host: a web page may be trying to reach this server "
                 "under a false name. Add the name to allowed_hosts, or configure an API key"};
  }
  const auto origin = request.headers.find("origin");
  const bool same_site = !origin || (host && (*origin == "http://" + std::string(*host) || *origin == "https://" + std::string(*host)));
  if (!same_site && cors_origin(request).empty()) {
    return Error{ErrorCode::forbidden, "this web page's origin may not use this server. Add it to cors_origins to allow it"};
  }
  return {};
}

Result<std::string> Identity::tenant(const net::HttpRequest& request) const {
  if (keys_.empty()) return std::string("local");
  const auto presented = presented_key(request);
  if (presented.empty()) {
    return Error{ErrorCode::unauthorized, "no API key: send one as \"Authorization: Bearer <key>\" or in \"x-api-key\""};
  }
  // Every key is compared in full: the time taken says nothing about which one nearly matched.
  const auto hash = hash_of(presented);
  const Key* found = nullptr;
  for (const auto& key : keys_) {
    if (CRYPTO_memcmp(key.hash.data(), hash.data(), hash.size()) == 0) found = &key;
  }
  if (!found) return Error{ErrorCode::unauthorized, "the API key is not known to this server"};
  return found->name;
}

std::string Identity::cors_origin(const net::HttpRequest& request) const {
  const auto origin = request.headers.find("origin");
  if (!origin) return {};
  for (const auto& allowed : origins_) {
    if (allowed == "*" || allowed == *origin) return std::string(allowed == "*" ? std::string_view("*") : *origin);
  }
  return {};
}

}  // namespace hearth::gateway
