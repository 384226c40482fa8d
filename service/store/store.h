// Durable storage of jobs: SQLite for one server, PostgreSQL for several. Both pass
// tests/service/store/store_test_suite.h.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "latentforge/v1/job.pb.h"
#include "latentforge/v1/worker_service.pb.h"
#include "service/job_record.h"
#include "service/log_record.h"
#include "service/tenant_table.h"

namespace latentforge::service {

// What a tenant may have waiting, with the job that is written; 0: no limit.
struct QueueLimits {
  int64_t jobs = 0;
  int64_t kinds = 0;  // different needs
};

// A job to be stored with its first events. An empty request_id is not kept.
struct NewJob {
  JobRecord record;
  std::vector<v1::JobEvent> events;
  std::string request_id;
  std::string request_digest;  // of the request's body
  QueueLimits limits;
};

// Which job a request_id made.
struct StoredRequest {
  std::string job_id;
  std::string digest;
  bool deleted = false;  // the job is gone; a tombstone remembers it
};

// Events of a job that are no longer needed: those up to `through` but for `keep`. From then on
// only what follows `through` is complete.
struct EventCompaction {
  std::string id;
  int64_t through = 0;
  std::vector<int64_t> keep;  // rising, after the last compaction
};

// A job, and what it has of events.
struct EventSpan {
  std::string id;
  int64_t compacted = 0;  // `through` of its last compaction; 0: none
  int64_t last = 0;
};

// The end of a job's row.
struct JobDeletion {
  std::string id;
  int64_t expected_version = 0;
  absl::Time delete_time;
};

// A change of one job: written whole or not at all.
struct JobUpdate {
  int64_t expected_version = 0;
  JobRecord record;  // its version is set by the store
  std::vector<v1::JobEvent> events;
  std::optional<AttemptRecord> attempt;  // inserted, or replaced by number
  QueueLimits limits;
};

// A page of jobs, newest first. Every set condition must hold.
struct JobQuery {
  std::string tenant;  // empty: every one
  std::vector<v1::JobState> states;
  std::map<std::string, std::string> labels;
  int64_t before_ordinal = std::numeric_limits<int64_t>::max();
  int limit = 50;
};

// Which queued jobs may be claimed: those with claimable_time at or before `now` which the
// worker can run, of tenants that are below their limits. Whose turn it is says
// fair_share.h; of one tenant it is the job with the earliest rank_time, the older of two.
struct ClaimQuery {
  absl::Time now;
  v1::WorkerInfo worker;
  std::shared_ptr<const TenantTable> tenants = std::make_shared<const TenantTable>();
};

// Jobs of one tenant, and GPUs that they occupy.
struct TenantUse {
  int64_t queued = 0;
  int64_t paused = 0;
  int64_t running = 0;  // that hold a lease
  int64_t gpus = 0;

  int64_t waiting() const { return queued + paused; }
};

// The stores have an index of the jobs with as many events.
inline constexpr int64_t kLeastLongHistory = 1000;

struct StoreStats {
  std::map<v1::JobState, int64_t> jobs;  // states without jobs are absent
  std::optional<absl::Time> oldest_queue_time;
};

// Safe for concurrent use. Every method may also return Unavailable (STORE_BUSY: locked
// by another process; STORE_DOWN: not reachable), ResourceExhausted (disk full),
// DataLoss (corrupt) or Internal. When a method that writes returns OK the change is on
// disk; when it returns STORE_DOWN, the change may have happened all the same.
class Store {
 public:
  virtual ~Store() = default;

  // Other servers may write to it at the same time.
  virtual bool shared() const = 0;

  // The time that all servers of this store agree on.
  virtual absl::StatusOr<absl::Time> Now() = 0;

  // AlreadyExists with reason OUTPUT_IN_USE when an active job has the same
  // output_path, REQUEST_ID_REUSED when the tenant's request_id is taken; ResourceExhausted
  // with reason QUOTA_QUEUED_JOBS when limits.jobs would be passed, however many callers
  // there are at once, and QUOTA_QUEUED_KINDS for limits.kinds, which calls at one moment may
  // pass by as many as they are. Returns the record with ordinal and version.
  virtual absl::StatusOr<JobRecord> Create(const NewJob& job) = 0;

  // NotFound with reason JOB_NOT_FOUND.
  virtual absl::StatusOr<JobRecord> Get(absl::string_view id) = 0;

  virtual absl::StatusOr<std::optional<StoredRequest>> FindRequest(
      absl::string_view tenant, absl::string_view request_id) = 0;

  virtual absl::StatusOr<std::vector<JobRecord>> List(const JobQuery& query) = 0;

  // Writes row, events and attempt in one transaction. Aborted with reason
  // CONCURRENT_TRANSITION when the version is another one; NotFound when the job
  // is gone; AlreadyExists with reason OUTPUT_IN_USE when the job becomes active
  // again and another one has its output_path; ResourceExhausted as in Create. Returns the
  // record with its new version.
  virtual absl::StatusOr<JobRecord> Commit(const JobUpdate& update) = 0;

  // Finds the job whose turn it is, asks `decide` for its change, writes that and, where it is a
  // lease, charges the tenant, all in one transaction, so that no two callers get one job and no
  // limit is passed. Returns the record with its new version; nullopt when no job may be claimed.
  // An error of `decide`, which must not call the store, is returned and nothing is written.
  using DecideClaim = std::function<absl::StatusOr<JobUpdate>(const JobRecord&)>;
  virtual absl::StatusOr<std::optional<JobRecord>> Claim(const ClaimQuery& query,
                                                         const DecideClaim& decide) = 0;

  // Jobs that hold a lease ending at or before `time`; every one for InfiniteFuture.
  virtual absl::StatusOr<std::vector<JobRecord>> LeasesEndingBy(absl::Time time) = 0;

  // Jobs whose NextDeadline is at or before `time`.
  virtual absl::StatusOr<std::vector<JobRecord>> DeadlinesBy(absl::Time time) = 0;

  // Events with sequence > after, in order, at most `limit`. NotFound as in Get.
  virtual absl::StatusOr<std::vector<v1::JobEvent>> Events(absl::string_view id, int64_t after,
                                                           int limit) = 0;

  // Removes events and remembers up to which. Does nothing where that was done already.
  // NotFound as in Get. Touches nothing that Commit does.
  virtual absl::Status CompactEvents(const EventCompaction& compaction) = 0;

  // `through` of the job's last compaction; 0 when there was none. NotFound as in Get.
  virtual absl::StatusOr<int64_t> CompactedThrough(absl::string_view id) = 0;

  // At most `limit` jobs, in whatever state, that have more events than `events` after their
  // last compaction. `events` is at least kLeastLongHistory.
  virtual absl::StatusOr<std::vector<EventSpan>> LongHistories(int64_t events, int limit) = 0;

  // The sequence of the last event of each job; jobs that are gone are absent.
  virtual absl::StatusOr<std::map<std::string, int64_t>> LastSequences(
      const std::vector<std::string>& ids) = 0;

  // Attempts with number > after, in order, at most `limit`. NotFound as in Get.
  virtual absl::StatusOr<std::vector<AttemptRecord>> Attempts(absl::string_view id, int32_t after,
                                                              int limit) = 0;

  // Adds lines and drops those that are more than `keep`, the oldest first. NotFound as
  // in Get. Touches nothing that Commit does.
  virtual absl::StatusOr<LogAppended> AppendLogs(const LogAppend& append) = 0;

  // Lines in order. NotFound as in Get.
  virtual absl::StatusOr<std::vector<LogRecord>> Logs(const LogQuery& query) = 0;

  // The sequence after which the last `lines` lines of an attempt come; 0 when there are
  // no more than these. NotFound as in Get.
  virtual absl::StatusOr<int64_t> LogTail(absl::string_view id, int32_t attempt, int lines) = 0;

  // Removes the job with all that belongs to it; its request_id, where it has one,
  // stays taken by a tombstone. Errors as in Commit.
  virtual absl::Status Delete(const JobDeletion& deletion) = 0;

  // At most `limit` jobs whose expire_time is at or before `time`.
  virtual absl::StatusOr<std::vector<JobRecord>> ExpiredBy(absl::Time time, int limit) = 0;

  // Forgets at most `limit` tombstones of jobs that were deleted at or before `time`.
  virtual absl::Status PurgeTombstones(absl::Time time, int limit) = 0;

  virtual absl::StatusOr<StoreStats> Stats() = 0;

  // Counted from the jobs themselves.
  virtual absl::StatusOr<TenantUse> Use(absl::string_view tenant) = 0;

  // What the tenant's waiting jobs need, each NeedsKey once, in order.
  virtual absl::StatusOr<std::vector<std::string>> WaitingNeeds(absl::string_view tenant) = 0;

  // The value kept under `name`; `fresh` is stored when there is none.
  virtual absl::StatusOr<std::string> GetOrPutSecret(absl::string_view name,
                                                     absl::string_view fresh) = 0;
};

// The errors that implementations share.
absl::Status JobNotFoundError(absl::string_view id);
absl::Status ConcurrentTransitionError(absl::string_view id, int64_t expected_version);
// `id` is that of a job that the caller may know of, else empty.
absl::Status OutputInUseError(absl::string_view output_path, absl::string_view id,
                              v1::JobState state);
absl::Status RequestIdTakenError(absl::string_view request_id);

// OK while the tenant's use leaves room for one more job that waits.
absl::Status CheckQueueQuota(absl::string_view tenant, const TenantUse& use, int64_t max_jobs);

// OK while what the tenant's jobs wait for leaves room for one that needs `needs`.
absl::Status CheckKindQuota(absl::string_view tenant, const std::vector<std::string>& waiting,
                            const std::string& needs, int64_t max_kinds);

}  // namespace latentforge::service
