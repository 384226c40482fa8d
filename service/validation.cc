#include "service/validation.h"

#include <unistd.h>

#include <array>
#include <filesystem>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "checkpoint/context_warning.h"
#include "checkpoint/estimate.h"
#include "checkpoint/kv_budget.h"
#include "proto/enum_text.h"
#include "service/path_checks.h"
#include "service/text_check.h"

namespace latentforge::service {
namespace {

namespace fs = std::filesystem;

checkpoint::DType ToDType(v1::DataType dtype, checkpoint::DType fallback) {
  switch (dtype) {
    case v1::DATA_TYPE_FLOAT32:
      return checkpoint::DType::kF32;
    case v1::DATA_TYPE_BFLOAT16:
      return checkpoint::DType::kBF16;
    case v1::DATA_TYPE_FLOAT16:
      return checkpoint::DType::kF16;
    default:
      return fallback;
  }
}

checkpoint::StatisticsKind StatisticsOf(const v1::JobSpec& spec) {
  if (spec.method() == v1::METHOD_LOW_RANK) return checkpoint::StatisticsKind::kLinear;
  switch (spec.factorization().preconditioner()) {
    case v1::PRECONDITIONER_COVARIANCE:
      return checkpoint::StatisticsKind::kCross;
    case v1::PRECONDITIONER_DIAGONAL_HESSIAN:
      return checkpoint::StatisticsKind::kCovariance;
    case v1::PRECONDITIONER_FISHER:
      return checkpoint::StatisticsKind::kFisher;
    default:
      return checkpoint::StatisticsKind::kOutputs;
  }
}

absl::StatusOr<v1::Estimate> EstimateOf(const v1::JobSpec& spec,
                                        const checkpoint::ModelConfig& config) {
  checkpoint::EstimateSettings settings;
  // A search may end with the whole cache.
  settings.kv_budget = spec.budget().max_perplexity_ratio() > 0 ? 1.0 : spec.budget().kv_budget();
  settings.healing_tokens = spec.healing().tokens();
  settings.healing_attention = spec.healing().weights() == v1::HEALED_WEIGHTS_ATTENTION;
  settings.healing_batch_tokens =
      int64_t{spec.healing().sequence_length()} * spec.healing().batch_sequences();
  settings.calibration_sequences = spec.calibration().sequences();
  settings.sequence_length = spec.calibration().sequence_length();
  settings.evaluation_windows = spec.evaluation().windows();
  settings.window_length = spec.evaluation().window_length();
  settings.compute_dtype = ToDType(spec.dtype(), checkpoint::DType::kBF16);
  settings.weight_dtype = ToDType(spec.output().dtype(), config.dtype);
  settings.threads = spec.threads() > 0 ? spec.threads() : sysconf(_SC_NPROCESSORS_ONLN);
  settings.statistics = StatisticsOf(spec);
  const v1::Preconditioner preconditioner = spec.factorization().preconditioner();
  const bool low_rank = spec.method() == v1::METHOD_LOW_RANK;
  settings.inner_inverse = low_rank && preconditioner == v1::PRECONDITIONER_DIAGONAL_HESSIAN;
  settings.inner_covariance =
      settings.inner_inverse || (low_rank && preconditioner == v1::PRECONDITIONER_COVARIANCE);
  settings.gradients = low_rank && preconditioner == v1::PRECONDITIONER_FISHER;
  settings.parameter_ratio = spec.budget().parameter_ratio();
  settings.anchored = spec.factorization().anchored();
  settings.joint = spec.factorization().latent() == v1::LATENT_LAYOUT_JOINT;
  LF_ASSIGN_OR_RETURN(const checkpoint::Estimate estimate,
                      checkpoint::EstimateConversion(config, settings));
  v1::Estimate proto;
  proto.set_peak_memory_bytes(estimate.peak_memory_bytes);
  proto.set_seconds(estimate.seconds);
  proto.set_output_bytes(estimate.output_bytes);
  proto.set_kv_bytes_per_token_base(estimate.kv_bytes_per_token_base);
  proto.set_kv_bytes_per_token_converted(estimate.kv_bytes_per_token_converted);
  return proto;
}

// Lengths of texts, by the field that sets them.
struct TextLength {
  const char* field;
  const char* what;
  int64_t tokens;
};

std::array<TextLength, 3> TextLengths(const v1::JobSpec& spec) {
  return {
      {{"spec.calibration.sequence_length", "calibration sequences",
        spec.calibration().sequence_length()},
       {"spec.evaluation.window_length", "evaluation windows", spec.evaluation().window_length()},
       {"spec.healing.sequence_length", "healing sequences", spec.healing().sequence_length()}}};
}

void CheckContext(const v1::JobSpec& spec, const checkpoint::ModelConfig& config,
                  Findings& findings) {
  for (const TextLength& text : TextLengths(spec)) {
    const absl::Status fits = checkpoint::CheckContext(config, text.what, text.tokens);
    if (!fits.ok()) findings.Add(kInvalidField, text.field, fits.message());
  }
}

// What a worker would warn of, before hours of work.
void AddWarnings(const v1::JobSpec& spec, const checkpoint::ModelConfig& config,
                 v1::Estimate& estimate) {
  for (const TextLength& text : TextLengths(spec)) {
    const std::string warning = checkpoint::ContextWarning(config, text.what, text.tokens);
    if (!warning.empty()) estimate.add_warnings(warning);
  }
}

struct Latents {
  int64_t width = 0;
  bool joint = false;
};

void CheckLayerRank(const v1::LayerRank& layer, const Latents& latents, const std::string& field,
                    Findings& findings) {
  const auto check = [&](const char* name, int64_t rank, int64_t most) {
    if (most > 0 ? rank >= 1 && rank <= most : rank == 0) return;
    findings.Add("RANK_OUT_OF_RANGE", field + name,
                 most > 0
                     ? absl::StrCat("is ", rank, ", expected 1 to the projection's width ", most)
                     : absl::StrCat("is ", rank, ", expected none with ",
                                    latents.joint ? "a joint latent" : "separate latents"));
  };
  check(".rank_k", layer.rank_k(), latents.joint ? 0 : latents.width);
  check(".rank_v", layer.rank_v(), latents.joint ? 0 : latents.width);
  check(".rank_kv", layer.rank_kv(), latents.joint ? 2 * latents.width : 0);
}

}  // namespace

void CheckRankProfile(const v1::JobSpec& spec, const checkpoint::ModelConfig& config,
                      Findings& findings) {
  const auto& layers = spec.factorization().rank_profile().layers();
  if (layers.empty()) return;
  constexpr char kField[] = "spec.factorization.rank_profile.layers";
  if (layers.size() != config.num_layers) {
    findings.Add("RANK_OUT_OF_RANGE", kField,
                 absl::StrCat("has ", layers.size(), " entries, the model has ", config.num_layers,
                              " layers"));
    return;
  }
  // All layers have one latent, or all have two.
  const bool joint =
      spec.factorization().latent() == v1::LATENT_LAYOUT_JOINT ||
      (spec.factorization().latent() == v1::LATENT_LAYOUT_UNSPECIFIED && layers[0].rank_kv() > 0);
  // A layout that is asked for is checked with the fields.
  if (joint && spec.factorization().latent() != v1::LATENT_LAYOUT_JOINT &&
      !IsFisher(spec.factorization()))
    findings.Add(
        "INVALID_FIELD", absl::StrCat(kField, "[0].rank_kv"),
        absl::StrCat("is ", layers[0].rank_kv(), ", expected rank_k and rank_v with ",
                     "preconditioner ", ShortEnumName(spec.factorization().preconditioner())));
  double total = 0;
  for (int i = 0; i < layers.size(); ++i) {
    const v1::LayerRank& layer = layers[i];
    const std::string field = absl::StrCat(kField, "[", i, "]");
    if (layer.layer() != i)
      findings.Add("RANK_OUT_OF_RANGE", field + ".layer",
                   absl::StrCat("is ", layer.layer(), ", expected ", i));
    CheckLayerRank(layer, {config.kv_width(), joint}, field, findings);
    total += layer.rank_k() + layer.rank_v() + layer.rank_kv();
  }
  const double share = total / static_cast<double>(checkpoint::KvValuesPerToken(config));
  // The share is a quotient of integers: one rounding error must not refuse it.
  const double budget = spec.budget().kv_budget();
  if (budget > 0 && share > budget * (1 + 1e-12))
    findings.Add("BUDGET_OUT_OF_RANGE", "spec.budget.kv_budget",
                 absl::StrCat("is ", budget, ", the rank profile needs ", share));
}

void CheckRanksFit(const v1::JobSpec& spec, const checkpoint::ModelConfig& config,
                   Findings& findings) {
  const v1::FactorizationSpec& factorization = spec.factorization();
  const double budget = spec.budget().kv_budget();
  if (factorization.allocation() == v1::RANK_ALLOCATION_PROFILE || budget == 0) return;
  const absl::Status fits = checkpoint::CheckRanksFit(
      config, budget,
      {.joint = factorization.latent() == v1::LATENT_LAYOUT_JOINT,
       .uniform = factorization.allocation() != v1::RANK_ALLOCATION_GLOBAL,
       .multiple = factorization.rank_multiple()});
  if (fits.ok()) return;
  if (factorization.rank_multiple() > 1)
    findings.Add("RANK_OUT_OF_RANGE", "spec.factorization.rank_multiple", fits.message());
  else
    findings.Add("BUDGET_OUT_OF_RANGE", "spec.budget.kv_budget",
                 absl::StripPrefix(fits.message(), "KV budget "));
}

absl::StatusOr<CheckedSpec> FileSpecChecker::Check(const v1::JobSpec& spec,
                                                   const PathRoots& roots) const {
  LF_RETURN_IF_ERROR(CheckMethod(spec));
  Findings findings;
  const PathChecks paths(roots, findings);
  CheckFields(spec, findings);
  CheckedSpec checked;
  v1::JobSpec resolved = spec;
  const std::optional<checkpoint::ModelConfig> config = paths.CheckSource(resolved);
  for (int i = 0; i < resolved.calibration().corpora_size(); ++i)
    paths.CheckCorpus(*resolved.mutable_calibration()->mutable_corpora(i),
                      absl::StrCat("spec.calibration.corpora[", i, "]"));
  if (resolved.has_healing()) {
    v1::HealingSpec& healing = *resolved.mutable_healing();
    for (int i = 0; i < healing.corpora_size(); ++i)
      paths.CheckCorpus(*healing.mutable_corpora(i), absl::StrCat("spec.healing.corpora[", i, "]"));
  }
  if (!resolved.evaluation().corpus().uri().empty())
    paths.CheckCorpus(*resolved.mutable_evaluation()->mutable_corpus(), "spec.evaluation.corpus");
  // A source that passed has a URI that was made from its resolved path.
  const fs::path source = config.has_value() ? *PathFromUri(resolved.source().uri()) : fs::path();
  checked.output_path = paths.CheckOutput(resolved, source).string();
  if (config.has_value()) CheckRankProfile(resolved, *config, findings);
  LF_RETURN_IF_ERROR(findings.ToStatus());
  checked.spec = WithDefaults(resolved, config->max_position_embeddings);
  CheckRanksFit(checked.spec, *config, findings);
  CheckTextsSuffice(checked.spec, findings);
  CheckContext(checked.spec, *config, findings);
  LF_RETURN_IF_ERROR(findings.ToStatus());
  absl::StatusOr<v1::Estimate> estimate = EstimateOf(checked.spec, *config);
  if (!estimate.ok()) {
    findings.Add("BUDGET_OUT_OF_RANGE",
                 checked.spec.method() == v1::METHOD_LOW_RANK ? "spec.budget.parameter_ratio"
                                                              : "spec.budget.kv_budget",
                 estimate.status().message());
    return findings.ToStatus();
  }
  checked.estimate = *std::move(estimate);
  AddWarnings(checked.spec, *config, checked.estimate);
  return checked;
}

}  // namespace latentforge::service
