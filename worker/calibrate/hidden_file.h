// Hidden states of every calibration sequence on disk, so that memory holds only
// the sequences being worked on.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/unique_fd.h"

namespace latentforge::calibrate {

struct HiddenShape {
  int64_t sequences = 0;
  int64_t length = 0;
  int64_t width = 0;
  at::ScalarType dtype = at::kBFloat16;

  int64_t SequenceBytes() const { return length * width * int64_t(c10::elementSize(dtype)); }
  int64_t Bytes() const { return sequences * SequenceBytes(); }
};

// A file of [sequences, length, width], row-major. Plain reads and writes instead
// of a mapping: a full disk is an error here, not a signal, and the pages do not
// count as ours. Movable; not safe for concurrent use.
class HiddenFile {
 public:
  // Makes or replaces `path`, a folder too, and reserves its space. ResourceExhausted: disk full.
  static absl::StatusOr<HiddenFile> Create(const std::filesystem::path& path,
                                           const HiddenShape& shape);

  // An existing file. NotFound when it is absent, DataLoss when it is none or its size differs.
  static absl::StatusOr<HiddenFile> Open(const std::filesystem::path& path,
                                         const HiddenShape& shape);

  // Fills a contiguous CPU tensor [n, length, width] from sequence `first` on.
  absl::Status Read(int64_t first, at::Tensor& into) const;

  // The inverse of Read.
  absl::Status Write(int64_t first, const at::Tensor& from);

  const std::filesystem::path& path() const { return path_; }

 private:
  HiddenFile(std::filesystem::path path, HiddenShape shape, UniqueFd fd)
      : path_(std::move(path)), shape_(shape), fd_(std::move(fd)) {}

  std::filesystem::path path_;
  HiddenShape shape_;
  UniqueFd fd_;
};

// Where a file is written that counts as whole once it has its name, `path`.
std::filesystem::path PartialPath(std::filesystem::path path);

// Gives the file at PartialPath(path) its name, whatever had it before.
absl::Status CommitFile(const std::filesystem::path& path);

// Removes a folder at `path`, which would be in the way of a file of that name for ever: a
// file can replace only a file. Leaves anything else, links too.
absl::Status RemoveFolder(const std::filesystem::path& path);

}  // namespace latentforge::calibrate
