#include "worker/low_rank/joint_query_key.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/low_rank/joint_moments.h"
#include "worker/low_rank/tucker_loss.h"
#include "worker/low_rank/tucker_mode.h"

namespace latentforge::low_rank {
namespace {

absl::Status CheckProblem(const QueryKeyProblem& p, bool centred) {
  LF_RETURN_IF_ERROR(CheckHeads(p.heads, p.kv_heads, p.head_dim));
  if (p.rope && p.rope->head_dim() != p.head_dim) {
    return absl::InvalidArgumentError(absl::StrCat("RoPE is for heads of ", p.rope->head_dim(),
                                                   " channels, expected ", p.head_dim));
  }
  const int64_t in = Columns(p.query.weight);
  LF_RETURN_IF_ERROR(CheckLinear(p.query, p.heads * p.head_dim, in, "query"));
  LF_RETURN_IF_ERROR(CheckLinear(p.key, p.kv_heads * p.head_dim, in, "key"));
  LF_RETURN_IF_ERROR(CheckMoments(p.input, in, centred));
  if (!centred && (p.query.bias.defined() || p.key.bias.defined())) {
    return absl::InvalidArgumentError(
        "query or key has a bias, expected none when not centred: with one, centring is free");
  }
  return p.norm ? CheckQueryKeyNorm(*p.norm, p.heads, p.kv_heads, p.head_dim) : absl::OkStatus();
}

absl::Status CheckStandInFor(const Linear& original, const LowRank& stand_in, bool centred,
                             absl::string_view name) {
  if (!centred && stand_in.bias.defined()) {
    return absl::InvalidArgumentError(
        absl::StrCat("stand-in of the ", name, " has a bias, expected none when not centred"));
  }
  return CheckStandIn(stand_in, original.weight.size(0), original.weight.size(1), name);
}

// [W, b].
at::Tensor WithBias(const at::Tensor& weight, const at::Tensor& bias) {
  const at::Tensor column = bias.defined() ? bias : at::zeros({weight.size(0)}, weight.options());
  return at::cat({weight, column.unsqueeze(1)}, 1);
}

// The moments of [x; 1], which weigh a bias as a map of the constant.
at::Tensor WithConstant(const InputMoments& input) {
  const at::Tensor mean = input.mean.unsqueeze(1);
  const at::Tensor one = at::ones({1, 1}, mean.options());
  return at::cat({at::cat({input.covariance, mean}, 1), at::cat({mean.t(), one}, 1)}, 0);
}

// `constant`: means and biases count.
TuckerSide SideOf(const Linear& original, const LowRank& stand_in, const InputMoments& input,
                  bool constant, bool centred) {
  const at::Tensor product = at::matmul(stand_in.up, stand_in.down);
  if (!constant) return {original.weight, product, DampedCovariance(input, centred, 0)};
  return {WithBias(original.weight, original.bias), WithBias(product, stand_in.bias),
          WithConstant(input)};
}

// sum_j tr(S_j E[e_j e_j^T]) of a side's errors e.
double WeightedError(const TuckerSide& side, const at::Tensor& metrics) {
  const at::Tensor error = side.weight - side.stand_in;
  const at::Tensor blocks = error.reshape({metrics.size(0), metrics.size(1), -1});
  const at::Tensor weighted = at::bmm(metrics, blocks).reshape_as(error);
  return (at::matmul(error, side.moments) * weighted).sum().item<double>();
}

// QueryKeyLoss of checked arguments. Softmax takes away what a constant key adds to all scores of a
// row, unless RoPE makes it differ from key to key.
double CheckedLoss(const QueryKeyProblem& p, bool centred, const LowRank& query,
                   const LowRank& key) {
  const bool key_constant = centred && (p.rope || p.norm);
  const TuckerSide left = SideOf(p.query, query, p.input, centred, centred);
  const TuckerSide right = SideOf(p.key, key, p.input, key_constant, centred);
  if (!p.norm) return TuckerLoss(left, right, p.head_dim, p.rope);
  return WeightedError(left, NormedQueryMetrics(*p.norm, p.rope)) +
         WeightedError(right, NormedKeyMetrics(*p.norm, p.rope));
}

// Both modes and how they meet.
struct Posed {
  TuckerMode query;
  TuckerMode key;
  TuckerCoupling coupling;
};

absl::StatusOr<Posed> Pose(const QueryKeyProblem& p, const QueryKeyOptions& options) {
  LF_RETURN_IF_ERROR(CheckProblem(p, options.centred));
  LF_RETURN_IF_ERROR(CheckDamping(options.damping));
  LF_RETURN_IF_ERROR(CheckOptions(options.solver));
  const at::Tensor covariance = DampedCovariance(p.input, options.centred, options.damping);
  LF_ASSIGN_OR_RETURN(TuckerMode query, TuckerMode::Create(p.query.weight, covariance, p.head_dim));
  LF_ASSIGN_OR_RETURN(TuckerMode key, TuckerMode::Create(p.key.weight, covariance, p.head_dim));
  Posed posed{
      std::move(query), std::move(key), {.left_mean = {}, .right_mean = {}, .rope = p.rope}};
  if (options.centred) {
    posed.coupling.left_mean = MeanOutput(p.query, p.input.mean).reshape({p.heads, p.head_dim});
    if (p.rope) {
      posed.coupling.right_mean = MeanOutput(p.key, p.input.mean).reshape({p.kv_heads, p.head_dim});
    }
  }
  return posed;
}

LowRank StandIn(const TuckerMode& mode, const ModeBasis& basis, int64_t rank,
                const Linear& original, const InputMoments& input, bool centred) {
  LowRank stand_in = mode.Factors(basis, rank);
  if (centred) stand_in.bias = MeanKeepingBias(original, stand_in, input.mean);
  return stand_in;
}

LowRank Nothing(const Linear& original, const InputMoments& input, bool centred) {
  const auto options = original.weight.options();
  LowRank nothing{.down = at::zeros({0, original.weight.size(1)}, options),
                  .up = at::zeros({original.weight.size(0), 0}, options),
                  .bias = {}};
  if (centred) nothing.bias = MeanOutput(original, input.mean);
  return nothing;
}

// With a norm: each side by its own metrics, once, beside its best without them.
absl::StatusOr<TuckerSolution> SolveNormed(const QueryKeyProblem& p, const Posed& posed,
                                           const TuckerRanks& ranks) {
  const at::Tensor query_metrics = NormedQueryMetrics(*p.norm, p.rope);
  const at::Tensor key_metrics = NormedKeyMetrics(*p.norm, p.rope);
  TuckerSolution solution;
  LF_ASSIGN_OR_RETURN(solution.pair.left, posed.query.Solve(query_metrics, ranks.left));
  LF_ASSIGN_OR_RETURN(solution.pair.right, posed.key.Solve(key_metrics, ranks.right));
  const at::Tensor lost_queries = posed.query.energy() - solution.pair.left.energy;
  const at::Tensor lost_keys = posed.key.energy() - solution.pair.right.energy;
  const at::Tensor loss = (query_metrics * lost_queries).sum() + (key_metrics * lost_keys).sum();
  solution.losses = {std::max(0.0, loss.item<double>())};
  LF_ASSIGN_OR_RETURN(solution.local, LocalPair(posed.query, posed.key, ranks));
  return solution;
}

}  // namespace

absl::StatusOr<JointQueryKey> CompressQueryKey(const QueryKeyProblem& problem,
                                               const TuckerRanks& ranks,
                                               const QueryKeyOptions& options) {
  LF_ASSIGN_OR_RETURN(const Posed posed, Pose(problem, options));
  LF_RETURN_IF_ERROR(CheckRanks(posed.query, posed.key, ranks, "query", "key"));
  LF_ASSIGN_OR_RETURN(
      TuckerSolution solution,
      problem.norm ? SolveNormed(problem, posed, ranks)
                   : SolveTucker(posed.query, posed.key, posed.coupling, ranks, options.solver));
  const auto query_of = [&](const ModeBasis& basis) {
    return StandIn(posed.query, basis, ranks.left, problem.query, problem.input, options.centred);
  };
  const auto key_of = [&](const ModeBasis& basis) {
    return StandIn(posed.key, basis, ranks.right, problem.key, problem.input, options.centred);
  };
  const auto loss_of = [&](const LowRank& query, const LowRank& key) {
    return CheckedLoss(problem, options.centred, query, key);
  };
  JointQueryKey result;
  result.query = query_of(solution.pair.left);
  result.key = key_of(solution.pair.right);
  result.losses = std::move(solution.losses);
  result.loss = loss_of(result.query, result.key);
  if (solution.local) {
    result.local_loss = loss_of(query_of(solution.local->left), key_of(solution.local->right));
  }
  result.loss_of_nothing = loss_of(Nothing(problem.query, problem.input, options.centred),
                                   Nothing(problem.key, problem.input, options.centred));
  LF_RETURN_IF_ERROR(CheckFinite(result.query, "query"));
  LF_RETURN_IF_ERROR(CheckFinite(result.key, "key"));
  return result;
}

absl::StatusOr<double> QueryKeyLoss(const QueryKeyProblem& problem, bool centred,
                                    const LowRank& query, const LowRank& key) {
  LF_RETURN_IF_ERROR(CheckProblem(problem, centred));
  LF_RETURN_IF_ERROR(CheckStandInFor(problem.query, query, centred, "query"));
  LF_RETURN_IF_ERROR(CheckStandInFor(problem.key, key, centred, "key"));
  const double loss = CheckedLoss(problem, centred, query, key);
  if (!std::isfinite(loss)) return absl::InternalError("numerical failure: loss is not finite");
  return loss;
}

absl::StatusOr<TuckerSpectra> QueryKeySpectra(const QueryKeyProblem& problem,
                                              const QueryKeyOptions& options) {
  LF_ASSIGN_OR_RETURN(const Posed posed, Pose(problem, options));
  if (!problem.norm) return SpectraOf(posed.query, posed.key, posed.coupling);
  TuckerSpectra spectra;
  LF_ASSIGN_OR_RETURN(spectra.left,
                      posed.query.Spectrum(NormedQueryMetrics(*problem.norm, problem.rope)));
  LF_ASSIGN_OR_RETURN(spectra.right,
                      posed.key.Spectrum(NormedKeyMetrics(*problem.norm, problem.rope)));
  return spectra;
}

}  // namespace latentforge::low_rank
