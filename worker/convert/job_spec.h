// What to convert and how: latentforge.v1.JobSpec as plain values.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/conversion_defaults.h"
#include "base/json.h"
#include "checkpoint/dtype.h"
#include "worker/calibrate/fisher_pass.h"
#include "worker/convert/corpus_spec.h"
#include "worker/convert/factorization_spec.h"
#include "worker/convert/healing_spec.h"
#include "worker/convert/low_rank_spec.h"

namespace latentforge::convert {

struct JobSpec {
  std::filesystem::path source;
  double kv_budget = 0;                 // in (0, 1], or 0 with max_perplexity_ratio
  double max_perplexity_ratio = 0;      // above 1, or 0 with kv_budget
  FactorizationSpec factorization;      // of the method kv_latent
  std::optional<LowRankSpec> low_rank;  // of the method low_rank, in place of the three above
  std::vector<CorpusSpec> corpora;
  int64_t sequences = kDefaultCalibrationSequences;
  int64_t sequence_length = kDefaultSequenceLength;
  uint64_t seed = 0;
  calibrate::FisherLabels labels = calibrate::FisherLabels::kSampled;
  std::optional<CorpusSpec> evaluation;  // absent: a held-back part of corpora[0]
  int64_t windows = kDefaultEvaluationWindows;
  int64_t window_length = kDefaultWindowLength;
  double quality_gate = 0;  // highest perplexity ratio that is published; 0: any
  std::optional<HealingSpec> healing;
  std::filesystem::path output;
  std::optional<checkpoint::DType> output_dtype;  // absent: the source's
  checkpoint::DType dtype = checkpoint::DType::kBF16;
  std::string device = "auto";
  int threads = 0;
};

// Reads proto3 JSON of latentforge.v1.JobSpec (lowerCamelCase keys, enum names,
// 64-bit integers as text or numbers) and fills in defaults. InvalidArgument names
// the key, the value and what was expected; Unimplemented
// METHOD_FULL_MLA; else as ParseFactorizationSpec and ParseLowRankSpec.
absl::StatusOr<JobSpec> ParseJobSpec(absl::string_view text);

// The specification with defaults filled in, for report.json and as the base of
// the digest by which a later attempt knows its work.
Json JobSpecToJson(const JobSpec& spec);

}  // namespace latentforge::convert
