// Threads for work that may block, so that gRPC's own never do.
#pragma once

#include <deque>
#include <functional>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace latentforge::service {

// Runs tasks in order of submission on a fixed number of threads. Safe for
// concurrent use. The destructor runs what was submitted before it returns.
class ThreadPool {
 public:
  explicit ThreadPool(int threads);
  ~ThreadPool();

  void Submit(std::function<void()> task);

 private:
  void Work();
  bool HasWork() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return stopping_ || !tasks_.empty();
  }

  absl::Mutex mutex_;
  std::deque<std::function<void()>> tasks_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;  // last: they use the others
};

}  // namespace latentforge::service
