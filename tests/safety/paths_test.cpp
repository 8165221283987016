#include "safety/paths.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>

#include "base/json.h"

namespace hearth::safety {
namespace {

Surroundings surroundings() {
  return {.working_folder = "/home/user/project",
          .home = "/home/user",
          .user = "user",
          .writable_roots = {"/tmp"},
          .protected_paths = {"/home/user/project/vendor/**"}};
}

const std::map<std::string, Place, std::less<>> places{
    {"workspace", Place::workspace}, {"temporary", Place::temporary}, {"home", Place::home},
    {"elsewhere", Place::elsewhere}, {"system", Place::system},       {"credentials", Place::credentials},
    {"startup", Place::startup},     {"logs", Place::logs},           {"device", Place::device},
    {"root", Place::root},           {"harmless", Place::harmless},   {"secret_like", Place::secret_like},
};

TEST(Paths, EveryCaseMeansItsPlace) {
  std::ifstream file(HEARTH_SOURCE_DIR "/tests/cases/safety/paths.json");
  std::stringstream text;
  text << file.rdbuf();
  auto cases = parse_json(text.str());
  ASSERT_TRUE(cases) << cases.error().message;
  ASSERT_GE(cases->as_array().size(), 60u);
  for (const auto& entry : cases->as_array()) {
    const auto& object = entry.as_object();
    const std::string path(object.at("path").as_string());
    SCOPED_TRACE(path);
    Surroundings where = surroundings();
    if (object.contains("working_folder")) where.working_folder = std::string(object.at("working_folder").as_string());
    const std::string folder = object.contains("folder") ? std::string(object.at("folder").as_string()) : "";
    const std::string canonical = canonical_path(path, where, folder);
    if (object.contains("canonical")) EXPECT_EQ(canonical, std::string(object.at("canonical").as_string()));
    if (object.contains("place")) {
      const auto place = places.find(std::string(object.at("place").as_string()));
      ASSERT_NE(place, places.end()) << object.at("place");
      EXPECT_EQ(static_cast<int>(place_of(canonical, where)), static_cast<int>(place->second)) << canonical;
    }
    if (object.contains("writable")) EXPECT_EQ(is_writable(canonical, where), object.at("writable").as_bool()) << canonical;
  }
}

TEST(Paths, GlobsMatchAsAShellMatchesThem) {
  EXPECT_TRUE(glob_match("/a/*.c", "/a/b.c"));
  EXPECT_FALSE(glob_match("/a/*.c", "/a/b/c.c"));
  EXPECT_TRUE(glob_match("/a/**", "/a/b/c.c"));
  EXPECT_TRUE(glob_match("/a/**/c.c", "/a/b/c.c"));
  EXPECT_TRUE(glob_match("/a/**/c.c", "/a/c.c"));
  EXPECT_FALSE(glob_match("/a/**/c.c", "/a/xc.c"));
  EXPECT_TRUE(glob_match("/a/[a-c]?", "/a/bx"));
  EXPECT_FALSE(glob_match("/a/[!a-c]x", "/a/bx"));
  EXPECT_TRUE(glob_match("*a*b*c*", "xaxbxcx"));
  EXPECT_FALSE(glob_match("*a*b*c", "xaxbxcx"));
  EXPECT_TRUE(glob_match("/x/**/*.key", "/x/y/z/.hidden.key"));
}

TEST(Paths, PatternsThatCanMeanTheSameAreFound) {
  EXPECT_TRUE(globs_intersect("/e?c/p*d", "/etc/passwd"));
  EXPECT_TRUE(globs_intersect("/etc/s[g-i]adow", "/etc/shadow*"));
  EXPECT_TRUE(globs_intersect("/home/*/.s*/id_*", "/home/*/.ssh/**"));
  EXPECT_FALSE(globs_intersect("/home/user/*", "/home/user/.ssh"));  // * leaves hidden names out
  EXPECT_FALSE(globs_intersect("/etc/*release", "/etc/shadow"));
  EXPECT_TRUE(globs_intersect("/proc/[0-9]*/environ", "/proc/*/environ"));
  EXPECT_TRUE(globs_intersect("**/.git", "/tmp/.g*"));
  EXPECT_TRUE(globs_intersect("**/.git", "/*/a/.git"));
  EXPECT_TRUE(globs_intersect("/a/**/b", "/a/?"));
  EXPECT_FALSE(globs_intersect("**/.git", "/tmp/test-*"));  // "test-*" is no "test-/.git"
  EXPECT_FALSE(globs_intersect("/a/**/b", "/a/x*/c"));
  EXPECT_TRUE(
      globs_intersect("a\xEF\xBF\xBD"
                      "b",
                      "axyzb"));
}

// Against the definition: two patterns meet when some text of a small alphabet matches both.
TEST(Paths, IntersectionAgreesWithMatching) {
  const std::string alphabet = "ab/";
  std::vector<std::string> texts{""};
  for (std::size_t from = 0, length = 0; length < 4; ++length) {
    const std::size_t end = texts.size();
    for (std::size_t i = from; i < end; ++i)
      for (const char c : alphabet) texts.push_back(texts[i] + c);
    from = end;
  }
  const std::vector<std::string> globs{"a",    "*",    "a*",  "*b", "?",   "a?b",  "[ab]*",  "**",   "a/**", "*/b",
                                       "**/b", "[!a]", "a*b", "/*", "?/?", "ab/a", "a/**/b", "**/*", "**/a*"};
  for (const auto& x : globs)
    for (const auto& y : globs) {
      bool some = false;
      for (const auto& text : texts) some = some || (glob_match(x, text) && glob_match(y, text));
      EXPECT_EQ(globs_intersect(x, y), some) << x << "  " << y;
    }
}

TEST(Paths, LinksAreFollowedWhereToolsRunHereAndLoopsEnd) {
  namespace fs = std::filesystem;
  const fs::path folder = fs::path(testing::TempDir()) / ("hearth_paths_" + std::to_string(::getpid()));
  fs::create_directories(folder / "real");
  fs::create_symlink("/etc", folder / "innocent");
  fs::create_symlink("b", folder / "a");
  fs::create_symlink("a", folder / "b");
  fs::create_symlink("real", folder / "link");
  const std::string base = fs::canonical(folder).string();
  Surroundings where{.working_folder = base, .follow_links = true};
  EXPECT_EQ(canonical_path("innocent/shadow", where), "/etc/shadow");
  EXPECT_EQ(canonical_path("link/new/file", where), base + "/real/new/file");
  EXPECT_EQ(canonical_path("a/x", where).substr(0, 2), "/?");
  where.follow_links = false;
  EXPECT_EQ(canonical_path("innocent/shadow", where), base + "/innocent/shadow");
  fs::remove_all(folder);
}

TEST(Paths, LongPathsCostNoMoreThanTheirLength) {
  std::string path;
  for (int i = 0; i < 100000; ++i) path += "../";
  EXPECT_EQ(canonical_path(path + "etc/shadow", surroundings()), "/etc/shadow");
  EXPECT_EQ(place_of(canonical_path("/" + std::string(100000, '*'), surroundings()), surroundings()) != Place::workspace, true);
}

}  // namespace
}  // namespace hearth::safety
