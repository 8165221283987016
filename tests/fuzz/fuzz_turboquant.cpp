// Records are read from buffers that anybody may have filled: whatever the bytes, no instruction set reads or writes outside what it was given, and all
// see the same numbers. Input: size, widths, heads, queries, tokens, flags; the rest repeats over keys, values and mask.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <vector>

#include "turboquant/attention.h"

using namespace hearth::turboquant;

namespace {

void check(bool holds) {
  if (!holds) __builtin_trap();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 8) return 0;
  const int dim = 8 * (1 + data[0] % 32), keys = 1 + data[1] % 8, values = 1 + data[2] % 8;
  const int kv_heads = 1 + data[3] % 2, group = 1 + data[3] / 2 % 5, queries = 1 + data[4] % 3, tokens = 1 + data[5] % 140,
            first = data[6] % 80;
  const bool masked = data[7] % 2 != 0, capped = data[7] / 2 % 2 != 0;
  data += 8;
  size -= 8;
  const auto fill = [&](std::vector<std::uint8_t>& bytes, std::size_t count) {
    bytes.resize(count);  // exactly: the sanitizer sees one byte too many
    for (std::size_t i = 0; i < count; ++i) bytes[i] = size == 0 ? 0 : static_cast<std::uint8_t>(data[i % size] + i / size);
  };
  const Codec k = Codec::create({dim, keys}).value(), v = Codec::create({dim, values}).value();
  const auto heads = static_cast<std::size_t>(kv_heads), rows = static_cast<std::size_t>(tokens) * heads;
  std::vector<std::uint8_t> k_rows, v_rows, k_first, v_first, mask;
  fill(k_rows, rows * k.format().bytes());
  fill(v_rows, rows * v.format().bytes());
  fill(k_first, static_cast<std::size_t>(first) * heads * k.format().bytes());
  fill(v_first, static_cast<std::size_t>(first) * heads * v.format().bytes());
  fill(mask, 2 * static_cast<std::size_t>(tokens * queries));

  Attention a;
  a.heads = kv_heads * group;
  a.kv_heads = kv_heads;
  a.queries = queries;
  a.tokens = tokens;
  std::vector<float> q(static_cast<std::size_t>(a.heads * queries * dim)), out(q.size());
  for (std::size_t i = 0; i < q.size(); ++i) q[i] = std::sin(static_cast<float>(i));
  a.q = q.data();
  a.q_head_stride = static_cast<std::size_t>(dim) * 4;
  a.q_query_stride = a.q_head_stride * static_cast<std::size_t>(a.heads);
  const auto rows_of = [&](const Codec& codec, const std::vector<std::uint8_t>& bytes, const std::vector<std::uint8_t>& first_bytes) {
    const std::size_t record = codec.format().bytes();
    return CompressedRows{.codec = &codec,
                          .data = bytes.data(),
                          .token_stride = record * heads,
                          .head_stride = record,
                          .protected_codec = &codec,
                          .protected_data = first_bytes.data(),
                          .protected_slot_stride = record * heads,
                          .protected_head_stride = record};
  };
  std::vector<std::int32_t> slots(static_cast<std::size_t>(tokens), -1);
  for (int t = 0; t < std::min(first, tokens); ++t) slots[static_cast<std::size_t>(t)] = first - 1 - t;
  a.protected_tokens = first;
  a.protected_slots = slots.data();
  a.k = rows_of(k, k_rows, k_first);
  a.v = rows_of(v, v_rows, v_first);
  std::vector<std::uint16_t> half_mask(static_cast<std::size_t>(tokens * queries));
  for (std::size_t i = 0; i < half_mask.size(); ++i) half_mask[i] = static_cast<std::uint16_t>(mask[2 * i] << 8 | mask[2 * i + 1]);
  if (masked) {
    a.mask = half_mask.data();
    a.mask_query_stride = static_cast<std::size_t>(tokens) * 2;
  }
  a.softcap = capped ? 30 : 0;
  a.scale = 1 / std::sqrt(static_cast<float>(dim));
  a.out = out.data();

  VisibleTokens visible;
  visible.build(a);
  a.visible = &visible;

  std::vector<float> decoded(static_cast<std::size_t>(dim)), expected(decoded.size());
  for (const Kernels* kernels : available_kernels()) {
    a.kernels = kernels;
    const std::size_t bytes = attention_scratch(a, 1);
    const std::unique_ptr<void, void (*)(void*)> scratch(std::aligned_alloc(64, (bytes + 63) / 64 * 64), std::free);
    attention_begin(a, 1, scratch.get());
    attention_compute(a, 0, 1, scratch.get());
    attention_merge(a, 0, 1, scratch.get());
    k.decode(k_rows.data() + k_rows.size() - k.format().bytes(), decoded.data(), *kernels);
    if (kernels == available_kernels()[0]) expected = decoded;
    for (std::size_t i = 0; i < decoded.size(); ++i)
      check(decoded[i] == expected[i] || (std::isnan(decoded[i]) && std::isnan(expected[i])));
  }
  return 0;
}
