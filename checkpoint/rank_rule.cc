#include "checkpoint/rank_rule.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace latentforge::checkpoint {
namespace {

// Products of sizes are exact in a double up to 2^53; what lies this close below an integer is
// one that the ratio's own rounding moved.
constexpr double kRounding = 1e-12;

absl::Status CheckArguments(int64_t out, int64_t in, double ratio, int64_t multiple) {
  if (out < 1 || in < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("matrix is [", out, ", ", in, "], expected sizes of at least 1"));
  }
  if (!(ratio >= 0 && ratio < 1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("ratio is ", ratio, ", expected at least 0 and less than 1"));
  }
  if (multiple < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("rank multiple is ", multiple, ", expected at least 1"));
  }
  return absl::OkStatus();
}

}  // namespace

int64_t Parameters(RankRule rule, int64_t out, int64_t in, int64_t rank) {
  const int64_t saved = rule == RankRule::kBlockIdentity ? rank : 0;
  return rank * (out + in - saved);
}

absl::StatusOr<int64_t> RankForRatio(RankRule rule, int64_t out, int64_t in, double ratio,
                                     int64_t multiple) {
  LF_RETURN_IF_ERROR(CheckArguments(out, in, ratio, multiple));
  const double dense = double(out) * double(in);
  const auto granted = static_cast<int64_t>(std::floor((1 - ratio) * dense * (1 + kRounding)));
  // Parameters grow with the rank up to min(out, in), so the largest that fits is found by halves.
  int64_t fits = 0;
  int64_t above = std::min(out, in) + 1;
  while (above - fits > 1) {
    const int64_t middle = fits + (above - fits) / 2;
    (Parameters(rule, out, in, middle) <= granted ? fits : above) = middle;
  }
  const int64_t rank = fits - fits % multiple;
  if (rank < 1) {
    const double least = double(Parameters(rule, out, in, multiple));
    return absl::OutOfRangeError(
        absl::StrCat("ratio is ", ratio, ", expected at most ", std::max(0.0, 1 - least / dense),
                     ", which leaves a [", out, ", ", in, "] matrix the rank ", multiple));
  }
  return rank;
}

}  // namespace latentforge::checkpoint
