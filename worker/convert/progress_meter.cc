#include "worker/convert/progress_meter.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace latentforge::convert {
namespace {

constexpr absl::Duration kInterval = absl::Milliseconds(250);
// A smaller share says nothing about the rest.
constexpr double kSmallestShare = 0.01;

}  // namespace

void ProgressMeter::Begin(Phase phase) {
  phase_ = phase;
  phase_start_ = clock_.Monotonic();
  // The speed of one phase says little about the next.
  mark_ = Mark{phase_start_, OverallShare(0)};
  Send(0, 0, PhaseName(phase));
}

void ProgressMeter::End(Phase phase) {
  phase_ = phase;
  Send(1, 0, PhaseName(phase));
}

void ProgressMeter::Resume(double share) { mark_ = Mark{clock_.Monotonic(), OverallShare(share)}; }

void ProgressMeter::Skip() {
  costs_[static_cast<size_t>(phase_)] = 0;
  mark_ = Mark{clock_.Monotonic(), OverallShare(0)};
}

void ProgressMeter::Update(double share, double tokens, std::string detail) {
  const absl::Duration now = clock_.Monotonic();
  if (now - last_sent_ < kInterval) return;
  const double seconds = absl::ToDoubleSeconds(now - phase_start_);
  Send(share, seconds > 0 ? tokens / seconds : 0, std::move(detail));
}

double ProgressMeter::OverallShare(double share) const {
  const double total = std::accumulate(costs_.begin(), costs_.end(), 0.0);
  const auto before = costs_.begin() + static_cast<int>(phase_);
  const double done = std::accumulate(costs_.begin(), before, 0.0) + share * *before;
  return total > 0 ? std::clamp(done / total, 0.0, 1.0) : 0;
}

void ProgressMeter::Send(double share, double tokens_per_second, std::string detail) {
  share = std::clamp(share, 0.0, 1.0);
  last_sent_ = clock_.Monotonic();
  const double overall = OverallShare(share);
  double eta = -1;
  if (overall - mark_.share > kSmallestShare) {
    const double seconds = absl::ToDoubleSeconds(last_sent_ - mark_.time);
    eta = seconds * (1 - overall) / (overall - mark_.share);
  }
  shown_ = std::max(shown_, 100 * overall);
  events_.Progress({.phase = phase_,
                    .percent = shown_,
                    .phase_percent = 100 * share,
                    .eta_seconds = eta,
                    .tokens_per_second = tokens_per_second,
                    .detail = std::move(detail)});
}

}  // namespace latentforge::convert
