// Every open watch: their number, their bookmarks, their end at shutdown.
#pragma once

#include <atomic>
#include <set>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace latentforge::service {

// Safe for concurrent use. Outlives the watchers in it.
class WatchRegistry {
 public:
  // A watch. Called with the registry's lock held: must be quick and must not call
  // the registry.
  class Watcher {
   public:
    virtual ~Watcher() = default;
    virtual void OnTick() = 0;   // time passed; perhaps a bookmark is due
    virtual void OnDrain() = 0;  // end as soon as possible
  };

  // Ticks every `interval` on a thread of its own.
  WatchRegistry(int limit, absl::Duration interval);
  ~WatchRegistry();

  // False when there are as many as allowed.
  bool Add(Watcher* watcher);
  void Remove(Watcher* watcher);

  // Ends every watch, now and from now on.
  void Drain();
  bool draining() const { return draining_; }

  int size();

 private:
  void Run();

  const int limit_;
  const absl::Duration interval_;
  absl::Mutex mutex_;
  std::set<Watcher*> watchers_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::atomic<bool> draining_ = false;
  std::thread thread_;  // last: it uses the others
};

}  // namespace latentforge::service
