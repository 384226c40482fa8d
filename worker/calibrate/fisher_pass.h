// Collects the moments by which a loss-aware factorisation of keys and values weighs errors.
#pragma once

#include <cstdint>
#include <functional>

#include "absl/status/status.h"
#include "worker/calibrate/gradient_pass.h"
#include "worker/factorize/loss_statistics.h"

namespace latentforge::calibrate {

struct FisherOptions {
  GradientPassOptions pass;  // without `begin`
  // Keeps a layer's statistics, from the last layer to the first; once it returns OK
  // the layer counts as finished. An error ends the pass.
  std::function<absl::Status(int64_t layer, const factorize::LossStatistics&)> save;
};

// RunGradientPass with the statistics of keys and values. Errors as there.
absl::Status RunFisherPass(const checkpoint::Checkpoint& checkpoint,
                           const TokenSequences& sequences, const FisherOptions& options);

}  // namespace latentforge::calibrate
