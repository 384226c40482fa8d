// The largest numbers that a conversion takes. One place for the server, which refuses more, and
// the command line, which says so under the name of the flag.
#pragma once

#include <cstdint>

namespace latentforge {

inline constexpr int32_t kMaxSequences = 1'000'000;  // of calibration; windows, steps
inline constexpr int32_t kMaxSequenceLength = 1'000'000;
inline constexpr int64_t kMaxHealingTokens = int64_t{1} << 40;
inline constexpr int32_t kMaxRankMultiple = 1 << 20;
inline constexpr int32_t kMaxThreads = 1024;
inline constexpr double kMaxDamping = 1e6;
inline constexpr double kMaxAlpha = 16;

}  // namespace latentforge
