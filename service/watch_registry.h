// Every open watch and reading of logs: their number, their bookmarks, their end at shutdown.
#pragma once

#include <atomic>
#include <map>
#include <set>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "base/timed_flag.h"

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

  struct Limits {
    int watches = 1000;
    int watches_per_tenant = 0;  // 0: as many as there may be in all
  };

  // Ticks every `interval` on a thread of its own.
  WatchRegistry(const Limits& limits, absl::Duration interval);
  ~WatchRegistry();

  // TOO_MANY_WATCHES, which names the limit, when there are as many as allowed.
  absl::Status Add(Watcher* watcher, const std::string& tenant);
  void Remove(Watcher* watcher);

  // Ends every watch, now and from now on.
  void Drain();
  bool draining() const { return draining_; }

  int size();

 private:
  void Run();

  const Limits limits_;
  const absl::Duration interval_;
  absl::Mutex mutex_;
  std::map<Watcher*, std::string> watchers_ ABSL_GUARDED_BY(mutex_);  // with their tenants
  std::map<std::string, int> counts_ ABSL_GUARDED_BY(mutex_);         // by tenant, never 0
  TimedFlag stopping_;
  std::atomic<bool> draining_ = false;
  std::thread thread_;  // last: it uses the others
};

}  // namespace latentforge::service
