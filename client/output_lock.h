// That one `latentforge convert` of this user at a time writes into a folder.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "base/file_lock.h"

namespace latentforge::client {

// A lock in the folder of work folders, named after the output, which need not exist. The kernel
// drops it with the process; its file goes with this object. Movable; not safe for concurrent use.
class OutputLock {
 public:
  // FailedPrecondition OUTPUT_IN_USE names the output and the process that writes there.
  static absl::StatusOr<OutputLock> Acquire(const std::filesystem::path& root,
                                            const std::string& output_uri);
  OutputLock(OutputLock&& other) noexcept = default;
  OutputLock& operator=(OutputLock&&) = delete;
  ~OutputLock();

 private:
  explicit OutputLock(FileLock lock) : lock_(std::make_unique<FileLock>(std::move(lock))) {}

  std::unique_ptr<FileLock> lock_;  // null when moved from
};

}  // namespace latentforge::client
