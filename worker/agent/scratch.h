// The worker's private folder: one folder a job, kept between attempts.
#pragma once

#include <filesystem>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace latentforge::agent {

// Safe for concurrent use. Several workers of one user may share a root: the
// compute process locks the folder in which it runs.
class Scratch {
 public:
  // Makes the root with mode 0700 unless it exists. Errors name the path.
  static absl::StatusOr<std::unique_ptr<Scratch>> Open(std::filesystem::path root);

  // The folder of "jobs/{id}", made with mode 0700 unless an earlier attempt left
  // it; it is in use until Release. InvalidArgument for a name that is no job's,
  // FailedPrecondition when the folder belongs to another user.
  absl::StatusOr<std::filesystem::path> Acquire(const std::string& job);

  // Ends the use; removes the folder unless `keep`.
  void Release(const std::string& job, bool keep);

  // Removes folders that nobody has used for `age` before `now`.
  void Sweep(absl::Duration age, absl::Time now);

  const std::filesystem::path& root() const { return root_; }

 private:
  explicit Scratch(std::filesystem::path root) : root_(std::move(root)) {}

  const std::filesystem::path root_;
  absl::Mutex mutex_;
  absl::flat_hash_set<std::string> in_use_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace latentforge::agent
