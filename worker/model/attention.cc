#include "worker/model/attention.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "worker/model/attention_gradient.h"
#include "worker/model/tensor_rows.h"

namespace latentforge::model {
namespace {

// Queries that share one mask and one range of keys in a windowed layer.
constexpr int64_t kWindowBlock = 512;

at::Tensor Attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                  const std::optional<at::Tensor>& mask) {
  return at::scaled_dot_product_attention(q, k, v, mask, /*dropout_p=*/0.0,
                                          /*is_causal=*/!mask.has_value());
}

}  // namespace

at::Tensor ByGroup(const at::Tensor& x, int64_t kv_heads, int64_t group) {
  return x.view({x.size(0), kv_heads, x.size(1) / kv_heads, x.size(2)})
      .permute({1, 2, 0, 3})
      .expand({kv_heads, group, x.size(0), x.size(2)});
}

void CausalAttention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                     std::optional<int64_t> window, const at::Tensor& out) {
  const int64_t length = q.size(0);
  if (HasRowKernels(q)) {
    AttentionForward(q, k, v, window, out.view(q.sizes()));
    return;
  }
  const int64_t kv_heads = k.size(1);
  const int64_t group = q.size(1) / kv_heads;
  const at::Tensor queries = ByGroup(q, kv_heads, group);
  const at::Tensor keys = ByGroup(k, kv_heads, group);
  const at::Tensor values = ByGroup(v, kv_heads, group);
  const at::Tensor target = ByGroup(out.view({length, q.size(1), q.size(2)}), kv_heads, group);
  if (!window.has_value() || *window >= length) {
    target.copy_(Attend(queries, keys, values, std::nullopt));
    return;
  }
  const at::TensorOptions index(at::TensorOptions(at::kLong).device(q.device()));
  for (int64_t begin = 0; begin < length; begin += kWindowBlock) {
    const int64_t count = std::min(kWindowBlock, length - begin);
    const int64_t first = std::max<int64_t>(0, begin - *window + 1);
    const int64_t span = begin + count - first;
    const at::Tensor row = at::arange(begin, begin + count, index).unsqueeze(1);
    const at::Tensor column = at::arange(first, first + span, index).unsqueeze(0);
    const at::Tensor mask = column.le(row).logical_and(column.gt(row - *window));
    target.narrow(2, begin, count)
        .copy_(Attend(queries.narrow(2, begin, count), keys.narrow(2, first, span),
                      values.narrow(2, first, span), mask));
  }
}

}  // namespace latentforge::model
