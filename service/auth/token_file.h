// A token table that follows its file.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <memory>
#include <tuple>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "base/clock.h"
#include "service/auth/token_table.h"

namespace latentforge::service {

// Looks at the file once a second at most, and reads it again when it was changed or
// replaced. A file that cannot be used is logged once and changes nothing. Safe for
// concurrent use. Borrows the clock.
class TokenFile {
 public:
  // The errors of ReadFile and TokenTable::Parse, with the path.
  static absl::StatusOr<std::unique_ptr<TokenFile>> Open(std::filesystem::path path,
                                                         const Clock& clock);

  std::shared_ptr<const TokenTable> Current();

 private:
  // Tells one state of a file from another: device, inode, size, times of change.
  using Stamp = std::tuple<dev_t, ino_t, off_t, int64_t, int64_t>;

  TokenFile(std::filesystem::path path, const Clock& clock)
      : path_(std::move(path)), clock_(clock) {}

  static Stamp StampOf(const std::filesystem::path& path);
  absl::StatusOr<TokenTable> Read() const;

  const std::filesystem::path path_;
  const Clock& clock_;
  absl::Mutex mutex_;
  absl::Duration next_look_ ABSL_GUARDED_BY(mutex_);
  Stamp stamp_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<const TokenTable> table_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace latentforge::service
