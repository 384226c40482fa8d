#include "worker/calibrate/linear_fisher.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <vector>

#include "base/status_macros.h"

namespace latentforge::calibrate {
namespace {

// Rows of one fp32 product; longer sums lose digits before they reach fp64.
constexpr int64_t kFisherRows = 1024;
// Of one sum of squares, which are as wide as the MLP.
constexpr int64_t kSquareRows = 128;

void AddProducts(const at::Tensor& rows, const at::Tensor& total) {
  for (int64_t begin = 0; begin < rows.size(0); begin += kFisherRows) {
    const at::Tensor block =
        rows.narrow(0, begin, std::min(kFisherRows, rows.size(0) - begin)).to(at::kFloat);
    total.add_(at::mm(block.t(), block));
  }
}

void AddSquares(const at::Tensor& rows, const at::Tensor& total) {
  for (int64_t begin = 0; begin < rows.size(0); begin += kSquareRows) {
    const int64_t count = std::min(kSquareRows, rows.size(0) - begin);
    total.add_(rows.narrow(0, begin, count).to(at::kFloat).square().sum(0));
  }
}

}  // namespace

LinearFisherSum::LinearFisherSum(const checkpoint::ModelConfig& config, at::Device device) {
  const auto totals = at::TensorOptions(at::kDouble).device(device);
  const auto square = [&](int64_t width) { return at::zeros({width, width}, totals); };
  q_ = square(config.q_width());
  k_ = square(config.kv_width());
  v_ = square(config.kv_width());
  o_ = square(config.hidden_size);
  down_ = square(config.hidden_size);
  gated_ = config.gated();
  gate_up_ = at::zeros({(gated_ ? 2 : 1) * config.intermediate_size}, totals);
}

void LinearFisherSum::Add(const model::LayerGraph::Gradients& gradients) {
  AddProducts(gradients.query, q_);
  AddProducts(gradients.key, k_);
  AddProducts(gradients.value, v_);
  AddProducts(gradients.projected, o_);
  AddProducts(gradients.mlp_output, down_);
  tokens_ += gradients.mlp_output.size(0);
}

void LinearFisherSum::AddMlp(const at::Tensor& gradient) { AddSquares(gradient, gate_up_); }

absl::StatusOr<LinearFisher> LinearFisherSum::Finish() const {
  if (tokens_ == 0) return absl::FailedPreconditionError("no calibration tokens were seen");
  const auto mean = [&](const at::Tensor& sum) { return (sum / double(tokens_)).to(at::kCPU); };
  const std::vector<at::Tensor> inner = mean(gate_up_).chunk(gated_ ? 2 : 1);
  LinearFisher fisher{.q = mean(q_),
                      .k = mean(k_),
                      .v = mean(v_),
                      .o = mean(o_),
                      .down = mean(down_),
                      .gate = gated_ ? inner.front() : at::Tensor(),
                      .up = inner.back()};
  for (const at::Tensor* moment :
       {&fisher.q, &fisher.k, &fisher.v, &fisher.o, &fisher.down, &fisher.gate, &fisher.up}) {
    if (moment->defined() && !at::isfinite(*moment).all().item<bool>()) {
      return absl::DataLossError("calibration statistics are not finite (NaN or infinity)");
    }
  }
  return fisher;
}

}  // namespace latentforge::calibrate
