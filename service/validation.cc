#include "service/validation.h"

#include <limits.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/context_warning.h"
#include "checkpoint/estimate.h"
#include "checkpoint/kv_budget.h"
#include "checkpoint/open_error.h"
#include "checkpoint/tokenizer_file.h"
#include "proto/enum_text.h"
#include "service/text_check.h"

namespace latentforge::service {
namespace {

namespace fs = std::filesystem;

const char* ReasonOfTokenizer(const absl::Status& status) {
  return absl::IsNotFound(status) || absl::IsPermissionDenied(status) ? "SOURCE_NOT_READABLE"
                                                                      : "MALFORMED_TOKENIZER";
}

// What no file system of Linux takes; empty when there is none.
std::string LengthProblem(const fs::path& path) {
  if (path.native().size() >= PATH_MAX)
    return absl::StrCat("has a path of ", path.native().size(), " bytes, expected at most ",
                        PATH_MAX - 1);
  for (const fs::path& name : path) {
    if (name.native().size() > NAME_MAX)
      return absl::StrCat("has a name of ", name.native().size(), " bytes in its path, \"",
                          name.native().substr(0, 20), "...\", expected at most ", NAME_MAX);
  }
  return "";
}

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

bool IsDangling(const fs::path& path) {
  std::error_code error;
  return fs::is_symlink(fs::symlink_status(path, error)) && !fs::exists(path, error);
}

// Why no folder can be made at `path`: something on the way to it, or there, is
// neither a folder nor absent. Empty when nothing is.
std::string ObstacleTo(const fs::path& path) {
  std::error_code error;
  for (fs::path part = path; part.has_relative_path(); part = part.parent_path()) {
    const std::string place =
        part == path ? path.string()
                     : absl::StrCat(path.string(), " lies beneath ", part.string(), ", which");
    if (IsDangling(part))
      return absl::StrCat(place, " is a symbolic link to ", fs::read_symlink(part, error).string(),
                          ", which does not exist");
    const fs::file_status status = fs::status(part, error);
    if (!fs::exists(status)) continue;
    return fs::is_directory(status) ? "" : absl::StrCat(place, " is not a folder");
  }
  return "";
}

// True when `path` is `folder` or lies in it; both resolved.
bool IsWithin(const fs::path& path, const fs::path& folder) {
  return std::mismatch(folder.begin(), folder.end(), path.begin(), path.end()).first ==
         folder.end();
}

// Why an artifact of `source` does not belong at `output`; empty when it may go
// there. An empty `source` is one that is wrong itself.
std::string OverlapOf(const fs::path& output, const fs::path& source) {
  const auto text = [&](const char* relation) {
    return absl::StrCat(output.string(), relation, source.string(), ", expected a folder apart");
  };
  if (source.empty()) return "";
  if (output == source) return text(" is the same folder as the source ");
  if (IsWithin(output, source)) return text(" lies inside the source ");
  if (IsWithin(source, output)) return text(" holds the source ");
  return "";
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

std::optional<fs::path> FileSpecChecker::Resolve(const std::string& uri, absl::string_view field,
                                                 Findings& findings) const {
  const absl::StatusOr<fs::path> path = PathFromUri(uri);
  if (!path.ok()) {
    findings.Add("BAD_URI", field, path.status().message());
    return std::nullopt;
  }
  if (const std::string problem = LengthProblem(*path); !problem.empty()) {
    findings.Add(kInvalidField, field, problem);
    return std::nullopt;
  }
  absl::StatusOr<fs::path> resolved = ResolveBeneath(*path, allowed_roots_);
  if (!resolved.ok()) {
    findings.Add("PATH_NOT_ALLOWED", field, resolved.status().message());
    return std::nullopt;
  }
  return *std::move(resolved);
}

std::optional<checkpoint::ModelConfig> FileSpecChecker::CheckSource(v1::JobSpec& spec,
                                                                    Findings& findings) const {
  constexpr char kField[] = "spec.source.uri";
  const std::optional<fs::path> dir = Resolve(spec.source().uri(), kField, findings);
  if (!dir.has_value()) return std::nullopt;
  const absl::StatusOr<checkpoint::Checkpoint> opened = checkpoint::Checkpoint::Open(*dir);
  if (!opened.ok()) {
    findings.Add(checkpoint::ReasonOfOpenError(opened.status()), kField, opened.status().message());
    return std::nullopt;
  }
  if (opened->config().converted()) {
    findings.Add("ALREADY_CONVERTED", kField,
                 absl::StrCat(dir->string(), " is already converted by latentforge"));
    return std::nullopt;
  }
  // Beside other findings: the rest of the checkpoint is fine.
  if (const absl::Status tokenizer = checkpoint::CheckTokenizerFile(*dir); !tokenizer.ok())
    findings.Add(ReasonOfTokenizer(tokenizer), kField, tokenizer.message());
  spec.mutable_source()->set_uri(UriFromPath(*dir));
  return opened->config();
}

void FileSpecChecker::CheckCorpusFile(v1::CorpusSpec& corpus, const std::string& field,
                                      Findings& findings) const {
  const std::optional<fs::path> path = Resolve(corpus.uri(), field + ".uri", findings);
  if (!path.has_value()) return;
  std::error_code error;
  const bool regular = fs::is_regular_file(*path, error);
  if (!regular || access(path->c_str(), R_OK) != 0) {
    const absl::string_view problem = !fs::exists(*path, error) ? "does not exist"
                                      : !regular                ? "is not a regular file"
                                                                : "cannot be read";
    findings.Add("CORPUS_NOT_READABLE", field + ".uri", absl::StrCat(path->string(), " ", problem));
    return;
  }
  if (fs::file_size(*path, error) == 0 && !error)
    findings.Add("MALFORMED_CORPUS", field + ".uri", absl::StrCat(path->string(), " is empty"));
  CheckIsText(*path, field + ".uri", findings);
  corpus.set_uri(UriFromPath(*path));
}

fs::path FileSpecChecker::CheckOutput(v1::JobSpec& spec, const fs::path& source,
                                      Findings& findings) const {
  constexpr char kField[] = "spec.output.uri";
  const std::optional<fs::path> path = Resolve(spec.output().uri(), kField, findings);
  if (!path.has_value()) return {};
  std::error_code error;
  if (const std::string overlap = OverlapOf(*path, source); !overlap.empty()) {
    findings.Add("OUTPUT_OVERLAPS_SOURCE", kField, overlap);
  } else if (const std::string obstacle = ObstacleTo(*path); !obstacle.empty()) {
    findings.Add("OUTPUT_NOT_WRITABLE", kField, obstacle);
  } else if (fs::exists(*path, error)) {
    const bool empty = fs::is_empty(*path, error);
    if (error)
      findings.Add("OUTPUT_NOT_EMPTY", kField,
                   absl::StrCat(path->string(), " cannot be read: ", error.message()));
    else if (!empty)
      findings.Add("OUTPUT_NOT_EMPTY", kField,
                   absl::StrCat(path->string(), " exists and is not empty"));
  }
  spec.mutable_output()->set_uri(UriFromPath(*path));
  return *path;
}

absl::StatusOr<CheckedSpec> FileSpecChecker::Check(const v1::JobSpec& spec) const {
  LF_RETURN_IF_ERROR(CheckMethod(spec));
  Findings findings;
  CheckFields(spec, findings);
  CheckedSpec checked;
  v1::JobSpec resolved = spec;
  const std::optional<checkpoint::ModelConfig> config = CheckSource(resolved, findings);
  for (int i = 0; i < resolved.calibration().corpora_size(); ++i)
    CheckCorpusFile(*resolved.mutable_calibration()->mutable_corpora(i),
                    absl::StrCat("spec.calibration.corpora[", i, "]"), findings);
  if (resolved.has_healing()) {
    v1::HealingSpec& healing = *resolved.mutable_healing();
    for (int i = 0; i < healing.corpora_size(); ++i)
      CheckCorpusFile(*healing.mutable_corpora(i), absl::StrCat("spec.healing.corpora[", i, "]"),
                      findings);
  }
  if (!resolved.evaluation().corpus().uri().empty())
    CheckCorpusFile(*resolved.mutable_evaluation()->mutable_corpus(), "spec.evaluation.corpus",
                    findings);
  // A source that passed has a URI that was made from its resolved path.
  const fs::path source = config.has_value() ? *PathFromUri(resolved.source().uri()) : fs::path();
  checked.output_path = CheckOutput(resolved, source, findings).string();
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
