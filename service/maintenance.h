// The thread that lets time pass for the scheduler.
#pragma once

#include <atomic>
#include <thread>

#include "absl/time/time.h"
#include "service/scheduler.h"
#include "service/wakeup.h"

namespace latentforge::service {

// Calls Scheduler::Tick when poked, and every `interval`, from construction to
// destruction. Borrows both.
class Maintenance {
 public:
  Maintenance(Scheduler& scheduler, Wakeup& wakeup, absl::Duration interval);
  ~Maintenance();

 private:
  void Run();

  Scheduler& scheduler_;
  Wakeup& wakeup_;
  const absl::Duration interval_;
  std::atomic<bool> stopping_ = false;
  std::thread thread_;  // last: it uses the others
};

}  // namespace latentforge::service
