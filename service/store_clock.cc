#include "service/store_clock.h"

#include "base/status_macros.h"

namespace latentforge::service {
namespace {

constexpr absl::Duration kUsefulError = absl::Milliseconds(100);

}  // namespace

absl::StatusOr<std::unique_ptr<StoreClock>> StoreClock::Start(Store& store, Clock& clock) {
  std::unique_ptr<StoreClock> started(new StoreClock(store, clock));
  LF_ASSIGN_OR_RETURN(const Anchor first, started->Ask());
  absl::MutexLock lock(&started->mutex_);
  started->anchor_ = first;
  return started;
}

absl::StatusOr<StoreClock::Anchor> StoreClock::Ask() {
  const absl::Duration before = clock_.Monotonic();
  LF_ASSIGN_OR_RETURN(const absl::Time time, store_.Now());
  const absl::Duration half = (clock_.Monotonic() - before) / 2;
  return Anchor{time, before + half, half};
}

absl::Status StoreClock::Refresh() {
  LF_ASSIGN_OR_RETURN(const Anchor fresh, Ask());
  absl::MutexLock lock(&mutex_);
  if (fresh.error <= kUsefulError) anchor_ = fresh;
  return absl::OkStatus();
}

absl::Time StoreClock::Now() const {
  absl::MutexLock lock(&mutex_);
  return anchor_.time + (clock_.Monotonic() - anchor_.monotonic);
}

}  // namespace latentforge::service
