// An advisory lock that one process at a time can hold.
#pragma once

#include <filesystem>

#include "absl/status/statusor.h"
#include "base/unique_fd.h"

namespace latentforge::service {

// Holds flock(2) on a file while it lives; the kernel drops it when the process
// dies, however it dies. The file itself stays.
class FileLock {
 public:
  // FailedPrecondition when another process (or another FileLock) holds it; the
  // message names the path and, where known, the holder's process id.
  static absl::StatusOr<FileLock> Acquire(const std::filesystem::path& path);

 private:
  explicit FileLock(UniqueFd fd) : fd_(std::move(fd)) {}
  UniqueFd fd_;
};

}  // namespace latentforge::service
