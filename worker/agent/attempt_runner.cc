#include "worker/agent/attempt_runner.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/log.h"
#include "base/shared_deadline.h"
#include "base/status_macros.h"
#include "google/protobuf/util/json_util.h"
#include "worker/agent/attempt_roots.h"

namespace latentforge::agent {
namespace {

absl::Duration FromProto(const google::protobuf::Duration& duration) {
  return absl::Seconds(duration.seconds()) + absl::Nanoseconds(duration.nanos());
}

LeaseTerms TermsOf(const v1::AcquireLeaseResponse& grant, absl::Duration received,
                   const std::string& worker) {
  LeaseTerms terms;
  terms.lease = grant.lease();
  terms.worker = worker;
  terms.received = received;
  terms.duration = FromProto(grant.lease_duration());
  if (terms.duration <= absl::ZeroDuration()) terms.duration = absl::Seconds(30);
  terms.interval = FromProto(grant.heartbeat_interval());
  // Two heartbeats may fail before the lease ends.
  if (terms.interval <= absl::ZeroDuration()) terms.interval = terms.duration / 3;
  terms.interval = std::clamp(terms.interval, absl::Milliseconds(20),
                              std::max(absl::Milliseconds(20), terms.duration / 3));
  return terms;
}

absl::StatusOr<std::string> SpecJson(v1::JobSpec spec, const AttemptOptions& options) {
  if (spec.device().empty() || spec.device() == "auto") {
    if (!options.device.empty()) spec.set_device(options.device);
  }
  if (spec.threads() == 0) spec.set_threads(options.threads);
  std::string json;
  const auto status = google::protobuf::util::MessageToJsonString(spec, &json);
  if (!status.ok()) {
    return absl::InternalError(absl::StrCat("cannot write the job spec: ", status.ToString()));
  }
  return json;
}

absl::StatusOr<PathRoots> RootsOf(const v1::AcquireLeaseResponse& grant,
                                  const PathRoots& of_worker) {
  const PathRoots of_lease(grant.allowed_roots().begin(), grant.allowed_roots().end());
  return AttemptRoots(RootsOfLease(of_lease), of_worker);
}

// Where the compute process sees until when it may publish.
std::filesystem::path LeaseFile(const std::filesystem::path& folder) { return folder / "lease"; }

std::string Describe(const std::optional<v1::CompleteAttemptRequest>& outcome) {
  if (!outcome.has_value()) return "lease lost";
  switch (outcome->outcome_case()) {
    case v1::CompleteAttemptRequest::kResult:
      return "succeeded";
    case v1::CompleteAttemptRequest::kError:
      return absl::StrCat(outcome->error().reason(), ": ", outcome->error().message());
    case v1::CompleteAttemptRequest::kCancelled:
      return "cancelled";
    case v1::CompleteAttemptRequest::kPaused:
      return "paused";
    default:
      return "released";
  }
}

}  // namespace

AttemptRunner::AttemptRunner(LeaseClient& client, Scratch& scratch, const Clock& clock,
                             Random random, AttemptOptions options)
    : client_(client),
      scratch_(scratch),
      clock_(clock),
      random_(std::move(random)),
      options_(std::move(options)) {}

absl::StatusOr<std::filesystem::path> AttemptRunner::Prepare(const v1::AcquireLeaseResponse& grant,
                                                             AttemptControl& control) {
  LF_ASSIGN_OR_RETURN(const std::filesystem::path folder, scratch_.Acquire(grant.lease().job()));
  LF_ASSIGN_OR_RETURN(const std::string spec, SpecJson(grant.spec(), options_));
  LF_RETURN_IF_ERROR(WriteFileAtomic(folder / "spec.json", spec));
  LF_ASSIGN_OR_RETURN(SharedDeadline deadline, SharedDeadline::Create(LeaseFile(folder)));
  control.ShareDeadline(std::move(deadline));
  return folder;
}

ChildCommand AttemptRunner::CommandFor(const std::filesystem::path& folder,
                                       const PathRoots& roots) const {
  ChildCommand command;
  command.expendable = true;
  command.argv = {
      options_.convert.string(), "--spec",  (folder / "spec.json").string(), "--work-dir",
      folder.string(),           "--lease", LeaseFile(folder).string()};
  if (!options_.statistics.empty()) {
    command.argv.insert(command.argv.end(), {"--statistics", options_.statistics.string()});
  }
  for (const std::filesystem::path& root : roots)
    command.argv.insert(command.argv.end(), {"--allowed-root", root.string()});
  return command;
}

AttemptFacts AttemptRunner::Compute(const v1::AcquireLeaseResponse& grant,
                                    AttemptControl& control) {
  AttemptFacts facts;
  const absl::StatusOr<PathRoots> roots = RootsOf(grant, options_.allowed_roots);
  const absl::StatusOr<std::filesystem::path> folder = Prepare(grant, control);
  if (!roots.ok() || !folder.ok()) {
    facts.roots = roots.status();
    facts.scratch = folder.status();
    facts.stop = control.reason();
    return facts;
  }
  LogRelay logs(client_, clock_, random_, control, grant.lease(), options_.logs);
  EventRelay events(client_, random_, control, grant.lease());
  const std::optional<int64_t> killed_before = options_.oom_kills();
  absl::StatusOr<std::unique_ptr<ChildProcess>> child =
      ChildProcess::Start(CommandFor(*folder, *roots));
  if (!child.ok()) {
    facts.start = child.status();
    facts.stop = control.reason();
    return facts;
  }
  ChildSession session(**child, control, {events, logs}, clock_, options_.session,
                       grant.lease().job());
  session.Run(&facts);
  if (const std::optional<int64_t> killed = options_.oom_kills(); killed && killed_before) {
    facts.memory_ran_out = *killed > *killed_before;
  }
  return facts;  // the relays report what is left
}

v1::CompleteAttemptRequest AttemptRunner::Refused(const v1::Lease& lease,
                                                  const absl::Status& status) {
  v1::CompleteAttemptRequest request;
  *request.mutable_lease() = lease;
  v1::ConversionError& error = *request.mutable_error();
  error.set_reason("REPORT_REFUSED");
  error.set_message(absl::StrCat("the server refused the attempt's report: ", status.message()));
  error.set_error_class(v1::ERROR_CLASS_SYSTEM);
  return request;
}

bool AttemptRunner::Report(const v1::CompleteAttemptRequest& outcome, AttemptControl& control) {
  Backoff backoff(absl::Milliseconds(100), absl::Seconds(5), random_);
  v1::CompleteAttemptRequest request = outcome;
  bool refused = false;
  while (true) {
    const absl::Status status = client_.Complete(request);
    if (status.ok()) return true;
    Log(Severity::kWarning, "attempt not reported",
        {{"job", request.lease().job()}, {"error", status.ToString()}});
    if (IsLeaseLost(status)) return false;
    if (!IsTransient(status)) {
      if (std::exchange(refused, true)) return false;
      request = Refused(request.lease(), status);
    }
    if (!control.Pause(backoff.Next())) return false;
  }
}

void AttemptRunner::Run(const v1::AcquireLeaseResponse& grant, AttemptControl& control) {
  const v1::Lease& lease = grant.lease();
  const LogFields fields = {{"job", lease.job()}, {"attempt", absl::StrCat(lease.attempt())}};
  Log(Severity::kInfo, "attempt started", fields);
  LeaseKeeper keeper(client_, clock_, random_, control,
                     TermsOf(grant, clock_.Monotonic(), options_.worker));
  const AttemptFacts facts = Compute(grant, control);
  keeper.ProcessEnded();

  std::optional<v1::CompleteAttemptRequest> outcome = DecideOutcome(facts);
  LogFields ended = fields;
  ended.emplace_back("outcome", Describe(outcome));
  Log(Severity::kInfo, "attempt ended", ended);
  bool keep = true;
  if (outcome.has_value()) {
    *outcome->mutable_lease() = lease;
    // A report that was not taken leaves the files to the next attempt.
    keep = !Report(*outcome, control) || KeepsScratch(*outcome);
  }
  scratch_.Release(lease.job(), keep);
}

}  // namespace latentforge::agent
