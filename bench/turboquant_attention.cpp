// Attention over compressed keys and values against ggml's own over f16, q8_0 and q4_0 (CPU): decoding one token and prefilling a chunk, by depth and
// by how many query heads share a KV head. Both sides run in the same ggml thread pool, ours as custom nodes, on tensors laid out as llama.cpp lays out
// its cache. Then: how fast rows are compressed, and what a token takes.
#include <ggml-cpu.h>
#include <ggml.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <stdexcept>
#include <vector>

#include "process.h"
#include "report.h"
#include "timing.h"
#include "turboquant/attention.h"
#include "turboquant/profile.h"

namespace {

using namespace hearth;
using bench::Measurement;
using bench::must;
using Steady = std::chrono::steady_clock;

constexpr int dim = 128, kv_heads = 2;

struct Free {
  void operator()(ggml_context* context) const { ggml_free(context); }
  void operator()(ggml_threadpool* pool) const { ggml_threadpool_free(pool); }
  void operator()(void* memory) const { std::free(memory); }
};
using Context = std::unique_ptr<ggml_context, Free>;
using Memory = std::unique_ptr<void, Free>;

Memory aligned(std::size_t bytes) {
  void* memory = std::aligned_alloc(64, (bytes + 63) / 64 * 64);
  if (memory == nullptr) throw std::bad_alloc();
  return Memory(memory);
}

// Rows like those of a cache: `tokens` rows of kv_heads vectors.
std::vector<float> rows_of(int tokens, unsigned seed) {
  constexpr std::size_t different = 4099 * dim;  // repeated: drawing normal numbers takes longer than everything else
  static std::vector<float> pool;
  if (pool.empty()) {
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    pool.resize(different);
    for (float& x : pool) x = normal(random);
  }
  std::vector<float> rows(static_cast<std::size_t>(tokens) * kv_heads * dim);
  for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = pool[(i + static_cast<std::size_t>(seed) * 7919 * dim) % different];
  return rows;
}

// One operation, ready to be run again and again.
class Operation {
 public:
  Operation(ggml_threadpool* pool, int threads) : pool_(pool), threads_(threads) {}
  virtual ~Operation() = default;
  Operation(const Operation&) = delete;
  Operation& operator=(const Operation&) = delete;

  void run() {
    before();
    ggml_cplan plan = ggml_graph_plan(graph_, threads_, pool_);
    if (plan.work_size > work_bytes_) {
      work_ = aligned(plan.work_size);
      work_bytes_ = plan.work_size;
    }
    plan.work_data = static_cast<std::uint8_t*>(work_.get());
    if (ggml_graph_compute(graph_, &plan) != GGML_STATUS_SUCCESS) throw std::runtime_error("ggml could not compute the graph");
  }
  const float* out() const { return static_cast<const float*>(out_->data); }

 protected:
  virtual void before() {}
  void make(std::size_t bytes) {
    context_.reset(ggml_init({.mem_size = bytes + (std::size_t{1} << 20), .mem_buffer = nullptr, .no_alloc = false}));
    if (!context_) throw std::bad_alloc();
    graph_ = ggml_new_graph(context_.get());
  }

  ggml_threadpool* pool_;
  int threads_;
  Context context_;
  ggml_cgraph* graph_ = nullptr;
  ggml_tensor* out_ = nullptr;

 private:
  Memory work_;
  std::size_t work_bytes_ = 0;
};

// What --kernels chose.
const turboquant::Kernels* chosen = &turboquant::best_kernels();

struct Inputs {
  int heads, queries, tokens;
  std::vector<float> q, k, v;  // [query][head], [token][kv head]
  std::vector<ggml_fp16_t>
      mask;  // [query][token]; causal: the last query sees all. Of a batch of sequences: all see the first half, of the rest each its own
  float scale = 1 / std::sqrt(static_cast<float>(dim));

  Inputs(int heads_, int queries_, int tokens_, bool batch)
      : heads(heads_), queries(queries_), tokens(tokens_), k(rows_of(tokens_, 1)), v(rows_of(tokens_, 2)) {
    std::mt19937 random(3);
    std::normal_distribution<float> normal;
    q.resize(static_cast<std::size_t>(heads) * static_cast<std::size_t>(queries) * dim);
    for (float& x : q) x = normal(random);
    mask.resize(static_cast<std::size_t>(queries) * static_cast<std::size_t>(tokens));
    for (int i = 0; i < queries; ++i) {
      for (int t = 0; t < tokens; ++t) {
        const bool hidden = batch ? t >= tokens / 2 && t % queries != i : t > tokens - queries + i;
        const float value = hidden ? -INFINITY : 0;
        mask[static_cast<std::size_t>(i) * static_cast<std::size_t>(tokens) + static_cast<std::size_t>(t)] = ggml_fp32_to_fp16(value);
      }
    }
  }
};

class GgmlAttention : public Operation {
 public:
  GgmlAttention(ggml_threadpool* pool, int threads, const Inputs& in, ggml_type type) : Operation(pool, threads) {
    const std::int64_t rows = std::int64_t{in.tokens} * kv_heads;
    const std::size_t row = ggml_row_size(type, dim);
    make(2 * row * static_cast<std::size_t>(rows) + 8 * in.q.size() + 2 * in.mask.size());
    ggml_context* c = context_.get();
    ggml_tensor* q = ggml_new_tensor_3d(c, GGML_TYPE_F32, dim, in.heads, in.queries);
    std::memcpy(q->data, in.q.data(), ggml_nbytes(q));
    ggml_tensor* mask = ggml_new_tensor_2d(c, GGML_TYPE_F16, in.tokens, in.queries);
    std::memcpy(mask->data, in.mask.data(), ggml_nbytes(mask));
    const auto cache = [&](const std::vector<float>& x) {
      ggml_tensor* all = ggml_new_tensor_2d(c, type, dim, rows);
      ggml_quantize_chunk(type, x.data(), all->data, 0, rows, dim, nullptr);
      return ggml_view_3d(c, all, dim, in.tokens, kv_heads, row * kv_heads, row, 0);
    };
    ggml_tensor *k = cache(in.k), *v = cache(in.v);
    out_ = ggml_flash_attn_ext(c, ggml_permute(c, q, 0, 2, 1, 3), k, v, mask, in.scale, 0, 0);
    ggml_build_forward_expand(graph_, out_);
  }
};

class OurAttention : public Operation {
 public:
  OurAttention(ggml_threadpool* pool, int threads, const Inputs& in, turboquant::Widths widths)
      : Operation(pool, threads),
        key_codec_(must(turboquant::Codec::create({dim, widths.keys}))),
        value_codec_(must(turboquant::Codec::create({dim, widths.values}))) {
    const auto compress = [&](const turboquant::Codec& codec, const std::vector<float>& x, std::vector<std::uint8_t>& rows) {
      const std::size_t record = codec.format().bytes();
      rows.resize(static_cast<std::size_t>(in.tokens) * kv_heads * record);
      codec.encode_row(x.data(), in.tokens * kv_heads, rows.data());
      return turboquant::CompressedRows{.codec = &codec, .data = rows.data(), .token_stride = record * kv_heads, .head_stride = record};
    };
    make(4 * in.q.size());
    attention_.heads = in.heads;
    attention_.kv_heads = kv_heads;
    attention_.queries = in.queries;
    attention_.tokens = in.tokens;
    attention_.q = in.q.data();
    attention_.q_head_stride = dim * sizeof(float);
    attention_.q_query_stride = attention_.q_head_stride * static_cast<std::size_t>(in.heads);
    attention_.k = compress(key_codec_, in.k, keys_);
    attention_.v = compress(value_codec_, in.v, values_);
    attention_.mask = in.mask.data();
    attention_.mask_query_stride = static_cast<std::size_t>(in.tokens) * 2;
    attention_.scale = in.scale;
    attention_.kernels = chosen;
    visible_.build(attention_);  // once for all layers of a model, so not timed
    attention_.visible = &visible_;
    scratch_ = aligned(turboquant::attention_scratch(attention_, threads));
    // Nodes of one graph: between two of them ggml waits for all threads.
    const auto node = [&](ggml_tensor* after, ggml_custom_op_t work) {
      return ggml_custom_4d(context_.get(), GGML_TYPE_F32, after == nullptr ? dim : 1, after == nullptr ? in.heads : 1,
                            after == nullptr ? in.queries : 1, 1, &after, after == nullptr ? 0 : 1, work, threads, this);
    };
    out_ = node(nullptr, [](ggml_tensor*, int thread, int count, void* self) {
      const auto& mine = *static_cast<OurAttention*>(self);
      turboquant::attention_compute(mine.attention_, thread, count, mine.scratch_.get());
    });
    attention_.out = static_cast<float*>(out_->data);
    ggml_build_forward_expand(graph_, node(out_, [](ggml_tensor*, int thread, int count, void* self) {
                                const auto& mine = *static_cast<OurAttention*>(self);
                                turboquant::attention_merge(mine.attention_, thread, count, mine.scratch_.get());
                              }));
  }

 protected:
  void before() override { turboquant::attention_begin(attention_, threads_, scratch_.get()); }

 private:
  turboquant::Codec key_codec_, value_codec_;
  std::vector<std::uint8_t> keys_, values_;
  turboquant::VisibleTokens visible_;
  turboquant::Attention attention_;
  Memory scratch_;
};

struct Width {
  const char* name;
  turboquant::Widths widths;
  double goal;  // of decoding at 32k tokens, against f16
};
constexpr Width widths[] = {
    {"8/4 bits", {8, 4}, NAN}, {"4/4 bits", {4, 4}, 1.5}, {"3/3 bits", {3, 3}, 1.0}, {"3/2 bits", {3, 2}, 1.0}, {"2/2 bits", {2, 2}, 1.0}};

double relative_difference(const float* a, const float* b, std::size_t n) {
  double difference = 0, size = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const double d = static_cast<double>(a[i]) - static_cast<double>(b[i]);
    difference += d * d;
    size += static_cast<double>(b[i]) * static_cast<double>(b[i]);
  }
  return std::sqrt(difference / size);
}

void compare(bench::Report& report, ggml_threadpool* pool, int threads, int rounds, double seconds, int group, int queries, int tokens,
             bool batch = false) {
  const Inputs in(group * kv_heads, queries, tokens, batch);
  struct Target {
    std::string name;
    std::unique_ptr<Operation> operation;
    std::vector<double> per_second;
  };
  std::vector<Target> targets;
  for (const ggml_type type : {GGML_TYPE_F16, GGML_TYPE_Q8_0, GGML_TYPE_Q4_0}) {
    targets.push_back({std::string("ggml ") + ggml_type_name(type), std::make_unique<GgmlAttention>(pool, threads, in, type), {}});
  }
  constexpr std::size_t peers = 3;
  for (const Width& width : widths) targets.push_back({width.name, std::make_unique<OurAttention>(pool, threads, in, width.widths), {}});
  std::vector<int> times;
  for (Target& target : targets) {  // the work is the same: answers differ by what the widths lose
    target.operation->run();
    const auto begin = Steady::now();
    target.operation->run();
    times.push_back(std::max(1, static_cast<int>(seconds / std::chrono::duration<double>(Steady::now() - begin).count())));
    const double difference = relative_difference(target.operation->out(), targets[0].operation->out(), in.q.size());
    if (!(difference < 0.7)) throw std::runtime_error(target.name + " differs from f16 by " + std::to_string(difference));
  }
  for (int round = 0; round < rounds; ++round) {
    for (std::size_t i = 0; i < targets.size(); ++i) {
      const std::size_t which = (i + static_cast<std::size_t>(round)) % targets.size();
      const auto begin = Steady::now();
      for (int n = 0; n < times[which]; ++n) targets[which].operation->run();
      targets[which].per_second.push_back(times[which] / std::chrono::duration<double>(Steady::now() - begin).count());
    }
  }
  for (std::size_t i = peers; i < targets.size(); ++i) {
    Measurement m;
    m.name = (batch          ? "decode of " + std::to_string(queries) + " sequences in one pool"
              : queries == 1 ? "decode"
                             : "prefill of " + std::to_string(queries)) +
             ", depth " + std::to_string(tokens) + ", " + std::to_string(group) + " query heads a KV head, " + targets[i].name;
    m.unit = "operations/s";
    m.compare = Measurement::Compare::ratio;
    m.subject = "hearth";
    m.base = targets[0].name;
    m.further_bases = {targets[1].name, targets[2].name};
    m.goal = queries == 1 && tokens == 32768 ? widths[i - peers].goal : NAN;
    for (std::size_t peer = 0; peer < peers; ++peer) m.rounds.emplace_back(targets[peer].name, targets[peer].per_second);
    m.rounds.emplace_back("hearth", targets[i].per_second);
    std::fprintf(stderr, "%s: %.1f/s, %.2f × f16, %.2f × q8_0, %.2f × q4_0\n", m.name.c_str(), bench::median(targets[i].per_second),
                 bench::median(m.comparison()), bench::median(m.comparison_with(targets[1].name)),
                 bench::median(m.comparison_with(targets[2].name)));
    report.measurements.push_back(std::move(m));
  }
}

// Compressing f32 rows as SET_ROWS does, in bytes of the f16 cache they stand for.
void compare_encoding(bench::Report& report, int rounds, double seconds) {
  constexpr int tokens = 512;
  const std::vector<float> x = rows_of(tokens, 1);
  std::vector<std::uint8_t> rows(x.size() * 2);
  const double gigabytes = static_cast<double>(x.size()) * 2 / 1e9;
  const auto rate = [&](const auto& work) {
    std::vector<double> values = bench::timed(rounds, seconds, work);
    for (double& value : values) value = gigabytes / value;
    return values;
  };
  std::vector<std::pair<std::string, std::vector<double>>> peers;
  for (const ggml_type type : {GGML_TYPE_F16, GGML_TYPE_Q8_0, GGML_TYPE_Q4_0}) {
    const ggml_from_float_t convert = ggml_get_type_traits_cpu(type)->from_float;
    peers.emplace_back(std::string("ggml ") + ggml_type_name(type),
                       rate([&] { convert(x.data(), rows.data(), static_cast<std::int64_t>(x.size())); }));
  }
  for (const int bits : {8, 4, 3, 2}) {
    const turboquant::Codec codec = must(turboquant::Codec::create({dim, bits}));
    Measurement m;
    m.name = "compress rows, one core, " + std::to_string(bits) + " bits (goal: 1 GB/s)";
    m.unit = "GB/s of f16";
    m.decimals = 2;
    m.compare = Measurement::Compare::ratio;
    m.subject = "hearth";
    m.base = peers[1].first;
    m.further_bases = {peers[2].first};
    m.goal = NAN;
    m.rounds = peers;
    m.rounds.emplace_back("hearth", rate([&] { codec.encode_row(x.data(), tokens * kv_heads, rows.data(), *chosen); }));
    std::fprintf(stderr, "%s: %.2f GB/s\n", m.name.c_str(), bench::median(m.rounds.back().second));
    report.measurements.push_back(std::move(m));
  }
}

// A model of 32 layers, 8 KV heads of 128: exact, not timed.
void compare_memory(bench::Report& report) {
  constexpr int layers = 32, heads = 8;
  const double f16 = 4.0 * dim * heads * layers * 100'000 / 1e6;
  for (const turboquant::Profile& profile : turboquant::profiles()) {
    turboquant::Profile bare = profile;
    bare.guard = 0;
    for (const auto& [what, p] : {std::pair{"", profile}, std::pair{", no guarded layers", bare}}) {
      Measurement m;
      m.name = "100,000 tokens of 32 layers of 8 KV heads, " + std::string(profile.name) + what;
      m.unit = "MB";
      m.compare = Measurement::Compare::ratio;
      m.subject = "ggml f16";
      m.base = "hearth";
      m.goal = profile.name == "k3v2" ? 5.2 : NAN;
      m.add("ggml f16", f16);
      m.add("ggml q8_0", f16 * 34 / 64);
      m.add("ggml q4_0", f16 * 18 / 64);
      m.add("hearth", static_cast<double>(turboquant::bytes_per_token(p, dim, heads, layers)) * 100'000 / 1e6);
      std::fprintf(stderr, "%s: %.2f times smaller\n", m.name.c_str(), bench::median(m.comparison()));
      report.measurements.push_back(std::move(m));
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Attention over compressed keys and values against ggml's own."};
  int rounds = 5, threads = 2;
  double seconds = 0.1;
  bool quick = false;
  std::vector<int> depths = {1024, 4096, 16384, 32768, 131072}, prefill_depths = {1024, 8192, 32768}, batch_depths = {16384},
                   groups = {4, 8};
  std::string json_file, document, kernels = chosen->name;
  app.add_option("--rounds", rounds, "Rounds of each measurement")->capture_default_str();
  app.add_option("--seconds", seconds, "Length of a turn")->capture_default_str();
  app.add_option("--threads", threads, "Threads of every target")->capture_default_str()->check(CLI::Range(1, 256));
  app.add_option("--depths", depths, "Tokens in the cache, decoding")->delimiter(',')->capture_default_str();
  app.add_option("--prefill-depths", prefill_depths, "Tokens in the cache, prefilling 128 (0: none)")
      ->delimiter(',')
      ->capture_default_str();
  app.add_option("--batch-depths", batch_depths, "Tokens in the cache, decoding 16 sequences that share half of them (0: none)")
      ->delimiter(',')
      ->capture_default_str();
  app.add_option("--groups", groups, "Query heads of one KV head")->delimiter(',')->capture_default_str();
  app.add_option("--kernels", kernels, "Instruction set of ours: portable, avx2, avx512")->capture_default_str();
  app.add_flag("--quick", quick, "Three short rounds, few depths");
  app.add_option("--json", json_file, "Write every round's values here");
  app.add_option("--write", document, "Replace the results in this document");
  CLI11_PARSE(app, argc, argv);
  if (quick) {
    rounds = 3;
    seconds = 0.03;
    depths = {4096, 32768};
    prefill_depths = {1024};
    batch_depths = {4096};
  }
  try {
    const turboquant::Kernels* found = nullptr;
    for (const turboquant::Kernels* set : turboquant::available_kernels()) found = set->name == kernels ? set : found;
    if (found == nullptr) throw std::runtime_error("this machine has no kernels \"" + kernels + "\"");
    chosen = found;
    ggml_cpu_init();
    ggml_threadpool_params parameters = ggml_threadpool_params_default(threads);
    const std::unique_ptr<ggml_threadpool, Free> pool(ggml_threadpool_new(&parameters));
    bench::Report report;
    report.title = "TurboQuant attention";
    report.command = std::string("bench/run turboquant") + (quick ? " --quick" : "");
    report.machine = bench::machine_line();
    for (const int group : groups) {
      for (const int depth : depths) compare(report, pool.get(), threads, rounds, seconds, group, 1, depth);
      for (const int depth : prefill_depths) {
        if (depth >= 128) compare(report, pool.get(), threads, rounds, seconds, group, 128, depth);
      }
      for (const int depth : batch_depths) {
        if (depth >= 32) compare(report, pool.get(), threads, rounds, seconds, group, 16, depth, true);
      }
    }
    compare_encoding(report, rounds, seconds);
    compare_memory(report);
    report.notes = {"Head size 128, 2 KV heads, " + std::to_string(threads) +
                        " threads of one ggml thread pool; widths are keys/values; kernels: " + std::string(chosen->name) + ".",
                    "A prefill is 128 tokens at the end of the cache, under a causal mask. Sequences of a batch share the first half of "
                    "the cache and have every 16th cell of the rest.",
                    "What the rows see is listed once for all layers of a model, so that is not timed.",
                    std::to_string(rounds) + " interleaved rounds; median (min–max); ratios are taken inside a round."};
    bench::publish(report, json_file, document, "turboquant");
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench_turboquant_attention: %s\n", error.what());
    return 1;
  }
}
