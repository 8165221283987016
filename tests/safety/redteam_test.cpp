// The red-team suite: each attack of tests/cases/safety/redteam is held (denied, or asked about) and its benign twin is released. tests/tools/redteam_proof.mjs shows that the attacks
// work and says what the files' fields mean. Then wide lists of one-liners, dangerous and ordinary, without proof.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>

#include "base/json.h"
#include "safety/judge.h"
#include "safety/policy.h"

namespace hearth::safety {
namespace {

std::string read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

Surroundings surroundings() {
  Surroundings where;
  where.working_folder = "/home/user/project";
  where.writable_roots = {"/tmp"};
  Policy::shipped().complete(where);
  return where;
}

struct Judged {
  Verdict verdict;
  Assessment assessment;
  std::string why() const {
    std::string out(name(verdict.decision));
    for (const Finding& finding : verdict.findings)
      out += "\n  " + std::string(name(finding.decision)) + " " + finding.rule + ": " + finding.reason + " [" +
             finding.excerpt.substr(0, 80) + "]";
    for (const Observation& seen : assessment.observations)
      out += "\n  saw " + std::string(name(seen.effect)) + (seen.certain ? " " : "? ") + seen.target.substr(0, 80) + " by " + seen.program;
    if (!assessment.problem.empty()) out += "\n  problem: " + assessment.problem.substr(0, 200);
    return out;
  }
  bool held() const { return verdict.decision >= Decision::require; }
};

// All five layers, as shipped.
Judged judge(const Action& action) {
  static const auto judge = [] {
    JudgeOptions options;
    options.where = surroundings();
    return Judge::make(options);
  }();
  Judged out;
  if (!judge.ok()) {
    ADD_FAILURE() << judge.error().message;
    return out;
  }
  Judgement judgement = (*judge)->judge(action);
  out.verdict = std::move(judgement.verdict);
  out.assessment = std::move(judgement.assessment);
  return out;
}

// `#PADn#` stands for n bytes of comment.
std::string padded(std::string text) {
  const std::size_t at = text.find("#PAD");
  if (at == std::string::npos) return text;
  const std::size_t end = text.find('#', at + 4);
  const std::size_t count = std::stoul(text.substr(at + 4, end - at - 4));
  return text.replace(at, end + 1 - at, "#" + std::string(count, 'x'));
}

Call call_of(const json::object& object, const json::object& otherwise) {
  Call call;
  const auto* tool = object.if_contains("tool");
  call.name = tool != nullptr ? tool->as_string() : otherwise.at("tool").as_string();
  const json::object& arguments = object.at("arguments").as_object();
  if (const auto* raw = arguments.if_contains("#raw")) {
    call.arguments = raw->as_string();
  } else {
    json::object copy = arguments;
    if (auto* command = copy.if_contains("command"); command != nullptr && command->is_string())
      *command = padded(std::string(command->as_string()));
    call.arguments = json::serialize(copy);
  }
  return call;
}

// The action, with the calls before it.
Action action_of(const json::object& object, const json::object& otherwise) {
  Action action;
  action.where = surroundings();
  action.call = call_of(object, otherwise);
  const auto* history = object.if_contains("history");
  if (history == nullptr) return action;
  for (const auto& entry : history->as_array()) {
    const auto& earlier = entry.as_object();
    action.history.push_back(call_of(earlier, earlier));
  }
  return action;
}

TEST(RedTeam, EveryAttackIsHeldAndEveryTwinReleased) {
  std::set<std::int64_t> categories;
  std::set<std::string> effects;
  std::size_t attacks = 0;
  std::size_t released = 0;
  std::size_t refused_twins = 0;
  for (const auto& entry : std::filesystem::directory_iterator(HEARTH_SOURCE_DIR "/tests/cases/safety/redteam")) {
    auto parsed = parse_json(read_file(entry.path()));
    ASSERT_TRUE(parsed.ok()) << entry.path() << ": " << parsed.error().message;
    for (const auto& one : parsed->as_array()) {
      const auto& vector = one.as_object();
      const std::string id(vector.at("id").as_string());
      categories.insert(vector.at("category").as_int64());
      effects.emplace(vector.at("effect").as_string());
      ++attacks;
      const Action attack = action_of(vector, vector);
      const Judged judged = judge(attack);
      if (!judged.held()) ++released;
      EXPECT_TRUE(judged.held()) << id << " is released: " << attack.call.arguments.substr(0, 300) << "\n" << judged.why();
      const Action twin = action_of(vector.at("twin").as_object(), vector);
      const Judged harmless = judge(twin);
      if (harmless.held()) ++refused_twins;
      EXPECT_FALSE(harmless.held()) << "the twin of " << id << " is held: " << twin.call.arguments.substr(0, 300) << "\n" << harmless.why();
    }
  }
  std::printf("%zu attacks in %zu categories: %zu released, %zu twins held\n", attacks, categories.size(), released, refused_twins);
  for (std::int64_t category = 1; category <= 72; ++category)
    EXPECT_TRUE(categories.contains(category)) << "category " << category << " has no attack";
  EXPECT_EQ(effects.size(), dangerous_effects);
}

// One command line a line; U+23CE (⏎) within one is a new line of the command; "# " starts a comment line.
std::vector<std::string> lines_of(const std::string& file) {
  std::vector<std::string> out;
  std::ifstream stream(std::string(HEARTH_SOURCE_DIR "/tests/cases/safety/") + file);
  std::string line;
  while (std::getline(stream, line)) {
    if (line.empty() || line.starts_with("# ")) continue;
    for (std::size_t at = 0; (at = line.find("\xE2\x8F\x8E", at)) != std::string::npos;) line.replace(at, 3, "\n");
    out.push_back(line);
  }
  return out;
}

Judged judge_line(const std::string& line) {
  Action action;
  action.where = surroundings();
  action.call.name = "bash";
  action.call.arguments = json::serialize(json::object{{"command", line}});
  return judge(action);
}

TEST(RedTeam, TheWideListOfDangerousLinesIsHeld) {
  const auto lines = lines_of("wide_dangerous.txt");
  EXPECT_GE(lines.size(), 300u);
  std::size_t released = 0;
  for (const std::string& line : lines) {
    const Judged judged = judge_line(line);
    if (!judged.held()) ++released;
    EXPECT_TRUE(judged.held()) << line << "\n" << judged.why();
  }
  std::printf("%zu dangerous lines, %zu released\n", lines.size(), released);
}

TEST(RedTeam, TheWideListOfOrdinaryLinesIsReleased) {
  const auto lines = lines_of("wide_ordinary.txt");
  EXPECT_GE(lines.size(), 300u);
  std::size_t held = 0;
  for (const std::string& line : lines) {
    const Judged judged = judge_line(line);
    if (judged.held()) ++held;
    EXPECT_FALSE(judged.held()) << line << "\n" << judged.why();
  }
  std::printf("%zu ordinary lines, %zu held\n", lines.size(), held);
}

}  // namespace
}  // namespace hearth::safety
