#include "worker/convert/event_writer.h"

#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"

namespace latentforge::convert {
namespace {

// proto3 JSON has names for what JSON numbers cannot say.
Json Number(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "Infinity" : "-Infinity";
  return value;
}

Json Int64(int64_t value) { return absl::StrCat(value); }

double Rate(int64_t tokens, double seconds) { return seconds > 0 ? double(tokens) / seconds : 0; }

const char* ClassName(ErrorClass error_class) {
  switch (error_class) {
    case ErrorClass::kUser:
      return "ERROR_CLASS_USER";
    case ErrorClass::kResource:
      return "ERROR_CLASS_RESOURCE";
    case ErrorClass::kSystem:
      break;
  }
  return "ERROR_CLASS_SYSTEM";
}

Json LogBody(const char* severity, absl::string_view text) {
  return {{"severity", severity}, {"text", std::string(text)}};
}

}  // namespace

void EventWriter::PhaseStarted(Phase phase, bool resumed) {
  Write("phaseStarted", {{"phase", PhaseEnumName(phase)}, {"resumed", resumed}});
}

void EventWriter::PhaseFinished(Phase phase, double seconds, int64_t tokens) {
  Write("phaseFinished", {{"phase", PhaseEnumName(phase)},
                          {"seconds", Number(seconds)},
                          {"tokens", Int64(tokens)},
                          {"tokensPerSecond", Number(Rate(tokens, seconds))}});
}

void EventWriter::Progress(const ProgressEvent& event) {
  Write("progress", {{"phase", PhaseEnumName(event.phase)},
                     {"percent", Number(event.percent)},
                     {"phasePercent", Number(event.phase_percent)},
                     {"etaSeconds", Number(event.eta_seconds)},
                     {"tokensPerSecond", Number(event.tokens_per_second)},
                     {"detail", event.detail}});
}

void EventWriter::Perplexity(PerplexityKind kind, double value, int64_t windows_done,
                             int64_t windows_total) {
  Write("perplexity", {{"kind", kind == PerplexityKind::kBase ? "PERPLEXITY_KIND_BASE"
                                                              : "PERPLEXITY_KIND_CONVERTED"},
                       {"value", Number(value)},
                       {"windowsDone", windows_done},
                       {"windowsTotal", windows_total}});
}

void EventWriter::Healing(const HealingEvent& event) {
  Json body = {{"step", Int64(event.step)},
               {"stepsTotal", Int64(event.steps_total)},
               {"loss", Number(event.loss)},
               {"learningRate", Number(event.learning_rate)},
               {"tokensPerSecond", Number(event.tokens_per_second)}};
  if (event.divergence) body["divergence"] = Number(*event.divergence);
  if (event.perplexity) body["perplexity"] = Number(*event.perplexity);
  Write("healing", std::move(body));
}

void EventWriter::Info(absl::string_view text) { Write("log", LogBody("SEVERITY_INFO", text)); }

void EventWriter::Warning(absl::string_view text) {
  Write("log", LogBody("SEVERITY_WARNING", text));
}

void EventWriter::Result(const ResultEvent& event) {
  Json phases = Json::array();
  for (const PhaseTiming& timing : event.phases) {
    phases.push_back({{"phase", PhaseEnumName(timing.phase)},
                      {"seconds", Number(timing.seconds)},
                      {"tokensPerSecond", Number(timing.tokens_per_second)}});
  }
  Json layers = Json::array();
  for (const factorize::LayerRanks& ranks : event.rank_profile) {
    Json layer = {{"layer", layers.size()}};
    if (ranks.joint > 0) {
      layer["rankKv"] = ranks.joint;
    } else {
      layer["rankK"] = ranks.key;
      layer["rankV"] = ranks.value;
    }
    layers.push_back(std::move(layer));
  }
  Write("result", {{"artifactUri", event.artifact_uri},
                   {"reportUri", event.report_uri},
                   {"manifestSha256", event.manifest_sha256},
                   {"perplexityBase", Number(event.perplexity_base)},
                   {"perplexityConverted", Number(event.perplexity_converted)},
                   {"kvBytesPerTokenBase", Int64(event.kv_bytes_per_token_base)},
                   {"kvBytesPerTokenConverted", Int64(event.kv_bytes_per_token_converted)},
                   {"peakRssBytes", Int64(event.peak_rss_bytes)},
                   {"phases", std::move(phases)},
                   {"rankProfile", {{"layers", std::move(layers)}}}});
}

void EventWriter::Error(const ErrorInfo& info, absl::string_view message, Phase phase) {
  Write("error", {{"reason", info.reason},
                  {"message", std::string(message)},
                  {"errorClass", ClassName(info.error_class)},
                  {"phase", PhaseEnumName(phase)},
                  {"retryable", info.retryable}});
}

void EventWriter::Write(absl::string_view kind, Json body) {
  if (closed_) return;
  const std::string time =
      absl::FormatTime("%Y-%m-%dT%H:%M:%E6SZ", clock_.Now(), absl::UTCTimeZone());
  const Json event = {{"sequence", absl::StrCat(++sequence_)},
                      {"time", time},
                      {std::string(kind), std::move(body)}};
  const std::string line = WriteJson(event) + "\n";
  for (size_t done = 0; done < line.size();) {
    const ssize_t n = write(fd_, line.data() + done, line.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      closed_ = true;
      return;
    }
    done += size_t(n);
  }
}

}  // namespace latentforge::convert
