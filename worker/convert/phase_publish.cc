// Publishing: the artifact with its report, written beside the output and renamed.
#include <ATen/Parallel.h>
#include <torch/headeronly/version.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/file.h"
#include "base/gnuplot.h"
#include "base/status_macros.h"
#include "base/version.h"
#include "checkpoint/kv_budget.h"
#include "checkpoint/linear_costs.h"
#include "checkpoint/linear_maps.h"
#include "checkpoint/rank_rule.h"
#include "checkpoint/tensor_catalogue.h"
#include "worker/convert/attempt.h"
#include "worker/convert/error_reason.h"
#include "worker/convert/process_memory.h"
#include "worker/convert/published_result.h"

namespace latentforge::convert {
namespace {

using absl::StatusCode;

std::vector<checkpoint::LayerRanks> CheckpointRanks(const factorize::RankProfile& profile) {
  std::vector<checkpoint::LayerRanks> ranks;
  for (const factorize::LayerRanks& layer : profile) {
    ranks.push_back({.k = layer.key, .v = layer.value, .joint = layer.joint});
  }
  return ranks;
}

checkpoint::LowRankConfig LowRankConfigOf(const Attempt& attempt,
                                          const Factorization& factorization) {
  return {.block_identity = attempt.spec.low_rank->layout == checkpoint::RankRule::kBlockIdentity,
          .bias = attempt.spec.low_rank->bias_update,
          .ranks = factorization.linear_ranks};
}

// What the artifact's config.json will say.
checkpoint::ModelConfig ConvertedConfig(const Attempt& attempt, const Inputs& inputs,
                                        const Factorization& factorization) {
  checkpoint::ModelConfig config = inputs.checkpoint.config();
  if (attempt.spec.low_rank) {
    config.low_rank = LowRankConfigOf(attempt, factorization);
  } else {
    config.latent = checkpoint::LatentConfig{.base_model_type = config.model_type,
                                             .joint = factorization.ranks[0].joint > 0,
                                             .ranks = CheckpointRanks(factorization.ranks)};
  }
  return config;
}

// Attention's share at the length of the evaluation windows.
exporter::ReportCosts Costs(const Inputs& inputs, const checkpoint::ModelConfig& converted) {
  const checkpoint::ModelConfig& base = inputs.checkpoint.config();
  const checkpoint::LinearCosts before = checkpoint::DecoderLinearCosts(base);
  const checkpoint::LinearCosts after = checkpoint::DecoderLinearCosts(converted);
  const int64_t length = inputs.windows.length;
  const auto prefill = [&](const checkpoint::ModelConfig& config, int64_t macs) {
    return double(macs) * double(length) + checkpoint::PrefillAttentionMacs(config, length);
  };
  const auto decode = [&](const checkpoint::ModelConfig& config, int64_t macs) {
    return double(macs) + checkpoint::DecodeAttentionMacs(config, length);
  };
  return {.parameters_base = before.parameters(),
          .parameters_converted = after.parameters(),
          .macs_base = before.macs_per_token(),
          .macs_converted = after.macs_per_token(),
          .context = length,
          .prefill_macs_base = prefill(base, before.macs_per_token()),
          .prefill_macs_converted = prefill(converted, after.macs_per_token()),
          .decode_macs_base = decode(base, before.macs_per_token()),
          .decode_macs_converted = decode(converted, after.macs_per_token())};
}

std::vector<exporter::ReportMap> MapsOfLayer(const Inputs& inputs,
                                             const Factorization& factorization, size_t layer) {
  std::vector<exporter::ReportMap> maps;
  for (const checkpoint::LinearMap& map : checkpoint::LinearMaps(inputs.checkpoint.config())) {
    maps.push_back({.name = std::string(map.key),
                    .rank = factorization.linear_ranks[layer].*map.rank,
                    .relative_error = factorization.linear_errors[layer][maps.size()]});
  }
  return maps;
}

// Times of all phases so far, over all attempts of the job.
std::vector<PhaseTiming> Timings(const Attempt& attempt) {
  std::vector<PhaseTiming> timings;
  for (const Phase phase : kPhases) {
    if (phase == Phase::kFineTuning && !attempt.spec.healing) continue;
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

exporter::ReportHealing MakeHealing(const JobSpec& spec, const Inputs& inputs,
                                    const Healing& healing) {
  const finetune::HealingState& state = healing.state;
  exporter::ReportHealing report{.weights = spec.healing->attention ? "attention" : "latents",
                                 .tokens = inputs.training.Tokens(state.steps_done()),
                                 .steps = state.steps_done(),
                                 .steps_planned = healing.steps,
                                 .best_step = state.best_step(),
                                 .ended_early = state.ended_early,
                                 .sequences_held_back = inputs.training.validation.sequences()};
  for (const finetune::HealingStep& step : state.steps) {
    report.history.push_back({step.step, step.loss, step.learning_rate, step.gradient_norm});
  }
  for (const finetune::HealingMeasurement& measured : state.measurements) {
    report.measurements.push_back({measured.step, measured.divergence, measured.perplexity});
  }
  return report;
}

// By size: those of a search, and the one that was chosen.
std::vector<exporter::ReportPrediction::Measured> Measured(const Factorization& factorization,
                                                           const Evaluation& evaluation) {
  std::map<int64_t, double> points(factorization.measured.begin(), factorization.measured.end());
  int64_t values = 0;
  for (const factorize::LayerRanks& layer : factorization.ranks) {
    values += layer.key + layer.value + layer.joint;
  }
  points[values] =
      std::log(evaluation.perplexity_factorized.value_or(evaluation.perplexity_converted) /
               evaluation.perplexity_base);
  std::vector<exporter::ReportPrediction::Measured> measured;
  for (const auto& [size, loss] : points) measured.push_back({size, loss});
  return measured;
}

// The specification with what this attempt chose where it leaves the choice.
JobSpec WithChoices(const Attempt& attempt, const Inputs& inputs,
                    const std::optional<Healing>& healing) {
  JobSpec spec = attempt.spec;
  spec.device = attempt.device.str();
  spec.threads = at::get_num_threads();
  spec.output_dtype = inputs.output_dtype;
  if (healing && spec.healing->learning_rate == 0 && !healing->state.measurements.empty()) {
    spec.healing->learning_rate =
        finetune::SuitableRate(healing->state.measurements.front().divergence, healing->steps);
  }
  return spec;
}

exporter::Report MakeReport(const Attempt& attempt, const Inputs& inputs,
                            const Factorization& factorization,
                            const std::optional<Healing>& healing, const Evaluation& evaluation,
                            const ResultEvent& result) {
  const JobSpec& spec = attempt.spec;
  exporter::Report report;
  report.perplexity_base = result.perplexity_base;
  report.perplexity_factorized = evaluation.perplexity_factorized;
  report.perplexity_converted = result.perplexity_converted;
  report.kv_bytes_per_token_base = result.kv_bytes_per_token_base;
  report.kv_bytes_per_token_converted = result.kv_bytes_per_token_converted;
  for (size_t l = 0; l < factorization.ranks.size(); ++l) {
    report.layers.push_back({.rank_k = factorization.ranks[l].key,
                             .rank_v = factorization.ranks[l].value,
                             .rank_kv = factorization.ranks[l].joint,
                             .relative_error_k = factorization.error_k[l],
                             .relative_error_v = factorization.error_v[l]});
    if (spec.low_rank) report.layers.back().maps = MapsOfLayer(inputs, factorization, l);
  }
  if (factorization.predicted_loss >= 0) {
    report.prediction.emplace();
    report.prediction->loss = factorization.predicted_loss;
    for (const auto& [values, loss] : factorization.curve) {
      report.prediction->curve.push_back({values, loss});
    }
    report.prediction->measured = Measured(factorization, evaluation);
  }
  if (healing) report.healing = MakeHealing(spec, inputs, *healing);
  for (const PhaseTiming& timing : result.phases) {
    report.phases.push_back({PhaseName(timing.phase), timing.seconds, timing.tokens_per_second});
  }
  report.peak_rss_bytes = result.peak_rss_bytes;
  const checkpoint::ModelConfig converted = ConvertedConfig(attempt, inputs, factorization);
  report.parameters_converted = checkpoint::NumParameters(converted);
  if (spec.low_rank) report.costs = Costs(inputs, converted);
  report.settings = JobSpecToJson(WithChoices(attempt, inputs, healing));
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

// OUT.report.json, or OUT.report-2.json and so on where an earlier conversion left one.
std::filesystem::path FreeReportPath(const std::filesystem::path& output) {
  std::filesystem::path path = output.string() + ".report.json";
  std::error_code error;
  for (int n = 2; std::filesystem::exists(std::filesystem::symlink_status(path, error)); ++n) {
    path = absl::StrCat(output.string(), ".report-", n, ".json");
  }
  return path;
}

// Fails a result above the quality gate and leaves its report beside where the artifact would
// have been.
absl::Status CheckQuality(const Attempt& attempt, const exporter::Report& report) {
  const double gate = attempt.spec.quality_gate;
  const double ratio = *report.perplexity_converted / *report.perplexity_base;
  if (gate == 0 || ratio <= gate) return absl::OkStatus();
  const std::filesystem::path path = FreeReportPath(attempt.spec.output);
  LF_ASSIGN_OR_RETURN(const Json json, exporter::ReportToJson(report));
  const absl::Status written = WriteFileAtomic(path, WriteJson(json, 2) + "\n");
  return WithReason(
      absl::FailedPreconditionError(absl::StrFormat(
          "quality gate: perplexity is %.6g, %.5f times the original's %.6g, expected at most %g; "
          "%s",
          *report.perplexity_converted, ratio, *report.perplexity_base, gate,
          written.ok() ? absl::StrCat("the report is ", path.string())
                       : absl::StrCat("its report could not be written: ", written.message()))),
      "QUALITY_GATE_FAILED");
}

absl::Status WithPublishReason(absl::Status status) {
  return WithReasonByCode(std::move(status),
                          {{StatusCode::kAlreadyExists, "OUTPUT_NOT_EMPTY"},
                           {StatusCode::kAborted, "LEASE_LOST"},
                           {StatusCode::kPermissionDenied, "OUTPUT_NOT_WRITABLE"},
                           {StatusCode::kResourceExhausted, "OUTPUT_DISK_FULL"},
                           {StatusCode::kDataLoss, "ARTIFACT_CORRUPT"},
                           {StatusCode::kInvalidArgument, "NUMERICAL_FAILURE"}});
}

// Draws while it can; says once why not.
exporter::PlotRenderer MakeRenderer(Attempt& attempt) {
  return [&attempt, told = false](absl::string_view script) mutable {
    auto svg = RunGnuplot({.scratch = attempt.work.path()}, script, attempt.clock);
    if (!svg.ok() && !told) {
      attempt.events.Info(
          absl::StrCat("the report has figures but lacks plots: ", svg.status().message(),
                       absl::IsNotFound(svg.status()) ? "; it is in the package gnuplot-nox" : ""));
      told = true;
    }
    return svg;
  };
}

}  // namespace

absl::StatusOr<ResultEvent> Publish(Attempt& attempt, const Inputs& inputs,
                                    const Factorization& factorization,
                                    const std::optional<Healing>& healing,
                                    const Evaluation& evaluation) {
  ResultEvent result = MakeResult(attempt, inputs, factorization, evaluation);
  LF_RETURN_IF_ERROR(CheckQuality(
      attempt, MakeReport(attempt, inputs, factorization, healing, evaluation, result)));
  attempt.work.state().publishing = true;
  LF_RETURN_IF_ERROR(attempt.work.SaveState());

  exporter::ArtifactRequest request{.output = attempt.spec.output,
                                    .job_id = inputs.artifact_id(),
                                    .joint = factorization.ranks[0].joint > 0,
                                    .ranks = CheckpointRanks(factorization.ranks),
                                    .dtype = inputs.output_dtype,
                                    .source_digest = inputs.source_digest,
                                    .settings_digest = inputs.settings_digest,
                                    .render_plot = MakeRenderer(attempt),
                                    .may_publish = attempt.may_publish};
  if (attempt.spec.low_rank) request.low_rank = LowRankConfigOf(attempt, factorization);
  const int64_t layers = inputs.checkpoint.config().num_layers;
  const auto layer_source = [&](int layer) -> absl::StatusOr<exporter::ConvertedLayer> {
    if (attempt.stopped()) return absl::CancelledError("publishing was stopped");
    attempt.progress.Update(double(layer) / double(layers), 0,
                            absl::StrCat("layer ", layer + 1, " of ", layers));
    return LoadFactors(attempt, layer);
  };
  const auto report = [&]() -> absl::StatusOr<exporter::Report> {
    if (attempt.stopped()) return absl::CancelledError("publishing was stopped");
    result = MakeResult(attempt, inputs, factorization, evaluation);
    return MakeReport(attempt, inputs, factorization, healing, evaluation, result);
  };
  const auto published = exporter::WriteArtifact(inputs.checkpoint, request, layer_source, report);
  if (absl::IsAlreadyExists(published.status())) {
    // Another attempt of the job may have come first: one that was cut off, but not dead.
    const auto other = exporter::FindPublished(attempt.spec.output, inputs.artifact_id());
    if (!other.ok()) return WithPublishReason(other.status());
    if (*other) return ResultOf(**other);
  }
  if (!published.ok()) return WithPublishReason(published.status());
  result.manifest_sha256 = published->manifest_sha256;
  return result;
}

}  // namespace latentforge::convert
