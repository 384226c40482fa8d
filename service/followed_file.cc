#include "service/followed_file.h"

#include <sys/stat.h>

namespace latentforge::service {
namespace {

int64_t Nanos(const timespec& time) { return absl::ToUnixNanos(absl::TimeFromTimespec(time)); }

}  // namespace

FileStamp StampOf(const std::filesystem::path& path) {
  struct stat found = {};
  if (stat(path.c_str(), &found) != 0) return {};
  return {found.st_dev, found.st_ino, found.st_size, Nanos(found.st_mtim), Nanos(found.st_ctim)};
}

}  // namespace latentforge::service
