// Writes one safetensors file as a stream: the header is fixed by the declared
// tensors, then their bytes follow one tensor at a time.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/file.h"
#include "base/sha256.h"
#include "base/unique_fd.h"
#include "checkpoint/dtype.h"

namespace latentforge::exporter {

// What the header says about one tensor.
struct TensorDeclaration {
  std::string name;
  checkpoint::DType dtype;
  std::vector<int64_t> shape;
};

// The bytes that `declaration` occupies. InvalidArgument on a negative dimension
// or a product beyond 63 bits.
absl::StatusOr<int64_t> DeclaredBytes(const TensorDeclaration& declaration);

// A safetensors file being written. Tensors lie in the declared order, without
// gaps; the header is padded to a multiple of 8 bytes and carries metadata, at
// least {"format":"pt"}. The same declarations and bytes give the same file. Movable;
// not safe for concurrent use. The file is left behind, incomplete, when the
// writer dies before Finish: the caller owns the folder.
class SafetensorsWriter {
 public:
  // Creates `path`, which must not exist (AlreadyExists), and writes the header.
  // InvalidArgument on duplicate or empty names.
  static absl::StatusOr<SafetensorsWriter> Create(const std::filesystem::path& path,
                                                  std::vector<TensorDeclaration> tensors,
                                                  std::map<std::string, std::string> metadata = {});

  // Bytes of the tensor whose turn it is, little-endian; a tensor may come in several
  // pieces. FailedPrecondition when it is not the turn of `name` or the pieces exceed
  // the declared size; ResourceExhausted when the disk is full.
  absl::Status Append(absl::string_view name, absl::string_view bytes);

  // True when every declared tensor has all its bytes.
  bool complete() const { return next_ == tensors_.size(); }

  // Closes, and syncs before where it is to outlive the machine; gives the SHA-256 of what was
  // meant to be written, for reading back. FailedPrecondition names the first tensor that is not
  // complete.
  absl::StatusOr<std::string> Finish(Durability durability = Durability::kMachine);

 private:
  SafetensorsWriter(std::filesystem::path path, UniqueFd fd) : path_(path), fd_(std::move(fd)) {}

  absl::Status Write(absl::string_view bytes);
  void SkipEmptyTensors();

  std::filesystem::path path_;
  UniqueFd fd_;
  Sha256 hash_;
  std::vector<TensorDeclaration> tensors_;
  std::vector<int64_t> sizes_;  // bytes of each tensor
  size_t next_ = 0;             // the tensor whose turn it is
  int64_t written_ = 0;         // bytes of that tensor already written
};

}  // namespace latentforge::exporter
