// What a compression of an MLP costs in its outputs: the figure that every fit is judged by.
#pragma once

#include <cmath>

#include "absl/status/statusor.h"
#include "worker/low_rank/mlp.h"

namespace latentforge::low_rank {

// Means over the calibration tokens: of the original's outputs y on its own inputs, and of the
// compressed block's outputs on the inputs behind compressed layers.
struct MlpError {
  double loss = 0;   // E|y - y'|^2
  double power = 0;  // E|y|^2

  // The root of their ratio; 0 where all outputs are 0.
  double relative() const { return power > 0 ? std::sqrt(loss / power) : 0; }
};

// From the tokens themselves, in one pass. The maps of `mlp` fit those of `original`. Errors as
// CheckMlp and VisitChunks; Internal when an output is not finite. Safe for concurrent use.
absl::StatusOr<MlpError> MeasureMlp(const Mlp& original, const LowRankMlp& mlp,
                                    const MlpTokens& tokens);

}  // namespace latentforge::low_rank
