// A foreign server that behaves as its first argument says: what a Supervisor is given as a command line in the tests.
#include <signal.h>
#include <unistd.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>

#include "fleet/fake_engine.h"

using namespace hearth;

// MODE PORT MODEL FOLDER. Leaves its arguments and process id in FOLDER.
int main(int count, char** arguments) {
  if (count != 5) return 2;
  const std::string mode = arguments[1], model = arguments[3], folder = arguments[4];
  const auto port = static_cast<unsigned short>(std::stoi(arguments[2]));
  int starts = 0;
  std::ifstream(folder + "/starts") >> starts;
  std::ofstream(folder + "/starts") << ++starts;
  std::ofstream(folder + "/ports", std::ios::app) << port << "\n";
  std::ofstream(folder + "/model") << model;

  if (mode == "wrong_flag") {
    for (int line = 1; line <= 30; ++line) std::fprintf(stderr, "line %d\n", line);
    std::fprintf(stderr, "error: unknown argument: --frobnicate\n");
    return 1;
  }
  if (mode == "family") {
    // Something it started, in its group, that ignores requests to end.
    const pid_t child = fork();
    if (child == 0) {
      signal(SIGTERM, SIG_IGN);
      std::ofstream(folder + "/child") << getpid() << "\n";
      while (true) pause();
    }
  }
  for (int line = 0; line < 20'000; ++line) std::printf("a server that talks a lot, line %d\n", line);
  std::fflush(stdout);
  if (mode == "never") {
    while (true) pause();
  }

  net::asio::io_context io(1);
  test::FakeEngine engine(io);
  engine.frames = test::FakeEngine::hello();
  engine.model = model;
  engine.health_path = "/ok";
  engine.health_status = 503;
  net::asio::steady_timer loaded(io, std::chrono::milliseconds(50));
  loaded.async_wait([&](const boost::system::error_code&) { engine.health_status = 200; });
  // The first one falls ill when it is told to.
  net::asio::steady_timer look(io);
  std::function<void()> fall_ill = [&] {
    if (std::filesystem::exists(folder + "/fall_ill")) engine.health_status = 500;
    look.expires_after(std::chrono::milliseconds(10));
    look.async_wait([&](const boost::system::error_code&) { fall_ill(); });
  };
  if (mode == "sick" && starts == 1) fall_ill();
  const auto server = engine.serve(net::TcpEndpoint{"127.0.0.1", port});
  if (!server) return 5;
  net::asio::signal_set signals(io, SIGTERM);
  signals.async_wait([&io](const boost::system::error_code&, int) { io.stop(); });
  io.run();
  return 0;
}
