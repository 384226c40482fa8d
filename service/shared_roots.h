// Whose jobs may read whose files. Pure.
#pragma once

#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "service/tenant_table.h"

namespace latentforge::service {

// A folder, and the tenants, more than one, whose jobs may name what lies beneath it.
struct SharedRoot {
  std::filesystem::path root;     // "/" where some may use any path
  std::set<std::string> tenants;  // "*": all that the tenants file does not name
};

// What `tenants`, and those that the table names, have in common. With `any_tenant` callers
// may be of tenants that nobody has listed. A root beneath one that the same tenants share is
// left out.
std::vector<SharedRoot> SharedRoots(const TenantTable& table, const std::set<std::string>& tenants,
                                    bool any_tenant);

// "tenants a, b may read each other's files beneath /models: ..." with what to write into the
// tenants file.
std::string Describe(const SharedRoot& shared);

}  // namespace latentforge::service
