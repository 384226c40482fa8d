#include "service/metrics.h"

#include <prometheus/collectable.h>
#include <prometheus/counter.h>
#include <prometheus/exposer.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <exception>
#include <set>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/synchronization/mutex.h"
#include "base/version.h"
#include "service/errors.h"
#include "service/process_metrics.h"
#include "service/time_util.h"

namespace latentforge::service {
namespace {

using prometheus::BuildCounter;
using prometheus::BuildHistogram;
using prometheus::Counter;
using prometheus::Family;
using prometheus::Histogram;
using Buckets = Histogram::BucketBoundaries;

const Buckets kRpcSeconds = {0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10};
const Buckets kQueueSeconds = {1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 24 * 3600};
const Buckets kJobSeconds = {30, 60, 300, 900, 1800, 3600, 4 * 3600, 12 * 3600, 48 * 3600};
const Buckets kPhaseSeconds = {0.1, 1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 24 * 3600};
const Buckets kRatio = {0.95, 1, 1.01, 1.02, 1.05, 1.1, 1.2, 1.5, 2, 5, 10, 100};

// "RUNNING" of JOB_STATE_RUNNING as a label: "running".
std::string Label(absl::string_view name, absl::string_view prefix) {
  absl::ConsumePrefix(&name, prefix);
  return absl::AsciiStrToLower(name);
}

std::string StateLabel(v1::JobState state) { return Label(v1::JobState_Name(state), "JOB_STATE_"); }

std::string PhaseLabel(v1::Phase phase) {
  return v1::Phase_IsValid(phase) ? Label(v1::Phase_Name(phase), "PHASE_") : "unspecified";
}

// A failure is told by who has to act: alerts must not count users' mistakes.
const char* OutcomeLabel(AttemptOutcome outcome, v1::ErrorClass error_class) {
  switch (outcome) {
    case AttemptOutcome::kRunning:
      return "running";
    case AttemptOutcome::kSucceeded:
      return "succeeded";
    case AttemptOutcome::kFailed:
      if (error_class == v1::ERROR_CLASS_USER) return "failed_user";
      return error_class == v1::ERROR_CLASS_RESOURCE ? "failed_resource" : "failed_system";
    case AttemptOutcome::kCancelled:
      return "cancelled";
    case AttemptOutcome::kReleased:
      return "released";
    case AttemptOutcome::kLeaseExpired:
      return "lease_expired";
    case AttemptOutcome::kDeadline:
      return "deadline";
  }
  return "unknown";
}

constexpr const char* kOutcomeLabels[] = {"succeeded",       "failed_user", "failed_system",
                                          "failed_resource", "cancelled",   "released",
                                          "lease_expired",   "deadline"};

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

}  // namespace

struct Metrics::Families {
  std::shared_ptr<prometheus::Registry> registry = std::make_shared<prometheus::Registry>();
  BoundedLabels reasons;

  Family<Counter>& counter(const char* name, const char* help) {
    return BuildCounter().Name(name).Help(help).Register(*registry);
  }
  Family<Histogram>& histogram(const char* name, const char* help) {
    return BuildHistogram().Name(name).Help(help).Register(*registry);
  }

  Counter& submitted = counter("latentforge_jobs_submitted_total", "Jobs accepted").Add({});
  Counter& deduplicated = counter("latentforge_submits_deduplicated_total",
                                  "CreateJob calls answered with an earlier job")
                              .Add({});
  Family<Counter>& rejected =
      counter("latentforge_submits_rejected_total", "CreateJob calls refused");
  Family<Counter>& jobs_finished = counter("latentforge_jobs_finished_total", "Jobs that ended");
  Family<Counter>& attempts_finished =
      counter("latentforge_attempts_finished_total", "Attempts that ended");
  Histogram& queue_wait =
      histogram("latentforge_job_queue_wait_seconds", "Time from queueing to a lease")
          .Add({}, kQueueSeconds);
  Family<Histogram>& job_duration =
      histogram("latentforge_job_duration_seconds", "Time from creation to the end of a job");
  Family<Histogram>& phase_duration =
      histogram("latentforge_phase_duration_seconds", "Wall time of finished phases");
  Family<Counter>& phase_resumed =
      counter("latentforge_phase_resumed_total", "Phases that continued an earlier attempt's work");
  Family<Counter>& tokens = counter("latentforge_tokens_processed_total", "Tokens processed");
  Histogram& perplexity_ratio =
      histogram("latentforge_perplexity_ratio", "Perplexity converted / original of finished jobs")
          .Add({}, kRatio);
  Counter& leases_expired =
      counter("latentforge_leases_expired_total", "Leases that ended without a word").Add({});
  Counter& renewals = counter("latentforge_lease_renewals_total", "Heartbeats").Add({});
  Counter& dispatches = counter("latentforge_dispatches_total", "Leases handed out").Add({});
  Family<Counter>& fenced =
      counter("latentforge_fenced_writes_total", "Worker calls with a lease that was over");
  Counter& watch_resumes =
      counter("latentforge_watch_resumes_total", "Watches that named a sequence").Add({});
  Family<Counter>& watch_closed = counter("latentforge_watch_closed_total", "Watches that ended");
  Family<Counter>& watch_sent =
      counter("latentforge_watch_events_sent_total", "Messages sent to watches");
  Family<Counter>& rpc_started = counter("grpc_server_started_total", "Calls started");
  Family<Counter>& rpc_handled = counter("grpc_server_handled_total", "Calls ended");
  Family<Histogram>& rpc_seconds =
      histogram("grpc_server_handling_seconds", "Time from call to answer, unary calls");

  // After the registry that it reads; stops serving first.
  std::shared_ptr<GaugeCollector> gauges;
  std::shared_ptr<ProcessCollector> process = std::make_shared<ProcessCollector>();
  std::unique_ptr<prometheus::Exposer> exposer;
};

// Asks the server at each scrape.
class Metrics::GaugeCollector final : public prometheus::Collectable {
 public:
  GaugeCollector(const Clock& clock, Reader read) : clock_(clock), read_(std::move(read)) {}

  std::vector<prometheus::MetricFamily> Collect() const override {
    const absl::StatusOr<Gauges> gauges = read_();
    std::vector<prometheus::MetricFamily> families;
    Add(families, "latentforge_up_to_date", "1 when the store could be read for this scrape",
        {{{}, gauges.ok() ? 1.0 : 0.0}});
    if (gauges.ok()) AddJobs(*gauges, families);
    return families;
  }

 private:
  using Labels = std::map<std::string, std::string>;

  static void Add(std::vector<prometheus::MetricFamily>& families, const char* name,
                  const char* help, const std::vector<std::pair<Labels, double>>& values) {
    prometheus::MetricFamily& family = families.emplace_back();
    family.name = name;
    family.help = help;
    family.type = prometheus::MetricType::Gauge;
    for (const auto& [labels, value] : values) {
      prometheus::ClientMetric& metric = family.metric.emplace_back();
      for (const auto& [label, text] : labels) metric.label.push_back({label, text});
      metric.gauge.value = value;
    }
  }

  void AddJobs(const Gauges& gauges, std::vector<prometheus::MetricFamily>& families) const {
    std::vector<std::pair<Labels, double>> states;
    for (int state = v1::JOB_STATE_QUEUED; state <= v1::JOB_STATE_CANCELLED; ++state) {
      const auto found = gauges.stats.jobs.find(static_cast<v1::JobState>(state));
      const int64_t count = found == gauges.stats.jobs.end() ? 0 : found->second;
      states.push_back(
          {{{"state", StateLabel(static_cast<v1::JobState>(state))}}, static_cast<double>(count)});
    }
    Add(families, "latentforge_jobs", "Jobs by state", states);
    const double age = gauges.stats.oldest_queue_time.has_value()
                           ? absl::ToDoubleSeconds(clock_.Now() - *gauges.stats.oldest_queue_time)
                           : 0;
    Add(families, "latentforge_oldest_queued_job_age_seconds",
        "Time that the oldest queued job has waited, 0 without one", {{{}, age}});
    const auto& presence = gauges.presence;
    const double busy = static_cast<double>(presence.leases);
    const double slots = static_cast<double>(presence.slots);
    Add(families, "latentforge_workers", "Workers that called lately",
        {{{}, static_cast<double>(presence.workers)}});
    Add(families, "latentforge_worker_slots", "Attempts that those workers can run at once",
        {{{{"state", "busy"}}, busy}, {{{"state", "idle"}}, std::max(0.0, slots - busy)}});
    Add(families, "latentforge_leases_active", "Leases held", {{{}, busy}});
    Add(families, "latentforge_watch_streams", "Open watches",
        {{{}, static_cast<double>(gauges.open_watches)}});
  }

  const Clock& clock_;
  const Reader read_;
};

Metrics::Metrics() : families_(std::make_unique<Families>()) {
  prometheus::BuildGauge()
      .Name("latentforge_build_info")
      .Help("Always 1; the labels say what runs")
      .Register(*families_->registry)
      .Add({{"version", kVersion}})
      .Set(1);
  // What alerts and dashboards divide or sum must exist before the first event.
  for (int number = v1::PHASE_UNSPECIFIED; number <= v1::PHASE_PUBLISHING; ++number) {
    const std::string phase = PhaseLabel(static_cast<v1::Phase>(number));
    for (const char* outcome : kOutcomeLabels)
      families_->attempts_finished.Add({{"outcome", outcome}, {"phase", phase}});
    if (number == v1::PHASE_UNSPECIFIED) continue;
    families_->phase_duration.Add({{"phase", phase}}, kPhaseSeconds);
    families_->tokens.Add({{"phase", phase}});
  }
  for (const char* operation : {"heartbeat", "report", "complete"})
    families_->fenced.Add({{"operation", operation}});
}

Metrics::~Metrics() { families_->exposer.reset(); }

absl::StatusOr<std::string> Metrics::Serve(const std::string& address, const Clock& clock,
                                           Reader read) {
  families_->gauges = std::make_shared<GaugeCollector>(clock, std::move(read));
  // The web server inside reports by exception; it goes no further than here.
  try {
    families_->exposer = std::make_unique<prometheus::Exposer>(address, 2);
  } catch (const std::exception& error) {
    return absl::UnavailableError(absl::StrCat("metrics cannot be served on ", address, ": ",
                                               error.what(), "; is the port taken?"));
  }
  families_->exposer->RegisterCollectable(families_->registry);
  families_->exposer->RegisterCollectable(families_->gauges);
  families_->exposer->RegisterCollectable(families_->process);
  const std::vector<int> ports = families_->exposer->GetListeningPorts();
  const size_t colon = address.rfind(':');
  if (ports.empty() || colon == std::string::npos) return address;
  return absl::StrCat(address.substr(0, colon), ":", ports.front());
}

std::string Metrics::Text() const {
  return prometheus::TextSerializer().Serialize(families_->registry->Collect());
}

void Metrics::JobSubmitted() { families_->submitted.Increment(); }

void Metrics::SubmitDeduplicated() { families_->deduplicated.Increment(); }

void Metrics::SubmitRejected(absl::string_view reason) {
  families_->rejected.Add({{"reason", families_->reasons.Of(reason)}}).Increment();
}

void Metrics::Transitioned(const JobRecord& before, const Transition& transition) {
  const JobRecord& after = transition.next;
  const v1::JobState state = after.job.status().state();
  if (transition.attempt.has_value()) {
    const AttemptOutcome outcome = transition.attempt->outcome;
    if (outcome == AttemptOutcome::kRunning) {
      families_->dispatches.Increment();
      families_->queue_wait.Observe(
          absl::ToDoubleSeconds(transition.attempt->start_time - before.queue_time));
    } else {
      families_->attempts_finished
          .Add({{"outcome", OutcomeLabel(outcome, after.job.status().error().error_class())},
                {"phase", PhaseLabel(before.job.status().phase())}})
          .Increment();
    }
    if (outcome == AttemptOutcome::kLeaseExpired) families_->leases_expired.Increment();
  }
  for (const v1::JobEvent& event : transition.events) {
    if (event.has_phase_started() && event.phase_started().resumed())
      families_->phase_resumed.Add({{"phase", PhaseLabel(event.phase_started().phase())}})
          .Increment();
    if (!event.has_phase_finished()) continue;
    const v1::PhaseFinished& phase = event.phase_finished();
    families_->phase_duration.Add({{"phase", PhaseLabel(phase.phase())}}, kPhaseSeconds)
        .Observe(phase.seconds());
    if (phase.tokens() > 0)
      families_->tokens.Add({{"phase", PhaseLabel(phase.phase())}})
          .Increment(static_cast<double>(phase.tokens()));
  }
  if (IsTerminal(before.job.status().state()) || !IsTerminal(state)) return;
  const std::string result = StateLabel(state);
  const std::string reason = state == v1::JOB_STATE_FAILED
                                 ? families_->reasons.Of(after.job.status().error().reason())
                                 : "";
  families_->jobs_finished.Add({{"result", result}, {"reason", reason}}).Increment();
  families_->job_duration.Add({{"result", result}}, kJobSeconds)
      .Observe(absl::ToDoubleSeconds(FromProto(after.job.end_time()) -
                                     FromProto(after.job.create_time())));
  const v1::ConversionResult& conversion = after.job.status().result();
  if (state == v1::JOB_STATE_SUCCEEDED && conversion.perplexity_base() > 0)
    families_->perplexity_ratio.Observe(conversion.perplexity_converted() /
                                        conversion.perplexity_base());
}

void Metrics::LeaseRenewed() { families_->renewals.Increment(); }

void Metrics::FencedWrite(absl::string_view operation) {
  families_->fenced.Add({{"operation", std::string(operation)}}).Increment();
}

void Metrics::WatchOpened(bool resumed) {
  if (resumed) families_->watch_resumes.Increment();
}

void Metrics::WatchClosed(absl::string_view reason) {
  families_->watch_closed.Add({{"reason", std::string(reason)}}).Increment();
}

void Metrics::WatchSent(absl::string_view type) {
  families_->watch_sent.Add({{"type", std::string(type)}}).Increment();
}

void Metrics::RpcStarted(absl::string_view service, absl::string_view method) {
  families_->rpc_started
      .Add({{"grpc_service", std::string(service)}, {"grpc_method", std::string(method)}})
      .Increment();
}

void Metrics::RpcHandled(absl::string_view service, absl::string_view method,
                         const absl::Status& status, absl::Duration duration) {
  const std::map<std::string, std::string> labels = {{"grpc_service", std::string(service)},
                                                     {"grpc_method", std::string(method)}};
  auto with_code = labels;
  with_code["grpc_code"] = absl::StatusCodeToString(status.code());
  families_->rpc_handled.Add(with_code).Increment();
  // How long a watch or a wait for work lasted says nothing about speed.
  if (method == "WatchJob" || method == "AcquireLease") return;
  families_->rpc_seconds.Add(labels, kRpcSeconds).Observe(absl::ToDoubleSeconds(duration));
}

}  // namespace latentforge::service
