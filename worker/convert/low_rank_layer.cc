#include "worker/convert/low_rank_layer.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/low_rank/block_identity.h"
#include "worker/low_rank/joint_mlp.h"
#include "worker/low_rank/joint_moments.h"
#include "worker/low_rank/joint_query_key.h"
#include "worker/low_rank/joint_value_output.h"
#include "worker/low_rank/junction.h"
#include "worker/low_rank/local_decomposition.h"
#include "worker/low_rank/output_metric.h"
#include "worker/model/rope.h"

namespace latentforge::convert {
namespace {

using calibrate::LinearMoments;
using checkpoint::RankRule;
using factorize::Preconditioner;
using low_rank::LocalDecomposition;
using low_rank::LowRank;

// Tokens from which the norms of QK-norm are measured.
constexpr int64_t kNormRows = 4096;

low_rank::LocalOptions LocalOptionsOf(const LowRankSpec& spec) {
  return {.preconditioner = spec.preconditioner.kind,
          .literal_hessian = spec.literal_hessian,
          .alpha = spec.preconditioner.alpha,
          .damping = spec.preconditioner.damping,
          .centred = spec.bias_update,
          .update_bias = spec.bias_update};
}

bool NeedsDownCovariance(const LowRankSpec& spec) {
  return spec.preconditioner.kind == Preconditioner::kCovariance ||
         spec.preconditioner.kind == Preconditioner::kDiagonalHessian;
}

// Added to each output's share, in units of their mean: a few tokens see some outputs too little.
constexpr double kFisherRidge = 1e-3;

// G of the map's outputs; undefined where their errors count alike, or none counts.
at::Tensor MetricOf(const calibrate::LinearFisher* fisher, size_t map) {
  if (fisher == nullptr) return {};
  const std::array<at::Tensor, kLinearMaps> metrics = {
      fisher->q, fisher->k, fisher->v, fisher->o, fisher->gate, fisher->up, fisher->down};
  at::Tensor metric = metrics[map].clone();
  at::Tensor diagonal = metric.dim() == 2 ? metric.diagonal() : metric;
  const double mean = diagonal.mean().item<double>();
  if (!(mean > 0)) return {};
  diagonal.add_(kFisherRidge * mean);
  return metric;
}

// Each map for itself.
absl::StatusOr<LocalDecomposition> Decompose(const LayerProblem& problem, size_t map,
                                             const LowRankSpec& spec) {
  const LinearMoments& moments = problem.moments;
  const low_rank::Linear& linear = problem.maps.maps[map];
  const low_rank::LocalOptions options = LocalOptionsOf(spec);
  const at::Tensor metric = MetricOf(problem.fisher, map);
  if (map == kDown && !NeedsDownCovariance(spec)) {
    return LocalDecomposition::Compute(linear, moments.down, options, metric);
  }
  if (map == kDown) {
    return LocalDecomposition::Compute(linear,
                                       {.tokens = moments.mlp.tokens,
                                        .mean = moments.down.mean,
                                        .mean_abs = moments.down.mean_abs,
                                        .covariance = moments.down_covariance},
                                       options, metric);
  }
  const bool attention = map == kQ || map == kK || map == kV;
  return LocalDecomposition::Compute(linear,
                                     attention   ? moments.attention
                                     : map == kO ? moments.attended
                                                 : moments.mlp,
                                     options, metric);
}

double Relative(double loss, double of) { return of > 0 ? std::sqrt(std::max(loss, 0.0) / of) : 0; }

// One layer; borrows everything. Not safe for concurrent use.
class Compression {
 public:
  Compression(const LayerProblem& problem, const LowRankSpec& spec)
      : problem_(problem), spec_(spec), table_(checkpoint::LinearMaps(problem.config)) {}

  absl::StatusOr<CompressedLayer> Run() {
    if (spec_.joint_query_key && Rank(kQ) > 0 && Rank(kK) > 0) {
      LF_RETURN_IF_ERROR(Annotate(QueryKey(), "q_proj and k_proj"));
    }
    if (spec_.joint_value_output && Rank(kV) > 0 && Rank(kO) > 0) {
      LF_RETURN_IF_ERROR(Annotate(Value(), "v_proj"));
    }
    const bool gated = problem_.config.gated();
    if (spec_.mlp != MlpCompression::kLocal && (!gated || Rank(kGate) > 0) && Rank(kUp) > 0 &&
        Rank(kDown) > 0) {
      LF_RETURN_IF_ERROR(Annotate(MlpMaps(), "mlp"));
    }
    for (size_t map = 0; map < kLinearMaps; ++map) {
      if (Rank(map) == 0 || done_[map]) continue;
      LF_RETURN_IF_ERROR(Annotate(Local(map), table_[map].module));
    }
    return std::move(result_);
  }

 private:
  int64_t Rank(size_t map) const { return problem_.ranks.*table_[map].rank; }

  absl::Status Local(size_t map) {
    LF_ASSIGN_OR_RETURN(const LocalDecomposition decomposition, Decompose(problem_, map, spec_));
    LF_ASSIGN_OR_RETURN(LowRank factors, decomposition.At(Rank(map)));
    if (spec_.layout == RankRule::kNaive) {
      LF_ASSIGN_OR_RETURN(factors, low_rank::Join(factors, decomposition.SingularValues(),
                                                  low_rank::Junction::kSymmetric));
    }
    return Keep(map, factors, Relative(decomposition.Loss(Rank(map)), decomposition.Loss(0)));
  }

  // What calibration sees of RoPE: each lag as often as a sequence has it.
  absl::StatusOr<low_rank::QueryKeyProblem> QueryKeyProblem() const {
    const checkpoint::ModelConfig& config = problem_.config;
    low_rank::QueryKeyProblem problem{.query = problem_.maps.maps[kQ],
                                      .key = problem_.maps.maps[kK],
                                      .heads = config.num_heads,
                                      .kv_heads = config.num_kv_heads,
                                      .head_dim = config.head_dim,
                                      .input = problem_.moments.attention};
    if (config.rotary()) {
      LF_ASSIGN_OR_RETURN(problem.rope, low_rank::RopeMetric::Causal(
                                            model::InverseFrequencies(config).to(at::kDouble),
                                            problem_.sequence_length));
    }
    if (!config.qk_norm) return problem;
    const at::Tensor x = problem_.moments.attention_rows.t();
    low_rank::QueryKeyNorm norm{.query_gain = problem_.maps.q_norm,
                                .key_gain = problem_.maps.k_norm};
    LF_ASSIGN_OR_RETURN(norm.query, low_rank::MeasureNormedHeads(problem.query, norm.query_gain,
                                                                 config.norm_eps, x));
    LF_ASSIGN_OR_RETURN(
        norm.key, low_rank::MeasureNormedHeads(problem.key, norm.key_gain, config.norm_eps, x));
    problem.norm = std::move(norm);
    return problem;
  }

  absl::Status QueryKey() {
    LF_ASSIGN_OR_RETURN(const low_rank::QueryKeyProblem problem, QueryKeyProblem());
    // Projections with biases hold the means already.
    const bool centred = spec_.bias_update || problem.query.bias.defined();
    LF_ASSIGN_OR_RETURN(
        const low_rank::JointQueryKey joint,
        low_rank::CompressQueryKey(problem, {.left = Rank(kQ), .right = Rank(kK)},
                                   {.centred = centred, .damping = spec_.preconditioner.damping}));
    const double error = Relative(joint.loss, joint.loss_of_nothing);
    LF_RETURN_IF_ERROR(Keep(kQ, joint.query, error));
    return Keep(kK, joint.key, error);
  }

  // The output projection is compressed for itself, on its own input: heads' errors add up there
  // as they do.
  absl::Status Value() {
    const checkpoint::ModelConfig& config = problem_.config;
    const low_rank::Linear& value = problem_.maps.maps[kV];
    const low_rank::ValueOutputProblem problem{.value = value,
                                               .output = problem_.maps.maps[kO],
                                               .heads = config.num_heads,
                                               .kv_heads = config.num_kv_heads,
                                               .head_dim = config.head_dim,
                                               .input = problem_.moments.attention};
    LF_ASSIGN_OR_RETURN(
        low_rank::JointValueOutput joint,
        low_rank::CompressValueOutput(
            problem, {.left = Rank(kO), .right = Rank(kV)},
            {.centred = spec_.bias_update, .damping = spec_.preconditioner.damping}));
    // Attention's rows sum to 1: a constant is the same here as in the output's bias.
    joint.value.bias = value.bias;
    if (spec_.bias_update) {
      joint.value.bias = low_rank::MeanKeepingBias(value, joint.value, problem.input.mean);
    }
    return Keep(kV, joint.value, Relative(joint.loss, joint.loss_of_nothing));
  }

  absl::Status MlpMaps() {
    if (problem_.mlp_tokens == nullptr) {
      return absl::InvalidArgumentError("the inputs of the MLP are absent");
    }
    const bool gated = problem_.config.gated();
    const low_rank::Mlp mlp{
        .activation = gated ? low_rank::Activation::kSwiGlu : low_rank::Activation::kRelu,
        .up = problem_.maps.maps[kUp],
        .gate = problem_.maps.maps[kGate],
        .down = problem_.maps.maps[kDown]};
    const low_rank::MlpRanks ranks{.up = Rank(kUp), .gate = Rank(kGate), .down = Rank(kDown)};
    const low_rank::MlpFitOptions fit{.damping = spec_.preconditioner.damping,
                                      .add_biases = spec_.bias_update};
    absl::StatusOr<low_rank::MlpCompression> compressed =
        spec_.mlp == MlpCompression::kAlternation
            ? low_rank::CompressMlpJointly(mlp, ranks, *problem_.mlp_tokens, {.fit = fit})
            : low_rank::CompressMlpForOutputs(mlp, ranks, *problem_.mlp_tokens, fit);
    LF_RETURN_IF_ERROR(compressed.status());
    const double error = compressed->error.relative();
    if (gated) LF_RETURN_IF_ERROR(Keep(kGate, compressed->mlp.gate, error));
    LF_RETURN_IF_ERROR(Keep(kUp, compressed->mlp.up, error));
    return Keep(kDown, compressed->mlp.down, error);
  }

  absl::Status Keep(size_t map, const LowRank& factors, double error) {
    static constexpr std::array<exporter::LowRankMap exporter::LowRankLayer::*, kLinearMaps>
        kMembers = {&exporter::LowRankLayer::q,    &exporter::LowRankLayer::k,
                    &exporter::LowRankLayer::v,    &exporter::LowRankLayer::o,
                    &exporter::LowRankLayer::gate, &exporter::LowRankLayer::up,
                    &exporter::LowRankLayer::down};
    exporter::LowRankMap& target = result_.factors.*kMembers[map];
    if (spec_.layout == RankRule::kBlockIdentity) {
      LF_ASSIGN_OR_RETURN(const low_rank::IdentityFactors identity,
                          low_rank::ToIdentity(factors, low_rank::IdentitySide::kRight));
      target = {.order = identity.pivots,
                .down = identity.rest,
                .up = identity.other,
                .bias = factors.bias};
    } else {
      target = {.down = factors.down, .up = factors.up, .bias = factors.bias};
    }
    result_.errors[map] = error;
    done_[map] = true;
    return absl::OkStatus();
  }

  const LayerProblem& problem_;
  const LowRankSpec& spec_;
  const std::array<checkpoint::LinearMap, kLinearMaps> table_;
  std::array<bool, kLinearMaps> done_ = {};
  CompressedLayer result_;
};

}  // namespace

calibrate::LinearMomentsNeeds NeedsOf(const LowRankSpec& spec,
                                      const checkpoint::ModelConfig& config) {
  return {.down_covariance = NeedsDownCovariance(spec),
          .attention_rows = config.qk_norm && spec.joint_query_key ? kNormRows : 0};
}

absl::StatusOr<std::array<std::vector<double>, kLinearMaps>> MapSpectra(const LayerProblem& problem,
                                                                        const LowRankSpec& spec) {
  std::array<std::vector<double>, kLinearMaps> spectra;
  const auto table = checkpoint::LinearMaps(problem.config);
  for (size_t map = 0; map < kLinearMaps; ++map) {
    if (!table[map].present()) continue;
    LF_ASSIGN_OR_RETURN(const LocalDecomposition decomposition, Decompose(problem, map, spec));
    spectra[map] = decomposition.energies();
    const bool silent = problem.fisher != nullptr && !MetricOf(problem.fisher, map).defined();
    if (silent) std::fill(spectra[map].begin(), spectra[map].end(), 0.0);
  }
  return spectra;
}

absl::StatusOr<CompressedLayer> CompressLayer(const LayerProblem& problem,
                                              const LowRankSpec& spec) {
  return Compression(problem, spec).Run();
}

}  // namespace latentforge::convert
