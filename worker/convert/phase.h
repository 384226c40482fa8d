// The stages of an attempt.
#pragma once

#include <array>

#include "absl/strings/string_view.h"

namespace latentforge::convert {

enum class Phase {
  kFetching,
  kCalibrating,
  kFactorizing,
  kFineTuning,  // only where healing was asked for
  kEvaluating,
  kPublishing
};

inline constexpr std::array<Phase, 6> kPhases = {Phase::kFetching,    Phase::kCalibrating,
                                                 Phase::kFactorizing, Phase::kFineTuning,
                                                 Phase::kEvaluating,  Phase::kPublishing};

// "fetching" and so on, as in report.json.
inline const char* PhaseName(Phase phase) {
  constexpr std::array<const char*, kPhases.size()> kNames = {
      "fetching", "calibrating", "factorizing", "fine_tuning", "evaluating", "publishing"};
  return kNames[static_cast<size_t>(phase)];
}

// "PHASE_FETCHING" and so on, as in events.
inline const char* PhaseEnumName(Phase phase) {
  constexpr std::array<const char*, kPhases.size()> kNames = {
      "PHASE_FETCHING",    "PHASE_CALIBRATING", "PHASE_FACTORIZING",
      "PHASE_FINE_TUNING", "PHASE_EVALUATING",  "PHASE_PUBLISHING"};
  return kNames[static_cast<size_t>(phase)];
}

}  // namespace latentforge::convert
