#include "net/client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/asio/ip/tcp.hpp>

#include "harness.h"
#include "net/server.h"

namespace hearth::net {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;
using testing::StartsWith;
constexpr milliseconds patient{10'000};

struct Answer {
  int status = 0;
  std::string body;
  std::optional<Error> error;
};

Task<Answer> fetch(Client& client, HttpRequest request, milliseconds head_timeout = patient, milliseconds silence = patient) {
  auto response = co_await client.send(std::move(request), head_timeout);
  if (!response) co_return Answer{0, {}, response.error()};
  Answer answer{(*response)->status, {}, {}};
  auto body = co_await (*response)->read_all(64 * 1024 * 1024, silence);
  if (body) {
    answer.body = std::move(*body);
  } else {
    answer.error = body.error();
  }
  co_return answer;
}

HttpRequest get(std::string target) { return HttpRequest{"GET", std::move(target), {}, {}, {}}; }

// The upstream is played by hand.
class ClientTest : public testing::Test {
 protected:
  ~ClientTest() override {
    loop_.call([this] { client_.reset(); });
    loop_.stop();
  }
  std::future<Answer> start(HttpRequest request, milliseconds head_timeout = patient, milliseconds silence = patient) {
    return loop_.start(fetch(*client_, std::move(request), head_timeout, silence));
  }
  // One request on a fresh connection, answered with `bytes` and a close.
  Answer scripted(std::string_view bytes) {
    auto answer = start(get("/"));
    auto upstream = listener_.accept();
    upstream.until("\r\n\r\n");
    upstream.send(bytes);
    upstream.close();
    return answer.get();
  }

  Loop loop_;
  RawListener listener_;
  std::unique_ptr<Client> client_ = Client::make(loop_.io, TcpEndpoint{"127.0.0.1", listener_.port()});
};

TEST_F(ClientTest, SendsFreshRequestsAndReusesTheConnection) {
  HttpRequest request{"POST", "/v1?x=1", {}, "body", {}};
  request.headers.add("X-Mine", "yes");
  request.headers.add("Host", "evil");
  request.headers.add("Transfer-Encoding", "chunked");
  request.headers.add("Content-Length", "999");
  auto first = start(request);
  auto upstream = listener_.accept();
  EXPECT_EQ(upstream.until("body"), "POST /v1?x=1 HTTP/1.1\r\nHost: 127.0.0.1:" + std::to_string(listener_.port()) +
                                        "\r\nX-Mine: yes\r\nContent-Length: 4\r\n\r\nbody");
  upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
  EXPECT_EQ(first.get().body, "ok");
  for (const std::string answer :
       {"HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x\r\nab\r\n0\r\nT: r\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"}) {
    auto next = start(get("/"));
    EXPECT_THAT(upstream.until("\r\n\r\n"), StartsWith("GET / HTTP/1.1\r\n"));
    upstream.send(answer);
    const auto got = next.get();
    EXPECT_FALSE(got.error) << got.error->message;
    EXPECT_NE(got.status, 103);
  }
  EXPECT_TRUE(listener_.nobody_waits()) << "all four went over one connection";
}

TEST_F(ClientTest, AnAnswerSplitAtEveryByteReadsTheSame) {
  const std::string bytes =
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1;e=\"q\"\r\n \r\n5\r\nworld\r\n0\r\nA: b\r\n\r\n";
  auto upstream = [&] {
    auto first = start(get("/"));
    auto connection = listener_.accept();
    connection.until("\r\n\r\n");
    connection.send(bytes);
    EXPECT_EQ(first.get().body, "hello world");
    return connection;
  }();
  for (std::size_t cut = 1; cut < bytes.size(); ++cut) {
    auto answer = start(get("/"));
    upstream.until("\r\n\r\n");
    upstream.send(bytes.substr(0, cut));
    loop_.call([] {});
    loop_.call([] {});
    upstream.send(bytes.substr(cut));
    const auto got = answer.get();
    ASSERT_FALSE(got.error) << "cut at " << cut << ": " << got.error->message;
    ASSERT_EQ(got.body, "hello world") << "cut at " << cut;
  }
}

TEST_F(ClientTest, ReadsUntilCloseWhenTheUpstreamSaysNoLength) {
  EXPECT_EQ(scripted("HTTP/1.1 200 OK\r\n\r\nall of it").body, "all of it");
  EXPECT_EQ(scripted("HTTP/1.0 200 OK\r\n\r\n").body, "");
}

TEST_F(ClientTest, AHalfAnswerIsAFailure) {
  for (const std::string_view bytes :
       {"", "HTTP/1.1 200 OK\r\nConte", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc", "SSH-2.0-OpenSSH\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\n\r\n"}) {
    const auto got = scripted(bytes);
    ASSERT_TRUE(got.error) << bytes;
    EXPECT_EQ(got.error->code, ErrorCode::upstream_failed) << bytes;
    EXPECT_THAT(got.error->message, HasSubstr("127.0.0.1"));
  }
}

TEST_F(ClientTest, BytesBeyondTheAnswerNeverReachTheNextOne) {
  auto first = start(get("/"));
  auto upstream = listener_.accept();
  upstream.until("\r\n\r\n");
  upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison");
  EXPECT_EQ(first.get().body, "ok");
  auto second = start(get("/"));
  auto fresh = listener_.accept();
  fresh.until("\r\n\r\n");
  fresh.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nmine");
  EXPECT_EQ(second.get().body, "mine");
}

TEST_F(ClientTest, AStaleConnectionIsReplacedOnceAndOnlyBeforeAnyByte) {
  const auto serve = [this](std::string_view bytes) {
    auto answer = start(get("/"));
    auto upstream = listener_.accept();
    upstream.until("\r\n\r\n");
    upstream.send(bytes);
    EXPECT_FALSE(answer.get().error);
    return upstream;
  };
  constexpr std::string_view ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
  {
    // It closes only once the request is there: no look at the idle socket could have told.
    auto upstream = serve(ok);
    auto answer = start(get("/again"));
    upstream.until("\r\n\r\n");
    upstream.close();
    auto fresh = listener_.accept();
    EXPECT_THAT(fresh.until("\r\n\r\n"), StartsWith("GET /again"));
    fresh.send(ok);
    EXPECT_EQ(answer.get().body, "ok");
    // A byte of an answer came: sending again could do the work twice.
    auto second = start(get("/once"));
    fresh.until("\r\n\r\n");
    fresh.send("H");
    fresh.close();
    EXPECT_EQ(second.get().error->code, ErrorCode::upstream_failed);
  }
  {
    auto upstream = serve(ok);
    auto answer = start(get("/"));
    upstream.until("\r\n\r\n");
    upstream.close();
    listener_.accept().close();  // the fresh one fails, too: no third attempt
    EXPECT_EQ(answer.get().error->code, ErrorCode::upstream_failed);
    EXPECT_TRUE(listener_.nobody_waits());
  }
}

TEST_F(ClientTest, AnEarlyAnswerToALargeBodyIsRead) {
  auto answer = start(HttpRequest{"POST", "/", {}, std::string(8 * 1024 * 1024, 'x'), {}});
  auto upstream = listener_.accept();
  upstream.until("\r\n\r\n");
  upstream.send("HTTP/1.1 413 Payload Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno");
  upstream.half_close();
  upstream.count_until("never");
  const auto got = answer.get();
  EXPECT_EQ(got.status, 413);
  EXPECT_EQ(got.body, "no");
}

TEST_F(ClientTest, SilenceEndsInATimeOut) {
  auto no_head = start(get("/"), milliseconds(30));
  auto first = listener_.accept();
  EXPECT_EQ(no_head.get().error->code, ErrorCode::upstream_timeout);
  auto no_body = start(get("/"), patient, milliseconds(30));
  auto second = listener_.accept();
  second.until("\r\n\r\n");
  second.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab");
  EXPECT_EQ(no_body.get().error->code, ErrorCode::upstream_timeout);
  EXPECT_EQ(second.rest(), "") << "its connection is closed";
}

TEST_F(ClientTest, NobodyListening) {
  const auto port = RawListener().port();
  auto other = Client::make(loop_.io, TcpEndpoint{"127.0.0.1", port});
  const auto got = loop_.run(fetch(*other, get("/")));
  ASSERT_TRUE(got.error);
  EXPECT_EQ(got.error->code, ErrorCode::unavailable);
  EXPECT_THAT(got.error->message, HasSubstr("nobody listens"));
  auto local = Client::make(loop_.io, UnixEndpoint{"/nonexistent/x.sock"});
  EXPECT_EQ(loop_.run(fetch(*local, get("/"))).error->code, ErrorCode::unavailable);
}

TEST_F(ClientTest, RefusesToSendHeadersThatBreakTheMessage) {
  auto bad = get("/");
  bad.headers.add("X", "a\r\nY: b");
  EXPECT_EQ(start(bad).get().error->code, ErrorCode::invalid_request);
  EXPECT_EQ(start(get("/a b")).get().error->code, ErrorCode::invalid_request);
}

TEST_F(ClientTest, TooLargeAnswersAndHeadersAreRefused) {
  auto got = scripted("HTTP/1.1 200 OK\r\nX: " + std::string(100'000, 'x') + "\r\n\r\n");
  EXPECT_EQ(got.error->code, ErrorCode::upstream_failed);
  auto limited = [](Client& client) -> Task<std::string> {
    auto response = co_await client.send(get("/"), patient);
    if (!response) co_return response.error().message;
    auto body = co_await (*response)->read_all(3, patient);
    co_return body ? *body : std::string(name(body.error().code));
  };
  auto answer = loop_.start(limited(*client_));
  auto upstream = listener_.accept();
  upstream.until("\r\n\r\n");
  upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfour");
  EXPECT_EQ(answer.get(), "payload_too_large");
}

struct Held {
  std::unique_ptr<ClientResponse> response;
  std::promise<void> reading;
};

Task<std::string> hold(Client& client, Held& held) {
  auto response = co_await client.send(get("/"), patient);
  if (!response) co_return response.error().message;
  held.response = std::move(*response);
  auto first = co_await held.response->read_some(patient);
  held.reading.set_value();
  auto second = co_await held.response->read_some(patient);
  co_return second ? std::string(*second) : std::string(name(second.error().code));
}

TEST_F(ClientTest, CancelWakesAReaderAndClosesAtOnce) {
  Held held;
  auto outcome = loop_.start(hold(*client_, held));
  auto upstream = listener_.accept();
  upstream.until("\r\n\r\n");
  upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nfirst");
  held.reading.get_future().get();
  loop_.call([&] { held.response->cancel(); });
  EXPECT_EQ(outcome.get(), "client_gone");
  EXPECT_EQ(upstream.rest(), "");
  loop_.call([&] { held.response.reset(); });
}

// How an exchange ends that may be cancelled before the head.
Task<std::string> outcome_of(Client& client, std::shared_ptr<Cancellation> cancellation, std::promise<void>* head = nullptr) {
  auto response = co_await client.send(get("/"), patient, cancellation);
  if (!response) co_return std::string(name(response.error().code));
  if (head) head->set_value();
  auto body = co_await (*response)->read_all(100, patient);
  co_return body ? *body : std::string(name(body.error().code));
}

TEST_F(ClientTest, ACancellationBeforeTheHeadClosesTheConnection) {
  const auto cancellation = std::make_shared<Cancellation>();
  auto outcome = loop_.start(outcome_of(*client_, cancellation));
  auto upstream = listener_.accept();
  upstream.until("\r\n\r\n");
  loop_.call([&] { cancellation->request(); });
  EXPECT_EQ(outcome.get(), "client_gone");
  EXPECT_EQ(upstream.rest(), "") << "the upstream learns of it";
  EXPECT_EQ(loop_.run(outcome_of(*client_, cancellation)), "client_gone");
  EXPECT_TRUE(listener_.nobody_waits()) << "nothing was sent";
}

TEST_F(ClientTest, ACancellationAfterTheHeadLeavesTheAnswerToItsReader) {
  const auto cancellation = std::make_shared<Cancellation>();
  std::promise<void> head;
  auto outcome = loop_.start(outcome_of(*client_, cancellation, &head));
  auto upstream = listener_.accept();
  upstream.until("\r\n\r\n");
  upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n");
  head.get_future().get();
  loop_.call([&] { cancellation->request(); });
  upstream.send("body");
  EXPECT_EQ(outcome.get(), "body");
}

TEST_F(ClientTest, ACancellationEndsAnAttemptToConnect) {
  // A listener whose queue is full answers nothing: the attempt would last until its time-out.
  asio::io_context io;
  asio::ip::tcp::acceptor full(io);
  full.open(asio::ip::tcp::v4());
  full.bind({asio::ip::address_v4::loopback(), 0});
  full.listen(0);
  std::vector<asio::ip::tcp::socket> queued;
  for (int i = 0; i < 4; ++i) {
    queued.emplace_back(io).open(asio::ip::tcp::v4());
    queued.back().native_non_blocking(true);
    const auto to = full.local_endpoint();
    (void)::connect(queued.back().native_handle(), to.data(), static_cast<socklen_t>(to.size()));
  }
  const TcpEndpoint endpoint{"127.0.0.1", full.local_endpoint().port()};
  auto client = Client::make(loop_.io, endpoint, {.connect_timeout = std::chrono::minutes(10)});
  const auto cancellation = std::make_shared<Cancellation>();
  auto outcome = loop_.start(outcome_of(*client, cancellation));
  loop_.call([] {});  // the attempt has begun
  loop_.call([&] { cancellation->request(); });
  EXPECT_EQ(outcome.get(), "client_gone");
  loop_.call([&] { client.reset(); });
}

TEST_F(ClientTest, DroppingAnUnfinishedAnswerClosesItsConnection) {
  auto drop = [](Client& client) -> Task<bool> {
    auto response = co_await client.send(get("/"), patient);
    co_return response.ok();
  };
  auto outcome = loop_.start(drop(*client_));
  auto upstream = listener_.accept();
  upstream.until("\r\n\r\n");
  upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nfirst");
  EXPECT_TRUE(outcome.get());
  EXPECT_EQ(upstream.rest(), "");
}

// Against the real server.
class RoundTrip : public testing::Test {
 protected:
  ~RoundTrip() override {
    loop_.call([this] {
      client_.reset();
      server_.reset();
    });
    loop_.stop();
  }
  void serve(const Endpoint& endpoint, std::optional<TlsFiles> tls = {}) {
    auto listening = loop_.call(
        [&] { return Server::listen(loop_.io, endpoint, {}, std::move(tls), [](Exchange& exchange) { return answer(exchange); }); });
    ASSERT_TRUE(listening.ok()) << listening.error().message;
    server_ = std::move(*listening);
  }
  static Task<void> answer(Exchange& exchange) {
    // The body comes back in pieces of growing size.
    const std::string body = exchange.request().body;
    auto sent = co_await exchange.begin(200, {});
    std::size_t size = 1;
    for (std::size_t at = 0; sent && at < body.size(); at += size, size = size * 3 + 1)
      sent = co_await exchange.write(std::string_view(body).substr(at, size));
    if (sent) sent = co_await exchange.finish();
  }
  static std::string pattern(std::size_t size) {
    std::string out;
    for (std::size_t i = 0; out.size() < size; ++i) out += std::to_string(i) + ",";
    return out;
  }

  Loop loop_;
  std::unique_ptr<Server> server_;
  std::unique_ptr<Client> client_;
};

TEST_F(RoundTrip, LargeBodiesBothWaysOverAUnixSocket) {
  const TempDir folder;
  serve(UnixEndpoint{folder.file("s")});
  client_ = Client::make(loop_.io, UnixEndpoint{folder.file("s")});
  for (const std::size_t size : {0u, 1u, 1000u, 3'000'000u}) {
    const auto body = pattern(size);
    const auto got = loop_.run(fetch(*client_, HttpRequest{"POST", "/", {}, body, {}}));
    ASSERT_FALSE(got.error) << got.error->message;
    EXPECT_TRUE(got.body == body) << size;
  }
  EXPECT_EQ(loop_.call([this] { return server_->connections(); }), 1u) << "one connection was kept";
}

TEST_F(RoundTrip, TlsWithVerification) {
  const TempDir folder;
  const auto files = make_certificate(folder);
  serve(TcpEndpoint{"127.0.0.1", 0}, TlsFiles{files.certificate_file, files.key_file});
  ClientOptions trusting;
  trusting.ca_file = files.certificate_file;
  const auto body = pattern(1'000'000);
  for (const std::string host : {"localhost", "127.0.0.1"}) {
    auto client = Client::make(loop_.io, TcpEndpoint{host, server_->port(), true}, trusting);
    for (int i = 0; i < 2; ++i) {
      const auto got = loop_.run(fetch(*client, HttpRequest{"POST", "/", {}, body, {}}));
      ASSERT_FALSE(got.error) << host << ": " << got.error->message;
      EXPECT_TRUE(got.body == body);
    }
    loop_.call([&] { client.reset(); });
  }
  auto wary = Client::make(loop_.io, TcpEndpoint{"localhost", server_->port(), true});
  const auto refused = loop_.run(fetch(*wary, get("/")));
  ASSERT_TRUE(refused.error);
  EXPECT_EQ(refused.error->code, ErrorCode::upstream_failed);
  EXPECT_THAT(refused.error->message, HasSubstr("self-signed"));
  auto plain = Client::make(loop_.io, TcpEndpoint{"127.0.0.1", server_->port()});
  EXPECT_TRUE(loop_.run(fetch(*plain, get("/"))).error) << "plain HTTP to a TLS port";
}

}  // namespace
}  // namespace hearth::net
