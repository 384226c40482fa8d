// Evaluation: the same windows through the original and through the original with
// factors, at last with those that will be published.
#include <ATen/ATen.h>

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "worker/convert/attempt.h"
#include "worker/convert/base_windows.h"
#include "worker/convert/error_reason.h"
#include "worker/convert/layer_conversion.h"
#include "worker/convert/phase_files.h"

namespace latentforge::convert {
namespace {

// Mean NLL of each window that an earlier attempt finished.
std::vector<double> LoadFinished(const std::filesystem::path& path, int64_t windows) {
  const absl::StatusOr<std::string> text = ReadFile(path);
  if (!text.ok()) return {};
  const absl::StatusOr<Json> json = ParseJson(*text);
  if (!json.ok() || !json->is_object() || !json->contains("window_nll")) return {};
  std::vector<double> finished;
  for (const Json& value : (*json)["window_nll"]) {
    if (!value.is_number() || int64_t(finished.size()) == windows) return {};
    finished.push_back(value.get<double>());
  }
  return finished;
}

absl::Status SaveFinished(const std::filesystem::path& path, absl::Span<const double> window_nll) {
  const Json json = {{"window_nll", std::vector<double>(window_nll.begin(), window_nll.end())}};
  return WriteFileAtomic(path, WriteJson(json) + "\n");
}

// One of the two measurements. Borrows everything.
class Run {
 public:
  Run(Attempt& attempt, const Inputs& inputs, const MeasureRequest& request)
      : attempt_(attempt),
        inputs_(inputs),
        request_(request),
        path_(WindowsPath(attempt.work, request.name)),
        kept_(KeptFolder(attempt.statistics)),
        key_(BaseWindowsKey(attempt, inputs)) {}

  absl::StatusOr<evaluate::PerplexityResult> Measure() {
    evaluate::PerplexityOptions options;
    options.device = attempt_.device;
    options.dtype = attempt_.dtype;
    options.finished = LoadFinished(path_, inputs_.windows.count);
    UseKept(options.finished);
    options.stop = [this] { return attempt_.stopped() || !saved_.ok(); };
    reported_ = int64_t(options.finished.size());
    finished_tokens_ = double(reported_ * inputs_.windows.length);
    attempt_.progress.Resume(Share(finished_tokens_));
    options.progress = [this](const evaluate::PerplexityProgress& progress) {
      OnProgress(progress);
    };
    if (request_.kind == PerplexityKind::kConverted) {
      options.stored = RoundedType(inputs_);
      options.adjust_layer = [this](int64_t layer, model::LayerWeights& weights) {
        return Convert(layer, weights);
      };
    }
    const auto result = evaluate::EvaluatePerplexity(inputs_.checkpoint, inputs_.windows, options);
    LF_RETURN_IF_ERROR(saved_);
    if (!result.ok()) {
      return WithReasonByCode(
          Annotate(result.status(), absl::StrCat("evaluation of the ", request_.name, " model")),
          {{absl::StatusCode::kDataLoss, "NUMERICAL_FAILURE"},
           {absl::StatusCode::kInvalidArgument, "MALFORMED_TOKENIZER"}});
    }
    LF_RETURN_IF_ERROR(SaveFinished(path_, result->window_nll));
    Keep(result->window_nll);
    if (request_.announce) {
      attempt_.events.Perplexity(request_.kind, result->perplexity, inputs_.windows.count,
                                 inputs_.windows.count);
    }
    return result;
  }

 private:
  // Of the whole phase.
  double Share(double tokens) const {
    const double total = double(inputs_.windows.count * inputs_.windows.length);
    return request_.part.At(tokens / total);
  }

  void OnProgress(const evaluate::PerplexityProgress& progress) {
    attempt_.progress.Update(
        Share(progress.tokens_done),
        double(request_.tokens_before) + progress.tokens_done - finished_tokens_,
        absl::StrCat(request_.name, " model, window ", progress.window_nll.size(), " of ",
                     progress.windows_total));
    const auto done = int64_t(progress.window_nll.size());
    if (done == reported_ || !saved_.ok()) return;
    saved_ = SaveFinished(path_, progress.window_nll);
    if (request_.announce && done < inputs_.windows.count) {
      attempt_.events.Perplexity(request_.kind, progress.perplexity, done, inputs_.windows.count);
    }
    reported_ = done;
  }

  // The original gives what it gave to an earlier job.
  void UseKept(std::vector<double>& finished) {
    if (request_.kind != PerplexityKind::kBase) return;
    if (int64_t(finished.size()) == inputs_.windows.count) return;
    std::vector<double> kept = kept_.Restore(key_, inputs_.windows.count);
    if (kept.empty()) return;
    attempt_.events.Info("an earlier job has measured the original on these windows");
    finished = std::move(kept);
  }

  // The job does not depend on what is kept for others.
  void Keep(absl::Span<const double> window_nll) {
    if (request_.kind != PerplexityKind::kBase || kept_.Has(key_)) return;
    if (const absl::Status kept = kept_.Keep(key_, window_nll); !kept.ok()) {
      attempt_.events.Warning(
          absl::StrCat("the original's figures are not kept for later jobs: ", kept.message()));
    }
  }

  absl::Status Convert(int64_t layer, model::LayerWeights& weights) const {
    LF_ASSIGN_OR_RETURN(const exporter::ConvertedLayer factors,
                        request_.healed ? LoadFactors(attempt_, layer)
                                        : LoadLayer(FactorsPath(attempt_.work, layer)));
    return ConvertLayer(inputs_, factors, weights);
  }

  Attempt& attempt_;
  const Inputs& inputs_;
  MeasureRequest request_;
  std::filesystem::path path_;
  BaseWindows kept_;
  std::string key_;
  absl::Status saved_;
  int64_t reported_ = 0;
  double finished_tokens_ = 0;
};

}  // namespace

absl::StatusOr<evaluate::PerplexityResult> MeasurePerplexity(Attempt& attempt, const Inputs& inputs,
                                                             const MeasureRequest& request) {
  return Run(attempt, inputs, request).Measure();
}

absl::StatusOr<Evaluation> EvaluateBoth(Attempt& attempt, const Inputs& inputs) {
  // The model before healing is worth a line of its own.
  const bool healed = attempt.spec.healing.has_value();
  const double part = healed ? 1.0 / 3 : 1.0 / 2;
  Evaluation evaluation;
  MeasureRequest request{.kind = PerplexityKind::kBase, .name = "base", .part = {0, part}};
  LF_ASSIGN_OR_RETURN(const evaluate::PerplexityResult base,
                      MeasurePerplexity(attempt, inputs, request));
  evaluation.perplexity_base = base.perplexity;
  evaluation.tokens = base.tokens;
  const auto next = [&](const char* name, bool with_healing) {
    request = {.kind = PerplexityKind::kConverted,
               .name = name,
               .part = {request.part.end, request.part.end + part},
               .tokens_before = evaluation.tokens,
               .healed = with_healing,
               .announce = with_healing == healed};
    return MeasurePerplexity(attempt, inputs, request);
  };
  if (healed) {
    LF_ASSIGN_OR_RETURN(const evaluate::PerplexityResult factorized, next("factorized", false));
    evaluation.perplexity_factorized = factorized.perplexity;
    evaluation.tokens += factorized.tokens;
  }
  LF_ASSIGN_OR_RETURN(const evaluate::PerplexityResult converted, next("converted", healed));
  evaluation.perplexity_converted = converted.perplexity;
  evaluation.tokens += converted.tokens;
  if (!std::isfinite(base.perplexity) || !std::isfinite(converted.perplexity)) {
    return WithReason(
        absl::InternalError(absl::StrCat("numerical failure: perplexity is ", base.perplexity,
                                         " before and ", converted.perplexity, " after")),
        "NUMERICAL_FAILURE");
  }
  return evaluation;
}

}  // namespace latentforge::convert
