#include "worker/convert/tensor_file.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

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

absl::StatusOr<TensorMap> Load(const std::filesystem::path& path) {
  LF_ASSIGN_OR_RETURN(const checkpoint::SafetensorsFile file,
                      checkpoint::SafetensorsFile::Open(path));
  TensorMap tensors;
  for (const checkpoint::TensorEntry& entry : file.header().tensors) {
    LF_ASSIGN_OR_RETURN(const checkpoint::TensorView view, file.Find(entry.name));
    const std::vector<int64_t> shape(entry.shape.begin(), entry.shape.end());
    LF_ASSIGN_OR_RETURN(const at::ScalarType type, ScalarTypeOf(entry.dtype));
    at::Tensor tensor = at::empty(shape, type);
    std::memcpy(tensor.mutable_data_ptr(), view.bytes.data(), view.bytes.size());
    tensors[entry.name] = tensor;
  }
  return tensors;
}

// The count at `index` of a list of `size` fp64 counts; 0, which no file has, for anything
// that is not a count.
int64_t CountOf(const at::Tensor& counts, int64_t size, int64_t index) {
  if (!counts.defined() || counts.dim() != 1 || counts.numel() != size) return 0;
  const auto count = counts[index].item<double>();
  return count >= 1 && count <= 0x1p53 ? int64_t(count) : 0;  // NaN: 0
}

bool AllFinite(const TensorMap& tensors) {
  return std::all_of(tensors.begin(), tensors.end(), [](const auto& entry) {
    return !entry.second.defined() || at::isfinite(entry.second).all().template item<bool>();
  });
}

}  // namespace

absl::Status RemoveDamaged(const std::filesystem::path& path, absl::string_view problem) {
  LF_RETURN_IF_ERROR(RemoveTree(path));
  return WithReason(absl::DataLossError(problem), "CHECKPOINT_CORRUPT");
}

absl::Status SaveTensors(const std::filesystem::path& path, const NamedTensors& tensors,
                         Durability durability) {
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
  LF_RETURN_IF_ERROR(writer.Finish(durability).status());
  if (std::rename(temporary.c_str(), path.c_str()) != 0) {
    return ErrnoStatus(errno, "rename to", path);
  }
  return durability == Durability::kMachine ? SyncPath(path.parent_path()) : absl::OkStatus();
}

absl::StatusOr<TensorMap> LoadTensors(const std::filesystem::path& path) {
  absl::StatusOr<TensorMap> tensors = Load(path);
  const absl::Status& status = tensors.status();
  if (absl::IsInvalidArgument(status) || absl::IsDataLoss(status)) {
    return RemoveDamaged(path, status.message());
  }
  if (tensors.ok()) return tensors;
  // Not a failure of the numbers in it.
  return WithReasonByCode(status, {{absl::StatusCode::kInternal, "INTERNAL"}});
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
  const int64_t tokens = CountOf(tensors["tokens"], 1, 0);
  if (tokens < 1 || !AllFinite(tensors)) {
    return RemoveDamaged(path, absl::StrCat(path.string(),
                                            ": expected finite statistics of at "
                                            "least one token"));
  }
  factorize::LayerStatistics statistics;
  statistics.input = {.tokens = tokens,
                      .mean_abs = tensors["mean_abs"],
                      .mean_square = tensors["mean_square"],
                      .covariance = tensors["covariance"]};
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

absl::StatusOr<factorize::LossStatistics> LoadLossStatistics(const std::filesystem::path& path,
                                                             int64_t n) {
  LF_ASSIGN_OR_RETURN(TensorMap tensors, LoadTensors(path));
  factorize::LossStatistics statistics{.tokens = CountOf(tensors["counts"], 2, 0),
                                       .sequences = CountOf(tensors["counts"], 2, 1),
                                       .output = tensors["output"],
                                       .output_first = tensors["output_first"],
                                       .fisher = tensors["fisher"],
                                       .fisher_first = tensors["fisher_first"]};
  if (const absl::Status checked = factorize::CheckLossStatistics(statistics, n); !checked.ok()) {
    return RemoveDamaged(path, absl::StrCat(path.string(), ": ", checked.message()));
  }
  return statistics;
}

}  // namespace latentforge::convert
