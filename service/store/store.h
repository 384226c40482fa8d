// Durable storage of jobs. SQLite implements it; every implementation passes
// tests/service/store/store_test_suite.h.
#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "latentforge/v1/job.pb.h"
#include "service/job_record.h"

namespace latentforge::service {

// A job to be stored with its first events. An empty request_id is not kept.
struct NewJob {
  JobRecord record;
  std::vector<v1::JobEvent> events;
  std::string request_id;
  std::string request_digest;  // of the request's body
};

// Which job a request_id made.
struct StoredRequest {
  std::string job_id;
  std::string digest;
};

// A change of one job: written whole or not at all.
struct JobUpdate {
  int64_t expected_version = 0;
  JobRecord record;  // its version is set by the store
  std::vector<v1::JobEvent> events;
  std::optional<AttemptRecord> attempt;  // inserted, or replaced by number
};

// A page of jobs, newest first. Every set condition must hold.
struct JobQuery {
  std::string tenant;  // empty: every one
  std::vector<v1::JobState> states;
  std::map<std::string, std::string> labels;
  int64_t before_ordinal = std::numeric_limits<int64_t>::max();
  int limit = 50;
};

struct StoreStats {
  std::map<v1::JobState, int64_t> jobs;  // states without jobs are absent
  std::optional<absl::Time> oldest_queue_time;
};

// Safe for concurrent use. Every method may also return Unavailable (locked by
// another process), ResourceExhausted (disk full), DataLoss (corrupt file) or
// Internal. When a method that writes returns OK the change is on disk.
class Store {
 public:
  virtual ~Store() = default;

  // AlreadyExists with reason OUTPUT_IN_USE when an active job has the same
  // output_path, REQUEST_ID_REUSED when the tenant's request_id is taken. Returns the
  // record with ordinal and version.
  virtual absl::StatusOr<JobRecord> Create(const NewJob& job) = 0;

  // NotFound with reason JOB_NOT_FOUND.
  virtual absl::StatusOr<JobRecord> Get(absl::string_view id) = 0;

  virtual absl::StatusOr<std::optional<StoredRequest>> FindRequest(
      absl::string_view tenant, absl::string_view request_id) = 0;

  virtual absl::StatusOr<std::vector<JobRecord>> List(const JobQuery& query) = 0;

  // Writes row, events and attempt in one transaction. Aborted with reason
  // CONCURRENT_TRANSITION when the version is another one; NotFound when the job
  // is gone. Returns the record with its new version.
  virtual absl::StatusOr<JobRecord> Commit(const JobUpdate& update) = 0;

  // The oldest job that may be claimed at `now`; those that need CUDA only when
  // `with_cuda`.
  virtual absl::StatusOr<std::optional<JobRecord>> NextClaimable(absl::Time now,
                                                                 bool with_cuda) = 0;

  // Jobs that hold a lease ending at or before `time`; every one for InfiniteFuture.
  virtual absl::StatusOr<std::vector<JobRecord>> LeasesEndingBy(absl::Time time) = 0;

  // Jobs not ended whose deadline is at or before `time`.
  virtual absl::StatusOr<std::vector<JobRecord>> DeadlinesBy(absl::Time time) = 0;

  // Events with sequence > after, in order, at most `limit`. NotFound as in Get.
  virtual absl::StatusOr<std::vector<v1::JobEvent>> Events(absl::string_view id, int64_t after,
                                                           int limit) = 0;

  // Attempts by number. NotFound as in Get.
  virtual absl::StatusOr<std::vector<AttemptRecord>> Attempts(absl::string_view id) = 0;

  // Removes the job with all that belongs to it. Errors as in Commit.
  virtual absl::Status Delete(absl::string_view id, int64_t expected_version) = 0;

  virtual absl::StatusOr<StoreStats> Stats() = 0;

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

}  // namespace latentforge::service
