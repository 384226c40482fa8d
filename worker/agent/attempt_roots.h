// Which folders an attempt may use.
#pragma once

#include "absl/status/statusor.h"
#include "base/path_roots.h"

namespace latentforge::agent {

// What lies beneath a root of the lease and a root of the worker; an empty list of either allows
// everything, and so does an empty result. FailedPrecondition, with both lists, when they have
// nothing in common. All roots are resolved. Pure.
absl::StatusOr<PathRoots> AttemptRoots(const PathRoots& of_lease, const PathRoots& of_worker);

// The roots with this machine's symbolic links resolved.
PathRoots ResolveRoots(const PathRoots& roots);

}  // namespace latentforge::agent
