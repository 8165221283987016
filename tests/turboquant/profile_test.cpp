#include "turboquant/profile.h"

#include <gtest/gtest.h>

#include <string>

namespace hearth::turboquant {
namespace {

TEST(Profile, NamesWidths) {
  for (const auto& [name, keys, values] : {std::tuple{"k8v4", 8, 4}, {"k4v4", 4, 4}, {"k4v3", 4, 3}, {"k3v2", 3, 2}}) {
    const auto profile = find_profile(name);
    ASSERT_TRUE(profile.ok()) << name;
    EXPECT_EQ(profile->name, name);
    EXPECT_EQ(profile->widths.keys, keys);
    EXPECT_EQ(profile->widths.values, values);
    EXPECT_EQ(profile->sinks, 0);
  }
}

TEST(Profile, GuardsTheLayersAtBothEnds) {
  const Profile p = find_profile("k3v2").value();
  for (const int layer : {0, 1, 30, 31}) EXPECT_EQ(p.of_layer(layer, 32).keys, 8) << layer;
  for (const int layer : {2, 15, 29}) EXPECT_EQ(p.of_layer(layer, 32).keys, 3) << layer;
  EXPECT_EQ(p.of_layer(0, 4).keys, 3) << "a model this small has no ends to guard";
  const Profile bare = find_profile("k3v2,guard=0").value();
  EXPECT_EQ(bare.of_layer(0, 32).keys, 3);
  const Profile more = find_profile("k4v3,sinks=4,guard=3").value();
  EXPECT_EQ(more.sinks, 4);
  EXPECT_EQ(more.of_layer(2, 32).keys, 8);
  EXPECT_EQ(more.of_layer(3, 32).keys, 4);
}

TEST(Profile, ErrorsNameWhatThereIs) {
  const auto expect = [](std::string_view text, std::string_view part) {
    const auto profile = find_profile(text);
    ASSERT_FALSE(profile.ok()) << text;
    EXPECT_EQ(profile.error().code, ErrorCode::config_invalid);
    EXPECT_NE(profile.error().message.find(part), std::string::npos) << profile.error().message;
  };
  for (const std::string_view text : {"", "K4V4", "k5v5", "k4v4 ", "k4"}) expect(text, "k8v8, k8v4, k4v4, k4v3 or k3v2");
  expect("k4v4,size=3", "guard=LAYERS or sinks=TOKENS");
  expect("k4v4,,", "guard=LAYERS or sinks=TOKENS");
  for (const std::string_view text : {"k4v4,sinks", "k4v4,sinks=", "k4v4,sinks=-1", "k4v4,sinks=x", "k4v4,sinks=4x", "k4v4,sinks=257"})
    expect(text, "from 0 to 256");
  expect("k4v4,guard=99999999999", "from 0 to 1024");
}

TEST(Profile, CountsBytes) {
  EXPECT_EQ(bytes_per_token(Widths{3, 2}, 8, 128, 128), 8U * (50 + 34));
  EXPECT_EQ(bytes_per_token(Widths{8, 4}, 1, 192, 128), 192U + 2 + 64 + 2);
  const std::uint64_t f16 = 4ULL * 128 * 8 * 32;
  const auto ratio = [&](const char* name) {
    return static_cast<double>(f16) / static_cast<double>(bytes_per_token(find_profile(name).value(), 128, 8, 32));
  };
  EXPECT_GT(ratio("k3v2"), 5.2);
  EXPECT_GT(ratio("k3v2,guard=0"), 6.0);
  EXPECT_GT(ratio("k8v4"), 2.6);
}

}  // namespace
}  // namespace hearth::turboquant
