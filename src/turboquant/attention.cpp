#include "turboquant/attention.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "turboquant/half.h"

namespace hearth::turboquant {
namespace {

// A row's tokens are summed in segments, and the sums of the segments are merged in order, whoever computed them: so that the result is the same for any
// number of threads. Segments grow with the list, in tokens: 16 of 1,024, 16 of 2,048, then of 4,096.
int segment_begin(int segment) {
  constexpr int few = 16, shortest = 1024;
  if (segment <= few) return segment * shortest;
  if (segment <= 2 * few) return few * shortest + (segment - few) * 2 * shortest;
  return few * 3 * shortest + (segment - 2 * few) * 4 * shortest;
}
int segment_count(int tokens) {
  int count = 0;
  while (segment_begin(count) < tokens) ++count;
  return count;
}

// How an operation is cut into tasks: units of up to kRows query rows of one KV head and stream, times ranges of segments.
struct Plan {
  int group;         // query heads of one KV head
  int blocks;        // of kRows query rows, in one KV head
  int units;         // streams · kv_heads · blocks
  int rows;          // of a unit, at most
  int segments;      // of the longest list
  bool split;        // a unit is several tasks, whose results are merged at the end
  int ranges;        // of segments, of each unit
  int dim_k, dim_v;  // padded
  int out_dim;
  int planes;  // of a query
  bool fine;   // protected keys want a finer query than the others

  // `tokens`: of the longest list.
  Plan(const Attention& a, int threads, int tokens) {
    group = a.heads / a.kv_heads;
    blocks = (group * a.queries + kRows - 1) / kRows;
    units = a.streams * a.kv_heads * blocks;
    rows = std::min(kRows, group * a.queries);
    segments = segment_count(tokens);
    split = threads > 1 && units < 4 * threads && segments > 1;
    ranges = split ? std::min((4 * threads + units - 1) / units, segments) : 1;
    dim_k = a.k.codec->tables().padded_dim;
    dim_v = a.v.codec->tables().padded_dim;
    out_dim = a.out_dim == 0 ? a.v.codec->format().dim : a.out_dim;
    planes = a.k.codec->tables().planes;
    fine = a.protected_tokens > 0 && a.k.protected_codec != nullptr && a.k.protected_codec->tables().planes > planes;
  }
  Plan(const Attention& a, int threads) : Plan(a, threads, a.visible->longest()) {}
  std::size_t partial_floats() const { return static_cast<std::size_t>(rows) * static_cast<std::size_t>(2 + dim_v); }
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

// Sums over some of a row's tokens, for the rows of a unit.
struct Sums {
  float *max, *sum, *value;  // [rows], [rows], [rows][dim_v]
};

// The queries of a unit's rows, rotated, as whole numbers.
struct Queries {
  int planes;
  std::int8_t* rows;   // [rows][planes][dim_k]
  std::int32_t* sums;  // [rows][planes]
  float* factor;       // [rows] what makes products logits

  Queries(Arena& arena, int planes_each, int dim_k) : planes(planes_each) {
    const auto all = static_cast<std::size_t>(planes) * static_cast<std::size_t>(kRows);
    rows = arena.take<std::int8_t>(all * static_cast<std::size_t>(dim_k));
    sums = arena.take<std::int32_t>(all);
    factor = arena.take<float>(kRows);
  }
};

struct ThreadMemory {
  Queries queries, fine;
  float* slope;              // [rows]
  float* products;           // [rows][64]
  std::uint8_t *high, *low;  // [rows][64]
  float *rescale, *weight_step;
  std::uint8_t *key_tile, *value_tile;
  float *key_scale, *value_scale;
  std::uint16_t* mask;  // [64] of a tile that is not in one piece
  Sums segment, total;

  ThreadMemory(Arena& arena, const Plan& plan) : queries(arena, plan.planes, plan.dim_k), fine(arena, plan.fine ? 2 : 0, plan.dim_k) {
    const auto dim_v = static_cast<std::size_t>(plan.dim_v);
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
    mask = arena.take<std::uint16_t>(kTile);
    for (Sums* sums : {&segment, &total}) {
      sums->max = arena.take<float>(kRows);
      sums->sum = arena.take<float>(kRows);
      sums->value = arena.take<float>(kRows * dim_v);
    }
  }
};

struct Scratch {
  std::int32_t* next;  // task
  float* partials;     // [unit][segment]: max[rows], sum[rows], value[rows][dim_v]; only where units are split
  Arena rest;

  Scratch(void* memory, const Plan& plan) : rest(memory) {
    next = rest.take<std::int32_t>(1);
    partials = rest.take<float>(
        plan.split ? static_cast<std::size_t>(plan.units) * static_cast<std::size_t>(plan.segments) * plan.partial_floats() : 0);
  }
  Sums partial(const Plan& plan, int unit, int segment) const {
    float* first =
        partials + (static_cast<std::size_t>(unit) * static_cast<std::size_t>(plan.segments) + static_cast<std::size_t>(segment)) *
                       plan.partial_floats();
    return {first, first + plan.rows, first + static_cast<std::ptrdiff_t>(2 * plan.rows)};
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

void prepare_queries(const Attention& a, const Kernels& kernels, const Plan& plan, const Unit& unit, int rows, const Queries& out) {
  const Codec& codec = *a.k.codec;
  const int dim = codec.format().dim, planes = out.planes;
  const float unrotate = 1 / std::sqrt(static_cast<float>(dim)), largest = planes == 1 ? 127 : 16256;
  std::memset(out.rows, 0, static_cast<std::size_t>(planes * rows) * static_cast<std::size_t>(plan.dim_k));
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
    std::int8_t* high = out.rows + static_cast<std::ptrdiff_t>(r) * planes * plan.dim_k;
    std::int8_t* low = high + plan.dim_k;
    std::int32_t high_sum = 0, low_sum = 0;
    for (int i = 0; i < dim && to_whole != 0; ++i) {
      const auto whole = static_cast<std::int32_t>(std::nearbyint(y[i] * to_whole));
      high[i] = static_cast<std::int8_t>(planes == 1 ? whole : whole >> 7);
      high_sum += high[i];
      if (planes == 1) continue;
      low[i] = static_cast<std::int8_t>(whole & 127);
      low_sum += low[i];
    }
    out.sums[r * planes] = high_sum;
    if (planes == 2) out.sums[r * planes + 1] = low_sum;
    out.factor[r] =
        finite ? peak / largest * unrotate * a.scale / (a.softcap != 0 ? a.softcap : 1) : std::numeric_limits<float>::quiet_NaN();
  }
}

// Up to 64 tokens of a list.
struct Tile {
  std::int32_t count, rank;
  std::int32_t first;  // where they are in one piece: first, first + 1, …
  bool whole;
  bool is_protected;
  std::int32_t token[kTile];  // else these
  std::int32_t slot[kTile];   // of protected tokens

  std::int32_t at(int i) const { return whole ? first + i : token[i]; }
  // Whether the shorter one is the beginning of the other.
  bool begins_like(const Tile& other) const {
    const int common = std::min(count, other.count);
    if (is_protected != other.is_protected) return false;
    if (whole && other.whole) return first == other.first;
    if (!whole && !other.whole) return std::memcmp(token, other.token, sizeof(std::int32_t) * static_cast<std::size_t>(common)) == 0;
    for (int i = 0; i < common; ++i) {
      if (at(i) != other.at(i)) return false;
    }
    return true;
  }
};

// Which tokens of a stream are protected.
struct Protection {
  int first;  // of a list
  const std::int32_t* slots;

  Protection(const Attention& a, int stream)
      : first(a.protected_slots != nullptr ? a.protected_tokens : 0),
        slots(first > 0 ? a.protected_slots + static_cast<std::size_t>(stream) * a.protected_stream_stride : nullptr) {}
  bool at(int rank, std::int32_t token) const { return rank < first && slots[token] >= 0; }
};

// Tiles of a group's list, one after the other, each within one segment and with tokens of one kind.
class Cursor {
 public:
  Cursor() = default;
  Cursor(std::span<const VisibleTokens::Run> runs, int rank) : run_(runs.data()), end_(runs.data() + runs.size()), rank_(rank) { settle(); }

  int rank() const { return rank_; }
  // The tokens from here on, less than 64 where `end` is nearer.
  void look(int end, const Protection& protection, Tile& tile) const {
    const VisibleTokens::Run* run = run_;
    std::int32_t skip = rank_ - run->rank;
    tile.rank = rank_;
    tile.count = std::min(kTile, end - rank_);
    tile.first = run->first + skip;
    tile.whole = run->count - skip >= tile.count;
    for (int i = 0; !tile.whole && i < tile.count; ++skip) {
      if (skip == run->count) ++run, skip = 0;
      tile.token[i++] = run->first + skip;
    }
    tile.is_protected = protection.at(rank_, tile.at(0));
    if (rank_ >= protection.first) return;
    for (int i = 1; i < tile.count; ++i) {
      if (protection.at(rank_ + i, tile.at(i)) != tile.is_protected) tile.count = i;
    }
    for (int i = 0; tile.is_protected && i < tile.count; ++i) tile.slot[i] = protection.slots[tile.at(i)];
  }
  void advance(int count) {
    rank_ += count;
    settle();
  }

 private:
  void settle() {
    while (run_ + 1 < end_ && run_[1].rank <= rank_) ++run_;
  }

  // Not set before it stands somewhere: there is one for each row, and most operations need one.
  const VisibleTokens::Run *run_, *end_;
  std::int32_t rank_;
};

constexpr auto kInOnePiece = [] {
  std::array<std::int32_t, kTile> tokens{};
  for (std::int32_t t = 0; t < kTile; ++t) tokens[static_cast<std::size_t>(t)] = t;
  return tokens;
}();

// The records of a tile: their codec, and where they are.
struct Records {
  const Tables* tables;
  const std::uint8_t* data;
  std::size_t stride;
  const std::int32_t* index;

  Records(const CompressedRows& rows, int stream, int head, const Tile& tile) {
    if (tile.is_protected && rows.protected_codec != nullptr) {
      tables = &rows.protected_codec->tables();
      stride = rows.protected_slot_stride;
      index = tile.slot;
      data = rows.protected_data + static_cast<std::size_t>(head) * rows.protected_head_stride;
      return;
    }
    tables = &rows.codec->tables();
    stride = rows.token_stride;
    index = tile.whole ? kInOnePiece.data() : tile.token;
    data = rows.data + static_cast<std::size_t>(head) * rows.head_stride + static_cast<std::size_t>(stream) * rows.stream_stride;
    if (tile.whole) data += static_cast<std::size_t>(tile.first) * stride;
  }
};

// One block of query rows, on its way through the tokens.
class Pass {
 public:
  Pass(const Attention& a, const Kernels& kernels, const Plan& plan, const Unit& unit, const ThreadMemory& memory)
      : a_(a),
        kernels_(kernels),
        plan_(plan),
        unit_(unit),
        memory_(memory),
        protection_(a, unit.stream),
        groups_(a.visible->groups(unit.stream, unit.kv_head, unit.block)) {
    rows_ = plan.rows_of(a, unit.block);
    for (const VisibleTokens::Group& group : groups_) longest_ = std::max(longest_, group.count);
  }
  int rows() const { return rows_; }
  int segments() const { return segment_count(longest_); }

  void segment(int number, const Sums& sums) {
    std::fill_n(sums.max, rows_, -std::numeric_limits<float>::infinity());
    std::fill_n(sums.sum, rows_, 0.0F);
    const int begin = segment_begin(number), end = segment_begin(number + 1);
    if (begin >= longest_) return;
    std::fill_n(sums.value, static_cast<std::size_t>(rows_) * static_cast<std::size_t>(plan_.dim_v), 0.0F);
    if (!std::exchange(prepared_, true)) {
      prepare_queries(a_, kernels_, plan_, unit_, rows_, memory_.queries);
      for (int r = 0; r < rows_; ++r) memory_.slope[r] = alibi_slope(a_, unit_.head(plan_, r));
    }
    if (plan_.fine && begin < protection_.first) prepare_queries(a_, kernels_, plan_, unit_, rows_, memory_.fine);
    for (std::size_t g = 0; g < groups_.size(); ++g) {
      if (begin >= groups_[g].count) continue;
      const auto runs = a_.visible->runs(groups_[g]);
      const auto after =
          std::upper_bound(runs.begin(), runs.end(), begin, [](int at, const VisibleTokens::Run& run) { return at < run.rank; });
      cursors_[g] = Cursor(runs.subspan(static_cast<std::size_t>(after - runs.begin() - 1)), begin);
    }
    const auto end_of = [&](std::size_t g) { return std::min(end, groups_[g].count); };
    const auto done = [&](std::size_t g) { return begin >= groups_[g].count || cursors_[g].rank() >= end_of(g); };
    for (bool more = true; more;) {
      more = false;
      for (std::size_t g = 0; g < groups_.size();) {
        if (done(g)) {
          ++g;
          continue;
        }
        // Neighbours whose lists go on alike share the tile.
        Tile* tile = &tiles_[0];
        cursors_[g].look(end_of(g), protection_, *tile);
        counts_[g] = tile->count;
        std::size_t last = g + 1;
        for (Tile* next = &tiles_[1]; last < groups_.size() && !done(last); ++last) {
          cursors_[last].look(end_of(last), protection_, *next);
          if (!next->begins_like(*tile)) break;
          counts_[last] = next->count;
          if (next->count > tile->count) std::swap(tile, next);
        }
        compute(*tile, g, last, sums);
        for (; g < last; ++g) {
          cursors_[g].advance(counts_[g]);
          more = more || !done(g);
        }
      }
    }
  }

 private:
  void compute(const Tile& tile, std::size_t first_group, std::size_t last_group, const Sums& sums) {
    const Records keys(a_.k, unit_.stream, unit_.kv_head, tile), values(a_.v, unit_.stream, unit_.kv_head, tile);
    const ThreadMemory& m = memory_;
    const Queries& queries = tile.is_protected && plan_.fine ? m.fine : m.queries;
    kernels_.unpack_keys(*keys.tables, keys.data, keys.stride, keys.index, tile.count, m.key_tile, m.key_scale);
    kernels_.unpack_values(*values.tables, values.data, values.stride, values.index, tile.count, m.value_tile, m.value_scale);
    const int first = groups_[first_group].first_row;
    const int rows = groups_[last_group - 1].first_row + groups_[last_group - 1].rows - first;
    kernels_.dot(*keys.tables, queries.rows + static_cast<std::ptrdiff_t>(first) * queries.planes * plan_.dim_k,
                 queries.sums + first * queries.planes, queries.planes, rows, m.key_tile, m.products);
    for (std::size_t g = first_group; g < last_group; ++g) {
      const VisibleTokens::Group& group = groups_[g];
      const bool plain = tile.rank >= group.plain_begin && tile.rank + counts_[g] <= group.plain_end;
      const std::uint16_t *whole = nullptr, *mask = nullptr;
      for (int r = group.first_row; r < group.first_row + group.rows; ++r) {
        if (!plain) {
          const std::uint16_t* latest = mask_row(a_, unit_.stream, unit_.head(plan_, r), unit_.query(plan_, r));
          if (latest != whole) {
            whole = latest;
            mask = whole == nullptr ? nullptr : mask_of(tile, counts_[g], whole);
          }
        }
        softmax(r, r - first, mask, counts_[g], queries.factor[r] * keys.tables->step, values.tables->step, sums);
      }
    }
    kernels_.accumulate(*values.tables, m.high, m.low, rows, m.value_tile, m.rescale, m.weight_step,
                        sums.value + static_cast<std::ptrdiff_t>(first) * plan_.dim_v);
  }
  // `at`: the row's place among those that compute this tile.
  void softmax(int r, int at, const std::uint16_t* mask, int count, float factor, float value_step, const Sums& sums) {
    const ThreadMemory& m = memory_;
    SoftmaxRow row = {.products = m.products + at * kTile,
                      .key_scale = m.key_scale,
                      .value_scale = m.value_scale,
                      .factor = factor,
                      .softcap = a_.softcap,
                      .mask = mask,
                      .slope = m.slope[r],
                      .count = count,
                      .max = sums.max[r],
                      .sum = sums.sum[r],
                      .high = m.high + at * kTile,
                      .low = m.low + at * kTile,
                      .weight_step = 0,
                      .rescale = 1};
    kernels_.softmax(row);
    sums.max[r] = row.max;
    sums.sum[r] = row.sum;
    m.rescale[at] = row.rescale;
    m.weight_step[at] = row.weight_step * value_step;
  }
  const std::uint16_t* mask_of(const Tile& tile, int count, const std::uint16_t* mask) {
    if (tile.whole) return mask + tile.first;
    for (int i = 0; i < count; ++i) memory_.mask[i] = mask[tile.token[i]];
    return memory_.mask;
  }

  const Attention& a_;
  const Kernels& kernels_;
  const Plan& plan_;
  const Unit& unit_;
  const ThreadMemory& memory_;
  const Protection protection_;
  const std::span<const VisibleTokens::Group> groups_;
  int rows_ = 0, longest_ = 0;
  bool prepared_ = false;
  std::array<Cursor, kRows> cursors_;  // of the groups
  std::array<int, kRows> counts_;      // of the groups' tokens in the tile
  std::array<Tile, 2> tiles_;
};

// total += part, for one row: the only way in which segments come together.
void merge(float& max, float& sum, float* value, float part_max, float part_sum, const float* part, int dim) {
  constexpr float nothing = -std::numeric_limits<float>::infinity();
  if (part_max == nothing && part_sum == 0) return;
  if (max == nothing && sum == 0) {
    max = part_max;
    sum = part_sum;
    std::copy_n(part, dim, value);
    return;
  }
  const float top = std::max(max, part_max);
  const float mine = max == top ? 1 : std::exp(max - top), its = part_max == top ? 1 : std::exp(part_max - top);
  max = top;
  sum = sum * mine + part_sum * its;
  for (int i = 0; i < dim; ++i) value[i] = value[i] * mine + part[i] * its;
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
  const Plan plan(a, threads, a.tokens);
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
    const int number = task / plan.ranges, range = task % plan.ranges;
    const Unit unit(a, plan, number);
    Pass pass(a, kernels, plan, unit, mine);
    if (plan.split) {
      for (int s = plan.segments * range / plan.ranges; s < plan.segments * (range + 1) / plan.ranges; ++s) {
        pass.segment(s, scratch.partial(plan, number, s));
      }
      continue;
    }
    pass.segment(0, mine.total);
    for (int s = 1; s < pass.segments(); ++s) {
      pass.segment(s, mine.segment);
      for (int r = 0; r < pass.rows(); ++r) {
        const std::ptrdiff_t at = static_cast<std::ptrdiff_t>(r) * plan.dim_v;
        merge(mine.total.max[r], mine.total.sum[r], mine.total.value + at, mine.segment.max[r], mine.segment.sum[r],
              mine.segment.value + at, plan.dim_v);
      }
    }
    for (int r = 0; r < pass.rows(); ++r) {
      finish(a, kernels, plan, unit, r, mine.total.max[r], mine.total.sum[r],
             mine.total.value + static_cast<std::ptrdiff_t>(r) * plan.dim_v);
    }
  }
}

void attention_merge(const Attention& a, int thread, int threads, void* memory) {
  const Plan plan(a, threads);
  if (!plan.split) return;
  const Kernels& kernels = kernels_of(a);
  const Scratch scratch(memory, plan);
  for (int index = thread; index < plan.units * plan.rows; index += threads) {
    const int number = index / plan.rows, row = index % plan.rows;
    const Unit unit(a, plan, number);
    if (row >= plan.rows_of(a, unit.block)) continue;
    float max = -std::numeric_limits<float>::infinity(), sum = 0, value[kMaxDim] = {};
    for (int s = 0; s < plan.segments; ++s) {
      const Sums part = scratch.partial(plan, number, s);
      merge(max, sum, value, part.max[row], part.sum[row], part.value + static_cast<std::ptrdiff_t>(row) * plan.dim_v, plan.dim_v);
    }
    finish(a, kernels, plan, unit, row, max, sum, value);
  }
}

}  // namespace hearth::turboquant
