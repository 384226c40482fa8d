// Which folders an attempt may use.
#pragma once

#include "absl/status/statusor.h"
#include "base/path_roots.h"

namespace latentforge::agent {

// What lies beneath a root of the lease and a root of the worker; an empty list of either allows
// everything, and so does an empty result. FailedPrecondition, with both lists, when they have
// nothing in common. All roots are resolved. Pure.
absl::StatusOr<PathRoots> AttemptRoots(const PathRoots& of_lease, const PathRoots& of_worker);

// The roots with this machine's symbolic links resolved: those that its operator made.
PathRoots ResolveRoots(const PathRoots& roots);

// The same of a lease's, without those beneath others: whose jobs write there could have put a link
// in such a root's place since the server resolved it.
PathRoots RootsOfLease(const PathRoots& roots);

}  // namespace latentforge::agent
