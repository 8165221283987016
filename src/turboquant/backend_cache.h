// The KV tensors of llama.cpp inside a buffer of ours: which they are, how their rows are stored, and which operations on them mean something.
// Private to the back end.
//
// llama.cpp sees a tensor of nominal type f16, [width, cells, streams]. Its views say which rows an operation means, never where bytes are: a row is one
// cell, the key or value of all heads of one token in one layer, and is stored in `row_bytes` bytes as format.h says. The size of a head is not known
// when the memory is asked for; it shows in the first attention operation, which llama.cpp plans before it computes anything.
#pragma once

#include <ggml.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "turboquant/codec.h"
#include "turboquant/profile.h"

namespace hearth::turboquant {

// "cache_k_l12": the name llama.cpp gives a layer's keys (cache_v_ for values). Other caches (indexers, recurrent states) have other names and are
// left as they are.
struct CacheName {
  bool value = false;
  int layer = 0;
};
std::optional<CacheName> cache_name(std::string_view tensor_name);

inline const ggml_tensor* root(const ggml_tensor* tensor) { return tensor->view_src ? tensor->view_src : tensor; }

// In which order the cells of a buffer were written: a number for each, taken from a count. The rows of all its tensors share their cells. Cells are
// chosen by llama.cpp where there is room, so that their numbers say nothing; this order is the sequence's own. It is saved and comes back with the rows,
// and whatever is written later has higher numbers.
struct CellOrder {
  std::vector<std::uint64_t> at;
  std::uint64_t next = 1;  // 0: never written

  void written(std::int64_t cell) { at[static_cast<std::size_t>(cell)] = next++; }
  void came_back(std::int64_t cell, std::uint64_t number) {
    at[static_cast<std::size_t>(cell)] = number;
    next = std::max(next, number + 1);
  }
};

// Which cells of a buffer hold the first tokens of a sequence, for a profile with `sinks`. Each has a slot: a place in its tensors for a second, wider
// record. llama.cpp does not say which cells are still in use, so where all slots are taken a new cell gets the one that was not seen for the longest time,
// and the cell that had it goes on with the record that every cell has.
class ProtectedCells {
 public:
  void resize(std::int64_t cells, std::int64_t slots, int tokens);
  int tokens() const { return tokens_; }                      // of a sequence; 0: nothing is protected
  const std::int32_t* slots() const { return slot_.data(); }  // by cell; −1: none
  std::int32_t slot(std::int64_t cell) const { return tokens_ == 0 ? -1 : slot_[static_cast<std::size_t>(cell)]; }
  void set(std::int64_t cell, bool is_sink);
  void release_all();
  // A new moment; every cell for which `is_seen` holds was seen now.
  void look(const std::function<bool(std::int64_t cell)>& is_seen);

 private:
  void protect(std::int64_t cell);
  void release(std::int64_t cell);

  int tokens_ = 0;
  std::vector<std::int32_t> slot_;
  struct Slot {
    std::int64_t cell = -1;
    std::uint64_t seen = 0;
  };
  std::vector<Slot> all_;
  std::uint64_t now_ = 0;
};

// What is known of the cells of a buffer: all its tensors have a row for each.
struct Cells {
  CellOrder order;
  ProtectedCells sinks;
};

// One compressed tensor. Calls that refuse throw std::runtime_error: ggml passes no errors on here, but llama.cpp catches them around making a context
// and loading a state, logs them and fails that call.
class CacheTensor {
 public:
  struct Layout {
    int bits = 0;
    std::size_t row_bytes = 0;
    int protected_bits = 0;
    std::size_t protected_row_bytes = 0;  // 0: its protected cells have no wider record
    std::int64_t slots = 0;               // protected rows, behind the others
    std::size_t bytes(std::int64_t cells) const {
      return static_cast<std::size_t>(cells) * row_bytes + static_cast<std::size_t>(slots) * protected_row_bytes;
    }
  };
  // `cells` outlives the tensor. The one tensor that `carries` what is known of them saves it with its rows. Throws where sinks are asked for and a saved row
  // has no room for them.
  CacheTensor(const ggml_tensor& tensor, const Layout& layout, std::uint64_t seed, Cells& cells, bool carries);

  // Called with every attention operation; the first one fixes the size of a head. Throws where the rows have no room for it.
  void set_head(std::int64_t dim);
  // Null before the first set_head.
  const Codec* codec() const { return codec_.load(std::memory_order_acquire); }
  // Of protected rows; null where there are none, and before the first set_head.
  const Codec* protected_codec() const { return protected_codec_.load(std::memory_order_acquire); }

  std::int64_t width() const { return width_; }
  std::size_t nominal_row() const { return static_cast<std::size_t>(width_) * 2; }
  std::size_t row_bytes() const { return layout_.row_bytes; }
  std::size_t protected_row_bytes() const { return layout_.protected_row_bytes; }
  std::uint8_t* row(std::int64_t cell) const { return data_ + static_cast<std::size_t>(cell) * layout_.row_bytes; }
  std::uint8_t* protected_row(std::int32_t slot) const { return row(rows_) + static_cast<std::size_t>(slot) * layout_.protected_row_bytes; }
  const std::string& name() const { return name_; }
  Cells& cells() const { return *cells_; }

  // The key or value of a token: of all heads, width() numbers.
  void write(std::int64_t cell, const float* row);
  void read(std::int64_t cell, float* row) const;

  // What llama.cpp saves of a row is the stored bytes, its number in the order where the tensor carries it, its protected bytes if it has some, then zeros up
  // to the nominal size with a mark of the format at the end: exact, and rows of another profile or of plain f16 are refused. `view` is a contiguous view of
  // whole rows; `offset` in nominal bytes from its start.
  void get_state(const ggml_tensor& view, std::span<std::byte> out, std::size_t offset) const;
  void set_state(const ggml_tensor& view, std::span<const std::byte> in, std::size_t offset);
  // Rows to rows, where both store them alike; false where not.
  bool copy(const ggml_tensor& to, const CacheTensor& source, const ggml_tensor& from);

 private:
  std::int64_t first_row(const ggml_tensor& view) const;
  bool has_protected(std::int64_t cell) const { return layout_.protected_row_bytes > 0 && cells_->sinks.slot(cell) >= 0; }
  std::uint64_t mark(bool with_protected) const;
  std::size_t saved_row(bool with_protected) const {
    return layout_.row_bytes + (carries_ ? sizeof(std::uint64_t) : 0) + (with_protected ? layout_.protected_row_bytes : 0);
  }
  void save_row(std::int64_t cell, std::uint8_t* out) const;
  void load_row(std::int64_t cell, const std::uint8_t* in, bool with_protected);

  std::string name_;
  std::int64_t width_, rows_;
  Layout layout_;
  std::uint64_t seed_;
  std::uint8_t* data_;
  Cells* cells_;
  bool carries_;
  std::atomic<const Codec*> codec_{nullptr}, protected_codec_{nullptr};
};

// What a device does with the tensors of a model.
class CacheStore {
 public:
  CacheStore(Profile profile, int layers, int head_size, std::uint64_t seed);

  std::uint64_t seed() const { return seed_; }
  bool keeps(const ggml_tensor& tensor) const { return cache_name(tensor.name).has_value() && tensor.type == GGML_TYPE_F16; }
  // Refuses cache tensors that cannot be kept: quantised ones.
  static Result<void> check(const ggml_tensor& tensor);
  CacheTensor::Layout layout(const ggml_tensor& tensor) const;
  std::size_t bytes(const ggml_tensor& tensor) const { return layout(tensor).bytes(tensor.ne[1] * tensor.ne[2]); }
  std::int64_t slots(const ggml_tensor& tensor) const { return protected_slots(profile_, tensor.ne[1] * tensor.ne[2], tensor.ne[2]); }
  int sinks() const { return profile_.sinks; }

  // A weight on its way to memory elsewhere: from their names follows how many layers there are.
  void offered(const ggml_tensor& weight);

 private:
  std::size_t row_bytes(std::int64_t width, int bits) const;

  Profile profile_;
  int head_size_;
  std::uint64_t seed_;
  bool fixed_;
  std::atomic<int> layers_, last_{0};
};

}  // namespace hearth::turboquant
