// Whether a specification can run here, and what it will need.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "base/path_roots.h"
#include "latentforge/v1/job_service.pb.h"

namespace latentforge::service {

// A specification that passed.
struct CheckedSpec {
  v1::JobSpec spec;  // defaults filled in
  v1::Estimate estimate;
  std::string output_path;  // resolved
};

// Implementations are safe for concurrent use.
class SpecChecker {
 public:
  virtual ~SpecChecker() = default;

  // `roots` are those beneath which the job's paths must lie; none: any path may be named.
  // Errors are ready for clients.
  virtual absl::StatusOr<CheckedSpec> Check(const v1::JobSpec& spec,
                                            const PathRoots& roots) const = 0;
};

}  // namespace latentforge::service
