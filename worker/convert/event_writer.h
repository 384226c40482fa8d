// Prints what happens in an attempt as latentforge.v1.AttemptEvent objects, one
// proto3 JSON object a line.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "base/clock.h"
#include "base/json.h"
#include "worker/convert/error_reason.h"
#include "worker/convert/phase.h"
#include "worker/factorize/rank_allocation.h"

namespace latentforge::convert {

enum class PerplexityKind { kBase, kConverted };

struct ProgressEvent {
  Phase phase = Phase::kFetching;
  double percent = 0;
  double phase_percent = 0;
  double eta_seconds = -1;
  double tokens_per_second = 0;
  std::string detail;
};

// After a step of healing, or, with a divergence, after a measurement.
struct HealingEvent {
  int64_t step = 0;
  int64_t steps_total = 0;
  double loss = 0;
  double learning_rate = 0;
  double tokens_per_second = 0;
  std::optional<double> divergence;
  std::optional<double> perplexity;
};

struct PhaseTiming {
  Phase phase = Phase::kFetching;
  double seconds = 0;
  double tokens_per_second = 0;
};

struct ResultEvent {
  std::string artifact_uri;
  std::string report_uri;
  std::string manifest_sha256;
  double perplexity_base = 0;
  double perplexity_converted = 0;
  int64_t kv_bytes_per_token_base = 0;
  int64_t kv_bytes_per_token_converted = 0;
  int64_t peak_rss_bytes = 0;
  std::vector<PhaseTiming> phases;
  factorize::RankProfile rank_profile;
};

// Numbers its events from 1 without gaps and writes each with one write(2). Not
// safe for concurrent use.
class EventWriter {
 public:
  // Borrows the descriptor and the clock.
  EventWriter(int fd, const Clock& clock) : fd_(fd), clock_(clock) {}

  void PhaseStarted(Phase phase, bool resumed);
  void PhaseFinished(Phase phase, double seconds, int64_t tokens);
  void Progress(const ProgressEvent& event);
  void Perplexity(PerplexityKind kind, double value, int64_t windows_done, int64_t windows_total);
  void Healing(const HealingEvent& event);
  void Info(absl::string_view text);
  void Warning(absl::string_view text);
  void Result(const ResultEvent& event);
  void Error(const ErrorInfo& info, absl::string_view message, Phase phase);

  // True once nobody reads the events any more.
  bool closed() const { return closed_; }

 private:
  void Write(absl::string_view kind, Json body);

  int fd_;
  const Clock& clock_;
  int64_t sequence_ = 0;
  bool closed_ = false;
};

}  // namespace latentforge::convert
