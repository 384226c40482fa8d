// How one method turns the statistics of calibration into ranks and factors.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/convert/attempt.h"
#include "worker/convert/tensor_file.h"
#include "worker/factorize/anchored_weight.h"
#include "worker/factorize/rank_allocation.h"

namespace latentforge::convert {

// Reads statistics from the scratch folder. Borrows the attempt and its inputs. Not
// safe for concurrent use. Errors carry no reason yet.
class LayerFactorizer {
 public:
  virtual ~LayerFactorizer() = default;

  // Ranks of all layers by the allocation asked for, within a share of the cache. Cancelled when
  // stopped.
  virtual absl::StatusOr<factorize::RankProfile> Allocate(double budget) = 0;

  // One layer: k_down, k_up, v_down, v_up (joint: kv_down, k_up, v_up) in the
  // output's format, those of a dense projection undefined, and `errors`, the
  // relative errors of K and V, [2] fp64.
  virtual absl::StatusOr<NamedTensors> Factorize(int64_t layer,
                                                 const factorize::LayerRanks& ranks) = 0;

  // The same for the anchored pass: against what the converted layers before really feed this
  // one. Unimplemented where nothing but the calibration's statistics is known.
  virtual absl::StatusOr<NamedTensors> FactorizeAnchored(
      int64_t /*layer*/, const factorize::LayerRanks& /*ranks*/,
      const factorize::AnchorMoments& /*moments*/) {
    return absl::UnimplementedError("the anchored pass needs PRECONDITIONER_FISHER");
  }

  // (cached values a token, predicted loss in nats a token) of evenly spaced
  // budgets; empty where nothing is predicted.
  virtual absl::StatusOr<std::vector<std::pair<int64_t, double>>> Curve() = 0;

  // The predicted loss of given ranks; negative where nothing is predicted.
  virtual absl::StatusOr<double> PredictedLoss(const factorize::RankProfile& ranks) = 0;
};

// Factorises every layer by `ranks` into the scratch folder; layers whose factors are there
// stay. Errors have reasons.
absl::Status FactorizeAll(Attempt& attempt, LayerFactorizer& factorizer,
                          const factorize::RankProfile& ranks, const PhasePart& part = {});

// K and V each by a preconditioner of the input.
std::unique_ptr<LayerFactorizer> MakePreconditionedFactorizer(const Attempt& attempt,
                                                              const Inputs& inputs);

// By the Fisher information, jointly or K and V each.
std::unique_ptr<LayerFactorizer> MakeLossAwareFactorizer(const Attempt& attempt,
                                                         const Inputs& inputs);

}  // namespace latentforge::convert
