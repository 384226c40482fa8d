// Which workers were seen lately; in memory, because it means nothing after a
// restart.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "latentforge/v1/worker_service.pb.h"

namespace latentforge::service {

// Safe for concurrent use.
class WorkerRegistry {
 public:
  // A worker that did not call for `forget_after` is forgotten.
  explicit WorkerRegistry(absl::Duration forget_after) : forget_after_(forget_after) {}

  // A worker asked for work and said what it is.
  void Introduce(const v1::WorkerInfo& info, absl::Time now);

  // A worker called; one that never introduced itself gets an entry with its name.
  void Touch(const std::string& name, absl::Time now);

  struct Presence {
    v1::WorkerInfo info;
    absl::Time last_seen;
  };

  // By name.
  std::vector<Presence> List(absl::Time now);

 private:
  const absl::Duration forget_after_;
  absl::Mutex mutex_;
  std::map<std::string, Presence> workers_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace latentforge::service
