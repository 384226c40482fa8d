#include "worker/calibrate/row_file.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace latentforge::calibrate {

RowFileWriter::RowFileWriter(std::filesystem::path path, const HiddenShape& shape, HiddenFile file)
    : path_(std::move(path)),
      shape_(shape),
      file_(std::move(file)),
      sequence_(at::empty({1, shape.length, shape.width}, shape.dtype)) {}

absl::StatusOr<RowFileWriter> RowFileWriter::Create(const std::filesystem::path& path,
                                                    const HiddenShape& shape) {
  LF_ASSIGN_OR_RETURN(HiddenFile file, HiddenFile::Create(PartialPath(path), shape));
  return RowFileWriter(path, shape, std::move(file));
}

absl::Status RowFileWriter::Add(const at::Tensor& rows) {
  int64_t taken = 0;
  while (taken < rows.size(0) && sequences_ < shape_.sequences) {
    const int64_t count = std::min(rows.size(0) - taken, shape_.length - rows_);
    sequence_[0].narrow(0, rows_, count).copy_(rows.narrow(0, taken, count));
    taken += count;
    rows_ += count;
    if (rows_ < shape_.length) continue;
    LF_RETURN_IF_ERROR(file_.Write(sequences_, sequence_));
    ++sequences_;
    rows_ = 0;
  }
  return absl::OkStatus();
}

absl::Status RowFileWriter::Finish() {
  if (sequences_ < shape_.sequences) {
    return absl::FailedPreconditionError(absl::StrCat(path_.string(), " has ", sequences_,
                                                      " sequences, expected ", shape_.sequences));
  }
  return CommitFile(path_);
}

}  // namespace latentforge::calibrate
