#include "base/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <system_error>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "base/unique_fd.h"

namespace latentforge {
namespace fs = std::filesystem;
namespace {

absl::StatusOr<UniqueFd> OpenFile(const fs::path& path, int flags, mode_t mode,
                                  absl::string_view action) {
  UniqueFd fd(open(path.c_str(), flags | O_CLOEXEC, mode));
  if (!fd.valid()) return ErrnoStatus(errno, action, path);
  return fd;
}

absl::Status WriteAll(int fd, absl::string_view contents, const fs::path& path) {
  while (!contents.empty()) {
    const ssize_t written = write(fd, contents.data(), contents.size());
    if (written < 0) {
      if (errno == EINTR) continue;
      return ErrnoStatus(errno, "writing", path);
    }
    contents.remove_prefix(static_cast<size_t>(written));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> DecodePercent(absl::string_view text, absl::string_view uri) {
  std::string decoded;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      decoded.push_back(text[i]);
      continue;
    }
    if (i + 2 >= text.size() || !absl::ascii_isxdigit(static_cast<unsigned char>(text[i + 1])) ||
        !absl::ascii_isxdigit(static_cast<unsigned char>(text[i + 2]))) {
      return absl::InvalidArgumentError(
          absl::StrCat("URI \"", uri, "\" has a % without two hexadecimal digits"));
    }
    decoded += absl::HexStringToBytes(text.substr(i + 1, 2));
    i += 2;
  }
  return decoded;
}

}  // namespace

absl::Status ErrnoStatus(int error, absl::string_view action, const fs::path& path) {
  const std::string message =
      absl::StrCat(action, " ", path.string(), ": ", std::generic_category().message(error));
  switch (error) {
    case ENOENT:
    case ENOTDIR:
      return absl::NotFoundError(message);
    case EACCES:
    case EPERM:
    case EROFS:
    case ELOOP:
      return absl::PermissionDeniedError(message);
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
    case EMFILE:
    case ENFILE:
    case ENOMEM:
      return absl::ResourceExhaustedError(message);
    case EEXIST:
    case ENOTEMPTY:
      return absl::AlreadyExistsError(message);
    case ENAMETOOLONG:
    case EISDIR:
      return absl::InvalidArgumentError(message);
    default:
      return absl::InternalError(message);
  }
}

absl::StatusOr<std::string> ReadFile(const fs::path& path, int64_t max_bytes) {
  LF_ASSIGN_OR_RETURN(const UniqueFd fd, OpenFile(path, O_RDONLY, 0, "opening"));
  struct stat info;
  if (fstat(fd.get(), &info) != 0) return ErrnoStatus(errno, "reading", path);
  if (S_ISDIR(info.st_mode)) return ErrnoStatus(EISDIR, "reading", path);
  std::string contents;
  char buffer[1 << 16];
  while (true) {
    const ssize_t count = read(fd.get(), buffer, sizeof(buffer));
    if (count == 0) return contents;
    if (count < 0) {
      if (errno == EINTR) continue;
      return ErrnoStatus(errno, "reading", path);
    }
    if (static_cast<int64_t>(contents.size()) + count > max_bytes) {
      return absl::OutOfRangeError(
          absl::StrCat(path.string(), " is larger than ", max_bytes, " bytes"));
    }
    contents.append(buffer, static_cast<size_t>(count));
  }
}

absl::Status SyncPath(const fs::path& path) {
  LF_ASSIGN_OR_RETURN(const UniqueFd fd, OpenFile(path, O_RDONLY, 0, "opening"));
  if (fsync(fd.get()) != 0) return ErrnoStatus(errno, "syncing", path);
  return absl::OkStatus();
}

absl::Status WriteFileAtomic(const fs::path& path, absl::string_view contents) {
  const fs::path temporary = absl::StrCat(path.string(), ".tmp.", getpid());
  absl::Status status = [&]() -> absl::Status {
    LF_ASSIGN_OR_RETURN(
        const UniqueFd fd,
        OpenFile(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, 0644, "creating"));
    LF_RETURN_IF_ERROR(WriteAll(fd.get(), contents, temporary));
    if (fsync(fd.get()) != 0) return ErrnoStatus(errno, "syncing", temporary);
    if (rename(temporary.c_str(), path.c_str()) != 0) return ErrnoStatus(errno, "writing", path);
    return absl::OkStatus();
  }();
  if (!status.ok()) {
    unlink(temporary.c_str());
    return status;
  }
  const fs::path parent = path.parent_path();
  return SyncPath(parent.empty() ? fs::path(".") : parent);
}

absl::Status CreateDirectories(const fs::path& path) {
  std::error_code error;
  fs::create_directories(path, error);
  if (error) return ErrnoStatus(error.value(), "creating folder", path);
  return absl::OkStatus();
}

absl::Status RemoveTree(const fs::path& path) {
  std::error_code error;
  fs::remove_all(path, error);
  if (error) return ErrnoStatus(error.value(), "removing", path);
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::string>> ListDirectory(const fs::path& path) {
  std::error_code error;
  fs::directory_iterator iterator(path, error);
  if (error) return ErrnoStatus(error.value(), "listing", path);
  std::vector<std::string> names;
  for (const fs::directory_iterator end; iterator != end; iterator.increment(error)) {
    if (error) return ErrnoStatus(error.value(), "listing", path);
    names.push_back(iterator->path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

absl::StatusOr<fs::path> PathFromUri(absl::string_view uri) {
  const auto wrong = [&](absl::string_view why) {
    return absl::InvalidArgumentError(
        absl::StrCat("URI \"", uri, "\" ", why, ", expected a file: URI or an absolute path"));
  };
  if (uri.empty()) return wrong("is empty");
  if (absl::StrContains(uri, '\0')) return wrong("holds a NUL byte");
  if (uri.front() == '/') return fs::path(std::string(uri));
  const size_t colon = uri.find(':');
  if (colon == absl::string_view::npos) return wrong("is a relative path");
  const absl::string_view scheme = uri.substr(0, colon);
  if (!absl::EqualsIgnoreCase(scheme, "file")) {
    return wrong(absl::StrCat("has the unsupported scheme \"", scheme, "\""));
  }
  absl::string_view rest = uri.substr(colon + 1);
  if (absl::StartsWith(rest, "//")) {
    rest.remove_prefix(2);
    const absl::string_view host = rest.substr(0, rest.find('/'));
    if (!host.empty() && host != "localhost") {
      return wrong(absl::StrCat("names the host \"", host, "\""));
    }
    rest.remove_prefix(host.size());
  }
  if (rest.empty() || rest.front() != '/') return wrong("is a relative path");
  if (rest.find_first_of("?#") != absl::string_view::npos) {
    return wrong("has a query or a fragment (write %3F or %23)");
  }
  LF_ASSIGN_OR_RETURN(const std::string decoded, DecodePercent(rest, uri));
  if (absl::StrContains(decoded, '\0')) return wrong("holds a NUL byte");
  return fs::path(decoded);
}

std::string UriFromPath(const fs::path& path) {
  std::string uri = "file://";
  for (const char c : path.string()) {
    const auto byte = static_cast<unsigned char>(c);
    if (absl::ascii_isalnum(byte) || absl::StrContains("/-_.~+=@,:", c)) {
      uri.push_back(c);
    } else {
      absl::StrAppendFormat(&uri, "%%%02X", byte);
    }
  }
  return uri;
}

}  // namespace latentforge
