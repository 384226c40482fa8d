// An advisory lock that one process at a time can hold.
#pragma once

#include <filesystem>

#include "absl/status/statusor.h"
#include "base/unique_fd.h"

namespace latentforge {

// Holds flock(2) on a file while it lives; the kernel drops it when the process
// dies, however it dies. The file itself stays unless it is removed here.
class FileLock {
 public:
  // FailedPrecondition when another process (or another FileLock) holds it; the
  // message names the path and, where known, the holder's process id.
  static absl::StatusOr<FileLock> Acquire(const std::filesystem::path& path);

  // True when the file was not there before.
  bool made() const { return made_; }
  // Takes the file away while the lock is held: nobody is left with a lock on a file without a
  // name, for Acquire looks whether its file is still the one at the path.
  void RemoveFile();

 private:
  FileLock(std::filesystem::path path, UniqueFd fd, bool made)
      : path_(std::move(path)), fd_(std::move(fd)), made_(made) {}

  std::filesystem::path path_;
  UniqueFd fd_;
  bool made_;
};

}  // namespace latentforge
