// Brings watchers the events that other servers of the store wrote.
#pragma once

#include "absl/status/status.h"
#include "service/store/store.h"
#include "service/watch_hub.h"

namespace latentforge::service {

// Compares what the hub published with what the store holds: one query for all watched
// jobs, and one more for each that went on, however many watch it. Borrows both. For
// one thread.
class WatchTail {
 public:
  WatchTail(Store& store, WatchHub& hub) : store_(store), hub_(hub) {}

  // Publishes what is new. The first error of the store; what it holds back is not lost,
  // only later.
  absl::Status Tick();

 private:
  Store& store_;
  WatchHub& hub_;
};

}  // namespace latentforge::service
