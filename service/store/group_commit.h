// Many callers' changes in one transaction of SQLite, and so in one fsync.
#pragma once

#include <functional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "service/store/sqlite_db.h"

namespace latentforge::service {

// Safe for concurrent use.
class GroupCommit {
 public:
  using Body = std::function<absl::Status(Database&)>;

  explicit GroupCommit(Database writer) : writer_(std::move(writer)) {}

  // Runs `body` on one of the callers' threads, alone with the connection, and returns when what
  // it wrote is on disk together with what others wrote meanwhile. A body that fails leaves
  // nothing, and does not disturb the others; its own error is returned. A commit that fails is
  // every caller's error, and none has written anything.
  absl::Status Run(const Body& body);

 private:
  struct Request {
    const Body* body;
    absl::Status status;
    bool done = false;
    bool woken = false;  // done, or to lead
  };

  // The requests that wait, in the order in which they came.
  std::vector<Request*> TakeWaiting();
  static absl::Status RunOne(Database& db, const Body& body);
  absl::Status RunAll(const std::vector<Request*>& requests);

  absl::Mutex mutex_;
  std::vector<Request*> waiting_ ABSL_GUARDED_BY(mutex_);
  bool leading_ ABSL_GUARDED_BY(mutex_) = false;  // a caller runs the requests of others
  Database writer_;                               // the leader's
};

}  // namespace latentforge::service
