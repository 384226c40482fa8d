// LatentLLM's joint UD compression: the layers of an MLP are compressed together, by alternation
// between auxiliary values and rank-constrained weights.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "worker/low_rank/mlp.h"
#include "worker/low_rank/mlp_auxiliary.h"
#include "worker/low_rank/mlp_fit.h"

namespace latentforge::low_rank {

struct JointMlpOptions {
  MlpFitOptions fit;
  Penalties penalties;
  // Newton steps of each update of a gate's values. At least 1.
  int64_t gate_steps = 4;
  // Rounds of auxiliary values and weights; 0 leaves the start: maps compressed one by one, with
  // `down` refitted. At least 0.
  int64_t rounds = 4;
  // Rounds end when L4 falls by no more than this share of itself. At least 0, less than 1.
  double tolerance = 1e-3;
  // Keep Z (and S) of all tokens in memory from round to round, [n, f] each. False: each round
  // computes them anew from the weights of all rounds before it, which gives the same values.
  bool keep_values = false;
};

// Starts with Z = W_u x (and S = W_g x) of the original MLP, y = W_d sigma(Z) for good, and
// `up`, `gate` and `down` compressed one after the other. Then each round takes Z' given Z and
// `down`, Z (and S) given Z' and the inner maps, and refits `up` to Z, `gate` to S and `down` to Z'
// by RankRegression. (LatentLLM, "Decoupled Loss Minimization"; the pattern and the choice of Z are
// SparseLLM's.) Inputs of all compressed maps are those behind compressed layers.
//
// L4 falls in every round (without damping), but the loss of the MLP need not, because Z' knows y.
// So each round's `up` and `gate` are judged by the true loss E|y - down sigma(up z)|^2 with a
// `down` refitted to their real activations, and the best are returned with that `down`: never
// worse than the start.
//
// Memory for n tokens and f inner channels: a pass holds the sums E[Z' Z'^T] [f, f] and, for each
// inner map, E[Z z^T] [f, d], and a chunk's matrices [n_c, f]. Nothing of [n, f] is held by
// default: at n = 131,072 and f = 16,384 Z alone would take 17 GB, and Z' is never needed again. Z
// is replayed from the weights of each round: about 4 r (d + f) numbers a round, 1.3 GB at d =
// 4,096 and rank 2,000. A round replayed costs about 3 r (d + f) multiplications a token, and the
// sums of Z' Z'^T and of h h^T for the true loss, which no choice avoids, f^2 each, so that four
// rounds take about a fifth longer than with `keep_values`, which is for small models.
//
// Deterministic. Errors: InvalidArgument as CheckMlp, CheckRanks, CheckPenalties and VisitChunks,
// and for options out of range; Internal when a value is not finite. Safe for concurrent use.
// LibTorch's own exceptions pass through.
absl::StatusOr<MlpCompression> CompressMlpJointly(const Mlp& original, const MlpRanks& ranks,
                                                  const MlpTokens& tokens,
                                                  const JointMlpOptions& options);

}  // namespace latentforge::low_rank
