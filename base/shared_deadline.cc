#include "base/shared_deadline.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <atomic>
#include <cerrno>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "base/unique_fd.h"

namespace latentforge {
namespace {

constexpr off_t kBytes = sizeof(int64_t);
static_assert(std::atomic_ref<int64_t>::is_always_lock_free);

absl::StatusOr<int64_t*> Map(const UniqueFd& fd, int protection,
                             const std::filesystem::path& path) {
  void* const mapped = mmap(nullptr, kBytes, protection, MAP_SHARED, fd.get(), 0);
  if (mapped == MAP_FAILED) return ErrnoStatus(errno, "map", path);
  return static_cast<int64_t*>(mapped);
}

}  // namespace

absl::StatusOr<SharedDeadline> SharedDeadline::Create(const std::filesystem::path& path) {
  const UniqueFd fd(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!fd.valid()) return ErrnoStatus(errno, "open", path);
  // Its block too: a mapped file without one kills the process when the disk is full.
  if (const int error = posix_fallocate(fd.get(), 0, kBytes); error != 0) {
    return ErrnoStatus(error, "enlarge", path);
  }
  LF_ASSIGN_OR_RETURN(int64_t* const value, Map(fd, PROT_READ | PROT_WRITE, path));
  SharedDeadline deadline(value);
  deadline.Set(absl::ZeroDuration());
  return deadline;
}

absl::StatusOr<SharedDeadline> SharedDeadline::Open(const std::filesystem::path& path) {
  const UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return ErrnoStatus(errno, "open", path);
  struct stat found = {};
  if (fstat(fd.get(), &found) != 0) return ErrnoStatus(errno, "look at", path);
  if (!S_ISREG(found.st_mode) || found.st_size != kBytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        path.string(), " has ", found.st_size, " bytes, expected the ", kBytes, " of a deadline"));
  }
  LF_ASSIGN_OR_RETURN(int64_t* const value, Map(fd, PROT_READ, path));
  return SharedDeadline(value);
}

SharedDeadline::~SharedDeadline() {
  if (value_ != nullptr) munmap(value_, kBytes);
}

void SharedDeadline::Set(absl::Duration monotonic) {
  std::atomic_ref<int64_t>(*value_).store(absl::ToInt64Nanoseconds(monotonic));
}

absl::Duration SharedDeadline::Get() const {
  return absl::Nanoseconds(std::atomic_ref<int64_t>(*value_).load());
}

}  // namespace latentforge
