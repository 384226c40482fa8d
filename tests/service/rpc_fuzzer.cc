// Arbitrary sequences of calls of users of two tenants and of workers, over a SQLite store and a
// clock that the input moves. Half of the fields are of things that exist, so that calls get far;
// the others, and whole serialised requests, are arbitrary bytes. JobProbe holds every answer and
// every job against what the API promises.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "fuzzer/FuzzedDataProvider.h"
#include "service/log_session.h"
#include "service/watch_session.h"
#include "tests/service/empty_store.h"
#include "tests/service/fuzzed_server.h"

namespace latentforge::service {
namespace {

constexpr size_t kMostCalls = 40;

class Surface : public FuzzedServer {
 public:
  using FuzzedServer::FuzzedServer;

  void Run() {
    for (size_t call = 0; call < kMostCalls && input_.remaining_bytes() > 0; ++call) Call();
    probe_.Finish([this] { Expire(); });
  }

 private:
  using Step = void (Surface::*)();

  void Call() {
    static constexpr Step kSteps[] = {
        &Surface::Create,  &Surface::Create,    &Surface::Name,     &Surface::Name,
        &Surface::Name,    &Surface::List,      &Surface::Attempt,  &Surface::Watch,
        &Surface::Acquire, &Surface::Acquire,   &Surface::Beat,     &Surface::Report,
        &Surface::Report,  &Surface::Complete,  &Surface::Complete, &Surface::Workers,
        &Surface::Advance, &Surface::ParseCall, &Surface::Append,   &Surface::ReadLogs,
    };
    (this->*input_.PickValueInArray(kSteps))();
    probe_.LookAtJobs();
  }

  void Create() {
    v1::CreateJobRequest request;
    v1::JobSpec& spec = *request.mutable_spec();
    spec.mutable_source()->set_uri("/model");
    spec.mutable_budget()->set_kv_budget(0.5);
    spec.mutable_calibration()->add_corpora()->set_uri("/text");
    spec.mutable_output()->set_uri(absl::StrCat("/out", input_.ConsumeIntegralInRange(1, 3)));
    if (input_.ConsumeBool())
      request.set_request_id(absl::StrCat(input_.ConsumeIntegralInRange(0, 3)));
    if (input_.ConsumeBool()) (*request.mutable_labels())[Text()] = Text();
    const auto flags = input_.ConsumeIntegral<uint8_t>();
    if ((flags & 1) != 0) SetDuration(spec.mutable_deadline());
    if ((flags & 2) != 0) SetDuration(spec.mutable_queue_deadline());
    if ((flags & 4) != 0) SetDuration(spec.mutable_run_deadline());
    if ((flags & 8) != 0) SetDuration(spec.mutable_ttl());
    if ((flags & 16) != 0) spec.set_device(input_.ConsumeBool() ? "cuda" : Text());
    if ((flags & 32) != 0)
      spec.set_priority(static_cast<v1::Priority>(input_.ConsumeIntegralInRange(-1, 5)));
    request.set_validate_only((flags & 192) == 192);
    Submit(request);
  }

  void Submit(const v1::CreateJobRequest& request) {
    if (last_id_ >= kMostJobs) return;
    probe_.Check(jobs_.Create(Caller(), request));
  }

  // A call about one job.
  void Name() {
    const Identity& caller = Caller();
    const std::string name = JobNameOrText();
    const auto call = [&](auto request, auto method) {
      request.set_name(name);
      request.set_etag(Etag(name));
      probe_.Check((jobs_.*method)(caller, request));
    };
    switch (input_.ConsumeIntegralInRange(0, 5)) {
      case 0: {
        v1::GetJobRequest request;
        request.set_name(name);
        const auto got = jobs_.Get(caller, request);
        probe_.Check(got);
        if (got.ok() && !caller.Sees(got->job().tenant())) abort();
        return;
      }
      case 1:
        return call(v1::CancelJobRequest(), &Jobs::Cancel);
      case 2:
        return call(v1::PauseJobRequest(), &Jobs::Pause);
      case 3:
        return call(v1::ResumeJobRequest(), &Jobs::Resume);
      case 4:
        probe_.AllowRetry(name);
        return call(v1::RetryJobRequest(), &Jobs::Retry);
      default:
        probe_.AllowDeletion(name);
        return call(v1::DeleteJobRequest(), &Jobs::Delete);
    }
  }

  void List() {
    v1::ListJobsRequest request;
    request.set_page_size(input_.ConsumeIntegralInRange(-1, 3));
    request.set_page_token(input_.ConsumeBool() ? token_ : Text());
    if (input_.ConsumeBool())
      request.mutable_filter()->add_states(
          static_cast<v1::JobState>(input_.ConsumeIntegralInRange(-1, 10)));
    if (input_.ConsumeBool()) (*request.mutable_filter()->mutable_labels())[Text()] = Text();
    if (input_.ConsumeBool()) request.mutable_filter()->set_tenant(Text());
    ListBy(request);
  }

  void ListBy(const v1::ListJobsRequest& request) {
    const Identity& caller = Caller();
    const auto listed = jobs_.List(caller, request);
    probe_.Check(listed);
    if (!listed.ok()) return;
    token_ = listed->next_page_token();
    for (const v1::Job& job : listed->jobs())
      if (!caller.Sees(job.tenant())) abort();
  }

  void Attempt() {
    v1::GetAttemptRequest get;
    get.set_name(input_.ConsumeBool()
                     ? absl::StrCat(JobNameOrText(), "/attempts/", input_.ConsumeIntegral<int8_t>())
                     : Text());
    probe_.Check(attempts_.Get(Caller(), get));
    v1::ListAttemptsRequest list;
    list.set_parent(JobNameOrText());
    list.set_page_size(input_.ConsumeIntegralInRange(-1, 2));
    list.set_page_token(input_.ConsumeBool() ? attempts_token_ : Text());
    const auto listed = attempts_.List(Caller(), list);
    probe_.Check(listed);
    if (listed.ok()) attempts_token_ = listed->next_page_token();
  }

  void Watch() {
    v1::WatchJobRequest request;
    request.set_name(JobNameOrText());
    if (input_.ConsumeBool()) request.set_from_sequence(input_.ConsumeIntegralInRange(-1, 8));
    const auto session = WatchSession::Start(Caller(), store_, hub_, request, [] {});
    probe_.Check(session);
    if (!session.ok()) return;
    int64_t last = request.from_sequence();
    while (true) {
      const auto message = (*session)->Next();
      probe_.Check(message);
      if (!message.ok() || !message->has_value()) return;
      if (!(*message)->has_event()) continue;
      if (request.has_from_sequence() && (*message)->event().sequence() != ++last) abort();
    }
  }

  void ReadLogs() {
    v1::ReadLogsRequest request;
    request.set_name(JobNameOrText());
    if (input_.ConsumeBool()) absl::StrAppend(request.mutable_name(), "/attempts/1");
    request.set_from_attempt(input_.ConsumeIntegralInRange(-1, 2));
    request.set_tail(input_.ConsumeIntegralInRange(-1, 3));
    if (input_.ConsumeBool()) request.set_from_sequence(input_.ConsumeIntegralInRange(-1, 8));
    const auto session = LogSession::Start(Caller(), store_, looks_, request);
    probe_.Check(session);
    if (!session.ok()) return;
    int32_t attempt = 0;
    int64_t sequence = 0;
    while (true) {
      const auto message = (*session)->Next();
      probe_.Check(message);
      if (!message.ok() || !message->has_value()) return;
      for (const v1::LogEntry& entry : (*message)->entries()) {
        const bool rises = entry.attempt() > attempt ||
                           (entry.attempt() == attempt && entry.sequence() > sequence);
        if (!rises || entry.dropped() < 0) abort();
        attempt = entry.attempt();
        sequence = entry.sequence();
      }
    }
  }

  void Acquire() {
    v1::AcquireLeaseRequest request;
    request.mutable_worker()->set_name(input_.ConsumeBool() ? "w1" : Text());
    request.mutable_worker()->set_version(input_.ConsumeProbability<float>() < 0.9f ? "0.1.0"
                                                                                    : Text());
    request.mutable_worker()->set_slots(input_.ConsumeIntegralInRange(0, 2));
    if (input_.ConsumeBool()) request.mutable_worker()->set_instance(Text());
    if (input_.ConsumeBool()) request.mutable_worker()->add_devices("cuda:0");
    if (input_.ConsumeBool()) SetDuration(request.mutable_wait());
    Await(request);
  }

  void Await(const v1::AcquireLeaseRequest& request) {
    const int64_t ticket = scheduler_.Acquire(kWorker, request, [this](const auto& answer) {
      probe_.Check(answer);
      if (answer.ok() && answer->has_lease()) leases_.push_back(answer->lease());
    });
    Tick();
    if (ticket != 0 && input_.ConsumeBool()) scheduler_.Abandon(ticket);
  }

  v1::Lease Lease() {
    v1::Lease lease;
    if (!leases_.empty())
      lease = leases_[input_.ConsumeIntegralInRange<size_t>(0, leases_.size() - 1)];
    switch (input_.ConsumeIntegralInRange(0, 15)) {
      case 0:
        lease.set_job(JobNameOrText());
        break;
      case 1:
        lease.set_attempt(input_.ConsumeIntegral<int32_t>());
        break;
      case 2:
        lease.set_lease_epoch(input_.ConsumeIntegral<int64_t>());
        break;
      default:
        break;
    }
    return lease;
  }

  void Beat() {
    v1::HeartbeatRequest request;
    *request.mutable_lease() = Lease();
    request.set_obeying(static_cast<v1::AttemptCommand>(input_.ConsumeIntegralInRange(-1, 5)));
    probe_.Check(scheduler_.Heartbeat(kWorker, request));
  }

  void Report() {
    v1::ReportEventsRequest request;
    *request.mutable_lease() = Lease();
    for (int i = input_.ConsumeIntegralInRange(0, 3); i > 0; --i) {
      v1::AttemptEvent& event = *request.add_events();
      if (input_.ConsumeBool() && !event.ParseFromString(input_.ConsumeRandomLengthString(32)))
        event.Clear();
      event.set_sequence(input_.ConsumeProbability<float>() < 0.9f
                             ? ++reported_
                             : input_.ConsumeIntegral<int64_t>());
      const auto phase = static_cast<v1::Phase>(input_.ConsumeIntegralInRange(-1, 8));
      switch (input_.ConsumeIntegralInRange(0, 5)) {
        case 0:
          event.mutable_phase_started()->set_phase(phase);
          break;
        case 1:
          event.mutable_phase_finished()->set_phase(phase);
          event.mutable_phase_finished()->set_seconds(input_.ConsumeFloatingPoint<double>());
          break;
        case 2:
          event.mutable_progress()->set_phase(phase);
          event.mutable_progress()->set_percent(input_.ConsumeFloatingPoint<double>());
          break;
        case 3:
          event.mutable_log()->set_text(Text());
          break;
        default:
          break;
      }
    }
    probe_.Check(scheduler_.ReportEvents(kWorker, request));
  }

  void Append() {
    v1::AppendLogsRequest request;
    *request.mutable_lease() = Lease();
    for (int i = input_.ConsumeIntegralInRange(0, 3); i > 0; --i) {
      v1::AttemptLogLine& line = *request.add_lines();
      line.set_sequence(input_.ConsumeProbability<float>() < 0.9f
                            ? ++logged_
                            : input_.ConsumeIntegral<int64_t>());
      line.set_text(input_.ConsumeRandomLengthString(16));  // any bytes
      line.set_truncated(input_.ConsumeBool());
    }
    probe_.Check(logs_.Append(kWorker, request));
  }

  void Complete() {
    v1::CompleteAttemptRequest request;
    *request.mutable_lease() = Lease();
    switch (input_.ConsumeIntegralInRange(0, 5)) {
      case 0:
        request.mutable_result()->set_artifact_uri(Text());
        break;
      case 1:
        request.mutable_error()->set_reason(Text());
        request.mutable_error()->set_message(Text());
        request.mutable_error()->set_retryable(input_.ConsumeBool());
        request.mutable_error()->set_error_class(
            static_cast<v1::ErrorClass>(input_.ConsumeIntegralInRange(-1, 5)));
        break;
      case 2:
        request.mutable_cancelled();
        break;
      case 3:
        request.mutable_released();
        break;
      case 4:
        request.mutable_paused();
        break;
      default:
        break;
    }
    probe_.Check(scheduler_.Complete(kWorker, request));
  }

  void Workers() {
    v1::ListWorkersRequest request;
    request.set_page_size(input_.ConsumeIntegralInRange(-1, 2));
    if (input_.ConsumeBool()) request.set_page_token(Text());
    probe_.Check(scheduler_.ListWorkers(request));
  }

  void Advance() {
    clock_.Advance(absl::Milliseconds(input_.ConsumeIntegralInRange<int64_t>(0, 100'000)));
    Tick();
    probe_.AllowDeletion();
    probe_.Check(retention_.Sweep());
  }

  // A request as it comes over the wire.
  void ParseCall() {
    const std::string bytes = input_.ConsumeRandomLengthString(256);
    const auto call = [&](auto request, const auto& handle) {
      if (request.ParseFromString(bytes)) handle(request);
    };
    switch (input_.ConsumeIntegralInRange(0, 6)) {
      case 0:
        return call(v1::CreateJobRequest(), [&](const auto& r) { Submit(r); });
      case 1:
        return call(v1::ListJobsRequest(), [&](const auto& r) { ListBy(r); });
      case 2:
        return call(v1::AcquireLeaseRequest(), [&](const auto& r) { Await(r); });
      case 3:
        return call(v1::HeartbeatRequest(),
                    [&](const auto& r) { probe_.Check(scheduler_.Heartbeat(kWorker, r)); });
      case 4:
        return call(v1::ReportEventsRequest(),
                    [&](const auto& r) { probe_.Check(scheduler_.ReportEvents(kWorker, r)); });
      case 5:
        return call(v1::CompleteAttemptRequest(),
                    [&](const auto& r) { probe_.Check(scheduler_.Complete(kWorker, r)); });
      default:
        return call(v1::ListAttemptsRequest(),
                    [&](const auto& r) { probe_.Check(attempts_.List(Caller(), r)); });
    }
  }

  std::vector<v1::Lease> leases_;  // that were granted
  std::string token_;
  std::string attempts_token_;
  int64_t reported_ = 0;
  int64_t logged_ = 0;
};

}  // namespace
}  // namespace latentforge::service

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // Each input finds the tables empty.
  static latentforge::service::EmptyStore store;
  FuzzedDataProvider input(data, size);
  latentforge::service::Surface(store.Clear(), input).Run();
  return 0;
}
