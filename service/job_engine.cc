#include "service/job_engine.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "service/errors.h"
#include "service/needs.h"
#include "service/spec_paths.h"

namespace latentforge::service {
namespace {

// Two callers alternate at worst; more rounds than this mean a fault.
constexpr int kMaxRounds = 16;

// Failing one job is a transaction, and other workers wait meanwhile: the next call goes on.
constexpr int kMostRejected = 20;

v1::ConversionError RootsChangedError(const absl::Status& problem) {
  v1::ConversionError error;
  error.set_reason("PATH_NOT_ALLOWED");
  error.set_message(
      absl::StrCat(problem.message(), ", which were others when the job was submitted"));
  error.set_error_class(v1::ERROR_CLASS_USER);
  return error;
}

JobUpdate UpdateOf(const JobRecord& before, const Transition& transition) {
  JobUpdate update;
  update.expected_version = before.version;
  update.record = transition.next;
  update.events = transition.events;
  update.attempt = transition.attempt;
  return update;
}

}  // namespace

absl::StatusOr<JobRecord> JobEngine::Apply(absl::string_view id, const Command& command) {
  absl::StatusOr<JobRecord> result = ApplyOnce(id, command);
  for (int round = 1; round < kMaxRounds && !result.ok(); ++round) {
    if (ReasonOf(result.status()) != kConcurrentTransition) break;
    result = ApplyOnce(id, command);
  }
  return result;
}

absl::StatusOr<JobRecord> JobEngine::ApplyOnce(absl::string_view id, const Command& command) {
  LF_ASSIGN_OR_RETURN(const JobRecord before, parts_.store.Get(id));
  LF_ASSIGN_OR_RETURN(const Transition transition, Decide(before, command, Now(), policy_));
  if (!transition.changed) return before;
  JobUpdate update = UpdateOf(before, transition);
  // What its user queues anew is as good as new. Paused jobs count as waiting already, and an
  // attempt that was lost must not be refused.
  if (std::holds_alternative<command::Retry>(command)) update.limits = QueueLimitsOf(before.tenant);
  LF_ASSIGN_OR_RETURN(JobRecord after, parts_.store.Commit(update));
  parts_.observer.Transitioned(before, transition);
  Tell(after, transition.events);
  return after;
}

absl::StatusOr<std::optional<JobEngine::Claimed>> JobEngine::ClaimOnce(
    const Claimant& claimant, absl::Duration lease_duration) {
  const absl::Time now = Now();
  const std::shared_ptr<const TenantTable> tenants = parts_.tenants();
  JobRecord before;
  PathRoots roots;
  Transition transition;
  const auto decide = [&](const JobRecord& candidate) -> absl::StatusOr<JobUpdate> {
    before = candidate;
    roots = tenants->Of(candidate.tenant).allowed_roots;
    Command command = command::Claim{claimant.worker.name(), lease_duration,
                                     GpusTaken(claimant.worker, ParseNeedsKey(candidate.needs)),
                                     claimant.subject};
    if (const absl::Status beneath = CheckBeneath(candidate.job.spec(), roots); !beneath.ok())
      command = command::Reject{RootsChangedError(beneath)};
    LF_ASSIGN_OR_RETURN(transition, Decide(before, command, now, policy_));
    return UpdateOf(before, transition);
  };
  LF_ASSIGN_OR_RETURN(std::optional<JobRecord> after,
                      parts_.store.Claim({now, claimant.worker, tenants}, decide));
  if (!after.has_value()) return std::nullopt;
  parts_.observer.Transitioned(before, transition);
  Tell(*after, transition.events);
  return Claimed{*std::move(after), std::move(roots)};
}

absl::StatusOr<std::optional<JobEngine::Claimed>> JobEngine::Claim(const Claimant& claimant,
                                                                   absl::Duration lease_duration) {
  for (int tried = 0; tried < kMostRejected; ++tried) {
    LF_ASSIGN_OR_RETURN(std::optional<Claimed> claimed, ClaimOnce(claimant, lease_duration));
    if (!claimed.has_value() || HoldsLease(claimed->record.job.status().state())) return claimed;
  }
  // Jobs may be waiting still, and nobody else says so.
  if (on_queued_) on_queued_();
  return std::nullopt;
}

absl::StatusOr<JobRecord> JobEngine::Create(JobRecord job, const std::string& request_id,
                                            const std::string& request_digest) {
  Transition transition = CreateQueued(std::move(job), Now(), policy_);
  NewJob created;
  created.record = std::move(transition.next);
  created.events = std::move(transition.events);
  created.request_id = request_id;
  created.request_digest = request_digest;
  created.limits = QueueLimitsOf(created.record.tenant);
  LF_ASSIGN_OR_RETURN(JobRecord stored, parts_.store.Create(created));
  parts_.observer.JobSubmitted();
  Tell(stored, created.events);
  return stored;
}

QueueLimits JobEngine::QueueLimitsOf(const std::string& tenant) const {
  const TenantLimits limits = LimitsOf(tenant);
  return {limits.max_queued_jobs, limits.max_queued_kinds};
}

absl::Status JobEngine::CheckQuota(const std::string& tenant, const std::string& needs) {
  const QueueLimits limits = QueueLimitsOf(tenant);
  if (limits.jobs > 0) {
    LF_ASSIGN_OR_RETURN(const TenantUse use, parts_.store.Use(tenant));
    LF_RETURN_IF_ERROR(CheckQueueQuota(tenant, use, limits.jobs));
  }
  if (limits.kinds == 0) return absl::OkStatus();
  LF_ASSIGN_OR_RETURN(const std::vector<std::string> waiting, parts_.store.WaitingNeeds(tenant));
  return CheckKindQuota(tenant, waiting, needs, limits.kinds);
}

absl::Status JobEngine::Delete(const JobRecord& record) {
  return parts_.store.Delete({record.id, record.version, Now()});
}

void JobEngine::Tell(const JobRecord& after, const std::vector<v1::JobEvent>& events) {
  parts_.hub.Publish(after.id, events);
  if (after.job.status().state() == v1::JOB_STATE_QUEUED && on_queued_) on_queued_();
}

}  // namespace latentforge::service
