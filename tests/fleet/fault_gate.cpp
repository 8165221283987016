// A gate as a program, for tests in other languages: prints "listens on PORT" and stands between its clients and a server until it is ended.
#include <signal.h>
#include <sys/prctl.h>

#include <CLI/CLI.hpp>
#include <boost/asio/signal_set.hpp>
#include <cstdio>
#include <string>

#include "fleet/gate.h"

using namespace hearth;

int main(int count, char** arguments) {
  CLI::App app("Stands between a client and a server and does to their bytes what networks do");
  std::string to;
  unsigned short port = 0;
  test::GatePlan plan;
  std::int64_t delay = 0;
  app.add_option("--to", to, "the server: 127.0.0.1:PORT or unix:PATH")->required();
  app.add_option("--port", port, "where to listen; 0 = a free port");
  app.add_option("--slice", plan.slice, "answers in pieces of 1 to this many bytes");
  app.add_option("--request-slice", plan.request_slice, "requests likewise");
  app.add_option("--seed", plan.seed, "of the pieces' sizes");
  app.add_option("--delay-us", delay, "microseconds before each piece of an answer");
  app.add_option("--reset-at", plan.reset_at, "reset each connection after this many bytes of answers");
  app.add_option("--truncate-at", plan.truncate_at, "end it properly");
  app.add_option("--stall-at", plan.stall_at, "say nothing any more");
  app.add_option("--content-length", plan.content_length, "added to the first Content-Length of a connection");
  CLI11_PARSE(app, count, arguments);
  plan.delay = std::chrono::microseconds(delay);

  prctl(PR_SET_PDEATHSIG, SIGKILL);
  signal(SIGPIPE, SIG_IGN);
  net::asio::io_context io(1);
  net::Endpoint server;
  if (to.starts_with("unix:")) {
    server = net::UnixEndpoint{to.substr(5)};
  } else {
    const auto colon = to.rfind(':');
    unsigned short number = 0;
    if (colon != std::string::npos) std::from_chars(to.data() + colon + 1, to.data() + to.size(), number);
    if (number == 0) {
      std::fprintf(stderr, "--to must be 127.0.0.1:PORT or unix:PATH, not \"%s\"\n", to.c_str());
      return 2;
    }
    server = net::TcpEndpoint{to.substr(0, colon), number};
  }
  const test::Gate gate(io, server, {plan}, port);
  std::printf("listens on %d\n", gate.port());
  std::fflush(stdout);
  net::asio::signal_set signals(io, SIGTERM, SIGINT);
  signals.async_wait([&io](const boost::system::error_code&, int) { io.stop(); });
  io.run();
  return 0;
}
