#include "fleet/limiter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/asio/detached.hpp>

#include "fleet/loop.h"

namespace hearth::fleet {
namespace {

using namespace std::chrono_literals;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class LimiterTest : public ::testing::Test {
 protected:
  struct Entry {
    std::shared_ptr<net::Cancellation> cancellation = std::make_shared<net::Cancellation>();
    std::optional<Result<Limiter::Place>> result;
  };
  net::Task<void> enter(int number, std::shared_ptr<Entry> entry) {
    auto result = co_await limiter_.enter(entry->cancellation);
    if (result.ok()) order_.push_back(number);
    entry->result.emplace(std::move(result));
  }
  std::shared_ptr<Entry> start(int number) {
    auto entry = std::make_shared<Entry>();
    net::asio::co_spawn(io_, enter(number, entry), net::asio::detached);
    settle();
    return entry;
  }
  void settle() {
    io_.restart();
    io_.poll();
  }

  net::asio::io_context io_{1};
  FakeClock clock_;
  Limiter limiter_{io_, {.running = 2, .waiting = 2}, clock_};
  std::vector<int> order_;
};

TEST_F(LimiterTest, AdmitsInOrderAsPlacesBecomeFree) {
  auto first = start(1), second = start(2), third = start(3), fourth = start(4);
  EXPECT_THAT(order_, ElementsAre(1, 2));
  EXPECT_EQ(limiter_.waiting(), 2);
  second.reset();
  settle();
  EXPECT_THAT(order_, ElementsAre(1, 2, 3));
  first.reset();
  third.reset();
  settle();
  EXPECT_THAT(order_, ElementsAre(1, 2, 3, 4));
  EXPECT_EQ(limiter_.running(), 1);
  fourth.reset();
  EXPECT_EQ(limiter_.running(), 0);
}

TEST_F(LimiterTest, RefusesWhenTheQueueIsFullAndSaysWhenAPlaceIsLikely) {
  auto a = start(1), b = start(2), c = start(3), d = start(4);
  clock_.advance(10s);
  a.reset();  // held for 10 s: so the mean grows
  settle();
  auto e = start(5);
  auto refused = start(6);
  ASSERT_TRUE(refused->result.has_value());
  ASSERT_FALSE(refused->result->ok());
  EXPECT_EQ(refused->result->error().code, ErrorCode::overloaded);
  EXPECT_THAT(refused->result->error().message, HasSubstr("2 requests"));
  EXPECT_EQ(refused->result->error().retry_after, 5s) << "3 places ahead, 2 at once, 2.8 s each";
}

TEST_F(LimiterTest, ACancelledWaiterMakesRoomInTheQueue) {
  auto a = start(1), b = start(2), c = start(3), d = start(4);
  c->cancellation->request();
  settle();
  ASSERT_TRUE(c->result.has_value());
  EXPECT_EQ(c->result->error().code, ErrorCode::client_gone);
  EXPECT_EQ(limiter_.waiting(), 1);
  a.reset();
  settle();
  EXPECT_THAT(order_, ElementsAre(1, 2, 4));
}

TEST_F(LimiterTest, APlaceGivenToSomebodyWhoJustLeftGoesToTheNext) {
  auto a = start(1), b = start(2), c = start(3), d = start(4);
  a.reset();                   // admits 3, which has not run yet
  c->cancellation->request();  // and never will
  settle();
  ASSERT_TRUE(c->result.has_value());
  EXPECT_FALSE(c->result->ok());
  EXPECT_THAT(order_, ElementsAre(1, 2, 4));
  EXPECT_EQ(limiter_.running(), 2);
}

TEST_F(LimiterTest, AWaitHasItsLimit) {
  Limiter limiter(io_, {.running = 1, .waiting = 1, .longest_wait = 1ms});
  auto held = test::run(io_, limiter.enter());
  ASSERT_TRUE(held.ok());
  auto late = test::run(io_, limiter.enter());
  ASSERT_FALSE(late.ok());
  EXPECT_EQ(late.error().code, ErrorCode::overloaded);
}

TEST_F(LimiterTest, WithoutALimitNobodyWaits) {
  Limiter limiter(io_, {.running = 0});
  std::vector<Limiter::Place> places;
  for (int i = 0; i < 100; ++i) {
    auto place = test::run(io_, limiter.enter());
    ASSERT_TRUE(place.ok());
    places.push_back(std::move(*place));
  }
  EXPECT_EQ(limiter.running(), 100);
}

TEST(Cancellation, RunsEachRegistrationOnceAndNoneThatIsGone) {
  const auto cancellation = std::make_shared<net::Cancellation>();
  int first = 0, second = 0, late = 0;
  {
    const net::Cancellation::Registration gone(cancellation, [&] { ++first; });
  }
  const net::Cancellation::Registration kept(cancellation, [&] { ++second; });
  cancellation->request();
  cancellation->request();
  const net::Cancellation::Registration after(cancellation, [&] { ++late; });
  const net::Cancellation::Registration never(nullptr, [&] { ++first; });
  EXPECT_EQ(first, 0);
  EXPECT_EQ(second, 1);
  EXPECT_EQ(late, 1);
}

}  // namespace
}  // namespace hearth::fleet
