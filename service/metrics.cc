#include "service/metrics.h"

#include <prometheus/collectable.h>
#include <prometheus/exposer.h>
#include <prometheus/gauge.h>
#include <prometheus/text_serializer.h>

#include <exception>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/version.h"
#include "service/errors.h"
#include "service/metric_families.h"
#include "service/process_metrics.h"
#include "service/time_util.h"

namespace latentforge::service {

struct Metrics::Families : MetricFamilies {
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
    if (!gauges.ok()) return families;
    AddJobs(*gauges, families);
    AddTenants(gauges->tenants, families);
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
    for (int state = v1::JOB_STATE_QUEUED; state <= v1::JobState_MAX; ++state) {
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

  static void AddTenants(const std::vector<TenantGauge>& tenants,
                         std::vector<prometheus::MetricFamily>& families) {
    std::vector<std::pair<Labels, double>> limits;
    std::vector<std::pair<Labels, double>> used;
    std::vector<std::pair<Labels, double>> shares;
    for (const TenantGauge& gauge : tenants) {
      const auto add = [&](const char* quota, int64_t limit, int64_t use) {
        const Labels labels = {{"tenant", gauge.tenant}, {"quota", quota}};
        if (limit > 0) limits.emplace_back(labels, static_cast<double>(limit));
        used.emplace_back(labels, static_cast<double>(use));
      };
      add("queued_jobs", gauge.limits.max_queued_jobs, gauge.use.waiting());
      add("running_jobs", gauge.limits.max_running_jobs, gauge.use.running);
      add("running_gpus", gauge.limits.max_running_gpus, gauge.use.gpus);
      shares.push_back({{{"tenant", gauge.tenant}}, gauge.share});
    }
    Add(families, "latentforge_quota_limit", "Most that the tenant may have", limits);
    Add(families, "latentforge_quota_used", "What the tenant has of it", used);
    Add(families, "latentforge_tenant_share_ratio", "Share of the running jobs", shares);
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
  if (reason == kRateLimited) families_->rate_limited.Increment();
}

void Metrics::Transitioned(const JobRecord& before, const Transition& transition) {
  const JobRecord& after = transition.next;
  const v1::JobState state = after.job.status().state();
  if (transition.attempt.has_value()) {
    const AttemptOutcome outcome = transition.attempt->outcome;
    if (before.job.status().state() == v1::JOB_STATE_QUEUED) {
      families_->dispatches.Increment();
      families_->queue_wait.Observe(
          absl::ToDoubleSeconds(transition.attempt->start_time - before.queue_time));
    } else if (outcome != AttemptOutcome::kRunning) {
      families_->attempts_finished
          .Add({{"outcome", OutcomeLabel(outcome, transition.attempt->error.error_class())},
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

void Metrics::CallRefused(absl::string_view reason) {
  families_->auth_failures.Add({{"reason", std::string(reason)}}).Increment();
}

void Metrics::FencedWrite(absl::string_view operation) {
  families_->fenced.Add({{"operation", std::string(operation)}}).Increment();
}

void Metrics::LogsAppended(const LogAppended& appended) {
  families_->log_lines.Increment(static_cast<double>(appended.added));
  families_->log_lines_dropped.Increment(static_cast<double>(appended.missing));
}

void Metrics::LogsRefused() { families_->log_appends_refused.Increment(); }

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
  if (!IsTimed(method)) return;
  families_->rpc_seconds.Add(labels, kRpcSeconds).Observe(absl::ToDoubleSeconds(duration));
}

}  // namespace latentforge::service
