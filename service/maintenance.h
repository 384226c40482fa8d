// The thread that lets time pass for the server.
#pragma once

#include <atomic>
#include <functional>
#include <thread>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "service/wakeup.h"

namespace latentforge::service {

// Calls `work` when poked, and every `interval`, from construction to destruction.
// Borrows the wakeup.
class Maintenance {
 public:
  Maintenance(std::function<absl::Status()> work, Wakeup& wakeup, absl::Duration interval);
  ~Maintenance();

 private:
  void Run();

  const std::function<absl::Status()> work_;
  Wakeup& wakeup_;
  const absl::Duration interval_;
  std::atomic<bool> stopping_ = false;
  std::thread thread_;  // last: it uses the others
};

}  // namespace latentforge::service
