#include "safety/verdict.h"

#include <gtest/gtest.h>

#include "safety/effect.h"

namespace hearth::safety {
namespace {

Finding finding(Decision decision, Layer layer) { return {.decision = decision, .layer = layer, .rule = std::string(name(layer))}; }

TEST(Verdict, TheStrictestFindingDecidesWhateverTheOrder) {
  Verdict verdict;
  EXPECT_EQ(verdict.decisive(), nullptr);
  verdict.add(finding(Decision::audit, Layer::gate));
  verdict.add(finding(Decision::deny, Layer::argus));
  verdict.add(finding(Decision::allow, Layer::guard));
  verdict.add(finding(Decision::require, Layer::policy));
  verdict.add(finding(Decision::deny, Layer::policy));
  EXPECT_EQ(verdict.decision, Decision::deny);
  ASSERT_EQ(verdict.findings.size(), 4u);
  EXPECT_EQ(verdict.decisive()->rule, "policy");
  EXPECT_EQ(verdict.findings.back().rule, "gate");
}

TEST(Effect, NamesAreUniqueAndReadBack) {
  for (std::size_t i = 0; i < effect_count; ++i) {
    const auto effect = static_cast<Effect>(i);
    EXPECT_EQ(effect_from_name(name(effect)), effect) << name(effect);
  }
  EXPECT_FALSE(effect_from_name("destruction"));
}

}  // namespace
}  // namespace hearth::safety
