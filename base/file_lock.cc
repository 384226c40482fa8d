#include "base/file_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/file.h"

namespace latentforge {
namespace {

// The process id is only for people who read the error below.
absl::Status WriteHolder(const UniqueFd& fd, const std::filesystem::path& path) {
  const std::string pid = absl::StrCat(getpid(), "\n");
  if (ftruncate(fd.get(), 0) != 0 ||
      pwrite(fd.get(), pid.data(), pid.size(), 0) != static_cast<ssize_t>(pid.size())) {
    return ErrnoStatus(errno, "write", path);
  }
  return absl::OkStatus();
}

absl::Status Held(const UniqueFd& fd, const std::filesystem::path& path) {
  char holder[32] = {};
  const ssize_t size = pread(fd.get(), holder, sizeof(holder) - 1, 0);
  return absl::FailedPreconditionError(absl::StrCat(
      path.string(), " is locked by another process",
      size > 0 ? absl::StrCat(" (process ", absl::StripAsciiWhitespace(holder), ")") : ""));
}

// False: its last holder removed the file between our opening it and locking it.
bool IsAt(const UniqueFd& fd, const std::filesystem::path& path) {
  struct stat ours = {};
  struct stat there = {};
  return fstat(fd.get(), &ours) == 0 && stat(path.c_str(), &there) == 0 &&
         ours.st_dev == there.st_dev && ours.st_ino == there.st_ino;
}

}  // namespace

absl::StatusOr<FileLock> FileLock::Acquire(const std::filesystem::path& path) {
  while (true) {
    constexpr int kFlags = O_RDWR | O_CREAT | O_CLOEXEC;
    UniqueFd fd(open(path.c_str(), kFlags | O_EXCL, 0600));
    const bool made = fd.valid();
    if (!made && errno == EEXIST) fd = UniqueFd(open(path.c_str(), kFlags, 0600));
    if (!fd.valid()) return ErrnoStatus(errno, "open lock file", path);
    if (flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
      return errno == EWOULDBLOCK ? Held(fd, path) : ErrnoStatus(errno, "lock", path);
    }
    if (!IsAt(fd, path)) continue;
    if (const absl::Status written = WriteHolder(fd, path); !written.ok()) {
      if (made) unlink(path.c_str());
      return written;
    }
    return FileLock(path, std::move(fd), made);
  }
}

void FileLock::RemoveFile() { unlink(path_.c_str()); }

}  // namespace latentforge
