#include "load_client.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string_view>

namespace hearth::bench {

namespace {

constexpr std::size_t kept_texts = 16;

std::int64_t now_ns() {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return std::int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec;
}

std::int64_t number_after(std::string_view text, std::string_view key) {
  const std::size_t at = text.rfind(key);
  if (at == std::string_view::npos) return 0;
  const char* begin = text.data() + at + key.size();
  const char* end = text.data() + text.size();
  while (begin != end && (*begin == ' ' || *begin == ':')) ++begin;
  std::int64_t value = 0;
  std::from_chars(begin, end, value);
  return value;
}

// The JSON-escaped text of a chunk: the string behind "content" or "text". Empty for role, usage and finish chunks.
std::string_view text_of(std::string_view data) {
  for (const std::string_view key : {std::string_view("\"content\":"), std::string_view("\"text\":")}) {
    std::size_t at = data.find(key);
    if (at == std::string_view::npos) continue;
    at += key.size();
    while (at < data.size() && data[at] == ' ') ++at;
    if (at >= data.size() || data[at] != '"') continue;
    const std::size_t begin = ++at;
    while (at < data.size() && data[at] != '"') at += data[at] == '\\' ? 2 : 1;
    return data.substr(begin, std::min(at, data.size()) - begin);
  }
  return {};
}

class Connection {
 public:
  int fd = -1;
  bool busy = false;
  bool fresh = true;  // nothing was answered on it yet
  bool want_write = false;
  std::int64_t start = 0;

  void begin(std::string request, std::int64_t start_ns, bool keep_text) {
    out_ = std::move(request);
    sent_ = 0;
    start = start_ns;
    busy = true;
    keep_text_ = keep_text;
    head_.clear();
    line_.clear();
    text_.clear();
    state_ = State::head;
    sse_ = done_seen_ = false;
    last_text_ = 0;
    prompt_tokens_ = completion_tokens_ = 0;
    error_.clear();
  }

  // Sends what is left; false when the socket is broken.
  bool flush() {
    while (sent_ < out_.size()) {
      const ssize_t n = send(fd, out_.data() + sent_, out_.size() - sent_, MSG_NOSIGNAL | MSG_DONTWAIT);
      if (n < 0) return errno == EAGAIN;
      sent_ += static_cast<std::size_t>(n);
    }
    return true;
  }
  bool unsent() const { return sent_ < out_.size(); }
  bool answered() const { return !head_.empty(); }
  // For a fresh connection: the same request once more, on the same clock.
  void again() {
    sent_ = 0;
    fresh = true;
  }

  // Takes bytes read at `now`; true once the answer is complete or broken (see error()).
  bool feed(std::string_view bytes, std::int64_t now, LoadReport& report) {
    if (state_ == State::head) {
      const std::size_t before = head_.size();
      head_.append(bytes);
      const std::size_t end = head_.find("\r\n\r\n", before < 3 ? 0 : before - 3);
      if (end == std::string::npos) return false;
      bytes.remove_prefix(end + 4 - before);
      head_.resize(end + 4);
      if (!parse_head()) return true;
    }
    if (chunked_) return feed_chunked(bytes, now, report);
    if (bytes.size() > left_) return fail("bytes after the answer's end");
    left_ -= bytes.size();
    body(bytes, now, report);
    return left_ == 0 && complete(now, report);
  }

  bool fail(std::string why) {
    if (error_.empty()) error_ = std::move(why);
    return true;
  }
  const std::string& error() const { return error_; }
  bool closing() const { return head_.find("\r\nconnection: close") != std::string::npos; }

 private:
  enum class State { head, chunk_size, chunk_data, chunk_end, trailer };

  bool parse_head() {
    for (char& c : head_) {
      if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    }
    status_ = head_.size() > 12 ? std::atoi(head_.c_str() + 9) : 0;
    chunked_ = head_.find("\r\ntransfer-encoding: chunked") != std::string::npos;
    sse_ = head_.find("text/event-stream") != std::string::npos;
    const bool length = head_.find("\r\ncontent-length:") != std::string::npos;
    left_ = length ? static_cast<std::size_t>(number_after(head_, "\r\ncontent-length")) : 0;
    state_ = State::chunk_size;
    size_text_.clear();
    if (!chunked_ && !length) {
      fail("an answer with neither Content-Length nor chunks");
      return false;
    }
    return true;
  }

  bool feed_chunked(std::string_view bytes, std::int64_t now, LoadReport& report) {
    while (!bytes.empty()) {
      if (state_ == State::chunk_data) {
        const std::size_t n = std::min(left_, bytes.size());
        body(bytes.substr(0, n), now, report);
        bytes.remove_prefix(n);
        left_ -= n;
        if (left_ == 0) state_ = State::chunk_end;
        continue;
      }
      const std::size_t eol = bytes.find('\n');
      size_text_.append(bytes.substr(0, eol));
      if (eol == std::string_view::npos) return false;
      bytes.remove_prefix(eol + 1);
      while (!size_text_.empty() && size_text_.back() == '\r') size_text_.pop_back();
      if (state_ == State::chunk_size) {
        left_ = 0;
        std::from_chars(size_text_.data(), size_text_.data() + size_text_.size(), left_, 16);
        state_ = left_ == 0 ? State::trailer : State::chunk_data;
      } else if (state_ == State::chunk_end) {
        state_ = State::chunk_size;
      } else if (size_text_.empty()) {
        if (!bytes.empty()) return fail("bytes after the answer's end");
        return complete(now, report);
      }
      size_text_.clear();
    }
    return false;
  }

  void body(std::string_view bytes, std::int64_t now, LoadReport& report) {
    if (!sse_) {
      line_.append(bytes);
      return;
    }
    while (!bytes.empty()) {
      const std::size_t eol = bytes.find('\n');
      if (eol == std::string_view::npos) {
        line_.append(bytes);
        return;
      }
      if (line_.empty()) {
        line(bytes.substr(0, eol), now, report);
      } else {
        line_.append(bytes.substr(0, eol));
        line(line_, now, report);
        line_.clear();
      }
      bytes.remove_prefix(eol + 1);
    }
  }

  void line(std::string_view text, std::int64_t now, LoadReport& report) {
    if (!text.starts_with("data:")) return;
    text.remove_prefix(5);
    if (text.find("[DONE]") < 2) {
      done_seen_ = true;
      return;
    }
    const std::string_view content = text_of(text);
    if (!content.empty()) {
      ++report.text_frames;
      if (last_text_ == 0) {
        report.first_text.push_back(static_cast<float>(static_cast<double>(now - start) / 1e3));
      } else {
        report.gap.push_back(static_cast<float>(static_cast<double>(now - last_text_) / 1e3));
      }
      last_text_ = now;
      if (content[0] == '@') {
        std::int64_t stamp = 0;
        std::from_chars(content.data() + 1, content.data() + content.size(), stamp);
        if (stamp > 0) report.transit.push_back(static_cast<float>(static_cast<double>(now - stamp) / 1e3));
      }
      if (keep_text_) text_.append(content);
      return;
    }
    read_usage(text);
    if (text.find("\"message_stop\"") != std::string_view::npos) done_seen_ = true;
    if (text.starts_with(" {\"error\"") || text.starts_with("{\"error\"") || text.find("\"type\":\"error\"") != std::string_view::npos)
      fail("an error in mid-stream: " + std::string(text.substr(0, 300)));
  }

  // OpenAI's names or Anthropic's; what comes later in a stream is the whole count.
  void read_usage(std::string_view text) {
    for (const auto& [prompt, completion] : {std::pair(std::string_view("\"prompt_tokens\""), std::string_view("\"completion_tokens\"")),
                                             std::pair(std::string_view("\"input_tokens\""), std::string_view("\"output_tokens\""))}) {
      if (text.find(completion) == std::string_view::npos) continue;
      if (text.find(prompt) != std::string_view::npos) prompt_tokens_ = number_after(text, prompt);
      completion_tokens_ = number_after(text, completion);
    }
  }

  bool complete(std::int64_t now, LoadReport& report) {
    if (status_ != 200) return fail("status " + std::to_string(status_) + ": " + line_.substr(0, 300));
    if (sse_ && !done_seen_) return fail("a stream that ended without its last event");
    if (!error_.empty()) return true;
    if (!sse_) {
      read_usage(line_);
      report.first_text.push_back(static_cast<float>(static_cast<double>(now - start) / 1e3));
      if (keep_text_) text_ = text_of(line_);
    }
    ++report.requests;
    report.prompt_tokens += prompt_tokens_;
    report.completion_tokens += completion_tokens_;
    report.latency.push_back(static_cast<float>(static_cast<double>(now - start) / 1e3));
    if (keep_text_) report.texts.push_back(std::move(text_));
    return true;
  }

  std::string out_, head_, line_, size_text_, text_, error_;
  std::size_t sent_ = 0, left_ = 0;
  std::int64_t last_text_ = 0, prompt_tokens_ = 0, completion_tokens_ = 0;
  State state_ = State::head;
  int status_ = 0;
  bool chunked_ = false, sse_ = false, done_seen_ = false, keep_text_ = false;
};

class Run {
 public:
  explicit Run(const LoadPlan& plan)
      : plan_(plan), epoll_(epoll_create1(EPOLL_CLOEXEC)), connections_(static_cast<std::size_t>(plan.connections)) {
    head_ = "POST " + plan.path + " HTTP/1.1\r\nHost: 127.0.0.1:" + std::to_string(plan.port) + "\r\nContent-Type: application/json\r\n" +
            plan.headers + "Content-Length: ";
  }
  ~Run() {
    for (Connection& c : connections_) drop(c);
    close(epoll_);
  }

  LoadReport run() {
    // The default slack of 50 µs would round every arrival and every timed frame.
    prctl(PR_SET_TIMERSLACK, 1);
    for (Connection& c : connections_) connect_to(c);
    begin_ = now_ns();
    const std::int64_t last_start = begin_ + static_cast<std::int64_t>(plan_.seconds * 1e9);
    std::int64_t end = last_start + static_cast<std::int64_t>(plan_.give_up * 1e9);
    epoll_event events[64];
    char buffer[64 * 1024];
    for (;;) {
      std::int64_t now = now_ns();
      const bool may_start = started_ < plan_.requests && now < last_start && !(plan_.stop && plan_.stop->load());
      if (may_start) start_due(now);
      if (open_ == 0 && !may_start) break;
      if (now > end) {
        for (Connection& c : connections_) {
          if (c.busy) finish_broken(c, "no complete answer in time");
        }
        break;
      }
      const std::int64_t wake = may_start ? std::min(next_wake(now), last_start) : std::min(end, now + 100'000'000);
      const std::int64_t wait = std::clamp<std::int64_t>(wake - now, 0, 100'000'000);
      const timespec timeout{static_cast<time_t>(wait / 1'000'000'000), static_cast<long>(wait % 1'000'000'000)};
      const int n = epoll_pwait2(epoll_, events, 64, &timeout, nullptr);
      for (int i = 0; i < n; ++i) {
        Connection& c = connections_[events[i].data.u32];
        if (events[i].events & EPOLLOUT) flush(c);
        if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) read(c, buffer, sizeof buffer);
      }
    }
    report_.seconds = static_cast<double>(last_byte_ - begin_) / 1e9;
    return std::move(report_);
  }

 private:
  void connect_to(Connection& c) {
    c.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(plan_.port);
    if (connect(c.fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
      throw std::runtime_error("nobody listens on 127.0.0.1:" + std::to_string(plan_.port) + ": " + strerror(errno));
    }
    const int on = 1;
    setsockopt(c.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    watch(c, EPOLL_CTL_ADD, EPOLLIN);
    c.want_write = false;
    c.fresh = true;
  }
  void watch(Connection& c, int operation, std::uint32_t what) {
    epoll_event event{};
    event.events = what;
    event.data.u32 = static_cast<std::uint32_t>(&c - connections_.data());
    epoll_ctl(epoll_, operation, c.fd, &event);
  }
  void drop(Connection& c) {
    if (c.fd >= 0) close(c.fd);
    c.fd = -1;
  }

  std::int64_t arrival(std::size_t n) const { return begin_ + static_cast<std::int64_t>(static_cast<double>(n) * plan_.interval * 1e9); }
  std::int64_t next_wake(std::int64_t now) const {
    return plan_.interval > 0 && open_ < plan_.connections ? arrival(started_) : now + 100'000'000;
  }

  void start_due(std::int64_t now) {
    for (Connection& c : connections_) {
      if (started_ >= plan_.requests || (plan_.interval > 0 && arrival(started_) > now)) return;
      if (c.busy) continue;
      if (c.fd < 0) connect_to(c);
      start(c, plan_.interval > 0 ? arrival(started_) : now_ns());
    }
  }
  void start(Connection& c, std::int64_t start_ns) {
    std::string body = plan_.body(started_);
    c.begin(head_ + std::to_string(body.size()) + "\r\n\r\n" + body, start_ns, started_ < kept_texts);
    ++started_;
    ++open_;
    flush(c);
  }
  void flush(Connection& c) {
    if (c.fd < 0) return;
    if (!c.flush()) return lost(c, std::string("send: ") + strerror(errno));
    if (c.unsent() != c.want_write) {
      c.want_write = c.unsent();
      watch(c, EPOLL_CTL_MOD, EPOLLIN | (c.want_write ? EPOLLOUT : 0U));
    }
  }
  void read(Connection& c, char* buffer, std::size_t size) {
    if (c.fd < 0) return;
    const ssize_t n = recv(c.fd, buffer, size, MSG_DONTWAIT);
    const std::int64_t now = now_ns();
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) {
      if (!c.busy) return drop(c);
      return lost(c, n == 0 ? "connection closed before the answer's end" : std::string("recv: ") + strerror(errno));
    }
    if (!c.busy) return drop(c);
    last_byte_ = now;
    if (!c.feed({buffer, static_cast<std::size_t>(n)}, now, report_)) return;
    if (!c.error().empty()) return finish_broken(c, c.error());
    c.busy = false;
    c.fresh = false;
    --open_;
    if (c.closing()) drop(c);
  }
  // llama-server closes the connection after every stream without saying so. As every client must, the next request that meets such a connection
  // is sent again on a fresh one, once, as long as no byte of an answer came.
  void lost(Connection& c, std::string why) {
    if (c.fresh || c.answered()) return finish_broken(c, std::move(why));
    drop(c);
    connect_to(c);
    c.again();
    flush(c);
  }
  void finish_broken(Connection& c, std::string why) {
    ++report_.errors;
    if (report_.first_error.empty()) report_.first_error = std::move(why);
    c.busy = false;
    --open_;
    last_byte_ = now_ns();
    drop(c);
    // A server that refuses everything would otherwise be asked in a busy loop.
    if (report_.errors >= 1000) started_ = plan_.requests;
  }

  const LoadPlan& plan_;
  int epoll_;
  std::vector<Connection> connections_;
  std::string head_;
  std::size_t started_ = 0;
  int open_ = 0;
  std::int64_t begin_ = 0, last_byte_ = 0;
  LoadReport report_;
};

}  // namespace

LoadReport run_load(const LoadPlan& plan) { return Run(plan).run(); }

void LoadReport::merge(const LoadReport& other) {
  requests += other.requests;
  errors += other.errors;
  if (first_error.empty()) first_error = other.first_error;
  seconds += other.seconds;
  prompt_tokens += other.prompt_tokens;
  completion_tokens += other.completion_tokens;
  text_frames += other.text_frames;
  const auto append = [](std::vector<float>& to, const std::vector<float>& from) { to.insert(to.end(), from.begin(), from.end()); };
  append(latency, other.latency);
  append(first_text, other.first_text);
  append(gap, other.gap);
  append(transit, other.transit);
}

double quantile(std::vector<float> samples, double p) {
  if (samples.empty()) return 0;
  const auto rank = static_cast<std::size_t>(std::max(0.0, std::ceil(p * static_cast<double>(samples.size())) - 1));
  std::nth_element(samples.begin(), samples.begin() + static_cast<std::ptrdiff_t>(rank), samples.end());
  return samples[rank];
}

}  // namespace hearth::bench
