// Fan-out of job events to watchers, in memory.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "latentforge/v1/job.pb.h"

namespace latentforge::service {

// Safe for concurrent use. Outlives its subscriptions.
class WatchHub {
 public:
  // One watcher's interest in one job; ends when destroyed.
  class Subscription {
   public:
    ~Subscription();

    // Events published since the last call, in the order of publication. At most
    // kRing are kept: a slow reader sees a gap in the sequences, and reads what is
    // missing from the store.
    std::vector<std::shared_ptr<const v1::JobEvent>> Take();

   private:
    friend class WatchHub;
    Subscription(WatchHub& hub, std::string id, std::function<void()> notify)
        : hub_(hub), id_(std::move(id)), notify_(std::move(notify)) {}

    WatchHub& hub_;
    const std::string id_;
    const std::function<void()> notify_;
    std::deque<std::shared_ptr<const v1::JobEvent>> ring_ ABSL_GUARDED_BY(hub_.mutex_);
  };

  static constexpr size_t kRing = 256;

  // `notify` is called with a lock of the hub held whenever events come: it must
  // be quick and must not call the hub. It is not called any more once the
  // subscription's destructor has returned.
  std::unique_ptr<Subscription> Subscribe(const std::string& id, std::function<void()> notify);

  void Publish(const std::string& id, const std::vector<v1::JobEvent>& events);

  // The highest sequence published of each watched job; 0 where nothing was since its
  // first watcher came.
  std::map<std::string, int64_t> Published();

 private:
  struct Watched {
    std::set<Subscription*> subscriptions;
    int64_t published = 0;
  };

  absl::Mutex mutex_;
  std::map<std::string, Watched> watched_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace latentforge::service
