// What metrics show of tenants.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "service/store/store.h"
#include "service/tenant_table.h"

namespace latentforge::service {

// A plain value.
struct TenantGauge {
  std::string tenant;
  TenantLimits limits;
  TenantUse use;
  double share = 0;  // of the jobs that hold a lease
};

// Of the tenants that the table names, up to a hundred, and of all others together as "other",
// whose limits and GPUs are not told: a label must not take any number of values. Errors of
// Store::Use.
absl::StatusOr<std::vector<TenantGauge>> ReadTenantGauges(Store& store, const TenantTable& tenants,
                                                          const StoreStats& stats);

}  // namespace latentforge::service
