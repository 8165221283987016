#include "gateway/identity.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace hearth::gateway {
namespace {

using ::testing::HasSubstr;

constexpr const char* key_a = "aaaaaaaaaaaaaaaaaaaaaaaa";
constexpr const char* key_b = "bbbbbbbbbbbbbbbbbbbbbbbb";

GatewayOptions plain() {
  GatewayOptions options;
  options.fleet.models.push_back({.id = "some", .command = {"worker"}});
  return options;
}
GatewayOptions keyed() {
  auto options = plain();
  options.api_keys = {{"alice", key_a}, {"bob", key_b}};
  return options;
}
net::HttpRequest with(std::initializer_list<std::pair<std::string, std::string>> headers) {
  net::HttpRequest request{.method = "POST", .target = "/v1/chat/completions"};
  for (const auto& [field, value] : headers) request.headers.add(field, value);
  return request;
}

TEST(Options, LoopbackNeedsNoKey) {
  for (const char* host : {"127.0.0.1", "127.8.0.3", "::1", "localhost"}) {
    auto options = plain();
    options.listen.host = host;
    EXPECT_TRUE(check_options(options).ok()) << host;
  }
}

TEST(Options, ListeningWiderWithoutAKeyIsRefusedAndSaysWhatToSet) {
  for (const char* host : {"0.0.0.0", "::", "192.168.1.5", "example.org", "127.evil.example"}) {
    auto options = plain();
    options.listen.host = host;
    const auto checked = check_options(options);
    ASSERT_FALSE(checked.ok()) << host;
    EXPECT_EQ(checked.error().code, ErrorCode::config_invalid);
    EXPECT_THAT(checked.error().message, HasSubstr("API key"));
    EXPECT_THAT(checked.error().message, HasSubstr("127.0.0.1"));
    options.api_keys = {{"alice", key_a}};
    EXPECT_TRUE(check_options(options).ok()) << host;
  }
}

TEST(Options, WeakOrConfusedKeysAreRefused) {
  const auto refused = [](std::vector<ApiKey> keys) {
    auto options = plain();
    options.api_keys = std::move(keys);
    const auto checked = check_options(options);
    return checked.ok() ? std::string() : checked.error().message;
  };
  EXPECT_THAT(refused({{"alice", "short"}}), HasSubstr("too short"));
  EXPECT_THAT(refused({{"alice", "short"}}), ::testing::Not(HasSubstr("\"short\""))) << "a key never shows in a message";
  EXPECT_THAT(refused({{"", key_a}}), HasSubstr("no name"));
  EXPECT_THAT(refused({{"a b", key_a}}), HasSubstr("may only hold"));
  EXPECT_THAT(refused({{"alice", key_a}, {"alice", key_b}}), HasSubstr("two API keys"));
  EXPECT_THAT(refused({{"alice", key_a}, {"bob", key_a}}), HasSubstr("same"));
  EXPECT_THAT(refused({{"alice", "aaaaaaaaaaaa bbbbbbbbbbbb"}}), HasSubstr("visible ASCII"));
}

TEST(Options, HalfATlsPairAndOpenCorsAreRefused) {
  auto options = plain();
  options.tls = net::TlsFiles{.certificate = "cert.pem", .key = ""};
  EXPECT_FALSE(check_options(options).ok());
  options = plain();
  options.cors_origins = {"*"};
  EXPECT_FALSE(check_options(options).ok());
  options.api_keys = {{"alice", key_a}};
  EXPECT_TRUE(check_options(options).ok());
}

TEST(IdentityTest, WithoutKeysEverybodyIsLocal) {
  const Identity identity(plain());
  const auto tenant = identity.tenant(with({}));
  ASSERT_TRUE(tenant.ok());
  EXPECT_EQ(*tenant, "local");
}

TEST(IdentityTest, AKeyNamesItsTenantInEitherHeader) {
  const Identity identity(keyed());
  EXPECT_EQ(identity.tenant(with({{"Authorization", std::string("Bearer ") + key_a}})).value(), "alice");
  EXPECT_EQ(identity.tenant(with({{"authorization", std::string("bearer  ") + key_b}})).value(), "bob");
  EXPECT_EQ(identity.tenant(with({{"X-Api-Key", key_b}})).value(), "bob");
}

TEST(IdentityTest, AnythingElseIsUnauthorized) {
  const Identity identity(keyed());
  const std::string almost = std::string(key_a).substr(1);
  for (const auto& request :
       {with({}), with({{"Authorization", key_a}}), with({{"Authorization", "Basic YTpi"}}), with({{"Authorization", "Bearer "}}),
        with({{"Authorization", "Bearer " + almost}}), with({{"x-api-key", ""}}), with({{"x-api-key", std::string(key_a) + "a"}})}) {
    const auto tenant = identity.tenant(request);
    ASSERT_FALSE(tenant.ok());
    EXPECT_EQ(tenant.error().code, ErrorCode::unauthorized);
    EXPECT_THAT(tenant.error().message, ::testing::Not(HasSubstr(almost)));
  }
}

TEST(IdentityTest, ForeignHostNamesAreRefusedOnLoopbackWithoutKeys) {
  auto options = plain();
  options.allowed_hosts = {"hearth.lan"};
  const Identity identity(options);
  for (const char* host : {"localhost", "localhost:8085", "127.0.0.1:1", "[::1]", "[::1]:8085", "LOCALHOST:80", "hearth.lan:8085"}) {
    EXPECT_TRUE(identity.check_origin(with({{"Host", host}})).ok()) << host;
  }
  for (const char* host : {"evil.example", "evil.example:8085", "localhost.evil.example", "127.0.0.1.evil.example", "[::2]", ""}) {
    const auto checked = identity.check_origin(with({{"Host", host}}));
    ASSERT_FALSE(checked.ok()) << host;
    EXPECT_EQ(checked.error().code, ErrorCode::forbidden);
  }
  EXPECT_TRUE(Identity(keyed()).check_origin(with({{"Host", "anything.example"}})).ok()) << "keys protect: the name does not matter";
}

TEST(IdentityTest, PagesOfOtherSitesAreRefusedWithoutKeys) {
  auto options = plain();
  options.cors_origins = {"https://chat.example"};
  const Identity identity(options);
  EXPECT_FALSE(identity.check_origin(with({{"Host", "localhost:8085"}, {"Origin", "https://evil.example"}})).ok());
  EXPECT_FALSE(identity.check_origin(with({{"Host", "localhost:8085"}, {"Origin", "null"}})).ok());
  EXPECT_TRUE(identity.check_origin(with({{"Host", "localhost:8085"}, {"Origin", "http://localhost:8085"}})).ok()) << "our own page";
  EXPECT_TRUE(identity.check_origin(with({{"Host", "localhost:8085"}, {"Origin", "https://chat.example"}})).ok());
  EXPECT_EQ(identity.cors_origin(with({{"Origin", "https://chat.example"}})), "https://chat.example");
  EXPECT_EQ(identity.cors_origin(with({{"Origin", "https://evil.example"}})), "");
  EXPECT_EQ(Identity(plain()).cors_origin(with({{"Origin", "https://chat.example"}})), "") << "off unless configured";
}

}  // namespace
}  // namespace hearth::gateway
