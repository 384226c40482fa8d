// What a conversion uses where the user names nothing. One place for the server
// (which fills them into the stored spec) and the compute process (which can run
// alone).
#pragma once

#include <cstdint>

namespace latentforge {

inline constexpr double kDefaultDamping = 1e-3;
inline constexpr double kDefaultAlpha = 0.5;
inline constexpr double kDefaultSinkWeight = 0.125;
inline constexpr int32_t kDefaultCalibrationSequences = 16;
inline constexpr int32_t kDefaultSequenceLength = 2048;
inline constexpr int32_t kDefaultEvaluationWindows = 8;
inline constexpr int32_t kDefaultWindowLength = 2048;
inline constexpr int64_t kDefaultHealingTokens = 262144;
inline constexpr int32_t kDefaultHealingSequenceLength = 512;
inline constexpr int32_t kDefaultHealingBatch = 2;
inline constexpr int32_t kDefaultHealingWarmupSteps = 5;
inline constexpr int32_t kDefaultHealingEvaluateEvery = 20;
inline constexpr int32_t kDefaultMaxAttempts = 3;

}  // namespace latentforge
