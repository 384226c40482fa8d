#include "worker/convert/evaluate_command.h"

#include "base/status_macros.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/context_warning.h"
#include "checkpoint/kv_budget.h"
#include "checkpoint/open_error.h"
#include "worker/calibrate/corpus.h"
#include "worker/convert/attempt.h"
#include "worker/convert/error_reason.h"
#include "worker/convert/process_memory.h"
#include "worker/convert/text_tokens.h"
#include "worker/evaluate/perplexity.h"
#include "worker/model/device.h"
#include "worker/model/tokenizer/tokenizer.h"

namespace latentforge::convert {
namespace {

using absl::StatusCode;

absl::StatusOr<evaluate::TokenWindows> LoadWindows(const EvaluateRequest& request) {
  absl::StatusOr<model::Tokenizer> tokenizer =
      model::Tokenizer::Load(request.model / "tokenizer.json");
  if (!tokenizer.ok()) {
    return WithReasonByCode(tokenizer.status(),
                            {{StatusCode::kNotFound, "SOURCE_NOT_READABLE"},
                             {StatusCode::kInvalidArgument, "MALFORMED_TOKENIZER"}});
  }
  const auto text = calibrate::ReadCorpus(request.text, request.text_field);
  if (!text.ok()) {
    return WithReasonByCode(text.status(),
                            {{StatusCode::kInvalidArgument, "MALFORMED_CORPUS"},
                             {StatusCode::kNotFound, "CORPUS_NOT_READABLE"},
                             {StatusCode::kPermissionDenied, "CORPUS_NOT_READABLE"}});
  }
  LF_ASSIGN_OR_RETURN(const std::vector<int32_t> tokens, TokenizeText(*tokenizer, text->text));
  const auto windows = evaluate::CutWindows(tokens, request.window_length, request.windows);
  if (!windows.ok()) {
    return WithReason(Annotate(windows.status(), request.text.string()), "TOO_FEW_TOKENS");
  }
  return windows;
}

}  // namespace

absl::StatusOr<Json> Evaluate(const EvaluateRequest& request, EventWriter* events,
                              const StopToken& stop, const Clock& clock) {
  LF_RETURN_IF_ERROR(model::SetThreads(request.threads));
  evaluate::PerplexityOptions options;
  LF_ASSIGN_OR_RETURN(options.dtype, model::ParseComputeType(request.dtype));
  const auto device = model::SelectDevice(request.device);
  if (!device.ok()) return WithReason(device.status(), "DEVICE_UNAVAILABLE");
  options.device = *device;
  const auto source = checkpoint::Checkpoint::Open(request.model);
  if (!source.ok()) {
    return WithReasonByCode(
        source.status(),
        {{StatusCode::kInvalidArgument, checkpoint::ReasonOfOpenError(source.status())},
         {StatusCode::kUnimplemented, "UNSUPPORTED_ARCHITECTURE"},
         {StatusCode::kNotFound, "SOURCE_NOT_READABLE"},
         {StatusCode::kPermissionDenied, "SOURCE_NOT_READABLE"}});
  }
  LF_ASSIGN_OR_RETURN(const evaluate::TokenWindows windows, LoadWindows(request));
  LF_RETURN_IF_ERROR(checkpoint::CheckContext(source->config(), "windows", request.window_length));
  const std::string warning =
      checkpoint::ContextWarning(source->config(), "windows", request.window_length);
  if (events != nullptr && !warning.empty()) events->Warning(warning);

  const absl::Duration start = clock.Monotonic();
  std::optional<ProgressMeter> progress;
  if (events != nullptr) progress.emplace(clock, *events);
  if (progress) {
    PhaseCosts costs = {};
    costs[static_cast<size_t>(Phase::kEvaluating)] = 1;  // there is no other phase
    progress->SetCosts(costs);
    progress->Begin(Phase::kEvaluating);
  }
  size_t reported = 0;
  options.stop = [&] { return stop.requested(); };
  options.progress = [&](const evaluate::PerplexityProgress& now) {
    if (!progress) return;
    progress->Update(now.tokens_done / double(now.tokens_total), now.tokens_done,
                     absl::StrCat("window ", now.window_nll.size(), " of ", now.windows_total));
    if (now.window_nll.size() == reported) return;
    reported = now.window_nll.size();
    events->Perplexity(PerplexityKind::kBase, now.perplexity, int64_t(reported), now.windows_total);
  };
  const auto result = evaluate::EvaluatePerplexity(*source, windows, options);
  if (!result.ok()) {
    return WithReasonByCode(result.status(), {{StatusCode::kDataLoss, "NUMERICAL_FAILURE"}});
  }
  if (progress) progress->End(Phase::kEvaluating);
  const double seconds = absl::ToDoubleSeconds(clock.Monotonic() - start);
  const checkpoint::ModelConfig& config = source->config();
  return Json{{"model", request.model.string()},
              {"text", request.text.string()},
              {"perplexity", result->perplexity},
              {"windows", windows.count},
              {"window_length", windows.length},
              {"tokens", result->tokens},
              {"seconds", seconds},
              {"tokens_per_second", seconds > 0 ? double(result->tokens) / seconds : 0},
              {"kv_bytes_per_token", checkpoint::KvBytesPerToken(config, config.dtype)},
              {"peak_rss_bytes", PeakRssBytes()},
              {"dtype", request.dtype},
              {"device", options.device.str()}};
}

}  // namespace latentforge::convert
