// An attention operation over compressed rows with everything it points to, and its answer in double precision over the decoded rows.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "turboquant/attention.h"
#include "turboquant/half.h"

namespace hearth::turboquant::test {

struct Shape {
  int dim_k = 128, dim_v = 128, bits_k = 4, bits_v = 4;
  int heads = 4, kv_heads = 1, queries = 1, tokens = 100, streams = 1;
  bool masked = false, causal = false, sinks = false;
  int mask_heads = 1, mask_streams = 1;
  float max_bias = 0, softcap = 0;
  int protected_tokens = 0;  // first tokens a row sees that may have a second record; of these, some have one
  bool protect_keys = true, protect_values = true;
  int out_dim = 0;
  float sharpness = 1;  // of the logits
};

class Problem {
 public:
  Problem(const Shape& shape, unsigned seed)
      : s(shape),
        k_codec(Codec::create({s.dim_k, s.bits_k}).value()),
        v_codec(Codec::create({s.dim_v, s.bits_v}).value()),
        k8_codec(Codec::create({s.dim_k, 8}).value()),
        v8_codec(Codec::create({s.dim_v, 8}).value()),
        random(seed) {
    std::normal_distribution<float> normal;
    const auto fill = [&](std::vector<float>& x, std::size_t n, float size) {
      x.resize(n);
      for (float& value : x) value = size * normal(random);
    };
    fill(q, count(s.streams, s.queries, s.heads, s.dim_k), s.sharpness);
    const std::size_t rows = count(s.streams, s.tokens, s.kv_heads);
    fill(k, rows * u(s.dim_k), 1);
    fill(v, rows * u(s.dim_v), 1);
    // A common part, as real keys and values have it: without it attention averages to nothing.
    for (std::size_t i = 0; i < v.size(); ++i) v[i] += std::sin(static_cast<float>(i % u(s.dim_v)));
    compress(k_codec, k, k_rows);
    compress(v_codec, v, v_rows);
    if (s.masked || s.causal || s.max_bias > 0) {
      mask.resize(count(s.mask_streams, s.mask_heads, s.queries, s.tokens));
      for (std::size_t i = 0; i < mask.size(); ++i) {
        const int t = static_cast<int>(i % u(s.tokens)), query = static_cast<int>(i / u(s.tokens) % u(s.queries));
        float value = s.max_bias > 0 ? -static_cast<float>(s.tokens - t) : 0;
        if (s.masked && random() % 3 == 0) value = -std::numeric_limits<float>::infinity();
        if (s.causal && t > s.tokens - s.queries + query) value = -std::numeric_limits<float>::infinity();
        mask[i] = float_to_half(value);
      }
    }
    if (s.sinks) fill(sinks, u(s.heads), 1);
    out_dim = s.out_dim == 0 ? s.dim_v : s.out_dim;
    if (s.protected_tokens > 0) protect();
  }

  Attention attention() {
    Attention a;
    a.heads = s.heads;
    a.kv_heads = s.kv_heads;
    a.queries = s.queries;
    a.tokens = s.tokens;
    a.streams = s.streams;
    a.q = q.data();
    a.q_head_stride = u(s.dim_k) * 4;
    a.q_query_stride = a.q_head_stride * u(s.heads);
    a.q_stream_stride = a.q_query_stride * u(s.queries);
    a.k = rows(k_codec, k_rows, k8_codec, k8_rows);
    a.v = rows(v_codec, v_rows, v8_codec, v8_rows);
    if (s.protected_tokens > 0) {
      a.protected_tokens = s.protected_tokens;
      a.protected_slots = slots.data();
      a.protected_stream_stride = u(s.tokens);
    }
    if (!mask.empty()) {
      a.mask = mask.data();
      a.mask_query_stride = u(s.tokens) * 2;
      a.mask_head_stride = a.mask_query_stride * u(s.queries);
      a.mask_stream_stride = a.mask_head_stride * u(s.mask_heads);
      a.mask_heads = s.mask_heads;
      a.mask_streams = s.mask_streams;
    }
    a.sinks = sinks.empty() ? nullptr : sinks.data();
    a.scale = 1 / std::sqrt(static_cast<float>(s.dim_k));
    a.max_bias = s.max_bias;
    a.softcap = s.softcap;
    a.out_dim = s.out_dim;
    return a;
  }

  std::vector<float> run(const Kernels& kernels, int threads) {
    std::vector<float> out(count(s.streams, s.queries, s.heads, out_dim), 777.0F);
    Attention a = attention();
    a.out = out.data();
    compute(a, kernels, threads);
    return out;
  }

  static void compute(Attention& a, const Kernels& kernels, int threads) {
    VisibleTokens visible;
    visible.build(a);
    a.visible = &visible;
    a.kernels = &kernels;
    const std::size_t bytes = attention_scratch(a, threads);
    const std::unique_ptr<void, void (*)(void*)> scratch(std::aligned_alloc(64, (bytes + 63) / 64 * 64), std::free);
    attention_begin(a, threads, scratch.get());
    const auto everywhere = [&](auto work) {
      std::vector<std::thread> others;
      for (int i = 1; i < threads; ++i) others.emplace_back([&, i] { work(a, i, threads, scratch.get()); });
      work(a, 0, threads, scratch.get());
      for (std::thread& other : others) other.join();
    };
    everywhere(attention_compute);
    everywhere(attention_merge);
  }

  std::vector<double> reference() {
    std::vector<double> out;
    for (int stream = 0; stream < s.streams; ++stream) {
      for (int query = 0; query < s.queries; ++query) {
        for (int head = 0; head < s.heads; ++head) {
          const int kv_head = head / (s.heads / s.kv_heads);
          const float* x = q.data() + count_at(stream, query, head);
          std::vector<double> logits(u(s.tokens), -std::numeric_limits<double>::infinity());
          std::vector<bool> is_protected(u(s.tokens));
          int seen = 0;
          double max = -std::numeric_limits<double>::infinity();
          for (int t = 0; t < s.tokens; ++t) {
            const double bias = mask_value(stream, head, query, t);
            if (std::isinf(bias)) continue;
            is_protected[u(t)] = seen++ < s.protected_tokens && slot(stream, t) >= 0;
            const std::vector<float> key = is_protected[u(t)] && s.protect_keys ? decoded(k8_codec, k8_rows, slot(stream, t), kv_head)
                                                                                : decoded(k_codec, k_rows, stream * s.tokens + t, kv_head);
            double dot = 0;
            for (int i = 0; i < s.dim_k; ++i) dot += static_cast<double>(x[i]) * static_cast<double>(key[u(i)]);
            dot /= std::sqrt(static_cast<double>(s.dim_k));
            if (s.softcap != 0) dot = s.softcap * std::tanh(dot / s.softcap);
            logits[u(t)] = dot + bias;
            max = std::max(max, logits[u(t)]);
          }
          if (s.sinks) max = std::max(max, static_cast<double>(sinks[u(head)]));
          double sum = s.sinks ? std::exp(static_cast<double>(sinks[u(head)]) - max) : 0;
          std::vector<double> value(u(s.dim_v));
          for (int t = 0; t < s.tokens; ++t) {
            if (std::isinf(logits[u(t)])) continue;
            const double weight = std::exp(logits[u(t)] - max);
            const std::vector<float> row = is_protected[u(t)] && s.protect_values
                                               ? decoded(v8_codec, v8_rows, slot(stream, t), kv_head)
                                               : decoded(v_codec, v_rows, stream * s.tokens + t, kv_head);
            for (int i = 0; i < s.dim_v; ++i) value[u(i)] += weight * static_cast<double>(row[u(i)]);
            sum += weight;
          }
          for (int i = 0; i < out_dim; ++i) out.push_back(sum == 0 ? 0 : value[u(i)] / sum);
        }
      }
    }
    return out;
  }

  Shape s;
  Codec k_codec, v_codec, k8_codec, v8_codec;
  std::mt19937 random;
  std::vector<float> q, k, v, sinks;
  std::vector<std::uint8_t> k_rows, v_rows, k8_rows, v8_rows;  // the last two by slot
  std::vector<std::int32_t> slots;                             // by token of a stream
  std::vector<std::uint16_t> mask;
  int out_dim = 0;

 private:
  static std::size_t u(int value) { return static_cast<std::size_t>(value); }
  template <class... T>
  static std::size_t count(T... sizes) {
    return (std::size_t{1} * ... * static_cast<std::size_t>(sizes));
  }
  std::size_t count_at(int stream, int query, int head) const {
    return ((u(stream) * u(s.queries) + u(query)) * u(s.heads) + u(head)) * u(s.dim_k);
  }
  static void compress(const Codec& codec, const std::vector<float>& x, std::vector<std::uint8_t>& rows) {
    const std::size_t n = x.size() / u(codec.format().dim);
    rows.resize(n * codec.format().bytes());
    codec.encode_row(x.data(), static_cast<int>(n), rows.data());
  }
  // Three of four of the first tokens get a slot, and some further ones, which must not be read there; slots in no order.
  void protect() {
    slots.assign(count(s.streams, s.tokens), -1);
    std::vector<std::size_t> chosen;
    for (std::size_t i = 0; i < slots.size(); ++i) {
      const auto t = static_cast<int>(i % u(s.tokens));
      if (t < 2 * s.protected_tokens && t % 4 != 1) chosen.push_back(i);
    }
    std::shuffle(chosen.begin(), chosen.end(), random);
    std::vector<float> k8, v8;
    for (std::size_t n = 0; n < chosen.size(); ++n) {
      slots[chosen[n]] = static_cast<std::int32_t>(n);
      const auto append = [&](std::vector<float>& to, const std::vector<float>& from, int dim) {
        const std::size_t row = u(s.kv_heads) * u(dim);
        to.insert(to.end(), from.begin() + static_cast<std::ptrdiff_t>(chosen[n] * row),
                  from.begin() + static_cast<std::ptrdiff_t>((chosen[n] + 1) * row));
      };
      append(k8, k, s.dim_k);
      append(v8, v, s.dim_v);
    }
    compress(k8_codec, k8, k8_rows);
    compress(v8_codec, v8, v8_rows);
  }
  int slot(int stream, int token) const { return slots.empty() ? -1 : slots[u(stream) * u(s.tokens) + u(token)]; }
  CompressedRows rows(const Codec& codec, const std::vector<std::uint8_t>& data, const Codec& wide,
                      const std::vector<std::uint8_t>& wide_data) const {
    CompressedRows r;
    r.codec = &codec;
    r.data = data.data();
    r.head_stride = codec.format().bytes();
    r.token_stride = r.head_stride * u(s.kv_heads);
    r.stream_stride = r.token_stride * u(s.tokens);
    if (s.protected_tokens > 0 && (&wide == &k8_codec ? s.protect_keys : s.protect_values)) {
      r.protected_codec = &wide;
      r.protected_data = wide_data.data();
      r.protected_head_stride = wide.format().bytes();
      r.protected_slot_stride = r.protected_head_stride * u(s.kv_heads);
    }
    return r;
  }
  std::vector<float> decoded(const Codec& codec, const std::vector<std::uint8_t>& data, int row, int kv_head) const {
    std::vector<float> x(u(codec.format().dim));
    codec.decode(data.data() + (u(row) * u(s.kv_heads) + u(kv_head)) * codec.format().bytes(), x.data(), *available_kernels()[0]);
    return x;
  }
  double mask_value(int stream, int head, int query, int t) const {
    if (mask.empty()) return 0;
    const std::size_t at =
        ((u(stream % s.mask_streams) * u(s.mask_heads) + u(head % s.mask_heads)) * u(s.queries) + u(query)) * u(s.tokens) + u(t);
    const double value = half_to_float(mask[at]);
    if (s.max_bias <= 0) return value;
    // ALiBi's slopes: geometric for a power of two of heads; the rest interleaved from twice as many.
    const int power = 1 << static_cast<int>(std::log2(s.heads));
    const double exponent = head < power ? static_cast<double>(head + 1) / power : (2.0 * (head - power) + 1) / (2 * power);
    return value * std::pow(2.0, -static_cast<double>(s.max_bias) * exponent);
  }
};

// ‖a − b‖ / ‖b‖
inline double relative_error(const std::vector<float>& a, const std::vector<double>& b) {
  double error = 0, size = 0;
  for (std::size_t i = 0; i < b.size(); ++i) {
    const double difference = static_cast<double>(a[i]) - b[i];
    error += difference * difference;
    size += b[i] * b[i];
  }
  return std::sqrt(error / size);
}

}  // namespace hearth::turboquant::test
