#include "worker/low_rank/mlp_moments.h"

#include <ATen/ATen.h>

#include <utility>

#include "base/status_macros.h"

namespace latentforge::low_rank {

RegressionSums::RegressionSums(int64_t out, int64_t in, const at::Tensor& like)
    : input_(at::zeros({in}, like.options())),
      covariance_(at::zeros({in, in}, like.options())),
      target_(at::zeros({out}, like.options())),
      cross_(at::zeros({out, in}, like.options())) {}

void RegressionSums::Add(const at::Tensor& x, const at::Tensor& t) {
  tokens_ += x.size(0);
  input_.add_(x.sum(0));
  covariance_.addmm_(x.t(), x);
  target_.add_(t.sum(0));
  cross_.addmm_(t.t(), x);
  power_ += t.square().sum().item<double>();
}

RegressionMoments RegressionSums::TakeMoments() && {
  const double n = double(tokens_);
  return {.tokens = tokens_,
          .input_mean = input_.div_(n),
          .input_covariance = covariance_.div_(n),
          .target_mean = target_.div_(n),
          .cross = cross_.div_(n),
          .target_power = power_ / n};
}

absl::StatusOr<StreamMoments> StreamMomentsOf(const Mlp& mlp, const MlpTokens& tokens) {
  const int64_t d = mlp.width();
  // x on z gives all but the covariance of x itself.
  RegressionSums sums(d, d, mlp.down.weight);
  at::Tensor original = at::zeros({d, d}, mlp.down.weight.options());
  LF_RETURN_IF_ERROR(VisitChunks(tokens, d, [&](int64_t, const MlpRows& rows) {
    sums.Add(rows.compressed, rows.original);
    original.addmm_(rows.original.t(), rows.original);
    return absl::OkStatus();
  }));
  const RegressionMoments moments = std::move(sums).TakeMoments();
  return StreamMoments{.tokens = moments.tokens,
                       .original_mean = moments.target_mean,
                       .original_covariance = original.div_(double(moments.tokens)),
                       .compressed_mean = moments.input_mean,
                       .compressed_covariance = moments.input_covariance,
                       .cross = moments.cross};
}

RegressionMoments MapMoments(const Linear& map, const StreamMoments& streams,
                             const at::Tensor& metric) {
  const at::Tensor& w = map.weight;
  RegressionMoments moments{.tokens = streams.tokens,
                            .input_mean = streams.compressed_mean,
                            .input_covariance = streams.compressed_covariance,
                            .target_mean = at::matmul(w, streams.original_mean),
                            .cross = at::matmul(w, streams.cross)};
  // tr(G E[t t^T]) with E[t t^T] = W E[x x^T] W^T + m b^T + b m^T + b b^T, m = W E x.
  at::Tensor power = (InMetric(metric, w) * at::matmul(w, streams.original_covariance)).sum();
  if (map.bias.defined()) {
    const at::Tensor b = map.bias.unsqueeze(1);
    const at::Tensor m = moments.target_mean.unsqueeze(1);
    power = power + (InMetric(metric, b) * (2 * m + b)).sum();
    moments.target_mean = moments.target_mean + map.bias;
    moments.cross.addr_(map.bias, streams.compressed_mean);
  }
  moments.target_power = power.item<double>();
  return moments;
}

absl::StatusOr<RegressionMoments> ActivationMoments(const Mlp& original, const LowRankMlp& mlp,
                                                    const MlpTokens& tokens) {
  RegressionSums sums(original.width(), original.inner_width(), original.down.weight);
  LF_RETURN_IF_ERROR(VisitChunks(tokens, original.width(), [&](int64_t, const MlpRows& rows) {
    const at::Tensor h = Activate(mlp.activation, InnerRowsOf(mlp, rows.compressed));
    sums.Add(h, OutputRowsOf(original, rows.original));
    return absl::OkStatus();
  }));
  return std::move(sums).TakeMoments();
}

}  // namespace latentforge::low_rank
