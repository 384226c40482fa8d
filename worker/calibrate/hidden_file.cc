#include "worker/calibrate/hidden_file.h"

#include <ATen/ATen.h>
#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"

namespace latentforge::calibrate {
namespace {

absl::Status CheckTensor(const at::Tensor& tensor, const HiddenShape& shape, int64_t first) {
  if (tensor.dim() == 3 && tensor.is_contiguous() && tensor.is_cpu() &&
      tensor.scalar_type() == shape.dtype && tensor.size(1) == shape.length &&
      tensor.size(2) == shape.width && first >= 0 && first + tensor.size(0) <= shape.sequences) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat("hidden states from sequence ", first,
                                                 " on do not fit a file of [", shape.sequences,
                                                 ", ", shape.length, ", ", shape.width, "]"));
}

}  // namespace

std::filesystem::path PartialPath(std::filesystem::path path) { return path += ".partial"; }

absl::Status CommitFile(const std::filesystem::path& path) {
  LF_RETURN_IF_ERROR(RemoveFolder(path));
  std::error_code error;
  std::filesystem::rename(PartialPath(path), path, error);
  return error ? ErrnoStatus(error.value(), "rename", PartialPath(path)) : absl::OkStatus();
}

absl::Status RemoveFolder(const std::filesystem::path& path) {
  std::error_code error;
  const std::filesystem::file_status status = std::filesystem::symlink_status(path, error);
  return std::filesystem::is_directory(status) ? RemoveTree(path) : absl::OkStatus();
}

absl::StatusOr<HiddenFile> HiddenFile::Create(const std::filesystem::path& path,
                                              const HiddenShape& shape) {
  LF_RETURN_IF_ERROR(RemoveFolder(path));
  UniqueFd fd(open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!fd.valid()) return ErrnoStatus(errno, "create", path);
  if (const int error = posix_fallocate(fd.get(), 0, shape.Bytes()); error != 0) {
    return ErrnoStatus(error, absl::StrCat("reserve ", shape.Bytes(), " bytes in"), path);
  }
  return HiddenFile(path, shape, std::move(fd));
}

absl::StatusOr<HiddenFile> HiddenFile::Open(const std::filesystem::path& path,
                                            const HiddenShape& shape) {
  UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return ErrnoStatus(errno, "open", path);
  struct stat status;
  if (fstat(fd.get(), &status) != 0) return ErrnoStatus(errno, "stat", path);
  if (!S_ISREG(status.st_mode)) return absl::DataLossError(path.string() + " is no file");
  if (status.st_size != shape.Bytes()) {
    return absl::DataLossError(
        absl::StrCat(path.string(), " has ", status.st_size, " bytes, expected ", shape.Bytes()));
  }
  return HiddenFile(path, shape, std::move(fd));
}

absl::Status HiddenFile::Read(int64_t first, at::Tensor& into) const {
  LF_RETURN_IF_ERROR(CheckTensor(into, shape_, first));
  char* data = static_cast<char*>(into.mutable_data_ptr());
  int64_t offset = first * shape_.SequenceBytes();
  for (int64_t left = into.nbytes(); left > 0;) {
    const ssize_t n = pread(fd_.get(), data, size_t(left), offset);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoStatus(errno, "read", path_);
    if (n == 0) return absl::DataLossError(absl::StrCat(path_.string(), " was cut while in use"));
    data += n;
    offset += n;
    left -= n;
  }
  return absl::OkStatus();
}

absl::Status HiddenFile::Write(int64_t first, const at::Tensor& from) {
  LF_RETURN_IF_ERROR(CheckTensor(from, shape_, first));
  const char* data = static_cast<const char*>(from.const_data_ptr());
  int64_t offset = first * shape_.SequenceBytes();
  for (int64_t left = from.nbytes(); left > 0;) {
    const ssize_t n = pwrite(fd_.get(), data, size_t(left), offset);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoStatus(errno, "write", path_);
    data += n;
    offset += n;
    left -= n;
  }
  return absl::OkStatus();
}

}  // namespace latentforge::calibrate
