#include "service/token_bucket.h"

#include <algorithm>

namespace latentforge::service {

double TokenBucket::TokensAt(double per_minute, absl::Duration now) const {
  const absl::Duration passed = std::max(now - last_, absl::ZeroDuration());
  const double regained = per_minute * absl::FDivDuration(passed, absl::Minutes(1));
  return per_minute - std::max(0.0, spent_ - regained);
}

absl::Duration TokenBucket::Take(double per_minute, absl::Duration now) {
  const double tokens = TokensAt(per_minute, now);
  // Seconds as doubles are exact to far less than a thousandth of a token.
  constexpr double kRounding = 1e-3;
  if (tokens < 1 - kRounding) return absl::Minutes(1) * ((1 - tokens) / per_minute);
  spent_ = per_minute - tokens + 1;
  last_ = std::max(last_, now);
  return absl::ZeroDuration();
}

bool TokenBucket::IsFull(double per_minute, absl::Duration now) const {
  return TokensAt(per_minute, now) >= per_minute;
}

}  // namespace latentforge::service
