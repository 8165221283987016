#include <fcntl.h>
#include <spdlog/fmt/fmt.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <optional>

#include "app/commands.h"
#include "app/remote.h"
#include "base/json.h"
#include "net/client.h"
#include "net/sse.h"

namespace hearth::app {
namespace {

namespace asio = boost::asio;
using Instant = std::chrono::steady_clock::time_point;

struct ChatFlags {
  std::string url;
  std::string model;
  std::string system;
  std::string once;
  std::string api_key_file;
  std::optional<double> temperature;
  std::optional<int> max_tokens;
};

// A `hearth serve` of our own, on a free port, that ends with us.
class OwnServer {
 public:
  // `model` is empty or a GGUF file.
  static Result<std::unique_ptr<OwnServer>> start(const std::string& model) {
    std::error_code ec;
    const std::string self = std::filesystem::read_symlink("/proc/self/exe", ec).string();
    std::vector<std::string> words{self, "serve", "--host", "127.0.0.1", "--port", "0", "--log-level", "warn"};
    if (!model.empty()) words.push_back("--model=" + model);
    std::vector<char*> arguments;
    for (auto& word : words) arguments.push_back(word.data());
    arguments.push_back(nullptr);

    int pipe_ends[2];
    if (pipe2(pipe_ends, O_CLOEXEC) != 0) return Error{ErrorCode::io, fmt::format("no pipe: {}", std::strerror(errno)), {}};
    auto server = std::unique_ptr<OwnServer>(new OwnServer);
    server->output_ = pipe_ends[0];
    const pid_t parent = getpid();
    server->pid_ = fork();
    if (server->pid_ == 0) {
      // It ends with this program, however that ends; and Ctrl-C at the terminal stops an answer, not the server.
      prctl(PR_SET_PDEATHSIG, SIGTERM);
      setpgid(0, 0);
      const int nothing = open("/dev/null", O_RDONLY);
      dup2(nothing, STDIN_FILENO);
      dup2(pipe_ends[1], STDOUT_FILENO);
      if (getppid() == parent) execv(self.c_str(), arguments.data());
      _exit(127);
    }
    close(pipe_ends[1]);
    if (server->pid_ < 0) return Error{ErrorCode::io, fmt::format("{} cannot be started: {}", self, std::strerror(errno)), {}};
    // Its first line ends in its address.
    std::string line;
    for (char c = 0; read(server->output_, &c, 1) == 1 && c != '\n';) line += c;
    const auto at = line.find("http");
    if (at == std::string::npos) return Error{ErrorCode::unavailable, "the server could not start; its message stands above", {}};
    server->url_ = line.substr(at);
    return server;
  }
  ~OwnServer() {
    if (pid_ > 0) {
      kill(pid_, SIGTERM);
      while (waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {}
    }
    if (output_ >= 0) close(output_);
  }
  OwnServer(const OwnServer&) = delete;
  OwnServer& operator=(const OwnServer&) = delete;
  const std::string& url() const { return url_; }

 private:
  OwnServer() = default;
  pid_t pid_ = 0;
  int output_ = -1;
  std::string url_;
};

struct Answer {
  std::string text;
  std::int64_t tokens = 0;
  int deltas = 0;
  Instant asked;
  std::optional<Instant> first;
  Instant ended;
  bool stopped = false;  // by Ctrl-C
  std::optional<Error> error;
};

// What the model writes must not steer the terminal: only line breaks and tabs pass. Deltas hold whole characters.
void show(std::string_view text) {
  static const bool terminal = isatty(STDOUT_FILENO) != 0;
  if (!terminal) {
    std::fwrite(text.data(), 1, text.size(), stdout);
  } else {
    for (std::size_t i = 0; i < text.size(); ++i) {
      const auto c = static_cast<unsigned char>(text[i]);
      const bool c1 = c == 0xc2 && i + 1 < text.size() && static_cast<unsigned char>(text[i + 1]) < 0xa0;
      if (c1) ++i;
      if (!c1 && (c >= 0x20 || c == '\n' || c == '\t') && c != 0x7f) std::fputc(c, stdout);
    }
  }
  std::fflush(stdout);
}

const json::value* member(const json::value* value, std::string_view name) {
  return value != nullptr && value->is_object() ? value->get_object().if_contains(name) : nullptr;
}
std::string_view text_of(const json::value* value) {
  return value != nullptr && value->is_string() ? std::string_view(value->get_string()) : std::string_view();
}

void take_event(std::string_view data, Answer& answer) {
  const auto chunk = parse_json(data);
  if (!chunk) return;
  if (const auto* error = member(&*chunk, "error"); error != nullptr) {
    answer.error = Error{ErrorCode::upstream_failed, std::string(text_of(member(error, "message"))), {}};
    return;
  }
  if (const auto* usage = member(member(&*chunk, "usage"), "completion_tokens"); usage != nullptr && usage->is_int64())
    answer.tokens = usage->get_int64();
  const auto* choices = member(&*chunk, "choices");
  if (choices == nullptr || !choices->is_array() || choices->get_array().empty()) return;
  const auto* delta = member(&choices->get_array()[0], "delta");
  std::string text(text_of(member(delta, "reasoning_content")));
  const std::string_view content = text_of(member(delta, "content"));
  text += content;
  answer.text += content;
  if (const auto* calls = member(delta, "tool_calls"); calls != nullptr && calls->is_array()) {
    for (const auto& call : calls->get_array()) {
      const auto* function = member(&call, "function");
      if (const auto name = text_of(member(function, "name")); !name.empty()) text += fmt::format("\n[tool call {}] ", name);
      text += text_of(member(function, "arguments"));
    }
  }
  if (text.empty()) return;
  if (!answer.first) answer.first = std::chrono::steady_clock::now();
  ++answer.deltas;
  show(text);
}

// One request; lives on a loop of its own, so that leaving the loop ends it.
struct Conversation {
  Remote remote;
  std::string body;
  Answer answer;
  net::ClientResponse* response = nullptr;  // while its body arrives
};

net::Task<void> stream_answer(asio::io_context& io, Conversation& conversation) {
  Answer& answer = conversation.answer;
  const auto client = net::Client::make(io, conversation.remote.url.endpoint);
  auto request = conversation.remote.request("POST", "/v1/chat/completions");
  request.headers.add("Content-Type", "application/json");
  request.body = conversation.body;
  auto response = co_await client->send(std::move(request), std::chrono::minutes(30));
  if (!response) {
    answer.error = response.error();
    co_return;
  }
  conversation.response = response->get();
  if ((*response)->status != 200) {
    const auto body = co_await (*response)->read_all(1 << 20, std::chrono::minutes(1));
    answer.error = error_of(body.ok() ? *body : std::string(), (*response)->status);
    conversation.response = nullptr;
    co_return;
  }
  net::SseDecoder decoder;
  std::vector<net::SseEvent> events;
  bool done = false;
  while (!done && !answer.error) {
    const auto bytes = co_await (*response)->read_some(std::chrono::minutes(30));
    if (!bytes) {
      if (!answer.stopped) answer.error = bytes.error();
      break;
    }
    if (bytes->empty()) {
      answer.error = Error{ErrorCode::upstream_failed, "the answer broke off", {}};
      break;
    }
    events.clear();
    if (const auto fed = decoder.feed(*bytes, events); !fed) answer.error = fed.error();
    for (const auto& event : events) {
      if (event.data == "[DONE]") {
        done = true;
      } else {
        take_event(event.data, answer);
      }
    }
  }
  conversation.response = nullptr;
}

extern "C" void ignore_interrupt(int) {}

// Without SA_RESTART, so that a read at the prompt returns.
void install_interrupt_handler() {
  struct sigaction action{};
  action.sa_handler = ignore_interrupt;
  sigaction(SIGINT, &action, nullptr);
}

void ask(Conversation& conversation) {
  conversation.answer = {};
  sigset_t interrupt_only, before;
  sigemptyset(&interrupt_only);
  sigaddset(&interrupt_only, SIGINT);
  conversation.answer.asked = std::chrono::steady_clock::now();
  {
    asio::io_context io(1);
    asio::signal_set interrupt(io, SIGINT);
    interrupt.async_wait([&](const boost::system::error_code& ec, int) {
      if (ec) return;
      conversation.answer.stopped = true;
      // Before the answer has begun there is nothing to cancel but the request itself: leaving the loop closes its connection.
      if (conversation.response != nullptr) {
        conversation.response->cancel();
      } else {
        io.stop();
      }
    });
    asio::co_spawn(io, stream_answer(io, conversation), [&](const std::exception_ptr& fault) {
      if (fault) conversation.answer.error = internal_error("the answer could not be read");
      interrupt.cancel();
    });
    io.run();
    // A signal_set leaves the default behaviour behind, which would end the program.
    pthread_sigmask(SIG_BLOCK, &interrupt_only, &before);
  }
  install_interrupt_handler();
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  conversation.answer.ended = std::chrono::steady_clock::now();
}

// Whether anybody listens at `url`.
bool reachable(const Remote& remote) {
  asio::io_context io(1);
  bool found = false;
  Conversation probe{.remote = remote, .body = {}, .answer = {}, .response = nullptr};
  asio::co_spawn(
      io,
      [](asio::io_context& loop, const Conversation& conversation, bool& answer) -> net::Task<void> {
        const auto client = net::Client::make(loop, conversation.remote.url.endpoint);
        auto request = conversation.remote.request("GET", "/health");
        const auto response = co_await client->send(std::move(request), std::chrono::seconds(5));
        answer = response.ok() || response.error().code != ErrorCode::unavailable;
      }(io, probe, found),
      asio::detached);
  io.run();
  return found;
}

void print_stats(const Answer& answer) {
  const auto seconds = [](auto from, auto to) { return std::chrono::duration<double>(to - from).count(); };
  std::string line;
  if (answer.tokens > 0) {
    line = fmt::format("{} tokens", answer.tokens);
    const double generating = answer.first ? seconds(*answer.first, answer.ended) : 0;
    if (answer.tokens > 1 && generating > 0) line += fmt::format(", {:.0f} tokens/s", static_cast<double>(answer.tokens - 1) / generating);
  } else {
    line = fmt::format("{} pieces", answer.deltas);
  }
  if (answer.first) line += fmt::format(", first after {:.0f} ms", 1000 * seconds(answer.asked, *answer.first));
  line += fmt::format(", {:.1f} s in all{}", seconds(answer.asked, answer.ended), answer.stopped ? ", stopped" : "");
  const bool terminal = isatty(STDERR_FILENO) != 0;
  std::fprintf(stderr, "%s[%s]%s\n", terminal ? "\x1b[2m" : "", line.c_str(), terminal ? "\x1b[0m" : "");
}

class Chat {
 public:
  Chat(ChatFlags flags, Remote remote) : flags_(std::move(flags)) {
    conversation_.remote = std::move(remote);
    if (!flags_.system.empty()) add("system", flags_.system);
  }

  // Asks and prints; false when it failed.
  bool turn(const std::string& prompt) {
    add("user", prompt);
    json::object body{{"messages", messages_}, {"stream", true}, {"stream_options", {{"include_usage", true}}}};
    if (!flags_.model.empty()) body["model"] = flags_.model;
    if (flags_.temperature) body["temperature"] = *flags_.temperature;
    if (flags_.max_tokens) body["max_tokens"] = *flags_.max_tokens;
    conversation_.body = json::serialize(body);
    ask(conversation_);
    const Answer& answer = conversation_.answer;
    if (!answer.text.empty() || answer.stopped) std::puts("");
    std::fflush(stdout);
    if (answer.error) {
      fail(*answer.error);
      messages_.pop_back();  // so that the question can be asked again
      return false;
    }
    print_stats(answer);
    add("assistant", answer.text);
    return true;
  }
  bool stopped() const { return conversation_.answer.stopped; }

 private:
  void add(std::string_view role, std::string_view text) { messages_.push_back(json::object{{"role", role}, {"content", text}}); }
  ChatFlags flags_;
  Conversation conversation_;
  json::array messages_;
};

// One line from the terminal; nothing at its end. Ctrl-C drops the line.
std::optional<std::string> read_line() {
  std::fputs("> ", stdout);
  std::fflush(stdout);
  std::string line;
  for (;;) {
    char c = 0;
    const ssize_t got = read(STDIN_FILENO, &c, 1);
    if (got == 1 && c == '\n') return line;
    if (got == 1) {
      line += c;
    } else if (got < 0 && errno == EINTR) {
      line.clear();
      std::fputs("\n(Ctrl-D leaves)\n> ", stdout);
      std::fflush(stdout);
    } else {
      std::puts("");
      return line.empty() ? std::nullopt : std::optional(line);
    }
  }
}

int chat(ChatFlags flags) {
  auto remote = find_remote(flags.url, flags.api_key_file);
  if (!remote) return fail(remote.error());
  const bool named = names_remote(flags.url);

  std::unique_ptr<OwnServer> own;
  const bool model_file = flags.model.ends_with(".gguf");
  if (model_file && named)
    return fail(invalid("--model takes a model's name when --url names the server; a file is for a server that chat starts itself"));
  if (model_file || (!named && !reachable(*remote))) {
    std::fprintf(stderr, "%s; starting one for this chat\n",
                 model_file ? "A file needs a server of its own" : "No server runs on 127.0.0.1:8085");
    auto started = OwnServer::start(model_file ? flags.model : std::string());
    if (!started) return fail(started.error());
    own = std::move(*started);
    remote = find_remote(own->url(), flags.api_key_file);
    if (!remote) return fail(remote.error());
    if (model_file) flags.model.clear();
  }

  std::string once = flags.once;
  const bool terminal = isatty(STDIN_FILENO) != 0;
  if (once.empty() && !terminal) {
    once.assign(std::istreambuf_iterator<char>(std::cin), {});
    if (once.find_first_not_of(" \t\r\n") == std::string::npos)
      return fail(invalid("standard input holds no question; give one, or use --once \"QUESTION\""));
  }
  Chat session(flags, *remote);
  if (!once.empty()) return session.turn(once) && !session.stopped() ? exit_ok : exit_failed;

  install_interrupt_handler();
  std::puts("Ask away. Ctrl-C stops an answer, Ctrl-D leaves.");
  while (const auto line = read_line()) {
    if (line->find_first_not_of(" \t") == std::string::npos) continue;
    (void)session.turn(*line);
  }
  return exit_ok;
}

}  // namespace

void add_chat(CLI::App& program, int& exit_code) {
  auto* command = program.add_subcommand("chat", "Talk to a model in the terminal");
  auto flags = std::make_shared<ChatFlags>();
  command->add_option("--once", flags->once, "Ask this one question, print the answer and exit")->type_name("TEXT");
  command->add_option("--system", flags->system, "System prompt")->type_name("TEXT");
  command->add_option("--model", flags->model, "Model to ask, by name; a .gguf file starts a server for it")->type_name("NAME");
  command->add_option("--url", flags->url, "Server to ask [HEARTH_URL, else http://127.0.0.1:8085; when none runs there, one is started]")
      ->type_name("URL");
  command->add_option("--temperature", flags->temperature, "0 = always the likeliest token")->check(CLI::Range(0.0, 2.0))->type_name("T");
  command->add_option("--max-tokens", flags->max_tokens, "Longest answer in tokens")->check(CLI::Range(1, 1 << 28))->type_name("N");
  command->add_option("--api-key-file", flags->api_key_file, "File that holds the API key [the variable HEARTH_API_KEY]")
      ->type_name("FILE");
  command->footer(
      "Examples:\n"
      "  hearth chat\n"
      "  hearth chat --once \"list all files by size\" --temperature 0\n"
      "  echo \"find large files\" | hearth chat --system \"Answer with one command\"\n"
      "  hearth chat --url http://server:8085 --model qwen3-8b\n\n"
      "Ctrl-C stops the answer, Ctrl-D leaves. Statistics go to standard error, the answer alone to standard output.");
  command->callback([flags, &exit_code] { exit_code = chat(*flags); });
}

}  // namespace hearth::app
