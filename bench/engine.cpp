// hearth against llama-server of the same llama.cpp, over HTTP as clients see both: same model, threads, context and requests, interleaved rounds.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <memory>
#include <random>
#include <set>
#include <thread>

#include "load_client.h"
#include "process.h"
#include "report.h"

namespace {

using namespace hearth::bench;
namespace fs = std::filesystem;
using Compare = Measurement::Compare;

struct Server {
  std::string name;
  unsigned short port = 0;
  std::unique_ptr<Process> process;
};

// Reproducible text that no earlier prompt begins with: plain words in an order drawn from `seed`.
std::string words(std::uint64_t seed, int count) {
  static constexpr const char* list[] = {"the",    "file",  "list",  "all",     "in",    "folder",   "with",   "name",   "and",    "show",
                                         "size",   "of",    "every", "line",    "that",  "contains", "text",   "copy",   "from",   "to",
                                         "remote", "host",  "over",  "network", "find",  "large",    "images", "then",   "remove", "old",
                                         "backup", "after", "seven", "days",    "print", "number",   "words",  "sort",   "by",     "date",
                                         "change", "owner", "user",  "group",   "start", "server",   "stop",   "process"};
  // The generator's raw output: the standard fixes it, unlike that of the distributions.
  std::mt19937_64 random(seed * 0x9e3779b97f4a7c15ULL + 1);
  std::string text;
  for (int i = 0; i < count; ++i) {
    if (i > 0) text += ' ';
    text += list[random() % std::size(list)];
  }
  return text;
}

struct Ask {
  int max_tokens = 1;
  bool greedy = true;
  std::uint64_t seed = 0;
};

std::string options(const Ask& ask) {
  return R"("stream":true,"stream_options":{"include_usage":true},"ignore_eos":true,"max_tokens":)" + std::to_string(ask.max_tokens) +
         (ask.greedy ? std::string(R"(,"temperature":0})") : R"(,"seed":)" + std::to_string(ask.seed) + "}");
}
std::string completion(const std::string& text, const Ask& ask) { return R"({"prompt":")" + text + R"(",)" + options(ask); }
std::string chat(const std::string& text, const Ask& ask) {
  return R"({"messages":[{"role":"user","content":")" + text + R"("}],)" + options(ask);
}

// Every request of a whole run gets a fresh prompt: nothing but the prefix case may profit from a prompt cache. Both servers get the same prompts in
// the same order.
class Prompts {
 public:
  std::uint64_t take(std::size_t count) {
    const std::uint64_t first = next_;
    next_ += count;
    return first;
  }

 private:
  std::uint64_t next_ = 1;
};

LoadReport checked(const Server& server, const LoadPlan& plan, int max_tokens) {
  LoadReport report = run_load(plan);
  if (report.errors > 0)
    throw std::runtime_error(server.name + " failed " + std::to_string(report.errors) + " requests: " + report.first_error);
  const auto expected = static_cast<std::int64_t>(report.requests) * max_tokens;
  if (report.completion_tokens != expected) {
    throw std::runtime_error(server.name + " generated " + std::to_string(report.completion_tokens) + " tokens instead of " +
                             std::to_string(expected));
  }
  return report;
}

LoadReport complete(const Server& server, int connections, std::size_t requests, int prompt_words, const Ask& ask,
                    std::uint64_t first_prompt) {
  LoadPlan plan;
  plan.port = server.port;
  plan.path = "/v1/completions";
  plan.connections = connections;
  plan.requests = requests;
  plan.seconds = 300;
  plan.body = [&](std::size_t n) {
    Ask numbered = ask;
    numbered.seed = first_prompt + n;
    return completion(words(first_prompt + n, prompt_words), numbered);
  };
  return checked(server, plan, ask.max_tokens);
}

struct UnderLoad {
  LoadReport chats;
  double prefill_per_second = 0;
};

// Four clients keep a long prefill running each; meanwhile a short chat arrives every `interval` seconds, whether or not the last one was answered.
UnderLoad chats_under_prefill(const Server& server, double seconds, double interval, int long_words, std::uint64_t first_prompt) {
  std::atomic<bool> stop = false;
  LoadReport background;
  std::string background_error;
  std::thread prefills([&] {
    try {
      LoadPlan plan;
      plan.port = server.port;
      plan.path = "/v1/completions";
      plan.connections = 4;
      plan.seconds = 300;
      plan.stop = &stop;
      plan.body = [&](std::size_t n) { return completion(words(first_prompt + n, long_words), {.max_tokens = 1}); };
      background = checked(server, plan, 1);
    } catch (const std::exception& error) { background_error = error.what(); }
  });
  UnderLoad out;
  std::string chat_error;
  try {
    // The first prefills get going before the first chat.
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    LoadPlan plan;
    plan.port = server.port;
    plan.connections = 64;
    plan.seconds = seconds;
    plan.interval = interval;
    plan.body = [&](std::size_t n) { return chat(words(first_prompt + 1'000'000 + n, 12), {.max_tokens = 4}); };
    out.chats = checked(server, plan, 4);
  } catch (const std::exception& error) { chat_error = error.what(); }
  stop = true;
  prefills.join();
  if (!chat_error.empty() || !background_error.empty()) throw std::runtime_error(chat_error.empty() ? background_error : chat_error);
  out.prefill_per_second = static_cast<double>(background.prompt_tokens) / background.seconds;
  return out;
}

Measurement against_peer(std::string name, std::string unit, double goal, bool at_least, int decimals) {
  Measurement m;
  m.name = std::move(name);
  m.unit = std::move(unit);
  m.compare = Compare::ratio;
  m.subject = "hearth";
  m.base = "llama-server";
  m.goal = goal;
  m.at_least = at_least;
  m.decimals = decimals;
  return m;
}

double ms(double us) { return us / 1000; }
double per_second(std::int64_t tokens, const LoadReport& report) { return static_cast<double>(tokens) / report.seconds; }

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Compares hearth with llama-server of the same build on one model."};
  const fs::path here = fs::read_symlink("/proc/self/exe").parent_path();
  std::string model, name, json_file, document, only;
  std::string hearth_command =
      std::string(HEARTH_PROGRAM) +
      " serve --model {model} --port {port} --context {context} --threads {threads} --state-folder {folder} --log-level warn";
  std::string peer_command =
      (here / "llama-server").string() +
      " -m {model} --host 127.0.0.1 --port {port} -c {context} -t {threads} -tb {threads} -np 8 -fa on -b 2048 -ub 512 --no-ui";
  int rounds = 5, threads = core_count(), context = 32'768;
  double seconds = 2, limit = 270;
  bool quick = false;
  app.add_option("--model", model, "GGUF file")->required()->check(CLI::ExistingFile);
  app.add_option("--name", name, "Section of the document: \"engine NAME\"; the file's name if not given");
  app.add_option("--hearth", hearth_command, "hearth's command; {model} {port} {context} {threads} {folder} are filled in")
      ->capture_default_str();
  app.add_option("--peer", peer_command, "llama-server's command")->capture_default_str();
  app.add_option("--rounds", rounds, "Interleaved rounds")->capture_default_str();
  app.add_option("--seconds", seconds, "About the length of one throughput measurement")->capture_default_str();
  app.add_option("--limit", limit, "No further round starts after so many seconds")->capture_default_str();
  app.add_option("--threads", threads, "Compute threads of each server")->capture_default_str();
  app.add_option("--context", context, "KV cells of each server")->capture_default_str();
  app.add_option("--cases", only, "Only these, comma-separated: decode prefill load prefix");
  app.add_flag("--quick", quick, "Two short rounds");
  app.add_option("--json", json_file, "Write every round's values here");
  app.add_option("--write", document, "Replace the results in this document");
  CLI11_PARSE(app, argc, argv);
  if (quick) {
    rounds = 2;
    seconds = 1;
    limit = 60;
  }
  if (name.empty()) name = fs::path(model).stem();
  const auto wanted = [&only](const char* what) { return only.empty() || only.find(what) != std::string::npos; };
  try {
    Report report;
    report.title = "Engine, " + name;
    report.command = "bench/run engine " + name + (quick ? " --quick" : "");
    report.machine = machine_line();
    const TempFolder folder;
    std::vector<Server> servers;
    for (const auto& [server_name, command] :
         {std::pair{std::string("llama-server"), peer_command}, std::pair{std::string("hearth"), hearth_command}}) {
      Server server{server_name, free_port(), nullptr};
      server.process = std::make_unique<Process>(fill(command, {{"model", model},
                                                                {"port", std::to_string(server.port)},
                                                                {"context", std::to_string(context)},
                                                                {"threads", std::to_string(threads)},
                                                                {"folder", folder.path().string()}}),
                                                 folder.path() / (server_name + ".log"));
      server.process->wait_healthy(server.port);
      servers.push_back(std::move(server));
    }
    const Server& peer = servers[0];

    // How this model tokenizes the words, and how fast it is here: work is sized once, then fixed, and equal for both.
    Prompts prompts;
    const std::uint64_t calibration = prompts.take(8);
    complete(peer, 1, 1, 100, {.max_tokens = 8}, calibration);
    const LoadReport long_prompt = complete(peer, 1, 2, 600, {.max_tokens = 1}, calibration + 1);
    const double tokens_per_word = static_cast<double>(long_prompt.prompt_tokens) / 1200;
    const double prefill_speed = per_second(long_prompt.prompt_tokens, long_prompt);
    const LoadReport some_tokens = complete(peer, 1, 1, 20, {.max_tokens = 32}, calibration + 3);
    const double decode_speed = per_second(32, some_tokens);
    const auto words_for = [&](int tokens) { return static_cast<int>(tokens / tokens_per_word); };
    const auto count = [](double value, int least, int most) {
      return static_cast<std::size_t>(std::clamp(static_cast<int>(value), least, most));
    };

    const int answer = static_cast<int>(count(seconds * decode_speed, 32, 256));
    const std::size_t decode1_requests = count(seconds * decode_speed / answer, 1, 50);
    const std::size_t decode8_requests = 8 * count(seconds * 2 * decode_speed / (8 * answer), 1, 20);
    const int prompt_tokens = 1024, prefix_tokens = 1800;
    const std::size_t prefill1_requests = count(seconds * prefill_speed / prompt_tokens, 1, 50);
    const std::size_t prefill8_requests = 8 * count(seconds * prefill_speed / (8 * prompt_tokens), 1, 20);
    // A chat about as often as the peer finishes one of its largest batches: often enough to count, too rarely to queue behind one another.
    const double interval = std::clamp(2048 / prefill_speed, 0.2, 1.0);
    const double load_seconds = std::clamp(50 * interval, 5.0, 20.0) / (quick ? 2 : 1);
    const std::size_t prefix_trials = quick ? 2 : 4;

    Measurement decode1 = against_peer("decode, 1 stream", "tokens/s", 1.0, true, 1);
    Measurement decode8 = against_peer("decode, 8 streams", "tokens/s", 1.05, true, 1);
    Measurement sampled8 = against_peer("decode, 8 streams, default sampling", "tokens/s", 1.05, true, 1);
    Measurement prefill1 = against_peer("prefill, 1 stream", "tokens/s", 1.0, true, 0);
    Measurement prefill8 = against_peer("prefill, 8 streams", "tokens/s", 1.0, true, 0);
    Measurement first50 = against_peer("first token of a chat under four long prefills, p50", "ms", 0.2, false, 1);
    Measurement first99 = against_peer("first token of a chat under four long prefills, p99 over all rounds", "ms", 0.2, false, 1);
    Measurement slowest = against_peer("slowest first token of a round", "ms", 0.2, false, 1);
    Measurement meanwhile = against_peer("prefill throughput meanwhile", "tokens/s", 1.0, true, 0);
    Measurement prefix_first = against_peer("first token, new prefix", "ms", 1.0, false, 1);
    Measurement prefix_again = against_peer("first token, repeated prefix", "ms", 1.0, false, 1);
    Measurement memory = against_peer("resident memory after the round", "MiB", 1.0, false, 0);
    slowest.compare = meanwhile.compare = prefix_first.compare = memory.compare = Compare::none;
    std::vector<std::vector<std::string>> texts(servers.size());
    std::vector<std::set<std::int64_t>> prompt_sums(servers.size());
    std::vector<LoadReport> all_chats(servers.size());

    const auto begin = std::chrono::steady_clock::now();
    int round = 0;
    for (; round < rounds && std::chrono::steady_clock::now() - begin < std::chrono::duration<double>(limit); ++round) {
      const std::uint64_t first = prompts.take(4'000'000);
      for (std::size_t i = 0; i < servers.size(); ++i) {
        const std::size_t index = (i + static_cast<std::size_t>(round)) % servers.size();
        const Server& server = servers[index];
        std::uint64_t prompt = first;
        const auto next = [&prompt](std::size_t n) { return std::exchange(prompt, prompt + n); };
        complete(server, 1, 1, 16, {.max_tokens = 8}, next(1));  // wakes the threads up
        if (wanted("decode")) {
          const LoadReport one = complete(server, 1, decode1_requests, 16, {.max_tokens = answer}, next(100));
          decode1.add(server.name, per_second(one.completion_tokens, one));
          texts[index].insert(texts[index].end(), one.texts.begin(), one.texts.end());
          prompt_sums[index].insert(one.prompt_tokens);
          const LoadReport eight = complete(server, 8, decode8_requests, 16, {.max_tokens = answer}, next(1000));
          decode8.add(server.name, per_second(eight.completion_tokens, eight));
          const LoadReport sampled = complete(server, 8, decode8_requests, 16, {.max_tokens = answer, .greedy = false}, next(1000));
          sampled8.add(server.name, per_second(sampled.completion_tokens, sampled));
        }
        if (wanted("prefill")) {
          const LoadReport one = complete(server, 1, prefill1_requests, words_for(prompt_tokens), {.max_tokens = 1}, next(100));
          prefill1.add(server.name, per_second(one.prompt_tokens, one));
          prompt_sums[index].insert(one.prompt_tokens);
          const LoadReport eight = complete(server, 8, prefill8_requests, words_for(prompt_tokens), {.max_tokens = 1}, next(1000));
          prefill8.add(server.name, per_second(eight.prompt_tokens, eight));
        }
        if (wanted("load")) {
          const UnderLoad load = chats_under_prefill(server, load_seconds, interval, words_for(prefix_tokens), next(2'000'000));
          first50.add(server.name, ms(quantile(load.chats.first_text, 0.5)));
          slowest.add(server.name, ms(quantile(load.chats.first_text, 1)));
          all_chats[index].merge(load.chats);
          meanwhile.add(server.name, load.prefill_per_second);
        }
        if (wanted("prefix")) {
          std::vector<float> fresh, again;
          for (std::size_t trial = 0; trial < prefix_trials; ++trial) {
            const std::string prefix = words(next(1), words_for(prefix_tokens));
            for (std::vector<float>* times : {&fresh, &again}) {
              const std::string tail = words(next(1), 12);
              LoadPlan plan;
              plan.port = server.port;
              plan.path = "/v1/completions";
              plan.requests = 1;
              plan.seconds = 300;
              plan.body = [&](std::size_t) { return completion(prefix + " " + tail, {.max_tokens = 4}); };
              const LoadReport answered = checked(server, plan, 4);
              times->push_back(answered.first_text.empty() ? answered.latency.front() : answered.first_text.front());
            }
          }
          prefix_first.add(server.name, ms(quantile(fresh, 0.5)));
          prefix_again.add(server.name, ms(quantile(again, 0.5)));
        }
        memory.add(server.name, static_cast<double>(server.process->resident_bytes()) / (1 << 20));
      }
    }

    for (std::size_t i = 0; i < servers.size(); ++i) {
      if (all_chats[i].requests > 0) first99.add(servers[i].name, ms(quantile(all_chats[i].first_text, 0.99)));
    }

    // Prompts must count the same on both sides, or the figures do not compare.
    if (prompt_sums[0] != prompt_sums[1]) throw std::runtime_error("the two servers count different prompt tokens for the same prompts");
    std::size_t equal = 0;
    for (std::size_t i = 0; i < std::min(texts[0].size(), texts[1].size()); ++i) equal += texts[0][i] == texts[1][i] ? 1 : 0;

    const auto without_folder = [](const std::string& command) {
      const std::size_t end = command.find(' ');
      return fs::path(command.substr(0, end)).filename().string() + (end == std::string::npos ? "" : command.substr(end));
    };
    report.notes = {
        "Model: " + fs::path(model).filename().string() + ", " + std::to_string(fs::file_size(model) >> 20) + " MiB.",
        "Peer: `" + without_folder(peer_command) + "`",
        "hearth: `" + without_folder(hearth_command) + "`",
        std::to_string(threads) + " threads, " + std::to_string(context) + " KV cells each; both run all the time, one is asked at a time.",
        "Decode: prompts of 16 words, " + std::to_string(answer) +
            " tokens per answer, generated tokens over the time from first request to "
            "last byte. Prefill: prompts of about " +
            std::to_string(prompt_tokens) + " tokens, 1 token per answer.",
        "Under load: four clients prefill about " + std::to_string(prefix_tokens) +
            " fresh tokens each, over and over; a chat of 12 words "
            "arrives every " +
            std::to_string(static_cast<int>(interval * 1000)) + " ms (" + std::to_string(all_chats[0].requests) +
            " chats each in all). Repeated prefix: about " + std::to_string(prefix_tokens) + " tokens, another end.",
        "Checked: every answer has exactly the tokens asked for; both servers count the same prompt tokens; greedy texts at 1 stream equal "
        "in " +
            std::to_string(equal) + " of " + std::to_string(texts[0].size()) + " answers.",
        std::to_string(round) + " interleaved rounds; median (min–max); ratios are taken inside a round."};
    for (Measurement* m : {&decode1, &decode8, &sampled8, &prefill1, &prefill8, &first50, &first99, &slowest, &meanwhile, &prefix_first,
                           &prefix_again, &memory}) {
      if (!m->rounds.empty()) report.measurements.push_back(*m);
    }
    publish(report, json_file, document, "engine " + name);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench_engine: %s\n", error.what());
    return 1;
  }
}
