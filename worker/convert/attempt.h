// What every phase of an attempt is given, and what phases hand on.
#pragma once

#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <array>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "checkpoint/checkpoint.h"
#include "worker/calibrate/sampling.h"
#include "worker/convert/event_writer.h"
#include "worker/convert/job_spec.h"
#include "worker/convert/progress_meter.h"
#include "worker/convert/stop_token.h"
#include "worker/convert/work_dir.h"
#include "worker/evaluate/perplexity.h"
#include "worker/export/artifact_writer.h"
#include "worker/export/published.h"
#include "worker/export/report.h"
#include "worker/factorize/rank_allocation.h"
#include "worker/finetune/healer.h"

namespace latentforge::convert {

// Borrows everything; not safe for concurrent use.
struct Attempt {
  const JobSpec& spec;
  WorkDir& work;
  EventWriter& events;
  ProgressMeter& progress;
  const StopToken& stop;
  const Clock& clock;
  std::filesystem::path statistics;  // folder of StatisticsStore; empty: none
  at::Device device = at::kCPU;
  at::ScalarType dtype = at::kBFloat16;
  absl::Duration phase_start;  // of the running phase, by clock.Monotonic()
  // Whether the artifact may still appear; Aborted LEASE_LOST.
  std::function<absl::Status()> may_publish = nullptr;

  // Someone asked to stop, or nobody listens any more.
  bool stopped() const { return stop.requested() || events.closed(); }
};

// The checked source and the tokens to work on.
struct Inputs {
  checkpoint::Checkpoint checkpoint;
  checkpoint::DType source_dtype;  // of the K and V projections
  checkpoint::DType output_dtype;
  std::string source_digest;
  std::string settings_digest;  // of what defines the result, output and device aside
  std::string job_digest;       // of settings, source and texts
  calibrate::TokenSequences sequences;
  finetune::TrainingText training;  // for healing; empty without
  evaluate::TokenWindows windows;
  std::vector<exporter::ReportCorpus> corpora;
  std::string evaluation_text;  // URI, or "held back from URI"
  std::vector<std::string> warnings;
  // What an earlier attempt published; the job is done then.
  std::optional<exporter::PublishedArtifact> published;

  // What the job's artifact is called in its manifest and while it is written: the same for every
  // attempt.
  std::string artifact_id() const { return job_digest.substr(0, 16); }
};

// Ranks and errors of all layers; factors lie in the scratch folder.
struct Factorization {
  factorize::RankProfile ranks;  // of keys and values
  std::vector<double> error_k;   // ||(W - W')X||_F / ||WX||_F on the calibration tokens
  std::vector<double> error_v;
  double predicted_loss = -1;  // nats a token; negative where nothing is predicted
  std::vector<std::pair<int64_t, double>> curve;     // of budgets: LayerFactorizer::Curve
  std::vector<std::pair<int64_t, double>> measured;  // of budgets: log of the perplexity ratio
  int64_t tokens = 0;  // through passes over compressed layers, in this attempt
  // Of all linear maps, by layer: of the method low_rank.
  std::vector<checkpoint::LinearRanks> linear_ranks;
  std::vector<std::array<double, 7>> linear_errors;  // CompressedLayer::errors
};

// Training of the factors, where it was asked for.
struct Healing {
  finetune::HealingState state;
  int64_t steps = 0;   // planned
  int64_t tokens = 0;  // trained on, in this attempt
};

// A part of the running phase, for progress.
struct PhasePart {
  double begin = 0;
  double end = 1;

  double At(double share) const { return begin + (end - begin) * share; }
};

// One pass of the evaluation windows through a model.
struct MeasureRequest {
  PerplexityKind kind = PerplexityKind::kBase;
  std::string name;  // of its file of finished windows, and for people
  PhasePart part;
  int64_t tokens_before = 0;  // that went through models in this phase already
  bool healed = false;        // with the factors of healing, else of the factorisation
  bool announce = true;       // send the perplexities as events
};

struct Evaluation {
  double perplexity_base = 0;
  std::optional<double> perplexity_factorized;  // where healing came after
  double perplexity_converted = 0;
  int64_t tokens = 0;  // through both models, in this attempt
};

// The two phases of the method low_rank. Where activations of the compressed layers count, their
// moments are collected while layers are compressed.
absl::StatusOr<int64_t> CollectLinearMoments(Attempt& attempt, const Inputs& inputs);  // tokens
absl::StatusOr<Factorization> CompressLayers(Attempt& attempt, const Inputs& inputs);

// Each phase finds in the scratch folder what earlier attempts finished of it,
// stops between layers or windows with Cancelled, and gives its errors a reason.
absl::StatusOr<Inputs> FetchInputs(Attempt& attempt);
absl::StatusOr<int64_t> CollectStatistics(Attempt& attempt, const Inputs& inputs);  // tokens
absl::StatusOr<Factorization> FactorizeLayers(Attempt& attempt, const Inputs& inputs);
absl::StatusOr<Healing> HealLayers(Attempt& attempt, const Inputs& inputs);
absl::StatusOr<evaluate::PerplexityResult> MeasurePerplexity(Attempt& attempt, const Inputs& inputs,
                                                             const MeasureRequest& request);
absl::StatusOr<Evaluation> EvaluateBoth(Attempt& attempt, const Inputs& inputs);
absl::StatusOr<ResultEvent> Publish(Attempt& attempt, const Inputs& inputs,
                                    const Factorization& factorization,
                                    const std::optional<Healing>& healing,
                                    const Evaluation& evaluation);

// How many layers' statistics earlier attempts saved in the order of the pass.
int64_t FinishedLayers(const Attempt& attempt, int64_t layers);

// One layer's factors, in the output's format, as a phase stored them.
absl::StatusOr<exporter::ConvertedLayer> LoadLayer(const std::filesystem::path& path);

// The factors that will be published: healed ones where healing was asked for.
absl::StatusOr<exporter::ConvertedLayer> LoadFactors(const Attempt& attempt, int64_t layer);

}  // namespace latentforge::convert
