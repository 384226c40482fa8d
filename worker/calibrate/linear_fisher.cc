#include "worker/calibrate/linear_fisher.h"

#include <ATen/ATen.h>

#include "base/status_macros.h"

namespace latentforge::calibrate {
namespace {

void AddSquares(const at::Tensor& rows, const at::Tensor& total) {
  total.add_(rows.to(at::kFloat).square_().sum(0, /*keepdim=*/false, at::kDouble));
}

}  // namespace

LinearFisherSum::LinearFisherSum(const checkpoint::ModelConfig& config, at::Device device) {
  const auto zeros = [&](int64_t width) {
    return at::zeros({width}, at::TensorOptions(at::kDouble).device(device));
  };
  q_ = zeros(config.q_width());
  k_ = zeros(config.kv_width());
  v_ = zeros(config.kv_width());
  o_ = zeros(config.hidden_size);
  down_ = zeros(config.hidden_size);
  gate_up_ = zeros(2 * config.intermediate_size);
}

void LinearFisherSum::Add(const model::LayerGraph::Gradients& gradients,
                          const at::Tensor& output_gradient) {
  AddSquares(gradients.query, q_);
  AddSquares(gradients.key, k_);
  AddSquares(gradients.value, v_);
  AddSquares(gradients.projected, o_);
  AddSquares(output_gradient, down_);
  tokens_ += output_gradient.size(0);
}

void LinearFisherSum::AddMlp(const at::Tensor& gradient) { AddSquares(gradient, gate_up_); }

absl::StatusOr<LinearFisher> LinearFisherSum::Finish() const {
  if (tokens_ == 0) return absl::FailedPreconditionError("no calibration tokens were seen");
  const auto mean = [&](const at::Tensor& sum) { return (sum / double(tokens_)).to(at::kCPU); };
  const auto gate_up = mean(gate_up_).chunk(2);
  LinearFisher fisher{.q = mean(q_),
                      .k = mean(k_),
                      .v = mean(v_),
                      .o = mean(o_),
                      .down = mean(down_),
                      .gate = gate_up[0],
                      .up = gate_up[1]};
  for (const at::Tensor* moment :
       {&fisher.q, &fisher.k, &fisher.v, &fisher.o, &fisher.down, &fisher.gate, &fisher.up}) {
    if (!at::isfinite(*moment).all().item<bool>()) {
      return absl::DataLossError("calibration statistics are not finite (NaN or infinity)");
    }
  }
  return fisher;
}

}  // namespace latentforge::calibrate
