#include "bench/service/loads.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <optional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "bench/service/workers.h"
#include "grpcpp/client_context.h"

namespace latentforge::bench {
namespace {

constexpr absl::Duration kPatience = absl::Minutes(2);

// When each job was acknowledged, and when it was leased.
class Dispatches {
 public:
  void Created(const std::string& job) {
    Note(job, [](Times& times) { times.created = Now(); });
  }
  void Leased(const std::string& job) {
    Note(job, [](Times& times) { times.leased = Now(); });
  }

  bool WaitForAll(int64_t jobs) {
    absl::MutexLock lock(&mutex_);
    const auto all = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return complete_ == jobs; };
    return mutex_.AwaitWithTimeout(absl::Condition(&all), kPatience);
  }

  void Summarise(Latencies& latencies) {
    absl::MutexLock lock(&mutex_);
    for (const auto& [job, times] : jobs_) {
      if (times.created && times.leased) {
        latencies.Add(std::max(*times.leased - *times.created, absl::ZeroDuration()));
      } else {
        latencies.AddError();
      }
    }
  }

 private:
  struct Times {
    std::optional<absl::Time> created, leased;
  };

  static absl::Time Now() { return absl::Now(); }

  template <typename Change>
  void Note(const std::string& job, Change change) {
    absl::MutexLock lock(&mutex_);
    Times& times = jobs_[job];
    change(times);
    if (times.created && times.leased) ++complete_;
  }

  absl::Mutex mutex_;
  std::map<std::string, Times> jobs_ ABSL_GUARDED_BY(mutex_);
  int64_t complete_ ABSL_GUARDED_BY(mutex_) = 0;
};

// Jobs of earlier loads would be dispatched first.
void DrainQueue(Target& target, int workers) {
  const IdleWorkers idle(target, workers, [](const v1::Lease&) { return true; });
  v1::ListJobsRequest request;
  request.set_page_size(1);
  request.mutable_filter()->add_states(v1::JOB_STATE_QUEUED);
  const absl::Time end = absl::Now() + kPatience;
  while (absl::Now() < end) {
    grpc::ClientContext context;
    v1::ListJobsResponse response;
    if (target.jobs(0).ListJobs(&context, request, &response).ok() && response.jobs().empty())
      return;
    absl::SleepFor(absl::Milliseconds(100));
  }
}

}  // namespace

Json SubmitLoad(Target& target, int64_t jobs, int concurrency) {
  Latencies latencies;
  const absl::Duration time = Submit(target, jobs, concurrency, latencies);
  Json result = latencies.Summary();
  result["per_second"] = static_cast<double>(latencies.count()) / absl::ToDoubleSeconds(time);
  return result;
}

Json DispatchLoad(Target& target, int64_t jobs, int workers, absl::Duration interval) {
  Dispatches dispatches;
  Latencies submits, latencies;
  DrainQueue(target, workers);
  {
    const IdleWorkers idle(target, workers, [&](const v1::Lease& lease) {
      dispatches.Leased(lease.job());
      return true;
    });
    const auto created = [&](const std::string& job) { dispatches.Created(job); };
    for (int64_t i = 0; i < jobs; ++i) {
      Submit(target, 1, 1, submits, created);
      absl::SleepFor(interval);
    }
    dispatches.WaitForAll(jobs);
  }
  dispatches.Summarise(latencies);
  return latencies.Summary();
}

Json ListLoad(Target& target, int64_t calls) {
  Latencies latencies;
  v1::ListJobsRequest request;
  request.mutable_filter()->add_states(v1::JOB_STATE_QUEUED);
  for (int64_t i = 0; i < calls; ++i) {
    grpc::ClientContext context;
    v1::ListJobsResponse response;
    const absl::Time begin = absl::Now();
    const grpc::Status status = target.jobs(i).ListJobs(&context, request, &response);
    if (status.ok()) {
      latencies.Add(absl::Now() - begin);
      request.set_page_token(response.next_page_token());  // from the first page again at the end
    } else {
      latencies.AddError();
    }
  }
  return latencies.Summary();
}

}  // namespace latentforge::bench
