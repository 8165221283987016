// What hearth's own code costs on the way of a token, without a model or a network: the budget behind the proxy and engine figures.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <functional>
#include <memory>

#include "engine/scheduler_core.h"
#include "net/framing.h"
#include "net/sse.h"
#include "process.h"
#include "report.h"
#include "timing.h"
#include "wire/openai.h"

namespace {

using namespace hearth;
using bench::keep;
using bench::Measurement;
using bench::must;

// A decoder that costs nothing, so that a tick's time is the scheduler's own.
class FreeSampler final : public engine::Sampler {
 public:
  Result<engine::SampledToken> sample(int) override { return engine::SampledToken{.token = 7, .end = false}; }
  chat::TokenInfo info(int, engine::Token, int) override { return {}; }
};
class FreeDecoder final : public engine::Decoder {
 public:
  int context_cells() const override { return 1 << 28; }
  int max_sequences() const override { return 256; }
  int max_batch() const override { return 2048; }
  int max_request_tokens() const override { return 1 << 22; }
  std::int64_t bytes_per_cell() const override { return 1024; }
  bool can_share_prefix() const override { return true; }
  bool saves_all_positions() const override { return true; }
  void use_adapter(const engine::Adapter*) override {}
  Result<void> decode(std::span<const engine::BatchToken> batch) override {
    keep(batch);
    return {};
  }
  void share(engine::SeqId, engine::SeqId, std::int32_t, std::int32_t) override {}
  void remove(engine::SeqId, std::int32_t, std::int32_t) override {}
  Result<std::vector<std::uint8_t>> save(engine::SeqId) override { return std::vector<std::uint8_t>{}; }
  Result<void> restore(engine::SeqId, std::span<const std::uint8_t>) override { return {}; }
  Result<std::unique_ptr<engine::Sampler>> make_sampler(const engine::SamplerSpec&) override {
    return std::unique_ptr<engine::Sampler>(std::make_unique<FreeSampler>());
  }
  std::string piece(engine::Token, bool) const override { return " word"; }
};
class CountingSink final : public engine::GenerationSink {
 public:
  void on_started(int, int) override {}
  void on_delta(engine::SequenceDelta delta) override { tokens += delta.token_count; }
  void on_failed(Error) override {}  // when the scheduler goes, the endless generations do too
  std::size_t backlog() const override { return 0; }
  long tokens = 0;
};

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Times hearth's own steps on the way of a token."};
  int rounds = 9;
  double seconds = 0.2;
  bool quick = false;
  std::string json_file, document;
  app.add_option("--rounds", rounds, "Rounds of each measurement")->capture_default_str();
  app.add_option("--seconds", seconds, "Length of a round")->capture_default_str();
  app.add_flag("--quick", quick, "Three short rounds");
  app.add_option("--json", json_file, "Write every round's values here");
  app.add_option("--write", document, "Replace the results in this document");
  CLI11_PARSE(app, argc, argv);
  if (quick) {
    rounds = 3;
    seconds = 0.05;
  }
  try {
    bench::Report report;
    report.title = "Micro";
    report.command = std::string("bench/run micro") + (quick ? " --quick" : "");
    report.machine = bench::machine_line();
    const auto add = [&](const std::string& name, const std::string& unit, double scale, double units, const std::function<void()>& work) {
      Measurement m;
      m.name = name;
      m.unit = unit;
      m.decimals = 2;
      for (const double value : bench::timed(rounds, seconds, work)) m.add("hearth", value / units * scale);
      report.measurements.push_back(std::move(m));
    };

    constexpr int frames = 1000;
    wire::openai::AnswerHead head;
    head.id = "chatcmpl-0123456789abcdef01234567";
    head.created = 1'700'000'000;
    head.model = "hearth-nano-0";
    const chat::Event delta = chat::TextDelta{.choice = 0, .text = " file \"name\""};
    std::string stream;
    add("encode a text frame", "µs/frame", 1e6, frames, [&] {
      wire::openai::StreamEncoder encoder(head);
      stream.clear();
      for (int i = 0; i < frames; ++i) encoder.encode(delta, stream);
      keep(stream);
    });

    std::vector<net::SseEvent> events;
    add("SSE decode, one read per frame", "µs/frame", 1e6, frames, [&] {
      net::SseDecoder decoder;
      events.clear();
      const std::size_t step = stream.size() / frames;
      for (std::size_t at = 0; at < stream.size(); at += step) must(decoder.feed(std::string_view(stream).substr(at, step), events));
    });
    if (events.size() < frames) throw std::runtime_error("the decoder lost frames");
    chat::Events decoded;
    add("decode a text frame's JSON", "µs/frame", 1e6, static_cast<double>(events.size()), [&] {
      wire::openai::StreamDecoder decoder;
      decoded.clear();
      for (const net::SseEvent& event : events) must(decoder.decode(event.data, decoded));
    });
    if (decoded.size() < frames) throw std::runtime_error("the stream decoder lost frames");

    const std::string small =
        R"({"model":"hearth-nano-0","messages":[{"role":"user","content":"list the files here"}],"stream":true,"max_tokens":16})";
    add("decode a small chat request", "µs", 1e6, 1, [&] { keep(must(wire::openai::decode_chat(small))); });
    const chat::Request request = must(wire::openai::decode_chat(small));
    add("encode it for the upstream", "µs", 1e6, 1, [&] { keep(wire::openai::encode_request(request)); });
    std::string large = R"({"model":"m","messages":[{"role":"user","content":")";
    while (large.size() < 10'000'000) large += "Plain words, a line\\nbreak and \\\"quotes\\\". ";
    large += R"("}]})";
    add("decode a chat request of 10 MB", "ms", 1e3, 1, [&] { keep(must(wire::openai::decode_chat(large))); });

    const std::string block =
        "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:8085\r\nAccept: application/json\r\nContent-Type: application/json\r\n"
        "User-Agent: OpenAI/JS 6.49.0\r\nAuthorization: Bearer 0123456789abcdef0123456789abcdef\r\nx-stainless-lang: js\r\n"
        "x-stainless-retry-count: 0\r\nAccept-Encoding: gzip, deflate\r\nContent-Length: 120\r\n\r\n";
    add("framing guard on an SDK's header", "µs", 1e6, 1, [&] { must(net::check_request_framing(block)); });

    constexpr int sequences = 64;
    FreeDecoder decoder;
    engine::SchedulerOptions options;
    options.max_running = sequences;
    engine::SchedulerCore scheduler(decoder, options, Clock::system());
    const auto sink = std::make_shared<CountingSink>();
    std::vector<std::shared_ptr<std::atomic<bool>>> cancelled;
    for (int i = 0; i < sequences; ++i) {
      engine::Generation generation;
      for (int t = 0; t < 32; ++t) generation.prompt.push_back(i * 100 + t);
      generation.samplers.resize(1);
      generation.max_tokens = 3'000'000;
      generation.tenant = "tenant " + std::to_string(i % 4);
      generation.sink = sink;
      must(scheduler.check(generation));
      cancelled.push_back(std::make_shared<std::atomic<bool>>(false));
      scheduler.add(std::move(generation), cancelled.back());
    }
    while (sink->tokens < sequences * 4) scheduler.tick();
    const long before = sink->tokens;
    long ticks = 0;
    add("scheduler tick, 64 sequences, free decoder", "µs/tick", 1e6, 16, [&] {
      for (int i = 0; i < 16; ++i) scheduler.tick();
      ticks += 16;
    });
    if (sink->tokens - before != ticks * sequences) throw std::runtime_error("a sequence ran out during the measurement, or missed a tick");

    report.notes = {"One thread, no model, no network.", std::to_string(rounds) + " rounds; median (min–max)."};
    bench::publish(report, json_file, document, "micro");
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench_micro: %s\n", error.what());
    return 1;
  }
}
