#include "worker/agent/scratch.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/file.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "base/unique_fd.h"

namespace latentforge::agent {
namespace {

constexpr size_t kMaxIdBytes = 128;
// Only folders that hold it are swept: a root may have other things in it.
constexpr char kMarker[] = ".latentforge-scratch";

bool IsJobId(absl::string_view id) {
  return !id.empty() && id.size() <= kMaxIdBytes &&
         std::all_of(id.begin(), id.end(), [](unsigned char c) {
           return absl::ascii_isalnum(c) || c == '-' || c == '_';
         });
}

absl::StatusOr<std::string> JobId(absl::string_view job) {
  absl::string_view id = job;
  if (!absl::ConsumePrefix(&id, "jobs/") || !IsJobId(id)) {
    return absl::InvalidArgumentError(
        absl::StrCat("the server leased \"", job, "\", expected jobs/{id}"));
  }
  return std::string(id);
}

// A folder of ours, made now or earlier. A stranger's folder or link could make
// us write somewhere else.
absl::Status MakePrivateFolder(const std::filesystem::path& path) {
  if (mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) {
    return ErrnoStatus(errno, "make folder", path);
  }
  struct stat info;
  if (lstat(path.c_str(), &info) != 0) return ErrnoStatus(errno, "look at", path);
  if (!S_ISDIR(info.st_mode) || info.st_uid != geteuid()) {
    return absl::FailedPreconditionError(
        absl::StrCat(path.string(), " is no folder of user ", geteuid()));
  }
  // Its age is counted from its last use.
  if (utimensat(AT_FDCWD, path.c_str(), nullptr, 0) != 0) return ErrnoStatus(errno, "touch", path);
  return absl::OkStatus();
}

// True when a compute process, of this worker or another, runs in the folder.
bool IsLocked(const std::filesystem::path& folder) {
  const UniqueFd fd(open((folder / "lock").c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  return fd.valid() && flock(fd.get(), LOCK_EX | LOCK_NB) != 0;
}

void Remove(const std::filesystem::path& folder) {
  if (const absl::Status removed = RemoveTree(folder); !removed.ok()) {
    Log(Severity::kWarning, "cannot remove scratch folder", {{"error", removed.ToString()}});
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<Scratch>> Scratch::Open(std::filesystem::path root) {
  std::error_code error;
  root = std::filesystem::absolute(root, error);
  if (error) return ErrnoStatus(error.value(), "find", root);
  if (!std::filesystem::exists(root, error)) {
    if (root.has_parent_path()) LF_RETURN_IF_ERROR(CreateDirectories(root.parent_path()));
    LF_RETURN_IF_ERROR(MakePrivateFolder(root));
  }
  if (!std::filesystem::is_directory(root, error)) {
    return absl::FailedPreconditionError(absl::StrCat(root.string(), " is no folder"));
  }
  if (access(root.c_str(), W_OK | X_OK) != 0) return ErrnoStatus(errno, "write to", root);
  return std::unique_ptr<Scratch>(new Scratch(std::move(root)));
}

absl::StatusOr<std::filesystem::path> Scratch::Acquire(const std::string& job) {
  LF_ASSIGN_OR_RETURN(const std::string id, JobId(job));
  {
    absl::MutexLock lock(&mutex_);
    in_use_.insert(id);
  }
  const std::filesystem::path folder = root_ / id;
  LF_RETURN_IF_ERROR(MakePrivateFolder(folder));
  LF_RETURN_IF_ERROR(WriteFileAtomic(folder / kMarker, ""));
  return folder;
}

void Scratch::Release(const std::string& job, bool keep) {
  const absl::StatusOr<std::string> id = JobId(job);
  if (!id.ok()) return;
  if (!keep) Remove(root_ / *id);
  absl::MutexLock lock(&mutex_);
  in_use_.erase(*id);
}

void Scratch::Sweep(absl::Duration age, absl::Time now) {
  const absl::StatusOr<std::vector<std::string>> names = ListDirectory(root_);
  if (!names.ok()) return;
  for (const std::string& name : *names) {
    const std::filesystem::path folder = root_ / name;
    struct stat info;
    if (!IsJobId(name) || lstat(folder.c_str(), &info) != 0 || !S_ISDIR(info.st_mode) ||
        now - absl::TimeFromTimespec(info.st_mtim) < age ||
        access((folder / kMarker).c_str(), F_OK) != 0) {
      continue;
    }
    absl::MutexLock lock(&mutex_);
    if (in_use_.contains(name) || IsLocked(folder)) continue;
    Log(Severity::kInfo, "removing an old scratch folder", {{"folder", folder.string()}});
    Remove(folder);
  }
}

}  // namespace latentforge::agent
