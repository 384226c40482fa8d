// A table that follows its file.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <tuple>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/status_macros.h"

namespace latentforge::service {

// Tells one state of a file from another: device, inode, size, times of change.
using FileStamp = std::tuple<dev_t, ino_t, off_t, int64_t, int64_t>;

// Of no file when there is none.
FileStamp StampOf(const std::filesystem::path& path);

// Looks at the file once a second at most, and reads it again when it was changed or
// replaced. A file that cannot be used is logged once and changes nothing. Safe for
// concurrent use. Borrows the clock. A Table is immutable and has size() and kFileName, which is
// what logs call the file.
template <typename Table>
class FollowedFile {
 public:
  using Parse = std::function<absl::StatusOr<Table>(absl::string_view)>;

  // The errors of ReadFile and `parse`, with the path.
  static absl::StatusOr<std::unique_ptr<FollowedFile>> Open(std::filesystem::path path,
                                                            const Clock& clock,
                                                            Parse parse = &Table::Parse) {
    std::unique_ptr<FollowedFile> file(new FollowedFile(std::move(path), clock, std::move(parse)));
    absl::MutexLock lock(&file->mutex_);
    file->next_look_ = clock.Monotonic() + kLookInterval;
    file->stamp_ = StampOf(file->path_);
    LF_ASSIGN_OR_RETURN(Table table, file->Read());
    file->table_ = std::make_shared<const Table>(std::move(table));
    return file;
  }

  std::shared_ptr<const Table> Current() {
    absl::MutexLock lock(&mutex_);
    const absl::Duration now = clock_.Monotonic();
    if (now < next_look_) return table_;
    next_look_ = now + kLookInterval;
    // Before it is read: what is written meanwhile has another stamp.
    const FileStamp stamp = StampOf(path_);
    if (stamp == stamp_) return table_;
    stamp_ = stamp;
    absl::StatusOr<Table> read = Read();
    if (!read.ok()) {
      Log(Severity::kError,
          absl::StrCat("the ", Table::kFileName, " cannot be used; the former one stays in force"),
          {{"error", std::string(read.status().message())}});
      return table_;
    }
    table_ = std::make_shared<const Table>(*std::move(read));
    Log(Severity::kInfo, absl::StrCat("the ", Table::kFileName, " was read again"),
        {{"file", path_.string()}, {"entries", absl::StrCat(table_->size())}});
    return table_;
  }

 private:
  static constexpr absl::Duration kLookInterval = absl::Seconds(1);
  static constexpr int64_t kMaxBytes = 4 << 20;

  FollowedFile(std::filesystem::path path, const Clock& clock, Parse parse)
      : path_(std::move(path)), clock_(clock), parse_(std::move(parse)) {}

  absl::StatusOr<Table> Read() const {
    LF_ASSIGN_OR_RETURN(const std::string text, ReadFile(path_, kMaxBytes));
    absl::StatusOr<Table> table = parse_(text);
    if (!table.ok()) return Annotate(table.status(), path_.string());
    return table;
  }

  const std::filesystem::path path_;
  const Clock& clock_;
  const Parse parse_;
  absl::Mutex mutex_;
  absl::Duration next_look_ ABSL_GUARDED_BY(mutex_);
  FileStamp stamp_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<const Table> table_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace latentforge::service
