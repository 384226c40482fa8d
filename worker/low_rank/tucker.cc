#include "worker/low_rank/tucker.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace latentforge::low_rank {
namespace {

double Inner(const at::Tensor& a, const at::Tensor& b) { return (a * b).sum().item<double>(); }

// m_j m_j^T of rows m_j.
at::Tensor OuterSquares(const at::Tensor& means) { return means.unsqueeze(2) * means.unsqueeze(1); }

at::Tensor GroupSums(const at::Tensor& blocks, int64_t groups) {
  return blocks.reshape({groups, -1, blocks.size(1), blocks.size(2)}).sum(1);
}

// The objective is what the whole sides hold less what a pair's latents keep of it. Kept are
// sum_i ||H_i||^2, by the right metric of the left's latents, the left mean's part with it; and of
// the right mean's part, what the left latents keep.
class Objective {
 public:
  Objective(const TuckerMode& left, const TuckerMode& right, const TuckerCoupling& coupling)
      : coupling_(coupling), right_blocks_(right.blocks()) {
    if (coupling.right_mean.defined()) {
      const at::Tensor nothing = at::zeros_like(right.energy());
      right_mean_metrics_ = LeftMetrics(coupling, left.blocks(), nothing);
    }
    whole_ = Kept(left.energy(), right.energy());
  }

  double LossOf(const TuckerPair& pair) const {
    return std::max(0.0, whole_ - Kept(pair.left.energy, pair.right.energy));
  }

 private:
  double Kept(const at::Tensor& left, const at::Tensor& right) const {
    const double pairs = Inner(RightMetrics(coupling_, right_blocks_, left), right);
    return right_mean_metrics_.defined() ? pairs + Inner(right_mean_metrics_, left) : pairs;
  }

  const TuckerCoupling& coupling_;
  int64_t right_blocks_;
  at::Tensor right_mean_metrics_;
  double whole_ = 0;
};

at::Tensor IdentityMetrics(const TuckerMode& mode) {
  return at::eye(mode.width(), mode.energy().options()).expand_as(mode.energy());
}

absl::StatusOr<TuckerPair> HosvdStart(const TuckerMode& left, const TuckerMode& right,
                                      const TuckerCoupling& coupling, const TuckerRanks& ranks) {
  TuckerPair pair;
  LF_ASSIGN_OR_RETURN(pair.left,
                      left.Solve(LeftMetrics(coupling, left.blocks(), right.energy()), ranks.left));
  LF_ASSIGN_OR_RETURN(
      pair.right,
      right.Solve(RightMetrics(coupling, right.blocks(), pair.left.energy), ranks.right));
  return pair;
}

// Sweeps from `start` until they gain no more.
absl::StatusOr<TuckerSolution> Alternate(const TuckerMode& left, const TuckerMode& right,
                                         const TuckerCoupling& coupling, const TuckerRanks& ranks,
                                         const TuckerOptions& options, TuckerPair start) {
  const Objective objective(left, right, coupling);
  TuckerSolution solution{.pair = std::move(start), .losses = {}, .local = {}};
  TuckerPair& pair = solution.pair;
  solution.losses.push_back(objective.LossOf(pair));
  for (int64_t sweep = 0; sweep < options.sweeps; ++sweep) {
    const double before = solution.losses.back();
    LF_ASSIGN_OR_RETURN(
        pair.left, left.Solve(LeftMetrics(coupling, left.blocks(), pair.right.energy), ranks.left));
    solution.losses.push_back(objective.LossOf(pair));
    LF_ASSIGN_OR_RETURN(
        pair.right,
        right.Solve(RightMetrics(coupling, right.blocks(), pair.left.energy), ranks.right));
    solution.losses.push_back(objective.LossOf(pair));
    if (before - solution.losses.back() <= options.tolerance * before) break;
  }
  return solution;
}

absl::Status CheckRank(int64_t rank, int64_t limit, absl::string_view name) {
  if (rank >= 1 && rank <= limit) return absl::OkStatus();
  return absl::OutOfRangeError(
      absl::StrCat("rank of ", name, " is ", rank, ", expected 1 to ", limit));
}

// From the smallest up, for accuracy.
double Tail(const std::vector<double>& spectrum, int64_t rank) {
  const int64_t kept = std::min(rank, static_cast<int64_t>(spectrum.size()));
  return std::accumulate(spectrum.rbegin(), spectrum.rend() - kept, 0.0);
}

}  // namespace

at::Tensor LeftMetrics(const TuckerCoupling& coupling, int64_t left_blocks,
                       const at::Tensor& right_energy) {
  at::Tensor moments = right_energy;
  if (coupling.right_mean.defined()) moments = moments + OuterSquares(coupling.right_mean);
  if (coupling.rope) moments = coupling.rope->ForQueries(moments);
  return moments.repeat_interleave(left_blocks / moments.size(0), 0);
}

at::Tensor RightMetrics(const TuckerCoupling& coupling, int64_t right_blocks,
                        const at::Tensor& left_energy) {
  at::Tensor moments = left_energy;
  if (coupling.left_mean.defined()) moments = moments + OuterSquares(coupling.left_mean);
  moments = GroupSums(moments, right_blocks);
  return coupling.rope ? coupling.rope->ForKeys(moments) : moments;
}

absl::Status CheckRanks(const TuckerMode& left, const TuckerMode& right, const TuckerRanks& ranks,
                        absl::string_view left_name, absl::string_view right_name) {
  LF_RETURN_IF_ERROR(CheckRank(ranks.left, left.max_rank(), left_name));
  return CheckRank(ranks.right, right.max_rank(), right_name);
}

absl::Status CheckOptions(const TuckerOptions& options) {
  if (options.sweeps < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("sweeps are ", options.sweeps, ", expected at least 0"));
  }
  if (!std::isfinite(options.tolerance) || options.tolerance < 0) {
    return absl::InvalidArgumentError(absl::StrCat("tolerance is ", options.tolerance,
                                                   ", expected a finite number of at least 0"));
  }
  return absl::OkStatus();
}

absl::StatusOr<TuckerPair> LocalPair(const TuckerMode& left, const TuckerMode& right,
                                     const TuckerRanks& ranks) {
  TuckerPair pair;
  LF_ASSIGN_OR_RETURN(pair.left, left.Solve(IdentityMetrics(left), ranks.left));
  LF_ASSIGN_OR_RETURN(pair.right, right.Solve(IdentityMetrics(right), ranks.right));
  return pair;
}

absl::StatusOr<TuckerSolution> SolveTucker(const TuckerMode& left, const TuckerMode& right,
                                           const TuckerCoupling& coupling, const TuckerRanks& ranks,
                                           const TuckerOptions& options) {
  const auto improve = [&](TuckerPair start) {
    return Alternate(left, right, coupling, ranks, options, std::move(start));
  };
  std::optional<TuckerSolution> best;
  if (options.start != TuckerStart::kLocal) {
    LF_ASSIGN_OR_RETURN(TuckerPair start, HosvdStart(left, right, coupling, ranks));
    LF_ASSIGN_OR_RETURN(best, improve(std::move(start)));
  }
  if (options.start == TuckerStart::kHosvd) return *std::move(best);
  LF_ASSIGN_OR_RETURN(TuckerPair local, LocalPair(left, right, ranks));
  LF_ASSIGN_OR_RETURN(TuckerSolution from_local, improve(local));
  if (!best || from_local.losses.back() < best->losses.back()) best = std::move(from_local);
  best->local = std::move(local);
  return *std::move(best);
}

double TuckerSpectra::AtMost(const TuckerRanks& ranks) const {
  return Tail(left, ranks.left) + Tail(right, ranks.right);
}

double TuckerSpectra::AtLeast(const TuckerRanks& ranks) const {
  return std::max(Tail(left, ranks.left), Tail(right, ranks.right));
}

absl::StatusOr<TuckerSpectra> SpectraOf(const TuckerMode& left, const TuckerMode& right,
                                        const TuckerCoupling& coupling) {
  TuckerSpectra spectra;
  LF_ASSIGN_OR_RETURN(spectra.left,
                      left.Spectrum(LeftMetrics(coupling, left.blocks(), right.energy())));
  LF_ASSIGN_OR_RETURN(spectra.right,
                      right.Spectrum(RightMetrics(coupling, right.blocks(), left.energy())));
  return spectra;
}

}  // namespace latentforge::low_rank
