#include "turboquant/backend_cache.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <map>
#include <mutex>
#include <stdexcept>
#include <tuple>
#include <vector>

#include "turboquant/backend_state.h"

namespace hearth::turboquant {
namespace {

constexpr std::size_t kMarkBytes = 8;

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

CacheTensor::CacheTensor(const ggml_tensor& tensor, int bits, std::size_t row_bytes, std::uint64_t seed, CellOrder& order, bool carries)
    : name_(tensor.name),
      width_(tensor.ne[0]),
      rows_(tensor.ne[1] * tensor.ne[2]),
      bits_(bits),
      row_bytes_(row_bytes),
      seed_(seed),
      data_(static_cast<std::uint8_t*>(tensor.data)),
      order_(&order),
      carries_(carries && row_bytes + sizeof(std::uint64_t) + kMarkBytes <= nominal_row()) {
  order.at.resize(std::max(order.at.size(), static_cast<std::size_t>(rows_)));
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
  const VectorFormat format{.dim = static_cast<int>(dim), .bits = bits_};
  if (static_cast<std::size_t>(width_ / dim) * format.bytes() > row_bytes_) {
    refuse("the memory of " + name_ + " was taken for larger heads than " + std::to_string(dim) +
           " numbers: set GGML_TURBOQUANT_HEAD_SIZE=" + std::to_string(dim));
  }
  codec_.store(&codec_for(format, seed_), std::memory_order_release);
}

std::uint64_t CacheTensor::mark() const {
  const Codec* known = codec();
  const std::uint64_t what = static_cast<std::uint64_t>(known ? known->format().dim : 0) << 8 | static_cast<std::uint64_t>(bits_);
  return (what * 0x9E3779B97F4A7C15ULL) ^ seed_ ^ 0x31514254ULL;  // "TBQ1"
}

std::int64_t CacheTensor::first_row(const ggml_tensor& view) const {
  if (!ggml_is_contiguous(&view) || view.view_offs % nominal_row() != 0) {
    refuse(name_ + " is asked for as numbers, but is stored compressed: only whole rows can be read and written");
  }
  return static_cast<std::int64_t>(view.view_offs / nominal_row());
}

void CacheTensor::save_row(std::int64_t cell, std::uint8_t* out) const {
  std::memcpy(out, row(cell), row_bytes_);
  if (carries_) std::memcpy(out + row_bytes_, &order_->at[static_cast<std::size_t>(cell)], sizeof(std::uint64_t));
}
void CacheTensor::load_row(std::int64_t cell, const std::uint8_t* in) {
  std::memcpy(row(cell), in, row_bytes_);
  if (!carries_) return;
  std::uint64_t number = 0;
  std::memcpy(&number, in + row_bytes_, sizeof number);
  order_->came_back(cell, number);
}

void CacheTensor::get_state(const ggml_tensor& view, std::span<std::byte> out, std::size_t offset) const {
  const std::int64_t begin = first_row(view);
  if (StateTransfer* transfer = StateTransfer::active(); transfer && offset % nominal_row() == 0 && out.size() % nominal_row() == 0) {
    const std::int64_t first = begin + static_cast<std::int64_t>(offset / nominal_row());
    const auto save = [&](std::size_t i, std::uint8_t* to) { save_row(first + static_cast<std::int64_t>(i), to); };
    if (transfer->put(out.data(), out.size() / nominal_row(), saved_row(), nominal_row(), save)) return;
  }
  const std::uint64_t format = mark();
  std::vector<std::byte> part;
  while (!out.empty()) {
    const std::size_t nominal = nominal_row(), skip = offset % nominal, take = std::min(nominal - skip, out.size());
    std::span<std::byte> whole = out.first(take);
    if (take < nominal) {
      part.resize(nominal);
      whole = part;
    }
    save_row(begin + static_cast<std::int64_t>(offset / nominal), reinterpret_cast<std::uint8_t*>(whole.data()));
    std::fill(whole.begin() + static_cast<std::ptrdiff_t>(saved_row()), whole.end(), std::byte{0});
    const bool empty = std::all_of(whole.begin(), whole.end(), [](std::byte b) { return b == std::byte{0}; });
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
    const auto load = [&](std::size_t i, const std::uint8_t* from) { load_row(first + static_cast<std::int64_t>(i), from); };
    if (transfer->take(in.data(), in.size() / nominal, saved_row(), nominal, load)) return;
  }
  const std::uint64_t format = mark();
  // All is looked at before anything is written.
  for (std::size_t at = 0; at < in.size(); at += nominal) {
    const auto whole = in.subspan(at, nominal);
    std::uint64_t found = 0;
    std::memcpy(&found, whole.data() + nominal - kMarkBytes, kMarkBytes);
    if (found == format) continue;
    if (std::all_of(whole.begin(), whole.end(), [](std::byte b) { return b == std::byte{0}; })) continue;
    refuse("the saved state does not fit: " + name_ + " was saved by another profile, another seed or without compression");
  }
  for (std::size_t at = 0; at < in.size(); at += nominal) {
    load_row(begin + static_cast<std::int64_t>((offset + at) / nominal), reinterpret_cast<const std::uint8_t*>(in.data() + at));
  }
}

bool CacheTensor::copy(const ggml_tensor& to, const CacheTensor& source, const ggml_tensor& from) {
  const bool alike = source.row_bytes_ == row_bytes_ && source.width_ == width_ && source.bits_ == bits_ && source.seed_ == seed_;
  const std::size_t bytes = ggml_nbytes(&to);
  if (!alike || bytes != ggml_nbytes(&from) || bytes % nominal_row() != 0) return false;
  if (!codec() && source.codec()) set_head(source.codec()->format().dim);
  const std::size_t rows = bytes / nominal_row();
  const std::int64_t target = first_row(to), origin = source.first_row(from);
  std::memmove(row(target), source.row(origin), rows * row_bytes_);
  if (carries_) {
    const std::vector<std::uint64_t> numbers(source.order_->at.begin() + origin,
                                             source.order_->at.begin() + origin + static_cast<std::ptrdiff_t>(rows));
    for (std::size_t i = 0; i < rows; ++i) order_->came_back(target + static_cast<std::int64_t>(i), numbers[i]);
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

int CacheStore::bits(CacheName name) const {
  const Widths widths = profile_.of_layer(name.layer, layers_);
  return name.value ? widths.values : widths.keys;
}

std::size_t CacheStore::row_bytes(std::int64_t width, int bits) const {
  const std::int64_t heads = (width + head_size_ - 1) / head_size_;
  return static_cast<std::size_t>(heads) * VectorFormat{.dim = head_size_, .bits = bits}.bytes();
}

std::size_t CacheStore::bytes(const ggml_tensor& tensor) const {
  return row_bytes(tensor.ne[0], bits(*cache_name(tensor.name))) * static_cast<std::size_t>(tensor.ne[1] * tensor.ne[2]);
}

void CacheStore::offered(const ggml_tensor& weight) {
  const auto layer = number_after(weight.name, "blk.");
  if (fixed_ || !layer) return;
  if (*layer < last_) layers_ = 0;  // the next model
  last_ = *layer;
  layers_ = std::max(layers_.load(), *layer + 1);
}

}  // namespace hearth::turboquant
