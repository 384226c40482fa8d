#include "service/tenant_gauges.h"

#include <algorithm>

#include "base/status_macros.h"

namespace latentforge::service {
namespace {

constexpr size_t kMostNamed = 100;
constexpr char kOther[] = "other";

TenantUse TotalOf(const StoreStats& stats) {
  TenantUse total;
  for (const auto& [state, jobs] : stats.jobs) {
    if (state == v1::JOB_STATE_QUEUED) total.queued += jobs;
    if (state == v1::JOB_STATE_PAUSED) total.paused += jobs;
    if (HoldsLease(state)) total.running += jobs;
  }
  return total;
}

// The two were not counted at the same moment.
void Subtract(int64_t part, int64_t& whole) { whole = std::max<int64_t>(0, whole - part); }

}  // namespace

absl::StatusOr<std::vector<TenantGauge>> ReadTenantGauges(Store& store, const TenantTable& tenants,
                                                          const StoreStats& stats) {
  const TenantUse total = TotalOf(stats);
  TenantGauge other{.tenant = kOther, .use = total};
  std::vector<TenantGauge> gauges;
  for (const auto& [tenant, limits] : tenants.named()) {
    if (gauges.size() == kMostNamed) break;
    if (tenant == kOther) continue;
    TenantGauge& gauge = gauges.emplace_back(TenantGauge{.tenant = tenant, .limits = limits});
    LF_ASSIGN_OR_RETURN(gauge.use, store.Use(tenant));
    Subtract(gauge.use.queued, other.use.queued);
    Subtract(gauge.use.paused, other.use.paused);
    Subtract(gauge.use.running, other.use.running);
  }
  gauges.push_back(std::move(other));
  const double running = static_cast<double>(std::max<int64_t>(1, total.running));
  for (TenantGauge& gauge : gauges)
    gauge.share = std::min(1.0, static_cast<double>(gauge.use.running) / running);
  return gauges;
}

}  // namespace latentforge::service
