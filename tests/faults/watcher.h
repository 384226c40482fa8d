// Watches without threads of their own, by the thousand.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "grpcpp/grpcpp.h"
#include "latentforge/v1/job_service.grpc.pb.h"

namespace latentforge::faults {

// Connections that watchers share. Immutable.
class WatcherPool {
 public:
  WatcherPool(const std::string& address, size_t connections);

  v1::JobService::Stub& stub(size_t number) const { return *stubs_[number % stubs_.size()]; }

 private:
  std::vector<std::unique_ptr<v1::JobService::Stub>> stubs_;
};

// Follows one job from its first event to its end, over any number of streams. Safe for concurrent
// use. Borrows the pool.
class Watcher {
 public:
  Watcher(const WatcherPool& pool, size_t number, std::string job);
  ~Watcher();

  // Blocks until the job's end; what was wrong, else "".
  std::string Wait();

  int64_t last_sequence() const { return last_; }
  int streams() const { return streams_; }

 private:
  class Stream;

  void Open();
  void Take(const v1::WatchJobResponse& message);
  void Ended(const grpc::Status& status);

  v1::JobService::Stub& stub_;
  const std::string job_;
  std::atomic<int64_t> last_ = 0;
  std::atomic<int> streams_ = 0;
  absl::Mutex mutex_;
  std::string problem_ ABSL_GUARDED_BY(mutex_);
  bool done_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace latentforge::faults
