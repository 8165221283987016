// Runs a graph whose nodes read or write compressed tensors: these nodes are handed to the CPU back end as its "custom" operation, which calls us on each
// of its threads, so that one graph stays one graph, computed by one pool of threads. Private to the back end.
#pragma once

#include <ggml-backend.h>
#include <ggml.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "turboquant/attention.h"
#include "turboquant/backend_cache.h"

namespace hearth::turboquant {

// The compressed tensor that a tensor is or looks into; null for all others.
using FindCache = std::function<CacheTensor*(const ggml_tensor*)>;

// Whether `op`, which reads or writes a compressed tensor by `compressed`, means something; throws std::runtime_error, saying what is wrong and what to
// do, where not: nobody else can compute it either. Learns the size of heads where the tensors are real.
void require_supported(const ggml_tensor& op, const std::function<bool(const ggml_tensor*)>& compressed, const FindCache& find);

// How long graphs have encoded rows and attended to them, in nanoseconds.
struct KvTimes {
  std::atomic<std::int64_t> encoding{0}, attention{0};
};

// One stream of graphs; one thread at a time.
class GraphRunner {
 public:
  // `times` outlives the runner.
  GraphRunner(ggml_backend_t cpu, KvTimes& times) : cpu_(cpu), times_(times) {}

  void set_threads(int threads) { threads_ = threads; }
  ggml_status compute(ggml_cgraph* graph, const FindCache& find);

 private:
  // What the rows of some operations of a graph see: layers share their mask.
  struct View {
    const ggml_tensor* mask = nullptr;
    const std::uint64_t* order = nullptr;
    int heads = 0, kv_heads = 0;
    VisibleTokens visible;
  };
  // A node that is ours, and what it was.
  struct Job {
    ggml_tensor* node;
    ggml_op op;
    std::array<std::int32_t, GGML_MAX_OP_PARAMS / sizeof(std::int32_t)> params{};
    CacheTensor* cache = nullptr;  // of SET_ROWS; the keys of FLASH_ATTN_EXT
    bool counts = false;           // the first that writes these cells
    Attention attention{};         // of FLASH_ATTN_EXT
    View* look = nullptr;          // the first of its view
    void* scratch = nullptr;
    std::atomic<std::int64_t>* time = nullptr;
    std::atomic<int> arrived{0};

    explicit Job(ggml_tensor* n);
  };
  // Scratch memory at a multiple of 64.
  struct Scratch {
    std::vector<std::uint8_t> bytes;
    void* at_least(std::size_t size);
  };

  static void run(ggml_tensor* node, int thread, int threads, void* job);
  static void write_rows(const Job& job, int thread, int threads);
  static void attend(Job& job, int thread, int threads);
  void find_sinks(const Job& write) const;
  Attention attention(const ggml_tensor& node, const FindCache& find) const;
  View* view(const Attention& attention, const ggml_tensor* mask, bool& first);
  ggml_status shift(const ggml_tensor& rope, CacheTensor& cache);

  ggml_backend_t cpu_;
  KvTimes& times_;
  int threads_ = GGML_DEFAULT_N_THREADS;
  std::deque<Job> jobs_;
  std::deque<View> views_;  // kept for their memory
  std::size_t used_views_ = 0;
  Scratch scratch_;
  std::vector<std::byte> room_;  // of ggml's objects
};

}  // namespace hearth::turboquant
