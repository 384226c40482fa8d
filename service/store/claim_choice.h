// Which queued job a worker takes: the same rules for every store. Pure.
#pragma once

#include <string>
#include <vector>

#include "service/fair_share.h"
#include "service/store/store.h"

namespace latentforge::service {

// The queued jobs of one tenant that need the same. There are few kinds however many jobs
// wait (TenantLimits::max_queued_kinds), and every store has an index by them: a claim looks at
// each kind once, and never at jobs that its worker cannot take.
struct JobKind {
  std::string tenant;
  std::string needs;  // NeedsKey
};

// Whether the worker can run such jobs.
bool Fits(const ClaimQuery& query, const JobKind& kind);

// Whether MayTake asks for what the tenant uses.
bool HasRunningLimit(const ClaimQuery& query, const std::string& tenant);

// Whether the tenant may have one more such job running on the worker.
bool MayTake(const ClaimQuery& query, const JobKind& kind, const TenantUse& use);

// What is kept when `taken` has been taken by the tenant.
Charge ChargeFor(const ClaimQuery& query, const JobRecord& taken, double virtual_time,
                 double clock);

}  // namespace latentforge::service
