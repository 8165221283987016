#include "fleet/model_names.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace hearth::fleet {
namespace {

using chat::ModelRole;
using ::testing::HasSubstr;

ModelSpec local(const std::string& id, std::vector<ModelRole> roles = {ModelRole::chat}, std::vector<std::string> aliases = {}) {
  ModelSpec spec;
  spec.id = id;
  spec.roles = std::move(roles);
  spec.aliases = std::move(aliases);
  spec.command = {"hearth", "worker"};
  return spec;
}

class ModelNames : public ::testing::Test {
 protected:
  std::string found(const std::string& name, ModelRole role = ModelRole::chat) const {
    const auto result = find_model(specs_, name, role);
    if (!result.ok()) return result.error().message;
    return specs_[result->model].id + (result->adapter.empty() ? "" : "+" + result->adapter);
  }
  std::vector<ModelSpec> specs_{local("qwen3", {ModelRole::chat}, {"gpt-4o"}), local("llama3:8b"), local("llama3"),
                                local("vectors", {ModelRole::embedding})};
};

TEST_F(ModelNames, ANameOrAliasIsTakenAsItIs) {
  EXPECT_EQ(found("qwen3"), "qwen3");
  EXPECT_EQ(found("gpt-4o"), "qwen3");
  EXPECT_EQ(found("llama3:8b"), "llama3:8b") << "a colon may be part of a name";
}

TEST_F(ModelNames, BehindAColonStandsAnAdapter) {
  EXPECT_EQ(found("qwen3:sql"), "qwen3+sql");
  EXPECT_EQ(found("gpt-4o:sql"), "qwen3+sql");
  EXPECT_EQ(found("llama3:8b:sql"), "llama3:8b+sql") << "the longest name wins";
  EXPECT_EQ(found("llama3:sql"), "llama3+sql");
  EXPECT_EQ(found("qwen3:latest"), "qwen3") << "what some clients write for no tag";
}

TEST_F(ModelNames, WithoutANameTheRoleDecides) {
  EXPECT_EQ(found(""), "qwen3");
  EXPECT_EQ(found("", ModelRole::embedding), "vectors");
  EXPECT_EQ(found("", ModelRole::reranker), "qwen3") << "nobody has that role: the first model of all";
}

TEST_F(ModelNames, AnUnknownNameListsWhatThereIs) {
  EXPECT_EQ(found("gpt-5"), "there is no model \"gpt-5\" here; there is: qwen3, llama3:8b, llama3, vectors");
  EXPECT_EQ(find_model(specs_, "gpt-5", ModelRole::chat).error().code, ErrorCode::model_not_found);
  EXPECT_LT(found(std::string(10'000, 'x')).size(), 400U);
  EXPECT_THAT(found(":"), HasSubstr("there is no model"));
}

TEST_F(ModelNames, AdaptersAreOurWorkersAlone) {
  specs_[0].kind = ModelKind::openai;
  EXPECT_THAT(found("qwen3:sql"), HasSubstr("there is no model"));
}

TEST_F(ModelNames, EveryNameStandsForOneModel) {
  EXPECT_TRUE(check_specs(specs_).ok());
  specs_[3].aliases = {"qwen3"};
  const auto twice = check_specs(specs_);
  ASSERT_FALSE(twice.ok());
  EXPECT_EQ(twice.error().code, ErrorCode::config_invalid);
  EXPECT_THAT(twice.error().message, HasSubstr("\"qwen3\""));
  EXPECT_THAT(twice.error().message, HasSubstr("\"vectors\""));
}

TEST_F(ModelNames, ASpecHasWhatItsKindNeeds) {
  EXPECT_FALSE(check_specs({}).ok());
  specs_[1].command.clear();
  EXPECT_THAT(check_specs(specs_).error().message, HasSubstr("\"llama3:8b\" has no command line"));
  specs_[1].kind = ModelKind::openai;
  EXPECT_THAT(check_specs(specs_).error().message, HasSubstr("names no endpoint"));
  specs_[1].id.clear();
  EXPECT_THAT(check_specs(specs_).error().message, HasSubstr("has no name"));
}

}  // namespace
}  // namespace hearth::fleet
