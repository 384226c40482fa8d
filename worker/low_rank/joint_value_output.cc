#include "worker/low_rank/joint_value_output.h"

#include <ATen/ATen.h>

#include <cmath>
#include <utility>

#include "base/status_macros.h"
#include "worker/low_rank/joint_moments.h"
#include "worker/low_rank/tucker_loss.h"
#include "worker/low_rank/tucker_mode.h"

namespace latentforge::low_rank {
namespace {

absl::Status CheckValueOutput(const ValueOutputProblem& p, bool centred) {
  LF_RETURN_IF_ERROR(CheckHeads(p.heads, p.kv_heads, p.head_dim));
  const int64_t in = Columns(p.value.weight);
  LF_RETURN_IF_ERROR(CheckLinear(p.value, p.kv_heads * p.head_dim, in, "value"));
  LF_RETURN_IF_ERROR(CheckLinear(p.output, Rows(p.output.weight), p.heads * p.head_dim, "output"));
  return CheckMoments(p.input, in, centred);
}

// The output projection transposed, whose blocks of rows W_o,i^T play the queries, and values.
struct PosedValueOutput {
  TuckerMode output;
  TuckerMode value;
};

absl::StatusOr<PosedValueOutput> PoseValueOutput(const ValueOutputProblem& p,
                                                 const ValueOutputOptions& options) {
  LF_RETURN_IF_ERROR(CheckValueOutput(p, options.centred));
  LF_RETURN_IF_ERROR(CheckDamping(options.damping));
  LF_RETURN_IF_ERROR(CheckOptions(options.solver));
  const at::Tensor covariance = DampedCovariance(p.input, options.centred, options.damping);
  LF_ASSIGN_OR_RETURN(TuckerMode output, TuckerMode::Create(p.output.weight.t().contiguous(),
                                                            /*covariance=*/{}, p.head_dim));
  LF_ASSIGN_OR_RETURN(TuckerMode value, TuckerMode::Create(p.value.weight, covariance, p.head_dim));
  return PosedValueOutput{std::move(output), std::move(value)};
}

// W_o^T ~ (W_o^T B_o) B_o^T, turned back.
LowRank OutputFactors(const TuckerMode& mode, const ModeBasis& basis, int64_t rank) {
  const LowRank transposed = mode.Factors(basis, rank);
  return {
      .down = transposed.up.t().contiguous(), .up = transposed.down.t().contiguous(), .bias = {}};
}

double CheckedValueOutputLoss(const ValueOutputProblem& p, bool centred, const LowRank& value,
                              const std::optional<LowRank>& output) {
  const at::Tensor dense = p.output.weight.t();
  const TuckerSide left{.weight = dense,
                        .stand_in = output ? at::matmul(output->up, output->down).t() : dense,
                        .moments = {}};
  const TuckerSide right{.weight = p.value.weight,
                         .stand_in = at::matmul(value.up, value.down),
                         .moments = DampedCovariance(p.input, centred, 0)};
  return TuckerLoss(left, right, p.head_dim, /*rope=*/{});
}

// A constant value of each value head as every head that reads it has it, [heads * head_dim].
at::Tensor ToHeads(const ValueOutputProblem& p, const at::Tensor& constant) {
  return constant.reshape({p.kv_heads, p.head_dim})
      .repeat_interleave(p.heads / p.kv_heads, 0)
      .reshape({-1});
}

// b_o + W_o (W_v mu + b_v) less what the stand-ins themselves make of mu; without centring
// b_o + W_o b_v.
at::Tensor OutputBias(const ValueOutputProblem& p, bool centred, const LowRank& value,
                      const std::optional<LowRank>& output) {
  at::Tensor bias = p.output.bias;
  const auto add = [&](const at::Tensor& term) { bias = bias.defined() ? bias + term : term; };
  const at::Tensor constant = centred ? MeanOutput(p.value, p.input.mean) : p.value.bias;
  if (constant.defined()) add(at::mv(p.output.weight, ToHeads(p, constant)));
  if (!centred) return bias;
  const at::Tensor made = ToHeads(p, at::mv(value.up, at::mv(value.down, p.input.mean)));
  add(-(output ? at::mv(output->up, at::mv(output->down, made)) : at::mv(p.output.weight, made)));
  return bias;
}

}  // namespace

absl::StatusOr<JointValueOutput> CompressValueOutput(const ValueOutputProblem& problem,
                                                     const TuckerRanks& ranks,
                                                     const ValueOutputOptions& options) {
  LF_ASSIGN_OR_RETURN(const PosedValueOutput posed, PoseValueOutput(problem, options));
  LF_RETURN_IF_ERROR(CheckRanks(posed.output, posed.value, ranks, "output", "value"));
  LF_ASSIGN_OR_RETURN(TuckerSolution solution, SolveTucker(posed.output, posed.value,
                                                           /*coupling=*/{}, ranks, options.solver));
  const auto output_of = [&](const ModeBasis& basis) {
    return OutputFactors(posed.output, basis, ranks.left);
  };
  const auto loss_of = [&](const LowRank& value, const std::optional<LowRank>& output) {
    return CheckedValueOutputLoss(problem, options.centred, value, output);
  };
  JointValueOutput result;
  result.value = posed.value.Factors(solution.pair.right, ranks.right);
  const LowRank output = output_of(solution.pair.left);
  result.losses = std::move(solution.losses);
  result.loss = loss_of(result.value, output);
  if (solution.local) {
    result.local_loss = loss_of(posed.value.Factors(solution.local->right, ranks.right),
                                output_of(solution.local->left));
  }
  const LowRank nothing{
      .down = result.value.down.narrow(0, 0, 0), .up = result.value.up.narrow(1, 0, 0), .bias = {}};
  result.loss_of_nothing = loss_of(nothing, {});
  if (options.mode == ValueOutputMode::kBoth) result.output = output;
  result.output_bias = OutputBias(problem, options.centred, result.value, result.output);
  if (result.output) result.output->bias = result.output_bias;
  LF_RETURN_IF_ERROR(CheckFinite(result.value, "value"));
  LF_RETURN_IF_ERROR(CheckFinite(output, "output"));
  return result;
}

absl::StatusOr<double> ValueOutputLoss(const ValueOutputProblem& problem, bool centred,
                                       const LowRank& value, const std::optional<LowRank>& output) {
  LF_RETURN_IF_ERROR(CheckValueOutput(problem, centred));
  const auto check = [](const LowRank& factors, const Linear& original, absl::string_view name) {
    return CheckStandIn(factors, original.weight.size(0), original.weight.size(1), name);
  };
  LF_RETURN_IF_ERROR(check(value, problem.value, "value"));
  if (output) LF_RETURN_IF_ERROR(check(*output, problem.output, "output"));
  const double loss = CheckedValueOutputLoss(problem, centred, value, output);
  if (!std::isfinite(loss)) return absl::InternalError("numerical failure: loss is not finite");
  return loss;
}

absl::StatusOr<TuckerSpectra> ValueOutputSpectra(const ValueOutputProblem& problem,
                                                 const ValueOutputOptions& options) {
  LF_ASSIGN_OR_RETURN(const PosedValueOutput posed, PoseValueOutput(problem, options));
  return SpectraOf(posed.output, posed.value, /*coupling=*/{});
}

}  // namespace latentforge::low_rank
