// Saving and restoring without padding. llama.cpp lays out a state as if the cache were f16; written like that, every saved byte would travel with several
// zeros. While a transfer is active on a thread, the rows of compressed tensors take a way of their own and the places llama.cpp keeps for them are only
// addresses, without memory behind them. Private to the back end.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "base/result.h"

namespace hearth::turboquant {

class StateTransfer {
 public:
  // The one active on this thread; null mostly.
  static StateTransfer* active();

  // `write` fills `size` bytes as llama.cpp would and says how many it wrote; what comes out is the same without padding. `format` names what the rows mean.
  static Result<std::vector<std::uint8_t>> save(std::size_t size, std::uint64_t format,
                                                const std::function<std::size_t(std::uint8_t*, std::size_t)>& write);
  // The inverse: `read` is given what `write` filled. Gives what `read` gives; config_invalid for bytes of another format, nothing read.
  static Result<std::size_t> restore(std::span<const std::uint8_t> saved, std::uint64_t format,
                                     const std::function<std::size_t(const std::uint8_t*, std::size_t)>& read);

  // For CacheTensor: `count` rows belong at `place`, where they would be `nominal` bytes each. `size` says how many bytes one takes, `save` writes them,
  // `load` reads them. False: not a place of this transfer.
  bool put(const std::byte* place, std::size_t count, std::size_t nominal, const std::function<std::size_t(std::size_t)>& size,
           const std::function<void(std::size_t, std::uint8_t*)>& save);
  bool take(const std::byte* place, std::size_t count, std::size_t nominal,
            const std::function<void(std::size_t, std::span<const std::uint8_t>)>& load);

 private:
  // Rows of one size.
  struct Hole {
    std::uint64_t offset, size, rows, row_bytes;  // place and nominal size in the state; where its rows begin
  };
  class Room;
  explicit StateTransfer(Room& room) : room_(room) {}

  Room& room_;
  std::vector<Hole> holes_;
  std::vector<std::uint8_t> rows_;
  std::span<const std::uint8_t> saved_;
};

}  // namespace hearth::turboquant
