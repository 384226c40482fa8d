#include "worker/agent/attempt_control.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <utility>

#include "base/file.h"

namespace latentforge::agent {

StopReason StopWantedBy(v1::AttemptCommand command) {
  switch (command) {
    case v1::ATTEMPT_COMMAND_PAUSE:
      return StopReason::kPause;
    case v1::ATTEMPT_COMMAND_CANCEL:
      return StopReason::kCancel;
    default:
      return StopReason::kNone;
  }
}

absl::StatusOr<std::unique_ptr<AttemptControl>> AttemptControl::Create() {
  UniqueFd fd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!fd.valid()) return ErrnoStatus(errno, "make", "event descriptor");
  return std::unique_ptr<AttemptControl>(new AttemptControl(std::move(fd)));
}

void AttemptControl::RequestStop(StopReason reason) {
  absl::MutexLock lock(&mutex_);
  if (reason <= reason_) return;
  reason_ = reason;
  if (reason == StopReason::kLeaseLost) silenced_.Set();
  const uint64_t one = 1;
  // Only a counter at its maximum would refuse, and that is readable already.
  [[maybe_unused]] const ssize_t written = write(wake_fd_.get(), &one, sizeof(one));
}

StopReason AttemptControl::reason() const {
  absl::MutexLock lock(&mutex_);
  return reason_;
}

void AttemptControl::SetDeadline(absl::Duration monotonic) {
  absl::MutexLock lock(&mutex_);
  deadline_ = monotonic;
  if (shared_.has_value()) shared_->Set(deadline_);
}

void AttemptControl::ShareDeadline(SharedDeadline file) {
  absl::MutexLock lock(&mutex_);
  shared_ = std::move(file);
  shared_->Set(deadline_);
}

void AttemptControl::GiveUp() {
  absl::MutexLock lock(&mutex_);
  gave_up_ = true;
  silenced_.Set();
}

bool AttemptControl::gave_up() const {
  absl::MutexLock lock(&mutex_);
  return gave_up_;
}

bool AttemptControl::Pause(absl::Duration duration) const { return !silenced_.WaitFor(duration); }

void AttemptControl::ClearWake() {
  uint64_t count;
  // Nothing to read means nothing to clear.
  [[maybe_unused]] const ssize_t got = read(wake_fd_.get(), &count, sizeof(count));
}

}  // namespace latentforge::agent
