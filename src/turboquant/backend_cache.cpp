#include "turboquant/backend_cache.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <map>
#include <mutex>
#include <stdexcept>
#include <tuple>
#include <utility>
#include <vector>

#include "turboquant/backend_state.h"

namespace hearth::turboquant {
namespace {

constexpr std::size_t kMarkBytes = 8;
constexpr std::uint64_t kProtected = std::uint64_t{1} << 63;  // in a saved number of the order

[[noreturn]] void refuse(const std::string& what) { throw std::runtime_error("TurboQuant: " + what); }

std::optional<int> number_after(std::string_view text, std::string_view head) {
  if (!text.starts_with(head)) return std::nullopt;
  text.remove_prefix(head.size());
  int value = 0;
  const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (failed != std::errc() || value < 0) return std::nullopt;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return text.empty() || text.front() == '.' ? std::optional(value) : std::nullopt;
}

// Codecs are made once and live as long as the process: caches of any model share them.
const Codec& codec_for(VectorFormat format, std::uint64_t seed) {
  static std::mutex mutex;
  static std::map<std::tuple<int, int, std::uint64_t>, Codec> made;
  const std::lock_guard lock(mutex);
  const std::tuple key{format.dim, format.bits, seed};
  auto it = made.find(key);
  if (it == made.end()) {
    auto codec = Codec::create(format, seed);
    if (!codec) refuse(codec.error().message);
    it = made.emplace(key, std::move(*codec)).first;
  }
  return it->second;
}

}  // namespace

std::optional<CacheName> cache_name(std::string_view tensor_name) {
  if (const auto layer = number_after(tensor_name, "cache_k_l")) return CacheName{.value = false, .layer = *layer};
  if (const auto layer = number_after(tensor_name, "cache_v_l")) return CacheName{.value = true, .layer = *layer};
  return std::nullopt;
}

void ProtectedCells::resize(std::int64_t cells, std::int64_t slots, int tokens) {
  tokens_ = slots > 0 ? tokens : 0;
  if (tokens_ == 0) return;
  slot_.resize(std::max(slot_.size(), static_cast<std::size_t>(cells)), -1);
  all_.resize(std::max(all_.size(), static_cast<std::size_t>(slots)));
}

void ProtectedCells::protect(std::int64_t cell) {
  std::int32_t& slot = slot_[static_cast<std::size_t>(cell)];
  if (slot < 0) {
    const auto oldest = std::min_element(all_.begin(), all_.end(), [](const Slot& a, const Slot& b) { return a.seen < b.seen; });
    if (oldest->cell >= 0) slot_[static_cast<std::size_t>(oldest->cell)] = -1;
    oldest->cell = cell;
    slot = static_cast<std::int32_t>(oldest - all_.begin());
  }
  all_[static_cast<std::size_t>(slot)].seen = ++now_;
}

void ProtectedCells::release(std::int64_t cell) {
  if (slot(cell) < 0) return;
  all_[static_cast<std::size_t>(std::exchange(slot_[static_cast<std::size_t>(cell)], -1))] = {};
}

void ProtectedCells::set(std::int64_t cell, bool is_sink) {
  if (is_sink && tokens_ > 0) {
    protect(cell);
  } else {
    release(cell);
  }
}

void ProtectedCells::release_all() {
  std::fill(slot_.begin(), slot_.end(), -1);
  std::fill(all_.begin(), all_.end(), Slot{});
}

void ProtectedCells::look(const std::function<bool(std::int64_t cell)>& is_seen) {
  ++now_;
  for (Slot& slot : all_) {
    if (slot.cell >= 0 && is_seen(slot.cell)) slot.seen = now_;
  }
}

CacheTensor::CacheTensor(const ggml_tensor& tensor, const Layout& layout, std::uint64_t seed, Cells& cells, bool carries)
    : name_(tensor.name),
      width_(tensor.ne[0]),
      rows_(tensor.ne[1] * tensor.ne[2]),
      layout_(layout),
      seed_(seed),
      data_(static_cast<std::uint8_t*>(tensor.data)),
      cells_(&cells),
      carries_(carries && layout.row_bytes + sizeof(std::uint64_t) + kMarkBytes <= nominal_row()) {
  if (layout.slots > 0 && (carries_ != carries || saved_row(true) + kMarkBytes > nominal_row())) {
    refuse("the rows of " + name_ + ", " + std::to_string(width_) + " numbers, have no room for a second record: leave out \"sinks\"");
  }
  auto& order = cells.order.at;
  order.resize(std::max(order.size(), static_cast<std::size_t>(rows_)));
}

void CacheTensor::set_head(std::int64_t dim) {
  const Codec* known = codec();
  if (known && known->format().dim == dim) return;
  if (known) {
    refuse(name_ + " is read in heads of " + std::to_string(dim) + " and of " + std::to_string(known->format().dim) + " numbers");
  }
  if (dim % 32 != 0 || dim < 32 || dim > kMaxDim || width_ % dim != 0) {
    refuse("heads of " + std::to_string(dim) + " numbers (" + name_ +
           ") cannot be compressed: their size must be a multiple of 32, at most " + std::to_string(kMaxDim));
  }
  const VectorFormat format{.dim = static_cast<int>(dim), .bits = layout_.bits};
  if (static_cast<std::size_t>(width_ / dim) * format.bytes() > layout_.row_bytes) {
    refuse("the memory of " + name_ + " was taken for larger heads than " + std::to_string(dim) +
           " numbers: set GGML_TURBOQUANT_HEAD_SIZE=" + std::to_string(dim));
  }
  if (layout_.protected_row_bytes > 0) {
    protected_codec_.store(&codec_for({.dim = format.dim, .bits = layout_.protected_bits}, seed_), std::memory_order_release);
  }
  codec_.store(&codec_for(format, seed_), std::memory_order_release);
}

void CacheTensor::write(std::int64_t cell, const float* row) {
  const auto heads = static_cast<int>(width_ / codec()->format().dim);
  codec()->encode_row(row, heads, this->row(cell));
  if (has_protected(cell)) protected_codec()->encode_row(row, heads, protected_row(cells_->sinks.slot(cell)));
}
void CacheTensor::read(std::int64_t cell, float* row) const {
  const auto heads = static_cast<int>(width_ / codec()->format().dim);
  if (has_protected(cell)) return protected_codec()->decode_row(protected_row(cells_->sinks.slot(cell)), heads, row);
  codec()->decode_row(this->row(cell), heads, row);
}

std::uint64_t CacheTensor::mark(bool with_protected) const {
  const Codec* known = codec();
  const std::uint64_t what = static_cast<std::uint64_t>(known ? known->format().dim : 0) << 9 |
                             static_cast<std::uint64_t>(with_protected) << 8 | static_cast<std::uint64_t>(layout_.bits);
  return (what * 0x9E3779B97F4A7C15ULL) ^ seed_ ^ 0x31514254ULL;  // "TBQ1"
}

std::int64_t CacheTensor::first_row(const ggml_tensor& view) const {
  if (!ggml_is_contiguous(&view) || view.view_offs % nominal_row() != 0) {
    refuse(name_ + " is asked for as numbers, but is stored compressed: only whole rows can be read and written");
  }
  return static_cast<std::int64_t>(view.view_offs / nominal_row());
}

void CacheTensor::save_row(std::int64_t cell, std::uint8_t* out) const {
  std::memcpy(out, row(cell), layout_.row_bytes);
  out += layout_.row_bytes;
  const std::int32_t slot = cells_->sinks.slot(cell);
  if (carries_) {
    const std::uint64_t number = cells_->order.at[static_cast<std::size_t>(cell)] | (slot >= 0 ? kProtected : 0);
    std::memcpy(out, &number, sizeof number);
    out += sizeof number;
  }
  if (has_protected(cell)) std::memcpy(out, protected_row(slot), layout_.protected_row_bytes);
}

// The tensor that carries what is known of the cells is loaded first.
void CacheTensor::load_row(std::int64_t cell, const std::uint8_t* in, bool with_protected) {
  std::memcpy(row(cell), in, layout_.row_bytes);
  in += layout_.row_bytes;
  if (carries_) {
    std::uint64_t number = 0;
    std::memcpy(&number, in, sizeof number);
    in += sizeof number;
    cells_->order.came_back(cell, number & ~kProtected);
    cells_->sinks.set(cell, (number & kProtected) != 0);
  }
  if (with_protected && has_protected(cell)) std::memcpy(protected_row(cells_->sinks.slot(cell)), in, layout_.protected_row_bytes);
}

void CacheTensor::get_state(const ggml_tensor& view, std::span<std::byte> out, std::size_t offset) const {
  const std::int64_t begin = first_row(view);
  const std::size_t nominal = nominal_row();
  if (StateTransfer* transfer = StateTransfer::active(); transfer && offset % nominal == 0 && out.size() % nominal == 0) {
    const std::int64_t first = begin + static_cast<std::int64_t>(offset / nominal);
    const auto size = [&](std::size_t i) { return saved_row(has_protected(first + static_cast<std::int64_t>(i))); };
    const auto save = [&](std::size_t i, std::uint8_t* to) { save_row(first + static_cast<std::int64_t>(i), to); };
    if (transfer->put(out.data(), out.size() / nominal, nominal, size, save)) return;
  }
  std::vector<std::byte> part;
  while (!out.empty()) {
    const std::size_t skip = offset % nominal, take = std::min(nominal - skip, out.size());
    std::span<std::byte> whole = out.first(take);
    if (take < nominal) {
      part.resize(nominal);
      whole = part;
    }
    const std::int64_t cell = begin + static_cast<std::int64_t>(offset / nominal);
    save_row(cell, reinterpret_cast<std::uint8_t*>(whole.data()));
    std::fill(whole.begin() + static_cast<std::ptrdiff_t>(saved_row(has_protected(cell))), whole.end(), std::byte{0});
    const bool empty = std::all_of(whole.begin(), whole.end(), [](std::byte b) { return b == std::byte{0}; });
    const std::uint64_t format = mark(has_protected(cell));
    if (!empty) std::memcpy(whole.data() + nominal - kMarkBytes, &format, kMarkBytes);
    if (take < nominal) std::memcpy(out.data(), whole.data() + skip, take);
    out = out.subspan(take);
    offset += take;
  }
}

void CacheTensor::set_state(const ggml_tensor& view, std::span<const std::byte> in, std::size_t offset) {
  const std::int64_t begin = first_row(view);
  const std::size_t nominal = nominal_row();
  if (offset % nominal != 0 || in.size() % nominal != 0) refuse("a part of a row of " + name_ + " cannot be written");
  if (StateTransfer* transfer = StateTransfer::active()) {
    const std::int64_t first = begin + static_cast<std::int64_t>(offset / nominal);
    const auto load = [&](std::size_t i, std::span<const std::uint8_t> from) {
      const bool with_protected = from.size() == saved_row(true);
      if (!with_protected && from.size() != saved_row(false)) refuse("the saved state is damaged at " + name_);
      load_row(first + static_cast<std::int64_t>(i), from.data(), with_protected);
    };
    if (transfer->take(in.data(), in.size() / nominal, nominal, load)) return;
  }
  const std::uint64_t plain = mark(false), with_protected = mark(true);
  const auto found = [&](std::size_t at) {
    std::uint64_t format = 0;
    std::memcpy(&format, in.data() + at + nominal - kMarkBytes, kMarkBytes);
    return format;
  };
  // All is looked at before anything is written.
  for (std::size_t at = 0; at < in.size(); at += nominal) {
    const auto whole = in.subspan(at, nominal);
    if (found(at) == plain || (layout_.protected_row_bytes > 0 && found(at) == with_protected)) continue;
    if (std::all_of(whole.begin(), whole.end(), [](std::byte b) { return b == std::byte{0}; })) continue;
    refuse("the saved state does not fit: " + name_ + " was saved by another profile, another seed or without compression");
  }
  for (std::size_t at = 0; at < in.size(); at += nominal) {
    load_row(begin + static_cast<std::int64_t>((offset + at) / nominal), reinterpret_cast<const std::uint8_t*>(in.data() + at),
             found(at) == with_protected);
  }
}

bool CacheTensor::copy(const ggml_tensor& to, const CacheTensor& source, const ggml_tensor& from) {
  const bool alike = source.layout_.row_bytes == layout_.row_bytes && source.width_ == width_ && source.layout_.bits == layout_.bits &&
                     source.seed_ == seed_;
  const std::size_t bytes = ggml_nbytes(&to);
  if (!alike || bytes != ggml_nbytes(&from) || bytes % nominal_row() != 0) return false;
  if (!codec() && source.codec()) set_head(source.codec()->format().dim);
  const auto rows = static_cast<std::int64_t>(bytes / nominal_row());
  const std::int64_t target = first_row(to), origin = source.first_row(from);
  std::memmove(row(target), source.row(origin), static_cast<std::size_t>(rows) * layout_.row_bytes);
  ProtectedCells& sinks = cells_->sinks;
  const ProtectedCells& others = source.cells_->sinks;
  if (carries_) {
    const std::vector<std::uint64_t> numbers(source.cells_->order.at.begin() + origin, source.cells_->order.at.begin() + origin + rows);
    for (std::int64_t i = 0; i < rows; ++i) cells_->order.came_back(target + i, numbers[static_cast<std::size_t>(i)]);
    for (std::int64_t i = 0; i < rows; ++i) {
      if (others.slot(origin + i) >= 0) sinks.set(target + i, true);
    }
    for (std::int64_t i = 0; i < rows; ++i) {  // a copy may have taken the slot of what it was made of
      if (others.slot(origin + i) < 0) sinks.set(target + i, false);
    }
  }
  for (std::int64_t i = 0; i < rows; ++i) {
    if (!has_protected(target + i) || !source.has_protected(origin + i)) continue;
    std::memcpy(protected_row(sinks.slot(target + i)), source.protected_row(others.slot(origin + i)), layout_.protected_row_bytes);
  }
  return true;
}

CacheStore::CacheStore(Profile profile, int layers, int head_size, std::uint64_t seed)
    : profile_(profile), head_size_(head_size), seed_(seed), fixed_(layers > 0), layers_(layers) {}

Result<void> CacheStore::check(const ggml_tensor& tensor) {
  if (tensor.type == GGML_TYPE_F16) return {};
  return Error{ErrorCode::config_invalid, std::string(tensor.name) + " has the type " + ggml_type_name(tensor.type) +
                                              ", but TurboQuant compresses an f16 cache: leave the cache types at f16"};
}

CacheTensor::Layout CacheStore::layout(const ggml_tensor& tensor) const {
  const CacheName name = *cache_name(tensor.name);
  const Widths widths = profile_.of_layer(name.layer, layers_);
  const int bits = name.value ? widths.values : widths.keys;
  CacheTensor::Layout out{.bits = bits, .row_bytes = row_bytes(tensor.ne[0], bits)};
  out.protected_bits = name.value ? kSinkWidths.values : kSinkWidths.keys;
  out.slots = slots(tensor);
  if (out.slots > 0 && bits < out.protected_bits) out.protected_row_bytes = row_bytes(tensor.ne[0], out.protected_bits);
  return out;
}

std::size_t CacheStore::row_bytes(std::int64_t width, int bits) const {
  const std::int64_t heads = (width + head_size_ - 1) / head_size_;
  return static_cast<std::size_t>(heads) * VectorFormat{.dim = head_size_, .bits = bits}.bytes();
}

void CacheStore::offered(const ggml_tensor& weight) {
  const auto layer = number_after(weight.name, "blk.");
  if (fixed_ || !layer) return;
  if (*layer < last_) layers_ = 0;  // the next model
  last_ = *layer;
  layers_ = std::max(layers_.load(), *layer + 1);
}

}  // namespace hearth::turboquant
