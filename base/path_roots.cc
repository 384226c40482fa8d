#include "base/path_roots.h"

#include <algorithm>
#include <deque>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace latentforge {
namespace {

namespace fs = std::filesystem;

// As the kernel.
constexpr int kMaxLinks = 40;

}  // namespace

absl::StatusOr<fs::path> ResolvePath(const fs::path& path) {
  std::error_code error;
  const fs::path whole = fs::absolute(path, error);
  if (error)
    return absl::InvalidArgumentError(
        absl::StrCat("resolving ", path.string(), ": ", error.message()));
  std::deque<fs::path> left(whole.begin(), whole.end());
  fs::path resolved = "/";
  for (int links = 0; !left.empty();) {
    const fs::path name = left.front();
    left.pop_front();
    if (name.empty() || name == "/" || name == ".") continue;
    if (name == "..") {
      resolved = resolved.parent_path();
      continue;
    }
    const fs::path target = fs::read_symlink(resolved / name, error);
    if (error) {  // no link, or nothing that we may see
      resolved /= name;
      continue;
    }
    if (++links > kMaxLinks)
      return absl::InvalidArgumentError(absl::StrCat("resolving ", path.string(), ": more than ",
                                                     kMaxLinks, " symbolic links on the way"));
    if (target.is_absolute()) resolved = "/";
    left.insert(left.begin(), target.begin(), target.end());
  }
  return resolved;
}

bool IsBeneath(const fs::path& path, const fs::path& root) {
  return std::mismatch(root.begin(), root.end(), path.begin(), path.end()).first == root.end();
}

bool IsBeneathAny(const fs::path& path, const PathRoots& roots) {
  return std::any_of(roots.begin(), roots.end(),
                     [&](const fs::path& root) { return IsBeneath(path, root); });
}

PathRoots CommonRoots(const PathRoots& first, const PathRoots& second) {
  PathRoots common;
  const auto add = [&common](const PathRoots& from, const PathRoots& within) {
    for (const fs::path& root : from) {
      if (IsBeneathAny(root, within) && !IsBeneathAny(root, common)) common.push_back(root);
    }
  };
  add(first, second);
  add(second, first);
  return common;
}

PathRoots OutermostRoots(const PathRoots& roots) {
  PathRoots outermost;
  for (const fs::path& root : roots) {
    if (IsBeneathAny(root, outermost)) continue;
    std::erase_if(outermost, [&](const fs::path& other) { return IsBeneath(other, root); });
    outermost.push_back(root);
  }
  return outermost;
}

absl::StatusOr<fs::path> ResolveBeneath(const fs::path& path, const PathRoots& roots) {
  const absl::StatusOr<fs::path> resolved = ResolvePath(path);
  if (roots.empty() || (resolved.ok() && IsBeneathAny(*resolved, roots))) return resolved;
  return absl::PermissionDeniedError(
      absl::StrCat("path ", path.string(), " is outside the allowed roots ", DescribeRoots(roots)));
}

std::string DescribeRoots(const PathRoots& roots) {
  return absl::StrJoin(roots, ", ", [](std::string* out, const fs::path& root) {
    absl::StrAppend(out, root.string());
  });
}

}  // namespace latentforge
