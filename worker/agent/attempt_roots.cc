#include "worker/agent/attempt_roots.h"

#include "absl/strings/str_cat.h"

namespace latentforge::agent {

absl::StatusOr<PathRoots> AttemptRoots(const PathRoots& of_lease, const PathRoots& of_worker) {
  if (of_worker.empty()) return of_lease;
  if (of_lease.empty()) return of_worker;
  PathRoots common = CommonRoots(of_lease, of_worker);
  if (!common.empty()) return common;
  return absl::FailedPreconditionError(
      absl::StrCat("the job may use files beneath ", DescribeRoots(of_lease),
                   ", and this worker's --allowed-root is ", DescribeRoots(of_worker),
                   ": expected folders that lie beneath both"));
}

PathRoots ResolveRoots(const PathRoots& roots) {
  PathRoots resolved;
  for (const std::filesystem::path& root : roots) {
    // A circle of links leads nowhere, which the kernel finds out as well.
    resolved.push_back(ResolvePath(root).value_or(root));
  }
  return resolved;
}

PathRoots RootsOfLease(const PathRoots& roots) { return ResolveRoots(OutermostRoots(roots)); }

}  // namespace latentforge::agent
