#include "worker/low_rank/mlp_fit.h"

#include <utility>

#include "base/status_macros.h"

namespace latentforge::low_rank {

absl::StatusOr<RankRegression> FitMap(const Linear& map, const RegressionMoments& moments,
                                      const MlpFitOptions& options, const at::Tensor& metric) {
  return RankRegression::Solve(moments, {.centred = map.bias.defined() || options.add_biases,
                                         .damping = options.damping,
                                         .prior = map.weight,
                                         .metric = metric});
}

absl::StatusOr<LowRank> FitInnerMap(const Linear& map, const StreamMoments& streams, int64_t rank,
                                    const MlpFitOptions& options, const at::Tensor& metric) {
  LF_ASSIGN_OR_RETURN(const RankRegression regression,
                      FitMap(map, MapMoments(map, streams, metric), options, metric));
  return regression.At(rank);
}

absl::StatusOr<Refit> RefitDown(const Mlp& original, LowRankMlp mlp, int64_t rank,
                                const MlpTokens& tokens, const MlpFitOptions& options) {
  LF_ASSIGN_OR_RETURN(const RegressionMoments moments, ActivationMoments(original, mlp, tokens));
  LF_ASSIGN_OR_RETURN(const RankRegression regression, FitMap(original.down, moments, options));
  Refit refit{.mlp = std::move(mlp),
              .error = {.loss = regression.Loss(rank), .power = moments.target_power}};
  LF_ASSIGN_OR_RETURN(refit.mlp.down, regression.At(rank));
  return refit;
}

}  // namespace latentforge::low_rank
