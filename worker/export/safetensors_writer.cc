#include "worker/export/safetensors_writer.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/json.h"
#include "base/status_macros.h"

namespace latentforge::exporter {
namespace {

std::string LittleEndian64(uint64_t value) {
  std::string bytes(8, '\0');
  for (int i = 0; i < 8; ++i) bytes[i] = static_cast<char>(value >> (8 * i));
  return bytes;
}

// Length, JSON text and padding.
std::string HeaderText(const std::vector<TensorDeclaration>& tensors,
                       const std::vector<int64_t>& sizes,
                       std::map<std::string, std::string> metadata) {
  metadata["format"] = "pt";
  std::string text = absl::StrCat(R"({"__metadata__":)", WriteJson(metadata));
  int64_t offset = 0;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const Json entry = {{"dtype", std::string(checkpoint::NameOf(tensors[i].dtype))},
                        {"shape", tensors[i].shape},
                        {"data_offsets", {offset, offset + sizes[i]}}};
    absl::StrAppend(&text, ",", WriteJson(tensors[i].name), ":", WriteJson(entry));
    offset += sizes[i];
  }
  text += "}";
  text.append((8 - text.size() % 8) % 8, ' ');
  return LittleEndian64(text.size()) + text;
}

}  // namespace

absl::StatusOr<int64_t> DeclaredBytes(const TensorDeclaration& declaration) {
  int64_t bytes = checkpoint::BytesOf(declaration.dtype);
  if (bytes <= 0) {
    return absl::InvalidArgumentError(absl::StrCat("tensor ", declaration.name, " has type ",
                                                   checkpoint::NameOf(declaration.dtype),
                                                   ", expected whole bytes per element"));
  }
  for (const int64_t dimension : declaration.shape) {
    if (dimension < 0 || __builtin_mul_overflow(bytes, dimension, &bytes)) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor ", declaration.name, " has a dimension of ", dimension,
                       ", expected non-negative dimensions and a size below 2^63 bytes"));
    }
  }
  return bytes;
}

absl::StatusOr<SafetensorsWriter> SafetensorsWriter::Create(
    const std::filesystem::path& path, std::vector<TensorDeclaration> tensors,
    std::map<std::string, std::string> metadata) {
  absl::flat_hash_set<std::string> names;
  std::vector<int64_t> sizes;
  int64_t total = 0;
  for (const TensorDeclaration& tensor : tensors) {
    LF_ASSIGN_OR_RETURN(sizes.emplace_back(), DeclaredBytes(tensor));
    if (__builtin_add_overflow(total, sizes.back(), &total)) {
      return absl::InvalidArgumentError(absl::StrCat(path.string(), " would exceed 2^63 bytes"));
    }
    if (tensor.name.empty() || tensor.name == "__metadata__" || !names.insert(tensor.name).second) {
      return absl::InvalidArgumentError(absl::StrCat("tensor name \"", tensor.name, "\" for ",
                                                     path.string(),
                                                     " is empty, reserved or there twice"));
    }
  }
  UniqueFd fd(open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
  if (!fd.valid()) return ErrnoStatus(errno, "creating", path);
  SafetensorsWriter writer(path, std::move(fd));
  const std::string header = HeaderText(tensors, sizes, std::move(metadata));
  writer.tensors_ = std::move(tensors);
  writer.sizes_ = std::move(sizes);
  LF_RETURN_IF_ERROR(writer.Write(header));
  writer.SkipEmptyTensors();
  return writer;
}

absl::Status SafetensorsWriter::Write(absl::string_view bytes) {
  hash_.Update(bytes);
  while (!bytes.empty()) {
    const ssize_t count = write(fd_.get(), bytes.data(), bytes.size());
    if (count < 0) {
      if (errno == EINTR) continue;
      return ErrnoStatus(errno, "writing", path_);
    }
    bytes.remove_prefix(static_cast<size_t>(count));
  }
  return absl::OkStatus();
}

// A tensor without elements is complete before any byte of it comes.
void SafetensorsWriter::SkipEmptyTensors() {
  while (next_ < tensors_.size() && sizes_[next_] == 0) ++next_;
}

absl::Status SafetensorsWriter::Append(absl::string_view name, absl::string_view bytes) {
  if (bytes.empty()) return absl::OkStatus();
  if (next_ == tensors_.size() || tensors_[next_].name != name) {
    return absl::FailedPreconditionError(
        absl::StrCat("tensor ", name, " was written to ", path_.string(), " where ",
                     next_ == tensors_.size() ? "the end" : tensors_[next_].name, " is expected"));
  }
  const int64_t count = static_cast<int64_t>(bytes.size());
  if (count > sizes_[next_] - written_) {
    return absl::FailedPreconditionError(absl::StrCat("tensor ", name, " has at least ",
                                                      written_ + count, " bytes, declared were ",
                                                      sizes_[next_]));
  }
  LF_RETURN_IF_ERROR(Write(bytes));
  written_ += count;
  if (written_ == sizes_[next_]) {
    ++next_;
    written_ = 0;
    SkipEmptyTensors();
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> SafetensorsWriter::Finish(Durability durability) {
  if (!complete()) {
    return absl::FailedPreconditionError(absl::StrCat("tensor ", tensors_[next_].name, " has ",
                                                      written_, " bytes in ", path_.string(),
                                                      ", declared were ", sizes_[next_]));
  }
  if (durability == Durability::kMachine && fsync(fd_.get()) != 0) {
    return ErrnoStatus(errno, "syncing", path_);
  }
  fd_.Reset();
  return hash_.Finish();
}

}  // namespace latentforge::exporter
