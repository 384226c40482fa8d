// The anchored pass: layers factorised in order, each against what the converted layers before
// it really feed it (docs/architecture.md).
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "worker/convert/attempt.h"
#include "worker/convert/layer_factorizer.h"
#include "worker/factorize/rank_allocation.h"

namespace latentforge::convert {

// FactorizeAll by the anchored pass, with the calibration's sequences; leaves the same files.
// Layers whose factors are there stay, and those of full rank stay the original's. Returns the
// tokens that went through, weighted by the share of the pass made here. Cancelled when stopped;
// errors have reasons.
absl::StatusOr<int64_t> FactorizeAnchored(Attempt& attempt, const Inputs& inputs,
                                          LayerFactorizer& factorizer,
                                          const factorize::RankProfile& ranks);

}  // namespace latentforge::convert
