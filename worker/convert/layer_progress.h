// What passes over a model layer by layer share: the reasons of their errors and their progress.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "worker/convert/attempt.h"

namespace latentforge::convert {

absl::Status WithCalibrationReason(const absl::Status& status);

// Reports the progress of a pass. Borrows the attempt. Not safe for concurrent use.
class LayerProgress {
 public:
  struct Options {
    int64_t sweeps = 1;  // how often each layer takes all calibration tokens
    PhasePart part;      // of the phase
  };

  LayerProgress(Attempt& attempt, const Inputs& inputs, const Options& options);

  // A batch went through `layer`: tokens through it so far, in the running sweep.
  void Update(int64_t layer, int64_t tokens);

  // Tokens, weighted by the share of the layers that they went through here.
  int64_t WorkDone() const;

 private:
  Attempt& attempt_;
  const double layers_;
  const double tokens_;
  const double sweeps_;
  const PhasePart part_;
  int64_t layer_ = -1;
  double sweep_ = 0;     // of the running layer, finished ones
  double in_sweep_ = 0;  // tokens
  double work_done_ = 0;
};

}  // namespace latentforge::convert
