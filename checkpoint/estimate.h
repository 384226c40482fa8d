// What a conversion is expected to need, before it runs.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "checkpoint/dtype.h"
#include "checkpoint/model_config.h"

namespace latentforge::checkpoint {

struct EstimateSettings {
  double kv_budget = 0.5;
  int64_t calibration_sequences = 0;
  int64_t sequence_length = 0;
  int64_t evaluation_windows = 0;  // each is run through both models
  int64_t window_length = 0;
  DType compute_dtype = DType::kF32;  // of forward passes
  DType weight_dtype = DType::kBF16;  // of source and artifact
  int64_t threads = 1;
  bool hessian = false;  // the preconditioner needs the D x D covariance
};

struct Estimate {
  int64_t peak_memory_bytes = 0;  // resident set of the compute process
  double seconds = 0;
  int64_t output_bytes = 0;
  int64_t kv_bytes_per_token_base = 0;
  int64_t kv_bytes_per_token_converted = 0;  // at most
};

// A cost model of a few terms; its constants stand together in estimate.cc.
// InvalidArgument for a budget that RankTotalsForBudget refuses.
absl::StatusOr<Estimate> EstimateConversion(const ModelConfig& config,
                                            const EstimateSettings& settings);

}  // namespace latentforge::checkpoint
