// How fast a whole model writes at a depth, with compressed keys and values beside llama.cpp's f16, q8_0 and q4_0 caches.
//
// The cache is filled by repetition: a text of 256 tokens is read once, its saved state is laid out again and again at later positions, and restored. What attention
// costs does not depend on what the cells say; reading 32,768 tokens by a billion parameters would take most of an hour for each kind of cache.
#include <ggml.h>
#include <llama.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <memory>
#include <numeric>
#include <stdexcept>

#include "engine/backend.h"
#include "process.h"
#include "report.h"
#include "timing.h"
#include "turboquant/backend.h"
#include "turboquant/profile.h"

namespace {

using namespace hearth;
using bench::Measurement;
using bench::must;

struct Free {
  void operator()(llama_model* model) const { llama_model_free(model); }
  void operator()(llama_context* context) const { llama_free(context); }
};

constexpr int text = 256;

// A saved state of `text` cells as one of `depth` cells: its rows again and again. The layout is that of llama.cpp's KV cache (llama-kv-cache.cpp, state_write): a mark, the sequence,
// streams, cells, (position, sequences, sequence) of each, then for keys and for values of each layer type, row size, rows.
std::vector<std::uint8_t> repeated(const std::vector<std::uint8_t>& state, int depth) {
  std::size_t at = 0;
  std::vector<std::uint8_t> out;
  const auto take = [&]<class T>(T& value) {
    if (state.size() - at < sizeof value) throw std::runtime_error("a saved state ends too early");
    std::memcpy(&value, state.data() + at, sizeof value);
    at += sizeof value;
  };
  const auto put = [&out](const auto& value) {
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(&value);
    out.insert(out.end(), bytes, bytes + sizeof value);
  };
  std::uint32_t mark = 0, sequence = 0, streams = 0, cells = 0, transposed = 0, layers = 0;
  take(mark), take(sequence), take(streams), take(cells);
  if (streams != 1 || cells != text) throw std::runtime_error("this model's saved state has another layout");
  at += static_cast<std::size_t>(cells) * 3 * 4;
  take(transposed), take(layers);
  if (transposed != 0) throw std::runtime_error("flash attention is off");
  put(mark), put(sequence), put(streams), put(static_cast<std::uint32_t>(depth));
  for (int i = 0; i < depth; ++i) put(i), put(std::uint32_t{1}), put(std::int32_t{0});
  put(transposed), put(layers);
  for (std::uint32_t i = 0; i < 2 * layers; ++i) {
    std::int32_t type = 0;
    std::uint64_t row = 0;
    take(type), take(row);
    put(type), put(row);
    const std::size_t bytes = row * cells;
    if (state.size() - at < bytes) throw std::runtime_error("a saved state ends too early");
    for (int done = 0; done < depth; done += text) {
      const std::size_t rows = static_cast<std::size_t>(std::min(text, depth - done));
      out.insert(out.end(), state.begin() + static_cast<std::ptrdiff_t>(at), state.begin() + static_cast<std::ptrdiff_t>(at + rows * row));
    }
    at += bytes;
  }
  return out;
}

class Session {
 public:
  Session(const std::string& path, const std::string& cache, ggml_type type, int context, int threads) {
    llama_model_params params = llama_model_default_params();
    std::array<ggml_backend_dev_t, 2> devices{};
    params.devices = devices.data();
    pool_ = must(engine::ThreadPool::create(threads));
    if (type == GGML_TYPE_COUNT) {
      turboquant::BackendOptions options;
      options.profile = cache;
      backend_ = must(turboquant::Backend::create(options));
      devices[0] = backend_->device();
      type = GGML_TYPE_F16;
    }
    engine::LogCapture log;
    model_.reset(llama_model_load_from_file(path.c_str(), params));
    if (!model_) throw std::runtime_error(path + " with " + cache + ": " + log.errors("cannot be loaded"));
    llama_context_params shape = llama_context_default_params();
    shape.n_ctx = static_cast<std::uint32_t>(context);
    shape.n_batch = shape.n_ubatch = text;
    shape.n_threads = shape.n_threads_batch = pool_->threads();
    shape.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
    shape.type_k = shape.type_v = type;
    context_.reset(llama_init_from_model(model_.get(), shape));
    if (!context_) throw std::runtime_error(path + " with " + cache + ": " + log.errors("no context"));
    pool_->attach(context_.get());
    std::vector<llama_token> tokens(text);
    std::iota(tokens.begin(), tokens.end(), 100);
    decode(tokens);
    state_.resize(llama_state_seq_get_size(context_.get(), 0));
    if (llama_state_seq_get_data(context_.get(), state_.data(), state_.size(), 0) != state_.size()) throw std::runtime_error("no state");
  }

  void fill(int depth) {
    llama_memory_clear(llama_get_memory(context_.get()), false);
    const auto state = repeated(state_, depth);
    if (llama_state_seq_set_data(context_.get(), state.data(), state.size(), 0) != state.size())
      throw std::runtime_error("the state was not taken");
  }

  double tokens_per_second(int count) {
    const auto begin = std::chrono::steady_clock::now();
    for (int i = 0; i < count; ++i) decode({100 + i});
    return count / std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  }

 private:
  void decode(std::vector<llama_token> tokens) {
    if (llama_decode(context_.get(), llama_batch_get_one(tokens.data(), static_cast<int>(tokens.size()))) != 0)
      throw std::runtime_error("decoding failed");
  }

  std::unique_ptr<engine::ThreadPool> pool_;
  std::unique_ptr<turboquant::Backend> backend_;
  std::unique_ptr<llama_model, Free> model_;
  std::unique_ptr<llama_context, Free> context_;
  std::vector<std::uint8_t> state_;
};

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"How fast a model writes at a depth, with compressed keys and values and with f16, q8_0 and q4_0."};
  app.footer("Example:\n  bench_turboquant_model --model my.gguf --depth 8192,32768");
  std::string model, name, json_file, document;
  std::vector<int> depths{8192, 32768};
  int rounds = 5, tokens = 12, threads = 0;
  bool quick = false;
  app.add_option("--model", model, "GGUF file")->required()->check(CLI::ExistingFile);
  app.add_option("--name", name, "What to call it; empty = the file's name");
  app.add_option("--depth", depths, "Tokens in the cache")->delimiter(',')->check(CLI::Range(text, 1 << 20))->capture_default_str();
  app.add_option("--rounds", rounds, "Rounds")->check(CLI::Range(1, 1000))->capture_default_str();
  app.add_option("--threads", threads, "0 = as many as there are cores")->capture_default_str();
  app.add_flag("--quick", quick, "One round, the first depth alone");
  app.add_option("--json", json_file, "Write every round's values here");
  app.add_option("--write", document, "Replace the results in this document");
  CLI11_PARSE(app, argc, argv);
  if (quick) rounds = 1, depths.resize(1);
  if (name.empty()) name = std::filesystem::path(model).stem().string();
  try {
    engine::start_backend();
    bench::Report report;
    report.title = "Whole model at a depth";
    report.command = std::string("bench/run turboquant-model") + (quick ? " --quick" : "");
    report.machine = bench::machine_line();
    const int room = *std::max_element(depths.begin(), depths.end()) + rounds * tokens + 2 * text;
    std::vector<std::pair<std::string, std::unique_ptr<Session>>> sessions;
    for (const auto& [cache, type] : {std::pair{"f16", GGML_TYPE_F16},
                                      {"q8_0", GGML_TYPE_Q8_0},
                                      {"q4_0", GGML_TYPE_Q4_0},
                                      {"k8v4", GGML_TYPE_COUNT},
                                      {"k4v4", GGML_TYPE_COUNT},
                                      {"k4v3", GGML_TYPE_COUNT},
                                      {"k3v2", GGML_TYPE_COUNT}})
      sessions.emplace_back(cache, std::make_unique<Session>(model, cache, type, room, threads));
    for (const int depth : depths) {
      Measurement speed;
      speed.name = name + ": writing at " + std::to_string(depth);
      speed.unit = "tokens/s";
      speed.compare = Measurement::Compare::ratio;
      speed.subject = "k4v4";
      speed.base = "f16";
      speed.further_bases = {"q8_0", "q4_0"};
      speed.goal = std::nan("");
      for (auto& [cache, session] : sessions) session->fill(depth);
      for (int round = 0; round < rounds; ++round) {
        for (std::size_t i = 0; i < sessions.size(); ++i) {
          auto& [cache, session] = sessions[(i + static_cast<std::size_t>(round)) % sessions.size()];
          speed.add(cache, session->tokens_per_second(tokens));
        }
      }
      report.measurements.push_back(std::move(speed));
    }
    report.notes.push_back(std::to_string(rounds) + " interleaved rounds of " + std::to_string(tokens) +
                           " tokens, one sequence; median (min–max). Cells hold a text of 256 tokens again and again.");
    bench::publish(report, json_file, document, "turboquant-model");
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench_turboquant_model: %s\n", error.what());
    return 1;
  }
}
