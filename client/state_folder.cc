#include "client/state_folder.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <optional>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "client/error.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"

namespace latentforge::client {
namespace {

constexpr size_t kLongestSocketPath = 107;  // sizeof(sockaddr_un::sun_path) - 1

// Makes PATH with mode 0700; true when it was there.
absl::StatusOr<bool> MakePrivate(const std::filesystem::path& path) {
  const bool existed = mkdir(path.c_str(), 0700) != 0;
  if (existed && errno != EEXIST) return ErrnoStatus(errno, "making", path);
  struct stat info = {};
  if (lstat(path.c_str(), &info) != 0) return ErrnoStatus(errno, "looking at", path);
  if (!S_ISDIR(info.st_mode) || info.st_uid != geteuid() || (info.st_mode & 0077) != 0) {
    return absl::FailedPreconditionError(absl::StrCat(
        path.string(), " is no folder of this user with mode 0700; remove it or use --work-dir"));
  }
  return existed;
}

std::optional<std::string> NonEmpty(const GetEnvironment& environment, const char* name) {
  std::optional<std::string> value = environment(name);
  return value.has_value() && !value->empty() ? value : std::nullopt;
}

}  // namespace

std::filesystem::path DefaultStateRoot(const GetEnvironment& environment) {
  if (const auto state = NonEmpty(environment, "XDG_STATE_HOME")) {
    return std::filesystem::path(*state) / "latentforge";
  }
  if (const auto home = NonEmpty(environment, "HOME")) {
    return std::filesystem::path(*home) / ".local" / "state" / "latentforge";
  }
  return absl::StrCat("/tmp/latentforge-", geteuid());
}

std::string SpecDigest(const v1::JobSpec& spec) {
  std::string bytes;
  {
    google::protobuf::io::StringOutputStream stream(&bytes);
    google::protobuf::io::CodedOutputStream coded(&stream);
    coded.SetSerializationDeterministic(true);
    spec.SerializeToCodedStream(&coded);
  }
  return Sha256Hex(bytes).substr(0, 32);
}

absl::StatusOr<StateFolder> StateFolder::Open(const std::filesystem::path& root,
                                              const std::string& digest) {
  LF_RETURN_IF_ERROR(WithNextStep(Annotate(CreateDirectories(root), "work folder"),
                                  "choose another folder: --work-dir"));
  StateFolder folder;
  folder.path_ = root / absl::StrCat("convert-", digest);
  LF_ASSIGN_OR_RETURN(folder.existed_, MakePrivate(folder.path_));
  const std::filesystem::path lock = folder.path_ / "lock";
  folder.lock_ = UniqueFd(open(lock.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!folder.lock_.valid()) return ErrnoStatus(errno, "opening", lock);
  if (flock(folder.lock_.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return ErrnoStatus(errno, "locking", lock);
    return WithReason(
        absl::FailedPreconditionError(absl::StrCat(
            "the same conversion runs already in another process (", lock.string(), " is locked)")),
        "CONVERSION_RUNNING");
  }
  return folder;
}

absl::StatusOr<std::filesystem::path> StateFolder::SocketPath() {
  const std::filesystem::path near = path_ / "server.sock";
  if (near.native().size() <= kLongestSocketPath) return near;
  char name[] = "/tmp/latentforge-XXXXXX";
  if (mkdtemp(name) == nullptr) return ErrnoStatus(errno, "making", name);
  socket_folder_ = name;
  return socket_folder_ / "server.sock";
}

absl::Status StateFolder::Remove() {
  Release();
  return RemoveTree(path_);
}

void StateFolder::Release() {
  // What stays behind in /tmp is an empty socket folder at worst.
  if (!socket_folder_.empty()) RemoveTree(socket_folder_).IgnoreError();
  socket_folder_.clear();
}

}  // namespace latentforge::client
