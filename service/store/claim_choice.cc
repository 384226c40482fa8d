#include "service/store/claim_choice.h"

#include "service/needs.h"

namespace latentforge::service {

bool Fits(const ClaimQuery& query, const JobKind& kind) {
  return Meets(query.worker, ParseNeedsKey(kind.needs));
}

bool HasRunningLimit(const ClaimQuery& query, const std::string& tenant) {
  const TenantLimits& limits = query.tenants->Of(tenant);
  return limits.max_running_jobs > 0 || limits.max_running_gpus > 0;
}

bool MayTake(const ClaimQuery& query, const JobKind& kind, const TenantUse& use) {
  const TenantLimits& limits = query.tenants->Of(kind.tenant);
  if (limits.max_running_jobs > 0 && use.running >= limits.max_running_jobs) return false;
  const int gpus = GpusTaken(query.worker, ParseNeedsKey(kind.needs));
  return limits.max_running_gpus == 0 || gpus == 0 || use.gpus + gpus <= limits.max_running_gpus;
}

Charge ChargeFor(const ClaimQuery& query, const JobRecord& taken, double virtual_time,
                 double clock) {
  const double weight = query.tenants->Of(taken.tenant).weight;
  return ChargeFor(CostOf(taken.estimate), weight, virtual_time, clock);
}

}  // namespace latentforge::service
