// What a conversion is expected to need, before it runs.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "checkpoint/dtype.h"
#include "checkpoint/model_config.h"

namespace latentforge::checkpoint {

// What calibration collects for each layer, by what the factorisation needs.
enum class StatisticsKind {
  kOutputs,     // E[y y^T] of K and of V; all of them collect it
  kCross,       // and E[y x^T]
  kCovariance,  // and E[x x^T]
  kFisher,      // moments of outputs and gradients of K and V together, by a way back
  kLinear,      // E[x x^T] of the inputs of all linear maps, for the method low_rank
};

struct EstimateSettings {
  double kv_budget = 0.5;
  // Of the method low_rank, in place of kv_budget: the share of the parameters of linear maps
  // that goes, with statistics kLinear; 0: another method.
  double parameter_ratio = 0;
  int64_t calibration_sequences = 0;
  int64_t sequence_length = 0;
  int64_t evaluation_windows = 0;  // each is run through both models
  int64_t window_length = 0;
  DType compute_dtype = DType::kF32;  // of forward passes
  DType weight_dtype = DType::kBF16;  // of the artifact
  int64_t threads = 1;
  StatisticsKind statistics = StatisticsKind::kOutputs;
  // With kLinear: also E[x x^T] of what the MLP's last map is fed, [F, F]; and its inverse.
  bool inner_covariance = false;
  bool inner_inverse = false;
  // With kLinear: also the moments of gradients, by a way back over some of the sequences.
  bool gradients = false;
  bool joint = false;                // one latent for K and V
  bool anchored = false;             // layers in order, by two streams of hidden states
  int64_t healing_tokens = 0;        // trained on; 0: none
  int64_t healing_batch_tokens = 0;  // in one step
  bool healing_attention = false;    // trains the query and output projections too
};

struct Estimate {
  int64_t peak_memory_bytes = 0;  // resident set of the compute process, on the CPU
  double seconds = 0;             // on a machine like the one it was fitted to
  int64_t output_bytes = 0;
  int64_t kv_bytes_per_token_base = 0;
  int64_t kv_bytes_per_token_converted = 0;  // at most
};

// A cost model of a few terms; its constants stand at the head of estimate*.cc, and
// estimate_test.cc holds it to measured conversions. InvalidArgument for a budget that
// RankTotalsForBudget refuses, OutOfRange for a ratio that RankForRatio does.
absl::StatusOr<Estimate> EstimateConversion(const ModelConfig& config,
                                            const EstimateSettings& settings);

}  // namespace latentforge::checkpoint
