// Prometheus metrics. Only metrics.cc, metric_families and process_metrics see
// prometheus-cpp.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "service/observer.h"
#include "service/scheduler.h"
#include "service/store/store.h"
#include "service/tenant_gauges.h"

namespace latentforge::service {

// Counts what it observes and serves it. Labels never hold names of jobs, users or
// paths, and take a bounded number of values. Safe for concurrent use.
class Metrics final : public Observer {
 public:
  Metrics();
  ~Metrics() override;

  // What gauges show; asked at each scrape.
  struct Gauges {
    StoreStats stats;
    Scheduler::Presence presence;
    int open_watches = 0;
    std::vector<TenantGauge> tenants;
  };
  using Reader = std::function<absl::StatusOr<Gauges>()>;

  // Serves /metrics on "host:port" until destroyed; call once. Returns the address
  // with the port that was taken. `read` must stay callable until then.
  absl::StatusOr<std::string> Serve(const std::string& address, const Clock& clock, Reader read);

  // The text of one scrape without gauges that Serve adds; for tests.
  std::string Text() const;

  void JobSubmitted() override;
  void SubmitDeduplicated() override;
  void SubmitRejected(absl::string_view reason) override;
  void Transitioned(const JobRecord& before, const Transition& transition) override;
  void LeaseRenewed() override;
  void FencedWrite(absl::string_view operation) override;
  void LogsAppended(const LogAppended& appended) override;
  void LogsRefused() override;
  void WatchOpened(bool resumed) override;
  void WatchClosed(absl::string_view reason) override;
  void WatchSent(absl::string_view type) override;
  void RpcStarted(absl::string_view service, absl::string_view method) override;
  void RpcHandled(absl::string_view service, absl::string_view method, const absl::Status& status,
                  absl::Duration duration) override;
  void CallRefused(absl::string_view reason) override;

 private:
  struct Families;
  class GaugeCollector;

  std::unique_ptr<Families> families_;
};

}  // namespace latentforge::service
