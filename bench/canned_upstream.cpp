// An upstream without a model: answers OpenAI chat requests with canned events, so that proxies can be compared with nothing else in the way.
// What survives every gateway and every protocol steers one answer: `max_tokens` is the number of text frames, "gap=N" in the prompt the gap between
// them in microseconds (absent: the whole answer leaves in one write, each frame a chunk of its own). A paced frame's text starts with "@" and the time
// it was sent (CLOCK_MONOTONIC, ns), which lets a client on the same machine time the frame's way.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cstdint>
#include <cstdio>
#include <queue>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace {

std::int64_t now_ns() {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return std::int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec;
}

// The value of a whole-number field of a flat JSON text; `otherwise` when absent. Enough for requests that the benchmarks themselves write.
std::int64_t field(std::string_view json, std::string_view name, std::int64_t otherwise) {
  const std::size_t at = json.find("\"" + std::string(name) + "\"");
  if (at == std::string_view::npos) return otherwise;
  const char* begin = json.data() + at + name.size() + 2;
  const char* end = json.data() + json.size();
  while (begin != end && (*begin == ' ' || *begin == ':')) ++begin;
  std::from_chars(begin, end, otherwise);
  return otherwise;
}

std::int64_t gap_in(std::string_view body) {
  constexpr std::string_view mark = "gap=";
  const std::size_t at = body.find(mark);
  std::int64_t gap = 0;
  if (at != std::string_view::npos) std::from_chars(body.data() + at + mark.size(), body.data() + body.size(), gap);
  return std::max<std::int64_t>(0, gap);
}

bool flag(std::string_view json, std::string_view name) {
  const std::size_t at = json.find("\"" + std::string(name) + "\"");
  if (at == std::string_view::npos) return false;
  const std::size_t value = json.find_first_not_of(" :", at + name.size() + 2);
  return value != std::string_view::npos && json.substr(value).starts_with("true");
}

std::string chunk(std::string_view data) {
  char size[24];
  std::snprintf(size, sizeof size, "%zx\r\n", data.size());
  return size + std::string(data) + "\r\n";
}

class Upstream {
 public:
  Upstream(unsigned short port, int frames, int bytes) : frames_(frames), bytes_(bytes), epoll_(epoll_create1(EPOLL_CLOEXEC)) {
    listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    const int on = 1;
    setsockopt(listener_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(port);
    if (bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 || listen(listener_, 1024) != 0) {
      throw std::runtime_error("cannot listen on 127.0.0.1:" + std::to_string(port));
    }
    watch(listener_, EPOLL_CTL_ADD, EPOLLIN);
  }

  [[noreturn]] void run() {
    prctl(PR_SET_TIMERSLACK, 1);
    epoll_event events[128];
    for (;;) {
      const std::int64_t now = now_ns();
      while (!due_.empty() && due_.top().at <= now) {
        const Due due = due_.top();
        due_.pop();
        const auto found = clients_.find(due.fd);
        if (found != clients_.end() && found->second.serial == due.serial) tick(found->second);
      }
      const std::int64_t wait = due_.empty() ? 1'000'000'000 : std::clamp<std::int64_t>(due_.top().at - now_ns(), 0, 1'000'000'000);
      const timespec timeout{static_cast<time_t>(wait / 1'000'000'000), static_cast<long>(wait % 1'000'000'000)};
      const int n = epoll_pwait2(epoll_, events, 128, &timeout, nullptr);
      for (int i = 0; i < n; ++i) {
        const int fd = events[i].data.fd;
        if (fd == listener_) {
          accept_all();
          continue;
        }
        const auto found = clients_.find(fd);
        if (found == clients_.end()) continue;
        if (events[i].events & EPOLLOUT) flush(found->second);
        if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) read(found->second);
      }
    }
  }

 private:
  struct Client {
    int fd = -1;
    std::uint64_t serial = 0;
    std::string in, out;
    std::size_t sent = 0;
    bool want_write = false;
    // A paced answer in progress.
    std::int64_t left = 0, gap_ns = 0, next = 0, frames = 0;
    bool usage = false;
  };
  struct Due {
    std::int64_t at;
    int fd;
    std::uint64_t serial;
    bool operator<(const Due& other) const { return at > other.at; }
  };

  void watch(int fd, int operation, std::uint32_t what) {
    epoll_event event{};
    event.events = what;
    event.data.fd = fd;
    epoll_ctl(epoll_, operation, fd, &event);
  }

  void accept_all() {
    for (int fd; (fd = accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0;) {
      const int on = 1;
      setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
      Client client;
      client.fd = fd;
      client.serial = ++serial_;
      clients_.emplace(fd, std::move(client));
      watch(fd, EPOLL_CTL_ADD, EPOLLIN);
    }
  }

  void drop(int fd) {
    close(fd);
    clients_.erase(fd);
  }

  void read(Client& client) {
    char buffer[64 * 1024];
    const ssize_t n = recv(client.fd, buffer, sizeof buffer, 0);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) return drop(client.fd);
    client.in.append(buffer, static_cast<std::size_t>(n));
    const std::size_t head_end = client.in.find("\r\n\r\n");
    if (head_end == std::string::npos) return;
    std::string head = client.in.substr(0, head_end + 2);
    for (std::size_t i = head.find('\n'); i < head.size(); ++i) {
      if (head[i] >= 'A' && head[i] <= 'Z') head[i] = static_cast<char>(head[i] - 'A' + 'a');
    }
    std::size_t length = 0;
    const std::size_t at = head.find("\r\ncontent-length:");
    if (at != std::string::npos) length = static_cast<std::size_t>(std::strtoull(head.c_str() + at + 17, nullptr, 10));
    if (head.find("\r\ntransfer-encoding:") != std::string::npos) {
      client.out = "HTTP/1.1 411 Length Required\r\nContent-Length: 0\r\n\r\n";
      client.in.clear();
      return flush(client);
    }
    if (client.in.size() < head_end + 4 + length) return;
    answer(client, head, std::string_view(client.in).substr(head_end + 4, length));
    client.in.erase(0, head_end + 4 + length);
    flush(client);
  }

  static std::string json_answer(std::string_view body, std::string_view status = "200 OK") {
    return "HTTP/1.1 " + std::string(status) + "\r\nContent-Type: application/json\r\nContent-Length: " + std::to_string(body.size()) +
           "\r\n\r\n" + std::string(body);
  }

  void answer(Client& client, std::string_view head, std::string_view body) {
    const std::string_view path = head.substr(head.find(' ') + 1, head.find(' ', head.find(' ') + 1) - head.find(' ') - 1);
    if (path == "/health") {
      client.out = json_answer(R"({"status":"ok"})");
    } else if (path == "/v1/models") {
      client.out = json_answer(R"({"object":"list","data":[{"id":"canned","object":"model","created":1700000000,"owned_by":"bench"}]})");
    } else if (path == "/v1/chat/completions") {
      chat(client, body);
    } else {
      client.out = json_answer(R"({"error":{"message":"no such path","type":"invalid_request_error","param":null,"code":"not_found"}})",
                               "404 Not Found");
    }
  }

  void chat(Client& client, std::string_view body) {
    const std::int64_t frames = std::max<std::int64_t>(1, field(body, "max_tokens", frames_));
    const std::int64_t gap_us = gap_in(body);
    const bool usage = flag(body, "include_usage");
    if (!flag(body, "stream")) {
      std::string text;
      for (std::int64_t i = 0; i < frames; ++i) text += words(0);
      client.out =
          json_answer(R"({"id":"chatcmpl-canned","object":"chat.completion","created":1700000000,"model":"canned","choices":[{"index":0,)"
                      R"("message":{"role":"assistant","content":")" +
                      text + R"("},"finish_reason":"stop"}],)" + usage_json(frames) + "}");
      return;
    }
    if (gap_us == 0) {
      std::string& ready = ready_[frames * 2 + (usage ? 1 : 0)];
      if (ready.empty()) {
        ready = opening();
        for (std::int64_t i = 0; i < frames; ++i) ready += text_frame(0);
        ready += closing(frames, usage);
      }
      client.out = ready;
      return;
    }
    client.out = opening();
    client.left = client.frames = frames;
    client.gap_ns = gap_us * 1000;
    client.usage = usage;
    client.next = now_ns() + client.gap_ns;
    due_.push({client.next, client.fd, client.serial});
  }

  void tick(Client& client) {
    client.out += text_frame(now_ns());
    if (--client.left == 0) {
      client.out += closing(client.frames, client.usage);
    } else {
      // From the plan, not from now: a late frame does not delay the rest.
      client.next += client.gap_ns;
      due_.push({client.next, client.fd, client.serial});
    }
    flush(client);
  }

  void flush(Client& client) {
    while (client.sent < client.out.size()) {
      const ssize_t n = send(client.fd, client.out.data() + client.sent, client.out.size() - client.sent, MSG_NOSIGNAL);
      if (n < 0 && errno == EAGAIN) break;
      if (n < 0) return drop(client.fd);
      client.sent += static_cast<std::size_t>(n);
    }
    const bool want = client.sent < client.out.size();
    if (!want) {
      client.out.clear();
      client.sent = 0;
    }
    if (want != client.want_write) {
      client.want_write = want;
      watch(client.fd, EPOLL_CTL_MOD, EPOLLIN | (want ? EPOLLOUT : 0U));
    }
  }

  std::string words(std::int64_t stamp) const {
    std::string text = stamp > 0 ? "@" + std::to_string(stamp) + " " : std::string{};
    while (text.size() < static_cast<std::size_t>(bytes_)) text += "word ";
    return text;
  }
  static std::string event(std::string_view choices_and_rest) {
    return chunk(R"(data: {"id":"chatcmpl-canned","object":"chat.completion.chunk","created":1700000000,"model":"canned",)" +
                 std::string(choices_and_rest) + "}\n\n");
  }
  std::string text_frame(std::int64_t stamp) const {
    return event(R"("choices":[{"index":0,"delta":{"content":")" + words(stamp) + R"("},"finish_reason":null}])");
  }
  static std::string opening() {
    return "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n" +
           event(R"("choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}])");
  }
  static std::string usage_json(std::int64_t frames) {
    return R"("usage":{"prompt_tokens":8,"completion_tokens":)" + std::to_string(frames) + R"(,"total_tokens":)" +
           std::to_string(frames + 8) + "}";
  }
  static std::string closing(std::int64_t frames, bool usage) {
    std::string text = event(R"("choices":[{"index":0,"delta":{},"finish_reason":"stop"}])");
    if (usage) text += event(R"("choices":[],)" + usage_json(frames));
    return text + chunk("data: [DONE]\n\n") + "0\r\n\r\n";
  }

  int frames_, bytes_, epoll_, listener_ = -1;
  std::uint64_t serial_ = 0;
  std::unordered_map<int, Client> clients_;
  std::unordered_map<std::int64_t, std::string> ready_;
  std::priority_queue<Due> due_;
};

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{
      "An OpenAI-compatible upstream that answers with canned events. max_tokens = frames, \"gap=N\" in the prompt = µs between them."};
  unsigned short port = 0;
  int frames = 16, bytes = 5;
  app.add_option("--port", port, "Port on 127.0.0.1")->required();
  app.add_option("--frames", frames, "Text frames of an answer without max_tokens")->capture_default_str();
  app.add_option("--bytes", bytes, "Bytes of text in each frame (a time stamp adds to it)")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  try {
    Upstream(port, frames, bytes).run();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
