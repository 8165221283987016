// Attention over compressed keys and values: ggml's FLASH_ATTN_EXT, softmax(scale·q·Kᵀ + slope·mask)·V, without ever unpacking more than a tile of 64 tokens.
// The query is rotated instead of the keys, and the sum is rotated back instead of the values; a tile is unpacked once for all query heads that share
// its KV head. Long contexts are split between threads by ranges of tokens, whose partial results are merged at the end.
//
// A row's result depends on the query and on the tokens it sees (visible.h), in their order: to the last bit neither on where they lie, nor on what else is
// in memory or in the operation, nor on the number of threads.
//
// Threads are the caller's. For one operation: attention_begin() on one thread, then attention_compute() on every thread, then, when all have returned,
// attention_merge() on every thread. A thread that comes late or not at all does no harm: work is taken piece by piece.
#pragma once

#include <cstddef>
#include <cstdint>

#include "turboquant/codec.h"
#include "turboquant/kernels.h"
#include "turboquant/visible.h"

namespace hearth::turboquant {

// The keys or values of one operation: record of (token, head, stream) at data + token·token_stride + head·head_stride + stream·stream_stride, in bytes.
struct CompressedRows {
  const Codec* codec = nullptr;
  const std::uint8_t* data = nullptr;
  std::size_t token_stride = 0, head_stride = 0, stream_stride = 0;
  // Further records of protected tokens (below) at a higher width, same size and seed: of (slot, head) at protected_data + slot·protected_slot_stride +
  // head·protected_head_stride. nullptr: these rows have none.
  const Codec* protected_codec = nullptr;
  const std::uint8_t* protected_data = nullptr;
  std::size_t protected_slot_stride = 0, protected_head_stride = 0;
};

struct Attention {
  int heads = 0, kv_heads = 0;  // heads a multiple of kv_heads; head h reads KV head h·kv_heads/heads
  int queries = 0;              // query rows of each head
  int tokens = 0;               // keys
  int streams = 1;              // independent sequences, each with its own queries, keys and values

  // f32, q[i] of (query, head, stream) at q + query·q_query_stride + …, in bytes; key size numbers next to each other.
  const void* q = nullptr;
  std::size_t q_query_stride = 0, q_head_stride = 0, q_stream_stride = 0;
  CompressedRows k, v;
  // IEEE half [tokens] for (query, head % mask_heads, stream % mask_streams), strides in bytes; nullptr: none.
  const void* mask = nullptr;
  std::size_t mask_query_stride = 0, mask_head_stride = 0, mask_stream_stride = 0;
  int mask_heads = 1, mask_streams = 1;
  // By token of a stream: smaller was written earlier; equal ones go by token. nullptr: all go by token. The stride in numbers.
  const std::uint64_t* order = nullptr;
  std::size_t order_stream_stride = 0;
  // Attention sinks: of the first `protected_tokens` a row sees, those that have a slot are read there. By token of a stream, −1: none; the stride in numbers.
  int protected_tokens = 0;
  const std::int32_t* protected_slots = nullptr;
  std::size_t protected_stream_stride = 0;
  const VisibleTokens* visible = nullptr;  // built from this operation, or from one with the same shape, mask and order
  const float* sinks = nullptr;            // [heads] a logit without a value; nullptr: none
  float scale = 1;
  float max_bias = 0;  // ALiBi; 0: every slope is 1
  float softcap = 0;   // 0: none

  // f32 [streams][queries][heads][out_dim], as ggml lays it out. A query with nothing to see gets zeros. out_dim 0 means all of the value, less its first
  // coordinates (a value that is a part of the key, as in latent attention).
  float* out = nullptr;
  int out_dim = 0;

  const Kernels* kernels = nullptr;  // nullptr: the best
};

// The mask of a row; nullptr: none.
inline const std::uint16_t* mask_row(const Attention& a, int stream, int head, int query) {
  if (a.mask == nullptr) return nullptr;
  return reinterpret_cast<const std::uint16_t*>(static_cast<const std::uint8_t*>(a.mask) +
                                                static_cast<std::size_t>(query) * a.mask_query_stride +
                                                static_cast<std::size_t>(head % a.mask_heads) * a.mask_head_stride +
                                                static_cast<std::size_t>(stream % a.mask_streams) * a.mask_stream_stride);
}

// Bytes of scratch memory for `threads` threads, whatever is visible; at a multiple of 64.
std::size_t attention_scratch(const Attention& attention, int threads);
void attention_begin(const Attention& attention, int threads, void* scratch);
void attention_compute(const Attention& attention, int thread, int threads, void* scratch);
void attention_merge(const Attention& attention, int thread, int threads, void* scratch);

}  // namespace hearth::turboquant
