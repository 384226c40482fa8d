// Fetching: opens and checks the source, the texts, the output and the disks, so
// that nothing foreseeable fails after hours of work.
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "base/version.h"
#include "checkpoint/context_warning.h"
#include "checkpoint/kv_budget.h"
#include "checkpoint/open_error.h"
#include "checkpoint/tensor_catalogue.h"
#include "worker/calibrate/corpus.h"
#include "worker/convert/attempt.h"
#include "worker/convert/disk_space.h"
#include "worker/convert/error_reason.h"
#include "worker/convert/low_rank_ranks.h"
#include "worker/convert/text_tokens.h"
#include "worker/export/manifest.h"
#include "worker/export/staging.h"
#include "worker/model/tokenizer/tokenizer.h"

namespace latentforge::convert {
namespace {

using absl::StatusCode;
using checkpoint::Checkpoint;

absl::StatusOr<Checkpoint> OpenSource(const std::filesystem::path& path) {
  const std::filesystem::path config_path = path / "config.json";
  const absl::StatusOr<std::string> text = ReadFile(config_path);
  if (!text.ok()) return WithReason(text.status(), "SOURCE_NOT_READABLE");
  const auto config = checkpoint::ParseModelConfig(*text);
  if (!config.ok()) {
    return WithReasonByCode(Annotate(config.status(), config_path.string()),
                            {{StatusCode::kInvalidArgument, "MALFORMED_CONFIG"},
                             {StatusCode::kUnimplemented, "UNSUPPORTED_ARCHITECTURE"}});
  }
  if (config->converted()) {
    return WithReason(
        absl::InvalidArgumentError(
            absl::StrCat(path.string(), " is already converted by latentforge: give the original")),
        "ALREADY_CONVERTED");
  }
  absl::StatusOr<Checkpoint> opened = Checkpoint::Open(path);
  if (opened.ok()) return opened;
  return WithReasonByCode(
      opened.status(),
      {{StatusCode::kInvalidArgument, checkpoint::ReasonOfOpenError(opened.status())},
       {StatusCode::kUnimplemented, "UNSUPPORTED_ARCHITECTURE"},
       {StatusCode::kNotFound, "SOURCE_NOT_READABLE"},
       {StatusCode::kPermissionDenied, "SOURCE_NOT_READABLE"},
       {StatusCode::kDataLoss, "SOURCE_CORRUPT"}});
}

// Global ranks share one budget; uniform ones are what CARE's begin with, too.
absl::Status CheckRanks(const JobSpec& spec, const checkpoint::ModelConfig& config) {
  if (spec.low_rank) return CheckLowRanks(config, *spec.low_rank);
  if (spec.max_perplexity_ratio > 0) return absl::OkStatus();  // the search decides
  const FactorizationSpec& factorization = spec.factorization;
  const absl::Status status =
      factorization.allocation
          ? checkpoint::CheckRanksFit(
                config, spec.kv_budget,
                {.joint = factorization.joint,
                 .uniform = factorization.allocation != factorize::RankAllocation::kGlobal,
                 .multiple = factorization.rank_multiple})
          : factorize::CheckProfile(factorization.rank_profile, config.num_layers,
                                    config.kv_width(), factorization.joint, spec.kv_budget);
  return WithReason(status, "RANK_OUT_OF_RANGE");
}

// Every position of a text but its last has a label: its next token.
absl::Status CheckLabels(const JobSpec& spec) {
  if (spec.labels != calibrate::FisherLabels::kText) return absl::OkStatus();
  const bool loss_aware = spec.low_rank ? spec.low_rank->loss_aware : spec.factorization.loss_aware;
  if (!loss_aware) {
    return WithReason(
        absl::InvalidArgumentError(
            "calibration: labels is text, expected none without preconditioner fisher"),
        "INVALID_SPEC");
  }
  if (spec.sequence_length > 1) return absl::OkStatus();
  return WithReason(absl::InvalidArgumentError(
                        absl::StrCat("calibration: sequenceLength is ", spec.sequence_length,
                                     ", expected at least 2 with labels text: the last token of a "
                                     "sequence has no next one")),
                    "INVALID_SPEC");
}

// Changes when a file of the source is replaced or edited.
absl::StatusOr<std::string> SourceStamp(const Checkpoint& source) {
  std::string stamp;
  for (const std::string& name : source.files()) {
    const std::filesystem::path path = source.dir() / name;
    struct stat status;
    if (stat(path.c_str(), &status) != 0) return ErrnoStatus(errno, "stat", path);
    absl::StrAppend(&stamp, name, " ", status.st_ino, " ", status.st_size, " ",
                    status.st_mtim.tv_sec, ".", status.st_mtim.tv_nsec, "\n");
  }
  return Sha256Hex(stamp);
}

// The digest of an earlier attempt where the files are the same, else a new one.
absl::StatusOr<std::string> SourceDigest(Attempt& attempt, const Checkpoint& source) {
  LF_ASSIGN_OR_RETURN(const std::string stamp, SourceStamp(source));
  WorkState& state = attempt.work.state();
  if (state.source_stamp == stamp && !state.source_digest.empty()) return state.source_digest;
  checkpoint::DigestOptions options;
  options.progress = [&](int64_t done, int64_t total) {
    if (attempt.stopped()) return absl::CancelledError("reading of the source was stopped");
    attempt.progress.Update(double(done) / double(std::max<int64_t>(total, 1)), 0,
                            "checking weights");
    return absl::OkStatus();
  };
  const absl::StatusOr<std::string> digest = source.Digest(options);
  if (!digest.ok()) {
    return WithReasonByCode(digest.status(), {{StatusCode::kDataLoss, "SOURCE_CORRUPT"},
                                              {StatusCode::kInvalidArgument, "SOURCE_CORRUPT"}});
  }
  state.source_stamp = stamp;
  state.source_digest = *digest;
  return *digest;
}

// Reads and tokenises texts.
class TextLoader {
 public:
  TextLoader(model::Tokenizer tokenizer, Attempt& attempt, Inputs& inputs)
      : tokenizer_(std::move(tokenizer)), attempt_(attempt), inputs_(inputs) {}

  absl::StatusOr<calibrate::TokenStream> Load(const CorpusSpec& corpus, std::string& sha256) {
    const auto text = calibrate::ReadCorpus(corpus.path, corpus.text_field);
    if (!text.ok()) {
      return WithReasonByCode(text.status(),
                              {{StatusCode::kInvalidArgument, "MALFORMED_CORPUS"},
                               {StatusCode::kNotFound, "CORPUS_NOT_READABLE"},
                               {StatusCode::kPermissionDenied, "CORPUS_NOT_READABLE"}});
    }
    sha256 = text->sha256;
    if (text->truncated) {
      inputs_.warnings.push_back(absl::StrCat(corpus.path.string(), " is larger than ",
                                              calibrate::kMaxCorpusBytes,
                                              " bytes; only the lines within them were used"));
      attempt_.events.Warning(inputs_.warnings.back());
    }
    calibrate::TokenStream stream{.name = corpus.path.string(), .weight = corpus.weight};
    LF_ASSIGN_OR_RETURN(stream.tokens, TokenizeText(tokenizer_, text->text));
    LF_RETURN_IF_ERROR(CheckVocabulary(stream));
    return stream;
  }

 private:
  absl::Status CheckVocabulary(const calibrate::TokenStream& stream) const {
    const int64_t size = inputs_.checkpoint.config().vocab_size;
    for (const int32_t token : stream.tokens) {
      if (token >= 0 && token < size) continue;
      return WithReason(absl::InvalidArgumentError(absl::StrCat(
                            "tokenizer.json gives token ", token, " in ", stream.name,
                            ", expected 0 to ", size - 1, " as the model has ", size, " tokens")),
                        "MALFORMED_TOKENIZER");
    }
    return absl::OkStatus();
  }

  model::Tokenizer tokenizer_;
  Attempt& attempt_;
  Inputs& inputs_;
};

absl::Status LoadWindows(Attempt& attempt, TextLoader& loader, Inputs& inputs,
                         calibrate::TokenStream& first_corpus, std::string& sha256) {
  const JobSpec& spec = attempt.spec;
  std::vector<int32_t> tokens;
  std::string name;
  if (spec.evaluation) {
    LF_ASSIGN_OR_RETURN(calibrate::TokenStream stream, loader.Load(*spec.evaluation, sha256));
    tokens = std::move(stream.tokens);
    name = stream.name;
    inputs.evaluation_text = UriFromPath(spec.evaluation->path);
  } else {
    std::vector<double> weights;
    for (const CorpusSpec& corpus : spec.corpora) weights.push_back(corpus.weight);
    LF_ASSIGN_OR_RETURN(const std::vector<int64_t> counts,
                        calibrate::DivideSequences(spec.sequences, weights));
    LF_ASSIGN_OR_RETURN(tokens, calibrate::HoldBack(first_corpus, spec.windows * spec.window_length,
                                                    counts[0] * spec.sequence_length));
    name = first_corpus.name;
    inputs.evaluation_text =
        absl::StrCat("held back from the end of ", UriFromPath(spec.corpora[0].path));
    attempt.events.Info(absl::StrCat("perplexity is measured on the last ", tokens.size(),
                                     " tokens of ", name, ", which calibration does not see"));
  }
  LF_ASSIGN_OR_RETURN(inputs.windows,
                      evaluate::CutWindows(tokens, spec.window_length, spec.windows));
  return absl::OkStatus();
}

// The text of healing: its own, or the calibration's without what evaluation holds back.
absl::Status LoadTraining(const JobSpec& spec, TextLoader& loader,
                          const std::vector<calibrate::TokenStream>& calibration, Inputs& inputs,
                          std::string& text_digests) {
  if (!spec.healing) return absl::OkStatus();
  std::vector<calibrate::TokenStream> own;
  for (const CorpusSpec& corpus : spec.healing->corpora) {
    std::string sha256;
    LF_ASSIGN_OR_RETURN(own.emplace_back(), loader.Load(corpus, sha256));
    absl::StrAppend(&text_digests, sha256, "\n");
  }
  absl::StatusOr<finetune::TrainingText> training = finetune::PrepareTraining(
      own.empty() ? calibration : own, {.tokens = spec.healing->tokens,
                                        .length = spec.healing->sequence_length,
                                        .batch = spec.healing->batch_sequences,
                                        .seed = spec.seed});
  if (!training.ok()) {
    return WithReason(Annotate(training.status(), "healing (--heal-text)"), "TOO_FEW_TOKENS");
  }
  inputs.training = *std::move(training);
  return absl::OkStatus();
}

// Before hours of work, not after them.
void TellWholeSequences(Attempt& attempt, const finetune::TrainingText& training) {
  const int64_t asked = attempt.spec.healing->tokens;
  const int64_t tokens = training.Tokens(training.steps());
  if (tokens == asked) return;
  attempt.events.Info(absl::StrCat("healing trains on ", tokens, " tokens where ", asked,
                                   " were asked for: whole sequences of ", training.length));
}

absl::Status LoadTexts(Attempt& attempt, Inputs& inputs, std::string& text_digests) {
  const std::filesystem::path path = attempt.spec.source / "tokenizer.json";
  absl::StatusOr<model::Tokenizer> tokenizer = model::Tokenizer::Load(path);
  if (!tokenizer.ok()) {
    return WithReasonByCode(tokenizer.status(),
                            {{StatusCode::kNotFound, "SOURCE_NOT_READABLE"},
                             {StatusCode::kPermissionDenied, "SOURCE_NOT_READABLE"},
                             {StatusCode::kInvalidArgument, "MALFORMED_TOKENIZER"}});
  }
  TextLoader loader(*std::move(tokenizer), attempt, inputs);
  std::vector<calibrate::TokenStream> streams;
  for (const CorpusSpec& corpus : attempt.spec.corpora) {
    std::string sha256;
    LF_ASSIGN_OR_RETURN(streams.emplace_back(), loader.Load(corpus, sha256));
    inputs.corpora.push_back({.uri = UriFromPath(corpus.path),
                              .sha256 = sha256,
                              .weight = corpus.weight,
                              .tokens = int64_t(streams.back().tokens.size())});
    absl::StrAppend(&text_digests, sha256, "\n");
  }
  std::string sha256;
  LF_RETURN_IF_ERROR(
      WithReasonByCode(Annotate(LoadWindows(attempt, loader, inputs, streams[0], sha256),
                                "evaluation (--evaluate, --evaluate-windows)"),
                       {{StatusCode::kInvalidArgument, "TOO_FEW_TOKENS"}}));
  absl::StrAppend(&text_digests, sha256, "\n");
  LF_RETURN_IF_ERROR(LoadTraining(attempt.spec, loader, streams, inputs, text_digests));
  if (attempt.spec.healing) TellWholeSequences(attempt, inputs.training);
  const calibrate::SamplingOptions sampling{.sequences = attempt.spec.sequences,
                                            .length = attempt.spec.sequence_length,
                                            .seed = attempt.spec.seed};
  absl::StatusOr<calibrate::TokenSequences> sequences =
      calibrate::SampleSequences(streams, sampling);
  if (!sequences.ok()) return WithReason(sequences.status(), "TOO_FEW_TOKENS");
  inputs.sequences = *std::move(sequences);
  return absl::OkStatus();
}

// What changes the result: everything but where it goes and what computes it.
std::string SettingsDigest(const JobSpec& spec) {
  Json settings = JobSpecToJson(spec);
  settings["output"].erase("uri");
  settings.erase("device");
  settings.erase("threads");
  return Sha256Hex(WriteJson(settings));
}

absl::Status CheckOutput(const JobSpec& spec) {
  return WithReasonByCode(exporter::CheckOutput(spec.output),
                          {{StatusCode::kAlreadyExists, "OUTPUT_NOT_EMPTY"},
                           {StatusCode::kInvalidArgument, "OUTPUT_NOT_WRITABLE"},
                           {StatusCode::kNotFound, "OUTPUT_NOT_WRITABLE"},
                           {StatusCode::kPermissionDenied, "OUTPUT_NOT_WRITABLE"},
                           {StatusCode::kResourceExhausted, "OUTPUT_DISK_FULL"}});
}

// Whether what stands in the way, as `output` says, is worth a look at source and texts: by its
// manifest an artifact of these settings.
bool MayBeOwn(const JobSpec& spec, const absl::Status& output) {
  if (!absl::IsAlreadyExists(output)) return false;
  const absl::StatusOr<std::string> text =
      ReadFile(spec.output / exporter::kManifestName, exporter::kMaxManifestBytes);
  if (!text.ok()) return false;
  const absl::StatusOr<exporter::Manifest> manifest = exporter::ParseManifest(*text);
  return manifest.ok() && manifest->settings_digest == SettingsDigest(spec);
}

// An attempt that died, or was cut off, behind its rename has done the job: on whatever machine,
// and also where the server's database is older than that.
absl::Status FindOwn(const JobSpec& spec, const absl::Status& output, Inputs& inputs) {
  auto published = exporter::FindPublished(spec.output, inputs.artifact_id());
  if (!published.ok()) return WithReason(published.status(), "ARTIFACT_CORRUPT");
  if (!*published) return output;
  inputs.published = *std::move(published);
  return absl::OkStatus();
}

// Refuses texts that the model cannot run, warns of those that it was not trained for.
absl::Status CheckContext(Attempt& attempt, Inputs& inputs) {
  int64_t longest = std::max(attempt.spec.sequence_length, attempt.spec.window_length);
  if (attempt.spec.healing) longest = std::max(longest, attempt.spec.healing->sequence_length);
  std::string warning =
      checkpoint::ContextWarning(inputs.checkpoint.config(), "sequences", longest);
  LF_RETURN_IF_ERROR(checkpoint::CheckContext(inputs.checkpoint.config(), "sequences", longest));
  if (warning.empty()) return absl::OkStatus();
  attempt.events.Warning(warning);
  inputs.warnings.push_back(std::move(warning));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Inputs> FetchInputs(Attempt& attempt) {
  const JobSpec& spec = attempt.spec;
  LF_ASSIGN_OR_RETURN(Checkpoint source, OpenSource(spec.source));
  LF_RETURN_IF_ERROR(CheckRanks(spec, source.config()));
  LF_RETURN_IF_ERROR(CheckLabels(spec));
  const absl::Status output = CheckOutput(spec);
  if (!output.ok() && !MayBeOwn(spec, output)) return output;
  LF_ASSIGN_OR_RETURN(const checkpoint::TensorView projection,
                      source.Tensor(checkpoint::LayerTensor(0, "self_attn.k_proj.weight")));
  const checkpoint::DType source_dtype = projection.dtype();
  Inputs inputs{.checkpoint = std::move(source),
                .source_dtype = source_dtype,
                .output_dtype = spec.output_dtype.value_or(source_dtype),
                .settings_digest = SettingsDigest(spec)};
  std::string text_digests;
  LF_RETURN_IF_ERROR(LoadTexts(attempt, inputs, text_digests));
  LF_RETURN_IF_ERROR(CheckContext(attempt, inputs));
  LF_ASSIGN_OR_RETURN(inputs.source_digest, SourceDigest(attempt, inputs.checkpoint));
  inputs.job_digest = Sha256Hex(absl::StrCat(kVersion, "\n", inputs.settings_digest, "\n",
                                             inputs.source_digest, "\n", text_digests));
  if (!output.ok()) {
    LF_RETURN_IF_ERROR(FindOwn(spec, output, inputs));
    return inputs;
  }
  LF_RETURN_IF_ERROR(WithReasonByCode(attempt.work.Adopt(inputs.job_digest),
                                      {{StatusCode::kPermissionDenied, "SCRATCH_NOT_WRITABLE"}}));
  LF_RETURN_IF_ERROR(CheckDiskSpace(attempt, inputs));
  return inputs;
}

}  // namespace latentforge::convert
