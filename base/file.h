// Files and folders with Status errors that name the path.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace latentforge {

// The Status for an errno value: NotFound, PermissionDenied, ResourceExhausted
// (disk full, quota, too many open files), AlreadyExists, else Internal. The
// message is "ACTION PATH: reason".
absl::Status ErrnoStatus(int error, absl::string_view action, const std::filesystem::path& path);

// What a file that was written outlives.
enum class Durability {
  kMachine,  // it is synced
  kProcess,  // only the processes: a crash of the machine may leave its name without its bytes
};

// The whole file. OutOfRange when it is larger than max_bytes.
absl::StatusOr<std::string> ReadFile(const std::filesystem::path& path,
                                     int64_t max_bytes = int64_t{1} << 32);

// Writes to a temporary sibling, syncs it, renames it over `path` and syncs the
// folder: after a crash the file is the old one or the new one, whole.
absl::Status WriteFileAtomic(const std::filesystem::path& path, absl::string_view contents);

// Makes the folder and its parents; fine when it exists.
absl::Status CreateDirectories(const std::filesystem::path& path);

// Syncs a file or a folder to disk.
absl::Status SyncPath(const std::filesystem::path& path);

// Removes a file or a tree without following symbolic links; fine when absent.
absl::Status RemoveTree(const std::filesystem::path& path);

// Names in a folder, sorted. NotFound when it is absent.
absl::StatusOr<std::vector<std::string>> ListDirectory(const std::filesystem::path& path);

// The absolute path behind a URI of scheme file: (host empty or "localhost",
// percent escapes decoded) or an absolute path. InvalidArgument names other
// schemes, relative paths, NUL bytes, fragments and queries.
absl::StatusOr<std::filesystem::path> PathFromUri(absl::string_view uri);

// "file:///..." of an absolute path, percent-escaped where needed.
std::string UriFromPath(const std::filesystem::path& path);

}  // namespace latentforge
