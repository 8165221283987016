#include "turboquant/backend.h"

#include <ggml-backend-impl.h>
#include <ggml-backend.h>
#include <ggml.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <deque>
#include <vector>

#include "turboquant/backend_cache.h"
#include "turboquant/backend_graph.h"
#include "turboquant/backend_state.h"

namespace hearth::turboquant {
namespace {

struct Device {
  BackendOptions options;
  CacheStore store;

  Device(const BackendOptions& wanted, Profile profile)
      : options(wanted), store(profile, wanted.layers, wanted.head_size > 0 ? wanted.head_size : 64, kDefaultSeed) {}
  ggml_backend_dev_t inner = nullptr;
  std::string name = "TurboQuant", description;
  ggml_backend_reg reg{};
  ggml_backend_device handle{};
  ggml_backend_buffer_type memory{};  // where llama.cpp puts the cache, and each graph its intermediate results
  std::atomic<std::uint64_t> bytes{0}, f16_bytes{0};
  KvTimes times;

  void say(bool error, const std::string& line) const {
    if (options.log) return options.log(error, line);
    ggml_log_callback log = nullptr;
    void* data = nullptr;
    ggml_log_get(&log, &data);
    if (log) log(error ? GGML_LOG_LEVEL_ERROR : GGML_LOG_LEVEL_INFO, (line + "\n").c_str(), data);
  }
};

// A buffer of the device: memory of the inner device, and what of it is a cache.
struct Buffer {
  Device* device;
  ggml_backend_buffer_t memory;
  std::deque<CacheTensor> caches;  // ggml_tensor::extra points here
  Cells cells;                     // llama.cpp keeps the caches of the same cells in one buffer
  std::uint64_t bytes = 0, f16_bytes = 0;
  bool announced = false;
};

// One stream of graphs.
struct Stream {
  Device* device;
  ggml_backend_t inner;
  ggml_backend_set_n_threads_t set_threads = nullptr;
  GraphRunner runner;
};

Device& of(ggml_backend_dev_t dev) { return *static_cast<Device*>(dev->context); }
Device& of(ggml_backend_buffer_type_t type) { return *static_cast<Device*>(type->context); }
Buffer& of(ggml_backend_buffer_t buffer) { return *static_cast<Buffer*>(buffer->context); }
Stream& of(ggml_backend_t backend) { return *static_cast<Stream*>(backend->context); }

bool ours(const Device& device, const ggml_tensor* tensor) {
  auto* const buffer = root(tensor)->buffer;
  return buffer && buffer->buft == &device.memory;
}

// Buffers without memory: llama.cpp's dry runs, which only measure, and its questions about where a weight could be.
bool dry(const ggml_tensor* tensor) { return root(tensor)->buffer->context == nullptr; }

// Whether `tensor` is or looks into a tensor that is kept compressed, or would be.
bool compressed(const Device& device, const ggml_tensor* tensor) {
  if (!ours(device, tensor)) return false;
  return dry(tensor) ? cache_name(root(tensor)->name).has_value() : root(tensor)->extra != nullptr;
}

CacheTensor* find_cache(const Device& device, const ggml_tensor* tensor) {
  return ours(device, tensor) && !dry(tensor) ? static_cast<CacheTensor*>(root(tensor)->extra) : nullptr;
}

// ---- Buffers

// The same tensor, as the inner device may see it.
ggml_tensor inside(ggml_backend_buffer_t buffer, const ggml_tensor* tensor) {
  ggml_tensor plain = *tensor;
  plain.buffer = of(buffer).memory;
  plain.view_src = nullptr;
  plain.view_offs = 0;
  return plain;
}

CacheTensor* cache_of(const ggml_tensor* tensor) { return static_cast<CacheTensor*>(root(tensor)->extra); }

void free_buffer(ggml_backend_buffer_t buffer) {
  Buffer* b = &of(buffer);
  b->device->bytes -= b->bytes;
  b->device->f16_bytes -= b->f16_bytes;
  ggml_backend_buffer_free(b->memory);
  delete b;
}

void* base(ggml_backend_buffer_t buffer) { return ggml_backend_buffer_get_base(of(buffer).memory); }

ggml_status init_tensor(ggml_backend_buffer_t buffer, ggml_tensor* tensor) {
  Buffer& b = of(buffer);
  if (tensor->view_src) return GGML_STATUS_SUCCESS;
  tensor->extra = nullptr;
  const auto name = cache_name(tensor->name);
  if (!name) {
    ggml_tensor plain = inside(buffer, tensor);
    return ggml_backend_buffer_init_tensor(b.memory, &plain);
  }
  if (auto fit = b.device->store.check(*tensor); !fit) {
    b.device->say(true, "TurboQuant: " + fit.error().message);
    return GGML_STATUS_FAILED;
  }
  const CacheStore& store = b.device->store;
  const std::int64_t cells = tensor->ne[1] * tensor->ne[2];
  const auto layout = store.layout(*tensor);
  b.cells.sinks.resize(cells, layout.slots, store.sinks());
  try {
    tensor->extra = &b.caches.emplace_back(*tensor, layout, store.seed(), b.cells, b.caches.empty());
  } catch (const std::exception& e) {
    b.device->say(true, e.what());
    return GGML_STATUS_FAILED;
  }
  auto size = layout.bytes(cells);
  if (b.caches.size() == 1) size += static_cast<std::size_t>(cells) * sizeof(std::uint64_t);  // the order
  b.bytes += size, b.device->bytes += size;
  b.f16_bytes += ggml_nbytes(tensor), b.device->f16_bytes += ggml_nbytes(tensor);
  return GGML_STATUS_SUCCESS;
}

void set_tensor(ggml_backend_buffer_t buffer, ggml_tensor* tensor, const void* data, std::size_t offset, std::size_t size) {
  if (CacheTensor* cache = cache_of(tensor)) {
    try {
      return cache->set_state(*tensor, {static_cast<const std::byte*>(data), size}, offset);
    } catch (const std::exception& e) {
      of(buffer).device->say(true, e.what());  // llama.cpp says no more than that it failed
      throw;
    }
  }
  ggml_tensor plain = inside(buffer, tensor);
  ggml_backend_tensor_set(&plain, data, offset, size);
}

void get_tensor(ggml_backend_buffer_t buffer, const ggml_tensor* tensor, void* data, std::size_t offset, std::size_t size) {
  if (const CacheTensor* cache = cache_of(tensor)) return cache->get_state(*tensor, {static_cast<std::byte*>(data), size}, offset);
  const ggml_tensor plain = inside(buffer, tensor);
  ggml_backend_tensor_get(&plain, data, offset, size);
}

void memset_tensor(ggml_backend_buffer_t buffer, ggml_tensor* tensor, std::uint8_t value, std::size_t offset, std::size_t size) {
  if (cache_of(tensor)) {
    const std::vector<std::byte> bytes(size, std::byte{value});
    return set_tensor(buffer, tensor, bytes.data(), offset, size);
  }
  ggml_tensor plain = inside(buffer, tensor);
  ggml_backend_tensor_memset(&plain, value, offset, size);
}

// Only where both sides are compressed, or both plain; ggml does the rest through get_tensor and set_tensor.
bool copy_tensor(ggml_backend_buffer_t buffer, const ggml_tensor* from, ggml_tensor* to) {
  auto* const source = root(from)->buffer;
  if (source->buft != buffer->buft) return false;
  CacheTensor* target = cache_of(to);
  const CacheTensor* cache = cache_of(from);
  if (target && cache) return target->copy(*to, *cache, *from);
  if (target || cache) return false;
  ggml_tensor plain_from = inside(source, from), plain_to = inside(buffer, to);
  ggml_backend_tensor_copy(&plain_from, &plain_to);
  return true;
}

void clear(ggml_backend_buffer_t buffer, std::uint8_t value) {
  Buffer& b = of(buffer);
  ggml_backend_buffer_clear(b.memory, value);
  std::fill(b.cells.order.at.begin(), b.cells.order.at.end(), 0);
  b.cells.sinks.release_all();
  if (b.announced || b.bytes == 0) return;
  b.announced = true;  // llama.cpp clears a cache once it is complete
  std::array<char, 160> line{};
  constexpr double mib = 1024.0 * 1024.0;
  std::snprintf(line.data(), line.size(), "TurboQuant: KV cache %s: %.2f MiB, %.2f MiB as f16 (%.2f times)",
                b.device->options.profile.c_str(), static_cast<double>(b.bytes) / mib, static_cast<double>(b.f16_bytes) / mib,
                static_cast<double>(b.f16_bytes) / static_cast<double>(b.bytes));
  b.device->say(false, line.data());
}

ggml_backend_buffer_t allocate(ggml_backend_buffer_type_t type, std::size_t size) {
  Device& device = of(type);
  auto* const memory = ggml_backend_buft_alloc_buffer(ggml_backend_dev_buffer_type(device.inner), size);
  if (!memory) return nullptr;
  const ggml_backend_buffer_i calls{.free_buffer = free_buffer,
                                    .get_base = base,
                                    .init_tensor = init_tensor,
                                    .memset_tensor = memset_tensor,
                                    .set_tensor = set_tensor,
                                    .get_tensor = get_tensor,
                                    .cpy_tensor = copy_tensor,
                                    .clear = clear};
  return ggml_backend_buffer_init(type, calls, new Buffer{.device = &device, .memory = memory}, size);  // NOLINT: free_buffer's
}

const ggml_backend_buffer_type_i memory_calls{
    .get_name = [](ggml_backend_buffer_type_t type) { return of(type).name.c_str(); },
    .alloc_buffer = allocate,
    .get_alignment =
        [](ggml_backend_buffer_type_t type) { return ggml_backend_buft_get_alignment(ggml_backend_dev_buffer_type(of(type).inner)); },
    .get_max_size =
        [](ggml_backend_buffer_type_t type) { return ggml_backend_buft_get_max_size(ggml_backend_dev_buffer_type(of(type).inner)); },
    .get_alloc_size = [](ggml_backend_buffer_type_t type, const ggml_tensor* tensor) -> std::size_t {
      const Device& device = of(type);
      if (device.store.keeps(*tensor)) return device.store.bytes(*tensor);
      return ggml_backend_buft_get_alloc_size(ggml_backend_dev_buffer_type(device.inner), tensor);
    },
    .is_host = [](ggml_backend_buffer_type_t) { return false; },  // or the CPU would compute on what it cannot read
};

// ---- Computing

ggml_status compute(ggml_backend_t backend, ggml_cgraph* graph) {
  Stream& stream = of(backend);
  return stream.runner.compute(graph, [&](const ggml_tensor* tensor) { return find_cache(*stream.device, tensor); });
}

ggml_guid_t guid() {
  static ggml_guid id{0x6b, 0x1f, 0x4e, 0x2a, 0x93, 0x57, 0x4c, 0x0d, 0xa8, 0x31, 0x7e, 0xc4, 0x05, 0x9b, 0x62, 0xfd};
  return &id;
}

ggml_backend_t init_backend(ggml_backend_dev_t dev, const char* params) {
  Device& device = of(dev);
  auto* const inner = ggml_backend_dev_init(device.inner, params);
  if (!inner) return nullptr;
  auto* stream = new Stream{.device = &device, .inner = inner, .runner = GraphRunner(inner, device.times)};  // NOLINT: free's
  auto* const reg = ggml_backend_dev_backend_reg(device.inner);
  stream->set_threads =
      reinterpret_cast<ggml_backend_set_n_threads_t>(ggml_backend_reg_get_proc_address(reg, "ggml_backend_set_n_threads"));
  if (device.options.pool) {
    using SetPool = void (*)(ggml_backend_t, ggml_threadpool*);
    const auto set_pool = reinterpret_cast<SetPool>(ggml_backend_reg_get_proc_address(reg, "ggml_backend_cpu_set_threadpool"));
    if (set_pool) set_pool(inner, device.options.pool);
  }
  const ggml_backend_i calls{
      .get_name = [](ggml_backend_t backend) { return of(backend).device->name.c_str(); },
      .free =
          [](ggml_backend_t b) {
            ggml_backend_free(of(b).inner);
            delete &of(b);
            delete b;
          },
      .synchronize = [](ggml_backend_t b) { ggml_backend_synchronize(of(b).inner); },
      .graph_compute = compute,
  };
  return new ggml_backend{.guid = guid(), .iface = calls, .device = dev, .context = stream};  // NOLINT: free's
}

// ---- The device

// Anything but these on a compressed tensor would compute on bytes it does not understand. No other back end can be given it either, so it is
// refused here, which llama.cpp reports when the context is made.
bool supports_op(ggml_backend_dev_t dev, const ggml_tensor* op) {
  Device& device = of(dev);
  bool touches = compressed(device, op);
  for (const ggml_tensor* source : op->src) {
    if (!source || !ours(device, source)) continue;
    if (compressed(device, source)) {
      touches = true;
    } else if (dry(source) && !std::string_view(root(source)->name).starts_with("cache_")) {
      device.store.offered(*source);
      return false;  // a weight: its place is in the inner device's own memory
    }
  }
  if (touches) {
    require_supported(
        *op, [&](const ggml_tensor* tensor) { return compressed(device, tensor); },
        [&](const ggml_tensor* tensor) { return find_cache(device, tensor); });
    return true;
  }
  return ggml_backend_dev_supports_op(device.inner, op);
}

bool supports_memory(ggml_backend_dev_t dev, ggml_backend_buffer_type_t type) {
  return type == &of(dev).memory || ggml_backend_dev_supports_buft(of(dev).inner, type);
}

void properties(ggml_backend_dev_t dev, ggml_backend_dev_props* out) {
  const Device& device = of(dev);
  ggml_backend_dev_get_props(device.inner, out);
  out->name = device.name.c_str();
  out->description = device.description.c_str();
  out->type = ggml_backend_dev_type(dev);
  out->device_id = nullptr;
  out->caps = {.mmap_support = out->caps.mmap_support};
}

const ggml_backend_device_i device_calls{
    .get_name = [](ggml_backend_dev_t dev) { return of(dev).name.c_str(); },
    .get_description = [](ggml_backend_dev_t dev) { return of(dev).description.c_str(); },
    .get_memory = [](ggml_backend_dev_t dev, std::size_t* free,
                     std::size_t* total) { ggml_backend_dev_memory(of(dev).inner, free, total); },
    // llama.cpp keeps caches only on what calls itself a GPU. An integrated one gives way to any real GPU.
    .get_type = [](ggml_backend_dev_t) { return GGML_BACKEND_DEVICE_TYPE_IGPU; },
    .get_props = properties,
    .init_backend = init_backend,
    .get_buffer_type = [](ggml_backend_dev_t dev) { return &of(dev).memory; },
    .supports_op = supports_op,
    .supports_buft = supports_memory,
};

void* proc_address(ggml_backend_reg_t reg, const char* name) {
  const std::string_view wanted(name);
  if (wanted == "ggml_backend_set_n_threads") {
    const ggml_backend_set_n_threads_t set = [](ggml_backend_t backend, int threads) {
      Stream& stream = of(backend);
      if (stream.set_threads) stream.set_threads(stream.inner, threads);
      stream.runner.set_threads(threads);
    };
    return reinterpret_cast<void*>(set);
  }
  (void)reg;
  return nullptr;
}

const ggml_backend_reg_i registry_calls{
    .get_name = [](ggml_backend_reg_t reg) { return static_cast<Device*>(reg->context)->name.c_str(); },
    .get_device_count = [](ggml_backend_reg_t) { return std::size_t{1}; },
    .get_device = [](ggml_backend_reg_t reg, std::size_t) { return &static_cast<Device*>(reg->context)->handle; },
    .get_proc_address = proc_address,
};

}  // namespace

struct Backend::State : Device {
  using Device::Device;
};

Backend::Backend(std::unique_ptr<State> state) : state_(std::move(state)) {}
Backend::~Backend() = default;
ggml_backend_device* Backend::device() const { return &state_->handle; }
ggml_backend_reg* Backend::registry() const { return &state_->reg; }
KvUsage Backend::usage() const {
  const auto time = [](std::int64_t count) { return std::chrono::nanoseconds(count); };
  return {state_->bytes, state_->f16_bytes, time(state_->times.encoding), time(state_->times.attention)};
}

std::uint64_t Backend::format() const {
  std::uint64_t hash = kDefaultSeed;  // FNV-1a
  for (const char c : state_->options.profile) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3ULL;
  return hash;
}

Result<std::vector<std::uint8_t>> Backend::save(std::size_t size,
                                                const std::function<std::size_t(std::uint8_t*, std::size_t)>& write) const {
  return StateTransfer::save(size, format(), write);
}

Result<std::size_t> Backend::restore(std::span<const std::uint8_t> state,
                                     const std::function<std::size_t(const std::uint8_t*, std::size_t)>& read) const {
  return StateTransfer::restore(state, format(), read);
}

Result<std::unique_ptr<Backend>> Backend::create(const BackendOptions& options, ggml_backend_device* inner) {
  if (!inner) inner = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
  if (!inner) return Error{ErrorCode::io, "no ggml CPU back end was found"};
  if (ggml_backend_dev_type(inner) != GGML_BACKEND_DEVICE_TYPE_CPU) {
    return Error{ErrorCode::unsupported,
                 std::string("there are no TurboQuant kernels for ") + ggml_backend_dev_name(inner) + ": use the CPU"};
  }
  auto profile = find_profile(options.profile);
  if (!profile) return std::move(profile).error();
  auto state = std::make_unique<State>(options, *profile);
  state->inner = inner;
  state->description = options.profile + " on " + ggml_backend_dev_description(inner);
  state->reg = {.api_version = GGML_BACKEND_API_VERSION, .iface = registry_calls, .context = static_cast<Device*>(state.get())};
  state->handle = {.iface = device_calls, .reg = &state->reg, .context = static_cast<Device*>(state.get())};
  state->memory = {.iface = memory_calls, .device = &state->handle, .context = static_cast<Device*>(state.get())};
  return std::unique_ptr<Backend>(new Backend(std::move(state)));
}

}  // namespace hearth::turboquant
