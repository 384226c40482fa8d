// A file of rows that pass a point of a layer, sequence by sequence, to be visited again.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/calibrate/hidden_file.h"

namespace latentforge::calibrate {

// Takes rows in order, in blocks of any size, and keeps the first shape.sequences * shape.length of
// them. The file is whole once it has its name. Not safe for concurrent use.
class RowFileWriter {
 public:
  // Errors as HiddenFile::Create.
  static absl::StatusOr<RowFileWriter> Create(const std::filesystem::path& path,
                                              const HiddenShape& shape);

  // Rows [n, width] of any device and type. Errors as HiddenFile::Write; LibTorch's exceptions pass
  // through.
  absl::Status Add(const at::Tensor& rows);

  // Gives the file its name. FailedPrecondition when rows are missing.
  absl::Status Finish();

 private:
  RowFileWriter(std::filesystem::path path, const HiddenShape& shape, HiddenFile file);

  std::filesystem::path path_;
  HiddenShape shape_;
  HiddenFile file_;
  at::Tensor sequence_;    // [1, length, width], of the running sequence
  int64_t rows_ = 0;       // in it
  int64_t sequences_ = 0;  // written
};

}  // namespace latentforge::calibrate
