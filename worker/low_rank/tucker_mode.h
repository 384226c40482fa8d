// One mode of the joint decompositions of attention: the best shared latents for the maps of
// several heads, each with its own metric on its outputs.
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/low_rank/linear.h"

namespace latentforge::low_rank {

// The latents of one mode, as many as its metrics can tell from nothing, at most those asked for.
// With Q_j = W_j C^(1/2) and A' the rows kept, orthonormal:
struct ModeBasis {
  at::Tensor up;       // [m, a], B_j = Q_j A'^T stacked: the best decoder of these latents
  at::Tensor encoder;  // [a, m], E with A = E W, so that A C A^T = I
  at::Tensor energy;   // [blocks, width, width], B_j B_j^T: E[y_j y_j^T] of the kept outputs
};

// Maps W_j [width, D] of one input x with moments C = E[x x^T], stacked as W [m, D].
//
// For metrics S_j, the rows A' are the leading eigenvectors of M = sum_j Q_j^T S_j Q_j (LatentLLM
// slides, joint QK compression, its HO-SVD one mode at a time): they keep the most of
// sum_j tr(S_j E[y_j y_j^T]). No inverse of C is taken, and M is not formed where m <= D (derived):
// with S_j = R_j R_j^T, the m x m matrix N = R^T (W C W^T) R has its eigenvalues, and
// from N v = lambda v follows Q A'^T = W C W^T R v / sqrt(lambda); and A'^T, being an eigenvector,
// is M A'^T / lambda, whence A = Lambda^-1 A' sum_j Q_j^T S_j W_j = Lambda^-1 (Q A'^T)^T S W.
// C may be singular: nothing divides by what its tokens do not show.
//
// Immutable; safe for concurrent use. Shares the storage of its arguments.
class TuckerMode {
 public:
  // `weight` [blocks * width, D] and `covariance` [D, D], symmetric, both fp64 and finite;
  // undefined stands for C = I. Internal when W C W^T is not finite. LibTorch's own exceptions
  // pass through, here and below.
  static absl::StatusOr<TuckerMode> Create(const at::Tensor& weight, const at::Tensor& covariance,
                                           int64_t width);

  int64_t blocks() const { return energy_.size(0); }
  int64_t width() const { return energy_.size(1); }
  // min(m, D): more latents than this have nothing left to hold.
  int64_t max_rank() const { return std::min(weight_.size(0), weight_.size(1)); }

  // E[y_j y_j^T] = W_j C W_j^T, [blocks, width, width].
  const at::Tensor& energy() const { return energy_; }

  // The best latents for the metrics S [blocks, width, width], symmetric and, up to rounding,
  // positive semidefinite; at most `rank`, which is from 1 to max_rank(). Internal when a product
  // is not finite.
  absl::StatusOr<ModeBasis> Solve(const at::Tensor& metrics, int64_t rank) const;

  // The eigenvalues of M, descending, never negative, max_rank() of them: what is left of
  // sum_j tr(S_j E[y_j y_j^T]) with r latents is the sum of those after the first r.
  absl::StatusOr<std::vector<double>> Spectrum(const at::Tensor& metrics) const;

  // up (down x) without a bias, of exactly `rank` latents. Those that the basis leaves free, as no
  // token or no other side can see what they hold, take the largest part of what is missing from W
  // itself, so that max_rank() latents give back W for every x.
  LowRank Factors(const ModeBasis& basis, int64_t rank) const;

 private:
  TuckerMode() = default;

  bool of_outputs() const { return outputs_.defined(); }
  absl::StatusOr<at::Tensor> Operator(const at::Tensor& roots) const;

  at::Tensor weight_;      // [m, D]
  at::Tensor covariance_;  // [D, D]; undefined: I
  at::Tensor outputs_;     // [m, m], W C W^T, where m <= D
  at::Tensor rooted_;      // [m, D], W F with F F^T = C, where m > D
  at::Tensor energy_;      // [blocks, width, width]
};

}  // namespace latentforge::low_rank
