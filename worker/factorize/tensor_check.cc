#include "worker/factorize/tensor_check.h"

#include <ATen/ATen.h>

#include <cmath>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace latentforge::factorize {
namespace {

std::string ShapeText(at::IntArrayRef shape) {
  return absl::StrCat("[", absl::StrJoin(shape.begin(), shape.end(), ", "), "]");
}

}  // namespace

absl::Status CheckTensor(const at::Tensor& tensor, at::IntArrayRef shape, absl::string_view name) {
  if (!tensor.defined()) {
    return absl::InvalidArgumentError(absl::StrCat("statistics lack ", name));
  }
  if (tensor.sizes() != shape || tensor.scalar_type() != at::kDouble) {
    return absl::InvalidArgumentError(absl::StrCat(
        "statistics: ", name, " has shape ", ShapeText(tensor.sizes()), " and type ",
        at::toString(tensor.scalar_type()), ", expected ", ShapeText(shape), " Double"));
  }
  return absl::OkStatus();
}

absl::Status CheckFinite(const at::Tensor& tensor, absl::string_view name) {
  // A sum is finite only if all its terms are, and is far faster than a test of each; it may
  // overflow, though.
  if (std::isfinite(tensor.sum().item<double>())) return absl::OkStatus();
  if (at::isfinite(tensor).all().item<bool>()) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("numerical failure: ", name, " is not finite"));
}

}  // namespace latentforge::factorize
