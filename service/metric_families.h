// The counters and histograms of the server, and their labels.
#pragma once

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <memory>
#include <set>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "google/protobuf/descriptor.h"
#include "service/job_record.h"

namespace latentforge::service {

using Buckets = prometheus::Histogram::BucketBoundaries;

inline const Buckets kRpcSeconds = {0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10};
inline const Buckets kJobSeconds = {30, 60, 300, 900, 1800, 3600, 4 * 3600, 12 * 3600, 48 * 3600};
inline const Buckets kPhaseSeconds = {0.1, 1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 24 * 3600};

std::string StateLabel(v1::JobState state);
std::string PhaseLabel(v1::Phase phase);

// A failure is told by who has to act: alerts must not count users' mistakes.
const char* OutcomeLabel(AttemptOutcome outcome, v1::ErrorClass error_class);

// How long a watch or a wait for work lasted says nothing about speed.
bool IsTimed(absl::string_view method);

// Workers choose reasons; a label must not take any number of values.
class BoundedLabels {
 public:
  std::string Of(absl::string_view value) {
    constexpr size_t kMost = 64;
    absl::MutexLock lock(&mutex_);
    if (seen_.size() < kMost) seen_.insert(std::string(value));
    return seen_.count(std::string(value)) > 0 ? std::string(value) : "OTHER";
  }

 private:
  absl::Mutex mutex_;
  std::set<std::string> seen_ ABSL_GUARDED_BY(mutex_);
};

// The registry, and every family of counters and histograms in it. What alerts and
// dashboards divide, sum or take rates of is there with 0 before the first event.
// Safe for concurrent use.
struct MetricFamilies {
  MetricFamilies();

  std::shared_ptr<prometheus::Registry> registry = std::make_shared<prometheus::Registry>();
  BoundedLabels reasons;

  prometheus::Family<prometheus::Counter>& counter(const char* name, const char* help) {
    return prometheus::BuildCounter().Name(name).Help(help).Register(*registry);
  }
  prometheus::Family<prometheus::Histogram>& histogram(const char* name, const char* help) {
    return prometheus::BuildHistogram().Name(name).Help(help).Register(*registry);
  }

  prometheus::Counter& submitted =
      counter("latentforge_jobs_submitted_total", "Jobs accepted").Add({});
  prometheus::Counter& deduplicated = counter("latentforge_submits_deduplicated_total",
                                              "CreateJob calls answered with an earlier job")
                                          .Add({});
  prometheus::Family<prometheus::Counter>& rejected =
      counter("latentforge_submits_rejected_total", "CreateJob calls refused");
  prometheus::Counter& rate_limited =
      counter("latentforge_rate_limited_total", "Calls refused because there were too many")
          .Add({{"limit", "submits_per_minute"}});
  prometheus::Family<prometheus::Counter>& jobs_finished =
      counter("latentforge_jobs_finished_total", "Jobs that ended");
  prometheus::Family<prometheus::Counter>& attempts_finished =
      counter("latentforge_attempts_finished_total", "Attempts that ended");
  prometheus::Histogram& queue_wait =
      histogram("latentforge_job_queue_wait_seconds", "Time from queueing to a lease")
          .Add({}, Buckets{1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 24 * 3600});
  prometheus::Family<prometheus::Histogram>& job_duration =
      histogram("latentforge_job_duration_seconds", "Time from creation to the end of a job");
  prometheus::Family<prometheus::Histogram>& phase_duration =
      histogram("latentforge_phase_duration_seconds", "Wall time of finished phases");
  prometheus::Family<prometheus::Counter>& phase_resumed =
      counter("latentforge_phase_resumed_total", "Phases that continued an earlier attempt's work");
  prometheus::Family<prometheus::Counter>& tokens =
      counter("latentforge_tokens_processed_total", "Tokens processed");
  prometheus::Histogram& perplexity_ratio =
      histogram("latentforge_perplexity_ratio", "Perplexity converted / original of finished jobs")
          .Add({}, Buckets{0.95, 1, 1.01, 1.02, 1.05, 1.1, 1.2, 1.5, 2, 5, 10, 100});
  prometheus::Counter& leases_expired =
      counter("latentforge_leases_expired_total", "Leases that ended without a word").Add({});
  prometheus::Counter& renewals = counter("latentforge_lease_renewals_total", "Heartbeats").Add({});
  prometheus::Counter& dispatches =
      counter("latentforge_dispatches_total", "Leases handed out").Add({});
  prometheus::Family<prometheus::Counter>& fenced =
      counter("latentforge_fenced_writes_total", "Worker calls with a lease that was over");
  prometheus::Family<prometheus::Counter>& auth_failures =
      counter("latentforge_auth_failures_total", "Calls turned away because of who made them");
  prometheus::Counter& watch_resumes = counter("latentforge_watch_resumes_total",
                                               "Watches and readings of logs that named a sequence")
                                           .Add({});
  prometheus::Family<prometheus::Counter>& watch_closed =
      counter("latentforge_watch_closed_total", "Watches and readings of logs that ended");
  prometheus::Family<prometheus::Counter>& watch_sent = counter(
      "latentforge_watch_events_sent_total", "Messages sent to watches and readers of logs");
  prometheus::Counter& log_lines =
      counter("latentforge_log_lines_total", "Lines of attempts' logs that were stored").Add({});
  prometheus::Counter& log_lines_dropped =
      counter("latentforge_log_lines_dropped_total",
              "Lines that workers dropped because they had too many to send")
          .Add({});
  prometheus::Counter& log_appends_refused =
      counter("latentforge_log_appends_refused_total",
              "AppendLogs calls refused because others were being written; workers repeat them")
          .Add({});
  prometheus::Family<prometheus::Counter>& rpc_started =
      counter("grpc_server_started_total", "Calls started");
  prometheus::Family<prometheus::Counter>& rpc_handled =
      counter("grpc_server_handled_total", "Calls ended");
  prometheus::Family<prometheus::Histogram>& rpc_seconds =
      histogram("grpc_server_handling_seconds", "Time from call to answer, unary calls");

 private:
  void AddZerosOfPhases();
  void AddZerosOfRpcs(const google::protobuf::ServiceDescriptor& service);
};

}  // namespace latentforge::service
