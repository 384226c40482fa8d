// Checks that tensors handed to the factorisation have the shape and type it expects.
#pragma once

#include <ATen/core/Tensor.h>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace latentforge::factorize {

// InvalidArgument, naming `name`, what was seen and what was expected, unless
// `tensor` is defined, of `shape`, and fp64.
absl::Status CheckTensor(const at::Tensor& tensor, at::IntArrayRef shape, absl::string_view name);

// Internal, naming `name`, when an element is not finite.
absl::Status CheckFinite(const at::Tensor& tensor, absl::string_view name);

}  // namespace latentforge::factorize
