// What speculation gains, and what it costs where there is nothing to gain.
//
// The code-edit replay: a source file is in the prompt, the answer is that file with an identifier renamed. No model small enough to be made here can edit
// code, so the answer is dictated: models with random weights decode every row and search its logits as always, and then the next token of the
// script is taken instead of the winner. So the time is that of real decoding and real verification; what is assumed is that a model asked for
// such an edit writes it without mistakes. How much of it prompt lookup guesses right is not assumed but comes out of the two texts.
//
// The draft model: the demonstration model and a copy of it without its last layers answer real requests, nothing dictated.
#include <common.h>
#include <llama.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <memory>
#include <mutex>
#include <stdexcept>

#include "engine/backend.h"
#include "engine/engine.h"
#include "engine/llama_decoder.h"
#include "engine/ngram_draft.h"
#include "engine/scheduler_core.h"
#include "process.h"
#include "report.h"

namespace {

using namespace hearth;
using bench::Measurement;
using Clock = std::chrono::steady_clock;

template <class T>
T must(Result<T> result) {
  if (!result.ok()) throw std::runtime_error(result.error().message);
  return std::move(result).value();
}

double seconds_since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

// ---- the replay ----

// The real decoder, but its greedy sampler says what the script says after having found what the model would say.
class DictatedSampler final : public engine::Sampler {
 public:
  DictatedSampler(std::unique_ptr<engine::Sampler> real, const std::vector<engine::Token>& script)
      : real_(std::move(real)), script_(script) {}
  Result<engine::SampledToken> sample(int row) override {
    auto sampled = real_->sample(row);
    if (!sampled.ok()) return sampled;
    return engine::SampledToken{.token = script_.at(next_++), .end = false};
  }
  chat::TokenInfo info(int row, engine::Token token, int top) override { return real_->info(row, token, top); }

 private:
  std::unique_ptr<engine::Sampler> real_;
  const std::vector<engine::Token>& script_;
  std::size_t next_ = 0;
};
class DictatedDecoder final : public engine::Decoder {
 public:
  DictatedDecoder(engine::Decoder& real, const std::vector<engine::Token>& script) : real_(real), script_(script) {}
  int context_cells() const override { return real_.context_cells(); }
  int max_sequences() const override { return real_.max_sequences(); }
  int max_batch() const override { return real_.max_batch(); }
  int max_request_tokens() const override { return real_.max_request_tokens(); }
  std::int64_t bytes_per_cell() const override { return real_.bytes_per_cell(); }
  bool can_share_prefix() const override { return real_.can_share_prefix(); }
  bool saves_all_positions() const override { return real_.saves_all_positions(); }
  void use_adapter(const engine::Adapter* adapter) override { real_.use_adapter(adapter); }
  Result<void> decode(std::span<const engine::BatchToken> batch) override { return real_.decode(batch); }
  void share(engine::SeqId from, engine::SeqId to, std::int32_t begin, std::int32_t end) override { real_.share(from, to, begin, end); }
  void remove(engine::SeqId seq, std::int32_t begin, std::int32_t end) override { real_.remove(seq, begin, end); }
  Result<std::vector<std::uint8_t>> save(engine::SeqId seq) override { return real_.save(seq); }
  Result<void> restore(engine::SeqId seq, std::span<const std::uint8_t> state) override { return real_.restore(seq, state); }
  Result<std::unique_ptr<engine::Sampler>> make_sampler(const engine::SamplerSpec& spec) override {
    auto real = real_.make_sampler(spec);
    if (!real.ok()) return std::move(real).error();
    return std::unique_ptr<engine::Sampler>(std::make_unique<DictatedSampler>(std::move(*real), script_));
  }
  std::string piece(engine::Token token, bool special) const override { return real_.piece(token, special); }

 private:
  engine::Decoder& real_;
  const std::vector<engine::Token>& script_;
};

struct ReplaySink final : engine::GenerationSink {
  void on_started(int, int) override {}
  void on_delta(engine::SequenceDelta delta) override {
    if (tokens == 0) first = Clock::now();
    tokens += delta.token_count;
    drafted += delta.drafted;
    accepted += delta.accepted;
    text += delta.text;
    over = over || delta.finished.has_value();
  }
  void on_failed(Error failure) override { throw std::runtime_error(failure.message); }
  std::size_t backlog() const override { return 0; }
  Clock::time_point first;
  int tokens = 0, drafted = 0, accepted = 0;
  std::string text;
  bool over = false;
};

struct Replay {
  double tokens_per_second = 0;  // from the first token on: the prompt costs the same either way
  int drafted = 0, accepted = 0;
};

std::string file_text(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw std::runtime_error("cannot read " + path);
  return std::string(std::istreambuf_iterator<char>(in), {});
}

std::string renamed(std::string text, const std::string& from, const std::string& to) {
  for (std::size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size()) text.replace(at, from.size(), to);
  return text;
}

class Editor {
 public:
  Editor(const std::string& model, const std::string& file, const std::string& from, const std::string& to, int most_tokens, int threads) {
    engine::start_backend();
    threads_ = must(engine::ThreadPool::create(threads));
    model_.reset(llama_model_load_from_file(model.c_str(), llama_model_default_params()));
    if (!model_) throw std::runtime_error("cannot load " + model);
    const llama_vocab* vocab = llama_model_get_vocab(model_.get());
    const std::string before = file_text(file), after = renamed(before, from, to);
    if (before == after) throw std::runtime_error(file + " does not contain " + from);
    prompt_ = common_tokenize(vocab, "Rename " + from + " to " + to + " in this file and answer with all of it:\n\n" + before + "\n\n",
                              true, false);
    script_ = common_tokenize(vocab, after, false, false);
    if (static_cast<int>(script_.size()) > most_tokens) script_.resize(static_cast<std::size_t>(most_tokens));
    const int cells = static_cast<int>(prompt_.size() + script_.size()) + 512;
    decoder_ = must(engine::LlamaDecoder::create(model_.get(), *threads_, {.context = cells, .sequences = 8}));
  }
  std::size_t prompt_tokens() const { return prompt_.size(); }
  std::size_t answer_tokens() const { return script_.size(); }

  Replay run(bool speculate) {
    DictatedDecoder decoder(*decoder_, script_);
    engine::NgramDraft lookup(8, engine::Speculation{}.lookup_tokens);
    engine::Speculator speculator(lookup, {}, 8);
    engine::SchedulerOptions options;
    options.prefix_cache_bytes = 0;
    const auto sink = std::make_shared<ReplaySink>();
    {
      engine::SchedulerCore core(decoder, options, hearth::Clock::system(), speculate ? &speculator : nullptr);
      engine::Generation generation;
      generation.prompt = prompt_;
      generation.max_tokens = static_cast<int>(script_.size());
      generation.samplers.resize(1);
      generation.samplers[0].temperature = 0;
      generation.sink = sink;
      core.add(std::move(generation), std::make_shared<std::atomic<bool>>(false));
      while (!sink->over) core.tick();
    }
    if (sink->tokens != static_cast<int>(script_.size()))
      throw std::runtime_error("the answer has another number of tokens than the script");
    if (expected_.empty()) expected_ = sink->text;
    if (sink->text != expected_) throw std::runtime_error("the answer is not the script");
    return {(sink->tokens - 1) / seconds_since(sink->first), sink->drafted, sink->accepted};
  }

 private:
  struct Free {
    void operator()(llama_model* model) const { llama_model_free(model); }
  };
  std::unique_ptr<engine::ThreadPool> threads_;
  std::unique_ptr<llama_model, Free> model_;
  std::unique_ptr<engine::LlamaDecoder> decoder_;
  std::vector<engine::Token> prompt_, script_;
  std::string expected_;
};

// ---- real answers ----

class AnswerSink final : public engine::EventSink {
 public:
  void on_events(chat::Events events) override {
    const std::lock_guard lock(mutex_);
    for (auto& event : events) {
      if (const auto* delta = std::get_if<chat::TextDelta>(&event)) text += delta->text;
      if (const auto* end = std::get_if<chat::Usage>(&event)) usage = *end, over_ = true;
      if (const auto* failed = std::get_if<chat::Failed>(&event)) error = failed->error.message, over_ = true;
    }
    changed_.notify_all();
  }
  std::size_t backlog() const override { return 0; }
  void wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return over_; });
    if (!error.empty()) throw std::runtime_error(error);
  }
  std::string text, error;
  chat::Usage usage;

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool over_ = false;
};

constexpr const char* requests[] = {"list all files in the current folder, newest first",
                                    "show the disk usage of every folder under /var",
                                    "count the lines of all python files",
                                    "copy the folder to the remote host over ssh",
                                    "find files larger than 100 megabytes",
                                    "replace tabs with spaces in all text files",
                                    "show which process listens on port 8080",
                                    "compress a folder into an archive",
                                    "print the last ten lines of a log file and follow it",
                                    "change the owner of a folder and everything in it",
                                    "create a new git branch and switch to it",
                                    "list running docker containers",
                                    "search for a word in all files below this folder",
                                    "show free memory in megabytes",
                                    "download a file and save it under another name",
                                    "sort a file by its second column"};

struct Answers {
  double tokens_per_second = 0;
  chat::Usage usage;
  std::vector<std::string> texts;
};

Answers answers(engine::Engine& engine, int tokens) {
  Answers out;
  const auto begin = Clock::now();
  for (const char* text : requests) {
    chat::Request request;
    chat::Message message;
    message.content.push_back({.kind = chat::ContentPart::Kind::text, .text = text});
    request.messages.push_back(std::move(message));
    request.sampling.temperature = 0.0F;
    request.max_tokens = tokens;
    request.ignore_eos = true;
    auto sink = std::make_shared<AnswerSink>();
    auto handle = must(engine.generate(request, sink));
    sink->wait();
    out.texts.push_back(sink->text);
    out.usage.completion_tokens += sink->usage.completion_tokens;
    out.usage.drafted_tokens += sink->usage.drafted_tokens;
    out.usage.accepted_tokens += sink->usage.accepted_tokens;
  }
  out.tokens_per_second = out.usage.completion_tokens / seconds_since(begin);
  return out;
}

std::unique_ptr<engine::Engine> load(const std::string& model, int threads, const engine::Speculation& speculation) {
  engine::EngineOptions options;
  options.model_path = model;
  options.model_id = "bench";
  options.threads = threads;
  options.context = 2048;
  options.speculation = speculation;
  options.scheduler.prefix_cache_bytes = 0;
  return must(engine::Engine::load(options));
}

Measurement faster(std::string name, const char* subject, double goal) {
  Measurement m;
  m.name = std::move(name);
  m.unit = "tokens/s";
  m.compare = Measurement::Compare::ratio;
  m.subject = subject;
  m.base = "off";
  m.goal = goal;
  m.decimals = 1;
  return m;
}

Measurement share(std::string name) {
  Measurement m;
  m.name = std::move(name);
  m.unit = "%";
  m.decimals = 0;
  return m;
}

double percent(int accepted, int drafted) { return drafted > 0 ? 100.0 * accepted / drafted : 0; }

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Measures speculation against decoding without it."};
  std::vector<std::string> replays;
  std::string model, draft, json_file, document, file, from = "FairQueue", to = "TurnQueue";
  int rounds = 5, most_tokens = 4096, tokens = 96, threads = 0;
  bool quick = false;
  app.add_option("--replay", replays, "NAME=GGUF: replay the code edit on this model");
  app.add_option("--file", file, "The file that is edited");
  app.add_option("--rename", from, "What is renamed in it")->capture_default_str();
  app.add_option("--to", to, "Its new name")->capture_default_str();
  app.add_option("--model", model, "Answer real requests with this model");
  app.add_option("--draft", draft, "… and this draft model");
  app.add_option("--threads", threads, "0 = as many as there are cores")->capture_default_str();
  app.add_option("--rounds", rounds, "Rounds")->capture_default_str();
  app.add_flag("--quick", quick, "One short round");
  app.add_option("--json", json_file, "Write every round's values here");
  app.add_option("--write", document, "Replace the results in this document");
  CLI11_PARSE(app, argc, argv);
  if (quick) rounds = 1, most_tokens = 200, tokens = 32;
  try {
    engine::route_engine_logs();
    bench::Report report;
    report.title = "Speculation";
    report.command = std::string("bench/run speculation") + (quick ? " --quick" : "");
    report.notes.push_back(threads == 0 ? "A thread for each core." : "Threads: " + std::to_string(threads) + ".");
    report.machine = bench::machine_line();
    int alike = 0, unlike = 0;
    for (const std::string& replay : replays) {
      const std::size_t sign = replay.find('=');
      if (sign == std::string::npos) throw std::runtime_error("--replay takes NAME=GGUF, not " + replay);
      const std::string name = replay.substr(0, sign);
      Editor editor(replay.substr(sign + 1), file, from, to, most_tokens, threads);
      Measurement speed = faster("code-edit replay, " + name, "lookup", 1.5), right = share("guesses right in it");
      for (int round = 0; round < rounds; ++round) {
        for (const bool speculate : {round % 2 == 1, round % 2 == 0}) {
          const Replay done = editor.run(speculate);
          speed.add(speculate ? "lookup" : "off", done.tokens_per_second);
          if (speculate) right.add("lookup", percent(done.accepted, done.drafted));
        }
      }
      report.notes.push_back(name + ": " + std::to_string(editor.prompt_tokens()) + " tokens of prompt, " +
                             std::to_string(editor.answer_tokens()) + " of answer.");
      report.measurements.push_back(std::move(speed));
      report.measurements.push_back(std::move(right));
    }
    if (!model.empty()) {
      using Mode = engine::Speculation::Mode;
      const auto off = load(model, threads, {.mode = Mode::off});
      const auto lookup = load(model, threads, {.mode = Mode::lookup});
      const auto adaptive = load(model, threads, {.mode = Mode::draft, .draft_model = draft});
      const auto always = load(model, threads, {.mode = Mode::draft, .draft_model = draft, .max_draft = 4, .adaptive = false});
      Measurement with_lookup = faster("short answers of the demonstration model", "lookup", 0.97),
                  with_draft = faster("the same", "draft", 0.97), unchecked = faster("the same, four guesses always", "draft", 0),
                  right = share("guesses right in it");
      unchecked.compare = Measurement::Compare::none;
      const std::vector<std::string> expected = answers(*off, tokens).texts;
      const auto check = [&](const Answers& given) {
        for (std::size_t i = 0; i < expected.size(); ++i) (given.texts[i] == expected[i] ? alike : unlike)++;
        return given;
      };
      check(answers(*lookup, tokens)), check(answers(*adaptive, tokens));
      for (int round = 0; round < rounds; ++round) {
        const double plain = answers(*off, tokens).tokens_per_second;
        with_lookup.add("off", plain), with_draft.add("off", plain), unchecked.add("off", plain);
        with_lookup.add("lookup", check(answers(*lookup, tokens)).tokens_per_second);
        with_draft.add("draft", check(answers(*adaptive, tokens)).tokens_per_second);
        const Answers forced = check(answers(*always, tokens));
        unchecked.add("draft", forced.tokens_per_second);
        right.add("draft", percent(forced.usage.accepted_tokens, forced.usage.drafted_tokens));
      }
      for (auto* m : {&with_lookup, &with_draft, &unchecked, &right}) report.measurements.push_back(std::move(*m));
    }
    report.notes.push_back(
        "One request at a time, greedy. Of the demonstration model's " + std::to_string(alike + unlike) + " answers with speculation " +
        std::to_string(alike) +
        " are those without, character by character; where one is not, f16 rounds a row among others a little differently than alone.");
    report.notes.push_back(
        "The replay's answer is dictated (see the head of `bench/speculation.cpp`): its decoding, guessing and checking are real, its "
        "wording is not the model's.");
    report.notes.push_back(std::to_string(rounds) + " rounds, off and on in turns; median (min–max).");
    bench::publish(report, json_file, document, "speculation");
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench_speculation: %s\n", error.what());
    return 1;
  }
}
