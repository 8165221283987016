#include "gateway/admin.h"

#include <gmock/gmock.h>

#include "gateway/gateway_fixture.h"

namespace hearth::gateway {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class AdminTest : public GatewayTest {
 protected:
  void start_two() {
    add_worker("one", "normal");
    auto& two = add_worker("org/two", "normal");
    two.command[2] = folder_ + "/starts-two";
    two.aliases = {"zwei"};
    start_gateway();
  }
  std::string state(const std::string& id) {
    const auto models = json::parse(send("GET", "/admin/models").body).at("models").as_array();
    for (const auto& model : models) {
      if (model.at("id").as_string() == id) return std::string(model.at("state").as_string());
    }
    return "not there";
  }

  // An event feed that a test reads as it grows.
  struct Feed {
    std::unique_ptr<net::ClientResponse> response;
    std::string text;
  };
  static net::Task<void> read_until(Feed& feed, const std::string& what) {
    while (feed.text.find(what) == std::string::npos) {
      const auto bytes = co_await feed.response->read_some(20s);
      if (!bytes.ok() || bytes->empty()) co_return;
      feed.text += *bytes;
    }
  }
  Feed follow(const std::string& last_id = {}) {
    net::HttpRequest request{.method = "GET", .target = "/admin/events"};
    if (!last_id.empty()) request.headers.add("Last-Event-ID", last_id);
    auto response = test::run(io_, client_->send(std::move(request), 20s));
    EXPECT_TRUE(response.ok() && (*response)->status == 200);
    Feed feed{std::move(*response), {}};
    test::run(io_, read_until(feed, ":model events\n\n"));
    return feed;
  }
};

TEST_F(AdminTest, ListsEveryModelAndTheMemory) {
  start_two();
  const auto answer = send("GET", "/admin/models");
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.at("/models/0/id"), "one");
  EXPECT_EQ(answer.at("/models/0/state"), "absent");
  EXPECT_EQ(answer.at("/models/0/roles/0"), "chat");
  EXPECT_EQ(answer.at("/models/0/default_for_role"), "true");
  EXPECT_EQ(answer.at("/models/1/aliases/0"), "zwei");
  EXPECT_EQ(answer.at("/models/1/upstream"), "worker");
  EXPECT_EQ(answer.at("/memory/used"), "0");
}

TEST_F(AdminTest, LoadsAndUnloadsByNameAndAlias) {
  start_two();
  auto answer = send("POST", "/admin/models/one/load");
  EXPECT_EQ(answer.status, 200) << answer.body;
  EXPECT_EQ(answer.at("/state"), "ready");
  EXPECT_EQ(answer.at("/device"), "cpu");
  EXPECT_EQ(answer.at("/unloads_at"), "0");
  answer = send("POST", "/admin/models/zwei/load", R"({"keep_loaded": 600})");
  EXPECT_EQ(answer.at("/id"), "org/two");
  EXPECT_GT(std::stoll(answer.at("/unloads_at")), 0);
  EXPECT_EQ(send("POST", "/admin/models/org%2Ftwo/unload").at("/state"), "absent");
  EXPECT_EQ(send("POST", "/admin/models/org/two/load").status, 200) << "slashes in an id are fine as they are";
  EXPECT_EQ(send("POST", "/admin/models/one/unload").status, 200);
  EXPECT_EQ(state("one"), "absent");
  EXPECT_EQ(state("org/two"), "ready");
}

TEST_F(AdminTest, RefusesWhatItDoesNotUnderstand) {
  start_two();
  const auto refused = [&](const std::string& method, const std::string& path, const std::string& body, int status,
                           const std::string& text) {
    const auto answer = send(method, path, body);
    EXPECT_EQ(answer.status, status) << path << ' ' << body << ' ' << answer.body;
    EXPECT_THAT(answer.at("/error/message"), HasSubstr(text));
  };
  refused("POST", "/admin/models/three/load", "", 404, "there is: one, org/two");
  refused("POST", "/admin/models/three/unload", "", 404, "there is: one, org/two");
  refused("POST", "/admin/models/one/frob", "", 404, "/unload");
  refused("POST", "/admin/models/load", "", 404, "there is no /admin/models/load here");
  refused("GET", "/admin/", "", 404, "there is no /admin/ here");
  refused("POST", "/admin/models", "", 405, "");
  refused("GET", "/admin/models/one/load", "", 405, "");
  refused("POST", "/admin/events", "", 405, "");
  refused("POST", "/admin/models/one/load", "{", 400, "");
  refused("POST", "/admin/models/one/load", "[]", 400, "must be a JSON object");
  refused("POST", "/admin/models/one/load", R"({"keep": 5})", 400, "\"keep\" is not known here");
  refused("POST", "/admin/models/one/load", R"({"keep_loaded": "10m"})", 400, "number of seconds");
  refused("POST", "/admin/models/one/load", R"({"keep_loaded": 1e30})", 400, "number of seconds");
  EXPECT_EQ(send("GET", "/admin/events", {}, {{"Last-Event-ID", "abc"}}).status, 400);
  EXPECT_EQ(state("one"), "absent") << "a refused load loads nothing";
}

TEST_F(AdminTest, ALoadThatFailsSaysWhy) {
  add_worker("one", "bad_model");
  add_worker("two", "normal");
  start_gateway();
  const auto answer = send("POST", "/admin/models/one/load");
  EXPECT_EQ(answer.status, 500);
  EXPECT_EQ(answer.at("/error/code"), "model_invalid");
  EXPECT_EQ(answer.at("/error/message"), "not a GGUF file");
  const auto listed = send("GET", "/admin/models");
  EXPECT_EQ(listed.at("/models/0/state"), "failed");
  EXPECT_EQ(listed.at("/models/0/problem"), "not a GGUF file");
}

TEST_F(AdminTest, ARemoteModelCannotBeUnloaded) {
  start();
  const auto answer = send("POST", "/admin/models/fake/unload");
  EXPECT_EQ(answer.status, 400);
  EXPECT_EQ(answer.at("/error/code"), "unsupported");
}

TEST_F(AdminTest, NeedsTheSameKeyAsTheApi) {
  options_.api_keys = {{"alice", "0123456789abcdef0123"}};
  start_two();
  for (const char* path : {"/admin/models", "/admin/events"}) EXPECT_EQ(send("GET", path).status, 401) << path;
  EXPECT_EQ(send("POST", "/admin/models/one/load").status, 401);
  EXPECT_EQ(send("GET", "/admin/models", {}, {{"Authorization", "Bearer 0123456789abcdef0123"}}).status, 200);
  EXPECT_EQ(send("POST", "/admin/models/one/unload", {}, {{"x-api-key", "0123456789abcdef0123"}}).status, 200);
}

TEST_F(AdminTest, TheFeedTellsWhatHappensAndContinuesWhereItBroke) {
  options_.keep_alive = 20ms;
  start_two();
  auto feed = follow();
  EXPECT_EQ(send("POST", "/admin/models/one/load").status, 200);
  test::run(io_, read_until(feed, "\"reason\":\"loaded\""));
  EXPECT_THAT(feed.text, HasSubstr("id: 1\nevent: model\ndata: {\"time\":"));
  EXPECT_THAT(feed.text, HasSubstr("\"model\":\"one\",\"state\":\"loading\",\"reason\":\"requested\",\"took_ms\":0}\n\n"));
  EXPECT_THAT(feed.text, HasSubstr("id: 2\nevent: model\n"));
  feed.text.clear();
  test::run(io_, read_until(feed, ":\n\n"));
  EXPECT_THAT(feed.text, HasSubstr(":\n\n")) << "comments while nothing happens";
  feed.response.reset();

  auto again = follow("1");
  EXPECT_THAT(again.text, Not(HasSubstr("id: 1\n")));
  EXPECT_THAT(again.text, HasSubstr("id: 2\n"));
  const auto fresh = follow();
  EXPECT_THAT(fresh.text, Not(HasSubstr("id: "))) << "without an id it begins now";
  const auto from_before_a_restart = follow("99");
  EXPECT_THAT(from_before_a_restart.text, HasSubstr("id: 1\n"));
  EXPECT_EQ(send("POST", "/admin/models/one/unload").status, 200);
  test::run(io_, read_until(again, "\"state\":\"absent\""));
  EXPECT_THAT(again.text, HasSubstr("\"reason\":\"unload asked for\""));
}

TEST_F(AdminTest, AFeedDoesNotHoldUpADrain) {
  options_.keep_alive = 60s;
  start_two();
  auto feed = follow();
  const auto began = std::chrono::steady_clock::now();
  test::run(io_, gateway_->drain());
  EXPECT_LT(std::chrono::steady_clock::now() - began, 4s) << "the grace is 5 s";
  const auto rest = test::run(io_, feed.response->read_all(1 << 20, 5s));
  EXPECT_TRUE(rest.ok()) << "it ends properly";
}

}  // namespace
}  // namespace hearth::gateway
