#include "service/auth/token_file.h"

#include <sys/stat.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/log.h"
#include "base/status_macros.h"

namespace latentforge::service {
namespace {

constexpr absl::Duration kLookInterval = absl::Seconds(1);
constexpr int64_t kMaxBytes = 4 << 20;

int64_t Nanos(const timespec& time) { return absl::ToUnixNanos(absl::TimeFromTimespec(time)); }

}  // namespace

absl::StatusOr<std::unique_ptr<TokenFile>> TokenFile::Open(std::filesystem::path path,
                                                           const Clock& clock) {
  std::unique_ptr<TokenFile> file(new TokenFile(std::move(path), clock));
  absl::MutexLock lock(&file->mutex_);
  file->next_look_ = clock.Monotonic() + kLookInterval;
  file->stamp_ = StampOf(file->path_);
  LF_ASSIGN_OR_RETURN(TokenTable table, file->Read());
  file->table_ = std::make_shared<const TokenTable>(std::move(table));
  return file;
}

TokenFile::Stamp TokenFile::StampOf(const std::filesystem::path& path) {
  struct stat found = {};
  if (stat(path.c_str(), &found) != 0) return {};
  return {found.st_dev, found.st_ino, found.st_size, Nanos(found.st_mtim), Nanos(found.st_ctim)};
}

absl::StatusOr<TokenTable> TokenFile::Read() const {
  LF_ASSIGN_OR_RETURN(const std::string text, ReadFile(path_, kMaxBytes));
  absl::StatusOr<TokenTable> table = TokenTable::Parse(text);
  if (!table.ok()) return Annotate(table.status(), path_.string());
  return table;
}

std::shared_ptr<const TokenTable> TokenFile::Current() {
  absl::MutexLock lock(&mutex_);
  const absl::Duration now = clock_.Monotonic();
  if (now < next_look_) return table_;
  next_look_ = now + kLookInterval;
  // Before it is read: what is written meanwhile has another stamp.
  const Stamp stamp = StampOf(path_);
  if (stamp == stamp_) return table_;
  stamp_ = stamp;
  absl::StatusOr<TokenTable> read = Read();
  if (!read.ok()) {
    Log(Severity::kError, "the token file cannot be used; the former one stays in force",
        {{"error", std::string(read.status().message())}});
    return table_;
  }
  table_ = std::make_shared<const TokenTable>(*std::move(read));
  Log(Severity::kInfo, "the token file was read again",
      {{"file", path_.string()}, {"credentials", absl::StrCat(table_->size())}});
  return table_;
}

}  // namespace latentforge::service
