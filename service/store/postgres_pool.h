// Connections to one database, shared by threads.
#pragma once

#include <functional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "service/store/postgres_db.h"

namespace latentforge::service {

// Opens connections as they are needed, at most `size`, and keeps those that still
// work. After a connection could not be made, one attempt at a time is made, with
// growing pauses; meanwhile Borrow fails at once: a database that comes back meets
// no crowd. Safe for concurrent use. Outlives its loans. Borrows the clock.
class PgPool {
 public:
  using Connect = std::function<absl::StatusOr<PgConnection>()>;

  PgPool(Connect connect, int size, absl::Duration patience, const Clock& clock)
      : connect_(std::move(connect)), size_(size), patience_(patience), clock_(clock) {}

  // A connection that comes back when this ends.
  class Loan {
   public:
    Loan(Loan&& other) noexcept;
    Loan& operator=(Loan&&) = delete;
    ~Loan();

    PgConnection& operator*() { return connection_; }
    PgConnection* operator->() { return &connection_; }

   private:
    friend class PgPool;
    Loan(PgPool& pool, PgConnection connection)
        : pool_(&pool), connection_(std::move(connection)) {}
    PgPool* pool_;  // nullptr when moved from
    PgConnection connection_;
  };

  // Waits up to `patience` while all connections are lent. Unavailable STORE_DOWN
  // when none came back, or none can be made.
  absl::StatusOr<Loan> Borrow();

 private:
  bool HasRoom() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return lent_ < size_; }
  absl::StatusOr<PgConnection> Find();
  absl::Status MayConnect() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Connected(const absl::Status& status);
  void Return(PgConnection connection);

  const Connect connect_;
  const int size_;
  const absl::Duration patience_;
  const Clock& clock_;
  absl::Mutex mutex_;
  int lent_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<PgConnection> idle_ ABSL_GUARDED_BY(mutex_);  // used last at the end
  absl::Status failure_ ABSL_GUARDED_BY(mutex_);            // of the last attempt to connect
  int failures_ ABSL_GUARDED_BY(mutex_) = 0;                // of a row
  absl::Duration next_attempt_ ABSL_GUARDED_BY(mutex_) = absl::ZeroDuration();  // monotonic
};

}  // namespace latentforge::service
