#include "service/store/group_commit.h"

#include <utility>

#include "base/status_macros.h"

namespace latentforge::service {

absl::Status GroupCommit::Run(const Body& body) {
  Request request{.body = &body};
  {
    absl::MutexLock lock(&mutex_);
    waiting_.push_back(&request);
    if (leading_) {
      mutex_.AwaitWithTimeout(absl::Condition(&request.woken), absl::InfiniteDuration());
      if (request.done) return request.status;
    }
    leading_ = true;
  }
  // What came while the last leader waited for the disk, this request among it.
  const std::vector<Request*> requests = TakeWaiting();
  const absl::Status committed = RunAll(requests);
  absl::MutexLock lock(&mutex_);
  for (Request* const served : requests) {
    if (served->status.ok()) served->status = committed;
    served->done = served->woken = true;
  }
  // The next one leads.
  leading_ = !waiting_.empty();
  if (leading_) waiting_.front()->woken = true;
  return request.status;
}

std::vector<GroupCommit::Request*> GroupCommit::TakeWaiting() {
  absl::MutexLock lock(&mutex_);
  return std::exchange(waiting_, {});
}

// In a savepoint, so that it can be undone alone.
absl::Status GroupCommit::RunOne(Database& db, const Body& body) {
  LF_RETURN_IF_ERROR(db.Execute("SAVEPOINT one"));
  absl::Status status = body(db);
  // SQLite itself rolls everything back after some errors, of the disk above all.
  if (!db.in_transaction()) return status;
  if (!status.ok()) LF_RETURN_IF_ERROR(db.Execute("ROLLBACK TO one"));
  LF_RETURN_IF_ERROR(db.Execute("RELEASE one"));
  return status;
}

absl::Status GroupCommit::RunAll(const std::vector<Request*>& requests) {
  LF_ASSIGN_OR_RETURN(Transaction transaction, Transaction::Begin(writer_));
  for (Request* const request : requests) {
    request->status = RunOne(writer_, *request->body);
    if (!writer_.in_transaction()) return request->status;
  }
  return transaction.Commit();
}

}  // namespace latentforge::service
