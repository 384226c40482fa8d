#include "service/shared_roots.h"

#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace latentforge::service {
namespace {

namespace fs = std::filesystem;

constexpr char kUnlisted[] = "*";  // no tenant has this name
constexpr size_t kMostTold = 8;    // of tenants in a line

using TenantsByRoot = std::map<fs::path, std::set<std::string>>;

TenantsByRoot RootsOf(const TenantTable& table, std::set<std::string> tenants, bool any_tenant) {
  for (const auto& [tenant, limits] : table.named()) tenants.insert(tenant);
  if (any_tenant) tenants.insert(kUnlisted);
  TenantsByRoot by_root;
  for (const std::string& tenant : tenants) {
    const PathRoots& roots = table.Of(tenant).allowed_roots;
    if (roots.empty()) by_root["/"].insert(tenant);
    for (const fs::path& root : roots) by_root[root].insert(tenant);
  }
  return by_root;
}

// More than one: those that are not listed are any number.
bool AreSeveral(const std::set<std::string>& tenants) {
  return tenants.size() > 1 || tenants.contains(kUnlisted);
}

}  // namespace

std::vector<SharedRoot> SharedRoots(const TenantTable& table, const std::set<std::string>& tenants,
                                    bool any_tenant) {
  const TenantsByRoot by_root = RootsOf(table, tenants, any_tenant);
  std::vector<SharedRoot> shared;
  for (const auto& [root, own] : by_root) {
    // Whoever may use a folder above it may use it too.
    std::set<std::string> from_above;
    for (fs::path above = root; above != above.parent_path();) {
      above = above.parent_path();
      if (const auto found = by_root.find(above); found != by_root.end())
        from_above.insert(found->second.begin(), found->second.end());
    }
    std::set<std::string> all = from_above;
    all.insert(own.begin(), own.end());
    if (AreSeveral(all) && all != from_above) shared.push_back({root, std::move(all)});
  }
  return shared;
}

std::string Describe(const SharedRoot& shared) {
  std::vector<std::string> told;
  std::string example = "NAME";
  for (const std::string& tenant : shared.tenants) {
    if (told.size() == kMostTold) break;
    told.push_back(tenant == kUnlisted ? "without an entry in the tenants file" : tenant);
    if (tenant != kUnlisted) example = tenant;
  }
  if (shared.tenants.size() > told.size())
    told.push_back(absl::StrCat(shared.tenants.size() - told.size(), " more"));
  return absl::StrCat("tenants (", absl::StrJoin(told, ", "),
                      ") may read each other's files beneath ", shared.root.string(),
                      ": unless that is meant, give each roots of its own in --tenants, as in {\"",
                      example, "\": {\"allowed_roots\": [\"", (shared.root / example).string(),
                      "\"]}}");
}

}  // namespace latentforge::service
