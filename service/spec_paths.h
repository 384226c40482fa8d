// The files that a specification names.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "base/path_roots.h"
#include "latentforge/v1/spec.pb.h"

namespace latentforge::service {

// A field that holds a URI. Empty ones are left out.
struct SpecPath {
  std::string field;  // "spec.calibration.corpora[0].uri"
  std::string uri;
};

// Every one. Pure.
std::vector<SpecPath> PathsOf(const v1::JobSpec& spec);

// Whether an artifact may be made there: its files lie beside it while it is made, so that a root
// itself is no place. `output` is resolved. No roots: anywhere. Pure.
bool MayHoldOutput(const PathRoots& roots, const std::filesystem::path& output);

// PermissionDenied names the first path of a checked specification that does not lie beneath the
// roots. No roots: every path does. Pure: links that somebody made since are the worker's matter.
absl::Status CheckBeneath(const v1::JobSpec& spec, const PathRoots& roots);

}  // namespace latentforge::service
