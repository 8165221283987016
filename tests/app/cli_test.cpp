// Runs the real program: exit codes, messages, help, suggestions.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <thread>

#include "base/json.h"
#include "store/audit_log.h"

namespace hearth::app {
namespace {

namespace fs = std::filesystem;

struct Outcome {
  int exit_code = -1;
  std::string out, err;
};

class Cli : public testing::Test {
 protected:
  Cli() {
    std::string pattern = (fs::temp_directory_path() / "hearth-cli-XXXXXX").string();
    home_ = mkdtemp(pattern.data());
  }
  ~Cli() override { fs::remove_all(home_); }

  // Runs to the end with an environment that holds only what is given here.
  Outcome run(std::vector<std::string> arguments, std::vector<std::string> variables = {}, const std::string& input = {}) const {
    arguments.insert(arguments.begin(), HEARTH_PROGRAM);
    variables.push_back("HOME=" + home_.string());
    variables.emplace_back("PATH=/usr/bin:/bin");
    const auto pointers = [](std::vector<std::string>& texts) {
      std::vector<char*> out;
      for (auto& text : texts) out.push_back(text.data());
      out.push_back(nullptr);
      return out;
    };
    const std::string in = (home_ / "in").string(), out = (home_ / "out").string(), err = (home_ / "err").string();
    std::ofstream(in) << input;
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, in.c_str(), O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, 1, out.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    posix_spawn_file_actions_addopen(&actions, 2, err.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    pid_t pid = 0;
    EXPECT_EQ(posix_spawn(&pid, HEARTH_PROGRAM, &actions, nullptr, pointers(arguments).data(), pointers(variables).data()), 0);
    posix_spawn_file_actions_destroy(&actions);
    int status = 0;
    waitpid(pid, &status, 0);
    return {WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), read(out), read(err)};
  }
  static std::string read(const fs::path& path) {
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  std::string write(const std::string& name, std::string_view bytes) const {
    std::ofstream(home_ / name, std::ios::binary) << bytes;
    return (home_ / name).string();
  }
  static std::string nano() { return HEARTH_SOURCE_DIR "/assets/hearth-nano-0-f16.gguf"; }
  fs::path home_;
};

#define EXPECT_HAS(text, part) EXPECT_NE((text).find(part), std::string::npos) << text

TEST_F(Cli, HelpOfEveryCommandHasExamples) {
  for (const std::vector<std::string>& command : std::vector<std::vector<std::string>>{{},
                                                                                       {"serve"},
                                                                                       {"worker"},
                                                                                       {"chat"},
                                                                                       {"ps"},
                                                                                       {"load"},
                                                                                       {"unload"},
                                                                                       {"models"},
                                                                                       {"models", "list"},
                                                                                       {"models", "inspect"},
                                                                                       {"models", "verify"},
                                                                                       {"policy"},
                                                                                       {"policy", "check"},
                                                                                       {"policy", "test"},
                                                                                       {"policy", "explain"},
                                                                                       {"policy", "show"},
                                                                                       {"doctor"},
                                                                                       {"version"},
                                                                                       {"completion"}}) {
    auto arguments = command;
    arguments.emplace_back("--help");
    const auto done = run(arguments);
    EXPECT_EQ(done.exit_code, 0) << testing::PrintToString(command);
    EXPECT_HAS(done.out, "Example");
    EXPECT_HAS(done.out, "hearth " + (command.empty() ? "serve" : command[0]));
    EXPECT_EQ(done.err, "");
  }
}

TEST_F(Cli, MisspeltCommandsAndFlagsAreSuggested) {
  auto done = run({"sevre"});
  EXPECT_EQ(done.exit_code, 2);
  EXPECT_HAS(done.err, "\"sevre\" is not a command. Did you mean `hearth serve`?");
  done = run({"frobnicate"});
  EXPECT_EQ(done.exit_code, 2);
  EXPECT_EQ(done.err.find("Did you mean"), std::string::npos);
  done = run({"serve", "--prot", "80"});
  EXPECT_EQ(done.exit_code, 2);
  EXPECT_HAS(done.err, "\"--prot\" is not a flag of this command; did you mean --port?");
  EXPECT_HAS(done.err, "hearth serve --help");
  done = run({});
  EXPECT_EQ(done.exit_code, 2);
  done = run({"chat", "--temperature", "9"});
  EXPECT_EQ(done.exit_code, 2);
  EXPECT_HAS(done.err, "--temperature");
}

TEST_F(Cli, Version) {
  const auto done = run({"version"});
  EXPECT_EQ(done.exit_code, 0);
  for (const char* part : {"hearth     ", "llama.cpp  ", "compiler   ", "build      "}) EXPECT_HAS(done.out, part);
  EXPECT_HAS(run({"--version"}).out, "hearth ");
}

TEST_F(Cli, CompletionScriptsAreValidAndComplete) {
  for (const char* shell : {"bash", "zsh", "fish"}) {
    const auto done = run({"completion", shell});
    EXPECT_EQ(done.exit_code, 0) << done.err;
    for (const char* word : {"serve", "inspect", "kv-type", "api-key-file", "unload", "keep", "models-folder"}) EXPECT_HAS(done.out, word);
  }
  const std::string script = write("completion.bash", run({"completion", "bash"}).out);
  const std::string check = "bash -n " + script + " && bash -c 'source " + script +
                            "; COMP_WORDS=(hearth models ins); COMP_CWORD=2; _hearth; [[ ${COMPREPLY[*]} == inspect ]] && "
                            "COMP_WORDS=(hearth serve --kv); COMP_CWORD=2; _hearth; [[ ${COMPREPLY[*]} == --kv-type ]]'";
  EXPECT_EQ(std::system(check.c_str()), 0);
  const auto wrong = run({"completion", "tcsh"});
  EXPECT_EQ(wrong.exit_code, 2);
}

TEST_F(Cli, ModelsInspect) {
  auto done = run({"models", "inspect", nano()});
  EXPECT_EQ(done.exit_code, 0) << done.err;
  for (const char* part : {"llama", "F16", "2048 tokens", "CC-BY-4.0", "3.48 M", "2.00 KiB", "chat, tool calls in the hermes format"})
    EXPECT_HAS(done.out, part);
  done = run({"models", "inspect", "embedded:", "--json", "--context", "1024"});
  EXPECT_EQ(done.exit_code, 0) << done.err;
  const auto parsed = parse_json(done.out.substr(0, done.out.find('\n')));
  ASSERT_TRUE(parsed.ok()) << done.out;
  EXPECT_EQ(parsed->at("parameters").as_int64(), 3'475'712);
  EXPECT_EQ(parsed->at("memory").at(0).at("kv").as_int64(), 2048 * 1024);
  EXPECT_EQ(parsed->at("kv_bytes_per_token").at("f16").as_int64(), 2048);
}

TEST_F(Cli, ModelsVerify) {
  EXPECT_HAS(run({"models", "verify", nano()}).out, "is whole");
  const std::string sum = "cf7015e7e56b780f83d6fa572990b12f8f2d84bf18b549467061adb88210e8f4";
  auto done = run({"models", "verify", nano(), "--sha256", sum});
  EXPECT_EQ(done.exit_code, 0);
  EXPECT_HAS(done.out, "its sha256 matches");
  done = run({"models", "verify", nano(), "--sha256", std::string(64, '0')});
  EXPECT_EQ(done.exit_code, 1);
  EXPECT_HAS(done.err, "expected 0000");
  const std::string cut = write("cut.gguf", read(nano()).substr(0, 1'000'000));
  done = run({"models", "verify", cut});
  EXPECT_EQ(done.exit_code, 1);
  EXPECT_HAS(done.err, "7017536 bytes expected, 1000000 are there");
  done = run({"models", "verify", cut, "--json"});
  EXPECT_EQ(done.exit_code, 1);
  EXPECT_HAS(done.out, "\"ok\":false");
}

TEST_F(Cli, ModelsListShowsTheBrokenToo) {
  fs::create_directories(home_ / "models/deep");
  fs::copy(nano(), home_ / "models/deep/a.gguf");
  write("models/b.gguf", "<html>");
  const auto done = run({"models", "list", (home_ / "models").string()});
  EXPECT_EQ(done.exit_code, 0);
  EXPECT_HAS(done.out, "deep/a.gguf");
  EXPECT_HAS(done.out, "HTML page");
  EXPECT_HAS(run({"models", "list"}).out, "embedded:");
  EXPECT_EQ(run({"models", "list", "/nonexistent"}).exit_code, 1);
}

TEST_F(Cli, ServeRefusesABrokenModelUpFront) {
  const auto serve = [&](const std::string& model) { return run({"serve", "--port", "0", "--model", model}); };
  for (const auto& [model, expected] : std::vector<std::pair<std::string, std::string>>{
           {home_.string() + "/none.gguf", "there is no such file"},
           {home_.string(), "is a folder"},
           {write("cut.gguf", read(nano()).substr(0, 100'000)), "truncated"},
           {write("page.gguf", "<!doctype html><html>"), "HTML page"},
           {write("v9.gguf", std::string("GGUF\x09\0\0\0", 8) + std::string(64, '\0')), "version 9"},
       }) {
    const auto done = serve(model);
    EXPECT_EQ(done.exit_code, 1);
    EXPECT_HAS(done.err, expected);
    EXPECT_HAS(done.err, "the model cannot be served");
  }
}

TEST_F(Cli, ServeSaysWhenItsStateFolderCannotBeWritten) {
  const std::string file = write("file", "");
  const auto done = run({"serve", "--port", "0", "--state-folder", file + "/below"});
  EXPECT_EQ(done.exit_code, 1);
  EXPECT_HAS(done.err, "cannot be written to");
  EXPECT_HAS(done.err, "--state-folder");
}

TEST_F(Cli, ServeRefusesToListenWiderWithoutAKey) {
  const auto done = run({"serve", "--host", "0.0.0.0", "--port", "0"});
  EXPECT_EQ(done.exit_code, 1);
  EXPECT_HAS(done.err, "HEARTH_API_KEY");
}

// A listener of our own on a free port, to be in the way.
class Occupied {
 public:
  Occupied() : fd_(socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(bind(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    EXPECT_EQ(listen(fd_, 1), 0);
    socklen_t size = sizeof address;
    getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
  }
  ~Occupied() { close(fd_); }
  std::string port() const { return std::to_string(port_); }
  int fd() const { return fd_; }

 private:
  int fd_;
  int port_ = 0;
};

TEST_F(Cli, ServeSaysWhenThePortIsTaken) {
  const Occupied occupied;
  const auto done = run({"serve", "--port", occupied.port()});
  EXPECT_EQ(done.exit_code, 1);
  EXPECT_HAS(done.err, "in use");
  EXPECT_HAS(done.err, "--port");
}

TEST_F(Cli, PrintConfigShowsOriginsAndMasksKeys) {
  const std::string file = write("hearth.toml", "[listen]\nport = 9100\n");
  const auto done =
      run({"serve", "--config", file, "--context", "512", "--print-config"}, {"HEARTH_API_KEY=do-not-show-this-key", "HEARTH_THREADS=3"});
  EXPECT_EQ(done.exit_code, 0) << done.err;
  EXPECT_HAS(done.out, "port = 9100");
  EXPECT_HAS(done.out, file + ":2");
  EXPECT_HAS(done.out, "# --context");
  EXPECT_HAS(done.out, "# HEARTH_THREADS");
  EXPECT_EQ(done.out.find("do-not-show"), std::string::npos);
}

TEST_F(Cli, ConfigFaultsComeWithTheirPlace) {
  const std::string file = write("hearth.toml", "[listen]\nprot = 9100\n");
  const auto done = run({"serve", "--config", file});
  EXPECT_EQ(done.exit_code, 1);
  EXPECT_HAS(done.err, file + ":2:1: \"listen.prot\" is not a setting; did you mean \"listen.port\"?");
  fs::create_directories(home_ / ".config/hearth");
  fs::rename(file, home_ / ".config/hearth/hearth.toml");
  EXPECT_HAS(run({"serve"}).err, ".config/hearth/hearth.toml:2:1");
}

TEST_F(Cli, DoctorChecksTheMachine) {
  auto done = run({"doctor", "--config", "none", "--port", "0"});
  for (const char* part : {"cpu", "gpu", "memory", "model", "port", "config"}) EXPECT_HAS(done.out, part);
  EXPECT_EQ(done.exit_code, 0) << done.out;
  const Occupied occupied;
  done = run({"doctor", "--config", "none", "--json", "--port", occupied.port()});
  EXPECT_EQ(done.exit_code, 1);
  const auto parsed = parse_json(done.out.substr(0, done.out.find('\n')));
  ASSERT_TRUE(parsed.ok()) << done.out;
  EXPECT_FALSE(parsed->at("ok").as_bool());
  EXPECT_HAS(done.out, "is in use");
  done = run({"doctor", "--config", "none", "--port", "0", "--model", "/none.gguf"});
  EXPECT_EQ(done.exit_code, 1);
  EXPECT_HAS(done.out, "there is no such file");
  done = run({"doctor", "--config", "none", "--port", "0", "--context", "200000000"});
  EXPECT_EQ(done.exit_code, 1);
  EXPECT_HAS(done.out, "does not fit: --context");
}

TEST_F(Cli, DoctorSaysWhichModelsFitTogether) {
  fs::copy(nano(), home_ / "a.gguf");
  const auto doctor = [&](const std::string& toml) { return run({"doctor", "--config", write("hearth.toml", toml), "--port", "0"}); };
  const std::string two = "[models.one]\npath = \"a.gguf\"\n[models.two]\npath = \"a.gguf\"\n";
  auto done = doctor(two);
  EXPECT_EQ(done.exit_code, 0) << done.out;
  EXPECT_HAS(done.out, "one (llama, F16): about");
  EXPECT_HAS(done.out, "two (llama, F16): about");
  EXPECT_HAS(done.out, "all models fit side by side");
  done = doctor("[fleet]\nmemory = \"80MiB\"\n" + two);
  EXPECT_EQ(done.exit_code, 0) << done.out;
  EXPECT_HAS(done.out, "one fit side by side in 80.0 MiB; two would take turns");
  done = doctor(
      "[fleet]\nmemory = \"80MiB\"\n[models.one]\npath = \"a.gguf\"\npinned = true\n[models.two]\npath = \"a.gguf\"\npinned = true\n");
  EXPECT_EQ(done.exit_code, 1);
  EXPECT_HAS(done.out, "the pinned models take about");
  done = doctor("[models.one]\npath = \"none.gguf\"\n");
  EXPECT_EQ(done.exit_code, 1);
  EXPECT_HAS(done.out, "none.gguf");
  done = doctor("[models.far]\nkind = \"openai\"\nurl = \"https://a.example/api/v1\"\n");
  EXPECT_EQ(done.exit_code, 0) << done.out;
  EXPECT_HAS(done.out, "far: served by https://a.example:443/api (not asked)");
}

TEST_F(Cli, ModelsListShowsWhatIsConfigured) {
  fs::copy(nano(), home_ / "a.gguf");
  fs::create_directories(home_ / "m");
  fs::copy(nano(), home_ / "m/b.gguf");
  const std::string file = write("hearth.toml", "[fleet]\nfolder = \"m\"\n[models.one]\npath = \"a.gguf\"\n");
  const auto done = run({"models", "list"}, {"HEARTH_CONFIG=" + file});
  EXPECT_EQ(done.exit_code, 0);
  EXPECT_HAS(done.out, (home_ / "a.gguf").string());
  EXPECT_HAS(done.out, (home_ / "m/b.gguf").string());
}

TEST_F(Cli, ServeRefusesTwoModelsOfOneName) {
  fs::copy(nano(), home_ / "a.gguf");
  const std::string file = write("hearth.toml", "[models.one]\npath = \"a.gguf\"\n[models.two]\npath = \"a.gguf\"\naliases = [\"one\"]\n");
  const auto done = run({"serve", "--port", "0", "--config", file});
  EXPECT_EQ(done.exit_code, 1);
  EXPECT_HAS(done.err, "two models are called \"one\": " + file + ":1 and " + file + ":3 (an alias of \"two\")");
}

// `hearth serve` as a child on a free port, with two models and `more`.
class Served {
 public:
  explicit Served(const fs::path& home, const std::string& more = {}) {
    std::ofstream(home / "served.toml")
        << "[models.one]\npath = \"embedded:\"\naliases = [\"uno\"]\n[models.\"org/two\"]\npath = \"embedded:\"\n"
           "[models.far]\nkind = \"openai\"\nurl = \"http://127.0.0.1:1\"\n"
        << more;
    const std::string config = (home / "served.toml").string(), state = (home / "state").string();
    int ends[2];
    EXPECT_EQ(pipe(ends), 0);
    pid_ = fork();
    if (pid_ == 0) {
      dup2(ends[1], 1);
      close(ends[0]);
      execl(HEARTH_PROGRAM, HEARTH_PROGRAM, "serve", "--config", config.c_str(), "--port", "0", "--threads", "1", "--log-level", "warn",
            "--state-folder", state.c_str(), static_cast<char*>(nullptr));
      _exit(127);
    }
    close(ends[1]);
    std::string line;
    for (char c = 0; ::read(ends[0], &c, 1) == 1 && c != '\n';) line += c;
    output_ = ends[0];
    const auto at = line.find("http");
    EXPECT_NE(at, std::string::npos) << line;
    if (at != std::string::npos) url_ = line.substr(at);
  }
  ~Served() {
    kill(pid_, SIGTERM);
    waitpid(pid_, nullptr, 0);
    close(output_);
  }
  const std::string& url() const { return url_; }

 private:
  pid_t pid_ = 0;
  int output_ = -1;
  std::string url_;
};

TEST_F(Cli, PsLoadAndUnloadAskARunningServer) {
  const Served served(home_);
  const std::vector<std::string> variables{"HEARTH_URL=" + served.url()};
  auto done = run({"ps"}, variables);
  EXPECT_EQ(done.exit_code, 0) << done.err;
  EXPECT_HAS(done.out, "MODEL");
  EXPECT_HAS(done.out, "org/two  absent");
  EXPECT_HAS(done.out, "far      ready   openai");
  EXPECT_HAS(done.out, "MiB)") << "expected memory";
  done = run({"load", "org/two", "--keep", "10m"}, variables);
  EXPECT_EQ(done.exit_code, 0) << done.err;
  EXPECT_HAS(done.out, "org/two is loaded on cpu: ");
  EXPECT_EQ(done.err, "") << "no spinner without a terminal";
  done = run({"ps", "--url", served.url()});
  EXPECT_HAS(done.out, "org/two  ready   cpu");
  EXPECT_HAS(done.out, "unloads in ");
  done = run({"load", "uno", "--json"}, variables);
  const auto loaded = parse_json(done.out.substr(0, done.out.find('\n')));
  ASSERT_TRUE(loaded.ok()) << done.out;
  EXPECT_EQ(loaded->at("id").as_string(), "one");
  EXPECT_EQ(loaded->at("state").as_string(), "ready");
  done = run({"unload", "org/two"}, variables);
  EXPECT_EQ(done.out, "org/two is unloaded\n");
  done = run({"ps", "--json"}, variables);
  const auto listed = parse_json(done.out.substr(0, done.out.find('\n')));
  ASSERT_TRUE(listed.ok()) << done.out;
  EXPECT_EQ(listed->at("models").at(0).at("state").as_string(), "ready");
  EXPECT_EQ(listed->at("models").at(1).at("state").as_string(), "absent");

  done = run({"load", "three"}, variables);
  EXPECT_EQ(done.exit_code, 1);
  EXPECT_HAS(done.err, "there is: one, org/two, far");
  EXPECT_HAS(done.err, "hearth ps");
  done = run({"load", "one", "--keep", "soon"}, variables);
  EXPECT_EQ(done.exit_code, 1);
  EXPECT_HAS(done.err, "--keep must be a duration");
  done = run({"unload", "far"}, variables);
  EXPECT_EQ(done.exit_code, 1);
  EXPECT_HAS(done.err, "served elsewhere");
}

TEST_F(Cli, AModelThatACacheCannotBeCompressedForIsRefusedByName) {
  const std::string file = (home_ / "latent.gguf").string();
  const std::string make = std::string("'") + HEARTH_MAKE_MODEL + "' --arch deepseek2 --width 128 --heads 4 --kv-heads 1 --vocab '" +
                           nano() + "' '" + file + "'";
  ASSERT_EQ(std::system(make.c_str()), 0) << make;
  const Served served(home_, "[models.latent]\npath = \"" + file + "\"\nkv_type = \"k8v4\"\n[models.plain]\npath = \"" + file + "\"\n");
  const std::vector<std::string> variables{"HEARTH_URL=" + served.url()};
  auto done = run({"load", "latent"}, variables);
  EXPECT_EQ(done.exit_code, 1);
  EXPECT_HAS(done.err, "latent attention");
  EXPECT_HAS(done.err, "cache_k_l0");
  EXPECT_HAS(done.err, "another kv_type");
  done = run({"load", "plain"}, variables);
  EXPECT_EQ(done.exit_code, 0) << done.err;
}

TEST_F(Cli, PsSaysWhenNoServerRuns) {
  auto done = run({"ps", "--url", "http://127.0.0.1:1"});
  EXPECT_EQ(done.exit_code, 1);
  EXPECT_HAS(done.err, "No server runs at http://127.0.0.1:1. Start one with: hearth serve");
  EXPECT_EQ(run({"load"}).exit_code, 2);
  EXPECT_HAS(run({"ps", "--url", "localhost"}).err, "is not an address");
  EXPECT_HAS(run({"ps", "--api-key-file", "/nonexistent"}).err, "cannot be read");
}

TEST_F(Cli, WorkerListsDevices) {
  const auto done = run({"worker", "--list-devices"});
  EXPECT_EQ(done.exit_code, 0) << done.err;
  const auto devices = parse_json(done.out.substr(0, done.out.find('\n')));
  ASSERT_TRUE(devices.ok()) << done.out;
  ASSERT_TRUE(devices->is_array() && !devices->get_array().empty());
  EXPECT_TRUE(devices->at(0).at("gpu").is_bool());
  EXPECT_GT(devices->at(0).at("memory_total").to_number<std::int64_t>(), 0);
}

TEST_F(Cli, WorkerNeedsASocket) {
  const auto done = run({"worker"});
  EXPECT_EQ(done.exit_code, 2);
  EXPECT_HAS(done.err, "--socket");
}

TEST_F(Cli, ChatStartsAServerOfItsOwn) {
  // Compute threads that spin for each other are slow on a machine where other tests run.
  const std::vector<std::string> one_thread{"HEARTH_THREADS=1"};
  auto done = run({"chat", "--model", nano(), "--once", "list files", "--temperature", "0", "--max-tokens", "8"}, one_thread);
  EXPECT_EQ(done.exit_code, 0) << done.err;
  EXPECT_GT(done.out.size(), 1u);
  EXPECT_HAS(done.err, "tokens/s");
  const std::string first = done.out;
  done = run({"chat", "--model", nano(), "--temperature", "0", "--max-tokens", "8"}, one_thread, "list files");
  EXPECT_EQ(done.exit_code, 0) << done.err;
  EXPECT_EQ(done.out, first) << "piped and --once ask alike";
}

// A server whose answer begins and never ends.
class EndlessServer {
 public:
  EndlessServer() : thread_([this] { serve(); }) {}
  ~EndlessServer() {
    stop_ = true;
    thread_.join();
  }
  std::string url() const { return "http://127.0.0.1:" + listener_.port(); }
  int requests() const { return requests_; }

 private:
  void serve() {
    std::vector<int> open;
    while (!stop_) {
      pollfd waiting{listener_.fd(), POLLIN, 0};
      if (poll(&waiting, 1, 20) != 1) continue;
      const int client = accept(listener_.fd(), nullptr, nullptr);
      open.push_back(client);
      std::string request;
      for (std::array<char, 4096> part{}; request.find("\r\n\r\n{") == std::string::npos;) {
        const ssize_t got = ::read(client, part.data(), part.size());
        if (got <= 0) break;
        request.append(part.data(), static_cast<std::size_t>(got));
      }
      const std::string event =
          "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"answer" + std::to_string(++requests_) + "\"}}]}\n\n";
      const std::string answer = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 100000\r\n\r\n" + event;
      EXPECT_EQ(::write(client, answer.data(), answer.size()), static_cast<ssize_t>(answer.size()));
    }
    for (const int client : open) close(client);
  }
  Occupied listener_;
  std::atomic<bool> stop_{false};
  std::atomic<int> requests_{0};
  std::thread thread_;
};

TEST_F(Cli, CtrlCStopsTheAnswerAndNotTheChat) {
  const EndlessServer server;
  const std::string url = server.url();
  int terminal = -1;
  const pid_t pid = forkpty(&terminal, nullptr, nullptr, nullptr);
  ASSERT_GE(pid, 0);
  if (pid == 0) {
    execl(HEARTH_PROGRAM, HEARTH_PROGRAM, "chat", "--url", url.c_str(), static_cast<char*>(nullptr));
    _exit(127);
  }
  std::string seen;
  std::size_t from = 0;  // after the text last waited for: output may come in any pieces
  // Reads until `text` has come; false at the end of the program or after 20 s.
  const auto wait_for = [&](const std::string& text, int polls = 1000) {
    for (int i = 0; i < polls && seen.find(text, from) == std::string::npos; ++i) {
      pollfd waiting{terminal, POLLIN, 0};
      if (poll(&waiting, 1, 20) != 1) continue;
      std::array<char, 1024> part{};
      const ssize_t got = ::read(terminal, part.data(), part.size());
      if (got <= 0) return false;
      seen.append(part.data(), static_cast<std::size_t>(got));
    }
    const std::size_t at = seen.find(text, from);
    if (at == std::string::npos) return false;
    from = at + text.size();
    return true;
  };
  const auto type = [&](std::string_view text) {
    EXPECT_EQ(::write(terminal, text.data(), text.size()), static_cast<ssize_t>(text.size()));
  };
  EXPECT_TRUE(wait_for("> ")) << seen;
  type("hello\n");
  EXPECT_TRUE(wait_for("answer1")) << seen;
  type("\x03");
  EXPECT_TRUE(wait_for("stopped")) << seen;
  // At the prompt: a hint. A key pressed before the program reads again is lost, as for anybody.
  bool hinted = false;
  for (int presses = 0; presses < 50 && !hinted; ++presses) {
    type("\x03");
    hinted = wait_for("Ctrl-D leaves", 20);
  }
  EXPECT_TRUE(hinted) << seen;
  type("again\n");
  EXPECT_TRUE(wait_for("answer2")) << seen;
  type("\x03");
  EXPECT_TRUE(wait_for("stopped")) << seen;
  type("\x04");
  while (wait_for("never printed")) {}
  int status = 0;
  waitpid(pid, &status, 0);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status << seen;
  close(terminal);
}

TEST_F(Cli, ChatSaysWhatItCannotDo) {
  auto done = run({"chat", "--url", "localhost:8085", "--once", "x"});
  EXPECT_EQ(done.exit_code, 1);
  EXPECT_HAS(done.err, "is not an address");
  done = run({"chat", "--url", "http://127.0.0.1:1", "--once", "x"});
  EXPECT_EQ(done.exit_code, 1);
  EXPECT_HAS(done.err, "127.0.0.1:1");
  done = run({"chat", "--url", "http://127.0.0.1:1"}, {}, "  \n");
  EXPECT_EQ(done.exit_code, 1);
  EXPECT_HAS(done.err, "standard input holds no question");
}

TEST_F(Cli, PolicyIsCheckedWithThePlaceOfItsMistake) {
  const auto good = write("good.hearth", "include shipped\nDENY no-cat\n  when program \"cat\"\n  reason \"no\"\n  match \"cat x\"\n");
  auto done = run({"policy", "check", good});
  EXPECT_EQ(done.exit_code, 0) << done.err;
  EXPECT_HAS(done.out, "1 rule and 51 shipped ones, no mistakes");
  const auto bad = write("bad.hearth", "DENY no-cat\n  when progam \"cat\"\n  reason \"no\"\n");
  done = run({"policy", "check", bad});
  EXPECT_EQ(done.exit_code, 1);
  EXPECT_HAS(done.err, "hearth: " + bad + ":2:8: \"progam\" is no condition and was not defined above; did you mean \"program\"?");
  EXPECT_EQ(run({"policy", "check", (home_ / "none").string()}).exit_code, 1);
  EXPECT_EQ(run({"policy", "check"}).exit_code, 2);
  EXPECT_EQ(run({"policy"}).exit_code, 2);
  done = run({"policy", "show"});
  EXPECT_EQ(done.exit_code, 0);
  EXPECT_EQ(done.out, read(HEARTH_SOURCE_DIR "/assets/policy.hearth"));
}

TEST_F(Cli, PolicyTestListsEveryExampleAndCaseThatFails) {
  const auto policy = write(
      "p.hearth", "DENY no-cat\n  when program \"cat\"\n  reason \"no\"\n  match \"ls\"\n  not_match \"cat x\"\n  match \"cat x y\"\n");
  const auto cases = write("c.cases", "expect blocked \"cat x\"\nexpect released \"cat y\"\n");
  auto done = run({"policy", "test", policy, "--cases", cases});
  EXPECT_EQ(done.exit_code, 1);
  EXPECT_HAS(done.out, ":4: no-cat: match \"ls\"");
  EXPECT_HAS(done.out, ":5: no-cat: not_match \"cat x\"");
  EXPECT_HAS(done.out, cases + ":2: expect released \"cat y\"");
  EXPECT_HAS(done.out, "1 of 3 examples hold, 1 of 2 cases pass");
  done = run({"policy", "test"});
  EXPECT_EQ(done.exit_code, 0) << done.out;
}

TEST_F(Cli, PolicyExplainsACallFromArgumentsAndFromStandardInput) {
  auto done = run({"policy", "explain", "ls && rm -rf /"});
  EXPECT_EQ(done.exit_code, 1);
  EXPECT_HAS(done.out, "DENY by the gate of filesystem_destruction");
  EXPECT_HAS(done.out, "\n  ls && rm -rf /\n        ^^^^^^^^\n");
  EXPECT_HAS(done.out, "wipe-everything");
  done = run({"policy", "explain", "ls -la"});
  EXPECT_EQ(done.exit_code, 0) << done.out;
  EXPECT_HAS(done.out, "ALLOW: no rule and no gate objects");
  done = run({"policy", "explain", "--json"}, {}, R"({"function": {"name": "Read", "arguments": "{\"path\": \"~/.ssh/id_rsa\"}"}})");
  EXPECT_EQ(done.exit_code, 1);
  const auto parsed = parse_json(done.out);
  ASSERT_TRUE(parsed.ok()) << done.out;
  EXPECT_EQ(parsed->at("decision").as_string(), "DENY");
  EXPECT_EQ(parsed->at("effects").at(0).at("effect").as_string(), "credential_access");
  EXPECT_EQ(run({"policy", "explain", "--tool", "Write", R"({"file_path": "~/.bashrc", "content": "x"})"}).exit_code, 1);
  done = run({"policy", "explain"}, {}, "ls");
  EXPECT_EQ(done.exit_code, 1);
}

TEST_F(Cli, TheAuditLogIsListedByTimeAndVerdictAndProvesItselfWhole) {
  const std::string folder = (home_ / "state").string();
  fs::create_directories(folder);
  {
    auto log = store::AuditLog::open(folder);
    ASSERT_TRUE(log.ok()) << log.error().message;
    for (const char* decision : {"ALLOW", "DENY", "REQUIRE"}) {
      const auto row = (*log)->append({{"event", "call"},
                                       {"decision", decision},
                                       {"outcome", std::string_view(decision) == "ALLOW" ? "released" : "refused"},
                                       {"tool", "bash"},
                                       {"tenant", "local"},
                                       {"rule", "a-rule"},
                                       {"reason", "because"}});
      ASSERT_TRUE(row.ok());
    }
  }
  const auto list = [&](std::vector<std::string> more) {
    std::vector<std::string> arguments{"audit", "list", "--state-folder", folder};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run(arguments);
  };
  const auto all = list({});
  EXPECT_EQ(all.exit_code, 0) << all.err;
  for (const char* word : {"ALLOW", "DENY", "REQUIRE", "a-rule", "because"}) EXPECT_HAS(all.out, word);
  const auto denied = list({"--decision", "deny", "--json"});
  EXPECT_EQ(std::count(denied.out.begin(), denied.out.end(), '\n'), 1) << denied.out;
  EXPECT_HAS(denied.out, R"("decision":"DENY")");
  EXPECT_HAS(list({"--until", "2020-01-31"}).out, "No row fits");
  EXPECT_HAS(list({"--since", "2020-01-31T08:00Z"}).out, "REQUIRE");
  for (const char* wrong : {"yesterday", "31.01.2026", "2026-1-3", "2026-01-31 08:00"}) {
    const auto outcome = list({"--since", wrong});
    EXPECT_EQ(outcome.exit_code, 2) << wrong;
    EXPECT_HAS(outcome.err, "like 2026-01-31 or 2026-01-31T08:00");
  }
  const auto misspelt = list({"--decision", "FORBID"});
  EXPECT_EQ(misspelt.exit_code, 2);
  EXPECT_HAS(misspelt.err, "REQUIRE");

  const auto row = run({"audit", "show", "2", "--state-folder", folder});
  EXPECT_EQ(row.exit_code, 0) << row.err;
  EXPECT_HAS(row.out, "DENY");
  EXPECT_NE(run({"audit", "show", "9", "--state-folder", folder}).exit_code, 0);

  const auto whole = run({"audit", "verify", "--state-folder", folder});
  EXPECT_EQ(whole.exit_code, 0) << whole.err;
  EXPECT_HAS(whole.out, "3 rows, whole");
  const std::string path = store::AuditLog::path_in(folder);
  std::string text = read(path);
  text.replace(text.find("DENY"), 4, "DENX");
  std::ofstream(path) << text;
  const auto changed = run({"audit", "verify", "--file", path});
  EXPECT_EQ(changed.exit_code, 1) << changed.out;
  EXPECT_HAS(changed.out, "row 2 does not fit");
  const auto none = run({"audit", "verify", "--file", (home_ / "none.jsonl").string()});
  EXPECT_NE(none.exit_code, 0);
  EXPECT_HAS(none.err, "none.jsonl");
}

TEST_F(Cli, ApprovalsWithoutAServerSayWhatToDo) {
  for (const std::vector<std::string>& command :
       {std::vector<std::string>{"approvals"}, {"approvals", "approve", "apr_1"}, {"approvals", "deny", "apr_1", "--reason", "no"}}) {
    auto arguments = command;
    arguments.insert(arguments.end(), {"--url", "http://127.0.0.1:1"});
    const auto outcome = run(arguments);
    EXPECT_EQ(outcome.exit_code, 1) << outcome.out;
    EXPECT_HAS(outcome.err, "127.0.0.1:1");
    EXPECT_HAS(outcome.err, "hearth serve");
  }
}

}  // namespace
}  // namespace hearth::app
