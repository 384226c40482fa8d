#include "base/file_confinement.h"

#include <fcntl.h>
#include <linux/landlock.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <fstream>
#include <set>
#include <string>
#include <system_error>

#include "absl/strings/match.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "base/unique_fd.h"

namespace latentforge {
namespace {

namespace fs = std::filesystem;

// Newer than Debian 12's header.
constexpr uint64_t kTruncate = uint64_t{1} << 14;
constexpr long kAbiWithRefer = 2, kAbiWithTruncate = 3;

constexpr uint64_t kRead = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR;
constexpr uint64_t kWrite =
    LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_REMOVE_DIR | LANDLOCK_ACCESS_FS_REMOVE_FILE |
    LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_MAKE_REG |
    LANDLOCK_ACCESS_FS_MAKE_SOCK | LANDLOCK_ACCESS_FS_MAKE_FIFO | LANDLOCK_ACCESS_FS_MAKE_BLOCK |
    LANDLOCK_ACCESS_FS_MAKE_SYM | LANDLOCK_ACCESS_FS_REFER | kTruncate;
// The kernel refuses rights of folders for a file.
constexpr uint64_t kOfFiles =
    LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE | kTruncate;

// What this kernel can hold back.
uint64_t Known(long abi) {
  uint64_t rights = kRead | kWrite;
  if (abi < kAbiWithRefer) rights &= ~uint64_t{LANDLOCK_ACCESS_FS_REFER};
  if (abi < kAbiWithTruncate) rights &= ~kTruncate;
  return rights;
}

absl::Status Allow(const UniqueFd& ruleset, const fs::path& root, uint64_t rights) {
  const UniqueFd fd(open(root.c_str(), O_PATH | O_CLOEXEC));
  if (!fd.valid()) {
    if (errno == ENOENT || errno == ENOTDIR) return absl::OkStatus();
    return ErrnoStatus(errno, "opening", root);
  }
  struct stat status = {};
  if (fstat(fd.get(), &status) != 0) return ErrnoStatus(errno, "looking at", root);
  if (!S_ISDIR(status.st_mode)) rights &= kOfFiles;
  const landlock_path_beneath_attr rule = {.allowed_access = rights, .parent_fd = fd.get()};
  if (syscall(SYS_landlock_add_rule, ruleset.get(), LANDLOCK_RULE_PATH_BENEATH, &rule, 0) != 0)
    return ErrnoStatus(errno, "confining files to", root);
  return absl::OkStatus();
}

}  // namespace

absl::Status ConfineFiles(const FileRoots& roots) {
  const long abi =
      syscall(SYS_landlock_create_ruleset, nullptr, 0, LANDLOCK_CREATE_RULESET_VERSION);
  if (abi < 1) return absl::UnimplementedError("this kernel has no Landlock, or does not use it");
  const landlock_ruleset_attr handled = {.handled_access_fs = Known(abi)};
  const UniqueFd ruleset(
      static_cast<int>(syscall(SYS_landlock_create_ruleset, &handled, sizeof(handled), 0)));
  if (!ruleset.valid()) return ErrnoStatus(errno, "confining files to", "their roots");
  for (const fs::path& root : roots.read)
    LF_RETURN_IF_ERROR(Allow(ruleset, root, kRead & Known(abi)));
  for (const fs::path& root : roots.write) LF_RETURN_IF_ERROR(Allow(ruleset, root, Known(abi)));
  // Without it a confined process could run a set-uid program that is not.
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
      syscall(SYS_landlock_restrict_self, ruleset.get(), 0) != 0)
    return ErrnoStatus(errno, "confining files to", "their roots");
  return absl::OkStatus();
}

FileRoots ProgramRoots() {
  FileRoots roots;
  roots.read = {"/bin",           "/lib",          "/lib64",
                "/usr",           "/etc/fonts",    "/etc/ld.so.cache",
                "/etc/localtime", "/proc/self",    "/proc/cpuinfo",
                "/proc/devices",  "/proc/driver",  "/proc/filesystems",
                "/proc/meminfo",  "/proc/modules", "/proc/stat",
                "/proc/sys",      "/sys",          "/dev"};
  std::set<fs::path> mapped;
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    const size_t path = line.find('/');
    if (path != std::string::npos) mapped.insert(fs::path(line.substr(path)).parent_path());
  }
  roots.read.insert(roots.read.end(), mapped.begin(), mapped.end());
  roots.write = {"/dev/null"};
  std::error_code error;
  for (const auto& device : fs::directory_iterator("/dev", error)) {
    if (absl::StartsWith(device.path().filename().string(), "nvidia"))
      roots.write.push_back(device.path());
  }
  return roots;
}

}  // namespace latentforge
