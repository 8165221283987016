// HTTP messages as plain data, shared by server and client.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace hearth::net {

// Field names compare without case (ASCII only).
bool same_field_name(std::string_view a, std::string_view b);

// Header fields in order. Names compare without case.
class Headers {
 public:
  void add(std::string name, std::string value) {
    if (fields_.empty()) fields_.reserve(12);  // what most messages have
    fields_.emplace_back(std::move(name), std::move(value));
  }
  void set(std::string_view name, std::string value);                 // replaces every field of that name
  std::optional<std::string_view> find(std::string_view name) const;  // the first of that name
  std::size_t count(std::string_view name) const;
  auto begin() const { return fields_.begin(); }
  auto end() const { return fields_.end(); }

 private:
  std::vector<std::pair<std::string, std::string>> fields_;
};

struct HttpRequest {
  std::string method;  // upper case
  std::string target;  // as sent: path and query
  Headers headers;
  std::string body;
  std::string peer;  // server side: the client's address for logs, "unix" for a Unix socket

  std::string_view path() const;   // target up to '?'
  std::string_view query() const;  // after '?', may be empty
};

// Where to connect to or listen on.
struct TcpEndpoint {
  std::string host;  // a name or address
  unsigned short port = 0;
  bool tls = false;  // client side: speak TLS and verify the certificate against the system's roots
};
struct UnixEndpoint {
  std::string path;
};
using Endpoint = std::variant<TcpEndpoint, UnixEndpoint>;

// "http://127.0.0.1:8085" or "unix:/run/x.sock", for messages.
std::string to_string(const Endpoint& endpoint);

}  // namespace hearth::net
