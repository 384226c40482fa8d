// Share of an attempt that is done, and the time to its end.
#pragma once

#include <array>
#include <string>

#include "absl/time/time.h"
#include "base/clock.h"
#include "worker/convert/event_writer.h"
#include "worker/convert/phase.h"

namespace latentforge::convert {

// Relative cost of each phase, in any unit.
using PhaseCosts = std::array<double, kPhases.size()>;

// Turns phase shares into progress events, at most four a second; the percentage never
// falls. The time to the end is told once the running phase has got on by a measurable
// part of the whole. Borrows clock and writer. Not safe for concurrent use.
class ProgressMeter {
 public:
  ProgressMeter(const Clock& clock, EventWriter& events) : clock_(clock), events_(events) {}

  // Before costs are known nothing counts as done. Set them once.
  void SetCosts(const PhaseCosts& costs) { costs_ = costs; }

  // The phase's share is 0, or 1 when `finished`, and an event is sent.
  void Begin(Phase phase);
  void End(Phase phase);

  // `share` of the running phase was done by earlier attempts: no measure of this
  // one's speed.
  void Resume(double share);

  // The running phase had nothing to do: it costs nothing, and the others are all.
  void Skip();

  // `share` of the running phase in [0, 1]. `tokens` is how many tokens this
  // attempt has processed in the phase, for the speed; 0 where it processes none.
  void Update(double share, double tokens, std::string detail);

 private:
  void Send(double share, double tokens_per_second, std::string detail);
  double OverallShare(double share) const;

  const Clock& clock_;
  EventWriter& events_;
  PhaseCosts costs_ = {};
  double shown_ = 0;  // percent
  Phase phase_ = Phase::kFetching;
  absl::Duration phase_start_;
  absl::Duration last_sent_ = -absl::InfiniteDuration();
  // Where the estimate starts: what an earlier attempt or phase did is no measure.
  struct Mark {
    absl::Duration time = absl::ZeroDuration();
    double share = 0;
  };
  Mark mark_;
};

}  // namespace latentforge::convert
