#include "turboquant/backend_state.h"

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

namespace hearth::turboquant {
namespace {

thread_local StateTransfer* current = nullptr;

struct Active {
  explicit Active(StateTransfer* transfer) { current = transfer; }
  ~Active() { current = nullptr; }
  Active(const Active&) = delete;
  Active& operator=(const Active&) = delete;
};

// Starts a saved state; then the holes, the bytes between them, the rows.
struct Head {
  std::uint64_t format, size, holes, rows;
};

}  // namespace

// Addresses that take memory only where something is written.
class StateTransfer::Room {
 public:
  explicit Room(std::size_t size)
      : size_(size), start_(mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)) {}
  ~Room() {
    if (*this) munmap(start_, size_);
  }
  Room(const Room&) = delete;
  Room& operator=(const Room&) = delete;
  explicit operator bool() const { return start_ != MAP_FAILED; }
  std::uint8_t* data() const { return static_cast<std::uint8_t*>(start_); }
  std::size_t size() const { return size_; }

 private:
  std::size_t size_;
  void* start_;
};

StateTransfer* StateTransfer::active() { return current; }

Result<std::vector<std::uint8_t>> StateTransfer::save(std::size_t size, std::uint64_t format,
                                                      const std::function<std::size_t(std::uint8_t*, std::size_t)>& write) {
  Room room(std::max<std::size_t>(size, 1));
  if (!room) return Error{ErrorCode::io, std::string("no room to save a state: ") + std::strerror(errno)};
  StateTransfer transfer(room);
  {
    const Active active(&transfer);
    if (write(room.data(), size) != size) return internal_error("llama.cpp saved less of a state than it said");
  }
  const Head head{format, size, transfer.holes_.size(), transfer.rows_.size()};
  std::size_t between = size;
  for (const Hole& hole : transfer.holes_) between -= hole.size;
  std::vector<std::uint8_t> out;
  out.reserve(sizeof head + transfer.holes_.size() * sizeof(Hole) + between + transfer.rows_.size());
  const auto append = [&](const void* data, std::size_t count) {
    const auto* bytes = static_cast<const std::uint8_t*>(data);
    out.insert(out.end(), bytes, bytes + count);
  };
  append(&head, sizeof head);
  if (!transfer.holes_.empty()) append(transfer.holes_.data(), transfer.holes_.size() * sizeof(Hole));
  std::size_t at = 0;
  for (const Hole& hole : transfer.holes_) {
    append(room.data() + at, hole.offset - at);
    at = hole.offset + hole.size;
  }
  append(room.data() + at, size - at);
  if (!transfer.rows_.empty()) append(transfer.rows_.data(), transfer.rows_.size());
  return out;
}

Result<std::size_t> StateTransfer::restore(std::span<const std::uint8_t> saved, std::uint64_t format,
                                           const std::function<std::size_t(const std::uint8_t*, std::size_t)>& read) {
  const Error damaged{ErrorCode::config_invalid, "the saved state is damaged"};
  Head head{};
  if (saved.size() < sizeof head) return damaged;
  std::memcpy(&head, saved.data(), sizeof head);
  if (head.format != format) return Error{ErrorCode::config_invalid, "the saved state belongs to another TurboQuant profile"};
  saved = saved.subspan(sizeof head);
  if (head.holes > saved.size() / sizeof(Hole) || head.rows > saved.size() - head.holes * sizeof(Hole)) return damaged;
  Room room(std::max<std::size_t>(head.size, 1));
  if (!room) return Error{ErrorCode::io, std::string("no room to restore a state: ") + std::strerror(errno)};
  StateTransfer transfer(room);
  transfer.holes_.resize(head.holes);
  if (head.holes > 0) std::memcpy(transfer.holes_.data(), saved.data(), head.holes * sizeof(Hole));
  transfer.saved_ = saved.last(head.rows);
  auto between = saved.subspan(head.holes * sizeof(Hole), saved.size() - head.holes * sizeof(Hole) - head.rows);
  std::size_t at = 0;
  const auto fill = [&](std::uint64_t end) {
    if (end < at || end > head.size || end - at > between.size()) return false;
    if (end > at) std::memcpy(room.data() + at, between.data(), end - at);
    between = between.subspan(end - at);
    return true;
  };
  for (const Hole& hole : transfer.holes_) {
    if (!fill(hole.offset) || hole.size > head.size - hole.offset || hole.rows > head.rows) return damaged;
    at = hole.offset + hole.size;
  }
  if (!fill(head.size) || !between.empty()) return damaged;
  const Active active(&transfer);
  return read(room.data(), head.size);
}

bool StateTransfer::put(const std::byte* place, std::size_t count, std::size_t nominal, const std::function<std::size_t(std::size_t)>& size,
                        const std::function<void(std::size_t, std::uint8_t*)>& save) {
  const auto* at = reinterpret_cast<const std::uint8_t*>(place);
  if (at < room_.data() || at >= room_.data() + room_.size()) return false;
  auto offset = static_cast<std::uint64_t>(at - room_.data());
  for (std::size_t i = 0; i < count; ++i, offset += nominal) {
    const std::size_t bytes = size(i);
    // Ranges of one tensor follow each other; what is between two tensors keeps them apart.
    if (!holes_.empty() && holes_.back().row_bytes == bytes && holes_.back().offset + holes_.back().size == offset) {
      holes_.back().size += nominal;
    } else {
      holes_.push_back({.offset = offset, .size = nominal, .rows = rows_.size(), .row_bytes = bytes});
    }
    rows_.resize(rows_.size() + bytes);
    save(i, rows_.data() + rows_.size() - bytes);
  }
  return true;
}

bool StateTransfer::take(const std::byte* place, std::size_t count, std::size_t nominal,
                         const std::function<void(std::size_t, std::span<const std::uint8_t>)>& load) {
  const auto* at = reinterpret_cast<const std::uint8_t*>(place);
  if (at < room_.data() || at >= room_.data() + room_.size()) return false;
  const auto offset = static_cast<std::uint64_t>(at - room_.data());
  auto hole = std::upper_bound(holes_.begin(), holes_.end(), offset, [](std::uint64_t o, const Hole& h) { return o < h.offset; });
  if (hole == holes_.begin()) return false;
  --hole;
  // All of them are there before one is read.
  const auto each = [&](const auto& visit) {
    auto from = hole;
    for (std::size_t i = 0; i < count; ++i) {
      const std::uint64_t where = offset + i * nominal;
      if (where >= from->offset + from->size && ++from == holes_.end()) return false;
      if (where < from->offset || where + nominal > from->offset + from->size) return false;
      const std::uint64_t begin = from->rows + (where - from->offset) / nominal * from->row_bytes;
      if (begin > saved_.size() || from->row_bytes > saved_.size() - begin) return false;
      visit(i, saved_.subspan(begin, from->row_bytes));
    }
    return true;
  };
  if (!each([](std::size_t, std::span<const std::uint8_t>) {})) return false;
  return each(load);
}

}  // namespace hearth::turboquant
