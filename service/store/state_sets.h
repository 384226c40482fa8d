// Sets of job states in SQL, for every store.
#pragma once

namespace latentforge::service {

// Conditions of the partial indexes; a query must have the same words to use one.
// States as in v1::JobState: 1 queued, 2 running, 3 cancelling, 7 pausing, 8 paused.
inline constexpr char kIsQueued[] = "state = 1";
inline constexpr char kIsPaused[] = "state = 8";
inline constexpr char kHoldsLease[] = "state IN (2, 3, 7)";
inline constexpr char kGoesOn[] = "state IN (1, 2, 3, 7, 8)";

}  // namespace latentforge::service
