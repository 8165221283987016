// A gateway on a free port, in front of fake engines and worker processes, and a client that asks it.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>

#include "base/json.h"
#include "fleet/fake_engine.h"
#include "fleet/loop.h"
#include "gateway/gateway.h"
#include "net/client.h"

namespace hearth::gateway {

using namespace std::chrono_literals;
using test::FakeEngine;

inline constexpr const char* chat_body = R"({"messages":[{"role":"user","content":"hi"}]})";
inline constexpr const char* stream_body = R"({"messages":[{"role":"user","content":"hi"}],"stream":true})";

struct Answer {
  int status = 0;
  net::Headers headers;
  std::string body;
  std::string header(std::string_view name) const { return std::string(headers.find(name).value_or(std::string_view())); }
  std::string at(const char* pointer) const {
    boost::system::error_code error;
    const auto document = json::parse(body, error);
    if (error) return "not JSON: " + body;
    const auto* found = document.find_pointer(pointer, error);
    return !found ? std::string() : found->is_string() ? std::string(found->get_string()) : json::serialize(*found);
  }
};

class GatewayTest : public ::testing::Test {
 protected:
  GatewayTest() {
    engine_.frames = FakeEngine::hello();
    options_.listen.port = 0;
  }
  ~GatewayTest() override {
    client_.reset();
    if (gateway_) test::run(io_, gateway_->drain());
    gateway_.reset();
    if (server_) test::run(io_, server_->drain(0ms));
    if (!folder_.empty()) std::filesystem::remove_all(folder_);
  }

  // In front of a fake engine on TCP.
  void start() {
    if (!server_) server_ = engine_.serve();
    auto& spec = spec_;
    spec.id = "fake";
    spec.remotes.push_back({net::TcpEndpoint{"127.0.0.1", server_->port()}, ""});
    spec.upstream.name = "engine";
    options_.fleet.models.push_back(spec);
    start_gateway();
  }
  // With a supervised worker process.
  void start_worker(const std::string& mode) {
    add_worker("fake", mode).pinned = true;
    start_gateway();
  }
  fleet::ModelSpec& add_worker(const std::string& id, const std::string& mode) {
    if (folder_.empty()) {
      char path[] = "/tmp/hearth-test-XXXXXX";
      folder_ = mkdtemp(path);
    }
    fleet::ModelSpec spec;
    spec.id = id;
    spec.info.upstream = "worker";
    spec.command = {HEARTH_FAKE_WORKER, mode, folder_ + "/starts-" + id};
    options_.fleet.models.push_back(std::move(spec));
    return options_.fleet.models.back();
  }
  void start_gateway() {
    options_.fleet.supervisor.backoff.first = 5ms;
    options_.drain_grace = 5s;
    auto gateway = Gateway::start(io_, options_, events_);
    ASSERT_TRUE(gateway.ok()) << gateway.error().message;
    gateway_ = std::move(*gateway);
    client_ = net::Client::make(io_, net::TcpEndpoint{"127.0.0.1", gateway_->port()});
  }

  net::Task<Result<Answer>> exchange(net::HttpRequest request) {
    auto response = co_await client_->send(std::move(request), 20s);
    if (!response.ok()) co_return std::move(response).error();
    auto body = co_await (*response)->read_all(1 << 24, 20s);
    if (!body.ok()) co_return std::move(body).error();
    co_return Answer{(*response)->status, (*response)->headers, std::move(*body)};
  }
  Answer send(const std::string& method, const std::string& target, const std::string& body = {},
              std::initializer_list<std::pair<std::string, std::string>> headers = {}) {
    net::HttpRequest request{.method = method, .target = target, .body = body};
    for (const auto& [field, value] : headers) request.headers.add(field, value);
    auto answer = test::run(io_, exchange(std::move(request)));
    if (!answer.ok()) {
      ADD_FAILURE() << answer.error().message;
      return {};
    }
    return std::move(*answer);
  }
  Answer chat(const std::string& body = chat_body) { return send("POST", "/v1/chat/completions", body); }
  double metric(const std::string& sample) {
    const auto text = send("GET", "/metrics").body;
    const auto at = text.find("\n" + sample + " ");
    return at == std::string::npos ? -1 : std::stod(text.substr(at + sample.size() + 2));
  }

  net::asio::io_context io_{1};
  FakeEngine engine_{io_};
  fleet::ModelSpec spec_{.kind = fleet::ModelKind::openai};  // of the fake engine
  GatewayOptions options_;
  GatewayEvents events_;
  std::unique_ptr<net::Server> server_;
  std::unique_ptr<Gateway> gateway_;
  std::unique_ptr<net::Client> client_;
  std::string folder_;
};

}  // namespace hearth::gateway
