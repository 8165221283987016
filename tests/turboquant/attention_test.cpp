#include <gtest/gtest.h>

#include "turboquant/attention_problem.h"

namespace hearth::turboquant::test {
namespace {

TEST(Quick, Error) {
  for (const Kernels* kernels : available_kernels()) {
    for (int bits = 1; bits <= 8; ++bits) {
      for (const int threads : {1, 2}) {
      Problem problem({.bits_k = bits, .bits_v = bits, .heads = 8, .kv_heads = 2, .queries = 3, .tokens = 1500}, 1);
      std::printf("%s bits %d threads %d error %g\n", kernels->name, bits, threads, relative_error(problem.run(*kernels, threads), problem.reference()));
      }
    }
  }
}

}  // namespace
}  // namespace hearth::turboquant::test
