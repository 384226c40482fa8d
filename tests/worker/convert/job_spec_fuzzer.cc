// Feeds arbitrary text to the parser of job specifications, and checks what it promises: errors of
// three kinds, and values of which every one is in its range and comes back the same after it was
// written.
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "worker/convert/job_spec.h"

namespace {

using namespace latentforge::convert;  // NOLINT: nothing else is declared here

void CheckCorpus(const CorpusSpec& corpus) {
  if (!corpus.path.is_absolute() || !(corpus.weight > 0)) abort();
}

void CheckSpec(const JobSpec& spec) {
  if (!spec.source.is_absolute() || !spec.output.is_absolute()) abort();
  if (spec.corpora.empty()) abort();
  for (const CorpusSpec& corpus : spec.corpora) CheckCorpus(corpus);
  if (spec.evaluation.has_value()) CheckCorpus(*spec.evaluation);
  if (spec.sequences < 1 || spec.sequence_length < 1 || spec.windows < 1 || spec.window_length < 2)
    abort();
  if (spec.threads < 0 || spec.device.empty()) abort();
  if (spec.low_rank.has_value()) return;
  const bool fixed = spec.kv_budget > 0 && spec.kv_budget <= 1 && spec.max_perplexity_ratio == 0;
  const bool sought = spec.kv_budget == 0 && spec.max_perplexity_ratio > 1;
  if (!fixed && !sought) abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view text(reinterpret_cast<const char*>(data), size);
  const auto spec = ParseJobSpec(text);
  if (!spec.ok()) {
    const absl::Status& status = spec.status();
    if (!absl::IsInvalidArgument(status) && !absl::IsOutOfRange(status) &&
        !absl::IsUnimplemented(status))
      abort();
    return 0;
  }
  CheckSpec(*spec);
  const std::string written = latentforge::WriteJson(JobSpecToJson(*spec));
  const auto again = ParseJobSpec(written);
  if (!again.ok() || latentforge::WriteJson(JobSpecToJson(*again)) != written) abort();
  return 0;
}
