// A key set that follows its source.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "base/clock.h"
#include "base/timed_flag.h"
#include "service/auth/key_set.h"

namespace latentforge::service {

// Where a verifier finds keys. Implementations are safe for concurrent use and never wait.
class SigningKeys {
 public:
  virtual ~SigningKeys() = default;

  // nullptr until there are any.
  virtual std::shared_ptr<const KeySet> Current() = 0;

  // Asks for newer keys. True when they are being fetched: ask for Current again soon.
  virtual bool Refresh() = 0;
};

// Fetches on a thread of its own, so that no call waits for it: now, every `max_age`, and
// when asked to, but not within `min_interval` of the last time. What cannot be fetched or
// read is logged, and the former keys stay. Safe for concurrent use. Borrows the clock.
class KeyRing final : public SigningKeys {
 public:
  using Fetch = std::function<absl::StatusOr<std::string>()>;  // the text of a key set

  struct Intervals {
    absl::Duration max_age = absl::Minutes(5);
    absl::Duration min_interval = absl::Seconds(10);
  };

  KeyRing(Fetch fetch, const Intervals& intervals, const Clock& clock);
  ~KeyRing() override;

  std::shared_ptr<const KeySet> Current() override;
  bool Refresh() override;

 private:
  void Run();
  void FetchOnce();
  // Until it is time to fetch again, or somebody asks. False: the end.
  bool WaitForNextFetch();

  const Fetch fetch_;
  const Intervals intervals_;
  const Clock& clock_;
  absl::Mutex mutex_;
  std::shared_ptr<const KeySet> keys_ ABSL_GUARDED_BY(mutex_);
  absl::Duration last_fetch_ ABSL_GUARDED_BY(mutex_);
  bool fetching_ ABSL_GUARDED_BY(mutex_) = true;  // or about to
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  TimedFlag woken_;     // stopping, or asked to fetch
  std::thread thread_;  // last: it uses the others
};

}  // namespace latentforge::service
