#include "app/url.h"

#include <algorithm>
#include <charconv>

namespace hearth::app {

std::string host_and_port(std::string_view host, unsigned port) {
  const bool v6 = host.find(':') != std::string_view::npos;
  return (v6 ? "[" + std::string(host) + "]" : std::string(host)) + ":" + std::to_string(port);
}

Result<Url> parse_base_url(std::string_view text) {
  const auto wrong = [&](std::string_view why) {
    return invalid("\"" + std::string(text) + "\" is not an address: " + std::string(why) +
                   ". Write http://HOST:PORT, https://HOST or unix:/PATH");
  };
  std::string_view rest = text;
  if (rest.starts_with("unix:")) {
    rest.remove_prefix(5);
    if (rest.empty()) return wrong("the path is missing");
    return Url{net::UnixEndpoint{std::string(rest)}, "localhost", {}};
  }
  net::TcpEndpoint endpoint;
  if (rest.starts_with("http://")) {
    rest.remove_prefix(7);
  } else if (rest.starts_with("https://")) {
    rest.remove_prefix(8);
    endpoint.tls = true;
  } else {
    return wrong("it does not begin with http://, https:// or unix:");
  }
  if (rest.ends_with("/")) rest.remove_suffix(1);
  if (rest.ends_with("/v1")) rest.remove_suffix(3);
  if (rest.ends_with("/")) rest.remove_suffix(1);
  if (rest.find_first_of("?#@ ") != std::string_view::npos) return wrong("it has more than a host, a port and a path");
  const auto slash = std::min(rest.find('/'), rest.size());
  std::string base_path(rest.substr(slash));
  rest = rest.substr(0, slash);
  std::string_view port;
  if (rest.starts_with("[")) {
    const auto end = rest.find(']');
    if (end == std::string_view::npos) return wrong("the ] is missing");
    endpoint.host = rest.substr(1, end - 1);
    port = rest.substr(end + 1);
    if (!port.empty() && port[0] != ':') return wrong("only a :PORT may follow the ]");
    if (!port.empty()) port.remove_prefix(1);
  } else {
    const auto colon = rest.find(':');
    endpoint.host = rest.substr(0, colon);
    if (colon != std::string_view::npos) port = rest.substr(colon + 1);
  }
  if (endpoint.host.empty()) return wrong("the host is missing");
  endpoint.port = endpoint.tls ? 443 : 80;
  if (!port.empty()) {
    const auto [end, ec] = std::from_chars(port.data(), port.data() + port.size(), endpoint.port);
    if (ec != std::errc() || end != port.data() + port.size() || endpoint.port == 0)
      return wrong("the port is not a number from 1 to 65535");
  }
  std::string host = host_and_port(endpoint.host, endpoint.port);
  return Url{std::move(endpoint), std::move(host), std::move(base_path)};
}

Result<Url> parse_url(std::string_view text) {
  auto url = parse_base_url(text);
  if (url.ok() && !url->base_path.empty()) {
    return invalid("\"" + std::string(text) +
                   "\" is not an address: it has more than a host and a port. Write http://HOST:PORT, https://HOST or " + "unix:/PATH");
  }
  return url;
}

}  // namespace hearth::app
