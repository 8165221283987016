#include "turboquant/backend_graph.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <stdexcept>
#include <string>
#include <thread>

namespace hearth::turboquant {
namespace {

[[noreturn]] void refuse(const std::string& what) { throw std::runtime_error("TurboQuant: " + what); }

bool looks_only(ggml_op op) {
  return op == GGML_OP_NONE || op == GGML_OP_VIEW || op == GGML_OP_RESHAPE || op == GGML_OP_PERMUTE || op == GGML_OP_TRANSPOSE;
}

// The number of cells a view begins after.
std::int64_t first_cell(const ggml_tensor& view, std::size_t nominal_row) {
  return static_cast<std::int64_t>(view.view_offs / nominal_row);
}

// Whether a view as attention takes it, [size, cells, heads, streams] of a cache of [width, …], has whole rows in their natural order.
bool whole_rows(const ggml_tensor& view) {
  const std::size_t row = static_cast<std::size_t>(root(&view)->ne[0]) * 2, head = static_cast<std::size_t>(view.ne[0]) * 2;
  return view.nb[0] == 2 && view.nb[1] == row && (view.ne[2] == 1 || view.nb[2] == head) &&
         head * static_cast<std::size_t>(view.ne[2]) == row && view.nb[3] % row == 0 && view.view_offs % row == 0;
}

void wait_for_all(std::atomic<int>& arrived, int all) {
  arrived.fetch_add(1, std::memory_order_acq_rel);
  for (int spins = 0; arrived.load(std::memory_order_acquire) < all; ++spins) {
    if (spins > 1000) std::this_thread::yield();
  }
}

// The cell that row `i` goes to.
std::int64_t cell_of(const ggml_tensor& cells, std::int64_t i) {
  const auto* at = static_cast<const std::byte*>(cells.data) + static_cast<std::size_t>(i) * cells.nb[0];
  std::int64_t wide = 0;
  std::int32_t narrow = 0;
  if (cells.type == GGML_TYPE_I64) {
    std::memcpy(&wide, at, sizeof wide);
    return wide;
  }
  std::memcpy(&narrow, at, sizeof narrow);
  return narrow;
}

}  // namespace

void require_supported(const ggml_tensor& op, const std::function<bool(const ggml_tensor*)>& compressed, const FindCache& find) {
  if (looks_only(op.op)) return;
  const ggml_tensor* touched = compressed(&op) ? root(&op) : nullptr;
  for (const ggml_tensor* source : op.src) {
    if (!touched && source && compressed(source)) touched = root(source);
  }
  if (auto fit = CacheStore::check(*touched); !fit) refuse(fit.error().message);
  const std::string name = touched->name;
  switch (op.op) {
    case GGML_OP_SET_ROWS: {
      const ggml_tensor &rows = *op.src[0], &cells = *op.src[1];
      if (op.ne[0] == 1 && touched->ne[0] != 1)
        refuse(name + " would be stored transposed, because flash attention is off: turn it on (-fa on)");
      if (op.ne[0] != touched->ne[0] || rows.type != GGML_TYPE_F32 || rows.nb[0] != 4 || rows.ne[2] != 1 || rows.ne[3] != 1 ||
          (cells.type != GGML_TYPE_I64 && cells.type != GGML_TYPE_I32) || compressed(&rows)) {
        refuse("this model writes " + name + " in a way that is not supported");
      }
      return;
    }
    case GGML_OP_FLASH_ATTN_EXT: {
      const ggml_tensor &q = *op.src[0], &k = *op.src[1], &v = *op.src[2];
      if (root(&k) == root(&v)) {
        refuse("this model keeps its values as a part of its keys (latent attention), which is not supported: " + name);
      }
      if (!compressed(&k) || !compressed(&v) || compressed(&q))
        refuse("this model reads only one of keys and values from its cache: " + name);
      for (const ggml_tensor* view : {&k, &v}) {
        if (!whole_rows(*view)) refuse("this model reads " + std::string(root(view)->name) + " in a way that is not supported");
        if (view->ne[0] % 32 != 0 || view->ne[0] > kMaxDim) {
          refuse("heads of " + std::to_string(view->ne[0]) + " numbers (" + root(view)->name +
                 ") cannot be compressed: their size must be a multiple of 32, at most " + std::to_string(kMaxDim));
        }
        if (CacheTensor* cache = find(view)) cache->set_head(view->ne[0]);
      }
      if (q.type != GGML_TYPE_F32 || q.nb[0] != 4 || q.ne[2] % k.ne[2] != 0 || k.ne[2] != v.ne[2]) {
        refuse("this model's attention over " + name + " is not supported");
      }
      return;
    }
    case GGML_OP_ROPE: {
      const ggml_tensor& x = *op.src[0];
      const bool in_place = compressed(&op) && compressed(&x) && root(&op) == root(&x) && op.view_offs == x.view_offs;
      if (!in_place || static_cast<std::size_t>(x.ne[0]) * 2 > x.nb[1] || x.nb[2] != static_cast<std::size_t>(touched->ne[0]) * 2 ||
          x.ne[3] != 1) {
        refuse("the positions in " + name + " cannot be shifted for this model");
      }
      return;
    }
    default:
      refuse(std::string(ggml_op_name(op.op)) + " would read " + name +
             " as numbers, but it is stored compressed. Only flash attention can read it: turn it on (-fa on); models without it cannot be "
             "used");
  }
}

GraphRunner::Job::Job(ggml_tensor* n) : node(n), op(n->op) { std::memcpy(params.data(), n->op_params, sizeof n->op_params); }

void* GraphRunner::Scratch::at_least(std::size_t size) {
  if (bytes.size() < size + 64) bytes.resize(size + 64);
  void* start = bytes.data();
  std::size_t room = bytes.size();
  return std::align(64, size, start, room);
}

ggml_status GraphRunner::compute(ggml_cgraph* graph, const FindCache& find) {
  jobs_.clear();
  used_views_ = 0;
  std::vector<const Cells*> counted;
  std::size_t scratch = 0;
  bool shifts = false, computes = false;
  for (int i = 0; i < ggml_graph_n_nodes(graph); ++i) {
    ggml_tensor* node = ggml_graph_node(graph, i);
    if (looks_only(node->op)) continue;
    if (node->op == GGML_OP_ROPE && find(node)) {
      shifts = true;
      if (const auto done = shift(*node, *find(node)); done != GGML_STATUS_SUCCESS) return done;
      continue;
    }
    computes = true;
    if (node->op == GGML_OP_SET_ROWS) {
      CacheTensor* cache = find(node);
      if (!cache) continue;
      Job& job = jobs_.emplace_back(node);
      job.cache = cache;
      job.counts = std::find(counted.begin(), counted.end(), &cache->cells()) == counted.end();
      if (job.counts) counted.push_back(&cache->cells());
    } else if (node->op == GGML_OP_FLASH_ATTN_EXT && find(node->src[1])) {
      Job& job = jobs_.emplace_back(node);
      job.cache = find(node->src[1]);
      job.attention = attention(*node, find);
      bool first = false;
      View* seen = view(job.attention, node->src[3], first);
      job.attention.visible = &seen->visible;
      if (first) job.look = seen;
      scratch = std::max(scratch, attention_scratch(job.attention, threads_));
    }
  }
  if (shifts) return computes ? GGML_STATUS_FAILED : GGML_STATUS_SUCCESS;  // llama.cpp shifts in graphs of their own
  for (const Job& job : jobs_) {
    if (job.counts && job.cache->cells().sinks.tokens() > 0) find_sinks(job);
  }
  void* memory = scratch_.at_least(scratch);
  room_.resize(jobs_.size() * ggml_tensor_overhead() + ggml_tensor_overhead());
  ggml_context* context = ggml_init({.mem_size = room_.size(), .mem_buffer = room_.data(), .no_alloc = true});
  for (Job& job : jobs_) {
    job.scratch = memory;
    job.time = job.op == GGML_OP_SET_ROWS ? &times_.encoding : &times_.attention;
    ggml_tensor* source = job.node->src[0];
    const ggml_tensor* custom = ggml_custom_4d(context, GGML_TYPE_F32, 1, 1, 1, 1, &source, 1, run, GGML_N_TASKS_MAX, &job);
    job.node->op = GGML_OP_CUSTOM;
    std::memcpy(job.node->op_params, custom->op_params, sizeof custom->op_params);
  }
  ggml_free(context);
  const ggml_status status = ggml_backend_graph_compute(cpu_, graph);
  for (const Job& job : jobs_) {
    job.node->op = job.op;
    std::memcpy(job.node->op_params, job.params.data(), sizeof job.node->op_params);
  }
  return status;
}

void GraphRunner::run(ggml_tensor*, int thread, int threads, void* job) {
  Job& j = *static_cast<Job*>(job);
  const auto begin = std::chrono::steady_clock::now();
  if (j.op == GGML_OP_SET_ROWS) {
    write_rows(j, thread, threads);
  } else {
    attend(j, thread, threads);
  }
  if (thread == 0) *j.time += std::chrono::nanoseconds(std::chrono::steady_clock::now() - begin).count();
}

// A token that sees, itself counted, no more than a profile's sinks is one of them. Masks are inputs: filled before a graph is computed.
void GraphRunner::find_sinks(const Job& write) const {
  ProtectedCells& sinks = write.cache->cells().sinks;
  const ggml_tensor& cells = *write.node->src[1];
  const auto reads = std::find_if(jobs_.begin(), jobs_.end(), [&](const Job& job) {
    return job.op == GGML_OP_FLASH_ATTN_EXT && &job.cache->cells() == &write.cache->cells();
  });
  const std::int64_t count = write.node->src[0]->ne[1];
  const bool known = reads != jobs_.end() && reads->node->src[3] != nullptr && looks_only(reads->node->src[3]->op) &&
                     root(reads->node->src[3])->op == GGML_OP_NONE &&
                     std::int64_t{reads->attention.queries} * reads->attention.streams == count;
  if (!known) {
    for (std::int64_t i = 0; i < count; ++i) sinks.set(cell_of(cells, i), false);
    return;
  }
  const Attention& a = reads->attention;
  const std::int64_t first = a.protected_slots - sinks.slots();
  const auto stride = static_cast<std::int64_t>(a.protected_stream_stride);
  sinks.look([&](std::int64_t cell) {
    for (int stream = 0; stream < a.streams; ++stream) {
      const std::int64_t token = cell - first - stream * stride;
      if (token < 0 || token >= a.tokens) continue;
      for (int query = 0; query < a.queries; ++query) {
        if (mask_row(a, stream, 0, query)[token] != kHidden) return true;
      }
    }
    return false;
  });
  for (std::int64_t i = 0; i < count; ++i) {
    const std::uint16_t* mask = mask_row(a, static_cast<int>(i / a.queries), 0, static_cast<int>(i % a.queries));
    int seen = 0;
    for (int t = 0; t < a.tokens && seen <= sinks.tokens(); ++t) seen += mask[t] != kHidden ? 1 : 0;
    sinks.set(cell_of(cells, i), seen <= sinks.tokens());
  }
}

void GraphRunner::write_rows(const Job& job, int thread, int threads) {
  const ggml_tensor &rows = *job.node->src[0], &cells = *job.node->src[1];
  const std::int64_t count = rows.ne[1];
  for (std::int64_t i = count * thread / threads; i < count * (thread + 1) / threads; ++i) {
    const auto* row = static_cast<const std::byte*>(rows.data) + static_cast<std::size_t>(i) * rows.nb[1];
    job.cache->write(cell_of(cells, i), reinterpret_cast<const float*>(row));
  }
  for (std::int64_t i = 0; job.counts && thread == 0 && i < count; ++i) job.cache->cells().order.written(cell_of(cells, i));
}

Attention GraphRunner::attention(const ggml_tensor& node, const FindCache& find) const {
  const ggml_tensor &q = *node.src[0], &k = *node.src[1], &v = *node.src[2];
  const ggml_tensor *mask = node.src[3], *sinks = node.src[4];
  const auto rows = [&](const ggml_tensor& view) {
    CacheTensor& cache = *find(&view);
    cache.set_head(view.ne[0]);
    const std::size_t nominal = cache.nominal_row();
    CompressedRows out{.codec = cache.codec(),
                       .data = cache.row(first_cell(view, nominal)),
                       .token_stride = cache.row_bytes(),
                       .head_stride = cache.codec()->format().bytes(),
                       .stream_stride = view.nb[3] / nominal * cache.row_bytes()};
    if (const Codec* codec = cache.protected_codec()) {
      out.protected_codec = codec;
      out.protected_data = cache.protected_row(0);
      out.protected_slot_stride = cache.protected_row_bytes();
      out.protected_head_stride = codec->format().bytes();
    }
    return out;
  };
  Attention a;
  a.heads = static_cast<int>(q.ne[2]);
  a.kv_heads = static_cast<int>(k.ne[2]);
  a.queries = static_cast<int>(q.ne[1]);
  a.tokens = static_cast<int>(k.ne[1]);
  a.streams = static_cast<int>(q.ne[3]);
  a.q = q.data;
  a.q_query_stride = q.nb[1], a.q_head_stride = q.nb[2], a.q_stream_stride = q.nb[3];
  a.k = rows(k), a.v = rows(v);
  const CacheTensor& cache = *find(&k);
  const Cells& cells = cache.cells();
  a.order = cells.order.at.data() + first_cell(k, cache.nominal_row());
  a.order_stream_stride = k.nb[3] / cache.nominal_row();
  if (cells.sinks.tokens() > 0) {
    a.protected_tokens = cells.sinks.tokens();
    a.protected_slots = cells.sinks.slots() + first_cell(k, cache.nominal_row());
    a.protected_stream_stride = a.order_stream_stride;
  }
  if (mask) {
    a.mask = mask->data;
    a.mask_query_stride = mask->nb[1], a.mask_head_stride = mask->nb[2], a.mask_stream_stride = mask->nb[3];
    a.mask_heads = static_cast<int>(mask->ne[2]), a.mask_streams = static_cast<int>(mask->ne[3]);
  }
  a.sinks = sinks ? static_cast<const float*>(sinks->data) : nullptr;
  std::array<float, 3> params{};
  std::memcpy(params.data(), node.op_params, sizeof params);
  a.scale = params[0], a.max_bias = params[1], a.softcap = params[2];
  a.out = static_cast<float*>(node.data);
  return a;
}

GraphRunner::View* GraphRunner::view(const Attention& a, const ggml_tensor* mask, bool& first) {
  for (std::size_t i = 0; i < used_views_; ++i) {
    View& known = views_[i];
    if (known.mask == mask && known.order == a.order && known.heads == a.heads && known.kv_heads == a.kv_heads) return &known;
  }
  if (used_views_ == views_.size()) views_.emplace_back();
  View& fresh = views_[used_views_++];
  fresh.mask = mask, fresh.order = a.order, fresh.heads = a.heads, fresh.kv_heads = a.kv_heads;
  first = true;
  return &fresh;
}

void GraphRunner::attend(Job& job, int thread, int threads) {
  if (thread == 0) {
    if (job.look) job.look->visible.build(job.attention);
    attention_begin(job.attention, threads, job.scratch);
  }
  wait_for_all(job.arrived, threads);
  attention_compute(job.attention, thread, threads, job.scratch);
  wait_for_all(job.arrived, 2 * threads);
  attention_merge(job.attention, thread, threads, job.scratch);
}

// Keys are decoded, turned by the real device's ROPE and encoded again; cells that stay where they are keep their bytes.
ggml_status GraphRunner::shift(const ggml_tensor& rope, CacheTensor& cache) {
  const ggml_tensor& view = *rope.src[0];
  const std::int64_t dim = cache.codec()->format().dim, heads = cache.width() / dim;
  const auto* positions = static_cast<const std::int32_t*>(rope.src[1]->data);
  const auto first_number = static_cast<std::int64_t>(view.view_offs % cache.nominal_row() / 2);
  std::vector<std::int64_t> cells;
  for (std::int64_t cell = 0; cell < view.ne[2]; ++cell) {
    if (positions[cell] != 0) cells.push_back(cell);
  }
  constexpr std::size_t at_once = 256;
  std::vector<float> rows(at_once * static_cast<std::size_t>(cache.width()));
  std::vector<std::int32_t> by(at_once);
  for (std::size_t begin = 0; begin < cells.size(); begin += at_once) {
    const std::size_t count = std::min(at_once, cells.size() - begin);
    struct Part {
      CacheTensor& cache;
      const std::int64_t* cells;
      std::size_t count;
      float* rows;
      bool encode;
    } read{cache, &cells[begin], count, rows.data(), false}, write = read;
    write.encode = true;
    const ggml_custom_op_t convert = [](ggml_tensor*, int thread, int threads, void* data) {
      const Part& part = *static_cast<Part*>(data);
      const auto share = [&](int t) { return part.count * static_cast<std::size_t>(t) / static_cast<std::size_t>(threads); };
      for (std::size_t i = share(thread); i < share(thread + 1); ++i) {
        float* row = part.rows + i * static_cast<std::size_t>(part.cache.width());
        if (part.encode) {
          part.cache.write(part.cells[i], row);
        } else {
          part.cache.read(part.cells[i], row);
        }
      }
    };
    for (std::size_t i = 0; i < count; ++i) by[i] = positions[cells[begin + i]];
    std::vector<std::byte> room(16 * ggml_tensor_overhead() + ggml_graph_overhead_custom(16, false));
    ggml_context* context = ggml_init({.mem_size = room.size(), .mem_buffer = room.data(), .no_alloc = true});
    ggml_cgraph* graph = ggml_new_graph_custom(context, 16, false);
    ggml_tensor* x = ggml_new_tensor_3d(context, GGML_TYPE_F32, dim, heads, static_cast<std::int64_t>(count));
    x->data = rows.data();
    ggml_tensor* shifts = ggml_new_tensor_1d(context, GGML_TYPE_I32, static_cast<std::int64_t>(count));
    shifts->data = by.data();
    const auto step = [&](Part& part) {
      ggml_tensor* node = ggml_custom_inplace(context, x, nullptr, 0, convert, GGML_N_TASKS_MAX, &part);
      node->data = x->data;
      return node;
    };
    ggml_tensor* decoded = step(read);
    ggml_tensor* turned = ggml_view_3d(context, x, view.ne[0], heads, static_cast<std::int64_t>(count), x->nb[1], x->nb[2],
                                       static_cast<std::size_t>(first_number) * sizeof(float));
    turned->data = rows.data() + first_number;
    // The same operation on numbers: everything but type and place is the original's.
    ggml_tensor* node = ggml_rope_ext_inplace(context, turned, shifts, rope.src[2], static_cast<int>(view.ne[0]), 0, 0, 1, 1, 0, 1, 0, 0);
    std::memcpy(node->op_params, rope.op_params, sizeof node->op_params);
    node->data = turned->data;
    ggml_tensor* encoded = step(write);
    for (ggml_tensor* n : {decoded, node, encoded}) ggml_build_forward_expand(graph, n);
    const ggml_status status = ggml_backend_graph_compute(cpu_, graph);
    ggml_free(context);
    if (status != GGML_STATUS_SUCCESS) return status;
  }
  return GGML_STATUS_SUCCESS;
}

}  // namespace hearth::turboquant
