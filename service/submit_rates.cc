#include "service/submit_rates.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "service/errors.h"

namespace latentforge::service {

absl::Status SubmitRates::Take(const std::string& tenant, int64_t per_minute, absl::Duration now) {
  if (per_minute == 0) return absl::OkStatus();
  absl::Duration wait;
  {
    absl::MutexLock lock(&mutex_);
    if (entries_.size() > forget_above_) ForgetIdle(now);
    Entry& entry = entries_[tenant];
    entry.per_minute = static_cast<double>(per_minute);
    wait = entry.bucket.Take(entry.per_minute, now);
  }
  if (wait == absl::ZeroDuration()) return absl::OkStatus();
  return WithRetryDelay(
      MakeError(absl::StatusCode::kResourceExhausted, kRateLimited,
                absl::StrCat("tenant ", tenant, " submits more than ", per_minute,
                             " jobs a minute; the next one may come in ",
                             absl::FormatDuration(absl::Ceil(wait, absl::Milliseconds(1)))),
                {{"tenant", tenant}, {"limit", absl::StrCat(per_minute)}}),
      wait);
}

void SubmitRates::ForgetIdle(absl::Duration now) {
  std::erase_if(entries_, [now](const auto& entry) {
    return entry.second.bucket.IsFull(entry.second.per_minute, now);
  });
  forget_above_ = std::max<size_t>(1000, 2 * entries_.size());
}

}  // namespace latentforge::service
