// Which parts of the file system are open to somebody: folders, each with all beneath it.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace latentforge {

// Resolved folders. What an empty list means, everything or nothing, its owner says.
using PathRoots = std::vector<std::filesystem::path>;

// `path` with symbolic links and ".." resolved, as the kernel would. What does not exist, or
// cannot be looked at, has no links: so that of a path that leads elsewhere the answer does not
// depend on what lies there. InvalidArgument for links in a circle.
absl::StatusOr<std::filesystem::path> ResolvePath(const std::filesystem::path& path);

// True when `path` is `root` or lies beneath it. Both are resolved. Pure.
bool IsBeneath(const std::filesystem::path& path, const std::filesystem::path& root);
bool IsBeneathAny(const std::filesystem::path& path, const PathRoots& roots);

// What lies beneath a root of either list: empty when they have nothing in common. Pure.
PathRoots CommonRoots(const PathRoots& first, const PathRoots& second);

// Those that lie beneath no other one, each once: they hold what all do. Pure.
PathRoots OutermostRoots(const PathRoots& roots);

// The resolved `path` when it lies beneath one of the roots; else PermissionDenied, in the same
// words whatever lies at the path. An empty list allows every path, and then the errors of
// ResolvePath.
absl::StatusOr<std::filesystem::path> ResolveBeneath(const std::filesystem::path& path,
                                                     const PathRoots& roots);

// "/a, /b".
std::string DescribeRoots(const PathRoots& roots);

}  // namespace latentforge
