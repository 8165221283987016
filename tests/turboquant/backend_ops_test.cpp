// What the device says to ggml about single operations. What it cannot compute right it refuses by throwing: nobody else can read its memory.
#include <ggml-backend.h>
#include <ggml.h>
#include <gtest/gtest.h>

#include <memory>
#include <stdexcept>
#include <string>

#include "turboquant/backend.h"

namespace hearth::turboquant {
namespace {

class BackendOps : public ::testing::Test {
 protected:
  BackendOps() : context_(ggml_init({.mem_size = 1 << 20, .mem_buffer = nullptr, .no_alloc = true})) {
    auto made = Backend::create({.profile = "k8v4", .log = [](bool, std::string_view) {}});
    backend_ = std::move(*made);
    type_ = ggml_backend_dev_buffer_type(backend_->device());
    // As llama.cpp does when it only measures or asks: a buffer without memory.
    buffer_ = ggml_backend_buft_alloc_buffer(type_, 0);
  }
  ~BackendOps() override {
    ggml_backend_buffer_free(buffer_);
    ggml_free(context_);
  }

  ggml_tensor* tensor(ggml_type type, std::int64_t a, std::int64_t b, std::int64_t c = 1, std::int64_t d = 1) {
    return ggml_new_tensor_4d(context_, type, a, b, c, d);
  }
  // Of `heads` heads of `size` numbers and 256 cells.
  ggml_tensor* cache(const char* name, std::int64_t size, std::int64_t heads) {
    ggml_tensor* t = tensor(GGML_TYPE_F16, size * heads, 256);
    ggml_set_name(t, name);
    t->buffer = buffer_;
    return t;
  }
  ggml_tensor* heads_of(ggml_tensor* cache, std::int64_t size, std::int64_t heads) {
    ggml_tensor* view =
        ggml_view_4d(context_, cache, size, heads, 256, 1, static_cast<std::size_t>(size) * 2, cache->nb[1], cache->nb[2], 0);
    return ggml_permute(context_, view, 0, 2, 1, 3);
  }
  ggml_tensor* attention(ggml_tensor* k, ggml_tensor* v, std::int64_t heads) {
    return ggml_flash_attn_ext(context_, tensor(GGML_TYPE_F32, k->ne[0], 4, heads), k, v, nullptr, 1, 0, 0);
  }
  bool supports(const ggml_tensor* op) { return ggml_backend_dev_supports_op(backend_->device(), op); }
  std::string refusal(const ggml_tensor* op) {
    try {
      return supports(op) ? "supported" : "not supported";
    } catch (const std::runtime_error& e) { return e.what(); }
  }

  ggml_context* context_;
  std::unique_ptr<Backend> backend_;
  ggml_backend_buffer_type_t type_ = nullptr;
  ggml_backend_buffer_t buffer_ = nullptr;
};

TEST_F(BackendOps, WritesRowsAndAttends) {
  ggml_tensor *k = cache("cache_k_l0", 64, 2), *v = cache("cache_v_l0", 64, 2);
  EXPECT_TRUE(supports(ggml_set_rows(context_, k, tensor(GGML_TYPE_F32, 128, 3), tensor(GGML_TYPE_I64, 3, 1))));
  EXPECT_TRUE(supports(attention(heads_of(k, 64, 2), heads_of(v, 64, 2), 4)));
}

TEST_F(BackendOps, TakesFewerBytesForACacheAndAllForTheRest) {
  EXPECT_EQ(ggml_backend_buft_get_alloc_size(type_, cache("cache_k_l0", 64, 2)), 256U * 2 * 66);
  EXPECT_EQ(ggml_backend_buft_get_alloc_size(type_, cache("cache_v_l31", 64, 2)), 256U * 2 * 34);
  // Other caches: recurrent states, indexers, and names that only look alike.
  for (const char* name : {"cache_s_l0", "cache_r_l0", "cache_idx_k_l0", "cache_k_lx", "cache_k_l", "cache_k_l0x"}) {
    EXPECT_EQ(ggml_backend_buft_get_alloc_size(type_, cache(name, 64, 2)), 256U * 2 * 128) << name;
  }
}

TEST_F(BackendOps, LeavesWeightsToTheDeviceBehindIt) {
  ggml_tensor* weight = tensor(GGML_TYPE_Q4_0, 128, 64);
  ggml_set_name(weight, "blk.3.attn_q.weight");
  weight->buffer = buffer_;
  EXPECT_FALSE(supports(ggml_mul_mat(context_, weight, tensor(GGML_TYPE_F32, 128, 4))));
  weight->buffer = nullptr;
  EXPECT_TRUE(supports(ggml_mul_mat(context_, weight, tensor(GGML_TYPE_F32, 128, 4))));
}

TEST_F(BackendOps, RecurrentStatesAreOrdinaryMemory) {
  ggml_tensor* state = tensor(GGML_TYPE_F32, 128, 8);
  ggml_set_name(state, "cache_s_l0");
  state->buffer = buffer_;
  EXPECT_TRUE(supports(ggml_get_rows(context_, state, tensor(GGML_TYPE_I32, 2, 1))));
}

TEST_F(BackendOps, RefusesWhatWouldReadRowsAsNumbers) {
  ggml_tensor* k = cache("cache_k_l7", 64, 2);
  const std::string reason = refusal(ggml_mul_mat(context_, heads_of(k, 64, 2), tensor(GGML_TYPE_F32, 64, 4, 4)));
  EXPECT_NE(reason.find("MUL_MAT would read cache_k_l7 as numbers"), std::string::npos) << reason;
  for (ggml_tensor* op :
       {ggml_cpy(context_, k, tensor(GGML_TYPE_F16, 128, 256)), ggml_scale_inplace(context_, k, 2),
        ggml_get_rows(context_, k, tensor(GGML_TYPE_I32, 2, 1)), ggml_cpy(context_, tensor(GGML_TYPE_F16, 128, 256), k)}) {
    EXPECT_NE(refusal(op).find("cache_k_l7"), std::string::npos) << ggml_op_name(op->op);
  }
}

TEST_F(BackendOps, RefusesValuesThatArePartOfTheKeys) {
  ggml_tensor* k = cache("cache_k_l0", 576, 1);
  ggml_tensor* v = ggml_view_4d(context_, k, 512, 256, 1, 1, k->nb[1], k->nb[2], k->nb[3], 0);
  const std::string reason = refusal(attention(heads_of(k, 576, 1), v, 16));
  EXPECT_NE(reason.find("latent attention"), std::string::npos) << reason;
}

TEST_F(BackendOps, RefusesHeadsAndLayoutsItDoesNotKnow) {
  EXPECT_NE(
      refusal(attention(heads_of(cache("cache_k_l0", 80, 2), 80, 2), heads_of(cache("cache_v_l0", 80, 2), 80, 2), 4)).find("heads of 80"),
      std::string::npos);
  // Half of the heads.
  ggml_tensor *k = cache("cache_k_l0", 64, 4), *v = cache("cache_v_l0", 64, 4);
  EXPECT_NE(refusal(attention(heads_of(k, 64, 2), heads_of(v, 64, 2), 4)).find("not supported"), std::string::npos);
  // Rows that are not whole, as a transposed cache has them.
  ggml_tensor* column = ggml_reshape_2d(context_, v, 1, 256 * 256);
  EXPECT_NE(
      refusal(ggml_set_rows(context_, column, tensor(GGML_TYPE_F32, 1, 8), tensor(GGML_TYPE_I64, 8, 1))).find("flash attention is off"),
      std::string::npos);
}

TEST_F(BackendOps, RefusesDevicesWithoutKernels) {
  const auto other = Backend::create({}, backend_->device());  // calls itself a GPU
  ASSERT_FALSE(other);
  EXPECT_EQ(other.error().code, ErrorCode::unsupported);
}

TEST(BackendRegistry, OffersOneDevice) {
  auto backend = Backend::create({.profile = "k4v4"});
  ASSERT_TRUE(backend);
  ASSERT_EQ(ggml_backend_reg_dev_count((*backend)->registry()), 1U);
  EXPECT_EQ(ggml_backend_reg_dev_get((*backend)->registry(), 0), (*backend)->device());
  EXPECT_NE(std::string(ggml_backend_dev_description((*backend)->device())).find("k4v4"), std::string::npos);
}

}  // namespace
}  // namespace hearth::turboquant
