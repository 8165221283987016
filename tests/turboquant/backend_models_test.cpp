// Models of several architectures with compressed keys and values, against llama.cpp's own f16 cache: text and probabilities within bounds.
#include <gtest/gtest.h>

#include "turboquant/backend_fixture.h"

namespace hearth::turboquant::testing {
namespace {

struct Case {
  std::string name, arguments;  // of make_model; "nano": the demonstration model
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

class BackendModels : public ::testing::TestWithParam<Case> {};

double mean_divergence(const std::vector<Logits>& p, const std::vector<Logits>& q) {
  double sum = 0;
  for (std::size_t i = 0; i < p.size(); ++i) sum += divergence(p[i], q[i]);
  return sum / static_cast<double>(p.size());
}

TEST_P(BackendModels, SayWhatTheySayWithF16) {
  const auto& c = GetParam();
  const std::string model = c.arguments.empty() ? nano_path() : random_model(c.name, c.arguments);
  auto plain = Session::must({.model = model});
  const auto text = prompt(*plain, 300);
  const auto expected = plain->feed(text);
  for (const char* profile : {"k8v8", "k8v4", "k4v4", "k3v2"}) {
    auto session = Session::must({.model = model, .profile = profile, .options = {.head_size = 32}});
    const auto got = session->feed(text);
    ASSERT_EQ(got.size(), expected.size());
    int same = 0;
    for (std::size_t i = 0; i < got.size(); ++i) same += best(got[i]) == best(expected[i]) ? 1 : 0;
    std::printf("%s %s: divergence %.5f, same %.1f %%, %.2f times\n", c.name.c_str(), profile, mean_divergence(expected, got), 100.0 * same / 300,
                static_cast<double>(session->usage().f16_bytes) / static_cast<double>(session->usage().bytes));
  }
}

INSTANTIATE_TEST_SUITE_P(
    Architectures, BackendModels,
    ::testing::Values(Case{"nano", ""}, Case{"llama", "--arch llama --width 256 --heads 4 --kv-heads 2"}),
    [](const auto& p) { return p.param.name; });

}  // namespace
}  // namespace hearth::turboquant::testing
