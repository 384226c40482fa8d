#include "client/spec_flags.h"

#include <unistd.h>

#include <cmath>
#include <iostream>
#include <map>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "client/draft_checks.h"
#include "client/enum_flag.h"
#include "client/error.h"
#include "client/field_text.h"
#include "client/rank_profile.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/duration.pb.h"

namespace latentforge::client {
namespace {

std::string ToUri(const std::string& path, const FileAccess& files) {
  if (absl::StrContains(path, "://") || absl::StartsWith(path, "file:")) return path;
  return UriFromPath((files.current_folder / path).lexically_normal());
}

// A report of 4,096 layers is far smaller.
constexpr int64_t kMaxRankProfileBytes = int64_t{16} << 20;

absl::StatusOr<std::string> ReadNamed(absl::string_view flag, const std::string& path,
                                      int64_t max_bytes, const FileAccess& files) {
  absl::StatusOr<std::string> text = files.read(path, max_bytes);
  if (!text.ok()) return Annotate(text.status(), flag);
  return text;
}

bool IsJsonLines(absl::string_view path) {
  return absl::EndsWith(path, ".jsonl") || absl::EndsWith(path, ".ndjson") ||
         absl::EndsWith(path, ".json");
}

using Corpora = google::protobuf::RepeatedPtrField<v1::CorpusSpec>;

// The text field goes to the JSON lines files, or to all when none is named so:
// plain text may stand beside JSON lines.
void ApplyTextField(const std::string& text_field, Corpora* corpora) {
  bool any_json = false;
  for (const v1::CorpusSpec& corpus : *corpora) any_json = any_json || IsJsonLines(corpus.uri());
  for (v1::CorpusSpec& corpus : *corpora) {
    if (!any_json || IsJsonLines(corpus.uri())) corpus.set_text_field(text_field);
  }
}

absl::Status AddCorpus(absl::string_view flag, absl::string_view text, const FileAccess& files,
                       Corpora* corpora) {
  LF_ASSIGN_OR_RETURN(const WeightedFile file, ParseWeightedFile(flag, text, files));
  v1::CorpusSpec* corpus = corpora->Add();
  corpus->set_uri(ToUri(file.path, files));
  corpus->set_weight(file.weight);
  return absl::OkStatus();
}

absl::Status ApplyCalibration(const SpecFlags& flags, const FileAccess& files,
                              v1::CalibrationSpec* calibration) {
  if (!flags.calibration.empty()) calibration->clear_corpora();
  for (const std::string& text : flags.calibration) {
    LF_RETURN_IF_ERROR(AddCorpus("--calibration", text, files, calibration->mutable_corpora()));
  }
  if (flags.calibration_text_field) {
    ApplyTextField(*flags.calibration_text_field, calibration->mutable_corpora());
  }
  if (flags.calibration_sequences) calibration->set_sequences(*flags.calibration_sequences);
  if (flags.sequence_length) calibration->set_sequence_length(*flags.sequence_length);
  if (flags.seed) calibration->set_seed(*flags.seed);
  return ApplyEnum(
      "--fisher-labels", flags.fisher_labels, v1::FisherLabels_descriptor(),
      [&](int value) { calibration->set_labels(static_cast<v1::FisherLabels>(value)); });
}

void ApplyEvaluation(const SpecFlags& flags, const FileAccess& files, v1::JobSpec* spec) {
  if (flags.evaluate) {
    spec->mutable_evaluation()->mutable_corpus()->set_uri(ToUri(*flags.evaluate, files));
  }
  if (flags.evaluate_text_field) {
    spec->mutable_evaluation()->mutable_corpus()->set_text_field(*flags.evaluate_text_field);
  }
  if (flags.evaluate_windows) spec->mutable_evaluation()->set_windows(*flags.evaluate_windows);
  if (flags.window_length) spec->mutable_evaluation()->set_window_length(*flags.window_length);
  if (flags.quality_gate) spec->mutable_evaluation()->set_quality_gate(*flags.quality_gate);
}

// Any of the flags asks for healing.
absl::Status ApplyHealing(const SpecFlags& flags, const FileAccess& files, v1::JobSpec* spec) {
  if (flags.heal) spec->mutable_healing();
  if (flags.heal_tokens) spec->mutable_healing()->set_tokens(*flags.heal_tokens);
  if (flags.heal_learning_rate) {
    spec->mutable_healing()->set_learning_rate(*flags.heal_learning_rate);
  }
  LF_RETURN_IF_ERROR(ApplyEnum(
      "--heal-weights", flags.heal_weights, v1::HealedWeights_descriptor(), [&](int value) {
        spec->mutable_healing()->set_weights(static_cast<v1::HealedWeights>(value));
      }));
  LF_RETURN_IF_ERROR(ApplyEnum(
      "--heal-optimizer", flags.heal_optimizer, v1::HealingOptimizer_descriptor(), [&](int value) {
        spec->mutable_healing()->set_optimizer(static_cast<v1::HealingOptimizer>(value));
      }));
  if (flags.heal_text.empty()) return absl::OkStatus();
  auto* corpora = spec->mutable_healing()->mutable_corpora();
  corpora->Clear();
  for (const std::string& text : flags.heal_text) {
    LF_RETURN_IF_ERROR(AddCorpus("--heal-text", text, files, corpora));
  }
  ApplyTextField(flags.calibration_text_field.value_or(""), corpora);
  return absl::OkStatus();
}

// The share of the cache, or what decides it: the flag replaces what the file says.
void ApplyBudget(const SpecFlags& flags, v1::JobSpec* spec) {
  if (flags.kv_budget) {
    spec->mutable_budget()->set_kv_budget(*flags.kv_budget);
    if (!flags.max_perplexity_ratio) spec->mutable_budget()->clear_max_perplexity_ratio();
  }
  if (flags.max_perplexity_ratio) {
    spec->mutable_budget()->set_max_perplexity_ratio(*flags.max_perplexity_ratio);
    if (!flags.kv_budget) spec->mutable_budget()->clear_kv_budget();
  }
}

absl::Status ApplyFactorization(const SpecFlags& flags, const FileAccess& files,
                                v1::FactorizationSpec* factorization) {
  LF_RETURN_IF_ERROR(ApplyEnum(
      "--preconditioner", flags.preconditioner, v1::Preconditioner_descriptor(), [&](int value) {
        factorization->set_preconditioner(static_cast<v1::Preconditioner>(value));
      }));
  LF_RETURN_IF_ERROR(ApplyEnum(
      "--allocation", flags.allocation, v1::RankAllocation_descriptor(),
      [&](int value) { factorization->set_allocation(static_cast<v1::RankAllocation>(value)); }));
  LF_RETURN_IF_ERROR(ApplyEnum(
      "--latent", flags.latent, v1::LatentLayout_descriptor(),
      [&](int value) { factorization->set_latent(static_cast<v1::LatentLayout>(value)); }));
  if (flags.sink_weight) factorization->set_sink_weight(*flags.sink_weight);
  if (flags.rank_multiple) factorization->set_rank_multiple(*flags.rank_multiple);
  if (flags.anchored) factorization->set_anchored(true);
  if (flags.damping) factorization->set_damping(*flags.damping);
  if (flags.alpha) factorization->set_alpha(*flags.alpha);
  if (!flags.rank_profile) return absl::OkStatus();
  if (flags.allocation && factorization->allocation() != v1::RANK_ALLOCATION_PROFILE) {
    return absl::InvalidArgumentError(
        absl::StrCat("--rank-profile goes with --allocation profile, not ", *flags.allocation));
  }
  LF_ASSIGN_OR_RETURN(const std::string text, ReadNamed("--rank-profile", *flags.rank_profile,
                                                        kMaxRankProfileBytes, files));
  LF_ASSIGN_OR_RETURN(
      *factorization->mutable_rank_profile(),
      ParseRankProfile(text, absl::StrCat("--rank-profile: ", *flags.rank_profile)));
  factorization->set_allocation(v1::RANK_ALLOCATION_PROFILE);
  return absl::OkStatus();
}

// Splits KEY=VALUE.
absl::StatusOr<std::pair<std::string, std::string>> ParsePair(absl::string_view flag,
                                                              const std::string& text,
                                                              absl::string_view example) {
  const size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(flag, " is \"", text, "\", expected KEY=VALUE, such as ", example));
  }
  return std::make_pair(text.substr(0, equals), text.substr(equals + 1));
}

// "team=search" for each text; a key that stands twice would lose a value.
absl::StatusOr<std::map<std::string, std::string>> ParsePairs(absl::string_view flag,
                                                              const std::vector<std::string>& texts,
                                                              absl::string_view example) {
  std::map<std::string, std::string> pairs;
  for (const std::string& text : texts) {
    LF_ASSIGN_OR_RETURN(auto pair, ParsePair(flag, text, example));
    const auto [found, inserted] = pairs.insert(std::move(pair));
    if (inserted) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(flag, " gives the key \"", found->first, "\" twice, as \"", found->first, "=",
                     found->second, "\" and \"", text, "\", expected once"));
  }
  return pairs;
}

absl::Status ApplyScheduling(const SpecFlags& flags, v1::JobSpec* spec) {
  if (flags.deadline) {
    LF_RETURN_IF_ERROR(ParseDuration("--deadline", *flags.deadline, spec->mutable_deadline()));
  }
  LF_RETURN_IF_ERROR(
      ApplyEnum("--priority", flags.priority, v1::Priority_descriptor(),
                [&](int value) { spec->set_priority(static_cast<v1::Priority>(value)); }));
  if (flags.queue_deadline) {
    LF_RETURN_IF_ERROR(
        ParseDuration("--queue-deadline", *flags.queue_deadline, spec->mutable_queue_deadline()));
  }
  if (flags.run_deadline) {
    LF_RETURN_IF_ERROR(
        ParseDuration("--run-deadline", *flags.run_deadline, spec->mutable_run_deadline()));
  }
  if (flags.ttl) LF_RETURN_IF_ERROR(ParseDuration("--ttl", *flags.ttl, spec->mutable_ttl()));
  LF_ASSIGN_OR_RETURN(const auto selector,
                      ParsePairs("--worker-label", flags.worker_labels, "zone=a"));
  for (const auto& [key, value] : selector) (*spec->mutable_worker_selector())[key] = value;
  return absl::OkStatus();
}

absl::Status ApplyFlags(const SpecFlags& flags, const FileAccess& files, v1::JobSpec* spec) {
  if (flags.model) spec->mutable_source()->set_uri(ToUri(*flags.model, files));
  if (flags.out) spec->mutable_output()->set_uri(ToUri(*flags.out, files));
  ApplyBudget(flags, spec);
  if (flags.device) spec->set_device(*flags.device);
  if (flags.threads) spec->set_threads(*flags.threads);
  if (flags.method) {
    const auto& field =
        *v1::JobSpec::descriptor()->FindFieldByNumber(v1::JobSpec::kMethodFieldNumber);
    LF_ASSIGN_OR_RETURN(const int method, ParseEnumField(field, "--method", *flags.method));
    spec->set_method(static_cast<v1::Method>(method));
  }
  if (flags.dtype) {
    LF_ASSIGN_OR_RETURN(const v1::DataType dtype, ParseComputeType("--dtype", *flags.dtype));
    spec->set_dtype(dtype);
  }
  LF_RETURN_IF_ERROR(ApplyEnum(
      "--output-dtype", flags.output_dtype, v1::DataType_descriptor(),
      [&](int value) { spec->mutable_output()->set_dtype(static_cast<v1::DataType>(value)); }));
  LF_RETURN_IF_ERROR(ApplyLowRank(flags.low_rank, spec));
  LF_RETURN_IF_ERROR(ApplyScheduling(flags, spec));
  LF_RETURN_IF_ERROR(ApplyCalibration(flags, files, spec->mutable_calibration()));
  ApplyEvaluation(flags, files, spec);
  LF_RETURN_IF_ERROR(ApplyHealing(flags, files, spec));
  return ApplyFactorization(flags, files, spec->mutable_factorization());
}

absl::Status ApplyLabels(const SpecFlags& flags, JobDraft* draft) {
  LF_ASSIGN_OR_RETURN(const auto labels, ParsePairs("--label", flags.labels, "team=search"));
  for (const auto& [key, value] : labels) draft->labels[key] = value;
  return absl::OkStatus();
}

void MakeUri(const FileAccess& files, std::string* uri) {
  if (!uri->empty()) *uri = ToUri(*uri, files);
}

void MakeUrisAbsolute(const FileAccess& files, v1::JobSpec* spec) {
  MakeUri(files, spec->mutable_source()->mutable_uri());
  MakeUri(files, spec->mutable_output()->mutable_uri());
  for (v1::CorpusSpec& corpus : *spec->mutable_calibration()->mutable_corpora()) {
    MakeUri(files, corpus.mutable_uri());
  }
  if (spec->has_healing()) {
    for (v1::CorpusSpec& corpus : *spec->mutable_healing()->mutable_corpora()) {
      MakeUri(files, corpus.mutable_uri());
    }
  }
  if (spec->evaluation().has_corpus()) {
    MakeUri(files, spec->mutable_evaluation()->mutable_corpus()->mutable_uri());
  }
}

absl::StatusOr<std::string> ReadStandardInput(int64_t max_bytes) {
  std::string text(static_cast<size_t>(max_bytes) + 1, '\0');
  std::cin.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(std::cin.gcount()));
  if (text.size() <= static_cast<size_t>(max_bytes)) return text;
  return absl::OutOfRangeError(absl::StrCat("standard input is larger than ", max_bytes, " bytes"));
}

absl::Status CheckInput(absl::string_view flag, const std::string& uri, const FileAccess& files) {
  LF_ASSIGN_OR_RETURN(const std::filesystem::path path, PathFromUri(uri));
  if (files.exists(path)) return absl::OkStatus();
  return absl::NotFoundError(absl::StrCat(flag, ": ", path.string(), " does not exist"));
}

}  // namespace

FileAccess LocalFileAccess() {
  std::error_code ignored;
  FileAccess access;
  access.current_folder = std::filesystem::current_path(ignored);
  access.read = [](const std::string& path, int64_t max_bytes) {
    return path == "-" ? ReadStandardInput(max_bytes) : ReadFile(path, max_bytes);
  };
  access.exists = [](const std::filesystem::path& path) {
    std::error_code error;
    return std::filesystem::exists(path, error);
  };
  return access;
}

absl::StatusOr<WeightedFile> ParseWeightedFile(absl::string_view flag, absl::string_view text,
                                               const FileAccess& files) {
  if (text.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(flag, " is empty, expected a file"));
  }
  const std::string whole(text);
  const size_t colon = whole.rfind(':');
  if (colon == std::string::npos || files.exists(files.current_folder / whole)) {
    return WeightedFile{whole, 0};
  }
  const std::string path = whole.substr(0, colon);
  const std::string weight_text = whole.substr(colon + 1);
  if (path.empty() || path.back() == ':') {
    return absl::InvalidArgumentError(
        absl::StrCat(flag, " is \"", text, "\", expected FILE or FILE:WEIGHT"));
  }
  double weight = 0;
  const bool is_number = absl::SimpleAtod(weight_text, &weight);
  // "file:/text" has a colon that is no weight's.
  if (!is_number && !files.exists(files.current_folder / path)) return WeightedFile{whole, 0};
  if (!is_number || !std::isfinite(weight) || weight <= 0) {
    return absl::InvalidArgumentError(absl::StrCat(flag, " is \"", text, "\", with the weight \"",
                                                   weight_text, "\", expected a positive number"));
  }
  return WeightedFile{path, weight};
}

absl::StatusOr<JobDraft> BuildDraft(const SpecFlags& flags, const FileAccess& files) {
  JobDraft draft;
  if (flags.job_file) {
    LF_ASSIGN_OR_RETURN(const std::string text,
                        ReadNamed("-f", *flags.job_file, kMaxJobFileBytes, files));
    const std::string name = *flags.job_file == "-" ? "standard input" : *flags.job_file;
    LF_RETURN_IF_ERROR(MergeJobFile(text, name, &draft));
  }
  LF_RETURN_IF_ERROR(ApplyFlags(flags, files, &draft.spec));
  LF_RETURN_IF_ERROR(ApplyLabels(flags, &draft));
  for (const std::string& setting : flags.settings) {
    LF_RETURN_IF_ERROR(ApplySetting(setting, &draft));
  }
  MakeUrisAbsolute(files, &draft.spec);
  LF_RETURN_IF_ERROR(CheckComplete(draft.spec));
  return draft;
}

absl::Status CheckLocalInputs(const JobDraft& draft, const FileAccess& files) {
  const absl::Status model = CheckInput("MODEL", draft.spec.source().uri(), files);
  LF_RETURN_IF_ERROR(WithNextStep(
      model, "name a local folder with config.json and *.safetensors; models are not downloaded"));
  for (const v1::CorpusSpec& corpus : draft.spec.calibration().corpora()) {
    LF_RETURN_IF_ERROR(CheckInput("--calibration", corpus.uri(), files));
  }
  for (const v1::CorpusSpec& corpus : draft.spec.healing().corpora()) {
    LF_RETURN_IF_ERROR(CheckInput("--heal-text", corpus.uri(), files));
  }
  if (const std::string& uri = draft.spec.evaluation().corpus().uri(); !uri.empty()) {
    LF_RETURN_IF_ERROR(CheckInput("--evaluate", uri, files));
  }
  return absl::OkStatus();
}

}  // namespace latentforge::client
