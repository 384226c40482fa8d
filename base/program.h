// Programs that this one starts.
#pragma once

#include <filesystem>

#include "absl/status/status.h"

namespace latentforge {

// OK when `path` is a file that this process may run; otherwise NotFound,
// FailedPrecondition (no file) or PermissionDenied with "PATH does not exist" or the like.
absl::Status CheckProgram(const std::filesystem::path& path);

}  // namespace latentforge
