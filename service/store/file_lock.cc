#include "service/store/file_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/file.h"

namespace latentforge::service {

absl::StatusOr<FileLock> FileLock::Acquire(const std::filesystem::path& path) {
  UniqueFd fd(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!fd.valid()) return ErrnoStatus(errno, "open lock file", path);
  if (flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return ErrnoStatus(errno, "lock", path);
    char holder[32] = {};
    const ssize_t size = pread(fd.get(), holder, sizeof(holder) - 1, 0);
    return absl::FailedPreconditionError(absl::StrCat(
        path.string(), " is locked by another process",
        size > 0 ? absl::StrCat(" (process ", absl::StripAsciiWhitespace(holder), ")") : ""));
  }
  // The process id is only for people who read the error above.
  const std::string pid = absl::StrCat(getpid(), "\n");
  if (ftruncate(fd.get(), 0) != 0 ||
      pwrite(fd.get(), pid.data(), pid.size(), 0) != static_cast<ssize_t>(pid.size())) {
    return ErrnoStatus(errno, "write", path);
  }
  return FileLock(std::move(fd));
}

}  // namespace latentforge::service
