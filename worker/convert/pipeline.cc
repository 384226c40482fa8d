#include "worker/convert/pipeline.h"

#include <algorithm>
#include <filesystem>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/shared_deadline.h"
#include "base/status_macros.h"
#include "checkpoint/tensor_catalogue.h"
#include "worker/convert/attempt.h"
#include "worker/convert/error_reason.h"
#include "worker/convert/phase_files.h"
#include "worker/convert/process_memory.h"
#include "worker/convert/published_result.h"
#include "worker/model/device.h"

namespace latentforge::convert {
namespace {

int HeapOf(Phase phase) {
  if (phase == Phase::kFineTuning) return kRoomyHeap;
  return phase == Phase::kCalibrating || phase == Phase::kFactorizing ? kWarmHeap : kTightHeap;
}

// Runs the phases in order and keeps their times. Borrows everything.
class Pipeline {
 public:
  Pipeline(Attempt attempt) : attempt_(attempt) {}

  absl::Status Run() {
    LF_ASSIGN_OR_RETURN(const Inputs inputs,
                        InPhase(Phase::kFetching, !attempt_.work.state().job_digest.empty(),
                                [&] { return FetchInputs(attempt_); }));
    if (inputs.published) return AdoptPublished(*inputs.published);
    attempt_.progress.SetCosts(Costs(inputs));
    const int64_t layers = inputs.checkpoint.config().num_layers;
    LF_RETURN_IF_ERROR(InPhase(Phase::kCalibrating, FinishedLayers(attempt_, layers) > 0, [&] {
                         return CountTokens(CollectStatistics(attempt_, inputs));
                       }).status());
    LF_ASSIGN_OR_RETURN(const Factorization factorization,
                        InPhase(Phase::kFactorizing, Exists(RanksPath(attempt_.work)), [&] {
                          absl::StatusOr<Factorization> result = FactorizeLayers(attempt_, inputs);
                          if (result.ok()) tokens_ = result->tokens;
                          return result;
                        }));
    std::optional<Healing> healing;
    if (attempt_.spec.healing) {
      LF_ASSIGN_OR_RETURN(healing,
                          InPhase(Phase::kFineTuning, Exists(HealingStatePath(attempt_.work)), [&] {
                            absl::StatusOr<Healing> result = HealLayers(attempt_, inputs);
                            if (result.ok()) tokens_ = result->tokens;
                            return result;
                          }));
    }
    LF_ASSIGN_OR_RETURN(
        const Evaluation evaluation,
        InPhase(Phase::kEvaluating, EvaluationBegan(), [&]() -> absl::StatusOr<Evaluation> {
          absl::StatusOr<Evaluation> result = EvaluateBoth(attempt_, inputs);
          if (result.ok()) tokens_ = result->tokens;
          return result;
        }));
    LF_ASSIGN_OR_RETURN(const ResultEvent result,
                        InPhase(Phase::kPublishing, attempt_.work.state().publishing, [&] {
                          return Publish(attempt_, inputs, factorization, healing, evaluation);
                        }));
    return End(result);
  }

  Phase phase() const { return phase_; }

 private:
  absl::Status AdoptPublished(const exporter::PublishedArtifact& artifact) {
    LF_ASSIGN_OR_RETURN(const ResultEvent result, ResultOf(artifact));
    attempt_.events.Info("an earlier attempt published this artifact; its checksums are right");
    return End(result);
  }

  absl::Status End(const ResultEvent& result) {
    attempt_.events.Result(result);
    // The job is done whether or not its scratch files can be removed.
    if (const absl::Status removed = attempt_.work.RemoveScratch(); !removed.ok()) {
      Log(Severity::kWarning, "scratch files stay", {{"error", std::string(removed.message())}});
    }
    return absl::OkStatus();
  }

  static bool Exists(const std::filesystem::path& path) {
    std::error_code error;
    return std::filesystem::exists(path, error);
  }

  // A search for a budget leaves its measurements there before the evaluation begins.
  bool EvaluationBegan() const {
    return attempt_.spec.max_perplexity_ratio == 0 && Exists(WindowsPath(attempt_.work, "base"));
  }

  absl::StatusOr<int64_t> CountTokens(absl::StatusOr<int64_t> tokens) {
    if (tokens.ok()) tokens_ = *tokens;
    if (tokens_ == 0) attempt_.progress.Skip();  // statistics were there
    return tokens;
  }

  template <typename F>
  std::invoke_result_t<F> InPhase(Phase phase, bool resumed, F body) {
    phase_ = phase;
    tokens_ = 0;
    if (attempt_.stopped()) return absl::CancelledError("stopped before a phase");
    attempt_.phase_start = attempt_.clock.Monotonic();
    attempt_.events.PhaseStarted(phase, resumed);
    attempt_.progress.Begin(phase);
    ReleaseCodePages();  // a phase does not use the last one's
    LimitHeap(HeapOf(phase));
    std::invoke_result_t<F> result = body();
    const double seconds = absl::ToDoubleSeconds(attempt_.clock.Monotonic() - attempt_.phase_start);
    LF_RETURN_IF_ERROR(KeepTime(phase, seconds, result.status()));
    attempt_.progress.End(phase);
    attempt_.events.PhaseFinished(phase, seconds, tokens_);
    return result;
  }

  // Returns the phase's own error first.
  absl::Status KeepTime(Phase phase, double seconds, const absl::Status& outcome) {
    WorkState& state = attempt_.work.state();
    PhaseTotals& totals = state.phases[static_cast<size_t>(phase)];
    totals.seconds += seconds;
    totals.tokens += tokens_;
    state.peak_rss_bytes = std::max(state.peak_rss_bytes, PeakRssBytes());
    const absl::Status saved = attempt_.work.SaveState();
    return outcome.ok() ? saved : outcome;
  }

  // Rough costs in floating-point operations; hashing and writing count as the
  // operations that fit into their time.
  PhaseCosts Costs(const Inputs& inputs) const {
    const checkpoint::ModelConfig& config = inputs.checkpoint.config();
    const auto parameters = double(checkpoint::NumParameters(config));
    const double head = double(config.vocab_size) * double(config.hidden_size);
    const double m = double(config.kv_width());
    const double calibrated = double(inputs.sequences.count * inputs.sequences.length);
    const double pass = 2 * double(inputs.windows.count * inputs.windows.length) * parameters;
    // A search measures the original and about five candidates, and leaves two of the passes
    // of the evaluation done.
    const bool searched = attempt_.spec.max_perplexity_ratio > 0;
    const int evaluations = 2 + (attempt_.spec.healing ? 1 : 0) - (searched ? 2 : 0);
    const double bytes = double(inputs.checkpoint.total_bytes());
    // Forward, and with the Fisher information back with a second forward.
    const double passes = attempt_.spec.factorization.loss_aware ? 4 : 1;
    const double pass_of_layers = 2 * calibrated * std::max(parameters - head, head);
    // Two streams, and two D x D products a token in fp32, which count as four times as many.
    const double d = double(config.hidden_size);
    const double anchored =
        attempt_.spec.factorization.anchored
            ? 2 * pass_of_layers + 4 * calibrated * double(config.num_layers) * 4 * d * d
            : 0;
    return {150 * bytes,
            passes * pass_of_layers,
            double(config.num_layers) * 2 * m * m * (100 * m + 20 * d) + anchored +
                (searched ? 6 * pass : 0),
            10 * double(inputs.training.Tokens(inputs.training.steps())) * parameters,
            evaluations * pass,
            600 * bytes};
  }

  Attempt attempt_;
  Phase phase_ = Phase::kFetching;
  int64_t tokens_ = 0;
};

absl::Status Prepare(const JobSpec& spec, at::Device& device) {
  LF_RETURN_IF_ERROR(WithReason(model::SetThreads(spec.threads), "INVALID_SPEC"));
  const absl::StatusOr<at::Device> selected = model::SelectDevice(spec.device);
  if (!selected.ok()) {
    return WithReasonByCode(selected.status(),
                            {{absl::StatusCode::kInvalidArgument, "DEVICE_UNAVAILABLE"},
                             {absl::StatusCode::kFailedPrecondition, "DEVICE_UNAVAILABLE"}});
  }
  device = *selected;
  return absl::OkStatus();
}

// Whoever held the lease may be stopped and not know that it is over.
absl::Status CheckLease(const std::optional<SharedDeadline>& lease, const Clock& clock) {
  if (!lease) return absl::OkStatus();
  const absl::Duration late = clock.Monotonic() - lease->Get();
  if (late < absl::ZeroDuration()) return absl::OkStatus();
  return WithReason(
      absl::AbortedError(absl::StrCat("the attempt's lease ended ", absl::FormatDuration(late),
                                      " ago: another one publishes")),
      "LEASE_LOST");
}

absl::Status RunInWorkDir(const JobSpec& spec, const ConversionFolders& folders,
                          EventWriter& events, const StopToken& stop, const Clock& clock,
                          Phase& phase) {
  at::Device device = at::kCPU;
  LF_RETURN_IF_ERROR(Prepare(spec, device));
  absl::StatusOr<WorkDir> work = WorkDir::Open(folders.work);
  if (!work.ok()) {
    return WithReasonByCode(work.status(),
                            {{absl::StatusCode::kAborted, "WORK_DIR_IN_USE"},
                             {absl::StatusCode::kResourceExhausted, "SCRATCH_FULL"},
                             {absl::StatusCode::kPermissionDenied, "SCRATCH_NOT_WRITABLE"},
                             {absl::StatusCode::kNotFound, "SCRATCH_NOT_WRITABLE"}});
  }
  std::optional<SharedDeadline> lease;
  if (!folders.lease.empty()) {
    absl::StatusOr<SharedDeadline> opened = SharedDeadline::Open(folders.lease);
    if (!opened.ok())
      return WithReason(Annotate(opened.status(), "--lease"), "SCRATCH_NOT_WRITABLE");
    lease = *std::move(opened);
  }
  ProgressMeter progress(clock, events);
  Pipeline pipeline(
      Attempt{.spec = spec,
              .work = *work,
              .events = events,
              .progress = progress,
              .stop = stop,
              .clock = clock,
              .statistics = folders.statistics,
              .device = device,
              .dtype = spec.dtype == checkpoint::DType::kF32 ? at::kFloat : at::kBFloat16,
              .may_publish = [&] { return CheckLease(lease, clock); }});
  const absl::Status status = pipeline.Run();
  phase = pipeline.phase();
  return status;
}

}  // namespace

absl::Status RunConversion(const JobSpec& spec, const ConversionFolders& folders,
                           EventWriter& events, const StopToken& stop, const Clock& clock) {
  Phase phase = Phase::kFetching;
  const absl::Status status = RunInWorkDir(spec, folders, events, stop, clock, phase);
  if (status.ok() || absl::IsCancelled(status)) return status;
  events.Error(DescribeError(status), std::string(status.message()), phase);
  return status;
}

void ReportEarlyError(const absl::Status& status, EventWriter& events) {
  events.Error(DescribeError(status), std::string(status.message()), Phase::kFetching);
}

}  // namespace latentforge::convert
