// Joint low rank of a layer's query and key projections: the latents that keep attention's scores,
// rather than queries and keys each for themselves.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/low_rank/linear.h"
#include "worker/low_rank/query_key_norm.h"
#include "worker/low_rank/rope_metric.h"
#include "worker/low_rank/tucker.h"

namespace latentforge::low_rank {

// Head i of `heads` reads key head i / (heads / kv_heads), which covers MHA, GQA and MQA.
struct QueryKeyProblem {
  Linear query;  // [heads * head_dim, D]
  Linear key;    // [kv_heads * head_dim, D]
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  InputMoments input;  // mean and covariance of x, the input of both
  std::optional<RopeMetric> rope;
  std::optional<QueryKeyNorm> norm;
};

struct QueryKeyOptions {
  // True: latents for x - E x, and biases that keep the mean query and key exactly. Without RoPE,
  // what is constant along a row of scores then costs nothing, since softmax ignores it.
  // False: x as it is and no biases, the objective of the slides to the letter.
  bool centred = true;
  // delta: the factors are those for C + lambda I, lambda = delta tr(C) / D.
  double damping = 0;
  TuckerOptions solver;
};

// q ~ up_q (down_q x) + bias_q and k likewise, with one down for all heads. The rows of down are
// uncorrelated latents of variance 1 over the calibration tokens, apart from those that no token or
// no other side can see (TuckerMode::Factors). The attention scale stays 1/sqrt(head_dim); norms
// and RoPE stay behind the factors.
struct JointQueryKey {
  LowRank query;
  LowRank key;
  // What was minimised (on C + lambda I): at the start, then after each half sweep; never rising.
  // One element, of the two sides' tails, with a norm.
  std::vector<double> losses;
  // QueryKeyLoss of these factors, of each side's own best ones (absent when the start is kHosvd
  // and there is no norm), and of none at all, which keep just the means. Undamped and from kBoth
  // or kLocal, the first never exceeds the second.
  double loss = 0;
  std::optional<double> local_loss;
  double loss_of_nothing = 0;
};

// Ranks: left of the query, up to min(D, heads * head_dim), and right of the key, up to
// min(D, kv_heads * head_dim); at these the scores are the original ones for every x.
//
// With the metrics of TuckerCoupling and, per block, Q_i = W_q,i C^(1/2), K_g = W_k,g C^(1/2)
// (LatentLLM slides, joint QK compression; means as exact slices, lags of RoPE and norms are
// derived, see tucker.h, rope_metric.h and query_key_norm.h). With a norm both sides are solved
// once, to first order in their errors.
//
// InvalidArgument for shapes, types and options out of range, for a RoPE of another head_dim, and
// for projections with biases when not centred: those hold the means that centring needs.
// OutOfRange for ranks. Internal when something is not finite. LibTorch's own exceptions pass
// through. Thread-safe.
absl::StatusOr<JointQueryKey> CompressQueryKey(const QueryKeyProblem& problem,
                                               const TuckerRanks& ranks,
                                               const QueryKeyOptions& options);

// The mean over independent pairs of tokens, and over lags, of sum_i (score_i - score_i')^2, before
// the attention scale, for any stand-ins; C is not damped. Centred and without RoPE, after taking
// each row's mean error away. With a norm, the first-order value of the normalised scores' error.
// Errors as above; InvalidArgument too for stand-ins of other shapes, or with biases when not
// centred.
absl::StatusOr<double> QueryKeyLoss(const QueryKeyProblem& problem, bool centred,
                                    const LowRank& query, const LowRank& key);

// What ranks cost, without solving for them: bounds of the least loss within a factor of 2; with a
// norm AtMost is that loss itself. On C + lambda I. Errors as above.
absl::StatusOr<TuckerSpectra> QueryKeySpectra(const QueryKeyProblem& problem,
                                              const QueryKeyOptions& options);

}  // namespace latentforge::low_rank
