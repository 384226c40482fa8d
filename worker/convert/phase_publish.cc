// Publishing: the artifact with its report, written beside the output and renamed.
#include <torch/headeronly/version.h>

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "base/version.h"
#include "checkpoint/kv_budget.h"
#include "checkpoint/tensor_catalogue.h"
#include "worker/convert/attempt.h"
#include "worker/convert/error_reason.h"

namespace latentforge::convert {
namespace {

using absl::StatusCode;

// What the artifact is called while it is written; the same for every attempt.
std::string JobId(const Inputs& inputs) { return inputs.job_digest.substr(0, 16); }

std::vector<checkpoint::LayerRanks> CheckpointRanks(const factorize::RankProfile& profile) {
  std::vector<checkpoint::LayerRanks> ranks;
  for (const factorize::LayerRanks& layer : profile) {
    ranks.push_back({.k = layer.key, .v = layer.value, .joint = layer.joint});
  }
  return ranks;
}

int64_t ConvertedParameters(const Inputs& inputs, const factorize::RankProfile& profile) {
  checkpoint::ModelConfig config = inputs.checkpoint.config();
  config.latent = checkpoint::LatentConfig{.base_model_type = config.model_type,
                                           .joint = profile[0].joint > 0,
                                           .ranks = CheckpointRanks(profile)};
  return checkpoint::NumParameters(config);
}

// Times of all phases so far, over all attempts of the job.
std::vector<PhaseTiming> Timings(const Attempt& attempt) {
  std::vector<PhaseTiming> timings;
  for (const Phase phase : kPhases) {
    const PhaseTotals& totals = attempt.work.state().phases[static_cast<size_t>(phase)];
    double seconds = totals.seconds;
    if (phase == Phase::kPublishing) {
      seconds += absl::ToDoubleSeconds(attempt.clock.Monotonic() - attempt.phase_start);
    }
    timings.push_back({phase, seconds, seconds > 0 ? double(totals.tokens) / seconds : 0});
  }
  return timings;
}

ResultEvent MakeResult(Attempt& attempt, const Inputs& inputs, const Factorization& factorization,
                       const Evaluation& evaluation) {
  WorkState& state = attempt.work.state();
  state.peak_rss_bytes = std::max(state.peak_rss_bytes, PeakRssBytes());
  return {.artifact_uri = UriFromPath(attempt.spec.output),
          .report_uri = UriFromPath(attempt.spec.output / "report.json"),
          .perplexity_base = evaluation.perplexity_base,
          .perplexity_converted = evaluation.perplexity_converted,
          .kv_bytes_per_token_base =
              checkpoint::KvBytesPerToken(inputs.checkpoint.config(), inputs.output_dtype),
          .kv_bytes_per_token_converted = checkpoint::KvBytesPerToken(
              CheckpointRanks(factorization.ranks), inputs.output_dtype),
          .peak_rss_bytes = state.peak_rss_bytes,
          .phases = Timings(attempt),
          .rank_profile = factorization.ranks};
}

Json Versions() {
  return {{"latentforge", kVersion},
          {"libtorch",
           absl::StrCat(TORCH_VERSION_MAJOR, ".", TORCH_VERSION_MINOR, ".", TORCH_VERSION_PATCH)}};
}

exporter::Report MakeReport(const Attempt& attempt, const Inputs& inputs,
                            const Factorization& factorization, const ResultEvent& result) {
  const JobSpec& spec = attempt.spec;
  exporter::Report report;
  report.perplexity_base = result.perplexity_base;
  report.perplexity_converted = result.perplexity_converted;
  report.kv_bytes_per_token_base = result.kv_bytes_per_token_base;
  report.kv_bytes_per_token_converted = result.kv_bytes_per_token_converted;
  for (size_t l = 0; l < factorization.ranks.size(); ++l) {
    report.layers.push_back({.rank_k = factorization.ranks[l].key,
                             .rank_v = factorization.ranks[l].value,
                             .rank_kv = factorization.ranks[l].joint,
                             .relative_error_k = factorization.error_k[l],
                             .relative_error_v = factorization.error_v[l]});
  }
  if (factorization.predicted_loss >= 0) {
    report.prediction.emplace();
    report.prediction->loss = factorization.predicted_loss;
    for (const auto& [values, loss] : factorization.curve) {
      report.prediction->curve.push_back({values, loss});
    }
  }
  for (const PhaseTiming& timing : result.phases) {
    report.phases.push_back({PhaseName(timing.phase), timing.seconds, timing.tokens_per_second});
  }
  report.peak_rss_bytes = result.peak_rss_bytes;
  report.parameters_converted = ConvertedParameters(inputs, factorization.ranks);
  report.settings = JobSpecToJson(spec);
  report.source = {.uri = UriFromPath(spec.source),
                   .digest = inputs.source_digest,
                   .model_type = inputs.checkpoint.config().model_type,
                   .parameters = checkpoint::NumParameters(inputs.checkpoint.config())};
  report.evaluation = {.text = inputs.evaluation_text,
                       .windows = static_cast<int>(inputs.windows.count),
                       .window_length = static_cast<int>(inputs.windows.length),
                       .dtype = spec.dtype == checkpoint::DType::kF32 ? "float32" : "bfloat16"};
  report.calibration = {.corpora = inputs.corpora,
                        .sequences = static_cast<int>(inputs.sequences.count),
                        .sequence_length = static_cast<int>(inputs.sequences.length),
                        .seed = spec.seed};
  report.versions = Versions();
  report.warnings = inputs.warnings;
  return report;
}

absl::Status WithPublishReason(absl::Status status) {
  return WithReasonByCode(std::move(status),
                          {{StatusCode::kAlreadyExists, "OUTPUT_NOT_EMPTY"},
                           {StatusCode::kPermissionDenied, "OUTPUT_NOT_WRITABLE"},
                           {StatusCode::kResourceExhausted, "OUTPUT_DISK_FULL"},
                           {StatusCode::kDataLoss, "ARTIFACT_CORRUPT"},
                           {StatusCode::kInvalidArgument, "NUMERICAL_FAILURE"}});
}

}  // namespace

int64_t PeakRssBytes() {
  // Not getrusage: its maximum survives exec and may be the parent's.
  const absl::StatusOr<std::string> status = ReadFile("/proc/self/status", 1 << 16);
  if (!status.ok()) return 0;
  constexpr absl::string_view kKey = "VmHWM:";
  for (absl::string_view line : absl::StrSplit(*status, '\n')) {
    int64_t kib = 0;
    if (absl::ConsumePrefix(&line, kKey) && absl::ConsumeSuffix(&line, "kB") &&
        absl::SimpleAtoi(absl::StripAsciiWhitespace(line), &kib)) {
      return kib * 1024;
    }
  }
  return 0;
}

absl::StatusOr<ResultEvent> Publish(Attempt& attempt, const Inputs& inputs,
                                    const Factorization& factorization,
                                    const Evaluation& evaluation) {
  ResultEvent result = MakeResult(attempt, inputs, factorization, evaluation);
  if (attempt.work.state().publishing) {
    // An earlier attempt may have died between the rename and its last event.
    const auto published = exporter::FindPublished(attempt.spec.output, JobId(inputs));
    if (!published.ok()) return WithPublishReason(published.status());
    if (*published) {
      attempt.events.Info("an earlier attempt published this artifact; its checksums are right");
      result.manifest_sha256 = (*published)->manifest_sha256;
      return result;
    }
  }
  attempt.work.state().publishing = true;
  LF_RETURN_IF_ERROR(attempt.work.SaveState());

  const exporter::ArtifactRequest request{.output = attempt.spec.output,
                                          .job_id = JobId(inputs),
                                          .joint = factorization.ranks[0].joint > 0,
                                          .ranks = CheckpointRanks(factorization.ranks),
                                          .dtype = inputs.output_dtype,
                                          .source_digest = inputs.source_digest,
                                          .settings_digest = inputs.settings_digest};
  const int64_t layers = inputs.checkpoint.config().num_layers;
  const auto layer_source = [&](int layer) -> absl::StatusOr<exporter::ConvertedLayer> {
    if (attempt.stopped()) return absl::CancelledError("publishing was stopped");
    attempt.progress.Update(double(layer) / double(layers), 0,
                            absl::StrCat("layer ", layer + 1, " of ", layers));
    return LoadFactors(attempt.work, layer);
  };
  const auto report = [&]() -> absl::StatusOr<exporter::Report> {
    if (attempt.stopped()) return absl::CancelledError("publishing was stopped");
    result = MakeResult(attempt, inputs, factorization, evaluation);
    return MakeReport(attempt, inputs, factorization, result);
  };
  const auto published = exporter::WriteArtifact(inputs.checkpoint, request, layer_source, report);
  if (!published.ok()) return WithPublishReason(published.status());
  result.manifest_sha256 = published->manifest_sha256;
  return result;
}

}  // namespace latentforge::convert
