// A history that many clients write at once.
#pragma once

#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "tests/faults/history.h"

namespace latentforge::faults {

// A job that some client knows of, and whose it is.
struct KnownJob {
  std::string name;
  std::string tenant;
};

// Safe for concurrent use.
class Recorder {
 public:
  void Sent(const std::string& request) {
    absl::MutexLock lock(&mutex_);
    history_.submits[request];
  }
  void Acknowledged(const std::string& request, const KnownJob& job) {
    absl::MutexLock lock(&mutex_);
    if (history_.submits[request].insert(job.name).second) jobs_.push_back(job);
  }
  void Seen(const std::string& tenant, const std::string& job) {
    absl::MutexLock lock(&mutex_);
    history_.seen[tenant].insert(job);
  }
  void Cancelled(const std::string& job) {
    absl::MutexLock lock(&mutex_);
    history_.cancels.emplace(job, absl::Now());
  }
  void Add(Watched watched) {
    absl::MutexLock lock(&mutex_);
    history_.watches.push_back(std::move(watched));
  }

  // One of the acknowledged jobs, more often a late one; without a name while there is none.
  KnownJob PickJob(std::mt19937_64& random) const {
    absl::MutexLock lock(&mutex_);
    if (jobs_.empty()) return {};
    const size_t back =
        random() % (random() % 2 == 0 ? std::min<size_t>(8, jobs_.size()) : jobs_.size());
    return jobs_[jobs_.size() - 1 - back];
  }

  // Whether there is something to check.
  bool Enough() const {
    absl::MutexLock lock(&mutex_);
    return jobs_.size() > 10 && history_.watches.size() > 10;
  }

  History Take() {
    absl::MutexLock lock(&mutex_);
    return std::move(history_);
  }

 private:
  mutable absl::Mutex mutex_;
  History history_ ABSL_GUARDED_BY(mutex_);
  std::vector<KnownJob> jobs_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace latentforge::faults
