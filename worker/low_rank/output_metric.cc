#include "worker/low_rank/output_metric.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

#include "base/status_macros.h"

namespace latentforge::low_rank {
namespace {

// Rows of W_d^T W_d at a time.
constexpr int64_t kBlock = 1024;

// dh / dvalue [n, f] of a map's values.
at::Tensor Slopes(Activation activation, InnerMap map, const InnerRows& inner) {
  if (activation == Activation::kRelu) return (inner.up > 0).to(inner.up.scalar_type());
  return map == InnerMap::kUp ? at::silu(inner.gate) : inner.up * SiluSlope(inner.gate);
}

absl::StatusOr<LowRank> FitForOutputs(const Mlp& original, InnerMap map, int64_t rank,
                                      const StreamMoments& streams, const MlpTokens& tokens,
                                      const MlpFitOptions& options) {
  LF_ASSIGN_OR_RETURN(const at::Tensor metric, OutputMetric(original, map, tokens));
  return FitInnerMap(map == InnerMap::kUp ? original.up : original.gate, streams, rank, options,
                     metric);
}

}  // namespace

absl::StatusOr<at::Tensor> OutputMetric(const Mlp& original, InnerMap map,
                                        const MlpTokens& tokens) {
  LF_RETURN_IF_ERROR(CheckMlp(original));
  if (map == InnerMap::kGate && original.activation == Activation::kRelu) {
    return absl::InvalidArgumentError("the output metric of a gate: an MLP of ReLU has none");
  }
  const int64_t f = original.inner_width();
  const at::Tensor& down = original.down.weight;
  at::Tensor metric = at::zeros({f, f}, down.options());
  int64_t count = 0;
  LF_RETURN_IF_ERROR(VisitChunks(tokens, original.width(), [&](int64_t, const MlpRows& rows) {
    const at::Tensor slopes =
        Slopes(original.activation, map, InnerRowsOf(original, rows.original));
    metric.addmm_(slopes.t(), slopes);
    count += slopes.size(0);
    return absl::OkStatus();
  }));
  metric.div_(double(count));
  for (int64_t start = 0; start < f; start += kBlock) {
    const int64_t size = std::min(kBlock, f - start);
    metric.narrow(0, start, size).mul_(at::matmul(down.narrow(1, start, size).t(), down));
  }
  return metric;
}

absl::StatusOr<MlpCompression> CompressMlpForOutputs(const Mlp& original, const MlpRanks& ranks,
                                                     const MlpTokens& tokens,
                                                     const MlpFitOptions& options) {
  LF_RETURN_IF_ERROR(CheckMlp(original));
  LF_RETURN_IF_ERROR(CheckRanks(original, ranks));
  LF_ASSIGN_OR_RETURN(const StreamMoments streams, StreamMomentsOf(original, tokens));
  LowRankMlp mlp{.activation = original.activation};
  LF_ASSIGN_OR_RETURN(mlp.up,
                      FitForOutputs(original, InnerMap::kUp, ranks.up, streams, tokens, options));
  if (original.activation == Activation::kSwiGlu) {
    LF_ASSIGN_OR_RETURN(
        mlp.gate, FitForOutputs(original, InnerMap::kGate, ranks.gate, streams, tokens, options));
  }
  LF_ASSIGN_OR_RETURN(Refit refit,
                      RefitDown(original, std::move(mlp), ranks.down, tokens, options));
  return MlpCompression{
      .mlp = std::move(refit.mlp), .error = refit.error, .losses = {refit.error.loss}};
}

}  // namespace latentforge::low_rank
