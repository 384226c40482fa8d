#include "worker/model/layer_ops.h"

#include <ATen/ATen.h>

#include <limits>

#include "worker/model/tensor_rows.h"

namespace latentforge::model {

void RmsNorm(const at::Tensor& x, const at::Tensor& weight, double epsilon, const at::Tensor& out) {
  if (HasRowKernels(x)) {
    WithElementType(x, [&]<typename T>(T) {
      RmsNormRows<T>(RowsOf<const T>(x), Elements<const T>(weight), static_cast<float>(epsilon),
                     RowsOf<T>(out));
    });
    return;
  }
  const at::Tensor wide = x.to(at::kFloat);
  const at::Tensor scale = wide.square().mean(-1, /*keepdim=*/true).add_(epsilon).rsqrt_();
  out.copy_((wide * scale).to(x.scalar_type()).mul_(weight));
}

void LayerNorm(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
               double epsilon, const at::Tensor& out) {
  out.copy_(at::layer_norm(x, weight.sizes(), weight, bias, epsilon));
}

void SiluMultiply(const at::Tensor& gate_up, const at::Tensor& out) {
  if (HasRowKernels(gate_up)) {
    WithElementType(gate_up, [&]<typename T>(T) {
      SiluMultiplyRows<T>(RowsOf<const T>(gate_up), RowsOf<T>(out));
    });
    return;
  }
  const int64_t width = out.size(-1);
  out.copy_(at::silu(gate_up.narrow(-1, 0, width)).mul_(gate_up.narrow(-1, width, width)));
}

at::Tensor LogSumExp(const at::Tensor& logits) {
  if (!HasRowKernels(logits)) return logits.to(at::kFloat).logsumexp(1).to(at::kDouble);
  const at::TensorOptions options = logits.options().dtype(at::kFloat);
  const at::Tensor maximum =
      at::full({logits.size(0)}, -std::numeric_limits<double>::infinity(), options);
  const at::Tensor sum = at::zeros({logits.size(0)}, options);
  WithElementType(logits, [&]<typename T>(T) {
    LogSumExpRows<T>(RowsOf<const T>(logits), Elements<float>(maximum), Elements<float>(sum));
  });
  return maximum.to(at::kDouble) + sum.to(at::kDouble).log_();
}

}  // namespace latentforge::model
