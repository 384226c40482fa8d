#include <algorithm>
#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/blocking_counter.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "bench/service/loads.h"
#include "bench/service/workers.h"
#include "grpcpp/client_context.h"
#include "grpcpp/support/client_callback.h"

namespace latentforge::bench {
namespace {

absl::Time TimeOf(const google::protobuf::Timestamp& time) {
  return absl::FromUnixSeconds(time.seconds()) + absl::Nanoseconds(time.nanos());
}

// One watch, from its first message to its end.
class Watch final : public grpc::ClientReadReactor<v1::WatchJobResponse> {
 public:
  Watch(v1::JobService::Stub& stub, const std::string& job, Latencies& lags,
        absl::BlockingCounter& opened)
      : lags_(lags), opened_(opened) {
    v1::WatchJobRequest request;
    request.set_name(job);
    stub.async()->WatchJob(&context_, &request, this);
    StartRead(&message_);
    StartCall();
  }

  void OnReadDone(bool ok) override {
    if (!ok) return;
    if (message_.has_snapshot()) opened_.DecrementCount();
    if (message_.has_event() && message_.event().has_log()) {
      lags_.Add(absl::Now() - TimeOf(message_.event().time()));
    }
    StartRead(&message_);
  }

  void OnDone(const grpc::Status& status) override {
    if (!status.ok() && status.error_code() != grpc::StatusCode::CANCELLED) lags_.AddError();
    absl::MutexLock lock(&mutex_);
    done_ = true;
  }

  void CancelAndWait() {
    context_.TryCancel();
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(&done_));
  }

 private:
  Latencies& lags_;
  absl::BlockingCounter& opened_;
  grpc::ClientContext context_;
  v1::WatchJobResponse message_;
  absl::Mutex mutex_;
  bool done_ ABSL_GUARDED_BY(mutex_) = false;
};

// Leases of jobs that their workers keep.
class Leases {
 public:
  bool Keep(const v1::Lease& lease) {
    absl::MutexLock lock(&mutex_);
    leases_.push_back(lease);
    return false;
  }
  std::vector<v1::Lease> Wait(int64_t count) {
    absl::MutexLock lock(&mutex_);
    const auto there = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return std::ssize(leases_) >= count;
    };
    mutex_.AwaitWithTimeout(absl::Condition(&there), absl::Minutes(2));
    return leases_;
  }

 private:
  absl::Mutex mutex_;
  std::vector<v1::Lease> leases_ ABSL_GUARDED_BY(mutex_);
};

void Report(Target& target, const v1::Lease& lease, int64_t number) {
  grpc::ClientContext context;
  v1::ReportEventsRequest request;
  *request.mutable_lease() = lease;
  v1::AttemptEvent& event = *request.add_events();
  event.set_sequence(number + 1);
  event.mutable_log()->set_text(absl::StrCat("event ", number));
  v1::ReportEventsResponse response;
  target.workers(number).ReportEvents(&context, request, &response);
}

}  // namespace

Json WatchLoad(Target& target, const WatchOptions& options) {
  Latencies submits, lags;
  std::vector<std::string> jobs;
  Leases leases;
  const IdleWorkers workers(target, 4, [&](const v1::Lease& lease) { return leases.Keep(lease); });
  Submit(target, options.jobs, 1, submits, [&](const std::string& job) { jobs.push_back(job); });
  const std::vector<v1::Lease> held = leases.Wait(options.jobs);
  absl::BlockingCounter opened(static_cast<int>(options.watches));
  std::vector<std::unique_ptr<Watch>> watches;
  for (int64_t i = 0; i < options.watches; ++i) {
    watches.push_back(std::make_unique<Watch>(
        target.jobs(i), jobs[static_cast<size_t>(i) % jobs.size()], lags, opened));
  }
  opened.Wait();
  for (int64_t event = 0; event < options.events; ++event) {
    const absl::Time next = absl::Now() + options.interval;
    for (const v1::Lease& lease : held) Report(target, lease, event);
    absl::SleepFor(std::max(next - absl::Now(), absl::ZeroDuration()));
  }
  Json result = lags.Summary();
  result["expected"] = options.watches * options.events;
  for (const auto& watch : watches) watch->CancelAndWait();
  return result;
}

}  // namespace latentforge::bench
