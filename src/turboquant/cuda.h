// Compressed keys and values on an NVIDIA GPU: the records of format.h, encoded where they arise, and decode attention that never unpacks them into
// memory. A lookup of eight codes is a few byte permutations, the products run on the tensor cores, and what is read from memory is what is stored.
//
// Head size 128 and keys of 2, 3, 4 or 8 bits, values of 2, 3 or 4. Codes and scales of a record lie apart here, so that every read is aligned and whole
// cache lines are used: codes [head][token][code_bytes], scales [head][token]. Otherwise the bytes are those of format.h.
//
// Built with HEARTH_CUDA alone; nothing else in the tree needs it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "base/result.h"
#include "turboquant/codec.h"

namespace hearth::turboquant::cuda {

using Stream = void*;  // a cudaStream_t; null = the default one

// One layer's cache of one sequence. Belongs to the device that was current when it was made. Not thread-safe.
class KvCache {
 public:
  // unsupported for another size or width; io when the device has no room.
  static Result<std::unique_ptr<KvCache>> create(VectorFormat keys, VectorFormat values, int kv_heads, std::int64_t tokens);
  ~KvCache();

  // `rows` tokens: keys and values as IEEE half, [row][kv_heads][128] in device memory, into the cells `first` … `first + rows − 1`.
  Result<void> write(const void* keys, const void* values, std::int64_t first, int rows, Stream stream);

  struct Attention {
    const float* q = nullptr;      // device, [queries][heads][128]
    int heads = 0;                 // a multiple of kv_heads
    int queries = 1;               // queries · heads / kv_heads at most 16
    std::int64_t tokens = 0;       // of the cache, from the first
    const void* mask = nullptr;    // device, IEEE half [queries][mask_stride]; null: every token is seen
    std::int64_t mask_stride = 0;  //
    const float* sinks = nullptr;  // device, [heads]; null: none
    float scale = 1;               // of q·k
    float softcap = 0;             // 0: none
    float* out = nullptr;          // device, [queries][heads][128]
  };
  Result<void> attend(const Attention& attention, Stream stream);

  // Bytes that codes and scales take.
  std::size_t bytes() const;
  // One record in the layout of format.h, to host memory of format.bytes().
  Result<void> read(bool key, int head, std::int64_t token, std::uint8_t* record) const;

  class Impl;

 private:
  explicit KvCache(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace hearth::turboquant::cuda
