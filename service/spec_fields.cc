#include "service/spec_fields.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/conversion_defaults.h"
#include "base/conversion_limits.h"
#include "base/device_name.h"
#include "proto/enum_text.h"
#include "service/low_rank_fields.h"
#include "service/needs.h"
#include "service/time_util.h"

namespace latentforge::service {
namespace {

constexpr size_t kMaxFindings = 20;
constexpr int kMaxCorpora = 64;
constexpr absl::Duration kMaxTtl = absl::Hours(24 * 3653);  // ten years
constexpr absl::Duration kMaxDeadline = absl::Hours(24 * 30);

// Adds a finding unless min <= value <= max; false for NaN too.
template <typename T>
void CheckRange(Findings& findings, absl::string_view field, T value, T min, T max,
                absl::string_view reason = kInvalidField) {
  if (value >= min && value <= max) return;
  findings.Add(reason, field, absl::StrCat("is ", value, ", expected ", min, " to ", max));
}

// The same for a number of which 0, the wire's value of a field that is not set, means the default.
template <typename T>
void CheckCount(Findings& findings, absl::string_view field, T value, T max) {
  if (value >= 0 && value <= max) return;
  findings.Add(kInvalidField, field,
               absl::StrCat("is ", value, ", expected 1 to ", max, ", or none for the default"));
}

template <typename Enum>
void CheckEnum(Findings& findings, absl::string_view field, Enum value, bool known) {
  if (!known)
    findings.Add(
        kInvalidField, field,
        absl::StrCat("is ", static_cast<int>(value), ", expected a number that has a name"));
}

void CheckCorpus(const v1::CorpusSpec& corpus, const std::string& field, Findings& findings) {
  if (!std::isfinite(corpus.weight()) || corpus.weight() < 0)
    findings.Add(kInvalidField, field + ".weight",
                 absl::StrCat("is ", corpus.weight(), ", expected a number of at least 0"));
  if (absl::EndsWith(corpus.uri(), ".jsonl") && corpus.text_field().empty())
    findings.Add(kInvalidField, field + ".text_field",
                 "is empty, expected the field of each JSON line that holds the text");
}

bool IsCare(v1::RankAllocation allocation) {
  return allocation == v1::RANK_ALLOCATION_CARE || allocation == v1::RANK_ALLOCATION_CARE_CODE;
}

// " with preconditioner identity".
std::string WithPreconditioner(const v1::FactorizationSpec& spec) {
  return absl::StrCat(" with preconditioner ", ShortEnumName(spec.preconditioner()));
}

// Settings that each are right and together are not.
void CheckTogether(const v1::FactorizationSpec& spec, Findings& findings) {
  const bool fisher = IsFisher(spec);
  const bool care = IsCare(spec.allocation());
  const bool joint = spec.latent() == v1::LATENT_LAYOUT_JOINT;
  if (!fisher && spec.allocation() == v1::RANK_ALLOCATION_GLOBAL)
    findings.Add(kInvalidField, "spec.factorization.allocation",
                 absl::StrCat("is global, expected uniform, care, care-code or profile",
                              WithPreconditioner(spec)));
  if (joint && !fisher)
    findings.Add(kInvalidField, "spec.factorization.latent",
                 absl::StrCat("is joint, expected separate", WithPreconditioner(spec)));
  if (joint && care)
    findings.Add(kInvalidField, "spec.factorization.allocation",
                 absl::StrCat("is ", ShortEnumName(spec.allocation()),
                              ", expected global or uniform with a joint latent"));
  if (!fisher && spec.has_sink_weight())
    findings.Add(
        kInvalidField, "spec.factorization.sink_weight",
        absl::StrCat("is ", spec.sink_weight(), ", expected none", WithPreconditioner(spec)));
  if (!fisher && spec.anchored())
    findings.Add(kInvalidField, "spec.factorization.anchored",
                 absl::StrCat("is true, expected false", WithPreconditioner(spec)));
  if (spec.rank_multiple() > 1 && (care || spec.allocation() == v1::RANK_ALLOCATION_PROFILE))
    findings.Add(kInvalidField, "spec.factorization.rank_multiple",
                 absl::StrCat("is ", spec.rank_multiple(), ", expected 1 with allocation ",
                              ShortEnumName(spec.allocation())));
}

void CheckProfileIsWanted(const v1::FactorizationSpec& spec, Findings& findings) {
  const bool wanted = spec.allocation() == v1::RANK_ALLOCATION_PROFILE;
  const bool given = spec.rank_profile().layers_size() > 0;
  if (wanted && !given)
    findings.Add("RANK_OUT_OF_RANGE", "spec.factorization.rank_profile",
                 "is empty, expected ranks for every layer with allocation profile");
  if (wanted || !given) return;
  const std::string allocation = ShortEnumName(spec.allocation());
  findings.Add(kInvalidField, "spec.factorization.allocation",
               absl::StrCat("is ", allocation.empty() ? "missing" : allocation,
                            ", expected profile with a rank profile"));
}

// What every method reads.
void CheckFactorization(const v1::FactorizationSpec& spec, Findings& findings) {
  CheckEnum(findings, "spec.factorization.preconditioner", spec.preconditioner(),
            v1::Preconditioner_IsValid(spec.preconditioner()));
  CheckEnum(findings, "spec.factorization.allocation", spec.allocation(),
            v1::RankAllocation_IsValid(spec.allocation()));
  CheckRange(findings, "spec.factorization.damping", spec.damping(), 0.0, kMaxDamping);
  CheckRange(findings, "spec.factorization.alpha", spec.alpha(), 0.0, kMaxAlpha);
  CheckEnum(findings, "spec.factorization.latent", spec.latent(),
            v1::LatentLayout_IsValid(spec.latent()));
  CheckRange(findings, "spec.factorization.sink_weight", spec.sink_weight(), 0.0, 1.0);
  CheckCount(findings, "spec.factorization.rank_multiple", spec.rank_multiple(), kMaxRankMultiple);
}

// A share of the cache, or the perplexity that decides it.
void CheckBudget(const v1::JobSpec& spec, Findings& findings) {
  const double budget = spec.budget().kv_budget();
  const double ratio = spec.budget().max_perplexity_ratio();
  if (ratio == 0) {
    if (budget > 0 && budget <= 1) return;
    findings.Add("BUDGET_OUT_OF_RANGE", "spec.budget.kv_budget",
                 absl::StrCat("is ", budget == 0 ? "missing" : absl::StrCat(budget),
                              ", expected a number in (0, 1]"));
    return;
  }
  if (!(ratio > 1 && std::isfinite(ratio)))
    findings.Add("BUDGET_OUT_OF_RANGE", "spec.budget.max_perplexity_ratio",
                 absl::StrCat("is ", ratio, ", expected a number above 1"));
  if (budget != 0)
    findings.Add("BUDGET_OUT_OF_RANGE", "spec.budget.kv_budget",
                 absl::StrCat("is ", budget, ", expected none beside max_perplexity_ratio"));
  const v1::FactorizationSpec& factorization = spec.factorization();
  if (factorization.anchored())
    findings.Add(kInvalidField, "spec.factorization.anchored",
                 "is true, expected false beside max_perplexity_ratio: the search measures "
                 "factorisations without it");
  const bool profile = factorization.rank_profile().layers_size() > 0;
  if (IsFisher(factorization) && !profile) return;
  findings.Add(kInvalidField, "spec.budget.max_perplexity_ratio",
               absl::StrCat("is ", ratio, ", expected none",
                            profile ? " with a rank profile" : WithPreconditioner(factorization),
                            ": the search follows the loss that fisher predicts"));
}

void CheckHealing(const v1::JobSpec& spec, Findings& findings) {
  if (!spec.has_healing()) return;
  const v1::HealingSpec& healing = spec.healing();
  CheckCount(findings, "spec.healing.tokens", healing.tokens(), kMaxHealingTokens);
  CheckCount(findings, "spec.healing.sequence_length", healing.sequence_length(),
             kMaxSequenceLength);
  if (healing.sequence_length() == 1)
    findings.Add(kInvalidField, "spec.healing.sequence_length", "is 1, expected at least 2");
  CheckCount(findings, "spec.healing.batch_sequences", healing.batch_sequences(), kMaxSequences);
  CheckRange(findings, "spec.healing.learning_rate", healing.learning_rate(), 0.0, 1.0);
  CheckRange(findings, "spec.healing.warmup_steps", healing.warmup_steps(), 0, kMaxSequences);
  CheckRange(findings, "spec.healing.weight_decay", healing.weight_decay(), 0.0, 1.0);
  CheckRange(findings, "spec.healing.attention_loss", healing.attention_loss(), 0.0, 1000.0);
  CheckCount(findings, "spec.healing.evaluate_every", healing.evaluate_every(), kMaxSequences);
  CheckEnum(findings, "spec.healing.weights", healing.weights(),
            v1::HealedWeights_IsValid(healing.weights()));
  CheckEnum(findings, "spec.healing.optimizer", healing.optimizer(),
            v1::HealingOptimizer_IsValid(healing.optimizer()));
  CheckRange(findings, "spec.healing.corpora", healing.corpora_size(), 0, kMaxCorpora);
  for (int i = 0; i < std::min(healing.corpora_size(), kMaxCorpora); ++i)
    CheckCorpus(healing.corpora(i), absl::StrCat("spec.healing.corpora[", i, "]"), findings);
}

void CheckSelector(const v1::JobSpec& spec, Findings& findings) {
  constexpr int kMaxSelectors = 16;
  constexpr char kField[] = "spec.worker_selector";
  if (spec.worker_selector_size() > kMaxSelectors)
    findings.Add(kInvalidField, kField,
                 absl::StrCat("has ", spec.worker_selector_size(), " entries, expected at most ",
                              kMaxSelectors));
  for (const auto& [key, value] : spec.worker_selector()) {
    if (const std::string problem = LabelProblem(key, value); !problem.empty())
      findings.Add(kInvalidField, kField, problem);
  }
}

void CheckTtl(const v1::JobSpec& spec, Findings& findings) {
  const absl::Duration ttl = FromProto(spec.ttl());
  if (spec.has_ttl() && (ttl < absl::Seconds(1) || ttl > kMaxTtl))
    findings.Add(kInvalidField, "spec.ttl",
                 absl::StrCat("is ", absl::FormatDuration(ttl), ", expected 1s to ",
                              absl::FormatDuration(kMaxTtl)));
}

void CheckDeadline(bool given, const google::protobuf::Duration& value, absl::string_view field,
                   Findings& findings) {
  if (!given) return;
  const absl::Duration deadline = FromProto(value);
  if (deadline < absl::Seconds(1))
    findings.Add(kInvalidField, field,
                 absl::StrCat("is ", absl::FormatDuration(deadline), ", expected at least 1s"));
  if (deadline > kMaxDeadline)
    findings.Add("DEADLINE_TOO_LONG", field,
                 absl::StrCat("is ", absl::FormatDuration(deadline), ", expected at most ",
                              absl::FormatDuration(kMaxDeadline)));
}

}  // namespace

void Findings::Add(absl::string_view reason, absl::string_view field,
                   absl::string_view description) {
  if (violations_.empty()) reason_ = std::string(reason);
  // A reply has little room, and nobody reads the hundredth wrong rank.
  if (violations_.size() < kMaxFindings)
    violations_.push_back({std::string(field), std::string(description.substr(0, 500))});
}

absl::Status Findings::ToStatus() const {
  return empty() ? absl::OkStatus() : MakeFieldError(reason_, violations_);
}

bool IsFisher(const v1::FactorizationSpec& spec) {
  return spec.preconditioner() == v1::PRECONDITIONER_UNSPECIFIED ||
         spec.preconditioner() == v1::PRECONDITIONER_FISHER;
}

absl::Status CheckMethod(const v1::JobSpec& spec) {
  if (spec.method() != v1::METHOD_FULL_MLA) return absl::OkStatus();
  return MakeError(
      absl::StatusCode::kUnimplemented, "METHOD_NOT_SUPPORTED",
      absl::StrCat("method is ", ShortEnumName(spec.method()),
                   ", which is not available in this version, expected kv-latent or low-rank"),
      {{"method", v1::Method_Name(spec.method())}});
}

void CheckFields(const v1::JobSpec& spec, Findings& findings) {
  CheckEnum(findings, "spec.method", spec.method(), v1::Method_IsValid(spec.method()));
  const bool low_rank = spec.method() == v1::METHOD_LOW_RANK;
  if (low_rank) {
    CheckLowRank(spec, findings);
  } else {
    CheckNoLowRank(spec, findings);
    CheckBudget(spec, findings);
  }
  CheckFactorization(spec.factorization(), findings);
  if (!low_rank) {
    CheckTogether(spec.factorization(), findings);
    CheckProfileIsWanted(spec.factorization(), findings);
  }
  const v1::CalibrationSpec& calibration = spec.calibration();
  CheckRange(findings, "spec.calibration.corpora", calibration.corpora_size(), 1, kMaxCorpora);
  for (int i = 0; i < std::min(calibration.corpora_size(), kMaxCorpora); ++i)
    CheckCorpus(calibration.corpora(i), absl::StrCat("spec.calibration.corpora[", i, "]"),
                findings);
  CheckCount(findings, "spec.calibration.sequences", calibration.sequences(), kMaxSequences);
  if (!IsFisher(spec.factorization()) && calibration.labels() == v1::FISHER_LABELS_TEXT)
    findings.Add(kInvalidField, "spec.calibration.labels",
                 absl::StrCat("is text, expected none", WithPreconditioner(spec.factorization())));
  CheckEnum(findings, "spec.calibration.labels", calibration.labels(),
            v1::FisherLabels_IsValid(calibration.labels()));
  CheckCount(findings, "spec.calibration.sequence_length", calibration.sequence_length(),
             kMaxSequenceLength);
  if (calibration.sequence_length() == 1)
    findings.Add(kInvalidField, "spec.calibration.sequence_length", "is 1, expected at least 2");
  CheckCorpus(spec.evaluation().corpus(), "spec.evaluation.corpus", findings);
  CheckCount(findings, "spec.evaluation.windows", spec.evaluation().windows(), kMaxSequences);
  CheckCount(findings, "spec.evaluation.window_length", spec.evaluation().window_length(),
             kMaxSequenceLength);
  const double gate = spec.evaluation().quality_gate();
  if (gate != 0 && !(gate >= 1 && std::isfinite(gate)))
    findings.Add(kInvalidField, "spec.evaluation.quality_gate",
                 absl::StrCat("is ", gate, ", expected a perplexity ratio of at least 1"));
  CheckHealing(spec, findings);
  if (spec.evaluation().window_length() == 1)
    findings.Add(kInvalidField, "spec.evaluation.window_length", "is 1, expected at least 2");
  CheckEnum(findings, "spec.output.dtype", spec.output().dtype(),
            v1::DataType_IsValid(spec.output().dtype()));
  CheckEnum(findings, "spec.dtype", spec.dtype(), v1::DataType_IsValid(spec.dtype()));
  if (spec.dtype() == v1::DATA_TYPE_FLOAT16)
    findings.Add(kInvalidField, "spec.dtype",
                 "is float16, expected bfloat16 or float32: float16 is for output only");
  if (const absl::Status device = CheckDeviceName(spec.device()); !device.ok())
    findings.Add(kInvalidField, "spec.device", device.message());
  CheckSelector(spec, findings);
  CheckEnum(findings, "spec.priority", spec.priority(), v1::Priority_IsValid(spec.priority()));
  CheckCount(findings, "spec.threads", spec.threads(), kMaxThreads);
  CheckDeadline(spec.has_deadline(), spec.deadline(), "spec.deadline", findings);
  CheckDeadline(spec.has_queue_deadline(), spec.queue_deadline(), "spec.queue_deadline", findings);
  CheckTtl(spec, findings);
  CheckDeadline(spec.has_run_deadline(), spec.run_deadline(), "spec.run_deadline", findings);
}

namespace {

// One latent with the Fisher information, unless ranks or CARE's allocations are
// for two.
v1::LatentLayout DefaultLayout(const v1::FactorizationSpec& spec) {
  const bool joint =
      spec.rank_profile().layers_size() > 0
          ? spec.rank_profile().layers(0).rank_kv() > 0
          : spec.preconditioner() == v1::PRECONDITIONER_FISHER && !IsCare(spec.allocation());
  return joint ? v1::LATENT_LAYOUT_JOINT : v1::LATENT_LAYOUT_SEPARATE;
}

void FillFactorization(v1::FactorizationSpec& spec) {
  if (spec.preconditioner() == v1::PRECONDITIONER_UNSPECIFIED)
    spec.set_preconditioner(v1::PRECONDITIONER_FISHER);
  const bool fisher = spec.preconditioner() == v1::PRECONDITIONER_FISHER;
  if (spec.allocation() == v1::RANK_ALLOCATION_UNSPECIFIED)
    spec.set_allocation(fisher ? v1::RANK_ALLOCATION_GLOBAL : v1::RANK_ALLOCATION_UNIFORM);
  if (spec.latent() == v1::LATENT_LAYOUT_UNSPECIFIED) spec.set_latent(DefaultLayout(spec));
  if (!spec.has_damping()) spec.set_damping(kDefaultDamping);
  if (!spec.has_alpha()) spec.set_alpha(kDefaultAlpha);
  // Refused without Fisher: a job's specification can be submitted again.
  if (fisher && !spec.has_sink_weight()) spec.set_sink_weight(kDefaultSinkWeight);
  if (spec.rank_multiple() == 0) spec.set_rank_multiple(1);
}

void FillHealing(v1::HealingSpec& spec, int32_t sequence_length) {
  if (spec.tokens() == 0) spec.set_tokens(kDefaultHealingTokens);
  if (spec.sequence_length() == 0) spec.set_sequence_length(sequence_length);
  if (spec.batch_sequences() == 0) spec.set_batch_sequences(kDefaultHealingBatch);
  if (!spec.has_warmup_steps()) spec.set_warmup_steps(kDefaultHealingWarmupSteps);
  if (spec.evaluate_every() == 0) spec.set_evaluate_every(kDefaultHealingEvaluateEvery);
  if (spec.weights() == v1::HEALED_WEIGHTS_UNSPECIFIED)
    spec.set_weights(v1::HEALED_WEIGHTS_ATTENTION);
  if (spec.optimizer() == v1::HEALING_OPTIMIZER_UNSPECIFIED)
    spec.set_optimizer(v1::HEALING_OPTIMIZER_MUON);
  for (v1::CorpusSpec& corpus : *spec.mutable_corpora())
    if (corpus.weight() == 0) corpus.set_weight(1);
}

}  // namespace

v1::JobSpec WithDefaults(const v1::JobSpec& spec, int64_t max_positions) {
  v1::JobSpec full = spec;
  const auto length = [&](int32_t fallback) {
    return static_cast<int32_t>(std::min<int64_t>(fallback, std::max<int64_t>(2, max_positions)));
  };
  if (full.method() == v1::METHOD_UNSPECIFIED) full.set_method(v1::METHOD_KV_LATENT);
  if (full.method() == v1::METHOD_LOW_RANK) {
    FillLowRank(full);
  } else {
    FillFactorization(*full.mutable_factorization());
  }
  v1::CalibrationSpec& calibration = *full.mutable_calibration();
  for (v1::CorpusSpec& corpus : *calibration.mutable_corpora())
    if (corpus.weight() == 0) corpus.set_weight(1);
  if (calibration.labels() == v1::FISHER_LABELS_UNSPECIFIED)
    calibration.set_labels(v1::FISHER_LABELS_SAMPLED);
  if (calibration.sequences() == 0) calibration.set_sequences(kDefaultCalibrationSequences);
  if (calibration.sequence_length() == 0)
    calibration.set_sequence_length(length(kDefaultSequenceLength));
  v1::EvaluationSpec& evaluation = *full.mutable_evaluation();
  if (evaluation.windows() == 0) evaluation.set_windows(kDefaultEvaluationWindows);
  if (evaluation.window_length() == 0) evaluation.set_window_length(length(kDefaultWindowLength));
  if (full.has_healing())
    FillHealing(*full.mutable_healing(), length(kDefaultHealingSequenceLength));
  if (full.dtype() == v1::DATA_TYPE_UNSPECIFIED) full.set_dtype(v1::DATA_TYPE_BFLOAT16);
  if (full.device().empty()) full.set_device("auto");
  if (full.priority() == v1::PRIORITY_UNSPECIFIED) full.set_priority(v1::PRIORITY_NORMAL);
  return full;
}

}  // namespace latentforge::service
