// What the events of an attempt do to a job's status and history.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "latentforge/v1/event.pb.h"
#include "service/job_state.h"

namespace latentforge::service {

// Applies `events` to transition.next and appends the job events that are worth
// keeping: of successive Progress events the last one, and that only when it
// moved by 0.1 %, and a second passed, since the one kept before (or 30 s passed).
// Sequences at or below next.attempt_sequence are skipped as repeats.
// INVALID_ARGUMENT EVENT_OUT_OF_ORDER when sequences do not rise.
absl::Status ApplyAttemptEvents(const std::vector<v1::AttemptEvent>& events, absl::Time now,
                                Transition& transition);

// Appends a job event with the next sequence and returns it to be filled in.
v1::JobEvent& AppendEvent(Transition& transition, absl::Time now);

// Text of at most `bytes`, cut between UTF-8 characters.
std::string Truncated(absl::string_view text, size_t bytes);

}  // namespace latentforge::service
