// The whole way of a tool call: engine, buffer, judge, person, audit log, client.
#include <gmock/gmock.h>

#include <atomic>
#include <boost/asio/detached.hpp>
#include <fstream>
#include <stdexcept>
#include <thread>

#include "gateway/gateway_fixture.h"
#include "store/audit_log.h"

namespace hearth::gateway {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class SafetyTest : public GatewayTest {
 protected:
  SafetyTest() {
    char path[] = "/tmp/hearth-safety-XXXXXX";
    folder_ = mkdtemp(path);
    auto& safety = options_.safety;
    safety.mode = safety::Mode::enforce;
    safety.folder = folder_;
    safety.patience = 20s;
    safety.judge_limit = 10s;
    safety.judge.where.working_folder = "/home/user/project";
  }

  // The engine calls bash with this command.
  void calls(const std::string& command) {
    json::object arguments{{"command", command}};
    json::object function{{"name", "bash"}, {"arguments", json::serialize(arguments)}};
    json::object call{{"index", 0}, {"id", "call_1"}, {"type", "function"}, {"function", std::move(function)}};
    engine_.frames = FakeEngine::hello();
    engine_.frames[0] = FakeEngine::chunk(R"({"role":"assistant","content":"Let me."})");
    engine_.frames[1] = FakeEngine::chunk(json::serialize(json::object{{"tool_calls", json::array{call}}}));
    engine_.frames[2] = FakeEngine::chunk("{}", "\"tool_calls\"");
  }
  static std::string body(bool stream, const std::string& messages = R"([{"role":"user","content":"hi"}])") {
    return R"({"stream":)" + std::string(stream ? "true" : "false") + R"(,"messages":)" + messages +
           R"(,"tools":[{"type":"function","function":{"name":"bash","description":"Run a shell command","parameters":{"type":"object","properties":{"command":{"type":"string"}}}}}]})";
  }
  // Every call is asked about.
  void ask_about_everything() {
    options_.safety.evaluate = [](const safety::Action&) {
      safety::Judgement out;
      out.verdict.add({safety::Decision::require, safety::Layer::policy, "ask", "it is for a person to say", "", "nothing else"});
      return out;
    };
  }
  // Asks, and lets `meanwhile` act once a call waits.
  Answer ask_and(const std::function<void(const std::string& id)>& meanwhile) {
    std::optional<Result<Answer>> answer;
    net::HttpRequest request{.method = "POST", .target = "/v1/chat/completions", .body = body(true)};
    net::asio::co_spawn(io_, test::store(exchange(std::move(request)), answer), net::asio::detached);
    std::string id;
    for (int i = 0; i < 2000 && id.empty(); ++i) {
      id = send("GET", "/admin/approvals").at("/waiting/0/id");
      if (id.empty()) test::run(io_, test::pause(io_, 2ms));
    }
    EXPECT_FALSE(id.empty()) << "no call waits";
    EXPECT_FALSE(answer.has_value());
    meanwhile(id);
    EXPECT_TRUE(test::wait_for(io_, [&] { return answer.has_value(); }));
    return answer && answer->ok() ? **answer : Answer{};
  }

  json::array rows() {
    gateway_drained();
    json::array out;
    EXPECT_TRUE(store::AuditLog::read(store::AuditLog::path_in(folder_), 1, [&](const json::object& row) {
                  out.push_back(row);
                  return true;
                }).ok());
    return out;
  }
  void gateway_drained() {
    client_.reset();
    if (gateway_) test::run(io_, gateway_->drain());
    gateway_.reset();
  }
};

TEST_F(SafetyTest, ASafeCallPassesByteForByte) {
  calls("ls -la");
  start();
  const auto answer = send("POST", "/v1/chat/completions", body(true));
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.header("x-hearth-safety"), "enforce");
  EXPECT_EQ(answer.body, engine_.frames[0] + engine_.frames[1] + engine_.frames[2] + engine_.frames[4]);
  const auto all = rows();
  ASSERT_EQ(all.size(), 1U);
  EXPECT_EQ(all[0].at("outcome").as_string(), "released");
  EXPECT_EQ(all[0].at("tool").as_string(), "bash");
  EXPECT_EQ(all[0].at("tenant").as_string(), "local");
}

// A secret that the model writes in two pieces, and a harmless call behind it.
class TextTest : public SafetyTest, public ::testing::WithParamInterface<safety::TextCheck> {};

TEST_P(TextTest, TheModelsOwnTextIsLookedThrough) {
  const std::string secret = std::string("AK") + "IA" + "Q7XJ2LPM4WRTZ5BN";
  const auto check = GetParam();
  calls("ls -la");
  const auto call = engine_.frames[1];
  engine_.frames[0] = FakeEngine::chunk(R"({"role":"assistant","content":"Use )" + secret.substr(0, 7) + "\"}");
  engine_.frames[1] = FakeEngine::chunk(R"({"content":")" + secret.substr(7) + " now.\"}");
  engine_.frames.insert(engine_.frames.begin() + 2, call);
  options_.safety.text = check;
  start();
  const auto answer = send("POST", "/v1/chat/completions", body(true));
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.header("x-hearth-safety"), "enforce");
  if (check == safety::TextCheck::audit) {
    EXPECT_THAT(answer.body, HasSubstr(engine_.frames[0] + engine_.frames[1] + call));
    return;
  }
  EXPECT_THAT(answer.body, Not(HasSubstr(secret.substr(0, 7))));
  EXPECT_THAT(answer.body, Not(HasSubstr(secret.substr(7))));
  if (check == safety::TextCheck::redact) {
    EXPECT_THAT(answer.body, HasSubstr("Use [SECRET:aws_access_key] now."));
    EXPECT_LT(answer.body.find("[SECRET"), answer.body.find("call_1"));
    EXPECT_THAT(answer.body, HasSubstr(R"("finish_reason":"tool_calls")"));
  } else {
    EXPECT_THAT(answer.body, HasSubstr("rule secret-in-text"));
    EXPECT_THAT(answer.body, Not(HasSubstr("call_1")));
    EXPECT_THAT(answer.body, HasSubstr(R"("finish_reason":"content_filter")"));
  }
}

INSTANTIATE_TEST_SUITE_P(Checks, TextTest, ::testing::Values(safety::TextCheck::audit, safety::TextCheck::redact, safety::TextCheck::deny),
                         [](const auto& info) { return std::string(safety::name(info.param)); });

TEST_F(SafetyTest, ADestructiveCallIsReplacedByItsReason) {
  calls("rm -rf /");
  start();
  for (const bool stream : {true, false}) {
    const auto answer = send("POST", "/v1/chat/completions", body(stream));
    EXPECT_EQ(answer.status, 200);
    EXPECT_THAT(answer.body, Not(HasSubstr("tool_calls")));
    EXPECT_THAT(answer.body, HasSubstr("hearth did not release this call of bash"));
    EXPECT_THAT(answer.body, HasSubstr(R"("finish_reason":"stop")"));
    EXPECT_THAT(answer.body, HasSubstr("Let me."));
  }
  EXPECT_EQ(send("POST", "/v1/chat/completions", body(false)).header("x-hearth-safety"), "enforce refused=1");
  EXPECT_THAT(send("GET", "/metrics").body, HasSubstr("hearth_safety_calls_total{decision=\"DENY\""));
  const auto all = rows();
  ASSERT_EQ(all.size(), 3U);
  EXPECT_EQ(all[0].at("decision").as_string(), "DENY");
  EXPECT_EQ(all[0].at("outcome").as_string(), "refused");
  const auto report = store::AuditLog::verify(store::AuditLog::path_in(folder_));
  ASSERT_TRUE(report.ok());
  EXPECT_EQ(report->bad, 0U);
}

TEST_F(SafetyTest, TheOtherProtocolsSayItTheirWay) {
  calls("rm -rf /");
  start();
  const auto anthropic =
      send("POST", "/v1/messages", R"({"model":"fake","max_tokens":9,"stream":true,"messages":[{"role":"user","content":"hi"}]})");
  EXPECT_THAT(anthropic.body, HasSubstr("hearth did not release"));
  EXPECT_THAT(anthropic.body, HasSubstr(R"("stop_reason":"end_turn")"));
  EXPECT_THAT(anthropic.body, Not(HasSubstr("tool_use")));
  const auto ollama = send("POST", "/api/chat", R"({"model":"fake","messages":[{"role":"user","content":"hi"}]})");
  EXPECT_THAT(ollama.body, HasSubstr("hearth did not release"));
  EXPECT_THAT(ollama.body, Not(HasSubstr("tool_calls")));
  const auto responses = send("POST", "/v1/responses", R"({"model":"fake","input":"hi","stream":true})");
  EXPECT_THAT(responses.body, HasSubstr("hearth did not release"));
  EXPECT_THAT(responses.body, Not(HasSubstr("function_call")));
  EXPECT_THAT(responses.body, HasSubstr("response.completed"));
}

TEST_F(SafetyTest, AnApprovedCallIsReleasedAsItCame) {
  calls("sudo apt-get install jq");
  ask_about_everything();
  start();
  const auto answer = ask_and([&](const std::string& id) {
    const auto list = send("GET", "/admin/approvals");
    EXPECT_EQ(list.at("/mode"), "enforce");
    EXPECT_EQ(list.at("/waiting/0/tool"), "bash");
    EXPECT_EQ(list.at("/waiting/0/rule"), "ask");
    EXPECT_THAT(list.at("/waiting/0/arguments"), HasSubstr("sudo apt-get install jq"));
    EXPECT_EQ(metric("hearth_safety_held_calls"), 1);
    EXPECT_EQ(send("POST", "/admin/approvals/" + id + "/approve", R"({"reason":"my machine"})").status, 200);
    EXPECT_EQ(send("POST", "/admin/approvals/" + id + "/approve").status, 400) << "once";
  });
  EXPECT_EQ(answer.body, engine_.frames[0] + engine_.frames[1] + engine_.frames[2] + engine_.frames[4]);
  const auto all = rows();
  ASSERT_EQ(all.size(), 2U);
  EXPECT_EQ(all[0].at("outcome").as_string(), "held");
  EXPECT_EQ(all[1].at("outcome").as_string(), "approved");
  EXPECT_EQ(all[1].at("by").as_string(), "local");
  EXPECT_EQ(all[1].at("note").as_string(), "my machine");
}

TEST_F(SafetyTest, ARefusalTellsTheAgentWhy) {
  calls("sudo apt-get install jq");
  ask_about_everything();
  start();
  const auto answer = ask_and([&](const std::string& id) {
    EXPECT_EQ(send("POST", "/admin/approvals/" + id + "/deny", R"({"reason":"use the container"})").status, 200);
  });
  EXPECT_THAT(answer.body, HasSubstr("A person refused it: use the container"));
  EXPECT_THAT(answer.body, Not(HasSubstr("tool_calls")));
}

TEST_F(SafetyTest, NobodysWordIsANo) {
  calls("sudo apt-get install jq");
  ask_about_everything();
  options_.safety.patience = 100ms;
  start();
  const auto answer = send("POST", "/v1/chat/completions", body(true));
  EXPECT_THAT(answer.body, HasSubstr("nobody gave it"));
  EXPECT_THAT(answer.body, Not(HasSubstr("tool_calls")));
}

TEST_F(SafetyTest, WithoutAPersonSuchCallsAreRefusedAtOnce) {
  calls("sudo apt-get install jq");
  ask_about_everything();
  options_.safety.ask = false;
  start();
  const auto answer = send("POST", "/v1/chat/completions", body(true));
  EXPECT_THAT(answer.body, HasSubstr("Accepted instead: nothing else"));
  EXPECT_EQ(send("GET", "/admin/approvals").at("/waiting"), "[]");
}

TEST_F(SafetyTest, OnlyApproversApprove) {
  calls("ls");
  ask_about_everything();
  options_.api_keys = {{"agent", "0123456789abcdef0123"}, {"boss", "abcdef0123456789abcd"}};
  options_.safety.approvers = {"boss"};
  start();
  const auto refused = send("POST", "/admin/approvals/hold_x/approve", "", {{"x-api-key", "0123456789abcdef0123"}});
  EXPECT_EQ(refused.status, 403);
  EXPECT_THAT(refused.body, HasSubstr("safety.approvers"));
  EXPECT_EQ(send("POST", "/admin/approvals/hold_x/approve", "", {{"x-api-key", "abcdef0123456789abcd"}}).status, 400)
      << "there is no such call";
  EXPECT_EQ(send("POST", "/admin/approvals/hold_x/approve", "{\"why\":1}", {{"x-api-key", "abcdef0123456789abcd"}}).status, 400);
}

TEST_F(SafetyTest, AJudgeThatFailsReleasesNothing) {
  calls("ls");
  options_.safety.evaluate = [](const safety::Action&) -> safety::Judgement { throw std::runtime_error("boom"); };
  start();
  const auto answer = send("POST", "/v1/chat/completions", body(true));
  EXPECT_THAT(answer.body, HasSubstr("rule judge_failed"));
  EXPECT_THAT(answer.body, Not(HasSubstr("tool_calls")));
}

TEST_F(SafetyTest, AJudgeThatIsTooSlowReleasesNothing) {
  calls("ls");
  const auto go = std::make_shared<std::atomic<bool>>(false);
  options_.safety.judge_limit = 50ms;
  options_.safety.evaluate = [go](const safety::Action&) {
    while (!*go) std::this_thread::sleep_for(1ms);
    return safety::Judgement{};
  };
  start();
  const auto answer = send("POST", "/v1/chat/completions", body(true));
  *go = true;
  EXPECT_THAT(answer.body, HasSubstr("rule too_slow"));
  EXPECT_THAT(answer.body, Not(HasSubstr("tool_calls")));
}

TEST_F(SafetyTest, ACallDoesNotApproveCalls) {
  calls("curl -X POST localhost:8085/admin/approv''als/x/approve");
  options_.safety.evaluate = [](const safety::Action&) { return safety::Judgement{}; };
  start();
  EXPECT_THAT(send("POST", "/v1/chat/completions", body(true)).body, HasSubstr("rule own_approval"));
}

TEST_F(SafetyTest, WhoOnlyObservesReleasesAndRecords) {
  calls("rm -rf /");
  options_.safety.mode = safety::Mode::observe;
  start();
  const auto answer = send("POST", "/v1/chat/completions", body(true));
  EXPECT_EQ(answer.body, engine_.frames[0] + engine_.frames[1] + engine_.frames[2] + engine_.frames[4]);
  EXPECT_EQ(answer.header("x-hearth-safety"), "observe");
  const auto all = rows();
  ASSERT_EQ(all.size(), 1U);
  EXPECT_EQ(all[0].at("decision").as_string(), "DENY");
  EXPECT_EQ(all[0].at("outcome").as_string(), "released");
  EXPECT_EQ(all[0].at("mode").as_string(), "observe");
}

TEST_F(SafetyTest, RowsHoldNoSecretsOfArguments) {
  const std::string secret = "ghp_" + std::string("x7Kq2mPz9RtW4vYb1NcD8sLf3GhJ6aQeU5oT");
  calls("echo " + secret);
  start();
  (void)send("POST", "/v1/chat/completions", body(true));
  const auto all = rows();
  ASSERT_EQ(all.size(), 1U);
  EXPECT_THAT(json::serialize(all[0]), Not(HasSubstr(secret)));
  EXPECT_EQ(all[0].at("arguments_sha256").as_string().size(), 64U);
}

TEST_F(SafetyTest, APolicyIsReadAgainAndAMistakeKeepsTheOldOne) {
  const std::string file = folder_ + "/policy";
  std::ofstream(file) << "include shipped\n";
  options_.safety.judge.policy_file = file;
  calls("ls -la");
  start();
  EXPECT_EQ(send("POST", "/admin/safety/reload").status, 200);
  std::ofstream(file) << "include shipped\nDENNY everything\n";
  const auto refused = send("POST", "/admin/safety/reload");
  EXPECT_EQ(refused.status, 400);
  EXPECT_THAT(refused.body, HasSubstr("policy:2:1"));
  EXPECT_THAT(send("POST", "/v1/chat/completions", body(true)).body, HasSubstr("ls -la"));
}

TEST_F(SafetyTest, ClassifiedResultsDoNotGoToARemoteModel) {
  start();
  const auto answer = send(
      "POST", "/v1/chat/completions",
      body(
          false,
          R"([{"role":"user","content":"read it"},{"role":"assistant","tool_calls":[{"id":"c","type":"function","function":{"name":"bash","arguments":"{\"command\":\"cat report.txt\"}"}}]},{"role":"tool","tool_call_id":"c","content":"TOP SECRET//SI//NOFORN\nThe meeting is at noon.\nTOP SECRET//SI//NOFORN\n"}])"));
  EXPECT_EQ(answer.status, 403) << answer.body;
  EXPECT_EQ(answer.at("/error/code"), "forbidden");
  EXPECT_TRUE(engine_.seen.empty());
}

}  // namespace
}  // namespace hearth::gateway
