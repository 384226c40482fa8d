// Workers that do no work: they take jobs and end them.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "bench/service/target.h"

namespace latentforge::bench {

// Each waits for a job on a thread of its own, tells `leased`, and, unless that says false,
// completes it as succeeded and waits for the next; until destroyed.
class IdleWorkers {
 public:
  using Leased = std::function<bool(const v1::Lease&)>;

  IdleWorkers(Target& target, int count, Leased leased);
  ~IdleWorkers();

 private:
  void Run(int number);
  bool Begin(int number, grpc::ClientContext* context);

  Target& target_;
  const Leased leased_;
  absl::Mutex mutex_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<grpc::ClientContext*> waiting_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::thread> threads_;  // last: they use the others
};

}  // namespace latentforge::bench
