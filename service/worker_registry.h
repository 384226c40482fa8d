// Which workers were seen lately; in memory, because it means nothing after a
// restart.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "latentforge/v1/worker_service.pb.h"

namespace latentforge::service {

// Safe for concurrent use.
class WorkerRegistry {
 public:
  // A process that did not call for `alive_for` has lost its name to the next that
  // claims it; one that did not for `forget_after` is forgotten.
  WorkerRegistry(absl::Duration alive_for, absl::Duration forget_after)
      : alive_for_(alive_for), forget_after_(forget_after) {}

  // A worker asked for work and said what it is. ALREADY_EXISTS WORKER_NAME_TAKEN,
  // with the time after which to ask again, while another process of that name is
  // alive; nothing changes then.
  absl::Status Introduce(const v1::WorkerInfo& info, absl::Time now);

  // A worker called; one that never introduced itself gets an entry with its name.
  void Touch(const std::string& name, absl::Time now);

  // The process hung up or is leaving: until it calls again, another may have its
  // name.
  void Leave(const std::string& name);

  struct Presence {
    v1::WorkerInfo info;
    absl::Time last_seen;
    absl::Time first_seen;
    bool left = false;
  };

  // By name.
  std::vector<Presence> List(absl::Time now);

 private:
  const absl::Duration alive_for_;
  const absl::Duration forget_after_;
  absl::Mutex mutex_;
  std::map<std::string, Presence> workers_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace latentforge::service
