#include "service/scheduler.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "service/errors.h"
#include "service/job_name.h"
#include "service/needs.h"
#include "service/paging.h"
#include "service/request_checks.h"
#include "service/time_util.h"

namespace latentforge::service {
namespace {

constexpr char kWorkersBinding[] = "workers";
constexpr absl::Duration kOverdueInterval = absl::Milliseconds(250);

LeaseRef RefOf(const v1::Lease& lease, const Identity& caller) {
  return {lease.attempt(), lease.lease_epoch(), caller.subject};
}

v1::Lease LeaseOf(const JobRecord& record) {
  v1::Lease lease;
  lease.set_job(record.job.name());
  lease.set_attempt(record.job.status().attempt());
  lease.set_lease_epoch(record.lease_epoch);
  return lease;
}

v1::AttemptCommand WantedOf(const JobRecord& record) {
  switch (record.job.status().state()) {
    case v1::JOB_STATE_CANCELLING:
      return v1::ATTEMPT_COMMAND_CANCEL;
    case v1::JOB_STATE_PAUSING:
      return v1::ATTEMPT_COMMAND_PAUSE;
    default:
      return v1::ATTEMPT_COMMAND_CONTINUE;
  }
}

absl::Status DrainingError() {
  return WithRetryDelay(MakeError(absl::StatusCode::kUnavailable, kDraining,
                                  "the server is shutting down; it hands out no more jobs"),
                        absl::Seconds(1));
}

absl::StatusOr<Command> EndOf(const v1::CompleteAttemptRequest& request, const Identity& caller) {
  const LeaseRef lease = RefOf(request.lease(), caller);
  switch (request.outcome_case()) {
    case v1::CompleteAttemptRequest::kResult:
      return command::Succeed{lease, request.result()};
    case v1::CompleteAttemptRequest::kError:
      return command::Fail{lease, request.error()};
    case v1::CompleteAttemptRequest::kCancelled:
      return command::Stop{lease};
    case v1::CompleteAttemptRequest::kReleased:
      return command::Release{lease};
    case v1::CompleteAttemptRequest::kPaused:
      return command::Halt{lease};
    case v1::CompleteAttemptRequest::OUTCOME_NOT_SET:
      break;
  }
  return MakeFieldError(kInvalidField, {{"outcome", "is not set"}});
}

}  // namespace

Scheduler::Scheduler(JobEngine& engine, Wakeup& wakeup, PageTokenCodec tokens,
                     SchedulerOptions options)
    : engine_(engine),
      wakeup_(wakeup),
      tokens_(std::move(tokens)),
      options_(std::move(options)),
      // A worker polls at least every max_wait and is heard every third of a lease.
      workers_(options_.lease_duration, 2 * std::max(options_.lease_duration, options_.max_wait)) {}

absl::Status Scheduler::RenewLeases() {
  if (engine_.store().shared()) {
    no_lease_ends_before_ = engine_.Monotonic() + options_.lease_duration;
    return absl::OkStatus();
  }
  LF_ASSIGN_OR_RETURN(const auto leased, engine_.store().LeasesEndingBy(absl::InfiniteFuture()));
  for (const JobRecord& record : leased)
    LF_RETURN_IF_ERROR(engine_.Apply(record.id, command::Renew{options_.lease_duration}).status());
  absl::MutexLock lock(&mutex_);
  for (const JobRecord& record : leased) unheard_[record.id] = record.lease_epoch;
  return absl::OkStatus();
}

int64_t Scheduler::Acquire(const Identity& caller, const v1::AcquireLeaseRequest& request,
                           AcquireDone done) {
  if (const absl::Status checked = CheckAcquireRequest(request, options_.version); !checked.ok()) {
    done(checked);
    return 0;
  }
  const absl::Time now = engine_.Now();
  TouchWaiting(now);
  if (const absl::Status introduced = workers_.Introduce(request.worker(), now); !introduced.ok()) {
    done(introduced);
    return 0;
  }
  {
    absl::MutexLock lock(&mutex_);
    if (!draining_) {
      const absl::Duration wait = std::min(FromProto(request.wait()), options_.max_wait);
      waiters_.push_back({++last_ticket_,
                          {request.worker(), caller.subject},
                          engine_.Monotonic() + wait,
                          std::move(done)});
      wakeup_.Poke();
      return last_ticket_;
    }
  }
  done(DrainingError());
  return 0;
}

// A worker whose wait is under way is there, however long ago it called.
void Scheduler::TouchWaiting(absl::Time now) {
  absl::MutexLock lock(&mutex_);
  for (const Waiter& waiter : waiters_) workers_.Touch(waiter.claimant.worker.name(), now);
}

bool Scheduler::Abandon(int64_t ticket) {
  const std::optional<Waiter> waiter = TakeWaiter(ticket);
  if (waiter.has_value()) workers_.Leave(waiter->claimant.worker.name());
  return waiter.has_value();
}

std::optional<Scheduler::Waiter> Scheduler::TakeWaiter(int64_t ticket) {
  absl::MutexLock lock(&mutex_);
  const auto found = std::find_if(waiters_.begin(), waiters_.end(),
                                  [&](const Waiter& waiter) { return waiter.ticket == ticket; });
  if (found == waiters_.end()) return std::nullopt;
  std::optional<Waiter> taken = std::move(*found);
  waiters_.erase(found);
  return taken;
}

v1::AcquireLeaseResponse Scheduler::GrantOf(const JobEngine::Claimed& claimed) const {
  v1::AcquireLeaseResponse response;
  *response.mutable_lease() = LeaseOf(claimed.record);
  *response.mutable_spec() = claimed.record.job.spec();
  for (const std::filesystem::path& root : claimed.allowed_roots)
    response.add_allowed_roots(root.string());
  *response.mutable_lease_duration() = ToProto(options_.lease_duration);
  *response.mutable_heartbeat_interval() = ToProto(options_.lease_duration / 3);
  return response;
}

absl::Status Scheduler::ServeWaiter(int64_t ticket, const JobEngine::Claimant& claimant,
                                    bool& served) {
  LF_ASSIGN_OR_RETURN(const std::optional<JobEngine::Claimed> claimed,
                      engine_.Claim(claimant, options_.lease_duration));
  served = claimed.has_value();
  if (!served) return absl::OkStatus();
  if (std::optional<Waiter> waiter = TakeWaiter(ticket); waiter.has_value()) {
    workers_.Touch(claimant.worker.name(), engine_.Now());
    waiter->done(GrantOf(*claimed));
    return absl::OkStatus();
  }
  // The worker went away meanwhile: the job must not wait for its lease to end.
  const JobRecord& record = claimed->record;
  const LeaseRef lease{record.job.status().attempt(), record.lease_epoch};
  return engine_.Apply(record.id, command::Release{lease}).status();
}

absl::Status Scheduler::ServeWaiters() {
  std::vector<std::pair<int64_t, JobEngine::Claimant>> waiting;
  {
    absl::MutexLock lock(&mutex_);
    for (const Waiter& waiter : waiters_) waiting.emplace_back(waiter.ticket, waiter.claimant);
  }
  absl::Status first_error;
  std::set<std::string> in_vain;  // no job for workers like these: do not ask again
  for (const auto& [ticket, claimant] : waiting) {
    const std::string offer = OfferKey(claimant.worker);
    if (in_vain.count(offer) > 0) continue;
    bool served = false;
    first_error.Update(ServeWaiter(ticket, claimant, served));
    if (!served) in_vain.insert(offer);
  }
  EndWaits();
  return first_error;
}

void Scheduler::EndWaits() {
  std::list<Waiter> over;
  const absl::Duration now = engine_.Monotonic();
  {
    absl::MutexLock lock(&mutex_);
    for (auto it = waiters_.begin(); it != waiters_.end();) {
      const auto next = std::next(it);
      if (it->deadline <= now) over.splice(over.end(), waiters_, it);
      it = next;
    }
  }
  for (Waiter& waiter : over) {
    workers_.Touch(waiter.claimant.worker.name(), engine_.Now());
    waiter.done(v1::AcquireLeaseResponse());
  }
}

absl::StatusOr<JobRecord> Scheduler::ApplyForWorker(const v1::Lease& lease, const Command& command,
                                                    absl::string_view operation) {
  LF_ASSIGN_OR_RETURN(const std::string id, ParseJobName(lease.job(), "lease.job"));
  absl::StatusOr<JobRecord> record = engine_.Apply(id, command);
  if (absl::IsNotFound(record.status())) {
    record = MakeError(absl::StatusCode::kAborted, kLeaseLost,
                       absl::StrCat(lease.job(), " does not exist any more"), {{"job", id}});
  }
  if (!record.ok()) {
    if (IsFenced(record.status())) engine_.observer().FencedWrite(operation);
    return record.status();
  }
  workers_.Touch(record->job.status().worker(), engine_.Now());
  absl::MutexLock lock(&mutex_);
  unheard_.erase(id);
  return record;
}

absl::StatusOr<v1::HeartbeatResponse> Scheduler::Heartbeat(const Identity& caller,
                                                           const v1::HeartbeatRequest& request) {
  const command::Extend extend{RefOf(request.lease(), caller), options_.lease_duration,
                               request.obeying() == v1::ATTEMPT_COMMAND_PAUSE};
  LF_ASSIGN_OR_RETURN(const JobRecord record, ApplyForWorker(request.lease(), extend, "heartbeat"));
  engine_.observer().LeaseRenewed();
  v1::HeartbeatResponse response;
  response.set_command(WantedOf(record));
  // What is left of it, where it was not extended.
  const absl::Duration left = record.lease_expire_time - engine_.Now();
  *response.mutable_lease_duration() = ToProto(std::max(left, absl::ZeroDuration()));
  return response;
}

absl::StatusOr<v1::ReportEventsResponse> Scheduler::ReportEvents(
    const Identity& caller, const v1::ReportEventsRequest& request) {
  command::Report report;
  report.lease = RefOf(request.lease(), caller);
  report.events.assign(request.events().begin(), request.events().end());
  report.lease_duration = options_.lease_duration;
  LF_ASSIGN_OR_RETURN(const JobRecord record,
                      ApplyForWorker(request.lease(), std::move(report), "report"));
  v1::ReportEventsResponse response;
  response.set_last_sequence(record.attempt_sequence);
  response.set_command(WantedOf(record));
  return response;
}

absl::StatusOr<v1::CompleteAttemptResponse> Scheduler::Complete(
    const Identity& caller, const v1::CompleteAttemptRequest& request) {
  LF_ASSIGN_OR_RETURN(const Command end, EndOf(request, caller));
  LF_ASSIGN_OR_RETURN(const JobRecord record, ApplyForWorker(request.lease(), end, "complete"));
  if (request.has_released()) workers_.Leave(record.job.status().worker());
  return v1::CompleteAttemptResponse();
}

absl::StatusOr<v1::ListWorkersResponse> Scheduler::ListWorkers(
    const v1::ListWorkersRequest& request) {
  LF_ASSIGN_OR_RETURN(const int page_size, EffectivePageSize(request.page_size()));
  std::string after;
  if (!request.page_token().empty()) {
    LF_ASSIGN_OR_RETURN(after, tokens_.Decode(request.page_token(), kWorkersBinding));
  }
  LF_ASSIGN_OR_RETURN(const auto leased, engine_.store().LeasesEndingBy(absl::InfiniteFuture()));
  std::multimap<std::string, v1::Lease> leases;
  for (const JobRecord& record : leased)
    leases.emplace(record.job.status().worker(), LeaseOf(record));
  v1::ListWorkersResponse response;
  for (const WorkerRegistry::Presence& present : workers_.List(engine_.Now())) {
    const v1::WorkerInfo& info = present.info;
    if (info.name() <= after) continue;
    if (response.workers_size() == page_size) {
      response.set_next_page_token(
          tokens_.Encode(response.workers(page_size - 1).info().name(), kWorkersBinding));
      break;
    }
    v1::Worker& worker = *response.add_workers();
    *worker.mutable_info() = info;
    *worker.mutable_last_seen_time() = ToProto(present.last_seen);
    const auto [begin, end] = leases.equal_range(info.name());
    for (auto it = begin; it != end; ++it) *worker.add_leases() = it->second;
  }
  return response;
}

bool Scheduler::IsUnheard(const JobRecord& record) {
  absl::MutexLock lock(&mutex_);
  const auto found = unheard_.find(record.id);
  return found != unheard_.end() && found->second == record.lease_epoch;
}

absl::StatusOr<std::vector<JobRecord>> Scheduler::OverdueLeases(absl::Time now) {
  absl::StatusOr<std::vector<JobRecord>> leased = engine_.store().LeasesEndingBy(now);
  const absl::Duration elapsed = engine_.Monotonic();
  if (leased.ok() && store_away_) no_lease_ends_before_ = elapsed + options_.lease_duration;
  store_away_ = !leased.ok();
  if (leased.ok() && elapsed < no_lease_ends_before_) leased->clear();
  return leased;
}

absl::Status Scheduler::EndOverdue() {
  const absl::Duration elapsed = engine_.Monotonic();
  if (elapsed < next_overdue_) return absl::OkStatus();
  const absl::Time now = engine_.Now();
  absl::Status first_error;
  LF_ASSIGN_OR_RETURN(const auto leased, OverdueLeases(now));
  for (const JobRecord& record : leased)
    first_error.Update(engine_.Apply(record.id, command::ExpireLease{IsUnheard(record)}).status());
  LF_ASSIGN_OR_RETURN(const auto late, engine_.store().DeadlinesBy(now));
  for (const JobRecord& record : late)
    first_error.Update(engine_.Apply(record.id, command::ExpireDeadline{}).status());
  if (first_error.ok()) next_overdue_ = elapsed + kOverdueInterval;
  return first_error;
}

absl::Status Scheduler::Tick() {
  absl::Status status = EndOverdue();
  status.Update(ServeWaiters());
  return status;
}

void Scheduler::Drain() {
  std::list<Waiter> refused;
  {
    absl::MutexLock lock(&mutex_);
    draining_ = true;
    refused.swap(waiters_);
  }
  for (Waiter& waiter : refused) waiter.done(DrainingError());
}

std::vector<v1::WorkerInfo> Scheduler::Workers() {
  std::vector<v1::WorkerInfo> workers;
  for (const WorkerRegistry::Presence& present : workers_.List(engine_.Now()))
    workers.push_back(present.info);
  return workers;
}

absl::StatusOr<Scheduler::Presence> Scheduler::CountPresence() {
  LF_ASSIGN_OR_RETURN(const auto leased, engine_.store().LeasesEndingBy(absl::InfiniteFuture()));
  Presence presence;
  presence.leases = static_cast<int64_t>(leased.size());
  for (const WorkerRegistry::Presence& present : workers_.List(engine_.Now())) {
    presence.workers += 1;
    presence.slots += present.info.slots();
  }
  return presence;
}

}  // namespace latentforge::service
