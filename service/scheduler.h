// Leases: who runs which job, and what workers report about it.
#pragma once

#include <functional>
#include <list>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "latentforge/v1/worker_service.pb.h"
#include "service/auth/identity.h"
#include "service/job_engine.h"
#include "service/page_token.h"
#include "service/wakeup.h"
#include "service/worker_registry.h"

namespace latentforge::service {

struct SchedulerOptions {
  absl::Duration lease_duration = absl::Seconds(30);
  absl::Duration max_wait = absl::Seconds(30);  // of AcquireLease
  std::string version;                          // of this server
};

// WorkerService without gRPC; the contracts of its methods are in
// worker_service.proto. Safe for concurrent use, but one thread at a time may
// Tick. Borrows engine and wakeup.
class Scheduler {
 public:
  using AcquireDone = std::function<void(absl::StatusOr<v1::AcquireLeaseResponse>)>;

  // Pokes `wakeup` when Tick has something to do; see Maintenance.
  Scheduler(JobEngine& engine, Wakeup& wakeup, PageTokenCodec tokens, SchedulerOptions options);

  // Gives every lease that a former server granted its full time again: its worker
  // could not reach us. Leases in a shared store are other servers' as well, which may
  // know better: there nothing is written, but this server ends no lease before it has
  // served for the time of one. Call once, before serving.
  absl::Status RenewLeases();

  // Calls `done` once: now with an error; from Tick when a job is there or the time
  // is over; from Drain. Returns a ticket for Abandon, 0 when `done` was called.
  // The lease is the caller's.
  int64_t Acquire(const Identity& caller, const v1::AcquireLeaseRequest& request, AcquireDone done);

  // The caller is gone. True: `done` will not be called. False: it was, or is just
  // being, called.
  bool Abandon(int64_t ticket);

  absl::StatusOr<v1::HeartbeatResponse> Heartbeat(const Identity& caller,
                                                  const v1::HeartbeatRequest& request);
  absl::StatusOr<v1::ReportEventsResponse> ReportEvents(const Identity& caller,
                                                        const v1::ReportEventsRequest& request);
  absl::StatusOr<v1::CompleteAttemptResponse> Complete(const Identity& caller,
                                                       const v1::CompleteAttemptRequest& request);
  absl::StatusOr<v1::ListWorkersResponse> ListWorkers(const v1::ListWorkersRequest& request);

  // Ends leases and jobs whose time is over, unless that was done within a quarter of a second:
  // it is called whenever a job is queued. Then serves waiting workers. Where the store was away
  // no worker could renew its lease, so that none ends before the store has been back for the
  // time of one.
  absl::Status Tick();

  // Refuses every waiting and later Acquire with UNAVAILABLE DRAINING.
  void Drain();

  // What the workers that were seen lately said of themselves; those that only went on with
  // an attempt since the server started have no slots yet.
  std::vector<v1::WorkerInfo> Workers();

  struct Presence {
    int64_t workers = 0;
    int64_t slots = 0;
    int64_t leases = 0;
  };
  absl::StatusOr<Presence> CountPresence();

 private:
  struct Waiter {
    int64_t ticket = 0;
    JobEngine::Claimant claimant;
    absl::Duration deadline;  // of the monotonic clock
    AcquireDone done;
  };

  v1::AcquireLeaseResponse GrantOf(const JobEngine::Claimed& claimed) const;
  absl::Status ServeWaiter(int64_t ticket, const JobEngine::Claimant& claimant, bool& served);
  void TouchWaiting(absl::Time now);
  void EndWaits();
  absl::StatusOr<JobRecord> ApplyForWorker(const v1::Lease& lease, const Command& command,
                                           absl::string_view operation);
  bool IsUnheard(const JobRecord& record);
  absl::StatusOr<std::vector<JobRecord>> OverdueLeases(absl::Time now);
  absl::Status EndOverdue();
  absl::Status ServeWaiters();
  std::optional<Waiter> TakeWaiter(int64_t ticket);

  JobEngine& engine_;
  Wakeup& wakeup_;
  const PageTokenCodec tokens_;
  const SchedulerOptions options_;
  WorkerRegistry workers_;

  // Of Tick, and RenewLeases before it. Times are of the monotonic clock.
  absl::Duration next_overdue_ = -absl::InfiniteDuration();
  bool store_away_ = false;
  absl::Duration no_lease_ends_before_ = -absl::InfiniteDuration();

  absl::Mutex mutex_;
  std::list<Waiter> waiters_ ABSL_GUARDED_BY(mutex_);  // longest waiting first
  int64_t last_ticket_ ABSL_GUARDED_BY(mutex_) = 0;
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  // Leases of a former server, by job, under which nobody was heard yet.
  std::map<std::string, int64_t> unheard_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace latentforge::service
