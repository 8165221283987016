// CUDA kernels on ordinary threads, as far as src/turboquant/cuda.cu uses CUDA: one block after the other, its threads as threads of the machine, warps in lockstep where
// they exchange something. Slow and exact; only for tests.
#pragma once

#include <algorithm>
#include <array>
#include <barrier>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "turboquant/half.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __shared__ static
#define __launch_bounds__(...)

struct dim3 {
  dim3(unsigned x_ = 1, unsigned y_ = 1) : x(x_), y(y_) {}
  unsigned x, y;
};
struct uint2 {
  std::uint32_t x, y;
};
struct alignas(16) uint4 {
  std::uint32_t x, y, z, w;
};
struct float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

// ---- half precision ----

struct __half {
  std::uint16_t bits;
};
struct __half2 {
  __half x, y;
};
inline __half __ushort_as_half(std::uint16_t bits) { return {bits}; }
inline std::uint16_t __half_as_ushort(__half h) { return h.bits; }
inline float __half2float(__half h) { return hearth::turboquant::half_to_float(h.bits); }
inline __half __float2half_rn(float x) { return {hearth::turboquant::float_to_half(x)}; }
inline float2 __half22float2(__half2 h) { return {__half2float(h.x), __half2float(h.y)}; }
inline __half2 __floats2half2_rn(float x, float y) { return {__float2half_rn(x), __float2half_rn(y)}; }
inline __half2 __half2half2(__half h) { return {h, h}; }
inline __half2 __hsub2(__half2 a, __half2 b) {
  return __floats2half2_rn(__half2float(a.x) - __half2float(b.x), __half2float(a.y) - __half2float(b.y));
}

// ---- threads ----

namespace hearth::turboquant::cuda::emulator {

struct Warp {
  std::barrier<> together{32};
  std::array<std::array<std::uint32_t, 8>, 32> words{};  // what each lane shows the others
};
struct Place {
  unsigned thread = 0, block_x = 0, block_y = 0;
  dim3 blocks;
  Warp* warp = nullptr;
  std::barrier<>* block = nullptr;
};
inline thread_local Place here;

// Each lane's words, seen by all of its warp. `read` runs while nobody changes them.
template <class Read>
void share_words(const std::array<std::uint32_t, 8>& mine, const Read& read) {
  here.warp->words[here.thread % 32] = mine;
  here.warp->together.arrive_and_wait();
  read(here.warp->words);
  here.warp->together.arrive_and_wait();
}

inline std::uint32_t permute(std::uint32_t a, std::uint32_t b, std::uint32_t selector) {
  const std::uint64_t both = static_cast<std::uint64_t>(b) << 32 | a;
  std::uint32_t out = 0;
  for (int i = 0; i < 4; ++i) out |= static_cast<std::uint32_t>(both >> (8 * (selector >> (4 * i) & 7U)) & 255U) << (8 * i);
  return out;
}

inline int signed_byte(std::uint32_t word, int i) { return static_cast<std::int8_t>(word >> (8 * i) & 255U); }
inline float half_of(std::uint32_t word, int i) { return half_to_float(static_cast<std::uint16_t>(word >> (16 * i))); }

// Row of A, column of B: fragments of `per` numbers a register, k spread over the four lanes of a row, then over two registers.
template <class Sum, class Number>
void multiply(Sum (&c)[4], const std::array<std::uint32_t, 8>& mine, int per, const Number& number) {
  share_words(mine, [&](const auto& lanes) {
    const unsigned lane = here.thread % 32, g = lane / 4, t = lane % 4;
    for (unsigned i = 0; i < 4; ++i) {
      const unsigned row = g + 8 * (i / 2), column = 2 * t + i % 2;
      for (unsigned upper = 0; upper < 2; ++upper) {
        for (unsigned k = 0; k < 4; ++k) {
          const std::uint32_t a = lanes[4 * (row % 8) + k][row / 8 + 2 * upper], b = lanes[4 * column + k][4 + upper];
          for (int p = 0; p < per; ++p) c[i] += static_cast<Sum>(number(a, p) * number(b, p));
        }
      }
    }
  });
}
inline void multiply(int (&c)[4], std::uint32_t a0, std::uint32_t a1, std::uint32_t a2, std::uint32_t a3, std::uint32_t b0,
                     std::uint32_t b1) {
  multiply(c, {a0, a1, a2, a3, b0, b1}, 4, signed_byte);
}
inline void multiply(float (&c)[4], std::uint32_t a0, std::uint32_t a1, std::uint32_t a2, std::uint32_t a3, std::uint32_t b0,
                     std::uint32_t b1) {
  multiply(c, {a0, a1, a2, a3, b0, b1}, 2, half_of);
}
inline std::uint32_t transpose(std::uint32_t row) {
  std::uint32_t out = 0;
  share_words({row}, [&](const auto& lanes) {
    const unsigned lane = here.thread % 32, g = lane / 4, t = lane % 4;
    for (unsigned i = 0; i < 2; ++i) out |= (lanes[4 * (2 * t + i) + g / 2][0] >> (16 * (g % 2)) & 0xffffU) << (16 * i);
  });
  return out;
}

}  // namespace hearth::turboquant::cuda::emulator

inline float __shfl_xor_sync(unsigned, float x, int other) {
  float out = 0;
  hearth::turboquant::cuda::emulator::share_words({std::bit_cast<std::uint32_t>(x)}, [&](const auto& lanes) {
    out = std::bit_cast<float>(lanes[(hearth::turboquant::cuda::emulator::here.thread % 32) ^ static_cast<unsigned>(other)][0]);
  });
  return out;
}
inline bool __any_sync(unsigned, bool yes) {
  bool out = false;
  hearth::turboquant::cuda::emulator::share_words({yes ? 1U : 0U}, [&](const auto& lanes) {
    for (const auto& lane : lanes) out = out || lane[0] != 0;
  });
  return out;
}
inline void __syncwarp() { hearth::turboquant::cuda::emulator::here.warp->together.arrive_and_wait(); }
inline void __syncthreads() { hearth::turboquant::cuda::emulator::here.block->arrive_and_wait(); }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __log2f(float x) { return std::log2(x); }
inline int __float2int_rn(float x) { return static_cast<int>(std::lrint(x)); }

#define threadIdx (hearth::turboquant::cuda::emulator::Index{hearth::turboquant::cuda::emulator::here.thread, 0})
#define blockIdx                                                                               \
  (hearth::turboquant::cuda::emulator::Index{hearth::turboquant::cuda::emulator::here.block_x, \
                                             hearth::turboquant::cuda::emulator::here.block_y})
#define gridDim (hearth::turboquant::cuda::emulator::here.blocks)
namespace hearth::turboquant::cuda::emulator {
struct Index {
  unsigned x, y;
};
}  // namespace hearth::turboquant::cuda::emulator

// ---- the host's side ----

using cudaStream_t = void*;
enum cudaError_t { cudaSuccess, cudaErrorMemoryAllocation };
enum cudaMemcpyKind { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost };
enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount };
inline const char* cudaGetErrorString(cudaError_t) { return "out of memory"; }
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
  return *value = 2, cudaSuccess;
}  // few: several splits, but not many
inline cudaError_t cudaMalloc(void** out, std::size_t bytes) {
  *out = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  return *out != nullptr ? cudaSuccess : cudaErrorMemoryAllocation;
}
inline cudaError_t cudaFree(void* memory) { return std::free(memory), cudaSuccess; }
inline cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind) {
  return std::memcpy(to, from, bytes), cudaSuccess;
}
inline cudaError_t cudaMemset(void* to, int value, std::size_t bytes) { return std::memset(to, value, bytes), cudaSuccess; }
inline cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t) { return cudaMemset(to, value, bytes); }

namespace hearth::turboquant::cuda {

using emulator::multiply;
using emulator::permute;
using emulator::transpose;
using std::max;
using std::min;

template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), dim3 blocks, unsigned threads, cudaStream_t, const Arguments&... arguments) {
  for (unsigned y = 0; y < blocks.y; ++y) {
    for (unsigned x = 0; x < blocks.x; ++x) {
      std::vector<std::unique_ptr<emulator::Warp>> of_block;
      for (unsigned i = 0; i < threads / 32; ++i) of_block.push_back(std::make_unique<emulator::Warp>());
      std::barrier<> together(threads);
      std::vector<std::jthread> running;
      for (unsigned i = 0; i < threads; ++i) {
        running.emplace_back([&, i] {
          emulator::here = {i, x, y, blocks, of_block[i / 32].get(), &together};
          kernel(arguments...);
          // Threads that leave early are no longer waited for.
          emulator::here.warp->together.arrive_and_drop();
          together.arrive_and_drop();
        });
      }
    }
  }
}

}  // namespace hearth::turboquant::cuda
