#include "client/output_lock.h"

#include <system_error>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "client/error.h"

namespace latentforge::client {

absl::StatusOr<OutputLock> OutputLock::Acquire(const std::filesystem::path& root,
                                               const std::string& output_uri) {
  LF_ASSIGN_OR_RETURN(const std::filesystem::path output, PathFromUri(output_uri));
  std::error_code error;
  std::filesystem::path real = std::filesystem::weakly_canonical(output, error);
  if (error) real = output.lexically_normal();
  if (!real.has_filename()) real = real.parent_path();  // a slash at its end
  const std::string name = absl::StrCat("output-", Sha256Hex(real.string()).substr(0, 32), ".lock");
  absl::StatusOr<FileLock> lock = FileLock::Acquire(root / name);
  if (lock.ok()) return OutputLock(*std::move(lock));
  if (!absl::IsFailedPrecondition(lock.status())) return lock.status();
  return WithReason(
      absl::FailedPreconditionError(absl::StrCat("another conversion writes to ", output.string(),
                                                 " already: ", lock.status().message())),
      "OUTPUT_IN_USE");
}

OutputLock::~OutputLock() {
  if (lock_ != nullptr) lock_->RemoveFile();
}

}  // namespace latentforge::client
