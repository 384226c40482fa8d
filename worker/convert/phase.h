// The stages of an attempt.
#pragma once

#include <array>

#include "absl/strings/string_view.h"

namespace latentforge::convert {

enum class Phase { kFetching, kCalibrating, kFactorizing, kEvaluating, kPublishing };

inline constexpr std::array<Phase, 5> kPhases = {Phase::kFetching, Phase::kCalibrating,
                                                 Phase::kFactorizing, Phase::kEvaluating,
                                                 Phase::kPublishing};

// "fetching" and so on, as in report.json.
inline const char* PhaseName(Phase phase) {
  constexpr std::array<const char*, 5> kNames = {"fetching", "calibrating", "factorizing",
                                                 "evaluating", "publishing"};
  return kNames[static_cast<size_t>(phase)];
}

// "PHASE_FETCHING" and so on, as in events.
inline const char* PhaseEnumName(Phase phase) {
  constexpr std::array<const char*, 5> kNames = {"PHASE_FETCHING", "PHASE_CALIBRATING",
                                                 "PHASE_FACTORIZING", "PHASE_EVALUATING",
                                                 "PHASE_PUBLISHING"};
  return kNames[static_cast<size_t>(phase)];
}

}  // namespace latentforge::convert
