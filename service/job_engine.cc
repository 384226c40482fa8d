#include "service/job_engine.h"

#include <utility>

#include "base/status_macros.h"
#include "service/errors.h"

namespace latentforge::service {
namespace {

// Two callers alternate at worst; more rounds than this mean a fault.
constexpr int kMaxRounds = 16;

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
  LF_ASSIGN_OR_RETURN(JobRecord after, parts_.store.Commit(UpdateOf(before, transition)));
  parts_.observer.Transitioned(before, transition);
  Tell(after, transition.events);
  return after;
}

absl::StatusOr<std::optional<JobRecord>> JobEngine::Claim(const command::Claim& claim,
                                                          bool with_cuda) {
  const absl::Time now = Now();
  JobRecord before;
  Transition transition;
  LF_ASSIGN_OR_RETURN(
      std::optional<JobRecord> after,
      parts_.store.Claim({now, with_cuda},
                         [&](const JobRecord& candidate) -> absl::StatusOr<JobUpdate> {
                           before = candidate;
                           LF_ASSIGN_OR_RETURN(transition, Decide(before, claim, now, policy_));
                           return UpdateOf(before, transition);
                         }));
  if (!after.has_value()) return after;
  parts_.observer.Transitioned(before, transition);
  Tell(*after, transition.events);
  return after;
}

absl::StatusOr<JobRecord> JobEngine::Create(JobRecord job, const std::string& request_id,
                                            const std::string& request_digest) {
  Transition transition = CreateQueued(std::move(job), Now(), policy_);
  NewJob created;
  created.record = std::move(transition.next);
  created.events = std::move(transition.events);
  created.request_id = request_id;
  created.request_digest = request_digest;
  LF_ASSIGN_OR_RETURN(JobRecord stored, parts_.store.Create(created));
  parts_.observer.JobSubmitted();
  Tell(stored, created.events);
  return stored;
}

absl::Status JobEngine::Delete(const JobRecord& record) {
  return parts_.store.Delete({record.id, record.version, Now()});
}

void JobEngine::Tell(const JobRecord& after, const std::vector<v1::JobEvent>& events) {
  parts_.hub.Publish(after.id, events);
  if (after.job.status().state() == v1::JOB_STATE_QUEUED && on_queued_) on_queued_();
}

}  // namespace latentforge::service
