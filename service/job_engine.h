// The one way in which a stored job changes.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/clock.h"
#include "service/job_state.h"
#include "service/observer.h"
#include "service/store/store.h"
#include "service/tenant_table.h"
#include "service/watch_hub.h"

namespace latentforge::service {

// Reads a job, decides, commits guarded by the version, and tells watchers and
// observer. Safe for concurrent use. Borrows everything.
class JobEngine {
 public:
  struct Parts {
    Store& store;
    WatchHub& hub;
    Observer& observer;
    const Clock& clock;
    TenantSource tenants = NoTenantLimits();
  };

  JobEngine(const Parts& parts, const StatePolicy& policy) : parts_(parts), policy_(policy) {}

  // Called after a commit that left a job queued, and when Claim stops before it has seen all that
  // may be claimed; set before use.
  void set_on_queued(std::function<void()> on_queued) { on_queued_ = std::move(on_queued); }

  // Applies a command, again when another one was faster. Returns the record after
  // it. Errors of Store::Get, Decide and Store::Commit.
  absl::StatusOr<JobRecord> Apply(absl::string_view id, const Command& command);

  // A job that was leased, and what of the file system its attempt may see.
  struct Claimed {
    JobRecord record;
    PathRoots allowed_roots;  // none: everything
  };

  // Who asks for a job.
  struct Claimant {
    v1::WorkerInfo worker;
    std::string subject;  // whose the lease will be
  };

  // Leases the job whose turn it is, of those that the worker can run, to it; nullopt when
  // there is none. Jobs whose turn it is but whose paths do not lie beneath their tenant's roots
  // any more fail, up to twenty in one call. Errors of Store::Claim.
  absl::StatusOr<std::optional<Claimed>> Claim(const Claimant& claimant,
                                               absl::Duration lease_duration);

  // Stores a new job, within its tenant's limits. Errors of Store::Create.
  absl::StatusOr<JobRecord> Create(JobRecord job, const std::string& request_id,
                                   const std::string& request_digest);

  // Whether Create of a job with these needs would keep the tenant's limits now; its error when
  // not.
  absl::Status CheckQuota(const std::string& tenant, const std::string& needs);

  // Removes a job as it was read. Errors of Store::Delete.
  absl::Status Delete(const JobRecord& record);

  Store& store() { return parts_.store; }
  Observer& observer() { return parts_.observer; }
  // In whole microseconds, as stores keep times: what a change answers is what is read later.
  absl::Time Now() const { return absl::FromUnixMicros(absl::ToUnixMicros(parts_.clock.Now())); }
  // For intervals: what a step of the wall clock does not change.
  absl::Duration Monotonic() const { return parts_.clock.Monotonic(); }
  TenantLimits LimitsOf(const std::string& tenant) const { return parts_.tenants()->Of(tenant); }

 private:
  QueueLimits QueueLimitsOf(const std::string& tenant) const;
  // Claim of one job, which afterwards holds a lease or has failed.
  absl::StatusOr<std::optional<Claimed>> ClaimOnce(const Claimant& claimant,
                                                   absl::Duration lease_duration);
  absl::StatusOr<JobRecord> ApplyOnce(absl::string_view id, const Command& command);
  void Tell(const JobRecord& after, const std::vector<v1::JobEvent>& events);

  Parts parts_;
  StatePolicy policy_;
  std::function<void()> on_queued_;
};

}  // namespace latentforge::service
