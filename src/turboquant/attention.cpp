#include "turboquant/attention.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>

#include "turboquant/half.h"

namespace hearth::turboquant {
namespace {

constexpr int kRows = 64;            // query rows (head, query) that share one pass over the tiles
constexpr int kShortestRange = 512;  // tokens that are worth a task of their own

// How an operation is cut into tasks: units of up to kRows query rows of one KV head and stream, times ranges of tokens.
struct Plan {
  int group;   // query heads of one KV head
  int blocks;  // of kRows query rows, in one KV head
  int units;   // streams · kv_heads · blocks
  int ranges;  // of tokens, of each unit
  int range_tokens;
  int dim_k, dim_v;  // padded
  int out_dim;

  Plan(const Attention& a, int threads) {
    group = a.heads / a.kv_heads;
    blocks = (group * a.queries + kRows - 1) / kRows;
    units = a.streams * a.kv_heads * blocks;
    ranges = 1;
    if (threads > 1 && units < 4 * threads) {
      ranges = std::max(1, std::min((4 * threads + units - 1) / units, a.tokens / kShortestRange));
    }
    range_tokens = ((a.tokens + ranges - 1) / ranges + kTile - 1) / kTile * kTile;
    ranges = std::max(1, (a.tokens + range_tokens - 1) / std::max(1, range_tokens));
    dim_k = a.k.codec->tables().padded_dim;
    dim_v = a.v.codec->tables().padded_dim;
    out_dim = a.out_dim == 0 ? a.v.codec->format().dim : a.out_dim;
  }
  std::size_t partial_floats() const { return static_cast<std::size_t>(kRows) * static_cast<std::size_t>(2 + dim_v); }
  int rows_of(const Attention& a, int block) const { return std::min(kRows, group * a.queries - block * kRows); }
};

// Memory handed out in order, each piece at a multiple of 64 bytes. Over a null pointer it only counts.
class Arena {
 public:
  explicit Arena(void* memory) : memory_(static_cast<std::uint8_t*>(memory)) {}
  template <class T>
  T* take(std::size_t count) {
    T* const here = memory_ == nullptr ? nullptr : reinterpret_cast<T*>(memory_ + used_);
    used_ += (count * sizeof(T) + 63) / 64 * 64;
    return here;
  }
  std::size_t used() const { return used_; }

 private:
  std::uint8_t* memory_;
  std::size_t used_ = 0;
};

struct ThreadMemory {
  std::int8_t* query;        // [2][rows][dim_k]
  std::int32_t* query_sums;  // [2][rows]
  float* factor;             // [rows]
  float* slope;              // [rows]
  float* products;           // [rows][64]
  std::uint8_t *high, *low;  // [rows][64]
  float *rescale, *weight_step;
  std::uint8_t *key_tile, *value_tile;
  float *key_scale, *value_scale;
  float *max, *sum, *value;  // [rows], [rows], [rows][dim_v]

  ThreadMemory(Arena& arena, const Plan& plan) {
    const auto dim_k = static_cast<std::size_t>(plan.dim_k), dim_v = static_cast<std::size_t>(plan.dim_v);
    query = arena.take<std::int8_t>(2 * kRows * dim_k);
    query_sums = arena.take<std::int32_t>(2 * kRows);
    factor = arena.take<float>(kRows);
    slope = arena.take<float>(kRows);
    products = arena.take<float>(kRows * kTile);
    high = arena.take<std::uint8_t>(kRows * kTile);
    low = arena.take<std::uint8_t>(kRows * kTile);
    rescale = arena.take<float>(kRows);
    weight_step = arena.take<float>(kRows);
    key_tile = arena.take<std::uint8_t>(tile_bytes(plan.dim_k));
    value_tile = arena.take<std::uint8_t>(tile_bytes(plan.dim_v));
    key_scale = arena.take<float>(kTile);
    value_scale = arena.take<float>(kTile);
    max = arena.take<float>(kRows);
    sum = arena.take<float>(kRows);
    value = arena.take<float>(kRows * dim_v);
  }
};

struct Scratch {
  std::int32_t* next;  // task
  float* partials;     // [unit][range]: max[rows], sum[rows], value[rows][dim_v]; only where ranges > 1
  Arena rest;

  Scratch(void* memory, const Plan& plan) : rest(memory) {
    next = rest.take<std::int32_t>(1);
    partials = rest.take<float>(
        plan.ranges == 1 ? 0 : static_cast<std::size_t>(plan.units) * static_cast<std::size_t>(plan.ranges) * plan.partial_floats());
  }
};

// Where the rows of a unit lie.
struct Unit {
  int stream, kv_head, block;
  Unit(const Attention& a, const Plan& plan, int unit)
      : stream(unit / (a.kv_heads * plan.blocks)), kv_head(unit / plan.blocks % a.kv_heads), block(unit % plan.blocks) {}
  // Rows of a block are neighbours in (query, head of the group): the heads of one query read the same mask, and a block spans few queries, whose
  // causal masks end close to each other.
  int query(const Plan& plan, int row) const { return (block * kRows + row) / plan.group; }
  int head(const Plan& plan, int row) const { return kv_head * plan.group + (block * kRows + row) % plan.group; }
};

float alibi_slope(const Attention& a, int head) {
  if (a.max_bias <= 0) return 1;
  const int power = 1 << static_cast<int>(std::floor(std::log2(a.heads)));
  const float first = std::pow(2.0F, -a.max_bias / static_cast<float>(power)),
              second = std::pow(2.0F, -a.max_bias / 2 / static_cast<float>(power));
  return head < power ? std::pow(first, static_cast<float>(head + 1)) : std::pow(second, static_cast<float>(2 * (head - power) + 1));
}

const std::uint16_t* mask_row(const Attention& a, int stream, int head, int query) {
  if (a.mask == nullptr) return nullptr;
  return reinterpret_cast<const std::uint16_t*>(static_cast<const std::uint8_t*>(a.mask) +
                                                static_cast<std::size_t>(query) * a.mask_query_stride +
                                                static_cast<std::size_t>(head % a.mask_heads) * a.mask_head_stride +
                                                static_cast<std::size_t>(stream % a.mask_streams) * a.mask_stream_stride);
}

// The rows' queries, rotated, as whole numbers; factor: what makes products of them logits.
void prepare_queries(const Attention& a, const Kernels& kernels, const Plan& plan, const Unit& unit, int rows, int planes,
                     const ThreadMemory& memory) {
  const Codec& codec = *a.k.codec;
  const int dim = codec.format().dim;
  const float unrotate = 1 / std::sqrt(static_cast<float>(dim)), largest = planes == 1 ? 127 : 16256;
  std::memset(memory.query, 0, static_cast<std::size_t>(planes * rows) * static_cast<std::size_t>(plan.dim_k));
  for (int r = 0; r < rows; ++r) {
    const int head = unit.head(plan, r);
    const auto* q = reinterpret_cast<const float*>(
        static_cast<const std::uint8_t*>(a.q) + static_cast<std::size_t>(unit.query(plan, r)) * a.q_query_stride +
        static_cast<std::size_t>(head) * a.q_head_stride + static_cast<std::size_t>(unit.stream) * a.q_stream_stride);
    float y[kMaxDim];
    codec.rotation().forward(kernels, q, y);
    float peak = 0;
    bool finite = true;
    for (int i = 0; i < dim; ++i) {
      finite = finite && std::abs(y[i]) < std::numeric_limits<float>::infinity();
      peak = std::max(peak, std::abs(y[i]));
    }
    const float to_whole = finite && peak > std::numeric_limits<float>::min() ? largest / peak : 0;
    std::int8_t* high = memory.query + static_cast<std::ptrdiff_t>(r) * plan.dim_k;
    std::int8_t* low = high + static_cast<std::ptrdiff_t>(rows) * plan.dim_k;
    std::int32_t high_sum = 0, low_sum = 0;
    for (int i = 0; i < dim && to_whole != 0; ++i) {
      const auto whole = static_cast<std::int32_t>(std::nearbyint(y[i] * to_whole));
      high[i] = static_cast<std::int8_t>(planes == 1 ? whole : whole >> 7);
      high_sum += high[i];
      if (planes == 1) continue;
      low[i] = static_cast<std::int8_t>(whole & 127);
      low_sum += low[i];
    }
    memory.query_sums[r] = high_sum;
    memory.query_sums[rows + r] = low_sum;
    memory.factor[r] =
        finite ? peak / largest * unrotate * a.scale / (a.softcap != 0 ? a.softcap : 1) : std::numeric_limits<float>::quiet_NaN();
    memory.slope[r] = alibi_slope(a, head);
  }
}

// Tokens [begin, begin + count) of one kind of rows: their codec and the first record.
struct Records {
  const Tables* tables;
  const std::uint8_t* first;
  std::size_t stride;

  Records(const CompressedRows& rows, int stream, int head, int begin) {
    const bool is_protected = begin < rows.protected_tokens;
    const auto at = [&](const std::uint8_t* data, std::size_t token, std::size_t by_head, std::size_t by_stream) {
      return data + static_cast<std::size_t>(begin) * token + static_cast<std::size_t>(head) * by_head +
             static_cast<std::size_t>(stream) * by_stream;
    };
    tables = is_protected ? &rows.protected_codec->tables() : &rows.codec->tables();
    stride = is_protected ? rows.protected_token_stride : rows.token_stride;
    first = is_protected ? at(rows.protected_data, stride, rows.protected_head_stride, rows.protected_stream_stride)
                         : at(rows.data, stride, rows.head_stride, rows.stream_stride);
  }
};

// Whether some row of the block sees one of the tokens.
bool anything_visible(const Attention& a, const Plan& plan, const Unit& unit, int rows, int begin, int count) {
  if (a.mask == nullptr) return true;
  const std::uint16_t* before = nullptr;
  for (int r = 0; r < rows; ++r) {
    const std::uint16_t* mask = mask_row(a, unit.stream, unit.head(plan, r), unit.query(plan, r));
    if (mask == before) continue;
    before = mask;
    for (int t = begin; t < begin + count; ++t) {
      if (mask[t] != 0xfc00) return true;
    }
  }
  return false;
}

void attend(const Attention& a, const Kernels& kernels, const Plan& plan, const Unit& unit, int rows, int from, int to,
            const ThreadMemory& memory) {
  const bool fine = a.k.codec->tables().planes == 2 || (a.k.protected_tokens > 0 && a.k.protected_codec->tables().planes == 2);
  const int query_planes = fine ? 2 : 1;
  prepare_queries(a, kernels, plan, unit, rows, query_planes, memory);
  std::fill_n(memory.max, rows, -std::numeric_limits<float>::infinity());
  std::fill_n(memory.sum, rows, 0.0F);
  std::fill_n(memory.value, static_cast<std::size_t>(rows) * static_cast<std::size_t>(plan.dim_v), 0.0F);

  int count = 0;
  for (int begin = from; begin < to; begin += count) {
    count = std::min(kTile, to - begin);
    for (const int border : {a.k.protected_tokens, a.v.protected_tokens}) {  // a tile is of one kind
      if (begin < border) count = std::min(count, border - begin);
    }
    if (!anything_visible(a, plan, unit, rows, begin, count)) continue;
    const Records keys(a.k, unit.stream, unit.kv_head, begin), values(a.v, unit.stream, unit.kv_head, begin);
    kernels.unpack_keys(*keys.tables, keys.first, keys.stride, count, memory.key_tile, memory.key_scale);
    kernels.unpack_values(*values.tables, values.first, values.stride, count, memory.value_tile, memory.value_scale);
    kernels.dot(*keys.tables, memory.query, memory.query_sums, query_planes, rows, memory.key_tile, memory.products);
    for (int r = 0; r < rows; ++r) {
      const std::uint16_t* mask = mask_row(a, unit.stream, unit.head(plan, r), unit.query(plan, r));
      SoftmaxRow row = {.products = memory.products + r * kTile,
                        .key_scale = memory.key_scale,
                        .value_scale = memory.value_scale,
                        .factor = memory.factor[r] * keys.tables->step,
                        .softcap = a.softcap,
                        .mask = mask == nullptr ? nullptr : mask + begin,
                        .slope = memory.slope[r],
                        .count = count,
                        .max = memory.max[r],
                        .sum = memory.sum[r],
                        .high = memory.high + r * kTile,
                        .low = memory.low + r * kTile,
                        .weight_step = 0,
                        .rescale = 1};
      kernels.softmax(row);
      memory.max[r] = row.max;
      memory.sum[r] = row.sum;
      memory.rescale[r] = row.rescale;
      memory.weight_step[r] = row.weight_step * values.tables->step;
    }
    kernels.accumulate(*values.tables, memory.high, memory.low, rows, memory.value_tile, memory.rescale, memory.weight_step, memory.value);
  }
}

// The row's sum over all its tokens → its place in the output.
void finish(const Attention& a, const Kernels& kernels, const Plan& plan, const Unit& unit, int row, float max, float sum, float* value) {
  const int head = unit.head(plan, row), query = unit.query(plan, row), dim = a.v.codec->format().dim;
  float factor = 1;
  if (a.sinks != nullptr) {
    const float sink = a.sinks[head], top = std::max(max, sink);
    if (top != -std::numeric_limits<float>::infinity()) {
      factor = std::exp(max - top);
      sum = sum * factor + std::exp(sink - top);
    }
  }
  factor = sum == 0 ? 0 : factor / (sum * std::sqrt(static_cast<float>(dim)));
  for (int i = 0; i < dim; ++i) value[i] *= factor;
  a.v.codec->rotation().backward(kernels, value);
  float* out = a.out + ((static_cast<std::ptrdiff_t>(unit.stream) * a.queries + query) * a.heads + head) * plan.out_dim;
  std::copy_n(value, plan.out_dim, out);
}

const Kernels& kernels_of(const Attention& a) { return a.kernels != nullptr ? *a.kernels : best_kernels(); }

}  // namespace

std::size_t attention_scratch(const Attention& a, int threads) {
  const Plan plan(a, threads);
  Scratch scratch(nullptr, plan);
  const ThreadMemory one(scratch.rest, plan);
  Arena each(nullptr);
  const ThreadMemory more(each, plan);
  return scratch.rest.used() + static_cast<std::size_t>(threads - 1) * each.used();
}

void attention_begin(const Attention& a, int threads, void* memory) {
  const Scratch scratch(memory, Plan(a, threads));
  std::atomic_ref(*scratch.next).store(0);
}

void attention_compute(const Attention& a, int thread, int threads, void* memory) {
  const Plan plan(a, threads);
  const Kernels& kernels = kernels_of(a);
  Scratch scratch(memory, plan);
  for (int i = 0; i < thread; ++i) const ThreadMemory others(scratch.rest, plan);
  ThreadMemory mine(scratch.rest, plan);
  for (int task = 0; (task = std::atomic_ref(*scratch.next).fetch_add(1)) < plan.units * plan.ranges;) {
    const Unit unit(a, plan, task / plan.ranges);
    const int range = task % plan.ranges, rows = plan.rows_of(a, unit.block);
    if (plan.ranges > 1) {
      float* partial = scratch.partials + static_cast<std::size_t>(task) * plan.partial_floats();
      mine.max = partial;
      mine.sum = partial + kRows;
      mine.value = partial + static_cast<std::ptrdiff_t>(2 * kRows);
    }
    attend(a, kernels, plan, unit, rows, range * plan.range_tokens, std::min(a.tokens, (range + 1) * plan.range_tokens), mine);
    for (int r = 0; r < rows && plan.ranges == 1; ++r) {
      finish(a, kernels, plan, unit, r, mine.max[r], mine.sum[r], mine.value + static_cast<std::ptrdiff_t>(r) * plan.dim_v);
    }
  }
}

void attention_merge(const Attention& a, int thread, int threads, void* memory) {
  const Plan plan(a, threads);
  if (plan.ranges == 1) return;
  const Kernels& kernels = kernels_of(a);
  const Scratch scratch(memory, plan);
  for (int index = thread; index < plan.units * kRows; index += threads) {
    const Unit unit(a, plan, index / kRows);
    const int row = index % kRows;
    if (row >= plan.rows_of(a, unit.block)) continue;
    const float* first =
        scratch.partials + static_cast<std::size_t>(index / kRows) * static_cast<std::size_t>(plan.ranges) * plan.partial_floats();
    const auto partial = [&](int range) { return first + static_cast<std::size_t>(range) * plan.partial_floats(); };
    float max = -std::numeric_limits<float>::infinity(), sum = 0, value[kMaxDim] = {};
    for (int range = 0; range < plan.ranges; ++range) max = std::max(max, partial(range)[row]);
    for (int range = 0; range < plan.ranges; ++range) {
      const float share = partial(range)[row] == max ? 1 : std::exp(partial(range)[row] - max);  // also where both are −∞
      sum += share * partial(range)[kRows + row];
      const float* part = partial(range) + 2 * kRows + static_cast<std::ptrdiff_t>(row) * plan.dim_v;
      for (int i = 0; i < a.v.codec->format().dim; ++i) value[i] += share * part[i];
    }
    finish(a, kernels, plan, unit, row, max, sum, value);
  }
}

}  // namespace hearth::turboquant
