#include "worker/model/attention.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <tuple>
#include <vector>

#include "tests/worker/model/reference.h"

namespace latentforge::model {
namespace {

// fp32 takes our own blocks, fp64 LibTorch's attention, as a GPU does.
class AttentionTest : public testing::TestWithParam<std::tuple<AttentionShape, at::ScalarType>> {};

TEST_P(AttentionTest, MatchesReference) {
  const auto& [s, dtype] = GetParam();
  const auto to_tensor = [type = dtype](std::vector<double>& values,
                                        std::initializer_list<int64_t> shape) {
    return at::from_blob(values.data(), shape, at::kDouble).to(type);
  };
  auto q = RandomValues(static_cast<size_t>(s.length * s.heads * s.dim), 1, 2.0);
  auto k = RandomValues(static_cast<size_t>(s.length * s.kv_heads * s.dim), 2);
  auto v = RandomValues(static_cast<size_t>(s.length * s.kv_heads * s.dim), 3);
  auto expected = ReferenceAttention(q, k, v, s);
  // As in the decoder: Q, K and V are slices of one row.
  const at::Tensor rows = at::cat(
      {to_tensor(q, {s.length, s.heads * s.dim}), to_tensor(k, {s.length, s.kv_heads * s.dim}),
       to_tensor(v, {s.length, s.kv_heads * s.dim})},
      1);
  const auto heads = [&rows, dim = s.dim](int64_t begin, int64_t count) {
    return rows.narrow(1, begin * dim, count * dim).unflatten(1, {count, dim});
  };
  const at::Tensor out = at::empty({s.length, s.heads * s.dim}, dtype);
  CausalAttention(heads(0, s.heads), heads(s.heads, s.kv_heads),
                  heads(s.heads + s.kv_heads, s.kv_heads), s.window, out);
  // fp32: scores of size 5 with an error of 1e-6 each, then weighted means.
  const at::Tensor difference = (out - to_tensor(expected, {s.length, s.heads * s.dim})).abs();
  EXPECT_LT(difference.max().item<double>(), 1e-5)
      << "worst element " << difference.argmax().item<int64_t>();
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, AttentionTest,
    testing::Combine(
        testing::Values(AttentionShape{70, 4, 4, 16, std::nullopt},  // MHA
                        AttentionShape{70, 6, 2, 16, std::nullopt},  // GQA
                        AttentionShape{70, 4, 1, 16, std::nullopt},  // MQA
                        AttentionShape{1, 2, 1, 8, std::nullopt},
                        AttentionShape{70, 6, 2, 16, 1},  // sees itself only
                        AttentionShape{70, 6, 2, 16, 9},
                        AttentionShape{70, 6, 2, 16, 70},    // the window is the sequence
                        AttentionShape{1100, 2, 1, 8, 600},  // several blocks of queries
                        AttentionShape{1030, 2, 2, 8, 20}),
        testing::Values(at::kFloat, at::kDouble)));

}  // namespace
}  // namespace latentforge::model
