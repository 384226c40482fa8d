#include "worker/export/tensor_cast.h"

#include <ATen/ATen.h>

#include <cstring>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace latentforge::exporter {
namespace {

absl::StatusOr<at::ScalarType> ScalarTypeOf(checkpoint::DType dtype, absl::string_view name) {
  switch (dtype) {
    case checkpoint::DType::kF32:
      return at::kFloat;
    case checkpoint::DType::kF16:
      return at::kHalf;
    case checkpoint::DType::kBF16:
      return at::kBFloat16;
    default:
      return absl::InvalidArgumentError(absl::StrCat(
          "tensor ", name, " has type ", checkpoint::NameOf(dtype), ", expected F32, F16 or BF16"));
  }
}

}  // namespace

absl::StatusOr<at::Tensor> CastTensor(const at::Tensor& tensor, checkpoint::DType dtype,
                                      absl::string_view name) {
  LF_ASSIGN_OR_RETURN(const at::ScalarType type, ScalarTypeOf(dtype, name));
  at::Tensor cast = tensor.detach().to(at::kCPU, type).contiguous();
  if (!at::isfinite(cast).all().item<bool>()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "tensor ", name, " has a value that is not finite in ", checkpoint::NameOf(dtype)));
  }
  return cast;
}

absl::StatusOr<at::Tensor> TensorFromBytes(absl::string_view bytes, checkpoint::DType from,
                                           absl::string_view name) {
  LF_ASSIGN_OR_RETURN(const at::ScalarType type, ScalarTypeOf(from, name));
  const int64_t element = checkpoint::BytesOf(from);
  if (static_cast<int64_t>(bytes.size()) % element != 0) {
    return absl::InvalidArgumentError(absl::StrCat("tensor ", name, " has ", bytes.size(),
                                                   " bytes, expected a multiple of ", element));
  }
  at::Tensor tensor = at::empty({static_cast<int64_t>(bytes.size()) / element}, type);
  if (!bytes.empty()) std::memcpy(tensor.mutable_data_ptr(), bytes.data(), bytes.size());
  return tensor;
}

absl::string_view BytesOf(const at::Tensor& tensor) {
  return {static_cast<const char*>(tensor.const_data_ptr()), tensor.nbytes()};
}

}  // namespace latentforge::exporter
