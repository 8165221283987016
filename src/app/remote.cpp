#include "app/remote.h"

#include <spdlog/fmt/fmt.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <cctype>
#include <cstdlib>
#include <fstream>

#include "net/client.h"

namespace hearth::app {
namespace {

const json::value* member(const json::value* value, std::string_view name) {
  return value != nullptr && value->is_object() ? value->get_object().if_contains(name) : nullptr;
}

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : "";
}

net::Task<Result<std::string>> exchange(net::asio::io_context& io, const Url& url, net::HttpRequest request,
                                        std::chrono::milliseconds patience) {
  const auto client = net::Client::make(io, url.endpoint);
  auto response = co_await client->send(std::move(request), patience);
  if (!response.ok()) co_return response.error();
  auto body = co_await (*response)->read_all(std::size_t{64} << 20, patience);
  if (!body.ok()) co_return body.error();
  if ((*response)->status != 200) co_return error_of(*body, (*response)->status);
  co_return body;
}

net::Task<void> store(net::Task<Result<std::string>> task, Result<std::string>& into) { into = co_await std::move(task); }

}  // namespace

bool names_remote(const std::string& url) { return !url.empty() || !variable("HEARTH_URL").empty(); }

Result<Remote> find_remote(const std::string& url, const std::string& api_key_file) {
  Remote out;
  out.shown = !url.empty() ? url : !variable("HEARTH_URL").empty() ? variable("HEARTH_URL") : std::string(default_url);
  auto parsed = parse_url(out.shown);
  if (!parsed.ok()) return parsed.error();
  out.url = std::move(*parsed);
  if (api_key_file.empty()) {
    out.api_key = variable("HEARTH_API_KEY");
    return out;
  }
  std::ifstream file(api_key_file);
  if (!(file >> out.api_key)) return Error{ErrorCode::io, api_key_file + " cannot be read or holds no key", {}};
  return out;
}

net::HttpRequest Remote::request(std::string method, std::string target) const {
  net::HttpRequest out;
  out.method = std::move(method);
  out.target = std::move(target);
  out.headers.add("Host", url.host);
  out.headers.add("User-Agent", "hearth");
  if (!api_key.empty()) out.headers.add("Authorization", "Bearer " + api_key);
  return out;
}

Result<json::value> Remote::ask(net::HttpRequest request, std::chrono::milliseconds patience) const {
  Result<std::string> body = internal_error("the answer could not be read");
  net::asio::io_context io(1);
  net::asio::co_spawn(io, store(exchange(io, url, std::move(request), patience), body), net::asio::detached);
  io.run();
  if (body.ok()) return parse_json(*body);
  Error error = std::move(body).error();
  if (error.code == ErrorCode::unavailable && error.message.find(url.host) != std::string::npos)
    error.message += fmt::format(".\nNo server runs at {}. Start one with: hearth serve", shown);
  if (error.code == ErrorCode::unauthorized) error.message += ".\nGive the key as HEARTH_API_KEY or with --api-key-file FILE";
  return error;
}

Error error_of(std::string_view body, int status) {
  const auto parsed = parse_json(body);
  const auto* error = parsed.ok() ? member(&*parsed, "error") : nullptr;
  const auto* message = error != nullptr && error->is_string() ? error : member(error, "message");
  const auto* code = member(error, "code");
  return Error{
      code != nullptr && code->is_string() ? error_code_from_name(code->get_string(), ErrorCode::upstream_failed)
                                           : ErrorCode::upstream_failed,
      message != nullptr && message->is_string() ? std::string(message->get_string()) : fmt::format("the server answered {}", status),
      {}};
}

std::string path_segment(std::string_view name) {
  std::string out;
  for (const char c : name) {
    const auto byte = static_cast<unsigned char>(c);
    if (std::isalnum(byte) != 0 || c == '-' || c == '_' || c == '.' || c == '~') {
      out += c;
    } else {
      out += fmt::format("%{:02X}", byte);
    }
  }
  return out;
}

}  // namespace hearth::app
