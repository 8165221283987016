#include "net/server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/ssl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <atomic>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <fstream>

#include "harness.h"

namespace hearth::net {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

class ServerTest : public testing::Test {
 protected:
  ~ServerTest() override {
    loop_.call([this] { server_.reset(); });
    loop_.stop();
  }
  void start(ServerLimits limits = {}, std::optional<TlsFiles> tls = {}, Endpoint endpoint = TcpEndpoint{"127.0.0.1", 0}) {
    auto listening = loop_.call([&] {
      return Server::listen(loop_.io, endpoint, limits, std::move(tls), [this](Exchange& exchange) { return handle(exchange); });
    });
    ASSERT_TRUE(listening.ok()) << listening.error().message;
    server_ = std::move(*listening);
  }
  Raw connect() { return Raw::tcp(server_->port()); }
  std::string ask(std::string_view bytes) {
    auto raw = connect();
    raw.send(bytes);
    return raw.answer();
  }

  Task<void> handle(Exchange& exchange) {
    const auto path = exchange.request().path();
    if (path == "/echo") {
      auto body =
          exchange.request().method + " " + exchange.request().target + " " + exchange.request().peer + " " + exchange.request().body;
      Headers headers;
      if (const auto extra = exchange.request().headers.find("x-extra")) headers.add("X-Extra", std::string(*extra));
      if (exchange.request().headers.find("x-trailer")) headers.add("X-Trailer", "seen");
      last_ = (co_await exchange.respond(200, std::move(headers), std::move(body))).ok();
    } else if (path == "/stream") {
      auto begun = co_await exchange.begin(200, {});
      if (begun) begun = co_await exchange.write("one");
      if (begun) begun = co_await exchange.write("");
      if (begun) begun = co_await exchange.write("twenty bytes of data");
      if (begun) begun = co_await exchange.finish();
      last_ = begun.ok();
    } else if (path == "/flood") {
      const std::string piece(64 * 1024, 'x');
      auto written = co_await exchange.begin(200, {});
      while (written) {
        written = co_await exchange.write(piece);
        if (written) flooded_ += piece.size();
        if (flooded_ >= flood_limit) break;
      }
      if (written) written = co_await exchange.finish();
      flood_ended_.set_value(written.ok());
    } else if (path == "/gone") {
      asio::steady_timer forever(loop_.io, asio::steady_timer::time_point::max());
      exchange.on_client_gone([&] {
        ++gone_calls_;
        forever.cancel();
      });
      boost::system::error_code ec;
      working_.set_value();
      co_await forever.async_wait(asio::redirect_error(asio::use_awaitable, ec));
      const auto answered = co_await exchange.respond(200, {}, "too late");
      gone_.set_value(answered.ok() ? "answered" : std::string(name(answered.error().code)));
    } else if (path == "/late") {
      // The callback is set when the client has gone already.
      const std::string piece(64 * 1024, 'x');
      auto written = co_await exchange.begin(200, {});
      while (written) written = co_await exchange.write(piece);
      asio::steady_timer forever(loop_.io, asio::steady_timer::time_point::max());
      exchange.on_client_gone([&] { forever.cancel(); });
      boost::system::error_code ec;
      co_await forever.async_wait(asio::redirect_error(asio::use_awaitable, ec));
      gone_.set_value("told");
    } else if (path == "/wait") {
      boost::system::error_code ec;
      working_.set_value();
      release_.expires_at(asio::steady_timer::time_point::max());
      co_await release_.async_wait(asio::redirect_error(asio::use_awaitable, ec));
      last_ = (co_await exchange.respond(200, {}, "waited")).ok();
    } else if (path == "/abort") {
      auto begun = co_await exchange.begin(200, {});
      if (begun) begun = co_await exchange.write("part");
      exchange.abort();
      last_ = begun.ok();
    } else if (path == "/throw") {
      throw std::runtime_error("secret detail");
    } else if (path == "/throw-late") {
      auto begun = co_await exchange.begin(200, {});
      if (begun) begun = co_await exchange.write("part");
      throw std::runtime_error("secret detail");
    } else if (path == "/bad-header") {
      Headers headers;
      headers.add("X-Bad", "a\r\nSet-Cookie: b");
      const auto answered = co_await exchange.respond(200, std::move(headers), "x");
      if (!answered && answered.error().code == ErrorCode::internal) last_ = (co_await exchange.respond(500, {}, "refused")).ok();
    } else if (path == "/no-content") {
      last_ = (co_await exchange.respond(204, {}, "")).ok();
    }
    // Any other path: no answer at all.
  }

  static constexpr std::size_t flood_limit = 64 * 1024 * 1024;
  Loop loop_;
  std::unique_ptr<Server> server_;
  std::atomic<bool> last_{false};
  std::atomic<std::size_t> flooded_{0};
  std::promise<bool> flood_ended_;
  std::atomic<int> gone_calls_{0};
  std::promise<void> working_;
  std::promise<std::string> gone_;
  asio::steady_timer release_{loop_.io};
};

TEST_F(ServerTest, AnswersARequestSplitAtEveryByte) {
  start();
  const std::string request =
      "POST /echo?a=1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1;ext=\"x\"\r\n!\r\n0\r\nX-Trailer: t\r\n\r\n";
  auto raw = connect();
  for (std::size_t cut = 1; cut < request.size(); ++cut) {
    raw.send(request.substr(0, cut));
    // The server has seen the first part for sure once it has answered another connection.
    ASSERT_THAT(ask("GET /echo HTTP/1.1\r\nHost: a\r\n\r\n"), HasSubstr("200 OK"));
    raw.send(request.substr(cut));
    const auto answer = raw.answer();
    ASSERT_THAT(answer, StartsWith("HTTP/1.1 200 OK\r\n")) << "cut at " << cut;
    ASSERT_THAT(answer, HasSubstr("POST /echo?a=1 127.0.0.1 hello!"));
    ASSERT_THAT(answer, Not(HasSubstr("X-Trailer"))) << "a trailer must not pass for a header";
  }
}

TEST_F(ServerTest, AnswersPipelinedRequestsInOrderAndKeepsTheConnection) {
  start();
  auto raw = connect();
  raw.send(
      "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET /stream HTTP/1.1\r\nHost: a\r\n\r\nGET /echo HTTP/1.1\r\nHost: "
      "a\r\n\r\n");
  EXPECT_THAT(raw.answer(), HasSubstr("POST /echo 127.0.0.1 abc"));
  EXPECT_THAT(raw.until("\r\n\r\n"), HasSubstr("Transfer-Encoding: chunked"));
  EXPECT_EQ(raw.until("0\r\n\r\n"), "3\r\none\r\n14\r\ntwenty bytes of data\r\n0\r\n\r\n");
  EXPECT_THAT(raw.answer(), HasSubstr("GET /echo"));
  raw.send("\r\nGET /echo HTTP/1.1\r\nHost: a\r\nX-Extra: caf\xc3\xa9\r\nConnection: close\r\n\r\n");
  const auto last = raw.rest();
  EXPECT_THAT(last, HasSubstr("Connection: close"));
  EXPECT_THAT(last, HasSubstr("X-Extra: caf\xc3\xa9"));
  EXPECT_FALSE(raw.was_reset());
}

TEST_F(ServerTest, APipelinedRequestIsNotALeavingClient) {
  start();
  auto raw = connect();
  raw.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
  working_.get_future().get();
  raw.send("GET /echo HTTP/1.1\r\nHost: a\r\n\r\n");
  ASSERT_THAT(ask("GET /echo HTTP/1.1\r\nHost: a\r\n\r\n"), HasSubstr("200"));
  loop_.call([this] { release_.cancel(); });
  EXPECT_THAT(raw.answer(), HasSubstr("waited"));
  EXPECT_THAT(raw.answer(), HasSubstr("GET /echo"));
}

TEST_F(ServerTest, HeadGetsTheHeadAlone) {
  start();
  auto raw = connect();
  raw.send(
      "HEAD /echo HTTP/1.1\r\nHost: a\r\n\r\nHEAD /stream HTTP/1.1\r\nHost: a\r\n\r\nGET /no-content HTTP/1.1\r\nHost: a\r\nConnection: "
      "close\r\n\r\n");
  EXPECT_THAT(raw.until("\r\n\r\n"), HasSubstr("Content-Length: 21"));
  EXPECT_THAT(raw.until("\r\n\r\n"), HasSubstr("chunked"));
  const auto last = raw.rest();
  EXPECT_THAT(last, StartsWith("HTTP/1.1 204 No Content"));
  EXPECT_THAT(last, Not(HasSubstr("Content-Length")));
}

TEST_F(ServerTest, Http10GetsAPlainBodyAndAClose) {
  start();
  auto raw = connect();
  raw.send("GET /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
  const auto answer = raw.rest();
  EXPECT_THAT(answer, HasSubstr("Connection: close\r\n"));
  EXPECT_THAT(answer, Not(HasSubstr("chunked")));
  EXPECT_THAT(answer, testing::EndsWith("\r\n\r\nonetwenty bytes of data"));
}

TEST_F(ServerTest, SendsContinueOnlyWhenTheBodyIsAwaited) {
  start();
  auto raw = connect();
  raw.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_EQ(raw.until("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
  raw.send("hi");
  EXPECT_THAT(raw.answer(), HasSubstr("POST /echo 127.0.0.1 hi"));
  raw.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\nhi");
  EXPECT_THAT(raw.answer(), StartsWith("HTTP/1.1 200 OK"));
  EXPECT_THAT(ask("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: miracles\r\n\r\n"), StartsWith("HTTP/1.1 400"));
}

TEST_F(ServerTest, RefusesWhatTheGuardRefusesAndCloses) {
  start();
  for (const std::string bad :
       {"GET / HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\nHost: a\n\n", "GET / HTTP/3.0\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", "\x16\x03\x01\x02"}) {
    auto raw = connect();
    raw.send(bad);
    raw.half_close();
    const auto answer = raw.rest();
    EXPECT_THAT(answer, StartsWith("HTTP/1.1 400 Bad Request\r\n")) << bad;
    EXPECT_THAT(answer, HasSubstr("Connection: close\r\n"));
    EXPECT_THAT(answer, HasSubstr("\"type\":\"invalid_request_error\",\"param\":null,\"code\":\"invalid_request\"}}"));
    EXPECT_FALSE(raw.was_reset());
  }
}

TEST_F(ServerTest, RefusesMalformedChunks) {
  start();
  for (const std::string bad :
       {"zz\r\n", "5\nhello", "3\r\nabcd\r\n", "-1\r\n\r\n", "10000000000000000\r\n", "0\r\nContent-Length: 5\r\n\r\n"}) {
    EXPECT_THAT(ask("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + bad + "\r\n0\r\n\r\n"),
                testing::ContainsRegex("HTTP/1.1 4[01][03]"))
        << bad;
  }
  EXPECT_THAT(ask("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;" + std::string(100'000, 'x')),
              HasSubstr("HTTP/1.1 400"));
}

TEST_F(ServerTest, RefusesTooLargeMessagesBeforeReadingThem) {
  ServerLimits limits;
  limits.header_bytes = 1024;
  limits.body_bytes = 1000;
  start(limits);
  const std::string head = "POST /echo HTTP/1.1\r\nHost: a\r\n";
  EXPECT_THAT(ask(head + "X: " + std::string(2000, 'x') + "\r\n\r\n"), StartsWith("HTTP/1.1 431"));
  EXPECT_THAT(ask(head + "X: " + std::string(200'000, 'x')), StartsWith("HTTP/1.1 431"));
  EXPECT_THAT(ask(head + "Content-Length: 1001\r\nExpect: 100-continue\r\n\r\n"), StartsWith("HTTP/1.1 413"));
  EXPECT_THAT(ask(head + "Content-Length: 9000000000000000000\r\n\r\n"), HasSubstr("\"code\":\"payload_too_large\""));
  EXPECT_THAT(ask(head + "Transfer-Encoding: chunked\r\n\r\n3e8\r\n" + std::string(1000, 'x') + "\r\n1\r\n"), StartsWith("HTTP/1.1 413"));
  EXPECT_THAT(ask(head + "Content-Length: 1000\r\n\r\n" + std::string(1000, 'x')), StartsWith("HTTP/1.1 200"));
  const std::string exact = head + "X: " + std::string(1024 - head.size() - 7, 'x') + "\r\n\r\n";
  ASSERT_EQ(exact.size(), 1024u);
  EXPECT_THAT(ask(exact), StartsWith("HTTP/1.1 200"));
}

TEST_F(ServerTest, SlowClientsAreToldOrClosed) {
  ServerLimits limits;
  limits.header_timeout = limits.body_timeout = limits.idle_timeout = milliseconds(50);
  start(limits);
  EXPECT_THAT(ask("GET /echo HTTP/1.1\r\nHos"), HasSubstr("\"code\":\"request_timeout\""));
  EXPECT_THAT(ask("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab"), StartsWith("HTTP/1.1 408"));
  auto idle = connect();
  EXPECT_EQ(idle.rest(), "");
  auto kept = connect();
  kept.send("GET /echo HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_THAT(kept.answer(), StartsWith("HTTP/1.1 200"));
  EXPECT_EQ(kept.rest(), "");
}

TEST_F(ServerTest, ASlowReaderSuspendsTheWriter) {
  start();
  auto raw = Raw::tcp(server_->port(), 4096);
  raw.send("GET /flood HTTP/1.1\r\nHost: a\r\n\r\n");
  // What the kernel takes is all that is written; then the writer stands still while other clients are served.
  std::size_t before = 1;
  for (std::size_t now = 0; now != before || now == 0; now = flooded_) {
    before = flooded_;
    for (int i = 0; i < 20; ++i) ASSERT_THAT(ask("GET /echo HTTP/1.1\r\nHost: a\r\n\r\n"), HasSubstr("200 OK"));
  }
  EXPECT_LT(flooded_, flood_limit / 2);
  EXPECT_GT(raw.count_until("\r\n0\r\n\r\n"), flood_limit);
  EXPECT_TRUE(flood_ended_.get_future().get());
}

TEST_F(ServerTest, AReaderThatStopsForGoodIsGone) {
  ServerLimits limits;
  limits.write_timeout = milliseconds(50);
  start(limits);
  auto raw = Raw::tcp(server_->port(), 4096);
  raw.send("GET /flood HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_FALSE(flood_ended_.get_future().get());
}

TEST_F(ServerTest, TellsAWorkingHandlerThatItsClientLeft) {
  start();
  auto raw = connect();
  raw.send("GET /gone HTTP/1.1\r\nHost: a\r\n\r\n");
  working_.get_future().get();
  raw.close();
  EXPECT_EQ(gone_.get_future().get(), "client_gone");
  EXPECT_EQ(gone_calls_, 1);
}

TEST_F(ServerTest, TellsALateAskerToo) {
  start();
  auto raw = connect();
  raw.send("GET /late HTTP/1.1\r\nHost: a\r\n\r\n");
  raw.until("\r\n\r\n");
  raw.close();
  EXPECT_EQ(gone_.get_future().get(), "told");
}

TEST_F(ServerTest, AnAbortedAnswerHasNoProperEnd) {
  start();
  for (const std::string path : {"/abort", "/throw-late"}) {
    auto raw = connect();
    raw.send("GET " + path + " HTTP/1.1\r\nHost: a\r\n\r\n");
    EXPECT_THAT(raw.rest(), Not(HasSubstr("0\r\n\r\n")));
    EXPECT_TRUE(raw.was_reset()) << path;
  }
}

TEST_F(ServerTest, AFailingHandlerGivesA500AndTheServerGoesOn) {
  start();
  for (const std::string path : {"/throw", "/no-answer"}) {
    const auto answer = ask("GET " + path + " HTTP/1.1\r\nHost: a\r\n\r\n");
    EXPECT_THAT(answer, StartsWith("HTTP/1.1 500 Internal Server Error"));
    EXPECT_THAT(answer, HasSubstr("\"code\":\"internal\""));
    EXPECT_THAT(answer, Not(HasSubstr("secret")));
  }
  const auto answer = ask("GET /bad-header HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_THAT(answer, HasSubstr("refused"));
  EXPECT_THAT(answer, Not(HasSubstr("Set-Cookie")));
}

TEST_F(ServerTest, RefusesConnectionsPastTheCap) {
  ServerLimits limits;
  limits.connections = 1;
  start(limits);
  auto first = connect();
  first.send("GET /echo HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_THAT(first.answer(), StartsWith("HTTP/1.1 200"));
  const auto second = ask("GET /echo HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_THAT(second, StartsWith("HTTP/1.1 503"));
  EXPECT_THAT(second, HasSubstr("\"code\":\"unavailable\""));
  first.send("GET /echo HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_THAT(first.answer(), StartsWith("HTTP/1.1 200"));
}

TEST_F(ServerTest, GoesOnAfterFileDescriptorsRanOut) {
  start();
  const auto waiting = [] {
    const int fd = ::dup(0);
    ::close(fd);
    return fd;
  }();
  auto raw = connect();
  raw.send("GET /echo HTTP/1.1\r\nHost: a\r\n\r\n");
  raw.answer();
  // UBSan's first look at a vtable opens a pipe: it must not be the one below, when no descriptor is left.
  EXPECT_FALSE(boost::system::error_code(EMFILE, boost::system::system_category()).message().empty());
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  auto starved_fd = ::socket(AF_INET, SOCK_STREAM, 0);
  rlimit tight = before;
  tight.rlim_cur = static_cast<rlim_t>(waiting);
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &tight), 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(server_->port());
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(::connect(starved_fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  Raw starved(starved_fd);
  starved.send("GET /echo HTTP/1.1\r\nHost: a\r\n\r\n");
  raw.send("GET /echo HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_THAT(raw.answer(), HasSubstr("200 OK")) << "open connections are served meanwhile";
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_THAT(starved.answer(), HasSubstr("200 OK"));
}

TEST_F(ServerTest, DrainLetsRunningAnswersFinishAndClosesTheRest) {
  start();
  auto idle = connect();
  idle.send("GET /echo HTTP/1.1\r\nHost: a\r\n\r\n");
  idle.answer();
  auto busy = connect();
  busy.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
  working_.get_future().get();
  auto drained = loop_.start(server_->drain(std::chrono::minutes(1)));
  EXPECT_EQ(idle.rest(), "");
  loop_.call([this] { release_.cancel(); });
  const auto answer = busy.rest();
  EXPECT_THAT(answer, HasSubstr("Connection: close"));
  EXPECT_THAT(answer, HasSubstr("waited"));
  drained.get();
  EXPECT_EQ(loop_.call([this] { return server_->connections(); }), 0u);
}

TEST_F(ServerTest, DrainCutsWhatOutlastsTheGrace) {
  start();
  auto raw = connect();
  raw.send("GET /gone HTTP/1.1\r\nHost: a\r\n\r\n");
  working_.get_future().get();
  loop_.run(server_->drain(milliseconds(20)));
  EXPECT_EQ(raw.rest(), "");
  EXPECT_EQ(gone_.get_future().get(), "client_gone");
  EXPECT_EQ(gone_calls_, 1);
}

TEST_F(ServerTest, SaysThatThePortIsTaken) {
  start();
  const auto second = loop_.call([this] {
    return Server::listen(loop_.io, TcpEndpoint{"127.0.0.1", server_->port()}, {}, {},
                          [this](Exchange& exchange) { return handle(exchange); });
  });
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.error().code, ErrorCode::io);
  EXPECT_THAT(second.error().message, HasSubstr("port " + std::to_string(server_->port()) + " is already in use"));
}

TEST_F(ServerTest, ReplacesAStaleUnixSocketButNotALiveOneNorAFile) {
  const TempDir folder;
  const auto path = folder.file("s.sock");
  {
    const int stale = ::socket(AF_UNIX, SOCK_STREAM, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    ASSERT_EQ(::bind(stale, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    ::close(stale);
  }
  start({}, {}, UnixEndpoint{path});
  struct stat file{};
  ASSERT_EQ(::stat(path.c_str(), &file), 0);
  EXPECT_EQ(file.st_mode & 0777, 0600u);
  auto raw = Raw::local(path);
  raw.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx");
  EXPECT_THAT(raw.answer(), HasSubstr("POST /echo unix x"));

  const auto listen = [&](const std::string& where) {
    return loop_.call(
        [&] { return Server::listen(loop_.io, UnixEndpoint{where}, {}, {}, [this](Exchange& exchange) { return handle(exchange); }); });
  };
  const auto live = listen(path);
  ASSERT_FALSE(live.ok());
  EXPECT_THAT(live.error().message, HasSubstr("another program already listens"));
  const auto plain = folder.file("plain");
  std::ofstream(plain) << "precious";
  const auto taken = listen(plain);
  ASSERT_FALSE(taken.ok());
  EXPECT_THAT(taken.error().message, HasSubstr("not a socket"));
  EXPECT_TRUE(std::filesystem::exists(plain));
  const auto longer = listen(folder.file(std::string(200, 'x')));
  ASSERT_FALSE(longer.ok());
  EXPECT_THAT(longer.error().message, HasSubstr("107 bytes"));

  loop_.call([this] { server_.reset(); });
  EXPECT_FALSE(std::filesystem::exists(path)) << "the socket file goes with its server";
}

TEST_F(ServerTest, BadTlsFilesAreNamed) {
  const TempDir folder;
  const auto files = make_certificate(folder);
  const auto other = folder.file("other.pem");
  std::ofstream(other) << "not a key";
  const auto listen = [&](const TlsFiles& tls) {
    return loop_.call([&] {
      return Server::listen(loop_.io, TcpEndpoint{"127.0.0.1", 0}, {}, tls, [this](Exchange& exchange) { return handle(exchange); });
    });
  };
  const auto no_key = listen({files.certificate_file, other});
  ASSERT_FALSE(no_key.ok());
  EXPECT_THAT(no_key.error().message, HasSubstr(other));
  const auto no_certificate = listen({folder.file("missing.pem"), files.key_file});
  ASSERT_FALSE(no_certificate.ok());
  EXPECT_THAT(no_certificate.error().message, HasSubstr("missing.pem"));
  start();
}

}  // namespace
}  // namespace hearth::net
