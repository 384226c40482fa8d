#include "base/program.h"

#include <unistd.h>

#include <system_error>

#include "absl/strings/str_cat.h"

namespace latentforge {

absl::Status CheckProgram(const std::filesystem::path& path) {
  std::error_code error;
  const std::filesystem::file_status status = std::filesystem::status(path, error);
  if (!std::filesystem::exists(status)) {
    return absl::NotFoundError(absl::StrCat(path.string(), " does not exist"));
  }
  if (!std::filesystem::is_regular_file(status)) {
    return absl::FailedPreconditionError(absl::StrCat(path.string(), " is not a file"));
  }
  if (access(path.c_str(), X_OK) != 0) {
    return absl::PermissionDeniedError(absl::StrCat(path.string(), " may not be run by this user"));
  }
  return absl::OkStatus();
}

}  // namespace latentforge
