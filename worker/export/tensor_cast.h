// Tensors as bytes in the format of the artifact.
#pragma once

#include <ATen/core/Tensor.h>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "checkpoint/dtype.h"

namespace latentforge::exporter {

// `tensor` as a contiguous CPU tensor of `dtype` (F32, F16 or BF16; others are
// InvalidArgument). A value that is not finite after the cast is InvalidArgument
// and names `name`: fp16 ends at 65504.
absl::StatusOr<at::Tensor> CastTensor(const at::Tensor& tensor, checkpoint::DType dtype,
                                      absl::string_view name);

// Little-endian `bytes` of format `from` (F32, F16, BF16; whole elements, any
// alignment) as a CPU tensor [n] of its own memory.
absl::StatusOr<at::Tensor> TensorFromBytes(absl::string_view bytes, checkpoint::DType from,
                                           absl::string_view name);

// The bytes of a contiguous CPU tensor; borrowed.
absl::string_view BytesOf(const at::Tensor& tensor);

}  // namespace latentforge::exporter
