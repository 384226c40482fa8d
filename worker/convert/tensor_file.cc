#include "worker/convert/tensor_file.h"

#include <ATen/ATen.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "checkpoint/safetensors.h"
#include "worker/convert/error_reason.h"
#include "worker/export/safetensors_writer.h"
#include "worker/export/tensor_cast.h"

namespace latentforge::convert {
namespace {

absl::StatusOr<checkpoint::DType> DTypeOf(const at::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kDouble:
      return checkpoint::DType::kF64;
    case at::kFloat:
      return checkpoint::DType::kF32;
    case at::kHalf:
      return checkpoint::DType::kF16;
    case at::kBFloat16:
      return checkpoint::DType::kBF16;
    default:
      return absl::InvalidArgumentError(
          absl::StrCat("cannot store tensors of type ", at::toString(tensor.scalar_type())));
  }
}

absl::StatusOr<at::ScalarType> ScalarTypeOf(checkpoint::DType dtype) {
  switch (dtype) {
    case checkpoint::DType::kF64:
      return at::kDouble;
    case checkpoint::DType::kF32:
      return at::kFloat;
    case checkpoint::DType::kF16:
      return at::kHalf;
    case checkpoint::DType::kBF16:
      return at::kBFloat16;
    default:
      return absl::InvalidArgumentError(
          absl::StrCat("tensors of type ", checkpoint::NameOf(dtype), " are not written here"));
  }
}

absl::StatusOr<TensorMap> Load(const std::filesystem::path& path, absl::string_view prefix) {
  LF_ASSIGN_OR_RETURN(const checkpoint::SafetensorsFile file,
                      checkpoint::SafetensorsFile::Open(path));
  TensorMap tensors;
  for (const checkpoint::TensorEntry& entry : file.header().tensors) {
    if (!absl::StartsWith(entry.name, prefix)) continue;
    LF_ASSIGN_OR_RETURN(const checkpoint::TensorView view, file.Find(entry.name));
    const std::vector<int64_t> shape(entry.shape.begin(), entry.shape.end());
    LF_ASSIGN_OR_RETURN(const at::ScalarType type, ScalarTypeOf(entry.dtype));
    at::Tensor tensor = at::empty(shape, type);
    std::memcpy(tensor.mutable_data_ptr(), view.bytes.data(), view.bytes.size());
    tensors[entry.name] = tensor;
  }
  return tensors;
}

}  // namespace

absl::Status SaveTensors(const std::filesystem::path& path, const NamedTensors& tensors) {
  std::vector<exporter::TensorDeclaration> declarations;
  std::vector<at::Tensor> values;
  for (const auto& [name, tensor] : tensors) {
    if (!tensor.defined()) continue;
    LF_ASSIGN_OR_RETURN(const checkpoint::DType dtype, DTypeOf(tensor));
    values.push_back(tensor.to(at::kCPU).contiguous());
    declarations.push_back({name, dtype, values.back().sizes().vec()});
  }
  const std::filesystem::path temporary = path.string() + ".tmp";
  LF_RETURN_IF_ERROR(RemoveTree(temporary));
  LF_ASSIGN_OR_RETURN(exporter::SafetensorsWriter writer,
                      exporter::SafetensorsWriter::Create(temporary, declarations));
  for (size_t i = 0; i < values.size(); ++i) {
    LF_RETURN_IF_ERROR(writer.Append(declarations[i].name, exporter::BytesOf(values[i])));
  }
  LF_RETURN_IF_ERROR(writer.Finish().status());
  if (std::rename(temporary.c_str(), path.c_str()) != 0) {
    return ErrnoStatus(errno, "rename to", path);
  }
  return SyncPath(path.parent_path());
}

absl::StatusOr<TensorMap> LoadTensors(const std::filesystem::path& path, absl::string_view prefix) {
  absl::StatusOr<TensorMap> tensors = Load(path, prefix);
  if (tensors.ok() || absl::IsNotFound(tensors.status())) return tensors;
  LF_RETURN_IF_ERROR(RemoveTree(path));
  return WithReason(absl::DataLossError(tensors.status().message()), "CHECKPOINT_CORRUPT");
}

absl::Status SaveStatistics(const std::filesystem::path& path,
                            const factorize::LayerStatistics& statistics) {
  const at::Tensor tokens = at::full({1}, double(statistics.input.tokens), at::kDouble);
  return SaveTensors(path, {{"tokens", tokens},
                            {"mean_abs", statistics.input.mean_abs},
                            {"mean_square", statistics.input.mean_square},
                            {"covariance", statistics.input.covariance},
                            {"key.gram", statistics.key.gram},
                            {"key.cross", statistics.key.cross},
                            {"value.gram", statistics.value.gram},
                            {"value.cross", statistics.value.cross}});
}

absl::StatusOr<factorize::LayerStatistics> LoadStatistics(const std::filesystem::path& path) {
  LF_ASSIGN_OR_RETURN(TensorMap tensors, LoadTensors(path));
  factorize::LayerStatistics statistics;
  statistics.input = {.mean_abs = tensors["mean_abs"],
                      .mean_square = tensors["mean_square"],
                      .covariance = tensors["covariance"]};
  if (tensors["tokens"].defined()) {
    statistics.input.tokens = int64_t(tensors["tokens"].item<double>());
  }
  statistics.key = {.gram = tensors["key.gram"], .cross = tensors["key.cross"]};
  statistics.value = {.gram = tensors["value.gram"], .cross = tensors["value.cross"]};
  return statistics;
}

absl::Status SaveLossStatistics(const std::filesystem::path& path,
                                const factorize::LossStatistics& statistics) {
  const at::Tensor counts =
      at::tensor({double(statistics.tokens), double(statistics.sequences)}, at::kDouble);
  return SaveTensors(path, {{"counts", counts},
                            {"output", statistics.output},
                            {"output_first", statistics.output_first},
                            {"fisher", statistics.fisher},
                            {"fisher_first", statistics.fisher_first}});
}

absl::StatusOr<factorize::LossStatistics> LoadLossStatistics(const std::filesystem::path& path) {
  LF_ASSIGN_OR_RETURN(TensorMap tensors, LoadTensors(path));
  factorize::LossStatistics statistics{.output = tensors["output"],
                                       .output_first = tensors["output_first"],
                                       .fisher = tensors["fisher"],
                                       .fisher_first = tensors["fisher_first"]};
  const at::Tensor counts = tensors["counts"];
  if (counts.defined() && counts.numel() == 2) {
    statistics.tokens = int64_t(counts[0].item<double>());
    statistics.sequences = int64_t(counts[1].item<double>());
  }
  return statistics;
}

}  // namespace latentforge::convert
