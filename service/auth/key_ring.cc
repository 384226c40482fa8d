#include "service/auth/key_ring.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/status_macros.h"

namespace latentforge::service {

KeyRing::KeyRing(Fetch fetch, const Intervals& intervals, const Clock& clock)
    : fetch_(std::move(fetch)), intervals_(intervals), clock_(clock), thread_([this] { Run(); }) {}

KeyRing::~KeyRing() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
    woken_.Set();
  }
  thread_.join();
}

std::shared_ptr<const KeySet> KeyRing::Current() {
  absl::MutexLock lock(&mutex_);
  return keys_;
}

bool KeyRing::Refresh() {
  absl::MutexLock lock(&mutex_);
  if (fetching_) return true;
  fetching_ = clock_.Monotonic() - last_fetch_ >= intervals_.min_interval;
  if (fetching_) woken_.Set();
  return fetching_;
}

bool KeyRing::WaitForNextFetch() {
  // Without any keys nobody gets in: try again soon.
  woken_.WaitFor(Current() == nullptr ? intervals_.min_interval : intervals_.max_age);
  absl::MutexLock lock(&mutex_);
  woken_.TakeWithin(absl::ZeroDuration());  // who asks from here on is told of this fetch
  fetching_ = true;
  return !stopping_;
}

void KeyRing::Run() {
  do FetchOnce();
  while (WaitForNextFetch());
}

void KeyRing::FetchOnce() {
  const auto read = [this]() -> absl::StatusOr<KeySet> {
    LF_ASSIGN_OR_RETURN(const std::string text, fetch_());
    return KeySet::Parse(text);
  };
  absl::StatusOr<KeySet> keys = read();
  absl::MutexLock lock(&mutex_);
  last_fetch_ = clock_.Monotonic();
  fetching_ = false;
  if (keys.ok()) {
    keys_ = std::make_shared<const KeySet>(*std::move(keys));
  } else {
    Log(Severity::kError, "the keys that sign tokens cannot be read; the former ones stay in force",
        {{"error", std::string(keys.status().message())}});
  }
}

}  // namespace latentforge::service
