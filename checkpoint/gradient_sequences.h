// Of which calibration sequences the method low_rank takes gradients.
#pragma once

#include <algorithm>
#include <cstdint>

namespace latentforge::checkpoint {

// One sequence of this many goes back too: of eight, or of fewer where 4,096 tokens need more.
// Second moments of gradients settle soon, and the way back costs four times the way forward, but
// too few tokens leave most directions unseen.
inline int64_t GradientStep(int64_t sequences, int64_t length) {
  constexpr int64_t kMostSparse = 8;
  constexpr int64_t kLeastTokens = 4096;
  length = std::max<int64_t>(length, 1);
  const int64_t least = (kLeastTokens + length - 1) / length;
  return std::clamp<int64_t>(sequences / least, 1, kMostSparse);
}

}  // namespace latentforge::checkpoint
