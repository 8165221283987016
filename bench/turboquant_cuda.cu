// Compressed KV attention on the GPU against ggml's own CUDA flash attention: first that it is right, then how fast. Decode attention of one query token at a depth,
// several layers in turn so that no cache holds what is read, and the encoding of new keys and values.
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <ggml-alloc.h>
#include <ggml-backend.h>
#include <ggml-cuda.h>
#include <ggml.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "turboquant/cuda.h"
#include "turboquant/half.h"

namespace {

using namespace hearth;
using namespace hearth::turboquant;
constexpr int dim = 128;

void check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(error));
  std::exit(1);
}
template <class T>
T must(Result<T> result) {
  if (result.ok()) return std::move(result).value();
  std::fprintf(stderr, "%s\n", result.error().message.c_str());
  std::exit(1);
}
void must(Result<void> result) {
  if (result.ok()) return;
  std::fprintf(stderr, "%s\n", result.error().message.c_str());
  std::exit(1);
}

template <class T>
struct Device {
  explicit Device(std::size_t count) { check(cudaMalloc(&data, count * sizeof(T)), "memory"); }
  explicit Device(const std::vector<T>& from) : Device(from.size()) {
    check(cudaMemcpy(data, from.data(), from.size() * sizeof(T), cudaMemcpyHostToDevice), "copy");
  }
  ~Device() { cudaFree(data); }
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;
  T* data = nullptr;
};

std::vector<float> normal(std::size_t count, unsigned seed, float sigma = 1) {
  std::mt19937 random(seed);
  std::normal_distribution<float> draw(0, sigma);
  std::vector<float> out(count);
  for (auto& x : out) x = draw(random);
  return out;
}
std::vector<std::uint16_t> halves(const std::vector<float>& from) {
  std::vector<std::uint16_t> out;
  for (const float x : from) out.push_back(float_to_half(x));
  return out;
}

struct Widths {
  const char* name;
  int keys, values;
};
constexpr Widths profiles[] = {{"k8v4", 8, 4}, {"k4v4", 4, 4}, {"k4v3", 4, 3}, {"k3v2", 3, 2}};

// Against attention in double precision over the decoded records; and the records against those that the CPU writes.
bool right() {
  bool good = true;
  const int kv_heads = 2;
  for (const auto& widths : {Widths{"k2v2", 2, 2}, Widths{"k3v2", 3, 2}, Widths{"k3v3", 3, 3}, Widths{"k4v3", 4, 3}, Widths{"k4v4", 4, 4},
                             Widths{"k8v4", 8, 4}}) {
    for (const int group : {1, 4, 8, 16}) {
      const int queries = group == 4 ? 2 : 1, heads = kv_heads * group;
      const std::int64_t tokens = group == 8 ? 1 : group == 1 ? 37 : 1777;
      const bool masked = group == 4, sinks = group == 16;
      const float softcap = group == 4 ? 5.f : 0.f, scale = 0.3f;
      const VectorFormat key_format{dim, widths.keys}, value_format{dim, widths.values};
      const Codec key_codec = must(Codec::create(key_format)), value_codec = must(Codec::create(value_format));
      auto cache = must(cuda::KvCache::create(key_format, value_format, kv_heads, tokens + 5));
      const auto count = static_cast<std::size_t>(tokens) * kv_heads * dim;
      auto k = halves(normal(count, 1)), v = halves(normal(count, 2, 0.02f));
      std::fill_n(v.begin(), dim, std::uint16_t{0});  // a zero vector
      const Device<std::uint16_t> device_k(k), device_v(v);
      must(cache->write(device_k.data, device_v.data, 0, static_cast<int>(tokens), nullptr));
      check(cudaDeviceSynchronize(), "encode");

      std::vector<double> decoded_k(count), decoded_v(count);
      std::size_t same = 0, records = 0;
      for (std::int64_t token = 0; token < tokens; ++token) {
        for (int head = 0; head < kv_heads; ++head) {
          for (const bool key : {true, false}) {
            const Codec& codec = key ? key_codec : value_codec;
            std::vector<std::uint8_t> record(codec.format().bytes()), expected(codec.format().bytes());
            must(cache->read(key, head, token, record.data()));
            const auto at = (static_cast<std::size_t>(token) * kv_heads + static_cast<std::size_t>(head)) * dim;
            codec.encode_half((key ? k : v).data() + at, expected.data());
            same += record == expected ? 1 : 0;
            ++records;
            float x[dim];
            codec.decode(record.data(), x);
            std::copy(x, x + dim, (key ? decoded_k : decoded_v).begin() + static_cast<std::ptrdiff_t>(at));
          }
        }
      }

      const auto q = normal(static_cast<std::size_t>(queries) * heads * dim, 3);
      std::vector<std::uint16_t> mask(static_cast<std::size_t>(queries * tokens));
      std::mt19937 random(4);
      for (auto& m : mask) m = random() % 4 == 0 ? std::uint16_t{0xfc00} : float_to_half(static_cast<float>(random() % 100) / -50.f);
      const auto sink = normal(static_cast<std::size_t>(heads), 5);
      const Device<float> device_q(q), device_sinks(sink), out(q.size());
      const Device<std::uint16_t> device_mask(mask);
      check(cudaMemset(out.data, 0xff, q.size() * sizeof(float)), "poison");
      must(cache->attend({.q = device_q.data,
                          .heads = heads,
                          .queries = queries,
                          .tokens = tokens,
                          .mask = masked ? device_mask.data : nullptr,
                          .mask_stride = tokens,
                          .sinks = sinks ? device_sinks.data : nullptr,
                          .scale = scale,
                          .softcap = softcap,
                          .out = out.data},
                         nullptr));
      std::vector<float> got(q.size());
      check(cudaMemcpy(got.data(), out.data, got.size() * sizeof(float), cudaMemcpyDeviceToHost), "attention");

      double error = 0, size = 0;
      for (int row = 0; row < queries; ++row) {
        for (int head = 0; head < heads; ++head) {
          const auto* query = q.data() + (static_cast<std::size_t>(row) * heads + head) * dim;
          std::vector<double> logit(static_cast<std::size_t>(tokens));
          double top = sinks ? sink[static_cast<std::size_t>(head)] : -INFINITY;
          for (std::int64_t token = 0; token < tokens; ++token) {
            const auto at = (static_cast<std::size_t>(token) * kv_heads + static_cast<std::size_t>(head / group)) * dim;
            double x = 0;
            for (int i = 0; i < dim; ++i) x += query[i] * decoded_k[at + static_cast<std::size_t>(i)];
            x *= scale;
            if (softcap != 0) x = softcap * std::tanh(x / softcap);
            if (masked) x += half_to_float(mask[static_cast<std::size_t>(row * tokens + token)]);
            logit[static_cast<std::size_t>(token)] = x;
            top = std::max(top, x);
          }
          std::vector<double> sum(dim);
          double total = sinks ? std::exp(sink[static_cast<std::size_t>(head)] - top) : 0;
          for (std::int64_t token = 0; token < tokens; ++token) {
            const double p = std::exp(logit[static_cast<std::size_t>(token)] - top);
            total += p;
            const auto at = (static_cast<std::size_t>(token) * kv_heads + static_cast<std::size_t>(head / group)) * dim;
            for (std::size_t i = 0; i < dim; ++i) sum[i] += p * decoded_v[at + i];
          }
          for (std::size_t i = 0; i < dim; ++i) {
            const double wanted = sum[i] / total, seen = got[(static_cast<std::size_t>(row) * heads + head) * dim + i];
            error += (seen - wanted) * (seen - wanted);
            size += wanted * wanted;
          }
        }
      }
      const double relative = size > 0 ? std::sqrt(error / size) : std::sqrt(error);
      const bool ok = relative < 2e-3 && same * 1000 >= records * 995;
      good = good && ok;
      std::printf("%s  group %2d  tokens %4lld  error %.2e  records equal to the CPU's %zu of %zu  %s\n", widths.name, group,
                  static_cast<long long>(tokens), relative, same, records, ok ? "ok" : "WRONG");
    }
  }
  return good;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// Microseconds a layer of ggml's own attention, layers in turn.
double ggml_attention(ggml_backend_t backend, ggml_type type, int heads, int kv_heads, std::int64_t tokens, int layers) {
  ggml_init_params params{.mem_size = std::size_t{16} << 20, .mem_buffer = nullptr, .no_alloc = true};
  ggml_context* context = ggml_init(params);
  std::vector<ggml_tensor*> tensors;
  ggml_cgraph* graph = ggml_new_graph(context);
  ggml_tensor* q = ggml_new_tensor_4d(context, GGML_TYPE_F32, dim, 1, heads, 1);
  ggml_tensor* mask = ggml_new_tensor_4d(context, GGML_TYPE_F16, tokens, 1, 1, 1);
  for (int layer = 0; layer < layers; ++layer) {
    ggml_tensor* k = ggml_new_tensor_4d(context, type, dim, tokens, kv_heads, 1);
    ggml_tensor* v = ggml_new_tensor_4d(context, type, dim, tokens, kv_heads, 1);
    tensors.push_back(k);
    tensors.push_back(v);
    ggml_tensor* out = ggml_flash_attn_ext(context, q, k, v, mask, 0.0884f, 0, 0);
    ggml_build_forward_expand(graph, out);
  }
  ggml_backend_buffer_t buffer = ggml_backend_alloc_ctx_tensors(context, backend);
  if (buffer == nullptr) {
    std::fprintf(stderr, "no room for ggml's tensors\n");
    std::exit(1);
  }
  const auto numbers = normal(std::size_t{1} << 20, 7);
  std::vector<std::uint8_t> pattern(ggml_row_size(type, static_cast<std::int64_t>(numbers.size())));
  ggml_quantize_chunk(type, numbers.data(), pattern.data(), 0, static_cast<std::int64_t>(numbers.size()) / dim, dim, nullptr);
  for (auto* tensor : tensors) {
    for (std::size_t at = 0; at < ggml_nbytes(tensor); at += pattern.size())
      ggml_backend_tensor_set(tensor, pattern.data(), at, std::min(pattern.size(), ggml_nbytes(tensor) - at));
  }
  ggml_backend_tensor_set(q, numbers.data(), 0, ggml_nbytes(q));
  const std::vector<std::uint8_t> zeros(ggml_nbytes(mask));
  ggml_backend_tensor_set(mask, zeros.data(), 0, zeros.size());
  const auto run = [&](int times) {
    const auto begin = std::chrono::steady_clock::now();
    for (int i = 0; i < times; ++i) ggml_backend_graph_compute_async(backend, graph);
    ggml_backend_synchronize(backend);
    return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - begin).count() / times / layers;
  };
  run(5);
  std::vector<double> rounds;
  for (int round = 0; round < 7; ++round) rounds.push_back(run(20));
  ggml_backend_buffer_free(buffer);
  ggml_free(context);
  return median(rounds);
}

double replayed(int times, const std::function<void(cudaStream_t)>& work) {
  cudaStream_t stream;
  check(cudaStreamCreate(&stream), "stream");
  work(stream);  // what is allocated once, is
  check(cudaStreamSynchronize(stream), "first run");
  cudaGraph_t graph;
  cudaGraphExec_t replay;
  check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal), "capture");
  work(stream);
  check(cudaStreamEndCapture(stream, &graph), "capture");
  check(cudaGraphInstantiate(&replay, graph, 0), "graph");
  const auto run = [&](int n) {
    check(cudaStreamSynchronize(stream), "synchronise");
    const auto begin = std::chrono::steady_clock::now();
    for (int i = 0; i < n; ++i) check(cudaGraphLaunch(replay, stream), "replay");
    check(cudaStreamSynchronize(stream), "replay");
    return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - begin).count() / n;
  };
  run(5);
  std::vector<double> rounds;
  for (int round = 0; round < 7; ++round) rounds.push_back(run(times));
  cudaGraphExecDestroy(replay);
  cudaGraphDestroy(graph);
  cudaStreamDestroy(stream);
  return median(rounds);
}

struct Layers {
  std::vector<std::unique_ptr<cuda::KvCache>> caches;
};

Layers filled(const Widths& widths, int kv_heads, std::int64_t tokens, int layers, const void* k, const void* v, int rows) {
  Layers out;
  for (int layer = 0; layer < layers; ++layer) {
    out.caches.push_back(must(cuda::KvCache::create({dim, widths.keys}, {dim, widths.values}, kv_heads, tokens)));
    for (std::int64_t at = 0; at < tokens; at += rows)
      must(out.caches.back()->write(k, v, at, static_cast<int>(std::min<std::int64_t>(rows, tokens - at)), nullptr));
  }
  check(cudaDeviceSynchronize(), "fill");
  return out;
}

}  // namespace

int main() {
  cudaDeviceProp properties;
  check(cudaGetDeviceProperties(&properties, 0), "no GPU");
  std::printf("%s, %d multiprocessors\n\n", properties.name, properties.multiProcessorCount);
  if (!right()) return 1;

  ggml_backend_t backend = ggml_backend_cuda_init(0);
  if (backend == nullptr) return 1;
  constexpr int kv_heads = 8, rows = 2048;
  const auto count = static_cast<std::size_t>(rows) * kv_heads * dim;
  const Device<std::uint16_t> k(halves(normal(count, 11))), v(halves(normal(count, 12)));
  for (const int group : {4, 8}) {
    for (const std::int64_t tokens : {8192, 32768, 131072}) {
      const int heads = kv_heads * group;
      const int ggml_layers = tokens > 100000 ? 2 : 6;
      const double f16 = ggml_attention(backend, GGML_TYPE_F16, heads, kv_heads, tokens, ggml_layers);
      const double q8 = ggml_attention(backend, GGML_TYPE_Q8_0, heads, kv_heads, tokens, 2 * ggml_layers);
      const double q4 = ggml_attention(backend, GGML_TYPE_Q4_0, heads, kv_heads, tokens, 4 * ggml_layers);
      std::printf("\nGQA %d, %lld tokens, %d KV heads: microseconds a layer (and f16's time ÷ it)\n", group, static_cast<long long>(tokens),
                  kv_heads);
      std::printf("  ggml f16   %8.1f\n  ggml q8_0  %8.1f  %5.2f\n  ggml q4_0  %8.1f  %5.2f\n", f16, q8, f16 / q8, q4, f16 / q4);
      const Device<float> q(normal(static_cast<std::size_t>(heads) * dim, 13)), out(static_cast<std::size_t>(heads) * dim);
      const Device<std::uint16_t> mask(std::vector<std::uint16_t>(static_cast<std::size_t>(tokens)));
      for (const auto& widths : profiles) {
        const int layers = tokens > 100000 ? 6 : 24;  // over 200 MB each
        const Layers model = filled(widths, kv_heads, tokens, layers, k.data, v.data, rows);
        const double time = replayed(20,
                                     [&](cudaStream_t stream) {
                                       for (const auto& cache : model.caches)
                                         must(cache->attend({.q = q.data,
                                                             .heads = heads,
                                                             .tokens = tokens,
                                                             .mask = mask.data,
                                                             .mask_stride = tokens,
                                                             .scale = 0.0884f,
                                                             .out = out.data},
                                                            stream));
                                     }) /
                            layers;
        std::printf("  %s       %8.1f  %5.2f   %4.0f GB/s read, %.2f times smaller than f16\n", widths.name, time, f16 / time,
                    static_cast<double>(model.caches[0]->bytes()) / time / 1e3,
                    4.0 * kv_heads * dim * static_cast<double>(tokens) / static_cast<double>(model.caches[0]->bytes()));
      }
    }
  }
  std::printf("\nencoding, %d KV heads, a layer: f16 read, tokens a second\n", kv_heads);
  for (const auto& widths : profiles) {
    const Layers model = filled(widths, kv_heads, 65536, 4, k.data, v.data, rows);
    std::int64_t at = 0;
    const double time = replayed(20,
                                 [&](cudaStream_t stream) {
                                   for (int i = 0; i < 32; ++i, at = (at + rows) % 65536)
                                     for (const auto& cache : model.caches) must(cache->write(k.data, v.data, at, rows, stream));
                                 }) /
                        128;
    std::printf("  %s  %6.0f GB/s  %.1f million tokens/s\n", widths.name, 2.0 * static_cast<double>(count) * 2 / time / 1e3, rows / time);
  }
  ggml_backend_free(backend);
  return 0;
}
